//! The check of a token: all shards that keep records of its targets are asked at once.

use std::sync::Arc;

use futures::FutureExt as _;
use futures::stream::{FuturesUnordered, StreamExt as _};

use super::connection::unexpected_reply;
use super::core::StoreCore;
use super::supervised::Permit;
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
            return match checks.acquire() {
                Ok(permit) => {
                    Lookup::Later(async move { core.ask(0, permit, token).await }.boxed())
                }
                Err(error) => Lookup::Now(Err(error)),
            };
        }
        let mut permits = Vec::with_capacity(token.targets().len());
        let mut failure = None;
        for (n, checks) in self.checks.iter().enumerate() {
            if !checks.has_targets_of(&token) {
                continue;
            }
            match checks.acquire() {
                Ok(permit) => permits.push((n, permit)),
                // The other shards are asked all the same: one of them may know that the token is
                // revoked.
                Err(error) => failure = Some(error),
            }
        }
        Lookup::Later(
            async move {
                let ask = |(n, permit)| core.ask(n, permit, Arc::clone(&token));
                let answers: FuturesUnordered<_> = permits.into_iter().map(ask).collect();
                first_revoked(answers, failure).await
            }
            .boxed(),
        )
    }

    /// What the shards behind the nth connection know of a token.
    async fn ask(
        &self,
        n: usize,
        permit: Permit,
        token: Arc<VerifiedToken>,
    ) -> Result<Standing, StoreError> {
        match self.checks.get(n) {
            Some(checks) => checks.ask(permit, token).await,
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
