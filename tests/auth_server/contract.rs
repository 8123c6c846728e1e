//! The contract, row by row, in memory and on Redis.

use std::time::{Duration, Instant};

use crate::support::{self, RedisServer};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};
use tower_jwt_revocation::clock::Timestamp;

use crate::server::*;

async fn public_routes(server: &Server) {
    server.get("/healthz", None).await.is(200);
    let ready = server.get("/readyz", None).await.is(200).json();
    assert_eq!((&ready["ready"], &ready["degraded"]), (&json!(true), &json!(false)));
    assert!(ready["warnings"].is_array());
    assert_eq!(server.handler_calls().await, 0);
    let stats = server.get("/debug/stats", None).await.is(200).json();
    for name in ["checks", "refused_revoked", "store_errors", "admitted_unchecked"] {
        assert!(stats[name].is_u64(), "{name}: {stats}");
    }
    assert!(
        server
            .get("/", None)
            .await
            .is(200)
            .header("content-type")
            .unwrap()
            .starts_with("text/html")
    );
    server.get("/nowhere", None).await.is(404);
    for odd in [
        "",
        "{",
        "[]",
        "null",
        "7",
        "{}",
        r#"{"sub":7}"#,
        r#"{"sub":""}"#,
        r#"{"sub":"a","device":{}}"#,
        r#"{"sub":"a","sub":"b"}"#,
    ] {
        server.send(server.request("POST", "/login", None, odd)).await.is(400);
    }
    server.post("/login", None, json!({ "sub": "x".repeat(1025) })).await.is(400);
    let token = server.login("alice").await.refresh;
    server.post("/login", None, json!({ "sub": "alice", "device": token })).await.is(400);
    server
        .post("/login", None, json!({ "sub": "alice", "device": "x".repeat(5000) }))
        .await
        .is(400);
    server.send(server.request("POST", "/login", None, vec![b' '; 1024 * 1024 + 1])).await.is(413);
    server.get("/login", None).await.is(405);
    Tokens::of(
        &server.post("/login", None, json!({ "sub": "no device", "device": null })).await.is(200),
    );
}

async fn what_the_layer_answers(server: &Server) {
    let tokens = server.login("alice").await;
    let calls = server.handler_calls().await;
    for path in ["/protected", "/protected/slow?ms=1", "/sessions"] {
        let answer = server.get(path, None).await.is(401);
        assert_eq!(answer.header("www-authenticate"), Some("Bearer realm=\"auth\""));
        assert_eq!(answer.header("cache-control"), Some("no-store"));
    }
    let mut request = server.request("GET", "/protected", None, "");
    request.headers_mut().insert("authorization", "Basic YTpi".parse().unwrap());
    assert_eq!(
        server.send(request).await.is(401).header("www-authenticate"),
        Some("Bearer realm=\"auth\"")
    );
    for odd in ["Bearer", "Bearer a b"] {
        let mut request = server.request("GET", "/protected", None, "");
        request.headers_mut().insert("authorization", odd.parse().unwrap());
        let status = server.send(request).await.status;
        assert!(matches!(status, 400 | 401), "{odd}: {status}");
    }
    let mut request = server.request("GET", "/protected", Some(&tokens.access), "");
    request
        .headers_mut()
        .append("authorization", format!("Bearer {}", tokens.access).parse().unwrap());
    assert!(matches!(server.send(request).await.status, 400 | 401));

    let now = Timestamp::now().as_secs();
    let fine = claims("alice", "fine");
    let refused = [
        "nonsense".to_owned(),
        tokens.refresh.clone(),
        format!("{}x", tokens.access),
        foreign(&with(with(fine.clone(), "iat", now - 1000), "exp", now - 100)),
        foreign(&with(fine.clone(), "nbf", now + 100)),
        foreign(&with(fine.clone(), "exp", now + 90_000)),
        foreign(&with(fine.clone(), "jti", Value::Null)),
        foreign(&with(fine.clone(), "jti", 7)),
        foreign(&with(fine.clone(), "sub", Value::Null)),
        foreign(&with(fine.clone(), "sub", "")),
        foreign(&with(fine.clone(), "jti", "x".repeat(1025))),
        foreign_with(&fine, |header| header.kid = Some("k2".into())),
        foreign_with(&fine, |header| header.kid = Some("K1".into())),
        foreign_with(&fine, |header| header.typ = Some("refresh+jwt".into())),
        foreign(&with(fine.clone(), "padding", "x".repeat(8000))),
    ];
    for token in &refused {
        server.protected(token).await.is_invalid_token();
    }
    let huge = server.protected(&"x".repeat(300_000)).await.status;
    assert!(matches!(huge, 400 | 401 | 413 | 431), "{huge}");
    server.post("/protected", Some(&tokens.access), json!({})).await.is(405);
    let long = vec![b'x'; 1024 * 1024 + 1];
    let echo = server.request("POST", "/protected/echo", Some(&tokens.access), long);
    server.send(echo).await.is(413);
    assert_eq!(server.handler_calls().await, calls, "nothing refused reaches a handler");
    let odd = server.request("DELETE", "/sessions/%FF", Some(&tokens.access), "");
    server.send(odd).await.is(404);

    for token in [
        foreign(&fine),
        foreign_with(&fine, |header| header.typ = None),
        foreign_with(&fine, |header| header.typ = Some("at+jwt".into())),
        foreign_with(&fine, |_| {}),
        foreign(&with(with(fine.clone(), "iat", now - 100), "exp", now - 30)),
    ] {
        let body = server.protected(&token).await.is(200).json();
        assert_eq!(body, json!({ "sub": "alice", "jti": "fine", "checked": true }));
    }
}

async fn protected_routes(server: &Server) {
    let alice = server.login("alice").await;
    let token = Some(alice.access.as_str());
    let body = server.get("/protected", token).await.is(200).json();
    assert_eq!((&body["sub"], &body["checked"]), (&json!("alice"), &json!(true)));
    for size in [0, 1, 1024 * 1024] {
        let payload = vec![b'y'; size];
        let answer = server
            .send(server.request("POST", "/protected/echo", token, payload.clone()))
            .await
            .is(200);
        assert!(answer.body == payload, "{size}");
    }
    server
        .send(server.request("POST", "/protected/echo", token, vec![b'y'; 1024 * 1024 + 1]))
        .await
        .is(413);
    assert!(
        server.get("/protected/slow?ms=200", token).await.is(200).took
            >= Duration::from_millis(200)
    );
    server.get("/protected/slow?ms=10001", token).await.is(400);

    let here = server.login("carol").await;
    let there = server.login("carol").await;
    let listed = server.get("/sessions", Some(&here.access)).await.is(200).json();
    let ids: Vec<_> =
        listed.as_array().unwrap().iter().map(|session| session["session_id"].clone()).collect();
    assert_eq!(ids, [json!(here.session), json!(there.session)]);
    assert_eq!(listed[0]["device"], "phone");
    // Everybody has a `phone`: nothing may hang on the name.
    let payload = URL_SAFE_NO_PAD.decode(here.access.split('.').nth(1).unwrap()).unwrap();
    assert!(serde_json::from_slice::<Value>(&payload).unwrap().get("device_id").is_none());
    assert!(listed[0]["created_at"].is_number());
    let delete = |session: &str, token: &str| {
        server.send(server.request("DELETE", &format!("/sessions/{session}"), Some(token), ""))
    };
    delete(&there.session, &alice.access).await.is(404);
    delete("unknown", &here.access).await.is(404);
    server.protected(&there.access).await.is(200);
    delete(&there.session, &here.access).await.is(204);
    server.protected(&there.access).await.is_invalid_token();
    assert_invalid_grant(server.refresh(&there.refresh).await);
    server.protected(&here.access).await.is(200);

    server.post("/logout", Some(&here.access), json!({})).await.is(204);
    server.protected(&here.access).await.is_invalid_token();
    assert_invalid_grant(server.refresh(&here.refresh).await);
    let lonely = foreign(&claims("carol", "lonely"));
    let other = foreign(&claims("carol", "other"));
    server.post("/logout", Some(&lonely), json!({})).await.is(204);
    server.protected(&lonely).await.is_invalid_token();
    server.protected(&other).await.is(200);

    let (one, two) = (server.login("dave").await, server.login("dave").await);
    let minted = foreign(&claims("dave", "minted"));
    server.post("/logout_all", Some(&one.access), json!({})).await.is(204);
    for token in [&one.access, &two.access, &minted] {
        server.protected(token).await.is_invalid_token();
    }
    for token in [&one.refresh, &two.refresh] {
        assert_invalid_grant(server.refresh(token).await);
    }
    let again = server.login("dave").await;
    server.protected(&again.access).await.is(200);
    server.refresh(&again.refresh).await.is(200);
    server.protected(&alice.access).await.is(200);
}

async fn refresh_tokens(server: &Server) {
    let (first, other) = (server.login("erin").await, server.login("erin").await);
    let second = server.refreshed(&first.refresh).await;
    assert_eq!((&second.family, &second.session), (&first.family, &first.session));
    server.protected(&second.access).await.is(200);
    server.protected(&first.access).await.is(200);
    assert_invalid_grant(server.refresh(&first.access).await);
    for odd in [json!("nonsense"), json!(""), json!(7), json!(null), json!("x".repeat(10_000))] {
        assert_invalid_grant(server.post("/refresh", None, json!({ "refresh_token": odd })).await);
    }
    server.send(server.request("POST", "/refresh", None, "{")).await.is(400);
    let garbled = format!("{}A", &second.refresh[..second.refresh.len() - 1]);
    assert_invalid_grant(server.refresh(&format!("{}.garbage", first.family)).await);
    if garbled != second.refresh {
        assert_invalid_grant(server.refresh(&garbled).await);
    }
    let third = server.refreshed(&second.refresh).await;

    assert_invalid_grant(server.refresh(&first.refresh).await);
    assert_invalid_grant(server.refresh(&third.refresh).await);
    for dead in [&first, &second, &third] {
        server.protected(&dead.access).await.is_invalid_token();
    }
    server.protected(&other.access).await.is(200);
    server.refresh(&other.refresh).await.is(200);
}

async fn admin_routes(server: &Server) {
    for token in [None, Some("wrong"), Some("")] {
        server.post("/admin/revoke", token, json!({ "jti": "a" })).await.is(401);
    }
    let now = Timestamp::now().as_secs();
    let a = foreign(&claims("frank", "a"));
    server.protected(&a).await.is(200);
    for _ in 0..2 {
        server.admin("revoke", json!({ "jti": "a", "exp": now + 300 })).await.is(204);
    }
    server.protected(&a).await.is_invalid_token();
    // Not undone by a call that says less.
    server.admin("revoke", json!({ "jti": "a", "exp": now })).await.is(204);
    server.protected(&a).await.is_invalid_token();
    server.admin("revoke", json!({ "jti": "over", "exp": 1 })).await.is(204);
    server.admin("revoke", json!({ "jti": "far", "exp": 1e300 })).await.is(204);
    server.protected(&foreign(&claims("frank", "far"))).await.is_invalid_token();
    for odd in [
        json!({}),
        json!({ "jti": "" }),
        json!({ "jti": 7 }),
        json!({ "jti": "x".repeat(1025) }),
        json!({ "jti": "b", "exp": "soon" }),
        json!([]),
    ] {
        server.admin("revoke", odd).await.is(400);
    }

    let tokens = server.login("frank").await;
    server.admin("revoke_token", json!({ "token": tokens.access })).await.is(204);
    server.protected(&tokens.access).await.is_invalid_token();
    let next = server.refreshed(&tokens.refresh).await;
    server.protected(&next.access).await.is(200);
    for token in ["nonsense", "eyJhbGciOiJub25lIn0.e30."] {
        server.admin("revoke_token", json!({ "token": token })).await.is(204);
    }
    server.admin("revoke_token", json!({ "token": next.refresh })).await.is(204);
    server.protected(&next.access).await.is_invalid_token();

    let tokens = server.login("frank").await;
    let (other, minted) = (server.login("grace").await, foreign(&claims("frank", "c")));
    server.admin("revoke_user", json!({ "sub": "frank" })).await.is(204);
    for token in [&tokens.access, &minted] {
        server.protected(token).await.is_invalid_token();
    }
    assert_invalid_grant(server.refresh(&tokens.refresh).await);
    server.protected(&other.access).await.is(200);
    server.admin("revoke_user", json!({ "sub": "nobody knows" })).await.is(204);
    server.admin("revoke_user", json!({})).await.is(400);

    for (what, name) in [("revoke_family", "family_id"), ("revoke_session", "session_id")] {
        let (tokens, other) = (server.login("frank").await, server.login("frank").await);
        let id = if name == "family_id" { &tokens.family } else { &tokens.session };
        server.admin(what, json!({ name: id })).await.is(204);
        server.protected(&tokens.access).await.is_invalid_token();
        assert_invalid_grant(server.refresh(&tokens.refresh).await);
        server.protected(&other.access).await.is(200);
        server.admin(what, json!({ name: "unknown" })).await.is(204);
        server.admin(what, json!({ name: 7 })).await.is(400);
    }
}

/// Logins and revocations of one user, faster than the seconds of `iat` can tell.
async fn one_second(server: &Server) {
    for _ in 0..6 {
        let tokens = server.login("heidi").await;
        server.protected(&tokens.access).await.is(200);
        server.admin("revoke_user", json!({ "sub": "heidi" })).await.is(204);
        server.protected(&tokens.access).await.is_invalid_token();
        assert_invalid_grant(server.refresh(&tokens.refresh).await);
    }
}

async fn everything(server: &Server) {
    public_routes(server).await;
    what_the_layer_answers(server).await;
    protected_routes(server).await;
    refresh_tokens(server).await;
    admin_routes(server).await;
    one_second(server).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_in_memory() {
    everything(&Server::start(&[])).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_on_redis() {
    support::redis_or_skip!();
    let redis = RedisServer::start();
    everything(&Server::on(&redis, &[])).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unsafe_settings_of_redis_are_named() {
    support::redis_or_skip!();
    let redis = RedisServer::builder()
        .arg("--maxmemory", "100mb")
        .arg("--maxmemory-policy", "allkeys-lru")
        .start();
    let server = Server::on(&redis, &[]);
    let ready = server.get("/readyz", None).await.is(200).json();
    assert!(ready["warnings"].to_string().contains("allkeys-lru"), "{ready}");
}

#[tokio::test]
async fn within_the_grace_the_parent_is_answered_with_the_same_token() {
    let server = Server::start(&[("AUTH_REFRESH_GRACE_S", "30")]);
    let first = server.login("alice").await;
    let second = server.refreshed(&first.refresh).await;
    let again = server.refreshed(&first.refresh).await;
    assert_eq!(second.refresh, again.refresh);
    let third = server.refreshed(&second.refresh).await;
    assert_invalid_grant(server.refresh(&first.refresh).await);
    assert_invalid_grant(server.refresh(&third.refresh).await);
}

#[tokio::test]
async fn refresh_tokens_and_families_grow_old() {
    let env = [("AUTH_REFRESH_TTL_S", "2"), ("AUTH_FAMILY_MAX_S", "3")];
    let server = Server::start(&env);
    let idle = server.login("alice").await;
    let mut used = server.login("alice").await;
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(2300) {
        used = server.refreshed(&used.refresh).await;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert_invalid_grant(server.refresh(&idle.refresh).await);
    tokio::time::sleep_until((start + Duration::from_millis(3100)).into()).await;
    assert_invalid_grant(server.refresh(&used.refresh).await);
}

#[tokio::test]
async fn issuer_and_audience_are_required_checked_and_minted() {
    let server = Server::start(&[
        ("AUTH_ISS", "https://id"),
        ("AUTH_AUD", "api"),
        ("AUTH_REALM", "the api"),
    ]);
    let tokens = server.login("alice").await;
    server.protected(&tokens.access).await.is(200);
    let fine =
        with(with(claims("alice", "x"), "iss", "https://id"), "aud", json!(["api", "other"]));
    server.protected(&foreign(&fine)).await.is(200);
    for odd in [
        claims("alice", "x"),
        with(fine.clone(), "iss", "https://ID"),
        with(fine.clone(), "aud", "other"),
        with(fine.clone(), "iss", 7),
    ] {
        let answer = server.protected(&foreign(&odd)).await.is(401);
        assert!(
            answer.header("www-authenticate").unwrap().starts_with("Bearer realm=\"the api\",")
        );
    }
    server.admin("revoke", json!({ "jti": "x", "iss": "https://other" })).await.is(400);
    server.admin("revoke", json!({ "jti": "x", "iss": "https://id" })).await.is(204);
    server.protected(&foreign(&fine)).await.is_unauthorized();
}

impl Answer {
    #[track_caller]
    fn is_unauthorized(self) {
        self.is(401);
    }
}

#[tokio::test]
async fn without_a_token_of_the_administrator_his_routes_are_not_there() {
    let server = Server::start(&[("AUTH_ADMIN_TOKEN", "")]);
    for token in [None, Some(ADMIN), Some("")] {
        server.post("/admin/revoke_user", token, json!({ "sub": "alice" })).await.is(404);
    }
}

#[tokio::test]
async fn http_2_with_prior_knowledge_on_the_same_port() {
    let server = Server::start(&[]);
    let tokens = server.login("alice").await;
    let http = Client::builder(TokioExecutor::new()).http2_only(true).build_http();
    let request = server.request("GET", "/protected", Some(&tokens.access), "");
    send_with(&http, request).await.is(200);
    let request = server.request("GET", "/protected", None, "");
    send_with(&http, request).await.is(401);
}

#[tokio::test]
async fn grpc_is_answered_in_its_own_way() {
    use tonic_health::pb::HealthCheckRequest;
    use tonic_health::pb::health_client::HealthClient;

    support::redis_or_skip!();
    let redis = RedisServer::start();
    let server = Server::on(&redis, &[("AUTH_GRPC", "127.0.0.1:0")]);
    let tokens = server.login("alice").await;
    let channel = tonic::transport::Endpoint::from_shared(server.grpc.clone().unwrap()).unwrap();
    let mut client = HealthClient::new(channel.connect().await.unwrap());
    let mut call = async |token: Option<&str>| {
        let mut request = tonic::Request::new(HealthCheckRequest { service: String::new() });
        if let Some(token) = token {
            request
                .metadata_mut()
                .insert("authorization", format!("Bearer {token}").parse().unwrap());
        }
        client.check(request).await.map_or_else(|status| status.code(), |_| tonic::Code::Ok)
    };
    assert_eq!(call(None).await, tonic::Code::Unauthenticated);
    assert_eq!(call(Some("nonsense")).await, tonic::Code::Unauthenticated);
    assert_eq!(call(Some(&tokens.access)).await, tonic::Code::Ok);
    server.admin("revoke_user", json!({ "sub": "alice" })).await.is(204);
    assert_eq!(call(Some(&tokens.access)).await, tonic::Code::Unauthenticated);
    let refused = |answer: &Answer| {
        let head = (answer.header("content-type"), answer.header("grpc-status"));
        assert_eq!(head, (Some("application/grpc"), Some("16")));
    };
    let kinds = [
        "application/grpc",
        "application/grpc+proto",
        "application/grpc-web",
        "Application/gRPC-web-text",
    ];
    for kind in kinds {
        let mut request = server.request("POST", "/protected", Some(&tokens.access), "");
        request.headers_mut().insert("content-type", kind.parse().unwrap());
        refused(&server.send(request).await.is(200));
    }
    let fresh = server.login("alice").await;
    redis.stop_hung();
    assert_eq!(call(Some(&fresh.access)).await, tonic::Code::Unavailable);
    redis.resume();
    // Whatever comes to the port of gRPC is answered in gRPC.
    let http = Client::builder(TokioExecutor::new()).http2_only(true).build_http();
    let url = format!("{}/grpc.health.v1.Health/Check", server.grpc.clone().unwrap());
    for kind in
        [None, Some("application/json"), Some("application/grpc-web"), Some("application/grpcs")]
    {
        let mut request = http::Request::post(&url).body(http_body_util::Full::default()).unwrap();
        if let Some(kind) = kind {
            request.headers_mut().insert("content-type", kind.parse().unwrap());
        }
        refused(&send_with(&http, request).await.is(200));
    }
}

/// What is not let through does not stand in line with what was.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_do_not_wait_behind_slow_requests() {
    let server = Server::start(&[]);
    let (tokens, revoked) = (server.login("alice").await, server.login("bob").await);
    server.admin("revoke_session", json!({ "session_id": revoked.session })).await.is(204);
    let slow = server.request("GET", "/protected/slow?ms=3000", Some(&tokens.access), "");
    let slow: Vec<_> = (0..64)
        .map(|_| {
            let (http, slow) = (server.http.clone(), slow.clone());
            tokio::spawn(async move { send_with(&http, slow).await })
        })
        .collect();
    while server.handler_calls().await < 64 {}
    let waiting = {
        let (http, next) =
            (server.http.clone(), server.request("POST", "/logout", Some(&tokens.access), ""));
        tokio::spawn(async move { send_with(&http, next).await })
    };
    let began = Instant::now();
    server.protected("nonsense").await.is_invalid_token();
    server.protected(&revoked.access).await.is_invalid_token();
    server.get("/protected", None).await.is(401);
    assert!(
        !waiting.is_finished() && began.elapsed() < Duration::from_secs(2),
        "{:?}",
        began.elapsed()
    );
    assert_eq!(server.handler_calls().await, 64, "sixty-four at once, and no more");
    // That it had to wait for longer than its budget takes nothing from what it may ask of the
    // store.
    waiting.await.unwrap().is(204);
    for slow in slow {
        slow.await.unwrap().is(200);
    }
    server.protected(&tokens.access).await.is_invalid_token();
}
