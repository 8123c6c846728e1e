//! What only Redis has: keys, values, connections that break, processes that share it, clusters.

use std::num::NonZeroU32;

use tower_jwt_revocation::RedisStore;
use tower_jwt_revocation::audit::{AuditEvent, AuditKind, AuditSink as _};
use tower_jwt_revocation::store::RevocationStore as _;
use tower_jwt_revocation::store::redis::RedisAuditSink;

use super::support::RedisServer;
use super::*;

/// A server and a store on it. Each test has its own.
#[derive(Clone)]
pub(super) struct Redis {
    server: Arc<RedisServer>,
    store: RedisStore,
}

impl Redis {
    pub(super) async fn start(shards: u16) -> Self {
        let server = Arc::new(RedisServer::start());
        let store = connect(&server.url(), shards).await;
        Self { server, store }
    }

    pub(super) fn url(&self) -> String {
        self.server.url()
    }

    pub(super) fn cli(&self, arguments: &[&str]) -> String {
        self.server.cli(arguments)
    }

    pub(super) fn addr(&self) -> std::net::SocketAddr {
        self.server.addr()
    }
}

impl Ground for Redis {
    type Store = RedisStore;
    fn store(&self) -> RedisStore {
        self.store.clone()
    }
}

pub(super) async fn connect(url: &str, shards: u16) -> RedisStore {
    let generous = Duration::from_secs(5);
    let builder = RedisStore::builder().with_url(url).with_prefix("app").with_shards(shards);
    builder.with_check_timeout(generous).with_write_timeout(generous).connect().await.unwrap()
}

/// The horizon of a loss lies in the very second of the first login after it.
#[tokio::test]
async fn whoever_logs_in_right_after_a_loss_of_data_is_not_in_doubt() {
    support::redis_or_skip!();
    for shards in [1, 3] {
        let ground = Redis::start(shards).await;
        let sessions = sessions(&ground, policy());
        let old = login(&sessions, "alice").await;
        ground.server.cli(&["FLUSHALL"]);
        let began = std::time::Instant::now();
        let new = loop {
            match sessions.login("alice", SessionDetails::new()).await {
                Ok(login) => break granted_login(login),
                // Until every shard has a new life.
                Err(error) => assert!(began.elapsed() < Duration::from_secs(10), "{error}"),
            }
        };
        assert!(is_live(&ground.store(), &new).await);
        let doubt = ground.store().check(&access_token(&old)).answer().await.unwrap_err();
        assert_eq!(doubt.kind(), StoreErrorKind::DataLoss);
        assert!(matches!(
            refused(refresh(&sessions, &old).await),
            Refusal::Unknown | Refusal::Lost
        ));
        granted(refresh(&sessions, &new).await);
    }
}

#[tokio::test]
async fn no_token_is_kept_and_every_key_is_ours_and_ends() {
    support::redis_or_skip!();
    let ground = Redis::start(3).await;
    let sessions = sessions(&ground, policy());
    let mut tokens = Vec::new();
    for user in ["alice", "bob"] {
        let first = login(&sessions, user).await;
        let second = granted(refresh(&sessions, &first).await);
        granted(refresh(&sessions, &second).await);
        tokens.extend([first, second]);
    }
    sessions.trust_device("alice", "phone", Duration::from_secs(60)).await.unwrap();
    refused(refresh(&sessions, &tokens[0]).await);
    sessions.end_all("bob", None).await.unwrap();
    let server = &ground.server;
    let keys = server.cli(&["KEYS", "*"]);
    assert!(keys.lines().count() > 8, "{keys}");
    let mut everything = String::new();
    for key in keys.lines() {
        assert!(key.starts_with("app:"), "{key}");
        let left: i64 = server.cli(&["PTTL", key]).parse().unwrap();
        assert!(left > 0, "{key} never ends");
        everything.push_str(&server.cli(&["DUMP", key]));
        if server.cli(&["TYPE", key]) == "string" {
            everything.push_str(&server.cli(&["GET", key]));
        }
    }
    for grant in tokens {
        let (_, secret) = grant.token.expose().split_once('.').unwrap();
        assert!(!everything.contains(secret));
        // The part that is only the secret: version and generation come before it, the mark comes
        // after it.
        assert!(!everything.contains(&secret[8..48]));
    }
}

/// Long after, nothing is left: no key, and no memory.
#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_all_is_over_redis_is_as_it_was() {
    support::redis_or_skip!();
    let server = Arc::new(RedisServer::builder().own_clock().start());
    let store = connect(&server.url(), 3).await;
    let ground = Redis { server: Arc::clone(&server), store };
    let memory = || -> u64 {
        server.cli(&["MEMORY", "PURGE"]);
        let info = server.cli(&["INFO", "memory"]);
        info.lines()
            .find_map(|line| line.strip_prefix("used_memory:"))
            .unwrap()
            .trim()
            .parse()
            .unwrap()
    };
    let keys = || server.cli(&["DBSIZE"]).parse::<usize>().unwrap();
    let sink = RedisAuditSink::new(ground.store());
    let revoker =
        Revoker::new(ground.store(), TokenProfile::new()).unwrap().with_audit(sink.clone());
    let sessions = Sessions::new(ground.store(), revoker, policy()).unwrap();
    // One of everything, so that what is kept for good, as scripts are, is there before.
    let all = async |user: &str| {
        let first = login(&sessions, user).await;
        let second = granted(refresh(&sessions, &first).await);
        granted(refresh(&sessions, &second).await);
        sessions.trust_device(user, "phone", Duration::from_secs(3600)).await.unwrap();
        match user.len() % 4 {
            0 => sessions.end(&first.session.unwrap()).await.unwrap(),
            1 => sessions.end_all(user, None).await.unwrap(),
            2 => drop(refused(refresh(&sessions, &first).await)),
            _ => {}
        }
    };
    all("someone").await;
    sink.flush().await;
    let (keys_before, memory_before) = (keys(), memory());
    for n in 0..150 {
        all(&format!("{n}{}", "x".repeat(n % 4))).await;
    }
    sink.flush().await;
    let (keys_then, memory_then) = (keys(), memory());
    assert!(
        keys_then > keys_before + 600 && memory_then > memory_before + 300_000,
        "{keys_then} {memory_then}"
    );
    // Refresh tokens for 14 days, sessions for 90, events for 90.
    let mut later = 200 * 24 * 3600 * 1000;
    server.set_clock(later);
    let most = 3 * 6;
    support::wait_until("all keys are gone", Duration::from_secs(20), || {
        // With the epoch over, the store puts back what it wrote in the last minute. What it has
        // deleted of that is remembered for ten minutes, which have to pass as well.
        later += 11 * 60 * 1000;
        server.set_clock(later);
        keys() <= most
    });
    let left = memory();
    assert!(
        left < memory_before + (memory_then - memory_before) / 20,
        "{memory_before} {memory_then} {left}"
    );
    assert_eq!(sessions.count().await.unwrap_or(0), 0);
}

#[tokio::test]
async fn events_are_kept_by_user_in_order_and_within_bounds() {
    support::redis_or_skip!();
    let ground = Redis::start(3).await;
    let (hour, three) = (Duration::from_secs(3600), NonZeroU32::new(3).unwrap());
    let sink = RedisAuditSink::with_limits(ground.store(), hour, NonZeroU32::new(100).unwrap());
    let revoker =
        Revoker::new(ground.store(), TokenProfile::new()).unwrap().with_audit(sink.clone());
    let sessions = Sessions::new(ground.store(), revoker, strict()).unwrap();
    let first = login(&sessions, "alice").await;
    login(&sessions, "bob").await;
    granted(refresh(&sessions, &first).await);
    refused(refresh(&sessions, &first).await);
    sink.flush().await;
    let of = async |user: &str| -> Vec<String> {
        let events = sink.events_of(user, three).await.unwrap();
        let events =
            events.iter().map(|event| serde_json::from_str::<serde_json::Value>(event).unwrap());
        events.map(|event| event["event"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(of("alice").await, ["refresh_reuse", "revoke_family", "refresh"]);
    assert_eq!(of("bob").await, ["login"]);
    sessions.families().end("unknown", None).await.unwrap();
    sink.flush().await;
    assert_eq!(of("").await, ["revoke_family"]);
    for _ in 0..1000 {
        sink.record(&AuditEvent::new(AuditKind::Login).with_subject(Some("carol")));
    }
    sink.flush().await;
    let many = NonZeroU32::new(10_000).unwrap();
    let kept = sink.events_of("carol", many).await.unwrap().len();
    assert!((100..300).contains(&kept), "{kept}");
    let journals = ground.server.cli(&["KEYS", "app:{*}:a:*"]);
    assert_eq!(journals.lines().count(), 4);
    for journal in journals.lines() {
        let left: u64 = ground.server.cli(&["PTTL", journal]).parse().unwrap();
        assert!(left <= 3_600_000 && left > 3_000_000, "{left}");
    }
    assert_eq!(sink.lost(), 0);
    // What requests bring about has no part in it, however much there is.
    let dave = |kind| AuditEvent::new(kind).with_subject(Some("dave"));
    for _ in 0..10_000 {
        sink.record(&dave(AuditKind::RevokedRefused));
    }
    sink.record(&dave(AuditKind::RefreshReuse));
    sink.flush().await;
    assert_eq!(of("dave").await, ["refresh_reuse"]);
    let refusals = sink.refusals_of("dave", many).await.unwrap();
    assert!((100..300).contains(&refusals.len()), "{}", refusals.len());
    assert!(refusals.iter().all(|event| event.contains("revoked_refused")));
    let lost = sink.lost();
    assert!(lost > 0, "there are more than wait");
    ground.server.kill();
    sink.record(&AuditEvent::new(AuditKind::Login));
    sink.flush().await;
    assert_eq!(sink.lost(), lost + 1);
}

/// Connections break after any number of bytes of the reply. A refresh that was answered was done
/// once, one that was not can be repeated.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lost_replies_sign_nobody_out() {
    support::redis_or_skip!();
    let server = RedisServer::start();
    let proxy = support::FaultProxy::start(server.addr()).await;
    let builder = RedisStore::builder().with_url(proxy.url()).with_prefix("app");
    let store = builder.with_write_timeout(Duration::from_millis(500)).connect().await.unwrap();
    for policy in [policy(), strict()] {
        let is_strict = format!("{policy:?}") == format!("{:?}", strict());
        let revoker = Revoker::new(store.clone(), TokenProfile::new()).unwrap();
        let sessions = Sessions::new(store.clone(), revoker, policy).unwrap();
        let mut grant = login(&sessions, "alice").await;
        let mut unanswered = 0;
        for bytes in (0..1200).step_by(60) {
            proxy.set(support::Fault::CutReplyAfter(bytes)).await;
            let answer = sessions.refresh(grant.token.expose(), None).await;
            proxy.set(support::Fault::Pass).await;
            let repeated = answer.is_err();
            let answer = match answer {
                Ok(answer) => answer,
                Err(_) if is_strict => {
                    grant = until_confirmed(|| login_again(&sessions)).await;
                    continue;
                }
                Err(_) => until_confirmed(|| sessions.refresh(grant.token.expose(), None)).await,
            };
            unanswered += u32::from(repeated);
            grant = granted(answer);
        }
        assert!(is_strict || unanswered > 0, "the proxy broke nothing");
        granted(until_confirmed(|| sessions.refresh(grant.token.expose(), None)).await);
    }
}

async fn login_again(
    sessions: &Sessions,
) -> Result<Grant, tower_jwt_revocation::store::StoreError> {
    sessions.login("alice", SessionDetails::new()).await.map(granted_login)
}

async fn until_confirmed<T, E: std::fmt::Debug, F: Future<Output = Result<T, E>>>(
    ask: impl Fn() -> F,
) -> T {
    for _ in 0..100 {
        if let Ok(answer) = ask().await {
            return answer;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    ask().await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_processes_are_one_system() {
    support::redis_or_skip!();
    let here = Redis::start(2).await;
    let there = Redis { store: connect(&here.server.url(), 2).await, ..here.clone() };
    let (here, there) = (sessions(&here, policy()), sessions(&there, policy()));
    let first = login(&here, "alice").await;
    let all =
        join_all((0..20).map(|n| refresh(if n % 2 == 0 { &here } else { &there }, &first))).await;
    let tokens: BTreeSet<_> =
        all.into_iter().map(|answer| granted(answer).token.expose().to_owned()).collect();
    assert_eq!(tokens.len(), 1);
    there.end_all("alice", None).await.unwrap();
    assert!(!is_live_family(&here, &first, None).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_serves_as_well() {
    support::redis_or_skip!();
    let cluster = tokio::task::spawn_blocking(support::Cluster::start).await.unwrap();
    let store = connect(&cluster.url(), 6).await;
    let revoker = Revoker::new(store.clone(), TokenProfile::new()).unwrap();
    let sessions = Sessions::new(store.clone(), revoker, policy()).unwrap();
    for user in ["alice", "bob", "carol", "dave"] {
        let first = login(&sessions, user).await;
        let second = granted(refresh(&sessions, &first).await);
        assert_eq!(sessions.list(user).await.unwrap().len(), 1);
        sessions.end_all(user, None).await.unwrap();
        assert!(!is_live(&store, &second).await);
        let third = login(&sessions, user).await;
        let fourth = granted(refresh(&sessions, &third).await);
        granted(refresh(&sessions, &fourth).await);
        assert!(refused(refresh(&sessions, &third).await).is_reuse());
        assert!(!is_live(&store, &fourth).await);
    }
    assert_eq!(sessions.list_device("phone").await.unwrap().len(), 0);
}
