//! Tests of the command line.

use super::*;
use clap::CommandFactory;

fn parse(args: &[&str]) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(std::iter::once(&"roomkeeper").chain(args))
}

#[test]
fn the_command_line_is_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn a_plain_run_serves() {
    assert!(matches!(parse(&[]).unwrap().into_command(), Command::Serve));
    assert!(matches!(parse(&["serve"]).unwrap().into_command(), Command::Serve));
    assert!(matches!(parse(&["-V"]).unwrap().into_command(), Command::Version { json: false }));
}

#[test]
fn the_flags_of_settings_stand_before_or_after_the_command() {
    let args = ["--listen", "127.0.0.1:0", "--set", "log.filter=debug", "--profile", "testing"];
    let before = parse(&[&args[..], &["serve"]].concat()).unwrap();
    let after = parse(&[&["serve"], &args[..]].concat()).unwrap();
    let given = before.settings.given(BTreeMap::new());
    assert_eq!(given.flags, after.settings.given(BTreeMap::new()).flags);
    let pairs: Vec<_> = given.flags.iter().map(|f| (f.flag, &*f.key, &*f.value)).collect();
    assert_eq!(
        pairs,
        [
            ("--set", "log.filter", "debug"),
            ("--profile", "profile", "testing"),
            ("--listen", "server.listen", "127.0.0.1:0"),
        ]
    );
}

#[test]
fn an_assignment_is_split_at_the_first_equals_sign_outside_quotes() {
    let split = |text| assignment(text).map(|(k, v)| format!("{k}|{v}"));
    assert_eq!(split("a.b=c=d").unwrap(), "a.b|c=d");
    assert_eq!(
        split("rooms.\"chat:a=b\".durable=true").unwrap(),
        "rooms.\"chat:a=b\".durable|true"
    );
    assert!(split("a.b").is_err());
}

#[test]
fn a_message_that_is_not_json_is_explained() {
    let error = parse(&["publish", "public:lobby", "hello"]).unwrap_err();
    assert_eq!(error.exit_code(), 2);
    assert!(error.to_string().contains("a text has quotes of its own"), "{error}");
    assert!(parse(&["publish", "public:lobby", "\"hello\""]).is_ok());
}

#[test]
fn what_is_subscribed_to_is_rooms_or_patterns_and_a_filter_is_of_rooms() {
    let condition = r#"{"eq":{"lang":"de"}}"#;
    let args = ["subscribe", "public:a", "--pattern", "game:*", "--filter", condition];
    let Command::Subscribe(subscribe) = parse(&args).unwrap().into_command() else { panic!() };
    assert_eq!(subscribe.rooms, ["public:a"]);
    assert_eq!(subscribe.patterns[0].to_text(), "game:*");
    assert!(subscribe.filter.is_some());
    assert!(parse(&["subscribe", "--pattern", "game:zone/*", "--pattern", "chat:*"]).is_ok());
    for (args, why) in [
        (&["subscribe", "--pattern", "game:*", "--filter", condition][..], "ROOM"),
        (&["subscribe", "--pattern", "game:zone"], "'game:zone/*'"),
        (&["subscribe", "--pattern", "*"], "NAMESPACE"),
        (&["subscribe", "public:a", "--filter", "lang=de"], "not JSON"),
        (&["subscribe", "public:a", "--filter", r#"{"and":[]}"#], "at least one entry"),
        (&["subscribe", "public:a", "--filter", r#"{"lang":"de"}"#], "write it like"),
    ] {
        let error = parse(args).unwrap_err();
        assert_eq!(error.exit_code(), 2, "{args:?}");
        assert!(error.to_string().contains(why), "{args:?}: {error}");
    }
}

#[test]
fn a_tag_has_a_name_and_a_value() {
    let args = ["publish", "public:a", "1", "--tag", "lang=de", "--tag", "a=b=c"];
    let Command::Publish(publish) = parse(&args).unwrap().into_command() else { panic!() };
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    assert_eq!(publish.tags, [pair("lang", "de"), pair("a", "b=c")]);
    for wrong in ["lang", &format!("lang={}", "x".repeat(65))] {
        let error = parse(&["publish", "public:a", "1", "--tag", wrong]).unwrap_err();
        assert_eq!(error.exit_code(), 2, "{wrong}");
    }
}

#[test]
fn a_grant_has_a_pattern_and_actions() {
    let grant = room_grant("chat:guild/*=subscribe,publish").unwrap();
    assert_eq!(grant.pattern, "chat:guild/*");
    assert_eq!(grant.allow, [Action::Subscribe, Action::Publish]);
    for wrong in ["chat:x", "*=subscribe", "chat:x=", "chat:x=dance", "chat:x=subscribe,,publish"] {
        assert!(room_grant(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn a_duration_has_a_unit() {
    assert_eq!(duration("15m"), Ok(Duration::from_secs(900)));
    assert_eq!(duration("7d"), Ok(Duration::from_secs(604_800)));
    for wrong in ["", "1", "0s", "-1h", "1.5h", "h", "1w", "99999999999999999999s", "4000d", "1é"]
    {
        assert!(duration(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn an_unknown_word_or_flag_is_wrong_usage() {
    for args in [&["fly"][..], &["--prot", "1"], &["token", "create"], &["subscribe"]] {
        assert_eq!(parse(args).unwrap_err().exit_code(), 2, "{args:?}");
    }
}

#[test]
fn a_token_is_never_shown_by_debug() {
    let cli = parse(&["subscribe", "public:a", "--token", "abc.def.ghi"]).unwrap();
    assert!(!format!("{cli:?}").contains("abc.def"));
}
