//! A mirror over the store, and writes through another handle, as another process makes them.

use std::sync::Arc;
use std::time::Duration;

use custom::store::SqlStore;
use tempfile::TempDir;
use tower_jwt_revocation::clock::Timestamp;
use tower_jwt_revocation::store::{Lookup, RevocationStore as _, Standing};
use tower_jwt_revocation::token::SignedClaims;
use tower_jwt_revocation::{Mirror, Revoker, Target, TokenProfile, VerifiedToken};

const LIMIT: Duration = Duration::from_secs(30);

/// A token of alice, issued a minute ago.
fn token() -> Arc<VerifiedToken> {
    let iat = Timestamp::now().as_secs() - 60;
    let claims = format!(r#"{{"sub":"alice","jti":"t","iat":{iat},"exp":{}}}"#, iat + 600);
    let claims = SignedClaims::new(claims.as_bytes());
    Arc::new(TokenProfile::new().assert_verified(claims).unwrap())
}

/// The answer, if it comes from memory.
fn from_memory(mirror: &Mirror, token: &Arc<VerifiedToken>) -> Option<Standing> {
    match mirror.check(token) {
        Lookup::Now(answer) => Some(answer.unwrap()),
        Lookup::Later(_) => None,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_was_revoked_through_another_handle_is_refused_from_memory() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("store");
    let mirror = Mirror::builder(SqlStore::open(&path).unwrap())
        // A proof that outlasts the pauses of a busy machine.
        .with_max_staleness(Duration::from_secs(10))
        .start()
        .unwrap();
    tokio::time::timeout(LIMIT, mirror.ready()).await.unwrap();
    let token = token();
    assert_eq!(from_memory(&mirror, &token), Some(Standing::Live));

    let revoker = Revoker::new(SqlStore::open(&path).unwrap(), TokenProfile::new()).unwrap();
    let confirmed = revoker.revoke(Target::user("alice")).confirm(LIMIT).await.unwrap();
    assert_eq!(confirmed.mirrors, Some(1));
    assert!(matches!(from_memory(&mirror, &token), Some(Standing::Revoked(_))));

    let confirmed = revoker.reinstate(Target::user("alice")).confirm(LIMIT).await.unwrap();
    assert_eq!(confirmed.mirrors, Some(1));
    assert_eq!(from_memory(&mirror, &token), Some(Standing::Live));
}
