//! Reads what a list holds, page by page, for those who take it over.
//!
//! A cursor of `SCAN` means something to the process that gave it out, and to no other. So a
//! position also says which server that was, and in a cluster how the slots were distributed; where
//! that has changed, reading begins anew.

use std::sync::Arc;
use std::time::Duration;

use fred::types::Value;
use futures::future::try_join_all;

use crate::config::ConfigError;
use crate::store::redis::RedisStore;
use crate::store::redis::ask::code;
use crate::store::redis::foreign::cluster::{Nodes, layout_of};
use crate::store::redis::foreign::judge::Verdict;
use crate::store::redis::foreign::list::{ForeignList, List};
use crate::store::redis::foreign::template::{Field, Template};
use crate::store::redis::guard::{Hold, Link};
use crate::store::redis::wire::odd_reply;
use crate::store::{Cursor, StoreError, StoreErrorKind};

/// A list that is read from its beginning to its end.
pub(super) struct Scan {
    store: RedisStore,
    list: Arc<List>,
}

/// How far it has been read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Position {
    /// How the slots of a cluster were distributed.
    layout: Box<str>,
    /// At which of its nodes.
    node: usize,
    /// The process that gave out the cursor.
    server: Box<str>,
    cursor: Box<str>,
}

/// A part of a list.
pub(super) struct Page {
    pub(super) found: Vec<Found>,
    /// How many entries mean nothing, and how many nobody can tell the meaning of.
    pub(super) live: u64,
    pub(super) odd: u64,
    /// None after the last page.
    pub(super) next: Option<Position>,
}

/// An entry that means revoked.
pub(super) struct Found {
    pub(super) id: Id,
    /// How long it stays; none, if it has no end.
    pub(super) expires_in: Option<Duration>,
    pub(super) reason: Option<Arc<str>>,
}

pub(super) enum Id {
    /// The value of a claim.
    Claim(String),
    /// The token itself.
    Token(String),
}

impl Scan {
    /// About how many keys one page looks at.
    pub(super) const PAGE: u32 = 250;

    /// # Errors
    /// If the entries of the list do not tell what is revoked.
    pub(super) fn new(store: RedisStore, list: &ForeignList) -> Result<Self, ConfigError> {
        let list = Arc::new(list.compile()?);
        let oops = |problem: &str| {
            Err(ConfigError::new("foreign_list", format!("`{}` {problem}", list.name)))
        };
        let entries = list.member.as_ref().unwrap_or(&list.key);
        if list.member.is_some() && list.key.fields().next().is_some() {
            return oops("is many sets, which cannot be taken over");
        }
        let mut fields = entries.fields();
        match (fields.next(), fields.next()) {
            (Some(Field::Digest(_)), None) => {
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
        if store.inner.dialer.is_cluster() && store.inner.foreign.is_none() {
            return oops(
                "is to be read in a cluster; hand it to the store, see \
                 RedisStoreBuilder::with_foreign_list",
            );
        }
        Ok(Self { store, list: Arc::clone(&list) })
    }

    pub(super) fn list(&self) -> &List {
        &self.list
    }

    pub(super) async fn page(&self, at: Option<&Position>) -> Result<Page, StoreError> {
        let layout = self.layout();
        let at =
            at.filter(|at| at.layout == layout).cloned().unwrap_or_else(|| Position::first(layout));
        let Some(hold) = self.seize(at.node) else {
            return Ok(Page {
                found: Vec::new(),
                live: 0,
                odd: 0,
                next: self.unless_complete(at).await?,
            });
        };
        let hold = hold?;
        let server = self.server(&hold).await?;
        let cursor = if at.server == server { &*at.cursor } else { "0" };
        let (next, names) = self.scan(&hold, cursor).await?;
        let mut page = self.look_up(&hold, names).await?;
        let next = match &*next {
            "0" => Position {
                node: at.node + 1,
                server: "".into(),
                cursor: "0".into(),
                layout: at.layout,
            },
            _ => Position { server, cursor: next, ..at },
        };
        page.next = self.unless_complete(next).await?;
        Ok(page)
    }

    /// This position, or none if there is nothing after it and nothing has moved meanwhile.
    async fn unless_complete(&self, at: Position) -> Result<Option<Position>, StoreError> {
        let Some(nodes) = self.nodes() else {
            return Ok((at.node == 0).then_some(at));
        };
        let is_end = self.list.member.is_some() && at.node > 0 || at.node >= nodes.len();
        if !is_end {
            return Ok(Some(at));
        }
        let (_, owners) = self.store.inner.dialer.owners().await?;
        if *layout_of(&owners) == *at.layout {
            return Ok(None);
        }
        let moved = StoreError::new(StoreErrorKind::Cluster, "slots have changed hands");
        nodes.doubt(&moved);
        Ok(Some(Position::first("".into())))
    }

    fn nodes(&self) -> Option<&Nodes> {
        self.store.inner.foreign.as_ref().and_then(|foreign| foreign.nodes.as_ref())
    }

    fn layout(&self) -> Box<str> {
        self.nodes().map_or_else(|| "-".into(), |nodes| nodes.layout().into())
    }

    fn seize(&self, node: usize) -> Option<Result<Hold, StoreError>> {
        match (self.nodes(), node) {
            (Some(nodes), 0) if self.list.member.is_some() => {
                Some(nodes.seize(fred::util::redis_keyslot(self.set().as_bytes())))
            }
            (Some(nodes), node) if self.list.member.is_none() => nodes.seize_nth(node),
            (None, 0) => self.store.inner.writes.first().map(Link::seize),
            _ => None,
        }
    }

    /// The name of the set.
    fn set(&self) -> String {
        // It has no placeholders.
        self.list.key.render(|_| Ok("".into())).unwrap_or_default()
    }

    async fn ask(
        &self,
        hold: &Hold,
        command: &'static str,
        arguments: Vec<Value>,
    ) -> Result<Value, StoreError> {
        let answer =
            hold.command(command, arguments, self.store.inner.settings.write_timeout).await;
        answer.map_err(|error| self.store.inner.plain(&self.list, &error))
    }

    /// Which process answers.
    async fn server(&self, hold: &Hold) -> Result<Box<str>, StoreError> {
        let info = self.ask(hold, "INFO", vec!["server".into()]).await?;
        let info = info.as_str().ok_or_else(|| odd_reply("redis"))?;
        let id = info.lines().find_map(|line| line.strip_prefix("run_id:"));
        id.map(Into::into).ok_or_else(|| odd_reply("redis"))
    }

    /// Names of entries, and where to go on.
    async fn scan(&self, hold: &Hold, cursor: &str) -> Result<(Box<str>, Vec<Value>), StoreError> {
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
        let reply = self.ask(hold, command, set.into_iter().chain(options).collect()).await?;
        let Value::Array(reply) = reply else { return Err(odd_reply("redis")) };
        match <[Value; 2]>::try_from(reply) {
            Ok([next, Value::Array(names)]) => {
                let next = next.as_str().ok_or_else(|| odd_reply("redis"))?;
                Ok((next.as_ref().into(), names))
            }
            _ => Err(odd_reply("redis")),
        }
    }

    async fn look_up(&self, hold: &Hold, names: Vec<Value>) -> Result<Page, StoreError> {
        let ours = format!("{}:{{", self.store.inner.settings.prefix);
        let entries = self.list.member.as_ref().unwrap_or(&self.list.key);
        let mut page = Page { found: Vec::new(), live: 0, odd: 0, next: None };
        let mut readable = Vec::with_capacity(names.len());
        for name in names {
            let text = name.as_str().filter(|text| !text.starts_with(&ours));
            match text.as_deref().map(|text| (text, id_in(entries, text))) {
                Some((_, Some(id))) => readable.push((name, id)),
                // The pattern of a scan lets others through.
                Some((_, None)) => {}
                None => page.odd += u64::from(name.as_str().is_none()),
            }
        }
        if self.list.member.is_some() {
            let found = |(_, id)| Found { id, expires_in: None, reason: None };
            page.found = readable.into_iter().map(found).collect();
            return Ok(page);
        }
        let answers = try_join_all(readable.iter().map(|(name, _)| async {
            let value = self.verdict(hold, name.clone());
            let ttl = self.ask(hold, "PTTL", vec![name.clone()]);
            futures::try_join!(value, ttl)
        }))
        .await?;
        for ((_, id), (verdict, ttl)) in readable.into_iter().zip(answers) {
            let Value::Integer(ttl) = ttl else { return Err(odd_reply("redis")) };
            match verdict {
                Verdict::Revoked(reason) if ttl >= -1 => {
                    let expires_in = u64::try_from(ttl).ok().map(Duration::from_millis);
                    page.found.push(Found { id, expires_in, reason });
                }
                // It has expired meanwhile, or means nothing.
                Verdict::Revoked(_) | Verdict::Live => page.live += 1,
                Verdict::Odd => page.odd += 1,
            }
        }
        Ok(page)
    }

    /// A key of another type than it should be is odd, and no reason to stop.
    async fn verdict(&self, hold: &Hold, name: Value) -> Result<Verdict, StoreError> {
        let inner = &self.store.inner;
        match hold
            .command(self.list.meaning.command(), vec![name], inner.settings.write_timeout)
            .await
        {
            Ok(value) => Ok(self.list.verdict(&value)),
            Err(error) if code(&error) == "WRONGTYPE" => Ok(Verdict::Odd),
            Err(error) => Err(inner.plain(&self.list, &error)),
        }
    }
}

fn id_in(entries: &Template, name: &str) -> Option<Id> {
    let id = entries.read(name)?.to_owned();
    Some(match entries.fields().next()? {
        Field::Token | Field::Digest(_) => Id::Token(id),
        Field::Claim(_) => Id::Claim(id),
    })
}

impl Position {
    fn first(layout: Box<str>) -> Self {
        Self { layout, node: 0, server: "".into(), cursor: "0".into() }
    }

    /// A position, from the text that [`print`](Self::print) made of it.
    pub(super) fn parse(cursor: &Cursor) -> Option<Self> {
        let text = cursor.to_string();
        let parts: Vec<_> = text.split('/').collect();
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

    pub(super) fn print(&self) -> Cursor {
        let Self { layout, node, server, cursor } = self;
        Cursor::from_text(format!("{layout}/{node}/{server}/{cursor}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_printed_and_read() {
        for text in ["-/0/abc/123", "1f/2//0"] {
            let position = Position::parse(&Cursor::from_text(text)).unwrap();
            assert_eq!(position.print().to_string(), text);
        }
        for odd in ["", "0", "-/0/abc/", "-/0/abc/x", "-/x/abc/0", "-/0/a/b/0"] {
            assert!(Position::parse(&Cursor::from_text(odd)).is_none(), "{odd}");
        }
    }
}
