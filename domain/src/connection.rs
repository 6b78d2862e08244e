//! The life of one connection as the server sees it: opening, open, draining, closed; with its
//! heartbeat and its token's end.
//!
//! `(state, input, now) → state + effect`. It never sends: what is to be done is answered, and
//! when to look again.

use std::time::Duration;

use crate::codes::CloseCode;
use crate::stalls::Stalls;
use crate::time::{Monotonic, Now, Wall};

/// The intervals of a connection's life.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Timing {
    /// From the upgrade to a valid `connect`, and to the end of looking whether it is one.
    pub authentication_timeout: Duration,
    /// After this long with nothing sent or nothing heard the server pings.
    pub heartbeat_interval: Duration,
    /// After this long with nothing heard it closes. Longer than `heartbeat_interval`: what is
    /// between the two is the time that a client has for its answer. Where that is less than a
    /// second, or less than one more interval if that is shorter, it counts as that much.
    pub heartbeat_timeout: Duration,
    /// After this long without a command it closes as idle, however alive it is; none never does.
    pub idle_timeout: Option<Duration>,
    /// How long before its token's end a client is told, or up to a tenth of the token's time sooner and
    /// up to a tenth of this later, by the connection's draw: tokens of one moment end in one moment.
    pub expiry_notice: Duration,
    /// How long after its token's end a connection may stay, for clocks that differ.
    pub expiry_leeway: Duration,
}

/// The least time that a client has to answer a ping, unless the interval itself is shorter.
const TIME_TO_ANSWER_MIN: Duration = Duration::from_secs(1);

impl Timing {
    /// The longest silence. Without a time to answer every visit would come too late to judge,
    /// and whoever is gone would be pinged forever.
    fn silence_max(&self) -> Duration {
        let interval = self.heartbeat_interval;
        let least = interval.saturating_add(interval.min(TIME_TO_ANSWER_MIN));
        self.heartbeat_timeout.max(least)
    }
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            authentication_timeout: Duration::from_secs(10),
            heartbeat_interval: Duration::from_secs(25),
            heartbeat_timeout: Duration::from_secs(50),
            idle_timeout: None,
            expiry_notice: Duration::from_secs(60),
            expiry_leeway: Duration::from_secs(5),
        }
    }
}

/// Where a connection is in its life.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Phase {
    /// Upgraded; only `connect` is read.
    Opening {
        /// When it is closed if no valid `connect` came.
        deadline: Monotonic,
    },
    /// It has said who it is, or need not, and the host is finding out what that counts for.
    Asked {
        /// When it is closed if the host has not found out.
        deadline: Monotonic,
    },
    /// Authenticated, or anonymous where that is allowed.
    Open,
    /// Told to come back later; closed at `until`.
    Draining {
        /// When it is closed.
        until: Monotonic,
    },
    /// Over.
    Closed(CloseCode),
}

/// What the host has to do for a connection now.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Effect {
    /// Send `ping`.
    Ping,
    /// Send `token_expiring`.
    TokenExpiring(Wall),
    /// Send `disconnect` and close.
    Close(CloseCode),
}

/// The state machine of one connection.
#[derive(Clone, Debug)]
pub struct Connection {
    phase: Phase,
    heard_at: Monotonic,
    /// When it last said more than that it is there.
    acted_at: Monotonic,
    /// Whether it was pinged since: only who was asked can be missed.
    pinged: bool,
    /// When the machine asked to be looked at again; a visit much later means a pause of the
    /// whole process, in which nobody could be heard.
    visit_due: Monotonic,
    expires_at: Option<Wall>,
    expiry_told: bool,
    /// What this connection drew of 0 to 2^32; none is told of its token's end at the very notice.
    draw: Option<u32>,
    /// How much of a tenth of its token's time it drew, in milliseconds.
    drawn_ms: u32,
}

impl Connection {
    /// A connection that has just been upgraded and has yet to say who it is.
    #[must_use]
    pub fn opening(now: Now, timing: &Timing) -> Self {
        let deadline = now.monotonic.after(timing.authentication_timeout);
        Self {
            phase: Phase::Opening { deadline },
            heard_at: now.monotonic,
            acted_at: now.monotonic,
            pinged: false,
            visit_due: deadline,
            expires_at: None,
            expiry_told: false,
            draw: None,
            drawn_ms: 0,
        }
    }

    /// The same with a number that was drawn for it at random.
    #[must_use]
    pub const fn with_draw(self, draw: u32) -> Self {
        Self { draw: Some(draw), ..self }
    }

    /// Where it is in its life.
    #[must_use]
    pub const fn phase(&self) -> Phase {
        self.phase
    }

    /// The host is asking others who it is: from here on it is not the client that takes its time.
    pub const fn asked(&mut self) {
        if let Phase::Opening { deadline } = self.phase {
            self.phase = Phase::Asked { deadline };
        }
    }

    /// It is known now who it is. `expires_at` is its token's end. Answers when to visit.
    pub fn opened(&mut self, now: Now, expires_at: Option<Wall>, timing: &Timing) -> Monotonic {
        if matches!(self.phase, Phase::Opening { .. } | Phase::Asked { .. }) {
            self.phase = Phase::Open;
            self.heard(now.monotonic);
            self.acted(now.monotonic);
        }
        self.renewed(now, expires_at, timing)
    }

    /// Its token was replaced by a fresh one. Answers when to visit.
    pub fn renewed(&mut self, now: Now, expires_at: Option<Wall>, timing: &Timing) -> Monotonic {
        self.expires_at = expires_at;
        self.expiry_told = false;
        let tenth = expires_at.map_or(Duration::ZERO, |end| end.since(now.wall) / 10);
        let drawn_ms = (tenth.as_millis() * u128::from(self.draw.unwrap_or(0))) >> 32;
        self.drawn_ms = u32::try_from(drawn_ms).unwrap_or(u32::MAX);
        let idle_at = self.idle_at(Duration::ZERO, timing);
        self.visit_due = self.next_visit(now, now.monotonic, Duration::ZERO, timing).min(idle_at);
        self.visit_due
    }

    /// A frame came.
    pub const fn heard(&mut self, now: Monotonic) {
        self.heard_at = now;
        self.pinged = false;
    }

    /// A command came: something else than a sign of life.
    pub const fn acted(&mut self, now: Monotonic) {
        self.acted_at = now;
    }

    /// How long before its token's end it is told.
    fn notice(&self, timing: &Timing) -> Duration {
        let Some(draw) = self.draw else { return timing.expiry_notice };
        let tenth_ms = (timing.expiry_notice / 10).as_millis();
        // The share of the tenth that it did not draw is how much later it is told.
        let later_ms = tenth_ms - ((tenth_ms * u128::from(draw)) >> 32);
        let later = Duration::from_millis(u64::try_from(later_ms).unwrap_or(u64::MAX));
        let notice = timing.expiry_notice.saturating_sub(later);
        notice.saturating_add(Duration::from_millis(self.drawn_ms.into()))
    }

    /// When it counts as idle if it says nothing until then; `stalled` is for how long since its last
    /// command the host could not listen.
    fn idle_at(&self, stalled: Duration, timing: &Timing) -> Monotonic {
        match (self.phase, timing.idle_timeout) {
            (Phase::Open, Some(timeout)) => self.acted_at.after(timeout).after(stalled),
            _ => Monotonic::from_millis(u64::MAX),
        }
    }

    /// It was told to come back later and is closed at `until`. Answers when to visit.
    pub const fn drain(&mut self, until: Monotonic) -> Monotonic {
        if !matches!(self.phase, Phase::Closed(_)) {
            self.phase = Phase::Draining { until };
            self.visit_due = until;
        }
        self.visit_due
    }

    /// It is over. Answers whether it was not before.
    pub const fn close(&mut self, code: CloseCode) -> bool {
        let first = !matches!(self.phase, Phase::Closed(_));
        if first {
            self.phase = Phase::Closed(code);
        }
        first
    }

    /// Looks after it at `now`; `sent_at` is when anything was last sent, and `stalls` says when the
    /// host could not listen: deadlines for the client move by that much. Answers what to do and when
    /// to look again.
    pub fn visit(
        &mut self,
        now: Now,
        sent_at: Monotonic,
        stalls: &Stalls,
        timing: &Timing,
    ) -> (Option<Effect>, Monotonic) {
        let stalled = stalls.since(self.heard_at);
        let idle_at = self.idle_at(stalls.since(self.acted_at), timing);
        let effect = match self.phase {
            Phase::Closed(_) => None,
            Phase::Opening { deadline } if now.monotonic >= deadline.after(stalled) => {
                Some(Effect::Close(CloseCode::AuthenticationTimeout))
            }
            // The next attempt may find whoever was asked in a better state.
            Phase::Asked { deadline } if now.monotonic >= deadline.after(stalled) => {
                Some(Effect::Close(CloseCode::TryAgainLater))
            }
            Phase::Opening { .. } | Phase::Asked { .. } => None,
            Phase::Draining { until } if now.monotonic >= until => {
                Some(Effect::Close(CloseCode::ServiceRestart))
            }
            Phase::Draining { .. } => None,
            Phase::Open if now.monotonic >= idle_at => Some(Effect::Close(CloseCode::Idle)),
            Phase::Open => self.visit_open(now, sent_at, stalled, timing),
        };
        let sent_at = if effect == Some(Effect::Ping) { now.monotonic } else { sent_at };
        if let Some(Effect::Close(code)) = effect {
            self.phase = Phase::Closed(code);
        }
        // Whoever was just given a fresh start has nothing behind it.
        let stalled = stalls.since(self.heard_at);
        self.visit_due = self.next_visit(now, sent_at, stalled, timing).min(idle_at);
        (effect, self.visit_due)
    }

    fn visit_open(
        &mut self,
        now: Now,
        sent_at: Monotonic,
        stalled: Duration,
        timing: &Timing,
    ) -> Option<Effect> {
        let interval = timing.heartbeat_interval;
        if let Some(expires_at) = self.expires_at {
            if now.wall >= expires_at.after(timing.expiry_leeway) {
                return Some(Effect::Close(CloseCode::TokenExpired));
            }
            if !self.expiry_told && now.wall.after(self.notice(timing)) >= expires_at {
                self.expiry_told = true;
                return Some(Effect::TokenExpiring(expires_at));
            }
        }
        // Who was not asked in time must not be closed for the lack of an answer.
        let time_to_answer = timing.silence_max().saturating_sub(interval).min(interval);
        if now.monotonic.since(self.visit_due) >= time_to_answer {
            // The process slept (suspend, stop, starvation): ping first, judge later.
            self.heard_at = now.monotonic.max(self.heard_at);
            self.pinged = true;
            return Some(Effect::Ping);
        }
        let silence = now.monotonic.since(self.heard_at).saturating_sub(stalled);
        if silence >= timing.silence_max() {
            return Some(Effect::Close(CloseCode::NoPong));
        }
        // Who only listens says nothing until asked, however much is sent.
        let asks =
            now.monotonic.since(sent_at) >= interval || (silence >= interval && !self.pinged);
        self.pinged |= asks;
        asks.then_some(Effect::Ping)
    }

    fn next_visit(
        &self,
        now: Now,
        sent_at: Monotonic,
        stalled: Duration,
        timing: &Timing,
    ) -> Monotonic {
        match self.phase {
            Phase::Opening { deadline } | Phase::Asked { deadline } => deadline.after(stalled),
            Phase::Draining { until } => until,
            Phase::Closed(_) => Monotonic::from_millis(u64::MAX),
            Phase::Open => {
                let ping = sent_at.after(timing.heartbeat_interval);
                let patience =
                    if self.pinged { timing.silence_max() } else { timing.heartbeat_interval };
                let silence = self.heard_at.after(patience).after(stalled);
                let heartbeat = ping.min(silence);
                let Some(expires_at) = self.expires_at else { return heartbeat };
                let wait = if self.expiry_told {
                    expires_at.after(timing.expiry_leeway).since(now.wall)
                } else {
                    expires_at.since(now.wall.after(self.notice(timing)))
                };
                heartbeat.min(now.monotonic.after(wait))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL_MS: u64 = 25_000;
    const NONE: Stalls = Stalls::new();

    fn at(ms: u64) -> Now {
        Now {
            monotonic: Monotonic::from_millis(ms),
            wall: Wall::from_millis(1_700_000_000_000 + ms as i64),
        }
    }

    fn open() -> Connection {
        let timing = Timing::default();
        let mut connection = Connection::opening(at(0), &timing);
        connection.opened(at(0), None, &timing);
        connection
    }

    #[test]
    fn who_never_connects_is_closed_at_the_deadline_and_not_before() {
        let timing = Timing::default();
        let mut connection = Connection::opening(at(0), &timing);
        let (effect, next) = connection.visit(at(9_999), Monotonic::START, &NONE, &timing);
        assert_eq!((effect, next), (None, Monotonic::from_millis(10_000)));
        let (effect, _) = connection.visit(at(10_000), Monotonic::START, &NONE, &timing);
        assert_eq!(effect, Some(Effect::Close(CloseCode::AuthenticationTimeout)));
    }

    #[test]
    fn who_waits_for_the_host_at_the_deadline_is_told_to_come_back() {
        let timing = Timing::default();
        let mut connection = Connection::opening(at(0), &timing);
        connection.asked();
        let (effect, next) = connection.visit(at(9_999), Monotonic::START, &NONE, &timing);
        assert_eq!((effect, next), (None, Monotonic::from_millis(10_000)));
        let (effect, _) = connection.visit(at(10_000), Monotonic::START, &NONE, &timing);
        assert_eq!(effect, Some(Effect::Close(CloseCode::TryAgainLater)));
        // Who is known in time lives by its heartbeat, also while the host asks who else it may be.
        let mut connection = Connection::opening(at(0), &timing);
        connection.asked();
        connection.opened(at(9_999), None, &timing);
        connection.asked();
        assert_eq!(connection.phase(), Phase::Open);
        let (effect, _) = connection.visit(at(10_000), at(9_999).monotonic, &NONE, &timing);
        assert_eq!(effect, None);
    }

    #[test]
    fn silence_is_pinged_after_one_interval_and_closed_after_two() {
        let timing = Timing::default();
        let mut connection = open();
        let (effect, next) = connection.visit(at(INTERVAL_MS), Monotonic::START, &NONE, &timing);
        assert_eq!(effect, Some(Effect::Ping));
        assert_eq!(next, Monotonic::from_millis(2 * INTERVAL_MS));
        let (effect, _) =
            connection.visit(at(2 * INTERVAL_MS), at(INTERVAL_MS).monotonic, &NONE, &timing);
        assert_eq!(effect, Some(Effect::Close(CloseCode::NoPong)));
    }

    #[test]
    fn who_gives_signs_of_life_and_no_command_is_closed_as_idle_where_that_has_a_limit() {
        let timing = Timing { idle_timeout: Some(Duration::from_secs(60)), ..Timing::default() };
        let mut connection = Connection::opening(at(0), &timing);
        let mut next = connection.opened(at(0), None, &timing);
        connection.acted(at(10_000).monotonic);
        let closed_at = loop {
            let now = at(next.as_millis());
            let (effect, then) = connection.visit(now, now.monotonic, &NONE, &timing);
            if let Some(Effect::Close(code)) = effect {
                break (code, now.monotonic.as_millis());
            }
            // It answers each ping at once.
            connection.heard(now.monotonic);
            assert!(then > next, "{then:?}");
            next = then;
        };
        assert_eq!(closed_at, (CloseCode::Idle, 70_000));
        // Without a limit nobody is idle.
        let mut connection = open();
        connection.heard(at(9_999_999).monotonic);
        let (effect, _) =
            connection.visit(at(10_000_000), at(9_999_999).monotonic, &NONE, &Timing::default());
        assert_ne!(effect, Some(Effect::Close(CloseCode::Idle)));
    }

    #[test]
    fn a_pause_of_the_host_makes_nobody_idle() {
        let timing = Timing { idle_timeout: Some(Duration::from_secs(60)), ..Timing::default() };
        let mut connection = Connection::opening(at(0), &timing);
        connection.opened(at(0), None, &timing);
        let mut stalls = Stalls::new();
        stalls.note(at(50_000).monotonic, Duration::from_secs(40));
        connection.heard(at(61_000).monotonic);
        let (effect, _) = connection.visit(at(61_000), at(61_000).monotonic, &stalls, &timing);
        assert_ne!(effect, Some(Effect::Close(CloseCode::Idle)));
    }

    /// R12: who is asked late, here by six seconds, is judged that much later.
    #[test]
    fn silence_is_closed_after_a_timeout_of_its_own_and_whoever_is_asked_late_has_time_to_answer() {
        let timing =
            Timing { heartbeat_timeout: Duration::from_millis(30_000), ..Timing::default() };
        let mut connection = open();
        let (effect, next) = connection.visit(at(INTERVAL_MS), Monotonic::START, &NONE, &timing);
        assert_eq!((effect, next.as_millis()), (Some(Effect::Ping), 30_000));
        let (effect, _) = connection.visit(at(30_000), at(INTERVAL_MS).monotonic, &NONE, &timing);
        assert_eq!(effect, Some(Effect::Close(CloseCode::NoPong)));
        let mut connection = open();
        let (effect, next) = connection.visit(at(31_000), Monotonic::START, &NONE, &timing);
        assert_eq!((effect, next.as_millis()), (Some(Effect::Ping), 56_000));
        let (effect, next) = connection.visit(at(56_000), at(31_000).monotonic, &NONE, &timing);
        assert_eq!((effect, next.as_millis()), (Some(Effect::Ping), 61_000));
        let (effect, _) = connection.visit(at(61_000), at(56_000).monotonic, &NONE, &timing);
        assert_eq!(effect, Some(Effect::Close(CloseCode::NoPong)));
    }

    #[test]
    fn who_is_gone_is_closed_although_the_timeout_leaves_no_time_to_answer() {
        let closed_at = |interval_ms: u64, timeout_ms: u64| {
            let timing = Timing {
                heartbeat_interval: Duration::from_millis(interval_ms),
                heartbeat_timeout: Duration::from_millis(timeout_ms),
                ..Timing::default()
            };
            let mut connection = Connection::opening(at(0), &timing);
            let mut next = connection.opened(at(0), None, &timing);
            let mut sent_at = Monotonic::START;
            for _ in 0..10 {
                // Timers are late by a little.
                let now = at(next.as_millis() + 2);
                let (effect, after) = connection.visit(now, sent_at, &NONE, &timing);
                match effect {
                    Some(Effect::Close(code)) => return Some((code, now.monotonic.as_millis())),
                    Some(_) => sent_at = now.monotonic,
                    None => {}
                }
                next = after;
            }
            None
        };
        for (interval_ms, timeout_ms, closes_at) in [
            (60_000, 50_000, 61_002),
            (60_000, 60_000, 61_002),
            (60_000, 60_001, 61_002),
            (100, 0, 202),
        ] {
            let closed = closed_at(interval_ms, timeout_ms);
            assert_eq!(closed, Some((CloseCode::NoPong, closes_at)), "{interval_ms}, {timeout_ms}");
        }
        assert_eq!(closed_at(25_000, 30_000), Some((CloseCode::NoPong, 30_002)));
    }

    #[test]
    fn any_frame_counts_as_life_and_traffic_both_ways_spares_the_ping() {
        let timing = Timing::default();
        let mut connection = open();
        connection.heard(at(20_000).monotonic);
        let (effect, next) =
            connection.visit(at(INTERVAL_MS), at(24_000).monotonic, &NONE, &timing);
        assert_eq!((effect, next), (None, Monotonic::from_millis(45_000)));
    }

    #[test]
    fn who_only_listens_is_asked_before_it_is_missed_however_much_is_sent() {
        let timing = Timing::default();
        let mut connection = open();
        let (mut pings, mut next) = (0, Monotonic::from_millis(INTERVAL_MS));
        while next < at(10 * INTERVAL_MS).monotonic {
            let busy = Monotonic::from_millis(next.as_millis() - 10);
            let (effect, after) = connection.visit(at(next.as_millis()), busy, &NONE, &timing);
            assert!(matches!(effect, None | Some(Effect::Ping)), "{effect:?} at {next:?}");
            if effect.is_some() {
                pings += 1;
                connection.heard(Monotonic::from_millis(next.as_millis() + 1));
            }
            next = after;
        }
        assert!((8..=10).contains(&pings), "{pings}");
    }

    /// R12, T02: as far as one connection decides; nothing starves or suspends a process here.
    #[test]
    fn after_a_pause_of_the_process_nobody_is_judged_before_a_fresh_ping() {
        let timing = Timing::default();
        let mut connection = open();
        let hour = 3_600_000;
        let (effect, _) = connection.visit(at(hour), Monotonic::START, &NONE, &timing);
        assert_eq!(effect, Some(Effect::Ping));
        let late = at(hour + 2 * INTERVAL_MS);
        connection.visit(at(hour + INTERVAL_MS), at(hour).monotonic, &NONE, &timing);
        let (effect, _) = connection.visit(late, at(hour + INTERVAL_MS).monotonic, &NONE, &timing);
        assert_eq!(effect, Some(Effect::Close(CloseCode::NoPong)));
    }

    /// R12: the answers lie unread while something else has the processor.
    #[test]
    fn the_deadline_for_an_answer_moves_by_the_time_in_which_nobody_listened() {
        let timing = Timing::default();
        let mut connection = open();
        let (effect, _) = connection.visit(at(INTERVAL_MS), Monotonic::START, &NONE, &timing);
        assert_eq!(effect, Some(Effect::Ping));
        // Behind the ping the host runs for a tenth of a second every five.
        let mut stalls = Stalls::new();
        let mut now = INTERVAL_MS;
        while now < 2 * INTERVAL_MS {
            now += 5_000;
            stalls.note(at(now).monotonic, Duration::from_millis(4_900));
        }
        let asked_at = at(INTERVAL_MS).monotonic;
        let (effect, next) = connection.visit(at(now), asked_at, &stalls, &timing);
        let moved_to = 2 * INTERVAL_MS + 5 * 4_900;
        assert_eq!((effect, next.as_millis()), (Some(Effect::Ping), moved_to));
        // Who is gone all the same is let go then, and who has answered is not.
        let mut gone = connection.clone();
        let end = at(moved_to);
        let (effect, _) = gone.visit(end, end.monotonic, &stalls, &timing);
        assert_eq!(effect, Some(Effect::Close(CloseCode::NoPong)));
        connection.heard(at(moved_to - 1).monotonic);
        assert_eq!(connection.visit(end, end.monotonic, &stalls, &timing).0, None);
    }

    /// R12: nobody is told to stop for what a busy machine did not read.
    #[test]
    fn the_deadline_for_saying_who_one_is_moves_by_the_time_in_which_nobody_listened() {
        let timing = Timing::default();
        let mut connection = Connection::opening(at(0), &timing);
        let mut stalls = Stalls::new();
        stalls.note(at(9_500).monotonic, Duration::from_millis(9_000));
        let (effect, next) = connection.visit(at(10_000), Monotonic::START, &stalls, &timing);
        assert_eq!((effect, next.as_millis()), (None, 19_000));
        let (effect, _) = connection.visit(at(19_000), Monotonic::START, &stalls, &timing);
        assert_eq!(effect, Some(Effect::Close(CloseCode::AuthenticationTimeout)));
    }

    /// A16.
    #[test]
    fn a_token_that_ends_is_announced_then_closed_after_the_leeway() {
        let timing = Timing::default();
        let mut connection = Connection::opening(at(0), &timing);
        let ends = at(70_000).wall;
        let visit = connection.opened(at(0), Some(ends), &timing);
        assert_eq!(visit, Monotonic::from_millis(10_000));
        let (effect, _) = connection.visit(at(10_000), at(10_000).monotonic, &NONE, &timing);
        assert_eq!(effect, Some(Effect::TokenExpiring(ends)));
        connection.heard(at(74_000).monotonic);
        let (effect, next) = connection.visit(at(30_000), at(30_000).monotonic, &NONE, &timing);
        assert_eq!((effect, next.as_millis()), (None, 55_000));
        connection.visit(at(55_000), at(54_000).monotonic, &NONE, &timing);
        // Behind the token's end, and still within the leeway.
        for ms in [70_000, 74_999] {
            assert_eq!(connection.visit(at(ms), at(ms).monotonic, &NONE, &timing).0, None, "{ms}");
        }
        let (effect, _) = connection.visit(at(75_000), at(74_000).monotonic, &NONE, &timing);
        assert_eq!(effect, Some(Effect::Close(CloseCode::TokenExpired)));
    }

    /// A15.
    #[test]
    fn a_fresh_token_in_time_means_no_interruption() {
        let timing = Timing::default();
        let mut connection = Connection::opening(at(0), &timing);
        connection.opened(at(0), Some(at(70_000).wall), &timing);
        connection.visit(at(10_000), at(10_000).monotonic, &NONE, &timing);
        connection.renewed(at(20_000), Some(at(700_000).wall), &timing);
        connection.heard(at(44_000).monotonic);
        let mut next = connection.visit(at(45_000), at(44_000).monotonic, &NONE, &timing).1;
        while next < at(90_000).monotonic {
            connection.heard(next);
            let (effect, after) = connection.visit(at(next.as_millis()), next, &NONE, &timing);
            assert_eq!(effect, None);
            next = after;
        }
    }

    /// H02: from a tenth of the token's time before the notice to a tenth of the notice behind it.
    #[test]
    fn tokens_that_end_in_one_second_are_not_all_told_in_one() {
        let timing =
            Timing { heartbeat_interval: Duration::from_secs(86_400), ..Timing::default() };
        let ends = at(3_600_000).wall;
        let mut by_second = [0_u32; 3_600];
        for n in 0..100_000_u32 {
            let draw = n.wrapping_mul(2_654_435_769);
            let mut connection = Connection::opening(at(0), &timing).with_draw(draw);
            let next = connection.opened(at(0), Some(ends), &timing);
            let now = at(next.as_millis());
            let (effect, _) = connection.visit(now, Monotonic::START, &NONE, &timing);
            assert_eq!(effect, Some(Effect::TokenExpiring(ends)));
            by_second[(next.as_millis() / 1_000) as usize] += 1;
        }
        let told = |from: usize, to: usize| by_second[from..to].iter().sum::<u32>();
        // 60 s before the end, and 360 s to 6 s around that.
        assert_eq!(told(3_180, 3_547), 100_000);
        let peak = by_second.iter().max().unwrap();
        assert!(*peak < 300, "{peak} within one second");
    }

    #[test]
    fn whatever_was_drawn_a_short_token_is_told_of_before_its_end_and_once() {
        let timing = Timing { expiry_notice: Duration::from_secs(2), ..Timing::default() };
        for draw in [0, 1, u32::MAX / 2, u32::MAX] {
            let mut connection = Connection::opening(at(0), &timing).with_draw(draw);
            let ends = at(10_000).wall;
            let next = connection.opened(at(0), Some(ends), &timing);
            assert!((7_000..=8_200).contains(&next.as_millis()), "{next:?}");
            let visit = |connection: &mut Connection, ms| {
                connection.visit(at(ms), at(ms).monotonic, &NONE, &timing).0
            };
            assert_eq!(visit(&mut connection, next.as_millis() - 1), None);
            let told = Some(Effect::TokenExpiring(ends));
            assert_eq!(visit(&mut connection, next.as_millis()), told);
            assert_eq!(visit(&mut connection, next.as_millis() + 1), None);
        }
    }

    #[test]
    fn draining_ends_with_a_restart_and_a_closed_connection_stays_closed() {
        let timing = Timing::default();
        let mut connection = open();
        assert_eq!(connection.drain(Monotonic::from_millis(500)).as_millis(), 500);
        let (effect, _) = connection.visit(at(500), Monotonic::START, &NONE, &timing);
        assert_eq!(effect, Some(Effect::Close(CloseCode::ServiceRestart)));
        assert!(!connection.close(CloseCode::Normal));
        assert_eq!(connection.visit(at(9_000_000), Monotonic::START, &NONE, &timing).0, None);
    }

    /// T01: to 1970, to the end of time, and back.
    #[test]
    fn a_jump_of_the_wall_clock_disconnects_nobody_without_a_token() {
        let timing = Timing::default();
        let mut connection = open();
        for wall in [0, i64::MAX, 1] {
            let now =
                Now { monotonic: Monotonic::from_millis(1_000), wall: Wall::from_millis(wall) };
            assert_eq!(connection.visit(now, Monotonic::START, &NONE, &timing).0, None);
        }
    }
}
