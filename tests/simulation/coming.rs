//! How clients and writers come, find out that nobody is there any more, and come back.
//!
//! A client must never be told by anything but its connection that it is without one.

use application::shard::{Input, Opening};
use application::view::View;
use domain::id::ClientId;

use crate::drains::ON_THE_WAY_MS;
use crate::faults::Effect;
use crate::links::{Link, Up};
use crate::nodes::SimNode;
use crate::world::{Event, World};

impl World {
    /// A client is without a connection, and comes back after a while.
    pub(crate) fn part(&mut self, client: usize) {
        if let Some(writer) = self.writer_of(client) {
            let away_ms = self.rng.between(20, 1_200);
            return self.writer_parts(writer, away_ms);
        }
        let Some(link) = self.clients[client].link else { return };
        self.links[link].client_open = false;
        self.clients[client].disconnected();
        let told = self.clients[client].come_back_ms.take().unwrap_or(0);
        if !self.clients[client].leaving && !self.clients[client].rests {
            let at = self.now_ms + told + self.rng.between(20, 1_200);
            self.queue.push(at, Event::Connect { client });
        }
    }

    pub(crate) fn connect(&mut self, client: usize) {
        if self.link_of(client).is_some() {
            return;
        }
        self.clients.get_mut(client).into_iter().for_each(|client| client.rests = false);
        // Where nodes drain in turn somebody may have passed the door just before.
        let passes =
            |node: &SimNode| self.is_over_redis() && self.now_ms - node.drained_ms < ON_THE_WAY_MS;
        let ready = |(_, node): &(usize, &SimNode)| node.alive && (!node.draining || passes(node));
        let ready: Vec<usize> =
            self.nodes.iter().enumerate().filter(ready).map(|(number, _)| number).collect();
        if ready.is_empty() {
            let at = self.now_ms + self.rng.between(50, 400);
            return self.queue.push(at, Event::Connect { client });
        }
        let node = *self.rng.pick(&ready);
        let is_late = self.nodes[node].draining;
        let host = &mut self.nodes[node];
        let shard = self.rng.index(host.shards.len());
        let connection = host.node.connection_id().expect("a seed never runs dry");
        let sim = &mut host.shards[shard];
        let slot = sim.shard.reserve();
        let link = self.links.len();
        self.links.push(Link::new(client, node, shard, slot, connection));
        sim.by_slot.insert(slot, link);
        let label = ClientId::parse(&format!("client-{client}")).expect("a good label");
        let opening = Opening {
            connection,
            client: label,
            token: None,
            conflicting_tokens: false,
            view: View::V2,
            address: None,
            place: None,
        };
        if let Some(writer) = self.writer_of(client) {
            let opening = self.writers[writer].opening(opening, self.now_ms);
            self.writer_came(writer, link);
            return self.input(node, shard, Input::Opened(slot, opening));
        }
        let resumes = self.clients[client].may_resume() && self.rng.percent(50);
        let has_ticket = self.clients[client].session.is_some();
        let with_ticket = resumes && has_ticket && self.rng.percent(60);
        let token = self.clients[client].token(self.now_ms).filter(|_| !with_ticket);
        let opening = Opening { token: token.clone(), ..opening };
        self.clients[client].link = Some(link);
        self.clients[client].heard_ms = self.now_ms;
        self.input(node, shard, Input::Opened(slot, opening));
        if is_late {
            self.core.lock().counts.effect(Effect::NewcomerSentOn);
        }
        if let Some(token) = token.filter(|_| self.clients[client].once) {
            self.show(link, &token);
        }
        if resumes {
            let said = self.scene(client, |client, scene| {
                client.resume(with_ticket, scene);
                Ok(())
            });
            debug_assert!(said.is_ok(), "nothing was heard");
        }
    }

    /// A client that hears nothing for long takes its connection for dead.
    pub(crate) fn watch(&mut self, client: usize) {
        let (heard_ms, leaving) = match self.writer_of(client) {
            Some(writer) => (self.writers[writer].heard_ms, self.leaving),
            None => (self.clients[client].heard_ms, self.clients[client].leaving),
        };
        let silent = self.now_ms.saturating_sub(heard_ms) > 9_000;
        if silent && let Some(link) = self.link_of(client) {
            self.send_up(link, Up::Closed);
            self.part(client);
        }
        if !leaving {
            self.queue.push(self.now_ms + 3_000, Event::Watch { client });
        }
    }
}
