//! `GET /metrics`: what an outside program, and a real Prometheus, finds there.

use std::time::{Duration, Instant};

use http::Request;
use serde_json::{Value, json};

use crate::server::*;
use crate::support::{Prometheus, RedisServer, prometheus_or_skip, promtool, redis_or_skip};

/// What the contract promises, with the labels.
const PROMISED: [(&str, &[&str]); 12] = [
    ("requests_total", &["admitted", "admitted_unchecked", "refused", "would_refuse", "unasked"]),
    (
        "refusals_total",
        &["no_credentials", "bad_request", "invalid_token", "revoked", "no_verdict", "no_keys"],
    ),
    ("invalid_tokens_total", &["expired", "bad_signature"]),
    ("check_duration_seconds_count", &["memory", "store"]),
    ("store_up", &["checks", "writes"]),
    ("store_errors_total", &["unreachable", "timeout"]),
    ("store_settling", &[]),
    ("store_doubt_seconds", &[]),
    ("mirror_fresh", &[]),
    ("mirror_staleness_seconds", &[]),
    ("mirror_revocations", &[]),
    ("audit_lost_total", &[]),
];

/// The sum of the numbers of this name whose labels hold this text.
fn sum(text: &str, name: &str, label: &str) -> f64 {
    let name = format!("jwt_revocation_{name}");
    let values = text.lines().filter_map(|line| {
        let (series, value) = line.rsplit_once(' ')?;
        let rest = series.strip_prefix(name.as_str())?;
        let is_it = rest.is_empty() || rest.starts_with('{');
        (is_it && rest.contains(label))
            .then(|| value.replace("+Inf", "inf").parse::<f64>().unwrap())
    });
    values.sum()
}

async fn metrics(server: &Server) -> String {
    let answer = server.get("/metrics", None).await.is(200);
    assert_eq!(answer.header("content-type"), Some("text/plain; version=0.0.4"));
    String::from_utf8(answer.body.to_vec()).unwrap()
}

/// Some requests of each kind.
async fn use_it(server: &Server) -> Tokens {
    let tokens = server.login("alice").await;
    for _ in 0..3 {
        server.protected(&tokens.access).await.is(200);
    }
    server.protected("nonsense").await.is(401);
    server.get("/protected", None).await.is(401);
    let mallory = server.login("mallory").await;
    server.admin("revoke_user", json!({ "sub": "mallory" })).await.is(204);
    server.protected(&mallory.access).await.is(401);
    tokens
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_metrics_are_those_of_the_contract_and_the_count_of_the_histogram_is_that_of_checks() {
    redis_or_skip!();
    let redis = RedisServer::start();
    let direct = Server::on(&redis, &[]);
    let text = metrics(&direct).await;
    for gauge in ["mirror_fresh", "mirror_staleness_seconds", "mirror_revocations"] {
        let line = format!("jwt_revocation_{gauge} 0");
        assert!(text.lines().any(|it| it == line), "{line} is missing in {text}");
    }
    let server = Server::on(&redis, &[("AUTH_CHECK", "mirror")]);
    use_it(&server).await;
    let text = metrics(&server).await;
    for (name, labels) in PROMISED {
        for label in if labels.is_empty() { &[""][..] } else { labels } {
            let is_there = text.lines().any(|line| {
                line.starts_with(&format!("jwt_revocation_{name}")) && line.contains(label)
            });
            assert!(is_there, "{name} {label} is missing in {text}");
        }
    }
    assert!((sum(&text, "requests_total", "\"admitted\"") - 3.0).abs() < 0.1, "{text}");
    assert!((sum(&text, "refusals_total", "revoked") - 1.0).abs() < 0.1, "{text}");
    assert!((sum(&text, "operations_total", "\"login\"") - 2.0).abs() < 0.1, "{text}");
    assert!((sum(&text, "store_up", "") - 2.0).abs() < 0.1, "{text}");
    let stats = server.get("/debug/stats", None).await.is(200).json();
    let checks = stats["checks"].as_f64().unwrap();
    assert!(
        (sum(&text, "check_duration_seconds_count", "") - checks).abs() < 0.1,
        "{stats} {text}"
    );
    assert!((checks - 4.0).abs() < 0.1, "{stats}");
    for secret in ["alice", "mallory", "nonsense"] {
        assert!(!text.contains(secret), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn promtool_finds_nothing_to_complain_about() {
    redis_or_skip!();
    prometheus_or_skip!();
    let redis = RedisServer::start();
    let mirrored = Server::on(&redis, &[("AUTH_CHECK", "mirror")]);
    for server in [Server::on(&redis, &[]), mirrored, Server::start(&[])] {
        use_it(&server).await;
        server.get("/readyz", None).await;
        let said = promtool(&["check", "metrics"], &metrics(&server).await);
        assert!(said.trim().is_empty(), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_metrics_come_in_time_while_redis_is_away_and_say_so() {
    redis_or_skip!();
    let redis = RedisServer::start();
    let server = Server::on(&redis, &[]);
    let tokens = use_it(&server).await;
    redis.kill();
    server.protected(&tokens.access).await.is_unavailable();
    let start = Instant::now();
    loop {
        let answer = server.get("/metrics", None).await.in_time(BUDGET);
        let text = String::from_utf8(answer.body.to_vec()).unwrap();
        if sum(&text, "store_up", "") < 0.1 {
            assert!(sum(&text, "refusals_total", "no_verdict") > 0.9, "{text}");
            assert!(sum(&text, "store_errors_total", "") > 0.9, "{text}");
            return;
        }
        assert!(start.elapsed() < Duration::from_secs(20), "{text}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Each connection says once that it is of no use, and the client underneath nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_tells_of_an_outage_once_and_in_our_words() {
    redis_or_skip!();
    let redis = RedisServer::start();
    let server = Server::on(&redis, &[]);
    let tokens = use_it(&server).await;
    redis.kill();
    let times = |words: &str| server.logs().matches(words).count();
    let start = Instant::now();
    while times("redis cannot be used; trying until it can") < 2 {
        server.protected(&tokens.access).await.is_unavailable();
        assert!(start.elapsed() < Duration::from_secs(20), "{}", server.logs());
    }
    for _ in 0..20 {
        server.protected(&tokens.access).await.is_unavailable();
    }
    assert_eq!(times("redis cannot be used; trying until it can"), 2, "{}", server.logs());
    assert_eq!(times("requests are refused with 503"), 1, "{}", server.logs());
    assert_eq!(times("fred"), 0, "{}", server.logs());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_prometheus_scrapes_them() {
    prometheus_or_skip!();
    let server = Server::start(&[]);
    use_it(&server).await;
    let prometheus = Prometheus::scraping(server.url.strip_prefix("http://").unwrap());
    for (query, expected) in [
        ("jwt_revocation_requests_total%7Boutcome%3D%22admitted%22%7D", "3"),
        ("jwt_revocation_refusals_total%7Breason%3D%22revoked%22%7D", "1"),
        ("sum(jwt_revocation_check_duration_seconds_count)", "4"),
        ("jwt_revocation_store_up%7Bpurpose%3D%22writes%22%7D", "1"),
    ] {
        assert_eq!(found(&server, &prometheus, query).await, expected, "{query}");
    }
}

/// What Prometheus answers to a query, as soon as it has an answer.
async fn found(server: &Server, prometheus: &Prometheus, query: &str) -> String {
    let start = Instant::now();
    loop {
        let uri = format!("{}/api/v1/query?query={query}", prometheus.url);
        let request = Request::get(uri).body(http_body_util::Full::default()).unwrap();
        if let Ok(answer) = server.http.request(request).await {
            let body =
                http_body_util::BodyExt::collect(answer.into_body()).await.unwrap().to_bytes();
            let body: Value = serde_json::from_slice(&body).unwrap_or_default();
            if let Some(value) = body["data"]["result"][0]["value"][1].as_str() {
                return value.to_owned();
            }
        }
        assert!(start.elapsed() < Duration::from_secs(60), "no answer of Prometheus to {query}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
