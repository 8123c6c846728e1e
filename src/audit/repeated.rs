//! [`RepeatedEvents`]: what clients can bring about again and again is told once in a while, with
//! how often it was.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::sleep;

use super::{AuditEvent, AuditKind, AuditSink};
use crate::clock::{Clock as _, SystemClock, Timestamp};
use crate::revocation::Fingerprint;
use crate::verified::VerifiedToken;

/// How often the same is told.
const WINDOW: Duration = Duration::from_secs(10);

/// Of so many tokens at most the events are told apart within a window, for each kind. A sink that
/// is slow must have room for revocations and logins left.
const MOST_TOKENS: usize = 256;

/// Tells the first event of a kind and a token at once, and those that come within the next ten
/// seconds as one, with their number.
pub(crate) struct RepeatedEvents {
    sink: Arc<dyn AuditSink>,
    tallies: Arc<Mutex<Tallies>>,
}

#[derive(Default)]
struct Tallies {
    by_token: HashMap<(AuditKind, Fingerprint), Tally>,
    /// How many tokens of a kind there are above.
    tokens: HashMap<AuditKind, usize>,
    /// Of tokens that found no place.
    others: HashMap<AuditKind, Tally>,
    /// Whether there is a task that tells what was counted.
    is_swept: bool,
}

/// What was not told yet.
struct Tally {
    event: AuditEvent,
    count: u64,
    since: Timestamp,
}

impl RepeatedEvents {
    pub(crate) fn new(sink: Arc<dyn AuditSink>) -> Self {
        Self { sink, tallies: Arc::default() }
    }

    /// Records an event about this token, or counts it.
    pub(crate) fn record(
        &self,
        kind: AuditKind,
        token: &VerifiedToken,
        event: impl FnOnce() -> AuditEvent,
    ) {
        // Without a runtime nobody would ever tell the rest.
        let (Ok(runtime), Some(target)) = (Handle::try_current(), token.targets().first()) else {
            return self.sink.record(&event());
        };
        let mut tallies = lock(&self.tallies);
        let first = tallies.count((kind, *target.fingerprint()), event);
        if !tallies.is_swept {
            tallies.is_swept = true;
            runtime.spawn(sweep(Arc::clone(&self.sink), Arc::clone(&self.tallies)));
        }
        drop(tallies);
        if let Some(first) = first {
            self.sink.record(&first);
        }
    }
}

impl Tallies {
    /// The event, if it is to be told at once.
    fn count(
        &mut self,
        key: (AuditKind, Fingerprint),
        event: impl FnOnce() -> AuditEvent,
    ) -> Option<AuditEvent> {
        if let Some(tally) = self.by_token.get_mut(&key) {
            tally.add();
            return None;
        }
        let tokens = self.tokens.entry(key.0).or_default();
        if *tokens < MOST_TOKENS {
            *tokens += 1;
            let event = event();
            self.by_token.insert(key, Tally::new(event.clone()));
            return Some(event);
        }
        let others = self.others.entry(key.0).or_insert_with(|| {
            let event = AuditEvent::new(key.0).with_reason(Some("of further tokens"));
            Tally::new(if key.0.is_failure() { event.failed() } else { event })
        });
        others.add();
        None
    }

    /// What was counted, and forgets what has not come again.
    fn take(&mut self) -> Vec<AuditEvent> {
        let mut told = Vec::new();
        let tokens = &mut self.tokens;
        self.by_token.retain(|(kind, _), tally| {
            let event = tally.take();
            if event.is_none()
                && let Some(tokens) = tokens.get_mut(kind)
            {
                *tokens = tokens.saturating_sub(1);
            }
            let is_kept = event.is_some();
            told.extend(event);
            is_kept
        });
        told.extend(self.others.drain().filter_map(|(_, mut tally)| tally.take()));
        told
    }
}

impl Tally {
    fn new(event: AuditEvent) -> Self {
        Self { event, count: 0, since: Timestamp::ZERO }
    }

    fn add(&mut self) {
        if self.count == 0 {
            self.since = SystemClock.now();
        }
        self.count += 1;
    }

    fn take(&mut self) -> Option<AuditEvent> {
        let count = std::mem::take(&mut self.count);
        (count > 0).then(|| self.event.clone().repeated(count, self.since))
    }
}

/// The task: tells what was counted, until nothing has come for a window.
async fn sweep(sink: Arc<dyn AuditSink>, tallies: Arc<Mutex<Tallies>>) {
    loop {
        sleep(WINDOW).await;
        let told = {
            let mut tallies = lock(&tallies);
            let told = tallies.take();
            tallies.is_swept = !tallies.by_token.is_empty();
            if !tallies.is_swept && told.is_empty() {
                return;
            }
            tallies.is_swept = true;
            told
        };
        for event in told {
            sink.record(&event);
        }
    }
}

// A panic while the lock is held cannot leave half a change.
fn lock(tallies: &Mutex<Tallies>) -> MutexGuard<'_, Tallies> {
    tallies.lock().unwrap_or_else(PoisonError::into_inner)
}

impl fmt::Debug for RepeatedEvents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RepeatedEvents").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;
    use crate::token::TokenProfile;
    use crate::token::profile::SignedClaims;

    #[derive(Default)]
    struct Kept(Mutex<Vec<AuditEvent>>);

    impl AuditSink for Kept {
        fn record(&self, event: &AuditEvent) {
            self.0.lock().unwrap().push(event.clone());
        }
    }

    fn token(n: usize) -> VerifiedToken {
        let claims = format!(r#"{{"jti":"t{n}","iat":1000,"exp":2000}}"#);
        TokenProfile::new()
            .assert_verified_for_revocation(SignedClaims::new(claims.as_bytes()))
            .unwrap()
    }

    /// Waits until a window is over.
    async fn pass() {
        for _ in 0..110 {
            advance(Duration::from_millis(100)).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_is_told_at_once_and_the_next_are_counted() {
        let kept = Arc::new(Kept::default());
        let events = RepeatedEvents::new(kept.clone());
        let kind = AuditKind::RevokedRefused;
        let refuse = |n| {
            let token = token(n);
            events.record(kind, &token, || AuditEvent::of_token(kind, &token).failed());
        };
        let told = || std::mem::take(&mut *kept.0.lock().unwrap());
        for _ in 0..1000 {
            refuse(1);
        }
        refuse(2);
        let first: Vec<_> =
            told().iter().map(|event| event.field("jti").unwrap().to_owned()).collect();
        assert_eq!(first, ["t1", "t2"]);
        pass().await;
        let [rest] = told().try_into().unwrap();
        assert_eq!((rest.count(), rest.field("jti"), rest.is_failed()), (999, Some("t1"), true));
        let json = serde_json::to_value(&rest).unwrap();
        assert_eq!(json["count"], 999);
        assert!(json["since"].as_str().unwrap() <= json["ts"].as_str().unwrap());
        pass().await;
        assert!(told().is_empty(), "nothing came");
        refuse(1);
        assert_eq!(told().len(), 1, "told at once again");
    }

    #[tokio::test(start_paused = true)]
    async fn of_many_tokens_some_are_named_and_all_are_counted() {
        let kept = Arc::new(Kept::default());
        let events = RepeatedEvents::new(kept.clone());
        for kind in [AuditKind::RevokedRefused, AuditKind::UncheckedAdmit] {
            for n in 0..MOST_TOKENS + 50 {
                let token = token(n);
                events.record(kind, &token, || AuditEvent::of_token(kind, &token));
            }
            pass().await;
            let told = std::mem::take(&mut *kept.0.lock().unwrap());
            assert_eq!(told.len(), MOST_TOKENS + 1);
            let rest = told.last().unwrap();
            assert_eq!((rest.count(), rest.field("jti")), (50, None));
            assert_eq!(rest.is_failed(), kind == AuditKind::RevokedRefused);
            assert_eq!(told.iter().map(AuditEvent::count).sum::<u64>(), MOST_TOKENS as u64 + 50);
        }
        // When a window has passed without any, nothing is left of it, not even the task.
        pass().await;
        pass().await;
        let tallies = lock(&events.tallies);
        assert!(tallies.by_token.is_empty() && !tallies.is_swept);
        assert!(tallies.tokens.values().all(|tokens| *tokens == 0));
    }
}
