//! What is signed: a principal as bytes, and back.
//!
//! It must never give back another principal than went in; bytes that no principal makes are
//! refused. Numbers are big-endian; a text is its length in two bytes and the text; something that
//! may be absent begins with a byte that says whether it is there.

use std::sync::Arc;

use domain::id::{Role, TokenId, UserId};
use domain::principal::{Action, Credential, Grant, Principal, RoomPattern};
use domain::time::Wall;

/// The contents of one ticket.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Contents {
    /// When the ticket was made, for whoever takes one apart.
    pub(crate) issued_at: Wall,
    /// When it ends.
    pub(crate) ends_at: Wall,
    pub(crate) principal: Principal,
}

impl Contents {
    /// Appends the bytes. None when something is longer than its length can say, or stands for no
    /// user whose token was verified and, if it counts once, spent: a ticket is not used up.
    pub(crate) fn write(&self, out: &mut Vec<u8>) -> Option<()> {
        let Principal { user, name, roles, grants, expires_at, credential } = &self.principal;
        if credential.once {
            return None;
        }
        push_time(out, self.issued_at);
        push_time(out, self.ends_at);
        push_time(out, credential.verified_at?);
        push_option(out, *expires_at, push_time);
        push_option(out, credential.issued_at, push_time);
        push_text_option(out, credential.id.as_ref().map(TokenId::as_str))?;
        push_text(out, user.as_ref()?.as_str())?;
        push_text_option(out, name.as_deref())?;
        out.push(u8::try_from(roles.len()).ok()?);
        for role in roles {
            push_text(out, role.as_str())?;
        }
        out.push(u8::try_from(grants.len()).ok()?);
        for grant in grants {
            push_text(out, &grant.pattern().to_text())?;
            out.push(actions_to_byte(grant));
        }
        Some(())
    }

    /// Reads them back; all of `bytes` must be used.
    pub(crate) fn read(bytes: &[u8]) -> Option<Self> {
        let from = &mut Reader(bytes);
        let (issued_at, ends_at) = (from.time()?, from.time()?);
        let verified_at = Some(from.time()?);
        let expires_at = from.option(Reader::time)?;
        let token_issued_at = from.option(Reader::time)?;
        let id = from.option(|from| TokenId::parse(from.text()?).ok())?;
        let user = UserId::parse(from.text()?).ok()?;
        let name = from.option(|from| from.text().map(Arc::from))?;
        let n_roles = from.byte()?;
        let roles = (0..n_roles).map(|_| Role::parse(from.text()?).ok()).collect::<Option<_>>()?;
        let n_grants = from.byte()?;
        let grants = (0..n_grants).map(|_| grant(from)).collect::<Option<_>>()?;
        let credential =
            Credential { id, issued_at: token_issued_at, verified_at, ..Credential::default() };
        let principal = Principal { user: Some(user), name, roles, grants, expires_at, credential };
        from.0.is_empty().then_some(Self { issued_at, ends_at, principal })
    }
}

fn grant(from: &mut Reader<'_>) -> Option<Grant> {
    let pattern = RoomPattern::parse(from.text()?).ok()?;
    let allowed = from.byte()?;
    let named = |(place, _): &(usize, Action)| allowed & (1 << *place) != 0;
    let actions: Vec<_> =
        Action::ALL.into_iter().enumerate().filter(named).map(|(_, action)| action).collect();
    let grant = Grant::new(pattern, &actions);
    // A bit that stands for no action is no ticket of ours.
    (actions_to_byte(&grant) == allowed).then_some(grant)
}

fn actions_to_byte(grant: &Grant) -> u8 {
    let place = |action: Action| Action::ALL.iter().position(|other| *other == action);
    grant.actions().filter_map(place).fold(0, |bits, place| bits | 1 << place)
}

fn push_time(out: &mut Vec<u8>, time: Wall) {
    out.extend_from_slice(&time.as_millis().to_be_bytes());
}

fn push_text(out: &mut Vec<u8>, text: &str) -> Option<()> {
    out.extend_from_slice(&u16::try_from(text.len()).ok()?.to_be_bytes());
    out.extend_from_slice(text.as_bytes());
    Some(())
}

fn push_text_option(out: &mut Vec<u8>, text: Option<&str>) -> Option<()> {
    out.push(u8::from(text.is_some()));
    text.map_or(Some(()), |text| push_text(out, text))
}

fn push_option<T>(out: &mut Vec<u8>, value: Option<T>, push: impl FnOnce(&mut Vec<u8>, T)) {
    out.push(u8::from(value.is_some()));
    if let Some(value) = value {
        push(out, value);
    }
}

/// Takes from the front.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, n_bytes: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(n_bytes)?;
        self.0 = rest;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    fn time(&mut self) -> Option<Wall> {
        let millis = i64::from_be_bytes(*self.take(8)?.first_chunk()?);
        let time = Wall::from_millis(millis);
        (time.as_millis() == millis).then_some(time)
    }

    fn text(&mut self) -> Option<&'a str> {
        let n_bytes = u16::from_be_bytes(*self.take(2)?.first_chunk()?);
        std::str::from_utf8(self.take(usize::from(n_bytes))?).ok()
    }

    fn option<T>(&mut self, read: impl FnOnce(&mut Self) -> Option<T>) -> Option<Option<T>> {
        match self.byte()? {
            0 => Some(None),
            1 => read(self).map(Some),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn time() -> impl Strategy<Value = Wall> {
        any::<i64>().prop_map(Wall::from_millis)
    }

    fn a_grant() -> impl Strategy<Value = Grant> {
        let action = prop::sample::select(Action::ALL.to_vec());
        ("[a-z]{1,8}:[a-z0-9/]{1,20}[*]?", prop::collection::vec(action, 0..6))
            .prop_map(|(text, actions)| Grant::new(RoomPattern::parse(&text).unwrap(), &actions))
    }

    prop_compose! {
        fn contents()(
            issued_at in time(),
            ends_at in time(),
            user in "[!-~]{1,128}",
            name in prop::option::of(any::<String>()),
            roles in prop::collection::vec("[!-~]{1,64}", 0..17),
            grants in prop::collection::vec(a_grant(), 0..65),
            expires_at in prop::option::of(time()),
            id in prop::option::of("[!-~]{1,256}"),
            token_issued_at in prop::option::of(time()),
            verified_at in time(),
        ) -> Contents {
            let principal = Principal {
                user: UserId::parse(&user).ok(),
                name: name.map(Arc::from),
                roles: roles.iter().map(|role| Role::parse(role).unwrap()).collect(),
                grants,
                expires_at,
                credential: Credential {
                    id: id.map(|id| TokenId::parse(&id).unwrap()),
                    issued_at: token_issued_at,
                    verified_at: Some(verified_at),
                    once: false,
                },
            };
            Contents { issued_at, ends_at, principal }
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back_and_nothing_shorter_or_longer_is(
            contents in contents(), cut in any::<prop::sample::Index>(), extra: u8,
        ) {
            let mut bytes = Vec::new();
            contents.write(&mut bytes).unwrap();
            prop_assert_eq!(Contents::read(&bytes), Some(contents));
            prop_assert_eq!(Contents::read(&bytes[..cut.index(bytes.len())]), None);
            bytes.push(extra);
            prop_assert_eq!(Contents::read(&bytes), None);
        }

        #[test]
        fn any_bytes_are_contents_or_none_and_have_one_spelling(
            bytes in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            if let Some(contents) = Contents::read(&bytes) {
                let mut again = Vec::new();
                contents.write(&mut again).unwrap();
                prop_assert_eq!(again, bytes);
            }
        }

        #[test]
        fn a_byte_changed_never_reads_as_the_same_contents(
            contents in contents(), at in any::<prop::sample::Index>(), flip in 1u8..,
        ) {
            let mut bytes = Vec::new();
            contents.write(&mut bytes).unwrap();
            let at = at.index(bytes.len());
            bytes[at] ^= flip;
            prop_assert_ne!(Contents::read(&bytes), Some(contents));
        }
    }

    #[test]
    fn nobody_in_particular_and_nobody_without_a_verified_and_spent_token_has_contents() {
        let now = Wall::from_millis(0);
        let contents = Contents { issued_at: now, ends_at: now, principal: Principal::anonymous() };
        assert_eq!(contents.write(&mut Vec::new()), None);
        let user = UserId::parse("ann").ok();
        let principal = Principal { user, ..Principal::default() };
        let unverified = Contents { issued_at: now, ends_at: now, principal };
        assert_eq!(unverified.write(&mut Vec::new()), None);
        let mut unspent = unverified;
        unspent.principal.credential.verified_at = Some(now);
        assert_eq!(unspent.write(&mut Vec::new()), Some(()));
        unspent.principal.credential.once = true;
        assert_eq!(unspent.write(&mut Vec::new()), None);
    }
}
