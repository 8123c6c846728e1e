//! What sentinels and cluster nodes reply about the topology. Pure.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::net::IpAddr;

use fred::types::Value;
use fred::types::config::Server;

use super::SLOTS;
use crate::store::redis::address_map::named;

/// What a sentinel says of the primary.
pub(super) struct WatchedPrimary {
    pub(super) epoch: u64,
    pub(super) server: Server,
    /// How many other sentinels watch it.
    pub(super) other_sentinels: usize,
    /// Whether the sentinel that was asked is replacing it by a replica.
    pub(super) is_being_replaced: bool,
}

/// Reads the reply to `SENTINEL MASTER`: names and values in turn.
pub(super) fn parse_sentinel(reply: &Value) -> Option<WatchedPrimary> {
    let epoch = field(reply, "config-epoch")?.parse().ok()?;
    let server = Server::new(field(reply, "ip")?, field(reply, "port")?.parse().ok()?);
    let other_sentinels =
        field(reply, "num-other-sentinels").and_then(|count| count.parse().ok()).unwrap_or(0);
    let flags = field(reply, "flags").unwrap_or_default();
    let is_being_replaced = flags.split(',').any(|flag| flag == "failover_in_progress");
    Some(WatchedPrimary { epoch, server, other_sentinels, is_being_replaced })
}

/// Reads the reply to `SENTINEL GET-MASTER-ADDR-BY-NAME`. While a failover is being completed, it
/// names the new primary, and `SENTINEL MASTER` the former one.
pub(super) fn parse_address(reply: &Value) -> Option<Server> {
    let Value::Array(parts) = reply else { return None };
    let [host, port] = parts.as_slice() else { return None };
    Some(Server::new(host.as_string()?, port.as_string()?.parse().ok()?))
}

/// Reads the reply to `SENTINEL SENTINELS`: where the other sentinels are.
pub(super) fn parse_sentinels(reply: &Value) -> Option<Vec<Server>> {
    let Value::Array(sentinels) = reply else { return None };
    let address = |sentinel: &Value| {
        let host = field(sentinel, "ip").filter(|host| !host.is_empty())?;
        Some(Server::new(host, field(sentinel, "port")?.parse().ok()?))
    };
    Some(sentinels.iter().filter_map(address).collect())
}

/// The value of a name in a list of names and values in turn.
fn field(reply: &Value, wanted: &str) -> Option<String> {
    let Value::Array(parts) = reply else { return None };
    parts.chunks_exact(2).find_map(|pair| match pair {
        [name, value] if name.as_str().as_deref() == Some(wanted) => value.as_string(),
        _ => None,
    })
}

/// A node of a cluster, as one of them sees it.
pub(super) struct ClusterNode {
    pub(super) id: String,
    pub(super) server: Server,
    /// Whether it is the one that was asked.
    pub(super) is_self: bool,
    pub(super) has_address: bool,
    pub(super) epoch: u64,
    /// What it serves as a primary: the first and the last slot of each range.
    pub(super) slots: Vec<(u16, u16)>,
}

/// The preferred endpoints of the nodes of a cluster, by the ids of the nodes. None, where the node
/// is to be dialled at the host that was asked.
pub(super) type Endpoints = HashMap<String, Option<String>>;

/// Reads the reply to `CLUSTER SLOTS`: ranges of slots, each with its nodes.
pub(super) fn parse_endpoints(reply: &Value) -> Endpoints {
    let mut endpoints = Endpoints::new();
    let Value::Array(ranges) = reply else { return endpoints };
    for range in ranges {
        let Value::Array(range) = range else { continue };
        for node in range.iter().skip(2) {
            let Value::Array(node) = node else { continue };
            let [endpoint, _, id, ..] = node.as_slice() else { continue };
            let Some(id) = id.as_string() else { continue };
            match endpoint.as_string() {
                _ if endpoint.is_null() => endpoints.insert(id, None),
                // The cluster prefers names, and the node has none, or does not know its address.
                Some(host) if host.is_empty() || host == "?" => continue,
                Some(host) => endpoints.insert(id, Some(host)),
                None => continue,
            };
        }
    }
    endpoints
}

/// Reads lines such as `id 10.0.0.1:7000@17000,name master - 0 0 1 connected 0-5460 5462
/// [5461->-id]`.
///
/// A node without an endpoint is dialled at its address; without that, where it was asked.
pub(super) fn parse_nodes(text: &str, asked: &Server, endpoints: &Endpoints) -> Vec<ClusterNode> {
    let mut nodes = Vec::new();
    for line in text.lines() {
        let words: Vec<_> = line.split(' ').collect();
        let [id, address, flags, _, _, _, epoch, _, slots @ ..] = words.as_slice() else {
            continue;
        };
        let (address, name) = address.split_once(',').unwrap_or((address, ""));
        let address = address.split_once('@').map_or(address, |(address, _)| address);
        let Some((ip, port)) = address.rsplit_once(':') else { continue };
        let ip = ip.trim_matches(['[', ']']);
        let Ok(port) = port.parse() else { continue };
        let name = name.split(',').next().unwrap_or("");
        let host = match endpoints.get(*id) {
            Some(Some(endpoint)) => Some(endpoint.as_str()),
            Some(None) => None,
            None => Some(ip).filter(|ip| !ip.is_empty()),
        };
        let server = match host {
            Some(host) => Server::new(host, port),
            None => Server { port, ..asked.clone() },
        };
        // A certificate is for a name, and an address is no name.
        let is_address = host.is_some_and(|host| host.parse::<IpAddr>().is_ok());
        let server = if is_address && !name.is_empty() { named(server, name) } else { server };
        // A slot that is being moved stands in brackets besides, which is no number.
        let ranges = slots.iter().filter_map(|range| {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            Some((first.parse().ok()?, last.parse().ok()?))
        });
        let is_primary = flags.split(',').any(|flag| flag == "master");
        nodes.push(ClusterNode {
            id: (*id).to_owned(),
            server,
            is_self: flags.split(',').any(|flag| flag == "myself"),
            has_address: !flags.contains("noaddr") && !flags.contains("handshake"),
            epoch: epoch.parse().unwrap_or(0),
            slots: if is_primary { ranges.collect() } else { Vec::new() },
        });
    }
    nodes
}

/// Whether every slot has an owner.
pub(super) fn sees_all(nodes: &[ClusterNode]) -> bool {
    let slots = nodes.iter().flat_map(|node| &node.slots);
    slots.map(|(first, last)| usize::from(last.saturating_sub(*first)) + 1).sum::<usize>()
        >= usize::from(SLOTS)
}

/// The node that serves a slot.
pub(super) fn owner_of(nodes: &[ClusterNode], slot: u16) -> Option<&ClusterNode> {
    let has_slot = |node: &&ClusterNode| {
        node.slots.iter().any(|(first, last)| (*first..=*last).contains(&slot))
    };
    // If two nodes claim a slot, the last line counts.
    nodes.iter().rfind(has_slot)
}

/// What of the reply to `CLUSTER NODES` bears on where nodes are dialled: as long as it is the
/// same, so are the endpoints.
pub(super) fn layout_of(text: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    for line in text.lines() {
        let words: Vec<_> = line.split(' ').collect();
        if let [id, address, flags, _, _, _, _, _, slots @ ..] = words.as_slice() {
            (id, address, flags, slots).hash(&mut hasher);
        }
    }
    hasher.finish()
}
