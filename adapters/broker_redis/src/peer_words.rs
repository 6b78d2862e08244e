//! What nodes say to each other, as JSON.
//!
//! Whatever can't be read is nothing: a node of another version, or somebody else, may have written it. Nothing
//! here may panic.

use std::sync::Arc;
use std::time::Duration;

use application::inquiry::{ConnectionHere, Of, RoomHere, Whom};
use application::ports::{NodeName, PeerAnswer, PeerQuestion};
use application::use_cases::list_connections::{ConnectionCursor, ConnectionsPage};
use application::use_cases::list_rooms::{ListRooms, RoomsPage};
use domain::codes::CloseCode;
use domain::id::{ClientId, ConnectionId, Epoch, UserId};
use domain::moderation::{Act, Entry};
use domain::position::{Offset, Position};
use domain::room::RoomId;
use domain::time::Wall;
use serde::{Deserialize, Serialize};

/// An answer, and whose it is.
#[derive(Debug)]
pub(crate) struct Answered {
    pub(crate) node: NodeName,
    /// The name under which it holds its lease.
    pub(crate) lease: String,
    pub(crate) answer: PeerAnswer,
}

#[derive(Deserialize, Serialize)]
enum Question {
    Rooms(String, Option<String>, u32),
    Connections {
        user: Option<String>,
        room: Option<String>,
        from: Option<(String, u32, u32)>,
        max: u32,
    },
    EndConnection(String, u16),
    EndUser(String, u16),
    Hears(String),
}

/// Whether a question is about one user and answered from memory.
pub(crate) fn is_about_one_user(question: &str) -> bool {
    question.starts_with(r#"{"Hears":"#)
}

#[derive(Deserialize, Serialize)]
struct Answer {
    node: String,
    lease: String,
    said: Said,
}

#[derive(Deserialize, Serialize)]
enum Said {
    Rooms(Vec<Room>, bool),
    Connections(Vec<Connection>, Option<(u32, u32)>),
    Ended(usize),
    Hears(bool),
}

/// Name, members, epoch and offset.
type Room = (String, u32, Option<(String, u64)>);
/// Id, client, user, since, rooms and patterns.
type Connection = (String, String, Option<String>, i64, usize, usize);

#[derive(Deserialize, Serialize)]
struct Deed {
    at: i64,
    /// None where it stands where it was done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    order: Option<i64>,
    by: String,
    room: String,
    act: Kind,
    reason: Option<String>,
    /// Nodes of versions before know nothing of it, and say nothing.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    late: bool,
}

#[derive(Deserialize, Serialize)]
enum Kind {
    Mute(String, Option<u64>),
    Unmute(String),
    Kick(String),
    Ban(String, Option<u64>),
    Unban(String),
    Delete(String, u64),
}

fn to_text<T: Serialize>(value: &T) -> String {
    // Texts and numbers only: there is no value of these that is no JSON.
    serde_json::to_string(value).unwrap_or_default()
}

fn user(text: &str) -> Option<UserId> {
    UserId::parse(text).ok()
}

fn room(text: &str) -> Option<RoomId> {
    RoomId::parse(text).ok()
}

/// None where there is none; the inner none where it can't be read.
fn all<T, U>(value: Option<&T>, read: impl Fn(&T) -> Option<U>) -> Option<Option<U>> {
    value.map_or(Some(None), |value| read(value).map(Some))
}

pub(crate) fn write_question(question: &PeerQuestion) -> String {
    to_text(&match question {
        PeerQuestion::Rooms(ListRooms { prefix, after, rooms_max }) => {
            Question::Rooms(prefix.to_string(), after.as_ref().map(ToString::to_string), *rooms_max)
        }
        PeerQuestion::Connections { of, from, connections_max } => Question::Connections {
            user: of.user.as_ref().map(ToString::to_string),
            room: of.room.as_ref().map(ToString::to_string),
            from: from.as_ref().map(|(node, at)| (node.to_string(), at.shard, at.slot)),
            max: *connections_max,
        },
        PeerQuestion::End { whom: Whom::Connection(id), code } => {
            Question::EndConnection(id.to_string(), code.number())
        }
        PeerQuestion::End { whom: Whom::User(user), code } => {
            Question::EndUser(user.to_string(), code.number())
        }
        PeerQuestion::Hears(user) => Question::Hears(user.to_string()),
    })
}

pub(crate) fn read_question(text: &str) -> Option<PeerQuestion> {
    let code = |number| CloseCode::ALL.into_iter().find(|code| code.number() == number);
    Some(match serde_json::from_str(text).ok()? {
        Question::Rooms(prefix, after, rooms_max) => PeerQuestion::Rooms(ListRooms {
            prefix: Arc::from(prefix),
            after: all(after.as_ref(), |text| room(text))?,
            rooms_max,
        }),
        Question::Connections { user: of_user, room: of_room, from, max } => {
            let of = Of {
                user: all(of_user.as_ref(), |text| user(text))?,
                room: all(of_room.as_ref(), |text| room(text))?,
            };
            let from = all(from.as_ref(), |(node, shard, slot)| {
                let at = ConnectionCursor { shard: *shard, slot: *slot };
                Some((NodeName::parse(node)?, at))
            })?;
            PeerQuestion::Connections { of, from, connections_max: max }
        }
        Question::EndConnection(id, number) => {
            let whom = Whom::Connection(ConnectionId::parse(&id).ok()?);
            PeerQuestion::End { whom, code: code(number)? }
        }
        Question::EndUser(name, number) => {
            PeerQuestion::End { whom: Whom::User(user(&name)?), code: code(number)? }
        }
        Question::Hears(name) => PeerQuestion::Hears(user(&name)?),
    })
}

impl Answered {
    pub(crate) fn write(self) -> String {
        let said = match self.answer {
            PeerAnswer::Rooms(RoomsPage { rooms, more }) => {
                let position = |at: Position| (at.epoch.to_string(), at.offset.get());
                let room = |here: RoomHere| {
                    (here.room.to_string(), here.members, here.position.map(position))
                };
                Said::Rooms(rooms.into_iter().map(room).collect(), more)
            }
            PeerAnswer::Connections(ConnectionsPage { connections, next }) => {
                let connection = |here: ConnectionHere| {
                    let user = here.user.map(|user| user.to_string());
                    let (id, client) = (here.connection.to_string(), here.client.to_string());
                    (id, client, user, here.since.as_millis(), here.rooms, here.patterns)
                };
                let next = next.map(|at| (at.shard, at.slot));
                Said::Connections(connections.into_iter().map(connection).collect(), next)
            }
            PeerAnswer::Ended(count) => Said::Ended(count),
            PeerAnswer::Hears(hears) => Said::Hears(hears),
        };
        to_text(&Answer { node: self.node.to_string(), lease: self.lease, said })
    }

    pub(crate) fn read(text: &str) -> Option<Self> {
        let Answer { node, lease, said } = serde_json::from_str(text).ok()?;
        let answer = match said {
            Said::Rooms(rooms, more) => {
                let rooms = rooms.into_iter().map(read_room).collect::<Option<_>>()?;
                PeerAnswer::Rooms(RoomsPage { rooms, more })
            }
            Said::Connections(connections, next) => {
                let connections =
                    connections.into_iter().map(read_connection).collect::<Option<_>>()?;
                let next = next.map(|(shard, slot)| ConnectionCursor { shard, slot });
                PeerAnswer::Connections(ConnectionsPage { connections, next })
            }
            Said::Ended(count) => PeerAnswer::Ended(count),
            Said::Hears(hears) => PeerAnswer::Hears(hears),
        };
        Some(Self { node: NodeName::parse(&node)?, lease, answer })
    }
}

fn read_room((name, members, at): Room) -> Option<RoomHere> {
    let position = all(at.as_ref(), |(epoch, offset)| {
        let (epoch, offset) = (Epoch::parse(epoch).ok()?, Offset::parse(*offset).ok()?);
        Some(Position { epoch, offset })
    })?;
    Some(RoomHere { room: room(&name)?, members, position })
}

fn read_connection((id, client, of, since, rooms, patterns): Connection) -> Option<ConnectionHere> {
    Some(ConnectionHere {
        connection: ConnectionId::parse(&id).ok()?,
        client: ClientId::parse(&client).ok()?,
        user: all(of.as_ref(), |text| user(text))?,
        since: Wall::from_millis(since),
        rooms,
        patterns,
    })
}

/// What a moderator did, and whether it may be too long ago for a kick.
pub(crate) fn write_entry(entry: &Entry, late: bool) -> String {
    let ms = |span: &Option<Duration>| span.map(crate::broker::millis);
    let act = match &entry.act {
        Act::Mute(user, span) => Kind::Mute(user.to_string(), ms(span)),
        Act::Unmute(user) => Kind::Unmute(user.to_string()),
        Act::Kick(user) => Kind::Kick(user.to_string()),
        Act::Ban(user, span) => Kind::Ban(user.to_string(), ms(span)),
        Act::Unban(user) => Kind::Unban(user.to_string()),
        Act::Delete(at) => Kind::Delete(at.epoch.to_string(), at.offset.get()),
    };
    let (by, room) = (entry.by.to_string(), entry.room.to_string());
    let order = (entry.order != entry.at).then(|| entry.order.as_millis());
    let (at, reason) = (entry.at.as_millis(), entry.reason.clone());
    to_text(&Deed { at, order, by, room, act, reason, late })
}

pub(crate) fn read_entry(text: &str) -> Option<(Entry, bool)> {
    let Deed { at, order, by, room: place, act, reason, late } = serde_json::from_str(text).ok()?;
    let span = |ms: Option<u64>| ms.map(Duration::from_millis);
    let act = match act {
        Kind::Mute(who, ms) => Act::Mute(user(&who)?, span(ms)),
        Kind::Unmute(who) => Act::Unmute(user(&who)?),
        Kind::Kick(who) => Act::Kick(user(&who)?),
        Kind::Ban(who, ms) => Act::Ban(user(&who)?, span(ms)),
        Kind::Unban(who) => Act::Unban(user(&who)?),
        Kind::Delete(epoch, offset) => Act::Delete(Position {
            epoch: Epoch::parse(&epoch).ok()?,
            offset: Offset::parse(offset).ok()?,
        }),
    };
    let (by, room, order) = (user(&by)?, room(&place)?, Wall::from_millis(order.unwrap_or(at)));
    Some((Entry { at: Wall::from_millis(at), order, by, room, act, reason }, late))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ann() -> UserId {
        UserId::parse("ann").unwrap()
    }

    fn position() -> Position {
        Position { epoch: Epoch::from_bits(7), offset: Offset::parse(3).unwrap() }
    }

    #[test]
    fn a_question_is_read_as_it_was_asked() {
        let after = Some(RoomId::parse("public:a").unwrap());
        let of = Of { user: Some(ann()), room: after.clone() };
        let at = ConnectionCursor { shard: 1, slot: 2 };
        let from = Some((NodeName::parse("00ff").unwrap(), at));
        let code = CloseCode::Idle;
        for question in [
            PeerQuestion::Rooms(ListRooms { prefix: "pub\"".into(), after, rooms_max: 9 }),
            PeerQuestion::Connections { of, from, connections_max: 8 },
            PeerQuestion::End { whom: Whom::User(ann()), code },
            PeerQuestion::End { whom: Whom::Connection(ConnectionId::from_bits(5)), code },
            PeerQuestion::Hears(ann()),
        ] {
            let text = write_question(&question);
            let is_quick = matches!(question, PeerQuestion::Hears(_));
            assert_eq!(is_about_one_user(&text), is_quick, "{text}");
            let read = read_question(&text).map(|read| format!("{read:?}"));
            assert_eq!(read, Some(format!("{question:?}")), "{text}");
        }
        for wrong in ["", "{}", r#"{"EndUser":["a b",3006]}"#, r#"{"EndUser":["ann",1]}"#, "[1]"] {
            assert!(read_question(wrong).is_none(), "{wrong}");
        }
    }

    #[test]
    fn an_answer_is_read_as_it_was_given() {
        let room = RoomId::parse("public:a").unwrap();
        let rooms = vec![RoomHere { room, members: 3, position: Some(position()) }];
        let connections = vec![ConnectionHere {
            connection: ConnectionId::from_bits(1),
            client: ClientId::parse("c").unwrap(),
            user: Some(ann()),
            since: Wall::from_millis(12),
            rooms: 2,
            patterns: 1,
        }];
        let next = Some(ConnectionCursor { shard: 3, slot: 4 });
        for answer in [
            PeerAnswer::Rooms(RoomsPage { rooms, more: true }),
            PeerAnswer::Connections(ConnectionsPage { connections, next }),
            PeerAnswer::Ended(7),
            PeerAnswer::Hears(true),
        ] {
            let node = NodeName::parse("a1").unwrap();
            let written =
                Answered { node: node.clone(), lease: "l".to_owned(), answer: answer.clone() };
            let read = Answered::read(&written.write()).unwrap();
            assert_eq!((read.node, &*read.lease, read.answer), (node, "l", answer));
        }
        assert!(Answered::read(r#"{"node":"a","lease":"l","said":{"Ended":-1}}"#).is_none());
    }

    #[test]
    fn what_a_moderator_did_is_read_as_it_was_done() {
        let (room, span) = (RoomId::parse("chat:a").unwrap(), Some(Duration::from_secs(60)));
        for act in [
            Act::Mute(ann(), span),
            Act::Unmute(ann()),
            Act::Kick(ann()),
            Act::Ban(ann(), None),
            Act::Unban(ann()),
            Act::Delete(position()),
        ] {
            let (at, by) = (Wall::from_millis(5), UserId::parse("mod").unwrap());
            let reason = Some("says \"no\"\n".to_owned());
            let entry = Entry { at, order: at, by, room: room.clone(), act, reason };
            let behind = Entry { order: Wall::from_millis(9), ..entry.clone() };
            assert_eq!(read_entry(&write_entry(&behind, false)), Some((behind, false)));
            for late in [false, true] {
                let text = write_entry(&entry, late);
                assert_eq!(text.contains("late"), late);
                assert_eq!(read_entry(&text), Some((entry.clone(), late)));
            }
        }
        assert_eq!(read_entry("{}"), None);
    }
}
