//! What the server's process uses, from /proc. Linux only.
//!
//! It must never be asked per message: reading it costs more than most of them.

use std::fs;
use std::io;
use std::time::Duration;

use crate::error::BenchError;

/// The process that is watched, if there is one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Process(pub(crate) Option<u32>);

/// What it had used at one moment.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage {
    /// Processor time of all threads that live, in user and kernel mode.
    pub(crate) cpu: Duration,
    /// Resident memory, in bytes; what the kernel holds for sockets is not in it.
    pub(crate) resident: u64,
}

impl Process {
    pub(crate) fn usage(self) -> Result<Option<Usage>, BenchError> {
        let Some(pid) = self.0 else { return Ok(None) };
        let read = || Ok(Usage { cpu: cpu(pid)?, resident: resident(pid)? });
        read().map(Some).map_err(|source| BenchError::Process { pid, source })
    }
}

/// As the scheduler counts it, to the nanosecond. A thread that ended takes its time with it; a
/// server at work ends none.
fn cpu(pid: u32) -> io::Result<Duration> {
    let mut spent = 0;
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        // A thread may end between the list and the look.
        let Ok(text) = fs::read_to_string(thread?.path().join("schedstat")) else { continue };
        spent += text.split_whitespace().next().and_then(|ns| ns.parse::<u64>().ok()).unwrap_or(0);
    }
    Ok(Duration::from_nanos(spent))
}

/// The exact sum over all mappings where one may see it, else the kernel's running count.
fn resident(pid: u32) -> io::Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"));
    let (text, name) = match text {
        Ok(text) if text.contains("Rss:") => (text, "Rss:"),
        Ok(_) | Err(_) => (fs::read_to_string(format!("/proc/{pid}/status"))?, "VmRSS:"),
    };
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kib.map(|kib| kib * 1024).ok_or_else(|| io::Error::other("the process has no memory"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ones_own_process_uses_something_and_a_process_that_is_none_is_named() {
        let usage = Process(Some(std::process::id())).usage().unwrap().unwrap();
        assert!(usage.resident > 100_000);
        assert!(Process(None).usage().unwrap().is_none());
        let error = Process(Some(u32::MAX)).usage().unwrap_err().to_string();
        assert!(error.contains("4294967295") && error.contains("--pid"), "{error}");
    }
}
