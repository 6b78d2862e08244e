//! Writing JSON by hand: strings, numbers, lines, and the one frame that is hot.
//!
//! It must never write a line break into a line, nor trust a text to need no escapes.

use crate::message::Publication;
use crate::position::Position;
use crate::protocol::json::find_special;
use crate::protocol::selective::push_tags;
use crate::time::Wall;
use crate::trace::TraceParent;

/// Encodes a publication as every member of its room gets it: a `message`, or a `tombstone` when
/// the message is gone. Its timestamp is when it was positioned, so one encoding serves delivery,
/// recovery and history.
///
/// Only a message with tags has `tags`. Only messages of another class than `reliable` name it: `"offset":null,"class":"latest",
/// "key":"…"`, or `"offset":null,"class":"droppable"` without a key.
#[must_use]
pub fn encode_message(publication: &Publication) -> Vec<u8> {
    // Enough for all that is fixed, so that there is one allocation.
    const FIXED_BYTES: usize = 224;
    const TRACE_BYTES: usize = 73;
    let Publication { room, epoch, offset, class, key, sender, data, tags, at, tombstone, .. } =
        publication;
    let user = sender.user.as_ref().map_or("", |user| user.as_str());
    let key_bytes = key.as_ref().map_or(0, |key| key.as_str().len());
    let trace_bytes = sender.trace.map_or(0, |_| TRACE_BYTES);
    // Escapes in tags are rare; those that are there may cost a second allocation.
    let more_bytes = tags.cost_bytes() + trace_bytes;
    let variable = room.as_str().len() + user.len() + key_bytes + data.len() + more_bytes;
    let mut out = Vec::with_capacity(FIXED_BYTES + variable);

    out.extend_from_slice(match tombstone {
        None => br#"{"type":"message","room":""#,
        Some(_) => br#"{"type":"tombstone","room":""#,
    });
    // A room's alphabet holds nothing that needs an escape.
    out.extend_from_slice(room.as_str().as_bytes());
    out.extend_from_slice(br#"","epoch":""#);
    push_hex(&mut out, epoch.bits());
    out.extend_from_slice(br#"","offset":"#);
    match offset {
        Some(offset) => push_number(&mut out, offset.get()),
        None => out.extend_from_slice(b"null"),
    }
    if !class.is_positioned() {
        out.extend_from_slice(br#","class":""#);
        out.extend_from_slice(class.word().as_bytes());
        out.push(b'"');
        if let Some(key) = key {
            out.extend_from_slice(br#","key":"#);
            push_json_string(&mut out, key.as_str());
        }
    }
    if let Some(reason) = tombstone {
        out.extend_from_slice(br#","reason":""#);
        out.extend_from_slice(reason.word().as_bytes());
        out.push(b'"');
    } else {
        out.extend_from_slice(br#","sender":{"user_id":"#);
        match &sender.user {
            Some(user) => push_json_string(&mut out, user.as_str()),
            None => out.extend_from_slice(b"null"),
        }
        out.extend_from_slice(br#","connection_id":"#);
        match sender.connection {
            Some(connection) => {
                out.push(b'"');
                push_hex(&mut out, connection.bits());
                out.push(b'"');
            }
            None => out.extend_from_slice(b"null"),
        }
        out.push(b'}');
        if !tags.is_empty() {
            out.extend_from_slice(br#","tags":"#);
            push_tags(&mut out, tags);
        }
        out.extend_from_slice(br#","data":"#);
        push_raw(&mut out, data);
        push_trace(&mut out, sender.trace);
    }
    push_end(&mut out, *at);
    out
}

fn push_trace(out: &mut Vec<u8>, trace: Option<TraceParent>) {
    if let Some(trace) = trace {
        out.extend_from_slice(br#","traceparent":""#);
        out.extend_from_slice(trace.to_string().as_bytes());
        out.push(b'"');
    }
}

/// Writes a text as a JSON string, quotes included.
pub fn push_json_string(out: &mut Vec<u8>, text: &str) {
    let bytes = text.as_bytes();
    out.push(b'"');
    let mut from = 0;
    loop {
        let at = find_special(bytes, from);
        out.extend_from_slice(&bytes[from..at]);
        let Some(&special) = bytes.get(at) else { break };
        push_escape(out, special);
        from = at + 1;
    }
    out.push(b'"');
}

fn push_escape(out: &mut Vec<u8>, byte: u8) {
    let short = match byte {
        b'"' | b'\\' => byte,
        b'\n' => b'n',
        b'\r' => b'r',
        b'\t' => b't',
        0x08 => b'b',
        0x0c => b'f',
        _ => {
            let [.., high, low] = hex_digits(u32::from(byte));
            out.extend_from_slice(&[b'\\', b'u', b'0', b'0', high, low]);
            return;
        }
    };
    out.extend_from_slice(&[b'\\', short]);
}

/// Writes checked JSON as it is; no bytes at all stand for `null`.
#[inline]
fn push_raw(out: &mut Vec<u8>, json: &[u8]) {
    out.extend_from_slice(if json.is_empty() { b"null" } else { json });
}

#[inline]
pub(super) fn push_number(out: &mut Vec<u8>, mut number: u64) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

#[inline]
fn push_hex(out: &mut Vec<u8>, bits: u64) {
    let mut digits = [0; 16];
    digits[..8].copy_from_slice(&hex_digits((bits >> 32) as u32));
    digits[8..].copy_from_slice(&hex_digits(bits as u32));
    out.extend_from_slice(&digits);
}

/// Eight digits at once: half the bits move up in each of three steps until every byte of a `u64`
/// holds one digit's value, then all bytes become ASCII together.
#[inline]
const fn hex_digits(bits: u32) -> [u8; 8] {
    const ONES: u64 = u64::MAX / 255;
    let mut values = bits as u64;
    values = (values << 16 | values) & 0x0000_ffff_0000_ffff;
    values = (values << 8 | values) & 0x00ff_00ff_00ff_00ff;
    values = (values << 4 | values) & 0x0f0f_0f0f_0f0f_0f0f;
    let is_letter = ((values + ONES * 6) >> 4) & ONES;
    let ascii = values + ONES * b'0' as u64 + is_letter * (b'a' - b'9' - 1) as u64;
    ascii.to_be_bytes()
}

#[inline]
fn push_end(out: &mut Vec<u8>, timestamp: Wall) {
    out.extend_from_slice(br#","timestamp":""#);
    out.extend_from_slice(&timestamp.to_iso8601());
    out.extend_from_slice(b"\"}");
}

/// One frame on its way out. Field names come from the protocol alone and need no escapes.
pub(crate) struct Line<'o> {
    out: &'o mut Vec<u8>,
}

impl<'o> Line<'o> {
    pub(crate) fn begin(out: &'o mut Vec<u8>, kind: &str) -> Self {
        out.extend_from_slice(br#"{"type":"#);
        push_json_string(out, kind);
        Self { out }
    }

    /// Ends a frame of the server, which always carries the time.
    pub(crate) fn end(self, now: Wall) {
        push_end(self.out, now);
    }

    /// The same, without what comes behind the second.
    pub(crate) fn end_with_seconds(mut self, now: Wall) {
        self.seconds("timestamp", now);
        self.close();
    }

    /// Ends a frame of a client.
    pub(crate) fn close(self) {
        self.out.push(b'}');
    }

    fn key(&mut self, name: &'static str) -> &mut Vec<u8> {
        self.out.extend_from_slice(b",\"");
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b"\":");
        self.out
    }

    pub(super) fn raw(&mut self, name: &'static str, json: &[u8]) {
        push_raw(self.key(name), json);
    }

    /// A value that writes itself.
    pub(super) fn write(&mut self, name: &'static str, push: impl FnOnce(&mut Vec<u8>)) {
        push(self.key(name));
    }

    pub(crate) fn text(&mut self, name: &'static str, text: &str) {
        push_json_string(self.key(name), text);
    }

    pub(crate) fn text_or_null(&mut self, name: &'static str, text: Option<&str>) {
        match text {
            Some(text) => self.text(name, text),
            None => self.raw(name, b"null"),
        }
    }

    pub(crate) fn number(&mut self, name: &'static str, number: u64) {
        push_number(self.key(name), number);
    }

    pub(crate) fn number_or_null(&mut self, name: &'static str, number: Option<u64>) {
        match number {
            Some(number) => self.number(name, number),
            None => self.raw(name, b"null"),
        }
    }

    pub(super) fn flag(&mut self, name: &'static str, value: bool) {
        self.raw(name, if value { b"true" } else { b"false" });
    }

    pub(super) fn hex(&mut self, name: &'static str, bits: u64) {
        let out = self.key(name);
        out.push(b'"');
        push_hex(out, bits);
        out.push(b'"');
    }

    pub(super) fn time_or_null(&mut self, name: &'static str, time: Option<Wall>) {
        match time {
            Some(time) => self.time(name, time),
            None => self.raw(name, b"null"),
        }
    }

    pub(crate) fn time(&mut self, name: &'static str, time: Wall) {
        let out = self.key(name);
        out.push(b'"');
        out.extend_from_slice(&time.to_iso8601());
        out.push(b'"');
    }

    /// The same, without what comes behind the second.
    pub(crate) fn seconds(&mut self, name: &'static str, time: Wall) {
        let out = self.key(name);
        out.push(b'"');
        out.extend_from_slice(&time.to_iso8601_seconds());
        out.push(b'"');
    }

    /// An object as a value, of what `fill` writes; one field at least.
    pub(super) fn nested(&mut self, name: &'static str, fill: impl FnOnce(&mut Line<'_>)) {
        let out = self.key(name);
        let start = out.len();
        fill(&mut Line { out });
        // Each field brings a comma before it; that of the first opens the object.
        if let Some(first) = out.get_mut(start) {
            *first = b'{';
        }
        out.push(b'}');
    }

    /// A position as a value of its own: `{"epoch":"…","offset":41}`.
    pub(super) fn position(&mut self, name: &'static str, position: Position) {
        let out = self.key(name);
        out.extend_from_slice(br#"{"epoch":""#);
        push_hex(out, position.epoch.bits());
        out.extend_from_slice(br#"","offset":"#);
        push_number(out, position.offset.get());
        out.push(b'}');
    }

    pub(crate) fn list<T>(
        &mut self,
        name: &'static str,
        items: impl IntoIterator<Item = T>,
        push: impl Fn(&mut Vec<u8>, T),
    ) {
        let out = self.key(name);
        out.push(b'[');
        for (index, item) in items.into_iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            push(out, item);
        }
        out.push(b']');
    }

    /// An object as an item of a list; it ends with `close`.
    pub(super) fn item(out: &'o mut Vec<u8>, name: &'static str, text: &str) -> Self {
        out.extend_from_slice(b"{\"");
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b"\":");
        push_json_string(out, text);
        Self { out }
    }
}
