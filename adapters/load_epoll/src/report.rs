//! What came of a run, and how far it is meanwhile.
//!
//! It must never keep single values of what there are millions of.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::usage::Usage;

/// How often progress is told.
const EVERY: Duration = Duration::from_millis(250);
/// The longest time that is told apart from longer ones.
const TIME_NS_MAX: u64 = 3_600_000_000_000;
/// Three digits of each time count.
const DIGITS: u8 = 3;

/// How far a run is.
#[derive(Clone, Debug)]
pub struct Progress {
    /// What is being done.
    pub phase: &'static str,
    /// How much of it is done.
    pub done: u64,
    /// Of how much.
    pub total: u64,
    /// Of what.
    pub unit: &'static str,
    /// What 99 of 100 messages stayed below, where messages are timed.
    pub p99: Option<Duration>,
    /// Errors, ends and messages out of order so far.
    pub faults: u64,
}

/// Tells progress, seldom enough to cost nothing.
pub(crate) struct Reporter<'a> {
    say: &'a mut dyn FnMut(&Progress),
    phase: &'static str,
    next: Instant,
}

impl<'a> Reporter<'a> {
    pub(crate) fn new(say: &'a mut dyn FnMut(&Progress)) -> Self {
        Self { say, phase: "", next: Instant::now() }
    }

    /// Tells it now and then, and each time a phase begins.
    pub(crate) fn tell(&mut self, phase: &'static str, progress: impl FnOnce() -> Progress) {
        let now = Instant::now();
        if phase != self.phase || now >= self.next {
            (self.say)(&Progress { phase, ..progress() });
            self.phase = phase;
            self.next = now + EVERY;
        }
    }
}

/// Durations, in buckets of three digits.
pub(crate) struct Times(Option<Histogram<u64>>);

impl Times {
    pub(crate) fn new() -> Self {
        // The bounds are constants that the crate takes.
        Self(Histogram::new_with_bounds(1, TIME_NS_MAX, DIGITS).ok())
    }

    pub(crate) fn add(&mut self, time: Duration) {
        let ns = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        if let Some(histogram) = &mut self.0 {
            histogram.saturating_record(ns.max(1));
        }
    }

    pub(crate) fn len(&self) -> u64 {
        self.0.as_ref().map_or(0, Histogram::len)
    }

    pub(crate) fn p99(&self) -> Option<Duration> {
        let histogram = self.0.as_ref().filter(|histogram| !histogram.is_empty())?;
        Some(Duration::from_nanos(histogram.value_at_quantile(0.99)))
    }

    pub(crate) fn latency(&self) -> Option<Latency> {
        let histogram = self.0.as_ref().filter(|histogram| !histogram.is_empty())?;
        let us = |quantile| histogram.value_at_quantile(quantile) as f64 / 1e3;
        Some(Latency {
            count: histogram.len(),
            mean_us: round(histogram.mean() / 1e3, 1),
            p50_us: us(0.5),
            p90_us: us(0.9),
            p99_us: us(0.99),
            p999_us: us(0.999),
            max_us: histogram.max() as f64 / 1e3,
        })
    }
}

/// A number as a report shows it: with so many digits behind the point.
pub(crate) fn round(number: f64, digits: i32) -> f64 {
    let scale = 10_f64.powi(digits);
    (number * scale).round() / scale
}

/// How long things took, in microseconds.
#[derive(Clone, Debug, Serialize)]
pub struct Latency {
    /// How many there were.
    pub count: u64,
    /// Their mean.
    pub mean_us: f64,
    /// Half of them took no longer.
    pub p50_us: f64,
    /// Nine of ten.
    pub p90_us: f64,
    /// 99 of 100.
    pub p99_us: f64,
    /// 999 of 1000.
    pub p999_us: f64,
    /// All of them.
    pub max_us: f64,
}

/// How the connections came in.
#[derive(Clone, Debug, Serialize)]
pub struct Opening {
    /// How many.
    pub connections: usize,
    /// How long it took until all were in.
    pub seconds: f64,
    /// The server's processor time for each, in microseconds.
    pub cpu_us_per_connect: Option<f64>,
}

/// Whether everything came.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Deliveries {
    /// Messages that were due, warm-up included.
    pub published: u64,
    /// Of those, messages that could not be sent since their connection was gone or not read from.
    pub unsent: u64,
    /// Messages times members.
    pub expected: u64,
    /// What came of that, each counted once.
    pub delivered: u64,
    /// What did not come.
    pub lost: u64,
    /// What came again.
    pub duplicated: u64,
    /// What came behind something later.
    pub out_of_order: u64,
    /// Messages of this run that came to a connection that is not in their room, or that nobody had
    /// published.
    pub stray: u64,
    /// Messages in these rooms that are not of this run. They are no fault.
    pub foreign: u64,
}

impl Deliveries {
    /// What is known to be wrong meanwhile: what is lost is known at the end.
    pub(crate) fn faults(&self) -> u64 {
        self.unsent + self.duplicated + self.out_of_order + self.stray
    }
}

/// What the server's process used.
#[derive(Clone, Debug, Serialize)]
pub struct Server {
    /// Which one.
    pub pid: u32,
    /// Processor time in the measured time.
    pub cpu_seconds: f64,
    /// In parts of one processor: 1 is one of them all the time.
    pub cpu_share: f64,
    /// Resident memory before the first connection.
    pub resident_bytes_before: u64,
    /// Resident memory at the end of the measured time.
    pub resident_bytes: u64,
}

impl Server {
    /// From three moments: before all, at the start and at the end of what is measured.
    pub(crate) fn between(
        pid: Option<u32>,
        before: Option<Usage>,
        start: Option<Usage>,
        end: Option<Usage>,
        time: Duration,
    ) -> Option<Self> {
        let cpu = end?.cpu.saturating_sub(start?.cpu).as_secs_f64();
        Some(Self {
            pid: pid?,
            cpu_seconds: round(cpu, 6),
            cpu_share: round(cpu / time.as_secs_f64().max(1e-9), 5),
            resident_bytes_before: before?.resident,
            resident_bytes: end?.resident,
        })
    }
}

/// How long coming back took, from when everybody was free to, in seconds.
#[derive(Clone, Debug, Serialize)]
pub struct StormTimes {
    /// How many had everything.
    pub back: usize,
    /// How many had a ticket to say, and not only where they stood.
    pub with_ticket: usize,
    /// Until half of them had all.
    pub p50_s: Option<f64>,
    /// Nine of ten.
    pub p90_s: Option<f64>,
    /// 99 of 100.
    pub p99_s: Option<f64>,
    /// All of those that came back.
    pub max_s: Option<f64>,
    /// Holes that the server told of, or that stayed.
    pub gaps: u64,
    /// Rooms that the server did not give back, and not for the moment only.
    pub rooms_refused: u64,
}

/// What a kind of work has of its own.
#[derive(Clone, Debug, Serialize)]
#[serde(untagged)]
pub enum Results {
    /// An open loop.
    Flow {
        /// How long was measured.
        seconds: f64,
        /// Messages a second that were published in it.
        publish_per_s: f64,
        /// Deliveries a second in it.
        deliveries_per_s: f64,
        /// From when a message was due to when it was here.
        latency: Option<Latency>,
        /// From when a message was due to when this tool got to send it: how far the tool itself
        /// was behind.
        send_lag: Option<Latency>,
        /// The server's processor time for each delivery, in nanoseconds.
        cpu_ns_per_delivery: Option<f64>,
    },
    /// Connections that stay.
    Idle {
        /// How long was measured.
        seconds: f64,
        /// Growth of the server's resident memory by each connection.
        resident_bytes_per_connection: Option<f64>,
        /// Share of one processor for 1,000 of them.
        cpu_percent_per_1000: Option<f64>,
        /// Pings of the server that were answered in it.
        pings: u64,
    },
    /// Everybody comes back.
    Storm(StormTimes),
}

/// What came of a run.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Whether everything came, once and in order, and nobody was closed.
    pub passed: bool,
    /// What did not, in words.
    pub faults: Vec<String>,
    /// How the connections came in.
    pub opening: Opening,
    /// What the work has of its own.
    pub results: Results,
    /// Whether everything came, where messages are published.
    pub deliveries: Option<Deliveries>,
    /// Errors of the server by code.
    pub errors: BTreeMap<u16, u64>,
    /// Connections that ended early, by close code; 1006 is an end without one.
    pub closes: BTreeMap<u16, u64>,
    /// The server's process, where it is known.
    pub server: Option<Server>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_the_values_to_three_digits() {
        let mut times = Times::new();
        (1..=10_000).for_each(|us| times.add(Duration::from_micros(us)));
        let latency = times.latency().unwrap();
        let near = |found: f64, us: f64| assert!((found - us).abs() <= us / 500.0, "{found} {us}");
        near(latency.p50_us, 5_000.0);
        near(latency.p90_us, 9_000.0);
        near(latency.p99_us, 9_900.0);
        near(latency.p999_us, 9_990.0);
        near(latency.max_us, 10_000.0);
        near(latency.mean_us, 5_000.5);
        assert_eq!(latency.count, 10_000);
        assert!(Times::new().latency().is_none());
    }

    #[test]
    fn a_time_beyond_all_bounds_counts_as_the_longest() {
        let mut times = Times::new();
        times.add(Duration::MAX);
        times.add(Duration::ZERO);
        assert_eq!(times.len(), 2);
        assert!(times.latency().unwrap().max_us >= 3.5e9);
    }
}
