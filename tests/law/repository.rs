//! What the checks look at: the crates as cargo sees them, and the files of the repository.
//!
//! It must never look into build output, installed packages or anything that git ignores.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use serde_json::Value;

/// One member of the workspace.
#[derive(Clone, Debug, Default)]
pub(crate) struct Member {
    pub(crate) name: String,
    /// Relative to the root, with `/`.
    pub(crate) folder: String,
    pub(crate) dependencies: Vec<Dependency>,
}

/// One edge out of a member, as its manifest asks for it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Dependency {
    pub(crate) name: String,
    pub(crate) kind: Kind,
    pub(crate) optional: bool,
    pub(crate) features: Vec<String>,
}

/// Which table of the manifest an edge stands in.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) enum Kind {
    #[default]
    Normal,
    Development,
    Build,
}

/// One package in the resolved tree, ours or not.
#[derive(Clone, Debug)]
pub(crate) struct Package {
    pub(crate) name: String,
    pub(crate) version: String,
}

/// One text file.
#[derive(Clone, Debug)]
pub(crate) struct File {
    /// Relative to the root, with `/`.
    pub(crate) path: String,
    pub(crate) text: String,
}

impl File {
    pub(crate) fn new(path: &str, text: &str) -> Self {
        Self { path: path.to_owned(), text: text.to_owned() }
    }

    pub(crate) fn has_extension(&self, extension: &str) -> bool {
        Path::new(&self.path).extension().is_some_and(|e| e == extension)
    }
}

/// The root of the workspace.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ lies in the root").to_owned()
}

/// Every member of the workspace.
pub(crate) fn members() -> &'static [Member] {
    static MEMBERS: OnceLock<Vec<Member>> = OnceLock::new();
    MEMBERS.get_or_init(|| {
        let metadata = metadata(&["--no-deps"]);
        list(&metadata["packages"]).iter().map(member).collect()
    })
}

/// Everything that a build with all features on this machine would compile.
pub(crate) fn packages() -> &'static [Package] {
    static PACKAGES: OnceLock<Vec<Package>> = OnceLock::new();
    PACKAGES.get_or_init(|| {
        // Not `cargo metadata`: that also lists what is only named by a feature of the form
        // `name?/feature`, which asks for nothing.
        let host = host();
        let output = Command::new(env!("CARGO"))
            .args(["tree", "--workspace", "--all-features", "--locked", "--target", &host])
            .args(["--edges", "normal,build,dev", "--prefix", "none", "--format", "{p}"])
            .current_dir(root())
            .output()
            .expect("cargo runs");
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "cargo tree failed:\n{complaint}");
        let lines = String::from_utf8_lossy(&output.stdout).into_owned();
        let mut packages: Vec<_> = lines.lines().filter_map(package_of).collect();
        packages.sort_unstable_by(|a, b| (&a.name, &a.version).cmp(&(&b.name, &b.version)));
        packages.dedup_by(|a, b| a.name == b.name && a.version == b.version);
        packages
    })
}

/// Reads `name v1.2.3`, with whatever cargo adds.
fn package_of(line: &str) -> Option<Package> {
    let mut words = line.split_whitespace();
    let name = words.next()?.to_owned();
    let version = words.next()?.strip_prefix('v')?.to_owned();
    Some(Package { name, version })
}

/// Every text file that git would keep.
pub(crate) fn files() -> &'static [File] {
    static FILES: OnceLock<Vec<File>> = OnceLock::new();
    FILES.get_or_init(|| {
        let mut found = Vec::new();
        gather(&root(), "", &mut found);
        found.sort_by(|a, b| a.path.cmp(&b.path));
        found
    })
}

/// The text files with this extension.
pub(crate) fn files_with(extension: &str) -> impl Iterator<Item = &'static File> {
    files().iter().filter(move |file| file.has_extension(extension))
}

/// The text of one file that must be there.
pub(crate) fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|e| panic!("{path} must be there: {e}"))
}

const SKIPPED_ANYWHERE: &[&str] =
    &[".git", ".venv", "__pycache__", "node_modules", "target", "coverage", "dist"];
const SKIPPED_AT_ROOT: &[&str] = &["data"];

fn gather(folder: &Path, prefix: &str, found: &mut Vec<File>) {
    for entry in fs::read_dir(folder).expect("a folder of the repository can be listed") {
        let entry = entry.expect("a folder of the repository can be listed");
        let name = entry.file_name().to_string_lossy().into_owned();
        let skipped = SKIPPED_ANYWHERE.contains(&name.as_str())
            || (prefix.is_empty() && SKIPPED_AT_ROOT.contains(&name.as_str()));
        if skipped {
            continue;
        }
        let path = format!("{prefix}{name}");
        let kind = entry.file_type().expect("an entry has a type");
        if kind.is_dir() {
            gather(&entry.path(), &format!("{path}/"), found);
        } else if kind.is_file()
            && let Ok(text) = fs::read_to_string(entry.path())
        {
            found.push(File { path, text });
        }
    }
}

fn member(package: &Value) -> Member {
    let manifest = PathBuf::from(text(&package["manifest_path"]));
    let folder = manifest.parent().expect("a manifest lies in a folder");
    let folder = folder.strip_prefix(root()).expect("members lie below the root");
    Member {
        name: text(&package["name"]),
        folder: folder.to_string_lossy().replace('\\', "/"),
        dependencies: list(&package["dependencies"]).iter().map(dependency).collect(),
    }
}

fn dependency(value: &Value) -> Dependency {
    Dependency {
        name: text(&value["name"]),
        kind: match value["kind"].as_str() {
            None => Kind::Normal,
            Some("dev") => Kind::Development,
            Some("build") => Kind::Build,
            Some(other) => panic!("cargo knows a new kind of dependency, {other}: teach it here"),
        },
        optional: value["optional"].as_bool().expect("cargo says whether it is optional"),
        features: list(&value["features"]).iter().map(text).collect(),
    }
}

fn metadata(arguments: &[&str]) -> Value {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--locked"])
        .args(arguments)
        .current_dir(root())
        .output()
        .expect("cargo runs");
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "cargo metadata failed:\n{complaint}");
    serde_json::from_slice(&output.stdout).expect("cargo metadata writes JSON")
}

fn host() -> String {
    let output = Command::new(env!("CARGO")).arg("-vV").output().expect("cargo runs");
    let words = String::from_utf8_lossy(&output.stdout).into_owned();
    let host = words.lines().find_map(|line| line.strip_prefix("host: "));
    host.expect("cargo -vV names the host").to_owned()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().expect("cargo metadata has a list here")
}

fn text(value: &Value) -> String {
    value.as_str().expect("cargo metadata has a string here").to_owned()
}
