//! `roomkeeper serve` with another host: the same settings, the same adapters, `gateway_tungstenite`
//! instead of `gateway_axum` and its workers.
//!
//! So the suites that start the binary can start this one. What the binary has around it (reload,
//! the service manager, metrics, the server API) is not here: it is not the core's.

use std::error::Error;
use std::io::Write;
use std::net::{SocketAddr, ToSocketAddrs};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use bootstrap::cli::{Cli, Command};
use bootstrap::serve::build;
use bootstrap::serve::rooms::Rooms;
use bootstrap::serve::storage::Storage;
use bootstrap::settings::secrets::token_secret;
use bootstrap::settings::{Settings, environment_of_process, load};
use bootstrap::{descriptors, log};
use clap::Parser;
use gateway_tungstenite::{Config, Gateway};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use worker_tokio::SystemClock;

fn main() -> ExitCode {
    match serve() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "bare_tcp_host: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve() -> Result<(), Box<dyn Error>> {
    let cli = Cli::parse();
    let given = cli.settings.given(environment_of_process());
    if !matches!(cli.into_command(), Command::Serve) {
        return Err("this host only serves".into());
    }
    let settings = load(&given)?.settings;
    if settings.server.tls.files().is_some() || !settings.server.trusted_proxies.is_empty() {
        return Err("this host speaks no TLS and believes no proxy".into());
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    // As `roomkeeper serve` logs, so that its log can be searched for what must not be there.
    let _filter = log::init(&settings.log, false, None)?;
    let ended = runtime.block_on(run(&settings));
    log::finish();
    ended
}

async fn run(settings: &Settings) -> Result<(), Box<dyn Error>> {
    let descriptors = descriptors::raise();
    let secret = token_secret(settings)?;
    let clock = Arc::new(SystemClock::start());
    let storage = Storage::open(settings).await?;
    let (memory, budgets) = build::memory(settings);
    let rooms = Rooms::build(settings, &budgets, storage.archive(), storage.lives())?;
    let running = rooms.run();
    let remembered = rooms.share(storage.remembered(settings).await?);
    let (ports, lasting) = build::ports(settings, &secret, &rooms, &clock, remembered)?;
    let revocations = Arc::clone(&ports.revocations);
    drop(rooms.run_sweeps(revocations, Arc::clone(&clock) as _));
    if let Some(keys) = lasting.remote_keys {
        tokio::spawn(async move { keys.run().await });
    }
    let node = build::node(settings, ports, &budgets);
    rooms.obey(&node);
    if let Some(limit) = memory {
        bootstrap::serve::memory::spawn_watch(limit, &node);
    }
    let worker = build::worker(settings, &budgets);
    let server = &settings.server;
    let config = Config {
        handshake_timeout: Duration::from_millis(server.handshake_timeout_ms),
        connections_max: descriptors.connections_that_fit(server.connections_max) as usize,
        origins: build::origins(settings),
        close_timeout: worker.close_timeout,
        message_timeout: worker.message_timeout,
        lag_max: worker.lag_max,
        outbound_total_bytes_max: worker.outbound_total_bytes_max,
        pings: worker.pings,
    };
    let gateway = Gateway::bind(resolve(&server.listen)?, config, node)?;
    let mut terminate = signal(SignalKind::terminate())?;
    let (stop, stopped) = watch::channel(false);
    tokio::spawn(async move {
        terminate.recv().await;
        tracing::info!("stopping: connections are told when to come back");
        let _ = stop.send(true);
        // As with the binary, a second one ends it at once.
        terminate.recv().await;
        log::finish();
        std::process::exit(1);
    });
    writeln!(std::io::stdout(), "listening on http://{}", gateway.local_addr()?)?;
    gateway.serve(stopped, Duration::from_millis(server.drain_window_ms)).await;
    rooms.finish(running).await;
    storage.close().await;
    Ok(())
}

fn resolve(listen: &str) -> Result<SocketAddr, Box<dyn Error>> {
    Ok(listen.to_socket_addrs()?.next().ok_or("the host has no address")?)
}
