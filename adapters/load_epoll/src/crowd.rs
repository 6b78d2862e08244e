//! Many members: lines that speak the protocol as far as is needed to get in, to stay in, and to
//! count what the server objects to.
//!
//! It must never come back by itself: who is out stays out.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use secrecy::ExposeSecret;

use crate::address::Target;
use crate::error::BenchError;
use crate::frames::{self, CONNECT_ID, Message, Notice};
use crate::line::{End, Heard, Lines};
use crate::plan::Plan;
use crate::report::{Progress, Reporter};

/// How often it is looked whether something is over.
pub(crate) const LOOK: Duration = Duration::from_millis(50);

/// How long it is listened on when all that is owed has come: what comes then came twice, or astray.
pub(crate) const LINGER: Duration = Duration::from_millis(500);

/// What a member does once it is connected.
pub(crate) enum Entry<'a> {
    /// Nothing: the line only sends back what it gets.
    Verbatim,
    /// It waits for the greeting.
    Greeted,
    /// It subscribes to rooms, by member.
    Subscribe(&'a dyn Fn(usize) -> Vec<String>),
    /// It says this, by member, and is in when that is answered.
    Resume(&'a dyn Fn(usize) -> String),
}

#[derive(Clone, Copy, Eq, PartialEq)]
enum Step {
    Opening,
    Greeting,
    Joining(u16),
    In,
    Out,
}

/// Where and when something arrived: all that one read brought arrived at once.
#[derive(Clone, Copy)]
pub(crate) struct Arrival {
    pub(crate) member: usize,
    pub(crate) at: Instant,
}

/// What arrived.
pub(crate) enum Said<'a> {
    Message(Message<'a>),
    Notice(&'a Notice<'a>),
}

/// Whoever gets what arrives.
pub(crate) type Taker<'t> = dyn FnMut(Arrival, Said<'_>) + 't;

/// What the server objected to.
#[derive(Default)]
pub(crate) struct Tally {
    /// By error code.
    pub(crate) errors: BTreeMap<u16, u64>,
    /// Of connections, by close code.
    pub(crate) closes: BTreeMap<u16, u64>,
    pub(crate) closed: u64,
    /// Pings of the server's own protocol that were answered.
    pub(crate) pings: u64,
}

impl Tally {
    pub(crate) fn faults(&self) -> Vec<String> {
        let errors = self.errors.iter();
        let errors = errors.map(|(code, n)| format!("the server answered error {code}, {n} times"));
        let closes = self.closes.iter().map(|(code, n)| {
            let without = if *code == 1006 { " (without a close frame)" } else { "" };
            format!("{n} connections ended early with {code}{without}")
        });
        errors.chain(closes).collect()
    }

    pub(crate) fn count(&self) -> u64 {
        self.errors.values().sum::<u64>() + self.closed
    }
}

pub(crate) struct Crowd<'p> {
    lines: Lines,
    targets: &'p [Target],
    members: Members<'p>,
    /// Which of the plan's tokens the first member has.
    first_token: usize,
}

/// What is known of them, apart from their lines.
struct Members<'p> {
    plan: &'p Plan,
    entry: Entry<'p>,
    steps: Vec<Step>,
    inside: usize,
    opening: usize,
    tally: Tally,
    /// Why the first one could not come in.
    refusal: Option<BenchError>,
}

impl<'p> Crowd<'p> {
    pub(crate) fn new(
        plan: &'p Plan,
        entry: Entry<'p>,
        first_token: usize,
    ) -> Result<Self, BenchError> {
        Self::at(&plan.targets, plan, entry, first_token)
    }

    /// One whose members go to these servers in turn.
    pub(crate) fn at(
        targets: &'p [Target],
        plan: &'p Plan,
        entry: Entry<'p>,
        first_token: usize,
    ) -> Result<Self, BenchError> {
        let members = Members {
            plan,
            entry,
            steps: Vec::new(),
            inside: 0,
            opening: 0,
            tally: Tally::default(),
            refusal: None,
        };
        Ok(Self { lines: Lines::new(targets, plan.seed)?, targets, members, first_token })
    }

    /// How many are in.
    pub(crate) fn inside(&self) -> usize {
        self.members.inside
    }

    pub(crate) fn tally(&self) -> &Tally {
        &self.members.tally
    }

    pub(crate) fn is_in(&self, member: usize) -> bool {
        self.members.steps[member] == Step::In && self.lines.is_open(member)
    }

    /// Says a text; whether it will be sent.
    pub(crate) fn say(&mut self, member: usize, text: &str) -> bool {
        self.lines.say(member, text)
    }

    /// Opens members until there are `wanted`, as long as few enough are on their way.
    pub(crate) fn open_some(&mut self, wanted: usize) -> Result<(), BenchError> {
        let Self { lines, targets, members, first_token } = self;
        let plan = members.plan;
        while members.steps.len() < wanted && members.opening < plan.opening_max {
            let number = members.steps.len();
            // Who comes back says a ticket, or nothing at all.
            let with_token = !plan.tokens.is_empty() && !matches!(members.entry, Entry::Resume(_));
            let token =
                with_token.then(|| &plan.tokens[(*first_token + number) % plan.tokens.len()]);
            if let Err(error) = lines.open(token.map(ExposeSecret::expose_secret)) {
                let addr = targets[number % targets.len()].addr();
                return Err(BenchError::of_connect(addr, number, error));
            }
            members.steps.push(Step::Opening);
            members.opening += 1;
        }
        Ok(())
    }

    /// Opens `wanted` members, spread over the ramp, and waits until all are in.
    pub(crate) fn open_all(
        &mut self,
        wanted: usize,
        ramp: Duration,
        progress: &mut Reporter<'_>,
        taker: &mut Taker<'_>,
    ) -> Result<(), BenchError> {
        let plan = self.members.plan;
        let (start, ramp) = (Instant::now(), ramp.as_secs_f64());
        let (mut last, mut seen) = (start, 0);
        while self.inside() < wanted {
            let share = if ramp > 0.0 { start.elapsed().as_secs_f64() / ramp } else { 1.0 };
            let due = ((wanted as f64 * share).ceil() as usize).min(wanted);
            self.open_some(due)?;
            let step = if due < wanted { Duration::from_millis(1) } else { LOOK };
            self.turn(Instant::now() + step, taker)?;
            if let Some(refusal) = self.members.refusal.take() {
                return Err(refusal);
            }
            if self.inside() > seen || due < wanted {
                (last, seen) = (Instant::now(), self.inside());
            }
            if last.elapsed() > plan.patience {
                return Err(BenchError::Silence {
                    seconds: plan.patience.as_secs(),
                    what: "connections came in",
                    done: seen as u64,
                    total: wanted as u64,
                    meanwhile: self.tally().faults(),
                });
            }
            progress.tell("connecting", || self.progress("connections", self.inside(), wanted));
        }
        Ok(())
    }

    /// Progress of a phase that times no messages.
    pub(crate) fn progress(&self, unit: &'static str, done: usize, total: usize) -> Progress {
        let (done, total) = (done as u64, total as u64);
        Progress { phase: "", done, total, unit, p99: None, faults: self.tally().count() }
    }

    /// Deals with what comes, and waits for it until then at most.
    pub(crate) fn turn(&mut self, until: Instant, taker: &mut Taker<'_>) -> Result<(), BenchError> {
        let Self { lines, members, .. } = self;
        let heard = lines.turn(until, &mut |lines, member, at, heard| {
            members.hear(lines, Arrival { member, at }, heard, taker);
        });
        Ok(heard?)
    }

    /// Resets all lines, without a word to the server.
    pub(crate) fn cut_all(&mut self) {
        (0..self.members.steps.len()).for_each(|at| self.lines.cut(at));
    }

    /// Ends all lines in order.
    pub(crate) fn close_all(&mut self) {
        self.lines.close_all();
    }
}

impl Members<'_> {
    fn hear(
        &mut self,
        lines: &mut Lines,
        arrival: Arrival,
        heard: Heard<'_>,
        taker: &mut Taker<'_>,
    ) {
        match heard {
            Heard::Opened => self.opened(lines, arrival.member),
            Heard::Text(text) => {
                for frame in text.split('\n') {
                    self.frame(lines, arrival, frame, taker);
                }
            }
            Heard::Ended(end) => self.ended(lines, arrival.member, end),
        }
    }

    fn opened(&mut self, lines: &mut Lines, member: usize) {
        match &self.entry {
            Entry::Verbatim => self.enter(member),
            Entry::Greeted | Entry::Subscribe(_) => self.steps[member] = Step::Greeting,
            Entry::Resume(words) => {
                let words = words(member);
                self.steps[member] = Step::Greeting;
                lines.say(member, &words);
            }
        }
    }

    fn enter(&mut self, member: usize) {
        self.steps[member] = Step::In;
        self.opening -= 1;
        self.inside += 1;
    }

    fn frame(&mut self, lines: &mut Lines, arrival: Arrival, frame: &str, taker: &mut Taker<'_>) {
        if matches!(self.entry, Entry::Verbatim) {
            let number = frames::number(frame, self.plan.run);
            return taker(arrival, Said::Message(Message { room: "", offset: None, number }));
        }
        if let Some(message) = frames::message(frame, self.plan.run) {
            return taker(arrival, Said::Message(message));
        }
        let Some(notice) = frames::notice(frame) else { return };
        self.notice(lines, arrival.member, &notice);
        // What a page holds comes behind what is said about it.
        taker(arrival, Said::Notice(&notice));
        let resumed =
            notice.resumed.iter().flatten().flat_map(|room| room.messages.iter().flatten());
        for raw in notice.messages.iter().flatten().chain(resumed) {
            if let Some(message) = frames::message(raw.get(), self.plan.run) {
                taker(arrival, Said::Message(message));
            }
        }
    }

    fn notice(&mut self, lines: &mut Lines, member: usize, notice: &Notice<'_>) {
        match (&*notice.kind, self.steps[member]) {
            ("ping", _) => {
                self.tally.pings += 1;
                lines.say(member, frames::PONG);
            }
            ("hello", Step::Greeting) => self.greeted(lines, member, notice),
            ("subscribed", Step::Joining(left)) if left > 1 => {
                self.steps[member] = Step::Joining(left - 1);
            }
            ("subscribed", Step::Joining(_)) => self.enter(member),
            ("error" | "unsubscribed", _) => {
                let code = notice.code.unwrap_or_default();
                *self.tally.errors.entry(code).or_default() += 1;
                if self.steps[member] != Step::In && self.refusal.is_none() {
                    let message = notice.message.as_deref().unwrap_or_default().to_owned();
                    self.refusal = Some(BenchError::Refused { code, message });
                }
            }
            _ => {}
        }
    }

    fn greeted(&mut self, lines: &mut Lines, member: usize, hello: &Notice<'_>) {
        let rooms = match &self.entry {
            Entry::Subscribe(rooms) => rooms(member),
            // Where nobody has to say who it is, a first greeting comes unasked.
            Entry::Resume(_) if hello.id != Some(CONNECT_ID) => return,
            Entry::Resume(_) | Entry::Greeted | Entry::Verbatim => Vec::new(),
        };
        if rooms.is_empty() {
            return self.enter(member);
        }
        self.steps[member] = Step::Joining(rooms.len() as u16);
        for room in &rooms {
            lines.say(member, &frames::subscribe(room));
        }
    }

    fn ended(&mut self, lines: &Lines, member: usize, end: End) {
        let was = std::mem::replace(&mut self.steps[member], Step::Out);
        let code = if let End::Closed { code, .. } = end { code } else { 1006 };
        *self.tally.closes.entry(code).or_default() += 1;
        self.tally.closed += 1;
        if was == Step::In {
            self.inside -= 1;
            return;
        }
        self.opening -= 1;
        if self.refusal.is_none() {
            let addr = lines.target_of(member).addr();
            self.refusal = Some(match end {
                End::Failed(source) => BenchError::of_connect(addr, self.inside, source),
                End::NoUpgrade(answer) => BenchError::Upgrade { number: member, answer },
                End::Closed { code, reason } => BenchError::Closed { number: member, code, reason },
            });
        }
    }
}
