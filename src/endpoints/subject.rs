//! [`SubjectRevoker`]: whom an event is about (RFC 9493), and what of theirs is revoked.

use std::fmt;
use std::sync::Arc;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use serde_json::{Map, Value};

use super::answer::written;
use crate::clock::Timestamp;
use crate::revocation::{Extent, MAX_ID_BYTES, Target, TargetKind};
use crate::revoker::Revoker;
use crate::session::Sessions;
use crate::store::StoreError;

/// Revokes what belongs to a subject (RFC 9493), for [`EventReceiver`](super::EventReceiver) and
/// [`Endpoint::global_token_revocation`](super::Endpoint::global_token_revocation).
///
/// | subject | revoked |
/// | --- | --- |
/// | `iss_sub` | what that issuer has issued to that user; nothing, if the revoker does not know the issuer |
/// | `opaque` | what the own issuer has issued to the user with this id |
/// | `jwt_id` | that token |
/// | complex, with a `session` | that session, unless it is known to be of another `user` or on another `device` |
/// | complex, with a `device` | the sessions on that device, of that `user` if one is named |
/// | complex, with a `user` alone | as the user |
/// | `aliases` | as each of them |
/// | any other | nothing, unless [`with_resolver`](Self::with_resolver) knows it |
///
/// User and device of a session are known only for the [own sessions](Self::with_sessions). Any
/// other session, of another issuer or of tokens that other programs sign, ends without a check of
/// the `user`: otherwise its tokens would still be accepted, and its id names no other session. A
/// `device` with a `user` outside of the own sessions has no effect, because it would end
/// everything of the user, or sessions of others on the device.
///
/// The own issuer is the one of targets that name none, see [`Revoker::with_default_issuer`]. Other
/// members of a complex subject, such as `tenant`, are ignored, unless they are
/// [critical](Self::with_critical_members).
#[derive(Clone)]
pub struct SubjectRevoker {
    revoker: Revoker,
    sessions: Option<Sessions>,
    own_names: Vec<Box<str>>,
    critical: Vec<Box<str>>,
    resolver: Option<Arc<Resolver>>,
}

type Resolver =
    dyn Fn(&Value) -> BoxFuture<'static, Result<Option<Target>, StoreError>> + Send + Sync;

/// A subject identifier, as far as it is understood.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Subject {
    /// Of the own issuer, if none is named.
    Id {
        issuer: Option<Box<str>>,
        id: Box<str>,
    },
    Token {
        issuer: Box<str>,
        id: Box<str>,
    },
    Complex {
        user: Option<Box<Subject>>,
        session: Option<Box<Subject>>,
        device: Option<Box<Subject>>,
        /// The names of its other members, which have no meaning here.
        others: Vec<Box<str>>,
    },
    Aliases(Vec<Subject>),
    /// Of a format that has no meaning here by itself.
    Other(Value),
}

/// What became of a subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum SubjectOutcome {
    /// Its format has no meaning here.
    NotUnderstood,
    /// It is none of ours.
    Unknown,
    Revoked,
}

/// Whose an id is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owner<'a> {
    Own,
    Named(&'a str),
}

impl Subject {
    /// Reads a subject identifier; `None` if it is malformed.
    pub(super) fn parse(value: &Value) -> Option<Self> {
        let members = value.as_object()?;
        // Google still names the format `subject_type`, as drafts did.
        let format = match members.get("format").or_else(|| members.get("subject_type")) {
            Some(format) => Some(format.as_str()?),
            None => None,
        };
        Some(match format {
            Some("iss_sub" | "iss-sub") => {
                Self::Id { issuer: Some(member(members, "iss")?), id: member(members, "sub")? }
            }
            Some("opaque") => Self::Id { issuer: None, id: member(members, "id")? },
            Some("jwt_id") => {
                Self::Token { issuer: member(members, "iss")?, id: member(members, "jti")? }
            }
            Some("aliases") => {
                let identifiers = members.get("identifiers")?.as_array()?;
                let aliases = identifiers.iter().map(Self::parse_simple);
                Self::Aliases(
                    aliases.collect::<Option<_>>().filter(|all: &Vec<_>| !all.is_empty())?,
                )
            }
            Some("complex") => Self::complex(members)?,
            // Events of before SSF 1.0 have complex subjects without a format.
            None if ["user", "session", "device"]
                .iter()
                .any(|name| members.contains_key(*name)) =>
            {
                Self::complex(members)?
            }
            Some(_) => Self::Other(value.clone()),
            None => return None,
        })
    }

    fn complex(members: &Map<String, Value>) -> Option<Self> {
        let part = |name: &str| match members.get(name) {
            None => Some(None),
            Some(value) => Self::parse_simple(value).map(|simple| Some(Box::new(simple))),
        };
        let has_meaning = ["format", "subject_type", "user", "session", "device"];
        let others = members.keys().filter(|name| !has_meaning.contains(&name.as_str()));
        Some(Self::Complex {
            user: part("user")?,
            session: part("session")?,
            device: part("device")?,
            others: others.map(|name| name.as_str().into()).collect(),
        })
    }

    /// One that has no others inside.
    fn parse_simple(value: &Value) -> Option<Self> {
        Self::parse(value).filter(|it| !matches!(it, Self::Complex { .. } | Self::Aliases(_)))
    }
}

/// A member that must be a text of bounded length.
fn member(members: &Map<String, Value>, name: &str) -> Option<Box<str>> {
    let text = members.get(name)?.as_str()?;
    (1..=MAX_ID_BYTES).contains(&text.len()).then(|| text.into())
}

impl SubjectRevoker {
    /// Revokes with this revoker, usually the one of the layer.
    pub fn new(revoker: Revoker) -> Self {
        let (own_names, critical) = (Vec::new(), Vec::new());
        Self { revoker, sessions: None, own_names, critical, resolver: None }
    }

    /// Also ends sessions of the own issuer, with their refresh tokens. Default: it only revokes.
    #[must_use]
    pub fn with_sessions(mut self, sessions: Sessions) -> Self {
        self.sessions = Some(sessions);
        self
    }

    /// Another `iss` that a transmitter uses for the own issuer, if tokens have a different one or
    /// none. Default: none.
    #[must_use]
    pub fn with_own_name(mut self, issuer: impl Into<Box<str>>) -> Self {
        self.own_names.push(issuer.into());
        self
    }

    /// Members of complex subjects that must be understood: the `critical_subject_members` in the
    /// metadata of a transmitter (SSF 1.0). An event has no effect if its subject has such a member
    /// other than `user`, `session` and `device`, which are all that is understood here. Default:
    /// none.
    #[must_use]
    pub fn with_critical_members<N: Into<Box<str>>>(
        mut self,
        names: impl IntoIterator<Item = N>,
    ) -> Self {
        self.critical.extend(names.into_iter().map(Into::into));
        self
    }

    /// Finds the target of a subject of another format, such as `{"format":"email","email":…}`:
    /// usually a [user](Target::user). It returns `None` if there is no such user. Default: such a
    /// subject has no effect.
    #[must_use]
    pub fn with_resolver<F>(mut self, resolve: impl Fn(&Value) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<Option<Target>, StoreError>> + Send + 'static,
    {
        self.resolver = Some(Arc::new(move |subject| resolve(subject).boxed()));
        self
    }

    /// Revokes what of this subject was issued up to `until`, or so far.
    pub(super) async fn revoke(
        &self,
        subject: &Subject,
        until: Option<Timestamp>,
        reason: &str,
    ) -> Result<SubjectOutcome, StoreError> {
        match subject {
            Subject::Id { issuer, id } => {
                self.revoke_user(self.owner(issuer.as_deref()), id, until, reason).await
            }
            Subject::Token { issuer, id } => {
                self.revoke_target(self.owner(Some(issuer)), Target::token(&**id), None, reason)
                    .await
            }
            Subject::Aliases(aliases) => {
                let mut outcome = SubjectOutcome::NotUnderstood;
                for alias in aliases {
                    // They are simple, so this ends.
                    outcome = outcome.max(Box::pin(self.revoke(alias, until, reason)).await?);
                }
                Ok(outcome)
            }
            Subject::Other(value) => match self.resolved(value).await? {
                Resolved::Known(target) => self.revoke_known(target, until, reason).await,
                Resolved::Nobody => Ok(SubjectOutcome::Unknown),
                Resolved::NotUnderstood => Ok(SubjectOutcome::NotUnderstood),
            },
            Subject::Complex { user, session, device, others } => {
                if others.iter().any(|name| self.critical.contains(name)) {
                    return Ok(SubjectOutcome::NotUnderstood);
                }
                let parts = (user.as_deref(), session.as_deref(), device.as_deref());
                self.revoke_complex(parts, until, reason).await
            }
        }
    }

    /// To whom an id of this issuer belongs; `None` if that is nobody we know.
    fn owner<'a>(&self, issuer: Option<&'a str>) -> Option<Owner<'a>> {
        let Some(issuer) = issuer else { return Some(Owner::Own) };
        if self.revoker.own_issuer() == Ok(issuer) {
            return Some(Owner::Own);
        }
        if self.revoker.profile().knows_issuer(issuer) {
            return Some(Owner::Named(issuer));
        }
        self.own_names.iter().any(|own| **own == *issuer).then_some(Owner::Own)
    }

    async fn revoke_user(
        &self,
        owner: Option<Owner<'_>>,
        user: &str,
        until: Option<Timestamp>,
        reason: &str,
    ) -> Result<SubjectOutcome, StoreError> {
        match (owner, &self.sessions) {
            (Some(Owner::Own), Some(sessions)) => {
                match until {
                    Some(until) => sessions.end_begun_until(user, until, reason).await?,
                    None => sessions.end_all(user, None).await?,
                }
                Ok(SubjectOutcome::Revoked)
            }
            _ => self.revoke_target(owner, Target::user(user), until, reason).await,
        }
    }

    /// A target of the resolver: the own issuer's, unless it names another one.
    async fn revoke_known(
        &self,
        target: Target,
        until: Option<Timestamp>,
        reason: &str,
    ) -> Result<SubjectOutcome, StoreError> {
        let issuer = target.issuer_name().map(Box::<str>::from);
        let owner = self.owner(issuer.as_deref());
        match target.kind() {
            TargetKind::User => self.revoke_user(owner, target.id(), until, reason).await,
            _ => self.revoke_target(owner, target, None, reason).await,
        }
    }

    async fn revoke_target(
        &self,
        owner: Option<Owner<'_>>,
        target: Target,
        until: Option<Timestamp>,
        reason: &str,
    ) -> Result<SubjectOutcome, StoreError> {
        let target = match owner {
            None => return Ok(SubjectOutcome::Unknown),
            Some(Owner::Own) => target.without_issuer(),
            Some(Owner::Named(issuer)) => target.issued_by(issuer),
        };
        let mut request = self.revoker.revoke(target).reason(reason);
        if let Some(until) = until {
            request = request.extent(Extent::IssuedUntil(until));
        }
        written(request.await)?;
        Ok(SubjectOutcome::Revoked)
    }

    async fn revoke_complex(
        &self,
        (user, session, device): (Option<&Subject>, Option<&Subject>, Option<&Subject>),
        until: Option<Timestamp>,
        reason: &str,
    ) -> Result<SubjectOutcome, StoreError> {
        let user = match user {
            Some(user) => match self.user_of(user).await? {
                Resolved::Known(known) => Some(known),
                Resolved::Nobody => return Ok(SubjectOutcome::Unknown),
                // A session says by itself which one it is; anything else would be too much.
                Resolved::NotUnderstood if session.is_some() => None,
                Resolved::NotUnderstood => return Ok(SubjectOutcome::NotUnderstood),
            },
            None => None,
        };
        let user_issuer = user.as_ref().and_then(|(issuer, _)| issuer.as_deref());
        let user_id = user.as_ref().map(|(_, id)| &**id);
        let place = |part: &Subject| match part {
            Subject::Id { issuer, id } => Some((issuer.clone(), id.clone())),
            _ => None,
        };
        match (session, device) {
            (Some(session), device) => {
                let Some((issuer, id)) = place(session) else {
                    return Ok(SubjectOutcome::NotUnderstood);
                };
                let owner = self.owner(issuer.as_deref().or(user_issuer));
                if issuer.is_some() && user.is_some() && owner != self.owner(user_issuer) {
                    return Ok(SubjectOutcome::Unknown);
                }
                let device = device.and_then(place);
                let device = device.as_ref().map(|(_, id)| &**id);
                self.revoke_session(owner, &id, user_id, device, reason).await
            }
            (None, Some(device)) => {
                let Some((issuer, id)) = place(device) else {
                    return Ok(SubjectOutcome::NotUnderstood);
                };
                let owner = self.owner(issuer.as_deref().or(user_issuer));
                if issuer.is_some() && user.is_some() && owner != self.owner(user_issuer) {
                    return Ok(SubjectOutcome::Unknown);
                }
                self.revoke_device(owner, &id, user_id, until, reason).await
            }
            (None, None) => match user_id {
                Some(id) => self.revoke_user(self.owner(user_issuer), id, until, reason).await,
                None => Ok(SubjectOutcome::NotUnderstood),
            },
        }
    }

    /// A session, unless it is known to be another user's, or on another device.
    async fn revoke_session(
        &self,
        owner: Option<Owner<'_>>,
        id: &str,
        user: Option<&str>,
        device: Option<&str>,
        reason: &str,
    ) -> Result<SubjectOutcome, StoreError> {
        let (Some(Owner::Own), Some(sessions)) = (owner, &self.sessions) else {
            return self.revoke_target(owner, Target::session(id), None, reason).await;
        };
        let known = sessions.owner_of(id).await?;
        let is_others = user.zip(known).is_some_and(|(user, owner)| *owner != *user);
        if is_others {
            return Ok(SubjectOutcome::Unknown);
        }
        if let Some(device) = device
            && let Some(session) = sessions.find(id).await?
            && session.details.device.is_some_and(|on| *on != *device)
        {
            return Ok(SubjectOutcome::Unknown);
        }
        sessions.end(id).await?;
        Ok(SubjectOutcome::Revoked)
    }

    async fn revoke_device(
        &self,
        owner: Option<Owner<'_>>,
        id: &str,
        user: Option<&str>,
        until: Option<Timestamp>,
        reason: &str,
    ) -> Result<SubjectOutcome, StoreError> {
        match (owner, &self.sessions, user) {
            (Some(Owner::Own), Some(sessions), Some(user)) => {
                let mut outcome = SubjectOutcome::Unknown;
                for session in sessions.list(user).await? {
                    let is_on_it = session.details.device.as_deref() == Some(id);
                    if is_on_it && until.is_none_or(|until| session.created_at <= until) {
                        sessions.end(&session.id).await?;
                        outcome = SubjectOutcome::Revoked;
                    }
                }
                Ok(outcome)
            }
            // Of which user a token is, and on which device, cannot be asked together.
            (_, _, Some(_)) => Ok(SubjectOutcome::NotUnderstood),
            (Some(Owner::Own), Some(sessions), None) if until.is_none() => {
                sessions.end_device(id).await?;
                Ok(SubjectOutcome::Revoked)
            }
            (_, _, None) => self.revoke_target(owner, Target::device(id), until, reason).await,
        }
    }

    /// Issuer and id of a user.
    async fn user_of(
        &self,
        user: &Subject,
    ) -> Result<Resolved<(Option<Box<str>>, Box<str>)>, StoreError> {
        let (issuer, id) = match user {
            Subject::Id { issuer, id } => (issuer.clone(), id.clone()),
            Subject::Other(value) => match self.resolved(value).await? {
                Resolved::Known(target) if target.kind() == TargetKind::User => {
                    (target.issuer_name().map(Into::into), target.id().into())
                }
                Resolved::Nobody => return Ok(Resolved::Nobody),
                _ => return Ok(Resolved::NotUnderstood),
            },
            _ => return Ok(Resolved::NotUnderstood),
        };
        Ok(match self.owner(issuer.as_deref()) {
            Some(_) => Resolved::Known((issuer, id)),
            None => Resolved::Nobody,
        })
    }

    async fn resolved(&self, subject: &Value) -> Result<Resolved<Target>, StoreError> {
        let Some(resolve) = &self.resolver else { return Ok(Resolved::NotUnderstood) };
        Ok(resolve(subject).await?.map_or(Resolved::Nobody, Resolved::Known))
    }
}

/// Who someone is.
enum Resolved<T> {
    Known(T),
    Nobody,
    NotUnderstood,
}

impl fmt::Debug for SubjectRevoker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SubjectRevoker")
            .field("revoker", &self.revoker)
            .field("own_names", &self.own_names)
            .finish_non_exhaustive()
    }
}
