//! Many letters in one blob: how they are written one behind the other, and read.
//!
//! It must never panic at what it reads, whatever stands in the file, and never answer a letter that was
//! not written like this.
//!
//! A letter is its place in the block (u16), what it has (u8), when it was said (i64, milliseconds since
//! 1970), the sender's user and name if it has them, and the data; each of these three behind its length
//! (u32). All numbers are little-endian.

use application::ports::inbox::{Letter, LetterId};
use bytes::{BufMut as _, Bytes};
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
        // A block's number that is not ours makes a letter that nobody finds.
        let first = self.block.cast_unsigned().wrapping_mul(BLOCK_LETTERS_MAX as u64);
        LetterId(first.wrapping_add(self.index as u64))
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

/// How many bytes a letter will be in a block.
pub(super) fn length(letter: &Letter) -> usize {
    let Sender { user, name, .. } = &letter.sender;
    let user = user.as_ref().map_or(0, |user| 4 + user.as_str().len());
    let name = name.as_ref().map_or(0, |name| 4 + name.len());
    2 + 1 + 8 + user + name + 4 + letter.data.len()
}

/// Whether a block is whole, and all its places are in front of this one.
pub(super) fn takes(block: &[u8], index: u16) -> bool {
    let mut written = Written { rest: block, end: 0 };
    written.by_ref().all(|letter| letter.is_ok()) && written.end <= index
}

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
    try_read(&block.into()).unwrap_or_else(|error| {
        let error = &error as &dyn std::error::Error;
        tracing::error!(error, block = id, "a block of letters can't be read and is left out");
        Vec::new()
    })
}

fn try_read(block: &Bytes) -> Result<Vec<(u16, Letter)>, Damaged> {
    let mut letters: Vec<(u16, Letter)> = Vec::new();
    for written in (Written { rest: block, end: 0 }) {
        let One { index, at, user, name, data } = written?;
        let before = letters.last().map(|(_, letter)| &letter.sender);
        let sender = Sender {
            user: user.map(|user| same_or_new(user, before)).transpose()?,
            name: name.map(|name| text(name).map(Into::into)).transpose()?,
            ..Sender::default()
        };
        letters.push((index, Letter { sender, data: block.slice_ref(data), at }));
    }
    Ok(letters)
}

/// One letter as it stands in a block.
struct One<'b> {
    index: u16,
    at: Wall,
    user: Option<&'b [u8]>,
    name: Option<&'b [u8]>,
    data: &'b [u8],
}

/// The letters of a block; nothing behind a mistake.
struct Written<'b> {
    rest: &'b [u8],
    /// The first place that the next one may have.
    end: u16,
}

impl<'b> Written<'b> {
    fn number<const N: usize>(&mut self) -> Result<[u8; N], Damaged> {
        let (number, rest) = self.rest.split_first_chunk().ok_or(Damaged)?;
        self.rest = rest;
        Ok(*number)
    }

    /// Bytes behind their length.
    fn piece(&mut self) -> Result<&'b [u8], Damaged> {
        let length = u32::from_le_bytes(self.number()?) as usize;
        let (piece, rest) = self.rest.split_at_checked(length).ok_or(Damaged)?;
        self.rest = rest;
        Ok(piece)
    }

    fn one(&mut self) -> Result<One<'b>, Damaged> {
        let index = u16::from_le_bytes(self.number()?);
        let [has] = self.number()?;
        let at = Wall::from_millis(i64::from_le_bytes(self.number()?));
        if has & !(HAS_USER | HAS_NAME) != 0 || index < self.end || index >= BLOCK_LETTERS_MAX {
            return Err(Damaged);
        }
        self.end = index + 1;
        let user = if has & HAS_USER == 0 { None } else { Some(self.piece()?) };
        let name = if has & HAS_NAME == 0 { None } else { Some(self.piece()?) };
        Ok(One { index, at, user, name, data: self.piece()? })
    }
}

impl<'b> Iterator for Written<'b> {
    type Item = Result<One<'b>, Damaged>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let one = self.one();
        if one.is_err() {
            self.rest = &[];
        }
        Some(one)
    }
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
        fn what_is_written_is_read(letters in prop::collection::btree_map(0..BLOCK_LETTERS_MAX, any_letter(), 0..9)) {
            let letters: Vec<_> = letters.into_iter().collect();
            let block = written(&letters);
            let bytes: usize = letters.iter().map(|(_, letter)| length(letter)).sum();
            prop_assert_eq!(block.len(), bytes);
            let end = letters.last().map_or(0, |(index, _)| index + 1);
            prop_assert!(takes(&block, end) && (end == 0 || !takes(&block, end - 1)));
            prop_assert_eq!(try_read(&block.into()), Ok(letters));
        }

        #[test]
        fn a_block_that_was_cut_is_damaged_or_shorter(letter in any_letter(), other in any_letter(), cut in 1..20_usize) {
            let whole = written(&[(0, letter.clone()), (1, other)]);
            let cut = whole.len() - cut.min(whole.len());
            match try_read(&Bytes::copy_from_slice(&whole[..cut])) {
                Err(Damaged) => {}
                Ok(read) => prop_assert!(read.is_empty() || read == [(0, letter)]),
            }
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let bytes = Bytes::from(bytes);
            prop_assert_eq!(takes(&bytes, u16::MAX), Written { rest: &bytes, end: 0 }.all(|one| one.is_ok()));
            drop(try_read(&bytes));
        }

        #[test]
        fn a_place_is_found_again_by_its_id(block in 1..i64::MAX >> 10, index in 0..BLOCK_LETTERS_MAX) {
            let place = Place { block, index };
            prop_assert_eq!(Place::of(place.id()), place);
        }
    }

    #[test]
    fn places_that_do_not_rise_or_are_none_are_damage() {
        let letter = Letter {
            sender: Sender::default(),
            data: Bytes::from_static(b"1"),
            at: Wall::from_millis(1),
        };
        let block = written(&[(4, letter.clone()), (4, letter.clone())]);
        assert_eq!(try_read(&block.into()), Err(Damaged));
        // It would have the number of a letter in another block.
        let block = written(&[(BLOCK_LETTERS_MAX, letter)]);
        assert_eq!(try_read(&block.into()), Err(Damaged));
    }

    #[test]
    fn a_block_that_nobody_made_has_a_number_all_the_same() {
        for block in [i64::MIN, -1, i64::MAX] {
            assert_eq!(Place::of(Place { block, index: 5 }.id()).index, 5);
        }
    }
}
