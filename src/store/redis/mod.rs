//! [`RedisStore`]: revocations that all processes share.
//!
//! | | |
//! | --- | --- |
//! | [`RedisStore`], [`RedisStoreBuilder`] | the store, and what can be set |
//! | [`RedisConfig`] | a store from environment variables or a file |
//! | [`Health`] | whether Redis can be used right now |
//! | [`Report`] | whether this Redis is fit to keep revocations: [`RedisStore::doctor`] |
//! | [`foreign`] | lists of revoked tokens that other programs keep |
//! | [`RedisAuditSink`] | audit events by user |

// A module names only modules above it in this table. A test of the architecture checks it.
//
// | level | module | what it is |
// | --- | --- | --- |
// | pure | `random` | jitter, and ids of epochs and mirrors |
// | | `schema` | names of keys, and what their values look like |
// | | `script` | the Lua script that writes: arguments and reply |
// | | `options` | what can be set, and the defaults |
// | | `error` | why a store could not be opened |
// | | `tls` | which authorities are trusted, and by which certificate a client shows itself |
// | | `url` | URLs of Redis |
// | | `writers` | what this process has confirmed, for a server that does not have it |
// | | `health` | whether Redis can be used right now |
// | | `activity` | what the connections have done, for metrics |
// | | `epoch` | how a loss of data is noticed, and which tokens are in doubt then |
// | | `address_map` | where announced addresses are dialled |
// | | `credentials` | credentials that change |
// | | `server_id` | which server is at the other end of a connection |
// | connection | `lease` | until when a server is believed to be the primary |
// | | `time_limit` | how long an answer is waited for, while this process runs |
// | | `race` | the addresses of one name, raced |
// | | `connection` | one connection to one server, and what its errors mean |
// | | `reply` | what replies hold |
// | | `role` | whether a server is a primary, by whichever command it answers |
// | | `topology` | where the primary is |
// | | `log_check` | whether a server still has the changes that were known |
// | | `supervised` | a connection that is watched and replaced |
// | questions | `batch` | checks that share round trips |
// | | `core` | what all parts of a store share |
// | | `command` | commands that are sent again while the connection is down |
// | | `check` | the check of a token |
// | | `write` | changes, replayed records, epochs |
// | | `query` | look-ups |
// | | `accepted` | which targets layers accept, for those who only revoke |
// | | `erase` | erases the words of records |
// | | `followers` | which mirrors there are, and which change each has applied |
// | | `forget` | takes out of the indexes what is over |
// | | `maintenance` | opening a store, and the task that keeps its epochs |
// | store | `foreign` | lists of revoked tokens that other programs keep |
// | | `store` | the handle |
// | | `feed` | the log of one shard, for a mirror |
// | | `journal` | bounded streams of entries |
// | | `audit` | the audit sink that keeps events in journals |
// | | `import` | takes over what a foreign list holds |
// | | `session` | the documents of sessions and families (feature `sessions`) |
// | | `doubt` | what an operator decides about a doubt |
// | | `doctor` | whether this Redis is fit to keep revocations |
// | | `builder` | sets options, and opens a store |
// | | `config` | a store from environment variables or a file |

mod accepted;
mod activity;
mod address_map;
mod audit;
mod batch;
mod builder;
mod check;
mod command;
mod config;
mod connection;
mod core;
mod credentials;
mod doctor;
mod doubt;
mod epoch;
mod erase;
mod error;
mod feed;
mod followers;
pub mod foreign;
mod forget;
mod health;
mod import;
mod journal;
mod lease;
mod log_check;
mod maintenance;
mod options;
mod query;
mod race;
mod random;
mod reply;
mod role;
mod schema;
mod script;
mod server_id;
#[cfg(feature = "sessions")]
mod session;
mod store;
mod supervised;
mod time_limit;
mod tls;
mod topology;
mod url;
mod write;
mod writers;

/// The Redis client, in the version of which [`RedisStoreBuilder::with_fred_config`] takes a
/// configuration (feature `fred-config`).
#[cfg(feature = "fred-config")]
pub use fred;

pub use self::audit::RedisAuditSink;
pub use self::builder::RedisStoreBuilder;
pub use self::config::RedisConfig;
pub use self::credentials::RedisCredentials;
pub use self::doctor::{Finding, Report, ServerFigures};
pub use self::error::ConnectError;
pub use self::health::Health;
pub use self::import::{Import, ImportReport};
pub use self::options::Start;
pub use self::store::RedisStore;
