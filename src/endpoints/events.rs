//! [`EventReceiver`]: security events of CAEP 1.0 and RISC 1.0, pushed (RFC 8935) or polled for.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use http::StatusCode;
use serde_json::{Map, Value};

use super::answer::{Answer, ErrorFormat};
use super::bearer_secret::SecretDigest;
use super::endpoint::Endpoint;
use super::replay::ReplayGuard;
use super::signed::{EventToken, Providers, describe, missing, odd, time};
use super::subject::{Subject, SubjectOutcome, SubjectRevoker};
use crate::clock::Timestamp;
use crate::config::ConfigError;
use crate::store::{StoreError, StoreErrorKind};
use crate::token::jwt::JwtVerifier;
use crate::token::{TokenError, TokenErrorKind, TokenVerifier as _};

const MEDIA_TYPE: &str = "application/secevent+jwt";
const TYPE: &str = "secevent+jwt";
const NAMESPACE: &str = "set";
/// The code of what is signed by a key that is not among those of its transmitter.
pub(super) const INVALID_KEY: &str = "invalid_key";

/// For how long the id of an event is remembered. The token of an event never expires (SSF 1.0),
/// and to carry it out again changes nothing: it dates what it revokes.
const REMEMBERED_FOR: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// What events have in front of their names.
const EVENT_TYPES: &str = "https://schemas.openid.net/secevent/";

/// The `reason` of what is revoked.
const REASON: &str = "reported by a security event";

/// Receives security events and revokes what they end (Shared Signals Framework 1.0, RFC 8417). A
/// transmitter pushes them ([`into_endpoint`](Self::into_endpoint)), or this process polls for them
/// (`EventPoller`, with feature `jwks`).
///
/// | event | what is revoked of its [subject](SubjectRevoker) |
/// | --- | --- |
/// | CAEP `session-revoked`; RISC `sessions-revoked`, `account-disabled`, `account-purged`, `credential-compromise`; OAuth `tokens-revoked` | all of it |
/// | CAEP `credential-change` that revokes or deletes a credential, or is of a password | all of it |
/// | CAEP `token-claims-change` | the token, if the subject is one (`jwt_id`) |
/// | CAEP `device-compliance-change`, `risk-level-change`, `assurance-level-change`, `session-established`, `session-presented` | nothing, unless [`with_effect`](Self::with_effect) does it |
/// | RISC `account-enabled`, `account-credential-change-required`, `identifier-changed`, `identifier-recycled`, `opt-in`, `opt-out-…`, `recovery-…` | the same |
/// | any other, a verification too | the same |
///
/// An event revokes what was issued up to its `event_timestamp`, or without one up to the `iat` of
/// its token. Both count to the end of their second, and never later than now. So an event that
/// arrives late, or twice, ends no later login. An account that is enabled again reinstates
/// nothing.
///
/// | answer to a push | when |
/// | --- | --- |
/// | 202 | the event was carried out, now or before, or has no effect here |
/// | 400 | the token is not one of a transmitter: `err` says why (RFC 8935 §2.4) |
/// | 401 | the caller is [not known](Self::with_bearer) |
/// | 503 | the store did not confirm: the transmitter sends it again |
#[doc(alias("SSF", "CAEP", "RISC", "security event token", "shared signals"))]
#[derive(Clone)]
pub struct EventReceiver {
    subjects: Arc<SubjectRevoker>,
    guard: ReplayGuard,
    transmitters: Providers,
    bearer: Option<SecretDigest>,
    effect: Option<Arc<Effect>>,
}

type Effect = dyn Fn(SecurityEvent) -> BoxFuture<'static, Result<(), StoreError>> + Send + Sync;

/// An event of a transmitter, for [`EventReceiver::with_effect`]. Its token was verified.
#[derive(Clone)]
pub struct SecurityEvent {
    issuer: Box<str>,
    id: Box<str>,
    event_type: Box<str>,
    subject: Option<Value>,
    details: Value,
    happened_at: Timestamp,
    /// Up to when what the subject has was issued; none for all so far.
    until: Option<Timestamp>,
    subjects: Arc<SubjectRevoker>,
}

/// What became of the token of an event.
#[derive(Debug)]
pub(super) enum Received {
    /// It was carried out, now or before, or has no effect here.
    Done,
    /// It is not the token of an event of a transmitter: why, as RFC 8935 §2.4 has it.
    Refused { code: &'static str, description: &'static str },
    /// It may be carried out later: the store did not confirm, or there are no keys to verify it;
    /// with the error, if it was one.
    Unconfirmed(Option<StoreError>),
}

/// Why an event was not carried out.
enum EventFailure {
    /// The store did not confirm what it revokes.
    Revocation(StoreError),
    /// What the program does with it has failed, which says nothing of the token.
    Effect(StoreError),
}

impl From<StoreError> for EventFailure {
    fn from(error: StoreError) -> Self {
        Self::Revocation(error)
    }
}

impl Received {
    /// Why it will not be carried out however often it comes, if that is known.
    pub(super) fn lasting_error(&self) -> Option<&StoreError> {
        match self {
            Self::Unconfirmed(error) => error.as_ref().filter(|error| !error.may_be_repeated()),
            _ => None,
        }
    }
}

/// An event of a token that was verified.
struct Reported {
    event_type: Box<str>,
    /// What is to be revoked, with the time up to which what it has was issued; none for all so
    /// far.
    revokes: Option<(Subject, Option<Timestamp>)>,
    happened_at: Timestamp,
}

impl EventReceiver {
    /// A receiver that revokes with `subjects`, and remembers in `guard` which events were carried
    /// out.
    pub fn new(subjects: SubjectRevoker, guard: ReplayGuard) -> Self {
        let (subjects, transmitters) = (Arc::new(subjects), Providers::default());
        Self { subjects, guard, transmitters, bearer: None, effect: None }
    }

    /// Accepts events of this transmitter: their tokens are verified by `transmitter`, with the
    /// issuer and the audience of its profile.
    ///
    /// # Errors
    /// [`ConfigError`] if its profile names no issuer or no audience.
    pub fn with(mut self, transmitter: JwtVerifier) -> Result<Self, ConfigError> {
        self.transmitters.add(transmitter)?;
        Ok(self)
    }

    /// Accepts requests only from callers that send this in `Authorization: Bearer`. Default: from
    /// all, because the token of an event is signed. It has no effect on polled events.
    #[must_use]
    pub fn with_bearer(mut self, secret: impl AsRef<str>) -> Self {
        self.bearer = Some(SecretDigest::of(secret.as_ref()));
        self
    }

    /// Calls `effect` with each event, of any type: after the revocations of the event itself were
    /// confirmed, and before its token counts as carried out. If it fails, the event is not
    /// acknowledged, and both are done again when the event comes again. Use it to revoke for
    /// events about devices, risks and assurance levels. With an error that does not go away, the
    /// event is never acknowledged, and the log warns of it. A poller gives `effect` as long as an
    /// answer of the transmitter (`EventPoller::with_timeout`), and then drops the future.
    ///
    /// ```
    /// # use tower_jwt_revocation::endpoints::EventReceiver;
    /// # fn f(receiver: EventReceiver) -> EventReceiver {
    /// receiver.with_effect(|event| async move {
    ///     let is_bad = event.event_type().ends_with("/caep/event-type/device-compliance-change")
    ///         && event.details()["current_status"] == "not-compliant";
    ///     if is_bad {
    ///         event.revoke_subject().await?;
    ///     }
    ///     Ok(())
    /// })
    /// # }
    /// ```
    #[doc(alias("device-compliance-change", "risk-level-change", "assurance-level-change"))]
    #[must_use]
    pub fn with_effect<F>(
        mut self,
        effect: impl Fn(SecurityEvent) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Result<(), StoreError>> + Send + 'static,
    {
        self.effect = Some(Arc::new(move |event| effect(event).boxed()));
        self
    }

    /// The endpoint, for `POST` of the token of an event (`application/secevent+jwt`).
    pub fn into_endpoint(self) -> Endpoint {
        let bearer = self.bearer;
        let receiver = Arc::new(self);
        let admits = move |head: &_| bearer.map_or(Ok(()), |secret| secret.expect_bearer(head));
        Endpoint::guarded_post(MEDIA_TYPE, ErrorFormat::SecurityEvent, admits, move |_, body| {
            let receiver = Arc::clone(&receiver);
            async move {
                let format = ErrorFormat::SecurityEvent;
                let Ok(token) = std::str::from_utf8(&body) else {
                    return format.invalid_request("the body is no token");
                };
                let outcome = receiver.receive(token.trim(), None).await;
                if let Some(error) = outcome.lasting_error() {
                    warn_of_lasting(error);
                }
                match outcome {
                    Received::Done => Answer::empty(StatusCode::ACCEPTED),
                    Received::Refused { code, description } => {
                        format.bad_request(code, description)
                    }
                    Received::Unconfirmed(_) => Answer::unavailable(),
                }
            }
            .boxed()
        })
    }

    /// Whether there is a transmitter whose events are taken.
    #[cfg(feature = "jwks")]
    pub(super) fn has_transmitters(&self) -> bool {
        !self.transmitters.is_empty()
    }

    /// Carries out a token that was pushed, or that a transmitter has given out under `listed_as`.
    pub(super) async fn receive(&self, token: &str, listed_as: Option<&str>) -> Received {
        let refused = |code, description| Received::Refused { code, description };
        let (token, events) = match self.verify(token) {
            Ok(verified) => verified,
            Err(error) => {
                let code = match error.kind() {
                    TokenErrorKind::NoKeys => return Received::Unconfirmed(None),
                    TokenErrorKind::WrongIssuer => "invalid_issuer",
                    TokenErrorKind::WrongAudience => "invalid_audience",
                    TokenErrorKind::UnknownKey | TokenErrorKind::WrongAlgorithm => INVALID_KEY,
                    TokenErrorKind::BadSignature => "authentication_failed",
                    _ => "invalid_request",
                };
                return refused(code, describe(&error));
            }
        };
        // RFC 8936 §2.3: it is acknowledged by that name.
        if listed_as.is_some_and(|name| *name != *token.id) {
            return refused("invalid_request", "the token has another `jti` than it is listed by");
        }
        match self.carry_out(&token, events).await {
            Ok(()) => Received::Done,
            Err(EventFailure::Revocation(error))
                if error.kind() == StoreErrorKind::InvalidInput =>
            {
                refused("invalid_request", "an id is empty, too long or of an unknown issuer")
            }
            Err(EventFailure::Revocation(error) | EventFailure::Effect(error)) => {
                tracing::debug!(error = %error.chain(), "an event is not acknowledged");
                Received::Unconfirmed(Some(error))
            }
        }
    }

    async fn carry_out(
        &self,
        token: &EventToken<'_>,
        events: Vec<Reported>,
    ) -> Result<(), EventFailure> {
        let (issuer, id) = (&*token.issuer, &*token.id);
        if self.guard.is_seen(NAMESPACE, issuer, id).await? {
            return Ok(());
        }
        for (subject, until) in events.iter().filter_map(|event| event.revokes.as_ref()) {
            let outcome = self.subjects.revoke(subject, *until, REASON).await?;
            tracing::debug!(?outcome, "a security event was carried out");
        }
        if let Some(effect) = &self.effect {
            for event in events {
                effect(self.security_event(token, event)).await.map_err(EventFailure::Effect)?;
            }
        }
        Ok(self.guard.mark(NAMESPACE, issuer, id, REMEMBERED_FOR).await.map(drop)?)
    }

    fn security_event(&self, token: &EventToken<'_>, event: Reported) -> SecurityEvent {
        let Reported { event_type, happened_at, .. } = event;
        let details = token.claims.get("events").and_then(|events| events.get(&*event_type));
        let details = details.cloned().unwrap_or_default();
        let subject = token.claims.get("sub_id").or_else(|| details.get("subject")).cloned();
        SecurityEvent {
            issuer: token.issuer.clone(),
            id: token.id.clone(),
            event_type,
            subject,
            details,
            happened_at,
            until: until(happened_at, token.provider.profile().now()),
            subjects: Arc::clone(&self.subjects),
        }
    }

    fn verify(&self, token: &str) -> Result<(EventToken<'_>, Vec<Reported>), TokenError> {
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
        let mut reported = Vec::new();
        for (event_type, event) in events {
            let event = event.as_object().ok_or_else(|| odd("events"))?;
            let happened_at = time(event, "event_timestamp");
            let effect = EventEffect::of(event_type, event);
            let revokes = match effect {
                None => None,
                Some(effect) => {
                    // In events of before SSF 1.0 the subject is inside.
                    let subject = token.claims.get("sub_id").or_else(|| event.get("subject"));
                    let subject = subject.ok_or_else(|| missing("sub_id"))?;
                    let subject = Subject::parse(subject).ok_or_else(|| odd("sub_id"))?;
                    let happened_at = happened_at.clone()?.unwrap_or(issued_at);
                    let is_token = matches!(subject, Subject::Token { .. });
                    (effect == EventEffect::Revoked || is_token)
                        .then(|| (subject, until(happened_at, now)))
                }
            };
            reported.push(Reported {
                event_type: event_type.as_str().into(),
                revokes,
                // What it is of an event without an effect is no reason to refuse it.
                happened_at: happened_at.ok().flatten().unwrap_or(issued_at),
            });
        }
        Ok((token, reported))
    }
}

/// That needs somebody: until then the transmitter sends it in vain.
pub(super) fn warn_of_lasting(error: &StoreError) {
    tracing::warn!(error = %error.chain(), "a security event cannot be carried out, however often \
        it comes, and is not acknowledged");
}

/// Up to when what an event ends was issued; none for all so far. A time in whole seconds stands
/// for all of its second.
fn until(happened_at: Timestamp, now: Timestamp) -> Option<Timestamp> {
    let until = happened_at.as_secs().saturating_mul(1000).saturating_add(999);
    Some(Timestamp::from_millis(until)).filter(|until| *until < now)
}

impl SecurityEvent {
    /// The transmitter that has reported it: the `iss` of its token.
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// The `jti` of its token.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Its type, a URI such as
    /// `https://schemas.openid.net/secevent/caep/event-type/device-compliance-change`.
    pub fn event_type(&self) -> &str {
        &self.event_type
    }

    /// Its subject: a subject identifier (RFC 9493), as it was sent. That of a verification names
    /// the stream, and events of other specifications may have none.
    pub fn subject(&self) -> Option<&Value> {
        self.subject.as_ref()
    }

    /// Its other contents: a JSON object, with members such as `current_status`.
    pub fn details(&self) -> &Value {
        &self.details
    }

    /// When it happened: its `event_timestamp`, or the `iat` of its token.
    pub fn happened_at(&self) -> Timestamp {
        self.happened_at
    }

    /// Revokes all of its subject that was issued until it [happened](Self::happened_at), but never
    /// later than now, as a `session-revoked` does. Returns false if there is nothing to revoke:
    /// the subject is none of ours, is not understood, or is malformed.
    ///
    /// # Errors
    /// [`StoreError`] if the revocation was not confirmed. It may be repeated.
    pub async fn revoke_subject(&self) -> Result<bool, StoreError> {
        let Some(subject) = self.subject.as_ref().and_then(Subject::parse) else {
            return Ok(false);
        };
        let outcome = self.subjects.revoke(&subject, self.until, REASON).await?;
        Ok(outcome == SubjectOutcome::Revoked)
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

impl fmt::Debug for SecurityEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SecurityEvent")
            .field("issuer", &self.issuer)
            .field("event_type", &self.event_type)
            .field("happened_at", &self.happened_at)
            .finish_non_exhaustive()
    }
}
