//! Several issuers in one layer, each with keys, an audience, claims and a fail mode of its own.

use http::{Request, StatusCode};
use serde_json::json;
use tower::{Layer as _, ServiceExt as _};
use tower_jwt_revocation::clock::Timestamp;
use tower_jwt_revocation::revocation::TargetKind;
use tower_jwt_revocation::store::StoreErrorKind;
use tower_jwt_revocation::store::scripted::ScriptedStore;
use tower_jwt_revocation::token::IssuerSet;
use tower_jwt_revocation::{
    Algorithm, Extent, FailMode, JwtRevocationLayer, JwtVerifier, Target, TokenProfile,
    VerificationKey,
};

use crate::support::{Handler, with_token};

const STAFF: &str = "https://staff.example";
const SHOP: &str = "https://shop.example";

fn verifier(secret: [u8; 32], profile: TokenProfile) -> JwtVerifier {
    let key = VerificationKey::from_secret(Algorithm::HS256, &secret).unwrap();
    JwtVerifier::new([key.with_kid("2026").unwrap()], profile).unwrap()
}

/// Both know an alice, a session `s` and a key `2026`; only staff can be revoked by `badge`.
fn layer(store: ScriptedStore) -> JwtRevocationLayer {
    let staff = TokenProfile::new().with_issuer(STAFF).with_audience("desk");
    let staff = verifier([1; 32], staff.with_claim_target("badge", TargetKind::Claim));
    let shop = verifier([2; 32], TokenProfile::new().with_issuer(SHOP).with_audience("cart"));
    let set = IssuerSet::new(staff).unwrap().with(shop).unwrap();
    JwtRevocationLayer::new(set, store).with_fail_mode_for(|_, token| {
        if token.issuer() == Some(SHOP) { FailMode::Open } else { FailMode::Closed }
    })
}

fn token(issuer: &str) -> String {
    let (secret, audience) = if issuer == STAFF { ([1; 32], "desk") } else { ([2; 32], "cart") };
    let now = Timestamp::now().as_secs();
    let claims = json!({
        "iss": issuer, "aud": audience, "sub": "alice", "jti": "1", "sid": "s",
        "client_id": "c", "badge": "b",
        "iat": now, "exp": now + 600,
    });
    let key = jsonwebtoken::EncodingKey::from_secret(&secret).unwrap();
    jsonwebtoken::encode(&jsonwebtoken::Header::default(), &claims, &key).unwrap()
}

#[tokio::test]
async fn what_is_revoked_at_one_is_not_revoked_at_the_other_whatever_it_is_called() {
    for target in [
        Target::token("1"),
        Target::session("s"),
        Target::user("alice"),
        Target::client("c"),
        Target::key("2026"),
        Target::claim("badge", "b"),
        Target::issuer(STAFF),
    ] {
        let store = ScriptedStore::new();
        let (layer, shown) = (layer(store), target.to_string());
        let ask = async |issuer| {
            layer.layer(Handler).oneshot(with_token(&token(issuer))).await.unwrap().status()
        };
        assert_eq!(
            (ask(STAFF).await, ask(SHOP).await),
            (StatusCode::OK, StatusCode::OK),
            "{shown}"
        );
        if target.kind() != TargetKind::Issuer {
            let nobodys = layer.revoker().revoke(target.clone()).await.unwrap_err();
            assert_eq!(nobodys.kind(), StoreErrorKind::InvalidInput, "{shown}: at which issuer?");
        }
        layer.revoker().revoke(target.issued_by(STAFF)).extent(Extent::All).await.unwrap();
        assert_eq!(
            (ask(STAFF).await, ask(SHOP).await),
            (StatusCode::UNAUTHORIZED, StatusCode::OK),
            "{shown}"
        );
    }
}

#[tokio::test]
async fn a_claim_by_which_no_token_of_an_issuer_can_be_revoked_is_no_target_there() {
    let revoker = layer(ScriptedStore::new()).revoker();
    let error =
        revoker.revoke(Target::claim("badge", "b").issued_by(SHOP)).await.unwrap_err().to_string();
    assert!(error.contains("does not map the claim badge"), "{error}");
}

#[tokio::test]
async fn each_has_a_fail_mode_of_its_own() {
    let store = ScriptedStore::new();
    let layer = layer(store.clone());
    store.fail(StoreErrorKind::Unreachable);
    let ask = async |request: Request<String>| {
        layer.layer(Handler).oneshot(request).await.unwrap().status()
    };
    assert_eq!(ask(with_token(&token(STAFF))).await, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(ask(with_token(&token(SHOP))).await, StatusCode::OK);
    let counted = layer.counters().snapshot();
    assert_eq!((counted.refused.standing_unknown, counted.admitted_unchecked), (1, 1));
}
