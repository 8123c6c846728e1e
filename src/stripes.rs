//! Numbers that every core adds to: kept in stripes, so that a thread shares no cache line with the
//! others. Reading adds the stripes up.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

/// More stripes than this would cost memory and reading time for cores that few machines have.
const MAX_STRIPES: usize = 64;

/// One value for each stripe. Each is apart from the cache lines of all others (128: pairs of lines
/// are fetched together on x86, and lines are that long on some ARM).
pub(crate) struct Stripes<T>(Box<[Stripe<T>]>);

#[derive(Default)]
#[repr(align(128))]
struct Stripe<T>(T);

impl<T: Default> Stripes<T> {
    /// As many as there are cores, rounded up to a power of two.
    pub(crate) fn new() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let stripes = cores.next_power_of_two().min(MAX_STRIPES);
        Self((0..stripes).map(|_| Stripe::default()).collect())
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.0.iter().map(|Stripe(value)| value)
    }

    /// The stripe of this thread. Threads are dealt to the stripes in turn.
    #[inline]
    pub(crate) fn mine(&self) -> Option<&T> {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        thread_local! {
            static TURN: Cell<Option<usize>> = const { Cell::new(None) };
        }
        let turn = TURN.with(|turn| {
            turn.get().unwrap_or_else(|| {
                let mine = NEXT.fetch_add(1, Relaxed);
                turn.set(Some(mine));
                mine
            })
        });
        // The number of stripes is a power of two.
        self.0.get(turn & self.0.len().wrapping_sub(1)).map(|Stripe(value)| value)
    }
}

/// Numbers that only grow.
impl Stripes<AtomicU64> {
    #[inline]
    pub(crate) fn add_one(&self) {
        if let Some(mine) = self.mine() {
            mine.fetch_add(1, Relaxed);
        }
    }

    pub(crate) fn sum(&self) -> u64 {
        self.iter().map(|mine| mine.load(Relaxed)).sum()
    }
}
