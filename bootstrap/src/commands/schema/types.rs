//! Which named types the catalogue uses, each once, in the order in which they are met.

use domain::protocol::catalog::{COMMANDS, FRAMES};
use domain::protocol::catalog::{Frame, Kind, Record, Text, Union};

/// Something that has a name of its own in the documents.
#[derive(Clone, Copy)]
pub(super) enum Named {
    Text(&'static Text),
    Record(&'static Record),
    Union(&'static Union),
}

impl Named {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Text(text) => text.name,
            Self::Record(record) => record.name,
            Self::Union(union) => union.name,
        }
    }
}

/// All that is inside of frames; the frames themselves are not among it.
pub(super) fn named() -> Vec<Named> {
    let mut found = Vec::new();
    for frame in COMMANDS.iter().chain(FRAMES) {
        visit_fields(frame.record, &mut found);
    }
    found
}

fn visit_fields(record: &'static Record, found: &mut Vec<Named>) {
    for field in record.fields {
        visit(&field.kind, found);
    }
}

fn visit(kind: &Kind, found: &mut Vec<Named>) {
    match *kind {
        Kind::Text(text) => add(Named::Text(text), found),
        Kind::Record(record) => add_record(record, found),
        Kind::OneOf(union) => {
            for record in union.of {
                if !is_frame(record) {
                    add_record(record, found);
                }
            }
            add(Named::Union(union), found);
        }
        Kind::List { of, .. } => visit(of, found),
        Kind::Json { .. }
        | Kind::Null
        | Kind::Flag
        | Kind::False
        | Kind::Number { .. }
        | Kind::AnyText
        | Kind::Word(_)
        | Kind::ErrorCode
        | Kind::ErrorWord
        | Kind::CloseCode
        | Kind::CloseReason
        | Kind::Tags
        | Kind::Condition => {}
    }
}

fn add_record(record: &'static Record, found: &mut Vec<Named>) {
    visit_fields(record, found);
    add(Named::Record(record), found);
}

fn add(named: Named, found: &mut Vec<Named>) {
    if !found.iter().any(|other| other.name() == named.name()) {
        found.push(named);
    }
}

fn is_frame(record: &Record) -> bool {
    let is_it = |frame: &&Frame| frame.record.name == record.name;
    FRAMES.iter().find(is_it).is_some()
}
