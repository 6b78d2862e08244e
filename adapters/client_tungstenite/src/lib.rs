//! The Rust client on tokio-tungstenite: connect, subscribe, publish, and recover after a loss.
//!
//! [`Client`] gives commands to one task over a bounded channel, and [`Events`] brings out what the
//! task has to tell over another. The task owns the socket, the clock and the random numbers; what it does is
//! decided by [`domain::client`]. It must never decide anything itself, never hand the same message over twice,
//! and never grow with what a server sends or an application does not read.
//!
//! * An application that does not read its events is not sent more: the socket is not read then.
//!   Read them in a task of their own, or drop [`Events`]; an answer behind unread events is not
//!   seen before they are read.
//! * Dropping the last [`Client`] closes the connection.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use client_tungstenite::{Client, Event, Options, PublishOptions, SubscribeOptions};
//! use domain::room::RoomId;
//!
//! let (client, mut events) = Client::connect(Options::default()).await?;
//! let room = RoomId::parse("public:lobby")?;
//! client.subscribe(&room, SubscribeOptions::default()).await?;
//! client.publish(&room, r#"{"text":"hello"}"#, PublishOptions::default()).await?;
//! while let Some(event) = events.next().await {
//!     if let Event::Message(message) = event {
//!         assert_eq!(message.data, r#"{"text":"hello"}"#);
//!         break;
//!     }
//! }
//! client.close().await;
//! # Ok(())
//! # }
//! ```

mod client;
mod error;
mod options;

mod dial;
mod link;
mod task;
mod tls;
mod tokens;

pub use client::{Client, Events, HistoryOptions};
pub use domain::client::{
    ErrorClass, PublishOptions, RequestError, SubscribeOptions, Token, TokenPlace,
};
pub use domain::protocol::client_event::{
    Ack, Event, Gap, Hello, HistoryPage, LogEntry, Member, Message, PresenceChange, PresenceState,
    Refusal, Sender, Status, Subscribed, Tombstone, Violation,
};
pub use error::ConnectError;
pub use options::{BackoffOptions, DEFAULT_URL, Options, RandomSource};
pub use tls::{Authorities, AuthoritiesError};
pub use tokens::TokenSource;

/// The snippets of the document for those who begin are compiled with the tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Snippets;

#[cfg(test)]
mod tests;
