//! Users who come back to what was said to them while they were away: how long until all of them have all
//! of it.
//!
//! First some writers write to users who are nowhere; then all users come at once. Each letter has a number,
//! and has to come to its user once, in the order in which its sender wrote it. The clock starts with the first
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

/// Which letter a writer writes next: to which user, and its number there.
#[derive(Clone, Copy)]
struct Next {
    user: usize,
    number: usize,
}

/// Who writes what. A user's letters come from `senders` writers by turns, each writer's own in order.
#[derive(Clone, Copy)]
struct Plan {
    writers: usize,
    users: usize,
    each: usize,
    senders: usize,
}

impl Plan {
    fn writer_of(&self, at: Next) -> usize {
        (at.user + at.number % self.senders) % self.writers
    }

    /// All letters of a writer, in the order in which it writes them.
    fn of_writer(self, writer: usize) -> impl Iterator<Item = Next> {
        let all = (0..self.users)
            .flat_map(move |user| (0..self.each).map(move |number| Next { user, number }));
        all.filter(move |at| self.writer_of(*at) == writer)
    }
}

/// Writes all letters, and waits until all are acknowledged.
fn write(arguments: &Arguments, secret: &str, plan: Plan) -> f64 {
    let writers = users("writer", plan.writers, secret);
    let mut pool = Pool::open(&writers, arguments.addr, plan.writers, plan.writers);
    let start = Instant::now();
    let mut to_write: Vec<_> = (0..plan.writers).map(|writer| plan.of_writer(writer)).collect();
    let (mut under_way, mut taken) = (vec![0; plan.writers], 0);
    while taken < plan.users * plan.each {
        for (writer, letters) in to_write.iter_mut().enumerate() {
            let room = UNDER_WAY - under_way[writer];
            for Next { user, number } in letters.take(room) {
                let mut content = format!("letter {number} ");
                content
                    .extend(std::iter::repeat_n('x', arguments.size.saturating_sub(content.len())));
                let text = format!(
                    r#"{{"type":"chat_message","id":1,"channel":"private","to_user_id":"user{user}","content":"{content}"}}"#,
                );
                pool.say(writer, text.as_bytes());
                under_way[writer] += 1;
            }
            pool.flush(writer);
        }
        pool.turn(Duration::from_millis(100), |arrival, text| {
            let is_answer = text.starts_with(br#"{"type":"ack""#);
            under_way[arrival.member] -= usize::from(is_answer);
            taken += usize::from(is_answer);
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
    let senders = arguments.senders.clamp(1, WRITERS);
    let writers = WRITERS.min(n_users).max(senders);
    let plan = Plan { writers, users: n_users, each, senders };
    let written = write(arguments, &secret, plan);
    let process = Process(arguments.pid);
    let back = users("user", n_users, &secret);
    let cpu = process.cpu();
    // Of each user's senders.
    let mut next: Vec<Vec<usize>> = vec![(0..senders).collect(); n_users];
    let (mut astray, mut missing) = (0_u64, n_users * each);
    let start = Instant::now();
    let mut book = |arrival: Arrival, text: &[u8]| {
        let Some(number) = number(text) else { return false };
        let next = &mut next[arrival.member][number % senders];
        if number == *next {
            missing -= 1;
        } else {
            astray += 1;
        }
        *next = number + senders;
        true
    };
    let mut pool = Pool::open_hearing(&back, arguments.addr, n_users, n_users, &mut book);
    let opened = start.elapsed().as_secs_f64();
    // A ping is answered behind all that waited, so that whoever is in has it all already.
    pool.turn(Duration::ZERO, &mut book);
    let all = start.elapsed().as_secs_f64();
    let cpu = (process.cpu() - cpu).as_secs_f64();
    let json = format!(
        "{{\"mode\":\"letters\",\"users\":{n_users},\"each\":{each},\"senders\":{senders},\"write_seconds\":{written:.3},\
         \"open_seconds\":{opened:.3},\"back_seconds\":{all:.3},\"cpu_seconds\":{cpu:.3},\
         \"missing\":{missing},\"astray\":{astray}}}"
    );
    let mut faults = Vec::new();
    if missing > 0 || astray > 0 {
        faults.push(format!("{missing} letters did not come, {astray} came astray"));
    }
    Report { json, faults }
}
