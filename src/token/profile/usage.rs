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
    /// Whether an accepted token has had the claim.
    pub(super) fn was_seen(&self) -> bool {
        self.was_seen.load(Relaxed)
    }

    /// How many tokens were without the claim, if none had it.
    pub(super) fn tokens_without(&self) -> Option<u64> {
        (!self.was_seen()).then(|| self.tokens_without.load(Relaxed))
    }
}

impl TokenProfile {
    /// A token was accepted that has these claims of those that none has had. Of no account once
    /// each claim was seen.
    pub(super) fn count_token(&self, first_seen: &[&ClaimUsage]) {
        if self.watched_targets == 0 {
            return;
        }
        for usage in first_seen {
            usage.was_seen.store(true, Relaxed);
        }
        for target in &self.claim_targets {
            let Some(usage) = target.usage.as_deref() else { continue };
            if usage.was_seen() {
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
