//! What the layer adds to a request that stays in this process: the bare inner service, refused
//! early, and admitted by a memory store. Compare the ratios inside one run; absolute figures are
//! those of the machine.
//!
//! `cargo bench --bench request`
#![allow(
    clippy::unwrap_used,
    missing_docs,
    reason = "a bench that cannot go on has failed; macros write the rest"
)]

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::hint::black_box;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use http::{HeaderValue, Request, Response, header};
use tower::{Layer as _, Service};
use tower_jwt_revocation::clock::Timestamp;
use tower_jwt_revocation::token::{SignedClaims, TokenError, TokenErrorKind, TokenVerifier};
use tower_jwt_revocation::{JwtRevocationLayer, MemoryStore, Target, TokenProfile, VerifiedToken};

/// How many revocations the store holds while a live token is looked up.
const REVOKED: usize = 100_000;

#[derive(Clone)]
struct Inner;

impl Service<Request<()>> for Inner {
    type Response = Response<()>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<()>) -> Self::Future {
        black_box(&request);
        ready(Ok(Response::new(())))
    }
}

/// What a cache of verified tokens comes to: the token is known, nothing is computed.
struct Known(Arc<VerifiedToken>, TokenProfile);

impl TokenVerifier for Known {
    fn verify(&self, token: &str) -> Result<Arc<VerifiedToken>, TokenError> {
        if token.len() < 10 {
            return Err(TokenError::new(TokenErrorKind::Malformed, "too short"));
        }
        Ok(Arc::clone(&self.0))
    }

    fn verify_for_revocation(&self, token: &str) -> Result<Arc<VerifiedToken>, TokenError> {
        self.verify(token)
    }

    fn profile(&self) -> &TokenProfile {
        &self.1
    }

    fn generation(&self) -> u64 {
        0
    }
}

fn claims() -> serde_json::Value {
    let now = Timestamp::now().as_secs();
    serde_json::json!({
        "iss": "https://id.example", "sub": "4fd9b2a0-8f0c-4a52-9d0c-3f4a7e1f9b11",
        "aud": ["orders", "billing"],
        "jti": "0c6f1c52-6c55-4f0e-8a57-9f6f6f1a7c11",
        "sid": "b2f1c7e2-0b8f-4c61-8bd3-9f7b9c6d2e10",
        "client_id": "web", "iat": now, "exp": now + 86_000, "scope": "orders:read \
         orders:write", "role": "clerk",
    })
}

fn known() -> Known {
    let profile = TokenProfile::new();
    let token =
        profile.assert_verified(SignedClaims::new(claims().to_string().as_bytes())).unwrap();
    Known(Arc::new(token), profile)
}

fn store() -> MemoryStore {
    let store = MemoryStore::new();
    let revoker = tower_jwt_revocation::Revoker::new(store.clone(), TokenProfile::new()).unwrap();
    let requests = (0..REVOKED).map(|id| revoker.revoke(Target::token(format!("revoked-{id}"))));
    futures::executor::block_on(revoker.revoke_many(requests)).unwrap();
    store
}

fn request(authorization: Option<&HeaderValue>) -> Request<()> {
    let mut request = Request::new(());
    request.headers_mut().insert(header::HOST, HeaderValue::from_static("api.example"));
    request.headers_mut().insert(header::ACCEPT, HeaderValue::from_static("*/*"));
    if let Some(value) = authorization {
        request.headers_mut().insert(header::AUTHORIZATION, value.clone());
    }
    request
}

fn run<S>(service: &mut S, request: Request<()>) -> Response<()>
where
    S: Service<Request<()>, Response = Response<()>, Error = Infallible>,
{
    let mut context = Context::from_waker(Waker::noop());
    assert!(service.poll_ready(&mut context).is_ready());
    let mut future = std::pin::pin!(service.call(request));
    match future.as_mut().poll(&mut context) {
        Poll::Ready(Ok(response)) => response,
        Poll::Ready(Err(never)) => match never {},
        Poll::Pending => unreachable!("everything is at hand"),
    }
}

/// One line of the comparison. The request is made outside of what is measured and freed inside, as
/// it is in a server.
fn line<S>(
    c: &mut Criterion,
    name: &str,
    mut service: S,
    authorization: Option<&str>,
    expected: u16,
) where
    S: Service<Request<()>, Response = Response<()>, Error = Infallible>,
{
    let authorization =
        authorization.map(|token| HeaderValue::try_from(format!("Bearer {token}")).unwrap());
    assert_eq!(run(&mut service, request(authorization.as_ref())).status(), expected);
    c.bench_function(&format!("request/{name}"), |bencher| {
        bencher.iter_batched(
            || request(authorization.as_ref()),
            |request| run(&mut service, request),
            BatchSize::SmallInput,
        );
    });
}

fn requests(c: &mut Criterion) {
    let token = "x".repeat(480);
    line(c, "bare", Inner, Some(&token), 200);

    let layer = JwtRevocationLayer::new(known(), store());
    line(c, "refused/no token", layer.layer(Inner), None, 401);
    line(c, "refused/malformed", layer.layer(Inner), Some("a b"), 400);
    line(c, "refused/junk", layer.layer(Inner), Some("junk"), 401);
    line(c, "live/known token, memory", layer.layer(Inner), Some(&token), 200);

    #[cfg(any(feature = "aws_lc_rs", feature = "rust_crypto"))]
    {
        use tower_jwt_revocation::{Algorithm, JwtVerifier, VerificationKey};

        let secret = b"a secret of at least thirty-two bytes";
        let key = VerificationKey::from_secret(Algorithm::HS256, secret).unwrap();
        let verifier = JwtVerifier::new([key], TokenProfile::new()).unwrap();
        let layer = JwtRevocationLayer::new(verifier, store());
        let token = jsonwebtoken::encode(
            &jsonwebtoken::Header::default(),
            &claims(),
            &jsonwebtoken::EncodingKey::from_secret(secret).unwrap(),
        )
        .unwrap();
        let (rest, _) = token.rsplit_once('.').unwrap();
        let forged = format!("{rest}.{}", "A".repeat(43));
        line(c, "refused/junk, HS256", layer.layer(Inner), Some("junk"), 401);
        line(c, "refused/forged, HS256", layer.layer(Inner), Some(&forged), 401);
        line(c, "live/first sight HS256, memory", layer.layer(Inner), Some(&token), 200);
    }
}

criterion_group!(benches, requests);
criterion_main!(benches);
