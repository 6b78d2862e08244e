//! What came of a story, and whether everybody heard what they should.
//!
//! It looks at what was heard and acknowledged alone, whatever happened in between.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use domain::id::Epoch;

use crate::story::ROOMS;

/// What one client heard in its room, in the order in which it heard it.
#[derive(Clone, Debug)]
pub(crate) enum Heard {
    Message {
        epoch: Epoch,
        offset: u64,
        data: String,
    },
    Gap {
        epoch: Epoch,
        from: u64,
        to: u64,
        reason: String,
    },
    /// A newer value of the room's one key.
    Value(u64),
}

/// An acknowledged publish.
#[derive(Clone, Debug)]
pub(crate) struct Acked {
    pub(crate) room: usize,
    pub(crate) data: String,
    pub(crate) epoch: Epoch,
    pub(crate) offset: u64,
    pub(crate) at: Instant,
}

/// What came of a story.
pub(crate) struct Told {
    pub(crate) heard: Vec<Vec<Heard>>,
    pub(crate) acked: Vec<Acked>,
    pub(crate) losses: usize,
    pub(crate) refused: u64,
    /// How connections ended, with how many.
    pub(crate) codes: BTreeMap<u16, usize>,
    /// When nodes greeted those who had been here before, in ISO 8601.
    pub(crate) back: Vec<String>,
    /// How often somebody was told that a member had left.
    pub(crate) leaves: usize,
    pub(crate) took: Duration,
    /// From the end of what happened until every node listed just those who are there.
    pub(crate) presence_true_after: Duration,
    /// How often somebody came to a room or left it meanwhile.
    pub(crate) visits: u64,
    /// The most memory of a node, in MiB, before what happened and after it.
    pub(crate) rss_mib: (u64, u64),
}

impl Told {
    /// Nobody heard anything twice or out of order, and everything that was acknowledged was heard by everybody in
    /// its room, or lies in a gap that was told. Answers how many gaps were.
    pub(crate) fn check(&self) -> usize {
        let mut gaps = 0;
        let mut by_room: BTreeMap<usize, Vec<&Acked>> = BTreeMap::new();
        for one in &self.acked {
            by_room.entry(one.room).or_default().push(one);
        }
        for (number, heard) in self.heard.iter().enumerate() {
            let told = order(number, heard);
            gaps += told.gaps.len();
            for acked in by_room.get(&(number % ROOMS)).into_iter().flatten() {
                let is_told = told.texts.contains(acked.data.as_str())
                    || told.gaps.iter().any(|gap| gap.covers(acked));
                assert!(is_told, "client {number} never heard of {acked:?}, nor of a gap there");
            }
        }
        gaps
    }

    /// How many publishes were acknowledged.
    pub(crate) fn acked(&self) -> usize {
        self.acked.len()
    }
}

struct TheGap<'h> {
    pub(crate) epoch: Epoch,
    from: u64,
    to: u64,
    reason: &'h str,
}

impl TheGap<'_> {
    /// What was acknowledged under an epoch that is over is lost with it.
    fn covers(&self, acked: &Acked) -> bool {
        let is_within = acked.epoch == self.epoch && (self.from..=self.to).contains(&acked.offset);
        is_within || (self.reason == "epoch_changed" && acked.epoch != self.epoch)
    }
}

struct Ordered<'h> {
    texts: BTreeSet<&'h str>,
    gaps: Vec<TheGap<'h>>,
}

fn order(number: usize, heard: &[Heard]) -> Ordered<'_> {
    let (mut texts, mut gaps) = (BTreeSet::new(), Vec::new());
    let (mut last, mut value): (Option<u64>, Option<u64>) = (None, None);
    for one in heard {
        match one {
            Heard::Message { offset, data, .. } => {
                assert!(
                    last.is_none_or(|last| last + 1 == *offset),
                    "client {number}: {one:?} behind {last:?}"
                );
                assert!(texts.insert(data.as_str()), "client {number} heard twice: {one:?}");
                last = Some(*offset);
            }
            Heard::Gap { epoch, from, to, reason } => {
                last = Some(*to);
                gaps.push(TheGap { epoch: *epoch, from: *from, to: *to, reason });
            }
            Heard::Value(newer) => {
                assert!(
                    // Who comes back is given it again.
                    value.is_none_or(|value| value <= *newer),
                    "client {number}: {newer} behind {value:?}"
                );
                value = Some(*newer);
            }
        }
    }
    Ordered { texts, gaps }
}
