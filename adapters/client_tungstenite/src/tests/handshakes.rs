//! What answers in place of a server: portals, proxies, strangers, and those that choose what nobody offered.
//! It must never be enough that a connection fails: the failure says what it was, and the client goes on.

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::support::*;
use crate::*;

/// Reads a request for an upgrade. Answers what a server has to accept it with.
async fn asked(stream: &mut DuplexStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(soon(stream.read_u8()).await.unwrap());
    }
    let head = String::from_utf8(head).unwrap();
    let key = head.lines().find_map(|line| line.strip_prefix("Sec-WebSocket-Key: ")).unwrap();
    derive_accept_key(key.as_bytes())
}

fn accepting(key: &str, more: &str) -> String {
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Accept: {key}\r\n{more}\r\n"
    )
}

async fn connect(answer: impl Fn(&str) -> String) -> ConnectError {
    let mut server = Server::new();
    let (connected, _stream) = server
        .connect(options(), async |server: &mut Server| {
            let mut stream = server.accept_raw().await;
            let key = asked(&mut stream).await;
            stream.write_all(answer(&key).as_bytes()).await.unwrap();
            stream
        })
        .await;
    connected.unwrap_err()
}

/// K10: a wrong accept key, and a sub-protocol, an extension or a window size that nobody offered.
#[tokio::test(start_paused = true)]
async fn a_server_that_chooses_what_was_not_offered_is_refused() {
    let wrong = connect(|_| accepting("AAAAAAAAAAAAAAAAAAAAAAAAAAA=", "")).await;
    assert!(matches!(wrong, ConnectError::Handshake(_)), "{wrong:?}");
    let protocol = connect(|key| accepting(key, "Sec-WebSocket-Protocol: chat\r\n")).await;
    assert!(matches!(protocol, ConnectError::Handshake(_)), "{protocol:?}");
    for extension in ["permessage-deflate", "permessage-deflate; server_max_window_bits=99", "x"] {
        let header = format!("Sec-WebSocket-Extensions: {extension}\r\n");
        let chosen = connect(|key| accepting(key, &header)).await;
        assert!(matches!(chosen, ConnectError::UnknownExtension), "{chosen:?}");
    }
}

/// K07: each is told by its class, and the client tries again.
#[tokio::test(start_paused = true)]
async fn whatever_answers_in_place_of_the_server_is_classified_and_tried_again() {
    let mut server = Server::new();
    let (_client, mut events, peer) = server.client(options()).await;
    peer.cut().await;
    assert!(matches!(next(&mut events).await, Event::Disconnected { .. }));
    server.refuse(1);
    let failed = async |events: &mut Events| match next(events).await {
        Event::AttemptFailed { class, after: Some(_), .. } => class,
        other => panic!("{other:?}"),
    };
    assert_eq!(failed(&mut events).await, ErrorClass::Network);
    let html = "<html>log in</html>";
    for (answer, expected) in [
        (format!("HTTP/1.1 200 OK\r\nContent-Length: 19\r\n\r\n{html}"), ErrorClass::Network),
        ("HTTP/1.1 302 Found\r\nLocation: http://portal/\r\n\r\n".into(), ErrorClass::Network),
        ("HTTP/1.1 407 Proxy Authentication\r\n\r\n".into(), ErrorClass::Handshake),
        ("HTTP/1.1 503 Busy\r\n\r\n".into(), ErrorClass::ServerError),
        ("\u{15}\u{3}\u{1}\u{0}\u{2}\r\n\r\n".into(), ErrorClass::Network),
        (String::new(), ErrorClass::Network),
    ] {
        let mut stream = server.accept_raw().await;
        asked(&mut stream).await;
        stream.write_all(answer.as_bytes()).await.unwrap();
        drop(stream);
        assert_eq!(failed(&mut events).await, expected, "{answer}");
    }
    // A route that leads nowhere: neither an answer nor an end.
    let _stream = server.accept_raw().await;
    assert_eq!(failed(&mut events).await, ErrorClass::Timeout);
    server.greet().await;
    assert!(matches!(next(&mut events).await, Event::Connected(_)));
}

/// K07: a name that nobody knows.
#[tokio::test]
async fn a_name_that_nobody_knows_is_an_address_without_a_connection() {
    // A label of more than 63 characters: known to be none without asking anybody.
    let options = Options::new(format!("ws://{}:1", "x".repeat(70)));
    let unknown = Client::connect(options).await.unwrap_err();
    assert!(matches!(unknown, ConnectError::Unreachable { .. }), "{unknown:?}");
    assert!(unknown.is_temporary() && !unknown.is_refused());
}
