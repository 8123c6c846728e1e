//! What is revoked by us, told to the lists that are to hear of it.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fred::types::Value;
use futures::stream::{self, StreamExt as _};

use super::judge::{ListVerdict, ValueMeaning};
use super::list::{CompiledList, CompiledLists, ListEntry, ListWrites};
use super::template::{FillError, Placeholder};
use super::{ForeignLists, StoreInner};
use crate::clock::Timestamp;
use crate::revocation::{Action, Extent, Origin, Outcome, Revocation, Target, TargetKind};
use crate::store::redis::ask::StoreCommand;
use crate::store::redis::script::LuaScript;
use crate::store::{Receipt, StoreError, StoreErrorKind};

/// The script that lists something.
pub(crate) const LIST: LuaScript = LuaScript {
    source: include_str!("write.lua"),
    sha: "51f95d9932c421a096a32a6e4ed7f8fb95902d0f",
    writes: true,
};
/// How many entries are written at once.
const AT_ONCE: usize = 64;

/// An entry that is to be written or taken off, for one of the changes.
pub(crate) struct ListWrite {
    change: usize,
    list: Arc<CompiledList>,
    entry: ListEntry,
    deed: ListChange,
}

enum ListChange {
    /// CompiledLists it, with the words and the user of a document.
    Add {
        reason: Option<Arc<str>>,
        user: Option<Box<str>>,
    },
    Remove,
}

impl CompiledLists {
    /// What the lists are to be told of these changes.
    pub(crate) fn tasks(&self, changes: &[Revocation]) -> Vec<ListWrite> {
        let written: Vec<_> =
            self.all.iter().filter(|list| list.writes == ListWrites::Too).collect();
        let mut tasks = Vec::new();
        for (n, change) in changes.iter().enumerate() {
            for list in written.iter().filter(|list| list.hears_of(change)) {
                match self.entry_for(list, change) {
                    Ok(entry) => {
                        let deed = match change.action {
                            Action::Reinstate => ListChange::Remove,
                            Action::Revoke(_) => ListChange::Add {
                                reason: change.reason.clone(),
                                user: match &change.origin {
                                    Origin::Token(token) => token.subject().map(Into::into),
                                    Origin::Id | Origin::List => None,
                                },
                            },
                        };
                        tasks.push(ListWrite { change: n, list: Arc::clone(list), entry, deed });
                    }
                    // What has no name in a list was never in it.
                    Err(FillError::Missing(_)) => {}
                    Err(FillError::Odd(..) | FillError::NoText) => tracing::warn!(
                        list = &*list.name,
                        "a revocation was not written to a foreign list: what its key is made of \
                         is not at hand"
                    ),
                }
            }
        }
        tasks
    }

    fn entry_for(&self, list: &CompiledList, change: &Revocation) -> Result<ListEntry, FillError> {
        match &change.origin {
            Origin::Token(token) => {
                let fillings = self.fillings(token);
                list.entry(|field| fillings.fill(field))
            }
            Origin::Id | Origin::List => {
                list.entry(|field| id_for(list, field, &change.target).ok_or(FillError::NoText))
            }
        }
    }
}

/// What the id of a target fills, if it is all that the list needs.
fn id_for<'t>(
    list: &CompiledList,
    field: &Placeholder,
    target: &'t Target,
) -> Option<Cow<'t, str>> {
    let Placeholder::Claim(claim) = field else { return None };
    let is_all = list.claims.iter().all(|known| known == claim);
    let is_named = target.claim_name().is_none_or(|name| *name == **claim);
    (is_all && is_named).then(|| target.id().into())
}

impl CompiledList {
    fn hears_of(&self, change: &Revocation) -> bool {
        let kind = match change.target.kind() {
            TargetKind::SigningInput => TargetKind::Token,
            kind => kind,
        };
        let issuer = change.target.issuer_name();
        // A list knows no "so far": all tokens of the target would be refused, also those of a
        // login after it.
        let is_all = matches!(change.action, Action::Revoke(Extent::All) | Action::Reinstate);
        // What was taken over from a list is in it, and has its own end there.
        let is_news = !matches!(change.origin, Origin::List);
        kind == self.kind && is_all && is_news && self.is_about(issuer)
    }

    /// What is written under a key.
    fn document(&self, reason: Option<&str>, user: Option<&str>, at: u64) -> String {
        let ValueMeaning::Json { flag } = &self.meaning else { return self.value.to_string() };
        let mut document = serde_json::Map::new();
        document.insert("reason".into(), reason.unwrap_or("revoked").into());
        document.extend(user.map(|user| ("user_id".to_owned(), user.into())));
        document.insert(flag.as_deref().unwrap_or("revoked_at").into(), at.into());
        serde_json::Value::Object(document).to_string()
    }

    fn live_values(&self) -> &[Box<str>] {
        match &self.meaning {
            ValueMeaning::Values { live, .. } => live,
            ValueMeaning::Present | ValueMeaning::Json { .. } => &[],
        }
    }
}

impl StoreInner {
    /// ListWrites our own records, and then to the lists that are to hear of it.
    pub(in crate::store::redis) async fn write_with_lists(
        &self,
        foreign: &ForeignLists,
        changes: Vec<Revocation>,
    ) -> Result<Vec<Receipt>, StoreError> {
        let tasks = foreign.lists.tasks(&changes);
        let kept: Vec<_> = changes.iter().map(|change| (change.until, change.lifetime)).collect();
        let receipts = self.write(changes).await?;
        self.tell_lists(tasks, &kept, &receipts).await?;
        Ok(receipts)
    }

    async fn tell_lists(
        &self,
        tasks: Vec<ListWrite>,
        kept: &[(Timestamp, Duration)],
        receipts: &[Receipt],
    ) -> Result<(), StoreError> {
        let told = tasks.into_iter().filter_map(|task| {
            let (receipt, (until, lifetime)) = (receipts.get(task.change)?, kept.get(task.change)?);
            let until = (*until).max(receipt.at.saturating_add(*lifetime));
            // What is over already needs no entry.
            (receipt.outcome != Outcome::AlreadyExpired).then(|| {
                self.tell_list(
                    task,
                    receipt.at.as_secs(),
                    until.saturating_duration_since(receipt.at),
                )
            })
        });
        let mut told = stream::iter(told.collect::<Vec<_>>()).buffer_unordered(AT_ONCE);
        let mut failure = None;
        while let Some(answer) = told.next().await {
            failure = answer.err().or(failure);
        }
        failure.map_or(Ok(()), Err)
    }

    async fn tell_list(
        &self,
        task: ListWrite,
        at: u64,
        lifetime: Duration,
    ) -> Result<(), StoreError> {
        let ListWrite { list, entry, deed, .. } = task;
        // A key of ours that another name happens to be must not be touched.
        let ours = format!("{}:{{", self.settings.prefix);
        if entry.key.starts_with(&ours) {
            let problem = "an entry would be a key of this crate, and was not touched";
            return Err(in_force(&list.error(StoreErrorKind::InvalidInput, problem)));
        }
        let slot = fred::util::redis_keyslot(entry.key.as_bytes());
        let key = Bytes::from(entry.key);
        let result = match (entry.member, deed) {
            (Some(member), ListChange::Add { .. }) => {
                self.send_to_list(slot, StoreCommand::Plain("SADD"), vec![key, member.into()]).await
            }
            (Some(member), ListChange::Remove) => {
                self.send_to_list(slot, StoreCommand::Plain("SREM"), vec![key, member.into()]).await
            }
            (None, ListChange::Add { reason, user }) => {
                let document = list.document(reason.as_deref(), user.as_deref(), at);
                let millis = lifetime.as_millis().max(1).to_string();
                let mut arguments =
                    vec![Bytes::from_static(b"1"), key, document.into(), millis.into()];
                arguments
                    .extend(list.live_values().iter().map(|value| Bytes::from(value.to_string())));
                self.send_to_list(slot, StoreCommand::Script(&LIST), arguments).await
            }
            (None, ListChange::Remove) => self.unlist(&list, slot, key).await,
        };
        result.map(drop).map_err(|error| in_force(&self.plain(&list, &error)))
    }

    /// Takes an entry off if it could be one of ours. Between the two commands it can only become
    /// one that means the same.
    async fn unlist(
        &self,
        list: &CompiledList,
        slot: u16,
        key: Bytes,
    ) -> Result<Value, StoreError> {
        let found = self.send_to_list(slot, StoreCommand::Plain("GET"), vec![key.clone()]).await?;
        let is_ours = match &list.meaning {
            ValueMeaning::Present => found.as_bytes() == Some(list.value.as_bytes()),
            meaning => matches!(meaning.judge(&found), ListVerdict::Revoked(_)),
        };
        if is_ours {
            self.send_to_list(slot, StoreCommand::Plain("DEL"), vec![key]).await
        } else {
            Ok(found)
        }
    }

    async fn send_to_list(
        &self,
        slot: u16,
        command: StoreCommand,
        arguments: Vec<Bytes>,
    ) -> Result<Value, StoreError> {
        let nodes = self.foreign.as_ref().and_then(|foreign| foreign.nodes.as_ref());
        match nodes {
            Some(nodes) => {
                let acquire = || nodes.acquire(slot).inspect_err(|error| nodes.doubt(error));
                self.send_over(acquire, command, || (None, arguments.clone()))
                    .await
                    .map(|sent| sent.reply)
            }
            None => self.send(0, command, arguments).await.map(|(reply, _)| reply),
        }
    }
}

/// The change itself was written; the list was not.
fn in_force(error: &StoreError) -> StoreError {
    StoreError::new(
        error.kind(),
        format!("the change is in force here, and may be repeated, but {error}"),
    )
}
