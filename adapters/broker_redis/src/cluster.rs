//! Which masters a Cluster has, and which slots are whose.
//!
//! Nothing here remembers anything: who wants to know asks again.

use std::ops::RangeInclusive;

use redis::aio::MultiplexedConnection;
use redis::{ConnectionAddr, Value};

use crate::config::Config;
use crate::line::{ConnectError, connect, options};
use crate::servers::{Layout, Place, Servers};
use crate::slots::{SLOTS, SlotMap};

/// The most masters of one Cluster.
const MASTERS_MAX: usize = 1_000;

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

/// Asks the first of these that answers; those that are known before those that stand in the address.
pub(crate) async fn ask(
    servers: &Servers,
    config: &Config,
    known: &[(MultiplexedConnection, ConnectionAddr)],
    others: &[ConnectionAddr],
) -> Result<Topology, ConnectError> {
    for (connection, address) in known {
        if let Ok(topology) = ask_one(servers, connection.clone(), address).await {
            return Ok(topology);
        }
    }
    let mut error = ConnectError::NoSeed;
    for address in others.iter().chain(servers.seeds()) {
        match connect_and_ask(servers, config, address).await {
            Ok(topology) => return Ok(topology),
            Err(wrong) if wrong.is_for_good() => error = wrong,
            Err(_) => {}
        }
    }
    Err(error)
}

async fn connect_and_ask(
    servers: &Servers,
    config: &Config,
    address: &ConnectionAddr,
) -> Result<Topology, ConnectError> {
    let client = servers.client(address.clone())?;
    let connection = connect(&client, &options(config, config.answer_timeout), config).await?;
    ask_one(servers, connection, address).await
}

async fn ask_one(
    servers: &Servers,
    mut connection: MultiplexedConnection,
    address: &ConnectionAddr,
) -> Result<Topology, ConnectError> {
    let answer = redis::cmd("CLUSTER").arg("SLOTS").query_async(&mut connection).await;
    let ranges: Value = answer.map_err(|error: redis::RedisError| {
        let is_none = error.detail().is_some_and(|detail| detail.contains("cluster support"));
        if is_none { ConnectError::NoCluster } else { error.into() }
    })?;
    let asked = match address {
        ConnectionAddr::Tcp(host, _) | ConnectionAddr::TcpTls { host, .. } => host.as_str(),
        _ => "",
    };
    let topology = read(ranges, |host, port| servers.address(host.unwrap_or(asked), port));
    topology.filter(|topology| !topology.masters.is_empty()).ok_or(ConnectError::Strange)
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
