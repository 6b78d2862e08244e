//! The endpoints of the documents that clients were written against: what they say and what is said to
//! them, where that differs from protocol v2.
//!
//! Pure, like the protocol: texts in, commands out; frames in, bytes out. Wire names are those of the
//! documents, exactly. Nothing here may decide what a connection may do.
//!
//! Reading order: [`place`] (rooms in the words of the documents), [`said`] (a publication), [`told`] (all
//! else that the server says), [`fields`] and the commands of each endpoint ([`chat`], [`game`],
//! [`lobby`]). [`client`] has no rooms and stands for itself.

pub mod chat;
pub mod client;
pub mod fields;
pub mod game;
pub mod lobby;
pub mod place;
pub mod said;
pub mod told;
