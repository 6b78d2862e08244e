//! Who follows presence and missed a change is told who is there now.
//!
//! A change that did not come is known by the next one only, and in a quiet room there is none for long.
//! A list that could not be had must be asked for again: nobody may be shown who is gone.

use std::sync::Arc;

use domain::presence::PresenceList;
use domain::presence::gathering::{Listed, PresenceCount};
use domain::protocol::ServerFrame;
use smallvec::SmallVec;

use super::calls::{CallTag, ColdCall, Outcome};
use super::rooms::RoomKey;
use super::{Host, Shard};
use crate::use_cases::list_presence::{PresenceRefused, fit, list_members};

/// What a slice knows of the list that its followers have.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) enum Listing {
    /// Nothing has been missed.
    #[default]
    Whole,
    /// It is being read anew.
    Asked,
    /// Something has been missed since it was asked for, or it could not be had.
    Stale {
        /// Whether it is being read.
        asked: bool,
    },
}

impl Shard {
    /// A change of who is in the room may not have come.
    pub(super) fn miss_presence(&mut self, key: RoomKey) {
        let Some(slice) = self.rooms.get_mut(key) else { return };
        if slice.n_followers == 0 {
            return;
        }
        match slice.listing {
            Listing::Whole | Listing::Stale { asked: false } => self.ask_for_list(key),
            Listing::Asked | Listing::Stale { asked: true } => {
                slice.listing = Listing::Stale { asked: true };
            }
        }
    }

    /// The same, of any room.
    pub(super) fn miss_presence_of_all(&mut self) {
        for key in self.rooms.keys().collect::<Vec<_>>() {
            self.miss_presence(key);
        }
    }

    /// Asks again for a list that could not be had.
    pub(super) fn look_at_list(&mut self, key: RoomKey) {
        let listing = self.rooms.get(key).map(|slice| slice.listing);
        if listing == Some(Listing::Stale { asked: false }) {
            self.ask_for_list(key);
        }
    }

    fn ask_for_list(&mut self, key: RoomKey) {
        let Some(slice) = self.rooms.get_mut(key) else { return };
        slice.listing = Listing::Asked;
        let (services, room) = (Arc::clone(&self.services), slice.id.clone());
        let policy = Arc::clone(&slice.policy);
        let future = Box::pin(async move {
            let limits = &services.rules.limits;
            let list = list_members(&services, &room, &policy, limits.presence_list_max).await;
            Outcome::Listed(list.map(|list| fit(list, limits.page_bytes_of_one())))
        });
        self.calls.push_back(ColdCall { tag: CallTag::Room(key), future });
    }

    pub(super) fn finish_listing(
        &mut self,
        key: RoomKey,
        list: Result<PresenceList, PresenceRefused>,
        host: &mut Host<'_>,
    ) {
        let Some(slice) = self.rooms.get_mut(key) else { return };
        let was = std::mem::take(&mut slice.listing);
        let list = match list {
            Ok(list) => list,
            // Nobody is shown anything of this room.
            Err(PresenceRefused::NotListed) => return,
            Err(_) => {
                slice.listing = Listing::Stale { asked: false };
                return;
            }
        };
        let (room, now) = (slice.id.clone(), host.now.monotonic);
        let count = PresenceCount { seq: list.seq, total: list.total };
        let is_whole = list.members.len() == list.total;
        match self.gathering(key, |gathering| gathering.listed(count, is_whole, now)) {
            Some(Listed::Whole) => {
                let told = ServerFrame::PresenceState { id: None, room: &room, list: &list };
                let document = self.encode_document(key, &told, host);
                let bytes = self.encode(&told, host);
                self.tell_followers(key, bytes, document, SmallVec::new(), host);
            }
            Some(Listed::Counted(count)) => self.tell_count(key, &room, count, host),
            None => {}
        }
        if was == (Listing::Stale { asked: true }) {
            self.ask_for_list(key);
        }
    }
}
