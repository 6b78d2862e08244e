//! Which messages a member wants, decided by their tags alone.
//!
//! A filter that exists is within its limits and in canonical form, so that filters that say the
//! same in another order are one. Evaluating it must never allocate, and a message without tags
//! is a message like any other: `not` lets it pass.

use std::sync::Arc;

use thiserror::Error;

use crate::message::Publication;
use crate::tags::Tags;

/// One condition, as a client says it.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Condition {
    /// All of these.
    And(Vec<Self>),
    /// At least one of these.
    Or(Vec<Self>),
    /// Not this.
    Not(Box<Self>),
    /// The tag of this name has one of these values.
    In {
        /// The tag's name.
        name: Box<str>,
        /// The values.
        values: Vec<Box<str>>,
    },
}

/// Why a condition is not a filter.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum FilterError {
    /// `and`, `or` or `in` has nothing in it.
    #[error("'and', 'or' and 'in' need at least one entry")]
    Empty,
    /// Conditions are nested deeper than [`Filter::DEPTH_MAX`].
    #[error("must be at most 8 levels deep")]
    TooDeep,
    /// There are more than [`Filter::CONDITIONS_MAX`] conditions.
    #[error("must have at most 32 conditions")]
    TooManyConditions,
    /// There are more than [`Filter::VALUES_MAX`] values.
    #[error("must have at most 64 values")]
    TooManyValues,
    /// A name or a value is longer than any tag's.
    #[error("names and values must be at most 64 bytes")]
    TooLong,
}

/// A condition that has been checked and brought into canonical form.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Filter(Arc<Condition>);

impl Filter {
    /// How deep conditions may be nested, the outermost counted as 1.
    pub const DEPTH_MAX: usize = 8;
    /// The most conditions, `and`, `or` and `not` included.
    pub const CONDITIONS_MAX: usize = 32;
    /// The most values, over all conditions.
    pub const VALUES_MAX: usize = 64;

    /// Checks a condition and takes it.
    ///
    /// # Errors
    /// [`FilterError`] says which limit it breaks.
    pub fn build(condition: Condition) -> Result<Self, FilterError> {
        let mut size = Size::default();
        size.count(&condition, 1)?;
        Ok(Self(Arc::new(canonical(condition))))
    }

    /// Whether a message with these tags is wanted.
    #[must_use]
    pub fn matches(&self, tags: &Tags) -> bool {
        holds(&self.0, tags)
    }

    /// Whether a message is wanted. One that is gone is not: only its place remains, and that is
    /// told by the position of what follows.
    #[must_use]
    pub fn passes(&self, publication: &Publication) -> bool {
        publication.tombstone.is_none() && self.matches(&publication.tags)
    }

    /// The condition, in canonical form.
    #[must_use]
    pub fn condition(&self) -> &Condition {
        &self.0
    }
}

/// What a condition has of everything that is limited.
#[derive(Default)]
struct Size {
    conditions: usize,
    values: usize,
}

impl Size {
    /// The depth is checked before going deeper, so this ends whatever it is given.
    fn count(&mut self, condition: &Condition, depth: usize) -> Result<(), FilterError> {
        self.conditions += 1;
        if self.conditions > Filter::CONDITIONS_MAX {
            return Err(FilterError::TooManyConditions);
        }
        if depth > Filter::DEPTH_MAX {
            return Err(FilterError::TooDeep);
        }
        match condition {
            Condition::And(parts) | Condition::Or(parts) => {
                if parts.is_empty() {
                    return Err(FilterError::Empty);
                }
                parts.iter().try_for_each(|part| self.count(part, depth + 1))
            }
            Condition::Not(part) => self.count(part, depth + 1),
            Condition::In { name, values } => {
                if values.is_empty() {
                    return Err(FilterError::Empty);
                }
                self.values += values.len();
                if self.values > Filter::VALUES_MAX {
                    return Err(FilterError::TooManyValues);
                }
                let too_long = |text: &str| text.len() > Tags::BYTES_MAX;
                if too_long(name) || values.iter().any(|value| too_long(value)) {
                    return Err(FilterError::TooLong);
                }
                Ok(())
            }
        }
    }
}

/// The one form of all conditions that say the same but for order, repetition and brackets.
fn canonical(condition: Condition) -> Condition {
    match condition {
        Condition::And(parts) => joined(parts, Condition::And, |part| match part {
            Condition::And(inner) => Ok(inner),
            other => Err(other),
        }),
        Condition::Or(parts) => joined(parts, Condition::Or, |part| match part {
            Condition::Or(inner) => Ok(inner),
            other => Err(other),
        }),
        Condition::Not(part) => match canonical(*part) {
            Condition::Not(inner) => *inner,
            other => Condition::Not(Box::new(other)),
        },
        Condition::In { name, mut values } => {
            values.sort_unstable();
            values.dedup();
            Condition::In { name, values }
        }
    }
}

fn joined(
    parts: Vec<Condition>,
    join: fn(Vec<Condition>) -> Condition,
    open: fn(Condition) -> Result<Vec<Condition>, Condition>,
) -> Condition {
    let mut all = Vec::with_capacity(parts.len());
    for part in parts {
        match open(canonical(part)) {
            Ok(inner) => all.extend(inner),
            Err(other) => all.push(other),
        }
    }
    all.sort_unstable();
    all.dedup();
    if all.len() == 1 { all.swap_remove(0) } else { join(all) }
}

fn holds(condition: &Condition, tags: &Tags) -> bool {
    match condition {
        Condition::And(parts) => parts.iter().all(|part| holds(part, tags)),
        Condition::Or(parts) => parts.iter().any(|part| holds(part, tags)),
        Condition::Not(part) => !holds(part, tags),
        Condition::In { name, values } => {
            tags.get(name).is_some_and(|has| values.iter().any(|value| **value == *has))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn is(name: &str, value: &str) -> Condition {
        one_of(name, &[value])
    }

    fn one_of(name: &str, values: &[&str]) -> Condition {
        Condition::In { name: name.into(), values: values.iter().map(|v| (*v).into()).collect() }
    }

    fn not(condition: Condition) -> Condition {
        Condition::Not(Box::new(condition))
    }

    fn filter(condition: Condition) -> Filter {
        Filter::build(condition).unwrap()
    }

    #[test]
    fn a_message_without_tags_passes_what_does_not_ask_for_any() {
        let none = Tags::default();
        assert!(!filter(is("lang", "de")).matches(&none));
        assert!(filter(not(is("lang", "de"))).matches(&none));
    }

    #[test]
    fn each_connective_decides_as_its_word_says() {
        let (yes, no) = (|| is("lang", "de"), || is("lang", "fr"));
        let tags = Tags::build([("lang", "de")]).unwrap();
        let both = |a: bool, b: bool| {
            let said = |it| if it { yes() } else { no() };
            vec![said(a), said(b)]
        };
        for (a, b) in [(true, true), (true, false), (false, true), (false, false)] {
            assert_eq!(filter(Condition::And(both(a, b))).matches(&tags), a && b, "{a} and {b}");
            assert_eq!(filter(Condition::Or(both(a, b))).matches(&tags), a || b, "{a} or {b}");
        }
        assert!(filter(not(no())).matches(&tags) && !filter(not(yes())).matches(&tags));
        assert!(filter(one_of("lang", &["fr", "de"])).matches(&tags));
        assert!(!filter(one_of("lang", &["fr", "en"])).matches(&tags));
    }

    #[test]
    fn filters_that_say_the_same_are_one() {
        let (a, b) = (is("a", "1"), one_of("b", &["x", "y"]));
        let plain = filter(Condition::And(vec![a.clone(), b.clone()]));
        let nested = Condition::And(vec![
            one_of("b", &["y", "x", "y"]),
            Condition::Or(vec![a.clone(), a.clone()]),
            Condition::And(vec![not(not(a.clone())), b.clone()]),
        ]);
        assert_eq!(plain, filter(nested));
        assert_ne!(plain, filter(Condition::Or(vec![a, b])));
    }

    #[test]
    fn every_limit_is_exact() {
        let deep = |levels: usize| (1..levels).fold(is("a", "1"), |inner, _| not(inner));
        assert!(Filter::build(deep(Filter::DEPTH_MAX)).is_ok());
        assert_eq!(Filter::build(deep(Filter::DEPTH_MAX + 1)), Err(FilterError::TooDeep));
        let wide = |parts: usize| Condition::Or((0..parts).map(|_| is("a", "1")).collect());
        assert!(Filter::build(wide(Filter::CONDITIONS_MAX - 1)).is_ok());
        let refused = Filter::build(wide(Filter::CONDITIONS_MAX));
        assert_eq!(refused, Err(FilterError::TooManyConditions));
        let values = |count: usize| one_of("a", &vec!["v"; count]);
        assert!(Filter::build(values(Filter::VALUES_MAX)).is_ok());
        let halves = Condition::And(vec![values(32), values(33)]);
        assert_eq!(Filter::build(halves), Err(FilterError::TooManyValues));
        let long = "x".repeat(Tags::BYTES_MAX + 1);
        assert!(Filter::build(is(&long[1..], &long[1..])).is_ok());
        assert_eq!(Filter::build(is("a", &long)), Err(FilterError::TooLong));
        assert_eq!(Filter::build(is(&long, "a")), Err(FilterError::TooLong));
        for empty in [Condition::And(vec![]), Condition::Or(vec![]), one_of("a", &[])] {
            assert_eq!(Filter::build(empty), Err(FilterError::Empty));
        }
    }

    fn conditions() -> impl Strategy<Value = Condition> {
        let leaf = ("[ab]", proptest::collection::vec("[xy]", 1..3)).prop_map(|(name, values)| {
            let values = values.into_iter().map(Into::into).collect();
            Condition::In { name: name.into(), values }
        });
        leaf.prop_recursive(4, 20, 3, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 1..3).prop_map(Condition::And),
                proptest::collection::vec(inner.clone(), 1..3).prop_map(Condition::Or),
                inner.prop_map(|part| Condition::Not(Box::new(part))),
            ]
        })
    }

    proptest! {
        #[test]
        fn the_canonical_form_decides_like_what_was_said_and_is_its_own(
            said in conditions(), a in proptest::option::of("[xyz]"), b in proptest::option::of("[xyz]"),
        ) {
            let pairs = a.iter().map(|v| ("a", &**v)).chain(b.iter().map(|v| ("b", &**v)));
            let tags = Tags::build(pairs).unwrap();
            if let Ok(filter) = Filter::build(said.clone()) {
                prop_assert_eq!(filter.matches(&tags), holds(&said, &tags));
                prop_assert_eq!(canonical(filter.condition().clone()), filter.condition().clone());
            }
        }
    }
}
