//! Lists and ends what is on all nodes, for the server API.
//!
//! This node's part comes first; the others are asked at once and waited for together. What could not be had
//! is named: a list must never look whole when it is not.

use std::collections::BTreeMap;
use std::sync::Arc;

use domain::room::RoomId;

use crate::inquiry::{Of, PAGE_MAX, RoomHere};
use crate::peer::begins;
use crate::ports::{Heard, NodeName, PeerAnswer, PeerQuestion, Peers};
use crate::use_cases::end_connections::EndConnections;
use crate::use_cases::list_connections::{ConnectionCursor, ConnectionsPage};
use crate::use_cases::list_rooms::{ListRooms, RoomsPage, later};

/// Something of all nodes.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct OfAll<T> {
    /// What those have that answered.
    pub found: T,
    /// Nodes that are there and did not answer.
    pub missing: Vec<NodeName>,
    /// Whether it is not even known which nodes are there.
    pub unknown: bool,
}

impl<T> OfAll<T> {
    /// Whether something may be missing.
    #[must_use]
    pub const fn is_incomplete(&self) -> bool {
        self.unknown || !self.missing.is_empty()
    }

    fn of(found: T, heard: Heard) -> Self {
        Self { found, missing: heard.missing, unknown: heard.unknown }
    }
}

/// Where a page of connections of all nodes begins.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct PlaceOfAll {
    /// The node; none where there are no others.
    pub node: Option<NodeName>,
    /// Where on it.
    pub at: ConnectionCursor,
}

/// A page of connections of all nodes.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct ConnectionsOfAll {
    /// By node, in the order of shards and slots.
    pub connections: Vec<crate::inquiry::ConnectionHere>,
    /// Where the next page begins; none at the end.
    pub next: Option<PlaceOfAll>,
}

/// Adds the rooms of the other nodes to those of this one. Names are the order everywhere, so the first of
/// all pages are the first of all nodes.
pub async fn rooms_of_all(
    peers: &Arc<dyn Peers>,
    list: ListRooms,
    here: RoomsPage,
) -> OfAll<RoomsPage> {
    let rooms_max = list.rooms_max.clamp(1, PAGE_MAX) as usize;
    let heard = peers.ask(PeerQuestion::Rooms(list)).await;
    let (mut all, mut is_more) = (BTreeMap::<RoomId, RoomHere>::new(), here.more);
    let mut pages = vec![here.rooms];
    for (_, answer) in &heard.answers {
        if let PeerAnswer::Rooms(page) = answer {
            is_more |= page.more;
            pages.push(page.rooms.clone());
        }
    }
    for room in pages.into_iter().flatten() {
        match all.get_mut(&room.room) {
            Some(known) => {
                known.members = known.members.saturating_add(room.members);
                known.position = later(known.position, room.position);
            }
            None => drop(all.insert(room.room.clone(), room)),
        }
    }
    is_more |= all.len() > rooms_max;
    let rooms = all.into_values().take(rooms_max).collect();
    OfAll::of(RoomsPage { rooms, more: is_more }, heard)
}

/// Where this node's part of a page begins; none where the page is behind it.
#[must_use]
pub fn begins_here(peers: &Arc<dyn Peers>, from: &PlaceOfAll) -> Option<ConnectionCursor> {
    let Some(name) = peers.name() else { return Some(from.at) };
    begins(&name, from.node.as_ref().map(|node| (node.clone(), from.at)).as_ref())
}

/// Adds the connections of the other nodes to those of this one: node by node, in the order of their names,
/// each with a whole page of its own, for as long as they fit.
pub async fn connections_of_all(
    peers: &Arc<dyn Peers>,
    of: Of,
    from: PlaceOfAll,
    connections_max: u32,
    here: ConnectionsPage,
) -> OfAll<ConnectionsOfAll> {
    let Some(name) = peers.name() else {
        let next = here.next.map(|at| PlaceOfAll { node: None, at });
        let found = ConnectionsOfAll { connections: here.connections, next };
        return OfAll::of(found, Heard::default());
    };
    let connections_max = connections_max.clamp(1, PAGE_MAX);
    let from = from.node.map(|node| (node, from.at));
    let question = PeerQuestion::Connections { of, from: from.clone(), connections_max };
    let heard = peers.ask(question).await;
    let mut pages = BTreeMap::from([(name, here)]);
    for (node, answer) in &heard.answers {
        if let PeerAnswer::Connections(page) = answer {
            pages.insert(node.clone(), page.clone());
        }
    }
    let mut found = ConnectionsOfAll::default();
    for (node, page) in pages {
        let Some(at) = begins(&node, from.as_ref()) else { continue };
        if found.connections.len() + page.connections.len() > connections_max as usize {
            found.next = Some(PlaceOfAll { node: Some(node), at });
            break;
        }
        found.connections.extend(page.connections);
        if let Some(at) = page.next {
            found.next = Some(PlaceOfAll { node: Some(node), at });
            break;
        }
    }
    OfAll::of(found, heard)
}

/// Has the other nodes end connections, too, and adds how many they have.
pub async fn end_on_all(
    peers: &Arc<dyn Peers>,
    end: EndConnections,
    ended_here: usize,
) -> OfAll<usize> {
    let EndConnections { whom, code } = end;
    let heard = peers.ask(PeerQuestion::End { whom, code }).await;
    let counts = heard.answers.iter().map(|(_, answer)| match answer {
        PeerAnswer::Ended(count) => *count,
        PeerAnswer::Rooms(_) | PeerAnswer::Connections(_) | PeerAnswer::Hears(_) => 0,
    });
    let ended = ended_here + counts.sum::<usize>();
    OfAll::of(ended, heard)
}

#[cfg(test)]
mod tests;
