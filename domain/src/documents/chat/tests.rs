//! What `/ws/chat` takes and what it refuses; it must never look at anything but what was read.

use super::*;
use crate::codes::ErrorCode;

fn room(name: &str) -> RoomId {
    RoomId::parse(name).unwrap()
}

fn user(id: &str) -> UserId {
    UserId::parse(id).unwrap()
}

fn field(rejected: Rejected) -> String {
    rejected.field.unwrap().into_owned()
}

#[test]
fn the_printed_chat_message_is_taken_and_what_the_server_knows_better_is_not() {
    let printed = r#"{"type":"chat_message","user":"username","user_id":"uuid","content":"Hello world!","channel":"global","timestamp":"2025-06-06T16:00:00Z"}"#;
    let read = message(printed).unwrap();
    assert_eq!(read.target, Target::Room(room("chat:global")));
    assert_eq!(read.data(None), r#"{"type":"chat_message","content":"Hello world!"}"#);
}

#[test]
fn a_message_goes_where_its_channel_says() {
    let to = |rest: &str| {
        let body = format!(r#"{{"type":"chat_message","content":"x"{rest}}}"#);
        message(&body).map(|message| message.target)
    };
    let global = Target::Room(room("chat:global"));
    assert_eq!(to("").unwrap(), global);
    assert_eq!(to(r#","channel":null"#).unwrap(), global);
    let guild = to(r#","channel":"guild","guild_id":"42""#).unwrap();
    assert_eq!(guild, Target::Room(room("chat:guild/42")));
    let party = to(r#","channel":"party","party_id":"p""#).unwrap();
    assert_eq!(party, Target::Room(room("chat:party/p")));
    let private = to(r#","channel":"private","to_user_id":"u2""#).unwrap();
    assert_eq!(private, Target::User(user("u2")));
    let trade = to(r#","channel":"trade""#).unwrap();
    assert_eq!(trade, Target::Room(room("chat:trade")));
    for (rest, named) in [
        (r#","channel":"guild""#, "guild_id"),
        (r#","channel":"guild","guild_id":7"#, "guild_id"),
        (r#","channel":"guild","guild_id":"a b""#, "guild_id"),
        (r#","channel":"party","party_id":"""#, "party_id"),
        (r#","channel":"private""#, "to_user_id"),
        (r#","channel":"private","to_user_id":"a b""#, "to_user_id"),
        (r#","channel":7"#, "channel"),
        (r#","channel":"""#, "channel"),
        (r#","channel":"guild/42""#, "channel"),
        (r#","channel":"a b""#, "channel"),
    ] {
        assert_eq!(field(to(rest).unwrap_err()), named, "{rest}");
    }
}

#[test]
fn a_text_is_passed_on_byte_for_byte_and_has_an_end() {
    let body = r#"{"type":"chat_message","content":"\u00fc\n<b>&\"ü 🎲"}"#;
    let data = message(body).unwrap().data(Some(&user("u\"2")));
    assert_eq!(
        data,
        r#"{"type":"chat_message","content":"\u00fc\n<b>&\"ü 🎲","to_user_id":"u\"2"}"#
    );
    let of = |text: &str| format!(r#"{{"type":"chat_message","content":"{text}"}}"#);
    assert!(message(&of(&"x".repeat(CONTENT_BYTES_MAX))).is_ok());
    let long = message(&of(&"x".repeat(CONTENT_BYTES_MAX + 1))).unwrap_err();
    assert_eq!((long.code, field(long)), (ErrorCode::TooLarge, "content".into()));
    assert_eq!(field(message(&of(" \\n")).unwrap_err()), "content");
    assert_eq!(field(message(r#"{"type":"chat_message"}"#).unwrap_err()), "content");
}

#[test]
fn typing_begins_when_it_does_not_say_and_stops_when_it_says() {
    let begun = typing(r#"{"type":"typing"}"#).unwrap();
    assert_eq!(begun.data(), r#"{"type":"typing","is_typing":true}"#);
    assert!(!typing(r#"{"type":"typing","is_typing":false}"#).unwrap().is_typing);
    assert_eq!(field(typing(r#"{"type":"typing","is_typing":1}"#).unwrap_err()), "is_typing");
}

#[test]
fn history_is_asked_for_backwards_from_a_message() {
    let asked = history(r#"{"type":"history","channel":"global"}"#).unwrap();
    assert_eq!((asked.before, asked.limit), (None, 50));
    let asked = history(r#"{"type":"history","before":"00000000000000ab-58","limit":7}"#).unwrap();
    let before = asked.before.unwrap();
    assert_eq!((before.epoch.bits(), before.offset.get(), asked.limit), (0xab, 58, 7));
    for (rest, named) in [
        (r#""limit":0"#, "limit"),
        (r#""limit":1001"#, "limit"),
        (r#""limit":"5""#, "limit"),
        (r#""before":"ab-58""#, "before"),
        (r#""before":"00000000000000ab-0""#, "before"),
        (r#""before":"00000000000000ab-+5""#, "before"),
        (r#""before":5"#, "before"),
        (r#""channel":"private","to_user_id":"u2""#, "channel"),
    ] {
        let body = format!(r#"{{"type":"history",{rest}}}"#);
        assert_eq!(field(history(&body).unwrap_err()), named, "{rest}");
    }
}

#[test]
fn a_moderator_says_what_to_whom_and_for_how_long() {
    let read = |rest: &str| moderation(&format!(r#"{{"type":"moderation",{rest}}}"#));
    let mute = read(r#""action":"mute","user_id":"u2","duration_seconds":60,"reason":"spam""#);
    let mute = mute.unwrap();
    assert_eq!(mute.act, Act::Mute(user("u2"), Some(Duration::from_secs(60))));
    assert_eq!((mute.act.word(), mute.reason.as_deref()), ("mute", Some("spam")));
    let ban = read(r#""action":"ban","user_id":"u2","channel":"guild","guild_id":"7""#).unwrap();
    assert_eq!((ban.act, ban.room), (Act::Ban(user("u2"), None), room("chat:guild/7")));
    let delete = read(r#""action":"delete","message_id":"00000000000000ab-58""#).unwrap();
    assert_eq!(delete.act.user(), None);
    for (rest, named) in [
        (r#""user_id":"u2""#, "action"),
        (r#""action":"slap","user_id":"u2""#, "action"),
        (r#""action":"kick""#, "user_id"),
        (r#""action":"mute","user_id":"u2","duration_seconds":0"#, "duration_seconds"),
        (r#""action":"mute","user_id":"u2","duration_seconds":"1h""#, "duration_seconds"),
        (r#""action":"delete""#, "message_id"),
        (r#""action":"delete","message_id":"58""#, "message_id"),
        (r#""action":"kick","user_id":"u2","reason":7"#, "reason"),
    ] {
        assert_eq!(field(read(rest).unwrap_err()), named, "{rest}");
    }
}

#[test]
fn what_a_moderator_does_is_announced_with_who_did_it_and_for_how_long() {
    let said = |rest: &str| {
        let body = format!(r#"{{"type":"moderation","channel":"global",{rest}}}"#);
        moderation(&body).unwrap().announcement(&user("mod\"1"))
    };
    assert_eq!(
        said(r#""action":"mute","user_id":"bob","duration_seconds":60,"reason":"a \"b\"""#),
        r#"{"type":"moderation","action":"mute","user_id":"bob","by":"mod\"1","duration_seconds":60,"reason":"a \"b\""}"#
    );
    assert_eq!(
        said(r#""action":"ban","user_id":"bob""#),
        r#"{"type":"moderation","action":"ban","user_id":"bob","by":"mod\"1","duration_seconds":null,"reason":null}"#
    );
    assert_eq!(
        said(r#""action":"kick","user_id":"bob","duration_seconds":60"#),
        r#"{"type":"moderation","action":"kick","user_id":"bob","by":"mod\"1","duration_seconds":null,"reason":null}"#
    );
    assert_eq!(
        said(r#""action":"delete","message_id":"00000000000000aa-5","reason":"rude""#),
        r#"{"type":"message_deleted","message_id":"00000000000000aa-5","by":"mod\"1"}"#
    );
}
