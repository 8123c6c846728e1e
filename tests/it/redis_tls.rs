//! TLS to Redis by settings: authorities of one's own, certificates of the client.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use tower_jwt_revocation::store::redis::{ConnectError, RedisStoreBuilder, Start};
use tower_jwt_revocation::store::{Standing, StoreErrorKind};
use tower_jwt_revocation::{RedisConfig, RedisStore, Target};

use crate::redis_supervision::revoke;
use crate::servers::{RedisServer, TempDir, TlsFiles, redis_is_installed, server_has_tls};
use crate::store_contract::{check, token};

/// Long enough that what is not refused at once is seen to be waited for.
const LONG: Duration = Duration::from_secs(300);

fn can_run() -> bool {
    redis_is_installed() && server_has_tls()
}

fn at(server: &RedisServer) -> RedisStoreBuilder {
    RedisStore::builder().with_url(server.url()).with_start(Start::WaitUpTo(LONG))
}

/// Fails without waiting for the limit of the start, and says what to do.
#[track_caller]
fn is_refused(connected: Result<RedisStore, ConnectError>, start: Instant, remedy: &str) {
    let ConnectError::Store(error) = connected.unwrap_err() else {
        panic!("it is no setting that cannot work")
    };
    assert_eq!(error.kind(), StoreErrorKind::Denied, "{error}");
    assert!(error.to_string().contains(remedy), "{error}");
    assert!(start.elapsed() < LONG / 2, "it was waited for");
}

async fn works(store: &RedisStore) {
    revoke(store, Target::token("t")).await.unwrap();
    let standing = check(store, &token("u", "t")).await.unwrap();
    assert!(matches!(standing, Standing::Revoked(_)), "{standing:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_authority_of_ones_own_is_trusted_by_a_setting() {
    if !can_run() {
        return;
    }
    let server = RedisServer::builder().tls(false).start();
    let ca = &server.tls().ca;
    works(&at(&server).with_root_certificates_file(ca).connect().await.unwrap()).await;
    let pem = fs::read(ca).unwrap();
    works(&at(&server).with_root_certificates(&pem).connect().await.unwrap()).await;
    let config = serde_json::json!({"url": server.url(), "ca_file": ca});
    let config: RedisConfig = serde_json::from_value(config).unwrap();
    works(&config.connect().await.unwrap()).await;
    let host = RedisStore::builder().with_host("localhost").with_port(server.port()).with_tls();
    works(&host.with_root_certificates_file(ca).connect().await.unwrap()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unknown_authority_and_another_name_are_refused_at_once() {
    if !can_run() {
        return;
    }
    let server = RedisServer::builder().arg("bind", "127.0.0.1 127.0.0.2").tls(false).start();
    let remedy = "REDIS_CA_FILE";
    let start = Instant::now();
    is_refused(at(&server).connect().await, start, remedy);
    let dir = TempDir::new();
    let other = TlsFiles::write(dir.path()).ca;
    let connected = at(&server).with_root_certificates_file(other).connect().await;
    is_refused(connected, start, remedy);
    // The certificate is for 127.0.0.1.
    let elsewhere = format!("rediss://127.0.0.2:{}", server.port());
    let builder = at(&server).with_url(elsewhere).with_root_certificates_file(&server.tls().ca);
    is_refused(builder.connect().await, start, "for another name");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_wants_certificates_gets_that_of_the_settings() {
    if !can_run() {
        return;
    }
    let server = RedisServer::builder().tls(true).start();
    let files = server.tls();
    let trusting = || at(&server).with_root_certificates_file(&files.ca);
    let (cert, key) = (&files.client_cert, &files.client_key);
    works(&trusting().with_client_certificate_files(cert, key).connect().await.unwrap()).await;
    let given = [fs::read(cert).unwrap(), fs::read(key).unwrap()];
    works(&trusting().with_client_certificate(&given[0], &given[1]).connect().await.unwrap()).await;
    let config = serde_json::json!({
        "url": server.url(), "ca_file": files.ca, "client_cert_file": cert, "client_key_file": key,
    });
    let config: RedisConfig = serde_json::from_value(config).unwrap();
    works(&config.connect().await.unwrap()).await;

    let start = Instant::now();
    is_refused(trusting().connect().await, start, "REDIS_CLIENT_CERT_FILE");
    let dir = TempDir::new();
    let TlsFiles { client_cert, client_key, .. } = TlsFiles::write(dir.path());
    let stranger = trusting().with_client_certificate_files(client_cert, client_key);
    is_refused(stranger.connect().await, start, "REDIS_CLIENT_CERT_FILE");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn renewed_certificates_are_used_by_the_next_connection() {
    if !can_run() {
        return;
    }
    let server = RedisServer::builder().tls(true).start();
    let (dir, other) = (TempDir::new(), TempDir::new());
    let copy = |from: &Path, name: &str| {
        let to = dir.path().join(name);
        fs::copy(from, &to).unwrap();
        to
    };
    let put = |files: &TlsFiles| {
        let ca = copy(&files.ca, "ca");
        (ca, copy(&files.client_cert, "cert"), copy(&files.client_key, "key"))
    };
    let (ca, cert, key) = put(server.tls());
    let builder = at(&server).with_root_certificates_file(ca);
    let store = builder.with_client_certificate_files(cert, key).connect().await.unwrap();
    works(&store).await;

    let renewed = TlsFiles::write(other.path());
    put(&renewed);
    let path = |path: &Path| path.to_str().unwrap().to_owned();
    server.cli(&[
        "CONFIG",
        "SET",
        "tls-ca-cert-file",
        &path(&renewed.ca),
        "tls-cert-file",
        &path(&renewed.server_cert),
        "tls-key-file",
        &path(&renewed.server_key),
    ]);
    let mut health = store.watch_health();
    health.mark_unchanged();
    server.cli(&["CLIENT", "KILL", "TYPE", "normal"]);
    // A server that is back at once was never down.
    let works_again = async {
        while revoke(&store, Target::token("later")).await.is_err() {
            let _ = tokio::time::timeout(Duration::from_millis(100), health.changed()).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), works_again).await.unwrap();
    let connections = server.cli(&["CLIENT", "LIST"]);
    assert!(connections.contains("addr=127.0.0.1"), "{connections}");
}

#[tokio::test]
async fn certificates_without_tls_are_an_error_that_names_the_setting() {
    for (field, value) in [
        ("ca_file", serde_json::json!({"ca_file": "/nowhere"})),
        (
            "client_cert_file",
            serde_json::json!({"client_cert_file": "/nowhere", "client_key_file": "/nowhere"}),
        ),
    ] {
        let mut settings = value;
        settings["url"] = "redis://127.0.0.1:1".into();
        let config: RedisConfig = serde_json::from_value(settings.clone()).unwrap();
        let error = config.connect().await.unwrap_err().to_string();
        assert!(error.starts_with(field) && error.contains("rediss://"), "{error}");
        settings["url"] = "rediss://127.0.0.1:1".into();
        let config: RedisConfig = serde_json::from_value(settings).unwrap();
        let error = config.connect().await.unwrap_err().to_string();
        assert!(error.starts_with(&format!("{field}: names /nowhere")), "{error}");
    }
    let half = serde_json::json!({"url": "rediss://127.0.0.1:1", "client_key_file": "/nowhere"});
    let config: RedisConfig = serde_json::from_value(half).unwrap();
    let error = config.builder().unwrap_err().to_string();
    assert!(error.starts_with("client_key_file") && error.contains("set the file"), "{error}");
}
