//! What a refresh token is: a secret of ours, or an id of the application. The rest is the same for
//! both.

use super::family::{Family, Origin};
use super::token::{Digest, FamilyKey, Parsed, RefreshToken, random_id};
use crate::store::StoreError;

pub(super) trait Lineage: Sync {
    type Token: Send + Sync;

    fn family(&self) -> &str;
    fn digest(&self) -> Digest;
    fn origin(&self, family: &Family) -> Origin;
    /// A new successor, its digest, and the seed by which it can be given again.
    fn next(&self, family: &Family) -> Result<(Self::Token, Digest, Box<str>), StoreError>;
    /// The successor that was given before.
    fn again(&self, family: &Family, seed: &str) -> Self::Token;
    /// The presented token itself.
    fn same(&self) -> Self::Token;
}

/// A token of ours: the successor is derived from it, so that only its holder can have it again.
pub(super) struct Opaque<'a>(pub(super) Parsed<'a>);

impl Opaque<'_> {
    fn derive(&self, family: &Family, seed: &str) -> (RefreshToken, Digest) {
        let generation = self.0.generation().saturating_add(1);
        let secret = self.0.secret().successor(self.0.family, generation, seed);
        let digest = secret.digest();
        (secret.into_token(self.0.family, generation, &family.key), digest)
    }
}

impl Lineage for Opaque<'_> {
    type Token = RefreshToken;

    fn family(&self) -> &str {
        self.0.family
    }

    fn digest(&self) -> Digest {
        self.0.secret().digest()
    }

    fn origin(&self, family: &Family) -> Origin {
        self.0.origin(&family.key)
    }

    fn next(&self, family: &Family) -> Result<(RefreshToken, Digest, Box<str>), StoreError> {
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
pub(super) struct Ids<'a> {
    pub(super) family: &'a str,
    pub(super) token_id: &'a str,
    pub(super) next_id: &'a str,
}

impl Lineage for Ids<'_> {
    type Token = Box<str>;

    fn family(&self) -> &str {
        self.family
    }

    fn digest(&self) -> Digest {
        Digest::of(self.token_id.as_bytes())
    }

    fn origin(&self, family: &Family) -> Origin {
        // An id is known by the signature of the application, a secret only by its mark.
        if family.key == FamilyKey::unused() { Origin::Vouched } else { Origin::Foreign }
    }

    fn next(&self, _: &Family) -> Result<(Box<str>, Digest, Box<str>), StoreError> {
        Ok((self.next_id.into(), Digest::of(self.next_id.as_bytes()), self.next_id.into()))
    }

    fn again(&self, _: &Family, seed: &str) -> Box<str> {
        seed.into()
    }

    fn same(&self) -> Box<str> {
        self.token_id.into()
    }
}
