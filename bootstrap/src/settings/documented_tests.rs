//! The names of the environment that the protocol's documents give: units, ranges, precedence.

use secrecy::ExposeSecret;

use super::documented::{NAMES, Unit};
use super::tests::Texts;
use super::*;
use crate::commands::config::print;

fn with(variables: &[(&str, &str)]) -> Result<Loaded, String> {
    let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    let environment = variables.iter().map(owned).collect();
    Texts { environment, ..Texts::default() }.load()
}

fn printed(variables: &[(&str, &str)], key: &str) -> String {
    let mut out = Vec::new();
    print(&with(variables).unwrap(), &mut out).unwrap();
    let text = String::from_utf8(out).unwrap();
    let line = text.lines().find(|line| line.starts_with(&format!("{key} = ")));
    line.unwrap().to_owned()
}

#[test]
fn each_name_counts_in_its_unit_and_seconds_become_milliseconds() {
    let settings = with(&[
        ("WS_HEARTBEAT_INTERVAL_MS", "20000"),
        ("WS_CONNECTION_TIMEOUT_MS", "30000"),
        ("WEBSOCKET_HEARTBEAT_INTERVAL", "31"),
        ("WEBSOCKET_CLEANUP_INTERVAL", "61"),
        ("WEBSOCKET_CONNECTION_TIMEOUT", "121"),
    ]);
    let Settings { heartbeat, channels, .. } = settings.unwrap().settings;
    assert_eq!((heartbeat.interval_ms, heartbeat.silence_max_ms()), (20_000, 30_000));
    assert_eq!((channels.heartbeat_interval_ms, channels.cleanup_interval_ms), (31_000, 61_000));
    assert_eq!(channels.connection_timeout_ms, 121_000);
    let Settings { heartbeat, channels, .. } = with(&[]).unwrap().settings;
    assert_eq!((heartbeat.interval_ms, heartbeat.silence_max_ms()), (25_000, 50_000));
    assert_eq!((channels.heartbeat_interval_ms, channels.cleanup_interval_ms), (30_000, 60_000));
    assert_eq!(channels.connection_timeout_ms, 120_000);
}

#[test]
fn a_wrong_value_is_refused_with_the_variable_the_setting_and_the_unit() {
    for documented in NAMES {
        for wrong in ["0", "-1", "1.5", "30s", "99999999999", "x"] {
            let error = with(&[(documented.name, wrong)]).unwrap_err();
            assert!(error.starts_with(&format!("{} = \"{wrong}\"", documented.key)), "{error}");
            assert!(error.contains(&format!("variable {})", documented.name)), "{error}");
            assert!(error.contains(documented.unit.word()), "{error}");
            assert_eq!(error.lines().count(), 1, "{error}");
        }
        assert!(with(&[(documented.name, "")]).is_ok());
    }
    assert!(NAMES.iter().any(|name| name.unit == Unit::Seconds));
}

/// C02.
#[test]
fn a_silence_that_leaves_no_time_to_answer_is_refused() {
    let error = with(&[("WS_CONNECTION_TIMEOUT_MS", "20000")]).unwrap_err();
    assert_eq!(
        error,
        "heartbeat.timeout_ms = 20000 (from environment variable WS_CONNECTION_TIMEOUT_MS): must \
         be 1000 ms or more above heartbeat.interval_ms = 25000 (from built-in default), so that \
         a ping is answered"
    );
}

#[test]
fn our_own_name_wins_over_a_documented_one_and_both_win_over_a_file() {
    let documented = ("WS_HEARTBEAT_INTERVAL_MS", "20000");
    let own = ("ROOMKEEPER_HEARTBEAT__INTERVAL_MS", "15000");
    assert_eq!(
        printed(&[documented, own], "heartbeat.interval_ms"),
        "heartbeat.interval_ms = 15000 # environment variable ROOMKEEPER_HEARTBEAT__INTERVAL_MS; \
         wins over 20000 from environment variable WS_HEARTBEAT_INTERVAL_MS"
    );
    let same = ("ROOMKEEPER_HEARTBEAT__INTERVAL_MS", "20000");
    assert!(!printed(&[documented, same], "heartbeat.interval_ms").contains("wins over"));
    let texts = Texts {
        file: "heartbeat.interval_ms = 10_000".to_owned(),
        environment: vec![(documented.0.to_owned(), documented.1.to_owned())],
        ..Texts::default()
    };
    let loaded = texts.load().unwrap();
    assert_eq!(loaded.settings.heartbeat.interval_ms, 20_000);
    let overruled = loaded.effective.get("heartbeat.interval_ms").unwrap().overruled.clone();
    let (value, origin) = overruled.unwrap();
    assert!(value == "10000" && origin.to_string().contains("given.toml, line 1"), "{origin}");
}

#[test]
fn the_documented_name_of_a_database_sets_it_and_its_value_is_never_shown() {
    let set = [("DATABASE_URL", "postgres://user:hunter2@example/rooms")];
    let settings = with(&set).unwrap().settings;
    assert_eq!(settings.store.url.unwrap().expose_secret(), set[0].1);
    let shown = printed(&set, "store.url");
    assert!(shown.contains("environment variable DATABASE_URL"), "{shown}");
    assert!(!shown.contains("hunter2"), "{shown}");
    assert!(with(&[("DATABASE_URL", "")]).unwrap().settings.store.url.is_none());
    let error = with(&[("DATABASE_URL", "mysql://user:hunter2@example/rooms")]).unwrap_err();
    assert!(error.contains("store.url") && error.contains("variable DATABASE_URL"), "{error}");
    assert!(error.contains("postgres://") && !error.contains("hunter2"), "{error}");
}

#[test]
fn the_documented_names_of_redis_set_it_and_neither_address_nor_password_is_shown() {
    let set = [("REDIS_URL", "redis://user:hunter2@example"), ("REDIS_PASSWORD", "hunter3")];
    let settings = with(&set).unwrap().settings;
    let (url, password) = (settings.redis.url.unwrap(), settings.redis.password.unwrap());
    assert_eq!((url.expose_secret(), password.expose_secret()), (set[0].1, set[1].1));
    for key in ["redis.url", "redis.password"] {
        let shown = printed(&set, key);
        assert!(shown.contains("environment variable REDIS_"), "{shown}");
        assert!(!shown.contains("hunter"), "{shown}");
    }
    assert!(with(&[("REDIS_URL", "")]).unwrap().settings.redis.url.is_none());
}
