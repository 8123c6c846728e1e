//! [`Prober`]: asks the voters of a topology who the primary is, for all connections of a store.
//!
//! Each voter has a task and a connection, and is asked three times a second; at once, if somebody
//! waits for a proof. A voter that is slow or down delays nobody else.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fred::types::config::{Server, ServerConfig};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, timeout};

use super::VoterAccess;
use super::ballot::{Ballot, VoterKind};
use super::replies::Endpoints;
use super::stall_meter::StallMeter;
use crate::clock::BootTime;
use crate::store::StoreError;
use crate::store::redis::connection::Connection;
use crate::store::redis::lease::{LEASE, Lease};
use crate::store::redis::random;
use crate::store::redis::time_limit::{Late, TimeLimit, stalled};

/// How often a voter is asked.
const PROOF_INTERVAL: Duration = Duration::from_millis(300);
/// How often somebody is asked whose vote does not count, but who may know of the others.
const LISTENER_INTERVAL: Duration = Duration::from_secs(2);
/// How soon one is asked again.
const MIN_INTERVAL: Duration = Duration::from_millis(20);
/// The pause before the next attempt to connect to one doubles between these.
const DIAL_PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(1));

/// The server that was last proved to be a primary.
#[derive(Clone, Debug)]
pub(crate) struct ProvedPrimary {
    pub(crate) server: ServerConfig,
    pub(crate) lease: Arc<Lease>,
    /// When the last proof was asked for.
    asked_at: BootTime,
}

/// The tasks end with this value.
pub(super) struct Prober {
    state: Arc<ProberState>,
    metering: AbortHandle,
}

pub(super) struct ProberState {
    access: VoterAccess,
    kind: VoterKind,
    proofs: Mutex<Proofs>,
    /// From when on an answer is waited for.
    wanted: watch::Sender<BootTime>,
    stalls: StallMeter,
}

struct Proofs {
    ballot: Ballot,
    tasks: Vec<(Server, AbortHandle)>,
    followed: Vec<(u16, watch::Sender<Option<ProvedPrimary>>)>,
    has_ended: bool,
}

/// The connection to a voter, and what is known of the voter besides its vote.
#[derive(Default)]
pub(super) struct VoterLink {
    pub(super) connection: Option<Connection>,
    /// The endpoints of the cluster for a layout.
    pub(super) endpoints: Option<(u64, Endpoints)>,
    /// The other sentinels.
    pub(super) others: Option<Vec<Server>>,
}

impl Prober {
    pub(super) fn start(access: VoterAccess, kind: VoterKind, configured: &[Server]) -> Self {
        let proofs = Proofs {
            ballot: Ballot::new(kind, configured),
            tasks: Vec::new(),
            followed: Vec::new(),
            has_ended: false,
        };
        let wanted = watch::Sender::new(BootTime::default());
        let (proofs, stalls) = (Mutex::new(proofs), StallMeter::new(Instant::now()));
        let state = Arc::new(ProberState { access, kind, proofs, wanted, stalls });
        state.spawn_missing(&mut state.lock());
        let metered = Arc::clone(&state);
        let metering = tokio::spawn(async move { metered.stalls.run().await }).abort_handle();
        Self { state, metering }
    }

    /// The primary of a slot as it is proved, from now on.
    pub(super) fn follow(&self, slot: u16) -> watch::Receiver<Option<ProvedPrimary>> {
        // The sentinels know of no slots.
        let slot = if self.state.kind == VoterKind::Sentinels { 0 } else { slot };
        let mut proofs = self.state.lock();
        if let Some((_, followed)) = proofs.followed.iter().find(|(known, _)| *known == slot) {
            return followed.subscribe();
        }
        let (followed_tx, followed) = watch::channel(None);
        proofs.followed.push((slot, followed_tx));
        proofs.publish(BootTime::now());
        followed
    }

    /// Waits for a proof that was asked for at or after `since`.
    ///
    /// # Errors
    /// Why there is none: as soon as all were asked, at the latest after the limit.
    pub(super) async fn proved(
        &self,
        slot: u16,
        since: BootTime,
        limit: Duration,
    ) -> Result<ProvedPrimary, StoreError> {
        let mut followed = self.follow(slot);
        let began_at = BootTime::now();
        let wanted = since.max(began_at);
        let proved = async {
            let mut has_poked = false;
            loop {
                // In this order: what was answered last is published in one step with it.
                let has_asked_all = self.state.lock().ballot.has_asked_all(began_at);
                let proved = followed.borrow_and_update().clone();
                if let Some(proved) = proved
                    && proved.asked_at >= since
                    && !proved.lease.is_over(BootTime::now())
                {
                    return Some(proved);
                }
                if has_asked_all {
                    return None;
                }
                if !has_poked {
                    self.state.wanted.send_modify(|known| *known = wanted.max(*known));
                    has_poked = true;
                }
                if followed.changed().await.is_err() {
                    return None;
                }
            }
        };
        let proved = timeout(limit, proved).await.ok().flatten();
        proved.ok_or_else(|| self.why_not(slot))
    }

    /// Asks all anew whether this server stays the primary, and waits for those who answer within
    /// the limit.
    pub(super) async fn stays(&self, slot: u16, server: &Server, limit: Duration) -> bool {
        let mut followed = self.follow(slot);
        let since = BootTime::now();
        let asked = async {
            loop {
                followed.borrow_and_update();
                if self.state.lock().ballot.has_asked_all(since) {
                    return;
                }
                self.state.wanted.send_modify(|known| *known = since.max(*known));
                if followed.changed().await.is_err() {
                    return;
                }
            }
        };
        // Those who are late may be down.
        let _ = timeout(limit, asked).await;
        self.read(|ballot| ballot.stays(slot, server, since, BootTime::now()))
    }

    /// Why there is no proof of a primary: if this process stood still, it could not ask for one.
    pub(super) fn why_not(&self, slot: u16) -> StoreError {
        if self.has_stalled() {
            return stalled();
        }
        let now = BootTime::now();
        let mut proofs = self.state.lock();
        proofs.ballot.forget(now);
        proofs.ballot.why_not(slot, now)
    }

    /// Whether this process stood still for so long lately that it could not keep a lease.
    pub(super) fn has_stalled(&self) -> bool {
        self.state.stalls.has_ended_leases(Instant::now())
    }

    /// Reads what the voters see.
    pub(super) fn read<T>(&self, read: impl FnOnce(&Ballot) -> T) -> T {
        let mut proofs = self.state.lock();
        proofs.ballot.forget(BootTime::now());
        read(&proofs.ballot)
    }
}

impl Drop for Prober {
    fn drop(&mut self) {
        self.metering.abort();
        let mut proofs = self.state.lock();
        proofs.has_ended = true;
        for (_, task) in proofs.tasks.drain(..) {
            task.abort();
        }
    }
}

impl ProberState {
    // A panic while the lock is held cannot leave half a change that matters.
    fn lock(&self) -> MutexGuard<'_, Proofs> {
        self.proofs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins to ask those who are new, and ends with those who are gone.
    fn spawn_missing(self: &Arc<Self>, proofs: &mut Proofs) {
        if proofs.has_ended {
            return;
        }
        let Proofs { ballot, tasks, .. } = proofs;
        tasks.retain(|(server, task)| {
            let is_known = ballot.servers().any(|known| known == server);
            if !is_known {
                task.abort();
            }
            is_known && !task.is_finished()
        });
        for server in ballot.servers() {
            if tasks.iter().all(|(known, _)| known != server) {
                let task = tokio::spawn(Arc::clone(self).ask_regularly(server.clone()));
                tasks.push((server.clone(), task.abort_handle()));
            }
        }
    }

    /// The task of one voter. It runs until it is aborted. In a box, because it starts others of
    /// its kind.
    fn ask_regularly(self: Arc<Self>, server: Server) -> BoxFuture<'static, ()> {
        async move { self.ask_until_aborted(&server).await }.boxed()
    }

    async fn ask_until_aborted(self: &Arc<Self>, server: &Server) {
        let mut link = VoterLink::default();
        let mut pause = DIAL_PAUSE.0;
        let mut wanted = self.wanted.subscribe();
        loop {
            let (asked_at, interval) = self.ask(server, &mut link).await;
            if link.connection.is_none() {
                sleep(pause.mul_f64(0.5 + random::fraction() / 2.0)).await;
                pause = pause.saturating_mul(2).min(DIAL_PAUSE.1);
                continue;
            }
            pause = DIAL_PAUSE.0;
            sleep(MIN_INTERVAL).await;
            tokio::select! {
                // An answer to what was asked earlier is not what is waited for.
                _ = wanted.wait_for(|wanted| *wanted > asked_at) => {}
                () = sleep(interval.mul_f64(0.8 + random::fraction() / 5.0)) => {}
            }
        }
    }

    /// Asks one voter once. Says when, and how soon to ask again.
    async fn ask(self: &Arc<Self>, server: &Server, link: &mut VoterLink) -> (BootTime, Duration) {
        let mut asked_at = BootTime::now();
        let dialled = match &link.connection {
            Some(connection) if !connection.is_closed() => Ok(()),
            _ => {
                *link = VoterLink::default();
                self.access.dial(server).await.map(|connection| link.connection = Some(connection))
            }
        };
        let answer = match dialled {
            Ok(()) => {
                asked_at = BootTime::now();
                // A later answer would prove nothing.
                let answer = TimeLimit::start(LEASE).wait(self.access.ask(server, link)).await;
                answer.unwrap_or_else(|late| {
                    if late == Late::Unanswered {
                        link.connection = None;
                    }
                    Err(late.error())
                })
            }
            Err(error) => Err(error),
        };
        let now = BootTime::now();
        let mut proofs = self.lock();
        match answer {
            Ok(view) => proofs.ballot.answered(server, asked_at, view),
            Err(error) => {
                if link.connection.as_ref().is_some_and(Connection::is_closed) {
                    link.connection = None;
                }
                proofs.ballot.failed(server, asked_at, error);
            }
        }
        proofs.ballot.forget(now);
        proofs.ballot.learn();
        self.spawn_missing(&mut proofs);
        proofs.publish(now);
        let is_voter = proofs.ballot.counts(server);
        (asked_at, if is_voter { PROOF_INTERVAL } else { LISTENER_INTERVAL })
    }
}

impl Proofs {
    /// Renews the leases, and tells those who wait.
    fn publish(&mut self, now: BootTime) {
        let ballot = &self.ballot;
        for (slot, followed) in &self.followed {
            let proof = ballot.proof(*slot, now);
            followed.send_modify(|known| {
                let Some((server, asked_at)) = proof else { return };
                let server = ServerConfig::Centralized { server };
                match known {
                    Some(known) if known.server == server => {
                        known.lease.renew(asked_at);
                        known.asked_at = known.asked_at.max(asked_at);
                    }
                    known => {
                        if let Some(former) = known {
                            former.lease.end();
                        }
                        let lease = Arc::new(Lease::proved(asked_at));
                        *known = Some(ProvedPrimary { server, lease, asked_at });
                    }
                }
            });
        }
    }
}

impl ProvedPrimary {
    /// A server that stands alone.
    pub(super) fn alone(server: ServerConfig) -> Self {
        let asked_at = BootTime::NEVER;
        Self { server, lease: Arc::new(Lease::unlimited()), asked_at }
    }
}
