//! A map by fingerprints that nobody outside can make slow.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};

use super::Fingerprint;

/// Values by fingerprints.
pub(crate) type FingerprintMap<V> = HashMap<Fingerprint, V, FingerprintState>;

/// The seeds of a table. A fingerprint is a hash already, but whoever chooses ids can look for some
/// whose fingerprints begin alike, and would make each batch as slow as all pairs of its checks.
#[derive(Clone)]
pub(crate) struct FingerprintState(u64, u64);

impl Default for FingerprintState {
    fn default() -> Self {
        let random = RandomState::new();
        Self(random.hash_one(0), random.hash_one(1))
    }
}

impl BuildHasher for FingerprintState {
    type Hasher = FingerprintHasher;

    fn build_hasher(&self) -> FingerprintHasher {
        FingerprintHasher { seeds: (self.0, self.1), hash: 0 }
    }
}

/// Both halves of a fingerprint, each with a seed, multiplied and folded: which of them give equal
/// bits depends on the seeds. One time in fifty the highest bits, of which the map makes its tags,
/// would have few values for fingerprints that follow each other, so all bits are spread once more.
/// One time in ten thousand a factor ends in many zeros, and the lowest bits, which are the place,
/// would have few values; so the highest are folded into them.
pub(crate) struct FingerprintHasher {
    seeds: (u64, u64),
    hash: u64,
}

/// 2^64 divided by the golden ratio, as in Fibonacci hashing.
const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

impl Hasher for FingerprintHasher {
    fn write(&mut self, bytes: &[u8]) {
        if let (Some(first), Some(last)) = (bytes.first_chunk(), bytes.last_chunk()) {
            let one = u128::from(u64::from_ne_bytes(*first) ^ self.seeds.0);
            let other = u128::from(u64::from_ne_bytes(*last) ^ self.seeds.1);
            let product = one * other;
            #[expect(clippy::cast_possible_truncation, reason = "the two halves are folded")]
            let folded = (product >> 64) as u64 ^ product as u64;
            let spread = (folded ^ folded >> 32).wrapping_mul(GOLDEN);
            self.hash = spread ^ spread >> 32;
        }
    }

    /// The length, which is always the same.
    fn write_usize(&mut self, _: usize) {}

    fn finish(&self) -> u64 {
        self.hash
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    /// A factor that ends in zeros leaves the lowest bits of the product alike.
    #[test]
    fn a_seed_that_ends_like_the_fingerprints_spreads_them_as_well() {
        let first = u64::from_ne_bytes([7; 8]);
        for zeros in [8, 16, 32, 48] {
            for n in 1..50_u64 {
                let other = n.wrapping_mul(GOLDEN);
                let state = FingerprintState(first ^ other << zeros, other);
                let places = (0..1024_u64).map(|n| {
                    let mut bytes = [7; 16];
                    bytes[8..].copy_from_slice(&n.to_ne_bytes());
                    state.hash_one(Fingerprint::from_bytes(bytes)) & 0x3ff
                });
                let places = places.collect::<HashSet<_>>().len();
                assert!(places > 500, "{zeros} {n}: {places}");
            }
        }
    }

    /// Ids can be tried until their fingerprints begin alike.
    #[test]
    fn nobody_can_choose_fingerprints_that_collide() {
        let alike = |n: u64| {
            let mut bytes = [7; 16];
            bytes[8..].copy_from_slice(&n.to_ne_bytes());
            Fingerprint::from_bytes(bytes)
        };
        let hash = |state: &FingerprintState, n| state.hash_one(alike(n));
        let state = FingerprintState::default();
        // Of some seeds in fifty the product alone is not spread well.
        for _ in 0..500 {
            let state = FingerprintState::default();
            let (mut low, mut high) = (HashSet::new(), HashSet::new());
            for n in 0..1024 {
                low.insert(hash(&state, n) & 0x3ff);
                high.insert(hash(&state, n) >> 57);
            }
            assert!(low.len() > 256 && high.len() > 100, "{} {}", low.len(), high.len());
        }
        let other = FingerprintState::default();
        assert!((0..64).any(|n| hash(&state, n) != hash(&other, n)), "it is seeded");
        let mut positions = FingerprintMap::default();
        positions.extend((0..64).map(|n| (alike(n), n)));
        assert!((0..64).all(|n| positions.get(&alike(n)) == Some(&n)));
    }
}
