//! Behind sentinels and in a cluster a server is believed to be the primary for a second after a
//! majority has named it, and an answer for a second after its question was sent.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::FutureExt as _;
use tower_jwt_revocation::store::{RevocationStore as _, Standing, StoreErrorKind};
use tower_jwt_revocation::{RedisStore, Target};

use crate::redis_supervision::{WRITE, known_down, recovered, revoke, timely};
use crate::servers::{
    Cluster, Fault, FaultProxy, RedisServer, Sentinel, redis_is_installed, wait_until,
};
use crate::store_contract::{check, token};

/// For how long a proof and an answer are believed.
const LEASE: Duration = Duration::from_secs(1);
/// How long something may take on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

fn is_revoked(standing: &Standing) -> bool {
    matches!(standing, Standing::Revoked(_))
}

async fn in_background<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.unwrap()
}

/// A primary with a replica, and a sentinel that can be cut off from the primary while clients are
/// not: they dial what it announces elsewhere.
struct Divided {
    old: RedisServer,
    new: RedisServer,
    sentinel: RedisServer,
    proxy: FaultProxy,
}

impl Divided {
    async fn start() -> Self {
        let old = RedisServer::builder().arg("repl-diskless-sync-delay", "0").start();
        let new =
            RedisServer::builder().arg("replicaof", &format!("127.0.0.1 {}", old.port())).start();
        wait_until("the replica is in sync", LIMIT, || {
            new.cli(&["INFO", "replication"]).contains("master_link_status:up")
        });
        let proxy = FaultProxy::start(old.addr()).await;
        let sentinel = RedisServer::builder()
            .sentinel()
            .arg("sentinel monitor", &format!("primary 127.0.0.1 {} 1", proxy.addr().port()))
            .arg("sentinel down-after-milliseconds", "primary 500")
            .arg("sentinel failover-timeout", "primary 3000")
            .start();
        let divided = Self { old, new, sentinel, proxy };
        let start = Instant::now();
        while !divided.said("MASTER").contains("num-slaves\n1\n") {
            assert!(start.elapsed() < LIMIT, "the sentinel does not see the replica");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        divided
    }

    fn said(&self, what: &str) -> String {
        self.sentinel.cli(&["SENTINEL", what, "primary"])
    }

    async fn connect(&self) -> RedisStore {
        let url = format!("redis-sentinel://{}?sentinelServiceName=primary", self.sentinel.addr());
        RedisStore::builder()
            .with_url(url)
            .with_address_map([(self.proxy.addr().to_string(), self.old.addr().to_string())])
            .with_write_timeout(WRITE)
            .connect()
            .await
            .unwrap()
    }

    /// Waits until the sentinel has named the replica.
    async fn wait_for_failover(&self) -> Instant {
        let start = Instant::now();
        let port = self.new.port().to_string();
        while !self.said("GET-MASTER-ADDR-BY-NAME").contains(&port) {
            assert!(start.elapsed() < LIMIT, "no failover");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Instant::now()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_primary_that_was_replaced_without_knowing_it_is_believed_for_no_longer_than_a_lease() {
    if !redis_is_installed() {
        return;
    }
    let servers = Divided::start().await;
    let store = Arc::new(servers.connect().await);
    revoke(&store, Target::token("before")).await.unwrap();
    wait_until("the replica has it", LIMIT, || servers.new.cli(&["DBSIZE"]) != "0");
    // Cut off from the sentinel, and well for its clients.
    servers.proxy.set(Fault::Reset).await;
    servers.proxy.set(Fault::Refuse).await;
    let switched = servers.wait_for_failover().await;
    let other = servers.connect().await;
    let start = Instant::now();
    while revoke(&other, Target::token("late")).await.is_err() {
        assert!(start.elapsed() < LIMIT);
    }
    // From a lease after the switch on, nothing comes from the former primary.
    tokio::time::sleep_until((switched + LEASE).into()).await;
    let keys = servers.old.cli(&["DBSIZE"]);
    let late = token("u", "late");
    let mut answers = 0;
    let start = Instant::now();
    while answers < 50 || start.elapsed() < Duration::from_secs(3) {
        if let Ok(standing) = timely(&store, &late).await {
            assert!(is_revoked(&standing), "by the former primary, {:?}", switched.elapsed());
            answers += 1;
        }
        let _ = revoke(&store, Target::token(format!("t{answers}"))).await;
        tokio::time::sleep(Duration::from_millis(5)).await;
        assert!(start.elapsed() < LIMIT);
    }
    assert_eq!(servers.old.cli(&["DBSIZE"]), keys, "it was written to");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_a_frozen_primary_answers_when_it_wakes_is_never_believed() {
    if !redis_is_installed() {
        return;
    }
    let sentinel = in_background(|| Sentinel::start(1, 3)).await;
    let patient = || {
        RedisStore::builder()
            .with_url(sentinel.url())
            .with_check_timeout(LIMIT)
            .with_write_timeout(LIMIT)
    };
    let store = Arc::new(patient().connect().await.unwrap());
    revoke(&store, Target::token("before")).await.unwrap();
    let late = token("u", "late");
    assert_eq!(check(&*store, &late).await.unwrap(), Standing::Live);

    let hung = sentinel.hang_primary();
    let writing: Vec<_> = (0..20)
        .map(|n| {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                let id = format!("in flight {n}");
                revoke(&store, Target::token(id.clone())).await.is_ok().then_some(id)
            })
        })
        .collect();
    let checked: Vec<_> = (0..20)
        .map(|_| {
            let (store, late) = (Arc::clone(&store), Arc::clone(&late));
            tokio::spawn(async move { check(&*store, &late).await })
        })
        .collect();
    let sentinel = in_background(move || {
        sentinel.wait_for_failover_from(hung);
        sentinel
    })
    .await;
    let other = RedisStore::connect(sentinel.url()).await.unwrap();
    let start = Instant::now();
    while revoke(&other, Target::token("late")).await.is_err() {
        assert!(start.elapsed() < LIMIT);
    }
    sentinel.servers()[hung].resume();
    for answer in checked {
        if let Ok(standing) = answer.await.unwrap() {
            assert!(is_revoked(&standing), "read from the former primary");
        }
    }
    for written in writing {
        if let Some(id) = written.await.unwrap() {
            assert!(is_revoked(&recovered(&other, &token("u", &id)).await), "{id} was confirmed");
        }
    }
}

/// In that time the former primary is proved, and what it confirms nobody else hears of.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_process_that_closes_while_its_primary_is_replaced_is_not_waited_for_at_the_next_one() {
    if !redis_is_installed() {
        return;
    }
    let sentinel = in_background(|| Sentinel::start(1, 3)).await;
    let leaving = RedisStore::connect(sentinel.url()).await.unwrap();
    let staying = RedisStore::connect(sentinel.url()).await.unwrap();
    for (store, id) in [(&leaving, "by the one"), (&staying, "by the other")] {
        revoke(store, Target::token(id)).await.unwrap();
    }
    let next = &sentinel.servers()[1 - sentinel.primary_index()];
    wait_until("the replica has it", LIMIT, || {
        next.cli(&["DBSIZE"]) == sentinel.primary().cli(&["DBSIZE"])
    });
    wait_until("a sentinel takes the order", LIMIT, || {
        sentinel.sentinels()[0].try_cli(&["SENTINEL", "FAILOVER", Sentinel::SERVICE]).is_ok()
    });
    // The sentinels do not hear that it is done.
    next.cli(&["ACL", "SETUSER", "default", "-info"]);
    wait_until("the replica is promoted", LIMIT, || {
        next.try_cli(&["ROLE"]).is_ok_and(|role| role.starts_with("master"))
    });
    let closing = tokio::spawn(async move { leaving.close().await });
    tokio::time::sleep(Duration::from_secs(1)).await;
    next.cli(&["ACL", "SETUSER", "default", "+info"]);

    let ((first, live), start) = ((token("u", "by the one"), token("u", "live")), Instant::now());
    loop {
        // Another epoch is carried on there, and nobody is waited for.
        let epoch = next.try_cli(&["GET", "jwt-revocation:{0}:e"]).unwrap_or_default();
        let has_moved = epoch.split(' ').nth(2).is_some_and(|id| id.contains(|c| c != '0'));
        if has_moved && check(&staying, &live).await.is_ok_and(|found| found == Standing::Live) {
            break;
        }
        // A writer that does not come is waited for half a minute.
        assert!(start.elapsed() < Duration::from_secs(20), "{}", staying.health());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(is_revoked(&recovered(&staying, &first).await));
    closing.await.unwrap().unwrap();
}

/// The connections of our own to a server.
fn clients_of(server: &RedisServer) -> HashSet<String> {
    let list = server.cli(&["CLIENT", "LIST", "TYPE", "normal"]);
    let is_ours = |line: &&str| !line.contains("name=sentinel") && !line.contains("cmd=client");
    let ids = list.lines().filter(is_ours).filter_map(|line| line.split(' ').next());
    ids.map(Into::into).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn without_a_majority_of_the_sentinels_nothing_is_believed_and_it_is_said_why() {
    if !redis_is_installed() {
        return;
    }
    let sentinel = in_background(|| Sentinel::start(1, 3)).await;
    let store = RedisStore::connect(sentinel.url()).await.unwrap();
    revoke(&store, Target::token("revoked")).await.unwrap();
    let revoked = token("u", "revoked");
    let connections = clients_of(sentinel.primary());
    assert!(connections.len() >= 2, "{connections:?}");

    // One of three is not missed.
    sentinel.sentinels()[1].kill();
    let start = Instant::now();
    while start.elapsed() < 2 * LEASE {
        assert!(is_revoked(&recovered(&store, &revoked).await));
        assert!(store.health().is_up(), "{}", store.health());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    sentinel.sentinels()[2].stop_hung();
    let error = known_down(&store, &revoked).await;
    assert_eq!(error.kind(), StoreErrorKind::NotPrimary, "{error}");
    let wrong = revoke(&store, Target::token("t")).await.unwrap_err();
    assert_eq!(wrong.kind(), StoreErrorKind::NotPrimary, "{wrong}");
    let mut health = store.watch_health();
    let dead = sentinel.sentinels()[1].addr().to_string();
    let says_why = |health: &tower_jwt_revocation::store::redis::Health| {
        let words = health.to_string();
        words.contains("could not be confirmed as the primary in time: 1 of 3 sentinels name")
            && words.contains(&format!("{dead} does not answer"))
    };
    // What `wait_for` gives keeps the store from reporting.
    let told = tokio::time::timeout(LIMIT, health.wait_for(says_why)).await.is_ok();
    assert!(told, "{}", store.health());
    assert!(!store.health().checks() && !store.health().writes());

    // As soon as a majority answers, the same connections are used again.
    sentinel.sentinels()[2].resume();
    assert!(is_revoked(&recovered(&store, &revoked).await));
    let start = Instant::now();
    while revoke(&store, Target::token("t")).await.is_err() {
        assert!(start.elapsed() < LIMIT);
    }
    let after = clients_of(sentinel.primary());
    assert!(connections.is_subset(&after), "{connections:?} became {after:?}");

    // Nobody is left who could prove it.
    for n in [0, 2] {
        sentinel.sentinels()[n].kill();
    }
    let error = known_down(&store, &revoked).await;
    assert!(
        matches!(error.kind(), StoreErrorKind::NotPrimary | StoreErrorKind::Unreachable),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_configured_sentinel_of_three_proves_nothing_alone_and_leads_to_the_others() {
    if !redis_is_installed() {
        return;
    }
    let sentinel = in_background(|| Sentinel::start(1, 3)).await;
    let url = format!(
        "redis-sentinel://{}?sentinelServiceName={}",
        sentinel.sentinels()[0].addr(),
        Sentinel::SERVICE
    );
    let store = RedisStore::connect(&url).await.unwrap();
    revoke(&store, Target::token("revoked")).await.unwrap();
    let revoked = token("u", "revoked");
    // The one of the configuration is not missed either.
    sentinel.sentinels()[0].kill();
    let start = Instant::now();
    while start.elapsed() < 2 * LEASE {
        assert!(is_revoked(&recovered(&store, &revoked).await));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    sentinel.sentinels()[1].kill();
    assert_eq!(known_down(&store, &revoked).await.kind(), StoreErrorKind::NotPrimary);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_cluster_node_is_believed_as_long_as_a_majority_of_the_primaries_names_it() {
    if !redis_is_installed() {
        return;
    }
    let cluster = in_background(Cluster::start).await;
    // So that it goes on when it is cut off from the others.
    for node in cluster.nodes() {
        node.cli(&["CONFIG", "SET", "cluster-node-timeout", "60000"]);
    }
    let store = RedisStore::connect(cluster.url()).await.unwrap();
    revoke(&store, Target::token("revoked")).await.unwrap();
    let revoked = token("u", "revoked");
    let owner = cluster.owner("{0}");
    let others = [(owner + 1) % 3, (owner + 2) % 3];
    cluster.nodes()[others[0]].stop_hung();
    let start = Instant::now();
    while start.elapsed() < 2 * LEASE {
        assert!(is_revoked(&recovered(&store, &revoked).await));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    cluster.nodes()[others[1]].stop_hung();
    let error = known_down(&store, &revoked).await;
    assert_eq!(error.kind(), StoreErrorKind::NotPrimary, "{error}");
    assert!(error.to_string().contains("1 of 3 cluster nodes name"), "{error}");
    for other in others {
        cluster.nodes()[other].resume();
    }
    assert!(is_revoked(&recovered(&store, &revoked).await));
}

/// Asks, and lets the runtime stand still for longer than a lease between the question and its
/// answer, as that of a process that is suspended.
async fn ask_and_stand_still(store: &RedisStore) -> Result<Standing, StoreErrorKind> {
    let live = token("u", "live");
    assert_eq!(recovered(store, &live).await, Standing::Live);
    let mut answer = store.check(&live).answer().boxed();
    // It is sent as soon as the other tasks run.
    assert!((&mut answer).now_or_never().is_none());
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    std::thread::sleep(LEASE + Duration::from_millis(300));
    answer.await.map_err(|error| error.kind())
}

#[tokio::test]
async fn an_answer_that_waited_for_a_suspended_process_is_not_believed() {
    if !redis_is_installed() {
        return;
    }
    let sentinel = in_background(|| Sentinel::start(1, 3)).await;
    let builder = RedisStore::builder().with_url(sentinel.url()).with_check_timeout(LIMIT);
    let store = builder.connect().await.unwrap();
    // It is not the fault of Redis either.
    assert_eq!(ask_and_stand_still(&store).await, Err(StoreErrorKind::Overloaded));
    assert_eq!(recovered(&store, &token("u", "live")).await, Standing::Live);
}

#[tokio::test]
async fn a_server_that_stands_alone_needs_no_proof_and_may_answer_late() {
    if !redis_is_installed() {
        return;
    }
    let redis = in_background(RedisServer::start).await;
    let builder = RedisStore::builder().with_url(redis.url()).with_check_timeout(LIMIT);
    let store = builder.connect().await.unwrap();
    assert_eq!(ask_and_stand_still(&store).await, Ok(Standing::Live));
}
