//! A strict RFC 8259 scanner: where a value ends, and whether every byte up to there is JSON.
//!
//! It must never build a tree, recurse or change a byte: what was published goes out as it came.
//! It is stricter than the grammar in one place: an escape for half a surrogate pair is refused,
//! since it stands for no character and every reader makes something else of it.

use std::borrow::Cow;

use thiserror::Error;

/// How deep values may be nested, the outermost array or object counted as 1. The scanner keeps
/// one bit per open level in a `u64`, so this is also the most it can keep.
pub const DEPTH_MAX: u32 = u64::BITS;

/// Why a text is refused.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum JsonError {
    /// The byte there cannot stand there, or the text ends there too early.
    #[error("not valid JSON at byte {at}")]
    Syntax {
        /// The byte, counted from the start of the text.
        at: usize,
    },
    /// A level more is opened than allowed.
    #[error("nested too deep at byte {at}")]
    TooDeep {
        /// The byte, counted from the start of the text.
        at: usize,
    },
}

/// Checks one value from `at` on, white space before it included, and answers where it ends.
/// `depth_max` above [`DEPTH_MAX`] counts as [`DEPTH_MAX`].
///
/// # Errors
/// [`JsonError`] says what is wrong first.
pub fn scan_value(text: &str, at: usize, depth_max: u32) -> Result<usize, JsonError> {
    let bytes = text.as_bytes();
    let depth_max = depth_max.min(DEPTH_MAX);
    let mut at = skip_space(bytes, at);
    let mut depth = 0;
    // The kinds of the open levels, the innermost in the lowest bit: 1 is an object.
    let mut kinds = 0u64;
    loop {
        match bytes.get(at) {
            Some(b'"') => at = scan_string(bytes, at)?,
            Some(b'-' | b'0'..=b'9') => at = scan_number(bytes, at)?,
            Some(&open @ (b'{' | b'[')) => {
                if depth == depth_max {
                    return Err(JsonError::TooDeep { at });
                }
                let is_object = open == b'{';
                at = skip_space(bytes, at + 1);
                if bytes.get(at) == Some(if is_object { &b'}' } else { &b']' }) {
                    at += 1;
                } else {
                    depth += 1;
                    kinds = kinds << 1 | u64::from(is_object);
                    if is_object {
                        at = scan_key(bytes, at)?;
                    }
                    continue;
                }
            }
            _ => at = scan_word(bytes, at)?,
        }
        // A value ended here, and with it perhaps those around it.
        loop {
            if depth == 0 {
                return Ok(at);
            }
            at = skip_space(bytes, at);
            match (bytes.get(at), kinds & 1 == 1) {
                (Some(b','), is_object) => {
                    at = skip_space(bytes, at + 1);
                    if is_object {
                        at = scan_key(bytes, at)?;
                    }
                    break;
                }
                (Some(b'}'), true) | (Some(b']'), false) => {
                    at += 1;
                    depth -= 1;
                    kinds >>= 1;
                }
                _ => return Err(JsonError::Syntax { at }),
            }
        }
    }
}

/// Walks the members of one object. Neither duplicate keys nor a number of keys mean anything
/// here; the walk takes as long as the text and no memory.
#[derive(Clone, Debug)]
pub struct Members<'a> {
    text: &'a str,
    at: usize,
    depth_max: u32,
    first: bool,
}

impl<'a> Members<'a> {
    /// Starts at the `{` at `at`; none when there is no `{`. Each member's value may be nested
    /// `depth_max` deep, this object not counted.
    #[must_use]
    pub fn open(text: &'a str, at: usize, depth_max: u32) -> Option<Self> {
        let is_object = text.as_bytes().get(at) == Some(&b'{');
        is_object.then_some(Self { text, at: at + 1, depth_max, first: true })
    }

    /// The next member: its key without escapes, and its value as it stands in the text. None
    /// behind the last; asking on after that or after an error means nothing.
    ///
    /// # Errors
    /// [`JsonError`] says what is wrong first.
    #[inline]
    pub fn next_member(&mut self) -> Result<Option<(Cow<'a, str>, &'a str)>, JsonError> {
        let bytes = self.text.as_bytes();
        let mut at = skip_space(bytes, self.at);
        match bytes.get(at) {
            Some(b'}') => {
                self.at = at + 1;
                return Ok(None);
            }
            Some(b',') if !self.first => at = skip_space(bytes, at + 1),
            Some(_) if self.first => {}
            _ => return Err(JsonError::Syntax { at }),
        }
        // A comma must be followed by a key, so `{"a":1,}` fails in `scan_string`.
        let key_start = at;
        let (key_end, has_escapes) = scan_string_noting_escapes(bytes, key_start)?;
        let value_start = scan_colon(bytes, key_end)?;
        let value_end = scan_value(self.text, value_start, self.depth_max)?;
        self.first = false;
        self.at = value_end;
        let key = &self.text[key_start + 1..key_end - 1];
        let key = if has_escapes { remove_escapes(key) } else { Cow::Borrowed(key) };
        Ok(Some((key, &self.text[value_start..value_end])))
    }

    /// Where the object ends, once `next_member` has answered none.
    #[must_use]
    pub const fn end(&self) -> usize {
        self.at
    }
}

/// Walks the elements of one array.
#[derive(Clone, Debug)]
pub struct Elements<'a> {
    text: &'a str,
    at: usize,
    first: bool,
}

impl<'a> Elements<'a> {
    /// Starts at the `[` at `at`; none when there is no `[`.
    #[must_use]
    pub fn open(text: &'a str, at: usize) -> Option<Self> {
        let is_array = text.as_bytes().get(at) == Some(&b'[');
        is_array.then_some(Self { text, at: at + 1, first: true })
    }

    /// The next element as it stands in the text. None behind the last; asking on after that or
    /// after an error means nothing.
    ///
    /// # Errors
    /// [`JsonError`] says what is wrong first.
    pub fn next_element(&mut self) -> Result<Option<&'a str>, JsonError> {
        let bytes = self.text.as_bytes();
        let mut at = skip_space(bytes, self.at);
        match bytes.get(at) {
            // A comma must be followed by a value, so `[1,]` fails in `scan_value`.
            Some(b']') => {
                self.at = at + 1;
                return Ok(None);
            }
            Some(b',') if !self.first => at = skip_space(bytes, at + 1),
            Some(_) if self.first => {}
            _ => return Err(JsonError::Syntax { at }),
        }
        let end = scan_value(self.text, at, DEPTH_MAX)?;
        self.first = false;
        self.at = end;
        Ok(Some(&self.text[at..end]))
    }
}

/// What a scanned string says, quotes and escapes removed; borrowed when it has no escapes.
#[must_use]
pub fn unescape(raw: &str) -> Cow<'_, str> {
    let inner = raw.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(raw);
    // Without an early exit per byte this costs least for the short strings that names are.
    if inner.bytes().fold(false, |found, b| found | (b == b'\\')) {
        remove_escapes(inner)
    } else {
        Cow::Borrowed(inner)
    }
}

fn remove_escapes(inner: &str) -> Cow<'_, str> {
    let mut out = String::with_capacity(inner.len());
    let mut rest = inner;
    while let Some((plain, escape)) = rest.split_once('\\') {
        out.push_str(plain);
        let (character, length) = unescape_one(escape);
        out.push(character);
        rest = escape.get(length..).unwrap_or_default();
    }
    out.push_str(rest);
    Cow::Owned(out)
}

/// Removes line breaks between tokens, so that a value fits one line; nothing else changes. Only
/// for scanned texts: there a string holds no raw line break, and white space never is all that
/// stands between two tokens that would melt into one.
#[must_use]
pub fn compact_lines(raw: &str) -> Cow<'_, str> {
    let is_break = |b: &u8| matches!(b, b'\n' | b'\r');
    // Without an early exit per byte the compiler compares many bytes at once.
    let has_break = |chunk: &[u8]| chunk.iter().fold(false, |found, b| found | is_break(b));
    if !raw.as_bytes().chunks(64).any(has_break) {
        return Cow::Borrowed(raw);
    }
    Cow::Owned(raw.split(['\n', '\r']).collect())
}

/// The first byte at or behind `at` that a JSON string cannot hold as it is (a quote, a backslash
/// or a control character), else the end.
#[inline]
pub(super) fn find_special(bytes: &[u8], mut at: usize) -> usize {
    const ONES: u64 = u64::MAX / 255;
    const HIGHS: u64 = ONES << 7;
    // Eight bytes at a time: `(x - n) & !x & 0x80` marks each byte below n. A borrow can mark
    // bytes above a true mark only, so the lowest mark is always true.
    while let Some(chunk) = bytes.get(at..).and_then(|rest| rest.first_chunk::<8>()) {
        let word = u64::from_le_bytes(*chunk);
        let quote = word ^ (ONES * 0x22);
        let backslash = word ^ (ONES * 0x5c);
        let marks = (quote.wrapping_sub(ONES) & !quote)
            | (backslash.wrapping_sub(ONES) & !backslash)
            | (word.wrapping_sub(ONES * 0x20) & !word);
        if marks & HIGHS != 0 {
            return at + ((marks & HIGHS).trailing_zeros() / 8) as usize;
        }
        at += 8;
    }
    while bytes.get(at).is_some_and(|&b| b >= 0x20 && b != b'"' && b != b'\\') {
        at += 1;
    }
    at
}

/// The first byte at or behind `at` that is not white space.
#[inline]
pub(super) fn skip_space(bytes: &[u8], mut at: usize) -> usize {
    // Most often there is none, which one comparison tells.
    while let Some(&byte) = bytes.get(at) {
        if byte > b' ' || !matches!(byte, b' ' | b'\t' | b'\n' | b'\r') {
            break;
        }
        at += 1;
    }
    at
}

fn scan_key(bytes: &[u8], at: usize) -> Result<usize, JsonError> {
    scan_colon(bytes, scan_string(bytes, at)?)
}

/// From behind a key to the start of its value.
#[inline]
fn scan_colon(bytes: &[u8], at: usize) -> Result<usize, JsonError> {
    let at = skip_space(bytes, at);
    if bytes.get(at) != Some(&b':') {
        return Err(JsonError::Syntax { at });
    }
    Ok(skip_space(bytes, at + 1))
}

#[inline]
fn scan_string(bytes: &[u8], at: usize) -> Result<usize, JsonError> {
    scan_string_noting_escapes(bytes, at).map(|(end, _)| end)
}

#[inline]
fn scan_string_noting_escapes(bytes: &[u8], at: usize) -> Result<(usize, bool), JsonError> {
    if bytes.get(at) != Some(&b'"') {
        return Err(JsonError::Syntax { at });
    }
    let mut at = at + 1;
    let mut has_escapes = false;
    loop {
        at = find_special(bytes, at);
        match bytes.get(at) {
            Some(b'"') => return Ok((at + 1, has_escapes)),
            Some(b'\\') => at = scan_escape(bytes, at)?,
            _ => return Err(JsonError::Syntax { at }),
        }
        has_escapes = true;
    }
}

/// From a backslash to behind its escape; both halves of a surrogate pair are one.
fn scan_escape(bytes: &[u8], at: usize) -> Result<usize, JsonError> {
    match bytes.get(at + 1) {
        Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => Ok(at + 2),
        Some(b'u') => match hex4(bytes, at + 2) {
            Some(0xd800..=0xdbff) => {
                let low = hex4(bytes, at + 8).filter(|low| (0xdc00..=0xdfff).contains(low));
                match (bytes.get(at + 6), bytes.get(at + 7), low) {
                    (Some(b'\\'), Some(b'u'), Some(_)) => Ok(at + 12),
                    _ => Err(JsonError::Syntax { at }),
                }
            }
            Some(0xdc00..=0xdfff) | None => Err(JsonError::Syntax { at }),
            Some(_) => Ok(at + 6),
        },
        _ => Err(JsonError::Syntax { at }),
    }
}

fn hex4(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.iter().try_fold(0, |value, &digit| {
        let digit = char::from(digit).to_digit(16)?;
        Some(value << 4 | digit)
    })
}

/// The character that a checked escape stands for, and how many bytes behind the backslash it has.
fn unescape_one(escape: &str) -> (char, usize) {
    let bytes = escape.as_bytes();
    match bytes.first() {
        Some(b'b') => ('\u{8}', 1),
        Some(b'f') => ('\u{c}', 1),
        Some(b'n') => ('\n', 1),
        Some(b'r') => ('\r', 1),
        Some(b't') => ('\t', 1),
        Some(b'u') => {
            let high = hex4(bytes, 1).unwrap_or(0);
            if (0xd800..=0xdbff).contains(&high) {
                let low = hex4(bytes, 7).unwrap_or(0) & 0x3ff;
                let code = 0x1_0000 + ((high & 0x3ff) << 10 | low);
                (char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER), 11)
            } else {
                (char::from_u32(high).unwrap_or(char::REPLACEMENT_CHARACTER), 5)
            }
        }
        Some(&other) => (char::from(other), 1),
        None => (char::REPLACEMENT_CHARACTER, 0),
    }
}

fn scan_number(bytes: &[u8], at: usize) -> Result<usize, JsonError> {
    let mut at = at + usize::from(bytes[at] == b'-');
    let leading_zero = bytes.get(at) == Some(&b'0');
    let whole_end = scan_digits(bytes, at)?;
    if leading_zero && whole_end > at + 1 {
        return Err(JsonError::Syntax { at });
    }
    at = whole_end;
    if bytes.get(at) == Some(&b'.') {
        at = scan_digits(bytes, at + 1)?;
    }
    if matches!(bytes.get(at), Some(b'e' | b'E')) {
        let signed = matches!(bytes.get(at + 1), Some(b'+' | b'-'));
        at = scan_digits(bytes, at + 1 + usize::from(signed))?;
    }
    check_boundary(bytes, at)
}

fn scan_digits(bytes: &[u8], start: usize) -> Result<usize, JsonError> {
    let mut at = start;
    while bytes.get(at).is_some_and(u8::is_ascii_digit) {
        at += 1;
    }
    if at == start { Err(JsonError::Syntax { at }) } else { Ok(at) }
}

fn scan_word(bytes: &[u8], at: usize) -> Result<usize, JsonError> {
    let rest = bytes.get(at..).unwrap_or_default();
    for word in ["true", "false", "null"] {
        if rest.starts_with(word.as_bytes()) {
            return check_boundary(bytes, at + word.len());
        }
    }
    Err(JsonError::Syntax { at })
}

/// In a text of several values, `12` must not be read as `1` and `2`, nor `truefalse` as two.
fn check_boundary(bytes: &[u8], at: usize) -> Result<usize, JsonError> {
    match bytes.get(at) {
        Some(b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' | b'+' | b'-' | b'.') => {
            Err(JsonError::Syntax { at })
        }
        _ => Ok(at),
    }
}
