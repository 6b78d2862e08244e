//! Taking back what a node said of members that is gone.
//!
//! A lease that has run out is claimed first, for good; from then on its node can't speak under that name. Any
//! node goes on where another stopped. Nothing may be claimed right after a loss that all nodes had.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use application::planted::{Mistake, is_planted};
use domain::room::RoomId;
use redis::{Cmd, Value};
use tokio::time::timeout;

use crate::batch::Batch;
use crate::broker::{RedisBroker, millis};
use crate::link::{CallError, Link};
use crate::presence::GONE_MAX;
use crate::sparing::Sparing;

/// The most rooms of one pipeline, and the most members that one call takes out of a room: a quarter of a
/// second of Redis at most.
const REAP_ROOMS: usize = 64;
const REAP_MEMBERS_MAX: usize = 128;
/// For how long what a node that is gone had sent may still come.
const LATE_MAX: Duration = Duration::from_secs(600);

/// Each look may fail.
static LEFT: Sparing = Sparing::new();

impl RedisBroker {
    /// Takes back what nodes said that are gone. Only behind a connection that has stood for a lease: after a
    /// loss that all nodes had, each has to have had the time to renew its own. What this node said under a
    /// former name, and has said again, waits for nothing.
    pub(crate) async fn clean_up(&self) {
        loop {
            let rung = timeout(self.config.lease / 5, self.present.said_again.notified()).await;
            let Ok(link) = self.commands.link() else { continue };
            let mut over = self.present.take_said_again().await;
            for name in &over {
                self.run_out(&link, name).await;
                self.allow_reaping(&link, name).await;
            }
            let has_stood =
                link.since.elapsed() >= self.config.lease || is_planted(Mistake::ClaimedAtOnce);
            // A ring is for a name of its own: others have their turn with the next look.
            if over.is_empty() && (rung.is_ok() || !has_stood) {
                continue;
            }
            if has_stood {
                let mut seen = self.present.over.lock().unwrap_or_else(PoisonError::into_inner);
                over.append(&mut seen);
            }
            if let Err(error) = self.claim_and_reap(&link, over).await
                && let Some(left_out) = LEFT.turn()
            {
                tracing::warn!(%error, left_out, "behind a node that is gone something is left for now");
            }
        }
    }

    async fn claim_and_reap(&self, link: &Arc<Link>, over: Vec<String>) -> Result<(), CallError> {
        let [nodes, gone] = self.names.nodes();
        let mut failed = None;
        for node in over {
            if is_planted(Mistake::ReapedUnclaimed) {
                self.reap(link, &node).await?;
                continue;
            }
            // One that can't be claimed does not keep the others.
            failed = self.claim(link, [&nodes, &gone], &node).await.err().or(failed);
        }
        let fill = |command: &mut Cmd| {
            command.arg("SRANDMEMBER").arg(&gone).arg(GONE_MAX);
        };
        let all: Vec<String> = self.commands.ask_for(link, fill).await?;
        for node in all {
            failed = self.reap(link, &node).await.err().or(failed);
        }
        failed.map_or(Ok(()), Err)
    }

    async fn claim(
        &self,
        link: &Arc<Link>,
        keys: [&String; 2],
        node: &str,
    ) -> Result<(), CallError> {
        let late = |command: &mut Cmd| {
            let key = self.names.late_of(node);
            command.arg("SET").arg(key).arg("1").arg("PX").arg(millis(LATE_MAX));
        };
        self.commands.ask_for::<String>(link, late).await?;
        let fill = |command: &mut Cmd, _: &Link| {
            command.arg(2).arg(&keys[..]).arg(node);
        };
        self.commands.run_script(link, &self.commands.scripts().claim, fill).await.map(drop)
    }

    /// Takes back what a node said that is gone. One does it at a time, and another goes on where it stopped. For a
    /// while it is looked at again: what a network kept back may come when everything was taken back.
    async fn reap(&self, link: &Arc<Link>, node: &str) -> Result<(), CallError> {
        let lock = |command: &mut Cmd| {
            let ms = millis(self.config.lease);
            command.arg("SET").arg(self.names.reaper_of(node)).arg("1").arg("NX").arg("PX").arg(ms);
        };
        if self.commands.ask_for::<Option<String>>(link, lock).await?.is_none() {
            return Ok(());
        }
        let rooms_key = self.names.rooms_of(node);
        let mut said_something = false;
        loop {
            let fill = |command: &mut Cmd| {
                command.arg("SRANDMEMBER").arg(&rooms_key).arg(REAP_ROOMS);
            };
            let rooms: Vec<String> = self.commands.ask_for(link, fill).await?;
            if rooms.is_empty() {
                break;
            }
            said_something = true;
            self.reap_rooms(link, node, &rooms_key, &rooms).await?;
        }
        if said_something {
            tracing::warn!(node, "a node is gone; who was here over it has left");
        }
        let late = |command: &mut Cmd| {
            command.arg("EXISTS").arg(self.names.late_of(node));
        };
        if self.commands.ask_for::<u8>(link, late).await? == 1 {
            return Ok(());
        }
        let [_, gone] = self.names.nodes();
        let forget = |command: &mut Cmd| {
            command.arg("SREM").arg(&gone).arg(node);
        };
        self.commands.ask_for::<i64>(link, forget).await?;
        self.allow_reaping(link, node).await;
        Ok(())
    }

    /// Takes it back in some rooms; an error where it could be in none of them. Those that lie elsewhere now have their
    /// turn when others are done.
    async fn reap_rooms(
        &self,
        link: &Arc<Link>,
        node: &str,
        rooms_key: &str,
        rooms: &[String],
    ) -> Result<(), CallError> {
        let script = &self.commands.scripts().presence_reap;
        let (mut batch, mut empty) = (Batch::default(), Vec::new());
        let mut asked = Vec::with_capacity(rooms.len());
        for room in rooms {
            let Ok(id) = RoomId::parse(room) else {
                empty.push(room);
                continue;
            };
            let mut command = redis::cmd("EVALSHA");
            command.arg(script.get_hash()).arg(5);
            for name in self.names.presence_keys(&id, node) {
                command.arg(name);
            }
            command.arg(REAP_MEMBERS_MAX).arg(self.names.room_channel(&id)).arg(room);
            batch.ask(command);
            asked.push(room);
        }
        let mut command = redis::cmd("PEXPIRE");
        command.arg(self.names.reaper_of(node)).arg(millis(self.config.lease));
        batch.tell(command);
        let answers = self.commands.run_batch(link, &batch).await;
        let (mut failed, mut has_moved) = (None, !empty.is_empty());
        for (room, answer) in asked.into_iter().zip(answers) {
            has_moved |= answer.is_ok();
            match answer {
                Ok(Value::Int(0)) => empty.push(room),
                Ok(_) => {}
                Err(error) => failed = Some(error),
            }
        }
        if let (false, Some(error)) = (has_moved, failed) {
            return Err(error);
        }
        if empty.is_empty() {
            return Ok(());
        }
        let fill = |command: &mut Cmd| {
            command.arg("SREM").arg(rooms_key).arg(&empty);
        };
        self.commands.ask_for::<i64>(link, fill).await.map(drop)
    }
}
