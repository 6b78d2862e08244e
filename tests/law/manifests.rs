//! What every `Cargo.toml` says: its name, its place, its lints, its dependencies.

use std::collections::BTreeSet;

use toml::Table;

use crate::repository::{File, Member, files, members, read};
use crate::{assert_complains, assert_lawful};

/// One folder is one crate of the same name.
fn check_folder(member: &Member) -> Option<String> {
    let folder = member.folder.rsplit('/').next().unwrap_or_default();
    (folder != member.name).then(|| {
        format!(
            "crate `{}` lives in `{}`: rename the folder or the crate so that they agree",
            member.name, member.folder
        )
    })
}

/// `<capability>_<technology>`, so that the list of folders is the list of choices.
fn check_adapter_name(member: &Member) -> Option<String> {
    let is_adapter = member.folder.starts_with("adapters/");
    (is_adapter && !member.name.contains('_'))
        .then(|| format!("adapter `{}` must be named <capability>_<technology>", member.name))
}

/// Lints come from the root, and so does the version of every dependency.
fn check_manifest(manifest: &File) -> Vec<String> {
    let path = &manifest.path;
    let table: Table = match manifest.text.parse() {
        Ok(table) => table,
        Err(error) => return vec![format!("{path} is not TOML: {error}")],
    };
    let mut complaints = Vec::new();
    let inherits = |value: Option<&toml::Value>| {
        value.and_then(|v| v.get("workspace")).and_then(toml::Value::as_bool) == Some(true)
    };
    if !inherits(table.get("lints")) {
        complaints.push(format!("{path} must say `[lints] workspace = true`"));
    }
    for section in ["dependencies", "dev-dependencies", "build-dependencies"] {
        let Some(entries) = table.get(section).and_then(toml::Value::as_table) else { continue };
        for (name, value) in entries {
            if !inherits(Some(value)) {
                complaints.push(format!(
                    "{path} gives `{name}` a version of its own: write it into \
                     [workspace.dependencies] of the root and say `{name}.workspace = true`"
                ));
            }
        }
    }
    complaints
}

/// A crate that nobody builds is a crate that nobody tests. A workspace of its own is let be.
fn check_listed(manifest: &File, members: &BTreeSet<&str>) -> Option<String> {
    let folder = manifest.path.strip_suffix("/Cargo.toml")?;
    let own_workspace = manifest.text.lines().any(|line| line.trim() == "[workspace]");
    (!own_workspace && !members.contains(folder))
        .then(|| format!("{folder} is no member: list it under `members` in the root Cargo.toml"))
}

#[test]
fn every_crate_is_named_like_its_folder_and_every_adapter_by_its_technology() {
    let mut complaints = members().iter().filter_map(check_folder).collect::<Vec<_>>();
    complaints.extend(members().iter().filter_map(check_adapter_name));
    assert_lawful(&complaints);
}

#[test]
fn every_manifest_inherits_lints_and_versions_from_the_root() {
    let complaints = members()
        .iter()
        .map(|member| format!("{}/Cargo.toml", member.folder))
        .flat_map(|path| check_manifest(&File::new(&path, &read(&path))))
        .collect::<Vec<_>>();
    assert_lawful(&complaints);
}

#[test]
fn every_crate_in_the_repository_is_a_member_of_the_workspace() {
    let folders = members().iter().map(|member| member.folder.as_str()).collect();
    let manifests = files().iter().filter(|file| file.path.ends_with("Cargo.toml"));
    let complaints = manifests.filter_map(|m| check_listed(m, &folders)).collect::<Vec<_>>();
    assert_lawful(&complaints);
}

/// The breaches that each check must see.
mod breaches {
    use super::*;

    fn member(name: &str, folder: &str) -> Member {
        Member { name: name.to_owned(), folder: folder.to_owned(), ..Member::default() }
    }

    #[test]
    fn a_crate_in_a_folder_of_another_name_is_seen() {
        let complaint = check_folder(&member("store_sqlite", "adapters/sqlite"));
        assert_complains(complaint.as_slice(), "rename the folder");
        assert!(check_folder(&member("store_sqlite", "adapters/store_sqlite")).is_none());
    }

    #[test]
    fn an_adapter_without_a_technology_is_seen() {
        let complaint = check_adapter_name(&member("storage", "adapters/storage"));
        assert_complains(complaint.as_slice(), "<capability>_<technology>");
        assert!(check_adapter_name(&member("domain", "domain")).is_none());
    }

    #[test]
    fn a_manifest_with_lints_or_versions_of_its_own_is_seen() {
        let no_lints = File::new("x/Cargo.toml", "[package]\nname = \"x\"\n");
        assert_complains(&check_manifest(&no_lints), "[lints] workspace = true");
        let versioned = "lints.workspace = true\n[dev-dependencies]\nbytes = \"1\"\n";
        assert_complains(&check_manifest(&File::new("x/Cargo.toml", versioned)), "`bytes`");
        assert_complains(&check_manifest(&File::new("x/Cargo.toml", "= =")), "is not TOML");
        let lawful = "lints.workspace = true\n[dependencies]\nbytes.workspace = true\n";
        assert_lawful(&check_manifest(&File::new("x/Cargo.toml", lawful)));
    }

    #[test]
    fn a_forgotten_crate_is_seen() {
        let folders = BTreeSet::from(["domain"]);
        let forgotten = File::new("adapters/lost/Cargo.toml", "[package]\n");
        assert_complains(check_listed(&forgotten, &folders).as_slice(), "is no member");
        let apart = File::new("fuzz/Cargo.toml", "[package]\n[workspace]\n");
        assert!(check_listed(&apart, &folders).is_none());
        assert!(check_listed(&File::new("domain/Cargo.toml", ""), &folders).is_none());
    }
}
