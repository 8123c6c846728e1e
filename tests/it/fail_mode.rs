//! What a store that gives no answer means.

use http::{Method, StatusCode};
use tower::{Layer as _, ServiceExt as _};
use tower_jwt_revocation::FailMode;
use tower_jwt_revocation::policy::RejectionKind;
use tower_jwt_revocation::store::StoreErrorKind;

use crate::support::{
    Handler, expired_token, layer_that_fails, layer_without_store, rejection, request, seen, token,
    with_token,
};

#[tokio::test]
async fn closed_is_the_default_and_refuses_with_503() {
    let layer = layer_without_store();
    let answer = layer.layer(Handler).oneshot(with_token(&token("alice", "1"))).await.unwrap();
    assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(answer.headers().get("www-authenticate").is_none(), "the token is not what is wrong");
    assert_eq!(
        rejection(&answer).kind(),
        RejectionKind::StandingUnknown(StoreErrorKind::Unreachable)
    );
    let counted = layer.counters().snapshot();
    assert_eq!((counted.refused.standing_unknown, counted.checks()), (1, 1));
    assert_eq!(counted.store_errors(StoreErrorKind::Unreachable), 1);
    assert_eq!(counted.store_errors(StoreErrorKind::Timeout), 0);
}

/// Waiting does not help, so the client must not be told to wait.
#[tokio::test]
async fn closed_refuses_with_401_what_can_never_be_checked_again() {
    let layer = layer_that_fails(StoreErrorKind::DataLoss);
    let answer = layer.layer(Handler).oneshot(with_token(&token("alice", "1"))).await.unwrap();
    assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
    assert!(answer.headers().get("retry-after").is_none());
    let challenge = answer.headers()["www-authenticate"].to_str().unwrap();
    assert!(challenge.contains(r#"error="invalid_token""#), "{challenge}");
    assert!(challenge.ends_with(r#"Sign in again""#), "{challenge}");
    assert_eq!(rejection(&answer).kind(), RejectionKind::InDoubt);
    let counted = layer.counters().snapshot();
    assert_eq!((counted.refused.in_doubt, counted.refused.standing_unknown), (1, 0));
    assert_eq!((counted.checks(), counted.store_errors(StoreErrorKind::DataLoss)), (1, 1));
}

#[tokio::test]
async fn open_admits_what_is_in_doubt_and_says_so_whether_it_lasts_or_not() {
    for kind in [StoreErrorKind::DataLoss, StoreErrorKind::Settling] {
        let layer = layer_that_fails(kind).with_fail_mode(FailMode::Open);
        let answer = layer.layer(Handler).oneshot(with_token(&token("alice", "1"))).await.unwrap();
        let clearance = seen(&answer).clearance.as_ref().unwrap();
        assert_eq!(clearance.unchecked_because().unwrap().kind(), kind);
        assert_eq!(layer.counters().snapshot().admitted_unchecked, 1);
    }
}

#[tokio::test]
async fn open_admits_and_says_so() {
    let layer = layer_without_store().with_fail_mode(FailMode::Open);
    let answer = layer.layer(Handler).oneshot(with_token(&token("alice", "1"))).await.unwrap();
    let clearance = seen(&answer).clearance.as_ref().unwrap();
    assert!(!clearance.is_checked());
    assert_eq!(clearance.unchecked_because().unwrap().kind(), StoreErrorKind::Unreachable);
    let counted = layer.counters().snapshot();
    assert_eq!((counted.admitted, counted.admitted_unchecked), (0, 1));
    assert_eq!(counted.store_errors(StoreErrorKind::Unreachable), 1);
}

#[tokio::test]
async fn open_is_about_the_store_only() {
    let service = layer_without_store().with_fail_mode(FailMode::Open).layer(Handler);
    for request in [request(), with_token("junk"), with_token(&expired_token()), with_token("a b")]
    {
        let answer = service.clone().oneshot(request).await.unwrap();
        rejection(&answer);
        assert!(answer.status().is_client_error());
    }
}

#[tokio::test]
async fn each_request_can_have_its_own() {
    let layer = layer_without_store().with_fail_mode_for(|head, _| {
        if head.method().is_safe() { FailMode::Open } else { FailMode::Closed }
    });
    let service = layer.layer(Handler);
    let read = with_token(&token("alice", "1"));
    let mut write = with_token(&token("alice", "1"));
    *write.method_mut() = Method::POST;
    assert_eq!(service.clone().oneshot(read).await.unwrap().status(), StatusCode::OK);
    assert_eq!(service.oneshot(write).await.unwrap().status(), StatusCode::SERVICE_UNAVAILABLE);
}

#[cfg(feature = "test-util")]
mod scripted {
    use tower_jwt_revocation::store::scripted::ScriptedStore;
    use tower_jwt_revocation::{JwtRevocationLayer, Target};

    use super::*;
    use crate::support::WordVerifier;

    #[tokio::test]
    async fn unverified_tokens_never_reach_the_store() {
        let store = ScriptedStore::new();
        let service =
            JwtRevocationLayer::new(WordVerifier::default(), store.clone()).layer(Handler);
        for request in
            [request(), with_token("junk"), with_token(&expired_token()), with_token("a b")]
        {
            service.clone().oneshot(request).await.unwrap();
        }
        assert_eq!(store.checks(), 0);
        service.oneshot(with_token(&token("alice", "1"))).await.unwrap();
        assert_eq!(store.checks(), 1);
    }

    #[tokio::test]
    async fn a_late_failure_is_a_failure_and_a_late_recovery_a_verdict() {
        let store = ScriptedStore::new();
        let layer = JwtRevocationLayer::new(WordVerifier::default(), store.clone());
        layer.revoker().revoke(Target::user("mallory")).await.unwrap();
        let service = layer.layer(Handler);

        store.fail_later(StoreErrorKind::Timeout);
        let answer = service.clone().oneshot(with_token(&token("alice", "1"))).await.unwrap();
        assert_eq!(
            rejection(&answer).kind(),
            RejectionKind::StandingUnknown(StoreErrorKind::Timeout)
        );

        store.hang();
        let mut waiting = tokio_test_task(service.oneshot(with_token(&token("mallory", "2"))));
        assert!(waiting.poll_once().await.is_none(), "nothing is decided while the store hangs");
        store.answer();
        let answer = waiting.finish().await.unwrap();
        assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
    }

    #[tokio::test]
    async fn giving_up_a_request_gives_up_its_check() {
        let store = ScriptedStore::new();
        store.hang();
        let layer = JwtRevocationLayer::new(WordVerifier::default(), store.clone());
        let service = layer.layer(Handler);
        let mut waiting = tokio_test_task(service.oneshot(with_token(&token("alice", "1"))));
        assert!(waiting.poll_once().await.is_none());
        drop(waiting);
        store.answer();
        assert_eq!(layer.counters().snapshot().checks(), 0);
    }

    /// A future that is polled by hand.
    struct Task<F: Future>(std::pin::Pin<Box<F>>);

    fn tokio_test_task<F: Future>(future: F) -> Task<F> {
        Task(Box::pin(future))
    }

    impl<F: Future> Task<F> {
        async fn poll_once(&mut self) -> Option<F::Output> {
            futures::future::poll_fn(|cx| match self.0.as_mut().poll(cx) {
                std::task::Poll::Ready(output) => std::task::Poll::Ready(Some(output)),
                std::task::Poll::Pending => std::task::Poll::Ready(None),
            })
            .await
        }

        async fn finish(self) -> F::Output {
            self.0.await
        }
    }
}
