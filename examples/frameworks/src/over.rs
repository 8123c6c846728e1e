//! When what was opened with a token has to end: streams, sockets, long answers.
//!
//! A request is checked when it comes; what goes on for hours after that is not. A [`Mirror`] says
//! when the token is revoked, by whichever process, and wakes nobody else. But a mirror that has
//! lost its Redis hears of nothing: a new request is answered with 503 by then, and a stream that
//! stayed open would be the way around that.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;
use tower_jwt_revocation::{Mirror, VerifiedToken};

/// For how long a stream goes on while nobody can tell whether its token was revoked. For ever, if
/// yours fail open.
pub const MAX_BLIND: Duration = Duration::from_secs(10);

/// Why it has to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Over {
    /// The token was revoked, or has expired.
    Token,
    /// Nobody has been able to tell for too long.
    Blind,
}

/// Completes when it has to end. `mirror` must be on the store that the layer asks; best it *is*
/// the store of the layer.
pub async fn over(mirror: Mirror, token: Arc<VerifiedToken>, max_blind: Duration) -> Over {
    tokio::select! {
        _ = mirror.revoked(&token) => Over::Token,
        () = blind(&mirror, max_blind) => Over::Blind,
    }
}

async fn blind(mirror: &Mirror, max_blind: Duration) {
    while mirror.staleness().is_some_and(|age| age < max_blind) {
        sleep(max_blind / 10).await;
    }
}
