//! One client: the machine that every client of the product has, and how far it is.
//!
//! It must never decide when to come back, what to say or where it stands: the machine does.

use std::time::Duration;

use domain::client::backoff::{Backoff, FullJitter};
use domain::client::life::{ABNORMAL, LifeConfig, Lost};
use domain::client::{Machine, Settings, Token, TokenPlace};
use domain::codes::CloseCode;
use domain::time::Monotonic;

use crate::line::End;

/// From the beginning of an attempt to `hello`, as the Rust client waits by default.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// For the answer to a join, as the Rust client waits by default.
pub(crate) const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// For the acknowledgement of a publish, as the Rust client waits by default.
pub(crate) const PUBLISH_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a connection must have stood for the next loss to count as the first, as by default.
const STABLE_AFTER: Duration = Duration::from_secs(20);
/// How often whoever has given up would try again; clients here have ended by then.
const PROBE: Duration = Duration::from_secs(60);
/// Publishes of one client that are not acknowledged yet.
pub(crate) const PUBLISHES_MAX: usize = 32;
/// How many bytes they may have together; each is far below a KiB.
const PUBLISHES_BYTES_MAX: usize = PUBLISHES_MAX << 10;

/// What kind of clients they are.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Manner {
    /// None: their lines send back what they get, and no protocol is spoken.
    Verbatim,
    /// Who is out stays out.
    Staying,
    /// The same, but messages are counted as they come, and not handed to the machine.
    Counting,
    /// They come back by themselves, with their tickets, to where they stood.
    Returning,
}

/// What a client has asked its server for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Asked {
    Join,
    Publish,
}

/// How far a client is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Step {
    /// It has no connection.
    Away,
    /// It has dialled, and is not in yet.
    Opening,
    /// It is greeted, and in the rooms that it has asked for.
    In,
    /// It does not come back.
    Out,
}

/// One client.
pub(crate) struct Client {
    pub(crate) machine: Machine<Asked>,
    pub(crate) step: Step,
    /// Rooms that it has asked for and is not in yet.
    pub(crate) joining: usize,
    /// When it is looked at again at the latest.
    pub(crate) alarm: Option<Monotonic>,
    /// How its line ended, as long as it is not told.
    pub(crate) kept: Option<Lost>,
}

impl Client {
    pub(crate) fn new(manner: Manner, token: Option<Token>) -> Self {
        Self {
            machine: Machine::new(settings(manner, token)),
            step: Step::Away,
            joining: 0,
            alarm: None,
            kept: None,
        }
    }

    /// Gives back what its emptied queues hold: most clients are silent most of the time.
    pub(crate) fn let_go(&mut self) {
        self.machine.effects.shrink_to_fit();
        self.machine.answers.shrink_to_fit();
        self.machine.events.shrink_to_fit();
    }
}

fn settings(manner: Manner, token: Option<Token>) -> Settings {
    let comes_back = manner == Manner::Returning;
    let attempts_max = (!comes_back).then_some(0);
    Settings {
        token,
        brings_tokens: false,
        // A ticket is said in `connect`; without one, the header saves a round trip.
        token_in: if comes_back { TokenPlace::ConnectFrame } else { TokenPlace::Header },
        request_timeout: REQUEST_TIMEOUT,
        outbox_max: PUBLISHES_MAX,
        outbox_bytes_max: PUBLISHES_BYTES_MAX,
        life: LifeConfig {
            connect_timeout: CONNECT_TIMEOUT,
            heartbeat: true,
            backoff: Backoff::FullJitter(FullJitter { attempts_max, ..FullJitter::default() }),
            stable_after: STABLE_AFTER,
            probe: PROBE,
        },
    }
}

/// What a client's machine is told of how its line ended.
pub(crate) fn lost_by(end: &End) -> Lost {
    match end {
        End::Failed(error) => Lost::broken(error.to_string()),
        End::NoUpgrade { answer, retry_after } => {
            let refused = match answer.split(' ').nth(1) {
                Some("401") => CloseCode::Unauthenticated.number(),
                Some("403") => CloseCode::Forbidden.number(),
                // Whatever stands in front may answer with anything; only "no" means no.
                _ => ABNORMAL,
            };
            Lost { after: *retry_after, ..Lost::new(refused, answer.as_str()) }
        }
        End::Closed { code, reason } => Lost::new(*code, reason.as_str()),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use domain::client::life::Moment;
    use domain::client::{Ask, Effect, SubscribeOptions};
    use domain::codes::should_reconnect;
    use domain::room::RoomId;

    use super::*;

    pub(crate) fn now() -> Moment {
        Moment { at: Monotonic::START, random: 0.5 }
    }

    /// A machine that is in a room.
    pub(crate) fn joined(name: &str) -> Machine<Asked> {
        let mut machine = Client::new(Manner::Counting, None).machine;
        machine.start(now());
        machine.opened(now());
        machine.text(
            r#"{"type":"hello","id":null,"accepted_version":2,"features":["resume"],"request_id":"r","client_id":"c","connection_id":"0000000000000001","user_id":null,"rooms":[],"session":null,"resumed":[],"heartbeat_interval_ms":25000,"timestamp":"t"}"#,
            now(),
        );
        let ask = Ask::Subscribe(RoomId::parse(name).unwrap(), SubscribeOptions::default());
        machine.ask(ask, Monotonic::from_millis(1), Asked::Join, now());
        let subscribed = format!(
            r#"{{"type":"subscribed","id":1,"room":"{name}","epoch":"000000000000004e","offset":11,"recovered":false,"messages":[],"more":false,"timestamp":"t"}}"#
        );
        machine.text(&subscribed, now());
        machine.events.clear();
        machine
    }

    #[test]
    fn who_stays_ends_with_its_first_connection_and_who_returns_dials_again() {
        for (manner, ends) in [(Manner::Staying, true), (Manner::Returning, false)] {
            let mut machine = Client::new(manner, None).machine;
            machine.start(now());
            machine.opened(now());
            machine.effects.clear();
            machine.lost(Lost::broken("cut"), now());
            let ended = machine.effects.iter().any(|effect| matches!(effect, Effect::End { .. }));
            assert_eq!((ended, machine.due(true).is_some()), (ends, !ends), "{manner:?}");
        }
    }

    #[test]
    fn a_server_that_says_no_is_not_asked_again_and_one_that_is_busy_is_when_it_says() {
        let refused = |answer: &str, retry_after| {
            lost_by(&End::NoUpgrade { answer: answer.to_owned(), retry_after })
        };
        for no in ["HTTP/1.1 401 Unauthorized", "HTTP/1.1 403 Forbidden"] {
            assert!(!should_reconnect(refused(no, None).code), "{no}");
        }
        let later = Some(Duration::from_secs(3));
        let busy = refused("HTTP/1.1 503 Service Unavailable", later);
        assert!(should_reconnect(busy.code) && busy.after == later);
    }
}
