//! When what was begun with a token has to end: responses that go on, sockets.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::time::{Instant, sleep, timeout};

use super::Gate;
use crate::mirror::chance;
use crate::policy::{Clearance, Rejection};
use crate::store::{RevokedBy, Standing, StoreError, StoreErrorKind};
use crate::verified::VerifiedToken;

/// How often the store is asked again: each is a check more for every open response, and a blind
/// store is noticed that much later.
const LEAST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// No store takes as long to answer.
const LONGEST_CHECK: Duration = Duration::from_secs(30);

impl Gate {
    /// Completes when a request with this token would be refused, with what it would be told: as it
    /// is over or revoked, or its tenant is not accepted any more. The signature is not checked
    /// again, so a withdrawn key does not end it; the revocation of the key does. If
    /// the store does not give an answer, that is only after `max_blind` without any: what has
    /// begun goes on while a connection is replaced.
    ///
    /// The store is watched, if it can tell by itself, and asked from time to time, whether it can
    /// tell or not. Nothing is counted: it is no request.
    pub(crate) async fn ended(
        self: Arc<Self>,
        clearance: Clearance,
        max_blind: Duration,
    ) -> Rejection {
        let token = Arc::clone(clearance.token());
        let mut watch = self.store.watch(&token).unwrap_or_else(|| pending::<RevokedBy>().boxed());
        let pause = (max_blind / 4).clamp(LEAST_PAUSE, LONGEST_PAUSE);
        let mut last_told = Instant::now();
        loop {
            if let Err(error) = self.verifier.profile().check_times(&token) {
                return told(error.into());
            }
            let left = self.verifier.profile().refused_from(&token);
            let left = left.saturating_duration_since(self.verifier.profile().now());
            // So that those who were there at the same moment do not ask at the same moment.
            let spread = pause.mul_f64(0.75 + chance() / 4.0);
            tokio::select! {
                biased;
                by = &mut watch => return told(Rejection::Revoked(by)),
                () = sleep(left.min(spread)) => {}
            }
            if left <= spread {
                continue;
            }
            let answer = tokio::select! {
                biased;
                by = &mut watch => return told(Rejection::Revoked(by)),
                answer = self.ask_again(&token, max_blind) => answer,
            };
            match clearance.decide_again(self.remembered(&token, answer)) {
                Ok(_) => last_told = Instant::now(),
                // Compared after the question: a timer that fires late does not end anything.
                Err(Rejection::StandingUnknown(_)) if last_told.elapsed() < max_blind => {}
                Err(rejection) => return told(rejection),
            }
        }
    }

    fn ask_again(
        &self,
        token: &Arc<VerifiedToken>,
        max_blind: Duration,
    ) -> BoxFuture<'static, Result<Standing, StoreError>> {
        let answer = self.store.check(token).answer();
        let limit = max_blind.clamp(LEAST_PAUSE, LONGEST_CHECK);
        async move {
            timeout(limit, answer).await.unwrap_or_else(|_| {
                Err(StoreError::new(StoreErrorKind::Timeout, "the store gives no answer"))
            })
        }
        .boxed()
    }
}

fn told(rejection: Rejection) -> Rejection {
    tracing::debug!(reason = ?rejection.kind(), why = %rejection,
        "what was begun with a token ends");
    rejection
}
