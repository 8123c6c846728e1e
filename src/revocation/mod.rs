//! What a revocation is, and which tokens it covers: the heart of the crate, pure.
//!
//! Three values:
//!
//! - a [`Target`] names what is revoked (a token, a session, a user, …) and has a [`Fingerprint`], the fixed-size
//!   identity under which every store keeps it;
//! - a [`Revocation`] is a wish to change the standing of one target;
//! - a [`Record`] is the standing of one target, the join of all that was ever wished for it.
//!
//! Records only grow: [`Record::merge`] takes the larger of each part, so applying a fact twice, late or out of
//! order gives the same record, and stores that have drifted apart agree after they have exchanged their records.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest, Sha256};

use crate::clock::Timestamp;
use crate::verified::VerifiedToken;

/// Longest id (`jti`, `sub`, …), reason and actor, in bytes.
///
/// Ids are hashed before they become part of a key, so this bounds what a record costs, not what is safe.
pub const MAX_ID_BYTES: usize = 1024;

/// The claim of targets whose name was lost. No claim of a token is called so by accident.
#[cfg(feature = "redis")]
const NAMELESS: &str = "(restored by a mirror)";
/// [`Record::until`] of a record that is never forgotten: the latest time that every store can keep.
const NEVER: Timestamp = Timestamp::from_millis((1 << 53) - 1);

// === What is revoked ===

/// The kinds of things that can be revoked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum TargetKind {
    /// One token, by its id claim (`jti`, RFC 7519 §4.1.7).
    Token,
    /// One token that has no id, by the SHA-256 of its signing input (RFC 7515 §2). Never by its signature: an ECDSA
    /// signature has a second valid spelling.
    SigningInput,
    /// A login session (`sid`, OpenID Connect Front-Channel Logout §3).
    Session,
    /// A device.
    Device,
    /// A family of refresh tokens and all access tokens that came out of it (RFC 9700 §4.14).
    Family,
    /// A user (`sub`, RFC 7519 §4.1.2).
    User,
    /// An OAuth client (`client_id`, RFC 9068 §2.2; `azp`, OpenID Connect Core §2).
    Client,
    /// A signing key (`kid`, RFC 7515 §4.1.4).
    Key,
    /// Everything an issuer has issued (`iss`, RFC 7519 §4.1.1).
    Issuer,
    /// All tokens in which a claim of your choice has a certain value.
    Claim,
}

impl TargetKind {
    /// Every kind, in the order in which hits are reported.
    pub const ALL: [Self; 10] = [
        Self::Token,
        Self::SigningInput,
        Self::Session,
        Self::Device,
        Self::Family,
        Self::User,
        Self::Client,
        Self::Key,
        Self::Issuer,
        Self::Claim,
    ];

    /// The name of the kind, as it is written in records and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Token => "token",
            Self::SigningInput => "signing_input",
            Self::Session => "session",
            Self::Device => "device",
            Self::Family => "family",
            Self::User => "user",
            Self::Client => "client",
            Self::Key => "key",
            Self::Issuer => "issuer",
            Self::Claim => "claim",
        }
    }

    /// The byte that keeps the fingerprints of different kinds apart. Stored data depends on it: never renumber.
    const fn code(self) -> u8 {
        match self {
            Self::Token => 1,
            Self::Session => 2,
            Self::Device => 3,
            Self::Family => 4,
            Self::User => 5,
            Self::Client => 6,
            Self::Key => 7,
            Self::Issuer => 8,
            Self::Claim => 9,
            Self::SigningInput => 10,
        }
    }

    /// What a revocation of this kind means when nothing else is said: things that end stay ended, while those that
    /// go on (a user logs in again, a client gets new tokens) lose only what they were given so far.
    const fn default_extent(self) -> Extent {
        match self {
            Self::Token | Self::SigningInput | Self::Session | Self::Family => Extent::All,
            Self::Device | Self::User | Self::Client | Self::Key | Self::Issuer | Self::Claim => {
                Extent::IssuedSoFar
            }
        }
    }

    /// Whether ids of this kind mean something only together with the issuer that gave them.
    const fn belongs_to_issuer(self) -> bool {
        !matches!(self, Self::Key | Self::Issuer)
    }
}

impl fmt::Display for TargetKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What is revoked: a kind, an id and, for all but keys and issuers, the issuer that gave the id.
///
/// `Target::user("alice")` names no issuer: the [`Revoker`](crate::Revoker) fills in the one of its token profile.
/// With several issuers the caller says which: `Target::user("alice").issued_by("https://id.example")`.
///
/// `Display` and `Debug` show the id; ids are not secrets, but they may be personal data.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Target {
    kind: TargetKind,
    claim: Option<Arc<str>>,
    issuer: Option<Arc<str>>,
    id: Box<str>,
}

impl Target {
    pub(crate) fn new(kind: TargetKind, id: impl Into<Box<str>>) -> Self {
        Self { kind, claim: None, issuer: None, id: id.into() }
    }

    /// One token, by its id claim (`jti` unless configured otherwise).
    pub fn token(jti: impl Into<Box<str>>) -> Self {
        Self::new(TargetKind::Token, jti)
    }

    /// A login session.
    pub fn session(sid: impl Into<Box<str>>) -> Self {
        Self::new(TargetKind::Session, sid)
    }

    /// A device. Its id must be unique among all users of the issuer, or others are logged out too.
    pub fn device(id: impl Into<Box<str>>) -> Self {
        Self::new(TargetKind::Device, id)
    }

    /// A family of refresh tokens with its access tokens.
    pub fn family(id: impl Into<Box<str>>) -> Self {
        Self::new(TargetKind::Family, id)
    }

    /// All tokens of a user.
    pub fn user(sub: impl Into<Box<str>>) -> Self {
        Self::new(TargetKind::User, sub)
    }

    /// All tokens of an OAuth client.
    pub fn client(client_id: impl Into<Box<str>>) -> Self {
        Self::new(TargetKind::Client, client_id)
    }

    /// All tokens signed with the key of this `kid`.
    ///
    /// By default tokens that claim to be issued later pass. If the key was stolen, revoke
    /// [`Extent::All`]: the thief chooses the `iat`.
    pub fn key(kid: impl Into<Box<str>>) -> Self {
        Self::new(TargetKind::Key, kid)
    }

    /// All tokens of an issuer; the empty string where the token profile names no issuer.
    pub fn issuer(iss: impl Into<Box<str>>) -> Self {
        Self::new(TargetKind::Issuer, iss)
    }

    /// All tokens in which the claim `name` has the value `value`; the profile must map the claim, see
    /// [`TokenProfile::with_claim_target`](crate::token::TokenProfile::with_claim_target).
    pub fn claim(name: impl Into<Arc<str>>, value: impl Into<Box<str>>) -> Self {
        Self { kind: TargetKind::Claim, claim: Some(name.into()), issuer: None, id: value.into() }
    }

    /// The same target at a certain issuer. Has no effect on keys and issuers, which belong to none.
    #[must_use]
    pub fn issued_by(mut self, issuer: impl Into<Arc<str>>) -> Self {
        if self.kind.belongs_to_issuer() {
            self.issuer = Some(issuer.into()).filter(|issuer: &Arc<str>| !issuer.is_empty());
        }
        self
    }

    /// The target of a record of which only the fingerprint is left.
    #[cfg(feature = "redis")]
    pub(crate) fn nameless(fingerprint: &Fingerprint) -> Self {
        Self::claim(NAMELESS, fingerprint.to_string())
    }

    /// Whether this target can be the one with that fingerprint: it is, or it is nameless and says so.
    #[cfg(feature = "redis")]
    pub(crate) fn is_known_as(&self, fingerprint: &Fingerprint) -> bool {
        self.fingerprint() == *fingerprint || *self == Self::nameless(fingerprint)
    }

    pub(crate) fn without_issuer(mut self) -> Self {
        self.issuer = None;
        self
    }

    /// What kind of thing this is.
    pub fn kind(&self) -> TargetKind {
        self.kind
    }

    /// The name of the claim, for [`TargetKind::Claim`].
    pub fn claim_name(&self) -> Option<&str> {
        self.claim.as_deref()
    }

    /// The issuer to which the id belongs, if one was named.
    pub fn issuer_name(&self) -> Option<&str> {
        self.issuer.as_deref()
    }

    /// The id: a `jti`, a `sub`, …
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Whether the kind needs an issuer to be named where a profile has several.
    pub(crate) fn wants_issuer(&self) -> bool {
        self.kind.belongs_to_issuer() && self.issuer.is_none()
    }

    /// The identity of this target in every store.
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(
            self.kind,
            IssuerDigest::of(self.issuer.as_deref().unwrap_or("")),
            self.claim.as_deref().unwrap_or(""),
            &self.id,
        )
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.claim {
            Some(claim) => write!(f, "claim {claim}={}", self.id),
            None => write!(f, "{} {}", self.kind, self.id),
        }
    }
}

/// The issuer's part of a fingerprint, kept by whoever computes many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct IssuerDigest([u8; 16]);

impl IssuerDigest {
    pub(crate) fn of(issuer: &str) -> Self {
        Self(first_half(Sha256::digest(issuer)))
    }
}

/// The identity of a [`Target`]: 128 bits of SHA-256 over its kind, its issuer, its claim name and its id.
///
/// Ids come from tokens and may be anything; a fingerprint is always 16 bytes. So no id can be mistaken for another
/// key, kind, issuer or Redis hash tag, and every record costs the same.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint([u8; 16]);

impl Fingerprint {
    /// The parts before the id have a fixed size or carry their length, so no two targets have the same text.
    pub(crate) fn of(kind: TargetKind, issuer: IssuerDigest, claim: &str, id: &str) -> Self {
        let mut hash = Sha256::new_with_prefix([kind.code()]);
        // Keys and issuers are known under one name everywhere.
        let issuer = if kind.belongs_to_issuer() { issuer } else { IssuerDigest([0; 16]) };
        hash.update(issuer.0);
        if kind == TargetKind::Claim {
            hash.update((claim.len() as u64).to_be_bytes());
            hash.update(claim);
        }
        hash.update(id);
        Self(first_half(hash.finalize()))
    }

    /// The fingerprint with these bytes, as read back from a store.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The 16 bytes.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// The 16 bytes as two numbers, each as random as the whole.
    #[expect(clippy::cast_possible_truncation, reason = "the halves are what is wanted")]
    pub(crate) const fn words(&self) -> (u64, u64) {
        let bits = u128::from_be_bytes(self.0);
        ((bits >> 64) as u64, bits as u64)
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

fn first_half(digest: impl Into<[u8; 32]>) -> [u8; 16] {
    let digest: [u8; 32] = digest.into();
    let mut half = [0; 16];
    half.iter_mut().zip(digest).for_each(|(to, from)| *to = from);
    half
}

// === The wish ===

/// How much of a target is revoked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Extent {
    /// Every token, whenever issued. The default for tokens, sessions and families.
    ///
    /// Of a device, a user, a client, a key, an issuer or a claim, which go on to be given tokens, it is remembered
    /// until it is reinstated.
    All,
    /// The tokens issued up to the moment of the write, by the clock of the store. The default for everything else.
    IssuedSoFar,
    /// The tokens issued at or before this time, for facts that are told late (an event with a time of its own).
    IssuedUntil(Timestamp),
}

/// What is to be done to a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Action {
    /// Refuse its tokens from now on.
    Revoke(Extent),
    /// Accept its tokens again. Undoes all that was revoked earlier, nothing that is revoked later.
    Reinstate,
}

/// A change of the standing of one target, as it is handed to a store. Made by [`Revoker`](crate::Revoker).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Revocation {
    /// What is revoked or reinstated.
    pub target: Target,
    /// What is to be done.
    pub action: Action,
    /// The record is kept at least until then; [`Timestamp::ZERO`] to leave it to `lifetime`.
    pub until: Timestamp,
    /// The record is kept at least this long, counted from the write by the clock of the store.
    pub lifetime: Duration,
    /// Why, for people. At most [`MAX_ID_BYTES`].
    pub reason: Option<Arc<str>>,
    /// Who did it, for people. At most [`MAX_ID_BYTES`].
    pub actor: Option<Arc<str>>,
}

impl Revocation {
    /// A revocation of `target` with the extent that is usual for its kind, kept for `lifetime`.
    pub fn new(target: Target, lifetime: Duration) -> Self {
        let action = Action::Revoke(target.kind.default_extent());
        Self { target, action, until: Timestamp::ZERO, lifetime, reason: None, actor: None }
    }

    /// Makes sure that the record outlives the tokens that it covers, also those that are still to be issued.
    pub(crate) fn outlive_tokens(&mut self) {
        match self.action {
            // A thief who has a key, or a user who may log in, is given tokens for ever.
            Action::Revoke(Extent::All) if self.target.kind.default_extent() != Extent::All => {
                self.until = NEVER;
            }
            Action::Revoke(Extent::IssuedUntil(cutoff)) => {
                self.until = self.until.max(cutoff.plus(self.lifetime)).min(NEVER);
            }
            _ => {}
        }
    }

    /// What this change makes of a record: the pure core of every store, which the stores that write elsewhere
    /// (the Redis script) repeat to the letter.
    ///
    /// `now` is the clock of the store. It may have gone back since the last change, as it does after a failover, so
    /// the change is dated late enough to count: a revocation not before the last reinstatement, a reinstatement after
    /// the last revocation.
    pub(crate) fn apply(&self, before: Option<&Record>, now: Timestamp) -> Change {
        let before = before.filter(|record| record.until > now);
        let until =
            if self.lifetime.is_zero() { self.until } else { self.until.max(now.plus(self.lifetime)) };
        if until <= now {
            return Change::Nothing(Outcome::AlreadyExpired);
        }
        let was_in_effect = before.is_some_and(Record::is_in_effect);
        if self.action == Action::Reinstate && !was_in_effect {
            return Change::Nothing(Outcome::Already);
        }
        let floor = before.map_or(Timestamp::ZERO, |record| match self.action {
            Action::Revoke(_) => record.reinstated,
            Action::Reinstate => record.all.max(record.cutoff_set).plus(Duration::from_millis(1)),
        });
        let at = now.max(floor);
        let mut record = Record::blank(Note {
            target: self.target.clone(),
            at,
            reason: self.reason.clone(),
            actor: self.actor.clone(),
        });
        record.until = until;
        match self.action {
            Action::Revoke(Extent::All) => record.all = at,
            // Past the last cutoff in any case: tokens may have been issued right after it, in this very millisecond.
            Action::Revoke(Extent::IssuedSoFar) => {
                let last = before.and_then(Record::reissue_at);
                (record.cutoff, record.cutoff_set) = (last.map_or(now, |last| now.max(last)), at);
            }
            Action::Revoke(Extent::IssuedUntil(cutoff)) => (record.cutoff, record.cutoff_set) = (cutoff, at),
            Action::Reinstate => record.reinstated = at,
        }
        let Some(before) = before else { return Change::Write(Outcome::New, record) };
        record.merge(before);
        let unchanged = record.coverage() == before.coverage() && record.until == before.until;
        match (unchanged, was_in_effect, self.action) {
            (true, _, _) => Change::Nothing(Outcome::Already),
            (false, true, Action::Revoke(_)) => Change::Write(Outcome::Extended, record),
            (false, _, _) => Change::Write(Outcome::New, record),
        }
    }
}

/// What a [`Revocation`] makes of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// There is nothing to write.
    Nothing(Outcome),
    /// The record to write.
    Write(Outcome, Record),
}

/// What a write changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// The target had no record in effect, now it has; or it was reinstated.
    New,
    /// The target had a record in effect, which now covers more, or for longer.
    Extended,
    /// Everything asked for was so already.
    Already,
    /// Everything that the record would cover is over. Nothing was written, nothing needs to be.
    AlreadyExpired,
}

// === The fact ===

/// The standing of one target: the join of everything that was ever written about it.
///
/// A join-semilattice: each part only grows, [`merge`](Self::merge) takes the larger of each. What is in effect is
/// read off: a revocation counts unless a *later* reinstatement stands against it, so a tie is revoked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// When all tokens were last revoked; zero for never.
    pub(crate) all: Timestamp,
    /// Tokens issued at or before this are revoked; zero for none.
    pub(crate) cutoff: Timestamp,
    /// When the cutoff was last set or confirmed.
    pub(crate) cutoff_set: Timestamp,
    /// When the target was last reinstated; zero for never.
    pub(crate) reinstated: Timestamp,
    /// When the record may be forgotten.
    pub(crate) until: Timestamp,
    /// The latest change, in words.
    pub(crate) note: Note,
}

/// The words that go with the latest change of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Note {
    pub(crate) target: Target,
    pub(crate) at: Timestamp,
    pub(crate) reason: Option<Arc<str>>,
    pub(crate) actor: Option<Arc<str>>,
}

impl Record {
    fn blank(note: Note) -> Self {
        Self {
            all: Timestamp::ZERO,
            cutoff: Timestamp::ZERO,
            cutoff_set: Timestamp::ZERO,
            reinstated: Timestamp::ZERO,
            until: Timestamp::ZERO,
            note,
        }
    }

    /// What decides, as far as it is in effect.
    fn coverage(&self) -> (bool, Option<Timestamp>) {
        (self.revokes_all(), self.cutoff())
    }

    /// Takes in what `other` knows of the same target. Commutative, associative and idempotent; returns whether
    /// anything that decides, or the lifetime, has grown.
    pub fn merge(&mut self, other: &Self) -> bool {
        let before = self.weight();
        self.all = self.all.max(other.all);
        self.cutoff = self.cutoff.max(other.cutoff);
        self.cutoff_set = self.cutoff_set.max(other.cutoff_set);
        self.reinstated = self.reinstated.max(other.reinstated);
        self.until = self.until.max(other.until);
        if self.note.rank() < other.note.rank() {
            self.note = other.note.clone();
        }
        self.weight() != before
    }

    fn weight(&self) -> [Timestamp; 5] {
        [self.all, self.cutoff, self.cutoff_set, self.reinstated, self.until]
    }

    /// Whether every token of the target is revoked, whenever issued.
    pub fn revokes_all(&self) -> bool {
        self.all > Timestamp::ZERO && self.all >= self.reinstated
    }

    /// Tokens of the target that were issued at or before this time are revoked.
    pub fn cutoff(&self) -> Option<Timestamp> {
        (self.cutoff_set > Timestamp::ZERO && self.cutoff_set >= self.reinstated).then_some(self.cutoff)
    }

    /// Whether any token can be refused because of this record.
    pub fn is_in_effect(&self) -> bool {
        self.revokes_all() || self.cutoff().is_some()
    }

    /// Whether this record, kept for one of the targets of `token`, revokes it.
    ///
    /// The `iat` of the token is compared with the cutoff, never the clock. An `iat` in whole seconds says that the
    /// token was issued *within* that second, so the whole second of the cutoff is refused and nothing issued
    /// before the revocation survives. A token without `iat` is covered.
    pub fn covers(&self, token: &VerifiedToken) -> bool {
        self.covers_issued_at(token.issued_at())
    }

    pub(crate) fn covers_issued_at(&self, issued_at: Option<Timestamp>) -> bool {
        self.revokes_all()
            || self.cutoff().is_some_and(|cutoff| issued_at.is_none_or(|issued_at| issued_at <= cutoff))
    }

    /// The first `iat` that the cutoff does not cover, a millisecond after it: stamp new tokens with this or later.
    pub fn reissue_at(&self) -> Option<Timestamp> {
        self.cutoff().map(|cutoff| cutoff.plus(Duration::from_millis(1)))
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
        self.until
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

impl Note {
    /// Notes are ordered by time; the rest makes the order total, so that a merge does not depend on its order.
    fn rank(&self) -> (Timestamp, Option<&Arc<str>>, Option<&Arc<str>>) {
        (self.at, self.reason.as_ref(), self.actor.as_ref())
    }
}

#[cfg(test)]
mod tests;
