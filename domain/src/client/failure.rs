//! Which of six kinds the end of a connection, or of an attempt at one, is, and how to say it.
//!
//! It must never decide whether to come back: that is the close code's alone
//! ([`should_reconnect`](crate::codes::should_reconnect)).

/// Which wait was too long.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Timeout {
    /// That for a connection with its `hello`.
    Connect,
    /// That for a sign of life.
    Heartbeat,
}

/// How a connection, or an attempt at one, ended.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Failure {
    /// The close code; 1006 where there was no close frame.
    pub code: u16,
    /// The close frame's reason, or what else was said.
    pub reason: String,
    /// Whether the socket had been open.
    pub opened: bool,
    /// Which wait was too long, if one was.
    pub timeout: Option<Timeout>,
}

/// The documented classes of failures.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ErrorClass {
    /// The socket never opened: no address, no route, nobody there, no TLS.
    Network,
    /// Refused: the client has to change something.
    Handshake,
    /// The server's fault, or its wish.
    ServerError,
    /// Lost without a word, or left.
    Abnormal,
    /// No connection, no `hello` or no sign of life in time.
    Timeout,
    /// Anything else.
    Unknown,
}

impl ErrorClass {
    /// Its word.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Network => "network",
            Self::Handshake => "handshake",
            Self::ServerError => "server_error",
            Self::Abnormal => "abnormal",
            Self::Timeout => "timeout",
            Self::Unknown => "unknown",
        }
    }
}

impl Failure {
    /// The class.
    #[must_use]
    pub fn class(&self) -> ErrorClass {
        if self.timeout.is_some() {
            return ErrorClass::Timeout;
        }
        if self.code == 1006 && !self.opened {
            return match refused_with(&self.reason) {
                Some(b'4') => ErrorClass::Handshake,
                Some(_) => ErrorClass::ServerError,
                None if says_timeout(&self.reason) => ErrorClass::Timeout,
                None => ErrorClass::Network,
            };
        }
        match self.code {
            1001 | 1006 => ErrorClass::Abnormal,
            1002 | 1003 | 1007..=1010 | 3004 | 3500..=3999 | 4400..=4499 => ErrorClass::Handshake,
            1015 => ErrorClass::Network,
            3002 => ErrorClass::Timeout,
            1011..=1014 | 3000..=3499 | 4500..=4599 => ErrorClass::ServerError,
            _ => ErrorClass::Unknown,
        }
    }

    /// The same in words, for people.
    #[must_use]
    pub fn words(&self) -> String {
        match self {
            Self { timeout: Some(Timeout::Connect), .. } => "network timeout".to_owned(),
            Self { timeout: Some(Timeout::Heartbeat), .. } => "heartbeat timeout".to_owned(),
            Self { code: 1006, reason, opened, .. } if reason.is_empty() => {
                let words = if *opened { "connection lost" } else { "no connection to the server" };
                words.to_owned()
            }
            Self { code: 1006, reason, .. } => reason.clone(),
            Self { code, reason, .. } if reason.is_empty() => format!("closed with {code}"),
            Self { code, reason, .. } => format!("closed with {code} {reason}"),
        }
    }
}

/// The first digit of the HTTP status, `4` or `5`, with which an upgrade was refused, if the words say
/// so: "response" or "status", and a number of three digits behind it.
fn refused_with(words: &str) -> Option<u8> {
    let words = words.to_ascii_lowercase();
    let behind = |word: &'static str| words.match_indices(word).map(move |(at, _)| at + word.len());
    let found = behind("response").chain(behind("status")).filter_map(|at| {
        let number = words[at..].trim_start_matches(|c: char| !c.is_ascii_digit()).as_bytes();
        let is_status = |digits: &[u8]| digits.iter().all(u8::is_ascii_digit);
        let ends = number.get(3).is_none_or(|b| !b.is_ascii_alphanumeric() && *b != b'_');
        let first = *number.first()?;
        (matches!(first, b'4' | b'5') && number.get(..3).is_some_and(is_status) && ends)
            .then_some(first)
    });
    found.take(1).next()
}

/// "timeout", "timed out", "ETIMEDOUT" and the like.
fn says_timeout(words: &str) -> bool {
    let words = words.to_ascii_lowercase();
    words.match_indices("time").any(|(at, time)| {
        words[at + time.len()..].trim_start_matches(['d', ' ']).starts_with("out")
    })
}
