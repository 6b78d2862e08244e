//! Numbers that look random and are the same for the same seed (splitmix64).
//!
//! It must never protect anything.

/// A sequence of numbers.
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number in [0, 1), of 32 bits.
    pub(crate) fn fraction(&mut self) -> f64 {
        (self.next() >> 32) as f64 / (f64::from(u32::MAX) + 1.0)
    }

    /// A number below `end`; 0 when that is 0.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        let wide = u128::from(self.next()) * end as u128;
        // Below `end`, which is a usize.
        usize::try_from(wide >> 64).unwrap_or_default()
    }

    /// `n` letters.
    pub(crate) fn letters(&mut self, n: usize) -> String {
        (0..n).map(|_| char::from(b'a' + self.below(26) as u8)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_numbers_and_they_stay_below_their_end() {
        let (mut one, mut two) = (Random::new(7), Random::new(7));
        for end in 1..1000 {
            let number = one.below(end);
            assert!(number < end);
            assert_eq!(number, two.below(end));
        }
        for _ in 0..1000 {
            let fraction = one.fraction();
            assert!((0.0..1.0).contains(&fraction));
            assert_eq!(fraction.to_bits(), two.fraction().to_bits());
        }
        assert_ne!(Random::new(7).letters(20), Random::new(8).letters(20));
    }
}
