//! The client against a server that says what each test wants, over a pipe in memory, so that time
//! can be virtual; and once over a real socket.

mod autobahn;
mod cancellation;
mod handshakes;
mod hostile;
mod patterns;
mod real_socket;
mod recovery;
mod reentrant;
mod requests;
mod resume;
mod storm;
mod support;
mod tokens;
mod turns;
