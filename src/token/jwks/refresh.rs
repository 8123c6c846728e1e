//! When to ask the provider again, and what to do until it answers.

use std::collections::BTreeSet;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::{ArcSwapOption, Guard};
use futures::FutureExt as _;
use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout};

use super::document::{FetchFailure, KeyOrigin, PublishedKeys};
use super::unknown::{FetchProgress, UnknownKids, Verdict};
use super::{JwksError, JwksErrorKind};
use crate::config::ConfigError;
use crate::error_chain::ErrorChain;
use crate::token::jwt::VerifierKeys;

/// Longest pause between two attempts while the provider is out of reach.
const MAX_BACKOFF: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug)]
pub(super) struct RefreshSchedule {
    pub(super) max_age: Duration,
    pub(super) cooldown: Duration,
    pub(super) grace: Duration,
    pub(super) timeout: Duration,
}

/// The keys of one fetch.
pub(super) struct FetchedKeys {
    pub(super) keys: VerifierKeys,
    /// The how-manieth fetch it was, from 1.
    number: u64,
    /// When the provider was asked for them: what it published later cannot be among them.
    pub(super) asked_at: Instant,
}

/// What the task and the [`RemoteKeys`](super::RemoteKeys) share.
pub(super) struct RefreshState {
    schedule: RefreshSchedule,
    current: ArcSwapOption<FetchedKeys>,
    /// Twice the number of changes, so that there is a number between each two of them.
    generation: AtomicU64,
    /// Whether the task is gone, so that the keys are not refreshed any more.
    is_task_gone: AtomicBool,
    /// Whether the last `RemoteKeys` was dropped, which is why the task ends.
    is_released: AtomicBool,
    fetch_requested: Notify,
    /// How many fetches have begun.
    begun: AtomicU64,
    unknown: UnknownKids,
    attempts: watch::Sender<Attempts>,
}

#[derive(Default)]
struct Attempts {
    count: u64,
    failures: u64,
    last_error: Option<JwksError>,
}

/// The task that fetches keys. It ends when this is dropped.
pub(super) struct RefreshTask {
    pub(super) state: Arc<RefreshState>,
    handle: JoinHandle<()>,
}

/// Notices that the task has ended without having been asked to: its runtime was shut down.
struct ShutdownNotice(Arc<RefreshState>);

// === impl RefreshSchedule ===

impl RefreshSchedule {
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        const DAY: Duration = Duration::from_secs(24 * 60 * 60);
        if self.cooldown < Duration::from_secs(1) {
            return Err(ConfigError::new(
                "cooldown",
                "is under 1 s; the provider would be flooded",
            ));
        }
        if self.max_age < self.cooldown || self.max_age > DAY {
            return Err(ConfigError::new(
                "max_age",
                "must be at least the cooldown and at most a day",
            ));
        }
        if self.grace < self.max_age || self.grace > 30 * DAY {
            return Err(ConfigError::new(
                "outage_grace",
                "must be at least the max age and at most 30 days",
            ));
        }
        if self.timeout.is_zero() || self.timeout > Duration::from_secs(60) {
            return Err(ConfigError::new("timeout", "must be over zero and at most 60 s"));
        }
        Ok(())
    }

    /// When keys are to be fetched anew, for which the provider gave this age. Up to a tenth
    /// sooner, by chance, so that processes that were started together do not ask together for
    /// ever.
    fn next(&self, max_age: Option<Duration>) -> Duration {
        let wanted = max_age.map_or(self.max_age, |age| age.min(self.max_age));
        let tenths_of_percent = u32::try_from(RandomState::new().hash_one(()) % 100).unwrap_or(0);
        wanted.saturating_sub(wanted / 1000 * tenths_of_percent).max(self.cooldown)
    }

    /// The pause after so many failures in a row.
    fn backoff(&self, failures: u32) -> Duration {
        let doubled = self.cooldown.saturating_mul(1 << failures.saturating_sub(1).min(16));
        doubled.min(MAX_BACKOFF.max(self.cooldown))
    }
}

// === impl RefreshState ===

impl RefreshState {
    pub(super) fn current(&self) -> Guard<Option<Arc<FetchedKeys>>> {
        self.current.load()
    }

    pub(super) fn is_in_grace(&self, fetched: &FetchedKeys) -> bool {
        fetched.asked_at.elapsed() <= self.schedule.grace
    }

    /// A token has given this name of a key, which is not among `fetched`: whether there is no such
    /// key, as well as it can be known. Where a fetch can tell, one is asked for.
    pub(super) fn is_absent(&self, kid: &str, fetched: Option<&FetchedKeys>) -> bool {
        let progress = self.progress(fetched);
        let verdict = self.unknown.see(kid, progress, self.schedule.cooldown, Instant::now());
        let (Verdict::Waiting { asks_for_fetch } | Verdict::Absent { asks_for_fetch }) = verdict;
        if asks_for_fetch {
            self.request_fetch();
        }
        matches!(verdict, Verdict::Absent { .. })
    }

    /// Asks for a fetch, as soon as one is due again.
    pub(super) fn request_fetch(&self) {
        self.fetch_requested.notify_one();
    }

    fn progress(&self, fetched: Option<&FetchedKeys>) -> FetchProgress {
        // It counts before the provider is asked: who does not see a fetch here has seen the token
        // before the provider was asked.
        let begun = self.begun.load(Ordering::SeqCst);
        FetchProgress { begun, done: fetched.map(|fetched| (fetched.number, fetched.asked_at)) }
    }

    pub(super) fn generation(&self) -> u64 {
        let generation = self.generation.load(Ordering::Acquire);
        // The task takes old keys out of use. Without it, the clock must be asked.
        let is_over = self.is_task_gone.load(Ordering::Relaxed)
            && self.current().as_ref().is_some_and(|fetched| !self.is_in_grace(fetched));
        generation + u64::from(is_over)
    }

    pub(super) fn last_error(&self) -> Option<JwksError> {
        self.attempts.borrow().last_error.clone()
    }

    /// How many attempts have been made, and how many of them have failed.
    pub(super) fn fetches(&self) -> (u64, u64) {
        let attempts = self.attempts.borrow();
        (attempts.count, attempts.failures)
    }

    /// How many attempts have been made.
    pub(super) fn attempts(&self) -> u64 {
        self.attempts.borrow().count
    }

    /// Waits until more than this many attempts have been made, and gives the outcome of the last
    /// one.
    pub(super) async fn attempt_after(&self, count: u64) -> Result<(), JwksError> {
        let mut attempts = self.attempts.subscribe();
        let made = attempts.wait_for(|attempts| attempts.count > count).await;
        // `Err` is impossible: the sender is in `self`.
        made.ok().and_then(|attempts| attempts.last_error.clone()).map_or(Ok(()), Err)
    }

    fn replace(&self, fetched: Option<FetchedKeys>) {
        let fetched = fetched.map(Arc::new);
        let old = self.current();
        let (old, new) = (old.as_ref(), fetched.as_ref());
        let is_published = |kid: &str| new.is_some_and(|new| new.keys.has_id(kid));
        if let (Some(old), Some(_)) = (old, new) {
            let ids = old.keys.ids();
            let withdrawn = ids.iter().map(|kid| &**kid).filter(|kid| !is_published(kid));
            // Before they are out of use: nobody then takes them for names that were never seen.
            let progress = self.progress(new.map(|new| &**new));
            self.unknown.withdraw(withdrawn, progress, Instant::now());
        }
        self.current.store(fetched.clone());
        let (old, new) = (old.map(|fetched| &fetched.keys), new.map(|fetched| &fetched.keys));
        let is_same = match (old, new) {
            (Some(old), Some(new)) => old.is_same(new),
            (None, None) => true,
            _ => false,
        };
        if !is_same {
            // After the new keys are in force: a reader that sees the new number gets the new keys.
            self.generation.fetch_add(2, Ordering::Release);
            tracing::info!(keys = ?new.map(VerifierKeys::ids).unwrap_or_default(), "the keys of \
                the identity provider changed");
            if let Some([one, other]) = new.and_then(VerifierKeys::names_of_one_key) {
                tracing::warn!(
                    "the identity provider publishes one key as {one} and as {other}: \
                    to revoke it, revoke it under each of its names"
                );
            }
        }
    }

    /// The provider has given a set in which no key can be used. It has withdrawn all the same what
    /// is not in it.
    fn withdraw_unlisted(&self, listed: &BTreeSet<Option<Box<str>>>) {
        let left = self.current().as_ref().and_then(|current| {
            let (number, asked_at) = (current.number, current.asked_at);
            Some(FetchedKeys { keys: current.keys.among(listed)?, number, asked_at })
        });
        self.replace(left);
    }

    fn record(&self, error: Option<JwksError>) {
        self.attempts.send_modify(|attempts| {
            match (&attempts.last_error, &error) {
                (None, Some(error)) => {
                    tracing::warn!(error = %ErrorChain(error),
                        "the keys of the identity provider cannot be fetched; the last ones stay \
                        in use for a while");
                }
                (Some(_), None) => {
                    tracing::info!("the keys of the identity provider can be fetched again");
                }
                _ => {}
            }
            attempts.count += 1;
            attempts.failures += u64::from(error.is_some());
            attempts.last_error = error;
        });
    }
}

// === impl RefreshTask ===

impl RefreshTask {
    pub(super) fn spawn(runtime: &Handle, schedule: RefreshSchedule, origin: KeyOrigin) -> Self {
        let state = Arc::new(RefreshState {
            schedule,
            current: ArcSwapOption::empty(),
            generation: AtomicU64::new(0),
            is_task_gone: AtomicBool::new(false),
            is_released: AtomicBool::new(false),
            fetch_requested: Notify::new(),
            begun: AtomicU64::new(0),
            unknown: UnknownKids::default(),
            attempts: watch::Sender::new(Attempts::default()),
        });
        let notice = ShutdownNotice(Arc::clone(&state));
        let handle = runtime.spawn(async move { keep_current(&notice.0, &origin).await });
        Self { state, handle }
    }
}

impl Drop for RefreshTask {
    fn drop(&mut self) {
        self.state.is_released.store(true, Ordering::Relaxed);
        self.handle.abort();
    }
}

impl Drop for ShutdownNotice {
    fn drop(&mut self) {
        if self.0.is_released.load(Ordering::Relaxed) {
            return;
        }
        self.0.is_task_gone.store(true, Ordering::Relaxed);
        tracing::error!(
            "the keys of the identity provider are no longer refreshed: their Tokio runtime was \
             shut down"
        );
        self.0.record(Some(JwksError::new(
            JwksErrorKind::Unreachable,
            "the Tokio runtime of the keys was shut down",
        )));
    }
}

/// Fetches, waits, and fetches again. One fetch at a time, because there is one loop.
async fn keep_current(state: &RefreshState, origin: &KeyOrigin) {
    let schedule = state.schedule;
    let mut failures = 0;
    loop {
        // Whoever asked until now asked for this fetch.
        let _ = state.fetch_requested.notified().now_or_never();
        let number = state.begun.fetch_add(1, Ordering::SeqCst) + 1;
        let asked_at = Instant::now();
        // The client may be one of the program. It must not end the only task there is.
        let fetch = AssertUnwindSafe(origin.fetch()).catch_unwind();
        let fetched = match timeout(schedule.timeout, fetch).await {
            Ok(Ok(fetched)) => fetched,
            Ok(Err(_)) => {
                let detail = "the client that asks the provider has panicked";
                Err(JwksError::new(JwksErrorKind::Unreachable, detail).into())
            }
            Err(_) => {
                let limit = schedule.timeout;
                let detail = format!("the provider did not answer completely within {limit:?}");
                Err(JwksError::new(JwksErrorKind::Timeout, detail).into())
            }
        };
        let (earliest, due) = match fetched {
            Ok(PublishedKeys { keys, max_age }) => {
                failures = 0;
                state.replace(Some(FetchedKeys { keys, number, asked_at }));
                state.record(None);
                (schedule.cooldown, schedule.next(max_age))
            }
            Err(FetchFailure { error, listed }) => {
                failures += 1;
                if let Some(listed) = listed {
                    state.withdraw_unlisted(&listed);
                }
                state.record(Some(error));
                (schedule.backoff(failures), schedule.backoff(failures))
            }
        };
        // Whatever tokens ask for has to wait for the pause; what was asked meanwhile is not
        // forgotten.
        pause(state, asked_at + earliest).await;
        tokio::select! {
            () = sleep_until(asked_at + due) => {}
            () = state.fetch_requested.notified() => {}
        }
    }
}

/// Waits, and takes keys out of use when their grace is over.
async fn pause(state: &RefreshState, until: Instant) {
    let grace_ends =
        state.current().as_ref().map(|fetched| fetched.asked_at + state.schedule.grace);
    if let Some(end) = grace_ends.filter(|end| *end < until) {
        sleep_until(end + Duration::from_millis(1)).await;
        state.replace(None);
    }
    sleep_until(until).await;
}
