//! All rooms of a pattern, followed without their logs: on every connection anew.
//!
//! It must never pretend to recover: that a pattern is followed no longer is told, and so is that it is again.
//! What comes between is not known.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::client::error::RequestError;
use crate::client::life::Moment;
use crate::client::machine::Machine;
use crate::client::machine::requests::{Answer, Kind};
use crate::client::machine::rooms::{ASK_AGAIN_MIN, RoomPhase};
use crate::codes::ErrorCode;
use crate::principal::RoomPattern;
use crate::protocol::ClientFrame;
use crate::protocol::client_event::{Event, LogEntry, Refusal, Violation};
use crate::protocol::server_event as wire;
use crate::time::Monotonic;

/// How many patterns one client may follow. Servers take fewer.
const PATTERNS_MAX: usize = 256;
/// When to follow again after the server lost something, or refused for the moment without a time.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// The patterns that the application wants to follow.
#[derive(Debug, Default)]
pub(super) struct Patterns {
    followed: BTreeMap<RoomPattern, Followed>,
    /// Which are to be asked for again, and when.
    retries: BTreeSet<(Monotonic, RoomPattern)>,
}

/// One of them.
#[derive(Debug)]
struct Followed {
    phase: RoomPhase,
    /// The application's request, as long as it is not answered.
    wish: Option<u64>,
    /// The command under way that asks for it.
    ask: Option<u64>,
    /// The last command under way that ends it: what comes before its answer is of an earlier time.
    leave: Option<u64>,
}

impl Patterns {
    pub(super) fn due(&self) -> Option<Monotonic> {
        self.retries.first().map(|(at, _)| *at)
    }

    /// How many are held.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.followed.len()
    }

    /// How many are to be asked for again.
    #[cfg(test)]
    pub(super) fn retries(&self) -> usize {
        self.retries.len()
    }

    fn retry(&mut self, pattern: RoomPattern, at: Monotonic) {
        if let Some(entry) = self.followed.get_mut(&pattern) {
            (entry.phase, entry.ask) = (RoomPhase::Away, None);
            self.retries.insert((at, pattern));
        }
    }
}

impl<R> Machine<R> {
    /// The application wants to follow a pattern.
    pub(super) fn follow(&mut self, pattern: &RoomPattern, reply: R, deadline: Monotonic) {
        let known = self.patterns.followed.get(pattern).map(|entry| (entry.phase, entry.leave));
        let leave = match known {
            // It is followed anew behind the answer to its end.
            Some((RoomPhase::Leaving, leave)) => leave,
            Some(_) => return self.refuse(reply, RequestError::AlreadySubscribed),
            None if self.patterns.followed.len() >= PATTERNS_MAX => {
                return self.refuse(reply, RequestError::TooMany { max: PATTERNS_MAX });
            }
            None => None,
        };
        let id = self.requests.next_id();
        let entry = Followed { phase: RoomPhase::Away, wish: Some(id), ask: None, leave };
        self.patterns.followed.insert(pattern.clone(), entry);
        let kind = Kind::SubscribePattern(pattern.clone());
        self.requests.insert(id, kind, Some(reply), deadline);
        if self.is_online() {
            self.send_follow(pattern, id);
        }
    }

    /// The application wants it no longer.
    pub(super) fn unfollow(&mut self, pattern: &RoomPattern, reply: R, deadline: Monotonic) {
        self.forget_follow(pattern);
        let known = self.patterns.followed.get_mut(pattern);
        match known.map(|entry| std::mem::replace(&mut entry.phase, RoomPhase::Leaving)) {
            Some(RoomPhase::Joining | RoomPhase::Joined) => {
                let id = self.requests.next_id();
                let frame =
                    ClientFrame::UnsubscribePattern { id: Some(id), pattern: pattern.clone() };
                self.out.push_frame(&frame);
                if let Some(entry) = self.patterns.followed.get_mut(pattern) {
                    entry.leave = Some(id);
                }
                let kind = Kind::UnsubscribePattern(pattern.clone());
                self.requests.insert(id, kind, Some(reply), deadline);
            }
            Some(RoomPhase::Away) => {
                self.patterns.followed.remove(pattern);
                self.done(reply);
            }
            Some(RoomPhase::Leaving) | None => self.done(reply),
        }
    }

    /// Nobody waits any more for following it.
    fn forget_follow(&mut self, pattern: &RoomPattern) {
        let Some(entry) = self.patterns.followed.get_mut(pattern) else { return };
        for id in [entry.wish.take(), entry.ask.take()].into_iter().flatten() {
            if let Some(pending) = self.requests.take(id) {
                self.resolve(pending, Err(RequestError::Unsubscribed));
            }
        }
    }

    /// On a new connection: all of them again.
    pub(super) fn follow_away(&mut self, now: Moment) {
        self.patterns.retries.clear();
        let away =
            self.patterns.followed.iter().filter(|(_, entry)| entry.phase == RoomPhase::Away);
        let patterns: Vec<_> = away.map(|(pattern, _)| pattern.clone()).collect();
        for pattern in patterns {
            self.follow_again(&pattern, now);
        }
    }

    /// Asks for those whose turn has come.
    pub(super) fn patterns_due(&mut self, now: Moment) {
        while let Some((at, _)) = self.patterns.retries.first()
            && *at <= now.at
            && let Some((_, pattern)) = self.patterns.retries.pop_first()
        {
            let entry = self.patterns.followed.get(&pattern);
            if entry.is_some_and(|entry| entry.phase == RoomPhase::Away) && self.is_online() {
                self.follow_again(&pattern, now);
            }
        }
    }

    fn follow_again(&mut self, pattern: &RoomPattern, now: Moment) {
        let Some(entry) = self.patterns.followed.get(pattern) else { return };
        let id = entry.wish.unwrap_or_else(|| {
            let id = self.requests.next_id();
            let deadline = now.at.after(self.settings.request_timeout);
            self.requests.insert(id, Kind::SubscribePattern(pattern.clone()), None, deadline);
            id
        });
        self.send_follow(pattern, id);
    }

    fn send_follow(&mut self, pattern: &RoomPattern, id: u64) {
        let Some(entry) = self.patterns.followed.get_mut(pattern) else { return };
        (entry.phase, entry.ask) = (RoomPhase::Joining, Some(id));
        let frame = ClientFrame::SubscribePattern { id: Some(id), pattern: pattern.clone() };
        self.out.push_frame(&frame);
    }

    /// It is followed from now on.
    pub(super) fn following(&mut self, from: &wire::PatternSubscribed<'_>) {
        let found = self
            .patterns
            .followed
            .iter_mut()
            .find(|(_, entry)| entry.ask.is_some() && entry.ask == from.id);
        // Without one it was given up meanwhile.
        let Some((pattern, entry)) = found else { return };
        entry.phase = RoomPhase::Joined;
        (entry.ask, entry.wish) = (None, None);
        self.events.push_back(Event::Following { pattern: pattern.clone() });
        let fits = |kind: &Kind| matches!(kind, Kind::SubscribePattern(_));
        self.answer(from.id, fits, || Answer::Done);
    }

    /// The server ended it, or has answered that the application did.
    pub(super) fn pattern_unsubscribed(
        &mut self,
        from: wire::PatternUnsubscribed<'_>,
        now: Moment,
    ) {
        let Ok(pattern) = RoomPattern::parse(&from.pattern) else { return };
        if let Some(id) = from.id {
            self.unfollowed(&pattern, id);
            let fits = |kind: &Kind| matches!(kind, Kind::UnsubscribePattern(_));
            return self.answer(from.id, fits, || Answer::Done);
        }
        let entry = self.patterns.followed.get(&pattern);
        // Of an earlier time where it ends already.
        if entry.is_some_and(|entry| entry.leave.is_none() && entry.phase == RoomPhase::Joined) {
            let reason = from.reason.map(std::borrow::Cow::into_owned);
            self.pattern_ended(pattern, from.code, reason, None, now);
        }
    }

    /// A command that ended it is over.
    pub(super) fn unfollowed(&mut self, pattern: &RoomPattern, id: u64) {
        let Some(entry) = self.patterns.followed.get_mut(pattern) else { return };
        if entry.leave == Some(id) {
            entry.leave = None;
            if entry.phase == RoomPhase::Leaving {
                self.patterns.followed.remove(pattern);
            }
        }
    }

    /// The client's own wish to follow it again was refused.
    pub(super) fn not_followed(&mut self, pattern: RoomPattern, refusal: Refusal, now: Moment) {
        let Refusal { code, error, retry_after_ms, .. } = refusal;
        self.pattern_ended(pattern, Some(code), Some(error), retry_after_ms, now);
    }

    fn pattern_ended(
        &mut self,
        pattern: RoomPattern,
        code: Option<u16>,
        reason: Option<String>,
        retry_after_ms: Option<u64>,
        now: Moment,
    ) {
        let row = ErrorCode::ALL.iter().find(|row| Some(row.number()) == code);
        if row.is_some_and(|row| row.is_temporary()) {
            let after = retry_after_ms.map_or(AGAIN_AFTER, crate::protocol::client_event::span);
            self.patterns.retry(pattern.clone(), now.at.after(after.max(ASK_AGAIN_MIN)));
        } else {
            self.patterns.followed.remove(&pattern);
        }
        self.events.push_back(Event::PatternEnded { pattern, code, reason });
    }

    /// Whoever asked for it is told that it failed, so it must not succeed behind its back.
    pub(super) fn forget_pattern(&mut self, pattern: &RoomPattern) {
        self.patterns.followed.remove(pattern);
    }

    /// Whether an answer to the command that asks for it is awaited.
    pub(super) fn is_asked_to_follow(&self, pattern: &RoomPattern) -> bool {
        let entry = self.patterns.followed.get(pattern);
        entry.is_some_and(|entry| entry.phase == RoomPhase::Joining)
    }

    /// Without a connection nothing is followed.
    pub(super) fn patterns_lost(&mut self) {
        self.patterns.retries.clear();
        self.patterns.followed.retain(|_, entry| entry.phase != RoomPhase::Leaving);
        for (pattern, entry) in &mut self.patterns.followed {
            if entry.phase == RoomPhase::Joined {
                let (pattern, code, reason) = (pattern.clone(), None, None);
                self.events.push_back(Event::PatternEnded { pattern, code, reason });
            }
            entry.phase = RoomPhase::Away;
            (entry.ask, entry.leave) = (None, None);
        }
    }

    /// A message that a pattern brought: it has no place of its own, and is told as it comes.
    pub(super) fn pattern_message(&mut self, pattern: &str, entry: LogEntry) {
        let followed = RoomPattern::parse(pattern).ok();
        let followed = followed.and_then(|pattern| self.patterns.followed.get(&pattern));
        match (followed.map(|followed| (followed.phase, followed.leave)), &entry) {
            (Some((RoomPhase::Joined, None)), _) => self.tell(entry),
            (None | Some((RoomPhase::Away, _)), LogEntry::Message(message)) => {
                self.violation(Violation::NotSubscribed { room: message.room.clone() });
            }
            // What is still on its way from before it was ended.
            _ => {}
        }
    }
}
