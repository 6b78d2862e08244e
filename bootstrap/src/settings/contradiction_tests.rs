//! Settings that do not go together, as a table; and everything that production refuses, at once.

use super::tests::set;

/// C02.
#[test]
fn each_contradiction_is_refused_and_names_both_settings() {
    for (changes, key, other) in [
        (&[("limits.history_page", "1001")][..], "limits.history_page", "limits.history_page_max"),
        (&[("limits.message_bytes_max", "300000")], "limits.message_bytes_max", "inbox_bytes_max"),
        (
            &[("limits.outbound_queue_bytes_max", "65535"), ("api.publish_bytes_max", "1")],
            "limits.message_bytes_max",
            "limits.outbound_queue_bytes_max",
        ),
        (&[("api.publish_bytes_max", "1048577")], "api.publish_bytes_max", "outbound_queue"),
        (&[("limits.message_bytes_max", "4095")], "limits.metadata_bytes_max", "message_bytes_max"),
        (
            &[("limits.outbound_queue_bytes_max", "268435457")],
            "limits.outbound_queue_bytes_max",
            "268435456",
        ),
        (&[("heartbeat.timeout_ms", "25000")], "heartbeat.timeout_ms", "heartbeat.interval_ms"),
        (&[("heartbeat.timeout_ms", "25999")], "heartbeat.timeout_ms", "heartbeat.interval_ms"),
        (
            &[("channels.connection_timeout_ms", "30000")],
            "channels.connection_timeout_ms",
            "channels.heartbeat_interval_ms",
        ),
        (&[("server.memory_bytes_max", "8388607")], "server.memory_bytes_max", "8388608"),
        (&[("auth.algorithms", "")], "auth.algorithms", "HS256"),
        (
            &[("redis.url", "redis+cluster://127.0.0.1:1"), ("auth.single_session", "newest_wins")],
            "auth.single_session",
            "Sentinel",
        ),
        (&[("server.data_dir", "")], "namespaces.chat.durable", "server.data_dir"),
        (&[("rooms.\"guild:1\".durable", "false")], "rooms.\"guild:1\"", "namespaces"),
    ] {
        let error = set(changes).unwrap_err();
        assert!(error.starts_with(key), "{error}");
        assert!(error.contains(other), "{other} is missing in {error}");
        assert_eq!(error.lines().count(), 1, "{error}");
    }
    for fits in [
        &[("heartbeat.timeout_ms", "26000")][..],
        &[("heartbeat.interval_ms", "100"), ("heartbeat.timeout_ms", "200")],
        &[("limits.outbound_queue_bytes_max", "268435456")],
        &[("limits.message_bytes_max", "4096")],
        &[("server.memory_bytes_max", "8388608")],
    ] {
        assert!(set(fits).is_ok(), "{fits:?}");
    }
}

#[test]
fn production_names_everything_that_is_unsafe_at_once() {
    let error = set(&[
        ("profile", "production"),
        ("server.listen", "0.0.0.0:8000"),
        ("server.allowed_origins", "*"),
        ("server.echo_endpoint", "true"),
        ("auth.hmac_secret", "secretsecretsecretsecretsecretsecret"),
        ("api.keys.backend.key", "changemechangemechangemechangeme"),
        ("auth.allow_anonymous", "true"),
        ("namespaces.public.publish", "anyone"),
        ("rooms.\"chat:lobby\".publish", "anyone"),
    ])
    .unwrap_err();
    let keys: Vec<&str> =
        error.lines().map(|line| line.split(" = ").next().unwrap_or_default()).collect();
    for key in [
        "server.listen",
        "server.allowed_origins",
        "server.echo_endpoint",
        "auth.hmac_secret",
        "auth.issuer",
        "auth.audience",
        "api.keys.backend.key",
        "namespaces.public.publish",
        "rooms.\"chat:lobby\".publish",
    ] {
        assert!(keys.contains(&key), "{key} is missing in {error}");
    }
    assert_eq!(keys.len(), 9, "{error}");
    assert!(!error.contains("secretsecret") && !error.contains("changemechangeme"), "{error}");
}

#[test]
fn anonymous_readers_are_allowed_in_production_and_anonymous_publishers_are_not() {
    let production = [("profile", "production"), ("auth.allow_anonymous", "true")];
    let with = |key, value| set(&[&production[..], &[(key, value)]].concat());
    assert!(with("namespaces.public.subscribe", "anyone").is_ok());
    let error = with("namespaces.public.publish", "anyone").unwrap_err();
    assert!(error.contains("nobody may publish without a token"), "{error}");
    // Where everyone has a token, anyone is anyone with one.
    let random = "9f86d081884c7d659a2feaa0c55ad0155b1c2f0e7a";
    let closed = [
        ("profile", "production"),
        ("auth.hmac_secret", random),
        ("auth.issuer", "a"),
        ("auth.audience", "b"),
        ("namespaces.public.publish", "anyone"),
    ];
    assert!(set(&closed).is_ok());
}
