//! From the characters of a request to a [`VerifiedToken`].
//!
//! | | |
//! | --- | --- |
//! | [`bearer`] | finds the one token of a request |
//! | [`jwt`] | keys; checks header and signature |
//! | [`jwks`] | keys that an identity provider publishes (feature `jwks`) |
//! | [`TokenProfile`] | the rules for claims, and by which of them a token can be revoked; shared by every verifier |
//! | [`provider`] | rules for the tokens of well-known providers |
//! | [`cache`] | remembers the tokens that another verifier has verified |
//! | [`IssuerSet`] | several issuers in one layer, each with its own verifier |
//! | [`UpstreamClaims`] | claims that another layer or a gateway has verified |
//! | [`VerifierConfig`] | a verifier from environment variables or a file |
//! | [`issue`] | mints tokens that are revocable by construction (feature `issuer`) |
//! | [`IssuerConfig`] | an issuer from environment variables or a file (feature `issuer`) |

mod algorithm;
pub mod bearer;
pub mod cache;
mod config;
#[cfg(feature = "issuer")]
pub mod issue;
#[cfg(feature = "issuer")]
mod issuer_config;
mod issuers;
#[cfg(feature = "jwks")]
pub mod jwks;
pub mod jwt;
pub(crate) mod profile;
pub mod provider;
#[cfg(any(test, feature = "test-util"))]
pub(crate) mod sample;
mod upstream;

use std::borrow::Cow;
use std::error::Error;
use std::fmt;
use std::sync::Arc;

pub use algorithm::Algorithm;
pub(crate) use algorithm::KeyFamily;
pub use config::VerifierConfig;
#[cfg(feature = "issuer")]
pub use issuer_config::IssuerConfig;
pub use issuers::IssuerSet;
#[cfg(feature = "endpoints")]
pub(crate) use issuers::unverified_issuer;
#[cfg(feature = "endpoints")]
pub(crate) use jwt::unambiguous;
pub use profile::{MissingId, SignedClaims, TokenProfile};
pub use upstream::UpstreamClaims;

pub(crate) use self::sealed::CrateOnly;
pub use crate::config::SecretText;
use crate::samples::Samples;
pub use crate::verified::TokenTarget;
use crate::verified::VerifiedToken;

/// Verifies a token, or says why it is not accepted.
///
/// [`JwtVerifier`](jwt::JwtVerifier) implements it. A verifier of your own checks the signature in
/// its own way, and passes the claims to [`TokenProfile::assert_verified`] of its
/// [`profile`](Self::profile). There is no other way to make a `VerifiedToken`. A verifier that
/// wraps another one forwards all four methods.
///
/// It is called on the request path: it must not block.
///
/// ```
/// use std::sync::Arc;
/// use tower_jwt_revocation::token::{TokenError, TokenVerifier};
/// use tower_jwt_revocation::{TokenProfile, VerifiedToken};
///
/// /// Counts the tokens that another verifier refuses.
/// struct Counted<V> {
///     inner: V,
///     refused: std::sync::atomic::AtomicU64,
/// }
///
/// impl<V: TokenVerifier> TokenVerifier for Counted<V> {
///     fn verify(&self, token: &str) -> Result<Arc<VerifiedToken>, TokenError> {
///         self.inner.verify(token).inspect_err(|_| {
///             self.refused.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
///         })
///     }
///
///     fn verify_for_revocation(&self, token: &str) -> Result<Arc<VerifiedToken>, TokenError> {
///         self.inner.verify_for_revocation(token)
///     }
///
///     fn profile(&self) -> &TokenProfile {
///         self.inner.profile()
///     }
///
///     fn generation(&self) -> u64 {
///         self.inner.generation()
///     }
/// }
/// ```
pub trait TokenVerifier: Send + Sync + 'static {
    /// Verifies `token`: signature, header, times and all other claims.
    ///
    /// # Errors
    /// [`TokenError`] if the token is not accepted, whatever the reason.
    fn verify(&self, token: &str) -> Result<Arc<VerifiedToken>, TokenError>;

    /// Verifies a token that is to be revoked: everything but its times, because a token that is
    /// not valid yet can be revoked, and one that is expired needs no error (RFC 7009 §2.2).
    ///
    /// # Errors
    /// [`TokenError`] if no trusted key has signed the token, or if it could never be accepted.
    fn verify_for_revocation(&self, token: &str) -> Result<Arc<VerifiedToken>, TokenError>;

    /// The rules by which this verifier checks claims, with the clock by which it checks times. A
    /// [`Revoker`](crate::Revoker) needs them too.
    ///
    /// Every token that the verifier returns must be made by this profile, by a clone of it, or by
    /// one that it [combines](TokenProfile::combined). A token of another profile is refused with
    /// [`TokenErrorKind::WrongProfile`], because its revocations might not be found.
    fn profile(&self) -> &TokenProfile;

    /// A number that changes with everything by which tokens are checked, such as the keys. A
    /// [`CachedVerifier`](cache::CachedVerifier) uses what it remembers only while the number is
    /// the same, and asks for it on every request.
    ///
    /// - A verifier whose keys and rules never change returns 0.
    /// - A verifier whose keys change first uses the new keys and then changes the number, so that
    ///   nobody who sees the new number still gets the old keys. The number only grows.
    /// - A verifier that wraps another one returns its number; one that wraps several, their sum.
    ///
    /// # Security
    /// If the number does not change, a token whose key was withdrawn is accepted for as long as a
    /// cache remembers it.
    fn generation(&self) -> u64;

    /// Adds its numbers to the [metrics](crate::metrics). Default: nothing. A verifier that wraps
    /// others passes the call on.
    fn add_metrics(&self, samples: &mut Samples) {
        let _ = samples;
    }

    /// A token that is remembered for these credentials, checked again; `None` if there is none.
    /// What equals remembered credentials byte by byte is as well-formed as they were.
    #[doc(hidden)]
    fn cached(
        &self,
        credentials: &[u8],
        _: CrateOnly,
    ) -> Option<Result<Arc<VerifiedToken>, TokenError>> {
        _ = credentials;
        None
    }

    /// As [`verify`](Self::verify), for a caller that has asked [`cached`](Self::cached) in vain.
    /// It makes sure that the token is one of the profile.
    #[doc(hidden)]
    fn verify_uncached(&self, token: &str, _: CrateOnly) -> Result<Arc<VerifiedToken>, TokenError> {
        let token = self.verify(token)?;
        self.profile().expect_own(&token)?;
        Ok(token)
    }

    /// Why none of its tokens can be what these bytes are, if that is found without reading them.
    #[doc(hidden)]
    fn refused_at_sight(&self, _: &[u8], _: CrateOnly) -> Option<TokenError> {
        None
    }

    /// As [`verify_for_revocation`](Self::verify_for_revocation). It makes sure that the token is
    /// one of the profile.
    #[doc(hidden)]
    fn verify_to_revoke(
        &self,
        token: &str,
        _: CrateOnly,
    ) -> Result<Arc<VerifiedToken>, TokenError> {
        let token = self.verify_for_revocation(token)?;
        self.profile().expect_own(&token)?;
        Ok(token)
    }
}

mod sealed {
    /// An argument that nobody outside of the crate can name: the methods that take it can neither
    /// be called nor be implemented there.
    #[derive(Clone, Copy, Debug)]
    #[expect(unnameable_types, reason = "that is what it is for")]
    #[non_exhaustive]
    pub struct CrateOnly;
}

impl<T: TokenVerifier + ?Sized> TokenVerifier for Arc<T> {
    fn verify(&self, token: &str) -> Result<Arc<VerifiedToken>, TokenError> {
        (**self).verify(token)
    }

    fn verify_for_revocation(&self, token: &str) -> Result<Arc<VerifiedToken>, TokenError> {
        (**self).verify_for_revocation(token)
    }

    fn profile(&self) -> &TokenProfile {
        (**self).profile()
    }

    fn generation(&self) -> u64 {
        (**self).generation()
    }

    fn add_metrics(&self, samples: &mut Samples) {
        (**self).add_metrics(samples);
    }

    fn cached(
        &self,
        credentials: &[u8],
        seal: CrateOnly,
    ) -> Option<Result<Arc<VerifiedToken>, TokenError>> {
        (**self).cached(credentials, seal)
    }

    fn verify_uncached(
        &self,
        token: &str,
        seal: CrateOnly,
    ) -> Result<Arc<VerifiedToken>, TokenError> {
        (**self).verify_uncached(token, seal)
    }

    fn refused_at_sight(&self, credentials: &[u8], seal: CrateOnly) -> Option<TokenError> {
        (**self).refused_at_sight(credentials, seal)
    }

    fn verify_to_revoke(
        &self,
        token: &str,
        seal: CrateOnly,
    ) -> Result<Arc<VerifiedToken>, TokenError> {
        (**self).verify_to_revoke(token, seal)
    }
}

/// Why a token is not accepted.
///
/// It is for the operator: it names the rule, never the content of the token. The layer decides
/// what a client is told.
#[derive(Clone, Debug)]
pub struct TokenError {
    kind: TokenErrorKind,
    detail: Cow<'static, str>,
    source: Option<Arc<dyn Error + Send + Sync>>,
}

/// The kinds of [`TokenError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TokenErrorKind {
    /// Longer than the longest accepted token, or its header is longer than half of that.
    TooLong,
    /// Not a JWS in compact form (RFC 7515 §7.1), or its header or claims are not the JSON they
    /// must be.
    Malformed,
    /// A header parameter that must be understood and is not supported: `crit`, `b64`, `zip`, `enc`
    /// (RFC 7515 §4.1.11).
    UnsupportedHeader,
    /// The token is of a kind that is not accepted here, by its header `typ` or by its claims.
    WrongType,
    /// There is no key for this `kid`, or the token names none and there are several keys.
    UnknownKey,
    /// The `alg` is not the one of the key.
    WrongAlgorithm,
    /// The signature does not fit.
    BadSignature,
    /// `exp` is over.
    Expired,
    /// `nbf` is still to come.
    NotYetValid,
    /// `iat` is in the future by more than the leeway.
    IssuedInFuture,
    /// Valid for longer than the longest accepted lifetime.
    LifetimeTooLong,
    /// A claim that must be there is not.
    MissingClaim,
    /// The token has no id and the profile wants one.
    MissingId,
    /// A claim has the wrong type, is empty or too long, or occurs twice.
    OddClaim,
    /// The profile forbids a claim or its value, or requires another value.
    ForbiddenClaim,
    /// `iss` is not one of the accepted issuers.
    WrongIssuer,
    /// `aud` names none of the accepted audiences.
    WrongAudience,
    /// The token is bound to a key of the client (`cnf`: DPoP, mTLS) and nothing proves that the
    /// client has the key. Or it was presented as a bound token, and is not.
    UnprovenKey,
    /// The keys that could check it are out of reach at the moment. Nothing is known about the
    /// token, and the client may try again. The layer answers 503, not 401.
    NoKeys,
    /// The verifier made the token by other rules than those of its
    /// [`profile`](TokenVerifier::profile): a mistake in a verifier of your own.
    WrongProfile,
    /// Refused by a verifier of your own.
    Other,
}

impl TokenErrorKind {
    /// All kinds, in the order in which they are counted.
    pub const ALL: [Self; 21] = [
        Self::TooLong,
        Self::Malformed,
        Self::UnsupportedHeader,
        Self::WrongType,
        Self::UnknownKey,
        Self::WrongAlgorithm,
        Self::BadSignature,
        Self::Expired,
        Self::NotYetValid,
        Self::IssuedInFuture,
        Self::LifetimeTooLong,
        Self::MissingClaim,
        Self::MissingId,
        Self::OddClaim,
        Self::ForbiddenClaim,
        Self::WrongIssuer,
        Self::WrongAudience,
        Self::UnprovenKey,
        Self::NoKeys,
        Self::WrongProfile,
        Self::Other,
    ];

    /// The name of the kind, as it is written in metrics and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TooLong => "too_long",
            Self::Malformed => "malformed",
            Self::UnsupportedHeader => "unsupported_header",
            Self::WrongType => "wrong_type",
            Self::UnknownKey => "unknown_key",
            Self::WrongAlgorithm => "wrong_algorithm",
            Self::BadSignature => "bad_signature",
            Self::Expired => "expired",
            Self::NotYetValid => "not_yet_valid",
            Self::IssuedInFuture => "issued_in_future",
            Self::LifetimeTooLong => "lifetime_too_long",
            Self::MissingClaim => "missing_claim",
            Self::MissingId => "missing_id",
            Self::OddClaim => "odd_claim",
            Self::ForbiddenClaim => "forbidden_claim",
            Self::WrongIssuer => "wrong_issuer",
            Self::WrongAudience => "wrong_audience",
            Self::UnprovenKey => "unproven_key",
            Self::NoKeys => "no_keys",
            Self::WrongProfile => "wrong_profile",
            Self::Other => "other",
        }
    }
}

impl TokenError {
    /// An error with a text for the operator. The text must not hold any part of the token.
    pub fn new(kind: TokenErrorKind, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { kind, detail: detail.into(), source: None }
    }

    pub(crate) fn expired() -> Self {
        Self::new(TokenErrorKind::Expired, "the token is expired")
    }

    pub(crate) fn too_long() -> Self {
        Self::new(
            TokenErrorKind::TooLong,
            "the token is longer than accepted; see TokenProfile::with_max_token_bytes",
        )
    }

    /// The same error with its cause, which is its [`source`](std::error::Error::source). The log
    /// shows it after the text, so the text must not repeat it.
    #[must_use]
    pub fn with_source(mut self, source: impl Error + Send + Sync + 'static) -> Self {
        self.source = Some(Arc::new(source));
        self
    }

    /// What kind of error this is.
    pub fn kind(&self) -> TokenErrorKind {
        self.kind
    }
}

impl fmt::Display for TokenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail)
    }
}

impl Error for TokenError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

/// Credentials that cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CredentialsError {
    /// Not `Bearer`, one or more spaces, and a `token68` (RFC 6750 §2.1, RFC 9110 §11.2).
    Malformed,
    /// More than one `Authorization` field (RFC 9110 §5.3).
    Repeated,
    /// Two different tokens in two places (RFC 6750 §2).
    Conflicting,
}

impl CredentialsError {
    /// The name of the kind, for metrics and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Repeated => "repeated",
            Self::Conflicting => "conflicting",
        }
    }
}

impl fmt::Display for CredentialsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Malformed => "the credentials are malformed",
            Self::Repeated => "the request has more than one Authorization field",
            Self::Conflicting => "the request has two different tokens",
        })
    }
}

impl Error for CredentialsError {}
