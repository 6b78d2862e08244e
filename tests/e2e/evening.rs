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

/// Two people with their clients, and the server between them.
struct Evening {
    server: Server,
    /// Ann's clients run on Node, Bob's on Python.
    ann: Puppet,
    bob: Puppet,
    token_of_ann: String,
    token_of_bob: String,
}

impl Evening {
    fn begin() -> Self {
        let (secret, key) = (client::secret(), format!("api.keys.backend.key={KEY}"));
        let durable = "namespaces.chat.durable=true";
        let server = Server::start_durable(&["--set", &secret, "--set", &key, "--set", durable]);
        let wolves = rooms(&["chat:guild/wolves"]);
        let address = server.ws("");
        Self {
            ann: Puppet::start(Tool::Node, &address),
            bob: Puppet::start(Tool::Python, &address),
            token_of_ann: bearer("ann", &wolves),
            token_of_bob: bearer("bob", &wolves),
            server,
        }
    }

    /// Ann logs in on two devices and plays on one of them, Bob on his.
    fn log_in(&mut self) {
        for device in ["phone", "laptop"] {
            self.ann.open(device, CHAT, &self.token_of_ann);
            let greeting = self.ann.expect(device, "connected");
            assert_eq!(greeting["channels"], json!(["global", "guild/wolves", "private"]));
        }
        self.ann.open("game", "/ws/game", &self.token_of_ann);
        self.ann.expect("game", "connected");
        self.bob.open("desk", CHAT, &self.token_of_bob);
        self.bob.expect("desk", "connected");
    }

    /// An announcement to who plays, the guild's talk, a word to a friend.
    fn talk(&mut self) {
        announce(&self.server, "The night market opens");
        assert_eq!(
            self.ann.expect("game", "system_announcement")["message"],
            "The night market opens"
        );

        self.ann.say("phone", &guild("Who is up for the crypt?"));
        for device in ["phone", "laptop"] {
            assert_eq!(self.ann.expect(device, "chat_message")["guild_id"], "wolves");
        }
        let heard = self.bob.expect("desk", "chat_message");
        assert_eq!(
            (&heard["user"], &heard["content"]),
            (&json!("ann's name"), &json!("Who is up for the crypt?"))
        );
        self.bob.say("desk", &private("ann", "me, but do not tell"));
        for device in ["phone", "laptop"] {
            assert_eq!(self.ann.expect(device, "chat_message")["content"], "me, but do not tell");
        }
        assert_eq!(self.bob.expect("desk", "chat_message")["to_user_id"], "ann");
    }

    /// Bob shouts, and a moderator has enough of it; his guild still hears him.
    fn mute(&mut self) {
        let mut moderator =
            Speaker::open_with(&self.server, CHAT, "mo", &json!({"roles": ["moderator"]}));
        self.bob.say("desk", &json!({"type": "chat_message", "content": "BUY GOLD"}));
        self.bob.expect("desk", "chat_message");
        for device in ["phone", "laptop"] {
            self.ann.expect(device, "chat_message");
        }
        moderator.expect("chat_message");
        moderator.say(r#"{"type":"moderation","action":"mute","user_id":"bob","reason":"shouting","duration_seconds":3600}"#);
        assert_eq!(moderator.expect("moderation")["action"], "mute");
        for device in ["phone", "laptop"] {
            assert_eq!(self.ann.expect(device, "moderation")["user_id"], "bob");
        }
        self.bob.expect("desk", "moderation");
        self.bob.say("desk", &json!({"type": "chat_message", "content": "CHEAP GOLD"}));
        assert_eq!(self.bob.expect("desk", "error")["code"], 103);
        // The guild still hears him.
        self.bob.say("desk", &guild("sorry"));
        self.bob.expect("desk", "chat_message");
        for device in ["phone", "laptop"] {
            assert_eq!(self.ann.expect(device, "chat_message")["content"], "sorry");
            self.ann.hears_nothing(device);
        }
    }

    /// Bob goes to bed; Ann writes to him. Then the server dies and comes back.
    fn die(&mut self) {
        self.bob.close("desk");
        for content in ["we found the key", "come tomorrow"] {
            self.ann.say("laptop", &private("bob", content));
            for device in ["phone", "laptop"] {
                assert_eq!(self.ann.expect(device, "chat_message")["to_user_id"], "bob");
            }
        }
        self.server.kill();
        for device in ["phone", "laptop", "game"] {
            assert_eq!(self.ann.closed(device), 1006);
        }
        self.server.restart();
        let address = self.server.ws("");
        self.ann = Puppet::start(Tool::Node, &address);
        self.bob = Puppet::start(Tool::Python, &address);
        self.ann.open("phone", CHAT, &self.token_of_ann);
        self.ann.expect("phone", "connected");
        self.ann.say("phone", &private("bob", "the server was away, too"));
        self.ann.expect("phone", "chat_message");
    }

    /// What waited comes once, in order, on one device; Bob is still muted, and the guild's talk is there.
    fn wake(&mut self) {
        self.bob.open("desk", CHAT, &self.token_of_bob);
        self.bob.expect("desk", "connected");
        for content in ["we found the key", "come tomorrow", "the server was away, too"] {
            let heard = self.bob.expect("desk", "chat_message");
            assert_eq!((&heard["content"], &heard["user_id"]), (&json!(content), &json!("ann")));
        }
        self.bob.open("tablet", CHAT, &self.token_of_bob);
        self.bob.expect("tablet", "connected");
        for device in ["desk", "tablet"] {
            self.bob.hears_nothing(device);
        }
        // He is still muted, and the guild's talk is still there.
        self.bob.say("desk", &json!({"type": "chat_message", "content": "GOLD"}));
        assert_eq!(self.bob.expect("desk", "error")["code"], 103);
        self.bob.say("desk", &json!({"type": "history", "channel": "guild", "guild_id": "wolves"}));
        let history = self.bob.expect("desk", "history");
        let said: Vec<_> =
            history["messages"].as_array().unwrap().iter().map(|m| &m["content"]).collect();
        assert_eq!(said, [&json!("Who is up for the crypt?"), &json!("sorry")]);
    }
}

#[test]
fn an_evening_in_the_text_rpg() {
    if !require(Tool::Node) || !require(Tool::Python) {
        return;
    }
    let mut evening = Evening::begin();
    evening.log_in();
    evening.talk();
    evening.mute();
    evening.die();
    evening.wake();
}
