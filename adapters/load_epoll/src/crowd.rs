//! Many clients over their lines: opens them, lets them have turns, cuts them off and lets them back.
//!
//! It must never decide for a client. What it holds back, the next dial while too many are on their way and the news that
//! a line ended while nobody shall come back, it holds back in front of the machine.

use std::time::{Duration, Instant};

use domain::client::Ask;
use domain::client::life::Lost;

use crate::address::Target;
use crate::client::{Asked, Manner, Step};
use crate::error::BenchError;
use crate::line::Lines;
use crate::members::{Arrival, Members, RoomsOf, Taker};
use crate::plan::Plan;
use crate::report::{Progress, Reporter};
use crate::tally::Tally;

/// How often it is looked whether something is over.
pub(crate) const LOOK: Duration = Duration::from_millis(50);

/// How long it is listened on when all that is owed has come: what comes then came twice, or astray.
pub(crate) const LINGER: Duration = Duration::from_millis(500);

/// How often it is looked who is due to be opened, while they are spread over a time.
const RAMP_STEP: Duration = Duration::from_millis(1);

pub(crate) struct Crowd<'p> {
    lines: Lines,
    members: Members<'p>,
}

impl<'p> Crowd<'p> {
    pub(crate) fn new(
        plan: &'p Plan,
        manner: Manner,
        rooms_of: Box<RoomsOf<'p>>,
    ) -> Result<Self, BenchError> {
        Self::at(&plan.targets, plan, manner, rooms_of, 0)
    }

    /// One whose members go to these servers in turn, and have the tokens behind the first so many.
    pub(crate) fn at(
        targets: &[Target],
        plan: &'p Plan,
        manner: Manner,
        rooms_of: Box<RoomsOf<'p>>,
        first_token: usize,
    ) -> Result<Self, BenchError> {
        let members = Members::new(plan, manner, rooms_of, first_token);
        Ok(Self { lines: Lines::new(targets, plan.seed)?, members })
    }

    /// How many are in.
    pub(crate) fn inside(&self) -> usize {
        self.members.inside
    }

    pub(crate) fn tally(&self) -> &Tally {
        &self.members.tally
    }

    pub(crate) fn is_in(&self, member: usize) -> bool {
        self.members.clients[member].step == Step::In
    }

    /// Says a text, of which the member's machine knows nothing; whether it will be sent.
    pub(crate) fn say(&mut self, member: usize, text: &str) -> bool {
        self.lines.say(member, text)
    }

    /// Lets a member ask for something.
    pub(crate) fn ask(
        &mut self,
        member: usize,
        (ask, asked, within): (Ask, Asked, Duration),
        taker: &mut Taker<'_>,
    ) {
        let Self { lines, members } = self;
        let arrival = Arrival { member, at: Instant::now() };
        let now = members.moment(arrival.at);
        members.clients[member].machine.ask(ask, now.at.after(within), asked, now);
        members.obey(lines, arrival, taker);
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
            self.open_some(due, taker);
            let step = if due < wanted { RAMP_STEP } else { LOOK };
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

    /// Opens members until there are `wanted`, as long as few enough are on their way.
    fn open_some(&mut self, wanted: usize, taker: &mut Taker<'_>) {
        let Self { lines, members } = self;
        while members.clients.len() < wanted
            && members.opening < members.plan.opening_max
            && members.refusal.is_none()
        {
            members.add(lines, taker);
        }
    }

    /// Progress of a phase that times no messages.
    pub(crate) fn progress(&self, unit: &'static str, done: usize, total: usize) -> Progress {
        let (done, total) = (done as u64, total as u64);
        Progress { phase: "", done, total, unit, p99: None, faults: self.tally().count() }
    }

    /// Deals with what comes, and waits for it until then at most.
    pub(crate) fn turn(&mut self, until: Instant, taker: &mut Taker<'_>) -> Result<(), BenchError> {
        let Self { lines, members } = self;
        let until = members.next_alarm().map_or(until, |alarm| until.min(alarm));
        lines.turn(until, &mut |lines, member, at, heard| {
            members.hear(lines, Arrival { member, at }, heard, taker);
        })?;
        members.ring(lines, taker);
        Ok(())
    }

    /// From now on nobody is told that its line ended, and so nobody comes back.
    pub(crate) fn keep_ends(&mut self) {
        self.members.keeps_ends = true;
    }

    /// Resets all lines, without a word to the server or to the clients.
    pub(crate) fn cut_all(&mut self) {
        let Self { lines, members } = self;
        for member in 0..members.clients.len() {
            lines.cut(member);
            members.keep_end(member, Lost::broken("its line was cut"));
        }
    }

    /// Tells everybody whose line ended, so that they come back, to these servers in turn; how many have a ticket to come
    /// back with. What ended their lines is what the storm is, and no fault.
    pub(crate) fn let_back(&mut self, targets: &[Target], taker: &mut Taker<'_>) -> usize {
        let Self { lines, members } = self;
        lines.go_to(targets);
        members.keeps_ends = false;
        let at = Instant::now();
        let clients = members.clients.iter();
        let n_tickets = clients.filter(|client| client.machine.has_ticket()).count();
        for member in 0..members.clients.len() {
            if let Some(lost) = members.clients[member].kept.take() {
                let now = members.moment(at);
                members.clients[member].machine.lost(lost, now);
                members.obey(lines, Arrival { member, at }, taker);
            }
        }
        members.tally.closes.clear();
        n_tickets
    }

    /// Ends all lines in order.
    pub(crate) fn close_all(&mut self) {
        self.lines.close_all();
    }
}
