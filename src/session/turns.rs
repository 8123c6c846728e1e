//! [`DocumentTurns`]: those of one process who change one document do it one after the other.
//!
//! A document is replaced only if it is still what was read, so of many who change it at once one
//! succeeds and all others have read in vain: what they cost together grows with the square of
//! their number. In turns each reads and writes once. Other processes are not known here; after a
//! conflict with one of them both wait for a while, see `calls`.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Mutex as TurnMutex, MutexGuard as TurnGuard};
use tokio::time::timeout;

use crate::revocation::{Fingerprint, Target};
use crate::store::{StoreError, StoreErrorKind};

/// How long a turn is waited for: a store that hangs must not keep a long line waiting for the sum
/// of all that hangs.
const MOST_WAIT: Duration = Duration::from_secs(10);

/// The documents that are being changed now. Clones share them.
#[derive(Clone, Default)]
pub(super) struct DocumentTurns(Arc<DocumentsInUse>);

// Hashed with a seed: whoever chooses ids could look for fingerprints that collide.
#[derive(Default)]
struct DocumentsInUse(Mutex<HashMap<Fingerprint, InUse>>);

#[derive(Default)]
struct InUse {
    /// How many will change it. Counted here and not by the references, which are dropped after the
    /// lock: of two who leave at once both would see the other.
    users: usize,
    changes: Arc<TurnMutex<u64>>,
}

/// One document, as one of those who will change it sees it.
pub(super) struct DocumentInUse {
    all: Arc<DocumentsInUse>,
    key: Fingerprint,
    /// How often the document may have been changed, as far as anybody waits for it.
    changes: Arc<TurnMutex<u64>>,
}

/// The right to change a document, until it is dropped.
pub(super) struct Turn<'a>(TurnGuard<'a, u64>);

impl DocumentTurns {
    pub(super) fn of(&self, key: &Target) -> DocumentInUse {
        let (all, key) = (Arc::clone(&self.0), key.fingerprint());
        let changes = {
            let mut all = all.lock();
            let used = all.entry(key).or_default();
            used.users += 1;
            Arc::clone(&used.changes)
        };
        DocumentInUse { all, key, changes }
    }
}

impl DocumentsInUse {
    // A panic while the lock is held cannot leave half a change.
    fn lock(&self) -> MutexGuard<'_, HashMap<Fingerprint, InUse>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl DocumentInUse {
    /// Waits until all who came before are done, or have given up.
    ///
    /// # Errors
    /// [`StoreErrorKind::Overloaded`] after ten seconds. Nothing was written.
    pub(super) async fn turn(&self) -> Result<Turn<'_>, StoreError> {
        timeout(MOST_WAIT, self.changes.lock()).await.map(Turn).map_err(|_| {
            StoreError::new(
                StoreErrorKind::Overloaded,
                "too many others change the same in this process; nothing was changed, the call \
                 may be repeated",
            )
        })
    }

    /// The number of changes so far, if nobody is changing it now.
    pub(super) fn changes(&self) -> Option<u64> {
        self.changes.try_lock().ok().map(|changes| *changes)
    }
}

impl Turn<'_> {
    /// Whether nobody has had a turn since there were so many changes.
    pub(super) fn is_first_since(&self, changes: Option<u64>) -> bool {
        changes == Some(*self.0)
    }

    /// To be called before each write: it may be done even if it is not confirmed.
    pub(super) fn note_change(&mut self) {
        *self.0 += 1;
    }
}

impl Drop for DocumentInUse {
    fn drop(&mut self) {
        let mut all = self.all.lock();
        let Some(used) = all.get_mut(&self.key) else { return };
        used.users -= 1;
        if used.users == 0 {
            all.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering::SeqCst;

    use super::*;

    fn user(name: &str) -> Target {
        Target::user(name)
    }

    #[tokio::test]
    async fn one_after_the_other_changes_a_document_and_different_ones_do_not_wait() {
        let turns = DocumentTurns::default();
        let (alice, bob) = (turns.of(&user("alice")), turns.clone().of(&user("bob")));
        let known = alice.changes();
        let mut first = alice.turn().await.unwrap();
        assert!(first.is_first_since(known));
        first.note_change();
        let other = turns.of(&user("alice"));
        assert_eq!(other.changes(), None);
        {
            let mut second = std::pin::pin!(other.turn());
            assert!(futures::poll!(second.as_mut()).is_pending());
            drop(bob.turn().await.unwrap());
            drop(first);
            let second = second.await.unwrap();
            assert!(!second.is_first_since(known) && !second.is_first_since(None));
        }
        assert_eq!(other.changes(), Some(1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_turn_is_not_waited_for_for_ever() {
        let turns = DocumentTurns::default();
        let (one, other) = (turns.of(&user("alice")), turns.of(&user("alice")));
        let _hangs = one.turn().await.unwrap();
        assert_eq!(other.turn().await.err().unwrap().kind(), StoreErrorKind::Overloaded);
    }

    #[tokio::test]
    async fn nothing_is_kept_of_documents_that_nobody_changes() {
        let turns = DocumentTurns::default();
        {
            let (one, other) = (turns.of(&user("alice")), turns.of(&user("alice")));
            drop(one);
            assert_eq!(turns.0.lock().len(), 1);
            let _turn = other.turn().await.unwrap();
        }
        assert!(turns.0.lock().is_empty());
    }

    /// Of two that leave at once, one takes the document with it.
    #[test]
    fn nothing_is_kept_of_documents_that_two_have_left_at_once() {
        let turns = DocumentTurns::default();
        let arrived = std::sync::atomic::AtomicUsize::new(0);
        let changing = || {
            for n in 0..20_000 {
                let document = turns.of(&user(&n.to_string()));
                // Both leave within nanoseconds, if there are two processors.
                arrived.fetch_add(1, SeqCst);
                let mut looked = 0;
                while arrived.load(SeqCst) < 2 * (n + 1) {
                    looked += 1;
                    if looked > 1000 { std::thread::yield_now() } else { std::hint::spin_loop() }
                }
                drop(document);
            }
        };
        std::thread::scope(|scope| {
            scope.spawn(changing);
            scope.spawn(changing);
        });
        assert_eq!(turns.0.lock().len(), 0);
    }
}
