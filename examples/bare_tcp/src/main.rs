//! A host that is not ours: bare TCP, tungstenite's framing, a clock and randomness of its own.
//!
//!     cargo run -p bare_tcp            # listens on 127.0.0.1:8000
//!     cargo run -p bare_tcp -- 127.0.0.1:0
//!
//! It must never depend on another gateway, on `worker_tokio` or on `websocket_codec`: what it shows is
//! that the core does not either. `docs/embedding.md` tells it step by step.

mod own;

use std::error::Error;
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use application::node::Node;
use application::services::{Ports, Rules};
use broker_memory::{MemoryBroker, MemoryRevocations};
use domain::policy::{Access, NamespacePolicy};
use gateway_tungstenite::{Config, Gateway};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use own::{HostClock, HostEntropy};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let listen = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8000".to_owned()).parse()?;
    // wiring: begin
    let (clock, entropy) = (Arc::new(HostClock::start()), Arc::new(HostEntropy));
    let broker = MemoryBroker::build(broker_memory::Config::default(), entropy.clone(), None);
    let revocations = Arc::new(MemoryRevocations::new(DAY));
    let ports = Ports::new(broker.clone(), revocations.clone(), clock.clone(), entropy);
    let mut rules = Rules { allow_anonymous: true, ..Rules::default() };
    rules.policies.set_namespace("public", open_to_anyone());
    let node = Node::build(ports, rules, 2);
    let gateway = Gateway::bind(listen, Config::default(), node)?;
    writeln!(std::io::stdout(), "listening on http://{}", gateway.local_addr()?)?;
    tokio::spawn(broker.run_sweeps(revocations, clock));
    let (stop, stopped) = watch::channel(false);
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::spawn(async move { terminate.recv().await.map(|()| stop.send(true)) });
    gateway.serve(stopped, Duration::from_secs(5)).await;
    // wiring: end
    Ok(())
}

/// Everybody may do everything in these rooms; no other namespace is there.
fn open_to_anyone() -> NamespacePolicy {
    let anyone = Access::Anyone;
    let closed = NamespacePolicy::default();
    NamespacePolicy {
        subscribe: anyone,
        publish: anyone,
        presence: anyone,
        history: anyone,
        ..closed
    }
}
