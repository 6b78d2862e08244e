//! JSON whose members stay in the order in which they are said, written for people.
//!
//! It must never write the same value in two ways: the files are compared byte by byte.

/// What fits into a line of this many characters stands on one.
const COLUMNS: usize = 100;

/// A JSON value.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Json {
    Flag(bool),
    Number(u64),
    Text(String),
    List(Vec<Self>),
    Object(Vec<(String, Self)>),
}

impl From<&str> for Json {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Json {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<u64> for Json {
    fn from(number: u64) -> Self {
        Self::Number(number)
    }
}

impl From<bool> for Json {
    fn from(flag: bool) -> Self {
        Self::Flag(flag)
    }
}

impl From<Vec<Self>> for Json {
    fn from(items: Vec<Self>) -> Self {
        Self::List(items)
    }
}

/// An object of what is given, in its order.
pub(super) fn object<const N: usize>(members: [(&str, Json); N]) -> Json {
    Json::Object(members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}

/// A list of texts.
pub(super) fn texts<'a>(items: impl IntoIterator<Item = &'a str>) -> Json {
    Json::List(items.into_iter().map(Json::from).collect())
}

impl Json {
    /// The same object with another member behind the others; anything else stays as it is.
    pub(super) fn with(mut self, name: &str, value: impl Into<Self>) -> Self {
        if let Self::Object(members) = &mut self {
            members.push((name.to_owned(), value.into()));
        }
        self
    }

    /// The text of a file.
    pub(super) fn to_text(&self) -> String {
        let mut out = String::new();
        self.push(&mut out, 0);
        out.push('\n');
        out
    }

    fn push(&self, out: &mut String, indent: usize) {
        let line = self.to_line();
        let column = out.len() - out.rfind('\n').map_or(0, |at| at + 1);
        let is_flat = column + line.len() < COLUMNS && !self.is_structured();
        let (open, close, n) = match self {
            Self::List(items) if !is_flat => ('[', ']', items.len()),
            Self::Object(members) if !is_flat => ('{', '}', members.len()),
            _ => return out.push_str(&line),
        };
        out.push(open);
        for index in 0..n {
            out.push_str(if index == 0 { "\n" } else { ",\n" });
            out.push_str(&"  ".repeat(indent + 1));
            match self {
                Self::List(items) => items[index].push(out, indent + 1),
                Self::Object(members) => {
                    let (name, value) = &members[index];
                    push_text(out, name);
                    out.push_str(": ");
                    value.push(out, indent + 1);
                }
                Self::Flag(_) | Self::Number(_) | Self::Text(_) => {}
            }
        }
        out.push('\n');
        out.push_str(&"  ".repeat(indent));
        out.push(close);
    }

    /// Whether it holds what holds something, and so is read better on several lines.
    fn is_structured(&self) -> bool {
        let holds = |value: &Self| match value {
            Self::List(items) => items.iter().any(|item| matches!(item, Self::Object(_))),
            Self::Object(members) => !members.is_empty(),
            Self::Flag(_) | Self::Number(_) | Self::Text(_) => false,
        };
        match self {
            Self::List(items) => items.iter().any(holds),
            Self::Object(members) => members.iter().any(|(_, value)| holds(value)),
            Self::Flag(_) | Self::Number(_) | Self::Text(_) => false,
        }
    }

    fn to_line(&self) -> String {
        let joined = |parts: Vec<String>| parts.join(", ");
        match self {
            Self::Flag(flag) => flag.to_string(),
            Self::Number(number) => number.to_string(),
            Self::Text(text) => {
                let mut out = String::new();
                push_text(&mut out, text);
                out
            }
            Self::List(items) => format!("[{}]", joined(items.iter().map(Self::to_line).collect())),
            Self::Object(members) if members.is_empty() => "{}".to_owned(),
            Self::Object(members) => {
                let member = |(name, value): &(String, Self)| {
                    let mut out = String::new();
                    push_text(&mut out, name);
                    format!("{out}: {}", value.to_line())
                };
                format!("{{ {} }}", joined(members.iter().map(member).collect()))
            }
        }
    }
}

fn push_text(out: &mut String, text: &str) {
    let mut bytes = Vec::new();
    domain::protocol::push_json_string(&mut bytes, text);
    // Made of text, so that nothing is ever replaced.
    out.push_str(&String::from_utf8_lossy(&bytes));
}
