//! What a client hands over to its application, and what must hold for it (I23): of each room every message once and in
//! order, or a gap that names it, or nothing that was wanted; where it says that it stands is where its application does;
//! and it complains of nothing.
//!
//! What the server may say is checked on the line ([`crate::hearing`]). Here it must never be taken into account: the
//! client's events stand against the truth alone.

use std::collections::{BTreeMap, BTreeSet};

use domain::filter::Filter;
use domain::id::Epoch;
use domain::position::{Offset, Position};
use domain::protocol::client_event::{
    Event, Gap, Message, PresenceChange, PresenceState, Tombstone,
};

use crate::broker::SimRoom;
use crate::checker::{Checked, Violation};
use crate::client::{Client, Scene};
use crate::crowd::{Change, Crowd, Known, NamesMax};
use crate::filtered::tags_of;

fn accuse(text: String) -> Violation {
    Violation::new("I23", text)
}

/// What an application knows of one room.
#[derive(Debug, Default)]
pub(crate) struct Handed {
    /// Whether it is in.
    is_in: bool,
    /// Up to where it has everything or was told what is missing.
    pub(crate) at: Option<(Epoch, u64)>,
    /// The newest message of class `latest` by key.
    pub(crate) newest: BTreeMap<String, String>,
    /// Who is there, where it follows that.
    known: Known,
    /// Whether no change can be missing since the last list: each came under the next number.
    is_whole: bool,
    /// The number of the last change, of a list or by itself.
    seq: u64,
    /// What came under that number, by itself or together.
    changes: Changes,
}

/// Changes that came under one number, which is that of the last of them.
#[derive(Debug, Default)]
struct Changes {
    users: BTreeSet<String>,
    /// How many are there behind them.
    total: u64,
}

impl Handed {
    /// The client is in no room any more, or in this one no more.
    pub(crate) fn on_disconnected(&mut self) {
        (self.is_in, self.known, self.seq) = (false, Known::Nothing, 0);
        self.changes = Changes::default();
    }

    /// Where to go on.
    pub(crate) fn position(&self) -> Option<Position> {
        let (epoch, offset) = self.at?;
        Some(Position { epoch, offset: Offset::parse(offset).ok()? })
    }

    fn on_members(&mut self, state: &PresenceState, bytes_max: usize) -> Checked {
        self.counted()?;
        if state.seq < self.seq {
            return Err(accuse(format!("{state:?} is older than change {}", self.seq)));
        }
        let members = state.members.iter().map(|m| (m.user_id.as_str(), m.data.as_str()));
        let crowd = Crowd::listed(members, state.total, bytes_max).map_err(accuse)?;
        (self.seq, self.known, self.is_whole) = (state.seq, Known::Named(crowd), true);
        Ok(())
    }

    fn on_change(&mut self, change: &PresenceChange) -> Checked {
        let is_one_more = change.seq == self.seq && !self.changes.users.is_empty();
        if !is_one_more {
            self.counted()?;
            if change.seq <= self.seq {
                return Err(accuse(format!("{change:?} comes behind change {}", self.seq)));
            }
            self.is_whole &= change.seq == self.seq + 1;
            self.seq = change.seq;
        }
        self.changes.total = change.total;
        if !self.changes.users.insert(change.user_id.clone()) {
            return Err(accuse(format!("{change:?} comes twice")));
        }
        // Without a list one follows.
        if let Known::Named(crowd) = &mut self.known {
            let (event, user) = (change.event.clone(), change.user_id.clone());
            crowd.apply(&Change { event, user, data: change.data.clone() });
        }
        Ok(())
    }

    /// No more comes under the last number: so many are there as was said, unless something before may be missing. A list
    /// follows then, or what was told stays wrong and is found in the end.
    fn counted(&mut self) -> Checked {
        let Changes { users, total } = std::mem::take(&mut self.changes);
        match &mut self.known {
            Known::Named(crowd) if !users.is_empty() => {
                crowd.count(total, self.is_whole).map_err(accuse)
            }
            _ => Ok(()),
        }
    }

    /// Compares who is there with what it was told, when all has been told.
    pub(crate) fn check_crowd(
        &mut self,
        expected: &BTreeMap<String, String>,
        most: NamesMax,
    ) -> Result<(), String> {
        self.counted().map_err(|violation| violation.text)?;
        self.known.check(expected, most)
    }
}

impl Client {
    /// The client tells its application something.
    pub(crate) fn on_handed(&mut self, event: Event, scene: &Scene<'_>) -> Checked {
        match event {
            Event::Message(message) => self.on_message(message, scene),
            Event::Tombstone(tombstone) => self.on_tombstone(&tombstone, scene),
            Event::Gap(gap) => self.on_gap_handed(&gap, scene),
            Event::Subscribed(told) => {
                let view = self.view(&told.room)?;
                let handed = &mut self.handed[view];
                handed.on_disconnected();
                handed.is_in = true;
                let position = (told.position.epoch, told.position.offset.get());
                handed.at.get_or_insert(position);
                Ok(())
            }
            Event::CaughtUp { room, position } => {
                let view = self.view(&room)?;
                self.reach(view, (position.epoch, position.offset.get()), scene)
            }
            Event::Unsubscribed { room, .. } => {
                let view = self.view(&room)?;
                self.handed[view].on_disconnected();
                Ok(())
            }
            Event::Members(state) => {
                let view = self.view(&state.room)?;
                self.handed[view].on_members(&state, scene.core.list_bytes_max)
            }
            Event::Presence(change) => {
                let view = self.view(&change.room)?;
                self.handed[view].on_change(&change)
            }
            Event::PresenceCount(count) => {
                let view = self.view(&count.room)?;
                let handed = &mut self.handed[view];
                handed.counted()?;
                (handed.seq, handed.known) =
                    (handed.seq.max(count.seq), Known::Counted(count.total));
                Ok(())
            }
            Event::Disconnected { .. } => {
                self.handed.iter_mut().for_each(Handed::on_disconnected);
                Ok(())
            }
            Event::Connected(_) | Event::AttemptFailed { .. } | Event::TokenExpiring { .. } => {
                Ok(())
            }
            // Complaints, and what no server of ours says.
            other => Err(accuse(format!("client {} tells {other:?}", self.index))),
        }
    }

    fn on_message(&mut self, message: Message, scene: &Scene<'_>) -> Checked {
        let view = self.view(&message.room)?;
        if !self.handed[view].is_in {
            return Err(accuse(format!("client {} is not in: {message:?}", self.index)));
        }
        let Some(offset) = message.offset else {
            if let Some(key) = message.key {
                self.handed[view].newest.insert(key, message.data);
            }
            return Ok(());
        };
        let place = (message.epoch, offset.get());
        let truth = &scene.core.rooms[&message.room];
        let published = truth.at(place.0, place.1);
        if published.is_none_or(|p| p.publication.data != message.data.as_bytes()) {
            return Err(accuse(format!("{place:?} is not {message:?}")));
        }
        self.step(view, place, scene)
    }

    fn on_tombstone(&mut self, tombstone: &Tombstone, scene: &Scene<'_>) -> Checked {
        let view = self.view(&tombstone.room)?;
        let place = (tombstone.epoch, tombstone.offset.map_or(0, Offset::get));
        let published = scene.core.rooms[&tombstone.room].at(place.0, place.1);
        if published.is_none_or(|p| !p.publication.is_expired(scene.core.wall())) {
            return Err(accuse(format!("{tombstone:?} is not gone")));
        }
        self.step(view, place, scene)
    }

    /// The application gets the place behind where it stands.
    fn step(&mut self, view: usize, (epoch, offset): (Epoch, u64), scene: &Scene<'_>) -> Checked {
        let stood = self.handed[view].at;
        if !stood.is_some_and(|(known, at)| known == epoch && at < offset) {
            let room = &self.views[view].room;
            let text = format!("client {} stands in {room} at {stood:?}", self.index);
            return Err(accuse(format!("{text}, and gets ({epoch:?}, {offset})")));
        }
        self.reach(view, (epoch, offset - 1), scene)?;
        self.handed[view].at = Some((epoch, offset));
        Ok(())
    }

    /// The application is said to have everything up to a place.
    fn reach(&mut self, view: usize, end: (Epoch, u64), scene: &Scene<'_>) -> Checked {
        let Some((epoch, at)) = self.handed[view].at.filter(|(epoch, _)| *epoch == end.0) else {
            let text = format!("client {} stands at {:?}", self.index, self.handed[view].at);
            return Err(accuse(format!("{text}, and is said to stand at {end:?}")));
        };
        self.check_passed(view, (epoch, at), end.1, scene)?;
        self.handed[view].at = Some((epoch, at.max(end.1)));
        Ok(())
    }

    fn on_gap_handed(&mut self, gap: &Gap, scene: &Scene<'_>) -> Checked {
        let view = self.view(&gap.room)?;
        let (from, to) = (gap.from.get(), gap.to.get());
        if let Some((epoch, at)) = self.handed[view].at.filter(|(epoch, _)| *epoch == gap.epoch) {
            self.check_passed(view, (epoch, at), from.saturating_sub(1), scene)?;
            self.handed[view].at = Some((epoch, at.max(to)));
        } else {
            self.handed[view].at = Some((gap.epoch, to));
        }
        Ok(())
    }

    /// What was never handed over behind a place, up to another one, is all the application's own, or nothing that it
    /// asked for.
    fn check_passed(
        &self,
        view: usize,
        (epoch, at): (Epoch, u64),
        end: u64,
        scene: &Scene<'_>,
    ) -> Checked {
        let (room, filter) = (&self.views[view].room, self.views[view].filter.as_ref());
        let truth: &SimRoom = &scene.core.rooms[room];
        for offset in at + 1..=end {
            let Some(published) = truth.at(epoch, offset) else {
                return Err(accuse(format!("nobody has said ({epoch:?}, {offset}) in {room}")));
            };
            let data = std::str::from_utf8(&published.publication.data).unwrap_or_default();
            let own = self.sent_as(data).is_some_and(|sent| !self.sent[sent].echo);
            let is_passed = |filter: &Filter| {
                !filter.matches(&tags_of(data))
                    || published.publication.is_expired(scene.core.wall())
            };
            if !own && !filter.is_some_and(is_passed) {
                let text = format!("client {} stands in {room} at {at}", self.index);
                return Err(accuse(format!("{text}, and never got {offset}: {data}")));
            }
        }
        Ok(())
    }

    /// The client names where it stands: where its application does.
    pub(crate) fn check_named(
        &self,
        view: usize,
        since: Option<Position>,
        scene: &Scene<'_>,
    ) -> Checked {
        let stands = self.handed[view].at;
        let named = since.map(|since| (since.epoch, since.offset.get()));
        match (stands, named) {
            (None, None) => Ok(()),
            (Some((epoch, at)), Some((other, since))) if epoch == other => {
                self.check_passed(view, (epoch, at.min(since)), at.max(since), scene)
            }
            _ => {
                let room = &self.views[view].room;
                let text = format!("client {} stands in {room} at {stands:?}", self.index);
                Err(accuse(format!("{text}, and says {named:?}")))
            }
        }
    }
}
