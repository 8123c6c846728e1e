//! Asks the lists about a token.

use std::sync::Arc;
use std::time::Duration;

use fred::types::Value;
use futures::FutureExt as _;
use futures::stream::FuturesUnordered;
use tokio::time::{Instant, sleep};

use super::super::batch::BatchedChecks;
use super::super::check::first_revoked;
use super::super::connection::{error_code, is_command_refused, unexpected_reply};
use super::super::core::StoreCore;
use super::super::error::ConnectError;
use super::super::supervised::Permit;
use super::super::time_limit::TimeLimit;
use super::cluster::ClusterConnections;
use super::list::{CompiledList, CompiledLists, ListEntry};
use super::unsent::{ListTurn, UnsentQuestions, identity_of};
use crate::config::ConfigError;
use crate::store::{Lookup, Standing, StoreError, StoreErrorKind};
use crate::verified::VerifiedToken;

/// For how long a question waits for others that ask the same.
const JOIN_FOR: Duration = Duration::from_millis(1);

/// The foreign lists of a store.
pub(crate) struct ForeignLists {
    pub(crate) lists: CompiledLists,
    /// Questions that have not been sent.
    pub(crate) unsent: UnsentQuestions,
    /// In a cluster, the connections to the nodes of the foreign keys. Elsewhere they are where our
    /// own records are.
    pub(crate) nodes: Option<ClusterConnections>,
}

/// A command that asks one list about one token.
pub(super) struct ListQuestion {
    list: Arc<CompiledList>,
    slot: u16,
    pub(super) command: &'static str,
    pub(super) arguments: Vec<Value>,
}

impl ListQuestion {
    fn new(list: &Arc<CompiledList>, entry: ListEntry) -> Self {
        let slot = fred::util::redis_keyslot(entry.key.as_bytes());
        let (command, arguments) = list.question(entry);
        Self { list: Arc::clone(list), slot, command, arguments }
    }
}

impl ForeignLists {
    /// The standing of a token by our own records and by the lists, all asked at once.
    pub(crate) fn check(
        self: &Arc<Self>,
        core: &Arc<StoreCore>,
        token: &Arc<VerifiedToken>,
    ) -> Lookup {
        let own = core.check(token);
        let (questions, failure) = self.questions(token);
        let (lists, core) = (Arc::clone(self), Arc::clone(core));
        Lookup::Later(
            async move {
                let own = own.answer().boxed();
                let ask = |question| lists.ask(&core, question).boxed();
                let answers: FuturesUnordered<_> =
                    questions.into_iter().map(ask).chain([own]).collect();
                first_revoked(answers, failure).await
            }
            .boxed(),
        )
    }

    /// The questions about a token, and why one could not be made.
    pub(super) fn questions(
        &self,
        token: &VerifiedToken,
    ) -> (Vec<ListQuestion>, Option<StoreError>) {
        let values = self.lists.placeholder_values(token);
        let mut questions = Vec::with_capacity(self.lists.all.len());
        let mut failure = None;
        for list in self.lists.all.iter().filter(|list| list.is_about(token.issuer())) {
            match list.entry_of(&values) {
                Ok(Some(entry)) => questions.push(ListQuestion::new(list, entry)),
                Ok(None) => {}
                Err(error) => failure = Some(error),
            }
        }
        (questions, failure)
    }

    /// Asks every list about an entry that is not there, so that a missing right shows at the start
    /// and not at the first request.
    pub(crate) async fn try_all(&self, core: &StoreCore) -> Result<(), StoreError> {
        for list in &self.lists.all {
            let Ok(entry) = list.entry(|_| Ok("jwt-revocation-trial".into())) else { continue };
            match self.ask(core, ListQuestion::new(list, entry)).await {
                Ok(_) => {}
                Err(error) if error.kind() == StoreErrorKind::Denied => return Err(error),
                Err(error) => {
                    tracing::warn!(error = %error.chain(),
                        "a foreign list cannot be read at the moment");
                }
            }
        }
        Ok(())
    }

    /// Refuses a server that may drop keys, if there is a list to which that is a revocation.
    ///
    /// # Errors
    /// [`ConnectError::Config`] if it may, or does not say so.
    pub(crate) async fn refuse_eviction(&self, core: &StoreCore) -> Result<(), ConnectError> {
        let Some(list) = self.lists.lossy() else { return Ok(()) };
        let oops = |problem: String| ConfigError::new("foreign_list", problem);
        let info = match memory_info(core).await {
            Ok(info) => info,
            Err(error) if is_command_refused(&error) => Value::Null,
            Err(error) => return Err(ConnectError::Store(error)),
        };
        let info = info.as_str().unwrap_or_default();
        let field = |name| info.lines().find_map(|line| line.trim_end().strip_prefix(name));
        match (field("maxmemory_policy:"), field("maxmemory:")) {
            (Some("noeviction"), _) | (Some(_), Some("0")) => Ok(()),
            (Some(policy), _) => Err(oops(format!(
                "`{}` takes what is not there for revoked, and the maxmemory-policy of this server \
                 is {policy}: a full memory would sign everybody out; set it to noeviction",
                list.name
            ))
            .into()),
            (None, _) => Err(oops(format!(
                "`{}` takes what is not there for revoked, and this server does not say whether it \
                 evicts keys; give the user the right +info, or undo the rename-command of INFO",
                list.name
            ))
            .into()),
        }
    }

    async fn ask(&self, core: &StoreCore, question: ListQuestion) -> Result<Standing, StoreError> {
        let ListQuestion { list, slot, command, arguments } = question;
        let limit = core.options.check_timeout;
        let answer = if self.is_crowded(core, slot) {
            self.ask_together(core, slot, command, arguments, limit).await
        } else {
            match self.acquire(core, slot) {
                Ok(permit) => self.ask_over(permit, command, arguments, limit).await,
                Err(error) => Err(error),
            }
        };
        match answer {
            Ok(answer) => list.decide(&answer),
            Err(error) => Err(self.without_key(&list, &error)),
        }
    }

    /// Where many questions are open, one that others ask as well, and that has not been sent, is
    /// sent once, and takes one permit: see [`UnsentQuestions`].
    async fn ask_together(
        &self,
        core: &StoreCore,
        slot: u16,
        command: &'static str,
        arguments: Vec<Value>,
        limit: Duration,
    ) -> Result<Value, StoreError> {
        let mut limit = TimeLimit::start(limit);
        let identity = identity_of(command, &arguments);
        loop {
            let unsent = match self.unsent.join(&identity) {
                ListTurn::First(unsent) => unsent,
                ListTurn::Joined(answered) => match limit.wait(answered).await {
                    Ok(Ok(answer)) => return answer,
                    // Whoever was to ask has gone.
                    Ok(Err(_)) => continue,
                    Err(late) => return Err(late.error()),
                },
            };
            let permit = match self.acquire(core, slot) {
                Ok(permit) => permit,
                Err(error) => return unsent.answer(Err(error)),
            };
            sleep(JOIN_FOR).await;
            let sent = unsent.send();
            let left = limit.deadline().saturating_duration_since(Instant::now());
            return sent.answer(self.ask_over(permit, command, arguments, left).await);
        }
    }

    /// Whether so many questions are open that it pays to look for one to join.
    fn is_crowded(&self, core: &StoreCore, slot: u16) -> bool {
        match &self.nodes {
            Some(nodes) => nodes.is_crowded(slot),
            None => core.checks.first().is_some_and(BatchedChecks::is_crowded),
        }
    }

    /// Asks again if the connection is lost meanwhile, as long as there is time.
    async fn ask_over(
        &self,
        mut permit: Permit,
        command: &'static str,
        arguments: Vec<Value>,
        limit: Duration,
    ) -> Result<Value, StoreError> {
        let deadline = Instant::now() + limit;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let answer = match permit.command(command, arguments.clone(), left).await {
                // Only in a cluster can slots be moved.
                Err(error) if self.nodes.is_some() => {
                    let again = arguments.clone();
                    permit.command_while_moving(error, command, again, limit).await
                }
                answer => answer,
            };
            match answer {
                Err(error) => permit.next_connection(error, deadline).await?,
                answer => return answer,
            }
        }
    }

    /// The right to ask for a foreign key of this slot.
    fn acquire(&self, core: &StoreCore, slot: u16) -> Result<Permit, StoreError> {
        match &self.nodes {
            Some(nodes) => nodes.acquire(slot),
            None => core.checks.first().ok_or_else(|| unexpected_reply("redis"))?.acquire(),
        }
    }

    /// An error about a list. See [`without_key`].
    pub(super) fn without_key(&self, list: &CompiledList, error: &StoreError) -> StoreError {
        if let Some(nodes) = &self.nodes {
            nodes.refresh_after(error);
        }
        without_key(list, error)
    }
}

async fn memory_info(core: &StoreCore) -> Result<Value, StoreError> {
    let connection = core.writes.first().ok_or_else(|| unexpected_reply("redis"))?;
    let permit = connection.acquire()?;
    permit.command("INFO", vec![Value::from("memory")], core.options.write_timeout).await
}

/// The same error without what Redis and its client may have quoted: the key can be a token.
pub(super) fn without_key(list: &CompiledList, error: &StoreError) -> StoreError {
    let code = error_code(error);
    let is_code = !code.is_empty() && code.bytes().all(|byte| byte.is_ascii_uppercase());
    let problem =
        if is_code { format!("redis answers {code}") } else { description(error).to_owned() };
    list.error(error.kind(), &problem)
}

/// What is said of an error that is not one of Redis itself.
fn description(error: &StoreError) -> &'static str {
    use StoreErrorKind as Kind;
    match error.kind() {
        Kind::Timeout => "redis did not answer in time",
        Kind::Overloaded => "too many questions to redis are open, or this process stood still",
        Kind::Unreachable => "redis is out of reach",
        Kind::Cluster => "the cluster is not known to serve the slot",
        Kind::NotPrimary => "the server is not a primary",
        _ => "redis gave no usable answer",
    }
}
