//! What the store on Postgres takes: `rows postgres://… [SECONDS]`, one round, as one JSON object.
//!
//! - durable rows a second from 64 callers with a room each, 200 bytes of data and a `msg_id` in each row,
//!   in calls of 100 rows, as the broker's group commit makes them;
//! - the same in calls of one row from 512 callers, and what one such call takes while nothing else is written.
//!
//! A row counts once its call was answered, which is after the commit. `benches/postgres` starts it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a tool that one person runs: a failed step ends it, with words"
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use application::ports::{Archive as _, ArchiveRecord};
use bytes::Bytes;
use domain::delivery::Class;
use domain::id::{ConnectionId, Epoch, MessageId, UserId};
use domain::message::{Publication, Publisher, Sender};
use domain::position::Offset;
use domain::room::RoomId;
use domain::tags::Tags;
use domain::time::Wall;
use store_postgres::{Config, PostgresArchive};

const EPOCH: Epoch = Epoch::from_bits(1);
const DATA_BYTES: usize = 200;
/// Of one call after another.
const TURNS: usize = 500;

fn record(room: &RoomId, user: &UserId, number: u64, data: &Bytes) -> ArchiveRecord {
    let sender = Sender {
        user: Some(user.clone()),
        connection: Some(ConnectionId::from_bits(number)),
        ..Sender::default()
    };
    let publication = Publication {
        room: room.clone(),
        epoch: EPOCH,
        offset: Some(Offset::parse(number).unwrap()),
        class: Class::Reliable,
        key: None,
        sender,
        data: data.clone(),
        tags: Tags::default(),
        origin: None,
        at: Wall::from_millis(1_763_717_880_000),
        expires_at: None,
        tombstone: None,
    };
    let msg_id = MessageId::parse(&format!("01J9Z3NDEKTSV4RRFFQ69G5{number}")).ok();
    ArchiveRecord { publication, publisher: Publisher::User(user.clone()), msg_id }
}

/// Rows a second of so many callers in calls of so many rows.
async fn rate(store: &Arc<PostgresArchive>, callers: usize, rows: u64, span: Duration) -> f64 {
    let done = Arc::new(AtomicU64::new(0));
    let data = Bytes::from(format!("\"{}\"", "x".repeat(DATA_BYTES - 2)));
    let begin = Instant::now();
    let callers: Vec<_> = (0..callers)
        .map(|who| {
            let (store, done, data) = (Arc::clone(store), Arc::clone(&done), data.clone());
            tokio::spawn(async move {
                let user = UserId::parse(&format!("u{who}")).unwrap();
                let room = RoomId::parse(&format!("bench:{rows}-{who}")).unwrap();
                let mut last = store.open_room(&room, EPOCH, None).await.unwrap().last.get();
                while begin.elapsed() < span {
                    let numbers = last + 1..=last + rows;
                    let records = numbers.map(|n| record(&room, &user, n, &data)).collect();
                    store.append(records).await.unwrap();
                    last += rows;
                    done.fetch_add(rows, Ordering::Relaxed);
                }
            })
        })
        .collect();
    for caller in callers {
        caller.await.unwrap();
    }
    done.load(Ordering::Relaxed) as f64 / begin.elapsed().as_secs_f64()
}

/// The median time of one call with one row, in microseconds.
async fn alone(store: &Arc<PostgresArchive>) -> f64 {
    let (room, user) = (RoomId::parse("bench:alone").unwrap(), UserId::parse("u").unwrap());
    let mut last = store.open_room(&room, EPOCH, None).await.unwrap().last.get();
    let data = Bytes::from_static(b"1");
    let mut times = Vec::new();
    for _ in 0..TURNS {
        last += 1;
        let record = record(&room, &user, last, &data);
        let begin = Instant::now();
        store.append(vec![record]).await.unwrap();
        times.push(begin.elapsed());
    }
    times.sort_unstable();
    times[times.len() / 2].as_secs_f64() * 1e6
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let url = words.first().expect("rows postgres://… [SECONDS]");
    let seconds = words.get(1).map_or(10.0, |text| text.parse().expect("a number of seconds"));
    let span = Duration::from_secs_f64(seconds);
    let store = PostgresArchive::build(Config::new(url.clone().into())).await;
    let store = Arc::new(store.unwrap_or_else(|error| panic!("{error}")));
    let rows = rate(&store, 64, 100, span).await;
    let singles = rate(&store, 512, 1, span).await;
    let alone_us = alone(&store).await;
    store.close().await;
    println!(
        "{{\"rows_per_s\":{rows:.0},\"single_rows_per_s\":{singles:.0},\"alone_us\":{alone_us:.0}}}"
    );
}
