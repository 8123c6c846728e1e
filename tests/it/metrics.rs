//! What the metrics say of requests, whichever way they are given out.

use std::collections::BTreeMap;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use tower::{Layer as _, ServiceExt as _};
use tower_jwt_revocation::metrics::{Metrics, Sample, Samples};
use tower_jwt_revocation::store::{RevocationStore as _, StoreErrorKind};
use tower_jwt_revocation::{FailMode, JwtRevocationLayer, MemoryStore, Target};

use crate::support::{
    Around, Handler, WordVerifier, expired_token, late_store, layer, layer_that_fails, request,
    token, with_token,
};

/// The sum of all numbers of this name whose labels hold these.
fn value(metrics: &Metrics, name: &str, labels: &[(&str, &str)]) -> f64 {
    let name = format!("jwt_revocation_{name}");
    let has = |sample: &Sample, (name, value): &(&str, &str)| {
        sample.labels.iter().any(|(known, theirs)| known == name && theirs == value)
    };
    metrics
        .samples()
        .filter(|sample| sample.name == name && labels.iter().all(|label| has(sample, label)))
        .map(|sample| sample.value)
        .sum()
}

async fn send<A>(layer: &JwtRevocationLayer<A>, tokens: &[&str])
where
    A: tower_jwt_revocation::middleware::RejectionResponse<String>,
{
    for token in tokens {
        layer.layer(Handler).oneshot(with_token(token)).await.unwrap();
    }
}

#[track_caller]
fn assert_value(metrics: &Metrics, name: &str, labels: &[(&str, &str)], expected: f64) {
    let seen = value(metrics, name, labels);
    assert!((seen - expected).abs() < 1e-9, "{name} {labels:?} is {seen}, not {expected}");
}

#[tokio::test]
async fn each_request_is_counted_once_by_what_became_of_it_and_why() {
    let layer = layer();
    let metrics = layer.metrics();
    layer.revoker().revoke(Target::user("mallory")).await.unwrap();
    let (good, bad) = (token("alice", "1"), token("mallory", "2"));
    send(&layer, &[&good, &good, &bad, &expired_token(), "forged"]).await;
    layer.layer(Handler).oneshot(request()).await.unwrap();

    assert_value(&metrics, "requests_total", &[("outcome", "admitted")], 2.0);
    assert_value(&metrics, "requests_total", &[("outcome", "refused")], 4.0);
    assert_value(&metrics, "requests_total", &[], 6.0);
    for (reason, number) in
        [("revoked", 1.0), ("invalid_token", 2.0), ("no_credentials", 1.0), ("no_verdict", 0.0)]
    {
        assert_value(&metrics, "refusals_total", &[("reason", reason)], number);
    }
    assert_value(&metrics, "invalid_tokens_total", &[("kind", "expired")], 1.0);
    assert_value(&metrics, "invalid_tokens_total", &[("kind", "bad_signature")], 1.0);
    assert_value(&metrics, "invalid_tokens_total", &[], 2.0);
    assert_value(&metrics, "revoked_tokens_total", &[("target", "user")], 1.0);
    assert_value(&metrics, "operations_total", &[("operation", "revoke_user")], 1.0);
}

/// The verdict of a memory store is known at once: in the lowest bucket, and no clock is read.
#[tokio::test]
async fn a_verdict_from_memory_is_in_the_lowest_bucket_and_the_count_is_that_of_checks() {
    let layer = layer();
    let metrics = layer.metrics();
    layer.revoker().revoke(Target::token("2")).await.unwrap();
    send(&layer, &[&token("alice", "1"), &token("alice", "2"), "forged"]).await;
    let (memory, lowest) = (("source", "memory"), ("le", "0.00001"));
    assert_value(&metrics, "check_duration_seconds_bucket", &[memory, lowest], 2.0);
    assert_value(&metrics, "check_duration_seconds_sum", &[], 0.0);
    assert_value(&metrics, "check_duration_seconds_count", &[], 2.0);
    assert_eq!(layer.counters().snapshot().checks(), 2);
}

#[tokio::test]
async fn what_the_store_was_asked_is_counted_with_the_time_that_it_took() {
    let layer = JwtRevocationLayer::new(WordVerifier::default(), late_store());
    let metrics = layer.metrics();
    layer.revoker().revoke(Target::token("2")).await.unwrap();
    send(&layer, &[&token("alice", "1"), &token("alice", "2")]).await;
    assert_value(&metrics, "check_duration_seconds_count", &[("source", "store")], 2.0);
    assert_value(&metrics, "check_duration_seconds_count", &[("source", "memory")], 0.0);
    assert!(value(&metrics, "check_duration_seconds_sum", &[]) > 0.0);
    assert_eq!(layer.counters().snapshot().checks(), 2);
}

#[tokio::test]
async fn an_error_of_the_store_is_a_check_and_what_becomes_of_the_request_is_seen() {
    for (mode, outcome, reason) in [
        (FailMode::Closed, "refused", Some("no_verdict")),
        (FailMode::Open, "admitted_unchecked", None),
    ] {
        let layer = layer_that_fails(StoreErrorKind::Timeout).with_fail_mode(mode);
        let metrics = layer.metrics();
        send(&layer, &[&token("alice", "1")]).await;
        assert_value(&metrics, "requests_total", &[("outcome", outcome)], 1.0);
        assert_value(&metrics, "refusals_total", &[], if reason.is_some() { 1.0 } else { 0.0 });
        assert_value(&metrics, "store_errors_total", &[("kind", "timeout")], 1.0);
        assert_value(&metrics, "check_duration_seconds_count", &[("source", "store")], 1.0);
        assert_eq!(layer.counters().snapshot().checks(), 1);
    }
    let layer = layer_that_fails(StoreErrorKind::DataLoss).with_report_only();
    send(&layer, &[&token("alice", "1")]).await;
    let metrics = layer.metrics();
    assert_value(&metrics, "would_refuse_total", &[("reason", "in_doubt")], 1.0);
    assert_value(&metrics, "requests_total", &[("outcome", "would_refuse")], 1.0);
}

#[tokio::test]
async fn no_label_holds_an_id_a_token_or_text_of_a_client() {
    let layer = layer();
    let odd = token("a-user-of-the-test", "a-token-of-the-test");
    send(&layer, &[&odd, "text-of-a-client"]).await;
    layer.revoker().revoke(Target::user("a-user-of-the-test")).await.unwrap();
    send(&layer, &[&odd]).await;
    let text = layer.metrics().prometheus();
    for secret in ["of-the-test", "of-a-client", &odd] {
        assert!(!text.contains(secret), "{text}");
    }
}

/// What was given out is never smaller the next time, whatever goes on meanwhile: else Prometheus
/// would take it for a restart.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_counter_never_goes_back_while_requests_are_under_way() {
    let layer = JwtRevocationLayer::new(WordVerifier::default(), late_store());
    let (metrics, good) = (layer.metrics(), token("alice", "1"));
    let traffic = tokio::spawn(async move {
        for _ in 0..50 {
            let under_way: FuturesUnordered<_> =
                (0..20).map(|_| layer.layer(Handler).oneshot(with_token(&good))).collect();
            under_way.for_each(|answer| async move { drop(answer.unwrap()) }).await;
        }
    });
    let mut last = BTreeMap::new();
    while !traffic.is_finished() {
        for sample in metrics.samples().filter(Sample::is_counter) {
            let key = (sample.name, format!("{:?}", sample.labels));
            let before = last.insert(key.clone(), sample.value).unwrap_or(0.0);
            assert!(sample.value >= before, "{key:?} fell from {before} to {}", sample.value);
        }
    }
    traffic.await.unwrap();
    assert_value(&metrics, "check_duration_seconds_count", &[], 1000.0);
}

#[tokio::test]
async fn the_text_has_what_the_samples_have_line_by_line() {
    let layer = layer();
    send(&layer, &[&token("alice", "1")]).await;
    let metrics = layer.metrics();
    let text = metrics.prometheus();
    let lines: Vec<_> = text.lines().filter(|line| !line.starts_with('#')).collect();
    assert_eq!(lines, metrics.samples().map(|sample| sample.to_string()).collect::<Vec<_>>());
    assert!(text.ends_with('\n') && text.contains("\n# TYPE jwt_revocation_store_up gauge\n"));
    assert!(lines.contains(&"jwt_revocation_requests_total{outcome=\"admitted\"} 1"), "{text}");
    assert!(lines.contains(&"jwt_revocation_store_up{purpose=\"checks\"} 1"), "{text}");
}

/// A store around a store hands on what the inner one says.
#[test]
fn of_a_store_that_hands_nothing_on_only_its_condition_is_known() {
    let around = Around(MemoryStore::new(), |store: &MemoryStore, token: &_| store.check(token));
    let metrics = JwtRevocationLayer::new(WordVerifier::default(), around).metrics();
    assert_value(&metrics, "store_up", &[], 1.0);
    let shared: std::sync::Arc<dyn tower_jwt_revocation::store::RevocationStore> =
        std::sync::Arc::new(MemoryStore::new());
    shared.add_metrics(&mut Samples::default());
    let metrics = JwtRevocationLayer::new(WordVerifier::default(), shared).metrics();
    assert_value(&metrics, "store_up", &[], 2.0);
}

#[cfg(feature = "metrics")]
mod facade {
    use std::sync::{Arc, Mutex};

    use metrics::{
        Counter, CounterFn, Gauge, GaugeFn, Histogram, Key, KeyName, Metadata, Recorder,
        SharedString, Unit,
    };

    use super::*;

    /// Keeps the last number of each key, with what kind it is of.
    #[derive(Default)]
    struct LastValues(Arc<Mutex<BTreeMap<String, f64>>>);

    struct Place(Arc<Mutex<BTreeMap<String, f64>>>, String);

    impl Place {
        fn put(&self, value: f64) {
            self.0.lock().unwrap().insert(self.1.clone(), value);
        }
    }

    impl CounterFn for Place {
        fn increment(&self, _: u64) {
            panic!("what is counted elsewhere is set, not added");
        }

        #[expect(clippy::cast_precision_loss, reason = "the numbers of the test are small")]
        fn absolute(&self, value: u64) {
            self.put(value as f64);
        }
    }

    impl GaugeFn for Place {
        fn increment(&self, _: f64) {
            panic!("a gauge is set");
        }

        fn decrement(&self, _: f64) {
            panic!("a gauge is set");
        }

        fn set(&self, value: f64) {
            self.put(value);
        }
    }

    impl LastValues {
        fn place(&self, kind: &str, key: &Key) -> Arc<Place> {
            let labels = key.labels().map(|label| (label.key(), label.value()));
            let key = line(kind, key.name(), labels);
            Arc::new(Place(Arc::clone(&self.0), key))
        }
    }

    impl Recorder for LastValues {
        fn describe_counter(&self, name: KeyName, _: Option<Unit>, text: SharedString) {
            assert!(text.ends_with('.'), "{name:?} {text}");
        }

        fn describe_gauge(&self, name: KeyName, _: Option<Unit>, text: SharedString) {
            assert!(text.ends_with('.'), "{name:?} {text}");
        }

        fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

        fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
            Counter::from_arc(self.place("counter", key))
        }

        fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
            Gauge::from_arc(self.place("gauge", key))
        }

        fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
            panic!("{key} is a histogram: these are given out as counters");
        }
    }

    fn line<'a>(
        kind: &str,
        name: &str,
        labels: impl Iterator<Item = (&'a str, &'a str)>,
    ) -> String {
        let mut labels: Vec<_> = labels.map(|(name, value)| format!("{name}={value}")).collect();
        labels.sort();
        format!("{kind} {name} {labels:?}")
    }

    #[tokio::test]
    async fn the_recorder_of_the_metrics_crate_gets_the_same_numbers_under_the_same_names() {
        let layer = layer();
        let recorder = LastValues::default();
        let metrics = layer.metrics();
        for _ in 0..2 {
            send(&layer, &[&token("alice", "1"), "forged"]).await;
            ::metrics::with_local_recorder(&recorder, || metrics.emit());
        }
        let expected: BTreeMap<_, _> = metrics
            .samples()
            .map(|sample| {
                let is_whole = sample.is_counter() && !sample.name.ends_with("_sum");
                let kind = if is_whole { "counter" } else { "gauge" };
                let labels = sample.labels.iter().map(|(name, value)| (*name, &**value));
                (line(kind, sample.name, labels), sample.value)
            })
            .collect();
        assert_eq!(*recorder.0.lock().unwrap(), expected);
    }
}

#[cfg(feature = "redis")]
mod redis {
    use std::time::{Duration, Instant};

    use tower_jwt_revocation::RedisStore;

    use super::*;
    use crate::servers::{RedisServer, redis_is_installed};

    async fn until(metrics: &Metrics, name: &str, is_it: impl Fn(f64) -> bool) -> f64 {
        let start = Instant::now();
        loop {
            let seen = value(metrics, name, &[]);
            if is_it(seen) {
                return seen;
            }
            assert!(start.elapsed() < Duration::from_secs(30), "{name} is {seen}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    #[tokio::test]
    async fn a_redis_store_says_how_its_connections_its_epoch_and_its_log_of_writes_are() {
        if !redis_is_installed() {
            return;
        }
        let mut server = RedisServer::start();
        let store = RedisStore::connect(&server.url()).await.unwrap();
        let layer = JwtRevocationLayer::new(WordVerifier::default(), store.clone());
        let metrics = layer.metrics();
        assert_value(&metrics, "store_up", &[("purpose", "checks")], 1.0);
        assert_value(&metrics, "store_up", &[("purpose", "writes")], 1.0);
        assert_value(&metrics, "store_reconnects_total", &[], 0.0);
        assert_value(&metrics, "store_settling", &[], 0.0);
        assert_value(&metrics, "store_doubt_seconds", &[], 0.0);
        assert_value(&metrics, "store_replay_log_writes", &[], 0.0);
        let epoch = value(&metrics, "store_epoch_start_time_seconds", &[]);
        assert!(epoch > 1e9, "{epoch}");

        send(&layer, &[&token("alice", "1")]).await;
        assert_value(&metrics, "store_batch_size_count", &[], 1.0);
        assert_value(&metrics, "store_batch_size_sum", &[], 1.0);
        layer.revoker().revoke(Target::user("mallory")).await.unwrap();
        assert_value(&metrics, "store_replay_log_writes", &[], 1.0);
        assert!(value(&metrics, "store_replay_log_bytes", &[]) > 0.0);

        let found = |metrics: &Metrics| {
            metrics.samples().any(|sample| sample.name == "jwt_revocation_store_findings")
        };
        assert!(!found(&metrics), "nobody has asked the doctor");
        let report = store.doctor().await;
        assert!(found(&metrics));
        let errors = value(&metrics, "store_findings", &[("severity", "error")]);
        assert_eq!(report.is_fit(), errors < 0.5, "{report}");

        server.kill();
        until(&metrics, "store_up", |up| up < 0.5).await;
        server.restart();
        until(&metrics, "store_up", |up| up > 1.5).await;
        assert!(value(&metrics, "store_reconnects_total", &[("purpose", "checks")]) > 0.5);
        assert!(value(&metrics, "store_reconnects_total", &[("purpose", "writes")]) > 0.5);
        // It has come back without its data.
        until(&metrics, "store_epoch_start_time_seconds", |began| began > epoch).await;
    }

    #[tokio::test]
    async fn a_loss_of_data_shows_as_a_doubt_and_for_how_long_it_lasts() {
        if !redis_is_installed() {
            return;
        }
        let server = RedisServer::start();
        let store = RedisStore::connect(&server.url()).await.unwrap();
        let layer = JwtRevocationLayer::new(WordVerifier::default(), store);
        let metrics = layer.metrics();
        server.cli(&["FLUSHALL"]);
        let left = until(&metrics, "store_doubt_seconds", |left| left > 0.0).await;
        assert!(left <= 25.0 * 3600.0, "{left}");
        send(&layer, &[&token("alice", "1")]).await;
        assert_value(&metrics, "refusals_total", &[("reason", "in_doubt")], 1.0);
    }
}
