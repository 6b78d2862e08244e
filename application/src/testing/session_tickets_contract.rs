//! The contract of the `session_tickets` port.
//!
//! It knows how to build tickets from secrets and a lifetime, and nothing about how a ticket looks
//! inside, but that it is ASCII; so it must never ask for more than every signed ticket can promise.

#![allow(clippy::expect_used, reason = "a contract suite is a test")]

use std::sync::Arc;
use std::time::Duration;

use domain::id::{Role, TokenId, UserId};
use domain::principal::{Action, Credential, Grant, Principal, RoomPattern};
use domain::protocol::client_frame::SESSION_BYTES_MAX;
use domain::time::Wall;

use crate::ports::{SessionTickets, TicketError};

const LIFETIME: Duration = Duration::from_secs(3_600);
const SECRETS: [&str; 3] = [
    "the first secret, 32 bytes or more of it",
    "the second secret, of a length of its own",
    "one that nobody here has been told about",
];

/// Builds tickets from secrets, the first of which signs, and a lifetime.
pub type BuildTickets<'c> = &'c dyn Fn(&[&str], Duration) -> Box<dyn SessionTickets>;

/// Checks everything below.
///
/// # Panics
/// When the tickets break the contract.
pub fn check(build: BuildTickets<'_>) {
    a_ticket_brings_back_exactly_whom_it_was_made_for(build);
    a_ticket_ends_with_its_token_or_its_lifetime_whichever_comes_first(build);
    coming_back_with_a_ticket_never_makes_the_next_one_last_longer(build);
    a_shorter_lifetime_counts_for_tickets_that_were_made_before(build);
    nobody_in_particular_and_nobody_whose_time_is_over_gets_a_ticket(build);
    a_changed_character_anywhere_never_passes(build);
    a_flipped_bit_anywhere_never_passes(build);
    a_ticket_cut_short_or_extended_never_passes(build);
    anything_that_is_no_ticket_is_refused(build);
    a_ticket_of_another_secret_never_passes(build);
    an_old_secret_opens_and_the_first_one_seals(build);
    the_largest_principal_of_a_token_fits_and_a_larger_one_gets_no_ticket(build);
}

fn now() -> Wall {
    Wall::from_millis(1_763_717_880_000)
}

fn user(name: &str) -> Principal {
    let grant = |pattern: &str, actions: &[Action]| {
        Grant::new(RoomPattern::parse(pattern).expect("a pattern"), actions)
    };
    Principal {
        user: UserId::parse(name).ok(),
        name: Some(Arc::from("Ann, \"the\" \u{1f980}")),
        roles: vec![Role::parse("moderator").expect("a role")],
        grants: vec![
            grant("chat:guild/*", &[Action::Subscribe, Action::History]),
            grant("chat:guild/7", &[]),
            grant("game:events", &Action::ALL),
        ],
        expires_at: Some(now().after(Duration::from_secs(600))),
        credential: Credential {
            id: TokenId::parse("7f3e").ok(),
            issued_at: Some(Wall::from_millis(now().as_millis() - 5_000)),
            verified_at: Some(now()),
            once: false,
        },
    }
}

fn sealed(tickets: &dyn SessionTickets) -> String {
    tickets.seal(&user("ann"), now()).expect("a user gets a ticket")
}

/// All of it, and as often as it is shown.
///
/// # Panics
/// When the tickets break the contract.
pub fn a_ticket_brings_back_exactly_whom_it_was_made_for(build: BuildTickets<'_>) {
    let tickets = build(&SECRETS[..1], LIFETIME);
    let credential = Credential { verified_at: Some(now()), ..Credential::default() };
    let plain = Principal { user: UserId::parse("bob").ok(), credential, ..Principal::default() };
    for principal in [user("ann"), plain] {
        let ticket = tickets.seal(&principal, now()).expect("a user gets a ticket");
        let is_plain = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\');
        assert!(ticket.bytes().all(is_plain), "{ticket}");
        for _ in 0..3 {
            assert_eq!(tickets.open(&ticket, now()), Ok(principal.clone()));
        }
        let elsewhere = build(&SECRETS[..1], LIFETIME);
        assert_eq!(elsewhere.open(&ticket, now()), Ok(principal), "another server, same secret");
    }
}

/// The last millisecond counts, the next one does not.
///
/// # Panics
/// When the tickets break the contract.
pub fn a_ticket_ends_with_its_token_or_its_lifetime_whichever_comes_first(build: BuildTickets<'_>) {
    for (lifetime, ends_after) in [(LIFETIME, 600), (Duration::from_secs(60), 60)] {
        let tickets = build(&SECRETS[..1], lifetime);
        let ticket = sealed(&*tickets);
        let end = now().after(Duration::from_secs(ends_after));
        let before = Wall::from_millis(end.as_millis() - 1);
        assert_eq!(tickets.open(&ticket, before), Ok(user("ann")));
        for late in [end, end.after(LIFETIME), Wall::MAX] {
            assert_eq!(tickets.open(&ticket, late), Err(TicketError::Expired), "{late}");
        }
    }
}

/// Whose token nobody would take any more is locked out after one lifetime, however often it comes
/// back before.
///
/// # Panics
/// When the tickets break the contract.
pub fn coming_back_with_a_ticket_never_makes_the_next_one_last_longer(build: BuildTickets<'_>) {
    let tickets = build(&SECRETS[..1], LIFETIME);
    let lasting = Principal { expires_at: Some(Wall::MAX), ..user("ann") };
    for principal in [lasting.clone(), Principal { expires_at: None, ..lasting }] {
        let mut ticket = tickets.seal(&principal, now()).expect("a ticket");
        let end = now().after(LIFETIME);
        for seconds in (600..3_600).step_by(600) {
            let later = now().after(Duration::from_secs(seconds));
            let back = tickets.open(&ticket, later).expect("it still counts");
            assert_eq!(back, principal);
            ticket = tickets.seal(&back, later).expect("a ticket");
        }
        assert_eq!(tickets.open(&ticket, end), Err(TicketError::Expired));
        assert_eq!(tickets.seal(&principal, end), None, "nor is there another");
    }
}

/// As long as the secret is the same; zero takes none.
///
/// # Panics
/// When the tickets break the contract.
pub fn a_shorter_lifetime_counts_for_tickets_that_were_made_before(build: BuildTickets<'_>) {
    let ticket = sealed(&*build(&SECRETS[..1], LIFETIME));
    let shorter = build(&SECRETS[..1], Duration::from_secs(60));
    let end = now().after(Duration::from_secs(60));
    let before = Wall::from_millis(end.as_millis() - 1);
    assert_eq!(shorter.open(&ticket, before), Ok(user("ann")));
    assert_eq!(shorter.open(&ticket, end), Err(TicketError::Expired));
    let longer = build(&SECRETS[..1], 2 * LIFETIME);
    let sealed_end = now().after(Duration::from_secs(600));
    assert_eq!(longer.open(&ticket, sealed_end), Err(TicketError::Expired), "it stays as it was");
    let off = build(&SECRETS[..1], Duration::ZERO);
    assert_eq!(off.open(&ticket, now()), Err(TicketError::Expired));
}

/// Nothing to come back as.
///
/// # Panics
/// When the tickets break the contract.
pub fn nobody_in_particular_and_nobody_whose_time_is_over_gets_a_ticket(build: BuildTickets<'_>) {
    let tickets = build(&SECRETS[..1], LIFETIME);
    assert_eq!(tickets.seal(&Principal::anonymous(), now()), None);
    let unverified = Principal { credential: Credential::default(), ..user("ann") };
    assert_eq!(tickets.seal(&unverified, now()), None);
    let mut unspent = user("ann");
    unspent.credential.once = true;
    assert_eq!(tickets.seal(&unspent, now()), None);
    let over = Principal { expires_at: Some(now()), ..user("ann") };
    assert_eq!(tickets.seal(&over, now()), None);
    assert_eq!(build(&SECRETS[..1], Duration::ZERO).seal(&user("ann"), now()), None);
}

/// Every position, every other character of the alphabet.
///
/// # Panics
/// When the tickets break the contract.
pub fn a_changed_character_anywhere_never_passes(build: BuildTickets<'_>) {
    let tickets = build(&SECRETS[..1], LIFETIME);
    let ticket = sealed(&*tickets);
    for at in 0..ticket.len() {
        for other in "Aa0-_.=+/ ".bytes().filter(|other| *other != ticket.as_bytes()[at]) {
            let mut changed = ticket.clone().into_bytes();
            changed[at] = other;
            let changed = String::from_utf8(changed).expect("ASCII");
            assert!(tickets.open(&changed, now()).is_err(), "{other} at {at}");
        }
    }
}

/// Every bit of every character, as long as it is text.
///
/// # Panics
/// When the tickets break the contract.
pub fn a_flipped_bit_anywhere_never_passes(build: BuildTickets<'_>) {
    let tickets = build(&SECRETS[..1], LIFETIME);
    let ticket = sealed(&*tickets);
    for at in 0..ticket.len() {
        for bit in 0..7 {
            let mut changed = ticket.clone().into_bytes();
            changed[at] ^= 1 << bit;
            let changed = String::from_utf8(changed).expect("ASCII");
            assert!(tickets.open(&changed, now()).is_err(), "bit {bit} at {at}");
        }
    }
}

/// Every length.
///
/// # Panics
/// When the tickets break the contract.
pub fn a_ticket_cut_short_or_extended_never_passes(build: BuildTickets<'_>) {
    let tickets = build(&SECRETS[..1], LIFETIME);
    let ticket = sealed(&*tickets);
    for end in 0..ticket.len() {
        assert!(tickets.open(&ticket[..end], now()).is_err(), "{end}");
        assert!(tickets.open(&ticket[end + 1..], now()).is_err(), "from {end}");
    }
    for extra in ["A", "=", "==", ".", " ", "\n", "AAAA", &ticket] {
        assert!(tickets.open(&format!("{ticket}{extra}"), now()).is_err(), "{extra:?}");
        assert!(tickets.open(&format!("{extra}{ticket}"), now()).is_err(), "{extra:?}");
    }
}

/// Texts that others might take for one.
///
/// # Panics
/// When the tickets break the contract.
pub fn anything_that_is_no_ticket_is_refused(build: BuildTickets<'_>) {
    let tickets = build(&SECRETS[..1], LIFETIME);
    let token = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhbm4ifQ.";
    let huge = "A".repeat(SESSION_BYTES_MAX + 4);
    for text in ["", " ", ".", "null", "A", "AQ", "\u{0}", "ann", token, &huge, "é\u{1f980}"] {
        assert!(tickets.open(text, now()).is_err(), "{text:.40?}");
    }
}

/// Whether its owner is unknown, or it is signed with a secret that was taken away.
///
/// # Panics
/// When the tickets break the contract.
pub fn a_ticket_of_another_secret_never_passes(build: BuildTickets<'_>) {
    let strange = sealed(&*build(&SECRETS[2..], LIFETIME));
    let tickets = build(&SECRETS[..2], LIFETIME);
    assert!(tickets.open(&strange, now()).is_err());
    // Head and contents of the one, signature of the other.
    let own = sealed(&*tickets);
    for cut in 0..own.len().min(strange.len()) {
        let mixed = format!("{}{}", &strange[..cut], &own[cut..]);
        let is_own = mixed == own;
        assert_eq!(tickets.open(&mixed, now()).is_ok(), is_own, "cut at {cut}");
    }
}

/// How secrets are exchanged without anybody noticing.
///
/// # Panics
/// When the tickets break the contract.
pub fn an_old_secret_opens_and_the_first_one_seals(build: BuildTickets<'_>) {
    let [first, second, _] = SECRETS;
    let before = sealed(&*build(&[first], LIFETIME));
    let rotated = build(&[second, first], LIFETIME);
    assert_eq!(rotated.open(&before, now()), Ok(user("ann")));
    let after = sealed(&*rotated);
    assert!(build(&[second], LIFETIME).open(&after, now()).is_ok());
    assert!(build(&[first], LIFETIME).open(&after, now()).is_err());
    assert!(build(&[second], LIFETIME).open(&before, now()).is_err(), "the old secret is gone");
}

/// A ticket is never longer than a client may send.
///
/// # Panics
/// When the tickets break the contract.
pub fn the_largest_principal_of_a_token_fits_and_a_larger_one_gets_no_ticket(
    build: BuildTickets<'_>,
) {
    let tickets = build(&SECRETS[..1], LIFETIME);
    let with = |n_grants: usize, room_bytes: usize| {
        let pattern = |n: usize| format!("chat:{n:04}{}*", "x".repeat(room_bytes - 10));
        let grant = |n| {
            let pattern = RoomPattern::parse(&pattern(n)).expect("a pattern");
            Grant::new(pattern, &[Action::Subscribe])
        };
        Principal { grants: (0..n_grants).map(grant).collect(), ..user("ann") }
    };
    // A token of 8 KiB has room for 64 grants of about 60 bytes each.
    let large = with(Principal::GRANTS_MAX, 80);
    let ticket = tickets.seal(&large, now()).expect("a ticket");
    assert!(ticket.len() <= SESSION_BYTES_MAX);
    assert_eq!(tickets.open(&ticket, now()), Ok(large));
    assert_eq!(tickets.seal(&with(Principal::GRANTS_MAX, 250), now()), None);
}
