//! The requests that a [`Revoker`] makes. They are sent when they are awaited.

use std::fmt;
use std::future::IntoFuture;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;

use super::unmatched::without_effect;
use super::{Revoker, invalid};
use crate::audit::{AuditEvent, AuditKind, Pending};
use crate::clock::Timestamp;
#[cfg(feature = "sessions")]
use crate::revocation::RevocationOrigin;
use crate::revocation::{Action, Extent, Revocation, Target, TargetKind};
use crate::store::{Receipt, StoreError, StoreErrorKind};
use crate::token::TokenProfile;
#[cfg(feature = "sessions")]
use crate::verified::VerifiedToken;

/// A revocation that has not been sent yet. Await it.
#[derive(Clone, Debug)]
#[must_use = "nothing is revoked until this is awaited"]
pub struct RevokeRequest {
    pub(super) revoker: Revoker,
    change: Revocation,
    /// When the token expires, if its target is one.
    expires_at: Option<Timestamp>,
    /// The least lifetime of the record, if one was asked for.
    lifetime: Option<Duration>,
    /// What is known of the target, for the audit; nothing if there is none.
    about: Option<AuditEvent>,
}

impl RevokeRequest {
    pub(super) fn new(revoker: Revoker, change: Revocation) -> Self {
        Self { revoker, change, expires_at: None, lifetime: None, about: None }
    }

    /// Adds to the audit event what is known of the target beside its id.
    pub(crate) fn about(mut self, describe: impl FnOnce(AuditEvent) -> AuditEvent) -> Self {
        if self.revoker.audit.sink().is_some() {
            let known = self.about.take();
            let event = AuditEvent::new(AuditKind::Revoke(self.change.target.kind()));
            self.about = Some(describe(known.unwrap_or(event)));
        }
        self
    }

    /// Of the token that names the target: for the lists of other programs, and for the audit.
    #[cfg(feature = "sessions")]
    pub(crate) fn by_token(mut self, token: &VerifiedToken) -> Self {
        self.change.origin = RevocationOrigin::Token(token.clone());
        self.about(|event| event.about_token(token))
    }

    /// Of something with which these end too: for the lists of other programs.
    #[cfg(feature = "sessions")]
    pub(crate) fn ending(mut self, targets: Vec<Target>) -> Self {
        self.change.origin = RevocationOrigin::Ends(targets.into());
        self
    }

    /// As it would have been then.
    #[cfg(feature = "sessions")]
    pub(crate) fn asked_at(mut self, asked_at: Option<Timestamp>) -> Self {
        if let Some(asked_at) = asked_at {
            self.change = self.change.as_of(asked_at);
        }
        self
    }

    /// For this reason, if the revoker has none of its own.
    #[cfg(feature = "sessions")]
    pub(crate) fn usual_reason(mut self, reason: &str) -> Self {
        self.change.reason.get_or_insert_with(|| reason.into());
        self
    }

    /// Sends it while `look` goes on, and then tells the audit whose the target is, by what that
    /// has found.
    #[cfg(feature = "sessions")]
    pub(crate) async fn while_looking<T>(
        self,
        look: impl Future<Output = T>,
        owner: impl FnOnce(&T) -> Option<&str>,
    ) -> (Result<Receipt, StoreError>, T) {
        let revoker = self.revoker.clone();
        let (change, mut event) = self.begin(&revoker);
        let write = revoker.write_matched(change.map(|change| vec![change]), Vec::new());
        let (written, found) = futures::join!(write, look);
        event.learn(|event| event.with_subject(owner(&found)));
        event.end(|event| match &written {
            Err(error) if error.kind() != StoreErrorKind::Unmatched => {
                event.with_error(&error.chain()).failed()
            }
            _ => event,
        });
        (written.and_then(only_receipt), found)
    }

    /// How much is revoked. Default: see [`Revoker::revoke`].
    pub fn extent(mut self, extent: Extent) -> Self {
        self.change.action = Action::Revoke(extent);
        self
    }

    /// Leaves the tokens of the session with this id as they are: "sign out everywhere else".
    /// Earlier revocations still cover it, and later ones will. Its tokens are those of the same
    /// issuer that name it in the session claim of the profile, `sid` by default.
    ///
    /// Only a revocation up to a time can spare a session: with [`Extent::All`] the awaited request
    /// fails with [`InvalidInput`](StoreErrorKind::InvalidInput). Default: no session is spared.
    ///
    /// ```
    /// # use tower_jwt_revocation::{Revoker, Target, store::StoreError};
    /// # async fn f(revoker: Revoker) -> Result<(), StoreError> {
    /// revoker.revoke(Target::user("alice")).sparing("session-1").await?;
    /// # Ok(()) }
    /// ```
    #[doc(alias = "sign out everywhere else")]
    #[doc(alias = "logout other sessions")]
    pub fn sparing(mut self, session: impl AsRef<str>) -> Self {
        self.change.sparing = Some(Target::session(session));
        self
    }

    /// Why, for people. [`Revoker::find`] shows it, and the audit events of refusals. At most 1024
    /// bytes; put no token into it. Default: none.
    pub fn reason(mut self, reason: impl AsRef<str>) -> Self {
        self.change.reason = Some(reason.as_ref().into());
        self
    }

    /// Who does it, for people. It is shown where the reason is. At most 1024 bytes; put no token
    /// into it. Default: none.
    pub fn actor(mut self, actor: impl AsRef<str>) -> Self {
        self.change.actor = Some(actor.as_ref().into());
        self
    }

    /// Whose token or session it is, for the audit: the event then appears in the history of this
    /// user, see [`AuditEvent::with_subject`]. It is not stored in the record. Default: the user of
    /// the [token](Revoker::revoke_token), if there is one; for an id nobody.
    ///
    /// ```
    /// # use tower_jwt_revocation::store::StoreError;
    /// # use tower_jwt_revocation::{Revoker, Target};
    /// # async fn f(revoker: Revoker) -> Result<(), StoreError> {
    /// revoker.revoke(Target::token("jti-7")).of_user("alice").actor("support:7").await?;
    /// # Ok(()) }
    /// ```
    #[doc(alias = "user_id")]
    pub fn of_user(self, user: impl AsRef<str>) -> Self {
        self.about(|event| event.with_subject(Some(user.as_ref())))
    }

    /// Adds a field to the audit event, such as the address that the request came from; see
    /// [`AuditEvent::with_field`]. It is not stored in the record. Default: none.
    pub fn fact(self, name: &'static str, text: &str) -> Self {
        self.about(|event| event.with_field(name, Some(text)))
    }

    /// When the token expires, for a [token](crate::Target::token) that is known by its id alone:
    /// the record is kept until then, with the leeway, and no longer. Default: as long as an
    /// accepted token can be valid. For any other target, whose tokens expire at different times,
    /// the awaited request fails with [`InvalidInput`](StoreErrorKind::InvalidInput).
    ///
    /// # Security
    /// Do not let strangers choose the time: a token that expires later than it would be accepted
    /// again.
    pub fn until(mut self, expires_at: Timestamp) -> Self {
        self.expires_at = self.expires_at.max(Some(expires_at));
        self
    }

    /// Keeps the record at least this long from now. Default: as the profile or
    /// [`until`](Self::until) says. It can only be made longer, because a record must outlive the
    /// tokens that it covers.
    pub fn lifetime(mut self, lifetime: Duration) -> Self {
        self.lifetime = self.lifetime.max(Some(lifetime));
        self
    }

    /// The change with the times that were asked for.
    fn change(&self) -> Result<Revocation, StoreError> {
        let mut change = self.change.clone();
        if let Some(expires_at) = self.expires_at {
            expire_at(&mut change, expires_at)?;
        }
        change.lifetime = change.lifetime.max(self.lifetime.unwrap_or_default());
        Ok(change)
    }

    /// What `writer` is to write, and the event of it.
    fn begin(self, writer: &Revoker) -> (Result<Revocation, StoreError>, Pending) {
        let change = if self.revoker.writes_as(writer) {
            self.change()
        } else {
            let problem =
                "the request was made by a revoker with another store, profile or default issuer";
            Err(invalid(problem.into()))
        };
        let Self { revoker, change: asked_for, about, .. } = self;
        (change, revoker.begin(|| AuditEvent::of_change(&asked_for).and(about)))
    }
}

impl IntoFuture for RevokeRequest {
    type Output = Result<Receipt, StoreError>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        async move {
            let revoker = self.revoker.clone();
            revoker.send(vec![self]).await.and_then(only_receipt)
        }
        .boxed()
    }
}

impl Revoker {
    /// Says again that a session is revoked that was, now that it is known what ends with it: for
    /// the lists of other programs. It is no event of its own.
    ///
    /// # Errors
    /// [`StoreError`] if it was not confirmed.
    #[cfg(feature = "sessions")]
    pub(crate) async fn tell_lists(
        &self,
        session: Target,
        ends: Vec<Target>,
    ) -> Result<(), StoreError> {
        let change = self.revoke(session).ending(ends).change()?;
        // A cutoff would be a later one.
        if change.action == Action::Revoke(Extent::All) {
            self.check_and_write(vec![change]).await?;
        }
        Ok(())
    }

    /// Sends these requests as one write.
    pub(super) async fn send(
        &self,
        requests: Vec<RevokeRequest>,
    ) -> Result<Vec<Receipt>, StoreError> {
        let (changes, events): (Vec<_>, _) =
            requests.into_iter().map(|request| request.begin(self)).unzip();
        self.write_matched(changes.into_iter().collect(), events).await
    }

    /// Writes revocations, and says so if no token could match them.
    async fn write_matched(
        &self,
        changes: Result<Vec<Revocation>, StoreError>,
        events: Vec<Pending>,
    ) -> Result<Vec<Receipt>, StoreError> {
        let targets = self.targets_to_match(&changes);
        // Written in any case: that no layer is known is no proof that there is none. What the
        // write has told of the store says how much is known.
        let receipts = self.write_or_keep(changes, events).await?;
        match self.expect_matched(&targets).await {
            Err(error) if error.kind() == StoreErrorKind::Unmatched => Err(without_effect(&error)),
            _ => Ok(receipts),
        }
    }
}

/// The answer to one change.
fn only_receipt(receipts: Vec<Receipt>) -> Result<Receipt, StoreError> {
    receipts.into_iter().next().ok_or_else(|| {
        StoreError::new(
            StoreErrorKind::Protocol,
            "the store confirmed nothing; the write may be repeated",
        )
    })
}

/// A change of a token that expires then.
fn expire_at(change: &mut Revocation, expires_at: Timestamp) -> Result<(), StoreError> {
    if !matches!(change.target.kind(), TargetKind::Token | TargetKind::SigningInput) {
        return Err(invalid(format!(
            "the {} has no time at which it expires; see RevokeRequest::lifetime",
            change.target.kind()
        )));
    }
    change.until = change.until.max(TokenProfile::forget_token_at(expires_at));
    change.lifetime = Duration::ZERO;
    Ok(())
}

/// A reinstatement that has not been sent yet. Await it.
#[derive(Clone, Debug)]
#[must_use = "nothing is reinstated until this is awaited"]
pub struct ReinstateRequest(pub(super) RevokeRequest);

impl ReinstateRequest {
    /// Why, for people: shown by [`Revoker::find`]. At most 1024 bytes. Default: none.
    pub fn reason(self, reason: impl AsRef<str>) -> Self {
        Self(self.0.reason(reason))
    }

    /// Who does it, for people. At most 1024 bytes. Default: none.
    pub fn actor(self, actor: impl AsRef<str>) -> Self {
        Self(self.0.actor(actor))
    }

    /// Adds a field to the audit event, as [`RevokeRequest::fact`].
    pub fn fact(self, name: &'static str, text: &str) -> Self {
        Self(self.0.fact(name, text))
    }

    /// Keeps the record at least this long from now. Default: as the profile says; it can only be
    /// made longer.
    pub fn lifetime(self, lifetime: Duration) -> Self {
        Self(self.0.lifetime(lifetime))
    }
}

impl IntoFuture for ReinstateRequest {
    type Output = Result<Receipt, StoreError>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        self.0.into_future()
    }
}

/// Why a token given as a string was not revoked.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum RevokeError {
    /// The token could never be accepted. RFC 7009 §2.2: answer the client as if it had been
    /// revoked.
    Token(crate::token::TokenError),
    /// The write was not confirmed. RFC 7009 §2.2.1: answer 503, the client repeats it.
    Store(StoreError),
}

impl fmt::Display for RevokeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Token(error) => write!(f, "there is nothing to revoke: {error}"),
            Self::Store(error) => {
                write!(f, "the revocation was not confirmed and may be repeated: {error}")
            }
        }
    }
}

impl std::error::Error for RevokeError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Token(error) => error.source(),
            Self::Store(error) => error.source(),
        }
    }
}
