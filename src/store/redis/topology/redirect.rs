//! Keys of a hash slot that is being moved from one node of a cluster to another.
//!
//! As long as the move lasts, the old node answers for the keys that it still has, and `ASK` for
//! all others. The node that `ASK` names answers for one key if `ASKING` comes right before the
//! question; without, it answers `MOVED`. So a question that is sent to the wrong node gets an
//! error, never a wrong answer. Several keys at once get `TRYAGAIN` from both, unless one has all.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use fred::interfaces::ClientLike as _;
use fred::types::config::{Server, ServerConfig};
use fred::types::{CustomCommand, Value};
use futures::FutureExt as _;
use futures::future::{BoxFuture, Shared};
use tokio::time::{Instant, sleep};

use super::{ProvedPrimary, Topology};
use crate::store::redis::connection::{
    CONNECT_TIMEOUT, Connection, classify, error_code, unexpected_reply,
};
use crate::store::redis::time_limit::within;
use crate::store::{StoreError, StoreErrorKind};

/// A connection that was not used for so long is closed: the move is over.
const IDLE_LIMIT: Duration = Duration::from_secs(10);

/// Whether an error says that the slot of the keys is being moved.
pub(crate) fn is_moving(error: &StoreError) -> bool {
    matches!(error_code(error), "ASK" | "TRYAGAIN")
}

/// A command for one key.
pub(crate) type KeyCommand = (&'static str, Vec<Value>);

/// Connections to the nodes to which slots are being moved.
#[derive(Default)]
pub(super) struct ImportingNodes(Mutex<Vec<Arc<ImportingNode>>>);

struct ImportingNode {
    server: Server,
    connection: Shared<BoxFuture<'static, Result<Arc<Connection>, StoreError>>>,
    last: Mutex<LastUse>,
}

struct LastUse {
    asked: Instant,
    answered: Option<Instant>,
}

impl ImportingNodes {
    fn lock(&self) -> MutexGuard<'_, Vec<Arc<ImportingNode>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn remove(&self, node: &Arc<ImportingNode>) {
        self.lock().retain(|known| !Arc::ptr_eq(known, node));
    }
}

impl ImportingNode {
    fn last(&self) -> MutexGuard<'_, LastUse> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a connection may still come, or can be used.
    fn is_usable(&self) -> bool {
        match self.connection.peek() {
            None => true,
            Some(Ok(connection)) => !connection.is_closed(),
            Some(Err(_)) => false,
        }
    }
}

/// A question that is under way. If nobody waits for its answer any more, and none has come since
/// it was sent, the connection is not used again.
struct Question<'a> {
    nodes: &'a ImportingNodes,
    node: &'a Arc<ImportingNode>,
    sent: Instant,
}

impl Drop for Question<'_> {
    fn drop(&mut self) {
        let is_silent = self.node.last().answered.is_none_or(|answered| answered < self.sent);
        if is_silent && self.node.connection.peek().is_some() {
            self.nodes.remove(self.node);
        }
    }
}

impl Topology {
    /// Sends a command for one key over a connection, and again to the node to which the key was
    /// moved.
    pub(crate) async fn command_for_key(
        self: &Arc<Self>,
        connection: &Connection,
        command: &'static str,
        arguments: Vec<Value>,
        limit: Duration,
    ) -> Result<Value, StoreError> {
        match connection.command(command, arguments.clone(), limit).await {
            Err(error) if error_code(&error) == "ASK" => {
                let asked = self.ask_importing(&error, connection, vec![(command, arguments)]);
                let answers = within(limit, asked).await?;
                answers.into_iter().next().ok_or_else(|| unexpected_reply("redis"))
            }
            reply => reply,
        }
    }

    /// Sends commands to the node that `ASK`, the answer of the node `asked`, names: that is
    /// believed as long as the node that named it is. The caller says how long to wait.
    pub(crate) async fn ask_importing(
        self: &Arc<Self>,
        redirect: &StoreError,
        asked: &Connection,
        commands: Vec<KeyCommand>,
    ) -> Result<Vec<Value>, StoreError> {
        let believed = asked.lease().as_it_stands();
        let server = self.redirected(redirect, &asked.server).ok_or_else(|| redirect.clone())?;
        let node = self.importing_node(&server);
        let _question = Question { nodes: &self.importing, node: &node, sent: Instant::now() };
        let connection = node.connection.clone().await.map_err(out_of_reach)?;
        let pipeline = connection.client.pipeline();
        let count = commands.len();
        for (command, arguments) in commands {
            for (command, arguments) in [("ASKING", Vec::new()), (command, arguments)] {
                let command = CustomCommand::new_static(command, None::<u16>, false);
                // It is only put into a queue.
                let queued: Result<Value, _> = pipeline.custom(command, arguments).await;
                queued.map_err(|error| classify(&error))?;
            }
        }
        let replies = pipeline.try_all::<Value>().await;
        node.last().answered = Some(Instant::now());
        if let [Err(error)] = replies.as_slice() {
            return Err(out_of_reach(classify(error)));
        }
        let mut answers = Vec::with_capacity(count);
        for pair in replies.chunks_exact(2) {
            for reply in pair {
                reply.as_ref().map_err(classify)?;
            }
            answers.extend(pair.last().and_then(|reply| reply.clone().ok()));
        }
        asked.lease().check(believed)?;
        if answers.len() == count { Ok(answers) } else { Err(unexpected_reply("redis")) }
    }

    /// The connection to a node, which may still be being made: in a task of its own, because a
    /// check has less time than that may take.
    fn importing_node(self: &Arc<Self>, server: &Server) -> Arc<ImportingNode> {
        let mut nodes = self.importing.lock();
        nodes.retain(|node| node.is_usable());
        if let Some(known) = nodes.iter().find(|node| node.server == *server) {
            known.last().asked = Instant::now();
            return Arc::clone(known);
        }
        // Nobody names it as the owner of the slot yet; the node that named it is believed, as long
        // as that is proved to be the owner.
        let node = ServerConfig::Centralized { server: server.clone() };
        let (topology, node) = (Arc::clone(self), ProvedPrimary::alone(node));
        let connecting =
            tokio::spawn(
                async move { topology.connect(node, CONNECT_TIMEOUT).await.map(Arc::new) },
            );
        let connection = async move {
            connecting.await.unwrap_or_else(|error| {
                let ended = "the task of the connection has ended";
                Err(StoreError::new(StoreErrorKind::Other, ended).with_source(error))
            })
        };
        let node = Arc::new(ImportingNode {
            server: server.clone(),
            connection: connection.boxed().shared(),
            last: Mutex::new(LastUse { asked: Instant::now(), answered: None }),
        });
        nodes.push(Arc::clone(&node));
        tokio::spawn(close_when_idle(Arc::downgrade(self), Arc::downgrade(&node)));
        node
    }

    /// The node that `ASK <slot> <host>:<port>` names, by the answer of `asked`.
    fn redirected(&self, redirect: &StoreError, asked: &ServerConfig) -> Option<Server> {
        let words = redirect.told()?.downcast_ref::<fred::error::Error>()?.details();
        let asked = asked.hosts().into_iter().next()?;
        let server = self.access.address_map.dialled(read_redirect(words, &asked)?);
        // By which name its certificate is checked is known from the list of nodes.
        let known = self.prober().and_then(|prober| {
            prober.read(|ballot| ballot.servers().find(|known| **known == server).cloned())
        });
        Some(known.unwrap_or(server))
    }
}

/// The server that was asked is well; it is the cluster that cannot answer for the slot.
fn out_of_reach(error: StoreError) -> StoreError {
    use StoreErrorKind::{Loading, NotPrimary, Timeout, Unreachable};
    if !matches!(error.kind(), Unreachable | Timeout | Loading | NotPrimary) {
        return error;
    }
    let problem = "the node to which the slot is being moved cannot be used";
    StoreError::new(StoreErrorKind::Cluster, problem).with_source(error)
}

/// Reads `ASK <slot> <host>:<port>`. Without a host the node is at that of the node that was asked.
pub(super) fn read_redirect(words: &str, asked: &Server) -> Option<Server> {
    let mut words = words.split(' ').skip_while(|word| *word != "ASK").skip(2);
    let (host, port) = words.next()?.rsplit_once(':')?;
    let port = port.parse().ok()?;
    Some(match host.trim_matches(['[', ']']) {
        "" | "?" => Server { port, ..asked.clone() },
        host => Server::new(host, port),
    })
}

/// Closes the connection to a node to which nothing is moved any more.
async fn close_when_idle(topology: Weak<Topology>, node: Weak<ImportingNode>) {
    loop {
        sleep(IDLE_LIMIT).await;
        let (Some(topology), Some(node)) = (topology.upgrade(), node.upgrade()) else { return };
        let asked = node.last().asked;
        if asked.elapsed() >= IDLE_LIMIT {
            return topology.importing.remove(&node);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redirect_names_the_node_that_is_to_be_asked() {
        let asked = Server::new("10.0.0.1", 7000);
        let read =
            |words| read_redirect(words, &asked).map(|found| (found.host.to_string(), found.port));
        for (words, host) in [
            ("ASK 3999 10.0.0.2:7001", "10.0.0.2"),
            ("ASK 3999 node-2.test:7001", "node-2.test"),
            ("ASK 3999 fd00::2:7001", "fd00::2"),
            ("ASK 3999 :7001", "10.0.0.1"),
            ("ASK 3999 ?:7001", "10.0.0.1"),
        ] {
            assert_eq!(read(words), Some((host.to_owned(), 7001)), "{words}");
        }
        for words in ["", "ASK", "ASK 3999", "ASK 3999 h", "ASK 3999 h:x", "MOVED 3999 h:1"] {
            assert_eq!(read(words), None, "{words}");
        }
    }
}
