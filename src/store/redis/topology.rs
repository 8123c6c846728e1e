//! Which server to talk to.
//!
//! fred is told of single servers only: who is the primary, behind sentinels or in a cluster, is
//! found out here. Its own fail-over waits for dead nodes, follows hung primaries late or never,
//! and goes on reading from a primary that was replaced while it hung.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fred::types::Value;
use fred::types::config::{Config, Server, ServerConfig};
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use tokio::time::timeout;

use super::connection::{CONNECT_TIMEOUT, Connection, unexpected_reply, unreachable};
use crate::config::ConfigError;
use crate::store::{StoreError, StoreErrorKind};

/// How long the rest is waited for when most have said who the primary is.
const GRACE: Duration = Duration::from_millis(150);
/// How many hash slots a cluster has.
pub(crate) const SLOTS: u16 = 16_384;

// === From a URL ===

/// Reads a URL as fred does, but refuses what fred would ignore.
pub(crate) fn parse_url(url: &str) -> Result<Config, ConfigError> {
    let Some((scheme, rest)) = url.split_once("://") else {
        return Err(ConfigError::new("url", "has no scheme; write redis://host:6379"));
    };
    let (family, form) = match scheme.find(['-', '+']) {
        Some(at) => scheme.split_at(at),
        None => (scheme, ""),
    };
    let is_tls = match family {
        "redis" | "valkey" => false,
        "rediss" | "valkeys" => true,
        _ => {
            return Err(ConfigError::new(
                "url",
                format!("the scheme {scheme:?} is unknown; write redis:// or rediss://"),
            ));
        }
    };
    if is_tls && form != "+unix" && !cfg!(any(feature = "rustls", feature = "native-tls")) {
        return Err(ConfigError::new(
            "url",
            format!(
                "{scheme}:// needs TLS, which is not compiled in and would be sent in plain text; \
                 enable the feature rustls or native-tls"
            ),
        ));
    }
    let (location, query) = rest.split_once('?').unwrap_or((rest, ""));
    if location.contains('#') || query.contains('#') {
        return Err(ConfigError::new(
            "url",
            "has a fragment; percent-encode `#` in passwords as %23",
        ));
    }
    if query.contains('@') {
        // What is taken for a query is the end of a password, not to be quoted.
        return Err(ConfigError::new(
            "url",
            "has an `@` after its `?`; percent-encode `?` in passwords as %3F, and `@` as %40",
        ));
    }
    let path = location
        .rsplit_once('@')
        .map_or(location, |(_, host)| host)
        .split_once('/')
        .map_or("", |(_, p)| p);
    let known: &[&str] = match form {
        "" => &[],
        "-cluster" if path.is_empty() => &["node"],
        "-cluster" => {
            return Err(ConfigError::new(
                "url",
                "names a database, but a cluster has only one; remove the path",
            ));
        }
        "-sentinel" => &["node", "sentinelServiceName", "sentinelUsername", "sentinelPassword"],
        "+unix" if is_tls => {
            return Err(ConfigError::new(
                "url",
                "asks for TLS over a Unix socket; write redis+unix://",
            ));
        }
        "+unix" if cfg!(feature = "unix-sockets") => &[],
        "+unix" => {
            return Err(ConfigError::new(
                "url",
                "needs Unix sockets, which are not compiled in; enable the feature unix-sockets",
            ));
        }
        _ => {
            return Err(ConfigError::new(
                "url",
                format!(
                    "the scheme {scheme:?} is unknown; after redis may come -cluster, -sentinel or \
                     +unix"
                ),
            ));
        }
    };
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let name = pair.split_once('=').map_or(pair, |(name, _)| name);
        if !known.contains(&name) {
            let remedy = if known.is_empty() {
                "this scheme takes none".into()
            } else {
                format!("known are {}", known.join(", "))
            };
            return Err(ConfigError::new(
                "url",
                format!(
                    "the parameter {name:?} is unknown; {remedy}; timeouts and the like are set on \
                     the builder"
                ),
            ));
        }
    }
    // The cause does not quote the URL, which may hold a password.
    Config::from_url(url).map_err(|error| {
        ConfigError::new("url", format!("cannot be used: {}", error.details())).with_source(error)
    })
}

// === Who is the primary ===

/// Finds the server to talk to and connects to it.
pub(crate) struct Topology {
    /// Everything but the server: credentials, TLS, database.
    base: Config,
    topology: TopologyKind,
}

enum TopologyKind {
    One(ServerConfig),
    Sentinel {
        sentinels: Vec<Server>,
        service: String,
        username: Option<String>,
        password: Option<String>,
    },
    Cluster(ClusterSeeds),
}

/// Whom to ask about a cluster.
struct ClusterSeeds {
    /// Those that were named at the start.
    named: Vec<Server>,
    /// And those that were heard of, so that the death of the former is survived.
    known: Mutex<Vec<Server>>,
}

impl ClusterSeeds {
    fn new(named: Vec<Server>) -> Self {
        Self { known: Mutex::new(named.clone()), named }
    }

    fn known(&self) -> MutexGuard<'_, Vec<Server>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in what nodes know of the cluster. Whom nobody lists any more, as soon as anyone sees
    /// all of it, is asked no longer: each who is gone would cost a wait, and the address may be
    /// given to a stranger.
    fn hear(&self, views: &[&[Node]]) {
        let mut known = self.known();
        if views.iter().any(|view| sees_all(view)) {
            known.clone_from(&self.named);
        }
        for node in views.iter().copied().flatten().filter(|node| node.has_address) {
            if !known.contains(&node.server) {
                known.push(node.server.clone());
            }
        }
    }
}

impl Topology {
    #[cfg_attr(
        not(feature = "unix-sockets"),
        expect(
            clippy::match_wildcard_for_single_variants,
            reason = "with Unix sockets there is one more"
        )
    )]
    pub(crate) fn new(config: Config) -> Result<Self, ConfigError> {
        let topology = match &config.server {
            ServerConfig::Sentinel { hosts, service_name, username, password } => {
                TopologyKind::Sentinel {
                    sentinels: hosts.clone(),
                    service: service_name.clone(),
                    username: username.clone(),
                    password: password.clone(),
                }
            }
            ServerConfig::Clustered { hosts, .. } => {
                TopologyKind::Cluster(ClusterSeeds::new(hosts.clone()))
            }
            one => TopologyKind::One(one.clone()),
        };
        let named = match &topology {
            TopologyKind::One(_) => 1,
            TopologyKind::Sentinel { sentinels, .. } => sentinels.len(),
            TopologyKind::Cluster(seeds) => seeds.named.len(),
        };
        if named == 0 {
            return Err(ConfigError::new("config", "names no server"));
        }
        Ok(Self { base: config, topology })
    }

    pub(crate) fn is_cluster(&self) -> bool {
        matches!(self.topology, TopologyKind::Cluster(_))
    }

    pub(crate) fn has_sentinels(&self) -> bool {
        matches!(self.topology, TopologyKind::Sentinel { .. })
    }

    /// The primary, in a cluster the one that serves `slot`.
    pub(crate) async fn find(&self, slot: u16) -> Result<ServerConfig, StoreError> {
        let server = match &self.topology {
            TopologyKind::One(server) => return Ok(server.clone()),
            TopologyKind::Sentinel { .. } => self.ask_sentinels().await?,
            TopologyKind::Cluster(seeds) => self.ask_cluster(seeds, slot).await?,
        };
        Ok(ServerConfig::Centralized { server })
    }

    /// Asks every sentinel and believes the one that knows of the latest fail-over, of those that
    /// answer.
    async fn ask_sentinels(&self) -> Result<Server, StoreError> {
        let TopologyKind::Sentinel { sentinels, service, username, password } = &self.topology
        else {
            return Err(unreachable("there are no sentinels"));
        };
        let answers = most(sentinels.iter().map(|sentinel| async move {
            let config = Config {
                server: ServerConfig::Centralized { server: sentinel.clone() },
                username: username.clone(),
                password: password.clone(),
                database: None,
                ..self.base.clone()
            };
            let reply = ask(config, "SENTINEL", &["MASTER", service]).await?;
            let (epoch, mut server) =
                parse_sentinel(&reply).ok_or_else(|| unexpected_reply("a sentinel"))?;
            // Certificates name the sentinel's idea of the server, or that of the configuration.
            if server.host.is_empty() {
                server.host = sentinel.host.clone();
            }
            Ok((epoch, server))
        }))
        .await;
        newest(answers, "no sentinel knows the primary")
    }

    /// Asks every node and believes the one that knows of the latest change of hands, of those that
    /// answer.
    async fn ask_cluster(&self, seeds: &ClusterSeeds, slot: u16) -> Result<Server, StoreError> {
        let owners = self.ask_nodes(seeds).await.into_iter().map(|answer| {
            answer.and_then(|view| {
                owner_of(&view, slot).ok_or_else(|| {
                    StoreError::new(
                        StoreErrorKind::Cluster,
                        "the cluster does not serve the slot of this shard",
                    )
                })
            })
        });
        newest(owners.collect(), "no cluster node answers")
    }

    /// The owner of each slot of a cluster: where among the primaries it stands.
    pub(crate) async fn owners(&self) -> Result<(Vec<Server>, Vec<Option<usize>>), StoreError> {
        let TopologyKind::Cluster(seeds) = &self.topology else {
            return Err(StoreError::new(
                StoreErrorKind::Cluster,
                "the server is not part of a cluster",
            ));
        };
        let mut servers: Vec<Server> = Vec::new();
        let mut owners: Vec<Option<(u64, usize)>> = vec![None; usize::from(SLOTS)];
        let mut failure = None;
        for answer in self.ask_nodes(seeds).await {
            let view = match answer {
                Ok(view) => view,
                Err(error) => {
                    failure = Some(error);
                    continue;
                }
            };
            for node in view.into_iter().filter(|node| !node.slots.is_empty()) {
                let place =
                    servers.iter().position(|server| *server == node.server).unwrap_or_else(|| {
                        servers.push(node.server);
                        servers.len() - 1
                    });
                let owned = node.slots.into_iter().flat_map(|(first, last)| first..=last);
                for slot in owned {
                    if let Some(owner) = owners.get_mut(usize::from(slot))
                        && owner.is_none_or(|(epoch, _)| node.epoch > epoch)
                    {
                        *owner = Some((node.epoch, place));
                    }
                }
            }
        }
        if servers.is_empty() {
            return Err(failure.unwrap_or_else(|| unreachable("no cluster node answers")));
        }
        Ok((servers, owners.into_iter().map(|owner| owner.map(|(_, place)| place)).collect()))
    }

    /// What the nodes know of the cluster. Nodes that were not known are asked the next time.
    async fn ask_nodes(&self, seeds: &ClusterSeeds) -> Vec<Result<Vec<Node>, StoreError>> {
        let known = seeds.known().clone();
        let uses_tls = self.base.uses_tls();
        let answers = most(known.iter().map(|node| async move {
            let config = self.at(ServerConfig::Centralized { server: node.clone() });
            let reply = ask(config, "CLUSTER", &["NODES"]).await?;
            let text = reply.as_str().ok_or_else(|| unexpected_reply("a cluster node"))?;
            Ok(parse_nodes(&text, &node.host, uses_tls))
        }))
        .await;
        seeds.hear(&answers.iter().flatten().map(Vec::as_slice).collect::<Vec<_>>());
        answers
    }

    fn at(&self, server: ServerConfig) -> Config {
        Config { server, ..self.base.clone() }
    }

    /// A new connection.
    pub(crate) async fn open(
        &self,
        server: ServerConfig,
        command_timeout: Duration,
    ) -> Result<Connection, StoreError> {
        Connection::open(self.at(server), command_timeout).await
    }
}

/// The answers of all; but once more than half of them have answered, the rest has only a moment
/// more. A host that is dead does not even say that, and it is when one has died that there is no
/// time.
async fn most<T>(
    asked: impl Iterator<Item = impl Future<Output = Result<T, StoreError>>>,
) -> Vec<Result<T, StoreError>> {
    let mut asked: FuturesUnordered<_> = asked.collect();
    let enough = asked.len() / 2 + 1;
    let (mut answers, mut good) = (Vec::with_capacity(asked.len()), 0);
    while let Some(answer) = asked.next().await {
        good += usize::from(answer.is_ok());
        answers.push(answer);
        if good == enough {
            let rest = async {
                while let Some(answer) = asked.next().await {
                    answers.push(answer);
                }
            };
            let _ = timeout(GRACE, rest).await;
            break;
        }
    }
    answers
}

/// The answer that knows of the latest change; if there is none, one of the errors.
fn newest(
    answers: Vec<Result<(u64, Server), StoreError>>,
    nobody: &'static str,
) -> Result<Server, StoreError> {
    let mut best: Option<(u64, Server)> = None;
    let mut last_error = None;
    for answer in answers {
        match answer {
            Ok((epoch, server)) if best.as_ref().is_none_or(|(known, _)| epoch > *known) => {
                best = Some((epoch, server));
            }
            Ok(_) => {}
            Err(error) => last_error = Some(error),
        }
    }
    best.map(|(_, server)| server).ok_or_else(|| last_error.unwrap_or_else(|| unreachable(nobody)))
}

/// The configuration epoch and the address, from the reply to `SENTINEL MASTER`: names and values
/// in turn.
fn parse_sentinel(reply: &Value) -> Option<(u64, Server)> {
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
struct Node {
    server: Server,
    has_address: bool,
    epoch: u64,
    /// What it serves as a primary: the first and the last slot of each range.
    slots: Vec<(u16, u16)>,
}

/// Reads lines such as `id 10.0.0.1:7000@17000,name master - 0 0 1 connected 0-5460 5462
/// [5461->-id]`.
fn parse_nodes(text: &str, asked: &str, uses_tls: bool) -> Vec<Node> {
    let mut nodes = Vec::new();
    for line in text.lines() {
        let words: Vec<_> = line.split(' ').collect();
        let [_, address, flags, _, _, _, epoch, _, slots @ ..] = words.as_slice() else { continue };
        let (address, name) = address.split_once(',').unwrap_or((address, ""));
        let address = address.split_once('@').map_or(address, |(address, _)| address);
        let Some((ip, port)) = address.rsplit_once(':') else { continue };
        let Ok(port) = port.parse() else { continue };
        let name = name.split(',').next().unwrap_or("");
        // A certificate is made out to a name; a node that does not know its own address has no
        // other word for it.
        let host = if uses_tls && !name.is_empty() {
            name
        } else if ip.is_empty() {
            asked
        } else {
            ip
        };
        // A slot that is on the move stands in brackets besides, which is no number.
        let ranges = slots.iter().filter_map(|range| {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            Some((first.parse().ok()?, last.parse().ok()?))
        });
        let is_primary = flags.split(',').any(|flag| flag == "master");
        nodes.push(Node {
            server: Server::new(host, port),
            has_address: !flags.contains("noaddr") && !flags.contains("handshake"),
            epoch: epoch.parse().unwrap_or(0),
            slots: if is_primary { ranges.collect() } else { Vec::new() },
        });
    }
    nodes
}

/// Whether every slot has an owner.
fn sees_all(nodes: &[Node]) -> bool {
    let slots = nodes.iter().flat_map(|node| &node.slots);
    slots.map(|(first, last)| usize::from(last.saturating_sub(*first)) + 1).sum::<usize>()
        >= usize::from(SLOTS)
}

fn owner_of(nodes: &[Node], slot: u16) -> Option<(u64, Server)> {
    let has_slot =
        |node: &&Node| node.slots.iter().any(|(first, last)| (*first..=*last).contains(&slot));
    // What is said last counts, if anything is said twice.
    nodes.iter().rfind(has_slot).map(|node| (node.epoch, node.server.clone()))
}

/// Asks one server one question.
async fn ask(
    config: Config,
    command: &'static str,
    arguments: &[&str],
) -> Result<Value, StoreError> {
    let connection = Connection::open(config, CONNECT_TIMEOUT).await?;
    let arguments: Vec<Value> = arguments.iter().map(|&argument| argument.into()).collect();
    connection.ask(command, arguments, CONNECT_TIMEOUT).await
}

/// One topology for all connections of a store.
pub(crate) type SharedTopology = Arc<Topology>;

#[cfg(test)]
mod tests;
