//! What one user may ask for over all of its connections.

use domain::rate_limit::Rate;
use serde_json::json;

use crate::host::{Host, open_rules, types};

/// R02, on one node.
#[test]
fn what_one_connection_of_a_user_asked_for_its_others_can_not_ask_for_again() {
    let mut rules = open_rules();
    rules.limits.commands_of_user = Rate::new(10, 6);
    let mut host = Host::new(rules);
    let (tab, phone) = (host.connect(Some("ann")), host.connect(Some("ann")));
    let (bob, nobody) = (host.connect(Some("bob")), host.connect(None));
    for slot in [tab, phone, bob, nobody] {
        host.frames(slot);
    }
    for _ in 0..3 {
        for slot in [tab, phone] {
            host.say(slot, &json!({"type": "ping", "id": 1}).to_string());
        }
    }
    for slot in [tab, phone] {
        assert_eq!(types(&host.frames(slot)), ["pong", "pong", "pong"]);
        host.say(slot, &json!({"type": "ping", "id": 2}).to_string());
        let refused = host.frames(slot).pop().unwrap();
        assert_eq!((&refused["code"], &refused["retry_after_ms"]), (&json!(108), &json!(100)));
    }
    for slot in [bob, nobody] {
        host.say(slot, &json!({"type": "ping", "id": 1}).to_string());
        assert_eq!(types(&host.frames(slot)), ["pong"]);
    }
    host.pass(100);
    host.say(phone, &json!({"type": "ping", "id": 3}).to_string());
    assert_eq!(types(&host.frames(phone)), ["pong"]);
}
