//! Tokens, stores and services for the tests.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::sync::Arc;
use std::task::{Context, Poll};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use http::{Request, Response};
use tower::Service;
use tower_jwt_revocation::clock::Timestamp;
use tower_jwt_revocation::revocation::{Record, Revocation};
use tower_jwt_revocation::store::{
    ListQuery, Lookup, Receipt, RecordPage, RevocationStore, StoreError, StoreErrorKind,
};
use tower_jwt_revocation::token::{SignedClaims, TokenError, TokenErrorKind, TokenVerifier};
use tower_jwt_revocation::{
    Clearance, JwtRevocationLayer, MemoryStore, Rejection, Target, TokenProfile, VerifiedToken,
};

/// A verifier whose tokens are signed by the word `good`, so that the tests need no cryptography.
#[derive(Clone, Default)]
pub(crate) struct WordVerifier(TokenProfile);

impl WordVerifier {
    pub(crate) fn of(profile: TokenProfile) -> Self {
        Self(profile)
    }
}

impl TokenVerifier for WordVerifier {
    fn verify(&self, token: &str) -> Result<Arc<VerifiedToken>, TokenError> {
        let claims = open(token)?;
        self.0.assert_verified(SignedClaims::new(&claims)).map(Arc::new)
    }

    fn verify_for_revocation(&self, token: &str) -> Result<Arc<VerifiedToken>, TokenError> {
        let claims = open(token)?;
        self.0.assert_verified_for_revocation(SignedClaims::new(&claims)).map(Arc::new)
    }

    fn profile(&self) -> &TokenProfile {
        &self.0
    }

    fn generation(&self) -> u64 {
        0
    }
}

fn open(token: &str) -> Result<Vec<u8>, TokenError> {
    let payload =
        token.strip_suffix(".good").ok_or(TokenError::new(TokenErrorKind::BadSignature, "no"))?;
    URL_SAFE_NO_PAD.decode(payload).map_err(|_| TokenError::new(TokenErrorKind::Malformed, "no"))
}

pub(crate) fn signed(claims: &serde_json::Value) -> String {
    format!("{}.good", URL_SAFE_NO_PAD.encode(claims.to_string()))
}

/// Claims of a token that was issued a moment ago: a cutoff that a test sets now covers it, also
/// when the next second begins between the two.
pub(crate) fn claims(subject: &str, id: &str) -> serde_json::Value {
    let iat = Timestamp::now().as_secs() - 5;
    serde_json::json!({ "sub": subject, "jti": id, "iat": iat, "exp": iat + 300, "role": "clerk" })
}

pub(crate) fn token(subject: &str, id: &str) -> String {
    signed(&claims(subject, id))
}

pub(crate) fn expired_token() -> String {
    let then = Timestamp::now().as_secs() - 7200;
    signed(&serde_json::json!({ "sub": "alice", "jti": "old", "iat": then, "exp": then + 300 }))
}

/// A layer of defaults over an empty memory store.
pub(crate) fn layer() -> JwtRevocationLayer {
    JwtRevocationLayer::new(WordVerifier::default(), MemoryStore::new())
}

/// A layer over a store that cannot be reached.
pub(crate) fn layer_without_store() -> JwtRevocationLayer {
    layer_that_fails(StoreErrorKind::Unreachable)
}

/// A layer over a store that fails.
pub(crate) fn layer_that_fails(kind: StoreErrorKind) -> JwtRevocationLayer {
    JwtRevocationLayer::new(WordVerifier::default(), DeadStore(kind))
}

pub(crate) fn request() -> Request<String> {
    Request::new(String::new())
}

pub(crate) fn with_token(token: &str) -> Request<String> {
    Request::builder()
        .header("authorization", format!("Bearer {token}"))
        .body(String::new())
        .unwrap()
}

/// The innermost service: says in its response what came through.
#[derive(Clone, Debug)]
pub(crate) struct Handler;

/// What the handler found in the request.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) clearance: Option<Clearance>,
    pub(crate) rejection: Option<Rejection>,
}

impl<B> Service<Request<B>> for Handler {
    type Response = Response<String>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let mut response = Response::new(String::from("handled"));
        response.extensions_mut().insert(Seen {
            clearance: request.extensions().get().cloned(),
            rejection: request.extensions().get().cloned(),
        });
        ready(Ok(response))
    }
}

pub(crate) fn seen<R>(response: &Response<R>) -> &Seen {
    response.extensions().get().unwrap_or_else(|| panic!("the request did not reach the handler"))
}

pub(crate) fn rejection<R>(response: &Response<R>) -> &Rejection {
    assert!(response.extensions().get::<Seen>().is_none(), "the request reached the handler");
    response.extensions().get().unwrap_or_else(|| panic!("the refusal does not say why"))
}

/// A store that fails at once and always, written as a user would.
#[derive(Debug)]
pub(crate) struct DeadStore(pub(crate) StoreErrorKind);

impl DeadStore {
    fn error(&self) -> StoreError {
        StoreError::new(self.0, "the store is dead")
    }

    fn fail<T: Send + 'static>(&self) -> BoxFuture<'static, Result<T, StoreError>> {
        ready(Err(self.error())).boxed()
    }
}

impl RevocationStore for DeadStore {
    fn check(&self, _: &Arc<VerifiedToken>) -> Lookup {
        Lookup::Now(Err(self.error()))
    }

    fn write(&self, _: Vec<Revocation>) -> BoxFuture<'static, Result<Vec<Receipt>, StoreError>> {
        self.fail()
    }

    fn find(&self, _: &Target) -> BoxFuture<'static, Result<Option<Record>, StoreError>> {
        self.fail()
    }

    fn list(&self, _: ListQuery) -> BoxFuture<'static, Result<RecordPage, StoreError>> {
        self.fail()
    }

    fn count(&self) -> BoxFuture<'static, Result<u64, StoreError>> {
        self.fail()
    }
}

/// A store around a store, written as a user would who knows only what every store must do: the
/// function answers checks.
pub(crate) struct Around<S, F>(pub(crate) S, pub(crate) F);

impl<S, F> RevocationStore for Around<S, F>
where
    S: RevocationStore,
    F: Fn(&S, &Arc<VerifiedToken>) -> Lookup + Send + Sync + 'static,
{
    fn check(&self, token: &Arc<VerifiedToken>) -> Lookup {
        self.1(&self.0, token)
    }

    fn write(
        &self,
        changes: Vec<Revocation>,
    ) -> BoxFuture<'static, Result<Vec<Receipt>, StoreError>> {
        self.0.write(changes)
    }

    fn find(&self, target: &Target) -> BoxFuture<'static, Result<Option<Record>, StoreError>> {
        self.0.find(target)
    }

    fn list(&self, query: ListQuery) -> BoxFuture<'static, Result<RecordPage, StoreError>> {
        self.0.list(query)
    }

    fn count(&self) -> BoxFuture<'static, Result<u64, StoreError>> {
        self.0.count()
    }
}

/// A store whose every answer has to be awaited.
pub(crate) fn late_store() -> impl RevocationStore {
    Around(MemoryStore::new(), |store: &MemoryStore, token: &Arc<VerifiedToken>| {
        let answer = store.check(token).answer().now_or_never().unwrap();
        Lookup::Later(tokio::task::yield_now().map(|()| answer).boxed())
    })
}
