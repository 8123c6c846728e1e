//! What a check in Redis costs, one at a time and 64 at once: the bare inner service, the layer, and what people write by
//! hand (decode with jsonwebtoken, one `EXISTS` through fred). Compare the ratios inside one run.
//!
//! `cargo bench --bench redis`; starts a `redis-server` of its own.
#![allow(
    clippy::unwrap_used,
    missing_docs,
    reason = "a bench that cannot go on has failed; macros write the rest"
)]

#[path = "../tests/support/mod.rs"]
mod support;

use std::convert::Infallible;
use std::future::{Future, Ready, ready};
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use fred::prelude::{Builder, Client, ClientLike as _, Config, KeysInterface as _};
use http::{Request, Response, StatusCode, header};
use jsonwebtoken::{DecodingKey, EncodingKey, Header, Validation};
use tower::{Layer as _, Service as _, ServiceExt as _, service_fn};
use tower_jwt_revocation::store::redis::fred;
use tower_jwt_revocation::token::TokenProfile;
use tower_jwt_revocation::token::jwt::{Algorithm, JwtVerifier, VerificationKey};
use tower_jwt_revocation::{Clock as _, JwtRevocationLayer, RedisStore, SystemClock};

const SECRET: &[u8] = b"a secret of at least thirty-two bytes";

fn inner(_: Request<()>) -> Ready<Result<Response<()>, Infallible>> {
    ready(Ok(Response::new(())))
}

fn token() -> String {
    let now = SystemClock::default().now().as_secs();
    let claims = serde_json::json!({
        "iss": "https://id.example", "sub": "4fd9b2a0-8f0c-4a52-9d0c-3f4a7e1f9b11",
        "jti": "0c6f1c52-6c55-4f0e-8a57-9f6f6f1a7c11", "sid": "b2f1c7e2-0b8f-4c61-8bd3-9f7b9c6d2e10",
        "iat": now, "exp": now + 86_000, "scope": "orders:read orders:write", "role": "clerk",
    });
    jsonwebtoken::encode(&Header::default(), &claims, &EncodingKey::from_secret(SECRET)).unwrap()
}

/// What is written by hand: verify, ask for one key, refuse if it is there.
async fn by_hand(client: Client, key: &DecodingKey, request: Request<()>) -> Response<()> {
    #[derive(serde::Deserialize)]
    struct Claims {
        jti: String,
    }
    let token = request.headers()[header::AUTHORIZATION].to_str().unwrap().strip_prefix("Bearer ").unwrap();
    let claims = jsonwebtoken::decode::<Claims>(token, key, &Validation::default()).unwrap().claims;
    let revoked: bool = client.exists(format!("revoked:{}", claims.jti)).await.unwrap();
    assert!(!revoked);
    inner(request).await.unwrap()
}

/// How long `total` requests take with `at_once` of them under way.
async fn drive<F, Fut>(total: u64, at_once: u64, send: F) -> Duration
where
    F: Fn() -> Fut + Clone + Send + 'static,
    Fut: Future<Output = StatusCode> + Send,
{
    let began = Instant::now();
    let tasks: Vec<_> = (0..at_once)
        .map(|n| {
            let send = send.clone();
            let mine = total / at_once + u64::from(n < total % at_once);
            tokio::spawn(async move {
                for _ in 0..mine {
                    assert_eq!(send().await, StatusCode::OK);
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    began.elapsed()
}

fn checks(c: &mut Criterion) {
    if !support::redis_is_installed() {
        return;
    }
    let redis = support::RedisServer::start();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let layer = runtime.block_on(async {
        let key = VerificationKey::from_secret(Algorithm::HS256, SECRET).unwrap();
        let verifier = JwtVerifier::new([key], TokenProfile::new()).unwrap();
        // A bench is not to fail because the machine was busy for a moment.
        let store = RedisStore::builder().with_url(redis.url()).with_check_timeout(Duration::from_secs(5));
        JwtRevocationLayer::new(verifier, store.connect().await.unwrap())
    });
    let client = runtime.block_on(async {
        let client = Builder::from_config(Config::from_url(&redis.url()).unwrap()).build().unwrap();
        client.init().await.unwrap();
        client
    });

    let token = token();
    let request =
        move || Request::get("/").header(header::AUTHORIZATION, format!("Bearer {token}")).body(()).unwrap();
    for at_once in [1, 64] {
        let mut group = c.benchmark_group(format!("redis/{at_once} at once"));
        group.bench_function("bare", |bencher| {
            let request = request.clone();
            let send = move || {
                let answer = service_fn(inner).call(request());
                async { answer.await.unwrap().status() }
            };
            bencher.iter_custom(|total| runtime.block_on(drive(total, at_once, send.clone())));
        });
        group.bench_function("layer", |bencher| {
            let (request, service) = (request.clone(), layer.layer(service_fn(inner)));
            let send = move || {
                let answer = service.clone().oneshot(request());
                async { answer.await.unwrap().status() }
            };
            bencher.iter_custom(|total| runtime.block_on(drive(total, at_once, send.clone())));
        });
        group.bench_function("by hand", |bencher| {
            let (request, client) = (request.clone(), client.clone());
            let send = move || {
                let (client, request) = (client.clone(), request());
                async move { by_hand(client, &DecodingKey::from_secret(SECRET), request).await.status() }
            };
            bencher.iter_custom(|total| runtime.block_on(drive(total, at_once, send.clone())));
        });
        group.finish();
    }
}

criterion_group!(
    name = benches;
    config = Criterion::default().sample_size(20).measurement_time(Duration::from_secs(3));
    targets = checks
);
criterion_main!(benches);
