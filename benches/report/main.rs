//! Makes the measured part of docs/performance.md out of results, and results out of what a run of
//! `benches/run` left:
//!
//! * `report collect DIR ROUNDS SECONDS COUNTER COMMIT DATE` prints results as JSON;
//! * `report table RESULTS` prints the part;
//! * `report write RESULTS` writes it into the document.
//!
//! It must never change a number, nor a word of the document outside of the two markers.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a tool that one person runs: a failed step ends it, with words"
)]

mod render;
mod results;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::{env, fs};

use crate::render::{render, replace};
use crate::results::{Results, collect};

/// Relative to this crate.
const DOCUMENT: &str = "../docs/performance.md";
const COUNTS: &str = "instructions/baseline.txt";

fn beside(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn results(path: &str) -> Results {
    serde_json::from_str(&read(Path::new(path))).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn main() -> ExitCode {
    let words: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        ["collect", folder, rounds, seconds, counter, commit, date] => {
            let results = collect(Path::new(folder), rounds, seconds, counter, commit, date);
            println!("{}", serde_json::to_string_pretty(&results).expect("plain data"));
        }
        ["table", path] => print!("{}", render(&results(path), &read(&beside(COUNTS)))),
        ["write", path] => {
            let document = beside(DOCUMENT);
            let part = render(&results(path), &read(&beside(COUNTS)));
            let text = replace(&read(&document), &part).expect("the document has both markers");
            fs::write(&document, text).expect("the document can be written");
        }
        _ => {
            eprintln!("report: the words are collect …, table RESULTS or write RESULTS");
            return ExitCode::from(2);
        }
    }
    ExitCode::SUCCESS
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::Figure;

    #[test]
    fn results_have_a_value_for_each_round_or_say_what_they_have_instead() {
        let results: Results = serde_json::from_str(&read(&beside("results.json"))).unwrap();
        let rounds = results.rounds as usize;
        let sides = results.figures.iter().flat_map(|figure| {
            let Figure { ours, theirs, ratio, .. } = figure;
            [ours, theirs, ratio].map(|values| (&figure.id, values.len()))
        });
        let short: Vec<_> = sides.filter(|(_, n)| ![0, rounds].contains(n)).collect();
        assert!(short.is_empty() || results.note.is_some(), "of {rounds} rounds: {short:?}");
    }

    #[test]
    fn the_document_shows_the_results_that_are_kept() {
        let results: Results = serde_json::from_str(&read(&beside("results.json"))).unwrap();
        let part = render(&results, &read(&beside(COUNTS)));
        let document = read(&beside(DOCUMENT));
        assert!(
            replace(&document, &part).as_deref() == Some(&document),
            "docs/performance.md is not what benches/results.json and {COUNTS} make: \
             cargo run -p benches --bin report -- write benches/results.json"
        );
    }
}
