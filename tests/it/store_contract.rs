//! What every store does alike: the public suite, run for each store of this crate.

use std::sync::Arc;
use std::time::Duration;

use tower_jwt_revocation::clock::Timestamp;
use tower_jwt_revocation::store::{Lookup, RevocationStore, Standing, StoreError};
use tower_jwt_revocation::token::SignedClaims;
use tower_jwt_revocation::{MemoryStore, Revoker, Target, TokenProfile, VerifiedToken};

pub(crate) fn now() -> Timestamp {
    Timestamp::now()
}

/// A token with these claims, besides an `exp` in 20 minutes.
pub(crate) fn token_of(
    profile: &TokenProfile,
    mut claims: serde_json::Value,
) -> Arc<VerifiedToken> {
    claims["exp"] = (now().as_secs() + 1200).into();
    let claims = claims.to_string();
    Arc::new(profile.assert_verified(SignedClaims::new(claims.as_bytes())).unwrap())
}

/// A token of `subject`, issued a minute ago.
pub(crate) fn token(subject: &str, id: &str) -> Arc<VerifiedToken> {
    issued_at(subject, id, now().saturating_sub(Duration::from_secs(60)).as_secs())
}

pub(crate) fn issued_at(
    subject: &str,
    id: &str,
    iat: impl Into<serde_json::Value>,
) -> Arc<VerifiedToken> {
    let iat: serde_json::Value = iat.into();
    token_of(&TokenProfile::new(), serde_json::json!({ "sub": subject, "jti": id, "iat": iat }))
}

#[cfg_attr(not(feature = "redis"), allow(dead_code, reason = "only Redis has to be awaited"))]
pub(crate) async fn check(
    store: &impl RevocationStore,
    token: &Arc<VerifiedToken>,
) -> Result<Standing, StoreError> {
    store.check(token).answer().await
}

#[cfg(feature = "test-util")]
mod suite {
    use tower_jwt_revocation::testing::Suite;

    use crate::fixtures::InMemory;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn memory_conforms() {
        Suite::of_store(&InMemory).assert_conforms().await;
    }

    #[cfg(feature = "redis")]
    mod on_redis {
        use std::sync::Mutex;
        use std::time::Duration;

        use tower_jwt_revocation::RedisStore;
        use tower_jwt_revocation::testing::StoreFixture;

        use super::Suite;
        use crate::fixtures::{Mirrored, OnRedis};
        use crate::servers::{Cluster, RedisServer, redis_is_installed};

        /// Stores of so many shards on a server; none on a machine without Redis.
        fn on_server(shards: u16) -> Option<OnRedis> {
            redis_is_installed().then(|| {
                let server = RedisServer::start();
                OnRedis::new(server.url(), shards, server)
            })
        }

        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn redis_conforms() {
            let Some(stores) = on_server(1) else { return };
            Suite::of_store(&stores).assert_conforms().await;
        }

        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn redis_in_shards_conforms() {
            let Some(stores) = on_server(7) else { return };
            Suite::of_store(&stores).assert_conforms().await;
        }

        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn a_cluster_conforms() {
            if !redis_is_installed() {
                return;
            }
            let cluster = tokio::task::spawn_blocking(Cluster::start).await.unwrap();
            Suite::of_store(&OnRedis::new(cluster.url(), 6, cluster)).assert_conforms().await;
        }

        /// On a server that is restarted with what it held when the store was new.
        struct OnRestartedRedis(Mutex<RedisServer>);

        impl StoreFixture for OnRestartedRedis {
            type Store = RedisStore;

            async fn store(&self) -> RedisStore {
                let url = self.0.lock().unwrap().url();
                let generous = Duration::from_secs(10);
                let builder = RedisStore::builder().with_url(url).with_write_timeout(generous);
                let store = builder.with_check_timeout(generous).connect().await.unwrap();
                self.0.lock().unwrap().cli(&["SAVE"]);
                store
            }

            async fn change_server(&self, _: &RedisStore) -> bool {
                self.0.lock().unwrap().restart();
                true
            }
        }

        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn redis_loses_nothing_when_its_server_changes() {
            if !redis_is_installed() {
                return;
            }
            let stores = OnRestartedRedis(Mutex::new(RedisServer::start()));
            Suite::of_store(&stores).check("AChangeOfServerLosesNothing").await.unwrap();
        }

        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn a_mirror_conforms() {
            let Some(stores) = on_server(1) else { return };
            Suite::of_store(&Mirrored(stores)).assert_conforms().await;
        }

        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn a_mirror_of_shards_conforms() {
            let Some(stores) = on_server(7) else { return };
            Suite::of_store(&Mirrored(stores)).assert_conforms().await;
        }
    }
}

#[tokio::test]
async fn memory_knows_at_once_and_why() {
    let store = MemoryStore::new();
    assert!(matches!(store.check(&token("u", "t")), Lookup::Now(Ok(Standing::Live))));
    let revoker = Revoker::new(store.clone(), TokenProfile::new()).unwrap();
    revoker.revoke(Target::token("t")).reason("logout").await.unwrap();
    let Lookup::Now(Ok(Standing::Revoked(by))) = store.check(&token("u", "t")) else {
        panic!("not revoked, or not at once")
    };
    assert_eq!(by.reason.as_deref(), Some("logout"));
}

/// A mirror answers from memory, with neither time nor reason, or Redis says both.
#[cfg(feature = "redis")]
#[tokio::test]
async fn redis_says_why_and_when() {
    if !crate::servers::redis_is_installed() {
        return;
    }
    let server = crate::servers::RedisServer::start();
    let store = tower_jwt_revocation::RedisStore::connect(server.url()).await.unwrap();
    let revoker = Revoker::new(store.clone(), TokenProfile::new()).unwrap();
    let receipt = revoker.revoke(Target::token("t")).reason("logout").await.unwrap();
    let Standing::Revoked(by) = check(&store, &token("u", "t")).await.unwrap() else {
        panic!("not revoked")
    };
    assert_eq!((by.reason.as_deref(), by.at), (Some("logout"), Some(receipt.at)));
}
