//! The client against the vectors that hold every client, against a server that keeps losing it, and against
//! one that means harm. Nothing here may take time but that which it says passes.

mod hostile;
mod requests;
mod server;
mod sessions;
mod storm;
mod support;
mod vectors;
