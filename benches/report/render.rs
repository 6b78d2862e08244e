//! Results as Markdown.
//!
//! It must never round in anybody's favour, nor hide a figure that is missing.

use std::fmt::Write as _;

use serde_json::Value;

use crate::results::{Figure, Results};

const BEGIN: &str = "<!-- measured: what follows is written by benches/run -->";
const END: &str = "<!-- measured: end -->";

/// One figure of the document: its id, what it is called, its goal, its unit and its digits.
type Row = (&'static str, &'static str, &'static str, &'static str, usize);

const ROWS: [Row; 16] = [
    ("instructions", "user instructions per delivery", "≤ 200", "", 0),
    ("each", "CPU per delivery, one message under way, to `floor --mode each`", "≤ 1.10x", "ns", 0),
    ("batch", "CPU per delivery, eight under way, to `floor --mode batch`", "≤ 1.5x", "ns", 1),
    (
        "overhead",
        "CPU per delivery, eight under way, to a build without metrics and limits on rates",
        "≤ 1.02x",
        "ns",
        1,
    ),
    ("memory", "memory per idle connection in a room", "≤ 2.5 KiB", "KiB", 2),
    ("idle", "CPU per 1,000 idle connections, default heartbeat", "≤ 0.3 %", "%", 4),
    ("beat", "the same, heartbeat every 2 s", "", "%", 4),
    (
        "connect",
        "CPU per connect with HS256 token and one subscribe, to `floor`",
        "≤ 25 µs",
        "µs",
        1,
    ),
    ("ticket", "CPU per connect with ticket and one room brought back", "≤ 15 µs", "µs", 1),
    ("http", "CPU per publish over HTTP, 16 connections kept alive", "≤ 40 µs", "µs", 1),
    (
        "chat",
        "CPU per delivery on `/ws/chat`, to the same room over protocol v2",
        "≤ 1.15x",
        "ns",
        0,
    ),
    ("letters", "5,000 users come back to 100 messages each: until all have all", "≤ 5 s", "s", 2),
    ("letters_long", "1,000 users, to 100 messages of 1,000 characters by 50 senders", "", "s", 2),
    ("flood", "flood: publish rate, 256 under way, to `floor --mode batch`", "≥ 0.8x", "/s", 0),
    (
        "flood_bytes",
        "the same, the floor with messages as long as Roomkeeper's frames",
        "",
        "/s",
        0,
    ),
    ("stall", "one stalled member: the others' p99, to none stalled", "≤ 1.10x", "µs", 0),
];

/// The whole measured part, without its markers.
pub(crate) fn render(results: &Results, counts: &str) -> String {
    let mut out = String::new();
    let machine = &results.machine;
    let _ = writeln!(
        out,
        "{}; Linux {}; {} cores; commit {}; {}; rounds: {}, spans of {} s; instructions by {}\n",
        machine.processor,
        machine.kernel,
        machine.cores,
        results.commit,
        results.date,
        results.rounds,
        results.seconds,
        results.counter,
    );
    if let Some(note) = &results.note {
        let _ = writeln!(out, "{note}\n");
    }
    out.push_str("| figure | goal | Roomkeeper | compared with | ratio | least to most |\n");
    out.push_str("|---|---|---|---|---|---|\n");
    for row in ROWS {
        let figure = results.figures.iter().find(|figure| figure.id == row.0);
        let _ = writeln!(out, "{}", line(row, figure));
    }
    if let Some(storm) = &results.storm {
        out.push('\n');
        out.push_str(&storm_table(storm));
    }
    out.push('\n');
    out.push_str(&counts_table(counts));
    out
}

fn line((_, name, goal, unit, digits): Row, figure: Option<&Figure>) -> String {
    let Some(figure) = figure.filter(|figure| !figure.ours.is_empty()) else {
        return format!("| {name} | {goal} | not measured | | | |");
    };
    let of = |values: &[f64]| match median(values) {
        Some(value) if unit.is_empty() => format!("{value:.digits$}"),
        Some(value) => format!("{value:.digits$} {unit}"),
        None => "-".to_owned(),
    };
    let (ratio, spread) = match median(&figure.ratio) {
        Some(ratio) => (format!("{ratio:.3}"), spread(&figure.ratio, 3)),
        None => ("-".to_owned(), spread(&figure.ours, digits)),
    };
    let (ours, theirs) = (of(&figure.ours), of(&figure.theirs));
    format!("| {name} | {goal} | {ours} | {theirs} | {ratio} | {spread} |")
}

fn spread(values: &[f64], digits: usize) -> String {
    let least = values.iter().copied().fold(f64::INFINITY, f64::min);
    let most = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    match values.len() {
        1 => "one round".to_owned(),
        _ => format!("{least:.digits$} to {most:.digits$}"),
    }
}

fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let (low, high) = (sorted.len().checked_sub(1)? / 2, sorted.len() / 2);
    Some(f64::midpoint(sorted[low], sorted[high]))
}

fn storm_table(storm: &Value) -> String {
    let text = |at: &str| match storm.pointer(at) {
        None | Some(Value::Null) => "not".to_owned(),
        Some(value) => value.to_string(),
    };
    let seconds = |at: &str| format!("{} s", text(at));
    format!(
        "| coming back: connections | goal | back | half | 99 % | all | lost | twice |\n\
         |---|---|---|---|---|---|---|---|\n\
         | {} in {} rooms, {} each | 99 % ≤ 5 s | {} | {} | {} | {} | {} | {} |\n",
        text("/settings/connections"),
        text("/settings/rooms"),
        text("/settings/rooms_each"),
        text("/results/back"),
        seconds("/results/p50_s"),
        seconds("/results/p99_s"),
        seconds("/results/max_s"),
        text("/deliveries/lost"),
        text("/deliveries/duplicated"),
    )
}

fn counts_table(counts: &str) -> String {
    let kind = counts.lines().nth(1).unwrap_or_default().trim_start_matches("# ");
    let mut out = format!("| instructions of one operation ({kind}) | |\n|---|---|\n");
    for line in counts.lines().filter(|line| !line.starts_with('#')) {
        let (name, count) = line.split_once(' ').expect("a count has a name");
        let _ = writeln!(out, "| {name} | {count} |");
    }
    out
}

/// The document with another part between the markers; none where one of them is missing.
pub(crate) fn replace(document: &str, part: &str) -> Option<String> {
    let (before, rest) = document.split_once(BEGIN)?;
    let (_, behind) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}\n\n{part}\n{END}{behind}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure(ours: &[f64], theirs: &[f64], ratio: &[f64]) -> Figure {
        let id = "each".to_owned();
        Figure { id, ours: ours.to_vec(), theirs: theirs.to_vec(), ratio: ratio.to_vec() }
    }

    #[test]
    fn a_row_has_the_medians_and_the_spread_of_the_ratio() {
        let row = ("each", "x", "≤ 1", "ns", 0);
        let measured = figure(&[3.0, 1.0, 2.0], &[2.0, 2.0], &[1.5, 0.5, 1.0]);
        assert_eq!(
            line(row, Some(&measured)),
            "| x | ≤ 1 | 2 ns | 2 ns | 1.000 | 0.500 to 1.500 |"
        );
        let alone = figure(&[3.0, 1.0], &[], &[]);
        assert_eq!(line(row, Some(&alone)), "| x | ≤ 1 | 2 ns | - | - | 1 to 3 |");
        assert_eq!(
            line(row, Some(&figure(&[3.0], &[], &[]))),
            "| x | ≤ 1 | 3 ns | - | - | one round |"
        );
        assert_eq!(line(row, None), "| x | ≤ 1 | not measured | | | |");
    }

    #[test]
    fn only_what_stands_between_the_markers_changes() {
        let document = format!("a\n{BEGIN}\nold\n{END}\nb\n");
        let new = replace(&document, "new\n").unwrap();
        assert_eq!(new, format!("a\n{BEGIN}\n\nnew\n\n{END}\nb\n"));
        assert_eq!(replace(&new, "new\n").as_deref(), Some(&*new));
        assert_eq!(replace("a", "new"), None);
    }

    #[test]
    fn a_storm_that_did_not_end_is_not_shown_as_one_that_did() {
        let storm = serde_json::json!({"results": {"back": 3, "p99_s": null}});
        assert!(storm_table(&storm).contains("| 3 | not s | not s |"));
    }
}
