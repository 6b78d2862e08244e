//! The task behind a client: carries bytes, time, random numbers and channels to the machine, and what it
//! asks for back.
//!
//! It must never read the socket, nor dial, while events wait that the application has not taken; and it
//! must never decide when to connect or what to say.

use std::future::ready;
use std::mem;
use std::sync::Arc;
use std::time::Duration;

use domain::client::life::Moment;
use domain::client::{Answer, Ask, Effect, Machine, Outbound, RequestError, Token};
use domain::protocol::client_event::Event;
use domain::time::Monotonic;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until};

use crate::dial::{BoxFuture, Dial, Target, open};
use crate::error::ConnectError;
use crate::link::{Heard, Link};
use crate::options::Options;
use crate::tokens::Bringing;

/// How many commands are taken before all else is looked at: those that are refused at once never fill what is to
/// be sent, and more may come without end.
const COMMANDS_IN_A_ROW_MAX: u32 = 64;

type First = oneshot::Sender<Result<(), ConnectError>>;
/// Whom to answer. Who doesn't listen any more doesn't mind.
type Reply = oneshot::Sender<Result<Answer, RequestError>>;

/// One command of the application.
#[derive(Debug)]
pub(crate) enum Command {
    /// Something with an answer, until then.
    Ask(Ask, Instant, Reply),
    /// A token for the next connection.
    SetToken(Token),
}

/// Whom to tell that a client is closed.
pub(crate) type Closing = oneshot::Sender<()>;

/// Everything that the task owns but the socket.
pub(crate) struct Task {
    options: Options,
    target: Target,
    dial: Arc<dyn Dial>,
    machine: Machine<Reply>,
    /// Where the machine's time begins.
    start: Instant,
    commands: mpsc::Receiver<Command>,
    /// The end, which is wanted also while no command is taken.
    closing: mpsc::Receiver<Closing>,
    events: mpsc::Sender<Event>,
    /// The token that the machine has asked for.
    bringing: Bringing,
    /// Whoever waits for the first connection.
    first: Option<First>,
    /// Why the last attempt came to nothing, should somebody wait for it.
    refused: Option<ConnectError>,
    /// Whether events wait that the application has not taken.
    is_blocked: bool,
    /// How many commands were taken since all else was looked at.
    commands_in_a_row: u32,
}

/// The one socket.
enum Socket {
    None,
    Dialing(BoxFuture<Result<Box<Link>, ConnectError>>),
    Open(Box<Link>),
}

/// What woke the task.
enum Turn {
    /// The application took an event.
    Told,
    Commanded(Option<Command>),
    /// The application wants no more of it, or is gone.
    Closing(Option<Closing>),
    Brought(Result<Option<Token>, String>),
    Dialed(Result<Box<Link>, ConnectError>),
    Heard(Heard),
    Tick,
    /// Nothing but commands.
    Passed,
}

/// Why the task ends.
enum Ending {
    /// The application wants it.
    Asked(Option<Closing>),
    /// The connection is gone for good.
    Lost { code: u16, reason: String },
    /// There never was one, and whoever waited for it knows.
    Never,
}

impl Task {
    pub(crate) fn new(
        options: Options,
        target: Target,
        dial: Arc<dyn Dial>,
        (commands, closing): (mpsc::Receiver<Command>, mpsc::Receiver<Closing>),
        events: mpsc::Sender<Event>,
        first: First,
    ) -> Self {
        Self {
            machine: Machine::new(options.settings()),
            start: Instant::now(),
            target,
            dial,
            commands,
            closing,
            events,
            bringing: Bringing::default(),
            first: Some(first),
            refused: None,
            is_blocked: false,
            commands_in_a_row: 0,
            options,
        }
    }

    pub(crate) async fn run(mut self) {
        let mut socket = Socket::None;
        self.machine.start(self.now());
        let ending = loop {
            if let Some(ending) = self.obey(&mut socket).await {
                break ending;
            }
            let turn = self.turn(&mut socket).await;
            if let Some(ending) = self.take(turn, &mut socket).await {
                break ending;
            }
        };
        self.end(ending, socket).await;
    }

    fn now(&self) -> Moment {
        Moment { at: self.at(Instant::now()), random: self.options.random.fraction() }
    }

    fn at(&self, instant: Instant) -> Monotonic {
        let since = instant.saturating_duration_since(self.start);
        Monotonic::from_millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }

    /// Does what the machine asks for.
    async fn obey(&mut self, socket: &mut Socket) -> Option<Ending> {
        self.reply();
        while let Some(effect) = self.machine.effects.pop_front() {
            match effect {
                Effect::BringToken => {
                    if let Some(source) = &self.options.tokens {
                        self.bringing.ask(source, self.options.connect_timeout);
                    }
                }
                Effect::Dial => *socket = self.start_dialing(),
                Effect::HangUp { code } => hang_up(socket, code).await,
                Effect::Over { failure, after } => {
                    if let Some(first) = self.first.take() {
                        let refused = self.refused.take();
                        let error = refused.unwrap_or_else(|| ConnectError::ended(failure, after));
                        first.send(Err(error)).ok();
                        return Some(Ending::Never);
                    }
                }
                Effect::End { code, reason } => return Some(Ending::Lost { code, reason }),
            }
        }
        None
    }

    fn reply(&mut self) {
        while let Some((reply, answer)) = self.machine.answers.pop_front() {
            reply.send(answer).ok();
        }
    }

    /// Waits for the next thing to happen. Everything in it can be dropped half done.
    async fn turn(&mut self, socket: &mut Socket) -> Turn {
        let was_blocked = self.is_blocked;
        offer(&mut self.machine, &self.events);
        let blocked = !self.machine.events.is_empty();
        if was_blocked && !blocked {
            // Nobody listened until now, so nobody can have been silent.
            self.machine.reads_again(self.now());
        }
        self.is_blocked = blocked;
        let due = self.machine.due(!blocked);
        let due =
            due.and_then(|due| self.start.checked_add(Duration::from_millis(due.as_millis())));
        let tick = async {
            match due {
                Some(due) => sleep_until(due).await,
                None => std::future::pending().await,
            }
        };
        let has_room = self.machine.out.has_room();
        let passes = self.commands_in_a_row >= COMMANDS_IN_A_ROW_MAX;
        let Machine { out, events, .. } = &mut self.machine;
        let turn = tokio::select! {
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
            command = self.commands.recv(), if has_room && !passes => Turn::Commanded(command),
            // Behind the commands before it, if there is room for them; else a server that does not read would
            // keep the application from leaving.
            closing = self.closing.recv() => Turn::Closing(closing),
            // Before what comes: a server that never stops talking must not stop the time.
            () = tick => Turn::Tick,
            brought = self.bringing.next() => Turn::Brought(brought),
            turn = socket.next(out, !blocked) => turn,
            () = ready(()), if passes => Turn::Passed,
        };
        let is_command = matches!(turn, Turn::Commanded(_));
        self.commands_in_a_row = if is_command { self.commands_in_a_row + 1 } else { 0 };
        turn
    }

    fn start_dialing(&mut self) -> Socket {
        self.refused = None;
        let token = self.machine.header_token();
        Socket::Dialing(open(&*self.dial, &self.target, token, &self.options))
    }

    /// Hands what happened to the machine.
    async fn take(&mut self, turn: Turn, socket: &mut Socket) -> Option<Ending> {
        match turn {
            Turn::Told | Turn::Passed => {}
            Turn::Commanded(command) => return self.command(command),
            Turn::Closing(reply) => {
                self.take_waiting();
                return Some(Ending::Asked(reply));
            }
            Turn::Brought(brought) => {
                if let Err(why) = &brought {
                    self.refused = Some(ConnectError::NoToken { why: why.clone() });
                }
                self.machine.bring(brought, self.now());
            }
            Turn::Dialed(Ok(link)) => {
                *socket = Socket::Open(link);
                self.machine.opened(self.now());
            }
            Turn::Dialed(Err(error)) => {
                *socket = Socket::None;
                let lost = error.as_lost();
                self.refused = Some(error);
                self.machine.lost(lost, self.now());
            }
            Turn::Heard(heard) => return self.heard(heard, socket).await,
            Turn::Tick => {
                let is_reading = self.machine.events.is_empty();
                self.machine.tick(is_reading, self.now());
            }
        }
        None
    }

    async fn heard(&mut self, heard: Heard, socket: &mut Socket) -> Option<Ending> {
        let before = self.machine.events.len();
        match heard {
            Heard::Text(text) => self.machine.text(&text, self.now()),
            Heard::Binary(bytes) => self.machine.binary(bytes.len(), self.now()),
            Heard::Control => self.machine.heard(self.now()),
            Heard::Sent => {}
            Heard::Lost(lost) => {
                hang_up(socket, lost.code).await;
                self.machine.lost(lost, self.now());
            }
            Heard::Broken(lost) => {
                hang_up(socket, lost.code).await;
                self.machine.broken(lost, self.now());
            }
        }
        for event in self.machine.events.iter().skip(before) {
            if let Event::Violation(violation) = event {
                tracing::warn!(%violation, "the server broke a promise of the protocol");
            }
        }
        if self.machine.is_online()
            && let Some(first) = self.first.take()
            && first.send(Ok(())).is_err()
        {
            return Some(Ending::Asked(None));
        }
        None
    }

    fn command(&mut self, command: Option<Command>) -> Option<Ending> {
        match command {
            Some(Command::Ask(ask, deadline, reply)) => {
                self.machine.ask(ask, self.at(deadline), reply, self.now());
            }
            Some(Command::SetToken(token)) => self.machine.set_token(token),
            None => return Some(Ending::Asked(None)),
        }
        None
    }

    /// Takes the commands that are there before the end, as far as there is room for them.
    fn take_waiting(&mut self) {
        for _ in 0..self.commands.len() {
            if !self.machine.out.has_room() {
                return;
            }
            if let Ok(command) = self.commands.try_recv() {
                self.command(Some(command));
            }
        }
    }

    async fn end(mut self, ending: Ending, socket: Socket) {
        self.commands.close();
        self.closing.close();
        if let Socket::Open(link) = socket {
            link.close(&mut self.machine.out, 1000).await;
        }
        self.machine.close(self.now());
        self.reply();
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

/// Lets go of the socket, if there is one.
async fn hang_up(socket: &mut Socket, code: u16) {
    if let Socket::Open(link) = mem::replace(socket, Socket::None) {
        link.finish(code).await;
    }
}

/// Hands over as many events as the application has room for.
fn offer(machine: &mut Machine<Reply>, events: &mpsc::Sender<Event>) {
    while let Some(event) = machine.events.pop_front() {
        match events.try_send(event) {
            Ok(()) => {}
            Err(mpsc::error::TrySendError::Full(event)) => return machine.events.push_front(event),
            Err(mpsc::error::TrySendError::Closed(_)) => machine.events.clear(),
        }
    }
}

impl Socket {
    async fn next(&mut self, out: &mut Outbound, may_read: bool) -> Turn {
        match self {
            Self::None => std::future::pending().await,
            Self::Dialing(opening) => Turn::Dialed(opening.await),
            Self::Open(link) => Turn::Heard(link.next(out, may_read).await),
        }
    }
}
