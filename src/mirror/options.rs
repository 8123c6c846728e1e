//! What can be set: [`MirrorBuilder`].

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime;
use tokio::sync::watch;

use super::fresh::Freshness;
use super::{Handle, Mirror, Shared, follow, sweep};
use crate::clock::{Clock, CoarseClock};
use crate::config::ConfigError;
use crate::store::RevocationStore;
use crate::store::feed::Feed;

/// Default of [`MirrorBuilder::with_max_staleness`].
pub(crate) const DEFAULT_MAX_STALENESS: Duration = Duration::from_secs(1);
/// Default of [`MirrorBuilder::with_replayable`]: the mirror never takes more than it would for a
/// million without.
pub(crate) const DEFAULT_REPLAYABLE: usize = 500_000;
/// Default of [`MirrorBuilder::with_recent`].
pub(crate) const DEFAULT_RECENT: usize = 16_384;

/// Longest name, in characters.
const MAX_NAME: usize = 128;

/// Options of a [`Mirror`], made by [`Mirror::builder`].
#[must_use = "nothing is mirrored until `start` is called"]
pub struct MirrorBuilder<F> {
    name: Arc<str>,
    store: Arc<dyn RevocationStore>,
    feeds: Result<Vec<F>, ConfigError>,
    max_staleness: Duration,
    replayable: usize,
    recent: usize,
    clock: Arc<dyn Clock>,
}

impl<F: Feed> MirrorBuilder<F> {
    pub(super) fn new(store: Arc<dyn RevocationStore>, feeds: Result<Vec<F>, ConfigError>) -> Self {
        Self {
            name: default_name(),
            store,
            feeds,
            max_staleness: DEFAULT_MAX_STALENESS,
            replayable: DEFAULT_REPLAYABLE,
            recent: DEFAULT_RECENT,
            clock: Arc::new(CoarseClock),
        }
    }

    /// The name of this mirror, for people. The store keeps it, and
    /// [`ConfirmError::Behind`](crate::revoker::ConfirmError::Behind) has it if the mirror is late.
    /// It is cut to 128 characters and need not be unique. Default: the name of the host and the id
    /// of the process.
    pub fn with_name(mut self, name: impl AsRef<str>) -> Self {
        let printable = |char: char| if char.is_control() { '?' } else { char };
        self.name = name.as_ref().chars().take(MAX_NAME).map(printable).collect::<String>().into();
        self
    }

    /// How far the mirror may be behind and still answer from memory: 50 ms to an hour, default 1
    /// s. It asks for a heartbeat four times as often, so a shorter time costs more of them.
    ///
    /// # Security
    /// If the log is delayed, a token may be accepted for this long after its revocation was
    /// confirmed to another process. Usually it is less than a millisecond.
    pub fn with_max_staleness(mut self, max_staleness: Duration) -> Self {
        self.max_staleness = max_staleness;
        self
    }

    /// Up to how many revocations the mirror keeps whole fingerprints; default 500 000, at eleven
    /// bytes each. It can then replay all of them to a store that has lost its data, and end the
    /// doubt about older tokens. If there are more, it replays only the latest
    /// ([`with_recent`](Self::with_recent)) and those with a cutoff or a reinstatement, and the
    /// doubt stays.
    pub fn with_replayable(mut self, revocations: usize) -> Self {
        self.replayable = revocations;
        self
    }

    /// How many facts the mirror keeps with all their times; default 16 384, at about 100 bytes
    /// each. These are the latest, and as many others as fit.
    pub fn with_recent(mut self, facts: usize) -> Self {
        self.recent = facts;
        self
    }

    /// The clock of this machine. It shows that the machine has slept, and which records are over.
    /// Default: that of the operating system.
    pub fn with_clock(mut self, clock: impl Clock) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// Starts the mirror in tasks of the current Tokio runtime, and returns at once.
    ///
    /// # Errors
    /// [`ConfigError`] if a setting cannot work, if the store is set up
    /// in a way that cannot be mirrored, or outside a runtime.
    pub fn start(self) -> Result<Mirror, ConfigError> {
        let feeds = self.feeds?;
        if self.max_staleness < Duration::from_millis(50) {
            return Err(ConfigError::new(
                "max_staleness",
                "is less than 50 ms, in which no proof can be renewed; check without a mirror \
                 instead",
            ));
        }
        if self.max_staleness > Duration::from_secs(60 * 60) {
            return Err(ConfigError::new("max_staleness", "is over an hour, which is no limit"));
        }
        let shards = match u16::try_from(feeds.len()) {
            Ok(0) | Err(_) => {
                return Err(ConfigError::new(
                    "feeds",
                    "must be one for each shard, from 1 to 65535",
                ));
            }
            Ok(shards) => shards,
        };
        let runtime = runtime::Handle::try_current().map_err(|error| {
            ConfigError::new("runtime", "is missing; start the mirror inside a Tokio runtime")
                .with_source(error)
        })?;
        let freshness = Freshness::new(self.max_staleness, Arc::clone(&self.clock));
        let shared = Shared::new(
            self.name,
            freshness,
            self.clock,
            usize::from(shards),
            (self.recent, self.replayable),
        );
        let shared = Arc::new(shared);
        let stop = watch::Sender::new(());
        for (shard, feed) in (0..shards).zip(feeds) {
            runtime.spawn(follow::follow(feed, shard, Arc::clone(&shared), stop.subscribe()));
        }
        runtime.spawn(sweep(Arc::clone(&shared), stop.subscribe()));
        Ok(Mirror { handle: Arc::new(Handle { store: self.store, shared, _stop: stop }) })
    }
}

/// Containers have the variable, other hosts the file.
fn default_name() -> Arc<str> {
    let host =
        std::env::var("HOSTNAME").or_else(|_| std::fs::read_to_string("/proc/sys/kernel/hostname"));
    let host = host.as_deref().map_or("", str::trim);
    let process = std::process::id();
    if host.is_empty() { process.to_string().into() } else { format!("{host}:{process}").into() }
}

impl<F> fmt::Debug for MirrorBuilder<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MirrorBuilder")
            .field("name", &self.name)
            .field("shards", &self.feeds.as_ref().map_or(0, Vec::len))
            .field("max_staleness", &self.max_staleness)
            .field("replayable", &self.replayable)
            .field("recent", &self.recent)
            .finish_non_exhaustive()
    }
}
