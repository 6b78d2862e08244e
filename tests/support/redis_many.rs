//! Several private Redis servers: sentinels that watch one of them, or a Cluster.
//!
//! They end with their values.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::process::Process;
use crate::redis::{Redis, free_port};

/// How long anything here may take.
const SOON: Duration = Duration::from_secs(60);
/// What the sentinels call the master.
pub const MASTER: &str = "the-master";

/// Three sentinels.
#[derive(Debug)]
pub struct Sentinels {
    processes: Vec<Process>,
    ports: Vec<u16>,
    _folder: tempfile::TempDir,
}

impl Sentinels {
    /// Sentinels that watch this master, and find it gone after half a second.
    #[must_use]
    pub fn start(master: &Redis) -> Self {
        Self::start_with(master, "")
    }

    /// The same, with a password of their own.
    ///
    /// # Panics
    /// When they don't start.
    #[must_use]
    pub fn start_with(master: &Redis, more: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder can be made");
        let ports: Vec<_> = (0..3).map(|_| free_port()).collect();
        let start = |port: &u16| {
            let file = folder.path().join(format!("{port}.conf"));
            let at = master.port();
            let text = format!(
                "port {port}\nbind 127.0.0.1\ndir {}\nsentinel monitor {MASTER} 127.0.0.1 {at} 2\n\
                 sentinel down-after-milliseconds {MASTER} 500\nsentinel failover-timeout {MASTER} 5000\n{more}\n",
                folder.path().display()
            );
            std::fs::write(&file, text).expect("it can be written");
            let mut command = Command::new("redis-server");
            command.arg(&file).arg("--sentinel");
            let mut process = Process::start(command);
            loop {
                let line = process.next_line(SOON);
                let line = line.unwrap_or_else(|| panic!("it ended: {}", process.report()));
                if line.contains("+monitor") {
                    return process;
                }
            }
        };
        let processes = ports.iter().map(start).collect();
        Self { processes, ports, _folder: folder }
    }

    /// Where they are, as clients are told.
    #[must_use]
    pub fn url(&self) -> String {
        let hosts: Vec<_> = self.ports.iter().map(|port| format!("127.0.0.1:{port}")).collect();
        format!("redis+sentinel://{}/{MASTER}", hosts.join(","))
    }

    /// What the first of them answers.
    #[must_use]
    pub fn ask(&self, command: &[&str]) -> String {
        ask(self.ports[0], command)
    }

    /// Waits until all of them know of a replica and of each other: before, nobody can be elected.
    ///
    /// # Panics
    /// When they don't.
    pub fn until_ready(&self) {
        let begin = Instant::now();
        let is_ready = |port: &u16| {
            let known = ask(*port, &["SENTINEL", "MASTER", MASTER]);
            let is = |name: &str, number: &str| known.contains(&format!("{name}\n{number}\n"));
            is("num-slaves", "1") && is("num-other-sentinels", "2")
        };
        while !self.ports.iter().all(is_ready) {
            assert!(begin.elapsed() < SOON, "{}", self.ask(&["SENTINEL", "MASTER", MASTER]));
        }
    }

    /// Ends all of them but so many.
    pub fn kill_all_but(&mut self, left: usize) {
        for process in self.processes.iter_mut().skip(left) {
            process.kill();
        }
    }
}

/// A Cluster of masters, and replicas of them where it has any.
#[derive(Debug)]
pub struct Shards {
    /// The masters first.
    pub servers: Vec<Redis>,
}

impl Shards {
    /// Three masters with a third of the slots each.
    #[must_use]
    pub fn start() -> Self {
        Self::start_with(0)
    }

    /// The same, the first so many of them with a replica.
    ///
    /// # Panics
    /// When they don't become one.
    #[must_use]
    pub fn start_with(replicas: usize) -> Self {
        let buses: Vec<_> = (0..3 + replicas).map(|_| free_port()).collect();
        let servers: Vec<_> = buses
            .iter()
            .map(|bus| {
                Redis::start_with(&[
                    "--save",
                    "",
                    "--cluster-enabled",
                    "yes",
                    "--cluster-node-timeout",
                    "1000",
                    "--cluster-port",
                    &bus.to_string(),
                    "--repl-diskless-sync-delay",
                    "0",
                ])
            })
            .collect();
        for (at, server) in servers.iter().enumerate() {
            let epoch = (at + 1).to_string();
            server.tell(&["CLUSTER", "SET-CONFIG-EPOCH", &epoch]);
            if at < 3 {
                let (first, last) =
                    (at * 5_461, if at == 2 { 16_383 } else { (at + 1) * 5_461 - 1 });
                server.tell(&["CLUSTER", "ADDSLOTSRANGE", &first.to_string(), &last.to_string()]);
            }
            let (port, bus) = (servers[0].port().to_string(), buses[0].to_string());
            server.tell(&["CLUSTER", "MEET", "127.0.0.1", &port, &bus]);
        }
        let number = format!("cluster_known_nodes:{}", servers.len());
        for server in &servers {
            server.until(&["CLUSTER", "INFO"], &number);
        }
        for (at, replica) in servers.iter().skip(3).enumerate() {
            let master = servers[at].ask(&["CLUSTER", "MYID"]);
            let begin = Instant::now();
            // It may not have heard of it yet.
            while !try_ask(replica.port(), &["CLUSTER", "REPLICATE", &master]).0 {
                assert!(begin.elapsed() < SOON);
            }
            replica.until(&["INFO", "replication"], "master_link_status:up");
        }
        for server in &servers {
            server.until(&["CLUSTER", "INFO"], "cluster_state:ok");
        }
        Self { servers }
    }

    /// Where they are, as clients are told.
    #[must_use]
    pub fn url(&self) -> String {
        let hosts: Vec<_> =
            self.servers.iter().map(|server| format!("127.0.0.1:{}", server.port())).collect();
        format!("redis+cluster://{}", hosts.join(","))
    }

    /// Which master has a slot, by its place in the list.
    ///
    /// # Panics
    /// When nobody has it.
    #[must_use]
    pub fn owner(&self, slot: u16) -> usize {
        let slots = self.servers[0].ask(&["CLUSTER", "NODES"]);
        let has = |line: &&str| {
            line.split(' ').skip(8).any(|range| {
                let (first, last) = range.split_once('-').unwrap_or((range, range));
                matches!((first.parse(), last.parse()), (Ok(first), Ok(last)) if (first..=last).contains(&slot))
            })
        };
        let line = slots.lines().find(has).expect("somebody has it");
        let is_it = |server: &Redis| line.contains(&format!("127.0.0.1:{}@", server.port()));
        self.servers.iter().position(is_it).expect("it is one of these")
    }

    /// Moves a slot with all its keys to another master.
    ///
    /// # Panics
    /// When it can't be.
    pub fn move_slot(&self, slot: u16, to: usize) {
        let from = self.owner(slot);
        let (source, target) = (&self.servers[from], &self.servers[to]);
        let (source_id, target_id) =
            (source.ask(&["CLUSTER", "MYID"]), target.ask(&["CLUSTER", "MYID"]));
        let slot = slot.to_string();
        target.tell(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &source_id]);
        source.tell(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &target_id]);
        loop {
            let keys = source.ask(&["CLUSTER", "GETKEYSINSLOT", &slot, "100"]);
            let keys: Vec<_> = keys.lines().filter(|line| !line.is_empty()).collect();
            if keys.is_empty() {
                break;
            }
            let port = target.port().to_string();
            let begin = ["MIGRATE", "127.0.0.1", &port, "", "0", "5000", "KEYS"];
            source.tell(&[&begin[..], &keys].concat());
        }
        for server in [target, source] {
            server.tell(&["CLUSTER", "SETSLOT", &slot, "NODE", &target_id]);
        }
    }
}

fn ask(port: u16, command: &[&str]) -> String {
    let (is_well, said) = try_ask(port, command);
    assert!(is_well, "{command:?}: {said}");
    said
}

fn try_ask(port: u16, command: &[&str]) -> (bool, String) {
    let mut cli = Command::new("redis-cli");
    cli.args(["-p", &port.to_string(), "-e"]).args(command).stdin(Stdio::null());
    let output = cli.output().expect("redis-cli runs");
    (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
}
