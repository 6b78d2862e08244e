//! Clients that come back again and again: one in a loop, and many at once.

use std::time::{Duration, Instant};

use tests::raw::RawSocket;
use tests::server::Server;

use crate::client::{Client, PATH};

/// How long the first waits of a loop, one, two and four seconds, may take to come and go.
const DEADLINE: Duration = Duration::from_secs(60);

/// One attempt of a client at this address, which ends its connection as soon as it has one.
fn attempt(server: &Server, address: &str) -> (String, Option<u64>) {
    let mut socket = RawSocket::connect(server.addr());
    let head = socket.upgrade(PATH, &[("X-Forwarded-For", address)]).to_ascii_lowercase();
    let status = head.split(' ').nth(1).unwrap_or_default().to_owned();
    let wait = head.split("retry-after: ").nth(1).and_then(|rest| rest.split("\r\n").next());
    (status, wait.and_then(|seconds| seconds.parse().ok()))
}

/// H05: of one address, and by user nobody is known yet when a socket asks. Each attempt costs the server less
/// than a millisecond of processor time.
#[test]
#[allow(clippy::print_stdout, reason = "a figure for whoever runs it")]
fn a_client_in_a_loop_is_let_in_more_and_more_seldom_and_costs_next_to_nothing() {
    let server = Server::start(&[
        "--set",
        "server.trusted_proxies=127.0.0.1",
        "--set",
        "limits.short_connections_per_address_per_minute=5",
    ]);
    let mut waits = Vec::new();
    let (begun, cpu) = (Instant::now(), server.cpu_time());
    let mut n_attempts = 0_u32;
    let mut n_let_in = 0_u32;
    // Until it has been told to wait for one, for two and for four seconds.
    while waits.last() != Some(&4) {
        assert!(begun.elapsed() < DEADLINE, "it was told to wait for {waits:?} seconds");
        let (status, wait) = attempt(&server, "203.0.113.7");
        n_attempts += 1;
        match status.as_str() {
            "101" => n_let_in += 1,
            "429" => {
                let wait = wait.expect("when to come back");
                if waits.last().is_none_or(|last| *last < wait) {
                    waits.push(wait);
                }
            }
            other => panic!("{other}"),
        }
        if n_attempts.is_multiple_of(50) {
            // Each time from another address: who comes that often would be in a loop, too.
            let n_other = n_attempts / 50;
            let other = format!("198.51.{}.{}", n_other / 256, n_other % 256);
            assert_eq!(attempt(&server, &other).0, "101", "somebody else");
        }
    }
    assert_eq!(waits, [1, 2, 4]);
    let each = (server.cpu_time() - cpu) / n_attempts;
    println!(
        "{{\"attempts\":{n_attempts},\"let_in\":{n_let_in},\"cpu_us_each\":{}}}",
        each.as_micros()
    );
    assert!(n_let_in < n_attempts / 2, "{n_let_in} of {n_attempts}");
    assert!(each < Duration::from_millis(1), "{each:?} each");
}

#[test]
fn who_comes_from_the_machine_itself_is_everybody_and_waits_for_nobody() {
    let server = Server::start(&["--set", "limits.short_connections_per_address_per_minute=1"]);
    for _ in 0..20 {
        Client::open(&server);
    }
}
