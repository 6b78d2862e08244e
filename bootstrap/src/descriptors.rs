//! How many files and sockets the process may have open.
//!
//! It only raises the soft limit to the hard one; more is the operator's to give.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Below this many, a server is told to be small.
const COMFORTABLE: u64 = 65_535;
/// What the process needs besides connections: files, threads' wakers, the listener, the log.
const RESERVED: u64 = 64;

/// The limit that counts; none means no limit.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Descriptors {
    /// The soft limit.
    pub soft: Option<u64>,
    /// The hard limit.
    pub hard: Option<u64>,
}

/// Raises the soft limit to the hard one and answers what counts then. A system that refuses
/// leaves it as it is.
#[must_use]
pub fn raise() -> Descriptors {
    let before = getrlimit(Resource::Nofile);
    if before.current != before.maximum {
        let wanted = Rlimit { current: before.maximum, maximum: before.maximum };
        // Refused: what counts is read below.
        let _ = setrlimit(Resource::Nofile, wanted);
    }
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    Descriptors { soft: current, hard: maximum }
}

impl Descriptors {
    /// The connections that fit, at most `connections_max`.
    #[must_use]
    pub fn connections_that_fit(self, connections_max: u32) -> u32 {
        let free = self.soft.map_or(u64::MAX, |soft| soft.saturating_sub(RESERVED));
        u32::try_from(free).unwrap_or(u32::MAX).min(connections_max)
    }

    /// What the operator should know, if anything.
    #[must_use]
    pub fn warning(self, connections_max: u32) -> Option<String> {
        let soft = self.soft?;
        let fit = self.connections_that_fit(connections_max);
        if fit < connections_max {
            return Some(format!(
                "the system allows {soft} open files, so at most {fit} connections and not \
                 server.connections_max = {connections_max}; raise LimitNOFILE or ulimit -n"
            ));
        }
        (soft < COMFORTABLE).then(|| {
            format!("the system allows only {soft} open files; raise LimitNOFILE or ulimit -n")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_soft_limit_becomes_the_hard_one() {
        let raised = raise();
        assert_eq!(raised.soft, raised.hard);
    }

    /// C08.
    #[test]
    fn more_connections_than_open_files_are_warned_of_and_lowered() {
        let few = Descriptors { soft: Some(1_024), hard: Some(1_024) };
        assert_eq!(few.connections_that_fit(100_000), 960);
        assert!(few.warning(100_000).unwrap().contains("at most 960 connections"));
        assert!(few.warning(10).unwrap().contains("1024"));
        let many = Descriptors { soft: Some(1 << 20), hard: None };
        assert_eq!(many.connections_that_fit(100_000), 100_000);
        assert_eq!(many.warning(100_000), None);
        assert_eq!(Descriptors { soft: None, hard: None }.warning(u32::MAX), None);
    }
}
