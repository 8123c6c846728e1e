//! Lists of revoked tokens that another program keeps in the same Redis.
//!
//! Few services start from nothing: a FastAPI or Spring service already writes
//! `token:blacklist:<jti>` on logout. A [`ForeignList`] makes the check look there too, and refuse
//! what is listed, without a change of the other program:
//!
//! ```no_run
//! # async fn f() -> Result<(), Box<dyn std::error::Error>> {
//! use tower_jwt_revocation::store::redis::foreign::ForeignList;
//! use tower_jwt_revocation::RedisStore;
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
//! | `SET session:<sid> '{"is_active": …}'` | `ForeignList::keys("session:{sid}").with_json_live_flag("is_active")` |
//! | `DEL access_token:<sha256 of token>` | `ForeignList::keys("access_token:{token_sha256}").absent_means_revoked_even_if_lost()` |
//! | `SET session:<sid> ended` | `ForeignList::keys("session:{sid}").with_revoked_values(["ended"]).with_live_values(["active"])` |
//!
//! # Templates
//! Text, with placeholders for what the *verified* token says:
//!
//! | placeholder | stands for |
//! | --- | --- |
//! | `{jti}`, `{sub}`, `{sid}`, `{claim:name}` | the value of the claim: a string, or an integer in decimal |
//! | `{claim:/user/id}` | the same of the member `id` of the claim `user`, as a JSON Pointer (RFC 6901) |
//! | `{token}` | the token as it was presented |
//! | `{token_sha256}`, `{token_sha256:base64url}` | the SHA-256 of it, in lower-case hexadecimal or in base64url without padding |
//! | `{{` and `}}` | a brace |
//!
//! A value is filled in as it is: Redis keys are bytes, so no value can end a key or begin a
//! command. One that is longer than 1024 bytes, or of another type, is in no list, and the token is
//! refused with 401 in every fail mode. Where a template
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
//! undo: the token stays refused. What was [written here](ForeignList::with_writes) it takes off.
//!
//! An error, such as `WRONGTYPE`, or a value that nobody said the meaning of, is no answer: the
//! [fail mode](crate::FailMode) decides, unless something else says that the token is revoked. What
//! is not listed any more is not revoked any more: when the key expires, the token is valid again,
//! if it has not expired.
//!
//! In a configuration a list is [a text](ForeignList#impl-FromStr-for-ForeignList):
//! `JWT_REDIS_FOREIGN_LISTS=blacklisted-jti-json|writes`.
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
//!    [`Import`](super::Import) reads the keys and writes records of our own that
//!    last as long. Lists by `{token_sha256}` cannot be taken over; wait for the lifetime of the
//!    longest token instead, then they say nothing about any token.
//! 3. Remove `with_foreign_list`, and the keys may go.

mod check;
mod cluster;
mod decide;
mod import;
mod list;
mod template;
mod unsent;
mod write;

pub(crate) use self::check::ForeignLists;
pub(crate) use self::cluster::ClusterConnections;
pub(crate) use self::import::{ListScan, ListedEntry, ListedId, ScanPosition};
pub(crate) use self::list::CompiledLists;
pub use self::list::ForeignList;
pub(crate) use self::unsent::UnsentQuestions;
#[cfg(test)]
pub(crate) use self::write::{LIST, UNLIST};

#[cfg(test)]
mod tests;
