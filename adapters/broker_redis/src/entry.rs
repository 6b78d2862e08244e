//! A publication as it lies in Redis and travels over it: `front`, `body`.
//!
//! The front is written by the script: `epoch number offset bytes at\n`. The number counts all publishes
//! of the room, with and without an offset. The body is written by the publishing node: a JSON object on
//! one line, then the data as it was published. Fields that a node does not know it leaves alone, so that
//! nodes of two versions can share a room.
//!
//! Nothing that stands in Redis may end a node: what can't be read is an error.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use domain::delivery::Class;
use domain::id::{ConnectionId, Epoch, MessageKey, UserId};
use domain::message::{Origin, Publication, Publish, Sender, TombstoneReason};
use domain::position::{Offset, Position};
use domain::room::RoomId;
use domain::tags::Tags;
use domain::time::Wall;
use domain::trace::TraceParent;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// What stands there is not what this server writes.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[error("an entry can't be read: its {0} is wrong")]
pub(crate) struct EntryError(&'static str);

/// What is said about a message, in short names: it is kept with each.
#[derive(Debug, Default, Deserialize, Serialize)]
struct About<'a> {
    #[serde(borrow, rename = "r")]
    room: Cow<'a, str>,
    #[serde(borrow, rename = "c")]
    class: Cow<'a, str>,
    #[serde(borrow, rename = "k", default, skip_serializing_if = "Option::is_none")]
    key: Option<Cow<'a, str>>,
    #[serde(borrow, rename = "u", default, skip_serializing_if = "Option::is_none")]
    user: Option<Cow<'a, str>>,
    #[serde(borrow, rename = "n", default, skip_serializing_if = "Option::is_none")]
    name: Option<Cow<'a, str>>,
    #[serde(rename = "i", default, skip_serializing_if = "Option::is_none")]
    connection: Option<u64>,
    #[serde(borrow, rename = "t", default, skip_serializing_if = "Option::is_none")]
    trace: Option<Cow<'a, str>>,
    #[serde(borrow, rename = "g", default, skip_serializing_if = "Vec::is_empty")]
    tags: Vec<(Cow<'a, str>, Cow<'a, str>)>,
    #[serde(rename = "x", default, skip_serializing_if = "Option::is_none")]
    expires_at: Option<i64>,
    #[serde(rename = "o", default, skip_serializing_if = "Option::is_none")]
    origin: Option<(u64, Option<u64>, bool)>,
    #[serde(borrow, rename = "d", default, skip_serializing_if = "Option::is_none")]
    tombstone: Option<Cow<'a, str>>,
}

impl<'a> About<'a> {
    fn of_sender(sender: &'a Sender) -> Self {
        Self {
            user: sender.user.as_ref().map(|user| user.as_str().into()),
            name: sender.name.as_deref().map(Into::into),
            connection: sender.connection.map(ConnectionId::bits),
            trace: sender.trace.map(|trace| trace.to_string().into()),
            ..Self::default()
        }
    }

    /// The body, behind what stands in `body`: this, then the data.
    fn put(&self, mut body: Vec<u8>, data: &[u8]) -> Vec<u8> {
        body.reserve(160 + data.len());
        // Neither writing to a `Vec` nor a struct of texts and numbers can fail.
        let _ = serde_json::to_writer(&mut body, self);
        body.push(b'\n');
        body.extend_from_slice(data);
        body
    }
}

fn pairs(tags: &Tags) -> Vec<(Cow<'_, str>, Cow<'_, str>)> {
    tags.iter().map(|(name, value)| (name.into(), value.into())).collect()
}

/// What a publish's entry has behind its epoch, number and offset: the end of the front, and the body.
pub(crate) fn tail(publish: &Publish) -> Vec<u8> {
    let front = format!("{} {}\n", publish.data.len(), publish.at.as_millis());
    about(publish).put(front.into_bytes(), &publish.data)
}

fn about(publish: &Publish) -> About<'_> {
    About {
        room: publish.room.as_str().into(),
        class: publish.class.word().into(),
        key: publish.key.as_ref().map(|key| key.as_str().into()),
        tags: pairs(&publish.tags),
        expires_at: publish.ttl.map(|ttl| publish.at.after(ttl).as_millis()),
        origin: publish.origin.map(|o| (o.connection.bits(), o.command, o.echo)),
        ..About::of_sender(&publish.sender)
    }
}

/// The body of the place that remains of a message.
pub(crate) fn tombstone_body(publication: &Publication, reason: TombstoneReason) -> Vec<u8> {
    let about = About {
        room: publication.room.as_str().into(),
        class: publication.class.word().into(),
        tombstone: Some(reason.word().into()),
        ..About::of_sender(&publication.sender)
    };
    about.put(Vec::new(), &[])
}

/// What stands for an entry that nobody can read: its place, and that there is nothing at it any more.
pub(crate) fn lost(room: &RoomId, at: Position, now: Wall) -> Publication {
    Publication {
        room: room.clone(),
        epoch: at.epoch,
        offset: Some(at.offset),
        class: Class::Reliable,
        key: None,
        sender: Sender::default(),
        data: Bytes::new(),
        tags: Tags::default(),
        origin: None,
        at: now,
        expires_at: None,
        tombstone: Some(TombstoneReason::Deleted),
    }
}

/// One publication, and which of its room it is.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Entry {
    /// Counts all publishes of the room, in their order.
    pub(crate) number: u64,
    pub(crate) publication: Publication,
}

/// Reads an entry. Its data shares the memory of `bytes`.
pub(crate) fn decode(bytes: &Bytes) -> Result<Entry, EntryError> {
    let (front_end, body_at) = line(bytes, 0).ok_or(EntryError("front"))?;
    let (about_end, data_at) = line(bytes, body_at).ok_or(EntryError("body"))?;
    let front = std::str::from_utf8(&bytes[..front_end]).map_err(|_| EntryError("front"))?;
    let mut words = front.split(' ');
    let mut word = |what| words.next().ok_or(EntryError(what));
    let epoch = Epoch::parse(word("epoch")?).map_err(|_| EntryError("epoch"))?;
    let number = word("number")?.parse().map_err(|_| EntryError("number"))?;
    let offset: u64 = word("offset")?.parse().map_err(|_| EntryError("offset"))?;
    let _size = word("size")?;
    let at: i64 = word("time")?.parse().map_err(|_| EntryError("time"))?;
    let offset = match offset {
        0 => None,
        offset => Some(Offset::parse(offset).map_err(|_| EntryError("offset"))?),
    };
    let about: About<'_> = serde_json::from_slice(&bytes[body_at..about_end])
        .map_err(|_| EntryError("description"))?;
    let data = bytes.slice(data_at..);
    let publication = publication(&about, epoch, offset, Wall::from_millis(at), data)?;
    Ok(Entry { number, publication })
}

/// Where the line that begins at `from` ends, and where the next one begins.
fn line(bytes: &[u8], from: usize) -> Option<(usize, usize)> {
    let end = from + bytes.get(from..)?.iter().position(|byte| *byte == b'\n')?;
    Some((end, end + 1))
}

fn publication(
    about: &About<'_>,
    epoch: Epoch,
    offset: Option<Offset>,
    at: Wall,
    data: Bytes,
) -> Result<Publication, EntryError> {
    let tags = about.tags.iter().map(|(name, value)| (&**name, &**value));
    let tombstone = match about.tombstone.as_deref() {
        None => None,
        Some("expired") => Some(TombstoneReason::Expired),
        Some("deleted") => Some(TombstoneReason::Deleted),
        Some(_) => return Err(EntryError("tombstone")),
    };
    let origin = about.origin.map(|(connection, command, echo)| Origin {
        connection: ConnectionId::from_bits(connection),
        command,
        echo,
    });
    Ok(Publication {
        room: RoomId::parse(&about.room).map_err(|_| EntryError("room"))?,
        epoch,
        offset,
        class: Class::parse(&about.class).ok_or(EntryError("class"))?,
        key: read(about.key.as_deref(), MessageKey::parse, "key")?,
        sender: Sender {
            user: read(about.user.as_deref(), UserId::parse, "user")?,
            name: about.name.as_deref().map(Arc::from),
            connection: about.connection.map(ConnectionId::from_bits),
            trace: about.trace.as_deref().and_then(TraceParent::parse),
        },
        data,
        tags: Tags::build(tags).map_err(|_| EntryError("tags"))?,
        origin,
        at,
        expires_at: about.expires_at.map(Wall::from_millis),
        tombstone,
    })
}

fn read<T, E>(
    text: Option<&str>,
    parse: impl Fn(&str) -> Result<T, E>,
    what: &'static str,
) -> Result<Option<T>, EntryError> {
    text.map(parse).transpose().map_err(|_| EntryError(what))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    use domain::id::MessageId;
    use domain::message::Publisher;
    use proptest::prelude::*;

    fn publish(data: &'static str) -> Publish {
        let user = UserId::parse("u1").unwrap();
        let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        Publish {
            room: RoomId::parse("public:a").unwrap(),
            publisher: Publisher::User(user.clone()),
            msg_id: MessageId::parse("m").ok(),
            class: Class::Latest,
            key: MessageKey::parse("k").ok(),
            sender: Sender {
                user: Some(user),
                name: Some(Arc::from("Ann\n\"Ö\"")),
                connection: Some(ConnectionId::from_bits(u64::MAX)),
                trace: TraceParent::parse(trace),
            },
            data: Bytes::from_static(data.as_bytes()),
            tags: Tags::build([("lang", "de"), ("", "\n\"")]).unwrap(),
            ttl: Some(Duration::from_secs(60)),
            origin: Some(Origin {
                connection: ConnectionId::from_bits(7),
                command: Some(u64::MAX),
                echo: false,
            }),
            at: Wall::from_millis(1_000),
            fence: None,
        }
    }

    fn entry(front: &str, body: &[u8]) -> Bytes {
        Bytes::from([front.as_bytes(), body].concat())
    }

    #[test]
    fn what_is_read_back_is_what_was_published() {
        let sent = publish("{\"a\":\n1}\n");
        let read = decode(&entry("00000000000000ff 9 4 ", &tail(&sent))).unwrap();
        let Publication { room, epoch, offset, class, key, sender, data, tags, .. } =
            &read.publication;
        assert_eq!((read.number, epoch.bits(), offset.unwrap().get()), (9, 255, 4));
        assert_eq!((room, class, key), (&sent.room, &sent.class, &sent.key));
        assert_eq!((sender, data, tags), (&sent.sender, &sent.data, &sent.tags));
        assert_eq!((read.publication.origin, read.publication.tombstone), (sent.origin, None));
        let (at, expires_at) = (read.publication.at, read.publication.expires_at);
        assert_eq!((at.as_millis(), expires_at.map(Wall::as_millis)), (1_000, Some(61_000)));
    }

    #[test]
    fn a_tombstone_keeps_who_sent_it_and_nothing_of_what_was_said() {
        let sent = publish("\"secret\"");
        let read = decode(&entry("00000000000000ff 9 4 ", &tail(&sent))).unwrap();
        let body = tombstone_body(&read.publication, TombstoneReason::Deleted);
        assert!(!String::from_utf8(body.clone()).unwrap().contains("secret"));
        let left = decode(&entry("00000000000000ff 9 4 0 1000\n", &body)).unwrap().publication;
        assert_eq!((left.tombstone, left.data.len()), (Some(TombstoneReason::Deleted), 0));
        assert_eq!((left.sender, left.tags.is_empty()), (sent.sender, true));
    }

    #[test]
    fn a_field_of_a_later_version_is_left_alone() {
        let body = br#"{"r":"public:a","c":"reliable","later":[1]}
"x""#;
        let read = decode(&entry("00000000000000ff 1 1 3 0\n", body)).unwrap();
        assert_eq!(&read.publication.data[..], b"\"x\"");
    }

    #[test]
    fn what_nobody_of_ours_wrote_is_an_error() {
        let good = about(&publish("1")).put(Vec::new(), b"1");
        for (front, body) in [
            ("", &good[..]),
            ("\n", &good[..]),
            ("00000000000000ff 1 1 1\n", &good[..]),
            ("00000000000000ff 1 -1 1 0\n", &good[..]),
            ("00000000000000ff 1 99999999999999999999 1 0\n", &good[..]),
            ("00000000000000FF 1 1 1 0\n", &good[..]),
            ("00000000000000ff 1 1 1 0\n", b"no line"),
            ("00000000000000ff 1 1 1 0\n", b"{}\n1"),
            ("00000000000000ff 1 1 1 0\n", b"{\"r\":\"bad\",\"c\":\"reliable\"}\n1"),
            ("00000000000000ff 1 1 1 0\n", b"{\"r\":\"public:a\",\"c\":\"other\"}\n1"),
            ("00000000000000ff 1 1 1 0\n", b"{\"r\":\"public:a\",\"c\":\"latest\",\"d\":\"x\"}\n1"),
        ] {
            assert!(decode(&entry(front, body)).is_err(), "{front:?} {body:?}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_end_the_reader(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&Bytes::from(bytes));
        }
    }
}
