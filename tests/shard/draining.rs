//! A node that stops and lets its connections go one by one, in virtual time.

use application::services::Rules;
use application::shard::{Input, Slot};
use domain::codes::CloseCode;
use domain::drain::DrainMode;

use crate::host::{Host, open_rules};
use crate::{publish, types};

const WINDOW_MS: u64 = 10_000;

fn paced() -> Rules {
    Rules { drain_mode: DrainMode::Paced, ..open_rules() }
}

fn begin(host: &mut Host) {
    host.node.drain(std::time::Duration::from_millis(WINDOW_MS));
    host.settle();
}

/// When each of these was closed, with the time that it was told to wait; looks every 10 ms.
fn closed_at(host: &mut Host, slots: &[Slot], until_ms: u64) -> Vec<(u64, u64)> {
    let mut closed = Vec::new();
    let mut open: Vec<_> = slots.to_vec();
    for now in (0..=until_ms).step_by(10) {
        open.retain(|slot| {
            let line = host.line(*slot);
            let Some(code) = line.closed else { return true };
            assert_eq!(code, CloseCode::ServiceRestart);
            let told = line.frames.iter().find(|frame| frame["type"] == "disconnect").unwrap();
            closed.push((now, told["reconnect_after_ms"].as_u64().unwrap()));
            false
        });
        host.pass(10);
    }
    assert!(open.is_empty(), "{} are still there", open.len());
    closed
}

/// N02: one after another, each told to come back at once, evenly over the window.
#[test]
fn a_paced_drain_closes_each_at_a_time_of_its_own() {
    let mut host = Host::new(paced());
    let slots: Vec<_> = (0..100).map(|_| host.member("public:a")).collect();
    begin(&mut host);
    let closed = closed_at(&mut host, &slots, WINDOW_MS);
    assert!(closed.iter().all(|(_, wait)| *wait == 0), "there is another node to come back to");
    let at = |n: usize| closed[n].0;
    assert!(at(0) <= 10 && (9_600..=9_792).contains(&at(99)), "{closed:?}");
    let peak = (0..=9).map(|second| {
        let within = second * 1_000..(second + 1) * 1_000;
        closed.iter().filter(|(at, _)| within.contains(at)).count()
    });
    // 1.2 × connections / window.
    assert!(peak.max().unwrap() <= 12, "{closed:?}");
}

#[test]
fn until_its_time_a_connection_is_served_as_ever() {
    let mut host = Host::new(paced());
    let slots: Vec<_> = (0..10).map(|_| host.member("public:a")).collect();
    begin(&mut host);
    host.pass(WINDOW_MS / 2);
    let last = slots[9];
    host.say(last, &publish(7));
    let line = host.line(last);
    assert_eq!((types(&line.frames), line.closed), (vec!["ack", "message"], None));
    assert_eq!(host.line(slots[0]).closed, Some(CloseCode::ServiceRestart));
    // Who goes by itself is not waited for.
    for slot in &slots[6..9] {
        host.drop_line(*slot);
    }
    host.pass(1_500);
    assert_eq!(host.line(last).closed, Some(CloseCode::ServiceRestart));
    assert_eq!(host.shard.connections(), 0);
}

/// N02: what was taken is answered, though its connection's time has come.
#[test]
fn whose_time_comes_while_something_is_under_way_is_told_and_gets_its_answer() {
    let mut host = Host::new(paced());
    let slots: Vec<_> = (0..2).map(|_| host.member("public:a")).collect();
    host.pass(10);
    host.hold_calls = true;
    host.say_only(slots[0], &publish(1));
    begin(&mut host);
    let line = host.line(slots[0]);
    assert_eq!((types(&line.frames), line.closed), (vec!["disconnect"], None));
    host.release_calls();
    let line = host.line(slots[0]);
    assert_eq!(types(&line.frames), ["ack"]);
    assert_eq!(line.closed, Some(CloseCode::ServiceRestart));
}

/// N04: nobody stays behind the window's end, whatever it waits for.
#[test]
fn a_drain_ends_with_its_window_also_for_those_whose_calls_never_end() {
    let mut host = Host::new(paced());
    let slots: Vec<_> = (0..4).map(|_| host.member("public:a")).collect();
    host.hold_calls = true;
    for slot in &slots {
        host.say_only(*slot, &publish(1));
    }
    begin(&mut host);
    host.pass(WINDOW_MS - 100);
    assert_eq!(host.shard.connections(), 4);
    host.pass(200);
    assert_eq!(host.shard.connections(), 0);
    let line = host.line(slots[0]);
    assert_eq!(
        types(&line.frames),
        ["disconnect"],
        "with the time to come back, and not again without"
    );
    assert_eq!(line.closed, Some(CloseCode::ServiceRestart));
}

#[test]
fn a_second_order_to_drain_moves_nobodys_time() {
    let mut host = Host::new(paced());
    let slots: Vec<_> = (0..10).map(|_| host.member("public:a")).collect();
    begin(&mut host);
    host.pass(WINDOW_MS / 2);
    begin(&mut host);
    host.pass(WINDOW_MS / 2);
    assert!(slots.iter().all(|slot| host.line(*slot).closed.is_some()));
}

#[test]
fn who_comes_in_although_the_node_drains_is_sent_away_at_once() {
    let mut host = Host::new(paced());
    let first = host.member("public:a");
    let second = host.member("public:a");
    begin(&mut host);
    let late = host.connect(None);
    assert_eq!(host.line(late).closed, Some(CloseCode::ServiceRestart));
    assert_eq!(host.line(first).closed, Some(CloseCode::ServiceRestart));
    assert_eq!(host.line(second).closed, None);
    host.give(Input::Closed(second, CloseCode::GoingAway));
    assert_eq!(host.shard.connections(), 0);
}
