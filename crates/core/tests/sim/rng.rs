//! The only source of chance: a seed gives the same history on every machine.

/// SplitMix64 (Steele, Lea, Flood 2014): one word of state, good enough to explore.
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) const fn new(seed: u64) -> Rng {
        Rng(seed ^ 0x9e37_79b9_7f4a_7c15)
    }

    fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Returns a number below `n`, which is at least 1.
    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.word() % n.max(1)
    }

    /// Returns true this many times out of a hundred.
    pub(crate) fn percent(&mut self, n: u64) -> bool {
        self.below(100) < n
    }

    /// Returns one of these.
    pub(crate) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        let n = self.below(from.len() as u64);
        from[usize::try_from(n).unwrap()]
    }
}
