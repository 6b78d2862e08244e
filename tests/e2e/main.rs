//! The product from outside: the built binary on a free port, and clients that know only the
//! protocol. One module per story.
//!
//! Nothing here may reach into the server; what can't be seen from outside is tested elsewhere.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a failed step of a test stops the test, with words"
)]

mod alerts;
mod authorization;
mod authorization_documents;
mod bench;
mod client;
mod command_line;
mod document_000;
mod document_000_matches;
mod document_001;
mod document_001_history;
mod document_003;
mod document_004;
mod document_examples;
mod document_malformed;
mod drain;
mod evening;
mod explain;
mod false_system;
mod first_message;
mod full_disk;
mod heartbeat;
mod http;
mod http_publish;
mod kill;
mod loops;
mod matches;
mod memory;
mod moderation;
mod monitoring;
mod nginx;
mod no_descriptors;
mod observe;
mod once;
mod openapi;
mod overload;
mod paced;
mod packaging;
mod presence;
mod protocol_files;
mod proxies;
mod published_keys;
mod publishing;
mod readme;
mod recovery;
mod reload;
mod restartable;
mod resume;
mod resume_storm;
mod revocation;
mod rust_storm;
mod selective;
mod server_api;
mod service_manager;
mod speaker;
mod start;
mod storm;
mod surroundings;
mod three_nodes;
mod tls;
mod tls_handshake;
mod tokens;
