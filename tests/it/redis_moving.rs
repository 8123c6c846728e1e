//! A cluster that moves the slot of a shard: the tokens are checked all the while.

use std::time::{Duration, Instant};

use tower_jwt_revocation::revocation::Revocation;
use tower_jwt_revocation::store::redis::Start;
use tower_jwt_revocation::store::{ListQuery, RevocationStore as _, Standing, StoreErrorKind};
use tower_jwt_revocation::{Mirror, RedisStore, Target};

use crate::redis_supervision::{IN_TIME, recovered, revoke};
use crate::servers::{Cluster, redis_is_installed, wait_until};
use crate::store_contract::{check, token};

const HOUR: Duration = Duration::from_secs(3600);
const LIMIT: Duration = Duration::from_secs(60);
const REVOKED: usize = 6;

struct Moving {
    cluster: Cluster,
    store: RedisStore,
    slot: u16,
    to: usize,
}

/// A store with a single shard, and some revocations.
async fn in_cluster() -> Option<Moving> {
    if !redis_is_installed() {
        return None;
    }
    let cluster = tokio::task::spawn_blocking(Cluster::start).await.unwrap();
    let store = RedisStore::builder().with_url(cluster.url()).with_check_timeout(IN_TIME / 2);
    let store = store.connect().await.unwrap();
    for n in 0..REVOKED {
        revoke(&store, Target::token(format!("t{n}"))).await.unwrap();
    }
    let slot = cluster.slot("{0}");
    let to = (cluster.owner_of_slot(slot) + 1) % 3;
    Some(Moving { cluster, store, slot, to })
}

/// Every token gets the right answer, one after the other and all at once.
async fn assert_all_are_checked(store: &RedisStore, when: &str) {
    let all: Vec<_> =
        (0..REVOKED).map(|n| format!("t{n}")).chain((0..4).map(|n| format!("live{n}"))).collect();
    let expect = |id: &str, standing: Result<Standing, _>| {
        let standing = standing.unwrap_or_else(|error| panic!("{when}: {id}: {error}"));
        assert_eq!(matches!(standing, Standing::Revoked(_)), id.starts_with('t'), "{when}: {id}");
    };
    for id in &all {
        expect(id, check(store, &token("u", id)).await);
    }
    let tokens: Vec<_> = all.iter().map(|id| token("u", id)).collect();
    let answers = futures::future::join_all(tokens.iter().map(|token| check(store, token))).await;
    for (id, answer) in all.iter().zip(answers) {
        expect(id, answer);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_are_checked_while_the_slot_moves_key_by_key() {
    let Some(Moving { cluster, store, slot, to }) = in_cluster().await else { return };
    assert_all_are_checked(&store, "before").await;
    cluster.begin_migration(slot, to);
    let mut moved = 0;
    loop {
        assert_all_are_checked(&store, &format!("after {moved} keys")).await;
        if cluster.migrate_keys(slot, to, 1) == 0 {
            break;
        }
        moved += 1;
    }
    assert!(moved > REVOKED + 3, "the records, the epoch, the log and more: {moved}");
    // With everything at the new node, and the slot at the old: the state that may last.
    let still = Instant::now();
    while still.elapsed() < Duration::from_secs(2) {
        assert_all_are_checked(&store, "with all keys moved").await;
    }
    // Who comes now can check tokens as well.
    let newcomer = RedisStore::builder().with_url(cluster.url()).with_check_timeout(IN_TIME / 2);
    let newcomer = newcomer.with_start(Start::WaitUpTo(LIMIT)).connect().await.unwrap();
    assert_all_are_checked(&newcomer, "by a newcomer").await;

    cluster.end_migration(slot, to);
    for store in [&store, &newcomer] {
        assert!(matches!(recovered(store, &token("u", "t0")).await, Standing::Revoked(_)));
        assert_eq!(recovered(store, &token("u", "live0")).await, Standing::Live);
        assert_all_are_checked(store, "after the move").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_written_while_the_slot_moves_is_an_error_that_passes_and_health_says_so() {
    let Some(Moving { cluster, store, slot, to }) = in_cluster().await else { return };
    cluster.begin_migration(slot, to);
    cluster.migrate_keys(slot, to, 2);
    let error = revoke(&store, Target::token("new")).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Cluster, "{error}");
    let health = store.health();
    assert!(health.checks() && !health.writes() && !health.is_up(), "{health}");
    assert_eq!(health.refuses_writes().unwrap().kind(), StoreErrorKind::Cluster);

    // What is known can be looked up.
    let record = store.find(&Target::token("t0")).await.unwrap();
    assert!(record.unwrap().is_in_effect());
    assert!(store.find(&Target::token("new")).await.unwrap().is_none());
    assert_eq!(store.count().await.unwrap(), REVOKED as u64);
    assert_eq!(store.list(ListQuery::default()).await.unwrap().records.len(), REVOKED);

    while cluster.migrate_keys(slot, to, 100) > 0 {}
    assert_eq!(store.count().await.unwrap(), REVOKED as u64);
    assert_eq!(store.list(ListQuery::default()).await.unwrap().records.len(), REVOKED);
    cluster.end_migration(slot, to);
    let start = Instant::now();
    while let Err(error) = revoke(&store, Target::token("new")).await {
        assert!(start.elapsed() < LIMIT, "still {error}");
    }
    wait_until("health has heard of it", LIMIT, || store.health().is_up());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_loss_of_data_is_noticed_while_the_slot_moves() {
    let Some(Moving { cluster, store, slot, to }) = in_cluster().await else { return };
    cluster.begin_migration(slot, to);
    while cluster.migrate_keys(slot, to, 100) > 0 {}
    assert_all_are_checked(&store, "moved").await;
    let new = &cluster.nodes()[to];
    new.cli(&["FLUSHALL"]);
    // What is in doubt for good is known when an epoch has begun, which has to wait for the slot.
    for n in 0..REVOKED {
        let error = check(&store, &token("u", &format!("t{n}"))).await.unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::Settling, "{error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mirror_answers_while_the_slot_moves() {
    let Some(Moving { cluster, store, slot, to }) = in_cluster().await else { return };
    let mirror = Mirror::builder(store.clone()).start().unwrap();
    let is_revoked = async |id: &str| {
        let standing = check(&mirror, &token("u", id)).await;
        let standing = standing.unwrap_or_else(|error| panic!("{id}: {error}"));
        matches!(standing, Standing::Revoked(_))
    };
    assert!(is_revoked("t0").await);
    cluster.begin_migration(slot, to);
    loop {
        for n in 0..REVOKED {
            assert!(is_revoked(&format!("t{n}")).await);
        }
        assert!(!is_revoked("live").await);
        if cluster.migrate_keys(slot, to, 1) == 0 {
            break;
        }
    }
    cluster.end_migration(slot, to);
    let start = Instant::now();
    let change = || Revocation::new(Target::token("after"), HOUR);
    while let Err(error) = mirror.write(vec![change()]).await {
        assert!(start.elapsed() < LIMIT, "still {error}");
    }
    while !matches!(check(&mirror, &token("u", "after")).await, Ok(Standing::Revoked(_))) {
        assert!(start.elapsed() < LIMIT);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
