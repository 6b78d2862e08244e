//! The outer object of a client's frame: which of the protocol's fields it has, and their raw
//! values.
//!
//! It must never choose between two fields of one name: readers that choose differently would see
//! two different commands in one text.

use std::borrow::Cow;

use smallvec::SmallVec;

use crate::codes::ErrorCode;
use crate::position::Offset;
use crate::protocol::catalog::Field;
use crate::protocol::catalog::commands::{COMMANDS, COMMON};
use crate::protocol::client_frame::Rejected;
use crate::protocol::json::{self, JsonError, Members};

/// The most fields of one frame. The longest command has twelve.
pub(super) const KEYS_MAX: usize = 32;

macro_rules! names {
    ($($variant:ident = $word:literal),* $(,)?) => {
        /// Every field that some command has.
        #[derive(Clone, Copy, Debug, Eq, PartialEq)]
        pub(super) enum Name { $($variant),* }

        impl Name {
            pub(super) const ALL: &'static [Self] = &[$(Self::$variant),*];

            #[inline]
            fn parse(key: &str) -> Option<Self> {
                match key { $($word => Some(Self::$variant),)* _ => None }
            }

            /// One bit per field.
            const fn bit(self) -> u32 {
                1 << self as u32
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
    Session = "session", Resume = "resume", Timestamp = "timestamp", Pattern = "pattern",
    Traceparent = "traceparent",
}

impl Name {
    /// The bits of all fields that the catalogue gives a command. It ends the compilation when
    /// there is no such command, or when the command has a field that is not listed above.
    pub(super) const fn bits_of(kind: &str) -> u32 {
        let mut bits = Self::Type.bit() | Self::bits(COMMON);
        let (mut row, mut has_row) = (0, false);
        while row < COMMANDS.len() {
            if let Some(word) = COMMANDS[row].kind
                && is_same(word, kind)
            {
                bits |= Self::bits(COMMANDS[row].record.fields);
                has_row = true;
            }
            row += 1;
        }
        assert!(has_row, "the catalogue has no such command");
        bits
    }

    const fn bits(fields: &[Field]) -> u32 {
        let (mut bits, mut field) = (0, 0);
        while field < fields.len() {
            let mut name = 0;
            while !is_same(Self::ALL[name].word(), fields[field].name) {
                name += 1;
                assert!(name < Self::ALL.len(), "the decoder has no name for a field");
            }
            bits |= Self::ALL[name].bit();
            field += 1;
        }
        bits
    }
}

const fn is_same(one: &str, other: &str) -> bool {
    let (one, other) = (one.as_bytes(), other.as_bytes());
    let mut at = 0;
    while at < one.len() && at < other.len() && one[at] == other[at] {
        at += 1;
    }
    at == one.len() && at == other.len()
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
    /// The bits of the fields that are here.
    known: u32,
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
                let is_duplicate = self.known & name.bit() != 0;
                self.known |= name.bit();
                self.values[name as usize] = Some(value);
                if is_duplicate {
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

    /// Refuses every field but those of [`Name::bits_of`].
    #[inline]
    pub(super) fn only(&self, allowed: u32) -> Result<(), Rejected> {
        let excess = self.known & !allowed;
        if excess == 0 && self.unknown.is_empty() {
            return Ok(());
        }
        let known = Name::ALL.iter().find(|name| excess & name.bit() != 0).map(|n| n.word());
        let unknown = || self.unknown.first().map_or("", |key| &**key);
        Err(unknown_field(known.unwrap_or_else(unknown)))
    }

    /// Refuses every field that has a value but this one and those that every command may have.
    pub(super) fn has_only(&self, name: Name) -> Result<(), Rejected> {
        let allowed = name.bit() | const { Name::Type.bit() | Name::bits(COMMON) };
        let has_value = |other: &&Name| allowed & other.bit() == 0 && self.get(**other).is_some();
        let other = Name::ALL.iter().find(has_value);
        other.map_or(Ok(()), |other| Err(unknown_field(other.word())))
    }
}

fn unknown_field(key: &str) -> Rejected {
    let shown = &key[..key.floor_char_boundary(Rejected::FIELD_BYTES_MAX)];
    Rejected::field(ErrorCode::InvalidField, shown.to_owned(), "is not a field of this command")
}

/// Reads digits up to 2^53 − 1: what JavaScript keeps exact and writes back the same way.
pub(super) fn parse_integer(raw: &str) -> Option<u64> {
    // Sixteen digits fit a `u64`; the scanner has seen to it that there is one at least.
    if raw.len() > 16 {
        return None;
    }
    let number = raw.bytes().try_fold(0, |number: u64, byte| {
        byte.is_ascii_digit().then(|| number * 10 + u64::from(byte - b'0'))
    })?;
    Offset::parse(number).ok().map(Offset::get)
}
