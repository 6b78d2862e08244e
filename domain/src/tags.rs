//! The tags of a message: a few names with a value each, by which members choose what they get.
//!
//! Tags that exist are within their limits and in one order; none costs nothing. They are what the
//! publisher said, and nothing here may give one of them a meaning.

use std::sync::Arc;

use thiserror::Error;

/// Why pairs are not tags.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum TagsError {
    /// There are more than [`Tags::COUNT_MAX`].
    #[error("must be at most 8")]
    TooMany,
    /// A name or a value has more than [`Tags::BYTES_MAX`] bytes.
    #[error("names and values must be at most 64 bytes")]
    TooLong,
    /// A name comes twice.
    #[error("must be an object of different names to strings")]
    Duplicate,
}

/// One tag.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
struct Tag {
    name: Box<str>,
    value: Box<str>,
}

/// The tags of one message, in the order of their names.
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
pub struct Tags(Option<Arc<[Tag]>>);

impl Tags {
    /// The most tags of one message.
    pub const COUNT_MAX: usize = 8;
    /// The longest name, and the longest value, in bytes.
    pub const BYTES_MAX: usize = 64;

    /// Checks and takes pairs of a name and a value, in any order.
    ///
    /// # Errors
    /// [`TagsError`] says which limit they break.
    pub fn build<'a>(
        pairs: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Self, TagsError> {
        let mut tags = Vec::new();
        for (name, value) in pairs {
            if tags.len() == Self::COUNT_MAX {
                return Err(TagsError::TooMany);
            }
            if name.len() > Self::BYTES_MAX || value.len() > Self::BYTES_MAX {
                return Err(TagsError::TooLong);
            }
            tags.push(Tag { name: name.into(), value: value.into() });
        }
        if tags.is_empty() {
            return Ok(Self(None));
        }
        tags.sort_unstable();
        if tags.windows(2).any(|two| two[0].name == two[1].name) {
            return Err(TagsError::Duplicate);
        }
        Ok(Self(Some(tags.into())))
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// The value of a name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.all().iter().find(|tag| *tag.name == *name).map(|tag| &*tag.value)
    }

    /// All of them, in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.all().iter().map(|tag| (&*tag.name, &*tag.value))
    }

    /// What keeping them costs, in bytes, about; nothing when there are none.
    #[must_use]
    pub fn cost_bytes(&self) -> usize {
        let texts = |tag: &Tag| size_of::<Tag>() + tag.name.len() + tag.value.len();
        self.all().iter().map(texts).sum()
    }

    fn all(&self) -> &[Tag] {
        self.0.as_deref().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_in_which_tags_come_makes_no_difference() {
        let one = Tags::build([("b", "2"), ("a", "1")]).unwrap();
        assert_eq!(one, Tags::build([("a", "1"), ("b", "2")]).unwrap());
        assert_eq!(one.iter().collect::<Vec<_>>(), [("a", "1"), ("b", "2")]);
        assert_eq!((one.get("b"), one.get("c")), (Some("2"), None));
    }

    #[test]
    fn the_limits_are_exact() {
        let names: Vec<String> = (0..=Tags::COUNT_MAX).map(|n| n.to_string()).collect();
        let of = |count: usize| Tags::build(names[..count].iter().map(|name| (&**name, "v")));
        assert!(of(Tags::COUNT_MAX).is_ok());
        assert_eq!(of(Tags::COUNT_MAX + 1), Err(TagsError::TooMany));
        let (at, over) = ("x".repeat(Tags::BYTES_MAX), "x".repeat(Tags::BYTES_MAX + 1));
        assert!(Tags::build([(&*at, &*at)]).is_ok());
        assert_eq!(Tags::build([(&*over, "v")]), Err(TagsError::TooLong));
        assert_eq!(Tags::build([("n", &*over)]), Err(TagsError::TooLong));
        assert_eq!(Tags::build([("n", "1"), ("n", "2")]), Err(TagsError::Duplicate));
    }

    #[test]
    fn no_tags_cost_nothing() {
        let none = Tags::build([]).unwrap();
        assert_eq!((none.is_empty(), none.cost_bytes()), (true, 0));
        assert_eq!(size_of::<Tags>(), 2 * size_of::<usize>());
    }
}
