//! Tests of secrets and of what production refuses.

use super::secrets::{DEV_SECRET_FILE, TokenSecret, token_secret, weakness};
use super::tests::{Texts, set};
use super::*;
use domain::scope::Scope;
use secrecy::ExposeSecret;
use std::os::unix::fs::PermissionsExt;

const RANDOM: &str = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";

fn production(changes: &[(&str, &str)]) -> Result<Loaded, String> {
    let base = [
        ("profile", "production"),
        ("auth.hmac_secret", RANDOM),
        ("auth.issuer", "login"),
        ("auth.audience", "rooms"),
    ];
    set(&[&base[..], changes].concat())
}

#[test]
fn production_starts_when_all_is_safe() {
    let settings = production(&[]).unwrap().settings;
    assert_eq!(settings.log.format, LogFormat::Json);
    assert!(!settings.auth.allow_anonymous);
    production(&[("server.listen", "0.0.0.0:80"), ("server.behind_proxy", "true")]).unwrap();
}

/// C09.
#[test]
fn production_listens_where_everybody_can_reach_it_with_tls_and_refuses_without() {
    let folder = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let file = |name: &str, text: String| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let certificate = file("cert.pem", made.cert.pem());
    let key = file("key.pem", made.signing_key.serialize_pem());
    let everywhere = ("server.listen", "0.0.0.0:443");
    let tls = [
        everywhere,
        ("server.tls.cert_file", certificate.as_str()),
        ("server.tls.key_file", key.as_str()),
    ];
    production(&tls).unwrap();
    let refused = production(&[everywhere]).unwrap_err();
    for way in ["server.tls.cert_file", "server.behind_proxy", "loopback"] {
        assert!(refused.contains(way), "{way} is missing in {refused}");
    }
}

/// C03: secrets that everybody knows. C09.
#[test]
fn production_refuses_each_unsafe_setting_by_name() {
    for (key, value) in [
        ("auth.hmac_secret", ""),
        ("auth.hmac_secret", "short"),
        ("auth.hmac_secret", "secretsecretsecretsecretsecretsecret"),
        ("auth.hmac_secret", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"),
        ("auth.hmac_secret", "a-string-secret-at-least-256-bits-long"),
        ("auth.issuer", ""),
        ("auth.audience", ""),
        ("server.allowed_origins", "*"),
        ("server.echo_endpoint", "true"),
        ("server.listen", "0.0.0.0:8000"),
        ("server.listen", "[::]:8000"),
        ("server.listen", "rooms.example:8000"),
    ] {
        let error = production(&[(key, value)]).unwrap_err();
        assert!(error.starts_with(&format!("{key} = ")), "{error}");
        assert_eq!(error.lines().count(), if value == "short" { 2 } else { 1 }, "{error}");
        assert!(error.contains("production") || error.contains("random"), "{error}");
        assert!(value.is_empty() || !key.contains("secret") || !error.contains(value), "{error}");
    }
}

#[test]
fn an_algorithm_wants_a_secret_as_long_as_its_hash() {
    assert!(production(&[("auth.algorithms", "HS512")]).is_ok());
    let short = [("auth.hmac_secret", &RANDOM[..63]), ("auth.algorithms", "HS512")];
    assert!(production(&short).unwrap_err().contains("at least 64 bytes"));
}

#[test]
fn a_random_secret_is_not_called_weak() {
    for secret in [RANDOM, "Kq3v8xTz0PbL5nYw2RfJ7mHd4GsC1aUe", "correct horse battery staple"] {
        assert_eq!(weakness(secret), None, "{secret}");
    }
    for secret in ["changeme", "your-256-bit-secret", "00000000000000000000000000000000"] {
        assert!(weakness(secret).is_some(), "{secret}");
    }
}

/// C03: a file that everybody may read.
#[test]
fn a_secret_may_stand_in_a_file_of_its_own_and_is_never_shown() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("secret");
    std::fs::write(&path, format!("{RANDOM}\n")).unwrap();
    let mode = |bits| std::fs::set_permissions(&path, PermissionsExt::from_mode(bits)).unwrap();
    mode(0o600);
    let file = path.to_str().unwrap();
    let changes = [("auth.hmac_secret", ""), ("auth.hmac_secret_file", file)];
    let loaded = production(&changes).unwrap();
    let secret = loaded.settings.auth.hmac_secret.as_ref().unwrap();
    assert_eq!(secret.expose_secret(), RANDOM);
    assert!(!format!("{loaded:?}").contains(RANDOM));
    assert!(!format!("{:?}", production(&[]).unwrap()).contains(RANDOM));

    mode(0o644);
    assert!(production(&changes).unwrap_err().contains("every user of the machine"));
    assert_eq!(set(&[("auth.hmac_secret_file", file)]).unwrap().warnings.len(), 1);
    let twice = production(&[("auth.hmac_secret_file", file)]).unwrap_err();
    assert!(
        twice.starts_with("auth.hmac_secret = (hidden) (from flag --set): is set, and"),
        "{twice}"
    );
}

#[test]
fn a_key_of_tls_that_everybody_may_read_stops_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let (cert, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
    std::fs::write(&cert, "").unwrap();
    std::fs::write(&key, "").unwrap();
    let changes = [
        ("server.tls.cert_file", cert.to_str().unwrap()),
        ("server.tls.key_file", key.to_str().unwrap()),
    ];
    let mode = |bits| std::fs::set_permissions(&key, PermissionsExt::from_mode(bits)).unwrap();
    mode(0o644);
    let error = production(&changes).unwrap_err();
    assert!(error.contains("server.tls.key_file") && error.contains("every user"), "{error}");
    mode(0o600);
    assert!(!production(&changes).unwrap_err().contains("every user"));
}

/// C03.
#[test]
fn a_secret_that_is_too_short_is_refused_in_every_profile() {
    for profile in Profile::ALL {
        let pairs = [("profile", profile.word()), ("auth.hmac_secret", "short")];
        let error = set(&pairs).unwrap_err();
        assert!(error.contains("must be at least 32 bytes for HS256"), "{error}");
    }
}

#[test]
fn a_file_of_keys_is_read_as_at_a_start() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let with = |text: &str| {
        std::fs::write(file.path(), text).unwrap();
        set(&[("auth.keys_file", file.path().to_str().unwrap())])
    };
    let keys = format!(r#"[{{"kid": "a", "alg": ["HS256"], "secret": "{RANDOM}"}}]"#);
    let settings = with(&format!(r#"{{"keys": {keys}}}"#)).unwrap().settings;
    assert_eq!(tokens::verifier_config(&settings, None).unwrap().keys.len(), 1);
    let error = with("nonsense").unwrap_err();
    assert!(error.starts_with("auth.keys_file = "), "{error}");
    assert_eq!(error.lines().count(), 1, "{error}");
}

#[test]
fn a_file_that_cannot_be_read_stops_the_start() {
    for key in ["auth.hmac_secret_file", "auth.keys_file", "api.keys.backend.key_file"] {
        let error = set(&[(key, "/nowhere/secret")]).unwrap_err();
        assert!(error.starts_with(&format!("{key} = \"/nowhere/secret\" (from ")), "{error}");
        assert!(error.to_lowercase().contains("no such file"), "{error}");
    }
    let empty = tempfile::NamedTempFile::new().unwrap();
    let error = set(&[("auth.hmac_secret_file", empty.path().to_str().unwrap())]).unwrap_err();
    assert!(error.contains("empty file"), "{error}");
}

#[test]
fn a_key_of_the_http_interface_is_long_random_and_used_once() {
    let one = ("api.keys.one.key", RANDOM);
    let loaded = set(&[one]).unwrap();
    assert!(loaded.settings.api.keys["one"].key.is_some());
    for wrong in ["short", "ä9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0", ""] {
        assert!(set(&[("api.keys.one.key", wrong)]).is_err(), "{wrong}");
    }
    let error = set(&[one, ("api.keys.two.key", RANDOM)]).unwrap_err();
    assert!(error.contains("is the same as api.keys.one.key"), "{error}");
    assert!(!error.contains(RANDOM), "{error}");
    let texts = Texts { file: "[api.keys.one]".to_owned(), ..Texts::default() };
    assert!(texts.load().unwrap_err().contains("api.keys.one.key"));
}

#[test]
fn a_key_of_the_http_interface_publishes_only_unless_it_says_more() {
    let scopes = |more: &[(&str, &str)]| {
        let all = [&[("api.keys.one.key", RANDOM)], more].concat();
        set(&all).map(|loaded| loaded.settings.api.keys["one"].scopes())
    };
    assert_eq!(scopes(&[]), Ok(vec![Scope::Publish]));
    let scope = "api.keys.one.scopes";
    assert_eq!(scopes(&[(scope, "history, revoke")]), Ok(vec![Scope::History, Scope::Revoke]));
    assert_eq!(scopes(&[(scope, "")]), Ok(Vec::new()));
    let limited = ("api.keys.one.rooms", "chat:guild/*");
    assert!(scopes(&[limited, (scope, "publish,presence,history,rooms,connections")]).is_ok());
    for people in ["disconnect", "revoke"] {
        let error = scopes(&[limited, (scope, people)]).unwrap_err();
        assert!(error.starts_with(scope) && error.contains("chat:guild/*"), "{error}");
    }
}

#[test]
fn the_secret_made_up_for_development_is_kept_for_the_next_start_and_for_nobody_else() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let settings = set(&[("server.data_dir", data.to_str().unwrap())]).unwrap().settings;
    let secret = || match token_secret(&settings).unwrap() {
        TokenSecret::Kept(secret, _) => secret.expose_secret().to_owned(),
        other => panic!("{other:?}"),
    };
    let first = secret();
    assert_eq!(first.len(), 64);
    assert_eq!(secret(), first);
    let mode = std::fs::metadata(data.join(DEV_SECRET_FILE)).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(std::fs::read_dir(&data).unwrap().count(), 1);
}

#[test]
fn first_starts_at_one_time_agree_on_one_secret() {
    let dir = tempfile::tempdir().unwrap();
    let settings = set(&[("server.data_dir", dir.path().to_str().unwrap())]).unwrap().settings;
    let start = || token_secret(&settings).unwrap().secret().unwrap().expose_secret().to_owned();
    let secrets: Vec<String> = std::thread::scope(|scope| {
        let starts: Vec<_> = (0..8).map(|_| scope.spawn(start)).collect();
        starts.into_iter().map(|start| start.join().unwrap()).collect()
    });
    assert!(secrets.iter().all(|secret| *secret == secrets[0]));
    assert_eq!(start(), secrets[0]);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn no_secret_is_made_up_where_it_would_be_a_surprise() {
    let of = |loaded: Loaded| token_secret(&loaded.settings).unwrap();
    let testing = of(set(&[("profile", "testing")]).unwrap());
    assert!(matches!(testing, TokenSecret::OfThisProcess(..)));
    let open = [("profile", "production"), ("auth.allow_anonymous", "true")];
    assert!(matches!(of(set(&open).unwrap()), TokenSecret::None));
    let mut with_keys = set(&[]).unwrap();
    with_keys.settings.auth.keys_file = Some("keys.json".into());
    assert!(matches!(of(with_keys), TokenSecret::None));
    assert!(matches!(of(production(&[]).unwrap()), TokenSecret::Configured(_)));
}

#[test]
fn a_data_directory_that_cannot_be_written_does_not_stop_a_trial() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let inside = file.path().join("data");
    let settings = set(&[("server.data_dir", inside.to_str().unwrap())]).unwrap().settings;
    assert!(matches!(token_secret(&settings).unwrap(), TokenSecret::OfThisProcess(..)));
}
