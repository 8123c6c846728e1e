//! What becomes of a refresh token that is presented: the state machine, pure.
//!
//! A [`Family`] is one login and all refresh tokens that came out of it. At any time one of them is
//! *current*; the one it replaced is the *parent*; all others are *older*, or were *superseded*
//! before they were ever used.
//!
//! | presented | condition | verdict |
//! | --- | --- | --- |
//! | anything | the family, its session, user, device, client or issuer is revoked | `Revoked` |
//! | anything | idle or absolute lifetime over | `Expired` |
//! | current | – | `Rotate`, or `Keep` where tokens are not rotated |
//! | parent | its successor was granted by a refresh that has ended in an error, or that nobody waited for | `Deliver`: the same successor, from now on with a grace |
//! | parent | within the grace, or of before a change of the server that is not long ago | `Replay`: the same successor again |
//! | parent | later, recovery on, not yet recovered | `Recover`: one new successor, the lost one is superseded |
//! | parent | otherwise | `Reuse` |
//! | older, superseded | – | `Reuse` |
//! | anything | the family is from before a loss of data | `InDoubt`; nothing is ended: it may be as good as ever |
//! | of a generation that is still to come | a change of the server is not long ago | `Behind`: it has to be asked for again |
//! | of a generation that is still to come | otherwise | `Lost` |
//! | not issued by us, or of another client | – | `Unknown`, `WrongClient`; the family is not touched |
//!
//! As long as a token is the parent, its successor has not been used: using it makes it the parent,
//! and its own parent older. So the grace closes by itself, and nothing that is presented twice can
//! extend it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::token::{FamilyKey, TokenDigest, TokenOrigin};
use crate::audit::AuditEvent;
use crate::clock::Timestamp;
use crate::config::ConfigError;
use crate::revocation::TargetKind;
use crate::store::session::Seen;
use crate::store::{Doubt, RevokedBy};

/// Default of [`RefreshPolicy::with_grace`].
pub(crate) const DEFAULT_GRACE: Duration = Duration::from_secs(10);
/// For so long after a change of the server the grace of a parent of before is not over: its holder
/// may not have had an answer, and the clocks of the two servers may be apart. And for so long a
/// document that is behind may be put back by a process that is late.
const MOVE_GRACE: Duration = Duration::from_secs(60);
/// Largest [`RefreshPolicy::with_grace`].
pub(crate) const MAX_GRACE: Duration = Duration::from_secs(300);
/// Default of [`RefreshPolicy::with_idle_lifetime`].
pub(crate) const DEFAULT_IDLE_LIFETIME: Duration = Duration::from_secs(14 * 24 * 60 * 60);
/// Default of [`RefreshPolicy::with_max_age`].
pub(crate) const DEFAULT_MAX_AGE: Duration = Duration::from_secs(90 * 24 * 60 * 60);

/// The policy of refresh tokens: how they are rotated, and for how long they are valid.
#[doc(alias = "token rotation")]
#[derive(Clone, Debug)]
#[must_use]
pub struct RefreshPolicy {
    pub(crate) rotate: bool,
    pub(crate) grace: Duration,
    pub(crate) recover: bool,
    pub(crate) idle: Duration,
    pub(crate) max_age: Option<Duration>,
    pub(crate) report_only: bool,
}

impl Default for RefreshPolicy {
    fn default() -> Self {
        Self::new()
    }
}

impl RefreshPolicy {
    /// Rotation at each use, with a grace of 10 s, an idle lifetime of 14 days, and a maximal age
    /// of 90 days.
    pub fn new() -> Self {
        Self {
            rotate: true,
            grace: DEFAULT_GRACE,
            recover: false,
            idle: DEFAULT_IDLE_LIFETIME,
            max_age: Some(DEFAULT_MAX_AGE),
            report_only: false,
        }
    }

    /// For how long after a rotation the replaced token still gets *the same* successor: for
    /// retries after a lost response, and for tabs that refresh at the same time. Default: 10 s,
    /// long enough for these; at most 300 s. The grace ends with the first use of the successor.
    ///
    /// A refresh that ended in an error, or for whose end nobody waited, may be repeated at any
    /// time. Otherwise zero is strict: a token works once, and a client that repeats a refresh
    /// after a lost response is signed out. So is one whose refresh was written by a process that
    /// died before the answer, if it repeats it after the grace: nobody is left to say that the
    /// answer was never given. [Recovery](Self::with_recovery) is for these.
    pub fn with_grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// A replaced token gets a *new* successor once, also after the grace, if its successor was
    /// never used: the response was probably lost. If the first successor is presented later,
    /// someone has a copy, and the family ends. Default: off.
    ///
    /// # Security
    /// A copy of the last used token works until the owner refreshes next, as does a copy of the
    /// current one anyway.
    pub fn with_recovery(mut self) -> Self {
        self.recover = true;
        self
    }

    /// Does not rotate: a token stays the same for the lifetime of its family. Use it only for
    /// tokens that are bound to the key of their sender, for which FAPI 2.0 Security Profile
    /// §5.3.2.1 requires it. Default: tokens are rotated.
    ///
    /// # Security
    /// Without rotation a copied token is never noticed.
    pub fn without_rotation(mut self) -> Self {
        self.rotate = false;
        self
    }

    /// How long a refresh token is valid; a family that is not refreshed for this long expires.
    /// Default 14 days; from one second to ten years.
    pub fn with_idle_lifetime(mut self, idle: Duration) -> Self {
        self.idle = idle;
        self
    }

    /// The longest age of a family, however often it is refreshed. Default 90 days, after which a
    /// user has to sign in again; from one second to ten years.
    pub fn with_max_age(mut self, max_age: Duration) -> Self {
        self.max_age = Some(max_age);
        self
    }

    /// A family that is refreshed in time never expires. Default: it does after 90 days.
    pub fn without_max_age(mut self) -> Self {
        self.max_age = None;
        self
    }

    /// Reports reuse and refuses the token, but does not end the family: to see in a running system
    /// what would happen. Default: reuse ends the family.
    ///
    /// # Security
    /// A thief who refreshes first keeps a valid token.
    pub fn with_report_only(mut self) -> Self {
        self.report_only = true;
        self
    }

    pub(crate) fn validate(&self) -> Result<(), ConfigError> {
        const TEN_YEARS: Duration = Duration::from_secs(10 * 366 * 24 * 60 * 60);
        if self.grace > MAX_GRACE {
            return Err(ConfigError::new(
                "grace",
                "is over 300 s; a copied token would work as long, set it to some seconds",
            ));
        }
        if self.idle < Duration::from_secs(1) || self.idle > TEN_YEARS {
            return Err(ConfigError::new(
                "idle_lifetime",
                "must be at least one second and at most ten years",
            ));
        }
        if self.max_age.is_some_and(|age| age < Duration::from_secs(1) || age > TEN_YEARS) {
            return Err(ConfigError::new(
                "max_age",
                "must be at least one second and at most ten years",
            ));
        }
        Ok(())
    }
}

/// One login and its refresh tokens, as it is kept in a store: hashes, and nothing that could be
/// presented.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Family {
    #[serde(rename = "u")]
    pub(crate) user: Box<str>,
    #[serde(rename = "s", default, skip_serializing_if = "Option::is_none")]
    pub(crate) session: Option<Box<str>>,
    #[serde(rename = "d", default, skip_serializing_if = "Option::is_none")]
    pub(crate) device: Option<Box<str>>,
    /// The OAuth client to which the tokens are bound.
    #[serde(rename = "cl", default, skip_serializing_if = "Option::is_none")]
    pub(crate) client: Option<Box<str>>,
    /// Tells tokens of this family from garbage.
    #[serde(rename = "k")]
    pub(crate) key: FamilyKey,
    #[serde(rename = "at")]
    pub(crate) created_at: Timestamp,
    /// When it was last refreshed.
    #[serde(rename = "used")]
    pub(crate) used_at: Timestamp,
    /// When it was last written that its session is in use.
    #[serde(rename = "t")]
    pub(crate) touched_at: Timestamp,
    /// How often its token was replaced.
    #[serde(rename = "g")]
    pub(crate) generation: u32,
    #[serde(rename = "c")]
    pub(crate) current: TokenDigest,
    #[serde(rename = "p", default, skip_serializing_if = "Option::is_none")]
    pub(crate) parent: Option<ParentToken>,
}

/// The token that the current one replaced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ParentToken {
    #[serde(rename = "c")]
    pub(crate) digest: TokenDigest,
    /// Together with the parent token itself it gives the current one: the salt of a derivation, or
    /// an id.
    #[serde(rename = "s")]
    pub(crate) seed: Box<str>,
    #[serde(rename = "at")]
    pub(crate) replaced_at: Timestamp,
    #[serde(rename = "r", default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) recovered: bool,
    /// Whether nobody was told of the current one.
    #[serde(rename = "n", default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) unanswered: bool,
}

/// A token that someone presents.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PresentedToken<'a> {
    pub(crate) digest: TokenDigest,
    pub(crate) origin: TokenOrigin,
    pub(crate) client: Option<&'a str>,
}

/// What is to be done with a presented token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum RefreshDecision {
    Rotate,
    Keep,
    Replay {
        seed: Box<str>,
    },
    Deliver {
        seed: Box<str>,
    },
    Recover,
    Reuse(ReuseClass),
    Revoked(RevokedBy),
    Expired,
    /// Whether it was revoked, or how far it had come, will not be known any more.
    InDoubt,
    /// The store is behind the presented token, and its server is a new one.
    Behind,
    /// The store has gone back behind the presented token.
    Lost,
    WrongClient,
    Unknown,
}

/// Which used token was presented.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReuseClass {
    Parent,
    Older,
    Superseded,
}

impl Family {
    /// What is to be done with `presented`, given the revocation records of all that the family
    /// belongs to; the time, what is in doubt, and when the server was another one before.
    pub(crate) fn decide(
        &self,
        presented: &PresentedToken<'_>,
        records: &[Seen],
        (now, doubt, moved_at): (Timestamp, Doubt, Option<Timestamp>),
        policy: &RefreshPolicy,
    ) -> RefreshDecision {
        if presented.origin == TokenOrigin::Foreign {
            return RefreshDecision::Unknown;
        }
        if self.client.as_deref().is_some_and(|client| presented.client != Some(client)) {
            return RefreshDecision::WrongClient;
        }
        if let Some(by) = self.revoked_by(records) {
            return RefreshDecision::Revoked(by);
        }
        if now >= self.expires_at(policy) {
            return RefreshDecision::Expired;
        }
        if Some(self.created_at) <= doubt.issued_until() {
            // What has been revoked since is not known any more. Nor what was written: a document
            // that was rolled back looks like one that was not.
            return RefreshDecision::InDoubt;
        }
        if presented.digest == self.current {
            return if policy.rotate { RefreshDecision::Rotate } else { RefreshDecision::Keep };
        }
        let moved_at =
            moved_at.filter(|moved_at| now.saturating_duration_since(*moved_at) < MOVE_GRACE);
        match (&self.parent, presented.origin) {
            (Some(parent), _) if parent.digest == presented.digest => {
                let has_moved = moved_at.is_some_and(|moved_at| parent.replaced_at < moved_at);
                if parent.unanswered {
                    RefreshDecision::Deliver { seed: parent.seed.clone() }
                } else if has_moved
                    || now.saturating_duration_since(parent.replaced_at) < policy.grace
                {
                    RefreshDecision::Replay { seed: parent.seed.clone() }
                } else if policy.recover && !parent.recovered {
                    RefreshDecision::Recover
                } else {
                    RefreshDecision::Reuse(ReuseClass::Parent)
                }
            }
            (_, TokenOrigin::Generation(generation)) if generation > self.generation => {
                if moved_at.is_some() { RefreshDecision::Behind } else { RefreshDecision::Lost }
            }
            (_, TokenOrigin::Generation(generation)) if generation == self.generation => {
                RefreshDecision::Reuse(ReuseClass::Superseded)
            }
            _ => RefreshDecision::Reuse(ReuseClass::Older),
        }
    }

    /// The first of the records that ends this family. A cutoff ends what was created at or before
    /// it.
    pub(crate) fn revoked_by(&self, records: &[Seen]) -> Option<RevokedBy> {
        let session = records.iter().find(|seen| seen.target.kind() == TargetKind::Session);
        let session = session.map(|seen| seen.target.fingerprint());
        let mut records = records.iter().filter_map(|seen| seen.record.as_ref());
        let created_at = Some(self.created_at);
        records
            .find(|record| record.covers_issued_at(created_at, session.as_ref()))
            .map(RevokedBy::from)
    }

    /// The family after its current token was replaced by the one with this digest.
    pub(crate) fn rotated(&self, successor: TokenDigest, seed: Box<str>, now: Timestamp) -> Self {
        let parent = ParentToken {
            digest: self.current,
            seed,
            replaced_at: now,
            recovered: false,
            unanswered: false,
        };
        Self {
            current: successor,
            parent: Some(parent),
            generation: self.generation.saturating_add(1),
            used_at: self.used_at.max(now),
            ..self.clone()
        }
    }

    /// The family after the successor of its parent was replaced by another one.
    pub(crate) fn recovered(&self, successor: TokenDigest, seed: Box<str>, now: Timestamp) -> Self {
        let parent = self.parent.clone().map(|parent| ParentToken {
            seed,
            replaced_at: now,
            recovered: true,
            unanswered: false,
            ..parent
        });
        Self { current: successor, parent, used_at: self.used_at.max(now), ..self.clone() }
    }

    /// The family after nobody was told of its current token.
    pub(crate) fn unanswered(&self) -> Self {
        let parent = self.parent.clone().map(|parent| ParentToken { unanswered: true, ..parent });
        Self { parent, ..self.clone() }
    }

    /// The family after the holder of the parent was told of the current token after all.
    pub(crate) fn delivered(&self, now: Timestamp) -> Self {
        let parent = self.parent.clone().map(|parent| ParentToken {
            replaced_at: now,
            unanswered: false,
            ..parent
        });
        Self { parent, used_at: self.used_at.max(now), ..self.clone() }
    }

    /// The family after its token was used and kept.
    pub(crate) fn used(&self, now: Timestamp) -> Self {
        Self { used_at: self.used_at.max(now), ..self.clone() }
    }

    /// The event with the ids of all that the family belongs to.
    pub(crate) fn describe(&self, event: AuditEvent) -> AuditEvent {
        event
            .with_subject(Some(&self.user))
            .with_session(self.session.as_deref())
            .with_device(self.device.as_deref())
            .with_client(self.client.as_deref())
    }

    /// When the family, and with it its current token, is over.
    pub(crate) fn expires_at(&self, policy: &RefreshPolicy) -> Timestamp {
        let idle = self.used_at.saturating_add(policy.idle);
        policy.max_age.map_or(idle, |age| idle.min(self.created_at.saturating_add(age)))
    }
}

#[cfg(test)]
#[path = "family_tests.rs"]
mod tests;
