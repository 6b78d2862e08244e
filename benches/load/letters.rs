//! Users who come back to what was said to them while they were away: how long until all of them have all
//! of it.
//!
//! First some writers write to users who are nowhere; then all users come at once. Each letter has a number,
//! and has to come to its user once, in the order in which it was written. The clock starts with the first
//! connect and stops with the last letter.

use std::time::{Duration, Instant};

use crate::Report;
use crate::arguments::{Arguments, Length};
use crate::pool::{Arrival, Pool};
use crate::target::{Target, TargetKind};
use crate::token;
use crate::usage::Process;

/// Who writes, and how many letters of each are under way at one time.
const WRITERS: usize = 64;
const UNDER_WAY: usize = 16;
/// How long writing and coming back may take.
const DEADLINE: Duration = Duration::from_secs(300);
/// What a letter's text begins with; its number follows.
const MARK: &[u8] = b"letter ";

fn users(prefix: &str, count: usize, secret: &str) -> Target {
    let names = (0..count).map(|n| format!("{prefix}{n}"));
    let tokens = names.map(|name| token::mint(&name, secret)).collect();
    Target { kind: TargetKind::Chat, token: None, tokens, back: None }
}

/// The number behind the mark in a text that somebody wrote; none in any other.
fn number(text: &[u8]) -> Option<usize> {
    let at = text.windows(MARK.len()).position(|window| window == MARK)? + MARK.len();
    let digits = text[at..].iter().take_while(|byte| byte.is_ascii_digit());
    Some(digits.fold(0, |number, digit| number * 10 + usize::from(digit - b'0')))
}

/// Writes `each` letters to every user, and waits until all are acknowledged.
fn write(arguments: &Arguments, secret: &str, n_users: usize, each: usize) -> f64 {
    let writers = users("writer", WRITERS.min(n_users), secret);
    let n_writers = writers.tokens.len();
    let mut pool = Pool::open(&writers, arguments.addr, n_writers, n_writers);
    let start = Instant::now();
    // A user's letters all come from one writer, so that their order is known.
    let mut sent = vec![0; n_writers];
    let mut taken = vec![0; n_writers];
    let of_writer = |writer: usize| (n_users - writer).div_ceil(n_writers) * each;
    let total: usize = n_users * each;
    while taken.iter().sum::<usize>() < total {
        for writer in 0..n_writers {
            while sent[writer] < of_writer(writer) && sent[writer] - taken[writer] < UNDER_WAY {
                let user = writer + sent[writer] / each * n_writers;
                let text = format!(
                    r#"{{"type":"chat_message","id":1,"channel":"private","to_user_id":"user{user}","content":"letter {}"}}"#,
                    sent[writer] % each
                );
                pool.say(writer, text.as_bytes());
                sent[writer] += 1;
            }
            pool.flush(writer);
        }
        pool.turn(Duration::from_millis(100), |arrival, text| {
            let is_answer = text.starts_with(br#"{"type":"ack""#);
            taken[arrival.member] += usize::from(is_answer);
            is_answer
        });
        assert!(pool.refusal.is_none(), "refused: {:?}", pool.refusal);
        assert!(start.elapsed() < DEADLINE, "the letters are not taken in time");
    }
    start.elapsed().as_secs_f64()
}

pub(crate) fn run(arguments: &Arguments) -> Report {
    let Length::Messages(each) = arguments.length else {
        let faults = vec!["letters wants --messages N, for each user".to_owned()];
        return Report { json: "{}".to_owned(), faults };
    };
    let (n_users, each) = (arguments.connections, each as usize);
    let secret = arguments.target.token.clone().unwrap_or_default();
    let written = write(arguments, &secret, n_users, each);
    let process = Process(arguments.pid);
    let back = users("user", n_users, &secret);
    let cpu = process.cpu();
    let (mut next, mut astray, mut missing) = (vec![0; n_users], 0_u64, n_users * each);
    let start = Instant::now();
    let mut book = |arrival: Arrival, text: &[u8]| {
        let Some(number) = number(text) else { return false };
        if number == next[arrival.member] {
            missing -= 1;
        } else {
            astray += 1;
        }
        next[arrival.member] = number + 1;
        true
    };
    let mut pool = Pool::open_hearing(&back, arguments.addr, n_users, n_users, &mut book);
    let opened = start.elapsed().as_secs_f64();
    // A ping is answered behind all that waited, so that whoever is in has it all already.
    pool.turn(Duration::ZERO, &mut book);
    let all = start.elapsed().as_secs_f64();
    let cpu = (process.cpu() - cpu).as_secs_f64();
    let json = format!(
        "{{\"mode\":\"letters\",\"users\":{n_users},\"each\":{each},\"write_seconds\":{written:.3},\
         \"open_seconds\":{opened:.3},\"back_seconds\":{all:.3},\"cpu_seconds\":{cpu:.3},\
         \"missing\":{missing},\"astray\":{astray}}}"
    );
    let mut faults = Vec::new();
    if missing > 0 || astray > 0 {
        faults.push(format!("{missing} letters did not come, {astray} came astray"));
    }
    Report { json, faults }
}
