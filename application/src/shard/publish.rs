//! Use cases *publish*, *history*, *presence*: from the command to the cold call, and from its
//! end to the answer.
//!
//! A publication reaches its own shard only through the broker, like everyone's.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use domain::codes::ErrorCode;
use domain::delivery::Class;
use domain::id::{MessageId, MessageKey};
use domain::membership::MemberState;
use domain::message::{Origin, Publish, Sender};
use domain::policy::NamespacePolicy;
use domain::position::Position;
use domain::presence::PresenceList;
use domain::protocol::{ServerFrame, compact_lines};
use domain::room::RoomId;
use domain::tags::Tags;
use domain::trace::TraceParent;

use super::calls::Outcome;
use super::seated::refused;
use super::table::Echo;
use super::{Host, Shard, Slot};
use crate::metrics::PublishOutcome;
use crate::planted::{Mistake, is_planted};
use crate::ports::{PublishError, Receipt};
use crate::refusal::Refusal;
use crate::traces::{self, traced};
use crate::use_cases::handle_message::{publisher, sender};
use crate::use_cases::list_presence::{ListPresence, PresenceRefused};
use crate::use_cases::publish_message::{PublishMessage, PublishRefused};
use crate::use_cases::read_history::{HistoryPage, HistoryRefused, ReadHistory};

/// The most publishes of one connection whose place in the order may still be to come.
const ECHOES_MAX: usize = 1_024;

/// A `publish` without its data.
pub(super) struct Command {
    pub(super) id: Option<u64>,
    pub(super) room: RoomId,
    pub(super) msg_id: Option<MessageId>,
    pub(super) echo: bool,
    pub(super) class: Option<Class>,
    pub(super) key: Option<MessageKey>,
    pub(super) ttl: Option<Duration>,
    pub(super) tags: Tags,
    pub(super) trace: Option<TraceParent>,
}

impl Shard {
    /// The room's policy, if there is one.
    pub(super) fn find_policy(&self, room: &RoomId) -> Result<Arc<NamespacePolicy>, Refusal> {
        self.services.rules.policies.of(room).cloned().ok_or_else(|| {
            let message = "this server has no such namespace";
            Refusal::new(ErrorCode::UnknownRoom, message).field("room")
        })
    }

    /// The room's policy; the client is told if there is none.
    pub(super) fn policy(
        &mut self,
        slot: Slot,
        command: Option<u64>,
        room: &RoomId,
        host: &mut Host<'_>,
    ) -> Option<Arc<NamespacePolicy>> {
        match self.find_policy(room) {
            Ok(policy) => Some(policy),
            Err(refusal) => {
                self.refuse(slot, command, &refusal, host);
                None
            }
        }
    }

    pub(super) fn publish(
        &mut self,
        slot: Slot,
        command: Command,
        data: &str,
        host: &mut Host<'_>,
    ) {
        let Some(policy) = self.policy(slot, command.id, &command.room, host) else { return };
        let Some(who) = self.who(slot) else { return };
        let Command { id, room, msg_id, echo, class, key, ttl, tags, trace } = command;
        let class = class.unwrap_or(policy.default_class);
        if (class == Class::Latest) != key.is_some() {
            let message = "a key goes with class latest, and only with it";
            let refusal = Refusal::new(ErrorCode::InvalidField, message).field("key");
            self.refuse(slot, id, &refusal, host);
            return;
        }
        let publish = Publish {
            room: room.clone(),
            publisher: publisher(&who),
            msg_id,
            class,
            key,
            sender: Sender { trace, ..sender(&who) },
            // A copy of its own: a slice would keep a whole read buffer alive in the log.
            data: Bytes::copy_from_slice(compact_lines(data).as_bytes()),
            tags,
            ttl,
            origin: Some(Origin { connection: who.connection, command: id, echo }),
            at: host.now.wall,
            fence: who.fence,
        };
        if !echo && let Some(entry) = self.table.get_mut(slot) {
            if entry.echoes.len() >= ECHOES_MAX {
                let refusal = Refusal::unavailable(Duration::from_secs(1));
                return self.refuse(slot, id, &refusal, host);
            }
            entry.publishing = Some(id);
        }
        let services = Arc::clone(&self.services);
        let span = traces::of_command("publish", &who, Some(&room), trace);
        let call = PublishMessage { services, who, policy, publish };
        let future =
            Box::pin(
                async move { Outcome::Published { result: call.execute().await, room, echo } },
            );
        self.call(slot, id, None, traced(span, future));
    }

    pub(super) fn finish_publish(
        &mut self,
        slot: Slot,
        command: Option<u64>,
        room: &RoomId,
        echo: bool,
        result: Result<Receipt, PublishRefused>,
        host: &mut Host<'_>,
    ) {
        if let Some(entry) = self.table.get_mut(slot) {
            entry.publishing = None;
        }
        self.metrics.publishes.add(outcome(&result), 1);
        let receipt = match result {
            Ok(receipt) => receipt,
            Err(_) if !echo && self.was_acknowledged(slot, command) => return,
            Err(PublishRefused::Broker(PublishError::Fenced)) => return self.replace(slot, host),
            Err(error) => {
                if let PublishRefused::Broker(error) = &error
                    && let Some(left_out) = self.not_taken.turn(host.now.monotonic)
                {
                    let error = error as &dyn std::error::Error;
                    tracing::warn!(error, left_out, "publish not taken");
                }
                return self.refuse_in(slot, command, ("publish", room), &error.into(), host);
            }
        };
        if !echo && !receipt.duplicate && self.waits_for_echo(slot, command, room, &receipt) {
            return;
        }
        self.acknowledge(slot, command, room, &receipt, host);
    }

    /// Whether the publication has come although the broker's answer was lost: then there is
    /// nothing to try again.
    fn was_acknowledged(&mut self, slot: Slot, command: Option<u64>) -> bool {
        let Some(entry) = self.table.get_mut(slot) else { return false };
        let of_command = |echo: &Echo| echo.acknowledged && echo.command == command;
        let Some(at) = entry.echoes.iter().position(of_command) else { return false };
        entry.echoes.remove(at);
        true
    }

    /// Whether the `ack` is given where the message would stand, or was given there already.
    fn waits_for_echo(
        &mut self,
        slot: Slot,
        command: Option<u64>,
        room: &RoomId,
        receipt: &Receipt,
    ) -> bool {
        let (Some(offset), Some(key)) = (receipt.offset, self.rooms.find(room)) else {
            return false;
        };
        if is_planted(Mistake::AckTooEarly) {
            return false;
        }
        let position = Position { epoch: receipt.epoch, offset };
        let Some(entry) = self.table.get_mut(slot) else { return false };
        if let Some(echo) = entry.take_echo(key, position) {
            return echo.acknowledged;
        }
        let (Some(state), Some(slice)) = (entry.rooms.state(key), self.rooms.get_mut(key)) else {
            return false;
        };
        let comes = match state {
            // A page that went out already had the message itself in it.
            MemberState::Joining => slice.joiner(slot).is_some_and(|joiner| {
                joiner.reached.is_none_or(|r| r.epoch != position.epoch || r.offset < offset)
            }),
            MemberState::Live(place) => {
                !slice.has_passed(position)
                    || slice.is_on_its_way(slot, position)
                    || slice.put_behind(slot, place, position, command)
            }
        };
        if !comes {
            return false;
        }
        let (n_reads, acknowledged, level) = (slice.n_reads, false, receipt.level);
        let asks = slice.is_foreign(position) && slice.fill.is_none();
        entry.echoes.push(Echo { room: key, position, command, level, acknowledged, n_reads });
        if asks {
            self.start_fill(key);
        }
        true
    }

    pub(super) fn acknowledge(
        &mut self,
        slot: Slot,
        command: Option<u64>,
        room: &RoomId,
        receipt: &Receipt,
        host: &mut Host<'_>,
    ) {
        if command.is_none() {
            return;
        }
        let ack = ServerFrame::Ack {
            id: command,
            room,
            epoch: receipt.epoch,
            offset: receipt.offset,
            duplicate: receipt.duplicate,
            level: receipt.level,
        };
        self.tell(slot, &ack, host);
    }

    pub(super) fn history(
        &mut self,
        slot: Slot,
        command: Option<u64>,
        room: RoomId,
        since: Option<Position>,
        messages_max: u32,
        host: &mut Host<'_>,
    ) {
        let Some(policy) = self.policy(slot, command, &room, host) else { return };
        let Some(who) = self.who(slot) else { return };
        let services = Arc::clone(&self.services);
        let span = traces::of_command("history", &who, Some(&room), None);
        let messages_max = messages_max.min(services.rules.limits.history_messages_max);
        let call = ReadHistory { services, who, room: room.clone(), policy, since, messages_max };
        let future =
            Box::pin(async move { Outcome::History { result: call.execute().await, room } });
        self.call_seated(slot, command, None, traced(span, future), refused);
    }

    pub(super) fn finish_history(
        &mut self,
        slot: Slot,
        command: Option<u64>,
        room: &RoomId,
        result: Result<HistoryPage, HistoryRefused>,
        host: &mut Host<'_>,
    ) {
        let page = match result {
            Ok(page) => page,
            Err(error) => {
                return self.refuse_in(slot, command, ("history", room), &error.into(), host);
            }
        };
        let messages: Vec<&[u8]> = page.messages.iter().map(|p| &p.message()[..]).collect();
        let frame = ServerFrame::HistoryPage {
            id: command,
            room,
            position: Position { epoch: page.bounds.epoch, offset: page.reached },
            messages: &messages,
            more: page.more,
        };
        self.tell(slot, &frame, host);
    }

    pub(super) fn presence(
        &mut self,
        slot: Slot,
        command: Option<u64>,
        room: RoomId,
        host: &mut Host<'_>,
    ) {
        let Some(policy) = self.policy(slot, command, &room, host) else { return };
        let Some(who) = self.who(slot) else { return };
        let services = Arc::clone(&self.services);
        let is_crowd = self.is_counted(&room);
        let call = ListPresence { services, who, room: room.clone(), policy, is_crowd };
        let future =
            Box::pin(async move { Outcome::Presence { result: call.execute().await, room } });
        self.call_seated(slot, command, None, future, refused);
    }

    pub(super) fn finish_presence(
        &mut self,
        slot: Slot,
        command: Option<u64>,
        room: &RoomId,
        result: Result<PresenceList, PresenceRefused>,
        host: &mut Host<'_>,
    ) {
        match result {
            Ok(list) => {
                let frame = ServerFrame::PresenceState { id: command, room, list: &list };
                self.tell(slot, &frame, host);
            }
            Err(error) => self.refuse_in(slot, command, ("presence", room), &error.into(), host),
        }
    }

    pub(super) fn refuse_non_member(
        &mut self,
        slot: Slot,
        command: Option<u64>,
        host: &mut Host<'_>,
    ) {
        let message = "subscribe to the room first";
        let refusal = Refusal::new(ErrorCode::NotSubscribed, message).field("room");
        self.refuse(slot, command, &refusal, host);
    }
}

const fn outcome(result: &Result<Receipt, PublishRefused>) -> PublishOutcome {
    match result {
        Ok(receipt) if receipt.duplicate => PublishOutcome::Duplicate,
        Ok(_) => PublishOutcome::Accepted,
        Err(_) => PublishOutcome::Refused,
    }
}
