//! The wire protocol: what bytes mean, and which bytes say it.
//!
//! Its serialised types are private to it; nothing outside may know field names.
