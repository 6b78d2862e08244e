//! A worker's sockets against the contract of the outbox, over loopback, with TLS and without, and the machine's clock
//! against its own.
//!
//! Readers and writers are the real ones. The shard behind them knows none of the connections, so
//! it says nothing.

use std::collections::BTreeMap;
use std::net::{TcpListener, TcpStream as Blocking};
use std::os::fd::AsFd;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::{Duration, Instant};

use application::limits::Limits;
use application::node::Node;
use application::ports::broker::MockBroker;
use application::ports::clock::MockEntropy;
use application::ports::outbox::Outbox;
use application::ports::presence::MockPresence;
use application::ports::revocations::MockRevocations;
use application::ports::token_verifier::MockTokenVerifier;
use application::ports::{NoSpentTokens, NoTickets};
use application::services::{Ports, Rules};
use application::shard::Slot;
use application::testing::clock_contract::ClockContract;
use application::testing::outbox_contract::{Heard, OutboxHost};
use bytes::Bytes;
use domain::id::ConnectionId;
use domain::time::Wall;
use tls_rustls::{Acceptor, Identity, MinVersion, Session, Stream};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::{Builder, LocalOptions, LocalRuntime};
use tokio::task::{spawn_local, yield_now};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{self, ClientConfig, RootCertStore};
use websocket_codec::{Decoder, Event, Role};

use crate::clock::SystemClock;
use crate::core::Core;
use crate::reader::Reader;
use crate::sealed::Sealed;
use crate::worker::Config;
use crate::writer;

const QUEUE_BYTES_MAX: usize = 32 << 10;
/// What the kernel is asked to keep on either side; it takes more.
const KERNEL_BYTES: usize = 16 << 10;
/// Only a mistake takes that long.
const PATIENCE: Duration = Duration::from_secs(10);

trait Wire: AsyncRead + AsyncWrite + Unpin {}

impl<T: AsyncRead + AsyncWrite + Unpin> Wire for T {}

/// Both sides of TLS, with a certificate made for the test.
struct Tls {
    acceptor: Acceptor,
    connector: TlsConnector,
}

impl Tls {
    fn new() -> Self {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let folder = std::env::temp_dir().join(format!(
            "contract-{}-{:?}",
            std::process::id(),
            std::thread::current().id()
        ));
        std::fs::create_dir_all(&folder).unwrap();
        let (certificate, key) = (folder.join("cert.pem"), folder.join("key.pem"));
        std::fs::write(&certificate, made.cert.pem()).unwrap();
        std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
        let identity = Identity::load(&certificate, &key).unwrap();
        std::fs::remove_dir_all(&folder).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(made.cert.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let client = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        Self {
            acceptor: Acceptor::build(identity, MinVersion::Tls12).unwrap(),
            connector: TlsConnector::from(Arc::new(client)),
        }
    }

    /// Shakes hands, and gives both sides.
    async fn between(
        &self,
        ours: TcpStream,
        theirs: TcpStream,
    ) -> (TcpStream, Box<Session>, Box<dyn Wire>) {
        let name = ServerName::try_from("localhost").unwrap();
        let accepting = Stream::accept(ours, self.acceptor.session().unwrap());
        let (ours, theirs) = tokio::join!(accepting, self.connector.connect(name, theirs));
        let (ours, session, _) = ours.unwrap().into_parts();
        (ours, session, Box::new(theirs.unwrap()))
    }
}

/// The other end of a connection.
struct End {
    stream: Box<dyn Wire>,
    decoder: Decoder,
    received: Vec<u8>,
}

impl End {
    async fn hear(&mut self, core: &Core) -> Heard {
        loop {
            let decoded = self.decoder.decode(&mut self.received, &core.limits()).expect("framed");
            let heard = decoded.event.map(|event| match event {
                Event::Text(text) => Heard::Message(text.into_owned()),
                Event::Close(frame) => Heard::Closed(frame.map_or(1005, |frame| frame.code.get())),
                other => panic!("nobody sends {other:?}"),
            });
            let used = decoded.used;
            self.received.drain(..used);
            if let Some(heard) = heard {
                return heard;
            }
            if self.stream.read_buf(&mut self.received).await.expect("a read") == 0 {
                return Heard::Silence;
            }
        }
    }
}

struct Loopback {
    tls: Option<Tls>,
    runtime: LocalRuntime,
    core: Rc<Core>,
    listener: TcpListener,
    ends: BTreeMap<Slot, End>,
    /// The server's side of each connection, for looking at what the kernel holds.
    server_sides: BTreeMap<Slot, Blocking>,
}

impl Loopback {
    fn new() -> Self {
        Self::build(None)
    }

    fn with_tls() -> Self {
        Self::build(Some(Tls::new()))
    }

    fn build(tls: Option<Tls>) -> Self {
        let clock = Arc::new(SystemClock::start());
        let ports = Ports {
            broker: Arc::new(MockBroker::new()),
            presence: Arc::new(MockPresence::new()),
            token_verifier: Arc::new(MockTokenVerifier::new()),
            session_tickets: Arc::new(NoTickets),
            inbox: None,
            moderation: None,
            erasure: None,
            authorizer: None,
            revocations: Arc::new(MockRevocations::new()),
            spent_tokens: Arc::new(NoSpentTokens),
            seats: Arc::new(application::seats::NodeSeats::default()),
            peers: Arc::new(application::ports::NoPeers),
            matches: Arc::new(application::ports::NoMatches),
            clock: Arc::clone(&clock) as _,
            entropy: Arc::new(MockEntropy::new()),
        };
        let limits = Limits { outbound_queue_bytes_max: QUEUE_BYTES_MAX, ..Limits::default() };
        let node = Node::build(ports, Rules { limits, ..Rules::default() }, 1);
        let shard = Node::shard(&node.services(), &node.mailboxes()[0]);
        let count = Arc::new(AtomicUsize::new(0));
        let core = Core::new(shard, &node.services(), clock, Config::default(), count);
        let runtime =
            Builder::new_current_thread().enable_all().build_local(LocalOptions::default());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        // Inherited by what is accepted; small, so that a connection is full soon.
        rustix::net::sockopt::set_socket_send_buffer_size(&listener, KERNEL_BYTES).unwrap();
        Self {
            tls,
            runtime: runtime.unwrap(),
            core: Rc::new(core),
            listener,
            ends: BTreeMap::new(),
            server_sides: BTreeMap::new(),
        }
    }

    /// Bytes that the kernel holds for the server.
    fn unread(&self, of: Slot) -> u64 {
        rustix::io::ioctl_fionread(self.server_sides[&of].as_fd()).expect("a socket")
    }
}

impl OutboxHost for Loopback {
    fn queue_bytes_max(&self) -> usize {
        QUEUE_BYTES_MAX
    }

    fn unread_bytes_max(&self) -> usize {
        4 << 20
    }

    fn open(&mut self, at: Slot) {
        let theirs = Blocking::connect(self.listener.local_addr().unwrap()).unwrap();
        rustix::net::sockopt::set_socket_recv_buffer_size(&theirs, KERNEL_BYTES).unwrap();
        let (ours, _) = self.listener.accept().unwrap();
        ours.set_nodelay(true).unwrap();
        for stream in [&ours, &theirs] {
            stream.set_nonblocking(true).unwrap();
        }
        self.server_sides.insert(at, ours.try_clone().unwrap());
        let (core, tls) = (&self.core, &self.tls);
        let stream = self.runtime.block_on(async {
            let ours = TcpStream::from_std(ours).unwrap();
            let theirs = TcpStream::from_std(theirs).unwrap();
            let connection = ConnectionId::from_bits(u64::from(at.index));
            let counted = core.counted(None);
            // What is said later is written at once then, before any reader has its turn.
            theirs.writable().await.unwrap();
            let (ours, seal, theirs): (_, _, Box<dyn Wire>) = match tls {
                None => (ours, None, Box::new(theirs)),
                Some(tls) => {
                    let (ours, session, theirs) = tls.between(ours, theirs).await;
                    (ours, Some(Sealed::new(session)), theirs)
                }
            };
            let mut sockets = core.sockets.borrow_mut();
            let (half, gate) =
                sockets.insert(at, connection, (ours, seal.clone()), Bytes::new(), counted);
            spawn_local(Reader::new(Rc::clone(core), at, half, seal, gate, &[]));
            theirs
        });
        let end = End { stream, decoder: Decoder::new(Role::Client), received: Vec::new() };
        self.ends.insert(at, end);
    }

    fn outbox(&mut self, act: &mut dyn FnMut(&mut dyn Outbox)) {
        let core = &self.core;
        self.runtime.block_on(async {
            act(&mut *core.sockets.borrow_mut());
            loop {
                let Some(work) = core.sockets.borrow_mut().poll_work() else { break };
                writer::start(core, work);
            }
            for _ in 0..4 {
                yield_now().await;
            }
        });
    }

    /// Nobody reads while nobody is asked what it hears.
    fn stall(&mut self, _at: Slot) {}

    fn resume(&mut self, _at: Slot) {}

    fn hear(&mut self, at: Slot) -> Heard {
        let (core, end) = (&self.core, self.ends.get_mut(&at).expect("it was opened"));
        let heard = async { timeout(PATIENCE, end.hear(core)).await };
        self.runtime.block_on(heard).unwrap_or(Heard::Silence)
    }

    fn say(&mut self, from: Slot, text: &str) {
        let length = u8::try_from(text.len()).ok().filter(|length| *length < 126);
        // Masked with zeros, which leaves the text as it is.
        let mut frame = vec![0x81, 0x80 | length.expect("a short text"), 0, 0, 0, 0];
        frame.extend_from_slice(text.as_bytes());
        let before = self.unread(from);
        let end = self.ends.get_mut(&from).expect("it was opened");
        let sent = self.runtime.block_on(async {
            end.stream.write_all(&frame).await?;
            end.stream.flush().await
        });
        sent.expect("the kernel has room");
        // On a busy machine even loopback takes its time.
        let until = Instant::now() + PATIENCE;
        while self.unread(from) <= before {
            assert!(Instant::now() < until, "what was said never arrived");
            std::thread::yield_now();
        }
    }

    fn reads_all(&mut self, of: Slot) -> bool {
        let until = Instant::now() + PATIENCE;
        while self.has_unread(of) && Instant::now() < until {
            self.runtime.block_on(yield_now());
        }
        !self.has_unread(of)
    }

    fn has_unread(&mut self, of: Slot) -> bool {
        self.unread(of) > 0
    }
}

mod sockets {
    application::outbox_contract_tests!(super::Loopback::new);
}

mod sockets_with_tls {
    application::outbox_contract_tests!(super::Loopback::with_tls);
}

/// T01: what time is measured by never goes back.
#[test]
fn the_machine_s_clock_keeps_its_contract() {
    let pass = |span: Duration| {
        let end = Instant::now() + span;
        while Instant::now() < end {
            std::thread::yield_now();
        }
    };
    let clock = SystemClock::start();
    // A machine whose clock was never set fails here, and would fail every token, too.
    let not_before = Wall::from_millis(1_735_689_600_000);
    ClockContract { clock: &clock, pass: &pass, not_before }.check();
}
