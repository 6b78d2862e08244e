//! `roomkeeper bench`: what can be written, with its defaults.
//!
//! It must never connect to anything.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use load_epoll::RoomNames;
use secrecy::SecretString;

/// Where a server started without settings listens.
const URL_DEFAULT: &str = "ws://127.0.0.1:8000";

const AFTER_HELP: &str = "\
Examples:
  roomkeeper bench fanout --connections 500 --rate 100
  roomkeeper bench fanout ws://127.0.0.1:8000 --connections 10000 --rooms 1000 --rate 500 \\
      --duration 60s --mint --config /etc/roomkeeper.toml --pid 4242 --json report.json
  roomkeeper bench echo ws://127.0.0.1:8000/ws/bench --rate 1000
  roomkeeper bench idle --connections 10000 --rooms 1000 --pid 4242
  roomkeeper bench storm --connections 10000 --rooms 1000 --room 'chat:bench/{n}' --mint

The report is one JSON object on standard output or in --json FILE; how far it is stands on standard
error. Exit code 0 means that everything came, once and in order, and nobody was closed; 1 that
something did not, or that nothing could be measured. Servers other than ones own are not to be
measured without asking.";

/// `roomkeeper bench`.
#[derive(Args, Clone, Debug)]
#[command(after_help = AFTER_HELP)]
pub struct Bench {
    /// What is measured.
    #[command(subcommand)]
    pub command: BenchCommand,
}

/// What is measured.
#[derive(Clone, Debug, Subcommand)]
pub enum BenchCommand {
    /// Members of rooms publish at a fixed rate, all members receive
    ///
    /// Messages are due at fixed times, whatever the server does (an open loop), and each delivery is
    /// timed from when its message was due: a server that stalls shows it. Every message has a number;
    /// what is lost, comes twice or out of order is counted, named, and fails the run.
    Fanout(Fanout),
    /// Each connection is alone and gets back what it sends, at a fixed rate over all
    ///
    /// With the protocol's endpoint each connection has a room of its own. With another path, like
    /// ws://127.0.0.1:8000/ws/bench, texts are sent as they are to the echo endpoint
    /// (server.echo_endpoint).
    Echo(Echo),
    /// Connections only stay: memory of each, and processor time of 1,000 of them
    ///
    /// Both are known only with --pid.
    Idle(Idle),
    /// All connections are cut off and come back at once, with tickets, to what they missed
    ///
    /// Each joins some rooms. Then all lines are reset by this side, and more is published. With
    /// --restart the server is to be stopped now, and is waited for until its /readyz answers 200
    /// again. Then all come back as the product's clients do, after a back-off of up to 200 ms and
    /// --opening at a time, and it is timed from when they may until each has all its rooms and
    /// messages. After a restart only durable rooms still have what was
    /// missed. With --back nobody is cut off by this side: the server is to be ended while all are
    /// there, they come back to the servers that --back names, and it is timed from the first loss.
    Storm(Storm),
}

/// What all of them take.
#[derive(Args, Clone, Debug)]
pub struct Target {
    /// The servers, as ws://host:port; connections go to them in turn
    #[arg(value_name = "URL", default_value = URL_DEFAULT)]
    pub urls: Vec<String>,
    /// How many connections
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub connections: usize,
    /// Over how long they are opened, like 10s; 0s as fast as the server takes them
    #[arg(long, default_value = "0s", value_parser = time)]
    pub ramp: Duration,
    /// How many of them are on their way in at one time
    #[arg(long, value_name = "N", default_value_t = 256)]
    pub opening: usize,
    /// What the rooms are called; {n} stands for the number
    #[arg(long, value_name = "PATTERN", default_value = "public:bench/{n}", value_parser = names)]
    pub room: RoomNames,
    /// The token that all connect with; none connects as nobody
    #[arg(long, env = "ROOMKEEPER_TOKEN", hide_env_values = true)]
    pub token: Option<SecretString>,
    /// Make a token for each connection, each of a user of its own, with the secret that the
    /// settings name, as `token create` does
    #[arg(long, conflicts_with = "token")]
    pub mint: bool,
    /// Decides who publishes and what the data looks like
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// The server's process on this machine: its processor time and memory are reported
    #[arg(long, value_name = "PID")]
    pub pid: Option<u32>,
    /// How long nothing may happen that is waited for, like a connection or the last messages
    #[arg(long, default_value = "15s", value_parser = time)]
    pub patience: Duration,
    /// Write the report into this file and not to standard output
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// How messages come.
#[derive(Args, Clone, Debug)]
pub struct Load {
    /// Messages a second, over all rooms
    #[arg(long, value_name = "PER_SECOND", default_value_t = 100.0)]
    pub rate: f64,
    /// Bytes of data of each message, 18 or more
    #[arg(long, value_name = "BYTES", default_value_t = 64)]
    pub size: usize,
    /// For how long it is measured: 500ms, 10s or 5m
    #[arg(long, default_value = "10s", value_parser = time)]
    pub duration: Duration,
    /// For how long messages come before that; they are checked, but not timed
    #[arg(long, default_value = "2s", value_parser = time)]
    pub warm_up: Duration,
}

/// `roomkeeper bench fanout`.
#[derive(Args, Clone, Debug)]
pub struct Fanout {
    /// Whom and how many.
    #[command(flatten)]
    pub target: Target,
    /// How many rooms; connections go into them in turn
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub rooms: usize,
    /// How messages come.
    #[command(flatten)]
    pub load: Load,
}

/// `roomkeeper bench echo`.
#[derive(Args, Clone, Debug)]
pub struct Echo {
    /// Whom and how many.
    #[command(flatten)]
    pub target: Target,
    /// How messages come.
    #[command(flatten)]
    pub load: Load,
}

/// `roomkeeper bench idle`.
#[derive(Args, Clone, Debug)]
pub struct Idle {
    /// Whom and how many.
    #[command(flatten)]
    pub target: Target,
    /// How many rooms; connections go into them in turn, and into none with 0
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub rooms: usize,
    /// How long after the last one is in measuring begins
    #[arg(long, default_value = "2s", value_parser = time)]
    pub settle: Duration,
    /// For how long it is measured; two heartbeats of the server show each connection's share
    #[arg(long, default_value = "50s", value_parser = time)]
    pub duration: Duration,
}

/// `roomkeeper bench storm`.
#[derive(Args, Clone, Debug)]
pub struct Storm {
    /// Whom and how many.
    #[command(flatten)]
    pub target: Target,
    /// How many rooms
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub rooms: usize,
    /// Rooms of each connection
    #[arg(long, value_name = "N", default_value_t = 3)]
    pub rooms_each: usize,
    /// Messages that each room gets before
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub before: u32,
    /// Messages that each room gets while nobody is there
    #[arg(long, value_name = "N", default_value_t = 2)]
    pub missed: u32,
    /// Wait until the server has been stopped and started again, before all come back; a line that
    /// begins with `ready` on standard error says when to stop it
    #[arg(long)]
    pub restart: bool,
    /// Wait until the server has ended, and come back to this one instead; named more than once, to
    /// each in turn. A line that begins with `ready` on standard error says when to end it
    #[arg(long, value_name = "URL", conflicts_with = "restart")]
    pub back: Vec<String>,
}

fn names(text: &str) -> Result<RoomNames, String> {
    RoomNames::parse(text).map_err(|error| error.to_string())
}

fn time(text: &str) -> Result<Duration, String> {
    let allowed = "write it as a number with a unit, like 500ms, 3s or 1m, at most 24h";
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let number: u64 = digits.parse().map_err(|_| allowed)?;
    let unit_ms = match &text[digits.len()..] {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(allowed.to_owned()),
    };
    let ms = number.checked_mul(unit_ms).filter(|ms| *ms <= 86_400_000);
    ms.map(Duration::from_millis).ok_or_else(|| allowed.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_has_a_unit_and_may_be_nothing() {
        assert_eq!(time("0s"), Ok(Duration::ZERO));
        assert_eq!(time("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(time("2m"), Ok(Duration::from_secs(120)));
        for wrong in ["", "3", "s", "-1s", "25h", "1.5s", "99999999999999999999s"] {
            assert!(time(wrong).is_err(), "{wrong}");
        }
    }
}
