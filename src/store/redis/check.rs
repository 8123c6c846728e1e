//! The check of a token: all shards that keep records of its targets are asked at once.

use std::sync::Arc;

use futures::FutureExt as _;
use futures::stream::{FuturesUnordered, StreamExt as _};

use super::batch::CheckTurn;
use super::connection::unexpected_reply;
use super::core::StoreCore;
use crate::store::{Lookup, Standing, StoreError, StoreErrorKind};
use crate::verified::VerifiedToken;

impl StoreCore {
    /// The standing of a token by our own records.
    pub(crate) fn check(self: &Arc<Self>, token: &Arc<VerifiedToken>) -> Lookup {
        if token.targets().is_empty() {
            let nothing = "the token has nothing by which it could be revoked";
            return Lookup::Now(Err(StoreError::new(StoreErrorKind::InvalidInput, nothing)));
        }
        let (core, token) = (Arc::clone(self), Arc::clone(token));
        if let [checks] = &*self.checks {
            return match checks.turn(&token) {
                Ok(turn) => Lookup::Later(async move { core.ask(0, turn, token).await }.boxed()),
                Err(error) => Lookup::Now(Err(error)),
            };
        }
        let mut turns = Vec::with_capacity(token.targets().len());
        let mut failure = None;
        for (n, checks) in self.checks.iter().enumerate() {
            if !checks.has_targets_of(&token) {
                continue;
            }
            match checks.turn(&token) {
                Ok(turn) => turns.push((n, turn)),
                // The other shards are asked all the same: one of them may know that the token is
                // revoked.
                Err(error) => failure = Some(error),
            }
        }
        Lookup::Later(
            async move {
                let ask = |(n, turn)| core.ask(n, turn, Arc::clone(&token));
                let answers: FuturesUnordered<_> = turns.into_iter().map(ask).collect();
                first_revoked(answers, failure).await
            }
            .boxed(),
        )
    }

    /// What the shards behind the nth connection know of a token.
    async fn ask(
        &self,
        n: usize,
        turn: CheckTurn,
        token: Arc<VerifiedToken>,
    ) -> Result<Standing, StoreError> {
        // The span of the request that asks, if it has one.
        tracing::Span::current().record("db.system.name", "redis");
        match self.checks.get(n) {
            Some(checks) => checks.ask(turn, token).await,
            None => Err(unexpected_reply("redis")),
        }
    }
}

/// One answer of several: revoked as soon as one of them says so, whatever the others say; else the
/// failure that waiting may end, if there was one, or the other.
pub(crate) async fn first_revoked<F>(
    mut answers: FuturesUnordered<F>,
    mut failure: Option<StoreError>,
) -> Result<Standing, StoreError>
where
    F: Future<Output = Result<Standing, StoreError>>,
{
    while let Some(answer) = answers.next().await {
        match answer {
            Ok(revoked @ Standing::Revoked(_)) => return Ok(revoked),
            Ok(Standing::Live) => {}
            Err(error) => {
                failure = Some(match failure.take() {
                    None => error,
                    Some(other) => error.or_passing(other),
                });
            }
        }
    }
    failure.map_or(Ok(Standing::Live), Err)
}
