//! Which targets layers accept, where those who only revoke find it.
//!
//! | key | type | holds |
//! | --- | --- | --- |
//! | `prefix:{0}:p` | zset | [`AcceptedTargets`] as JSON, by when a layer last said so |

use std::sync::{MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;

use super::command::StoreCommand;
use super::core::StoreCore;
use super::reply::read_strings;
use super::script::LuaScript;
use crate::clock::{Clock as _, SystemClock};
use crate::revocation::AcceptedTargets;
use crate::store::{Doubt, StoreError, StoreErrorKind};

/// Waits for no replica: it is said again.
pub(super) const ACCEPT: LuaScript = LuaScript {
    source: include_str!("accept.lua"),
    sha: "ad70a406a8e081ab038c315827e3dfcffd49c3fa",
    writes: false,
};

/// How long it counts after it was last said: a layer that is down for a while will want to know of
/// what was revoked meanwhile.
const KEPT: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// After how long each process has said again what another server does not have: longer than the
/// maintenance task pauses.
const SAID_AGAIN: Duration = Duration::from_secs(12 * 60 * 60);

impl StoreCore {
    /// Notes what a layer of this process accepts, and lets the maintenance task say it.
    pub(crate) fn expect_targets(&self, accepted: &[AcceptedTargets]) {
        let mut known = self.known_accepted();
        for accepted in accepted {
            if !known.contains(accepted) {
                known.push(accepted.clone());
                self.tracker.maintenance_due.notify_one();
            }
        }
    }

    /// Says to Redis what the layers of this process accept.
    ///
    /// # Errors
    /// [`StoreError`] if it has to be said once more. What this process may not say is not known to
    /// others.
    pub(crate) async fn say_accepted(&self) -> Result<(), StoreError> {
        let texts: Vec<_> = self.known_accepted().iter().filter_map(print).collect();
        if texts.is_empty() {
            return Ok(());
        }
        let kept = KEPT.as_millis().to_string();
        let head = [Bytes::from_static(b"1"), self.keys.shard(0).accepted.clone(), kept.into()];
        let arguments = head.into_iter().chain(texts).collect();
        let said = self.send(0, StoreCommand::Script(&ACCEPT), arguments).await.map(drop);
        said.or_else(|error| match error.kind() {
            StoreErrorKind::Unreachable
            | StoreErrorKind::Timeout
            | StoreErrorKind::Overloaded
            | StoreErrorKind::Loading
            | StoreErrorKind::NotPrimary
            | StoreErrorKind::Cluster
            | StoreErrorKind::Settling => Err(error),
            _ => {
                tracing::debug!(error = %error.chain(),
                    "revokers of other processes do not learn which tokens are accepted here");
                Ok(())
            }
        })
    }

    /// What layers have said, in any process. Nothing, if what some of them have said may be
    /// missing.
    pub(crate) async fn accepted_targets(&self) -> Result<Vec<AcceptedTargets>, StoreError> {
        let key = self.keys.shard(0).accepted.clone();
        let all = vec![key, Bytes::from_static(b"-inf"), Bytes::from_static(b"+inf")];
        let said = self.send(0, StoreCommand::Plain("ZRANGEBYSCORE"), all).await?;
        if self.has_forgotten() {
            return Ok(Vec::new());
        }
        let read = |text: &Bytes| serde_json::from_slice(text).ok();
        // What a later release has said in a way of its own may be what matters.
        let said: Option<Vec<AcceptedTargets>> = read_strings(said)?.iter().map(read).collect();
        let Some(mut accepted) = said else { return Ok(Vec::new()) };
        for own in &*self.known_accepted() {
            if !accepted.contains(own) {
                accepted.push(own.clone());
            }
        }
        Ok(accepted)
    }

    /// Whether data was lost, or the server was replaced, a short time ago: not every process has
    /// said again by now what it accepts.
    fn has_forgotten(&self) -> bool {
        let Some(known) = self.tracker.known(0) else { return true };
        let epoch = &known.epoch;
        let is_first = epoch.parent == 0
            && epoch.doubt == Doubt::None
            && epoch.doubt_ended_at.is_none()
            && known.former.is_none();
        !is_first && SystemClock.now() < epoch.started_at.saturating_add(SAID_AGAIN)
    }

    fn known_accepted(&self) -> MutexGuard<'_, Vec<AcceptedTargets>> {
        self.accepted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn print(accepted: &AcceptedTargets) -> Option<Bytes> {
    serde_json::to_vec(accepted).ok().map(Bytes::from)
}
