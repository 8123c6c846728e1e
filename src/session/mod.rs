//! Logins that last: sessions, their refresh tokens, and the devices they are on (feature
//! `sessions`).
//!
//! | | |
//! | --- | --- |
//! | [`Sessions`] | signs in, refreshes, lists, ends: what a login server needs |
//! | [`Families`] | refresh tokens alone, opaque or minted by the application |
//! | [`UserCache`] | what was loaded about a user, until the user is revoked (feature `user-cache`) |
//!
//! Everything that ends here ends as a revocation: the access tokens that came out of it are
//! refused at once by every layer on the same store.

#[cfg(feature = "user-cache")]
mod cache;
mod devices;
mod documents;
mod families;
mod family;
mod grant;
mod lineage;
mod login;
mod roster;
mod sessions;
mod sign_in;
mod token;

use std::time::Duration;
use std::vec::IntoIter;

use futures::stream::{self, Buffered, Iter, StreamExt as _, TryCollect, TryStreamExt as _};
use serde::Serialize;
use serde::de::DeserializeOwned;

#[cfg(feature = "user-cache")]
pub use cache::{
    DEFAULT_USER_CACHE_CAPACITY, DEFAULT_USER_CACHE_LIFETIME, UserCache, UserCacheBuilder,
    UserCacheEntry, UserCacheStats,
};
pub use families::Families;
pub use family::{
    DEFAULT_GRACE, DEFAULT_IDLE_LIFETIME, DEFAULT_MAX_AGE, MAX_GRACE, RefreshPolicy, ReuseClass,
};
pub use grant::{Grant, GrantKind, NewFamily, Refresh, Refusal};
pub use login::{Login, NewSession};
pub use roster::{Session, SessionDetails, WhoGoes};
pub use sessions::{DEFAULT_MAX_SESSIONS, DEFAULT_TOUCH_INTERVAL, MAX_SESSIONS, Sessions};
pub use token::RefreshToken;

use crate::store::{StoreError, StoreErrorKind};

/// How often something is decided anew because someone else was faster. Each time, someone has got
/// through; so this is also how many can be at one user or one family at the same time.
const MOST_ATTEMPTS: u32 = 128;

/// How much of what is done for many sessions is under way at once.
const AT_A_TIME: usize = 32;

/// Counts attempts, and waits a little longer before each.
struct Attempts(u32);

impl Attempts {
    fn new() -> Self {
        Self(0)
    }

    /// Whether there is another attempt.
    async fn next(&mut self) -> bool {
        if self.0 > 0 {
            let mut random = [0];
            // Without random numbers all wait for the same time, and get through all the same.
            let _ = getrandom::fill(&mut random);
            let [random] = random.map(u64::from);
            let most = 100 * u64::from(self.0.min(20));
            tokio::time::sleep(Duration::from_micros(most * random / 255)).await;
        }
        self.0 += 1;
        self.0 <= MOST_ATTEMPTS
    }
}

/// Does all of it, some at a time: who has many sessions must not take all the places that a store
/// has for others.
fn all<T, F>(work: impl IntoIterator<Item = F>) -> TryCollect<Buffered<Iter<IntoIter<F>>>, Vec<T>>
where
    F: Future<Output = Result<T, StoreError>>,
{
    // Not the iterator, which borrows from who knows where, but what it gives.
    let work: Vec<F> = work.into_iter().collect();
    stream::iter(work).buffered(AT_A_TIME).try_collect()
}

fn out_of_attempts() -> StoreError {
    StoreError::new(
        StoreErrorKind::Overloaded,
        format!(
            "{MOST_ATTEMPTS} others were faster; nothing was granted, the call may be repeated"
        ),
    )
}

fn invalid(problem: impl Into<std::sync::Arc<str>>) -> StoreError {
    StoreError::new(StoreErrorKind::InvalidInput, problem)
}

/// The version of the documents. Another one is an error: to take it for none would sign people
/// out.
const VERSION: &str = "1 ";

fn print(document: &impl Serialize) -> Result<bytes::Bytes, StoreError> {
    let mut text = VERSION.as_bytes().to_vec();
    match serde_json::to_writer(&mut text, document) {
        Ok(()) => Ok(text.into()),
        Err(error) => Err(invalid("the data of the session is not JSON").with_source(error)),
    }
}

fn read<T: DeserializeOwned>(document: &[u8]) -> Result<T, StoreError> {
    let json = document.strip_prefix(VERSION.as_bytes());
    // The cause is dropped: its text may quote the document.
    json.and_then(|json| serde_json::from_slice(json).ok()).ok_or_else(|| {
        StoreError::new(StoreErrorKind::Protocol, "a document of a session is not of this version")
    })
}
