//! The law: what the architecture and the house rules forbid, as tests that fail.
//!
//! Every check is a function from text or data to a list of complaints; each has a test that runs
//! it over this repository, and a test that shows it a breach and expects a complaint. A complaint
//! names the place and says what to do. Nothing here builds, runs or changes anything.
//!
//! Suggested reading order: [`repository`], [`layers`], [`manifests`], [`sources`], [`purity`],
//! [`documents`], [`rows`], [`codes`], [`embedding`], [`faults`].

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test may stop where it stands; its helpers are outside #[test] functions"
)]

mod codes;
mod documents;
mod embedding;
mod faults;
mod layers;
mod manifests;
mod purity;
mod repository;
mod rows;
mod sources;

/// Fails with every complaint at once, so that one run shows all there is to do.
#[track_caller]
fn assert_lawful(complaints: &[String]) {
    assert!(
        complaints.is_empty(),
        "{} breach(es) of the law:\n  - {}\n",
        complaints.len(),
        complaints.join("\n  - ")
    );
}

/// Fails unless exactly one complaint was made and it contains `words`.
#[track_caller]
fn assert_complains(complaints: &[String], words: &str) {
    assert!(
        complaints.len() == 1 && complaints[0].contains(words),
        "expected one complaint with {words:?}, got {complaints:#?}"
    );
}
