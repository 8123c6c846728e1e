//! From the characters of a request to a [`VerifiedToken`].
//!
//! | | |
//! | --- | --- |
//! | [`bearer`] | finds the one token of a request |
//! | [`jwt`] | keys; checks header and signature |
//! | [`jwks`] | keys that an identity provider publishes (feature `jwks`) |
//! | [`profile`] | the rules for claims, and by which of them a token can be revoked; shared by every verifier |
//! | [`cache`] | remembers the tokens that another verifier has verified |
//! | [`IssuerSet`] | several issuers in one layer, each with its own verifier |
//! | [`UpstreamClaims`] | claims that another layer or a gateway has verified |
//! | [`VerifierConfig`] | a verifier from environment variables or a file |
//! | [`issue`] | mints tokens that are revocable by construction (feature `issuer`) |

pub mod bearer;
pub mod cache;
#[cfg(feature = "issuer")]
pub mod issue;
mod issuers;
#[cfg(feature = "jwks")]
pub mod jwks;
pub mod jwt;
pub mod profile;
mod settings;
mod upstream;

use std::borrow::Cow;
use std::error::Error;
use std::fmt;
use std::sync::Arc;

pub use issuers::IssuerSet;
pub use profile::{MissingId, TokenProfile};
pub use settings::VerifierConfig;
pub use upstream::UpstreamClaims;

use crate::clock::{Clock as _, CoarseClock};
pub use crate::config::SecretText;
use crate::verified::VerifiedToken;

/// Turns a token into a [`VerifiedToken`], or says why not.
///
/// Implemented by [`JwtVerifier`](jwt::JwtVerifier). An implementation of your own checks the
/// signature as it likes and hands the claims to [`TokenProfile::assert_verified`], the only way to
/// make a `VerifiedToken`.
///
/// Called on the request path: it must not block.
pub trait TokenVerifier: Send + Sync + 'static {
    /// Verifies `token`: signature, header, times and all other claims.
    ///
    /// # Errors
    /// [`TokenError`] if the token is not to be accepted, whatever the reason.
    fn verify(&self, token: &str) -> Result<Arc<VerifiedToken>, TokenError>;

    /// A token that was accepted before and is remembered, judged again; `None` if there is no such
    /// token. The first half of [`verify`](Self::verify), for callers who have the credentials as
    /// they came: what is the same, byte by byte, need not be read again, because it is as
    /// well-formed as it was.
    ///
    /// Default: `None`, for verifiers that remember nothing.
    /// [`CachedVerifier`](cache::CachedVerifier) does.
    fn recall(&self, credentials: &[u8]) -> Option<Result<Arc<VerifiedToken>, TokenError>> {
        _ = credentials;
        None
    }

    /// The second half of [`verify`](Self::verify), for callers who have asked
    /// [`recall`](Self::recall) in vain.
    ///
    /// Default: all of `verify`.
    ///
    /// # Errors
    /// As `verify`.
    fn verify_unknown(&self, token: &str) -> Result<Arc<VerifiedToken>, TokenError> {
        self.verify(token)
    }

    /// Verifies a token that is to be revoked: everything but its times, because a token that is
    /// not valid yet can be revoked, and one that is over needs no error (RFC 7009 §2.2).
    ///
    /// # Errors
    /// [`TokenError`] if the token was not issued by a trusted key or could never be accepted.
    fn verify_for_revocation(&self, token: &str) -> Result<Arc<VerifiedToken>, TokenError>;

    /// The rules by which this verifier judges claims; a [`Revoker`](crate::Revoker) needs them
    /// too.
    fn profile(&self) -> &TokenProfile;

    /// Judges again a token that this verifier has accepted before, now that time has passed.
    /// Everything but the time must be as it was then; see [`generation`](Self::generation) for
    /// what is not.
    ///
    /// Default: the times, by the rules of the [`profile`](Self::profile) and the clock of the
    /// system. A verifier with a clock of its own judges by that one.
    ///
    /// # Errors
    /// [`TokenError`] if the token is no longer, or not yet, to be accepted.
    fn judge_again(&self, token: &VerifiedToken) -> Result<(), TokenError> {
        self.profile().judge_times(token, CoarseClock.now())
    }

    /// Changes with everything by which tokens are judged, such as the keys: a token that was
    /// accepted under one generation is verified anew under another. Called on every request.
    ///
    /// A verifier whose keys change puts the new ones in force first and changes the generation
    /// after that, so that nobody who sees the new generation is still served by the old keys. A
    /// generation never comes back.
    ///
    /// Default: always 0, for verifiers that never change.
    fn generation(&self) -> u64 {
        0
    }
}

impl<T: TokenVerifier + ?Sized> TokenVerifier for Arc<T> {
    fn verify(&self, token: &str) -> Result<Arc<VerifiedToken>, TokenError> {
        (**self).verify(token)
    }

    fn recall(&self, credentials: &[u8]) -> Option<Result<Arc<VerifiedToken>, TokenError>> {
        (**self).recall(credentials)
    }

    fn verify_unknown(&self, token: &str) -> Result<Arc<VerifiedToken>, TokenError> {
        (**self).verify_unknown(token)
    }

    fn verify_for_revocation(&self, token: &str) -> Result<Arc<VerifiedToken>, TokenError> {
        (**self).verify_for_revocation(token)
    }

    fn profile(&self) -> &TokenProfile {
        (**self).profile()
    }

    fn judge_again(&self, token: &VerifiedToken) -> Result<(), TokenError> {
        (**self).judge_again(token)
    }

    fn generation(&self) -> u64 {
        (**self).generation()
    }
}

/// Why a token is not accepted.
///
/// For the operator: it names the rule, never the content of the token. What a client is told is
/// decided by the layer.
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
    /// Longer than the longest accepted token.
    TooLong,
    /// Not a JWS in compact form (RFC 7515 §7.1), or its header or claims are not the JSON they
    /// must be.
    Malformed,
    /// A header parameter that must be understood and is not: `crit`, `b64`, `zip`, `enc` (RFC 7515
    /// §4.1.11).
    UnsupportedHeader,
    /// The type of the token (`typ`) is not accepted here.
    WrongType,
    /// No key for this `kid`, or none was named and there are several.
    UnknownKey,
    /// The `alg` is not the one of the key.
    WrongAlgorithm,
    /// The signature does not fit.
    BadSignature,
    /// `exp` is over.
    Expired,
    /// `nbf` is still to come.
    NotYetValid,
    /// `iat` is later than a clock can be wrong.
    IssuedInFuture,
    /// Valid for longer than the longest accepted lifetime.
    LifetimeTooLong,
    /// A claim that must be there is not.
    MissingClaim,
    /// The token has no id and the profile wants one.
    MissingId,
    /// A claim has the wrong type, is empty or too long, or stands there twice.
    OddClaim,
    /// `iss` is not one of the accepted issuers.
    WrongIssuer,
    /// `aud` names none of the accepted audiences.
    WrongAudience,
    /// The keys that could check it cannot be had at the moment: nothing is known about the token,
    /// and the client may try again. The layer answers 503, not 401.
    NoKeys,
    /// Refused by a verifier of your own.
    Other,
}

impl TokenError {
    /// An error with a text for the operator. The text must not hold any part of the token.
    pub fn new(kind: TokenErrorKind, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { kind, detail: detail.into(), source: None }
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
    /// More than one `Authorization` field (RFC 9110 §5.3), or more than one credential in it.
    Repeated,
    /// Two different tokens in two places (RFC 6750 §2).
    Conflicting,
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
