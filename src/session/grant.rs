//! What families are asked, and how they answer: values.

use super::token::RefreshToken;
use crate::clock::Timestamp;
use crate::store::RevokedBy;
#[cfg(feature = "issuer")]
use crate::token::issue::NewToken;

/// Who a new family is for.
#[derive(Clone, Debug)]
#[must_use]
pub struct NewFamily {
    pub(super) user: Box<str>,
    pub(super) session: Option<Box<str>>,
    pub(super) device: Option<Box<str>>,
    pub(super) client: Option<Box<str>>,
}

impl NewFamily {
    /// A family of this user, of no session, device or client.
    pub fn of_user(user: impl AsRef<str>) -> Self {
        Self { user: user.as_ref().into(), session: None, device: None, client: None }
    }

    /// Ends with this session.
    pub fn in_session(mut self, session: impl AsRef<str>) -> Self {
        self.session = Some(session.as_ref().into());
        self
    }

    /// Ends with this device.
    pub fn on_device(mut self, device: impl AsRef<str>) -> Self {
        self.device = Some(device.as_ref().into());
        self
    }

    /// Is bound to this OAuth client, which must be named at each refresh, and ends with it.
    pub fn bound_to(mut self, client: impl AsRef<str>) -> Self {
        self.client = Some(client.as_ref().into());
        self
    }
}

/// The answer to a refresh. A variant that you do not know is to be answered as a refusal.
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
    /// It was the user's, and has ended.
    Done,
    /// It is not known, or another user's, and nothing was revoked: answer 404.
    NotFound,
}

/// What was granted. Everything that the access token needs to be revocable is here. Times are
/// those of the clock of the store.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Grant<T = RefreshToken> {
    /// The refresh token for the client; where the application mints it, its id.
    pub token: T,
    pub(super) kind: GrantKind,
    /// The id for the access token that goes with it, its `jti`: 128 random bits, base64url. Audit
    /// events name it.
    pub access_token_id: Box<str>,
    /// The id of the family, for the claim `fid` of access tokens.
    pub family: Box<str>,
    /// The id of the user, for the claim `sub`.
    pub user: Box<str>,
    /// The id of the session, for the claim `sid`; none if the family belongs to none.
    pub session: Option<Box<str>>,
    /// The id of the device, for the claim `device_id`; none if the family belongs to none.
    pub device: Option<Box<str>>,
    /// The id of the OAuth client, for the claim `client_id`; none if the tokens are bound to none.
    pub client: Option<Box<str>>,
    /// The `iat` of the access token: the second in which it was granted; the millisecond, if what
    /// was issued earlier in that second has been revoked.
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
    /// Whether the token was granted before: the one that was presented had just been replaced, and
    /// this is the same successor again. The client has sent it twice, or two of its tabs did at
    /// the same time.
    pub fn is_repeated(&self) -> bool {
        self.kind == GrantKind::Replayed
    }
}

#[cfg(feature = "issuer")]
impl<T> Grant<T> {
    /// The access token that goes with this grant, for
    /// [`TokenIssuer::issue`](crate::TokenIssuer::issue): it is revocable by
    /// everything that the grant belongs to, and by no revocation that came before it.
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
    /// The family, or what it belongs to, is revoked.
    Revoked(RevokedBy),
    /// The used token that the current one replaced was presented, after the grace. Without
    /// recovery this can be an owner whose response was lost.
    #[doc(alias = "refresh token reuse")]
    ParentReused {
        /// Whether the family was ended for it; false if reuse is only reported.
        ended: bool,
    },
    /// A used token from further back was presented: there are two holders.
    #[doc(alias = "token theft")]
    OlderReused {
        /// Whether the family was ended for it; false if reuse is only reported.
        ended: bool,
    },
    /// A token was presented that was replaced before it was used, when its parent was recovered:
    /// there are two holders.
    SupersededReused {
        /// Whether the family was ended for it; false if reuse is only reported.
        ended: bool,
    },
    /// The store has lost writes, and it is not known whether the family was revoked. The user has
    /// to sign in again. Nothing else has happened, unless the store has gone back behind the token
    /// itself: then the family is ended, as only a holder of an older token could still use it.
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

    /// The name of the reason, as it is written in audit events.
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
