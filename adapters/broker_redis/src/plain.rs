//! Publishes of which nothing is kept: what comes while others are on their way goes together, as one call.
//!
//! None may wait for company: an idle server is asked at once. One call must not hold a server up, so it is bounded. In a
//! Cluster each goes by itself, since one call is of one slot.

use std::sync::Arc;

use application::ports::Receipt;
use domain::message::Publish;
use domain::policy::{AckLevel, NamespacePolicy};
use domain::room::RoomId;
use redis::{Cmd, Value};
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::time::timeout;

use crate::broker::{RedisBroker, millis, parse, parse_epoch, parse_offset, strange};
use crate::config::Config;
use crate::entry::tail;
use crate::head::packed;
use crate::link::{CallError, Link};
use crate::publish::is_watched;
use crate::servers::Layout;

/// The most that go together: a server is busy with them for less than a millisecond.
const TOGETHER_MAX: usize = 64;
/// How many calls are on their way at a time: while one is carried out the next is written.
pub(crate) const CALLS: usize = 2;

/// One publish, as the script takes it.
struct Plain {
    head: String,
    span: Vec<u8>,
    tail: Vec<u8>,
    channel: String,
    of_namespace: String,
}

struct Waiting {
    plain: Plain,
    answer: oneshot::Sender<Result<Value, CallError>>,
}

/// Those that wait to be written.
pub(crate) struct PlainQueue {
    queue: mpsc::Sender<Waiting>,
    waiting: Mutex<mpsc::Receiver<Waiting>>,
}

impl PlainQueue {
    pub(crate) fn new(config: &Config) -> Self {
        let (queue, waiting) = mpsc::channel(config.calls_max.max(1));
        Self { queue, waiting: Mutex::new(waiting) }
    }
}

impl RedisBroker {
    /// Publishes, if the room is ready for it; none where it is not, and nothing was done.
    pub(crate) async fn call_publish_plain(
        &self,
        publish: &Publish,
        policy: &NamespacePolicy,
    ) -> Result<Option<Receipt>, CallError> {
        let now = publish.at.as_millis();
        let quarter = i64::try_from(millis(self.kept(policy) / 4)).unwrap_or(i64::MAX);
        let plain = Plain {
            head: self.names.head(&publish.room),
            span: packed(&[now.saturating_sub(quarter) as f64, now as f64]),
            tail: tail(publish),
            channel: self.names.room_channel(&publish.room),
            of_namespace: self.namespace_channel_of(&publish.room, policy),
        };
        let answer = match self.commands.servers.layout() {
            Layout::One => self.wait_for_plain(plain).await?,
            Layout::Cluster => {
                let mut answers = self.place_plain(&[plain]).await?;
                answers.pop().ok_or_else(|| strange("an answer"))?
            }
        };
        let Some((epoch, offset)) = parse::<Option<(String, u64)>>(answer)? else {
            return Ok(None);
        };
        Ok(Some(Receipt {
            epoch: parse_epoch(&epoch)?,
            offset: Some(parse_offset(offset)?),
            duplicate: false,
            level: AckLevel::Accepted,
        }))
    }

    /// The channel of those who follow patterns, where there may be any.
    pub(crate) fn namespace_channel_of(&self, room: &RoomId, policy: &NamespacePolicy) -> String {
        match is_watched(room, policy) {
            true => self.names.namespace_channel(room.namespace()),
            false => String::new(),
        }
    }

    async fn wait_for_plain(&self, plain: Plain) -> Result<Value, CallError> {
        // Nobody waits for a server that is away.
        self.commands.link()?;
        let (answer, answered) = oneshot::channel();
        self.plain.queue.try_send(Waiting { plain, answer }).map_err(|_| CallError::Away)?;
        // Behind those that are on their way.
        match timeout(2 * self.config.answer_timeout, answered).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) | Err(_) => Err(CallError::Away),
        }
    }

    /// Has what waits carried out, for as long as it is polled; several may.
    pub(crate) async fn run_plain(self: Arc<Self>) {
        let (mut together, mut plains) = (Vec::new(), Vec::new());
        let mut answers = Vec::new();
        loop {
            let taken = {
                let mut waiting = self.plain.waiting.lock().await;
                waiting.recv_many(&mut together, TOGETHER_MAX).await
            };
            if taken == 0 {
                return;
            }
            // Who does not wait any more has not asked.
            together.retain(|one| !one.answer.is_closed());
            for Waiting { plain, answer } in together.drain(..) {
                plains.push(plain);
                answers.push(answer);
            }
            if plains.is_empty() {
                continue;
            }
            let placed = self.place_plain(&plains).await;
            plains.clear();
            match placed {
                Ok(values) => {
                    let pairs = answers.drain(..).zip(values);
                    pairs.for_each(|(answer, value)| drop(answer.send(Ok(value))));
                }
                Err(error) => {
                    answers.drain(..).for_each(|answer| drop(answer.send(Err(error.clone()))));
                }
            }
        }
    }

    /// All of them in one call: an answer for each.
    async fn place_plain(&self, plains: &[Plain]) -> Result<Vec<Value>, CallError> {
        let link = self.commands.link()?;
        let Some(first) = plains.first() else { return Ok(Vec::new()) };
        let fill = |command: &mut Cmd, link: &Link| {
            command.arg(plains.len());
            for plain in plains {
                command.arg(&plain.head);
            }
            command.arg(link.life_of(&first.head));
            for Plain { span, tail, channel, of_namespace, .. } in plains {
                command.arg(span).arg(tail).arg(channel).arg(of_namespace);
            }
        };
        let script = &self.commands.scripts().publish_plain;
        let values: Vec<Value> = parse(self.commands.run_script(&link, script, fill).await?)?;
        if values.len() == plains.len() { Ok(values) } else { Err(strange("an answer")) }
    }
}
