//! The pure model of Roomkeeper: names, rooms, positions, recovery, presence, limits, and the wire
//! protocol that carries them.
//!
//! It must never do I/O, read a clock, draw a random number, spawn, log or know any technology:
//! `now` and randomness are arguments, so that a simulator can host it and a seed can replay it.
//!
//! Suggested reading order: [`id`], [`time`], [`steady`], [`room`], [`policy`], [`principal`], [`decision`],
//! [`scope`], [`revocation`], [`position`], [`tags`], [`filter`], [`message`], [`recovery`], [`membership`],
//! [`presence`], [`stalls`], [`connection`], [`drain`], [`rate_limit`],
//! [`delivery`], [`seats`], [`retention`], [`moderation`], [`mod@matches`], [`codes`], [`protocol`], [`client`].

pub mod client;
pub mod codes;
pub mod connection;
pub mod decision;
pub mod delivery;
pub mod documents;
pub mod drain;
pub mod filter;
pub mod id;
pub mod matches;
pub mod membership;
pub mod message;
pub mod moderation;
pub mod policy;
pub mod position;
pub mod presence;
pub mod principal;
pub mod protocol;
pub mod rate_limit;
pub mod recovery;
pub mod retention;
pub mod revocation;
pub mod room;
pub mod scope;
pub mod seats;
pub mod stalls;
pub mod steady;
pub mod tags;
pub mod time;
pub mod trace;
