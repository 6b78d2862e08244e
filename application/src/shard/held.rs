//! What waits: live messages behind a read of the log, for one joiner or for a whole slice.
//!
//! Bounded in bytes. What has a position may be forgotten, since the log has it; the newest value
//! of a key must never be, unless everyone who waits for it is told to begin again.

use std::collections::VecDeque;
use std::sync::Arc;

use domain::id::MessageKey;
use domain::message::Publication;
use domain::position::Position;

use super::audiences::Wanted;
use crate::published::Published;

/// Publications that wait, bounded in bytes.
#[derive(Debug, Default)]
pub(super) struct Held {
    pub(super) publications: VecDeque<(Arc<Published>, Wanted)>,
    bytes: usize,
    /// How many of them came before the read that is under way began; only while filling.
    pub(super) n_before_read: usize,
    /// Something did not fit: what is held is not all, and the log has the rest.
    pub(super) overflowed: bool,
    /// The newest value of a key did not fit, which no log has: nobody can go on from here.
    pub(super) is_lost: bool,
}

/// A held publication keeps more alive than its data.
fn kept_alive_bytes(published: &Published, wanted: &Wanted) -> usize {
    let marked = match wanted {
        Wanted::Whole | Wanted::Not => 0,
        Wanted::Own(bytes) => bytes.len(),
    };
    let publication = &published.publication;
    publication.data.len() + publication.tags.cost_bytes() + marked + 256
}

/// Whether both are one message; a broker may have made two copies of it.
fn is_same(one: &Arc<Published>, other: &Arc<Published>) -> bool {
    let what = |of: &Publication| (of.at, of.key.clone(), of.sender.clone(), of.data.clone());
    Arc::ptr_eq(one, other) || what(&one.publication) == what(&other.publication)
}

impl Held {
    pub(super) fn push(&mut self, published: &Arc<Published>, wanted: Wanted, bytes_max: usize) {
        let bytes = kept_alive_bytes(published, &wanted);
        let publication = &published.publication;
        if self.overflowed && publication.offset.is_some() {
            return;
        }
        if self.bytes + bytes > bytes_max {
            match (publication.offset, &publication.key) {
                (Some(_), _) => return self.overflow(),
                // Of a class that may be dropped.
                (None, None) => return,
                (None, Some(key)) => self.make_room(key, bytes_max.saturating_sub(bytes)),
            }
        }
        self.bytes += bytes;
        self.publications.push_back((Arc::clone(published), wanted));
    }

    /// Makes room for the newest value of a key: first by what it replaces, then by what the log
    /// has, and at last by other values, which nobody has.
    fn make_room(&mut self, key: &MessageKey, bytes_max: usize) {
        self.forget_values(key, usize::MAX);
        if self.bytes > bytes_max {
            self.overflow();
        }
        while self.bytes > bytes_max
            && let Some((published, wanted)) = self.publications.pop_front()
        {
            self.bytes -= kept_alive_bytes(&published, &wanted);
            self.is_lost |= published.publication.key.is_some();
        }
        self.n_before_read = self.n_before_read.min(self.publications.len());
    }

    /// Forgets the values of a key among so many of the first publications.
    fn forget_values(&mut self, key: &MessageKey, n_first: usize) {
        let (mut at, mut n_before_read, mut bytes) = (0, self.n_before_read, self.bytes);
        self.publications.retain(|(published, wanted)| {
            let publication = &published.publication;
            let is_value = publication.offset.is_none() && publication.key.as_ref() == Some(key);
            let goes = is_value && at < n_first;
            if goes {
                bytes -= kept_alive_bytes(published, wanted);
                n_before_read -= usize::from(at < self.n_before_read);
            }
            at += 1;
            !goes
        });
        (self.n_before_read, self.bytes) = (n_before_read, bytes);
    }

    /// These are the newest values as the broker knew them: what is held of the same keys up to
    /// them is older, or the same.
    pub(super) fn forget_known(&mut self, latest: &[Arc<Published>]) {
        if self.publications.iter().all(|(held, _)| held.publication.offset.is_some()) {
            return;
        }
        for known in latest {
            let at = self.publications.iter().rposition(|(held, _)| is_same(held, known));
            if let (Some(at), Some(key)) = (at, &known.publication.key) {
                self.forget_values(key, at + 1);
            }
        }
    }

    /// What is held is not all.
    pub(super) fn overflow(&mut self) {
        *self = Self { overflowed: true, ..std::mem::take(self).forget_positioned() };
    }

    /// What has a position is read from the log instead; the rest is nowhere else.
    pub(super) fn forget_positioned(mut self) -> Self {
        self.publications.retain(|(published, _)| published.publication.offset.is_none());
        let bytes = self.publications.iter().map(|(p, w)| kept_alive_bytes(p, w)).sum();
        let n_before_read = self.publications.len();
        Self { bytes, n_before_read, overflowed: false, ..self }
    }

    /// Whether these are all that follows `reached` up to `seen`, without a hole.
    pub(super) fn leads(&self, reached: Position, seen: Position) -> bool {
        let mut next = reached;
        for offset in self.publications.iter().filter_map(|(p, _)| p.publication.offset) {
            if offset <= reached.offset {
                continue;
            }
            if next.offset.next() != Some(offset) {
                return false;
            }
            next.offset = offset;
        }
        !self.overflowed && next == seen
    }
}
