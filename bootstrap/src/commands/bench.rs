//! `roomkeeper bench`: makes a plan of what was written, lets it be carried out, shows how far it
//! is, and writes the report.
//!
//! It must never print a token, and never call a run good that was not.

use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use auth_jwt::{MintError, RoomGrant, TokenRequest, mint};
use domain::principal::Action;
use domain::time::Wall;
use load_epoll::{
    AddressError, BenchError, Cut, Idle, Load, PUBLISHERS, Plan, Progress, Report, Results, Storm,
    Target, Work,
};
use secrecy::SecretString;
use serde::Serialize;
use serde_json::{Value, json};
use thiserror::Error;

use crate::cli::bench::{self as words, BenchCommand};
use crate::commands::token_create::{TokenCreateError, signing_key};
use crate::commands::version::{VERSION, build};
use crate::descriptors;
use crate::settings::Settings;

/// How long a token that is made for a run counts: longer than any run.
const TOKEN_TTL: Duration = Duration::from_secs(25 * 60 * 60);
/// How often a line says how far it is where nobody watches it.
const PLAIN_EVERY: Duration = Duration::from_secs(5);

/// Why there is no report.
#[derive(Debug, Error)]
pub enum BenchFailed {
    /// An address can't be used.
    #[error("{url}")]
    Address {
        /// As it was written.
        url: String,
        /// Why.
        #[source]
        source: AddressError,
    },
    /// No tokens can be made.
    #[error("--mint can't make tokens")]
    Tokens(#[source] TokenCreateError),
    /// A token can't be made.
    #[error("--mint can't make tokens")]
    Mint(#[source] MintError),
    /// There is no randomness.
    #[error("the system gives no random numbers")]
    Random(#[source] getrandom::Error),
    /// Nothing can be measured.
    #[error(transparent)]
    Bench(#[from] BenchError),
    /// The report can't be written.
    #[error("can't write the report to {place}")]
    Output {
        /// Where to.
        place: String,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl BenchFailed {
    /// Whether the words of the command line are at fault.
    #[must_use]
    pub fn is_usage(&self) -> bool {
        match self {
            Self::Address { .. } => true,
            Self::Bench(error) => error.is_usage(),
            Self::Tokens(_) | Self::Mint(_) | Self::Random(_) | Self::Output { .. } => false,
        }
    }

    /// Whether the settings are at fault.
    #[must_use]
    pub fn is_settings(&self) -> bool {
        matches!(self, Self::Tokens(_))
    }
}

/// The whole report.
#[derive(Serialize)]
struct Whole<'a> {
    command: &'static str,
    tool: Value,
    settings: Value,
    #[serde(flatten)]
    report: &'a Report,
}

/// Measures, and writes the report; whether everything came.
///
/// `settings` are asked for only where tokens are to be made.
///
/// # Errors
/// [`BenchFailed`] when there is nothing to report.
pub fn execute(
    command: &BenchCommand,
    settings: Option<&Settings>,
    now: Wall,
    out: &mut dyn Write,
    errors: &mut dyn Write,
) -> Result<bool, BenchFailed> {
    let target = target_of(command);
    let plan = plan(command, settings, now)?;
    // Refused: the plan's own check says what is missing.
    let _ = descriptors::raise();
    let mut line = ProgressLine::new(errors, io::stderr().is_terminal());
    let report = load_epoll::run(&plan, &mut |progress| line.show(progress));
    line.end();
    let report = report?;
    let whole = Whole {
        command: word_of(command),
        tool: build(),
        settings: shown(command, &plan),
        report: &report,
    };
    // A report is plain data.
    let text = serde_json::to_string_pretty(&whole).unwrap_or_default();
    write(target.json.as_ref(), &text, out)?;
    // Whoever reads standard error may be gone; the exit code still tells.
    let _ = summary(&report, errors);
    Ok(report.passed)
}

fn write(file: Option<&PathBuf>, text: &str, out: &mut dyn Write) -> Result<(), BenchFailed> {
    let (place, written) = match file {
        Some(file) => (file.display().to_string(), std::fs::write(file, format!("{text}\n"))),
        None => ("standard output".to_owned(), writeln!(out, "{text}")),
    };
    written.map_err(|source| BenchFailed::Output { place, source })
}

fn target_of(command: &BenchCommand) -> &words::Target {
    match command {
        BenchCommand::Fanout(args) => &args.target,
        BenchCommand::Echo(args) => &args.target,
        BenchCommand::Idle(args) => &args.target,
        BenchCommand::Storm(args) => &args.target,
    }
}

/// Whether tokens are to be made with the secret of the settings.
#[must_use]
pub fn wants_settings(command: &BenchCommand) -> bool {
    target_of(command).mint
}

const fn word_of(command: &BenchCommand) -> &'static str {
    match command {
        BenchCommand::Fanout(_) => "fanout",
        BenchCommand::Echo(_) => "echo",
        BenchCommand::Idle(_) => "idle",
        BenchCommand::Storm(_) => "storm",
    }
}

fn plan(
    command: &BenchCommand,
    settings: Option<&Settings>,
    now: Wall,
) -> Result<Plan, BenchFailed> {
    let target = target_of(command);
    let resolve = |url: &String| {
        Target::resolve(url).map_err(|source| BenchFailed::Address { url: url.clone(), source })
    };
    let all = |urls: &[String]| urls.iter().map(resolve).collect::<Result<Vec<_>, _>>();
    let targets = all(&target.urls)?;
    let (rooms, work) = match command {
        BenchCommand::Fanout(args) => (args.rooms, Work::Fanout(load(&args.load))),
        BenchCommand::Echo(args) => (args.target.connections, Work::Echo(load(&args.load))),
        BenchCommand::Idle(args) => {
            (args.rooms, Work::Idle(Idle { settle: args.settle, duration: args.duration }))
        }
        BenchCommand::Storm(args) => (args.rooms, Work::Storm(storm(args, all(&args.back)?))),
    };
    let tokens = match (&target.token, settings.filter(|_| target.mint)) {
        (Some(token), _) => vec![token.clone()],
        (None, Some(settings)) => tokens(target, settings, now)?,
        (None, None) => Vec::new(),
    };
    Ok(Plan {
        targets,
        connections: target.connections,
        rooms,
        names: target.room.clone(),
        tokens,
        seed: target.seed,
        run: getrandom::u32().map_err(BenchFailed::Random)?,
        ramp: target.ramp,
        opening_max: target.opening,
        patience: target.patience,
        pid: target.pid,
        work,
    })
}

fn load(args: &words::Load) -> Load {
    let words::Load { rate, size, duration, warm_up } = *args;
    Load { rate, size, duration, warm_up }
}

fn storm(args: &words::Storm, back: Vec<Target>) -> Storm {
    let cut = match (args.restart, back.is_empty()) {
        (true, _) => Cut::Restart,
        (false, true) => Cut::Lines,
        (false, false) => Cut::Death,
    };
    Storm { rooms_each: args.rooms_each, before: args.before, missed: args.missed, cut, back }
}

/// A token for each connection and each publisher.
fn tokens(
    target: &words::Target,
    settings: &Settings,
    now: Wall,
) -> Result<Vec<SecretString>, BenchFailed> {
    let key = signing_key(settings).map_err(BenchFailed::Tokens)?;
    let allow = vec![Action::Subscribe, Action::Publish];
    let grant = RoomGrant { pattern: target.room.pattern(), allow };
    let one = |n: usize| {
        let request = TokenRequest {
            subject: format!("bench-{n}"),
            rooms: vec![grant.clone()],
            ttl: TOKEN_TTL,
            issuer: settings.auth.issuer.clone(),
            audience: settings.auth.audience.clone(),
            ..TokenRequest::default()
        };
        mint(&request, &key, now).map(SecretString::from).map_err(BenchFailed::Mint)
    };
    (0..target.connections + PUBLISHERS).map(one).collect()
}

/// The settings of a run, as the report has them.
fn shown(command: &BenchCommand, plan: &Plan) -> Value {
    let target = target_of(command);
    let who = match (&target.token, target.mint) {
        (Some(_), _) => "one token",
        (None, true) => "a token for each",
        (None, false) => "nobody",
    };
    let mut shown = json!({
        "urls": target.urls,
        "connections": plan.connections,
        "rooms": plan.rooms,
        "room": format!("{}", target.room),
        "as": who,
        "seed": plan.seed,
        "ramp_ms": millis(plan.ramp),
        "opening": plan.opening_max,
        "patience_ms": millis(plan.patience),
    });
    let own = match &plan.work {
        Work::Fanout(load) | Work::Echo(load) => json!({
            "rate": load.rate,
            "size": load.size,
            "duration_ms": millis(load.duration),
            "warm_up_ms": millis(load.warm_up),
        }),
        Work::Idle(idle) => json!({
            "settle_ms": millis(idle.settle),
            "duration_ms": millis(idle.duration),
        }),
        Work::Storm(storm) => json!({
            "rooms_each": storm.rooms_each,
            "before": storm.before,
            "missed": storm.missed,
            "cut_by": match storm.cut {
                Cut::Lines => "reset",
                Cut::Restart => "restart",
                Cut::Death => "death",
            },
        }),
    };
    if let (Value::Object(shown), Value::Object(own)) = (&mut shown, own) {
        shown.extend(own);
    }
    shown
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// How far it is: one line that is written over on a terminal, and now and then a line elsewhere.
struct ProgressLine<'a> {
    out: &'a mut dyn Write,
    terminal: bool,
    phase: &'static str,
    next: Instant,
}

impl<'a> ProgressLine<'a> {
    fn new(out: &'a mut dyn Write, terminal: bool) -> Self {
        Self { out, terminal, phase: "", next: Instant::now() }
    }

    fn show(&mut self, progress: &Progress) {
        let Progress { phase, done, total, unit, p99, faults } = progress;
        let mut text = format!("{phase}: {done} of {total} {unit}");
        if let Some(p99) = p99 {
            text.push_str(&format!(", p99 {}", shown_time(*p99)));
        }
        if *faults > 0 {
            text.push_str(&format!(", {faults} faults"));
        }
        // Nobody may be there to see it.
        if self.terminal {
            let _ = write!(self.out, "\r\x1b[2K{text}").and_then(|()| self.out.flush());
        } else if *phase != self.phase || Instant::now() >= self.next {
            let _ = writeln!(self.out, "{text}");
            self.next = Instant::now() + PLAIN_EVERY;
        }
        self.phase = phase;
    }

    fn end(&mut self) {
        if self.terminal && !self.phase.is_empty() {
            let _ = write!(self.out, "\r\x1b[2K");
        }
    }
}

fn shown_time(time: Duration) -> String {
    let us = time.as_secs_f64() * 1e6;
    if us < 1e3 { format!("{us:.0} µs") } else { format!("{:.1} ms", us / 1e3) }
}

/// What came of it, for people.
fn summary(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    if let Some(deliveries) = &report.deliveries {
        let (delivered, expected) = (deliveries.delivered, deliveries.expected);
        writeln!(out, "{delivered} of {expected} deliveries came")?;
    }
    match &report.results {
        Results::Flow { latency: Some(latency), .. } => {
            let shown = |us: f64| shown_time(Duration::from_secs_f64(us / 1e6));
            let (p50, p99, max) = (latency.p50_us, latency.p99_us, latency.max_us);
            let (p50, p99, max) = (shown(p50), shown(p99), shown(max));
            writeln!(out, "from when it was due: p50 {p50}, p99 {p99}, at most {max}")?;
        }
        Results::Storm(times) => {
            let p99 = times.p99_s.map_or("not".to_owned(), |s| format!("after {s} s"));
            writeln!(out, "{} were back, 99 of 100 {p99}", times.back)?;
        }
        Results::Flow { .. } | Results::Idle { .. } => {}
    }
    for fault in &report.faults {
        writeln!(out, "roomkeeper: {fault}")?;
    }
    writeln!(out, "roomkeeper {VERSION}: {}", if report.passed { "passed" } else { "FAILED" })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(terminal: bool, phases: &[&'static str]) -> String {
        let mut out = Vec::new();
        let mut line = ProgressLine::new(&mut out, terminal);
        for (done, phase) in phases.iter().enumerate() {
            let p99 = Some(Duration::from_micros(1_500));
            line.show(&Progress {
                phase,
                done: done as u64,
                total: 9,
                unit: "messages",
                p99,
                faults: 0,
            });
        }
        line.end();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_terminal_has_one_line_and_a_file_a_line_for_each_phase() {
        let phases = ["measuring", "measuring", "waiting"];
        let watched = told(true, &phases);
        assert!(!watched.contains('\n') && watched.matches('\r').count() == 4, "{watched:?}");
        assert_eq!(
            told(false, &phases),
            "measuring: 0 of 9 messages, p99 1.5 ms\nwaiting: 2 of 9 messages, p99 1.5 ms\n"
        );
    }
}
