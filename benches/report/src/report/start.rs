//! How long a mirror takes to start, against a bare client that reads the same bytes with the same
//! commands, and keeps none of them. Both take turns.

use std::time::Instant;

use serde::{Deserialize, Serialize};
use tower_jwt_revocation::Mirror;
use tower_jwt_revocation_report::follower::Follower;
use tower_jwt_revocation_report::machine::median;
use tower_jwt_revocation_report::server::Redis;
use tower_jwt_revocation_report::store::{fill, store};

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Boot {
    pub entries: u64,
    pub fill_secs: f64,
    pub boot_secs: f64,
    pub bare_secs: f64,
    pub bytes_each: f64,
}

/// How often each starts: a long start is its own average.
fn turns(entries: u64) -> usize {
    if entries > 1_000_000 { 1 } else { 3 }
}

pub fn boot(redis: &Redis, entries: u64) -> Boot {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let start = Instant::now();
        fill(redis.url(), entries).await;
        let fill_secs = start.elapsed().as_secs_f64();
        let (mut bare, mut ours, mut bytes_each) = (Vec::new(), Vec::new(), 0.0);
        for turn in 0..turns(entries) {
            let start = Instant::now();
            let mut follower = Follower::connect(redis.address(), turn).await.unwrap();
            follower.beat().await.unwrap();
            assert!(follower.boot().await.unwrap() >= entries);
            follower.beat().await.unwrap();
            bare.push(start.elapsed().as_secs_f64());

            let store = store(redis.url()).await;
            let start = Instant::now();
            let mirror = Mirror::new(store).unwrap();
            mirror.ready().await;
            ours.push(start.elapsed().as_secs_f64());
            let status = mirror.status();
            assert!(status.entries as u64 >= entries, "{status:?}");
            bytes_each = status.bytes as f64 / status.entries as f64;
        }
        let (bare_secs, boot_secs) = (median(bare), median(ours));
        Boot { entries, fill_secs, boot_secs, bare_secs, bytes_each }
    })
}
