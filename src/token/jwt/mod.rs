//! Checks signature and header of a token.
//!
//! It checks in this order, and stops at the first failure:
//!
//! 1. size, then characters and shape: three parts of base64url, canonical, without padding
//! 2. header: an object whose `alg`, `kid` and `typ` are strings and stand there once; no `crit`,
//!    `b64`, `zip`, `enc`
//! 3. type: `typ` is one of the accepted ones
//! 4. key: chosen by `kid`, and among several of one `kid` by `alg`, which must be the one
//!    algorithm of the key
//! 5. signature
//! 6. claims: see [`TokenProfile`]

// | module | what it does |
// | --- | --- |
// | `header` | the shape of a token and its header |
// | `key` | keys, each with its algorithm, none of them weak |
// | `keys` | the keys of a verifier, and how a token chooses one |
// | `jwk` | keys from JSON Web Keys and sets of them |
// | `curve` | whether a public key is a point on its curve, and of an order that is of use |
// | `disguised` | whether a secret is in truth a public key |
// | `roca` | whether an RSA key was made by a generator that is broken |
// | `der` | the forms of DER and PEM in which keys are written |
// | `provider` | which cryptography checks the signatures |
// | `prepared` | keys that are made ready for it once |
// | `unchecked` | tokens whose signature a gateway has checked |
// | `sign` | keys that sign (feature `issuer`) |

mod curve;
mod der;
mod disguised;
mod header;
mod jwk;
mod key;
mod keys;
#[cfg(feature = "aws_lc_rs")]
mod prepared;
mod provider;
mod roca;
#[cfg(feature = "issuer")]
mod sign;
mod unchecked;

use std::fmt;
use std::sync::Arc;

pub use jwk::KeySet;
#[cfg(feature = "endpoints")]
pub(crate) use jwk::unambiguous;
#[cfg(feature = "jwks")]
pub(crate) use jwk::{USUAL_RSA, members_of_set, rsa_algorithms};
pub use key::VerificationKey;
pub(crate) use keys::VerifierKeys;
pub(crate) use provider::settle as settle_provider;
#[cfg(feature = "issuer")]
pub use sign::SigningKey;
pub use unchecked::UncheckedSignatureVerifier;

use self::header::{TokenHeader, TokenParts, base64};
use self::keys::{CurrentKeys, KeySource};
use super::profile::SignedClaims;
use super::{CrateOnly, TokenError, TokenErrorKind, TokenProfile, TokenVerifier};
use crate::clock::Clock;
use crate::config::ConfigError;
use crate::verified::VerifiedToken;

/// The types that are accepted unless [`JwtVerifier::with_types`] says otherwise, besides none at
/// all.
pub(crate) const DEFAULT_TYPES: [&str; 2] = ["JWT", "at+jwt"];

/// Types of tokens that are made for another purpose and signed with the same keys. Taking one of
/// them for an access token would give its bearer what was never meant for them (RFC 8725 §2.8).
const FOREIGN_TYPES: [&str; 16] = [
    "logout+jwt",
    "secevent+jwt",
    "statuslist+jwt",
    "dpop+jwt",
    "token-introspection+jwt",
    "refresh+jwt",
    "rt+jwt",
    "id+jwt",
    "oauth-authz-req+jwt",
    "client-authentication+jwt",
    "authorization-grant+jwt",
    "entity-statement+jwt",
    "resolve-response+jwt",
    "trust-mark+jwt",
    "kb+jwt",
    "jwk-set+jwt",
];

/// Verifies JSON Web Tokens: compact JWS (RFC 7515, RFC 7519), by the rules of RFC 8725.
///
/// ```
/// use tower_jwt_revocation::{Algorithm, JwtVerifier, TokenProfile, VerificationKey};
///
/// # #[cfg(any(feature = "aws_lc_rs", feature = "rust_crypto"))] {
/// let secret = [42; 32]; // from where you keep secrets
/// let key = VerificationKey::from_secret(Algorithm::HS256, &secret)?;
/// let profile = TokenProfile::new().with_issuer("https://id.example").with_audience("orders");
/// let verifier = JwtVerifier::new([key], profile)?;
/// # let _ = verifier; }
/// # Ok::<_, tower_jwt_revocation::ConfigError>(())
/// ```
#[derive(Clone)]
pub struct JwtVerifier {
    keys: KeySource,
    profile: TokenProfile,
    types: Types,
}

impl JwtVerifier {
    /// A verifier that accepts tokens that one of `keys` has signed and `profile` accepts.
    ///
    /// # Errors
    /// [`ConfigError`] if there is no key, if one of several has no `kid`, if two have the same
    /// `kid` and the same algorithm, if two secrets are the same, or if the profile cannot work.
    pub fn new(
        keys: impl IntoIterator<Item = VerificationKey>,
        profile: TokenProfile,
    ) -> Result<Self, ConfigError> {
        Self::from_source(KeySource::Fixed(VerifierKeys::new(keys.into_iter().collect())?), profile)
    }

    /// A verifier that accepts tokens that a currently published key has signed and `profile`
    /// accepts.
    ///
    /// # Errors
    /// [`ConfigError`] if the profile cannot work, or if the keys were discovered from an issuer
    /// that it does not name.
    #[cfg(feature = "jwks")]
    pub fn with_remote_keys(
        keys: super::jwks::RemoteKeys,
        profile: TokenProfile,
    ) -> Result<Self, ConfigError> {
        if let Some(issuer) = keys.issuer().filter(|issuer| !profile.knows_issuer(issuer)) {
            return Err(ConfigError::new(
                "issuer",
                format!(
                    "the keys are those of `{issuer}`, which the profile does not name; see \
                     TokenProfile::with_issuer"
                ),
            ));
        }
        Self::from_source(KeySource::Remote(keys), profile)
    }

    fn from_source(keys: KeySource, profile: TokenProfile) -> Result<Self, ConfigError> {
        profile.validate()?;
        Ok(Self {
            keys,
            profile,
            types: Types { required: false, accepted: DEFAULT_TYPES.map(Into::into).into() },
        })
    }

    /// Accepts only these types (`typ`), and no tokens without a type. Case does not matter, nor
    /// does the prefix `application/` (RFC 7515 §4.1.9).
    ///
    /// Default: none, `JWT` and `at+jwt`. For access tokens by RFC 9068: `with_types(["at+jwt"])`.
    /// Types that are known to serve another purpose, such as `logout+jwt` or `dpop+jwt`, are never
    /// accepted.
    ///
    /// # Errors
    /// [`ConfigError`] if the list is empty or names an empty type or one of another purpose.
    pub fn with_types<T: AsRef<str>>(
        mut self,
        types: impl IntoIterator<Item = T>,
    ) -> Result<Self, ConfigError> {
        self.types = Types::only(types)?;
        Ok(self)
    }

    /// Accepts these types beside those that it accepts by default.
    pub(crate) fn with_further_types(mut self, types: &[&str]) -> Self {
        self.types.accepted.extend(types.iter().map(|typ| Box::from(without_prefix(typ))));
        self
    }

    /// As [`TokenProfile::with_max_token_bytes`]: the longest accepted token, in bytes; default
    /// 8192. Longer ones are refused unread.
    #[must_use]
    pub fn with_max_token_bytes(mut self, bytes: usize) -> Self {
        self.profile = self.profile.with_max_token_bytes(bytes);
        self
    }

    /// The clock by which `exp`, `nbf` and `iat` are checked, as [`TokenProfile::with_clock`].
    #[must_use]
    pub fn with_clock(mut self, clock: impl Clock) -> Self {
        self.profile = self.profile.with_clock(clock);
        self
    }

    /// Everything but the claims: the key that signed the token, and its parts.
    fn authenticate<'k, 't>(
        &self,
        keys: &'k CurrentKeys<'_>,
        token: &'t str,
    ) -> Result<(&'k VerificationKey, TokenParts<'t>), TokenError> {
        let (parts, json) = TokenParts::within(self.profile.max_token_bytes(), token)?;
        let header = TokenHeader::parse(&json)?;
        self.types.check(header.typ.as_deref())?;
        let key = keys.select(header.kid.as_deref(), &header.alg)?;
        if !key.fits(parts.signing_input, parts.signature) {
            keys.found_misfit();
            return Err(bad_signature());
        }
        Ok((key, parts))
    }

    /// The claims of a token of a type that `accepts` takes, which is given without
    /// `application/`. Its signature is checked, and nothing else.
    #[cfg(feature = "endpoints")]
    pub(crate) fn signed_payload(
        &self,
        token: &str,
        accepts: impl FnOnce(Option<&str>) -> bool,
    ) -> Result<Vec<u8>, TokenError> {
        let (parts, json) = TokenParts::within(self.profile.max_token_bytes(), token)?;
        let header = TokenHeader::parse(&json)?;
        if !accepts(header.typ.as_deref().map(without_prefix)) {
            return Err(TokenError::new(
                TokenErrorKind::WrongType,
                "the type of the token (`typ`) is not the one that is received here",
            ));
        }
        let keys = self.keys.now();
        let key = keys.select(header.kid.as_deref(), &header.alg)?;
        if !key.fits(parts.signing_input, parts.signature) {
            keys.found_misfit();
            return Err(bad_signature());
        }
        parts.signed_claims()
    }

    /// All but whether it is valid now.
    fn verify_untimed(&self, token: &str) -> Result<VerifiedToken, TokenError> {
        let keys = self.keys.now();
        let (key, parts) = self.authenticate(&keys, token)?;
        let payload = parts.signed_claims()?;
        let claims = SignedClaims::new(&payload)
            .with_key(key.kid(), key.fingerprint())
            .with_signing_input(parts.signing_input);
        let accepted = self.profile.accepted(claims)?;
        Ok(accepted.with_payload(payload.into()))
    }
}

impl TokenVerifier for JwtVerifier {
    fn verify(&self, token: &str) -> Result<Arc<VerifiedToken>, TokenError> {
        let token = self.verify_untimed(token)?;
        self.profile.check_times(&token)?;
        Ok(Arc::new(token))
    }

    fn verify_for_revocation(&self, token: &str) -> Result<Arc<VerifiedToken>, TokenError> {
        self.verify_untimed(token).map(Arc::new)
    }

    fn profile(&self) -> &TokenProfile {
        &self.profile
    }

    fn refused_at_sight(&self, credentials: &[u8], _: CrateOnly) -> Option<TokenError> {
        header::expect_three_parts(credentials).err()
    }

    /// Changes when the published keys change; always the same for fixed keys.
    fn generation(&self) -> u64 {
        self.keys.generation()
    }

    #[cfg(feature = "jwks")]
    fn add_metrics(&self, samples: &mut crate::samples::Samples) {
        self.keys.add_metrics(samples);
    }
}

impl fmt::Debug for JwtVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JwtVerifier")
            .field("keys", &self.keys)
            .field("profile", &self.profile)
            .field("types", &self.types.accepted)
            .finish_non_exhaustive()
    }
}

/// Which types of tokens are accepted.
#[derive(Clone)]
struct Types {
    required: bool,
    accepted: Vec<Box<str>>,
}

impl Types {
    fn only<T: AsRef<str>>(types: impl IntoIterator<Item = T>) -> Result<Self, ConfigError> {
        let accepted: Vec<Box<str>> =
            types.into_iter().map(|typ| without_prefix(typ.as_ref()).into()).collect();
        if accepted.is_empty() || accepted.iter().any(|typ| typ.is_empty()) {
            return Err(ConfigError::new(
                "types",
                "is empty or names an empty type; name at least one",
            ));
        }
        if let Some(typ) = accepted.iter().find(|typ| is_foreign(typ)) {
            return Err(ConfigError::new(
                "types",
                format!("`{typ}` is not the type of an access token and must never pass for one"),
            ));
        }
        Ok(Self { required: true, accepted })
    }

    fn check(&self, typ: Option<&str>) -> Result<(), TokenError> {
        let is_accepted = match typ.map(without_prefix) {
            None => !self.required,
            Some(typ) => self.accepted.iter().any(|accepted| accepted.eq_ignore_ascii_case(typ)),
        };
        if is_accepted {
            return Ok(());
        }
        Err(TokenError::new(
            TokenErrorKind::WrongType,
            "the type of the token (`typ`) is not accepted; see JwtVerifier::with_types",
        ))
    }
}

fn bad_signature() -> TokenError {
    TokenError::new(TokenErrorKind::BadSignature, "the signature does not fit")
}

fn without_prefix(typ: &str) -> &str {
    match typ.split_at_checked("application/".len()) {
        Some((prefix, rest)) if prefix.eq_ignore_ascii_case("application/") => rest,
        _ => typ,
    }
}

fn is_foreign(typ: &str) -> bool {
    FOREIGN_TYPES.iter().any(|foreign| foreign.eq_ignore_ascii_case(typ))
}

#[cfg(test)]
mod tests;
