//! One publisher and many members in each room.
//!
//! A run is a warm-up and a measured span. Each ends only when all that was published has arrived,
//! so that the server's processor time belongs to exactly the deliveries that are counted. It must
//! never count a delivery that is out of order.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::Report;
use crate::arguments::{Arguments, Length, Pace};
use crate::histogram::Histogram;
use crate::pool::{Arrival, Pool};
use crate::target::Target;
use crate::usage::Process;

/// What published data begins with; a number of this many hexadecimal digits follows.
const MARK: &[u8] = b"@@";
const DIGITS: usize = 16;
/// How long messages may be under way once no more are published.
const DRAIN_DEADLINE: Duration = Duration::from_secs(15);
/// How long a fixed number of messages may take.
const MESSAGES_DEADLINE: Duration = Duration::from_secs(300);
/// Silence behind the joins, longer than the kernel puts off an acknowledgement (40 ms). Without it some sockets
/// acknowledge at once and others do not, by how long joining took, and that is a fifth of what a send costs.
const QUIET: Duration = Duration::from_millis(300);
/// Nearer than this to a due time the clock is watched instead of slept by.
const SPIN: Duration = Duration::from_millis(2);
const TURN_MAX: Duration = Duration::from_millis(20);

/// A message that some members don't have yet.
struct UnderWay {
    missing: usize,
    due: Instant,
}

#[derive(Default)]
struct Room {
    /// The number of the oldest message under way.
    oldest: u64,
    under_way: VecDeque<UnderWay>,
}

/// What has arrived, where, and what is still to come.
struct Ledger {
    rooms: Vec<Room>,
    /// By member: the number of the message that comes next.
    next: Vec<u64>,
    /// Of each room.
    readers: usize,
    published: u64,
    delivered: u64,
    /// Of the texts that were delivered.
    bytes: u64,
    astray: u64,
    latency: Histogram,
    /// Where the mark stood in the text before: it seldom moves.
    mark_at: usize,
}

impl Ledger {
    fn new(arguments: &Arguments) -> Self {
        Self {
            rooms: (0..arguments.rooms).map(|_| Room::default()).collect(),
            next: vec![0; arguments.connections],
            readers: arguments.members - arguments.stall,
            published: 0,
            delivered: 0,
            bytes: 0,
            astray: 0,
            latency: Histogram::default(),
            mark_at: 0,
        }
    }

    /// The number of the next message of a room, which is under way from now on.
    fn begin(&mut self, room: usize, due: Instant) -> u64 {
        let room = &mut self.rooms[room];
        room.under_way.push_back(UnderWay { missing: self.readers, due });
        self.published += 1;
        room.oldest + room.under_way.len() as u64 - 1
    }

    /// Whether the text was a message; if it was, it is booked.
    fn book(&mut self, arrival: Arrival, text: &[u8]) -> bool {
        let Some(number) = self.number(text) else { return false };
        let Arrival { member, room, at } = arrival;
        let room = &mut self.rooms[room];
        let place = number.checked_sub(room.oldest).unwrap_or(u64::MAX);
        let message = usize::try_from(place).ok().and_then(|place| room.under_way.get_mut(place));
        let (Some(message), true) = (message, self.next[member] == number) else {
            self.astray += 1;
            return true;
        };
        self.next[member] += 1;
        self.delivered += 1;
        self.bytes += text.len() as u64;
        self.latency.add(at.saturating_duration_since(message.due));
        message.missing -= 1;
        while room.under_way.front().is_some_and(|message| message.missing == 0) {
            room.under_way.pop_front();
            room.oldest += 1;
        }
        true
    }

    fn number(&mut self, text: &[u8]) -> Option<u64> {
        let is_mark = |at: usize| text.get(at..at + MARK.len()) == Some(MARK);
        if !is_mark(self.mark_at) {
            self.mark_at = (0..text.len()).find(|&at| is_mark(at))?;
        }
        let start = self.mark_at + MARK.len();
        let digits = text.get(start..start + DIGITS)?;
        digits.iter().try_fold(0, |number, digit| {
            Some(number << 4 | u64::from(char::from(*digit).to_digit(16)?))
        })
    }

    fn is_settled(&self) -> bool {
        self.rooms.iter().all(|room| room.under_way.is_empty())
    }
}

/// Publishes at the pace that was asked for.
struct Publisher<'a> {
    target: &'a Target,
    pace: Pace,
    padding: String,
    /// When the next message of an open loop is due.
    due: Instant,
    /// Which room's turn it is in an open loop.
    turn: usize,
}

impl Publisher<'_> {
    /// Publishes what is due; says how long nothing more will be.
    fn publish(&mut self, pool: &mut Pool<'_>, ledger: &mut Ledger, most: u64) -> Duration {
        let rooms = ledger.rooms.len();
        match self.pace {
            Pace::Closed { window } => {
                for room in 0..rooms {
                    let now = Instant::now();
                    while ledger.rooms[room].under_way.len() < window && ledger.published < most {
                        self.say(pool, ledger, room, now);
                    }
                    pool.flush(room);
                }
                TURN_MAX
            }
            Pace::Open { step } => {
                while self.due <= Instant::now() && ledger.published < most {
                    let room = self.turn % rooms;
                    self.say(pool, ledger, room, self.due);
                    pool.flush(room);
                    self.turn += 1;
                    self.due += step;
                }
                self.due.saturating_duration_since(Instant::now()).saturating_sub(SPIN)
            }
        }
    }

    /// The first member of a room, which has the room's number, publishes.
    fn say(&self, pool: &mut Pool<'_>, ledger: &mut Ledger, room: usize, due: Instant) {
        let number = ledger.begin(room, due);
        let data = format!("@@{number:016x}{}", self.padding);
        pool.say(room, self.target.publish(room, &data).as_bytes());
    }
}

/// What a span has used and done.
struct Span {
    seconds: f64,
    cpu: Duration,
    published: u64,
    delivered: u64,
}

/// Publishes for this long and waits until all has arrived.
fn span(
    pool: &mut Pool<'_>,
    ledger: &mut Ledger,
    publisher: &mut Publisher<'_>,
    length: Length,
    process: Process,
) -> Span {
    ledger.latency = Histogram::default();
    let (published, delivered) = (ledger.published, ledger.delivered);
    let cpu = process.cpu();
    let start = Instant::now();
    publisher.due = start;
    let (end, most) = match length {
        Length::Time(time) => (start + time, u64::MAX),
        Length::Messages(each) => {
            (start + MESSAGES_DEADLINE, published + each * ledger.rooms.len() as u64)
        }
    };
    while Instant::now() < end && ledger.published < most && pool.closed == 0 {
        let idle = publisher.publish(pool, ledger, most);
        pool.turn(idle.min(TURN_MAX), |arrival, text| ledger.book(arrival, text));
    }
    let patience = Instant::now() + DRAIN_DEADLINE;
    while !ledger.is_settled() && Instant::now() < patience && pool.closed == 0 {
        pool.turn(TURN_MAX, |arrival, text| ledger.book(arrival, text));
    }
    Span {
        seconds: start.elapsed().as_secs_f64(),
        cpu: process.cpu() - cpu,
        published: ledger.published - published,
        delivered: ledger.delivered - delivered,
    }
}

pub(crate) fn run(arguments: &Arguments) -> Report {
    let process = Process(arguments.pid);
    let target = &arguments.target;
    let mut pool = Pool::open(target, arguments.addr, arguments.connections, arguments.rooms);
    pool.rest(QUIET);
    let stalled = pool.len() - arguments.stall * arguments.rooms..pool.len();
    stalled.for_each(|at| pool.stall(at));
    let mut ledger = Ledger::new(arguments);
    let mut publisher = Publisher {
        target,
        pace: arguments.pace,
        padding: "x".repeat(arguments.size.saturating_sub(MARK.len() + DIGITS)),
        due: Instant::now(),
        turn: 0,
    };
    if let Length::Time(_) = arguments.length {
        publisher.pace = arguments.warm_pace;
        span(&mut pool, &mut ledger, &mut publisher, Length::Time(arguments.warm), process);
        publisher.pace = arguments.pace;
    }
    let span = span(&mut pool, &mut ledger, &mut publisher, arguments.length, process);
    Report {
        json: json(arguments, &ledger, &span, process.memory()),
        faults: faults(&pool, &ledger),
    }
}

fn faults(pool: &Pool<'_>, ledger: &Ledger) -> Vec<String> {
    let expected = ledger.published * ledger.readers as u64;
    let mut faults = Vec::new();
    if ledger.delivered != expected {
        faults.push(format!("{} deliveries of {expected} came", ledger.delivered));
    }
    if ledger.astray > 0 {
        faults.push(format!("{} messages came out of order", ledger.astray));
    }
    if pool.closed > 0 {
        faults.push(format!("the server closed {} members that read", pool.closed));
    }
    faults.extend(pool.refusal.iter().map(|words| format!("the server refused: {words}")));
    faults
}

fn json(arguments: &Arguments, ledger: &Ledger, span: &Span, memory: u64) -> String {
    let cpu = span.cpu.as_secs_f64();
    let latency = &ledger.latency;
    format!(
        "{{\"mode\":\"fanout\",\"target\":\"{}\",\"rooms\":{},\"members\":{},\"size\":{},\
         \"seconds\":{:.3},\"published\":{},\"delivered\":{},\"publish_per_s\":{:.1},\
         \"deliveries_per_s\":{:.0},\"bytes_per_delivery\":{},\"cpu_ns_per_delivery\":{:.1},\"cpu_share\":{:.4},\
         \"p50_us\":{:.1},\"p99_us\":{:.1},\"p999_us\":{:.1},\"max_us\":{:.1},\
         \"memory_bytes\":{memory}}}",
        arguments.target.name(),
        arguments.rooms,
        arguments.members,
        arguments.size,
        span.seconds,
        span.published,
        span.delivered,
        span.published as f64 / span.seconds,
        span.delivered as f64 / span.seconds,
        ledger.bytes / ledger.delivered.max(1),
        cpu * 1e9 / span.delivered.max(1) as f64,
        cpu / span.seconds,
        latency.quantile_us(0.5),
        latency.quantile_us(0.99),
        latency.quantile_us(0.999),
        latency.max_us(),
    )
}
