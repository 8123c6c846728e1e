//! What the log says, and what it must never say. Alone in its binary: a subscriber of one thread
//! only would miss what the tests of other threads have switched off.
#![cfg(feature = "test-util")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

#[path = "it/support.rs"]
#[allow(dead_code, reason = "shared with the tests in `it`, which use all of it")]
mod support;

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tower::{Layer as _, ServiceExt as _};
use tower_jwt_revocation::revocation::TargetKind;
use tower_jwt_revocation::store::StoreErrorKind;
use tower_jwt_revocation::store::scripted::ScriptedStore;
use tower_jwt_revocation::token::TokenVerifier as _;
use tower_jwt_revocation::{FailMode, JwtRevocationLayer, Target, TokenProfile};
use tracing_subscriber::fmt::MakeWriter;

use support::{Handler, WordVerifier, token, with_token};

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn take(&self) -> String {
        String::from_utf8(std::mem::take(&mut *self.0.lock().unwrap())).unwrap()
    }
}

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Log {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

#[tokio::test(start_paused = true)]
async fn the_log_tells_each_change_once_and_never_the_token() {
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_ansi(false)
        .with_writer(log.clone())
        .finish();
    tracing::subscriber::set_global_default(subscriber).unwrap();

    let store = ScriptedStore::new();
    let layer = JwtRevocationLayer::new(WordVerifier::default(), store.clone())
        .with_fail_mode(FailMode::Open);
    let service = layer.layer(Handler);
    let secret = token("alice-the-user", "secret-id");
    let ask = || async {
        service.clone().oneshot(with_token(&secret)).await.unwrap();
    };
    ask().await;
    assert_eq!(log.take(), "");

    store.fail(StoreErrorKind::Timeout);
    for _ in 0..3 {
        ask().await;
    }
    let text = log.take();
    assert_eq!(text.matches("ADMITTED UNCHECKED").count(), 1, "{text}");
    assert!(text.contains("WARN") && text.contains("Timeout"), "{text}");

    store.answer();
    tokio::time::advance(Duration::from_secs(11)).await;
    for _ in 0..3 {
        ask().await;
    }
    let text = log.take();
    assert_eq!(text.matches("answers again").count(), 1, "{text}");

    layer.revoker().revoke(Target::user("alice-the-user")).await.unwrap();
    ask().await;
    let text = log.take();
    assert!(text.contains("DEBUG") && text.contains("Revoked(User)"), "{text}");
    assert!(
        !text.contains("alice") && !text.contains("secret") && !text.contains(&secret),
        "{text}"
    );

    // A claim that is misspelt is told after a thousand tokens, and once.
    let profile = TokenProfile::new()
        .with_claim_target("tenat", TargetKind::Claim)
        .with_claim_target("role", TargetKind::Claim);
    let verifier = WordVerifier::of(profile);
    for tokens in 1..=3000 {
        verifier.verify(&secret).unwrap();
        if tokens == 999 {
            assert_eq!(log.take(), "");
        }
    }
    let text = log.take();
    assert_eq!(text.matches("no token has had this claim").count(), 1, "{text}");
    assert!(text.contains("WARN") && text.contains("tenat") && !text.contains("role"), "{text}");
    assert_eq!(verifier.profile().unseen_claim_targets(), [("tenat", 3000)]);
}
