//! Time as the model sees it: two numbers that come from outside.
//!
//! Nothing here may ask a clock. Intervals and deadlines use [`Monotonic`], which never jumps;
//! only what people or tokens see uses [`Wall`].

use std::fmt;
use std::time::Duration;

/// Milliseconds since an arbitrary start; never goes back, unaffected by changes of the clock.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Monotonic(u64);

impl Monotonic {
    /// The arbitrary start.
    pub const START: Self = Self(0);

    /// Takes milliseconds since the start.
    #[must_use]
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// Milliseconds since the start.
    #[must_use]
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// This instant and `span` more, saturating.
    #[must_use]
    pub fn after(self, span: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(span.as_millis()).unwrap_or(u64::MAX)))
    }

    /// How long ago `earlier` was; zero when it lies ahead.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

/// Milliseconds since 1970-01-01T00:00:00Z, as the machine's clock shows them.
///
/// `Display` writes ISO 8601 in UTC with milliseconds: `2026-11-21T09:38:00.123Z`.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Wall(i64);

impl Wall {
    /// The latest instant with a four-digit year, which is all that ISO 8601 can write plainly.
    pub const MAX: Self = Self(253_402_300_799_999);
    /// How many bytes [`to_iso8601`](Self::to_iso8601) writes.
    pub const ISO8601_BYTES: usize = 24;

    /// Takes milliseconds since 1970, held to the years 0000–9999.
    #[must_use]
    pub fn from_millis(millis: i64) -> Self {
        Self(millis.clamp(-62_167_219_200_000, Self::MAX.0))
    }

    /// Milliseconds since 1970.
    #[must_use]
    pub const fn as_millis(self) -> i64 {
        self.0
    }

    /// This instant and `span` more, saturating at [`Wall::MAX`].
    #[must_use]
    pub fn after(self, span: Duration) -> Self {
        let millis = i64::try_from(span.as_millis()).unwrap_or(i64::MAX);
        Self::from_millis(self.0.saturating_add(millis))
    }

    /// How long ago `earlier` was; zero when it lies ahead.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// The 20 ASCII bytes of `YYYY-MM-DDTHH:MM:SSZ`, what comes behind the second cut off.
    #[must_use]
    pub fn to_iso8601_seconds(self) -> [u8; 20] {
        let mut text = [b'Z'; 20];
        text[..19].copy_from_slice(&self.to_iso8601()[..19]);
        text
    }

    /// The 24 ASCII bytes of `YYYY-MM-DDTHH:MM:SS.mmmZ`; once per publish, so without `fmt`.
    #[must_use]
    pub fn to_iso8601(self) -> [u8; Self::ISO8601_BYTES] {
        let (days, millis) = (self.0.div_euclid(86_400_000), self.0.rem_euclid(86_400_000));
        let (year, month, day) = civil_from_days(days);
        let mut text = *b"0000-00-00T00:00:00.000Z";
        let mut put = |at: usize, digits: usize, mut value: i64| {
            for slot in text[at..at + digits].iter_mut().rev() {
                *slot = b'0' + u8::try_from(value % 10).unwrap_or(0);
                value /= 10;
            }
        };
        put(0, 4, year);
        put(5, 2, month);
        put(8, 2, day);
        put(11, 2, millis / 3_600_000);
        put(14, 2, millis / 60_000 % 60);
        put(17, 2, millis / 1000 % 60);
        put(20, 3, millis % 1000);
        text
    }
}

impl fmt::Display for Wall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(std::str::from_utf8(&self.to_iso8601()).unwrap_or_default())
    }
}

/// Both readings of one moment.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Now {
    /// For intervals and deadlines.
    pub monotonic: Monotonic,
    /// For timestamps and token expiry.
    pub wall: Wall,
}

/// Days since 1970 to a date of the proleptic Gregorian calendar. Algorithm: Howard Hinnant,
/// "chrono-Compatible Low-Level Date Algorithms", `civil_from_days`.
const fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let day_of_era = z.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + (month <= 2) as i64;
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// T01: the years around 1970 and 2038.
    #[test]
    fn instants_print_as_iso_8601_with_milliseconds() {
        for (millis, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_763_717_880_123, "2025-11-21T09:38:00.123Z"),
            (2_147_483_648_000, "2038-01-19T03:14:08.000Z"),
            (-1, "1969-12-31T23:59:59.999Z"),
        ] {
            assert_eq!(Wall::from_millis(millis).to_string(), text);
        }
    }

    /// T01: the year 10000.
    #[test]
    fn a_clock_set_to_the_year_ten_thousand_stays_printable() {
        assert_eq!(Wall::from_millis(i64::MAX).to_string(), "9999-12-31T23:59:59.999Z");
        assert_eq!(Wall::from_millis(i64::MIN).to_string(), "0000-01-01T00:00:00.000Z");
        assert_eq!(Wall::MAX.after(Duration::MAX), Wall::MAX);
    }

    #[test]
    fn a_monotonic_difference_never_underflows() {
        let early = Monotonic::from_millis(5);
        let late = early.after(Duration::from_millis(7));
        assert_eq!(late.since(early), Duration::from_millis(7));
        assert_eq!(early.since(late), Duration::ZERO);
    }
}
