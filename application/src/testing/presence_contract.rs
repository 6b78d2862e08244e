//! The contract of the `presence` port: what every implementation does.
//!
//! Each function takes a factory of a presence and the broker whose mailboxes its events go to,
//! both without rooms. It never sleeps, but waits for mailboxes: give it a time limit.
//! [`presence_contract_tests!`](crate::presence_contract_tests) makes a test with one of each.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a contract suite is a test")]

use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;
use domain::id::{ConnectionId, UserId};
use domain::presence::{PresenceChange, PresenceEvent, PresenceKey};
use domain::retention::Retention;
use domain::room::RoomId;

use super::broker_contract::{MAIL_MAX, policy, publish, receive, room};
use crate::mailbox::{Mail, Mailbox};
use crate::ports::{Broker, Presence, PresenceError, SubscriptionToken};

/// One `#[tokio::test]` for each part of the contract; takes a factory: an expression that can be
/// called and answers a future of `(Arc<dyn Broker>, Arc<dyn Presence>)`. The second argument is a
/// function that awaits one part, which has no answer, under a time limit.
#[macro_export]
macro_rules! presence_contract_tests {
    ($factory:expr, $run:path) => {
        $crate::presence_contract_tests!($factory, $run;
            the_first_connection_joins_and_the_last_leaves
            entering_and_leaving_are_idempotent
            an_update_reaches_followers_only_if_it_changes_something
            an_update_of_somebody_absent_is_refused
            events_come_in_order_and_the_list_names_the_last
            every_event_says_how_many_are_there_after_it
            a_list_is_cut_and_its_total_is_not
            anonymous_members_are_listed_by_connection
            rooms_have_their_own_members
            a_mailbox_that_ended_its_subscription_hears_nothing
        );
    };
    ($factory:expr, $run:path; $($name:ident)*) => {
        $(
            #[tokio::test]
            async fn $name() {
                $run($crate::testing::presence_contract::$name($factory)).await;
            }
        )*
    };
}

/// A presence and the broker whose mailboxes its events go to.
pub type Subject = (Arc<dyn Broker>, Arc<dyn Presence>);

/// Makes a presence without rooms.
pub trait Factory<F: Future<Output = Subject>>: Fn() -> F {}
impl<F: Future<Output = Subject>, T: Fn() -> F> Factory<F> for T {}

const ROOM: &str = "public:a";

fn user(name: &str) -> PresenceKey {
    PresenceKey::User(UserId::parse(name).unwrap())
}

fn connection(bits: u64) -> ConnectionId {
    ConnectionId::from_bits(bits)
}

/// A follower of one room.
struct Scene {
    broker: Arc<dyn Broker>,
    presence: Arc<dyn Presence>,
    room: RoomId,
    mailbox: Arc<Mailbox>,
}

impl Scene {
    async fn new((broker, presence): Subject) -> Self {
        let (room, mailbox) = (room(ROOM), Arc::new(Mailbox::new(1, MAIL_MAX)));
        let policy = policy(Retention::default());
        broker.subscribe(&room, &policy, &mailbox, SubscriptionToken(1)).await.unwrap();
        Self { broker, presence, room, mailbox }
    }

    async fn enter(&self, who: &str, bits: u64) {
        self.presence.enter(&self.room, &user(who), connection(bits)).await.unwrap();
    }

    async fn leave(&self, who: &str, bits: u64) {
        self.presence.leave(&self.room, &user(who), connection(bits)).await;
    }

    async fn update(&self, who: &str, data: &'static str) -> Result<(), PresenceError> {
        self.presence.update(&self.room, &user(who), Bytes::from_static(data.as_bytes())).await
    }

    /// All events so far: those up to a member that enters and leaves to mark the end.
    async fn events(&self) -> Vec<PresenceEvent> {
        self.enter("zz-mark", u64::MAX).await;
        self.leave("zz-mark", u64::MAX).await;
        let mut events: Vec<PresenceEvent> = Vec::new();
        while events
            .last()
            .is_none_or(|last| last.who != user("zz-mark") || last.change != PresenceChange::Leave)
        {
            for mail in receive(&self.mailbox, 1).await {
                match mail {
                    Mail::Presence(room, event) => {
                        assert_eq!(room, self.room);
                        events.push((*event).clone());
                    }
                    Mail::Publication(_) => panic!("not a presence event"),
                }
            }
        }
        events.truncate(events.len() - 2);
        events
    }

    async fn changes(&self) -> Vec<(PresenceChange, String)> {
        let events = self.events().await;
        events.into_iter().map(|event| (event.change, event.who.to_string())).collect()
    }
}

/// So that followers can be told how many, where who would be too much.
pub async fn every_event_says_how_many_are_there_after_it<F>(factory: impl Factory<F>)
where
    F: Future<Output = Subject>,
{
    let scene = Scene::new(factory().await).await;
    scene.enter("u1", 1).await;
    scene.enter("u2", 2).await;
    scene.enter("u2", 3).await;
    scene.update("u1", "1").await.unwrap();
    scene.leave("u1", 1).await;
    scene.enter("u3", 4).await;
    let totals = scene.events().await.into_iter().map(|event| event.total);
    assert_eq!(totals.collect::<Vec<_>>(), [1, 2, 2, 1, 2]);
}

fn change(change: PresenceChange, who: &str) -> (PresenceChange, String) {
    (change, who.to_owned())
}

/// Three tabs are one member.
pub async fn the_first_connection_joins_and_the_last_leaves<F>(factory: impl Factory<F>)
where
    F: Future<Output = Subject>,
{
    let scene = Scene::new(factory().await).await;
    for bits in 1..=3 {
        scene.enter("u1", bits).await;
    }
    let list = scene.presence.list(&scene.room, 10).await.unwrap();
    assert_eq!((list.total, list.members[0].connections), (1, 3));
    for bits in [2, 3, 1] {
        scene.leave("u1", bits).await;
    }
    let expected = [change(PresenceChange::Join, "u1"), change(PresenceChange::Leave, "u1")];
    assert_eq!(scene.changes().await, expected);
    assert_eq!(scene.presence.list(&scene.room, 10).await.unwrap().total, 0);
}

/// The same step again changes nothing.
pub async fn entering_and_leaving_are_idempotent<F>(factory: impl Factory<F>)
where
    F: Future<Output = Subject>,
{
    let scene = Scene::new(factory().await).await;
    scene.leave("u1", 1).await;
    scene.enter("u1", 1).await;
    scene.enter("u1", 1).await;
    scene.leave("u1", 9).await;
    scene.leave("u2", 1).await;
    assert_eq!(scene.changes().await, [change(PresenceChange::Join, "u1")]);
    scene.leave("u1", 1).await;
    scene.leave("u1", 1).await;
    assert_eq!(scene.changes().await, [change(PresenceChange::Leave, "u1")]);
}

/// Data belongs to the user; telling the same again tells nobody.
pub async fn an_update_reaches_followers_only_if_it_changes_something<F>(factory: impl Factory<F>)
where
    F: Future<Output = Subject>,
{
    let scene = Scene::new(factory().await).await;
    scene.enter("u1", 1).await;
    for data in ["{\"a\":1}", "{\"a\":1}", "{\"a\":2}"] {
        assert_eq!(scene.update("u1", data).await, Ok(()));
    }
    scene.enter("u1", 2).await;
    let list = scene.presence.list(&scene.room, 10).await.unwrap();
    assert_eq!(list.members[0].data, Bytes::from_static(b"{\"a\":2}"));
    let events = scene.events().await;
    let data: Vec<_> = events.iter().map(|event| (event.change, &event.data[..])).collect();
    let updates = [
        (PresenceChange::Join, &b""[..]),
        (PresenceChange::Update, b"{\"a\":1}"),
        (PresenceChange::Update, b"{\"a\":2}"),
    ];
    assert_eq!(data, updates);
}

/// Nobody has data without being there.
pub async fn an_update_of_somebody_absent_is_refused<F>(factory: impl Factory<F>)
where
    F: Future<Output = Subject>,
{
    let scene = Scene::new(factory().await).await;
    assert_eq!(scene.update("u1", "1").await, Err(PresenceError::NotPresent));
    scene.enter("u1", 1).await;
    assert_eq!(scene.update("u2", "1").await, Err(PresenceError::NotPresent));
    scene.leave("u1", 1).await;
    assert_eq!(scene.update("u1", "1").await, Err(PresenceError::NotPresent));
    let nowhere = scene.presence.update(&room("public:none"), &user("u1"), Bytes::new()).await;
    assert_eq!(nowhere, Err(PresenceError::NotPresent));
    assert_eq!(scene.changes().await.len(), 2);
}

/// A follower that applies every event from a list's number on has the next list.
pub async fn events_come_in_order_and_the_list_names_the_last<F>(factory: impl Factory<F>)
where
    F: Future<Output = Subject>,
{
    let scene = Scene::new(factory().await).await;
    for bits in 1..=20 {
        scene.enter(&format!("u{}", bits % 7), bits).await;
        if bits % 3 == 0 {
            scene.leave(&format!("u{}", bits % 7), bits).await;
        }
    }
    let seq = scene.presence.list(&scene.room, 10).await.unwrap().seq;
    let events = scene.events().await;
    assert_eq!(events.last().unwrap().seq, seq);
    assert!(events.windows(2).all(|pair| pair[0].seq + 1 == pair[1].seq));
    assert_eq!(events.len() as u64, seq - events[0].seq + 1);
}

/// The limit holds for the members, not for their number.
pub async fn a_list_is_cut_and_its_total_is_not<F>(factory: impl Factory<F>)
where
    F: Future<Output = Subject>,
{
    let scene = Scene::new(factory().await).await;
    let empty = scene.presence.list(&room("public:none"), 3).await.unwrap();
    assert_eq!((empty.total, empty.members.len()), (0, 0));
    for bits in [5, 3, 1, 2, 4] {
        scene.enter(&format!("u{bits}"), bits).await;
    }
    let list = scene.presence.list(&scene.room, 3).await.unwrap();
    let names: Vec<_> = list.members.iter().map(|member| member.who.to_string()).collect();
    assert_eq!((list.total, names), (5, vec!["u1".to_owned(), "u2".into(), "u3".into()]));
}

/// Two anonymous connections are two members.
pub async fn anonymous_members_are_listed_by_connection<F>(factory: impl Factory<F>)
where
    F: Future<Output = Subject>,
{
    let scene = Scene::new(factory().await).await;
    for bits in [1, 2] {
        let who = PresenceKey::Anonymous(connection(bits));
        scene.presence.enter(&scene.room, &who, connection(bits)).await.unwrap();
    }
    assert_eq!(scene.presence.list(&scene.room, 10).await.unwrap().total, 2);
    assert_eq!(scene.events().await.len(), 2);
}

/// Who is in one room is not in another.
pub async fn rooms_have_their_own_members<F>(factory: impl Factory<F>)
where
    F: Future<Output = Subject>,
{
    let scene = Scene::new(factory().await).await;
    let other = room("public:b");
    scene.presence.enter(&other, &user("u1"), connection(1)).await.unwrap();
    scene.enter("u2", 2).await;
    assert_eq!(scene.changes().await, [change(PresenceChange::Join, "u2")]);
    assert_eq!(scene.presence.list(&other, 10).await.unwrap().members[0].who, user("u1"));
}

/// Events follow the subscription of the room.
pub async fn a_mailbox_that_ended_its_subscription_hears_nothing<F>(factory: impl Factory<F>)
where
    F: Future<Output = Subject>,
{
    let scene = Scene::new(factory().await).await;
    scene.broker.unsubscribe(&scene.room, &scene.mailbox, SubscriptionToken(1)).await;
    scene.enter("u1", 1).await;
    let policy = policy(Retention::default());
    let token = SubscriptionToken(2);
    scene.broker.subscribe(&scene.room, &policy, &scene.mailbox, token).await.unwrap();
    scene.broker.publish(publish(ROOM, "u1", "mark"), &policy).await.unwrap();
    let mail = receive(&scene.mailbox, 1).await;
    assert!(matches!(mail[..], [Mail::Publication(_)]), "{mail:?}");
}
