//! The rows of the documents: each is there, and each test that it names exists.
//!
//! Whether a test shows what its row says is for its reader to judge.

use std::collections::BTreeSet;

use crate::repository::{File, files, read};
use crate::{assert_complains, assert_lawful};

/// Where they stand.
const ROWS: &str = "docs/documents.md";

/// How many rows each document has.
const DOCUMENTS: [(u8, u8); 5] = [(0, 9), (1, 13), (2, 5), (3, 8), (4, 6)];

/// The ids in the first column: `1.2`, or several with commas between them.
fn ids(text: &str) -> BTreeSet<(u8, u8)> {
    let rows = text.lines().filter_map(|line| line.strip_prefix("| ")?.split(" |").next());
    let ids = rows.flat_map(|cell| cell.split(", "));
    ids.filter_map(|id| {
        let (document, row) = id.split_once('.')?;
        Some((document.parse().ok()?, row.parse().ok()?))
    })
    .collect()
}

/// The tests that are named, as `module::name`.
fn named(text: &str) -> Vec<(&str, &str)> {
    let code = text.split('`').skip(1).step_by(2);
    let paths = code.filter(|code| !code.contains(|c: char| c.is_whitespace() || c == '/'));
    paths.filter_map(|path| path.rsplit_once("::")).collect()
}

/// The test files of the TypeScript client that are named, with their paths.
fn foreign(text: &str) -> impl Iterator<Item = &str> {
    let code = text.split('`').skip(1).step_by(2);
    code.filter(|code| code.ends_with(".test.ts") || code.ends_with(".test.tsx"))
}

fn check_rows(text: &str) -> Vec<String> {
    let here = ids(text);
    let wanted =
        DOCUMENTS.iter().flat_map(|(document, rows)| (1..=*rows).map(|row| (*document, row)));
    let missing = wanted.filter(|id| !here.contains(id));
    missing.map(|(document, row)| format!("{ROWS} has no row {document}.{row}: add it")).collect()
}

/// Each row names a test, or says what of it is open.
fn check_shown(text: &str) -> Vec<String> {
    let rows = text.lines().filter(|line| !ids(line).is_empty());
    let is_shown = |row: &&str| !named(row).is_empty() || foreign(row).next().is_some();
    let bare = rows.filter(|row| !is_shown(row) && !row.contains("**Open"));
    bare.map(|row| {
        format!("{ROWS} names no test in the row {row}: name one, or say that it is open")
    })
    .collect()
}

fn check_named(text: &str, files: &[File]) -> Vec<String> {
    let exists = |module: &str, name: &str| {
        let module = module.rsplit("::").find(|part| *part != "tests").unwrap_or(module);
        files.iter().any(|file| {
            let of_module = file.path.ends_with(&format!("/{module}.rs"))
                || file.path.contains(&format!("/{module}/"));
            of_module && file.text.contains(&format!("fn {name}("))
        })
    };
    let missing = named(text).into_iter().filter(|(module, name)| !exists(module, name));
    let missing = missing.map(|(module, name)| format!("{module}::{name}"));
    let gone = foreign(text).filter(|path| !files.iter().any(|file| file.path == **path));
    missing
        .chain(gone.map(str::to_owned))
        .map(|name| format!("{ROWS} names {name}, which is no test: correct it"))
        .collect()
}

#[test]
fn every_row_of_the_documents_is_there() {
    assert_lawful(&check_rows(&read(ROWS)));
}

#[test]
fn every_row_names_a_test_or_says_what_is_open() {
    assert_lawful(&check_shown(&read(ROWS)));
}

#[test]
fn every_test_that_a_row_names_exists() {
    let text = read(ROWS);
    assert!(named(&text).len() > 30, "the tests were not found");
    assert_lawful(&check_named(&text, files()));
}

/// The breaches that each check must see.
mod breaches {
    use super::*;

    #[test]
    fn a_row_that_is_missing_is_seen() {
        let text = read(ROWS);
        let cut = |begin: &str| {
            let lines = text.lines().filter(|line| !line.starts_with(begin));
            check_rows(&lines.collect::<Vec<_>>().join("\n"))
        };
        assert_complains(&cut("| 0.2 |"), "no row 0.2");
        assert_eq!(cut("| 3.4, 3.5 |").len(), 2);
    }

    #[test]
    fn a_row_that_is_shown_by_nothing_is_seen() {
        assert_lawful(&check_shown("| 0.1 | x | `a::b` |\n| 0.2 | y | **Open** |\n| row | what |"));
        assert_lawful(&check_shown("| 0.1 | x | `clients/typescript/test/a.test.tsx` |"));
        assert_complains(&check_shown("| 0.1 | x | some tests |"), "no test in the row");
    }

    #[test]
    fn a_test_that_does_not_exist_is_seen() {
        let file = File::new("tests/e2e/a.rs", "fn it_works() {}\n");
        let check = |text| check_named(text, std::slice::from_ref(&file));
        assert_lawful(&check("| 0.1 | `a::it_works`, `GET /x`, `a b::c` |"));
        assert_complains(&check("| 0.1 | `a::it_fails` |"), "a::it_fails");
        assert_complains(&check("| 0.1 | `b::it_works` |"), "b::it_works");
        assert_complains(&check("| 0.1 | `clients/x.test.ts` |"), "clients/x.test.ts");
    }
}
