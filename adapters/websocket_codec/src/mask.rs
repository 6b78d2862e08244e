//! Masking, which is its own inverse (RFC 6455 section 5.3).
//!
//! It must never look at what the bytes mean, and never copy them.

/// XORs `payload` with `key` in place. `offset` is how many bytes of the same frame came before, so
/// that a payload may arrive in pieces.
pub(crate) fn apply(payload: &mut [u8], key: [u8; 4], offset: usize) {
    // Little-endian on every machine: the first key byte is the lowest, and rotating the word right
    // by one byte starts it at the next.
    let key = u32::from_le_bytes(key).rotate_right(8 * (offset % 4) as u32);
    let word_key = u64::from(key) << 32 | u64::from(key);
    // Eight bytes are two whole keys, so every word, and the tail too, starts at the key's start.
    let (words, tail) = payload.as_chunks_mut::<8>();
    for word in words {
        *word = (u64::from_le_bytes(*word) ^ word_key).to_le_bytes();
    }
    for (byte, key_byte) in tail.iter_mut().zip(word_key.to_le_bytes()) {
        *byte ^= key_byte;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::apply;

    #[test]
    fn the_masked_hello_of_the_rfc_unmasks() {
        let mut payload = [0x7f, 0x9f, 0x4d, 0x51, 0x58];
        apply(&mut payload, [0x37, 0xfa, 0x21, 0x3d], 0);
        assert_eq!(&payload, b"Hello");
    }

    proptest! {
        #[test]
        fn words_give_what_single_bytes_give(
            payload in proptest::collection::vec(any::<u8>(), 0..100),
            key: [u8; 4],
            offset in 0_usize..1000,
        ) {
            let naive: Vec<u8> = payload
                .iter()
                .enumerate()
                .map(|(index, byte)| byte ^ key[(offset + index) % 4])
                .collect();
            let mut fast = payload;
            apply(&mut fast, key, offset);
            prop_assert_eq!(fast, naive);
        }

        #[test]
        fn pieces_give_what_the_whole_gives(
            payload in proptest::collection::vec(any::<u8>(), 1..100),
            key: [u8; 4],
            cut: prop::sample::Index,
        ) {
            let mut whole = payload.clone();
            apply(&mut whole, key, 0);
            let mut pieces = payload;
            let cut = cut.index(pieces.len());
            let (head, tail) = pieces.split_at_mut(cut);
            apply(head, key, 0);
            apply(tail, key, cut);
            prop_assert_eq!(pieces, whole);
        }
    }
}
