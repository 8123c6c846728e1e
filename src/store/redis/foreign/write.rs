//! What is revoked by us, told to the lists that are to hear of it.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fred::types::Value;
use futures::stream::{self, StreamExt as _};

use super::judge::{Meaning, Verdict};
use super::list::{Entry, List, Lists, Writes};
use super::template::{Field, Unfit};
use super::{Foreign, Inner};
use crate::clock::Timestamp;
use crate::revocation::{Action, Extent, Origin, Outcome, Revocation, Target, TargetKind};
use crate::store::redis::ask::Command;
use crate::store::redis::script::Script;
use crate::store::{Receipt, StoreError, StoreErrorKind};

/// The script that lists something.
pub(crate) const LIST: Script = Script {
    source: include_str!("write.lua"),
    sha: "51f95d9932c421a096a32a6e4ed7f8fb95902d0f",
    writes: true,
};
/// How many entries are written at once.
const AT_ONCE: usize = 64;

/// An entry that is to be written or taken off, for one of the changes.
pub(crate) struct Task {
    change: usize,
    list: Arc<List>,
    entry: Entry,
    deed: Deed,
}

enum Deed {
    /// Lists it, with the words and the user of a document.
    List {
        reason: Option<Arc<str>>,
        user: Option<Box<str>>,
    },
    Unlist,
}

impl Lists {
    /// What the lists are to be told of these changes.
    pub(crate) fn tasks(&self, changes: &[Revocation]) -> Vec<Task> {
        let written: Vec<_> = self.all.iter().filter(|list| list.writes == Writes::Too).collect();
        let mut tasks = Vec::new();
        for (n, change) in changes.iter().enumerate() {
            for list in written.iter().filter(|list| list.hears_of(change)) {
                match self.entry_for(list, change) {
                    Ok(entry) => {
                        let deed = match change.action {
                            Action::Reinstate => Deed::Unlist,
                            Action::Revoke(_) => Deed::List {
                                reason: change.reason.clone(),
                                user: match &change.origin {
                                    Origin::Token(token) => token.subject().map(Into::into),
                                    Origin::Id | Origin::List => None,
                                },
                            },
                        };
                        tasks.push(Task { change: n, list: Arc::clone(list), entry, deed });
                    }
                    // What has no name in a list was never in it.
                    Err(Unfit::Missing(_)) => {}
                    Err(Unfit::Odd(..) | Unfit::NoText) => tracing::warn!(
                        list = &*list.name,
                        "a revocation was not written to a foreign list: what its key is made of \
                         is not at hand"
                    ),
                }
            }
        }
        tasks
    }

    fn entry_for(&self, list: &List, change: &Revocation) -> Result<Entry, Unfit> {
        match &change.origin {
            Origin::Token(token) => {
                let fillings = self.fillings(token);
                list.entry(|field| fillings.fill(field))
            }
            Origin::Id | Origin::List => {
                list.entry(|field| id_for(list, field, &change.target).ok_or(Unfit::NoText))
            }
        }
    }
}

/// What the id of a target fills, if it is all that the list needs.
fn id_for<'t>(list: &List, field: &Field, target: &'t Target) -> Option<Cow<'t, str>> {
    let Field::Claim(claim) = field else { return None };
    let is_all = list.claims.iter().all(|known| known == claim);
    let is_named = target.claim_name().is_none_or(|name| *name == **claim);
    (is_all && is_named).then(|| target.id().into())
}

impl List {
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
        let Meaning::Json { flag } = &self.meaning else { return self.value.to_string() };
        let mut document = serde_json::Map::new();
        document.insert("reason".into(), reason.unwrap_or("revoked").into());
        document.extend(user.map(|user| ("user_id".to_owned(), user.into())));
        document.insert(flag.as_deref().unwrap_or("revoked_at").into(), at.into());
        serde_json::Value::Object(document).to_string()
    }

    fn live_values(&self) -> &[Box<str>] {
        match &self.meaning {
            Meaning::Values { live, .. } => live,
            Meaning::Present | Meaning::Json { .. } => &[],
        }
    }
}

impl Inner {
    /// Writes our own records, and then to the lists that are to hear of it.
    pub(in crate::store::redis) async fn write_with_lists(
        &self,
        foreign: &Foreign,
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
        tasks: Vec<Task>,
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

    async fn tell_list(&self, task: Task, at: u64, lifetime: Duration) -> Result<(), StoreError> {
        let Task { list, entry, deed, .. } = task;
        // A key of ours that another name happens to be must not be touched.
        let ours = format!("{}:{{", self.settings.prefix);
        if entry.key.starts_with(&ours) {
            let problem = "an entry would be a key of this crate, and was not touched";
            return Err(in_force(&list.error(StoreErrorKind::InvalidInput, problem)));
        }
        let slot = fred::util::redis_keyslot(entry.key.as_bytes());
        let key = Bytes::from(entry.key);
        let result = match (entry.member, deed) {
            (Some(member), Deed::List { .. }) => {
                self.send_to_list(slot, Command::Other("SADD"), vec![key, member.into()]).await
            }
            (Some(member), Deed::Unlist) => {
                self.send_to_list(slot, Command::Other("SREM"), vec![key, member.into()]).await
            }
            (None, Deed::List { reason, user }) => {
                let document = list.document(reason.as_deref(), user.as_deref(), at);
                let millis = lifetime.as_millis().max(1).to_string();
                let mut arguments =
                    vec![Bytes::from_static(b"1"), key, document.into(), millis.into()];
                arguments
                    .extend(list.live_values().iter().map(|value| Bytes::from(value.to_string())));
                self.send_to_list(slot, Command::Script(&LIST), arguments).await
            }
            (None, Deed::Unlist) => self.unlist(&list, slot, key).await,
        };
        result.map(drop).map_err(|error| in_force(&self.plain(&list, &error)))
    }

    /// Takes an entry off if it could be one of ours. Between the two commands it can only become
    /// one that means the same.
    async fn unlist(&self, list: &List, slot: u16, key: Bytes) -> Result<Value, StoreError> {
        let found = self.send_to_list(slot, Command::Other("GET"), vec![key.clone()]).await?;
        let is_ours = match &list.meaning {
            Meaning::Present => found.as_bytes() == Some(list.value.as_bytes()),
            meaning => matches!(meaning.judge(&found), Verdict::Revoked(_)),
        };
        if is_ours {
            self.send_to_list(slot, Command::Other("DEL"), vec![key]).await
        } else {
            Ok(found)
        }
    }

    async fn send_to_list(
        &self,
        slot: u16,
        command: Command,
        arguments: Vec<Bytes>,
    ) -> Result<Value, StoreError> {
        let nodes = self.foreign.as_ref().and_then(|foreign| foreign.nodes.as_ref());
        match nodes {
            Some(nodes) => {
                let seize = || nodes.seize(slot).inspect_err(|error| nodes.doubt(error));
                self.send_over(seize, command, || (None, arguments.clone()))
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
