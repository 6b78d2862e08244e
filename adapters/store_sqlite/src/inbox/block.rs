//! Many letters in one blob: how they are written one behind the other, and read.
//!
//! It must never panic at what it reads, whatever stands in the file, and never answer a letter that was
//! not written like this.
//!
//! A letter is its place in the block (u16), what it has (u8), when it was said (i64, milliseconds since
//! 1970), the sender's user and name if it has them, and the data; each of these three behind its length
//! (u32). All numbers are little-endian.

use application::ports::inbox::{Letter, LetterId};
use bytes::{Buf as _, BufMut as _, Bytes};
use domain::id::UserId;
use domain::message::Sender;
use domain::time::Wall;
use thiserror::Error;

/// A block that would become longer than this takes no further letter: with the rest of its row it fits
/// into one page of the database.
pub(super) const BLOCK_BYTES_MAX: usize = 3_600;
/// The most places of a block, used ones included.
pub(super) const BLOCK_LETTERS_MAX: u16 = 1_024;

/// A letter has a sender who is a user.
const HAS_USER: u8 = 1;
/// A letter has a sender with a name.
const HAS_NAME: u8 = 2;

/// Where a letter is: which block, and its place there.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Place {
    pub(super) block: i64,
    pub(super) index: u16,
}

impl Place {
    /// As the port says it: in the order of blocks, then of places.
    pub(super) const fn id(self) -> LetterId {
        LetterId(self.block.cast_unsigned() * BLOCK_LETTERS_MAX as u64 + self.index as u64)
    }

    /// From what the port says.
    pub(super) const fn of(LetterId(id): LetterId) -> Self {
        let block = (id / BLOCK_LETTERS_MAX as u64).cast_signed();
        Self { block, index: (id % BLOCK_LETTERS_MAX as u64) as u16 }
    }
}

/// A block holds what nobody writes there.
#[derive(Debug, Eq, Error, PartialEq)]
#[error("it holds what nobody writes there")]
struct Damaged;

/// Writes a letter behind those that are there.
pub(super) fn push(to: &mut Vec<u8>, index: u16, letter: &Letter) {
    let Sender { user, name, .. } = &letter.sender;
    let has = u8::from(user.is_some()) * HAS_USER + u8::from(name.is_some()) * HAS_NAME;
    to.put_u16_le(index);
    to.put_u8(has);
    to.put_i64_le(letter.at.as_millis());
    let texts =
        [user.as_ref().map(|user| user.as_str().as_bytes()), name.as_deref().map(str::as_bytes)];
    for bytes in texts.into_iter().flatten().chain([&letter.data[..]]) {
        // A message is far shorter; a longer one could not be read back.
        to.put_u32_le(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
        to.put_slice(bytes);
    }
}

/// All letters of a block with their places, in their order; they share its bytes. A damaged one has none:
/// what is in it is lost, and must not keep what is behind it.
pub(super) fn read(id: i64, block: Vec<u8>) -> Vec<(u16, Letter)> {
    try_read(block.into()).unwrap_or_else(|error| {
        let error = &error as &dyn std::error::Error;
        tracing::error!(error, block = id, "a block of letters can't be read and is left out");
        Vec::new()
    })
}

fn try_read(mut block: Bytes) -> Result<Vec<(u16, Letter)>, Damaged> {
    let mut letters: Vec<(u16, Letter)> = Vec::new();
    while !block.is_empty() {
        let index = block.try_get_u16_le().map_err(|_| Damaged)?;
        let has = block.try_get_u8().map_err(|_| Damaged)?;
        let at = Wall::from_millis(block.try_get_i64_le().map_err(|_| Damaged)?);
        if has & !(HAS_USER | HAS_NAME) != 0
            || letters.last().is_some_and(|(last, _)| *last >= index)
        {
            return Err(Damaged);
        }
        let user = if has & HAS_USER == 0 { None } else { Some(piece(&mut block)?) };
        let name = if has & HAS_NAME == 0 { None } else { Some(piece(&mut block)?) };
        let data = piece(&mut block)?;
        let before = letters.last().map(|(_, letter)| &letter.sender);
        let sender = Sender {
            user: user.map(|user| same_or_new(&user, before)).transpose()?,
            name: name.map(|name| text(&name).map(Into::into)).transpose()?,
            ..Sender::default()
        };
        letters.push((index, Letter { sender, data, at }));
    }
    Ok(letters)
}

/// Bytes behind their length.
fn piece(block: &mut Bytes) -> Result<Bytes, Damaged> {
    let length = block.try_get_u32_le().map_err(|_| Damaged)? as usize;
    if length > block.len() {
        return Err(Damaged);
    }
    Ok(block.split_to(length))
}

fn text(bytes: &[u8]) -> Result<&str, Damaged> {
    std::str::from_utf8(bytes).map_err(|_| Damaged)
}

/// A user; shared with the letter before when that is by the same.
fn same_or_new(user: &[u8], before: Option<&Sender>) -> Result<UserId, Damaged> {
    match before.and_then(|sender| sender.user.as_ref()) {
        Some(same) if same.as_str().as_bytes() == user => Ok(same.clone()),
        _ => UserId::parse(text(user)?).map_err(|_| Damaged),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_letter() -> impl Strategy<Value = Letter> {
        let user = prop::option::of("[a-z]{1,8}");
        let name = prop::option::of(any::<String>());
        (user, name, any::<i64>(), prop::collection::vec(any::<u8>(), 0..64)).prop_map(
            |(user, name, at, data)| {
                let user = user.map(|user| UserId::parse(&user).unwrap());
                let sender = Sender { user, name: name.map(Into::into), ..Sender::default() };
                Letter { sender, data: data.into(), at: Wall::from_millis(at) }
            },
        )
    }

    fn written(letters: &[(u16, Letter)]) -> Vec<u8> {
        let mut block = Vec::new();
        for (index, letter) in letters {
            push(&mut block, *index, letter);
        }
        block
    }

    proptest! {
        #[test]
        fn what_is_written_is_try_read(letters in prop::collection::btree_map(0..BLOCK_LETTERS_MAX, any_letter(), 0..9)) {
            let letters: Vec<_> = letters.into_iter().collect();
            prop_assert_eq!(try_read(written(&letters).into()), Ok(letters));
        }

        #[test]
        fn a_block_that_was_cut_is_damaged_or_shorter(letter in any_letter(), other in any_letter(), cut in 1..20_usize) {
            let whole = written(&[(0, letter.clone()), (1, other)]);
            let cut = whole.len() - cut.min(whole.len());
            match try_read(Bytes::copy_from_slice(&whole[..cut])) {
                Err(Damaged) => {}
                Ok(read) => prop_assert!(read.is_empty() || read == [(0, letter)]),
            }
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            drop(try_read(bytes.into()));
        }

        #[test]
        fn a_place_is_found_again_by_its_id(block in 1..i64::MAX >> 10, index in 0..BLOCK_LETTERS_MAX) {
            let place = Place { block, index };
            prop_assert_eq!(Place::of(place.id()), place);
        }
    }

    #[test]
    fn places_that_do_not_rise_are_damage() {
        let letter = Letter {
            sender: Sender::default(),
            data: Bytes::from_static(b"1"),
            at: Wall::from_millis(1),
        };
        let block = written(&[(4, letter.clone()), (4, letter)]);
        assert_eq!(try_read(block.into()), Err(Damaged));
    }
}
