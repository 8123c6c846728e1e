//! Topologies of real servers.

use fred::types::config::{Config, ServerConfig};

use super::super::address_map::AddressMap;
use super::super::connection::{CONNECT_TIMEOUT, ConnectSettings};
use super::super::url::parse_url;
use super::*;
use crate::support::{Cluster, RedisServer, redis_or_skip, wait_until};

fn topology(config: Config) -> Topology {
    Topology::new(config, ConnectSettings::default()).unwrap()
}

/// A sentinel that watches one server.
fn sentinel_of(address: &str, port: u16) -> crate::support::Builder {
    RedisServer::builder().sentinel().arg("sentinel monitor", &format!("mm {address} {port} 1"))
}

fn behind(sentinel: &RedisServer) -> Config {
    Config {
        server: ServerConfig::new_sentinel(vec![("127.0.0.1", sentinel.port())], "mm"),
        ..Config::default()
    }
}

#[tokio::test]
async fn a_configuration_that_asks_for_resp3_works() {
    redis_or_skip!();
    let redis = RedisServer::start();
    let sentinel = sentinel_of("127.0.0.1", redis.port()).start();
    let topology = topology(Config { version: RespVersion::RESP3, ..behind(&sentinel) });
    let server = topology.primary(0).await.unwrap();
    let connection = topology.connect(server, CONNECT_TIMEOUT).await.unwrap();
    redis.cli(&["XADD", "log", "1-1", "a", "b"]);
    let arguments: Vec<Value> = ["STREAMS", "log", "0"].into_iter().map(Into::into).collect();
    let reply = connection.command("XREAD", arguments, CONNECT_TIMEOUT).await.unwrap();
    assert!(matches!(reply, Value::Array(_)), "a mirror reads arrays: {reply:?}");
}

#[tokio::test]
async fn a_connection_knows_the_id_of_its_server_before_it_is_used() {
    redis_or_skip!();
    let mut redis = RedisServer::builder().acl("app on >right ~* +@all -info").start();
    let id = async |url: &str| {
        let topology = topology(parse_url(url).unwrap());
        let server = topology.primary(0).await.unwrap();
        topology.connect(server, CONNECT_TIMEOUT).await.unwrap().server_id().clone()
    };
    let run_id = |redis: &RedisServer| {
        let info = redis.cli(&["INFO", "server"]);
        info.lines().find_map(|line| line.strip_prefix("run_id:")).unwrap().trim().to_owned()
    };
    let first = id(&redis.url()).await;
    assert_eq!(first.as_str(), run_id(&redis));
    assert!(first.is_own());
    redis.restart();
    let second = id(&redis.url()).await;
    assert_eq!(second.as_str(), run_id(&redis));
    assert_ne!(first, second);

    let address = format!("addr:{}", redis.addr());
    let refused = id(&redis.url_as("app", "right")).await;
    assert_eq!(refused.as_str(), address);
    assert!(!refused.is_own());
    let renamed = RedisServer::builder().arg("rename-command", "INFO \"\"").start();
    assert_eq!(id(&renamed.url()).await.as_str(), format!("addr:{}", renamed.addr()));
}

#[tokio::test]
async fn an_error_names_the_sentinel_or_the_server_and_whom_it_refused() {
    redis_or_skip!();
    let redis = RedisServer::builder().acl("app on >right ~* +@all").start();
    let sentinel = sentinel_of("127.0.0.1", redis.port()).arg("requirepass", "right").start();
    let url = |service: &str, credentials: &str| {
        let port = sentinel.port();
        format!("redis://app:wr0ng@127.0.0.1:{port}?sentinel={service}{credentials}")
    };
    let problem = async |url: String| {
        let topology = topology(parse_url(&url).unwrap());
        let error = match topology.primary(0).await {
            Ok(server) => topology.connect(server, CONNECT_TIMEOUT).await.unwrap_err(),
            Err(error) => error,
        };
        let shown = error.to_string();
        assert!(!shown.contains("wr0ng") && !shown.contains("right"), "{shown}");
        shown
    };
    let at = format!("the sentinel 127.0.0.1:{}", sentinel.port());
    let refused = problem(url("mm", "&sentinelPassword=wr0ng")).await;
    assert!(refused.contains(&format!("{at} refused the default user")), "{refused}");
    let unknown = problem(url("other", "&sentinelPassword=right")).await;
    assert!(unknown.contains(&format!("{at} knows no service \"other\"")), "{unknown}");
    let server = problem(url("mm", "&sentinelPassword=right")).await;
    assert!(server.contains("the server refused the user \"app\""), "{server}");
}

#[tokio::test]
async fn what_a_cluster_announces_is_dialled_where_it_prefers_and_the_map_says() {
    redis_or_skip!();
    let cluster = tokio::task::spawn_blocking(Cluster::start).await.unwrap();
    // A name that leads to the nodes, and an address that leads nowhere.
    for node in cluster.nodes() {
        let set = |name: &str, value: &str| node.try_cli(&["CONFIG", "SET", name, value]);
        if set("cluster-announce-hostname", "localhost").is_err() {
            eprintln!("skipped: this server has no preferred endpoints");
            return;
        }
        set("cluster-preferred-endpoint-type", "hostname").unwrap();
    }
    // The others hear of a name in their next message.
    wait_until("every node knows every name", Duration::from_secs(20), || {
        let knows = |slots: String| !slots.lines().any(|line| line == "?");
        cluster.nodes().iter().all(|node| knows(node.cli(&["CLUSTER", "SLOTS"])))
    });
    let find = async |map: &[(&str, &str)]| {
        let pairs: Vec<_> = map.iter().map(|(a, b)| ((*a).into(), (*b).into())).collect();
        let topology = topology(parse_url(&cluster.url()).unwrap())
            .with_address_map(AddressMap::parse(&pairs).unwrap());
        let server = topology.primary(0).await.unwrap();
        topology.connect(server.clone(), CONNECT_TIMEOUT).await.unwrap();
        let ServerConfig::Centralized { server } = server.server else { panic!("one server") };
        server.host.to_string()
    };
    assert_eq!(find(&[]).await, "localhost");
    assert_eq!(find(&[("localhost", "127.0.0.1")]).await, "127.0.0.1");
    // Who must not ask for endpoints dials addresses.
    for node in cluster.nodes() {
        node.cli(&["ACL", "SETUSER", "default", "-cluster|slots"]);
    }
    assert_eq!(find(&[]).await, "127.0.0.1");
}

#[tokio::test]
async fn what_a_sentinel_announces_is_dialled_where_the_map_says() {
    redis_or_skip!();
    let redis = RedisServer::start();
    // Nobody is at this address.
    let sentinel = sentinel_of("127.0.0.77", redis.port()).start();
    let map = [("127.0.0.77".into(), "127.0.0.1".into())];
    let topology = topology(behind(&sentinel)).with_address_map(AddressMap::parse(&map).unwrap());
    let server = topology.primary(0).await.unwrap();
    topology.connect(server, CONNECT_TIMEOUT).await.unwrap();
}

#[tokio::test]
async fn a_password_that_was_rotated_is_used_for_the_next_connection() {
    use std::sync::Mutex;

    use crate::store::redis::credentials::{PasswordFile, RedisCredentials};

    redis_or_skip!();
    let redis = RedisServer::builder().acl("app on >first ~* +@all").start();
    let file = std::env::temp_dir().join(format!("jwt-rotated-{}", redis.port()));
    std::fs::write(&file, "first\n").unwrap();
    let current = Arc::new(Mutex::new("first"));
    let at = || parse_url(&redis.url()).unwrap();
    let given = Arc::clone(&current);
    let by_file = topology(at()).with_credentials(Some(Arc::new(PasswordFile {
        username: Some("app".into()),
        path: file.clone(),
    })));
    let by_provider = topology(at()).with_credentials(Some(Arc::new(move || {
        let password = *given.lock().unwrap();
        async move { Ok(RedisCredentials::new("app", password)) }
    })));
    let reach = async |topology: &Topology| {
        let server = topology.primary(0).await?;
        let connection = topology.connect(server, CONNECT_TIMEOUT).await?;
        let me = connection.command::<Value>("ACL", vec!["WHOAMI".into()], CONNECT_TIMEOUT).await?;
        assert_eq!(me.as_str().as_deref(), Some("app"));
        Ok::<_, StoreError>(())
    };
    for topology in [&by_file, &by_provider] {
        reach(topology).await.unwrap();
    }
    redis.cli(&["ACL", "SETUSER", "app", ">second", "<first"]);
    for topology in [&by_file, &by_provider] {
        assert_eq!(reach(topology).await.unwrap_err().kind(), StoreErrorKind::Denied);
    }
    std::fs::write(&file, "second\n").unwrap();
    *current.lock().unwrap() = "second";
    for topology in [&by_file, &by_provider] {
        reach(topology).await.unwrap();
    }
    std::fs::remove_file(&file).unwrap();
}

#[cfg(feature = "rustls")]
mod tls {
    use std::sync::Arc;

    use fred::rustls::pki_types::CertificateDer;
    use fred::rustls::pki_types::pem::PemObject as _;
    use fred::rustls::{ClientConfig, RootCertStore, crypto};
    use fred::types::config::{TlsConfig, TlsConnector};

    use super::*;
    use crate::support::server_has_tls;

    fn tls_to(server: &RedisServer) -> TlsConfig {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_file_iter(&server.tls().ca).unwrap() {
            roots.add(certificate.unwrap()).unwrap();
        }
        let provider = Arc::new(crypto::aws_lc_rs::default_provider());
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        TlsConnector::from(tls).into()
    }

    async fn reach(topology: &Topology) -> Result<(), StoreError> {
        let server = topology.primary(0).await?;
        topology.connect(server, CONNECT_TIMEOUT).await.map(drop)
    }

    #[tokio::test]
    async fn sentinels_may_speak_tls_where_servers_do_not_and_the_other_way_round() {
        redis_or_skip!();
        if !server_has_tls() {
            return;
        }
        let plain = RedisServer::start();
        let sentinel = sentinel_of("127.0.0.1", plain.port()).tls(false).start();
        let config = || behind(&sentinel);
        let over_tls = Config { tls: Some(tls_to(&sentinel)), ..Config::default() };
        reach(&topology(config()).with_sentinel_base(Some(over_tls))).await.unwrap();
        reach(&topology(config())).await.unwrap_err();

        let secured = RedisServer::builder().tls(false).start();
        let files = secured.tls();
        let path = |path: &std::path::Path| path.display().to_string();
        let sentinel = sentinel_of("127.0.0.1", secured.port())
            .arg("tls-replication", "yes")
            .arg("tls-ca-cert-file", &path(&files.ca))
            .arg("tls-cert-file", &path(&files.client_cert))
            .arg("tls-key-file", &path(&files.client_key))
            .start();
        let config = || Config { tls: Some(tls_to(&secured)), ..behind(&sentinel) };
        reach(&topology(config()).with_sentinel_base(Some(Config::default()))).await.unwrap();
        reach(&topology(config())).await.unwrap_err();
    }
}
