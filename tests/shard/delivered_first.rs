//! A broker that hands out what is still to be stored: who does not want its own message back hears of it by the
//! broker's answer alone.

use std::sync::Arc;
use std::time::Duration;

use application::ports::broker::MockBroker;
use application::ports::{Broker, PublishError, Receipt};
use application::services::Ports;
use domain::policy::AckLevel;

use crate::host::{Host, open_rules, types};

const RETRY_AFTER: Duration = Duration::from_secs(1);

/// What becomes of a message that has been handed out.
type Answer = fn(Receipt) -> Result<Receipt, PublishError>;

/// A broker that hands out what it is still to store, as one over nodes does, and then does with it what `answer` says.
fn broker_that_delivers_first(inner: Arc<dyn Broker>, answer: Answer) -> MockBroker {
    let mut broker = MockBroker::new();
    broker.expect_level_of_delivery().return_const(None);
    let of = Arc::clone(&inner);
    broker.expect_publish().returning(move |publish, policy| {
        let (of, policy) = (Arc::clone(&of), Arc::clone(policy));
        Box::pin(async move { answer(of.publish(publish, &policy).await?) })
    });
    broker.expect_subscribe().returning(move |room, policy, mailbox, token| {
        let (of, policy) = (Arc::clone(&inner), Arc::clone(policy));
        let (room, mailbox) = (room.clone(), Arc::clone(mailbox));
        Box::pin(async move { of.subscribe(&room, &policy, &mailbox, token).await })
    });
    broker
}

fn host_that_delivers_first(answer: Answer) -> Host {
    Host::with_ports(open_rules(), |ports| {
        let broker = broker_that_delivers_first(Arc::clone(&ports.broker), answer);
        Ports { broker: Arc::new(broker), ..ports }
    })
}

#[test]
fn what_is_delivered_before_it_is_stored_is_acknowledged_by_the_answer_and_at_its_level() {
    let mut host =
        host_that_delivers_first(|receipt| Ok(Receipt { level: AckLevel::Durable, ..receipt }));
    let (silent, other) = (host.member("public:a"), host.member("public:a"));
    host.hold_calls = true;
    host.say_only(silent, r#"{"type":"publish","id":7,"room":"public:a","data":"x","echo":false}"#);
    let answered = host.run_held();
    host.settle();
    assert_eq!(types(&host.frames(other)), ["message"]);
    assert!(host.frames(silent).is_empty(), "it is not stored yet");
    host.complete(answered);
    let frames = host.frames(silent);
    assert_eq!(types(&frames), ["ack"]);
    assert_eq!(frames[0]["level"], "durable");
}

#[test]
fn what_is_delivered_and_could_not_be_stored_is_refused_and_never_acknowledged() {
    let mut host =
        host_that_delivers_first(|_| Err(PublishError::Unavailable { retry_after: RETRY_AFTER }));
    let silent = host.member("public:a");
    host.say(silent, r#"{"type":"publish","id":7,"room":"public:a","data":"x","echo":false}"#);
    let frames = host.frames(silent);
    assert_eq!(types(&frames), ["error"]);
    assert_eq!(frames[0]["retry_after_ms"], 1_000);
}

#[test]
fn what_comes_behind_one_s_own_that_has_no_answer_yet_says_what_it_follows() {
    let mut host =
        host_that_delivers_first(|receipt| Ok(Receipt { level: AckLevel::Durable, ..receipt }));
    let (silent, other) = (host.member("public:a"), host.member("public:a"));
    let say = |n: u32| format!(r#"{{"type":"publish","id":{n},"room":"public:a","data":{n}}}"#);
    let silently = r#"{"type":"publish","id":7,"room":"public:a","data":"x","echo":false}"#;
    host.say(other, &say(1));
    host.frames(silent);
    let told = |frames: &[serde_json::Value]| {
        let of = |frame: &serde_json::Value| {
            (frame["offset"].as_u64().unwrap(), frame["previous"].as_u64())
        };
        frames.iter().filter(|frame| frame["type"] == "message").map(of).collect::<Vec<_>>()
    };
    // The first has its answer, and nothing came between.
    host.hold_calls = true;
    host.say_only(silent, silently);
    let answered = host.run_held();
    host.settle();
    host.complete(answered);
    assert_eq!(types(&host.frames(silent)), ["ack"]);
    host.hold_calls = true;
    host.say_only(silent, silently);
    let answered = host.run_held();
    for n in 2..=3 {
        host.say(other, &say(n));
    }
    assert_eq!(told(&host.frames(silent)), [(4, Some(1)), (5, None)]);
    let others = told(&host.frames(other));
    assert_eq!(others, (1..=5).map(|offset| (offset, None)).collect::<Vec<_>>());
    host.complete(answered);
    let frames = host.frames(silent);
    assert_eq!((types(&frames), &frames[0]["offset"]), (vec!["ack"], &serde_json::json!(3)));
}
