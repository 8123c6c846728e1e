//! A store that is a list of numbers: nothing but the mirror in front of it is measured.
#![allow(dead_code, missing_docs, unreachable_pub, reason = "compiled into several benches")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tower_jwt_revocation::clock::Timestamp;
use tower_jwt_revocation::revocation::{Fact, Fingerprint};
use tower_jwt_revocation::store::feed::{Feed, Heartbeat, LogEntry, Progress, SnapshotPage};
use tower_jwt_revocation::store::{Doubt, StoreError};
use tower_jwt_revocation::{MemoryStore, Mirror};

/// A number as a fingerprint, spread as SHA-256 spreads them.
pub fn name(n: u64) -> Fingerprint {
    let mut bits = n.wrapping_add(0x9E37_79B9_7F4A_7C15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    bits ^= bits >> 31;
    Fingerprint::from_bytes((u128::from(bits) << 64 | u128::from(n)).to_be_bytes())
}

fn until(n: u64) -> Timestamp {
    Timestamp::now().saturating_add(Duration::from_secs(3600 + n % 86_400))
}

/// A snapshot of so many revocations, and a log of as many more as `written` says.
#[derive(Default)]
pub struct Numbers {
    pub entries: u64,
    pub written: Arc<AtomicU64>,
    /// Whether its data is at another server than before.
    pub is_settling: Arc<AtomicBool>,
}

/// A mirror of so many revocations in one shard, and of a second shard that settles.
pub async fn beside_a_settling_shard(entries: u64, max_staleness: Duration) -> Mirror {
    let shards = [entries, 0].map(|entries| Numbers { entries, ..Numbers::default() });
    let is_settling = Arc::clone(&shards[1].is_settling);
    let mirror = Mirror::of(MemoryStore::new(), shards.into());
    let mirror = mirror.with_max_staleness(max_staleness).start().unwrap();
    mirror.ready().await;
    is_settling.store(true, Ordering::SeqCst);
    let mut status = mirror.watch_status();
    status.wait_for(|status| status.doubt() == Doubt::Settling).await.unwrap();
    mirror
}

impl Feed for Numbers {
    async fn connect(&mut self) -> Result<(), StoreError> {
        Ok(())
    }

    async fn heartbeat(&mut self, _: Progress) -> Result<Heartbeat, StoreError> {
        let seq = self.written.load(Ordering::SeqCst);
        let is_settling = self.is_settling.load(Ordering::SeqCst);
        let doubt = if is_settling { Doubt::Settling } else { Doubt::None };
        Ok(Heartbeat::new(1, seq, Timestamp::now(), doubt))
    }

    async fn tail(&mut self) -> Result<u128, StoreError> {
        Ok(u128::from(self.written.load(Ordering::SeqCst)))
    }

    async fn count(&mut self) -> Result<u64, StoreError> {
        Ok(self.entries)
    }

    async fn snapshot(&mut self, cursor: Option<u64>) -> Result<SnapshotPage, StoreError> {
        let from = cursor.unwrap_or(0);
        let to = (from + 2000).min(self.entries);
        let facts = (from..to).map(|n| (name(n), Fact::revoked_until(until(n)))).collect();
        Ok(SnapshotPage { facts, next: (to < self.entries).then_some(to) })
    }

    async fn find(&mut self, names: &[Fingerprint]) -> Result<Vec<Option<Fact>>, StoreError> {
        Ok(vec![None; names.len()])
    }

    async fn read(&mut self, after: u128, wait: Duration) -> Result<Vec<LogEntry>, StoreError> {
        let after = u64::try_from(after).unwrap_or(u64::MAX);
        let last = self.written.load(Ordering::SeqCst);
        if after == last {
            tokio::time::sleep(wait.min(Duration::from_millis(1))).await;
        }
        let last = last.min(after + 1000);
        let entry = |seq: u64| LogEntry {
            id: u128::from(seq),
            epoch: 1,
            seq,
            fingerprint: name(self.entries + seq),
            fact: Fact::revoked_until(until(seq)),
        };
        Ok((after + 1..=last).map(entry).collect())
    }

    async fn replay(&mut self, _: &[(Fingerprint, Fact)]) -> Result<(), StoreError> {
        Ok(())
    }

    fn owns(&self, _: &Fingerprint) -> bool {
        true
    }

    async fn leave(&mut self) {}
}
