//! The protocol as an AsyncAPI document (3.0): which command is answered by what, over which
//! channel.

use domain::protocol::VERSION;
use domain::protocol::catalog::{COMMANDS, FRAMES, Frame, frames, shapes};

use super::json::{Json, object};
use super::json_schema::Dialect;

const ABOUT: &str = "Rooms over one WebSocket. Each frame is a JSON object with a `type`; a \
    message may hold several, from the server one on each line. docs/protocol.md has the rules \
    that no schema can say.";
const HOST_COMMAND: &str = "HostCommand";

/// The schemas of AsyncAPI are those of draft 7, where nothing stands beside a reference.
const DRAFT_7: Dialect =
    Dialect { definitions: "#/components/schemas/", describes_references: false };

/// The whole document.
pub(super) fn document() -> Json {
    object([
        ("asyncapi", "3.0.0".into()),
        ("info", info()),
        ("defaultContentType", "application/json".into()),
        ("servers", servers()),
        ("channels", object([("connect", channel())])),
        ("operations", operations()),
        ("components", object([("messages", messages()), ("schemas", DRAFT_7.definitions())])),
    ])
}

fn info() -> Json {
    let made = format!("{ABOUT} Made by `{}`.", super::COMMAND);
    let license = object([
        ("name", "Apache-2.0".into()),
        ("url", "https://www.apache.org/licenses/LICENSE-2.0".into()),
    ]);
    object([
        ("title", "Roomkeeper".into()),
        ("version", format!("{VERSION}.0.0").into()),
        ("description", made.into()),
        ("license", license),
    ])
}

fn servers() -> Json {
    let local = object([
        ("host", "127.0.0.1:8000".into()),
        ("protocol", "ws".into()),
        ("description", "Where a plain `roomkeeper serve` listens.".into()),
    ]);
    object([("local", local)])
}

fn channel() -> Json {
    let names = names();
    let messages = names.iter().map(|name| {
        let at = format!("#/components/messages/{name}");
        ((*name).to_owned(), object([("$ref", at.into())]))
    });
    let query = object([
        ("type", "object".into()),
        (
            "properties",
            object([
                ("client_id", DRAFT_7.reference(shapes::CLIENT.name)),
                ("token", object([("type", "string".into())])),
            ]),
        ),
    ]);
    let websocket =
        object([("method", "GET".into()), ("query", query), ("bindingVersion", "0.1.0".into())]);
    object([
        ("address", "/ws/v2/connect".into()),
        ("title", "Protocol v2".into()),
        ("messages", Json::Object(messages.collect())),
        ("bindings", object([("ws", websocket)])),
    ])
}

/// Names of all messages, of both directions.
fn names() -> Vec<&'static str> {
    let of = |frames: &'static [Frame]| frames.iter().map(|frame| frame.record.name);
    of(COMMANDS).chain([HOST_COMMAND]).chain(of(FRAMES)).collect()
}

fn in_channel(name: &str) -> Json {
    object([("$ref", format!("#/channels/connect/messages/{name}").into())])
}

fn operations() -> Json {
    let channel = || object([("$ref", "#/channels/connect".into())]);
    let operation = |action: &str, doc: &str, names: &[&str]| {
        object([
            ("action", action.into()),
            ("channel", channel()),
            ("summary", doc.into()),
            ("messages", Json::List(names.iter().map(|name| in_channel(name)).collect())),
        ])
    };
    let mut all = Vec::new();
    for frame in COMMANDS {
        let name = frame.record.name;
        let mut received = operation("receive", frame.record.doc, &[name]);
        if !frame.answers.is_empty() {
            let answers = frame.answers.iter().chain([&frames::ERROR.name]);
            let answers = Json::List(answers.map(|name| in_channel(name)).collect());
            received =
                received.with("reply", object([("channel", channel()), ("messages", answers)]));
        }
        all.push((format!("receive{name}"), received));
    }
    let doc = "Handles a command of the host's own.";
    let answers = vec![in_channel(frames::HOST.name), in_channel(frames::ERROR.name)];
    let reply = object([("channel", channel()), ("messages", answers.into())]);
    let host = operation("receive", doc, &[HOST_COMMAND]).with("reply", reply);
    all.push((format!("receive{HOST_COMMAND}"), host));
    for frame in FRAMES {
        let name = frame.record.name;
        all.push((format!("send{name}"), operation("send", frame.record.doc, &[name])));
    }
    Json::Object(all)
}

fn messages() -> Json {
    let message = |name: &str| {
        let payload = DRAFT_7.reference(name);
        let members = object([("name", name.into()), ("payload", payload)]);
        (name.to_owned(), members)
    };
    Json::Object(names().into_iter().map(message).collect())
}
