//! The shard: some connections, the slices of their rooms, their deadlines.
//!
//! `handle(input, now, outbox)` is synchronous and never waits. What has to wait is a cold call:
//! the host takes it from [`Shard::poll_call`], runs it anywhere, and hands its end back. There is
//! one shard per worker, neither `Send` nor shared. It must never see a socket or ask a clock.

mod audiences;
mod calls;
mod drain;
mod end;
mod fan_out;
mod fill;
mod followers;
mod held;
mod inquire;
mod join;
mod leave;
mod letters;
mod listing;
mod open;
mod own_fill;
mod own_room;
mod pages;
mod publish;
mod receive;
mod resume;
mod revalidate;
mod rooms;
mod seated;
mod security;
mod showing;
mod sparing;
mod table;
mod tell;
mod visit;
mod walk;
mod watches;

use core::net::IpAddr;
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use domain::codes::CloseCode;
use domain::id::{ClientId, ConnectionId};
use domain::principal::Principal;
use domain::room::RoomId;
use domain::stalls::Stalls;
use domain::time::{Monotonic, Now};

pub use self::calls::{CallFuture, CallTag, ColdCall, Completion, JoinTag, Outcome, Resuming};
use self::drain::Draining;
pub(crate) use self::open::request_id;
pub use self::rooms::RoomKey;
use self::rooms::Rooms;
use self::sparing::Sparing;
use self::table::Table;
use self::watches::Watches;
use crate::mailbox::{Control, Mailbox, Post};
use crate::metrics::{JoinOutcome, ShardMetrics};
use crate::ports::Outbox;
use crate::security::SecurityLog;
use crate::services::Services;
use crate::timer_wheel::TimerWheel;
use crate::view::View;

/// A connection's place in its shard. The generation tells a slot that was used again.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Slot {
    /// The place in the shard's and the host's tables.
    pub index: u32,
    /// How often the place was used before.
    pub generation: u32,
}

/// What is known of a connection when its upgrade is done.
#[derive(Clone, Debug)]
pub struct Opening {
    /// Its id, drawn at random.
    pub connection: ConnectionId,
    /// The label it gave itself, or was given.
    pub client: ClientId,
    /// The token that came with the upgrade.
    pub token: Option<String>,
    /// Two different tokens came: whoever put the second there must not win.
    pub conflicting_tokens: bool,
    /// The endpoint that it came by.
    pub view: View,
    /// The room that the endpoint is for, where that is one of many.
    pub place: Option<RoomId>,
    /// The address that it comes from, where the host knows it.
    pub address: Option<IpAddr>,
}

/// What can happen to a shard.
#[derive(Debug)]
pub enum Input<'a> {
    /// A connection was upgraded, in a slot that [`Shard::reserve`] gave.
    Opened(Slot, Opening),
    /// A whole text message came.
    Text(Slot, &'a str),
    /// A frame came that is no message (ping, pong): a sign of life.
    Heard(Slot),
    /// The connection is gone, or broke its framing and was closed by the host.
    Closed(Slot, CloseCode),
    /// Mail came. Its storage is left empty for the next time.
    Mail(&'a mut Post),
    /// An order came.
    Order(Control),
    /// A cold call ended.
    Completed(Completion),
    /// The time of [`Shard::next_deadline`] has come.
    Tick,
    /// There is more to send, see [`Shard::has_backlog`].
    Continue,
    /// The host did not get around to anything for this long, until now. To be given before the
    /// [`Tick`](Self::Tick) that it made late.
    Stalled(Duration),
}

/// What every step of a shard needs of its host.
pub(crate) struct Host<'a> {
    pub(crate) now: Now,
    pub(crate) outbox: &'a mut dyn Outbox,
}

/// See the module's text.
pub struct Shard {
    services: Arc<Services>,
    mailbox: Arc<Mailbox>,
    metrics: Arc<ShardMetrics>,
    security: SecurityLog,
    /// Of publishes that the broker refused: while it is away each is.
    not_taken: Sparing,
    /// Who everybody is until it says otherwise: one for all of them.
    nobody: Arc<Principal>,
    table: Table,
    rooms: Rooms,
    watches: Watches,
    timers: TimerWheel<(Slot, Monotonic)>,
    /// When the host could not listen.
    stalls: Stalls,
    /// Rooms with something to send, in turn.
    backlog: VecDeque<RoomKey>,
    calls: VecDeque<ColdCall>,
    /// Connections that could not take what they had to; closed at the end of the step.
    refused: Vec<Slot>,
    /// Encoding happens here, so that a frame costs one allocation: its own.
    scratch: Vec<u8>,
    position_check_at: Monotonic,
    /// Rooms whose followers are told something that was gathered, and when.
    gatherings: BTreeSet<(Monotonic, RoomKey)>,
    /// Connections whose pages wait until they have read more, and when to look at them again.
    parked: Vec<Slot>,
    parked_until: Monotonic,
    draining: Option<Draining>,
    deliveries_per_step: usize,
}

impl Shard {
    /// The most deliveries of one `Continue`, about a third of a millisecond's worth.
    pub const DELIVERIES_PER_STEP: usize = 256;

    /// An empty shard that gets its mail from `mailbox`.
    #[must_use]
    pub fn new(services: Arc<Services>, mailbox: Arc<Mailbox>, now: Now) -> Self {
        let check = services.rules.limits.look_every().unwrap_or_default();
        let number = services.mailboxes.iter().position(|other| other.id() == mailbox.id());
        let metrics = services.metrics.shard(number);
        let mut shard = Self {
            services,
            mailbox,
            metrics,
            security: SecurityLog::default(),
            not_taken: Sparing::default(),
            nobody: Arc::new(Principal::anonymous()),
            table: Table::default(),
            rooms: Rooms::default(),
            watches: Watches::default(),
            timers: TimerWheel::new(now.monotonic),
            stalls: Stalls::new(),
            backlog: VecDeque::new(),
            calls: VecDeque::new(),
            refused: Vec::new(),
            scratch: Vec::new(),
            position_check_at: now.monotonic.after(check),
            gatherings: BTreeSet::new(),
            parked: Vec::new(),
            parked_until: now.monotonic,
            draining: None,
            deliveries_per_step: Self::DELIVERIES_PER_STEP,
        };
        shard.watch_own_rooms();
        shard
    }

    /// Makes steps shorter, so that a test with few members meets a walk that keeps its place.
    #[cfg(feature = "testing")]
    pub const fn set_deliveries_per_step(&mut self, deliveries: usize) {
        self.deliveries_per_step = deliveries;
    }

    /// How often it was decided whether a message passes a filter, for the rooms it has now.
    #[cfg(feature = "testing")]
    #[must_use]
    pub fn filter_decisions(&self) -> u64 {
        let slices = self.rooms.keys().filter_map(|key| self.rooms.get(key));
        slices.map(|slice| slice.audiences.n_decided).sum()
    }

    /// Where this shard gets its mail.
    #[must_use]
    pub const fn mailbox(&self) -> &Arc<Mailbox> {
        &self.mailbox
    }

    /// What it counts; its host counts into the same.
    #[must_use]
    pub const fn metrics(&self) -> &Arc<ShardMetrics> {
        &self.metrics
    }

    /// A slot for a connection; [`Input::Opened`] must follow.
    pub fn reserve(&mut self) -> Slot {
        self.table.reserve()
    }

    /// Takes one input. Mail should be given only while there is no backlog, so that what waits
    /// stays bounded by the mailbox.
    pub fn handle(&mut self, input: Input<'_>, now: Now, outbox: &mut dyn Outbox) {
        let host = &mut Host { now, outbox };
        match input {
            Input::Opened(slot, opening) => self.open(slot, opening, host),
            Input::Text(slot, text) => self.receive(slot, text, host),
            Input::Heard(slot) => {
                if let Some(entry) = self.table.get_mut(slot) {
                    entry.life.heard(now.monotonic);
                }
            }
            Input::Closed(slot, code) => self.forget(slot, code, host),
            Input::Mail(post) => self.take_mail(post, host),
            Input::Order(control) => self.obey(&control, host),
            Input::Completed(completion) => self.complete(completion, host),
            Input::Tick => self.tick(host),
            Input::Continue => self.send_some(host),
            Input::Stalled(span) => self.stalls.note(now.monotonic, span),
        }
        self.close_refused(host);
    }

    /// The next thing to do elsewhere.
    pub fn poll_call(&mut self) -> Option<ColdCall> {
        self.calls.pop_front()
    }

    /// Whether [`Input::Continue`] has something to do.
    #[must_use]
    pub fn has_backlog(&self) -> bool {
        !self.backlog.is_empty() || self.watches.has_backlog()
    }

    /// When [`Input::Tick`] should come next.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Monotonic> {
        let mut timers = self.timers.next_deadline();
        if !self.parked.is_empty() {
            timers = Some(timers.map_or(self.parked_until, |at| at.min(self.parked_until)));
        }
        if let Some(gathered) = self.gathered_due() {
            timers = Some(timers.map_or(gathered, |at| at.min(gathered)));
        }
        if let Some(parting) = self.draining.as_ref().and_then(Draining::next_at) {
            timers = Some(timers.map_or(parting, |at| at.min(parting)));
        }
        let has_any = self.rooms.len() > 0 || !self.watches.own.is_empty();
        if self.services.rules.limits.look_every().is_none() || !has_any {
            return timers;
        }
        Some(timers.map_or(self.position_check_at, |at| at.min(self.position_check_at)))
    }

    /// How many connections it has.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.table.len()
    }

    /// How many rooms it has members of.
    #[must_use]
    pub fn rooms(&self) -> usize {
        self.rooms.len()
    }

    fn complete(&mut self, completion: Completion, host: &mut Host<'_>) {
        match completion.tag {
            CallTag::Detached => {}
            CallTag::OwnRooms => self.finish_own_rooms(&completion.outcome),
            CallTag::OwnRoom(room) => self.finish_own_fill(&room, completion.outcome, host),
            CallTag::Rights { slot, round } => {
                self.finish_revalidation(slot, round, completion.outcome, host);
                // A room that is lost takes the page with it that commands waited behind.
                self.read_inbox(slot, host);
                self.leave_if_idle(slot, host);
            }
            CallTag::Room(key) => self.finish_read(key, completion.outcome, host),
            CallTag::Connection { slot, command, room } => {
                let Some(entry) = self.table.get_mut(slot) else {
                    if let Outcome::Letters(page) = completion.outcome {
                        return self.pass_on(page);
                    }
                    if let Outcome::OwnRoomsHeard { is_on, .. } = completion.outcome {
                        return self.finish_own_rooms(&Outcome::OwnRooms(is_on));
                    }
                    self.undo(room, completion.outcome);
                    return;
                };
                entry.calls = entry.calls.saturating_sub(1);
                self.finish_command(slot, command, room, completion.outcome, host);
                self.show_waiting(slot, host);
                self.read_inbox(slot, host);
                self.leave_if_idle(slot, host);
            }
            CallTag::Resume { slot, command, rooms } => {
                let Some(entry) = self.table.get_mut(slot) else {
                    return self.undo_resume(rooms);
                };
                entry.calls = entry.calls.saturating_sub(1);
                match completion.outcome {
                    Outcome::Resumed(results) => {
                        self.finish_resume(slot, command, rooms, results, host);
                    }
                    _ => self.end(slot, CloseCode::InternalError, None, host),
                }
                self.read_inbox(slot, host);
                self.leave_if_idle(slot, host);
            }
        }
    }

    fn finish_command(
        &mut self,
        slot: Slot,
        command: Option<u64>,
        room: Option<JoinTag>,
        outcome: Outcome,
        host: &mut Host<'_>,
    ) {
        match outcome {
            Outcome::Authenticated { result, resume } => {
                self.finish_open(slot, command, result, resume, host);
            }
            Outcome::Refreshed(result) => self.finish_refresh(slot, command, result, host),
            Outcome::Joined(result) => {
                if let Some(tag) = room {
                    self.finish_join(slot, command, &tag, result, host);
                }
            }
            Outcome::Paged(result) => {
                if let Some(tag) = room {
                    self.finish_page(slot, &tag, result, host);
                }
            }
            Outcome::Published { result, room, echo } => {
                self.finish_publish(slot, command, &room, echo, result, host);
            }
            Outcome::History { result, room } => {
                self.finish_history(slot, command, &room, result, host);
            }
            Outcome::Presence { result, room } => {
                self.finish_presence(slot, command, &room, result, host);
            }
            Outcome::PresenceUpdated { result, room, beside } => {
                self.finish_presence_update(slot, (command, beside), &room, result, host);
            }
            Outcome::Letters(page) => self.finish_letters(slot, page, host),
            Outcome::Handled(result) => self.finish_handler(slot, command, result, host),
            Outcome::Watched { result, pattern } => {
                self.finish_watch(slot, command, &pattern, result, host);
            }
            Outcome::OwnRoomsHeard { is_on, resume } => {
                self.finish_own_rooms(&Outcome::OwnRooms(is_on));
                self.greet(slot, command, resume, host);
            }
            Outcome::Refused { refusal, room } => {
                self.metrics.joins.add(JoinOutcome::Refused, 1);
                self.refuse_in(slot, command, ("subscribe", &room), &refusal, host);
            }
            Outcome::Replaced => self.replace(slot, host),
            Outcome::Done
            | Outcome::Filled(_)
            | Outcome::Looked(_)
            | Outcome::Listed(_)
            | Outcome::Resumed(_)
            | Outcome::OwnRooms(_)
            | Outcome::Revalidated(_) => {}
            Outcome::Panicked => self.end(slot, CloseCode::InternalError, None, host),
        }
    }

    /// Hands work for a connection to the host; its commands wait until it is done.
    fn call(
        &mut self,
        slot: Slot,
        command: Option<u64>,
        room: Option<JoinTag>,
        future: CallFuture,
    ) {
        if let Some(entry) = self.table.get_mut(slot) {
            entry.calls += 1;
        }
        self.calls.push_back(ColdCall { tag: CallTag::Connection { slot, command, room }, future });
    }

    fn call_detached(&mut self, future: CallFuture) {
        self.calls.push_back(ColdCall { tag: CallTag::Detached, future });
    }
}

#[cfg(test)]
mod tests;
