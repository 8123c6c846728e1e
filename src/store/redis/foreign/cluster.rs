//! Connections to all primaries of a cluster, for foreign keys: each has a hash slot of its own,
//! and the node that serves the slot must be asked.
//!
//! The owners of the slots are asked for at the start, every half minute, and whenever a node says
//! that it does not serve a slot.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use fred::types::config::Server;
use sha2::{Digest as _, Sha256};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::store::redis::health::{Health, Purpose};
use crate::store::redis::random;
use crate::store::redis::supervised::{Permit, SupervisedConnection};
use crate::store::redis::topology::{SLOTS, Topology};
use crate::store::{StoreError, StoreErrorKind};

/// How often the owners of the slots are asked for without a cause.
const REFRESH_INTERVAL: Duration = Duration::from_secs(30);
/// How soon they are asked for again.
const REFRESH_PAUSE: Duration = Duration::from_millis(100);
/// Stands for the slot map in the health of the store: no slot.
const SLOT_MAP: Range<u16> = u16::MAX..u16::MAX;

/// The connections to all primaries. The task that refreshes them ends with this value.
pub(crate) struct ClusterConnections {
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

struct Shared {
    map: ArcSwap<SlotMap>,
    stale: Notify,
}

/// Which primary serves which slot.
#[derive(Default)]
struct SlotMap {
    nodes: Vec<Arc<ClusterPrimary>>,
    /// For each slot, the position of its owner among the nodes.
    owners: Vec<Option<usize>>,
}

struct ClusterPrimary {
    /// The slot by which its connection finds it.
    slot: u16,
    connection: SupervisedConnection,
}

impl ClusterConnections {
    /// Starts to ask, in the background. `connect` makes a connection to whoever serves a slot.
    pub(crate) fn start(
        topology: Arc<Topology>,
        health_tx: Arc<watch::Sender<Health>>,
        connect: impl Fn(u16) -> SupervisedConnection + Send + 'static,
    ) -> Self {
        health_tx.send_modify(|health| health.expect(SLOT_MAP));
        let shared = Arc::new(Shared { map: ArcSwap::default(), stale: Notify::new() });
        let task = tokio::spawn(refresh(Arc::clone(&shared), topology, health_tx, connect));
        Self { shared, task }
    }

    /// The right to ask one question at the node of a slot.
    pub(crate) fn acquire(&self, slot: u16) -> Result<Permit, StoreError> {
        let map = self.shared.map.load();
        let owner = map.owners.get(usize::from(slot)).copied().flatten();
        if let Some(node) = owner.and_then(|at| map.nodes.get(at)) {
            return node.connection.acquire_patiently();
        }
        self.shared.stale.notify_one();
        Err(StoreError::new(StoreErrorKind::Cluster, "the cluster is not known to serve the slot"))
    }

    /// Whether so many questions are open at the node of a slot that it pays to look for one to
    /// join.
    pub(crate) fn is_crowded(&self, slot: u16) -> bool {
        let map = self.shared.map.load();
        let owner = map.owners.get(usize::from(slot)).copied().flatten();
        owner.and_then(|at| map.nodes.get(at)).is_some_and(|node| node.connection.is_crowded())
    }

    /// The right to ask one question at the nth node; none after the last.
    pub(crate) fn acquire_nth(&self, n: usize) -> Option<Result<Permit, StoreError>> {
        self.shared.map.load().nodes.get(n).map(|node| node.connection.acquire())
    }

    /// How many nodes there are.
    pub(crate) fn len(&self) -> usize {
        self.shared.map.load().nodes.len()
    }

    /// See [`layout_of`].
    pub(crate) fn layout(&self) -> String {
        layout_of(&self.shared.map.load().owners)
    }

    /// Refreshes the slot map if an error says that it is wrong.
    pub(crate) fn refresh_after(&self, error: &StoreError) {
        if matches!(error.kind(), StoreErrorKind::Cluster | StoreErrorKind::NotPrimary) {
            self.shared.stale.notify_one();
        }
    }
}

impl Drop for ClusterConnections {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The task: asks for the owners of the slots, and connects to new primaries.
async fn refresh(
    shared: Arc<Shared>,
    topology: Arc<Topology>,
    health_tx: Arc<watch::Sender<Health>>,
    connect: impl Fn(u16) -> SupervisedConnection,
) {
    loop {
        match topology.slot_owners().await {
            Ok((servers, owners)) => {
                let before = shared.map.load_full();
                let after = before.updated(&servers, &owners, |slot| {
                    health_tx.send_modify(|health| health.expect(slot..slot));
                    connect(slot)
                });
                let gone = before.nodes.iter().filter(|node| !after.has(node));
                let gone: Vec<_> = gone.map(|node| node.slot..node.slot).collect();
                shared.map.store(Arc::new(after));
                // Ends the supervision of nodes that are gone, before their health is removed.
                drop(before);
                health_tx.send_modify(|health| {
                    health.record(Purpose::Checks, &SLOT_MAP, None);
                    for node in &gone {
                        health.record(Purpose::Checks, node, None);
                    }
                });
            }
            // The last slot map stays in use: nodes that are down report it themselves.
            Err(error) if shared.map.load().nodes.is_empty() => {
                health_tx
                    .send_modify(|health| health.record(Purpose::Checks, &SLOT_MAP, Some(&error)));
                shared.stale.notify_one();
            }
            Err(_) => {}
        }
        sleep(REFRESH_PAUSE.mul_f64(0.5 + random::fraction())).await;
        tokio::select! {
            () = shared.stale.notified() => {}
            () = sleep(REFRESH_INTERVAL.mul_f64(0.5 + random::fraction())) => {}
        }
    }
}

impl SlotMap {
    /// The map after a change. A connection to a node that still serves its slot is kept.
    fn updated(
        &self,
        servers: &[Server],
        owners: &[Option<usize>],
        mut connect: impl FnMut(u16) -> SupervisedConnection,
    ) -> Self {
        let mut nodes: Vec<Arc<ClusterPrimary>> = Vec::with_capacity(servers.len());
        // For each server, its position among the nodes.
        let mut places = vec![None; servers.len()];
        let mut by_slot = Vec::with_capacity(owners.len());
        for (slot, owner) in (0..SLOTS).zip(owners) {
            by_slot.push(owner.and_then(|server| {
                let place = places.get_mut(server)?;
                if place.is_none() {
                    let is_its = |node: &&Arc<ClusterPrimary>| {
                        owners.get(usize::from(node.slot)) == Some(owner)
                    };
                    let known = self.nodes.iter().find(is_its).cloned();
                    nodes.push(known.unwrap_or_else(|| {
                        Arc::new(ClusterPrimary { slot, connection: connect(slot) })
                    }));
                    *place = Some(nodes.len() - 1);
                }
                *place
            }));
        }
        Self { nodes, owners: by_slot }
    }

    fn has(&self, node: &Arc<ClusterPrimary>) -> bool {
        self.nodes.iter().any(|known| Arc::ptr_eq(known, node))
    }
}

/// Which slots have the same owner, as a short text. It stays the same until a slot changes its
/// owner.
pub(crate) fn layout_of(owners: &[Option<usize>]) -> String {
    let mut first_of = HashMap::new();
    let mut hash = Sha256::new();
    for (slot, owner) in (0..SLOTS).zip(owners) {
        let first = owner.map_or(SLOTS, |owner| *first_of.entry(owner).or_insert(slot));
        hash.update(first.to_be_bytes());
    }
    let [a, b, c, d, ..] = <[u8; 32]>::from(hash.finalize());
    format!("{:08x}", u32::from_be_bytes([a, b, c, d]))
}
