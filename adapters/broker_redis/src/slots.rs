//! Which slot of a Cluster a key lies in, and which master has it.
//!
//! Nothing here speaks to Redis.

use redis::{Arg, Cmd};

/// How many slots every Cluster has.
pub(crate) const SLOTS: u16 = 16_384;
/// The owner of a slot that nobody serves.
const NOBODY: u16 = u16::MAX;

/// CRC-16 of XMODEM, byte by byte.
const CRC: [u16; 256] = table();

const fn table() -> [u16; 256] {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = (byte as u16) << 8;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 0x8000 == 0 { crc << 1 } else { crc << 1 ^ 0x1021 };
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
}

/// The slot of a key: of what stands between its first brace and the next closing one, if that is
/// anything, else of the whole.
pub(crate) fn slot_of(key: &[u8]) -> u16 {
    let crc = tag(key)
        .iter()
        .fold(0_u16, |crc, byte| crc << 8 ^ CRC[usize::from((crc >> 8) as u8 ^ byte)]);
    crc % SLOTS
}

fn tag(key: &[u8]) -> &[u8] {
    let Some(open) = key.iter().position(|byte| *byte == b'{') else { return key };
    let behind = &key[open + 1..];
    match behind.iter().position(|byte| *byte == b'}') {
        None | Some(0) => key,
        Some(end) => &behind[..end],
    }
}

/// The slot of the first key of a command, as this adapter writes them: the key comes first, and in calls of
/// scripts behind the script and the number of keys.
pub(crate) fn slot_of_command(command: &Cmd) -> Option<u16> {
    let mut words = command.args_iter().filter_map(|arg| match arg {
        Arg::Simple(word) => Some(word),
        _ => None,
    });
    let key = if words.next()? == b"EVALSHA" { words.nth(2)? } else { words.next()? };
    Some(slot_of(key))
}

/// Which master has which slot, by the master's place in a list.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum SlotMap {
    /// One server has all.
    One,
    /// Each slot's owner.
    Many(Box<[u16]>),
}

impl SlotMap {
    /// A map in which nobody has anything.
    pub(crate) fn empty() -> Self {
        Self::Many(vec![NOBODY; usize::from(SLOTS)].into())
    }

    /// Gives slots to a master; those that don't exist are passed over.
    pub(crate) fn give(&mut self, first: u16, last: u16, owner: u16) {
        if let Self::Many(owners) = self {
            for slot in first..=last.min(SLOTS - 1) {
                owners[usize::from(slot)] = owner;
            }
        }
    }

    pub(crate) fn owner(&self, slot: u16) -> Option<usize> {
        match self {
            Self::One => Some(0),
            Self::Many(owners) => {
                owners.get(usize::from(slot)).filter(|owner| **owner != NOBODY).map(|o| (*o).into())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_lie_where_redis_says_that_they_do() {
        // As `CLUSTER KEYSLOT` answers.
        for (key, slot) in [
            ("", 0),
            ("123456789", 12_739),
            ("foo", 12_182),
            ("rk:{foo}:head", 12_182),
            ("{}foo", slot_of(b"{}foo")),
            ("a{foo}{bar}", 12_182),
        ] {
            assert_eq!(slot_of(key.as_bytes()), slot, "{key}");
        }
        assert_ne!(slot_of(b"{}foo"), slot_of(b"foo"), "an empty tag is none");
        assert_eq!(slot_of(b"foo{bar"), slot_of(b"foo{bar"));
    }

    #[test]
    fn a_command_lies_where_its_first_key_does() {
        let mut script = redis::cmd("EVALSHA");
        script.arg("0123").arg(2).arg("a{foo}").arg("b{foo}").arg("x");
        assert_eq!(slot_of_command(&script), Some(12_182));
        let mut command = redis::cmd("SET");
        command.arg("foo").arg(1);
        assert_eq!(slot_of_command(&command), Some(12_182));
        assert_eq!(slot_of_command(&redis::cmd("PING")), None);
    }

    #[test]
    fn slots_belong_to_whom_they_were_given_last() {
        let mut map = SlotMap::empty();
        assert_eq!(map.owner(5), None);
        map.give(0, 10, 1);
        map.give(5, u16::MAX, 2);
        assert_eq!((map.owner(4), map.owner(5), map.owner(SLOTS - 1)), (Some(1), Some(2), Some(2)));
        assert_eq!((map.owner(SLOTS), SlotMap::One.owner(7)), (None, Some(0)));
    }
}
