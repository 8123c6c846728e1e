//! The decision: what a standing, or the lack of one, means for the request.
//!
//! Pure and total. This is the only room that reads [`FailMode`].

use std::fmt;
use std::sync::Arc;

use crate::revocation::TargetKind;
use crate::store::{RevokedBy, Standing, StoreError, StoreErrorKind};
use crate::token::{TokenError, TokenErrorKind};
use crate::verified::VerifiedToken;

/// What happens to a verified token whose standing cannot be told, because the store is out of reach.
///
/// It decides about nothing else: a token that is invalid, expired or known to be revoked is refused in both modes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FailMode {
    /// The request is refused with 503 (gRPC: `UNAVAILABLE`). The default: no revoked token gets in, and while the
    /// store is down nobody does.
    #[default]
    Closed,
    /// The request passes, marked and counted: [`Clearance::is_checked`] is false.
    ///
    /// # Security
    /// While the store is down, or made to be down, revoked tokens work until they expire.
    Open,
}

/// The proof that a request passed, in its extensions.
///
/// ```
/// use tower_jwt_revocation::Clearance;
///
/// fn handler(request: &http::Request<()>) -> Option<&str> {
///     let clearance = request.extensions().get::<Clearance>()?;
///     clearance.token().subject()
/// }
/// ```
#[derive(Clone, Debug)]
pub struct Clearance {
    token: Arc<VerifiedToken>,
    unchecked: Option<StoreError>,
}

impl Clearance {
    /// The verified token of the request.
    pub fn token(&self) -> &Arc<VerifiedToken> {
        &self.token
    }

    /// Whether the store was asked and said that the token is live. False only under [`FailMode::Open`]: a handler
    /// that moves money may want to look.
    pub fn is_checked(&self) -> bool {
        self.unchecked.is_none()
    }

    /// Why the token could not be checked, if it was not.
    pub fn unchecked_because(&self) -> Option<&StoreError> {
        self.unchecked.as_ref()
    }
}

/// Why a request was refused. In the extensions of the response, for layers further out; never in its body.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Rejection {
    /// The request has no credentials (RFC 6750 §3: no error code).
    NoCredentials,
    /// The credentials cannot be read, or there are two that differ (RFC 6750 §3.1, `invalid_request`).
    BadRequest(CredentialsError),
    /// The token is not acceptable (`invalid_token`).
    InvalidToken(TokenError),
    /// The token is revoked (`invalid_token`).
    Revoked(RevokedBy),
    /// The standing of the token is not known, and the mode is [`FailMode::Closed`].
    NoVerdict(StoreError),
}

impl Rejection {
    /// The reason as a `Copy` value, for metrics and matching.
    pub fn kind(&self) -> RejectionKind {
        match self {
            Self::NoCredentials => RejectionKind::NoCredentials,
            Self::BadRequest(_) => RejectionKind::BadRequest,
            Self::InvalidToken(error) => RejectionKind::InvalidToken(error.kind()),
            Self::Revoked(by) => RejectionKind::Revoked(by.kind),
            Self::NoVerdict(error) => RejectionKind::NoVerdict(error.kind()),
        }
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoCredentials => f.write_str("the request has no credentials"),
            Self::BadRequest(error) => error.fmt(f),
            Self::InvalidToken(error) => error.fmt(f),
            Self::Revoked(by) => write!(f, "the token was revoked, by its {}", by.kind),
            Self::NoVerdict(error) => write!(f, "the standing of the token is not known: {error}"),
        }
    }
}

impl std::error::Error for Rejection {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::InvalidToken(error) => Some(error),
            Self::NoVerdict(error) => Some(error),
            Self::BadRequest(error) => Some(error),
            Self::NoCredentials | Self::Revoked(_) => None,
        }
    }
}

/// The kinds of [`Rejection`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RejectionKind {
    /// See [`Rejection::NoCredentials`].
    NoCredentials,
    /// See [`Rejection::BadRequest`].
    BadRequest,
    /// See [`Rejection::InvalidToken`].
    InvalidToken(TokenErrorKind),
    /// See [`Rejection::Revoked`].
    Revoked(TargetKind),
    /// See [`Rejection::NoVerdict`].
    NoVerdict(StoreErrorKind),
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

impl std::error::Error for CredentialsError {}

/// What the answer of the store means for a verified token.
pub(crate) fn decide(
    token: Arc<VerifiedToken>,
    answer: Result<Standing, StoreError>,
    mode: FailMode,
) -> Result<Clearance, Rejection> {
    match (answer, mode) {
        (Ok(Standing::Live), _) => Ok(Clearance { token, unchecked: None }),
        (Ok(Standing::Revoked(by)), _) => Err(Rejection::Revoked(by)),
        (Err(error), FailMode::Open) => Ok(Clearance { token, unchecked: Some(error) }),
        (Err(error), FailMode::Closed) => Err(Rejection::NoVerdict(error)),
    }
}
