//! The second half of a storm: everybody comes back, and it is timed until each has everything.
//!
//! It must never try again: a room that is refused, or a message that does not come, is a fault.

use std::time::{Duration, Instant};

use crate::crowd::{Arrival, Crowd, Entry, LINGER, LOOK, Said};
use crate::error::BenchError;
use crate::frames::{self, Notice};
use crate::ledger::Ledger;
use crate::plan::{Plan, Storm};
use crate::report::{Opening, Progress, Report, Reporter, Results, Server, StormTimes, round};
use crate::storm::{Stand, rooms_of, slot};
use crate::usage::Process;

/// How far everybody is.
struct Return<'p> {
    plan: &'p Plan,
    storm: &'p Storm,
    ledger: Ledger,
    start: Instant,
    /// By member: messages that are missing, and whether its rooms were given back.
    missing: Vec<u32>,
    given_back: Vec<bool>,
    /// When each was complete.
    took: Vec<Duration>,
    gaps: u64,
    refused: u64,
    refusals: std::collections::BTreeMap<u16, u64>,
    progressed: Instant,
}

impl<'p> Return<'p> {
    /// `ledger` is that of before the cut, so that what comes again from then is seen.
    fn new(plan: &'p Plan, storm: &'p Storm, mut ledger: Ledger, begun: Instant) -> Self {
        let now = Instant::now();
        ledger.counts.delivered = 0;
        Self {
            plan,
            storm,
            ledger,
            start: begun,
            missing: vec![storm.missed * storm.rooms_each as u32; plan.connections],
            given_back: vec![false; plan.connections],
            took: Vec::with_capacity(plan.connections),
            gaps: 0,
            refused: 0,
            refusals: std::collections::BTreeMap::new(),
            progressed: now,
        }
    }

    fn take(&mut self, arrival: Arrival, said: &Said<'_>) {
        let member = arrival.member;
        let was_complete = self.is_complete(member);
        match said {
            Said::Notice(notice) => {
                if self.notice(member, notice) {
                    self.progressed = arrival.at;
                }
            }
            Said::Message(message) => {
                let Some(number) = message.number else {
                    self.ledger.counts.foreign += 1;
                    return;
                };
                let slot = slot(self.plan, self.storm, member, message.room);
                let Some(slot) = slot.filter(|_| number < self.published()) else {
                    return self.ledger.stray(member, number, || message.room.to_owned());
                };
                if self.ledger.take((member, slot), number, None, || message.room.to_owned()) {
                    self.missing[member] = self.missing[member].saturating_sub(1);
                    self.progressed = arrival.at;
                }
            }
        }
        if !was_complete && self.is_complete(member) {
            self.took.push(arrival.at.saturating_duration_since(self.start));
        }
    }

    /// How many messages each room has got altogether.
    fn published(&self) -> u32 {
        self.storm.before + self.storm.missed
    }

    fn is_complete(&self, member: usize) -> bool {
        self.given_back[member] && self.missing[member] == 0
    }

    /// Whether something was told that is waited for: a room, or a hole.
    fn notice(&mut self, member: usize, notice: &Notice<'_>) -> bool {
        if notice.kind == "gap" {
            self.gaps += 1;
            return true;
        }
        let Some(resumed) = &notice.resumed else { return false };
        if notice.id != Some(frames::CONNECT_ID) {
            return false;
        }
        let mut given = 0;
        for room in resumed {
            self.gaps += u64::from(room.gap.is_some());
            match &room.error {
                None => {
                    given += usize::from(slot(self.plan, self.storm, member, &room.room).is_some())
                }
                Some(error) => {
                    self.refused += 1;
                    *self.refusals.entry(error.code).or_default() += 1;
                }
            }
        }
        self.given_back[member] = given == self.storm.rooms_each;
        true
    }

    /// Counts what did not come, and says what is wrong.
    fn close(&mut self) -> Vec<String> {
        let published = self.published();
        let Self { plan, storm, ledger, .. } = self;
        for member in 0..plan.connections {
            for (slot, room) in rooms_of(member, storm.rooms_each, plan.rooms).enumerate() {
                ledger.close((member, slot), published, || plan.names.name(room));
            }
        }
        let rooms = storm.rooms_each as u64 * plan.connections as u64;
        ledger.counts.expected = rooms * u64::from(storm.missed);
        ledger.counts.published = plan.rooms as u64 * u64::from(storm.missed);
        let mut faults = Vec::new();
        let (n, back) = (plan.connections, self.took.len());
        if back < n {
            faults.push(format!("{} of {n} connections did not get everything back", n - back));
        }
        if self.gaps > 0 {
            let words = "holes were told: the server no longer had what was missed";
            faults.push(format!("{} {words}", self.gaps));
        }
        let refusals = self.refusals.iter();
        faults
            .extend(refusals.map(|(code, n)| format!("{n} rooms were refused with error {code}")));
        faults.extend(ledger.faults());
        faults
    }

    fn times(&self, with_ticket: usize) -> StormTimes {
        let n = self.plan.connections;
        let mut took = self.took.clone();
        took.sort_unstable();
        // Of all connections, so that those that never came count as the slowest.
        let at = |share: f64| {
            let place = ((n as f64 * share).ceil() as usize).saturating_sub(1);
            took.get(place).map(|time| round(time.as_secs_f64(), 3))
        };
        StormTimes {
            back: took.len(),
            with_ticket,
            p50_s: at(0.5),
            p90_s: at(0.9),
            p99_s: at(0.99),
            max_s: took.last().map(|time| round(time.as_secs_f64(), 3)),
            gaps: self.gaps,
            rooms_refused: self.refused,
        }
    }
}

/// What is there when everybody has been cut off.
pub(crate) struct Left {
    pub(crate) stand: Stand,
    pub(crate) ledger: Ledger,
    pub(crate) opening: Opening,
    /// When the clock starts.
    pub(crate) begun: Instant,
}

pub(crate) fn come_back(
    plan: &Plan,
    storm: &Storm,
    left: Left,
    progress: &mut Reporter<'_>,
) -> Result<Report, BenchError> {
    let Left { stand, ledger, opening, begun } = left;
    let words = |member: usize| {
        let rooms = rooms_of(member, storm.rooms_each, plan.rooms).map(|room| {
            let epoch = stand.epochs[room].as_deref().unwrap_or_default().to_owned();
            (plan.names.name(room), epoch, stand.offsets[room])
        });
        frames::connect(stand.sessions[member].as_deref(), &rooms.collect::<Vec<_>>())
    };
    let mut crowd = Crowd::at(storm.returns_to(plan), plan, Entry::Resume(&words), 0)?;
    let process = Process(plan.pid);
    // After a restart the process is another one, of which nothing is known.
    let before = process.usage().unwrap_or_default();
    let mut back = Return::new(plan, storm, ledger, begun);
    while back.took.len() < plan.connections && back.progressed.elapsed() < plan.patience {
        crowd.open_some(plan.connections)?;
        crowd.turn(Instant::now() + LOOK, &mut |arrival, said| back.take(arrival, &said))?;
        progress.tell("coming back", || {
            let (done, total) = (back.took.len(), plan.connections);
            let faults = back.gaps + back.refused + back.ledger.counts.faults();
            let told = crowd.progress("connections", done, total);
            Progress { faults: faults + told.faults, ..told }
        });
    }
    let took = back.start.elapsed();
    let server =
        Server::between(plan.pid, before, before, process.usage().unwrap_or_default(), took);
    let until = Instant::now() + LINGER;
    while Instant::now() < until {
        crowd.turn(until, &mut |arrival, said| back.take(arrival, &said))?;
    }
    let mut faults = back.close();
    faults.extend(crowd.tally().faults());
    crowd.close_all();
    let with_ticket = stand.sessions.iter().flatten().count();
    Ok(Report {
        passed: faults.is_empty(),
        faults,
        opening,
        results: Results::Storm(back.times(with_ticket)),
        deliveries: Some(back.ledger.counts),
        errors: crowd.tally().errors.clone(),
        closes: crowd.tally().closes.clone(),
        server,
    })
}
