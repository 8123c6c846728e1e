//! [`RepeatedEvents`]: what clients can bring about again and again is told once in a while, with
//! how often it was.

use std::collections::HashMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
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
        let key = (kind, *target.fingerprint());
        let (is_new, is_swept) = {
            let mut tallies = lock(&self.tallies);
            let is_swept = std::mem::replace(&mut tallies.is_swept, true);
            (!tallies.add(key), is_swept)
        };
        if !is_swept {
            // Without the lock: a runtime that is ending drops the task at once, which takes it.
            let sweep = Sweep { tallies: Arc::clone(&self.tallies), has_ended: false };
            runtime.spawn(sweep.run(Arc::clone(&self.sink)));
        }
        if is_new {
            // Without the lock: the application adds facts to an event, and may take its time.
            let event = event();
            let is_first = lock(&self.tallies).insert(key, &event);
            if is_first {
                self.sink.record(&event);
            }
        }
    }
}

impl Tallies {
    /// Counts an event, unless it is to be told at once.
    fn add(&mut self, key: (AuditKind, Fingerprint)) -> bool {
        if let Some(tally) = self.by_token.get_mut(&key) {
            tally.add();
            return true;
        }
        let has_room = self.tokens.get(&key.0).is_none_or(|tokens| *tokens < MOST_TOKENS);
        if !has_room {
            self.add_other(key.0);
        }
        !has_room
    }

    /// Takes in an event that is to be told at once; counts it if others were faster.
    fn insert(&mut self, key: (AuditKind, Fingerprint), event: &AuditEvent) -> bool {
        if self.add(key) {
            return false;
        }
        *self.tokens.entry(key.0).or_default() += 1;
        self.by_token.insert(key, Tally::new(event.clone()));
        true
    }

    fn add_other(&mut self, kind: AuditKind) {
        let others = self.others.entry(kind).or_insert_with(|| {
            let event = AuditEvent::new(kind).with_reason(Some("of further tokens"));
            Tally::new(if kind.is_failure() { event.failed() } else { event })
        });
        others.add();
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

/// The task that tells what was counted. When it ends, for whatever reason, the next event begins
/// another.
struct Sweep {
    tallies: Arc<Mutex<Tallies>>,
    /// Whether it has said that it ends.
    has_ended: bool,
}

impl Sweep {
    /// Tells, until nothing has come for a window.
    async fn run(mut self, sink: Arc<dyn AuditSink>) {
        loop {
            sleep(WINDOW).await;
            let told = {
                let mut tallies = lock(&self.tallies);
                let told = tallies.take();
                if told.is_empty() && tallies.by_token.is_empty() {
                    // In the same step: what comes next must find that nobody tells it.
                    tallies.is_swept = false;
                    self.has_ended = true;
                    return;
                }
                told
            };
            for event in told {
                // A sink that panics loses this event, and no other.
                let told = catch_unwind(AssertUnwindSafe(|| sink.record(&event)));
                if told.is_err() {
                    tracing::error!(event = %event.kind(), "an audit sink has panicked");
                }
            }
        }
    }
}

impl Drop for Sweep {
    /// Its runtime may end before it, while the layer goes on in another one.
    fn drop(&mut self) {
        if !self.has_ended {
            lock(&self.tallies).is_swept = false;
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
    async fn a_sink_that_panics_loses_one_event_and_no_other() {
        struct Fragile(Kept);
        impl AuditSink for Fragile {
            fn record(&self, event: &AuditEvent) {
                let is_bad = event.count() > 1 && event.field("jti") == Some("t1");
                assert!(!is_bad, "as a sink may");
                self.0.record(event);
            }
        }
        let sink = Arc::new(Fragile(Kept::default()));
        let events = RepeatedEvents::new(sink.clone());
        let kind = AuditKind::RevokedRefused;
        let refuse = |n| {
            let token = token(n);
            events.record(kind, &token, || AuditEvent::of_token(kind, &token).failed());
        };
        for n in 0..20 {
            for _ in 0..3 {
                refuse(n);
            }
        }
        pass().await;
        let told = std::mem::take(&mut *sink.0.0.lock().unwrap());
        assert_eq!(told.len(), 20 + 19);
        // Nor is it the last that is told.
        pass().await;
        pass().await;
        refuse(2);
        refuse(2);
        pass().await;
        let told = std::mem::take(&mut *sink.0.0.lock().unwrap());
        assert_eq!(told.len(), 2);
    }

    /// Layers outlive the runtimes of threads that come and go.
    #[test]
    fn a_runtime_that_ends_does_not_keep_others_from_telling() {
        let kept = Arc::new(Kept::default());
        let events = RepeatedEvents::new(kept.clone());
        let kind = AuditKind::RevokedRefused;
        for _ in 0..2 {
            let mut builder = tokio::runtime::Builder::new_current_thread();
            let runtime = builder.enable_time().start_paused(true).build().unwrap();
            runtime.block_on(async {
                let token = token(1);
                events.record(kind, &token, || AuditEvent::of_token(kind, &token).failed());
            });
            assert!(lock(&events.tallies).is_swept);
            drop(runtime);
            assert!(!lock(&events.tallies).is_swept, "nobody would tell what comes next");
        }
    }

    /// What is still in flight when a process ends is audited too.
    #[test]
    fn a_runtime_that_has_ended_does_not_hold_up_who_records() {
        let (done, ended) = std::sync::mpsc::channel();
        // A thread of its own: it would wait for itself for ever.
        std::thread::spawn(move || {
            let kept = Arc::new(Kept::default());
            let events = RepeatedEvents::new(kept.clone());
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
            let runtime = runtime.unwrap();
            let handle = runtime.handle().clone();
            drop(runtime);
            let _entered = handle.enter();
            let (kind, token) = (AuditKind::RevokedRefused, token(1));
            for _ in 0..3 {
                events.record(kind, &token, || AuditEvent::of_token(kind, &token).failed());
            }
            let is_swept = lock(&events.tallies).is_swept;
            done.send((kept.0.lock().unwrap().len(), is_swept)).unwrap();
        });
        let ended = ended.recv_timeout(Duration::from_secs(60));
        assert_eq!(ended, Ok((1, false)), "the first is told, and another runtime can go on");
    }

    #[tokio::test(start_paused = true)]
    async fn the_facts_of_an_event_are_gathered_without_the_lock() {
        let kept = Arc::new(Kept::default());
        let events = RepeatedEvents::new(kept.clone());
        let kind = AuditKind::RevokedRefused;
        let (first, other) = (token(1), token(2));
        let of = |token| move || AuditEvent::of_token(kind, token).failed();
        events.record(kind, &first, || {
            assert!(events.tallies.try_lock().is_ok(), "others would wait for this one");
            // Another request, which ends first, and one more of this token.
            events.record(kind, &other, of(&other));
            events.record(kind, &first, of(&first));
            of(&first)()
        });
        let ids = |told: Vec<AuditEvent>| -> Vec<_> {
            told.iter()
                .map(|event| (event.field("jti").unwrap().to_owned(), event.count()))
                .collect()
        };
        let told = || ids(std::mem::take(&mut *kept.0.lock().unwrap()));
        assert_eq!(told(), [("t2".to_owned(), 1), ("t1".to_owned(), 1)]);
        pass().await;
        assert_eq!(told(), [("t1".to_owned(), 1)], "the one that came late was counted");
        // Whoever panics there takes nobody's place.
        let panics = catch_unwind(AssertUnwindSafe(|| {
            events.record(kind, &token(3), || panic!("as an application may"));
        }));
        assert!(panics.is_err() && !events.tallies.is_poisoned());
        assert_eq!(lock(&events.tallies).tokens.get(&kind), Some(&1), "that of t1");
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
