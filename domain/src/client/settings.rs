//! What a client can be told about itself that its decisions need.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::client::life::LifeConfig;
use crate::protocol::TokenText;

/// Settings of one client.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Who the client is; none asks to stay anonymous.
    pub token: Option<Token>,
    /// Whether whoever drives the client can bring tokens when they are asked for.
    pub brings_tokens: bool,
    /// How the token is shown to the server.
    pub token_in: TokenPlace,
    /// How long a join that the client makes by itself waits for its answer.
    pub request_timeout: Duration,
    /// How many publishes wait for their acknowledgement.
    pub outbox_max: usize,
    /// How many bytes they may have together.
    pub outbox_bytes_max: usize,
    /// How connections live.
    pub life: LifeConfig,
}

/// Which part of the handshake carries the token.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum TokenPlace {
    /// The `Authorization` header of the upgrade; one round trip less. Each reconnect shows it again,
    /// so not for a token that counts once.
    #[default]
    Header,
    /// The `connect` frame, for ways on which headers get lost or logged, and for tokens that count
    /// once: the ticket beside it comes first.
    ConnectFrame,
}

/// A bearer token. Its `Debug` hides it.
#[derive(Clone, Eq, PartialEq)]
pub struct Token(Arc<str>);

impl Token {
    /// Takes any text; only the server knows whether it is a valid token.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self(Arc::from(text))
    }

    /// The token itself.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub(super) fn text(&self) -> TokenText<'_> {
        TokenText::new(self.as_str().into())
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}
