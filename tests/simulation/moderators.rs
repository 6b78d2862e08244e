//! What moderators do in a seed with a disk, and what must hold on the server's side for whom they
//! have banned.
//!
//! A moderator asks the node as a host may, without a connection, so that no room hears of it and any room
//! can be meant. It knows no more than its answers: what has none may have been done.

use std::sync::Arc;
use std::time::Duration;

use application::extensions::middleware::{Context, Who};
use application::mailbox::Control;
use application::shard::Input;
use application::use_cases::moderate::{Moderate, ModerateRefused};
use application::view::View;
use bytes::Bytes;
use domain::documents::chat;
use domain::id::{ClientId, Role, UserId};
use domain::message::Publish;
use domain::moderation::{Act, Deed, Sanction};
use domain::principal::Principal;
use domain::room::RoomId;

use crate::checker::Violation;
use crate::docket::Key;
use crate::faults::Effect;
use crate::ports::{Core, WALL_START_MS};
use crate::world::{Event, World};

/// How many of a hundred acts are a moderator's, where there are moderators.
pub(crate) const MODERATORS_ACT: u64 = 8;
/// How long a sanction lasts that ends by itself.
const SPAN_MS: (u64, u64) = (300, 5_000);
/// How often a moderator tries to lift what lasts, once everything heals.
const LIFT_MS: u64 = 400;

/// The frames that only a member of a room gets.
const OF_MEMBERS: [&str; 8] = [
    "message",
    "tombstone",
    "subscribed",
    "page",
    "gap",
    "presence_event",
    "presence_events",
    "presence_count",
];

fn accuse(text: String) -> Violation {
    Violation::new("I18", text)
}

/// Whether a frame tells a member of a room something.
fn tells_member(frame: &[u8], room: &RoomId) -> bool {
    let Ok(text) = std::str::from_utf8(frame) else { return false };
    let kind = text.strip_prefix(r#"{"type":""#).and_then(|rest| rest.split_once('"'));
    let is_told = kind.is_some_and(|(kind, _)| OF_MEMBERS.contains(&kind));
    is_told && text.contains(&format!(r#""room":"{room}""#))
}

impl Core {
    /// A publish has come as far as the broker. If its shard took it up behind the acknowledgement, it
    /// was asked whether it may.
    pub(crate) fn on_spoken(&mut self, publish: &Publish) {
        let Some(user) = &publish.sender.user else { return };
        let at_ms = (publish.at.as_millis() - WALL_START_MS).cast_unsigned();
        let forbids =
            self.docket.in_force(user.as_str(), &publish.room, Deed::Speak, (at_ms, at_ms));
        if let Some(holds) = forbids {
            let text = format!("{user} is heard in {} at {at_ms}: {holds:?}", publish.room);
            self.violation.get_or_insert_with(|| accuse(text));
        }
    }

    /// A moderator has its answer.
    fn on_judged(&mut self, key: Option<&Key>, done: Result<UserId, ModerateRefused>) {
        let now_ms = self.now_ms;
        if let Some(key) = key {
            self.docket.end(key, done.is_ok(), now_ms);
        }
        match done {
            Ok(_) => self.counts.effect(Effect::ActAcked),
            Err(ModerateRefused::Record(_)) => {}
            Err(error) => {
                let text = format!("a moderator was told: {error:?}");
                self.violation.get_or_insert_with(|| Violation::new("protocol", text));
            }
        }
    }
}

impl World {
    /// A moderator does something to somebody, or takes something back.
    pub(crate) fn moderate(&mut self) {
        let lasting = self.core.lock().docket.may_last(self.now_ms);
        if !lasting.is_empty() && self.rng.percent(30) {
            let key = self.rng.pick(&lasting).clone();
            return self.lift(key);
        }
        let client = self.rng.index(self.clients.len());
        let Some(user) = self.user_of(client) else { return };
        let view = self.rng.index(self.clients[client].views.len());
        let room = self.clients[client].views[view].room.clone();
        let span_ms = self.rng.between(SPAN_MS.0, SPAN_MS.1);
        let span = (!self.rng.percent(20)).then(|| Duration::from_millis(span_ms));
        let act = match self.rng.below(100) {
            0..35 => Act::Mute(user, span),
            35..75 => Act::Ban(user, span),
            _ => Act::Kick(user),
        };
        self.judge(room, act);
    }

    fn lift(&mut self, (user, room, sanction): Key) {
        let act = match sanction {
            Sanction::Mute => Act::Unmute(user),
            Sanction::Ban => Act::Unban(user),
        };
        self.judge(room, act);
    }

    /// What would never end is lifted, until it is.
    pub(crate) fn lift_all(&mut self) {
        let endless = self.core.lock().docket.endless();
        if endless.is_empty() {
            return;
        }
        for key in endless {
            self.lift(key);
        }
        self.queue.push(self.now_ms + LIFT_MS, Event::Lift);
    }

    /// Has the process that is there do what a moderator wants, unless it does the like already.
    fn judge(&mut self, room: RoomId, act: Act) {
        let Some(node) = self.nodes.iter().rposition(|node| node.alive) else { return };
        let key = act.user().cloned().zip(act.sanction());
        let key = key.map(|(user, sanction)| (user, room.clone(), sanction));
        if key.as_ref().is_some_and(|key| !self.core.lock().docket.take_up(key.clone())) {
            return;
        }
        self.tell_trace(|| format!("a moderator in {room}: {act:?}"));
        let host = &self.nodes[node].node;
        let connection = host.connection_id().expect("a seed never runs dry");
        let role = Role::parse("moderator").expect("a good name");
        let principal = Principal {
            user: UserId::parse("moderator").ok(),
            roles: vec![role.clone()],
            ..Principal::default()
        };
        let who = Arc::new(Who {
            connection,
            client: ClientId::parse("moderator").expect("a good label"),
            address: None,
            view: View::V2,
            place: None,
            principal: Arc::new(principal),
            context: Context::default(),
            fence: None,
        });
        let wanted = chat::Moderation { room, act, reason: None };
        let roles = Arc::from([role]);
        let moderate = Moderate { services: host.services(), who, roles, wanted };
        let core = self.core.clone();
        self.spawn(node, async move {
            let done = moderate.execute().await;
            core.lock().on_judged(key.as_ref(), done);
        });
    }

    /// A shard takes its orders. Where it is told to put somebody out, it has done so behind this.
    pub(crate) fn obey(&mut self, node: usize, shard: usize, control: Control) {
        let put_out = match &control {
            Control::PutOut(user, room) => Some((user.clone(), room.clone())),
            _ => None,
        };
        if let Control::Drain { until } = &control {
            self.begin_parting(node, shard, until.as_millis());
        }
        self.input(node, shard, Input::Order(control));
        if let Some((user, room)) = put_out {
            self.core.lock().docket.on_put_out(&user, &room, self.now_ms);
        }
    }

    /// Who may be told nothing of a room by a shard: its ban is acknowledged, and the shard has had a turn
    /// since, or is a later process's.
    pub(crate) fn barred(&self, node: usize, shard: usize) -> Vec<(UserId, RoomId)> {
        if self.disk.is_none() {
            return Vec::new();
        }
        let obeyed_ms = self.nodes[node].shards[shard].obeyed_ms;
        let core = self.core.lock();
        let bans = core.docket.bans(self.now_ms);
        let barred = bans.filter(|(.., holds)| obeyed_ms > holds.acked_ms || node != holds.node);
        barred.map(|(user, room, _)| (user.clone(), room.clone())).collect()
    }

    /// Nothing that a shard has just told anybody was for members who are banned.
    pub(crate) fn check_barred(&mut self, barred: &[(UserId, RoomId)], told: &[(usize, Bytes)]) {
        for (link, frame) in told {
            let Some(user) = self.user_of(self.links[*link].client) else { continue };
            let of_user = barred.iter().filter(|(banned, _)| *banned == user);
            for (_, room) in of_user.filter(|(_, room)| tells_member(frame, room)) {
                let frame = String::from_utf8_lossy(frame);
                let text = format!("{user} is banned from {room}, and link {link} gets {frame}");
                self.violation.get_or_insert_with(|| accuse(text));
            }
        }
    }
}
