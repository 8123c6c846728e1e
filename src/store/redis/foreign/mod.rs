//! Lists of revoked tokens that another program keeps in the same Redis.
//!
//! Few services start from nothing: a FastAPI or Spring service already writes
//! `token:blacklist:<jti>` on logout. A [`ForeignList`] makes the check look there too, and refuse
//! what is listed, without a change of the other program:
//!
//! ```no_run
//! # async fn f() -> Result<(), Box<dyn std::error::Error>> {
//! use tower_jwt_revocation::{ForeignList, RedisStore};
//!
//! let store = RedisStore::builder()
//!     .with_url("redis://:password@redis:6379/2") // the database of the other program
//!     .with_foreign_list(ForeignList::blacklisted_jti_json())
//!     .connect()
//!     .await?;
//! # Ok(()) }
//! ```
//!
//! | the other program does | the list |
//! | --- | --- |
//! | `SET <jti> "" EX 3600` | [`ForeignList::plain_jti()`] |
//! | `SET blacklist:<token> 1` | [`ForeignList::blacklisted_token()`] |
//! | `SET revoked:<sha256 of token> 1` | [`ForeignList::revoked_token_sha256()`] |
//! | `SET token:blacklist:<jti> '{"reason": …}'` | [`ForeignList::blacklisted_jti_json()`] |
//! | `SET token:family:<fid> '{"revoked_at": …}'` | [`ForeignList::token_family_json()`] |
//! | `SADD token:revoked_families <fid>` | [`ForeignList::revoked_families()`] |
//! | `SET session:<sid> ended` | `ForeignList::keys("session:{sid}").with_revoked_values(["ended"]).with_live_values(["active"])` |
//!
//! # Templates
//! Text, with placeholders for what the *verified* token says:
//!
//! | placeholder | stands for |
//! | --- | --- |
//! | `{jti}`, `{sub}`, `{sid}`, `{claim:name}` | the value of the claim: a string, or an integer in decimal |
//! | `{token}` | the token as it was presented |
//! | `{token_sha256}`, `{token_sha256:base64url}` | the SHA-256 of it, in lower-case hexadecimal or in base64url without padding |
//! | `{{` and `}}` | a brace |
//!
//! A value is filled in as it is: Redis keys are bytes, so no value can end a key or begin a
//! command. One that is longer than 1024 bytes, or of another type, is an error. Where a template
//! has two placeholders, mind that `a:b` and `c` give the same key as `a` and `b:c` if `:` stands
//! between them; the other program has made it so.
//!
//! # How it is asked
//! In the same round trip: one command for each list (`EXISTS`, `GET` or `SISMEMBER`) is sent
//! together with the `MGET` for our own records, over the same connection, and any hit refuses.
//! `MGET` would not do: it cannot ask a set, and to it a key of another type is not there. In a
//! cluster each key is asked at the node that serves its slot, all at once. It has to be answered
//! within [`with_check_timeout`](super::RedisStoreBuilder::with_check_timeout) too.
//!
//! What another program has listed, [`Revoker::reinstate`](crate::Revoker::reinstate) does not
//! undo.
//!
//! An error, such as `WRONGTYPE`, or a value that nobody said the meaning of, is no answer: the
//! [fail mode](crate::FailMode) decides, unless something else says that the token is revoked. What
//! is not listed any more is not revoked any more: when the key expires, the token lives again, if
//! it still does.
//!
//! The user of the store needs the rights to do so: `~token:blacklist:* +exists +get +sismember`,
//! for [`with_writes`](ForeignList::with_writes) also `+eval +evalsha +set +pttl +pexpire +del
//! +sadd +srem`, and for an import `+info +scan +sscan +pttl`. If it may not read a list, it does
//! not start.
//!
//! # Security
//! - Nothing is asked about a token that was not verified.
//! - The lists are as trustworthy as those who can write to this Redis: anyone who can write a key
//!   can refuse a token, and anyone who can delete one can let it in again. Our own records do not
//!   depend on them.
//! - Other programs do not tell when a list has lost entries. What is lost together with our own
//!   records, in the same Redis, is [noticed](super::RedisStore#when-redis-has-lost-its-data); in a
//!   cluster, a node that keeps none of our [shards](super::RedisStoreBuilder::with_shards) can
//!   lose its lists unnoticed.
//!
//! ## Lists by the token itself
//! `{token}` and `{token_sha256}` know a token by its spelling, and some tokens can be spelt in two
//! ways: of an ECDSA signature `(r, s)`, anyone can make `(r, −s)`, which is as valid. Whoever has
//! a token that is listed once can present the other. No reader can catch that. What is revoked by
//! *us* is known by its id, so the second spelling is refused too:
//! [`with_writes`](ForeignList::with_writes) puts the entry of the other program *beside* our
//! record, never in its place. With HMAC, EdDSA and RSA there is one spelling, as
//! [`JwtVerifier`](crate::JwtVerifier) takes no lax base64.
//!
//! With `{token}`, the keys in Redis are the tokens themselves, and everyone who can list or log
//! them can use them. Prefer the hash, prefer `{jti}` to both. Here they never appear in errors,
//! logs or `Debug`; the token stays in memory with the [`Clearance`](crate::Clearance) of its
//! request, and only if a list has such a placeholder.
//!
//! Behind [`UpstreamClaims`](crate::token::UpstreamClaims) the token is not seen, and such lists
//! are errors.
//!
//! # With a mirror
//! A [`Mirror`](crate::Mirror) follows our log, in which other programs do not write. It refuses to
//! start on a store with foreign lists; use the store directly until they are gone.
//!
//! # Getting rid of it
//! 1. Run both, with the list: from now on revocations by us and by the other program count. Let it
//!    go on writing, or let this crate write for it: [`with_writes`](ForeignList::with_writes).
//! 2. When nothing but this crate revokes any more, take over what is still listed, once:
//!    [`Import`] reads the keys and writes records of our own that
//!    last as long. Lists by `{token_sha256}` cannot be taken over; wait for the lifetime of the
//!    longest token instead, then they say nothing about any token.
//! 3. Remove `with_foreign_list`, and the keys may go.

mod cluster;
mod import;
mod judge;
mod list;
mod template;
mod write;

use std::sync::Arc;

use futures::FutureExt as _;
use futures::stream::{FuturesUnordered, StreamExt as _};

pub(crate) use self::cluster::Nodes;
pub use self::import::{DEFAULT_IMPORT_PACE, Import, ImportReport};
pub use self::list::ForeignList;
pub(crate) use self::list::{Entry, List, Lists};
#[cfg(test)]
pub(crate) use self::write::LIST;
use super::Inner;
use super::ask::code;
use super::guard::Hold;
use super::wire::odd_reply;
use crate::store::{Lookup, Standing, StoreError, StoreErrorKind};
use crate::verified::VerifiedToken;

/// The foreign lists of a store.
pub(crate) struct Foreign {
    pub(crate) lists: Lists,
    /// In a cluster, the way to the nodes of their keys. Elsewhere everything is where our own
    /// records are.
    pub(crate) nodes: Option<Nodes>,
}

/// A command that asks one list about one token.
struct Question {
    list: Arc<List>,
    slot: u16,
    command: &'static str,
    arguments: Vec<fred::types::Value>,
}

impl Question {
    fn of(list: &Arc<List>, entry: Entry) -> Self {
        let slot = fred::util::redis_keyslot(entry.key.as_bytes());
        let (command, arguments) = list.question(entry);
        Self { list: Arc::clone(list), slot, command, arguments }
    }
}

impl Foreign {
    /// What the lists are to be asked about a token, and why one could not be.
    fn questions(&self, token: &VerifiedToken) -> (Vec<Question>, Option<StoreError>) {
        let fillings = self.lists.fillings(token);
        let mut questions = Vec::with_capacity(self.lists.all.len());
        let mut failure = None;
        for list in self.lists.all.iter().filter(|list| list.is_about(token.issuer())) {
            match list.entry_of(&fillings) {
                Ok(Some(entry)) => questions.push(Question::of(list, entry)),
                Ok(None) => {}
                Err(error) => failure = Some(error),
            }
        }
        (questions, failure)
    }
}

impl Inner {
    /// The standing of a token by our own records and by the lists, all asked at once.
    pub(super) fn check_with_lists(
        self: &Arc<Self>,
        foreign: &Foreign,
        token: &Arc<VerifiedToken>,
    ) -> Lookup {
        let own = self.check(token);
        let (questions, mut failure) = foreign.questions(token);
        let inner = Arc::clone(self);
        Lookup::Later(
            async move {
                let own = own.answer().boxed();
                let mut answers: FuturesUnordered<_> = questions
                    .into_iter()
                    .map(|question| inner.ask_list(question).boxed())
                    .chain([own])
                    .collect();
                while let Some(answer) = answers.next().await {
                    match answer {
                        // One that says so decides, whatever the others could not say.
                        Ok(revoked @ Standing::Revoked(_)) => return Ok(revoked),
                        Ok(Standing::Live | Standing::WasLive { .. }) => {}
                        Err(error) => failure = Some(error),
                    }
                }
                failure.map_or(Ok(Standing::Live), Err)
            }
            .boxed(),
        )
    }

    /// Asks every list about nothing, so that a right that is missing shows at the start and not at
    /// the first request.
    pub(super) async fn try_lists(&self) -> Result<(), StoreError> {
        for list in self.foreign.iter().flat_map(|foreign| &foreign.lists.all) {
            let Ok(entry) = list.entry(|_| Ok("jwt-revocation-trial".into())) else { continue };
            match self.ask_list(Question::of(list, entry)).await {
                Ok(_) => {}
                Err(error) if error.kind() == StoreErrorKind::Denied => return Err(error),
                Err(error) => tracing::warn!(%error, "a foreign list cannot be read at the moment"),
            }
        }
        Ok(())
    }

    async fn ask_list(&self, question: Question) -> Result<Standing, StoreError> {
        let Question { list, slot, command, arguments } = question;
        let answer = match self.seize_for_list(slot) {
            Ok(hold) => hold.command(command, arguments, self.settings.check_timeout).await,
            Err(error) => Err(error),
        };
        match answer {
            Ok(answer) => list.judge(&answer),
            Err(error) => Err(self.plain(&list, &error)),
        }
    }

    /// The right to ask for a foreign key of this slot.
    fn seize_for_list(&self, slot: u16) -> Result<Hold, StoreError> {
        match self.foreign.as_ref().and_then(|foreign| foreign.nodes.as_ref()) {
            Some(nodes) => nodes.seize(slot),
            None => self.checks.first().ok_or_else(|| odd_reply("redis"))?.seize(),
        }
    }

    /// An error without what Redis and its client may have quoted: the key can be a token.
    fn plain(&self, list: &List, error: &StoreError) -> StoreError {
        if let Some(nodes) = self.foreign.as_ref().and_then(|foreign| foreign.nodes.as_ref()) {
            nodes.doubt(error);
        }
        let code = code(error);
        let is_code = !code.is_empty() && code.bytes().all(|byte| byte.is_ascii_uppercase());
        let problem =
            if is_code { format!("redis answers {code}") } else { plain_words(error).to_owned() };
        list.error(error.kind(), &problem)
    }
}

/// What an error that is not Redis' own comes to.
fn plain_words(error: &StoreError) -> &'static str {
    use StoreErrorKind as Kind;
    match error.kind() {
        Kind::Timeout => "redis did not answer in time",
        Kind::Overloaded => "as many questions to redis are open as are allowed",
        Kind::Unreachable => "redis is out of reach",
        Kind::Cluster => "the cluster is not known to serve the slot",
        Kind::NotPrimary => "the server is not a primary",
        _ => "redis gave no usable answer",
    }
}

#[cfg(test)]
mod tests;
