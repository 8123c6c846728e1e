//! Waiting until a token is revoked or has expired.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering, fence};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::sleep;

use super::Shared;
use crate::revocation::Fingerprint;
use crate::store::RevokedBy;
use crate::verified::VerifiedToken;

/// At the latest after this long the clock is looked at again: it may have been set, or the machine
/// may have slept.
const LOOK_AGAIN: Duration = Duration::from_secs(30);

/// Why a token has ended. Also the error of a response body that ended early, see
/// [`EndWithTokenLayer`](crate::middleware::EndWithTokenLayer).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EndReason {
    /// It was revoked.
    Revoked(RevokedBy),
    /// Its `exp` is reached.
    Expired,
}

impl fmt::Display for EndReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Revoked(_) => "the token of the request was revoked while it was answered",
            Self::Expired => "the token of the request expired while it was answered",
        })
    }
}

impl std::error::Error for EndReason {}

/// Which waiters wait for which targets.
#[derive(Debug, Default)]
pub(super) struct Waiters {
    count: AtomicUsize,
    targets: Mutex<Targets>,
}

/// The notifiers by their addresses, because most tokens have a target in common, such as their
/// issuer: one that leaves must not have to look for itself among all.
type Targets = HashMap<Fingerprint, HashMap<usize, Arc<Notify>>>;

impl Waiters {
    /// Wakes those that wait for these targets.
    pub(super) fn wake<'a>(&self, changed: impl Iterator<Item = &'a Fingerprint>) {
        // Either this sees the one that waits, or that sees what was written.
        fence(Ordering::SeqCst);
        if self.count.load(Ordering::SeqCst) == 0 {
            return;
        }
        let targets = self.lock();
        for fingerprint in changed {
            for notify in targets.get(fingerprint).into_iter().flat_map(HashMap::values) {
                notify.notify_one();
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Targets> {
        self.targets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One that waits, entered under all targets of a token.
struct Waiter {
    shared: Arc<Shared>,
    token: Arc<VerifiedToken>,
    notify: Arc<Notify>,
}

impl Waiter {
    fn enter(shared: Arc<Shared>, token: Arc<VerifiedToken>) -> Self {
        let notify = Arc::new(Notify::new());
        let mut targets = shared.waiters.lock();
        for target in token.targets() {
            targets
                .entry(*target.fingerprint())
                .or_default()
                .insert(Arc::as_ptr(&notify).addr(), Arc::clone(&notify));
        }
        shared.waiters.count.fetch_add(1, Ordering::SeqCst);
        drop(targets);
        fence(Ordering::SeqCst);
        Self { shared, token, notify }
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        let mut targets = self.shared.waiters.lock();
        for target in self.token.targets() {
            if let Some(waiters) = targets.get_mut(target.fingerprint()) {
                waiters.remove(&Arc::as_ptr(&self.notify).addr());
                if waiters.is_empty() {
                    targets.remove(target.fingerprint());
                }
            }
        }
        self.shared.waiters.count.fetch_sub(1, Ordering::SeqCst);
    }
}

pub(super) async fn ended(shared: Arc<Shared>, token: Arc<VerifiedToken>) -> EndReason {
    // Entered before the first look, so that nothing falls between the two.
    let waiter = Waiter::enter(shared, token);
    loop {
        if let Some(by) = waiter.shared.find_revoked(&waiter.token) {
            return EndReason::Revoked(by);
        }
        let left = waiter.token.expires_at().saturating_duration_since(waiter.shared.clock.now());
        if left.is_zero() {
            return EndReason::Expired;
        }
        tokio::select! {
            () = waiter.notify.notified() => {}
            () = sleep(left.min(LOOK_AGAIN)) => {}
        }
    }
}
