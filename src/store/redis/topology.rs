//! [`Topology`]: where the primary is.
//!
//! fred gets a single server only. Behind sentinels or in a cluster, the primary is found here: the
//! fail-over of fred waits for dead nodes, follows a hung primary late or never, and goes on
//! reading from a primary that was replaced while it hung.
//!
//! | topology | how the primary is found |
//! | --- | --- |
//! | one server | it is the primary |
//! | sentinels | `SENTINEL MASTER` at all of them; the latest fail-over counts |
//! | cluster | `CLUSTER NODES` at all known nodes; the latest owner of the slot counts. It is dialled at the preferred endpoint that `CLUSTER SLOTS` gives |

mod redirect;
mod replies;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fred::types::config::{Config, Server, ServerConfig};
use fred::types::{RespVersion, Value};
use futures::stream::FuturesUnordered;
use futures::{StreamExt as _, join};
use tokio::time::timeout;

use self::redirect::ImportingNodes;
pub(crate) use self::redirect::{KeyCommand, is_moving};
use self::replies::{
    ClusterNode, Endpoints, owner_of, parse_endpoints, parse_nodes, parse_sentinel, sees_all,
};
use super::address_map::AddressMap;
use super::connection::{
    CONNECT_TIMEOUT, ConnectSettings, Connection, unexpected_reply, unreachable,
};
use super::credentials::CredentialProvider;
use crate::config::ConfigError;
use crate::store::{StoreError, StoreErrorKind};

/// How long the rest is waited for when more than half have answered.
const GRACE: Duration = Duration::from_millis(150);
/// How many hash slots a cluster has.
pub(crate) const SLOTS: u16 = 16_384;

/// Knows how to find the primary of a shard, and connects to it.
pub(crate) struct Topology {
    /// Everything but the server: credentials, TLS, database.
    base: Config,
    kind: TopologyKind,
    connect: ConnectSettings,
    /// TLS of the sentinels, if it differs.
    sentinel_base: Option<Config>,
    address_map: AddressMap,
    credentials: Option<Arc<dyn CredentialProvider>>,
    importing: ImportingNodes,
}

enum TopologyKind {
    /// One server: it is the primary.
    Single(ServerConfig),
    /// Sentinels, and the name of the service that they watch.
    Sentinel {
        sentinels: Vec<Server>,
        service: String,
        username: Option<String>,
        password: Option<String>,
    },
    /// A cluster.
    Cluster(ClusterSeeds),
}

/// The nodes of a cluster that are asked about it.
struct ClusterSeeds {
    /// Those of the configuration.
    named: Vec<Server>,
    /// These, and the nodes that any of them has listed, so that the configured ones may all go.
    known: Mutex<Vec<Server>>,
}

impl ClusterSeeds {
    fn new(named: Vec<Server>) -> Self {
        Self { known: Mutex::new(named.clone()), named }
    }

    fn known(&self) -> MutexGuard<'_, Vec<Server>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in what nodes know of the cluster. Once a view covers all slots, nodes that no view
    /// lists are forgotten: each would cost a timeout, and its address may belong to somebody else
    /// now.
    fn learn(&self, views: &[&[ClusterNode]]) {
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
    pub(crate) fn new(config: Config, connect: ConnectSettings) -> Result<Self, ConfigError> {
        let kind = match &config.server {
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
            single => TopologyKind::Single(single.clone()),
        };
        let named = match &kind {
            TopologyKind::Single(_) => 1,
            TopologyKind::Sentinel { sentinels, .. } => sentinels.len(),
            TopologyKind::Cluster(seeds) => seeds.named.len(),
        };
        if named == 0 {
            return Err(ConfigError::new("config", "names no server"));
        }
        // All replies are read as RESP2 has them.
        let base = Config { version: RespVersion::RESP2, ..config };
        Ok(Self {
            base,
            kind,
            connect,
            sentinel_base: None,
            address_map: AddressMap::default(),
            credentials: None,
            importing: ImportingNodes::default(),
        })
    }

    pub(crate) fn with_sentinel_base(mut self, base: Option<Config>) -> Self {
        self.sentinel_base = base;
        self
    }

    pub(crate) fn with_credentials(mut self, from: Option<Arc<dyn CredentialProvider>>) -> Self {
        self.credentials = from;
        self
    }

    pub(crate) fn with_address_map(mut self, map: AddressMap) -> Self {
        self.address_map = map;
        self
    }

    pub(crate) fn is_cluster(&self) -> bool {
        matches!(self.kind, TopologyKind::Cluster(_))
    }

    pub(crate) fn has_sentinels(&self) -> bool {
        matches!(self.kind, TopologyKind::Sentinel { .. })
    }

    /// The primary; in a cluster, the one that serves `slot`.
    pub(crate) async fn primary(&self, slot: u16) -> Result<ServerConfig, StoreError> {
        let server = match &self.kind {
            TopologyKind::Single(server) => return Ok(server.clone()),
            TopologyKind::Sentinel { .. } => self.ask_sentinels().await?,
            TopologyKind::Cluster(seeds) => self.ask_cluster(seeds, slot).await?,
        };
        Ok(ServerConfig::Centralized { server })
    }

    /// Asks all sentinels. Of those that answer, the one with the highest configuration epoch knows
    /// of the latest fail-over.
    async fn ask_sentinels(&self) -> Result<Server, StoreError> {
        let TopologyKind::Sentinel { sentinels, service, username, password } = &self.kind else {
            return Err(unreachable("there are no sentinels"));
        };
        let answers = majority(sentinels.iter().map(|sentinel| async move {
            let config = Config {
                server: ServerConfig::Centralized { server: sentinel.clone() },
                username: username.clone(),
                password: password.clone(),
                database: None,
                ..self.sentinel_base.as_ref().unwrap_or(&self.base).clone()
            };
            let reply = self.query(config, "SENTINEL", &["MASTER", service]).await;
            let reply = reply.map_err(|error| {
                refused_by_sentinel(&error, sentinel, service, username.as_deref())
            })?;
            let (epoch, mut server) =
                parse_sentinel(&reply).ok_or_else(|| unexpected_reply("a sentinel"))?;
            // A sentinel without an address for the server means its own host.
            if server.host.is_empty() {
                server.host = sentinel.host.clone();
            }
            Ok((epoch, self.address_map.dialled(server)))
        }))
        .await;
        newest(answers, "no sentinel knows the primary")
    }

    /// Asks all nodes. Of those that answer, the one with the highest configuration epoch knows of
    /// the latest change of the owner.
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

    /// The primaries of a cluster, and for each slot the position of its owner among them.
    pub(crate) async fn slot_owners(
        &self,
    ) -> Result<(Vec<Server>, Vec<Option<usize>>), StoreError> {
        let TopologyKind::Cluster(seeds) = &self.kind else {
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

    /// What the nodes know of the cluster. Nodes that were not known before are asked the next
    /// time.
    async fn ask_nodes(&self, seeds: &ClusterSeeds) -> Vec<Result<Vec<ClusterNode>, StoreError>> {
        let known = seeds.known().clone();
        let base = match self.current_base().await {
            Ok(base) => base,
            Err(error) => return vec![Err(error)],
        };
        let base = &base;
        let answers = majority(known.iter().map(|node| async move {
            let server = ServerConfig::Centralized { server: node.clone() };
            let config = Config { server, ..base.clone() };
            let opened = Connection::open(config, &self.connect, CONNECT_TIMEOUT).await;
            let connection = opened.map_err(|error| refused_by_server(error, base))?;
            let ask = |what| connection.command::<Value>("CLUSTER", vec![what], CONNECT_TIMEOUT);
            let (nodes, slots) = join!(ask("NODES".into()), ask("SLOTS".into()));
            let nodes = nodes?;
            let text = nodes.as_str().ok_or_else(|| unexpected_reply("a cluster node"))?;
            // Who owns a slot, and since when, is in one reply, where to dial it in the other. A
            // server that refuses the latter is dialled by its address; one that does not answer
            // must not be, because it would look like another server.
            let endpoints = match slots {
                Ok(slots) => parse_endpoints(&slots),
                Err(error) if is_refusal(&error) => Endpoints::default(),
                Err(error) => return Err(error),
            };
            let mut view = parse_nodes(&text, node, &endpoints);
            for found in &mut view {
                found.server = self.address_map.dialled(found.server.clone());
            }
            Ok(view)
        }))
        .await;
        seeds.learn(&answers.iter().flatten().map(Vec::as_slice).collect::<Vec<_>>());
        answers
    }

    /// Everything but the server, with the credentials of this moment.
    async fn current_base(&self) -> Result<Config, StoreError> {
        let Some(provider) = &self.credentials else { return Ok(self.base.clone()) };
        let given = timeout(self.connect.timeout, provider.credentials()).await;
        let given = given.unwrap_or_else(|_| {
            let detail = "redis: the provider has no credentials in time";
            Err(StoreError::new(StoreErrorKind::Timeout, detail))
        })?;
        Ok(Config {
            username: given.username.map(Into::into),
            password: Some(given.password.expose().to_owned()),
            ..self.base.clone()
        })
    }

    /// A new connection to this server, which has been asked for its id.
    pub(crate) async fn connect(
        &self,
        server: ServerConfig,
        command_timeout: Duration,
    ) -> Result<Connection, StoreError> {
        let base = self.current_base().await?;
        let config = Config { server, ..base.clone() };
        let opened = Connection::open(config, &self.connect, command_timeout).await;
        let mut connection = opened.map_err(|error| refused_by_server(error, &base))?;
        connection.learn_server_id(self.connect.timeout).await?;
        Ok(connection)
    }

    /// Sends one command to one server.
    async fn query(
        &self,
        config: Config,
        command: &'static str,
        arguments: &[&str],
    ) -> Result<Value, StoreError> {
        let connection = Connection::open(config, &self.connect, CONNECT_TIMEOUT).await?;
        let arguments: Vec<Value> = arguments.iter().map(|&argument| argument.into()).collect();
        connection.command(command, arguments, CONNECT_TIMEOUT).await
    }
}

/// Says that it was the server, and whom it does not let in.
fn refused_by_server(error: StoreError, base: &Config) -> StoreError {
    if error.kind() != StoreErrorKind::Denied {
        return error;
    }
    let user = UserName(base.username.as_deref());
    let detail = format!("redis: the server refused {user}: {}", words_of(&error));
    error.with_detail(detail)
}

/// Whether the server has answered that it does not do this, or not for this user.
fn is_refusal(error: &StoreError) -> bool {
    matches!(error.kind(), StoreErrorKind::Denied | StoreErrorKind::Other)
}

/// Says that it was a sentinel, which one, and what it does not know or let in.
fn refused_by_sentinel(
    error: &StoreError,
    sentinel: &Server,
    service: &str,
    username: Option<&str>,
) -> StoreError {
    let words = words_of(error);
    let detail = if words.contains("No such master") {
        format!("redis: the sentinel {sentinel} knows no service {service:?}: {words}")
    } else if error.kind() == StoreErrorKind::Denied {
        format!("redis: the sentinel {sentinel} refused {}: {words}", UserName(username))
    } else {
        format!("redis: the sentinel {sentinel}: {words}")
    };
    error.clone().with_detail(detail)
}

/// What an error says, without whose it is.
fn words_of(error: &StoreError) -> String {
    let words = error.to_string();
    words.strip_prefix("redis: ").unwrap_or(&words).to_owned()
}

/// As whom one has come.
struct UserName<'a>(Option<&'a str>);

impl fmt::Display for UserName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(name) => write!(f, "the user {name:?}"),
            None => f.write_str("the default user"),
        }
    }
}

/// The answers of all. Once more than half of them have answered, the rest gets only a moment more:
/// a host that is down takes a whole timeout, and it is after a host has gone down that time
/// matters.
async fn majority<T>(
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

#[cfg(test)]
mod live_tests;
#[cfg(test)]
mod tests;
