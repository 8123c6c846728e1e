//! Tokens whose signature a gateway has checked.

use std::fmt;
use std::sync::Arc;

use super::header::{TokenHeader, TokenParts, base64, malformed};
use super::{DEFAULT_TYPES, Types, key};
use crate::clock::Clock;
use crate::config::ConfigError;
use crate::token::profile::SignedClaims;
use crate::token::{TokenError, TokenErrorKind, TokenProfile, TokenVerifier};
use crate::verified::VerifiedToken;

/// Verifies tokens **without checking their signature**: for services behind a gateway that has
/// checked it.
///
/// It checks all the rest as [`JwtVerifier`](super::JwtVerifier) does: shape, header, type, that
/// `alg` names a signature algorithm, and the claims. The profile must name its issuers. If you
/// have the keys, use `JwtVerifier`.
///
/// ```
/// use tower_jwt_revocation::token::jwt::UncheckedSignatureVerifier;
/// use tower_jwt_revocation::TokenProfile;
///
/// let profile = TokenProfile::new().with_issuer("https://id.example").with_audience("orders");
/// let verifier = UncheckedSignatureVerifier::trusting_the_gateway(profile)?;
/// # let _ = verifier;
/// # Ok::<_, tower_jwt_revocation::ConfigError>(())
/// ```
///
/// # Security
/// A client that reaches the service without the gateway can claim to be any user. Network rules
/// must leave no other way in, also from inside, and the gateway must refuse what it cannot verify.
///
/// With this verifier, [`Revoker::revoke_raw_token`](crate::Revoker::revoke_raw_token) always
/// fails: otherwise anyone could revoke the tokens of others for all who share the store.
#[derive(Clone)]
pub struct UncheckedSignatureVerifier {
    profile: TokenProfile,
    types: Types,
}

impl UncheckedSignatureVerifier {
    /// A verifier that accepts every token with claims that `profile` accepts.
    ///
    /// # Errors
    /// [`ConfigError`] if the profile cannot work or names no issuer.
    pub fn trusting_the_gateway(profile: TokenProfile) -> Result<Self, ConfigError> {
        profile.validate()?;
        if !profile.has_issuers() {
            return Err(ConfigError::new(
                "issuer",
                "is not named, and without checked signatures it is the least to go by; see \
                 TokenProfile::with_issuer",
            ));
        }
        let types = Types { required: false, accepted: DEFAULT_TYPES.map(Into::into).into() };
        Ok(Self { profile, types })
    }

    /// As [`JwtVerifier::with_types`](super::JwtVerifier::with_types).
    ///
    /// # Errors
    /// As [`JwtVerifier::with_types`](super::JwtVerifier::with_types).
    pub fn with_types<T: AsRef<str>>(
        mut self,
        types: impl IntoIterator<Item = T>,
    ) -> Result<Self, ConfigError> {
        self.types = Types::only(types)?;
        Ok(self)
    }

    /// As [`JwtVerifier::with_max_token_bytes`](super::JwtVerifier::with_max_token_bytes).
    #[must_use]
    pub fn with_max_token_bytes(mut self, bytes: usize) -> Self {
        self.profile = self.profile.with_max_token_bytes(bytes);
        self
    }

    /// The clock by which `exp`, `nbf` and `iat` are checked, as [`TokenProfile::with_clock`].
    #[must_use]
    pub fn with_clock(mut self, clock: impl Clock) -> Self {
        self.profile = self.profile.with_clock(clock);
        self
    }
}

impl TokenVerifier for UncheckedSignatureVerifier {
    fn verify(&self, token: &str) -> Result<Arc<VerifiedToken>, TokenError> {
        let (parts, json) = TokenParts::within(self.profile.max_token_bytes(), token)?;
        let header = TokenHeader::parse(&json)?;
        self.types.check(header.typ.as_deref())?;
        if !key::is_signature_algorithm(&header.alg) {
            return Err(TokenError::new(
                TokenErrorKind::WrongAlgorithm,
                "the `alg` of the token is not a supported signature algorithm",
            ));
        }
        if parts.signature.is_empty() || base64(parts.signature).is_none() {
            return Err(malformed("the token has no signature"));
        }
        let payload = parts.claims()?;
        let claims = SignedClaims::new(&payload)
            .with_key_id(header.kid.as_deref())
            .with_signing_input(parts.signing_input);
        self.profile.assert_verified(claims).map(Arc::new)
    }

    /// Always an error, see [Security](Self#security).
    fn verify_for_revocation(&self, _: &str) -> Result<Arc<VerifiedToken>, TokenError> {
        Err(TokenError::new(
            TokenErrorKind::Other,
            "the signature of this token was not checked here, so it must not be revoked on its \
             own word",
        ))
    }

    fn profile(&self) -> &TokenProfile {
        &self.profile
    }

    /// Always 0: there are no keys that could change.
    fn generation(&self) -> u64 {
        0
    }
}

impl fmt::Debug for UncheckedSignatureVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UncheckedSignatureVerifier")
            .field("profile", &self.profile)
            .field("types", &self.types.accepted)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::clock::{ManualClock, Timestamp};
    use crate::token::profile::DEFAULT_MAX_TOKEN_BYTES;
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;

    const NOW: u64 = 1_700_000_000;

    fn verifier() -> UncheckedSignatureVerifier {
        let profile = TokenProfile::new().with_issuer("https://id.example");
        UncheckedSignatureVerifier::trusting_the_gateway(profile)
            .unwrap()
            .with_clock(ManualClock::new(Timestamp::from_secs(NOW)))
    }

    fn token(header: &Value, claims: &Value, signature: &str) -> String {
        let part = |json: &Value| URL_SAFE_NO_PAD.encode(json.to_string());
        format!("{}.{}.{signature}", part(header), part(claims))
    }

    fn claims() -> Value {
        let (iss, exp) = ("https://id.example", NOW + 600);
        json!({"iss": iss, "sub": "alice", "jti": "1", "iat": NOW, "exp": exp})
    }

    #[test]
    fn everything_but_the_signature_is_checked() {
        let (verifier, short) = (verifier(), verifier().with_max_token_bytes(10));
        let good = json!({"alg": "RS256", "typ": "at+jwt", "kid": "k"});
        let accepted = verifier.verify(&token(&good, &claims(), "AAAA")).unwrap();
        assert!(accepted.target(crate::revocation::TargetKind::Key).is_some());
        verifier.verify(&token(&json!({"alg": "Ed25519"}), &claims(), "AAAA")).unwrap();

        let kind = |token: &str| verifier.verify(token).unwrap_err().kind();
        for (header, expected) in [
            (json!({"alg": "none"}), TokenErrorKind::WrongAlgorithm),
            (json!({"alg": "rs256"}), TokenErrorKind::WrongAlgorithm),
            (json!({"alg": "RSA-OAEP"}), TokenErrorKind::WrongAlgorithm),
            (json!({"alg": "RS256", "crit": ["x"]}), TokenErrorKind::UnsupportedHeader),
            (json!({"alg": "RS256", "typ": "logout+jwt"}), TokenErrorKind::WrongType),
            (json!({"typ": "JWT"}), TokenErrorKind::Malformed),
        ] {
            assert_eq!(kind(&token(&header, &claims(), "AAAA")), expected, "{header}");
        }
        assert_eq!(kind(&token(&good, &claims(), "")), TokenErrorKind::Malformed);
        assert_eq!(kind(&token(&good, &claims(), "A")), TokenErrorKind::Malformed);
        assert_eq!(kind(&"a".repeat(DEFAULT_MAX_TOKEN_BYTES + 1)), TokenErrorKind::TooLong);
        assert_eq!(
            short.verify(&token(&good, &claims(), "AAAA")).unwrap_err().kind(),
            TokenErrorKind::TooLong
        );
        for (name, value, expected) in [
            ("iss", json!("https://else.example"), TokenErrorKind::WrongIssuer),
            ("exp", json!(NOW - 600), TokenErrorKind::Expired),
            ("jti", json!(null), TokenErrorKind::MissingId),
        ] {
            let mut claims = claims();
            claims[name] = value;
            assert_eq!(kind(&token(&good, &claims, "AAAA")), expected, "{name}");
        }
    }

    #[test]
    fn nothing_is_revoked_on_the_word_of_an_unchecked_token() {
        let token = token(&json!({"alg": "RS256"}), &claims(), "AAAA");
        verifier().verify(&token).unwrap();
        verifier().verify_for_revocation(&token).unwrap_err();
    }

    #[test]
    fn an_issuer_must_be_named() {
        let error =
            UncheckedSignatureVerifier::trusting_the_gateway(TokenProfile::new()).unwrap_err();
        assert_eq!(error.setting(), "issuer");
    }
}
