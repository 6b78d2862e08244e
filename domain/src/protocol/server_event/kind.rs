//! Which type a frame of the server's has.
//!
//! It must never take a frame for another one because of where in it the type stands.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

/// The type, where a frame begins with it as those of our servers do, and no other field is needed to know it.
pub(super) fn kind_in_front(body: &str) -> Option<&str> {
    let rest = body.strip_prefix(r#"{"type":""#)?;
    let end = rest.bytes().position(|byte| !byte.is_ascii_lowercase() && byte != b'_')?;
    let (kind, behind) = rest.split_at(end);
    (behind.starts_with('"') && !kind.ends_with("subscribed")).then_some(kind)
}

pub(super) fn decode_kind(body: &str) -> Result<Cow<'_, str>, serde_json::Error> {
    #[derive(Deserialize)]
    struct Kind<'a> {
        #[serde(borrow, rename = "type")]
        kind: Cow<'a, str>,
        #[serde(borrow)]
        pattern: Option<&'a RawValue>,
    }
    if let Some(kind) = kind_in_front(body) {
        return Ok(Cow::Borrowed(kind));
    }
    let Kind { kind, pattern } = serde_json::from_str(body)?;
    // Answers about a pattern have no room and no position: they are frames of their own.
    Ok(match (&*kind, pattern) {
        ("subscribed", Some(_)) => Cow::Borrowed("subscribed to a pattern"),
        ("unsubscribed", Some(_)) => Cow::Borrowed("unsubscribed from a pattern"),
        _ => kind,
    })
}

#[cfg(test)]
mod tests {
    use crate::protocol::{ServerEvent, decode_server};

    const FRAMES: [&str; 5] = [
        r#"{"type":"pong","id":3,"timestamp":"t"}"#,
        r#"{"type":"unsubscribed","id":4,"pattern":"world:*","timestamp":"t"}"#,
        r#"{"type":"unsubscribed","id":4,"room":"public:r","timestamp":"t"}"#,
        r#"{"type":"pong_of_a_later_server","id":3,"timestamp":"t"}"#,
        r#"{"type":"po\u006eg","id":3,"timestamp":"t"}"#,
    ];

    fn read(text: &str) -> Vec<Option<ServerEvent<'_>>> {
        decode_server(text).map(Result::ok).collect()
    }

    #[test]
    fn a_frame_is_the_same_alone_and_among_others_and_wherever_its_type_stands() {
        let all = FRAMES.join("\n");
        let alone: Vec<_> = FRAMES.iter().flat_map(|frame| read(frame)).collect();
        assert_eq!(alone, read(&all));
        assert_eq!(
            alone.iter().filter(|event| matches!(event, Some(ServerEvent::Pong(_)))).count(),
            2
        );
        assert!(matches!(alone[1], Some(ServerEvent::PatternUnsubscribed(_))));
        assert!(matches!(alone[2], Some(ServerEvent::Unsubscribed(_))));
        let behind = r#"{"id":3,"timestamp":"t","type":"pong"}"#;
        assert_eq!(read(behind), alone[..1]);
        // Wrong fields, and something behind the frame, are found as before.
        assert_eq!(read(r#"{"type":"pong","id":"x","timestamp":"t"}"#), [None]);
        assert_eq!(read(&format!("{}x", FRAMES[0])), [alone[0].clone(), None]);
    }
}
