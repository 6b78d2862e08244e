//! Keys that an identity provider publishes: a server that was only told their address.

use std::net::SocketAddr;

use serde_json::json;
use tests::foreign::{Tool, require, script};
use tests::process::Process;
use tests::raw::RawSocket;
use tests::server::{Server, exit_of};
use tests::tls::{Authority, Certificate};
use tests::token::{claims, with_signature};

use crate::client::{Client, PATH, SOON, until};
use crate::http::get;

/// The provider, as a process of its own.
struct Issuer {
    _process: Process,
    addr: SocketAddr,
    /// Where it publishes its keys.
    keys: String,
}

impl Issuer {
    fn start() -> Self {
        let mut process = Process::start(script(Tool::Node, "issuer"));
        let addr = Self::read_addr(&mut process);
        Self { _process: process, addr, keys: format!("http://{addr}/keys") }
    }

    /// Publishes its keys over TLS with this certificate.
    fn start_sealed(certificate: &Certificate) -> Self {
        let mut command = script(Tool::Node, "issuer");
        command.arg(certificate.file()).arg(certificate.key_file());
        let mut process = Process::start(command);
        let addr = Self::read_addr(&mut process);
        let sealed = process.next_line(SOON).expect("it says where it speaks TLS");
        Self { _process: process, addr, keys: format!("{}/keys", sealed.trim()) }
    }

    fn read_addr(process: &mut Process) -> SocketAddr {
        let line = process.next_line(SOON).expect("it says where it is");
        line.trim().strip_prefix("http://").expect("an address").parse().unwrap()
    }

    fn ask(&self, path: &str) -> String {
        let answer = get(self.addr, path);
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.body
    }

    fn token(&self, user: &str) -> String {
        self.ask(&format!("/token?user={user}"))
    }

    fn fetches(&self) -> u32 {
        self.ask("/fetches").parse().unwrap()
    }

    fn settings(&self) -> [String; 3] {
        let url = format!("auth.jwks_url={}", self.keys);
        [url, "auth.issuer=issuer".to_owned(), "auth.audience=roomkeeper".to_owned()]
    }

    fn server(&self, more: &[&str]) -> Server {
        self.server_with(more, &[])
    }

    /// The same for a server whose system trusts this authority and nobody else.
    fn server_that_trusts(&self, authority: &Authority) -> Server {
        self.server_with(&[], &[("SSL_CERT_FILE", &authority.file())])
    }

    fn server_with(&self, more: &[&str], environment: &[(&str, &str)]) -> Server {
        let [url, issuer, audience] = self.settings();
        let own = ["--set", &url, "--set", &issuer, "--set", &audience];
        Server::start_with(&[&own, more].concat(), environment)
    }
}

fn close_code(server: &Server, token: &str) -> u16 {
    RawSocket::open(server.addr(), &format!("{PATH}?token={token}")).read_close_code()
}

fn open(server: &Server, token: &str) -> Client {
    Client::open_at(server.addr(), &format!("{PATH}?token={token}"))
}

/// A49
#[test]
fn tokens_of_a_published_key_are_good_and_hundreds_of_unknown_keys_cost_no_more_fetches() {
    if !require(Tool::Node) {
        return;
    }
    let issuer = Issuer::start();
    let server = issuer.server(&[]);
    let mut ann = open(&server, &issuer.token("ann"));
    assert_eq!(ann.hello["user_id"], "ann");
    ann.subscribe("chat:room");
    assert_eq!(ann.call(json!({"type": "history", "room": "chat:room"}))["code"], 103);
    for n in 0..300 {
        let header = json!({"alg": "RS256", "kid": format!("unknown-{n}")});
        let unknown = with_signature(&header, &claims("ann", "chat:*"), b"anything");
        assert_eq!(close_code(&server, &unknown), 3500);
    }
    assert!(issuer.fetches() <= 3, "{}", issuer.fetches());
}

/// A22
#[test]
fn while_the_provider_misbehaves_nobody_gets_in_by_a_key_that_is_too_old_or_not_known() {
    if !require(Tool::Node) {
        return;
    }
    // Side by side: each waits for fetches that come less and less often.
    std::thread::scope(|scope| {
        for mode in ["down", "html", "huge", "redirect"] {
            scope.spawn(move || nobody_gets_in_while_the_provider_is(mode));
        }
    });
}

fn nobody_gets_in_while_the_provider_is(mode: &str) {
    let issuer = Issuer::start();
    // Fetched again every 500 ms, and good for a second after the last time.
    let server = issuer.server(&["--set", "auth.jwks_max_age_ms=1000"]);
    let token = issuer.token("ann");
    open(&server, &token);
    issuer.ask(&format!("/mode?is={mode}"));
    // The first may have been under way.
    issuer.ask("/next");
    issuer.ask("/next");
    let unknown = issuer.ask("/token?user=ann&kid=new");
    assert_eq!(close_code(&server, &unknown), 1013, "{mode}");
    // A second lies between this one and the next, and two before the one after it.
    issuer.ask("/next");
    issuer.ask("/next");
    assert_eq!(close_code(&server, &token), 1013, "{mode}");
    issuer.ask("/mode?is=ok");
    issuer.ask("/next");
    // The answer is on its way to whoever waits for it.
    open(&server, &token);
}

#[test]
fn keys_are_fetched_over_https_from_whom_an_authority_of_the_system_vouches_for() {
    if !require(Tool::Node) {
        return;
    }
    let authority = Authority::new();
    let issuer = Issuer::start_sealed(&authority.certificate(&["localhost"]));
    let server = issuer.server_that_trusts(&authority);
    let ann = open(&server, &issuer.token("ann"));
    assert_eq!(ann.hello["user_id"], "ann");
    assert_eq!(issuer.fetches(), 1);
}

/// A22
#[test]
fn a_provider_that_the_system_does_not_trust_is_not_asked_for_keys_and_the_log_says_why() {
    if !require(Tool::Node) {
        return;
    }
    let authority = Authority::new();
    let own_name = authority.certificate(&["localhost"]);
    let other_name = authority.certificate(&["issuer.example"]);
    let stranger = Authority::new();
    for (certificate, trusted, words) in [
        (&own_name, &stranger, "invalid peer certificate: UnknownIssuer"),
        (&other_name, &authority, "not valid for name"),
    ] {
        let issuer = Issuer::start_sealed(certificate);
        let server = issuer.server_that_trusts(trusted);
        assert_eq!(close_code(&server, &issuer.token("ann")), 1013, "{words}");
        let failed = "the token keys of auth.jwks_url could not be fetched";
        let line = until(failed, || {
            server.log().lines().find(|line| line.contains(failed)).map(str::to_owned)
        });
        assert!(line.contains(words), "{words}: {line}");
        assert_eq!(issuer.fetches(), 0, "{words}");
    }
}

#[test]
fn after_a_reload_published_keys_and_what_is_counted_of_them_are_the_same() {
    if !require(Tool::Node) {
        return;
    }
    let issuer = Issuer::start();
    let mut server = issuer.server(&[]);
    let token = issuer.token("ann");
    for _ in 0..2 {
        open(&server, &token);
    }
    let reloaded = "the settings were reloaded";
    server.hang_up();
    until(reloaded, || server.log().contains(reloaded).then_some(()));
    // No wait for a fetch, and no token is known from before.
    open(&server, &token);
    let text = get(server.addr(), "/metrics").body;
    for line in [
        "roomkeeper_jwks_fetches_total 1",
        "roomkeeper_jwks_fetch_failures_total 0",
        "roomkeeper_jwks_keys 1.0",
        "roomkeeper_token_cache_hits_total 1",
        "roomkeeper_token_cache_misses_total 2",
    ] {
        assert!(text.lines().any(|other| other == line), "no {line} in {text}");
    }
    assert_eq!(issuer.fetches(), 1);
}

#[test]
fn the_command_line_explains_a_token_of_a_published_key() {
    if !require(Tool::Node) {
        return;
    }
    let issuer = Issuer::start();
    let [url, audience, name] = issuer.settings();
    let token = issuer.token("ann");
    let settings = ["explain", "--set", &url, "--set", &audience, "--set", &name];
    let ask = ["--token", &token, "publish", "chat:room"];
    let (code, answer, errors) = exit_of(&[&settings[..], &ask[..]].concat());
    assert_eq!((code, &errors[..]), (Some(0), ""), "{answer}");
    assert!(answer.contains("rooms[0] of the token (chat:*) allows publish"), "{answer}");
    issuer.ask("/mode?is=down");
    let (code, answer, _) = exit_of(&[&settings[..], &ask[..]].concat());
    assert_eq!(code, Some(1));
    assert!(answer.contains("can't be fetched"), "{answer}");
}

#[test]
fn keys_in_the_clear_from_elsewhere_stop_the_start() {
    for (url, words) in [
        ("http://issuer.example/keys", "must begin with https://"),
        ("issuer.example", "an address like https://"),
    ] {
        let setting = format!("auth.jwks_url={url}");
        let (code, _, errors) = exit_of(&["config", "check", "--set", &setting]);
        assert_eq!(code, Some(78), "{errors}");
        assert!(errors.contains("auth.jwks_url") && errors.contains(words), "{errors}");
    }
}
