//! The server's frames as the line shows them: each goes through the checker, then to the client.
//!
//! A client passes over much of what no server should say, so it must never be asked here: nothing may pass that no
//! command and no membership explains.

use domain::codes::ErrorCode;
use domain::policy::AckLevel;
use domain::protocol::decode_server;
use domain::protocol::server_event::{
    Ack, ErrorEvent, EventResumed, Gap, Hello, HistoryPage, LogEntry, Message, PresenceCount,
    PresenceEvent, PresenceEvents, PresenceState, ServerEvent, Subscribed, Unsubscribed,
};
use domain::room::RoomId;

use crate::checker::{Checked, Seen, Stage, Violation};
use crate::client::{Asked, Client, Said, Scene};
use crate::crowd::{Change, Crowd};
use crate::faults::{Effect, Fault};

fn unexpected(text: impl Into<String>) -> Violation {
    Violation::new("protocol", text)
}

impl Client {
    /// Bytes came; whole lines are frames, and the client gets them one by one: so it is known behind which of them it
    /// tells what.
    pub(crate) fn hear(&mut self, bytes: &[u8], scene: &mut Scene<'_>) -> Checked {
        if self.buffer.is_empty() && bytes.ends_with(b"\n") {
            return self.hear_lines(bytes, scene);
        }
        self.buffer.extend_from_slice(bytes);
        let Some(end) = self.buffer.iter().rposition(|byte| *byte == b'\n') else {
            return Ok(());
        };
        let rest = self.buffer.split_off(end + 1);
        let whole = std::mem::replace(&mut self.buffer, rest);
        self.hear_lines(&whole, scene)
    }

    fn hear_lines(&mut self, bytes: &[u8], scene: &mut Scene<'_>) -> Checked {
        let text = std::str::from_utf8(bytes).map_err(|_| unexpected("no UTF-8"))?;
        for line in text.split_terminator('\n') {
            for event in decode_server(line) {
                let event = event.map_err(|error| unexpected(format!("{error}: {line}")))?;
                self.on_event(&event, scene)?;
            }
            self.take(line, scene)?;
            if self.link.is_none() {
                // The client has had enough.
                break;
            }
        }
        Ok(())
    }

    pub(crate) fn view(&self, room: &RoomId) -> Result<usize, Violation> {
        let found = self.views.iter().position(|view| view.room == *room);
        found.ok_or_else(|| Violation::new("I10", format!("nobody asked for {room}")))
    }

    fn answer(&mut self, id: Option<u64>, what: &str) -> Result<Asked, Violation> {
        let asked = id.and_then(|id| self.asked.remove(&id));
        asked.ok_or_else(|| unexpected(format!("client {}: {what} answers nothing", self.index)))
    }

    fn on_event(&mut self, event: &ServerEvent<'_>, scene: &mut Scene<'_>) -> Checked {
        match event {
            ServerEvent::Hello(hello) => self.on_hello(hello, scene)?,
            ServerEvent::Ping(_) | ServerEvent::TokenExpiring(_) => {}
            ServerEvent::Disconnect(disconnect) => {
                self.come_back_ms = disconnect.reconnect_after_ms;
            }
            ServerEvent::Pong(pong) => self.expect(pong.id, Asked::Ping)?,
            ServerEvent::Status(status) => self.expect(status.id, Asked::Status)?,
            ServerEvent::PresenceUpdated(updated) => {
                let asked = Asked::Update(self.view(&updated.room)?);
                self.expect_granted(updated.id, asked, scene)?;
            }
            ServerEvent::Refreshed(refreshed) => {
                scene.core.counts.effect(Effect::Refreshed);
                self.expect(refreshed.id, Asked::Refresh)?;
            }
            ServerEvent::ErrorEvent(error) => self.on_error(error, scene)?,
            ServerEvent::Ack(ack) => self.on_ack(ack, scene)?,
            ServerEvent::HistoryPage(page) => self.on_history(page, scene)?,
            ServerEvent::PresenceState(list) => self.on_list(list, scene)?,
            ServerEvent::PresenceEvent(PresenceEvent {
                room,
                seq,
                total,
                event,
                user_id,
                data,
                ..
            }) => {
                let changes = vec![change(event, user_id, data)];
                let seen = Seen { from: *seq, seq: *seq, total: *total, changes };
                self.on_presence(room, seen, scene)?;
            }
            ServerEvent::PresenceEvents(PresenceEvents {
                room, from, seq, total, changes, ..
            }) => {
                let changes = changes.iter().map(|c| change(&c.event, &c.user_id, c.data));
                let changes = changes.collect();
                let seen = Seen { from: *from, seq: *seq, total: *total, changes };
                self.on_presence(room, seen, scene)?;
            }
            ServerEvent::PresenceCount(count) => self.on_count(count, scene)?,
            ServerEvent::Other { kind, .. } => return Err(unexpected(format!("a {kind}"))),
            _ => self.on_room_event(event, scene)?,
        }
        Ok(())
    }

    fn on_hello(&mut self, hello: &Hello<'_>, scene: &mut Scene<'_>) -> Checked {
        let connects = self.asked.values().any(|asked| *asked == Asked::Connect);
        if connects && hello.id.is_none() {
            // The server's own greeting; the answer to `connect` is on its way.
            return Ok(());
        }
        if connects {
            self.expect(hello.id, Asked::Connect)?;
        }
        let user = hello.user_id.as_deref();
        if self.greeted || user != self.user.as_deref() {
            return Err(unexpected("a second hello, or for somebody else"));
        }
        self.greeted = true;
        let named = self.views.iter().filter(|v| matches!(v.stage, Stage::Joining { .. })).count();
        if hello.resumed.len() != named {
            return Err(unexpected(format!("{named} rooms were named: {:?}", hello.resumed)));
        }
        for resumed in &hello.resumed {
            self.on_resumed(resumed, scene)?;
        }
        Ok(())
    }

    fn on_resumed(&mut self, resumed: &EventResumed<'_>, scene: &mut Scene<'_>) -> Checked {
        let back = match resumed {
            EventResumed::Back(back) => back,
            EventResumed::Refused(refused) => {
                let view = self.view(&refused.room)?;
                if refused.error.code == ErrorCode::PermissionDenied.number() {
                    scene.core.counts.effect(Effect::ReturnRefused);
                    let (asked, since_ms) = (Asked::Subscribe(view), self.views[view].asked_ms);
                    return self.on_forbidden(asked, since_ms, scene);
                }
                if refused.error.code != ErrorCode::Unavailable.number() {
                    return Err(unexpected(format!("{refused:?}")));
                }
                self.views[view].stage = Stage::Off;
                return Ok(());
            }
        };
        let index = self.view(&back.room)?;
        self.check_granted(Asked::Subscribe(index), self.views[index].asked_ms, scene)?;
        let wall = scene.core.wall();
        let Some(truth) = scene.core.rooms.get(&back.room) else { return Ok(()) };
        let view = &mut self.views[index];
        if let Some(gap) = &back.gap {
            let gap = Gap {
                room: back.room.clone(),
                epoch: back.epoch,
                from: gap.from,
                to: gap.to,
                reason: gap.reason.clone(),
                timestamp: "".into(),
            };
            view.on_gap(&gap, truth, wall)?;
            scene.core.counts.effect(effect_of_gap(&gap.reason));
        }
        let told = Subscribed {
            id: None,
            room: back.room.clone(),
            epoch: back.epoch,
            offset: back.offset,
            recovered: back.recovered,
            messages: back.messages.clone(),
            more: back.more,
            timestamp: "".into(),
        };
        view.on_subscribed(&told, truth, wall)?;
        let effect = if back.more { Effect::ResumedInPart } else { Effect::Resumed };
        scene.core.counts.effect(effect);
        Ok(())
    }

    fn expect(&mut self, id: Option<u64>, expected: Asked) -> Checked {
        let asked = self.answer(id, "an answer")?;
        if asked == expected {
            return Ok(());
        }
        Err(unexpected(format!("{expected:?} was answered, {asked:?} was asked")))
    }

    /// The same for what a moderator may have forbidden.
    fn expect_granted(
        &mut self,
        id: Option<u64>,
        expected: Asked,
        scene: &mut Scene<'_>,
    ) -> Checked {
        self.expect(id, expected)?;
        self.check_granted(expected, self.asked_at(id), scene)
    }

    fn asked_at(&self, id: Option<u64>) -> u64 {
        id.and_then(|id| self.asked_ms.get(&id)).copied().unwrap_or(0)
    }

    fn on_room_event(&mut self, event: &ServerEvent<'_>, scene: &mut Scene<'_>) -> Checked {
        let wall = scene.core.wall();
        let room = match event {
            ServerEvent::Subscribed(told) => &told.room,
            ServerEvent::Page(page) => &page.room,
            ServerEvent::Gap(gap) => &gap.room,
            ServerEvent::Message(message) => &message.room,
            ServerEvent::Tombstone(tombstone) => &tombstone.room,
            ServerEvent::Unsubscribed(told) => &told.room,
            _ => return Err(unexpected("an event without a room")),
        };
        let index = self.view(room)?;
        if let ServerEvent::Message(message) = event {
            self.check_echo(message, scene)?;
        }
        if let ServerEvent::Unsubscribed(told) = event {
            return self.on_unsubscribed(index, told, scene);
        }
        if let Some(doubted) = self.views[index].doubted.take() {
            return Err(doubted);
        }
        if let ServerEvent::Subscribed(told) = event {
            self.expect_granted(told.id, Asked::Subscribe(index), scene)?;
        }
        let Some(truth) = scene.core.rooms.get(room) else { return Ok(()) };
        let view = &mut self.views[index];
        match event {
            ServerEvent::Subscribed(told) => {
                view.on_subscribed(told, truth, wall)?;
                if told.recovered {
                    scene.core.counts.effect(Effect::Recovered);
                }
            }
            ServerEvent::Page(page) => {
                view.on_page(page, truth, wall)?;
                scene.core.counts.effect(Effect::PageRead);
            }
            ServerEvent::Gap(gap) => {
                view.on_gap(gap, truth, wall)?;
                scene.core.counts.effect(effect_of_gap(&gap.reason));
            }
            ServerEvent::Message(message) => {
                view.on_message(message, truth, wall)?;
                if message.previous.is_some_and(|previous| Some(previous + 1) < message.offset) {
                    scene.core.counts.effect(Effect::FilteredOut);
                }
                if message.key.is_some() {
                    scene.core.counts.effect(Effect::LatestReplaced);
                }
            }
            ServerEvent::Tombstone(tombstone) => {
                view.on_tombstone(tombstone, truth, wall)?;
                scene.core.counts.effect(Effect::Tombstone);
            }
            _ => {}
        }
        Ok(())
    }

    fn on_unsubscribed(
        &mut self,
        index: usize,
        told: &Unsubscribed<'_>,
        scene: &mut Scene<'_>,
    ) -> Checked {
        let doubted = self.views[index].doubted.take();
        if told.id.is_none() {
            self.on_put_out(index, told, scene)?;
        } else if let Some(doubted) = doubted {
            return Err(doubted);
        } else {
            self.expect(told.id, Asked::Unsubscribe(index))?;
        }
        let view = &mut self.views[index];
        view.stage = Stage::Off;
        view.present = crate::checker::Presence::default();
        Ok(())
    }

    /// Who does not want its own message back does not get it over the connection it came from.
    fn check_echo(&self, message: &Message<'_>, scene: &Scene<'_>) -> Checked {
        let silent = self.sent_as(message.data).is_some_and(|sent| !self.sent[sent].echo);
        if !silent || !scene.core.log_keeps_origin {
            return Ok(());
        }
        let own = scene.at.map(|place| place.id.to_string());
        if own.as_deref() == message.sender.connection_id.as_deref() {
            let text = format!("client {} got its own {}", self.index, message.data);
            return Err(Violation::new("I3 (echo)", text));
        }
        Ok(())
    }

    fn on_ack(&mut self, ack: &Ack<'_>, scene: &mut Scene<'_>) -> Checked {
        let wall = scene.core.wall();
        let Some(said) = ack.id.and_then(|id| self.published.get_mut(&id)) else {
            return Err(unexpected("an ack of nothing"));
        };
        said.acks += 1;
        let Said { sent: index, tries, acks, .. } = *said;
        if acks > tries {
            let text = format!("client {}: ack {acks} of {tries}: {ack:?}", self.index);
            return Err(Violation::new("I3 (one ack)", text));
        }
        // A publish that was refused may be acknowledged all the same: it was taken.
        ack.id.and_then(|id| self.asked.remove(&id));
        let sent = &mut self.sent[index];
        let at = ack.offset.map(|offset| (ack.epoch, offset));
        let view = &mut self.views[sent.view];
        let Some(truth) = scene.core.rooms.get(&view.room) else { return Ok(()) };
        let place = at.map(|(epoch, offset)| truth.at(epoch, offset));
        let fits = match place {
            None => !sent.class.is_positioned(),
            Some(None) => false,
            Some(Some(published)) => published.publication.data == sent.data.as_bytes(),
        };
        if !fits {
            return Err(Violation::new("I6", format!("{} does not stand at {at:?}", sent.data)));
        }
        if sent.refused {
            return Err(Violation::new("I5", format!("{} was refused, and acked", sent.data)));
        }
        let durable = sent.class.is_positioned() && view.durable;
        if (ack.level == AckLevel::Durable.word()) != durable {
            let text = format!("{} in {} is said to be {}", sent.data, view.room, ack.level);
            return Err(Violation::new("I6 (level)", text));
        }
        if durable {
            scene.core.counts.effect(Effect::AckedDurable);
        }
        if ack.duplicate {
            scene.core.counts.effect(Effect::AckedTwice);
        } else if sent.tries == 1 {
            sent.at = at;
        }
        if !sent.echo {
            match view.on_silent_ack(ack, truth, wall) {
                Ok(false) => {}
                Ok(true) => scene.core.counts.effect(Effect::AckedInPlace),
                // Who is put out gets what waited for its place at once, and is told why behind it.
                Err(violation) if scene.core.moderated && self.user.is_some() => {
                    view.doubted = Some(violation);
                }
                Err(violation) => return Err(violation),
            }
        }
        self.check_granted(Asked::Publish(index), self.asked_at(ack.id), scene)
    }

    /// What an error answers. A publish that was repeated may be refused after another time that it was said was
    /// acknowledged.
    fn refused(&mut self, id: Option<u64>) -> Result<Asked, Violation> {
        if let Some(said) = id.and_then(|id| self.published.get_mut(&id)) {
            said.errors += 1;
            let Said { sent, tries, errors, .. } = *said;
            if errors <= tries {
                id.and_then(|id| self.asked.remove(&id));
                return Ok(Asked::Publish(sent));
            }
        }
        self.answer(id, "an error")
    }

    fn on_error(&mut self, error: &ErrorEvent<'_>, scene: &mut Scene<'_>) -> Checked {
        let asked = self.refused(error.id)?;
        let since_ms = self.asked_at(error.id);
        if let Asked::Publish(index) = asked
            && self.sent[index].refused
            && error.code == ErrorCode::PermissionDenied.number()
        {
            return Ok(());
        }
        if error.code == ErrorCode::PermissionDenied.number() {
            return self.on_forbidden(asked, since_ms, scene);
        }
        if matches!(asked, Asked::Update(_))
            && scene.core.has_troubles()
            && is_temporary(error.code)
        {
            // What it wanted shown it may want shown again.
            return Ok(());
        }
        if error.code == ErrorCode::NotSubscribed.number() {
            return self.on_not_member(asked, since_ms);
        }
        let refused = error.code == ErrorCode::Unavailable.number();
        let lost =
            matches!(asked, Asked::History(_)) && error.code == ErrorCode::InvalidPosition.number();
        if !refused && !lost {
            return Err(unexpected(format!("{asked:?} was answered {error:?}")));
        }
        match asked {
            Asked::Publish(_) => scene.core.counts.effect(Effect::Retried),
            Asked::Subscribe(view) => self.views[view].stage = Stage::Off,
            _ => {}
        }
        Ok(())
    }

    fn on_history(&mut self, page: &HistoryPage<'_>, scene: &mut Scene<'_>) -> Checked {
        let view = self.view(&page.room)?;
        self.expect_granted(page.id, Asked::History(view), scene)?;
        scene.core.counts.effect(Effect::HistoryRead);
        let Some(truth) = scene.core.rooms.get(&page.room) else { return Ok(()) };
        let mut before = None;
        for entry in &page.messages {
            let (offset, data) = match entry {
                LogEntry::Message(message) => (message.offset, Some(message.data)),
                LogEntry::Tombstone(tombstone) => (tombstone.offset, None),
            };
            let offset = offset.unwrap_or(0);
            let published = truth.at(page.epoch, offset);
            let equal = published.is_some_and(|published| {
                data.is_none_or(|data| published.publication.data == data.as_bytes())
            });
            if !equal || before.is_some_and(|before| offset != before + 1) {
                return Err(Violation::new("I3 (history)", format!("{page:?}")));
            }
            before = Some(offset);
        }
        Ok(())
    }

    fn on_list(&mut self, list: &PresenceState<'_>, scene: &mut Scene<'_>) -> Checked {
        scene.core.counts.effect(Effect::PresenceListed);
        let index = self.view(&list.room)?;
        // One that nobody asked for comes where a change of it was missed.
        if list.id.is_some() {
            self.expect_granted(list.id, Asked::Presence(index), scene)?;
        }
        if list.id.is_some() && self.views[index].was_put_out_since(self.asked_at(list.id)) {
            // Asked as a member: what came between is not known.
            return Ok(());
        }
        let room = &list.room;
        let members = list.members.iter().map(|member| (&*member.user_id, member.data));
        let crowd = Crowd::listed(members, list.total, scene.core.list_bytes_max);
        let crowd = crowd.map_err(|text| Violation::new("I9", format!("{room}: {text}")))?;
        if crowd.is_cut() {
            scene.core.counts.effect(Effect::PresenceCut);
        }
        if !self.views[index].present.on_list(list.seq, crowd, room)? {
            self.presence_hole(index, scene)?;
        }
        Ok(())
    }

    fn on_presence(&mut self, room: &RoomId, seen: Seen, scene: &mut Scene<'_>) -> Checked {
        scene.core.counts.effect(Effect::PresenceChanged);
        if seen.from < seen.seq {
            scene.core.counts.effect(Effect::PresenceGathered);
        }
        let index = self.followed(room)?;
        if !self.views[index].present.on_event(seen, room)? {
            self.presence_hole(index, scene)?;
        }
        Ok(())
    }

    fn on_count(&mut self, count: &PresenceCount<'_>, scene: &mut Scene<'_>) -> Checked {
        scene.core.counts.effect(Effect::PresenceCounted);
        let index = self.followed(&count.room)?;
        if !self.views[index].present.on_count(count.seq, count.total) {
            self.presence_hole(index, scene)?;
        }
        Ok(())
    }

    /// A room of which only who follows it is told who is there.
    fn followed(&self, room: &RoomId) -> Result<usize, Violation> {
        let index = self.view(room)?;
        let view = &self.views[index];
        if view.stage == Stage::Off || !view.present.followed {
            let text = format!("presence of {}, which is not followed", view.room);
            return Err(Violation::new("I11", text));
        }
        Ok(index)
    }

    /// An event is missing: only mail that did not fit explains that.
    fn presence_hole(&mut self, view: usize, scene: &mut Scene<'_>) -> Checked {
        scene.core.counts.effect(Effect::PresenceHole);
        // A Redis that has forgotten numbers its changes by its clock again.
        let overflowed = scene.at.is_some_and(|place| place.overflowed);
        if !overflowed && !scene.core.has_troubles() {
            let room = &self.views[view].room;
            let text = format!("client {}: a presence event of {room} is missing", self.index);
            return Err(Violation::new("I9", text));
        }
        Ok(())
    }
}

fn change(event: &str, user: &str, data: &str) -> Change {
    let [event, user, data] = [event, user, data].map(str::to_owned);
    Change { event, user, data }
}

/// Whether it is for want of what Redis has lost, or of Redis.
const fn is_temporary(code: u16) -> bool {
    code == ErrorCode::NotSubscribed.number() || code == ErrorCode::Unavailable.number()
}

fn effect_of_gap(reason: &str) -> Effect {
    match reason {
        "retention" => Effect::GapRetention,
        "overflow" => Effect::GapOverflow,
        _ => Effect::GapEpoch,
    }
}

/// The effect of a close code, where one is counted.
pub(crate) const fn effect_of(code: u16) -> Option<Effect> {
    match code {
        3001 => Some(Effect::SlowConsumer),
        3002 => Some(Effect::NoPong),
        3003 => Some(Effect::InsufficientState),
        3004 => Some(Effect::TokenExpired),
        1012 => Some(Effect::Restart),
        1013 => Some(Effect::TryAgainLater),
        3505 => Some(Effect::SessionReplaced),
        3506 => Some(Effect::ConnectionLimit),
        _ => None,
    }
}

/// How a client loses its connection.
pub(crate) const DROPS: [Fault; 3] = [Fault::ClientClosed, Fault::LinkCut, Fault::LinkSilent];
