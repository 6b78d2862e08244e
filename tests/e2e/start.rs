//! Starting: what is wrong is named, with where it came from, and the exit code says what kind.

use std::fs::{self, Permissions};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;

use tests::server::{Server, exit_of, exit_of_with};

use crate::http::get;

/// A port that somebody has.
fn taken() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    (listener, address)
}

/// C01.
#[test]
fn wrong_settings_are_named_with_their_value_and_their_source() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("bad.toml");
    fs::write(&file, "[server]\nlisten = \"127.0.0.1:0\"\nworkers = \"many\"\n").unwrap();
    let file = file.to_str().unwrap();
    let missing = folder.path().join("missing.toml");
    let missing = missing.to_str().unwrap();
    let no_secret = format!("auth.hmac_secret_file={missing}");
    for (arguments, words) in [
        (&["--set", "server.listne=x"][..], &["server.listne", "--set", "server.listen"][..]),
        (&["--set", "server.workers=many"], &["server.workers", "many", "--set"]),
        (&["--config", file], &["server.workers", "many", file]),
        (&["--config", missing], &[missing]),
        (&["--set", &no_secret], &["auth.hmac_secret_file", missing, "--set"]),
        (&["--set", "heartbeat.interval_ms=1"], &["heartbeat.interval_ms", "1", "--set"]),
    ] {
        let (code, stdout, stderr) = exit_of(&[&["serve"], arguments].concat());
        assert_eq!((code, stdout.as_str()), (Some(78), ""), "{arguments:?}: {stderr}");
        for word in words {
            assert!(stderr.contains(word), "{word} is missing in {stderr}");
        }
        assert!(!stderr.contains("panicked"), "{stderr}");
    }
    let environment = [("ROOMKEEPER_LIMITS__FRAGMENTS_MAX", "a lot")];
    let (code, _, stderr) = exit_of_with(&["serve"], &environment);
    assert_eq!(code, Some(78));
    for word in ["limits.fragments_max", "a lot", "ROOMKEEPER_LIMITS__FRAGMENTS_MAX"] {
        assert!(stderr.contains(word), "{word} is missing in {stderr}");
    }
}

/// C03: a secret that everybody may read.
#[test]
fn production_refuses_what_is_not_safe_and_starts_when_it_is() {
    let production = ["serve", "--profile", "production", "--listen", "127.0.0.1:0"];
    for (setting, words) in [
        ("server.allowed_origins=*", "server.allowed_origins"),
        ("server.echo_endpoint=true", "server.echo_endpoint"),
        ("server.listen=0.0.0.0:0", "auth.hmac_secret"),
    ] {
        let (code, stdout, stderr) = exit_of(&[&production[..], &["--set", setting]].concat());
        assert_eq!((code, stdout.as_str()), (Some(78), ""), "{stderr}");
        assert!(stderr.contains(words), "{stderr}");
        assert!(stderr.contains("auth.hmac_secret"), "{stderr}");
    }
    let data = tempfile::tempdir().unwrap();
    let secret = data.path().join("secret");
    fs::write(&secret, "9f86d081884c7d659a2feaa0c55ad0155b1c2f0e7a\n").unwrap();
    let file = secret;
    let secret = format!("auth.hmac_secret_file={}", file.display());
    // A secret that everybody may read is none.
    fs::set_permissions(&file, Permissions::from_mode(0o644)).unwrap();
    let (code, _, stderr) = exit_of(&[&production[..], &["--set", &secret]].concat());
    assert_eq!(code, Some(78));
    assert!(stderr.contains("auth.hmac_secret_file") && stderr.contains("chmod"), "{stderr}");
    fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
    let server = Server::start(&[
        "--profile",
        "production",
        "--data-dir",
        data.path().to_str().unwrap(),
        "--set",
        &secret,
        "--set",
        "auth.issuer=tests",
        "--set",
        "auth.audience=tests",
    ]);
    assert_eq!(get(server.addr(), "/readyz").status, 200);
    // Nothing is open to nobody there, and the echo endpoint is gone.
    assert_eq!(get(server.addr(), "/ws/somebody").status, 404);
}

/// C04.
#[test]
fn a_port_that_somebody_has_ends_with_74_and_the_address() {
    let (_held, address) = taken();
    let by_flag = exit_of(&["serve", "--profile", "testing", "--listen", &address]);
    let data = tempfile::tempdir().unwrap();
    let environment = [
        ("ROOMKEEPER_SERVER__LISTEN", address.as_str()),
        ("ROOMKEEPER_SERVER__DATA_DIR", data.path().to_str().unwrap()),
    ];
    // The environment counts, and no command at all means to serve.
    for (code, stdout, stderr) in
        [by_flag, exit_of_with(&["serve"], &environment), exit_of_with(&[], &environment)]
    {
        assert_eq!((code, stdout.as_str()), (Some(74), ""), "{stderr}");
        assert!(stderr.contains(&address) && stderr.contains("in use"), "{stderr}");
    }
}

#[test]
fn a_data_directory_that_cannot_be_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "not a directory").unwrap();
    let below = file.join("data");
    let below = below.to_str().unwrap();
    let listen = ["serve", "--profile", "testing", "--listen", "127.0.0.1:0"];
    for directory in [below, file.to_str().unwrap()] {
        let (code, stdout, stderr) = exit_of(&[&listen[..], &["--data-dir", directory]].concat());
        assert_eq!((code, stdout.as_str()), (Some(74), ""), "{stderr}");
        assert!(stderr.contains(directory), "{stderr}");
    }
}

#[test]
fn a_data_directory_that_another_server_uses_is_left_alone() {
    let mut server = Server::start_durable(&[]);
    let directory = server.data().unwrap().to_str().unwrap().to_owned();
    let second = ["serve", "--profile", "testing", "--listen", "127.0.0.1:0"];
    let second = [&second[..], &["--data-dir", &directory]].concat();
    let (code, stdout, stderr) = exit_of(&second);
    assert_eq!((code, stdout.as_str()), (Some(74), ""), "{stderr}");
    assert!(stderr.contains(&directory) && stderr.contains("in use"), "{stderr}");
    assert_eq!(get(server.addr(), "/readyz").status, 200);
    // A server that was killed leaves nothing behind that keeps the next one out.
    server.kill();
    server.restart();
    assert_eq!(get(server.addr(), "/readyz").status, 200);
}

#[test]
fn where_it_listens_is_the_only_line_on_standard_output_in_every_profile() {
    let data = tempfile::tempdir().unwrap();
    let data = data.path().to_str().unwrap();
    for profile in ["development", "testing"] {
        let mut server = Server::start(&["--profile", profile, "--data-dir", data]);
        crate::client::Client::open(&server).publish("public:x", 1);
        server.terminate();
        let exit = server.wait();
        assert_eq!(exit.code, Some(0), "{}", exit.stderr);
        assert_eq!(exit.stdout, format!("listening on http://{}\n", server.addr()));
        assert!(exit.stderr.contains(profile), "{}", exit.stderr);
    }
}
