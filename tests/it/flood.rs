//! What clients can bring about by asking much, and what they cannot: to be let in unchecked.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures::FutureExt as _;
use futures::future::ready;
use http::StatusCode;
use tower::{Layer as _, ServiceExt as _};
use tower_jwt_revocation::policy::RejectionKind;
use tower_jwt_revocation::revocation::TargetKind;
use tower_jwt_revocation::store::{Lookup, RevocationStore as _, StoreError, StoreErrorKind};
use tower_jwt_revocation::{FailMode, JwtRevocationLayer, MemoryStore, Target, VerifiedToken};

use crate::support::{
    Around, Handler, WordVerifier, layer_that_fails, rejection, seen, token, with_token,
};

#[tokio::test]
async fn load_lets_nobody_in() {
    for mode in [FailMode::Open, FailMode::Closed] {
        let layer = layer_that_fails(StoreErrorKind::Overloaded).with_fail_mode(mode);
        let answer = layer.layer(Handler).oneshot(with_token(&token("alice", "1"))).await.unwrap();
        assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE, "{mode:?}");
        assert!(answer.headers().contains_key("retry-after"));
        let kind = RejectionKind::StandingUnknown(StoreErrorKind::Overloaded);
        assert_eq!(rejection(&answer).kind(), kind);
        assert_eq!(layer.counters().snapshot().admitted_unchecked, 0);
    }
}

#[tokio::test]
async fn what_was_revoked_a_moment_ago_is_not_admitted_because_the_store_fails() {
    for mode in [FailMode::Open, FailMode::Closed] {
        let is_broken = Arc::new(AtomicBool::new(false));
        let fails = Arc::clone(&is_broken);
        let breakable = move |memory: &MemoryStore, token: &Arc<VerifiedToken>| {
            if fails.load(Ordering::SeqCst) {
                let error = Err(StoreError::new(StoreErrorKind::Timeout, "frozen"));
                return Lookup::Later(ready(error).boxed());
            }
            memory.check(token)
        };
        let store = Around(MemoryStore::new(), breakable);
        let layer = JwtRevocationLayer::new(WordVerifier::default(), store).with_fail_mode(mode);
        // A clone, as for another router, knows the same.
        let service = layer.clone().layer(Handler);
        // Made once: one that is issued a second later is another token.
        let ask = async |token: &str| service.clone().oneshot(with_token(token)).await.unwrap();
        let tokens: Vec<_> =
            (0..50).map(|n| format!("t{n}")).map(|id| (token("alice", &id), id)).collect();
        let [(t0, _), (t1, _), ..] = tokens.as_slice() else { unreachable!() };
        let x = token("alice", "x");
        for (token, id) in &tokens {
            layer.revoker().revoke(Target::token(&**id)).await.unwrap();
            assert_eq!(ask(token).await.status(), StatusCode::UNAUTHORIZED);
        }
        is_broken.store(true, Ordering::SeqCst);
        for (token, id) in &tokens {
            let answer = ask(token).await;
            assert_eq!(answer.status(), StatusCode::UNAUTHORIZED, "{mode:?} {id}");
            assert_eq!(rejection(&answer).kind(), RejectionKind::Revoked(TargetKind::Token));
        }
        // Of all others nothing is known.
        match mode {
            FailMode::Open => {
                assert!(!seen(&ask(&x).await).clearance.as_ref().unwrap().is_checked());
            }
            _ => assert_eq!(ask(&x).await.status(), StatusCode::SERVICE_UNAVAILABLE),
        }
        assert_eq!(layer.counters().snapshot().store_errors(StoreErrorKind::Timeout), 51);

        is_broken.store(false, Ordering::SeqCst);
        layer.revoker().reinstate(Target::token("t0")).await.unwrap();
        assert!(seen(&ask(t0).await).clearance.as_ref().unwrap().is_checked());
        assert_eq!(ask(t1).await.status(), StatusCode::UNAUTHORIZED);
        is_broken.store(true, Ordering::SeqCst);
        let unknown = ask(t0).await;
        match mode {
            FailMode::Open => assert!(!seen(&unknown).clearance.as_ref().unwrap().is_checked()),
            _ => assert_eq!(unknown.status(), StatusCode::SERVICE_UNAVAILABLE),
        }
        assert_eq!(ask(t1).await.status(), StatusCode::UNAUTHORIZED);
    }
}

#[cfg(feature = "redis")]
mod on_redis {
    use std::time::Duration;

    use tower::util::BoxCloneSyncService;
    use tower_jwt_revocation::store::redis::RedisStoreBuilder;
    use tower_jwt_revocation::{Mirror, RedisStore};

    use super::*;
    use crate::servers::{RedisServer, redis_is_installed};

    type Answer = http::Response<String>;

    /// A layer that fails open, over Redis or a mirror of it, with the token `bad` revoked.
    struct Flooded {
        layer: JwtRevocationLayer,
        service: BoxCloneSyncService<http::Request<String>, Answer, std::convert::Infallible>,
        _server: RedisServer,
    }

    impl Flooded {
        async fn start(
            mirror: bool,
            build: impl FnOnce(RedisStoreBuilder) -> RedisStoreBuilder,
        ) -> Self {
            let server = RedisServer::start();
            // However busy this machine is, nothing here is late.
            let builder = RedisStore::builder().with_url(server.url());
            let builder = build(builder.with_check_timeout(Duration::from_secs(20)));
            let store = builder.connect().await.unwrap();
            let layer = if mirror {
                let mirror = Mirror::builder(store).start().unwrap();
                mirror.ready().await;
                JwtRevocationLayer::new(WordVerifier::default(), mirror)
            } else {
                JwtRevocationLayer::new(WordVerifier::default(), store)
            };
            let layer = layer.with_fail_mode(FailMode::Open);
            layer.revoker().revoke(Target::token("bad")).await.unwrap();
            let service = BoxCloneSyncService::new(layer.layer(Handler));
            Self { layer, service, _server: server }
        }

        fn ask(&self, token: String) -> tokio::task::JoinHandle<Answer> {
            let service = self.service.clone();
            tokio::spawn(async move { service.oneshot(with_token(&token)).await.unwrap() })
        }
    }

    fn is_checked(answer: &Answer) -> bool {
        answer.status() == StatusCode::OK && seen(answer).clearance.as_ref().unwrap().is_checked()
    }

    fn is_overloaded(answer: &Answer) -> bool {
        answer.status() == StatusCode::SERVICE_UNAVAILABLE
            && rejection(answer).kind()
                == RejectionKind::StandingUnknown(StoreErrorKind::Overloaded)
    }

    /// The attack: more connections than may be checked at once, all with one revoked token.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_flood_of_one_revoked_token_opens_nothing_and_refuses_no_other() {
        if !redis_is_installed() {
            return;
        }
        for mirror in [false, true] {
            let flooded = Flooded::start(mirror, |store| store).await;
            let ask = |id: &str| flooded.ask(token("alice", id));
            for round in 0..10 {
                let mut flood: Vec<_> = (0..1500).map(|_| ask("bad")).collect();
                let innocents: Vec<_> = (0..200).map(|n| ask(&format!("good {n}"))).collect();
                flood.extend((0..1500).map(|_| ask("bad")));
                for innocent in innocents {
                    assert!(is_checked(&innocent.await.unwrap()), "{mirror} round {round}");
                }
                for attacker in flood {
                    assert_eq!(attacker.await.unwrap().status(), StatusCode::UNAUTHORIZED);
                }
            }
            let counted = flooded.layer.counters().snapshot();
            assert_eq!((counted.admitted, counted.admitted_unchecked), (2000, 0));
            assert_eq!(counted.store_errors(StoreErrorKind::Overloaded), 0);
        }
    }

    /// Each token is good, and no other is the same: below the limit all are checked, above it some
    /// are refused, and none passes unchecked.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_flood_of_different_tokens_opens_nothing_and_below_the_limit_refuses_nobody() {
        const ALLOWED: usize = 100;
        if !redis_is_installed() {
            return;
        }
        for mirror in [false, true] {
            let flooded = Flooded::start(mirror, |store| store.with_max_in_flight(ALLOWED)).await;
            let ask = |id: String| flooded.ask(token("alice", &id));
            for round in 0..10 {
                let few: Vec<_> = (0..ALLOWED - 1).map(|n| ask(format!("{round} {n}"))).collect();
                let excluded = ask("bad".into());
                for innocent in few {
                    assert!(is_checked(&innocent.await.unwrap()), "{mirror} round {round}");
                }
                assert_eq!(excluded.await.unwrap().status(), StatusCode::UNAUTHORIZED);
            }
            for round in 0..5 {
                let many: Vec<_> =
                    (0..ALLOWED * 20).map(|n| ask(format!("many {round} {n}"))).collect();
                let excluded: Vec<_> = (0..20).map(|_| ask("bad".into())).collect();
                for innocent in many {
                    let answer = innocent.await.unwrap();
                    assert!(is_checked(&answer) || is_overloaded(&answer), "{answer:?}");
                }
                for excluded in excluded {
                    let answer = excluded.await.unwrap();
                    let is_refused = answer.status() == StatusCode::UNAUTHORIZED;
                    assert!(is_refused || is_overloaded(&answer), "{answer:?}");
                }
                // It is over as soon as they are.
                assert!(is_checked(&ask("somebody".into()).await.unwrap()));
            }
            assert_eq!(flooded.layer.counters().snapshot().admitted_unchecked, 0);
        }
    }

    /// What nobody has signed takes nothing from those who ask the store.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_flood_of_junk_refuses_no_other() {
        if !redis_is_installed() {
            return;
        }
        for mirror in [false, true] {
            let flooded = Flooded::start(mirror, |store| store.with_max_in_flight(1)).await;
            for round in 0..20 {
                let junk: Vec<_> = (0..500)
                    .map(|n| {
                        let good = token("alice", &format!("{round} {n}"));
                        flooded.ask(match n % 3 {
                            0 => format!("{round} {n}"),
                            1 => good.replace(".good", ".bad"),
                            _ => format!("%%{good}"),
                        })
                    })
                    .collect();
                let innocent = flooded.ask(token("alice", "innocent")).await.unwrap();
                assert!(is_checked(&innocent), "{mirror} round {round}");
                let excluded = flooded.ask(token("alice", "bad")).await.unwrap();
                assert_eq!(excluded.status(), StatusCode::UNAUTHORIZED);
                for junk in junk {
                    assert!(junk.await.unwrap().status().is_client_error());
                }
            }
            let counted = flooded.layer.counters().snapshot();
            assert_eq!((counted.admitted, counted.admitted_unchecked), (20, 0));
        }
    }
}
