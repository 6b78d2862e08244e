//! The contract of the `broker` port.
