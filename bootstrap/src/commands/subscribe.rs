//! `roomkeeper subscribe ROOM…`: prints what happens in rooms, and in those of patterns, one line of JSON per event.
//!
//! It must never print anything else on `out`, and never show a token.

use std::io::{self, Write};
use std::pin::pin;

use client_tungstenite::{Client, Event, RequestError, SubscribeOptions};
use domain::filter::Filter;
use domain::id::Epoch;
use domain::position::{Offset, Position};
use domain::principal::RoomPattern;
use domain::room::RoomId;
use thiserror::Error;

use super::publish::{ConnectFailed, Connection, NotARoom, connect, parse_room};

/// What to follow.
#[derive(Clone, Debug, Default)]
pub struct SubscribeArgs {
    /// Which server.
    pub connection: Connection,
    /// The rooms' names; at least one, or a pattern.
    pub rooms: Vec<String>,
    /// Patterns of rooms to follow.
    pub patterns: Vec<RoomPattern>,
    /// Which messages of the rooms to print; none prints all.
    pub filter: Option<Filter>,
    /// From where on, as `epoch:offset`; only with one room.
    pub since: Option<String>,
    /// Whether to follow who comes and goes.
    pub presence: bool,
    /// After how many messages to end; none goes on for ever.
    pub count: Option<u64>,
}

/// Why it ended, and what to do.
#[derive(Debug, Error)]
pub enum CommandError {
    /// No room was named, and no pattern.
    #[error("name at least one room, like public:lobby, or a --pattern")]
    NoRoom,
    /// A room's name is none.
    #[error(transparent)]
    Room(#[from] NotARoom),
    /// The position is none.
    #[error(
        "--since must be epoch:offset, as events show them, like 00c0ffee00c0ffee:41, not '{0}'"
    )]
    Since(String),
    /// One position for several rooms.
    #[error("--since is a position in one room: name only that room")]
    SinceOfMany,
    /// There is no connection.
    #[error(transparent)]
    Connect(#[from] ConnectFailed),
    /// A room can't be joined.
    #[error("can't subscribe to {room}: {reason}")]
    Request {
        /// Which room.
        room: RoomId,
        /// Why.
        reason: RequestError,
    },
    /// A pattern can't be followed.
    #[error("can't follow {pattern}: {reason}")]
    Pattern {
        /// Which pattern.
        pattern: RoomPattern,
        /// Why.
        reason: RequestError,
    },
    /// The server ended the connection for good.
    #[error("the server ended the connection for good: {code} ({reason})")]
    Ended {
        /// The close code.
        code: u16,
        /// What was said with it.
        reason: String,
    },
    /// An event can't be printed.
    #[error("can't write an event")]
    Output(#[source] io::Error),
}

/// Joins the rooms and prints every event as one line of JSON, until `count` messages have come,
/// nobody reads any more, or the server ends the connection for good.
///
/// # Errors
/// [`CommandError`] says what is wrong and what to do about it.
pub async fn run(args: SubscribeArgs, out: &mut impl Write) -> Result<(), CommandError> {
    let rooms = args.rooms.iter().map(|room| parse_room(room)).collect::<Result<Vec<_>, _>>()?;
    if rooms.is_empty() && args.patterns.is_empty() {
        return Err(CommandError::NoRoom);
    }
    if args.since.is_some() && rooms.len() != 1 {
        return Err(CommandError::SinceOfMany);
    }
    let since = args.since.as_deref().map(parse_position).transpose()?;
    if args.count == Some(0) {
        return Ok(());
    }
    let (client, mut events) = connect(args.connection).await?;
    let options = SubscribeOptions { since, presence: args.presence, filter: args.filter };
    // Events are read meanwhile: the answers stand behind them.
    let mut joining = pin!(join(&client, &rooms, &args.patterns, options));
    let mut is_joining = true;
    let mut left = args.count;
    while left != Some(0) {
        let event = tokio::select! {
            joined = &mut joining, if is_joining => {
                joined?;
                is_joining = false;
                continue;
            }
            event = events.next() => event,
        };
        let Some(event) = event else { break };
        match print(&event, out) {
            // Whoever read this has seen enough.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => break,
            result => result.map_err(CommandError::Output)?,
        }
        match event {
            Event::Message(_) => left = left.map(|left| left - 1),
            Event::Closed { code, reason } => return Err(CommandError::Ended { code, reason }),
            _ => {}
        }
    }
    client.close().await;
    Ok(())
}

async fn join(
    client: &Client,
    rooms: &[RoomId],
    patterns: &[RoomPattern],
    options: SubscribeOptions,
) -> Result<(), CommandError> {
    for room in rooms {
        let joined = client.subscribe(room, options.clone()).await;
        joined.map_err(|reason| CommandError::Request { room: room.clone(), reason })?;
    }
    for pattern in patterns {
        let followed = client.subscribe_pattern(pattern).await;
        let pattern = pattern.clone();
        followed.map_err(|reason| CommandError::Pattern { pattern, reason })?;
    }
    Ok(())
}

fn print(event: &Event, out: &mut impl Write) -> io::Result<()> {
    let line = serde_json::to_string(event)?;
    writeln!(out, "{line}")?;
    out.flush()
}

fn parse_position(text: &str) -> Result<Position, CommandError> {
    let position = text.split_once(':').and_then(|(epoch, offset)| {
        let epoch = Epoch::parse(epoch).ok()?;
        let offset = Offset::parse(offset.parse().ok()?).ok()?;
        Some(Position { epoch, offset })
    });
    position.ok_or_else(|| CommandError::Since(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(rooms: &[&str], since: Option<&str>) -> SubscribeArgs {
        let rooms = rooms.iter().map(|room| (*room).to_owned()).collect();
        SubscribeArgs { rooms, since: since.map(str::to_owned), ..SubscribeArgs::default() }
    }

    async fn refused(args: SubscribeArgs) -> CommandError {
        run(args, &mut Vec::new()).await.unwrap_err()
    }

    #[test]
    fn a_position_is_read_as_events_show_it() {
        let position = parse_position("00c0ffee00c0ffee:41").unwrap();
        assert_eq!(position.offset.get(), 41);
        assert_eq!(position.epoch.to_string(), "00c0ffee00c0ffee");
    }

    #[tokio::test]
    async fn a_position_that_is_none_is_shown_what_one_looks_like() {
        for since in ["", "41", ":41", "00c0ffee00c0ffee:", "00c0ffee00c0ffee:-1"] {
            let said = refused(args(&["public:lobby"], Some(since))).await.to_string();
            assert!(said.contains("like 00c0ffee00c0ffee:41"), "{said}");
        }
    }

    #[tokio::test]
    async fn one_position_for_several_rooms_makes_no_sense() {
        let many = args(&["public:a", "public:b"], Some("00c0ffee00c0ffee:41"));
        assert!(matches!(refused(many).await, CommandError::SinceOfMany));
        let pattern = SubscribeArgs {
            patterns: vec![RoomPattern::parse("public:*").unwrap()],
            ..args(&[], Some("00c0ffee00c0ffee:41"))
        };
        assert!(matches!(refused(pattern).await, CommandError::SinceOfMany));
        assert!(matches!(refused(args(&[], None)).await, CommandError::NoRoom));
    }

    #[test]
    fn an_event_is_one_line_that_reads_like_a_frame() {
        let mut out = Vec::new();
        let event = Event::CaughtUp {
            room: parse_room("public:lobby").unwrap(),
            position: parse_position("00c0ffee00c0ffee:41").unwrap(),
        };
        print(&event, &mut out).unwrap();
        let expected = concat!(
            r#"{"type":"caught_up","room":"public:lobby","#,
            r#""epoch":"00c0ffee00c0ffee","offset":41}"#,
            "\n"
        );
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }
}
