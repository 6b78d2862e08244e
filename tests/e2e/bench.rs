//! `roomkeeper bench` against servers that are right and servers that are not: a report says what
//! was measured, and whatever did not come as it should fails the run and is named.

use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use tests::false_server::{FalseServer, Lie};
use tests::process::{Exit, Process};
use tests::raw::RawSocket;
use tests::redis::Redis;
use tests::server::{Server, command};
use tests::token::{SECRET, claims, hs256};

use crate::client::{Client, PATH, secret, until};

/// One run, on a machine that is busy with other tests.
const DEADLINE: Duration = Duration::from_secs(60);

fn begin(words: &[&str]) -> Process {
    let mut command: Command = command();
    command.arg("bench").args(words);
    Process::start(command)
}

fn bench(words: &[&str]) -> Exit {
    begin(words).wait(DEADLINE)
}

fn report(exit: &Exit) -> Value {
    serde_json::from_str(&exit.stdout).unwrap_or_else(|e| panic!("{e}: {exit:?}"))
}

/// The report of a run in which everything came.
fn passed(words: &[&str]) -> Value {
    let exit = bench(words);
    assert_eq!(exit.code, Some(0), "{exit:?}");
    let report = report(&exit);
    assert_eq!((&report["passed"], &report["faults"]), (&json!(true), &json!([])));
    assert_eq!((&report["errors"], &report["closes"]), (&json!({}), &json!({})));
    report
}

/// The report of a run in which something did not come, and what was said about it.
fn failed(words: &[&str]) -> (Value, String) {
    let exit = bench(words);
    assert_eq!(exit.code, Some(1), "{exit:?}");
    let report = report(&exit);
    assert_eq!(report["passed"], false);
    assert!(exit.stderr.contains("FAILED"), "{}", exit.stderr);
    (report, exit.stderr)
}

/// What was said by a run that could not measure anything.
fn refused(words: &[&str], code: i32) -> String {
    let exit = bench(words);
    assert_eq!((exit.code, exit.stdout.as_str()), (Some(code), ""), "{exit:?}");
    exit.stderr
}

/// Small and short: what a test has time for.
fn short<'a>(mode: &'a str, url: &'a str) -> Vec<&'a str> {
    vec![mode, url, "--rate", "200", "--duration", "1s", "--warm-up", "200ms"]
}

fn with<'a>(words: &[&'a str], more: &[&'a str]) -> Vec<&'a str> {
    [words, more].concat()
}

fn url(server: &Server) -> String {
    server.ws("")
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is no number"))
}

/// That the percentiles are there and grow.
fn check_latency(latency: &Value, count: u64) {
    assert_eq!(latency["count"], count, "{latency}");
    let names = ["p50_us", "p90_us", "p99_us", "p999_us", "max_us"];
    let values = names.map(|name| number(&latency[name]));
    assert!(values[0] > 0.0 && values.is_sorted(), "{latency}");
}

#[test]
fn fanout_reports_that_all_came_how_long_it_took_and_what_the_server_used() {
    let server = Server::start(&[]);
    let (url, pid) = (url(&server), server.id().to_string());
    let more = ["--connections", "50", "--rooms", "5", "--pid", &pid, "--ramp", "200ms"];
    let report = passed(&with(&short("fanout", &url), &more));
    // 240 messages to ten members each; the first 40 messages warm up.
    let deliveries = &report["deliveries"];
    assert_eq!(deliveries["published"], 240);
    assert_eq!(deliveries["expected"], 2_400);
    assert_eq!(deliveries["delivered"], 2_400);
    for none in ["lost", "duplicated", "out_of_order", "stray", "unsent", "foreign"] {
        assert_eq!(deliveries[none], 0, "{none}");
    }
    check_latency(&report["results"]["latency"], 2_000);
    check_latency(&report["results"]["send_lag"], 200);
    assert!((number(&report["results"]["publish_per_s"]) - 200.0).abs() < 1.0, "{report}");
    assert_eq!(report["server"]["pid"], server.id());
    assert!(number(&report["server"]["cpu_seconds"]) > 0.0);
    assert!(number(&report["server"]["resident_bytes"]) > 1e6);
    assert!(number(&report["results"]["cpu_ns_per_delivery"]) > 0.0);
    assert!(number(&report["opening"]["cpu_us_per_connect"]) > 0.0);
    // The last of fifty is due one step before the ramp's end.
    assert!(number(&report["opening"]["seconds"]) > 0.19, "{report}");
    assert_eq!(
        (&report["command"], &report["tool"]["name"]),
        (&json!("fanout"), &json!("roomkeeper"))
    );
    assert_eq!(
        (&report["settings"]["rate"], &report["settings"]["as"]),
        (&json!(200.0), &json!("nobody"))
    );
}

#[test]
fn a_seed_is_reported_progress_is_told_and_the_report_can_be_a_file() {
    let server = Server::start(&[]);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("report.json");
    let (url, path) = (url(&server), file.to_str().unwrap());
    let words =
        with(&short("fanout", &url), &["--connections", "4", "--seed", "7", "--json", path]);
    let exit = bench(&words);
    assert_eq!((exit.code, exit.stdout.as_str()), (Some(0), ""), "{exit:?}");
    for phase in ["connecting: ", "measuring: ", "960 of 960 deliveries came", "passed"] {
        assert!(exit.stderr.contains(phase), "{phase}: {}", exit.stderr);
    }
    // Nobody watches: whole lines, and none that is written over.
    assert!(!exit.stderr.contains('\r') && !exit.stderr.contains('\x1b'), "{:?}", exit.stderr);
    let report: Value = serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
    assert_eq!((&report["settings"]["seed"], &report["passed"]), (&json!(7), &json!(true)));
}

#[test]
fn echo_brings_each_message_back_to_its_sender_over_rooms_and_over_the_echo_endpoint() {
    let server = Server::start(&[]);
    let plain = server.ws("/ws/bench");
    for url in [url(&server), plain] {
        let report = passed(&with(&short("echo", &url), &["--connections", "20"]));
        assert_eq!(report["deliveries"]["delivered"], 240, "{url}");
        check_latency(&report["results"]["latency"], 200);
    }
}

#[test]
fn idle_reports_what_each_connection_holds_and_a_thousand_cost() {
    let server = Server::start(&["--set", "heartbeat.interval_ms=1000"]);
    let (url, pid) = (url(&server), server.id().to_string());
    let words = ["idle", &url, "--connections", "50", "--rooms", "5", "--pid", &pid];
    let report = passed(&with(&words, &["--settle", "100ms", "--duration", "2s"]));
    let results = &report["results"];
    assert!(number(&results["pings"]) >= 50.0, "{results}");
    assert!(number(&results["cpu_percent_per_1000"]) > 0.0, "{results}");
    assert!(results["resident_bytes_per_connection"].is_number(), "{results}");
    let report = passed(&[
        "idle",
        &url,
        "--connections",
        "5",
        "--rooms",
        "0",
        "--settle",
        "0s",
        "--duration",
        "100ms",
    ]);
    assert_eq!(report["results"]["cpu_percent_per_1000"], Value::Null);
}

#[test]
fn after_a_cut_all_come_back_with_tickets_and_nothing_is_lost_or_comes_twice() {
    let server = Server::start(&["--set", &secret(), "--set", "auth.allow_anonymous=false"]);
    let (url, secret) = (url(&server), secret());
    let words = ["storm", &url, "--connections", "60", "--rooms", "20", "--rooms-each", "4"];
    let mint = ["--missed", "3", "--mint", "--room", "chat:bench/{n}", "--set", &secret];
    let report = passed(&with(&words, &mint));
    let (results, deliveries) = (&report["results"], &report["deliveries"]);
    assert_eq!((&results["back"], &results["with_ticket"]), (&json!(60), &json!(60)));
    assert!(number(&results["p99_s"]) >= number(&results["p50_s"]), "{results}");
    assert_eq!((&deliveries["expected"], &deliveries["delivered"]), (&json!(720), &json!(720)));
    assert_eq!((&results["gaps"], &results["rooms_refused"]), (&json!(0), &json!(0)));
}

/// A storm whose server may be stopped now.
fn ready_to_restart(server: &Server, more: &[&str]) -> Process {
    let url = url(server);
    let words = ["storm", &url, "--connections", "40", "--rooms", "10", "--restart"];
    let storm = begin(&with(&words, more));
    until("ready", || storm.stderr().lines().any(|line| line.starts_with("ready")).then_some(()));
    storm
}

/// A storm over a server that is killed as soon as the tool is ready, and started again.
fn over_a_kill(server: &mut Server, more: &[&str]) -> Exit {
    let mut storm = ready_to_restart(server, more);
    server.kill();
    server.restart();
    storm.wait(DEADLINE)
}

#[test]
fn durable_rooms_come_back_over_a_kill_and_rooms_in_memory_fail_the_run() {
    let mut server = Server::start_durable(&["--set", "namespaces.public.durable=true"]);
    let exit = over_a_kill(&mut server, &[]);
    assert_eq!(exit.code, Some(0), "{exit:?}");
    assert_eq!(report(&exit)["results"]["back"], 40);
    let mut server = Server::start(&[]);
    let exit = over_a_kill(&mut server, &["--patience", "1s"]);
    assert_eq!(exit.code, Some(1), "{exit:?}");
    assert_ne!(report(&exit)["results"]["gaps"], 0);
    assert!(exit.stderr.contains("holes were told"), "{}", exit.stderr);
}

#[test]
fn whose_server_is_killed_comes_back_to_the_others_that_were_named() {
    if !Redis::is_here() {
        return;
    }
    let redis = Redis::start();
    let at = format!("redis.url={}", redis.url());
    let ticket = "auth.ticket_secret=a-ticket-secret-of-the-tests-that-is-long-enough";
    let start = || Server::start(&["--set", &at, "--set", &secret(), "--set", ticket]);
    let (mut first, others) = (start(), [start(), start()]);
    let ready = |server: &Server| crate::http::get(server.addr(), "/readyz").status == 200;
    for server in [&first, &others[0], &others[1]] {
        until("it is ready", || ready(server).then_some(()));
    }
    let urls = [&first, &others[0], &others[1]].map(url);
    let words = ["storm", &urls[0], "--back", &urls[1], "--back", &urls[2], "--rooms", "10"];
    let secret = secret();
    let more = ["--connections", "40", "--mint", "--set", &secret];
    let mut storm = begin(&with(&words, &more));
    until("ready", || storm.stderr().lines().any(|line| line.starts_with("ready")).then_some(()));
    first.kill();
    let exit = storm.wait(DEADLINE);
    assert_eq!(exit.code, Some(0), "{exit:?}");
    let report = report(&exit);
    assert_eq!(
        (&report["results"]["back"], &report["settings"]["cut_by"]),
        (&json!(40), &json!("death"))
    );
}

#[test]
fn a_server_that_is_stopped_in_order_is_not_taken_for_the_one_that_is_started_behind_it() {
    let durable = "namespaces.public.durable=true";
    let mut server =
        Server::start_durable(&["--set", durable, "--set", "server.drain_window_ms=3000"]);
    let mut storm = ready_to_restart(&server, &[]);
    // It hears that it shall go, and stays: so long the server drains, and listens.
    let holder = RawSocket::open(server.addr(), PATH);
    server.terminate();
    until("everybody is cut off", || storm.stderr().contains("ready again").then_some(()));
    drop(holder);
    assert_eq!(server.wait().code, Some(0));
    server.restart();
    let exit = storm.wait(DEADLINE);
    assert_eq!(exit.code, Some(0), "{exit:?}");
    assert_eq!(report(&exit)["results"]["back"], 40);
}

#[test]
fn what_is_missed_is_published_before_a_restart_so_that_nothing_warms_the_new_server() {
    let mut server = Server::start_durable(&["--set", "namespaces.public.durable=true"]);
    let mut storm = ready_to_restart(&server, &["--before", "2", "--missed", "3"]);
    let count = |server: &Server| Client::open(server).log("public:bench/7", 100).len();
    assert_eq!(count(&server), 5);
    server.kill();
    server.restart();
    let exit = storm.wait(DEADLINE);
    assert_eq!((exit.code, count(&server)), (Some(0), 5), "{exit:?}");
    let deliveries = &report(&exit)["deliveries"];
    assert_eq!((&deliveries["published"], &deliveries["delivered"]), (&json!(30), &json!(360)));
}

/// A small storm over a server that lies: one message before, and messages 1 and 2 missed.
fn small_storm(url: &str) -> Vec<&str> {
    let small = ["--connections", "4", "--rooms", "1", "--rooms-each", "1", "--patience", "1s"];
    with(&["storm", url], &small)
}

#[test]
fn a_message_that_never_comes_back_ends_a_storm_although_the_server_pings() {
    let server = FalseServer::start(Lie::None);
    passed(&small_storm(&server.url()));
    let server = FalseServer::start(Lie::Withhold(2, Duration::from_millis(200)));
    let (report, said) = failed(&small_storm(&server.url()));
    assert_eq!(report["deliveries"]["lost"], 1);
    // Asked for again, it did not come either.
    assert_eq!((&report["results"]["back"], &report["results"]["gaps"]), (&json!(3), &json!(1)));
    assert!(said.contains("1 of 4 connections did not get everything back"), "{said}");
    assert!(said.contains("never got 1 messages of public:bench/0, the first of them 2"), "{said}");
}

#[test]
fn a_message_from_before_a_storm_that_comes_again_is_a_duplicate() {
    let server = FalseServer::start(Lie::Again(0));
    let (report, said) = failed(&small_storm(&server.url()));
    let deliveries = &report["deliveries"];
    assert_eq!((&deliveries["duplicated"], &deliveries["foreign"]), (&json!(1), &json!(0)));
    assert_eq!((&deliveries["delivered"], &deliveries["lost"]), (&json!(8), &json!(0)));
    assert!(said.contains("got offset 1 of public:bench/0 again"), "{said}");
}

#[test]
fn a_message_that_a_client_came_back_for_by_itself_fails_a_storm_although_nothing_is_lost() {
    let server = FalseServer::start(Lie::Forget(2));
    let (report, said) = failed(&small_storm(&server.url()));
    let (results, deliveries) = (&report["results"], &report["deliveries"]);
    assert_eq!((&results["back"], &results["gaps"]), (&json!(4), &json!(0)));
    assert_eq!((&deliveries["delivered"], &deliveries["lost"]), (&json!(8), &json!(0)));
    assert_eq!((&deliveries["duplicated"], &report["closes"]), (&json!(0), &json!({"3003": 1})));
    assert!(said.contains("public:bench/0: offsets 3 to 3 are missing without a gap"), "{said}");
}

#[test]
fn who_has_to_wait_for_a_place_on_the_way_comes_back_behind_the_others() {
    let server = FalseServer::start(Lie::None);
    let report = passed(&with(&small_storm(&server.url()), &["--opening", "1"]));
    assert_eq!(report["results"]["back"], 4);
}

#[test]
fn who_is_sent_away_comes_back_when_the_server_said_and_not_before() {
    let server = FalseServer::start(Lie::SendAway(Duration::from_millis(700)));
    let (report, said) = failed(&small_storm(&server.url()));
    let results = &report["results"];
    assert_eq!((&results["back"], &report["closes"]), (&json!(4), &json!({"1012": 1})));
    assert!(number(&results["max_s"]) >= 0.7, "{results}");
    assert_eq!(report["deliveries"]["lost"], 0);
    assert!(said.contains("1 connections ended early with 1012"), "{said}");
}

#[test]
fn a_message_that_comes_to_another_rooms_member_fails_the_run_and_is_not_called_foreign() {
    let server = FalseServer::start(Lie::Stray(100));
    let url = server.url();
    let words = with(&short("fanout", &url), &["--connections", "6", "--rooms", "2"]);
    let (report, said) = failed(&words);
    let deliveries = &report["deliveries"];
    assert_eq!((&deliveries["stray"], &deliveries["foreign"]), (&json!(1), &json!(0)));
    assert_eq!((&deliveries["lost"], &deliveries["duplicated"]), (&json!(0), &json!(0)));
    assert!(said.contains("got message 50 of public:bench/0, which is not for it"), "{said}");
}

#[test]
fn a_message_of_somebody_else_in_the_same_room_is_counted_and_is_no_fault() {
    let server = Server::start(&[]);
    let url = url(&server);
    let mut somebody = Client::open(&server);
    let mut running = begin(&with(&short("fanout", &url), &["--connections", "5"]));
    until("the run is over", || {
        somebody.publish("public:bench/0", "hello");
        (!running.is_running()).then_some(())
    });
    let exit = running.wait(DEADLINE);
    assert_eq!(exit.code, Some(0), "{exit:?}");
    let deliveries = &report(&exit)["deliveries"];
    assert!(number(&deliveries["foreign"]) > 0.0, "{deliveries}");
    assert_eq!(deliveries["stray"], 0);
}

#[test]
fn a_message_that_comes_again_behind_the_last_one_that_is_owed_is_a_duplicate() {
    let late = Duration::from_millis(100);
    // The last of 240.
    let server = FalseServer::start(Lie::DoubleLate(239, late));
    let (report, said) = failed(&with(&short("fanout", &server.url()), &["--connections", "5"]));
    assert_eq!(report["deliveries"]["duplicated"], 1);
    assert!(said.contains("got message 239 of public:bench/0 twice"), "{said}");
    let server = FalseServer::start(Lie::DoubleLate(2, late));
    let (report, said) = failed(&small_storm(&server.url()));
    assert_eq!(report["deliveries"]["duplicated"], 1);
    assert!(said.contains("got offset 3 of public:bench/0 again"), "{said}");
}

#[test]
fn members_answer_pings_while_a_storm_publishes_what_comes_before_it() {
    let server = FalseServer::start(Lie::AckAfterPongs);
    passed(&small_storm(&server.url()));
}

#[test]
fn a_storm_that_can_not_begin_says_what_the_server_did_to_its_members() {
    let server = FalseServer::start(Lie::Close(0, 3001));
    let said = refused(&small_storm(&server.url()), 1);
    assert!(said.contains("3 of 4"), "{said}");
    assert!(said.contains("1 connections ended early with 3001"), "{said}");
}

#[test]
fn a_message_that_a_server_skips_doubles_or_swaps_fails_the_run_and_is_named() {
    let rows = [
        (Lie::Skip(100), "lost", "never got 1 messages of public:bench/0, the first of them 100"),
        (Lie::Double(100), "duplicated", "got message 100 of public:bench/0 twice"),
        (Lie::Swap(100), "out_of_order", "got message 100 of public:bench/0 behind a later one"),
    ];
    for (lie, count, words) in rows {
        let server = FalseServer::start(lie);
        let url = server.url();
        let (report, said) =
            failed(&with(&short("fanout", &url), &["--connections", "5", "--patience", "1s"]));
        let expected = if count == "out_of_order" { 5 } else { 1 };
        for other in ["lost", "duplicated", "out_of_order"] {
            let n = if other == count { expected } else { 0 };
            assert_eq!(report["deliveries"][other], n, "{lie:?}: {other}");
        }
        assert!(said.contains(words), "{lie:?}: {said}");
    }
    let server = FalseServer::start(Lie::None);
    passed(&with(&short("fanout", &server.url()), &["--connections", "5"]));
}

#[test]
fn a_stall_of_half_a_second_shows_in_all_that_was_due_meanwhile() {
    let stall = Duration::from_millis(500);
    let server = FalseServer::start(Lie::Stall(100, stall));
    let report = passed(&with(&short("fanout", &server.url()), &["--connections", "5"]));
    // Half of the second's 200 messages were due while nothing moved. A tool that waits for the
    // answer before it sends the next one would have seen a single slow message of 200.
    let latency = &report["results"]["latency"];
    assert_eq!(latency["count"], 1_000);
    assert!(number(&latency["p99_us"]) >= 450_000.0, "{latency}");
    assert!(number(&latency["p90_us"]) >= 350_000.0, "{latency}");
    // The messages kept going out at their times.
    let lag = &report["results"]["send_lag"];
    assert!(number(&lag["p99_us"]) < 250_000.0, "{lag}");
}

#[test]
fn errors_and_ends_are_counted_by_their_codes() {
    let server = FalseServer::start(Lie::Refuse(200, 108));
    let (report, said) =
        failed(&with(&short("fanout", &server.url()), &["--connections", "5", "--patience", "1s"]));
    assert_eq!(report["errors"], json!({"108": 40}));
    assert_eq!(report["deliveries"]["lost"], 200);
    assert!(said.contains("error 108, 40 times"), "{said}");
    let server = FalseServer::start(Lie::Close(100, 3001));
    let (report, said) =
        failed(&with(&short("fanout", &server.url()), &["--connections", "5", "--patience", "1s"]));
    assert_eq!(report["closes"], json!({"3001": 1}));
    assert_eq!(report["deliveries"]["lost"], 140);
    assert!(said.contains("1 connections ended early with 3001"), "{said}");
}

#[test]
fn a_server_that_dies_meanwhile_leaves_a_report_of_what_came() {
    let mut server = Server::start(&[]);
    let url = url(&server);
    let words = [
        "fanout",
        &url,
        "--connections",
        "10",
        "--rate",
        "100",
        "--duration",
        "2s",
        "--warm-up",
        "0s",
    ];
    let mut running = begin(&words);
    until("measuring", || running.stderr().contains("measuring").then_some(()));
    server.kill();
    let exit = running.wait(DEADLINE);
    assert_eq!(exit.code, Some(1), "{exit:?}");
    let report = report(&exit);
    assert_eq!(report["closes"], json!({"1006": 10}));
    let counts = &report["deliveries"];
    assert_eq!(counts["expected"], 2_000);
    assert_eq!(number(&counts["lost"]) + number(&counts["delivered"]), 2_000.0);
    assert!(number(&counts["unsent"]) > 0.0, "{counts}");
}

#[test]
fn what_can_not_be_measured_is_said_with_what_to_do() {
    let said = refused(&["fanout", "ws://127.0.0.1:9"], 1);
    assert!(said.contains("nobody listens at 127.0.0.1:9: start the server"), "{said}");
    for (words, advice) in [
        (&["fanout", "wss://127.0.0.1:9"][..], "behind the proxy"),
        (&["fanout", "127.0.0.1:9"], "ws://host:port"),
        (&["fanout", "--connections", "0"], "--connections must be 1 to 1000000, not 0"),
        (&["fanout", "--rate", "0"], "--rate must be above 0"),
        (&["fanout", "--rooms", "101"], "--rooms must be 1 to 100, not 101"),
        (&["fanout", "--room", "public:x"], "{n} once"),
        (&["fanout", "--duration", "5"], "like 500ms"),
        (&["fanout", "ws://127.0.0.1:9/ws/x"], "only `bench echo`"),
        (&["fanout", "--token", "x", "--mint"], "cannot be used with"),
    ] {
        let said = refused(words, 2);
        assert!(said.contains(advice), "{words:?}: {said}");
    }
    let server = Server::start(&[]);
    let url = url(&server);
    for (room, advice) in [("chat:x/{n}", "103 (not allowed"), ("other:x/{n}", "104 (")] {
        let said = refused(&["fanout", &url, "--room", room], 1);
        assert!(said.contains(advice) && said.contains("--room"), "{said}");
    }
    let said = refused(&["fanout", &url, "--pid", "4194304000"], 1);
    assert!(said.contains("process 4194304000 can't be looked at"), "{said}");
}

#[test]
fn a_token_that_does_not_count_is_refused_with_where_to_get_one_that_does() {
    let limit = "limits.connections_per_user_max=3";
    let server =
        Server::start(&["--set", &secret(), "--set", limit, "--set", "auth.allow_anonymous=false"]);
    let url = url(&server);
    let other = hs256(&format!("{SECRET}-another"), &claims("ann", "public:*"));
    let said = refused(&["fanout", &url, "--token", &other], 1);
    assert!(said.contains("3500") && said.contains("--mint"), "{said}");
    assert!(!said.contains(&other), "{said}");
    let good = hs256(SECRET, &claims("ann", "public:*"));
    let before = server.open_fds();
    let said = refused(&["fanout", &url, "--token", &good], 1);
    assert!(said.contains("3506") && said.contains("limits.connections_per_user_max"), "{said}");
    until("the places are free again", || (server.open_fds() <= before).then_some(()));
    passed(&with(&short("fanout", &url), &["--token", &good, "--connections", "3"]));
    let said = refused(&["fanout", &url, "--mint", "--profile", "testing"], 78);
    assert!(said.contains("auth.hmac_secret_file"), "{said}");
    passed(&with(&short("fanout", &url), &["--mint", "--set", &secret(), "--connections", "10"]));
}

#[test]
fn too_few_open_files_are_told_before_the_first_connection() {
    let mut shell = Command::new("sh");
    let binary = command();
    shell.args(["-c", "ulimit -n 60 && exec \"$0\" bench fanout --connections 100"]);
    shell.arg(binary.get_program());
    let exit = Process::start(shell).wait(DEADLINE);
    assert_eq!(exit.code, Some(1), "{exit:?}");
    assert!(exit.stderr.contains("allows 60 open files and 148 are needed"), "{}", exit.stderr);
    assert!(exit.stderr.contains("ulimit -n 148"), "{}", exit.stderr);
}
