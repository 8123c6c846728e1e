//! Signing in: one family, one session, and room for it in the list of its user.

use super::calls::{Attempts, invalid, out_of_attempts};
use super::documents::{CountedMembers, SessionDocument as _, StoredDocument, read};
use super::families::{issue_at, started};
use super::grant::{Grant, NewFamily, Refresh, Refusal};
use super::index::take_off;
use super::list::{Session, SessionDetails, SessionList};
use super::login::{Login, NewSession, check_data, shorten};
use super::sessions::{Sessions, stays_listed};
use super::token::random_id;
use super::turns::Turn;
use crate::clock::Timestamp;
use crate::revocation::Target;
use crate::store::StoreError;
use crate::store::session::{Committed, Seen};

impl Sessions {
    /// Begins a session of this user, whom the application has authenticated, and its family of
    /// refresh tokens. If another session has to end for it, that is revoked after the new one is
    /// committed, and before this returns.
    ///
    /// Simultaneous logins of one user take turns within a process, so that each costs the same;
    /// those of several processes try again after a conflict.
    ///
    /// A login that overlaps a revocation of its user is either not covered by it or does not
    /// happen. A login that starts later works, and its access token has an `iat` after the cutoff,
    /// see [`Grant::issued_at`](super::Grant::issued_at).
    ///
    /// # Errors
    /// [`StoreError`] if it was not confirmed. A session that was written nevertheless is useless
    /// without its tokens.
    pub async fn login(
        &self,
        user: impl AsRef<str> + Send,
        mut details: SessionDetails,
    ) -> Result<Login, StoreError> {
        check_data(details.data.as_ref())?;
        shorten(&mut details);
        let new = NewSession { user: user.as_ref().into(), details };
        let event = self.families().begin_login(&new.family(None));
        let result = self.try_login(&new).await;
        let outcome = match &result {
            Ok(Login::Granted(grant)) => Ok(Refresh::Granted(grant.clone())),
            Ok(Login::Revoked(by)) => Ok(Refresh::Refused(Refusal::Revoked(by.clone()))),
            Ok(Login::TooMany) => Err(invalid("the user has as many sessions as are allowed")),
            Err(error) => Err(error.clone()),
        };
        event.end(|event| started(event, &outcome));
        result
    }

    async fn try_login(&self, new: &NewSession) -> Result<Login, StoreError> {
        let user = self.target(Target::user(&*new.user))?;
        let in_use = self.index.turns.of(&user);
        let mut attempts = Attempts::new();
        'anew: while attempts.next().await {
            // Another one each time: what an attempt has left behind may have been ended by name.
            let id = random_id()?;
            let family = new.family(Some(id.clone()));
            let targets = self.families().targets_of_new(&family)?;
            let changes = in_use.changes();
            let mut snapshot =
                self.store().load(vec![user.clone()], targets.clone()).await?.settled()?;
            let first = match self.families().first(&family, &snapshot)? {
                Ok(first) => first,
                Err(Refusal::Revoked(by)) => return Ok(Login::Revoked(by)),
                Err(_) => return Err(invalid("the login was refused")),
            };
            let mut grant = first.grant;
            let session = self.session(&id, new, &grant, snapshot.now);
            let guards = snapshot.records.clone();
            // What points to the session is written before the session, so that it is found
            // wherever it is listed.
            let (family_done, ()) = futures::try_join!(
                self.store().commit(first.commit.with_guards(guards)),
                self.index.add_location(&session),
            )?;
            if family_done != Committed::Done {
                self.discard(&session).await;
                continue;
            }
            // In turns, so that none of this process reads what another is about to replace.
            let mut turn = in_use.turn().await?;
            let mut is_current = turn.is_first_since(changes);
            loop {
                if !is_current {
                    let seen = snapshot.records;
                    snapshot =
                        self.store().load(vec![user.clone()], targets.clone()).await?.settled()?;
                    if changed(&seen, &snapshot.records) {
                        // The user was revoked meanwhile, and the family is as old as that.
                        self.discard(&session).await;
                        continue 'anew;
                    }
                    (grant.issued_at, grant.reissue_at) = issue_at(&snapshot);
                }
                let before = snapshot.documents.first().cloned().flatten();
                let mut list: SessionList =
                    before.as_deref().map(read).transpose()?.unwrap_or_default();
                let mut members = self.drop_ended(&mut list, snapshot.now).await?;
                let Some(gone) = list.make_room(self.most, self.eviction) else {
                    self.discard(&session).await;
                    return Ok(Login::TooMany);
                };
                members.extend(gone.into_iter().map(|id| (id, None)));
                members.push((session.id.clone(), Some(session.expires_at)));
                list.sessions.push(session.clone());
                let commit = list
                    .commit(&user, before)?
                    .with_guards(snapshot.records.clone())
                    .with_members(members);
                let written = commit.after.clone();
                turn.note_change();
                match self.store().commit(commit).await? {
                    Committed::Done => {
                        let known = StoredDocument { written, now: snapshot.now };
                        self.end_outgoing(&mut turn, &user, list.outgoing, known).await?;
                        return Ok(Login::Granted(grant));
                    }
                    Committed::Overtaken => {
                        // It is listed, and as old as a revocation that came in between.
                        let unlist = |list: &mut SessionList, _| take_off(list, &[&session.id]);
                        let unlisted =
                            self.index.change_in_turn(&mut turn, &user, None, unlist).await;
                        unlisted.map_or_else(stays_listed, drop);
                        self.discard(&session).await;
                        continue 'anew;
                    }
                    Committed::Conflict => is_current = false,
                }
                if !attempts.next().await {
                    break 'anew;
                }
            }
        }
        Err(out_of_attempts())
    }

    /// Revokes the sessions that have made room for one that was listed, and forgets them then.
    async fn end_outgoing(
        &self,
        turn: &mut Turn<'_>,
        user: &Target,
        outgoing: Vec<Session>,
        known: StoredDocument,
    ) -> Result<(), StoreError> {
        if outgoing.is_empty() {
            return Ok(());
        }
        self.revoke_sessions(&outgoing, "another session took its place").await?;
        let is_ended = |session: &Session| outgoing.iter().any(|ended| ended.id == session.id);
        let forget = |list: &mut SessionList, _| {
            list.take_off(is_ended);
            Some(Vec::new())
        };
        let forgotten = self.index.change_in_turn(turn, user, Some(known), forget).await;
        forgotten.map_or_else(stays_listed, drop);
        Ok(())
    }

    fn session(&self, id: &str, new: &NewSession, grant: &Grant, now: Timestamp) -> Session {
        Session {
            id: id.into(),
            user: new.user.clone(),
            family: grant.family.clone(),
            // The family is at least as young as this, so that no cutoff covers the one and not the
            // other.
            created_at: grant.created_at.max(now),
            seen_at: now,
            expires_at: self.lifetimes().end(grant.created_at, now),
            located_until: self.lifetimes().twice().end(grant.created_at, now),
            details: new.details.clone(),
        }
    }

    /// Drops what has ended from a list that is about to be full, and says which members to count
    /// no longer.
    async fn drop_ended(
        &self,
        list: &mut SessionList,
        now: Timestamp,
    ) -> Result<CountedMembers, StoreError> {
        list.forget(now);
        if list.sessions.len() < self.most {
            return Ok(Vec::new());
        }
        let active = self.active(list.sessions.clone(), now).await?;
        // Those are no sessions, so they are not among the active ones, and are not revoked yet.
        let outgoing = std::mem::take(&mut list.outgoing);
        let gone = list.take_off(|session| !active.iter().any(|active| active.id == session.id));
        list.outgoing = outgoing;
        Ok(gone.into_iter().map(|id| (id, None)).collect())
    }

    /// Removes what was written for a session that has not begun. Nobody has its tokens, so if it
    /// stays it does no harm, and ends by itself.
    async fn discard(&self, session: &Session) {
        let removed = async {
            self.index.remove_from_devices(std::slice::from_ref(session)).await?;
            self.families().remove(&session.family).await
        };
        removed.await.unwrap_or_else(stays_listed);
    }
}

impl NewSession {
    fn family(&self, session: Option<Box<str>>) -> NewFamily {
        NewFamily {
            user: self.user.clone(),
            session,
            device: self.details.device.clone(),
            client: self.details.client.clone(),
        }
    }
}

fn changed(before: &[Seen], after: &[Seen]) -> bool {
    before.iter().zip(after).any(|(before, after)| before.stamp != after.stamp)
}
