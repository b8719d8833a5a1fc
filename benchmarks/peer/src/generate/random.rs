//! Random numbers that are a function of a seed and a stream, and of nothing else.

/// SplitMix64 (Steele, Lea, Flood: *Fast Splittable Pseudorandom Number Generators*, 2014).
pub(super) struct Random(u64);

impl Random {
    /// One of the streams of a seed: a day's, an hour's, or a table's.
    pub(super) fn new(seed: u64, stream: u64) -> Self {
        let mut seeds = Random(seed);
        let mut random = Random(seeds.next() ^ stream.wrapping_mul(0xd1b5_4a32_d192_ed03));
        random.next();
        random
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform in `0..bound`, but for a bias below 2⁻⁴⁰ at the bounds used here.
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_differ_and_do_not_change() {
        let draw = |seed, stream| {
            (0..4).map(|_| ()).scan(Random::new(seed, stream), |r, ()| Some(r.below(1000))).collect::<Vec<_>>()
        };
        assert_eq!(draw(1, 0), draw(1, 0));
        assert_ne!(draw(1, 0), draw(1, 1));
        assert_ne!(draw(1, 0), draw(2, 0));
        assert!(draw(7, 7).iter().all(|&n| n < 1000));
    }
}
