//! What a setting may hold, and what a layer gave it.
//!
//! It knows no setting by name.

/// What a setting may hold.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// True or false.
    Flag,
    /// A whole number between two bounds, both allowed.
    Number(u64, u64),
    /// One of a few words.
    Word(&'static [&'static str]),
    /// A text that a rule accepts, described in words; empty means "not set" unless the rule says
    /// otherwise.
    Text(&'static str, fn(&str) -> bool),
    /// A list of texts, each of which a rule accepts.
    List(&'static str, fn(&str) -> bool),
    /// A text that must never be shown.
    Secret,
}

/// A value of the right type and within its range.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Typed {
    /// True or false.
    Flag(bool),
    /// A whole number.
    Number(u64),
    /// A text.
    Text(String),
    /// A list of texts.
    List(Vec<String>),
}

/// A value as a layer gave it.
#[derive(Clone, Debug)]
pub enum Raw {
    /// From the environment or a flag, where everything is text.
    Untyped(String),
    /// Of a type that some setting has.
    Typed(Typed),
    /// Something else: how to show it.
    Other(String),
    /// A section without settings.
    EmptySection,
}

impl Kind {
    /// Reads a value.
    ///
    /// # Errors
    /// What is allowed, when the value is not.
    pub fn read(self, raw: &Raw) -> Result<Typed, String> {
        let read = match (self, raw) {
            (_, Raw::Untyped(text)) => self.parse_text(text),
            (_, Raw::Typed(typed)) => self.accepts(typed).then(|| typed.clone()),
            (_, Raw::Other(_) | Raw::EmptySection) => None,
        };
        read.ok_or_else(|| format!("must be {}", self.allowed()))
    }

    /// What is allowed, in words that fit behind "must be".
    #[must_use]
    pub fn allowed(self) -> String {
        match self {
            Self::Flag => "true or false".to_owned(),
            Self::Number(min, max) => format!("a whole number from {min} to {max}"),
            Self::Word(words) => format!("one of {}", words.join(", ")),
            Self::Text(what, _) => what.to_owned(),
            Self::List(what, _) => format!("a list, each of {what}"),
            Self::Secret => "a text".to_owned(),
        }
    }

    /// Whether a value of this kind must be hidden.
    #[must_use]
    pub const fn is_secret(self) -> bool {
        matches!(self, Self::Secret)
    }

    fn parse_text(self, text: &str) -> Option<Typed> {
        let typed = match self {
            Self::Flag => Typed::Flag(text.parse().ok()?),
            Self::Number(..) => Typed::Number(text.parse().ok()?),
            Self::Word(_) | Self::Text(..) | Self::Secret => Typed::Text(text.to_owned()),
            Self::List(..) if text.is_empty() => Typed::List(Vec::new()),
            Self::List(..) => Typed::List(text.split(',').map(|s| s.trim().to_owned()).collect()),
        };
        self.accepts(&typed).then_some(typed)
    }

    fn accepts(self, typed: &Typed) -> bool {
        match (self, typed) {
            (Self::Flag, Typed::Flag(_)) | (Self::Secret, Typed::Text(_)) => true,
            (Self::Number(min, max), Typed::Number(n)) => (min..=max).contains(n),
            (Self::Word(words), Typed::Text(text)) => words.contains(&text.as_str()),
            (Self::Text(_, rule), Typed::Text(text)) => rule(text),
            (Self::List(_, rule), Typed::List(items)) => items.iter().all(|item| rule(item)),
            _ => false,
        }
    }
}
