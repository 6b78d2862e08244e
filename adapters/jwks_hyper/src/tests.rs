//! Against a server that misbehaves, one answer at a time.

use super::*;

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

/// A server that answers every connection with these bytes and, if it is to stay silent, does not
/// close. Gives its address and counts its connections.
async fn serving(answer: Vec<u8>, closes: bool) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/keys", listener.local_addr().unwrap());
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    tokio::spawn(async move {
        let mut open = Vec::new();
        loop {
            let (mut socket, _) = listener.accept().await.unwrap();
            counted.fetch_add(1, Ordering::Relaxed);
            let _ = socket.read(&mut [0; 4_096]).await;
            // Who asks may have gone.
            let _ = socket.write_all(&answer).await;
            if !closes {
                open.push(socket);
            }
        }
    });
    (url, count)
}

fn ok(body: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

async fn fetch_from(answer: Vec<u8>, closes: bool) -> Result<String, KeySourceError> {
    let (url, _) = serving(answer, closes).await;
    let source = HttpKeySource::build(&url).unwrap().with_timeout(Duration::from_millis(300));
    source.fetch().await
}

#[tokio::test]
async fn a_text_is_fetched_as_it_is() {
    assert_eq!(fetch_from(ok(r#"{"keys":[]}"#), true).await.unwrap(), r#"{"keys":[]}"#);
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n";
    assert_eq!(fetch_from(chunked.into(), true).await.unwrap(), "ab");
}

/// A22.
#[tokio::test]
async fn an_answer_that_is_too_large_is_refused_whether_it_says_so_or_not() {
    let too_large = Err(KeySourceError::TooLarge { bytes_max: JWKS_BYTES_MAX });
    assert_eq!(fetch_from(ok(&"x".repeat(JWKS_BYTES_MAX + 1)), true).await, too_large);
    let mut endless = b"HTTP/1.1 200 OK\r\n\r\n".to_vec();
    endless.resize(2 * JWKS_BYTES_MAX, b'x');
    assert_eq!(fetch_from(endless, false).await, too_large);
    let most = "x".repeat(JWKS_BYTES_MAX);
    assert_eq!(fetch_from(ok(&most), true).await.map(|text| text.len()), Ok(JWKS_BYTES_MAX));
}

/// A22.
#[tokio::test]
async fn nobody_is_followed_elsewhere_and_an_error_is_an_error() {
    let (elsewhere, followed) = serving(ok("{}"), true).await;
    for target in [&*elsewhere, "file:///etc/passwd", "/other", "gopher://x"] {
        let redirect =
            format!("HTTP/1.1 302 Found\r\nLocation: {target}\r\nContent-Length: 0\r\n\r\n");
        assert_eq!(fetch_from(redirect.into(), true).await, Err(KeySourceError::Status(302)));
    }
    assert_eq!(followed.load(Ordering::Relaxed), 0);
    let away = b"HTTP/1.1 503 Away\r\nContent-Length: 0\r\n\r\n".to_vec();
    assert_eq!(fetch_from(away, true).await, Err(KeySourceError::Status(503)));
}

/// A22.
#[tokio::test]
async fn silence_a_slow_body_rubbish_and_nobody_at_all_are_told_apart_in_time() {
    assert_eq!(fetch_from(Vec::new(), false).await, Err(KeySourceError::Timeout));
    let slow = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc".to_vec();
    assert_eq!(fetch_from(slow.clone(), false).await, Err(KeySourceError::Timeout));
    for broken in [slow, b"rubbish\r\n\r\n".to_vec(), Vec::new()] {
        let error = fetch_from(broken, true).await.unwrap_err();
        assert!(matches!(error, KeySourceError::Unreachable(_)), "{error:?}");
    }
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    drop(listener);
    let error = HttpKeySource::build(&url).unwrap().fetch().await.unwrap_err();
    assert!(matches!(error, KeySourceError::Unreachable(_)), "{error:?}");
    let mut bytes = b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n".to_vec();
    bytes.push(0xff);
    assert_eq!(fetch_from(bytes, true).await, Err(KeySourceError::NotText));
}

#[test]
fn keys_come_by_https_or_from_this_machine_and_from_nowhere_else() {
    for good in [
        "https://issuer.example/jwks",
        "https://issuer.example:8443/jwks?x=1",
        "http://localhost:8080/jwks",
        "http://127.0.0.1/jwks",
        "http://[::1]:9/jwks",
    ] {
        assert!(check_url(good).is_ok(), "{good}");
    }
    for scheme in [
        "http://issuer.example/jwks",
        "http://10.0.0.1/jwks",
        "http://127.0.0.1.example/jwks",
        "http://localhost.example/jwks",
        "ftp://issuer.example/jwks",
    ] {
        assert!(matches!(check_url(scheme), Err(BuildError::Scheme)), "{scheme}");
    }
    for address in ["", "/jwks", "issuer.example/jwks", "file:///etc/passwd", "https:///x"] {
        assert!(check_url(address).is_err(), "{address}");
    }
    assert!(check_url("https://user:word@issuer.example/").is_err());
}
