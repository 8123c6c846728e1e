//! The keys of a verifier, and how a token chooses one.

use std::fmt;
use std::sync::Arc;

use super::VerificationKey;
use crate::config::ConfigError;
#[cfg(feature = "jwks")]
use crate::token::jwks::{LoadedKeys, RemoteKeys};
use crate::token::{TokenError, TokenErrorKind};

/// The keys of a verifier: one, or several that all have names.
#[derive(Clone)]
pub(crate) struct VerifierKeys(Arc<[VerificationKey]>);

impl VerifierKeys {
    pub(crate) fn new(mut keys: Vec<VerificationKey>) -> Result<Self, ConfigError> {
        if keys.is_empty() {
            return Err(ConfigError::new("keys", "there is none; name at least one"));
        }
        keys.sort_by(|one, other| one.kid().cmp(&other.kid()));
        if keys.len() > 1 && keys.iter().any(|key| key.kid().is_none()) {
            return Err(ConfigError::new(
                "keys",
                "one of several has no `kid`, so no token could choose it; see \
                 VerificationKey::with_kid",
            ));
        }
        let mut pairs = keys.iter().zip(keys.iter().skip(1));
        if let Some((one, _)) = pairs.find(|(one, other)| one.kid() == other.kid()) {
            return Err(ConfigError::new(
                "keys",
                format!(
                    "two have the `kid` `{}`; a token must choose one",
                    one.kid().unwrap_or_default()
                ),
            ));
        }
        Ok(Self(keys.into()))
    }

    /// The keys of a published set that tokens can choose: of several with one name the first, and
    /// without a name only one that is alone.
    #[cfg(feature = "jwks")]
    pub(crate) fn published(mut keys: Vec<VerificationKey>) -> Result<Self, ConfigError> {
        if keys.len() > 1 {
            keys.retain(|key| key.kid().is_some());
            // Stable: the first of a name stays the first.
            keys.sort_by(|one, other| one.kid().cmp(&other.kid()));
            keys.dedup_by(|later, first| {
                let is_taken = later.kid() == first.kid();
                if is_taken {
                    tracing::debug!(
                        kid = later.kid(),
                        "a published key is not used: its name is taken"
                    );
                }
                is_taken
            });
        }
        Self::new(keys)
    }

    /// The names of the keys.
    #[cfg(feature = "jwks")]
    pub(crate) fn ids(&self) -> Vec<Box<str>> {
        self.0.iter().filter_map(|key| key.kid().map(Into::into)).collect()
    }

    /// Whether both accept the same.
    #[cfg(feature = "jwks")]
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        self.0.len() == other.0.len()
            && self.0.iter().zip(&*other.0).all(|(one, other)| one.is_same(other))
    }

    /// The key of this name. Keys are never tried one after the other: an attacker would choose the
    /// weakest.
    pub(crate) fn select(&self, kid: Option<&str>) -> Result<&VerificationKey, TokenError> {
        let unknown = |detail| TokenError::new(TokenErrorKind::UnknownKey, detail);
        match (kid, &*self.0) {
            (None, [only]) => Ok(only),
            (None, _) => {
                Err(unknown("the token does not name its key (`kid`), and there are several"))
            }
            (Some(_), _) => self
                .0
                .binary_search_by(|key| key.kid().cmp(&kid))
                .ok()
                .and_then(|at| self.0.get(at))
                .ok_or_else(|| {
                    unknown("no key has the `kid` of the token; see VerificationKey::with_kid")
                }),
        }
    }
}

/// Where the keys of a verifier come from.
#[derive(Clone)]
pub(crate) enum KeySource {
    Fixed(VerifierKeys),
    #[cfg(feature = "jwks")]
    Remote(RemoteKeys),
}

/// The keys of one moment.
pub(crate) enum CurrentKeys<'a> {
    Fixed(&'a VerifierKeys),
    #[cfg(feature = "jwks")]
    Remote(LoadedKeys<'a>),
}

impl KeySource {
    /// Changes when the keys do.
    pub(crate) fn generation(&self) -> u64 {
        match self {
            Self::Fixed(_) => 0,
            #[cfg(feature = "jwks")]
            Self::Remote(keys) => keys.generation(),
        }
    }

    pub(crate) fn now(&self) -> CurrentKeys<'_> {
        match self {
            Self::Fixed(keys) => CurrentKeys::Fixed(keys),
            #[cfg(feature = "jwks")]
            Self::Remote(keys) => CurrentKeys::Remote(keys.load()),
        }
    }
}

impl CurrentKeys<'_> {
    /// The key of this name.
    pub(crate) fn select(&self, kid: Option<&str>) -> Result<&VerificationKey, TokenError> {
        match self {
            Self::Fixed(keys) => keys.select(kid),
            #[cfg(feature = "jwks")]
            Self::Remote(loaded) => loaded.keys()?.select(kid).map_err(|error| match kid {
                Some(_) => loaded.unknown(error),
                // More keys would not help.
                None => error,
            }),
        }
    }
}

impl fmt::Debug for KeySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(keys) => keys.0.fmt(f),
            #[cfg(feature = "jwks")]
            Self::Remote(keys) => keys.fmt(f),
        }
    }
}
