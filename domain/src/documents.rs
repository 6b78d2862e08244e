//! The endpoints of the documents that clients were written against: what they say and what is said to
//! them, where that differs from protocol v2.
//!
//! Pure, like the protocol: texts in, commands out; frames in, bytes out. Wire names are those of the
//! documents, exactly. Nothing here may decide what a connection may do.

pub mod client;
