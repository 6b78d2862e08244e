//! UTF-8 checked as it arrives (RFC 6455 section 8.1): the first impossible byte is an error at
//! once, although its message may never end.
//!
//! It must never keep the text itself; between two pieces it remembers one byte of state.

/// A byte that no UTF-8 text can hold at its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Invalid;

/// Which bytes may follow (Unicode table 3-7, which excludes overlong forms, surrogates and
/// everything above U+10FFFF by narrowing the *second* byte).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expect {
    Boundary,
    One,
    Two,
    Three,
    AfterE0,
    AfterEd,
    AfterF0,
    AfterF4,
}

/// The check of one text that comes in pieces.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Utf8Check(Expect);

impl Utf8Check {
    /// The check of a text of which nothing has come.
    pub(crate) const fn new() -> Self {
        Self(Expect::Boundary)
    }

    /// Checks the next piece. After an error the check is of no further use.
    pub(crate) fn feed(&mut self, piece: &[u8]) -> Result<(), Invalid> {
        let mut rest = piece;
        while self.0 != Expect::Boundary {
            let Some((byte, after)) = rest.split_first() else { return Ok(()) };
            self.0 = step(self.0, *byte).ok_or(Invalid)?;
            rest = after;
        }
        let Err(error) = simdutf8::compat::from_utf8(rest) else { return Ok(()) };
        if error.error_len().is_some() {
            return Err(Invalid);
        }
        // What is left is the start of one code point: at most three bytes.
        for byte in rest.get(error.valid_up_to()..).unwrap_or_default() {
            self.0 = step(self.0, *byte).ok_or(Invalid)?;
        }
        Ok(())
    }

    /// Whether the text may end here, that is, not inside a code point.
    #[cfg(test)]
    fn is_at_boundary(self) -> bool {
        self.0 == Expect::Boundary
    }
}

fn step(expect: Expect, byte: u8) -> Option<Expect> {
    match (expect, byte) {
        (Expect::Boundary, 0x00..=0x7f) | (Expect::One, 0x80..=0xbf) => Some(Expect::Boundary),
        (Expect::Boundary, 0xc2..=0xdf)
        | (Expect::Two, 0x80..=0xbf)
        | (Expect::AfterE0, 0xa0..=0xbf)
        | (Expect::AfterEd, 0x80..=0x9f) => Some(Expect::One),
        (Expect::Boundary, 0xe1..=0xec | 0xee..=0xef)
        | (Expect::Three, 0x80..=0xbf)
        | (Expect::AfterF0, 0x90..=0xbf)
        | (Expect::AfterF4, 0x80..=0x8f) => Some(Expect::Two),
        (Expect::Boundary, 0xe0) => Some(Expect::AfterE0),
        (Expect::Boundary, 0xed) => Some(Expect::AfterEd),
        (Expect::Boundary, 0xf0) => Some(Expect::AfterF0),
        (Expect::Boundary, 0xf1..=0xf3) => Some(Expect::Three),
        (Expect::Boundary, 0xf4) => Some(Expect::AfterF4),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::Utf8Check;

    /// The length of the shortest prefix that no text can start with, by the standard library.
    fn first_bad_prefix(bytes: &[u8]) -> Option<usize> {
        (1..=bytes.len()).find(|end| {
            std::str::from_utf8(&bytes[..*end]).is_err_and(|error| error.error_len().is_some())
        })
    }

    fn check_byte_by_byte(bytes: &[u8]) {
        let bad = first_bad_prefix(bytes);
        let mut check = Utf8Check::new();
        for (index, byte) in bytes.iter().enumerate() {
            let result = check.feed(&[*byte]);
            assert_eq!(result.is_err(), bad == Some(index + 1), "byte {index} of {bytes:x?}");
            if result.is_err() {
                return;
            }
        }
        assert_eq!(check.is_at_boundary(), std::str::from_utf8(bytes).is_ok(), "{bytes:x?}");
    }

    /// Bytes that are mostly near the edges of the encoding, where mistakes live.
    fn near_text() -> impl Strategy<Value = Vec<u8>> {
        let edge = prop::sample::select(vec![
            0x00, 0x7f, 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf, 0xc0, 0xc1, 0xc2, 0xdf, 0xe0, 0xec,
            0xed, 0xef, 0xf0, 0xf3, 0xf4, 0xf5, 0xff,
        ]);
        let piece = prop_oneof![
            4 => any::<char>().prop_map(|c| c.to_string().into_bytes()),
            1 => "[a-z]{1,80}".prop_map(String::into_bytes),
            1 => proptest::collection::vec(edge, 1..4),
        ];
        proptest::collection::vec(piece, 0..8).prop_map(|pieces| pieces.concat())
    }

    #[test]
    fn every_pair_of_leading_bytes_agrees_with_the_standard_library() {
        for first in 0..=255_u8 {
            for second in 0..=255_u8 {
                check_byte_by_byte(&[first, second, 0x80, 0x80]);
                check_byte_by_byte(&[b'a', first, second]);
            }
        }
    }

    #[test]
    fn overlong_forms_surrogates_and_too_large_values_fail_at_their_second_byte() {
        for bad in [[0xe0, 0x9f], [0xf0, 0x8f], [0xed, 0xa0], [0xf4, 0x90]] {
            let mut check = Utf8Check::new();
            assert!(check.feed(&bad[..1]).is_ok());
            assert!(check.feed(&bad[1..]).is_err());
        }
        for bad in [0xc0, 0xc1, 0xf5, 0xff, 0x80] {
            assert!(Utf8Check::new().feed(&[bad]).is_err());
        }
    }

    proptest! {
        #[test]
        fn the_first_bad_byte_is_found_when_it_arrives(bytes in near_text()) {
            check_byte_by_byte(&bytes);
        }

        #[test]
        fn any_cut_into_pieces_gives_one_verdict(
            bytes in near_text(),
            cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..6),
        ) {
            let mut ends: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
            ends.sort_unstable();
            ends.push(bytes.len());
            let mut check = Utf8Check::new();
            let mut start = 0;
            let bad = first_bad_prefix(&bytes);
            for end in ends {
                let result = check.feed(&bytes[start..end]);
                prop_assert_eq!(result.is_err(), bad.is_some_and(|bad| bad <= end));
                if result.is_err() {
                    return Ok(());
                }
                start = end;
            }
            prop_assert_eq!(check.is_at_boundary(), std::str::from_utf8(&bytes).is_ok());
        }
    }
}
