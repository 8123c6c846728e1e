//! [`Unanswered`]: a refresh that may have been written, and of which its caller heard nothing.
//!
//! A store that does not answer in time may have done what it was asked; a guard on another shard
//! may not be readable after it; the caller may go away. Then nobody holds the successor, and the
//! token that was presented is the parent of one that was never handed out. Whoever presents it
//! again, however late, is no thief. So the document is told, as soon as it can be written again.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::{Instant, sleep};

use super::documents::{print, read};
use super::family::{Family, RefreshPolicy};
use super::token::TokenDigest;
use crate::revocation::Target;
use crate::store::StoreError;
use crate::store::session::{Commit, Committed, SessionStore};

/// How long it is tried.
const LIMIT: Duration = Duration::from_secs(60);
/// How long a commit of unknown fate is waited for that has not been done.
const NOT_DONE_LIMIT: Duration = Duration::from_secs(10);
/// The pause before the next attempt doubles between these.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

/// A commit that is under way. Unless it is [answered](Self::answered), a task tells the document,
/// whatever has become of the refresh.
pub(super) struct Unanswered<'a> {
    store: &'a Arc<dyn SessionStore>,
    policy: &'a Arc<RefreshPolicy>,
    key: &'a Target,
    presented: TokenDigest,
    successor: TokenDigest,
    is_answered: bool,
}

impl<'a> Unanswered<'a> {
    pub(super) fn new(
        (store, policy): (&'a Arc<dyn SessionStore>, &'a Arc<RefreshPolicy>),
        key: &'a Target,
        presented: TokenDigest,
        successor: TokenDigest,
    ) -> Self {
        // A token that is kept has no successor.
        let is_answered = presented == successor;
        Self { store, policy, key, presented, successor, is_answered }
    }

    /// Nothing was written for sure, or the caller hears of it.
    pub(super) fn answered(mut self) {
        self.is_answered = true;
    }
}

impl Drop for Unanswered<'_> {
    fn drop(&mut self) {
        if self.is_answered {
            return;
        }
        // Without a runtime nothing can be waited for.
        let Ok(runtime) = Handle::try_current() else { return };
        let task = Teller {
            store: Arc::clone(self.store),
            policy: Arc::clone(self.policy),
            key: self.key.clone(),
            presented: self.presented,
            successor: self.successor,
        };
        runtime.spawn(async move { task.tell().await });
    }
}

/// Tells the document.
struct Teller {
    store: Arc<dyn SessionStore>,
    policy: Arc<RefreshPolicy>,
    key: Target,
    presented: TokenDigest,
    successor: TokenDigest,
}

/// What the document said.
enum Found {
    /// The commit was not done, or is not yet.
    NotDone,
    /// It was changed meanwhile; it is read again.
    Changed,
    /// It knows, or has gone on.
    Told,
}

impl Teller {
    async fn tell(&self) {
        let (start, mut pause) = (Instant::now(), PAUSE.0);
        loop {
            let limit = match self.try_to_tell().await {
                Ok(Found::Told) => return,
                Ok(Found::NotDone) => NOT_DONE_LIMIT,
                Ok(Found::Changed) | Err(_) => LIMIT,
            };
            if start.elapsed() > limit {
                return;
            }
            sleep(pause).await;
            pause = pause.saturating_mul(2).min(PAUSE.1);
        }
    }

    async fn try_to_tell(&self) -> Result<Found, StoreError> {
        let snapshot = self.store.load(vec![self.key.clone()], Vec::new()).await?.settled()?;
        let Some(before) = snapshot.documents.into_iter().next().flatten() else {
            return Ok(Found::Told);
        };
        let family: Family = read(&before)?;
        if family.current == self.presented {
            return Ok(Found::NotDone);
        }
        let after = family.unanswered();
        let is_ours = family.current == self.successor
            && family.parent.as_ref().is_some_and(|parent| parent.digest == self.presented);
        if !is_ours || after == family {
            return Ok(Found::Told);
        }
        let until = after.expires_at(&self.policy);
        let commit = Commit::new(self.key.clone(), Some(before), Some(print(&after)?), until);
        Ok(match self.store.commit(commit).await? {
            Committed::Done | Committed::Overtaken => Found::Told,
            Committed::Conflict => Found::Changed,
        })
    }
}
