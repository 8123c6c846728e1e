//! Tokens of several issuers in one layer.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::profile::issuer_of;
use super::{TokenError, TokenErrorKind, TokenProfile, TokenVerifier};
use crate::config::ConfigError;
use crate::samples::Samples;
use crate::verified::VerifiedToken;

/// Verifies the tokens of several issuers. Each issuer has a verifier of its own, with its own
/// keys, audiences, types and claims.
///
/// The set reads the `iss` of a token before anything is checked, only to choose the verifier. It
/// does not read a token that is longer than every verifier accepts
/// ([`TokenProfile::with_max_token_bytes`]). The chosen verifier then checks all of it, the `iss`
/// included. So no key of one issuer is ever tried on a token of another.
///
/// Revocations are kept apart, too. The profile of each verifier must name its issuers, and every
/// id belongs to the issuer of its token: `alice` of one is not `alice` of the other, and the key
/// `2026` of one is not that of the other. Each issuer can have its own fail mode: see
/// [`with_fail_mode_for`](crate::JwtRevocationLayer::with_fail_mode_for).
///
/// ```
/// use tower_jwt_revocation::token::IssuerSet;
/// use tower_jwt_revocation::{Algorithm, JwtVerifier, TokenProfile, VerificationKey};
///
/// # #[cfg(any(feature = "aws_lc_rs", feature = "rust_crypto"))] {
/// # let (staff_key, customer_key) = ([1; 32], [2; 32]);
/// let staff = JwtVerifier::new(
///     [VerificationKey::from_secret(Algorithm::HS256, &staff_key)?],
///     TokenProfile::new().with_issuer("https://staff.example").with_audience("orders"),
/// )?;
/// let customers = JwtVerifier::new(
///     [VerificationKey::from_secret(Algorithm::HS256, &customer_key)?],
///     TokenProfile::new().with_issuer("https://shop.example").with_audience("shop"),
/// )?;
/// let verifier = IssuerSet::new(staff)?.with(customers)?;
/// # let _ = verifier; }
/// # Ok::<_, tower_jwt_revocation::ConfigError>(())
/// ```
///
/// # Tenants
/// For many issuers with the same keys, such as the tenants of Microsoft Entra, use one verifier
/// whose profile has a [pattern](TokenProfile::with_issuer_pattern), and no set. For many issuers
/// with keys of their own, such as the realms of Keycloak, use
/// [`with_tenants`](Self::with_tenants).
#[derive(Clone)]
pub struct IssuerSet {
    verifiers: Vec<IssuerVerifier>,
    /// For each part of the profile the index of the verifier of its tokens.
    verifier_of_part: Vec<usize>,
    profile: TokenProfile,
    /// The next generation of a set with tenants.
    unrepeated: Arc<AtomicU64>,
}

#[derive(Clone)]
enum IssuerVerifier {
    One(Arc<dyn TokenVerifier>),
    PerTenant(Arc<VerifierOf>),
}

type VerifierOf = dyn Fn(&str) -> Option<Arc<dyn TokenVerifier>> + Send + Sync;

impl IssuerSet {
    /// A set of one verifier, to which others are added.
    ///
    /// # Errors
    /// [`ConfigError`] if the profile of the verifier names no issuer.
    pub fn new(verifier: impl TokenVerifier) -> Result<Self, ConfigError> {
        let profile = TokenProfile::combined([verifier.profile().clone()])?;
        Ok(Self::of(IssuerVerifier::One(Arc::new(verifier)), profile))
    }

    /// A set of tenants, see [`with_tenants`](Self::with_tenants), to which others are added.
    ///
    /// # Errors
    /// As [`with_tenants`](Self::with_tenants).
    pub fn of_tenants(
        profile: TokenProfile,
        verifier_of: impl Fn(&str) -> Option<Arc<dyn TokenVerifier>> + Send + Sync + 'static,
    ) -> Result<Self, ConfigError> {
        let profile = TokenProfile::combined([profile.with_keys_of_tenants()])?;
        Ok(Self::of(IssuerVerifier::PerTenant(Arc::new(verifier_of)), profile))
    }

    /// Adds a verifier for further issuers.
    ///
    /// # Errors
    /// [`ConfigError`] if its profile names no issuer, or one that the set has already.
    pub fn with(self, verifier: impl TokenVerifier) -> Result<Self, ConfigError> {
        let profile = verifier.profile().clone();
        self.add(profile, IssuerVerifier::One(Arc::new(verifier)))
    }

    /// Adds issuers whose verifiers are looked up when a token comes. `verifier_of` gets an issuer
    /// that `profile` knows, usually by a [pattern](TokenProfile::with_issuer_pattern), and returns
    /// its verifier, or `None`.
    ///
    /// `profile` stands for all of them where there is no token: only ids of its issuers can be
    /// revoked, and its longest lifetime decides how long revocations are kept. A token with more
    /// bytes than it accepts is not read. A token that is valid for longer than that lifetime is
    /// refused, whatever its verifier says. So is a token whose verifier does not name the issuer
    /// in its own profile.
    ///
    /// # Security
    /// `verifier_of` is called with text that a stranger can choose, before anything was checked.
    /// It must be quick, must not store every name that it is asked about, and must not fetch
    /// anything by that name.
    ///
    /// # Errors
    /// [`ConfigError`] if `profile` cannot work, names no issuer, or one that the set has already.
    pub fn with_tenants(
        self,
        profile: TokenProfile,
        verifier_of: impl Fn(&str) -> Option<Arc<dyn TokenVerifier>> + Send + Sync + 'static,
    ) -> Result<Self, ConfigError> {
        self.add(profile.with_keys_of_tenants(), IssuerVerifier::PerTenant(Arc::new(verifier_of)))
    }

    /// Adds a verifier for the tokens of all other issuers, and for those without `iss`. Its
    /// profile names no issuer, so all their ids belong to one nameless issuer. A target that names
    /// no issuer means that one. Nothing can be added after it.
    ///
    /// # Errors
    /// [`ConfigError`] if its profile names an issuer, or if there is such a verifier already.
    pub fn with_unnamed(mut self, verifier: impl TokenVerifier) -> Result<Self, ConfigError> {
        self.profile = self.profile.with_unnamed(verifier.profile().clone())?;
        self.verifier_of_part.resize(self.profile.parts(), self.verifiers.len());
        self.verifiers.push(IssuerVerifier::One(Arc::new(verifier)));
        Ok(self)
    }

    fn of(verifier: IssuerVerifier, profile: TokenProfile) -> Self {
        let verifier_of_part = vec![0; profile.parts()];
        Self { verifiers: vec![verifier], verifier_of_part, profile, unrepeated: Arc::default() }
    }

    fn add(mut self, profile: TokenProfile, verifier: IssuerVerifier) -> Result<Self, ConfigError> {
        self.profile = TokenProfile::combined([self.profile, profile])?;
        self.verifier_of_part.resize(self.profile.parts(), self.verifiers.len());
        self.verifiers.push(verifier);
        Ok(self)
    }

    fn verifier_for(&self, issuer: Option<&str>) -> Result<&IssuerVerifier, TokenError> {
        let part = match issuer {
            Some(issuer) => self.profile.member(issuer).ok_or_else(unknown)?,
            None => self.profile.unnamed().ok_or_else(|| {
                TokenError::new(
                    TokenErrorKind::MissingClaim,
                    "the claim `iss` is missing, by which the verifier is chosen",
                )
            })?,
        };
        self.verifier_of_part.get(part).and_then(|&at| self.verifiers.get(at)).ok_or_else(unknown)
    }

    fn verify_with(
        &self,
        token: &str,
        verify: impl FnOnce(&dyn TokenVerifier) -> Result<Arc<VerifiedToken>, TokenError>,
    ) -> Result<Arc<VerifiedToken>, TokenError> {
        let issuer = unverified_issuer(token, self.profile.max_token_bytes())?;
        let token = match self.verifier_for(issuer.as_deref())? {
            IssuerVerifier::One(verifier) => accepted_by(&**verifier, verify)?,
            IssuerVerifier::PerTenant(verifier_of) => {
                let issuer = issuer.as_deref().ok_or_else(unknown)?;
                let verifier = verifier_of(issuer).ok_or_else(unknown)?;
                // Without a name of its own the ids of all its tenants would be the same ids.
                if !verifier.profile().knows_issuer(issuer) {
                    return Err(TokenError::new(
                        TokenErrorKind::WrongIssuer,
                        "the verifier of this tenant does not name it; see \
                         TokenProfile::with_issuer",
                    ));
                }
                let token = accepted_by(&*verifier, verify)?;
                self.profile.check_lifetime(&token)?;
                token
            }
        };
        // The verifiers of this crate have made sure of it; one of your own might not.
        if token.issuer() == issuer.as_deref() { Ok(token) } else { Err(unknown()) }
    }
}

impl TokenVerifier for IssuerSet {
    fn verify(&self, token: &str) -> Result<Arc<VerifiedToken>, TokenError> {
        self.verify_with(token, |verifier| verifier.verify(token))
    }

    fn verify_for_revocation(&self, token: &str) -> Result<Arc<VerifiedToken>, TokenError> {
        self.verify_with(token, |verifier| verifier.verify_for_revocation(token))
    }

    /// Changes whenever one of them changes. With [tenants](Self::with_tenants) it is never the
    /// same, because their verifiers can change unseen: a cache around the set remembers nothing.
    /// Give the verifier of each tenant a cache of its own.
    fn generation(&self) -> u64 {
        let sum = self.verifiers.iter().try_fold(0_u64, |sum, member| match member {
            // Each only grows, so the sum never comes back.
            IssuerVerifier::One(verifier) => Some(sum.wrapping_add(verifier.generation())),
            IssuerVerifier::PerTenant(_) => None,
        });
        sum.unwrap_or_else(|| self.unrepeated.fetch_add(1, Ordering::Relaxed))
    }

    /// Those of all verifiers but of tenants, of which nobody knows how many there are.
    fn add_metrics(&self, samples: &mut Samples) {
        for member in &self.verifiers {
            if let IssuerVerifier::One(verifier) = member {
                verifier.add_metrics(samples);
            }
        }
    }

    /// The profiles of all verifiers [combined](TokenProfile::combined).
    fn profile(&self) -> &TokenProfile {
        &self.profile
    }
}

impl fmt::Debug for IssuerSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IssuerSet").field("profile", &self.profile).finish_non_exhaustive()
    }
}

/// The token, which must be one of the profile of its verifier.
fn accepted_by(
    verifier: &dyn TokenVerifier,
    verify: impl FnOnce(&dyn TokenVerifier) -> Result<Arc<VerifiedToken>, TokenError>,
) -> Result<Arc<VerifiedToken>, TokenError> {
    let token = verify(verifier)?;
    verifier.profile().expect_own(&token)?;
    Ok(token)
}

fn unknown() -> TokenError {
    TokenError::new(TokenErrorKind::WrongIssuer, "no verifier is for this issuer")
}

/// The issuer that the token names, before anything was checked. Of a token that is longer than any
/// of the verifiers accepts nothing is read.
pub(crate) fn unverified_issuer(
    token: &str,
    max_bytes: usize,
) -> Result<Option<Box<str>>, TokenError> {
    let malformed = |detail| TokenError::new(TokenErrorKind::Malformed, detail);
    if token.len() > max_bytes {
        return Err(TokenError::too_long());
    }
    let mut parts = token.split('.');
    let (Some(_), Some(payload), Some(_), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(malformed("the token does not have three parts"));
    };
    let payload =
        URL_SAFE_NO_PAD.decode(payload).map_err(|_| malformed("the claims are not base64url"))?;
    Ok(issuer_of(&payload)?.map(|issuer| issuer.into_owned().into()))
}

// Without a crypto provider there are no keys, and so no verifiers.
#[cfg(test)]
#[cfg(any(feature = "aws_lc_rs", feature = "rust_crypto"))]
mod tests;
