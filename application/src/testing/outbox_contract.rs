//! The contract of the `outbox` port: what every host does with the bytes of a shard.
//!
//! A host shows its outbox and the other ends of its connections; the suite must never look at
//! anything else. [`outbox_contract_tests!`](crate::outbox_contract_tests) makes a test of each
//! part. Messages are JSON without line breaks, as a shard's are.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a contract suite is a test")]

#[cfg(test)]
mod tests;

use bytes::Bytes;
use domain::codes::CloseCode;
use domain::delivery::Class;
use domain::id::MessageKey;

use crate::ports::outbox::{Batch, Delivered, Frame, Outbox};
use crate::shard::Slot;

/// What the other end of a connection hears.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Heard {
    /// One whole message.
    Message(String),
    /// The connection was closed with this code.
    Closed(u16),
    /// Nothing more.
    Silence,
}

/// A host, and the other ends of its connections.
pub trait OutboxHost {
    /// The most bytes that wait for one connection.
    fn queue_bytes_max(&self) -> usize;

    /// The most bytes that a connection takes while its other end reads nothing and nothing waits
    /// yet: what lies in between has buffers of its own.
    fn unread_bytes_max(&self) -> usize;

    /// Opens a connection at this place, which is free.
    fn open(&mut self, at: Slot);

    /// Does something with the outbox, and lets the host do what comes of it.
    fn outbox(&mut self, act: &mut dyn FnMut(&mut dyn Outbox));

    /// The other end reads nothing until [`resume`](Self::resume).
    fn stall(&mut self, at: Slot);

    /// The other end reads again.
    fn resume(&mut self, at: Slot);

    /// What the other end hears next. Answers `Silence` only once it is sure that nothing comes.
    fn hear(&mut self, at: Slot) -> Heard;

    /// The other end says something.
    fn say(&mut self, from: Slot, text: &str);

    /// Lets the host read. Answers whether it has read all that was said.
    fn reads_all(&mut self, of: Slot) -> bool;

    /// Whether something that was said has not been read yet. Never waits.
    fn has_unread(&mut self, of: Slot) -> bool;
}

/// One `#[test]` for each part of the contract; takes an expression that can be called and answers
/// an [`OutboxHost`](crate::testing::outbox_contract::OutboxHost) without connections.
#[macro_export]
macro_rules! outbox_contract_tests {
    ($host:expr) => {
        $crate::outbox_contract_tests!($host;
            what_is_delivered_arrives_whole_and_in_the_order_of_the_calls
            a_batch_arrives_as_its_frames
            nobody_hears_what_is_for_others
            many_get_a_batch_at_once_and_who_was_refused_is_named
            a_place_that_nobody_has_is_gone
            the_last_frame_and_the_code_arrive_and_then_the_connection_is_gone
            a_close_without_a_last_frame_only_closes
            an_earlier_life_of_a_place_is_gone
            what_has_to_wait_arrives_later_in_order
            what_waits_is_bounded_and_then_refused_and_nobody_else_suffers
            what_may_be_dropped_is_never_refused
            the_newest_of_a_key_takes_the_place_of_one_that_waits
            reading_stops_and_goes_on_for_one_connection_only
        );
    };
    ($host:expr; $($name:ident)*) => {
        $(
            #[test]
            fn $name() {
                $crate::testing::outbox_contract::$name(&mut $host());
            }
        )*
    };
}

/// What most messages of the suite are long.
const MESSAGE_BYTES: usize = 1_000;
const LAST: &str = "{\"last\":true}";
const MARKER: &str = "{\"marker\":true}";

fn slot(index: u32) -> Slot {
    Slot { index, generation: 0 }
}

/// A message with a number and a name, about `bytes` long.
fn text(name: &str, n: u64, bytes: usize) -> String {
    let padding = "x".repeat(bytes.saturating_sub(30));
    format!("{{\"{name}\":{n},\"p\":\"{padding}\"}}")
}

/// The number in a message under a name.
fn number(name: &str, message: &str) -> Option<u64> {
    let rest = message.strip_prefix(&format!("{{\"{name}\":"))?;
    rest.split(',').next()?.parse().ok()
}

fn numbers(name: &str, messages: &[String]) -> Vec<u64> {
    messages.iter().filter_map(|message| number(name, message)).collect()
}

fn framed(host: &mut impl OutboxHost, message: &str) -> Bytes {
    let mut bytes = Bytes::new();
    host.outbox(&mut |outbox| bytes = outbox.frame(message.as_bytes()));
    bytes
}

fn frame(
    host: &mut impl OutboxHost,
    message: &str,
    class: Class,
    key: Option<(u32, &str)>,
) -> Frame {
    let key = key.map(|(room, key)| (room, MessageKey::parse(key).unwrap()));
    Frame { bytes: framed(host, message), class, key }
}

fn deliver(host: &mut impl OutboxHost, to: Slot, frames: &[Frame]) -> Delivered {
    let joined: Vec<u8> = frames.iter().flat_map(|frame| frame.bytes.to_vec()).collect();
    let joined = Bytes::from(joined);
    let mut delivered = Delivered::Gone;
    host.outbox(&mut |outbox| delivered = outbox.deliver(to, &Batch { joined: &joined, frames }));
    delivered
}

fn tell(host: &mut impl OutboxHost, to: Slot, message: &str) -> Delivered {
    let frame = frame(host, message, Class::Reliable, None);
    deliver(host, to, &[frame])
}

fn close(host: &mut impl OutboxHost, to: Slot, last: &str, code: CloseCode) {
    let last = if last.is_empty() { Bytes::new() } else { framed(host, last) };
    host.outbox(&mut |outbox| outbox.close(to, last.clone(), code.into()));
}

fn queued_bytes(host: &mut impl OutboxHost, of: Slot) -> usize {
    let mut bytes = 0;
    host.outbox(&mut |outbox| bytes = outbox.queued_bytes(of));
    bytes
}

/// Everything that one hears up to this message, which is the last.
#[track_caller]
fn hear_until(host: &mut impl OutboxHost, at: Slot, end: &str) -> Vec<String> {
    let mut messages = Vec::new();
    loop {
        match host.hear(at) {
            Heard::Message(message) if message == end => return messages,
            Heard::Message(message) => messages.push(message),
            other => panic!("{other:?} instead of {end}, behind {}", messages.len()),
        }
    }
}

/// Lets the other end read what waits, and then a marker. Answers what came before it.
#[track_caller]
fn drain(host: &mut impl OutboxHost, at: Slot) -> Vec<String> {
    host.resume(at);
    let mut messages = Vec::new();
    while queued_bytes(host, at) > 0 {
        match host.hear(at) {
            Heard::Message(message) => messages.push(message),
            other => panic!("{other:?} while something waits"),
        }
    }
    assert_eq!(tell(host, at, MARKER), Delivered::Taken);
    messages.extend(hear_until(host, at, MARKER));
    messages
}

/// Has a connection read nothing, and tells it numbered messages until some of them wait.
/// Answers how many.
fn fill(host: &mut impl OutboxHost, at: Slot) -> u64 {
    host.stall(at);
    let most = (host.unread_bytes_max() / MESSAGE_BYTES + 3) as u64;
    for n in 0..most {
        if queued_bytes(host, at) > 0 {
            return n;
        }
        assert_eq!(tell(host, at, &text("n", n, MESSAGE_BYTES)), Delivered::Taken, "{n}");
    }
    panic!("{most} messages, and nothing waits for a connection that reads nothing");
}

/// Lengths around those at which framings change.
pub fn what_is_delivered_arrives_whole_and_in_the_order_of_the_calls(host: &mut impl OutboxHost) {
    host.open(slot(0));
    let lengths = [30, 124, 125, 126, 127, 128, 1_000, 30, 4_000];
    let sent: Vec<String> = (0..).zip(lengths).map(|(n, bytes)| text("n", n, bytes)).collect();
    for message in &sent {
        assert_eq!(tell(host, slot(0), message), Delivered::Taken);
    }
    assert_eq!(tell(host, slot(0), MARKER), Delivered::Taken);
    assert_eq!(hear_until(host, slot(0), MARKER), sent);
    assert_eq!(queued_bytes(host, slot(0)), 0, "nothing waits for who keeps up");
}

/// Joined, they leave together; they are still as many messages.
pub fn a_batch_arrives_as_its_frames(host: &mut impl OutboxHost) {
    host.open(slot(0));
    let sent: Vec<String> = (0..5).map(|n| text("n", n, 40)).collect();
    let frames: Vec<Frame> =
        sent.iter().map(|message| frame(host, message, Class::Droppable, None)).collect();
    assert_eq!(deliver(host, slot(0), &frames), Delivered::Taken);
    assert_eq!(tell(host, slot(0), MARKER), Delivered::Taken);
    assert_eq!(hear_until(host, slot(0), MARKER), sent);
}

/// Three at once, in turns.
pub fn nobody_hears_what_is_for_others(host: &mut impl OutboxHost) {
    for index in 0..3 {
        host.open(slot(index));
    }
    for n in 0..6 {
        let to = u32::try_from(n % 3).unwrap();
        assert_eq!(tell(host, slot(to), &text("n", n, 50)), Delivered::Taken);
    }
    for index in 0..3 {
        assert_eq!(tell(host, slot(index), MARKER), Delivered::Taken);
        let heard = hear_until(host, slot(index), MARKER);
        assert_eq!(numbers("n", &heard), [u64::from(index), u64::from(index) + 3]);
    }
}

/// As one by one: whoever keeps up hears all of it, whoever is full is named, whoever is gone is
/// not.
pub fn many_get_a_batch_at_once_and_who_was_refused_is_named(host: &mut impl OutboxHost) {
    for index in 0..4 {
        host.open(slot(index));
    }
    fill(host, slot(1));
    let most = (host.queue_bytes_max() + host.unread_bytes_max()) / MESSAGE_BYTES + 2;
    let full =
        (0..most).any(|_| tell(host, slot(1), &text("m", 0, MESSAGE_BYTES)) == Delivered::Refused);
    assert!(full, "{most} messages, and none is refused");
    close(host, slot(3), "", CloseCode::GoingAway);
    let sent: Vec<String> = (0..3).map(|n| text("n", n, 40)).collect();
    let frames: Vec<Frame> =
        sent.iter().map(|message| frame(host, message, Class::Reliable, None)).collect();
    let joined: Vec<u8> = frames.iter().flat_map(|frame| frame.bytes.to_vec()).collect();
    let joined = Bytes::from(joined);
    let to = [slot(0), slot(1), slot(77), slot(2), slot(3)];
    // What was named before stays.
    let mut refused = vec![slot(9)];
    host.outbox(&mut |outbox| {
        outbox.deliver_to_all(&to, &Batch { joined: &joined, frames: &frames }, &mut refused);
    });
    assert_eq!(refused, [slot(9), slot(1)]);
    for index in [0, 2] {
        assert_eq!(tell(host, slot(index), MARKER), Delivered::Taken);
        assert_eq!(hear_until(host, slot(index), MARKER), sent);
    }
}

/// Nothing that is asked of it is a mistake: a shard may be late.
pub fn a_place_that_nobody_has_is_gone(host: &mut impl OutboxHost) {
    host.open(slot(0));
    for nobody in [slot(1), slot(77), Slot { index: 0, generation: 1 }] {
        assert_eq!(tell(host, nobody, MARKER), Delivered::Gone);
        assert_eq!(queued_bytes(host, nobody), 0);
        host.outbox(&mut |outbox| outbox.set_reading(nobody, false));
        close(host, nobody, LAST, CloseCode::GoingAway);
    }
    assert_eq!(tell(host, slot(0), MARKER), Delivered::Taken);
    assert_eq!(hear_until(host, slot(0), MARKER), [""; 0]);
}

/// What was told before comes first.
pub fn the_last_frame_and_the_code_arrive_and_then_the_connection_is_gone(
    host: &mut impl OutboxHost,
) {
    host.open(slot(0));
    assert_eq!(tell(host, slot(0), MARKER), Delivered::Taken);
    close(host, slot(0), LAST, CloseCode::ServiceRestart);
    assert_eq!(tell(host, slot(0), MARKER), Delivered::Gone);
    assert_eq!(queued_bytes(host, slot(0)), 0);
    close(host, slot(0), MARKER, CloseCode::Forbidden);
    let heard = [host.hear(slot(0)), host.hear(slot(0)), host.hear(slot(0))];
    let message = |text: &str| Heard::Message(text.to_owned());
    let code = CloseCode::ServiceRestart.number();
    assert_eq!(heard, [message(MARKER), message(LAST), Heard::Closed(code)]);
}

/// Not even an empty message comes before the close.
pub fn a_close_without_a_last_frame_only_closes(host: &mut impl OutboxHost) {
    host.open(slot(0));
    close(host, slot(0), "", CloseCode::InsufficientState);
    assert_eq!(host.hear(slot(0)), Heard::Closed(CloseCode::InsufficientState.number()));
}

/// A place is used again, and what is meant for the connection before must not reach this one.
pub fn an_earlier_life_of_a_place_is_gone(host: &mut impl OutboxHost) {
    let (before, now) = (slot(3), Slot { index: 3, generation: 1 });
    host.open(before);
    close(host, before, LAST, CloseCode::GoingAway);
    host.open(now);
    assert_eq!(tell(host, before, &text("n", 1, 50)), Delivered::Gone);
    close(host, before, LAST, CloseCode::GoingAway);
    host.outbox(&mut |outbox| outbox.set_reading(before, false));
    assert_eq!(tell(host, now, MARKER), Delivered::Taken);
    assert_eq!(hear_until(host, now, MARKER), [""; 0]);
    host.say(now, "{\"said\":1}");
    assert!(host.reads_all(now), "it is read");
}

/// Who reads again gets everything, in order.
pub fn what_has_to_wait_arrives_later_in_order(host: &mut impl OutboxHost) {
    host.open(slot(0));
    let first = fill(host, slot(0));
    let more = (host.queue_bytes_max() / 2 / MESSAGE_BYTES) as u64;
    for n in first..first + more {
        assert_eq!(tell(host, slot(0), &text("n", n, MESSAGE_BYTES)), Delivered::Taken);
    }
    assert!(queued_bytes(host, slot(0)) > 0);
    let heard = drain(host, slot(0));
    assert_eq!(numbers("n", &heard), (0..first + more).collect::<Vec<_>>());
    assert_eq!(queued_bytes(host, slot(0)), 0);
}

/// A connection that reads nothing is refused at its cap, and from then on: nothing may overtake
/// what was refused. Closed, it hears no more than what was taken, and why.
pub fn what_waits_is_bounded_and_then_refused_and_nobody_else_suffers(host: &mut impl OutboxHost) {
    host.open(slot(0));
    host.open(slot(1));
    let first = fill(host, slot(0));
    let cap = host.queue_bytes_max();
    let most = first + ((cap + host.unread_bytes_max()) / MESSAGE_BYTES) as u64 + 2;
    let refused = (first..=most)
        .find(|n| tell(host, slot(0), &text("n", *n, MESSAGE_BYTES)) == Delivered::Refused);
    let Some(refused) = refused else { panic!("{most} messages, and none is refused") };
    let waiting = queued_bytes(host, slot(0));
    assert!(waiting <= cap + 2 * MESSAGE_BYTES, "{waiting} bytes wait, {cap} may");
    let small = tell(host, slot(0), &text("n", refused + 1, 1));
    assert_eq!(small, Delivered::Refused, "it would overtake what was refused");
    assert_eq!(tell(host, slot(1), MARKER), Delivered::Taken);
    assert_eq!(hear_until(host, slot(1), MARKER), [""; 0]);
    close(host, slot(0), LAST, CloseCode::SlowConsumer);
    host.resume(slot(0));
    let heard = hear_until(host, slot(0), LAST);
    let heard = numbers("n", &heard);
    assert!(heard.iter().copied().eq(0..heard.len() as u64), "a hole: {heard:?}");
    assert!(heard.len() as u64 <= refused, "what was refused came");
    assert_eq!(host.hear(slot(0)), Heard::Closed(CloseCode::SlowConsumer.number()));
}

/// Typing, positions: they are dropped first, and keep to the cap.
pub fn what_may_be_dropped_is_never_refused(host: &mut impl OutboxHost) {
    host.open(slot(0));
    let first = fill(host, slot(0));
    let cap = host.queue_bytes_max();
    let many = (3 * cap / MESSAGE_BYTES) as u64;
    for n in 0..many {
        let message = text("typing", n, MESSAGE_BYTES);
        let droppable = frame(host, &message, Class::Droppable, None);
        assert_eq!(deliver(host, slot(0), &[droppable]), Delivered::Taken, "{n}");
        let waiting = queued_bytes(host, slot(0));
        assert!(waiting <= cap + 2 * MESSAGE_BYTES, "{waiting} bytes wait, {cap} may");
    }
    let heard = drain(host, slot(0));
    assert_eq!(numbers("n", &heard), (0..first).collect::<Vec<_>>(), "nothing else was dropped");
    let typing = numbers("typing", &heard);
    assert!(typing.is_sorted_by(|a, b| a < b), "{typing:?}");
    assert!((typing.len() as u64) < many, "three times the cap fits");
    assert_eq!(typing.len() as u64 + first, heard.len() as u64, "something was cut");
}

/// The keys of two rooms never meet.
pub fn the_newest_of_a_key_takes_the_place_of_one_that_waits(host: &mut impl OutboxHost) {
    host.open(slot(0));
    fill(host, slot(0));
    for n in 0..60 {
        for (name, room, key) in [("a", 1, "k"), ("b", 2, "k"), ("c", 1, "other")] {
            let latest = frame(host, &text(name, n, 200), Class::Latest, Some((room, key)));
            assert_eq!(deliver(host, slot(0), &[latest]), Delivered::Taken);
        }
    }
    let heard = drain(host, slot(0));
    for name in ["a", "b", "c"] {
        let told = numbers(name, &heard);
        assert_eq!(told.last(), Some(&59), "the newest of {name} comes last");
        assert!(told.is_sorted_by(|a, b| a < b), "{told:?}");
        // What lies in between may take one or the other before it is replaced.
        assert!(told.len() <= 10, "nothing is replaced: {told:?}");
    }
}

/// What is said meanwhile is kept for later, and the others are read.
pub fn reading_stops_and_goes_on_for_one_connection_only(host: &mut impl OutboxHost) {
    host.open(slot(0));
    host.open(slot(1));
    for index in [0, 1] {
        host.say(slot(index), "{\"said\":1}");
        assert!(host.reads_all(slot(index)), "{index} is not read");
    }
    host.outbox(&mut |outbox| outbox.set_reading(slot(0), false));
    host.say(slot(0), "{\"said\":2}");
    host.say(slot(1), "{\"said\":2}");
    assert!(host.reads_all(slot(1)), "the other one is read");
    assert!(host.has_unread(slot(0)), "it was read all the same");
    host.outbox(&mut |outbox| outbox.set_reading(slot(0), true));
    assert!(host.reads_all(slot(0)), "it is never read again");
}
