//! Several processes on one Redis, and the end of one.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::support::{self, RedisServer};
use futures::future::join_all;
use http::Request;
use http_body_util::Full;
use rustix::process::{Signal, kill_process};
use serde_json::json;

use crate::server::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_processes_on_one_redis_are_one_system() {
    support::redis_or_skip!();
    let redis = RedisServer::start();
    let (here, mut there) = (Server::on(&redis, &[]), Server::on(&redis, &[]));
    let tokens = here.login("alice").await;
    there.protected(&tokens.access).await.is(200);
    there.admin("revoke_user", json!({ "sub": "alice" })).await.is(204);
    here.protected(&tokens.access).await.is_invalid_token();

    // Twenty at once: one gets through, and that someone presented a used token ends the family.
    let first = here.login("alice").await;
    let answers = join_all((0..20).map(|n| {
        if n % 2 == 0 { here.refresh(&first.refresh) } else { there.refresh(&first.refresh) }
    }))
    .await;
    let granted: Vec<_> = answers.iter().filter(|answer| answer.status == 200).collect();
    assert_eq!(granted.len(), 1, "one gets through");
    assert!(answers.iter().all(|answer| matches!(answer.status, 200 | 400)));
    for answer in granted {
        assert_invalid_grant(there.refresh(&Tokens::of(answer).refresh).await);
        here.protected(&Tokens::of(answer).access).await.is_invalid_token();
    }
    here.protected(&first.access).await.is_invalid_token();

    // A restart changes nothing.
    let (kept, ended, used) =
        (here.login("bob").await, here.login("bob").await, here.login("bob").await);
    let next = here.refreshed(&used.refresh).await;
    here.admin("revoke_session", json!({ "session_id": ended.session })).await.is(204);
    kill_process(there.pid(), Signal::TERM).unwrap();
    assert!(there.wait(Duration::from_secs(5)).success());
    let there = Server::on(&redis, &[]);
    there.protected(&kept.access).await.is(200);
    there.protected(&ended.access).await.is_invalid_token();
    there.refreshed(&next.refresh).await;
    assert_invalid_grant(there.refresh(&used.refresh).await);
    here.protected(&next.access).await.is_invalid_token();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn within_the_grace_twenty_at_once_get_the_same_token() {
    support::redis_or_skip!();
    let redis = RedisServer::start();
    let grace = [("AUTH_REFRESH_GRACE_S", "30")];
    let (here, there) = (Server::on(&redis, &grace), Server::on(&redis, &grace));
    let first = here.login("alice").await;
    let answers = join_all((0..20).map(|n| {
        if n % 2 == 0 { here.refresh(&first.refresh) } else { there.refresh(&first.refresh) }
    }))
    .await;
    let tokens: BTreeSet<_> =
        answers.into_iter().map(|answer| Tokens::of(&answer.is(200)).refresh).collect();
    assert_eq!(tokens.len(), 1);
    there.refreshed(tokens.first().unwrap()).await;
}

/// Waits for the end of a server that was told to stop.
async fn ends_well(mut server: Server) {
    let ended = tokio::task::spawn_blocking(move || server.wait(Duration::from_secs(5))).await;
    assert!(ended.unwrap().success());
}

#[tokio::test]
async fn on_sigterm_requests_are_finished() {
    let server = Server::start(&[]);
    let tokens = server.login("alice").await;
    let url = format!("{}/protected/slow?ms=700", server.url);
    let request = Request::get(url).header("authorization", format!("Bearer {}", tokens.access));
    let http = server.http.clone();
    let slow =
        tokio::spawn(async move { send_with(&http, request.body(Full::default()).unwrap()).await });
    while server.handler_calls().await == 0 {}
    kill_process(server.pid(), Signal::TERM).unwrap();
    slow.await.unwrap().is(200);
    ends_well(server).await;
}

/// To tell Redis that it ends may take longer than it may take to end.
#[tokio::test]
async fn on_sigterm_a_redis_that_is_gone_is_not_waited_for() {
    support::redis_or_skip!();
    let sentinel = support::Sentinel::start(1, 1);
    let url = sentinel.url();
    let server = Server::start(&[("AUTH_STORE", "redis"), ("AUTH_REDIS_URL", &url)]);
    server.login("alice").await;
    drop(sentinel);
    kill_process(server.pid(), Signal::TERM).unwrap();
    ends_well(server).await;
}

#[tokio::test]
async fn on_sigterm_requests_without_end_are_not_waited_for() {
    let server = Server::start(&[]);
    let tokens = server.login("alice").await;
    let url = format!("{}/protected/slow?ms=10000", server.url);
    let request = Request::get(url).header("authorization", format!("Bearer {}", tokens.access));
    let http = server.http.clone();
    let slow =
        tokio::spawn(async move { http.request(request.body(Full::default()).unwrap()).await });
    while server.handler_calls().await == 0 {}
    kill_process(server.pid(), Signal::TERM).unwrap();
    ends_well(server).await;
    slow.await.unwrap().unwrap_err();
}
