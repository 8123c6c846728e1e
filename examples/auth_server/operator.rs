//! What an operator looks at and takes back: the revocations, why a token is refused,
//! reinstatements, and whether the store is fit. With the token of the administrator, as everything
//! under `/admin`.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::sync::LazyLock;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Query, State};
use axum::http::{HeaderName, StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};
use tower_jwt_revocation::Target;
use tower_jwt_revocation::clock::Timestamp;
use tower_jwt_revocation::revocation::{Record, TargetKind};
use tower_jwt_revocation::session::Sessions;
use tower_jwt_revocation::store::ListQuery;
use tower_jwt_revocation::store::redis::Finding;
use tower_jwt_revocation::token::TokenVerifier as _;

use crate::answer::{NO_STORE, Problem, object, optional, text, within};
use crate::app::App;

/// Longest body of a request of the administrator.
pub(crate) const MAX_BODY: usize = 64 * 1024;

const DEFAULT_LIMIT: usize = 100;
const MAX_LIMIT: usize = 1000;

const PAGE: &str = include_str!("admin.html");

type Params = Query<HashMap<String, String>>;

/// The page of the operator. It holds nothing that is secret, and asks for the token itself. The
/// browser runs nothing but the one script in it, and lets it speak to this server only.
pub(crate) async fn page() -> impl IntoResponse {
    static POLICY: LazyLock<String> = LazyLock::new(|| {
        let hash = |tag: &str| {
            let (open, close) = (format!("<{tag}>"), format!("</{tag}>"));
            let inside = PAGE.split_once(&open).and_then(|(_, rest)| rest.split_once(&close));
            STANDARD.encode(Sha256::digest(inside.map_or("", |(inside, _)| inside)))
        };
        format!(
            "default-src 'none'; script-src 'sha256-{}'; style-src 'sha256-{}'; connect-src \
             'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
            hash("script"),
            hash("style"),
        )
    });
    let headers: [(HeaderName, &str); 4] = [
        (header::CONTENT_SECURITY_POLICY, &POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    (headers, Html(PAGE))
}

/// A page of what is revoked, or with `id` what is of one target. Its cursor says where the page of
/// the store began, and after which record of it to go on: the store gives whole pages, which may
/// be longer than was asked for.
pub(crate) async fn revocations(
    State(app): State<App>,
    params: Result<Params, axum::extract::rejection::QueryRejection>,
) -> Result<Response, Problem> {
    let Query(params) = params.map_err(|_| Problem::BadRequest("the query cannot be read"))?;
    let given = |name: &str| params.get(name).map(String::as_str).filter(|text| !text.is_empty());
    let kind = given("kind").map(kind_named).transpose()?;
    let limit = match given("limit").map(str::parse) {
        None => DEFAULT_LIMIT,
        Some(Ok(limit @ 1..=MAX_LIMIT)) => limit,
        Some(_) => return Err(Problem::BadRequest("`limit` is not a number from 1 to 1000")),
    };
    if let Some(id) = given("id") {
        let kind = kind.ok_or(Problem::BadRequest("`id` needs a `kind`"))?;
        return one(&app, kind, id, given("iss"), given("claim")).await;
    }
    let (page, mut after) = match given("cursor").map(|cursor| cursor.rsplit_once('~')) {
        None => (None, None),
        Some(Some((page, after))) => (Some(page), Some(after).filter(|after| !after.is_empty())),
        Some(None) => return Err(Problem::BadRequest("the cursor was not given out here")),
    };
    let mut query = ListQuery::default();
    query.kind = kind;
    query.limit = NonZeroUsize::new(limit);
    query.cursor = page.filter(|page| !page.is_empty()).map(Into::into);

    let mut items = Vec::new();
    let next = within(app.limit, async {
        loop {
            let page = app.revoker.list(query.clone()).await?;
            let mut records = page.records;
            let known = after.take().and_then(|after| {
                records.iter().position(|it| it.target().fingerprint().to_string() == after)
            });
            // If that one has ended meanwhile, the page begins anew: rather twice than never.
            records.drain(..known.map_or(0, |known| known + 1));
            let now = Timestamp::now();
            records.retain(|record| record.until() > now);
            let here = query.cursor.take().unwrap_or_default();
            let room = limit - items.len();
            if let Some(last) = records.get(room - 1).filter(|_| records.len() > room) {
                let last = last.target().fingerprint();
                items.extend(records.iter().take(room).map(item));
                break Ok(Some(format!("{here}~{last}")));
            }
            items.extend(records.iter().map(item));
            match page.next {
                None => break Ok(None),
                Some(next) if items.len() == limit => break Ok(Some(format!("{next}~"))),
                Some(next) => query.cursor = Some(next),
            }
        }
    })
    .await?;
    let mut body = json!({ "items": items });
    if let (Value::Object(members), Some(next)) = (&mut body, next) {
        members.insert("next".into(), next.into());
    }
    Ok((NO_STORE, Json(body)).into_response())
}

/// What is revoked of one target: nothing, or one item.
async fn one(
    app: &App,
    kind: TargetKind,
    id: &str,
    issuer: Option<&str>,
    claim: Option<&str>,
) -> Result<Response, Problem> {
    let target = target_of(app, kind, claim, issuer, id)?;
    let record = within(app.limit, async { Ok(app.revoker.find(target).await?) }).await?;
    let now = Timestamp::now();
    let record = record.filter(|record| record.is_in_effect() && record.until() > now);
    let items: Vec<_> = record.iter().map(item).collect();
    Ok((NO_STORE, Json(json!({ "items": items }))).into_response())
}

/// Without an issuer it is one of ours.
fn target_of(
    app: &App,
    kind: TargetKind,
    claim: Option<&str>,
    issuer: Option<&str>,
    id: &str,
) -> Result<Target, Problem> {
    let target = Target::from_parts(kind, claim, issuer, id)
        .map_err(|_| Problem::BadRequest("a claim, and nothing else, has `claim`, its name"))?;
    Ok(if issuer.is_some() { target } else { app.owned(target, None) })
}

/// Why a token is refused. The token is not repeated.
pub(crate) async fn explain(
    State(app): State<App>,
    body: Bytes,
) -> Result<impl IntoResponse, Problem> {
    let members = object(&body)?;
    let Some(Value::String(token)) = members.get("token") else {
        return Err(Problem::BadRequest("`token` is missing or not a string"));
    };
    let mut error = app.verifier.verify(token).err().map(|error| error.to_string());
    let by = match app.verifier.verify_for_revocation(token) {
        Ok(token) => {
            let by = within(app.limit, async { Ok(app.revoker.explain(&token).await?) }).await?;
            if error.is_none() && by.is_empty() {
                error = app.doubt_about(&token).await.map(|doubt| format!("in doubt: {doubt}"));
            }
            by
        }
        // Nobody can have revoked what was never accepted.
        Err(_) => Vec::new(),
    };
    let mut body = json!({
        "valid": error.is_none(),
        "revoked": !by.is_empty(),
        "by": by.iter().map(item).collect::<Vec<_>>(),
    });
    if let (Value::Object(members), Some(error)) = (&mut body, error) {
        members.insert("error".into(), error.into());
    }
    Ok((NO_STORE, Json(body)))
}

/// Accepts the tokens of a target again.
pub(crate) async fn reinstate(State(app): State<App>, body: Bytes) -> Result<StatusCode, Problem> {
    let members = object(&body)?;
    let kind = text(&members, "kind")?.ok_or(Problem::BadRequest("`kind` is missing"))?;
    let kind = kind_named(kind)?;
    let id = match (kind, members.get("id")) {
        // The one issuer without a name.
        (TargetKind::Issuer, Some(Value::String(id))) if id.is_empty() => "",
        _ => crate::answer::id(&members, "id")?,
    };
    let (claim, issuer) = (optional(&members, "claim")?, optional(&members, "iss")?);
    let target = target_of(&app, kind, claim, issuer, id)?;
    let note = Note::of(&members)?;
    let mut request = app.revoker.reinstate(target);
    if let Some(reason) = note.reason {
        request = request.reason(reason);
    }
    if let Some(actor) = note.actor {
        request = request.actor(actor);
    }
    within(app.limit, async { Ok(request.await?) }).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Whether the store is fit to keep revocations.
pub(crate) async fn doctor(State(app): State<App>) -> Result<impl IntoResponse, Problem> {
    let body = match app.redis() {
        Some(redis) => {
            let report = within(app.limit, async { Ok(Box::pin(redis.doctor()).await) }).await?;
            let findings: Vec<_> = report.findings.iter().map(finding).collect();
            // With what the servers say of themselves.
            let mut body = json!(report);
            if let Some(members) = body.as_object_mut() {
                members.insert("fit".into(), report.is_fit().into());
                members.insert("findings".into(), findings.into());
            }
            body
        }
        None => json!({ "fit": true, "findings": [{
            "severity": "warning",
            "subject": "persistence",
            "sentence": "the memory store forgets everything when the process ends",
            "remedy": "set AUTH_STORE=redis",
        }] }),
    };
    Ok((NO_STORE, Json(body)))
}

fn finding(finding: &Finding) -> Value {
    let severity = match (finding.is_error(), finding.is_warning()) {
        (true, _) => "error",
        (false, true) => "warning",
        (false, false) => "info",
    };
    json!({
        "severity": severity,
        "subject": finding.subject,
        "sentence": finding.sentence,
        "remedy": finding.remedy,
    })
}

fn kind_named(name: &str) -> Result<TargetKind, Problem> {
    name.parse().map_err(|_| Problem::BadRequest("no kind of target has this name"))
}

fn item(record: &Record) -> Value {
    serde_json::to_value(record).unwrap_or_default()
}

/// Why, and who does it.
pub(crate) struct Note<'a> {
    pub(crate) reason: Option<&'a str>,
    pub(crate) actor: Option<&'a str>,
}

impl<'a> Note<'a> {
    /// Both may be missing. Neither may hold a token, or be too long to be kept.
    pub(crate) fn of(members: &'a Map<String, Value>) -> Result<Self, Problem> {
        let words = |name| match optional(members, name)? {
            Some(words) if words.len() > 1024 => {
                Err(Problem::BadRequest("a reason or an actor is longer than 1024 bytes"))
            }
            words => Ok(words),
        };
        Ok(Self { reason: words("reason")?, actor: words("actor")? })
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.reason.is_none() && self.actor.is_none()
    }

    /// The reason, or what stands for it.
    pub(crate) fn reason(&self) -> &'a str {
        self.reason.unwrap_or("revoked by the administrator")
    }

    /// The sessions, for this reason and by this actor.
    pub(crate) fn sign_sessions(&self, mut sessions: Sessions) -> Sessions {
        if let Some(reason) = self.reason {
            sessions = sessions.because(reason);
        }
        if let Some(actor) = self.actor {
            sessions = sessions.acting_as(actor);
        }
        sessions
    }

    /// Adds who does it to a revocation.
    pub(crate) fn sign(
        &self,
        request: tower_jwt_revocation::revoker::RevokeRequest,
    ) -> tower_jwt_revocation::revoker::RevokeRequest {
        let request = request.reason(self.reason());
        match self.actor {
            Some(actor) => request.actor(actor),
            None => request,
        }
    }
}
