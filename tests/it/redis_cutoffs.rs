//! By which clock "all tokens issued so far" is dated.

use std::sync::Arc;
use std::time::Duration;

use tower_jwt_revocation::revocation::Revocation;
use tower_jwt_revocation::store::{RevocationStore as _, Standing};
use tower_jwt_revocation::{RedisStore, Target, VerifiedToken};

use crate::servers::{RedisServer, redis_is_installed};
use crate::store_contract::{check, issued_at, now};

const HOUR: Duration = Duration::from_secs(3600);

/// A token issued this many milliseconds from now, before now if negative.
fn issued(after_ms: i64) -> Arc<VerifiedToken> {
    #[expect(clippy::cast_precision_loss, reason = "exact enough for milliseconds of a date")]
    let iat = (now().as_millis().saturating_add_signed(after_ms)) as f64 / 1000.0;
    issued_at("alice", "t", iat)
}

async fn connect(server: &RedisServer, lead: Duration) -> RedisStore {
    RedisStore::builder()
        .with_url(server.url())
        .with_check_timeout(Duration::from_secs(5))
        .with_issuer_clock_lead(lead)
        .connect()
        .await
        .unwrap()
}

async fn log_out_everywhere(store: &RedisStore) {
    store.write(vec![Revocation::new(Target::user("alice"), HOUR)]).await.unwrap();
}

async fn is_revoked(store: &RedisStore, token: &Arc<VerifiedToken>) -> bool {
    matches!(check(store, token).await.unwrap(), Standing::Revoked(_))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_is_behind_spares_no_token_issued_before_the_call() {
    if !redis_is_installed() {
        return;
    }
    let server = RedisServer::builder().own_clock().start();
    for behind in [1000, 3000, 4500] {
        server.set_clock(-behind);
        let store = connect(&server, Duration::ZERO).await;
        let before = issued(-1);
        tokio::time::sleep(Duration::from_millis(2)).await;
        log_out_everywhere(&store).await;
        assert!(is_revoked(&store, &before).await, "{behind} ms behind");
        assert!(!is_revoked(&store, &issued(1000)).await, "{behind} ms behind");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cutoff_is_dated_ahead_of_redis_by_5_s_at_most_and_the_doctor_says_so() {
    if !redis_is_installed() {
        return;
    }
    let server = RedisServer::builder().own_clock().start();
    server.set_clock(-20_000);
    let store = connect(&server, Duration::ZERO).await;
    log_out_everywhere(&store).await;
    assert!(is_revoked(&store, &issued(-16_000)).await);
    assert!(!is_revoked(&store, &issued(-10_000)).await);
    let report = store.doctor().await;
    let clock = report.findings.iter().find(|finding| finding.subject == "clock").unwrap();
    assert!(clock.is_error(), "{report}");
    assert!(clock.sentence.contains("issued before a revocation may pass"), "{report}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cutoffs_are_dated_later_for_issuers_whose_clock_runs_ahead() {
    if !redis_is_installed() {
        return;
    }
    let server = RedisServer::start();
    let exact = connect(&server, Duration::ZERO).await;
    log_out_everywhere(&exact).await;
    assert!(!is_revoked(&exact, &issued(20_000)).await);
    let later = connect(&server, Duration::from_secs(30)).await;
    log_out_everywhere(&later).await;
    assert!(is_revoked(&later, &issued(20_000)).await);
    assert!(!is_revoked(&later, &issued(40_000)).await);

    let builder = RedisStore::builder().with_url(server.url());
    let error = builder.with_issuer_clock_lead(HOUR).connect().await.unwrap_err();
    assert!(error.to_string().contains("issuer_clock_lead"), "{error}");
}
