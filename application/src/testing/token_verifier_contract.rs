//! The contract of the `token_verifier` port.
