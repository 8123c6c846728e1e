//! [`EventReceiver`]: security events that are pushed (RFC 8935), of CAEP 1.0 and RISC 1.0.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use http::StatusCode;
use serde_json::{Map, Value};

use super::answer::{Answer, ErrorFormat};
use super::bearer_secret::SecretDigest;
use super::endpoint::Endpoint;
use super::replay::ReplayGuard;
use super::signed::{EventToken, Providers, describe, missing, odd, time};
use super::subject::{Subject, SubjectRevoker};
use crate::clock::Timestamp;
use crate::config::ConfigError;
use crate::store::StoreError;
use crate::token::jwt::JwtVerifier;
use crate::token::{TokenError, TokenErrorKind, TokenVerifier as _};

const MEDIA_TYPE: &str = "application/secevent+jwt";
const TYPE: &str = "secevent+jwt";
const NAMESPACE: &str = "set";

/// For how long the id of an event is remembered. The token of an event never expires (SSF 1.0),
/// and to carry it out again changes nothing: it dates what it revokes.
const REMEMBERED_FOR: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// What events have in front of their names.
const EVENT_TYPES: &str = "https://schemas.openid.net/secevent/";

/// Receives security events and revokes what they end (Shared Signals Framework 1.0, RFC 8417).
///
/// | event | what is revoked of its [subject](SubjectRevoker) |
/// | --- | --- |
/// | CAEP `session-revoked`; RISC `sessions-revoked`, `account-disabled`, `account-purged`, `credential-compromise`; OAuth `tokens-revoked` | all of it |
/// | CAEP `credential-change` that revokes or deletes a credential, or is of a password | all of it |
/// | CAEP `token-claims-change` | the token, if the subject is one (`jwt_id`) |
/// | any other, a verification too | nothing; it is acknowledged |
///
/// What was issued up to the `event_timestamp` is revoked; without one, up to the `iat` of the
/// token of the event; each to the end of its second, and in no case later than now. So an event
/// that arrives late, or twice, ends no later login. An account that is enabled again reinstates
/// nothing.
///
/// | answer | when |
/// | --- | --- |
/// | 202 | it was carried out, now or before, or has no effect here |
/// | 400 | the token is not one of a transmitter: `err` says why (RFC 8935 §2.4) |
/// | 401 | the caller is [not known](Self::with_bearer) |
/// | 503 | the store did not confirm: the transmitter sends it again |
#[doc(alias("SSF", "CAEP", "RISC", "security event token", "shared signals"))]
#[derive(Clone)]
pub struct EventReceiver {
    subjects: SubjectRevoker,
    guard: ReplayGuard,
    transmitters: Providers,
    bearer: Option<SecretDigest>,
}

/// What an event asks for.
struct Revocations {
    /// Each with the time up to which what it has was issued; none for all so far.
    subjects: Vec<(Subject, Option<Timestamp>)>,
}

impl EventReceiver {
    /// Revokes with this.
    pub fn new(subjects: SubjectRevoker, guard: ReplayGuard) -> Self {
        Self { subjects, guard, transmitters: Providers::default(), bearer: None }
    }

    /// Receives the events of a transmitter: those that one of the keys of `transmitter` has
    /// signed, for the issuer and the audience of its profile.
    ///
    /// # Errors
    /// [`ConfigError`] if its profile names no issuer or no audience.
    pub fn with(mut self, transmitter: JwtVerifier) -> Result<Self, ConfigError> {
        self.transmitters.add(transmitter)?;
        Ok(self)
    }

    /// Takes requests only from callers that send this in `Authorization: Bearer`. Default: from
    /// all, as the token of an event is signed.
    #[must_use]
    pub fn with_bearer(mut self, secret: impl AsRef<str>) -> Self {
        self.bearer = Some(SecretDigest::of(secret.as_ref()));
        self
    }

    /// The endpoint, for `POST` of a token of an event (`application/secevent+jwt`).
    pub fn into_endpoint(self) -> Endpoint {
        let bearer = self.bearer;
        let receiver = Arc::new(self);
        let admits = move |head: &_| bearer.map_or(Ok(()), |secret| secret.expect_bearer(head));
        Endpoint::guarded_post(MEDIA_TYPE, ErrorFormat::SecurityEvent, admits, move |_, body| {
            let receiver = Arc::clone(&receiver);
            async move {
                match std::str::from_utf8(&body) {
                    Ok(token) => receiver.receive(token.trim()).await,
                    Err(_) => ErrorFormat::SecurityEvent.invalid_request("the body is no token"),
                }
            }
            .boxed()
        })
    }

    async fn receive(&self, token: &str) -> Answer {
        let format = ErrorFormat::SecurityEvent;
        let (token, revocations) = match self.verify(token) {
            Ok(event) => event,
            Err(error) => {
                let code = match error.kind() {
                    TokenErrorKind::NoKeys => return Answer::unavailable(),
                    TokenErrorKind::WrongIssuer => "invalid_issuer",
                    TokenErrorKind::WrongAudience => "invalid_audience",
                    TokenErrorKind::UnknownKey | TokenErrorKind::WrongAlgorithm => "invalid_key",
                    TokenErrorKind::BadSignature => "authentication_failed",
                    _ => "invalid_request",
                };
                return format.bad_request(code, describe(&error));
            }
        };
        match self.carry_out(&token, &revocations).await {
            Ok(()) => Answer::empty(StatusCode::ACCEPTED),
            Err(error) => format.store_error(&error),
        }
    }

    async fn carry_out(
        &self,
        token: &EventToken<'_>,
        revocations: &Revocations,
    ) -> Result<(), StoreError> {
        let (issuer, id) = (&*token.issuer, &*token.id);
        if self.guard.is_seen(NAMESPACE, issuer, id).await? {
            return Ok(());
        }
        for (subject, until) in &revocations.subjects {
            let reason = "reported by a security event";
            let outcome = self.subjects.revoke(subject, *until, reason).await?;
            tracing::debug!(?outcome, "a security event was carried out");
        }
        self.guard.mark(NAMESPACE, issuer, id, REMEMBERED_FOR).await.map(drop)
    }

    fn verify(&self, token: &str) -> Result<(EventToken<'_>, Revocations), TokenError> {
        let accepts = |typ: Option<&str>| typ.is_some_and(|typ| typ.eq_ignore_ascii_case(TYPE));
        let token = self.transmitters.verify(token, accepts)?;
        // SSF 1.0: so that no other kind of token is taken for one, nor one for another kind.
        if ["sub", "exp"].iter().any(|name| token.claims.contains_key(*name)) {
            return Err(TokenError::new(
                TokenErrorKind::ForbiddenClaim,
                "the token of an event must not have `sub` or `exp`",
            ));
        }
        let events = token.claims.get("events").ok_or_else(|| missing("events"))?;
        let events = events.as_object().filter(|events| !events.is_empty());
        let events = events.ok_or_else(|| odd("events"))?;
        let now = token.provider.profile().now();
        let issued_at = token.expect_issued_at()?;
        let mut subjects = Vec::new();
        for (name, event) in events {
            let event = event.as_object().ok_or_else(|| odd("events"))?;
            let Some(effect) = EventEffect::of(name, event) else { continue };
            // In events of before SSF 1.0 the subject is inside.
            let subject = token.claims.get("sub_id").or_else(|| event.get("subject"));
            let subject = subject.ok_or_else(|| missing("sub_id"))?;
            let subject = Subject::parse(subject).ok_or_else(|| odd("sub_id"))?;
            let happened_at = time(event, "event_timestamp")?.unwrap_or(issued_at);
            let is_token = matches!(subject, Subject::Token { .. });
            if effect == EventEffect::Revoked || is_token {
                // A time in whole seconds stands for all of its second.
                let until = Timestamp::from_millis(
                    happened_at.as_secs().saturating_mul(1000).saturating_add(999),
                );
                subjects.push((subject, Some(until).filter(|until| *until < now)));
            }
        }
        Ok((token, Revocations { subjects }))
    }
}

/// What an event means for its subject.
#[derive(Clone, Copy, PartialEq, Eq)]
enum EventEffect {
    /// Everything of it is revoked.
    Revoked,
    /// It is revoked, if it is one token.
    TokenRevoked,
}

impl EventEffect {
    /// `None` if it has none, or if the event is not known.
    fn of(name: &str, event: &Map<String, Value>) -> Option<Self> {
        let is = |name: &str, values: &[&str]| {
            event.get(name).and_then(Value::as_str).is_some_and(|value| values.contains(&value))
        };
        match name.strip_prefix(EVENT_TYPES)? {
            "caep/event-type/session-revoked"
            | "risc/event-type/sessions-revoked"
            | "risc/event-type/account-disabled"
            | "risc/event-type/account-purged"
            | "risc/event-type/credential-compromise"
            | "oauth/event-type/tokens-revoked" => Some(Self::Revoked),
            "caep/event-type/credential-change"
                if is("change_type", &["revoke", "delete"])
                    || is("credential_type", &["password"]) =>
            {
                Some(Self::Revoked)
            }
            "caep/event-type/token-claims-change" => Some(Self::TokenRevoked),
            _ => None,
        }
    }
}

impl fmt::Debug for EventReceiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventReceiver")
            .field("subjects", &self.subjects)
            .field("transmitters", &self.transmitters)
            .finish_non_exhaustive()
    }
}
