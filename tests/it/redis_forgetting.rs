//! What is over is forgotten by itself, paced, by one process.

use std::time::{Duration, Instant};

use tower_jwt_revocation::revocation::Revocation;
use tower_jwt_revocation::store::RevocationStore as _;
use tower_jwt_revocation::{RedisStore, Target};

use crate::mirror::PATIENCE;
use crate::servers::{RedisServer, redis_is_installed};

const INDEX: &str = "jwt-revocation:{0}:i";

async fn connect(server: &RedisServer) -> RedisStore {
    let builder =
        RedisStore::builder().with_url(server.url()).with_check_timeout(Duration::from_secs(5));
    builder.connect().await.unwrap()
}

async fn revoke(store: &RedisStore, count: u32, lifetime: Duration) {
    let change = |n| Revocation::new(Target::token(format!("token {n}")), lifetime);
    store.write((0..count).map(change).collect()).await.unwrap();
}

fn indexed(server: &RedisServer) -> u32 {
    server.cli(&["ZCARD", INDEX]).parse().unwrap()
}

/// How many scripts were run so far.
fn scripts(server: &RedisServer) -> u32 {
    let stats = server.cli(&["INFO", "commandstats"]);
    let calls = |command: &str| -> u32 {
        let line = stats.lines().find_map(|line| line.strip_prefix(&format!("cmdstat_{command}:")));
        let calls = line.and_then(|line| line.split(',').next()?.strip_prefix("calls="));
        calls.map_or(0, |calls| calls.parse().unwrap())
    };
    calls("evalsha") + calls("eval")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_thousand_that_are_over_are_forgotten_without_a_write_paced_and_only_once() {
    if !redis_is_installed() {
        return;
    }
    let server = RedisServer::builder().own_clock().start();
    revoke(&connect(&server).await, 20_000, Duration::from_secs(3600)).await;
    assert_eq!(indexed(&server), 20_000);
    server.set_clock(2 * 3600 * 1000);

    let mut stores = Vec::new();
    for _ in 0..4 {
        stores.push(connect(&server).await);
    }
    let (before, began) = (scripts(&server), Instant::now());
    let mut last = indexed(&server);
    let mut most = 0;
    while last > 0 {
        assert!(began.elapsed() < PATIENCE * 2, "{last} are left");
        tokio::time::sleep(Duration::from_millis(50)).await;
        let now = indexed(&server);
        most = most.max(last - now);
        last = now;
    }
    // Of 512 each, a few in a second: not all in one go, and not each process its share.
    assert!(most < 5000, "{most} were forgotten within a moment");
    assert!(began.elapsed() > Duration::from_secs(4), "{:?}", began.elapsed());
    let runs = scripts(&server) - before;
    assert!((38..=60).contains(&runs), "{runs} scripts for 20 000 members");

    // Nothing is left, so nothing is asked.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let idle = scripts(&server);
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert!(scripts(&server) <= idle + 1, "the scripts go on");
    assert_eq!(server.cli(&["EXISTS", INDEX]), "0");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_running_process_forgets_what_ends_while_nothing_is_written() {
    if !redis_is_installed() {
        return;
    }
    let server = RedisServer::start();
    revoke(&connect(&server).await, 700, Duration::from_secs(4)).await;
    let store = connect(&server).await;
    let began = Instant::now();
    while indexed(&server) > 0 {
        assert!(began.elapsed() < PATIENCE, "{} are left", indexed(&server));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(store.health().is_up());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_redis_is_relieved_of_what_is_over() {
    if !redis_is_installed() {
        return;
    }
    let server = RedisServer::builder().own_clock().start();
    revoke(&connect(&server).await, 2000, Duration::from_secs(3600)).await;
    server.cli(&["CONFIG", "SET", "maxmemory", "1"]);
    server.set_clock(2 * 3600 * 1000);
    let _store = connect(&server).await;
    let began = Instant::now();
    while indexed(&server) > 0 {
        assert!(began.elapsed() < PATIENCE, "{} are left", indexed(&server));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
