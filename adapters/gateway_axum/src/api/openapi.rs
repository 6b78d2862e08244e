//! The description of the server API for machines: OpenAPI 3.1, made from the table of routes and
//! the schemas beside it.
//!
//! It must never say of a route what the table does not: a test asks the running server for
//! everything that stands in it.

use std::sync::LazyLock;

use axum::body::Bytes;
use serde_json::{Map, Value, json};

use super::{Deed, Parameter, ROUTES, Route, Takes};

/// The schemas, by name.
const SCHEMAS: &str = include_str!("schemas.json");

static DOCUMENT: LazyLock<Bytes> = LazyLock::new(|| Bytes::from(text()));

/// The document, as it is served.
pub(super) fn document() -> Bytes {
    DOCUMENT.clone()
}

/// The document as text: the same bytes in the repository and on the wire.
fn text() -> String {
    let mut text = serde_json::to_string_pretty(&value()).unwrap_or_default();
    text.push('\n');
    text
}

fn value() -> Value {
    let mut paths = Map::new();
    for route in &ROUTES {
        let method = if matches!(route.takes, Takes::Query(_)) { "get" } else { "post" };
        let item = paths.entry(route.path).or_insert_with(|| json!({}));
        item[method] = operation(route);
    }
    // The schemas are part of the program, and a test reads them.
    let schemas: Value = serde_json::from_str(SCHEMAS).unwrap_or_default();
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Roomkeeper server API",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "For backends, with an API key. Every refusal has the body `Error`, with \
                            numbers of the protocol's error table. What a key may do are its scopes: \
                            each operation names the one it needs under `security`.",
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "apiKey": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "A key of `api.keys`.",
                },
            },
        },
    })
}

fn operation(route: &Route) -> Value {
    let scopes: Vec<&str> = route.scope.iter().map(|scope| scope.word()).collect();
    let mut operation = json!({
        "operationId": route.deed.word(),
        "summary": route.summary,
        "description": route.about,
        "security": [{ "apiKey": scopes }],
        "responses": responses(route),
    });
    let named = route.named().map(|named| parameter("path", named));
    let mut parameters: Vec<Value> = named.into_iter().collect();
    match route.takes {
        Takes::Query(of_query) => {
            parameters.extend(of_query.iter().map(|of_query| parameter("query", of_query)));
            operation["parameters"] = json!(parameters);
        }
        Takes::Body { schema, has_key, .. } => {
            operation["requestBody"] =
                json!({ "required": needs_body(route), "content": content(schema) });
            if has_key {
                parameters.push(idempotency_key(route));
            }
            if !parameters.is_empty() {
                operation["parameters"] = json!(parameters);
            }
        }
    }
    operation
}

/// Whether nothing at all is no request.
const fn needs_body(route: &Route) -> bool {
    !matches!(route.deed, Deed::StartMatch | Deed::EndMatch)
}

fn idempotency_key(route: &Route) -> Value {
    let about = if matches!(route.deed, Deed::CreateMatch) {
        "Names a match without `id`: the same key of the same caller makes the same match."
    } else {
        "Another name for `msg_id`; of a batch, what the ids of its messages begin with, and then at \
         most 125 bytes long."
    };
    json!({
        "name": "Idempotency-Key",
        "in": "header",
        "schema": reference("MessageId"),
        "description": about,
    })
}

fn parameter(place: &str, parameter: &Parameter) -> Value {
    json!({
        "name": parameter.name,
        "in": place,
        "required": parameter.is_required,
        "schema": reference(parameter.schema),
        "description": parameter.about,
    })
}

fn responses(route: &Route) -> Value {
    let mut responses = Map::new();
    responses.insert(
        "200".to_owned(),
        json!({ "description": "Done.", "content": content(route.answer) }),
    );
    for (status, about) in refusals(route) {
        let mut response = json!({ "description": about, "content": content("Error") });
        if matches!(status, 429 | 503) {
            response["headers"] = json!({
                "Retry-After": { "schema": { "type": "integer" }, "description": "Seconds." },
            });
        }
        responses.insert(status.to_string(), response);
    }
    let default = json!({ "description": "A fault of the server.", "content": content("Error") });
    responses.insert("default".to_owned(), default);
    Value::Object(responses)
}

/// With what a route may refuse, beside a fault of the server.
fn refusals(route: &Route) -> Vec<(u16, &'static str)> {
    let has_body = matches!(route.takes, Takes::Body { .. });
    let takes_something = !matches!(route.takes, Takes::Query([])) || route.named().is_some();
    [
        (takes_something, 400, "The request is not right; `field` names what."),
        (true, 401, "No key, or one that is not known."),
        (route.scope.is_some(), 403, "The key lacks the scope, or is limited to other rooms."),
        (
            route.may_be_unknown,
            404,
            "There is no such namespace or match, or the room does not offer that.",
        ),
        (has_body, 408, "The body took too long."),
        (route.deed.may_conflict(), 409, "There is one already that says otherwise."),
        (takes_something, 413, "The body or a value is too large."),
        (has_body, 415, "The body says that it is not JSON."),
        (true, 429, "Too fast, or another listing is under way."),
        (true, 503, "Not now: overloaded, or stopping."),
    ]
    .into_iter()
    .filter(|(applies, ..)| *applies)
    .map(|(_, status, about)| (status, about))
    .collect()
}

fn content(schema: &str) -> Value {
    json!({ "application/json": { "schema": reference(schema) } })
}

fn reference(schema: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{schema}") })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Every name behind a `$ref`.
    fn references(value: &Value, found: &mut BTreeSet<String>) {
        match value {
            Value::Object(members) => {
                for (name, member) in members {
                    match member
                        .as_str()
                        .and_then(|text| text.strip_prefix("#/components/schemas/"))
                    {
                        Some(schema) if name == "$ref" => drop(found.insert(schema.to_owned())),
                        _ => references(member, found),
                    }
                }
            }
            Value::Array(items) => items.iter().for_each(|item| references(item, found)),
            _ => {}
        }
    }

    #[test]
    fn every_schema_that_is_named_is_there_and_every_one_that_is_there_is_named() {
        let schemas: Map<String, Value> = serde_json::from_str(SCHEMAS).unwrap();
        let mut named = BTreeSet::new();
        references(&value(), &mut named);
        assert_eq!(named, schemas.keys().cloned().collect());
    }

    #[test]
    fn the_document_in_the_repository_is_the_one_that_is_served() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/openapi.json");
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::write(file, text()).unwrap();
        }
        let committed = std::fs::read_to_string(file).unwrap();
        assert!(committed == text(), "run UPDATE_DOCS=1 cargo test -p gateway_axum");
    }
}
