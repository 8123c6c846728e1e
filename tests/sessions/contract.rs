//! What every store of sessions does alike: the public suite, run for each of this crate.

use tower_jwt_revocation::testing::Suite;

use super::fixtures::InMemory;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_conforms() {
    Suite::of_session_store(&InMemory).assert_conforms().await;
}

#[cfg(feature = "redis")]
mod on_redis {
    use super::super::fixtures::OnRedis;
    use super::super::support::{Cluster, RedisServer, redis_or_skip};
    use super::Suite;

    async fn on_server(shards: u16) {
        let server = RedisServer::start();
        Suite::of_session_store(&OnRedis::new(server.url(), shards, server))
            .assert_conforms()
            .await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn redis_conforms() {
        redis_or_skip!();
        on_server(1).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn redis_in_shards_conforms() {
        redis_or_skip!();
        on_server(7).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_cluster_conforms() {
        redis_or_skip!();
        let cluster = tokio::task::spawn_blocking(Cluster::start).await.unwrap();
        Suite::of_session_store(&OnRedis::new(cluster.url(), 6, cluster)).assert_conforms().await;
    }
}
