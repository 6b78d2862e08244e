//! Connections and rooms, and nothing of what games, chats or tokens need: connections are accepted, are
//! registered in rooms under their ids, send and receive, are limited, and go.
//!
//!     cargo run -p rooms_only            # listens on 127.0.0.1:8000
//!
//! It must never grow beyond sixty lines; who players are and what becomes of a message is in `business`.

mod business;

use std::error::Error;
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use application::built_in::{RateLimit, RateLimitConfig};
use application::node::Node;
use application::services::{Ports, Rules};
use broker_memory::{Config as Rooms, MemoryBroker, MemoryRevocations};
use gateway_tungstenite::{Config, Gateway};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use worker_tokio::{SystemClock, SystemEntropy};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let listen = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8000".to_owned()).parse()?;
    let limit = RateLimitConfig { enabled: true, requests_per_minute: 60, ..Default::default() };
    // wiring: begin
    let (clock, entropy) = (Arc::new(SystemClock::start()), Arc::new(SystemEntropy::default()));
    let broker = MemoryBroker::build(Rooms::default(), entropy.clone(), None);
    let revocations = Arc::new(MemoryRevocations::new(Duration::from_secs(60)));
    let mut ports = Ports::new(broker.clone(), revocations.clone(), clock.clone(), entropy);
    ports.token_verifier = Arc::new(business::Players);
    let mut rules = Rules { allow_anonymous: true, ..Rules::default() };
    rules.policies.set_namespace("room", business::open_to_anyone());
    rules.middleware.push(Arc::new(RateLimit::new(limit, clock.clone())));
    rules.handlers.register(Arc::new(business::Process))?;
    rules.handlers.register(Arc::new(business::Connections))?;
    let gateway = Gateway::bind(listen, Config::default(), Node::build(ports, rules, 2))?;
    writeln!(std::io::stdout(), "listening on http://{}", gateway.local_addr()?)?;
    tokio::spawn(broker.run_sweeps(revocations, clock));
    let (stop, stopped) = watch::channel(false);
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::spawn(async move { terminate.recv().await.map(|()| stop.send(true)) });
    gateway.serve(stopped, Duration::from_secs(5)).await;
    // wiring: end
    Ok(())
}
