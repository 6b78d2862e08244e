//! What may wait for all connections of a worker together, over real sockets whose clients read nothing.

use tokio::net::{TcpListener, TcpSocket};

use super::*;

/// What may wait for all of them, and for one.
const TOTAL_MAX: usize = 1 << 20;
const QUEUE_MAX: usize = 1 << 20;
const MESSAGE: usize = 16 << 10;
/// Both buffers of a connection in the kernel: small, so that they are full soon.
const KERNEL_BYTES: usize = 8 << 10;

/// A client that reads nothing, and our side of it.
struct Stuck {
    slot: Slot,
    _client: TcpStream,
    _reader: OwnedReadHalf,
}

fn deliver(sockets: &mut Sockets, to: Slot) -> Delivered {
    let bytes = sockets.frame(&[b'x'; MESSAGE]);
    let frame = Frame { bytes, class: Class::Reliable, key: None };
    sockets.deliver(to, &Batch { joined: &frame.bytes, frames: std::slice::from_ref(&frame) })
}

async fn stuck(sockets: &mut Sockets, listener: &TcpListener, index: u32) -> Stuck {
    let client = TcpSocket::new_v4().unwrap();
    client.set_recv_buffer_size(KERNEL_BYTES as u32).unwrap();
    let (client, ours) =
        tokio::join!(client.connect(listener.local_addr().unwrap()), listener.accept());
    let ours = ours.unwrap().0;
    rustix::net::sockopt::set_socket_send_buffer_size(&ours, KERNEL_BYTES).unwrap();
    let slot = Slot { index, generation: 0 };
    let id = ConnectionId::from_bits(u64::from(index));
    let (reader, _) = sockets.insert(slot, id, ours, None, Counted::by_nobody());
    while sockets.queued_bytes(slot) == 0 {
        assert_eq!(deliver(sockets, slot), Delivered::Taken);
    }
    Stuck { slot, _client: client.unwrap(), _reader: reader }
}

/// Delivers until this much waits for one.
fn fill(sockets: &mut Sockets, to: Slot, bytes: usize) {
    while sockets.queued_bytes(to) < bytes {
        assert_eq!(deliver(sockets, to), Delivered::Taken, "{}", sockets.total_bytes);
    }
}

/// S02.
#[tokio::test]
async fn when_many_are_stuck_the_longest_queues_are_refused_first_and_all_together_stay_bounded() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut sockets = Sockets::new(QUEUE_MAX, TOTAL_MAX, Arc::default());
    let mut all = Vec::new();
    for index in 0..20 {
        all.push(stuck(&mut sockets, &listener, index).await);
    }
    let (longest, short) = (all[0].slot, all[1].slot);
    fill(&mut sockets, longest, TOTAL_MAX / 2);
    while sockets.total_bytes + MESSAGE < TOTAL_MAX {
        for one in &all[2..] {
            assert_eq!(deliver(&mut sockets, one.slot), Delivered::Taken);
        }
    }
    // Over the budget: who has less than the average still gets what comes, who has more is to end.
    assert_eq!(deliver(&mut sockets, short), Delivered::Taken);
    assert_eq!(deliver(&mut sockets, longest), Delivered::Refused);
    // Whatever comes for whomever, the sum does not grow by more than an eighth.
    let mut refused = vec![longest];
    for _ in 0..100 {
        for one in &all {
            if deliver(&mut sockets, one.slot) == Delivered::Refused && !refused.contains(&one.slot)
            {
                refused.push(one.slot);
            }
            let most = TOTAL_MAX + TOTAL_MAX / 8 + 2 * MESSAGE;
            assert!(sockets.total_bytes <= most, "{}", sockets.total_bytes);
        }
    }
    assert!(refused.len() > 10, "{refused:?}");
    // Once those have ended there is room again.
    for slot in &refused {
        sockets.remove(*slot);
    }
    assert!(sockets.total_bytes <= TOTAL_MAX / 2);
    let fresh = stuck(&mut sockets, &listener, 30).await;
    assert_eq!(deliver(&mut sockets, fresh.slot), Delivered::Taken);
}
