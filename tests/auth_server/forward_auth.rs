//! The example `forward_auth`, as proxies ask it.

use http::Request;
use http_body_util::Full;

use crate::server::*;
use crate::support::{RedisServer, redis_or_skip};

const NAMES: [&str; 3] = ["x-auth-subject", "x-auth-token-id", "x-auth-checked"];

/// One on this Redis, and an `auth_server` beside it that revokes.
pub(crate) fn start(redis: &RedisServer, more: &[(&str, &str)]) -> Server {
    let url = redis.url();
    let env = [("AUTH_STORE", "redis"), ("AUTH_REDIS_URL", url.as_str())];
    Server::start_program("forward_auth", &Dir::new(), &[&env, more].concat())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_path_and_method_is_the_same_question() {
    redis_or_skip!();
    let redis = RedisServer::start();
    let (admin, asked) = (Server::on(&redis, &[]), start(&redis, &[]));
    let subject = "al/ice, \"é\"\n100%~";
    let token = foreign(&claims(subject, "t-1.2_3"));
    for method in ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "PROPFIND"] {
        for path in ["/", "/healthz", "/admin", "/login", "/a/b?c=d&ms=9"] {
            let answer =
                asked.send(asked.request(method, path, Some(&token), "body")).await.is(200);
            assert_eq!(
                answer.header("x-auth-subject"),
                Some("al%2Fice%2C%20%22%C3%A9%22%0A100%25~")
            );
            assert_eq!(answer.header("x-auth-token-id"), Some("t-1.2_3"));
            assert_eq!(answer.header("x-auth-checked"), Some("true"));
            assert!(answer.body.is_empty());
            assert_eq!(answer.header("cache-control"), Some("no-store"));
            let answer = asked.send(asked.request(method, path, None, "body")).await.is(401);
            assert_eq!(answer.header("www-authenticate"), Some("Bearer realm=\"auth\""));
            assert!(NAMES.iter().all(|name| answer.header(name).is_none()));
        }
    }
    // Whatever the client says of itself counts for nothing, and a token without an id of a user
    // names nobody.
    let mut nobody = claims("a", "t-2");
    nobody.as_object_mut().unwrap().remove("sub");
    let mut request = asked.request("GET", "/", Some(&foreign(&nobody)), "");
    for name in NAMES {
        request.headers_mut().insert(name, "root".parse().unwrap());
    }
    let answer = asked.send(request).await;
    if answer.status == 200 {
        assert_eq!(answer.header("x-auth-subject"), Some(""));
        assert_eq!(answer.header("x-auth-token-id"), Some("t-2"));
    }
    // To a proxy a refusal is a status, whatever its client speaks.
    for kind in ["application/grpc", "application/grpc-web+proto"] {
        let mut request = asked.request("POST", "/grpc.health.v1.Health/Check", None, "");
        request.headers_mut().insert("content-type", kind.parse().unwrap());
        asked.send(request).await.is(401);
    }
    asked.get("/", Some("nonsense")).await.is_invalid_token();
    let mut request: Request<Full<_>> = asked.request("GET", "/", Some(&token), "");
    request.headers_mut().append("authorization", "Bearer other".parse().unwrap());
    let answer = asked.send(request).await;
    assert!([400, 401].contains(&answer.status));

    admin.admin("revoke", serde_json::json!({ "jti": "t-1.2_3" })).await.is(204);
    asked.get("/", Some(&token)).await.is_invalid_token();
    redis.kill();
    let other = foreign(&claims("alice", "t-3"));
    asked.get("/", Some(&other)).await.is_unavailable().in_time(BUDGET);
    // A moment ago it was known to be revoked.
    asked.get("/", Some(&token)).await.is_invalid_token();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_not_checked_is_said() {
    redis_or_skip!();
    let redis = RedisServer::start();
    let mut asked = start(&redis, &[("AUTH_ON_OUTAGE", "open")]);
    let token = foreign(&claims("alice", "t-1"));
    assert_eq!(asked.get("/", Some(&token)).await.is(200).header("x-auth-checked"), Some("true"));
    redis.kill();
    assert_eq!(asked.get("/", Some(&token)).await.is(200).header("x-auth-checked"), Some("false"));
    asked.get("/", Some("nonsense")).await.is_invalid_token();
    rustix::process::kill_process(asked.pid(), rustix::process::Signal::TERM).unwrap();
    assert!(asked.wait(std::time::Duration::from_secs(20)).success());
}

#[test]
fn a_setting_that_cannot_work_ends_it() {
    let dir = Dir::new();
    for (name, value) in [
        ("FORWARD_AUTH_LISTEN", "nonsense"),
        ("AUTH_JWKS", "/nowhere"),
        ("AUTH_ON_OUTAGE", "maybe"),
    ] {
        let output = command_of("forward_auth", &dir, &[(name, value)]).output().unwrap();
        assert!(!output.status.success() && output.stdout.is_empty(), "{name}");
        assert!(String::from_utf8_lossy(&output.stderr).contains(name), "{output:?}");
    }
}
