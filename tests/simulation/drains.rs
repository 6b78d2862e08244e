//! What a drain in turn owes to those who are there when it begins: a time of its own for each, over all of the
//! window; and that nobody is left behind it.
//!
//! Who went for another reason counts for nothing here.

use domain::codes::CloseCode;
use domain::drain::DrainMode;

use crate::checker::{Checked, Violation};
use crate::faults::Effect;
use crate::world::World;

/// For how many ms a request that passed the door before a drain may still be on its way to a shard.
pub(crate) const ON_THE_WAY_MS: u64 = 300;

/// How the connections of a shard go that were there when its drain began.
#[derive(Debug)]
pub(crate) struct Parting {
    from_ms: u64,
    until_ms: u64,
    count: u64,
    /// Links that came later have larger numbers.
    links: usize,
    /// When those went that were told to.
    gone_ms: Vec<u64>,
}

impl Parting {
    pub(crate) fn note(&mut self, now_ms: u64, closed: &[(usize, u16)]) {
        let restart = CloseCode::ServiceRestart.number();
        let in_turn = closed.iter().filter(|(link, code)| *link < self.links && *code == restart);
        self.gone_ms.extend(in_turn.map(|_| now_ms));
    }

    /// None went before its time, whatever has delayed some.
    fn check(&self) -> Checked {
        let window = self.until_ms - self.from_ms;
        let spread = window - window.div_ceil(12);
        for (place, at) in (0..).zip(&self.gone_ms) {
            let first_ms = self.from_ms + spread * place / self.count.max(1);
            if *at < first_ms {
                let text = format!("the {place}th went at {at}, not at {first_ms}: {self:?}");
                return Err(Violation::new("I22", text));
            }
        }
        Ok(())
    }
}

impl World {
    /// A shard begins to part with those it has.
    pub(crate) fn begin_parting(&mut self, node: usize, shard: usize, until_ms: u64) {
        let links = self.links.len();
        let sim = &mut self.nodes[node].shards[shard];
        if self.rules.drain_mode == DrainMode::Paced && sim.parting.is_none() {
            let (count, from_ms) = (sim.by_slot.len() as u64, self.now_ms.min(until_ms));
            let gone_ms = Vec::new();
            sim.parting = Some(Parting { from_ms, until_ms, count, links, gone_ms });
        }
    }

    /// A connection is closed: if for a drain, it was told when to come back.
    pub(crate) fn check_told(&self, link: usize, code: u16) -> Checked {
        let side = &self.links[link];
        let Some(client) = self.clients.get(side.client) else { return Ok(()) };
        let is_drained = code == CloseCode::ServiceRestart.number() && client.greeted;
        if is_drained && !side.was_stalled && client.come_back_ms.is_none() {
            let text = format!("client {} is not told when to come back", client.index);
            return Err(Violation::new("I22", text));
        }
        Ok(())
    }

    /// A node that was drained is about to end.
    pub(crate) fn check_drained(&self, node: usize) -> Checked {
        for sim in &self.nodes[node].shards {
            let Some(parting) = &sim.parting else { continue };
            parting.check()?;
            for _ in &parting.gone_ms {
                self.core.lock().counts.effect(Effect::DrainedInTurn);
            }
            if !sim.by_slot.is_empty() && sim.stalled_until_ms + 500 < self.now_ms {
                let text = format!("node {node} still has the links {:?}", sim.by_slot.values());
                return Err(Violation::new("I22", text));
            }
        }
        Ok(())
    }
}
