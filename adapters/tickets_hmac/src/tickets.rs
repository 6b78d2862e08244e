//! The port's implementation: form, key, signature, contents, time, in that order.
//!
//! Whatever is in doubt is an error.

use std::fmt;
use std::time::Duration;

use application::ports::{SessionTickets, TicketError};
use aws_lc_rs::hmac::{self, HMAC_SHA256, Key};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use domain::principal::Principal;
use domain::protocol::client_frame::SESSION_BYTES_MAX;
use domain::time::Wall;
use secrecy::{ExposeSecret, SecretString};
use thiserror::Error;

use crate::contents::Contents;

/// The most secrets at one time: one that signs, and those before it while their tickets last.
pub const SECRETS_MAX: usize = 8;
/// The shortest secret, in bytes: as many as the hash has.
pub const SECRET_BYTES_MIN: usize = 32;

const VERSION: u8 = 1;
const KEY_ID_BYTES: usize = 4;
const HEAD_BYTES: usize = 1 + KEY_ID_BYTES;
const TAG_BYTES: usize = 32;
/// The labels under which a secret becomes the key and the key's name (as HKDF-Expand does for one
/// block; RFC 5869 section 2.3), each followed by what tokens are judged by. Another version of the
/// format has other labels.
const KEY_LABEL: &[u8] = b"roomkeeper session ticket 1: key\0";
const KEY_ID_LABEL: &[u8] = b"roomkeeper session ticket 1: key id\0";
/// How the one block of HKDF-Expand ends.
const BLOCK_END: &[u8] = &[1];

/// Why no tickets can be made of what is configured. No secret stands in it.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum BuildError {
    /// There is none.
    #[error("no ticket secret is given")]
    NoSecret,
    /// More than [`SECRETS_MAX`].
    #[error("{n_secrets} ticket secrets are given; at most {SECRETS_MAX} may be, drop the oldest")]
    TooMany {
        /// How many there are.
        n_secrets: usize,
    },
    /// One is shorter than [`SECRET_BYTES_MIN`].
    #[error(
        "ticket secret {number} has {n_bytes} bytes, and {SECRET_BYTES_MIN} random ones are the \
         least; make one with `openssl rand -base64 32`"
    )]
    Short {
        /// Which, from 1.
        number: usize,
        /// How long it is.
        n_bytes: usize,
    },
}

struct TicketKey {
    id: [u8; KEY_ID_BYTES],
    key: Key,
}

/// Makes and reads tickets.
pub struct HmacTickets {
    /// The first signs.
    keys: Vec<TicketKey>,
    lifetime: Duration,
}

impl fmt::Debug for HmacTickets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HmacTickets")
            .field("n_keys", &self.keys.len())
            .field("lifetime", &self.lifetime)
            .finish_non_exhaustive()
    }
}

impl HmacTickets {
    /// Tickets signed with the first secret, and read with any of them, that end with their
    /// token, but `lifetime` after that token was verified at the latest. `judged_by` names what
    /// tokens are judged by, and goes into the keys: a ticket counts only where it is the same.
    ///
    /// # Errors
    /// [`BuildError`] names what is wrong with the secrets.
    pub fn build(
        secrets: &[SecretString],
        judged_by: &str,
        lifetime: Duration,
    ) -> Result<Self, BuildError> {
        if secrets.is_empty() {
            return Err(BuildError::NoSecret);
        }
        if secrets.len() > SECRETS_MAX {
            return Err(BuildError::TooMany { n_secrets: secrets.len() });
        }
        let derive = |(number, secret): (usize, &SecretString)| {
            let secret = secret.expose_secret().as_bytes();
            if secret.len() < SECRET_BYTES_MIN {
                return Err(BuildError::Short { number, n_bytes: secret.len() });
            }
            let secret = Key::new(HMAC_SHA256, secret);
            let derived = |label: &[u8]| {
                hmac::sign(&secret, &[label, judged_by.as_bytes(), BLOCK_END].concat())
            };
            let (id, key) = (derived(KEY_ID_LABEL), derived(KEY_LABEL));
            let mut short_id = [0; KEY_ID_BYTES];
            short_id.iter_mut().zip(id.as_ref()).for_each(|(to, from)| *to = *from);
            Ok(TicketKey { id: short_id, key: Key::new(HMAC_SHA256, key.as_ref()) })
        };
        let keys = (1..).zip(secrets).map(derive).collect::<Result<_, _>>()?;
        Ok(Self { keys, lifetime })
    }
}

impl SessionTickets for HmacTickets {
    fn seal(&self, principal: &Principal, now: Wall) -> Option<String> {
        // Not from now on: whoever came with a ticket would never need a token again, and a key that
        // is taken away would lock nobody out.
        let latest = principal.credential.verified_at?.after(self.lifetime);
        let ends_at = principal.expires_at.map_or(latest, |end| end.min(latest));
        if ends_at <= now {
            return None;
        }
        let signing = self.keys.first()?;
        let mut bytes = Vec::with_capacity(256);
        bytes.push(VERSION);
        bytes.extend_from_slice(&signing.id);
        let contents = Contents { issued_at: now, ends_at, principal: principal.clone() };
        contents.write(&mut bytes)?;
        let tag = hmac::sign(&signing.key, &bytes);
        bytes.extend_from_slice(tag.as_ref());
        let ticket = URL_SAFE_NO_PAD.encode(&bytes);
        (ticket.len() <= SESSION_BYTES_MAX).then_some(ticket)
    }

    fn open(&self, ticket: &str, now: Wall) -> Result<Principal, TicketError> {
        if ticket.len() > SESSION_BYTES_MAX {
            return Err(TicketError::Malformed);
        }
        // The engine refuses padding, and bits that no encoder writes: one ticket, one spelling.
        let bytes = URL_SAFE_NO_PAD.decode(ticket).map_err(|_| TicketError::Malformed)?;
        let (signed, tag) = bytes
            .len()
            .checked_sub(TAG_BYTES)
            .and_then(|n_signed| bytes.split_at_checked(n_signed))
            .ok_or(TicketError::Malformed)?;
        let (head, contents) = signed.split_at_checked(HEAD_BYTES).ok_or(TicketError::Malformed)?;
        let Some((&VERSION, key_id)) = head.split_first() else {
            return Err(TicketError::Malformed);
        };
        let mut fitting = self.keys.iter().filter(|key| key.id == key_id).peekable();
        if fitting.peek().is_none() {
            return Err(TicketError::UnknownKey);
        }
        if !fitting.any(|key| hmac::verify(&key.key, signed, tag).is_ok()) {
            return Err(TicketError::Signature);
        }
        let contents = Contents::read(contents).ok_or(TicketError::Malformed)?;
        // The lifetime may have been longer, or not zero, when it was made.
        let verified_at = contents.principal.credential.verified_at;
        let is_too_old = verified_at.is_none_or(|at| at.after(self.lifetime) <= now);
        if contents.ends_at <= now || is_too_old {
            return Err(TicketError::Expired);
        }
        Ok(contents.principal)
    }
}
