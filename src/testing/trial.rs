//! What the cases of all suites do to a store, in short words.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::{Failure, StoreFixture};
use crate::clock::Timestamp;
use crate::revocation::{Action, Record, Revocation};
use crate::store::{ListQuery, Receipt, RevocationStore, Standing};
use crate::target::{Target, TargetKind};
use crate::token::TokenProfile;
use crate::token::profile::SignedClaims;
use crate::verified::VerifiedToken;

pub(super) const HOUR: Duration = Duration::from_secs(3600);
pub(super) const MINUTE: Duration = Duration::from_secs(60);

/// A store of the fixture, for one case.
pub(super) struct Trial<'a, F: StoreFixture> {
    pub(super) fixture: &'a F,
    pub(super) store: Arc<F::Store>,
}

impl<'a, F: StoreFixture> Trial<'a, F> {
    pub(super) async fn new(fixture: &'a F) -> Self {
        Self { fixture, store: Arc::new(fixture.store().await) }
    }

    pub(super) fn now(&self) -> Timestamp {
        self.fixture.now()
    }

    /// A token with these claims, besides an `exp` in 20 minutes.
    pub(super) fn token_of(
        &self,
        profile: &TokenProfile,
        mut claims: Value,
    ) -> Result<Arc<VerifiedToken>, Failure> {
        let now = self.now();
        if let Some(claims) = claims.as_object_mut() {
            claims.insert("exp".into(), (now.as_secs() + 1200).into());
        }
        let claims = claims.to_string();
        // The clock of the store need not be that of a verifier, so no time is checked.
        let token = profile.assert_verified_for_revocation(SignedClaims::new(claims.as_bytes()));
        token.map(Arc::new).map_err(|error| Failure(format!("the token of the test: {error}")))
    }

    /// A token of `subject`, issued a minute ago.
    pub(super) fn token(&self, subject: &str, id: &str) -> Result<Arc<VerifiedToken>, Failure> {
        let a_minute_ago = Timestamp::from_secs(self.now().saturating_sub(MINUTE).as_secs());
        self.issued_at(subject, id, a_minute_ago)
    }

    pub(super) fn issued_at(
        &self,
        subject: &str,
        id: &str,
        at: Timestamp,
    ) -> Result<Arc<VerifiedToken>, Failure> {
        // As text a time has three digits after the point, which a `NumericDate` may have too.
        let iat: Value = serde_json::from_str(&at.to_string()).unwrap_or_default();
        self.token_of(&TokenProfile::new(), json!({ "sub": subject, "jti": id, "iat": iat }))
    }

    pub(super) async fn standing(&self, token: &Arc<VerifiedToken>) -> Result<Standing, Failure> {
        Ok(self.store.check(token).answer().await?)
    }

    /// Through what the token is revoked, if it is.
    pub(super) async fn revoked_by(
        &self,
        token: &Arc<VerifiedToken>,
    ) -> Result<Option<TargetKind>, Failure> {
        Ok(match self.standing(token).await? {
            Standing::Live => None,
            Standing::Revoked(by) => Some(by.kind),
        })
    }

    pub(super) async fn is_revoked(&self, token: &Arc<VerifiedToken>) -> Result<bool, Failure> {
        Ok(self.revoked_by(token).await?.is_some())
    }

    pub(super) async fn write_all(
        &self,
        changes: Vec<Revocation>,
    ) -> Result<Vec<Receipt>, Failure> {
        let expected = changes.len();
        let receipts = self.store.write(changes).await?;
        if receipts.len() != expected {
            let count = receipts.len();
            return Err(Failure(format!("{expected} changes were answered by {count} receipts")));
        }
        Ok(receipts)
    }

    pub(super) async fn write(&self, change: Revocation) -> Result<Receipt, Failure> {
        let mut receipts = self.write_all(vec![change]).await?;
        receipts.pop().ok_or_else(|| Failure("a change without a receipt".into()))
    }

    /// Revokes as is usual for the kind, for an hour.
    pub(super) async fn revoke(&self, target: Target) -> Result<Receipt, Failure> {
        self.write(Revocation::new(target, HOUR)).await
    }

    pub(super) async fn reinstate(&self, target: Target) -> Result<Receipt, Failure> {
        self.write(revocation(target, Action::Reinstate)).await
    }

    pub(super) async fn find(&self, target: &Target) -> Result<Option<Record>, Failure> {
        Ok(self.store.find(target).await?)
    }

    /// The record of a target for which there has to be one.
    pub(super) async fn record(&self, target: &Target) -> Result<Record, Failure> {
        let record = self.find(target).await?;
        record.ok_or_else(|| Failure(format!("there is no record of {target}")))
    }

    /// The targets of all pages, sorted and without what came twice.
    pub(super) async fn list(&self, mut query: ListQuery) -> Result<Vec<String>, Failure> {
        let mut found = Vec::new();
        for _ in 0..10_000 {
            let page = self.store.list(query.clone()).await?;
            for record in &page.records {
                if !query.admits(record) || !record.is_in_effect() {
                    return Err(Failure(format!("{record:?} was not asked for by {query:?}")));
                }
                found.push(record.target().to_string());
            }
            let Some(next) = page.next else {
                found.sort();
                found.dedup();
                return Ok(found);
            };
            query.cursor = Some(next);
        }
        Err(Failure("the listing does not end".into()))
    }
}

/// A change that is kept for an hour.
pub(super) fn revocation(target: Target, action: Action) -> Revocation {
    let mut change = Revocation::new(target, HOUR);
    change.action = action;
    change
}
