//! Claims that another layer or a gateway has verified.

use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::HeaderName;
use serde::Serialize;

use super::bearer::RequestHead;
use super::jwt::settle_provider;
use super::profile::SignedClaims;
use super::{TokenError, TokenErrorKind, TokenProfile, TokenVerifier};
use crate::clock::Clock;
use crate::config::ConfigError;
use crate::verified::VerifiedToken;

/// The claims of a token that was verified further out, found in the request.
///
/// It is for [`JwtRevocationLayer::behind`], where another layer checks signatures. The profile
/// still checks the claims: issuer, audience, times, and that the token can be revoked.
///
/// [`JwtRevocationLayer::behind`]: crate::JwtRevocationLayer::behind
///
/// ```
/// use tower_jwt_revocation::token::UpstreamClaims;
/// use tower_jwt_revocation::TokenProfile;
///
/// // What the layer further out leaves in the extensions of the request: for
/// // tower-oauth2-resource-server your claims as they are; for jwt-authorizer
/// // `TokenData<YourClaims>`, see `in_extension_as`.
/// #[derive(Clone, serde::Serialize, serde::Deserialize)]
/// struct YourClaims {
///     iss: String,
///     sub: String,
///     jti: String,
///     iat: u64,
///     exp: u64,
/// }
///
/// let profile = TokenProfile::new().with_issuer("https://id.example");
/// let claims = UpstreamClaims::in_extension::<YourClaims>(profile)?;
/// # let _ = claims;
/// # Ok::<_, tower_jwt_revocation::ConfigError>(())
/// ```
///
/// # Cryptography
/// jsonwebtoken has one crypto provider for the whole process, and panics if it has to choose
/// between two. This matters if the layer further out uses its version 12, too. So a provider is
/// installed here, unless the program has done so or no feature of this crate brings one.
///
/// # Security
/// - The outer layer must check the signature and the type (`typ`) of the token. This type cannot.
/// - The outer layer must be on every route. A request without claims has no credentials and is
///   refused.
/// - A token can be revoked only by the claims that are handed over: without `sid` in the type,
///   revocations of sessions have no effect. Put `jti`, `iat`, `exp` and `sub` into it, and every
///   claim that names a target (see [`TokenProfile::with_claim_target`]). `#[serde(flatten)]` into
///   a map keeps the rest.
#[derive(Clone)]
pub struct UpstreamClaims {
    profile: TokenProfile,
    find: Arc<Find>,
}

/// The claims as JSON.
type Find = dyn Fn(&RequestHead<'_>) -> Option<Result<Vec<u8>, TokenError>> + Send + Sync;

impl UpstreamClaims {
    /// Claims of this type in the extensions of the request.
    ///
    /// # Errors
    /// [`ConfigError`] if the profile cannot work.
    pub fn in_extension<C>(profile: TokenProfile) -> Result<Self, ConfigError>
    where
        C: Serialize + Send + Sync + 'static,
    {
        Self::in_extension_as(profile, |claims: &C| claims)
    }

    /// Claims within a value of type `E` in the extensions of the request.
    ///
    /// ```
    /// # use tower_jwt_revocation::token::UpstreamClaims;
    /// # use tower_jwt_revocation::TokenProfile;
    /// # #[derive(Clone)] struct TokenData<C> { claims: C }
    /// # type YourClaims = serde_json::Value;
    /// # let profile = TokenProfile::new();
    /// let claims =
    ///     UpstreamClaims::in_extension_as(profile, |data: &TokenData<YourClaims>| &data.claims)?;
    /// # let _ = claims;
    /// # Ok::<_, tower_jwt_revocation::ConfigError>(())
    /// ```
    ///
    /// # Errors
    /// As [`in_extension`](Self::in_extension).
    pub fn in_extension_as<E, C>(
        profile: TokenProfile,
        claims_of: impl Fn(&E) -> &C + Send + Sync + 'static,
    ) -> Result<Self, ConfigError>
    where
        E: Send + Sync + 'static,
        C: Serialize,
    {
        Self::found_by(profile, move |head| {
            let claims = claims_of(head.extensions().get::<E>()?);
            // The cause is dropped: its text may quote the claims.
            Some(
                serde_json::to_vec(claims)
                    .map_err(|_| malformed("the claims of the outer layer are not JSON")),
            )
        })
    }

    /// Claims in a header field that a gateway writes: JSON in base64url, with or without padding,
    /// no longer than [`TokenProfile::with_max_token_bytes`]. Envoy and Istio
    /// (`forward_payload_header`, `outputPayloadToHeader`) and API Gateway of Google Cloud write it
    /// so.
    ///
    /// # Security
    /// A client that can write this field can claim to be any user. The gateway must remove the
    /// field from requests that come from outside, and be the only way to the service.
    ///
    /// # Errors
    /// [`ConfigError`] if the name cannot be that of a header field, or if the profile cannot work.
    pub fn in_header_of_trusted_gateway(
        profile: TokenProfile,
        name: &str,
    ) -> Result<Self, ConfigError> {
        let name: HeaderName = name.parse().map_err(|_| {
            ConfigError::new(
                "claims_header",
                "is not the name of a header field, such as x-jwt-payload",
            )
        })?;
        // They are part of a token.
        let max_bytes = profile.max_token_bytes();
        Self::found_by(profile, move |head| {
            let mut fields = head.headers().get_all(&name).iter();
            let field = fields.next()?;
            if fields.next().is_some() {
                return Some(Err(malformed("the header field with the claims stands there twice")));
            }
            if field.len() > max_bytes {
                return Some(Err(TokenError::too_long()));
            }
            let text = field.to_str().unwrap_or_default().trim_end_matches('=');
            Some(
                URL_SAFE_NO_PAD.decode(text).map_err(|_| malformed("the claims are not base64url")),
            )
        })
    }

    /// Claims that `find` finds, as JSON. `None` means that the request has no credentials.
    ///
    /// # Security
    /// `find` is responsible for the claims, as [`TokenProfile::assert_verified`] says.
    ///
    /// # Errors
    /// [`ConfigError`] if the profile cannot work.
    pub fn found_by<F>(profile: TokenProfile, find: F) -> Result<Self, ConfigError>
    where
        F: Fn(&RequestHead<'_>) -> Option<Result<Vec<u8>, TokenError>> + Send + Sync + 'static,
    {
        profile.validate()?;
        // The layer further out may use jsonwebtoken too.
        settle_provider();
        Ok(Self { profile, find: Arc::new(find) })
    }

    /// The clock by which `exp`, `nbf` and `iat` are checked, as [`TokenProfile::with_clock`].
    #[must_use]
    pub fn with_clock(mut self, clock: impl Clock) -> Self {
        self.profile = self.profile.with_clock(clock);
        self
    }

    /// The verified token of a request, if it has one.
    pub(crate) fn find(
        &self,
        head: &RequestHead<'_>,
    ) -> Option<Result<Arc<VerifiedToken>, TokenError>> {
        let payload = match (self.find)(head)? {
            Ok(payload) => payload,
            Err(error) => return Some(Err(error)),
        };
        let token = self.profile.assert_verified(SignedClaims::new(&payload));
        Some(token.map(Arc::new))
    }

    /// The rules without a verifier, for a layer that never sees a token.
    pub(crate) fn rules(&self) -> impl TokenVerifier {
        NoRawTokens(self.profile.clone())
    }
}

impl fmt::Debug for UpstreamClaims {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UpstreamClaims").field("profile", &self.profile).finish_non_exhaustive()
    }
}

fn malformed(detail: &'static str) -> TokenError {
    TokenError::new(TokenErrorKind::Malformed, detail)
}

/// Stands where a verifier is asked for and there is none.
struct NoRawTokens(TokenProfile);

impl NoRawTokens {
    fn refuse<T>() -> Result<T, TokenError> {
        Err(TokenError::new(
            TokenErrorKind::Other,
            "this layer takes the claims that another one has verified and cannot verify a token \
             itself",
        ))
    }
}

impl TokenVerifier for NoRawTokens {
    fn verify(&self, _: &str) -> Result<Arc<VerifiedToken>, TokenError> {
        Self::refuse()
    }

    fn verify_for_revocation(&self, _: &str) -> Result<Arc<VerifiedToken>, TokenError> {
        Self::refuse()
    }

    fn profile(&self) -> &TokenProfile {
        &self.0
    }

    fn generation(&self) -> u64 {
        0
    }
}
