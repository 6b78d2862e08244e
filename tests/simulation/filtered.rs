//! What must hold for a client that asked for some messages only: it gets exactly those, each with
//! the offset up to which it has all, checked against the truth and never against what it was told.
//!
//! It must never let a wanted message be passed over: only one that has expired may be.

use domain::filter::{Condition, Filter};
use domain::id::Epoch;
use domain::protocol::server_event::Message;
use domain::tags::Tags;
use domain::time::Wall;

use crate::broker::SimRoom;
use crate::checker::{Checked, Stage, View, Violation};
use crate::rng::Rng;

/// The tags that a message with this data is published with: one of three values, or none.
pub(crate) fn tags_of(data: &str) -> Tags {
    let value = (data.len() % 4).to_string();
    let pair = (value != "3").then_some(("k", value.as_str()));
    Tags::build(pair).expect("good tags")
}

/// A filter for about a third of all views; few different ones, so that members share them.
pub(crate) fn draw_filter(rng: &mut Rng) -> Option<Filter> {
    let one_of = |values: &[&str]| Condition::In {
        name: "k".into(),
        values: values.iter().map(|value| (*value).into()).collect(),
    };
    let condition = match rng.below(9) {
        0 => one_of(&["0"]),
        1 => Condition::Not(Box::new(one_of(&["1", "2"]))),
        2 => Condition::Or(vec![one_of(&["2"]), Condition::Not(Box::new(one_of(&["0", "1"])))]),
        _ => return None,
    };
    Some(Filter::build(condition).expect("a good filter"))
}

impl View {
    /// A view that stands where this one does, to see what it would make of something.
    pub(crate) fn clone_position(&self) -> Self {
        let view = Self::new(self.room.clone());
        Self { filter: self.filter.clone(), at: self.at, ..view }
    }

    /// Whether the client wants a message with this data.
    pub(crate) fn wants(&self, data: &str) -> bool {
        self.filter.as_ref().is_none_or(|filter| filter.matches(&tags_of(data)))
    }

    /// A message came to a view with a filter; it must be one that it asked for.
    pub(crate) fn check_wanted(&self, message: &Message<'_>) -> Checked {
        let Some(filter) = &self.filter else { return Ok(()) };
        let pairs = message.tags.iter().map(|(name, value)| (&**name, &**value));
        let tags = Tags::build(pairs).expect("the server's tags are good");
        let has_previous = message.previous.is_some() == message.offset.is_some();
        if filter.matches(&tags) && tags == tags_of(message.data) && has_previous {
            return Ok(());
        }
        Err(Violation::new("I16", format!("{filter:?} let {message:?} through")))
    }

    /// The next wanted message is at this position: what was passed over since the last one must
    /// all be unwanted or gone, and the server must say the same.
    pub(crate) fn step_over(
        &mut self,
        (epoch, offset): (Epoch, u64),
        previous: Option<u64>,
        truth: &SimRoom,
        now: Wall,
    ) -> Checked {
        let text = format!("{} at {:?} got {offset} behind {previous:?}", self.room, self.at);
        let fail = |invariant| Err(Violation::new(invariant, text.clone()));
        match (self.at, previous) {
            (Some((known, _)), _) if known != epoch => fail("I8"),
            (Some((_, at)), _) if offset <= at => fail("I2"),
            (Some((_, at)), Some(previous)) if previous > at || previous >= offset => fail("I16"),
            (None, _) | (_, None) => fail("I8"),
            (Some(_), Some(_)) => {
                self.pass_over((epoch, offset - 1), truth, now)?;
                self.at = Some((epoch, offset));
                Ok(())
            }
        }
    }

    /// An `ack` in place of a message of ours stands ahead of what was told last. Who is leaving
    /// gets it before what is still on its way, and may not believe it then.
    pub(crate) fn on_filtered_ack(
        &mut self,
        (epoch, offset): (Epoch, u64),
        truth: &SimRoom,
        now: Wall,
    ) -> Result<bool, Violation> {
        let stood = self.at;
        match self.pass_over((epoch, offset - 1), truth, now) {
            Err(_) if self.stage == Stage::Leaving => {
                self.at = stood;
                Ok(false)
            }
            Err(violation) => Err(violation),
            Ok(()) => {
                self.at = Some((epoch, offset));
                Ok(self.stage == Stage::On)
            }
        }
    }

    /// The client is said to have everything up to `end`.
    pub(crate) fn pass_over(
        &mut self,
        (epoch, end): (Epoch, u64),
        truth: &SimRoom,
        now: Wall,
    ) -> Checked {
        let Some((known, at)) = self.at.filter(|(known, at)| *known == epoch && *at <= end) else {
            let text = format!("{} at {:?} is said to stand at {end}", self.room, self.at);
            return Err(Violation::new("I7", text));
        };
        let Some(filter) = &self.filter else { return Ok(()) };
        for offset in at + 1..=end {
            let published = truth.at(known, offset);
            let missed = published.is_some_and(|published| {
                filter.passes(&published.publication) && !published.publication.is_expired(now)
            });
            if missed {
                let text = format!("{} at {at} was never told of {offset}", self.room);
                return Err(Violation::new("I1", text));
            }
        }
        self.at = Some((epoch, end));
        Ok(())
    }
}
