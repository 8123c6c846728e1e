//! What happens when Redis has lost its data, in each way in which that happens.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tower_jwt_revocation::revocation::Revocation;
use tower_jwt_revocation::store::redis::{ConnectError, RedisStoreBuilder, Start};
use tower_jwt_revocation::store::{RevocationStore as _, Standing, StoreErrorKind};
use tower_jwt_revocation::{JwtRevocationLayer, RedisStore, Target, TokenProfile, VerifiedToken};

use crate::redis_supervision::revoke;
use crate::servers::{Fault, FaultProxy, RedisServer, redis_is_installed, wait_until};
use crate::store_contract::{check, issued_at, now, token, token_of};
use crate::support::WordVerifier;

/// The longest lifetime of a token under the default profile.
const DEFAULT_MAX_LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);

const SOON: Duration = Duration::from_secs(30);

/// A token that is issued after whatever has happened so far.
fn fresh() -> Arc<VerifiedToken> {
    issued_at("fresh", "fresh", now().as_secs() + 2)
}

/// Waits until tokens from before are in doubt *because* data was lost, and new ones are not. Not
/// once may a token from before be taken for live.
async fn noticed(store: &RedisStore) {
    let (old, new) = (token("old", "old"), fresh());
    let start = Instant::now();
    loop {
        match check(store, &old).await {
            Err(error) if error.kind() == StoreErrorKind::DataLoss => {}
            Err(error) => assert!(start.elapsed() < SOON, "still {error}"),
            answer => panic!("{answer:?}"),
        }
        if matches!(check(store, &new).await, Ok(Standing::Live)) {
            break;
        }
        assert!(start.elapsed() < SOON, "new tokens are not known to be live");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(check(store, &old).await.unwrap_err().kind(), StoreErrorKind::DataLoss);
}

/// Waits until this store, which may not have known of the loss, doubts the tokens from before too.
async fn doubts(store: &RedisStore) {
    let old = token("old", "old");
    let start = Instant::now();
    while !matches!(check(store, &old).await, Err(error) if error.kind() == StoreErrorKind::DataLoss)
    {
        assert!(start.elapsed() < SOON, "it never doubts them");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A store with limits that a busy machine does not reach: these tests do not depend on how long
/// anything takes.
fn patient(url: String) -> RedisStoreBuilder {
    RedisStore::builder().with_url(url).with_check_timeout(SOON / 10)
}

async fn connect(url: String) -> Result<RedisStore, ConnectError> {
    patient(url).connect().await
}

async fn with_data(server: &RedisServer) -> RedisStore {
    with_data_at(server.url()).await
}

async fn with_data_at(url: String) -> RedisStore {
    let store = connect(url).await.unwrap();
    revoke(&store, Target::token("t")).await.unwrap();
    assert_eq!(check(&store, &token("old", "old")).await.unwrap(), Standing::Live);
    store
}

async fn loses(server: &RedisServer, command: &[&str]) {
    let (store, other) = (with_data(server).await, with_data(server).await);
    server.cli(command);
    noticed(&store).await;
    noticed(&other).await;
    // Both see the same new epoch, and so does a store that is opened later.
    let late = connect(server.url()).await.unwrap();
    noticed(&late).await;
    let mut epochs = Vec::new();
    for (n, store) in [&store, &other, &late].into_iter().enumerate() {
        let change = Revocation::new(Target::token(format!("n{n}")), SOON);
        epochs.push(store.write(vec![change]).await.unwrap()[0].fence.unwrap().epoch);
    }
    epochs.dedup();
    assert_eq!(epochs.len(), 1, "{epochs:?}");
    // A new revocation of an old token is certain again.
    revoke(&store, Target::token("old")).await.unwrap();
    assert!(matches!(check(&late, &token("old", "old")).await.unwrap(), Standing::Revoked(_)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flushall_is_noticed_by_all() {
    if redis_is_installed() {
        loses(&RedisServer::start(), &["FLUSHALL"]).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flushdb_is_noticed_by_all() {
    if redis_is_installed() {
        loses(&RedisServer::start(), &["FLUSHDB"]).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_database_is_noticed_by_all() {
    if redis_is_installed() {
        loses(&RedisServer::start(), &["SWAPDB", "0", "5"]).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_eviction_of_the_epoch_is_noticed_by_all() {
    if redis_is_installed() {
        loses(&RedisServer::start(), &["DEL", "jwt-revocation:{0}:e"]).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_without_data_is_noticed() {
    if !redis_is_installed() {
        return;
    }
    let mut server = RedisServer::start();
    let store = with_data(&server).await;
    server.restart();
    noticed(&store).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_with_an_older_dump_is_noticed() {
    if !redis_is_installed() {
        return;
    }
    let mut server = RedisServer::start();
    let (store, idle) = (with_data(&server).await, connect(server.url()).await.unwrap());
    server.cli(&["SAVE"]);
    revoke(&store, Target::token("lost")).await.unwrap();
    assert!(matches!(check(&store, &token("x", "lost")).await.unwrap(), Standing::Revoked(_)));
    server.restart();
    noticed(&store).await;
    doubts(&idle).await;
    // What the dump held is still there.
    assert!(matches!(check(&store, &token("x", "t")).await.unwrap(), Standing::Revoked(_)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_loss_that_later_writes_hide_is_noticed() {
    if !redis_is_installed() {
        return;
    }
    let mut server = RedisServer::start();
    let proxy = FaultProxy::start(server.addr()).await;
    let store = connect(proxy.url()).await.unwrap();
    revoke(&store, Target::token("t")).await.unwrap();
    server.cli(&["SAVE"]);
    revoke(&store, Target::token("lost")).await.unwrap();
    proxy.set(Fault::Reset).await;
    proxy.set(Fault::Refuse).await;
    server.restart();
    // While the store is away, the older state gets more changes than it has lost.
    let ignorant = connect(server.url()).await.unwrap();
    for n in 0..5 {
        revoke(&ignorant, Target::token(format!("n{n}"))).await.unwrap();
    }
    assert_eq!(check(&ignorant, &token("old", "old")).await.unwrap(), Standing::Live);
    proxy.set(Fault::Pass).await;
    noticed(&store).await;
    doubts(&ignorant).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_loss_is_noticed_by_a_connection_that_was_away_when_it_was_written() {
    if !redis_is_installed() {
        return;
    }
    for _ in 0..5 {
        let mut server = RedisServer::start();
        let proxy = FaultProxy::start(server.addr()).await;
        let store = connect(proxy.url()).await.unwrap();
        revoke(&store, Target::token("t")).await.unwrap();
        server.cli(&["SAVE"]);
        // The connection of the checks is lost, that of the writes is not.
        proxy.set(Fault::Refuse).await;
        let start = Instant::now();
        while store.health().checks() {
            assert!(start.elapsed() < SOON);
            kill_clients(&server, |line| line.contains("cmd=mget"));
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        revoke(&store, Target::token("lost")).await.unwrap();
        server.restart();
        let ignorant = connect(server.url()).await.unwrap();
        for n in 0..5 {
            revoke(&ignorant, Target::token(format!("n{n}"))).await.unwrap();
        }
        proxy.set(Fault::Pass).await;
        noticed(&store).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_loss_is_noticed_although_the_connections_led_to_two_primaries() {
    if !redis_is_installed() {
        return;
    }
    let (one, other) = (RedisServer::start(), RedisServer::start());
    let proxy = FaultProxy::start(one.addr()).await;
    let store = with_data_at(proxy.url()).await;
    other.cli(&["REPLICAOF", "127.0.0.1", &one.port().to_string()]);

    // The connection of the writes is made anew, to the other server; that of the checks stays
    // where it is.
    proxy.turn_to(other.addr()).await;
    let start = Instant::now();
    while store.health().is_up() {
        assert!(start.elapsed() < SOON);
        let _ = revoke(&store, Target::token("t")).await;
        kill_clients(&one, |line| line.contains("cmd=eval"));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(store.health().checks());
    let epoch = |server: &RedisServer| server.cli(&["GET", "jwt-revocation:{0}:e"]);
    wait_until("the replica has it all", SOON, || epoch(&other) == epoch(&one));
    other.cli(&["REPLICAOF", "NO", "ONE"]);
    while !store.health().is_up() {
        assert!(start.elapsed() < SOON);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }

    let at_one = connect(one.url()).await.unwrap();
    revoke(&at_one, Target::token("lost")).await.unwrap();
    assert!(matches!(check(&store, &token("x", "lost")).await.unwrap(), Standing::Revoked(_)));
    let at_other = connect(other.url()).await.unwrap();
    for n in 0..2 {
        revoke(&at_other, Target::token(format!("n{n}"))).await.unwrap();
    }
    // It knows of a later change now than the one that is about to be lost.
    let start = Instant::now();
    while revoke(&store, Target::token("later")).await.is_err() {
        assert!(start.elapsed() < SOON);
    }
    let made = proxy.accepted();
    while proxy.accepted() == made {
        assert!(start.elapsed() < SOON);
        kill_clients(&one, |line| line.contains("cmd=mget"));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    noticed(&store).await;
    doubts(&at_other).await;
}

/// Ends the connections of the store to this server of which `CLIENT LIST` says so.
fn kill_clients(server: &RedisServer, which: impl Fn(&str) -> bool) {
    for client in server.cli(&["CLIENT", "LIST"]).lines().filter(|line| which(line)) {
        let id = client.split(' ').next().unwrap().strip_prefix("id=").unwrap();
        let _ = server.try_cli(&["CLIENT", "KILL", "ID", id]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_with_all_data_is_no_loss() {
    if !redis_is_installed() {
        return;
    }
    let mut server =
        RedisServer::builder().arg("appendonly", "yes").arg("appendfsync", "always").start();
    let store = with_data(&server).await;
    server.restart();
    let start = Instant::now();
    while check(&store, &token("old", "old")).await.is_err() {
        assert!(start.elapsed() < SOON);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(check(&store, &token("old", "old")).await.unwrap(), Standing::Live);
    assert!(matches!(check(&store, &token("x", "t")).await.unwrap(), Standing::Revoked(_)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_was_trimmed_while_the_connection_was_lost_is_no_loss() {
    if !redis_is_installed() {
        return;
    }
    let server = RedisServer::start();
    let (others, proxy) = (with_data(&server).await, FaultProxy::start(server.addr()).await);
    for left in ["1", "0"] {
        let store = with_data_at(proxy.url()).await;
        proxy.set(Fault::Reset).await;
        while store.health().is_up() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        revoke(&others, Target::token(format!("later {left}"))).await.unwrap();
        server.cli(&["XTRIM", "jwt-revocation:{0}:l", "MAXLEN", left]);
        proxy.set(Fault::Pass).await;
        let start = Instant::now();
        // Both connections are there again: the one for checks, and the one for writes.
        while !store.health().is_up() || revoke(&store, Target::token("t")).await.is_err() {
            assert!(start.elapsed() < SOON);
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(
            check(&store, &token("old", "old")).await.unwrap(),
            Standing::Live,
            "{left} entries left"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_is_being_trimmed_while_a_connection_is_made_is_no_loss() {
    if !redis_is_installed() {
        return;
    }
    // Each write trims what was written before it.
    let server = RedisServer::builder().arg("stream-node-max-entries", "1").start();
    let others =
        RedisStore::builder().with_url(server.url()).with_log_length(1).connect().await.unwrap();
    let proxy = FaultProxy::start(server.addr()).await;
    let store = with_data_at(proxy.url()).await;
    let writes = tokio::spawn(async move {
        for n in 0.. {
            revoke(&others, Target::token(format!("other {n}"))).await.unwrap();
        }
    });
    for _ in 0..3 {
        proxy.set(Fault::Reset).await;
        while store.health().is_up() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        proxy.set(Fault::Latency { base: Duration::from_millis(5), jitter: Duration::ZERO }).await;
        let start = Instant::now();
        while !store.health().is_up() || revoke(&store, Target::token("t")).await.is_err() {
            assert!(start.elapsed() < SOON);
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    proxy.set(Fault::Pass).await;
    assert!(!writes.is_finished());
    writes.abort();
    assert_eq!(check(&store, &token("old", "old")).await.unwrap(), Standing::Live);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_begins_an_epoch_without_knowing_of_the_loss_learns_of_it() {
    if !redis_is_installed() {
        return;
    }
    for _ in 0..10 {
        let server = RedisServer::start();
        let store = with_data(&server).await;
        server.cli(&["FLUSHALL"]);
        let newcomer = patient(server.url()).with_start(Start::AtOnce).connect().await.unwrap();
        doubts(&newcomer).await;
        noticed(&store).await;
        noticed(&newcomer).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_starts_agree_and_doubt_nothing() {
    if !redis_is_installed() {
        return;
    }
    let server = RedisServer::start();
    let starts: Vec<_> = (0..8)
        .map(|_| {
            let url = server.url();
            tokio::spawn(async move { connect(url).await.unwrap() })
        })
        .collect();
    let mut epochs = Vec::new();
    for start in starts {
        let store = start.await.unwrap();
        assert_eq!(check(&store, &token("old", "old")).await.unwrap(), Standing::Live);
        let receipts = store.write(vec![Revocation::new(Target::token("t"), SOON)]).await.unwrap();
        epochs.push(receipts[0].fence.unwrap().epoch);
    }
    epochs.dedup();
    assert_eq!(epochs.len(), 1, "{epochs:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_doubt_ends_when_no_token_from_before_can_be_left() {
    if !redis_is_installed() {
        return;
    }
    let server = RedisServer::start();
    let store = patient(server.url())
        .with_max_token_lifetime(Duration::from_millis(1500))
        .connect()
        .await
        .unwrap();
    server.cli(&["FLUSHALL"]);
    // A token with an `iat` is judged by that until it expires; one without, by the time that has
    // passed.
    let profile = TokenProfile::new().allow_missing_iat();
    let ageless = token_of(&profile, serde_json::json!({ "sub": "u", "jti": "ageless" }));
    noticed(&store).await;
    assert_eq!(check(&store, &ageless).await.unwrap_err().kind(), StoreErrorKind::DataLoss);
    let start = Instant::now();
    while check(&store, &ageless).await.is_err() {
        assert!(start.elapsed() < SOON, "the doubt does not end");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(
        check(&store, &token("old", "old")).await.unwrap_err().kind(),
        StoreErrorKind::DataLoss
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_epoch_that_may_not_begin_is_not_asked_for_without_pause() {
    if !redis_is_installed() {
        return;
    }
    let server = RedisServer::start();
    let store = with_data(&server).await;
    server.cli(&["ACL", "SETUSER", "default", "-evalsha", "-eval"]);
    server.cli(&["FLUSHALL"]);
    let old = token("old", "old");
    // Each of these asks for a new epoch, which is refused each time.
    let start = Instant::now();
    let mut checks = 0;
    while start.elapsed() < Duration::from_millis(400) {
        check(&store, &old).await.unwrap_err();
        checks += 1;
    }
    let stats = server.cli(&["INFO", "commandstats"]);
    let refused = stats.lines().find_map(|line| line.strip_prefix("cmdstat_evalsha:")).unwrap();
    let (_, refused) = refused.split_once("rejected_calls=").unwrap();
    let refused: u32 = refused.split(',').next().unwrap().parse().unwrap();
    assert!(
        (1..=20).contains(&refused),
        "{refused} times for {checks} checks in {:?}",
        start.elapsed()
    );
    // As soon as it may, it begins.
    server.cli(&["ACL", "SETUSER", "default", "+evalsha", "+eval"]);
    noticed(&store).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_doubt_lasts_for_as_long_as_the_layer_accepts_tokens() {
    if !redis_is_installed() {
        return;
    }
    let server = RedisServer::start();
    let store = patient(server.url())
        .with_max_token_lifetime(Duration::from_secs(1))
        .connect()
        .await
        .unwrap();
    // Its profile says a day.
    let _layer = JwtRevocationLayer::new(WordVerifier::default(), store.clone());
    server.cli(&["FLUSHALL"]);
    noticed(&store).await;
    let epoch = server.cli(&["GET", "jwt-revocation:{0}:e"]);
    let words: Vec<u64> =
        epoch.split(' ').skip(2).take(3).map(|word| word.parse().unwrap()).collect();
    let [_started_at, issued_until, ends_at] = words[..] else { panic!("{epoch}") };
    assert!(Duration::from_millis(ends_at - issued_until) >= DEFAULT_MAX_LIFETIME, "{epoch}");
}
