//! The arithmetic of the opening handshake (RFC 6455 section 4.2).
//!
//! It must never parse HTTP or decide who may connect: that is the gateway's.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha1::{Digest as _, Sha1};

/// The constant that proves a server speaks WebSocket (section 1.3).
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

const KEY_BYTES: usize = 16;
const KEY_CHARS: usize = 24;

/// The value of `Sec-WebSocket-Accept` that answers this `Sec-WebSocket-Key` (section 4.2.2).
#[must_use]
pub fn accept_key(key: &str) -> String {
    let digest = Sha1::new().chain_update(key).chain_update(GUID).finalize();
    STANDARD.encode(digest)
}

/// Whether a `Sec-WebSocket-Key` is the canonical base64 of exactly 16 bytes (section 4.2.1).
#[must_use]
pub fn is_valid_key(key: &str) -> bool {
    // The length is checked first, so the stack buffer always suffices. The engine itself refuses
    // missing padding and trailing bits, the two ways to spell one key differently.
    let mut decoded = [0; KEY_CHARS / 4 * 3];
    key.len() == KEY_CHARS && STANDARD.decode_slice(key, &mut decoded) == Ok(KEY_BYTES)
}

#[cfg(test)]
mod tests {
    use super::{accept_key, is_valid_key};

    #[test]
    fn the_key_of_the_rfc_has_the_answer_of_the_rfc() {
        assert_eq!(accept_key("dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn a_key_is_the_base64_of_sixteen_bytes() {
        assert!(is_valid_key("dGhlIHNhbXBsZSBub25jZQ=="));
        assert!(is_valid_key("AAAAAAAAAAAAAAAAAAAAAA=="));
    }

    #[test]
    fn a_key_of_another_length_or_alphabet_or_spelling_is_refused() {
        for key in [
            "",
            "AAAAAAAAAAAAAAAAAAAA",         // 15 bytes
            "AAAAAAAAAAAAAAAAAAAAAAA=",     // 17 bytes
            "AAAAAAAAAAAAAAAAAAAAAAAA",     // 18 bytes
            "AAAAAAAAAAAAAAAAAAAAAA",       // without padding
            "AAAAAAAAAAAAAAAAAAAAAB==",     // trailing bits
            "dGhlIHNhbXBsZSBub25jZ-==",     // the URL alphabet
            " dGhlIHNhbXBsZSBub25jZQ=",     // a space
            "dGhlIHNhbXBsZSBub25jZQ==\r\n", // more behind
            "\u{e4}GhlIHNhbXBsZSBub25jZ==", // not ASCII
        ] {
            assert!(!is_valid_key(key), "{key:?}");
        }
    }
}
