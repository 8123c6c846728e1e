//! A token that has been verified, as a type.
//!
//! Only a [`TokenProfile`](crate::TokenProfile) can make a [`VerifiedToken`], from claims whose
//! signature was checked. Stores take nothing else, so they are never asked about an unverified
//! token.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::de::DeserializeOwned;
use sha2::{Digest as _, Sha256};

use crate::clock::Timestamp;
use crate::target::{Fingerprint, Target, TargetKind};

/// A token whose signature and claims were verified, with everything by which it can be revoked.
///
/// It does not hold the signature, unless the store has foreign lists of whole tokens
/// ([`RevocationStore::needs`](crate::store::RevocationStore::needs)). `Debug` shows no claim
/// values. A clone shares all but the times: threads that use one token at the same time can each
/// have a clone, and do not contend for one reference count.
#[doc(alias = "TokenData")]
#[doc(alias = "Claims")]
#[derive(Clone)]
pub struct VerifiedToken {
    expires_at: Timestamp,
    not_before: Option<Timestamp>,
    issued_at: Option<Timestamp>,
    /// With `is_bound`, all that a check looks at: of a token that was not used for a while, what
    /// is behind one pointer more is not at hand.
    targets: Arc<[TokenTarget]>,
    is_bound: bool,
    facts: Arc<Facts>,
    /// For a store that asks for it, from the moment it was presented.
    text: Option<Arc<TokenText>>,
}

/// What a store needs of a token beside its claims: see
/// [`RevocationStore::needs`](crate::store::RevocationStore::needs).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Needs {
    /// Nothing.
    #[default]
    Claims,
    /// The SHA-256 of its characters.
    Digest,
    /// Its characters.
    Text,
}

/// What was kept of the characters of a token. Never shown.
enum TokenText {
    Digest([u8; 32]),
    Whole(Box<str>),
}

/// What clones of a token share.
///
/// Texts are kept in one string and cut out when they are asked for: making a token costs two
/// allocations for all of them, and checking it needs none of them.
struct Facts {
    made_by: ProfileId,
    payload: Box<[u8]>,
    texts: Box<str>,
    issuer: Option<Span>,
    subject: Option<Span>,
    /// The issuer to whom the ids belong; none if they belong to the nameless one.
    id_issuer: Option<Span>,
    confirmation: Option<Confirmation>,
}

/// By which keys a client can prove that it may use a token: methods and values (RFC 7800 §3.1).
pub(crate) type Confirmation = Box<[(Span, Span)]>;

/// One of the targets by which a token can be revoked: its kind and its fingerprint, already
/// computed.
///
/// [`VerifiedToken::describe`] gives it as a [`Target`].
#[derive(Clone, Debug)]
pub struct TokenTarget {
    kind: TargetKind,
    fingerprint: Fingerprint,
    /// The name of the claim, of a target by claim; of a key, to whom it belongs if not to the
    /// issuer of the token.
    qualifier: Option<Span>,
    id: Span,
}

/// Which profile made a token: clones of a profile have one id, changed ones another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ProfileId(u64);

impl ProfileId {
    /// Of a profile to which nothing was changed.
    pub(crate) const DEFAULT: Self = Self(0);

    /// An id that no profile has yet.
    pub(crate) fn next() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// A piece of the texts of a token.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span {
    start: u32,
    end: u32,
}

impl TokenTarget {
    pub(crate) fn new(
        kind: TargetKind,
        fingerprint: Fingerprint,
        qualifier: Option<Span>,
        id: Span,
    ) -> Self {
        Self { kind, fingerprint, qualifier, id }
    }

    /// The kind of target.
    pub fn kind(&self) -> TargetKind {
        self.kind
    }

    /// Its identity in the stores.
    pub fn fingerprint(&self) -> &Fingerprint {
        &self.fingerprint
    }
}

impl VerifiedToken {
    /// The `iss` claim, the issuer; `None` if the token has none.
    pub fn issuer(&self) -> Option<&str> {
        self.facts.issuer.map(|span| self.facts.text(span))
    }

    /// The `sub` claim, usually the id of the user; `None` if the token has none.
    pub fn subject(&self) -> Option<&str> {
        self.facts.subject.map(|span| self.facts.text(span))
    }

    /// The id of the token: its `jti`, or the claim that the profile names instead; `None` if the
    /// token has no id.
    pub fn id(&self) -> Option<&str> {
        let target = self.targets().iter().find(|target| target.kind == TargetKind::Token)?;
        Some(self.facts.text(target.id))
    }

    /// The `exp` claim: when the token expires, without the leeway of the profile.
    pub fn expires_at(&self) -> Timestamp {
        self.expires_at
    }

    /// The `nbf` claim: from when on the token is valid, without the leeway of the profile; `None`
    /// if the token has none.
    pub fn not_before(&self) -> Option<Timestamp> {
        self.not_before
    }

    /// The `iat` claim: when the token was issued, to the millisecond if the claim has a fraction
    /// of a second; `None` if the token has none.
    pub fn issued_at(&self) -> Option<Timestamp> {
        self.issued_at
    }

    /// Whether the token is bound to a key of the client: it has a claim `cnf` (RFC 7800).
    #[doc(alias = "cnf")]
    pub fn is_bound(&self) -> bool {
        self.is_bound
    }

    /// The key to which the token is bound, by this method of the claim `cnf`: with `jkt` the
    /// thumbprint of the key of a DPoP proof (RFC 9449 §6.1), with `x5t#S256` that of a client
    /// certificate (RFC 8705 §3.1). `None` if it is not bound by this method.
    #[doc(alias = "cnf")]
    pub fn confirmation(&self, method: &str) -> Option<&str> {
        let members = self.facts.confirmation.as_deref()?;
        let (_, value) = members.iter().find(|(name, _)| self.facts.text(*name) == method)?;
        Some(self.facts.text(*value))
    }

    /// Everything by which this token can be revoked.
    pub fn targets(&self) -> &[TokenTarget] {
        &self.targets
    }

    /// The first target of this kind, if the token has one: what the logout of a session or a
    /// device has to revoke.
    ///
    /// ```no_run
    /// # use tower_jwt_revocation::{Revoker, VerifiedToken, store::StoreError};
    /// # async fn f(revoker: Revoker, token: &VerifiedToken) -> Result<(), StoreError> {
    /// use tower_jwt_revocation::revocation::TargetKind;
    ///
    /// if let Some(session) = token.target(TargetKind::Session) {
    ///     revoker.revoke(session).reason("logout").await?;
    /// }
    /// # Ok(()) }
    /// ```
    pub fn target(&self, kind: TargetKind) -> Option<Target> {
        self.targets().iter().find(|target| target.kind == kind).map(|target| self.describe(target))
    }

    /// One of its [`targets`](Self::targets), with the id in plain text.
    pub fn describe(&self, target: &TokenTarget) -> Target {
        let id = self.facts.text(target.id);
        let named = match (target.kind, target.qualifier) {
            (TargetKind::Key, Some(owner)) => {
                return Target::key(id).issued_by(self.facts.text(owner));
            }
            (_, Some(claim)) => Target::claim(self.facts.text(claim), id),
            (_, None) => Target::new(target.kind, id),
        };
        match self.facts.id_issuer {
            Some(issuer) => named.issued_by(self.facts.text(issuer)),
            None => named,
        }
    }

    /// All claims, as a type of yours.
    ///
    /// # Errors
    /// If the claims do not fit the type.
    ///
    /// ```
    /// # fn f(token: &tower_jwt_revocation::VerifiedToken) -> Result<(), serde_json::Error> {
    /// #[derive(serde::Deserialize)]
    /// struct Claims {
    ///     role: String,
    /// }
    /// let claims: Claims = token.claims()?;
    /// # Ok(()) }
    /// ```
    pub fn claims<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_slice(&self.facts.payload)
    }

    /// The claim that does not fit the type; `.` for the whole. No more of the path to it: in the
    /// claim the names of members may be what others have written, as in a map by user.
    #[cfg(feature = "axum")]
    pub(crate) fn misfit<T: DeserializeOwned>(&self) -> Option<String> {
        let json = &mut serde_json::Deserializer::from_slice(&self.facts.payload);
        let error = serde_path_to_error::deserialize::<_, T>(json).err()?;
        Some(error.path().iter().next().map_or_else(|| ".".to_owned(), ToString::to_string))
    }

    /// The same token, with what a store needs of the characters in which it was presented.
    pub(crate) fn presented_as(&self, text: &str, needs: Needs) -> Self {
        let text = match needs {
            Needs::Claims => None,
            Needs::Digest => Some(TokenText::Digest(Sha256::digest(text).into())),
            Needs::Text => Some(TokenText::Whole(text.into())),
        };
        Self { text: text.map(Arc::new), ..self.clone() }
    }

    /// The token as it was presented, if the store of the layer
    /// [needs](crate::store::RevocationStore::needs) that.
    ///
    /// # Security
    /// Everyone who has it can use it. Do not log it, and do not keep it.
    pub fn text(&self) -> Option<&str> {
        match self.text.as_deref()? {
            TokenText::Whole(text) => Some(text),
            TokenText::Digest(_) => None,
        }
    }

    /// The SHA-256 of the token as it was presented, if the store of the layer
    /// [needs](crate::store::RevocationStore::needs) it.
    ///
    /// It is no identity: the same token can be written in another way.
    pub fn text_sha256(&self) -> Option<[u8; 32]> {
        Some(match self.text.as_deref()? {
            TokenText::Whole(text) => Sha256::digest(&**text).into(),
            TokenText::Digest(digest) => *digest,
        })
    }

    /// The profile that made it.
    pub(crate) fn profile_id(&self) -> ProfileId {
        self.facts.made_by
    }

    /// Whether its ids belong to its issuer, and not to the nameless one.
    pub(crate) fn has_ids_of_its_issuer(&self) -> bool {
        self.facts.id_issuer.is_some()
    }

    /// The claims, as they were signed: a JSON object.
    #[cfg(feature = "redis")]
    pub(crate) fn payload(&self) -> &[u8] {
        &self.facts.payload
    }

    /// About how much memory it takes, in bytes, its clones not counted.
    pub(crate) fn weight(&self) -> usize {
        size_of::<Self>()
            + size_of::<Facts>()
            + self.facts.payload.len()
            + self.facts.texts.len()
            + size_of_val(&*self.targets)
            + self.facts.confirmation.as_deref().map_or(0, size_of_val)
    }
}

impl Facts {
    fn text(&self, span: Span) -> &str {
        // Spans are made by the builder of these very texts, so the default is never taken.
        self.texts.get(span.start as usize..span.end as usize).unwrap_or_default()
    }
}

impl fmt::Debug for VerifiedToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VerifiedToken")
            .field("expires_at", &self.expires_at)
            .field("issued_at", &self.issued_at)
            .field("targets", &self.targets().iter().map(TokenTarget::kind).collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}

/// Gathers the parts of a [`VerifiedToken`]. For [`TokenProfile`](crate::TokenProfile)
/// alone.
pub(crate) struct Draft {
    pub(crate) texts: String,
    pub(crate) issuer: Option<Span>,
    pub(crate) subject: Option<Span>,
    pub(crate) id_issuer: Option<Span>,
    pub(crate) targets: Vec<TokenTarget>,
    pub(crate) confirmation: Option<Confirmation>,
}

impl Draft {
    /// A draft with room for this many bytes of text and this many targets.
    pub(crate) fn new(text_bytes: usize, targets: usize) -> Self {
        Self {
            texts: String::with_capacity(text_bytes),
            issuer: None,
            subject: None,
            id_issuer: None,
            targets: Vec::with_capacity(targets),
            confirmation: None,
        }
    }

    /// Keeps a text. Tokens of over 4 GiB do not exist, so no span is ever cut off.
    pub(crate) fn keep(&mut self, text: &str) -> Span {
        let start = u32::try_from(self.texts.len()).unwrap_or(u32::MAX);
        self.texts.push_str(text);
        Span { start, end: u32::try_from(self.texts.len()).unwrap_or(u32::MAX) }
    }

    /// The token, once everything about it has been checked.
    pub(crate) fn finish(
        self,
        made_by: ProfileId,
        payload: Box<[u8]>,
        expires_at: Timestamp,
        not_before: Option<Timestamp>,
        issued_at: Option<Timestamp>,
    ) -> VerifiedToken {
        let facts = Facts {
            made_by,
            payload,
            texts: self.texts.into(),
            issuer: self.issuer,
            subject: self.subject,
            id_issuer: self.id_issuer,
            confirmation: self.confirmation,
        };
        VerifiedToken {
            expires_at,
            not_before,
            issued_at,
            targets: self.targets.into(),
            is_bound: facts.confirmation.is_some(),
            facts: Arc::new(facts),
            text: None,
        }
    }
}
