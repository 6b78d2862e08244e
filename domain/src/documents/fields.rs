//! Reading the fields of a message of the documents: an error names the field.
//!
//! Fields that no message has are passed over, as the documents have it; a field of the wrong type
//! never is.

use std::borrow::Cow;
use std::ops::RangeInclusive;

use crate::codes::ErrorCode;
use crate::id::{IdError, UserId};
use crate::protocol::Rejected;
use crate::protocol::json::{self, Members, unescape};

/// The fields of one object. It was scanned before: it is valid JSON and has no key twice.
#[derive(Clone, Copy, Debug)]
pub struct Fields<'a> {
    body: &'a str,
}

impl<'a> Fields<'a> {
    /// Takes a whole message.
    #[must_use]
    pub const fn new(body: &'a str) -> Self {
        Self { body }
    }

    /// A field as it stands there; `null` counts as absent.
    #[must_use]
    pub fn raw(&self, name: &str) -> Option<&'a str> {
        let mut members = Members::open(self.body, 0, json::DEPTH_MAX)?;
        while let Ok(Some((key, value))) = members.next_member() {
            if key == name {
                return (value != "null").then_some(value);
            }
        }
        None
    }

    /// A string.
    ///
    /// # Errors
    /// 102 when it is none.
    pub fn text(&self, name: &'static str) -> Result<Option<Cow<'a, str>>, Rejected> {
        Ok(self.raw_text(name)?.map(unescape))
    }

    /// A string that has to be there.
    ///
    /// # Errors
    /// 102 when it is missing, empty or none.
    pub fn needed_text(&self, name: &'static str) -> Result<Cow<'a, str>, Rejected> {
        let text = self.text(name)?.ok_or_else(|| Rejected::invalid(name, "is missing"))?;
        if text.is_empty() {
            return Err(Rejected::invalid(name, "must not be empty"));
        }
        Ok(text)
    }

    /// What a user wrote: a string that has to be there and is not blank, as it stands there, quotes
    /// and escapes included, so that it is passed on byte for byte.
    ///
    /// # Errors
    /// 102 when it is missing, blank or none; 109 when it has more than `bytes_max` bytes.
    pub fn written(&self, name: &'static str, bytes_max: usize) -> Result<&'a str, Rejected> {
        let raw = self.raw_text(name)?.ok_or_else(|| Rejected::invalid(name, "is missing"))?;
        if raw.len() - 2 > bytes_max {
            return Err(Rejected::too_large(name, format!("must be at most {bytes_max} bytes")));
        }
        if unescape(raw).trim().is_empty() {
            return Err(Rejected::invalid(name, "must not be empty"));
        }
        Ok(raw)
    }

    /// A string of at most so many bytes, as it stands there.
    ///
    /// # Errors
    /// 102 when it is none, 109 when it is longer.
    pub fn note(&self, name: &'static str, bytes_max: usize) -> Result<Option<&'a str>, Rejected> {
        let raw = self.raw_text(name)?;
        if raw.is_some_and(|raw| raw.len() - 2 > bytes_max) {
            return Err(Rejected::too_large(name, format!("must be at most {bytes_max} bytes")));
        }
        Ok(raw)
    }

    fn raw_text(&self, name: &'static str) -> Result<Option<&'a str>, Rejected> {
        let raw = self.raw(name);
        if raw.is_some_and(|raw| !raw.starts_with('"')) {
            return Err(Rejected::invalid(name, "must be a string"));
        }
        Ok(raw)
    }

    /// `true` or `false`.
    ///
    /// # Errors
    /// 102 when it is neither.
    pub fn flag(&self, name: &'static str, default: bool) -> Result<bool, Rejected> {
        match self.raw(name) {
            None => Ok(default),
            Some("true") => Ok(true),
            Some("false") => Ok(false),
            Some(_) => Err(Rejected::invalid(name, "must be true or false")),
        }
    }

    /// A whole number.
    ///
    /// # Errors
    /// 102 when it is none, or out of its range.
    pub fn whole(
        &self,
        name: &'static str,
        range: RangeInclusive<u64>,
    ) -> Result<Option<u64>, Rejected> {
        let Some(raw) = self.raw(name) else { return Ok(None) };
        let number = raw.parse().ok().filter(|number| range.contains(number));
        number.map(Some).ok_or_else(|| {
            let (least, most) = (range.start(), range.end());
            Rejected::invalid(name, format!("must be a whole number from {least} to {most}"))
        })
    }

    /// A finite number that has to be there.
    ///
    /// # Errors
    /// 102 when it is missing or none.
    pub fn needed_number(&self, name: &'static str) -> Result<f64, Rejected> {
        let raw = self.raw(name).ok_or_else(|| Rejected::invalid(name, "is missing"))?;
        let number = raw.parse::<f64>().ok().filter(|number| number.is_finite());
        let number = number.filter(|_| raw.starts_with(|c: char| c == '-' || c.is_ascii_digit()));
        number.ok_or_else(|| Rejected::invalid(name, "must be a number"))
    }

    /// An object, as it stands there.
    ///
    /// # Errors
    /// 102 when it is none, 109 when it has more than `bytes_max` bytes.
    pub fn object(
        &self,
        name: &'static str,
        bytes_max: usize,
    ) -> Result<Option<&'a str>, Rejected> {
        let Some(raw) = self.raw(name) else { return Ok(None) };
        if !raw.starts_with('{') {
            return Err(Rejected::invalid(name, "must be an object"));
        }
        if raw.len() > bytes_max {
            return Err(Rejected::too_large(name, format!("must be at most {bytes_max} bytes")));
        }
        Ok(Some(raw))
    }

    /// A user.
    ///
    /// # Errors
    /// 102 when it is missing or no user's id.
    pub fn needed_user(&self, name: &'static str) -> Result<UserId, Rejected> {
        UserId::parse(&self.needed_text(name)?).map_err(|error| of_id(name, error))
    }

    /// A user, or nobody.
    ///
    /// # Errors
    /// 102 when it is no user's id.
    pub fn user(&self, name: &'static str) -> Result<Option<UserId>, Rejected> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        UserId::parse(&text).map(Some).map_err(|error| of_id(name, error))
    }
}

/// A text that is no id.
pub(super) fn of_id(field: &'static str, error: IdError) -> Rejected {
    let code = match error {
        IdError::TooLong { .. } => ErrorCode::TooLarge,
        IdError::Empty | IdError::Alphabet | IdError::Reserved => ErrorCode::InvalidField,
    };
    Rejected::field(code, field, error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    const BODY: &str =
        r#"{"type":"t","s":"a\"b","n":7,"f":1.5,"b":true,"o":{"x":[1]},"z":null,"e":" "}"#;

    #[test]
    fn a_field_is_read_as_what_it_has_to_be() {
        let fields = Fields::new(BODY);
        assert_eq!(fields.text("s").unwrap().unwrap(), "a\"b");
        assert_eq!(fields.written("s", 4).unwrap(), r#""a\"b""#);
        assert_eq!(fields.whole("n", 1..=9).unwrap(), Some(7));
        assert_eq!(fields.needed_number("f").unwrap().to_bits(), 1.5_f64.to_bits());
        assert!(fields.flag("b", false).unwrap());
        assert_eq!(fields.object("o", 9).unwrap(), Some(r#"{"x":[1]}"#));
        assert_eq!(fields.text("z").unwrap(), None);
        assert!(fields.flag("none", true).unwrap());
    }

    #[test]
    fn what_is_wrong_names_its_field() {
        let fields = Fields::new(BODY);
        let named = |rejected: Rejected| rejected.field.unwrap().into_owned();
        assert_eq!(named(fields.text("n").unwrap_err()), "n");
        assert_eq!(named(fields.written("e", 9).unwrap_err()), "e");
        assert_eq!(named(fields.written("gone", 9).unwrap_err()), "gone");
        assert_eq!(fields.written("s", 3).unwrap_err().code, ErrorCode::TooLarge);
        assert_eq!(named(fields.whole("n", 8..=9).unwrap_err()), "n");
        assert_eq!(named(fields.whole("f", 0..=9).unwrap_err()), "f");
        assert_eq!(named(fields.flag("n", true).unwrap_err()), "n");
        assert_eq!(named(fields.object("s", 9).unwrap_err()), "s");
        assert_eq!(fields.object("o", 8).unwrap_err().code, ErrorCode::TooLarge);
        assert_eq!(named(fields.needed_number("s").unwrap_err()), "s");
        assert_eq!(named(fields.needed_user("e").unwrap_err()), "e");
    }
}
