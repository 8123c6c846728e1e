//! A Redis that can be read and refuses writes: full, without a working disk, with too few
//! replicas. Tokens are checked all the same, and what is wrong is said.

use std::time::{Duration, Instant};

use tower_jwt_revocation::store::redis::{ConnectError, Health, Start};
use tower_jwt_revocation::store::{Standing, StoreErrorKind};
use tower_jwt_revocation::{Mirror, RedisStore, Target};

use crate::mirror::PATIENCE;
use crate::redis_supervision::revoke;
use crate::servers::{RedisServer, redis_is_installed, wait_until};
use crate::store_contract::{check, token};

/// How a server comes to refuse writes, and to take them again.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Refusal {
    Memory,
    Disk,
    Replicas,
}

const ALL: [Refusal; 3] = [Refusal::Memory, Refusal::Disk, Refusal::Replicas];

impl Refusal {
    fn begin(self, server: &RedisServer) {
        match self {
            Self::Memory => {
                server.cli(&["CONFIG", "SET", "maxmemory", "1"]);
            }
            Self::Replicas => {
                server.cli(&["CONFIG", "SET", "min-replicas-to-write", "1"]);
            }
            Self::Disk => {
                // A directory in the place of the file, so that the snapshot cannot be put there.
                server.cli(&["CONFIG", "SET", "save", "3600 1"]);
                let dir = server.cli(&["CONFIG", "GET", "dir"]);
                let dir = dir.lines().last().expect("a directory");
                std::fs::create_dir_all(format!("{dir}/dump.rdb/x")).unwrap();
                let _ = server.try_cli(&["BGSAVE"]);
                wait_until("the snapshot has failed", PATIENCE, || {
                    server.cli(&["INFO", "persistence"]).contains("rdb_last_bgsave_status:err")
                });
            }
        }
    }

    fn end(self, server: &RedisServer) {
        match self {
            Self::Memory => server.cli(&["CONFIG", "SET", "maxmemory", "0"]),
            Self::Replicas => server.cli(&["CONFIG", "SET", "min-replicas-to-write", "0"]),
            Self::Disk => server.cli(&["CONFIG", "SET", "stop-writes-on-bgsave-error", "no"]),
        };
    }

    fn kind(self) -> StoreErrorKind {
        match self {
            Self::Memory | Self::Disk => StoreErrorKind::Full,
            Self::Replicas => StoreErrorKind::Replicas,
        }
    }
}

async fn is_up(store: &RedisStore) {
    let mut health = store.watch_health();
    let up = tokio::time::timeout(PATIENCE, health.wait_for(Health::is_up)).await;
    assert!(up.is_ok(), "still {}", store.health());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_is_opened_and_checks_tokens_while_writes_are_refused() {
    if !redis_is_installed() {
        return;
    }
    for refusal in ALL {
        let server = RedisServer::start();
        let before = RedisStore::connect(server.url()).await.unwrap();
        revoke(&before, Target::token("revoked")).await.unwrap();
        drop(before);
        refusal.begin(&server);

        for start in [Start::WaitUpTo(PATIENCE), Start::AtOnce] {
            let began = Instant::now();
            let builder = RedisStore::builder().with_url(server.url()).with_start(start);
            let store = match builder.connect().await {
                Ok(store) => store,
                // Not connected at the first attempt.
                Err(ConnectError::Store(error)) if error.kind() == StoreErrorKind::Timeout => {
                    continue;
                }
                Err(error) => panic!("{refusal:?}, {start:?}: {error}"),
            };
            assert!(began.elapsed() < PATIENCE / 2, "{refusal:?}: it has waited for writes");
            let standing = check(&store, &token("u", "revoked")).await.unwrap();
            assert!(matches!(standing, Standing::Revoked(_)), "{refusal:?}");
            let standing = check(&store, &token("u", "live")).await.unwrap();
            assert_eq!(standing, Standing::Live, "{refusal:?}");

            let health = store.health();
            assert!(health.checks() && !health.writes() && !health.is_up(), "{refusal:?}");
            assert!(health.to_string().starts_with("writes are refused: "), "{health}");
            assert_eq!(health.refuses_writes().unwrap().kind(), refusal.kind());
            let error = revoke(&store, Target::token("x")).await.unwrap_err();
            assert_eq!(error.kind(), refusal.kind(), "{refusal:?}: {error}");
            let report = store.doctor().await;
            assert!(
                report
                    .findings
                    .iter()
                    .any(|finding| { finding.is_error() && finding.subject == "writes" }),
                "{refusal:?}:\n{report}"
            );
        }

        let store = RedisStore::connect(server.url()).await.unwrap();
        let mirror = Mirror::new(RedisStore::connect(server.url()).await.unwrap()).unwrap();
        // It cannot renew its lease, so it asks the store.
        assert_eq!(check(&mirror, &token("u", "live")).await.unwrap(), Standing::Live);
        let standing = check(&mirror, &token("u", "revoked")).await.unwrap();
        assert!(matches!(standing, Standing::Revoked(_)), "{refusal:?}");

        // It finds out by itself.
        refusal.end(&server);
        is_up(&store).await;
        revoke(&store, Target::token("x")).await.unwrap();
        let ready = tokio::time::timeout(PATIENCE, mirror.ready()).await;
        assert!(ready.is_ok(), "{refusal:?}: {:?}", mirror.status());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_that_are_refused_later_show_in_the_health_until_they_are_taken() {
    if !redis_is_installed() {
        return;
    }
    for refusal in ALL {
        let server = RedisServer::start();
        let store = RedisStore::connect(server.url()).await.unwrap();
        revoke(&store, Target::token("t")).await.unwrap();
        refusal.begin(&server);
        let error = revoke(&store, Target::token("x")).await.unwrap_err();
        assert_eq!(error.kind(), refusal.kind(), "{refusal:?}: {error}");
        assert_eq!(store.health().refuses_writes().unwrap().kind(), refusal.kind());
        assert!(store.health().checks());
        refusal.end(&server);
        is_up(&store).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_empty_redis_that_refuses_writes_gives_no_verdict_and_says_why() {
    if !redis_is_installed() {
        return;
    }
    let server = RedisServer::start();
    server.cli(&["CONFIG", "SET", "maxmemory", "1"]);
    let builder = || RedisStore::builder().with_url(server.url());
    let at_once = builder().with_start(Start::AtOnce).connect().await;
    assert!(matches!(at_once, Err(ConnectError::Store(_))), "{at_once:?}");

    let waiting = builder().with_start(Start::WaitUpTo(Duration::from_millis(500)));
    let store = waiting.connect().await.unwrap();
    let error = check(&store, &token("u", "t")).await.unwrap_err();
    assert!(error.to_string().contains("holds no epoch"), "{error}");
    assert!(store.health().to_string().starts_with("writes are refused"), "{}", store.health());
    let report = store.doctor().await;
    assert!(report.to_string().contains("no token can be checked"), "{report}");

    server.cli(&["CONFIG", "SET", "maxmemory", "0"]);
    is_up(&store).await;
    let started = Instant::now();
    while let Err(error) = check(&store, &token("u", "t")).await {
        assert!(started.elapsed() < PATIENCE, "{error}");
    }
    assert_eq!(check(&store, &token("u", "t")).await.unwrap(), Standing::Live);
}
