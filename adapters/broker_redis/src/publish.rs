//! How a publish gets its place: one call of one script.
//!
//! It must never be made twice: only its publisher knows whether it may be repeated.

use std::sync::Arc;

use application::ports::Receipt;
use application::use_cases::authenticate::OWN_ROOMS;
use bytes::Bytes;
use domain::delivery::Class;
use domain::message::{Publish, Publisher};
use domain::policy::{AckLevel, NamespacePolicy};
use domain::room::RoomId;
use redis::{Cmd, Value};

use crate::broker::{More, RedisBroker, millis, parse, parse_epoch, parse_offset, strange};
use crate::durable::Unfit;
use crate::entry::tail;
use crate::link::{CallError, Link};

/// What Redis gave a publish.
pub(crate) struct Placed {
    pub(crate) receipt: Receipt,
    /// What lies at the place of one that was published before, in a durable room; empty where nothing does.
    pub(crate) entry: Bytes,
}

/// What came of a publish. Only with a place anything was done.
pub(crate) enum Step {
    Placed(Placed),
    /// The next life of a durable room has to begin first.
    Begin(Unfit),
    /// The archive is to be asked first whether it has it.
    Ask,
}

impl RedisBroker {
    /// Publishes once, and stores what is to be durable.
    pub(crate) async fn call_publish(
        &self,
        publish: Publish,
        policy: &Arc<NamespacePolicy>,
    ) -> Result<Receipt, CallError> {
        if let Some(durable) = self.durable_of(policy) {
            return self.publish_durable(durable, publish, policy).await;
        }
        let is_kept = publish.class != Class::Reliable
            || publish.msg_id.is_some()
            || policy.replicated
            || publish.fence.is_some()
            || policy.retention.messages_max > 0;
        if !is_kept && let Some(receipt) = self.call_publish_plain(&publish, policy).await? {
            return Ok(receipt);
        }
        match self.position(&publish, policy, false).await? {
            Step::Placed(placed) => Ok(placed.receipt),
            Step::Begin(_) | Step::Ask => Err(strange("an answer")),
        }
    }

    /// Gives a publish its position. `is_asked` says that the archive of a durable room does not have it.
    pub(crate) async fn position(
        &self,
        publish: &Publish,
        policy: &NamespacePolicy,
        is_asked: bool,
    ) -> Result<Step, CallError> {
        let (link, fresh) = self.link_and_epoch()?;
        // What has no place in the log is of no use to whoever takes over. What the archive has needs no replica.
        let is_replicated = policy.replicated
            && publish.class == Class::Reliable
            && self.durable_of(policy).is_none();
        let level = if is_replicated { AckLevel::Replicated } else { AckLevel::Accepted };
        let name =
            publish.msg_id.as_ref().map(|id| format!("{}\n{id}", publish.publisher.to_key()));
        // Only a user's connection has one.
        let fenced = publish.fence.and_then(|fence| match &publish.publisher {
            Publisher::User(user) => Some((fence.get().to_string(), self.names.seats(user))),
            Publisher::Client(_) | Publisher::ApiKey(_) => None,
        });
        let (fence, key_of_user) = fenced.unzip();
        let of_namespace = self.namespace_channel_of(&publish.room, policy);
        let class = format!(
            "{}{}{}",
            &publish.class.word()[..1],
            if level == AckLevel::Replicated { "w" } else { "" },
            if is_asked { "a" } else { "" }
        );
        let fill = |command: &mut Cmd, link: &Link| {
            let numbers = [
                publish.data.len() as f64,
                millis(self.config.dedup_window) as f64,
                self.config.dedup_entries_max as f64,
            ];
            let more = More { key: key_of_user.as_ref(), numbers: &numbers };
            let policy_and_time = (policy, publish.at);
            self.begin_with(command, (link, fresh), &publish.room, policy_and_time, &more);
            command
                .arg(&class)
                .arg(tail(publish))
                .arg(name.as_deref().unwrap_or_default())
                .arg(self.names.room_channel(&publish.room));
            // Each argument costs the server as much as a step of the script, and most publishes have none of these.
            let rest = match (&fence, &publish.key) {
                (Some(_), _) => 3,
                (None, Some(_)) => 2,
                (None, None) => usize::from(!of_namespace.is_empty()),
            };
            let key = publish.key.as_ref().map_or_else(String::new, |key| format!("k{key}"));
            let optional = [&of_namespace, &key, fence.as_ref().unwrap_or(&key)];
            command.arg(&optional[..rest]);
        };
        let script = &self.commands.scripts().publish;
        let answer = match level {
            AckLevel::Replicated => self.commands.run_replicated(&link, script, fill).await,
            AckLevel::Accepted | AckLevel::Durable => {
                self.commands.run_script(&link, script, fill).await
            }
        };
        if answer == Err(CallError::Unfenced) {
            self.unfenced.notify_one();
        }
        step(answer?, level)
    }
}

/// Whether somebody may be there by a prefix: a pattern, or the rooms of all users, which nodes follow so.
pub(crate) fn is_watched(room: &RoomId, policy: &NamespacePolicy) -> bool {
    policy.patterns || room.as_str().starts_with(OWN_ROOMS)
}

fn step(answer: Value, level: AckLevel) -> Result<Step, CallError> {
    if let Value::SimpleString(words) = &answer {
        return match Unfit::parse(words) {
            Some(unfit) => Ok(Step::Begin(unfit)),
            None if words == "ASK" => Ok(Step::Ask),
            None => Err(strange("an answer")),
        };
    }
    let (epoch, offset, duplicate, entry): (String, u64, u8, Vec<u8>) = parse(answer)?;
    let receipt = Receipt {
        epoch: parse_epoch(&epoch)?,
        offset: if offset == 0 { None } else { Some(parse_offset(offset)?) },
        duplicate: duplicate == 1,
        level,
    };
    Ok(Step::Placed(Placed { receipt, entry: entry.into() }))
}
