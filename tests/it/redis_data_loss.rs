//! What happens when Redis has lost its data, in each way in which that happens: those who wrote it
//! put it back if the server has changed, and whatever nobody can put back is in doubt.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tower_jwt_revocation::revocation::Revocation;
use tower_jwt_revocation::store::redis::{ConnectError, RedisStoreBuilder, Start};
use tower_jwt_revocation::store::{
    Doubt, RevocationStore as _, Standing, StoreError, StoreErrorKind,
};
use tower_jwt_revocation::{JwtRevocationLayer, RedisStore, Target, TokenProfile, VerifiedToken};

use crate::redis_supervision::revoke;
use crate::servers::{Fault, FaultProxy, RedisServer, redis_is_installed, wait_until};
use crate::store_contract::{check, issued_at, now, token, token_of};
use crate::support::WordVerifier;

/// The longest lifetime of a token under the default profile.
const DEFAULT_MAX_LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);

const SOON: Duration = Duration::from_secs(30);

/// What was known for longer than this is missed if another server does not have it.
const LONG_KNOWN: Duration = Duration::from_millis(5500);

/// A token that is issued after whatever has happened so far.
fn fresh() -> Arc<VerifiedToken> {
    issued_at("fresh", "fresh", now().as_secs() + 2)
}

/// Waits until tokens from before are in doubt *because* data was lost, and new ones are not. Not
/// once may a token from before be taken for live.
async fn noticed(store: &RedisStore) {
    let old = token("old", "old");
    let start = Instant::now();
    loop {
        // The doubt may be declared meanwhile, and reaches to that moment.
        let new = fresh();
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
    let answer = async || check(store, &old).await.map_err(|error| error.kind());
    while answer().await != Err(StoreErrorKind::DataLoss) {
        assert!(start.elapsed() < SOON, "it never doubts them");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Checks the revoked token `lost`, and one that is not, once: says whether both have an answer.
/// The first may never be taken for live, and neither be in doubt because data was lost.
async fn has_both(store: &RedisStore) -> bool {
    let mut answers = 0;
    for (id, is_expected) in [
        ("lost", (|standing| matches!(standing, Standing::Revoked(_))) as fn(&Standing) -> bool),
        ("old", |standing| matches!(standing, Standing::Live)),
    ] {
        match check(store, &token("x", id)).await {
            Ok(standing) => {
                assert!(is_expected(&standing), "{id}: {standing:?}");
                answers += 1;
            }
            Err(error) => assert_ne!(error.kind(), StoreErrorKind::DataLoss, "{id}: {error}"),
        }
    }
    answers == 2
}

/// Waits until everything is put back, and nothing is in doubt.
async fn put_back(store: &RedisStore) {
    let start = Instant::now();
    while !has_both(store).await {
        assert!(start.elapsed() < SOON, "it is not put back");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Revokes, as soon as the server takes writes.
async fn revoke_once_settled(store: &RedisStore, id: &str) {
    let start = Instant::now();
    while let Err(error) = revoke(store, Target::token(id)).await {
        let passing = [StoreErrorKind::Settling, StoreErrorKind::Timeout];
        assert!(passing.contains(&error.kind()) && start.elapsed() < 2 * SOON, "{id}: {error}");
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
async fn a_restart_with_an_older_dump_gets_back_what_a_writer_has_confirmed() {
    if !redis_is_installed() {
        return;
    }
    let mut server = RedisServer::start();
    let (store, idle) = (with_data(&server).await, connect(server.url()).await.unwrap());
    server.cli(&["SAVE"]);
    revoke(&store, Target::token("lost")).await.unwrap();
    assert!(matches!(check(&store, &token("x", "lost")).await.unwrap(), Standing::Revoked(_)));
    server.restart();
    let late = patient(server.url()).with_start(Start::Anyway).connect().await.unwrap();
    for store in [&late, &store, &idle] {
        put_back(store).await;
        // What the dump held is still there.
        assert!(matches!(check(store, &token("x", "t")).await.unwrap(), Standing::Revoked(_)));
    }
    revoke_once_settled(&store, "later").await;
    for store in [&late, &store, &idle] {
        assert!(matches!(check(store, &token("x", "later")).await.unwrap(), Standing::Revoked(_)));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_with_an_older_dump_is_noticed_where_the_writer_has_left() {
    if !redis_is_installed() {
        return;
    }
    let mut server = RedisServer::start();
    // Of one who has written later than that, the dump does not even know that he did.
    with_data(&server).await.close().await.unwrap();
    server.cli(&["SAVE"]);
    let (store, idle) =
        (connect(server.url()).await.unwrap(), connect(server.url()).await.unwrap());
    revoke(&store, Target::token("lost")).await.unwrap();
    // A process that has known of it for long enough, by the looks that it takes every few seconds,
    // knows that it was not just about to be confirmed.
    for _ in 0..2 {
        assert!(matches!(check(&idle, &token("x", "lost")).await.unwrap(), Standing::Revoked(_)));
        tokio::time::sleep(LONG_KNOWN).await;
    }
    assert!(matches!(check(&idle, &token("x", "lost")).await.unwrap(), Standing::Revoked(_)));
    store.close().await.unwrap();
    drop(store);
    server.restart();
    noticed(&idle).await;
    let late = connect(server.url()).await.unwrap();
    doubts(&late).await;
    assert!(matches!(check(&idle, &token("x", "t")).await.unwrap(), Standing::Revoked(_)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_loss_whose_writer_does_not_come_is_noticed_and_mended_when_it_comes_after_all() {
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
    // It is waited for. Then everything from before is in doubt, and the older state gets more
    // changes than it has lost.
    let ignorant = patient(server.url()).with_start(Start::Anyway).connect().await.unwrap();
    let start = Instant::now();
    loop {
        let error = check(&ignorant, &token("x", "lost")).await.unwrap_err();
        if error.kind() == StoreErrorKind::DataLoss {
            break;
        }
        assert!(start.elapsed() < 2 * SOON, "the writer is waited for without end: {error}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    for n in 0..5 {
        revoke_once_settled(&ignorant, &format!("n{n}")).await;
    }
    noticed(&ignorant).await;
    // What was written before is put back as soon as the writer can, and nothing is in doubt.
    proxy.set(Fault::Pass).await;
    let start = Instant::now();
    for store in [&store, &ignorant] {
        let is_well = async || {
            let (lost, old) = (token("x", "lost"), token("old", "old"));
            matches!(check(store, &lost).await, Ok(Standing::Revoked(_)))
                && matches!(check(store, &old).await, Ok(Standing::Live))
        };
        while !is_well().await {
            assert!(
                start.elapsed() < SOON,
                "the doubt does not end: {:?} {:?} {} {} {}",
                check(store, &token("x", "lost")).await,
                check(store, &token("old", "old")).await,
                server.cli(&["GET", "jwt-revocation:{0}:e"]),
                server.cli(&["HGETALL", "jwt-revocation:{0}:m"]),
                server.cli(&["KEYS", "*"])
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        for n in 0..5 {
            let n = check(store, &token("x", &format!("n{n}"))).await.unwrap();
            assert!(matches!(n, Standing::Revoked(_)));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_written_while_the_connection_of_the_checks_was_away_is_put_back_too() {
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
        let ignorant = patient(server.url()).with_start(Start::Anyway).connect().await.unwrap();
        // No change can hide the loss meanwhile.
        let error = revoke(&ignorant, Target::token("early")).await.unwrap_err();
        assert!(error.may_be_repeated(), "{error}");
        assert!(!has_both(&ignorant).await, "the one who knew more was not waited for");
        proxy.set(Fault::Pass).await;
        for store in [&ignorant, &store] {
            put_back(store).await;
        }
        revoke_once_settled(&ignorant, "later").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_that_is_left_behind_unproved_proves_nothing_and_its_late_writes_are_lost() {
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
    let known_since = Instant::now();
    assert!(matches!(check(&store, &token("x", "lost")).await.unwrap(), Standing::Revoked(_)));
    let at_other = connect(other.url()).await.unwrap();
    for n in 0..2 {
        revoke_once_settled(&at_other, &format!("n{n}")).await;
    }
    revoke_once_settled(&store, "later").await;
    // Its checks are still answered by the former primary, which proves no token any more.
    for _ in 0..20 {
        let error = check(&store, &token("old", "old")).await.unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::Settling, "{error}");
    }

    let start = Instant::now();
    let made = proxy.accepted();
    while proxy.accepted() == made {
        assert!(start.elapsed() < SOON);
        kill_clients(&one, |line| line.contains("cmd=mget"));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let is_left_behind = |error: &StoreError| {
        [StoreErrorKind::Settling, StoreErrorKind::Unreachable].contains(&error.kind())
    };
    for store in [&store, &at_other] {
        for id in ["t", "later", "n0", "n1"] {
            let standing = loop {
                match check(store, &token("x", id)).await {
                    Ok(standing) => break standing,
                    Err(error) => {
                        assert!(is_left_behind(&error) && start.elapsed() < SOON, "{error}");
                    }
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            };
            assert!(matches!(standing, Standing::Revoked(_)), "{id}");
        }
        // Nobody can tell: nothing has said that this server was not the primary any more when it
        // confirmed the write. Sentinels and clusters do.
        match check(store, &token("x", "lost")).await {
            Ok(standing) => assert_eq!(standing, Standing::Live),
            // But on a machine so busy that it was known for long, it is missed.
            Err(error) => {
                let is_missed = known_since.elapsed() + Duration::from_secs(1) > LONG_KNOWN;
                assert!(error.kind() == StoreErrorKind::DataLoss && is_missed, "{error}");
            }
        }
    }
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
    // A token with an `iat` is checked by that until it expires; one without, by the time that has
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

/// As the kind of error; none if it has an answer. What passes is waited for.
async fn refusal(store: &RedisStore, token: &Arc<VerifiedToken>) -> Option<StoreErrorKind> {
    let start = Instant::now();
    loop {
        match check(store, token).await.err().map(|error| error.kind()) {
            Some(StoreErrorKind::Settling) if start.elapsed() < SOON => {}
            refusal => return refusal,
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_reads_a_doubt_ends_it_and_begins_another() {
    if !redis_is_installed() {
        return;
    }
    let server = RedisServer::start();
    let patient =
        |shards| patient(server.url()).with_prefix(format!("of{shards}")).with_shards(shards);
    for shards in [1, 4] {
        let store = patient(shards).connect().await.unwrap();
        let other = patient(shards).connect().await.unwrap();
        let operator = patient(shards).connect().await.unwrap();
        revoke(&store, Target::token("t")).await.unwrap();
        assert_eq!(operator.read_doubt().await.unwrap(), Doubt::None);
        assert_eq!(check(&other, &token("old", "old")).await.unwrap(), Standing::Live);

        // What was lost was lost …
        server.cli(&["FLUSHALL"]);
        noticed(&store).await;
        noticed(&other).await;
        noticed(&operator).await;
        let Doubt::Lasting { issued_until, ends_at } = operator.read_doubt().await.unwrap() else {
            panic!("there is no doubt")
        };
        assert!(ends_at >= issued_until.saturating_add(DEFAULT_MAX_LIFETIME));
        // … and the operator has to mean it.
        let earlier = issued_until.saturating_sub(Duration::from_secs(1));
        let still = operator.accept_tokens_in_doubt(earlier).await.unwrap();
        assert!(matches!(still, Doubt::Lasting { .. }), "{still:?}");
        assert_eq!(operator.accept_tokens_in_doubt(issued_until).await.unwrap(), Doubt::None);
        for store in [&store, &other] {
            assert_eq!(refusal(store, &token("old", "old")).await, None);
            assert_eq!(check(store, &token("old", "old")).await.unwrap(), Standing::Live);
            // Its writer has put it back.
            let standing = check(store, &token("x", "t")).await.unwrap();
            assert!(matches!(standing, Standing::Revoked(_)), "{standing:?}");
        }
        // Of other shards nothing was read.
        assert!(shards > 1 || store.health().doubt() == Doubt::None);

        // The operator knows of a loss of which nobody else does.
        let an_hour_ago = now().saturating_sub(Duration::from_secs(3600));
        let declared = operator.declare_doubt(an_hour_ago).await.unwrap();
        let Doubt::Lasting { issued_until, ends_at } = declared else { panic!("{declared:?}") };
        assert_eq!(issued_until, an_hour_ago);
        assert!(ends_at >= an_hour_ago.saturating_add(DEFAULT_MAX_LIFETIME), "{ends_at}");
        let before = issued_at("before", "before", now().as_secs() - 3700);
        for store in [&store, &other] {
            assert_eq!(refusal(store, &before).await, Some(StoreErrorKind::DataLoss));
            assert_eq!(refusal(store, &token("old", "old")).await, None, "it is a newer one");
            assert!(shards > 1 || store.health().doubt() == declared);
        }
        // Writes go on.
        revoke(&store, Target::token("before")).await.unwrap();
        assert!(matches!(check(&other, &before).await.unwrap(), Standing::Revoked(_)));
        assert_eq!(operator.accept_tokens_in_doubt(an_hour_ago).await.unwrap(), Doubt::None);

        let long_ago = now().saturating_sub(DEFAULT_MAX_LIFETIME * 2);
        let error = operator.declare_doubt(long_ago).await.unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::InvalidInput);
        let declared = operator.declare_doubt(now().saturating_add(SOON * 100)).await.unwrap();
        let Doubt::Lasting { issued_until, .. } = declared else { panic!("{declared:?}") };
        assert!(issued_until <= now().saturating_add(Duration::from_secs(5)), "{issued_until}");
    }
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
        epoch.split(' ').skip(7).take(2).map(|word| word.parse().unwrap()).collect();
    let [issued_until, ends_at] = words[..] else { panic!("{epoch}") };
    assert!(Duration::from_millis(ends_at - issued_until) >= DEFAULT_MAX_LIFETIME, "{epoch}");
}
