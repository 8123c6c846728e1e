//! [`Topology`]: where the primary is.
//!
//! fred gets a single server only. Behind sentinels or in a cluster, the primary is found here: the
//! failover of fred waits for dead nodes, follows a hung primary late or never, and goes on
//! reading from a primary that was replaced while it hung.
//!
//! | topology | how the primary is found, and for how long it is believed |
//! | --- | --- |
//! | one server | it is the primary |
//! | sentinels | more than half of them name it, to a question that was asked within the last second |
//! | cluster | more than half of the primaries that have slots name it as the owner of the slot, likewise. With fewer than three of them: it says so itself, and no node that answers knows of a later owner. It is dialled at the preferred endpoint that `CLUSTER SLOTS` gives |

mod ballot;
mod prober;
mod redirect;
mod replies;
mod stall_meter;

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use fred::types::config::{Config, Server, ServerConfig};
use fred::types::{RespVersion, Value};
use futures::join;
use tokio::sync::watch;
use tokio::time::timeout;

use self::ballot::{View, VoterKind};
pub(crate) use self::prober::ProvedPrimary;
use self::prober::{Prober, VoterLink};
use self::redirect::ImportingNodes;
pub(crate) use self::redirect::{KeyCommand, is_moving};
use self::replies::{
    ClusterNode, Endpoints, layout_of, parse_address, parse_endpoints, parse_nodes, parse_sentinel,
    parse_sentinels,
};
use super::address_map::AddressMap;
use super::connection::{
    CONNECT_TIMEOUT, ConnectSettings, Connection, is_command_refused, is_of_certificates,
    unexpected_reply, unreachable,
};
use super::credentials::CredentialProvider;
use super::time_limit::stalled;
use super::tls::CurrentTls;
use crate::clock::BootTime;
use crate::config::ConfigError;
use crate::store::{StoreError, StoreErrorKind};

/// How many hash slots a cluster has.
pub(crate) const SLOTS: u16 = 16_384;

/// Knows how to find the primary of a shard, and connects to it.
pub(crate) struct Topology {
    access: VoterAccess,
    /// Started by the first who asks for a primary.
    prober: OnceLock<Prober>,
    importing: ImportingNodes,
}

/// How to speak to the servers, and to those who know which of them is the primary.
#[derive(Clone)]
struct VoterAccess {
    /// Everything but the server: credentials, TLS, database.
    base: Config,
    kind: TopologyKind,
    connect: ConnectSettings,
    /// TLS of the sentinels, if it differs.
    sentinel_base: Option<Config>,
    address_map: AddressMap,
    credentials: Option<Arc<dyn CredentialProvider>>,
    /// What reads the certificates again, if they may change.
    current_tls: Option<Arc<CurrentTls>>,
}

#[derive(Clone)]
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
    /// A cluster, and the nodes of the configuration.
    Cluster(Vec<Server>),
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
            ServerConfig::Clustered { hosts, .. } => TopologyKind::Cluster(hosts.clone()),
            single => TopologyKind::Single(single.clone()),
        };
        let named = match &kind {
            TopologyKind::Single(_) => 1,
            TopologyKind::Sentinel { sentinels: named, .. } | TopologyKind::Cluster(named) => {
                named.len()
            }
        };
        if named == 0 {
            return Err(ConfigError::new("config", "names no server"));
        }
        // All replies are read as RESP2 has them.
        let base = Config { version: RespVersion::RESP2, ..config };
        let access = VoterAccess {
            base,
            kind,
            connect,
            sentinel_base: None,
            address_map: AddressMap::default(),
            credentials: None,
            current_tls: None,
        };
        Ok(Self { access, prober: OnceLock::new(), importing: ImportingNodes::default() })
    }

    pub(crate) fn with_sentinel_base(mut self, base: Option<Config>) -> Self {
        self.access.sentinel_base = base;
        self
    }

    pub(crate) fn with_current_tls(mut self, tls: Option<Arc<CurrentTls>>) -> Self {
        self.access.current_tls = tls;
        self
    }

    pub(crate) fn with_credentials(mut self, from: Option<Arc<dyn CredentialProvider>>) -> Self {
        self.access.credentials = from;
        self
    }

    pub(crate) fn with_address_map(mut self, map: AddressMap) -> Self {
        self.access.address_map = map;
        self
    }

    pub(crate) fn is_cluster(&self) -> bool {
        matches!(self.access.kind, TopologyKind::Cluster(_))
    }

    /// Whether another server may become the primary, and somebody knows which.
    pub(crate) fn has_voters(&self) -> bool {
        !matches!(self.access.kind, TopologyKind::Single(_))
    }

    #[cfg(test)]
    fn has_sentinels(&self) -> bool {
        matches!(self.access.kind, TopologyKind::Sentinel { .. })
    }

    /// Who proves which server is the primary; none if there is only one server.
    fn prober(&self) -> Option<&Prober> {
        let (kind, configured) = match &self.access.kind {
            TopologyKind::Single(_) => return None,
            TopologyKind::Sentinel { sentinels, .. } => (VoterKind::Sentinels, sentinels),
            TopologyKind::Cluster(nodes) => (VoterKind::ClusterNodes, nodes),
        };
        Some(self.prober.get_or_init(|| Prober::start(self.access.clone(), kind, configured)))
    }

    /// The primary; in a cluster, the one that serves `slot`. To be called on a runtime.
    ///
    /// # Errors
    /// Why no server is proved to be the primary.
    pub(crate) async fn primary(&self, slot: u16) -> Result<ProvedPrimary, StoreError> {
        self.proved(slot, BootTime::default()).await
    }

    /// Has it proved anew that the connection leads to the primary: by questions that are asked
    /// from now on. A server that hung while it was connected to may have been replaced meanwhile,
    /// and not know it yet.
    ///
    /// # Errors
    /// [`StoreErrorKind::NotPrimary`] if another is, and why no server is proved to be the primary.
    pub(crate) async fn confirm(
        &self,
        slot: u16,
        connection: &Connection,
    ) -> Result<(), StoreError> {
        if let TopologyKind::Single(_) = self.access.kind {
            return Ok(());
        }
        let proved = self.proved(slot, BootTime::now()).await?;
        if proved.leads_to(connection) {
            return Ok(());
        }
        Err(StoreError::new(
            StoreErrorKind::NotPrimary,
            "the server was replaced as the primary while it was connected to",
        ))
    }

    /// Asks all anew whether the server of the connection stays the primary. While it is being
    /// replaced it is the primary still, and what it confirms may not be at the next one.
    ///
    /// # Errors
    /// [`StoreErrorKind::NotPrimary`] if it is being replaced, or is not proved to be the primary.
    pub(crate) async fn confirm_stays(
        &self,
        slot: u16,
        connection: &Connection,
    ) -> Result<(), StoreError> {
        let (Some(prober), ServerConfig::Centralized { server }) =
            (self.prober(), &connection.server)
        else {
            return Ok(());
        };
        if prober.stays(slot, server, self.access.connect.timeout).await {
            return Ok(());
        }
        Err(StoreError::new(StoreErrorKind::NotPrimary, "the server is being replaced"))
    }

    async fn proved(&self, slot: u16, since: BootTime) -> Result<ProvedPrimary, StoreError> {
        match (&self.access.kind, self.prober()) {
            (TopologyKind::Single(server), _) => Ok(ProvedPrimary::alone(server.clone())),
            (_, Some(prober)) => prober.proved(slot, since, self.access.connect.timeout).await,
            (_, None) => Err(unreachable("there is nobody to ask for the primary")),
        }
    }

    /// The primary as it is proved from now on; none if there is only one server.
    pub(crate) fn follow(&self, slot: u16) -> Option<watch::Receiver<Option<ProvedPrimary>>> {
        self.prober().map(|prober| prober.follow(slot))
    }

    /// Why no server is proved to be the primary.
    pub(crate) fn why_not_proved(&self, slot: u16) -> StoreError {
        match self.prober() {
            Some(prober) => prober.why_not(slot),
            None => unreachable("there is nobody to ask for the primary"),
        }
    }

    /// The error to be told, of one by which an answer is not believed because no lease is left:
    /// this process may have stood still.
    pub(crate) fn blame(&self, error: StoreError) -> StoreError {
        match self.prober() {
            Some(prober) if prober.has_stalled() => stalled(),
            _ => error,
        }
    }

    /// The primaries of a cluster, and for each slot the position of its owner among them.
    pub(crate) async fn slot_owners(
        &self,
    ) -> Result<(Vec<Server>, Vec<Option<usize>>), StoreError> {
        let prober = self.prober().filter(|_| self.is_cluster()).ok_or_else(|| {
            StoreError::new(StoreErrorKind::Cluster, "the server is not part of a cluster")
        })?;
        let limit = self.access.connect.timeout;
        // Whoever serves the slot: what matters is that most have been asked from now on.
        let asked = prober.proved(0, BootTime::now(), limit).await;
        let (servers, owners) = prober.read(|ballot| owners_of(ballot.nodes()));
        if servers.is_empty() {
            return Err(asked.err().unwrap_or_else(|| unreachable("no cluster node answers")));
        }
        Ok((servers, owners))
    }

    /// A new connection to this server, which has been asked for its id.
    pub(crate) async fn connect(
        &self,
        primary: ProvedPrimary,
        command_timeout: Duration,
    ) -> Result<Connection, StoreError> {
        let base = self.access.current_base().await?;
        let config = Config { server: primary.server, ..base.clone() };
        let opened = Connection::open(config, &self.access.connect, command_timeout).await;
        let mut connection = opened.map_err(|error| refused_by_server(error, &base))?;
        connection.believe_until(primary.lease);
        connection.learn_server_id(self.access.connect.timeout).await?;
        Ok(connection)
    }
}

impl ProvedPrimary {
    /// Whether it is the server at the other end of the connection.
    pub(crate) fn leads_to(&self, connection: &Connection) -> bool {
        self.server == connection.server && connection.has_lease(&self.lease)
    }
}

/// The primaries of a cluster, and for each slot the position of its latest owner among them.
fn owners_of<'v>(
    views: impl Iterator<Item = &'v [ClusterNode]>,
) -> (Vec<Server>, Vec<Option<usize>>) {
    let mut servers: Vec<Server> = Vec::new();
    let mut owners: Vec<Option<(u64, usize)>> = vec![None; usize::from(SLOTS)];
    for node in views.flatten().filter(|node| !node.slots.is_empty()) {
        let place = servers.iter().position(|server| *server == node.server).unwrap_or_else(|| {
            servers.push(node.server.clone());
            servers.len() - 1
        });
        let owned = node.slots.iter().flat_map(|&(first, last)| first..=last);
        for slot in owned {
            if let Some(owner) = owners.get_mut(usize::from(slot))
                && owner.is_none_or(|(epoch, _)| node.epoch > epoch)
            {
                *owner = Some((node.epoch, place));
            }
        }
    }
    (servers, owners.into_iter().map(|owner| owner.map(|(_, place)| place)).collect())
}

impl VoterAccess {
    /// With the certificates of this moment.
    async fn with_tls(&self, config: Config) -> Config {
        match &self.current_tls {
            Some(tls) => tls.renew(config).await,
            None => config,
        }
    }

    /// Everything but the server, with the certificates and credentials of this moment.
    async fn current_base(&self) -> Result<Config, StoreError> {
        let base = self.with_tls(self.base.clone()).await;
        let Some(provider) = &self.credentials else { return Ok(base) };
        let given = timeout(self.connect.timeout, provider.credentials()).await;
        let given = given.unwrap_or_else(|_| {
            let detail = "redis: the provider has no credentials in time";
            Err(StoreError::new(StoreErrorKind::Timeout, detail))
        })?;
        Ok(Config {
            username: given.username.map(Into::into),
            password: Some(given.password.expose().to_owned()),
            ..base
        })
    }

    /// A connection to a voter.
    async fn dial(&self, voter: &Server) -> Result<Connection, StoreError> {
        let server = ServerConfig::Centralized { server: voter.clone() };
        let TopologyKind::Sentinel { service, username, password, .. } = &self.kind else {
            let base = self.current_base().await?;
            let config = Config { server, ..base.clone() };
            let opened = Connection::open(config, &self.connect, CONNECT_TIMEOUT).await;
            return opened.map_err(|error| refused_by_server(error, &base));
        };
        let config = Config {
            server,
            username: username.clone(),
            password: password.clone(),
            database: None,
            ..self.with_tls(self.sentinel_base.as_ref().unwrap_or(&self.base).clone()).await
        };
        let opened = async {
            let mut connection = Connection::open(config, &self.connect, CONNECT_TIMEOUT).await?;
            // Two names may lead to one sentinel.
            connection.learn_server_id(self.connect.timeout).await?;
            Ok(connection)
        };
        opened
            .await
            .map_err(|error| refused_by_sentinel(&error, voter, service, username.as_deref()))
    }

    /// Asks a voter what it sees.
    async fn ask(&self, voter: &Server, link: &mut VoterLink) -> Result<View, StoreError> {
        match &self.kind {
            TopologyKind::Sentinel { service, username, .. } => {
                let view = self.ask_sentinel(voter, service, link).await;
                view.map_err(|error| {
                    refused_by_sentinel(&error, voter, service, username.as_deref())
                })
            }
            TopologyKind::Cluster(_) => self.ask_node(voter, link).await,
            TopologyKind::Single(_) => Err(unreachable("there is nobody to ask for the primary")),
        }
    }

    async fn ask_sentinel(
        &self,
        sentinel: &Server,
        service: &str,
        link: &mut VoterLink,
    ) -> Result<View, StoreError> {
        let VoterLink { connection: Some(connection), others, .. } = link else {
            return Err(unreachable("not connected to a sentinel"));
        };
        let ask = |what| {
            let arguments: Vec<Value> = vec![Value::from_static_str(what), service.into()];
            connection.command("SENTINEL", arguments, CONNECT_TIMEOUT)
        };
        let (primary, address) = join!(ask("MASTER"), ask("GET-MASTER-ADDR-BY-NAME"));
        let watched = parse_sentinel(&primary?).ok_or_else(|| unexpected_reply("a sentinel"))?;
        let mut server = match address {
            Ok(address) => parse_address(&address).ok_or_else(|| unexpected_reply("a sentinel"))?,
            Err(error) if is_command_refused(&error) => watched.server.clone(),
            Err(error) => return Err(error),
        };
        // When the next one has taken over, it is named.
        let is_replacing = watched.is_being_replaced && server == watched.server;
        // A sentinel without an address for the server means its own host.
        if server.host.is_empty() {
            server.host = sentinel.host.clone();
        }
        if others.as_ref().is_none_or(|known| known.len() != watched.other_sentinels) {
            *others = match ask("SENTINELS").await {
                Ok(reply) => parse_sentinels(&reply).map(|told| {
                    told.into_iter().map(|other| self.address_map.dialled(other)).collect()
                }),
                // Then only those of the configuration are asked.
                Err(error) if is_command_refused(&error) => None,
                Err(error) => return Err(error),
            };
        }
        let id = connection.server_id();
        Ok(View {
            id: id.is_own().then(|| id.to_string()),
            nodes: vec![ClusterNode {
                id: String::new(),
                server: self.address_map.dialled(server),
                is_self: false,
                has_address: true,
                epoch: watched.epoch,
                slots: vec![(0, SLOTS - 1)],
            }],
            voters: watched.other_sentinels + 1,
            is_voter: true,
            others: others.clone(),
            is_replacing,
        })
    }

    async fn ask_node(&self, node: &Server, link: &mut VoterLink) -> Result<View, StoreError> {
        let VoterLink { connection: Some(connection), endpoints, .. } = link else {
            return Err(unreachable("not connected to a cluster node"));
        };
        let ask = |what| {
            let arguments = vec![Value::from_static_str(what)];
            connection.command("CLUSTER", arguments, CONNECT_TIMEOUT)
        };
        let nodes = ask("NODES").await?;
        let text = nodes.as_str().ok_or_else(|| unexpected_reply("a cluster node"))?;
        // Who owns a slot, and since when, is in one reply, where to dial it in the other. A server
        // that refuses the latter is dialled by its address; one that does not answer must not be,
        // because it would look like another server.
        let layout = layout_of(&text);
        if endpoints.as_ref().is_none_or(|(known, _)| *known != layout) {
            let told = match ask("SLOTS").await {
                Ok(slots) => parse_endpoints(&slots),
                Err(error) if is_refusal(&error) => Endpoints::default(),
                Err(error) => return Err(error),
            };
            *endpoints = Some((layout, told));
        }
        let unknown = Endpoints::default();
        let endpoints = endpoints.as_ref().map_or(&unknown, |(_, told)| told);
        let mut nodes = parse_nodes(&text, node, endpoints);
        for found in &mut nodes {
            found.server = self.address_map.dialled(found.server.clone());
        }
        let own = nodes.iter().find(|found| found.is_self);
        Ok(View {
            id: own.map(|own| own.id.clone()),
            voters: nodes.iter().filter(|found| !found.slots.is_empty()).count(),
            is_voter: own.is_some_and(|own| !own.slots.is_empty()),
            others: None,
            // A cluster node that hands its slots over takes no writes meanwhile.
            is_replacing: false,
            nodes,
        })
    }
}

/// Says that it was the server, and whom it does not let in.
fn refused_by_server(error: StoreError, base: &Config) -> StoreError {
    // Of a certificate all was said.
    if error.kind() != StoreErrorKind::Denied || is_of_certificates(&error) {
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
    } else if error.kind() == StoreErrorKind::Denied && !is_of_certificates(error) {
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

#[cfg(test)]
mod live_tests;
#[cfg(test)]
mod tests;
