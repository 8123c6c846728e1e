//! Writes our own revocations to the lists that are declared with writes.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fred::types::Value;
use futures::stream::{self, StreamExt as _};

use super::check::ForeignLists;
use super::decide::{ListVerdict, ValueMeaning};
use super::list::{AbsentEntry, CompiledList, CompiledLists, ListEntry, ListWrites};
use super::template::{FillError, Placeholder};
use crate::clock::Timestamp;
use crate::revocation::{
    Action, Extent, Outcome, Revocation, RevocationOrigin, Target, TargetKind,
};
use crate::store::redis::command::StoreCommand;
use crate::store::redis::core::StoreCore;
use crate::store::redis::script::LuaScript;
use crate::store::{Receipt, StoreError, StoreErrorKind};
use crate::token::TokenProfile;

/// The script that writes an entry.
pub(crate) const LIST: LuaScript = LuaScript {
    source: include_str!("write.lua"),
    sha: "762b9daa9c9ae699b4ffe1df3d9a4c0ee65c6da6",
    writes: true,
};
/// How many entries are written at once.
const AT_ONCE: usize = 64;

/// An entry that is to be written or taken off, for one of the changes.
pub(crate) struct ListWrite {
    /// The position of the change among the changes.
    change: usize,
    list: Arc<CompiledList>,
    entry: ListEntry,
    action: ListAction,
    /// When the entry may go, if that is another time than that of the change.
    until: Option<Timestamp>,
}

/// How much of a change a list can say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expressed {
    /// All of it.
    Fully,
    /// That the token is revoked by which it was asked for.
    ThisToken,
    Nothing,
}

enum ListAction {
    /// Writes the entry, with the reason and the user of a document.
    Add {
        reason: Option<Arc<str>>,
        user: Option<Box<str>>,
    },
    Remove,
}

impl CompiledLists {
    /// What has to be written to the lists for these changes.
    pub(crate) fn writes_for(&self, changes: &[Revocation]) -> Vec<ListWrite> {
        let written: Vec<_> =
            self.all.iter().filter(|list| list.writes == ListWrites::Too).collect();
        let mut writes = Vec::new();
        for (n, change) in changes.iter().enumerate() {
            for list in &written {
                let expressed = list.expresses(change);
                if expressed == Expressed::Nothing {
                    continue;
                }
                match self.entry_for(list, change) {
                    Ok(entry) => {
                        let until = match (&change.origin, expressed) {
                            (RevocationOrigin::Token(token), Expressed::ThisToken) => {
                                Some(TokenProfile::forget_token_at(token.expires_at()))
                            }
                            _ => None,
                        };
                        let action = match change.action {
                            Action::Reinstate => ListAction::Remove,
                            Action::Revoke(_) => ListAction::Add {
                                reason: change.reason.clone(),
                                user: match &change.origin {
                                    RevocationOrigin::Token(token) => {
                                        token.subject().map(Into::into)
                                    }
                                    RevocationOrigin::Id | RevocationOrigin::List => None,
                                },
                            },
                        };
                        writes.push(ListWrite {
                            change: n,
                            list: Arc::clone(list),
                            entry,
                            action,
                            until,
                        });
                    }
                    // Without the claim there is no entry.
                    Err(FillError::Missing(_)) => {}
                    Err(FillError::Odd(..) | FillError::NoText) => tracing::warn!(
                        list = &*list.name,
                        "a revocation was not written to a foreign list: what its key is made of \
                         is not at hand"
                    ),
                }
            }
        }
        writes
    }

    /// The lists that would have to say this, if none of those that are written can.
    pub(crate) fn unlisted(&self, change: &Revocation) -> Vec<Box<str>> {
        let is_news = matches!(change.action, Action::Revoke(_))
            && !matches!(change.origin, RevocationOrigin::List);
        let concerned: Vec<_> = self
            .all
            .iter()
            .filter(|list| is_news && list.writes == ListWrites::Too)
            .filter(|list| list.is_about(change.target.issuer_name()))
            .collect();
        let is_said = |list: &&Arc<CompiledList>| {
            list.expresses(change) == Expressed::Fully && self.entry_for(list, change).is_ok()
        };
        if concerned.iter().any(is_said) {
            return Vec::new();
        }
        concerned.into_iter().map(|list| (&*list.name).into()).collect()
    }

    fn entry_for(&self, list: &CompiledList, change: &Revocation) -> Result<ListEntry, FillError> {
        match &change.origin {
            RevocationOrigin::Token(token) => {
                let values = self.placeholder_values(token);
                list.entry(|field| values.fill(field))
            }
            RevocationOrigin::Id | RevocationOrigin::List => {
                list.entry(|field| id_for(list, field, &change.target).ok_or(FillError::NoText))
            }
        }
    }
}

/// The id of the target, if it is the only value that the list needs.
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
    fn expresses(&self, change: &Revocation) -> Expressed {
        let kind = match change.target.kind() {
            TargetKind::SigningInput => TargetKind::Token,
            kind => kind,
        };
        let issuer = change.target.issuer_name();
        // A list of the revoked cannot say "issued so far": it would also refuse tokens of a later
        // login. In a list of the live, that login makes an entry anew.
        let is_all = match change.action {
            Action::Revoke(Extent::All) | Action::Reinstate => true,
            Action::Revoke(Extent::IssuedSoFar) => self.absent == AbsentEntry::Revoked,
            Action::Revoke(Extent::IssuedUntil(_)) => false,
        };
        // What was imported from a list is in it already, with an expiry of its own.
        let is_new = !matches!(change.origin, RevocationOrigin::List);
        if !is_new || !self.is_about(issuer) {
            return Expressed::Nothing;
        }
        if kind == self.kind && is_all {
            return Expressed::Fully;
        }
        let RevocationOrigin::Token(token) = &change.origin else { return Expressed::Nothing };
        let covers_token = match change.action {
            Action::Revoke(Extent::All | Extent::IssuedSoFar) => true,
            Action::Revoke(Extent::IssuedUntil(cutoff)) => {
                token.issued_at().is_none_or(|issued_at| issued_at <= cutoff)
            }
            Action::Reinstate => false,
        };
        if covers_token && self.kind == TargetKind::Token {
            Expressed::ThisToken
        } else {
            Expressed::Nothing
        }
    }

    /// The value that is written under a key.
    fn document(&self, reason: Option<&str>, user: Option<&str>, at: u64) -> String {
        let ValueMeaning::Json { flag } = &self.meaning else { return self.value.to_string() };
        let mut document = serde_json::Map::new();
        document.insert("reason".into(), reason.unwrap_or("revoked").into());
        document.extend(user.map(|user| ("user_id".to_owned(), user.into())));
        document.insert(flag.as_ref().map_or("revoked_at", |flag| &*flag.name).into(), at.into());
        serde_json::Value::Object(document).to_string()
    }

    fn live_values(&self) -> &[Box<str>] {
        match &self.meaning {
            ValueMeaning::Values { live, .. } => live,
            ValueMeaning::Present | ValueMeaning::Json { .. } => &[],
        }
    }
}

impl ForeignLists {
    /// Writes our own records, and then to the lists.
    pub(crate) async fn write(
        &self,
        core: &StoreCore,
        changes: Vec<Revocation>,
    ) -> Result<Vec<Receipt>, StoreError> {
        let writes = self.lists.writes_for(&changes);
        let kept: Vec<_> = changes.iter().map(|change| (change.until, change.lifetime)).collect();
        let unlisted: Vec<_> = changes.iter().map(|change| self.lists.unlisted(change)).collect();
        let mut receipts = core.write(changes).await?;
        self.write_all(core, writes, &kept, &receipts).await?;
        for (receipt, unlisted) in receipts.iter_mut().zip(unlisted) {
            if receipt.outcome == Outcome::AlreadyExpired {
                continue;
            }
            for list in &unlisted {
                tracing::info!(
                    list = &**list,
                    "what was revoked goes on working for the readers of \
                    a foreign list, which cannot say it"
                );
            }
            receipt.unlisted = unlisted;
        }
        Ok(receipts)
    }

    async fn write_all(
        &self,
        core: &StoreCore,
        writes: Vec<ListWrite>,
        kept: &[(Timestamp, Duration)],
        receipts: &[Receipt],
    ) -> Result<(), StoreError> {
        let written = writes.into_iter().filter_map(|write| {
            let (receipt, (until, lifetime)) =
                (receipts.get(write.change)?, kept.get(write.change)?);
            let until =
                write.until.unwrap_or_else(|| (*until).max(receipt.at.saturating_add(*lifetime)));
            // A revocation that has expired already needs no entry.
            (receipt.outcome != Outcome::AlreadyExpired).then(|| {
                let lifetime = until.saturating_duration_since(receipt.at);
                self.write_entry(core, write, receipt.at.as_secs(), lifetime)
            })
        });
        let mut written = stream::iter(written.collect::<Vec<_>>()).buffer_unordered(AT_ONCE);
        let mut failure = None;
        while let Some(result) = written.next().await {
            failure = result.err().or(failure);
        }
        failure.map_or(Ok(()), Err)
    }

    async fn write_entry(
        &self,
        core: &StoreCore,
        write: ListWrite,
        at: u64,
        lifetime: Duration,
    ) -> Result<(), StoreError> {
        let ListWrite { list, entry, action, .. } = write;
        // An entry must not overwrite a key of this crate.
        let ours = format!("{}:{{", core.options.prefix);
        if entry.key.starts_with(&ours) {
            let problem = "an entry would be a key of this crate, and was not touched";
            return Err(in_force(&list.error(StoreErrorKind::InvalidInput, problem)));
        }
        let slot = fred::util::redis_keyslot(entry.key.as_bytes());
        let key = Bytes::from(entry.key);
        let result = match (entry.member, action) {
            // What is live is listed, so what is revoked is taken off. What it was, the other
            // program knows.
            (_, ListAction::Remove) if list.absent == AbsentEntry::Revoked => Ok(Value::Null),
            (Some(member), ListAction::Add { .. }) if list.absent == AbsentEntry::Revoked => {
                self.send(core, slot, StoreCommand::Plain("SREM"), vec![key, member.into()]).await
            }
            (None, ListAction::Add { .. }) if list.absent == AbsentEntry::Revoked => {
                self.send(core, slot, StoreCommand::Plain("DEL"), vec![key]).await
            }
            (Some(member), ListAction::Add { .. }) => {
                self.send(core, slot, StoreCommand::Plain("SADD"), vec![key, member.into()]).await
            }
            (Some(member), ListAction::Remove) => {
                self.send(core, slot, StoreCommand::Plain("SREM"), vec![key, member.into()]).await
            }
            (None, ListAction::Add { reason, user }) => {
                let document = list.document(reason.as_deref(), user.as_deref(), at);
                let millis = lifetime.as_millis().max(1).to_string();
                let mut arguments =
                    vec![Bytes::from_static(b"1"), key, document.into(), millis.into()];
                arguments
                    .extend(list.live_values().iter().map(|value| Bytes::from(value.to_string())));
                self.send(core, slot, StoreCommand::Script(&LIST), arguments).await
            }
            (None, ListAction::Remove) => self.remove(core, &list, slot, key).await,
        };
        result.map(drop).map_err(|error| in_force(&self.without_key(&list, &error)))
    }

    /// Removes an entry if it could be one of ours. Between the two commands it can only become one
    /// that means the same.
    async fn remove(
        &self,
        core: &StoreCore,
        list: &CompiledList,
        slot: u16,
        key: Bytes,
    ) -> Result<Value, StoreError> {
        let found = self.send(core, slot, StoreCommand::Plain("GET"), vec![key.clone()]).await?;
        let is_ours = match &list.meaning {
            ValueMeaning::Present => found.as_bytes() == Some(list.value.as_bytes()),
            meaning => matches!(meaning.decide(&found), ListVerdict::Revoked(_)),
        };
        if is_ours {
            self.send(core, slot, StoreCommand::Plain("DEL"), vec![key]).await
        } else {
            Ok(found)
        }
    }

    async fn send(
        &self,
        core: &StoreCore,
        slot: u16,
        command: StoreCommand,
        arguments: Vec<Bytes>,
    ) -> Result<Value, StoreError> {
        let Some(nodes) = &self.nodes else { return core.send(0, command, arguments).await };
        let acquire = || nodes.acquire(slot).inspect_err(|error| nodes.refresh_after(error));
        core.send_over(acquire, command, arguments).await
    }
}

/// The change itself was written; the entry of the list was not.
fn in_force(error: &StoreError) -> StoreError {
    StoreError::new(
        error.kind(),
        format!("the change is in force here, and may be repeated, but {error}"),
    )
}
