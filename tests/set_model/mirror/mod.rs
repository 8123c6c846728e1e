//! The mirror, of which only the set is here.

pub(crate) mod models;
#[path = "../../../src/mirror/set/mod.rs"]
mod set;

/// In place of `src/mirror/sync.rs`.
mod sync {
    use std::hash::{BuildHasherDefault, DefaultHasher};
    use std::ops::Deref;
    use std::sync::Arc;

    /// No look-up depends on these: they count entries and bytes.
    pub(super) use std::sync::atomic::AtomicUsize;
    pub(super) use std::sync::{PoisonError, atomic::Ordering};

    pub(super) use loom::sync::atomic::{AtomicU8, AtomicU64};
    pub(super) use loom::sync::{Mutex, MutexGuard};

    /// Not by chance: a model has to do the same again and again.
    pub(super) type RandomState = BuildHasherDefault<DefaultHasher>;

    /// As much as arc-swap promises and no more: who loads a value sees what happened before it was
    /// stored. A lock around the value would also make the writer see what readers did, and one
    /// reader what another did.
    #[derive(Debug)]
    pub(super) struct ArcSwap<T> {
        newest: loom::sync::atomic::AtomicUsize,
        /// All that were ever stored. Nobody gives way to another thread while this is locked.
        values: std::sync::Mutex<Vec<Arc<T>>>,
    }

    impl<T> ArcSwap<T> {
        pub(super) fn from_pointee(value: T) -> Self {
            Self {
                newest: loom::sync::atomic::AtomicUsize::new(0),
                values: vec![Arc::new(value)].into(),
            }
        }

        pub(super) fn load(&self) -> Guard<Arc<T>> {
            Guard(self.load_full())
        }

        pub(super) fn load_full(&self) -> Arc<T> {
            let newest = self.newest.load(Ordering::Acquire);
            Arc::clone(&self.values.lock().unwrap()[newest])
        }

        pub(super) fn store(&self, value: Arc<T>) {
            let newest = {
                let mut values = self.values.lock().unwrap();
                values.push(value);
                values.len() - 1
            };
            self.newest.store(newest, Ordering::Release);
        }
    }

    #[derive(Debug)]
    pub(super) struct Guard<T>(T);

    impl<T> Deref for Guard<T> {
        type Target = T;

        fn deref(&self) -> &T {
            &self.0
        }
    }
}
