//! What sentinels and cluster nodes reply about the topology. Pure.

use fred::types::Value;
use fred::types::config::Server;

use super::SLOTS;

/// The configuration epoch and the address, from the reply to `SENTINEL MASTER`: names and values
/// in turn.
pub(super) fn parse_sentinel(reply: &Value) -> Option<(u64, Server)> {
    let Value::Array(parts) = reply else { return None };
    let field = |wanted: &str| {
        parts.chunks_exact(2).find_map(|pair| match pair {
            [name, value] if name.as_str().as_deref() == Some(wanted) => value.as_string(),
            _ => None,
        })
    };
    let epoch = field("config-epoch")?.parse().ok()?;
    Some((epoch, Server::new(field("ip")?, field("port")?.parse().ok()?)))
}

/// A node of a cluster, as one of them sees it.
pub(super) struct ClusterNode {
    pub(super) server: Server,
    pub(super) has_address: bool,
    pub(super) epoch: u64,
    /// What it serves as a primary: the first and the last slot of each range.
    pub(super) slots: Vec<(u16, u16)>,
}

/// Reads lines such as `id 10.0.0.1:7000@17000,name master - 0 0 1 connected 0-5460 5462
/// [5461->-id]`.
pub(super) fn parse_nodes(text: &str, asked: &str, uses_tls: bool) -> Vec<ClusterNode> {
    let mut nodes = Vec::new();
    for line in text.lines() {
        let words: Vec<_> = line.split(' ').collect();
        let [_, address, flags, _, _, _, epoch, _, slots @ ..] = words.as_slice() else { continue };
        let (address, name) = address.split_once(',').unwrap_or((address, ""));
        let address = address.split_once('@').map_or(address, |(address, _)| address);
        let Some((ip, port)) = address.rsplit_once(':') else { continue };
        let Ok(port) = port.parse() else { continue };
        let name = name.split(',').next().unwrap_or("");
        // A certificate is for a name. A node that does not know its own address is where it was
        // asked.
        let host = if uses_tls && !name.is_empty() {
            name
        } else if ip.is_empty() {
            asked
        } else {
            ip
        };
        // A slot that is being moved stands in brackets besides, which is no number.
        let ranges = slots.iter().filter_map(|range| {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            Some((first.parse().ok()?, last.parse().ok()?))
        });
        let is_primary = flags.split(',').any(|flag| flag == "master");
        nodes.push(ClusterNode {
            server: Server::new(host, port),
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

pub(super) fn owner_of(nodes: &[ClusterNode], slot: u16) -> Option<(u64, Server)> {
    let has_slot = |node: &&ClusterNode| {
        node.slots.iter().any(|(first, last)| (*first..=*last).contains(&slot))
    };
    // If two nodes claim a slot, the last line counts.
    nodes.iter().rfind(has_slot).map(|node| (node.epoch, node.server.clone()))
}
