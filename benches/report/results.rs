//! Results as they are kept: every value of every round, and where and when they were measured.
//!
//! It must never leave out a round.

use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// One run of `benches/run`.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Results {
    pub(crate) machine: Machine,
    pub(crate) commit: String,
    pub(crate) date: String,
    pub(crate) rounds: u32,
    /// How long each span of a round was.
    pub(crate) seconds: f64,
    /// What counted instructions, if anything.
    pub(crate) counter: String,
    /// What one has to know who reads them, where they are not all that a run leaves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) note: Option<String>,
    pub(crate) figures: Vec<Figure>,
    /// The report of `roomkeeper bench storm`.
    pub(crate) storm: Option<Value>,
}

#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Machine {
    pub(crate) processor: String,
    pub(crate) kernel: String,
    pub(crate) cores: usize,
}

/// The values of one figure, one for each round in which it was measured.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(crate) struct Figure {
    pub(crate) id: String,
    pub(crate) ours: Vec<f64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) theirs: Vec<f64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) ratio: Vec<f64>,
}

impl Machine {
    fn this() -> Self {
        let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let line = info.lines().find_map(|line| line.strip_prefix("model name"));
        let name = line.and_then(|line| line.split_once(':')).map_or("unknown", |(_, name)| name);
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        Self {
            processor: name.trim().to_owned(),
            kernel: kernel.trim().to_owned(),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
        }
    }
}

/// What lies in a folder: `figure.ID.SIDE` with a value on each line, and `storm`, a report.
pub(crate) fn collect(
    folder: &Path,
    rounds: &str,
    seconds: &str,
    counter: &str,
    commit: &str,
    date: &str,
) -> Results {
    let mut figures: Vec<Figure> = Vec::new();
    for entry in fs::read_dir(folder).expect("the folder can be listed") {
        let name = entry.expect("the folder can be listed").file_name();
        let name = name.to_string_lossy().into_owned();
        let Some((id, side)) = name.strip_prefix("figure.").and_then(|n| n.rsplit_once('.')) else {
            continue;
        };
        let text = fs::read_to_string(folder.join(&name)).expect("a figure can be read");
        let values = text.lines().map(|line| line.parse().expect("a figure is a number")).collect();
        let at = figures.iter().position(|figure| figure.id == id).unwrap_or_else(|| {
            figures.push(Figure { id: id.to_owned(), ..Figure::default() });
            figures.len() - 1
        });
        match side {
            "ours" => figures[at].ours = values,
            "theirs" => figures[at].theirs = values,
            "ratio" => figures[at].ratio = values,
            _ => panic!("{name}: a figure is ours, theirs or a ratio"),
        }
    }
    figures.sort_by(|a, b| a.id.cmp(&b.id));
    let storm = fs::read_to_string(folder.join("storm")).ok();
    Results {
        machine: Machine::this(),
        commit: commit.to_owned(),
        date: date.to_owned(),
        rounds: rounds.parse().expect("a number of rounds"),
        seconds: seconds.parse().expect("a number of seconds"),
        counter: counter.to_owned(),
        note: None,
        figures,
        storm: storm.map(|text| serde_json::from_str(&text).expect("a storm's report is JSON")),
    }
}
