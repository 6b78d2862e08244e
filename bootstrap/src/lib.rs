//! Everything around the node: settings, command line, log, start screen.
//!
//! Nothing here serves a connection, and only `main.rs` may end the process.
//!
//! Suggested reading order: [`cli`], [`exit`], [`settings`], [`log`], [`start_screen`],
//! [`descriptors`], [`memory`], [`sd_notify`], [`serve`], [`commands`].

pub mod arenas;
pub mod cli;
pub mod commands;
pub mod descriptors;
pub mod exit;
pub mod log;
pub mod memory;
pub mod sd_notify;
pub mod serve;
pub mod settings;
pub mod start_screen;
