//! What the Redis store does besides the contract of all stores: what it leaves in Redis, and what
//! it refuses.

use std::time::Duration;

use tower_jwt_revocation::clock::Timestamp;
use tower_jwt_revocation::revocation::{Action, Outcome, Revocation, TargetKind};
use tower_jwt_revocation::store::redis::{ConnectError, RedisStoreBuilder, Start};
use tower_jwt_revocation::store::{RevocationStore as _, Standing, StoreErrorKind};
use tower_jwt_revocation::{Extent, RedisStore, Revoker, Target, TokenProfile};

use crate::servers::{RedisServer, redis_is_installed, wait_until};
use crate::store_contract::{check, now, token};

const HOUR: Duration = Duration::from_secs(3600);

/// With more patience than the default: none of this is about time, and test machines are busy.
async fn connect(server: &RedisServer) -> RedisStore {
    let builder =
        RedisStore::builder().with_url(server.url()).with_check_timeout(Duration::from_secs(5));
    builder.connect().await.unwrap()
}

async fn revoke(store: &RedisStore, target: Target) {
    store.write(vec![Revocation::new(target, HOUR)]).await.unwrap();
}

#[tokio::test]
async fn another_process_sees_a_revocation_at_once() {
    if !redis_is_installed() {
        return;
    }
    let server = RedisServer::start();
    let (one, other) = (connect(&server).await, connect(&server).await);
    let token = token("alice", "t");
    for n in 0..50 {
        assert_eq!(check(&other, &token).await.unwrap(), Standing::Live, "round {n}");
        revoke(&one, Target::token("t")).await;
        assert!(matches!(check(&other, &token).await.unwrap(), Standing::Revoked(_)), "round {n}");
        let mut back = Revocation::new(Target::token("t"), HOUR);
        back.action = Action::Reinstate;
        one.write(vec![back]).await.unwrap();
    }
}

#[tokio::test]
async fn every_key_carries_the_prefix_and_expires_and_no_value_holds_a_token() {
    if !redis_is_installed() {
        return;
    }
    let server = RedisServer::start();
    let store = RedisStore::builder()
        .with_url(server.url())
        .with_prefix("app")
        .with_shards(3)
        .connect()
        .await
        .unwrap();
    for n in 0..30 {
        revoke(&store, Target::user(format!("user {n}"))).await;
    }
    let mut short = Revocation::new(Target::token("short"), Duration::ZERO);
    short.until = now().saturating_add(Duration::from_millis(300));
    store.write(vec![short]).await.unwrap();
    let keys = server.cli(&["KEYS", "*"]);
    assert!(keys.lines().count() > 40, "{keys}");
    for key in keys.lines() {
        assert!(key.starts_with("app:{"), "{key}");
        let ttl: i64 = server.cli(&["PTTL", key]).parse().unwrap();
        // A key that has expired meanwhile answers -2.
        assert!(ttl > 0 || ttl == -2, "{key} never expires");
    }
    let short = format!("app:*:r:{}", Target::token("short").fingerprint());
    wait_until("the record is forgotten", Duration::from_secs(10), || {
        server.cli(&["KEYS", &short]).is_empty()
    });
    let one = format!("app:*:r:{}", Target::user("user 7").fingerprint());
    let key = server.cli(&["KEYS", &one]);
    let value = server.cli(&["GET", &key]);
    assert!(value.ends_with(r#"{"kind":"user","id":"user 7"}"#), "{value}");
}

#[tokio::test]
async fn a_revocation_without_an_end_is_kept_and_can_be_reinstated() {
    if !redis_is_installed() {
        return;
    }
    let server = RedisServer::start();
    let store = connect(&server).await;
    let revoker = Revoker::new(store.clone(), TokenProfile::new()).unwrap();
    let ban = || revoker.revoke(Target::user("alice")).extent(Extent::All);
    assert_eq!(ban().await.unwrap().outcome, Outcome::New);
    assert_eq!(ban().await.unwrap().outcome, Outcome::Already);
    let key = format!("jwt-revocation:{{0}}:r:{}", Target::user("alice").fingerprint());
    let ttl: u64 = server.cli(&["PTTL", &key]).parse().unwrap();
    assert!(u128::from(ttl) > (HOUR * 24 * 365 * 1000).as_millis(), "{ttl}");
    assert!(matches!(check(&store, &token("alice", "t")).await.unwrap(), Standing::Revoked(_)));
    assert_eq!(revoker.count().await.unwrap(), 1);
    revoker.reinstate(Target::user("alice")).await.unwrap();
    assert_eq!(check(&store, &token("alice", "t")).await.unwrap(), Standing::Live);
    assert_eq!(revoker.count().await.unwrap(), 0);
}

#[tokio::test]
async fn prefixes_keep_applications_apart() {
    if !redis_is_installed() {
        return;
    }
    let server = RedisServer::start();
    let one = connect(&server).await;
    let other =
        RedisStore::builder().with_url(server.url()).with_prefix("other").connect().await.unwrap();
    revoke(&one, Target::token("t")).await;
    assert_eq!(check(&other, &token("u", "t")).await.unwrap(), Standing::Live);
    assert_eq!((one.count().await.unwrap(), other.count().await.unwrap()), (1, 0));
}

#[tokio::test]
async fn a_value_of_another_program_is_an_error_and_never_live() {
    if !redis_is_installed() {
        return;
    }
    let server = RedisServer::start();
    let store = connect(&server).await;
    let key = format!("jwt-revocation:{{0}}:r:{}", Target::token("t").fingerprint());
    let foreign = format!("1 5 0 0 0 9 5 {}", r#"{"kind":"token","id":"another"}"#);
    for value in ["", "1", "2 5 0 0 0 9 5 {}", "revoked", &foreign] {
        server.cli(&["SET", &key, value]);
        let error = check(&store, &token("u", "t")).await.unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::Protocol, "{value:?}: {error}");
        // Another target that revokes the token decides all the same.
        revoke(&store, Target::user("banned")).await;
        assert!(matches!(
            check(&store, &token("banned", "t")).await.unwrap(),
            Standing::Revoked(_)
        ));
    }
    // MGET shows a key of another type as missing; that is as far as one command can see.
    server.cli(&["SET", "jwt-revocation:{0}:e", "nonsense"]);
    let error = check(&store, &token("u", "other")).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Protocol, "{error}");
}

fn refused(error: &ConnectError, setting: &str, words: &str) {
    let ConnectError::Config(config) = error else { panic!("{error:?}") };
    assert_eq!(config.setting(), setting, "{error}");
    assert!(error.to_string().contains(words), "{error}");
    assert!(!format!("{error} {error:?}").contains("s3cret"), "{error:?}");
}

#[tokio::test]
async fn another_number_of_shards_is_refused_at_the_start() {
    if !redis_is_installed() {
        return;
    }
    let server = RedisServer::start();
    let _one = connect(&server).await;
    let error =
        RedisStore::builder().with_url(server.url()).with_shards(4).connect().await.unwrap_err();
    refused(&error, "shards", "redis holds version 3 with 1 shards");
    refused(&error, "shards", "version 3 with 4 shards");
}

#[tokio::test]
async fn settings_that_cannot_work_are_named() {
    let of = RedisStore::builder;
    let url = "redis://user:s3cret@127.0.0.1:1";
    let with =
        |change: fn(RedisStoreBuilder) -> RedisStoreBuilder| change(of().with_url(url)).connect();
    refused(&of().connect().await.unwrap_err(), "url", "missing");
    refused(&with(|b| b.with_prefix("")).await.unwrap_err(), "prefix", "1 to 64");
    refused(&with(|b| b.with_prefix("a{b}")).await.unwrap_err(), "prefix", "letters");
    refused(&with(|b| b.with_shards(0)).await.unwrap_err(), "shards", "1 to 1024");
    refused(&with(|b| b.with_shards(1025)).await.unwrap_err(), "shards", "1 to 1024");
    refused(
        &with(|b| b.with_check_timeout(Duration::ZERO)).await.unwrap_err(),
        "check_timeout",
        "millisecond",
    );
    refused(
        &with(|b| b.with_write_timeout(Duration::ZERO)).await.unwrap_err(),
        "write_timeout",
        "millisecond",
    );
    refused(
        &with(|b| b.with_check_timeout(Duration::MAX)).await.unwrap_err(),
        "check_timeout",
        "an hour",
    );
    refused(
        &with(|b| b.with_write_timeout(Duration::MAX)).await.unwrap_err(),
        "write_timeout",
        "an hour",
    );
    refused(
        &with(|b| b.with_max_token_lifetime(Duration::MAX)).await.unwrap_err(),
        "max_token_lifetime",
        "eleven years",
    );
    refused(&with(|b| b.with_max_in_flight(0)).await.unwrap_err(), "max_in_flight", "0");
    refused(&with(|b| b.with_log_length(0)).await.unwrap_err(), "log_length", "0");
    refused(
        &with(|b| b.with_max_token_lifetime(Duration::ZERO)).await.unwrap_err(),
        "max_token_lifetime",
        "0",
    );
    let one = std::num::NonZeroU32::MIN;
    let wait = of().with_url(url).with_wait_replicas(one, Duration::from_secs(1)).connect().await;
    refused(&wait.unwrap_err(), "wait_replicas", "write_timeout");
}

#[tokio::test]
async fn urls_that_cannot_work_are_refused_without_showing_the_password() {
    let table = [
        ("127.0.0.1:6379", "scheme"),
        ("http://user:s3cret@h", "scheme"),
        ("redis-magic://user:s3cret@h", "scheme"),
        ("redis://user:s3cret@h:6379?timeout=5", "timeout"),
        ("redis://user:s3cret@h:6379?node=h:1", "node"),
        ("redis-cluster://user:s3cret@h:7000/1", "database"),
        ("redis-cluster://user:s3cret@h:7000?sentinelServiceName=x", "sentinelServiceName"),
        ("redis-sentinel://user:s3cret@h:26379", "cannot be used"),
        ("redis://user:s3cret@h:6379/x", "cannot be used"),
        ("redis://user:s3cret@h:6379#x", "fragment"),
        ("redis://user:pass?s3cret@h:6379", "%3F"),
        ("redis-sentinel://user:pass?s3cret=a&node=@h:26379", "%3F"),
        ("redis://user:s3cret@:6379", "cannot be used"),
        ("rediss+unix://user:s3cret@h/s", "Unix"),
    ];
    for (url, words) in table {
        let error = RedisStore::connect(url).await.unwrap_err();
        refused(&error, "url", words);
    }
    #[cfg(not(any(feature = "rustls", feature = "native-tls")))]
    for url in ["rediss://user:s3cret@h", "valkeys-cluster://user:s3cret@h"] {
        refused(&RedisStore::connect(url).await.unwrap_err(), "url", "plain text");
    }
    #[cfg(not(feature = "unix-sockets"))]
    refused(&RedisStore::connect("redis+unix:///tmp/s").await.unwrap_err(), "url", "unix-sockets");
}

#[tokio::test]
async fn a_password_with_a_slash_is_taken_from_a_url_and_from_a_setting() {
    if !redis_is_installed() {
        return;
    }
    let server = RedisServer::builder().acl("app on >s3/cr=et ~* +@all").start();
    RedisStore::connect(server.url_as("app", "s3/cr=et")).await.unwrap();
    let parts = RedisStore::builder()
        .with_host("127.0.0.1")
        .with_port(server.port())
        .with_username("app")
        .with_password("s3/cr=et")
        .with_database(3);
    parts.connect().await.unwrap();
    assert!(server.cli(&["-n", "3", "DBSIZE"]) != "0");
    #[cfg(feature = "unix-sockets")]
    {
        let socket = server.socket();
        let url = format!("redis+unix://app:s3/cr=et@{}?db=4", socket.display());
        RedisStore::connect(url).await.unwrap();
        assert!(server.cli(&["-n", "4", "DBSIZE"]) != "0");
    }
}

#[tokio::test]
async fn nothing_that_prints_shows_credentials() {
    if !redis_is_installed() {
        return;
    }
    let server = RedisServer::builder().acl("app on >s3cret ~* +@all").start();
    let builder = RedisStore::builder().with_url(server.url_as("app", "s3cret"));
    let shown = format!("{builder:?}");
    let store = builder.connect().await.unwrap();
    let shown = format!("{shown} {store:?}");
    assert!(!shown.contains("s3cret") && shown.contains("check_timeout"), "{shown}");

    let error = RedisStore::connect(server.url_as("app", "wr0ng")).await.unwrap_err();
    let ConnectError::Store(store) = &error else { panic!("{error:?}") };
    assert_eq!(store.kind(), StoreErrorKind::Denied, "{error}");
    assert!(!format!("{error} {error:?}").contains("wr0ng"), "{error:?}");
}

#[tokio::test]
async fn a_server_that_quotes_what_it_was_sent_is_not_quoted() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("redis://app:s3cret@{}", listener.local_addr().unwrap());
    // As Redis does with commands that it does not know: those that were renamed, or came with a
    // later version.
    let quoting = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let answer = b"-ERR unknown command 'AUTH', with args beginning with: 'app' 's3cret' \r\n";
        while stream.read(&mut [0; 512]).await.unwrap() > 0 {
            stream.write_all(answer).await.unwrap();
        }
    });
    let error =
        RedisStore::builder().with_url(url).with_start(Start::AtOnce).connect().await.unwrap_err();
    quoting.abort();
    assert!(error.to_string().contains("unknown command 'AUTH'"), "{error}");
    assert!(!format!("{error} {error:?}").contains("s3cret"), "{error:?}");
}

#[tokio::test]
async fn valkey_may_be_written_for_redis_and_a_database_be_named() {
    if !redis_is_installed() {
        return;
    }
    let server = RedisServer::start();
    let url = server.url().replace("redis://", "valkey://") + "/3";
    let store = RedisStore::connect(&url).await.unwrap();
    revoke(&store, Target::token("t")).await;
    assert!(server.cli(&["-n", "3", "DBSIZE"]).parse::<u64>().unwrap() > 0);
    assert_eq!(server.cli(&["DBSIZE"]), "0");
}

#[tokio::test]
async fn a_start_without_redis_fails_at_once_waits_or_goes_on() {
    if !redis_is_installed() {
        return;
    }
    let mut server = RedisServer::start();
    let url = server.url();
    server.kill();
    let builder = RedisStore::builder().with_url(&url);
    let error = builder.clone().with_start(Start::AtOnce).connect().await.unwrap_err();
    // What a `main` shows that returns it.
    let shown = format!("{error:?}");
    assert_eq!(shown, error.to_string());
    assert!(shown.starts_with(&format!("redis cannot be used: {}: ", server.addr())), "{shown}");
    assert!(!shown.contains('{'), "{shown}");
    let ConnectError::Store(error) = error else { panic!("{error:?}") };
    assert_eq!(error.kind(), StoreErrorKind::Unreachable, "{error}");

    let start = Start::WaitUpTo(Duration::from_millis(200));
    let ConnectError::Store(error) = builder.clone().with_start(start).connect().await.unwrap_err()
    else {
        panic!()
    };
    assert_eq!(error.kind(), StoreErrorKind::Unreachable, "{error}");

    let anyway = builder.clone().with_start(Start::Anyway).connect().await.unwrap();
    let error = check(&anyway, &token("u", "t")).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Unreachable, "{error}");

    let waiting = tokio::spawn(builder.connect());
    let server = tokio::task::spawn_blocking(move || {
        server.restart();
        server
    });
    let server = server.await.unwrap();
    let waited = waiting.await.unwrap().unwrap();
    revoke(&waited, Target::token("t")).await;
    let recovered = async {
        while check(&anyway, &token("u", "t")).await.is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), recovered).await.unwrap();
    assert!(matches!(check(&anyway, &token("u", "t")).await.unwrap(), Standing::Revoked(_)));
    drop(server);
}

#[tokio::test]
async fn a_lifetime_beyond_all_bounds_is_kept_as_long_as_numbers_go() {
    if !redis_is_installed() {
        return;
    }
    let server = RedisServer::start();
    let store = connect(&server).await;
    let mut change = Revocation::new(Target::token("t"), Duration::MAX);
    change.until = Timestamp::from_millis(u64::MAX);
    store.write(vec![change]).await.unwrap();
    assert!(matches!(check(&store, &token("u", "t")).await.unwrap(), Standing::Revoked(_)));
    assert_eq!(store.count().await.unwrap(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn checks_that_share_a_round_trip_get_their_own_answers() {
    if !redis_is_installed() {
        return;
    }
    let server = RedisServer::start();
    for shards in [1, 5] {
        let store = RedisStore::builder()
            .with_url(server.url())
            .with_prefix(format!("shards-{shards}"))
            .with_shards(shards)
            .with_check_timeout(Duration::from_secs(5))
            .connect()
            .await
            .unwrap();
        // Every third user is banned, every fifth token revoked.
        let banned =
            (0..30).step_by(3).map(|n| Revocation::new(Target::user(format!("u{n}")), HOUR));
        let revoked =
            (0..30).step_by(5).map(|n| Revocation::new(Target::token(format!("t{n}")), HOUR));
        store.write(banned.chain(revoked).collect()).await.unwrap();
        let before = commands(&server, "mget");
        let tasks: Vec<_> = (0..64_usize)
            .map(|seed| {
                let store = store.clone();
                tokio::spawn(async move {
                    for round in 0..100 {
                        let (user, id) = ((seed + round) % 30, (seed * 7 + round * 11) % 30);
                        let token = token(&format!("u{user}"), &format!("t{id}"));
                        // Some go away before they are answered.
                        if round % 10 == 9 {
                            let check = check(&store, &token);
                            let _ = tokio::time::timeout(Duration::from_micros(50), check).await;
                            continue;
                        }
                        let by = match check(&store, &token).await.unwrap() {
                            Standing::Live => None,
                            Standing::Revoked(by) => Some(by.kind),
                            other => panic!("{other:?}"),
                        };
                        match by {
                            None => {
                                assert!(user % 3 != 0 && id % 5 != 0, "user {user}, token {id}");
                            }
                            Some(TargetKind::User) => {
                                assert_eq!(user % 3, 0, "user {user}, token {id}");
                            }
                            Some(TargetKind::Token) => {
                                assert_eq!(id % 5, 0, "user {user}, token {id}");
                            }
                            other => panic!("{other:?}"),
                        }
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        let sent = commands(&server, "mget") - before;
        assert!(sent < 64 * 100 / 2, "{sent} commands for 6400 checks");
    }
}

/// How often the server has run this command.
fn commands(server: &RedisServer, name: &str) -> u64 {
    let stats = server.cli(&["INFO", "commandstats"]);
    let line = stats.lines().find_map(|line| line.strip_prefix(&format!("cmdstat_{name}:calls=")));
    line.map_or(0, |line| line.split(',').next().unwrap().parse().unwrap())
}

#[tokio::test]
async fn a_check_that_is_never_polled_again_delays_no_other() {
    if !redis_is_installed() {
        return;
    }
    let server = RedisServer::start();
    let store = connect(&server).await;
    let token = token("u", "t");
    let mut left_alone: Vec<_> = (0..10).map(|_| Box::pin(check(&store, &token))).collect();
    for check in &mut left_alone {
        assert!(futures::poll!(check).is_pending());
    }
    for _ in 0..100 {
        assert_eq!(check(&store, &token).await.unwrap(), Standing::Live);
    }
}

/// The prefix of a store, as if another version of this crate had written it.
fn rewrite_as(server: &RedisServer, version: i64) {
    let meta = "jwt-revocation:{0}:m";
    server.cli(&["HSET", meta, "layout", &version.to_string()]);
    let keys = server.cli(&["KEYS", "jwt-revocation:{0}:[er]*"]);
    for key in keys.lines() {
        let value = server.cli(&["GET", key]);
        let (_, rest) = value.split_once(' ').unwrap();
        server.cli(&["SET", key, &format!("{version} {rest}")]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_prefix_of_another_version_is_refused_by_both_versions_and_the_way_out() {
    use tower_jwt_revocation::store::feed::{Feed as _, FeedSource as _};

    if !redis_is_installed() {
        return;
    }
    for step in [-1, 1] {
        let server = RedisServer::start();
        let store = RedisStore::connect(server.url()).await.unwrap();
        revoke(&store, Target::token("t")).await;
        let mut feed = store.feeds().unwrap().remove(0);
        feed.connect().await.unwrap();
        let ours: i64 = server.cli(&["HGET", "jwt-revocation:{0}:m", "layout"]).parse().unwrap();
        rewrite_as(&server, ours + step);

        let names_both = |what: &str, problem: &str| {
            for part in [format!("version {}", ours + step), format!("version {ours}")] {
                assert!(problem.contains(&part), "{what}: {problem}");
            }
            assert!(problem.contains("run one version"), "{what}: {problem}");
        };
        // Who was there before, and what it reads, writes and follows.
        let error = check(&store, &token("u", "t")).await.unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::Protocol);
        names_both("check", &error.to_string());
        let change = Revocation::new(Target::token("new"), HOUR);
        let error = store.write(vec![change]).await.unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::Protocol);
        names_both("write", &error.to_string());
        assert!(error.to_string().contains("jwt-revocation"), "{error}");
        let error = store.find(&Target::token("t")).await.unwrap_err();
        names_both("find", &error.to_string());
        let error = feed.find(&[Target::token("t").fingerprint()]).await.unwrap_err();
        names_both("feed", &error.to_string());
        #[cfg(feature = "sessions")]
        {
            use tower_jwt_revocation::store::session::SessionStore as _;

            let loaded = store.load(vec![Target::family("f")], Vec::new()).await;
            names_both("sessions", &loaded.unwrap_err().to_string());
        }
        // Who comes now, however it starts.
        let error = RedisStore::connect(server.url()).await.unwrap_err();
        names_both("connect", &error.to_string());
        assert!(error.to_string().contains("the prefix jwt-revocation"), "{error}");
        let anyway = RedisStore::builder().with_url(server.url());
        let anyway = anyway.with_start(Start::Anyway).connect().await;
        let anyway = anyway.unwrap();
        wait_until("it is connected", Duration::from_secs(30), || anyway.health().checks());
        let error = check(&anyway, &token("u", "t")).await.unwrap_err();
        names_both("anyway", &error.to_string());
        // Nothing was overwritten.
        let held = server.cli(&["HGET", "jwt-revocation:{0}:m", "layout"]);
        assert_eq!(held, (ours + step).to_string());
        assert!(server.cli(&["GET", "jwt-revocation:{0}:e"]).starts_with(&format!("{held} ")));
        // The way out.
        let other = RedisStore::builder().with_url(server.url()).with_prefix("next");
        assert_eq!(
            check(&other.connect().await.unwrap(), &token("u", "t")).await.unwrap(),
            Standing::Live
        );
    }
}
