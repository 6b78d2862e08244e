//! The mailboxes that get what is published in all rooms of a pattern.
//!
//! Made anew with each change and shared by all stripes, so that a publish takes no lock for it.
//! A mailbox must never get a publication twice, however many of its patterns mean the room.

use std::collections::BTreeMap;
use std::sync::Arc;

use application::mailbox::{Mail, Mailbox};
use application::published::Published;
use domain::principal::RoomPattern;

/// What one mailbox watches.
#[derive(Debug)]
pub(crate) struct Watcher {
    pub(crate) mailbox: Arc<Mailbox>,
    pub(crate) patterns: Vec<RoomPattern>,
    pub(crate) version: u64,
}

/// All watchers by namespace, so that a publish is compared with few patterns.
#[derive(Debug, Default)]
pub(crate) struct Watchers {
    /// The patterns of one mailbox stand together.
    by_namespace: BTreeMap<Box<str>, Vec<(RoomPattern, Arc<Mailbox>)>>,
}

impl Watchers {
    pub(crate) fn new(watchers: &[Watcher]) -> Self {
        let mut by_namespace: BTreeMap<Box<str>, Vec<_>> = BTreeMap::new();
        for Watcher { mailbox, patterns, .. } in watchers {
            for pattern in patterns {
                let entry = (pattern.clone(), Arc::clone(mailbox));
                by_namespace.entry(pattern.namespace().into()).or_default().push(entry);
            }
        }
        Self { by_namespace }
    }

    /// Puts a publication into every mailbox that watches its room, but for those that have it
    /// already.
    pub(crate) fn put(&self, published: &Arc<Published>, has_it: impl Fn(&Mailbox) -> bool) {
        if self.by_namespace.is_empty() {
            return;
        }
        let room = &published.publication.room;
        let Some(entries) = self.by_namespace.get(room.namespace()) else { return };
        let mut last = None;
        for (pattern, mailbox) in entries {
            if last != Some(mailbox.id()) && pattern.matches(room) {
                last = Some(mailbox.id());
                if !has_it(mailbox) {
                    mailbox.put(Mail::Publication(Arc::clone(published)));
                }
            }
        }
    }
}
