//! What the Redis store logs: each change of state once, and never a credential. Alone in its
//! binary, because the log is one for all tests.
#![cfg(feature = "redis")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

#[path = "support/mod.rs"]
mod support;

use std::convert::Infallible;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::{Request, Response, StatusCode};
use tower::{Layer as _, ServiceExt as _, service_fn};
use tower_jwt_revocation::clock::Timestamp;
use tower_jwt_revocation::store::redis::foreign::ForeignList;
use tower_jwt_revocation::store::redis::{Health, Import};
use tower_jwt_revocation::token::{SignedClaims, TokenError, TokenVerifier};
use tower_jwt_revocation::{
    Clearance, JwtRevocationLayer, RedisStore, Rejection, Revoker, Target, TokenProfile,
    VerifiedToken,
};
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
async fn each_change_of_state_is_logged_once_and_no_credential_is() {
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
        // What fails because of the outage is not logged again.
        let _ = revoker.find(Target::user("alice@example.com")).await.unwrap_err().to_string();
        if count("redis cannot be used") == 2 {
            break;
        }
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(count("redis cannot be used"), 2, "{:#?}", log.lines());

    server.restart();
    tokio::time::timeout(Duration::from_secs(10), health.wait_for(Health::is_up))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(count("connected to redis"), 4);
    support::wait_until("the loss is noticed", Duration::from_secs(10), || {
        count("redis has lost revocations") > 0
    });
    assert_eq!(count("redis has lost revocations"), 1, "{:#?}", log.lines());

    let token = with_lists_of_tokens().await;
    for secret in ["s3cret", "alice", "fired", token] {
        assert_eq!(count(secret), 0, "{:#?}", log.lines());
    }
}

/// Takes everything for a token that was verified.
struct AnyVerifier(TokenProfile);

impl AnyVerifier {
    fn claims(token: &str) -> String {
        let now = Timestamp::now().as_secs();
        format!(r#"{{"jti":"{}","iat":{now},"exp":{}}}"#, token.len(), now + 600)
    }
}

impl TokenVerifier for AnyVerifier {
    fn verify(&self, token: &str) -> Result<Arc<VerifiedToken>, TokenError> {
        self.verify_for_revocation(token)
    }

    fn verify_for_revocation(&self, token: &str) -> Result<Arc<VerifiedToken>, TokenError> {
        let claims = Self::claims(token);
        self.0.assert_verified_for_revocation(SignedClaims::new(claims.as_bytes())).map(Arc::new)
    }

    fn profile(&self) -> &TokenProfile {
        &self.0
    }

    fn generation(&self) -> u64 {
        0
    }
}

/// Does all that can be done with a list whose keys are tokens, well and badly, and says which
/// token it was.
async fn with_lists_of_tokens() -> &'static str {
    let server = RedisServer::builder().acl("app on >s3cret ~* +@all").start();
    let url = server.url_as("app", "s3cret");
    let token = "tokentokentoken".repeat(20);
    let key = format!("blacklist:{token}");
    let list = ForeignList::blacklisted_token().with_json_words().with_writes();
    let store =
        Box::pin(RedisStore::builder().with_url(url).with_foreign_list(list.clone()).connect());
    let store = store.await.unwrap();
    let verifier = || AnyVerifier(TokenProfile::new());
    let layer = JwtRevocationLayer::new(verifier(), store.clone());
    let revoker = layer.revoker();
    let service = layer.layer(service_fn(|request: Request<()>| async move {
        Ok::<_, Infallible>(Response::new(format!("{:?}", request.extensions().get::<Clearance>())))
    }));
    let call = || async {
        let request = Request::get("/").header("authorization", format!("Bearer {token}"));
        let response = service.clone().oneshot(request.body(()).unwrap()).await.unwrap();
        let said = format!("{:?} {:?}", response.body(), response.extensions().get::<Rejection>());
        assert!(!said.contains("tokentoken"), "{said}");
        response.status()
    };
    assert_eq!(call().await, StatusCode::OK);
    server.cli(&["HSET", &key, "a", "b"]);
    assert_eq!(call().await, StatusCode::SERVICE_UNAVAILABLE);
    let error = revoker.revoke_raw_token(&verifier(), &token).await.unwrap_err();
    assert!(!format!("{error} {error:?}").contains("tokentoken"), "{error:?}");
    server.cli(&["DEL", &key]);
    revoker.revoke_raw_token(&verifier(), &token).await.unwrap();
    assert_eq!(server.cli(&["EXISTS", &key]), "1");
    assert_eq!(call().await, StatusCode::UNAUTHORIZED);
    let mut import = Import::new(revoker.clone(), &store, &list).unwrap().with_verifier(verifier());
    import.run().await.unwrap();
    server.cli(&["ACL", "SETUSER", "app", "resetkeys", "~jwt-revocation:*"]);
    let other = token.replace("tokentoken", "tokentokentoken");
    let request =
        Request::get("/").header("authorization", format!("Bearer {other}")).body(()).unwrap();
    let denied = service.clone().oneshot(request).await.unwrap();
    assert_eq!(denied.status(), StatusCode::SERVICE_UNAVAILABLE);
    let said =
        format!("{:?} {import:?} {store:?} {layer:?}", denied.extensions().get::<Rejection>());
    assert!(!said.contains("tokentoken"), "{said}");
    "tokentoken"
}
