//! Which server is meant: `ws://host:port/path`, resolved once.
//!
//! It must never resolve a name while something is measured.

use std::net::{SocketAddr, ToSocketAddrs};

use thiserror::Error;

/// Where the protocol's endpoint is, when an address names no path.
pub const PATH_DEFAULT: &str = "/ws/v2/connect";
const URL_BYTES_MAX: usize = 2048;
const PORT_DEFAULT: u16 = 80;

/// One server.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Target {
    pub(crate) addr: SocketAddr,
    /// As the `Host` header has it.
    pub(crate) host: String,
    /// Path and query.
    pub(crate) path: String,
}

/// Why an address can't be used.
#[derive(Debug, Error)]
pub enum AddressError {
    /// It is not of the form that is needed.
    #[error("write it as ws://host:port, with a path only where it is not {PATH_DEFAULT}")]
    Form,
    /// Encrypted connections are not driven.
    #[error(
        "wss:// is not driven here: connect to where the server itself listens without TLS, \
         behind the proxy"
    )]
    Encrypted,
    /// The name leads nowhere.
    #[error("the name can't be resolved")]
    Resolve(#[source] std::io::Error),
    /// The name has no address.
    #[error("the name has no address")]
    NoAddress,
}

impl Target {
    /// Reads and resolves an address.
    ///
    /// # Errors
    /// [`AddressError`] says what is wrong with it.
    pub fn resolve(url: &str) -> Result<Self, AddressError> {
        let (host, path) = parts(url)?;
        let found = if has_port(host) {
            host.to_socket_addrs()
        } else {
            (host.trim_matches(['[', ']']), PORT_DEFAULT).to_socket_addrs()
        };
        let addr = found.map_err(AddressError::Resolve)?.next().ok_or(AddressError::NoAddress)?;
        Ok(Self { addr, host: host.to_owned(), path: path.to_owned() })
    }

    /// Whether this is the protocol's endpoint; any other sends back what it gets.
    #[must_use]
    pub fn is_protocol(&self) -> bool {
        self.path.split('?').next() == Some(PATH_DEFAULT)
    }

    /// Where it is.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }
}

/// Host and path.
fn parts(url: &str) -> Result<(&str, &str), AddressError> {
    let plain = url.len() <= URL_BYTES_MAX && url.bytes().all(|byte| byte.is_ascii_graphic());
    if url.starts_with("wss://") || url.starts_with("https://") {
        return Err(AddressError::Encrypted);
    }
    let rest = url.strip_prefix("ws://").or_else(|| url.strip_prefix("http://"));
    let rest = rest.filter(|_| plain && !url.contains('#')).ok_or(AddressError::Form)?;
    let (host, path) = match rest.find(['/', '?']) {
        Some(at) => rest.split_at(at),
        None => (rest, ""),
    };
    if host.is_empty() || host.contains('@') || path.starts_with('?') {
        return Err(AddressError::Form);
    }
    Ok((host, if path.is_empty() || path == "/" { PATH_DEFAULT } else { path }))
}

fn has_port(host: &str) -> bool {
    host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_without_a_path_means_the_protocols_endpoint() {
        for url in [
            "ws://127.0.0.1:8000",
            "http://127.0.0.1:8000/",
            "ws://127.0.0.1:8000/ws/v2/connect?x=1",
        ] {
            let target = Target::resolve(url).unwrap();
            assert!(target.is_protocol(), "{url}");
            assert_eq!(target.addr(), "127.0.0.1:8000".parse().unwrap());
        }
        let echo = Target::resolve("ws://[::1]:8000/ws/bench").unwrap();
        assert!(!echo.is_protocol() && echo.addr() == "[::1]:8000".parse().unwrap());
        assert_eq!(Target::resolve("ws://[::1]").unwrap().addr(), "[::1]:80".parse().unwrap());
    }

    #[test]
    fn what_is_no_address_is_refused_with_what_to_write() {
        for url in ["", "ws://", "127.0.0.1:8000", "ws://a b", "ws://u@h", "ws://h?x", "ws://h/#x"]
        {
            let error = Target::resolve(url).unwrap_err().to_string();
            assert!(error.contains("ws://host:port"), "{url}: {error}");
        }
        assert!(matches!(Target::resolve("wss://h"), Err(AddressError::Encrypted)));
    }
}
