//! What a start shows: where to go, what is in use, and a line to paste.
//!
//! It goes to standard error. No secret may be on it, and nothing may read it but people; tools
//! read [`listening_line`] from standard output.

use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

use crate::cli::URL_DEFAULT;
use crate::commands::version::VERSION;
use crate::descriptors::Descriptors;
use crate::settings::Settings;
use crate::settings::secrets::TokenSecret;

/// What a start knows.
#[derive(Clone, Copy, Debug)]
pub struct StartScreen<'a> {
    /// The settings.
    pub settings: &'a Settings,
    /// Where the server listens, with the port that was picked.
    pub address: SocketAddr,
    /// Where the server API and the metrics are served, if that is elsewhere.
    pub internal: Option<SocketAddr>,
    /// The broker's name, like `memory`.
    pub broker: &'a str,
    /// The archive's file; none keeps messages in memory only.
    pub archive: Option<&'a Path>,
    /// The secret that signs tokens; only how it came about is shown.
    pub token_secret: &'a TokenSecret,
    /// How many files may be open.
    pub descriptors: Descriptors,
}

/// The only line on standard output.
#[must_use]
pub fn listening_line(address: SocketAddr) -> String {
    format!("listening on http://{address}")
}

impl StartScreen<'_> {
    /// The text, with a line break at its end.
    #[must_use]
    pub fn render(&self) -> String {
        let at = reachable(self.address);
        let url = format!("ws://{at}/ws/v2/connect");
        let mut text = String::new();
        // Writing to a String cannot fail.
        let mut line = |name: &str, value: &str| {
            let _ = writeln!(text, "  {name:<12}{value}");
        };
        line("profile", self.settings.profile.word());
        line("WebSocket", &url);
        line("HTTP", &format!("http://{at}/"));
        line("health", &format!("http://{at}/healthz"));
        if let Some(internal) = self.internal {
            line("internal", &format!("http://{}/", reachable(internal)));
        }
        line("broker", self.broker);
        line(
            "archive",
            &self.archive.map_or_else(
                || "none (messages are kept in memory only)".to_owned(),
                |path| format!("sqlite, {}", path.display()),
            ),
        );
        line(
            "data",
            &self
                .settings
                .server
                .data_dir
                .as_ref()
                .map_or_else(|| "nothing on disk".to_owned(), |dir| dir.display().to_string()),
        );
        line("tokens", &self.tokens());
        line("open files", &self.descriptors.soft.map_or("no limit".to_owned(), |n| n.to_string()));
        format!("\nRoomkeeper {VERSION}\n\n{text}\n{}\n", try_it(&url))
    }

    fn tokens(&self) -> String {
        let keys = self.settings.auth.keys_file.is_some();
        let signed = match self.token_secret {
            TokenSecret::Configured(_) => "signed with auth.hmac_secret".to_owned(),
            TokenSecret::Kept(_, path) => format!("signed with the secret in {}", path.display()),
            TokenSecret::OfThisProcess(_, why) => {
                format!("none can be made: no secret is configured, and {why}")
            }
            TokenSecret::None if keys => return "verified with auth.keys_file".to_owned(),
            TokenSecret::None => "none are accepted: no key is configured".to_owned(),
        };
        if keys { format!("{signed}, or verified with auth.keys_file") } else { signed }
    }
}

/// An address that a client on this machine can use.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

fn try_it(url: &str) -> String {
    let flag = if url == URL_DEFAULT { String::new() } else { format!(" --url {url}") };
    let command = r#"{"type":"subscribe","id":1,"room":"public:lobby"}"#;
    format!(
        "Try it: in one terminal\n\n  roomkeeper subscribe public:lobby{flag}\n\n\
         and in another\n\n  roomkeeper publish public:lobby '\"hello\"'{flag}\n\n\
         Or with websocat:\n\n  echo '{command}' | websocat -n {url}\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{Given, load};
    use secrecy::SecretString;

    fn screen(address: &str, secret: &TokenSecret) -> String {
        let settings = load(&Given::default()).unwrap().settings;
        StartScreen {
            settings: &settings,
            address: address.parse().unwrap(),
            internal: None,
            broker: "memory",
            archive: Some(Path::new("data/archive.sqlite3")),
            token_secret: secret,
            descriptors: Descriptors { soft: Some(1_024), hard: None },
        }
        .render()
    }

    #[test]
    fn the_lines_to_paste_reach_the_server() {
        let at_default = screen("127.0.0.1:8000", &TokenSecret::None);
        assert!(at_default.contains("  roomkeeper subscribe public:lobby\n"), "{at_default}");
        let elsewhere = screen("0.0.0.0:9000", &TokenSecret::None);
        let url = "ws://127.0.0.1:9000/ws/v2/connect";
        assert!(elsewhere.contains(&format!("public:lobby --url {url}\n")), "{elsewhere}");
        assert!(screen("[::]:9000", &TokenSecret::None).contains("ws://[::1]:9000/"));
    }

    #[test]
    fn what_is_in_use_is_named_and_no_secret_is_shown() {
        let secret = TokenSecret::Configured(SecretString::from("very-private"));
        let text = screen("127.0.0.1:8000", &secret);
        for part in [VERSION, "development", "memory", "data/archive.sqlite3", "./data", "1024"] {
            assert!(text.contains(part), "{part} is missing in {text}");
        }
        assert!(!text.contains("very-private"));
    }

    #[test]
    fn the_line_for_tools_never_changes() {
        let address = "127.0.0.1:8123".parse().unwrap();
        assert_eq!(listening_line(address), "listening on http://127.0.0.1:8123");
    }
}
