//! The Redis store while Redis is dead, hung, slow, wrong or busy: every question is answered in
//! time, and no failure is ever taken for "not revoked".

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tower_jwt_revocation::revocation::{Outcome, Revocation};
use tower_jwt_revocation::store::redis::Start;
use tower_jwt_revocation::store::{
    Lookup, RevocationStore as _, Standing, StoreError, StoreErrorKind,
};
use tower_jwt_revocation::{RedisStore, Target, VerifiedToken};

use crate::servers::{Fault, FaultProxy, RedisServer, redis_is_installed};
use crate::store_contract::{check, token};

const HOUR: Duration = Duration::from_secs(3600);
/// The limit of a check (50 ms), and as much again as a busy machine may need to notice that it is
/// over.
pub(crate) const IN_TIME: Duration = Duration::from_millis(500);
/// The limit of a write: generous, for busy machines.
pub(crate) const WRITE: Duration = Duration::from_secs(3);
/// How long a recovery may take.
const SOON: Duration = Duration::from_secs(30);

pub(crate) async fn revoke(store: &RedisStore, target: Target) -> Result<Outcome, StoreError> {
    store.write(vec![Revocation::new(target, HOUR)]).await.map(|receipts| receipts[0].outcome)
}

/// A check, which must be answered in time.
pub(crate) async fn timely(
    store: &RedisStore,
    token: &Arc<VerifiedToken>,
) -> Result<Standing, StoreError> {
    let start = Instant::now();
    let answer = check(store, token).await;
    assert!(start.elapsed() < IN_TIME, "{answer:?} after {:?}", start.elapsed());
    answer
}

/// Checks until there is an answer, which must come soon. None may be `Live` for a token that is
/// revoked.
pub(crate) async fn recovered(store: &RedisStore, token: &Arc<VerifiedToken>) -> Standing {
    let start = Instant::now();
    loop {
        match timely(store, token).await {
            Ok(standing) => return standing,
            Err(error) => assert!(start.elapsed() < SOON, "still {error}"),
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Waits until checks are refused at once.
pub(crate) async fn known_down(store: &RedisStore, token: &Arc<VerifiedToken>) -> StoreError {
    let start = Instant::now();
    loop {
        match store.check(token) {
            Lookup::Now(answer) => match answer.unwrap_err() {
                // This machine is so busy that it is not known yet why.
                error if error.kind() == StoreErrorKind::Overloaded => {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                error => return error,
            },
            later @ Lookup::Later(_) => drop(later.answer().await),
        }
        assert!(start.elapsed() < SOON, "checks are still sent");
    }
}

fn is_revoked(standing: &Standing) -> bool {
    matches!(standing, Standing::Revoked(_))
}

/// A store behind a proxy, with the token `revoked` revoked.
struct Lab {
    server: RedisServer,
    proxy: FaultProxy,
    store: RedisStore,
}

impl Lab {
    async fn start() -> Option<Self> {
        if !redis_is_installed() {
            return None;
        }
        let server = RedisServer::start();
        let proxy = FaultProxy::start(server.addr()).await;
        let store = RedisStore::builder()
            .with_url(proxy.url())
            .with_write_timeout(WRITE)
            .connect()
            .await
            .unwrap();
        revoke(&store, Target::token("revoked")).await.unwrap();
        Some(Self { server, proxy, store })
    }

    /// Both tokens are answered correctly again.
    async fn is_well(&self) {
        assert!(is_revoked(&recovered(&self.store, &token("u", "revoked")).await));
        assert_eq!(recovered(&self.store, &token("u", "live")).await, Standing::Live);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_redis_is_noticed_at_once_and_its_return_soon() {
    if !redis_is_installed() {
        return;
    }
    let mut server =
        RedisServer::builder().arg("appendonly", "yes").arg("appendfsync", "always").start();
    let store = RedisStore::connect(server.url()).await.unwrap();
    revoke(&store, Target::token("revoked")).await.unwrap();
    let revoked = token("u", "revoked");
    let mut health = store.watch_health();
    assert!(health.borrow_and_update().is_up());
    for _ in 0..3 {
        server.kill();
        let error = known_down(&store, &revoked).await;
        assert_eq!(error.kind(), StoreErrorKind::Unreachable, "{error}");
        tokio::time::timeout(SOON, health.wait_for(|health| !health.checks()))
            .await
            .unwrap()
            .unwrap();
        let error = revoke(&store, Target::token("late")).await.unwrap_err();
        assert!(error.may_be_repeated() && error.kind() == StoreErrorKind::Unreachable, "{error}");
        server.restart();
        assert!(is_revoked(&recovered(&store, &revoked).await));
        tokio::time::timeout(
            SOON,
            health.wait_for(tower_jwt_revocation::store::redis::Health::is_up),
        )
        .await
        .unwrap()
        .unwrap();
        // It takes writes once it has settled.
        let start = Instant::now();
        while let Err(error) = revoke(&store, Target::token("late")).await {
            let passing = [StoreErrorKind::Settling, StoreErrorKind::Timeout];
            assert!(error.may_be_repeated() && passing.contains(&error.kind()), "{error}");
            assert!(start.elapsed() < SOON, "still {error}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hung_redis_costs_a_few_timeouts_and_then_nothing() {
    let Some(lab) = Lab::start().await else { return };
    let revoked = token("u", "revoked");
    lab.server.stop_hung();
    let mut timeouts = 0;
    let error = loop {
        match lab.store.check(&revoked) {
            Lookup::Now(answer) => break answer.unwrap_err(),
            later @ Lookup::Later(_) => {
                let start = Instant::now();
                let error = later.answer().await.unwrap_err();
                assert!(start.elapsed() < IN_TIME);
                // A probe may have been the one to notice: then the connection is given up under
                // the check.
                let known = [StoreErrorKind::Timeout, StoreErrorKind::Unreachable];
                assert!(known.contains(&error.kind()), "{error}");
                timeouts += 1;
            }
        }
    };
    assert!(timeouts <= 6, "{timeouts} requests had to wait");
    assert_eq!(error.kind(), StoreErrorKind::Timeout, "{error}");
    let start = Instant::now();
    let error = revoke(&lab.store, Target::token("x")).await.unwrap_err();
    assert!(start.elapsed() < WRITE * 2, "{error} after {:?}", start.elapsed());
    lab.server.resume();
    lab.is_well().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn questions_under_way_get_the_reason_when_a_connection_is_given_up() {
    let Some(lab) = Lab::start().await else { return };
    let live = token("u", "live");
    lab.server.stop_hung();
    let sent_later = (0..40).map(|n| {
        let (store, live) = (lab.store.clone(), Arc::clone(&live));
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(2 * n)).await;
            timely(&store, &live).await.unwrap_err()
        })
    });
    for check in sent_later.collect::<Vec<_>>() {
        let error = check.await.unwrap();
        assert_eq!(error.kind(), StoreErrorKind::Timeout, "{error}");
    }
    lab.server.resume();
    lab.is_well().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_process_notices_an_outage_too() {
    let Some(lab) = Lab::start().await else { return };
    let mut health = lab.store.watch_health();
    lab.server.stop_hung();
    let down = tokio::time::timeout(SOON, health.wait_for(|health| !health.checks()))
        .await
        .unwrap()
        .unwrap()
        .clone();
    assert_eq!(down.error().unwrap().kind(), StoreErrorKind::Timeout, "{down:?}");
    assert_eq!(down.unreadable_shards().collect::<Vec<_>>(), [0]);
    lab.server.resume();
    lab.is_well().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn broken_networks_are_errors_in_time_and_leave_nothing_behind() {
    let Some(lab) = Lab::start().await else { return };
    let (revoked, live) = (token("u", "revoked"), token("u", "live"));
    let slow = Duration::from_millis(200);
    let faults = [
        Fault::Reset,
        Fault::BlackHoleRequests,
        Fault::BlackHoleReplies,
        Fault::CutReplyAfter(5),
        Fault::CutReplyAfter(0),
        Fault::Drip { bytes: 1, every: Duration::from_millis(20) },
        Fault::Latency { base: slow, jitter: slow },
        Fault::Garbage(b"\xff\x00garbage".to_vec()),
        Fault::Garbage(b"*3\r\n$-1\r\n".to_vec()),
        Fault::Garbage(b"$999999999\r\n".to_vec()),
        Fault::Refuse,
    ];
    for fault in faults {
        lab.proxy.set(Fault::Reset).await;
        lab.proxy.set(Fault::Pass).await;
        lab.is_well().await;
        lab.proxy.set(fault.clone()).await;
        if fault == Fault::Refuse {
            lab.proxy.set(Fault::Reset).await;
            lab.proxy.set(Fault::Refuse).await;
        }
        for _ in 0..12 {
            for token in [&revoked, &live] {
                let answer = timely(&lab.store, token).await;
                assert!(answer.is_err(), "{fault:?}: {answer:?}");
            }
        }
        lab.proxy.set(Fault::Pass).await;
        lab.is_well().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn late_answers_never_answer_another_question() {
    let Some(lab) = Lab::start().await else { return };
    let (revoked, live) = (token("u", "revoked"), token("u", "live"));
    let (mut answers, mut errors) = (0, 0);
    for round in 0..3 {
        // Some answers come in time, some too late.
        let base = Duration::from_millis(5);
        lab.proxy.set(Fault::Latency { base, jitter: Duration::from_millis(60) }).await;
        let checks = (0..80).map(|n| {
            let store = lab.store.clone();
            let (token, is_revoked) = if n % 2 == 0 { (&revoked, true) } else { (&live, false) };
            let token = Arc::clone(token);
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_millis(6 * n)).await;
                (is_revoked, timely(&store, &token).await)
            })
        });
        for check in checks.collect::<Vec<_>>() {
            let (expected, answer) = check.await.unwrap();
            match answer {
                Ok(standing) => {
                    assert_eq!(is_revoked(&standing), expected, "round {round}");
                    answers += 1;
                }
                Err(_) => errors += 1,
            }
        }
        lab.proxy.set(Fault::Pass).await;
        lab.is_well().await;
    }
    assert!(answers > 0 && errors > 0, "{answers} answers and {errors} errors are no test");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_error_of_redis_has_its_kind_and_none_is_an_answer() {
    let Some(lab) = Lab::start().await else { return };
    let table: [(&str, StoreErrorKind); 22] = [
        ("-LOADING Redis is loading the dataset in memory", StoreErrorKind::Loading),
        ("-READONLY You can't write against a read only replica.", StoreErrorKind::NotPrimary),
        ("-MASTERDOWN Link with MASTER is down", StoreErrorKind::NotPrimary),
        ("-NOPERM this user has no permissions", StoreErrorKind::Denied),
        ("-NOAUTH Authentication required.", StoreErrorKind::Denied),
        ("-OOM command not allowed when used memory > 'maxmemory'.", StoreErrorKind::Full),
        ("-MOVED 7 127.0.0.1:1", StoreErrorKind::Cluster),
        ("-ASK 7 127.0.0.1:1", StoreErrorKind::Cluster),
        ("-CLUSTERDOWN Hash slot not served", StoreErrorKind::Cluster),
        ("-TRYAGAIN Multiple keys request during rehashing of slot", StoreErrorKind::Cluster),
        ("-CROSSSLOT Keys in request don't hash to the same slot", StoreErrorKind::Cluster),
        ("-NOREPLICAS Not enough good replicas to write.", StoreErrorKind::Replicas),
        ("-WRONGTYPE Operation against a key", StoreErrorKind::Protocol),
        ("-BUSY Redis is busy running a script", StoreErrorKind::Other),
        ("-MISCONF Errors writing to the AOF file", StoreErrorKind::Full),
        ("-NOSCRIPT No matching script.", StoreErrorKind::Other),
        ("-ERR unknown command", StoreErrorKind::Other),
        ("+OK", StoreErrorKind::Protocol),
        (":0", StoreErrorKind::Protocol),
        ("*0", StoreErrorKind::Protocol),
        ("$-1", StoreErrorKind::Protocol),
        ("*2\r\n$-1\r\n$-1", StoreErrorKind::Protocol),
    ];
    for (reply, kind) in table {
        for id in ["live", "revoked"] {
            // A probe may be the first to get the reply, and a busy machine may be late: then once
            // more.
            let was_seen = async {
                loop {
                    // The connection is fresh and well, and its very next answer is this.
                    lab.is_well().await;
                    lab.proxy.set(Fault::Garbage(format!("{reply}\r\n").into_bytes())).await;
                    let error = timely(&lab.store, &token("u", id)).await.unwrap_err();
                    lab.proxy.set(Fault::Pass).await;
                    if error.kind() == kind {
                        return;
                    }
                    let passing = [StoreErrorKind::Unreachable, StoreErrorKind::Timeout];
                    assert!(
                        passing.contains(&error.kind()),
                        "{reply}: {:?}: {error}",
                        error.kind()
                    );
                }
            };
            assert!(
                tokio::time::timeout(SOON, was_seen).await.is_ok(),
                "{reply} was never {kind:?}"
            );
        }
    }
    // Three nothings are the right number for this token: its data is gone, and as long as nobody
    // has said which tokens are in doubt, all are.
    lab.is_well().await;
    lab.proxy.set(Fault::Garbage(b"*4\r\n$-1\r\n$-1\r\n$-1\r\n$-1\r\n".to_vec())).await;
    let error = timely(&lab.store, &token("u", "live")).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Settling, "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_questions_than_allowed_are_refused_at_once() {
    if !redis_is_installed() {
        return;
    }
    let server = RedisServer::start();
    let store = RedisStore::builder()
        .with_url(server.url())
        .with_max_in_flight(2)
        .with_check_timeout(Duration::from_millis(300))
        .connect()
        .await
        .unwrap();
    let token = token("u", "t");
    server.stop_hung();
    let open: Vec<_> = (0..2).map(|_| store.check(&token)).collect();
    let Lookup::Now(Err(error)) = store.check(&token) else { panic!("was sent") };
    assert_eq!(error.kind(), StoreErrorKind::Overloaded, "{error}");
    // A question that nobody waits for any more makes room.
    drop(open);
    assert!(matches!(store.check(&token), Lookup::Later(_)));
    server.resume();
    assert_eq!(recovered(&store, &token).await, Standing::Live);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_while_redis_hangs_neither_blocks_nor_piles_up() {
    let Some(lab) = Lab::start().await else { return };
    let live = token("u", "live");
    lab.server.stop_hung();
    let start = Instant::now();
    let mut refused_at_once = 0;
    // A busy machine takes longer to notice that Redis hangs, and not the process itself.
    let is_enough = |refused: u32| match start.elapsed().as_secs() {
        0..2 => false,
        2..60 => refused > 1000,
        _ => true,
    };
    while !is_enough(refused_at_once) {
        let lookups: Vec<_> = (0..500).map(|_| lab.store.check(&live)).collect();
        for lookup in lookups {
            match lookup {
                Lookup::Now(answer) => {
                    answer.unwrap_err();
                    refused_at_once += 1;
                }
                Lookup::Later(answer) => {
                    answer.await.unwrap_err();
                }
            }
        }
        tokio::task::yield_now().await;
    }
    assert!(refused_at_once > 1000, "{refused_at_once}");
    lab.server.resume();
    lab.is_well().await;
    // One connection for checks and one for writes, besides the one that asks; given-up ones have
    // been closed.
    crate::servers::wait_until("only the connections in use are open", SOON, || {
        connections(&lab.server) <= 2
    });
}

/// How many clients are connected, besides the one that asks.
fn connections(server: &RedisServer) -> usize {
    server.cli(&["CLIENT", "LIST"]).lines().count() - 1
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_ends_with_the_last_handle() {
    if !redis_is_installed() {
        return;
    }
    let server = RedisServer::start();
    let store = RedisStore::connect(server.url()).await.unwrap();
    let clone = store.clone();
    drop(store);
    assert_eq!(check(&clone, &token("u", "t")).await.unwrap(), Standing::Live);
    assert_eq!(connections(&server), 2);
    drop(clone);
    crate::servers::wait_until("all connections are closed", SOON, || connections(&server) == 0);

    // Also while there is nothing to connect to.
    server.kill();
    let store = RedisStore::builder()
        .with_url(server.url())
        .with_start(Start::Anyway)
        .connect()
        .await
        .unwrap();
    let metrics = tokio::runtime::Handle::current().metrics();
    let alive = metrics.num_alive_tasks();
    assert!(alive > 0);
    drop(store);
    crate::servers::wait_until("all tasks have ended", SOON, || metrics.num_alive_tasks() == 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_demoted_primary_is_not_asked() {
    let Some(lab) = Lab::start().await else { return };
    lab.server.cli(&["REPLICAOF", "127.0.0.1", "1"]);
    let error = known_down(&lab.store, &token("u", "live")).await;
    assert_eq!(error.kind(), StoreErrorKind::NotPrimary, "{error}");
    let error = revoke(&lab.store, Target::token("x")).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::NotPrimary, "{error}");
    lab.server.cli(&["REPLICAOF", "NO", "ONE"]);
    lab.is_well().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_redis_refuses_writes_and_goes_on_to_check() {
    let Some(lab) = Lab::start().await else { return };
    lab.server.cli(&["CONFIG", "SET", "maxmemory", "1"]);
    let error = revoke(&lab.store, Target::token("x")).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Full, "{error}");
    lab.is_well().await;
    assert_eq!(check(&lab.store, &token("u", "x")).await.unwrap(), Standing::Live);
    lab.server.cli(&["CONFIG", "SET", "maxmemory", "0"]);
    revoke(&lab.store, Target::token("x")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_survives_a_lost_connection_and_a_forgotten_script() {
    let Some(lab) = Lab::start().await else { return };
    for n in 0..20 {
        if n % 5 == 0 {
            lab.server.cli(&["SCRIPT", "FLUSH"]);
        }
        let id = format!("t{n}");
        let store = lab.store.clone();
        let target = Target::token(id.clone());
        let write = tokio::spawn(async move { revoke(&store, target).await });
        lab.proxy.set(Fault::Reset).await;
        lab.proxy.set(Fault::Pass).await;
        write.await.unwrap().unwrap();
        assert!(is_revoked(&recovered(&lab.store, &token("u", &id)).await), "{id}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_waits_for_as_many_replicas_as_was_set() {
    if !redis_is_installed() {
        return;
    }
    let primary = RedisServer::builder().arg("repl-diskless-sync-delay", "0").start();
    let store = RedisStore::builder()
        .with_url(primary.url())
        .with_start(Start::Anyway)
        .with_wait_replicas(NonZeroU32::MIN, Duration::from_millis(500))
        .with_write_timeout(WRITE)
        .connect()
        .await
        .unwrap();
    assert_eq!(recovered(&store, &token("u", "t")).await, Standing::Live);
    let error = revoke(&store, Target::token("t")).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Replicas, "{error}");
    assert!(is_revoked(&recovered(&store, &token("u", "t")).await), "it is in force all the same");

    let port = primary.port().to_string();
    let _replica = RedisServer::builder().arg("replicaof", &format!("127.0.0.1 {port}")).start();
    crate::servers::wait_until("the replica is in sync", SOON, || {
        primary.cli(&["INFO", "replication"]).contains("state=online")
    });
    let start = Instant::now();
    let receipt = loop {
        match store.write(vec![Revocation::new(Target::token("t2"), HOUR)]).await {
            Ok(receipts) => break receipts[0].clone(),
            // The replica may be as busy as this machine.
            Err(error) => {
                assert!(error.may_be_repeated() && start.elapsed() < SOON, "still {error}");
            }
        }
    };
    assert_eq!(receipt.replicas, Some(1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_is_refused_at_the_start() {
    if !redis_is_installed() {
        return;
    }
    let replica = RedisServer::builder().arg("replicaof", "127.0.0.1 1").start();
    let error = RedisStore::builder()
        .with_url(replica.url())
        .with_start(Start::AtOnce)
        .connect()
        .await
        .unwrap_err();
    assert!(error.to_string().contains("not a primary"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn far_from_redis_a_check_takes_one_round_trip_not_two() {
    if !redis_is_installed() {
        return;
    }
    let server = RedisServer::start();
    let proxy = FaultProxy::start(server.addr()).await;
    let limit = Duration::from_secs(1);
    let store = RedisStore::builder()
        .with_url(proxy.url())
        .with_check_timeout(limit)
        .connect()
        .await
        .unwrap();
    proxy.set(Fault::Latency { base: limit.mul_f64(0.6), jitter: Duration::ZERO }).await;
    // One after the other would take longer than a check may.
    let checks = (0..50).map(|n| {
        let store = store.clone();
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(10 * n)).await;
            check(&store, &token("u", "t")).await
        })
    });
    for check in checks.collect::<Vec<_>>() {
        assert_eq!(check.await.unwrap().unwrap(), Standing::Live);
    }
}

/// Checks by four callers until told to stop: how many there were, and which failed.
struct Traffic {
    stop: Arc<std::sync::atomic::AtomicBool>,
    callers: Vec<tokio::task::JoinHandle<(usize, Vec<StoreError>)>>,
}

impl Traffic {
    fn start(store: &RedisStore) -> Self {
        let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let callers = (0..4).map(|n| {
            let (store, stop) = (store.clone(), Arc::clone(&stop));
            let id = if n % 2 == 0 { "revoked" } else { "live" };
            tokio::spawn(async move {
                let (mut count, mut errors) = (0, Vec::new());
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    match check(&store, &token("u", id)).await {
                        Ok(standing) => assert_eq!(is_revoked(&standing), n % 2 == 0),
                        Err(error) => errors.push(error),
                    }
                    count += 1;
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                (count, errors)
            })
        });
        Self { callers: callers.collect(), stop }
    }

    async fn end(self) -> (usize, Vec<StoreError>) {
        self.stop.store(true, std::sync::atomic::Ordering::Relaxed);
        let (mut count, mut errors) = (0, Vec::new());
        for caller in self.callers {
            let (more, failed) = caller.await.unwrap();
            count += more;
            errors.extend(failed);
        }
        (count, errors)
    }
}

/// A store that gives its checks the time that a busy machine may need.
async fn patient(url: String) -> RedisStore {
    let builder = RedisStore::builder().with_url(url).with_write_timeout(WRITE);
    let store = builder.with_check_timeout(Duration::from_secs(5)).connect().await.unwrap();
    revoke(&store, Target::token("revoked")).await.unwrap();
    store
}

/// Ends all connections of clients.
fn kill_connections(server: &RedisServer) {
    server.cli(&["CLIENT", "KILL", "TYPE", "normal"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_connection_costs_no_check_and_no_write() {
    if !redis_is_installed() {
        return;
    }
    let server = RedisServer::start();
    let store = patient(server.url()).await;
    let mut health = store.watch_health();
    health.borrow_and_update();
    let traffic = Traffic::start(&store);
    for n in 0..5 {
        tokio::time::sleep(Duration::from_millis(500)).await;
        kill_connections(&server);
        revoke(&store, Target::token(format!("t{n}"))).await.unwrap();
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    let (count, errors) = traffic.end().await;
    assert!(errors.is_empty() && count > 0, "{} of {count}: {:?}", errors.len(), errors.first());
    assert!(health.borrow().is_up());
    for n in 0..5 {
        assert!(is_revoked(&check(&store, &token("u", &format!("t{n}"))).await.unwrap()));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_are_killed_again_and_again_cost_hardly_any_check() {
    let Some(lab) = Lab::start().await else { return };
    let store = patient(lab.proxy.url()).await;
    let traffic = Traffic::start(&store);
    for n in 0..30 {
        tokio::time::sleep(Duration::from_millis(200)).await;
        if n % 2 == 0 {
            kill_connections(&lab.server);
        } else {
            lab.proxy.set(Fault::Reset).await;
            lab.proxy.set(Fault::Pass).await;
        }
    }
    let (count, errors) = traffic.end().await;
    assert!(errors.len() * 50 < count, "{} of {count}: {:?}", errors.len(), errors.first());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_gone_for_good_is_waited_for_once_and_not_by_each_check() {
    if !redis_is_installed() {
        return;
    }
    let server = RedisServer::start();
    let store = patient(server.url()).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    let start = Instant::now();
    server.kill();
    let error = known_down(&store, &token("u", "live")).await;
    assert_eq!(error.kind(), StoreErrorKind::Unreachable, "{error}");
    // Less than the limit of a check, which is 5 s.
    assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
    assert!(matches!(store.check(&token("u", "live")), Lookup::Now(Err(_))));
}
