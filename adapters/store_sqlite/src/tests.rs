//! The archive against real SQLite files: the port's contract, and what only files can do.
//!
//! Faults are real ones (a full database, a damaged file, a held connection), never pretended.

use std::cell::Cell;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use application::ports::archive::{
    Archive, ArchiveError, ArchiveRecord, DedupKey, Forget, RoomHead,
};
use application::ports::{Revocations as _, RevokeError, SpendError, Spending, SpentTokens as _};
use application::testing::archive_contract::{self, offset, record, room};
use application::testing::revocations_contract::RevocationsContract;
use application::testing::spent_tokens_contract::SpentTokensContract;
use bytes::Bytes;
use domain::id::{ConnectionId, Epoch, MessageId, TokenId, UserId};
use domain::position::{Offset, Position};
use domain::principal::{Credential, Principal};
use domain::revocation::Revocation;
use domain::room::RoomId;
use domain::time::Wall;
use tempfile::{TempDir, tempdir};

use crate::{
    BuildError, Config, FILE_NAME, Limits, SqliteArchive, SqliteRevocations, SqliteSpentTokens,
};

mod letters;
mod matches;
mod moderation;
mod revocations;
mod spent_tokens;

const EPOCH: Epoch = Epoch::from_bits(u64::MAX);

async fn build(directory: &TempDir) -> SqliteArchive {
    SqliteArchive::build(Config::in_directory(directory.path())).await.unwrap()
}

async fn refusal(directory: &Path) -> BuildError {
    SqliteArchive::build(Config::in_directory(directory)).await.err().unwrap()
}

async fn opened(archive: &SqliteArchive) -> RoomId {
    let room = room("chat:a");
    archive.open_room(&room, EPOCH, None).await.unwrap();
    room
}

async fn last(archive: &SqliteArchive, room: &RoomId) -> Offset {
    archive.open_room(room, EPOCH, None).await.unwrap().last
}

fn large(room: &RoomId, number: u64) -> ArchiveRecord {
    let mut record = record(room, EPOCH, number);
    record.publication.data = Bytes::from(vec![b'x'; 64 * 1024]);
    record
}

#[tokio::test]
async fn an_archive_in_a_file_keeps_the_contract() {
    let parent = tempdir().unwrap();
    let n = Cell::new(0);
    let factory = async || {
        n.set(n.get() + 1);
        let config = Config::in_directory(parent.path().join(n.get().to_string()));
        Arc::new(SqliteArchive::build(config).await.unwrap()) as Arc<dyn Archive>
    };
    archive_contract::all(factory).await;
}

#[tokio::test]
async fn an_archive_in_memory_keeps_the_contract() {
    let factory = async || {
        Arc::new(SqliteArchive::build(Config::in_memory()).await.unwrap()) as Arc<dyn Archive>
    };
    archive_contract::all(factory).await;
}

#[tokio::test]
async fn what_was_acknowledged_is_in_the_files_at_that_moment() {
    let directory = tempdir().unwrap();
    let archive = build(&directory).await;
    let room = opened(&archive).await;
    for number in 1..=50 {
        archive.append(vec![record(&room, EPOCH, number)]).await.unwrap();
    }
    // What a killed process leaves behind is what its files hold while it lives.
    let copy = tempdir().unwrap();
    for file in [FILE_NAME.to_owned(), format!("{FILE_NAME}-wal")] {
        fs::copy(directory.path().join(&file), copy.path().join(&file)).unwrap();
    }
    let reopened = build(&copy).await;
    let head = reopened.open_room(&room, Epoch::from_bits(1), None).await;
    assert_eq!(head, Ok(RoomHead::new(EPOCH, offset(50))));
    let page = reopened.read(&room, EPOCH, Offset::ZERO, 100, usize::MAX).await.unwrap();
    assert_eq!(page.messages.len(), 50);
}

#[tokio::test]
async fn a_closed_archive_has_written_all_and_gives_its_directory_back() {
    let directory = tempdir().unwrap();
    let archive = build(&directory).await;
    let room = opened(&archive).await;
    let (stored, ()) = tokio::join!(archive.append(vec![record(&room, EPOCH, 1)]), archive.close());
    assert_eq!(stored, Ok(()));
    let wal = directory.path().join(format!("{FILE_NAME}-wal"));
    assert_eq!(wal.metadata().map_or(0, |metadata| metadata.len()), 0);

    archive.close().await;
    let late = archive.append(vec![record(&room, EPOCH, 2)]).await;
    assert_eq!(late, Err(ArchiveError::Closed));
    let read = archive.read(&room, EPOCH, Offset::ZERO, 1, usize::MAX).await;
    assert_eq!(read, Err(ArchiveError::Closed));

    let reopened = build(&directory).await;
    assert_eq!(last(&reopened, &room).await, offset(1));
}

#[tokio::test]
async fn an_archive_in_memory_closes_too() {
    let archive = SqliteArchive::build(Config::in_memory()).await.unwrap();
    let room = opened(&archive).await;
    archive.close().await;
    assert_eq!(archive.open_room(&room, EPOCH, None).await, Err(ArchiveError::Closed));
    assert_eq!(archive.find(Vec::new()).await, Err(ArchiveError::Closed));
}

fn keys(room: &RoomId, numbers: std::ops::RangeInclusive<u64>) -> Vec<DedupKey> {
    let records = numbers.map(|number| record(room, EPOCH, number));
    let key = |record: ArchiveRecord| DedupKey {
        room: record.publication.room,
        publisher: record.publisher,
        msg_id: record.msg_id.unwrap(),
    };
    records.map(key).collect()
}

#[tokio::test]
async fn many_keys_are_found_each_in_its_place() {
    let archive = SqliteArchive::build(Config::in_memory()).await.unwrap();
    let room = opened(&archive).await;
    let records = (1..=100).map(|number| record(&room, EPOCH, number)).collect();
    archive.append(records).await.unwrap();
    let mut asked = keys(&room, 51..=180);
    asked.extend(keys(&room, 1..=63));
    let found = archive.find(asked).await.unwrap();
    let at = |number| Some(Position { epoch: EPOCH, offset: offset(number) });
    let expected = (51..=100).map(at).chain(vec![None; 80]).chain((1..=63).map(at));
    assert_eq!(found, expected.collect::<Vec<_>>());
}

#[tokio::test]
async fn keys_are_found_through_indexes_only() {
    let archive = SqliteArchive::build(Config::in_memory()).await.unwrap();
    let room = opened(&archive).await;
    for count in [1, 2] {
        use sqlx::Execute as _;
        let asked = keys(&room, 1..=count);
        let text = archive.statements.find_messages(&asked).sql();
        let plan: Vec<(i64, i64, i64, String)> =
            sqlx::query_as(sqlx::AssertSqlSafe(format!("EXPLAIN QUERY PLAN {}", text.as_str())))
                .fetch_all(&archive.pools.writer)
                .await
                .unwrap();
        let steps: Vec<&str> = plan.iter().map(|step| step.3.as_str()).collect();
        assert!(
            steps.iter().any(|step| step.contains("messages_msg_id (room_id=? AND")),
            "{steps:?}"
        );
        assert!(!steps.iter().any(|step| step.starts_with("SCAN rooms")), "{steps:?}");
        assert!(!steps.iter().any(|step| step.starts_with("SCAN messages")), "{steps:?}");
    }
}

#[tokio::test]
async fn only_rooms_that_never_had_a_message_are_forgotten_with_a_restart() {
    let directory = tempdir().unwrap();
    let archive = build(&directory).await;
    let (empty, used, trimmed) = (room("chat:empty"), room("chat:used"), room("chat:trimmed"));
    for room in [&empty, &used, &trimmed] {
        archive.open_room(room, EPOCH, None).await.unwrap();
    }
    for room in [&used, &trimmed] {
        archive.append(vec![record(room, EPOCH, 1)]).await.unwrap();
    }
    let old = Forget::Old { first: offset(2), before: Wall::MAX };
    archive.forget(&trimmed, old).await.unwrap();
    archive.close().await;
    let archive = build(&directory).await;
    let rooms: i64 = sqlx::query_scalar("SELECT count(*) FROM rooms")
        .fetch_one(&archive.pools.writer)
        .await
        .unwrap();
    assert_eq!(rooms, 2);
    let fresh = Epoch::from_bits(1);
    for (room, epoch, last) in [(empty, fresh, 0), (used, EPOCH, 1), (trimmed, EPOCH, 1)] {
        let head = archive.open_room(&room, fresh, None).await.unwrap();
        assert_eq!(head, RoomHead::new(epoch, offset(last)));
    }
}

#[tokio::test]
async fn two_archives_never_share_a_directory() {
    let directory = tempdir().unwrap();
    let archive = build(&directory).await;
    let error = refusal(directory.path()).await;
    assert!(matches!(error, BuildError::InUse { .. }), "{error:?}");
    assert!(error.to_string().contains(&directory.path().display().to_string()), "{error}");
    archive.close().await;
    build(&directory).await;
}

#[tokio::test]
async fn a_directory_that_cannot_be_made_is_named() {
    let parent = tempdir().unwrap();
    let file = parent.path().join("file");
    fs::write(&file, "").unwrap();
    let wanted = file.join("data");
    let error = refusal(&wanted).await;
    assert!(matches!(error, BuildError::Unwritable { .. }), "{error:?}");
    assert!(error.to_string().contains(&wanted.display().to_string()), "{error}");
}

#[tokio::test]
async fn a_file_that_is_no_database_is_refused_and_left_as_it_is() {
    let directory = tempdir().unwrap();
    let file = directory.path().join(FILE_NAME);
    let text = "not a database, but long enough to look for a header ".repeat(100);
    fs::write(&file, &text).unwrap();
    let error = refusal(directory.path()).await;
    assert!(matches!(error, BuildError::Corrupt { .. }), "{error:?}");
    assert!(error.to_string().contains(&file.display().to_string()), "{error}");
    assert_eq!(fs::read_to_string(&file).unwrap(), text);
}

#[tokio::test]
async fn a_schema_of_a_newer_version_is_refused() {
    let directory = tempdir().unwrap();
    let archive = build(&directory).await;
    sqlx::query(
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
         VALUES (99, 'later', 1, x'00', 0)",
    )
    .execute(&archive.pools.writer)
    .await
    .unwrap();
    archive.close().await;
    let error = refusal(directory.path()).await;
    assert!(matches!(error, BuildError::Newer { version: 99, .. }), "{error:?}");
}

#[cfg(unix)]
#[tokio::test]
async fn nobody_else_can_look_into_a_directory_that_the_archive_made() {
    use std::os::unix::fs::PermissionsExt as _;
    let parent = tempdir().unwrap();
    let directory = parent.path().join("a/b");
    let archive = SqliteArchive::build(Config::in_directory(&directory)).await.unwrap();
    opened(&archive).await;
    let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&directory), 0o700);
    for file in [FILE_NAME.to_owned(), format!("{FILE_NAME}-wal")] {
        assert_eq!(mode(&directory.join(file)), 0o600);
    }
}

#[tokio::test]
async fn a_full_disk_refuses_what_does_not_fit_and_is_forgotten_once_there_is_space() {
    let directory = tempdir().unwrap();
    let archive = build(&directory).await;
    let room = opened(&archive).await;
    sqlx::query("PRAGMA max_page_count = 64").execute(&archive.pools.writer).await.unwrap();
    let mut stored = 0;
    let error = loop {
        match archive.append(vec![large(&room, stored + 1)]).await {
            Ok(()) => stored += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(&error, ArchiveError::Storage(text) if text.contains("full")), "{error:?}");
    for _ in 0..3 {
        let again = archive.append(vec![large(&room, stored + 1)]).await;
        assert!(matches!(again, Err(ArchiveError::Storage(_))), "{again:?}");
    }
    assert_eq!(last(&archive, &room).await, offset(stored));
    assert_eq!(
        archive.read(&room, EPOCH, offset(stored), 1, usize::MAX).await.unwrap().messages,
        []
    );

    sqlx::query("PRAGMA max_page_count = 100000").execute(&archive.pools.writer).await.unwrap();
    assert_eq!(archive.append(vec![large(&room, stored + 1)]).await, Ok(()));
    assert_eq!(last(&archive, &room).await, offset(stored + 1));
}

#[tokio::test]
async fn a_read_only_database_refuses_writes_until_it_is_writable_again() {
    let directory = tempdir().unwrap();
    let archive = build(&directory).await;
    let room = opened(&archive).await;
    sqlx::query("PRAGMA query_only = 1").execute(&archive.pools.writer).await.unwrap();
    let refused = archive.append(vec![record(&room, EPOCH, 1)]).await;
    assert!(matches!(refused, Err(ArchiveError::Storage(_))), "{refused:?}");
    sqlx::query("PRAGMA query_only = 0").execute(&archive.pools.writer).await.unwrap();
    assert_eq!(archive.append(vec![record(&room, EPOCH, 1)]).await, Ok(()));
}

#[tokio::test]
async fn what_may_not_wait_is_refused_at_once() {
    let sized = |room: &RoomId, number| {
        let mut record = record(room, EPOCH, number);
        record.publication.data = Bytes::from(vec![b'x'; 1_024]);
        vec![record]
    };
    let records_max = Limits { queue_records_max: 2, ..Limits::default() };
    let bytes_max = Limits { queue_bytes_max: 3 * 1_024, ..Limits::default() };
    for limits in [records_max, bytes_max] {
        let config = Config { limits, ..Config::in_memory() };
        let archive = SqliteArchive::build(config).await.unwrap();
        let room = opened(&archive).await;
        // The writer takes the first call away and waits for its connection; two more fill the
        // queue.
        let held = archive.pools.writer.acquire().await.unwrap();
        let mut waiting = Vec::new();
        for number in 1..=3 {
            let mut call = Box::pin(archive.append(sized(&room, number)));
            assert!(poll_once(&mut call).await.is_none());
            waiting.push(call);
            tokio::task::yield_now().await;
        }
        assert_eq!(archive.append(sized(&room, 4)).await, Err(ArchiveError::Overloaded));
        drop(held);
        for call in waiting {
            assert_eq!(call.await, Ok(()));
        }
        assert_eq!(archive.append(sized(&room, 4)).await, Ok(()));
    }
}

#[tokio::test]
async fn a_call_above_the_limits_is_taken_when_nothing_else_waits() {
    let limits = Limits {
        queue_records_max: 1,
        queue_bytes_max: 1,
        batch_records_max: 1,
        batch_bytes_max: 1,
    };
    let config = Config { limits, ..Config::in_memory() };
    let archive = SqliteArchive::build(config).await.unwrap();
    let room = opened(&archive).await;
    let records = (1..=100).map(|number| record(&room, EPOCH, number)).collect();
    assert_eq!(archive.append(records).await, Ok(()));
}

/// Polls once.
async fn poll_once<F: Future + Unpin>(call: &mut F) -> Option<F::Output> {
    std::future::poll_fn(|context| match std::pin::Pin::new(&mut *call).poll(context) {
        std::task::Poll::Ready(output) => std::task::Poll::Ready(Some(output)),
        std::task::Poll::Pending => std::task::Poll::Ready(None),
    })
    .await
}

#[tokio::test]
async fn calls_made_without_waiting_take_effect_in_their_order() {
    let directory = tempdir().unwrap();
    let archive = build(&directory).await;
    let room = opened(&archive).await;
    let held = archive.pools.writer.acquire().await.unwrap();
    let mut calls = Vec::new();
    for number in 1..=300 {
        let mut call = Box::pin(archive.append(vec![record(&room, EPOCH, number)]));
        assert!(poll_once(&mut call).await.is_none());
        calls.push(call);
    }
    drop(held);
    for call in calls {
        assert_eq!(call.await, Ok(()));
    }
    assert_eq!(last(&archive, &room).await, offset(300));
}

#[tokio::test]
async fn a_call_out_of_order_is_refused_alone_in_its_group() {
    let directory = tempdir().unwrap();
    let archive = build(&directory).await;
    let room = opened(&archive).await;
    let held = archive.pools.writer.acquire().await.unwrap();
    let release = async { drop(held) };
    let (first, hole, second, ()) = tokio::join!(
        archive.append(vec![record(&room, EPOCH, 1)]),
        archive.append(vec![record(&room, EPOCH, 7)]),
        archive.append(vec![record(&room, EPOCH, 2)]),
        release,
    );
    assert_eq!((first, second), (Ok(()), Ok(())));
    assert!(matches!(hole, Err(ArchiveError::Storage(_))), "{hole:?}");
    assert_eq!(last(&archive, &room).await, offset(2));
}

#[tokio::test]
async fn a_group_that_fails_fails_for_all_its_calls() {
    let directory = tempdir().unwrap();
    let archive = build(&directory).await;
    let room = opened(&archive).await;
    let mut again = record(&room, EPOCH, 2);
    again.msg_id = MessageId::parse("m1").ok();
    let held = archive.pools.writer.acquire().await.unwrap();
    let release = async { drop(held) };
    let (first, second, ()) = tokio::join!(
        archive.append(vec![record(&room, EPOCH, 1)]),
        archive.append(vec![again]),
        release,
    );
    for answer in [first, second] {
        assert!(matches!(answer, Err(ArchiveError::Storage(_))), "{answer:?}");
    }
    assert_eq!(last(&archive, &room).await, Offset::ZERO);
    assert_eq!(archive.append(vec![record(&room, EPOCH, 1)]).await, Ok(()));
}

#[test]
fn callers_of_a_writer_that_died_are_told_that_the_archive_is_closed() {
    let directory = tempdir().unwrap();
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let first = runtime();
    let archive = first.block_on(build(&directory));
    let room = first.block_on(opened(&archive));
    // Ends the task that writes in the middle of its work, as a panic would.
    drop(first);
    runtime().block_on(async {
        let answer = archive.append(vec![record(&room, EPOCH, 1)]).await;
        assert_eq!(answer, Err(ArchiveError::Closed));
        archive.close().await;
    });
}

/// How long revocations and spent tokens are remembered in these tests.
const SPAN: std::time::Duration = std::time::Duration::from_secs(3_600);
