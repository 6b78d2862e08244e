//! Mistakes that a test plants in a client, to see whether it would be found.
//!
//! Without the feature `testing` none exists, and nothing is asked at run time. One must never be anybody else's than
//! the client's in which it was planted.

use std::sync::Arc;

#[cfg(feature = "testing")]
use crate::client::machine::Machine;

/// One mistake.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Mistake {
    /// Where the client stands in its rooms is forgotten with the connection.
    PositionForgotten,
    /// What the last connection left unanswered is published again under another message id.
    RepeatedAnew,
    /// An acknowledgement without echo is taken for an answer only, not for the place of a message.
    PlaceNotPassed,
}

/// Where one is planted.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Soil {
    #[cfg(feature = "testing")]
    planted: Option<Mistake>,
}

impl Soil {
    /// Whether a mistake is to be made here.
    #[cfg(feature = "testing")]
    pub(super) fn has(self, mistake: Mistake) -> bool {
        self.planted == Some(mistake)
    }

    /// Nothing is planted outside of tests.
    #[cfg(not(feature = "testing"))]
    #[allow(clippy::unused_self, reason = "the same call as with the feature")]
    pub(super) const fn has(self, _: Mistake) -> bool {
        false
    }

    /// A publish as it is sent again on another connection.
    pub(super) fn repeated(self, frame: Arc<str>) -> Arc<str> {
        if self.has(Mistake::RepeatedAnew) {
            return frame.replace(r#""msg_id":""#, r#""msg_id":"again-"#).into();
        }
        frame
    }
}

#[cfg(feature = "testing")]
impl<R> Machine<R> {
    /// Has it make a mistake from now on, or none.
    pub const fn plant(&mut self, mistake: Option<Mistake>) {
        self.soil.planted = mistake;
    }
}
