//! What a node shows after it has heard of more rooms than it keeps.

use std::fmt::Write;
use std::sync::Arc;

use application::node::ApiPublish;
use application::ports::Exposition;
use domain::delivery::Class;
use domain::id::ClientId;
use domain::room::RoomId;
use domain::tags::Tags;
use worker_tokio::SystemClock;

use super::Telemetry;
use crate::serve::build;
use crate::serve::rooms::Rooms;
use crate::serve::storage::{Remembered, Storage};
use crate::settings::secrets::token_secret;
use crate::settings::{FlagValue, Given, load};

const NAMES: u32 = 1_000_000;

/// R15: at the lowest layer that has all of it, the broker of the binary, its node and what the
/// binary shows of both.
#[test]
fn a_million_names_of_rooms_add_nothing_to_the_metrics() {
    let testing =
        FlagValue { flag: "--profile", key: "profile".to_owned(), value: "testing".to_owned() };
    let loaded = load(&Given { flags: vec![testing], ..Given::default() }).unwrap();
    let settings = &loaded.settings;
    let secret = token_secret(settings).unwrap();
    let clock = Arc::new(SystemClock::start());
    let (_, budgets) = build::memory(settings);
    let rooms = Rooms::build(settings, &budgets, None, None).unwrap();
    let remembered = Remembered::in_memory(settings);
    let (ports, lasting) = build::ports(settings, &secret, &rooms, &clock, remembered).unwrap();
    let node = build::node(settings, ports, &budgets);
    let exposition =
        Telemetry::default().exposition(&node, &rooms, &Storage::Nowhere, &lasting, &budgets);
    let exposition = exposition.unwrap();
    let render = |exposition: &Arc<dyn Exposition>| exposition.render();
    let before = render(&exposition);
    assert!(before.contains("roomkeeper_broker_rooms 0"), "{before}");
    let publish = ApiPublish {
        key_name: ClientId::parse("backend").unwrap(),
        rooms: Vec::new(),
        data: "1".into(),
        class: Some(Class::Droppable),
        key: None,
        msg_id: None,
        ttl: None,
        tags: Tags::default(),
        trace: None,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let mut text = String::new();
        for n in 0..NAMES {
            text.clear();
            write!(text, "public:named-{n}").unwrap();
            let rooms = vec![RoomId::parse(&text).unwrap()];
            let answers = node.publish(ApiPublish { rooms, ..publish.clone() }).await;
            assert!(matches!(answers[..], [(_, Ok(_))]), "{answers:?}");
        }
    });
    let after = render(&exposition);
    assert!(!after.contains("named-"), "a room is named");
    assert_eq!(after.lines().count(), before.lines().count());
    assert!(after.len() < 1 << 20, "{}", after.len());
}
