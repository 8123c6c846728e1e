//! The routes of the operator: what is revoked and why, undo, and whether the store is fit.

use serde_json::{Value, json};

use crate::server::*;
use crate::support::RedisServer;

async fn explained(server: &Server, token: &str) -> Value {
    let answer = server.admin("explain", json!({ "token": token })).await.is(200);
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    let text = String::from_utf8(answer.body.to_vec()).unwrap();
    assert!(token.is_empty() || !text.contains(token), "the token is repeated: {text}");
    answer.json()
}

async fn listed(server: &Server, query: &str) -> Value {
    let answer = server.get(&format!("/admin/revocations{query}"), Some(ADMIN)).await.is(200);
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    answer.json()
}

async fn an_operator_finds_out_why_and_takes_it_back(server: &Server) {
    let tokens = server.login("alice").await;
    let live = explained(server, &tokens.access).await;
    assert_eq!(live, json!({ "valid": true, "revoked": false, "by": [] }));

    let reason = "laptop stolen";
    let note = json!({ "session_id": tokens.session, "reason": reason, "actor": "carol" });
    server.admin("revoke_session", note).await.is(204);
    let note = json!({ "sub": "alice", "reason": "password changed", "actor": "carol" });
    server.admin("revoke_user", note).await.is(204);
    server.protected(&tokens.access).await.is_invalid_token();
    let answer = explained(server, &tokens.access).await;
    assert_eq!((&answer["valid"], &answer["revoked"]), (&json!(true), &json!(true)));
    let by = answer["by"].as_array().unwrap();
    for (kind, id, reason) in
        [("session", &*tokens.session, reason), ("user", "alice", "password changed")]
    {
        let it = by.iter().find(|it| it["kind"] == kind).unwrap();
        assert_eq!(
            (&it["id"], &it["reason"], &it["actor"]),
            (&json!(id), &json!(reason), &json!("carol"))
        );
        assert!(it["at"].is_u64() && it["until"].is_u64(), "{it}");
    }

    // Each of them has to be taken back.
    server.admin("reinstate", json!({ "kind": "session", "id": tokens.session })).await.is(204);
    server.protected(&tokens.access).await.is_invalid_token();
    server
        .admin("reinstate", json!({ "kind": "user", "id": "alice", "actor": "dave" }))
        .await
        .is(204);
    for it in explained(server, &tokens.access).await["by"].as_array().unwrap() {
        // The family ended with the session.
        assert_eq!(it["kind"], "family");
        server.admin("reinstate", json!({ "kind": it["kind"], "id": it["id"] })).await.is(204);
    }
    assert_eq!(explained(server, &tokens.access).await["revoked"], false);
    // Where that was remembered for an outage, too.
    server.protected(&tokens.access).await.is(200);

    // What is no token is said to be none.
    for odd in ["", "nonsense", &*tokens.refresh, &format!("{}x", tokens.access)] {
        let answer = explained(server, odd).await;
        assert_eq!((&answer["valid"], &answer["revoked"]), (&json!(false), &json!(false)), "{odd}");
        assert!(answer["error"].is_string());
    }
    let past = json!({ "sub": "alice", "jti": "past", "iat": 1, "exp": 2 });
    assert_eq!(explained(server, &foreign(&past)).await["valid"], false);

    // All ways to revoke take a note.
    for (route, member, kind) in
        [("revoke", "jti", "token"), ("revoke_family", "family_id", "family")]
    {
        server.admin(route, json!({ member: "noted", "reason": "r", "actor": "a" })).await.is(204);
        let item = listed(server, &format!("?kind={kind}&id=noted")).await["items"][0].clone();
        assert_eq!((&item["reason"], &item["actor"]), (&json!("r"), &json!("a")), "{item}");
    }
    let other = server.login("bob").await;
    let note = json!({ "token": other.access, "reason": "leaked", "actor": "a" });
    server.admin("revoke_token", note).await.is(204);
    assert_eq!(explained(server, &other.access).await["by"][0]["reason"], "leaked");
    let other = server.login("bob").await;
    let note = json!({ "token": other.refresh, "reason": "stolen", "actor": "carol" });
    server.admin("revoke_token", note).await.is(204);
    let item = listed(server, "?kind=family").await["items"].as_array().unwrap().clone();
    let item = item.iter().find(|item| item["reason"] == "stolen");
    assert_eq!(item.unwrap()["actor"], "carol");
}

async fn the_list_comes_in_pages(server: &Server) {
    for n in 0..25 {
        server.admin("revoke", json!({ "jti": format!("page-{n}") })).await.is(204);
    }
    server.admin("revoke_user", json!({ "sub": "zoe" })).await.is(204);
    server.admin("revoke", json!({ "jti": "undone" })).await.is(204);
    server.admin("reinstate", json!({ "kind": "token", "id": "undone" })).await.is(204);
    for limit in [1, 4, 10, 1000] {
        let mut ids = std::collections::HashSet::new();
        let mut query = format!("?kind=token&limit={limit}");
        loop {
            let page = listed(server, &query).await;
            let items = page["items"].as_array().unwrap();
            assert!(items.len() <= limit, "{page}");
            for item in items {
                assert_eq!(item["kind"], "token");
                assert_ne!(item["id"], "undone");
                assert!(ids.insert(item["id"].as_str().unwrap().to_owned()), "twice: {item}");
            }
            let Some(next) = page["next"].as_str() else { break };
            query = format!("?kind=token&limit={limit}&cursor={next}");
        }
        assert_eq!(ids.iter().filter(|id| id.starts_with("page-")).count(), 25, "{limit}");
    }
    assert_eq!(listed(server, "?kind=user&id=zoe").await["items"].as_array().unwrap().len(), 1);
    assert_eq!(listed(server, "?kind=user&id=nobody").await["items"], json!([]));
    assert!(listed(server, "").await["items"].as_array().unwrap().len() > 25);
}

async fn what_cannot_be_is_a_bad_request(server: &Server) {
    for query in [
        "?kind=nonsense",
        "?limit=0",
        "?limit=1001",
        "?limit=x",
        "?cursor=x",
        "?cursor=x~",
        "?id=a",
    ] {
        server.get(&format!("/admin/revocations{query}"), Some(ADMIN)).await.is(400);
    }
    for body in [
        json!({}),
        json!({ "kind": "user" }),
        json!({ "kind": "nonsense", "id": "a" }),
        json!({ "kind": "user", "id": "" }),
        json!({ "kind": "user", "id": 7 }),
        json!({ "kind": "claim", "id": "a" }),
        json!({ "kind": "user", "id": "a", "claim": "b" }),
        json!({ "kind": "user", "id": "a", "reason": "x".repeat(1025) }),
        json!({ "kind": "token", "id": foreign(&claims("a", "b")) }),
    ] {
        server.admin("reinstate", body).await.is(400);
    }
    server.admin("explain", json!({})).await.is(400);
    server.admin("explain", json!({ "token": 7 })).await.is(400);
    let changes =
        ["revoke", "revoke_token", "revoke_user", "revoke_family", "revoke_session", "reinstate"];
    for what in changes.into_iter().chain(["explain"]) {
        let answer = server.admin(what, json!({ "token": "x".repeat(65 * 1024) })).await.is(413);
        assert_eq!(answer.header("cache-control"), Some("no-store"), "{what}");
    }
    for (what, body) in [
        ("revoke", json!({ "jti": "cached" })),
        ("revoke_token", json!({ "token": "cached" })),
        ("revoke_user", json!({ "sub": "cached" })),
        ("revoke_family", json!({ "family_id": "cached" })),
        ("revoke_session", json!({ "session_id": "cached" })),
        ("reinstate", json!({ "kind": "user", "id": "cached" })),
    ] {
        let answer = server.admin(what, body).await.is(204);
        assert_eq!(answer.header("cache-control"), Some("no-store"), "{what}");
        let answer = server.get(&format!("/admin/{what}"), Some(ADMIN)).await.is(405);
        assert_eq!(answer.header("cache-control"), Some("no-store"), "{what}");
    }
    let token = foreign(&claims("a", "b"));
    for member in ["reason", "actor"] {
        server.admin("revoke_user", json!({ "sub": "a", member: token })).await.is(400);
        server.admin("revoke_user", json!({ "sub": "a", member: 7 })).await.is(400);
    }
    for (method, path) in [
        ("GET", "/admin/revocations"),
        ("GET", "/admin/doctor"),
        ("POST", "/admin/explain"),
        ("POST", "/admin/reinstate"),
    ] {
        for token in [None, Some("wrong")] {
            server.send(server.request(method, path, token, "{}")).await.is(401);
        }
        for other in ["Bearer wrong", "Basic YTpi", &format!("Bearer {ADMIN}")] {
            let mut request = server.request(method, path, Some(ADMIN), "{}");
            request.headers_mut().append("authorization", other.parse().unwrap());
            server.send(request).await.is(401);
        }
    }
}

async fn everything(server: &Server) {
    an_operator_finds_out_why_and_takes_it_back(server).await;
    the_list_comes_in_pages(server).await;
    what_cannot_be_is_a_bad_request(server).await;
    let report = server.get("/admin/doctor", Some(ADMIN)).await.is(200).json();
    assert_eq!(report["fit"], true, "{report}");
    let findings = report["findings"].as_array().unwrap();
    assert!(
        findings.iter().any(|it| it["severity"] == "warning" && it["subject"] == "persistence")
    );
    let text = server.logs() + &std::fs::read_to_string(server.dir.path("audit.log")).unwrap();
    assert!(!text.contains("eyJ"), "a token was written");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_operator_in_memory() {
    everything(&Server::start(&[])).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_operator_on_redis() {
    crate::support::redis_or_skip!();
    let redis = RedisServer::start();
    let server = Server::on(&redis, &[]);
    everything(&server).await;
    redis.kill();
    let limit = BUDGET * 3;
    let token = foreign(&claims("alice", "t"));
    server.admin("explain", json!({ "token": token })).await.is_unavailable().in_time(limit);
    let body = json!({ "kind": "user", "id": "a" });
    server.admin("reinstate", body).await.is_unavailable().in_time(limit);
    server.get("/admin/revocations", Some(ADMIN)).await.is_unavailable().in_time(limit);
    // It examines what there is to examine.
    let report = server.get("/admin/doctor", Some(ADMIN)).await.is(200).in_time(limit).json();
    assert_eq!(report["fit"], false, "{report}");
}

#[tokio::test]
async fn without_a_token_of_the_administrator_there_is_no_operator() {
    let dir = Dir::new();
    let mut command = command(&dir, &[]);
    command.env_remove("AUTH_ADMIN_TOKEN");
    let server = Server::start_by(command, &dir);
    for path in ["/admin", "/admin/revocations", "/admin/doctor"] {
        server.get(path, Some(ADMIN)).await.is(404);
    }
    server.admin("explain", json!({ "token": "a" })).await.is(404);
}
