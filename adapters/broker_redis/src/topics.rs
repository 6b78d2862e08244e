//! The channels that a node needs, which of them are on, and which are to be asked for or given up.
//!
//! Nothing here speaks to Redis. A channel must never count as on by what was said to a server that has lost its
//! slot since.

use std::collections::{BTreeMap, BTreeSet};

use domain::principal::RoomPattern;
use domain::room::RoomId;
use tokio::sync::oneshot;

use crate::cluster::Part;
use crate::slots::{SLOTS, slot_of};

/// A channel.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Topic {
    /// That of all nodes, which every node hears.
    News,
    /// That of one room.
    Room(RoomId),
    /// That of all rooms of a namespace.
    Namespace(String),
}

impl Topic {
    /// The channel over which the rooms of a pattern come.
    pub(crate) fn of(pattern: &RoomPattern) -> Self {
        match RoomId::parse(&pattern.to_text()) {
            Ok(room) if !pattern.is_prefix() => Self::Room(room),
            _ => Self::Namespace(pattern.namespace().to_owned()),
        }
    }

    /// Where its channel lies in a Cluster.
    pub(crate) fn slot(&self) -> u16 {
        match self {
            Self::News => slot_of(b"all"),
            Self::Room(room) => slot_of(room.as_str().as_bytes()),
            Self::Namespace(namespace) => slot_of(namespace.as_bytes()),
        }
    }
}

/// What a subscription waits for; none where the channel is there already.
pub(crate) type Waits = Option<oneshot::Receiver<()>>;

/// A channel and who needs it.
#[derive(Debug, Default)]
pub(crate) struct Channel {
    /// Whether Redis has confirmed that everything comes.
    pub(crate) is_on: bool,
    /// Whether it was on, and has been lost since.
    pub(crate) was_lost: bool,
    /// How many watchers need it.
    pub(crate) watchers: usize,
    waiting: Vec<oneshot::Sender<()>>,
}

impl Channel {
    /// Answers what comes once it is on.
    pub(crate) fn wait(&mut self) -> oneshot::Receiver<()> {
        let (sender, receiver) = oneshot::channel();
        // Who waited in vain leaves no trace.
        self.waiting.retain(|waiting| !waiting.is_closed());
        self.waiting.push(sender);
        receiver
    }

    /// It is on: lets those go on that waited. Answers whether it had been lost.
    pub(crate) fn turn_on(&mut self) -> bool {
        self.is_on = true;
        for waiting in self.waiting.drain(..) {
            // Who is not there any more does not miss it.
            let _ = waiting.send(());
        }
        std::mem::take(&mut self.was_lost)
    }
}

/// What the subscriber has to tell Redis.
#[derive(Debug, Default, Eq, PartialEq)]
pub(crate) struct Changes {
    pub(crate) on: Vec<Topic>,
    pub(crate) off: Vec<Topic>,
    /// How many losses there had been when it was taken.
    pub(crate) at: u64,
}

impl Changes {
    pub(crate) const fn is_empty(&self) -> bool {
        self.on.is_empty() && self.off.is_empty()
    }
}

/// All of them.
#[derive(Debug)]
pub(crate) struct Topics {
    pub(crate) channels: BTreeMap<Topic, Channel>,
    /// Those whose need may have changed, by slot.
    changed: BTreeSet<(u16, Topic)>,
    /// How many losses there were, and the last of each slot.
    losses: u64,
    lost_at: Box<[u64]>,
}

impl Default for Topics {
    fn default() -> Self {
        let lost_at = vec![0; usize::from(SLOTS)].into();
        Self { channels: BTreeMap::new(), changed: BTreeSet::new(), losses: 0, lost_at }
    }
}

impl Topics {
    pub(crate) const fn losses(&self) -> u64 {
        self.losses
    }

    /// Whether what was said about a channel after so many losses still counts.
    pub(crate) fn counts(&self, topic: &Topic, at: u64) -> bool {
        self.lost_at.get(usize::from(topic.slot())).is_none_or(|lost_at| *lost_at <= at)
    }

    pub(crate) fn is_on(&self, topic: &Topic) -> bool {
        self.channels.get(topic).is_some_and(|channel| channel.is_on)
    }

    /// The need of a channel may have changed.
    pub(crate) fn note(&mut self, topic: Topic) {
        self.changed.insert((topic.slot(), topic));
    }

    /// The next of some slots; what all nodes are told comes before anything else.
    pub(crate) fn next_changed(&mut self, part: &Part) -> Option<Topic> {
        let news = (Topic::News.slot(), Topic::News);
        if part.has(news.0) && self.changed.remove(&news) {
            return Some(Topic::News);
        }
        let Part::Slots(ranges) = part else {
            return self.changed.pop_first().map(|(_, topic)| topic);
        };
        // No topic comes before that of all nodes.
        let next = ranges.iter().find_map(|range| {
            let mut behind = self.changed.range((*range.start(), Topic::News)..);
            behind.next().filter(|(slot, _)| slot <= range.end()).cloned()
        })?;
        self.changed.remove(&next);
        Some(next.1)
    }

    /// The channels of these slots are lost. Answers which there were.
    pub(crate) fn lose(&mut self, part: &Part) -> Vec<Topic> {
        self.losses += 1;
        for (slot, lost_at) in (0..SLOTS).zip(&mut self.lost_at) {
            if part.has(slot) {
                *lost_at = self.losses;
            }
        }
        let mut lost = Vec::new();
        for (topic, channel) in &mut self.channels {
            if part.has(topic.slot()) {
                channel.was_lost |= std::mem::take(&mut channel.is_on);
                lost.push(topic.clone());
            }
        }
        lost
    }

    pub(crate) fn forget(&mut self, topic: &Topic) {
        self.channels.remove(topic);
        self.changed.remove(&(topic.slot(), topic.clone()));
    }

    #[cfg(test)]
    pub(crate) fn sizes(&self) -> (usize, usize) {
        (self.channels.len(), self.changed.len())
    }
}
