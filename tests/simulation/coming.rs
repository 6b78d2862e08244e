//! How clients and writers come, find out that nobody is there any more, and come back.
//!
//! A client must never be told by anything but its connection that it is without one.

use application::shard::{Input, Opening};
use application::view::View;
use domain::client::life::Lost;
use domain::id::ClientId;

use crate::client::Client;
use crate::drains::ON_THE_WAY_MS;
use crate::faults::Effect;
use crate::links::{Link, Up};
use crate::nodes::SimNode;
use crate::world::{Event, World};

impl World {
    /// A client is without a connection: it comes back as it sees fit.
    pub(crate) fn part(&mut self, client: usize, lost: Lost) {
        if let Some(writer) = self.writer_of(client) {
            let away_ms = self.rng.between(20, 1_200);
            return self.writer_parts(writer, away_ms);
        }
        let Some(link) = self.clients[client].link else { return };
        self.links[link].client_open = false;
        self.play(client, |client, scene| client.lost(lost, scene));
    }

    pub(crate) fn connect(&mut self, client: usize) {
        if self.link_of(client).is_some() || !self.sets_out(client) {
            return;
        }
        // Where nodes drain in turn somebody may have passed the door just before.
        let passes =
            |node: &SimNode| self.is_over_redis() && self.now_ms - node.drained_ms < ON_THE_WAY_MS;
        let ready = |(_, node): &(usize, &SimNode)| node.alive && (!node.draining || passes(node));
        let ready: Vec<usize> =
            self.nodes.iter().enumerate().filter(ready).map(|(number, _)| number).collect();
        if ready.is_empty() {
            if self.writer_of(client).is_none() {
                let lost = Lost::broken("nobody is there");
                return self.play(client, |client, scene| client.lost(lost, scene));
            }
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
        let token = self.clients[client].machine.header_token().map(|t| t.as_str().to_owned());
        let opening = Opening { token: token.clone(), ..opening };
        self.clients[client].link = Some(link);
        self.input(node, shard, Input::Opened(slot, opening));
        if is_late {
            self.core.lock().counts.effect(Effect::NewcomerSentOn);
        }
        if let Some(token) = token.filter(|_| self.clients[client].once) {
            self.show(link, &token);
        }
        self.play(client, Client::opened);
    }

    /// Whether somebody is on its way to a node. A client is once it says so; one that rests is begun by its user.
    fn sets_out(&mut self, client: usize) -> bool {
        let Some(side) = self.clients.get(client) else { return true };
        let is_dialing = side.is_dialing;
        if side.rests && !side.leaving {
            self.play(client, Client::start);
        }
        is_dialing
    }

    /// A writer that hears nothing for long takes its connection for dead. A client sees to that itself.
    pub(crate) fn watch(&mut self, writer: usize) {
        let client = self.clients.len() + writer;
        let silent = self.now_ms.saturating_sub(self.writers[writer].heard_ms) > 9_000;
        if silent && let Some(link) = self.link_of(client) {
            self.send_up(link, Up::Closed);
            self.part(client, Lost::broken("silence"));
        }
        if !self.leaving {
            self.queue.push(self.now_ms + 3_000, Event::Watch { writer });
        }
    }
}
