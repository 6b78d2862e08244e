//! The conformance vectors but for whole sessions: delays, codes, classes, the life of a connection, the place
//! in a room.
//!
//! It must never compute an expectation itself, nor leave out a case.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};

use crate::client::backoff::{Backoff, DelayTable, FullJitter};
use crate::client::failure::{Failure, Timeout};
use crate::client::life::{
    Effect, Event, Life, LifeConfig, Lost, Moment, Phase, Socket, Wake, transition,
};
use crate::client::track::{Place, Track};
use crate::codes::should_reconnect;
use crate::id::Epoch;
use crate::position::{Offset, Position};
use crate::protocol::client_event::Gap;
use crate::room::RoomId;
use crate::time::Monotonic;

/// One file.
pub(super) fn file(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

/// Its cases, with their names.
pub(super) fn cases(file: &Value) -> impl Iterator<Item = (&str, &Value)> {
    let cases = file["cases"].as_array().unwrap();
    assert!(cases.len() > 15, "the cases are not there");
    cases.iter().map(|case| (case["name"].as_str().unwrap(), case))
}

fn millis(value: &Value) -> Duration {
    Duration::from_millis(value.as_u64().unwrap())
}

fn small(value: &Value) -> u32 {
    value.as_u64().unwrap().try_into().unwrap()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

fn table(from: &Value) -> Backoff {
    Backoff::Table(DelayTable {
        base_delays: from["baseDelaysMs"].as_array().unwrap().iter().map(millis).collect(),
        cap: millis(&from["capDelayMs"]),
        jitter_ratio: from["jitterRatio"].as_f64().unwrap(),
        attempts_max: small(&from["maxAttempts"]),
    })
}

fn assert_delay(name: &str, case: &Value, backoff: &Backoff) {
    let delay = backoff.delay(small(&case["attempt"]), case["random"].as_f64().unwrap());
    let expected = (!case["delay"].is_null()).then(|| millis(&case["delay"]));
    assert_eq!(delay, expected, "{name}");
}

/// K02: the delays of the documented strategies.
#[test]
fn delays_of_the_documented_strategies() {
    let file = file(include_str!("../../../../clients/vectors/backoff.json"));
    for (name, case) in cases(&file) {
        assert_delay(name, case, &table(&case["strategy"]));
    }
}

/// K02: those of protocol v2.
#[test]
fn full_jitter() {
    let file = file(include_str!("../../../../clients/vectors/full_jitter.json"));
    for (name, case) in cases(&file) {
        let (base, cap) = (millis(&case["baseMs"]), millis(&case["capMs"]));
        let attempts_max = (!case["attemptsMax"].is_null()).then(|| small(&case["attemptsMax"]));
        let jitter = FullJitter { base, cap, attempts_max };
        assert_delay(name, case, &Backoff::FullJitter(jitter));
    }
}

/// K03: what each close code means.
#[test]
fn close_codes() {
    let file = file(include_str!("../../../../clients/vectors/close_codes.json"));
    for (name, case) in cases(&file) {
        let code = small(&case["code"]).try_into().unwrap();
        assert_eq!(should_reconnect(code), case["reconnect"].as_bool().unwrap(), "{name}");
        let failure = Failure { code, reason: String::new(), opened: true, timeout: None };
        assert_eq!(failure.class().word(), case["class"], "{name}");
    }
}

/// K07: how failures are told apart.
#[test]
fn classes_of_failures() {
    let file = file(include_str!("../../../../clients/vectors/classes.json"));
    for (name, case) in cases(&file) {
        let failure = &case["failure"];
        let failure = Failure {
            code: small(&failure["code"]).try_into().unwrap(),
            reason: text(&failure["reason"]),
            opened: failure["opened"].as_bool().unwrap(),
            timeout: match failure["timeout"].as_str() {
                Some("connect") => Some(Timeout::Connect),
                Some("heartbeat") => Some(Timeout::Heartbeat),
                Some(other) => panic!("{other}"),
                None => None,
            },
        };
        assert_eq!(failure.class().word(), case["class"], "{name}");
        assert_eq!(failure.words(), case["text"].as_str().unwrap(), "{name}");
    }
}

/// The clock of the vectors goes below nothing; any start will do.
const START_MS: i64 = 1_000_000;

fn time(value: &Value) -> Option<Monotonic> {
    let ms = value.as_i64()?;
    Some(Monotonic::from_millis((START_MS + ms).cast_unsigned()))
}

/// The phases, each with its word.
const PHASES: [(Phase, &str); 7] = [
    (Phase::Idle, "idle"),
    (Phase::Connecting, "connecting"),
    (Phase::Open, "open"),
    (Phase::Degraded, "degraded"),
    (Phase::Reconnecting, "reconnecting"),
    (Phase::Failed, "failed"),
    (Phase::Fallback, "fallback"),
];

/// The word for a phase.
pub(super) fn word(phase: Phase) -> &'static str {
    PHASES.iter().find(|(one, _)| *one == phase).unwrap().1
}

fn life(from: &Value) -> Life {
    Life {
        phase: PHASES.iter().find(|(_, word)| from["phase"] == *word).unwrap().0,
        socket: match from["socket"].as_str().unwrap() {
            "none" => Socket::None,
            "opening" => Socket::Opening,
            "open" => Socket::Open,
            other => panic!("{other}"),
        },
        attempts: small(&from["attempts"]),
        ordered: from["ordered"].as_bool().unwrap(),
        opened_at: time(&from["openedAt"]),
        // Nothing stands for never.
        heard_at: time(&from["heardAt"]).filter(|_| from["heardAt"] != 0),
        heartbeat_ms: from["heartbeatMs"].as_u64().unwrap(),
        reason: from["reason"].as_str().map(str::to_owned),
        is_final: from["final"].as_bool().unwrap(),
    }
}

fn event(from: &Value) -> Event {
    let lost = || Lost {
        code: small(&from["code"]).try_into().unwrap(),
        reason: text(&from["reason"]),
        after: from["after"].as_u64().map(Duration::from_millis),
        again: from["again"].as_bool(),
    };
    match from["type"].as_str().unwrap() {
        "connect" => Event::Connect,
        "disconnect" => Event::Disconnect,
        "opened" => Event::Opened,
        "heard" => Event::Heard,
        "greeted" => Event::Greeted { heartbeat_ms: from["heartbeatMs"].as_u64().unwrap() },
        "timer" => Event::Timer,
        "wake" if from["by"] == "online" => Event::Wake(Wake::Online),
        "wake" if from["by"] == "visible" => Event::Wake(Wake::Visible),
        "closed" => Event::Closed(lost()),
        "abandon" => Event::Abandon(lost()),
        other => panic!("{other}"),
    }
}

fn effect(effect: &Effect) -> Value {
    let ms = |span: &Option<Duration>| span.map(|span| u64::try_from(span.as_millis()).unwrap());
    match effect {
        Effect::Open => json!(["open"]),
        Effect::Close => json!(["close"]),
        Effect::Ping => json!(["ping"]),
        Effect::Timer(after) => json!(["timer", ms(after)]),
        Effect::Failed(Failure { code, reason, opened, timeout }, after) => {
            let mut failure = json!({"code": code, "reason": reason, "opened": opened});
            match timeout {
                Some(Timeout::Connect) => failure["timeout"] = json!("connect"),
                Some(Timeout::Heartbeat) => failure["timeout"] = json!("heartbeat"),
                None => {}
            }
            json!(["failed", failure, ms(after)])
        }
    }
}

fn life_config(of: &Value) -> LifeConfig {
    LifeConfig {
        connect_timeout: millis(&of["connectTimeoutMs"]),
        heartbeat: of["heartbeat"].as_bool().unwrap(),
        backoff: table(&of["backoff"]),
        stable_after: millis(&of["stableAfterMs"]),
        probe: millis(&of["probeMs"]),
    }
}

fn moment(event: &Value) -> Moment {
    let random = event["random"].as_f64().unwrap_or(0.0);
    Moment { at: time(&event["at"]).unwrap(), random }
}

/// K01: every event in every state, and what comes of it.
#[test]
fn the_life_of_a_connection() {
    let file = file(include_str!("../../../../clients/vectors/life.json"));
    for (name, case) in cases(&file) {
        let mut config = file["config"].clone();
        for (field, value) in case["config"].as_object().into_iter().flatten() {
            config[field] = value.clone();
        }
        let (config, now) = (life_config(&config), moment(&case["event"]));
        let (to, effects) = transition(life(&case["from"]), event(&case["event"]), now, &config);
        assert_eq!(to, life(&case["to"]), "{name}");
        let effects: Vec<_> = effects.iter().map(effect).collect();
        assert_eq!(Value::from(effects), case["effects"], "{name}");
    }
}

/// What tells two states apart but for numbers and words.
fn kind(life: &Life) -> String {
    let Life { phase, socket, ordered, opened_at, reason, is_final, .. } = life;
    let (stands, said) = (opened_at.is_some(), reason.is_some());
    format!("{phase:?} {socket:?} ordered {ordered} stands {stands} said {said} final {is_final}")
}

/// K01: whatever happens in whatever order, there is no state that the table lacks.
#[test]
fn every_kind_of_state_that_occurs_is_in_the_table() {
    let file = file(include_str!("../../../../clients/vectors/life.json"));
    let config = life_config(&file["config"]);
    let in_table: BTreeSet<_> = cases(&file).map(|(_, case)| kind(&life(&case["from"]))).collect();
    let mut reached = vec![Life::default()];
    let mut next = 0;
    while let Some(from) = reached.get(next).cloned() {
        next += 1;
        assert!(in_table.contains(&kind(&from)), "the table lacks {from:?}");
        for (_, case) in cases(&file) {
            let (happens, now) = (event(&case["event"]), moment(&case["event"]));
            let (to, _) = transition(from.clone(), happens, now, &config);
            if !reached.iter().any(|one| (kind(one), one.attempts) == (kind(&to), to.attempts)) {
                reached.push(to);
            }
        }
    }
    let occurs: BTreeSet<_> = reached.iter().map(kind).collect();
    assert_eq!(in_table, occurs, "what never occurs needs no row");
}

fn offset(value: &Value) -> Offset {
    Offset::parse(value.as_u64().unwrap()).unwrap()
}

/// Epochs of the vectors are short; ours have sixteen digits.
fn epoch(value: &Value) -> Epoch {
    Epoch::parse(&format!("{:0>16}", value.as_str().unwrap())).unwrap()
}

fn position(value: &Value) -> Option<Position> {
    (!value.is_null())
        .then(|| Position { epoch: epoch(&value["epoch"]), offset: offset(&value["offset"]) })
}

fn answer(place: Place) -> Value {
    match place {
        Place::Next => json!("next"),
        Place::BehindHole { from, to } => json!([from.get(), to.get()]),
        Place::NewEpoch => json!("new_epoch"),
        Place::Own => json!("own"),
        Place::Duplicate => json!("duplicate"),
    }
}

#[test]
fn the_place_in_a_room() {
    let file = file(include_str!("../../../../clients/vectors/track.json"));
    for (name, case) in cases(&file) {
        let mut track = Track::new(position(&case["since"]), case["filtered"] == true);
        for step in case["steps"].as_array().unwrap() {
            let previous = step["previous"].as_u64().map(|n| Offset::parse(n).unwrap());
            let place = if let Some(at) = position(&step["accept"]) {
                Some(track.accept(at, previous))
            } else if let Some(at) = position(&step["reach"]) {
                Some(track.reach(at))
            } else if let Some(at) = position(&step["pass"]) {
                track.pass(at);
                None
            } else {
                let gap = &step["skip"];
                Some(track.skip(&Gap {
                    room: RoomId::parse("public:r").unwrap(),
                    epoch: epoch(&gap["epoch"]),
                    from: offset(&gap["from"]),
                    to: offset(&gap["to"]),
                    reason: text(&gap["reason"]),
                }))
            };
            assert_eq!(place.map_or(Value::Null, answer), step["answers"], "{name}: {step}");
            assert_eq!(track.position(), position(&step["stands"]), "{name}: {step}");
        }
    }
}
