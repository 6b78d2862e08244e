//! What a connection costs: nothing when idle, and never more than what really arrived.

use websocket_codec::{Decoder, Limits, Opcode, Role};

use crate::support::{LIMITS, client_frame, client_header_64, feed};

/// The growth of a vector at most doubles it, from a first small size.
const fn cost_max(arrived: usize) -> usize {
    2 * arrived + 8
}

#[test]
fn an_idle_decoder_is_small_and_holds_no_heap() {
    assert!(size_of::<Decoder>() <= 64);
    assert_eq!(Decoder::new(Role::Server).buffer_bytes(), 0);
}

#[test]
fn a_declared_length_reserves_nothing_whatever_the_limit() {
    let limits = Limits { message_bytes_max: usize::MAX, fragments_max: u32::MAX };
    for declared in [1 << 16, 1 << 31, 1 << 32, 1 << 62, (1 << 63) - 1] {
        let mut decoder = Decoder::new(Role::Server);
        let mut heard = Vec::new();
        feed(&mut decoder, &client_header_64(0x82, declared), &limits, &mut heard).unwrap();
        assert_eq!(decoder.buffer_bytes(), 0);
        feed(&mut decoder, &[0; 100], &limits, &mut heard).unwrap();
        assert!(decoder.buffer_bytes() <= cost_max(100));
        assert_eq!(heard, []);
    }
}

#[test]
fn fragments_cannot_overflow_the_sum_of_declared_lengths() {
    let limits = Limits { message_bytes_max: usize::MAX, fragments_max: u32::MAX };
    let mut decoder = Decoder::new(Role::Server);
    let mut heard = Vec::new();
    feed(&mut decoder, &client_frame(Opcode::Binary, false, b"ab"), &limits, &mut heard).unwrap();
    let rest = client_header_64(0x80, i64::MAX as u64);
    feed(&mut decoder, &rest, &limits, &mut heard).unwrap();
    feed(&mut decoder, b"cd", &limits, &mut heard).unwrap();
    assert!(decoder.buffer_bytes() <= cost_max(4));
}

#[test]
fn the_buffer_grows_with_the_bytes_that_arrive_and_is_released_with_the_message() {
    let stream = client_frame(Opcode::Text, true, &[b'x'; 50_000]);
    let mut decoder = Decoder::new(Role::Server);
    let mut heard = Vec::new();
    let mut arrived = 0;
    for piece in stream.chunks(1000) {
        feed(&mut decoder, piece, &LIMITS, &mut heard).unwrap();
        arrived += piece.len();
        assert!(decoder.buffer_bytes() <= cost_max(arrived));
    }
    assert_eq!(heard.len(), 1);
    assert_eq!(decoder.buffer_bytes(), 0);
}

#[test]
fn a_split_header_needs_no_heap() {
    let header = client_header_64(0x82, 65536);
    let mut decoder = Decoder::new(Role::Server);
    for byte in &header {
        feed(&mut decoder, &[*byte], &LIMITS, &mut Vec::new()).unwrap();
        assert_eq!(decoder.buffer_bytes(), 0);
    }
}

#[test]
fn a_split_control_frame_leaves_no_heap_behind() {
    let mut decoder = Decoder::new(Role::Server);
    let mut heard = Vec::new();
    for byte in client_frame(Opcode::Ping, true, &[7; 125]) {
        feed(&mut decoder, &[byte], &LIMITS, &mut heard).unwrap();
    }
    assert_eq!(heard.len(), 1);
    assert_eq!(decoder.buffer_bytes(), 0);
}

#[test]
fn endless_pings_inside_a_message_do_not_grow_it() {
    let mut decoder = Decoder::new(Role::Server);
    let mut heard = Vec::new();
    let open = client_frame(Opcode::Text, false, &[b'x'; 10]);
    feed(&mut decoder, &open, &LIMITS, &mut heard).unwrap();
    let ping = client_frame(Opcode::Ping, true, &[7; 125]);
    for _ in 0..1000 {
        let (head, tail) = ping.split_at(50);
        feed(&mut decoder, head, &LIMITS, &mut heard).unwrap();
        feed(&mut decoder, tail, &LIMITS, &mut heard).unwrap();
        assert!(decoder.buffer_bytes() <= cost_max(10 + 125));
    }
    assert_eq!(heard.len(), 1000);
}
