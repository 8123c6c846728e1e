//! What the Redis store logs: each change of state once, and never a credential. Alone in its binary, because the log is one
//! for all tests.
#![cfg(feature = "redis")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

#[path = "support/mod.rs"]
mod support;

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tower_jwt_revocation::store::redis::Health;
use tower_jwt_revocation::token::TokenProfile;
use tower_jwt_revocation::{RedisStore, Revoker, Target};
use tracing_subscriber::fmt::MakeWriter;

use support::{RedisServer, redis_is_installed};

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn lines(&self) -> Vec<String> {
        String::from_utf8_lossy(&self.0.lock().unwrap()).lines().map(ToOwned::to_owned).collect()
    }
}

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Log {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_change_is_told_once_and_no_credential_is() {
    if !redis_is_installed() {
        return;
    }
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_ansi(false)
        .with_writer(log.clone())
        .finish();
    tracing::subscriber::set_global_default(subscriber).unwrap();
    let count = |words: &str| log.lines().iter().filter(|line| line.contains(words)).count();

    let mut server = RedisServer::builder().acl("app on >s3cret ~* +@all").start();
    let store = RedisStore::connect(server.url_as("app", "s3cret")).await.unwrap();
    let revoker = Revoker::new(store.clone(), TokenProfile::new()).unwrap();
    revoker.revoke(Target::user("alice@example.com")).reason("fired").await.unwrap();
    // One connection for checks, one for writes.
    assert_eq!(count("connected to redis"), 2);

    server.kill();
    let mut health = store.watch_health();
    health.wait_for(|health| health.error().is_some()).await.unwrap();
    for _ in 0..50 {
        // What fails because of the outage is not told again.
        let _ = revoker.find(Target::user("alice@example.com")).await.unwrap_err().to_string();
        if count("redis cannot be used") == 2 {
            break;
        }
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(count("redis cannot be used"), 2, "{:#?}", log.lines());

    server.restart();
    tokio::time::timeout(Duration::from_secs(10), health.wait_for(Health::is_up)).await.unwrap().unwrap();
    assert_eq!(count("connected to redis"), 4);
    support::wait_until("the loss is noticed", Duration::from_secs(10), || {
        count("redis has lost revocations") > 0
    });
    assert_eq!(count("redis has lost revocations"), 1, "{:#?}", log.lines());

    for secret in ["s3cret", "alice", "fired"] {
        assert_eq!(count(secret), 0, "{:#?}", log.lines());
    }
}
