//! The task behind a client: carries bytes, time and channels to the machine and back.
//!
//! It must never read the socket, nor dial, while events wait that the application has not taken.

use std::sync::Arc;
use std::time::Duration;

use domain::codes::{CloseCode, should_reconnect};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until, timeout};

use crate::backoff::Backoff;
use crate::dial::{BoxFuture, Dial, Target, open};
use crate::error::ConnectError;
use crate::event::{Event, Violation};
use crate::link::{Heard, Link};
use crate::machine::{Command, Lost, Machine, Outbound, error_chain};
use crate::options::{Options, RandomSource};

type First = oneshot::Sender<Result<(), ConnectError>>;

/// Everything that the task owns.
pub(crate) struct Task {
    options: Options,
    target: Target,
    dial: Arc<dyn Dial>,
    machine: Machine,
    backoff: Backoff,
    random: RandomSource,
    commands: mpsc::Receiver<Command>,
    events: mpsc::Sender<Event>,
    /// Whoever waits for the first connection.
    first: Option<First>,
    /// When the connection that is being opened has to be up.
    connect_by: Instant,
}

/// What the task is at.
enum Phase {
    /// The next attempt comes then.
    Waiting(Instant),
    Dialing(BoxFuture<Result<Box<Link>, ConnectError>>),
    Open(Box<Link>),
}

/// What woke the task.
enum Turn {
    /// The application took an event.
    Told,
    Commanded(Option<Command>),
    /// The wait is over.
    Due,
    Dialed(Result<Box<Link>, ConnectError>),
    Heard(Heard),
    Tick,
}

/// Why the task ends.
enum Ending {
    /// The application wants it.
    Asked(Option<oneshot::Sender<()>>),
    /// The connection is gone for good.
    Lost { code: u16, reason: String },
    /// There never was one, and whoever waited for it knows.
    Never,
}

/// How the task goes on.
type Next = Result<Phase, Ending>;

impl Task {
    pub(crate) fn new(
        options: Options,
        target: Target,
        dial: Arc<dyn Dial>,
        commands: mpsc::Receiver<Command>,
        events: mpsc::Sender<Event>,
        first: First,
    ) -> Self {
        let now = Instant::now();
        Self {
            machine: Machine::new(&options, now),
            backoff: Backoff::new(options.backoff),
            random: options.random.clone(),
            target,
            dial,
            commands,
            events,
            first: Some(first),
            connect_by: now,
            options,
        }
    }

    pub(crate) async fn run(mut self) {
        let mut phase = self.start_dialing();
        let (ending, link) = loop {
            let turn = self.turn(&mut phase).await;
            let next = match turn {
                Turn::Told | Turn::Heard(Heard::Sent) => Ok(phase),
                Turn::Commanded(command) => match self.command(command) {
                    None => Ok(phase),
                    Some(ending) => {
                        let link = if let Phase::Open(link) = phase { Some(link) } else { None };
                        break (ending, link);
                    }
                },
                Turn::Due => Ok(self.start_dialing()),
                Turn::Dialed(result) => self.dialed(result),
                Turn::Heard(heard) => self.heard(heard, phase).await,
                Turn::Tick => self.tick(phase).await,
            };
            match next {
                Ok(next) => phase = next,
                Err(ending) => break (ending, None),
            }
        };
        self.end(ending, link).await;
    }

    /// Waits for the next thing to happen. Everything in it can be dropped half done.
    async fn turn(&mut self, phase: &mut Phase) -> Turn {
        let was_blocked = !self.machine.events.is_empty();
        offer(&mut self.machine, &self.events);
        let blocked = !self.machine.events.is_empty();
        if was_blocked && !blocked {
            // Nobody listened until now, so nobody can have been silent.
            self.machine.heard(Instant::now());
        }
        let due = self.machine.due(!blocked);
        let tick = async {
            match due {
                Some(due) => sleep_until(due).await,
                None => std::future::pending().await,
            }
        };
        let has_room = self.machine.out.has_room();
        let Machine { out, events, .. } = &mut self.machine;
        tokio::select! {
            biased;
            permit = self.events.reserve(), if blocked => {
                match permit {
                    Ok(permit) => if let Some(event) = events.pop_front() {
                        permit.send(event);
                    },
                    Err(_) => events.clear(),
                }
                Turn::Told
            }
            command = self.commands.recv(), if has_room => Turn::Commanded(command),
            turn = phase.next(out, !blocked) => turn,
            () = tick => Turn::Tick,
        }
    }

    fn start_dialing(&mut self) -> Phase {
        self.connect_by = Instant::now() + self.options.connect_timeout;
        let token = self.machine.header_token();
        let opening = open(&*self.dial, &self.target, token, &self.options);
        let limit = self.options.connect_timeout;
        Phase::Dialing(Box::pin(async move {
            timeout(limit, opening).await.unwrap_or(Err(ConnectError::TimedOut))
        }))
    }

    fn dialed(&mut self, result: Result<Box<Link>, ConnectError>) -> Next {
        match result {
            Ok(link) => {
                self.machine.opened(self.connect_by, Instant::now());
                Ok(Phase::Open(link))
            }
            Err(error) => self.failed(error),
        }
    }

    async fn heard(&mut self, heard: Heard, phase: Phase) -> Next {
        let now = Instant::now();
        self.machine.heard(now);
        match heard {
            Heard::Text(text) => self.machine.text(&text, now),
            Heard::Binary(bytes) => self.machine.violation(Violation::Binary { bytes }),
            Heard::Control | Heard::Sent => {}
            Heard::Lost(lost) => {
                let lost = self.machine.explain(lost);
                return self.lost(lost, phase).await;
            }
        }
        if self.machine.is_online()
            && let Some(first) = self.first.take()
            && first.send(Ok(())).is_err()
        {
            return Err(Ending::Never);
        }
        self.check(phase).await
    }

    async fn tick(&mut self, phase: Phase) -> Next {
        let is_reading = self.machine.events.is_empty();
        self.machine.tick(is_reading, Instant::now());
        self.check(phase).await
    }

    /// Gives the connection up if the machine says so.
    async fn check(&mut self, phase: Phase) -> Next {
        match self.machine.verdict.take() {
            Some(lost) => self.lost(lost, phase).await,
            None => Ok(phase),
        }
    }

    /// The connection is over: when to come back, if at all.
    async fn lost(&mut self, lost: Lost, phase: Phase) -> Next {
        if let Phase::Open(link) = phase {
            link.finish(&lost).await;
        }
        let was_online = self.machine.is_online();
        // Of a server that takes less than the usual: the next time without rooms.
        let is_too_long =
            lost.code == CloseCode::MessageTooBig.number() && self.machine.has_resumed();
        if is_too_long {
            self.machine.forget_resume();
        }
        let uptime = self.machine.lost(Instant::now());
        let Lost { code, reason, after } = lost;
        if !was_online {
            let error = ConnectError::Ended { code, reason, after };
            let again = is_too_long || error.is_temporary();
            return self.failed_with(error, again);
        }
        self.backoff.ended(uptime);
        let wait = if should_reconnect(code) { self.wait(after) } else { None };
        self.machine.events.push_back(Event::Disconnected {
            code,
            reason: reason.clone(),
            will_reconnect: wait.is_some(),
            after: wait,
        });
        match wait {
            Some(wait) => Ok(Phase::Waiting(Instant::now() + wait)),
            None => Err(Ending::Lost { code, reason }),
        }
    }

    /// An attempt came to nothing.
    fn failed(&mut self, error: ConnectError) -> Next {
        let again = error.is_temporary();
        self.failed_with(error, again)
    }

    fn failed_with(&mut self, error: ConnectError, again: bool) -> Next {
        if let Some(first) = self.first.take() {
            first.send(Err(error)).ok();
            return Err(Ending::Never);
        }
        let attempt = self.backoff.attempts();
        let wait = if again { self.wait(error.retry_after()) } else { None };
        let reason = error_chain(&error);
        self.machine.events.push_back(Event::AttemptFailed {
            attempt,
            reason: reason.clone(),
            after: wait,
        });
        match wait {
            Some(wait) => Ok(Phase::Waiting(Instant::now() + wait)),
            None => Err(Ending::Lost { code: error.code(), reason }),
        }
    }

    /// How long to wait before the next attempt. The server's own word counts more: it spreads its
    /// clients itself.
    fn wait(&mut self, after: Option<Duration>) -> Option<Duration> {
        let own = self.backoff.next(self.random.draw())?;
        Some(after.unwrap_or(own))
    }

    fn command(&mut self, command: Option<Command>) -> Option<Ending> {
        match command {
            Some(Command::Ask(ask, deadline, reply)) => self.machine.ask(ask, deadline, reply),
            Some(Command::SetToken(token)) => self.machine.set_token(token),
            Some(Command::Close(reply)) => return Some(Ending::Asked(Some(reply))),
            None => return Some(Ending::Asked(None)),
        }
        None
    }

    async fn end(mut self, ending: Ending, link: Option<Box<Link>>) {
        self.commands.close();
        if let Some(link) = link {
            link.close(&mut self.machine.out, 1000).await;
        }
        self.machine.closed();
        while self.commands.try_recv().is_ok() {}
        match ending {
            Ending::Never => {}
            Ending::Asked(reply) => {
                let (code, reason) = (1000, "the client was closed".to_owned());
                self.machine.events.push_back(Event::Closed { code, reason });
                // Who closes a client without reading its events wants none.
                offer(&mut self.machine, &self.events);
                if let Some(reply) = reply {
                    reply.send(()).ok();
                }
            }
            Ending::Lost { code, reason } => {
                self.machine.events.push_back(Event::Closed { code, reason });
                while let Some(event) = self.machine.events.pop_front() {
                    if self.events.send(event).await.is_err() {
                        break;
                    }
                }
            }
        }
    }
}

/// Hands over as many events as the application has room for.
fn offer(machine: &mut Machine, events: &mpsc::Sender<Event>) {
    while let Some(event) = machine.events.pop_front() {
        match events.try_send(event) {
            Ok(()) => {}
            Err(mpsc::error::TrySendError::Full(event)) => return machine.events.push_front(event),
            Err(mpsc::error::TrySendError::Closed(_)) => machine.events.clear(),
        }
    }
}

impl Phase {
    async fn next(&mut self, out: &mut Outbound, may_go_on: bool) -> Turn {
        match self {
            Self::Waiting(until) if may_go_on => {
                sleep_until(*until).await;
                Turn::Due
            }
            Self::Waiting(_) => std::future::pending().await,
            Self::Dialing(opening) => Turn::Dialed(opening.await),
            Self::Open(link) => Turn::Heard(link.next(out, may_go_on).await),
        }
    }
}
