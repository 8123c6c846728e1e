//! What can be revoked: a [`Target`], and the [`Fingerprint`] by which stores know it.

mod hash;

use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, OnceLock};

use sha2::{Digest, Sha256};

use crate::store_error::StoreError;
pub(crate) use hash::FingerprintMap;

/// The claim of targets whose name was lost. No claim of a token is called so by accident.
const NAMELESS: &str = "(restored by a mirror)";

/// The kinds of things that can be revoked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum TargetKind {
    /// One token, by its id claim (`jti`, RFC 7519 §4.1.7).
    Token,
    /// One token that has no id, by the SHA-256 of its signing input (RFC 7515 §2). Never by its
    /// signature, because an ECDSA signature has a second valid form.
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
    /// All kinds, in the order in which they are counted.
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

    /// The byte that keeps the fingerprints of different kinds apart. Stored data depends on it:
    /// never renumber.
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

    /// Whether ids of this kind mean something only together with the issuer that gave them.
    const fn belongs_to_issuer(self) -> bool {
        !matches!(self, Self::Issuer)
    }
}

/// Reads what [`as_str`](TargetKind::as_str) wrote.
impl FromStr for TargetKind {
    type Err = StoreError;

    fn from_str(name: &str) -> Result<Self, StoreError> {
        Self::ALL
            .into_iter()
            .find(|kind| kind.as_str() == name)
            .ok_or_else(|| StoreError::invalid_record("no kind of target has this name"))
    }
}

impl fmt::Display for TargetKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What can be revoked: a kind, an id and, for all but issuers, the issuer that gave the id.
///
/// `Target::user("alice")` names no issuer: the [`Revoker`](crate::Revoker) takes the one of its
/// token profile. If that has several issuers, name one:
/// `Target::user("alice").issued_by("https://id.example")`.
///
/// `Display` and `Debug` show the id, and the issuer if there is one. Ids are no secrets, but may
/// be personal data.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[doc(alias("denylist", "blocklist", "blacklist", "kill session", "logout everywhere"))]
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
    pub fn token(jti: impl AsRef<str>) -> Self {
        Self::new(TargetKind::Token, jti.as_ref())
    }

    /// One login session, by its id (`sid` unless configured otherwise).
    #[doc(alias = "kill session")]
    #[doc(alias = "logout")]
    pub fn session(sid: impl AsRef<str>) -> Self {
        Self::new(TargetKind::Session, sid.as_ref())
    }

    /// A device. Its id must be unique among all users of the issuer, or others are logged out,
    /// too.
    pub fn device(id: impl AsRef<str>) -> Self {
        Self::new(TargetKind::Device, id.as_ref())
    }

    /// A family of refresh tokens with its access tokens.
    pub fn family(id: impl AsRef<str>) -> Self {
        Self::new(TargetKind::Family, id.as_ref())
    }

    /// All tokens of one user, by the `sub` claim unless configured otherwise: "log out
    /// everywhere".
    #[doc(alias = "logout everywhere")]
    #[doc(alias = "sign out everywhere")]
    #[doc(alias = "revoke all")]
    pub fn user(sub: impl AsRef<str>) -> Self {
        Self::new(TargetKind::User, sub.as_ref())
    }

    /// All tokens of an OAuth client, by `client_id` or `azp` unless configured otherwise.
    pub fn client(client_id: impl AsRef<str>) -> Self {
        Self::new(TargetKind::Client, client_id.as_ref())
    }

    /// All tokens signed with the key of this `kid`. The key belongs to one issuer, because others
    /// may have a key with the same name.
    ///
    /// The tenants of an [issuer pattern](crate::TokenProfile::with_issuer_pattern) share their
    /// keys. Such a key belongs to the pattern:
    /// `Target::key("k").issued_by("https://login.example/{tenant}/v2.0")`. So does the key of an
    /// issuer that the same profile names and that matches the pattern.
    ///
    /// If a key is published under several names, revoke each of them.
    ///
    /// By default tokens with a later `iat` pass. If the key was stolen, use
    /// [`Extent::All`](crate::Extent::All), because the thief chooses the `iat`.
    pub fn key(kid: impl AsRef<str>) -> Self {
        Self::new(TargetKind::Key, kid.as_ref())
    }

    /// All tokens of an issuer. If the token profile names no issuer, use the empty string.
    pub fn issuer(iss: impl AsRef<str>) -> Self {
        Self::new(TargetKind::Issuer, iss.as_ref())
    }

    /// All tokens in which the claim `name` has the value `value`; the profile must map the claim,
    /// see [`TokenProfile::with_claim_target`](crate::TokenProfile::with_claim_target).
    pub fn claim(name: impl AsRef<str>, value: impl AsRef<str>) -> Self {
        Self {
            kind: TargetKind::Claim,
            claim: Some(name.as_ref().into()),
            issuer: None,
            id: value.as_ref().into(),
        }
    }

    /// The same target at a certain issuer. Has no effect on issuers, which belong to none.
    #[must_use]
    pub fn issued_by(mut self, issuer: impl AsRef<str>) -> Self {
        if self.kind.belongs_to_issuer() {
            self.issuer = Some(issuer.as_ref()).filter(|issuer| !issuer.is_empty()).map(Into::into);
        }
        self
    }

    /// A target made of the parts that a store has kept: [`kind`](Self::kind),
    /// [`claim_name`](Self::claim_name), [`issuer_name`](Self::issuer_name) and [`id`](Self::id).
    ///
    /// # Errors
    /// [`StoreError`] of kind [`Protocol`](crate::store::StoreErrorKind::Protocol) if a claim has
    /// no name, or anything else has one.
    pub fn from_parts(
        kind: TargetKind,
        claim_name: Option<&str>,
        issuer_name: Option<&str>,
        id: impl AsRef<str>,
    ) -> Result<Self, StoreError> {
        let target = match (kind, claim_name) {
            (TargetKind::Claim, Some(name)) => Self::claim(name, id),
            (TargetKind::Claim, None) => {
                return Err(StoreError::invalid_record("a claim has no name"));
            }
            (_, Some(_)) => {
                return Err(StoreError::invalid_record("what is not a claim has the name of one"));
            }
            (kind, None) => Self::new(kind, id.as_ref()),
        };
        Ok(match issuer_name {
            Some(issuer) => target.issued_by(issuer),
            None => target,
        })
    }

    /// The target of a record of which only the fingerprint is left, because a [mirror has replayed
    /// it](crate::store::feed::Feed::replay) or its names were erased. It is a claim that no token
    /// has by accident. Its own fingerprint differs, so keep the record under the given one.
    pub fn nameless(fingerprint: &Fingerprint) -> Self {
        Self::claim(NAMELESS, fingerprint.to_string())
    }

    /// Whether this target can be the one with that fingerprint: it is, or it is nameless and says
    /// so.
    #[cfg(feature = "redis")]
    pub(crate) fn is_known_as(&self, fingerprint: &Fingerprint) -> bool {
        self.fingerprint() == *fingerprint || *self == Self::nameless(fingerprint)
    }

    pub(crate) fn without_issuer(mut self) -> Self {
        self.issuer = None;
        self
    }

    /// The kind of this target.
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
            Some(claim) => write!(f, "claim {claim}={}", self.id)?,
            None => write!(f, "{} {}", self.kind, self.id)?,
        }
        self.issuer.as_ref().map_or(Ok(()), |issuer| write!(f, " of {issuer}"))
    }
}

/// The issuer's part of a fingerprint, for callers that compute many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct IssuerDigest([u8; 16]);

impl IssuerDigest {
    pub(crate) fn of(issuer: &str) -> Self {
        Self(first_half(Sha256::digest(issuer)))
    }
}

/// The fingerprint of a key of one name, which is the same for all its tokens of one issuer:
/// computed with the first of them.
#[derive(Clone, Debug, Default)]
pub(crate) struct KeyFingerprint(OnceLock<(IssuerDigest, Fingerprint)>);

impl KeyFingerprint {
    /// `kid` is the name of the key.
    pub(crate) fn at(&self, issuer: IssuerDigest, kid: &str) -> Fingerprint {
        let compute = || Fingerprint::of(TargetKind::Key, issuer, "", kid);
        let (first, fingerprint) = self.0.get_or_init(|| (issuer, compute()));
        // Tenants may share a key.
        if *first == issuer { *fingerprint } else { compute() }
    }
}

/// The identity of a [`Target`]: 128 bits of SHA-256 over its kind, its issuer, its claim name and
/// its id.
///
/// Ids come from tokens and may be any text; a fingerprint always has 16 bytes. So no id can be
/// mistaken for another key, kind, issuer or Redis hash tag, and every record costs the same.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint([u8; 16]);

impl Fingerprint {
    /// The parts before the id have a fixed size or carry their length, so no two targets have the
    /// same text.
    pub(crate) fn of(kind: TargetKind, issuer: IssuerDigest, claim: &str, id: &str) -> Self {
        let mut hash = Sha256::new_with_prefix([kind.code()]);
        // Issuers are known under one name everywhere.
        let issuer = if kind.belongs_to_issuer() { issuer } else { IssuerDigest([0; 16]) };
        hash.update(issuer.0);
        if kind == TargetKind::Claim {
            hash.update((claim.len() as u64).to_be_bytes());
            hash.update(claim);
        }
        hash.update(id);
        Self(first_half(hash.finalize()))
    }

    /// In hexadecimal: what `Display` shows.
    pub(crate) fn digits(&self) -> [u8; 32] {
        let mut digits = [0; 32];
        for (pair, byte) in digits.as_chunks_mut::<2>().0.iter_mut().zip(self.0) {
            *pair = [byte >> 4, byte & 15]
                .map(|digit| if digit < 10 { b'0' + digit } else { b'a' - 10 + digit });
        }
        digits
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
        f.write_str(str::from_utf8(&self.digits()).map_err(|_| fmt::Error)?)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_several_issuers_share_has_a_fingerprint_at_each() {
        let kept = KeyFingerprint::default();
        for issuer in ["https://a.example", "https://b.example", "", "https://a.example"] {
            let fingerprint = kept.at(IssuerDigest::of(issuer), "k");
            assert_eq!(fingerprint, Target::key("k").issued_by(issuer).fingerprint());
        }
    }
}
