//! The catalogue, and the JSON Schema that is made of it, against the codec, in both directions:
//! what is written fits, what fits is taken, and what does not fit is refused by name.
//!
//! The schema is read as it is committed; that it is made of the catalogue is tested where it is
//! made.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;

use jsonschema::Validator;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use serde_json::{Map, Value, json};

use super::server_strategies::said;
use super::strategies::command;
use crate::codes::{CloseCode, ErrorCode};
use crate::id::{ClientId, ConnectionId, Epoch, MessageId, MessageKey, UserId};
use crate::principal::RoomPattern;
use crate::protocol::catalog::{COMMANDS, FRAMES, commands, frames, shapes};
use crate::protocol::catalog::{Field, Frame, Kind, Presence, Record, Text};
use crate::protocol::envelope::Name;
use crate::protocol::{
    ClientFrame, Rejected, ServerEvent, TYPES, decode, decode_server, encode_client,
};
use crate::room::RoomId;
use crate::trace::TraceParent;

const SCHEMA: &str = include_str!("../../../../protocol/roomkeeper.schema.json");
const HOST_COMMAND: &str = "HostCommand";

/// How many random frames are enough to have met every form of every field.
const SAMPLES: usize = 6_000;

fn validators() -> &'static BTreeMap<String, Validator> {
    static ALL: OnceLock<BTreeMap<String, Validator>> = OnceLock::new();
    ALL.get_or_init(|| {
        let whole: Value = serde_json::from_str(SCHEMA).unwrap();
        let names = whole["$defs"].as_object().unwrap().keys();
        let of = |name: &String| {
            let one = json!({
                "$schema": whole["$schema"],
                "$ref": format!("#/$defs/{name}"),
                "$defs": whole["$defs"],
            });
            (name.clone(), jsonschema::validator_for(&one).unwrap())
        };
        names.map(of).collect()
    })
}

fn fits(name: &str, value: &Value) -> bool {
    validators()[name].is_valid(value)
}

/// The rows that a frame fits.
fn rows<'a>(all: &'a [Frame], value: &Value) -> Vec<&'a str> {
    all.iter().map(|frame| frame.record.name).filter(|name| fits(name, value)).collect()
}

fn parsed(text: &str) -> Option<Value> {
    serde_json::from_str(text).ok()
}

fn decoded(value: &Value) -> Result<(), Rejected> {
    let text = value.to_string();
    let mut frames = decode(&text);
    let result = frames.next().unwrap();
    assert!(frames.next().is_none());
    match result {
        Ok(ClientFrame::Other { .. }) => panic!("{text} is of the protocol"),
        Ok(_) => Ok(()),
        Err(rejected) => Err(rejected),
    }
}

proptest! {
    #[test]
    fn every_command_that_is_written_fits_one_row_of_the_schema(frame in command()) {
        // A number that no 64 bits hold is JSON all the same, but not for this reader.
        let value = parsed(&encode_client(&frame));
        prop_assume!(value.is_some());
        let value = value.unwrap();
        if let ClientFrame::Other { .. } = frame {
            prop_assert!(fits(HOST_COMMAND, &value) && !fits("ClientFrame", &value));
        } else {
            prop_assert_eq!(rows(COMMANDS, &value).len(), 1, "{}", value);
            prop_assert!(fits("ClientFrame", &value) && !fits(HOST_COMMAND, &value));
        }
    }

    #[test]
    fn every_frame_of_the_server_fits_its_row_of_the_schema_and_no_other((name, text) in said()) {
        let value = parsed(&text).unwrap();
        prop_assert_eq!(rows(FRAMES, &value), vec![name], "{}", text);
        prop_assert_eq!(fits("ServerFrame", &value), name != "HostFrame");
    }

    #[test]
    fn every_frame_of_the_server_is_one_that_the_rust_client_knows((name, text) in said()) {
        let event = decode_server(&text).next().unwrap().unwrap();
        let is_other = matches!(event, ServerEvent::Other { .. });
        prop_assert_eq!(is_other, name == "HostFrame");
    }

    #[test]
    fn a_frame_is_taken_exactly_when_it_fits_the_schema(value in any_fields()) {
        let (fits, taken) = (fits("ClientFrame", &value), decoded(&value));
        match taken {
            Ok(()) => prop_assert!(fits, "{} is taken", value),
            Err(rejected) if fits => {
                prop_assert!(is_beyond_the_schema(&rejected), "{}: {:?}", value, rejected);
            }
            Err(_) => {}
        }
    }
}

/// What no schema says, and its descriptions do, of what is said here: bytes of JSON, levels of a
/// filter, two rooms of one name.
fn is_beyond_the_schema(rejected: &Rejected) -> bool {
    let field = rejected.field.as_deref().unwrap();
    match rejected.code {
        ErrorCode::TooLarge => field == "data" || rejected.message.ends_with("levels deep"),
        _ => field == "resume" && rejected.message.ends_with("twice"),
    }
}

/// Commands of fields and values that go together more or less well.
fn any_fields() -> impl Strategy<Value = Value> {
    let kinds: BTreeSet<_> = COMMANDS.iter().map(|frame| frame.kind.unwrap()).collect();
    let own = |kind: &'static str| {
        let rows = COMMANDS.iter().filter(move |frame| frame.kind == Some(kind));
        rows.flat_map(|frame| frame.record.fields).chain(commands::COMMON)
    };
    let one = move |kind: &'static str| {
        let mut object = Just(Map::from_iter([("type".to_owned(), json!(kind))])).boxed();
        let mut seen = BTreeSet::new();
        for field in own(kind) {
            if !seen.insert(field.name) {
                continue;
            }
            let forms: Vec<&Field> = own(kind).filter(|other| other.name == field.name).collect();
            let right: Vec<Value> = forms.iter().flat_map(|field| right(&field.kind)).collect();
            let mut wrong: Vec<Value> = forms.iter().flat_map(|field| wrong(&field.kind)).collect();
            wrong.extend(forms.iter().flat_map(|field| over(&field.kind)));
            wrong.push(Value::Null);
            let needed = forms.iter().any(|field| field.presence == Presence::Required);
            let value = prop::option::weighted(
                if needed { 0.85 } else { 0.3 },
                prop_oneof![9 => prop::sample::select(right), 1 => prop::sample::select(wrong)],
            );
            object = (object, value)
                .prop_map(|(mut object, value)| {
                    object.extend(value.map(|value| (field.name.to_owned(), value)));
                    object
                })
                .boxed();
        }
        object.prop_map(Value::Object).boxed()
    };
    prop::sample::select(kinds.into_iter().collect::<Vec<_>>()).prop_flat_map(one)
}

/// Valid values.
fn right(kind: &Kind) -> Vec<Value> {
    let eq = json!({"eq": {"lang": "de"}});
    match *kind {
        Kind::Json { .. } => vec![json!({"a": [1, null]}), json!("é"), Value::Null],
        Kind::Null => vec![Value::Null],
        Kind::Flag => vec![json!(true), json!(false)],
        Kind::False => vec![json!(false)],
        Kind::Number { min, max } => vec![json!(min), json!(max)],
        Kind::AnyText => vec![json!("x"), json!(""), json!("é\n")],
        Kind::Text(text) => {
            let mut values = vec![json!(text.example), longer(text, text.bytes_max.unwrap())];
            if text.pattern.is_none() {
                values.push(json!(""));
            }
            values
        }
        Kind::Word(words) => words.iter().map(|word| json!(word)).collect(),
        Kind::ErrorCode | Kind::ErrorWord | Kind::CloseCode | Kind::CloseReason => {
            panic!("no command has that")
        }
        Kind::Record(record) => vec![full(record), minimal(record)],
        Kind::OneOf(union) => union.of.iter().map(|record| full(record)).collect(),
        Kind::List { of, max } => {
            let item = right(of).remove(0);
            let many = max.map(|most| rooms(&item, most));
            [json!([]), json!([item])].into_iter().chain(many).collect()
        }
        Kind::Tags => vec![json!({}), json!({"a": "1", "": ""}), tags_of(8, 1), tags_of(1, 64)],
        Kind::Condition => vec![
            eq.clone(),
            json!({"in": {"kind": ["a", "b"]}}),
            json!({"and": [eq, {"not": {"or": [eq]}}]}),
            json!({"in": {"": vec!["v"; 64]}}),
            json!({"and": vec![eq.clone(); 31]}),
            json!({"or": vec![eq.clone(); 31]}),
            (0..7).fold(eq, |inner, _| json!({"not": inner})),
        ],
    }
}

/// Values of another type, or outside of what is allowed.
fn wrong(kind: &Kind) -> Vec<Value> {
    let all =
        [json!(1), json!(-1), json!(1.5), json!("*"), json!(true), json!([1]), json!({"x": 1})];
    let but = |own: fn(&Value) -> bool| all.iter().filter(move |value| !own(value)).cloned();
    match *kind {
        Kind::Json { .. } => Vec::new(),
        Kind::Null => all.to_vec(),
        Kind::Flag => but(Value::is_boolean).chain([json!("true"), json!(0)]).collect(),
        Kind::False => but(Value::is_boolean).chain([json!(true)]).collect(),
        Kind::Number { min, .. } => {
            let small = min.checked_sub(1).map(|number| json!(number));
            but(|value| value == &json!(1)).chain(small).chain([json!("1")]).collect()
        }
        Kind::AnyText => but(Value::is_string).collect(),
        Kind::Text(text) if text.pattern.is_none() => but(Value::is_string).collect(),
        Kind::Text(_) => {
            but(Value::is_string).chain(["", " ", "é", "a b", "\n"].map(Value::from)).collect()
        }
        Kind::Word(words) => {
            let upper = words.iter().map(|word| json!(word.to_uppercase()));
            all.iter().cloned().chain(upper).collect()
        }
        Kind::ErrorCode | Kind::ErrorWord | Kind::CloseCode | Kind::CloseReason => {
            panic!("no command has that")
        }
        Kind::Record(record) => {
            let fields = record.fields.iter();
            but(|_| false).chain(fields.flat_map(|field| broken(record, field))).collect()
        }
        Kind::OneOf(_) => all.to_vec(),
        Kind::List { of, .. } => {
            let items = wrong(of).into_iter().map(|item| json!([item]));
            but(Value::is_array).chain(items).collect()
        }
        Kind::Tags => all.iter().cloned().chain([json!({"a": null}), json!({"a": 1})]).collect(),
        Kind::Condition => all
            .iter()
            .cloned()
            .chain([
                json!({}),
                json!({"and": []}),
                json!({"or": {}}),
                json!({"not": null}),
                json!({"eq": {}}),
                json!({"eq": {"a": 1}}),
                json!({"in": {"a": []}}),
                json!({"eq": {"a": "1"}, "in": {"a": ["1"]}}),
            ])
            .collect(),
    }
}

/// Values above a limit.
fn over(kind: &Kind) -> Vec<Value> {
    match *kind {
        Kind::Json { bytes_max: Some(most) } => vec![json!("x".repeat(most - 1))],
        Kind::Number { max, .. } => vec![json!(max + 1), json!(u64::MAX)],
        Kind::Text(text) => {
            text.bytes_max.map_or_else(Vec::new, |most| vec![longer(text, most + 1)])
        }
        Kind::Record(record) => {
            let fields = record.fields.iter();
            let field = |field: &Field| {
                over(&field.kind).into_iter().map(|value| with(full(record), field.name, value))
            };
            fields.flat_map(|one| field(one).collect::<Vec<_>>()).collect()
        }
        Kind::List { of: Kind::Record(record), max: Some(most) } => {
            let items = over(&Kind::Record(record)).into_iter().map(|item| json!([item]));
            items.chain([rooms(&full(record), most + 1)]).collect()
        }
        Kind::Tags => vec![tags_of(9, 1), tags_of(1, 65), json!({"x".repeat(65): "v"})],
        Kind::Condition => {
            let eq = json!({"eq": {"a": "1"}});
            vec![
                json!({"eq": {"a": "x".repeat(65)}}),
                json!({"in": {"a": vec!["v"; 65]}}),
                json!({"or": vec![eq.clone(); 32]}),
                json!({"and": vec![eq.clone(); 32]}),
                (0..8).fold(eq, |inner, _| json!({"not": inner})),
            ]
        }
        _ => Vec::new(),
    }
}

/// A text of the type's form and this length.
fn longer(text: &Text, bytes: usize) -> Value {
    let (head, tail) = text.example.split_at(text.example.len() - 1);
    json!(format!("{head}{}{tail}", "x".repeat(bytes - text.example.len())))
}

/// The same item for that many rooms.
fn rooms(item: &Value, count: usize) -> Value {
    (0..count).map(|n| with(item.clone(), "room", json!(format!("public:{n}")))).collect()
}

fn tags_of(count: usize, bytes: usize) -> Value {
    let tag = |n: usize| (n.to_string(), json!("v".repeat(bytes)));
    Value::Object((0..count).map(tag).collect())
}

fn with(mut object: Value, name: &str, value: Value) -> Value {
    object.as_object_mut().unwrap().insert(name.to_owned(), value);
    object
}

fn without(mut object: Value, name: &str) -> Value {
    object.as_object_mut().unwrap().remove(name).unwrap();
    object
}

fn object<'a>(fields: impl Iterator<Item = &'a Field>) -> Value {
    let value = |field: &Field| (field.name.to_owned(), right(&field.kind).remove(0));
    Value::Object(fields.map(value).collect())
}

/// With all fields that can have a value.
fn full(record: &Record) -> Value {
    object(record.fields.iter().filter(|field| !matches!(field.kind, Kind::Null)))
}

/// With the fields that must be there.
fn minimal(record: &Record) -> Value {
    object(record.fields.iter().filter(|field| !field.presence.may_be_missing()))
}

/// The record with something wrong about one field.
fn broken(record: &Record, field: &Field) -> Vec<Value> {
    let mut all: Vec<Value> =
        wrong(&field.kind).into_iter().map(|value| with(full(record), field.name, value)).collect();
    if field.presence == Presence::Required {
        all.push(without(full(record), field.name));
        all.push(with(full(record), field.name, Value::Null));
    }
    all
}

fn of_type(frame: &Frame, object: Value) -> Value {
    with(object, "type", json!(frame.kind.unwrap()))
}

fn refused(value: &Value) -> Rejected {
    decoded(value).expect_err(&value.to_string())
}

#[track_caller]
fn assert_refused_by_name(value: &Value, field: &str) {
    let rejected = refused(value);
    let codes = [ErrorCode::InvalidField, ErrorCode::TooLarge];
    assert!(codes.contains(&rejected.code) && !rejected.strike, "{value}: {rejected:?}");
    assert_eq!(rejected.field.as_deref(), Some(field), "{value}: {rejected:?}");
}

#[test]
fn a_command_with_all_its_fields_or_only_those_it_needs_is_taken() {
    for frame in COMMANDS {
        for object in [full(frame.record), minimal(frame.record)] {
            let value = of_type(frame, object);
            assert_eq!(decoded(&value), Ok(()), "{value}");
            assert_eq!(rows(COMMANDS, &value), [frame.record.name], "{value}");
        }
    }
}

#[test]
fn a_field_that_may_be_left_out_may_be_null_too() {
    for frame in COMMANDS {
        for field in frame.record.fields.iter().chain(commands::COMMON) {
            let whole = of_type(frame, full(frame.record));
            let null = with(whole.clone(), field.name, Value::Null);
            let is_free = field.presence == Presence::Optional;
            // A class may need the key of the same command, or forbid it.
            let may_be_null = is_free || matches!(field.kind, Kind::Json { .. });
            assert_eq!(decoded(&null).is_ok(), may_be_null, "{null}");
            assert_eq!(fits(frame.record.name, &null), may_be_null, "{null}");
            if is_free && !matches!(field.kind, Kind::Null) {
                let mut left_out = whole;
                left_out.as_object_mut().unwrap().remove(field.name);
                assert_eq!(decoded(&left_out), Ok(()), "{left_out}");
            }
        }
    }
}

#[test]
fn a_required_field_that_is_missing_is_named() {
    let mut checked = 0;
    for frame in COMMANDS {
        for field in frame.record.fields {
            if field.presence != Presence::Required {
                continue;
            }
            let value = of_type(frame, without(full(frame.record), field.name));
            // Without its pattern it is a command about a room.
            let named = if field.name == "pattern" { "room" } else { field.name };
            assert_refused_by_name(&value, named);
            assert!(!fits("ClientFrame", &value), "{value}");
            checked += 1;
        }
    }
    assert!(checked >= 14, "{checked}");
}

#[test]
fn a_value_of_the_wrong_type_is_refused_by_the_name_of_its_field() {
    let mut checked = 0;
    for frame in COMMANDS {
        for field in frame.record.fields.iter().chain(commands::COMMON) {
            for value in wrong(&field.kind) {
                let value = of_type(frame, with(full(frame.record), field.name, value));
                assert!(!fits("ClientFrame", &value), "{value}");
                let rejected = refused(&value);
                // Of two forms of a command each names what the other has.
                let is_other_form = matches!(field.kind, Kind::Null);
                if !is_other_form {
                    assert_refused_by_name(&value, field.name);
                }
                assert!(rejected.field.is_some() && !rejected.strike, "{value}: {rejected:?}");
                checked += 1;
            }
        }
    }
    assert!(checked > 300, "{checked}");
}

#[test]
fn a_value_above_its_limit_is_refused_by_the_name_of_its_field() {
    let mut checked = 0;
    for frame in COMMANDS {
        for field in frame.record.fields.iter().chain(commands::COMMON) {
            for value in over(&field.kind) {
                let value = of_type(frame, with(full(frame.record), field.name, value));
                assert_refused_by_name(&value, field.name);
                let is_beyond = is_beyond_the_schema(&refused(&value));
                assert!(is_beyond || !fits("ClientFrame", &value), "{value}");
                checked += 1;
            }
        }
    }
    assert!(checked > 50, "{checked}");
}

#[test]
fn a_field_that_a_command_does_not_have_is_refused_by_its_name() {
    for frame in COMMANDS {
        let forms = COMMANDS.iter().filter(|other| other.kind == frame.kind);
        let own: BTreeSet<_> = forms
            .flat_map(|form| form.record.fields)
            .chain(commands::COMMON)
            .map(|field| field.name)
            .collect();
        let others = Name::ALL.iter().map(|name| name.word()).filter(|name| *name != "type");
        for name in others.chain(["rooom", "", "Room"]).filter(|name| !own.contains(name)) {
            for extra in [json!(1), Value::Null] {
                let value = with(of_type(frame, full(frame.record)), name, extra);
                assert_refused_by_name(&value, name);
                assert!(!fits("ClientFrame", &value), "{value}");
            }
        }
    }
}

#[test]
fn the_schema_has_every_field_that_the_decoder_knows_and_no_other() {
    let known: BTreeSet<_> = Name::ALL.iter().map(|name| name.word()).collect();
    let fields = COMMANDS.iter().flat_map(|frame| frame.record.fields).chain(commands::COMMON);
    let listed: BTreeSet<_> = fields.map(|field| field.name).chain(["type"]).collect();
    assert_eq!(known, listed);
    let schema: Value = serde_json::from_str(SCHEMA).unwrap();
    for frame in COMMANDS {
        let own = schema["$defs"][frame.record.name]["properties"].as_object().unwrap();
        let listed = frame.record.fields.iter().chain(commands::COMMON).map(|field| field.name);
        let expected: BTreeSet<_> = listed.chain(["type"]).collect();
        assert_eq!(own.keys().map(String::as_str).collect::<BTreeSet<_>>(), expected);
    }
}

#[test]
fn the_types_of_the_catalogue_are_those_that_the_protocol_keeps_for_itself() {
    let kinds = COMMANDS.iter().chain(FRAMES).filter_map(|frame| frame.kind);
    let expected: BTreeSet<_> = TYPES.into_iter().collect();
    assert_eq!(kinds.collect::<BTreeSet<_>>(), expected);
}

/// What random frames had in one field.
#[derive(Default)]
struct Seen {
    n_missing: usize,
    n_null: usize,
    n_values: usize,
    words: BTreeSet<String>,
}

type SeenFields = BTreeMap<(&'static str, &'static str), Seen>;

fn look(record: &'static Record, common: &'static [Field], value: &Value, seen: &mut SeenFields) {
    for field in record.fields.iter().chain(common) {
        let entry = seen.entry((record.name, field.name)).or_default();
        match value.get(field.name) {
            None => entry.n_missing += 1,
            Some(Value::Null) => entry.n_null += 1,
            Some(value) => {
                entry.n_values += 1;
                if value.is_string() || value.is_u64() {
                    entry.words.insert(value.to_string());
                }
                look_inside(&field.kind, value, seen);
            }
        }
    }
}

fn look_inside(kind: &Kind, value: &Value, seen: &mut SeenFields) {
    match *kind {
        Kind::Record(record) => look(record, &[], value, seen),
        Kind::List { of, .. } => {
            value.as_array().unwrap().iter().for_each(|item| look_inside(of, item, seen));
        }
        Kind::OneOf(union) => {
            let record = union.of.iter().find(|record| fits(record.name, value));
            look(record.unwrap(), &[], value, seen);
        }
        _ => {}
    }
}

fn words_of(kind: &Kind) -> Option<BTreeSet<String>> {
    let quoted = |word: &str| json!(word).to_string();
    match *kind {
        Kind::Word(words) => Some(words.iter().map(|word| quoted(word)).collect()),
        Kind::ErrorCode => Some(ErrorCode::ALL.map(|code| code.number().to_string()).into()),
        Kind::ErrorWord => Some(ErrorCode::ALL.map(|code| quoted(code.word())).into()),
        Kind::CloseCode => Some(CloseCode::ALL.map(|code| code.number().to_string()).into()),
        Kind::CloseReason => Some(CloseCode::ALL.map(|code| quoted(code.reason())).into()),
        _ => None,
    }
}

#[test]
fn what_the_schema_lets_the_server_leave_out_or_choose_it_does_leave_out_and_choose() {
    let mut runner = TestRunner::deterministic();
    let mut seen = SeenFields::new();
    for _ in 0..SAMPLES {
        let (name, text) = said().new_tree(&mut runner).unwrap().current();
        let frame = FRAMES.iter().find(|frame| frame.record.name == name).unwrap();
        look(frame.record, frames::COMMON, &parsed(&text).unwrap(), &mut seen);
    }
    for frame in FRAMES {
        for field in frame.record.fields.iter().chain(frames::COMMON) {
            check_seen(frame.record, field, &seen);
        }
    }
    for record in [
        &shapes::SENDER,
        &shapes::MEMBER,
        &shapes::RESUMED,
        &shapes::NOT_RESUMED,
        &shapes::RESUMED_GAP,
        &shapes::RESUME_ERROR,
    ] {
        record.fields.iter().for_each(|field| check_seen(record, field, &seen));
    }
}

fn check_seen(record: &Record, field: &Field, seen: &SeenFields) {
    let place = format!("{}.{}", record.name, field.name);
    let had = seen.get(&(record.name, field.name)).unwrap_or_else(|| panic!("{place} not met"));
    assert_eq!(had.n_missing > 0, field.presence.may_be_missing(), "{place} left out");
    let may_be_null = matches!(field.kind, Kind::Null | Kind::Json { .. });
    assert_eq!(had.n_null > 0, field.presence.may_be_null() || may_be_null, "{place} null");
    assert_eq!(had.n_values > 0, !matches!(field.kind, Kind::Null), "{place} with a value");
    if let Some(words) = words_of(&field.kind) {
        assert_eq!(had.words, words, "{place}");
    }
}

fn is_prefix(text: &str) -> bool {
    RoomPattern::parse(text).is_ok_and(|pattern| pattern.is_prefix())
}

type Parses = fn(&str) -> bool;

/// Each text with rules, and who checks them.
fn parsers() -> Vec<(&'static Text, Parses)> {
    vec![
        (&shapes::ROOM, |text| RoomId::parse(text).is_ok()),
        (&shapes::PATTERN, is_prefix),
        (&shapes::EPOCH, |text| Epoch::parse(text).is_ok()),
        (&shapes::USER, |text| UserId::parse(text).is_ok()),
        (&shapes::CLIENT, |text| ClientId::parse(text).is_ok()),
        (&shapes::CONNECTION, |text| ConnectionId::parse(text).is_ok()),
        (&shapes::MESSAGE_ID, |text| MessageId::parse(text).is_ok()),
        (&shapes::KEY, |text| MessageKey::parse(text).is_ok()),
        (&shapes::TRACEPARENT, |text| TraceParent::parse(text).is_some()),
    ]
}

#[test]
fn a_text_fits_its_pattern_exactly_when_its_parser_takes_it() {
    let others = ['\u{80}', 'é', 'а', '\u{2028}', '🦀'];
    let characters: Vec<char> = (0..=0x7f_u8).map(char::from).chain(others).collect();
    for (text, parses) in parsers() {
        let at_most = |bytes: usize| longer(text, bytes).as_str().unwrap().to_owned();
        let most = text.bytes_max.unwrap();
        let mut texts =
            vec![String::new(), text.example.to_owned(), at_most(most), at_most(most + 1)];
        for base in [text.example, "a:b", "a:", "abc:..", "a:x..y", "a..b:c", ":", &"n".repeat(32)]
        {
            texts.push(format!("{base}:x"));
            for at in 0..=base.len() {
                let (head, tail) = base.split_at(at);
                texts.extend(characters.iter().map(|c| format!("{head}{c}{tail}")));
                // In place of the one that is there.
                let tail = tail.get(1..).unwrap_or_default();
                texts.extend(characters.iter().map(|c| format!("{head}{c}{tail}")));
            }
        }
        assert!(texts.iter().any(|text| parses(text)) && texts.iter().any(|text| !parses(text)));
        for one in texts {
            assert_eq!(fits(text.name, &json!(one)), parses(&one), "{} {one:?}", text.name);
        }
    }
}
