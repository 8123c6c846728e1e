//! Erasing what is kept of a user.

use std::collections::{BTreeMap, BTreeSet};

use super::calls::all;
use super::documents::CountedMembers;
use super::list::{EndedSession, SessionList};
use super::sessions::Sessions;
use crate::revocation::Target;
use crate::store::StoreError;

impl Sessions {
    /// Erases what is kept of a user, for example when an account is deleted. First it ends
    /// everything, as [`end_all`](Self::end_all) with `None`.
    ///
    /// It removes the list of sessions with their details, the trusted devices, the places where
    /// the sessions are listed, and their families of refresh tokens. It does so also for up to 100
    /// sessions that ended before, those that would be kept the longest; others are forgotten at
    /// the end of the lifetime of their refresh tokens. The records of what is revoked stay as long
    /// as they cover a token, so that nothing revoked is accepted again: under fingerprints,
    /// without ids, reasons and actors ([`Revoker::erase_names`](crate::Revoker::erase_names)).
    /// `SECURITY.md` has a table of what is kept, for how long, and why.
    ///
    /// After this call, which is an audit event itself, the caller has to erase the rest: what the
    /// audit sink keeps (`RedisAuditSink::forget`), families without a session
    /// ([`Families::forget`](super::Families::forget)), and names in records of its own targets,
    /// such as single tokens. A later login of this user begins anew.
    ///
    /// ```
    /// # use tower_jwt_revocation::session::Sessions;
    /// # use tower_jwt_revocation::store::redis::RedisAuditSink;
    /// # use tower_jwt_revocation::store::StoreError;
    /// # async fn f(sessions: Sessions, audit: RedisAuditSink) -> Result<(), StoreError> {
    /// sessions.forget("alice").await?;
    /// audit.forget("alice").await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`StoreError`] if not everything was confirmed: something may be left then, even if
    /// everything has ended. Repeat it. A revocation that stays
    /// [pending](crate::Revoker::with_outbox) is an error too.
    #[doc(alias = "GDPR")]
    #[doc(alias = "right to erasure")]
    #[doc(alias = "delete account")]
    #[doc(alias = "erase")]
    pub async fn forget(&self, user: &str) -> Result<(), StoreError> {
        // What is done later would write names again.
        let at_once = self.with_revoker(self.revoker().without_outbox());
        let key = self.target(Target::user(user))?;
        at_once.revoker().revoke(Target::user(user)).await?;
        // From here on they are no sessions, so that nobody says of them again where they are. The
        // list names them until the end: an erasure that fails finds them when it is repeated.
        self.index.change(&key, None, |list: &mut SessionList, _| list.set_aside()).await?;
        let known = self.index.read_document(&key).await?;
        let list: SessionList = known.read()?.unwrap_or_default();
        at_once.revoke_sessions(&list.outgoing, "the user was erased").await?;

        let places: BTreeMap<_, _> = list.left_of_sessions().collect();
        let devices = places.iter().map(|(session, left)| (*session, left.device.as_deref()));
        self.index.remove_places(&devices.collect()).await?;
        let of_sessions = places.iter().flat_map(|(session, left)| {
            let device = left.device.as_deref().map(Target::device);
            let ids = [Target::session(*session), Target::family(&*left.family)];
            ids.into_iter().chain(device)
        });
        let trusted = list.trusted.keys().map(|device| Target::device(&**device));
        let named = std::iter::once(Target::user(user)).chain(of_sessions).chain(trusted);
        self.revoker().erase_names(named.collect::<Vec<_>>()).await?;
        all(places.values().map(|left| self.families().remove(&left.family))).await?;
        let erased = |now: &mut SessionList, _| now.drop_all_of(&list).then(Vec::new);
        self.index.change(&key, None, erased).await.map(drop)
    }
}

impl SessionList {
    /// Makes all sessions [outgoing](Self::outgoing), and says which are counted no longer; nothing
    /// if there is none.
    fn set_aside(&mut self) -> Option<CountedMembers> {
        let members: Vec<_> =
            self.sessions.iter().map(|session| (session.id.clone(), None)).collect();
        self.outgoing.append(&mut self.sessions);
        (!members.is_empty()).then_some(members)
    }

    /// What may be left of sessions that have ended or were set aside, by their ids.
    fn left_of_sessions(&self) -> impl Iterator<Item = (&str, EndedSession)> {
        let outgoing = self.outgoing.iter().map(|it| (&*it.id, EndedSession::from(it.clone())));
        outgoing.chain(self.ended.iter().map(|(id, left)| (&**id, left.clone())))
    }

    /// Drops what the other list has set aside; what has come since stays. Whether there was any.
    fn drop_all_of(&mut self, other: &Self) -> bool {
        let outgoing = other.outgoing.iter().map(|session| &session.id);
        let erased: BTreeSet<_> = outgoing.chain(other.ended.keys()).collect();
        let before = self.clone();
        self.outgoing.retain(|session| !erased.contains(&session.id));
        self.ended.retain(|id, _| !erased.contains(id));
        self.trusted.retain(|device, trust| other.trusted.get(device) != Some(&*trust));
        *self != before
    }
}
