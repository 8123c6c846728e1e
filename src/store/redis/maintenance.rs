//! Opening a store, and the maintenance task that keeps its epochs in Redis.

use std::sync::{Arc, Weak};
use std::time::Duration;

use futures::stream::{self, StreamExt as _};
use tokio::time::sleep;

use super::command::RETRY_PAUSE;
use super::connection::{error_code, is_write_refused};
use super::core::StoreCore;
use super::error::ConnectError;
use super::random;
use super::schema::LAYOUT_REMEDY;
use crate::config::ConfigError;
use crate::store::{StoreError, StoreErrorKind};

/// How many shards are touched at once.
const SHARDS_AT_ONCE: usize = 64;
/// How often the expiry of keys without an end of their own is put off.
const TOUCH_INTERVAL: Duration = Duration::from_secs(6 * 60 * 60);
/// How long the task pauses after each round: the first after one that succeeded; it doubles with
/// each that failed, up to the second. While an epoch is missing, every check notifies the task,
/// however often its script is refused.
const PAUSES: [Duration; 2] = [Duration::from_millis(10), Duration::from_secs(1)];

impl StoreCore {
    /// Waits until Redis can be read, begins the epochs and checks that the layout is that of this
    /// version. A server that refuses writes is good enough once the epochs have begun. `last` is
    /// set to the last failure.
    pub(crate) async fn open(
        &self,
        at_once: bool,
        last: &mut StoreError,
    ) -> Result<(), ConnectError> {
        let mut health = self.health_tx.subscribe();
        loop {
            let now = health.borrow_and_update().clone();
            if let Some(error) = now.connection_error() {
                *last = error.clone();
                // A password does not become right by waiting.
                if at_once || error.kind() == StoreErrorKind::Denied {
                    return Err(ConnectError::Store(last.clone()));
                }
            } else if now.is_connected() {
                break;
            }
            if health.changed().await.is_err() {
                return Err(ConnectError::Store(last.clone()));
            }
        }
        for shard in 0..self.keys.shards() {
            while let Err(error) = self.touch(shard).await {
                if error_code(&error) == "LAYOUT" {
                    return Err(self.wrong_layout(&error).into());
                }
                // Reading needs no write, once the epochs have begun. A right does not come by
                // waiting.
                let is_denied = error.kind() == StoreErrorKind::Denied;
                if is_write_refused(&error) && (is_denied || self.tracker.known(shard).is_some()) {
                    // The others are in the log already.
                    if is_denied {
                        self.warn_of_refusal(&error);
                    }
                    break;
                }
                if at_once {
                    return Err(ConnectError::Store(error));
                }
                *last = error;
                sleep(RETRY_PAUSE).await;
            }
        }
        Ok(())
    }

    /// The store is opened, although Redis refuses writes.
    pub(crate) fn warn_of_refusal(&self, error: &StoreError) {
        if (0..self.keys.shards()).all(|shard| self.tracker.known(shard).is_some()) {
            tracing::warn!(error = %error.chain(),
                "redis refuses writes; tokens are checked, and revocations of this process fail");
        } else {
            tracing::warn!(error = %error.chain(),
                "redis refuses writes, and holds no epoch yet: until one has begun, no token can \
                be checked, and the fail mode decides");
        }
    }

    fn wrong_layout(&self, error: &StoreError) -> ConfigError {
        let error = self.explain_layout(error.clone());
        let problem = error.to_string();
        let is_version = problem.contains(LAYOUT_REMEDY);
        ConfigError::new(if is_version { "prefix" } else { "shards" }, problem)
    }
}

/// The maintenance task: runs the script without changes whenever an epoch has to begin or a former
/// epoch to be reported, and every few hours to put off the expiry of its keys.
pub(crate) async fn maintain(core: Weak<StoreCore>) {
    let Some(tracker) = core.upgrade().map(|core| Arc::clone(&core.tracker)) else { return };
    let [shortest, longest] = PAUSES;
    let mut pause_after = shortest;
    let mut has_failed = false;
    loop {
        let pause = if has_failed { pause_after } else { TOUCH_INTERVAL };
        tokio::select! {
            () = tracker.maintenance_due.notified(), if !has_failed => {}
            () = sleep(pause.mul_f64(0.5 + random::fraction() / 2.0)) => {}
        }
        let Some(core) = core.upgrade() else { return };
        // Several at once: if a node of a cluster is down, each of its shards takes the whole time
        // limit of a write.
        let shards = stream::iter(0..core.keys.shards());
        let touched = shards.map(|shard| core.touch(shard)).buffer_unordered(SHARDS_AT_ONCE);
        let failure = touched.collect::<Vec<_>>().await.into_iter().find_map(Result::err);
        drop(core);
        if let Some(error) = failure {
            if !has_failed {
                tracing::warn!(error = %error.chain(),
                    "the epoch of the store in redis could not be prolonged; trying again");
            }
            has_failed = true;
            pause_after = (pause_after * 2).min(longest);
        } else {
            has_failed = false;
            pause_after = shortest;
            sleep(pause_after).await;
        }
    }
}
