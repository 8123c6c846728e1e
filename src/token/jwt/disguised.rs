//! Whether what is given as a secret is in truth a key of another kind, most of all a public one:
//! who takes it for the secret of an HMAC lets everyone sign (RFC 8725 §2.1).

use std::borrow::Cow;

use base64::Engine as _;
use base64::alphabet::{STANDARD, URL_SAFE};
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use super::der;

/// Either alphabet of RFC 4648, with or without padding, and with stray bits.
const BASE64: [GeneralPurpose; 2] = {
    let config = GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent);
    [GeneralPurpose::new(&STANDARD, config), GeneralPurpose::new(&URL_SAFE, config)]
};

/// How keys of SSH begin, as text (RFC 4253 §6.6, RFC 5656 §3.1, RFC 8709 §4).
const SSH: [&str; 4] = ["ssh-", "ecdsa-sha2-", "sk-ssh-", "sk-ecdsa-"];

/// What a secret is if it is none; a text that goes after `the key`.
pub(super) fn problem_of(secret: &[u8]) -> Option<&'static str> {
    problem(secret).or_else(|| {
        let text: Vec<u8> =
            text_of(secret).bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
        let decoded = BASE64.iter().find_map(|base64| base64.decode(&text).ok())?;
        problem(&decoded)
    })
}

fn problem(bytes: &[u8]) -> Option<&'static str> {
    let is_der = der::public_key_info(bytes).is_some()
        || der::rsa_public_key(bytes).is_some()
        || der::is_certificate(bytes);
    if is_der {
        return Some("is a public key, not a secret; use the constructor of its kind");
    }
    let text = text_of(bytes);
    if text.contains("-----BEGIN ") || text.contains("---- BEGIN ") {
        return Some("is a PEM file, not a secret; use the constructor of its kind");
    }
    let is_ssh_blob = || match bytes {
        // A length of four bytes, then the name of the algorithm (RFC 4253 §6.6).
        [0, 0, 0, _, rest @ ..] => SSH.iter().any(|name| rest.starts_with(name.as_bytes())),
        _ => false,
    };
    if SSH.iter().any(|name| text.starts_with(name)) || is_ssh_blob() {
        return Some("is a key of SSH, not a secret; write public keys as PEM");
    }
    if text.starts_with('{') {
        let json: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
        if json.get("kty").is_some() || json.get("keys").is_some() {
            return Some(
                "is a JSON Web Key, not a secret; see VerificationKey::from_jwk and \
                 KeySet::from_jwk_set",
            );
        }
    }
    None
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
