//! The faults of nodes: which of them a test shows, and what is open of the others.
//!
//! A fault has an id, one or two letters for its group and a number: A for who may do what, C for settings, D for
//! identity and presence, H for herds, J for JSON and messages, K for clients, N for the life of nodes, P for
//! handshakes and frames, R for resources, RD for Redis, S for slow consumers, T for time. A test that shows one
//! carries the id in its documentation (in TypeScript: in the comment right above it), with the part that it shows where that is not all. The lists below must never say more than the tests do:
//! an id that no test carries, and one that is called open although a test carries it, are
//! breaches. Whether a test shows what it says is for its reader to judge.

use std::collections::{BTreeMap, BTreeSet};

use crate::repository::{File, files};
use crate::{assert_complains, assert_lawful};

/// Tests show all of it.
const SHOWN: &[&str] = &[
    "A01", "A02", "A03", "A04", "A05", "A06", "A07", "A08", "A09", "A10", "A15", "A16", "A17",
    "A18", "A19", "A20", "A21", "A22", "A23", "A24", "A25", "A26", "A30", "A31", "A32", "A33",
    "A34", "A35", "A36", "A37", "A38", "A39", "A40", "A41", "A42", "A43", "A44", "A45", "A46",
    "A47", "A48", "A49", "C01", "C02", "C03", "C04", "C05", "C06", "C07", "C08", "C09", "D01",
    "D02", "D03", "D04", "D05", "D06", "D07", "D09", "D11", "H02", "J01", "J02", "J03", "J05",
    "J06", "J07", "J08", "J09", "J10", "J11", "J12", "J13", "J14", "J20", "J21", "K01", "K02",
    "K03", "K04", "K05", "K06", "K08", "K10", "N03", "N07", "N08", "P01", "P03", "P04", "P05",
    "P06", "P08", "P09", "P11", "P12", "P13", "P15", "P17", "P18", "P19", "P20", "P21", "P22",
    "P23", "P24", "P25", "P28", "P29", "P30", "PG01", "PG03", "PG04", "PG08", "PG09", "PG10",
    "PG13", "R01", "R02", "R04", "R05", "R06", "R07", "R08", "R09", "R10", "R12", "R13", "R14",
    "R15", "RD01", "RD05", "RD06", "RD07", "RD08", "RD10", "RD11", "RD12", "RD13", "RD14", "RD15",
    "RD18", "RD19", "S03", "S04", "S05", "S06", "S07", "S09", "T02", "T03", "T04", "T05",
];

/// Tests show a part of it; what they don't show.
const PARTLY: &[(&str, &str)] = &[
    (
        "D08",
        "a hundred thousand joins and leaves: the test has 20,000 unless `ROOMKEEPER_PRESENCE` says more",
    ),
    (
        "D10",
        "over Redis: the tests have one node in memory, and what it hands on to others is paced before that",
    ),
    (
        "H01",
        "ten thousand connections: the test has 1,000 unless `ROOMKEEPER_STORM` says more; that Postgres is asked \
         nothing meanwhile; and a limit on how many are let in, which is one by address",
    ),
    ("H03", "sixty seconds: the test has three unless `ROOMKEEPER_AWAY_SECONDS` says more"),
    ("H04", "ten thousand: the tests have up to 1,600 who follow, in virtual time"),
    (
        "H05",
        "of an address; a user, who is known behind the upgrade only, has no penalty of its own",
    ),
    (
        "H06",
        "one kind of overload, publishers and newcomers without a pace, and a load that is no share of what was \
         measured to be possible",
    ),
    ("J04", "what becomes of such keys in a TypeScript client"),
    ("K07", "an address of IPv6, which a machine need not have: both of the test are of IPv4"),
    ("K09", "a network that swallows packets: servers fall silent, and connections are held"),
    (
        "K11",
        "a million messages a second: what comes at once are a hundred thousand pings, and two thousand messages to an \
         application that reads none; and bombs, since compression is not built: it is refused where nobody offered it",
    ),
    ("K12", "Safari; Deno, Bun and Firefox run by hand"),
    ("K13", "a connection over TLS: what is dropped at each poll speaks over a pipe in memory"),
    (
        "K14",
        "the 216 cases of compression, which is not built; and Autobahn itself, which needs Python 2: its cases are \
         a table of our own in `tests/run`, and who has it runs it by hand",
    ),
    (
        "N01",
        "a thousand kills: `tests/faults` has as many rounds as it is asked for; and 99 of 100 clients are back \
         within ten seconds in the test, where five were meant",
    ),
    ("N02", "a thousand restarts"),
    ("N04", "a thousand clients, and twenty over a stuck Redis: not ten thousand"),
    ("N05", "nodes of two builds at once"),
    (
        "N06",
        "kills at files and lines that can be seen from outside; the first start's is the only migration",
    ),
    ("N09", "a network that drops packets, as of RD16; nodes have no links to each other"),
    (
        "N10",
        "what a host adds; of readers, writers and timers nothing is known that makes them panic",
    ),
    (
        "N11",
        "memory that runs out in a cgroup, whose end is SIGKILL (N01); and systemd itself, of which only the unit's \
         word is looked at",
    ),
    ("N12", "a million: the test has 5,000 unless `ROOMKEEPER_CHURN` says more"),
    ("N13", "that a worker which hangs is reported; no search through interleavings"),
    (
        "N14",
        "a file that was cut behind a line is one that says less; a binary that is replaced counts at the next \
         start, which no test shows",
    ),
    (
        "P02",
        "byte by byte the head of one connection may cost 1.5 s of processor time in the test: a read \
         for each byte; 50 ms are shown for a head that comes in one piece",
    ),
    ("P07", "some seventy beginnings, of them 64 that are drawn: no fuzzing for hours"),
    ("P16", "a reserved bit where compression was agreed to, which is not built yet"),
    (
        "P26",
        "that others wait by less than a tenth longer: the test lets them wait five times as long, and \
         docs/reliability.md says what was measured",
    ),
    (
        "P27",
        "decided otherwise: a pong is a sign of life whatever it holds, as everything is that a \
         client sends",
    ),
    ("PG02", "a minute: the story has ten seconds"),
    ("PG05", "a thousand runs: the test makes three hundred"),
    ("PG06", "a serialization failure: at the level of isolation that is used there is none"),
    ("PG07", "two hundred crashes: the test makes twelve"),
    ("PG11", "10^8 rows: the test has 300,000, and the plans of the statements"),
    (
        "PG12",
        "published data that is no JSON: the archive gives back what was stored, whatever it is",
    ),
    (
        "PG14",
        "notices without an end that come faster than they are read: the driver does not look up meanwhile, and a \
         call waits until they end; and that a length which is declared costs nothing: as many addresses are \
         reserved, up to 4 GiB",
    ),
    ("R11", "a cgroup of version 2, where what the kernel holds for sockets counts, too"),
    ("R16", "ports to Redis that run out"),
    ("RD02", "a thousand kills, and those right between the script and its reply"),
    ("RD03", "30 and 120 s: the stories have ten unless `ROOMKEEPER_AWAY_SECONDS` says more"),
    (
        "RD04",
        "a reply to another request is noticed with the next probe only, and no test sends one",
    ),
    ("RD09", "a million times"),
    ("RD16", "a network that drops packets: a proxy holds them"),
    (
        "RD17",
        "publications that come twice over one connection or out of order, which Redis never does",
    ),
    ("RD20", "that the slow log stays empty with 10,000 members"),
    (
        "S01",
        "a thousand members, a thousand messages a second, and that others wait by less than a tenth \
         longer: the test has 500, and lets them wait five times as long",
    ),
    ("S02", "five thousand stuck at once: one test has 20, the other 500 among 5,000 in a cgroup"),
    ("S08", "an error, which is queued like any answer; and a pong may take a second in the test"),
    (
        "T01",
        "retries and what memory keeps by age jump with the wall clock, and beyond the year 9999 or \
         before 1970 hyper panics over each new connection",
    ),
];
const COMPRESSION: &str = "compression is not built yet";

/// No test shows any of it; why.
const OPEN: &[(&str, &str)] = &[
    ("P10", "HTTP/2 is not built: its preface is refused (P07)"),
    ("P14", "the PROXY protocol is not built"),
    ("P31", COMPRESSION),
    ("P32", COMPRESSION),
    ("P33", COMPRESSION),
    ("P34", COMPRESSION),
    ("P35", COMPRESSION),
    ("P36", COMPRESSION),
    ("P37", COMPRESSION),
    ("P38", COMPRESSION),
    ("P39", COMPRESSION),
    ("P40", COMPRESSION),
    ("R03", "limits are by node, so there is nothing behind them that could be away"),
];

/// Where tests are.
const FOLDERS: &[&str] = &["tests/", "domain/", "application/", "adapters/", "bootstrap/"];
/// Where tests in TypeScript are.
const SCRIPTS: &str = "clients/typescript/test/";
/// How a test begins, below its documentation.
const TEST: &[&str] = &["#[test]", "#[tokio::test"];
/// The same in TypeScript.
const SCRIPT_TEST: &[&str] = &["it(", "it.each", "describe("];

/// How ids begin.
const GROUPS: &[&str] = &["A", "C", "D", "H", "J", "K", "N", "P", "PG", "R", "RD", "S", "T"];

/// The three lists.
struct Lists<'l> {
    shown: &'l [&'l str],
    partly: &'l [(&'l str, &'l str)],
    open: &'l [(&'l str, &'l str)],
}

const LISTS: Lists<'static> = Lists { shown: SHOWN, partly: PARTLY, open: OPEN };

fn is_id(word: &str) -> bool {
    let Some((group, number)) = word.split_at_checked(word.len().saturating_sub(2)) else {
        return false;
    };
    let is_group = GROUPS.contains(&group);
    is_group && number.bytes().all(|digit| digit.is_ascii_digit())
}

/// The ids in the documentation of the tests of one file.
fn carried_by(text: &str) -> BTreeSet<&str> {
    carried_above(text, "///", TEST)
}

/// The ids in comments right above what begins in one of these ways.
fn carried_above<'t>(text: &'t str, comment: &str, tests: &[&str]) -> BTreeSet<&'t str> {
    let (mut carried, mut above) = (BTreeSet::new(), Vec::new());
    for line in text.lines().map(str::trim_start) {
        if let Some(words) = line.strip_prefix(comment) {
            above.extend(words.split(|c: char| !c.is_alphanumeric()).filter(|word| is_id(word)));
        } else if tests.iter().any(|begin| line.starts_with(begin)) {
            carried.extend(above.drain(..));
        } else if !line.starts_with("#[") {
            above.clear();
        }
    }
    carried
}

/// Each id that a test carries, with the first file where one does.
fn carried(files: &[File]) -> BTreeMap<&str, &str> {
    let mut carried = BTreeMap::new();
    let holds_tests = |file: &File| {
        file.has_extension("rs") && FOLDERS.iter().any(|folder| file.path.starts_with(folder))
    };
    for file in files {
        let ids = if holds_tests(file) {
            carried_by(&file.text)
        } else if file.path.starts_with(SCRIPTS) {
            carried_above(&file.text, "//", SCRIPT_TEST)
        } else {
            BTreeSet::new()
        };
        for id in ids {
            carried.entry(id).or_insert(file.path.as_str());
        }
    }
    carried
}

/// No id stands in two places, each is one, and what is open is said.
fn check_lists(lists: &Lists<'_>) -> Vec<String> {
    let mut complaints = Vec::new();
    let with_words = lists.partly.iter().chain(lists.open);
    let mut seen = BTreeSet::new();
    for id in lists.shown.iter().chain(with_words.clone().map(|(id, _)| id)) {
        if !is_id(id) {
            complaints.push(format!("`{id}` is no id of a fault: correct it"));
        }
        if !seen.insert(*id) {
            complaints.push(format!("{id} is listed twice: delete it once"));
        }
    }
    let in_vain = with_words.filter(|(_, words)| words.trim().is_empty());
    complaints.extend(in_vain.map(|(id, _)| format!("{id} does not say what is open: say it")));
    complaints
}

/// What the lists say is what the tests carry.
fn check_tests(lists: &Lists<'_>, carried: &BTreeMap<&str, &str>) -> Vec<String> {
    let mut complaints = Vec::new();
    let shown: BTreeSet<&str> =
        lists.shown.iter().chain(lists.partly.iter().map(|(id, _)| id)).copied().collect();
    let open: BTreeSet<&str> = lists.open.iter().map(|(id, _)| *id).collect();
    for id in &shown {
        if !carried.contains_key(id) {
            complaints.push(format!(
                "{id} is listed as shown and no test carries it: write `{id}` above the test that \
                 shows it, or list it as open"
            ));
        }
    }
    for (id, path) in carried {
        if open.contains(id) {
            complaints.push(format!(
                "{path} carries {id}, which is listed as open: list it as shown, or as partly shown"
            ));
        } else if !shown.contains(id) {
            complaints.push(format!("{path} carries {id}, which no list knows: list it"));
        }
    }
    complaints
}

#[test]
fn every_fault_is_listed_once_and_what_is_open_is_said() {
    assert_lawful(&check_lists(&LISTS));
}

#[test]
fn every_fault_is_shown_by_a_test_that_carries_its_id_or_is_called_open() {
    assert_lawful(&check_tests(&LISTS, &carried(files())));
}

/// The breaches that each check must see.
mod breaches {
    use std::slice::from_ref;

    use super::*;

    const LISTED: Lists<'static> =
        Lists { shown: &["A01"], partly: &[("C02", "half")], open: &[("T03", "not built")] };

    /// A file with a test whose documentation has these words.
    fn documented(path: &str, words: &str) -> File {
        File::new(path, &format!("/// {words}\n#[test]\nfn it_works() {{}}\n"))
    }

    fn check(files: &[File]) -> Vec<String> {
        check_tests(&LISTED, &carried(files))
    }

    #[test]
    fn ids_are_read_from_the_documentation_of_tests_alone() {
        let read = |text| carried_by(text).into_iter().collect::<Vec<_>>();
        let both = "    /// A01: with words,\n    /// and C02.\n    #[test]\n    fn f() {}\n";
        assert_eq!(read(both), ["A01", "C02"]);
        let attributes = "/// R05.\n#[cfg(unix)]\n#[tokio::test(start_paused = true)]\nfn f() {}\n";
        assert_eq!(read(attributes), ["R05"]);
        for nothing in [
            "/// A01.\nconst N: u8 = 1;\n\n#[test]\nfn f() {}\n",
            "// A01.\n#[test]\nfn f() {}\n",
            "/// XY01, A1, A017, Q02 and a01.\n#[test]\nfn f() {}\n",
            "#[test]\nfn f() {\n    say(\"A01\");\n}\n",
        ] {
            assert_eq!(read(nothing), Vec::<&str>::new(), "{nothing}");
        }
    }

    #[test]
    fn ids_are_read_above_the_tests_of_typescript_too() {
        let read = |text| carried_above(text, "//", SCRIPT_TEST).into_iter().collect::<Vec<_>>();
        assert_eq!(read("  // K05: late.\n  it('settles once', () => {});\n"), ["K05"]);
        assert_eq!(read("// K01.\nit.each(cases)('$name', () => {});\n"), ["K01"]);
        assert_eq!(read("// K01.\n\nconst n = 1;\nit('x');\n"), Vec::<&str>::new());
        let script = File::new("clients/typescript/test/a.test.ts", "// A01.\nit('x');\n");
        assert_eq!(carried(from_ref(&script)).keys().collect::<Vec<_>>(), [&"A01"]);
        let elsewhere = File::new("clients/typescript/src/a.ts", "// A01.\nit('x');\n");
        assert!(carried(from_ref(&elsewhere)).is_empty());
    }

    #[test]
    fn an_id_that_no_test_carries_is_seen() {
        let whole = documented("tests/e2e/a.rs", "A01.");
        let part = documented("domain/src/b.rs", "C02: half.");
        assert_lawful(&check(&[whole.clone(), part.clone()]));
        assert_complains(&check(from_ref(&whole)), "C02 is listed as shown and no test carries it");
        assert_complains(&check(from_ref(&part)), "A01 is listed as shown and no test carries it");
        // Neither a document nor an example is a test.
        for elsewhere in ["docs/a.md", "examples/a.rs"] {
            let files = [documented(elsewhere, "A01."), part.clone()];
            assert_complains(&check(&files), "A01 is listed as shown");
        }
    }

    #[test]
    fn an_open_id_that_a_test_carries_and_an_id_that_no_list_knows_are_seen() {
        let carrying = |words| check(&[documented("tests/a.rs", &format!("A01. C02. {words}"))]);
        assert_complains(&carrying("T03."), "tests/a.rs carries T03, which is listed as open");
        assert_complains(&carrying("R99."), "tests/a.rs carries R99, which no list knows");
    }

    #[test]
    fn a_double_a_wrong_and_a_silent_entry_are_seen() {
        assert_lawful(&check_lists(&LISTED));
        let double = Lists { shown: &["A01", "T03"], ..LISTED };
        assert_complains(&check_lists(&double), "T03 is listed twice");
        let wrong = Lists { shown: &["A1"], ..LISTED };
        assert_complains(&check_lists(&wrong), "`A1` is no id");
        let silent = Lists { open: &[("T03", " ")], ..LISTED };
        assert_complains(&check_lists(&silent), "T03 does not say what is open");
    }
}
