//! A shard, its connections and the thread that they share.
//!
//! Inputs come one at a time, and every borrow ends before anything waits. It must never take the
//! process down with it.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::net::TcpStream;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use application::limits::Limits;
use application::mailbox::{Control, Mailbox, NewServices, Post};
use application::metrics::ShardMetrics;
use application::node::Node;
use application::ports::Clock;
use application::services::Services;
use application::shard::{ColdCall, Completion, Input, Opening, Outcome, Shard};
use domain::stalls::Stalls;
use domain::time::{Monotonic, Now};
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::{Notify, mpsc};
use tokio::task::{spawn_local, yield_now};
use tokio::time::MissedTickBehavior;

use crate::gateway::{Config, StartError};
use crate::line::Line;
use crate::links::Links;

/// After this long of sending the thread looks at its sockets again.
const TURN: Duration = Duration::from_millis(1);
/// Between two signs of life.
const BEAT: Duration = Duration::from_millis(500);
/// Upgraded sockets that may wait for the thread to take them.
const INLET_MAX: usize = 1_024;

/// A socket behind its upgrade.
pub(crate) struct Upgraded {
    /// Non-blocking.
    pub(crate) stream: TcpStream,
    /// What came behind the request.
    pub(crate) early: Vec<u8>,
    pub(crate) opening: Opening,
    /// Counts the connection for as long as it lives.
    pub(crate) permit: Box<dyn Any + Send>,
}

/// A running shard.
pub(crate) struct Running {
    pub(crate) inlet: mpsc::Sender<Upgraded>,
    thread: JoinHandle<()>,
}

impl Running {
    /// Whether it takes sockets; never again once its thread has ended.
    pub(crate) fn is_running(&self) -> bool {
        !self.inlet.is_closed() && !self.thread.is_finished()
    }
}

/// Starts a thread that runs the shard behind `mailbox`.
pub(crate) fn start(
    services: Arc<Services>,
    mailbox: Arc<Mailbox>,
    config: Config,
) -> Result<Running, StartError> {
    let (inlet, upgraded) = mpsc::channel(INLET_MAX);
    // The runtime stays on its thread, so it is built there and says how that went.
    let (ready, is_ready) = std::sync::mpsc::channel();
    let body = move || {
        let runtime =
            Builder::new_current_thread().enable_all().build_local(LocalOptions::default());
        match runtime {
            Err(error) => drop(ready.send(Err(error))),
            Ok(runtime) => {
                drop(ready.send(Ok(())));
                let host = Rc::new(Host::new(&services, &mailbox, config));
                runtime.block_on(host.run(upgraded));
            }
        }
    };
    let thread = std::thread::Builder::new().name("shard".to_owned()).spawn(body);
    let thread = thread.map_err(StartError)?;
    match is_ready.recv() {
        Ok(Ok(())) => Ok(Running { inlet, thread }),
        Ok(Err(error)) => Err(StartError(error)),
        Err(_) => Err(StartError(std::io::Error::other("the thread ended"))),
    }
}

/// See the module's text.
pub(crate) struct Host {
    shard: RefCell<Shard>,
    pub(crate) links: RefCell<Links>,
    clock: Arc<dyn Clock>,
    pub(crate) config: Config,
    /// The largest message that clients may send and its most fragments, as they count now.
    message_limits: Cell<(usize, u32)>,
    pub(crate) n_connections: Cell<usize>,
    metrics: Arc<ShardMetrics>,
    /// Until when the loop sleeps; none while it is awake and will look itself.
    asleep_until: Cell<Option<Option<Monotonic>>>,
    /// Wakes the loop when another task's input left something to do.
    news: Notify,
    /// When it last showed a sign of life, or was seen to be late.
    beat_at: Cell<Monotonic>,
}

impl Host {
    pub(crate) fn new(services: &Arc<Services>, mailbox: &Arc<Mailbox>, config: Config) -> Self {
        let shard = Node::shard(services, mailbox);
        let limits = &services.rules.limits;
        let metrics = Arc::clone(shard.metrics());
        let links = Links::new(
            limits.outbound_queue_bytes_max,
            config.outbound_total_bytes_max,
            Arc::clone(&metrics),
        );
        Self {
            shard: RefCell::new(shard),
            links: RefCell::new(links),
            clock: Arc::clone(&services.ports.clock),
            config,
            message_limits: Cell::new(message_limits(limits)),
            n_connections: Cell::new(0),
            metrics,
            asleep_until: Cell::new(None),
            news: Notify::new(),
            beat_at: Cell::new(services.ports.clock.now().monotonic),
        }
    }

    pub(crate) fn now(&self) -> Monotonic {
        self.clock.now().monotonic
    }

    pub(crate) const fn message_limits(&self) -> (usize, u32) {
        self.message_limits.get()
    }

    /// Runs until the inlet is closed and the last connection is gone.
    async fn run(self: Rc<Self>, mut inlet: mpsc::Receiver<Upgraded>) {
        spawn_local(Rc::clone(&self).beat());
        let mailbox = Arc::clone(self.shard.borrow().mailbox());
        let mut post = Post::default();
        let mut is_open = true;
        while is_open || self.n_connections.get() > 0 {
            if self.turn(&mut post) {
                // New sockets must not wait for the end of what there is to send.
                if let Ok(upgraded) = inlet.try_recv() {
                    self.open(upgraded);
                }
                yield_now().await;
                continue;
            }
            let deadline = self.shard.borrow().next_deadline();
            self.asleep_until.set(Some(deadline));
            let wait = deadline.map(|at| at.since(self.now()));
            tokio::select! {
                biased;
                () = mailbox.arrival() => {}
                () = self.news.notified() => {}
                upgraded = inlet.recv(), if is_open => match upgraded {
                    Some(upgraded) => self.open(upgraded),
                    None => is_open = false,
                },
                () = tokio::time::sleep(wait.unwrap_or_default()), if wait.is_some() => {}
            }
            self.asleep_until.set(None);
        }
    }

    /// Ticks if it is time, takes orders and mail, and sends for one turn. Answers whether there is
    /// more to send.
    fn turn(self: &Rc<Self>, post: &mut Post) -> bool {
        let deadline = self.shard.borrow().next_deadline();
        if deadline.is_some_and(|at| at <= self.now()) {
            self.handle(Input::Tick);
        }
        let (orders, has_backlog) = {
            let shard = self.shard.borrow();
            (shard.mailbox().take_orders(), shard.has_backlog())
        };
        for order in orders {
            if let Control::Adopt(NewServices(services)) = &order {
                let limits = &services.rules.limits;
                self.message_limits.set(message_limits(limits));
                self.links.borrow_mut().set_queue_bytes_max(limits.outbound_queue_bytes_max);
            }
            self.handle(Input::Order(order));
        }
        // Mail is taken only while nothing is left to send, so that the mailbox bounds what waits.
        if !has_backlog {
            self.shard.borrow().mailbox().take(post);
            if !post.is_empty() {
                self.handle(Input::Mail(post));
            }
        }
        let begun = Instant::now();
        while self.shard.borrow().has_backlog() && begun.elapsed() < TURN {
            self.handle(Input::Continue);
        }
        self.shard.borrow().has_backlog()
    }

    /// Gives the shard one input, and starts what it wants done elsewhere.
    pub(crate) fn handle(self: &Rc<Self>, input: Input<'_>) {
        let now = self.clock.now();
        let mut shard = self.shard.borrow_mut();
        // Behind a stall deadlines come before what lies unread in the sockets, so they move first.
        if matches!(input, Input::Tick) {
            self.note_lateness(&mut shard, now);
        }
        shard.handle(input, now, &mut *self.links.borrow_mut());
        // Connections and calls come while the loop sleeps: what they leave to send, and a deadline
        // sooner than the one it sleeps until, must not wait for its next input.
        if let Some(until) = self.asleep_until.get() {
            let is_sooner = |at| until.is_none_or(|until| at < until);
            if shard.has_backlog() || shard.next_deadline().is_some_and(is_sooner) {
                self.asleep_until.set(None);
                self.news.notify_one();
            }
        }
        while let Some(call) = shard.poll_call() {
            spawn_local(Rc::clone(self).run_call(call));
        }
    }

    async fn run_call(self: Rc<Self>, call: ColdCall) {
        self.metrics.calls_in_flight.add(1);
        let ColdCall { tag, future } = call;
        let outcome = Guarded(future).await;
        if matches!(outcome, Outcome::Panicked) {
            self.metrics.calls_panicked.add(1);
        }
        self.handle(Input::Completed(Completion { tag, outcome }));
        self.metrics.calls_in_flight.sub(1);
    }

    fn open(self: &Rc<Self>, upgraded: Upgraded) {
        let Upgraded { stream, early, opening, permit } = upgraded;
        let stream = match tokio::net::TcpStream::from_std(stream) {
            Ok(stream) => stream,
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "a socket can't be used");
                return;
            }
        };
        let slot = self.shard.borrow_mut().reserve();
        let line = Line::new(self, slot, opening.connection, stream, early, permit);
        self.handle(Input::Opened(slot, opening));
        spawn_local(line.run());
    }

    /// Shows that the thread gets around to everything.
    async fn beat(self: Rc<Self>) {
        let mut interval = tokio::time::interval(BEAT);
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            interval.tick().await;
            let now = self.clock.now();
            self.note_lateness(&mut self.shard.borrow_mut(), now);
            self.beat_at.set(now.monotonic);
            // 0 means that it never beat.
            self.metrics.beat_ms.set(now.monotonic.as_millis().max(1));
        }
    }

    /// Tells the shard if this thread did not get around to anything for a while.
    fn note_lateness(&self, shard: &mut Shard, now: Now) {
        if let Some(span) = Stalls::seen(self.beat_at.get(), BEAT, now.monotonic) {
            self.beat_at.set(now.monotonic);
            shard.handle(Input::Stalled(span), now, &mut *self.links.borrow_mut());
        }
    }
}

fn message_limits(limits: &Limits) -> (usize, u32) {
    (limits.message_bytes_max, limits.fragments_max)
}

/// A cold call whose panic ends only itself.
struct Guarded(application::shard::CallFuture);

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
