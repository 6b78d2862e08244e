//! What was said to a user who was away, given to the first of its connections that comes back.
//!
//! Page by page, each once the client has taken the one before, and removed only then. It must never be
//! given to two connections, nor be removed before the socket has taken it. On one node the directory says whose
//! turn it is, over nodes the inbox.

use std::sync::Arc;
use std::time::Duration;

use domain::delivery::Class;
use domain::documents::place::Place;
use domain::documents::told::Endpoint;
use domain::id::{ConnectionId, Epoch, UserId};
use domain::message::{Publication, Sender};
use domain::room::RoomId;
use domain::tags::Tags;
use smallvec::SmallVec;

use super::calls::Outcome;
use super::{Host, Shard, Slot};
use crate::directory::InboxTurn;
use crate::peer::ring;
use crate::planted::{Mistake, is_planted};
use crate::ports::{Inbox, InboxError, Letter, LetterId, Word};
use crate::published::Published;
use crate::view::View;

/// The most letters of one page.
const PAGE_LETTERS_MAX: u32 = 100;

/// Between two looks whether another node has ended with what waits for a user: it may have gone in the middle.
const ELSEWHERE_LOOK: Duration = Duration::from_secs(1);

/// A connection that is being given letters.
#[derive(Debug)]
pub(super) struct Giving {
    turn: InboxTurn,
    /// The last that was given; none when not all were taken, so that nothing may be removed. The
    /// connection is about to end then.
    up_to: Option<LetterId>,
}

/// A connection that was to be given letters when the inbox failed. It keeps its turn: what it has been given
/// and could not be removed must not come to another one as if it were new.
#[derive(Debug)]
pub(super) struct Retry {
    turn: InboxTurn,
    /// What is to be removed before more is read.
    given: Option<LetterId>,
}

/// A page of letters, and whose turn it is.
#[derive(Debug)]
pub struct LettersPage {
    user: UserId,
    turn: InboxTurn,
    /// What was to be removed before.
    given: Option<LetterId>,
    /// What is there; none when the inbox failed.
    letters: Result<Vec<(LetterId, Letter)>, InboxError>,
}

/// Whether an endpoint has words for what is said to one user.
const fn takes_letters(view: View) -> bool {
    matches!(view, View::Document(Endpoint::Chat | Endpoint::Lobby))
}

impl Shard {
    /// Begins to give a connection what waited for its user, if it is the one to be given it.
    pub(super) fn open_inbox(&mut self, slot: Slot) {
        let Some(inbox) = self.services.ports.inbox.clone() else { return };
        let Some(entry) = self.table.get(slot).filter(|entry| takes_letters(entry.view)) else {
            return;
        };
        if entry.giving.is_some() {
            return;
        }
        let Some(user) = entry.who.principal.user.clone() else { return };
        if self.retry_letters(slot) {
            return;
        }
        let directory = &self.services.directory;
        let turn = if is_planted(Mistake::LettersToEveryone) {
            Some(InboxTurn::nobodys(Arc::clone(directory), user.clone()))
        } else {
            directory.inbox_turn(&user)
        };
        // The room of a user may have members who are somebody else.
        let Some(turn) = turn else { return };
        self.read_letters(slot, inbox, user, turn, None);
    }

    /// Goes on where the inbox failed; says whether it had.
    pub(super) fn retry_letters(&mut self, slot: Slot) -> bool {
        let Some(inbox) = self.services.ports.inbox.clone() else { return false };
        let Some(entry) = self.table.get_mut(slot) else { return false };
        let Some(user) = entry.who.principal.user.clone() else { return false };
        let Some(retry) = entry.letters_wait.take() else { return false };
        let Retry { turn, given } = *retry;
        self.read_letters(slot, inbox, user, turn, given);
        true
    }

    /// Removes what was given and reads on.
    fn read_letters(
        &mut self,
        slot: Slot,
        inbox: Arc<dyn Inbox>,
        user: UserId,
        turn: InboxTurn,
        given: Option<LetterId>,
    ) {
        let bytes_max = self.services.rules.limits.page_bytes_of_one();
        let future = Box::pin(async move {
            let removed = match given {
                Some(given) => inbox.remove(&user, given).await,
                None => Ok(()),
            };
            let letters = match removed {
                Ok(()) => inbox.read(&user, given, PAGE_LETTERS_MAX, bytes_max).await,
                Err(error) => Err(error),
            };
            Outcome::Letters(LettersPage { user, turn, given, letters })
        });
        self.call(slot, None, None, future);
    }

    pub(super) fn finish_letters(&mut self, slot: Slot, page: LettersPage, host: &mut Host<'_>) {
        let LettersPage { user, turn, given, letters } = page;
        let letters = match letters {
            Ok(letters) => letters,
            Err(error) => {
                // They wait on: for the next visit or the next letter.
                if error == InboxError::Elsewhere {
                    self.visit_at(slot, host.now.monotonic.after(ELSEWHERE_LOOK));
                } else {
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(error, "letters can't be read or removed");
                }
                if let Some(entry) = self.table.get_mut(slot) {
                    entry.letters_wait = Some(Box::new(Retry { turn, given }));
                }
                return;
            }
        };
        let Some(up_to) = letters.last().map(|(id, _)| *id) else {
            // Nothing is left; unless somebody asked meanwhile.
            if let (Some(turn), Some(inbox)) = (turn.end(), self.services.ports.inbox.clone()) {
                self.read_letters(slot, inbox, user, turn, None);
            }
            return;
        };
        let Some(room) = Place::of_user(&user) else { return };
        let said: Vec<_> = letters
            .into_iter()
            .map(|(_, letter)| Arc::new(Published::new(said(&room, letter))))
            .collect();
        let are_taken = self.tell_each(slot, &said, host);
        let up_to = are_taken.then_some(up_to);
        self.metrics.letters.add(said.len() as u64);
        let Some(entry) = self.table.get_mut(slot) else { return };
        entry.giving = Some(Box::new(Giving { turn, up_to }));
        self.go_on_giving(slot, host);
    }

    /// Reads on once the client has taken what it was given.
    pub(super) fn go_on_giving(&mut self, slot: Slot, host: &Host<'_>) {
        let Some(entry) = self.table.get_mut(slot) else { return };
        if entry.giving.as_ref().is_none_or(|giving| giving.up_to.is_none()) {
            return;
        }
        if host.outbox.queued_bytes(slot) > 0 && !is_planted(Mistake::LettersRemovedEarly) {
            return self.park(slot, host);
        }
        let Some(Giving { turn, up_to }) = entry.giving.take().map(|giving| *giving) else {
            return;
        };
        let user = entry.who.principal.user.clone();
        if let (Some(user), Some(inbox)) = (user, self.services.ports.inbox.clone()) {
            self.read_letters(slot, inbox, user, turn, up_to);
        }
    }

    /// Something waits for a user: one of its connections here is to be given it.
    pub(super) fn ring(&mut self, user: &UserId) {
        let Some(room) = Place::of_user(user) else { return };
        let own = self.watches.own.get(&room).into_iter().flat_map(|own| own.slots.iter().copied());
        let members = self.rooms.find(&room).and_then(|key| self.rooms.get(key));
        let members = members.into_iter().flat_map(|slice| slice.members.iter().map(|m| m.slot));
        let here: SmallVec<[Slot; 4]> = own.chain(members).collect();
        for slot in here {
            self.open_inbox(slot);
        }
    }

    /// A connection that was to be given letters is gone: another one of its user is to have them.
    pub(super) fn pass_on(&self, page: LettersPage) {
        let LettersPage { user, turn, .. } = page;
        drop(turn);
        self.ring_everywhere(&user);
    }

    /// Another connection of a user may be given what waits, on this node or on another.
    pub(super) fn ring_everywhere(&self, user: &UserId) {
        let ports = &self.services.ports;
        if let Some(inbox) = &ports.inbox {
            inbox.release(user);
        }
        ring(user, &self.services.mailboxes);
        ports.peers.tell(&Word::LettersWait(user.clone()));
    }
}

/// A letter as the message that it would have been.
fn said(room: &RoomId, letter: Letter) -> Publication {
    Publication {
        room: room.clone(),
        // It has no place in the room's log.
        epoch: Epoch::from_bits(0),
        offset: None,
        class: Class::Reliable,
        key: None,
        // Of a connection that nobody knows any more: it was a user's word, and not a backend's.
        sender: Sender { connection: Some(ConnectionId::from_bits(0)), ..letter.sender },
        data: letter.data,
        tags: Tags::default(),
        origin: None,
        at: letter.at,
        expires_at: None,
        tombstone: None,
    }
}
