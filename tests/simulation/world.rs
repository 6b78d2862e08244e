//! The world of one seed: virtual time, what is on its way, the nodes, the links, the clients.
//!
//! One queue decides what happens next; a tie goes to what was planned first. No clock, no thread.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;

use application::mailbox::Mail;
use application::services::Rules;
use application::shard::{Completion, Input};
use domain::client::life::Lost;
use domain::codes::{CloseCode, should_reconnect};
use domain::id::Epoch;
use domain::room::RoomId;
use tokio::runtime::Runtime;

use crate::broker::{Outgoing, SimRoom};
use crate::checker::{Checked, Violation};
use crate::client::{Client, Place, Scene, Wish};
use crate::disk::Disk;
use crate::letters::{GLOBAL, Writer, draw_writers};
use crate::links::{Down, Link, Up, Wires};
use crate::mirror::Mirror;
use crate::nodes::{KEPT_FROM, NAMESPACES, Namespace, SimNode, draw_rules};
use crate::ports::{Alarms, Core, Shared, SimMiddleware, Weather};
use crate::rng::Rng;
use crate::taking::{draw_shared, is_hello};
use crate::ways::{OneRedis, Reply, Request, Time};

/// The most events of one seed: who needs more runs in circles.
const EVENTS_MAX: u64 = 150_000;

/// How many of a hundred seeds run one process over the real in-memory broker and a disk, instead
/// of several over a simulated broker.
pub(crate) const ALONE: u64 = 35;

#[derive(Debug)]
pub(crate) enum Event {
    Work { node: usize, shard: usize },
    Poll { node: usize, shard: usize, call: u64 },
    Completed { node: usize, shard: usize, completion: Box<Completion> },
    Mail(Outgoing),
    Down { link: usize, down: Down },
    Up { link: usize, up: Up },
    Resume { link: usize },
    Unstall { link: usize },
    Connect { client: usize },
    Wake { client: usize },
    Watch { writer: usize },
    Act,
    Fault,
    Calm,
    Restart { kill: Option<usize> },
    LeaseEnd { node: usize },
    Task { node: usize, task: u64 },
    Sweep { node: usize },
    Lift,
    Tick,
    Asked(Box<Request>),
    Answered(Box<Reply>),
    News { node: usize, text: String },
    KeepWay { node: usize },
    Sure { node: usize, connection: i64 },
    Heal { node: usize },
    RedisUp { forgets: bool },
    Finish { node: usize },
    Reopen,
}

impl Event {
    /// What a trace shows.
    fn describe(&self) -> String {
        match self {
            Self::Down { link, down: Down::Bytes(bytes) } => {
                let text = String::from_utf8_lossy(bytes);
                format!("link {link} gives {}", text.trim_end())
            }
            Self::Mail(Outgoing { mailbox, mail: Mail::Publication(published), .. }) => {
                let publication = &published.publication;
                let (room, offset) = (&publication.room, publication.offset);
                format!("mail to {mailbox}: {room} {:?} {offset:?}", publication.epoch)
            }
            Self::Completed { node, shard, .. } => format!("completed {node}/{shard}"),
            _ => format!("{self:?}"),
        }
    }
}

/// How many moments have a list of their own; more than nearly everything waits.
const NEAR_MS: u64 = 256;
const WORDS: usize = 4;

/// What is planned, by time and then in the order in which it was planned.
pub(crate) struct Queue {
    /// What is planned within [`NEAR_MS`] from a moment on, by moments.
    near: Vec<VecDeque<Event>>,
    /// Which of these lists hold something.
    held: [u64; WORDS],
    from_ms: u64,
    /// What is planned for later, by time and then by number. The events lie apart: the heap moves what it holds.
    far: BinaryHeap<Reverse<(u64, u64, usize)>>,
    events: Vec<Option<Event>>,
    free: Vec<usize>,
    number: u64,
}

impl Default for Queue {
    fn default() -> Self {
        Self {
            near: (0..NEAR_MS).map(|_| VecDeque::new()).collect(),
            held: [0; WORDS],
            from_ms: 0,
            far: BinaryHeap::new(),
            events: Vec::new(),
            free: Vec::new(),
            number: 0,
        }
    }
}

fn list_of(at: u64) -> usize {
    usize::try_from(at % NEAR_MS).unwrap_or(0)
}

impl Queue {
    pub(crate) fn push(&mut self, at: u64, event: Event) {
        debug_assert!(at >= self.from_ms, "nobody plans what was");
        if at < self.from_ms + NEAR_MS {
            return self.push_near(at, event);
        }
        let place = self.free.pop().unwrap_or_else(|| {
            self.events.push(None);
            self.events.len() - 1
        });
        self.events[place] = Some(event);
        self.number += 1;
        self.far.push(Reverse((at, self.number, place)));
    }

    fn push_near(&mut self, at: u64, event: Event) {
        let list = list_of(at);
        self.near[list].push_back(event);
        self.held[list / 64] |= 1 << (list % 64);
    }

    /// The next event that is not after a moment.
    fn pop(&mut self, end_ms: u64) -> Option<(u64, Event)> {
        let at = self.next_near().or_else(|| self.far.peek().map(|next| next.0.0))?;
        if at > end_ms {
            return None;
        }
        self.begin_at(at);
        let list = list_of(at);
        let event = self.near[list].pop_front()?;
        if self.near[list].is_empty() {
            self.held[list / 64] &= !(1 << (list % 64));
        }
        Some((at, event))
    }

    /// The first near moment for which something is planned.
    fn next_near(&self) -> Option<u64> {
        let first = list_of(self.from_ms);
        let behind = u64::MAX << (first % 64);
        for step in 0..=WORDS {
            let word = (first / 64 + step) % WORDS;
            // Of the word in which it begins, what lies before comes last.
            let mask = match step {
                0 => behind,
                WORDS => !behind,
                _ => u64::MAX,
            };
            let held = self.held[word] & mask;
            if held != 0 {
                let list = word as u64 * 64 + u64::from(held.trailing_zeros());
                return Some(self.from_ms + (list + NEAR_MS - first as u64) % NEAR_MS);
            }
        }
        None
    }

    /// What was far comes near before anything more is planned for its moment: the order stays.
    fn begin_at(&mut self, at: u64) {
        self.from_ms = at;
        while let Some(Reverse((at, _, place))) = self.far.peek().copied()
            && at < self.from_ms + NEAR_MS
        {
            self.far.pop();
            self.free.push(place);
            if let Some(event) = self.events[place].take() {
                self.push_near(at, event);
            }
        }
    }
}

fn draw_rooms(rng: &mut Rng, alone: bool) -> BTreeMap<RoomId, SimRoom> {
    let mut rooms = BTreeMap::new();
    for number in 0..rng.between(2, 4) {
        let known = match (alone, number) {
            (false, _) => &NAMESPACES[..KEPT_FROM],
            // One room at least is what such a seed is about.
            (true, 0) => &NAMESPACES[KEPT_FROM..],
            (true, _) => &NAMESPACES[..],
        };
        let Namespace { name, messages_max, .. } = rng.pick(known);
        let room = RoomId::parse(&format!("{name}:{number}")).expect("a good name");
        let fresh = if alone {
            SimRoom::unborn(*messages_max)
        } else {
            SimRoom::new(Epoch::from_bits(rng.bits()), *messages_max)
        };
        rooms.insert(room, fresh);
    }
    rooms
}

/// What a seed over Redis has beside all others.
pub(crate) struct Over {
    pub(crate) runtime: Rc<Runtime>,
    pub(crate) mirror: Option<Mirror>,
}

pub(crate) struct World {
    pub(crate) now_ms: u64,
    /// Some where nodes share a Redis: the clock of their waits.
    pub(crate) time: Option<Time>,
    pub(crate) rng: Rng,
    pub(crate) core: Shared,
    /// Some where one process runs the real broker: what outlives it.
    pub(crate) disk: Option<Arc<Disk>>,
    pub(crate) alarms: Alarms,
    pub(crate) rules: Rules,
    pub(crate) queue: Queue,
    pub(crate) nodes: Vec<SimNode>,
    /// Which shard a mailbox belongs to, while its node is alive.
    pub(crate) mailboxes: BTreeMap<u64, (usize, usize)>,
    pub(crate) links: Vec<Link>,
    pub(crate) clients: Vec<Client>,
    /// Numbered behind the clients.
    pub(crate) writers: Vec<Writer>,
    pub(crate) wires: Vec<(u64, usize, Down)>,
    /// Kept for its memory.
    wishes: Vec<Wish>,
    pub(crate) next_call: u64,
    pub(crate) acts_left: u64,
    pub(crate) faults_left: u64,
    /// No fault begins any more, and everyone recovers.
    pub(crate) healed: bool,
    /// No writer comes back any more.
    pub(crate) leaving: bool,
    pub(crate) violation: Option<Violation>,
    events: u64,
    /// What tells this run from another one, for whom that is of interest.
    pub(crate) hash: Option<u64>,
    trace: bool,
}

impl World {
    pub(crate) fn new(seed: u64, trace: bool, over: Option<Over>) -> Self {
        let mut rng = Rng::new(seed);
        let alone = rng.percent(ALONE);
        let lossy = !alone && rng.percent(70);
        let mut rules = draw_rules(&mut rng, lossy, alone);
        let shared = over.as_ref().map(|_| draw_shared(seed, &mut rules));
        let rooms = draw_rooms(&mut rng, alone);
        let names: Vec<RoomId> = rooms.keys().cloned().collect();
        let mut core = Core::new(rng.fork());
        core.lossy = lossy;
        // The archive does not; what is told from there may come back to who sent it.
        core.log_keeps_origin = !alone && rng.percent(70);
        core.censored = rng.percent(50);
        core.rooms = rooms;
        core.list_bytes_max = rules.limits.page_bytes_of_one();
        core.moderated = alone;
        let time = over.map(|Over { runtime, mirror }| {
            let has_troubles = shared.is_some_and(|shared| shared.has_troubles);
            core.redis = Some(OneRedis::new(has_troubles, mirror));
            Time::new(runtime)
        });
        let writers = if alone { draw_writers(&mut rng) } else { Vec::new() };
        if alone {
            core.rooms.insert(RoomId::parse(GLOBAL).expect("a good name"), SimRoom::unborn(200));
        }
        let censored = core.censored;
        let core = Shared::new(core);
        if censored {
            rules.middleware.push(Arc::new(SimMiddleware(core.clone())));
        }
        let n_clients = usize::try_from(rng.between(3, 16)).unwrap_or(3);
        let n_users = rng.between(1, n_clients as u64);
        let clients = (0..n_clients).map(|index| {
            let user = (!rng.percent(20)).then(|| format!("u{}", rng.below(n_users)));
            let once = shared.is_some_and(|shared| shared.once);
            Client::new(index, user, &names, once, &mut rng)
        });
        let clients = clients.collect();
        let mut world = Self {
            now_ms: 0,
            time,
            disk: alone.then(|| Arc::new(Disk::new(core.clone()))),
            core,
            alarms: Alarms::default(),
            rules,
            queue: Queue::default(),
            nodes: Vec::new(),
            mailboxes: BTreeMap::new(),
            links: Vec::new(),
            clients,
            writers,
            wires: Vec::new(),
            wishes: Vec::new(),
            next_call: 0,
            acts_left: rng.between(50, 200),
            // Bad weather over a disk often passes without a fault.
            faults_left: rng.between(4, 9) + if alone { 5 } else { 0 },
            healed: false,
            leaving: false,
            violation: None,
            events: 0,
            hash: None,
            trace,
            rng,
        };
        world.begin(alone);
        world
    }

    /// Starts the nodes, and says when what happens by itself happens first.
    fn begin(&mut self, alone: bool) {
        let n_nodes = if alone { 1 } else { self.rng.between(1, 3) };
        for _ in 0..n_nodes {
            self.start_node();
        }
        for client in 0..self.clients.len() + self.writers.len() {
            let at = self.rng.below(400);
            self.queue.push(at, Event::Connect { client });
            if let Some(writer) = self.writer_of(client) {
                self.queue.push(at + 3_000, Event::Watch { writer });
            }
        }
        if self.time.is_some() {
            self.tick();
        }
        self.queue.push(300, Event::Act);
        self.queue.push(500, Event::Fault);
    }

    pub(crate) fn start_node(&mut self) {
        let number = self.nodes.len();
        let disk = self.disk.as_ref();
        if disk.is_some() {
            self.core.lock().rooms.values_mut().for_each(SimRoom::lose_memory);
        }
        let node = SimNode::start(&self.core, &self.rules, number, disk, &mut self.rng);
        for (shard, sim) in node.shards.iter().enumerate() {
            self.mailboxes.insert(sim.mailbox.id(), (number, shard));
        }
        self.nodes.push(node);
        self.start_committer(number);
        self.open_way(number);
    }

    /// Has it note what tells this run from another one.
    pub(crate) const fn begin_hash(&mut self) {
        self.hash = Some(0xcbf2_9ce4_8422_2325);
    }

    /// Lets everything happen until a moment, or until an invariant is broken.
    pub(crate) fn run_until(&mut self, end_ms: u64) -> Checked {
        while let Some((at, event)) = self.queue.pop(end_ms) {
            self.now_ms = at;
            self.core.lock().now_ms = at;
            if let Some(time) = &mut self.time {
                time.pass(at);
            }
            self.events += 1;
            self.note(&event);
            self.happen(event)?;
            self.notice();
            let mut core = self.core.lock();
            for outgoing in core.outgoing.drain(..) {
                self.queue.push(outgoing.arrives_ms, Event::Mail(outgoing));
            }
            for (at, request) in core.redis.iter_mut().flat_map(|one| one.sent.drain(..)) {
                self.queue.push(at, Event::Asked(Box::new(request)));
            }
            if let Some(violation) = core.violation.take().or(self.violation.take()) {
                return Err(violation);
            }
            if self.events > EVENTS_MAX {
                return Err(Violation::new("I13", "the world runs in circles"));
            }
        }
        self.now_ms = end_ms;
        self.core.lock().now_ms = end_ms;
        Ok(())
    }

    fn note(&mut self, event: &Event) {
        if self.hash.is_some() {
            self.mix_event(event);
        }
        if self.trace {
            eprintln!("{:>7} {}", self.now_ms, event.describe());
        }
    }

    fn mix_event(&mut self, event: &Event) {
        self.mix(self.now_ms);
        if let Event::Down { link, down: Down::Bytes(bytes) } = event {
            self.mix(*link as u64);
            for chunk in bytes.chunks(8) {
                let mut word = [0; 8];
                word[..chunk.len()].copy_from_slice(chunk);
                self.mix(u64::from_le_bytes(word));
            }
        }
    }

    /// Shows something that is no event, where everything is shown.
    pub(crate) fn tell_trace(&self, text: impl FnOnce() -> String) {
        if self.trace {
            eprintln!("{:>7} {}", self.now_ms, text());
        }
    }

    const fn mix(&mut self, word: u64) {
        if let Some(hash) = self.hash {
            self.hash = Some((hash ^ word).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(23));
        }
    }

    fn happen(&mut self, event: Event) -> Checked {
        match event {
            Event::Work { node, shard } => self.work(node, shard),
            Event::Poll { node, shard, call } => self.poll(node, shard, call),
            Event::Completed { node, shard, completion } => {
                self.input(node, shard, Input::Completed(*completion));
            }
            Event::Mail(outgoing) => self.mail(outgoing),
            Event::Down { link, down } => return self.arrive_down(link, down),
            Event::Up { link, up } => self.arrive_up(link, up),
            Event::Resume { link } => self.read_link(link),
            Event::Unstall { link } => self.unstall(link),
            Event::Connect { client } => self.connect(client),
            Event::Wake { client } => self.scene(client, Client::wake)?,
            Event::Watch { writer } => self.watch(writer),
            Event::Act => return self.act(),
            Event::Fault => self.fault(),
            Event::Calm => self.core.lock().weather = Weather::default(),
            Event::LeaseEnd { node } => self.end_lease(node),
            Event::Task { node, task } => self.run_task(node, task),
            Event::Sweep { node } => self.sweep(node),
            Event::Lift => self.lift_all(),
            Event::Restart { kill } => return self.restart(kill),
            Event::Reopen => self.reopen_all(),
            Event::Finish { node } => self.finish(node),
            Event::Tick => self.tick(),
            Event::Asked(request) => self.asked(*request),
            Event::Answered(reply) => self.answered(*reply),
            Event::News { node, text } => self.news(node, &text),
            Event::KeepWay { node } => self.keep_way(node),
            Event::Sure { node, connection } => self.grow_sure(node, connection),
            Event::Heal { node } => self.heal_way(node),
            Event::RedisUp { forgets } => self.start_redis(forgets),
        }
        Ok(())
    }

    /// Lets a client do something, and carries out what it wants.
    pub(crate) fn scene(
        &mut self,
        client: usize,
        act: impl FnOnce(&mut Client, &mut Scene<'_>) -> Checked,
    ) -> Checked {
        let at = self.clients[client].link.map(|link| {
            let Link { node, shard, id, .. } = self.links[link];
            let overflowed = self.nodes[node].shards[shard].overflowed;
            Place { link, node, id, overflowed }
        });
        let mut wishes = std::mem::take(&mut self.wishes);
        let done = {
            let mut core = self.core.lock();
            let mut scene = Scene {
                now_ms: self.now_ms,
                rng: &mut self.rng,
                core: &mut core,
                wishes: &mut wishes,
                at,
            };
            let side = &mut self.clients[client];
            let done = act(side, &mut scene);
            side.plan(&mut scene);
            done
        };
        let link = at.map(|place| place.link);
        let mut said: Vec<String> = Vec::new();
        for wish in wishes.drain(..) {
            match wish {
                Wish::Send(text) => said.push(text),
                Wish::Wake(at) => self.queue.push(at, Event::Wake { client }),
                Wish::Dial => {
                    let at = self.now_ms + self.rng.between(1, 40);
                    self.queue.push(at, Event::Connect { client });
                }
                Wish::HangUp => {
                    self.say(client, link, std::mem::take(&mut said));
                    if let Some(link) = link {
                        self.send_up(link, Up::Closed);
                        self.links[link].client_open = false;
                    }
                }
            }
        }
        self.wishes = wishes;
        self.say(client, link, said);
        done
    }

    /// The same where nobody asks what came of it at once.
    pub(crate) fn play(
        &mut self,
        client: usize,
        act: impl FnOnce(&mut Client, &mut Scene<'_>) -> Checked,
    ) {
        let done = self.scene(client, act);
        self.violation = self.violation.take().or(done.err());
    }

    /// Texts of a client go up its link.
    fn say(&mut self, client: usize, link: Option<usize>, mut texts: Vec<String>) {
        let Some(link) = link else { return };
        // Several commands may share a text.
        if texts.len() > 1 && self.rng.percent(50) {
            texts = vec![texts.join("\n")];
        }
        for text in texts {
            if self.trace {
                eprintln!("{:>7} client {client} says {text}", self.now_ms);
            }
            self.send_up(link, Up::Text(text));
        }
    }

    pub(crate) fn send_up(&mut self, link: usize, up: Up) {
        let side = &mut self.links[link];
        if !side.silent {
            let at = side.up_at(self.now_ms, &mut self.rng);
            self.queue.push(at, Event::Up { link, up });
        }
    }

    fn arrive_up(&mut self, link: usize, up: Up) {
        self.links[link].unread.push_back(up);
        if self.links[link].unread.len() == 1 {
            self.read_link(link);
        }
    }

    /// A node reads what has come over a link, as long as it may.
    fn read_link(&mut self, link: usize) {
        loop {
            let side = &self.links[link];
            let (node, shard, slot) = (side.node, side.shard, side.slot);
            if side.silent || side.paused || !side.server_open || !self.nodes[node].alive {
                return;
            }
            let stalled_until = self.nodes[node].shards[shard].stalled_until_ms;
            if stalled_until > self.now_ms {
                return self.queue.push(stalled_until, Event::Resume { link });
            }
            match self.links[link].unread.pop_front() {
                None => return,
                Some(Up::Text(text)) => self.input(node, shard, Input::Text(slot, &text)),
                Some(Up::Closed) => {
                    self.links[link].server_open = false;
                    self.nodes[node].shards[shard].by_slot.remove(&slot);
                    self.input(node, shard, Input::Closed(slot, CloseCode::GoingAway));
                }
            }
        }
    }

    pub(crate) fn unstall(&mut self, link: usize) {
        let mut wires = Wires { now_ms: self.now_ms, rng: &mut self.rng, sent: &mut self.wires };
        self.links[link].flush(link, &mut wires);
        for (at, link, down) in self.wires.drain(..) {
            self.queue.push(at, Event::Down { link, down });
        }
        let taken = self.links[link].take_letters(link);
        let noted = self.note_given(taken);
        self.violation = self.violation.take().or(noted.err());
    }

    fn arrive_down(&mut self, link: usize, down: Down) -> Checked {
        let side = &self.links[link];
        if side.silent || !side.client_open {
            return Ok(());
        }
        let client = side.client;
        if matches!(&down, Down::Bytes(bytes) if is_hello(bytes)) {
            self.on_let_in(link)?;
        }
        if self.links[link].is_thief {
            self.thief_hears(link, &down);
            return Ok(());
        }
        match down {
            Down::Bytes(bytes) => match self.writer_of(client) {
                Some(writer) => self.writer_hears(writer, &bytes),
                None => self.scene(client, |client, scene| client.hear(&bytes, scene)),
            },
            Down::Closed(code) => {
                if !should_reconnect(code) {
                    return self.on_final(link, code);
                }
                self.check_told(link, code)?;
                self.part(client, Lost::new(code, ""));
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_planned_comes_by_its_time_and_then_in_the_order_in_which_it_was_planned() {
        let (mut queue, mut rng) = (Queue::default(), Rng::new(7));
        let (mut expected, mut heard) = (Vec::new(), Vec::new());
        let (mut now_ms, mut number) = (0, 0);
        while heard.len() < 5_000 {
            for _ in 0..rng.below(3) {
                let at = now_ms + *rng.pick(&[0, 1, 3, 255, 256, 257, 700, 9_000]);
                queue.push(at, Event::LeaseEnd { node: number });
                expected.push((at, number));
                number += 1;
            }
            let end_ms = now_ms + rng.below(400);
            match queue.pop(end_ms) {
                Some((at, Event::LeaseEnd { node })) => {
                    assert!((now_ms..=end_ms).contains(&at));
                    now_ms = at;
                    heard.push((at, node));
                }
                _ => now_ms = end_ms,
            }
        }
        expected.sort_unstable();
        assert_eq!(heard, expected[..heard.len()]);
    }
}
