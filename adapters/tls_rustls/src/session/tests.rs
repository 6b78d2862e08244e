//! Sessions against the rustls client, in pieces of every kind.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use rustls::version::{TLS12, TLS13};
use rustls::{AlertDescription, ConnectionTrafficSecrets, Error, HandshakeKind};

use super::*;
use crate::testing::{Files, Pair};
use crate::{Acceptor, MinVersion};

fn pair_of(files: &Files, step: usize) -> Pair {
    let session = files.acceptor().session().unwrap();
    Pair::new(session, files.client(&[&TLS13, &TLS12], &["http/1.1"]), step)
}

#[test]
fn bytes_cross_both_ways_however_the_records_are_cut_and_whatever_the_version() {
    let files = Files::new();
    for version in [&TLS13, &TLS12] {
        for step in [1, 7, 1_000, 100_000] {
            let session = files.acceptor().session().unwrap();
            let mut pair = Pair::new(session, files.client(&[version], &["http/1.1"]), step);
            pair.carry().unwrap();
            assert!(!pair.server.is_handshaking());
            assert_eq!(pair.client.alpn_protocol(), Some(&b"http/1.1"[..]));
            let long: Vec<u8> = (0..40_000_u32).map(|n| n as u8).collect();
            pair.say(&long);
            pair.carry().unwrap();
            assert_eq!(pair.plain, long, "{version:?} {step}");
            let mut records = Vec::new();
            pair.server.seal(&long, &mut records).unwrap();
            pair.server.seal(b"more", &mut records).unwrap();
            let got = pair.read_by_client(&records);
            assert!(got.starts_with(&long) && got.ends_with(b"more"), "{version:?} {step}");
        }
    }
}

#[test]
fn an_idle_session_keeps_nothing_and_a_cut_record_only_its_bytes() {
    let mut pair = pair_of(&Files::new(), 100_000);
    pair.carry().unwrap();
    pair.say(b"hello");
    pair.carry().unwrap();
    assert_eq!(pair.server.rest.capacity(), 0);
    pair.say(&[1; 1_000]);
    let mut records = Vec::new();
    pair.client.write_tls(&mut records).unwrap();
    let (first, last) = records.split_at_mut(500);
    let (mut plain, mut out) = (Vec::new(), Vec::new());
    pair.server.receive(first, &mut plain, &mut out).unwrap();
    assert!(plain.is_empty() && pair.server.rest.len() == 500);
    // What is sealed meanwhile is not in the way of what is incomplete.
    pair.server.seal(b"meanwhile", &mut out).unwrap();
    assert_eq!(pair.read_by_client(&out), b"meanwhile");
    pair.server.receive(last, &mut plain, &mut Vec::new()).unwrap();
    assert_eq!(plain, [1; 1_000]);
    assert_eq!(pair.server.rest.capacity(), 0);
}

#[test]
fn the_end_of_either_side_is_seen_by_the_other() {
    let mut pair = pair_of(&Files::new(), 100_000);
    pair.carry().unwrap();
    let mut out = Vec::new();
    pair.server.seal(b"bye", &mut out).unwrap();
    pair.server.close(&mut out).unwrap();
    assert_eq!(pair.read_by_client(&out), b"bye");
    let state = pair.client.process_new_packets().unwrap();
    assert!(state.peer_has_closed());
    pair.client.send_close_notify();
    pair.carry().unwrap();
    assert!(pair.ended);
    let more = pair.server.receive(&mut [1, 2, 3], &mut Vec::new(), &mut Vec::new());
    assert!(more.unwrap().ended);
}

#[test]
fn a_client_that_ended_first_can_still_be_told_something() {
    let mut pair = pair_of(&Files::new(), 100_000);
    pair.carry().unwrap();
    pair.client.send_close_notify();
    pair.carry().unwrap();
    assert!(pair.ended);
    let mut out = Vec::new();
    pair.server.seal(b"last words", &mut out).unwrap();
    pair.server.close(&mut out).unwrap();
    assert_eq!(pair.read_by_client(&out), b"last words");
}

#[test]
fn new_keys_on_either_side_are_followed() {
    let mut pair = pair_of(&Files::new(), 100_000);
    pair.carry().unwrap();
    pair.client.refresh_traffic_keys().unwrap();
    pair.say(b"under new keys");
    pair.carry().unwrap();
    assert_eq!(pair.plain, b"under new keys");
    let mut out = Vec::new();
    pair.server.seal(b"and back", &mut out).unwrap();
    assert_eq!(pair.read_by_client(&out), b"and back");
}

#[test]
fn rubbish_is_answered_with_an_alert_and_the_session_is_over() {
    let session = Files::new().acceptor().session();
    for rubbish in
        [&b"\x00\x01\x02\x03\x04\x05\x06"[..], b"\x16\x03\x01\xff\xff\x01", b"\x80\x2e\x01"]
    {
        let mut session = Files::new().acceptor().session().unwrap();
        let mut out = Vec::new();
        let (mut plain, mut bytes) = (Vec::new(), rubbish.to_vec());
        bytes.resize(64, 0);
        assert!(session.receive(&mut bytes, &mut plain, &mut out).is_err(), "{rubbish:?}");
        assert_eq!(out.first(), Some(&0x15), "an alert: {out:?}");
        let again = session.receive(&mut [0x16], &mut plain, &mut out);
        assert!(matches!(again, Err(TlsError::Over)));
        assert!(matches!(session.seal(b"x", &mut out), Err(TlsError::Over)));
    }
    assert!(session.is_ok());
}

#[test]
fn a_record_that_was_changed_on_the_way_ends_the_session_with_an_alert() {
    let mut pair = pair_of(&Files::new(), 100_000);
    pair.carry().unwrap();
    pair.say(b"hello");
    let mut records = Vec::new();
    pair.client.write_tls(&mut records).unwrap();
    records[7] ^= 1;
    let (mut plain, mut out) = (Vec::new(), Vec::new());
    let broken = pair.server.receive(&mut records, &mut plain, &mut out);
    assert!(matches!(broken, Err(TlsError::Broken(Error::DecryptError))), "{broken:?}");
    assert!(plain.is_empty() && !out.is_empty());
    assert!(matches!(pair.server.seal(b"x", &mut out), Err(TlsError::Over)));
}

#[test]
fn who_offers_nothing_that_is_spoken_here_is_told_by_an_alert() {
    let files = Files::new();
    let only_new = Acceptor::build(files.identity(), MinVersion::Tls13).unwrap();
    let old = files.client(&[&TLS12], &["http/1.1"]);
    let mut pair = Pair::new(only_new.session().unwrap(), old, 100_000);
    assert!(pair.carry().is_err());
    let said = pair.client.process_new_packets().unwrap_err();
    assert_eq!(said, Error::AlertReceived(AlertDescription::ProtocolVersion));
    let h2 = files.client(&[&TLS13, &TLS12], &["h2"]);
    let mut pair = Pair::new(files.acceptor().session().unwrap(), h2, 100_000);
    assert!(pair.carry().is_err());
    let said = pair.client.process_new_packets().unwrap_err();
    assert_eq!(said, Error::AlertReceived(AlertDescription::NoApplicationProtocol));
}

#[test]
fn nothing_is_sealed_before_hands_are_shaken() {
    let mut session = Files::new().acceptor().session().unwrap();
    assert!(session.seal(b"x", &mut Vec::new()).is_err());
}

#[test]
fn a_new_certificate_is_shown_to_who_comes_then_and_who_is_there_goes_on() {
    let (before, after) = (Files::new(), Files::new());
    let acceptor = before.acceptor();
    let client = before.client(&[&TLS13], &["http/1.1"]);
    let mut there = Pair::new(acceptor.session().unwrap(), client, 100_000);
    there.carry().unwrap();
    acceptor.replace(after.identity());
    there.say(b"still here");
    there.carry().unwrap();
    assert_eq!(there.plain, b"still here");
    let client = after.client(&[&TLS13], &["http/1.1"]);
    let mut newcomer = Pair::new(acceptor.session().unwrap(), client, 100_000);
    newcomer.carry().unwrap();
    assert!(!newcomer.server.is_handshaking());
    assert_eq!(newcomer.client.handshake_kind(), Some(HandshakeKind::Full));
    let client = before.client(&[&TLS13], &["http/1.1"]);
    let mut suspicious = Pair::new(acceptor.session().unwrap(), client, 100_000);
    // The old certificate is not shown any more.
    let _ = suspicious.carry();
    assert!(suspicious.client.is_handshaking());
}

/// A record of TLS 1.3 made by hand, under the keys of a client.
fn record(secrets: &(u64, ConnectionTrafficSecrets), kind: u8, message: &[u8]) -> Vec<u8> {
    let (number, ConnectionTrafficSecrets::Aes256Gcm { key, iv }) = secrets else {
        panic!("the client was to use AES-256-GCM");
    };
    let mut nonce = [0; 12];
    nonce.copy_from_slice(iv.as_ref());
    for (byte, of_number) in nonce[4..].iter_mut().zip(number.to_be_bytes()) {
        *byte ^= of_number;
    }
    let mut inner = [message, &[kind]].concat();
    let length = u16::try_from(inner.len() + 16).unwrap().to_be_bytes();
    let head = [0x17, 0x03, 0x03, length[0], length[1]];
    let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key.as_ref()).unwrap());
    let nonce = Nonce::assume_unique_for_key(nonce);
    key.seal_in_place_append_tag(nonce, Aad::from(head), &mut inner).unwrap();
    [&head[..], &inner].concat()
}

/// rustls counts positions in what it was shown, so it must be shown that again.
#[test]
fn sealing_between_two_halves_of_a_message_of_the_session_itself_is_no_danger() {
    let files = Files::new();
    let client = files.client_with(&[&TLS13], &[], |config| config.enable_secret_extraction = true);
    let mut pair = Pair::new(files.acceptor().session().unwrap(), client, 100_000);
    pair.carry().unwrap();
    let Pair { mut server, client, .. } = pair;
    let mut tx = client.dangerous_extract_secrets().unwrap().tx;
    // KeyUpdate, which asks for an answer, cut in two.
    let (mut plain, mut out) = (Vec::new(), Vec::new());
    server.receive(&mut record(&tx, 0x16, &[0x18, 0x00]), &mut plain, &mut out).unwrap();
    assert!(out.is_empty());
    server.seal(b"meanwhile", &mut out).unwrap();
    assert!(!std::mem::take(&mut out).is_empty());
    tx.0 += 1;
    let mut rest = record(&tx, 0x16, &[0x00, 0x01, 0x01]);
    server.receive(&mut rest, &mut plain, &mut out).unwrap();
    server.seal(b"under new keys", &mut out).unwrap();
    assert!(plain.is_empty() && !out.is_empty());
}
