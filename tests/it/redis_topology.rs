//! The Redis store behind sentinels, in a cluster, over TLS and Unix sockets.

use std::time::{Duration, Instant};

use tower_jwt_revocation::revocation::{Outcome, Revocation};
use tower_jwt_revocation::store::redis::Start;
use tower_jwt_revocation::store::{RevocationStore as _, Standing, StoreErrorKind};
use tower_jwt_revocation::{RedisStore, Target, VerifiedToken};

use crate::redis_supervision::{IN_TIME, recovered, revoke, timely};
use crate::servers::{
    Cluster, Fault, FaultProxy, RedisServer, Sentinel, redis_is_installed, wait_until,
};
use crate::store_contract::{check, token};

const HOUR: Duration = Duration::from_secs(3600);
/// How long a failover may take, on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

fn is_revoked(standing: &Standing) -> bool {
    matches!(standing, Standing::Revoked(_))
}

// === Sentinel ===

/// Writes until a write succeeds, and returns how it did.
async fn written(store: &RedisStore, id: &str) -> Outcome {
    let start = Instant::now();
    loop {
        match revoke(store, Target::token(id)).await {
            Ok(outcome) => return outcome,
            Err(error) => assert!(start.elapsed() < LIMIT, "still {error}"),
        }
    }
}

/// Waits in a thread of its own, so that the store goes on meanwhile.
async fn failed_over(sentinel: Sentinel, from: usize) -> Sentinel {
    tokio::task::spawn_blocking(move || {
        sentinel.wait_for_failover_from(from);
        sentinel
    })
    .await
    .unwrap()
}

async fn behind_sentinels() -> Option<(Sentinel, RedisStore)> {
    if !redis_is_installed() {
        return None;
    }
    let sentinel = tokio::task::spawn_blocking(|| Sentinel::start(1, 1)).await.unwrap();
    let store = RedisStore::builder()
        .with_url(sentinel.url())
        .with_wait_replicas(std::num::NonZeroU32::MIN, Duration::from_millis(900))
        .connect()
        .await
        .unwrap();
    written(&store, "before").await;
    Some((sentinel, store))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_primary_is_followed_by_its_replica() {
    let Some((sentinel, _)) = behind_sentinels().await else { return };
    // From here on without waiting for replicas: the old primary was one of two.
    let store = RedisStore::connect(sentinel.url()).await.unwrap();
    let killed = sentinel.kill_primary();
    let sentinel = failed_over(sentinel, killed).await;
    assert_eq!(written(&store, "after").await, Outcome::New);
    for id in ["before", "after"] {
        assert!(is_revoked(&recovered(&store, &token("u", id)).await), "{id}");
    }
    assert_eq!(recovered(&store, &token("u", "live")).await, Standing::Live);
    drop(sentinel);
}

/// It still says that it is a primary, and its connection was begun when the sentinel said so, too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_that_is_replaced_while_it_is_connected_to_is_not_used() {
    if !redis_is_installed() {
        return;
    }
    let (old, new) = (RedisServer::start(), RedisServer::start());
    let proxy = FaultProxy::start(old.addr()).await;
    let monitor = |port: u16| format!("primary 127.0.0.1 {port} 1");
    let sentinel = RedisServer::builder()
        .sentinel()
        .arg("sentinel monitor", &monitor(proxy.addr().port()))
        .start();
    wait_until("the sentinel is connected", LIMIT, || proxy.accepted() >= 2);
    proxy.set(Fault::BlackHoleReplies).await;
    let url = format!("redis-sentinel://{}?sentinelServiceName=primary", sentinel.addr());
    let store =
        RedisStore::builder().with_url(url).with_start(Start::Anyway).connect().await.unwrap();
    // One for checks, one for writes.
    while proxy.accepted() < 4 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    sentinel.cli(&["SENTINEL", "REMOVE", "primary"]);
    let port = new.port().to_string();
    sentinel.cli(&["SENTINEL", "MONITOR", "primary", "127.0.0.1", &port, "1"]);
    proxy.set(Fault::Pass).await;

    let mut health = store.watch_health();
    tokio::time::timeout(LIMIT, health.wait_for(tower_jwt_revocation::store::redis::Health::is_up))
        .await
        .unwrap()
        .unwrap();
    written(&store, "t").await;
    assert!(is_revoked(&recovered(&store, &token("u", "t")).await));
    assert_eq!(old.cli(&["DBSIZE"]), "0");
    assert_ne!(new.cli(&["DBSIZE"]), "0");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_that_wakes_after_it_was_replaced_is_never_used() {
    let Some((sentinel, _)) = behind_sentinels().await else { return };
    let store = RedisStore::connect(sentinel.url()).await.unwrap();
    let idle = RedisStore::connect(sentinel.url()).await.unwrap();
    let hung = sentinel.hang_primary();
    let sentinel = failed_over(sentinel, hung).await;
    written(&store, "after").await;
    let revoked = token("u", "after");
    assert!(is_revoked(&recovered(&store, &revoked).await));
    // The old primary wakes up and holds itself to be one, without the latest revocation.
    sentinel.servers()[hung].resume();
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(3) {
        for store in [&store, &idle] {
            if let Ok(standing) = timely(store, &revoked).await {
                assert!(
                    is_revoked(&standing),
                    "read from the old primary after {:?}",
                    start.elapsed()
                );
            }
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    assert!(is_revoked(&recovered(&idle, &revoked).await));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_ordered_failover_loses_nothing() {
    let Some((sentinel, store)) = behind_sentinels().await else { return };
    let order = tokio::task::spawn_blocking(move || {
        sentinel.failover();
        sentinel
    });
    let mut confirmed = Vec::new();
    while !order.is_finished() {
        let id = format!("during {}", confirmed.len());
        if revoke(&store, Target::token(id.clone())).await.is_ok() {
            confirmed.push(id);
        }
    }
    let sentinel = order.await.unwrap();
    confirmed.push("before".into());
    assert!(is_revoked(&recovered(&store, &token("u", "before")).await));
    for id in &confirmed {
        assert!(
            is_revoked(&recovered(&store, &token("u", id)).await),
            "{id} of {}",
            confirmed.len()
        );
    }
    drop(sentinel);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_sentinels_there_is_no_primary() {
    let url = "redis-sentinel://127.0.0.1:1?sentinelServiceName=primary&node=127.0.0.1:2";
    let error =
        RedisStore::builder().with_url(url).with_start(Start::AtOnce).connect().await.unwrap_err();
    assert!(error.to_string().contains("redis cannot be used"), "{error}");
}

// === Cluster ===

const SHARDS: u16 = 6;

async fn in_cluster(replicas: usize) -> Option<(Cluster, RedisStore)> {
    if !redis_is_installed() {
        return None;
    }
    let cluster =
        tokio::task::spawn_blocking(move || Cluster::with_replicas(replicas)).await.unwrap();
    // What is not touched by a fault is to be answered without exception, also on a machine that is
    // busy.
    let store = RedisStore::builder()
        .with_url(cluster.url())
        .with_shards(SHARDS)
        .with_check_timeout(IN_TIME / 2);
    Some((cluster, store.connect().await.unwrap()))
}

/// The nodes that are asked about a token.
fn nodes_of(cluster: &Cluster, token: &VerifiedToken) -> Vec<usize> {
    let mut nodes: Vec<_> = token
        .targets()
        .iter()
        .map(|target| {
            let bytes = target.fingerprint().as_bytes();
            let shard = u16::from_be_bytes([bytes[0], bytes[1]]) % SHARDS;
            cluster.owner(&format!("{{{shard}}}"))
        })
        .collect();
    nodes.sort_unstable();
    nodes.dedup();
    nodes
}

/// A token that no question about goes to the node.
fn token_without(cluster: &Cluster, node: usize) -> String {
    (0..2000)
        .map(|n| format!("t{n}"))
        .find(|id| !nodes_of(cluster, &token(id, id)).contains(&node))
        .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_node_makes_only_its_own_shards_unreadable() {
    let Some((mut cluster, store)) = in_cluster(0).await else { return };
    // The shard of the issuer, which belongs to every token, must be elsewhere.
    let issuers = nodes_of(&cluster, &token("x", "x"));
    let issuer_node = {
        let bytes = *Target::issuer("").fingerprint().as_bytes();
        cluster.owner(&format!("{{{}}}", u16::from_be_bytes([bytes[0], bytes[1]]) % SHARDS))
    };
    assert!(issuers.contains(&issuer_node));
    let victim = (issuer_node + 1) % 3;
    let survivor = token_without(&cluster, victim);
    let spared = token(&survivor, &survivor);
    let hit = (0..2000)
        .map(|n| token("y", &format!("h{n}")))
        .find(|token| nodes_of(&cluster, token).contains(&victim))
        .unwrap();
    assert_eq!(check(&store, &spared).await.unwrap(), Standing::Live);
    assert_eq!(check(&store, &hit).await.unwrap(), Standing::Live);

    cluster.kill(victim);
    for _ in 0..200 {
        // Without pause nor exception, also while the death is being noticed.
        assert_eq!(timely(&store, &spared).await.unwrap(), Standing::Live);
        assert!(timely(&store, &hit).await.is_err());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let health = store.watch_health().borrow().clone();
    let lost: Vec<_> = health.unreadable_shards().collect();
    assert!(!lost.is_empty() && lost.len() < usize::from(SHARDS), "{lost:?}");
    // One shard that knows is enough.
    let targets = [Target::token(survivor.clone()), Target::user(survivor.clone())];
    for target in targets {
        revoke(&store, target).await.unwrap();
    }
    assert!(is_revoked(&timely(&store, &spared).await.unwrap()));

    cluster.node_mut(victim).restart();
    let start = Instant::now();
    // It came back empty, so what it was asked about before is in doubt, and says so.
    loop {
        match timely(&store, &hit).await {
            Err(error) if error.kind() == StoreErrorKind::DataLoss => break,
            answer => assert!(answer.is_err(), "a token from before is not known to be live"),
        }
        assert!(start.elapsed() < LIMIT);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_node_does_not_delay_the_epochs_of_the_others() {
    const MANY: u16 = 32;
    if !redis_is_installed() {
        return;
    }
    let cluster = tokio::task::spawn_blocking(Cluster::start).await.unwrap();
    let store =
        RedisStore::builder().with_url(cluster.url()).with_shards(MANY).connect().await.unwrap();
    let owner = |shard: u16| cluster.owner(&format!("{{{shard}}}"));
    let (node, dead) = (owner(MANY - 1), (owner(MANY - 1) + 1) % 3);
    let lost = (0..MANY).filter(|shard| owner(*shard) == dead).count();
    assert!(lost > 5, "{lost} are too few to hold up anybody");
    cluster.kill(dead);
    wait_until("it is known", LIMIT, || store.health().unreadable_shards().count() == lost);
    let epoch = format!("jwt-revocation:{{{}}}:e", MANY - 1);
    cluster.nodes()[node].cli(&["DEL", &epoch]);
    let start = Instant::now();
    while cluster.nodes()[node].cli(&["EXISTS", &epoch]) != "1" {
        // The write timeout is a second.
        assert!(start.elapsed() < Duration::from_secs(4), "it waits for each of {lost} in turn");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_takes_over_is_found() {
    let Some((cluster, store)) = in_cluster(1).await else { return };
    let ids: Vec<_> = (0..20).map(|n| format!("t{n}")).collect();
    for id in &ids {
        revoke(&store, Target::token(id.clone())).await.unwrap();
    }
    let slot = cluster.slot("{0}");
    let victim = cluster.owner_of_slot(slot);
    // Replication is asynchronous; what was written must have arrived.
    let offset = |index: usize| cluster.nodes()[index].cli(&["WAIT", "1", "5000"]);
    for index in 0..3 {
        assert_eq!(offset(index), "1");
    }
    cluster.kill(victim);
    let cluster = tokio::task::spawn_blocking(move || {
        cluster.wait_for_failover_of(slot, victim);
        cluster
    })
    .await
    .unwrap();
    let start = Instant::now();
    for id in &ids {
        let token = token("u", id);
        loop {
            match timely(&store, &token).await {
                Ok(standing) => break assert!(is_revoked(&standing), "{id}"),
                Err(error) => assert!(start.elapsed() < LIMIT, "still {error}"),
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    written(&store, "after").await;
    drop(cluster);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slot_that_moves_is_followed() {
    let Some((cluster, store)) = in_cluster(0).await else { return };
    for n in 0..10 {
        revoke(&store, Target::token(format!("t{n}"))).await.unwrap();
    }
    let cluster = tokio::task::spawn_blocking(move || {
        for shard in 0..SHARDS {
            let slot = cluster.slot(&format!("{{{shard}}}"));
            let to = (cluster.owner_of_slot(slot) + 1) % 3;
            cluster.migrate_slot(slot, to);
        }
        cluster
    });
    // While the slots move there may be errors, but never a wrong answer.
    while !cluster.is_finished() {
        for n in 0..10 {
            if let Ok(standing) = timely(&store, &token("u", &format!("t{n}"))).await {
                assert!(is_revoked(&standing), "t{n}");
            }
        }
    }
    let cluster = cluster.await.unwrap();
    for n in 0..10 {
        assert!(is_revoked(&recovered(&store, &token("u", &format!("t{n}"))).await), "t{n}");
    }
    assert_eq!(recovered(&store, &token("u", "live")).await, Standing::Live);
    written(&store, "after").await;
    drop(cluster);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_and_counts_span_the_cluster() {
    let Some((cluster, store)) = in_cluster(0).await else { return };
    let changes = (0..50).map(|n| Revocation::new(Target::token(format!("t{n}")), HOUR)).collect();
    store.write(changes).await.unwrap();
    assert_eq!(store.count().await.unwrap(), 50);
    let mut query = tower_jwt_revocation::store::ListQuery::default();
    let mut found = 0;
    loop {
        let page = store.list(query.clone()).await.unwrap();
        found += page.records.len();
        let Some(next) = page.next else { break };
        query.cursor = Some(next);
    }
    assert_eq!(found, 50);
    drop(cluster);
}

// === Other ways to get there ===

#[cfg(feature = "unix-sockets")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_unix_socket_can_be_used() {
    if !redis_is_installed() {
        return;
    }
    let mut server = RedisServer::builder().unix_socket().acl("app on >s3cret ~* +@all").start();
    for url in [server.url(), server.url_as("app", "s3cret")] {
        let store = RedisStore::connect(url).await.unwrap();
        revoke(&store, Target::token("t")).await.unwrap();
        assert!(is_revoked(&check(&store, &token("u", "t")).await.unwrap()));
    }
    let store = RedisStore::connect(server.url()).await.unwrap();
    server.restart();
    #[cfg(not(feature = "fred-config"))]
    let other = RedisStore::connect(server.url()).await.unwrap();
    #[cfg(feature = "fred-config")]
    let other = {
        use tower_jwt_revocation::store::redis::fred::types::config::Config;

        let config = Config::from_url(&server.url()).unwrap();
        RedisStore::builder().with_fred_config(config).connect().await.unwrap()
    };
    revoke(&other, Target::token("t")).await.unwrap();
    assert!(is_revoked(&recovered(&store, &token("u", "t")).await));
}

#[cfg(all(feature = "rustls", feature = "fred-config"))]
mod tls {
    use std::sync::Arc;

    use tower_jwt_revocation::store::redis::fred::rustls::pki_types::pem::PemObject as _;
    use tower_jwt_revocation::store::redis::fred::rustls::pki_types::{
        CertificateDer, PrivateKeyDer,
    };
    use tower_jwt_revocation::store::redis::fred::rustls::{ClientConfig, RootCertStore, crypto};
    use tower_jwt_revocation::store::redis::fred::types::config::{
        Config, ServerConfig, TlsConnector,
    };

    use super::*;
    use crate::servers::server_has_tls;

    fn config(server: &RedisServer, with_certificate: bool) -> Config {
        let files = server.tls();
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_file_iter(&files.ca).unwrap() {
            roots.add(certificate.unwrap()).unwrap();
        }
        let builder =
            ClientConfig::builder_with_provider(Arc::new(crypto::aws_lc_rs::default_provider()))
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_root_certificates(roots);
        let tls = if with_certificate {
            let chain = CertificateDer::pem_file_iter(&files.client_cert)
                .unwrap()
                .collect::<Result<_, _>>()
                .unwrap();
            builder
                .with_client_auth_cert(
                    chain,
                    PrivateKeyDer::from_pem_file(&files.client_key).unwrap(),
                )
                .unwrap()
        } else {
            builder.with_no_client_auth()
        };
        Config {
            server: ServerConfig::new_centralized("localhost", server.port()),
            tls: Some(TlsConnector::from(tls).into()),
            ..Config::default()
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn tls_with_a_private_authority() {
        if !redis_is_installed() || !server_has_tls() {
            return;
        }
        let server = RedisServer::builder().tls(false).start();
        let store =
            RedisStore::builder().with_fred_config(config(&server, false)).connect().await.unwrap();
        revoke(&store, Target::token("t")).await.unwrap();
        assert!(is_revoked(&check(&store, &token("u", "t")).await.unwrap()));
        // The certificates of the system do not vouch for this server, and plain text is not
        // spoken.
        for url in [server.url(), server.url().replace("rediss", "redis")] {
            let start = Start::AtOnce;
            RedisStore::builder().with_url(url).with_start(start).connect().await.unwrap_err();
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn tls_with_certificates_on_both_sides() {
        if !redis_is_installed() || !server_has_tls() {
            return;
        }
        let server = RedisServer::builder().tls(true).start();
        let of = |with_certificate| {
            RedisStore::builder()
                .with_fred_config(config(&server, with_certificate))
                .with_start(Start::AtOnce)
                .connect()
        };
        let store = of(true).await.unwrap();
        revoke(&store, Target::token("t")).await.unwrap();
        assert!(is_revoked(&check(&store, &token("u", "t")).await.unwrap()));
        of(false).await.unwrap_err();
    }
}
