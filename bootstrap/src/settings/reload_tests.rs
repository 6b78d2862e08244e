//! What a reload changes: the words of the documentation and the deed agree, key by key.

use super::reload::{Reload, changed, combined, of};
use super::schema::{KEYS, Key, Kind};
use super::tests::set;
use super::*;

/// The settings as text, with the secrets in it.
fn text(settings: &Settings) -> String {
    use secrecy::ExposeSecret;
    let auth = &settings.auth;
    let secret = [&auth.hmac_secret, &auth.ticket_secret]
        .map(|secret| secret.as_ref().map(|s| s.expose_secret().to_owned()));
    let keys = settings.api.keys.values();
    let keys: Vec<_> =
        keys.map(|key| key.key.as_ref().map(|s| s.expose_secret().to_owned())).collect();
    format!("{settings:?} {secret:?} {keys:?}")
}

const SECRET: &str = "9f86d081884c7d659a2feaa0c55ad0159f86d081884c7d659a2feaa0c55ad015";

/// Settings that differ from the built-in ones in this key, with what goes with it.
fn different(key: &Key, files: &tempfile::TempDir) -> Vec<(String, String)> {
    let file = |name: &str, text: &str| {
        let path = files.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let path = key.path.replace("api.keys.*", "api.keys.backend").replace('*', "chat");
    let value = match (key.path, key.kind) {
        ("profile", _) => "testing".to_owned(),
        (
            "auth.hmac_secret_file"
            | "auth.ticket_secret_file"
            | "redis.password_file"
            | "redis.ca_file"
            | "redis.sentinel_password_file"
            | "store.password_file"
            | "api.keys.*.key_file",
            _,
        ) => file("secret", SECRET),
        ("store.url", _) => "postgres://example/rooms".to_owned(),
        ("auth.keys_file", _) => file("keys", r#"{"keys": []}"#),
        ("auth.algorithms", _) => "HS384".to_owned(),
        ("auth.jwks_url", _) => "https://issuer.example/keys".to_owned(),
        ("auth.jwks_algorithms", _) => "ES256".to_owned(),
        ("server.listen" | "server.internal_listen", _) => "127.0.0.1:1".to_owned(),
        ("traces.endpoint", _) => "http://127.0.0.1:1/".to_owned(),
        ("server.trusted_proxies", _) => "10.0.0.0/8".to_owned(),
        ("server.tls.cert_file" | "server.tls.key_file", _) => {
            let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
            let certificate = file("cert.pem", &made.cert.pem());
            let key = file("key.pem", &made.signing_key.serialize_pem());
            return vec![
                ("server.tls.cert_file".to_owned(), certificate),
                ("server.tls.key_file".to_owned(), key),
            ];
        }
        ("server.allowed_origins", _) => "https://a.example".to_owned(),
        ("server.endpoints", _) => "chat".to_owned(),
        ("server.data_dir", _) => "/elsewhere".to_owned(),
        ("messages.requests_of_type_per_minute", _) => "typing=120".to_owned(),
        ("server.memory_bytes_max", _) => "8388608".to_owned(),
        ("log.filter", _) => "debug".to_owned(),
        ("api.keys.*.scopes", _) => "history".to_owned(),
        ("api.keys.*.rooms", _) => "chat:*".to_owned(),
        ("heartbeat.timeout_ms", _) => "60000".to_owned(),
        ("channels.heartbeat_interval_ms", _) => "5000".to_owned(),
        (_, Kind::Flag) => {
            let now = set(&[]).unwrap().effective.get(&path).map(|shown| shown.value.clone());
            (now.as_deref() != Some("true")).to_string()
        }
        ("limits.message_bytes_max" | "limits.history_page" | "limits.history_page_max", _) => {
            "4999".chars().take(if path.contains("page") { 3 } else { 4 }).collect()
        }
        (_, Kind::Number(min, _)) => (min + 7).max(200_000).min(number_max(key)).to_string(),
        (_, Kind::Word(words)) => words[words.len() - 1].to_owned(),
        (_, Kind::Secret) => SECRET.to_owned(),
        (_, Kind::Text(..) | Kind::List(..)) => "something".to_owned(),
    };
    let mut pairs = vec![(path, value)];
    if matches!(key.path, "api.keys.*.scopes" | "api.keys.*.rooms") {
        pairs.push(("api.keys.backend.key".to_owned(), SECRET.to_owned()));
    }
    if key.path == "namespaces.*.replicated" {
        pairs.push(("redis.url".to_owned(), "redis://127.0.0.1:1".to_owned()));
    }
    pairs
}

fn number_max(key: &Key) -> u64 {
    match key.kind {
        Kind::Number(min, max) => match key.path {
            "limits.metadata_bytes_max" => 4_000,
            _ => max.max(min) - 1,
        },
        _ => 0,
    }
}

fn loaded(pairs: &[(String, String)]) -> Loaded {
    let pairs: Vec<(&str, &str)> =
        pairs.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    set(&pairs).unwrap_or_else(|error| panic!("{pairs:?}: {error}"))
}

#[test]
fn each_setting_changes_at_a_reload_exactly_when_the_documentation_says_so() {
    let files = tempfile::tempdir().unwrap();
    for key in KEYS {
        let pairs = different(key, &files);
        let before = loaded(&[]);
        let after = loaded(&pairs);
        assert_ne!(text(&before.settings), text(&after.settings), "{pairs:?} is no difference");
        let both = combined(&before.settings, &after.settings);
        if of(&pairs[0].0) == Reload::NextStart {
            // A profile or file may bring other settings along, which may change.
            if key.path != "profile" {
                assert_eq!(text(&both), text(&before.settings), "{pairs:?}");
            }
            assert_eq!(both.profile, before.settings.profile);
        } else {
            assert_eq!(text(&both), text(&after.settings), "{pairs:?}");
        }
    }
}

#[test]
fn the_keys_whose_values_differ_are_named_in_order() {
    let before = loaded(&[("log.filter".to_owned(), "debug".to_owned())]);
    let after = loaded(&[
        ("server.workers".to_owned(), "3".to_owned()),
        ("api.keys.backend.key".to_owned(), SECRET.to_owned()),
    ]);
    let names = changed(&before.effective, &after.effective);
    assert_eq!(names, ["api.keys.backend.key", "log.filter", "server.workers"]);
    assert!(changed(&after.effective, &after.effective).is_empty());
}
