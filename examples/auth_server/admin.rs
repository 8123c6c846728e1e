//! The routes that need the token of the administrator. Without one they are not there.

use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};
use tower_jwt_revocation::clock::Timestamp;
use tower_jwt_revocation::revoker::RevokeError;
use tower_jwt_revocation::store::StoreErrorKind;
use tower_jwt_revocation::token::TokenVerifier as _;
use tower_jwt_revocation::{Target, TokenProfile};

use crate::answer::{
    NO_STORE, Problem, TOKEN_FOR_ID, id, is_refresh_token, object, optional, text, within,
};
use crate::app::App;
use crate::operator::{self, Note};

pub(crate) fn routes(app: &App) -> Router {
    if app.admin_token.is_none() {
        return Router::new();
    }
    Router::new()
        .route("/admin/revoke", post(revoke))
        .route("/admin/revoke_token", post(revoke_token))
        .route("/admin/revoke_user", post(revoke_user))
        .route("/admin/revoke_family", post(revoke_family))
        .route("/admin/revoke_session", post(revoke_session))
        .route("/admin/revocations", get(operator::revocations))
        .route("/admin/explain", post(operator::explain))
        .route("/admin/reinstate", post(operator::reinstate))
        .route("/admin/doctor", get(operator::doctor))
        .layer(DefaultBodyLimit::max(operator::MAX_BODY))
        .layer(from_fn_with_state(app.clone(), only_admin))
        .route("/admin", get(operator::page))
        .with_state(app.clone())
}

async fn only_admin(State(app): State<App>, request: Request, next: Next) -> Response {
    let mut fields = request.headers().get_all(header::AUTHORIZATION).iter();
    // Of two, a proxy may have looked at the other one.
    let given = fields.next().filter(|_| fields.next().is_none());
    let given = given.and_then(|value| value.to_str().ok()?.split_once(' '));
    let given = given
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map(|(_, token)| token.trim());
    // Hashes are compared, so that the time it takes says nothing about the token.
    let is_admin = given
        .zip(app.admin_token.as_deref())
        .is_some_and(|(given, token)| Sha256::digest(given) == Sha256::digest(token));
    if is_admin {
        let answer = next.run(request).await;
        return (NO_STORE, answer).into_response();
    }
    let challenge = [(header::WWW_AUTHENTICATE, format!("Bearer realm=\"{}\"", app.realm))];
    (StatusCode::UNAUTHORIZED, NO_STORE, challenge).into_response()
}

async fn revoke(State(app): State<App>, body: Bytes) -> Result<StatusCode, Problem> {
    let members = object(&body)?;
    // Any `jti` that is accepted in a token can be revoked, whatever it looks like; only what is a
    // token itself is not written down.
    let jti = text(&members, "jti")?.ok_or(Problem::BadRequest("`jti` is missing"))?;
    if is_refresh_token(jti) || app.verifier.verify_for_revocation(jti).is_ok() {
        return Err(TOKEN_FOR_ID);
    }
    let mut target = Target::token(jti);
    if let Some(issuer) = optional(&members, "iss")? {
        target = target.issued_by(issuer);
    }
    let expires_at = match members.get("exp") {
        None | Some(Value::Null) => None,
        Some(exp) => Some(exp.as_f64().ok_or(Problem::BadRequest("`exp` is not a number"))?),
    };
    let mut request = Note::of(&members)?.sign(app.revoker.revoke(target));
    if let Some(exp) = expires_at {
        // No token that is accepted is over later than this: it may say that it was issued by the
        // leeway from now.
        let longest = app.max_token_lifetime + TokenProfile::MAX_LEEWAY;
        let last = Timestamp::now().saturating_add(longest);
        request = request.until(seconds(exp).min(last));
    }
    within(app.limit, async { Ok(request.await?) }).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Answers as RFC 7009 §2.2 has it: a token that is no good needs no revocation.
async fn revoke_token(State(app): State<App>, body: Bytes) -> Result<StatusCode, Problem> {
    let members = object(&body)?;
    let Some(Value::String(token)) = members.get("token") else {
        return Err(Problem::BadRequest("`token` is missing or not a string"));
    };
    let note = Note::of(&members)?;
    within(app.limit, async {
        // What does not look like a refresh token is not asked about.
        let sessions = note.sign_sessions(app.sessions.clone());
        if sessions.families().end_by_token(token, None).await? {
            return Ok(());
        }
        if let (Ok(token), false) = (app.verifier.verify_for_revocation(token), note.is_empty()) {
            note.sign(app.revoker.revoke_token(&token)).await?;
            return Ok(());
        }
        match app.revoker.revoke_raw_token(&*app.verifier, token).await {
            Ok(_) | Err(RevokeError::Token(_)) => Ok(()),
            Err(RevokeError::Store(error)) => Err(error.into()),
            Err(_) => Err(Problem::Internal),
        }
    })
    .await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn revoke_user(State(app): State<App>, body: Bytes) -> Result<StatusCode, Problem> {
    let members = object(&body)?;
    let user = id(&members, "sub")?;
    let issuer = known_issuer(&app, &members)?;
    let note = Note::of(&members)?;
    within(app.limit, async {
        app.end_user(user, issuer).await?;
        // The later note is the one that stays.
        if !note.is_empty() {
            note.sign(app.revoker.revoke(app.owned(Target::user(user), issuer))).await?;
        }
        Ok(())
    })
    .await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn revoke_family(State(app): State<App>, body: Bytes) -> Result<StatusCode, Problem> {
    let members = object(&body)?;
    let family = id(&members, "family_id")?;
    let request =
        Note::of(&members)?.sign(app.revoker.revoke(app.owned(Target::family(family), None)));
    within(app.limit, async { known(request.await.map(drop)) }).await
}

async fn revoke_session(State(app): State<App>, body: Bytes) -> Result<StatusCode, Problem> {
    let members = object(&body)?;
    let session = id(&members, "session_id")?;
    let issuer = known_issuer(&app, &members)?;
    let note = Note::of(&members)?;
    within(app.limit, async {
        // What is revoked already, and for longer, keeps its note.
        if !note.is_empty() {
            let target = app.owned(Target::session(session), issuer);
            let request = note.sign(app.revoker.revoke(target));
            known(request.lifetime(app.longest + Duration::from_secs(3600)).await.map(drop))?;
        }
        known(app.end_session(session, issuer).await)
    })
    .await
}

/// Whose the id is, if that is said: this server's or the other issuer's. No other one has tokens
/// that are accepted here, unless this server has no name.
fn known_issuer<'a>(
    app: &App,
    members: &'a Map<String, Value>,
) -> Result<Option<&'a str>, Problem> {
    let issuer = optional(members, "iss")?;
    let own = app.own_issuer.as_deref();
    let is_known = issuer.is_none_or(|issuer| {
        own.is_none_or(|own| own == issuer) || app.provider.as_deref() == Some(issuer)
    });
    if is_known { Ok(issuer) } else { Err(Problem::BadRequest("`iss` is not an issuer of ours")) }
}

/// An id that cannot be has nothing to revoke, as one that is unknown.
fn known(
    ended: Result<(), tower_jwt_revocation::store::StoreError>,
) -> Result<StatusCode, Problem> {
    match ended {
        Err(error) if error.kind() != StoreErrorKind::InvalidInput => Err(error.into()),
        _ => Ok(StatusCode::NO_CONTENT),
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the cast saturates")]
fn seconds(exp: f64) -> Timestamp {
    Timestamp::from_millis((exp * 1000.0) as u64)
}
