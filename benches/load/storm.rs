//! Everybody comes back at once: connections with tickets and rooms whose server is killed and
//! started again. How long it takes until each has all rooms and all that was published meanwhile.
//!
//! Whoever starts this kills the server when `ready` stands on standard error, and starts it again
//! on the same address with the same data. The clock begins when the first connects.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::Report;
use crate::arguments::Arguments;
use crate::blocking::{Connection, number_of, text_of};
use crate::pool::Pool;
use crate::target::{Back, Target};

const TURN_MAX: Duration = Duration::from_millis(100);
/// How long the server may be away, and how long all may take.
const DEADLINE: Duration = Duration::from_secs(120);
/// Few enough that no limit on rooms is met.
const ROOMS_AT_ONCE: usize = 100;

/// Where one connection stands.
struct Member {
    /// The last offset of each of its rooms.
    at: Vec<u64>,
    done: Option<Instant>,
}

/// Which rooms a connection is in: `each` of them, beginning with a different one every time.
fn rooms_of(member: usize, each: usize, rooms: usize) -> impl Iterator<Item = usize> {
    (0..each).map(move |n| (member + n * 7) % rooms)
}

pub(crate) fn run(arguments: &Arguments) -> Report {
    let (n, rooms, each) = (arguments.connections, arguments.rooms, arguments.each);
    let missed = arguments.missed;
    let mut faults = Vec::new();
    let before = prepare(arguments, 1);
    // All of them are connected when the server dies, and all with the same ticket's user.
    let mut pool = Pool::open(&arguments.target, arguments.addr, n, rooms);
    eprintln!("ready");
    let deadline = Instant::now() + DEADLINE;
    while pool.closed < n {
        pool.turn(TURN_MAX, |_, _| false);
        assert!(Instant::now() < deadline, "the server was not killed");
    }
    drop(pool);
    while TcpStream::connect(arguments.addr).is_err() {
        assert!(Instant::now() < deadline, "the server was not started again");
        std::thread::sleep(Duration::from_millis(5));
    }
    publish(arguments, &before, missed);
    let target = Target { back: Some(before), ..arguments.target.clone() };
    let stood = target.back.as_ref().map_or(0, |back| back.offset);
    let top = stood + missed;
    let mut members: Vec<Member> =
        (0..n).map(|_| Member { at: vec![stood; each], done: None }).collect();
    let started = Instant::now();
    let mut left = n;
    let mut pool = Pool::begin(&target, arguments.addr, n, rooms);
    while left > 0 {
        pool.open_some(arguments.opening);
        pool.turn(TURN_MAX, |arrival, text| {
            let member = &mut members[arrival.member];
            let rooms: Vec<usize> = rooms_of(arrival.member, each, rooms).collect();
            faults.extend(take(text, &rooms, member, arrival.member));
            if member.done.is_none() && member.at.iter().all(|at| *at == top) {
                member.done = Some(arrival.at);
                left -= 1;
            }
            false
        });
        if let Some(words) = &pool.refusal {
            faults.push(format!("refused: {words}"));
        }
        if pool.closed > 0 || faults.len() > 10 || started.elapsed() > DEADLINE {
            faults.push(format!("{left} of {n} are not back, {} were closed", pool.closed));
            break;
        }
    }
    let mut took: Vec<f64> = members
        .iter()
        .filter_map(|member| Some(member.done?.duration_since(started).as_secs_f64()))
        .collect();
    took.sort_by(f64::total_cmp);
    let at = |share: f64| took.get((took.len() as f64 * share) as usize).or(took.last());
    let seconds = |share| at(share).copied().unwrap_or(f64::NAN);
    let json = format!(
        "{{\"mode\":\"storm\",\"connections\":{n},\"rooms\":{rooms},\"rooms_each\":{each},\
         \"missed\":{missed},\"back\":{},\"p50_s\":{:.3},\"p99_s\":{:.3},\"all_s\":{:.3}}}",
        took.len(),
        seconds(0.5),
        seconds(0.99),
        seconds(1.0),
    );
    Report { json, faults }
}

/// Takes in what a text says of the member's rooms; answers what is wrong with it.
fn take(text: &[u8], rooms: &[usize], member: &mut Member, number: usize) -> Option<String> {
    let text = String::from_utf8_lossy(text);
    if text.contains(r#""gap":{"#) || text.starts_with(r#"{"type":"gap""#) {
        return Some(format!("{number} was told of a gap: {text:.200}"));
    }
    if text.contains(r#""error":{"#) {
        return Some(format!("{number} was refused a room: {text:.400}"));
    }
    let start = r#""type":"message","room":"chat:r"#;
    for message in text.split(start).skip(1) {
        let room = message.split_once('"').and_then(|(room, _)| room.parse::<usize>().ok());
        let place = room.and_then(|room| rooms.iter().position(|other| *other == room));
        let offset = number_of(message, "offset");
        let (Some(place), Some(offset)) = (place, offset) else {
            return Some(format!("{number} got what it did not ask for: {message:.200}"));
        };
        if offset != member.at[place] + 1 {
            let at = member.at[place];
            return Some(format!("{number} stands at {at} of a room and got {offset}"));
        }
        member.at[place] = offset;
    }
    None
}

/// Publishes `each` messages to every room, and answers what it takes to come back to them.
pub(crate) fn prepare(arguments: &Arguments, each: u64) -> Back {
    let path = arguments.target.path(0);
    let mut connection = Connection::open(arguments.addr, &path);
    let session = text_of(&connection.hear("hello"), "session").expect("a ticket").to_owned();
    let mut epochs = Vec::with_capacity(arguments.rooms);
    let mut offset = 0;
    for room in 0..arguments.rooms {
        if room > 0 && room.is_multiple_of(ROOMS_AT_ONCE) {
            connection = Connection::open(arguments.addr, &path);
            connection.hear("hello");
        }
        for _ in 0..each {
            connection.say(&arguments.target.publish_with_id(room, "before"));
            connection.hear("ack");
        }
        connection.say(&arguments.target.subscribe(room));
        let subscribed = connection.hear("subscribed");
        epochs.push(text_of(&subscribed, "epoch").expect("an epoch").to_owned());
        offset = number_of(&subscribed, "offset").expect("an offset");
    }
    let (each, rooms) = (arguments.each, arguments.rooms);
    Back { session, epochs, offset, each, rooms }
}

/// What everybody has missed.
fn publish(arguments: &Arguments, back: &Back, missed: u64) {
    let mut connection = Connection::open(arguments.addr, &arguments.target.path(0));
    connection.hear("hello");
    for room in 0..back.rooms {
        for _ in 0..missed {
            connection.say(&arguments.target.publish_with_id(room, "missed"));
        }
        for _ in 0..missed {
            connection.hear("ack");
        }
    }
}

impl Back {
    /// The rooms that a connection comes back to.
    pub(crate) fn rooms_of(&self, member: usize) -> impl Iterator<Item = usize> + '_ {
        rooms_of(member, self.each, self.rooms)
    }
}
