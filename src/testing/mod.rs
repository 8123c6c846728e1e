//! Conformance suites: what every implementation of a trait of this crate has to do, as tests
//! (feature `test-util`).
//!
//! | | |
//! | --- | --- |
//! | [`store`] | the rules of [`RevocationStore`] |
//! | [`feed`] | the rules of [`Feed`](crate::store::feed::Feed), which a mirror needs |
//! | [`session_store`] | the rules of `SessionStore` (feature `sessions`) |
//!
//! The stores of this crate are tested by these very suites. A suite is handed a fixture, which
//! makes empty stores, and names each rule that a store breaks:
//!
//! ```
//! use tower_jwt_revocation::MemoryStore;
//! use tower_jwt_revocation::testing::{self, StoreFixture};
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
//! testing::store::assert_conforms(&InMemory).await;
//! # }
//! ```
//!
//! The suites need a Tokio runtime with time. With one of several threads they also find what goes
//! wrong only when calls overlap.

pub mod feed;
#[cfg(feature = "sessions")]
pub mod session_store;
pub mod store;
#[cfg(test)]
mod tests;
mod trial;

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::time::Duration;

use crate::clock::{Clock as _, SystemClock, Timestamp};
use crate::store::{RevocationStore, StoreError};

/// Within which a store has to keep a rule. It is long, so that a busy machine breaks none.
const LIMIT: Duration = Duration::from_secs(60);

/// Makes the stores that a suite tests.
pub trait StoreFixture: Send + Sync {
    /// The store under test.
    type Store: RevocationStore;

    /// A store that is empty and shares nothing with those that were made before. Each rule has its
    /// own.
    fn store(&self) -> impl Future<Output = Self::Store> + Send;

    /// Another handle of the same store, as another process has it, so that the suite sees whether
    /// a confirmed write is seen there, too.
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

    /// Lets so much time pass for the store: at most a second or two.
    ///
    /// Default: waits. A fixture whose stores have a clock that can be set moves that clock.
    fn advance(&self, by: Duration) -> impl Future<Output = ()> + Send {
        tokio::time::sleep(by)
    }
}

/// A rule that an implementation has broken, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    rule: &'static str,
    detail: String,
}

impl Violation {
    /// The name of the rule, as in its list.
    pub fn rule(&self) -> &'static str {
        self.rule
    }

    /// What was seen, and what was to be expected.
    pub fn detail(&self) -> &str {
        &self.detail
    }
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

/// The rules of a suite: an enum of their names, and what tries one of them.
macro_rules! rules {
    (
        $(#[$about:meta])* $name:ident, $Fixture:ident: [$($bound:tt)+];
        $($(#[doc = $doc:literal])+ $rule:ident => $case:path,)+
    ) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum $name {
            $($(#[doc = $doc])+ $rule,)+
        }

        impl $name {
            /// Every rule.
            pub const ALL: &[Self] = &[$(Self::$rule,)+];

            /// The name of the rule, as failures say it.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$rule => stringify!($rule),)+
                }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        /// Tries one rule on a store that the fixture makes.
        ///
        /// # Errors
        /// [`Violation`](crate::testing::Violation) if the store breaks the rule, or has not
        /// answered after a minute.
        pub async fn check<$Fixture>(
            fixture: &$Fixture,
            rule: $name,
        ) -> Result<(), crate::testing::Violation>
        where
            $Fixture: $($bound)+,
        {
            use futures::FutureExt as _;
            let trial = crate::testing::trial::Trial::new(fixture);
            let case = async move {
                let trial = trial.await;
                match rule {
                    $($name::$rule => $case(&trial).boxed().await,)+
                }
            };
            crate::testing::judge(rule.as_str(), case.boxed()).await
        }

        /// Tries every rule.
        ///
        /// # Panics
        /// If the store breaks any. The message names each rule that is broken, and says how.
        pub async fn assert_conforms<$Fixture>(fixture: &$Fixture)
        where
            $Fixture: $($bound)+,
        {
            let mut broken = Vec::new();
            for rule in $name::ALL {
                broken.extend(check(fixture, *rule).await.err());
            }
            let list: String = broken.iter().map(|rule| format!("\n- {rule}")).collect();
            let (count, all) = (broken.len(), $name::ALL.len());
            assert!(broken.is_empty(), "it breaks {count} of {all} rules:{list}");
        }
    };
}
use rules;

/// What a case that ended, or did not, says of the rule.
async fn judge(
    rule: &'static str,
    case: impl Future<Output = Trialed> + Send,
) -> Result<(), Violation> {
    let detail = match tokio::time::timeout(LIMIT, case).await {
        Ok(Ok(())) => return Ok(()),
        Ok(Err(Failure(detail))) => detail,
        Err(_) => format!("it has not answered after {LIMIT:?}"),
    };
    Err(Violation { rule, detail })
}
