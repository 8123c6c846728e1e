//! Whether a public key is what it says: a point on its curve, and of an order that is of use.
//!
//! Providers look at a point no earlier than with the first signature, and then refuse every token;
//! or, where the curve is Ed25519 and the order small, accept signatures that anyone can make.

use curve25519_dalek::edwards::CompressedEdwardsY;

use crate::token::Algorithm;

/// Whether this is a point, uncompressed (4, x, y), on the curve of ES256 or ES384.
#[cfg(feature = "aws_lc_rs")]
pub(super) fn is_ec_key(algorithm: Algorithm, point: &[u8]) -> bool {
    use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ParsedPublicKey};

    let curve = if algorithm == Algorithm::ES384 {
        &ECDSA_P384_SHA384_FIXED
    } else {
        &ECDSA_P256_SHA256_FIXED
    };
    ParsedPublicKey::new(curve, point).is_ok()
}

/// Whether this is a point, uncompressed (4, x, y), on the curve of ES256 or ES384.
#[cfg(all(feature = "rust_crypto", not(feature = "aws_lc_rs")))]
pub(super) fn is_ec_key(algorithm: Algorithm, point: &[u8]) -> bool {
    if algorithm == Algorithm::ES384 {
        p384::PublicKey::from_sec1_bytes(point).is_ok()
    } else {
        p256::PublicKey::from_sec1_bytes(point).is_ok()
    }
}

/// Left to the provider of the application, which refuses every signature of such a key.
#[cfg(not(any(feature = "aws_lc_rs", feature = "rust_crypto")))]
pub(super) fn is_ec_key(_: Algorithm, _: &[u8]) -> bool {
    true
}

/// Whether these 32 bytes are a point on Ed25519 in its one encoding (RFC 8032 §5.1.3), and not of
/// small order: for such a key anyone can make signatures.
pub(super) fn is_ed25519_key(encoded: &[u8]) -> bool {
    let point = CompressedEdwardsY::from_slice(encoded).ok().and_then(|y| y.decompress());
    point.is_some_and(|point| point.compress().as_bytes() == encoded && !point.is_small_order())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(text: &str) -> Vec<u8> {
        (0..text.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
            .collect()
    }

    /// The base points of SP 800-186 §3.2.1.3 and §3.2.1.4.
    #[cfg(any(feature = "aws_lc_rs", feature = "rust_crypto"))]
    fn curves() -> [(Algorithm, [Vec<u8>; 2]); 2] {
        let p256 = [
            hex("6b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296"),
            hex("4fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5"),
        ];
        let p384 = [
            hex(concat!(
                "aa87ca22be8b05378eb1c71ef320ad746e1d3b628ba79b98",
                "59f741e082542a385502f25dbf55296c3a545e3872760ab7",
            )),
            hex(concat!(
                "3617de4a96262c6f5d9e98bf9292dc29f8f41dbd289a147c",
                "e9da3113b5f0b8c00a60b1ce1d7e819d7a431d7c90ea0e5f",
            )),
        ];
        [(Algorithm::ES256, p256), (Algorithm::ES384, p384)]
    }

    #[test]
    #[cfg(any(feature = "aws_lc_rs", feature = "rust_crypto"))]
    fn the_base_points_are_on_their_curves_and_their_neighbours_are_not() {
        for (algorithm, [x, y]) in curves() {
            let is_on = |x: &[u8], y: &[u8]| is_ec_key(algorithm, &[&[4], x, y].concat());
            assert!(is_on(&x, &y));
            assert!(!is_on(&y, &x));
            assert!(!is_on(&x[1..], &y) && !is_on(&[], &[]));
            let zero = vec![0; x.len()];
            assert!(!is_on(&zero, &zero), "the point at infinity, as some write it");
            for at in 0..y.len() {
                let mut off = y.clone();
                off[at] ^= 1;
                assert!(!is_on(&x, &off), "byte {at}");
            }
        }
    }

    /// (0, √b) is on P-256. Its x can be written as the prime as well, which is refused.
    #[test]
    #[cfg(any(feature = "aws_lc_rs", feature = "rust_crypto"))]
    fn a_coordinate_has_one_spelling() {
        let root_of_b = hex("66485c780e2f83d72433bd5d84a06bb6541c2af31dae871728bf856a174f93f4");
        let prime = hex("ffffffff00000001000000000000000000000000ffffffffffffffffffffffff");
        let point = |x: &[u8]| [&[4], x, &root_of_b].concat();
        assert!(is_ec_key(Algorithm::ES256, &point(&[0; 32])));
        assert!(!is_ec_key(Algorithm::ES256, &point(&prime)));
    }

    #[test]
    fn half_of_all_encodings_are_points_of_ed25519() {
        // Euler's criterion, computed elsewhere.
        for (y, is_point) in
            [(2, false), (3, true), (4, true), (5, true), (6, true), (7, false), (8, false)]
        {
            let mut encoded = [0; 32];
            encoded[0] = y;
            assert_eq!(is_ed25519_key(&encoded), is_point, "{y}");
            encoded[31] |= 0x80;
            assert_eq!(is_ed25519_key(&encoded), is_point, "{y} with the other sign");
        }
        // RFC 8032 §7.1, tests 1 to 3.
        for key in [
            "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
            "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
            "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        ] {
            assert!(is_ed25519_key(&hex(key)), "{key}");
        }
        assert!(!is_ed25519_key(&[]) && !is_ed25519_key(&[3; 31]) && !is_ed25519_key(&[3; 33]));
    }

    /// The `y` of the points whose order divides 8, the lowest byte first: those that are nothing
    /// but the cofactor.
    const SMALL: [&str; 5] = [
        "0000000000000000000000000000000000000000000000000000000000000000",
        "0100000000000000000000000000000000000000000000000000000000000000",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    ];

    #[test]
    fn points_of_small_order_are_no_keys() {
        for y in SMALL {
            for sign in [0, 0x80] {
                let mut encoded = hex(y);
                encoded[31] |= sign;
                assert!(!is_ed25519_key(&encoded), "{encoded:02x?}");
            }
        }
    }

    /// The numbers from 2²⁵⁵ − 19 on: each is a second spelling of one below 19.
    #[test]
    fn a_point_of_ed25519_has_one_spelling() {
        for above in 0..19_u8 {
            for sign in [0x7f, 0xff] {
                let mut encoded = [0xff; 32];
                encoded[0] = 0xed + above;
                encoded[31] = sign;
                assert!(!is_ed25519_key(&encoded), "{encoded:02x?}");
            }
        }
    }
}
