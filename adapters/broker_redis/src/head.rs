//! A room's head as the scripts write it, for what looks at it without them.
//!
//! Nothing here may write one.

use domain::id::Epoch;
use domain::position::Offset;

/// The field that has it; `scripts/head.lua` says how it is packed.
pub(crate) const FIELD: &str = "z";

const EPOCH: usize = 16;
const NUMBERS: usize = EPOCH + 1;
const LIFE: usize = NUMBERS + 8 * 8 + 1;

/// What a look wants to know.
#[derive(Debug, PartialEq)]
pub(crate) struct Head {
    pub(crate) epoch: Epoch,
    pub(crate) is_durable: bool,
    /// Of the last publish.
    pub(crate) number: u64,
    /// The oldest that a durable room has.
    pub(crate) first: Option<Offset>,
    /// The server and its life.
    pub(crate) life: Vec<u8>,
}

impl Head {
    /// None where it is of another version, or nobody's.
    pub(crate) fn read(written: &[u8]) -> Option<Self> {
        let life = written.get(LIFE..)?;
        let number = |at: usize| {
            let from = NUMBERS + 8 * at;
            let bytes = written.get(from..from + 8)?.try_into().ok()?;
            let number = f64::from_be_bytes(bytes);
            // Scripts write whole numbers, none of them beyond what is exact.
            (0.0..=Offset::MAX.get() as f64).contains(&number).then_some(number as u64)
        };
        Some(Self {
            epoch: Epoch::parse(std::str::from_utf8(&written[..EPOCH]).ok()?).ok()?,
            is_durable: written[EPOCH] == 1,
            number: number(1)?,
            first: number(7).and_then(|first| Offset::parse(first).ok()),
            life: life.to_owned(),
        })
    }
}

/// Numbers as scripts unpack them: eight bytes for each, the most significant first.
pub(crate) fn packed(numbers: &[f64]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_be_bytes()).collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// The head of a room that is not durable.
    pub(crate) fn written(epoch: Epoch, number: u64) -> Vec<u8> {
        let mut written = epoch.to_string().into_bytes();
        written.push(0);
        written.extend(packed(&[0.0, number as f64, -1.0, 0.0, 0.0, 0.0, 0.0, -1.0]));
        written.push(3);
        written.extend(b"@1-");
        written
    }

    #[test]
    fn a_head_is_read_as_it_was_written_and_what_is_none_is_not() {
        let (epoch, whole) = (Epoch::from_bits(255), written(Epoch::from_bits(255), 7));
        let head = Head { epoch, is_durable: false, number: 7, first: None, life: b"@1-".to_vec() };
        assert_eq!(Head::read(&whole), Some(head));
        for length in 0..LIFE {
            assert_eq!(Head::read(&whole[..length]), None, "{length}");
        }
        let mut strange = whole;
        strange[0] = b'x';
        assert_eq!(Head::read(&strange), None);
        assert_eq!(Head::read(&written(epoch, u64::MAX)), None);
    }
}
