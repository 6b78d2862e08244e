//! The description of the server API against the running server: every operation answers every
//! status that it documents, with a body of that schema, and no other; and the document has every
//! route there is.
//!
//! A route that is added to the server comes into the document by itself, and then fails here until
//! it has an example.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};
use tests::raw::RawSocket;
use tests::server::Server;

use crate::client::{Client, PATH};
use crate::http::{Answer, ask};
use crate::server_api::{SCOPES, by, key, server};

/// Requests that are carried out, by operation: the query, or the body; before it, what the path names.
const EXAMPLES: &[(&str, &str)] = &[
    ("publish", r#"{"room":"public:described","data":{"n":1},"tags":{"a":"b"}}"#),
    ("publish", r#"{"rooms":["public:described","nowhere:x"],"data":1}"#),
    ("batch", r#"{"publishes":[{"room":"public:described","data":1},{"room":"x","data":2}]}"#),
    ("send", r#"{"user_id":"ann","data":1,"class":"latest","key":"k"}"#),
    ("presence", "?room=public:described"),
    ("history", "?room=public:described&limit=5"),
    ("rooms", "?prefix=public:&limit=1"),
    ("connections", "?room=public:described"),
    ("disconnect", r#"{"user_id":"nobody","code":1012}"#),
    ("revoke", r#"{"user_id":"nobody"}"#),
    ("create_match", r#"{"id":"described","game":"relay","participants":["ann"],"metadata":[1]}"#),
    ("create_match", r#"{"id":"over","game":"relay","participants":[],"spectators":"anyone"}"#),
    ("list_matches", "?state=waiting&limit=1"),
    ("get_match", "described"),
    ("start_match", "described {}"),
    ("end_match", r#"over {"result":{"won":null}}"#),
    ("list_matches", "?after=described"),
    ("get_match", "over"),
    ("describe", ""),
];

/// Requests that are refused, by operation, with the status.
const REFUSED: &[(&str, u16, &str)] = &[
    ("publish", 400, r#"{"room":"public:x"}"#),
    ("publish", 404, r#"{"room":"nowhere:x","data":1}"#),
    ("batch", 400, r#"{"publishes":[]}"#),
    ("send", 400, r#"{"user_id":"a b","data":1}"#),
    ("presence", 400, ""),
    ("presence", 404, "?room=nowhere:x"),
    ("presence", 404, "?room=user:ann"),
    ("presence", 413, "?room=public:LONG"),
    ("history", 400, "?room=public:x&epoch=0"),
    ("history", 404, "?room=nowhere:x"),
    ("history", 413, "?room=public:LONG"),
    ("rooms", 400, "?limit=0"),
    ("rooms", 413, "?prefix=LONG"),
    ("connections", 400, "?after=x"),
    ("connections", 413, "?user_id=LONG"),
    ("disconnect", 400, r#"{"user_id":"ann","code":1000}"#),
    ("revoke", 400, r#"{"user_id":"ann","issued_until":-1}"#),
    ("create_match", 400, r#"{"game":"chess","participants":[]}"#),
    ("create_match", 409, r#"{"id":"described","game":"relay","participants":[]}"#),
    ("list_matches", 400, "?state=paused"),
    ("list_matches", 413, "?after=LONG"),
    ("get_match", 400, "a*b"),
    ("get_match", 404, "nobody"),
    ("get_match", 413, "LONG"),
    ("start_match", 400, r#"described {"now":true}"#),
    ("start_match", 404, "nobody"),
    ("start_match", 409, "over"),
    ("end_match", 400, r#"described {"result":"#),
    ("end_match", 404, "nobody"),
    ("end_match", 409, "over"),
];

/// One operation of the document.
#[derive(Debug)]
struct Operation {
    id: String,
    method: String,
    path: String,
    scopes: Vec<String>,
    responses: Map<String, Value>,
}

impl Operation {
    /// The documented statuses; what else may come is a fault of the server.
    fn statuses(&self) -> BTreeSet<u16> {
        self.responses.keys().filter_map(|status| status.parse().ok()).collect()
    }
}

struct Described {
    document: Value,
    operations: Vec<Operation>,
    produced: BTreeMap<String, BTreeSet<u16>>,
}

impl Described {
    fn fetch(server: &Server) -> Self {
        let answer = by(server, "none", "GET", "/api/v1/openapi.json", "");
        assert_eq!(answer.status, 200, "{answer:?}");
        let document = answer.json();
        let mut operations = Vec::new();
        for (path, item) in document["paths"].as_object().unwrap() {
            for (method, operation) in item.as_object().unwrap() {
                let scopes = operation["security"][0]["apiKey"].as_array().unwrap();
                operations.push(Operation {
                    id: operation["operationId"].as_str().unwrap().to_owned(),
                    method: method.to_uppercase(),
                    path: path.clone(),
                    scopes: scopes.iter().map(|s| s.as_str().unwrap().to_owned()).collect(),
                    responses: operation["responses"].as_object().unwrap().clone(),
                });
            }
        }
        Self { document, operations, produced: BTreeMap::new() }
    }

    /// The operation of this name, which must be there.
    fn operation(&self, id: &str) -> &Operation {
        let found = self.operations.iter().find(|operation| operation.id == id);
        found.unwrap_or_else(|| panic!("the document has no operation {id}"))
    }

    /// Checks an answer against the document and remembers its status.
    fn check(&mut self, id: &str, answer: &Answer) {
        let status = answer.status;
        let response = self.operation(id).responses.get(&status.to_string());
        let response = response.unwrap_or_else(|| panic!("{id} does not document {answer:?}"));
        assert!(answer.head.to_ascii_lowercase().contains("content-type: application/json\r\n"));
        let schema = &response["content"]["application/json"]["schema"];
        self.assert_valid(schema, &answer.json(), &format!("{id} {status}"));
        if matches!(status, 429 | 503) {
            let head = answer.head.to_ascii_lowercase();
            assert!(head.contains("retry-after: "), "{id} {status}: {head}");
        }
        self.produced.entry(id.to_owned()).or_default().insert(status);
    }

    fn assert_valid(&self, schema: &Value, value: &Value, what: &str) {
        let whole = json!({
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "$ref": schema["$ref"],
            "components": self.document["components"],
        });
        let validator = jsonschema::validator_for(&whole).expect("a schema");
        let errors: Vec<_> = validator.iter_errors(value).map(|error| error.to_string()).collect();
        assert!(errors.is_empty(), "{what}: {errors:?} in {value}");
    }
}

fn ids(described: &Described) -> Vec<String> {
    described.operations.iter().map(|operation| operation.id.clone()).collect()
}

fn asked(server: &Server, name: &str, operation: &Operation, with: &str) -> Answer {
    let with = with.replace("LONG", &"x".repeat(300));
    let (path, with) = address(operation, &with);
    match operation.method.as_str() {
        "GET" => by(server, name, "GET", &format!("{path}{with}"), ""),
        method => by(server, name, method, &path, with),
    }
}

/// Where to ask, and what is left to say there.
fn address<'w>(operation: &Operation, with: &'w str) -> (String, &'w str) {
    if !operation.path.contains("{match_id}") {
        return (operation.path.clone(), with);
    }
    let (id, with) = with.split_once(' ').unwrap_or((with, ""));
    (operation.path.replace("{match_id}", id), with)
}

fn example(id: &str) -> &'static str {
    let found = EXAMPLES.iter().find(|(of, _)| *of == id);
    found.unwrap_or_else(|| panic!("give {id} a row in EXAMPLES")).1
}

/// What is carried out and what is refused for what it says.
fn ask_by_content(server: &Server, described: &mut Described) {
    for (id, with) in EXAMPLES {
        let answer = asked(server, "all", described.operation(id), with);
        assert_eq!(answer.status, 200, "{id} {with}: {answer:?}");
        described.check(id, &answer);
    }
    for (id, status, with) in REFUSED {
        let answer = asked(server, "all", described.operation(id), with);
        assert_eq!(answer.status, *status, "{id} {with}: {answer:?}");
        described.check(id, &answer);
    }
    for id in ids(described) {
        let operation = described.operation(&id);
        if operation.method != "POST" {
            continue;
        }
        let large = format!("described {{\"a\":\"{}\"}}", "x".repeat(2 << 20));
        let large = asked(server, "all", operation, &large);
        let authorization = format!("Bearer {}", key("all"));
        let headers = [("Authorization", authorization.as_str()), ("Content-Type", "text/plain")];
        let path = address(operation, "described").0;
        let typed = ask(server.addr(), "POST", &path, &headers, "{}");
        assert_eq!((large.status, typed.status), (413, 415), "{id}");
        described.check(&id, &large);
        described.check(&id, &typed);
    }
}

/// Who may ask: nobody without a key, and of the keys those with the one scope that it names.
fn ask_by_key(server: &Server, described: &mut Described) {
    for id in ids(described) {
        let operation = described.operation(&id);
        let (method, path) = (operation.method.clone(), address(operation, "described").0);
        let scopes = operation.scopes.clone();
        let nobody = ask(server.addr(), &method, &path, &[], "{}");
        assert_eq!(nobody.status, 401, "{id}");
        described.check(&id, &nobody);
        for name in SCOPES.iter().chain(&["none"]) {
            let answer = asked(server, name, described.operation(&id), example(&id));
            let is_allowed = scopes.is_empty() || scopes.iter().any(|scope| scope == name);
            let status = if is_allowed { 200 } else { 403 };
            assert_eq!(answer.status, status, "{id} with the scope {name}: {answer:?}");
            described.check(&id, &answer);
            if !is_allowed {
                let message = answer.json()["message"].as_str().unwrap().to_owned();
                assert!(message.contains(&format!("scope {}", scopes[0])), "{message}");
            }
        }
    }
}

/// A head that promises a body which never comes.
fn ask_slowly(described: &mut Described) {
    let server = server(&["--set", "server.handshake_timeout_ms=300"]);
    for id in ids(described) {
        let operation = described.operation(&id);
        if operation.method != "POST" {
            continue;
        }
        let mut socket = RawSocket::connect(server.addr());
        let head = format!(
            "POST {} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {}\r\n\
             Content-Length: 10\r\n\r\n{{",
            address(operation, "described").0,
            key("all")
        );
        socket.send(head.as_bytes());
        let head = socket.read_head();
        let body = String::from_utf8(socket.read_until_closed()).unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let answer = Answer { status, head, body };
        assert_eq!(answer.status, 408, "{id}: {answer:?}");
        described.check(&id, &answer);
    }
}

fn ask_fast(described: &mut Described) {
    let server =
        server(&["--set", "api.operations_per_second=1", "--set", "api.operations_burst=1"]);
    for id in ids(described) {
        let begun = Instant::now();
        loop {
            let answer = asked(&server, "all", described.operation(&id), example(&id));
            described.check(&id, &answer);
            if answer.status == 429 {
                break;
            }
            assert!(begun.elapsed() < Duration::from_secs(20), "{id} is never too fast");
        }
    }
}

/// A client that does not answer its close keeps the server draining.
fn ask_while_draining(described: &mut Described) {
    let mut server = server(&[
        "--set",
        "server.drain_window_ms=60000",
        "--set",
        "server.close_timeout_ms=60000",
    ]);
    let mut client = RawSocket::open(server.addr(), PATH);
    client.expect_json("hello");
    server.terminate();
    client.expect_json("disconnect");
    for id in ids(described) {
        let answer = asked(&server, "all", described.operation(&id), example(&id));
        assert_eq!(answer.status, 503, "{id}: {answer:?}");
        described.check(&id, &answer);
    }
    server.kill();
}

/// R10: a body that says it is too large, and one that does not come.
#[test]
fn every_operation_answers_what_it_documents_and_nothing_else() {
    // The testing profile takes larger ones.
    let server = server(&["--set", "api.publish_bytes_max=131072"]);
    let mut member = Client::open(&server);
    member.subscribe("public:described");
    let mut described = Described::fetch(&server);
    ask_by_content(&server, &mut described);
    ask_by_key(&server, &mut described);
    ask_slowly(&mut described);
    ask_fast(&mut described);
    ask_while_draining(&mut described);
    for operation in &described.operations {
        let produced = described.produced.get(&operation.id).cloned().unwrap_or_default();
        assert_eq!(produced, operation.statuses(), "{}", operation.id);
    }
}

#[test]
fn the_examples_of_the_document_are_requests_of_its_own_schemas() {
    let server = server(&[]);
    let described = Described::fetch(&server);
    let schemas = described.document["components"]["schemas"].as_object().unwrap();
    let mut n_examples = 0;
    for (name, schema) in schemas {
        for example in schema["examples"].as_array().into_iter().flatten() {
            let reference = json!({"$ref": format!("#/components/schemas/{name}")});
            described.assert_valid(&reference, example, name);
            n_examples += 1;
        }
    }
    assert!(n_examples >= 6, "{n_examples}");
    // And what the server takes is what the schemas say: each body that is carried out is valid.
    for (id, with) in EXAMPLES.iter().filter(|(_, with)| with.ends_with('}')) {
        let operation = described.operation(id);
        let with = address(operation, with).1;
        let body = &described.document["paths"][&operation.path]["post"]["requestBody"];
        let schema = &body["content"]["application/json"]["schema"];
        if !with.contains(r#""room":"x""#) {
            described.assert_valid(schema, &serde_json::from_str(with).unwrap(), id);
        }
    }
}
