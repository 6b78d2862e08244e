//! What a start shows: where to go, what is in use, and a line to paste.
//!
//! It goes to standard error. No secret may be on it, and nothing may read it but people; tools
//! read [`listening_line`] from standard output.

use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::cli::URL_DEFAULT;
use crate::commands::version::VERSION;
use crate::descriptors::Descriptors;
use crate::settings::Settings;
use crate::settings::secrets::TokenSecret;
use crate::settings::tickets::{TicketSecrets, lifetime};

/// What a start knows.
#[derive(Clone, Debug)]
pub struct StartScreen<'a> {
    /// The settings.
    pub settings: &'a Settings,
    /// Where the server listens, with the port that was picked.
    pub address: SocketAddr,
    /// Where the server API and the metrics are served, if that is elsewhere.
    pub internal: Option<SocketAddr>,
    /// The broker's name, like `memory`.
    pub broker: &'a str,
    /// Where the archive is; none keeps messages in memory only.
    pub archive: Option<String>,
    /// The secret that signs tokens; only how it came about is shown.
    pub token_secret: &'a TokenSecret,
    /// The secrets that sign session tickets; only how they came about is shown.
    pub ticket_secrets: &'a TicketSecrets,
    /// How many files may be open.
    pub descriptors: Descriptors,
}

/// The only line on standard output.
#[must_use]
pub fn listening_line(address: SocketAddr, has_tls: bool) -> String {
    format!("listening on http{}://{address}", if has_tls { "s" } else { "" })
}

impl StartScreen<'_> {
    /// The text, with a line break at its end.
    #[must_use]
    pub fn render(&self) -> String {
        let at = reachable(self.address);
        let has_tls = self.settings.server.tls.files().is_some();
        let s = if has_tls { "s" } else { "" };
        let url = format!("ws{s}://{at}/ws/v2/connect");
        let mut text = String::new();
        // Writing to a String cannot fail.
        let mut line = |name: &str, value: &str| {
            let _ = writeln!(text, "  {name:<12}{value}");
        };
        line("profile", self.settings.profile.word());
        line("WebSocket", &url);
        line("HTTP", &format!("http{s}://{at}/"));
        line("health", &format!("http{s}://{at}/healthz"));
        if let Some((certificate, _)) = self.settings.server.tls.files() {
            let oldest = &self.settings.server.tls.min_version;
            line("TLS", &format!("{oldest} or newer, with {}", certificate.display()));
        }
        if let Some(internal) = self.internal {
            line("internal", &format!("http://{}/", reachable(internal)));
        }
        line("broker", self.broker);
        line(
            "archive",
            self.archive.as_deref().unwrap_or("none (messages are kept in memory only)"),
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
        line("tickets", &self.tickets());
        line("open files", &self.descriptors.soft.map_or("no limit".to_owned(), |n| n.to_string()));
        format!("\nRoomkeeper {VERSION}\n\n{text}\n{}\n", try_it(&url))
    }

    fn tickets(&self) -> String {
        if lifetime(self.settings).is_zero() {
            return "none are given out".to_owned();
        }
        match self.ticket_secrets {
            TicketSecrets::Configured(_) => "signed with auth.ticket_secret".to_owned(),
            TicketSecrets::Kept(_, path) => format!("signed with the secret in {}", path.display()),
            TicketSecrets::OfThisProcess(_, why) => format!("end with this process: {why}"),
        }
    }

    fn tokens(&self) -> String {
        let auth = &self.settings.auth;
        let others = match (&auth.keys_file, &auth.jwks_url) {
            (Some(_), Some(url)) => Some(format!("auth.keys_file and the keys at {url}")),
            (Some(_), None) => Some("auth.keys_file".to_owned()),
            (None, Some(url)) => Some(format!("the keys at {url}")),
            (None, None) => None,
        };
        let signed = match self.token_secret {
            TokenSecret::Configured(_) => "signed with auth.hmac_secret".to_owned(),
            TokenSecret::Kept(_, path) => format!("signed with the secret in {}", path.display()),
            TokenSecret::OfThisProcess(_, why) => {
                format!("none can be made: no secret is configured, and {why}")
            }
            TokenSecret::None if others.is_some() => {
                return format!("verified with {}", others.unwrap_or_default());
            }
            TokenSecret::None => "none are accepted: no key is configured".to_owned(),
        };
        match others {
            Some(others) => format!("{signed}, or verified with {others}"),
            None => signed,
        }
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
        let kept = TicketSecrets::Kept("most-private".into(), "data/ticket-secret".into());
        screen_with_tickets(address, secret, &kept, 1)
    }

    fn screen_with_tickets(
        address: &str,
        secret: &TokenSecret,
        ticket_secrets: &TicketSecrets,
        lifetime_ms: u64,
    ) -> String {
        let mut settings = load(&Given::default()).unwrap().settings;
        settings.auth.ticket_lifetime_ms = lifetime_ms;
        StartScreen {
            settings: &settings,
            address: address.parse().unwrap(),
            internal: None,
            broker: "memory",
            archive: Some("sqlite, data/archive.sqlite3".to_owned()),
            token_secret: secret,
            ticket_secrets,
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
    fn where_the_secret_of_tickets_is_kept_is_said_and_the_secret_is_not() {
        let shown = |secrets: &TicketSecrets, lifetime_ms| {
            let text =
                screen_with_tickets("127.0.0.1:8000", &TokenSecret::None, secrets, lifetime_ms);
            assert!(!text.contains("most-private"), "{text}");
            let line = text.lines().find_map(|line| line.strip_prefix("  tickets"));
            line.unwrap().trim_start().to_owned()
        };
        let secret = || SecretString::from("most-private");
        let kept = TicketSecrets::Kept(secret(), "data/ticket-secret".into());
        assert_eq!(shown(&kept, 1), "signed with the secret in data/ticket-secret");
        assert_eq!(shown(&kept, 0), "none are given out");
        let configured = TicketSecrets::Configured(vec![secret()]);
        assert_eq!(shown(&configured, 1), "signed with auth.ticket_secret");
        let lost = TicketSecrets::OfThisProcess(secret(), "there is no data directory".to_owned());
        assert_eq!(shown(&lost, 1), "end with this process: there is no data directory");
    }

    #[test]
    fn the_line_for_tools_never_changes() {
        let address = "127.0.0.1:8123".parse().unwrap();
        assert_eq!(listening_line(address, false), "listening on http://127.0.0.1:8123");
        assert_eq!(listening_line(address, true), "listening on https://127.0.0.1:8123");
    }
}
