//! [`SecurityEventIssuer`]: makes and signs the tokens of events (RFC 8417), for those who give
//! them out.

use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value, json};

use crate::audit::{AuditEvent, AuditKind};
use crate::clock::{Clock, SystemClock};
use crate::config::ConfigError;
use crate::revocation::TargetKind;
use crate::token::issue::{IssueError, random_id};
use crate::token::jwt::SigningKey;

/// What CAEP 1.0 has in front of the names of its events.
const CAEP: &str = "https://schemas.openid.net/secevent/caep/event-type/";

/// Signs security events for a transmitter of the Shared Signals Framework 1.0: JWTs of type
/// `secevent+jwt` (RFC 8417), with `sub_id` (RFC 9493) and one event each, without `sub` and `exp`.
/// Your program sends them to a receiver, by push (RFC 8935) or poll (RFC 8936).
///
/// ```
/// use tower_jwt_revocation::audit::{AuditEvent, AuditKind};
/// use tower_jwt_revocation::endpoints::SecurityEventIssuer;
/// use tower_jwt_revocation::revocation::TargetKind;
/// use tower_jwt_revocation::token::jwt::SigningKey;
/// use tower_jwt_revocation::Algorithm;
///
/// # #[cfg(any(feature = "aws_lc_rs", feature = "rust_crypto"))] {
/// let key = SigningKey::from_secret(Algorithm::HS256, &[42; 32])?; // a private key, in practice
/// let events = SecurityEventIssuer::new(key, "https://id.example", "https://orders.example")?;
///
/// // In an `AuditSink`:
/// let audited = AuditEvent::new(AuditKind::Revoke(TargetKind::User)).with_subject(Some("alice"));
/// let token = events.issue_audited(&audited)?;
/// assert!(token.is_some());
/// # }
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
///
/// # Security
/// Receivers verify the signature with a public key: publish it with
/// [`Endpoint::jwks`](super::Endpoint::jwks). CAEP's interoperability profile requires RS256 with
/// at least 2048 bits.
#[doc(alias("SET", "security event token", "transmitter", "CAEP", "RFC 8417"))]
#[derive(Clone)]
pub struct SecurityEventIssuer {
    key: SigningKey,
    issuer: Box<str>,
    audience: Box<str>,
    subject_issuer: Box<str>,
    clock: Arc<dyn Clock>,
}

impl SecurityEventIssuer {
    /// An issuer of events that signs with `key` as `issuer`, for the receiver `audience`.
    ///
    /// # Errors
    /// [`ConfigError`] if one of the names is empty.
    pub fn new(
        key: SigningKey,
        issuer: impl Into<Box<str>>,
        audience: impl Into<Box<str>>,
    ) -> Result<Self, ConfigError> {
        let (issuer, audience) = (issuer.into(), audience.into());
        for (setting, name) in [("issuer", &issuer), ("audience", &audience)] {
            if name.is_empty() {
                return Err(ConfigError::new(setting, "is empty"));
            }
        }
        let (subject_issuer, clock) = (issuer.clone(), Arc::new(SystemClock));
        Ok(Self { key, issuer, audience, subject_issuer, clock })
    }

    /// The issuer of users and tokens in audit events that name none: the `iss` of your access
    /// tokens. Default: the issuer of the events.
    #[must_use]
    pub fn with_subject_issuer(mut self, issuer: impl Into<Box<str>>) -> Self {
        self.subject_issuer = issuer.into();
        self
    }

    /// Where the time comes from; default: the clock of the operating system.
    #[must_use]
    pub fn with_clock(mut self, clock: impl Clock) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// Makes the token of an event: `event` is its type, a URI; `subject` a subject identifier (RFC
    /// 9493); `details` a JSON object such as `{"event_timestamp":…}`. The token has a `jti` of its
    /// own.
    ///
    /// # Errors
    /// [`IssueError`] if subject or details are no JSON objects, if there is no randomness, or if
    /// the key does not sign.
    pub fn issue(
        &self,
        event_type: &str,
        subject: &Value,
        details: &Value,
    ) -> Result<String, IssueError> {
        if !subject.is_object() || !details.is_object() {
            let problem = "subject and details of an event have to be JSON objects";
            return Err(IssueError::Invalid(problem.into()));
        }
        let mut header = json!({ "alg": self.key.alg(), "typ": "secevent+jwt" });
        if let (Some(kid), Some(header)) = (self.key.kid(), header.as_object_mut()) {
            header.insert("kid".into(), kid.into());
        }
        let claims = json!({
            "iss": self.issuer,
            "aud": self.audience,
            "iat": self.clock.now().as_secs(),
            "jti": random_id()?,
            "sub_id": subject,
            "events": { event_type: details },
        });
        let encode = |json: &Value| URL_SAFE_NO_PAD.encode(json.to_string());
        let input = format!("{}.{}", encode(&header), encode(&claims));
        match self.key.sign(&input) {
            Some(signature) => Ok(format!("{input}.{signature}")),
            None => Err(IssueError::Crypto("the key does not sign")),
        }
    }

    /// Makes the token of the CAEP 1.0 event for an audit event. `None` if there is no such event,
    /// if the audit event has failed, and for a cutoff that spares a session, because the event
    /// would end that one too. What ends with it, such as by
    /// [`Sessions::end_all`](crate::session::Sessions::end_all), has events of its own.
    ///
    /// | audit event | event | subject |
    /// | --- | --- | --- |
    /// | a user was revoked | `session-revoked` | the user (`iss_sub`) |
    /// | a session was revoked, or a family of refresh tokens that has one | `session-revoked` | complex: `session`, and `user` if it is known |
    /// | a device was revoked | `session-revoked` | complex: `device`, and `user` if it is known |
    /// | a token was revoked | `session-revoked` | the token (`jwt_id`) |
    /// | a login | `session-established` | complex: `session` and `user` |
    ///
    /// Its `event_timestamp` is the time of the audit event, or the earlier one up to which a
    /// revocation reaches ([`Extent::IssuedUntil`](crate::Extent::IssuedUntil)), and `reason_admin`
    /// its reason. For `token-claims-change` and `credential-change` use [`issue`](Self::issue),
    /// because only the program knows the new claims or credentials.
    ///
    /// # Errors
    /// As [`issue`](Self::issue).
    pub fn issue_audited(&self, event: &AuditEvent) -> Result<Option<String>, IssueError> {
        let is_told = !event.is_failed() && event.field("sparing").is_none();
        let Some((name, subject)) = self.told(event).filter(|_| is_told) else {
            return Ok(None);
        };
        // A receiver ends what was issued until then.
        let at = event.issued_until().map_or(event.at(), |until| until.min(event.at()));
        let reason = event.field("reason").unwrap_or(event.kind().as_str());
        let details = json!({
            "event_timestamp": at.as_secs(),
            "reason_admin": { "en": reason },
        });
        self.issue(&format!("{CAEP}{name}"), &subject, &details).map(Some)
    }

    /// The name of the event, and its subject.
    fn told(&self, event: &AuditEvent) -> Option<(&'static str, Value)> {
        // What stands for a token that somebody gave as an id is the id of nobody.
        let id = |field| event.field(field).filter(|id| !id.is_empty() && *id != AuditEvent::TOKEN);
        let named_issuer = event.field("iss");
        let issuer = named_issuer.unwrap_or(&self.subject_issuer);
        let user = |user: &str| json!({ "format": "iss_sub", "iss": issuer, "sub": user });
        // An `opaque` one is of whoever reads it, which here is the issuer of the users.
        let part = |id: &str| match named_issuer {
            Some(issuer) => json!({ "format": "iss_sub", "iss": issuer, "sub": id }),
            None => json!({ "format": "opaque", "id": id }),
        };
        let complex = |name: &str, id: &str, sub: Option<&str>| {
            let mut subject = Map::new();
            subject.insert("format".into(), "complex".into());
            subject.insert(name.into(), part(id));
            if let Some(sub) = sub {
                subject.insert("user".into(), user(sub));
            }
            Value::from(subject)
        };
        let subject = match event.kind() {
            AuditKind::Login => {
                let subject = complex("session", id("session_id")?, Some(id("sub")?));
                return Some(("session-established", subject));
            }
            AuditKind::Revoke(TargetKind::User) => user(id("sub")?),
            AuditKind::Revoke(TargetKind::Session | TargetKind::Family) => {
                complex("session", id("session_id")?, id("sub"))
            }
            AuditKind::Revoke(TargetKind::Device) => complex("device", id("device_id")?, id("sub")),
            AuditKind::Revoke(TargetKind::Token) => {
                json!({ "format": "jwt_id", "iss": issuer, "jti": id("jti")? })
            }
            _ => return None,
        };
        Some(("session-revoked", subject))
    }
}

impl fmt::Debug for SecurityEventIssuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SecurityEventIssuer")
            .field("key", &self.key)
            .field("issuer", &self.issuer)
            .field("audience", &self.audience)
            .finish_non_exhaustive()
    }
}
