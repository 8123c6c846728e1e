//! [`Record`]: the fact about one target, with a note for people.

use std::sync::Arc;

use serde::ser::{Serialize, SerializeMap as _, Serializer};

use super::Fact;
use crate::clock::Timestamp;
use crate::store_error::StoreError;
use crate::target::{Fingerprint, Target};
use crate::verified::VerifiedToken;

/// What a store keeps of one target: the [`Fact`] that decides, and a note for people: the target,
/// and who changed it last, when and why.
///
/// Stores make records by [`Receipt::of`](crate::store::Receipt::of) and read them back by
/// [`new`](Self::new). A record only grows: [`merge`](Self::merge) joins the facts and keeps the
/// later note.
#[derive(Clone, Debug, PartialEq, Eq)]
#[doc(alias("denylist", "blocklist", "blacklist"))]
pub struct Record {
    pub(crate) fact: Fact,
    pub(crate) note: RecordNote,
}

/// The words that go with the latest change of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RecordNote {
    pub(crate) target: Target,
    pub(crate) at: Timestamp,
    pub(crate) reason: Option<Arc<str>>,
    pub(crate) actor: Option<Arc<str>>,
}

impl Record {
    /// A record made of what a store has kept: the target, the fact, and
    /// [`changed_at`](Self::changed_at). The note is completed by
    /// [`with_reason`](Self::with_reason) and [`with_actor`](Self::with_actor).
    ///
    /// # Errors
    /// [`StoreError`] of kind [`Protocol`](crate::store::StoreErrorKind::Protocol) if this fact is
    /// impossible: it was neither revoked nor reinstated, has a cutoff that was never set, or has a
    /// later cutoff for the session that it spares. So a lost or confused column is not read as
    /// "not revoked".
    pub fn new(target: Target, fact: Fact, changed_at: Timestamp) -> Result<Self, StoreError> {
        if fact.latest() == Timestamp::ZERO {
            return Err(StoreError::invalid_record(
                "it was neither revoked nor reinstated at any time",
            ));
        }
        if fact.cutoff > Timestamp::ZERO && fact.cutoff_set_at == Timestamp::ZERO {
            return Err(StoreError::invalid_record("it has a cutoff that was set at no time"));
        }
        if !fact.spares_rightly() {
            return Err(StoreError::invalid_record("a session is spared by a later cutoff"));
        }
        let note = RecordNote { target, at: changed_at, reason: None, actor: None };
        Ok(Self { fact, note })
    }

    /// The same record with the reason of the latest change.
    #[must_use]
    pub fn with_reason(mut self, reason: Option<Arc<str>>) -> Self {
        self.note.reason = reason;
        self
    }

    /// The same record with the actor of the latest change.
    #[must_use]
    pub fn with_actor(mut self, actor: Option<Arc<str>>) -> Self {
        self.note.actor = actor;
        self
    }

    /// Takes in what `other` knows of the same target. Commutative, associative and idempotent;
    /// returns whether the fact has grown.
    pub fn merge(&mut self, other: &Self) -> bool {
        let before = self.fact;
        self.fact = before.merge(other.fact);
        if self.note.rank() < other.note.rank() {
            self.note = other.note.clone();
        }
        self.fact != before
    }

    /// Takes in a fact about the same target, without a note; returns whether anything has grown.
    pub(crate) fn join(&mut self, fact: Fact) -> bool {
        let before = self.fact;
        self.fact = before.merge(fact);
        self.fact != before
    }

    /// Drops the words of the note, which may name people.
    pub(crate) fn erase_names(&mut self, fingerprint: &Fingerprint) {
        let at = self.note.at;
        let target = Target::nameless(fingerprint);
        self.note = RecordNote { target, at, reason: None, actor: None };
    }

    /// What decides.
    pub fn fact(&self) -> Fact {
        self.fact
    }

    /// Whether every token of the target is revoked, see [`Fact::revokes_all`].
    pub fn revokes_all(&self) -> bool {
        self.fact.revokes_all()
    }

    /// Tokens of the target that were issued at or before this time are revoked, but for those of a
    /// session that is spared, see [`Fact::cutoff`].
    pub fn cutoff(&self) -> Option<Timestamp> {
        self.fact.cutoff()
    }

    /// Whether any token can be refused because of this record.
    pub fn is_in_effect(&self) -> bool {
        self.fact.is_in_effect()
    }

    /// Whether this record, kept for one of the targets of `token`, revokes it, see
    /// [`Fact::covers`].
    pub fn covers(&self, token: &VerifiedToken) -> bool {
        self.fact.covers(token)
    }

    #[cfg(any(feature = "sessions", test))]
    pub(crate) fn covers_issued_at(
        &self,
        issued_at: Option<Timestamp>,
        session: Option<&Fingerprint>,
    ) -> bool {
        self.fact.covers_issued_at(issued_at, session)
    }

    /// The first `iat` that the cutoff does not cover, see [`Fact::reissue_at`].
    pub fn reissue_at(&self) -> Option<Timestamp> {
        self.fact.reissue_at()
    }

    /// The target of this record.
    pub fn target(&self) -> &Target {
        &self.note.target
    }

    /// When the latest change was written, by the clock of the store.
    pub fn changed_at(&self) -> Timestamp {
        self.note.at
    }

    /// When the record may be forgotten: later than the end of every token that it covers.
    pub fn until(&self) -> Timestamp {
        self.fact.until
    }

    /// Why the latest change was made.
    pub fn reason(&self) -> Option<&Arc<str>> {
        self.note.reason.as_ref()
    }

    /// Who made the latest change.
    pub fn actor(&self) -> Option<&Arc<str>> {
        self.note.actor.as_ref()
    }
}

/// An object: `kind`, `id`, `iss` and `claim` where the target has them, `at`, `until`; `all` if
/// every token is revoked, `cutoff` if those until then are, with `spares_a_session` if those of
/// one session are not; `reason` and `actor` where given. Times are milliseconds since the epoch.
impl Serialize for Record {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let target = self.target();
        let mut object = serializer.serialize_map(None)?;
        object.serialize_entry("kind", target.kind().as_str())?;
        object.serialize_entry("id", target.id())?;
        let words = [
            ("iss", target.issuer_name().filter(|issuer| !issuer.is_empty())),
            ("claim", target.claim_name()),
            ("reason", self.reason().map(|text| &**text)),
            ("actor", self.actor().map(|text| &**text)),
        ];
        for (name, text) in words {
            if let Some(text) = text {
                object.serialize_entry(name, text)?;
            }
        }
        object.serialize_entry("at", &self.changed_at())?;
        object.serialize_entry("until", &self.until())?;
        object.serialize_entry("all", &self.revokes_all())?;
        if let Some(cutoff) = self.cutoff() {
            object.serialize_entry("cutoff", &cutoff)?;
            if !self.fact.spared.is_none() {
                object.serialize_entry("spares_a_session", &true)?;
            }
        }
        object.end()
    }
}

impl RecordNote {
    /// Notes are ordered by time; the rest makes the order total, so that a merge does not depend
    /// on its order.
    fn rank(&self) -> (Timestamp, Option<&Arc<str>>, Option<&Arc<str>>) {
        (self.at, self.reason.as_ref(), self.actor.as_ref())
    }
}
