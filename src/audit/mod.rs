//! What happened, for those who are asked later: events, and the sinks they go to.
//!
//! A sink is told and never asked: [`AuditSink::record`] returns at once, and what a slow or dead
//! sink loses is counted, not waited for. Events hold ids, which may be personal data, and never a
//! token: an id that looks like one is blotted out.
//!
//! An event says how it ended. If nobody waited for the end, because a client hung up or a time
//! limit was over, it is told as failed: what was begun may have been done all the same.

mod pending;
#[cfg(feature = "redis")]
mod redis;

use std::borrow::Cow;
use std::fmt;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, SyncSender, TrySendError};
use std::time::Duration;

use serde::ser::SerializeMap as _;
use serde::{Serialize, Serializer};

pub(crate) use self::pending::Pending;
#[cfg(feature = "redis")]
pub use self::redis::{DEFAULT_MAX_PER_USER, DEFAULT_RETENTION, RedisSink};
use crate::clock::{Clock as _, SystemClock, Timestamp};
use crate::revocation::{Action, Revocation, Target, TargetKind};
use crate::store::StoreError;
use crate::verified::VerifiedToken;

/// Longest text in an event, in bytes; what is longer is cut.
const MAX_TEXT: usize = 1024;

/// How many events a sink with a queue holds before it loses the next.
pub const QUEUE_LENGTH: usize = 4096;

/// Takes in events.
///
/// `record` is called on the request path: it must neither block nor panic. Whatever is slow
/// belongs behind a queue.
pub trait AuditSink: Send + Sync + 'static {
    /// Takes in one event, or loses it and counts that.
    fn record(&self, event: &AuditEvent);

    /// How many events were lost so far.
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

/// What kind of thing happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum AuditKind {
    /// A session and its family were begun.
    Login,
    /// A refresh token was presented.
    Refresh,
    /// A used refresh token was presented: its family ends, unless reuse is only reported.
    RefreshReuse,
    /// Something was revoked.
    Revoke(TargetKind),
    /// Something was accepted again.
    Reinstate(TargetKind),
    /// A request passed although the store could not be asked.
    UncheckedAdmit,
    /// A request with a revoked token was refused.
    RevokedRefused,
}

impl AuditKind {
    /// The name of the event, as it is written.
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
            Self::UncheckedAdmit => "unchecked_admit",
            Self::RevokedRefused => "revoked_refused",
        }
    }
}

impl fmt::Display for AuditKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One thing that happened. As JSON, an object with the fields `ts` (RFC 3339), `event`, `outcome`
/// (`ok` or `error`) and those of `sub`, `jti`, `session_id`, `family_id`, `device_id`,
/// `client_id`, `id`, `reason`, `actor` and `error` that are known.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "an event that is not recorded did not happen"]
pub struct AuditEvent {
    at: Timestamp,
    kind: AuditKind,
    failed: bool,
    /// In the order in which they are written.
    fields: Vec<(&'static str, Box<str>)>,
}

impl AuditEvent {
    /// Something that happened now.
    pub fn new(kind: AuditKind) -> Self {
        Self { at: SystemClock.now(), kind, failed: false, fields: Vec::new() }
    }

    /// Something that happened to a request with this token.
    pub(crate) fn of_token(kind: AuditKind, token: &VerifiedToken) -> Self {
        Self::new(kind).about_token(token)
    }

    /// The same event with all that a token names.
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

    /// The event of a change that was asked for.
    pub(crate) fn of_change(change: &Revocation) -> Self {
        let kind = change.target.kind();
        let event = Self::new(match change.action {
            Action::Revoke(_) => AuditKind::Revoke(kind),
            Action::Reinstate => AuditKind::Reinstate(kind),
        });
        event
            .with_target(&change.target)
            .with("reason", change.reason.as_deref())
            .with("actor", change.actor.as_deref())
    }

    /// The same event, of another kind.
    #[cfg(feature = "sessions")]
    pub(crate) fn of_kind(self, kind: AuditKind) -> Self {
        Self { kind, ..self }
    }

    /// The same event with all that the other one tells beside.
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
        self.with(field, Some(target.id()))
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

    pub(crate) fn with_error(self, error: &StoreError) -> Self {
        self.with("error", Some(&error.chain().to_string()))
    }

    /// The same event, refused or failed.
    pub fn failed(mut self) -> Self {
        self.failed = true;
        self
    }

    /// When it happened, by the clock of this process.
    pub fn at(&self) -> Timestamp {
        self.at
    }

    /// What kind of thing happened.
    pub fn kind(&self) -> AuditKind {
        self.kind
    }

    /// Whether it was refused or failed.
    pub fn is_failed(&self) -> bool {
        self.failed
    }

    /// A field by its name in the JSON form.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(known, _)| *known == name).map(|(_, text)| &**text)
    }

    /// What is said twice is written once.
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
        let mut map = serializer.serialize_map(Some(self.fields.len() + 3))?;
        map.serialize_entry("ts", &rfc3339(self.at))?;
        map.serialize_entry("event", self.kind.as_str())?;
        map.serialize_entry("outcome", self.outcome())?;
        for (field, text) in &self.fields {
            map.serialize_entry(field, text)?;
        }
        map.end()
    }
}

/// The text as it may stand in a log: not a token that someone gave for an id, and not endless.
fn presentable(text: &str) -> Cow<'_, str> {
    let is_word = |part: &str| {
        part.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    let parts: Vec<_> = text.split('.').collect();
    let is_token = match parts.as_slice() {
        // A refresh token of ours, or anything with as long a secret in it.
        [family, secret] => is_word(family) && is_word(secret) && secret.len() >= 40,
        // A JWS (RFC 7515 §7.1), or a JWE (RFC 7516 §7.1): `{"` in base64url.
        [header, ..] => parts.len() >= 3 && header.starts_with("ey"),
        [] => false,
    };
    if is_token {
        return Cow::Borrowed("[a token]");
    }
    let mut end = text.len().min(MAX_TEXT);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    Cow::Borrowed(text.get(..end).unwrap_or_default())
}

/// RFC 3339 in UTC with milliseconds, after Howard Hinnant's `civil_from_days`.
fn rfc3339(at: Timestamp) -> String {
    let (days, secs) = (at.as_secs() / 86_400, at.as_secs() % 86_400);
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second, milli) =
        (secs / 3600, secs / 60 % 60, secs % 60, at.as_millis() % 1000);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{milli:03}Z")
}

// === Sinks ===

/// Writes events with [`tracing`], at level `INFO` and under the target
/// `tower_jwt_revocation::audit`.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct TracingSink;

impl AuditSink for TracingSink {
    fn record(&self, event: &AuditEvent) {
        tracing::info!(
            target: "tower_jwt_revocation::audit",
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
        );
    }
}

/// Writes events as JSON, one object per line, on a thread of its own behind a queue of
/// [`QUEUE_LENGTH`].
///
/// Clones share the queue. When the last one is dropped the thread writes what is left and ends; a
/// program that exits right away calls [`flush`](Self::flush) first.
#[derive(Clone)]
pub struct JsonLinesSink {
    queue: SyncSender<Message>,
    lost: Arc<AtomicU64>,
}

enum Message {
    Event(AuditEvent),
    Flush(SyncSender<()>),
}

impl JsonLinesSink {
    /// Appends to a file, which is made if need be.
    ///
    /// # Errors
    /// If the file cannot be opened, or no thread can be started.
    pub fn append_to(path: impl AsRef<Path>) -> io::Result<Self> {
        Self::new(OpenOptions::new().append(true).create(true).open(path)?)
    }

    /// Writes to anything.
    ///
    /// # Errors
    /// If no thread can be started.
    pub fn new(writer: impl Write + Send + 'static) -> io::Result<Self> {
        let (queue, events) = mpsc::sync_channel(QUEUE_LENGTH);
        let lost = Arc::new(AtomicU64::new(0));
        let lost_in_writing = Arc::clone(&lost);
        let write = move || write_lines(writer, &events, &lost_in_writing);
        std::thread::Builder::new().name("audit".into()).spawn(write)?;
        Ok(Self { queue, lost })
    }

    /// Waits until everything recorded so far is written, at most for `limit`. Blocks the thread.
    /// Whether it is.
    #[must_use]
    pub fn flush(&self, limit: Duration) -> bool {
        const NAP: Duration = Duration::from_millis(1);
        let (done, is_done) = mpsc::sync_channel(1);
        let (mut message, mut left) = (Message::Flush(done), limit);
        loop {
            match self.queue.try_send(message) {
                Ok(()) => return is_done.recv_timeout(left).is_ok(),
                // Nothing waits for room in a queue until a certain time.
                Err(TrySendError::Full(same)) if !left.is_zero() => message = same,
                Err(_) => return false,
            }
            std::thread::sleep(NAP.min(left));
            left = left.saturating_sub(NAP);
        }
    }
}

fn write_lines(mut writer: impl Write, events: &mpsc::Receiver<Message>, lost: &AtomicU64) {
    let mut is_torn = false;
    while let Ok(message) = events.recv() {
        match message {
            Message::Event(event) => {
                // One write per line: in a file that is appended to, lines of several processes do
                // not mix. What may be left of a line that failed must not take the next one with
                // it.
                let mut line = if is_torn { vec![b'\n'] } else { Vec::new() };
                line.extend(serde_json::to_vec(&event).unwrap_or_default());
                line.push(b'\n');
                is_torn = writer.write_all(&line).and_then(|()| writer.flush()).is_err();
                lost.fetch_add(u64::from(is_torn), Ordering::Relaxed);
            }
            // Nobody minds if the one who waited has gone.
            Message::Flush(done) => drop(done.try_send(())),
        }
    }
}

impl AuditSink for JsonLinesSink {
    fn record(&self, event: &AuditEvent) {
        match self.queue.try_send(Message::Event(event.clone())) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                self.lost.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }
}

impl fmt::Debug for JsonLinesSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JsonLinesSink").field("lost", &self.lost()).finish_non_exhaustive()
    }
}

/// Passes on one in `n` refusals of revoked tokens, and everything else: a client that keeps trying
/// must not fill the log.
#[derive(Debug)]
pub struct SampledSink<S> {
    inner: S,
    one_in: u64,
    refusals: AtomicU64,
}

impl<S: AuditSink> SampledSink<S> {
    /// Passes on the first refusal and then every `one_in`-th; zero passes on none.
    pub fn new(inner: S, one_in: u64) -> Self {
        Self { inner, one_in, refusals: AtomicU64::new(0) }
    }
}

impl<S: AuditSink> AuditSink for SampledSink<S> {
    fn record(&self, event: &AuditEvent) {
        if event.kind == AuditKind::RevokedRefused {
            let count = self.refusals.fetch_add(1, Ordering::Relaxed);
            if count.checked_rem(self.one_in) != Some(0) {
                return;
            }
        }
        self.inner.record(event);
    }

    fn lost(&self) -> u64 {
        self.inner.lost()
    }
}

#[cfg(test)]
mod tests;
