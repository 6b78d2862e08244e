//! Tells a service manager how the server is: ready, reloading, stopping, alive (sd_notify(3)).
//!
//! One datagram per news to the socket that `NOTIFY_SOCKET` names; without it nothing is said.
//! Nobody may wait for the manager, and a manager that does not listen changes nothing.

use std::ffi::{OsStr, OsString};
use std::fmt::Write;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// What the environment says about the service manager.
#[derive(Clone, Debug, Default)]
pub struct ManagerNames {
    /// `NOTIFY_SOCKET`: a path, or a name in the abstract namespace behind `@`.
    pub socket: Option<OsString>,
    /// `WATCHDOG_USEC`: the longest time between two signs of life, in microseconds.
    pub watchdog_usec: Option<OsString>,
    /// `WATCHDOG_PID`: the process that is watched, if it is said.
    pub watchdog_pid: Option<OsString>,
}

impl ManagerNames {
    /// Those of this process.
    #[must_use]
    pub fn of_process() -> Self {
        Self {
            socket: std::env::var_os("NOTIFY_SOCKET"),
            watchdog_usec: std::env::var_os("WATCHDOG_USEC"),
            watchdog_pid: std::env::var_os("WATCHDOG_PID"),
        }
    }
}

/// The way to the service manager, if there is one.
#[derive(Debug)]
pub struct ServiceManager {
    socket: Option<(UnixDatagram, SocketAddr)>,
    watchdog: Option<Duration>,
}

impl ServiceManager {
    /// Opens the way. `pid` is this process.
    ///
    /// # Errors
    /// The socket's name is none, or no socket can be made.
    pub fn open(names: &ManagerNames, pid: u32) -> io::Result<Self> {
        let Some(name) = names.socket.as_deref().filter(|name| !name.is_empty()) else {
            return Ok(Self { socket: None, watchdog: None });
        };
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        let socket = Some((socket, address(name)?));
        Ok(Self { socket, watchdog: watchdog(names, pid) })
    }

    /// How often [`alive`](Self::alive) should be said: twice as often as it must be.
    #[must_use]
    pub fn watchdog_interval(&self) -> Option<Duration> {
        self.watchdog.map(|longest| longest / 2)
    }

    /// It serves; `status` is for people.
    pub fn ready(&self, status: &str) {
        self.tell(&format!("READY=1\nSTATUS={status}\n"));
    }

    /// It reads its settings again; [`ready`](Self::ready) must follow.
    pub fn reloading(&self) {
        let now = clock_gettime(ClockId::Monotonic);
        let usec = i128::from(now.tv_sec) * 1_000_000 + i128::from(now.tv_nsec) / 1_000;
        self.tell(&format!("RELOADING=1\nMONOTONIC_USEC={usec}\n"));
    }

    /// It is about to end.
    pub fn stopping(&self, status: &str) {
        self.tell(&format!("STOPPING=1\nSTATUS={status}\n"));
    }

    /// A sign of life for the watchdog.
    pub fn alive(&self) {
        self.tell("WATCHDOG=1\n");
    }

    fn tell(&self, news: &str) {
        let Some((socket, address)) = &self.socket else { return };
        if let Err(error) = socket.send_to_addr(news.as_bytes(), address) {
            let what = news.split('=').next().unwrap_or_default();
            tracing::warn!(%error, what, "the service manager was not told");
        }
    }
}

fn address(name: &OsStr) -> io::Result<SocketAddr> {
    match name.as_bytes() {
        #[cfg(target_os = "linux")]
        [b'@', name @ ..] => {
            use std::os::linux::net::SocketAddrExt;
            SocketAddr::from_abstract_name(name)
        }
        [b'/', ..] => SocketAddr::from_pathname(name),
        _ => {
            let mut message = String::from("NOTIFY_SOCKET is no path and no abstract name: ");
            // Writing to a String cannot fail.
            let _ = write!(message, "{name:?}");
            Err(io::Error::new(io::ErrorKind::InvalidInput, message))
        }
    }
}

fn watchdog(names: &ManagerNames, pid: u32) -> Option<Duration> {
    let number = |text: &Option<OsString>| text.as_ref()?.to_str()?.parse::<u64>().ok();
    let is_ours = names.watchdog_pid.is_none() || number(&names.watchdog_pid) == Some(pid.into());
    let usec = number(&names.watchdog_usec).filter(|usec| is_ours && *usec > 0)?;
    Some(Duration::from_micros(usec))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(socket: &str, usec: &str, pid: &str) -> ManagerNames {
        let set = |text: &str| (!text.is_empty()).then(|| OsString::from(text));
        ManagerNames { socket: set(socket), watchdog_usec: set(usec), watchdog_pid: set(pid) }
    }

    fn heard(manager: &UnixDatagram) -> String {
        let mut news = [0; 256];
        manager.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let n_bytes = manager.recv(&mut news).unwrap();
        String::from_utf8(news[..n_bytes].to_vec()).unwrap()
    }

    #[test]
    fn the_manager_hears_each_news_over_a_path_and_over_an_abstract_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let path = path.to_str().unwrap();
        let by_path = UnixDatagram::bind(path).unwrap();
        let service = ServiceManager::open(&names(path, "", ""), 1).unwrap();
        service.ready("serving");
        assert_eq!(heard(&by_path), "READY=1\nSTATUS=serving\n");
        service.stopping("draining");
        assert_eq!(heard(&by_path), "STOPPING=1\nSTATUS=draining\n");

        let name = format!("roomkeeper-test-{}", std::process::id());
        let at = address(OsStr::new(&format!("@{name}"))).unwrap();
        let abstract_one = UnixDatagram::bind_addr(&at).unwrap();
        let service = ServiceManager::open(&names(&format!("@{name}"), "", ""), 1).unwrap();
        service.reloading();
        let news = heard(&abstract_one);
        let usec = news.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap();
        assert!(usec.trim_end().parse::<u64>().unwrap() > 0, "{news}");
        service.alive();
        assert_eq!(heard(&abstract_one), "WATCHDOG=1\n");
    }

    #[test]
    fn the_watchdog_is_fed_twice_as_often_as_it_must_be_if_it_watches_this_process() {
        let interval = |usec, pid| {
            ServiceManager::open(&names("/nowhere", usec, pid), 7).unwrap().watchdog_interval()
        };
        assert_eq!(interval("30000000", ""), Some(Duration::from_secs(15)));
        assert_eq!(interval("30000000", "7"), Some(Duration::from_secs(15)));
        for (usec, pid) in [("30000000", "8"), ("0", ""), ("x", ""), ("", ""), ("9", "x")] {
            assert_eq!(interval(usec, pid), None, "{usec} {pid}");
        }
    }

    #[test]
    fn without_a_manager_and_with_one_that_is_gone_nothing_happens() {
        let alone = ServiceManager::open(&ManagerNames::default(), 1).unwrap();
        alone.ready("serving");
        assert_eq!(alone.watchdog_interval(), None);
        ServiceManager::open(&names("/nowhere/notify", "", ""), 1).unwrap().ready("serving");
        assert!(ServiceManager::open(&names("notify", "", ""), 1).is_err());
    }
}
