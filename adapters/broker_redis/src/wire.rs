//! What calls to one server go over: a connection, or what a test has in its place.
//!
//! Nothing here may look at what is asked.

use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::{Cmd, Pipeline, RedisFuture, Value};

/// See the module's text.
#[derive(Clone)]
pub(crate) enum Wire {
    /// A connection.
    Server(MultiplexedConnection),
    /// A model of a server.
    #[cfg(feature = "testing")]
    Model(std::sync::Arc<dyn crate::testing::Model>),
}

impl Wire {
    /// The connection, where it is one.
    pub(crate) fn server(&self) -> Option<MultiplexedConnection> {
        match self {
            Self::Server(connection) => Some(connection.clone()),
            #[cfg(feature = "testing")]
            Self::Model(_) => None,
        }
    }
}

impl ConnectionLike for Wire {
    fn req_packed_command<'a>(&'a mut self, command: &'a Cmd) -> RedisFuture<'a, Value> {
        match self {
            Self::Server(connection) => connection.req_packed_command(command),
            #[cfg(feature = "testing")]
            Self::Model(model) => crate::testing::ask_one(model, command),
        }
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        pipeline: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        match self {
            Self::Server(connection) => connection.req_packed_commands(pipeline, offset, count),
            #[cfg(feature = "testing")]
            Self::Model(model) => crate::testing::ask_all(model, pipeline),
        }
    }

    fn get_db(&self) -> i64 {
        match self {
            Self::Server(connection) => connection.get_db(),
            #[cfg(feature = "testing")]
            Self::Model(_) => 0,
        }
    }
}
