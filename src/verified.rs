//! A token that has been verified, as a type.
//!
//! A [`VerifiedToken`] cannot be written down, only be earned: [`TokenProfile`](crate::token::TokenProfile) makes it
//! out of claims whose signature someone has checked. Stores can be asked about nothing else, so an unverified token
//! never reaches one.

use std::fmt;

use serde::de::DeserializeOwned;

use crate::clock::Timestamp;
use crate::revocation::{Fingerprint, Target, TargetKind};

/// A token whose signature and claims were verified, with everything by which it can be revoked.
///
/// It holds no signature. `Debug` shows no claim values.
pub struct VerifiedToken {
    pub(crate) payload: Box<[u8]>,
    pub(crate) issuer: Option<Box<str>>,
    pub(crate) subject: Option<Box<str>>,
    pub(crate) expires_at: Timestamp,
    pub(crate) not_before: Option<Timestamp>,
    pub(crate) issued_at: Option<Timestamp>,
    pub(crate) targets: Box<[TokenTarget]>,
}

/// One of the targets by which a token can be revoked, with its fingerprint already computed.
#[derive(Clone, Debug)]
pub struct TokenTarget {
    pub(crate) target: Target,
    pub(crate) fingerprint: Fingerprint,
}

impl TokenTarget {
    /// The target.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// Its identity in the stores.
    pub fn fingerprint(&self) -> &Fingerprint {
        &self.fingerprint
    }
}

impl VerifiedToken {
    /// The `iss` claim.
    pub fn issuer(&self) -> Option<&str> {
        self.issuer.as_deref()
    }

    /// The `sub` claim.
    pub fn subject(&self) -> Option<&str> {
        self.subject.as_deref()
    }

    /// The id of the token: its `jti`, or the claim that the profile names instead.
    pub fn id(&self) -> Option<&str> {
        self.target(TargetKind::Token).map(Target::id)
    }

    /// The `exp` claim, without leeway.
    pub fn expires_at(&self) -> Timestamp {
        self.expires_at
    }

    /// The `nbf` claim, without leeway.
    pub fn not_before(&self) -> Option<Timestamp> {
        self.not_before
    }

    /// The `iat` claim, with its fraction of a second if it has one.
    pub fn issued_at(&self) -> Option<Timestamp> {
        self.issued_at
    }

    /// Everything by which this token can be revoked.
    pub fn targets(&self) -> &[TokenTarget] {
        &self.targets
    }

    /// The first target of this kind.
    pub fn target(&self, kind: TargetKind) -> Option<&Target> {
        self.targets.iter().map(TokenTarget::target).find(|target| target.kind() == kind)
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
        serde_json::from_slice(&self.payload)
    }
}

impl fmt::Debug for VerifiedToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VerifiedToken")
            .field("expires_at", &self.expires_at)
            .field("issued_at", &self.issued_at)
            .field("targets", &self.targets.iter().map(|target| target.target.kind()).collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}
