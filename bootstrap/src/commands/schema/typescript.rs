//! The protocol as TypeScript: types that the field `type` tells apart, and the tables as
//! constants. No class, no dependency, nothing that runs but one small function.

use std::fmt::Write;

use domain::codes::{CloseCode, ErrorCode, should_reconnect};
use domain::protocol::VERSION;
use domain::protocol::catalog::{COMMANDS, FRAMES, LIMITS, commands, frames};
use domain::protocol::catalog::{Field, Frame, Kind, Record};

use super::types::{Named, named};

const HEAD: &str = "\
// Protocol v2 of Roomkeeper, /ws/v2/connect. docs/protocol.md says what it all means.
//
// The server ignores nothing: what is not in a command's type is refused. A client ignores fields
// and frame types that it does not know, since later servers add some: give `switch` a default.
";

/// The largest number that a close frame can carry, and one more.
const CLOSE_NUMBERS: u16 = 5000;

/// The whole document.
pub(super) fn document() -> String {
    let mut out = Out(String::new());
    out.line(HEAD.trim_end());
    out.line(&format!(
        "//\n// Made by `{}`: change domain/src/protocol/catalog instead.",
        super::COMMAND
    ));
    out.doc("", "What `hello.accepted_version` says.");
    out.line(&format!("export const PROTOCOL_VERSION = {VERSION};"));
    out.named();
    for frame in COMMANDS {
        out.frame(frame, commands::COMMON);
    }
    out.host_command();
    for frame in FRAMES {
        out.frame(frame, frames::COMMON);
    }
    out.union("ClientFrame", "Any command of the protocol.", &of_protocol(COMMANDS));
    out.union(
        "ServerFrame",
        "Any frame of the server, but for its host's own.",
        &of_protocol(FRAMES),
    );
    out.codes();
    out.limits();
    out.0
}

fn of_protocol(frames: &[Frame]) -> Vec<&'static str> {
    frames.iter().filter(|frame| frame.kind.is_some()).map(|frame| frame.record.name).collect()
}

struct Out(String);

impl Out {
    fn line(&mut self, line: &str) {
        self.0.push_str(line);
        self.0.push('\n');
    }

    fn doc(&mut self, indent: &str, doc: &str) {
        if indent.is_empty() {
            self.0.push('\n');
        }
        self.line(&format!("{indent}/** {doc} */"));
    }

    fn named(&mut self) {
        for named in named() {
            match named {
                Named::Text(text) => {
                    let most = text.bytes_max.map(|most| format!(" At most {most} bytes."));
                    self.doc("", &format!("{}{}", text.doc, most.unwrap_or_default()));
                    self.line(&format!("export type {} = string;", text.name));
                }
                Named::Record(record) => self.record(record, None, &[]),
                Named::Union(union) => {
                    let names: Vec<_> = union.of.iter().map(|record| record.name).collect();
                    self.union(union.name, union.doc, &names);
                }
            }
        }
        self.doc("", "Tags of a message, by name.");
        self.line("export type Tags = { [name: string]: string };");
        self.doc("", "Which messages to get, by their tags. An object with one key.");
        self.line("export type Condition =");
        self.line("  | { and: Condition[] }\n  | { or: Condition[] }\n  | { not: Condition }");
        self.line(
            "  | { eq: { [name: string]: string } }\n  | { in: { [name: string]: string[] } };",
        );
    }

    fn frame(&mut self, frame: &Frame, common: &[Field]) {
        let kind = frame.kind.map_or("string".to_owned(), |kind| format!("\"{kind}\""));
        self.record(frame.record, Some(&kind), common);
    }

    fn record(&mut self, record: &Record, kind: Option<&str>, common: &[Field]) {
        self.doc("", record.doc);
        self.line(&format!("export interface {} {{", record.name));
        if let Some(kind) = kind {
            self.line(&format!("  type: {kind};"));
        }
        for field in record.fields.iter().chain(common) {
            self.doc("  ", field.doc);
            let mark = if field.presence.may_be_missing() { "?" } else { "" };
            let mut value = type_of(&field.kind);
            if field.presence.may_be_null() && !matches!(field.kind, Kind::Null) {
                value.push_str(" | null");
            }
            self.line(&format!("  {}{mark}: {value};", field.name));
        }
        self.line("}");
    }

    fn host_command(&mut self) {
        self.doc("", "A command for a handler of the server's host, with any fields of its own.");
        self.line("export interface HostCommand {\n  type: string;\n  id?: number | null;");
        self.line("  [field: string]: unknown;\n}");
    }

    fn union(&mut self, name: &str, doc: &str, of: &[&str]) {
        self.doc("", doc);
        self.line(&format!("export type {name} =\n  | {};", of.join("\n  | ")));
    }

    fn table(&mut self, name: &str, doc: &str, rows: &[(&str, u64, String)]) {
        self.doc("", doc);
        self.line(&format!("export const {name} = {{"));
        for (word, number, doc) in rows {
            self.doc("  ", doc);
            self.line(&format!("  {word}: {number},"));
        }
        self.line("} as const;");
    }

    fn codes(&mut self) {
        let rows = ErrorCode::ALL
            .map(|code| (code.word(), code.number().into(), code.meaning().to_owned()));
        self.table("ErrorCode", "The table of errors: word to number.", &rows);
        self.line("export type ErrorCode = (typeof ErrorCode)[keyof typeof ErrorCode];");
        self.line("export type ErrorWord = keyof typeof ErrorCode;");
        let rows = CloseCode::ALL
            .map(|code| (code.reason(), code.number().into(), code.meaning().to_owned()));
        self.table("CloseCode", "The table of close codes: reason to number.", &rows);
        self.line("export type CloseCode = (typeof CloseCode)[keyof typeof CloseCode];");
        self.line("export type CloseReason = keyof typeof CloseCode;");
        self.doc("", "After these errors the same command may succeed later.");
        let temporary = ErrorCode::ALL.into_iter().filter(|code| code.is_temporary());
        let temporary: Vec<_> = temporary.map(|code| code.number().to_string()).collect();
        self.line(&format!(
            "export const TEMPORARY_ERRORS: readonly number[] = [{}];",
            temporary.join(", ")
        ));
        self.reconnect();
    }

    fn reconnect(&mut self) {
        let mut ranges: Vec<(u16, u16)> = Vec::new();
        for number in (0..CLOSE_NUMBERS).filter(|number| should_reconnect(*number)) {
            match ranges.last_mut() {
                Some((_, last)) if *last + 1 == number => *last = number,
                _ => ranges.push((number, number)),
            }
        }
        self.doc("", "After these close codes a client comes back: first and last of each range.");
        self.line("export const RECONNECT_RANGES: readonly (readonly [number, number])[] = [");
        for (first, last) in ranges {
            self.line(&format!("  [{first}, {last}],"));
        }
        self.line("];");
        self.doc(
            "",
            "Whether to come back after a close code; 1006 where there was no close frame.",
        );
        self.line("export function shouldReconnect(code: number): boolean {");
        self.line(
            "  return RECONNECT_RANGES.some(([first, last]) => first <= code && code <= last);",
        );
        self.line("}");
    }

    fn limits(&mut self) {
        let rows: Vec<_> = LIMITS.iter().map(|l| (l.name, l.value, l.doc.to_owned())).collect();
        self.table("Limits", "The limits that no setting changes.", &rows);
    }
}

fn type_of(kind: &Kind) -> String {
    match *kind {
        Kind::Json { .. } => "unknown".to_owned(),
        Kind::Null => "null".to_owned(),
        Kind::Flag => "boolean".to_owned(),
        Kind::False => "false".to_owned(),
        Kind::Number { min, max } if min == max => min.to_string(),
        Kind::Number { .. } => "number".to_owned(),
        Kind::AnyText => "string".to_owned(),
        Kind::Text(text) => text.name.to_owned(),
        Kind::Word(words) => {
            let mut out = String::new();
            for (index, word) in words.iter().enumerate() {
                // Writing into a text can't fail.
                let _ = write!(out, "{}\"{word}\"", if index == 0 { "" } else { " | " });
            }
            out
        }
        Kind::ErrorCode => "ErrorCode".to_owned(),
        Kind::ErrorWord => "ErrorWord".to_owned(),
        Kind::CloseCode => "CloseCode".to_owned(),
        Kind::CloseReason => "CloseReason".to_owned(),
        Kind::Record(record) => record.name.to_owned(),
        Kind::OneOf(union) => union.name.to_owned(),
        Kind::List { max: Some(0), .. } => "[]".to_owned(),
        Kind::List { of, .. } => format!("{}[]", type_of(of)),
        Kind::Tags => "Tags".to_owned(),
        Kind::Condition => "Condition".to_owned(),
    }
}
