//! What the feed of every store does alike: the public suite, run for the feeds of this crate.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tower_jwt_revocation::RedisStore;
use tower_jwt_revocation::testing::{StoreFixture, Suite};

use crate::fixtures::{InMemory, OnRedis};
use crate::servers::{Cluster, RedisServer, redis_is_installed};

/// Stores on a server that can be flushed.
struct OnFlushedRedis {
    server: RedisServer,
    stores: AtomicUsize,
    shards: u16,
}

impl StoreFixture for OnFlushedRedis {
    type Store = RedisStore;

    async fn store(&self) -> RedisStore {
        let prefix = format!("s{}", self.stores.fetch_add(1, Ordering::SeqCst));
        let generous = Duration::from_secs(10);
        let builder = RedisStore::builder().with_url(self.server.url()).with_prefix(prefix);
        // A busy machine may take its time; the rules are about what is answered, not when.
        let builder = builder.with_connect_timeout(Duration::from_secs(10));
        let builder = builder.with_check_timeout(generous).with_write_timeout(generous);
        builder.with_shards(self.shards).connect().await.unwrap()
    }

    async fn lose_data(&self, _: &RedisStore) -> bool {
        self.server.cli(&["FLUSHALL"]);
        true
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_feed_of_memory_conforms() {
    Suite::of_feed(&InMemory).assert_conforms().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_feed_of_redis_conforms() {
    if !redis_is_installed() {
        return;
    }
    for shards in [1, 5] {
        let stores =
            OnFlushedRedis { server: RedisServer::start(), stores: AtomicUsize::new(0), shards };
        Suite::of_feed(&stores).assert_conforms().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_feeds_of_a_cluster_conform() {
    if !redis_is_installed() {
        return;
    }
    let cluster = tokio::task::spawn_blocking(Cluster::start).await.unwrap();
    Suite::of_feed(&OnRedis::new(cluster.url(), 6, cluster)).assert_conforms().await;
}
