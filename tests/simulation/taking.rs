//! What connections take from each other in a seed over Redis: their users, their seats, and tokens that count once;
//! and how those come back who were told not to.
//!
//! A client must never be let off for being refused unless somebody else has what it wanted.

use std::time::Duration;

use application::services::Rules;
use application::shard::{Input, Opening};
use application::view::View;
use broker_redis::testing::read_member;
use bytes::Bytes;
use domain::client::life::Lost;
use domain::codes::CloseCode;
use domain::drain::DrainMode;
use domain::id::{ClientId, UserId};
use domain::presence::{PresenceList, PresentMember};
use domain::room::RoomId;

use crate::checker::{Checked, Violation};
use crate::links::{Down, Link, Up};
use crate::ports::Core;
use crate::redis::number;
use crate::rng::Rng;
use crate::ways::OneRedis;
use crate::world::{Event, World};

/// How many of a hundred tokens that count once somebody else shows, too.
const STOLEN: u64 = 30;

/// Chance apart from that of the story, so that the others stay as they are.
pub(crate) const fn shared_rng(seed: u64) -> Rng {
    Rng::new(seed ^ 0x6c65_6173_6573)
}

/// What nodes over Redis agree on in a seed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SharedRules {
    pub(crate) has_troubles: bool,
    /// Whether tokens count once.
    pub(crate) once: bool,
}

pub(crate) fn draw_shared(seed: u64, rules: &mut Rules) -> SharedRules {
    let mut rng = shared_rng(seed).fork();
    rules.drain_mode = DrainMode::Paced;
    // As the binary has it over Redis: what had no answer, as a list of members, is asked for again.
    rules.limits.hole_retry = Some(Duration::from_secs(1));
    rules.single_session = rng.percent(45);
    if !rules.single_session {
        let most = rng.between(1, 3);
        rules.limits.connections_per_user_max = u32::try_from(most).expect("it is small");
    }
    let once = !rules.single_session && rng.percent(50);
    SharedRules { has_troubles: rng.percent(60), once }
}

/// Whether somebody is let in by this.
pub(crate) fn is_hello(bytes: &Bytes) -> bool {
    bytes.starts_with(br#"{"type":"hello""#)
}

impl World {
    pub(crate) const fn is_over_redis(&self) -> bool {
        self.time.is_some()
    }

    /// A client has shown a token that counts once. Somebody else may have it, and show it at the same time.
    pub(crate) fn show(&mut self, link: usize, token: &str) {
        self.note_shown(token, link);
        if !self.rng.percent(STOLEN) {
            return;
        }
        let ready = self.nodes.iter().enumerate().filter(|(_, node)| node.alive && !node.draining);
        let ready: Vec<usize> = ready.map(|(number, _)| number).collect();
        if ready.is_empty() {
            return;
        }
        let node = *self.rng.pick(&ready);
        let host = &mut self.nodes[node];
        let shard = self.rng.index(host.shards.len());
        let connection = host.node.connection_id().expect("a seed never runs dry");
        let slot = host.shards[shard].shard.reserve();
        let thief = self.links.len();
        let client = self.links[link].client;
        let mut made = Link::new(client, node, shard, slot, connection);
        made.is_thief = true;
        self.links.push(made);
        host.shards[shard].by_slot.insert(slot, thief);
        self.note_shown(token, thief);
        let opening = Opening {
            connection,
            client: ClientId::parse("thief").expect("a good label"),
            token: Some(token.to_owned()),
            conflicting_tokens: false,
            view: View::V2,
            address: None,
            place: None,
        };
        self.input(node, shard, Input::Opened(slot, opening));
    }

    fn note_shown(&self, token: &str, link: usize) {
        if let Some(one) = &mut self.core.lock().redis {
            one.truth.on_shown(token, link);
        }
    }

    /// A connection was let in: nobody else was with the same token.
    pub(crate) fn on_let_in(&self, link: usize) -> Checked {
        match &mut self.core.lock().redis {
            Some(one) => one.truth.on_let_in(link),
            None => Ok(()),
        }
    }

    /// Somebody who was let in with another's token has what it wanted, and goes.
    pub(crate) fn thief_hears(&mut self, link: usize, down: &Down) {
        match down {
            Down::Bytes(bytes) if !is_hello(bytes) => return,
            Down::Bytes(_) => self.send_up(link, Up::Closed),
            Down::Closed(_) => {}
        }
        self.links[link].client_open = false;
    }

    /// A client is told not to come back.
    pub(crate) fn on_final(&mut self, link: usize, code: u16) -> Checked {
        let client = self.links[link].client;
        let fail = |text: &str| Err(Violation::new("I13", format!("closed with {code}: {text}")));
        let Some(user) = self.clients[client].user.clone().filter(|_| self.is_over_redis()) else {
            return fail("nobody may be");
        };
        let (single, connection) = (self.rules.single_session, self.links[link].id);
        let is_code = |other: CloseCode| other.number() == code;
        let core = self.core.lock();
        let Some(truth) = core.redis.as_ref().map(|one| &one.truth) else { return Ok(()) };
        if is_code(CloseCode::SessionReplaced) && single {
            if truth.is_newest(&user, connection) {
                let text = format!("{connection} is the newest of {user}, and was replaced");
                return Err(Violation::new("I20", text));
            }
        } else if is_code(CloseCode::Unauthenticated) && truth.is_shown_again(link) {
            // Its user has another token.
            let soon = self.now_ms + self.rng.between(20, 1_200);
            self.queue.push(soon, Event::Connect { client });
        } else if single || !is_code(CloseCode::ConnectionLimit) {
            return fail("there was no reason");
        }
        drop(core);
        self.part(client, Lost::new(code, ""));
        if self.clients[client].rests {
            return Ok(());
        }
        fail("it comes back all the same")
    }

    /// Somebody brings back a client that was told not to come.
    pub(crate) fn reopen_one(&mut self) {
        let resting = self.clients.iter().filter(|client| client.rests);
        let resting: Vec<usize> = resting.map(|client| client.index).collect();
        if !resting.is_empty() {
            let client = *self.rng.pick(&resting);
            self.queue.push(self.now_ms, Event::Connect { client });
        }
    }

    /// All of them are brought back, one after the other.
    pub(crate) fn reopen_all(&mut self) {
        let resting = self.clients.iter().filter(|client| client.rests);
        for (place, client) in (0..).zip(resting) {
            let client = client.index;
            self.queue.push(self.now_ms + place * 200, Event::Connect { client });
        }
    }

    /// When all is quiet each user has the seats that it may have, and Redis counts those.
    pub(crate) fn check_seated(&self) -> Checked {
        let core = self.core.lock();
        let Some(one) = &core.redis else { return Ok(()) };
        let users: std::collections::BTreeSet<_> =
            self.clients.iter().filter_map(|client| client.user.clone()).collect();
        for name in users {
            let of_user = self.clients.iter().filter(|client| client.user.as_ref() == Some(&name));
            let here = of_user.clone().filter(|client| client.greeted).count();
            let most = match self.rules.single_session {
                true => 1,
                false => self.rules.limits.connections_per_user_max as usize,
            };
            let expected = of_user.count().min(most);
            let user = UserId::parse(&name).expect("a good name");
            let (seats, counted) = (one.truth.seats_of(&user), self.counted_in_redis(one, &user));
            let is_right = if core.has_troubles() { here >= expected } else { here == expected };
            if !is_right || seats != here || counted != here {
                let text = format!(
                    "{name} is here {here} times, not {expected}: {seats} seats, {counted} in Redis"
                );
                return Err(Violation::new("I20 (seats)", text));
            }
        }
        Ok(())
    }

    fn counted_in_redis(&self, one: &OneRedis, user: &UserId) -> usize {
        let Some(over) = self.nodes.iter().find_map(|node| node.over_redis.as_ref()) else {
            return 0;
        };
        one.seats_in(&over.broker.seats_key(user), &over.broker.leases_key())
    }

    pub(crate) fn listed_in_redis(&self, core: &Core, room: &RoomId) -> PresenceList {
        let over = self.nodes.iter().find_map(|node| node.over_redis.as_ref());
        let (Some(one), Some(over)) = (&core.redis, over) else { return PresenceList::default() };
        let [who, names, counts, data, _] = over.broker.presence_keys(room, "");
        let redis = &one.redis;
        let member = |(name, _): (String, f64)| {
            let connections = redis.hget(&counts, &name).map_or(0, |text| number(&text));
            Some(PresentMember {
                who: read_member(&name)?,
                data: redis.hget(&data, &name).unwrap_or_default().into(),
                connections: usize::try_from(connections).unwrap_or(0),
            })
        };
        let members: Vec<_> = redis.sorted(&names, 10_000).into_iter().filter_map(member).collect();
        let seq = redis.hget(&who, "s").map_or(0, |text| number(&text).cast_unsigned());
        let connections = members.iter().map(|member| member.connections).sum();
        PresenceList { seq, total: members.len(), connections, members }
    }
}

impl OneRedis {
    /// How many seats nodes have told of one user whose leases last.
    fn seats_in(&self, key: &str, leases: &str) -> usize {
        let said = self.redis.hash(key).into_iter().flatten();
        let counts = said.filter_map(|(field, value)| {
            let until = self.redis.zscore(leases, field.strip_prefix('n')?)?;
            (until > self.redis.now_ms as f64)
                .then(|| number(value.split(' ').next().unwrap_or("0")))
        });
        counts.map(|count| usize::try_from(count).unwrap_or(0)).sum()
    }

    /// What nobody should have left behind when all are gone.
    pub(crate) fn left(&self) -> Option<String> {
        let is_left = |key: &&String| key.contains(":over:");
        let key = self.redis.keys.keys().find(is_left)?;
        Some(format!("{key} is left: {:?}", self.redis.keys[key]))
    }
}
