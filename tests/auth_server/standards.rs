//! What OAuth clients and identity providers send: the routes of the standards.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use jsonwebtoken::{Algorithm as Signed, EncodingKey, Header};
use serde_json::{Value, json};
use tower_jwt_revocation::clock::Timestamp;
use tower_jwt_revocation::{Algorithm, VerificationKey};

use crate::peers;
use crate::server::*;
use crate::support::RedisServer;

const OP: &str = "https://op.example";
const OP_AUD: &str = "our client id";
const SSF: &str = "https://events.example";
const SSF_AUD: &str = "https://receiver.example";
const SSF_TOKEN: &str = "the secret of the transmitter";
const CLIENT: &str = "client 1";
const SECRET: &str = "a secret: with %, + and spaces";
const FORM: &str = "application/x-www-form-urlencoded";
const LOGOUT: &str = "http://schemas.openid.net/event/backchannel-logout";
const CAEP: &str = "https://schemas.openid.net/secevent/caep/event-type/";
const RISC: &str = "https://schemas.openid.net/secevent/risc/event-type/";

/// The public key of the provider and of the transmitter, of the same name as the own one.
fn jwks() -> String {
    let key = VerificationKey::from_pem(Algorithm::ES256, include_bytes!("../keys/p256.pub.pem"))
        .unwrap();
    let jwk = key.with_kid("k1").unwrap().to_jwk().unwrap();
    let mut jwk: Value = serde_json::from_str(&jwk).unwrap();
    jwk.as_object_mut().unwrap().remove("alg");
    json!({ "keys": [jwk] }).to_string()
}

fn signed(claims: &Value, typ: Option<&str>) -> String {
    let _ = jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER.install_default();
    let mut header = Header::new(Signed::ES256);
    header.kid = Some("k1".into());
    header.typ = typ.map(Into::into);
    let pem = include_str!("../keys/p256.pem").lines().filter(|line| !line.starts_with('-'));
    let key = EncodingKey::from_ec_der(&STANDARD.decode(pem.collect::<String>()).unwrap());
    jsonwebtoken::encode(&header, claims, &key).unwrap()
}

fn now() -> u64 {
    Timestamp::now().as_secs()
}

/// An access token of the provider.
fn op_token(sub: &str, sid: Option<&str>, jti: &str) -> String {
    let mut claims = with(with(claims(sub, jti), "iss", OP), "aud", OP_AUD);
    if let Some(sid) = sid {
        claims["sid"] = sid.into();
    }
    signed(&claims, Some("at+jwt"))
}

/// A logout token: `who` is `sub`, `sid` or both.
fn logout_claims(jti: &str, who: &Value) -> Value {
    let mut claims = json!({
        "iss": OP, "aud": [OP_AUD], "iat": now(), "exp": now() + 120, "jti": jti,
        "events": { LOGOUT: {} },
    });
    claims.as_object_mut().unwrap().extend(who.as_object().unwrap().clone());
    claims
}

fn set_claims(jti: &str, subject: &Value, event: &str, details: &Value) -> Value {
    json!({
        "iss": SSF, "aud": SSF_AUD, "iat": now(), "jti": jti, "sub_id": subject,
        "events": { event: details },
    })
}

/// A client that is slow to send its request is no outage of the store.
#[tokio::test]
async fn a_body_that_comes_late_is_answered_as_any_other() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let server = start(None, &[("AUTH_REDIS_TIMEOUT_MS", "10")]);
    let address = server.url.strip_prefix("http://").unwrap();
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let basic = basic(CLIENT, SECRET);
    let head = format!(
        "POST /oauth/revoke HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\
         authorization: {basic}\r\ncontent-type: {FORM}\r\ncontent-length: 7\r\n\r\ntok"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    // Much longer than an answer may take that waits for the store.
    tokio::time::sleep(Duration::from_millis(500)).await;
    stream.write_all(b"en=x").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

fn start(redis: Option<&RedisServer>, more: &[(&str, &str)]) -> Server {
    let dir = Dir::new();
    std::fs::write(dir.path("op.json"), jwks()).unwrap();
    let path = dir.path("op.json");
    let all = [
        &[
            ("AUTH_CLIENT_ID", CLIENT),
            ("AUTH_CLIENT_SECRET", SECRET),
            ("AUTH_OP_ISS", OP),
            ("AUTH_OP_JWKS", &path),
            ("AUTH_OP_AUD", OP_AUD),
            ("AUTH_SSF_ISS", SSF),
            ("AUTH_SSF_JWKS", &path),
            ("AUTH_SSF_AUD", SSF_AUD),
            ("AUTH_SSF_TOKEN", SSF_TOKEN),
        ],
        more,
    ]
    .concat();
    match redis {
        Some(redis) => Server::on_in(&dir, redis, &all),
        None => Server::start_in(&dir, &all),
    }
}

fn encoded(text: &str) -> String {
    let bytes: Vec<_> = text.bytes().map(|byte| format!("%{byte:02X}")).collect();
    bytes.concat()
}

fn form(fields: &[(&str, &str)]) -> String {
    let pairs = fields.iter().map(|(name, value)| format!("{name}={}", encoded(value)));
    pairs.collect::<Vec<_>>().join("&")
}

fn basic(id: &str, secret: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{}:{}", encoded(id), encoded(secret))))
}

impl Server {
    fn typed(
        &self,
        path: &str,
        content_type: &str,
        authorization: Option<&str>,
        body: impl Into<Bytes>,
    ) -> Request<Full<Bytes>> {
        let mut request = self.request("POST", path, None, body);
        let headers = request.headers_mut();
        headers.insert("content-type", content_type.parse().unwrap());
        if let Some(authorization) = authorization {
            headers.insert("authorization", authorization.parse().unwrap());
        }
        request
    }

    async fn client(&self, path: &str, fields: &[(&str, &str)]) -> Answer {
        let request = self.typed(path, FORM, Some(&basic(CLIENT, SECRET)), form(fields));
        let answer = self.send(request).await;
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        answer
    }

    async fn introspect(&self, token: &str) -> Value {
        self.client("/oauth/introspect", &[("token", token)]).await.is(200).json()
    }

    async fn back_channel(&self, token: &str) -> Answer {
        let body = form(&[("logout_token", token), ("unknown", "field")]);
        let answer = self.send(self.typed("/backchannel-logout", FORM, None, body)).await;
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        answer
    }

    async fn push(&self, claims: &Value) -> Answer {
        self.push_token(&signed(claims, Some("secevent+jwt"))).await
    }

    async fn push_token(&self, token: &str) -> Answer {
        let bearer = format!("Bearer {SSF_TOKEN}");
        let content_type = "application/secevent+jwt";
        let token = token.to_owned();
        let answer = self.send(self.typed("/ssf/push", content_type, Some(&bearer), token)).await;
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        answer
    }

    async fn gtr(&self, body: &str) -> Answer {
        let bearer = format!("Bearer {ADMIN}");
        let path = "/global-token-revocation";
        let body = body.to_owned();
        self.send(self.typed(path, "application/json", Some(&bearer), body)).await
    }

    async fn passes(&self, token: &str) -> bool {
        match self.protected(token).await.status {
            200 => true,
            401 => false,
            other => panic!("{other}"),
        }
    }
}

async fn on_both(more: &[(&str, &str)], test: impl AsyncFn(&Server)) {
    test(&start(None, more)).await;
    let redis = RedisServer::start();
    test(&start(Some(&redis), more)).await;
}

#[tokio::test]
async fn a_client_refreshes_asks_and_revokes() {
    on_both(&[], async |server| {
        let tokens = server.login("alice").await;
        let told = server.introspect(&tokens.access).await;
        assert_eq!((&told["active"], &told["sub"]), (&json!(true), &json!("alice")), "{told}");
        assert_eq!(told["token_type"], "Bearer");
        let told = server.introspect(&tokens.refresh).await;
        assert_eq!((&told["active"], &told["sub"]), (&json!(true), &json!("alice")), "{told}");

        let grant = [("grant_type", "refresh_token"), ("refresh_token", &*tokens.refresh)];
        let answer = server.client("/oauth/token", &grant).await.is(200).json();
        assert_eq!((&answer["token_type"], &answer["expires_in"]), (&json!("Bearer"), &json!(300)));
        let next = answer["refresh_token"].as_str().unwrap();
        let access = answer["access_token"].as_str().unwrap();
        assert!(server.passes(access).await);
        let inactive = json!({ "active": false });
        assert_eq!(server.introspect(&tokens.refresh).await, inactive, "it was used");
        assert_eq!(server.introspect(next).await["active"], true, "asking has ended nothing");
        for nothing in ["nonsense", "a.b.c", "ä"] {
            assert_eq!(server.introspect(nothing).await, inactive);
        }

        server.client("/oauth/revoke", &[("token", access)]).await.is(200);
        assert!(!server.passes(access).await && server.passes(&tokens.access).await);
        assert_eq!(server.introspect(access).await, inactive);
        let hinted = [("token", next), ("token_type_hint", "access_token")];
        server.client("/oauth/revoke", &hinted).await.is(200);
        assert!(!server.passes(&tokens.access).await, "the family has ended");
        assert_invalid_grant(server.refresh(next).await);
        server.client("/oauth/revoke", &[("token", next)]).await.is(200);
        server.client("/oauth/revoke", &[("token", "unknown")]).await.is(200);

        // A token that is used again ends its family, as at `/refresh`.
        let tokens = server.login("bob").await;
        let grant = [("grant_type", "refresh_token"), ("refresh_token", &*tokens.refresh)];
        server.client("/oauth/token", &grant).await.is(200);
        let refused = server.client("/oauth/token", &grant).await.is(400).json();
        assert_eq!(refused["error"], "invalid_grant");
        assert!(!server.passes(&tokens.access).await);
    })
    .await;
}

#[tokio::test]
async fn tokens_of_others_are_active_and_can_be_revoked_by_the_client() {
    let server = start(None, &[]);
    let foreign_token = foreign(&claims("carol", "f1"));
    let op = op_token("carol", Some("s1"), "o1");
    for token in [&foreign_token, &op] {
        assert!(server.passes(token).await);
        assert_eq!(server.introspect(token).await["active"], true);
        server.client("/oauth/revoke", &[("token", token)]).await.is(200);
        assert!(!server.passes(token).await);
        assert_eq!(server.introspect(token).await, json!({ "active": false }));
    }
    assert_eq!(server.introspect(&op_token("x", None, "o2")).await["iss"], OP);
    // RFC 7009 §2.2, with a token that is not valid yet.
    let later = with(claims("dave", "f2"), "nbf", now() + 100);
    server.client("/oauth/revoke", &[("token", &foreign(&later))]).await.is(200);
    assert!(!server.passes(&foreign(&claims("dave", "f2"))).await);
}

#[tokio::test]
async fn clients_are_known_by_their_secret_alone() {
    let server = start(None, &[]);
    let tokens = server.login("alice").await;
    for path in ["/oauth/revoke", "/oauth/introspect", "/oauth/token"] {
        let fields = [
            ("token", &*tokens.access),
            ("grant_type", "refresh_token"),
            ("refresh_token", &*tokens.refresh),
        ];
        let body = form(&fields);
        let post = async |authorization: Option<&str>, body: String| {
            server.send(server.typed(path, FORM, authorization, body)).await
        };
        let wrong = basic(CLIENT, "wrong");
        let another = basic("another", SECRET);
        let odd = ["Basic !", "Bearer x", "Basic", &wrong, &another];
        for authorization in odd.map(Some).into_iter().chain([None]) {
            let refused = post(authorization, body.clone()).await.is(401);
            assert!(refused.header("www-authenticate").unwrap().starts_with("Basic"));
            assert_eq!(refused.json(), json!({ "error": "invalid_client" }));
        }
        let both = format!("{body}&client_secret=x");
        post(Some(&basic(CLIENT, SECRET)), both).await.is(400);
        let another = format!("{body}&client_id=another");
        post(Some(&basic(CLIENT, SECRET)), another).await.is(400);
        let in_form = form(&[("client_id", CLIENT), ("client_secret", "wrong")]);
        post(None, format!("{body}&{in_form}")).await.is(401);

        let known = Some(basic(CLIENT, SECRET));
        for odd in [form(&[("other", "x")]), format!("{body}&{body}"), "token=%".into()] {
            post(known.as_deref(), odd).await.is(400);
        }
        let json = server.typed(path, "application/json", known.as_deref(), body.clone());
        assert_eq!(server.send(json).await.is(400).json()["error"], "invalid_request");
        let large = format!("token={}", "x".repeat(65 * 1024));
        post(known.as_deref(), large).await.is(413);
        let allowed = server.get(path, None).await.is(405);
        assert_eq!(allowed.header("allow"), Some("POST"));
    }
    assert!(server.passes(&tokens.access).await, "nothing of it had an effect");
    let in_form = [("client_id", CLIENT), ("client_secret", SECRET), ("token", &*tokens.access)];
    let request = server.typed("/oauth/introspect", FORM, None, form(&in_form));
    assert_eq!(server.send(request).await.is(200).json()["active"], true);
    // Many clients do not encode what they put into `Basic`.
    let plain = format!("Basic {}", STANDARD.encode(format!("{CLIENT}:{SECRET}")));
    let body = form(&[("token", &*tokens.access)]);
    server.send(server.typed("/oauth/revoke", FORM, Some(&plain), body)).await.is(200);
    assert!(!server.passes(&tokens.access).await);
    let unsupported = server.client("/oauth/token", &[("grant_type", "password")]).await.is(400);
    assert_eq!(unsupported.json()["error"], "unsupported_grant_type");
}

#[tokio::test]
async fn a_logout_at_the_provider_ends_the_session_or_the_user_there() {
    on_both(&[], async |server| {
        let own = server.login("alice").await;
        let token = |sid, jti| op_token("alice", sid, jti);
        let (first, second) = (token(Some("s1"), "t1"), token(Some("s2"), "t2"));
        let bob = op_token("bob", Some("s3"), "t3");
        for token in [&first, &second, &bob] {
            assert!(server.passes(token).await);
        }
        let both = json!({ "sub": "alice", "sid": "s1" });
        let logout = signed(&logout_claims("l1", &both), Some("logout+jwt"));
        let done = server.back_channel(&logout).await.is(200);
        assert!(done.body.is_empty());
        assert!(!server.passes(&first).await && server.passes(&second).await);
        let again = server.back_channel(&logout).await.is(400);
        assert_eq!(again.json()["error"], "invalid_request");

        let user = json!({ "sub": "alice" });
        server.back_channel(&signed(&logout_claims("l2", &user), None)).await.is(200);
        assert!(!server.passes(&second).await && server.passes(&bob).await);
        assert!(server.passes(&own.access).await, "another issuer's alice is another user");
        server.refreshed(&own.refresh).await;
        // Whoever is not signed in has been logged out.
        let nobody = logout_claims("l3", &json!({ "sid": "unknown" }));
        server.back_channel(&signed(&nobody, Some("JWT"))).await.is(200);
    })
    .await;
}

#[tokio::test]
async fn what_is_no_logout_token_is_refused_and_ends_nothing() {
    let server = start(None, &[]);
    let access = op_token("alice", Some("s1"), "t1");
    let who = json!({ "sub": "alice", "sid": "s1" });
    let good = logout_claims("l1", &who);
    let without = |name: &str| {
        let mut claims = good.clone();
        claims.as_object_mut().unwrap().remove(name);
        claims
    };
    let neither = logout_claims("l1", &json!({}));
    let mut refused: Vec<String> = [
        without("iss"),
        without("aud"),
        without("iat"),
        without("exp"),
        without("jti"),
        without("events"),
        neither,
        with(good.clone(), "nonce", "n"),
        with(good.clone(), "nonce", Value::Null),
        with(good.clone(), "iss", SSF),
        with(good.clone(), "aud", "another"),
        with(good.clone(), "exp", now() - 61),
        with(good.clone(), "exp", now() + 1_000_000),
        with(good.clone(), "iat", now() + 200),
        with(good.clone(), "events", json!({ LOGOUT: null })),
        with(good.clone(), "events", json!({ LOGOUT.replace("http", "https"): {} })),
        with(good.clone(), "events", json!([LOGOUT])),
        with(good.clone(), "sid", 7),
        with(good.clone(), "sid", ""),
        with(good.clone(), "sub", "x".repeat(1025)),
        with(good.clone(), "jti", ""),
    ]
    .iter()
    .map(|claims| signed(claims, Some("logout+jwt")))
    .collect();
    for typ in ["at+jwt", "secevent+jwt", "dpop+jwt"] {
        refused.push(signed(&good, Some(typ)));
    }
    refused.push(access.clone());
    refused.push(foreign(&good));
    let token = signed(&good, Some("logout+jwt"));
    let (input, _) = token.rsplit_once('.').unwrap();
    refused.push(format!("{input}.{}", "A".repeat(86)));
    refused.push("nonsense".into());
    for token in &refused {
        let answer = server.back_channel(token).await.is(400);
        assert_eq!(answer.json()["error"], "invalid_request");
        assert!(server.passes(&access).await);
    }
    let post = async |content_type: &str, body: String| {
        server.send(server.typed("/backchannel-logout", content_type, None, body)).await.status
    };
    let field = form(&[("logout_token", &token)]);
    assert_eq!(post("application/json", field.clone()).await, 400);
    assert_eq!(post(FORM, format!("{field}&{field}")).await, 400);
    assert_eq!(post(FORM, String::new()).await, 400);
    assert_eq!(post(FORM, format!("logout_token={}", "x".repeat(65 * 1024))).await, 413);
    server.get("/backchannel-logout", None).await.is(405);
    server.back_channel(&token).await.is(200);
    assert!(!server.passes(&access).await);
    assert!(!server.logs().contains("alice"), "nothing of a token is logged");
    assert!(!server.passes(&token).await, "a logout token is no access token");
}

#[tokio::test]
async fn the_sign_outs_of_this_server_stay_inside_one_issuer() {
    for more in [&[][..], &[("AUTH_ISS", "https://own.example")]] {
        let server = start(None, more);
        let own = server.login("alice").await;
        let op = op_token("alice", Some(&own.session), "t1");
        assert_eq!(server.get("/sessions", Some(&op)).await.is(200).json(), json!([]));
        let path = format!("/sessions/{}", own.session);
        server.send(server.request("DELETE", &path, Some(&op), "")).await.is(404);
        server.post("/logout", Some(&op), json!({})).await.is(204);
        assert!(!server.passes(&op).await && server.passes(&own.access).await);
        let without_session = op_token("alice", None, "t2");
        let (third, fourth) = (op_token("alice", None, "t3"), op_token("alice", Some("s"), "t4"));
        server.post("/logout", Some(&without_session), json!({})).await.is(204);
        assert!(!server.passes(&without_session).await && server.passes(&third).await);
        server.admin("revoke_session", json!({ "session_id": "s", "iss": OP })).await.is(204);
        assert!(!server.passes(&fourth).await);
        server.admin("revoke_user", json!({ "sub": "alice" })).await.is(204);
        assert!(!server.passes(&own.access).await && server.passes(&third).await);
        server.admin("revoke_user", json!({ "sub": "alice", "iss": OP })).await.is(204);
        assert!(!server.passes(&third).await);
        let own = server.login("alice").await;
        let mut op = with(with(claims("alice", "t5"), "iss", OP), "aud", OP_AUD);
        op["iat"] = (now() + 1).into();
        let op = signed(&op, None);
        server.post("/logout_all", Some(&op), json!({})).await.is(204);
        assert!(server.passes(&own.access).await);
        let jti = op_token("bob", None, "t6");
        server.admin("revoke", json!({ "jti": "t6" })).await.is(204);
        assert!(server.passes(&jti).await, "the id of a token is that of this server");
        server.admin("revoke", json!({ "jti": "t6", "iss": OP })).await.is(204);
        assert!(!server.passes(&jti).await);
    }
}

#[tokio::test]
async fn events_end_what_their_subject_names_and_no_more() {
    on_both(&[("AUTH_ISS", "https://own.example")], async |server| {
        let revoked = &format!("{CAEP}session-revoked");
        let timed = |at: u64| json!({ "event_timestamp": at });
        let iss_sub = |iss: &str, sub: &str| json!({"format":"iss_sub","iss":iss,"sub":sub});
        let opaque = |id: &str| json!({"format":"opaque","id":id});

        // Of a user, up to when it happened.
        let alice = server.login("alice").await;
        let bob = server.login("bob").await;
        let op = op_token("alice", Some("s1"), "t1");
        let early = set_claims("e1", &opaque("alice"), revoked, &timed(now() - 100));
        server.push(&early).await.is(202);
        assert!(server.passes(&alice.access).await, "it was before this login");
        let late = set_claims("e2", &opaque("alice"), revoked, &timed(now() + 1000));
        server.push(&late).await.is(202);
        assert!(!server.passes(&alice.access).await && server.passes(&bob.access).await);
        assert!(server.passes(&op).await);
        assert_invalid_grant(server.refresh(&alice.refresh).await);
        tokio::time::sleep(Duration::from_millis(1100)).await;
        let alice = server.login("alice").await;
        assert!(server.passes(&alice.access).await, "no event reaches beyond now");
        server.push(&late).await.is(202);
        assert!(server.passes(&alice.access).await);

        // Of the other issuer, and of a third one.
        let third = iss_sub("https://third.example", "alice");
        server.push(&set_claims("e3", &third, revoked, &json!({}))).await.is(202);
        assert!(server.passes(&alice.access).await && server.passes(&op).await);
        server.push(&set_claims("e4", &iss_sub(OP, "alice"), revoked, &json!({}))).await.is(202);
        assert!(server.passes(&alice.access).await && !server.passes(&op).await);
        let own = iss_sub("https://own.example", "bob");
        let purged = format!("{RISC}account-purged");
        server.push(&set_claims("e5", &own, &purged, &json!({}))).await.is(202);
        assert!(!server.passes(&bob.access).await);

        // A session, if it is of the user who is named.
        let complex = |user: &Value, session: &str| {
            json!({"format":"complex","user":user,"session":opaque(session),"tenant":opaque("x")})
        };
        let second = server.login("alice").await;
        let others = complex(&opaque("carol"), &alice.session);
        server.push(&set_claims("e6", &others, revoked, &json!({}))).await.is(202);
        assert!(server.passes(&alice.access).await);
        let session = complex(&iss_sub("https://own.example", "alice"), &alice.session);
        server.push(&set_claims("e7", &session, revoked, &json!({}))).await.is(202);
        assert!(!server.passes(&alice.access).await && server.passes(&second.access).await);
        assert_invalid_grant(server.refresh(&alice.refresh).await);
        let op = op_token("dave", Some("s9"), "t9");
        let session = complex(&iss_sub(OP, "dave"), "s9");
        server.push(&set_claims("e8", &session, revoked, &json!({}))).await.is(202);
        assert!(!server.passes(&op).await);

        // One token.
        let (one, another) = (op_token("erin", None, "j1"), op_token("erin", None, "j2"));
        let changed = format!("{CAEP}token-claims-change");
        let token = json!({"format":"jwt_id","iss":OP,"jti":"j1"});
        let details = json!({ "claims": { "role": "guest" } });
        server.push(&set_claims("e9", &token, &changed, &details)).await.is(202);
        assert!(!server.passes(&one).await && server.passes(&another).await);

        // What has no effect here.
        let verification = "https://schemas.openid.net/secevent/ssf/event-type/verification";
        let enabled = format!("{RISC}account-enabled");
        let created = format!("{CAEP}credential-change");
        for (jti, event, details) in [
            ("n1", verification, json!({ "state": "x" })),
            ("n2", "https://example.com/unknown", json!({})),
            ("n3", &*enabled, json!({})),
            (
                "n4",
                &*created,
                json!({ "change_type": "create", "credential_type": "fido2-roaming" }),
            ),
        ] {
            server.push(&set_claims(jti, &opaque("alice"), event, &details)).await.is(202);
            assert!(server.passes(&second.access).await, "{event}");
        }
        let email = json!({ "format": "email", "email": "alice@example.com" });
        server.push(&set_claims("n5", &email, revoked, &json!({}))).await.is(202);
        assert!(server.passes(&second.access).await);
    })
    .await;
}

#[tokio::test]
async fn what_is_no_event_is_refused_with_its_code() {
    let server = start(None, &[]);
    let own = server.login("alice").await;
    let event = format!("{CAEP}session-revoked");
    let subject = json!({"format":"opaque","id":"alice"});
    let good = set_claims("e1", &subject, &event, &json!({}));
    let cases = [
        (with(good.clone(), "iss", OP), "invalid_issuer"),
        (with(good.clone(), "aud", "another"), "invalid_audience"),
        (with(good.clone(), "sub", "alice"), "invalid_request"),
        (with(good.clone(), "exp", now() + 100), "invalid_request"),
        (with(good.clone(), "jti", 7), "invalid_request"),
        (with(good.clone(), "iat", "now"), "invalid_request"),
        (with(good.clone(), "events", json!({})), "invalid_request"),
        (with(good.clone(), "events", json!({ &event: 7 })), "invalid_request"),
        (with(good.clone(), "sub_id", json!({"id":"alice"})), "invalid_request"),
        (with(good.clone(), "sub_id", json!({"format":"opaque"})), "invalid_request"),
        (with(good.clone(), "sub_id", "alice"), "invalid_request"),
        (
            with(good.clone(), "events", json!({ &event: { "event_timestamp": "now" } })),
            "invalid_request",
        ),
    ];
    for (claims, code) in cases {
        let answer = server.push(&claims).await.is(400).json();
        assert_eq!(answer["err"], code, "{claims}");
        assert!(answer["description"].is_string());
    }
    for typ in [None, Some("JWT"), Some("logout+jwt"), Some("at+jwt")] {
        let answer = server.push_token(&signed(&good, typ)).await.is(400);
        assert_eq!(answer.json()["err"], "invalid_request");
    }
    let token = signed(&good, Some("secevent+jwt"));
    let (input, _) = token.rsplit_once('.').unwrap();
    let forged = server.push_token(&format!("{input}.{}", "A".repeat(86))).await.is(400);
    assert_eq!(forged.json()["err"], "authentication_failed");
    let unknown = foreign_with(&good, |header| {
        header.typ = Some("secevent+jwt".into());
        header.kid = Some("k2".into());
    });
    assert_eq!(server.push_token(&unknown).await.is(400).json()["err"], "invalid_key");

    let post = async |content_type: &str, authorization: Option<&str>, body: String| {
        server.send(server.typed("/ssf/push", content_type, authorization, body)).await
    };
    let secevent = "application/secevent+jwt";
    for authorization in [None, Some("Bearer wrong"), Some("Basic x"), Some(SSF_TOKEN)] {
        let refused = post(secevent, authorization, token.clone()).await.is(401);
        assert!(refused.header("www-authenticate").is_some());
    }
    let bearer = format!("Bearer {SSF_TOKEN}");
    post("application/json", Some(&bearer), token.clone()).await.is(400);
    post(secevent, Some(&bearer), "x".repeat(65 * 1024)).await.is(413);
    assert!(server.passes(&own.access).await, "nothing of it had an effect");
    post(secevent, Some(&bearer), token).await.is(202);
    assert!(!server.passes(&own.access).await);
}

#[tokio::test]
async fn all_of_a_user_is_revoked_on_request() {
    let server = start(None, &[]);
    let (own, op) = (server.login("alice").await, op_token("alice", None, "t1"));
    let bob = server.login("bob").await;
    for odd in [
        "",
        "{}",
        "[]",
        r#"{"sub_id":{"format":"opaque"}}"#,
        r#"{"sub_id":"alice"}"#,
        r#"{"sub_id":{"format":"email","email":"alice@example.com"}}"#,
        r#"{"sub_id":{"format":"opaque","id":"alice"},"sub_id":{"format":"opaque","id":"bob"}}"#,
        r#"{"sub_id":{"format":"opaque","id":"alice","id":"bob"}}"#,
    ] {
        server.gtr(odd).await.is(400);
    }
    let unknown =
        json!({"sub_id":{"format":"iss_sub","iss":"https://third.example","sub":"alice"}});
    server.gtr(&unknown.to_string()).await.is(404);
    assert!(server.passes(&own.access).await);
    server.gtr(r#"{"subject":{"format":"opaque","id":"alice"}}"#).await.is(204);
    assert!(!server.passes(&own.access).await && server.passes(&op).await);
    assert_invalid_grant(server.refresh(&own.refresh).await);
    let of_op = json!({"sub_id":{"format":"iss_sub","iss":OP,"sub":"alice"}}).to_string();
    server.gtr(&of_op).await.is(204);
    assert!(!server.passes(&op).await && server.passes(&bob.access).await);
    server.gtr(&"x".repeat(65 * 1024)).await.is(413);
    let path = "/global-token-revocation";
    let request = server.typed(path, "application/json", Some("Bearer wrong"), of_op.clone());
    server.send(request).await.is(401);
    let alone = Server::start(&[]);
    alone.gtr(&of_op).await.is(404);
}

#[tokio::test]
async fn clients_find_out_where_things_are() {
    let dir = Dir::new();
    let own = include_str!("../keys/auth_server_jwks.json");
    std::fs::write(dir.path("jwks.json"), own).unwrap();
    let env = [
        ("AUTH_ISS", "https://own.example"),
        ("AUTH_CLIENT_ID", CLIENT),
        ("AUTH_CLIENT_SECRET", SECRET),
        ("AUTH_RESOURCE", "https://api.example/v1"),
    ];
    let server = Server::start_in(&dir, &env);
    let jwks = server.get("/.well-known/jwks.json", None).await.is(200);
    assert_eq!(jwks.header("cache-control"), Some("no-store"));
    let own: Value = serde_json::from_str(own).unwrap();
    let public: Vec<_> =
        own["keys"].as_array().unwrap().iter().filter(|key| key["kty"] != "oct").collect();
    let jwks = jwks.json();
    let published = jwks["keys"].as_array().unwrap();
    assert_eq!(published.len(), public.len());
    for (key, expected) in published.iter().zip(public) {
        for name in ["kty", "kid", "alg", "crv", "n", "e", "x", "y"] {
            assert_eq!(key.get(name), expected.get(name), "{name}");
        }
        for private in ["d", "p", "q", "dp", "dq", "qi", "oth", "k"] {
            assert!(key.get(private).is_none(), "{private}");
        }
    }
    let document = server.get("/.well-known/oauth-authorization-server", None).await.is(200).json();
    assert_eq!(document["issuer"], "https://own.example");
    for (name, path) in [
        ("token_endpoint", "oauth/token"),
        ("revocation_endpoint", "oauth/revoke"),
        ("introspection_endpoint", "oauth/introspect"),
        ("jwks_uri", ".well-known/jwks.json"),
    ] {
        assert_eq!(document[name], format!("https://own.example/{path}"));
    }
    assert_eq!(document["grant_types_supported"], json!(["refresh_token"]));
    for path in ["", "/v1"] {
        let path = format!("/.well-known/oauth-protected-resource{path}");
        let document = server.get(&path, None).await.is(200).json();
        assert_eq!(document["resource"], "https://api.example/v1");
        assert_eq!(document["authorization_servers"], json!(["https://own.example"]));
    }
    let refused = server.get("/protected", None).await.is(401);
    let metadata = "https://api.example/.well-known/oauth-protected-resource/v1";
    let challenge = refused.header("www-authenticate").unwrap();
    assert!(challenge.contains(&format!("resource_metadata=\"{metadata}\"")), "{challenge}");
    server.post("/.well-known/jwks.json", None, json!({})).await.is(405);

    let plain = Server::start(&[]);
    assert_eq!(
        plain.get("/.well-known/jwks.json", None).await.is(200).json(),
        json!({ "keys": [] })
    );
    for path in [
        "/oauth/token",
        "/oauth/revoke",
        "/oauth/introspect",
        "/backchannel-logout",
        "/ssf/push",
        "/.well-known/oauth-authorization-server",
        "/.well-known/oauth-protected-resource",
    ] {
        plain.get(path, None).await.is(404);
        plain.post(path, None, json!({})).await.is(404);
    }
}

/// Lets clients of other libraries refresh, ask and revoke, who know nothing but the metadata.
async fn drive(library: &str, program: &'static str, methods: &[&str]) {
    if !peers::is_there(library) {
        return;
    }
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let (listen, issuer) = (format!("127.0.0.1:{port}"), format!("http://127.0.0.1:{port}"));
    let server = start(None, &[("AUTH_LISTEN", &listen), ("AUTH_ISS", &issuer)]);
    for method in methods {
        let tokens = server.login("alice").await;
        let request = json!({
            "url": issuer, "client_id": CLIENT, "client_secret": SECRET, "method": method,
            "refresh_token": tokens.refresh,
        });
        let asked = move || peers::ask(program, &request);
        let answer = tokio::task::spawn_blocking(asked).await.unwrap();
        assert!(answer["token_type"].as_str().unwrap().eq_ignore_ascii_case("bearer"));
        if library == "appauth" {
            // It does not introspect.
            assert_eq!(answer["revoked"], true);
        } else {
            assert_eq!(answer["before"], json!([true, true]));
            assert_eq!(answer["after"], json!([false, false]));
        }
        assert!(!server.passes(answer["access_token"].as_str().unwrap()).await);
    }
}

const METHODS: [&str; 2] = ["client_secret_basic", "client_secret_post"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_of_authlib_refreshes_asks_and_signs_out() {
    drive("authlib", "authlib_client.py", &METHODS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_of_openid_client_refreshes_asks_and_signs_out() {
    drive("openid-client", "openid_client.mjs", &METHODS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_of_appauth_refreshes_and_signs_out() {
    drive("appauth", "appauth_client.mjs", &METHODS[1..]).await;
}

#[tokio::test]
async fn without_redis_nothing_is_acknowledged_and_later_it_is_carried_out() {
    let mut redis = RedisServer::start();
    let server = start(Some(&redis), &[("AUTH_ON_OUTAGE", "open")]);
    let own = server.login("alice").await;
    let op = op_token("bob", Some("s1"), "t1");
    assert!(server.passes(&op).await);
    let logout = signed(&logout_claims("l1", &json!({ "sid": "s1" })), Some("logout+jwt"));
    let event = format!("{CAEP}session-revoked");
    let set = set_claims("e1", &json!({"format":"opaque","id":"alice"}), &event, &json!({}));
    redis.kill();
    let grant = [("grant_type", "refresh_token"), ("refresh_token", &*own.refresh)];
    let global = r#"{"sub_id":{"format":"opaque","id":"alice"}}"#;
    let limit = BUDGET * 3;
    server.back_channel(&logout).await.is_unavailable().in_time(limit);
    server.push(&set).await.is_unavailable().in_time(limit);
    server.gtr(global).await.is_unavailable().in_time(limit);
    server.client("/oauth/token", &grant).await.is_unavailable().in_time(limit);
    for token in [&own.access, &own.refresh] {
        let asked = [("token", &**token)];
        server.client("/oauth/introspect", &asked).await.is_unavailable().in_time(limit);
        server.client("/oauth/revoke", &asked).await.is_unavailable().in_time(limit);
    }
    // What was never a token is inactive whatever the store would say; to wait would not help.
    for junk in ["nonsense", "a.b.c"] {
        assert_eq!(server.introspect(junk).await, json!({ "active": false }));
    }
    redis.restart();
    let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
    while server.back_channel(&logout).await.status != 200 {
        assert!(tokio::time::Instant::now() < deadline, "it has not recovered");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    server.push(&set).await.is(202);
    server.back_channel(&logout).await.is(400);
}

#[test]
fn a_group_that_is_half_set_is_told_by_name() {
    let dir = Dir::new();
    std::fs::write(dir.path("op.json"), jwks()).unwrap();
    let path = dir.path("op.json");
    let op = [("AUTH_OP_ISS", OP), ("AUTH_OP_JWKS", &*path), ("AUTH_OP_AUD", OP_AUD)];
    let ssf = [
        ("AUTH_SSF_ISS", SSF),
        ("AUTH_SSF_JWKS", &*path),
        ("AUTH_SSF_AUD", SSF_AUD),
        ("AUTH_SSF_TOKEN", SSF_TOKEN),
    ];
    let client = [("AUTH_CLIENT_ID", CLIENT), ("AUTH_CLIENT_SECRET", SECRET)];
    let mut cases = Vec::new();
    for group in [&op[..], &ssf, &client] {
        for missing in 0..group.len() {
            let mut env = group.to_vec();
            cases.push((env.remove(missing).0, env));
        }
    }
    cases.push(("AUTH_OP_JWKS", vec![op[0], ("AUTH_OP_JWKS", "/nowhere"), op[2]]));
    cases.push(("AUTH_OP_ISS", [&op[..], &[("AUTH_ISS", OP)]].concat()));
    cases.push(("AUTH_RESOURCE", vec![("AUTH_RESOURCE", "api")]));
    cases.push(("AUTH_RESOURCE", vec![("AUTH_RESOURCE", "http://api.example")]));
    cases.push(("AUTH_RESOURCE", vec![("AUTH_RESOURCE", "https://api.example/#a")]));
    for (name, env) in cases {
        let ended = command(&dir, &env).output().unwrap();
        let told = String::from_utf8(ended.stderr).unwrap();
        assert!(!ended.status.success() && told.contains(name), "{name}: {told}");
    }
}
