//! An axum application of somebody's own, with guilds and logins, that takes Roomkeeper in: its routes
//! stand beside the application's, and a message type, a middleware and the rights are the application's.
//!
//!     cargo run -p axum_app            # listens on 127.0.0.1:8000
//!     cargo run -p axum_app -- 127.0.0.1:0
//!
//! Nothing here may be needed from Roomkeeper's own binary. `docs/embedding.md` tells it step by step.

mod extensions;
mod guilds;

use std::error::Error;
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use application::node::Node;
use application::services::{Ports, Rules};
use axum::Router;
use broker_memory::{MemoryBroker, MemoryRevocations};
use domain::policy::NamespacePolicy;
use gateway_axum::{Config, Mount};
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::signal::unix::{SignalKind, signal};
use worker_tokio::{BoundedAuthorizer, SystemClock, SystemEntropy, Worker};

use extensions::{CalmDown, Dice, MembersOnly};
use guilds::Guilds;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let listen = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8000".to_owned());
    let guilds = Arc::new(Guilds::default());
    let app = Router::new().merge(guilds::routes(&guilds));
    let listener = TcpListener::bind(listen).await?;
    writeln!(std::io::stdout(), "listening on http://{}", listener.local_addr()?)?;
    // wiring: begin
    let (clock, entropy) = (Arc::new(SystemClock::start()), Arc::new(SystemEntropy::default()));
    let broker = MemoryBroker::build(broker_memory::Config::default(), entropy.clone(), None);
    let revocations = Arc::new(MemoryRevocations::new(DAY));
    let mut ports = Ports::new(broker.clone(), revocations.clone(), clock.clone(), entropy);
    ports.token_verifier = guilds.clone();
    let authorizer = Arc::new(MembersOnly(guilds));
    ports.authorizer = Some(Arc::new(BoundedAuthorizer::new(authorizer, Handle::current())));
    let mut rules = Rules::default();
    rules.policies.set_namespace("guild", NamespacePolicy::default());
    rules.middleware.push(Arc::new(CalmDown));
    rules.handlers.register(Arc::new(Dice))?;
    let node = Node::build(ports, rules, 2);
    let workers = Worker::start_all(&node, &clock, &worker_tokio::Config::default())?;
    let mount = Mount::build(Config::default(), node, workers);
    tokio::spawn(broker.run_sweeps(revocations, clock));
    let mut terminate = signal(SignalKind::terminate())?;
    let serving = axum::serve(listener, app.merge(mount.router()));
    let stop = async move { terminate.recv().await.map(|()| mount) };
    serving.with_graceful_shutdown(drained(stop)).await?;
    // wiring: end
    Ok(())
}

/// Ends when the connections have been told to come back later, so that those who ask meanwhile are
/// still answered.
async fn drained(stop: impl Future<Output = Option<Mount>>) {
    if let Some(mount) = stop.await {
        mount.drain(Duration::from_secs(5)).await;
    }
}
