//! RSA keys that a faulty library of Infineon has made (ROCA, CVE-2017-15361): their private part
//! can be computed from the public one.

/// The primes by which the fingerprint is tested, as the authors of the attack do it.
const PRIMES: [u32; 38] = [
    3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61, 67, 71, 73, 79, 83, 89, 97,
    101, 103, 107, 109, 113, 127, 131, 137, 139, 149, 151, 157, 163, 167,
];

/// Whether a modulus, big-endian, has the fingerprint: modulo each of these primes it is a power of
/// 65537. Of all other keys one in about 2²⁷ has it by chance, and is refused with them.
pub(super) fn has_fingerprint(modulus: &[u8]) -> bool {
    PRIMES.iter().all(|&prime| {
        let rest = modulus.iter().fold(0, |rest, byte| (rest * 256 + u32::from(*byte)) % prime);
        is_power_of_65537(rest, prime)
    })
}

fn is_power_of_65537(number: u32, prime: u32) -> bool {
    let generator = 65537 % prime;
    let mut power = 1;
    // The powers come back to 1 after fewer steps than the prime.
    for _ in 0..prime {
        if power == number {
            return true;
        }
        power = power * generator % prime;
    }
    false
}
