//! Strict reading of small JSON objects: each member once, a bounded number, exact types.
//!
//! It never builds a tree, and what it answers as an error never quotes the text.

use std::borrow::Cow;
use std::cell::Cell;
use std::fmt;

use serde::Deserializer;
use serde::de::{DeserializeSeed, Error, MapAccess, SeqAccess, Visitor};

/// Reads exactly one value, with nothing but white space after it.
pub(crate) fn read<'de, S: DeserializeSeed<'de>>(
    text: &'de str,
    seed: S,
) -> Result<S::Value, serde_json::Error> {
    let mut json = serde_json::Deserializer::from_str(text);
    let value = seed.deserialize(&mut json)?;
    json.end()?;
    Ok(value)
}

/// Walks the members of one object and refuses the second of a name.
pub(crate) struct Names<'de> {
    seen: Vec<Cow<'de, str>>,
    n_max: usize,
}

impl<'de> Names<'de> {
    /// Allows `n_max` members; finding a second of a name is quadratic in their number.
    pub(crate) fn new(n_max: usize) -> Self {
        Self { seen: Vec::with_capacity(n_max.min(16)), n_max }
    }

    /// The next member's name; its value has to be read before the next call.
    pub(crate) fn next<A: MapAccess<'de>>(
        &mut self,
        map: &mut A,
    ) -> Result<Option<&str>, A::Error> {
        let Some(name) = map.next_key_seed(Name)? else {
            return Ok(None);
        };
        if self.seen.len() >= self.n_max || self.seen.contains(&name) {
            return Err(A::Error::custom("a member twice, or too many members"));
        }
        self.seen.push(name);
        Ok(self.seen.last().map(|name| &**name))
    }

    /// The names in the order in which they came.
    pub(crate) fn into_seen(self) -> Vec<Cow<'de, str>> {
        self.seen
    }
}

struct Name;

impl<'de> DeserializeSeed<'de> for Name {
    type Value = Cow<'de, str>;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Self::Value, D::Error> {
        json.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Name {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(text))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(text.to_owned()))
    }
}

/// Remembers which member was being read when reading failed.
#[derive(Default)]
pub(crate) struct Blame(Cell<Option<&'static str>>);

impl Blame {
    /// Reads the value of the member `name` with `seed`.
    pub(crate) fn value<'de, A: MapAccess<'de>, S: DeserializeSeed<'de>>(
        &self,
        name: &'static str,
        map: &mut A,
        seed: S,
    ) -> Result<S::Value, A::Error> {
        self.0.set(Some(name));
        let value = map.next_value_seed(seed)?;
        self.0.set(None);
        Ok(value)
    }

    /// The member whose value was wrong; none when the object itself was.
    pub(crate) fn member(&self) -> Option<&'static str> {
        self.0.get()
    }
}

/// A string that the function accepts.
pub(crate) struct Text<F>(pub(crate) F);

impl<'de, T, F: FnOnce(&str) -> Option<T>> DeserializeSeed<'de> for Text<F> {
    type Value = T;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<T, D::Error> {
        json.deserialize_str(self)
    }
}

impl<'de, T, F: FnOnce(&str) -> Option<T>> Visitor<'de> for Text<F> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        (self.0)(text).ok_or_else(|| E::custom("a string that is not allowed here"))
    }
}

/// An array of at most `n_max` strings, each of which the function accepts.
pub(crate) struct TextList<F> {
    pub(crate) n_max: usize,
    pub(crate) item: F,
}

impl<'de, T, F: FnMut(&str) -> Option<T>> DeserializeSeed<'de> for TextList<F> {
    type Value = Vec<T>;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Vec<T>, D::Error> {
        json.deserialize_seq(self)
    }
}

impl<'de, T, F: FnMut(&str) -> Option<T>> Visitor<'de> for TextList<F> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of strings")
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut seq: A) -> Result<Vec<T>, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element_seed(Text(|text: &str| (self.item)(text)))? {
            if items.len() >= self.n_max {
                return Err(A::Error::custom("too many items"));
            }
            items.push(item);
        }
        Ok(items)
    }
}
