//! Whether a public key is what it says: a point on its curve, and of an order that is of use.
//! Pure.
//!
//! Providers look at a point no earlier than with the first signature, and then refuse every token;
//! or, where the curve is Ed25519 and the order small, accept signatures that anybody can make.
//! Public keys are no secrets, so nothing here takes care to take the same time.

/// A number below 2^(64·N), its least significant part first.
type Number<const N: usize> = [u64; N];

/// The numbers modulo a prime.
struct Field<const N: usize> {
    prime: Number<N>,
}

/// A curve y² = x³ − 3x + b.
struct Weierstrass<const N: usize> {
    field: Field<N>,
    b: Number<N>,
}

/// FIPS 186-5 / SP 800-186 §3.2.1.3.
const P256: Weierstrass<4> = Weierstrass {
    field: Field {
        prime: [0xffff_ffff_ffff_ffff, 0x0000_0000_ffff_ffff, 0, 0xffff_ffff_0000_0001],
    },
    b: [0x3bce_3c3e_27d2_604b, 0x651d_06b0_cc53_b0f6, 0xb3eb_bd55_7698_86bc, 0x5ac6_35d8_aa3a_93e7],
};

/// SP 800-186 §3.2.1.4.
const P384: Weierstrass<6> = Weierstrass {
    field: Field {
        prime: [
            0x0000_0000_ffff_ffff,
            0xffff_ffff_0000_0000,
            0xffff_ffff_ffff_fffe,
            0xffff_ffff_ffff_ffff,
            0xffff_ffff_ffff_ffff,
            0xffff_ffff_ffff_ffff,
        ],
    },
    b: [
        0x2a85_c8ed_d3ec_2aef,
        0xc656_398d_8a2e_d19d,
        0x0314_088f_5013_875a,
        0x181d_9c6e_fe81_4112,
        0x988e_056b_e3f8_2d19,
        0xb331_2fa7_e23e_e7e4,
    ],
};

/// 2²⁵⁵ − 19.
const ED25519: Field<4> = Field {
    prime: [
        0xffff_ffff_ffff_ffed,
        0xffff_ffff_ffff_ffff,
        0xffff_ffff_ffff_ffff,
        0x7fff_ffff_ffff_ffff,
    ],
};

/// The `d` of −x² + y² = 1 + dx²y² (RFC 8032 §5.1).
const ED25519_D: Number<4> =
    [0x75eb_4dca_1359_78a3, 0x0070_0a4d_4141_d8ab, 0x8cc7_4079_7779_e898, 0x5203_6cee_2b6f_fe73];

/// The `y` of the points whose order divides 8: those that are nothing but the cofactor.
const ED25519_SMALL: [Number<4>; 5] = [
    [0, 0, 0, 0],
    [1, 0, 0, 0],
    [0xffff_ffff_ffff_ffec, 0xffff_ffff_ffff_ffff, 0xffff_ffff_ffff_ffff, 0x7fff_ffff_ffff_ffff],
    [0xb027_b2c2_8f95_e826, 0xf098_eff2_89f4_c345, 0x3933_c6d3_05ac_dfd5, 0x05fc_536d_8802_38b1],
    [0x4fd8_4d3d_706a_17c7, 0x0f67_100d_760b_3cba, 0xc6cc_392c_fa53_202a, 0x7a03_ac92_77fd_c74e],
];

/// Whether these are the coordinates of a point on P-256, both big-endian.
pub(super) fn is_on_p256(x: &[u8], y: &[u8]) -> bool {
    P256.has(x, y)
}

/// Whether these are the coordinates of a point on P-384, both big-endian.
pub(super) fn is_on_p384(x: &[u8], y: &[u8]) -> bool {
    P384.has(x, y)
}

/// Whether these 32 bytes are a point on Ed25519 in its one encoding (RFC 8032 §5.1.3), and not of
/// small order: for such a key anybody can make signatures.
pub(super) fn is_ed25519_key(encoded: &[u8]) -> bool {
    let mut bytes = encoded.to_vec();
    bytes.reverse();
    // What is left of the sign of x is not looked at: both signs are points, or neither is.
    if let Some(highest) = bytes.first_mut() {
        *highest &= 0x7f;
    }
    let Some(y) = number::<4>(&bytes).filter(|y| ED25519.holds(y)) else { return false };
    if ED25519_SMALL.contains(&y) {
        return false;
    }
    // x² = (y² − 1) / (dy² + 1) is the square of something if the product of the two is: it is
    // their quotient times a square.
    let square = ED25519.mul(&y, &y);
    let above = ED25519.sub(&square, &one());
    let below = ED25519.add(&ED25519.mul(&ED25519_D, &square), &one());
    ED25519.is_square(&ED25519.mul(&above, &below))
}

impl<const N: usize> Weierstrass<N> {
    fn has(&self, x: &[u8], y: &[u8]) -> bool {
        let Self { field, b } = self;
        let (Some(x), Some(y)) = (number::<N>(x), number::<N>(y)) else { return false };
        if !field.holds(&x) || !field.holds(&y) {
            return false;
        }
        let three_x = field.add(&field.add(&x, &x), &x);
        let cube = field.mul(&field.mul(&x, &x), &x);
        field.mul(&y, &y) == field.add(&field.sub(&cube, &three_x), b)
    }
}

impl<const N: usize> Field<N> {
    fn holds(&self, number: &Number<N>) -> bool {
        is_less(number, &self.prime)
    }

    fn add(&self, one: &Number<N>, other: &Number<N>) -> Number<N> {
        let (sum, carry) = add(one, other);
        let (reduced, borrow) = sub(&sum, &self.prime);
        if carry || !borrow { reduced } else { sum }
    }

    fn sub(&self, one: &Number<N>, other: &Number<N>) -> Number<N> {
        let (difference, borrow) = sub(one, other);
        if borrow { add(&difference, &self.prime).0 } else { difference }
    }

    /// Bit by bit: there are not ten products in the life of a key.
    fn mul(&self, one: &Number<N>, other: &Number<N>) -> Number<N> {
        let mut product = [0; N];
        for part in one.iter().rev() {
            for bit in (0..64).rev() {
                product = self.add(&product, &product);
                if part >> bit & 1 == 1 {
                    product = self.add(&product, other);
                }
            }
        }
        product
    }

    /// Whether it is the square of something other than zero: the Jacobi symbol, by quadratic
    /// reciprocity.
    fn is_square(&self, number: &Number<N>) -> bool {
        let (mut number, mut modulus, mut is_square) = (*number, self.prime, true);
        while number != [0; N] {
            while lowest(&number).is_multiple_of(2) {
                number = halved(&number);
                is_square ^= matches!(lowest(&modulus) % 8, 3 | 5);
            }
            if is_less(&number, &modulus) {
                is_square ^= lowest(&number) % 4 == 3 && lowest(&modulus) % 4 == 3;
                (number, modulus) = (modulus, number);
            }
            number = sub(&number, &modulus).0;
        }
        is_square && modulus == one()
    }
}

/// The number that is written in these bytes, big-endian and of full length.
fn number<const N: usize>(bytes: &[u8]) -> Option<Number<N>> {
    let mut number = [0; N];
    if bytes.len() != N * 8 {
        return None;
    }
    for (part, bytes) in number.iter_mut().rev().zip(bytes.chunks_exact(8)) {
        *part = u64::from_be_bytes(bytes.try_into().ok()?);
    }
    Some(number)
}

fn one<const N: usize>() -> Number<N> {
    let mut one = [0; N];
    one.iter_mut().take(1).for_each(|lowest| *lowest = 1);
    one
}

fn lowest<const N: usize>(number: &Number<N>) -> u64 {
    number.first().copied().unwrap_or_default()
}

fn is_less<const N: usize>(one: &Number<N>, other: &Number<N>) -> bool {
    one.iter().rev().lt(other.iter().rev())
}

/// The sum, and whether it is too large by one bit.
fn add<const N: usize>(one: &Number<N>, other: &Number<N>) -> (Number<N>, bool) {
    let mut carry = false;
    let mut sum = *one;
    for (part, other) in sum.iter_mut().zip(other) {
        let (added, over) = part.overflowing_add(*other);
        let (added, over_again) = added.overflowing_add(u64::from(carry));
        (*part, carry) = (added, over || over_again);
    }
    (sum, carry)
}

/// The difference, and whether it is below zero.
fn sub<const N: usize>(one: &Number<N>, other: &Number<N>) -> (Number<N>, bool) {
    let mut borrow = false;
    let mut difference = *one;
    for (part, other) in difference.iter_mut().zip(other) {
        let (taken, under) = part.overflowing_sub(*other);
        let (taken, under_again) = taken.overflowing_sub(u64::from(borrow));
        (*part, borrow) = (taken, under || under_again);
    }
    (difference, borrow)
}

fn halved<const N: usize>(number: &Number<N>) -> Number<N> {
    let mut carry = 0;
    let mut half = *number;
    for part in half.iter_mut().rev() {
        (*part, carry) = (*part >> 1 | carry << 63, *part & 1);
    }
    half
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

    fn turned<const N: usize>(number: &Number<N>) -> Vec<u8> {
        number.iter().flat_map(|part| part.to_le_bytes()).collect()
    }

    #[test]
    fn the_base_points_are_on_their_curves_and_their_neighbours_are_not() {
        // SP 800-186 §3.2.1.3 and §3.2.1.4.
        let p256 = (
            hex("6b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296"),
            hex("4fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5"),
        );
        let p384 = (
            hex(
                "aa87ca22be8b05378eb1c71ef320ad746e1d3b628ba79b9859f741e082542a385502f25dbf55296c3a545e3872760ab7",
            ),
            hex(
                "3617de4a96262c6f5d9e98bf9292dc29f8f41dbd289a147ce9da3113b5f0b8c00a60b1ce1d7e819d7a431d7c90ea0e5f",
            ),
        );
        for (is_on, (x, y)) in [(is_on_p256 as fn(&[u8], &[u8]) -> bool, p256), (is_on_p384, p384)]
        {
            assert!(is_on(&x, &y));
            assert!(!is_on(&y, &x));
            assert!(!is_on(&x[1..], &y) && !is_on(&[], &[]));
            assert!(
                !is_on(&vec![0; x.len()], &vec![0; y.len()]),
                "the point at infinity, as some write it"
            );
            for at in 0..y.len() {
                let mut off = y.clone();
                off[at] ^= 1;
                assert!(!is_on(&x, &off), "byte {at}");
            }
        }
    }

    #[test]
    fn a_coordinate_has_one_spelling() {
        let field = &P256.field;
        assert!(field.holds(&sub(&field.prime, &one()).0));
        assert!(!field.holds(&field.prime) && !field.holds(&add(&field.prime, &one()).0));
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
    }

    #[test]
    fn points_of_small_order_are_no_keys() {
        for y in &ED25519_SMALL {
            for sign in [0, 0x80] {
                let mut encoded = turned(y);
                encoded[31] |= sign;
                assert!(!is_ed25519_key(&encoded), "{encoded:02x?}");
            }
        }
        // The same ones and others, written beyond the prime.
        for y in 0..19_u64 {
            let encoded = turned(&add(&ED25519.prime, &[y, 0, 0, 0]).0);
            assert!(!is_ed25519_key(&encoded), "{encoded:02x?}");
        }
    }

    #[test]
    fn small_order_is_what_it_says() {
        let field = &ED25519;
        for y in &ED25519_SMALL[3..] {
            // The double of a point of order 8 has order 4: its y is zero, so y² = −x².
            let t = field.mul(y, y);
            let above = field.sub(&t, &one());
            let below = field.add(&field.mul(&ED25519_D, &t), &one());
            // y² + x² = 0, times the denominator.
            assert_eq!(field.add(&field.mul(&t, &below), &above), [0; 4]);
        }
    }
}
