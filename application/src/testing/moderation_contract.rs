//! The contract of the `moderation` port.
//!
//! It must never ask for what only one that keeps everything on disk can promise.
#![allow(
    clippy::expect_used,
    reason = "a broken contract ends the test that runs it, like any failed assertion"
)]

use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use domain::id::{Epoch, UserId};
use domain::moderation::{Act, Deed, Entry, Until};
use domain::position::{Offset, Position};
use domain::room::RoomId;
use domain::time::Wall;

use crate::ports::Moderation;

/// One that knows nobody yet.
pub struct ModerationContract<'c> {
    /// What is under test.
    pub moderation: &'c dyn Moderation,
}

/// A moment, in seconds behind a fixed one.
#[must_use]
pub fn at(seconds: i64) -> Wall {
    Wall::from_millis(1_700_000_000_000 + seconds * 1_000)
}

/// What the moderator `mod` did in `chat:a`.
#[must_use]
pub fn entry(seconds: i64, act: Act) -> Entry {
    let (by, reason) = (user("mod"), Some("said \"so\" ü\n".to_owned()));
    Entry { at: at(seconds), order: at(seconds), by, room: room("chat:a"), act, reason }
}

fn user(name: &str) -> UserId {
    UserId::parse(name).expect("a user")
}

fn room(name: &str) -> RoomId {
    RoomId::parse(name).expect("a room")
}

fn minute() -> Option<Duration> {
    Some(Duration::from_secs(60))
}

impl ModerationContract<'_> {
    /// Checks everything below, in this order.
    ///
    /// # Panics
    /// When the implementation breaks the contract.
    pub async fn check(&self) {
        self.every_act_is_read_back_as_it_was_newest_first_and_page_by_page().await;
        self.a_sanction_counts_in_its_room_until_it_ends_or_is_lifted().await;
        self.it_counts_before_anything_is_waited_for().await;
        self.a_sanction_is_forgotten_when_its_time_is_over_and_not_before().await;
    }

    fn forbids(&self, name: &str, deed: Deed, seconds: i64) -> Option<Until> {
        self.moderation.forbids(&user(name), &room("chat:a"), deed, at(seconds))
    }

    async fn record(&self, entry: &Entry) {
        assert_eq!(self.moderation.record(entry).await, Ok(()));
    }

    /// With everything that was said of it.
    ///
    /// # Panics
    /// When the implementation breaks the contract.
    pub async fn every_act_is_read_back_as_it_was_newest_first_and_page_by_page(&self) {
        assert_eq!(self.moderation.read(None, 10).await, Ok(Vec::new()));
        let epoch = Epoch::from_bits(u64::MAX - 5);
        let position = Position { epoch, offset: Offset::MAX };
        let who = || user("logged");
        let acts = [
            Act::Mute(who(), minute()),
            Act::Mute(who(), None),
            Act::Unmute(who()),
            Act::Kick(who()),
            Act::Ban(who(), minute()),
            Act::Ban(who(), None),
            Act::Unban(who()),
            Act::Delete(position),
        ];
        let mut expected: Vec<_> = (0..).zip(acts).map(|(n, act)| entry(n, act)).collect();
        expected[3].reason = None;
        for entry in &expected {
            self.record(entry).await;
        }
        expected.reverse();
        let (mut found, mut before) = (Vec::new(), None);
        for n in [3, 3, 2, 0] {
            let page = self.moderation.read(before, 3).await.expect("it answers");
            assert_eq!(page.len(), n);
            before = page.last().map(|(id, _)| *id).or(before);
            found.extend(page.into_iter().map(|(_, entry)| entry));
        }
        assert_eq!(found, expected);
        assert_eq!(self.forbids("logged", Deed::Speak, 9), None);
    }

    /// A mute to speak, a ban to be there as well, and both nowhere else.
    ///
    /// # Panics
    /// When the implementation breaks the contract.
    pub async fn a_sanction_counts_in_its_room_until_it_ends_or_is_lifted(&self) {
        self.record(&entry(0, Act::Mute(user("ann"), minute()))).await;
        self.record(&entry(0, Act::Ban(user("bob"), None))).await;
        assert_eq!(self.forbids("ann", Deed::Speak, 59), Some(Until::At(at(60))));
        assert_eq!(self.forbids("ann", Deed::Speak, 60), None);
        assert_eq!(self.forbids("ann", Deed::Enter, 0), None);
        for deed in [Deed::Enter, Deed::Speak] {
            assert_eq!(self.forbids("bob", deed, 1_000_000), Some(Until::Lifted));
            let elsewhere = room("chat:b");
            assert_eq!(self.moderation.forbids(&user("bob"), &elsewhere, deed, at(1)), None);
            assert_eq!(self.forbids("carl", deed, 1), None);
        }
        self.record(&entry(1, Act::Unban(user("bob")))).await;
        self.record(&entry(1, Act::Unban(user("bob")))).await;
        assert_eq!(self.forbids("bob", Deed::Enter, 1), None);
        self.record(&entry(1, Act::Unmute(user("ann")))).await;
        assert_eq!(self.forbids("ann", Deed::Speak, 1), None);
    }

    /// The storage may be slow; nobody speaks meanwhile.
    ///
    /// # Panics
    /// When the implementation breaks the contract.
    pub async fn it_counts_before_anything_is_waited_for(&self) {
        let mute = entry(2, Act::Mute(user("dora"), None));
        let mut recording = self.moderation.record(&mute);
        let at_once = poll_fn(|cx| Poll::Ready(recording.as_mut().poll(cx))).await;
        assert_eq!(self.forbids("dora", Deed::Speak, 2), Some(Until::Lifted));
        let recorded = match at_once {
            Poll::Ready(recorded) => recorded,
            Poll::Pending => recording.await,
        };
        assert_eq!(recorded, Ok(()));
    }

    /// And what does not end by itself stays.
    ///
    /// # Panics
    /// When the implementation breaks the contract.
    pub async fn a_sanction_is_forgotten_when_its_time_is_over_and_not_before(&self) {
        self.record(&entry(3, Act::Ban(user("eve"), minute()))).await;
        self.moderation.forget(at(62)).await;
        assert_eq!(self.forbids("eve", Deed::Enter, 62), Some(Until::At(at(63))));
        self.moderation.forget(at(63)).await;
        // As if the clock had been set back.
        assert_eq!(self.forbids("eve", Deed::Enter, 62), None);
        assert_eq!(self.forbids("dora", Deed::Speak, 63), Some(Until::Lifted));
    }
}
