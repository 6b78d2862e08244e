//! `roomkeeper serve`: chooses adapters by the settings, puts the node together, runs it until it
//! is told to stop.
//!
//! Nothing but choosing and calling: what a part does is its own crate's.

pub mod build;
mod certificates;
pub mod memory;
mod reload;
pub mod rooms;
mod signals;
pub mod storage;
mod telemetry;
mod timing;
mod traces;

use std::io::{self, Write};
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use application::node::Node;
use application::ports::{Archive, Clock, Inbox, Matches, Moderation, Succession};
use domain::drain::DrainMode;
use domain::time::Wall;
use gateway_axum::{BindError, Gateway};
use thiserror::Error;
use tokio::runtime::Runtime;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use worker_tokio::{SystemClock, Worker};

use self::certificates::Certificates;
use self::reload::Reloader;
use self::rooms::Rooms;
use self::signals::Signals;
use self::storage::{Remembered, Storage};
use self::telemetry::{SharedExposition, Telemetry};
use self::traces::Traces;
use crate::arenas;
use crate::descriptors::Descriptors;
use crate::exit::Exit;
use crate::log::LogFilter;
use crate::sd_notify::{ManagerNames, ServiceManager};
use crate::settings::secrets::{TokenSecret, token_secret};
use crate::settings::tickets::ticket_secrets;
use crate::settings::tokens::{Lasting, SeenKeys, chain, verifier_config};
use crate::settings::{Given, Loaded, Settings};
use crate::start_screen::{StartScreen, listening_line};
use crate::{descriptors, log};

/// Between two looks for matches that ended long ago.
const MATCHES_INTERVAL: Duration = Duration::from_secs(5);

/// Why the server does not run.
#[derive(Debug, Error)]
pub enum ServeError {
    /// The address can't be listened on.
    #[error("server.listen = {listen}: {reason}")]
    Listen {
        /// What was asked for.
        listen: String,
        /// Why not, and what to do.
        reason: String,
        /// How to exit.
        exit: Exit,
    },
    /// Something that the server needs can't be had.
    #[error("{0}")]
    Part(String, Exit),
}

impl ServeError {
    /// How the process ends.
    #[must_use]
    pub const fn exit(&self) -> Exit {
        match self {
            Self::Listen { exit, .. } | Self::Part(_, exit) => *exit,
        }
    }
}

fn part(error: &dyn std::error::Error, exit: Exit) -> ServeError {
    ServeError::Part(chain(error), exit)
}

/// Runs the server until a signal ends it. `given` is what `loaded` was read from, to read it again
/// at a reload.
///
/// # Errors
/// [`ServeError`] when it can't start.
pub fn execute(loaded: &Loaded, given: &Given) -> Result<(), ServeError> {
    arenas::limit(build::n_workers(&loaded.settings));
    // HTTP, the API and signals; connections live on the workers' own threads.
    let runtime = runtime().map_err(|e| part(&e, Exit::Io))?;
    let traces = Traces::start(&loaded.settings.traces, runtime.handle())?;
    let log_filter = log::init(&loaded.settings.log, log::takes_colour(), traces.layer())
        .map_err(|error| ServeError::Part(error, Exit::Settings))?;
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    let ended = runtime.block_on(run(loaded, given, log_filter));
    traces.finish();
    log::finish();
    ended
}

/// Threads for what would make others wait: a scrape, a reload, a name that is looked up.
const BLOCKING_THREADS_MAX: usize = 16;
/// Longer than any server runs.
const EVER: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);

/// One such thread is there from the start and stays: where the system gives no further one, what
/// needs it waits for its turn, and does not panic.
fn runtime() -> io::Result<Runtime> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS_MAX)
        .thread_keep_alive(EVER)
        .build()?;
    drop(runtime.spawn_blocking(|| {}));
    Ok(runtime)
}

async fn run(loaded: &Loaded, given: &Given, log_filter: LogFilter) -> Result<(), ServeError> {
    let settings = &loaded.settings;
    let descriptors = raise_descriptors(settings);
    let manager = open_manager()?;
    let address = resolve(&settings.server.listen)?;
    let secret = token_secret(settings).map_err(|e| part(&e, Exit::of_io(&e)))?;
    let clock = Arc::new(SystemClock::start());
    let storage = Storage::open(settings).await?;
    let telemetry = Telemetry::default();
    let (memory, budgets) = build::memory(settings);
    let archive = telemetry.watch(storage.archive());
    let rooms = Rooms::build(settings, &budgets, archive, storage.lives())?;
    let running = rooms.try_out(settings).await?.run();
    let remembered = rooms.share(storage.remembered(settings).await?);
    let mut helpers = forget_in_time(settings, &rooms, &remembered, &clock);
    let (ports, lasting) = build::ports(settings, &secret, &rooms, &clock, remembered)?;
    helpers.extend(fetch_keys(&lasting));
    let node = build::node(settings, ports, &budgets);
    rooms.obey(&node);
    let workers = start_workers(&node, &clock, &build::worker(settings, &budgets))?;
    helpers.extend(memory.map(|limit| memory::spawn_watch(limit, &node)));
    let certificates = build::certificates(settings)?;
    helpers.extend(certificates.clone().map(|watched| tokio::spawn(watched.watch())));
    let exposition = telemetry.exposition(&node, &rooms, &storage, &lasting, &budgets);
    let config = gateway_config(settings, descriptors, exposition, certificates.as_ref())?;
    let config = gateway_axum::Config { backend: rooms.probe(), store: storage.probe(), ..config };
    let gateway = Gateway::bind(address, config, node, workers)
        .map_err(|error| not_listening(&settings.server.listen, &error))?;
    let address = gateway.local_addr().map_err(|e| part(&e, Exit::Io))?;
    let tickets = ticket_secrets(settings).map_err(|e| part(&e, Exit::of_io(&e)))?;
    let screen = StartScreen {
        settings,
        address,
        internal: gateway.internal_addr().map_err(|e| part(&e, Exit::Io))?,
        broker: rooms.name(),
        archive: storage.place(),
        token_secret: &secret,
        ticket_secrets: &tickets,
        descriptors,
    };
    // Whoever reads the next line may signal at once.
    let signals = Signals::catch().map_err(|e| part(&e, Exit::of_io(&e)))?;
    let (reload, (stop, stopped)) = (Arc::new(Notify::new()), watch::channel(false));
    let reloader = Reloader {
        given: given.clone(),
        settings: settings.clone(),
        at_start: loaded.effective.clone(),
        last: loaded.effective.clone(),
        secret: secret.clone(),
        seen_keys: seen_keys(settings, &secret)?,
        lasting,
        certificates,
        descriptors,
        gateway: gateway.handle(),
        log_filter,
        manager: Arc::clone(&manager),
        n_refused: 0,
    };
    helpers.push(tokio::spawn(feed_watchdog(Arc::clone(&manager), gateway.handle())));
    helpers.push(tokio::spawn(reloader.run(Arc::clone(&reload), stopped.clone())));
    let signals = tokio::spawn(signals.watch(stop, reload));
    announce(&screen, address);
    manager.ready("serving");
    serve_and_part(gateway, stopped, settings, &rooms).await;
    // Some hold the gateway, which is over.
    helpers.iter().chain([&signals]).for_each(JoinHandle::abort);
    rooms.finish(running).await;
    storage.close().await;
    tracing::info!("stopped");
    Ok(())
}

/// Serves until it is told to stop and nobody is left. Where clients go to other nodes presence knows it before the
/// first of them does.
async fn serve_and_part(
    gateway: Gateway,
    mut stopped: watch::Receiver<bool>,
    settings: &Settings,
    rooms: &Rooms,
) {
    let (go, going) = watch::channel(false);
    let parting = async {
        // An error means that whoever could have asked to stop is gone.
        let _ = stopped.wait_for(|stop| *stop).await;
        if build::drain_mode(settings) == DrainMode::Paced {
            rooms.part();
        }
        let _ = go.send(true);
    };
    let window = Duration::from_millis(settings.server.drain_window_ms);
    tokio::join!(parting, gateway.serve(going, window));
}

/// As many descriptors as there may be, and a warning where that is too few.
fn raise_descriptors(settings: &Settings) -> Descriptors {
    let descriptors = descriptors::raise();
    if let Some(warning) = descriptors.warning(settings.server.connections_max) {
        tracing::warn!("{warning}");
    }
    descriptors
}

/// The line to whoever started this process.
fn open_manager() -> Result<Arc<ServiceManager>, ServeError> {
    let manager = ServiceManager::open(&ManagerNames::of_process(), std::process::id());
    Ok(Arc::new(manager.map_err(|e| part(&e, Exit::Settings))?))
}

/// What looks after messages, revocations, matches and sanctions whose time is over.
fn forget_in_time(
    settings: &Settings,
    rooms: &Rooms,
    remembered: &Remembered,
    clock: &Arc<SystemClock>,
) -> Vec<JoinHandle<()>> {
    let revocations = Arc::clone(&remembered.revocations);
    let sweeps = rooms.run_sweeps(revocations, Arc::clone(clock) as _);
    let matches = forget_matches(Arc::clone(&remembered.matches), Arc::clone(clock));
    let sanctions = forget_sanctions(Arc::clone(&remembered.moderation), Arc::clone(clock));
    let (inbox, age_ms) = (Arc::clone(&remembered.inbox), settings.chat.letter_age_ms);
    let letters = tokio::spawn(forget_letters(inbox, age_ms, Arc::clone(clock)));
    vec![sweeps, tokio::spawn(matches), tokio::spawn(sanctions), letters]
}

/// Has matches forgotten, never to end.
async fn forget_matches(matches: Arc<dyn Matches>, clock: Arc<SystemClock>) {
    let mut interval = tokio::time::interval(MATCHES_INTERVAL);
    loop {
        interval.tick().await;
        matches.forget(clock.now().wall).await;
    }
}

/// Between two looks for sanctions that are over: they count no more anyway, and only take memory.
const SANCTIONS_LOOK: Duration = Duration::from_secs(60);

/// Has sanctions forgotten, never to end.
async fn forget_sanctions(moderation: Arc<dyn Moderation>, clock: Arc<SystemClock>) {
    let mut looks = tokio::time::interval(SANCTIONS_LOOK);
    loop {
        looks.tick().await;
        moderation.forget(clock.now().wall).await;
    }
}

/// Goes on fetching published keys, if there are any.
fn fetch_keys(lasting: &Lasting) -> Option<JoinHandle<()>> {
    let keys = lasting.remote_keys.clone()?;
    Some(tokio::spawn(async move { keys.run().await }))
}

fn seen_keys(settings: &Settings, secret: &TokenSecret) -> Result<SeenKeys, ServeError> {
    let config = verifier_config(settings, secret.secret());
    let config = config.map_err(|e| part(&e, Exit::Settings))?;
    Ok(SeenKeys::default().next(&config, secret.secret()))
}

fn gateway_config(
    settings: &Settings,
    descriptors: Descriptors,
    exposition: SharedExposition,
    certificates: Option<&Certificates>,
) -> Result<gateway_axum::Config, ServeError> {
    let internal = settings.server.internal_listen.as_deref();
    let internal_address = internal.map(resolve).transpose()?;
    let config = build::gateway(settings, descriptors);
    let tls = certificates.map(Certificates::acceptor);
    Ok(gateway_axum::Config { internal_address, exposition, tls, ..config })
}

/// Between two looks for letters that are too old.
const LETTERS_LOOK: Duration = Duration::from_secs(600);

/// Has letters forgotten that nobody came for. Ends never.
async fn forget_letters(inbox: Arc<dyn Inbox>, age_ms: u64, clock: Arc<SystemClock>) {
    let mut looks = tokio::time::interval(LETTERS_LOOK);
    loop {
        looks.tick().await;
        let now = clock.now().wall.as_millis();
        let age = i64::try_from(age_ms).unwrap_or(i64::MAX);
        inbox.forget(Wall::from_millis(now.saturating_sub(age))).await;
    }
}

fn start_workers(
    node: &Node,
    clock: &Arc<SystemClock>,
    config: &worker_tokio::Config,
) -> Result<Vec<Worker>, ServeError> {
    Worker::start_all(node, clock, config).map_err(|e| part(&e, Exit::Io))
}

/// Gives signs of life while all workers run: who watches the process should start it anew when
/// one has ended.
async fn feed_watchdog(manager: Arc<ServiceManager>, gateway: gateway_axum::Handle) {
    let Some(every) = manager.watchdog_interval() else { return };
    let mut interval = tokio::time::interval(every);
    loop {
        interval.tick().await;
        if gateway.are_workers_running() {
            manager.alive();
        }
    }
}

fn resolve(listen: &str) -> Result<SocketAddr, ServeError> {
    let not_found =
        |reason: String| ServeError::Listen { listen: listen.to_owned(), reason, exit: Exit::Io };
    let mut addresses =
        listen.to_socket_addrs().map_err(|e| not_found(format!("no such host ({e})")))?;
    addresses.next().ok_or_else(|| not_found("the host has no address".to_owned()))
}

fn not_listening(listen: &str, error: &BindError) -> ServeError {
    let (hint, exit) = match error {
        BindError::InUse(_) => {
            ("; stop the other process or choose another port with --listen", Exit::Io)
        }
        BindError::Denied(_) => ("; ports below 1024 need a privilege", Exit::Permission),
        BindError::Other { .. } => ("", Exit::Io),
    };
    let reason = format!("{}{hint}", chain(error));
    ServeError::Listen { listen: listen.to_owned(), reason, exit }
}

fn announce(screen: &StartScreen<'_>, address: SocketAddr) {
    // Nobody may be there to read either; the server runs all the same.
    let _ = write!(io::stderr(), "{}", screen.render());
    let _ = writeln!(
        io::stdout(),
        "{}",
        listening_line(address, screen.settings.server.tls.files().is_some())
    );
    let _ = io::stdout().flush();
}

/// The archive behind the port, if there is one.
pub type SharedArchive = Option<Arc<dyn Archive>>;

/// The archive behind its other port, if several nodes can write it.
pub type SharedLives = Option<Arc<dyn Succession>>;
