//! What families are asked, and how they answer: values.

use super::token::RefreshToken;
use crate::clock::Timestamp;
use crate::store::RevokedBy;
#[cfg(feature = "issuer")]
use crate::token::issue::NewToken;

/// The user, session, device and client of a new family.
#[derive(Clone, Debug)]
#[must_use]
pub struct NewFamily {
    pub(super) user: Box<str>,
    pub(super) session: Option<Box<str>>,
    pub(super) device: Option<Box<str>>,
    pub(super) client: Option<Box<str>>,
}

impl NewFamily {
    /// A family of this user, without session, device or client.
    pub fn of_user(user: impl AsRef<str>) -> Self {
        Self { user: user.as_ref().into(), session: None, device: None, client: None }
    }

    /// A family of this session, which ends with it. Default: none.
    pub fn in_session(mut self, session: impl AsRef<str>) -> Self {
        self.session = Some(session.as_ref().into());
        self
    }

    /// A family on this device, which ends with it. Default: none.
    pub fn on_device(mut self, device: impl AsRef<str>) -> Self {
        self.device = Some(device.as_ref().into());
        self
    }

    /// A family that is bound to this OAuth client, which must be named at each refresh; it ends
    /// with the client. Default: none.
    pub fn bound_to(mut self, client: impl AsRef<str>) -> Self {
        self.client = Some(client.as_ref().into());
        self
    }
}

/// The answer to a refresh. Treat a variant that you do not know as a refusal.
#[derive(Clone, Debug)]
#[must_use = "a refresh that is not looked at grants nothing"]
#[non_exhaustive]
pub enum Refresh<T = RefreshToken> {
    /// Answer with the new token, and an access token with it.
    Granted(Grant<T>),
    /// Answer `invalid_grant` (RFC 6749 §5.2), whatever the reason.
    Refused(Refusal),
}

/// The answer to [`Sessions::end_of`](super::Sessions::end_of) and
/// [`Families::end_of`](super::Families::end_of).
///
/// ```compile_fail
/// #![deny(unused_must_use)]
/// # use tower_jwt_revocation::{session::Sessions, store::StoreError};
/// async fn delete(sessions: Sessions, user: &str, id: &str) -> Result<(), StoreError> {
///     sessions.end_of(user, id).await?; // 204, whether or not anything has ended
///     Ok(())
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "what was not found was not ended"]
#[non_exhaustive]
pub enum Ended {
    /// It belonged to the user, and has ended.
    Done,
    /// It is not known, or belongs to another user, and nothing was revoked: answer 404.
    NotFound,
}

/// A refresh token that was granted, with everything that the access token needs to be revocable.
/// Times are by the clock of the store.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Grant<T = RefreshToken> {
    /// The refresh token for the client; or its id, if the application mints it.
    pub token: T,
    pub(super) kind: GrantKind,
    /// The `jti` for the access token of this grant: 128 random bits, base64url. Audit events name
    /// it.
    pub access_token_id: Box<str>,
    /// The id of the family, for the claim `fid` of access tokens.
    pub family: Box<str>,
    /// The id of the user, for the claim `sub`.
    pub user: Box<str>,
    /// The id of the session, for the claim `sid`; `None` if the family has no session.
    pub session: Option<Box<str>>,
    /// The id of the device, for the claim `device_id`; `None` if the family has no device.
    pub device: Option<Box<str>>,
    /// The id of the OAuth client, for the claim `client_id`; `None` if the tokens are not bound to
    /// one.
    pub client: Option<Box<str>>,
    /// The `iat` for the access token: the second of the grant, or the millisecond, if tokens from
    /// earlier in that second have been revoked.
    pub issued_at: Timestamp,
    /// When the family was begun.
    pub created_at: Timestamp,
    /// When the refresh token expires if it is not used.
    pub expires_at: Timestamp,
    /// The first `iat` that no revocation so far covers; zero if there is none. The clock of the
    /// store may be ahead of that of the issuer.
    pub(super) reissue_at: Timestamp,
}

impl<T> Grant<T> {
    /// Whether this is the same successor again, because the presented token had just been
    /// replaced. The client has sent the token twice, or two of its tabs did at the same time.
    pub fn is_repeated(&self) -> bool {
        self.kind == GrantKind::Replayed
    }
}

#[cfg(feature = "issuer")]
impl<T> Grant<T> {
    /// The access token of this grant, for [`TokenIssuer::issue`](crate::TokenIssuer::issue). It is
    /// revocable by everything that the grant belongs to, and no earlier revocation covers it.
    pub fn access_token(&self) -> NewToken {
        let mut token = NewToken::new(self.user.clone())
            .with_id(self.access_token_id.clone())
            .with_family(self.family.clone());
        if let Some(session) = &self.session {
            token = token.with_session(session.clone());
        }
        if let Some(device) = &self.device {
            token = token.with_device(device.clone());
        }
        if let Some(client) = &self.client {
            token = token.with_client(client.clone());
        }
        token.with_issued_at(self.issued_at).with_not_before_iat(self.reissue_at)
    }
}

/// Why a token was granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum GrantKind {
    /// The family was begun.
    Started,
    /// The token was replaced.
    Rotated,
    /// The token had just been replaced; this is the same successor again. The client has sent it
    /// twice, or two of its tabs did at the same time.
    Replayed,
    /// The successor was never used; this is another one in its place.
    Recovered,
    /// The token stays, because tokens are not rotated.
    Kept,
}

/// Why a refresh was refused. For logs and audit; the client gets `invalid_grant` and no more.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refusal {
    /// Not a token, or not one of a family that is known. Nothing else has happened.
    Unknown,
    /// The token belongs to another OAuth client. Nothing else has happened.
    WrongClient,
    /// The idle or the absolute lifetime of the family has passed.
    Expired,
    /// The family is revoked, or its session, user, device, client or issuer.
    Revoked(RevokedBy),
    /// The token that the current one replaced was presented again, after the grace. Without
    /// recovery this can be an owner whose response was lost.
    #[doc(alias = "refresh token reuse")]
    ParentReused {
        /// Whether the family was ended for it; false if reuse is only reported.
        ended: bool,
    },
    /// An older used token was presented: there are two holders.
    #[doc(alias = "token theft")]
    OlderReused {
        /// Whether the family was ended for it; false if reuse is only reported.
        ended: bool,
    },
    /// A token was presented that was never used and was replaced by recovery: there are two
    /// holders.
    SupersededReused {
        /// Whether the family was ended for it; false if reuse is only reported.
        ended: bool,
    },
    /// The store has lost writes, and it is not known whether the family was revoked. The user has
    /// to sign in again. The family is not ended, unless the store has an older state than the
    /// token itself: then only a holder of an older token could still use the family, so it is
    /// ended.
    Lost,
}

impl Refusal {
    /// Whether a used token was presented, whichever it was.
    pub fn is_reuse(&self) -> bool {
        matches!(
            self,
            Self::ParentReused { .. } | Self::OlderReused { .. } | Self::SupersededReused { .. }
        )
    }

    /// The name of the reason in audit events.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::WrongClient => "wrong_client",
            Self::Expired => "expired",
            Self::Revoked(_) => "revoked",
            Self::ParentReused { .. } => "parent",
            Self::OlderReused { .. } => "older",
            Self::SupersededReused { .. } => "superseded",
            Self::Lost => "lost",
        }
    }
}
