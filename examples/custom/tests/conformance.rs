//! What is plugged in keeps the rules: the public suites, and what they cannot know.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use custom::store::SqlStore;
use rusqlite::Connection;
use tempfile::TempDir;
use tower_jwt_revocation::clock::Timestamp;
use tower_jwt_revocation::revocation::Revocation;
use tower_jwt_revocation::store::{RevocationStore as _, Standing, StoreErrorKind};
use tower_jwt_revocation::testing::{StoreFixture, Suite};
use tower_jwt_revocation::token::SignedClaims;
use tower_jwt_revocation::{Revoker, Target, TokenProfile, VerifiedToken};

/// Stores in files of a directory that is removed at the end.
struct Files {
    directory: TempDir,
    stores: AtomicUsize,
}

impl Files {
    fn new() -> Self {
        Self { directory: TempDir::new().unwrap(), stores: AtomicUsize::new(0) }
    }

    /// The file of the latest store: the rules are tried one after another.
    fn path(&self) -> PathBuf {
        self.directory.path().join(self.stores.load(Ordering::SeqCst).to_string())
    }
}

impl StoreFixture for Files {
    type Store = SqlStore;

    async fn store(&self) -> SqlStore {
        self.stores.fetch_add(1, Ordering::SeqCst);
        SqlStore::open(&self.path()).unwrap()
    }

    /// Another connection, as another process has it.
    async fn another(&self, _: &SqlStore) -> Option<SqlStore> {
        Some(SqlStore::open(&self.path()).unwrap())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_is_a_store_of_revocations() {
    Suite::of_store(&Files::new()).assert_conforms().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_can_be_mirrored() {
    // A file loses nothing, so the rules about losses are not tried.
    Suite::of_feed(&Files::new()).assert_conforms().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_is_a_store_of_sessions() {
    Suite::of_session_store(&Files::new()).assert_conforms().await;
}

#[tokio::test]
async fn what_was_confirmed_is_there_after_a_restart() {
    let files = Files::new();
    let store = files.store().await;
    let revoker = Revoker::new(store.clone(), TokenProfile::new()).unwrap();
    revoker.revoke(Target::user("alice")).reason("stolen").await.unwrap();
    let record = store.find(&Target::user("alice")).await.unwrap();
    drop((store, revoker));
    let store = SqlStore::open(&files.path()).unwrap();
    assert!(record.is_some());
    assert_eq!(store.find(&Target::user("alice")).await.unwrap(), record);
}

/// A token of alice, issued a minute ago.
fn token() -> Arc<VerifiedToken> {
    let now = Timestamp::now();
    let iat = now.as_secs() - 60;
    let claims = format!(r#"{{"sub":"alice","jti":"t","iat":{iat},"exp":{}}}"#, iat + 600);
    let claims = SignedClaims::new(claims.as_bytes());
    Arc::new(TokenProfile::new().assert_verified(claims).unwrap())
}

#[tokio::test]
async fn what_cannot_be_read_is_an_error() {
    let files = Files::new();
    for damage in [
        "kind = 'nothing'",
        "kind = 'claim'",
        "claim = 'x'",
        "id = 'bob'",
        "all_revoked_at = -1",
        "cutoff_set_at = 0",
    ] {
        let store = files.store().await;
        let revoker = Revoker::new(store.clone(), TokenProfile::new()).unwrap();
        revoker.revoke(Target::user("alice")).await.unwrap();
        let other = Connection::open(files.path()).unwrap();
        other.execute(&format!("UPDATE record SET {damage}"), []).unwrap();
        let error = store.find(&Target::user("alice")).await.unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::Protocol, "{damage}: {error}");
        let error = store.check(&token()).answer().await.unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::Protocol, "{damage}: {error}");
        // Another record that covers the token decides all the same.
        revoker.revoke(Target::token("t")).await.unwrap();
        let standing = store.check(&token()).answer().await.unwrap();
        assert!(matches!(standing, Standing::Revoked(_)), "{damage}: {standing:?}");
    }
}

#[tokio::test]
async fn what_is_over_is_deleted_at_leisure() {
    let files = Files::new();
    let store = files.store().await;
    let short = Duration::from_millis(50);
    let change = |n: u32| Revocation::new(Target::token(format!("t{n}")), short);
    store.write((0..100).map(change).collect()).await.unwrap();
    tokio::time::sleep(short * 2).await;
    let rows = || {
        let other = Connection::open(files.path()).unwrap();
        other.query_row("SELECT count(*) FROM record", [], |row| row.get::<_, u32>(0)).unwrap()
    };
    assert_eq!(rows(), 100);
    for n in 100..103 {
        store.write(vec![change(n)]).await.unwrap();
    }
    assert!(rows() <= 3);
}
