//! [`RedisAuditSink`]: audit events by user, where all processes find them.

use std::fmt;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::journal::Journal;
use super::store::RedisStore;
use crate::audit::{AuditEvent, AuditSink};
use crate::revocation::Target;
use crate::store::StoreError;

/// How many events of a [`RedisAuditSink`] can wait to be written; one more is lost, and counted.
pub(crate) const AUDIT_QUEUE_LENGTH: usize = 4096;
/// The same for what requests bring about.
const REQUEST_QUEUE_LENGTH: usize = 1024;
/// How long [`RedisAuditSink::new`] keeps events: 90 days.
pub(crate) const DEFAULT_AUDIT_RETENTION: Duration = Duration::from_secs(90 * 24 * 60 * 60);
/// About how many events of a user [`RedisAuditSink::new`] keeps: 1000.
pub(crate) const DEFAULT_AUDIT_EVENTS_PER_USER: NonZeroU32 =
    NonZeroU32::new(1000).expect("not zero");

/// An audit sink that keeps events in Redis, by user, in the order of time. A task writes them,
/// behind a queue of 4096 events. Events that find the queue full or cannot be written are counted
/// by [`lost`](AuditSink::lost).
///
/// Refusals and unchecked requests have a queue of 1024 events, a task and journals of their own
/// ([`refusals_of`](Self::refusals_of)). So however many there are, they displace no revocation,
/// login or reuse.
///
/// Events that name no user are kept together, under the empty user name. Clones share the queue;
/// the task ends with the last clone.
#[doc(alias = "audit log")]
#[derive(Clone)]
pub struct RedisAuditSink {
    store: RedisStore,
    queue: mpsc::Sender<Message>,
    requests: mpsc::Sender<Message>,
    lost: Arc<AtomicU64>,
}

enum Message {
    Event(AuditEvent),
    Flush(oneshot::Sender<()>),
}

impl RedisAuditSink {
    /// A sink that keeps about the latest 1000 events of each user for 90 days. Call it inside of a
    /// Tokio runtime.
    pub fn new(store: RedisStore) -> Self {
        Self::with_limits(store, DEFAULT_AUDIT_RETENTION, DEFAULT_AUDIT_EVENTS_PER_USER)
    }

    /// A sink that keeps about the latest `most_per_user` events of each user for `retention`. Call
    /// it inside of a Tokio runtime.
    pub fn with_limits(store: RedisStore, retention: Duration, most_per_user: NonZeroU32) -> Self {
        let lost = Arc::new(AtomicU64::new(0));
        let start = |journal, length| {
            let (queue, events) = mpsc::channel(length);
            let limits = (retention, most_per_user);
            tokio::spawn(keep(store.clone(), journal, events, Arc::clone(&lost), limits));
            queue
        };
        let queue = start(Journal::Events, AUDIT_QUEUE_LENGTH);
        let requests = start(Journal::Requests, REQUEST_QUEUE_LENGTH);
        Self { store, queue, requests, lost }
    }

    /// The latest events of a user as JSON, the latest first, without refusals and unchecked
    /// requests.
    ///
    /// # Errors
    /// [`StoreError`] if the store could not be asked.
    pub async fn events_of(&self, user: &str, most: NonZeroU32) -> Result<Vec<String>, StoreError> {
        self.entries(Journal::Events, user, most).await
    }

    /// The latest refusals of revoked tokens of a user, and the requests that passed unchecked, as
    /// JSON, the latest first.
    ///
    /// # Errors
    /// [`StoreError`] if the store could not be asked.
    pub async fn refusals_of(
        &self,
        user: &str,
        most: NonZeroU32,
    ) -> Result<Vec<String>, StoreError> {
        self.entries(Journal::Requests, user, most).await
    }

    async fn entries(
        &self,
        journal: Journal,
        user: &str,
        most: NonZeroU32,
    ) -> Result<Vec<String>, StoreError> {
        let events = self.store.entries((journal, &Target::user(user)), most).await?;
        Ok(events.iter().map(|event| String::from_utf8_lossy(event).into_owned()).collect())
    }

    /// Erases the events that name this user as their subject. Call it last in an
    /// [erasure](crate::session::Sessions::forget), which is an event itself.
    ///
    /// It does not erase events of others in which the user is the actor, events that name no user
    /// (a session that was revoked by its id alone), and copies elsewhere. Here these expire after
    /// the retention. Events that are written afterwards are kept: another process may still have
    /// some in its queue, and refusals of the user's tokens are reported up to ten seconds later.
    ///
    /// # Errors
    /// [`StoreError`] if it was not confirmed. It may be repeated.
    #[doc(alias = "right to erasure")]
    #[doc(alias = "GDPR")]
    pub async fn forget(&self, user: &str) -> Result<(), StoreError> {
        self.flush().await;
        self.store.remove_journals(&Target::user(user)).await
    }

    /// Waits until everything that was recorded so far is written or lost.
    pub async fn flush(&self) {
        for queue in [&self.queue, &self.requests] {
            let (done, is_done) = oneshot::channel();
            if queue.send(Message::Flush(done)).await.is_ok() {
                // If the task has ended there is nothing left to wait for.
                let _ = is_done.await;
            }
        }
    }
}

async fn keep(
    store: RedisStore,
    journal: Journal,
    mut events: mpsc::Receiver<Message>,
    lost: Arc<AtomicU64>,
    (retention, most): (Duration, NonZeroU32),
) {
    // One after the other, so that the order of events is the order of entries.
    while let Some(message) = events.recv().await {
        match message {
            Message::Event(event) => {
                let user = Target::user(event.field("sub").unwrap_or_default());
                let entry = serde_json::to_vec(&event).unwrap_or_default();
                if store.append((journal, &user), entry.into(), most, retention).await.is_err() {
                    lost.fetch_add(1, Ordering::Relaxed);
                }
            }
            Message::Flush(done) => drop(done.send(())),
        }
    }
}

impl AuditSink for RedisAuditSink {
    fn record(&self, event: &AuditEvent) {
        let queue = if event.kind().is_of_requests() { &self.requests } else { &self.queue };
        if queue.try_send(Message::Event(event.clone())).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }
}

impl fmt::Debug for RedisAuditSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisAuditSink").field("lost", &self.lost()).finish_non_exhaustive()
    }
}
