//! Whether what is given as a secret is in truth a key of another kind, most of all a public one:
//! who takes it for the secret of an HMAC lets everyone sign (RFC 8725 §2.1).

use std::borrow::Cow;

use base64::Engine as _;
use base64::alphabet::{STANDARD, URL_SAFE};
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde_json::Value;

use super::{curve, der};
use crate::token::Algorithm;

/// Either alphabet of RFC 4648, with or without padding, and with stray bits.
const BASE64: [GeneralPurpose; 2] = {
    let config = GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent);
    [GeneralPurpose::new(&STANDARD, config), GeneralPurpose::new(&URL_SAFE, config)]
};

/// How often one encoding is looked for within another: Secrets of Kubernetes and variables of
/// deployment tools are base64 themselves.
const MAX_ENCODINGS: usize = 3;

/// How keys of SSH begin, as text (RFC 4253 §6.6, RFC 5656 §3.1, RFC 8709 §4).
const SSH: [&str; 4] = ["ssh-", "ecdsa-sha2-", "sk-ssh-", "sk-ecdsa-"];

/// What a secret is if it is none; a text that goes after `the key`.
pub(super) fn problem_of(secret: &[u8]) -> Option<&'static str> {
    problem_within(secret, MAX_ENCODINGS)
}

fn problem_within(bytes: &[u8], encodings: usize) -> Option<&'static str> {
    problem(bytes).or_else(|| {
        let encodings = encodings.checked_sub(1)?;
        // Line breaks as some variables hold them.
        let text = text_of(bytes).replace("\\r", "").replace("\\n", "");
        let text: Vec<u8> = text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
        let base64 = BASE64.iter().find_map(|base64| base64.decode(&text).ok());
        [hex(&text), base64].iter().flatten().find_map(|inner| problem_within(inner, encodings))
    })
}

/// Digits in pairs, which may have colons between them.
fn hex(text: &[u8]) -> Option<Vec<u8>> {
    let digits =
        text.iter().filter(|byte| **byte != b':').map(|byte| char::from(*byte).to_digit(16));
    let digits = digits.collect::<Option<Vec<_>>>()?;
    let bytes = digits.chunks(2).map(|pair| match pair {
        [high, low] => u8::try_from(high * 16 + low).ok(),
        _ => None,
    });
    bytes.collect()
}

fn problem(bytes: &[u8]) -> Option<&'static str> {
    let is_der = der::public_key_info(bytes).is_some()
        || der::rsa_public_key(bytes).is_some()
        || der::is_certificate(bytes);
    if is_der || is_point(bytes) {
        return Some("is a public key, not a secret; use the constructor of its kind");
    }
    let text = text_of(bytes);
    // In URLs the space after it is another character.
    if text.contains("-----BEGIN") || text.contains("---- BEGIN ") {
        return Some("is a PEM file, not a secret; use the constructor of its kind");
    }
    if is_ssh(&text) || is_ssh_blob(bytes) {
        return Some("is a key of SSH, not a secret; write public keys as PEM");
    }
    if ["<RSAKeyValue", "<ECKeyValue", "<ECDSAKeyValue"].iter().any(|start| text.contains(start)) {
        return Some("is a public key in XML, not a secret; write it as PEM");
    }
    if is_jwk(&text) {
        return Some(
            "is a JSON Web Key, not a secret; see VerificationKey::from_jwk and \
             KeySet::from_jwk_set",
        );
    }
    None
}

/// An uncompressed point on P-256 or P-384. Of random bytes hardly any are one.
fn is_point(bytes: &[u8]) -> bool {
    let algorithm = match (bytes.len(), bytes.first()) {
        (65, Some(4)) => Algorithm::ES256,
        (97, Some(4)) => Algorithm::ES384,
        _ => return false,
    };
    curve::is_ec_key(algorithm, bytes)
}

/// A line of `authorized_keys` or `known_hosts`, which may begin with options or hosts.
fn is_ssh(text: &str) -> bool {
    let is_encoded = |word: &str| {
        BASE64.iter().any(|base64| base64.decode(word).is_ok_and(|blob| is_ssh_blob(&blob)))
    };
    SSH.iter().any(|name| text.starts_with(name)) || text.split_whitespace().any(is_encoded)
}

/// A length of four bytes, then the name of the algorithm (RFC 4253 §6.6).
fn is_ssh_blob(bytes: &[u8]) -> bool {
    match bytes {
        [0, 0, 0, _, rest @ ..] => SSH.iter().any(|name| rest.starts_with(name.as_bytes())),
        _ => false,
    }
}

/// A key, a set of them, or an array of them; also as a string that holds JSON.
fn is_jwk(text: &str) -> bool {
    if !text.starts_with(['{', '[']) {
        return false;
    }
    let json: Option<Value> = serde_json::from_str(text)
        .or_else(|_| serde_json::from_str(&text.replace("\\\"", "\"").replace("\\n", "")))
        .ok();
    let is_key = |json: &Value| json.get("kty").is_some() || json.get("keys").is_some();
    match &json {
        Some(Value::Array(members)) => members.iter().any(is_key),
        json => json.as_ref().is_some_and(is_key),
    }
}

/// Text without what editors and shells put around it: white space, quotes, a byte order mark.
/// Empty if it is no text.
fn text_of(bytes: &[u8]) -> Cow<'_, str> {
    let utf16 = |bytes: &[u8], unit: fn([u8; 2]) -> u16| {
        let units: Vec<u16> = bytes.as_chunks().0.iter().copied().map(unit).collect();
        Cow::Owned(String::from_utf16_lossy(&units))
    };
    let text = match bytes {
        // As some shells of Windows write it.
        [0xff, 0xfe, rest @ ..] => utf16(rest, u16::from_le_bytes),
        [0xfe, 0xff, rest @ ..] => utf16(rest, u16::from_be_bytes),
        _ => Cow::Borrowed(std::str::from_utf8(bytes).unwrap_or_default()),
    };
    let is_around = |c: char| c.is_whitespace() || matches!(c, '\u{feff}' | '"' | '\'' | '\0');
    match text {
        Cow::Borrowed(text) => Cow::Borrowed(text.trim_matches(is_around)),
        Cow::Owned(text) => Cow::Owned(text.trim_matches(is_around).to_owned()),
    }
}
