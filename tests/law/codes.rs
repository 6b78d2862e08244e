//! The two numbered tables: what `docs/protocol.md` prints is what the code says, in both
//! directions.
//!
//! Only numbers, words and the advice to come back, or to say the same again, are compared; the
//! sentences are for people.

use domain::codes::{CloseCode, ErrorCode};

use crate::repository::read;
use crate::{assert_complains, assert_lawful};

/// Where both tables are printed.
const PROTOCOL: &str = "docs/protocol.md";
const ERROR_HEADING: &str = "## Error codes";
const CLOSE_HEADING: &str = "## Close codes";
/// What the third column of a close code is.
const COME_BACK: &str = "come back";
const STOP: &str = "stop";
/// What the third column of an error is.
const AGAIN: &str = "again";
const NEVER: &str = "never";

/// One row, as the code or the document has it.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Row {
    number: u16,
    word: String,
    /// Whether to come back, or to say the same again.
    advice: String,
}

impl Row {
    fn new(number: u16, word: &str, advice: &str) -> Self {
        Self { number, word: word.to_owned(), advice: advice.to_owned() }
    }
}

fn error_rows() -> Vec<Row> {
    let advice = |code: &ErrorCode| if code.is_temporary() { AGAIN } else { NEVER };
    let row = |code: &ErrorCode| Row::new(code.number(), code.word(), advice(code));
    ErrorCode::ALL.iter().map(row).collect()
}

fn close_rows() -> Vec<Row> {
    let advice = |code: &CloseCode| if code.reconnect() { COME_BACK } else { STOP };
    let row = |code: &CloseCode| Row::new(code.number(), code.reason(), advice(code));
    CloseCode::ALL.iter().map(row).collect()
}

/// The rows of the table below a heading: those that begin with a number and a `word`.
fn printed(text: &str, heading: &str) -> Vec<Row> {
    let section = text.lines().skip_while(|line| *line != heading).skip(1);
    let section = section.take_while(|line| !line.starts_with("## "));
    section.filter_map(printed_row).collect()
}

fn printed_row(line: &str) -> Option<Row> {
    let mut cells = line.strip_prefix('|')?.split('|').map(str::trim);
    let number = cells.next()?.parse().ok()?;
    let word = cells.next()?.trim_matches('`');
    Some(Row::new(number, word, cells.next()?))
}

/// Both directions: what the code has and the document lacks, and the other way round.
fn check_rows(heading: &str, code: &[Row], document: &[Row]) -> Vec<String> {
    let mut complaints = Vec::new();
    for row in code {
        match document.iter().filter(|printed| printed.number == row.number).collect::<Vec<_>>()[..]
        {
            [] => complaints.push(format!(
                "{PROTOCOL} has no row for {} `{}` below `{heading}`: add it",
                row.number, row.word
            )),
            [printed] if printed == row => {}
            [printed] => complaints.push(format!(
                "{PROTOCOL} says {printed:?} below `{heading}`, the code says {row:?}: correct it"
            )),
            [..] => complaints.push(format!(
                "{PROTOCOL} has {} more than once below `{heading}`: delete one row",
                row.number
            )),
        }
    }
    for printed in document {
        if !code.iter().any(|row| row.number == printed.number) {
            complaints.push(format!(
                "{PROTOCOL} has {} `{}` below `{heading}`, which domain/src/codes.rs does not \
                 know: delete the row",
                printed.number, printed.word
            ));
        }
    }
    complaints
}

#[test]
fn the_protocols_document_prints_the_error_codes_of_the_code() {
    let document = printed(&read(PROTOCOL), ERROR_HEADING);
    assert_lawful(&check_rows(ERROR_HEADING, &error_rows(), &document));
}

#[test]
fn the_protocols_document_prints_the_close_codes_of_the_code() {
    let document = printed(&read(PROTOCOL), CLOSE_HEADING);
    assert_lawful(&check_rows(CLOSE_HEADING, &close_rows(), &document));
}

/// The breaches that each check must see.
mod breaches {
    use super::*;

    const TABLE: &str = "# T\n\n## Close codes\n\n| number | reason | then |\n|---|---|---|\n\
                         | 1001 | `going_away` | come back |\n| 3500 | `no` | stop |\n\n## Next\n\
                         | 3501 | `elsewhere` | stop |\n";

    fn rows() -> Vec<Row> {
        vec![Row::new(1001, "going_away", COME_BACK), Row::new(3500, "no", STOP)]
    }

    #[test]
    fn a_table_is_read_up_to_the_next_heading() {
        assert_eq!(printed(TABLE, CLOSE_HEADING), rows());
        assert!(printed(TABLE, ERROR_HEADING).is_empty());
    }

    #[test]
    fn a_missing_a_wrong_a_double_and_an_invented_row_are_seen() {
        let (code, right) = (rows(), printed(TABLE, CLOSE_HEADING));
        let check = |document: &[Row]| check_rows(CLOSE_HEADING, &code, document);
        assert_lawful(&check(&right));
        assert_complains(&check(&right[..1]), "no row for 3500");
        let wrong = [right[0].clone(), Row::new(3500, "no", COME_BACK)];
        assert_complains(&check(&wrong), "correct it");
        let double = [right.clone(), vec![right[1].clone()]].concat();
        assert_complains(&check(&double), "more than once");
        let invented = [right, vec![Row::new(3999, "new", STOP)]].concat();
        assert_complains(&check(&invented), "does not know");
    }
}
