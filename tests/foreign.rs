//! Lists that other programs write with the client libraries that they use: redis-py and
//! node-redis. What they revoke is refused here, and what is revoked here they refuse.
//!
//! The libraries are installed on first use, by `scripts/setup-interop`. One that cannot be is
//! skipped with a message, unless `REQUIRE_INTEROP=1`.
#![cfg(all(
    feature = "redis",
    feature = "issuer",
    any(feature = "aws_lc_rs", feature = "rust_crypto")
))]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on has failed"
)]

#[path = "interop/peers.rs"]
mod peers;
#[path = "support/mod.rs"]
mod support;

use std::convert::Infallible;
use std::time::{Duration, Instant};

use http::{Request, Response, StatusCode};
use serde_json::{Value, json};
use support::{Cluster, RedisServer, Sentinel, redis_is_installed};
use tower::{Layer as _, ServiceExt as _, service_fn};
use tower_jwt_revocation::revocation::TargetKind;
use tower_jwt_revocation::store::redis::foreign::ForeignList;
use tower_jwt_revocation::token::issue::NewToken;
use tower_jwt_revocation::token::jwt::SigningKey;
use tower_jwt_revocation::{
    Algorithm, Clearance, JwtRevocationLayer, JwtVerifier, RedisStore, Rejection, Target,
    TokenIssuer, TokenProfile,
};

const PEERS: [&str; 2] = ["redis-py", "node-redis"];
const HOUR: Duration = Duration::from_secs(3600);

/// Another program: a service that keeps a list, with the library of this name.
#[derive(Clone, Copy)]
struct Peer(&'static str);

impl Peer {
    /// Those whose library is there.
    fn all() -> Vec<Self> {
        let is_there = |name: &&str| peers::is_there(name);
        if redis_is_installed() {
            PEERS.into_iter().filter(is_there).map(Self).collect()
        } else {
            Vec::new()
        }
    }

    fn ask(self, request: &Value) -> Value {
        let program = if self.0 == "redis-py" { "redis_py_peer.py" } else { "node_redis.mjs" };
        tokio::task::block_in_place(|| peers::ask(program, request))
    }

    fn revokes(self, to: &Value, layout: &str, token: &Value, ttl: Duration) {
        let ttl = u64::try_from(ttl.as_millis()).unwrap();
        self.ask(
            &json!({"do": "revoke", "to": to, "layout": layout, "token": token, "ttl_ms": ttl}),
        );
    }

    fn refuses(self, to: &Value, layout: &str, token: &Value) -> bool {
        self.ask(&json!({"do": "check", "to": to, "layout": layout, "token": token}))
            .as_bool()
            .unwrap()
    }
}

fn layouts() -> [(&'static str, ForeignList, TargetKind); 6] {
    [
        ("plain_jti", ForeignList::plain_jti(), TargetKind::Token),
        ("blacklisted_token", ForeignList::blacklisted_token(), TargetKind::Token),
        ("revoked_token_sha256", ForeignList::revoked_token_sha256(), TargetKind::Token),
        ("blacklisted_jti_json", ForeignList::blacklisted_jti_json(), TargetKind::Token),
        ("token_family_json", ForeignList::token_family_json(), TargetKind::Family),
        ("revoked_families", ForeignList::revoked_families(), TargetKind::Family),
    ]
}

/// This program: a service behind the layer.
struct Service {
    layer: JwtRevocationLayer,
    issuer: TokenIssuer,
}

impl Service {
    async fn start(url: &str, list: ForeignList) -> Self {
        let key =
            SigningKey::from_secret(Algorithm::HS256, b"a secret of at least thirty-two bytes")
                .unwrap();
        let verifier = JwtVerifier::new([key.verification_key()], TokenProfile::new()).unwrap();
        let limit = Duration::from_secs(10);
        let builder =
            RedisStore::builder().with_url(url).with_check_timeout(limit).with_write_timeout(limit);
        let store = Box::pin(builder.with_foreign_list(list).connect()).await.unwrap();
        Self {
            layer: JwtRevocationLayer::new(verifier, store),
            issuer: TokenIssuer::new(key, TokenProfile::new()).unwrap(),
        }
    }

    /// A token, as others know it.
    fn token(&self, fid: &str) -> Value {
        let issued = self.issuer.issue(&NewToken::new("alice").with_family(fid)).unwrap();
        json!({"jti": issued.id(), "fid": fid, "text": issued.token()})
    }

    async fn call(&self, token: &Value) -> Response<Option<Clearance>> {
        let inner = service_fn(|request: Request<()>| async move {
            Ok::<_, Infallible>(Response::new(request.extensions().get::<Clearance>().cloned()))
        });
        let request = Request::get("/")
            .header("authorization", format!("Bearer {}", token["text"].as_str().unwrap()));
        self.layer.layer(inner).oneshot(request.body(()).unwrap()).await.unwrap()
    }

    async fn status(&self, token: &Value) -> StatusCode {
        self.call(token).await.status()
    }

    async fn until(&self, token: &Value, status: StatusCode) {
        let start = Instant::now();
        while self.status(token).await != status {
            assert!(start.elapsed() < Duration::from_secs(30), "never {status}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_other_program_revokes_is_refused_with_its_words() {
    for peer in Peer::all() {
        for (layout, list, kind) in layouts() {
            let server = RedisServer::builder().arg("requirepass", "s3cret").start();
            let url = format!("{}/5", server.url_as("", "s3cret"));
            let to = json!({ "url": url });
            let service = Service::start(&url, list).await;
            let (listed, other) = (service.token("f1"), service.token("f2"));
            assert_eq!(service.status(&listed).await, StatusCode::OK, "{} {layout}", peer.0);
            peer.revokes(&to, layout, &listed, HOUR);
            let refused = service.call(&listed).await;
            assert_eq!(refused.status(), StatusCode::UNAUTHORIZED, "{} {layout}", peer.0);
            let Some(Rejection::Revoked(by)) = refused.extensions().get() else {
                panic!("{refused:?}")
            };
            assert_eq!(by.kind, kind, "{} {layout}", peer.0);
            if layout == "blacklisted_jti_json" {
                assert_eq!(by.reason.as_deref(), Some("stolen (user_id 42)"), "{}", peer.0);
            }
            assert_eq!(service.status(&other).await, StatusCode::OK, "{} {layout}", peer.0);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_revoked_here_is_refused_by_the_other_program() {
    for peer in Peer::all() {
        for (layout, list, kind) in layouts() {
            let server = RedisServer::start();
            let to = json!({ "url": server.url() });
            let service = Service::start(&server.url(), list.with_writes()).await;
            let token = service.token("f1");
            let passed = service.call(&token).await;
            let clearance = passed.body().as_ref().unwrap();
            let revoker = service.layer.revoker();
            match kind {
                TargetKind::Token => {
                    revoker.revoke_token(clearance.token()).reason("logout").await.unwrap()
                }
                _ => revoker.revoke(Target::family("f1")).reason("logout").await.unwrap(),
            };
            assert!(peer.refuses(&to, layout, &token), "{} {layout}", peer.0);
            assert!(!peer.refuses(&to, layout, &service.token("f2")), "{} {layout}", peer.0);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_the_entry_of_the_other_program_expires_the_token_lives_again() {
    for peer in Peer::all() {
        let server = RedisServer::start();
        let service = Service::start(&server.url(), ForeignList::plain_jti()).await;
        let token = service.token("f1");
        peer.revokes(&json!({ "url": server.url() }), "plain_jti", &token, Duration::from_secs(8));
        assert_eq!(service.status(&token).await, StatusCode::UNAUTHORIZED, "{}", peer.0);
        service.until(&token, StatusCode::OK).await;
    }
}

fn addresses(servers: &[RedisServer]) -> Value {
    servers.iter().map(|server| json!(["127.0.0.1", server.port()])).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_a_cluster_and_behind_sentinels_it_is_the_same() {
    let peers = Peer::all();
    if peers.is_empty() {
        return;
    }
    let (cluster, sentinel) =
        tokio::task::block_in_place(|| (Cluster::start(), Sentinel::start(1, 1)));
    let in_cluster = (cluster.url(), json!({"cluster": addresses(cluster.nodes())}));
    let behind_sentinel = (
        sentinel.url(),
        json!({"sentinels": addresses(sentinel.sentinels()), "service": Sentinel::SERVICE}),
    );
    for (url, to) in [in_cluster, behind_sentinel] {
        for (n, peer) in peers.iter().enumerate() {
            for (layout, list, _) in layouts() {
                let service = Service::start(&url, list).await;
                let (listed, other) = (service.token(&format!("f{n}")), service.token("live"));
                assert_eq!(
                    service.status(&listed).await,
                    StatusCode::OK,
                    "{} {layout} {to}",
                    peer.0
                );
                peer.revokes(&to, layout, &listed, HOUR);
                assert_eq!(
                    service.status(&listed).await,
                    StatusCode::UNAUTHORIZED,
                    "{} {layout} {to}",
                    peer.0
                );
                assert_eq!(
                    service.status(&other).await,
                    StatusCode::OK,
                    "{} {layout} {to}",
                    peer.0
                );
            }
        }
    }
}
