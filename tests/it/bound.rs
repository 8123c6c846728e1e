//! Tokens that are bound to a key of the client: `cnf` (RFC 7800), by DPoP (RFC 9449) and by
//! certificates (RFC 8705).

use http::header::WWW_AUTHENTICATE;
use http::{Request, Response, StatusCode};
use serde_json::{Value, json};
use tower::{Layer as _, ServiceExt as _};
use tower_jwt_revocation::policy::RejectionKind;
use tower_jwt_revocation::token::TokenErrorKind::{self, OddClaim, UnprovenKey};
use tower_jwt_revocation::token::UpstreamClaims;
use tower_jwt_revocation::token::bearer::TokenSource;
use tower_jwt_revocation::{JwtRevocationLayer, MemoryStore, Target, TokenProfile};

use crate::support::{Handler, claims, layer, rejection, request, seen, signed, with_token};

/// What the layer further out has found: a certificate, or the key of a DPoP proof.
#[derive(Clone)]
struct Proved(&'static str);

fn bound(cnf: &Value) -> String {
    let mut claims = claims("alice", "1");
    claims["cnf"] = cnf.clone();
    signed(&claims)
}

fn by(scheme: &str, token: &str, proved: Option<&'static str>) -> Request<String> {
    let credentials = format!("{scheme} {token}");
    let mut request =
        Request::builder().header("authorization", credentials).body(String::new()).unwrap();
    if let Some(proved) = proved {
        request.extensions_mut().insert(Proved(proved));
    }
    request
}

async fn call(layer: &JwtRevocationLayer, request: Request<String>) -> Response<String> {
    layer.layer(Handler).oneshot(request).await.unwrap()
}

#[track_caller]
fn assert_refused(answer: &Response<String>, kind: TokenErrorKind) {
    assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(rejection(answer).kind(), RejectionKind::InvalidToken(kind));
}

fn proving() -> JwtRevocationLayer {
    layer()
        .with_token_sources([TokenSource::bearer(), TokenSource::dpop()])
        .with_proof_of_possession(|head, token| {
            let proved = head.extensions().get::<Proved>().map(|proved| proved.0);
            let key = token.confirmation("jkt").or_else(|| token.confirmation("x5t#S256"));
            proved.is_some() && proved == key
        })
}

#[tokio::test]
async fn a_bound_token_is_refused_unless_the_application_says_otherwise() {
    for cnf in
        [json!({"jkt": "k"}), json!({"x5t#S256": "k"}), json!({"jwk": {"kty": "OKP"}}), json!({})]
    {
        let token = bound(&cnf);
        let answer = call(&layer(), with_token(&token)).await;
        assert_refused(&answer, UnprovenKey);
        let reason = rejection(&answer).to_string();
        assert!(reason.contains("with_proof_of_possession"), "{reason}");
        let outside = layer().check(&token).await.unwrap_err();
        assert_eq!(outside.kind(), RejectionKind::InvalidToken(UnprovenKey), "{cnf}");

        let lax = layer().allow_bound_tokens_as_bearer();
        let answer = call(&lax, with_token(&token)).await;
        let clearance = seen(&answer).clearance.as_ref().unwrap();
        assert!(clearance.token().is_bound(), "{cnf}");
        lax.check(&token).await.unwrap();
    }
    // What is no binding does not bind, and what cannot be read as one does not pass for none.
    let answer = call(&layer(), with_token(&bound(&json!(null)))).await;
    assert!(!seen(&answer).clearance.as_ref().unwrap().token().is_bound());
    for odd in [json!("k"), json!(["k"]), json!(true), json!(1)] {
        let lax = layer().allow_bound_tokens_as_bearer();
        assert_refused(&call(&lax, with_token(&bound(&odd))).await, OddClaim);
    }
}

#[tokio::test]
async fn a_token_of_a_certificate_passes_with_that_certificate_only() {
    let layer = proving();
    let token = bound(&json!({"x5t#S256": "cert"}));
    let answer = call(&layer, by("Bearer", &token, Some("cert"))).await;
    let clearance = seen(&answer).clearance.clone().unwrap();
    assert_eq!(clearance.token().confirmation("x5t#S256"), Some("cert"));
    assert_eq!(clearance.token().confirmation("jkt"), None);
    for proved in [None, Some("other")] {
        assert_refused(&call(&layer, by("Bearer", &token, proved)).await, UnprovenKey);
    }
    // Outside of a request there is no connection.
    let outside = layer.check(&token).await.unwrap_err();
    assert_eq!(outside.kind(), RejectionKind::InvalidToken(UnprovenKey));
    // The proof lets no revoked token in.
    layer.revoker().revoke(Target::user("alice")).await.unwrap();
    let answer = call(&layer, by("Bearer", &token, Some("cert"))).await;
    assert!(matches!(rejection(&answer).kind(), RejectionKind::Revoked(_)));
}

#[tokio::test]
async fn a_token_of_dpop_is_no_bearer_token_and_a_bearer_token_is_none_of_dpop() {
    let layer = proving();
    let token = bound(&json!({"jkt": "key"}));
    for scheme in ["DPoP", "dpop"] {
        seen(&call(&layer, by(scheme, &token, Some("key"))).await);
    }
    // Also with a good proof (RFC 9449 §7.2).
    assert_refused(&call(&layer, by("Bearer", &token, Some("key"))).await, UnprovenKey);
    for proved in [None, Some("other")] {
        assert_refused(&call(&layer, by("DPoP", &token, proved)).await, UnprovenKey);
    }
    let unbound = signed(&claims("alice", "2"));
    assert_refused(&call(&layer, by("DPoP", &unbound, Some("key"))).await, UnprovenKey);
    assert_refused(
        &call(&layer.clone().allow_bound_tokens_as_bearer(), by("DPoP", &unbound, None)).await,
        UnprovenKey,
    );
    seen(&call(&layer, by("Bearer", &unbound, None)).await);
    // To a layer that is not told of it, the scheme is one like any other.
    let answer = call(&crate::support::layer(), by("DPoP", &token, Some("key"))).await;
    assert_eq!(rejection(&answer).kind(), RejectionKind::NoCredentials);
    let malformed = call(&layer, by("DPoP", "a b", None)).await;
    assert_eq!(rejection(&malformed).kind(), RejectionKind::BadRequest);
}

#[tokio::test]
async fn each_scheme_has_its_challenge_and_the_error_stands_in_that_which_was_used() {
    let (both, only) = (proving(), proving().with_token_source(TokenSource::dpop()));
    let error = r#" realm="api", error="invalid_token""#;
    let plain = r#" realm="api""#;
    for (layer, request, expected) in [
        (&both, request(), vec![format!("Bearer{plain}"), format!("DPoP{plain}")]),
        (&both, with_token("junk"), vec![format!("Bearer{error}"), format!("DPoP{plain}")]),
        (&both, by("DPoP", "junk", None), vec![format!("Bearer{plain}"), format!("DPoP{error}")]),
        (&only, by("DPoP", "junk", None), vec![format!("DPoP{error}")]),
        (&only, request(), vec![format!("DPoP{plain}")]),
        (&only, with_token("junk"), vec![format!("DPoP{plain}")]),
    ] {
        let answer = call(layer, request).await;
        assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
        let challenges = answer.headers().get_all(WWW_AUTHENTICATE).iter();
        let challenges: Vec<_> = challenges.map(|value| value.to_str().unwrap()).collect();
        assert_eq!(challenges, expected);
    }
    let told = both.with_error_descriptions().with_realm("shop").unwrap();
    let answer = call(&told, by("DPoP", &bound(&json!({"jkt": "key"})), None)).await;
    let dpop = answer.headers().get_all(WWW_AUTHENTICATE).iter().next_back().unwrap();
    assert_eq!(
        dpop,
        r#"DPoP realm="shop", error="invalid_token", error_description="Invalid key binding""#
    );
}

#[tokio::test]
async fn claims_of_another_layer_are_bound_as_well() {
    let claims = || UpstreamClaims::in_extension::<Value>(TokenProfile::new()).unwrap();
    let behind = || JwtRevocationLayer::behind(claims(), MemoryStore::new());
    let request = || {
        let mut claims = crate::support::claims("alice", "1");
        claims["cnf"] = json!({"jkt": "key"});
        let mut request = request();
        request.extensions_mut().insert(claims);
        request
    };
    assert_refused(&call(&behind(), request()).await, UnprovenKey);
    seen(&call(&behind().allow_bound_tokens_as_bearer(), request()).await);
    // Under which scheme the token came is known to the other layer.
    let proving =
        behind().with_proof_of_possession(|_, token| token.confirmation("jkt") == Some("key"));
    seen(&call(&proving, request()).await);
}
