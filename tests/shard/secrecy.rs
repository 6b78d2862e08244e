//! What must stand in no span and no event of a node, whoever takes them: tokens and payloads.

use std::fmt::{Debug, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use application::node::ApiPublish;
use bytes::Bytes;
use domain::id::ClientId;
use domain::room::RoomId;
use domain::tags::Tags;
use serde_json::json;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

use crate::host::{Host, open_rules, ready};

/// Takes everything, as the collector of traces and the log at its lowest level do together.
#[derive(Default)]
struct Everything {
    text: Arc<Mutex<String>>,
    n_spans: AtomicU64,
}

struct Fields<'t>(&'t mut String);

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        writeln!(self.0, "{}={value:?}", field.name()).unwrap();
    }
}

impl Subscriber for Everything {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        span.record(&mut Fields(&mut self.text.lock().unwrap()));
        Id::from_u64(self.n_spans.fetch_add(1, Ordering::Relaxed) + 1)
    }

    fn record(&self, _: &Id, values: &Record<'_>) {
        values.record(&mut Fields(&mut self.text.lock().unwrap()));
    }

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        event.record(&mut Fields(&mut self.text.lock().unwrap()));
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

/// What nobody may read.
const CANARY: &str = "canary-of-a-secret";

/// Every command with a secret in it, taken and refused, and a publish of a backend.
fn say_everything(host: &mut Host) {
    let good = format!("granted:{CANARY}:*:carl");
    let refused = format!("until:{CANARY}:carl");
    let carl = host.connect(Some(&good));
    let _ = host.connect(Some(&refused));
    let data = json!({CANARY: [CANARY]});
    let publish = |room: &str| json!({"type": "publish", "id": 2, "room": room, "data": data});
    for command in [
        json!({"type": "subscribe", "id": 1, "room": "public:seen", "presence": true}),
        publish("public:seen"),
        publish("nowhere:seen"),
        json!({"type": "presence_update", "id": 3, "room": "public:seen", "data": data}),
        json!({"type": "history", "id": 4, "room": "public:seen"}),
        json!({"type": "refresh", "id": 5, "token": good}),
        json!({"type": "refresh", "id": 6, "token": refused}),
        json!({"type": CANARY, "id": 7, "data": data}),
        json!({"type": "publish", "id": 8, "room": "public:seen", "data": data, "class": CANARY}),
    ] {
        host.say(carl, &command.to_string());
    }
    host.say(carl, CANARY);
    let call = host.node.publish(ApiPublish {
        key_name: ClientId::parse("backend").unwrap(),
        rooms: vec![RoomId::parse("public:seen").unwrap()],
        data: Bytes::from(data.to_string()),
        class: None,
        key: None,
        msg_id: None,
        ttl: None,
        tags: Tags::default(),
        trace: None,
    });
    ready(call);
    host.settle();
}

/// A08: traces, and every event at every level.
#[test]
fn no_span_and_no_event_holds_a_token_or_a_payload() {
    let everything = Everything::default();
    let text = Arc::clone(&everything.text);
    tracing::subscriber::with_default(everything, || {
        let mut host = Host::new(open_rules());
        say_everything(&mut host);
    });
    let text = text.lock().unwrap();
    for seen in ["command=\"publish\"", "command=\"api_publish\"", "room=\"public:seen\""] {
        assert!(text.contains(seen), "no {seen} in {text}");
    }
    assert!(!text.contains(CANARY), "{text}");
}
