//! Pages over several nodes, of which some answer.

use super::*;
use crate::inquiry::ConnectionHere;
use crate::ports::peers::MockPeers;
use domain::id::{ClientId, ConnectionId};
use domain::time::Wall;

fn node(name: &str) -> NodeName {
    NodeName::parse(name).unwrap()
}

fn peers(name: &str, heard: Heard) -> Arc<dyn Peers> {
    let mut peers = MockPeers::new();
    let name = node(name);
    peers.expect_name().returning(move || Some(name.clone()));
    peers.expect_ask().returning(move |_| {
        let heard = heard.clone();
        Box::pin(async move { heard })
    });
    Arc::new(peers)
}

fn room(name: &str, members: u32) -> RoomHere {
    RoomHere { room: RoomId::parse(name).unwrap(), members, position: None }
}

fn connection(bits: u64) -> ConnectionHere {
    ConnectionHere {
        connection: ConnectionId::from_bits(bits),
        client: ClientId::parse("c").unwrap(),
        user: None,
        since: Wall::default(),
        rooms: 0,
        patterns: 0,
    }
}

fn page(bits: std::ops::Range<u64>, next: Option<u32>) -> ConnectionsPage {
    ConnectionsPage {
        connections: bits.map(connection).collect(),
        next: next.map(|slot| ConnectionCursor { shard: 0, slot }),
    }
}

#[tokio::test]
async fn a_room_of_several_nodes_is_one_room_with_the_members_of_all() {
    let there = RoomsPage { rooms: vec![room("public:a", 2), room("public:c", 1)], more: false };
    let heard = Heard {
        answers: vec![(node("b"), PeerAnswer::Rooms(there))],
        missing: vec![node("c")],
        unknown: false,
    };
    let here = RoomsPage { rooms: vec![room("public:a", 3), room("public:b", 1)], more: false };
    let list = ListRooms { prefix: Arc::from(""), after: None, rooms_max: 2 };
    let all = rooms_of_all(&peers("a", heard), list, here).await;
    assert_eq!(all.found.rooms, [room("public:a", 5), room("public:b", 1)]);
    assert!(all.found.more && all.is_incomplete());
    assert_eq!(all.missing, [node("c")]);
}

#[tokio::test]
async fn pages_go_from_node_to_node_in_the_order_of_their_names_and_none_is_cut() {
    let asked = |from: PlaceOfAll, here: ConnectionsPage, there: ConnectionsPage| async move {
        let heard = Heard {
            answers: vec![(node("b"), PeerAnswer::Connections(there))],
            ..Heard::default()
        };
        connections_of_all(&peers("a", heard), Of::default(), from, 4, here).await
    };
    // What the next node has does not fit any more: it begins the next page.
    let first = asked(PlaceOfAll::default(), page(0..3, None), page(10..13, None)).await;
    let next = PlaceOfAll { node: Some(node("b")), at: ConnectionCursor::default() };
    assert_eq!((first.found.connections.len(), &first.found.next), (3, &Some(next.clone())));
    assert_eq!(begins_here(&peers("a", Heard::default()), &next), None);
    let second = asked(next, ConnectionsPage::default(), page(10..13, None)).await;
    assert_eq!((second.found.connections.len(), second.found.next), (3, None));
    // A node that has more is gone on with.
    let more = asked(PlaceOfAll::default(), page(0..4, Some(9)), page(10..13, None)).await;
    let at = ConnectionCursor { shard: 0, slot: 9 };
    assert_eq!(more.found.next, Some(PlaceOfAll { node: Some(node("a")), at }));
    assert!(!more.is_incomplete());
}

#[tokio::test]
async fn who_is_alone_asks_nobody_and_a_place_of_its_own_has_no_node() {
    let alone: Arc<dyn Peers> = Arc::new(crate::ports::NoPeers);
    let from = PlaceOfAll { node: None, at: ConnectionCursor { shard: 1, slot: 2 } };
    assert_eq!(begins_here(&alone, &from), Some(from.at));
    let all = connections_of_all(&alone, Of::default(), from, 4, page(0..4, Some(7))).await;
    assert_eq!(all.found.next.unwrap().node, None);
    let code = domain::codes::CloseCode::Idle;
    let whom = crate::inquiry::Whom::Connection(ConnectionId::from_bits(1));
    assert_eq!(end_on_all(&alone, EndConnections { whom, code }, 3).await.found, 3);
}
