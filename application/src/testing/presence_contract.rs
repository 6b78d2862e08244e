//! The contract of the `presence` port.
