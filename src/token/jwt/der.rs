//! The few forms of DER and PEM in which keys are written: RFC 8017 §A.1 (RSA), RFC 5915 (EC), RFC
//! 5280 §4.1.2.7 and RFC 8410 (public keys), RFC 5958 (private keys of any kind).
//!
//! Written here, so that a key has one meaning whatever provider checks the signatures: each
//! provider, and each constructor of jsonwebtoken, accepts a different choice of these forms.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

pub(crate) const INTEGER: u8 = 0x02;
pub(crate) const BIT_STRING: u8 = 0x03;
#[cfg(feature = "issuer")]
pub(crate) const OCTET_STRING: u8 = 0x04;
pub(crate) const OBJECT_ID: u8 = 0x06;
pub(crate) const SEQUENCE: u8 = 0x30;

pub(crate) const RSA_ENCRYPTION: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];
pub(crate) const EC_PUBLIC_KEY: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
pub(crate) const P256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
pub(crate) const P384: &[u8] = &[0x2b, 0x81, 0x04, 0x00, 0x22];
pub(crate) const ED25519: &[u8] = &[0x2b, 0x65, 0x70];

/// Reads one element after the other.
#[derive(Clone, Copy)]
pub(crate) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn new(der: &'a [u8]) -> Self {
        Self(der)
    }

    /// The content of the next element, if it has this tag.
    pub(crate) fn element(&mut self, tag: u8) -> Option<&'a [u8]> {
        let (&found, rest) = self.0.split_first()?;
        let (&first, mut rest) = rest.split_first()?;
        let mut len = usize::from(first);
        if first > 0x80 {
            let (bytes, after) =
                rest.split_at_checked(usize::from(first & 0x7f)).filter(|(b, _)| b.len() <= 3)?;
            len = bytes.iter().fold(0, |len, &byte| len << 8 | usize::from(byte));
            rest = after;
        } else if first == 0x80 {
            return None;
        }
        let (content, rest) = rest.split_at_checked(len)?;
        (found == tag).then(|| self.0 = rest)?;
        Some(content)
    }

    pub(crate) fn sequence(&mut self) -> Option<Self> {
        self.element(SEQUENCE).map(Self)
    }

    /// An integer that is not negative, without leading zeros.
    pub(crate) fn unsigned(&mut self) -> Option<&'a [u8]> {
        let bytes = self.element(INTEGER)?;
        (bytes.first()? & 0x80 == 0).then(|| without_leading_zeros(bytes))
    }

    pub(crate) fn bits(&mut self) -> Option<&'a [u8]> {
        self.element(BIT_STRING)?.strip_prefix(&[0])
    }

    pub(crate) fn is_empty(self) -> bool {
        self.0.is_empty()
    }
}

pub(crate) fn without_leading_zeros(bytes: &[u8]) -> &[u8] {
    let zeros = bytes.iter().take_while(|&&byte| byte == 0).count();
    bytes.get(zeros..).unwrap_or_default()
}

/// What a `SubjectPublicKeyInfo` and a `PrivateKeyInfo` hold.
pub(crate) struct KeyInfo<'a> {
    pub(crate) algorithm: &'a [u8],
    pub(crate) curve: Option<&'a [u8]>,
    pub(crate) key: &'a [u8],
}

/// A `SubjectPublicKeyInfo`.
pub(crate) fn public_key_info(der: &[u8]) -> Option<KeyInfo<'_>> {
    let mut outer = Reader::new(der);
    let mut info = outer.sequence()?;
    let mut id = info.sequence()?;
    let algorithm = id.element(OBJECT_ID)?;
    let curve = id.element(OBJECT_ID);
    let key = info.bits()?;
    (outer.is_empty() && info.is_empty()).then_some(KeyInfo { algorithm, curve, key })
}

/// Modulus and exponent of an `RSAPublicKey`.
pub(crate) fn rsa_public_key(der: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut outer = Reader::new(der);
    let mut key = outer.sequence()?;
    let (modulus, exponent) = (key.unsigned()?, key.unsigned()?);
    (outer.is_empty() && key.is_empty()).then_some((modulus, exponent))
}

/// A `PrivateKeyInfo` (PKCS#8), version 1 or 2.
#[cfg(feature = "issuer")]
pub(crate) fn private_key_info(der: &[u8]) -> Option<KeyInfo<'_>> {
    let mut outer = Reader::new(der);
    let mut info = outer.sequence()?;
    info.unsigned()?;
    let mut id = info.sequence()?;
    let algorithm = id.element(OBJECT_ID)?;
    let curve = id.element(OBJECT_ID);
    let key = info.element(OCTET_STRING)?;
    outer.is_empty().then_some(KeyInfo { algorithm, curve, key })
}

/// One element.
#[cfg(feature = "issuer")]
pub(crate) fn write(tag: u8, content: &[&[u8]]) -> Vec<u8> {
    let content = content.concat();
    let len = content.len().to_be_bytes();
    let len = without_leading_zeros(&len);
    let mut der = vec![tag];
    match (content.len(), u8::try_from(len.len())) {
        (0..=0x7f, _) | (_, Err(_)) => der.push(len.first().copied().unwrap_or(0)),
        (_, Ok(bytes)) => {
            der.push(0x80 | bytes);
            der.extend_from_slice(len);
        }
    }
    der.extend_from_slice(&content);
    der
}

/// An integer that is not negative.
#[cfg(feature = "issuer")]
pub(crate) fn write_unsigned(number: &[u8]) -> Vec<u8> {
    let number = without_leading_zeros(number);
    // The first bit is the sign.
    let pad: &[u8] = if number.first().is_none_or(|first| first & 0x80 != 0) { &[0] } else { &[] };
    write(INTEGER, &[pad, number])
}

/// The label and the content of the one block in a PEM text (RFC 7468).
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
