//! Which web pages may open a connection: an exact match of the `Origin` header (RFC 6454).
//!
//! Never a substring, never a wildcard inside a name. A missing header means that no browser
//! sent the request; what a page can't forge, a program can, so this protects users, not rooms.

use thiserror::Error;

/// Why a text is not an origin.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[error("an origin is scheme://host or scheme://host:port in ASCII, without a path")]
pub struct OriginError;

/// A web origin: scheme, host and port, as browsers send it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Origin {
    scheme: String,
    host: String,
    port: u16,
}

impl Origin {
    /// Reads `scheme://host[:port]`. Scheme and host are compared without regard to case; a
    /// missing port is the scheme's own.
    ///
    /// # Errors
    /// [`OriginError`] for anything else: `null`, a path, user information, a trailing dot, or
    /// characters outside ASCII (browsers send the `xn--` form).
    pub fn parse(text: &str) -> Result<Self, OriginError> {
        let (scheme, rest) = text.split_once("://").ok_or(OriginError)?;
        let scheme = scheme.to_ascii_lowercase();
        let known_port = match scheme.as_str() {
            "http" => 80,
            "https" => 443,
            _ => return Err(OriginError),
        };
        let (host, port) = split_port(rest)?;
        let port = match port {
            None => known_port,
            Some(digits) => parse_port(digits)?,
        };
        if !is_host(host) {
            return Err(OriginError);
        }
        Ok(Self { scheme, host: host.to_ascii_lowercase(), port })
    }

    fn is_loopback(&self) -> bool {
        let host = self.host.as_str();
        let is_v4 = host.parse::<core::net::Ipv4Addr>().is_ok_and(|ip| ip.is_loopback());
        host == "localhost" || host.ends_with(".localhost") || host == "[::1]" || is_v4
    }
}

fn split_port(rest: &str) -> Result<(&str, Option<&str>), OriginError> {
    if rest.starts_with('[') {
        let end = rest.find(']').ok_or(OriginError)? + 1;
        let (host, port) = rest.split_at(end);
        return match port.strip_prefix(':') {
            Some(port) => Ok((host, Some(port))),
            None if port.is_empty() => Ok((host, None)),
            None => Err(OriginError),
        };
    }
    Ok(rest.split_once(':').map_or((rest, None), |(host, port)| (host, Some(port))))
}

fn parse_port(digits: &str) -> Result<u16, OriginError> {
    let canonical = digits.bytes().all(|b| b.is_ascii_digit()) && !digits.starts_with('0');
    if !canonical {
        return Err(OriginError);
    }
    digits.parse().map_err(|_| OriginError)
}

fn is_host(host: &str) -> bool {
    if let Some(address) = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return address.parse::<core::net::Ipv6Addr>().is_ok();
    }
    !host.is_empty()
        && host.len() <= 253
        && host.split('.').all(|label| {
            !label.is_empty()
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        })
}

/// What is allowed.
#[derive(Clone, Debug, Default)]
pub struct OriginPolicy {
    /// Exactly these.
    pub allowed: Vec<Origin>,
    /// Any origin at all; never in production.
    pub any: bool,
    /// Any page on this machine, whatever its port: for development.
    pub any_loopback: bool,
    /// Whether a request without the header is refused.
    pub required: bool,
}

impl OriginPolicy {
    /// Whether a request with this `Origin` header may go on. `null` (sandboxed pages, files) is
    /// never allowed.
    #[must_use]
    pub fn allows(&self, header: Option<&str>) -> bool {
        let Some(text) = header else { return !self.required };
        let Ok(origin) = Origin::parse(text) else { return false };
        self.any || (self.any_loopback && origin.is_loopback()) || self.allowed.contains(&origin)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy() -> OriginPolicy {
        OriginPolicy {
            allowed: vec![Origin::parse("https://app.example.com").unwrap()],
            ..OriginPolicy::default()
        }
    }

    /// A02, A03, A04.
    #[test]
    fn only_the_exact_origin_passes() {
        for good in
            ["https://app.example.com", "https://APP.example.com", "https://app.example.com:443"]
        {
            assert!(policy().allows(Some(good)), "{good}");
        }
        for bad in [
            "https://app.example.com.evil.io",
            "https://evilapp.example.com",
            "http://app.example.com",
            "https://app.example.com:8443",
            "https://app.example.com.",
            "https://u@app.example.com",
            "https://app.example.com/",
            "null",
            "",
            "https://",
            "file:///etc",
            "*",
            "https://аpp.example.com",
            "https://xn--pp-8cd.example.com",
            "https://app.example.com:0443",
            "https://app.example.com:+443",
            "https://app.example.com https://evil.io",
        ] {
            assert!(!policy().allows(Some(bad)), "{bad}");
        }
    }

    #[test]
    fn a_missing_header_is_no_browser_and_passes_unless_it_is_required() {
        assert!(policy().allows(None));
        assert!(!OriginPolicy { required: true, ..policy() }.allows(None));
    }

    #[test]
    fn development_takes_any_page_of_this_machine_and_no_other() {
        let policy = OriginPolicy { any_loopback: true, ..OriginPolicy::default() };
        for good in [
            "http://localhost:5173",
            "http://127.0.0.1:3000",
            "http://[::1]:8080",
            "http://app.localhost",
        ] {
            assert!(policy.allows(Some(good)), "{good}");
        }
        for bad in
            ["http://localhost.evil.io", "http://127.0.0.1.evil.io", "http://10.0.0.1", "null"]
        {
            assert!(!policy.allows(Some(bad)), "{bad}");
        }
        assert!(!OriginPolicy { any: true, ..OriginPolicy::default() }.allows(Some("null")));
    }
}
