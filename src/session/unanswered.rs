//! [`Unanswered`]: a refresh that may have been written, and of which its caller heard nothing.
//!
//! A store that does not answer in time may have done what it was asked; a guard on another shard
//! may not be readable after it; the caller may go away. Then nobody holds the successor, and the
//! token that was presented is the parent of one that was never handed out. Whoever presents it
//! again, however late, is no thief. So the document is told, as soon as it can be written again.

use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::{Instant, sleep};

use super::documents::read;
use super::families::Families;
use super::family::Family;
use super::token::TokenDigest;
use crate::revocation::Target;
use crate::store::StoreError;
use crate::store::session::Committed;

/// How long it is tried.
const LIMIT: Duration = Duration::from_secs(60);
/// How long a commit of unknown fate is waited for that has not been done.
const NOT_DONE_LIMIT: Duration = Duration::from_secs(10);
/// The pause before the next attempt doubles between these.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

/// A commit that is under way. Unless it is [answered](Self::answered), a task tells the document,
/// whatever has become of the refresh.
pub(super) struct Unanswered<'a> {
    families: &'a Families,
    id: &'a str,
    presented: TokenDigest,
    successor: TokenDigest,
    is_answered: bool,
}

impl<'a> Unanswered<'a> {
    pub(super) fn new(
        families: &'a Families,
        id: &'a str,
        presented: TokenDigest,
        successor: TokenDigest,
    ) -> Self {
        // A token that is kept has no successor.
        let is_answered = presented == successor;
        Self { families, id, presented, successor, is_answered }
    }

    /// Nothing was written, or the caller hears of it.
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
        let (families, id) = (self.families.clone(), Box::from(self.id));
        let (presented, successor) = (self.presented, self.successor);
        runtime.spawn(async move { tell(&families, id, presented, successor).await });
    }
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

async fn tell(families: &Families, id: Box<str>, presented: TokenDigest, successor: TokenDigest) {
    let (start, mut pause) = (Instant::now(), PAUSE.0);
    loop {
        let limit = match try_to_tell(families, &id, presented, successor).await {
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

async fn try_to_tell(
    families: &Families,
    id: &str,
    presented: TokenDigest,
    successor: TokenDigest,
) -> Result<Found, StoreError> {
    let key = families.target(Target::family(id))?;
    let snapshot = families.store.load(vec![key], Vec::new()).await?.settled()?;
    let Some(before) = snapshot.documents.into_iter().next().flatten() else {
        return Ok(Found::Told);
    };
    let family: Family = read(&before)?;
    if family.current == presented {
        return Ok(Found::NotDone);
    }
    let is_ours = family.current == successor
        && family.parent.as_ref().is_some_and(|parent| parent.digest == presented);
    if !is_ours {
        return Ok(Found::Told);
    }
    let after = family.unanswered();
    if after == family {
        return Ok(Found::Told);
    }
    Ok(match families.store.commit(families.commit(id, Some(before), &after)?).await? {
        Committed::Done | Committed::Overtaken => Found::Told,
        Committed::Conflict => Found::Changed,
    })
}
