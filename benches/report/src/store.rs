//! The store by this crate, and what is filled into it.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tower_jwt_revocation::{RedisStore, Revoker, Target};

use crate::support::profile;

/// A store that is not hurried: what is slow shall be measured, not refused.
pub async fn store(redis: &str) -> RedisStore {
    let limit = Duration::from_secs(10);
    let store =
        RedisStore::builder().with_url(redis).with_check_timeout(limit).with_write_timeout(limit);
    store.with_max_in_flight(50_000).connect().await.unwrap()
}

/// Fills Redis with so many revocations of sessions, as the write side does it.
pub async fn fill(redis: &str, live: u64) {
    let revoker = Arc::new(Revoker::new(store(redis).await, profile()).unwrap());
    let mut tasks = JoinSet::new();
    for from in (0..live).step_by(500) {
        if tasks.len() >= 8 {
            tasks.join_next().await.unwrap().unwrap();
        }
        let revoker = Arc::clone(&revoker);
        tasks.spawn(async move {
            let revoke = |n| revoker.revoke(Target::session(format!("live-{n}")));
            revoker.revoke_many((from..(from + 500).min(live)).map(revoke)).await.unwrap();
        });
    }
    tasks.join_all().await;
}
