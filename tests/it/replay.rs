//! What mirrors do for a Redis that has lost its data. Who has written it puts it back himself, so
//! he has left in most of these tests.

use std::time::{Duration, Instant};

use tokio::time::{sleep, timeout};
use tower_jwt_revocation::revocation::Revocation;
use tower_jwt_revocation::store::{RevocationStore as _, Standing, StoreErrorKind};
use tower_jwt_revocation::{Mirror, RedisStore, Target};

use crate::mirror::{
    HOUR, PATIENCE, answers_live, connect, is_revoked, local, mirror, revoke, token, until,
};
use crate::servers::{Cluster, Fault, FaultProxy, RedisServer, redis_is_installed};

/// Revokes so many tokens, and waits until the mirror has them all.
async fn revoke_many(store: &RedisStore, mirror: &Mirror, count: usize) {
    let mut last = None;
    for first in (0..count).step_by(5000) {
        let changes = (first..count.min(first + 5000))
            .map(|n| Revocation::new(Target::token(format!("t{n}")), HOUR))
            .collect();
        last = store.write(changes).await.unwrap().pop();
    }
    let fence = last.unwrap().fence.unwrap();
    timeout(PATIENCE, mirror.wait_for(fence)).await.expect("the writes never arrive").unwrap();
}

/// What a process without a mirror says.
async fn ask(store: &RedisStore, id: &str) -> Result<bool, StoreErrorKind> {
    let start = Instant::now();
    loop {
        match store.check(&token(id)).answer().await {
            Ok(Standing::Revoked(_)) => return Ok(false),
            Ok(_) => return Ok(true),
            // The machine may be busy, and an epoch has to begin.
            Err(error)
                if matches!(error.kind(), StoreErrorKind::Timeout | StoreErrorKind::Settling)
                    && start.elapsed() < PATIENCE =>
            {
                tokio::task::yield_now().await;
            }
            Err(error) => return Err(error.kind()),
        }
    }
}

/// Waits until it is said that an old token is in doubt because data was lost. It may not pass
/// before.
async fn wait_for_doubt(store: &RedisStore) {
    let start = Instant::now();
    loop {
        match ask(store, "innocent").await {
            Err(StoreErrorKind::DataLoss) => return,
            answer => assert_eq!(answer, Err(StoreErrorKind::Settling)),
        }
        assert!(start.elapsed() < PATIENCE, "nobody says which tokens are in doubt");
        sleep(Duration::from_millis(5)).await;
    }
}

/// Waits until an old token that was never revoked passes again without a mirror.
async fn wait_for_end_of_doubt(store: &RedisStore, limit: Duration) -> bool {
    let start = Instant::now();
    while start.elapsed() < limit {
        if ask(store, "innocent").await == Ok(true) {
            return true;
        }
        sleep(Duration::from_millis(20)).await;
    }
    false
}

#[tokio::test(flavor = "multi_thread")]
async fn one_mirror_replays_everything_to_a_flushed_redis_and_then_no_token_is_in_doubt() {
    const COUNT: usize = 50_000;
    if !redis_is_installed() {
        return;
    }
    let server = RedisServer::start();
    let (store, reader) = (connect(server.url()).await, connect(server.url()).await);
    let mirror = mirror(server.url()).await;
    revoke_many(&store, &mirror, COUNT).await;
    for target in [Target::user("gone"), Target::session("back")] {
        store.write(vec![Revocation::new(target, HOUR)]).await.unwrap();
    }
    let mut back = Revocation::new(Target::session("back"), HOUR);
    back.action = tower_jwt_revocation::revocation::Action::Reinstate;
    store.write(vec![back]).await.unwrap();
    assert_eq!(ask(&reader, "innocent").await, Ok(true));
    store.close().await.unwrap();

    server.cli(&["FLUSHALL"]);
    wait_for_doubt(&reader).await;
    assert!(wait_for_end_of_doubt(&reader, PATIENCE * 2).await, "{mirror:?}");
    let newcomer = connect(server.url()).await;
    for store in [&reader, &newcomer] {
        for n in (0..COUNT).step_by(17) {
            let id = format!("t{n}");
            assert_eq!(ask(store, &id).await, Ok(false), "{id}");
        }
        assert_eq!(ask(store, "gone").await, Ok(false));
        assert_eq!(ask(store, "back").await, Ok(true), "what was reinstated stays so");
        assert_eq!(ask(store, "innocent").await, Ok(true));
    }
    assert_eq!(newcomer.count().await.unwrap(), COUNT as u64 + 1);
    let status = until(&mirror, "it knows of it", |status| status.doubts_ended() == 1).await;
    assert_eq!(status.replayed(), COUNT as u64 + 2);
    timeout(PATIENCE, mirror.ready()).await.unwrap();
    assert!(answers_live(&mirror, "innocent").await && answers_live(&mirror, "back").await);
    assert!(is_revoked(&mirror, "t7"));
    // And the log goes on.
    let receipt = revoke(&store, "later").await;
    timeout(PATIENCE, mirror.wait_for(receipt.fence.unwrap())).await.unwrap().unwrap();
    assert!(is_revoked(&mirror, "later"));
    assert_eq!(mirror.status().resyncs(), 1);
}

/// A mirror that can be cut off from a Redis with three hundred revocations, all of which it knows.
struct CutOff {
    server: RedisServer,
    proxy: FaultProxy,
    mirror: Mirror,
    writer: RedisStore,
    /// Knows the epoch of the server and writes nothing.
    reader: RedisStore,
}

impl CutOff {
    async fn set() -> Self {
        let server = RedisServer::start();
        let (writer, reader) = (connect(server.url()).await, connect(server.url()).await);
        let proxy = FaultProxy::start(server.addr()).await;
        let mirror = mirror(proxy.url()).await;
        revoke_many(&writer, &mirror, 300).await;
        proxy.set(Fault::Reset).await;
        Self { server, proxy, mirror, writer, reader }
    }

    /// Redis loses everything, and the mirror replays what it knows; which is not all, so the doubt
    /// stays.
    async fn lose_everything(&self) {
        self.server.cli(&["FLUSHALL"]);
        self.proxy.set(Fault::Pass).await;
        until(&self.mirror, "the replay is done", |status| status.replayed() == 300).await;
        assert!(!wait_for_end_of_doubt(&self.reader, Duration::from_secs(8)).await);
        assert_eq!(self.mirror.status().doubts_ended(), 0);
        let newcomer = connect(self.server.url()).await;
        for store in [&self.reader, &newcomer] {
            assert_in_doubt(store).await;
        }
    }
}

async fn assert_in_doubt(store: &RedisStore) {
    assert_eq!(ask(store, "t7").await, Ok(false));
    assert_eq!(ask(store, "missed").await, Err(StoreErrorKind::DataLoss));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_that_had_missed_writes_replays_what_it_knows_and_the_doubt_stays() {
    if !redis_is_installed() {
        return;
    }
    // It is cut off for longer than it may be stale, and the one who wrote meanwhile is gone.
    let mut scene = CutOff::set().await;
    let lonely = connect(scene.server.url()).await;
    revoke(&lonely, "missed").await;
    drop(lonely);
    scene.writer = scene.reader.clone();
    while scene.mirror.is_fresh() {
        sleep(Duration::from_millis(20)).await;
    }
    scene.lose_everything().await;
    assert_eq!(local(&scene.mirror, &token("missed")), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_who_knows_of_one_write_more_than_the_mirror_keeps_the_doubt_up() {
    if !redis_is_installed() {
        return;
    }
    // So short that the mirror is fresh throughout. The writer has only the number left.
    let scene = CutOff::set().await;
    revoke(&scene.writer, "missed").await;
    scene.writer.close().await.unwrap();
    scene.lose_everything().await;
    assert_in_doubt(&scene.writer).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_writer_puts_back_itself_what_the_mirror_has_missed() {
    if !redis_is_installed() {
        return;
    }
    let scene = CutOff::set().await;
    revoke(&scene.writer, "missed").await;
    scene.server.cli(&["FLUSHALL"]);
    scene.proxy.set(Fault::Pass).await;
    let newcomer = connect(scene.server.url()).await;
    for store in [&scene.reader, &newcomer, &scene.writer] {
        for id in (0..300).map(|n| format!("t{n}")).chain(["missed".to_owned()]) {
            let start = Instant::now();
            loop {
                match ask(store, &id).await {
                    Ok(passes) => break assert!(!passes, "{id} passes"),
                    Err(error) => assert!(start.elapsed() < PATIENCE, "{id}: {error:?}"),
                }
                sleep(Duration::from_millis(5)).await;
            }
        }
    }
    until(&scene.mirror, "it has it too", |status| status.entries == 301).await;
    assert!(is_revoked(&scene.mirror, "missed"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_came_back_with_an_older_state_gets_a_replay_of_what_is_missing() {
    if !redis_is_installed() {
        return;
    }
    let mut server = RedisServer::builder().arg("save", "").start();
    let store = connect(server.url()).await;
    let mirror = mirror(server.url()).await;
    revoke_many(&store, &mirror, 200).await;
    store.close().await.unwrap();
    server.cli(&["SAVE"]);
    for n in 0..50 {
        let receipt = revoke(&store, &format!("lost{n}")).await;
        timeout(PATIENCE, mirror.wait_for(receipt.fence.unwrap())).await.unwrap().unwrap();
    }
    store.close().await.unwrap();
    tokio::task::block_in_place(|| {
        server.kill();
        server.restart();
    });
    let status = until(&mirror, "the replay is done", |status| status.replayed() >= 50).await;
    assert_eq!(status.replayed(), 50, "and nothing that it still had");
    let start = Instant::now();
    for id in (0..50).map(|n| format!("lost{n}")).chain((0..200).map(|n| format!("t{n}"))) {
        while ask(&store, &id).await != Ok(false) {
            assert!(start.elapsed() < PATIENCE, "{id}");
            sleep(Duration::from_millis(20)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_shard_of_a_cluster_gets_a_replay_of_its_own() {
    if !redis_is_installed() {
        return;
    }
    let cluster = tokio::task::spawn_blocking(Cluster::start).await.unwrap();
    let store = || RedisStore::builder().with_url(cluster.url()).with_shards(8).connect();
    let (writer, reader) = (store().await.unwrap(), store().await.unwrap());
    let mirror = Mirror::new(store().await.unwrap()).unwrap();
    timeout(PATIENCE, mirror.ready()).await.unwrap();
    let mut fences = Vec::new();
    for n in 0..200 {
        fences.push(revoke(&writer, &format!("t{n}")).await.fence.unwrap());
    }
    for fence in fences {
        timeout(PATIENCE, mirror.wait_for(fence)).await.unwrap().unwrap();
    }
    writer.close().await.unwrap();
    cluster.nodes()[0].cli(&["FLUSHALL"]);
    assert!(wait_for_end_of_doubt(&reader, PATIENCE).await, "{mirror:?}");
    for n in 0..200 {
        let start = Instant::now();
        while ask(&reader, &format!("t{n}")).await != Ok(false) {
            assert!(start.elapsed() < PATIENCE, "t{n}: {:?}", ask(&reader, &format!("t{n}")).await);
        }
    }
    let status = mirror.status();
    assert!((1..200).contains(&status.replayed()), "only what was lost: {status:?}");
}
