//! [`StoreCore`]: what all parts of a Redis store share.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};

use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::batch::BatchedChecks;
use super::epoch::EpochTracker;
use super::health::{Health, Settling};
use super::options::StoreOptions;
use super::schema::{RedisKeys, SettlingState};
use super::supervised::SupervisedConnection;
use super::topology::Topology;
use super::writers::WriterLogs;
use crate::clock::{Clock as _, SystemClock};

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
    /// Whether the last cutoff was written while the clocks were too far apart.
    pub(crate) clocks_are_apart: AtomicBool,
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
}
