//! The outer object of a client's frame: which of the protocol's fields it has, and their raw
//! values.
//!
//! It must never choose between two fields of one name: readers that choose differently would see
//! two different commands in one text.

use std::borrow::Cow;

use smallvec::SmallVec;

use crate::protocol::client_frame::Rejected;
use crate::protocol::json::{self, JsonError, Members};

/// The most fields of one frame. The longest command has eleven.
const KEYS_MAX: usize = 32;

macro_rules! names {
    ($($variant:ident = $word:literal),* $(,)?) => {
        /// Every field that some command has.
        #[derive(Clone, Copy, Debug, Eq, PartialEq)]
        pub(super) enum Name { $($variant),* }

        impl Name {
            const ALL: &'static [Self] = &[$(Self::$variant),*];

            #[inline]
            fn parse(key: &str) -> Option<Self> {
                match key { $($word => Some(Self::$variant),)* _ => None }
            }

            pub(super) const fn word(self) -> &'static str {
                match self { $(Self::$variant => $word),* }
            }
        }
    };
}

names! {
    Type = "type", Id = "id", Room = "room", Data = "data", MsgId = "msg_id", Echo = "echo",
    Class = "class", Key = "key", TtlMs = "ttl_ms", Tags = "tags", Since = "since",
    Presence = "presence", Filter = "filter", Limit = "limit", Token = "token",
    Session = "session", Resume = "resume", Timestamp = "timestamp",
}

/// What is wrong with an object that is valid JSON all the same.
#[derive(Clone, Copy, Debug)]
enum Fault {
    DuplicateKey,
    TooManyKeys,
}

/// The fields of one frame.
#[derive(Debug, Default)]
pub(super) struct Envelope<'a> {
    values: [Option<&'a str>; Name::ALL.len()],
    unknown: SmallVec<[Cow<'a, str>; 1]>,
    n_keys: usize,
    fault: Option<Fault>,
}

impl<'a> Envelope<'a> {
    /// Takes in the object that starts at `at` and answers where it ends. After an error, what
    /// came before it has been taken in.
    pub(super) fn read(&mut self, text: &'a str, at: usize) -> Result<usize, JsonError> {
        let Some(mut members) = Members::open(text, at, json::DEPTH_MAX) else {
            return Err(JsonError::Syntax { at });
        };
        while let Some((key, value)) = members.next_member()? {
            self.n_keys += 1;
            if let Some(name) = Name::parse(&key) {
                if self.values[name as usize].replace(value).is_some() {
                    self.fault = Some(Fault::DuplicateKey);
                    // Nobody can say which of two ids was meant, so the answer has none.
                    if name == Name::Id {
                        self.values[Name::Id as usize] = Some("null");
                    }
                }
            } else if self.n_keys > KEYS_MAX {
                // The frame is refused below; the walk goes on only to find its end.
            } else if self.unknown.contains(&key) {
                self.fault = Some(Fault::DuplicateKey);
            } else {
                self.unknown.push(key);
            }
        }
        if self.n_keys > KEYS_MAX {
            self.fault = Some(Fault::TooManyKeys);
        }
        Ok(members.end())
    }

    /// Refuses an object that leaves open what it says.
    pub(super) fn check(&self) -> Result<(), Rejected> {
        match self.fault {
            None => Ok(()),
            Some(Fault::DuplicateKey) => Err(Rejected::strike("the frame has a key twice")),
            Some(Fault::TooManyKeys) => Err(Rejected::strike("the frame has more than 32 keys")),
        }
    }

    /// The raw value of a field, `null` included.
    #[inline]
    pub(super) const fn raw(&self, name: Name) -> Option<&'a str> {
        self.values[name as usize]
    }

    /// The raw value of a field; `null` counts as absent.
    #[inline]
    pub(super) fn get(&self, name: Name) -> Option<&'a str> {
        self.raw(name).filter(|raw| *raw != "null")
    }

    /// The frame's `id`; none too when it has several.
    pub(super) fn id(&self) -> Result<Option<u64>, Rejected> {
        let Some(raw) = self.get(Name::Id) else { return Ok(None) };
        let invalid =
            || Rejected::invalid("id", "must be a whole number from 0 to 9007199254740991");
        parse_integer(raw).map(Some).ok_or_else(invalid)
    }

    /// Refuses every field but `type`, `id`, `timestamp` and those named.
    #[inline]
    pub(super) fn only(&self, allowed: &[Name]) -> Result<(), Rejected> {
        let is_allowed =
            |n: &Name| matches!(n, Name::Type | Name::Id | Name::Timestamp) || allowed.contains(n);
        let here = |n: &&Name| self.raw(**n).is_some();
        if let Some(name) = Name::ALL.iter().filter(here).find(|n| !is_allowed(n)) {
            return Err(unknown_field(name.word()));
        }
        self.unknown.first().map_or(Ok(()), |key| Err(unknown_field(key)))
    }
}

fn unknown_field(key: &str) -> Rejected {
    let shown = &key[..key.floor_char_boundary(Rejected::FIELD_BYTES_MAX)];
    Rejected::field(
        crate::codes::ErrorCode::InvalidField,
        shown.to_owned(),
        "is not a field of this command",
    )
}

/// Reads digits up to 2^53 − 1: what JavaScript keeps exact and writes back the same way.
pub(super) fn parse_integer(raw: &str) -> Option<u64> {
    if raw.len() > 16 || !raw.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let number = raw.parse().ok()?;
    crate::position::Offset::parse(number).ok().map(crate::position::Offset::get)
}
