//! What the documents promise: a title, links that lead somewhere, a reason for every dependency,
//! and no word about the machine that they were written on.

use std::collections::BTreeSet;

use toml::Table;

use crate::repository::{File, Member, files, files_with, members, read, root};
use crate::{assert_complains, assert_lawful};

/// Where the reasons stand.
const REASONS: &str = "docs/dependencies.md";

/// Paths of one machine, put together from halves so that this file is lawful too.
const MACHINE_PATHS: &[&str] = &[concat!("/wo", "rk/"), concat!("/tm", "p/wt")];

/// The lines of a Markdown text outside of fenced code.
fn prose(text: &str) -> impl Iterator<Item = &str> {
    let mut fenced = false;
    text.lines().filter(move |line| {
        let fence = line.trim_start().starts_with("```");
        fenced ^= fence;
        !fence && !fenced
    })
}

fn check_title(file: &File) -> Option<String> {
    let titles = prose(&file.text).filter(|line| line.starts_with("# ")).count();
    (titles != 1).then(|| format!("{} has {titles} titles (`# …`): give it exactly one", file.path))
}

/// Targets of `[words](target)` in prose, outside of `code`.
fn links(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for line in prose(text) {
        let outside_code = line.split('`').step_by(2).collect::<Vec<_>>().join("code");
        for (start, _) in outside_code.match_indices("](") {
            let target = outside_code[start + 2..].split(')').next().unwrap_or_default();
            found.push(target.split_whitespace().next().unwrap_or_default().to_owned());
        }
    }
    found
}

fn check_links(file: &File, exists: &dyn Fn(&str) -> bool) -> Vec<String> {
    let folder = file.path.rsplit_once('/').map_or("", |(folder, _)| folder);
    let mut complaints = Vec::new();
    for target in links(&file.text) {
        let elsewhere = target.contains("://") || target.starts_with("mailto:");
        let path = target.split(['#', '?']).next().unwrap_or_default();
        if elsewhere || path.is_empty() {
            continue;
        }
        let path = match path.strip_prefix('/') {
            Some(absolute) => absolute.to_owned(),
            None if folder.is_empty() => path.to_owned(),
            None => format!("{folder}/{path}"),
        };
        if !exists(&path) {
            complaints.push(format!(
                "{} links to `{target}`, and there is no {path}: correct the link",
                file.path
            ));
        }
    }
    complaints
}

/// The names in the first column of the tables, written as `name`; one cell may hold several.
fn explained(reasons: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for line in prose(reasons) {
        let Some(row) = line.strip_prefix('|') else { continue };
        let cell = row.split('|').next().unwrap_or_default();
        names.extend(cell.split('`').skip(1).step_by(2).map(str::to_owned));
    }
    names
}

/// Every direct dependency has its row, and every row is of something that the root knows.
fn check_reasons(reasons: &str, members: &[Member], known: &BTreeSet<String>) -> Vec<String> {
    let explained = explained(reasons);
    let ours = members.iter().map(|m| m.name.as_str()).collect::<BTreeSet<_>>();
    let mut complaints = Vec::new();
    for member in members {
        for edge in &member.dependencies {
            if !ours.contains(edge.name.as_str()) && !explained.contains(&edge.name) {
                complaints.push(format!(
                    "`{}` uses `{}`, which has no row in {REASONS}: add one with the reason",
                    member.name, edge.name
                ));
            }
        }
    }
    for name in explained.difference(known) {
        complaints.push(format!(
            "{REASONS} explains `{name}`, which is not in [workspace.dependencies]: delete the row"
        ));
    }
    complaints
}

fn check_machine(file: &File) -> Option<String> {
    let path = MACHINE_PATHS.iter().find(|path| file.text.contains(**path))?;
    let line = file.text.lines().position(|line| line.contains(path)).unwrap_or_default() + 1;
    Some(format!(
        "{}:{line} names `{path}`, a path of one machine: say it relative to the repository",
        file.path
    ))
}

#[test]
fn every_document_has_one_title() {
    assert!(files_with("md").count() > 2, "the documents were not found");
    assert_lawful(&files_with("md").filter_map(check_title).collect::<Vec<_>>());
}

#[test]
fn every_link_between_files_leads_somewhere() {
    let root = root();
    let exists = |path: &str| root.join(path).exists();
    assert_lawful(&files_with("md").flat_map(|f| check_links(f, &exists)).collect::<Vec<_>>());
}

#[test]
fn every_dependency_has_its_reason() {
    let manifest: Table = read("Cargo.toml").parse().expect("Cargo.toml is TOML");
    let known = manifest["workspace"]["dependencies"].as_table().expect("a table");
    let known = known.keys().cloned().collect();
    assert_lawful(&check_reasons(&read(REASONS), members(), &known));
}

#[test]
fn no_file_names_a_path_of_one_machine() {
    assert_lawful(&files().iter().filter_map(check_machine).collect::<Vec<_>>());
}

/// The breaches that each check must see.
mod breaches {
    use super::*;
    use crate::repository::Dependency;

    #[test]
    fn no_title_and_two_titles_are_seen() {
        assert_complains(check_title(&File::new("a.md", "words\n")).as_slice(), "0 titles");
        assert_complains(check_title(&File::new("a.md", "# A\n# B\n")).as_slice(), "2 titles");
        let fenced = "# A\n```sh\n# a comment\n```\n## B\n";
        assert!(check_title(&File::new("a.md", fenced)).is_none());
    }

    #[test]
    fn a_link_that_leads_nowhere_is_seen() {
        let exists = |path: &str| path == "docs/b.md";
        let lawful = "[b](b.md) [c](b.md#d) [e](#f) [g](https://h.example/i) [j](/docs/b.md)\n";
        assert_lawful(&check_links(&File::new("docs/a.md", lawful), &exists));
        let code = "`[x](y.md)`\n```\n[x](y.md)\n```\n";
        assert_lawful(&check_links(&File::new("docs/a.md", code), &exists));
        let broken = File::new("docs/a.md", "see [c](c.md \"title\")\n");
        assert_complains(&check_links(&broken, &exists), "no docs/c.md");
        assert_complains(&check_links(&File::new("a.md", "[b](b.md)"), &exists), "no b.md");
    }

    #[test]
    fn a_dependency_without_a_reason_and_a_reason_without_a_dependency_are_seen() {
        let bytes = Dependency { name: "bytes".to_owned(), ..Dependency::default() };
        let member =
            Member { name: "domain".to_owned(), dependencies: vec![bytes], ..Member::default() };
        let members = [member];
        let known = BTreeSet::from(["bytes".to_owned()]);
        let table = "| crate | why |\n|---|---|\n| `bytes` | shared |\n";
        assert_lawful(&check_reasons(table, &members, &known));
        assert_complains(&check_reasons("", &members, &known), "no row");
        let stale = format!("{table}| `gone` | once |\n");
        assert_complains(&check_reasons(&stale, &members, &known), "delete the row");
    }

    #[test]
    fn a_path_of_one_machine_is_seen() {
        for path in MACHINE_PATHS {
            let text = format!("one\ntwo {path}x\n");
            assert_complains(check_machine(&File::new("a.toml", &text)).as_slice(), "a.toml:2");
        }
        assert!(check_machine(&File::new("a.toml", "work/tmp\n")).is_none());
    }
}
