//! [`Families`]: refresh tokens that are rotated, and whose reuse is noticed.
//!
//! [`family`](super::family) decides; this file reads what the decision needs, writes its result,
//! and starts over after a conflict.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::calls::{Attempts, invalid, out_of_attempts};
use super::documents::{print, read};
use super::family::{Family, PresentedToken, RefreshDecision, RefreshPolicy, ReuseClass};
use super::grant::{Ended, Grant, GrantKind, NewFamily, Refresh, Refusal};
use super::token::{
    FamilyKey, ParsedToken, TokenDigest, TokenOrigin, TokenSecret, is_family_id, random_id,
};
use super::token_kind::{ApplicationToken, OpaqueToken, RefreshTokenKind};
use super::unanswered::Unanswered;
use crate::audit::{AuditEvent, AuditKind, Pending};
use crate::clock::Timestamp;
use crate::config::ConfigError;
use crate::revocation::{MAX_ID_BYTES, Record, Target};
use crate::revoker::Revoker;
use crate::store::session::{Commit, Committed, SessionStore, Snapshot};
use crate::store::{Doubt, StoreError};

/// How much longer than a refresh token a revocation is kept: for clocks that are apart.
const MARGIN: Duration = Duration::from_secs(60 * 60);

/// Starts, refreshes and ends families of refresh tokens. Cheap to clone.
///
/// [`Sessions`](super::Sessions) builds on it; use it alone if you keep sessions elsewhere.
///
/// ```
/// # use tower_jwt_revocation::{MemoryStore, Revoker, TokenProfile};
/// use tower_jwt_revocation::session::{Families, NewFamily, Refresh, RefreshPolicy};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let store = MemoryStore::new();
/// let revoker = Revoker::new(store.clone(), TokenProfile::new())?;
/// let families = Families::new(store, revoker, RefreshPolicy::new())?;
///
/// let Refresh::Granted(first) = families.start(NewFamily::of_user("alice")).await? else {
///     unreachable!()
/// };
/// let Refresh::Granted(second) = families.refresh(first.token.expose(), None).await? else {
///     unreachable!()
/// };
/// families.refresh(second.token.expose(), None).await?;
///
/// // Someone has kept the first token.
/// assert!(matches!(families.refresh(first.token.expose(), None).await?, Refresh::Refused(_)));
/// assert!(matches!(families.refresh(second.token.expose(), None).await?, Refresh::Refused(_)));
/// # Ok(()) }
/// ```
#[doc(alias = "refresh token rotation")]
#[derive(Clone)]
pub struct Families {
    pub(super) store: Arc<dyn SessionStore>,
    pub(super) revoker: Revoker,
    pub(super) policy: Arc<RefreshPolicy>,
}

impl Families {
    /// Families in this store, revoked by this revoker, under this policy.
    ///
    /// Every revoker of sessions or users must keep its records as long as refresh tokens are
    /// valid. From now on, clones of `revoker` and all revokers of its layer do so; in other
    /// processes call [`Revoker::extend_shared_retention`].
    ///
    /// # Errors
    /// [`ConfigError`] if the policy cannot work, or the token profile of the revoker accepts
    /// several issuers without a [default](Revoker::with_default_issuer), because families belong
    /// to one.
    pub fn new(
        store: impl SessionStore,
        revoker: Revoker,
        policy: RefreshPolicy,
    ) -> Result<Self, ConfigError> {
        policy.validate()?;
        if revoker.own_issuer().is_err() {
            return Err(ConfigError::new(
                "issuer",
                "the profile of the revoker accepts several, and families belong to one; say \
                 which with Revoker::with_default_issuer",
            ));
        }
        revoker.extend_shared_retention(policy.idle + MARGIN);
        revoker.expect_refresh_tokens();
        Ok(Self { store: Arc::new(store), revoker, policy: Arc::new(policy) })
    }

    /// The revoker of these families: its records outlive refresh tokens.
    pub fn revoker(&self) -> &Revoker {
        &self.revoker
    }

    /// Begins a family.
    ///
    /// # Errors
    /// [`StoreError`] if it was not confirmed. A family that was written nevertheless is useless
    /// without its token.
    pub async fn start(&self, new: NewFamily) -> Result<Refresh, StoreError> {
        let event = self.begin_login(&new);
        let result = self.try_start(&new).await;
        event.end(|event| started(event, &result));
        result
    }

    async fn try_start(&self, new: &NewFamily) -> Result<Refresh, StoreError> {
        let mut attempts = Attempts::new();
        while attempts.next().await {
            let snapshot =
                self.store.load(Vec::new(), self.targets_of_new(new)?).await?.settled()?;
            let first = match self.first(new, &snapshot)? {
                Ok(first) => first,
                Err(refusal) => return Ok(Refresh::Refused(refusal)),
            };
            match self.store.commit(first.commit.with_guards(snapshot.records)).await? {
                Committed::Done => return Ok(Refresh::Granted(first.grant)),
                // A revocation came in between. Nobody has the token, so its family can stay.
                Committed::Conflict | Committed::Overtaken => {}
            }
        }
        Err(out_of_attempts())
    }

    /// The event of a login that is about to be tried; see [`started`] for its end.
    pub(super) fn begin_login(&self, new: &NewFamily) -> Pending {
        self.revoker.begin(|| {
            AuditEvent::new(AuditKind::Login)
                .with_subject(Some(&new.user))
                .with_session(new.session.as_deref())
                .with_device(new.device.as_deref())
                .with_client(new.client.as_deref())
        })
    }

    /// The first token of a family, and the commit that makes it valid. Refused if what it would
    /// belong to is revoked altogether; after a cutoff it is dated later than that.
    pub(super) fn first(
        &self,
        new: &NewFamily,
        snapshot: &Snapshot,
    ) -> Result<Result<NewGrant, Refusal>, StoreError> {
        let (id, token_id) = (random_id()?, random_id()?);
        let (key, secret) = (FamilyKey::random()?, TokenSecret::random()?);
        let family = match new_family(new, key, secret.digest(), snapshot) {
            Ok(family) => family,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let token = secret.into_token(&id, 0, &key);
        let commit = self.commit(&id, None, &family)?;
        let grant =
            self.grant(GrantKind::Started, (token, token_id), &id, &family, issue_at(snapshot));
        Ok(Ok(NewGrant { grant, commit }))
    }

    /// Takes a refresh token and returns the next one. `client` is the authenticated OAuth client
    /// that presents it.
    ///
    /// A refresh whose outcome is not known may be repeated within the grace and returns the same
    /// token.
    ///
    /// # Errors
    /// [`StoreError`] if the store could not be asked or did not confirm: answer 503, never
    /// `invalid_grant`.
    #[doc(alias = "token rotation")]
    pub async fn refresh(&self, token: &str, client: Option<&str>) -> Result<Refresh, StoreError> {
        self.refresh_seen_by(&Nobody, token, client).await
    }

    /// As [`refresh`](Self::refresh), with an observer.
    pub(super) async fn refresh_seen_by(
        &self,
        observer: &impl RefreshObserver,
        token: &str,
        client: Option<&str>,
    ) -> Result<Refresh, StoreError> {
        let Some(parsed) = ParsedToken::parse(token) else {
            let refresh = Ok(Refresh::Refused(Refusal::Unknown));
            self.revoker.record_event(|| refreshed(AuditEvent::new(AuditKind::Refresh), &refresh));
            return refresh;
        };
        self.advance(&OpaqueToken(parsed), client, observer).await
    }

    /// Begins a family of refresh tokens that the application mints and signs itself. Only their
    /// ids are known here. `token_id` is the id of the first token; put [`Grant::family`] into that
    /// token, too.
    ///
    /// # Errors
    /// [`StoreError`] if it was not confirmed.
    pub async fn start_with_id(
        &self,
        new: NewFamily,
        token_id: &str,
    ) -> Result<Refresh<Box<str>>, StoreError> {
        let event = self.begin_login(&new);
        let result = self.try_start_with_id(&new, token_id).await;
        event.end(|event| started(event, &result));
        result
    }

    async fn try_start_with_id(
        &self,
        new: &NewFamily,
        token_id: &str,
    ) -> Result<Refresh<Box<str>>, StoreError> {
        let mut attempts = Attempts::new();
        check_token_id(token_id)?;
        while attempts.next().await {
            let snapshot =
                self.store.load(Vec::new(), self.targets_of_new(new)?).await?.settled()?;
            let digest = TokenDigest::of(token_id.as_bytes());
            let family = match new_family(new, FamilyKey::unused(), digest, &snapshot) {
                Ok(family) => family,
                Err(refusal) => return Ok(Refresh::Refused(refusal)),
            };
            let (id, access_token_id) = (random_id()?, random_id()?);
            let commit = self.commit(&id, None, &family)?;
            let issued_at = issue_at(&snapshot);
            match self.store.commit(commit.with_guards(snapshot.records)).await? {
                Committed::Done => {
                    let ids = (token_id.into(), access_token_id);
                    let grant = self.grant(GrantKind::Started, ids, &id, &family, issued_at);
                    return Ok(Refresh::Granted(grant));
                }
                Committed::Conflict | Committed::Overtaken => {}
            }
        }
        Err(out_of_attempts())
    }

    /// Imports a family that another program has begun, under the ids that it has there: `family`,
    /// and `token_id` for the refresh token that its client holds now, or for a hash of it. Nobody
    /// has to sign in again: the client presents its token, the application checks it as before,
    /// and calls [`refresh_id`](Self::refresh_id) with these ids. `created_at` is when the user
    /// signed in: later revocations of the user or the session count, and so does the [maximal
    /// age](RefreshPolicy::with_max_age) from then on. The idle lifetime counts from now.
    /// [`Sessions`](super::Sessions) does not list imported families.
    ///
    /// Returns true if it was imported now. Otherwise it was imported before, and is left as it is,
    /// or it has expired or is revoked. The call may be repeated.
    ///
    /// ```
    /// # use tower_jwt_revocation::{MemoryStore, Revoker, TokenProfile};
    /// use tower_jwt_revocation::clock::Timestamp;
    /// use tower_jwt_revocation::session::{Families, NewFamily, RefreshPolicy};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let store = MemoryStore::new();
    /// # let revoker = Revoker::new(store.clone(), TokenProfile::new())?;
    /// let policy = RefreshPolicy::new().without_max_age();
    /// let families = Families::new(store, revoker, policy)?;
    /// let began = Timestamp::from_secs(1_700_000_000);
    /// let alice = NewFamily::of_user("alice").in_session("s-1");
    /// assert!(families.import(alice, "family-7", "jti-of-the-refresh-token", began).await?);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`StoreError`] if the store could not be asked or did not confirm; if an id is empty or too
    /// long, or `family` has other characters than letters, digits, `-` and `_`: then map such ids
    /// to others.
    #[doc(alias = "migrate")]
    #[doc(alias = "take over")]
    pub async fn import(
        &self,
        new: NewFamily,
        family: &str,
        token_id: &str,
        created_at: Timestamp,
    ) -> Result<bool, StoreError> {
        check_token_id(token_id)?;
        if !is_family_id(family) {
            return Err(invalid(
                "the id of a family must have 1 to 128 letters, digits, `-` or `_`",
            ));
        }
        let key = self.target(Target::family(family))?;
        let mut targets = self.targets_of_new(&new)?;
        targets.push(key.clone());
        let mut attempts = Attempts::new();
        while attempts.next().await {
            let seen = self.store.load(vec![key.clone()], targets.clone()).await?.settled()?;
            if seen.documents.iter().any(Option::is_some) {
                return Ok(false);
            }
            let digest = TokenDigest::of(token_id.as_bytes());
            let Ok(begun) = new_family(&new, FamilyKey::unused(), digest, &seen) else {
                return Ok(false);
            };
            let taken = Family { created_at: created_at.min(seen.now), used_at: seen.now, ..begun };
            let is_over = taken.expires_at(&self.policy) <= seen.now;
            if is_over || taken.revoked_by(&seen.records).is_some() {
                return Ok(false);
            }
            let commit = self.commit(family, None, &taken)?.with_guards(seen.records);
            match self.store.commit(commit).await? {
                Committed::Done => return Ok(true),
                Committed::Conflict => {}
                Committed::Overtaken => {
                    // It is there, and someone has revoked, or changed a record otherwise.
                    let seen = self.store.load(Vec::new(), targets).await?.settled()?;
                    return Ok(taken.revoked_by(&seen.records).is_none());
                }
            }
        }
        Err(out_of_attempts())
    }

    /// Takes the id of a refresh token that the application has minted, and whose signature it
    /// **has checked**. Returns the id of the next token: `next_id`, or for a retry within the
    /// grace the one that was returned before. Mint a token with the id [`Grant::token`]. An id
    /// must never be used twice in a family: make ids random.
    ///
    /// # Errors
    /// [`StoreError`] if the store could not be asked or did not confirm; if `next_id` is empty,
    /// too long, or that of the presented token although tokens are rotated.
    pub async fn refresh_id(
        &self,
        family: &str,
        token_id: &str,
        next_id: &str,
        client: Option<&str>,
    ) -> Result<Refresh<Box<str>>, StoreError> {
        check_token_id(next_id)?;
        if self.policy.rotate && next_id == token_id {
            return Err(invalid("the next refresh token has the id of the one that is presented"));
        }
        if !is_family_id(family) {
            return Ok(Refresh::Refused(Refusal::Unknown));
        }
        let refresh_token = ApplicationToken { family, token_id, next_id };
        self.advance(&refresh_token, client, &Nobody).await
    }

    /// Ends a family: its refresh tokens and all access tokens that came out of it. The id is
    /// revoked even if there is no such family.
    ///
    /// # Errors
    /// [`StoreError`] if the write was not confirmed. It may be repeated.
    pub async fn end(&self, family: &str, reason: Option<&str>) -> Result<(), StoreError> {
        let mut request = self.revoker.revoke(Target::family(family));
        if let Some(reason) = reason {
            request = request.reason(reason);
        }
        request.await.map(drop)
    }

    async fn end_known(&self, id: &str, family: &Family, reason: &str) -> Result<(), StoreError> {
        let request = self.revoker.revoke(Target::family(id)).usual_reason(reason);
        request.about(|event| family.describe(event)).await.map(drop)
    }

    /// Ends a family if it belongs to this user, as [`end`](Self::end): for requests in which a
    /// user, who is known by an access token, names a family. A family that has expired and was
    /// forgotten is not found, and nothing is revoked.
    ///
    /// # Errors
    /// [`StoreError`] if the store could not be asked or did not confirm. It may be repeated.
    pub async fn end_of(&self, user: &str, id: &str) -> Result<Ended, StoreError> {
        let Some(family) = self.read_family(id).await?.filter(|family| *family.user == *user)
        else {
            return Ok(Ended::NotFound);
        };
        self.end_known(id, &family, "its user has ended it").await?;
        Ok(Ended::Done)
    }

    /// Ends a family and erases what is kept of it, which names its user: for families without a
    /// session, for example when an account is deleted.
    /// [`Sessions::forget`](super::Sessions::forget) erases those of sessions.
    ///
    /// Its tokens stay refused: refresh tokens are unknown from now on, and the record covers
    /// access tokens until they expire, without the id of the family, the reason and the actor (see
    /// [`Revoker::erase_names`]).
    ///
    /// # Errors
    /// [`StoreError`] if not everything was confirmed. Repeat it then.
    #[doc(alias = "GDPR")]
    #[doc(alias = "right to erasure")]
    pub async fn forget(&self, family: &str) -> Result<(), StoreError> {
        self.revoker.without_outbox().revoke(Target::family(family)).await?;
        self.revoker.erase_names([Target::family(family)]).await?;
        self.remove(family).await
    }

    /// Removes the document of a family that is revoked, or whose tokens nobody has.
    pub(super) async fn remove(&self, id: &str) -> Result<(), StoreError> {
        let key = self.target(Target::family(id))?;
        let mut attempts = Attempts::new();
        while attempts.next().await {
            let snapshot = self.store.load(vec![key.clone()], Vec::new()).await?.settled()?;
            let Some(written) = snapshot.documents.into_iter().next().flatten() else {
                return Ok(());
            };
            // What cannot be read is removed all the same.
            let known = read::<Family>(&written).ok();
            let until = known.map_or(snapshot.now, |family| family.expires_at(&self.policy));
            let commit = Commit::new(key.clone(), Some(written), None, until);
            if self.store.commit(commit).await? != Committed::Conflict {
                return Ok(());
            }
        }
        Err(out_of_attempts())
    }

    /// Ends the family of an opaque refresh token, if the token is genuine; it need not be the
    /// current one. It is for clients that sign out with it (RFC 7009 §2.1). Returns false if there
    /// was no family to end.
    ///
    /// # Errors
    /// [`StoreError`] if the store could not be asked or did not confirm. It may be repeated.
    #[doc(alias = "token revocation")]
    #[doc(alias = "sign out")]
    pub async fn end_by_token(
        &self,
        token: &str,
        client: Option<&str>,
    ) -> Result<bool, StoreError> {
        let Some(parsed) = ParsedToken::parse(token) else { return Ok(false) };
        let Some(family) = self.read_family(parsed.family).await? else { return Ok(false) };
        let is_bound = family.client.is_some();
        if parsed.origin(&family.key) == TokenOrigin::Foreign
            || (is_bound && family.client.as_deref() != client)
        {
            return Ok(false);
        }
        self.end_known(parsed.family, &family, "its token was handed in").await?;
        Ok(true)
    }

    /// The family of an opaque token, if the token would be taken for the next one now. It is not
    /// taken, and one that was used already ends nothing: whoever asks need not be its holder.
    #[cfg(feature = "endpoints")]
    pub(crate) async fn look_at(&self, token: &str) -> Result<Option<RefreshInfo>, StoreError> {
        let Some(parsed) = ParsedToken::parse(token) else { return Ok(None) };
        let id = parsed.family;
        let key = self.target(Target::family(id))?;
        let first = self.store.load(vec![key], Vec::new()).await?.settled()?;
        let Some(document) = first.documents.first().and_then(Option::as_deref) else {
            return Ok(None);
        };
        let family: Family = read(document)?;
        let token = OpaqueToken(parsed);
        let presented = PresentedToken {
            digest: token.digest(),
            origin: token.origin(&family),
            client: family.client.as_deref(),
        };
        let seen = self.store.load(Vec::new(), self.targets_of(id, &family)?).await?.settled()?;
        let time = (seen.now, first.doubt.joined(seen.doubt), first.moved_at.max(seen.moved_at));
        let is_active = match family.decide(&presented, &seen.records, time, &self.policy) {
            RefreshDecision::Rotate | RefreshDecision::Keep => true,
            RefreshDecision::Behind => return Err(Doubt::Settling.error()),
            _ => false,
        };
        Ok(is_active.then(|| RefreshInfo {
            expires_at: family.expires_at(&self.policy),
            created_at: family.created_at,
            user: family.user,
            client: family.client,
        }))
    }

    async fn read_family(&self, id: &str) -> Result<Option<Family>, StoreError> {
        let key = self.target(Target::family(id))?;
        let snapshot = self.store.load(vec![key], Vec::new()).await?.settled()?;
        snapshot.documents.first().and_then(Option::as_deref).map(read).transpose()
    }

    async fn advance<L: RefreshTokenKind>(
        &self,
        refresh_token: &L,
        client: Option<&str>,
        observer: &impl RefreshObserver,
    ) -> Result<Refresh<L::Token>, StoreError> {
        let mut event = self.revoker.begin(|| AuditEvent::new(AuditKind::Refresh));
        let result = self.try_advance(refresh_token, client, observer, &mut event).await;
        event.end(|event| refreshed(event, &result));
        result
    }

    /// Reads, decides and writes until there is no conflict.
    async fn try_advance<L: RefreshTokenKind>(
        &self,
        refresh_token: &L,
        client: Option<&str>,
        observer: &impl RefreshObserver,
        event: &mut Pending,
    ) -> Result<Refresh<L::Token>, StoreError> {
        let id = refresh_token.family();
        let key = self.target(Target::family(id))?;
        let refused = |refusal| Ok(Refresh::Refused(refusal));
        // Before anything is written: what cannot be granted must not be taken.
        let token_id = random_id()?;
        let mut attempts = Attempts::new();
        while attempts.next().await {
            let first = self.store.load(vec![key.clone()], Vec::new()).await?.settled()?;
            let Some(before) = first.documents.into_iter().next().flatten() else {
                return refused(Refusal::Unknown);
            };
            let family: Family = read(&before)?;
            let presented = PresentedToken {
                digest: refresh_token.digest(),
                origin: refresh_token.origin(&family),
                client,
            };
            // A token that is unknown says nothing for the audit.
            if presented.origin != TokenOrigin::Foreign {
                event.learn(|event| family.describe(event).with_family(Some(id)));
            }
            let mut seen =
                self.store.load(Vec::new(), self.targets_of(id, &family)?).await?.settled()?;
            let time =
                (seen.now, first.doubt.joined(seen.doubt), first.moved_at.max(seen.moved_at));
            let (after, kind, token) =
                match family.decide(&presented, &seen.records, time, &self.policy) {
                    RefreshDecision::Rotate => {
                        let (token, successor, salt) = refresh_token.next(&family)?;
                        (family.rotated(successor, salt, seen.now), GrantKind::Rotated, token)
                    }
                    RefreshDecision::Recover => {
                        let (token, successor, salt) = refresh_token.next(&family)?;
                        (family.recovered(successor, salt, seen.now), GrantKind::Recovered, token)
                    }
                    RefreshDecision::Deliver { seed } => {
                        let token = refresh_token.again(&family, &seed);
                        (family.delivered(seen.now), GrantKind::Replayed, token)
                    }
                    RefreshDecision::Keep => {
                        (family.used(seen.now), GrantKind::Kept, refresh_token.same())
                    }
                    RefreshDecision::Replay { seed } => {
                        let token = refresh_token.again(&family, &seed);
                        let (tokens, issued_at) = ((token, token_id), issue_at(&seen));
                        let grant = self.grant(GrantKind::Replayed, tokens, id, &family, issued_at);
                        return Ok(Refresh::Granted(grant));
                    }
                    RefreshDecision::Reuse(class) => {
                        event.learn(|event| event.of_kind(AuditKind::RefreshReuse));
                        return refused(self.refuse_reuse(id, &family, class).await?);
                    }
                    RefreshDecision::Revoked(by) => return refused(Refusal::Revoked(by)),
                    RefreshDecision::Expired => return refused(Refusal::Expired),
                    // Nothing is ended: the doubt may end after all.
                    RefreshDecision::InDoubt => return refused(Refusal::Lost),
                    RefreshDecision::Behind => return Err(Doubt::Settling.error()),
                    RefreshDecision::Lost => {
                        // Only a holder of an older token could still use this family.
                        self.end_known(id, &family, "the store has lost writes").await?;
                        return refused(Refusal::Lost);
                    }
                    RefreshDecision::WrongClient => return refused(Refusal::WrongClient),
                    RefreshDecision::Unknown => return refused(Refusal::Unknown),
                };
            // Before `touched_at` is written: an observation that fails is repeated at the next
            // refresh.
            let is_noted = observer.saw(&after, seen.now).await;
            let after =
                Family { touched_at: if is_noted { seen.now } else { after.touched_at }, ..after };
            let commit = self.commit(id, Some(before), &after)?.with_guards(seen.records);
            let targets = commit.guards.iter().map(|seen| seen.target.clone()).collect();
            let written_by = (&self.store, &self.policy);
            let unanswered = Unanswered::new(written_by, &key, presented.digest, after.current);
            let committed = match self.store.commit(commit.clone()).await {
                Ok(committed) => committed,
                Err(error) => {
                    if error.is_unwritten() {
                        unanswered.answered();
                    }
                    return Err(error);
                }
            };
            match committed {
                Committed::Done => seen.records = commit.guards,
                Committed::Conflict => {
                    unanswered.answered();
                    continue;
                }
                Committed::Overtaken => {
                    // Someone has revoked, or changed a record in a way that does not matter here.
                    seen = self.store.load(Vec::new(), targets).await?.settled()?;
                    if let Some(by) = after.revoked_by(&seen.records) {
                        unanswered.answered();
                        return refused(Refusal::Revoked(by));
                    }
                }
            }
            unanswered.answered();
            let issued_at = issue_at(&seen);
            let grant = self.grant(kind, (token, token_id), id, &after, issued_at);
            return Ok(Refresh::Granted(grant));
        }
        Err(out_of_attempts())
    }

    /// Ends the family, unless the policy only reports.
    async fn refuse_reuse(
        &self,
        id: &str,
        family: &Family,
        class: ReuseClass,
    ) -> Result<Refusal, StoreError> {
        let ended = !self.policy.report_only;
        if ended {
            self.end_known(id, family, "a used refresh token was presented").await?;
        }
        Ok(match class {
            ReuseClass::Parent => Refusal::ParentReused { ended },
            ReuseClass::Older => Refusal::OlderReused { ended },
            ReuseClass::Superseded => Refusal::SupersededReused { ended },
        })
    }

    fn commit(
        &self,
        id: &str,
        before: Option<Bytes>,
        family: &Family,
    ) -> Result<Commit, StoreError> {
        let key = self.target(Target::family(id))?;
        Ok(Commit::new(key, before, Some(print(family)?), family.expires_at(&self.policy)))
    }

    fn grant<T>(
        &self,
        kind: GrantKind,
        (token, access_token_id): (T, Box<str>),
        id: &str,
        family: &Family,
        (issued_at, reissue_at): (Timestamp, Timestamp),
    ) -> Grant<T> {
        Grant {
            token,
            kind,
            access_token_id,
            family: id.into(),
            user: family.user.clone(),
            session: family.session.clone(),
            device: family.device.clone(),
            client: family.client.clone(),
            issued_at,
            created_at: family.created_at,
            expires_at: family.expires_at(&self.policy),
            reissue_at,
        }
    }

    /// The target as it is known to the checks: with the issuer filled in.
    pub(super) fn target(&self, target: Target) -> Result<Target, StoreError> {
        self.revoker.complete(target)
    }

    /// Everything by which a new family could be revoked already.
    pub(super) fn targets_of_new(&self, new: &NewFamily) -> Result<Vec<Target>, StoreError> {
        let issuer = self.revoker.own_issuer().unwrap_or_default();
        let targets = [
            Some(Target::user(&*new.user)),
            new.session.as_deref().map(Target::session),
            new.device.as_deref().map(Target::device),
            new.client.as_deref().map(Target::client),
            Some(Target::issuer(issuer)),
        ];
        targets.into_iter().flatten().map(|target| self.target(target)).collect()
    }

    fn targets_of(&self, id: &str, family: &Family) -> Result<Vec<Target>, StoreError> {
        let mut targets = self.targets_of_new(&NewFamily {
            user: family.user.clone(),
            session: family.session.clone(),
            device: family.device.clone(),
            client: family.client.clone(),
        })?;
        targets.push(self.target(Target::family(id))?);
        Ok(targets)
    }
}

impl fmt::Debug for Families {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Families")
            .field("revoker", &self.revoker)
            .field("policy", &self.policy)
            .finish_non_exhaustive()
    }
}

/// What is told of a refresh token that is good.
#[cfg(feature = "endpoints")]
pub(crate) struct RefreshInfo {
    pub(crate) user: Box<str>,
    pub(crate) client: Option<Box<str>>,
    pub(crate) created_at: Timestamp,
    pub(crate) expires_at: Timestamp,
}

/// Is informed when a family is in use.
pub(super) trait RefreshObserver: Sync {
    /// A refresh is about to be granted. Returns whether this was noted.
    fn saw(&self, family: &Family, now: Timestamp) -> impl Future<Output = bool> + Send;
}

struct Nobody;

impl RefreshObserver for Nobody {
    async fn saw(&self, _: &Family, _: Timestamp) -> bool {
        false
    }
}

/// A family that is not written yet.
pub(super) struct NewGrant {
    pub(super) grant: Grant,
    pub(super) commit: Commit,
}

/// The event of a login, with what became of it.
pub(super) fn started<T>(event: AuditEvent, result: &Result<Refresh<T>, StoreError>) -> AuditEvent {
    match result {
        Ok(Refresh::Granted(grant)) => {
            let event = event.with_session(grant.session.as_deref());
            event.with_family(Some(&grant.family)).with_token_id(Some(&grant.access_token_id))
        }
        Ok(Refresh::Refused(refusal)) => event.with_reason(Some(refusal.as_str())).failed(),
        Err(error) => event.with_error(&error.chain()).failed(),
    }
}

/// The event of a refresh, with what became of it.
fn refreshed<T>(event: AuditEvent, result: &Result<Refresh<T>, StoreError>) -> AuditEvent {
    match result {
        Ok(Refresh::Granted(grant)) => {
            let reason = match grant.kind {
                GrantKind::Replayed => Some("replayed"),
                GrantKind::Recovered => Some("recovered"),
                _ => None,
            };
            event.with_token_id(Some(&grant.access_token_id)).with_reason(reason)
        }
        Ok(Refresh::Refused(refusal)) => event.with_reason(Some(refusal.as_str())).failed(),
        Err(error) => event.with_error(&error.chain()).failed(),
    }
}

/// A family that begins now, or just after what was revoked; refused if all is revoked, whenever
/// issued.
fn new_family(
    new: &NewFamily,
    key: FamilyKey,
    digest: TokenDigest,
    snapshot: &Snapshot,
) -> Result<Family, Refusal> {
    let records = || snapshot.records.iter().filter_map(|seen| seen.record.as_ref());
    if let Some(record) = records().find(|record| record.revokes_all()) {
        return Err(Refusal::Revoked(record.into()));
    }
    // Cutoffs are compared with `<=`, and the clock may stand where the last one was set.
    let cutoff = records().filter_map(Record::cutoff).max().unwrap_or_default();
    let floor = cutoff.max(snapshot.doubt.issued_until().unwrap_or_default());
    let created_at = snapshot.now.max(floor.saturating_add(Duration::from_millis(1)));
    Ok(Family {
        user: new.user.clone(),
        session: new.session.clone(),
        device: new.device.clone(),
        client: new.client.clone(),
        key,
        created_at,
        used_at: created_at,
        touched_at: created_at,
        generation: 0,
        current: digest,
        parent: None,
    })
}

/// The `iat` of an access token that is granted now, and the first that is neither revoked nor in
/// doubt.
pub(super) fn issue_at(seen: &Snapshot) -> (Timestamp, Timestamp) {
    let records = seen.records.iter().filter_map(|seen| seen.record.as_ref());
    let revoked = records.filter_map(Record::reissue_at).max().unwrap_or_default();
    let after = |until: Timestamp| until.saturating_add(Duration::from_millis(1));
    let doubted = seen.doubt.issued_until().map(after).unwrap_or_default();
    let reissue_at = revoked.max(doubted);
    (seen.now.stamp(reissue_at), reissue_at)
}

fn check_token_id(id: &str) -> Result<(), StoreError> {
    if id.is_empty() || id.len() > MAX_ID_BYTES {
        return Err(invalid(format!(
            "the id of a refresh token must have 1 to {MAX_ID_BYTES} bytes"
        )));
    }
    Ok(())
}

#[cfg(test)]
#[path = "families_tests.rs"]
mod tests;
