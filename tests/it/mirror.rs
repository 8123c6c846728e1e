//! The mirror over real servers.

use std::collections::HashSet;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::timeout;
use tower_jwt_revocation::clock::Timestamp;
use tower_jwt_revocation::mirror::MirrorStatus;
use tower_jwt_revocation::revocation::{Action, Revocation};
use tower_jwt_revocation::store::{
    Doubt, Lookup, Receipt, RevocationStore as _, Standing, StoreErrorKind,
};
use tower_jwt_revocation::token::SignedClaims;
use tower_jwt_revocation::{Extent, Mirror, RedisStore, Target, TokenProfile, VerifiedToken};

use crate::servers::{
    Cluster, Fault, FaultProxy, RedisServer, Sentinel, redis_is_installed, stop_process, wait_until,
};

pub(crate) const HOUR: Duration = Duration::from_secs(3600);
/// For whatever takes milliseconds unless it never happens.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A token whose ids are all `id`, issued a minute ago.
pub(crate) fn token(id: &str) -> Arc<VerifiedToken> {
    issued(id, 60)
}

pub(crate) fn issued(id: &str, ago: u64) -> Arc<VerifiedToken> {
    let now = Timestamp::now();
    let claims = serde_json::json!({
        "sub": id, "jti": id, "sid": id, "client_id": id,
        "iat": now.as_secs() - ago, "exp": now.as_secs() + 1200
    });
    let claims = claims.to_string();
    Arc::new(TokenProfile::new().assert_verified(SignedClaims::new(claims.as_bytes())).unwrap())
}

pub(crate) async fn connect(url: impl AsRef<str>) -> RedisStore {
    RedisStore::connect(url).await.unwrap()
}

pub(crate) async fn mirror(url: impl AsRef<str>) -> Mirror {
    let mirror = Mirror::new(connect(url).await).unwrap();
    timeout(PATIENCE, mirror.ready()).await.expect("the mirror is never ready");
    mirror
}

pub(crate) async fn write(store: &RedisStore, target: Target, action: Action) -> Receipt {
    let mut change = Revocation::new(target, HOUR);
    change.action = action;
    store.write(vec![change]).await.unwrap().remove(0)
}

pub(crate) async fn revoke(store: &RedisStore, id: &str) -> Receipt {
    write(store, Target::token(id), Action::Revoke(Extent::All)).await
}

async fn follow(mirror: &Mirror, receipt: &Receipt) {
    let arrived = timeout(PATIENCE, mirror.wait_for(receipt.fence.unwrap()))
        .await
        .expect("the write never arrives");
    arrived.unwrap_or_else(|error| panic!("{error}: {receipt:?} {mirror:?}"));
}

pub(crate) async fn until(
    mirror: &Mirror,
    what: &str,
    done: impl Fn(&MirrorStatus) -> bool,
) -> MirrorStatus {
    let mut status = mirror.watch_status();
    let reached = timeout(PATIENCE, status.wait_for(done)).await;
    reached.unwrap_or_else(|_| panic!("never: {what}: {mirror:?}")).unwrap().clone()
}

/// What the mirror says from memory; `None` if it has to ask.
pub(crate) fn local(mirror: &Mirror, token: &Arc<VerifiedToken>) -> Option<Standing> {
    match mirror.check(token) {
        Lookup::Now(answer) => answer.ok(),
        Lookup::Later(_) => None,
    }
}

pub(crate) fn is_revoked(mirror: &Mirror, id: &str) -> bool {
    matches!(local(mirror, &token(id)), Some(Standing::Revoked(_)))
}

pub(crate) fn is_live(mirror: &Mirror, id: &str) -> bool {
    matches!(local(mirror, &token(id)), Some(Standing::Live))
}

/// Whether the mirror answers so from memory, once it is fresh: on a busy machine it may not be for
/// a moment.
pub(crate) async fn answers_live(mirror: &Mirror, id: &str) -> bool {
    let waiting = async {
        while !is_live(mirror, id) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, waiting).await.is_ok()
}

fn targets(id: &str) -> [Target; 4] {
    [Target::token(id), Target::session(id), Target::user(id), Target::client(id)]
}

/// By the log, by a snapshot, by its own write, and after it has put back what the store has lost.
#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_knows_which_session_is_spared() {
    if !redis_is_installed() {
        return;
    }
    let server = RedisServer::start();
    let connect = async || {
        let builder = RedisStore::builder().with_url(server.url()).with_shards(3);
        builder.connect().await.unwrap()
    };
    let mirror = async || {
        let mirror = Mirror::new(connect().await).unwrap();
        timeout(PATIENCE, mirror.ready()).await.expect("the mirror is never ready");
        mirror
    };
    let spared = |session: Option<&str>| {
        let mut change = Revocation::new(Target::user("alice"), HOUR);
        change.sparing = session.map(Target::session);
        vec![change]
    };
    let other = {
        let now = Timestamp::now().as_secs();
        let claims = serde_json::json!({
            "sub": "alice", "sid": "other", "jti": "j", "iat": now - 60, "exp": now + 1200
        });
        let claims = claims.to_string();
        Arc::new(TokenProfile::new().assert_verified(SignedClaims::new(claims.as_bytes())).unwrap())
    };
    let is_other_revoked =
        |mirror: &Mirror| matches!(local(mirror, &other), Some(Standing::Revoked(_)));

    let (store, early, writer) = (connect().await, mirror().await, mirror().await);
    let receipt = store.write(spared(Some("alice"))).await.unwrap().remove(0);
    follow(&early, &receipt).await;
    let late = mirror().await;
    for mirror in [&early, &late] {
        assert!(answers_live(mirror, "alice").await && is_other_revoked(mirror), "{mirror:?}");
    }
    // It knows that at once, and says so of nobody else.
    let receipt = writer.write(spared(Some("alice"))).await.unwrap().remove(0);
    assert!(is_other_revoked(&writer) && !is_revoked(&writer, "alice"));
    for mirror in [&early, &late, &writer] {
        follow(mirror, &receipt).await;
        assert!(answers_live(mirror, "alice").await && is_other_revoked(mirror), "{mirror:?}");
    }
    let known = store.find(&Target::user("alice")).await.unwrap().unwrap();
    server.cli(&["FLUSHALL"]);
    let put_back = async || match store.find(&Target::user("alice")).await {
        Ok(Some(found)) => found.fact() == known.fact(),
        _ => false,
    };
    let start = Instant::now();
    while !put_back().await {
        assert!(start.elapsed() < PATIENCE, "it is not put back: {known:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(!is_revoked(&early, "alice") && is_other_revoked(&early));

    let all = async || store.write(spared(None)).await.is_ok();
    while !all().await {
        assert!(start.elapsed() < 2 * PATIENCE, "nothing is written");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    for mirror in [&early, &late, &writer] {
        while !is_revoked(mirror, "alice") {
            assert!(start.elapsed() < 3 * PATIENCE, "the later cutoff never arrives: {mirror:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert!(is_other_revoked(mirror), "{mirror:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_that_comes_late_knows_what_one_that_was_there_knows() {
    if !redis_is_installed() {
        return;
    }
    let server = RedisServer::start();
    let store = connect(server.url()).await;
    let early = mirror(server.url()).await;
    let mut last = revoke(&store, "first").await;
    for (n, target) in targets("all").into_iter().enumerate() {
        write(&store, target, Action::Revoke(Extent::All)).await;
        for (kind, action) in [("cut", Extent::IssuedSoFar), ("back", Extent::IssuedSoFar)] {
            let id = format!("{kind}{n}");
            let [token, session, user, client] = targets(&id);
            let target = [token, session, user, client].into_iter().nth(n).unwrap();
            last = write(&store, target.clone(), Action::Revoke(action)).await;
            if kind == "back" {
                last = write(&store, target, Action::Reinstate).await;
            }
        }
    }
    follow(&early, &last).await;
    let late = mirror(server.url()).await;
    for mirror in [&early, &late] {
        assert!(is_revoked(mirror, "first") && is_revoked(mirror, "all"));
        assert!(answers_live(mirror, "other").await);
        for n in 0..4 {
            assert!(is_revoked(mirror, &format!("cut{n}")), "{n}");
            assert!(answers_live(mirror, &format!("back{n}")).await, "{n}");
        }
    }
    // Revoked again after it was reinstated: a snapshot has to say so to a mirror that knows of the
    // reinstatement.
    for mirror in [&early, &late] {
        follow(mirror, &write(&store, Target::token("back0"), Action::Revoke(Extent::All)).await)
            .await;
        assert!(is_revoked(mirror, "back0"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn own_writes_are_seen_at_once_and_those_of_others_soon() {
    if !redis_is_installed() {
        return;
    }
    let server = RedisServer::start();
    let (one, other) = (mirror(server.url()).await, mirror(server.url()).await);
    for n in 0..100 {
        let id = format!("t{n}");
        let receipts =
            one.write(vec![Revocation::new(Target::token(id.as_str()), HOUR)]).await.unwrap();
        assert!(is_revoked(&one, &id));
        follow(&other, &receipts[0]).await;
        assert!(is_revoked(&other, &id));
    }
    assert_eq!((other.status().entries, other.status().resyncs()), (100, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flushed_redis_un_revokes_nothing_and_gets_a_replay() {
    if !redis_is_installed() {
        return;
    }
    let server = RedisServer::start();
    let (writer, store) = (connect(server.url()).await, connect(server.url()).await);
    revoke(&writer, "before").await;
    let mirror = mirror(server.url()).await;
    let cutoff = Action::Revoke(Extent::IssuedSoFar);
    follow(&mirror, &write(&writer, Target::user("bob"), cutoff).await).await;
    // Who wrote it would put it back as well.
    writer.close().await.unwrap();
    server.cli(&["FLUSHALL"]);
    let status = until(&mirror, "resync", |status| status.resyncs() > 0).await;
    assert_eq!(status.last_resync(), Some("the store has begun a new epoch"));
    until(&mirror, "the replay is done", |status| status.replayed() == 2).await;
    timeout(PATIENCE, mirror.ready()).await.unwrap();
    assert!(is_revoked(&mirror, "before") && is_revoked(&mirror, "bob"));
    assert_eq!(
        local(&mirror, &token("unknown")),
        None,
        "issued before the loss, for redis to decide"
    );
    // Those without a mirror know it, too.
    for id in ["before", "bob"] {
        assert!(matches!(store.check(&token(id)).answer().await, Ok(Standing::Revoked(_))), "{id}");
    }
}

/// A client that is told 401 throws its token away, which is good again in some seconds. What is
/// issued and revoked after the loss does not wait for that.
#[tokio::test(flavor = "multi_thread")]
async fn where_a_mirror_puts_everything_back_a_flushed_redis_has_lost_nothing_for_good() {
    if !redis_is_installed() {
        return;
    }
    let server = RedisServer::start();
    let (writer, store) = (connect(server.url()).await, connect(server.url()).await);
    let mirror = mirror(server.url()).await;
    follow(&mirror, &revoke(&writer, "revoked").await).await;
    until(&mirror, "it knows all", |status| status.doubt() == Doubt::None).await;
    // Only the mirror has it then.
    writer.close().await.unwrap();
    server.cli(&["FLUSHALL"]);
    revoke(&store, "later").await;
    let start = Instant::now();
    let mut has_waited = false;
    loop {
        let (live, revoked) = (token("live"), token("revoked"));
        let at_mirror = mirror.check(&live).answer().await;
        assert!(is_revoked(&mirror, "revoked"));
        let standing = store.check(&revoked).answer().await;
        assert!(!matches!(standing, Ok(Standing::Live)), "{standing:?}");
        match at_mirror.map_err(|error| error.kind()) {
            Ok(standing) => {
                assert_eq!(standing, Standing::Live);
                if has_waited {
                    break;
                }
            }
            Err(kind) => {
                assert_ne!(kind, StoreErrorKind::DataLoss, "after {:?}", start.elapsed());
                has_waited = true;
            }
        }
        assert!(start.elapsed() < PATIENCE, "{mirror:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(mirror.status().replayed() >= 1);
    assert_eq!(mirror.status().doubts_ended(), 1);
    let standing = store.check(&token("revoked")).answer().await.unwrap();
    assert!(matches!(standing, Standing::Revoked(_)), "{standing:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_was_trimmed_while_it_was_away_costs_a_snapshot_and_no_revocation() {
    if !redis_is_installed() {
        return;
    }
    let server = RedisServer::start();
    let store = connect(server.url()).await;
    let proxy = FaultProxy::start(server.addr()).await;
    let mirror = mirror(proxy.url()).await;
    proxy.set(Fault::Reset).await;
    until(&mirror, "it is cut off", |status| !status.is_following()).await;
    for n in 0..50 {
        revoke(&store, &format!("t{n}")).await;
    }
    server.cli(&["XTRIM", "jwt-revocation:{0}:l", "MAXLEN", "0"]);
    proxy.set(Fault::Pass).await;
    let status = until(&mirror, "resync", |status| status.resyncs() > 0).await;
    assert_eq!(status.last_resync(), Some("the log was trimmed beyond what had been read"));
    timeout(PATIENCE, mirror.ready()).await.unwrap();
    assert!((0..50).all(|n| is_revoked(&mirror, &format!("t{n}"))));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hung_redis_makes_it_ask_and_then_say_that_there_is_no_answer() {
    if !redis_is_installed() {
        return;
    }
    let server = RedisServer::start();
    let store = connect(server.url()).await;
    let mirror = mirror(server.url()).await;
    follow(&mirror, &revoke(&store, "known").await).await;
    server.stop_hung();
    let hung = Instant::now();
    loop {
        // It was asked then, and may have answered before this task ran on.
        let after = hung.elapsed();
        if !is_live(&mirror, "other") {
            break;
        }
        assert!(after < Duration::from_millis(1100), "live after {after:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(mirror.check(&token("other")).answer().await.is_err());
    assert!(is_revoked(&mirror, "known"));
    server.resume();
    timeout(PATIENCE, mirror.ready()).await.unwrap();
    assert!(answers_live(&mirror, "other").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn it_follows_the_primary_and_not_the_one_that_was() {
    if !redis_is_installed() {
        return;
    }
    let sentinel = Sentinel::start(1, 1);
    let store = connect(sentinel.url()).await;
    let mirror = mirror(sentinel.url()).await;
    follow(&mirror, &revoke(&store, "before").await).await;
    let old = tokio::task::block_in_place(|| {
        let epoch = |server: &RedisServer| server.cli(&["GET", "jwt-revocation:{0}:e"]);
        let (one, other) = (&sentinel.servers()[0], &sentinel.servers()[1]);
        wait_until("the replica has it", PATIENCE, || {
            !epoch(one).is_empty() && epoch(one) == epoch(other)
        });
        let old = sentinel.hang_primary();
        sentinel.wait_for_failover_from(old);
        old
    });
    until(&mirror, "the new primary is followed", MirrorStatus::is_following).await;
    timeout(PATIENCE, mirror.ready()).await.unwrap();
    let start = Instant::now();
    let receipt = loop {
        let change = Revocation::new(Target::token("after"), HOUR);
        match store.write(vec![change]).await {
            Ok(receipts) => break receipts[0].clone(),
            Err(error) => assert!(start.elapsed() < PATIENCE, "{error}"),
        }
    };
    // An epoch that has begun anew has the write all the same.
    let _ = timeout(PATIENCE, mirror.wait_for(receipt.fence.unwrap()))
        .await
        .expect("the write never arrives");
    // The old primary comes back and believes for a while that it still is one.
    sentinel.servers()[old].resume();
    for n in 0..20 {
        let id = format!("later{n}");
        let start = Instant::now();
        // What was written to the old one is doubted, and the epoch of the store begins anew: then
        // the fence is of the old.
        while mirror.wait_for(revoke(&store, &id).await.fence.unwrap()).await.is_err() {
            assert!(start.elapsed() < PATIENCE, "{mirror:?}");
        }
        assert!(is_revoked(&mirror, &id));
    }
    assert!(is_revoked(&mirror, "before") && is_revoked(&mirror, "after"));
    assert!(!is_revoked(&mirror, "other"));
}

/// What was confirmed is at the new primary, or put back by who wrote it; and the mirror goes on in
/// the log of the new primary.
#[tokio::test(flavor = "multi_thread")]
async fn an_ordered_failover_costs_a_mirror_no_snapshot_and_no_revocation_is_missed() {
    if !redis_is_installed() {
        return;
    }
    let sentinel = tokio::task::spawn_blocking(|| Sentinel::start(1, 1)).await.unwrap();
    let writer = connect(sentinel.url()).await;
    let mirror = mirror(sentinel.url()).await;
    follow(&mirror, &revoke(&writer, "before").await).await;
    let order = tokio::task::spawn_blocking(move || {
        sentinel.failover();
        sentinel
    });
    // From this age on no mirror may miss it.
    let bound = Duration::from_secs(1);
    let mut confirmed = vec![("before".to_owned(), Instant::now())];
    let start = Instant::now();
    let mut is_after = false;
    while !(is_after && order.is_finished()) {
        assert!(start.elapsed() < PATIENCE * 2, "{mirror:?}");
        let id = format!("during {}", confirmed.len());
        let change = Revocation::new(Target::token(id.clone()), HOUR);
        if writer.write(vec![change]).await.is_ok() {
            confirmed.push((id, Instant::now()));
            is_after = order.is_finished();
        }
        for (id, at) in &confirmed {
            assert!(at.elapsed() < bound || !is_live(&mirror, id), "{id}: {mirror:?}");
        }
        // Nor does redis, which the mirror asks.
        if let Ok(standing) = mirror.check(&token("before")).answer().await {
            assert!(matches!(standing, Standing::Revoked(_)), "{standing:?}");
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    until(&mirror, "it has settled", |status| {
        status.is_following() && status.lag() == 0 && status.doubt() == Doubt::None
    })
    .await;
    // The writer may hear later than the mirror that all is settled.
    let start = Instant::now();
    let after = loop {
        match writer.write(vec![Revocation::new(Target::token("after"), HOUR)]).await {
            Ok(mut receipts) => break receipts.remove(0),
            Err(error) => {
                assert!(error.may_be_repeated() && start.elapsed() < PATIENCE, "{error}");
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    };
    follow(&mirror, &after).await;
    timeout(PATIENCE, mirror.ready()).await.unwrap();
    for (id, _) in &confirmed {
        assert!(is_revoked(&mirror, id), "{id} of {}: {mirror:?}", confirmed.len());
    }
    assert!(answers_live(&mirror, "other").await);
    assert_eq!(mirror.status().resyncs(), 0, "{mirror:?}");
    drop(order.await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_cluster_every_shard_has_its_log() {
    if !redis_is_installed() {
        return;
    }
    let cluster = tokio::task::spawn_blocking(Cluster::start).await.unwrap();
    let store =
        RedisStore::builder().with_url(cluster.url()).with_shards(8).connect().await.unwrap();
    let other =
        RedisStore::builder().with_url(cluster.url()).with_shards(8).connect().await.unwrap();
    for n in 0..40 {
        revoke(&store, &format!("before{n}")).await;
    }
    let mirror = Mirror::new(other).unwrap();
    timeout(PATIENCE, mirror.ready()).await.unwrap();
    let mut shards = HashSet::new();
    for n in 0..40 {
        let receipt = revoke(&store, &format!("after{n}")).await;
        follow(&mirror, &receipt).await;
        shards.insert(receipt.fence.unwrap().shard);
        assert!(
            is_revoked(&mirror, &format!("before{n}")) && is_revoked(&mirror, &format!("after{n}"))
        );
    }
    assert!(answers_live(&mirror, "other").await);
    assert!(shards.len() > 3, "{shards:?}");
}

/// What the child process of the next test does.
#[tokio::test(flavor = "multi_thread")]
async fn sleeper() {
    let Ok(url) = std::env::var("MIRROR_OF") else { return };
    let mirror = mirror(url).await;
    let mut out = std::io::stdout();
    let token = token("revoked-meanwhile");
    let mut before = Instant::now();
    writeln!(out, "\nready").unwrap();
    loop {
        // One reading for both: a sleep between two would be overlooked.
        let now = Instant::now();
        if now - before > Duration::from_secs(1) {
            // The first look after the sleep.
            let word = match local(&mirror, &token) {
                Some(Standing::Live) => "live",
                Some(_) => "revoked",
                None => "ask",
            };
            writeln!(out, "woke {word}").unwrap();
            return;
        }
        before = now;
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_was_stopped_does_not_answer_from_the_past() {
    if !redis_is_installed() {
        return;
    }
    let server = RedisServer::start();
    let store = connect(server.url()).await;
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "mirror::sleeper", "--nocapture", "--test-threads", "1"])
        .env("MIRROR_OF", server.url())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    lines.by_ref().find(|line| line == "ready").unwrap();
    let pid = rustix::process::Pid::from_raw(child.id().cast_signed()).unwrap();
    stop_process(pid);
    revoke(&store, "revoked-meanwhile").await;
    // It is the length of the sleep that is tested.
    tokio::time::sleep(Duration::from_millis(1200)).await;
    rustix::process::kill_process(pid, rustix::process::Signal::CONT).unwrap();
    let woke = lines.by_ref().find(|line| line.starts_with("woke")).unwrap();
    assert_ne!(woke, "woke live");
    child.wait().unwrap();
}
