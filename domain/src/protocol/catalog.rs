//! The catalogue: every frame of the protocol with its fields, as data.
//!
//! It is what the JSON Schema, the TypeScript types and the AsyncAPI document are made from, and it
//! must never say anything that the codec does not do: the decoder takes the fields of a command
//! from here, and tests compare the rest with what is decoded and encoded, in both directions.
//!
//! Reading order: this file (what a row can say), [`shapes`] (what is inside of fields),
//! [`commands`] and [`frames`] (the rows), [`limits`].

use crate::position::Offset;

pub mod commands;
pub mod frames;
pub mod limits;
pub mod shapes;

pub use commands::COMMANDS;
pub use frames::FRAMES;
pub use limits::LIMITS;

/// A text with rules of its own, and a name for them.
#[derive(Clone, Copy, Debug)]
pub struct Text {
    /// What it is called in the documents.
    pub name: &'static str,
    /// What it is.
    pub doc: &'static str,
    /// The longest, in bytes of UTF-8.
    pub bytes_max: Option<usize>,
    /// What it looks like: a regular expression of ECMA-262 that is anchored at both ends. It
    /// speaks of ASCII only, so that a character is a byte.
    pub pattern: Option<&'static str>,
    /// One that is valid.
    pub example: &'static str,
}

/// An object with fields that are known.
#[derive(Clone, Copy, Debug)]
pub struct Record {
    /// What it is called in the documents.
    pub name: &'static str,
    /// What it is.
    pub doc: &'static str,
    /// Its fields, in the order in which they are written.
    pub fields: &'static [Field],
}

/// One field.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// The name on the wire.
    pub name: &'static str,
    /// What the value can be, if there is one.
    pub kind: Kind,
    /// Whether there is a value.
    pub presence: Presence,
    /// What it means.
    pub doc: &'static str,
}

/// Whether a field is there, and whether it may be `null`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Presence {
    /// Always there, never `null`.
    Required,
    /// Always there; `null` where there is nothing to say.
    Nullable,
    /// May be left out; `null` is the same.
    Optional,
    /// Left out where there is nothing to say, never `null`.
    Omitted,
}

impl Presence {
    /// Whether an object without the field is valid.
    #[must_use]
    pub const fn may_be_missing(self) -> bool {
        matches!(self, Self::Optional | Self::Omitted)
    }

    /// Whether `null` is valid.
    #[must_use]
    pub const fn may_be_null(self) -> bool {
        matches!(self, Self::Nullable | Self::Optional)
    }
}

/// What a value can be.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// Any JSON, `null` included.
    Json {
        /// The longest, in bytes of JSON.
        bytes_max: Option<usize>,
    },
    /// Only `null`; for a field that another form of the same frame has.
    Null,
    /// `true` or `false`.
    Flag,
    /// Only `false`.
    False,
    /// A whole number, written with digits alone.
    Number {
        /// The smallest.
        min: u64,
        /// The largest.
        max: u64,
    },
    /// Any text.
    AnyText,
    /// A text with rules.
    Text(&'static Text),
    /// One of a few words.
    Word(&'static [&'static str]),
    /// A number of the table of errors.
    ErrorCode,
    /// A word of the table of errors.
    ErrorWord,
    /// A number of the table of close codes.
    CloseCode,
    /// A word of the table of close codes.
    CloseReason,
    /// An object.
    Record(&'static Record),
    /// One of a few objects; no value is two of them.
    OneOf(&'static Union),
    /// A list.
    List {
        /// What its items are.
        of: &'static Kind,
        /// The most items.
        max: Option<usize>,
    },
    /// An object of names to texts.
    Tags,
    /// A condition over tags, which may hold conditions.
    Condition,
}

/// One of a few objects, and a name for that.
#[derive(Clone, Copy, Debug)]
pub struct Union {
    /// What it is called in the documents.
    pub name: &'static str,
    /// What it is.
    pub doc: &'static str,
    /// What it can be.
    pub of: &'static [&'static Record],
}

/// A row: one form of one frame. A `type` with several forms has several rows, and no frame fits
/// two of them.
#[derive(Clone, Copy, Debug)]
pub struct Frame {
    /// The `type`; none for the types of a host's own.
    pub kind: Option<&'static str>,
    /// Its name in the documents and all its fields but `type`.
    pub record: &'static Record,
    /// Names of the frames that answer this command, besides `error`. Empty for the server's.
    pub answers: &'static [&'static str],
}

/// Whole numbers that JavaScript keeps exact.
pub const COUNT: Kind = Kind::Number { min: 0, max: Offset::MAX.get() };

const fn field(name: &'static str, kind: Kind, presence: Presence, doc: &'static str) -> Field {
    Field { name, kind, presence, doc }
}

const fn required(name: &'static str, kind: Kind, doc: &'static str) -> Field {
    field(name, kind, Presence::Required, doc)
}

const fn nullable(name: &'static str, kind: Kind, doc: &'static str) -> Field {
    field(name, kind, Presence::Nullable, doc)
}

const fn optional(name: &'static str, kind: Kind, doc: &'static str) -> Field {
    field(name, kind, Presence::Optional, doc)
}

const fn omitted(name: &'static str, kind: Kind, doc: &'static str) -> Field {
    field(name, kind, Presence::Omitted, doc)
}
