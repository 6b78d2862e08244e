//! The Rust client on tokio-tungstenite: connect, subscribe, publish, and recover after a loss.
//!
//! [`Client`] gives commands to one task over a bounded channel, and [`Events`] brings out what the
//! task has to tell over another. The task owns the socket; what it decides is decided in
//! `machine`, which reads no socket and no clock. It must never hand the same message over twice,
//! never hide that one is missing, and never grow with what a server sends or an application does
//! not read.
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
mod event;
mod options;

mod backoff;
mod dial;
mod link;
mod machine;
mod task;
mod tls;

pub use client::{Client, Events, HistoryOptions, PublishOptions, SubscribeOptions};
pub use error::{ConnectError, Refusal, RequestError};
pub use event::{
    Ack, Event, Gap, Hello, HistoryPage, LogEntry, Member, Message, PresenceChange, PresenceState,
    Sender, Status, Subscribed, Tombstone, Violation,
};
pub use options::{BackoffOptions, DEFAULT_URL, Options, RandomSource, Token, TokenPlace};
pub use tls::{Authorities, AuthoritiesError};

#[cfg(test)]
mod tests;
