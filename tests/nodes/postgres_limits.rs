//! What waits for Postgres is bounded, reads are as long as what they answer, and rows that nobody wrote are
//! passed over.

use std::sync::Arc;
use std::time::{Duration, Instant};

use application::ports::{
    Archive as _, ArchiveError, Inbox as _, Letter, LetterLimits, Succession as _, Successor,
};
use application::testing::archive_contract::{offset, record, room};
use bytes::Bytes;
use domain::id::{Epoch, MessageId, UserId};
use domain::message::{Sender, TombstoneReason};
use domain::position::Offset;
use domain::room::RoomId;
use domain::time::Wall;
use store_postgres::{
    Config, FIND_MESSAGES, Limits, PostgresArchive, PostgresInbox, READ_EPOCH, READ_LIVES,
};
use tests::postgres::Postgres;

use crate::postgres_stores::{build, config, impatient, in_time, until};

const EPOCH: Epoch = Epoch::from_bits(7);

async fn filled(store: &PostgresArchive, last: u64) -> RoomId {
    let room = room("chat:a");
    store.open_room(&room, EPOCH, None).await.unwrap();
    store.append((1..=last).map(|n| record(&room, EPOCH, n)).collect()).await.unwrap();
    room
}

/// The sessions that stores have.
fn n_sessions(postgres: &Postgres) -> usize {
    let count = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'roomkeeper/%'";
    postgres.ask(count).parse().unwrap()
}

/// PG03: one connection, five hundred that wait for it, half of which give up.
#[tokio::test]
async fn many_readers_of_one_connection_wait_for_so_long_and_leave_nothing_behind() {
    if !Postgres::is_here() {
        return;
    }
    let postgres = Postgres::start();
    let settings = Config { readers_max: 1, reads_waiting_max: 400, ..impatient(&postgres) };
    let schema = settings.schema.clone();
    let store = build(settings).await;
    let room = filled(&store, 3).await;
    let read = async |store: Arc<PostgresArchive>, room: RoomId| {
        store.read(&room, EPOCH, Offset::ZERO, 10, usize::MAX).await
    };
    assert!(read(Arc::clone(&store), room.clone()).await.is_ok());
    let before = (n_sessions(&postgres), store.status().connects());
    let locks = postgres.session(&format!("BEGIN; LOCK TABLE {schema}.messages"));
    let begun = Instant::now();
    let calls: Vec<_> = (0..500)
        .map(|_| {
            let (store, room) = (Arc::clone(&store), room.clone());
            tokio::spawn(
                async move { store.read(&room, EPOCH, Offset::ZERO, 10, usize::MAX).await },
            )
        })
        .collect();
    let mut refused = 0;
    for (n, call) in calls.into_iter().enumerate() {
        if n % 2 == 0 {
            call.abort();
        }
        match in_time("it answers", call).await {
            Ok(answer) => {
                assert!(answer.is_err(), "the table is locked: {answer:?}");
                refused += u64::from(answer == Err(ArchiveError::Overloaded));
            }
            Err(gone) => assert!(gone.is_cancelled()),
        }
    }
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
    assert!(refused > 100, "{refused}");
    drop(locks);
    let again = async { while read(Arc::clone(&store), room.clone()).await.is_err() {} };
    in_time("it reads again", again).await;
    until("no session is left over", || n_sessions(&postgres) <= before.0).await;
    let connects = store.status().connects() - before.1;
    assert!(connects < 50, "{connects} connections were made");
    store.close().await;
}

/// What waits is bounded while nothing can be written, and is written once it can.
#[tokio::test]
async fn what_may_not_wait_is_refused_at_once() {
    if !Postgres::is_here() {
        return;
    }
    let postgres = Postgres::start();
    let limits = Limits { queue_records_max: 20, ..Limits::default() };
    let settings = Config { limits, ..config(&postgres) };
    let schema = settings.schema.clone();
    let store = build(settings).await;
    let room = filled(&store, 1).await;
    let locks = postgres.session(&format!("BEGIN; LOCK TABLE {schema}.messages"));
    let calls: Vec<_> = (2..=100)
        .map(|n| {
            let (store, record) = (Arc::clone(&store), record(&room, EPOCH, n));
            tokio::spawn(async move { store.append(vec![record]).await })
        })
        .collect();
    until("some are refused", || calls.iter().filter(|call| call.is_finished()).count() > 50).await;
    drop(locks);
    let mut stored = 0;
    for call in calls {
        match in_time("it answers", call).await.unwrap() {
            Ok(()) => stored += 1,
            Err(error) => assert_eq!(error, ArchiveError::Overloaded),
        }
    }
    assert!((20..50).contains(&stored), "{stored}");
    let head = store.open_room(&room, EPOCH, None).await.unwrap();
    assert_eq!(head.last, offset(stored + 1));
    store.close().await;
}

/// How Postgres would do a statement with these arguments.
fn plan(postgres: &Postgres, schema: &str, statement: &str, arguments: &str) -> String {
    postgres.ask(&format!(
        "SET search_path = {schema}; SET plan_cache_mode = force_generic_plan; \
         PREPARE asked AS {statement}; EXPLAIN EXECUTE asked({arguments})"
    ))
}

/// PG11: three hundred thousand rows, and a statement that does not come to its end.
#[tokio::test]
async fn a_page_far_back_in_a_long_history_is_read_by_its_key() {
    if !Postgres::is_here() {
        return;
    }
    let postgres = Postgres::start();
    let settings = impatient(&postgres);
    let schema = settings.schema.clone();
    let store = build(settings).await;
    let room = filled(&store, 1).await;
    postgres.tell(&format!(
        "INSERT INTO {schema}.messages (room_id, msg_offset, epoch, at_ms, class, publisher, msg_id, data) \
         SELECT (SELECT id FROM {schema}.rooms), n, {}, n, 0, 'u:u1', 'm' || n, '1' \
         FROM generate_series(2, 300000) AS n; ANALYZE {schema}.messages",
        EPOCH.bits()
    ));
    for (statement, arguments) in [
        (READ_EPOCH, "'chat:a', 7, 200000, 100, 1000000"),
        (READ_LIVES, "'chat:a', 200000, 100, 1000000"),
        (FIND_MESSAGES, "ARRAY['chat:a'], ARRAY['u:u1'], ARRAY['m200000']"),
    ] {
        let plan = plan(&postgres, &schema, statement, arguments);
        assert!(!plan.contains("Seq Scan on messages"), "{plan}");
        let index = if statement == FIND_MESSAGES { "messages_msg_id" } else { "messages_pkey" };
        assert!(plan.contains(&format!("using {index} on messages")), "{plan}");
    }
    for after in [0, 1, 150_000, 299_950] {
        let page = store.read(&room, EPOCH, offset(after), 100, usize::MAX).await.unwrap();
        assert_eq!(page.messages[0].offset, Some(offset(after + 1)));
        assert_eq!(
            (page.first, page.messages.len()),
            (offset(1), 100.min(300_000 - after as usize))
        );
        let lives = store.read_lives(&room, offset(after), 100, usize::MAX).await.unwrap().unwrap();
        assert_eq!(lives.messages, page.messages);
    }
    let locks = postgres.session(&format!("BEGIN; LOCK TABLE {schema}.messages"));
    let begun = Instant::now();
    let answer = store.read(&room, EPOCH, offset(150_000), 100, usize::MAX).await;
    assert!(matches!(answer, Err(ArchiveError::Storage(_))), "{answer:?}");
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
    drop(locks);
    store.close().await;
}

/// PG12: rows that another program, or a damaged disk, has made.
#[tokio::test]
async fn a_row_that_can_not_be_read_leaves_its_place_and_the_page_still_comes() {
    if !Postgres::is_here() {
        return;
    }
    let postgres = Postgres::start();
    let settings = config(&postgres);
    let schema = settings.schema.clone();
    let store = build(settings).await;
    let room = filled(&store, 8).await;
    for (n, broken) in (2..).zip([
        "sender_name = '\\xff'",
        "tags = '{\"deep\": [[[[]]]]}'",
        "tags = '\\xc080'",
        "class = 9",
        "data = NULL",
        "sender_user = 'not a user'",
    ]) {
        postgres.tell(&format!(
            "ALTER TABLE {schema}.messages ALTER COLUMN data DROP NOT NULL; \
             UPDATE {schema}.messages SET {broken} WHERE msg_offset = {n}"
        ));
    }
    let page = store.read(&room, EPOCH, Offset::ZERO, 100, usize::MAX).await.unwrap();
    let lives = store.read_lives(&room, Offset::ZERO, 100, usize::MAX).await.unwrap().unwrap();
    assert_eq!((&lives.messages, lives.holes.len()), (&page.messages, 0));
    for (n, message) in (1..=8).zip(&page.messages) {
        assert_eq!(message.offset, Some(offset(n)));
        let gone = (2..=7).contains(&n).then_some(TombstoneReason::Deleted);
        assert_eq!(message.tombstone, gone, "{n}");
        if gone.is_none() {
            assert_eq!(*message, record(&room, EPOCH, n).publication);
        }
    }
    assert_eq!(store.status().unreadable(), 2 * 6);

    let inbox = PostgresInbox::load(Arc::clone(&store)).await.unwrap();
    let ann = UserId::parse("ann").unwrap();
    let limits = LetterLimits { of_user: 9, of_pair: 9, of_sender: 9, of_all: 9 };
    for n in 1..=4 {
        let data = Bytes::from(n.to_string());
        let letter = Letter { sender: Sender::default(), data, at: Wall::from_millis(n) };
        inbox.put(&ann, letter, limits).await.unwrap();
    }
    postgres.tell(&format!(
        "UPDATE {schema}.letters SET sender = 'no user' WHERE at_ms < 2; \
         UPDATE {schema}.letters SET data = '\\xff' WHERE at_ms = 2; \
         UPDATE {schema}.letters SET data = '{{]' WHERE at_ms = 3"
    ));
    let read = inbox.read(&ann, None, 2, usize::MAX).await.unwrap();
    assert_eq!(read.iter().map(|(_, letter)| letter.at.as_millis()).collect::<Vec<_>>(), [4]);
    store.close().await;
}

/// PG06: a transaction that waits too long for a row, and a message that an earlier attempt has stored. Two that
/// wait for each other come below; serialization failures don't happen in what is done here.
#[tokio::test]
async fn what_met_another_transaction_is_done_again_and_what_is_there_is_stored() {
    if !Postgres::is_here() {
        return;
    }
    let postgres = Postgres::start();
    let settings = impatient(&postgres);
    let schema = settings.schema.clone();
    let store = build(settings).await;
    let room = filled(&store, 1).await;
    let locks = postgres.session(&format!("BEGIN; SELECT 1 FROM {schema}.rooms FOR UPDATE"));
    let call = {
        let (store, record) = (Arc::clone(&store), record(&room, EPOCH, 2));
        tokio::spawn(async move { store.append(vec![record]).await })
    };
    until("it is tried again", || store.status().retries() > 0).await;
    drop(locks);
    assert_eq!(in_time("it is stored", call).await.unwrap(), Ok(()));
    let _held = postgres.session(&format!("BEGIN; SELECT 1 FROM {schema}.rooms FOR UPDATE"));
    let before = store.status().retries();
    let answer = in_time("it gives up", store.append(vec![record(&room, EPOCH, 3)])).await;
    assert!(matches!(answer, Err(ArchiveError::Storage(_))), "{answer:?}");
    assert_eq!(store.status().retries() - before, 3);
    drop(_held);
    // Another node, or an earlier call without an answer, has brought it.
    let next = Successor { of: Some(EPOCH), epoch: EPOCH, behind: Offset::ZERO };
    assert_eq!(store.succeed(&room, next).await.unwrap().last, offset(2));
    for _ in 0..2 {
        assert_eq!(
            store.place(vec![record(&room, EPOCH, 3), record(&room, EPOCH, 2)]).await,
            Ok(())
        );
    }
    store.close().await;
}

/// PG06: a node holds one room and waits for another one, which somebody holds who waits for the first.
#[tokio::test]
async fn one_of_two_transactions_that_wait_for_each_other_is_made_again() {
    if !Postgres::is_here() {
        return;
    }
    let postgres = Arc::new(Postgres::start());
    // The server finds a circle after a second: before a lock is given up.
    let settings = Config { answer_timeout: Duration::from_secs(10), ..config(&postgres) };
    let schema = settings.schema.clone();
    let store = build(settings).await;
    let rooms = ["chat:a", "chat:b"].map(room);
    for room in &rooms {
        store.open_room(room, EPOCH, None).await.unwrap();
    }
    let take = |room: &str| {
        format!("PERFORM 1 FROM {schema}.rooms WHERE room = 'chat:{room}' FOR UPDATE;")
    };
    let circle = format!(
        "BEGIN; DO $$ BEGIN {} WHILE NOT EXISTS (SELECT 1 FROM pg_locks WHERE NOT granted) LOOP \
         PERFORM pg_sleep(0.01); END LOOP; {} END $$",
        take("b"),
        take("a")
    );
    let other = Arc::clone(&postgres);
    let circle = tokio::task::spawn_blocking(move || other.session(&circle));
    let held = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'";
    until("one of them is held", || postgres.ask(held) != "0").await;
    let call = {
        let (store, records) = (Arc::clone(&store), rooms.map(|room| record(&room, EPOCH, 1)));
        tokio::spawn(async move { store.append(records.to_vec()).await })
    };
    until("it is made again", || store.status().retries() > 0).await;
    drop(in_time("the other one has both", circle).await.unwrap());
    assert_eq!(in_time("it is stored", call).await.unwrap(), Ok(()));
    let found = "SELECT deadlocks FROM pg_stat_database WHERE datname = 'postgres'";
    until("it was a circle", || postgres.ask(found) != "0").await;
    store.close().await;
}

/// Data that can't be stored is refused alone, and a name that no text can hold is kept.
#[tokio::test]
async fn one_bad_call_of_a_group_keeps_no_other_from_being_stored() {
    if !Postgres::is_here() {
        return;
    }
    let postgres = Postgres::start();
    let settings =
        Config { writers: 1, answer_timeout: Duration::from_secs(10), ..config(&postgres) };
    let schema = settings.schema.clone();
    let store = build(settings).await;
    let first = room("chat:first");
    store.open_room(&first, EPOCH, None).await.unwrap();
    let rooms: Vec<_> = (0..40).map(|n| room(&format!("chat:{n}"))).collect();
    for room in &rooms {
        store.open_room(room, EPOCH, None).await.unwrap();
        store.append(vec![record(room, EPOCH, 1)]).await.unwrap();
    }
    let locks = postgres.session(&format!("BEGIN; LOCK TABLE {schema}.messages"));
    // All others wait behind one that waits for the table, and are one group then.
    let before = {
        let (store, record) = (Arc::clone(&store), record(&first, EPOCH, 1));
        tokio::spawn(async move { store.append(vec![record]).await })
    };
    let waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted";
    until("the writer waits", || postgres.ask(waiting) != "0").await;
    let (commits, _) = store.status().commits();
    let calls: Vec<_> = rooms
        .iter()
        .zip(0..)
        .map(|(room, n)| {
            let mut record = record(room, EPOCH, 2);
            record.publication.sender.name = Some("a\0b".into());
            if n % 10 == 3 {
                record.msg_id = MessageId::parse("m1").ok();
            }
            let store = Arc::clone(&store);
            tokio::spawn(async move { store.append(vec![record]).await })
        })
        .collect();
    // This runtime has one thread: all of them have been begun then.
    tokio::task::yield_now().await;
    drop(locks);
    assert_eq!(in_time("it answers", before).await.unwrap(), Ok(()));
    for (n, call) in calls.into_iter().enumerate() {
        let answer = in_time("it answers", call).await.unwrap();
        assert_eq!(answer.is_err(), n % 10 == 3, "{n}: {answer:?}");
    }
    // Halves of one group, and not a transaction for each.
    let commits = store.status().commits().0 - commits;
    assert!((4..30).contains(&commits), "{commits}");
    let page = store.read(&rooms[0], EPOCH, offset(1), 9, usize::MAX).await.unwrap();
    assert_eq!(page.messages[0].sender.name.as_deref(), Some("a\0b"));
    store.close().await;
}
