//! For tests (feature `test-util`): [`TestAuth`] to test an application, and conformance suites to
//! test an implementation of a trait of this crate.
//!
//! # Suites
//!
//! What every implementation of a trait has to do, as tests. The suites have a test for each rule
//! of a trait; the stores of this crate are tested by them. A [`Suite`] takes a fixture, which
//! makes empty stores, and names each rule that a store breaks:
//!
//! ```
//! use tower_jwt_revocation::MemoryStore;
//! use tower_jwt_revocation::testing::{StoreFixture, Suite};
//!
//! struct InMemory;
//!
//! impl StoreFixture for InMemory {
//!     type Store = MemoryStore;
//!
//!     async fn store(&self) -> MemoryStore {
//!         MemoryStore::new()
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() {
//! // In a `#[tokio::test]` of yours:
//! Suite::of_store(&InMemory).assert_conforms().await;
//! // Memory loses nothing, so the rules about losses are not tried.
//! Suite::of_feed(&InMemory).assert_conforms().await;
//! # }
//! ```
//!
//! With feature `endpoints` there is also a provider that signs logout tokens and security events.
//!
//! The suites need a Tokio runtime with time. With several threads they also find mistakes that
//! show only when calls overlap.

#[cfg(feature = "test-util")]
mod auth;
mod feed;
#[cfg(feature = "endpoints")]
mod provider;
#[cfg(feature = "sessions")]
mod session_store;
mod store;
#[cfg(test)]
mod tests;
mod trial;

use std::borrow::Cow;
use std::error::Error;
use std::fmt;
use std::future::Future;
use std::time::Duration;

#[cfg(feature = "test-util")]
pub use auth::TestAuth;
use futures::future::BoxFuture;

#[cfg(feature = "endpoints")]
pub use self::provider::TestProvider;
use crate::clock::{Clock as _, SystemClock, Timestamp};
use crate::store::{RevocationStore, StoreError};

/// Within which a store has to keep a rule. It is long, so that a busy machine breaks none.
const LIMIT: Duration = Duration::from_secs(60);

/// Makes the stores that a suite tests.
pub trait StoreFixture: Send + Sync {
    /// The store under test.
    type Store: RevocationStore;

    /// Makes an empty store that shares nothing with earlier ones. Each rule is tested on its own
    /// store.
    fn store(&self) -> impl Future<Output = Self::Store> + Send;

    /// Another handle of the same store, as another process has one. The suite tests that it sees
    /// confirmed writes, too.
    ///
    /// Default: `None`, for a store that has one handle only; then this is not tested.
    fn another(&self, store: &Self::Store) -> impl Future<Output = Option<Self::Store>> + Send {
        let _ = store;
        async { None }
    }

    /// The time by the clock of the store. Default: that of the system.
    fn now(&self) -> Timestamp {
        SystemClock.now()
    }

    /// Lets this much time pass for the store: at most a second or two.
    ///
    /// Default: waits. A fixture whose stores have a clock that can be set moves that clock.
    fn advance(&self, by: Duration) -> impl Future<Output = ()> + Send {
        tokio::time::sleep(by)
    }

    /// Removes all data of this store, as when its server loses its data while the processes that
    /// use it go on. Returns whether that was done.
    ///
    /// Default: `false`, for a store that cannot lose its data while a process uses it. Then the
    /// rules of feeds about losses are not tested, and count as kept.
    fn lose_data(&self, store: &Self::Store) -> impl Future<Output = bool> + Send {
        let _ = store;
        async { false }
    }

    /// Lets another server take over the data of this store, as a failover does: it may lack the
    /// last writes, and the processes that use the store go on. Returns whether that was done.
    ///
    /// Default: `false`, for a store whose server stays the same, or confirms only what the next
    /// one will have. Then this is not tested.
    fn change_server(&self, store: &Self::Store) -> impl Future<Output = bool> + Send {
        let _ = store;
        async { false }
    }
}

/// A rule that an implementation has broken, and how.
#[derive(Debug)]
struct Violation {
    /// The name of the rule, as in the list of its suite.
    rule: Cow<'static, str>,
    /// What was seen, and what was to be expected.
    detail: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.rule, self.detail)
    }
}

impl Error for Violation {}

/// Why a case ended early: what becomes the detail of a [`Violation`].
#[derive(Debug)]
struct Failure(String);

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self(format!("an error where there was no reason for one: {error} ({:?})", error.kind()))
    }
}

type Trialed = Result<(), Failure>;

/// Ends the case with this text unless the condition holds.
macro_rules! ensure {
    ($condition:expr, $($text:tt)+) => {
        if !$condition {
            return Err($crate::testing::Failure(format!($($text)+)));
        }
    };
}
use ensure;

/// Ends the case unless both are equal.
macro_rules! ensure_eq {
    ($seen:expr, $expected:expr, $($text:tt)+) => {{
        let (seen, expected) = (&$seen, &$expected);
        if seen != expected {
            let text = format!($($text)+);
            return Err($crate::testing::Failure(format!(
                "{text}: expected {expected:?}, but it is {seen:?}"
            )));
        }
    }};
}
use ensure_eq;

/// Makes the constructor of a suite: a table of rules, each with the case that tries it.
macro_rules! rules {
    (
        $(#[$about:meta])* $constructor:ident, $Fixture:ident: [$($bound:tt)+];
        $($(#[doc = $doc:literal])+ $rule:ident => $case:path,)+
    ) => {
        impl<'a> $crate::testing::Suite<'a> {
            $(#[$about])*
            ///
            /// # Rules
            $(
                #[doc = concat!("- `", stringify!($rule), "`:")]
                $(#[doc = $doc])+
            )+
            pub fn $constructor<$Fixture>(fixture: &'a $Fixture) -> Self
            where
                $Fixture: $($bound)+,
            {
                use futures::FutureExt as _;
                use $crate::testing::{Rule, trial::Trial};
                Self {
                    rules: vec![$(Rule::new(stringify!($rule), move || {
                        async move { $case(&Trial::new(fixture).await).boxed().await }.boxed()
                    }),)+],
                }
            }
        }
    };
}
use rules;

/// A conformance suite: the rules of a trait, each tested on an implementation.
///
/// | | |
/// | --- | --- |
/// | [`of_store`](Self::of_store) | a [`RevocationStore`] |
/// | [`of_wrapper`](Self::of_wrapper) | a [`RevocationStore`] around another one |
/// | [`of_feed`](Self::of_feed) | a [`Feed`](crate::store::feed::Feed), which a mirror needs |
/// | [`of_session_store`](Self::of_session_store) | a `SessionStore` (feature `sessions`) |
#[doc(alias = "conformance")]
#[must_use = "nothing is tried until `assert_conforms` or `check` is awaited"]
pub struct Suite<'a> {
    rules: Vec<Rule<'a>>,
}

struct Rule<'a> {
    name: &'static str,
    case: Box<dyn Fn() -> BoxFuture<'a, Trialed> + Send + Sync + 'a>,
}

impl<'a> Rule<'a> {
    fn new(
        name: &'static str,
        case: impl Fn() -> BoxFuture<'a, Trialed> + Send + Sync + 'a,
    ) -> Self {
        Self { name, case: Box::new(case) }
    }

    /// Tries it, and says what a case that ended, or did not, shows.
    async fn check(&self) -> Result<(), Violation> {
        let detail = match tokio::time::timeout(LIMIT, (self.case)()).await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(Failure(detail))) => detail,
            Err(_) => format!("it has not answered after {LIMIT:?}"),
        };
        Err(Violation { rule: self.name.into(), detail })
    }
}

impl Suite<'_> {
    /// The names of its rules.
    pub fn rules(&self) -> impl ExactSizeIterator<Item = &'static str> {
        self.rules.iter().map(|rule| rule.name)
    }

    /// Tests one rule.
    ///
    /// # Errors
    /// The rule and what was seen, if the implementation breaks it or has not answered after a
    /// minute; also if the suite has no rule of this name.
    pub async fn check(&self, rule: &str) -> Result<(), Box<dyn Error + Send + Sync>> {
        match self.rules.iter().find(|known| known.name == rule) {
            Some(rule) => Ok(rule.check().await?),
            None => Err(Violation {
                rule: rule.to_owned().into(),
                detail: "there is no such rule".into(),
            }
            .into()),
        }
    }

    /// Tests every rule.
    ///
    /// # Panics
    /// If the implementation breaks any. The message names each rule that is broken, and says how.
    pub async fn assert_conforms(&self) {
        let mut broken = Vec::new();
        for rule in &self.rules {
            broken.extend(rule.check().await.err().map(|violation| violation.to_string()));
        }
        let (count, all) = (broken.len(), self.rules.len());
        assert!(broken.is_empty(), "it breaks {count} of {all} rules:\n- {}", broken.join("\n- "));
    }
}

impl fmt::Debug for Suite<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.rules()).finish()
    }
}
