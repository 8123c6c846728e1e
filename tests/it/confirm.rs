//! Writes that are waited for until all mirrors have them: `revoke(…).confirm(…)`.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tokio::time::timeout;
use tower_jwt_revocation::revoker::ConfirmError;
use tower_jwt_revocation::store::{Receipt, RevocationStore as _, Standing, StoreErrorKind};
use tower_jwt_revocation::{Mirror, RedisStore, Revoker, Target, TokenProfile};

use crate::mirror::{PATIENCE, answers_live, connect, is_revoked, local, mirror, token, until};
use crate::servers::{Cluster, Fault, FaultProxy, RedisServer, redis_is_installed, stop_process};

fn revoker(store: &RedisStore) -> Revoker {
    Revoker::new(store.clone(), TokenProfile::new()).unwrap()
}

/// A mirror with a name, which has said that it is there.
async fn named(url: impl AsRef<str>, name: &str) -> Mirror {
    let mirror = Mirror::builder(connect(url).await).with_name(name).start().unwrap();
    timeout(PATIENCE, mirror.ready()).await.expect("the mirror is never ready");
    mirror
}

async fn confirm(revoker: &Revoker, id: &str, limit: Duration) -> Result<Receipt, ConfirmError> {
    revoker.revoke(Target::token(id)).confirm(limit).await
}

/// Who is behind; nobody if the write is confirmed.
async fn behind(revoker: &Revoker, id: &str, limit: Duration) -> Vec<String> {
    match confirm(revoker, id, limit).await {
        Ok(_) => Vec::new(),
        Err(ConfirmError::Behind { mirrors, receipt }) => {
            assert!(receipt.fence.is_some());
            mirrors.iter().map(ToString::to_string).collect()
        }
        Err(error) => panic!("{error}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_confirmed_write_is_known_to_every_mirror_also_for_a_writer_that_has_none() {
    if !redis_is_installed() {
        return;
    }
    let server = RedisServer::start();
    let revoker = revoker(&connect(server.url()).await);
    let confirmed = confirm(&revoker, "alone", PATIENCE).await.unwrap();
    assert_eq!(confirmed.mirrors, Some(0), "nobody is there yet");
    let mirrors =
        [mirror(server.url()).await, mirror(server.url()).await, mirror(server.url()).await];
    for n in 0..50 {
        let id = format!("t{n}");
        let confirmed = confirm(&revoker, &id, PATIENCE).await.unwrap();
        assert_eq!(confirmed.mirrors, Some(3));
        // At once, without a look at the store.
        assert!(mirrors.iter().all(|mirror| is_revoked(mirror, &id)), "{id}");
    }
    let [late, ..] = [mirror(server.url()).await];
    assert!(
        is_revoked(&late, "t0") && is_revoked(&late, "alone"),
        "who comes late has it from the snapshot"
    );
    let undone = revoker.reinstate(Target::token("t0")).confirm(PATIENCE).await.unwrap();
    assert_eq!(undone.mirrors, Some(4));
    for mirror in mirrors.iter().chain([&late]) {
        assert!(answers_live(mirror, "t0").await);
    }
    // One that says good-bye is not waited for, not even for the rest of its lease.
    drop(late);
    let start = Instant::now();
    while confirm(&revoker, "gone", PATIENCE).await.unwrap().mirrors != Some(3) {
        assert!(start.elapsed() < Duration::from_millis(1500), "it left without a word");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_that_is_cut_off_is_named_and_waited_for_no_longer_than_it_may_answer() {
    if !redis_is_installed() {
        return;
    }
    let server = RedisServer::start();
    let revoker = revoker(&connect(server.url()).await);
    let proxy = FaultProxy::start(server.addr()).await;
    let near = named(server.url(), "near").await;
    let far = named(proxy.url(), "far side\n").await;
    assert_eq!(confirm(&revoker, "first", PATIENCE).await.unwrap().mirrors, Some(2));
    for fault in [Fault::BlackHoleRequests, Fault::BlackHoleReplies, Fault::Reset] {
        proxy.set(fault.clone()).await;
        let id = format!("{fault:?}");
        let named = behind(&revoker, &id, Duration::from_millis(200)).await;
        assert_eq!(named, ["far side?"], "{id}");
        assert!(is_revoked(&near, &id), "{id}");
        let confirmed = confirm(&revoker, &id, PATIENCE).await.unwrap();
        // The lease is over, so it has to ask; or, with what was under way, it has learnt of the
        // write.
        assert_eq!(confirmed.mirrors, Some(1), "{id}");
        assert!(!matches!(local(&far, &token(&id)), Some(Standing::Live)), "{id}");
        proxy.set(Fault::Pass).await;
        timeout(PATIENCE, far.ready()).await.unwrap();
        assert!(is_revoked(&far, &id), "{id}");
        assert_eq!(confirm(&revoker, &id, PATIENCE).await.unwrap().mirrors, Some(2), "{id}");
    }
}

/// What the child process of the next test does: it has a mirror until its standard input is
/// closed.
#[tokio::test(flavor = "multi_thread")]
async fn bystander() {
    let Ok(url) = std::env::var("CONFIRMED_BY") else { return };
    let _mirror = named(url, "bystander").await;
    println!("\nready");
    tokio::task::spawn_blocking(|| std::io::stdin().lines().count()).await.unwrap();
}

fn spawn_bystander(server: &RedisServer) -> Child {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "confirm::bystander", "--nocapture", "--test-threads", "1"])
        .env("CONFIRMED_BY", server.url())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    lines.find(|line| line == "ready").unwrap();
    child
}

fn pid(child: &Child) -> Pid {
    Pid::from_raw(child.id().cast_signed()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_hangs_or_dies_is_named_and_leaves_within_its_lease() {
    if !redis_is_installed() {
        return;
    }
    let server = RedisServer::start();
    let revoker = revoker(&connect(server.url()).await);
    let mut child = tokio::task::block_in_place(|| spawn_bystander(&server));
    assert_eq!(confirm(&revoker, "first", PATIENCE).await.unwrap().mirrors, Some(1));

    stop_process(pid(&child));
    assert_eq!(behind(&revoker, "hung", Duration::from_millis(100)).await, ["bystander"]);
    let start = Instant::now();
    assert_eq!(confirm(&revoker, "hung", PATIENCE).await.unwrap().mirrors, Some(0));
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());

    kill_process(pid(&child), Signal::CONT).unwrap();
    let start = Instant::now();
    while confirm(&revoker, "back", PATIENCE).await.unwrap().mirrors == Some(0) {
        assert!(start.elapsed() < PATIENCE, "it does not come back");
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(behind(&revoker, "dead", Duration::from_millis(100)).await, ["bystander"]);
    assert_eq!(confirm(&revoker, "dead", PATIENCE).await.unwrap().mirrors, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn each_shard_of_a_cluster_knows_its_mirrors() {
    if !redis_is_installed() {
        return;
    }
    let cluster = tokio::task::spawn_blocking(Cluster::start).await.unwrap();
    let store = || RedisStore::builder().with_url(cluster.url()).with_shards(8).connect();
    let revoker = revoker(&store().await.unwrap());
    let mirrors = [
        Mirror::new(store().await.unwrap()).unwrap(),
        Mirror::new(store().await.unwrap()).unwrap(),
    ];
    for mirror in &mirrors {
        timeout(PATIENCE, mirror.ready()).await.unwrap();
    }
    for n in 0..40 {
        let id = format!("t{n}");
        assert_eq!(confirm(&revoker, &id, PATIENCE).await.unwrap().mirrors, Some(2));
        assert!(mirrors.iter().all(|mirror| is_revoked(mirror, &id)), "{id}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_that_nobody_would_wait_for_does_not_answer_from_memory() {
    if !redis_is_installed() {
        return;
    }
    let server = RedisServer::start();
    let store = connect(server.url()).await;
    let revoker = revoker(&store);
    let rights = include_str!("../../src/store/redis/least_rights.acl");
    let rights: Vec<_> = rights.split_whitespace().skip(3).collect();
    server
        .cli(&[&["ACL", "SETUSER", "app"], rights.as_slice(), &["+xread", "+xrevrange"]].concat());
    let poor = connect(server.url_as("app", "password")).await;
    server.cli(&["ACL", "SETUSER", "app", "-set"]);
    let poor = Mirror::new(poor).unwrap();
    let status = until(&poor, "it is refused a lease", |status| status.error().is_some()).await;
    assert_eq!(status.error().unwrap().kind(), StoreErrorKind::Denied);
    assert!(status.is_following());
    assert!(!poor.is_fresh());
    assert_eq!(confirm(&revoker, "t", PATIENCE).await.unwrap().mirrors, Some(0));
    assert!(
        matches!(poor.check(&token("t")).answer().await, Ok(Standing::Revoked(_))),
        "the store is asked"
    );
    // With the right, and no more than that, all is well.
    server.cli(&["ACL", "SETUSER", "app", "+set"]);
    timeout(PATIENCE, poor.ready()).await.unwrap();
    assert_eq!(confirm(&revoker, "u", PATIENCE).await.unwrap().mirrors, Some(1));
    assert!(is_revoked(&poor, "u") && answers_live(&poor, "v").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_known_is_not_confirmed() {
    if !redis_is_installed() {
        return;
    }
    let server = RedisServer::start();
    let start = Instant::now();
    let store = connect(server.url()).await;
    match confirm(&revoker(&store), "young", Duration::from_millis(50)).await {
        // A machine so busy that the epoch is not young any more.
        Ok(_) => assert!(start.elapsed() > Duration::from_secs(2)),
        Err(young) => assert!(
            matches!(
                &young,
                ConfirmError::Unknown { error, .. } if error.kind() == StoreErrorKind::Stale
            ),
            "{young}"
        ),
    }
    let confirmed = confirm(&revoker(&store), "young", PATIENCE).await.unwrap();
    let fence = confirmed.fence.unwrap();
    server.cli(&["FLUSHALL"]);
    let error = store.followers(fence).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::DataLoss);
    server.stop_hung();
    let error = confirm(&revoker(&store), "hung", PATIENCE).await.unwrap_err();
    assert!(matches!(&error, ConfirmError::Write(_)) && error.receipt().is_none(), "{error}");
    server.resume();
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_a_mirror_stays_in_redis() {
    if !redis_is_installed() {
        return;
    }
    let server = RedisServer::start();
    let mirror = mirror(server.url()).await;
    let names = || -> Vec<String> {
        let names = server.cli(&["KEYS", "jwt-revocation:{0}:w*"]);
        names.lines().filter(|name| !name.is_empty()).map(ToOwned::to_owned).collect()
    };
    // One name is that of the index, which is the shorter one.
    let found = names();
    assert_eq!(found.len(), 2, "{found:?}");
    for name in found {
        let left: i64 = server.cli(&["PTTL", &name]).parse().unwrap();
        let most = if name.len() > 20 { 2000 } else { 48 * 3_600_000 };
        assert!((1..=most).contains(&left), "{name}: {left}");
    }
    drop(mirror);
    let start = Instant::now();
    while !names().is_empty() {
        assert!(start.elapsed() < PATIENCE, "{:?}", names());
    }
}
