//! Waiting until every mirror has a write, with a look at who is behind.

use std::sync::Arc;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::time::{Instant, sleep, timeout_at};
use tower_jwt_revocation::RedisStore;
use tower_jwt_revocation::store::{Follower, Receipt, RevocationStore as _, StoreErrorKind};

use crate::failure::with_causes;
use crate::output::escaped;

const PAUSE: Duration = Duration::from_millis(25);

/// What the mirrors have said.
#[derive(Debug, Default)]
pub(super) struct Mirrors {
    pub(super) applied: usize,
    /// The names of those that had not applied the write.
    pub(super) behind: Vec<Arc<str>>,
    /// Why they could not be asked.
    pub(super) error: Option<String>,
}

impl Mirrors {
    fn of(followers: Vec<Follower>) -> Self {
        let applied = followers.iter().filter(|follower| follower.has_applied).count();
        let behind = followers.into_iter().filter(|follower| !follower.has_applied);
        Self { applied, behind: behind.map(|follower| follower.name).collect(), error: None }
    }
}

/// Asks until all have applied it, or the time is over.
pub(super) async fn wait_for_mirrors(
    store: &RedisStore,
    receipt: &Receipt,
    limit: Duration,
) -> Mirrors {
    // What wrote nothing has no place in the log.
    let Some(fence) = receipt.fence else { return Mirrors::default() };
    let deadline = Instant::now() + limit;
    // Shows itself on a terminal only.
    let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr());
    if let Ok(style) =
        ProgressStyle::with_template("{bar:30} {pos}/{len} mirrors have it {wide_msg}")
    {
        bar.set_style(style);
    }
    let late = || Mirrors {
        error: Some("the mirrors could not be asked in time".into()),
        ..Mirrors::default()
    };
    let mut mirrors = late();
    while let Ok(followers) = timeout_at(deadline, store.followers(fence)).await {
        match followers {
            Ok(followers) => mirrors = Mirrors::of(followers),
            Err(error) => {
                mirrors.error = Some(with_causes(&error));
                // It does not get better by waiting.
                if error.kind() == StoreErrorKind::DataLoss || !error.may_be_repeated() {
                    break;
                }
            }
        }
        bar.set_length((mirrors.applied + mirrors.behind.len()) as u64);
        bar.set_position(mirrors.applied as u64);
        let names: Vec<_> = mirrors.behind.iter().map(|name| escaped(name)).collect();
        bar.set_message(names.join(", "));
        let is_done = mirrors.error.is_none() && mirrors.behind.is_empty();
        if is_done || Instant::now() + PAUSE >= deadline {
            break;
        }
        sleep(PAUSE).await;
    }
    bar.finish_and_clear();
    mirrors
}
