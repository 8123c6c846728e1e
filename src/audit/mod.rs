//! Audit events: what was revoked, refreshed or refused, and the sinks that keep the events.
//!
//! A layer and a revoker send each event to one [`AuditSink`]; see
//! [`JwtRevocationLayer::with_audit`](crate::JwtRevocationLayer::with_audit) and
//! [`Revoker::with_audit`](crate::Revoker::with_audit). [`AuditSink::record`] returns at once. A
//! slow or dead sink loses events and counts them ([`AuditSink::lost`]); no request waits for it.
//! Events contain ids, which may be personal data, and never a token: text that looks like a token
//! is replaced.
//!
//! An event says how the operation ended. If nobody waited for the end, because a client hung up or
//! a time limit was over, it says `error`: the operation may have been done nevertheless.
//!
//! # Where events can go
//!
//! | sink | use |
//! | --- | --- |
//! | [`TracingSink`] | `tracing` events, for any subscriber |
//! | [`RedisAuditSink`](crate::store::redis::RedisAuditSink) | events in Redis by user, for all processes (feature `redis`) |
//! | one of your own | see below |
//!
//! # To a file, through tracing
//!
//! `tracing-appender` writes on a thread of its own, behind a bounded queue, and rotates files:
//!
//! ```
//! use tower_jwt_revocation::audit::TracingSink;
//! use tracing_subscriber::filter::Targets;
//! use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
//!
//! # let folder = std::env::temp_dir().join(format!("audit-doc-{}", std::process::id()));
//! let file = tracing_appender::rolling::daily(&folder, "audit.log");
//! let (writer, guard) = tracing_appender::non_blocking(file); // drop the guard last: it flushes
//! let lost = writer.error_counter(); // `lost.dropped_lines()`, for your metrics
//! let audit = tracing_subscriber::fmt::layer()
//!     .with_ansi(false)
//!     .with_writer(writer)
//!     .with_filter(Targets::new().with_target(TracingSink::TARGET, tracing::Level::INFO));
//! let subscriber = tracing_subscriber::registry().with(audit); // and your layers for other logs
//! # drop(guard);
//! # std::fs::remove_dir_all(folder).unwrap();
//! # drop((subscriber, lost));
//! ```
//!
//! # To a file, as lines of JSON
//!
//! [`AuditEvent`] implements [`Serialize`], so a sink takes ten lines. This one has a bounded
//! queue, and counts the events that it loses:
//!
//! ```
//! use std::io::Write as _;
//! use tower_jwt_revocation::audit::{AuditEvent, AuditSink};
//! # use tower_jwt_revocation::{MemoryStore, Revoker, Target, TokenProfile};
//! use tracing_appender::non_blocking::{NonBlocking, NonBlockingBuilder};
//!
//! struct JsonLines(NonBlocking);
//!
//! impl AuditSink for JsonLines {
//!     fn record(&self, event: &AuditEvent) {
//!         let mut line = serde_json::to_vec(event).unwrap_or_default();
//!         line.push(b'\n');
//!         let _counted_if_it_was_lost = self.0.clone().write_all(&line);
//!     }
//!
//!     fn lost(&self) -> u64 {
//!         self.0.error_counter().dropped_lines() as u64
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let path = std::env::temp_dir().join(format!("audit-doc-{}.log", std::process::id()));
//! let file = std::fs::OpenOptions::new().append(true).create(true).open(&path)?;
//! let (queue, guard) = NonBlockingBuilder::default().buffered_lines_limit(4096).finish(file);
//! let revoker = Revoker::new(MemoryStore::new(), TokenProfile::new())?;
//! let revoker = revoker.with_audit(JsonLines(queue));
//! revoker.revoke(Target::user("alice")).await?;
//! drop(guard); // at the end of the program: waits until the queue is written, at most 1.1 s
//! # let text = std::fs::read_to_string(&path)?;
//! # std::fs::remove_file(path)?;
//! # assert!(text.contains(r#""event":"revoke_user","outcome":"ok","sub":"alice"}"#), "{text}");
//! # Ok(()) }
//! ```
//!
//! # What clients bring about
//!
//! A client that keeps trying with a revoked token, or an outage in fail mode open, makes an event
//! with each request ([`AuditKind::RevokedRefused`], [`AuditKind::UncheckedAdmit`]). A layer
//! reports the first event of a token at once, and those of the next ten seconds as one event with
//! their number ([`AuditEvent::count`]). With more than 256 tokens in that time, it reports only
//! the number for the rest. So they never displace revocations and logins in the queue of a sink.
//! [`RedisAuditSink`](crate::store::redis::RedisAuditSink) also keeps them in a queue of their own.
//!
//! # Fields and events of your own
//!
//! [`with_audit_facts`](crate::JwtRevocationLayer::with_audit_facts) adds fields from the request
//! to the events of a layer, and [`RevokeRequest::fact`](crate::revoker::RevokeRequest::fact) adds
//! one to the event of a revocation. Send events of your own to the same sink:
//!
//! ```
//! # use tower_jwt_revocation::audit::{AuditEvent, AuditKind, AuditSink, TracingSink};
//! # let sink = TracingSink::default();
//! const PASSWORD_CHANGED: AuditKind = AuditKind::Custom("password_changed");
//!
//! let event = AuditEvent::new(PASSWORD_CHANGED).with_subject(Some("alice"));
//! sink.record(&event.with_field("method", Some("by email")));
//! ```

mod counts;
mod pending;
mod repeated;

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use serde::ser::SerializeMap as _;
use serde::{Serialize, Serializer};

pub(crate) use self::counts::{AuditCounts, AuditTrail};
pub(crate) use self::pending::Pending;
pub(crate) use self::repeated::RepeatedEvents;
use crate::clock::{Clock as _, SystemClock, Timestamp};
use crate::revocation::{Action, Extent, Revocation, Target, TargetKind};
use crate::verified::VerifiedToken;

/// Longest text in an event, in bytes; what is longer is cut.
const MAX_TEXT: usize = 1024;

/// The last millisecond that RFC 3339 can write: the end of the year 9999.
const LAST_DATE: Timestamp = Timestamp::from_millis(253_402_300_799_999);

/// Up to when the tokens were issued that a revocation covers, if that was said.
const ISSUED_UNTIL: &str = "issued_until";

/// The fields that are not text, so that no other field may have their names.
const OWN_FIELDS: [&str; 5] = ["ts", "event", "outcome", "count", "since"];

/// The fields that [`TracingSink`] has by name.
const NAMED_FIELDS: [&str; 10] = [
    "sub",
    "jti",
    "session_id",
    "family_id",
    "device_id",
    "client_id",
    "id",
    "reason",
    "actor",
    "error",
];

/// Keeps audit events, or passes them on.
///
/// # Security
/// [`record`](Self::record) is called on the request path: it must neither block nor panic. A sink
/// that writes to a disk or a network needs a bounded queue in between.
#[doc(alias = "audit log")]
pub trait AuditSink: Send + Sync + 'static {
    /// Takes one event. A sink that cannot keep it drops it, and counts that in
    /// [`lost`](Self::lost).
    fn record(&self, event: &AuditEvent);

    /// How many events the sink has dropped since it was made. Default: 0, for sinks that drop
    /// none.
    fn lost(&self) -> u64 {
        0
    }
}

impl<S: AuditSink + ?Sized> AuditSink for Arc<S> {
    fn record(&self, event: &AuditEvent) {
        (**self).record(event);
    }

    fn lost(&self) -> u64 {
        (**self).lost()
    }
}

/// Several sinks, each of which gets every event.
impl<S: AuditSink> AuditSink for Vec<S> {
    fn record(&self, event: &AuditEvent) {
        for sink in self {
            sink.record(event);
        }
    }

    fn lost(&self) -> u64 {
        self.iter().map(AuditSink::lost).sum()
    }
}

/// The kind of an [`AuditEvent`]: its field `event`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum AuditKind {
    /// A session and its family were begun.
    Login,
    /// A refresh token was presented.
    Refresh,
    /// A used refresh token was presented. Its family ends, unless reuse is only reported.
    RefreshReuse,
    /// Something was revoked.
    Revoke(TargetKind),
    /// Something was accepted again.
    Reinstate(TargetKind),
    /// An operator has declared that revocations were lost, see
    /// `RedisStore::declare_doubt`.
    DeclareDoubt,
    /// An operator accepts tokens that were in doubt, see `RedisStore::accept_tokens_in_doubt`.
    AcceptDoubt,
    /// A request passed although the store could not be asked.
    UncheckedAdmit,
    /// A request with a revoked token was refused.
    RevokedRefused,
    /// An event of the application, with a name in `snake_case` that is none of the above.
    Custom(&'static str),
}

impl AuditKind {
    /// The name of the event, as it is serialized.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Login => "login",
            Self::Refresh => "refresh",
            Self::RefreshReuse => "refresh_reuse",
            Self::Revoke(TargetKind::Token | TargetKind::SigningInput) => "revoke_token",
            Self::Revoke(TargetKind::Session) => "revoke_session",
            Self::Revoke(TargetKind::Device) => "revoke_device",
            Self::Revoke(TargetKind::Family) => "revoke_family",
            Self::Revoke(TargetKind::User) => "revoke_user",
            Self::Revoke(TargetKind::Client) => "revoke_client",
            Self::Revoke(TargetKind::Key) => "revoke_key",
            Self::Revoke(TargetKind::Issuer) => "revoke_issuer",
            Self::Revoke(TargetKind::Claim) => "revoke_claim",
            Self::Reinstate(_) => "reinstate",
            Self::DeclareDoubt => "declare_doubt",
            Self::AcceptDoubt => "accept_doubt",
            Self::UncheckedAdmit => "unchecked_admit",
            Self::RevokedRefused => "revoked_refused",
            Self::Custom(name) => name,
        }
    }

    /// Whether requests bring it about, as often as they like.
    #[cfg(feature = "redis")]
    pub(crate) const fn is_of_requests(self) -> bool {
        matches!(self, Self::UncheckedAdmit | Self::RevokedRefused)
    }

    /// Whether its events have the outcome `error`.
    pub(crate) const fn is_failure(self) -> bool {
        matches!(self, Self::RevokedRefused)
    }
}

impl fmt::Display for AuditKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One event of the audit.
///
/// Serialized, it is a flat object. These names and values are stable; new ones may be added.
///
/// | field | value |
/// | --- | --- |
/// | `ts` | when, by the clock of this process: RFC 3339 in UTC with milliseconds |
/// | `event` | [`AuditKind::as_str`] |
/// | `outcome` | `ok`, or `error` if it was refused, failed, or nobody waited for its end |
/// | `sub`, `jti`, `session_id`, `family_id`, `device_id`, `client_id` | the ids of the user, the access token, …; each only if it is known |
/// | `id` | the id of another target: a key, an issuer, a claim, a signing input |
/// | `iss` | the issuer of the revoked id, if the revocation names one |
/// | `reason`, `actor` | those of the revocation, or why something was refused |
/// | `sparing` | the session that a revocation spares |
/// | `issued_until` | the time of issue up to which a revocation covers tokens, as `ts`, if it has one ([`Extent::IssuedUntil`]) |
/// | `error` | why it failed |
/// | `count`, `since` | if the event stands for several: how many, and when the first was, as `ts` |
/// | others | fields that [`with_field`](Self::with_field) has added |
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "an event has to be given to a sink"]
pub struct AuditEvent {
    at: Timestamp,
    kind: AuditKind,
    failed: bool,
    /// How many it stands for, and since when, if it is not one.
    repeated: Option<(u64, Timestamp)>,
    /// In the order in which they are serialized.
    fields: Vec<(&'static str, Box<str>)>,
}

impl AuditEvent {
    /// Stands for a token that someone gave for an id.
    pub(crate) const TOKEN: &str = "[a token]";

    /// An event that happened now, with the outcome `ok` and no ids.
    pub fn new(kind: AuditKind) -> Self {
        Self { at: SystemClock.now(), kind, failed: false, repeated: None, fields: Vec::new() }
    }

    /// An event about a request with this token.
    pub(crate) fn of_token(kind: AuditKind, token: &VerifiedToken) -> Self {
        Self::new(kind).about_token(token)
    }

    /// The same event with all ids that a token has.
    pub(crate) fn about_token(self, token: &VerifiedToken) -> Self {
        let mut event = self.with_subject(token.subject()).with_token_id(token.id());
        for (field, kind) in [
            ("session_id", TargetKind::Session),
            ("family_id", TargetKind::Family),
            ("device_id", TargetKind::Device),
            ("client_id", TargetKind::Client),
        ] {
            event = event.with(field, token.target(kind).as_ref().map(Target::id));
        }
        event
    }

    /// The event of a revocation or reinstatement that was requested.
    pub(crate) fn of_change(change: &Revocation) -> Self {
        let kind = change.target.kind();
        let event = Self::new(match change.action {
            Action::Revoke(_) => AuditKind::Revoke(kind),
            Action::Reinstate => AuditKind::Reinstate(kind),
        });
        let issued_until = match change.action {
            Action::Revoke(Extent::IssuedUntil(cutoff)) => Some(rfc3339(cutoff)),
            _ => None,
        };
        event
            .with_target(&change.target)
            .with("reason", change.reason.as_deref())
            .with("actor", change.actor.as_deref())
            .with("sparing", change.sparing.as_ref().map(Target::id))
            .with(ISSUED_UNTIL, issued_until.as_deref())
    }

    /// The same event, of another kind.
    #[cfg(feature = "sessions")]
    pub(crate) fn of_kind(self, kind: AuditKind) -> Self {
        Self { kind, ..self }
    }

    /// The same event with the fields that only the other one has.
    pub(crate) fn and(mut self, other: Option<Self>) -> Self {
        for (field, text) in other.into_iter().flat_map(|other| other.fields) {
            self = self.with(field, Some(&text));
        }
        self
    }

    /// The same event with the id of a target.
    pub fn with_target(self, target: &Target) -> Self {
        let field = match target.kind() {
            TargetKind::Token => "jti",
            TargetKind::Session => "session_id",
            TargetKind::Device => "device_id",
            TargetKind::Family => "family_id",
            TargetKind::User => "sub",
            TargetKind::Client => "client_id",
            TargetKind::SigningInput | TargetKind::Key | TargetKind::Issuer | TargetKind::Claim => {
                "id"
            }
        };
        self.with(field, Some(target.id())).with("iss", target.issuer_name())
    }

    /// The same event with the user it is about.
    pub fn with_subject(self, subject: Option<&str>) -> Self {
        self.with("sub", subject)
    }

    /// The same event with the id of a token; never the token itself.
    pub fn with_token_id(self, jti: Option<&str>) -> Self {
        self.with("jti", jti)
    }

    /// The same event with a session.
    pub fn with_session(self, session: Option<&str>) -> Self {
        self.with("session_id", session)
    }

    /// The same event with a family of refresh tokens.
    pub fn with_family(self, family: Option<&str>) -> Self {
        self.with("family_id", family)
    }

    /// The same event with a device.
    pub fn with_device(self, device: Option<&str>) -> Self {
        self.with("device_id", device)
    }

    /// The same event with the OAuth client.
    pub fn with_client(self, client: Option<&str>) -> Self {
        self.with("client_id", client)
    }

    /// The same event with the reason, for people.
    pub fn with_reason(self, reason: Option<&str>) -> Self {
        self.with("reason", reason)
    }

    /// The same event with who did it, for people.
    pub fn with_actor(self, actor: Option<&str>) -> Self {
        self.with("actor", actor)
    }

    pub(crate) fn with_error(self, error: &dyn fmt::Display) -> Self {
        self.with("error", Some(&error.to_string()))
    }

    /// The same event with the outcome `error`.
    pub fn failed(mut self) -> Self {
        self.failed = true;
        self
    }

    /// The same event with a field of your own, such as `method`, `path` or `peer`. The first value
    /// of a field counts; `ts`, `event`, `outcome`, `count` and `since` are taken, and left out.
    ///
    /// # Security
    /// Text that looks like a token is replaced, and long text is cut. Leave out whatever else must
    /// not be kept.
    pub fn with_field(self, name: &'static str, text: Option<&str>) -> Self {
        if OWN_FIELDS.contains(&name) { self } else { self.with(name, text) }
    }

    /// An event that stands for so many, of which the first was then. It is dated now.
    pub(crate) fn repeated(self, count: u64, since: Timestamp) -> Self {
        Self { at: SystemClock.now(), repeated: Some((count, since)), ..self }
    }

    /// How many events this one stands for: what requests [bring
    /// about](self#what-clients-bring-about) again and again is reported as one.
    pub fn count(&self) -> u64 {
        self.repeated.map_or(1, |(count, _)| count)
    }

    /// When it happened, by the clock of this process: the field `ts`.
    pub fn at(&self) -> Timestamp {
        self.at
    }

    /// Its kind: the field `event`.
    pub fn kind(&self) -> AuditKind {
        self.kind
    }

    /// Whether the outcome is `error`.
    pub fn is_failed(&self) -> bool {
        self.failed
    }

    /// A field by its serialized name, such as `sub`; `None` if it is absent, and for `ts`, `event`
    /// and `outcome`, which have methods of their own.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(known, _)| *known == name).map(|(_, text)| &**text)
    }

    /// Up to when the tokens were issued that were revoked, if that was said.
    #[cfg(feature = "endpoints")]
    pub(crate) fn issued_until(&self) -> Option<Timestamp> {
        let at = humantime::parse_rfc3339(self.field(ISSUED_UNTIL)?).ok()?;
        let since_epoch = at.duration_since(UNIX_EPOCH).unwrap_or_default();
        Some(Timestamp::from_millis(since_epoch.as_millis().try_into().unwrap_or(u64::MAX)))
    }

    /// The first value of a field counts.
    fn with(mut self, field: &'static str, text: Option<&str>) -> Self {
        if let Some(text) = text
            && self.field(field).is_none()
        {
            self.fields.push((field, presentable(text).into()));
        }
        self
    }

    const fn outcome(&self) -> &'static str {
        if self.failed { "error" } else { "ok" }
    }
}

impl Serialize for AuditEvent {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let repeated = if self.repeated.is_some() { 2 } else { 0 };
        let mut map = serializer.serialize_map(Some(self.fields.len() + 3 + repeated))?;
        map.serialize_entry("ts", &rfc3339(self.at))?;
        map.serialize_entry("event", self.kind.as_str())?;
        map.serialize_entry("outcome", self.outcome())?;
        for (field, text) in &self.fields {
            map.serialize_entry(field, text)?;
        }
        if let Some((count, since)) = self.repeated {
            map.serialize_entry("count", &count)?;
            map.serialize_entry("since", &rfc3339(since))?;
        }
        map.end()
    }
}

/// The text as it may stand in a log: not a token that someone gave for an id, and not endless.
fn presentable(text: &str) -> Cow<'_, str> {
    let is_word = |part: &str| {
        part.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    let is_token = text.split_once('.').is_some_and(|(head, rest)| {
        if rest.contains('.') {
            // A JWS (RFC 7515 §7.1), or a JWE (RFC 7516 §7.1): `{"` in base64url.
            head.starts_with("ey")
        } else {
            // A refresh token of ours, or anything with as long a secret in it.
            is_word(head) && is_word(rest) && rest.len() >= 40
        }
    });
    if is_token || holds_token(text) {
        return Cow::Borrowed(AuditEvent::TOKEN);
    }
    let mut end = text.len().min(MAX_TEXT);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    Cow::Borrowed(text.get(..end).unwrap_or_default())
}

/// Whether a token stands somewhere in words for people: a JWS or JWE, or a refresh token of ours.
pub(crate) fn holds_token(text: &str) -> bool {
    let is_of_part = |char: char| char.is_ascii_alphanumeric() || matches!(char, '-' | '_');
    text.match_indices('.').any(|(dot, _)| {
        let before = text.get(..dot).unwrap_or_default();
        let head = before.get(before.trim_end_matches(is_of_part).len()..).unwrap_or_default();
        let rest = || {
            let after = text.get(dot + 1..).unwrap_or_default();
            after.len() - after.trim_start_matches(is_of_part).len()
        };
        // An object in base64url (RFC 7515 §7.1, RFC 7516 §7.1): `{"alg":"none"}` at least.
        let is_header = head.len() > 15 && (head.starts_with("ey") || head.starts_with("ew"));
        // Or the id of a family and its secret, 16 and 53 bytes.
        is_header || head.len() == 22 && rest() == 71
    })
}

/// RFC 3339 in UTC with milliseconds, such as `2025-11-21T04:33:37.042Z`.
fn rfc3339(at: Timestamp) -> String {
    let at = UNIX_EPOCH + Duration::from_millis(at.min(LAST_DATE).as_millis());
    humantime::format_rfc3339_millis(at).to_string()
}

// === Sinks ===

/// An audit sink that sends events to [`tracing`], at level `INFO` and under the target
/// [`TracingSink::TARGET`]. The fields are those of the JSON form except `ts`, which the subscriber
/// adds. Fields of your own are in one field, `facts`, as `name=text`.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct TracingSink;

impl TracingSink {
    /// The target of the events, for the filters of a subscriber.
    pub const TARGET: &str = "tower_jwt_revocation::audit";
}

impl AuditSink for TracingSink {
    fn record(&self, event: &AuditEvent) {
        let is_fact = |(name, _): &&(&'static str, Box<str>)| !NAMED_FIELDS.contains(name);
        let facts =
            event.fields.iter().filter(is_fact).map(|(name, text)| format!("{name}={text}"));
        let facts = facts.collect::<Vec<_>>().join(" ");
        tracing::info!(
            target: TracingSink::TARGET,
            event = event.kind.as_str(),
            outcome = event.outcome(),
            sub = event.field("sub"),
            jti = event.field("jti"),
            session_id = event.field("session_id"),
            family_id = event.field("family_id"),
            device_id = event.field("device_id"),
            client_id = event.field("client_id"),
            id = event.field("id"),
            reason = event.field("reason"),
            actor = event.field("actor"),
            error = event.field("error"),
            count = event.repeated.map(|(count, _)| count),
            facts = Some(&*facts).filter(|facts| !facts.is_empty()),
        );
    }
}

#[cfg(test)]
mod tests;
