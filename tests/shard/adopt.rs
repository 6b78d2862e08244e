//! Rules that change while connections stay: what counts at once, and what ends as it began.
//!
//! It must never look at how the order travels, only at what clients see.

use std::sync::Arc;

use application::ports::TokenVerifier;
use application::ports::token_verifier::TokenError;
use application::services::Rules;
use domain::principal::Principal;
use domain::time::Wall;

use crate::host::{Host, open_rules, types};

/// Has lost all its keys.
struct NoKeys;

#[async_trait::async_trait]
impl TokenVerifier for NoKeys {
    async fn verify(&self, _: &str, _: Wall) -> Result<Principal, TokenError> {
        Err(TokenError::NoKeys)
    }
}

fn with_rooms_max(rooms_per_connection_max: usize) -> Rules {
    let mut rules = open_rules();
    rules.limits.rooms_per_connection_max = rooms_per_connection_max;
    rules
}

fn subscribe(id: u32, room: &str) -> String {
    format!(r#"{{"type":"subscribe","id":{id},"room":"{room}"}}"#)
}

#[test]
fn a_lower_limit_counts_for_who_is_there_and_takes_nothing_away() {
    let mut host = Host::new(with_rooms_max(3));
    let slot = host.member("public:a");
    host.say(slot, &subscribe(2, "public:b"));
    host.frames(slot);
    host.node.adopt(with_rooms_max(2), Arc::new(NoKeys));
    host.settle();
    host.say(slot, &subscribe(3, "public:c"));
    assert_eq!(host.frames(slot)[0]["code"], 107);
    host.say(slot, r#"{"type":"publish","id":4,"room":"public:b","data":1}"#);
    assert_eq!(types(&host.frames(slot)), ["ack", "message"]);
    host.node.adopt(with_rooms_max(3), Arc::new(NoKeys));
    host.settle();
    host.say(slot, &subscribe(5, "public:c"));
    assert_eq!(types(&host.frames(slot)), ["subscribed"]);
}

#[test]
fn a_command_under_way_ends_under_the_rules_it_began_with_and_the_next_meets_the_new_keys() {
    let mut host = Host::new(open_rules());
    host.hold_calls = true;
    let before = host.connect(Some("ann"));
    host.node.adopt(open_rules(), Arc::new(NoKeys));
    host.settle();
    host.release_calls();
    let line = host.line(before);
    assert_eq!((types(&line.frames), line.closed), (vec!["hello"], None));
    let after = host.connect(Some("bob"));
    assert!(host.line(after).closed.is_some());
    // Who was let in stays until the token has to be shown again.
    host.say(before, &subscribe(1, "public:a"));
    assert_eq!(types(&host.frames(before)), ["subscribed"]);
    host.say(before, r#"{"type":"refresh","id":2,"token":"ann"}"#);
    assert!(host.line(before).closed.is_some());
}

#[test]
fn policies_of_rooms_stay_as_members_and_logs_hold_them() {
    let mut host = Host::new(open_rules());
    let slot = host.member("public:a");
    host.frames(slot);
    host.node.adopt(Rules { allow_anonymous: true, ..Rules::default() }, Arc::new(NoKeys));
    host.settle();
    host.say(slot, r#"{"type":"publish","id":1,"room":"public:a","data":1}"#);
    assert_eq!(types(&host.frames(slot)), ["ack", "message"]);
}
