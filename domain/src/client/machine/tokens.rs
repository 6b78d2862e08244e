//! Tokens that are brought when they are asked for: when one is needed, and what becomes of it.
//!
//! It must never have two of them on their way, nor dial with one that is known to be of no use.

use std::time::Duration;

use crate::client::life::{self, Lost, Moment};
use crate::client::machine::requests::Kind;
use crate::client::machine::{Effect, Machine};
use crate::client::settings::Token;
use crate::codes::CloseCode;
use crate::protocol::ClientFrame;
use crate::time::Monotonic;

/// After how many tokens in a row that could not be got the client stops.
const FAILURES_MAX: u32 = 5;
/// When a refresh that failed for the moment is tried again.
const REFRESH_AGAIN_AFTER: Duration = Duration::from_secs(5);

/// The token at hand.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Hand {
    /// It is of no use, or there is none.
    Stale,
    /// Nothing speaks against it.
    Good,
    /// It was got for this very attempt, and has not served yet.
    Fresh,
}

/// The next token.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Next {
    NotAsked,
    /// It is on its way.
    Asked,
    /// It is on its way, and the attempt waits for it.
    Awaited,
}

/// What is known of both.
#[derive(Debug)]
pub(super) struct Tokens {
    /// Whether tokens can be asked for at all.
    brings: bool,
    hand: Hand,
    next: Next,
    /// How many could not be got in a row, since the last greeting.
    failures: u32,
    /// When to ask for one again, to refresh this connection.
    pub(super) again_at: Option<Monotonic>,
}

impl Tokens {
    pub(super) const fn new(brings: bool, has_one: bool) -> Self {
        let hand = if has_one { Hand::Good } else { Hand::Stale };
        Self { brings, hand, next: Next::NotAsked, failures: 0, again_at: None }
    }

    /// Nothing is wanted any more.
    pub(super) const fn give_up(&mut self) {
        (self.next, self.again_at) = (Next::NotAsked, None);
    }

    /// The attempt is over, whatever comes.
    pub(super) fn attempt_over(&mut self) {
        if self.next == Next::Awaited {
            self.next = Next::Asked;
        }
    }

    /// The server has greeted who showed the token: it has proved itself.
    pub(super) fn greeted(&mut self) {
        self.failures = 0;
        if self.hand == Hand::Fresh {
            self.hand = Hand::Good;
        }
    }

    pub(super) const fn due(&self) -> Option<Monotonic> {
        self.again_at
    }

    /// How much is held.
    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        usize::from(self.next != Next::NotAsked) + usize::from(self.again_at.is_some())
    }
}

impl<R> Machine<R> {
    /// The token that was asked for by [`Effect::BringToken`], none to stay anonymous; or why there is none.
    pub fn bring(&mut self, brought: Result<Option<Token>, String>, now: Moment) {
        let is_awaited = match std::mem::replace(&mut self.tokens.next, Next::NotAsked) {
            Next::NotAsked => return,
            Next::Asked => false,
            Next::Awaited => true,
        };
        match brought {
            Ok(token) if is_awaited => {
                self.take_token(token);
                self.tokens.hand = Hand::Fresh;
                self.effects.push_back(Effect::Dial);
            }
            Ok(Some(token)) if self.is_online() => self.refresh(token, now),
            // Nobody waits for it any more: it serves the next attempt.
            Ok(Some(token)) => self.take_token(Some(token)),
            Ok(None) => {}
            Err(why) => self.not_brought(&why, is_awaited, now),
        }
    }

    fn not_brought(&mut self, why: &str, is_awaited: bool, now: Moment) {
        self.tokens.failures = self.tokens.failures.saturating_add(1);
        if is_awaited {
            let code = match self.tokens.failures {
                FAILURES_MAX.. => CloseCode::Unauthenticated,
                _ => CloseCode::TokenExpired,
            };
            let lost = Lost::new(code.number(), format!("no token: {why}"));
            self.live(life::Event::Closed(lost), now);
        } else {
            self.refresh_later(now);
        }
    }

    /// Takes a token for the next connection. It may be another user's: a ticket would come before it.
    pub(super) fn take_token(&mut self, token: Option<Token>) {
        (self.token, self.session) = (token, None);
        self.tokens.hand = Hand::Good;
    }

    /// Dials, once there is a token to dial with.
    pub(super) fn dial(&mut self) {
        if self.tokens.brings && self.tokens.hand == Hand::Stale {
            self.ask_for_token();
            self.tokens.next = Next::Awaited;
            return;
        }
        if self.tokens.hand == Hand::Fresh {
            self.tokens.hand = Hand::Good;
        }
        self.effects.push_back(Effect::Dial);
    }

    /// Asks for one, if none is on its way.
    fn ask_for_token(&mut self) {
        if self.tokens.next == Next::NotAsked {
            self.tokens.next = Next::Asked;
            self.effects.push_back(Effect::BringToken);
        }
    }

    /// Whether another token may get around how it ended.
    pub(super) fn with_another_token(&mut self, lost: Lost) -> Lost {
        const UNAUTHENTICATED: u16 = CloseCode::Unauthenticated.number();
        const OF_NO_USE: [u16; 3] =
            [CloseCode::TokenExpired.number(), UNAUTHENTICATED, CloseCode::Revoked.number()];
        if !self.tokens.brings || !OF_NO_USE.contains(&lost.code) {
            return lost;
        }
        let was = std::mem::replace(&mut self.tokens.hand, Hand::Stale);
        self.session = None;
        let again = lost.code == UNAUTHENTICATED && was != Hand::Fresh;
        Lost { again: if again { Some(true) } else { lost.again }, ..lost }
    }

    /// The token ends soon, as the server says.
    pub(super) fn token_expires(&mut self) {
        if self.tokens.brings && self.is_online() {
            self.ask_for_token();
        }
    }

    /// Asks for another one in place of one that could not be got, or did not count.
    pub(super) fn token_due(&mut self, now: Moment) {
        if self.tokens.again_at.is_some_and(|at| at <= now.at) {
            self.tokens.again_at = None;
            self.token_expires();
        }
    }

    /// Shows a token on this connection.
    fn refresh(&mut self, token: Token, now: Moment) {
        let id = self.requests.next_id();
        self.out.push_frame(&ClientFrame::Refresh { id: Some(id), token: token.text() });
        let deadline = now.at.after(self.settings.request_timeout);
        self.requests.insert(id, Kind::Refresh(token), None, deadline);
    }

    /// A refresh of the client's own came to nothing. Until the server ends the connection there is time
    /// for another try.
    pub(super) fn refresh_later(&mut self, now: Moment) {
        if self.is_online() {
            self.tokens.again_at = Some(now.at.after(REFRESH_AGAIN_AFTER));
        }
    }
}
