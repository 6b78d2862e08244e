//! Tests of loading: each key, each source, and which source wins.

use super::schema::{KEYS, Key, Kind};
use super::*;
use domain::policy::{Access, AckLevel};
use domain::room::RoomId;

/// Where a value is put.
#[derive(Clone, Copy, Debug)]
pub(super) enum From {
    File,
    Environment,
    Set,
}

const SOURCES: [From; 3] = [From::File, From::Environment, From::Set];

/// Settings given by texts; what goes to a file is written as TOML.
#[derive(Default)]
pub(super) struct Texts {
    pub(super) file: String,
    pub(super) environment: Vec<(String, String)>,
    pub(super) flags: Vec<(String, String)>,
}

impl Texts {
    pub(super) fn load(&self) -> Result<Loaded, String> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("given.toml");
        std::fs::write(&file, &self.file).unwrap();
        let flags = self.flags.iter().map(|(key, value)| FlagValue {
            flag: "--set",
            key: key.clone(),
            value: value.clone(),
        });
        let given = Given {
            files: vec![file],
            environment: self.environment.iter().cloned().collect(),
            flags: flags.collect(),
        };
        load(&given).map_err(|error| error.to_string())
    }

    fn put(from: From, path: &str, value: &str) -> Self {
        let mut texts = Self::default();
        let pair = |key: String| vec![(key, value.to_owned())];
        match from {
            From::File => texts.file = format!("# the first line\n{path} = {value}\n"),
            From::Environment => texts.environment = pair(variable(path)),
            From::Set => texts.flags = pair(path.to_owned()),
        }
        texts
    }
}

pub(super) fn set(pairs: &[(&str, &str)]) -> Result<Loaded, String> {
    let owned = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
    Texts { flags: pairs.iter().map(owned).collect(), ..Texts::default() }.load()
}

fn variable(path: &str) -> String {
    format!("ROOMKEEPER_{}", path.to_uppercase().replace('.', "__"))
}

fn concrete(key: &Key) -> String {
    let name = if key.path.starts_with("api") { "backend" } else { "chat" };
    key.path.replace('*', name)
}

/// Values that a key refuses: as text and, for files, as TOML.
fn refused(kind: Kind) -> (Vec<String>, Vec<String>) {
    let texts = |texts: &[&str]| texts.iter().map(|t| (*t).to_owned()).collect::<Vec<_>>();
    match kind {
        Kind::Flag => (texts(&["maybe", "1", "TRUE"]), texts(&["\"true\"", "1", "[]", "1.5"])),
        Kind::Number(min, max) => {
            let mut out = texts(&["-1", "1.5", "99999999999999999999999"]);
            out.push((max + 1).to_string());
            out.extend(min.checked_sub(1).map(|below| below.to_string()));
            let toml = [&out[..], &texts(&["\"5\"", "true", "1979-05-27", "[5]"])].concat();
            (out, toml)
        }
        Kind::Word(_) => (texts(&["nonsense", "Anyone"]), texts(&["\"nonsense\"", "5", "[]"])),
        Kind::Text(..) => (texts(&["\u{1}"]), texts(&["\"\\u0001\"", "5", "true"])),
        Kind::List(..) => (texts(&["nonsense!"]), texts(&["[\"nonsense!\"]", "[5]", "\"*\""])),
        Kind::Secret => (Vec::new(), texts(&["5", "[\"private\"]", "true"])),
    }
}

/// C01.
#[test]
fn a_wrong_value_of_any_key_from_any_source_is_refused_with_key_value_source_and_what_is_allowed() {
    for key in KEYS {
        let path = concrete(key);
        let (texts, toml) = refused(key.kind);
        for from in SOURCES {
            let values = if matches!(from, From::File) { &toml } else { &texts };
            for value in values {
                let error = Texts::put(from, &path, value).load().unwrap_err();
                let source = match from {
                    From::File => "given.toml, line 2): ".to_owned(),
                    From::Environment => {
                        format!("(from environment variable {}): ", variable(&path))
                    }
                    From::Set => "(from flag --set): ".to_owned(),
                };
                assert!(error.starts_with(&format!("{path} = ")), "{error}");
                assert!(error.contains(&source), "{error}");
                assert!(error.contains(&key.kind.allowed()), "{error}");
                assert_eq!(error.lines().count(), 1, "{error}");
                let visible = value.trim_matches(['[', ']', '"']);
                let shown = if key.kind.is_secret() { "(hidden)" } else { visible };
                let listed = matches!(key.kind, Kind::Text(..)) || value == "[5]";
                assert!(listed || error.contains(shown), "{shown:?} is not in {error}");
            }
        }
    }
}

/// C01.
#[test]
fn a_mistyped_key_from_any_source_is_refused_and_the_right_one_is_named() {
    for key in KEYS.iter().filter(|key| key.path != "profile") {
        let right = concrete(key);
        for from in SOURCES {
            let error = Texts::put(from, &format!("{right}x"), "1").load().unwrap_err();
            assert!(error.starts_with(&format!("{right}x (from ")), "{error}");
            assert!(error.contains(&format!("did you mean {right}?")), "{error}");
        }
    }
}

#[test]
fn a_key_in_the_wrong_section_or_as_a_section_is_explained() {
    let error = set(&[("server.message_bytes_max", "1")]).unwrap_err();
    assert!(error.contains("did you mean limits.message_bytes_max?"), "{error}");
    for file in ["server = 5", "[server.listen]\nport = 1", "[servr]", "limits = \"private\""] {
        let texts = Texts { file: file.to_owned(), ..Texts::default() };
        let error = texts.load().unwrap_err();
        assert!(error.contains("given.toml, line"), "{error}");
        assert!(!error.contains("private"), "{error}");
    }
}

/// C03: file and environment disagree.
#[test]
fn each_layer_wins_over_the_one_before() {
    let key = "limits.fragments_max";
    let mut texts = Texts::default();
    let value = |texts: &Texts| {
        let loaded = texts.load().unwrap();
        let origin = loaded.effective.get(key).unwrap().origin.to_string();
        (loaded.settings.limits.fragments_max, origin)
    };
    assert_eq!(value(&texts), (1_024, "built-in default".to_owned()));
    texts.flags.push(("profile".to_owned(), "testing".to_owned()));
    assert_eq!(value(&texts), (131_072, "profile testing".to_owned()));
    texts.file = format!("{key} = 7");
    assert_eq!(value(&texts).0, 7);
    texts.environment.push((variable(key), "8".to_owned()));
    assert_eq!(value(&texts).0, 8);
    texts.flags.push((key.to_owned(), "9".to_owned()));
    assert_eq!(value(&texts), (9, "flag --set".to_owned()));
}

#[test]
fn the_profile_itself_comes_from_the_strongest_source_that_names_one() {
    let mut texts = Texts { file: "profile = \"testing\"".to_owned(), ..Texts::default() };
    assert_eq!(texts.load().unwrap().settings.profile, Profile::Testing);
    texts.environment.push(("ROOMKEEPER_PROFILE".to_owned(), "development".to_owned()));
    assert_eq!(texts.load().unwrap().settings.profile, Profile::Development);
    texts.flags.push(("profile".to_owned(), "testing".to_owned()));
    let settings = texts.load().unwrap().settings;
    assert_eq!(settings.profile, Profile::Testing);
    assert_eq!(settings.limits.message_bytes_max, 16 << 20);
}

#[test]
fn a_later_file_wins_over_an_earlier_one() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let files = vec![
        write("a.toml", "[server]\nworkers = 1\nconnections_max = 5"),
        write("b.toml", "server.workers = 2"),
    ];
    let server = load(&Given { files, ..Given::default() }).unwrap().settings.server;
    assert_eq!((server.workers, server.connections_max), (2, 5));
}

#[test]
fn a_named_file_that_cannot_be_used_stops_the_start_without_quoting_it() {
    let missing = Given { files: vec!["/nowhere/x.toml".into()], ..Given::default() };
    let error = load(&missing).unwrap_err().to_string();
    assert!(error.starts_with("file /nowhere/x.toml: cannot be read"), "{error}");
    for file in ["\n[auth]\nhmac_secret = private\n", "\n\nhmac_secret = \"private"] {
        let error = Texts { file: file.to_owned(), ..Texts::default() }.load().unwrap_err();
        assert!(error.contains("given.toml: line 3 is not TOML"), "{error}");
        assert!(!error.contains("private"), "{error}");
    }
}

#[test]
fn variables_of_others_are_left_alone_and_an_empty_one_is_not_set() {
    let environment = [
        ("ROOMKEEPER_PORT", "tcp://10.0.0.1:8000"),
        ("ROOMKEEPER_SERVICE_HOST", "10.0.0.1"),
        ("ROOMKEEPER_TOKEN", "a.b.c"),
        ("ROOMKEEPER_SERVER__LISTEN", ""),
        ("PATH", "/bin"),
    ];
    let owned = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
    let texts = Texts { environment: environment.map(owned).to_vec(), ..Texts::default() };
    assert_eq!(texts.load().unwrap().settings.server.listen, "127.0.0.1:8000");
}

#[test]
fn a_list_is_written_with_commas_outside_files() {
    let origins = "https://a.example, https://b.example:8443";
    let loaded = set(&[("server.allowed_origins", origins)]).unwrap();
    let expected = ["https://a.example", "https://b.example:8443"];
    assert_eq!(loaded.settings.server.allowed_origins, expected);
    for wrong in ["a.example", "https://", "https://a.example/", "https://A.example", "null"] {
        assert!(set(&[("server.allowed_origins", wrong)]).is_err(), "{wrong}");
    }
}

#[test]
fn an_address_to_listen_on_has_a_port() {
    for right in ["0.0.0.0:0", "[::1]:8000", "localhost:8000", "rooms.example:1"] {
        assert!(set(&[("server.listen", right)]).is_ok(), "{right}");
    }
    for wrong in ["8000", ":8000", "127.0.0.1", "127.0.0.1:65536", "1.2.3.999:1", "a b:1", ""] {
        assert!(set(&[("server.listen", wrong)]).is_err(), "{wrong}");
    }
}

#[test]
fn a_mistyped_level_does_not_silence_the_log() {
    assert!(set(&[("log.filter", "info,gateway_axum=debug")]).is_ok());
    for wrong in ["", "loud", "gateway_axum", "info,x=loud"] {
        assert!(set(&[("log.filter", wrong)]).is_err(), "{wrong}");
    }
}

/// C02.
#[test]
fn values_that_do_not_go_together_are_refused_with_both_sources() {
    let error = set(&[("limits.history_page", "5000")]).unwrap_err();
    assert_eq!(
        error,
        "limits.history_page = 5000 (from flag --set): must not be larger than \
         limits.history_page_max = 1000 (from built-in default)"
    );
    for pair in [
        ("limits.outbound_queue_bytes_max", "1000"),
        ("limits.inbox_bytes_max", "1000"),
        ("auth.algorithms", ""),
        ("server.data_dir", ""),
        ("rooms.\"guild:1\".durable", "false"),
    ] {
        assert!(set(&[pair]).is_err(), "{pair:?}");
    }
    assert!(
        set(&[("namespaces.guild.durable", "true"), ("rooms.\"guild:1\".durable", "false")])
            .is_ok()
    );
}

#[test]
fn names_that_the_operator_chooses_are_checked() {
    for (key, value) in [
        ("namespaces.Guild.durable", "false"),
        ("rooms.lobby.durable", "false"),
        ("rooms.\"chat:*\".durable", "false"),
        ("api.keys.\"a b\".key_file", "x"),
    ] {
        let error = set(&[(key, value)]).unwrap_err();
        assert!(error.starts_with(key), "{error}");
    }
    assert!(set(&[("not a key", "1")]).unwrap_err().contains("is not a key"));
}

#[test]
fn a_namespace_may_be_named_without_a_setting() {
    let texts = Texts { file: "[namespaces.guild]".to_owned(), ..Texts::default() };
    let policies = to_policies(&texts.load().unwrap().settings);
    let policy = policies.of(&RoomId::parse("guild:1").unwrap()).unwrap().clone();
    assert_eq!(policy.subscribe, Access::Granted);
    assert_eq!(policy.members_max, 100_000);
}

#[test]
fn the_built_in_namespaces_are_as_documented() {
    let subscribe = |profile: &str, room: &str| {
        let mut pairs = vec![("profile", profile)];
        if profile == "production" {
            pairs.push(("auth.allow_anonymous", "true"));
        }
        let policies = to_policies(&set(&pairs).unwrap().settings);
        let policy = policies.of(&RoomId::parse(room).unwrap()).unwrap().clone();
        (policy.subscribe, policy.publish, policy.ack_level())
    };
    use Access::{Anyone, Authenticated, Granted, Owner};
    use AckLevel::{Accepted, Durable};
    assert_eq!(subscribe("development", "public:a"), (Anyone, Anyone, Accepted));
    assert_eq!(subscribe("testing", "public:a"), (Anyone, Anyone, Accepted));
    assert_eq!(subscribe("production", "public:a"), (Authenticated, Authenticated, Accepted));
    assert_eq!(subscribe("development", "chat:guild/1"), (Granted, Granted, Durable));
    assert_eq!(subscribe("testing", "chat:guild/1"), (Granted, Granted, Accepted));
    for room in ["chat:global", "chat:lobby"] {
        let expected = (Authenticated, Authenticated, Durable);
        assert_eq!(subscribe("production", room), expected);
    }
    assert_eq!(subscribe("production", "user:u1"), (Owner, Granted, Accepted));
    for room in ["combat:1", "world:1", "match:1"] {
        assert_eq!(subscribe("development", room), (Granted, Granted, Accepted));
    }
}

#[test]
fn testing_keeps_nothing_on_disk_unless_a_directory_is_given() {
    let testing = set(&[("profile", "testing")]).unwrap().settings;
    assert_eq!(testing.server.data_dir, None);
    let on_disk = set(&[("profile", "testing"), ("server.data_dir", "/tmp/x")]).unwrap().settings;
    assert_eq!(on_disk.namespaces["chat"].durable, Some(true));
    let error = set(&[("profile", "testing"), ("namespaces.chat.durable", "true")]).unwrap_err();
    assert!(
        error.starts_with("namespaces.chat.durable = true (from flag --set): needs"),
        "{error}"
    );
}

#[test]
fn a_room_takes_from_its_namespace_what_it_does_not_set() {
    let pairs = [
        ("history.bytes_max", "11"),
        ("namespaces.chat.history_messages_max", "22"),
        ("namespaces.chat.members_max", "33"),
        ("rooms.\"chat:global\".members_max", "44"),
        ("rooms.\"chat:global\".class", "droppable"),
    ];
    let policies = to_policies(&set(&pairs).unwrap().settings);
    let global = policies.of(&RoomId::parse("chat:global").unwrap()).unwrap().clone();
    assert_eq!(global.retention.bytes_max, 11);
    assert_eq!(global.retention.messages_max, 22);
    assert_eq!(global.members_max, 44);
    assert_eq!(global.default_class, domain::delivery::Class::Droppable);
    assert_eq!(policies.of(&RoomId::parse("chat:x").unwrap()).unwrap().members_max, 33);
}
