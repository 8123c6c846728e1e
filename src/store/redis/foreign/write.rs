//! Writes our own revocations to the lists that are declared with writes.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fred::types::Value;
use futures::TryFutureExt as _;
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
    sha: "a30bab0bf6aa6930a6c996b16dfee98dfe8f89fa",
    writes: true,
};
/// The script that takes an entry off.
pub(crate) const UNLIST: LuaScript = LuaScript {
    source: include_str!("unwrite.lua"),
    sha: "124820b0b0b0a045683de685bd78fecc17193b73",
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
                    let ended = list.ended_by(change).filter_map(Result::ok);
                    writes.extend(ended.map(|entry| ListWrite {
                        change: n,
                        list: Arc::clone(list),
                        entry,
                        action: ListAction::Add { reason: change.reason.clone(), user: None },
                        until: None,
                    }));
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
                        let user = if let RevocationOrigin::Token(token) = &change.origin {
                            token.subject().map(Into::into)
                        } else {
                            None
                        };
                        let action = match change.action {
                            Action::Reinstate => ListAction::Remove,
                            Action::Revoke(_) => {
                                ListAction::Add { reason: change.reason.clone(), user }
                            }
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

    /// The lists that would have to say this, if none of those that are written can. In those of
    /// `taken` something else stands in the place of the entry.
    pub(crate) fn unlisted(&self, change: &Revocation, taken: &[Arc<str>]) -> Vec<Box<str>> {
        let is_news = matches!(change.action, Action::Revoke(_))
            && !matches!(change.origin, RevocationOrigin::List);
        let concerned: Vec<_> = self
            .all
            .iter()
            .filter(|list| is_news && list.writes == ListWrites::Too)
            .filter(|list| list.is_about(change.target.issuer_name()))
            .collect();
        let is_said = |list: &&Arc<CompiledList>| match list.expresses(change) {
            _ if taken.iter().any(|name| **name == *list.name) => false,
            Expressed::Fully => self.entry_for(list, change).is_ok(),
            Expressed::ThisToken => false,
            Expressed::Nothing => list.ended_by(change).any(|entry| entry.is_ok()),
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
            _ => list.entry_of_id(&change.target),
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
    /// The entry of what is known by its id alone.
    fn entry_of_id(&self, target: &Target) -> Result<ListEntry, FillError> {
        self.entry(|field| id_for(self, field, target).ok_or(FillError::NoText))
    }

    /// The entries of what the list can say of a revocation that it cannot say itself: the family
    /// of a session that has ended.
    fn ended_by<'c>(
        &'c self,
        change: &'c Revocation,
    ) -> impl Iterator<Item = Result<ListEntry, FillError>> + 'c {
        let targets: &[Target] = match (&change.origin, &change.action) {
            #[cfg(feature = "sessions")]
            (RevocationOrigin::Ends(targets), Action::Revoke(_)) => targets,
            _ => &[],
        };
        let is_said = move |target: &&Target| {
            target.kind() == self.kind && self.is_about(target.issuer_name())
        };
        targets.iter().filter(is_said).map(move |target| self.entry_of_id(target))
    }

    fn expresses(&self, change: &Revocation) -> Expressed {
        let kind = match change.target.kind() {
            TargetKind::SigningInput => TargetKind::Token,
            kind => kind,
        };
        let issuer = change.target.issuer_name();
        // A list of the revoked cannot say "issued so far": it would also refuse tokens of a later
        // login. In a list of the live, that login makes an entry anew; but the session that is
        // spared has no other entry than the rest of the user.
        let is_all = match change.action {
            Action::Revoke(Extent::All) | Action::Reinstate => true,
            Action::Revoke(Extent::IssuedSoFar) => {
                self.absent == AbsentEntry::Revoked && change.sparing.is_none()
            }
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
        let mut receipts = core.write(changes.clone()).await?;
        let mut taken = self.write_all(core, writes, &changes, &receipts).await?;
        for (n, (receipt, change)) in receipts.iter_mut().zip(&changes).enumerate() {
            if receipt.outcome == Outcome::AlreadyExpired {
                continue;
            }
            let unlisted = self.lists.unlisted(change, &taken.remove(&n).unwrap_or_default());
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
        changes: &[Revocation],
        receipts: &[Receipt],
    ) -> Result<BTreeMap<usize, Vec<Arc<str>>>, StoreError> {
        let written = writes.into_iter().filter_map(|write| {
            let n = write.change;
            let (receipt, change) = (receipts.get(n)?, changes.get(n)?);
            let until = write
                .until
                .unwrap_or_else(|| change.until.max(receipt.at.saturating_add(change.lifetime)));
            // A revocation that has expired already needs no entry.
            (receipt.outcome != Outcome::AlreadyExpired).then(|| {
                let lifetime = until.saturating_duration_since(receipt.at);
                let list = write.list.name.clone();
                let written = self.write_entry(core, write, receipt.at.as_secs(), lifetime);
                written.map_ok(move |is_taken| is_taken.then_some((n, list)))
            })
        });
        let mut written = stream::iter(written.collect::<Vec<_>>()).buffer_unordered(AT_ONCE);
        let (mut taken, mut failure) = (BTreeMap::<_, Vec<_>>::new(), None);
        while let Some(result) = written.next().await {
            match result {
                Ok(Some((n, list))) => taken.entry(n).or_default().push(list),
                Ok(None) => {}
                Err(error) => failure = Some(error),
            }
        }
        failure.map_or(Ok(taken), Err)
    }

    /// Writes an entry, or takes one off. Whether something else stands in its place, which goes on
    /// saying that what was revoked is live.
    async fn write_entry(
        &self,
        core: &StoreCore,
        write: ListWrite,
        at: u64,
        lifetime: Duration,
    ) -> Result<bool, StoreError> {
        let ListWrite { list, entry, action, .. } = write;
        // An entry must not overwrite a key of this crate.
        let ours = format!("{}:{{", core.options.prefix);
        if entry.key.starts_with(&ours) {
            let problem = "an entry would be a key of this crate, and was not touched";
            return Err(in_force(&list.error(StoreErrorKind::InvalidInput, problem)));
        }
        let result = match action {
            // What is live is listed, so what is revoked is taken off. What it was, the other
            // program knows.
            ListAction::Remove if list.absent == AbsentEntry::Revoked => Ok(false),
            ListAction::Add { .. } if list.absent == AbsentEntry::Revoked => {
                self.take_off(core, entry).await.map(|()| false)
            }
            ListAction::Add { reason, user } => {
                let document = list.document(reason.as_deref(), user.as_deref(), at);
                self.add(core, &list, entry, document, lifetime).await
            }
            ListAction::Remove => self.remove(core, entry, &list.name).await.map(|()| false),
        };
        result.map_err(|error| in_force(&self.without_key(&list, &error)))
    }

    /// Takes an entry off, whoever has written it.
    async fn take_off(&self, core: &StoreCore, entry: ListEntry) -> Result<(), StoreError> {
        let slot = fred::util::redis_keyslot(entry.key.as_bytes());
        let key = Bytes::from(entry.key);
        let (command, arguments) = match entry.member {
            Some(member) => ("SREM", vec![key, member.into()]),
            None => ("DEL", vec![key]),
        };
        self.send(core, slot, StoreCommand::Plain(command), arguments).await.map(drop)
    }

    /// Writes an entry, unless there is one, and a mark beside our records that it is ours. Whether
    /// what is there says that it is live.
    ///
    /// The mark comes last, after the answer that nothing was there: with a mark that came first,
    /// an entry that the other program writes at the same time would be taken off as ours. Where
    /// the answer is lost, the entry is taken for the other program's and stays: that refuses a
    /// token too many, and the other way one too few.
    async fn add(
        &self,
        core: &StoreCore,
        list: &CompiledList,
        entry: ListEntry,
        document: String,
        lifetime: Duration,
    ) -> Result<bool, StoreError> {
        let (shard, mark) = mark_of(core, &list.name, &entry);
        let slot = fred::util::redis_keyslot(entry.key.as_bytes());
        let millis = Bytes::from(lifetime.as_millis().max(1).to_string());
        let key = Bytes::from(entry.key);
        let one = || Bytes::from_static(b"1");
        let written = if let Some(member) = entry.member {
            let added = StoreCommand::Plain("SADD");
            let added = self.send(core, slot, added, vec![key, member.into()]).await?;
            (added == Value::Integer(1)).then(one)
        } else {
            let mut arguments = vec![one(), key.clone(), document.into(), millis.clone()];
            arguments.extend(list.live_values().iter().map(|value| Bytes::from(value.to_string())));
            let written = self.send(core, slot, StoreCommand::Script(&LIST), arguments).await?;
            let written = written.into_bytes().filter(|written| !written.is_empty());
            if written.is_none() && matches!(list.meaning, ValueMeaning::Json { flag: Some(_) }) {
                // The document of what is live is the other program's.
                let there = self.send(core, slot, StoreCommand::Plain("GET"), vec![key]).await?;
                if !there.is_null()
                    && !matches!(list.meaning.decide(&there), ListVerdict::Revoked(_))
                {
                    return Ok(true);
                }
            }
            written
        };
        if let Some(written) = written {
            let arguments = vec![mark, written, Bytes::from_static(b"PX"), millis];
            core.send(shard, StoreCommand::Plain("SET"), arguments).await?;
            return Ok(false);
        }
        // If what was there is ours, it stays so for longer.
        let known = core.send(shard, StoreCommand::Plain("GET"), vec![mark.clone()]).await?;
        if let Some(known) = known.into_bytes() {
            let arguments = vec![one(), mark, known, millis];
            core.send(shard, StoreCommand::Script(&LIST), arguments).await?;
        }
        Ok(false)
    }

    /// Takes an entry off, if it is what was written here: what the other program has written
    /// stays.
    async fn remove(
        &self,
        core: &StoreCore,
        entry: ListEntry,
        list: &str,
    ) -> Result<(), StoreError> {
        let (shard, mark) = mark_of(core, list, &entry);
        let slot = fred::util::redis_keyslot(entry.key.as_bytes());
        let known = core.send(shard, StoreCommand::Plain("GET"), vec![mark.clone()]).await?;
        let Some(known) = known.into_bytes() else { return Ok(()) };
        let key = Bytes::from(entry.key);
        let (command, arguments) = match entry.member {
            Some(member) => (StoreCommand::Plain("SREM"), vec![key, member.into()]),
            None => (StoreCommand::Script(&UNLIST), vec![Bytes::from_static(b"1"), key, known]),
        };
        self.send(core, slot, command, arguments).await?;
        core.send(shard, StoreCommand::Plain("DEL"), vec![mark]).await.map(drop)
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

/// The key of the mark that an entry was written here. The names of others' keys may be long, or
/// secret, so it has the fingerprint of them.
fn mark_of(core: &StoreCore, list: &str, entry: &ListEntry) -> (u16, Bytes) {
    let member = entry.member.as_deref().unwrap_or_default();
    let id = format!("{}:{}{member}", entry.key.len(), entry.key);
    let fingerprint = Target::claim(format!("foreign list {list}"), id).fingerprint();
    let shard = core.keys.shard_of(&fingerprint);
    (shard, core.keys.shard(shard).list_mark(&fingerprint))
}

/// The change itself was written; the entry of the list was not.
fn in_force(error: &StoreError) -> StoreError {
    StoreError::new(
        error.kind(),
        format!("the change is in force here, and may be repeated, but {error}"),
    )
}
