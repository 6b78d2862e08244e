//! What is promised to those who embed the core: that putting a host together is short, and that the
//! document shows code that is compiled.

use crate::repository::read;
use crate::{assert_complains, assert_lawful};

/// The hosts whose wiring is counted.
const HOSTS: &[&str] = &[
    "examples/axum_app/src/main.rs",
    "examples/bare_tcp/src/main.rs",
    "examples/rooms_only/src/main.rs",
];
const LINES_MAX: usize = 20;
/// The host whose whole main file is counted, and what it may have: connections and rooms are no more.
const SMALLEST: &str = "examples/rooms_only/src/main.rs";
const SMALLEST_LINES_MAX: usize = 59;
const DOCUMENT: &str = "docs/embedding.md";

const BEGIN: &str = "// wiring: begin";
const END: &str = "// wiring: end";

/// The lines between the two marks, without what they are indented by.
fn wiring(text: &str) -> Result<Vec<&str>, String> {
    let lines: Vec<&str> = text.lines().collect();
    let at = |mark: &str| lines.iter().position(|line| line.trim() == mark);
    match (at(BEGIN), at(END)) {
        (Some(begin), Some(end)) if begin < end => {
            let inside = &lines[begin + 1..end];
            Ok(inside.iter().map(|line| line.strip_prefix("    ").unwrap_or(line)).collect())
        }
        _ => Err(format!("has no `{BEGIN}` with an `{END}` behind it: mark its wiring")),
    }
}

/// Lines of code count; comments and empty lines don't.
fn check_wiring(path: &str, text: &str) -> Option<String> {
    let lines = match wiring(text) {
        Ok(lines) => lines,
        Err(words) => return Some(format!("{path} {words}")),
    };
    let counts = |line: &&&str| !line.trim().is_empty() && !line.trim().starts_with("//");
    let n = lines.iter().filter(counts).count();
    if let Some(line) = lines.iter().find(|line| line.matches(';').count() > 1) {
        return Some(format!("{path} puts two statements into one line: `{line}`"));
    }
    (n == 0 || n > LINES_MAX)
        .then(|| format!("{path} is wired in {n} lines: {LINES_MAX} at most, and not none"))
}

/// Each piece of Rust in the document stands in the file that the line above it names, whole lines
/// and in order; indentation aside.
fn check_document(document: &str, read: &dyn Fn(&str) -> String) -> Vec<String> {
    let trimmed = |text: &str| text.lines().map(str::trim).collect::<Vec<_>>().join("\n");
    let mut complaints = Vec::new();
    let mut pieces = document.split("```rust\n");
    let mut above = pieces.next().unwrap_or_default();
    let mut n_pieces = 0;
    for piece in pieces {
        let code = piece.split("```").next().unwrap_or_default();
        let source = above.trim_end().lines().last().and_then(|line| line.split('`').nth(1));
        above = piece;
        n_pieces += 1;
        let Some(path) = source else {
            complaints
                .push(format!("a piece of Rust names no `file` in the line above it:\n{code}"));
            continue;
        };
        if !format!("\n{}\n", trimmed(&read(path)))
            .contains(&format!("\n{}\n", trimmed(code).trim_end()))
        {
            complaints.push(format!("{path} does not have these lines any more:\n{code}"));
        }
    }
    if n_pieces == 0 {
        complaints.push("it shows no Rust".to_owned());
    }
    complaints
}

#[test]
fn a_host_is_wired_in_twenty_lines() {
    let complaints = HOSTS.iter().filter_map(|path| check_wiring(path, &read(path)));
    assert_lawful(&complaints.collect::<Vec<_>>());
}

#[test]
fn connections_and_rooms_alone_are_served_by_less_than_sixty_lines() {
    let n = read(SMALLEST).lines().count();
    assert!(n <= SMALLEST_LINES_MAX, "{SMALLEST} has {n} lines: {SMALLEST_LINES_MAX} at most");
}

#[test]
fn the_document_shows_code_that_is_compiled() {
    assert_lawful(&check_document(&read(DOCUMENT), &|path| read(path)));
}

#[test]
fn the_document_shows_the_wiring_of_each_host_whole() {
    let document = read(DOCUMENT);
    let missing = HOSTS.iter().filter_map(|path| {
        let code = wiring(&read(path)).map(|lines| lines.join("\n"));
        let shown = code.is_ok_and(|code| document.contains(&code));
        (!shown).then(|| format!("{DOCUMENT} does not show the wiring of {path} as it is"))
    });
    assert_lawful(&missing.collect::<Vec<_>>());
}

/// The breaches that each check must see.
mod breaches {
    use super::*;

    fn host(lines: &str) -> String {
        format!("fn main() {{\n    {BEGIN}\n{lines}\n    {END}\n}}\n")
    }

    #[test]
    fn a_long_wiring_a_dense_one_and_none_are_seen() {
        let complaint = |text: &str| check_wiring("x.rs", text).into_iter().collect::<Vec<_>>();
        assert_lawful(&complaint(&host(&"    go();\n    // why\n\n".repeat(20))));
        assert_complains(&complaint(&host(&"    go();\n".repeat(21))), "21 lines");
        assert_complains(&complaint(&host("    go(); go();")), "two statements");
        assert_complains(&complaint(&host("    // nothing")), "0 lines");
        assert_complains(&complaint("fn main() {}"), "mark its wiring");
    }

    #[test]
    fn code_that_is_in_no_file_is_seen() {
        let read = |_: &str| "fn a() {\n    b();\n    c();\n}\n".to_owned();
        let piece = |code: &str| format!("In `x.rs`:\n\n```rust\n{code}```\n");
        assert_lawful(&check_document(&piece("b();\nc();\n"), &read));
        assert_complains(&check_document(&piece("c();\nb();\n"), &read), "any more");
        assert_complains(&check_document("words\n\n```rust\nb();\n```\n", &read), "names no");
        assert_complains(&check_document("words\n", &read), "no Rust");
    }
}
