//! The two ends that an application holds: [`Client`] for what it asks, [`Events`] for what it is
//! told.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use domain::client::{Answer, Ask, PublishOptions, RequestError, SubscribeOptions, Token};
use domain::id::{ClientId, MessageId};
use domain::position::Position;
use domain::principal::RoomPattern;
use domain::protocol::client_event::{Ack, Event, HistoryPage, PresenceState, Status, Subscribed};
use domain::protocol::client_frame::HISTORY_LIMIT_DEFAULT;
use domain::room::RoomId;
use futures_util::stream::Stream;
use serde_json::value::RawValue;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::{Instant, timeout_at};

use crate::dial::{Dial, Target, Tcp};
use crate::error::ConnectError;
use crate::options::{Options, RandomSource};
use crate::task::{Closing, Command, Task};

/// As good as no time-out: no clock gets to its end within a year.
const TIMEOUT_MAX: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// Which earlier messages to ask for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct HistoryOptions {
    /// From where on, exclusive; none means the oldest kept.
    pub since: Option<Position>,
    /// How many at most.
    pub limit: u32,
}

impl Default for HistoryOptions {
    fn default() -> Self {
        Self { since: None, limit: HISTORY_LIMIT_DEFAULT }
    }
}

/// What a client is told, also as a [`Stream`]. When it is dropped, events are thrown away and the connection
/// goes on.
#[derive(Debug)]
pub struct Events(mpsc::Receiver<Event>);

impl Stream for Events {
    type Item = Event;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        self.0.poll_recv(cx)
    }
}

impl Events {
    /// The next event; none when the client has closed. Can be dropped and called again.
    pub async fn next(&mut self) -> Option<Event> {
        self.0.recv().await
    }

    /// The next event if it is there already.
    pub fn try_next(&mut self) -> Option<Event> {
        self.0.try_recv().ok()
    }
}

/// A connection that comes back by itself. Clones share it; dropping the last closes it.
#[derive(Clone, Debug)]
pub struct Client {
    commands: mpsc::Sender<Command>,
    closing: mpsc::Sender<Closing>,
    message_ids: Arc<MessageIds>,
    request_timeout: Duration,
    publish_timeout: Duration,
}

impl Client {
    /// Connects once. Later losses are repaired in the background.
    ///
    /// # Errors
    /// [`ConnectError`] when the options make no sense or the first attempt fails.
    pub async fn connect(options: Options) -> Result<(Self, Events), ConnectError> {
        Self::connect_over(options, Arc::new(Tcp)).await
    }

    pub(crate) async fn connect_over(
        options: Options,
        dial: Arc<dyn Dial>,
    ) -> Result<(Self, Events), ConnectError> {
        let label = options.client_id.clone().or_else(|| draw_label(&options));
        let target = Target::parse(&options.url, label.as_ref())?;
        let (commands, taken) = mpsc::channel(queue_max(options.command_queue_max));
        let (closing, ends) = mpsc::channel(1);
        let (told, events) = mpsc::channel(queue_max(options.event_queue_max));
        let client = Self {
            commands,
            closing,
            message_ids: Arc::new(MessageIds::new(&options.random)),
            request_timeout: options.request_timeout,
            publish_timeout: options.publish_timeout,
        };
        let (first, connected) = oneshot::channel();
        tokio::spawn(Task::new(options, target, dial, (taken, ends), told, first).run());
        match connected.await {
            Ok(result) => result.map(|()| (client, Events(events))),
            Err(_) => Err(ConnectError::TimedOut),
        }
    }

    /// Joins a room, and joins it again after every loss, from where it stood.
    ///
    /// # Errors
    /// [`RequestError`] when the server refuses or does not answer in time, which ends the connection
    /// for another try, or when the client is in that room already.
    pub async fn subscribe(
        &self,
        room: &RoomId,
        options: SubscribeOptions,
    ) -> Result<Subscribed, RequestError> {
        match self.ask(Ask::Subscribe(room.clone(), options)).await? {
            Answer::Subscribed(subscribed) => Ok(subscribed),
            _ => Err(RequestError::WrongAnswer),
        }
    }

    /// Leaves a room. No message of it is told from now on.
    ///
    /// # Errors
    /// [`RequestError`] when the server does not answer in time.
    pub async fn unsubscribe(&self, room: &RoomId) -> Result<(), RequestError> {
        self.ask(Ask::Unsubscribe(room.clone())).await.map(drop)
    }

    /// Follows all rooms of a pattern, such as `game:zone/*`, on this connection and on later ones. Their
    /// messages come with `pattern`, and without what was missed: [`Event::PatternEnded`] tells that none
    /// come, [`Event::Following`] that they do again.
    ///
    /// # Errors
    /// [`RequestError`] when the server refuses or does not answer in time, which ends the connection
    /// for another try, or when the client follows that pattern already.
    pub async fn subscribe_pattern(&self, pattern: &RoomPattern) -> Result<(), RequestError> {
        self.ask(Ask::SubscribePattern(pattern.clone())).await.map(drop)
    }

    /// Follows a pattern no longer. No message of it is told from now on.
    ///
    /// # Errors
    /// [`RequestError`] when the server does not answer in time.
    pub async fn unsubscribe_pattern(&self, pattern: &RoomPattern) -> Result<(), RequestError> {
        self.ask(Ask::UnsubscribePattern(pattern.clone())).await.map(drop)
    }

    /// Publishes JSON. An unanswered publish is sent again on the next connection under the same
    /// message id, so that it ends as one message.
    ///
    /// # Errors
    /// [`RequestError::InvalidJson`]; [`RequestError::OutboxFull`]; [`RequestError::Refused`] with
    /// the server's reason; [`RequestError::NotSent`] when it was not published in time;
    /// [`RequestError::Unanswered`] when it stays unknown what became of it.
    pub async fn publish(
        &self,
        room: &RoomId,
        data: &str,
        mut options: PublishOptions,
    ) -> Result<Ack, RequestError> {
        check_json(data)?;
        let msg_id = match options.msg_id.take() {
            Some(msg_id) => msg_id,
            None => self.message_ids.next()?,
        };
        let not_sent = RequestError::NotSent { msg_id: msg_id.clone() };
        let (room, data) = (room.clone(), data.to_owned());
        let ask = Ask::Publish { room, data, msg_id, options };
        match self.ask_within(ask, self.publish_timeout).await {
            Ok(Answer::Acked(ack)) => Ok(ack),
            Ok(_) => Err(RequestError::WrongAnswer),
            // The task never had it.
            Err(RequestError::TimedOut) => Err(not_sent),
            Err(error) => Err(error),
        }
    }

    /// Asks for earlier messages.
    ///
    /// # Errors
    /// [`RequestError`] when the server refuses or does not answer in time.
    pub async fn history(
        &self,
        room: &RoomId,
        options: HistoryOptions,
    ) -> Result<HistoryPage, RequestError> {
        let HistoryOptions { since, limit } = options;
        match self.ask(Ask::History { room: room.clone(), since, limit }).await? {
            Answer::History(page) => Ok(page),
            _ => Err(RequestError::WrongAnswer),
        }
    }

    /// Asks who is in a room.
    ///
    /// # Errors
    /// [`RequestError`] when the server refuses or does not answer in time.
    pub async fn presence(&self, room: &RoomId) -> Result<PresenceState, RequestError> {
        match self.ask(Ask::Presence(room.clone())).await? {
            Answer::Presence(state) => Ok(state),
            _ => Err(RequestError::WrongAnswer),
        }
    }

    /// Changes what others see of this member: JSON.
    ///
    /// # Errors
    /// [`RequestError`] when the data is not JSON, or the server refuses or does not answer.
    pub async fn presence_update(&self, room: &RoomId, data: &str) -> Result<(), RequestError> {
        check_json(data)?;
        let (room, data) = (room.clone(), data.to_owned());
        self.ask(Ask::PresenceUpdate { room, data }).await.map(drop)
    }

    /// Brings a fresh token, which later connections use too. Answers when it runs out.
    ///
    /// # Errors
    /// [`RequestError`] when the server refuses it or does not answer in time.
    pub async fn refresh(&self, token: Token) -> Result<Option<String>, RequestError> {
        match self.ask(Ask::Refresh(token)).await? {
            Answer::Refreshed(expires_at) => Ok(expires_at),
            _ => Err(RequestError::WrongAnswer),
        }
    }

    /// Sets the token for the next connection, for when the old one ran out in between.
    ///
    /// # Errors
    /// [`RequestError::Closed`].
    pub async fn set_token(&self, token: Token) -> Result<(), RequestError> {
        self.commands.send(Command::SetToken(token)).await.map_err(|_| RequestError::Closed)
    }

    /// Asks how the connection stands.
    ///
    /// # Errors
    /// [`RequestError`] when there is no connection or no answer in time.
    pub async fn status(&self) -> Result<Status, RequestError> {
        match self.ask(Ask::Status).await? {
            Answer::Status(status) => Ok(status),
            _ => Err(RequestError::WrongAnswer),
        }
    }

    /// Waits for the server's answer to a `ping`.
    ///
    /// # Errors
    /// [`RequestError`] when there is no connection or no answer in time.
    pub async fn ping(&self) -> Result<(), RequestError> {
        self.ask(Ask::Ping).await.map(drop)
    }

    /// Closes the connection for good and waits until it is closed.
    pub async fn close(&self) {
        let (reply, closed) = oneshot::channel();
        if self.closing.send(reply).await.is_ok() {
            closed.await.ok();
        }
    }

    async fn ask(&self, ask: Ask) -> Result<Answer, RequestError> {
        self.ask_within(ask, self.request_timeout).await
    }

    /// Once the task has it, the task answers it by its deadline.
    async fn ask_within(&self, ask: Ask, timeout: Duration) -> Result<Answer, RequestError> {
        let deadline = Instant::now() + timeout.min(TIMEOUT_MAX);
        let taken = timeout_at(deadline, self.commands.reserve()).await;
        let place = taken.map_err(|_| RequestError::TimedOut)?;
        let (reply, answer) = oneshot::channel();
        place.map_err(|_| RequestError::Closed)?.send(Command::Ask(ask, deadline, reply));
        answer.await.unwrap_or(Err(RequestError::Closed))
    }
}

/// What a channel of tokio's can be told to hold.
fn queue_max(wanted: usize) -> usize {
    wanted.clamp(1, Semaphore::MAX_PERMITS)
}

fn check_json(data: &str) -> Result<(), RequestError> {
    serde_json::from_str::<&RawValue>(data).map(drop).map_err(RequestError::InvalidJson)
}

/// 128 random bits, as hexadecimal digits.
fn draw_name(random: &RandomSource) -> String {
    format!("{:016x}{:016x}", random.draw(), random.draw())
}

/// What an anonymous client is called on every connection. A server that had to make a name up for each
/// would take a publish that is repeated on the next one for another client's.
fn draw_label(options: &Options) -> Option<ClientId> {
    if options.token.is_some() { None } else { ClientId::parse(&draw_name(&options.random)).ok() }
}

/// Fresh message ids: 128 random bits that name the client, and a counter.
#[derive(Debug)]
struct MessageIds {
    prefix: String,
    last: AtomicU64,
}

impl MessageIds {
    fn new(random: &RandomSource) -> Self {
        Self { prefix: draw_name(random), last: AtomicU64::new(0) }
    }

    fn next(&self) -> Result<MessageId, RequestError> {
        let number = self.last.fetch_add(1, Ordering::Relaxed) + 1;
        // Hexadecimal digits and a hyphen are always an id.
        MessageId::parse(&format!("{}-{number:x}", self.prefix)).map_err(|_| RequestError::Closed)
    }
}
