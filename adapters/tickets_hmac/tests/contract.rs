//! The contract of the port, and what only these tickets have: versions and what their secrets must
//! be.

#![allow(clippy::unwrap_used, reason = "a failed step of a test stops the test")]

use std::time::Duration;

use application::ports::{SessionTickets, TicketError};
use application::testing::session_tickets_contract::check;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use domain::id::UserId;
use domain::principal::{Credential, Principal};
use domain::time::Wall;
use secrecy::SecretString;
use tickets_hmac::{BuildError, HmacTickets, SECRETS_MAX};

const HOUR: Duration = Duration::from_secs(3_600);

fn build(secrets: &[&str], lifetime: Duration) -> Result<HmacTickets, BuildError> {
    let secrets: Vec<_> = secrets.iter().copied().map(SecretString::from).collect();
    HmacTickets::build(&secrets, "production", lifetime)
}

fn now() -> Wall {
    Wall::from_millis(1_763_717_880_000)
}

fn ann() -> Principal {
    let credential = Credential { verified_at: Some(now()), ..Credential::default() };
    Principal { user: UserId::parse("ann").ok(), credential, ..Principal::default() }
}

#[test]
fn a_ticket_counts_only_where_tokens_are_judged_by_the_same() {
    let secret = [SecretString::from("a secret of at least thirty-two bytes")];
    let of = |judged_by: &str| HmacTickets::build(&secret, judged_by, HOUR).unwrap();
    let ticket = of("development\nlogin").seal(&ann(), now()).unwrap();
    assert_eq!(of("development\nlogin").open(&ticket, now()), Ok(ann()));
    for other in ["production\nlogin", "development\nlogin2", "development", ""] {
        assert_eq!(of(other).open(&ticket, now()), Err(TicketError::UnknownKey), "{other:?}");
    }
}

#[test]
fn hmac_tickets_keep_the_contract() {
    check(&|secrets, lifetime| Box::new(build(secrets, lifetime).unwrap()));
}

#[test]
fn a_ticket_of_another_version_is_refused_even_with_a_right_key() {
    let tickets = build(&["a secret of at least thirty-two bytes"], HOUR).unwrap();
    let (principal, now) = (ann(), now());
    let bytes = URL_SAFE_NO_PAD.decode(tickets.seal(&principal, now).unwrap()).unwrap();
    for version in (0..=u8::MAX).filter(|version| *version != bytes[0]) {
        let mut other = bytes.clone();
        other[0] = version;
        let other = URL_SAFE_NO_PAD.encode(other);
        assert_eq!(tickets.open(&other, now), Err(TicketError::Malformed), "{version}");
    }
    let mut strange = bytes.clone();
    strange[1] ^= 1;
    let strange = URL_SAFE_NO_PAD.encode(strange);
    assert_eq!(tickets.open(&strange, now), Err(TicketError::UnknownKey));
    // The tag of other bytes, under the right key: the head is signed too.
    let mut cut = bytes[..bytes.len() - 32].to_vec();
    cut.extend_from_slice(&[0; 32]);
    let cut = URL_SAFE_NO_PAD.encode(cut);
    assert_eq!(tickets.open(&cut, now), Err(TicketError::Signature));
}

#[test]
fn secrets_that_are_missing_short_or_too_many_are_refused_without_being_shown() {
    assert_eq!(build(&[], HOUR).unwrap_err(), BuildError::NoSecret);
    let good = "a secret of at least thirty-two bytes";
    let error = build(&[good, "hunter2"], HOUR).unwrap_err();
    assert_eq!(error, BuildError::Short { number: 2, n_bytes: 7 });
    assert!(!error.to_string().contains("hunter2"), "{error}");
    let many = vec![good; SECRETS_MAX + 1];
    assert_eq!(build(&many, HOUR).unwrap_err(), BuildError::TooMany { n_secrets: 9 });
    let shown = format!("{:?}", build(&[good], HOUR).unwrap());
    assert!(!shown.contains("secret of"), "{shown}");
}
