//! Ending sessions: each is a revocation, and then nothing that has to be right.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{FutureExt as _, TryFutureExt as _};

use super::calls::all;
use super::documents::{StoredDocument, read};
use super::family::Family;
use super::grant::Ended;
use super::index::ListsOfSession;
use super::list::{DeviceSessions, Session, SessionList, SessionLocation};
use super::sessions::{Sessions, stays_listed};
use crate::audit::AuditEvent;
use crate::clock::Timestamp;
#[cfg(feature = "endpoints")]
use crate::revocation::Extent;
use crate::revocation::{Target, TargetKind};
use crate::store::{Receipt, StoreError};
use crate::verified::VerifiedToken;

/// The reason of a revocation that its user asked for.
const SIGNED_OUT: &str = "signed out";

impl Sessions {
    /// Signs out with the token of a request: ends the session and the family of refresh tokens
    /// that the token names, listed here or not, or the token alone, if it names neither. After
    /// `Ok` this token is refused.
    ///
    /// It does not end what is known to be another user's, because a program that signs tokens may
    /// have put a wrong `sid` into one. Then only the token itself ends.
    ///
    /// # Errors
    /// [`StoreError`] if the revocation was not confirmed; the call may be repeated. With an
    /// [outbox](crate::Revoker::with_outbox) of the revoker, the logout is repeated by itself, and
    /// the error [is pending](StoreError::is_pending). Also if the profile of the
    /// [revoker](Self::revoker) does not know the issuer of the token, or the token has no target;
    /// repeating does not help then.
    #[doc(alias = "sign out")]
    #[doc(alias = "log out")]
    pub async fn logout(&self, token: &VerifiedToken) -> Result<(), StoreError> {
        let kept = token.clone();
        self.keep_as_a_whole(Some(token), move |sessions, asked_at| {
            let token = kept.clone();
            async move { sessions.logout_once(&token, asked_at).await }.boxed()
        })
        .await
    }

    /// Does it, or keeps all of it in the outbox, if there is one: what is done later tidies up and
    /// tells the lists of other programs as well. `once` does it, with sessions that keep nothing
    /// themselves; a later attempt is done as of when it was asked for.
    async fn keep_as_a_whole<T: 'static>(
        &self,
        token: Option<&VerifiedToken>,
        once: impl Fn(Self, Option<Timestamp>) -> BoxFuture<'static, Result<T, StoreError>>
        + Send
        + Sync
        + 'static,
    ) -> Result<T, StoreError> {
        let asked_at = self.revoker().profile().now();
        let sessions = self.with_revoker(self.revoker().without_outbox());
        let error = match once(sessions.clone(), None).await {
            Err(error) => error,
            done => return done,
        };
        let attempt = move || once(sessions.clone(), Some(asked_at)).map_ok(drop).boxed();
        Err(self.revoker().keep_trying(error, token, Box::new(attempt)))
    }

    async fn logout_once(
        &self,
        token: &VerifiedToken,
        asked_at: Option<Timestamp>,
    ) -> Result<(), StoreError> {
        let revoker = self.revoker();
        let named = |kind| token.target(kind).map(|target| self.target(target)).transpose();
        let (session, family) = (named(TargetKind::Session)?, named(TargetKind::Family)?);
        let mut named: Vec<_> = [&session, &family].into_iter().flatten().cloned().collect();
        let mut known = Vec::new();
        if !named.is_empty() {
            known = self.store().load(named.clone(), Vec::new()).await?.settled()?.documents;
        }
        let mut known = known.into_iter();
        let mut document = |of: &Option<Target>| of.as_ref().and_then(|_| known.next().flatten());
        let (location, refreshed) = (document(&session), document(&family));
        // What is not there, or cannot be read, keeps nobody signed in.
        let place = location.as_deref().and_then(|text| read::<SessionLocation>(text).ok());
        let refreshed = refreshed.and_then(|text| read::<Family>(&text).ok());
        let owners = [place.as_ref().map(|it| &*it.user), refreshed.as_ref().map(|it| &*it.user)];
        let user = token.target(TargetKind::User);
        let is_caller = |owner: &str| {
            token.subject() == Some(owner) || user.as_ref().is_some_and(|user| user.id() == owner)
        };
        if !owners.into_iter().flatten().all(is_caller) {
            named.clear();
        }
        if named.is_empty() {
            return revoker.revoke_token(token).usual_reason(SIGNED_OUT).await.map(drop);
        }
        let requests = named.into_iter().map(|target| {
            let request = revoker.revoke(target).asked_at(asked_at);
            request.usual_reason(SIGNED_OUT).by_token(token).into_future()
        });
        all(requests).await?;
        if let (Some(key), Some(place), Some(written)) = (session, place, location) {
            let tidied = async {
                let lists = self.index.read_lists(&place).await?;
                self.index.remove_everywhere(key.id(), (&key, written), &place, lists).await
            };
            tidied.await.unwrap_or_else(stays_listed);
        }
        Ok(())
    }

    /// Ends a session: its access tokens and its refresh tokens. The id is revoked even if there is
    /// no such session.
    ///
    /// # Errors
    /// [`StoreError`] if the revocation was not confirmed. It may be repeated; an
    /// [outbox](crate::Revoker::with_outbox) of the revoker repeats it by itself.
    #[doc(alias = "kill session")]
    #[doc(alias = "logout")]
    #[doc(alias = "sign out")]
    pub async fn end(&self, id: &str) -> Result<(), StoreError> {
        let id: Box<str> = id.into();
        self.keep_as_a_whole(None, move |sessions, asked_at| {
            let id = id.clone();
            async move { sessions.end_once(&id, asked_at).await }.boxed()
        })
        .await
    }

    async fn end_once(&self, id: &str, asked_at: Option<Timestamp>) -> Result<(), StoreError> {
        let key = self.target(Target::session(id))?;
        let request = self.revoker().revoke(Target::session(id)).asked_at(asked_at);
        let (revoked, place) = request
            .while_looking(self.index.read_location(&key), |place| match place {
                Ok(Some((place, _))) => Some(&*place.user),
                Ok(None) | Err(_) => None,
            })
            .await;
        let receipt = revoked?;
        let lists = async {
            let Some((place, written)) = place? else { return Ok(None) };
            let lists = self.index.read_lists(&place).await?;
            Ok(Some((place, written, lists)))
        };
        self.tidy_up_after_one((id, &key), &receipt, lists.await).await
    }

    /// Ends a session if it belongs to this user, as [`end`](Self::end): for requests in which a
    /// user, who is known by an access token, names a session. A forgotten session has no known
    /// owner, so it is not found and nothing is revoked. To sign out the caller, use
    /// [`logout`](Self::logout).
    ///
    /// # Errors
    /// [`StoreError`] if the store could not be asked or did not confirm. It may be repeated; an
    /// [outbox](crate::Revoker::with_outbox) of the revoker repeats it by itself.
    #[doc(alias = "kill session")]
    pub async fn end_of(&self, user: &str, id: &str) -> Result<Ended, StoreError> {
        let (user, id): (Box<str>, Box<str>) = (user.into(), id.into());
        self.keep_as_a_whole(None, move |sessions, asked_at| {
            let (user, id) = (user.clone(), id.clone());
            async move { sessions.end_of_once(&user, &id, asked_at).await }.boxed()
        })
        .await
    }

    async fn end_of_once(
        &self,
        user: &str,
        id: &str,
        asked_at: Option<Timestamp>,
    ) -> Result<Ended, StoreError> {
        let key = self.target(Target::session(id))?;
        let Some((place, written)) =
            self.index.read_location(&key).await?.filter(|(place, _)| *place.user == *user)
        else {
            return Ok(Ended::NotFound);
        };
        let revoked = self.revoker().revoke(Target::session(id)).asked_at(asked_at);
        let revoked = revoked.about(|event| event.with_subject(Some(user))).into_future();
        let (revoked, lists) = futures::join!(revoked, self.index.read_lists(&place));
        let receipt = revoked?;
        let lists = lists.map(|lists| Some((place, written, lists)));
        self.tidy_up_after_one((id, &key), &receipt, lists).await?;
        Ok(Ended::Done)
    }

    /// Ends everything of a user except the session `but`: sessions, families without a session,
    /// tokens of no session or of one that is not listed here, and the trust in all devices except
    /// that of `but`. The tokens of `but` are accepted without interruption. With `None`, nothing
    /// is excepted.
    ///
    /// Other revocations of `but` still count: earlier cutoffs cover what they covered, and a later
    /// `end_all` with `None`, or with another session, ends it.
    ///
    /// # Errors
    /// [`StoreError`] if not everything was confirmed. It may be repeated.
    #[doc(alias = "logout everywhere")]
    #[doc(alias = "sign out everywhere")]
    #[doc(alias = "kill sessions")]
    pub async fn end_all(&self, user: &str, but: Option<&str>) -> Result<(), StoreError> {
        let key = self.target(Target::user(user))?;
        let everything = self.revoker().revoke(Target::user(user));
        let receipt = match but {
            Some(but) => everything.sparing(but).await?,
            None => everything.await?,
        };
        // Each session is revoked by its id as well: a session that was dated past the cutoff of
        // something else it belongs to, set by the clock of another shard, may be dated later than
        // this one.
        let known = self.index.read_document(&key).await?;
        let Some(list) = known.read::<SessionList>()? else { return Ok(()) };
        let listed = list.sessions.into_iter().chain(list.outgoing);
        let gone: Vec<_> = listed.filter(|session| Some(&*session.id) != but).collect();
        self.revoke_sessions(&gone, "all sessions of the user were ended").await?;
        // The trust in a device that was revoked before is not to come back.
        let good = match but {
            Some(_) => self.trusted_devices(user).await?,
            None => Vec::new(),
        };
        let distrust = |list: &mut SessionList| {
            let kept = but.and_then(|but| list.session_mut(but)?.details.device.clone());
            list.trusted.retain(|device, _| Some(device) == kept.as_ref());
            // So that it outlives the session.
            for (device, trust) in &mut list.trusted {
                if good.iter().any(|good| good.id == *device && good.since == trust.since) {
                    trust.since = trust.since.max(receipt.reissue_at.unwrap_or_default());
                }
            }
        };
        self.tidy_up_after(&key, Some(known), &gone, distrust).await;
        Ok(())
    }

    /// Ends what a user had at `until`: revokes what was issued up to then, and all that has come
    /// out of the sessions that had begun.
    #[cfg(feature = "endpoints")]
    pub(crate) async fn end_begun_until(
        &self,
        user: &str,
        until: Timestamp,
        reason: &str,
    ) -> Result<(), StoreError> {
        let key = self.target(Target::user(user))?;
        let cutoff = self.revoker().revoke(Target::user(user)).reason(reason);
        cutoff.extent(Extent::IssuedUntil(until)).await?;
        let known = self.index.read_document(&key).await?;
        let Some(list) = known.read::<SessionList>()? else { return Ok(()) };
        let sessions = list.sessions.into_iter();
        let gone: Vec<_> = sessions.filter(|session| session.created_at <= until).collect();
        self.revoke_sessions(&gone, reason).await?;
        let ids: Vec<_> = gone.iter().map(|session| &*session.id).collect();
        let unlisted = self.index.change(&key, Some(known), |list: &mut SessionList, _| {
            list.take_off(|session| ids.contains(&&*session.id));
            Some(ids.iter().map(|id| ((*id).into(), None)).collect())
        });
        let tidied =
            async { futures::try_join!(unlisted, self.index.remove_from_devices(&gone)).map(drop) };
        tidied.await.unwrap_or_else(stays_listed);
        Ok(())
    }

    /// Ends the sessions of a user on a device, and the trust in it: for requests in which a user,
    /// who is known by an access token, names a device. Sessions of others on the device go on, and
    /// so does what was issued for the device without a session. [`Ended::NotFound`] if the user
    /// has no session on it and does not trust it.
    ///
    /// # Errors
    /// [`StoreError`] if not everything was confirmed. It may be repeated.
    #[doc(alias = "kill device")]
    pub async fn end_device_of(&self, user: &str, device: &str) -> Result<Ended, StoreError> {
        self.target(Target::device(device))?;
        let key = self.target(Target::user(user))?;
        let known = self.index.read_document(&key).await?;
        let Some(list) = known.read::<SessionList>()? else { return Ok(Ended::NotFound) };
        let is_trusted = list.trusted.contains_key(device);
        let is_on_it = |session: &Session| session.details.device.as_deref() == Some(device);
        let listed = list.sessions.into_iter().chain(list.outgoing);
        let gone: Vec<_> = listed.filter(is_on_it).collect();
        if gone.is_empty() && !is_trusted {
            return Ok(Ended::NotFound);
        }
        if is_trusted {
            self.distrust_device(user, device).await?;
        }
        self.revoke_sessions(&gone, "the sessions of the user on the device were ended").await?;
        self.tidy_up_after(&key, None, &gone, |_| {}).await;
        Ok(Ended::Done)
    }

    /// Ends all sessions on a device, of all users, and whatever else was issued for it so far.
    ///
    /// # Errors
    /// [`StoreError`] if not everything was confirmed. It may be repeated.
    pub async fn end_device(&self, device: &str) -> Result<(), StoreError> {
        let key = self.target(Target::device(device))?;
        self.revoker().revoke(Target::device(device)).await?;
        let known = self.index.read_document(&key).await?;
        let Some(places) = known.read::<DeviceSessions>()? else { return Ok(()) };
        let requests = places
            .sessions
            .iter()
            .map(|(id, place)| self.revoker().revoke(Target::session(&**id)).of_user(&*place.user));
        let receipts = self.revoker().revoke_many(requests).await?;
        let mut by_user: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for ((id, place), receipt) in places.sessions.iter().zip(&receipts) {
            by_user.entry(&place.user).or_default().push(id);
            if !receipt.unlisted.is_empty() {
                let user = self.target(Target::user(&*place.user))?;
                let known = self.index.read_document(&user).await?;
                self.tell_lists(id, receipt, &known).await?;
            }
        }
        let forgotten = places.sessions.keys().map(|id| self.index.remove_location(id));
        let unlisted = by_user.iter().map(|(user, ids)| self.index.remove_from_user(user, ids));
        let displaced = self.index.change(&key, Some(known), |list: &mut DeviceSessions, _| {
            list.sessions.retain(|id, _| !places.sessions.contains_key(id));
            Some(Vec::new())
        });
        let tidied =
            async { futures::try_join!(all(unlisted), all(forgotten), displaced).map(drop) };
        tidied.await.unwrap_or_else(stays_listed);
        Ok(())
    }

    // === What they have in common ===

    pub(super) async fn revoke_sessions(
        &self,
        sessions: &[Session],
        reason: &str,
    ) -> Result<(), StoreError> {
        let mut requests = Vec::new();
        for session in sessions {
            let request = self.revoker().revoke(Target::session(&*session.id));
            let request = request.usual_reason(reason);
            let about = |event: AuditEvent| {
                event.with_subject(Some(&session.user)).with_family(Some(&session.family))
            };
            let family = self.target(Target::family(&*session.family))?;
            requests.push(request.about(about).ending(vec![family]).into_future());
        }
        all(requests).await.map(drop)
    }

    /// Tells the lists of other programs of the family of a session that was revoked, if there are
    /// any that have not heard of it and the family is known.
    async fn tell_lists(
        &self,
        id: &str,
        receipt: &Receipt,
        known: &StoredDocument,
    ) -> Result<(), StoreError> {
        if receipt.unlisted.is_empty() {
            return Ok(());
        }
        let Some(list) = known.read::<SessionList>()? else { return Ok(()) };
        let mut listed = list.sessions.iter().chain(&list.outgoing);
        let Some(session) = listed.find(|session| *session.id == *id) else {
            return Ok(());
        };
        let family = self.target(Target::family(&*session.family))?;
        self.revoker().tell_lists(Target::session(id), vec![family]).await
    }

    /// Takes a session that was revoked out of where it is listed, after the lists of other
    /// programs were told. `found` is where it is listed, if that is known.
    async fn tidy_up_after_one(
        &self,
        (id, key): (&str, &Target),
        receipt: &Receipt,
        found: Result<Option<(SessionLocation, Bytes, ListsOfSession)>, StoreError>,
    ) -> Result<(), StoreError> {
        match found {
            Ok(Some((place, written, lists))) => {
                self.tell_lists(id, receipt, lists.of_user()).await?;
                let tidied = self.index.remove_everywhere(id, (key, written), &place, lists);
                tidied.await.unwrap_or_else(stays_listed);
            }
            Ok(None) => {}
            // There are lists to tell of its family, and its family is not known.
            Err(error) if !receipt.unlisted.is_empty() => return Err(error),
            Err(error) => stays_listed(error),
        }
        Ok(())
    }

    /// Takes sessions of a user that were revoked out of where they are listed.
    async fn tidy_up_after(
        &self,
        user: &Target,
        known: Option<StoredDocument>,
        gone: &[Session],
        also: impl Fn(&mut SessionList) + Send + Sync,
    ) {
        let ids: Vec<_> = gone.iter().map(|session| &*session.id).collect();
        let unlisted = self.index.change(user, known, |list: &mut SessionList, _| {
            list.take_off(|session| ids.contains(&&*session.id));
            also(list);
            Some(ids.iter().map(|id| ((*id).into(), None)).collect())
        });
        let tidied =
            async { futures::try_join!(unlisted, self.index.remove_from_devices(gone)).map(drop) };
        tidied.await.unwrap_or_else(stays_listed);
    }
}
