//! The name of a trace that a message belongs to: the W3C's `traceparent`.
//!
//! It is passed on and never interpreted here. Only the form of version 00 is taken, so that
//! nothing but hexadecimal digits can travel in it.

use std::fmt;

/// A trace and the span in it that a message comes from.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct TraceParent {
    trace: u128,
    parent: u64,
    flags: u8,
}

impl TraceParent {
    /// How many bytes its text has.
    pub const BYTES: usize = 55;

    /// Reads `00-{trace}-{parent}-{flags}`: lower-case digits, neither id all zeros.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let lower = |b: u8| matches!(b, b'0'..=b'9' | b'a'..=b'f' | b'-');
        if text.len() != Self::BYTES || !text.bytes().all(lower) {
            return None;
        }
        let mut parts = text.split('-');
        let mut part = |digits: usize| parts.next().filter(|part| part.len() == digits);
        let (version, trace, parent, flags) = (part(2)?, part(32)?, part(16)?, part(2)?);
        let trace = u128::from_str_radix(trace, 16).ok()?;
        let parent = u64::from_str_radix(parent, 16).ok()?;
        let flags = u8::from_str_radix(flags, 16).ok()?;
        (version == "00" && trace != 0 && parent != 0).then_some(Self { trace, parent, flags })
    }

    /// The trace.
    #[must_use]
    pub const fn trace_id(self) -> u128 {
        self.trace
    }

    /// The span that the message comes from.
    #[must_use]
    pub const fn parent_id(self) -> u64 {
        self.parent
    }

    /// Whether whoever began the trace records it.
    #[must_use]
    pub const fn is_sampled(self) -> bool {
        self.flags & 1 == 1
    }
}

impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{:032x}-{:016x}-{:02x}", self.trace, self.parent, self.flags)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the W3C's text.
    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn what_was_read_is_written_the_same() {
        let parent = TraceParent::parse(GOOD).unwrap();
        assert_eq!(parent.to_string(), GOOD);
        assert_eq!(parent.parent_id(), 0x00f0_67aa_0ba9_02b7);
        assert!(parent.is_sampled());
        let other = GOOD.replace("-01", "-02");
        assert!(!TraceParent::parse(&other).unwrap().is_sampled());
        assert_eq!(TraceParent::parse(&other).unwrap().to_string(), other);
    }

    #[test]
    fn nothing_but_the_form_of_version_00_is_taken() {
        for bad in [
            "",
            "00",
            &GOOD[1..],
            &format!("{GOOD}-"),
            &GOOD.replacen("00", "01", 1),
            &GOOD.replacen("00", "ff", 1),
            &GOOD.replace('f', "F"),
            &GOOD.replace('b', "g"),
            &GOOD.replacen("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32), 1),
            &GOOD.replacen("00f067aa0ba902b7", &"0".repeat(16), 1),
            &GOOD.replacen("-00f0", "00f0-", 1),
            "00-+bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ] {
            assert_eq!(TraceParent::parse(bad), None, "{bad}");
        }
    }
}
