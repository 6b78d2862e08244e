//! What the system knows of this process, from `/proc`, under the names that every exporter uses.
//!
//! A value that can't be read is left out; it must never stop a scrape.

use std::fmt;
use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;

use crate::write::Writer;

/// In which Linux shows processor time to user space, on every machine.
const TICKS_PER_SECOND: f64 = 100.0;

/// Reads `/proc/self` at each scrape.
#[derive(Debug)]
pub(crate) struct Process {
    started_at: f64,
}

impl Process {
    pub(crate) fn new() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { started_at: since.as_secs_f64() }
    }
}

impl Collector for Process {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut out = Writer(encoder);
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        if let Some(bytes) = resident_bytes(&status) {
            out.gauge("process_resident_memory_bytes", "Memory of the process", bytes)?;
        }
        let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
        if let Some(seconds) = cpu_seconds(&stat) {
            out.seconds("process_cpu_seconds", "Processor time of the process", seconds)?;
        }
        if let Ok(folder) = fs::read_dir("/proc/self/fd") {
            out.gauge("process_open_fds", "Open file descriptors", folder.count() as f64)?;
        }
        let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
        if let Some(most) = descriptors_max(&limits) {
            out.gauge("process_max_fds", "The most file descriptors that may be open", most)?;
        }
        let help = "When the process started, in seconds since 1970";
        out.gauge("process_start_time_seconds", help, self.started_at)
    }
}

fn resident_bytes(status: &str) -> Option<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: f64 = line.trim().trim_end_matches("kB").trim().parse().ok()?;
    Some(kib * 1024.0)
}

/// Fields 14 and 15 of proc_pid_stat(5), counted behind the name in parentheses.
fn cpu_seconds(stat: &str) -> Option<f64> {
    let (_, behind) = stat.rsplit_once(')')?;
    let mut fields = behind.split_whitespace().skip(11);
    let user: f64 = fields.next()?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    Some((user + system) / TICKS_PER_SECOND)
}

/// The soft limit.
fn descriptors_max(limits: &str) -> Option<f64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_system_shows_is_read() {
        assert_eq!(resident_bytes("Name:\tx\nVmRSS:\t    2048 kB\n"), Some(2_097_152.0));
        let stat = "7 (a) b) S 1 2 3 4 5 6 7 8 9 10 150 50 0 0";
        assert_eq!(cpu_seconds(stat), Some(2.0));
        let limits = "Limit  Soft Limit  Hard Limit  Units\nMax open files  1024  4096  files\n";
        assert_eq!(descriptors_max(limits), Some(1_024.0));
    }

    #[test]
    fn what_is_not_there_is_nothing() {
        assert_eq!(resident_bytes(""), None);
        assert_eq!(cpu_seconds("7 (a) S"), None);
        assert_eq!(descriptors_max("Max open files unlimited"), None);
    }
}
