//! What `deploy/` installs works: the layout, the image without Docker, the unit, the backup that
//! the operations guide describes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::json;
use tests::foreign::{Tool, python, require};
use tests::process::Process;
use tests::server::{START_DEADLINE, STOP_DEADLINE, Server, command};
use tests::skips::{has_tool, is_root};

use crate::client::Client;
use crate::http::get;

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(file: &str) -> String {
    let path = repository().join(file);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn run(command: &mut Command) -> Output {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {words}");
    output
}

/// Lays the tested binary out under a folder of its own.
fn laid_out(more: &[&str]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let mut script = Command::new(repository().join("deploy/build.sh"));
    script.arg("--output").arg(folder.path()).arg("--binary").arg(command().get_program());
    run(script.args(more));
    folder
}

#[test]
fn the_package_holds_the_binary_a_page_for_each_command_completions_and_the_unit() {
    let folder = laid_out(&[]);
    let at = |path: &str| folder.path().join(path);
    let version = run(Command::new(at("usr/bin/roomkeeper")).arg("version")).stdout;
    assert!(String::from_utf8(version).unwrap().starts_with("roomkeeper "));
    let pages = "usr/share/man/man1";
    for page in ["roomkeeper", "roomkeeper-serve", "roomkeeper-token-inspect", "roomkeeper-health"]
    {
        let text = fs::read_to_string(at(&format!("{pages}/{page}.1"))).unwrap();
        assert!(text.contains(".TH "), "{page}: {text}");
    }
    let main = fs::read_to_string(at(&format!("{pages}/roomkeeper.1"))).unwrap();
    assert!(main.contains("Exit codes") && main.contains("config"), "{main}");
    if has_tool("man", "--version") {
        let mut man = Command::new("man");
        man.args(["--warnings", "-l"]).arg(at(&format!("{pages}/roomkeeper.1")));
        let output = run(man.env("MANPAGER", "cat").env("LC_ALL", "C.UTF-8"));
        assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    }
    let bash = at("usr/share/bash-completion/completions/roomkeeper");
    let script = ". \"$1\"; COMP_WORDS=(roomkeeper hea); COMP_CWORD=1; \
                  _roomkeeper roomkeeper hea roomkeeper; echo \"${COMPREPLY[@]}\"";
    let output = run(Command::new("bash").args(["-c", script, "bash"]).arg(&bash));
    assert_eq!(String::from_utf8(output.stdout).unwrap().trim(), "health");
    let settings = at("usr/share/doc/roomkeeper/roomkeeper.toml");
    run(command().args(["config", "check", "--config"]).arg(settings));
}

#[test]
fn the_image_runs_with_nothing_but_what_is_in_it() {
    let folder = laid_out(&["--image"]);
    let mut files = Vec::new();
    for below in ["usr", "bin"] {
        if folder.path().join(below).is_dir() {
            collect(&folder.path().join(below), &mut files);
        }
    }
    let is_binary = |path: &PathBuf| path.ends_with("usr/bin/roomkeeper");
    assert!(files.iter().any(is_binary), "{files:?}");
    assert!(!files.iter().any(|path| path.ends_with("sh")), "{files:?}");
    if !is_root() || !has_tool("chroot", "--version") {
        return;
    }
    // As the image's own settings say, in another root, as its user.
    let mut server = Command::new("chroot");
    server.args(["--userspec=10001:10001"]).arg(folder.path()).arg("/usr/bin/roomkeeper");
    server.args(["--listen", "127.0.0.1:0", "--set", "auth.allow_anonymous=true"]);
    server.env_clear().env("PATH", std::env::var_os("PATH").unwrap());
    server.envs([("ROOMKEEPER_PROFILE", "production")]);
    server.envs([("ROOMKEEPER_SERVER__DATA_DIR", "/var/lib/roomkeeper")]);
    let mut server = Process::start(server);
    let line = server.next_line(START_DEADLINE).unwrap_or_else(|| panic!("{}", server.report()));
    let address = line.strip_prefix("listening on ").unwrap().to_owned();
    let health = || {
        let mut health = Command::new("chroot");
        health.arg(folder.path()).args(["/usr/bin/roomkeeper", "health", "--url"]);
        health.arg(format!("{address}/readyz")).env_clear();
        health.env("PATH", std::env::var_os("PATH").unwrap()).output().unwrap()
    };
    assert_eq!(String::from_utf8(health().stdout).unwrap(), "ok\n");
    assert!(folder.path().join("var/lib/roomkeeper/roomkeeper.db").is_file());
    server.terminate();
    assert_eq!(server.wait(STOP_DEADLINE).code, Some(0));
    assert_eq!(health().status.code(), Some(1));
}

/// What an image of the tested binary, which is optimised where messages go through, may add to its base, which is
/// empty: it has 57 MiB.
/// That of a release has a third of it, see docs/operations.md.
const IMAGE_BYTES_MAX: u64 = 62 << 20;
/// The libraries of the system and the authorities' certificates: they have 3.2 MiB.
const BESIDE_BINARY_BYTES_MAX: u64 = 6 << 20;

#[test]
fn the_image_is_small_and_holds_no_more_than_is_said() {
    let folder = laid_out(&["--image"]);
    let mut files = Vec::new();
    collect(folder.path(), &mut files);
    let sizes = files.iter().map(|path| fs::symlink_metadata(path).unwrap().len());
    let whole: u64 = sizes.sum();
    let binary = fs::metadata(folder.path().join("usr/bin/roomkeeper")).unwrap().len();
    assert!(whole <= IMAGE_BYTES_MAX, "{whole} bytes, {binary} of them the binary");
    assert!(whole - binary <= BESIDE_BINARY_BYTES_MAX, "{} bytes: {files:?}", whole - binary);
    let is_expected = |path: &&PathBuf| {
        let name = path.file_name().unwrap().to_string_lossy();
        path.ends_with("usr/bin/roomkeeper")
            || path.ends_with("etc/ssl/certs/ca-certificates.crt")
            || name.contains(".so")
    };
    let other: Vec<_> = files.iter().filter(|path| !is_expected(path)).collect();
    assert!(other.is_empty(), "nobody needs {other:?} in an image");
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { collect(&path, files) } else { files.push(path) }
    }
}

#[test]
fn the_dockerfile_uses_the_script_the_toolchain_of_the_repository_and_no_root() {
    let dockerfile = read("deploy/Dockerfile");
    let toolchain: toml::Table = read("rust-toolchain.toml").parse().unwrap();
    let channel = toolchain["toolchain"]["channel"].as_str().unwrap();
    let version = channel.rsplit_once('.').map_or(channel, |(version, _)| version);
    assert!(dockerfile.contains(&format!("FROM rust:{version}-")), "{version}: {dockerfile}");
    assert!(dockerfile.contains("deploy/build.sh --output /image --image"), "{dockerfile}");
    let last = dockerfile.rsplit("\nFROM ").next().unwrap();
    assert!(last.starts_with("scratch\n") && last.contains("\nUSER 10001:10001\n"), "{last}");
    assert!(last.contains("CMD [\"/usr/bin/roomkeeper\", \"health\"]"), "{last}");
    // Its settings are settings.
    let mut check = command();
    for line in last.lines().filter(|line| line.contains("ROOMKEEPER_")) {
        let pair = line.trim_start_matches("ENV").trim().trim_end_matches('\\').trim();
        let (name, value) = pair.split_once('=').unwrap();
        check.env(name, value);
    }
    check.env("ROOMKEEPER_SERVER__BEHIND_PROXY", "true");
    check.env("ROOMKEEPER_AUTH__ALLOW_ANONYMOUS", "true");
    run(check.args(["config", "check"]));
}

#[test]
fn the_settings_of_the_compose_file_are_right() {
    let compose = read("deploy/compose.yaml");
    let secret = tempfile::NamedTempFile::new().unwrap();
    fs::write(secret.path(), "9f86d081884c7d659a2feaa0c55ad0155b1c2f0e7a").unwrap();
    let mut check = command();
    let mut n_settings = 0;
    for line in compose.lines().map(str::trim).filter(|line| line.starts_with("ROOMKEEPER_")) {
        let (name, value) = line.split_once(": ").unwrap();
        let value = value.trim_matches('"');
        let value = if value.starts_with("/run/secrets/") {
            secret.path().to_str().unwrap()
        } else {
            value
        };
        check.env(name, value);
        n_settings += 1;
    }
    assert!(n_settings >= 5, "{compose}");
    check.env("ROOMKEEPER_SERVER__LISTEN", "0.0.0.0:8000");
    run(check.args(["config", "check", "--profile", "production"]));
}

#[test]
fn systemd_takes_the_unit_and_its_settings_are_settings() {
    let unit = read("deploy/roomkeeper.service");
    if has_tool("systemd-analyze", "--version") {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("roomkeeper.service");
        let program = command().get_program().to_str().unwrap().to_owned();
        fs::write(&file, unit.replace("/usr/bin/roomkeeper", &program)).unwrap();
        let mut verify = Command::new("systemd-analyze");
        let output = run(verify.args(["verify", "--man=no"]).arg(&file));
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let about_us: Vec<&str> = said.lines().filter(|l| l.contains("roomkeeper")).collect();
        assert!(about_us.is_empty(), "{said}");
    }
    let started = unit.lines().find_map(|line| line.strip_prefix("ExecStart=/usr/bin/roomkeeper "));
    let folder = tempfile::tempdir().unwrap();
    let secret = folder.path().join("hmac-secret");
    fs::write(&secret, "9f86d081884c7d659a2feaa0c55ad0155b1c2f0e7a").unwrap();
    fs::set_permissions(&secret, std::os::unix::fs::PermissionsExt::from_mode(0o400)).unwrap();
    let settings = folder.path().join("roomkeeper.toml");
    fs::write(&settings, "auth.issuer = \"a\"\nauth.audience = \"b\"\n").unwrap();
    let words =
        started.unwrap().replace("/etc/roomkeeper/roomkeeper.toml", settings.to_str().unwrap());
    let mut check = command();
    for pair in unit.lines().filter_map(|line| line.strip_prefix("Environment=")) {
        let (name, value) = pair.split_once('=').unwrap();
        let place = folder.path().to_str().unwrap();
        check.env(name, value.replace("%S", place).replace("%d", place));
    }
    let words = words.split(' ').filter(|word| *word != "serve");
    run(check.args(["config", "check"]).args(words));
}

#[test]
fn a_backup_taken_while_it_runs_goes_on_where_it_was_taken() {
    if !require(Tool::Python) {
        return;
    }
    let server = Server::start_durable(&["--set", "namespaces.public.durable=true"]);
    let mut ann = Client::open(&server);
    let before = ann.publish("public:a", 1);
    let place = tempfile::tempdir().unwrap();
    let copy = place.path().join("roomkeeper.db");
    let original = server.data().unwrap().join("roomkeeper.db");
    let _ = python("backup.py", &[original.to_str().unwrap(), copy.to_str().unwrap()]);
    ann.publish("public:a", 2);
    drop(server);
    let data = place.path().to_str().unwrap();
    let restored = Server::start(&["--data-dir", data, "--set", "namespaces.public.durable=true"]);
    let mut ann = Client::open(&restored);
    let log = ann.log("public:a", 10);
    assert_eq!(log.iter().map(|message| &message["data"]).collect::<Vec<_>>(), [&json!(1)]);
    let after = ann.publish("public:a", 3);
    assert_eq!((&after["epoch"], &after["offset"]), (&before["epoch"], &json!(2)));
    assert_eq!(get(restored.addr(), "/readyz").status, 200);
}
