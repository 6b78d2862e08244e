//! Which masters a Cluster has, and which slots are whose.
//!
//! Nothing here remembers anything: who wants to know asks again.

use std::ops::RangeInclusive;

use redis::aio::MultiplexedConnection;
use redis::{ConnectionAddr, Value};
use tokio::task::JoinSet;

use crate::config::Config;
use crate::line::{ConnectError, connect, options};
use crate::servers::{Layout, Place, Servers};
use crate::slots::{SLOTS, SlotMap};

/// The most masters of one Cluster.
const MASTERS_MAX: usize = 1_000;
/// The most masters that are asked at once who has what.
const ASKED_MAX: usize = 64;

/// All servers that have something.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Topology {
    pub(crate) masters: Vec<Place>,
    pub(crate) slots: SlotMap,
}

impl Topology {
    /// What is known before anybody was asked.
    pub(crate) fn first(layout: Layout) -> Self {
        match layout {
            Layout::One => Self { masters: vec![Place::Only], slots: SlotMap::One },
            Layout::Cluster => Self { masters: Vec::new(), slots: SlotMap::empty() },
        }
    }

    /// The place of a master in the list.
    pub(crate) fn index_of(&self, place: &Place) -> Option<usize> {
        self.masters.iter().position(|master| master == place)
    }
}

/// Some of the slots.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Part {
    All,
    /// In their order, and apart from each other.
    Slots(Vec<RangeInclusive<u16>>),
}

impl Part {
    /// Those of one master.
    pub(crate) fn of(topology: &Topology, place: &Place) -> Self {
        if topology.slots == SlotMap::One {
            return Self::All;
        }
        let index = topology.index_of(place);
        let is_its = |slot| index.is_some() && topology.slots.owner(slot) == index;
        Self::Slots(ranges(is_its))
    }

    /// Those that another master has than before.
    pub(crate) fn moved(before: &Topology, after: &Topology) -> Self {
        let owner = |of: &Topology, slot| {
            of.slots.owner(slot).and_then(|index| of.masters.get(index).cloned())
        };
        let has_moved = |slot| owner(before, slot) != owner(after, slot);
        Self::Slots(ranges(has_moved))
    }

    pub(crate) fn has(&self, slot: u16) -> bool {
        match self {
            Self::All => true,
            Self::Slots(ranges) => {
                let next = ranges.partition_point(|range| *range.end() < slot);
                ranges.get(next).is_some_and(|range| range.contains(&slot))
            }
        }
    }
}

/// The slots for which this holds.
fn ranges(holds: impl Fn(u16) -> bool) -> Vec<RangeInclusive<u16>> {
    let mut ranges: Vec<RangeInclusive<u16>> = Vec::new();
    for slot in (0..SLOTS).filter(|slot| holds(*slot)) {
        match ranges.last_mut() {
            Some(last) if last.end() + 1 == slot => *last = *last.start()..=slot,
            _ => ranges.push(slot..=slot),
        }
    }
    ranges
}

/// What one server says of all.
struct Said {
    topology: Topology,
    standing: Standing,
}

/// How much what a server says is worth: the more, the larger. One that is cut off from most others says so, though
/// not at once; and one that has missed an election knows a smaller epoch.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
struct Standing {
    is_ok: bool,
    epoch: u64,
}

impl Standing {
    /// Reads `CLUSTER INFO`.
    fn read(info: &str) -> Self {
        let field = |name: &str| info.lines().find_map(|line| line.strip_prefix(name));
        let epoch = field("cluster_current_epoch:").and_then(|epoch| epoch.trim().parse().ok());
        let is_ok = field("cluster_state:").is_some_and(|state| state.trim() == "ok");
        Self { is_ok, epoch: epoch.unwrap_or(0) }
    }
}

/// The best of what was said; the first of those that are as good.
fn best(all: impl IntoIterator<Item = Said>) -> Option<Said> {
    all.into_iter().reduce(|best, one| if one.standing > best.standing { one } else { best })
}

/// Asks those that are known, all at once, and believes the one that knows most; where none of them is part of a
/// Cluster that works, those that stand in the address, too.
pub(crate) async fn ask(
    servers: &Servers,
    config: &Config,
    known: &[(MultiplexedConnection, ConnectionAddr)],
    others: &[ConnectionAddr],
) -> Result<Topology, ConnectError> {
    let mut asking = JoinSet::new();
    for (place, (connection, _)) in known.iter().enumerate().take(ASKED_MAX) {
        let connection = connection.clone();
        asking.spawn(async move { (place, ask_one(connection).await) });
    }
    let mut answers = asking.join_all().await;
    answers.sort_unstable_by_key(|(place, _)| *place);
    let said = answers.into_iter().filter_map(|(place, answer)| {
        let (_, address) = known.get(place)?;
        said(servers, address, answer.ok()?).ok()
    });
    let mut found = best(said);
    let mut error = ConnectError::NoSeed;
    for address in others.iter().chain(servers.seeds()) {
        if found.as_ref().is_some_and(|said| said.standing.is_ok) {
            break;
        }
        match connect_and_ask(servers, config, address).await {
            Ok(said) => found = best(found.into_iter().chain([said])),
            Err(wrong) if wrong.is_for_good() => error = wrong,
            Err(_) => {}
        }
    }
    found.map(|said| said.topology).ok_or(error)
}

async fn connect_and_ask(
    servers: &Servers,
    config: &Config,
    address: &ConnectionAddr,
) -> Result<Said, ConnectError> {
    let client = servers.client(address.clone())?;
    let connection = connect(&client, &options(config, config.answer_timeout), config).await?;
    said(servers, address, ask_one(connection).await?)
}

async fn ask_one(mut connection: MultiplexedConnection) -> Result<(Value, String), ConnectError> {
    let answer = redis::cmd("CLUSTER").arg("SLOTS").query_async(&mut connection).await;
    let ranges = answer.map_err(|error: redis::RedisError| {
        let is_none = error.detail().is_some_and(|detail| detail.contains("cluster support"));
        if is_none { ConnectError::NoCluster } else { error.into() }
    })?;
    let info = redis::cmd("CLUSTER").arg("INFO").query_async(&mut connection).await?;
    Ok((ranges, info))
}

fn said(
    servers: &Servers,
    address: &ConnectionAddr,
    (ranges, info): (Value, String),
) -> Result<Said, ConnectError> {
    let asked = match address {
        ConnectionAddr::Tcp(host, _) | ConnectionAddr::TcpTls { host, .. } => host.as_str(),
        _ => "",
    };
    let topology = read(ranges, |host, port| servers.address(host.unwrap_or(asked), port));
    let topology = topology.filter(|topology| !topology.masters.is_empty());
    let topology = topology.ok_or(ConnectError::Strange)?;
    Ok(Said { topology, standing: Standing::read(&info) })
}

/// Reads `[[first, last, [host, port, …], replicas …], …]`. A server that does not know its own address, or is not to
/// say it, is where it was asked.
fn read(ranges: Value, address: impl Fn(Option<&str>, u16) -> ConnectionAddr) -> Option<Topology> {
    let (mut masters, mut slots) = (Vec::new(), SlotMap::empty());
    let Value::Array(ranges) = ranges else { return None };
    for range in ranges {
        let Value::Array(range) = range else { return None };
        let mut range = range.into_iter();
        let (Value::Int(first), Value::Int(last)) = (range.next()?, range.next()?) else {
            return None;
        };
        let Value::Array(master) = range.next()? else { return None };
        let mut master = master.into_iter();
        let host: Option<String> = redis::from_redis_value(master.next()?).ok()?;
        let host = host.filter(|host| !host.is_empty() && host != "?");
        let Value::Int(port) = master.next()? else { return None };
        let place = Place::At(address(host.as_deref(), port.try_into().ok()?));
        let index = match masters.iter().position(|known| *known == place) {
            Some(index) => index,
            None if masters.len() == MASTERS_MAX => return None,
            None => {
                masters.push(place);
                masters.len() - 1
            }
        };
        slots.give(first.try_into().ok()?, last.try_into().ok()?, index.try_into().ok()?);
    }
    Some(Topology { masters, slots })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_text(text: &str) -> Option<Topology> {
        let at =
            |host: Option<&str>, port| ConnectionAddr::Tcp(host.unwrap_or("asked").into(), port);
        read(redis::parse_redis_value(text.as_bytes()).unwrap(), at)
    }

    #[test]
    fn masters_are_read_with_their_slots_and_one_without_a_name_is_where_it_was_asked() {
        let text = "*3\r\n\
            *3\r\n:0\r\n:99\r\n*2\r\n$1\r\na\r\n:7000\r\n\
            *4\r\n:100\r\n:16383\r\n*3\r\n$-1\r\n:7001\r\n$2\r\nid\r\n*2\r\n$1\r\nc\r\n:7002\r\n\
            *3\r\n:50\r\n:60\r\n*2\r\n$0\r\n\r\n:7001\r\n";
        let topology = read_text(text).unwrap();
        let names: Vec<_> = topology.masters.iter().map(Place::name).collect();
        assert_eq!(names, ["a:7000", "asked:7001"]);
        let owners = [0, 55, 99, 100].map(|slot| topology.slots.owner(slot));
        assert_eq!(owners, [Some(0), Some(1), Some(0), Some(1)]);
        assert_eq!(topology.index_of(&topology.masters[1]), Some(1));
    }

    #[test]
    fn what_another_master_has_now_has_moved_wherever_masters_stand_in_the_list() {
        let at = |port| Place::At(ConnectionAddr::Tcp("a".into(), port));
        let mut before = Topology { masters: vec![at(1), at(2)], slots: SlotMap::empty() };
        before.slots.give(0, 9, 0);
        before.slots.give(10, 19, 1);
        let mut after = Topology { masters: vec![at(2), at(1)], slots: SlotMap::empty() };
        after.slots.give(0, 4, 1);
        after.slots.give(5, 19, 0);
        let moved = Part::moved(&before, &after);
        assert!((0..SLOTS).all(|slot| moved.has(slot) == (5..10).contains(&slot)));
        let second = Part::of(&after, &at(2));
        assert!((0..SLOTS).all(|slot| second.has(slot) == (5..20).contains(&slot)));
        assert_eq!(Part::of(&Topology::first(Layout::One), &Place::Only), Part::All);
    }

    #[test]
    fn who_is_part_of_a_working_cluster_and_knows_its_last_election_is_believed() {
        let said = |name: &str, state: &str, epoch: u64| Said {
            topology: Topology {
                masters: vec![Place::At(ConnectionAddr::Tcp(name.into(), 1))],
                slots: SlotMap::empty(),
            },
            standing: Standing::read(&format!(
                "cluster_state:{state}\r\ncluster_slots_ok:16384\r\ncluster_current_epoch:{epoch}\r\n"
            )),
        };
        let believed = |all: Vec<Said>| best(all).map(|said| said.topology.masters[0].name());
        let cut_off = [said("a", "fail", 9), said("b", "ok", 6), said("c", "ok", 7)];
        assert_eq!(believed(cut_off.into()).as_deref(), Some("c:1"));
        let none_works = [said("a", "fail", 6), said("b", "fail", 7), said("c", "fail", 7)];
        assert_eq!(believed(none_works.into()).as_deref(), Some("b:1"));
        assert_eq!(believed(Vec::new()), None);
        assert_eq!(Standing::read("what no server says"), Standing::default());
    }

    #[test]
    fn what_is_no_list_of_slots_is_none() {
        for text in [
            "+OK\r\n",
            "*1\r\n*1\r\n:0\r\n",
            "*1\r\n*3\r\n:0\r\n:1\r\n*1\r\n$1\r\na\r\n",
            "*1\r\n*3\r\n:0\r\n:1\r\n*2\r\n$1\r\na\r\n:70000\r\n",
        ] {
            assert_eq!(read_text(text), None, "{text}");
        }
    }
}
