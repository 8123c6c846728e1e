//! The opaque refresh token: `family.secret`.
//!
//! The part after the point is base64url of
//!
//! | bytes | what |
//! | --- | --- |
//! | 1 | version, 1 |
//! | 4 | generation: how many tokens of the family came before |
//! | 32 | the secret |
//! | 16 | a mark, HMAC-SHA256 with the key of the family over all of the above |
//!
//! The store holds SHA-256 of the secret and, for the window of a retry, the salt by which HKDF
//! (RFC 5869) makes the successor out of the *presented* secret: nothing in the store can be
//! presented. The mark tells a used token, which is evidence of a theft, from garbage that names
//! the family, which must not hurt it, without keeping the hashes of all tokens ever issued.
//! A reader of the store can forge marks, which ends families and lets nobody in.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hkdf::Hkdf;
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest as _, Sha256};

use crate::store::{StoreError, StoreErrorKind};

const VERSION: u8 = 1;
const SECRET_BYTES: usize = 32;
const MARK_BYTES: usize = 16;
const BYTES: usize = 1 + 4 + SECRET_BYTES + MARK_BYTES;
/// Family ids longer than this are not ours.
const MAX_FAMILY_BYTES: usize = 128;
const INFO: &[u8] = b"tower-jwt-revocation refresh token successor v1";

/// A refresh token, for its owner alone. `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct RefreshToken(Box<str>);

impl RefreshToken {
    /// The token itself: a secret, for the answer to the client and for nothing else.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for RefreshToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RefreshToken(..)")
    }
}

/// A token taken apart. Nothing about it is known to be true until a [`FamilyKey`] has looked at
/// it.
pub(super) struct ParsedToken<'a> {
    pub(super) family: &'a str,
    text: &'a str,
    generation: u32,
    secret: TokenSecret,
    mark: [u8; MARK_BYTES],
}

impl<'a> ParsedToken<'a> {
    /// Takes a token apart, if it can be one.
    pub(super) fn parse(token: &'a str) -> Option<Self> {
        let (family, rest) = token.split_once('.')?;
        if !is_family_id(family) {
            return None;
        }
        let mut bytes = [0; BYTES];
        // The decoder is strict about padding and trailing bits, so a token has one spelling.
        let length = URL_SAFE_NO_PAD.decode_slice(rest, &mut bytes).ok()?;
        let (version, rest) = bytes.split_first()?;
        let (generation, rest) = rest.split_first_chunk()?;
        let (secret, mark) = rest.split_first_chunk()?;
        (length == BYTES && *version == VERSION).then_some(Self {
            family,
            text: token,
            generation: u32::from_be_bytes(*generation),
            secret: TokenSecret(*secret),
            mark: mark.try_into().ok()?,
        })
    }

    /// The token as it was presented.
    pub(super) fn token(&self) -> RefreshToken {
        RefreshToken(self.text.into())
    }

    pub(super) fn generation(&self) -> u32 {
        self.generation
    }

    pub(super) fn secret(&self) -> &TokenSecret {
        &self.secret
    }

    /// Whether the token was issued for the family whose key this is.
    pub(super) fn origin(&self, key: &FamilyKey) -> TokenOrigin {
        let mac = key.mac(self.family, self.generation, &self.secret);
        if *key == FamilyKey::unused() {
            return TokenOrigin::Foreign;
        }
        match mac.verify_truncated_left(&self.mark) {
            Ok(()) => TokenOrigin::Generation(self.generation),
            Err(_) => TokenOrigin::Foreign,
        }
    }
}

/// Whether this can be the id of a family: base64url letters, so that the first point of a token
/// ends it.
pub(super) fn is_family_id(id: &str) -> bool {
    (1..=MAX_FAMILY_BYTES).contains(&id.len())
        && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}

/// What is known of the origin of a presented token, whatever has become of it since.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TokenOrigin {
    /// It was not issued for this family.
    Foreign,
    /// It was, as a token of this generation.
    Generation(u32),
    /// It was; the application has checked its signature.
    Vouched,
}

/// The part of a token that only its owner knows.
#[derive(Clone)]
pub(super) struct TokenSecret([u8; SECRET_BYTES]);

impl TokenSecret {
    pub(super) fn random() -> Result<Self, StoreError> {
        random().map(Self)
    }

    pub(super) fn digest(&self) -> TokenDigest {
        TokenDigest::of(&self.0)
    }

    /// The secret that replaces this one. The same secret and salt always give the same successor.
    pub(super) fn successor(&self, family: &str, generation: u32, salt: &str) -> Self {
        let mut okm = [0; SECRET_BYTES];
        let hkdf = Hkdf::<Sha256>::new(Some(salt.as_bytes()), &self.0);
        let info: [&[u8]; 4] = [INFO, &generation.to_be_bytes(), &[0], family.as_bytes()];
        // HKDF refuses only outputs of more than 255 hashes.
        let _: Result<(), _> = hkdf.expand_multi_info(&info, &mut okm);
        Self(okm)
    }

    /// The token that carries this secret.
    pub(super) fn into_token(self, family: &str, generation: u32, key: &FamilyKey) -> RefreshToken {
        let mark = key.mac(family, generation, &self).finalize().into_bytes();
        let mut bytes = Vec::with_capacity(BYTES);
        bytes.push(VERSION);
        bytes.extend_from_slice(&generation.to_be_bytes());
        bytes.extend_from_slice(&self.0);
        bytes.extend(mark.iter().take(MARK_BYTES));
        let mut text = format!("{family}.");
        URL_SAFE_NO_PAD.encode_string(bytes, &mut text);
        RefreshToken(text.into())
    }
}

/// The key by which a family knows its own tokens, as a store keeps it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct FamilyKey([u8; 16]);

impl FamilyKey {
    pub(super) fn random() -> Result<Self, StoreError> {
        random().map(Self)
    }

    /// For families of ids, which are known by the signature of the application.
    pub(super) const fn unused() -> Self {
        Self([0; 16])
    }

    fn mac(&self, family: &str, generation: u32, secret: &TokenSecret) -> Hmac<Sha256> {
        let mut mac = Hmac::<Sha256>::new(&self.padded());
        mac.update(&[VERSION]);
        mac.update(&generation.to_be_bytes());
        mac.update(&secret.0);
        mac.update(family.as_bytes());
        mac
    }

    /// The key as HMAC would pad it itself (RFC 2104 §2), which makes its construction infallible.
    fn padded(&self) -> hmac::digest::Key<Hmac<Sha256>> {
        let mut padded = hmac::digest::Key::<Hmac<Sha256>>::default();
        padded.iter_mut().zip(self.0).for_each(|(to, from)| *to = from);
        padded
    }
}

impl fmt::Debug for FamilyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FamilyKey(..)")
    }
}

/// SHA-256 of a secret or an id.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct TokenDigest([u8; 32]);

impl TokenDigest {
    pub(super) fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }
}

impl fmt::Debug for TokenDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenDigest(..)")
    }
}

macro_rules! serde_as_base64 {
    ($($name:ident),*) => {$(
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&URL_SAFE_NO_PAD.encode(self.0))
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'_, str>>::deserialize(deserializer)?;
                let bytes = URL_SAFE_NO_PAD.decode(&*text).ok();
                let bytes = bytes.and_then(|bytes| bytes.try_into().ok());
                bytes.map(Self).ok_or_else(|| serde::de::Error::custom("not the bytes of a key or \
                    hash"))
            }
        }
    )*};
}
serde_as_base64!(FamilyKey, TokenDigest);

/// A fresh id or salt: 128 random bits, base64url.
pub(crate) fn random_id() -> Result<Box<str>, StoreError> {
    Ok(URL_SAFE_NO_PAD.encode(random::<16>()?).into())
}

fn random<const N: usize>() -> Result<[u8; N], StoreError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| {
        StoreError::new(StoreErrorKind::Other, "the system gives no random numbers")
            .with_source(error)
    })?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(family: &str) -> (RefreshToken, FamilyKey, TokenSecret) {
        let (key, secret) = (FamilyKey::random().unwrap(), TokenSecret::random().unwrap());
        (secret.clone().into_token(family, 7, &key), key, secret)
    }

    #[test]
    fn a_token_is_known_by_its_own_family_only() {
        let (token, key, secret) = token("fam");
        let parsed = ParsedToken::parse(token.expose()).unwrap();
        assert_eq!(parsed.family, "fam");
        assert_eq!(parsed.secret().digest(), secret.digest());
        assert_eq!(parsed.origin(&key), TokenOrigin::Generation(7));
        assert_eq!(parsed.origin(&FamilyKey::random().unwrap()), TokenOrigin::Foreign);
        let renamed = token.expose().replacen("fam", "maf", 1);
        assert_eq!(ParsedToken::parse(&renamed).unwrap().origin(&key), TokenOrigin::Foreign);
    }

    #[test]
    fn every_changed_character_makes_it_foreign_or_unreadable() {
        let (token, key, _) = token("f");
        for at in 2..token.expose().len() {
            let mut changed = token.expose().as_bytes().to_vec();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(changed).unwrap();
            let origin = ParsedToken::parse(&changed)
                .map_or(TokenOrigin::Foreign, |parsed| parsed.origin(&key));
            assert_eq!(origin, TokenOrigin::Foreign, "character {at}");
        }
    }

    #[test]
    fn garbage_is_not_parsed() {
        let (token, ..) = token("f");
        let token = token.expose();
        let odd = [
            String::new(),
            ".".into(),
            "f.".into(),
            "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhIn0.c2ln".into(),
            format!("{token}="),
            format!("{token}A"),
            format!(" {token}"),
            format!("f.{token}"),
            token.replace("f.", "f\u{e9}."),
            token.replacen("f.", &format!("{}.", "f".repeat(129)), 1),
        ];
        for odd in odd {
            assert!(ParsedToken::parse(&odd).is_none(), "{odd}");
        }
    }

    #[test]
    fn the_successor_depends_on_secret_and_salt_and_on_nothing_else() {
        let (_, _, secret) = token("f");
        let successor = |secret: &TokenSecret, salt| secret.successor("f", 8, salt).digest();
        assert_eq!(successor(&secret, "salt"), successor(&secret, "salt"));
        assert_ne!(successor(&secret, "salt"), successor(&secret, "pepper"));
        assert_ne!(successor(&secret, "salt"), successor(&TokenSecret::random().unwrap(), "salt"));
        assert_ne!(successor(&secret, "salt"), secret.digest());
    }

    #[test]
    fn nothing_secret_is_printed() {
        let (token, key, _) = token("f");
        assert_eq!(format!("{token:?} {key:?}"), "RefreshToken(..) FamilyKey(..)");
    }
}
