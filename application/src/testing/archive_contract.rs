//! The contract of the `archive` port: one function per obligation, each on an empty archive.
//!
//! It knows the port only; nothing here may depend on how an archive stores.
#![allow(
    clippy::expect_used,
    reason = "a broken contract ends the test that runs it, like any failed assertion"
)]

use std::sync::Arc;

use bytes::Bytes;
use domain::delivery::Class;
use domain::id::{ClientId, ConnectionId, Epoch, MessageId, UserId};
use domain::message::{Publication, Publisher, Sender, TombstoneReason};
use domain::position::{Offset, Position};
use domain::room::RoomId;
use domain::tags::Tags;
use domain::time::Wall;

use crate::ports::archive::{Archive, ArchiveError, ArchiveRecord, DedupKey, Forget, RoomHead};

/// The epoch of the contract's rooms: its highest bit is set, which a signed column must survive.
const EPOCH: Epoch = Epoch::from_bits(u64::MAX - 5);

/// Runs the whole contract, each obligation on a new archive of the factory.
pub async fn all(factory: impl AsyncFn() -> Arc<dyn Archive>) {
    a_new_room_begins_with_the_fresh_epoch_and_offset_zero(&*factory().await).await;
    opening_again_keeps_the_epoch_and_the_last_offset(&*factory().await).await;
    messages_come_back_equal_and_in_order(&*factory().await).await;
    pages_follow_each_other_without_a_hole(&*factory().await).await;
    a_page_ends_where_its_bytes_do(&*factory().await).await;
    an_unknown_room_is_empty(&*factory().await).await;
    find_answers_in_the_order_of_its_keys(&*factory().await).await;
    a_message_id_is_stored_once_per_publisher_and_room(&*factory().await).await;
    an_append_out_of_order_is_refused_and_stores_nothing(&*factory().await).await;
    a_batch_is_stored_whole_or_not_at_all(&*factory().await).await;
    trimming_forgets_the_oldest_and_keeps_the_head(&*factory().await).await;
    trimming_by_age_stops_at_the_first_newer_message(&*factory().await).await;
    a_long_trim_reaches_its_end(&*factory().await).await;
    an_erased_message_leaves_its_place_and_its_name(&*factory().await).await;
    erasing_what_is_not_there_is_no_error(&*factory().await).await;
    tombstones_and_expiry_are_kept(&*factory().await).await;
    any_bytes_come_back(&*factory().await).await;
    rooms_do_not_mix(&*factory().await).await;
    epochs_do_not_mix(&*factory().await).await;
}

/// A room's name.
#[must_use]
pub fn room(name: &str) -> RoomId {
    RoomId::parse(name).expect("the contract's rooms are valid")
}

/// An offset.
#[must_use]
pub fn offset(number: u64) -> Offset {
    Offset::parse(number).expect("the contract's offsets are valid")
}

/// None for every third message, else two that need escapes in any text.
fn tags(number: u64) -> Tags {
    let value = format!("\"{number}\\ ü\n");
    let pairs = [("n", &*value), ("", "'")];
    Tags::build(pairs.into_iter().filter(|_| !number.is_multiple_of(3))).expect("good tags")
}

/// A message at an offset of a room, with tags and a `msg_id` of its own, stored `number`
/// milliseconds after 1970.
#[must_use]
pub fn record(room: &RoomId, epoch: Epoch, number: u64) -> ArchiveRecord {
    let user = UserId::parse("u1").expect("a valid user");
    let sender = Sender {
        user: Some(user.clone()),
        name: Some("Ünal \"B\"".into()),
        connection: Some(ConnectionId::from_bits(u64::MAX)),
        trace: None,
    };
    let publication = Publication {
        room: room.clone(),
        epoch,
        offset: Some(offset(number)),
        class: Class::Reliable,
        key: None,
        sender,
        data: Bytes::from(format!(r#"{{"n":{number}}}"#)),
        tags: tags(number),
        origin: None,
        at: Wall::from_millis(i64::try_from(number).unwrap_or(i64::MAX)),
        expires_at: None,
        tombstone: None,
    };
    let msg_id = MessageId::parse(&format!("m{number}")).ok();
    ArchiveRecord { publication, publisher: Publisher::User(user), msg_id }
}

/// Opens a room in the contract's epoch and appends the messages 1 to `last`.
async fn filled(archive: &dyn Archive, name: &str, last: u64) -> RoomId {
    let room = room(name);
    archive.open_room(&room, EPOCH, None).await.expect("the room opens");
    let records = (1..=last).map(|n| record(&room, EPOCH, n)).collect();
    assert_eq!(archive.append(records).await, Ok(()));
    room
}

async fn read_all(archive: &dyn Archive, room: &RoomId) -> Vec<Publication> {
    archive
        .read(room, EPOCH, Offset::ZERO, 100_000, usize::MAX)
        .await
        .expect("the room is read")
        .messages
}

async fn trim(
    archive: &dyn Archive,
    room: &RoomId,
    first: Offset,
    before: Wall,
) -> Result<(), ArchiveError> {
    archive.forget(room, Forget::Old { first, before }).await
}

async fn offsets(archive: &dyn Archive, room: &RoomId) -> Vec<u64> {
    let messages = read_all(archive, room).await;
    messages.iter().map(|message| message.offset.map_or(0, Offset::get)).collect()
}

async fn last(archive: &dyn Archive, room: &RoomId) -> Offset {
    archive.open_room(room, Epoch::from_bits(1), None).await.expect("the room opens").last
}

fn key(record: &ArchiveRecord) -> DedupKey {
    DedupKey {
        room: record.publication.room.clone(),
        publisher: record.publisher.clone(),
        msg_id: record.msg_id.clone().expect("a record with a msg_id"),
    }
}

fn assert_refused(answer: &Result<(), ArchiveError>) {
    assert!(matches!(answer, Err(ArchiveError::Storage(_))), "not refused: {answer:?}");
}

/// A room not known yet begins with the epoch that was offered.
pub async fn a_new_room_begins_with_the_fresh_epoch_and_offset_zero(archive: &dyn Archive) {
    let head = archive.open_room(&room("chat:a"), EPOCH, None).await;
    assert_eq!(head, Ok(RoomHead::new(EPOCH, Offset::ZERO)));
}

/// A known room keeps what it has, whatever is offered.
pub async fn opening_again_keeps_the_epoch_and_the_last_offset(archive: &dyn Archive) {
    let room = filled(archive, "chat:a", 3).await;
    let head = archive.open_room(&room, Epoch::from_bits(9), None).await;
    assert_eq!(head, Ok(RoomHead::new(EPOCH, offset(3))));
}

/// Everything of a message is kept but where its command came from.
pub async fn messages_come_back_equal_and_in_order(archive: &dyn Archive) {
    let room = room("chat:a");
    archive.open_room(&room, EPOCH, None).await.expect("the room opens");
    let mut records: Vec<_> = (1..=200).map(|n| record(&room, EPOCH, n)).collect();
    records[1].publication.sender = Sender::default();
    records[1].publisher = Publisher::ApiKey(ClientId::parse("billing").expect("a valid key name"));
    records[1].msg_id = None;
    records[2].publication.at = Wall::from_millis(-1);
    let sent: Vec<_> = records.iter().map(|record| record.publication.clone()).collect();
    assert_eq!(archive.append(records).await, Ok(()));
    assert_eq!(read_all(archive, &room).await, sent);
}

/// Reading on behind the last message of each page meets every message once.
pub async fn pages_follow_each_other_without_a_hole(archive: &dyn Archive) {
    let room = filled(archive, "chat:a", 25).await;
    let mut after = Offset::ZERO;
    for (from, to) in [(1, 10), (11, 20), (21, 25)] {
        let page =
            archive.read(&room, EPOCH, after, 10, usize::MAX).await.expect("the room is read");
        assert_eq!(page.first, offset(1));
        let numbers: Vec<_> = page.messages.iter().filter_map(|m| m.offset).collect();
        assert_eq!(numbers, (from..=to).map(offset).collect::<Vec<_>>());
        after = offset(to);
    }
    let page = archive.read(&room, EPOCH, after, 10, usize::MAX).await.expect("the room is read");
    assert!(page.messages.is_empty());
    let page =
        archive.read(&room, EPOCH, Offset::ZERO, 0, usize::MAX).await.expect("the room is read");
    assert_eq!((page.first, page.messages.len()), (offset(1), 0));
}

/// A page takes what fits in its bytes, and one message even if that is too large, so that a
/// reader gets past it; what is left comes with the next page.
pub async fn a_page_ends_where_its_bytes_do(archive: &dyn Archive) {
    let room = room("chat:a");
    archive.open_room(&room, EPOCH, None).await.expect("the room opens");
    let mut records: Vec<_> = (1..=6).map(|n| record(&room, EPOCH, n)).collect();
    for (record, bytes) in records.iter_mut().zip([100, 100, 100, 500, 100, 100]) {
        record.publication.data = Bytes::from(vec![b'1'; bytes]);
    }
    assert_eq!(archive.append(records).await, Ok(()));
    for (after, bytes_max, count) in
        [(0, 0, 1), (0, 199, 1), (0, 200, 2), (0, 799, 3), (0, 800, 4), (3, 200, 1), (4, 200, 2)]
    {
        let page = archive.read(&room, EPOCH, offset(after), 10, bytes_max).await;
        let page = page.expect("the room is read");
        assert_eq!(page.first, offset(1));
        let numbers: Vec<_> = page.messages.iter().filter_map(|m| m.offset).collect();
        let expected: Vec<_> = (after + 1..=after + count).map(offset).collect();
        assert_eq!(numbers, expected, "{bytes_max} bytes behind {after}");
    }
    let page = archive.read(&room, EPOCH, Offset::ZERO, 2, 800).await.expect("the room is read");
    assert_eq!(page.messages.len(), 2, "the limit of messages counts too");
}

/// A room that was never opened has no messages and nothing to trim, and that is no error.
pub async fn an_unknown_room_is_empty(archive: &dyn Archive) {
    let room = room("chat:none");
    let page =
        archive.read(&room, EPOCH, Offset::ZERO, 10, usize::MAX).await.expect("the room is read");
    assert_eq!((page.first, page.messages.len()), (offset(1), 0));
    assert_eq!(trim(archive, &room, offset(5), Wall::MAX).await, Ok(()));
    assert_eq!(archive.find(vec![key(&record(&room, EPOCH, 1))]).await, Ok(vec![None]));
    assert_eq!(archive.append(Vec::new()).await, Ok(()));
}

/// Each key has its own answer, found or not, in its own place.
pub async fn find_answers_in_the_order_of_its_keys(archive: &dyn Archive) {
    let room = filled(archive, "chat:a", 3).await;
    let stored = key(&record(&room, EPOCH, 3));
    let never = key(&record(&room, EPOCH, 4));
    let client = ClientId::parse("u1").expect("a valid client");
    let namesake = DedupKey { publisher: Publisher::Client(client), ..stored.clone() };
    let elsewhere = DedupKey { room: filled(archive, "chat:b", 1).await, ..stored.clone() };
    let first = key(&record(&room, EPOCH, 1));
    let keys = vec![never, stored.clone(), namesake, elsewhere, first, stored];
    let at = |number| Some(Position { epoch: EPOCH, offset: offset(number) });
    assert_eq!(archive.find(keys).await, Ok(vec![None, at(3), None, None, at(1), at(3)]));
    assert_eq!(archive.find(Vec::new()).await, Ok(Vec::new()));
}

/// The same name of the same publisher cannot take a second place in a room.
pub async fn a_message_id_is_stored_once_per_publisher_and_room(archive: &dyn Archive) {
    let room = filled(archive, "chat:a", 2).await;
    let mut again = record(&room, EPOCH, 3);
    again.msg_id = MessageId::parse("m1").ok();
    assert_refused(&archive.append(vec![again.clone()]).await);
    assert_eq!(last(archive, &room).await, offset(2));
    let first = Some(Position { epoch: EPOCH, offset: offset(1) });
    assert_eq!(archive.find(vec![key(&again)]).await, Ok(vec![first]));
    again.publisher = Publisher::User(UserId::parse("u2").expect("a valid user"));
    assert_eq!(archive.append(vec![again]).await, Ok(()));
}

/// Only the next offset of the room's epoch is taken.
pub async fn an_append_out_of_order_is_refused_and_stores_nothing(archive: &dyn Archive) {
    let room = filled(archive, "chat:a", 2).await;
    for number in [0, 1, 2, 4, Offset::MAX.get()] {
        let mut wrong = record(&room, EPOCH, number);
        wrong.msg_id = None;
        assert_refused(&archive.append(vec![wrong]).await);
    }
    let mut nowhere = record(&room, EPOCH, 3);
    nowhere.publication.offset = None;
    assert_refused(&archive.append(vec![nowhere]).await);
    assert_refused(&archive.append(vec![record(&room, Epoch::from_bits(1), 3)]).await);
    let unopened = RoomId::parse("chat:unopened").expect("a valid room");
    assert_refused(&archive.append(vec![record(&unopened, EPOCH, 1)]).await);
    assert_eq!(offsets(archive, &room).await, [1, 2]);
    assert_eq!(archive.append(vec![record(&room, EPOCH, 3)]).await, Ok(()));
}

/// A record that is refused takes the records of all rooms in its call with it.
pub async fn a_batch_is_stored_whole_or_not_at_all(archive: &dyn Archive) {
    let a = filled(archive, "chat:a", 1).await;
    let b = filled(archive, "chat:b", 1).await;
    let ok = [record(&a, EPOCH, 2), record(&b, EPOCH, 2), record(&a, EPOCH, 3)];
    let hole = record(&b, EPOCH, 4);
    assert_refused(&archive.append(ok.iter().cloned().chain([hole]).collect()).await);
    let mut known = record(&b, EPOCH, 3);
    known.msg_id = MessageId::parse("m1").ok();
    assert_refused(&archive.append(ok.iter().cloned().chain([known]).collect()).await);
    for room in [&a, &b] {
        assert_eq!(offsets(archive, room).await, [1]);
        assert_eq!(last(archive, room).await, offset(1));
    }
    assert_eq!(archive.find(vec![key(&ok[0])]).await, Ok(vec![None]));
    assert_eq!(archive.append(ok.to_vec()).await, Ok(()));
    assert_eq!(offsets(archive, &a).await, [1, 2, 3]);
}

/// What it said is gone, for good; where it was, who sent it and under which name is not.
pub async fn an_erased_message_leaves_its_place_and_its_name(archive: &dyn Archive) {
    let room = filled(archive, "chat:a", 3).await;
    let before = read_all(archive, &room).await;
    let second = Position { epoch: EPOCH, offset: offset(2) };
    for _ in 0..2 {
        assert_eq!(archive.forget(&room, Forget::Message(second)).await, Ok(()));
        let after = read_all(archive, &room).await;
        let erased = before[1].clone().into_tombstone(TombstoneReason::Deleted);
        assert_eq!(after, [before[0].clone(), erased, before[2].clone()]);
    }
    assert_eq!(archive.find(vec![key(&record(&room, EPOCH, 2))]).await, Ok(vec![Some(second)]));
    assert_eq!(last(archive, &room).await, offset(3));
}

/// A message of another epoch, one that was never stored, one that has expired.
pub async fn erasing_what_is_not_there_is_no_error(archive: &dyn Archive) {
    let room = filled(archive, "chat:a", 1).await;
    let mut expired = record(&room, EPOCH, 2);
    expired.publication = expired.publication.into_tombstone(TombstoneReason::Expired);
    assert_eq!(archive.append(vec![expired]).await, Ok(()));
    let before = read_all(archive, &room).await;
    let nowhere = RoomId::parse("chat:none").expect("a valid room");
    for (place, epoch, number) in [
        (&nowhere, EPOCH, 1),
        (&room, Epoch::from_bits(1), 1),
        (&room, EPOCH, 9),
        (&room, EPOCH, 2),
    ] {
        let position = Position { epoch, offset: offset(number) };
        assert_eq!(archive.forget(place, Forget::Message(position)).await, Ok(()));
    }
    assert_eq!(read_all(archive, &room).await, before);
}

/// Trimming everything leaves the room's place: offsets are never given out twice.
pub async fn trimming_forgets_the_oldest_and_keeps_the_head(archive: &dyn Archive) {
    let room = filled(archive, "chat:a", 5).await;
    let long_ago = Wall::from_millis(0);
    for _ in 0..2 {
        assert_eq!(trim(archive, &room, offset(3), long_ago).await, Ok(()));
        assert_eq!(offsets(archive, &room).await, [3, 4, 5]);
    }
    let page =
        archive.read(&room, EPOCH, Offset::ZERO, 10, usize::MAX).await.expect("the room is read");
    assert_eq!(page.first, offset(3));
    assert_eq!(archive.find(vec![key(&record(&room, EPOCH, 1))]).await, Ok(vec![None]));
    assert_eq!(trim(archive, &room, offset(99), long_ago).await, Ok(()));
    let page =
        archive.read(&room, EPOCH, Offset::ZERO, 10, usize::MAX).await.expect("the room is read");
    assert_eq!((page.first, page.messages.len()), (offset(6), 0));
    let head = archive.open_room(&room, Epoch::from_bits(1), None).await;
    assert_eq!(head, Ok(RoomHead::new(EPOCH, offset(5))));
    assert_eq!(archive.append(vec![record(&room, EPOCH, 6)]).await, Ok(()));
}

/// An old message behind a newer one stays: a clock that was set back must not make a hole.
pub async fn trimming_by_age_stops_at_the_first_newer_message(archive: &dyn Archive) {
    let room = room("chat:a");
    archive.open_room(&room, EPOCH, None).await.expect("the room opens");
    let mut records: Vec<_> = (1..=5).map(|n| record(&room, EPOCH, n)).collect();
    records[2].publication.at = Wall::from_millis(1_000);
    assert_eq!(archive.append(records).await, Ok(()));
    assert_eq!(trim(archive, &room, Offset::ZERO, Wall::from_millis(2)).await, Ok(()));
    assert_eq!(offsets(archive, &room).await, [2, 3, 4, 5]);
    assert_eq!(trim(archive, &room, Offset::ZERO, Wall::from_millis(500)).await, Ok(()));
    assert_eq!(offsets(archive, &room).await, [3, 4, 5]);
}

/// However much is to be forgotten, one call forgets it.
pub async fn a_long_trim_reaches_its_end(archive: &dyn Archive) {
    let room = filled(archive, "chat:a", 1_500).await;
    assert_eq!(trim(archive, &room, offset(1_400), Wall::from_millis(0)).await, Ok(()));
    assert_eq!(offsets(archive, &room).await, (1_400..=1_500).collect::<Vec<_>>());
    assert_eq!(trim(archive, &room, Offset::ZERO, Wall::MAX).await, Ok(()));
    assert_eq!(offsets(archive, &room).await, [0u64; 0]);
}

/// What is gone stays gone, and what will go keeps its time.
pub async fn tombstones_and_expiry_are_kept(archive: &dyn Archive) {
    let room = room("chat:a");
    archive.open_room(&room, EPOCH, None).await.expect("the room opens");
    let mut records: Vec<_> = (1..=3).map(|n| record(&room, EPOCH, n)).collect();
    records[0].publication.expires_at = Some(Wall::from_millis(5_000));
    for (n, reason) in [(1, TombstoneReason::Expired), (2, TombstoneReason::Deleted)] {
        let publication = records[n].publication.clone();
        records[n].publication = publication.into_tombstone(reason);
    }
    let sent: Vec<_> = records.iter().map(|record| record.publication.clone()).collect();
    assert_eq!(archive.append(records).await, Ok(()));
    assert_eq!(read_all(archive, &room).await, sent);
}

/// Data is bytes: nothing of it is a text, a terminator or too long.
pub async fn any_bytes_come_back(archive: &dyn Archive) {
    let room = room("chat:a");
    archive.open_room(&room, EPOCH, None).await.expect("the room opens");
    let every_byte: Vec<u8> = (0..=u8::MAX).collect();
    let datas = [
        Bytes::new(),
        Bytes::from_static(b"\0"),
        Bytes::from_static("\"e\u{301} 🦀 \u{202e} '; --\"".as_bytes()),
        Bytes::from_static(&[0xff, 0xfe, 0xc0, 0x80]),
        Bytes::from(every_byte.repeat(256)),
    ];
    for (number, data) in (1..).zip(&datas) {
        let mut record = record(&room, EPOCH, number);
        record.publication.data = data.clone();
        assert_eq!(archive.append(vec![record]).await, Ok(()));
    }
    let read: Vec<_> = read_all(archive, &room).await.into_iter().map(|m| m.data).collect();
    assert_eq!(read, datas);
}

/// Names that begin alike, or differ in case only, are different rooms.
pub async fn rooms_do_not_mix(archive: &dyn Archive) {
    let names = ["chat:a", "chat:A", "chat:a/b", "chat:ab", "cha:a"];
    for (name, count) in names.into_iter().zip(1..) {
        filled(archive, name, count).await;
    }
    assert_eq!(trim(archive, &room("chat:ab"), offset(99), Wall::MAX).await, Ok(()));
    for (name, count) in names.into_iter().zip(1..) {
        let room = room(name);
        let left = if name == "chat:ab" { 0 } else { count };
        let messages = read_all(archive, &room).await;
        assert_eq!(u64::try_from(messages.len()), Ok(left), "{name}");
        assert!(messages.iter().all(|message| message.room == room));
        assert_eq!(last(archive, &room).await, offset(count));
    }
}

/// A position of another epoch reads nothing, although its offset exists here.
pub async fn epochs_do_not_mix(archive: &dyn Archive) {
    let room = filled(archive, "chat:a", 3).await;
    let other = Epoch::from_bits(EPOCH.bits() ^ 1);
    let page =
        archive.read(&room, other, Offset::ZERO, 10, usize::MAX).await.expect("the room is read");
    assert!(page.messages.is_empty());
    assert_eq!(offsets(archive, &room).await, [1, 2, 3]);
}
