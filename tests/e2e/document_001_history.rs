//! Document 001, "WebSocket Manager System": what somebody asks of the chat's past.

use std::ops::Range;

use serde_json::{Value, json};
use tests::server::Server;

use crate::client;
use crate::http::{metrics, value};
use crate::speaker::Speaker;

const CHAT: &str = "/ws/chat";

/// Of what an earlier process wrote, at most 1,024 messages of a room come into memory.
const SAID: usize = 1_500;

/// What was said in each message of an answer to `history`.
fn contents(page: &Value) -> Vec<String> {
    let messages = page["messages"].as_array().unwrap();
    messages.iter().map(|m| m["content"].as_str().unwrap().to_owned()).collect()
}

/// Says `m0`, `m1` and so on, and gives the `message_id` that each was taken with.
fn say(who: &mut Speaker, numbers: Range<usize>) -> Vec<Value> {
    let numbers: Vec<usize> = numbers.collect();
    let mut ids = Vec::new();
    // So many at once that nothing has to wait in a queue for a client that does not read.
    for some in numbers.chunks(50) {
        for n in some {
            who.say(&format!(r#"{{"type":"chat_message","content":"m{n}","id":{n}}}"#));
        }
        // Of each the answer and the message itself.
        for _ in 0..2 * some.len() {
            let heard: Value = serde_json::from_str(&who.hear()).unwrap();
            if heard["type"] == "ack" {
                assert_eq!(
                    (&heard["id"], &heard["duplicate"]),
                    (&json!(ids.len() + numbers[0]), &json!(false))
                );
                ids.push(heard["message_id"].clone());
            }
        }
    }
    assert_eq!(ids.len(), numbers.len());
    ids
}

/// The page before this message, or the newest one.
fn page_before(who: &mut Speaker, before: &Value) -> Value {
    let mut asked = json!({"type": "history", "channel": "global", "limit": 97});
    if !before.is_null() {
        asked["before"] = before.clone();
    }
    who.say(&asked.to_string());
    who.expect("history")
}

#[test]
fn history_is_paged_over_a_kill_from_the_archive_each_message_once_and_in_order() {
    let secret = client::secret();
    let keeps = "namespaces.chat.history_messages_max=5000";
    let mut server = Server::start_durable(&["--set", &secret, "--set", keeps]);
    let mut ids = say(&mut Speaker::open(&server, CHAT, "ann"), 0..SAID);
    server.kill();
    server.restart();
    // Behind what is in the archive alone comes what this process was told.
    ids.extend(say(&mut Speaker::open(&server, CHAT, "ann"), SAID..SAID + 10));

    let archive_reads = || value(&metrics(server.addr()), "roomkeeper_archive_reads_total");
    let mut bob = Speaker::open(&server, CHAT, "bob");
    let mut page = page_before(&mut bob, &Value::Null);
    let before_the_old = archive_reads();
    let mut pages = vec![page.clone()];
    while page["more"] == true {
        assert_eq!(page["before"], page["messages"][0]["message_id"]);
        page = page_before(&mut bob, &page["before"]);
        pages.push(page.clone());
    }
    assert_eq!(page["before"], Value::Null);
    assert!(archive_reads() > before_the_old, "all of it was in memory: say more");

    pages.reverse();
    let told: Vec<&Value> = pages.iter().flat_map(|p| p["messages"].as_array().unwrap()).collect();
    let told_ids: Vec<Value> = told.iter().map(|message| message["message_id"].clone()).collect();
    assert_eq!(told_ids, ids, "each that was answered, once and in order");
    let said: Vec<String> = (0..SAID + 10).map(|n| format!("m{n}")).collect();
    assert_eq!(pages.iter().flat_map(contents).collect::<Vec<_>>(), said);
    assert!(
        told.iter().all(|message| message["user_id"] == "ann" && message["user"] == "ann's name")
    );
}

#[test]
fn history_is_requested_page_by_page_backwards_from_the_newest() {
    let secret = client::secret();
    let server = Server::start(&["--set", &secret]);
    let mut ann = Speaker::open(&server, CHAT, "ann");
    for n in 1..=7 {
        ann.say(&format!(r#"{{"type":"chat_message","content":"m{n}"}}"#));
        ann.expect("chat_message");
    }
    let mut bob = Speaker::open(&server, CHAT, "bob");
    bob.say(r#"{"type":"history","channel":"global","limit":3,"id":9}"#);
    let newest = bob.expect("history");
    assert_eq!(contents(&newest), ["m5", "m6", "m7"]);
    assert_eq!(
        (&newest["id"], &newest["channel"], &newest["more"]),
        (&json!(9), &json!("global"), &json!(true))
    );
    let mut before = newest["before"].clone();
    assert_eq!(before, newest["messages"][0]["message_id"]);
    let mut seen = Vec::new();
    while before != Value::Null {
        bob.say(&json!({"type": "history", "limit": 3, "before": before}).to_string());
        let page = bob.expect("history");
        seen.push(contents(&page));
        before = page["before"].clone();
    }
    assert_eq!(seen, [vec!["m2", "m3", "m4"], vec!["m1"]]);
    let first = newest["messages"][0].to_string();
    assert!(first.contains(r#""user":"ann's name""#), "{first}");
    let other = r#"{"type":"history","before":"00000000000000aa-5"}"#;
    assert_eq!(bob.refused(other), (110, json!("before")));
    let guild = r#"{"type":"history","channel":"guild","guild_id":"42"}"#;
    assert_eq!(bob.refused(guild), (103, Value::Null));
}
