//! The command line. It must never know what a target says on the wire.

use std::net::SocketAddr;
use std::time::Duration;

use crate::target::{Target, TargetKind};

pub(crate) const USAGE: &str = "\
load fanout --target roomkeeper|floor|chat|chat-v2 --addr ADDRESS:PORT [--pid PID] [--token TOKEN]
            [--members 500] [--rooms 1] [--size 64] [--stall 0] [--warm 1] [--secs 5 | --messages N]
            [--window 1 | --rate R [--warm-rate R]]
load idle   --target … --addr … [--pid PID] [--token TOKEN]
            [--connections 10000] [--rooms 1000] [--settle 2] [--secs 5] [--tickets 1]
load http   --addr … --token KEY [--pid PID]
            [--connections 16] [--rooms 16] [--size 64] [--warm 1] [--secs 5 | --messages N]

load letters --addr … --token SECRET --messages N [--pid PID] [--connections 5000] [--senders 1] [--size 64]

fanout: in each room one member publishes and all members, it too, receive.
  --window W    closed loop: W messages are under way in each room, the next one is published when
                all members have got the oldest
  --rate R      open loop: R messages a second over all rooms, whatever arrives
  --warm-rate R an open loop's rate while it warms up: what the kernel keeps for a stalled member is
                full before the measured span begins
  --messages N  publish N messages in each room instead of for some seconds, with no warm-up
  --stall S     S members of each room stop reading once they are in; nothing is expected of them
  --size N      bytes of published data, at least 18
idle: opens connections, joins, waits; answers the server's pings.
  --tickets 1   a ticket and one room in connect, instead of the token and a subscribe
letters: users come back to N messages each that were written while they were away, by so many senders in
         turn; --token is the secret that signs tokens.
http: publishes over HTTP with an API key, one request under way on each connection.
--pid is the server's process, whose processor time and memory are reported.";

#[derive(Clone, Copy, Eq, PartialEq)]
pub(crate) enum Mode {
    Fanout,
    Idle,
    Http,
    Letters,
}

/// Who decides when the next message is published.
#[derive(Clone, Copy)]
pub(crate) enum Pace {
    /// The members: so many messages are under way in each room.
    Closed { window: usize },
    /// The clock: so long after the one before.
    Open { step: Duration },
}

/// When publishing ends.
#[derive(Clone, Copy)]
pub(crate) enum Length {
    Time(Duration),
    /// In each room.
    Messages(u64),
}

pub(crate) struct Arguments {
    pub(crate) mode: Mode,
    pub(crate) target: Target,
    pub(crate) addr: SocketAddr,
    pub(crate) pid: Option<u32>,
    /// Of each room.
    pub(crate) members: usize,
    /// Of all rooms.
    pub(crate) connections: usize,
    pub(crate) rooms: usize,
    pub(crate) size: usize,
    /// Of each user's letters.
    pub(crate) senders: usize,
    /// Of each room.
    pub(crate) stall: usize,
    pub(crate) pace: Pace,
    pub(crate) warm_pace: Pace,
    pub(crate) warm: Duration,
    pub(crate) length: Length,
    pub(crate) settle: Duration,
    pub(crate) tickets: bool,
}

impl Arguments {
    pub(crate) fn read(mut words: impl Iterator<Item = String>) -> Result<Self, String> {
        let mode = match words.next().as_deref() {
            Some("fanout") => Mode::Fanout,
            Some("idle") => Mode::Idle,
            Some("http") => Mode::Http,
            Some("letters") => Mode::Letters,
            _ => return Err("the first word is fanout, idle, http or letters".to_owned()),
        };
        let given = Given::read(words)?;
        let kind = match given.text("--target").unwrap_or_default() {
            "" if matches!(mode, Mode::Http | Mode::Letters) => TargetKind::Roomkeeper,
            "roomkeeper" => TargetKind::Roomkeeper,
            "floor" => TargetKind::Floor,
            "chat" => TargetKind::Chat,
            "chat-v2" => TargetKind::ChatV2,
            _ => return Err("--target is roomkeeper, floor, chat or chat-v2".to_owned()),
        };
        let rooms = match mode {
            Mode::Fanout | Mode::Letters => 1,
            Mode::Idle => 1_000,
            Mode::Http => 16,
        };
        let rooms = given.number("--rooms", rooms)?;
        let members = given.number("--members", 500)?;
        let connections = match mode {
            Mode::Fanout => members * rooms,
            Mode::Idle => given.number("--connections", 10_000)?,
            Mode::Http => given.number("--connections", 16)?,
            Mode::Letters => given.number("--connections", 5_000)?,
        };
        let pace = match given.number("--rate", 0.0)? {
            rate if rate > 0.0 => Pace::Open { step: Duration::from_secs_f64(1.0 / rate) },
            _ => Pace::Closed { window: given.number("--window", 1)? },
        };
        let warm_pace = match given.number("--warm-rate", 0.0)? {
            rate if rate > 0.0 => Pace::Open { step: Duration::from_secs_f64(1.0 / rate) },
            _ => pace,
        };
        let seconds = |flag, default| given.number(flag, default).map(Duration::from_secs_f64);
        let length = match given.number("--messages", 0)? {
            0 => Length::Time(seconds("--secs", 5.0)?),
            messages => Length::Messages(messages),
        };
        let all = Self {
            mode,
            target: Target {
                kind,
                token: given.text("--token").map(str::to_owned),
                tokens: Vec::new(),
                back: None,
            },
            addr: given.number("--addr", SocketAddr::from(([127, 0, 0, 1], 8000)))?,
            pid: given
                .text("--pid")
                .map(|pid| pid.parse().map_err(|_| "--pid is a number"))
                .transpose()?,
            members,
            connections,
            rooms,
            size: given.number("--size", 64)?,
            senders: given.number("--senders", 1)?,
            stall: given.number("--stall", 0)?,
            pace,
            warm_pace,
            warm: seconds("--warm", 1.0)?,
            length,
            settle: seconds("--settle", 2.0)?,
            tickets: given.number("--tickets", 0)? > 0,
        };
        let possible = all.rooms > 0 && all.connections >= all.rooms && all.stall < all.members;
        possible.then_some(all).ok_or_else(|| "every room needs a member that reads".to_owned())
    }
}

/// Flags with their values, as they were written.
struct Given(Vec<(String, String)>);

impl Given {
    fn read(mut words: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut pairs = Vec::new();
        while let Some(flag) = words.next() {
            let known = USAGE.split(|c: char| c.is_whitespace() || "[]".contains(c));
            if !flag.starts_with("--") || !known.into_iter().any(|word| word == flag) {
                return Err(format!("{flag} is no flag"));
            }
            let value = words.next().ok_or_else(|| format!("{flag} wants a value"))?;
            pairs.push((flag, value));
        }
        Ok(Self(pairs))
    }

    fn text(&self, flag: &str) -> Option<&str> {
        self.0.iter().rfind(|(name, _)| name == flag).map(|(_, value)| value.as_str())
    }

    fn number<T: std::str::FromStr>(&self, flag: &str, default: T) -> Result<T, String> {
        let Some(text) = self.text(flag) else { return Ok(default) };
        text.parse().map_err(|_| format!("{flag} {text}: that can't be read"))
    }
}
