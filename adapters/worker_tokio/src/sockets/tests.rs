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
    let (reader, _) = sockets.insert(slot, id, (ours, None), Bytes::new(), Counted::by_nobody());
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

const ANSWER: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\n\r\n";
const SLOT: Slot = Slot { index: 0, generation: 0 };

/// A client whose answer is held back, and our side of it.
async fn held(sockets: &mut Sockets) -> (TcpStream, OwnedReadHalf) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpSocket::new_v4().unwrap();
    client.set_recv_buffer_size(KERNEL_BYTES as u32).unwrap();
    let (client, ours) =
        tokio::join!(client.connect(listener.local_addr().unwrap()), listener.accept());
    let ours = ours.unwrap().0;
    rustix::net::sockopt::set_socket_send_buffer_size(&ours, KERNEL_BYTES).unwrap();
    let (id, answer) = (ConnectionId::from_bits(0), Bytes::from_static(ANSWER));
    let (reader, _) = sockets.insert(SLOT, id, (ours, None), answer, Counted::by_nobody());
    (client.unwrap(), reader)
}

fn say(sockets: &mut Sockets, words: &'static [u8]) {
    let frame = Frame { bytes: Bytes::from_static(words), class: Class::Reliable, key: None };
    let batch = Batch { joined: &frame.bytes, frames: std::slice::from_ref(&frame) };
    assert_eq!(sockets.deliver(SLOT, &batch), Delivered::Taken);
}

#[tokio::test]
async fn the_answer_to_an_upgrade_leaves_with_the_first_words_in_one_write() {
    let mut sockets = Sockets::new(QUEUE_MAX, TOTAL_MAX, Arc::default());
    let (client, _reader) = held(&mut sockets).await;
    say(&mut sockets, b"hello");
    assert!(sockets.poll_work().is_none(), "a task was started for it");
    // Whoever asks whether the client has taken its first words is not told of what was held.
    assert_eq!((sockets.queued_bytes(SLOT), sockets.total_bytes, sockets.n_queues), (0, 0, 0));
    client.readable().await.unwrap();
    let mut got = [0; 1_024];
    let n = client.try_read(&mut got).unwrap();
    assert_eq!(&got[..n], [ANSWER, b"hello"].concat());
    // From now on each is a write of its own, as for everybody.
    sockets.begin(SLOT);
    say(&mut sockets, b"more");
    client.readable().await.unwrap();
    assert_eq!(client.try_read(&mut got).unwrap(), 4);
}

#[tokio::test]
async fn where_nothing_is_said_the_answer_leaves_when_the_reader_begins_and_a_pong_takes_it_along()
{
    let mut got = [0; 1_024];
    let mut sockets = Sockets::new(QUEUE_MAX, TOTAL_MAX, Arc::default());
    let (client, _reader) = held(&mut sockets).await;
    assert_eq!(sockets.queued_bytes(SLOT), ANSWER.len());
    sockets.begin(SLOT);
    client.readable().await.unwrap();
    let n = client.try_read(&mut got).unwrap();
    assert_eq!(&got[..n], ANSWER);

    let (client, _reader) = held(&mut sockets).await;
    sockets.send_urgent(SLOT, Bytes::from_static(b"pong"));
    client.readable().await.unwrap();
    let n = client.try_read(&mut got).unwrap();
    assert_eq!(&got[..n], [ANSWER, b"pong"].concat());
}

#[tokio::test]
async fn what_the_socket_does_not_take_with_the_answer_is_left_to_a_writer() {
    static LONG: [u8; 256 << 10] = [b'x'; 256 << 10];
    let mut sockets = Sockets::new(QUEUE_MAX, TOTAL_MAX, Arc::default());
    let (client, _reader) = held(&mut sockets).await;
    say(&mut sockets, &LONG);
    say(&mut sockets, b"the end");
    assert!(matches!(sockets.poll_work(), Some(Work::Write(SLOT))));
    let mut got = Vec::new();
    let whole = ANSWER.len() + LONG.len() + 7;
    while got.len() < whole {
        sockets.flush(SLOT).unwrap();
        let _ = client.try_read_buf(&mut got);
        // Both sides are the driver's to look at.
        tokio::task::yield_now().await;
    }
    assert!(got.starts_with(ANSWER) && got.ends_with(b"xthe end"));
    assert_eq!(got.len(), whole);
    assert_eq!((sockets.total_bytes, sockets.n_queues), (0, 0));
}

#[tokio::test]
async fn who_is_closed_before_anything_is_said_is_still_answered_first() {
    let mut sockets = Sockets::new(QUEUE_MAX, TOTAL_MAX, Arc::default());
    let (_client, _reader) = held(&mut sockets).await;
    let ending = Ending { code: CloseCode::Unauthenticated, reason: "no" };
    sockets.close(SLOT, Bytes::from_static(b"the last word"), ending);
    let Some(Work::Close(conn)) = sockets.poll_work() else { panic!("nobody closes it") };
    let waits: Vec<_> = conn.queue.as_ref().unwrap().iter().cloned().collect();
    assert_eq!(waits[..2], [ANSWER, b"the last word"]);
    assert_eq!((sockets.total_bytes, sockets.n_queues), (0, 0));
}
