//! The contract of the `succession` port: one function per obligation, each on an empty archive.
//!
//! It knows the two ports only; nothing here may depend on how an archive stores.
#![allow(
    clippy::expect_used,
    reason = "a broken contract ends the test that runs it, like any failed assertion"
)]

use std::sync::Arc;

use domain::id::{Epoch, MessageId, UserId};
use domain::message::Publisher;
use domain::position::{Offset, Position};
use domain::recovery::EarlierLives;
use domain::room::RoomId;
use domain::time::Wall;

use super::archive_contract::{offset, record, room};
use crate::ports::archive::{Archive, ArchiveError, ArchiveRecord, DedupKey, Forget, RoomHead};
use crate::ports::succession::{Hole, Lives, LivesPage, Succession, Successor};

/// Both ports of one archive.
pub trait Both: Archive + Succession {}
impl<T: Archive + Succession> Both for T {}

/// Runs the whole contract, each obligation on a new archive of the factory.
pub async fn all(factory: impl AsyncFn() -> Arc<dyn Both>) {
    a_room_begins_with_its_first_epoch(&*factory().await).await;
    an_epoch_ends_where_the_archive_does_and_the_next_begins_behind(&*factory().await).await;
    asking_twice_for_one_successor_is_asking_once(&*factory().await).await;
    of_two_successors_of_one_epoch_the_first_counts(&*factory().await).await;
    an_epoch_that_has_been_does_not_come_again(&*factory().await).await;
    offsets_are_kept_exactly_up_to_the_last(&*factory().await).await;
    a_successor_begins_behind_what_the_broker_knows(&*factory().await).await;
    an_ended_epoch_grows_no_more(&*factory().await).await;
    the_ends_of_the_latest_lives_are_remembered(&*factory().await).await;
    records_come_in_any_order_and_more_than_once(&*factory().await).await;
    a_place_belongs_to_one_message(&*factory().await).await;
    what_is_placed_is_placed_whole_or_not_at_all(&*factory().await).await;
    empty_places_are_named(&*factory().await).await;
    a_page_ends_with_its_limits_and_names_holes_up_to_there(&*factory().await).await;
    what_is_forgotten_is_no_hole(&*factory().await).await;
    the_other_port_sees_the_same_room(&*factory().await).await;
}

/// Signed columns must survive the highest bit.
const E: [Epoch; 7] = [
    Epoch::from_bits(u64::MAX - 3),
    Epoch::from_bits(2),
    Epoch::from_bits(u64::MAX / 2 + 9),
    Epoch::from_bits(4),
    Epoch::from_bits(5),
    Epoch::from_bits(6),
    Epoch::from_bits(7),
];

async fn begin(archive: &dyn Both, room: &RoomId) -> Lives {
    let next = Successor { of: None, epoch: E[0], behind: Offset::ZERO };
    archive.succeed(room, next).await.expect("it begins")
}

/// Whatever the present epoch is, it is ended.
async fn succeed(archive: &dyn Both, room: &RoomId, epoch: Epoch) -> Lives {
    let of = archive.lives(room).await.expect("it answers").map(|lives| lives.epoch);
    let next = Successor { of, epoch, behind: Offset::ZERO };
    archive.succeed(room, next).await.expect("it goes on")
}

async fn place(
    archive: &dyn Both,
    room: &RoomId,
    epoch: Epoch,
    numbers: &[u64],
) -> Result<(), ArchiveError> {
    let records = numbers.iter().map(|number| record(room, epoch, *number)).collect();
    archive.place(records).await
}

async fn page(archive: &dyn Both, room: &RoomId, after: u64, limit: u32) -> LivesPage {
    let page = archive.read_lives(room, offset(after), limit, usize::MAX).await;
    page.expect("it is read").expect("the room began")
}

fn offsets(page: &LivesPage) -> Vec<u64> {
    page.messages.iter().filter_map(|message| message.offset).map(Offset::get).collect()
}

fn hole(from: u64, to: u64) -> Hole {
    Hole { from: offset(from), to: offset(to) }
}

fn at(epoch: Epoch, number: u64) -> Position {
    Position { epoch, offset: offset(number) }
}

fn assert_refused(answer: &Result<(), ArchiveError>) {
    assert!(matches!(answer, Err(ArchiveError::Storage(_))), "not refused: {answer:?}");
}

/// Nothing is known of a room before.
pub async fn a_room_begins_with_its_first_epoch(archive: &dyn Both) {
    let room = room("chat:a");
    assert_eq!(archive.lives(&room).await, Ok(None));
    assert_eq!(archive.read_lives(&room, Offset::ZERO, 9, usize::MAX).await, Ok(None));
    assert_refused(&place(archive, &room, E[0], &[1]).await);
    let lives = begin(archive, &room).await;
    assert_eq!(lives, Lives::beginning(E[0], Offset::ZERO));
    assert_eq!(archive.lives(&room).await, Ok(Some(lives)));
    let empty = page(archive, &room, 0, 9).await;
    let expected = LivesPage { lives, first: offset(1), messages: Vec::new(), holes: Vec::new() };
    assert_eq!(empty, expected);
}

/// What is stored is within the end, what comes goes on behind it.
pub async fn an_epoch_ends_where_the_archive_does_and_the_next_begins_behind(archive: &dyn Both) {
    let room = room("chat:a");
    begin(archive, &room).await;
    assert_eq!(place(archive, &room, E[0], &[1, 2, 3]).await, Ok(()));
    let lives = succeed(archive, &room, E[1]).await;
    assert_eq!((lives.epoch, lives.behind, lives.last), (E[1], offset(3), offset(3)));
    assert_eq!(lives.earlier, EarlierLives::new([at(E[0], 3)]));
    assert_refused(&place(archive, &room, E[1], &[3]).await);
    assert_eq!(place(archive, &room, E[1], &[4, 5]).await, Ok(()));
    let read = page(archive, &room, 0, 9).await;
    assert_eq!(offsets(&read), [1, 2, 3, 4, 5]);
    let epochs: Vec<_> = read.messages.iter().map(|message| message.epoch).collect();
    assert_eq!(epochs, [E[0], E[0], E[0], E[1], E[1]]);
    assert_eq!((read.lives.last, read.holes), (offset(5), Vec::new()));
}

/// An answer may have been lost.
pub async fn asking_twice_for_one_successor_is_asking_once(archive: &dyn Both) {
    let room = room("chat:a");
    begin(archive, &room).await;
    assert_eq!(begin(archive, &room).await, Lives::beginning(E[0], Offset::ZERO));
    assert_eq!(place(archive, &room, E[0], &[1, 2]).await, Ok(()));
    let next = Successor { of: Some(E[0]), epoch: E[1], behind: Offset::ZERO };
    let first = archive.succeed(&room, next).await.expect("it goes on");
    assert_eq!(place(archive, &room, E[1], &[3]).await, Ok(()));
    let again = archive.succeed(&room, next).await.expect("it has gone on");
    assert_eq!(again, Lives { last: offset(3), ..first });
}

/// Nodes notice a loss at the same time.
pub async fn of_two_successors_of_one_epoch_the_first_counts(archive: &dyn Both) {
    let room = room("chat:a");
    let lives = begin(archive, &room).await;
    let too_late = Successor { of: None, epoch: E[5], behind: Offset::ZERO };
    assert_eq!(archive.succeed(&room, too_late).await, Ok(lives));
    let [one, two] =
        [E[1], E[2]].map(|epoch| Successor { of: Some(E[0]), epoch, behind: offset(0) });
    let first = archive.succeed(&room, one).await.expect("it goes on");
    assert_eq!(archive.succeed(&room, two).await, Ok(first));
    assert_eq!((first.epoch, first.earlier), (E[1], EarlierLives::new([at(E[0], 0)])));
    assert_refused(&place(archive, &room, E[2], &[1]).await);
}

/// Whoever draws epochs may draw one twice, however seldom.
pub async fn an_epoch_that_has_been_does_not_come_again(archive: &dyn Both) {
    let room = room("chat:a");
    begin(archive, &room).await;
    assert_eq!(place(archive, &room, E[0], &[1]).await, Ok(()));
    let second = succeed(archive, &room, E[1]).await;
    let again = Successor { of: Some(E[1]), epoch: E[0], behind: Offset::ZERO };
    let answer = archive.succeed(&room, again).await;
    assert!(matches!(answer, Err(ArchiveError::Storage(_))), "{answer:?}");
    assert_eq!(archive.lives(&room).await, Ok(Some(second)));
    assert_eq!(place(archive, &room, E[1], &[2]).await, Ok(()));
    assert_eq!(succeed(archive, &room, E[2]).await.last, offset(2));
}

/// Behind the last one a room takes nothing more.
pub async fn offsets_are_kept_exactly_up_to_the_last(archive: &dyn Both) {
    let room = room("chat:a");
    let last = Offset::MAX.get();
    let next = Successor { of: None, epoch: E[0], behind: offset(last - 3) };
    archive.succeed(&room, next).await.expect("it begins");
    assert_eq!(place(archive, &room, E[0], &[last, last - 2, last - 1]).await, Ok(()));
    let read = page(archive, &room, 0, 9).await;
    assert_eq!(offsets(&read), [last - 2, last - 1, last]);
    assert_eq!((read.lives.last, read.first), (Offset::MAX, offset(last - 2)));
    assert_eq!(offsets(&page(archive, &room, last - 1, 9).await), [last]);
    let full = succeed(archive, &room, E[1]).await;
    assert_eq!((full.behind, full.last), (Offset::MAX, Offset::MAX));
    assert_eq!(full.earlier, EarlierLives::new([at(E[0], last)]));
    assert_refused(&place(archive, &room, E[1], &[last]).await);
    assert!(page(archive, &room, last, 9).await.messages.is_empty());
}

/// The broker may have given out more than was stored.
pub async fn a_successor_begins_behind_what_the_broker_knows(archive: &dyn Both) {
    let room = room("chat:a");
    begin(archive, &room).await;
    assert_eq!(place(archive, &room, E[0], &[1, 2]).await, Ok(()));
    let next = Successor { of: Some(E[0]), epoch: E[1], behind: offset(5) };
    let lives = archive.succeed(&room, next).await.expect("it goes on");
    assert_eq!((lives.behind, lives.last), (offset(5), offset(5)));
    // Nobody can have read beyond what was stored.
    assert_eq!(lives.earlier, EarlierLives::new([at(E[0], 2)]));
    assert_eq!(page(archive, &room, 0, 9).await.holes, [hole(3, 5)]);
    assert_eq!(place(archive, &room, E[1], &[6]).await, Ok(()));
    assert_eq!(page(archive, &room, 0, 9).await.holes, [hole(3, 5)]);
    let new = RoomId::parse("chat:new").expect("a room");
    let behind = offset(7);
    let lives = archive.succeed(&new, Successor { of: None, epoch: E[3], behind }).await;
    assert_eq!(lives, Ok(Lives::beginning(E[3], behind)));
}

/// Whichever node brings it, and over either port.
pub async fn an_ended_epoch_grows_no_more(archive: &dyn Both) {
    let room = room("chat:a");
    begin(archive, &room).await;
    assert_eq!(place(archive, &room, E[0], &[1]).await, Ok(()));
    succeed(archive, &room, E[1]).await;
    assert_eq!(place(archive, &room, E[0], &[2]).await, Err(ArchiveError::Ended));
    let late = vec![record(&room, E[0], 2)];
    assert_eq!(archive.append(late).await, Err(ArchiveError::Ended));
    let records = vec![record(&room, E[1], 2), record(&room, E[0], 3)];
    assert_eq!(archive.place(records).await, Err(ArchiveError::Ended));
    assert_eq!(offsets(&page(archive, &room, 0, 9).await), [1]);
}

/// The last four; who comes back from an older one finds a gap.
pub async fn the_ends_of_the_latest_lives_are_remembered(archive: &dyn Both) {
    let room = room("chat:a");
    begin(archive, &room).await;
    for n in 0..6 {
        let number = n as u64 + 1;
        assert_eq!(place(archive, &room, E[n], &[number]).await, Ok(()));
        succeed(archive, &room, E[n + 1]).await;
    }
    let lives = archive.lives(&room).await.expect("it answers").expect("the room began");
    let ends = (2..6).rev().map(|n| at(E[n], n as u64 + 1));
    assert_eq!(lives.earlier, EarlierLives::new(ends));
    assert_eq!((lives.epoch, lives.behind, lives.last), (E[6], offset(6), offset(6)));
    assert_eq!(offsets(&page(archive, &room, 0, 9).await), [1, 2, 3, 4, 5, 6]);
    // An epoch that nobody remembers has ended all the same.
    let answer = place(archive, &room, E[0], &[7]).await;
    assert!(answer.is_err(), "{answer:?}");
}

/// Nodes bring what they have when they have it, and again when they heard no answer.
pub async fn records_come_in_any_order_and_more_than_once(archive: &dyn Both) {
    let room = room("chat:a");
    begin(archive, &room).await;
    for numbers in [&[3, 1][..], &[5], &[3, 1], &[2, 4, 5], &[]] {
        assert_eq!(place(archive, &room, E[0], numbers).await, Ok(()), "{numbers:?}");
    }
    let read = page(archive, &room, 0, 9).await;
    let expected: Vec<_> = (1..=5).map(|n| record(&room, E[0], n).publication).collect();
    assert_eq!(read.messages, expected);
    let twice = vec![record(&room, E[0], 6), record(&room, E[0], 6)];
    assert_eq!(archive.place(twice).await, Ok(()));
    assert_eq!(offsets(&page(archive, &room, 0, 9).await), [1, 2, 3, 4, 5, 6]);
}

/// Another message at a place, and another place for a name, are mistakes and are refused.
pub async fn a_place_belongs_to_one_message(archive: &dyn Both) {
    let room = room("chat:a");
    begin(archive, &room).await;
    assert_eq!(place(archive, &room, E[0], &[1, 2]).await, Ok(()));
    let different: [fn(&mut ArchiveRecord); 4] = [
        |record| record.msg_id = MessageId::parse("other").ok(),
        |record| record.msg_id = None,
        |record| record.publication.at = Wall::from_millis(77),
        |record| {
            let user = UserId::parse("other").expect("a user");
            record.publisher = Publisher::User(user);
        },
    ];
    for change in different {
        let mut other = record(&room, E[0], 2);
        change(&mut other);
        assert_refused(&archive.place(vec![other]).await);
    }
    let mut named_again = record(&room, E[0], 3);
    named_again.msg_id = MessageId::parse("m1").ok();
    assert_refused(&archive.place(vec![named_again]).await);
    let mut nowhere = record(&room, E[0], 3);
    nowhere.publication.offset = None;
    assert_refused(&archive.place(vec![nowhere]).await);
    let read = page(archive, &room, 0, 9).await;
    let expected: Vec<_> = (1..=2).map(|n| record(&room, E[0], n).publication).collect();
    assert_eq!(read.messages, expected);
}

/// One bad record keeps the others of its call away.
pub async fn what_is_placed_is_placed_whole_or_not_at_all(archive: &dyn Both) {
    let room = room("chat:a");
    begin(archive, &room).await;
    assert_eq!(place(archive, &room, E[0], &[1]).await, Ok(()));
    let mut wrong = record(&room, E[0], 3);
    wrong.msg_id = MessageId::parse("m1").ok();
    let records = vec![record(&room, E[0], 2), wrong, record(&room, E[0], 4)];
    assert_refused(&archive.place(records).await);
    assert_eq!(offsets(&page(archive, &room, 0, 9).await), [1]);
}

/// What is not stored, not yet or never, is told and not passed over.
pub async fn empty_places_are_named(archive: &dyn Both) {
    let room = room("chat:a");
    begin(archive, &room).await;
    assert_eq!(place(archive, &room, E[0], &[1, 4, 5, 9]).await, Ok(()));
    let read = page(archive, &room, 0, 9).await;
    assert_eq!(read.holes, [hole(2, 3), hole(6, 8)]);
    assert_eq!(page(archive, &room, 2, 9).await.holes, [hole(3, 3), hole(6, 8)]);
    assert_eq!(page(archive, &room, 5, 9).await.holes, [hole(6, 8)]);
    let behind = page(archive, &room, 9, 9).await;
    assert_eq!((offsets(&behind), behind.holes), (Vec::new(), Vec::new()));
    assert_eq!(place(archive, &room, E[0], &[2, 3, 6, 7, 8]).await, Ok(()));
    assert_eq!(page(archive, &room, 0, 9).await.holes, []);
}

/// What lies behind the page is for the next one.
pub async fn a_page_ends_with_its_limits_and_names_holes_up_to_there(archive: &dyn Both) {
    let room = room("chat:a");
    begin(archive, &room).await;
    assert_eq!(place(archive, &room, E[0], &[2, 3]).await, Ok(()));
    succeed(archive, &room, E[1]).await;
    assert_eq!(place(archive, &room, E[1], &[6, 7]).await, Ok(()));
    let (mut after, mut read, mut holes) = (0, Vec::new(), Vec::new());
    for _ in 0..4 {
        let page = page(archive, &room, after, 1).await;
        assert_eq!((page.messages.len(), page.first), (1, offset(2)));
        after = offsets(&page)[0];
        read.push(after);
        holes.extend(page.holes);
    }
    assert_eq!((read, holes), (vec![2, 3, 6, 7], vec![hole(4, 5)]));
    let one = archive.read_lives(&room, Offset::ZERO, 9, 1).await;
    let one = one.expect("it is read").expect("the room began");
    assert_eq!((offsets(&one), one.holes), (vec![2], Vec::new()));
    let none = page(archive, &room, 3, 0).await;
    assert_eq!((offsets(&none), none.holes), (Vec::new(), Vec::new()));
}

/// Retention takes the oldest, of all epochs, and is not to be taken for a loss; the end stays known.
pub async fn what_is_forgotten_is_no_hole(archive: &dyn Both) {
    let room = room("chat:a");
    begin(archive, &room).await;
    assert_eq!(place(archive, &room, E[0], &[1, 2, 3]).await, Ok(()));
    succeed(archive, &room, E[1]).await;
    assert_eq!(place(archive, &room, E[1], &[4, 5]).await, Ok(()));
    let old = Forget::Old { first: offset(5), before: Wall::from_millis(0) };
    assert_eq!(archive.forget(&room, old).await, Ok(()));
    let read = page(archive, &room, 0, 9).await;
    assert_eq!((offsets(&read), read.first, read.holes), (vec![5], offset(5), Vec::new()));
    let all = Forget::Old { first: offset(99), before: Wall::MAX };
    assert_eq!(archive.forget(&room, all).await, Ok(()));
    let read = page(archive, &room, 0, 9).await;
    assert_eq!((offsets(&read), read.first, read.holes), (Vec::new(), offset(6), Vec::new()));
    assert_eq!(read.lives.last, offset(5));
    assert_eq!(succeed(archive, &room, E[2]).await.behind, offset(5));
}

/// Names are found, what was said can be taken out, and a room that was of one node goes on as one of many.
pub async fn the_other_port_sees_the_same_room(archive: &dyn Both) {
    let room = room("chat:a");
    let head = archive.open_room(&room, E[0], None).await;
    assert_eq!(head, Ok(RoomHead::new(E[0], Offset::ZERO)));
    let records = vec![record(&room, E[0], 1), record(&room, E[0], 2)];
    assert_eq!(archive.append(records).await, Ok(()));
    assert_eq!(place(archive, &room, E[0], &[4]).await, Ok(()));
    assert_eq!(succeed(archive, &room, E[1]).await.earlier, EarlierLives::new([at(E[0], 4)]));
    assert_eq!(place(archive, &room, E[1], &[5]).await, Ok(()));
    let key = |number: u64| DedupKey {
        room: room.clone(),
        publisher: record(&room, E[0], 1).publisher,
        msg_id: MessageId::parse(&format!("m{number}")).expect("a message id"),
    };
    let found = archive.find(vec![key(4), key(5), key(3)]).await;
    assert_eq!(found, Ok(vec![Some(at(E[0], 4)), Some(at(E[1], 5)), None]));
    assert_eq!(archive.forget(&room, Forget::Message(at(E[0], 2))).await, Ok(()));
    let read = page(archive, &room, 1, 1).await;
    assert!(read.messages[0].tombstone.is_some() && read.messages[0].data.is_empty());
    // What was erased is stored still.
    assert_eq!(place(archive, &room, E[1], &[5]).await, Ok(()));
    let head = archive.open_room(&room, E[6], None).await;
    let earlier = EarlierLives::new([at(E[0], 4)]);
    assert_eq!(head, Ok(RoomHead { epoch: E[1], last: offset(5), earlier }));
    let old = archive.read(&room, E[0], Offset::ZERO, 9, usize::MAX).await.expect("it is read");
    let numbers: Vec<_> = old.messages.iter().filter_map(|message| message.offset).collect();
    assert_eq!(numbers, [1, 2, 4].map(offset));
}
