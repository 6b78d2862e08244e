//! This host's connections against the contract of the outbox, over loopback.
//!
//! The tasks of connections are the real ones. The shard behind them knows none of them, so it says
//! nothing. The other ends are tungstenite's, too.

use std::collections::BTreeMap;
use std::net::{TcpListener, TcpStream};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use application::limits::Limits;
use application::node::Node;
use application::ports::broker::MockBroker;
use application::ports::clock::{MockClock, MockEntropy};
use application::ports::outbox::Outbox;
use application::ports::presence::MockPresence;
use application::ports::revocations::MockRevocations;
use application::ports::token_verifier::MockTokenVerifier;
use application::ports::{NoSpentTokens, NoTickets};
use application::services::{Ports, Rules};
use application::shard::Slot;
use application::testing::outbox_contract::{Heard, OutboxHost};
use domain::id::ConnectionId;
use domain::time::Now;
use tokio::runtime::{Builder, LocalOptions, LocalRuntime};
use tokio::task::{spawn_local, yield_now};
use tungstenite::WebSocket;
use tungstenite::protocol::{Message, Role};

use crate::gateway::Config;
use crate::host::Host;
use crate::line::Line;

const QUEUE_BYTES_MAX: usize = 32 << 10;
/// Only a mistake takes that long.
const PATIENCE: Duration = Duration::from_secs(10);

struct Loopback {
    runtime: LocalRuntime,
    host: Rc<Host>,
    listener: TcpListener,
    ends: BTreeMap<Slot, WebSocket<TcpStream>>,
    /// The server's side of each connection, for looking at what it has not read.
    server_sides: BTreeMap<Slot, TcpStream>,
}

impl Loopback {
    fn new() -> Self {
        let mut clock = MockClock::new();
        clock.expect_now().returning(Now::default);
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
            clock: Arc::new(clock),
            entropy: Arc::new(MockEntropy::new()),
        };
        let limits = Limits { outbound_queue_bytes_max: QUEUE_BYTES_MAX, ..Limits::default() };
        let node = Node::build(ports, Rules { limits, ..Rules::default() }, 1);
        let host = Host::new(&node.services(), &node.mailboxes()[0], Config::default());
        let runtime =
            Builder::new_current_thread().enable_all().build_local(LocalOptions::default());
        Self {
            runtime: runtime.unwrap(),
            host: Rc::new(host),
            listener: TcpListener::bind("127.0.0.1:0").unwrap(),
            ends: BTreeMap::new(),
            server_sides: BTreeMap::new(),
        }
    }

    /// Lets the tasks of all connections do what they can.
    fn settle(&self) {
        self.runtime.block_on(async {
            for _ in 0..8 {
                yield_now().await;
            }
        });
    }
}

impl OutboxHost for Loopback {
    fn queue_bytes_max(&self) -> usize {
        QUEUE_BYTES_MAX
    }

    /// The kernel's two buffers, as large as it makes them by itself.
    fn unread_bytes_max(&self) -> usize {
        16 << 20
    }

    fn open(&mut self, at: Slot) {
        let theirs = TcpStream::connect(self.listener.local_addr().unwrap()).unwrap();
        theirs.set_read_timeout(Some(Duration::from_millis(5))).unwrap();
        let (ours, _) = self.listener.accept().unwrap();
        ours.set_nodelay(true).unwrap();
        ours.set_nonblocking(true).unwrap();
        self.server_sides.insert(at, ours.try_clone().unwrap());
        let host = &self.host;
        self.runtime.block_on(async {
            let ours = tokio::net::TcpStream::from_std(ours).unwrap();
            let connection = ConnectionId::from_bits(u64::from(at.index));
            let line = Line::new(host, at, connection, ours, Vec::new(), Box::new(()));
            spawn_local(line.run());
        });
        self.settle();
        self.ends.insert(at, WebSocket::from_raw_socket(theirs, Role::Client, None));
    }

    fn outbox(&mut self, act: &mut dyn FnMut(&mut dyn Outbox)) {
        let host = &self.host;
        self.runtime.block_on(async { act(&mut *host.links.borrow_mut()) });
        self.settle();
    }

    /// Nobody reads while nobody is asked what it hears.
    fn stall(&mut self, _at: Slot) {}

    fn resume(&mut self, _at: Slot) {}

    fn hear(&mut self, at: Slot) -> Heard {
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            match self.ends.get_mut(&at).expect("it was opened").read() {
                Ok(Message::Text(text)) => return Heard::Message(text.as_str().to_owned()),
                Ok(Message::Close(frame)) => {
                    return Heard::Closed(frame.map_or(1005, |frame| frame.code.into()));
                }
                Ok(other) => panic!("nobody sends {other:?}"),
                Err(tungstenite::Error::Io(error))
                    if error.kind() == std::io::ErrorKind::WouldBlock =>
                {
                    self.settle();
                }
                Err(_) => return Heard::Silence,
            }
        }
        Heard::Silence
    }

    fn say(&mut self, from: Slot, text: &str) {
        let end = self.ends.get_mut(&from).expect("it was opened");
        end.send(Message::text(text)).expect("the kernel has room");
    }

    fn reads_all(&mut self, of: Slot) -> bool {
        let until = Instant::now() + PATIENCE;
        while self.has_unread(of) && Instant::now() < until {
            self.settle();
        }
        !self.has_unread(of)
    }

    fn has_unread(&mut self, of: Slot) -> bool {
        let mut byte = [0];
        self.server_sides[&of].peek(&mut byte).is_ok_and(|n| n > 0)
    }
}

application::outbox_contract_tests!(Loopback::new);
