//! An evening in the text RPG of the documents, with clients of Node and Python: somebody logs in on two
//! devices, hears announcements, talks in a guild, writes to a friend, is muted; the server is killed and
//! started again; and who comes back later finds what was written meanwhile, once.

use serde_json::{Value, json};
use tests::foreign::{Tool, require};
use tests::puppet::Puppet;
use tests::server::Server;

use crate::client;
use crate::http::ask;
use crate::speaker::{Speaker, bearer, rooms};

const KEY: &str = "a-key-of-the-backend-that-is-long-enough";
const CHAT: &str = "/ws/chat";

fn announce(server: &Server, message: &str) {
    let authorization = format!("Bearer {KEY}");
    let headers = [("Authorization", &*authorization), ("Content-Type", "application/json")];
    let body =
        json!({"room": "game:events", "data": {"type": "system_announcement", "message": message}});
    let answer = ask(server.addr(), "POST", "/api/v1/publish", &headers, &body.to_string());
    assert_eq!(answer.status, 200, "{answer:?}");
}

fn guild(content: &str) -> Value {
    json!({"type": "chat_message", "content": content, "channel": "guild", "guild_id": "wolves"})
}

fn private(to: &str, content: &str) -> Value {
    json!({"type": "chat_message", "content": content, "channel": "private", "to_user_id": to})
}

#[test]
fn an_evening_in_the_text_rpg() {
    if !require(Tool::Node) || !require(Tool::Python) {
        return;
    }
    let (secret, key) = (client::secret(), format!("api.keys.backend.key={KEY}"));
    let mut server = Server::start_durable(&[
        "--set",
        &secret,
        "--set",
        &key,
        "--set",
        "namespaces.chat.durable=true",
    ]);
    let wolves = rooms(&["chat:guild/wolves"]);
    let (ann, bob) = (bearer("ann", &wolves), bearer("bob", &wolves));
    let mut node = Puppet::start(Tool::Node, &server.ws(""));
    let mut python = Puppet::start(Tool::Python, &server.ws(""));

    // Ann logs in on two devices and plays on one of them, Bob on his.
    for device in ["phone", "laptop"] {
        node.open(device, CHAT, &ann);
        let greeting = node.expect(device, "connected");
        assert_eq!(greeting["channels"], json!(["global", "guild/wolves", "private"]));
    }
    node.open("game", "/ws/game", &ann);
    node.expect("game", "connected");
    python.open("desk", CHAT, &bob);
    python.expect("desk", "connected");

    announce(&server, "The night market opens");
    assert_eq!(node.expect("game", "system_announcement")["message"], "The night market opens");

    node.say("phone", &guild("Who is up for the crypt?"));
    for device in ["phone", "laptop"] {
        assert_eq!(node.expect(device, "chat_message")["guild_id"], "wolves");
    }
    let heard = python.expect("desk", "chat_message");
    assert_eq!(
        (&heard["user"], &heard["content"]),
        (&json!("ann's name"), &json!("Who is up for the crypt?"))
    );
    python.say("desk", &private("ann", "me, but do not tell"));
    for device in ["phone", "laptop"] {
        assert_eq!(node.expect(device, "chat_message")["content"], "me, but do not tell");
    }
    assert_eq!(python.expect("desk", "chat_message")["to_user_id"], "ann");

    // Bob shouts, and a moderator has enough of it.
    let mut moderator = Speaker::open_with(&server, CHAT, "mo", &json!({"roles": ["moderator"]}));
    python.say("desk", &json!({"type": "chat_message", "content": "BUY GOLD"}));
    python.expect("desk", "chat_message");
    for device in ["phone", "laptop"] {
        node.expect(device, "chat_message");
    }
    moderator.expect("chat_message");
    moderator.say(r#"{"type":"moderation","action":"mute","user_id":"bob","reason":"shouting","duration_seconds":3600}"#);
    assert_eq!(moderator.expect("moderation")["action"], "mute");
    for device in ["phone", "laptop"] {
        assert_eq!(node.expect(device, "moderation")["user_id"], "bob");
    }
    python.expect("desk", "moderation");
    python.say("desk", &json!({"type": "chat_message", "content": "CHEAP GOLD"}));
    assert_eq!(python.expect("desk", "error")["code"], 103);
    // The guild still hears him.
    python.say("desk", &guild("sorry"));
    python.expect("desk", "chat_message");
    for device in ["phone", "laptop"] {
        assert_eq!(node.expect(device, "chat_message")["content"], "sorry");
        node.hears_nothing(device);
    }

    // Bob goes to bed; Ann writes to him. Then the server dies and comes back.
    python.close("desk");
    for content in ["we found the key", "come tomorrow"] {
        node.say("laptop", &private("bob", content));
        for device in ["phone", "laptop"] {
            assert_eq!(node.expect(device, "chat_message")["to_user_id"], "bob");
        }
    }
    server.kill();
    for device in ["phone", "laptop", "game"] {
        assert_eq!(node.closed(device), 1006);
    }
    server.restart();
    let mut node = Puppet::start(Tool::Node, &server.ws(""));
    let mut python = Puppet::start(Tool::Python, &server.ws(""));
    node.open("phone", CHAT, &ann);
    node.expect("phone", "connected");
    node.say("phone", &private("bob", "the server was away, too"));
    node.expect("phone", "chat_message");

    // The next day: what waited comes once, in order, on one device.
    python.open("desk", CHAT, &bob);
    python.expect("desk", "connected");
    for content in ["we found the key", "come tomorrow", "the server was away, too"] {
        let heard = python.expect("desk", "chat_message");
        assert_eq!((&heard["content"], &heard["user_id"]), (&json!(content), &json!("ann")));
    }
    python.open("tablet", CHAT, &bob);
    python.expect("tablet", "connected");
    for device in ["desk", "tablet"] {
        python.hears_nothing(device);
    }
    // He is still muted, and the guild's talk is still there.
    python.say("desk", &json!({"type": "chat_message", "content": "GOLD"}));
    assert_eq!(python.expect("desk", "error")["code"], 103);
    python.say("desk", &json!({"type": "history", "channel": "guild", "guild_id": "wolves"}));
    let history = python.expect("desk", "history");
    let said: Vec<_> =
        history["messages"].as_array().unwrap().iter().map(|m| &m["content"]).collect();
    assert_eq!(said, [&json!("Who is up for the crypt?"), &json!("sorry")]);
}
