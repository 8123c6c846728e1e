//! [`StoreCore`]: what all parts of a Redis store share.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::activity::StoreActivity;
use super::batch::BatchedChecks;
use super::epoch::EpochTracker;
use super::health::{Health, Settling};
use super::options::StoreOptions;
use super::schema::{RedisKeys, SettlingState};
use super::supervised::SupervisedConnection;
use super::topology::Topology;
use super::writers::WriterLogs;
use crate::clock::{Clock as _, SystemClock};
use crate::revocation::AcceptedTargets;
use crate::samples::{Metric, Samples};

/// The connections of a store, and what it knows. Other modules add what can be asked over them.
pub(crate) struct StoreCore {
    pub(crate) options: StoreOptions,
    pub(crate) topology: Arc<Topology>,
    pub(crate) keys: Arc<RedisKeys>,
    pub(crate) tracker: Arc<EpochTracker>,
    /// One for all shards. In a cluster there is one for each shard, so that a primary that is down
    /// affects its own shards only.
    pub(crate) checks: Box<[BatchedChecks]>,
    /// As many as for checks.
    pub(crate) writes: Box<[SupervisedConnection]>,
    /// What this process has written, until every server is sure to have it.
    pub(crate) writers: WriterLogs,
    pub(crate) health_tx: Arc<watch::Sender<Health>>,
    /// What the connections have done.
    pub(crate) activity: Arc<StoreActivity>,
    /// Whether the last cutoff was written while the clocks were too far apart.
    pub(crate) clocks_are_apart: AtomicBool,
    /// What the layers of this process accept. The maintenance task says it to Redis.
    pub(crate) accepted: Mutex<Vec<AcceptedTargets>>,
    /// The maintenance task. It has no strong reference to this value, and ends with it.
    pub(crate) maintenance: OnceLock<JoinHandle<()>>,
}

impl StoreCore {
    /// The connection over which a shard is written to.
    #[expect(
        clippy::indexing_slicing,
        reason = "there is one connection for all shards, or one for each"
    )]
    pub(crate) fn write_connection(&self, shard: u16) -> &SupervisedConnection {
        &self.writes[usize::from(shard) % self.writes.len()]
    }

    /// Says in `health` what is in doubt, as far as this process has read. Says whether that is
    /// new.
    pub(crate) fn tell_doubt(&self, health: &mut Health) -> bool {
        let now = SystemClock.now();
        let settling = self.tracker.settling().map(|SettlingState { since, awaited }| Settling {
            lasts: now.saturating_duration_since(since),
            awaited,
        });
        health.set_doubt(self.tracker.widest_doubt(now), settling)
    }

    pub(crate) fn add_metrics(&self, samples: &mut Samples) {
        let mut health = self.health_tx.borrow().clone();
        self.tell_doubt(&mut health);
        health.add_metrics(SystemClock.now(), samples);
        let shards = 0..self.keys.shards();
        let epochs = shards.filter_map(|shard| Some(self.tracker.known(shard)?.epoch.started_at));
        if let Some(latest) = epochs.max() {
            let since_1970 = Duration::from_millis(latest.as_millis());
            samples.add(Metric::StoreEpochStart, &[], since_1970.as_secs_f64());
        }
        self.activity.add_metrics(samples);
        self.writers.add_metrics(samples);
    }
}
