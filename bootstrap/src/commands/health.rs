//! `roomkeeper health`: asks a running server over HTTP, or HTTPS, whether it is ready, for a
//! container's health check.
//!
//! It needs no runtime and follows no redirect: any answer but 200 is a no.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, ToSocketAddrs};
use std::path::Path;
use std::time::{Duration, Instant};

use thiserror::Error;

use super::health_tls;
use crate::log::text::escape;
use crate::settings::Server;

/// What is asked when the address has no path.
const PATH_DEFAULT: &str = "/readyz";
/// The most bytes of an answer that are read.
const ANSWER_BYTES_MAX: usize = 4_096;

/// Why the server is not known to be well.
#[derive(Debug, Error)]
pub enum HealthError {
    /// The address can't be asked.
    #[error("is no address that can be asked: write it like http://127.0.0.1:8000/readyz")]
    Url,
    /// Nobody knows which certificate is the server's.
    #[error("can't be trusted: https:// needs server.tls.cert_file, to know the server by")]
    Unknown,
    /// No connection, or no answer in time.
    #[error("does not answer")]
    Io(#[from] io::Error),
    /// What came is no HTTP.
    #[error("answers something that is not HTTP")]
    NotHttp,
    /// Another answer than 200.
    #[error("answers {status}: {text}")]
    NotWell {
        /// The answer's status.
        status: u16,
        /// Its first line.
        text: String,
    },
}

/// Where the server of these settings can be asked from the same machine.
#[must_use]
pub fn url_of(server: &Server) -> String {
    let scheme = if server.tls.files().is_some() { "https" } else { "http" };
    let listen = &server.listen;
    let Ok(address) = listen.parse::<SocketAddr>() else {
        return format!("{scheme}://{listen}{PATH_DEFAULT}");
    };
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    format!("{scheme}://{}{PATH_DEFAULT}", SocketAddr::new(ip, address.port()))
}

/// Asks and answers what the server said when it is well, within `timeout` altogether but for the
/// time that the system's resolver takes. Over HTTPS the server must show the certificate of this
/// file.
///
/// # Errors
/// [`HealthError`] says why it can't be called well.
pub fn ask(
    url: &str,
    timeout: Duration,
    certificate: Option<&Path>,
) -> Result<String, HealthError> {
    let begun = Instant::now();
    let left = || {
        let left = timeout.saturating_sub(begun.elapsed());
        let late = || io::Error::new(io::ErrorKind::TimedOut, "no answer in time");
        if left.is_zero() { Err(late()) } else { Ok(left) }
    };
    let (authority, path, has_tls) = parts(url).ok_or(HealthError::Url)?;
    let socket = connect(authority, if has_tls { 443 } else { 80 }, &left)?;
    // A duplicate sets the deadlines of a socket that TLS holds.
    let deadlines = socket.try_clone()?;
    let mut stream: Box<dyn Stream> = match (has_tls, certificate) {
        (false, _) => Box::new(socket),
        (true, Some(certificate)) => Box::new(health_tls::over(socket, certificate)?),
        (true, None) => return Err(HealthError::Unknown),
    };
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {authority}\r\nUser-Agent: roomkeeper-health\r\n\
         Connection: close\r\n\r\n"
    );
    deadlines.set_write_timeout(Some(left()?))?;
    // In a handshake writing reads as well.
    deadlines.set_read_timeout(Some(left()?))?;
    stream.write_all(request.as_bytes())?;
    stream.flush()?;
    let mut answer = Vec::new();
    let mut chunk = [0; 1_024];
    while answer.len() < ANSWER_BYTES_MAX {
        deadlines.set_read_timeout(Some(left()?))?;
        match stream.read(&mut chunk) {
            Ok(0) => break,
            Ok(n_bytes) => answer.extend_from_slice(&chunk[..n_bytes]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                left()?;
            }
            Err(error) => return Err(error.into()),
        }
    }
    judge(&String::from_utf8_lossy(&answer))
}

/// Both directions, with TLS or without.
trait Stream: Read + Write {}

impl<T: Read + Write> Stream for T {}

fn parts(url: &str) -> Option<(&str, &str, bool)> {
    let (rest, has_tls) = match url.strip_prefix("https://") {
        Some(rest) => (rest, true),
        None => (url.strip_prefix("http://")?, false),
    };
    let (authority, path) = match rest.find('/') {
        Some(at) => (&rest[..at], &rest[at..]),
        None => (rest, PATH_DEFAULT),
    };
    let is_plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic());
    (!authority.is_empty() && !authority.contains('@') && is_plain(authority) && is_plain(path))
        .then_some((authority, path, has_tls))
}

fn connect(
    authority: &str,
    port_default: u16,
    left: &dyn Fn() -> io::Result<Duration>,
) -> Result<TcpStream, HealthError> {
    let has_port = authority.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    let with_port =
        if has_port { authority.to_owned() } else { format!("{authority}:{port_default}") };
    let mut last = None;
    for address in with_port.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, left()?) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = Some(error),
        }
    }
    Err(last.map_or(HealthError::Url, HealthError::Io))
}

fn judge(answer: &str) -> Result<String, HealthError> {
    let status = answer
        .strip_prefix("HTTP/1.")
        .and_then(|rest| rest.get(2..5))
        .and_then(|status| status.parse::<u16>().ok())
        .ok_or(HealthError::NotHttp)?;
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    let text = escape(body.lines().next().unwrap_or_default());
    if status == 200 { Ok(text) } else { Err(HealthError::NotWell { status, text }) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{Given, load};
    use std::net::TcpListener;

    /// Answers one connection with `answer` and keeps it open when `hold`.
    fn server(answer: &'static str, hold: bool) -> (String, std::thread::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let thread = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut asked = [0; 512];
            let n_bytes = stream.read(&mut asked).unwrap();
            stream.write_all(answer.as_bytes()).unwrap();
            if hold {
                // Until the other side gives up.
                let _ = stream.read(&mut [0]);
            }
            String::from_utf8_lossy(&asked[..n_bytes]).into_owned()
        });
        (url, thread)
    }

    const SOON: Duration = Duration::from_secs(10);

    #[test]
    fn only_a_200_is_well_and_the_path_is_readyz_unless_another_is_named() {
        let (url, asked) = server("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok\n", false);
        assert_eq!(ask(&url, SOON, None).unwrap(), "ok");
        assert!(asked.join().unwrap().starts_with("GET /readyz HTTP/1.1\r\nHost: 127.0.0.1:"));
        let (url, asked) = server("HTTP/1.1 503 No\r\n\r\nstopping\u{1b}[31m\n", false);
        let error = ask(&format!("{url}/healthz"), SOON, None).unwrap_err().to_string();
        assert!(error.starts_with("answers 503: stopping"), "{error}");
        assert!(!error.contains('\u{1b}'), "{error}");
        assert!(asked.join().unwrap().starts_with("GET /healthz "));
        let (url, _) = server("SSH-2.0-x\r\n", false);
        assert!(matches!(ask(&url, SOON, None), Err(HealthError::NotHttp)));
    }

    #[test]
    fn who_does_not_answer_is_not_waited_for() {
        let (url, _) = server("HTTP/1.1 200 OK\r\n", true);
        let begun = Instant::now();
        assert!(matches!(ask(&url, Duration::from_millis(50), None), Err(HealthError::Io(_))));
        assert!(begun.elapsed() < SOON);
        let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        assert!(matches!(ask(&format!("http://{gone}"), SOON, None), Err(HealthError::Io(_))));
    }

    #[test]
    fn an_address_that_cannot_be_asked_is_refused() {
        for url in [
            "",
            "ftp://a",
            "http://",
            "https://",
            "http://a b/",
            "http://u:p@a/",
            "http://a/\r\nX:",
        ] {
            assert!(matches!(ask(url, SOON, None), Err(HealthError::Url)), "{url}");
        }
    }

    #[test]
    fn a_server_that_listens_everywhere_is_asked_on_this_machine_and_over_tls_where_it_speaks_it() {
        let url = |listen: &str, has_tls: bool| {
            let mut server = load(&Given::default()).unwrap().settings.server;
            server.listen = listen.to_owned();
            server.tls.cert_file = has_tls.then(|| "cert.pem".into());
            server.tls.key_file = has_tls.then(|| "key.pem".into());
            url_of(&server)
        };
        assert_eq!(url("0.0.0.0:8000", false), "http://127.0.0.1:8000/readyz");
        assert_eq!(url("[::]:1", true), "https://[::1]:1/readyz");
        assert_eq!(url("10.0.0.1:1", false), "http://10.0.0.1:1/readyz");
        assert_eq!(url("localhost:1", true), "https://localhost:1/readyz");
    }

    #[test]
    fn a_server_whose_certificate_nobody_knows_is_not_asked() {
        let (url, _) = server("HTTP/1.1 200 OK\r\n\r\n", false);
        let url = url.replace("http://", "https://");
        assert!(matches!(ask(&url, SOON, None), Err(HealthError::Unknown)));
    }
}
