//! Sessions, their refresh tokens, and the devices they are on (feature `sessions`).
//!
//! | | |
//! | --- | --- |
//! | [`Sessions`] | signs in, refreshes, lists, ends: what a login server needs |
//! | [`Families`] | refresh tokens alone, opaque or minted by the application |
//! | [`UserCache`] | what was loaded about a user, until the user is revoked (feature `user-cache`) |
//!
//! Everything that ends here is revoked: every layer on the same store refuses its access tokens at
//! once.

// From the bottom up: a file names only files above it in this list. `tests/architecture.rs` holds
// it.
//
// | file | what it is |
// | --- | --- |
// | `calls` | how the store is called: attempts after a conflict, many calls at a time |
// | `turns` | who changes a document next, among those of this process |
// | `token` | the opaque refresh token; pure |
// | `documents` | the form in which documents are kept: a version and JSON; pure |
// | `family` | the policy, and what becomes of a refresh token that is presented; pure |
// | `config` | the policy from the environment or a file |
// | `list` | the sessions of a user, the sessions on a device; pure |
// | `grant` | what families are asked and answer: values |
// | `login` | what sessions are asked and answer: values |
// | `token_kind` | what differs between our refresh tokens and those of the application |
// | `unanswered` | tells the document of a refresh of which nobody heard |
// | `index` | the documents of sessions in the store |
// | `families` | starts, refreshes and ends families |
// | `sessions` | refreshes, lists and changes sessions |
// | `end` | ends sessions: of one id, of a user, on a device |
// | `sign_in` | begins a session: one family, and room for it in the list of its user |
// | `devices` | the devices that a user trusts |
// | `erase` | erases what is kept of a user |
// | `cache` | the user cache; names none of the others, and none of them names it |

#[cfg(feature = "user-cache")]
mod cache;
mod calls;
mod config;
mod devices;
mod documents;
mod end;
mod erase;
mod families;
mod family;
mod grant;
mod index;
mod list;
mod login;
mod sessions;
mod sign_in;
mod token;
mod token_kind;
mod turns;
mod unanswered;

#[cfg(feature = "user-cache")]
pub use cache::UserCache;
pub use config::RefreshConfig;
pub use families::Families;
pub use family::RefreshPolicy;
pub use grant::{Ended, Grant, NewFamily, Refresh, Refusal};
pub use list::{EvictionPolicy, Session, SessionDetails, TrustedDevice};
pub use login::Login;
pub use sessions::Sessions;
pub use token::RefreshToken;
#[cfg(feature = "endpoints")]
pub(crate) use token::random_id;
