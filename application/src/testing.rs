//! For tests of this and other crates: contract suites that every adapter of a port passes.
//!
//! Nothing here may be reached without the `testing` feature.

pub mod archive_contract;
pub mod broker_contract;
pub mod clock_contract;
pub mod entropy_contract;
pub mod erasure_contract;
pub mod inbox_contract;
pub mod matches_contract;
pub mod memory_archive;
pub mod moderation_contract;
pub mod outbox_contract;
pub mod presence_contract;
pub mod revocations_contract;
pub mod seats_contract;
pub mod session_tickets_contract;
pub mod spent_tokens_contract;
pub mod succession_contract;
pub mod token_verifier_contract;
