//! A request with a token that was seen before, from the layer inwards: against the bare service
//! and against what is written by hand today, on one thread and on two that share the token.
//! Compare the ratios inside one run.
//!
//! `cargo bench --bench hot`
#![allow(
    clippy::unwrap_used,
    missing_docs,
    reason = "a bench that cannot go on has failed; macros write the rest"
)]

mod support;

use std::convert::Infallible;
use std::future::{Future, Ready, ready};
use std::hint::black_box;
use std::sync::{Arc, Barrier};
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::Request;
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse as _, Response};
use criterion::{Criterion, criterion_group, criterion_main};
use http::{HeaderValue, StatusCode, header};
use support::{Claims, hs256, profile, rs256, verifier};
use tower::{Layer as _, Service};
use tower_jwt_revocation::{CachedVerifier, JwtRevocationLayer, MemoryStore, Revoker, Target};

/// How many revocations the store holds.
const REVOKED: usize = 100_000;

#[derive(Clone)]
struct Inner;

impl Service<Request> for Inner {
    type Response = Response;
    type Error = Infallible;
    type Future = Ready<Result<Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        black_box(&request);
        ready(Ok(Response::new(Body::empty())))
    }
}

fn store() -> MemoryStore {
    let store = MemoryStore::new();
    let revoker = Revoker::new(store.clone(), profile()).unwrap();
    let requests = (0..REVOKED).map(|id| revoker.revoke(Target::token(format!("revoked-{id}"))));
    futures::executor::block_on(revoker.revoke_many(requests)).unwrap();
    store
}

fn send<S>(service: &mut S, authorization: &HeaderValue) -> StatusCode
where
    S: Service<Request, Response = Response, Error = Infallible>,
{
    let mut request = Request::new(Body::empty());
    request.headers_mut().insert(header::HOST, HeaderValue::from_static("api.example"));
    request.headers_mut().insert(header::AUTHORIZATION, authorization.clone());
    let mut context = Context::from_waker(Waker::noop());
    assert!(service.poll_ready(&mut context).is_ready());
    let mut future = std::pin::pin!(service.call(request));
    match future.as_mut().poll(&mut context) {
        Poll::Ready(Ok(response)) => response.status(),
        Poll::Ready(Err(never)) => match never {},
        Poll::Pending => unreachable!("everything is at hand"),
    }
}

/// One line of the comparison: the time per request on each of some threads.
fn line<S>(c: &mut Criterion, name: &str, service: &S, authorization: &HeaderValue, threads: usize)
where
    S: Service<Request, Response = Response, Error = Infallible> + Clone + Send,
{
    c.bench_function(&format!("hot/{name}, {threads} threads"), |bencher| {
        bencher.iter_custom(|rounds| {
            let start = Barrier::new(threads);
            let work = |mut service: S| {
                for _ in 0..100 {
                    assert_eq!(send(&mut service, authorization), 200);
                }
                start.wait();
                let begin = Instant::now();
                for _ in 0..rounds {
                    black_box(send(&mut service, authorization));
                }
                begin.elapsed()
            };
            let times: Vec<_> = thread::scope(|scope| {
                let services = (0..threads).map(|_| service.clone()).collect::<Vec<_>>();
                let work = &work;
                let threads: Vec<_> = services
                    .into_iter()
                    .map(|service| scope.spawn(move || work(service)))
                    .collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).collect()
            });
            times.into_iter().sum::<Duration>() / u32::try_from(threads).unwrap()
        });
    });
}

fn hot(c: &mut Criterion) {
    for (name, keys) in [("HS256", hs256()), ("RS256", rs256())] {
        let token = HeaderValue::try_from(format!("Bearer {}", keys.token(1))).unwrap();
        let cached = CachedVerifier::new(verifier(&keys));
        let cached = JwtRevocationLayer::new(cached, store()).layer(Inner);
        let plain = JwtRevocationLayer::new(verifier(&keys), store()).layer(Inner);
        let keys = Arc::new(keys);
        let by_hand = from_fn(move |mut request: Request, next: Next| {
            let keys = Arc::clone(&keys);
            async move {
                let header = request
                    .headers()
                    .get(header::AUTHORIZATION)
                    .and_then(|value| value.to_str().ok());
                let Some(token) = header.and_then(|value| value.strip_prefix("Bearer ")) else {
                    return StatusCode::UNAUTHORIZED.into_response();
                };
                let claims =
                    jsonwebtoken::decode::<Claims>(token, &keys.decoding, &keys.validation());
                let Ok(claims) = claims else { return StatusCode::UNAUTHORIZED.into_response() };
                request.extensions_mut().insert(Arc::new(claims.claims));
                next.run(request).await
            }
        })
        .layer(Inner);
        for threads in [1, 2] {
            line(c, &format!("{name}, bare"), &Inner, &token, threads);
            line(c, &format!("{name}, remembered"), &cached, &token, threads);
            line(c, &format!("{name}, not remembered"), &plain, &token, threads);
            line(
                c,
                &format!("{name}, axum from_fn and jsonwebtoken, no revocation"),
                &by_hand,
                &token,
                threads,
            );
        }
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .sample_size(30);
    targets = hot
}
criterion_main!(benches);
