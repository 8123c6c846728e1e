//! A revocation that no layer on the store could ever find says so, and is written all the same.

use std::sync::Arc;

use futures::FutureExt as _;
use tower_jwt_revocation::revocation::Outcome;
use tower_jwt_revocation::revocation::TargetKind::Claim;
use tower_jwt_revocation::store::{RevocationStore, StoreError, StoreErrorKind};
use tower_jwt_revocation::{
    JwtRevocationLayer, MemoryStore, Revoker, Target, TokenProfile, VerifiedToken,
};

use crate::support::{Around, WordVerifier};

const OURS: &str = "https://a.example";

fn profile(issuer: &str) -> TokenProfile {
    TokenProfile::new().with_issuer(issuer)
}

fn layer(store: impl RevocationStore, profile: TokenProfile) -> JwtRevocationLayer {
    JwtRevocationLayer::new(WordVerifier::of(profile), store)
}

/// The error of a revocation that was written in vain.
async fn in_vain(revoker: &Revoker, target: Target) -> StoreError {
    let error = revoker.revoke(target.clone()).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Unmatched, "{error}");
    assert!(error.is_permanent() && !error.may_be_repeated(), "{error}");
    assert!(revoker.find(target).await.unwrap().is_some(), "in doubt it is written");
    error
}

#[tokio::test]
async fn what_no_layer_accepts_is_told() {
    let store = MemoryStore::new();
    let ours = Revoker::new(store.clone(), profile(OURS)).unwrap();
    // Nobody has said what it accepts: it may be of an older release.
    ours.revoke(Target::user("alice")).await.unwrap();
    assert!(!ours.could_match(Target::user("alice")).await.unwrap());

    let nameless = layer(store.clone(), TokenProfile::new());
    let error = in_vain(&ours, Target::user("bob")).await.to_string();
    for part in ["bob of https://a.example", "one issuer without a name", "allow_unmatched"] {
        assert!(error.contains(part), "{error}");
    }
    let error = ours.could_match(Target::user("dora")).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Unmatched);
    assert!(ours.find(Target::user("dora")).await.unwrap().is_none(), "it was only asked");
    let many = [Target::user("eve"), Target::token("t")].map(|target| ours.revoke(target));
    let error = ours.revoke_many(many).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Unmatched);
    assert!(ours.find(Target::token("t")).await.unwrap().is_some());
    // What was revoked can be taken back, and whoever knows better can insist.
    ours.reinstate(Target::user("alice")).await.unwrap();
    let insisting = ours.clone().allow_unmatched_targets();
    assert_eq!(insisting.revoke(Target::user("carl")).await.unwrap().outcome, Outcome::New);
    // The revoker of a layer knows that there is one.
    nameless.revoker().revoke(Target::user("alice")).await.unwrap();

    // One layer that accepts it is enough.
    let _named = layer(store.clone(), profile(OURS));
    ours.revoke(Target::user("bob")).await.unwrap();
    assert!(ours.could_match(Target::user("bob")).await.unwrap());
    let theirs = Revoker::new(store, profile("https://b.example")).unwrap();
    assert!(in_vain(&theirs, Target::token("t")).await.to_string().contains(OURS));
}

#[tokio::test]
async fn claims_and_kinds_count_as_well_as_issuers() {
    let store = MemoryStore::new();
    let rich = TokenProfile::new().with_claim_target("tenant", Claim);
    let revoker = Revoker::new(store.clone(), rich.clone()).unwrap();
    let _poor = layer(store.clone(), TokenProfile::new().without_claim_target("sid"));
    for target in [Target::claim("tenant", "acme"), Target::issuer(""), Target::key("2026")] {
        let is_matched = revoker.revoke(target.clone()).await.is_ok();
        assert_eq!(is_matched, target.claim_name().is_none(), "{target}");
    }
    revoker.revoke(Target::user("alice")).await.unwrap();
    in_vain(&revoker, Target::claim("tenant", "acme")).await;
    let _rich = layer(store, rich);
    revoker.revoke(Target::claim("tenant", "acme")).await.unwrap();
    revoker.revoke(Target::session("s")).await.unwrap();
}

#[tokio::test]
async fn several_issuers_are_accepted_by_one_layer_each_for_itself() {
    let tenant = "https://{tenant}.b.example/v2";
    let accepted = TokenProfile::combined([
        profile(OURS).with_claim_target("tenant", Claim),
        TokenProfile::new().with_issuer_pattern(tenant, |_| true),
    ])
    .unwrap();
    let store = MemoryStore::new();
    let _layer = layer(store.clone(), accepted);
    let of = |issuer: &str| {
        let profile = profile(issuer).with_claim_target("tenant", Claim);
        Revoker::new(store.clone(), profile).unwrap()
    };
    of(OURS).revoke(Target::claim("tenant", "acme")).await.unwrap();
    of("https://t.b.example/v2").revoke(Target::user("u")).await.unwrap();
    in_vain(&of("https://t.b.example/v2"), Target::claim("tenant", "acme")).await;
    in_vain(&of("https://t.b.example/v1"), Target::user("u")).await;
}

#[tokio::test]
async fn a_store_that_keeps_nothing_of_layers_is_no_reason_to_doubt() {
    let around = Around(MemoryStore::new(), |store: &MemoryStore, token: &Arc<VerifiedToken>| {
        store.check(token)
    });
    let store = Arc::new(around);
    let _layer = layer(Arc::clone(&store), TokenProfile::new());
    let revoker = Revoker::new(store, profile(OURS)).unwrap();
    revoker.revoke(Target::user("alice")).await.unwrap();
    assert!(!revoker.could_match(Target::user("alice")).now_or_never().unwrap().unwrap());
}

#[cfg(feature = "sessions")]
#[tokio::test]
async fn what_ends_refresh_tokens_is_not_in_vain() {
    use tower_jwt_revocation::session::{Login, RefreshPolicy, SessionDetails, Sessions};

    let store = MemoryStore::new();
    let revoker = Revoker::new(store.clone(), profile(OURS)).unwrap();
    let sessions = Sessions::new(store.clone(), revoker.clone(), RefreshPolicy::new()).unwrap();
    // No layer has said anything.
    revoker.revoke(Target::token("t")).await.unwrap();
    let _layer = layer(store.clone(), profile("https://b.example"));
    let login = sessions.login("alice", SessionDetails::new()).await.unwrap();
    let Login::Granted(grant) = login else { panic!("{login:?}") };
    sessions.end(grant.session.as_deref().unwrap()).await.unwrap();
    revoker.revoke(Target::user("alice")).await.unwrap();
    // An access token is another matter.
    let error = in_vain(&revoker, Target::token("u")).await.to_string();
    assert!(error.contains("of https://a.example, which"), "{error}");
    assert!(error.contains("those of https://b.example;"), "{error}");
}

#[cfg(feature = "redis")]
mod on_redis {
    use std::time::Duration;

    use tokio::time::{sleep, timeout};
    use tower_jwt_revocation::store::redis::Start;
    use tower_jwt_revocation::{Mirror, RedisStore};

    use super::*;
    use crate::mirror::{PATIENCE, connect, token};
    use crate::servers::{Cluster, RedisServer, redis_is_installed};

    const WEEK: Duration = Duration::from_secs(7 * 24 * 3600);

    /// Waits until what a layer accepts is known to the revoker.
    async fn until_matched(revoker: &Revoker) {
        let matched = async {
            while !revoker.could_match(Target::user("alice")).await.is_ok_and(|is| is) {
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(PATIENCE, matched).await.expect("no layer says what it accepts");
    }

    fn revoker(store: &RedisStore, issuer: &str) -> Revoker {
        Revoker::new(store.clone(), profile(issuer)).unwrap()
    }

    /// Where Redis keeps it.
    const KEY: &str = "jwt-revocation:{0}:p";

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn another_process_learns_of_it_for_a_week() {
        if !redis_is_installed() {
            return;
        }
        let server = RedisServer::start();
        let checking = Mirror::new(connect(server.url()).await).unwrap();
        let revoking = connect(server.url()).await;
        let right = revoker(&revoking, OURS);
        let wrong = Revoker::new(revoking.clone(), TokenProfile::new()).unwrap();
        wrong.revoke(Target::user("alice")).await.unwrap();
        let _layer = layer(checking.clone(), profile(OURS));
        until_matched(&right).await;
        right.revoke(Target::user("alice")).await.unwrap();
        assert!(in_vain(&wrong, Target::user("alice")).await.to_string().contains(OURS));
        let near = Revoker::new(checking, profile(OURS)).unwrap();
        assert!(near.could_match(Target::user("alice")).await.unwrap());
        let left: u64 = server.cli(&["PTTL", KEY]).trim().parse().unwrap();
        let left = Duration::from_millis(left);
        assert!(left <= WEEK && left + Duration::from_secs(3600) > WEEK, "{left:?}");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_was_not_said_for_a_week_is_forgotten_and_whoever_is_there_says_it_again() {
        if !redis_is_installed() {
            return;
        }
        let server = RedisServer::start();
        let (checking, revoking) = (connect(server.url()).await, connect(server.url()).await);
        let _first = layer(checking.clone(), profile(OURS));
        until_matched(&revoker(&revoking, OURS)).await;
        let old = "https://old.example";
        let said = format!(r#"{{"iss":["{old}"],"by":["token","user"]}}"#);
        server.cli(&["ZADD", KEY, "1", &said]);
        revoker(&revoking, old).revoke(Target::user("alice")).await.unwrap();
        let _second = layer(checking.clone(), profile("https://b.example"));
        until_matched(&revoker(&revoking, "https://b.example")).await;
        in_vain(&revoker(&revoking, old), Target::user("alice")).await;

        // What is said in a way that cannot be read may be what matters.
        server.cli(&["ZADD", KEY, "9999999999999", "later"]);
        revoker(&revoking, old).revoke(Target::user("alice")).await.unwrap();

        server.cli(&["DEL", KEY]);
        let _third = layer(checking, profile("https://c.example"));
        for issuer in ["https://c.example", OURS, "https://b.example"] {
            until_matched(&revoker(&revoking, issuer)).await;
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn after_a_loss_of_data_nothing_is_known() {
        if !redis_is_installed() {
            return;
        }
        let server = RedisServer::start();
        let (checking, revoking) = (connect(server.url()).await, connect(server.url()).await);
        let _layer = layer(checking.clone(), profile(OURS));
        until_matched(&revoker(&revoking, OURS)).await;
        let wrong = revoker(&revoking, "https://b.example");
        in_vain(&wrong, Target::user("alice")).await;
        server.cli(&["FLUSHALL"]);
        // It says so again, and another layer may not have got to it.
        let said_again = async {
            while server.cli(&["ZCARD", KEY]).trim() != "1" {
                // Who checks a token finds out that data was lost.
                let _ = checking.check(&token("t")).answer().await;
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(PATIENCE, said_again).await.expect("it is not said again");
        let written = async {
            while let Err(error) = wrong.revoke(Target::user("alice")).await {
                assert_ne!(error.kind(), StoreErrorKind::Unmatched, "{error}");
            }
        };
        timeout(PATIENCE, written).await.expect("it is never written");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn it_is_said_as_soon_as_redis_is_there() {
        if !redis_is_installed() {
            return;
        }
        let mut server = RedisServer::start();
        server.kill();
        let late = RedisStore::builder().with_url(server.url()).with_start(Start::Anyway);
        let _layer = layer(late.connect().await.unwrap(), profile(OURS));
        server.restart();
        let revoking = connect(server.url()).await;
        until_matched(&revoker(&revoking, OURS)).await;
        in_vain(&revoker(&revoking, "https://b.example"), Target::user("alice")).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn it_needs_no_further_rights_and_who_has_none_says_nothing() {
        if !redis_is_installed() {
            return;
        }
        let server = RedisServer::start();
        let rights = include_str!("../../src/store/redis/least_rights.acl");
        let rights: Vec<_> = rights.split_whitespace().skip(3).collect();
        server.cli(&[&["ACL", "SETUSER", "app"], rights.as_slice()].concat());
        server.cli(
            &[&["ACL", "SETUSER", "reader"], rights.as_slice(), &["-eval", "-evalsha"]].concat(),
        );
        let url = server.url_as("app", "password");
        let (checking, revoking) = (connect(&url).await, connect(&url).await);
        let _layer = layer(checking, profile(OURS));
        until_matched(&revoker(&revoking, OURS)).await;
        in_vain(&revoker(&revoking, "https://b.example"), Target::user("alice")).await;
        // Reading needs no right to write; what such a layer looks for is written all the same.
        let reading = connect(server.url_as("reader", "password")).await;
        let _reader = layer(reading.clone(), profile("https://b.example"));
        in_vain(&revoker(&revoking, "https://b.example"), Target::user("bob")).await;
        let seen = revoker(&reading, "https://b.example").find(Target::user("bob")).await;
        assert!(seen.unwrap().is_some());
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn in_a_cluster_all_shards_share_it() {
        if !redis_is_installed() {
            return;
        }
        let cluster = tokio::task::spawn_blocking(Cluster::start).await.unwrap();
        let store = || RedisStore::builder().with_url(cluster.url()).with_shards(8).connect();
        let (checking, revoking) = (store().await.unwrap(), store().await.unwrap());
        let _layer = layer(checking, profile(OURS));
        until_matched(&revoker(&revoking, OURS)).await;
        for n in 0..16 {
            let (right, wrong) =
                (revoker(&revoking, OURS), revoker(&revoking, "https://b.example"));
            right.revoke(Target::user(format!("u{n}"))).await.unwrap();
            in_vain(&wrong, Target::user(format!("u{n}"))).await;
        }
    }
}
