//! The span around a check that has to wait. Alone in its binary: the interest in a span is one for
//! all threads.
#![cfg(feature = "test-util")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

#[path = "it/support.rs"]
#[allow(dead_code, reason = "shared with the tests in `it`, which use all of it")]
mod support;

#[cfg(feature = "redis")]
#[path = "support/mod.rs"]
mod servers;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex};

use tower::{Layer as _, ServiceExt as _};
use tower_jwt_revocation::store::StoreErrorKind;
use tower_jwt_revocation::store::scripted::ScriptedStore;
use tower_jwt_revocation::{JwtRevocationLayer, MemoryStore, Target};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};

use support::{Handler, WordVerifier, late_store, token, with_token};

/// The fields of the spans of this crate, in the order in which they were made.
#[derive(Clone, Default)]
struct Spans(Arc<Mutex<Vec<(Id, Fields)>>>);

#[derive(Clone, Debug, Default)]
struct Fields(BTreeMap<&'static str, String>);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.insert(field.name(), format!("{value:?}").trim_matches('"').into());
    }
}

impl<S: tracing::Subscriber> Layer<S> for Spans {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, _: Context<'_, S>) {
        if attributes.metadata().name() == "jwt_revocation.check" {
            let mut fields = Fields::default();
            attributes.record(&mut fields);
            self.0.lock().unwrap().push((id.clone(), fields));
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, _: Context<'_, S>) {
        let mut spans = self.0.lock().unwrap();
        if let Some((_, fields)) = spans.iter_mut().rev().find(|(known, _)| known == id) {
            values.record(fields);
        }
    }
}

impl Spans {
    fn take(&self) -> Vec<BTreeMap<&'static str, String>> {
        let spans = std::mem::take(&mut *self.0.lock().unwrap());
        spans.into_iter().map(|(_, fields)| fields.0).collect()
    }

    #[track_caller]
    fn expect_one(&self, expected: &[(&'static str, &str)]) {
        let spans = self.take();
        let expected: BTreeMap<_, _> =
            expected.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        assert_eq!(spans, [expected]);
    }
}

async fn send(layer: &JwtRevocationLayer) {
    layer.layer(Handler).oneshot(with_token(&token("alice", "1"))).await.unwrap();
}

#[tokio::test]
async fn a_check_that_has_to_wait_has_a_span_with_names_of_opentelemetry_and_no_user_unless_asked()
{
    let spans = Spans::default();
    let subscriber = tracing_subscriber::registry().with(spans.clone());
    tracing::subscriber::set_global_default(subscriber).unwrap();

    let layer = JwtRevocationLayer::new(WordVerifier::default(), late_store());
    send(&layer).await;
    spans.expect_one(&[("otel.kind", "client"), ("jwt_revocation.verdict", "live")]);
    layer.revoker().revoke(Target::user("alice")).await.unwrap();
    send(&layer.clone().with_user_ids_in_spans()).await;
    spans.expect_one(&[
        ("otel.kind", "client"),
        ("jwt_revocation.verdict", "revoked"),
        ("user.id", "alice"),
    ]);

    let failing = ScriptedStore::new();
    failing.fail_later(StoreErrorKind::Timeout);
    send(&JwtRevocationLayer::new(WordVerifier::default(), failing)).await;
    spans.expect_one(&[("otel.kind", "client"), ("error.type", "timeout")]);

    // What is known at once takes no time of which a trace could tell.
    send(&JwtRevocationLayer::new(WordVerifier::default(), MemoryStore::new())).await;
    assert!(spans.take().is_empty());

    #[cfg(feature = "redis")]
    if servers::redis_is_installed() {
        let server = servers::RedisServer::start();
        let store = tower_jwt_revocation::RedisStore::connect(server.url()).await.unwrap();
        send(&JwtRevocationLayer::new(WordVerifier::default(), store)).await;
        spans.expect_one(&[
            ("otel.kind", "client"),
            ("db.system.name", "redis"),
            ("jwt_revocation.verdict", "live"),
        ]);
    }
}
