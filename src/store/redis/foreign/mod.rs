//! Lists of revoked tokens that another program keeps in the same Redis.
//!
//! Perhaps a FastAPI or Spring service already writes `token:blacklist:<jti>` on logout. With a
//! [`ForeignList`] the check looks there too and refuses what is listed, without a change of the
//! other program:
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
//! A template is text with placeholders for values of the *verified* token:
//!
//! | placeholder | stands for |
//! | --- | --- |
//! | `{jti}`, `{sub}`, `{sid}`, `{claim:name}` | the value of the claim: a string, or an integer in decimal |
//! | `{claim:/user/id}` | the same of the member `id` of the claim `user`, as a JSON Pointer (RFC 6901) |
//! | `{token}` | the token as it was presented |
//! | `{token_sha256}`, `{token_sha256:base64url}` | the SHA-256 of that text, in lower-case hexadecimal or in base64url without padding |
//! | `{{` and `}}` | a brace |
//!
//! A value is filled in literally: Redis keys are bytes, so no value can end a key or begin a
//! command. A value that is longer than 1024 bytes, or of another type, can be in no list, and the
//! token is refused with 401 in every fail mode. If a template has two placeholders with `:`
//! between them, `a:b` and `c` give the same key as `a` and `b:c`. That ambiguity is in the keys of
//! the other program.
//!
//! # How a list is asked
//! One command for each list (`EXISTS`, `GET` or `SISMEMBER`) is sent in the same round trip as the
//! `MGET` for our own records, and any hit refuses. `MGET` cannot ask a set, and hides keys of
//! another type. In a cluster each key is asked at the node that serves its slot, all in parallel.
//! All answers must come within
//! [`with_check_timeout`](super::RedisStoreBuilder::with_check_timeout) too.
//!
//! [`Revoker::reinstate`](crate::Revoker::reinstate) does not remove entries of the other program:
//! the token stays refused. It removes entries that were [written here](ForeignList::with_writes).
//!
//! An error, such as `WRONGTYPE`, or a value with no declared meaning, is no answer: the [fail
//! mode](crate::FailMode) decides, unless something else says that the token is revoked. When a key
//! expires or is removed, a token that has not expired is valid again.
//!
//! In a configuration a list is [a text](ForeignList#impl-FromStr-for-ForeignList):
//! `JWT_REDIS_FOREIGN_LISTS=blacklisted-jti-json|writes`.
//!
//! The Redis user of the store needs the rights for it: `~token:blacklist:* +exists +get
//! +sismember`, for [`with_writes`](ForeignList::with_writes) also `+eval +evalsha +set +pttl
//! +pexpire +del +sadd +srem`, and for an import `+info +scan +sscan +pttl`. If the user may not
//! read a list, the store does not start.
//!
//! # Security
//! - Only verified tokens are looked up.
//! - Anyone who can write to this Redis can make a list refuse a token, or accept it again by
//!   deleting the key. Our own records do not depend on the lists.
//! - Nobody can tell whether a list has lost entries. A loss together with our own records, in the
//!   same Redis, is [noticed](super::RedisStore#when-the-server-changes-or-has-lost-data); in a
//!   cluster, a node that keeps none of our [shards](super::RedisStoreBuilder::with_shards) can
//!   lose its lists unnoticed.
//!
//! ## Lists by the token itself
//! `{token}` and `{token_sha256}` identify a token by its text, and some tokens have a second valid
//! text: from an ECDSA signature `(r, s)`, anyone can make `(r, −s)`, which is as valid. The holder
//! of a listed token can present that one, and the list cannot catch it. *Our* revocations go by
//! the id, so they refuse both: [`with_writes`](ForeignList::with_writes) puts the entry of the
//! other program *beside* our record, never in its place. With HMAC, EdDSA and RSA there is only
//! one text, because [`JwtVerifier`](crate::JwtVerifier) refuses non-canonical base64.
//!
//! With `{token}`, the keys in Redis are the tokens themselves, and everyone who can list or log
//! keys can use them. The hash is better, `{jti}` is best. This crate never shows tokens in errors,
//! logs or `Debug`. If a list has such a placeholder, the token stays in memory with the
//! [`Clearance`](crate::Clearance) of its request.
//!
//! With [`UpstreamClaims`](crate::token::UpstreamClaims) the layer does not see the token, and such
//! lists are errors.
//!
//! # With a mirror
//! A [`Mirror`](crate::Mirror) follows our log, which other programs do not write. It refuses to
//! start on a store with foreign lists; use the store directly until you have removed them.
//!
//! # Ending the use of a list
//! 1. Run both programs, with the list: revocations by both count. Let the other program go on
//!    writing, or let this crate write for it: [`with_writes`](ForeignList::with_writes).
//! 2. When only this crate revokes, import what is still listed, once: [`Import`](super::Import)
//!    reads the keys and writes records of our own that last as long. Lists by `{token_sha256}`
//!    cannot be imported; wait for the longest lifetime of a token instead, until all listed tokens
//!    have expired.
//! 3. Remove `with_foreign_list`; then you can delete the keys.

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
