//! The contract of the `archive` port.
