//! Reads the entries of a list, page by page, for an import.
//!
//! A cursor of `SCAN` is valid only at the server process that gave it out. So a position also
//! names that process, and in a cluster how the slots were distributed; if either has changed,
//! reading begins anew.

use std::sync::Arc;
use std::time::Duration;

use fred::types::Value;
use futures::future::try_join_all;

use super::check::{ForeignLists, without_key};
use super::cluster::{ClusterConnections, layout_of};
use super::decide::ListVerdict;
use super::list::{AbsentEntry, CompiledList, ForeignList};
use super::template::{KeyTemplate, Placeholder};
use crate::config::ConfigError;
use crate::revocation::Target;
use crate::store::redis::connection::error_code;
use crate::store::redis::connection::unexpected_reply;
use crate::store::redis::core::StoreCore;
use crate::store::redis::supervised::{Permit, SupervisedConnection};
use crate::store::{StoreError, StoreErrorKind};

/// Reads a list from its beginning to its end.
pub(crate) struct ListScan {
    core: Arc<StoreCore>,
    /// The lists of the store, which in a cluster have the connections.
    foreign: Option<Arc<ForeignLists>>,
    list: Arc<CompiledList>,
    /// What stands in a cursor for the list, so that it is used for no other.
    list_id: Box<str>,
}

/// How far it has been read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ScanPosition {
    /// How the slots of a cluster were distributed, see [`layout_of`].
    layout: Box<str>,
    /// The position of the node that is read.
    node: usize,
    /// The server process that gave out the cursor.
    server: Box<str>,
    cursor: Box<str>,
}

/// A part of a list.
pub(crate) struct ScanPage {
    pub(crate) found: Vec<ListedEntry>,
    /// How many entries do not mean revoked, and of how many the meaning is not declared.
    pub(crate) live: u64,
    pub(crate) odd: u64,
    /// None after the last page.
    pub(crate) next: Option<ScanPosition>,
}

/// An entry that means revoked.
pub(crate) struct ListedEntry {
    pub(crate) id: ListedId,
    /// How long it stays; none, if it has no end.
    pub(crate) expires_in: Option<Duration>,
    pub(crate) reason: Option<Arc<str>>,
}

pub(crate) enum ListedId {
    /// The value of a claim.
    Claim(String),
    /// The token itself.
    Token(String),
}

impl ListScan {
    /// About how many keys one page looks at.
    pub(crate) const PAGE: u32 = 250;

    /// # Errors
    /// If the entries of the list do not tell what is revoked.
    pub(crate) fn new(
        core: Arc<StoreCore>,
        foreign: Option<Arc<ForeignLists>>,
        list: &ForeignList,
    ) -> Result<Self, ConfigError> {
        let list = Arc::new(list.compile()?);
        let oops = |problem: &str| {
            Err(ConfigError::new("foreign_list", format!("`{}` {problem}", list.name)))
        };
        if list.absent == AbsentEntry::Revoked {
            return oops(
                "names what is live, so what is revoked is not there; keep it until its longest \
                 token has expired",
            );
        }
        let entries = list.member.as_ref().unwrap_or(&list.key);
        if list.member.is_some() && list.key.fields().next().is_some() {
            return oops("is many sets, which cannot be taken over");
        }
        let mut fields = entries.fields();
        match (fields.next(), fields.next()) {
            (Some(Placeholder::Digest(_)), None) => {
                return oops(
                    "holds hashes, from which no token can be told; keep the list for the lifetime \
                     of the longest token",
                );
            }
            (Some(_), None) => {}
            _ => {
                return oops(
                    "has several placeholders, so its entries can be read in several ways",
                );
            }
        }
        if list.member.is_none() && !list.key.has_text() && !list.has_values() {
            return oops(
                "fits every key of the database; name its values, see \
                 ForeignList::with_revoked_values",
            );
        }
        if core.topology.is_cluster() && foreign.is_none() {
            return oops(
                "is to be read in a cluster; hand it to the store, see \
                 RedisStoreBuilder::with_foreign_list",
            );
        }
        let list_id = list_id(&list);
        Ok(Self { core, foreign, list: Arc::clone(&list), list_id })
    }

    /// A position, as [`position`](Self::position) reads it again.
    pub(crate) fn print(&self, at: &ScanPosition) -> Box<str> {
        format!("{}/{}", self.list_id, at.print()).into()
    }

    /// # Errors
    /// What is wrong with a text that is not a position in this list.
    pub(crate) fn position(&self, text: &str) -> Result<ScanPosition, &'static str> {
        let odd = "is not one that Import::cursor gave out";
        let (list, position) = text.split_once('/').ok_or(odd)?;
        let position = ScanPosition::parse(position).ok_or(odd)?;
        if *list != *self.list_id {
            return Err("is one of another list; leave it out, or name that list");
        }
        Ok(position)
    }

    pub(crate) fn list(&self) -> &CompiledList {
        &self.list
    }

    pub(crate) async fn page(&self, at: Option<&ScanPosition>) -> Result<ScanPage, StoreError> {
        let layout = self.layout();
        let at = at
            .filter(|at| at.layout == layout)
            .cloned()
            .unwrap_or_else(|| ScanPosition::first(layout));
        let Some(permit) = self.acquire(at.node) else {
            return Ok(ScanPage {
                found: Vec::new(),
                live: 0,
                odd: 0,
                next: self.unless_complete(at).await?,
            });
        };
        let permit = permit?;
        let server = self.server(&permit).await?;
        let cursor = if at.server == server { &*at.cursor } else { "0" };
        let (next, names) = self.scan(&permit, cursor).await?;
        let mut page = self.look_up(&permit, names).await?;
        let next = match &*next {
            "0" => ScanPosition {
                node: at.node + 1,
                server: "".into(),
                cursor: "0".into(),
                layout: at.layout,
            },
            _ => ScanPosition { server, cursor: next, ..at },
        };
        page.next = self.unless_complete(next).await?;
        Ok(page)
    }

    /// This position, or none if there is nothing after it and nothing has moved meanwhile.
    async fn unless_complete(&self, at: ScanPosition) -> Result<Option<ScanPosition>, StoreError> {
        let Some(nodes) = self.nodes() else {
            return Ok((at.node == 0).then_some(at));
        };
        let is_end = self.list.member.is_some() && at.node > 0 || at.node >= nodes.len();
        if !is_end {
            return Ok(Some(at));
        }
        let (_, owners) = self.core.topology.slot_owners().await?;
        if *layout_of(&owners) == *at.layout {
            return Ok(None);
        }
        let moved = StoreError::new(StoreErrorKind::Cluster, "slots have changed hands");
        nodes.refresh_after(&moved);
        Ok(Some(ScanPosition::first("".into())))
    }

    fn nodes(&self) -> Option<&ClusterConnections> {
        self.foreign.as_ref().and_then(|foreign| foreign.nodes.as_ref())
    }

    fn layout(&self) -> Box<str> {
        self.nodes().map_or_else(|| "-".into(), |nodes| nodes.layout().into())
    }

    fn acquire(&self, node: usize) -> Option<Result<Permit, StoreError>> {
        match (self.nodes(), node) {
            (Some(nodes), 0) if self.list.member.is_some() => {
                Some(nodes.acquire(fred::util::redis_keyslot(self.set().as_bytes())))
            }
            (Some(nodes), node) if self.list.member.is_none() => nodes.acquire_nth(node),
            (None, 0) => self.core.writes.first().map(SupervisedConnection::acquire),
            _ => None,
        }
    }

    fn without_key(&self, error: &StoreError) -> StoreError {
        match &self.foreign {
            Some(foreign) => foreign.without_key(&self.list, error),
            None => without_key(&self.list, error),
        }
    }

    /// The key of the set.
    fn set(&self) -> String {
        // It has no placeholders, see `new`.
        self.list.key.render(|_| Ok("".into())).unwrap_or_default()
    }

    async fn ask(
        &self,
        permit: &Permit,
        command: &'static str,
        arguments: Vec<Value>,
    ) -> Result<Value, StoreError> {
        let answer = permit.command(command, arguments, self.core.options.write_timeout).await;
        answer.map_err(|error| self.without_key(&error))
    }

    /// The server process that answers.
    async fn server(&self, permit: &Permit) -> Result<Box<str>, StoreError> {
        let info = self.ask(permit, "INFO", vec!["server".into()]).await?;
        let info = info.as_str().ok_or_else(|| unexpected_reply("redis"))?;
        let id = info.lines().find_map(|line| line.strip_prefix("run_id:"));
        id.map(Into::into).ok_or_else(|| unexpected_reply("redis"))
    }

    /// Keys or members, and where to go on.
    async fn scan(
        &self,
        permit: &Permit,
        cursor: &str,
    ) -> Result<(Box<str>, Vec<Value>), StoreError> {
        let (command, set, entries) = match &self.list.member {
            Some(member) => ("SSCAN", Some(Value::from(self.set())), member),
            None => ("SCAN", None, &self.list.key),
        };
        let options = [
            cursor.into(),
            "MATCH".into(),
            entries.pattern().into(),
            "COUNT".into(),
            Value::from(Self::PAGE),
        ];
        let arguments = set.into_iter().chain(options).collect();
        let reply = permit.command(command, arguments, self.core.options.write_timeout).await;
        let reply = reply.map_err(|error| match error_code(&error) {
            // It does not become one by waiting.
            "WRONGTYPE" => self.list.error(StoreErrorKind::InvalidInput, "its key is not a set"),
            _ => self.without_key(&error),
        })?;
        let Value::Array(reply) = reply else { return Err(unexpected_reply("redis")) };
        match <[Value; 2]>::try_from(reply) {
            Ok([next, Value::Array(names)]) => {
                let next = next.as_str().ok_or_else(|| unexpected_reply("redis"))?;
                Ok((next.as_ref().into(), names))
            }
            _ => Err(unexpected_reply("redis")),
        }
    }

    async fn look_up(&self, permit: &Permit, names: Vec<Value>) -> Result<ScanPage, StoreError> {
        let ours = format!("{}:{{", self.core.options.prefix);
        let entries = self.list.member.as_ref().unwrap_or(&self.list.key);
        let mut page = ScanPage { found: Vec::new(), live: 0, odd: 0, next: None };
        let mut readable = Vec::with_capacity(names.len());
        for name in names {
            let text = name.as_str().filter(|text| !text.starts_with(&ours));
            match text.as_deref().map(|text| (text, id_in(entries, text))) {
                Some((_, Some(id))) => readable.push((name, id)),
                // The pattern of a scan matches others, too.
                Some((_, None)) => {}
                None => page.odd += u64::from(name.as_str().is_none()),
            }
        }
        if self.list.member.is_some() {
            let found = |(_, id)| ListedEntry { id, expires_in: None, reason: None };
            page.found = readable.into_iter().map(found).collect();
            return Ok(page);
        }
        let answers = try_join_all(readable.iter().map(|(name, _)| async {
            let value = self.verdict(permit, name.clone());
            let ttl = self.ask(permit, "PTTL", vec![name.clone()]);
            futures::try_join!(value, ttl)
        }))
        .await?;
        for ((_, id), (verdict, ttl)) in readable.into_iter().zip(answers) {
            let Value::Integer(ttl) = ttl else { return Err(unexpected_reply("redis")) };
            match verdict {
                ListVerdict::Revoked(reason) if ttl >= -1 => {
                    let expires_in = u64::try_from(ttl).ok().map(Duration::from_millis);
                    page.found.push(ListedEntry { id, expires_in, reason });
                }
                // It has expired meanwhile, or does not mean revoked.
                ListVerdict::Revoked(_) | ListVerdict::Live => page.live += 1,
                ListVerdict::Odd => page.odd += 1,
            }
        }
        Ok(page)
    }

    /// The meaning of an entry. A key of another type is counted as odd and does not stop the scan.
    async fn verdict(&self, permit: &Permit, name: Value) -> Result<ListVerdict, StoreError> {
        match permit
            .command(self.list.meaning.command(), vec![name], self.core.options.write_timeout)
            .await
        {
            Ok(value) => Ok(self.list.verdict(&value)),
            Err(error) if error_code(&error) == "WRONGTYPE" => Ok(ListVerdict::Odd),
            Err(error) => Err(self.without_key(&error)),
        }
    }
}

/// Sixteen hexadecimal digits, by the keys and members of a list.
fn list_id(list: &CompiledList) -> Box<str> {
    let member = list.member.as_ref().map_or("", KeyTemplate::source);
    let key = list.key.source();
    let id = Target::claim("list to import", format!("{}:{key}{member}", key.len()));
    id.fingerprint().to_string().chars().take(16).collect::<String>().into()
}

fn id_in(entries: &KeyTemplate, name: &str) -> Option<ListedId> {
    let id = entries.read(name)?.to_owned();
    Some(match entries.fields().next()? {
        Placeholder::Token | Placeholder::Digest(_) => ListedId::Token(id),
        Placeholder::Claim(_) => ListedId::Claim(id),
    })
}

impl ScanPosition {
    fn first(layout: Box<str>) -> Self {
        Self { layout, node: 0, server: "".into(), cursor: "0".into() }
    }

    /// A position, from the text that [`print`](Self::print) made of it.
    fn parse(cursor: &str) -> Option<Self> {
        let parts: Vec<_> = cursor.split('/').collect();
        let [layout, node, server, cursor] = parts.as_slice() else { return None };
        let is_number = !cursor.is_empty() && cursor.bytes().all(|byte| byte.is_ascii_digit());
        is_number.then_some(())?;
        Some(Self {
            layout: (*layout).into(),
            node: node.parse().ok()?,
            server: (*server).into(),
            cursor: (*cursor).into(),
        })
    }

    fn print(&self) -> Box<str> {
        let Self { layout, node, server, cursor } = self;
        format!("{layout}/{node}/{server}/{cursor}").into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_printed_and_read() {
        for text in ["-/0/abc/123", "1f/2//0"] {
            let position = ScanPosition::parse(text).unwrap();
            assert_eq!(&*position.print(), text);
        }
        for odd in ["", "0", "-/0/abc/", "-/0/abc/x", "-/x/abc/0", "-/0/a/b/0"] {
            assert!(ScanPosition::parse(odd).is_none(), "{odd}");
        }
    }
}
