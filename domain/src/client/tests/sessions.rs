//! Protocol v2 frame by frame, against the conformance vectors. It must never know what a step is for.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::support::{PUBLISH_TIMEOUT, REQUEST_TIMEOUT, World, room};
use super::vectors::{cases, file, word};
use crate::client::{Ask, PublishOptions, RoomPhase, SubscribeOptions};
use crate::position::Position;
use crate::principal::RoomPattern;
use crate::protocol::client_event::Event;
use crate::protocol::{ClientFrame, decode};

const ROOM: &str = "public:r";

/// As a server of ours says it: its ids have sixteen digits, and a frame has always a timestamp.
fn as_said(mut value: Value) -> Value {
    complete(&mut value);
    value
}

fn complete(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for name in ["epoch", "connection_id"] {
                if let Some(Value::String(text)) = fields.get_mut(name) {
                    *text = format!("{text:0>16}");
                }
            }
            if fields.contains_key("type") {
                fields.entry("timestamp").or_insert(json!("t"));
            }
            fields.values_mut().for_each(complete);
        }
        Value::Array(values) => values.iter_mut().for_each(complete),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// What a server of ours makes of frames that clients say.
fn understood(texts: &[String]) -> Vec<ClientFrame<'_>> {
    texts.iter().map(|text| decode(text).next().unwrap().unwrap()).collect()
}

fn position(at: Position) -> Value {
    json!({"epoch": at.epoch.to_string(), "offset": at.offset.get()})
}

fn told(event: &Event) -> Option<Value> {
    Some(match event {
        Event::Subscribed(joined) => json!(["joined", position(joined.position)]),
        Event::Message(message) => {
            let data: Value = serde_json::from_str(&message.data).unwrap();
            let word = if message.pattern.is_some() { "of pattern" } else { "message" };
            json!([word, message.offset.map(|offset| offset.get()), data])
        }
        Event::Following { .. } => json!(["following"]),
        Event::PatternEnded { code, .. } => json!(["ended", code]),
        Event::Tombstone(gone) => json!(["tombstone", gone.offset.map(|offset| offset.get())]),
        Event::Gap(gap) => json!(["gap", gap.from.get(), gap.to.get(), gap.reason]),
        Event::CaughtUp { position: at, .. } => json!(["caughtUp", position(*at)]),
        Event::Unsubscribed { code, .. } => json!(["left", code]),
        _ => return None,
    })
}

/// Plays one case.
struct Player {
    world: World,
    /// Who is in the room, as an application keeps it.
    members: BTreeSet<String>,
    /// How many it was told of.
    total: u64,
    /// Who came, went or changed.
    changes: Vec<Value>,
}

impl Player {
    fn new(token: Option<&str>, brings_tokens: bool) -> Self {
        let world = if brings_tokens { World::with_tokens() } else { World::with_token(token) };
        Self { world, members: BTreeSet::new(), total: 0, changes: Vec::new() }
    }

    fn act(&mut self, step: &Value) {
        let world = &mut self.world;
        if step["reopen"] == true {
            world.advance(0);
        }
        if step["open"] == true || step["reopen"] == true {
            world.open();
        }
        if step["receive"].is_object() {
            world.say(&as_said(step["receive"].clone()));
        }
        if let Some(text) = step["receiveText"].as_str() {
            let lines = text.lines().map(|line| as_said(file(line)).to_string());
            let text = lines.collect::<Vec<_>>().join("\n");
            world.say_text(&text);
        }
        if let Some(code) = step["lose"]["code"].as_u64() {
            let reason = step["lose"]["reason"].as_str().unwrap();
            world.lose(code.try_into().unwrap(), reason);
        }
        if let Some(ms) = step["advance"].as_u64() {
            world.advance(ms);
        }
        if let Some(name) = step["join"].as_str() {
            let mut command = step["options"].clone();
            command["type"] = json!("subscribe");
            command["room"] = json!(name);
            let text = as_said(command).to_string();
            let Some(Ok(ClientFrame::Subscribe { since, presence, filter, .. })) =
                decode(&text).next()
            else {
                panic!("{text}")
            };
            world.join(name, SubscribeOptions { since, presence, filter });
        }
        if let Some(token) = step["bring"].as_str() {
            world.bring(Ok(token));
        }
        if let Some(why) = step["bringNone"].as_str() {
            world.bring(Err(why));
        }
        if let Some(name) = step["follow"].as_str() {
            let pattern = RoomPattern::parse(name).unwrap();
            world.ask("follow", Ask::SubscribePattern(pattern), REQUEST_TIMEOUT);
        }
        if let Some(name) = step["unfollow"].as_str() {
            let pattern = RoomPattern::parse(name).unwrap();
            world.ask("unfollow", Ask::UnsubscribePattern(pattern), REQUEST_TIMEOUT);
        }
        if let Some(name) = step["leave"].as_str() {
            world.ask("leave", Ask::Unsubscribe(room(name)), REQUEST_TIMEOUT);
        }
        if step["publish"].is_object() {
            let mut command = step["publish"].clone();
            command["type"] = json!("publish");
            let text = command.to_string();
            let Some(Ok(ClientFrame::Publish { room, data, msg_id: Some(msg_id), echo, .. })) =
                decode(&text).next()
            else {
                panic!("{text}")
            };
            let options = PublishOptions { echo, ..PublishOptions::default() };
            let name = msg_id.as_str().to_owned();
            let data = data.to_owned();
            world.ask(&name, Ask::Publish { room, data, msg_id, options }, PUBLISH_TIMEOUT);
        }
    }

    /// Looks at what was told of members, and keeps the rest for the next step that says what was told.
    fn follow_members(&mut self) {
        let world = &mut self.world;
        for event in &world.told {
            match event {
                Event::Members(list) => {
                    self.members = list.members.iter().map(|one| one.user_id.clone()).collect();
                    self.total = list.total;
                }
                Event::Presence(change) => {
                    if change.event == "leave" {
                        self.members.remove(&change.user_id);
                    } else {
                        self.members.insert(change.user_id.clone());
                    }
                    self.total = change.total;
                    self.changes.push(json!([change.event, change.user_id]));
                }
                Event::PresenceCount(count) => {
                    self.members.clear();
                    self.total = count.total;
                }
                _ => {}
            }
        }
        let is_presence = |event: &Event| {
            matches!(event, Event::Members(_) | Event::Presence(_) | Event::PresenceCount(_))
        };
        world.told.retain(|event| !is_presence(event));
    }

    fn check(&mut self, name: &str, step: &Value) {
        self.follow_members();
        let world = &mut self.world;
        let machine = &world.machine;
        let room = room(ROOM);
        if let Some(frames) = step["sent"].as_array() {
            let expected: Vec<_> = frames.iter().cloned().map(as_said).collect();
            let expected: Vec<_> = expected.iter().map(Value::to_string).collect();
            let sent = std::mem::take(&mut world.sent);
            assert_eq!(understood(&sent), understood(&expected), "{name}: {step}");
        }
        if step["told"].is_array() {
            let events: Vec<_> = world.told.drain(..).collect();
            let events: Vec<_> = events.iter().filter_map(told).collect();
            assert_eq!(Value::from(events), as_said(step["told"].clone()), "{name}: {step}");
        }
        if step["changes"].is_array() {
            let changes = Value::from(std::mem::take(&mut self.changes));
            assert_eq!(changes, step["changes"], "{name}: {step}");
        }
        if step["settled"].is_array() {
            let settled: Vec<_> = world.settled.drain(..).collect();
            assert_eq!(json!(settled), step["settled"], "{name}: {step}");
        }
        if step["position"].is_object() {
            let at = machine.position(&room).map(position);
            assert_eq!(at, Some(as_said(step["position"].clone())), "{name}: {step}");
        }
        if let Some(state) = step["state"].as_str() {
            let found = match machine.room_phase(&room) {
                None => "out",
                Some(RoomPhase::Away) => "away",
                Some(RoomPhase::Joining) => "joining",
                Some(RoomPhase::Joined) => "joined",
                Some(RoomPhase::Leaving) => "leaving",
            };
            assert_eq!(found, state, "{name}: {step}");
        }
        if let Some(names) = step["members"].as_array() {
            let members: Vec<_> = self.members.iter().map(String::as_str).collect();
            assert_eq!(json!(members), json!(names), "{name}: {step}");
        }
        if let Some(asked) = step["asked"].as_u64() {
            let found = std::mem::take(&mut world.asked);
            assert_eq!(found as u64, asked, "{name}: {step}");
        }
        if let Some(phase) = step["phase"].as_str() {
            assert_eq!(word(machine.phase()), phase, "{name}: {step}");
        }
        if let Some(total) = step["total"].as_u64() {
            assert_eq!(self.total, total, "{name}: {step}");
        }
        if step["closed"] == true {
            assert!(world.has_hung_up, "{name}: {step}");
        }
        if let Some(opening) = step["opening"].as_bool() {
            assert_eq!(world.is_dialing, opening, "{name}: {step}");
        }
    }
}

#[test]
fn sessions() {
    let file = file(include_str!("../../../../clients/vectors/session.json"));
    for (name, case) in cases(&file) {
        let mut player = Player::new(case["token"].as_str(), case["brings"] == true);
        for step in case["steps"].as_array().unwrap() {
            player.act(step);
            player.check(name, step);
        }
        player.world.close();
        assert_eq!(player.world.machine.due(true), None, "{name}");
        assert_eq!(player.world.machine.held(), [0; 9], "{name}");
    }
}
