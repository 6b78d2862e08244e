//! Which nodes are there, and over which of them a user is connected, as their leases and seats say.
//!
//! It must never name one whose lease is over, and never take what can't be asked now for nobody.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use domain::id::UserId;
use redis::Cmd;

use crate::batch::Batch;
use crate::broker::{RedisBroker, parse};
use crate::link::{CallError, Link};

/// The most nodes that are looked at.
const NODES_MAX: usize = 1_000;

/// What time it is there, and whose lease lasts until when.
type Live = (f64, Vec<(String, f64)>);
/// What nodes said of a user.
type Seats = BTreeMap<String, String>;

impl RedisBroker {
    /// The names under which the others speak whose leases last.
    pub(crate) async fn others(&self, link: &Arc<Link>) -> Result<BTreeSet<String>, CallError> {
        let own = self.present.name_over(link);
        let (now, live) = self.live(link).await?;
        let there =
            live.into_iter().filter(|(name, until)| *until > now && Some(name) != own.as_ref());
        Ok(there.map(|(name, _)| name).collect())
    }

    /// The same, of those over which a user is connected.
    pub(crate) async fn others_of(
        &self,
        link: &Arc<Link>,
        user: &UserId,
    ) -> Result<BTreeSet<String>, CallError> {
        let own = self.present.name_over(link);
        let seats = self.seats_of(link, user).await?.into_iter();
        let others = seats.filter(|(name, count)| *count > 0 && Some(name) != own.as_ref());
        Ok(others.map(|(name, _)| name).collect())
    }

    /// What time it is there, and who is there until when.
    async fn live(&self, link: &Arc<Link>) -> Result<Live, CallError> {
        let [nodes, _] = self.names.nodes();
        let fill = |command: &mut Cmd, _: &Link| {
            command.arg(1).arg(&nodes).arg(NODES_MAX);
        };
        let script = &self.commands.scripts().live;
        parse(self.commands.run_script(link, script, fill).await?)
    }

    /// Who is there, and what they said of a user: one call where one server has both.
    async fn live_and_seats(&self, link: &Arc<Link>, user: &UserId) -> Option<(Live, Seats)> {
        let [nodes, _] = self.names.nodes();
        let script = &self.commands.scripts().live;
        let mut batch = Batch::default();
        let mut live = redis::cmd("EVALSHA");
        live.arg(script.get_hash()).arg(1).arg(&nodes).arg(NODES_MAX);
        batch.ask(live);
        let mut seats = redis::cmd("HGETALL");
        seats.arg(self.names.seats(user));
        batch.ask(seats);
        let answers = self.commands.run_batch(link, &batch).await;
        let mut answers = answers.into_iter();
        let (live, seats) = (answers.next()?.ok()?, answers.next()?.ok()?);
        Some((parse(live).ok()?, parse(seats).ok()?))
    }

    /// How many connections a user has over each node that is there.
    pub(crate) async fn seats_of(
        &self,
        link: &Arc<Link>,
        user: &UserId,
    ) -> Result<Vec<(String, u32)>, CallError> {
        let ((now, live), seats) = match self.live_and_seats(link, user).await {
            Some(both) => both,
            // Where one of them is on its way each is asked for by itself.
            None => {
                let live = self.live(link).await?;
                let fill = |command: &mut Cmd| {
                    command.arg("HGETALL").arg(self.names.seats(user));
                };
                (live, self.commands.ask_for(link, fill).await?)
            }
        };
        let there = live.into_iter().filter(|(_, until)| *until > now);
        let counted = there.map(|(node, _)| {
            let said = seats.get(&format!("n{node}")).and_then(|said| said.split_once(' '));
            let count = said.and_then(|(count, _)| count.parse().ok()).unwrap_or_default();
            (node, count)
        });
        Ok(counted.collect())
    }
}
