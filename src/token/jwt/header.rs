//! The shape of a token and its header: what is read before the signature is checked, so as little
//! as can be.

use std::borrow::Cow;
use std::fmt;
#[cfg(any(target_arch = "x86_64", all(target_arch = "aarch64", target_feature = "neon")))]
use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
#[cfg(any(target_arch = "x86_64", all(target_arch = "aarch64", target_feature = "neon")))]
use base64::engine::{Simd, general_purpose::NO_PAD};
use serde::de::{Deserialize, Deserializer, Error as _, IgnoredAny, MapAccess, Visitor};

use crate::token::{TokenError, TokenErrorKind, bearer};

/// A JWS in compact form (RFC 7515 §7.1), cut into its parts.
pub(crate) struct TokenParts<'a> {
    pub(crate) header: &'a str,
    pub(crate) payload: &'a str,
    pub(crate) signature: &'a str,
    /// Header and payload with the point between them.
    pub(crate) signing_input: &'a str,
}

impl<'a> TokenParts<'a> {
    /// The parts of a token of bounded length, and its decoded header.
    pub(crate) fn within(max_bytes: usize, token: &'a str) -> Result<(Self, Vec<u8>), TokenError> {
        if token.len() > max_bytes {
            return Err(TokenError::too_long());
        }
        let parts = Self::of(token)?;
        // It is read before the signature is checked, so it must not be most of the token.
        if parts.header.len() > max_bytes / 2 {
            return Err(TokenError::new(
                TokenErrorKind::TooLong,
                "the header of the token is longer than half of the longest token; see \
                 TokenProfile::with_max_token_bytes",
            ));
        }
        let json = base64(parts.header);
        Ok((parts, json.ok_or_else(|| malformed("the header of the token is not base64url"))?))
    }

    /// The decoded claims.
    pub(crate) fn claims(&self) -> Result<Vec<u8>, TokenError> {
        base64(self.payload).ok_or_else(|| malformed("the claims are not base64url"))
    }

    /// The same, once the signature has been checked.
    pub(crate) fn signed_claims(&self) -> Result<Vec<u8>, TokenError> {
        signed_base64(self.payload).ok_or_else(|| malformed("the claims are not base64url"))
    }

    pub(crate) fn of(token: &'a str) -> Result<Self, TokenError> {
        // Counted first: it takes the least, and shows what was never meant to be a token.
        expect_three_parts(token.as_bytes())?;
        if !bearer::all(token.as_bytes(), is_in_alphabet) {
            return Err(malformed("the token has a character that no token has"));
        }
        let (signing_input, signature) = token.rsplit_once('.').ok_or_else(no_three_parts)?;
        let (header, payload) = signing_input.split_once('.').ok_or_else(no_three_parts)?;
        Ok(Self { header, payload, signature, signing_input })
    }
}

/// Whatever else it is, a token has two points.
pub(super) fn expect_three_parts(token: &[u8]) -> Result<(), TokenError> {
    // So few bytes at a time that a byte can count them: many are compared at once.
    let points_in = |piece: &[u8]| piece.iter().fold(0, |sum, byte| sum + u8::from(*byte == b'.'));
    let points: usize = token.chunks(240).map(|piece| usize::from(points_in(piece))).sum();
    if points == 2 { Ok(()) } else { Err(no_three_parts()) }
}

fn no_three_parts() -> TokenError {
    malformed("the token does not have three parts")
}

/// The members of a header that are read. Keys that a token brings along (`jwk`, `jku`, `x5c`,
/// `x5u`) are not.
#[derive(Default)]
pub(crate) struct TokenHeader<'a> {
    pub(crate) alg: Cow<'a, str>,
    pub(crate) kid: Option<Cow<'a, str>>,
    pub(crate) typ: Option<Cow<'a, str>>,
}

impl<'a> TokenHeader<'a> {
    /// `json` is the decoded header.
    pub(crate) fn parse(json: &'a [u8]) -> Result<Self, TokenError> {
        // The cause is dropped: its text may quote the header.
        let odd = || {
            malformed("the header of the token is not a JSON object with `alg`, or says it twice")
        };
        // All of it, as JSON must be: what is skipped is not looked at otherwise.
        let json = std::str::from_utf8(json).map_err(|_| odd())?;
        let read: Read<'a> = serde_json::from_str(json).map_err(|_| odd())?;
        if read.is_unsupported {
            return Err(TokenError::new(
                TokenErrorKind::UnsupportedHeader,
                "the header of the token has `crit`, `b64`, `zip` or `enc`, none of which is \
                 supported",
            ));
        }
        if read.header.alg.is_empty() {
            return Err(malformed("the header of the token has no `alg`"));
        }
        Ok(read.header)
    }
}

/// Base64url and the point (RFC 7515 §7.1).
#[inline]
const fn is_in_alphabet(byte: u8) -> bool {
    (byte | 0x20).is_ascii_lowercase() | byte.is_ascii_digit() | matches!(byte, b'-' | b'_' | b'.')
}

/// Strict: no padding, no stray bits at the end, nothing but the alphabet (RFC 7515 §2).
pub(crate) fn base64(text: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text).ok()
}

/// The same, many characters at a time where the processor can. The code that does so is young and
/// has `unsafe` in it, so it is shown nothing but what a trusted key has signed.
#[cfg(any(target_arch = "x86_64", all(target_arch = "aarch64", target_feature = "neon")))]
pub(crate) fn signed_base64(text: &str) -> Option<Vec<u8>> {
    static ENGINE: LazyLock<Simd> = LazyLock::new(|| Simd::url_safe(NO_PAD));
    ENGINE.decode(text).ok()
}

#[cfg(not(any(target_arch = "x86_64", all(target_arch = "aarch64", target_feature = "neon"))))]
pub(crate) fn signed_base64(text: &str) -> Option<Vec<u8>> {
    base64(text)
}

pub(crate) fn malformed(detail: &'static str) -> TokenError {
    TokenError::new(TokenErrorKind::Malformed, detail)
}

#[derive(Default)]
struct Read<'a> {
    header: TokenHeader<'a>,
    is_unsupported: bool,
}

impl<'a> Deserialize<'a> for Read<'a> {
    fn deserialize<D: Deserializer<'a>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(HeaderVisitor)
    }
}

struct HeaderVisitor;

impl<'a> Visitor<'a> for HeaderVisitor {
    type Value = Read<'a>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<Read<'a>, A::Error> {
        let mut read = Read::default();
        let (mut alg, mut kid, mut typ) = (None, None, None);
        while let Some(Text(name)) = map.next_key()? {
            let member = match &*name {
                "alg" => &mut alg,
                "kid" => &mut kid,
                "typ" => &mut typ,
                other => {
                    read.is_unsupported |= matches!(other, "crit" | "b64" | "zip" | "enc");
                    map.next_value::<IgnoredAny>()?;
                    continue;
                }
            };
            let Text(value) = map.next_value()?;
            if member.replace(value).is_some() {
                return Err(A::Error::custom("twice"));
            }
        }
        read.header = TokenHeader { alg: alg.unwrap_or_default(), kid, typ };
        Ok(read)
    }
}

/// A string, borrowed unless it holds an escape.
struct Text<'a>(Cow<'a, str>);

impl<'a> Deserialize<'a> for Text<'a> {
    fn deserialize<D: Deserializer<'a>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(TextVisitor)
    }
}

struct TextVisitor;

impl<'a> Visitor<'a> for TextVisitor {
    type Value = Text<'a>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_borrowed_str<E>(self, text: &'a str) -> Result<Text<'a>, E> {
        Ok(Text(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Text<'a>, E> {
        Ok(Text(Cow::Owned(text.to_owned())))
    }
}
