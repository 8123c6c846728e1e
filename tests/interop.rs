//! Trades tokens and keys with other libraries: what they mint is accepted here, what is issued
//! here they accept.
//!
//! The libraries are installed on first use, by `scripts/setup-interop`. One that cannot be is
//! skipped with a message, unless `REQUIRE_INTEROP=1`. Java (nimbus-jose-jwt, jjwt) is not among
//! them: it would take a JDK and Maven Central, and what no run has seen is no proof.
#![cfg(all(feature = "issuer", any(feature = "aws_lc_rs", feature = "rust_crypto")))]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

#[path = "interop/peers.rs"]
mod peers;

use serde::Deserialize;
use serde_json::{Value, json};
use tower_jwt_revocation::clock::Timestamp;
use tower_jwt_revocation::token::issue::NewToken;
use tower_jwt_revocation::token::jwt::{KeySet, SigningKey};
use tower_jwt_revocation::token::{TokenErrorKind, TokenVerifier as _};
use tower_jwt_revocation::{Algorithm, JwtVerifier, TokenIssuer, TokenProfile, VerificationKey};

const ISSUER: &str = "https://id.example";
const AUDIENCE: &str = "orders";
const ALGORITHMS: [&str; 12] = [
    "HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256",
    "ES384", "EdDSA",
];

#[derive(Deserialize)]
struct Minted {
    alg: String,
    private: Value,
    public: Value,
    token: String,
}

/// The answer of this library; none if it is not there.
fn ask<T: for<'a> Deserialize<'a>>(name: &str, request: &Value) -> Option<T> {
    let program = if name == "jose" { "jose.mjs".to_owned() } else { format!("{name}_peer.py") };
    peers::is_there(name).then(|| serde_json::from_value(peers::ask(&program, request)).unwrap())
}

fn profile() -> TokenProfile {
    TokenProfile::new().with_issuer(ISSUER).with_audience(AUDIENCE)
}

fn trade_with(name: &str) {
    let now = Timestamp::now().as_secs();
    let claims = json!({
        "iss": ISSUER, "aud": [AUDIENCE, "other"], "sub": "alice", "jti": "1",
        "iat": now, "exp": now + 600
    });
    let request = json!({"do": "mint", "algs": ALGORITHMS, "claims": claims});
    let Some(minted) = ask::<Vec<Minted>>(name, &request) else { return };
    assert_eq!(minted.iter().map(|one| &*one.alg).collect::<Vec<_>>(), ALGORITHMS);

    // All keys in one set, so that each token has to choose.
    let set = json!({"keys": minted.iter().map(|one| &one.public).collect::<Vec<_>>()}).to_string();
    let verifier = JwtVerifier::new(KeySet::from_jwk_set(&set).unwrap(), profile()).unwrap();
    for one in &minted {
        let token = verifier
            .verify(&one.token)
            .unwrap_or_else(|error| panic!("{} of {name}: {error}", one.alg));
        assert_eq!(token.subject(), Some("alice"));
        let (input, signature) = one.token.rsplit_once('.').unwrap();
        let (header, payload) = input.split_once('.').unwrap();
        let flipped = if payload.starts_with('e') { "f" } else { "e" };
        let forged = format!("{header}.{flipped}{}.{signature}", &payload[1..]);
        assert_eq!(verifier.verify(&forged).unwrap_err().kind(), TokenErrorKind::BadSignature);
    }

    // The other way round, with their keys.
    let cases: Vec<Value> = minted
        .iter()
        .map(|one| {
            let key = SigningKey::from_jwk(&one.private.to_string())
                .unwrap_or_else(|error| panic!("{} of {name}: {error}", one.alg));
            let token_issuer = TokenIssuer::new(key, profile()).unwrap();
            let issued = token_issuer.issue(&NewToken::new("bob")).unwrap();
            VerificationKey::from_jwk(&one.public.to_string()).unwrap();
            json!({
                "alg": one.alg, "public": one.public, "token": issued.token(), "iss": ISSUER,
                "aud": AUDIENCE,
            })
        })
        .collect();
    let subjects: Vec<String> = ask(name, &json!({"do": "verify", "cases": cases})).unwrap();
    assert_eq!(subjects, ["bob"; ALGORITHMS.len()], "{name}");
}

#[test]
fn tokens_are_traded_with_pyjwt() {
    trade_with("pyjwt");
}

#[test]
fn tokens_are_traded_with_joserfc() {
    trade_with("joserfc");
}

#[test]
fn tokens_are_traded_with_jose() {
    trade_with("jose");
}

/// Logout tokens and security events of other libraries, for receivers of ours.
#[cfg(feature = "endpoints")]
#[tokio::test]
async fn what_other_libraries_sign_for_providers_is_received() {
    use tower::ServiceExt as _;
    use tower_jwt_revocation::endpoints::{
        EventReceiver, LogoutReceiver, ReplayGuard, SubjectRevoker,
    };
    use tower_jwt_revocation::{JwtRevocationLayer, MemoryStore};

    let algs = ["RS256", "PS256", "ES256", "EdDSA"];
    for name in ["pyjwt", "jose"] {
        let now = Timestamp::now().as_secs();
        let mint = |typ: &str, claims: &Value| {
            let common = json!({"iss": ISSUER, "aud": AUDIENCE, "iat": now});
            let mut all = common.as_object().unwrap().clone();
            all.extend(claims.as_object().unwrap().clone());
            let request = json!({"do": "mint", "algs": algs, "claims": all, "typ": typ});
            ask::<Vec<Minted>>(name, &request)
        };
        let logout = json!({
            "jti": "1", "exp": now + 120, "sid": "s",
            "events": {"http://schemas.openid.net/event/backchannel-logout": {}},
        });
        let event = json!({
            "jti": "2", "sub_id": {"format": "iss_sub", "iss": ISSUER, "sub": "alice"},
            "events": {
                "https://schemas.openid.net/secevent/caep/event-type/session-revoked": {
                    "event_timestamp": now, "reason_admin": {"en": "Policy Violation: C076E822"},
                }
            },
        });
        let Some(logouts) = mint("logout+jwt", &logout) else { continue };
        let events = mint("secevent+jwt", &event).unwrap();
        for (minted, is_logout) in [(logouts, true), (events, false)] {
            for one in minted {
                let key = VerificationKey::from_jwk(&one.public.to_string()).unwrap();
                let verifier = JwtVerifier::new([key], profile()).unwrap();
                let store = MemoryStore::new();
                let layer = JwtRevocationLayer::new(verifier.clone(), store.clone());
                let (revoker, guard) = (layer.revoker(), ReplayGuard::new(store));
                let (endpoint, kind, body, expected) = if is_logout {
                    let receiver = LogoutReceiver::new(revoker.clone(), guard);
                    let endpoint = receiver.with(verifier).unwrap().into_endpoint();
                    let body = format!("logout_token={}", one.token);
                    (endpoint, "application/x-www-form-urlencoded", body, 200)
                } else {
                    let subjects = SubjectRevoker::new(revoker.clone());
                    let receiver = EventReceiver::new(subjects, guard).with(verifier).unwrap();
                    (receiver.into_endpoint(), "application/secevent+jwt", one.token, 202)
                };
                let request = http::Request::post("/").header("content-type", kind);
                let request = request.body(http_body_util::Full::<bytes::Bytes>::from(body));
                let answer = endpoint.oneshot(request.unwrap()).await.unwrap();
                assert_eq!(answer.status(), expected, "{name} {}", one.alg);
                assert_eq!(revoker.count().await.unwrap(), 1, "{name} {}", one.alg);
            }
        }
    }
}

/// A client of the crate `oauth2`, as it is, against the endpoints that it needs.
#[cfg(feature = "endpoints")]
#[tokio::test]
async fn a_client_of_the_crate_oauth2_refreshes_asks_and_revokes() {
    use std::convert::Infallible;

    use bytes::Bytes;
    use http_body_util::{BodyExt as _, Full};
    use oauth2::basic::{BasicClient, BasicTokenType};
    use oauth2::{
        AccessToken, AuthType, ClientId, ClientSecret, HttpRequest, HttpResponse, IntrospectionUrl,
        RefreshToken, RevocationUrl, StandardRevocableToken, TokenIntrospectionResponse as _,
        TokenResponse as _, TokenUrl,
    };
    use tower::ServiceExt as _;
    use tower_jwt_revocation::endpoints::{ClientAuth, Endpoint};
    use tower_jwt_revocation::session::{Login, RefreshPolicy, SessionDetails, Sessions};
    use tower_jwt_revocation::{JwtRevocationLayer, MemoryStore};

    let key = SigningKey::from_secret(Algorithm::HS256, &[42; 32]).unwrap();
    let verifier = JwtVerifier::new([key.verification_key()], profile()).unwrap();
    let store = MemoryStore::new();
    let layer = JwtRevocationLayer::new(verifier, store.clone());
    let sessions = Sessions::new(store, layer.revoker(), RefreshPolicy::new()).unwrap();
    // What forms and Basic have to encode.
    let (id, secret) = ("client 1", "a+b:c%d/é");
    let clients = || ClientAuth::with_secret(id, secret);
    let issuer = TokenIssuer::new(key, profile()).unwrap();
    let token = Endpoint::refresh(sessions.clone(), issuer, clients());
    let revoke = Endpoint::token_revocation(&layer, Some(sessions.clone()), clients());
    let introspect = Endpoint::introspection(&layer, Some(sessions.clone()), clients());
    let http = |request: HttpRequest| {
        let endpoint = match request.uri().path() {
            "/token" => token.clone(),
            "/revoke" => revoke.clone(),
            _ => introspect.clone(),
        };
        async move {
            let answer = endpoint.oneshot(request.map(Full::<Bytes>::from)).await?;
            let (head, body) = answer.into_parts();
            let body = body.collect().await?.to_bytes().to_vec();
            Ok::<HttpResponse, Infallible>(http::Response::from_parts(head, body))
        }
    };
    let url = |path: &str| format!("https://id.example/{path}");
    for auth_type in [AuthType::BasicAuth, AuthType::RequestBody] {
        let client = BasicClient::new(ClientId::new(id.into()))
            .set_client_secret(ClientSecret::new(secret.into()))
            .set_auth_type(auth_type)
            .set_token_uri(TokenUrl::new(url("token")).unwrap())
            .set_revocation_url(RevocationUrl::new(url("revoke")).unwrap())
            .set_introspection_url(IntrospectionUrl::new(url("introspect")).unwrap());
        let mut details = SessionDetails::new();
        details.client = Some(id.into());
        let Login::Granted(grant) = sessions.login("alice", details).await.unwrap() else {
            panic!("refused")
        };
        let first = RefreshToken::new(grant.token.expose().to_owned());
        let tokens = client.exchange_refresh_token(&first).request_async(&http).await.unwrap();
        assert_eq!(*tokens.token_type(), BasicTokenType::Bearer);
        assert!(tokens.expires_in().is_some_and(|left| !left.is_zero()));
        let refresh = tokens.refresh_token().unwrap().clone();
        let is_active = async |token: &str| {
            let token = AccessToken::new(token.to_owned());
            client.introspect(&token).request_async(&http).await.unwrap().active()
        };
        let both = [tokens.access_token().secret().as_str(), refresh.secret().as_str()];
        for token in both {
            assert!(is_active(token).await);
        }
        layer.check(both[0]).await.unwrap();
        let revoked = StandardRevocableToken::RefreshToken(refresh.clone());
        client.revoke_token(revoked).unwrap().request_async(&http).await.unwrap();
        for token in both {
            assert!(!is_active(token).await);
        }
        layer.check(both[0]).await.unwrap_err();
        client.exchange_refresh_token(&refresh).request_async(&http).await.unwrap_err();
        let wrong = client.set_client_secret(ClientSecret::new("wrong".into()));
        wrong.exchange_refresh_token(&first).request_async(&http).await.unwrap_err();
    }
}

/// RFC 9864 §2.2 gives Ed25519 a name of its own beside `EdDSA`.
#[test]
fn ed25519_is_accepted_by_its_new_name() {
    let now = Timestamp::now().as_secs();
    let claims = json!({
        "iss": ISSUER, "aud": AUDIENCE, "sub": "alice", "jti": "1", "iat": now, "exp": now + 600,
    });
    let request = json!({"do": "mint", "algs": ["Ed25519"], "claims": claims});
    for name in ["jose", "joserfc"] {
        let Some(minted) = ask::<Vec<Minted>>(name, &request) else { continue };
        let [one] = &*minted else { panic!("one token") };
        let key = VerificationKey::from_jwk(&one.public.to_string()).unwrap();
        JwtVerifier::new([key], profile()).unwrap().verify(&one.token).unwrap();
    }
}

/// Key sets as identity providers publish them, with fresh keys. The one named `active` is
/// `tests/keys/rsa2048.pem`.
#[test]
fn the_right_keys_of_published_sets_are_used() {
    let key = SigningKey::from_pem(Algorithm::RS256, include_bytes!("keys/rsa2048.pem")).unwrap();
    let key = key.with_kid("active").unwrap();
    let issued = TokenIssuer::new(key, profile()).unwrap().issue(&NewToken::new("alice")).unwrap();
    for (provider, set, used, skipped) in [
        ("auth0", include_str!("interop/providers/auth0.json"), 2, &[][..]),
        ("cognito", include_str!("interop/providers/cognito.json"), 2, &[]),
        ("entra", include_str!("interop/providers/entra.json"), 3, &[]),
        ("google", include_str!("interop/providers/google.json"), 2, &[]),
        (
            "keycloak",
            include_str!("interop/providers/keycloak.json"),
            2,
            &["not for signatures", "crv"],
        ),
    ] {
        let keys = KeySet::from_jwk_set_lenient(set).unwrap();
        assert_eq!(keys.keys().len(), used, "{provider}");
        assert_eq!(keys.skipped().len(), skipped.len(), "{provider}: {:?}", keys.skipped());
        for (error, word) in keys.skipped().iter().zip(skipped) {
            assert!(error.to_string().contains(word), "{provider}: {error}");
        }
        let verifier = JwtVerifier::new(keys, profile()).unwrap();
        verifier.verify(issued.token()).unwrap_or_else(|error| panic!("{provider}: {error}"));
    }
}
