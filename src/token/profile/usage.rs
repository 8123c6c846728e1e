//! Whether tokens have the claims by which the user wants to revoke them: a revocation by a claim
//! that no token has is confirmed, and matches nothing.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use super::TokenProfile;

/// After how many tokens without a claim the log says so.
const SUSPICIOUS: u64 = 1000;

/// What is known of one claim.
#[derive(Debug, Default)]
pub(super) struct ClaimUsage {
    was_seen: AtomicBool,
    tokens_without: AtomicU64,
}

impl ClaimUsage {
    /// A token has the claim.
    pub(super) fn see(&self) {
        // Read first, so that threads do not contend for it once it is set.
        if !self.was_seen.load(Relaxed) {
            self.was_seen.store(true, Relaxed);
        }
    }

    /// How many tokens were without the claim, if none had it.
    pub(super) fn tokens_without(&self) -> Option<u64> {
        (!self.was_seen.load(Relaxed)).then(|| self.tokens_without.load(Relaxed))
    }
}

impl TokenProfile {
    /// A token was accepted, whose claims are noted already. Of no account once each claim was
    /// seen.
    pub(super) fn count_token(&self) {
        if self.watched_targets == 0 {
            return;
        }
        for target in &self.claim_targets {
            let Some(usage) = target.usage.as_deref() else { continue };
            if usage.was_seen.load(Relaxed) {
                continue;
            }
            if usage.tokens_without.fetch_add(1, Relaxed).saturating_add(1) == SUSPICIOUS {
                tracing::warn!(
                    claim = target.path.as_str(),
                    tokens = SUSPICIOUS,
                    "no token has had this claim, so that a revocation by it matches nothing; is \
                     it spelt as the issuer spells it? See TokenProfile::with_claim_target"
                );
            }
        }
    }
}
