//! Writes the JSON of answers: objects and lists, with parts that are JSON already.
//!
//! It must never take text for JSON that somebody outside has made up: `raw` is for what was scanned
//! when it came.

use application::refusal::Refusal;
use axum::body::Bytes;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use domain::protocol::encode::push_json_string;

/// One object that is being written.
#[derive(Debug)]
pub(super) struct Object<'a> {
    out: &'a mut Vec<u8>,
}

impl<'a> Object<'a> {
    pub(super) fn begin(out: &'a mut Vec<u8>) -> Self {
        out.push(b'{');
        Self { out }
    }

    pub(super) fn end(self) {
        self.out.push(b'}');
    }

    fn name(&mut self, name: &str) {
        separate(self.out);
        self.out.push(b'"');
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b"\":");
    }

    pub(super) fn text(&mut self, name: &str, text: &str) {
        self.name(name);
        push_json_string(self.out, text);
    }

    pub(super) fn text_or_null(&mut self, name: &str, text: Option<&str>) {
        match text {
            Some(text) => self.text(name, text),
            None => self.raw(name, b"null"),
        }
    }

    pub(super) fn number(&mut self, name: &str, number: u64) {
        self.name(name);
        self.out.extend_from_slice(number.to_string().as_bytes());
    }

    pub(super) fn number_or_null(&mut self, name: &str, number: Option<u64>) {
        match number {
            Some(number) => self.number(name, number),
            None => self.raw(name, b"null"),
        }
    }

    pub(super) fn flag(&mut self, name: &str, flag: bool) {
        self.raw(name, if flag { b"true" } else { b"false" });
    }

    /// What is JSON already.
    pub(super) fn raw(&mut self, name: &str, json: &[u8]) {
        self.name(name);
        self.out.extend_from_slice(json);
    }

    pub(super) fn object(&mut self, name: &str, fill: impl FnOnce(&mut Object<'_>)) {
        self.name(name);
        let mut inner = Object::begin(self.out);
        fill(&mut inner);
        inner.end();
    }

    /// The fields that every refusal has.
    pub(super) fn refusal(&mut self, refusal: &Refusal) {
        self.number("code", u64::from(refusal.code.number()));
        self.text("error", refusal.code.word());
        self.text("message", &refusal.message);
        self.text_or_null("field", refusal.field.as_deref());
        let wait = refusal.retry_after.map(|wait| wait.as_millis());
        let wait = wait.map(|ms| u64::try_from(ms).unwrap_or(u64::MAX));
        self.number_or_null("retry_after_ms", wait);
    }

    /// A list of objects.
    pub(super) fn list<T>(
        &mut self,
        name: &str,
        items: impl IntoIterator<Item = T>,
        mut fill: impl FnMut(&mut Object<'_>, T),
    ) {
        self.name(name);
        self.out.push(b'[');
        for item in items {
            separate(self.out);
            let mut inner = Object::begin(self.out);
            fill(&mut inner, item);
            inner.end();
        }
        self.out.push(b']');
    }

    /// A list of texts.
    pub(super) fn text_list<'b>(&mut self, name: &str, items: impl IntoIterator<Item = &'b str>) {
        self.name(name);
        self.out.push(b'[');
        for item in items {
            separate(self.out);
            push_json_string(self.out, item);
        }
        self.out.push(b']');
    }

    /// A list of what is JSON already.
    pub(super) fn raw_list<'b>(&mut self, name: &str, items: impl IntoIterator<Item = &'b [u8]>) {
        self.name(name);
        self.out.push(b'[');
        for item in items {
            separate(self.out);
            self.out.extend_from_slice(item);
        }
        self.out.push(b']');
    }
}

/// A comma, unless something has just begun.
fn separate(out: &mut Vec<u8>) {
    if !matches!(out.last(), Some(b'{' | b'[')) {
        out.push(b',');
    }
}

/// An answer with one object.
pub(super) fn answer(fill: impl FnOnce(&mut Object<'_>)) -> Response {
    let mut out = Vec::with_capacity(160);
    let mut object = Object::begin(&mut out);
    fill(&mut object);
    object.end();
    json(Bytes::from(out))
}

/// An answer that is JSON already.
pub(super) fn json(body: Bytes) -> Response {
    let kind = HeaderValue::from_static("application/json");
    ([(header::CONTENT_TYPE, kind)], body).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back_by_others() {
        let mut out = Vec::new();
        let mut object = Object::begin(&mut out);
        object.text("a", "x\"\n\u{7f}ü");
        object.text_or_null("b", None);
        object.list("c", [1, 2], |object, number| object.number("n", number));
        object.raw_list("d", [&b"{}"[..], b"[1]"]);
        object.raw_list("e", []);
        object.text_list("h", ["x", "\"", ""]);
        object.object("f", |object| object.flag("yes", true));
        object.number_or_null("g", Some(7));
        object.end();
        let read: serde_json::Value = serde_json::from_slice(&out).unwrap();
        let wanted = serde_json::json!({
            "a": "x\"\n\u{7f}ü", "b": null, "c": [{"n": 1}, {"n": 2}], "d": [{}, [1]], "e": [], "h": ["x", "\"", ""],
            "f": {"yes": true}, "g": 7
        });
        assert_eq!(read, wanted);
    }
}
