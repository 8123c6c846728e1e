//! The two kinds of refresh tokens: opaque ones of ours, and those that the application mints and
//! of which only ids are known. Everything else is the same for both.

use super::family::Family;
use super::token::{FamilyKey, ParsedToken, RefreshToken, TokenDigest, TokenOrigin, random_id};
use crate::store::StoreError;

pub(super) trait RefreshTokenKind: Sync {
    type Token: Send + Sync;

    fn family(&self) -> &str;
    fn digest(&self) -> TokenDigest;
    fn origin(&self, family: &Family) -> TokenOrigin;
    /// A new successor, its digest, and the seed by which it can be given again.
    fn next(&self, family: &Family) -> Result<(Self::Token, TokenDigest, Box<str>), StoreError>;
    /// The successor that was given before.
    fn again(&self, family: &Family, seed: &str) -> Self::Token;
    /// The presented token itself.
    fn same(&self) -> Self::Token;
}

/// A token of ours: the successor is derived from it, so that only its holder can have it again.
pub(super) struct OpaqueToken<'a>(pub(super) ParsedToken<'a>);

impl OpaqueToken<'_> {
    fn derive(&self, family: &Family, seed: &str) -> (RefreshToken, TokenDigest) {
        let generation = self.0.generation().saturating_add(1);
        let secret = self.0.secret().successor(self.0.family, generation, seed);
        let digest = secret.digest();
        (secret.into_token(self.0.family, generation, &family.key), digest)
    }
}

impl RefreshTokenKind for OpaqueToken<'_> {
    type Token = RefreshToken;

    fn family(&self) -> &str {
        self.0.family
    }

    fn digest(&self) -> TokenDigest {
        self.0.secret().digest()
    }

    fn origin(&self, family: &Family) -> TokenOrigin {
        self.0.origin(&family.key)
    }

    fn next(&self, family: &Family) -> Result<(RefreshToken, TokenDigest, Box<str>), StoreError> {
        let salt = random_id()?;
        let (token, digest) = self.derive(family, &salt);
        Ok((token, digest, salt))
    }

    fn again(&self, family: &Family, seed: &str) -> RefreshToken {
        self.derive(family, seed).0
    }

    fn same(&self) -> RefreshToken {
        self.0.token()
    }
}

/// The ids of tokens that the application mints.
pub(super) struct ApplicationToken<'a> {
    pub(super) family: &'a str,
    pub(super) token_id: &'a str,
    pub(super) next_id: &'a str,
}

impl RefreshTokenKind for ApplicationToken<'_> {
    type Token = Box<str>;

    fn family(&self) -> &str {
        self.family
    }

    fn digest(&self) -> TokenDigest {
        TokenDigest::of(self.token_id.as_bytes())
    }

    fn origin(&self, family: &Family) -> TokenOrigin {
        // An id is known by the signature of the application, a secret only by its mark.
        if family.key == FamilyKey::unused() { TokenOrigin::Vouched } else { TokenOrigin::Foreign }
    }

    fn next(&self, _: &Family) -> Result<(Box<str>, TokenDigest, Box<str>), StoreError> {
        Ok((self.next_id.into(), TokenDigest::of(self.next_id.as_bytes()), self.next_id.into()))
    }

    fn again(&self, _: &Family, seed: &str) -> Box<str> {
        seed.into()
    }

    fn same(&self) -> Box<str> {
        self.token_id.into()
    }
}
