//! Checks in Redis that are under way at once share round trips, without affecting each other.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::join_all;
use tower_jwt_revocation::store::{RevocationStore as _, Standing, StoreError, StoreErrorKind};
use tower_jwt_revocation::{RedisStore, Target, VerifiedToken};

use crate::redis_supervision::{known_down, recovered, revoke};
use crate::servers::{Fault, FaultProxy, RedisServer, redis_is_installed, wait_until};
use crate::store_contract::{check, token};

/// A limit that no healthy answer comes near to.
const PATIENT: Duration = Duration::from_secs(10);
/// `join_all` polls so many in one go.
const AT_ONCE: usize = 30;

struct Lab {
    server: RedisServer,
    proxy: FaultProxy,
    store: RedisStore,
}

impl Lab {
    async fn start(limit: Duration) -> Option<Self> {
        if !redis_is_installed() {
            return None;
        }
        let server = RedisServer::start();
        let proxy = FaultProxy::start(server.addr()).await;
        let store = RedisStore::builder()
            .with_url(proxy.url())
            .with_check_timeout(limit)
            .with_max_in_flight(4096)
            .connect()
            .await
            .unwrap();
        revoke(&store, Target::token("revoked")).await.unwrap();
        assert!(is_revoked(&recovered(&store, &token("u", "revoked")).await));
        Some(Self { server, proxy, store })
    }

    fn info(&self, section: &str, field: &str) -> u64 {
        let info = self.server.cli(&["INFO", section]);
        let line = info.lines().find_map(|line| line.strip_prefix(field)).unwrap_or("0").to_owned();
        line.chars().take_while(char::is_ascii_digit).collect::<String>().parse().unwrap_or(0)
    }

    /// How many `MGET`s were answered.
    fn round_trips(&self) -> u64 {
        self.info("commandstats", "cmdstat_mget:calls=")
    }

    /// How many keys were looked up.
    fn keys_read(&self) -> u64 {
        self.info("stats", "keyspace_hits:") + self.info("stats", "keyspace_misses:")
    }

    fn spawn(
        &self,
        token: &Arc<VerifiedToken>,
    ) -> tokio::task::JoinHandle<Result<Standing, StoreError>> {
        let (store, token) = (self.store.clone(), Arc::clone(token));
        tokio::spawn(async move { check(&store, &token).await })
    }
}

fn is_revoked(standing: &Standing) -> bool {
    matches!(standing, Standing::Revoked(_))
}

// One thread, so that all checks have been asked before any is sent.
#[tokio::test]
async fn checks_that_are_asked_at_once_take_one_round_trip() {
    let Some(lab) = Lab::start(PATIENT).await else { return };
    let ids = (0..AT_ONCE).map(|n| if n % 2 == 0 { "revoked".into() } else { format!("live {n}") });
    let tokens: Vec<_> = ids.map(|id| token("u", &id)).collect();
    let before = lab.round_trips();
    let answers = join_all(tokens.iter().map(|token| check(&lab.store, token))).await;
    // The probes may have added one or two.
    assert!(lab.round_trips() - before <= 3, "{} round trips", lab.round_trips() - before);
    for (n, answer) in answers.into_iter().enumerate() {
        assert_eq!(is_revoked(&answer.unwrap()), n % 2 == 0, "check {n}");
    }
}

#[tokio::test]
async fn a_record_that_several_checks_ask_for_is_read_once() {
    let Some(lab) = Lab::start(PATIENT).await else { return };
    let one = token("alice", "t");
    let before = lab.keys_read();
    let answers = join_all((0..AT_ONCE).map(|_| check(&lab.store, &one))).await;
    let read = lab.keys_read() - before;
    assert!(answers.into_iter().all(|answer| answer.unwrap() == Standing::Live));
    // The epoch and one record for each target, and what probes and maintenance read meanwhile.
    assert!(read < AT_ONCE as u64, "{read} keys");
}

#[tokio::test]
async fn more_checks_than_fit_into_a_batch_are_all_answered() {
    let Some(lab) = Lab::start(PATIENT).await else { return };
    let ids = (0..2000).map(|n| if n % 7 == 0 { "revoked".into() } else { format!("live {n}") });
    let tokens: Vec<_> = ids.enumerate().map(|(n, id)| token(&format!("user {n}"), &id)).collect();
    let answers = join_all(tokens.iter().map(|token| check(&lab.store, token))).await;
    for (n, answer) in answers.into_iter().enumerate() {
        assert_eq!(is_revoked(&answer.unwrap()), n % 7 == 0, "check {n}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_answer_is_older_than_its_question() {
    let Some(lab) = Lab::start(PATIENT).await else { return };
    let other = RedisStore::connect(format!("redis://{}", lab.server.addr())).await.unwrap();
    for n in 0..10 {
        let id = format!("t{n}");
        let token = token("u", &id);
        lab.proxy.set(Fault::BlackHoleReplies).await;
        let before = lab.round_trips();
        let early = lab.spawn(&token);
        wait_until("redis has answered, and nobody knows", PATIENT, || lab.round_trips() > before);
        revoke(&other, Target::token(id)).await.unwrap();
        // The first question is in flight still, and its answer is "live".
        let late = lab.spawn(&token);
        tokio::task::yield_now().await;
        lab.proxy.set(Fault::Pass).await;
        assert!(is_revoked(&late.await.unwrap().unwrap()), "round {n}");
        let _ = early.await.unwrap().unwrap();
    }
}

/// Asks about so many tokens, of which no answer arrives for the time being.
fn hold(lab: &Lab, many: usize) -> Vec<tokio::task::JoinHandle<Result<Standing, StoreError>>> {
    (0..many).map(|n| lab.spawn(&token(&format!("user {n}"), &format!("held {n}")))).collect()
}

/// One thread, so that all have been asked before any is sent.
#[tokio::test]
async fn one_token_does_not_take_the_permits_of_all_others() {
    let Some(lab) = Lab::start(PATIENT).await else { return };
    lab.proxy.set(Fault::BlackHoleReplies).await;
    let flooded = token("u", "revoked");
    // Twice as many as may be open, in several rounds.
    let mut flood = Vec::new();
    for _ in 0..4 {
        flood.extend((0..2048).map(|_| lab.spawn(&flooded)));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let innocents = hold(&lab, 500);
    tokio::time::sleep(Duration::from_millis(5)).await;
    lab.proxy.set(Fault::Pass).await;
    for innocent in innocents {
        assert_eq!(innocent.await.unwrap().unwrap(), Standing::Live);
    }
    for check in flood {
        assert!(is_revoked(&check.await.unwrap().unwrap()));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_load_no_answer_is_older_than_its_question_either() {
    let Some(lab) = Lab::start(PATIENT).await else { return };
    let other = RedisStore::connect(format!("redis://{}", lab.server.addr())).await.unwrap();
    for n in 0..5 {
        let id = format!("t{n}");
        let token = token("u", &id);
        lab.proxy.set(Fault::BlackHoleReplies).await;
        let mut held = hold(&lab, 200);
        let before = lab.round_trips();
        held.extend((0..50).map(|_| lab.spawn(&token)));
        wait_until("redis has answered, and nobody knows", PATIENT, || lab.round_trips() > before);
        revoke(&other, Target::token(id)).await.unwrap();
        let late: Vec<_> = (0..50).map(|_| lab.spawn(&token)).collect();
        tokio::time::sleep(Duration::from_millis(5)).await;
        lab.proxy.set(Fault::Pass).await;
        for late in late {
            assert!(is_revoked(&late.await.unwrap().unwrap()), "round {n}");
        }
        for held in held {
            let _ = held.await.unwrap().unwrap();
        }
    }
}

/// How much is asked says nothing about Redis.
// One thread, so that all have been asked before any is sent.
#[tokio::test]
async fn a_batch_that_is_late_is_one_timeout() {
    let limit = Duration::from_millis(200);
    let Some(lab) = Lab::start(limit).await else { return };
    for _ in 0..10 {
        let start = Instant::now();
        let connections = lab.proxy.accepted();
        lab.proxy.set(Fault::BlackHoleReplies).await;
        for held in hold(&lab, 50) {
            let _late = held.await.unwrap();
        }
        lab.proxy.set(Fault::Pass).await;
        // Two probes without an answer are another reason to give a connection up.
        if start.elapsed() < limit * 4 {
            assert!(is_revoked(&recovered(&lab.store, &token("u", "revoked")).await));
            assert_eq!(lab.proxy.accepted(), connections, "the connection was given up");
            return;
        }
        let _ = recovered(&lab.store, &token("u", "revoked")).await;
    }
    panic!("the machine is too busy to tell");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_check_has_its_own_deadline() {
    let limit = Duration::from_millis(300);
    let Some(lab) = Lab::start(limit).await else { return };
    lab.proxy.set(Fault::BlackHoleReplies).await;
    let checks: Vec<_> = (0..4)
        .map(|n| {
            let (store, token) = (lab.store.clone(), token("u", &format!("t{n}")));
            tokio::spawn(async move {
                tokio::time::sleep(limit / 5 * n).await;
                let start = Instant::now();
                let error = check(&store, &token).await.unwrap_err();
                (error, start.elapsed())
            })
        })
        .collect();
    for check in checks {
        let (error, elapsed) = check.await.unwrap();
        assert_eq!(error.kind(), StoreErrorKind::Timeout, "{error}");
        assert!(elapsed >= limit && elapsed < limit * 3, "{elapsed:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_a_slow_network_no_check_waits_for_a_batch() {
    let latency = Duration::from_millis(600);
    let Some(lab) = Lab::start(latency * 5 / 3).await else { return };
    lab.proxy.set(Fault::Latency { base: latency, jitter: Duration::ZERO }).await;
    // If one batch waited for the other, the second would take longer than it may.
    let first = lab.spawn(&token("u", "live"));
    tokio::time::sleep(latency / 10).await;
    let second = lab.spawn(&token("u", "revoked"));
    assert_eq!(first.await.unwrap().unwrap(), Standing::Live);
    assert!(is_revoked(&second.await.unwrap().unwrap()));
}

#[tokio::test]
async fn an_unreadable_record_is_an_error_for_its_own_checks_only() {
    let Some(lab) = Lab::start(PATIENT).await else { return };
    let key = format!("jwt-revocation:{{0}}:r:{}", Target::token("odd").fingerprint());
    lab.server.cli(&["SET", &key, "nonsense"]);
    let tokens = ["odd", "live", "revoked", "odd"].map(|id| token("u", id));
    let before = lab.round_trips();
    let answers = join_all(tokens.iter().map(|token| check(&lab.store, token))).await;
    // One directly, the others together, and maybe a probe.
    assert!(lab.round_trips() - before <= 3, "they were not asked together");
    let [odd, live, revoked, odd_again] = answers.try_into().unwrap();
    assert_eq!(odd.unwrap_err().kind(), StoreErrorKind::Protocol);
    assert_eq!(odd_again.unwrap_err().kind(), StoreErrorKind::Protocol);
    assert_eq!(live.unwrap(), Standing::Live);
    assert!(is_revoked(&revoked.unwrap()));
}

#[tokio::test]
async fn a_dropped_check_does_not_end_the_others() {
    let Some(lab) = Lab::start(PATIENT).await else { return };
    lab.proxy.set(Fault::BlackHoleReplies).await;
    let tokens = ["live", "revoked"].map(|id| token("u", id));
    let mut checks: Vec<_> =
        (0..40).map(|n| Box::pin(check(&lab.store, &tokens[n % 2]))).map(Some).collect();
    for step in 0..3 {
        for check in checks.iter_mut().flatten() {
            assert!(futures::poll!(check).is_pending());
        }
        // Some before they are sent, some after, the first one of all among them.
        checks.iter_mut().skip(step * 4).step_by(10).for_each(|check| drop(check.take()));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    lab.proxy.set(Fault::Pass).await;
    let mut answered = 0;
    for (n, check) in checks.into_iter().enumerate() {
        if let Some(check) = check {
            assert_eq!(is_revoked(&check.await.unwrap()), n % 2 == 1, "check {n}");
            answered += 1;
        }
    }
    assert!(answered > 20);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_connection_ends_everything_in_flight_and_nothing_passes() {
    let Some(lab) = Lab::start(PATIENT).await else { return };
    for _ in 0..5 {
        lab.proxy.set(Fault::BlackHoleReplies).await;
        let tokens: Vec<_> = (0..50).map(|n| token("u", &format!("t{n}"))).collect();
        let mut checks: Vec<_> =
            tokens.iter().map(|token| Box::pin(check(&lab.store, token))).collect();
        // One that begins later finds the next connection, and its answer.
        for check in &mut checks {
            assert!(futures::poll!(check).is_pending());
        }
        let start = Instant::now();
        lab.proxy.set(Fault::Reset).await;
        for answer in join_all(checks).await {
            let error = answer.unwrap_err();
            assert_eq!(error.kind(), StoreErrorKind::Unreachable, "{error}");
        }
        assert!(start.elapsed() < PATIENT / 2, "{:?}", start.elapsed());
        lab.proxy.set(Fault::Pass).await;
        assert!(is_revoked(&recovered(&lab.store, &token("u", "revoked")).await));
    }
}

#[test]
fn a_store_whose_runtime_has_ended_answers_with_errors() {
    if !redis_is_installed() {
        return;
    }
    let server = RedisServer::start();
    let first = tokio::runtime::Runtime::new().unwrap();
    let store = first.block_on(RedisStore::connect(server.url())).unwrap();
    let token = token("u", "t");
    drop(first);
    let second = tokio::runtime::Runtime::new().unwrap();
    second.block_on(async {
        let start = Instant::now();
        let error = check(&store, &token).await.unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::Unreachable, "{error}");
        assert!(start.elapsed() < PATIENT / 2);
    });
}

#[tokio::test]
async fn queued_checks_are_refused_when_the_connection_is_lost() {
    let Some(lab) = Lab::start(PATIENT).await else { return };
    let token = token("u", "live");
    let lookup = lab.store.check(&token);
    lab.proxy.set(Fault::Refuse).await;
    lab.proxy.set(Fault::Reset).await;
    lab.proxy.set(Fault::Refuse).await;
    let down = known_down(&lab.store, &token).await;
    let error = lookup.answer().await.unwrap_err();
    assert_eq!(error.kind(), down.kind(), "{error}");
}
