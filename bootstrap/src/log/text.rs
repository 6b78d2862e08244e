//! Text that is safe to put on a line and never longer than it may be.
//!
//! Nothing here may let a control character or a character that turns the direction of writing
//! through.

use std::fmt::{self, Write};

/// Takes a text up to a number of bytes and counts the rest, so that a huge value costs no memory.
#[derive(Debug)]
pub struct Bounded {
    text: String,
    bytes_max: usize,
    bytes_left_out: usize,
}

impl Bounded {
    /// Takes at most this many bytes.
    #[must_use]
    pub const fn new(bytes_max: usize) -> Self {
        Self { text: String::new(), bytes_max, bytes_left_out: 0 }
    }

    /// What was taken, and how much was not.
    #[must_use]
    pub fn finish(mut self) -> String {
        if self.bytes_left_out > 0 {
            // Writing to a String cannot fail.
            let _ = write!(self.text, "… ({} bytes more)", self.bytes_left_out);
        }
        self.text
    }
}

impl Write for Bounded {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let free = if self.bytes_left_out > 0 { 0 } else { self.bytes_max - self.text.len() };
        let taken = text.floor_char_boundary(free.min(text.len()));
        self.text.push_str(&text[..taken]);
        self.bytes_left_out += text.len() - taken;
        Ok(())
    }
}

/// Escapes what could end the line or speak to a terminal; a backslash too, so that an escape
/// cannot be forged.
#[must_use]
pub fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        if is_dangerous(c) || c == '\\' {
            safe.extend(c.escape_default());
        } else {
            safe.push(c);
        }
    }
    safe
}

/// Escapes in a JSON text what JSON lets stand in a string and a terminal would obey.
#[must_use]
pub fn escape_json(json: &str) -> String {
    let mut safe = String::with_capacity(json.len());
    for c in json.chars() {
        if is_dangerous(c) {
            // All of them lie in the basic plane. Writing to a String cannot fail.
            let _ = write!(safe, "\\u{:04x}", u32::from(c));
        } else {
            safe.push(c);
        }
    }
    safe
}

fn is_dangerous(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_at_a_character_and_the_rest_is_counted() {
        let mut text = Bounded::new(4);
        write!(text, "abé").unwrap();
        write!(text, "é").unwrap();
        write!(text, "z").unwrap();
        assert_eq!(text.finish(), "abé… (3 bytes more)");
        let mut whole = Bounded::new(4);
        write!(whole, "abcd").unwrap();
        assert_eq!(whole.finish(), "abcd");
    }

    #[test]
    fn no_control_character_survives() {
        let text: String = (0..0x3000).filter_map(char::from_u32).collect();
        assert!(!escape(&text).chars().any(is_dangerous));
        let json = serde_json::to_string(&text).unwrap();
        let safe = escape_json(&json);
        assert!(!safe.chars().any(is_dangerous));
        assert_eq!(serde_json::from_str::<String>(&safe).unwrap(), text);
    }
}
