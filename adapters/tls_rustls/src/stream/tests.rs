//! The handshake over loopback, and what is said to who does not shake hands.

use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;
use crate::testing::Files;

async fn sockets() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let theirs = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    (listener.accept().await.unwrap().0, theirs)
}

/// The client's side, driven by a thread: the rustls client over a blocking socket.
fn client(
    files: &Files,
    theirs: TcpStream,
) -> std::thread::JoinHandle<(Vec<u8>, rustls::HandshakeKind)> {
    use std::io::{Read, Write};
    let client = files.client(&[&rustls::version::TLS13], &["http/1.1"]);
    let theirs = theirs.into_std().unwrap();
    theirs.set_nonblocking(false).unwrap();
    std::thread::spawn(move || {
        let mut stream = rustls::StreamOwned::new(client, theirs);
        stream.write_all(b"ping").unwrap();
        stream.flush().unwrap();
        let mut got = Vec::new();
        // Ends without an error only where the end is said.
        stream.read_to_end(&mut got).unwrap();
        (got, stream.conn.handshake_kind().unwrap())
    })
}

#[tokio::test]
async fn hands_are_shaken_bytes_cross_and_the_end_is_said() {
    let files = Files::new();
    let (ours, theirs) = sockets().await;
    let client = client(&files, theirs);
    let mut stream = Stream::accept(ours, files.acceptor().session().unwrap()).await.unwrap();
    let mut got = [0; 4];
    stream.read_exact(&mut got).await.unwrap();
    assert_eq!(&got, b"ping");
    let long = vec![7; 300_000];
    stream.write_all(&long).await.unwrap();
    stream.shutdown().await.unwrap();
    let (got, kind) = client.join().unwrap();
    assert_eq!(got, long);
    assert_eq!(kind, rustls::HandshakeKind::Full);
}

#[tokio::test]
async fn a_stream_that_was_taken_apart_goes_on_with_what_was_read() {
    let files = Files::new();
    let (ours, theirs) = sockets().await;
    let client = client(&files, theirs);
    let mut stream = Stream::accept(ours, files.acceptor().session().unwrap()).await.unwrap();
    stream.readable().await.unwrap();
    let mut first = [0; 1];
    stream.read_exact(&mut first).await.unwrap();
    let (socket, session, early) = stream.into_parts();
    assert_eq!((&first, &*early), (b"p", &b"ing"[..]));
    let mut stream = Stream::new(socket, session);
    stream.write_all(b"pong").await.unwrap();
    stream.shutdown().await.unwrap();
    assert_eq!(client.join().unwrap().0, b"pong");
}

#[tokio::test]
async fn plain_http_is_told_from_tls_by_its_first_byte_and_nothing_of_it_is_read() {
    let files = Files::new();
    let (ours, mut theirs) = sockets().await;
    theirs.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let refused = Stream::accept(ours, files.acceptor().session().unwrap()).await.unwrap_err();
    let HandshakeError::PlainHttp(mut ours) = refused else { panic!("{refused:?}") };
    let mut got = [0; 3];
    ours.read_exact(&mut got).await.unwrap();
    assert_eq!(&got, b"GET");
}

#[tokio::test]
async fn rubbish_gets_an_alert_and_silence_ends_without_one() {
    let files = Files::new();
    let acceptor = Arc::new(files.acceptor());
    let (ours, mut theirs) = sockets().await;
    theirs.write_all(&[0; 64]).await.unwrap();
    let refused = Stream::accept(ours, acceptor.session().unwrap()).await.unwrap_err();
    assert!(matches!(refused, HandshakeError::Tls(_)), "{refused:?}");
    let mut said = Vec::new();
    // The kernel may cut the line behind the alert.
    let _ = theirs.read_to_end(&mut said).await;
    assert_eq!(said.first(), Some(&0x15));
    let (ours, theirs) = sockets().await;
    drop(theirs);
    let refused = Stream::accept(ours, acceptor.session().unwrap()).await.unwrap_err();
    assert!(matches!(refused, HandshakeError::Ended), "{refused:?}");
}
