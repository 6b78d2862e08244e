//! Publishing over HTTP: what a backend sends, what it is answered, and what members get.

use serde_json::{Value, json};
use tests::raw::RawSocket;
use tests::server::Server;

use crate::client::{Client, data_of, values_of};
use crate::http::{Answer, ask, get};

const KEY: &str = "k7Qp2vXz9LmN4rTs8WbYc3Df6GhJ5KaE";
const OTHER_KEY: &str = "Zx8Cv5Bn2Mq4Wr7Ty1Up3As6Df9Gh0Jk";

fn server(more: &[&str]) -> Server {
    let keys = [format!("api.keys.backend.key={KEY}"), format!("api.keys.other.key={OTHER_KEY}")];
    Server::start(&[&["--set", &keys[0], "--set", &keys[1]], more].concat())
}

fn publish(server: &Server, body: &str, headers: &[(&str, &str)]) -> Answer {
    let authorization = format!("Bearer {KEY}");
    let usual = [("Authorization", authorization.as_str()), ("Content-Type", "application/json")];
    ask(server.addr(), "POST", "/api/v1/publish", &[&usual[..], headers].concat(), body)
}

#[test]
fn a_backend_publishes_and_repeats_itself_under_its_key_and_members_get_it_once() {
    let server = server(&[]);
    let mut member = Client::open(&server);
    member.subscribe("public:orders");
    let data = "{ \"n\" : 1.0,\"s\":\"\\u00fc ü\" }";
    let body = format!("{{\"room\":\"public:orders\",\"data\":{data}}}");
    let first = publish(&server, &body, &[("Idempotency-Key", "order-1")]);
    assert_eq!(first.status, 200, "{first:?}");
    let position = first.json();
    assert_eq!((&position["offset"], &position["duplicate"]), (&json!(1), &json!(false)));
    assert_eq!(
        (&position["room"], &position["level"]),
        (&json!("public:orders"), &json!("accepted"))
    );

    let again = publish(&server, &body, &[("Idempotency-Key", "order-1")]).json();
    assert_eq!((&again["offset"], &again["duplicate"]), (&json!(1), &json!(true)));
    assert_eq!(again["epoch"], position["epoch"]);
    // `msg_id` in the body is the same thing under another name.
    let body_with_id = r#"{"room":"public:orders","data":2,"msg_id":"order-1"}"#;
    assert_eq!(publish(&server, body_with_id, &[]).json()["duplicate"], true);
    // Another key is another publisher.
    let other = format!("Bearer {OTHER_KEY}");
    let headers = [("Authorization", other.as_str()), ("Idempotency-Key", "order-1")];
    let by_other = ask(server.addr(), "POST", "/api/v1/publish", &headers, &body).json();
    assert_eq!((&by_other["offset"], &by_other["duplicate"]), (&json!(2), &json!(false)));

    let mut texts = Vec::new();
    while texts.len() < 2 {
        let (_, text) = member.socket.read_frame();
        texts.extend(String::from_utf8(text).unwrap().lines().map(str::to_owned));
    }
    assert_eq!(texts.len(), 2, "{texts:?}");
    for text in &texts {
        assert!(text.contains(&format!("\"data\":{data},")), "{text}");
        let message = &values_of(text.as_bytes())[0];
        assert_eq!(message["sender"], json!({"user_id": null, "connection_id": null}));
    }
    assert_eq!(member.log("public:orders", 10).len(), 2);
}

#[test]
fn without_a_known_key_nothing_is_published_and_the_answer_says_what_is_needed() {
    let server = server(&[]);
    let body = r#"{"room":"public:orders","data":1}"#;
    let basic = format!("Basic {KEY}");
    let cut = format!("Bearer {}", &KEY[1..]);
    for headers in [
        &[][..],
        &[("Authorization", KEY)],
        &[("Authorization", "Bearer")],
        &[("Authorization", &basic)],
        &[("Authorization", &cut)],
    ] {
        let refused = ask(server.addr(), "POST", "/api/v1/publish", headers, body);
        assert_eq!(refused.status, 401, "{headers:?}");
        assert!(refused.head.to_ascii_lowercase().contains("www-authenticate: bearer"));
        assert_eq!(refused.json()["error"], "invalid_token");
        assert!(!refused.body.contains(KEY));
    }
    assert_eq!(Client::open(&server).log("public:orders", 10), Vec::<Value>::new());
}

#[test]
fn what_is_no_publish_is_refused_with_the_number_and_the_field_that_is_wrong() {
    let server = server(&["--set", "api.publish_bytes_max=2000"]);
    let deep = format!("{{\"room\":\"public:x\",\"data\":{}1{}}}", "[".repeat(65), "]".repeat(65));
    let large = format!("{{\"room\":\"public:x\",\"data\":\"{}\"}}", "x".repeat(2_000));
    let long_id =
        format!("{{\"room\":\"public:x\",\"data\":1,\"msg_id\":\"{}\"}}", "m".repeat(1_000));
    for (body, status, code, field) in [
        ("", 400, 100, None),
        ("{\"room\":\"public:x\",", 400, 100, None),
        ("[]", 400, 100, None),
        (r#"{"room":"public:x"}"#, 400, 102, Some("data")),
        (r#"{"data":1}"#, 400, 102, Some("room")),
        (r#"{"room":"public:x","data":1,"colour":2}"#, 400, 102, Some("colour")),
        (r#"{"room":"public:x","data":1,"data":2}"#, 400, 100, None),
        (r#"{"room":7,"data":1}"#, 400, 102, Some("room")),
        (r#"{"room":"public:x","rooms":["public:x"],"data":1}"#, 400, 102, Some("rooms")),
        (r#"{"room":"public","data":1}"#, 400, 102, Some("room")),
        (r#"{"room":"public:*","data":1}"#, 400, 102, Some("room")),
        (r#"{"room":"nowhere:x","data":1}"#, 404, 104, Some("room")),
        (r#"{"room":"public:x","data":1,"class":"fast"}"#, 400, 102, Some("class")),
        (r#"{"room":"public:x","data":1,"class":"latest"}"#, 400, 102, Some("key")),
        (r#"{"room":"public:x","data":1,"key":"k"}"#, 400, 102, Some("key")),
        (r#"{"room":"public:x","data":1,"ttl_ms":0}"#, 400, 102, Some("ttl_ms")),
        (r#"{"room":"public:x","data":1,"msg_id":""}"#, 400, 102, Some("msg_id")),
        (&long_id, 413, 109, Some("msg_id")),
        (&deep, 400, 100, None),
        (&large, 413, 109, None),
    ] {
        let shown = body.chars().take(80).collect::<String>();
        let refused = publish(&server, body, &[]);
        assert_eq!(refused.status, status, "{shown}: {refused:?}");
        let error = refused.json();
        assert_eq!((&error["code"], &error["field"]), (&json!(code), &json!(field)), "{shown}");
        assert!(error["message"].is_string() && error["error"].is_string(), "{shown}");
    }
    let body = r#"{"room":"public:x","data":1,"msg_id":"a"}"#;
    let differs = publish(&server, body, &[("Idempotency-Key", "b")]);
    assert_eq!((differs.status, &differs.json()["field"]), (400, &json!("msg_id")));
    assert_eq!(Client::open(&server).log("public:x", 10), Vec::<Value>::new());
}

#[test]
fn the_deepest_data_that_is_allowed_is_published() {
    let server = server(&[]);
    let body = format!("{{\"room\":\"public:x\",\"data\":{}1{}}}", "[".repeat(64), "]".repeat(64));
    let answer = publish(&server, &body, &[]);
    assert_eq!(answer.status, 200, "{answer:?}");
}

#[test]
fn a_backend_uses_every_class_too() {
    let server = server(&[]);
    let latest = r#"{"room":"public:x","data":5,"class":"latest","key":"score"}"#;
    let answer = publish(&server, latest, &[]).json();
    assert_eq!((&answer["offset"], &answer["level"]), (&Value::Null, &json!("accepted")));
    let subscribed = Client::open(&server).subscribe("public:x");
    assert_eq!(data_of(subscribed["messages"].as_array().unwrap()), [5]);
}

#[test]
fn other_paths_and_methods_are_told_where_to_go() {
    let server = server(&[]);
    assert_eq!(get(server.addr(), "/healthz").status, 200);
    assert_eq!(get(server.addr(), "/readyz").status, 200);
    assert_eq!(get(server.addr(), "/api/v1/publish").status, 405);
    let nothing = get(server.addr(), "/nothing");
    assert_eq!(nothing.status, 404);
    assert!(nothing.json()["message"].as_str().unwrap().contains("/ws/v2/connect"));
    let plain = get(server.addr(), "/ws/v2/connect");
    assert!([400, 426].contains(&plain.status), "{plain:?}");
}

/// R10: no length is declared, and the end never comes.
#[test]
fn a_body_that_never_ends_is_refused_as_soon_as_it_is_too_large() {
    let server = server(&["--set", "api.publish_bytes_max=65536"]);
    let mut socket = RawSocket::connect(server.addr());
    let head = format!(
        "POST /api/v1/publish HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n\
         Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    );
    socket.send(head.as_bytes());
    let chunk = format!("1000\r\n{}\r\n", "x".repeat(0x1000));
    for _ in 0..16 {
        socket.send(chunk.as_bytes());
    }
    socket.send(b"1\r\nx\r\n");
    let head = socket.read_head();
    assert!(head.starts_with("HTTP/1.1 413 "), "{head}");
}
