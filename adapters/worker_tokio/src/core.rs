//! The shard and its sockets together, as the tasks of one thread share them.
//!
//! Every borrow ends before anything waits. Mail is taken only while nothing is left to send, so
//! that what waits stays bounded by the mailbox.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use application::mailbox::{Control, NewServices, Post};
use application::metrics::ShardMetrics;
use application::ports::Clock;
use application::services::Services;
use application::shard::{CallFuture, ColdCall, Completion, Input, Opening, Outcome, Shard, Slot};
use bytes::Bytes;
use domain::stalls::Stalls;
use domain::time::{Monotonic, Now};
use tls_rustls::Session;
use tokio::net::TcpStream;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::{spawn_local, yield_now};
use websocket_codec::Limits;

use crate::clock::SystemClock;
use crate::heart;
use crate::reader::Reader;
use crate::sealed::Sealed;
use crate::sockets::Sockets;
use crate::worker::{Accepted, Config, begin};
use crate::writer;

/// After this long of sending a worker looks at its sockets again.
const TURN: Duration = Duration::from_millis(1);
/// Sockets taken over before mail is looked at again.
const ACCEPTED_PER_TURN: usize = 64;
/// One buffer for all reads of a worker.
const READ_BUFFER_BYTES: usize = 64 << 10;

/// See the module's text.
pub(crate) struct Core {
    shard: RefCell<Shard>,
    pub(crate) sockets: RefCell<Sockets>,
    /// Where every read of this worker goes first.
    pub(crate) read_buffer: RefCell<Box<[u8]>>,
    /// Where a read of a connection with TLS goes next, without its seal.
    pub(crate) unsealed: RefCell<Vec<u8>>,
    clock: Arc<SystemClock>,
    /// Of the frames that clients send.
    limits: Cell<Limits>,
    pub(crate) config: Config,
    connections: Arc<AtomicUsize>,
    pub(crate) metrics: Arc<ShardMetrics>,
    /// True once the node drains, for what has no place in the shard.
    draining: watch::Sender<bool>,
    /// What the loop waits for besides its own inputs; none while it is awake and will look
    /// itself.
    asleep: Cell<Option<Sleep>>,
    /// Wakes the loop when a step of another task has changed that.
    news: Notify,
    /// When the heart beat last, or was seen to be late.
    beat_at: Cell<Monotonic>,
}

/// What was begun on a socket before it came here.
pub(crate) struct Begun<'a> {
    /// Read, and not looked at.
    pub(crate) early: &'a [u8],
    /// To be sent before anything else.
    pub(crate) answer: Bytes,
}

/// The loop sleeps until this, if anything.
#[derive(Clone, Copy)]
struct Sleep(Option<Monotonic>);

impl Core {
    pub(crate) fn new(
        shard: Shard,
        services: &Services,
        clock: Arc<SystemClock>,
        config: Config,
        connections: Arc<AtomicUsize>,
    ) -> Self {
        let limits = &services.rules.limits;
        let codec = codec_limits(limits);
        let metrics = Arc::clone(shard.metrics());
        let sockets = Sockets::new(
            limits.outbound_queue_bytes_max,
            config.outbound_total_bytes_max,
            Arc::clone(&metrics),
        );
        Self {
            shard: RefCell::new(shard),
            sockets: RefCell::new(sockets),
            read_buffer: RefCell::new(vec![0; READ_BUFFER_BYTES].into_boxed_slice()),
            unsealed: RefCell::default(),
            clock,
            limits: Cell::new(codec),
            config,
            connections,
            metrics,
            draining: watch::Sender::new(false),
            asleep: Cell::new(None),
            news: Notify::new(),
            beat_at: Cell::new(Monotonic::START),
        }
    }

    /// What a client may send, as it counts now.
    pub(crate) fn limits(&self) -> Limits {
        self.limits.get()
    }

    pub(crate) fn now(&self) -> Now {
        self.clock.now()
    }

    /// Runs until the inlet is closed and the last connection is gone.
    pub(crate) async fn run(self: Rc<Self>, mut inlet: mpsc::Receiver<Accepted>) {
        self.beat_at.set(self.now().monotonic);
        spawn_local(heart::beat(Rc::clone(&self)));
        // What the shard asks for before anybody comes.
        self.start_calls();
        let mailbox = Arc::clone(self.shard.borrow().mailbox());
        let mut post = Post::default();
        let (mut open, mut accepted) = (true, Vec::new());
        loop {
            // Under load the loop never sleeps: deadlines and new sockets must not wait for that.
            self.keep_time();
            for _ in 0..ACCEPTED_PER_TURN {
                let Ok(socket) = inlet.try_recv() else { break };
                begin(&self, socket);
            }
            let more = self.turn(&mut post);
            if !open && self.connections.load(Ordering::Relaxed) == 0 {
                return;
            }
            if more {
                yield_now().await;
                continue;
            }
            let deadline = self.shard.borrow().next_deadline();
            self.asleep.set(Some(Sleep(deadline)));
            let deadline =
                deadline.map(|at| tokio::time::Instant::from_std(self.clock.instant(at)));
            let tick = async {
                match deadline {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = mailbox.arrival() => {}
                () = self.news.notified() => {}
                n = inlet.recv_many(&mut accepted, ACCEPTED_PER_TURN), if open => {
                    open = n > 0;
                    for accepted in accepted.drain(..) {
                        begin(&self, accepted);
                    }
                }
                // While draining, the end of the last connection is looked for now and then.
                () = tokio::time::sleep(Duration::from_millis(20)), if !open => {}
                () = tick => self.handle(Input::Tick),
            }
            self.asleep.set(None);
        }
    }

    /// Ticks, if the time for it has come.
    fn keep_time(self: &Rc<Self>) {
        let deadline = self.shard.borrow().next_deadline();
        if deadline.is_some_and(|at| at <= self.now().monotonic) {
            self.handle(Input::Tick);
        }
    }

    /// Takes orders and mail and sends for one turn. Answers whether there is more to send.
    fn turn(self: &Rc<Self>, post: &mut Post) -> bool {
        let (orders, backlog) = {
            let shard = self.shard.borrow();
            (shard.mailbox().take_orders(), shard.has_backlog())
        };
        for order in orders {
            match &order {
                Control::Drain { .. } => {
                    self.draining.send_replace(true);
                }
                Control::Adopt(NewServices(services)) => self.adopt(&services.rules.limits),
                Control::Disconnect(..)
                | Control::DisconnectUser(..)
                | Control::Revoke(_)
                | Control::PutOut(..)
                | Control::Ring(_)
                | Control::Inquire(_) => {}
            }
            self.handle(Input::Order(order));
        }
        if !backlog {
            self.shard.borrow().mailbox().take(post);
            if !post.is_empty() {
                self.handle(Input::Mail(post));
            }
        }
        let begun = Instant::now();
        let mut spent = None;
        while self.shard.borrow().has_backlog() {
            self.handle(Input::Continue);
            let elapsed = begun.elapsed();
            spent = Some(elapsed);
            if elapsed >= TURN {
                break;
            }
        }
        if let Some(spent) = spent {
            self.metrics.turn.observe(spent);
        }
        self.shard.borrow().has_backlog()
    }

    /// Takes over those of a node's limits that count for sockets.
    fn adopt(&self, limits: &application::limits::Limits) {
        self.limits.set(codec_limits(limits));
        self.sockets.borrow_mut().set_queue_bytes_max(limits.outbound_queue_bytes_max);
    }

    /// Gives the shard one input, and starts what it wants done elsewhere.
    pub(crate) fn handle(self: &Rc<Self>, input: Input<'_>) {
        self.step(input);
        self.start_calls();
        self.start_writers();
    }

    /// A sign of life.
    pub(crate) fn beat(&self) {
        let now = self.now();
        self.note_lateness(&mut self.shard.borrow_mut(), now);
        self.beat_at.set(now.monotonic);
        // 0 means that it never beat.
        self.metrics.beat_ms.set(now.monotonic.as_millis().max(1));
    }

    /// Tells the shard if this thread did not get around to anything for a while.
    fn note_lateness(&self, shard: &mut Shard, now: Now) {
        let stall = Stalls::seen(self.beat_at.get(), heart::INTERVAL, now.monotonic);
        if let Some(span) = stall {
            self.beat_at.set(now.monotonic);
            shard.handle(Input::Stalled(span), now, &mut *self.sockets.borrow_mut());
        }
    }

    fn step(&self, input: Input<'_>) {
        let now = self.clock.now();
        let mut shard = self.shard.borrow_mut();
        // Behind a stall deadlines come before what lies unread in the sockets, so they move first.
        if matches!(input, Input::Tick) {
            self.note_lateness(&mut shard, now);
        }
        shard.handle(input, now, &mut *self.sockets.borrow_mut());
        // Readers and calls step the shard while the loop sleeps: what they leave to send, and a
        // deadline sooner than the one it sleeps until, must not wait for its next input.
        if let Some(Sleep(until)) = self.asleep.get() {
            let sooner = |at| until.is_none_or(|until| at < until);
            if shard.has_backlog() || shard.next_deadline().is_some_and(sooner) {
                self.asleep.set(None);
                self.news.notify_one();
            }
        }
    }

    fn start_calls(self: &Rc<Self>) {
        loop {
            let Some(call) = self.shard.borrow_mut().poll_call() else { return };
            self.metrics.calls_in_flight.add(1);
            spawn_local(Rc::clone(self).run_calls(call, Instant::now()));
        }
    }

    pub(crate) fn start_writers(self: &Rc<Self>) {
        loop {
            let Some(work) = self.sockets.borrow_mut().poll_work() else { return };
            writer::start(self, work);
        }
    }

    /// Runs a call, and the next of the same connection behind it without going to sleep in
    /// between: so publishes that came together leave together.
    async fn run_calls(self: Rc<Self>, mut call: ColdCall, mut begun: Instant) {
        loop {
            let outcome = Guarded(call.future).await;
            let ended = Instant::now();
            self.count(&outcome, ended - begun);
            begun = ended;
            let tag = call.tag;
            self.step(Input::Completed(Completion { tag, outcome }));
            let next = self.shard.borrow_mut().poll_call();
            self.start_calls();
            self.start_writers();
            match next {
                Some(next) => call = next,
                None => {
                    self.metrics.calls_in_flight.sub(1);
                    return;
                }
            }
        }
    }

    fn count(&self, outcome: &Outcome, took: Duration) {
        match outcome {
            Outcome::Published { .. } => self.metrics.publish_latency.observe(took),
            Outcome::Authenticated { .. } | Outcome::Refreshed(_) => {
                self.metrics.authentication_latency.observe(took);
            }
            Outcome::Panicked => self.metrics.calls_panicked.add(1),
            _ => {}
        }
    }

    /// Takes a socket into the table and tells the shard.
    pub(crate) fn open(
        self: &Rc<Self>,
        stream: TcpStream,
        tls: Option<Box<Session>>,
        begun: Begun<'_>,
        opening: Opening,
        permit: Option<Box<dyn Any + Send>>,
    ) {
        let slot = self.shard.borrow_mut().reserve();
        let connection = opening.connection;
        let (seal, counted) = (tls.map(Sealed::new), self.counted(permit));
        let Begun { early, answer } = begun;
        let way = (stream, seal.clone());
        let (read_half, gate) =
            self.sockets.borrow_mut().insert(slot, connection, way, answer, counted);
        self.handle(Input::Opened(slot, opening));
        // Behind the call that the opening started, if any: what that says at once leaves with the answer.
        spawn_local(Reader::new(Rc::clone(self), slot, read_half, seal, gate, early));
    }

    /// Becomes true when the node drains.
    pub(crate) fn draining(&self) -> watch::Receiver<bool> {
        self.draining.subscribe()
    }

    /// Counts a connection for as long as the answer lives.
    pub(crate) fn counted(&self, permit: Option<Box<dyn Any + Send>>) -> Counted {
        self.connections.fetch_add(1, Ordering::Relaxed);
        Counted { connections: Arc::clone(&self.connections), _permit: permit }
    }

    /// The host's side of a connection broke or ended.
    pub(crate) fn closed(self: &Rc<Self>, slot: Slot, code: domain::codes::CloseCode) {
        self.handle(Input::Closed(slot, code));
    }
}

fn codec_limits(limits: &application::limits::Limits) -> Limits {
    Limits { message_bytes_max: limits.message_bytes_max, fragments_max: limits.fragments_max }
}

/// A connection in the worker's count and in its host's.
pub(crate) struct Counted {
    connections: Arc<AtomicUsize>,
    _permit: Option<Box<dyn Any + Send>>,
}

#[cfg(test)]
impl Counted {
    /// In nobody's count.
    pub(crate) fn by_nobody() -> Self {
        Self { connections: Arc::new(AtomicUsize::new(1)), _permit: None }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A cold call whose panic ends only itself.
struct Guarded(CallFuture);

impl Future for Guarded {
    type Output = Outcome;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Outcome> {
        // The future owns its data and is dropped after a panic, so nothing half changed is seen.
        let polled = std::panic::catch_unwind(AssertUnwindSafe(|| self.0.as_mut().poll(cx)));
        polled.unwrap_or_else(|_| {
            tracing::error!("a cold call panicked; its connection is closed");
            Poll::Ready(Outcome::Panicked)
        })
    }
}
