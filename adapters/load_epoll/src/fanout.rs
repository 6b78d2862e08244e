//! The open loop: messages are published when they are due, whatever the server does, and each
//! member's copy is timed from then.
//!
//! It must never hold a message back because an earlier one is late, and never have a loss repaired.

use std::time::{Duration, Instant};

use domain::room::RoomId;

use crate::client::Manner;
use crate::crowd::{Crowd, LINGER, LOOK};
use crate::error::BenchError;
use crate::ledger::Ledger;
use crate::members::{Arrival, Said};
use crate::messages::{self, DATA_BYTES_MIN, Message};
use crate::plan::{Load, Plan};
use crate::random::Random;
use crate::report::{Opening, Progress, Report, Reporter, Results, Server, Times, round};
use crate::schedule::Schedule;
use crate::usage::{Process, Usage};

/// Members that are asked at random whether they can publish, before all are.
const DRAWS_MAX: usize = 8;
/// How often it is looked whether all has come: looking costs as much as there are members.
const SETTLE_LOOK: Duration = Duration::from_millis(5);

/// What has been said and what has come.
struct Flow<'p> {
    plan: &'p Plan,
    schedule: Schedule,
    start: Instant,
    ledger: Ledger,
    latency: Times,
    send_lag: Times,
    said: u32,
    rooms: Vec<RoomId>,
    padding: String,
    random: Random,
    /// When the last delivery that was measured came.
    last: Instant,
    progressed: Instant,
}

impl<'p> Flow<'p> {
    fn new(plan: &'p Plan, load: &Load, schedule: Schedule, rooms: Vec<RoomId>) -> Self {
        let mut random = Random::new(plan.seed);
        let padding = random.letters(load.size.saturating_sub(DATA_BYTES_MIN));
        let now = Instant::now();
        Self {
            plan,
            schedule,
            start: now,
            ledger: Ledger::new(plan.connections, 1),
            latency: Times::new(),
            send_lag: Times::new(),
            said: 0,
            rooms,
            padding,
            random,
            last: now,
            progressed: now,
        }
    }

    fn due(&self, k: u32) -> Instant {
        self.start + self.schedule.due(k)
    }

    /// When the measured time begins.
    fn measured_from(&self) -> Instant {
        self.due(self.schedule.measured_from)
    }

    /// Publishes all that is due.
    fn publish(&mut self, crowd: &mut Crowd<'_>, end: u32) {
        while self.said < end {
            let now = Instant::now();
            let due = self.due(self.said);
            if due > now {
                return;
            }
            if self.said >= self.schedule.measured_from {
                self.send_lag.add(now - due);
            }
            let (room, number) = self.schedule.place(self.said);
            self.said += 1;
            let text = messages::text(self.plan.run, number, &self.padding);
            let sent = match self.draw(crowd, room) {
                Some(member) if self.plan.is_verbatim() => crowd.say(member, &text),
                Some(member) => crowd.say(member, &messages::publish(&self.rooms[room], &text)),
                None => false,
            };
            self.ledger.counts.unsent += u64::from(!sent);
        }
    }

    /// Somebody in the room, by the seed.
    fn draw(&mut self, crowd: &Crowd<'_>, room: usize) -> Option<usize> {
        let (members, rooms) = (self.plan.members_of(room), self.plan.rooms);
        let nth = |n: usize| room + n * rooms;
        let drawn = (0..DRAWS_MAX).map(|_| nth(self.random.below(members)));
        let drawn = drawn.collect::<Vec<_>>().into_iter().find(|member| crowd.is_in(*member));
        drawn.or_else(|| (0..members).map(nth).find(|member| crowd.is_in(*member)))
    }

    fn take(&mut self, arrival: Arrival, message: Message<'_>) {
        let room = arrival.member % self.plan.rooms;
        let Some(number) = message.number else {
            self.ledger.counts.foreign += 1;
            return;
        };
        let here = self.plan.is_verbatim() || message.room == self.rooms[room].as_str();
        let known = self.schedule.message(room, number).filter(|k| here && *k < self.said);
        let Some(k) = known else {
            return self.ledger.stray(arrival.member, number, || message.room.to_owned());
        };
        let rooms = &self.rooms;
        // Anybody in the room may have said it.
        let offset = message.offset;
        if !self.ledger.take((arrival.member, 0), number, offset, || rooms[room].to_string()) {
            return;
        }
        self.progressed = arrival.at;
        if k >= self.schedule.measured_from {
            self.latency.add(arrival.at.saturating_duration_since(self.due(k)));
            self.last = arrival.at;
        }
    }

    /// Whether all that is still possible has come.
    fn is_settled(&self, crowd: &Crowd<'_>) -> bool {
        self.said == self.schedule.total
            && (0..self.plan.connections).all(|member| {
                !crowd.is_in(member) || self.ledger.missing((member, 0), self.owed(member)) == 0
            })
    }

    /// How many messages a member should have got.
    fn owed(&self, member: usize) -> u32 {
        self.schedule.of_room(member % self.plan.rooms, self.said)
    }

    fn progress(&self, crowd: &Crowd<'_>) -> Progress {
        let counts = &self.ledger.counts;
        Progress {
            phase: "",
            done: u64::from(self.said),
            total: u64::from(self.schedule.total),
            unit: "messages",
            p99: self.latency.p99(),
            faults: counts.faults() + crowd.tally().count(),
        }
    }

    /// Publishes message after message up to `end`, and takes what comes meanwhile.
    fn go_to(
        &mut self,
        end: u32,
        phase: &'static str,
        crowd: &mut Crowd<'_>,
        progress: &mut Reporter<'_>,
    ) -> Result<(), BenchError> {
        while self.said < end {
            self.publish(crowd, end);
            let until = self.due(self.said.min(end)).min(Instant::now() + LOOK);
            self.turn(until, crowd)?;
            progress.tell(phase, || self.progress(crowd));
        }
        Ok(())
    }

    /// Waits for what is under way, as long as something comes.
    fn drain(
        &mut self,
        crowd: &mut Crowd<'_>,
        progress: &mut Reporter<'_>,
    ) -> Result<(), BenchError> {
        self.progressed = Instant::now();
        while !self.is_settled(crowd) && self.progressed.elapsed() < self.plan.patience {
            self.turn(Instant::now() + SETTLE_LOOK, crowd)?;
            progress.tell("waiting for the rest", || self.progress(crowd));
        }
        Ok(())
    }

    /// Takes what still comes although nothing is owed any more.
    fn linger(&mut self, crowd: &mut Crowd<'_>) -> Result<(), BenchError> {
        let until = Instant::now() + LINGER;
        while Instant::now() < until {
            self.turn(until, crowd)?;
        }
        Ok(())
    }

    fn turn(&mut self, until: Instant, crowd: &mut Crowd<'_>) -> Result<(), BenchError> {
        crowd.turn(until, &mut |arrival, said| {
            if let Said::Message(message) = said {
                self.take(arrival, message);
            }
        })
    }

    /// Counts what did not come.
    fn close(&mut self) {
        let said = u64::from(self.said);
        for member in 0..self.plan.connections {
            let (owed, room) = (self.owed(member), member % self.plan.rooms);
            let rooms = &self.rooms;
            self.ledger.counts.expected += u64::from(owed);
            self.ledger.close((member, 0), owed, || rooms[room].to_string());
        }
        self.ledger.counts.published = said;
    }
}

pub(crate) fn run(
    plan: &Plan,
    load: &Load,
    progress: &mut Reporter<'_>,
) -> Result<Report, BenchError> {
    let schedule = Schedule::new(load, plan.rooms)?;
    let process = Process(plan.pid);
    let before = process.usage()?;
    let rooms = plan.names.rooms(plan.rooms)?;
    let rooms_of = {
        let rooms = rooms.clone();
        move |member: usize| vec![rooms[member % rooms.len()].clone()]
    };
    // A plan for other endpoints than the protocol's is one of `echo`.
    let manner = if plan.is_verbatim() { Manner::Verbatim } else { Manner::Counting };
    let mut crowd = Crowd::new(plan, manner, Box::new(rooms_of))?;
    let begun = Instant::now();
    crowd.open_all(plan.connections, plan.ramp, progress, &mut |_, _| {})?;
    let opened = process.usage()?;
    let opening = opening(plan, begun.elapsed(), before, opened);
    let mut flow = Flow::new(plan, load, schedule, rooms);
    flow.go_to(schedule.measured_from, "warming up", &mut crowd, progress)?;
    let start = process.usage()?;
    flow.go_to(schedule.total, "measuring", &mut crowd, progress)?;
    flow.drain(&mut crowd, progress)?;
    let end = process.usage()?;
    let measured = flow.measured_from().elapsed();
    flow.linger(&mut crowd)?;
    flow.close();
    let server = Server::between(plan.pid, before, start, end, measured);
    let mut faults = flow.ledger.faults();
    faults.extend(crowd.tally().faults());
    crowd.close_all();
    let results = results(&flow, server.as_ref());
    Ok(Report {
        passed: faults.is_empty(),
        faults,
        opening,
        results,
        deliveries: Some(flow.ledger.counts),
        errors: crowd.tally().errors.clone(),
        closes: crowd.tally().closes.clone(),
        server,
    })
}

/// How the connections came in.
pub(crate) fn opening(
    plan: &Plan,
    took: Duration,
    before: Option<Usage>,
    opened: Option<Usage>,
) -> Opening {
    let cpu = opened.zip(before).map(|(after, before)| after.cpu.saturating_sub(before.cpu));
    let each = |cpu: Duration| round(cpu.as_secs_f64() * 1e6 / plan.connections as f64, 2);
    Opening {
        connections: plan.connections,
        seconds: round(took.as_secs_f64(), 3),
        cpu_us_per_connect: cpu.map(each),
    }
}

fn results(flow: &Flow<'_>, server: Option<&Server>) -> Results {
    let schedule = &flow.schedule;
    let (n, deliveries) = (schedule.total - schedule.measured_from, flow.latency.len());
    // Up to when the next message would have been due, or to the last delivery if that is later.
    let published = schedule.due(schedule.total) - schedule.due(schedule.measured_from);
    let delivered = flow.last.saturating_duration_since(flow.measured_from()).max(published);
    let per_second = |n: f64, time: Duration| round(n / time.as_secs_f64().max(1e-9), 1);
    Results::Flow {
        seconds: round(published.as_secs_f64(), 3),
        publish_per_s: per_second(f64::from(n), published),
        deliveries_per_s: per_second(deliveries as f64, delivered),
        latency: flow.latency.latency(),
        send_lag: flow.send_lag.latency(),
        cpu_ns_per_delivery: server
            .map(|server| round(server.cpu_seconds * 1e9 / deliveries.max(1) as f64, 1)),
    }
}
