//! From a URL to an open WebSocket.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::time::Duration;

use domain::client::Token;
use domain::id::ClientId;
use domain::protocol::client_event::span;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, lookup_host};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::handshake::client::Request;
use tokio_tungstenite::tungstenite::http::header::{
    AUTHORIZATION, HeaderValue, RETRY_AFTER, SEC_WEBSOCKET_EXTENSIONS,
};
use tokio_tungstenite::tungstenite::http::{HeaderMap, Uri};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::{client_async_with_config, tungstenite};

use crate::error::ConnectError;
use crate::link::Link;
use crate::options::Options;
use crate::tls::{is_distrust, shake_hands};

/// The path of the protocol, for URLs without one.
const PATH: &str = "/ws/v2/connect";

/// A stream of bytes to a server.
pub(crate) trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Wire for T {}

pub(crate) type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Opens streams of bytes; tests bring their own.
pub(crate) trait Dial: Send + Sync {
    fn dial(&self, host: &str, port: u16) -> BoxFuture<io::Result<Box<dyn Wire>>>;
}

/// Over TCP.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tcp;

impl Dial for Tcp {
    fn dial(&self, host: &str, port: u16) -> BoxFuture<io::Result<Box<dyn Wire>>> {
        let host = host.to_owned();
        Box::pin(async move {
            let addresses = lookup_host((host.as_str(), port)).await?;
            let stream = first_of(in_turns(addresses.collect())).await?;
            // A command is one write and must not wait for the next.
            stream.set_nodelay(true)?;
            Ok(Box::new(stream) as Box<dyn Wire>)
        })
    }
}

/// How long an address is waited for before the next is tried beside it (RFC 8305, 5).
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);
/// How many addresses of one name are tried.
const ADDRESSES_MAX: usize = 16;

/// Addresses of both families in turns, beginning with the first (RFC 8305, 4).
fn in_turns(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let is_first = addresses.first().map(SocketAddr::is_ipv6);
    let (first, second): (Vec<_>, Vec<_>) =
        addresses.into_iter().partition(|address| Some(address.is_ipv6()) == is_first);
    let (mut first, mut second) = (first.into_iter(), second.into_iter());
    let pairs = std::iter::from_fn(|| {
        let pair = [first.next(), second.next()];
        pair.iter().any(Option::is_some).then_some(pair)
    });
    pairs.flatten().flatten().take(ADDRESSES_MAX).collect()
}

/// A stream to whichever answers first. One that leads nowhere does not keep the next from being tried.
async fn first_of(addresses: Vec<SocketAddr>) -> io::Result<TcpStream> {
    let mut left = addresses.into_iter();
    // Dropped, they are all given up.
    let mut attempts = JoinSet::new();
    let mut why = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    loop {
        let next = left.next();
        let is_last = next.is_none();
        if let Some(address) = next {
            attempts.spawn(TcpStream::connect(address));
        }
        let ended = if is_last {
            attempts.join_next().await
        } else {
            timeout(ATTEMPT_DELAY, attempts.join_next()).await.unwrap_or_default()
        };
        match ended {
            Some(Ok(Ok(stream))) => return Ok(stream),
            Some(Ok(Err(error))) => why = error,
            Some(Err(error)) => why = io::Error::other(error),
            None if is_last => return Err(why),
            None => {}
        }
    }
}

/// Where to connect to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Target {
    uri: Uri,
    host: String,
    port: u16,
    has_tls: bool,
}

impl Target {
    pub(crate) fn parse(url: &str, client_id: Option<&ClientId>) -> Result<Self, ConnectError> {
        let bad = |why| ConnectError::BadUrl { why };
        let uri: Uri = url.parse().map_err(|_| bad("is none, like ws://127.0.0.1:8000"))?;
        let has_tls = match uri.scheme_str() {
            Some("ws") => false,
            Some("wss") => true,
            _ => return Err(bad("must begin with ws:// or wss://")),
        };
        let authority = uri.authority().ok_or_else(|| bad("names no host"))?;
        if authority.as_str().contains('@') {
            return Err(bad("must not hold a user or password"));
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let port = uri.port_u16().unwrap_or(if has_tls { 443 } else { 80 });
        let query = uri.query().unwrap_or_default();
        if query.split('&').any(|pair| pair.starts_with("token=")) {
            return Err(ConnectError::TokenInUrl);
        }
        let path = Some(uri.path()).filter(|path| !matches!(*path, "" | "/")).unwrap_or(PATH);
        // The alphabet of client ids needs no escapes.
        let label = client_id.map(|id| format!("client_id={}", id.as_str()));
        let pairs = Some(query.to_owned()).filter(|query| !query.is_empty());
        let query = pairs.into_iter().chain(label).collect::<Vec<_>>().join("&");
        let separator = if query.is_empty() { "" } else { "?" };
        let scheme = if has_tls { "wss" } else { "ws" };
        let full = format!("{scheme}://{authority}{path}{separator}{query}");
        let uri = full.parse().map_err(|_| bad("is none, like ws://127.0.0.1:8000"))?;
        Ok(Self { uri, host, port, has_tls })
    }

    fn request(&self, token: Option<&Token>) -> Result<Request, ConnectError> {
        let mut request = self
            .uri
            .clone()
            .into_client_request()
            .map_err(|error| ConnectError::Handshake(Box::new(error)))?;
        if let Some(token) = token {
            let mut value = HeaderValue::from_str(&format!("Bearer {}", token.as_str()))
                .map_err(|_| ConnectError::BadToken)?;
            value.set_sensitive(true);
            request.headers_mut().insert(AUTHORIZATION, value);
        }
        Ok(request)
    }
}

/// Connects and upgrades.
pub(crate) fn open(
    dial: &dyn Dial,
    target: &Target,
    token: Option<&Token>,
    options: &Options,
) -> BoxFuture<Result<Box<Link>, ConnectError>> {
    let request = target.request(token);
    let stream = dial.dial(&target.host, target.port);
    let address = format!("{}:{}", target.host, target.port);
    let config = config(options);
    let tls = target.has_tls.then(|| (target.host.clone(), options.authorities.clone()));
    Box::pin(async move {
        let request = request?;
        let stream =
            stream.await.map_err(|source| ConnectError::Unreachable { address, source })?;
        let stream = match tls {
            None => stream,
            Some((host, authorities)) => {
                let shaken = shake_hands(stream, &host, authorities).await;
                shaken.map_err(|source| {
                    if is_distrust(&source) {
                        ConnectError::NotTrusted(source)
                    } else {
                        ConnectError::Tls(source)
                    }
                })?
            }
        };
        let (socket, answer) =
            client_async_with_config(request, stream, Some(config)).await.map_err(refused)?;
        // Nobody offered one (RFC 6455, 4.1): what follows would be read wrongly.
        if answer.headers().contains_key(SEC_WEBSOCKET_EXTENSIONS) {
            return Err(ConnectError::UnknownExtension);
        }
        Ok(Box::new(Link::new(socket)))
    })
}

fn config(options: &Options) -> WebSocketConfig {
    let buffer = options.buffer_bytes.max(1024);
    WebSocketConfig::default()
        .read_buffer_size(buffer)
        .write_buffer_size(buffer)
        // The outbox bounds what a single frame can hold.
        .max_write_buffer_size(buffer.saturating_add(options.outbox_bytes_max).saturating_add(1024))
        .max_message_size(Some(options.message_bytes_max))
        .max_frame_size(Some(options.message_bytes_max))
}

fn refused(error: tungstenite::Error) -> ConnectError {
    match error {
        tungstenite::Error::Http(response) => ConnectError::Http {
            status: response.status().as_u16(),
            retry_after: retry_after(response.headers()),
        },
        other => ConnectError::Handshake(Box::new(other)),
    }
}

/// `Retry-After` in seconds; as a date it isn't used by our servers.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds: u64 = headers.get(RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
    Some(span(seconds.saturating_mul(1000)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uri(url: &str) -> String {
        Target::parse(url, None).unwrap().uri.to_string()
    }

    #[test]
    fn a_url_without_a_path_means_the_protocols_own() {
        assert_eq!(uri("ws://localhost:8000"), "ws://localhost:8000/ws/v2/connect");
        assert_eq!(uri("ws://localhost:8000/"), "ws://localhost:8000/ws/v2/connect");
        assert_eq!(uri("ws://[::1]:1/behind/a/proxy?x=1"), "ws://[::1]:1/behind/a/proxy?x=1");
    }

    #[test]
    fn the_label_stands_in_the_query_and_a_token_must_not() {
        let label = ClientId::parse("tab-1").unwrap();
        let target = Target::parse("ws://h/p?x=1", Some(&label)).unwrap();
        assert_eq!(target.uri.to_string(), "ws://h/p?x=1&client_id=tab-1");
        assert_eq!((target.host.as_str(), target.port), ("h", 80));
        let refused = Target::parse("ws://h/p?x=1&token=abc", None).unwrap_err();
        assert!(matches!(refused, ConnectError::TokenInUrl));
        assert!(!refused.to_string().contains("abc"));
    }

    #[test]
    fn with_tls_the_port_is_another_and_the_scheme_stays() {
        let target = Target::parse("wss://h", None).unwrap();
        assert_eq!((target.port, target.has_tls), (443, true));
        assert_eq!(target.uri.to_string(), "wss://h/ws/v2/connect");
    }

    #[test]
    fn a_url_of_another_kind_is_refused_with_what_to_write_instead() {
        let why = |url: &str| Target::parse(url, None).unwrap_err().to_string();
        assert!(why("https://h").contains("must begin with ws:// or wss://"));
        assert!(why("http://h").contains("must begin with ws://"));
        assert!(why("localhost:8000").contains("ws://"));
        assert!(why("").contains("ws://"));
        assert!(why("ws://a:secret@h/").contains("must not hold a user"));
    }

    #[test]
    fn a_token_that_would_end_the_header_is_refused() {
        let target = Target::parse("ws://h", None).unwrap();
        let token = Token::new("a\r\nX-Evil: 1");
        assert!(matches!(target.request(Some(&token)), Err(ConnectError::BadToken)));
        let request = target.request(Some(&Token::new("abc"))).unwrap();
        assert_eq!(request.headers().get(AUTHORIZATION).unwrap(), "Bearer abc");
        assert!(!format!("{request:?}").contains("abc"));
    }

    #[test]
    fn addresses_of_both_families_take_turns_beginning_with_the_first() {
        let parse = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
        let given: Vec<SocketAddr> = parse(&["[::1]:1", "[::2]:1", "[::3]:1", "10.0.0.1:1"]);
        let wanted: Vec<SocketAddr> = parse(&["[::1]:1", "10.0.0.1:1", "[::2]:1", "[::3]:1"]);
        assert_eq!(in_turns(given), wanted);
        let many = (0..40).map(|port| SocketAddr::from(([127, 0, 0, 1], port))).collect();
        assert_eq!(in_turns(many).len(), ADDRESSES_MAX);
    }

    /// A listener whose queue is full: what connects to it hears nothing, as in a network that swallows packets.
    async fn swallows() -> (tokio::net::TcpListener, Vec<TcpStream>, SocketAddr) {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = socket.listen(1).unwrap();
        let address = listener.local_addr().unwrap();
        let mut waiting = Vec::new();
        while let Ok(stream) =
            timeout(Duration::from_millis(100), TcpStream::connect(address)).await
        {
            waiting.push(stream.unwrap());
        }
        (listener, waiting, address)
    }

    /// K07.
    #[tokio::test]
    async fn an_address_that_leads_nowhere_does_not_keep_the_next_from_being_tried() {
        let (_listener, _waiting, nowhere) = swallows().await;
        let somewhere = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = somewhere.local_addr().unwrap();
        let connecting = first_of(vec![nowhere, address]);
        let stream = timeout(Duration::from_secs(60), connecting).await.unwrap().unwrap();
        assert_eq!(stream.peer_addr().unwrap(), address);
    }

    #[tokio::test]
    async fn where_nobody_listens_at_any_address_the_last_says_why() {
        let refused = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = refused.local_addr().unwrap();
        drop(refused);
        let error = first_of(vec![address, address]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        assert_eq!(first_of(Vec::new()).await.unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
