//! Two verifiers: one for tokens of another make, whose keys are withdrawn, and one around another.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use tower_jwt_revocation::token::{SignedClaims, TokenError, TokenErrorKind, TokenVerifier};
use tower_jwt_revocation::{TokenProfile, VerifiedToken};

/// Reference tokens: each is a random text, and its claims are kept here.
pub struct ReferenceTokens {
    claims: RwLock<HashMap<String, String>>,
    profile: TokenProfile,
    generation: AtomicU64,
}

impl ReferenceTokens {
    /// No tokens yet; `profile` checks their claims.
    pub fn new(profile: TokenProfile) -> Self {
        Self { claims: RwLock::default(), profile, generation: AtomicU64::new(0) }
    }

    /// Accepts `token` with these claims: a JSON object.
    pub fn add(&self, token: &str, claims: &str) {
        let mut all = self.claims.write().unwrap_or_else(PoisonError::into_inner);
        all.insert(token.to_owned(), claims.to_owned());
    }

    /// Accepts `token` no longer.
    pub fn withdraw(&self, token: &str) {
        self.claims.write().unwrap_or_else(PoisonError::into_inner).remove(token);
        // After the change is in force: a cache that sees the new number gets the new answer.
        self.generation.fetch_add(1, Ordering::Release);
    }

    fn claims_of(&self, token: &str) -> Result<String, TokenError> {
        let all = self.claims.read().unwrap_or_else(PoisonError::into_inner);
        let unknown = || TokenError::new(TokenErrorKind::Other, "the token is not known");
        all.get(token).cloned().ok_or_else(unknown)
    }
}

impl TokenVerifier for ReferenceTokens {
    fn verify(&self, token: &str) -> Result<Arc<VerifiedToken>, TokenError> {
        let claims = self.claims_of(token)?;
        self.profile.assert_verified(SignedClaims::new(claims.as_bytes())).map(Arc::new)
    }

    fn verify_for_revocation(&self, token: &str) -> Result<Arc<VerifiedToken>, TokenError> {
        let claims = self.claims_of(token)?;
        let claims = SignedClaims::new(claims.as_bytes());
        self.profile.assert_verified_for_revocation(claims).map(Arc::new)
    }

    fn profile(&self) -> &TokenProfile {
        &self.profile
    }

    fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }
}

/// Counts the tokens that another verifier refuses.
pub struct CountingRefusals<V> {
    inner: V,
    refused: AtomicU64,
}

impl<V> CountingRefusals<V> {
    /// Verifies by `inner`.
    pub fn new(inner: V) -> Self {
        Self { inner, refused: AtomicU64::new(0) }
    }

    /// How many were refused so far.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }
}

impl<V: TokenVerifier> TokenVerifier for CountingRefusals<V> {
    fn verify(&self, token: &str) -> Result<Arc<VerifiedToken>, TokenError> {
        self.inner.verify(token).inspect_err(|_| {
            self.refused.fetch_add(1, Ordering::Relaxed);
        })
    }

    fn verify_for_revocation(&self, token: &str) -> Result<Arc<VerifiedToken>, TokenError> {
        self.inner.verify_for_revocation(token)
    }

    fn profile(&self) -> &TokenProfile {
        self.inner.profile()
    }

    fn generation(&self) -> u64 {
        self.inner.generation()
    }
}
