//! The hosts that the suites are told of, and what each leaves out of what `roomkeeper serve` has.
//!
//! A suite whose name ends with `_bare_tcp` tells the same stories of `tests/hosts/bare_tcp.rs`. All that is
//! left out stands here, with its reason, and nowhere else.

use std::sync::OnceLock;

/// A program that hosts the core.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Host {
    /// `roomkeeper serve`: axum, and workers.
    Binary,
    /// `gateway_tungstenite` over the same settings and adapters.
    BareTcp,
}

/// Something that one story needs beside protocol v2, or more than a framing must do.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Part {
    /// Routes for backends and operators.
    ServerApi,
    /// The address that echoes.
    EchoEndpoint,
    /// Bad UTF-8 is refused before its frame is whole.
    EarlyUtf8,
    /// A close with 1014 is answered with 1014.
    Close1014,
    /// Whoever says nothing has no buffer.
    BufferlessIdling,
    /// A start that fails says why, and ends with a code of its own.
    ExitCodes,
}

/// What the bare host does without.
const BARE_TCP_LACKS: &[(Part, &str)] = &[
    (Part::ServerApi, "an HTTP API is no part of protocol v2, and this host speaks no HTTP"),
    (Part::EchoEndpoint, "for trying out connections, no part of protocol v2"),
    (Part::EarlyUtf8, "tungstenite looks at a payload when its frame is whole"),
    (Part::Close1014, "tungstenite takes 1014 for a code that nobody may send"),
    (Part::BufferlessIdling, "tungstenite keeps a read buffer for each connection"),
    (Part::ExitCodes, "the binary's command line and its words"),
];

/// Stories of the binary that are not told of the bare host, by suite and module.
pub const BARE_TCP_LEAVES_OUT: &[(&str, &str, &str)] = &[
    ("e2e", "alerts", "rules for the metrics of the binary"),
    ("e2e", "authorization_documents", "the documents' endpoints are the binary's"),
    ("e2e", "bench", "the binary's load tool"),
    ("e2e", "command_line", "the binary's command line"),
    ("e2e", "document_000", "profiles, logs and metrics of the binary"),
    ("e2e", "document_000_matches", "the documents' endpoints are the binary's"),
    ("e2e", "document_001", "the documents' endpoints are the binary's"),
    ("e2e", "document_001_history", "the documents' endpoints are the binary's"),
    ("e2e", "document_003", "the documents' endpoints are the binary's"),
    ("e2e", "document_004", "the documents' endpoints are the binary's"),
    ("e2e", "document_examples", "the documents' endpoints are the binary's"),
    ("e2e", "document_malformed", "the documents' endpoints are the binary's"),
    ("e2e", "evening", "the documents' endpoints are the binary's"),
    ("e2e", "explain", "the binary's command line"),
    ("e2e", "http_publish", "the server API"),
    ("e2e", "loops", "the penalty for addresses is that of the gateway with HTTP"),
    ("e2e", "matches", "matches are ordered over the server API"),
    ("e2e", "moderation", "the documents' endpoints are the binary's"),
    ("e2e", "monitoring", "what it tells over HTTP is the binary's"),
    ("e2e", "nginx", "whom the binary believes behind a proxy, and TLS towards one"),
    ("e2e", "observe", "metrics, logs and probes of the binary"),
    ("e2e", "openapi", "the server API"),
    ("e2e", "overload", "what the binary takes, and gives back"),
    ("e2e", "paced", "how the binary lets its clients go is a setting"),
    ("e2e", "packaging", "how the binary is installed"),
    ("e2e", "proxies", "this host does not ask whom a proxy speaks for, and counts no addresses"),
    ("e2e", "published_keys", "the same verifier, with the binary's reload and metrics"),
    ("e2e", "readme", "it is about the binary"),
    ("e2e", "reload", "SIGHUP is the binary's"),
    ("e2e", "restartable", "the binary's start, and its signals"),
    ("e2e", "revocation", "revocations are ordered over the server API"),
    ("e2e", "server_api", "the server API"),
    ("e2e", "service_manager", "sd-notify is the binary's"),
    ("e2e", "speaker", "the documents' endpoints are the binary's"),
    ("e2e", "start", "how the binary starts and what it says"),
    ("e2e", "surroundings", "what the binary needs around it"),
    ("e2e", "three_nodes", "nodes of the binary behind nginx"),
    ("e2e", "tls", "this host speaks no TLS"),
    ("e2e", "tls_handshake", "this host speaks no TLS"),
    ("conformance", "cases", "a table for what is left out, too"),
    ("conformance", "client", "about a client, not about a host"),
    ("conformance", "echo", "the address that echoes is no part of protocol v2"),
];

impl Host {
    /// The one that this process tells stories of.
    #[must_use]
    pub fn under_test() -> Self {
        static HOST: OnceLock<Host> = OnceLock::new();
        *HOST.get_or_init(|| {
            let test = std::env::current_exe().expect("a test knows its executable");
            // target/debug/deps/e2e_bare_tcp-0123456789abcdef
            let name = test.file_stem().and_then(|name| name.to_str()).unwrap_or_default();
            let suite = name.rsplit_once('-').map_or(name, |(suite, _)| suite);
            if suite.ends_with("_bare_tcp") { Self::BareTcp } else { Self::Binary }
        })
    }
}

/// Whether the host under test has a part; if not, says so, and the test leaves it out.
#[must_use]
#[allow(clippy::print_stderr, reason = "the word that says why a test did nothing")]
pub fn has(part: Part) -> bool {
    let lacks = match Host::under_test() {
        Host::Binary => &[],
        Host::BareTcp => BARE_TCP_LACKS,
    };
    let Some((_, reason)) = lacks.iter().find(|(lack, _)| *lack == part) else { return true };
    eprintln!("left out: {reason}");
    false
}

/// Fails unless each module of a suite is told of the bare host, too, or left out with a reason;
/// `whole` and `bare` are the texts of both roots.
///
/// # Panics
/// With the names of those that are neither, or both.
pub fn assert_told_or_left_out(suite: &str, whole: &str, bare: &str) {
    let modules = |text: &str| {
        let names = text.lines().filter_map(|line| line.strip_prefix("mod ")?.strip_suffix(';'));
        names.map(str::to_owned).collect::<Vec<_>>()
    };
    let (whole, told) = (modules(whole), modules(bare));
    let is_left_out = |name: &String| {
        BARE_TCP_LEAVES_OUT.iter().any(|(of, module, _)| *of == suite && module == name)
    };
    let wrong: Vec<_> =
        whole.iter().filter(|name| told.contains(name) == is_left_out(name)).collect();
    assert!(wrong.is_empty(), "neither told of the bare host nor left out, or both: {wrong:?}");
    let gone: Vec<_> = BARE_TCP_LEAVES_OUT
        .iter()
        .filter(|(of, module, _)| *of == suite && !whole.iter().any(|name| name == module))
        .collect();
    assert!(gone.is_empty(), "left out, and not there any more: {gone:?}");
}
