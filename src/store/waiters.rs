//! Who waits for a token to be revoked, in stores that know at once what is written.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering, fence};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::revocation::Fingerprint;
use crate::verified::VerifiedToken;

/// Which waiters wait for which targets.
#[derive(Debug, Default)]
pub(crate) struct Waiters {
    count: AtomicUsize,
    targets: Mutex<Targets>,
}

/// The notifiers by their addresses, because most tokens have a target in common, such as their
/// issuer: one that leaves must not have to look for itself among all.
type Targets = HashMap<Fingerprint, HashMap<usize, Arc<Notify>>>;

impl Waiters {
    /// Wakes those that wait for these targets. To be called after what was written can be found.
    pub(crate) fn wake<'a>(&self, changed: impl Iterator<Item = &'a Fingerprint>) {
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

    /// What `find` finds of this token, once it finds something. It is asked now, and after each
    /// change of a target of the token.
    pub(crate) async fn first<T>(
        self: Arc<Self>,
        token: Arc<VerifiedToken>,
        find: impl Fn(&VerifiedToken) -> Option<T>,
    ) -> T {
        // Entered before the first look, so that nothing falls between the two.
        let waiter = Waiter::enter(self, token);
        loop {
            if let Some(found) = find(&waiter.token) {
                return found;
            }
            waiter.notify.notified().await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Targets> {
        self.targets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One that waits, entered under all targets of a token.
struct Waiter {
    waiters: Arc<Waiters>,
    token: Arc<VerifiedToken>,
    notify: Arc<Notify>,
}

impl Waiter {
    fn enter(waiters: Arc<Waiters>, token: Arc<VerifiedToken>) -> Self {
        let notify = Arc::new(Notify::new());
        let mut targets = waiters.lock();
        for target in token.targets() {
            targets
                .entry(*target.fingerprint())
                .or_default()
                .insert(Arc::as_ptr(&notify).addr(), Arc::clone(&notify));
        }
        waiters.count.fetch_add(1, Ordering::SeqCst);
        drop(targets);
        fence(Ordering::SeqCst);
        Self { waiters, token, notify }
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        let mut targets = self.waiters.lock();
        for target in self.token.targets() {
            if let Some(waiters) = targets.get_mut(target.fingerprint()) {
                waiters.remove(&Arc::as_ptr(&self.notify).addr());
                if waiters.is_empty() {
                    targets.remove(target.fingerprint());
                }
            }
        }
        self.waiters.count.fetch_sub(1, Ordering::SeqCst);
    }
}
