//! Presence: users over several tabs, their data, and what a killed connection leaves behind.

use serde_json::{Value, json};
use tests::follower::Follower;
use tests::server::Server;

use crate::client::{Client, secret};

const ROOM: &str = "public:here";

fn follow(client: &mut Client) {
    let command = json!({"type": "subscribe", "room": ROOM, "presence": true});
    client.call_for("subscribed", command);
}

fn list(client: &mut Client) -> Value {
    client.call_for("presence", json!({"type": "presence", "room": ROOM}))
}

/// Users with their connections and data, in the order of their names.
fn members(list: &Value) -> Vec<(String, u64, Value)> {
    let member = |member: &Value| {
        let user = member["user_id"].as_str().unwrap().to_owned();
        (user, member["connections"].as_u64().unwrap(), member["data"].clone())
    };
    let mut members = list["members"].as_array().unwrap().iter().map(member).collect::<Vec<_>>();
    members.sort_by(|a, b| a.0.cmp(&b.0));
    members
}

fn is_event(event: &Value, kind: &str, user: &str, seq: u64) {
    assert_eq!(event["type"], "presence_event", "{event}");
    assert_eq!((&event["event"], &event["user_id"]), (&json!(kind), &json!(user)), "{event}");
    assert_eq!(event["seq"], seq, "{event}");
}

#[test]
fn a_user_with_two_tabs_comes_once_and_goes_with_the_last() {
    let server = Server::start(&["--set", &secret()]);
    let mut watcher = Client::open_as(&server, "watcher");
    follow(&mut watcher);
    let start = list(&mut watcher)["seq"].as_u64().unwrap();
    let (mut tab, mut other_tab) =
        (Client::open_as(&server, "ann"), Client::open_as(&server, "ann"));
    tab.subscribe(ROOM);
    other_tab.subscribe(ROOM);
    let mut bob = Client::open_as(&server, "bob");
    bob.subscribe(ROOM);
    let mut next = || {
        loop {
            let event = watcher.next();
            if event["user_id"] != "watcher" {
                return event;
            }
        }
    };
    is_event(&next(), "join", "ann", start + 1);
    is_event(&next(), "join", "bob", start + 2);
    let data = json!({"typing": true});
    let update = json!({"type": "presence_update", "room": ROOM, "data": data});
    tab.call_for("presence_updated", update);
    let event = next();
    is_event(&event, "update", "ann", start + 3);
    assert_eq!(event["data"], data);
    let now = list(&mut bob);
    assert_eq!((&now["total"], &now["seq"]), (&json!(3), &json!(start + 3)));
    let expected = [
        ("ann".to_owned(), 2, data),
        ("bob".to_owned(), 1, Value::Null),
        ("watcher".to_owned(), 1, Value::Null),
    ];
    assert_eq!(members(&now), expected);
    // One tab goes in order, the other by unsubscribing: one leave, with the second.
    drop(tab);
    bob.call_for("unsubscribed", json!({"type": "unsubscribe", "room": ROOM}));
    is_event(&next(), "leave", "bob", start + 4);
    other_tab.call_for("unsubscribed", json!({"type": "unsubscribe", "room": ROOM}));
    is_event(&next(), "leave", "ann", start + 5);
    // Data belongs to a stay, not to a name.
    other_tab.subscribe(ROOM);
    let event = next();
    is_event(&event, "join", "ann", start + 6);
    assert_eq!(event["data"], Value::Null);
}

#[test]
fn a_connection_that_is_cut_leaves_the_room() {
    let server = Server::start(&["--set", &secret()]);
    let mut watcher = Client::open_as(&server, "watcher");
    follow(&mut watcher);
    let mut ann = Client::open_as(&server, "ann");
    ann.subscribe(ROOM);
    loop {
        let event = watcher.expect("presence_event");
        if event["user_id"] == "ann" {
            assert_eq!(event["event"], "join");
            break;
        }
    }
    ann.socket.reset();
    let event = watcher.expect("presence_event");
    assert_eq!((&event["event"], &event["user_id"]), (&json!("leave"), &json!("ann")));
    assert_eq!(members(&list(&mut watcher)).len(), 1);
}

#[test]
fn nobodies_are_told_apart_by_their_connection() {
    let server = Server::start(&[]);
    let (mut one, mut two) = (Client::open(&server), Client::open(&server));
    one.subscribe(ROOM);
    two.subscribe(ROOM);
    let here = members(&list(&mut one));
    assert_eq!(here.len(), 2, "{here:?}");
    for client in [&one, &two] {
        let id = client.hello["connection_id"].as_str().unwrap();
        assert!(here.iter().any(|(user, ..)| user.contains(id)), "{id} is not in {here:?}");
    }
}

#[test]
fn who_does_not_follow_presence_gets_no_presence_events() {
    let server = Server::start(&[]);
    let (mut plain, mut other) = (Client::open(&server), Client::open(&server));
    plain.subscribe(ROOM);
    other.subscribe(ROOM);
    let update = json!({"type": "presence_update", "room": ROOM, "data": 1});
    other.call_for("presence_updated", update);
    other.publish(ROOM, "the end");
    assert_eq!(plain.next()["data"], "the end");
}

#[test]
fn only_a_member_may_set_presence_data() {
    let server = Server::start(&[]);
    let command = json!({"type": "presence_update", "room": ROOM, "data": 1});
    let refused = Client::open(&server).call(command);
    assert_eq!(refused["error"], "not_subscribed");
}

/// Connections that follow the room, and what each knows.
struct Crowd(Vec<(Client, Follower)>);

impl Crowd {
    /// All of them join at once and ask who is there.
    fn join(server: &Server, n_clients: usize) -> Self {
        let mut clients: Vec<_> = (0..n_clients).map(|_| Client::open(server)).collect();
        for client in &mut clients {
            client.send(&json!({"type": "subscribe", "room": ROOM, "presence": true}));
            client.send(&json!({"type": "presence", "id": 1_000, "room": ROOM}));
        }
        Self(clients.into_iter().map(|client| (client, Follower::default())).collect())
    }

    /// Until all know that so many are there, by name or not.
    fn until(&mut self, is_so: impl Fn(&Follower) -> bool) {
        for (client, follower) in &mut self.0 {
            while !is_so(follower) {
                if follower.hear(&client.next()) {
                    client.send(&json!({"type": "presence", "id": 1_000, "room": ROOM}));
                }
            }
        }
    }
}

/// H04: with names.
#[test]
fn everybody_joins_one_room_and_each_knows_who_is_there() {
    const CROWD: usize = 60;
    let server = Server::start(&[]);
    let mut crowd = Crowd::join(&server, CROWD);
    crowd.until(|follower| follower.members.as_ref().is_some_and(|there| there.len() == CROWD));
    let there = members(&list(&mut crowd.0[0].0)).into_iter().map(|(user, ..)| user);
    let there: Vec<_> = there.collect();
    for (_, follower) in &crowd.0 {
        let known = follower.members.as_ref().unwrap().keys().cloned();
        assert_eq!((known.collect::<Vec<_>>(), follower.total), (there.clone(), CROWD as u64));
    }
}

/// H04: without.
#[test]
fn a_crowd_is_counted_until_it_is_gone() {
    let server = Server::start(&["--set", "namespaces.public.presence_named_max=20"]);
    let mut crowd = Crowd::join(&server, 50);
    crowd.until(|follower| follower.is_counted && follower.total == 50);
    let listed = list(&mut crowd.0[0].0);
    assert_eq!(listed["total"], 50);
    crowd.0.truncate(10);
    crowd.until(|follower| follower.members.as_ref().is_some_and(|there| there.len() == 10));
}
