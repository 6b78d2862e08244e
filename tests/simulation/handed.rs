//! What a client hands over to its application, and what must hold for it (I23): of each room every message once and in
//! order, or a gap that names it, or nothing that was wanted; where it says that it stands is where its application does;
//! and it complains of nothing.
//!
//! What the server may say is checked on the line ([`crate::hearing`]). Here it must never be taken into account: the
//! client's events stand against the truth alone.

use std::collections::BTreeMap;

use domain::filter::Filter;
use domain::id::Epoch;
use domain::position::{Offset, Position};
use domain::protocol::client_event::{
    Event, Gap, Member, Message, PresenceChange, PresenceState, Tombstone,
};

use crate::broker::SimRoom;
use crate::checker::{Checked, Violation};
use crate::client::{Client, Scene};
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
    /// Who is there, for whom it follows and as long as no change is missing.
    pub(crate) members: Option<BTreeMap<String, String>>,
    /// The number of the last change, of a list or by itself.
    seq: u64,
}

impl Handed {
    /// The client is in no room any more, or in this one no more.
    pub(crate) fn on_disconnected(&mut self) {
        (self.is_in, self.members, self.seq) = (false, None, 0);
    }

    /// Where to go on.
    pub(crate) fn position(&self) -> Option<Position> {
        let (epoch, offset) = self.at?;
        Some(Position { epoch, offset: Offset::parse(offset).ok()? })
    }

    fn on_members(&mut self, state: &PresenceState) -> Checked {
        if state.seq < self.seq {
            return Err(accuse(format!("{state:?} is older than change {}", self.seq)));
        }
        self.seq = state.seq;
        let member = |member: &Member| (member.user_id.clone(), member.data.clone());
        self.members = Some(state.members.iter().map(member).collect());
        Ok(())
    }

    fn on_change(&mut self, change: &PresenceChange) -> Checked {
        if change.seq <= self.seq {
            return Err(accuse(format!("{change:?} comes behind change {}", self.seq)));
        }
        let is_next = change.seq == self.seq + 1;
        self.seq = change.seq;
        let Some(members) = self.members.as_mut().filter(|_| is_next) else {
            // A list follows.
            self.members = None;
            return Ok(());
        };
        let is_there = members.contains_key(&change.user_id);
        let fits = match change.event.as_str() {
            "join" => !is_there,
            "leave" | "update" => is_there,
            _ => false,
        };
        if !fits {
            return Err(accuse(format!("{change:?}, present: {is_there}")));
        }
        if change.event == "leave" {
            members.remove(&change.user_id);
        } else {
            members.insert(change.user_id.clone(), change.data.clone());
        }
        Ok(())
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
                self.handed[view].on_members(&state)
            }
            Event::Presence(change) => {
                let view = self.view(&change.room)?;
                self.handed[view].on_change(&change)
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
