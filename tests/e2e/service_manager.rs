//! What a service manager hears over its socket (sd_notify), from the start to the end.

use std::os::unix::net::UnixDatagram;

use tests::server::Server;

use crate::client::{Client, SOON};

struct Manager {
    socket: UnixDatagram,
    path: String,
    _folder: tempfile::TempDir,
}

impl Manager {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify").to_str().unwrap().to_owned();
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(SOON)).unwrap();
        Self { socket, path, _folder: folder }
    }

    /// The next news that is no sign of life.
    fn next(&self) -> String {
        loop {
            let news = self.any();
            if news != "WATCHDOG=1\n" {
                return news;
            }
        }
    }

    fn any(&self) -> String {
        let mut news = [0; 512];
        let n_bytes = self.socket.recv(&mut news).expect("the server says something");
        String::from_utf8(news[..n_bytes].to_vec()).unwrap()
    }
}

#[test]
fn it_hears_ready_reloading_ready_and_stopping() {
    let manager = Manager::new();
    let environment = [("NOTIFY_SOCKET", manager.path.as_str())];
    let mut server = Server::start_with(&[], &environment);
    assert_eq!(manager.next(), "READY=1\nSTATUS=serving\n");
    server.hang_up();
    let reloading = manager.next();
    let usec = reloading.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").expect(&reloading);
    assert!(usec.trim_end().parse::<u64>().is_ok(), "{reloading}");
    assert_eq!(manager.next(), "READY=1\nSTATUS=serving; the settings were reloaded\n");
    let mut ann = Client::open(&server);
    ann.subscribe("public:a");
    server.terminate();
    assert!(manager.next().starts_with("STOPPING=1\nSTATUS="));
    assert_eq!(server.wait().code, Some(0));
}

#[test]
fn nothing_comes_after_the_news_of_the_end_although_it_is_told_to_reload_while_it_drains() {
    let manager = Manager::new();
    let environment = [("NOTIFY_SOCKET", manager.path.as_str())];
    let mut server = Server::start_with(&["--set", "server.drain_window_ms=3000"], &environment);
    assert_eq!(manager.next(), "READY=1\nSTATUS=serving\n");
    let mut clients = (0..20).map(|_| Client::open(&server)).collect::<Vec<_>>();
    server.terminate();
    assert!(manager.next().starts_with("STOPPING=1\nSTATUS="));
    // Hangs up as each client is told to leave, over the whole window.
    for client in &mut clients {
        if server.is_running() {
            server.hang_up();
        }
        assert_eq!(client.until_closed().1, 1012);
    }
    assert_eq!(server.wait().code, Some(0));
    manager.socket.set_nonblocking(true).unwrap();
    let mut news = [0; 512];
    let more =
        manager.socket.recv(&mut news).map(|n| String::from_utf8_lossy(&news[..n]).into_owned());
    assert_eq!(more.unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
}

#[test]
fn a_watchdog_hears_signs_of_life_and_without_one_there_are_none() {
    let manager = Manager::new();
    let watched = [("NOTIFY_SOCKET", manager.path.as_str()), ("WATCHDOG_USEC", "100000")];
    let server = Server::start_with(&[], &watched);
    let signs = (0..6).filter(|_| manager.any() == "WATCHDOG=1\n").count();
    assert_eq!(signs, 5);
    drop(server);
    let alone = Manager::new();
    let mut server = Server::start_with(&[], &[("NOTIFY_SOCKET", alone.path.as_str())]);
    assert!(alone.any().starts_with("READY=1"));
    server.terminate();
    assert!(alone.any().starts_with("STOPPING=1"));
    server.wait();
}
