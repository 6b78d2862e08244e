//! Who may depend on whom.
//!
//! `domain` ← `application` ← `adapters/*` ← `bootstrap`, and only `tests` looks at all of them.
//! `benches` stands apart.
//! The tables below are the law; a new edge is a decision and is written here with its crate.

use crate::repository::{Dependency, Kind, Member, Package, members, packages};
use crate::{assert_complains, assert_lawful};

/// What the model may use. No runtime, no driver, no logging.
const DOMAIN: &[&str] = &["bytes", "serde", "serde_json", "smallvec", "thiserror"];
/// Only behind a feature: they describe wire types and add nothing at run time.
const DOMAIN_OPTIONAL: &[&str] = &["schemars", "ts-rs"];

/// What the use cases may use, besides `domain`.
const APPLICATION: &[&str] =
    &["async-trait", "bytes", "domain", "smallvec", "thiserror", "tokio", "tracing"];
const APPLICATION_OPTIONAL: &[&str] = &["mockall"];
/// `tokio` is there for its channels and locks, never for its clock, sockets or tasks.
const APPLICATION_TOKIO_FEATURES: &[&str] = &["sync"];

/// Adapters that other adapters may use.
const LEAVES: &[&str] = &["tls_rustls", "websocket_codec", "worker_tokio"];
/// What any adapter may use: the layers below, the leaves, and crates that are no technology.
const ADAPTER: &[&str] = &[
    "application",
    "async-trait",
    "bytes",
    "domain",
    "futures-util",
    "secrecy",
    "serde",
    "serde_json",
    "smallvec",
    "thiserror",
    "tls_rustls",
    "tokio",
    "tokio-util",
    "tracing",
    "websocket_codec",
    "worker_tokio",
];
/// Each adapter's one technology, with the crates that belong to it.
const TECHNOLOGY: &[(&str, &[&str])] = &[
    ("auth_jwt", &["aws-lc-rs", "base64", "jsonwebtoken", "sha2"]),
    ("broker_memory", &[]),
    ("broker_redis", &["redis"]),
    (
        "client_tungstenite",
        &["getrandom", "http", "rustls-native-certs", "tokio-rustls", "tokio-tungstenite"],
    ),
    (
        "gateway_axum",
        &["axum", "http", "http-body-util", "hyper", "hyper-util", "sha2", "socket2", "tower"],
    ),
    ("gateway_tungstenite", &["tungstenite"]),
    ("load_epoll", &["hdrhistogram", "rustix"]),
    ("jwks_hyper", &["http-body-util", "hyper", "hyper-rustls", "hyper-util", "rustls"]),
    ("store_postgres", &["sqlx"]),
    ("store_sqlite", &["sqlx"]),
    (
        "telemetry_otlp",
        &[
            "http",
            "http-body-util",
            "hyper",
            "hyper-util",
            "opentelemetry",
            "opentelemetry-http",
            "opentelemetry-otlp",
            "opentelemetry_sdk",
            "tracing-subscriber",
        ],
    ),
    ("telemetry_prometheus", &["prometheus-client"]),
    ("tickets_hmac", &["aws-lc-rs", "base64"]),
    ("tls_rustls", &["rustls", "rustls-webpki"]),
    ("websocket_codec", &["base64", "sha1", "simdutf8"]),
    ("worker_tokio", &["getrandom", "libc", "rustix", "socket2"]),
];

/// Hosts that are not ours, as examples: they choose adapters, as the binary does. What each must do
/// without is what it is an example of.
const HOSTS: &[(&str, &[&str])] = &[
    ("axum_app", &["gateway_tungstenite"]),
    ("bare_tcp", &["axum", "gateway_axum", "hyper", "websocket_codec", "worker_tokio"]),
    ("rooms_only", &["auth_jwt", "axum", "gateway_axum", "store_sqlite", "tickets_hmac"]),
];

/// What an adapter must do without although others may use it: the bare host shows that the core
/// needs neither our workers nor our codec.
const WITHOUT: &[(&str, &[&str])] =
    &[("gateway_tungstenite", &["websocket_codec", "worker_tokio"])];

/// What the measuring tools may use: as little as possible, and nothing of the product but the
/// handshake, since they are what the product is compared with.
const BENCHES: &[&str] =
    &["base64", "hmac", "rustix", "serde", "serde_json", "sha2", "websocket_codec"];

/// What counts single operations may use: the core with the broker in memory, and no technology
/// whose cost would be counted with it.
const INSTRUCTIONS: &[&str] =
    &["application", "async-trait", "broker_memory", "bytes", "domain", "websocket_codec"];

/// What measures several nodes may use: the broker on Redis, and its library alone beside it; the store on
/// Postgres.
const NODES: &[&str] =
    &["application", "broker_redis", "bytes", "domain", "redis", "store_postgres", "tokio"];

/// Never in the tree, with what is used instead.
const BANNED: &[(&str, &str)] = &[
    ("native-tls", "TLS is rustls on aws-lc-rs: switch the feature that asks for it"),
    ("openssl", "TLS is rustls on aws-lc-rs: switch the feature that asks for it"),
    ("openssl-sys", "TLS is rustls on aws-lc-rs: switch the feature that asks for it"),
    ("ring", "the one cryptography library is aws-lc-rs: switch the feature that asks for it"),
    ("rsa", "RUSTSEC-2023-0071: aws-lc-rs verifies RSA signatures"),
];
/// At most one version in the tree: their types meet in our signatures.
const SINGLE: &[&str] = &["bytes", "libsqlite3-sys", "tokio", "tungstenite"];

/// The edges that the layers forbid, for normal and build dependencies of one crate.
fn check_edges(member: &Member, members: &[Member]) -> Vec<String> {
    let mut complaints = Vec::new();
    for edge in &member.dependencies {
        let ours = members.iter().any(|other| other.name == edge.name);
        let complaint = if edge.name == "bootstrap" {
            (member.name != "tests").then(|| "nothing but `tests` imports the binary".to_owned())
        } else if member.name == "tests" || member.name == "bootstrap" {
            None
        } else if let Some((_, without)) = HOSTS.iter().find(|(host, _)| *host == member.name) {
            // A host may choose, and its tests start it as all others are started.
            (edge.kind != Kind::Development && without.contains(&edge.name.as_str()))
                .then(|| "it is an example of doing without".to_owned())
        } else if edge.kind == Kind::Development {
            // Test tools are free; layers are not.
            if ours { check_layer(member, edge) } else { None }
        } else {
            check_allowed(member, edge)
        };
        if let Some(complaint) = complaint {
            complaints.push(format!(
                "crate `{}` must not depend on `{}`: {complaint}",
                member.name, edge.name
            ));
        }
    }
    complaints
}

/// The direction between our own crates, also for tests inside them.
fn check_layer(member: &Member, edge: &Dependency) -> Option<String> {
    let allowed: &[&str] = match member.name.as_str() {
        "domain" => &["domain"],
        "application" => &["application", "domain"],
        _ if LEAVES.contains(&edge.name.as_str()) => return None,
        _ => &["application", "domain"],
    };
    let lawful = allowed.contains(&edge.name.as_str()) || edge.name == member.name;
    (!lawful).then(|| {
        "layers point inwards and adapters never meet, also in their tests: use a port, or move \
         the test to tests/"
            .to_owned()
    })
}

fn check_allowed(member: &Member, edge: &Dependency) -> Option<String> {
    match member.name.as_str() {
        "domain" => (!is_listed(edge, DOMAIN, DOMAIN_OPTIONAL)).then(|| {
            "the model is pure: do it in an adapter behind a port of `application`".to_owned()
        }),
        "application" if edge.name == "tokio" => check_tokio_features(edge),
        "application" => (!is_listed(edge, APPLICATION, APPLICATION_OPTIONAL))
            .then(|| "use cases name no technology: define a port and write an adapter".to_owned()),
        "benches" => (!is_listed(edge, BENCHES, &[])).then(|| {
            "what measures the product shares nothing with it: do it with std, or write the crate \
             into BENCHES in tests/law/layers.rs"
                .to_owned()
        }),
        "instructions" => (!is_listed(edge, INSTRUCTIONS, &[])).then(|| {
            "what is counted is the core alone: write the crate into INSTRUCTIONS in \
             tests/law/layers.rs if it belongs to that"
                .to_owned()
        }),
        "nodes" => (!is_listed(edge, NODES, &[])).then(|| {
            "what is measured is the broker on Redis: write the crate into NODES in \
             tests/law/layers.rs if it belongs to that"
                .to_owned()
        }),
        adapter => check_adapter(adapter, edge),
    }
}

fn is_listed(edge: &Dependency, always: &[&str], behind_a_feature: &[&str]) -> bool {
    let name = edge.name.as_str();
    always.contains(&name) || (edge.optional && behind_a_feature.contains(&name))
}

fn check_tokio_features(edge: &Dependency) -> Option<String> {
    let mut asked = edge.features.iter().map(String::as_str);
    let extra = asked.find(|feature| !APPLICATION_TOKIO_FEATURES.contains(feature))?;
    Some(format!(
        "its feature `{extra}` is asked for, and use cases have only `sync`: take time as an \
         argument and let an adapter spawn and wait"
    ))
}

fn check_adapter(adapter: &str, edge: &Dependency) -> Option<String> {
    let Some((_, technology)) = TECHNOLOGY.iter().find(|(known, _)| *known == adapter) else {
        return Some(format!(
            "the law has no row for this crate: give `{adapter}` its one technology in TECHNOLOGY \
             in tests/law/layers.rs"
        ));
    };
    let without = WITHOUT.iter().find(|(name, _)| *name == adapter);
    if without.is_some_and(|(_, without)| without.contains(&edge.name.as_str())) {
        return Some("it shows that the core does without".to_owned());
    }
    let lawful = is_listed(edge, ADAPTER, &[]) || is_listed(edge, technology, &[]);
    (!lawful).then(|| {
        "an adapter has one technology and no other adapter: go through a port, or write the \
         crate into its row of TECHNOLOGY in tests/law/layers.rs"
            .to_owned()
    })
}

/// Crates that must not be anywhere in the tree.
fn check_banned(packages: &[Package]) -> Vec<String> {
    let banned = |package: &Package| {
        let (name, instead) = BANNED.iter().find(|(name, _)| *name == package.name)?;
        Some(format!(
            "`{name}` {} is in the tree: {instead} (`cargo tree -i {name}` shows who)",
            package.version
        ))
    };
    packages.iter().filter_map(banned).collect()
}

/// Crates that must not be there twice.
fn check_single(packages: &[Package]) -> Vec<String> {
    let mut complaints = Vec::new();
    for name in SINGLE {
        let mut versions = packages
            .iter()
            .filter(|package| package.name == *name)
            .map(|package| package.version.as_str())
            .collect::<Vec<_>>();
        versions.sort_unstable();
        versions.dedup();
        if versions.len() > 1 {
            complaints.push(format!(
                "`{name}` is in the tree as {}: align whoever asks for the older one \
                 (`cargo tree -d` shows who)",
                versions.join(" and ")
            ));
        }
    }
    complaints
}

#[test]
fn every_crate_depends_only_on_what_its_layer_may_use() {
    let all = members();
    assert!(all.iter().any(|m| m.name == "domain"), "cargo metadata shows no `domain`");
    let complaints = all.iter().flat_map(|member| check_edges(member, all)).collect::<Vec<_>>();
    assert_lawful(&complaints);
}

#[test]
fn no_banned_crate_is_in_the_tree() {
    assert!(packages().iter().any(|p| p.name == "tokio"), "the tree was not resolved");
    assert_lawful(&check_banned(packages()));
}

#[test]
fn crates_whose_types_we_pass_around_are_there_once() {
    assert_lawful(&check_single(packages()));
}

/// The breaches that each check must see.
mod breaches {
    use super::*;

    fn edge(name: &str) -> Dependency {
        Dependency { name: name.to_owned(), ..Dependency::default() }
    }

    fn complaints(name: &str, edge: Dependency) -> Vec<String> {
        let named = |name: &str| Member { name: name.to_owned(), ..Member::default() };
        let all = ["domain", "application", "gateway_axum", "store_sqlite", "bootstrap"].map(named);
        check_edges(&Member { dependencies: vec![edge], ..named(name) }, &all)
    }

    fn package(name: &str, version: &str) -> Package {
        Package { name: name.to_owned(), version: version.to_owned() }
    }

    #[test]
    fn a_runtime_in_the_model_is_seen() {
        assert_complains(
            &complaints("domain", edge("tokio")),
            "`domain` must not depend on `tokio`",
        );
    }

    #[test]
    fn a_schema_crate_in_the_model_is_lawful_only_behind_a_feature() {
        assert_complains(&complaints("domain", edge("schemars")), "schemars");
        let optional = Dependency { optional: true, ..edge("schemars") };
        assert_lawful(&complaints("domain", optional));
    }

    #[test]
    fn a_driver_in_the_use_cases_is_seen() {
        assert_complains(&complaints("application", edge("sqlx")), "define a port");
    }

    #[test]
    fn an_unconditional_mock_in_the_use_cases_is_seen() {
        assert_complains(&complaints("application", edge("mockall")), "mockall");
    }

    #[test]
    fn a_clock_for_the_use_cases_is_seen() {
        let features = vec!["sync".to_owned(), "time".to_owned()];
        let tokio = Dependency { features, ..edge("tokio") };
        assert_complains(&complaints("application", tokio), "`time`");
    }

    #[test]
    fn an_adapter_that_uses_another_is_seen_also_in_its_tests() {
        assert_complains(&complaints("gateway_axum", edge("store_sqlite")), "no other adapter");
        let development = Dependency { kind: Kind::Development, ..edge("store_sqlite") };
        assert_complains(&complaints("gateway_axum", development), "adapters never meet");
    }

    #[test]
    fn a_second_technology_in_an_adapter_is_seen() {
        assert_complains(&complaints("gateway_axum", edge("sqlx")), "one technology");
    }

    #[test]
    fn an_adapter_that_the_law_does_not_know_is_seen() {
        assert_complains(&complaints("broker_carrier_pigeon", edge("bytes")), "TECHNOLOGY");
    }

    #[test]
    fn a_host_that_is_an_example_may_choose_but_not_what_it_does_without() {
        assert_lawful(&complaints("bare_tcp", edge("store_sqlite")));
        assert_complains(&complaints("bare_tcp", edge("gateway_axum")), "doing without");
        assert_complains(&complaints("axum_app", edge("bootstrap")), "nothing but `tests`");
        assert_complains(&complaints("gateway_tungstenite", edge("worker_tokio")), "does without");
    }

    #[test]
    fn a_measuring_tool_that_uses_the_product_or_its_runtime_is_seen() {
        assert_complains(&complaints("benches", edge("domain")), "shares nothing");
        assert_complains(&complaints("benches", edge("tokio")), "shares nothing");
        assert_lawful(&complaints("benches", edge("rustix")));
    }

    #[test]
    fn a_technology_in_what_is_counted_is_seen() {
        assert_complains(&complaints("instructions", edge("sqlx")), "the core alone");
        assert_lawful(&complaints("instructions", edge("domain")));
        assert_complains(&complaints("nodes", edge("sqlx")), "the broker on Redis");
        assert_lawful(&complaints("nodes", edge("redis")));
    }

    #[test]
    fn whoever_imports_the_binary_is_seen_except_the_tests() {
        assert_complains(&complaints("gateway_axum", edge("bootstrap")), "nothing but `tests`");
        assert_lawful(&complaints("tests", edge("bootstrap")));
    }

    #[test]
    fn a_layer_that_points_outwards_is_seen_also_in_its_tests() {
        let development = Dependency { kind: Kind::Development, ..edge("application") };
        assert_complains(&complaints("domain", development), "layers point inwards");
        assert_lawful(&complaints("gateway_axum", edge("websocket_codec")));
    }

    #[test]
    fn a_build_dependency_is_no_way_around() {
        let build = Dependency { kind: Kind::Build, ..edge("sqlx") };
        assert_complains(&complaints("domain", build), "sqlx");
    }

    #[test]
    fn a_banned_crate_and_a_second_version_are_seen() {
        assert_complains(&check_banned(&[package("ring", "0.17.0")]), "cargo tree -i ring");
        let twice = [package("tungstenite", "0.29.0"), package("tungstenite", "0.30.0")];
        assert_complains(&check_single(&twice), "0.29.0 and 0.30.0");
        let twins = [package("tungstenite", "0.30.0"), package("tungstenite", "0.30.0")];
        assert_lawful(&check_single(&twins));
    }
}
