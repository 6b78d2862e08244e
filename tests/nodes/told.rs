//! What came of a story, and whether everybody heard what they should.
//!
//! It looks at what was heard and acknowledged alone, whatever happened in between.

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime};

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
    /// A place whose message was never stored.
    Nothing {
        offset: u64,
    },
}

/// An acknowledged publish.
#[derive(Clone, Debug)]
pub(crate) struct Acked {
    pub(crate) room: usize,
    /// Who said it.
    pub(crate) number: usize,
    pub(crate) msg_id: String,
    pub(crate) data: String,
    pub(crate) is_durable: bool,
    pub(crate) epoch: Epoch,
    pub(crate) offset: u64,
    pub(crate) at: Instant,
}

/// What came of a story.
pub(crate) struct Told {
    pub(crate) heard: Vec<Vec<Heard>>,
    pub(crate) acked: Vec<Acked>,
    /// How many publishes a second were acknowledged before anything happened.
    pub(crate) per_second: f64,
    pub(crate) losses: usize,
    pub(crate) refused: u64,
    /// How connections ended, with how many.
    pub(crate) codes: BTreeMap<u16, usize>,
    /// When connections ended.
    pub(crate) gone: Vec<SystemTime>,
    /// When nodes greeted those who had been here before, in ISO 8601.
    pub(crate) back: Vec<String>,
    /// Who was told to have left, and when.
    pub(crate) leaves: Vec<(Instant, String)>,
    /// Who was back in its room, when, and for how long it had been out of it.
    pub(crate) away: Vec<(Instant, String, Duration)>,
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
        let (gaps, twice) = self.check_each(|told, acked| {
            told.texts.contains_key(acked.data.as_str())
                || told.gaps.iter().any(|gap| gap.covers(acked))
        });
        assert!(twice.is_empty(), "{twice:?}");
        gaps
    }

    /// The same of what was acknowledged as durable, which no gap excuses: everybody heard it, and each publisher's in
    /// the order in which it was said. Also answers what was heard twice, which only what was never stored may be.
    pub(crate) fn check_durable(&self) -> (usize, Vec<Twice>) {
        assert!(self.acked.iter().all(|acked| acked.is_durable), "an acknowledgement is less");
        let mut last: BTreeMap<usize, u64> = BTreeMap::new();
        for acked in &self.acked {
            let before = last.insert(acked.number, acked.offset);
            assert!(before < Some(acked.offset), "{acked:?} behind {before:?}");
        }
        self.check_each(|told, acked| told.texts.contains_key(acked.data.as_str()))
    }

    fn check_each(&self, is_told: impl Fn(&Ordered<'_>, &Acked) -> bool) -> (usize, Vec<Twice>) {
        let (mut gaps, mut twice) = (0, Vec::new());
        let mut by_room: BTreeMap<usize, Vec<&Acked>> = BTreeMap::new();
        for one in &self.acked {
            by_room.entry(one.room).or_default().push(one);
        }
        for (number, heard) in self.heard.iter().enumerate() {
            let mut told = order(number, heard);
            gaps += told.gaps.len();
            twice.append(&mut told.twice);
            for acked in by_room.get(&(number % ROOMS)).into_iter().flatten() {
                let is_told = is_told(&told, acked);
                assert!(is_told, "client {number} never heard of {acked:?}, nor of a gap there");
            }
        }
        (gaps, twice)
    }

    /// Those who were told to have left although they came back: how long ago each had been lost, and after how long
    /// it was back.
    pub(crate) fn seen_to_leave(&self) -> Vec<String> {
        let of_one = |(at, user): &(Instant, String)| {
            let back = self.away.iter().filter(|(back, who, _)| {
                who == user && back.saturating_duration_since(*at) < Duration::from_secs(10)
            });
            let back = back.map(|(back, _, away)| match back.checked_duration_since(*at) {
                Some(behind) => format!("away for {away:?}, back {behind:?} after that"),
                None => format!("away for {away:?}, back {:?} before that", *at - *back),
            });
            format!("{user}: {:?}", back.collect::<Vec<_>>())
        };
        self.leaves.iter().map(of_one).collect()
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

/// What one client heard twice: in a life of the room's log that is over, and in the next.
#[derive(Debug)]
pub(crate) struct Twice {
    pub(crate) room: usize,
    /// Where it lay, and where it lies.
    pub(crate) offsets: (u64, u64),
    pub(crate) data: String,
}

struct Ordered<'h> {
    /// With their places.
    texts: BTreeMap<&'h str, (Epoch, u64)>,
    gaps: Vec<TheGap<'h>>,
    twice: Vec<Twice>,
}

fn order(number: usize, heard: &[Heard]) -> Ordered<'_> {
    let (mut texts, mut gaps, mut twice) = (BTreeMap::new(), Vec::new(), Vec::new());
    let (mut last, mut value): (Option<u64>, Option<u64>) = (None, None);
    let next = |last: Option<u64>, offset: u64, one: &Heard| {
        let is_next = last.is_none_or(|last| last + 1 == offset);
        assert!(is_next, "client {number}: {one:?} behind {last:?}");
        Some(offset)
    };
    for one in heard {
        match one {
            Heard::Message { epoch, offset, data } => {
                last = next(last, *offset, one);
                let Some((life, at)) = texts.insert(data.as_str(), (*epoch, *offset)) else {
                    continue;
                };
                assert!(life != *epoch, "client {number} heard twice: {one:?}, and at {at}");
                let (room, offsets) = (number % ROOMS, (at, *offset));
                twice.push(Twice { room, offsets, data: data.clone() });
            }
            Heard::Nothing { offset } => last = next(last, *offset, one),
            Heard::Gap { epoch, from, to, reason } => {
                if matches!(reason.as_str(), "epoch_changed" | "unknown_position") {
                    // What lay behind its end was lost with its life, and may be said again in the next.
                    texts.retain(|_, (_, at)| *at <= *to);
                }
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
    Ordered { texts, gaps, twice }
}
