//! The keys of a verifier, and how a token chooses one.

use std::collections::BTreeMap;
#[cfg(feature = "jwks")]
use std::collections::BTreeSet;
use std::sync::Arc;
use std::{fmt, ptr};

use super::VerificationKey;
use crate::config::ConfigError;
#[cfg(feature = "jwks")]
use crate::token::jwks::{LoadedKeys, RemoteKeys};
use crate::token::{TokenError, TokenErrorKind};

/// The keys of a verifier: one, or several that all have names. Of one name there may be several,
/// each for another algorithm (RFC 7517 §4.5).
#[derive(Clone)]
pub(crate) struct VerifierKeys {
    /// By name, then by algorithm.
    keys: Arc<[VerificationKey]>,
    /// Whether all of them are one key, so that a token need not name it.
    is_one_key: bool,
}

impl VerifierKeys {
    pub(crate) fn new(mut keys: Vec<VerificationKey>) -> Result<Self, ConfigError> {
        if keys.is_empty() {
            return Err(ConfigError::new("keys", "there is none; name at least one"));
        }
        sort(&mut keys);
        let is_one_key = is_one_key(&keys);
        if !is_one_key && keys.iter().any(|key| key.kid().is_none()) {
            return Err(ConfigError::new(
                "keys",
                "one of several has no `kid`, so no token could choose it; see \
                 VerificationKey::with_kid",
            ));
        }
        let mut pairs = keys.iter().zip(keys.iter().skip(1));
        if let Some((one, _)) = pairs.find(|(one, other)| is_same_choice(one, other)) {
            return Err(ConfigError::new(
                "keys",
                format!(
                    "two have the `kid` {} and the algorithm {}; a token must choose one",
                    quoted(one.kid().unwrap_or_default()),
                    one.algorithm(),
                ),
            ));
        }
        expect_different_secrets(&keys)?;
        Ok(Self { keys: keys.into(), is_one_key })
    }

    /// The keys of a published set that tokens can choose, and why they cannot choose the others.
    /// Without a name only a key can be chosen that is alone. Of several with one name and one
    /// algorithm one that names this algorithm itself counts, and else the first.
    #[cfg(feature = "jwks")]
    pub(crate) fn published(
        mut keys: Vec<VerificationKey>,
    ) -> Result<(Self, Vec<ConfigError>), ConfigError> {
        let mut skipped = Vec::new();
        sort(&mut keys);
        // What is published twice is no second key.
        keys.dedup_by(|later, first| first.is_same(later));
        if !is_one_key(&keys) {
            let all = keys.len();
            keys.retain(|key| key.kid().is_some());
            let nameless = all - keys.len();
            if nameless > 0 {
                let error = ConfigError::new(
                    "kid",
                    format!(
                        "is missing from {nameless} of {all} keys, so no token could choose them; \
                         the provider must name its keys or publish one alone"
                    ),
                );
                if keys.is_empty() {
                    return Err(error);
                }
                skipped.push(error);
            }
        }
        keys.dedup_by(|later, first| {
            let is_taken = is_same_choice(first, later);
            if is_taken && !first.is_same(later) {
                let problem = format!(
                    "{} is that of several different keys for {}, of which one is used",
                    quoted(first.kid().unwrap_or_default()),
                    first.algorithm()
                );
                skipped.push(ConfigError::new("kid", problem));
            }
            is_taken
        });
        Ok((Self::new(keys)?, skipped))
    }

    /// The names of the keys.
    #[cfg(feature = "jwks")]
    pub(crate) fn ids(&self) -> Vec<Box<str>> {
        let mut ids: Vec<_> =
            self.keys.iter().filter_map(|key| key.kid().map(Into::into)).collect();
        ids.dedup();
        ids
    }

    /// Whether one of the keys has this name.
    #[cfg(feature = "jwks")]
    pub(crate) fn has_id(&self, kid: &str) -> bool {
        self.keys.binary_search_by(|key| key.kid().cmp(&Some(kid))).is_ok()
    }

    /// Two names of one public key, if there is one that has several: revoked under one of them, it
    /// goes on under the other.
    #[cfg(feature = "jwks")]
    pub(crate) fn names_of_one_key(&self) -> Option<[String; 2]> {
        self.keys.iter().enumerate().find_map(|(at, key)| {
            let mut others = self.keys.iter().skip(at + 1);
            let other =
                others.find(|other| other.kid() != key.kid() && other.is_same_public_key(key))?;
            Some([key, other].map(|key| quoted(key.kid().unwrap_or_default())))
        })
    }

    /// Those of the keys whose names are among these, if there are any.
    #[cfg(feature = "jwks")]
    pub(crate) fn among(&self, names: &BTreeSet<Option<Box<str>>>) -> Option<Self> {
        let is_named = |key: &&VerificationKey| names.contains(&key.kid().map(Into::into));
        let keys: Vec<_> = self.keys.iter().filter(is_named).cloned().collect();
        let is_one_key = is_one_key(&keys);
        (!keys.is_empty()).then(|| Self { keys: keys.into(), is_one_key })
    }

    /// Whether both accept the same.
    #[cfg(feature = "jwks")]
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        self.keys.len() == other.keys.len()
            && self.keys.iter().zip(&*other.keys).all(|(one, other)| one.is_same(other))
    }

    /// The key of this name for the algorithm of this name. Keys are never tried one after the
    /// other: an attacker would choose the weakest.
    pub(crate) fn select(
        &self,
        kid: Option<&str>,
        alg: &str,
    ) -> Result<&VerificationKey, TokenError> {
        let unknown = |detail| TokenError::new(TokenErrorKind::UnknownKey, detail);
        let keys = match kid {
            None if self.is_one_key => &*self.keys,
            None => {
                return Err(unknown(
                    "the token does not name its key (`kid`), and there are several",
                ));
            }
            Some(_) => {
                let first = self.keys.partition_point(|key| key.kid() < kid);
                self.keys.get(first..).unwrap_or_default()
            }
        };
        let mut is_known = false;
        for key in keys {
            if kid.is_some() && key.kid() != kid {
                break;
            }
            if key.is_for(alg) {
                return Ok(key);
            }
            is_known = true;
        }
        if is_known {
            return Err(TokenError::new(
                TokenErrorKind::WrongAlgorithm,
                "the `alg` of the token is not the algorithm of its key",
            ));
        }
        Err(unknown("no key has the `kid` of the token; see VerificationKey::with_kid"))
    }
}

/// In the order in which keys are looked up. One that names its algorithm itself comes before one
/// for which it is assumed, and what is the same otherwise stays in its order.
fn sort(keys: &mut [VerificationKey]) {
    let order = |key: &VerificationKey| (key.algorithm().as_str(), key.is_algorithm_assumed());
    keys.sort_by(|one, other| {
        one.kid().cmp(&other.kid()).then_with(|| order(one).cmp(&order(other)))
    });
}

/// The name of a key that others have written, for an error or a log: escaped, and no more of it
/// than 64 characters.
pub(super) fn quoted(kid: &str) -> String {
    let mut chars = kid.chars();
    let start: String = chars.by_ref().take(64).collect();
    let rest = if chars.next().is_some() { "…" } else { "" };
    format!("`{}{rest}`", start.escape_debug())
}

/// Whether these are one key, for as many algorithms as there are of them.
fn is_one_key(keys: &[VerificationKey]) -> bool {
    match keys {
        [] | [_] => true,
        [first, rest @ ..] => rest.iter().all(|key| {
            key.kid() == first.kid() && key.is_same_public_key(first) && !is_same_choice(key, first)
        }),
    }
}

fn is_same_choice(one: &VerificationKey, other: &VerificationKey) -> bool {
    one.kid() == other.kid() && one.algorithm() == other.algorithm()
}

/// One secret is one key: revoked under one of its names, it would go on under the other.
fn expect_different_secrets(keys: &[VerificationKey]) -> Result<(), ConfigError> {
    let mut known: BTreeMap<Vec<u8>, &VerificationKey> = BTreeMap::new();
    for key in keys {
        for form in key.secret_forms() {
            if let Some(other) = known.insert(form, key).filter(|other| !ptr::eq(*other, key)) {
                return Err(ConfigError::new(
                    "keys",
                    format!(
                        "{} and {} are the same secret; give each a secret of its own",
                        quoted(other.kid().unwrap_or_default()),
                        quoted(key.kid().unwrap_or_default())
                    ),
                ));
            }
        }
    }
    Ok(())
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

    #[cfg(feature = "jwks")]
    pub(crate) fn add_metrics(&self, samples: &mut crate::samples::Samples) {
        if let Self::Remote(keys) = self {
            keys.add_metrics(samples);
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
    /// The key of this name for the algorithm of this name.
    pub(crate) fn select(
        &self,
        kid: Option<&str>,
        alg: &str,
    ) -> Result<&VerificationKey, TokenError> {
        match self {
            Self::Fixed(keys) => keys.select(kid, alg),
            #[cfg(feature = "jwks")]
            Self::Remote(loaded) => loaded.keys(kid)?.select(kid, alg).map_err(|error| match kid {
                Some(kid) if error.kind() == TokenErrorKind::UnknownKey => {
                    loaded.unknown(kid, error)
                }
                _ => {
                    if error.kind() == TokenErrorKind::WrongAlgorithm {
                        loaded.request_fetch();
                    }
                    error
                }
            }),
        }
    }

    /// The signature of a token does not fit the key that it names. The issuer may have given a new
    /// key the name of the one before, so the keys are fetched anew, as soon as that is due.
    pub(crate) fn found_misfit(&self) {
        match self {
            Self::Fixed(_) => {}
            #[cfg(feature = "jwks")]
            Self::Remote(loaded) => loaded.request_fetch(),
        }
    }
}

impl fmt::Debug for KeySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(keys) => keys.keys.fmt(f),
            #[cfg(feature = "jwks")]
            Self::Remote(keys) => keys.fmt(f),
        }
    }
}
