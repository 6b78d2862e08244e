//! Does one operation of the product so many times, and nothing else, so that somebody can count
//! what it takes: `instructions OPERATION TIMES`. Without words it lists the operations.
//!
//! The difference of a long and a short run is the operation alone: what comes before falls out.
//! `benches/count` makes the two runs and compares with what is known.
//!
//! It must never read a clock, draw a random number or touch a socket: two runs are to be the same
//! to the instruction.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a tool that one person runs: a failed step ends it, with words"
)]

mod host;

use std::hint::black_box;
use std::process::ExitCode;

use websocket_codec::{Decoder, Limits, Opcode, Role, encode_masked, encode_text};

use crate::host::Host;

/// Members of the room of a fan-out.
const MEMBERS: usize = 500;
/// Messages that a connection gets back when it returns.
const MISSED: usize = 10;
const DATA: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// Does an operation so many times.
type Operation = fn(u32);

/// Each with how often it is done in the short and in the long run, and how many of the named thing
/// one time is.
const OPERATIONS: [(&str, Operation, u32, u32, u32); 6] = [
    ("decode", decode, 100, 5_100, 1),
    ("encode", encode, 100, 5_100, 1),
    ("publish", publish, 100, 2_100, 1),
    ("delivery", fan_out, 10, 110, MEMBERS as u32),
    ("join", join, 100, 1_100, 1),
    ("recovery", recovery, 100, 1_100, 1),
];

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let Some(name) = words.first() else {
        for (name, _, short, long, each) in OPERATIONS {
            println!("{name} {short} {long} {each}");
        }
        return ExitCode::SUCCESS;
    };
    let operation = OPERATIONS.iter().find(|(known, ..)| known == name);
    let times = words.get(1).and_then(|times| times.parse().ok());
    let (Some((_, operation, ..)), Some(times)) = (operation, times) else {
        eprintln!("instructions: write OPERATION TIMES; without words the operations are listed");
        return ExitCode::from(2);
    };
    operation(times);
    ExitCode::SUCCESS
}

fn command() -> String {
    format!(r#"{{"type":"publish","room":"public:a","data":"{DATA}"}}"#)
}

/// One masked text message that lies whole in the read buffer.
fn decode(times: u32) {
    let frame = encode_masked(Opcode::Text, true, command().as_bytes(), [0x5a, 0xc3, 0x17, 0xe8]);
    let limits = Limits { message_bytes_max: 65_536, fragments_max: 1_024 };
    let mut decoder = Decoder::new(Role::Server);
    let mut buffer = frame.to_vec();
    for _ in 0..times {
        // Decoding unmasks in place.
        buffer.copy_from_slice(&frame);
        let decoded = decoder.decode(black_box(&mut buffer), &limits).expect("a right frame");
        assert!(black_box(decoded.event).is_some());
    }
}

/// One text message as a frame.
fn encode(times: u32) {
    let text = command();
    for _ in 0..times {
        black_box(encode_text(black_box(text.as_bytes())));
    }
}

/// One publish to a room without members, from the command to its acknowledgement.
fn publish(times: u32) {
    let mut host = Host::new();
    let publisher = host.connect();
    let text = format!(r#"{{"type":"publish","id":1,"room":"public:a","data":"{DATA}"}}"#);
    let before = host.frames();
    for _ in 0..times {
        host.say(publisher, &text);
    }
    assert_eq!(host.frames() - before, u64::from(times));
}

/// One publish to a room with many members: divided by them, one delivery.
fn fan_out(times: u32) {
    let mut host = Host::new();
    let publisher = host.connect();
    for _ in 0..MEMBERS {
        host.member("public:a");
    }
    let (text, before) = (command(), host.frames());
    for _ in 0..times {
        host.say(publisher, &text);
    }
    assert_eq!(host.frames() - before, u64::from(times) * MEMBERS as u64);
}

/// One connection that is greeted, joins a room and goes away.
fn join(times: u32) {
    let mut host = Host::new();
    // The room stays when the others leave.
    host.member("public:a");
    for _ in 0..times {
        let before = host.frames();
        let slot = host.member("public:a");
        assert_eq!(host.frames() - before, 2);
        host.leave(slot);
    }
}

/// One connection that comes back to a room, gets what it missed and goes away.
fn recovery(times: u32) {
    let mut host = Host::new();
    let publisher = host.member("public:a");
    let epoch = host.epoch("public:a");
    let text = command();
    (0..=MISSED).for_each(|_| host.say(publisher, &text));
    let back = format!(
        r#"{{"type":"connect","id":1,"resume":[{{"room":"public:a","epoch":"{epoch}","offset":1}}]}}"#
    );
    for _ in 0..times {
        let slot = host.connect();
        let before = host.bytes();
        host.say(slot, &back);
        assert!(host.bytes() - before > (MISSED * DATA.len()) as u64, "all that was missed");
        host.leave(slot);
    }
}
