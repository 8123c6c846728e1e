//! Where a foreign key is in a cluster: it has a hash slot of its own, and the node that serves
//! it must be asked.
//!
//! There is one guarded connection for each primary. Which slots it serves is asked at the start,
//! now and then, and whenever a node says that a key is not its own.

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

use crate::store::redis::Health;
use crate::store::redis::random;
use crate::store::redis::supervised::{Permit, Purpose, SupervisedConnection};
use crate::store::redis::topology::{SLOTS, Topology};
use crate::store::{StoreError, StoreErrorKind};

/// How often the owners of the slots are asked for without a cause.
const ASK_EVERY: Duration = Duration::from_secs(30);
/// How soon they are asked for again.
const ASK_AGAIN: Duration = Duration::from_millis(100);
/// Stands for the map in the health of the store: not a slot.
const MAP: Range<u16> = u16::MAX..u16::MAX;

/// The connections to all primaries. Its keeper ends with it.
pub(crate) struct ClusterConnections {
    shared: Arc<Shared>,
    keeper: JoinHandle<()>,
}

struct Shared {
    map: ArcSwap<Map>,
    stale: Notify,
}

/// Who serves which slot.
#[derive(Default)]
struct Map {
    nodes: Vec<Arc<Node>>,
    /// For each slot, where among the nodes its owner is.
    owners: Vec<Option<usize>>,
}

struct Node {
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
        health_tx.send_modify(|health| health.expect(MAP));
        let shared = Arc::new(Shared { map: ArcSwap::default(), stale: Notify::new() });
        let keeper = tokio::spawn(keep(Arc::clone(&shared), topology, health_tx, connect));
        Self { shared, keeper }
    }

    /// The right to ask one question at the node of a slot.
    pub(crate) fn acquire(&self, slot: u16) -> Result<Permit, StoreError> {
        let map = self.shared.map.load();
        let owner = map.owners.get(usize::from(slot)).copied().flatten();
        if let Some(node) = owner.and_then(|at| map.nodes.get(at)) {
            return node.connection.acquire();
        }
        self.shared.stale.notify_one();
        Err(StoreError::new(StoreErrorKind::Cluster, "the cluster is not known to serve the slot"))
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

    /// An answer says that the map is wrong.
    pub(crate) fn doubt(&self, error: &StoreError) {
        if matches!(error.kind(), StoreErrorKind::Cluster | StoreErrorKind::NotPrimary) {
            self.shared.stale.notify_one();
        }
    }
}

impl Drop for ClusterConnections {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}

async fn keep(
    shared: Arc<Shared>,
    topology: Arc<Topology>,
    health_tx: Arc<watch::Sender<Health>>,
    connect: impl Fn(u16) -> SupervisedConnection,
) {
    loop {
        match topology.owners().await {
            Ok((servers, owners)) => {
                let before = shared.map.load_full();
                let after = before.follow(&servers, &owners, |slot| {
                    health_tx.send_modify(|health| health.expect(slot..slot));
                    connect(slot)
                });
                let gone = before.nodes.iter().filter(|node| !after.has(node));
                let gone: Vec<_> = gone.map(|node| node.slot..node.slot).collect();
                shared.map.store(Arc::new(after));
                // Their keepers have nothing more to say then.
                drop(before);
                health_tx.send_modify(|health| {
                    health.note(Purpose::Checks, &MAP, None);
                    for node in &gone {
                        health.note(Purpose::Checks, node, None);
                    }
                });
            }
            // What was known goes on to be used: nodes that are down say so themselves.
            Err(error) if shared.map.load().nodes.is_empty() => {
                health_tx.send_modify(|health| health.note(Purpose::Checks, &MAP, Some(&error)));
                shared.stale.notify_one();
            }
            Err(_) => {}
        }
        sleep(ASK_AGAIN.mul_f64(0.5 + random::fraction())).await;
        tokio::select! {
            () = shared.stale.notified() => {}
            () = sleep(ASK_EVERY.mul_f64(0.5 + random::fraction())) => {}
        }
    }
}

impl Map {
    /// The map after a change. Connections to nodes that go on to serve their slot are kept.
    fn follow(
        &self,
        servers: &[Server],
        owners: &[Option<usize>],
        mut connect: impl FnMut(u16) -> SupervisedConnection,
    ) -> Self {
        let mut nodes: Vec<Arc<Node>> = Vec::with_capacity(servers.len());
        // For each server, where among the nodes it is.
        let mut places = vec![None; servers.len()];
        let mut by_slot = Vec::with_capacity(owners.len());
        for (slot, owner) in (0..SLOTS).zip(owners) {
            by_slot.push(owner.and_then(|server| {
                let place = places.get_mut(server)?;
                if place.is_none() {
                    let is_its =
                        |node: &&Arc<Node>| owners.get(usize::from(node.slot)) == Some(owner);
                    let known = self.nodes.iter().find(is_its).cloned();
                    nodes.push(
                        known.unwrap_or_else(|| Arc::new(Node { slot, connection: connect(slot) })),
                    );
                    *place = Some(nodes.len() - 1);
                }
                *place
            }));
        }
        Self { nodes, owners: by_slot }
    }

    fn has(&self, node: &Arc<Node>) -> bool {
        self.nodes.iter().any(|known| Arc::ptr_eq(known, node))
    }
}

/// Which slots belong together, as a short text: the same as long as none has changed hands.
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
