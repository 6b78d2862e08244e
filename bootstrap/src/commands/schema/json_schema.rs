//! The protocol as a JSON Schema (2020-12), and the same definitions for AsyncAPI, whose schemas
//! are of an older draft.

use domain::codes::{CloseCode, ErrorCode};
use domain::filter::Filter;
use domain::protocol::TYPES;
use domain::protocol::catalog::{COMMANDS, FRAMES, LIMITS, commands, frames};
use domain::protocol::catalog::{Field, Frame, Kind, Presence, Record, Text, Union};
use domain::tags::Tags;

use super::json::{Json, object, texts};
use super::types::{Named, named};

const ABOUT: &str = "Protocol v2 of Roomkeeper, /ws/v2/connect: what clients say and what the \
    server of this version says. Commands are closed: the server refuses a field that is not \
    here. Its own frames may have more fields in later versions, and clients ignore what they do \
    not know: check them with this in tests, not in production. Whole numbers are written with \
    digits alone, no key stands twice in an object, and lengths count bytes of UTF-8, which \
    `maxLength` can not say for what is not ASCII. docs/protocol.md says what it all means.";

/// What the two drafts say differently.
#[derive(Clone, Copy)]
pub(super) struct Dialect {
    /// Where the definitions are.
    pub(super) definitions: &'static str,
    /// Whether a reference may have a description beside it.
    pub(super) describes_references: bool,
}

const DRAFT_2020: Dialect = Dialect { definitions: "#/$defs/", describes_references: true };

/// The whole document.
pub(super) fn document() -> Json {
    let made = format!("Made by `{}`: change domain/src/protocol/catalog instead.", super::COMMAND);
    let either = ["ClientFrame", "ServerFrame"].map(|name| DRAFT_2020.reference(name));
    object([
        ("$schema", "https://json-schema.org/draft/2020-12/schema".into()),
        ("$id", "urn:roomkeeper:protocol:v2".into()),
        ("$comment", made.into()),
        ("title", "Roomkeeper protocol v2".into()),
        ("description", ABOUT.into()),
        ("anyOf", Json::List(either.into())),
        ("$defs", DRAFT_2020.definitions()),
    ])
}

impl Dialect {
    /// Every named type with its schema.
    pub(super) fn definitions(self) -> Json {
        let union = |frames: &[Frame]| {
            let of_protocol = frames.iter().filter(|frame| frame.kind.is_some());
            Json::List(of_protocol.map(|frame| self.reference(frame.record.name)).collect())
        };
        let mut all = vec![
            (
                "ClientFrame",
                described("Any command of the protocol.").with("oneOf", union(COMMANDS)),
            ),
            ("ServerFrame", described("Any frame of the server.").with("oneOf", union(FRAMES))),
        ];
        all.extend(COMMANDS.iter().map(|frame| self.frame(frame, commands::COMMON)));
        all.push(("HostCommand", self.host_command()));
        all.extend(FRAMES.iter().map(|frame| self.frame(frame, frames::COMMON)));
        all.extend(named().into_iter().map(|named| (named.name(), self.named(named))));
        all.push(("Tags", tags()));
        all.push(("Condition", self.condition()));
        all.extend(codes());
        all.push(("Limits", limits()));
        Json::Object(all.into_iter().map(|(name, schema)| (name.to_owned(), schema)).collect())
    }

    pub(super) fn reference(self, name: &str) -> Json {
        object([("$ref", format!("{}{name}", self.definitions).into())])
    }

    fn frame(self, frame: &Frame, common: &[Field]) -> (&'static str, Json) {
        let kind = match frame.kind {
            Some(kind) => object([("const", kind.into())]),
            None => own_type(),
        };
        (frame.record.name, self.record(frame.record, Some(kind), common))
    }

    fn named(self, named: Named) -> Json {
        match named {
            Named::Text(text) => self::text(text),
            Named::Record(record) => self.record(record, None, &[]),
            Named::Union(union) => self.union(union),
        }
    }

    fn record(self, record: &Record, kind: Option<Json>, common: &[Field]) -> Json {
        let (mut properties, mut required) = (Vec::new(), Vec::new());
        if let Some(kind) = kind {
            properties.push(("type".to_owned(), kind));
            required.push("type");
        }
        for field in record.fields.iter().chain(common) {
            properties.push((field.name.to_owned(), self.field(field)));
            if !field.presence.may_be_missing() {
                required.push(field.name);
            }
        }
        described(record.doc)
            .with("type", "object")
            .with("properties", Json::Object(properties))
            .with("required", texts(required))
            .with("additionalProperties", false)
    }

    fn field(self, field: &Field) -> Json {
        let mut schema = self.kind(&field.kind);
        if field.presence.may_be_null() {
            schema = or_null(schema);
        }
        let is_reference = matches!(&schema, Json::Object(members)
            if members.iter().any(|(name, _)| name == "$ref"));
        if is_reference && !self.describes_references {
            schema = object([("allOf", vec![schema].into())]);
        }
        let mut doc = field.doc.to_owned();
        if let Kind::Json { bytes_max: Some(most) } = field.kind {
            doc.push_str(&format!(" At most {most} bytes of JSON."));
        }
        if field.presence == Presence::Optional && !matches!(field.kind, Kind::Null) {
            doc.push_str(" `null` is the same as leaving it out.");
        }
        match (described(&doc), schema) {
            (Json::Object(mut members), Json::Object(more)) => {
                members.extend(more);
                Json::Object(members)
            }
            (_, schema) => schema,
        }
    }

    fn kind(self, kind: &Kind) -> Json {
        match *kind {
            Kind::Json { .. } => object([]),
            Kind::Null => typed("null"),
            Kind::Flag => typed("boolean"),
            Kind::False => object([("const", false.into())]),
            Kind::Number { min, max } if min == max => object([("const", min.into())]),
            Kind::Number { min, max } => typed("integer").with("minimum", min).with("maximum", max),
            Kind::AnyText => typed("string"),
            Kind::Text(text) => self.reference(text.name),
            Kind::Word(&[only]) => object([("const", only.into())]),
            Kind::Word(words) => object([("enum", texts(words.iter().copied()))]),
            Kind::ErrorCode => self.reference("ErrorCode"),
            Kind::ErrorWord => self.reference("ErrorWord"),
            Kind::CloseCode => self.reference("CloseCode"),
            Kind::CloseReason => self.reference("CloseReason"),
            Kind::Record(record) => self.reference(record.name),
            Kind::OneOf(union) => self.reference(union.name),
            Kind::List { of, max } => {
                let list = typed("array").with("items", self.kind(of));
                match max {
                    Some(max) => list.with("maxItems", max as u64),
                    None => list,
                }
            }
            Kind::Tags => self.reference("Tags"),
            Kind::Condition => self.reference("Condition"),
        }
    }

    fn union(self, union: &Union) -> Json {
        let of = union.of.iter().map(|record| self.reference(record.name)).collect::<Vec<_>>();
        described(union.doc).with("oneOf", of)
    }

    fn host_command(self) -> Json {
        let mut properties = vec![("type".to_owned(), own_type())];
        let common = commands::COMMON.iter();
        properties.extend(common.map(|field| (field.name.to_owned(), self.field(field))));
        described("A command for a handler of the server's host, with any fields of its own.")
            .with("type", "object")
            .with("properties", Json::Object(properties))
            .with("required", texts(["type"]))
    }

    fn condition(self) -> Json {
        let doc = format!(
            "Which messages to get, by their tags. At most {} levels, {} conditions and {} values \
             over all of it, and {} bytes of JSON.",
            Filter::DEPTH_MAX,
            Filter::CONDITIONS_MAX,
            Filter::VALUES_MAX,
            domain::protocol::selective::FILTER_BYTES_MAX
        );
        let parts = || {
            // The outer one counts, too.
            let most = Filter::CONDITIONS_MAX as u64 - 1;
            list_of(self.reference("Condition"), most)
        };
        let values = list_of(small_text(), Filter::VALUES_MAX as u64);
        let only = |word: &str, doc: &str, value: Json| {
            described(doc)
                .with("type", "object")
                .with("properties", object([(word, value)]))
                .with("required", texts([word]))
                .with("additionalProperties", false)
        };
        let conditions = vec![
            only("and", "All of them hold.", parts()),
            only("or", "One of them holds.", parts()),
            only("not", "It does not hold.", self.reference("Condition")),
            only("eq", "The tag of this name has this value.", one_member(small_text())),
            only("in", "The tag of this name has one of these values.", one_member(values)),
        ];
        described(&doc).with("oneOf", conditions)
    }
}

fn described(doc: &str) -> Json {
    object([("description", doc.into())])
}

fn typed(word: &str) -> Json {
    object([("type", word.into())])
}

fn or_null(schema: Json) -> Json {
    if let Json::Object(members) = &schema
        && let Some(((name, Json::Text(word)), rest)) = members.split_first()
        && name == "type"
        && word != "array"
    {
        let words = if word == "null" { Json::from("null") } else { texts([&**word, "null"]) };
        let first = [("type".to_owned(), words)].into_iter();
        return Json::Object(first.chain(rest.iter().cloned()).collect());
    }
    object([("anyOf", vec![schema, typed("null")].into())])
}

fn text(text: &Text) -> Json {
    let mut schema = described(text.doc).with("type", "string");
    if let Some(most) = text.bytes_max {
        schema = schema.with("maxLength", most as u64);
    }
    if let Some(pattern) = text.pattern {
        schema = schema.with("pattern", pattern);
    }
    schema.with("examples", texts([text.example]))
}

/// The `type` of what a host handles itself.
fn own_type() -> Json {
    typed("string").with("not", object([("enum", texts(TYPES))]))
}

fn list_of(items: Json, most: u64) -> Json {
    typed("array").with("items", items).with("minItems", 1).with("maxItems", most)
}

fn small_text() -> Json {
    typed("string").with("maxLength", Tags::BYTES_MAX as u64)
}

fn small_names() -> Json {
    object([("maxLength", (Tags::BYTES_MAX as u64).into())])
}

fn one_member(value: Json) -> Json {
    typed("object")
        .with("minProperties", 1)
        .with("maxProperties", 1)
        .with("propertyNames", small_names())
        .with("additionalProperties", value)
}

fn tags() -> Json {
    let doc = format!("Tags: names and values of at most {} bytes.", Tags::BYTES_MAX);
    described(&doc)
        .with("type", "object")
        .with("maxProperties", Tags::COUNT_MAX as u64)
        .with("propertyNames", small_names())
        .with("additionalProperties", small_text())
}

fn codes() -> [(&'static str, Json); 4] {
    let row = |number: u16, word: &str, doc: String| {
        object([
            ("const", u64::from(number).into()),
            ("title", word.into()),
            ("description", doc.into()),
        ])
    };
    let errors = ErrorCode::ALL.map(|code| {
        let again =
            if code.is_temporary() { "The same may succeed later." } else { "Don't repeat it." };
        row(code.number(), code.word(), format!("{} {again}", code.meaning()))
    });
    let closes = CloseCode::ALL.map(|code| {
        let then = if code.reconnect() { "Come back." } else { "Stop." };
        row(code.number(), code.reason(), format!("{} {then}", code.meaning()))
    });
    let words = |doc: &str, words: Vec<&str>| described(doc).with("enum", texts(words));
    [
        (
            "ErrorCode",
            described("The table of errors, by number.").with("oneOf", Vec::from(errors)),
        ),
        (
            "ErrorWord",
            words("The table of errors, by word.", ErrorCode::ALL.map(ErrorCode::word).into()),
        ),
        (
            "CloseCode",
            described("The table of close codes, by number.").with("oneOf", Vec::from(closes)),
        ),
        (
            "CloseReason",
            words(
                "The table of close codes, by reason.",
                CloseCode::ALL.map(CloseCode::reason).into(),
            ),
        ),
    ]
}

fn limits() -> Json {
    let property = |value: u64, doc: &str| described(doc).with("const", value);
    let properties = LIMITS.iter().map(|l| (l.name.to_owned(), property(l.value, l.doc))).collect();
    described("The limits that no setting changes.")
        .with("type", "object")
        .with("properties", Json::Object(properties))
        .with("required", texts(LIMITS.iter().map(|limit| limit.name)))
        .with("additionalProperties", false)
}
