//! The contract of tower: only the instance that was polled ready is called, and back-pressure
//! passes through.

use std::future::{Ready, ready};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Request, Response};
use tower::{Layer as _, Service, ServiceExt as _};
use tower_jwt_revocation::JwtRevocationLayer;
use tower_jwt_revocation::store::StoreErrorKind;
use tower_jwt_revocation::store::scripted::ScriptedStore;
use tower_test::mock;

use crate::support::{WordVerifier, token, with_token};

/// Panics when it is called without having been polled ready. A clone is not ready, whatever the
/// original is.
#[derive(Debug, Default)]
struct Strict {
    is_ready: bool,
    clones: Arc<AtomicUsize>,
}

impl Clone for Strict {
    fn clone(&self) -> Self {
        self.clones.fetch_add(1, SeqCst);
        Self { is_ready: false, clones: Arc::clone(&self.clones) }
    }
}

impl Service<Request<String>> for Strict {
    type Response = Response<String>;
    type Error = &'static str;
    type Future = Ready<Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.is_ready = true;
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<String>) -> Self::Future {
        assert!(std::mem::take(&mut self.is_ready), "called without having been polled ready");
        ready(if request.body() == "fail" {
            Err("the inner service failed")
        } else {
            Ok(Response::default())
        })
    }
}

fn layer(store: &ScriptedStore) -> JwtRevocationLayer {
    JwtRevocationLayer::new(WordVerifier::default(), store.clone())
}

#[tokio::test]
async fn the_instance_that_was_polled_ready_is_the_one_that_is_called() {
    let store = ScriptedStore::new();
    let inner = Strict::default();
    let clones = Arc::clone(&inner.clones);
    let mut service = layer(&store).layer(inner);
    let request = || with_token(&token("alice", "1"));
    for _ in 0..2 {
        service.ready().await.unwrap().call(request()).await.unwrap();
    }
    assert_eq!(clones.load(SeqCst), 0, "a verdict at hand costs no clone");

    store.answer_later();
    for _ in 0..2 {
        service.ready().await.unwrap().call(request()).await.unwrap();
    }
    assert_eq!(clones.load(SeqCst), 2, "one clone to take the place of the one that waits");

    store.fail(StoreErrorKind::Timeout);
    service.ready().await.unwrap().call(request()).await.unwrap();
    assert_eq!(clones.load(SeqCst), 2);
}

#[tokio::test]
async fn a_refused_request_leaves_the_inner_service_ready() {
    let store = ScriptedStore::new();
    let mut service = layer(&store).layer(Strict::default());
    let response = service.ready().await.unwrap().call(with_token("junk")).await.unwrap();
    assert_eq!(response.status(), 401);
    assert!(service.get_ref().is_ready, "readiness that was not used is not lost");
}

#[tokio::test]
async fn the_error_of_the_inner_service_comes_through_unchanged() {
    let store = ScriptedStore::new();
    for late in [false, true] {
        if late {
            store.answer_later();
        }
        let mut request = with_token(&token("alice", "1"));
        *request.body_mut() = "fail".into();
        let error: &'static str =
            layer(&store).layer(Strict::default()).oneshot(request).await.unwrap_err();
        assert_eq!(error, "the inner service failed");
    }
}

#[tokio::test(start_paused = true)]
async fn back_pressure_passes_through() {
    let store = ScriptedStore::new();
    store.answer_later();
    let (inner, mut handle) = mock::pair::<Request<String>, Response<String>>();
    let mut service = mock::Spawn::new(layer(&store).layer(inner));
    handle.allow(0);
    assert!(service.poll_ready().is_pending());
    handle.allow(1);
    assert!(service.poll_ready().is_ready());

    let answer = tokio::spawn(service.call(with_token(&token("alice", "1"))));
    // The clock is paused: it jumps to the limit when nobody has anything left to do.
    let called = tokio::time::timeout(Duration::from_secs(1), handle.next_request()).await;
    let (request, respond) = called.unwrap().unwrap();
    assert!(request.headers().contains_key("authorization"));
    respond.send_response(Response::new("from within".into()));
    assert_eq!(answer.await.unwrap().unwrap().body(), "from within");
    handle.allow(0);
    assert!(service.poll_ready().is_pending());
}

#[tokio::test]
async fn a_request_that_is_refused_does_not_reach_the_inner_service() {
    let store = ScriptedStore::new();
    for late in [false, true] {
        store.fail(StoreErrorKind::Timeout);
        if late {
            store.fail_later(StoreErrorKind::Timeout);
        }
        let (inner, mut handle) = mock::pair::<Request<String>, Response<String>>();
        handle.allow(1);
        let answer =
            layer(&store).layer(inner).oneshot(with_token(&token("alice", "1"))).await.unwrap();
        assert_eq!(answer.status(), 503);
        assert!(
            handle.next_request().await.is_none(),
            "the inner service was dropped without a call"
        );
    }
}
