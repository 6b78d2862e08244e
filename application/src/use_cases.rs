//! The use cases that wait for a port: each a value that owns its data, with one public method,
//! `execute`. What needs no waiting is done by the shard at once.
//!
//! A use case must never borrow a shard or send anything itself: it answers, and the shard acts.

pub mod ask_peers;
pub mod authenticate;
pub mod authorize;
pub mod broadcast_message;
pub mod change_match;
pub mod check_bearer;
pub mod create_match;
pub mod end_connections;
pub mod end_match;
pub mod find_match;
pub mod handle_game_message;
pub mod handle_message;
pub mod join_room;
pub mod keep_letter;
pub mod leave_room;
pub mod list_connections;
pub mod list_matches;
pub mod list_presence;
pub mod list_rooms;
pub mod moderate;
pub mod publish_message;
pub mod read_history;
pub mod recover_room;
pub mod refresh_token;
pub mod resume_rooms;
pub mod revalidate;
pub mod start_match;
pub mod update_presence;
pub mod watch_rooms;

#[cfg(test)]
mod tests;
