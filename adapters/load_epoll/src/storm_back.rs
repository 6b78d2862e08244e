//! The second half of a storm: everybody comes back, and it is timed until each has everything.
//!
//! It must never help: who comes back, when and with what is decided by each client's machine, and what a client had to
//! repair is a fault all the same.

use std::time::{Duration, Instant};

use domain::protocol::client_event::Event;

use crate::crowd::{Crowd, LINGER, LOOK};
use crate::error::BenchError;
use crate::members::{Arrival, Said};
use crate::plan::{Plan, Storm};
use crate::report::{Opening, Progress, Report, Reporter, Results, Server, StormTimes, round};
use crate::storm::Books;
use crate::usage::Process;

/// How far a member is.
#[derive(Clone, Copy)]
struct Progressed {
    /// Messages that are missing.
    missing: u32,
    /// Rooms that it has caught up in, on this connection and on any.
    rooms: usize,
    rooms_most: usize,
    /// Whether it has had everything.
    is_complete: bool,
}

/// How far everybody is.
struct Return<'p> {
    plan: &'p Plan,
    storm: &'p Storm,
    books: Books<'p>,
    start: Instant,
    members: Vec<Progressed>,
    /// When each was complete.
    took: Vec<Duration>,
    gaps: u64,
    refused: u64,
    /// When something last came that was waited for.
    progressed: Instant,
}

impl<'p> Return<'p> {
    /// `books` are those of before the cut, so that what comes again from then is seen.
    fn new(plan: &'p Plan, storm: &'p Storm, mut books: Books<'p>, begun: Instant) -> Self {
        books.ledger.counts.delivered = 0;
        let missing = storm.missed * storm.rooms_each as u32;
        let member = Progressed { missing, rooms: 0, rooms_most: 0, is_complete: false };
        Self {
            plan,
            storm,
            books,
            start: begun,
            members: vec![member; plan.connections],
            took: Vec::with_capacity(plan.connections),
            gaps: 0,
            refused: 0,
            progressed: Instant::now(),
        }
    }

    fn take(&mut self, arrival: Arrival, said: &Said<'_>) {
        let counts = self.books.take(arrival, said);
        let member = &mut self.members[arrival.member];
        if counts {
            member.missing = member.missing.saturating_sub(1);
            self.progressed = arrival.at;
        }
        match said {
            Said::Event(Event::Connected(_)) => member.rooms = 0,
            Said::Event(Event::CaughtUp { .. }) => {
                member.rooms += 1;
                // Who comes back again and again is not getting on.
                if member.rooms > member.rooms_most {
                    member.rooms_most = member.rooms;
                    self.progressed = arrival.at;
                }
            }
            Said::Event(Event::Gap(_)) => self.gaps += 1,
            Said::Event(Event::Unsubscribed { .. }) => self.refused += 1,
            Said::Event(_) | Said::Message(_) | Said::Acked | Said::Refused(_) => {}
        }
        if !member.is_complete && member.missing == 0 && member.rooms == self.storm.rooms_each {
            member.is_complete = true;
            self.took.push(arrival.at.saturating_duration_since(self.start));
        }
    }

    /// Counts what did not come, and says what is wrong.
    fn close(&mut self) -> Vec<String> {
        self.books.close();
        let mut faults = Vec::new();
        let (n, back) = (self.plan.connections, self.took.len());
        if back < n {
            faults.push(format!("{} of {n} connections did not get everything back", n - back));
        }
        if self.gaps > 0 {
            let words = "holes were told: the server no longer had what was missed";
            faults.push(format!("{} {words}", self.gaps));
        }
        if self.refused > 0 {
            faults.push(format!("{} rooms were not given back", self.refused));
        }
        faults.extend(self.books.ledger.faults());
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
pub(crate) struct Left<'p> {
    pub(crate) members: Crowd<'p>,
    pub(crate) books: Books<'p>,
    pub(crate) opening: Opening,
    /// When the clock starts.
    pub(crate) begun: Instant,
}

pub(crate) fn come_back(
    plan: &Plan,
    storm: &Storm,
    left: Left<'_>,
    progress: &mut Reporter<'_>,
) -> Result<Report, BenchError> {
    let Left { members: mut crowd, books, opening, begun } = left;
    let process = Process(plan.pid);
    // After a restart the process is another one, of which nothing is known.
    let before = process.usage().unwrap_or_default();
    let mut back = Return::new(plan, storm, books, begun);
    let with_ticket =
        crowd.let_back(storm.returns_to(plan), &mut |arrival, said| back.take(arrival, &said));
    while back.took.len() < plan.connections && back.progressed.elapsed() < plan.patience {
        crowd.turn(Instant::now() + LOOK, &mut |arrival, said| back.take(arrival, &said))?;
        progress.tell("coming back", || {
            let (done, total) = (back.took.len(), plan.connections);
            let faults = back.gaps + back.refused + back.books.ledger.counts.faults();
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
    Ok(Report {
        passed: faults.is_empty(),
        faults,
        opening,
        results: Results::Storm(back.times(with_ticket)),
        deliveries: Some(back.books.ledger.counts),
        errors: crowd.tally().errors.clone(),
        closes: crowd.tally().closes.clone(),
        server,
    })
}
