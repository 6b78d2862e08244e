//! What a process has used, from /proc. Linux only; without a process everything is zero.

use std::fs;
use std::time::Duration;

/// The process that is measured.
#[derive(Clone, Copy)]
pub(crate) struct Process(pub(crate) Option<u32>);

impl Process {
    /// Processor time of all threads that live, in user and kernel mode, as the scheduler counts
    /// it: to the nanosecond. A thread that ended takes its time with it; a server that is measured
    /// ends none.
    pub(crate) fn cpu(self) -> Duration {
        let Some(pid) = self.0 else { return Duration::ZERO };
        let folder = format!("/proc/{pid}/task");
        let threads = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{folder}: {error}"));
        let spent = threads.flatten().filter_map(|thread| {
            let text = fs::read_to_string(thread.path().join("schedstat")).ok()?;
            text.split_whitespace().next()?.parse::<u64>().ok()
        });
        Duration::from_nanos(spent.sum())
    }

    /// Resident memory, where a page that is shared counts in part; in bytes. What the kernel holds
    /// for sockets is not in it.
    pub(crate) fn memory(self) -> u64 {
        let Some(pid) = self.0 else { return 0 };
        let path = format!("/proc/{pid}/smaps_rollup");
        let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
        let line = text.lines().find_map(|line| line.strip_prefix("Pss:"));
        let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
        kib.expect("Pss is a number") * 1024
    }
}
