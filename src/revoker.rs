//! [`Revoker`]: the write side.
//!
//! It turns "log out alice" into a [`Revocation`] that the check will find. It takes the issuer and
//! the lifetime of the record from the [`TokenProfile`] by which tokens are accepted.

mod confirm;
mod outbox;
mod request;
mod unmatched;

use std::fmt;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::{BoxFuture, try_join_all};

use crate::audit::{AuditEvent, AuditKind, AuditSink, AuditTrail, Pending, holds_token};
use crate::config::ConfigError;
use crate::metrics::Metrics;
use crate::recently_revoked::RecentlyRevoked;
#[cfg(feature = "sessions")]
use crate::revocation::AcceptedTargets;
use crate::revocation::{
    Action, Extent, MAX_ID_BYTES, Record, Revocation, RevocationOrigin, Target, TargetKind,
};
use crate::store::{
    ListQuery, Needs, Receipt, RecordPage, RevocationStore, StoreError, StoreErrorKind,
};
#[cfg(feature = "issuer")]
use crate::token::issue::NewToken;
use crate::token::{CrateOnly, TokenProfile, TokenVerifier};
use crate::verified::VerifiedToken;
pub use confirm::ConfirmError;
use outbox::{Attempt, Outbox};
pub use request::{ReinstateRequest, RevokeError, RevokeRequest};
use unmatched::LayersKnown;

/// The write side: revokes and reinstates targets, looks up and lists records. Cheap to clone.
///
/// After `Ok`, every check that starts later sees the revocation, in every process that shares the
/// store. A process with a [`Mirror`](crate::Mirror) sees it within the maximal staleness;
/// [`confirm`](RevokeRequest::confirm) waits for that. After an error, the revocation may or may
/// not have happened, and may be repeated.
///
/// ```
/// # use tower_jwt_revocation::{MemoryStore, Revoker, Target, TokenProfile};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let revoker = Revoker::new(MemoryStore::new(), TokenProfile::new())?;
/// revoker.revoke(Target::user("alice")).reason("password changed").actor("support:7").await?;
/// assert!(revoker.find(Target::user("alice")).await?.is_some());
/// # Ok(()) }
/// ```
#[doc(alias = "denylist")]
#[doc(alias = "blocklist")]
#[doc(alias = "blacklist")]
#[derive(Clone)]
pub struct Revoker {
    store: Arc<dyn RevocationStore>,
    profile: Arc<TokenProfile>,
    least: LeastLifetime,
    /// To whom ids belong that name no issuer, where the profile has several.
    default_issuer: Option<Arc<str>>,
    audit: AuditTrail,
    /// What the layer remembers, that a reinstatement has to end.
    recently_revoked: Option<Arc<RecentlyRevoked>>,
    /// What could not be confirmed.
    outbox: Option<Outbox>,
    /// What layers on the store accept.
    layers: LayersKnown,
    /// Whether a revocation that no token could match is an error.
    tells_unmatched: bool,
    /// Why and by whom, where a request does not say it.
    reason: Option<Arc<str>>,
    actor: Option<Arc<str>>,
}

impl Revoker {
    /// A revoker of the tokens that `profile` accepts. A process that also checks tokens uses
    /// [`JwtRevocationLayer::revoker`](crate::JwtRevocationLayer::revoker) instead. A process that
    /// only revokes needs the profile of those that check: the same issuers, and the largest of
    /// their lifetimes.
    ///
    /// The layers on a store say which targets their tokens can have. A revocation that no token of
    /// any layer can match is still written, in case another layer comes, but the answer is an
    /// error ([`Unmatched`](StoreErrorKind::Unmatched)): usually this revoker has a wrong profile.
    /// If no layer has said anything within a week, nothing is known, and every revocation gets its
    /// receipt. See [`could_match`](Self::could_match) and
    /// [`allow_unmatched_targets`](Self::allow_unmatched_targets).
    ///
    /// # Security
    /// If there are refresh tokens and this process has no `Sessions`, say with
    /// [`extend_shared_retention`](Self::extend_shared_retention) how long they are valid: the
    /// record of a user or a session must outlive them too.
    ///
    /// # Errors
    /// [`ConfigError`] if the profile cannot work.
    pub fn new(store: impl RevocationStore, profile: TokenProfile) -> Result<Self, ConfigError> {
        profile.validate()?;
        let audit = AuditTrail::default();
        let (store, profile) = (Arc::new(store), Arc::new(profile));
        let revoker = Self::from_parts(store, profile, LeastLifetime::default(), None, audit);
        Ok(Self { tells_unmatched: true, ..revoker })
    }

    pub(crate) fn from_parts(
        store: Arc<dyn RevocationStore>,
        profile: Arc<TokenProfile>,
        least: LeastLifetime,
        recently_revoked: Option<Arc<RecentlyRevoked>>,
        audit: AuditTrail,
    ) -> Self {
        store.expect_tokens_for(profile.retention());
        Self {
            store,
            profile,
            least,
            default_issuer: None,
            audit,
            recently_revoked,
            outbox: None,
            layers: LayersKnown::default(),
            tells_unmatched: false,
            reason: None,
            actor: None,
        }
    }

    /// Targets that name no issuer belong to `issuer`: for a program that issues tokens itself and
    /// accepts those of others too. [`Sessions`](crate::session::Sessions) with this revoker belong
    /// to this issuer. Default: if the profile has several issuers, each target must name one.
    ///
    /// # Errors
    /// [`ConfigError`] if the profile does not know the issuer.
    pub fn with_default_issuer(mut self, issuer: impl AsRef<str>) -> Result<Self, ConfigError> {
        let issuer = issuer.as_ref();
        if issuer.is_empty() || !self.profile.knows_issuer(issuer) {
            return Err(ConfigError::new(
                "default_issuer",
                format!("`{issuer}` is not one of the issuers of the profile"),
            ));
        }
        self.default_issuer = Some(issuer.into());
        Ok(self)
    }

    /// To whom ids belong that name no issuer; empty for the nameless one.
    ///
    /// # Errors
    /// The names of all issuers, if there are several to choose from.
    pub(crate) fn own_issuer(&self) -> Result<&str, Vec<&str>> {
        self.default_issuer.as_deref().map_or_else(|| self.profile.only_issuer(), Ok)
    }

    /// What this revoker revokes is for this reason, unless a request gives another.
    #[cfg(feature = "sessions")]
    pub(crate) fn set_reason(&mut self, reason: &str) {
        self.reason = Some(reason.into());
    }

    /// What this revoker revokes is done by this actor, unless a request names another.
    #[cfg(feature = "sessions")]
    pub(crate) fn set_actor(&mut self, actor: &str) {
        self.actor = Some(actor.into());
    }

    /// From now on, keeps every record of a session, a family, a user and so on at least this long.
    /// It is for refresh tokens, which are revoked with these targets and outlive access tokens.
    /// The records of single tokens are kept as before. Default: as long as an access token that
    /// the profile accepts can be valid, with the leeway.
    ///
    /// **Shared**: it applies to this revoker, its clones, the revoker that it was cloned from and,
    /// if that comes from a layer, all revokers of that layer. It can only be made longer, so that
    /// no part of a program revokes refresh tokens for a shorter time than another.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use tower_jwt_revocation::{MemoryStore, Revoker, TokenProfile};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let revoker = Revoker::new(MemoryStore::new(), TokenProfile::new())?;
    /// revoker.extend_shared_retention(Duration::from_secs(30 * 24 * 60 * 60));
    /// # Ok(()) }
    /// ```
    pub fn extend_shared_retention(&self, at_least: Duration) {
        self.least.raise(at_least);
    }

    /// Sends an event to `sink` for everything that this revoker revokes or reinstates, and for
    /// attempts that failed. Default: none.
    #[must_use]
    pub fn with_audit(mut self, sink: impl AuditSink) -> Self {
        let counts = Arc::clone(self.audit.counts());
        self.audit = AuditTrail::new(Some(Arc::new(sink)), counts);
        self
    }

    /// The metrics of this revoker, its clones, the `Sessions` that use it, and its store: for a
    /// process that only writes. A process that also checks tokens uses
    /// [`JwtRevocationLayer::metrics`](crate::JwtRevocationLayer::metrics), which has these too.
    pub fn metrics(&self) -> Metrics {
        Metrics {
            requests: None,
            store: Arc::clone(&self.store),
            audit: self.audit.sink().cloned(),
            operations: Arc::clone(self.audit.counts()),
        }
    }

    /// Repeats revocations that the store could not confirm, such as a logout while Redis is away,
    /// until each is confirmed. It keeps up to `most` of them, in the order of the calls. Default:
    /// none; the caller repeats it.
    ///
    /// The caller still gets the error, because nothing is confirmed. The error [is
    /// pending](StoreError::is_pending), so an application may answer 202 instead of 503. A cutoff
    /// is the time of the call. A revocation that is confirmed later has an audit event of its own.
    /// Reinstatements are not kept: done later, they could undo what was revoked meanwhile. If
    /// there is no room, or repeating does not help, the error is not pending.
    ///
    /// Clones share it; [`pending`](Self::pending) says how many there are. `Sessions` with this
    /// revoker keep in it what ends one session. Of a call that ends several sessions (all of a
    /// user, those on a device) it keeps only the revocation. That ends the sessions, but they stay
    /// listed in the store, and foreign lists of families do not learn of them. Repeat such a call.
    ///
    /// # Security
    /// It is in the memory of this process: what is pending when the process ends is lost. Until
    /// the store has a revocation, other processes accept the tokens.
    #[must_use]
    pub fn with_outbox(mut self, most: NonZeroUsize) -> Self {
        self.outbox = Some(Outbox::new(most));
        self
    }

    /// How many revocations are in the [outbox](Self::with_outbox), which are not confirmed yet.
    pub fn pending(&self) -> usize {
        self.outbox.as_ref().map_or(0, Outbox::len)
    }

    /// The same revoker, which keeps nothing: for attempts that are repeated as a whole.
    pub(crate) fn without_outbox(&self) -> Self {
        Self { outbox: None, ..self.clone() }
    }

    /// Keeps what has failed with this error in the outbox, if there is one and it can help. The
    /// error says so. `token` is one that is to be refused meanwhile by this process, as far as it
    /// does not hear otherwise.
    pub(crate) fn keep_trying(
        &self,
        error: StoreError,
        token: Option<&VerifiedToken>,
        attempt: Attempt,
    ) -> StoreError {
        let Some(outbox) = self.outbox.as_ref().filter(|_| error.may_be_repeated()) else {
            return error;
        };
        if !outbox.keep(attempt) {
            return error;
        }
        if let (Some(known), Some(token)) = (&self.recently_revoked, token) {
            known.note(token, TargetKind::Token, self.profile.now());
        }
        error.pending()
    }

    /// Writes revocations, or keeps them.
    async fn write_or_keep(
        &self,
        changes: Result<Vec<Revocation>, StoreError>,
        events: Vec<Pending>,
    ) -> Result<Vec<Receipt>, StoreError> {
        let (Some(_), Ok(asked_for)) = (&self.outbox, &changes) else {
            return self.write_and_record(changes, events).await;
        };
        let asked_at = self.profile.now();
        let is_revoked = asked_for.iter().all(|change| matches!(change.action, Action::Revoke(_)));
        let again: Vec<_> = asked_for.iter().map(|change| change.as_of(asked_at)).collect();
        let error = match self.write_and_record(changes, events).await {
            Err(error) if is_revoked => error,
            written => return written,
        };
        let token = again.iter().find_map(|change| {
            let RevocationOrigin::Token(token) = &change.origin else { return None };
            Some(token.clone())
        });
        let revoker = self.without_outbox();
        let attempt = move || {
            let (revoker, changes) = (revoker.clone(), again.clone());
            async move {
                let events: Vec<_> = changes.iter().map(AuditEvent::of_change).collect();
                revoker.check_and_write(changes).await?;
                for event in events {
                    revoker.record_event(|| event.with_field("pending", Some("until now")));
                }
                Ok(())
            }
            .boxed()
        };
        Err(self.keep_trying(error, token.as_ref(), Box::new(attempt)))
    }

    /// Says what is looked for when a refresh token is accepted, as a layer does.
    #[cfg(feature = "sessions")]
    pub(crate) fn expect_refresh_tokens(&self) {
        let accepted = self.profile.accepted_targets().into_iter();
        let accepted: Vec<_> = accepted.map(AcceptedTargets::of_refresh_tokens).collect();
        self.store.expect_targets(&accepted);
    }

    #[cfg(any(feature = "endpoints", feature = "sessions"))]
    pub(crate) fn profile(&self) -> &TokenProfile {
        &self.profile
    }

    /// How long the record of a user or a device is kept.
    #[cfg(feature = "sessions")]
    pub(crate) fn shared_retention(&self) -> Duration {
        self.profile.retention().max(self.least.get())
    }

    /// How long a change of this target has to be kept. Refresh tokens are revoked with what they
    /// belong to, never with a single token.
    fn retention(&self, target: &Target) -> Duration {
        match target.kind() {
            TargetKind::Token | TargetKind::SigningInput => self.profile.retention(),
            _ => self.profile.retention().max(self.least.get()),
        }
    }

    fn revocation(&self, target: Target) -> Revocation {
        let retention = self.retention(&target);
        let mut change = Revocation::new(target, retention);
        (change.reason, change.actor) = (self.reason.clone(), self.actor.clone());
        change
    }

    /// Whether a request of this one may be sent by the other.
    fn writes_as(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.store, &other.store)
            && Arc::ptr_eq(&self.profile, &other.profile)
            && self.default_issuer == other.default_issuer
    }

    pub(crate) fn record_event(&self, event: impl FnOnce() -> AuditEvent) {
        self.audit.record(&event());
    }

    /// The event of something that is about to be done.
    pub(crate) fn begin(&self, event: impl FnOnce() -> AuditEvent) -> Pending {
        Pending::new(self.audit.clone(), event())
    }

    /// Revokes `target`: with [`Extent::All`] if it is a token, a session (unless its id may [come
    /// again](TokenProfile::with_recurring_session_ids)) or a family, else with
    /// [`Extent::IssuedSoFar`]. The record is kept as long as an accepted token can be valid.
    ///
    /// Nothing is sent until you await the returned request; its methods change these defaults. For
    /// a token that is known by its id alone, [`until`](RevokeRequest::until) says when it expires.
    ///
    /// If the issuer reuses session ids, or goes on issuing tokens for a revoked session or family,
    /// the record needs a longer [`lifetime`](RevokeRequest::lifetime).
    #[doc(alias = "logout everywhere")]
    #[doc(alias = "sign out")]
    pub fn revoke(&self, target: Target) -> RevokeRequest {
        let recurs = target.kind() == TargetKind::Session
            && self.profile.has_recurring_sessions(target.issuer_name());
        let mut change = self.revocation(target);
        if recurs {
            change.action = Action::Revoke(Extent::IssuedSoFar);
        }
        self.request(change)
    }

    /// Revokes one token by its id; the record is kept until the token has expired.
    ///
    /// A token without an id is revoked by its signing input, if the profile [allows
    /// that](crate::token::MissingId::SigningInput); otherwise it is an error.
    pub fn revoke_token(&self, token: &VerifiedToken) -> RevokeRequest {
        let target =
            token.target(TargetKind::Token).or_else(|| token.target(TargetKind::SigningInput));
        // A token without a name of its own gets the empty one, which is refused when the request
        // is sent.
        let mut change =
            Revocation::new(target.unwrap_or_else(|| Target::token("")), Duration::ZERO);
        change.until = TokenProfile::forget_token_at(token.expires_at());
        change.origin = RevocationOrigin::Token(token.clone());
        (change.reason, change.actor) = (self.reason.clone(), self.actor.clone());
        self.request(change).about(|event| event.about_token(token))
    }

    /// Revokes a token given as a string. Its signature, header and issuer are verified, so that
    /// nobody can revoke the tokens of others; its times are not (RFC 7009 §2.2).
    ///
    /// # Errors
    /// [`RevokeError::Token`] if the token could never be accepted: there is nothing to revoke
    /// then. [`RevokeError::Store`] if the write was not confirmed.
    pub async fn revoke_raw_token(
        &self,
        verifier: &dyn TokenVerifier,
        token: &str,
    ) -> Result<Receipt, RevokeError> {
        let text = token;
        let token = verifier.verify_to_revoke(text, CrateOnly).map_err(|error| {
            let event = || AuditEvent::new(AuditKind::Revoke(TargetKind::Token));
            self.record_event(|| event().with_reason(Some(&error.to_string())).failed());
            RevokeError::Token(error)
        })?;
        match self.store.needs() {
            Needs::Claims => self.revoke_token(&token),
            needs => self.revoke_token(&token.presented_as(text, needs)),
        }
        .await
        .map_err(RevokeError::Store)
    }

    /// Sends many requests of this revoker, or of its clones, as one write; the receipts are in the
    /// same order.
    ///
    /// Nothing is sent until the returned future is awaited.
    ///
    /// ```
    /// # use tower_jwt_revocation::{MemoryStore, Revoker, Target, TokenProfile};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let revoker = Revoker::new(MemoryStore::new(), TokenProfile::new())?;
    /// let users = ["alice", "bob"].map(Target::user);
    /// revoker.revoke_many(users.map(|user| revoker.revoke(user).reason("leaked"))).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`StoreError`] if the write was not confirmed: none, some or all were revoked, and the call
    /// may be repeated. [`InvalidInput`](StoreErrorKind::InvalidInput) if one of the requests
    /// cannot be sent, or was made by a revoker with another store, profile or default issuer; then
    /// nothing was written. [`Unmatched`](StoreErrorKind::Unmatched) if no layer accepts a token
    /// that one of them could match; then all were written.
    #[must_use = "nothing is revoked until this is awaited"]
    pub fn revoke_many(
        &self,
        requests: impl IntoIterator<Item = RevokeRequest>,
    ) -> BoxFuture<'static, Result<Vec<Receipt>, StoreError>> {
        let (revoker, requests) = (self.clone(), requests.into_iter().collect());
        async move { revoker.send(requests).await }.boxed()
    }

    /// Accepts the tokens of `target` again: undoes every earlier revocation of this same target. A
    /// token that is also revoked through another target stays revoked. So does a token that
    /// another program has put on a foreign list, see
    /// [`ForeignList::with_writes`](crate::store::redis::foreign::ForeignList::with_writes).
    #[doc(alias = "unrevoke")]
    pub fn reinstate(&self, target: Target) -> ReinstateRequest {
        let mut change = self.revocation(target);
        change.action = Action::Reinstate;
        ReinstateRequest(self.request(change))
    }

    /// Erases ids, reasons and actors in the records of these targets, for example when an account
    /// is deleted. `Sessions::forget` (feature `sessions`) does it for all that it knows of a user.
    ///
    /// Revoked tokens stay revoked. [`find`](Self::find) still finds the record under its
    /// [fingerprint](crate::revocation::Fingerprint), as the record of a
    /// [nameless](Target::nameless) target, of kind [`Claim`](TargetKind::Claim). A later
    /// revocation stores names again. Targets without a record are skipped.
    ///
    /// Nothing is sent until the returned future is awaited.
    ///
    /// # Errors
    /// [`StoreError`] if not everything was confirmed, or something is [pending](Self::with_outbox)
    /// and would write names again. The call may be repeated. Of kind
    /// [`InvalidInput`](StoreErrorKind::InvalidInput) if a target is not valid, or the store
    /// [cannot erase](RevocationStore::erase_names).
    #[doc(alias = "GDPR")]
    #[doc(alias = "right to erasure")]
    #[doc(alias = "anonymize")]
    #[must_use = "nothing is erased until this is awaited"]
    pub fn erase_names(
        &self,
        targets: impl IntoIterator<Item = Target>,
    ) -> BoxFuture<'static, Result<(), StoreError>> {
        let targets: Result<Vec<_>, _> =
            targets.into_iter().map(|target| self.complete(target)).collect();
        let revoker = self.clone();
        async move {
            let targets = targets?;
            if revoker.pending() > 0 {
                return Err(StoreError::new(
                    StoreErrorKind::Other,
                    "revocations are pending, which would write names again; nothing was erased, \
                     repeat it when none is",
                ));
            }
            revoker.store.erase_names(targets).await
        }
        .boxed()
    }

    /// The record of `target`, if it has one: what is revoked, since when, why and by whom.
    ///
    /// # Errors
    /// [`StoreError`] if the store could not be asked, or the target is not valid.
    pub async fn find(&self, target: Target) -> Result<Option<Record>, StoreError> {
        let target = self.complete(target)?;
        self.store.find(&target).await
    }

    /// Why a token is refused: every record that covers it, each with its target, reason, actor,
    /// time and end, in the order of the token's [targets](VerifiedToken::targets). Empty if no
    /// revocation covers it.
    ///
    /// A refusal by a mirror or another process tells only the kind of the target; this tells the
    /// rest. [`TokenVerifier::verify_for_revocation`] makes a verified token of a refused one.
    /// Entries of foreign lists are no records, and are not shown.
    ///
    /// # Errors
    /// [`StoreError`] if the store could not be asked, or the token is of an issuer that the
    /// profile of this revoker does not know.
    #[doc(alias = "why")]
    pub async fn explain(&self, token: &VerifiedToken) -> Result<Vec<Record>, StoreError> {
        let found = token.targets().iter().map(|target| self.find(token.describe(target)));
        let records = try_join_all(found).await?;
        Ok(records.into_iter().flatten().filter(|record| record.covers(token)).collect())
    }

    /// Gives a new token an `iat` after all revocations so far of its user and of its other
    /// targets. So a login right after "log out everywhere" works, and you need not carry
    /// [`Receipt::reissue_at`] from one request to the other. `Sessions` (feature `sessions`) do
    /// this by themselves.
    ///
    /// It costs one look-up for each target of the token. What is revoked with [`Extent::All`]
    /// stays refused.
    ///
    /// ```
    /// # use tower_jwt_revocation::store::StoreError;
    /// # use tower_jwt_revocation::token::issue::{IssuedToken, NewToken};
    /// # use tower_jwt_revocation::{Revoker, TokenIssuer};
    /// # async fn f(revoker: Revoker, issuer: TokenIssuer)
    /// # -> Result<(), Box<dyn std::error::Error>> {
    /// let new = revoker.stamp(NewToken::new("alice").with_session("s-1")).await?;
    /// let issued = issuer.issue(&new)?;
    /// # let _ = issued; Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`StoreError`] if the store could not be asked: issue no token then.
    #[cfg(feature = "issuer")]
    #[doc(alias = "reissue_at")]
    pub async fn stamp(&self, new: NewToken) -> Result<NewToken, StoreError> {
        let issuer = self.own_issuer().ok().map(Target::issuer);
        let found = new.names().chain(issuer).map(|target| self.find(target));
        let records = try_join_all(found.collect::<Vec<_>>()).await?;
        let latest = records.iter().flatten().filter_map(Record::reissue_at).max();
        Ok(new.not_before(latest))
    }

    /// A page of the records that are in effect.
    ///
    /// # Errors
    /// [`StoreError`] if the store could not be asked.
    pub async fn list(&self, query: ListQuery) -> Result<RecordPage, StoreError> {
        self.store.list(query).await
    }

    /// How many records are in effect.
    ///
    /// # Errors
    /// [`StoreError`] if the store could not be asked.
    pub async fn count(&self) -> Result<u64, StoreError> {
        self.store.count().await
    }

    fn request(&self, change: Revocation) -> RevokeRequest {
        RevokeRequest::new(self.clone(), change)
    }

    /// Writes the changes, if they can be made, and ends their events.
    async fn write_and_record(
        &self,
        changes: Result<Vec<Revocation>, StoreError>,
        events: Vec<Pending>,
    ) -> Result<Vec<Receipt>, StoreError> {
        let result = match changes {
            Ok(changes) => self.check_and_write(changes).await,
            Err(error) => Err(error),
        };
        for event in events {
            event.end(|event| match &result {
                Ok(_) => event,
                Err(error) => event.with_error(&error.chain()).failed(),
            });
        }
        result
    }

    async fn check_and_write(
        &self,
        mut changes: Vec<Revocation>,
    ) -> Result<Vec<Receipt>, StoreError> {
        for change in &mut changes {
            change.target = self.complete(change.target.clone())?;
            change.outlive_tokens();
            if let Some(session) = change.sparing.take() {
                if change.action == Action::Revoke(Extent::All) {
                    return Err(invalid(
                        "a session can be spared only by what is revoked up to a time".into(),
                    ));
                }
                let session = match change.target.issuer_name() {
                    Some(issuer) => session.issued_by(issuer),
                    None => session,
                };
                change.sparing = Some(self.complete(session)?);
            }
            for (what, words) in [("reason", &change.reason), ("actor", &change.actor)] {
                if words.as_ref().is_some_and(|words| words.len() > MAX_ID_BYTES) {
                    return Err(invalid(format!("the {what} is longer than {MAX_ID_BYTES} bytes")));
                }
                if words.as_deref().is_some_and(holds_token) {
                    return Err(invalid(format!(
                        "there is a token in the {what}, which would be kept; leave it out"
                    )));
                }
            }
        }
        if changes.is_empty() {
            return Ok(Vec::new());
        }
        let reinstates = changes.iter().any(|change| change.action == Action::Reinstate);
        let written = self.store.write(changes).await;
        if written.is_ok() && reinstates {
            self.recently_revoked.as_ref().inspect(|recently_revoked| recently_revoked.clear());
        }
        written
    }

    /// Fills in the issuer and refuses what no accepted token could match.
    pub(crate) fn complete(&self, target: Target) -> Result<Target, StoreError> {
        if target.kind() != TargetKind::Issuer && target.id().is_empty() {
            return Err(invalid(format!("the {} to revoke has an empty id", target.kind())));
        }
        if target.id().len() > MAX_ID_BYTES {
            return Err(invalid(format!(
                "the id of the {} is longer than {MAX_ID_BYTES} bytes",
                target.kind()
            )));
        }
        if target.kind() == TargetKind::Issuer && !self.profile.issues_as(target.id()) {
            return Err(if self.profile.has_issuers() {
                unknown_issuer(target.id())
            } else {
                invalid(
                    "no issuer is configured, so all tokens belong to a nameless one: \
                     Target::issuer(\"\")"
                        .into(),
                )
            });
        }
        if let Some(claim) = target.claim_name()
            && self.profile.target_of_claim(claim, target.issuer_name()) != Some(TargetKind::Claim)
        {
            return Err(invalid(format!(
                "the profile does not map the claim {claim}, so there is nothing to revoke; see \
                 TokenProfile::with_claim_target",
            )));
        }
        let is_fed = !matches!(
            target.kind(),
            TargetKind::User
                | TargetKind::Session
                | TargetKind::Device
                | TargetKind::Family
                | TargetKind::Client
        ) || self.profile.feeds(target.kind(), target.issuer_name());
        if !is_fed {
            return Err(invalid(format!(
                "the profile maps no claim to the {}, so there is nothing to revoke; see \
                 TokenProfile::with_claim_target",
                target.kind()
            )));
        }
        if target.wants_issuer() {
            return match self.own_issuer() {
                Ok(issuer) => Ok(target.issued_by(issuer)),
                Err(issuers) => Err(invalid(format!(
                    "the {} needs an issuer, as there are several: add .issued_by(…) with one of \
                     {}",
                    target.kind(),
                    issuers.join(", "),
                ))),
            };
        }
        match target.issuer_name() {
            Some(issuer)
                if self.profile.has_issuers() && !self.knows_owner(target.kind(), issuer) =>
            {
                if self.profile.has_nameless() {
                    Ok(target.without_issuer())
                } else {
                    Err(unknown_issuer(issuer))
                }
            }
            // Without configured issuers every id belongs to the same nameless one.
            Some(_) if !self.profile.has_issuers() => Ok(target.without_issuer()),
            _ => Ok(target),
        }
    }

    fn knows_owner(&self, kind: TargetKind, issuer: &str) -> bool {
        match kind {
            TargetKind::Key => self.profile.knows_key_owner(issuer),
            _ => self.profile.knows_issuer(issuer),
        }
    }
}

#[cfg(feature = "redis")]
impl crate::store::RevocationWriter for Revoker {
    fn prepare(&self, target: Target) -> Result<Revocation, StoreError> {
        self.complete(target).map(|target| self.revocation(target))
    }

    fn write_all(
        &self,
        revocations: Vec<Revocation>,
    ) -> BoxFuture<'static, Result<Vec<Receipt>, StoreError>> {
        let revoker = self.clone();
        async move {
            let event = |change| revoker.begin(|| AuditEvent::of_change(change));
            let events = revocations.iter().map(event).collect();
            revoker.write_and_record(Ok(revocations), events).await
        }
        .boxed()
    }
}

fn unknown_issuer(issuer: &str) -> StoreError {
    invalid(format!(
        "the issuer {issuer} is not one of the accepted ones, so there is nothing to revoke"
    ))
}

fn invalid(problem: String) -> StoreError {
    StoreError::new(StoreErrorKind::InvalidInput, problem)
}

/// The least time for which records are kept, shared by revokers.
#[derive(Clone, Default)]
pub(crate) struct LeastLifetime(Arc<AtomicU64>);

impl LeastLifetime {
    fn raise(&self, lifetime: Duration) {
        self.0
            .fetch_max(u64::try_from(lifetime.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    fn get(&self) -> Duration {
        Duration::from_millis(self.0.load(Ordering::Relaxed))
    }
}

impl fmt::Debug for Revoker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Revoker").field("profile", &self.profile).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
