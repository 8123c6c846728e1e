//! Tokens that report events: logout tokens and security events (RFC 8417).

use std::borrow::Cow;
use std::time::Duration;

use serde_json::{Map, Value};

use super::request::json_object;
use crate::clock::Timestamp;
use crate::config::ConfigError;
use crate::revocation::MAX_ID_BYTES;
use crate::token::jwt::JwtVerifier;
use crate::token::{TokenError, TokenErrorKind, TokenVerifier as _, unverified_issuer};

/// How far the clock of the store may be from ours.
const CLOCKS_APART: Duration = Duration::from_secs(60);

/// The providers whose tokens are received, each with its keys, its issuer, and our name for it as
/// audience.
#[derive(Clone, Debug, Default)]
pub(super) struct Providers(Vec<JwtVerifier>);

/// The claims of a token whose signature, issuer and audience were checked.
pub(super) struct EventToken<'a> {
    pub(super) provider: &'a JwtVerifier,
    pub(super) issuer: Box<str>,
    pub(super) id: Box<str>,
    /// Assertions of clients need not say it.
    pub(super) issued_at: Option<Timestamp>,
    pub(super) claims: Map<String, Value>,
}

impl Providers {
    pub(super) fn add(&mut self, provider: JwtVerifier) -> Result<(), ConfigError> {
        let profile = provider.profile();
        if !profile.has_issuers() {
            return Err(ConfigError::new(
                "issuer",
                "the profile of the provider names none; see TokenProfile::with_issuer",
            ));
        }
        if profile.audiences().is_empty() {
            return Err(ConfigError::new(
                "audience",
                "the profile of the provider names none, so that what is meant for others would \
                 be taken; see TokenProfile::with_audience",
            ));
        }
        self.0.push(provider);
        Ok(())
    }

    #[cfg(feature = "jwks")]
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Verifies a token of a type that `accepts` takes. The unverified issuer chooses whose keys
    /// are tried, and nothing else.
    pub(super) fn verify(
        &self,
        token: &str,
        accepts: impl FnOnce(Option<&str>) -> bool,
    ) -> Result<EventToken<'_>, TokenError> {
        let longest = self.0.iter().map(|known| known.profile().max_token_bytes()).max();
        let issuer = unverified_issuer(token, longest.unwrap_or_default())?;
        let provider = issuer
            .as_deref()
            .and_then(|issuer| self.0.iter().find(|known| known.profile().knows_issuer(issuer)));
        let (Some(provider), Some(issuer)) = (provider, issuer) else {
            return Err(TokenError::new(
                TokenErrorKind::WrongIssuer,
                "the issuer is not one of the providers",
            ));
        };
        let payload = provider.signed_payload(token, accepts)?;
        let claims = json_object(&payload).ok_or_else(|| {
            TokenError::new(
                TokenErrorKind::Malformed,
                "the claims are not a JSON object in which each member stands once",
            )
        })?;
        let audience = texts(claims.get("aud")).ok_or_else(|| odd("aud"))?;
        let iss = claims.get("iss").and_then(Value::as_str);
        provider.profile().check_parties(iss, &audience)?;
        if iss != Some(&*issuer) {
            return Err(odd("iss"));
        }
        let id: Box<str> = text(&claims, "jti")?.into();
        let issued_at = time(&claims, "iat")?;
        Ok(EventToken { provider, issuer, id, issued_at, claims })
    }
}

impl EventToken<'_> {
    /// When it was issued, which the token of an event must say.
    pub(super) fn expect_issued_at(&self) -> Result<Timestamp, TokenError> {
        self.issued_at.ok_or_else(|| missing("iat"))
    }

    /// Checks its times and gives for how long from now it may be accepted: in no case for longer
    /// than `longest`, since its id has to be remembered.
    pub(super) fn remaining(&self, longest: Duration) -> Result<Duration, TokenError> {
        let expires_at = time(&self.claims, "exp")?.ok_or_else(|| missing("exp"))?;
        let profile = self.provider.profile();
        let (now, leeway) = (profile.now(), profile.leeway());
        if now >= expires_at.saturating_add(leeway) {
            return Err(TokenError::new(TokenErrorKind::Expired, "the token is expired"));
        }
        if self.issued_at.is_some_and(|issued_at| issued_at > now.saturating_add(leeway)) {
            let problem = "the token was issued in the future";
            return Err(TokenError::new(TokenErrorKind::IssuedInFuture, problem));
        }
        let not_before = time(&self.claims, "nbf")?;
        if not_before.is_some_and(|not_before| now.saturating_add(leeway) < not_before) {
            let problem = "the token is not valid yet";
            return Err(TokenError::new(TokenErrorKind::NotYetValid, problem));
        }
        if expires_at.saturating_duration_since(self.issued_at.unwrap_or(now)) > longest {
            let problem = "the token is valid for longer than accepted";
            return Err(TokenError::new(TokenErrorKind::LifetimeTooLong, problem));
        }
        let left = expires_at.saturating_add(leeway).saturating_duration_since(now);
        Ok(left + CLOCKS_APART)
    }
}

/// A claim that must be a text of bounded length.
pub(super) fn text<'a>(
    claims: &'a Map<String, Value>,
    name: &'static str,
) -> Result<&'a str, TokenError> {
    optional_text(claims, name)?.ok_or_else(|| missing(name))
}

/// The same, if it is there.
pub(super) fn optional_text<'a>(
    claims: &'a Map<String, Value>,
    name: &'static str,
) -> Result<Option<&'a str>, TokenError> {
    match claims.get(name) {
        None => Ok(None),
        Some(Value::String(text)) if (1..=MAX_ID_BYTES).contains(&text.len()) => Ok(Some(text)),
        Some(_) => Err(odd(name)),
    }
}

/// A claim that is a `NumericDate` (RFC 7519 §2), if it is there.
pub(super) fn time(
    claims: &Map<String, Value>,
    name: &'static str,
) -> Result<Option<Timestamp>, TokenError> {
    let Some(value) = claims.get(name) else { return Ok(None) };
    let seconds = value.as_f64().filter(|seconds| seconds.is_finite() && *seconds >= 0.0);
    seconds.map(|seconds| Some(at(seconds))).ok_or_else(|| odd(name))
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the cast saturates")]
fn at(seconds: f64) -> Timestamp {
    Timestamp::from_millis((seconds * 1000.0) as u64)
}

/// A text, or an array of texts.
fn texts(value: Option<&Value>) -> Option<Vec<Cow<'_, str>>> {
    match value {
        None => Some(Vec::new()),
        Some(Value::String(text)) => Some(vec![text.into()]),
        Some(Value::Array(texts)) => {
            texts.iter().map(|text| text.as_str().map(Cow::Borrowed)).collect()
        }
        Some(_) => None,
    }
}

pub(super) fn missing(name: &'static str) -> TokenError {
    TokenError::new(TokenErrorKind::MissingClaim, format!("the claim `{name}` is missing"))
}

pub(super) fn odd(name: &'static str) -> TokenError {
    TokenError::new(TokenErrorKind::OddClaim, format!("the claim `{name}` is not what it must be"))
}

/// What is wrong with a token, for whoever has sent it: nothing of the token, and nothing of how it
/// was checked.
pub(super) fn describe(error: &TokenError) -> &'static str {
    tracing::debug!(why = %error, "a token that reports an event was refused");
    match error.kind() {
        TokenErrorKind::TooLong => "the token is too long",
        TokenErrorKind::WrongType => "the token is of another type",
        TokenErrorKind::UnknownKey => "the key of the token is not known",
        TokenErrorKind::WrongAlgorithm => "the algorithm is not that of the key",
        TokenErrorKind::BadSignature => "the signature does not fit",
        TokenErrorKind::Expired => "the token is expired",
        TokenErrorKind::NotYetValid | TokenErrorKind::IssuedInFuture => {
            "the token is not valid yet"
        }
        TokenErrorKind::LifetimeTooLong => "the token is valid for too long",
        TokenErrorKind::MissingClaim => "a claim is missing",
        TokenErrorKind::OddClaim => "a claim is not what it must be",
        TokenErrorKind::ForbiddenClaim => "the token has a claim that it must not have",
        TokenErrorKind::WrongIssuer => "the issuer is not known",
        TokenErrorKind::WrongAudience => "the token is for another audience",
        _ => "the token cannot be read",
    }
}
