//! The few forms of DER and PEM in which keys are written: RFC 8017 §A.1 (RSA), RFC 5915 (EC), RFC
//! 5280 §4.1.2.7 and RFC 8410 (public keys), RFC 5958 (private keys of any kind).
//!
//! They are read here, so that a key has one meaning whatever provider checks the signatures: each
//! provider, and each constructor of jsonwebtoken, accepts a different choice of these forms.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use pkcs1::RsaPublicKey;
use spki::der::asn1::{AnyRef, BitStringRef, UintRef};
use spki::der::{Decode as _, Reader as _, SliceReader, Tag, Tagged as _};
use spki::{AlgorithmIdentifierRef, ObjectIdentifier, SubjectPublicKeyInfoRef};

pub(crate) const RSA_ENCRYPTION: ObjectIdentifier = pkcs1::ALGORITHM_OID;
/// RFC 5480 §2.1.1.
pub(crate) const EC_PUBLIC_KEY: ObjectIdentifier =
    ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
/// RFC 5480 §2.1.1.1.
pub(crate) const P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
/// RFC 5480 §2.1.1.1.
pub(crate) const P384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");
/// RFC 8410 §3.
pub(crate) const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");

/// What a `SubjectPublicKeyInfo` and a `PrivateKeyInfo` hold.
pub(crate) struct KeyInfo<'a> {
    pub(crate) algorithm: ObjectIdentifier,
    pub(crate) curve: Option<ObjectIdentifier>,
    pub(crate) key: &'a [u8],
}

/// A `SubjectPublicKeyInfo`.
pub(crate) fn public_key_info(der: &[u8]) -> Option<KeyInfo<'_>> {
    let info = SubjectPublicKeyInfoRef::from_der(der).ok()?;
    Some(KeyInfo {
        algorithm: info.algorithm.oid,
        curve: info.algorithm.parameters_oid().ok(),
        key: info.subject_public_key.as_bytes()?,
    })
}

/// Modulus and exponent of an `RSAPublicKey`, without leading zeros.
pub(crate) fn rsa_public_key(der: &[u8]) -> Option<(&[u8], &[u8])> {
    let key: RsaPublicKey<UintRef<'_>> = RsaPublicKey::from_der(der).ok()?;
    Some((key.modulus.as_bytes(), key.public_exponent.as_bytes()))
}

/// Whether this is a certificate (RFC 5280 §4.1).
pub(crate) fn is_certificate(der: &[u8]) -> bool {
    let Ok(mut outer) = SliceReader::new(der) else { return false };
    let read = outer.sequence(|certificate| {
        let signed: AnyRef<'_> = certificate.decode()?;
        let _algorithm: AlgorithmIdentifierRef<'_> = certificate.decode()?;
        let _signature: BitStringRef<'_> = certificate.decode()?;
        Ok::<_, spki::der::Error>(signed.tag() == Tag::Sequence)
    });
    read.unwrap_or(false) && outer.is_finished()
}

pub(crate) fn without_leading_zeros(bytes: &[u8]) -> &[u8] {
    let zeros = bytes.iter().take_while(|&&byte| byte == 0).count();
    bytes.get(zeros..).unwrap_or_default()
}

/// The label and the content of the one block in a PEM text (RFC 7468). Line breaks do not matter:
/// keys come through environment variables, which some tools write into one line.
pub(crate) fn pem(text: &[u8]) -> Option<(&str, Vec<u8>)> {
    let text = std::str::from_utf8(text).ok()?;
    let (_, text) = text.split_once("-----BEGIN ")?;
    let (label, text) = text.split_once("-----")?;
    let (body, rest) = text.split_once("-----END ")?;
    let rest = rest.strip_prefix(label)?.strip_prefix("-----")?;
    if rest.contains("-----BEGIN ") {
        return None;
    }
    let body: String = body.split_ascii_whitespace().collect();
    Some((label, STANDARD.decode(body).ok()?))
}

#[cfg(feature = "issuer")]
pub(super) use private::{
    ec_pkcs8, ed_pkcs8, ed_seed, private_key_info, rsa_pkcs1, rsa_private_key,
};

/// Keys that sign.
#[cfg(feature = "issuer")]
mod private {
    use pkcs1::RsaPrivateKey;
    use pkcs8::{AlgorithmIdentifierRef, PrivateKeyInfoRef};
    use sec1::EcPrivateKey;
    use spki::der::asn1::{AnyRef, OctetStringRef, UintRef};
    use spki::der::{Decode as _, Encode as _, Reader as _, SliceReader};

    use super::{EC_PUBLIC_KEY, ED25519, KeyInfo, ObjectIdentifier};

    /// A `PrivateKeyInfo` (PKCS#8), version 1 or 2. What follows the key is skipped: ring writes
    /// the public part of Ed25519 keys in a form that `pkcs8` refuses.
    pub(in crate::token::jwt) fn private_key_info(der: &[u8]) -> Option<KeyInfo<'_>> {
        let mut outer = SliceReader::new(der).ok()?;
        let info = outer
            .sequence(|info| {
                let _version: u8 = info.decode()?;
                let id: AlgorithmIdentifierRef<'_> = info.decode()?;
                let key: &OctetStringRef = info.decode()?;
                while !info.is_finished() {
                    info.decode::<AnyRef<'_>>()?;
                }
                let curve = id.parameters_oid().ok();
                Ok::<_, spki::der::Error>(KeyInfo { algorithm: id.oid, curve, key: key.as_bytes() })
            })
            .ok()?;
        outer.finish().ok()?;
        Some(info)
    }

    /// Modulus and public exponent of an `RSAPrivateKey` (RFC 8017 §A.1.2).
    pub(in crate::token::jwt) fn rsa_private_key(der: &[u8]) -> Option<(&[u8], &[u8])> {
        let key: RsaPrivateKey<UintRef<'_>> = RsaPrivateKey::from_der(der).ok()?;
        Some((key.modulus.as_bytes(), key.public_exponent.as_bytes()))
    }

    /// An `RSAPrivateKey` of these numbers: n, e, d, p, q, dp, dq, qi.
    pub(in crate::token::jwt) fn rsa_pkcs1(numbers: &[Vec<u8>; 8]) -> Option<Vec<u8>> {
        let [
            modulus,
            public_exponent,
            private_exponent,
            prime1,
            prime2,
            exponent1,
            exponent2,
            last,
        ] = numbers.each_ref().map(|number| UintRef::new(number).ok());
        let key = RsaPrivateKey {
            modulus: modulus?,
            public_exponent: public_exponent?,
            private_exponent: private_exponent?,
            prime1: prime1?,
            prime2: prime2?,
            exponent1: exponent1?,
            exponent2: exponent2?,
            coefficient: last?,
            other_prime_infos: None,
        };
        key.to_der().ok()
    }

    /// The PKCS#8 form of an EC key, given as an `ECPrivateKey` (RFC 5915) or as its parts: the
    /// secret and the uncompressed point.
    pub(in crate::token::jwt) fn ec_pkcs8(
        curve: ObjectIdentifier,
        key: Result<&[u8], (&[u8], &[u8])>,
    ) -> Option<Vec<u8>> {
        let key = match key {
            Ok(der) => EcPrivateKey::from_der(der).ok()?,
            Err((secret, point)) => {
                EcPrivateKey { private_key: secret, parameters: None, public_key: Some(point) }
            }
        };
        pkcs8(EC_PUBLIC_KEY, Some(&curve), &key.to_der().ok()?)
    }

    /// The seed in the `PrivateKeyInfo` of an Ed25519 key (RFC 8410 §7).
    pub(in crate::token::jwt) fn ed_seed(key: &[u8]) -> Option<&[u8]> {
        Some(<&OctetStringRef>::from_der(key).ok()?.as_bytes())
    }

    /// The PKCS#8 form of an Ed25519 key, version 1: not every provider reads version 2.
    pub(in crate::token::jwt) fn ed_pkcs8(seed: &[u8]) -> Option<Vec<u8>> {
        pkcs8(ED25519, None, &OctetStringRef::new(seed).ok()?.to_der().ok()?)
    }

    fn pkcs8(
        oid: ObjectIdentifier,
        curve: Option<&ObjectIdentifier>,
        key: &[u8],
    ) -> Option<Vec<u8>> {
        let algorithm = AlgorithmIdentifierRef { oid, parameters: curve.map(AnyRef::from) };
        PrivateKeyInfoRef::new(algorithm, OctetStringRef::new(key).ok()?).to_der().ok()
    }
}
