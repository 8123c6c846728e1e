//! A verdict at hand costs no allocation besides the one entry in the extensions of the request.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use allocation_counter::measure;
use http::{Extensions, Request, Response};
use tower::{Layer as _, Service};
use tower_jwt_revocation::clock::{Clock, Timestamp};
use tower_jwt_revocation::middleware::JwtRevocation;
use tower_jwt_revocation::revocation::{Record, Revocation};
use tower_jwt_revocation::store::{
    ListQuery, Lookup, Receipt, RecordPage, RevocationStore, StoreError,
};
use tower_jwt_revocation::token::{SignedClaims, TokenError, TokenVerifier};
use tower_jwt_revocation::{
    CachedVerifier, Clearance, JwtRevocationLayer, MemoryStore, Target, TokenProfile, VerifiedToken,
};

/// A clock at whose time the tokens of these tests are good.
struct Stopped;

impl Clock for Stopped {
    fn now(&self) -> Timestamp {
        Timestamp::from_secs(1500)
    }
}

/// A verifier that has seen the token before.
struct Known(Arc<VerifiedToken>, TokenProfile);

impl Known {
    fn new() -> Self {
        let profile = TokenProfile::new().with_clock(Stopped);
        let claims = br#"{"jti":"1","sub":"alice","iat":1000,"exp":2000}"#;
        let token = profile.assert_verified(SignedClaims::new(claims)).unwrap();
        Self(Arc::new(token), profile)
    }
}

impl TokenVerifier for Known {
    fn verify(&self, _: &str) -> Result<Arc<VerifiedToken>, TokenError> {
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

/// A verifier that takes what stands between the points for verified claims.
struct Claimed(TokenProfile);

impl TokenVerifier for Claimed {
    fn verify(&self, token: &str) -> Result<Arc<VerifiedToken>, TokenError> {
        let claims = token.split('.').nth(1).unwrap();
        self.0.assert_verified(SignedClaims::new(claims.as_bytes())).map(Arc::new)
    }

    fn verify_for_revocation(&self, token: &str) -> Result<Arc<VerifiedToken>, TokenError> {
        self.verify(token)
    }

    fn profile(&self) -> &TokenProfile {
        &self.0
    }

    fn generation(&self) -> u64 {
        0
    }
}

/// A memory store whose answers are boxed.
struct Boxed(MemoryStore);

impl RevocationStore for Boxed {
    fn check(&self, token: &Arc<VerifiedToken>) -> Lookup {
        let Lookup::Now(answer) = self.0.check(token) else { unreachable!("memory knows at once") };
        Lookup::Later(Box::pin(ready(answer)))
    }

    fn write(
        &self,
        changes: Vec<Revocation>,
    ) -> futures::future::BoxFuture<'static, Result<Vec<Receipt>, StoreError>> {
        self.0.write(changes)
    }

    fn find(
        &self,
        target: &Target,
    ) -> futures::future::BoxFuture<'static, Result<Option<Record>, StoreError>> {
        self.0.find(target)
    }

    fn list(
        &self,
        query: ListQuery,
    ) -> futures::future::BoxFuture<'static, Result<RecordPage, StoreError>> {
        self.0.list(query)
    }

    fn count(&self) -> futures::future::BoxFuture<'static, Result<u64, StoreError>> {
        self.0.count()
    }
}

/// Answers with the clearance it got, which costs no allocation: it is moved out.
#[derive(Clone)]
struct Handler;

impl Service<Request<()>> for Handler {
    type Response = Response<Option<Clearance>>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<()>) -> Self::Future {
        ready(Ok(Response::new(request.extensions_mut().remove())))
    }
}

fn request() -> Request<()> {
    Request::builder().header("authorization", "Bearer abc.def.ghi").body(()).unwrap()
}

fn run(service: &mut JwtRevocation<Handler>, request: Request<()>) -> Response<Option<Clearance>> {
    let mut future = std::pin::pin!(service.call(request));
    match future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(Ok(response)) => response,
        Poll::Ready(Err(never)) => match never {},
        Poll::Pending => panic!("the answer was at hand"),
    }
}

/// Allocations of one admitted request, and of the entry in its extensions alone.
fn admitted(store: impl RevocationStore) -> (u64, u64) {
    let mut service = JwtRevocationLayer::new(Known::new(), store).layer(Handler);
    let clearance = run(&mut service, request()).into_body().unwrap();
    let request = request();
    let passing = measure(|| assert!(run(&mut service, request).body().is_some()));
    let entry = measure(|| {
        Extensions::new().insert(clearance);
    });
    (passing.count_total, entry.count_total)
}

#[test]
fn a_verdict_at_hand_costs_the_extension_and_nothing_else() {
    let (passing, entry) = admitted(MemoryStore::new());
    assert!(entry > 0, "the counter counts");
    assert_eq!(passing, entry);
}

#[test]
fn without_clearance_a_verdict_at_hand_costs_nothing() {
    let layer = JwtRevocationLayer::new(Known::new(), MemoryStore::new()).without_clearance();
    let mut service = layer.layer(Handler);
    assert!(run(&mut service, request()).body().is_none());
    let request = request();
    assert_eq!(measure(|| drop(run(&mut service, request))).count_total, 0);
}

#[test]
fn a_token_that_is_remembered_costs_nothing() {
    let verifier = CachedVerifier::new(Claimed(TokenProfile::new().with_clock(Stopped)));
    let token = r#"h.{"jti":"1","sub":"alice","iat":1000,"exp":2000}.s"#;
    let verify = || assert!(verifier.verify(token).is_ok());
    assert!(measure(verify).count_total > 0, "the counter counts");
    for _ in 0..100 {
        // Among the first uses is the one that makes the copy for this thread.
        verify();
    }
    assert_eq!(measure(verify).count_total, 0);
}

#[test]
fn a_verdict_to_wait_for_costs_the_box_of_the_store_and_nothing_else() {
    let (passing, entry) = admitted(Boxed(MemoryStore::new()));
    assert_eq!(passing, entry + 1);
}
