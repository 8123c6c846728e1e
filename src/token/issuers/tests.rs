use std::collections::HashMap;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use futures::FutureExt as _;
use serde_json::{Value, json};

use super::*;
use crate::clock::{ManualClock, Timestamp};
use crate::revocation::TargetKind;
use crate::store::RevocationStore as _;
use crate::store::{Lookup, Standing};
use crate::token::Algorithm;
use crate::token::jwt::VerificationKey;
use crate::token::profile::SignedClaims;
use crate::{CachedVerifier, Extent, JwtVerifier, MemoryStore, Revoker, Target};

const NOW: u64 = 1_700_000_000;
const STAFF: &str = "https://staff.example";
const SHOP: &str = "https://shop.example";

fn secret(issuer: &str) -> Vec<u8> {
    issuer.bytes().cycle().take(64).collect()
}

fn mint(key_of: &str, claims: &Value) -> String {
    // jsonwebtoken must not be asked for anything before a key of ours was made.
    VerificationKey::from_secret(Algorithm::HS256, &[0; 32]).unwrap();
    jsonwebtoken::encode(
        &jsonwebtoken::Header::default(),
        claims,
        &jsonwebtoken::EncodingKey::from_secret(&secret(key_of)).unwrap(),
    )
    .unwrap()
}

fn claims(issuer: &str, audience: &str) -> Value {
    let (iat, exp) = (NOW, NOW + 600);
    json!({"iss": issuer, "aud": audience, "sub": "alice", "jti": "1", "iat": iat, "exp": exp})
}

fn verifier(issuer: &str, profile: TokenProfile) -> JwtVerifier {
    verifier_by(ManualClock::new(Timestamp::from_secs(NOW)), issuer, profile)
}

fn verifier_by(clock: ManualClock, issuer: &str, profile: TokenProfile) -> JwtVerifier {
    // All have a key of this name.
    let key = VerificationKey::from_secret(Algorithm::HS256, &secret(issuer))
        .unwrap()
        .with_kid("k")
        .unwrap();
    JwtVerifier::new([key], profile).unwrap().with_clock(clock)
}

fn staff_and_shop() -> IssuerSet {
    staff_and_shop_by(&ManualClock::new(Timestamp::from_secs(NOW)))
}

fn staff_and_shop_by(clock: &ManualClock) -> IssuerSet {
    let staff =
        TokenProfile::new().with_issuer(STAFF).with_audience("orders").with_leeway(Duration::ZERO);
    let shop = TokenProfile::new()
        .with_issuer(SHOP)
        .with_audience("shop")
        .with_max_lifetime(Duration::from_secs(48 * 60 * 60))
        .with_claim_target("basket", TargetKind::Session);
    let [staff, shop] = [(STAFF, staff), (SHOP, shop)]
        .map(|(issuer, profile)| verifier_by(clock.clone(), issuer, profile));
    IssuerSet::new(staff).unwrap().with(shop).unwrap()
}

#[track_caller]
fn assert_refused(set: &IssuerSet, token: &str, kind: TokenErrorKind) {
    assert_eq!(set.verify(token).unwrap_err().kind(), kind);
    assert_eq!(set.verify_for_revocation(token).unwrap_err().kind(), kind);
}

#[test]
fn each_token_is_checked_by_the_verifier_of_its_issuer() {
    let set = staff_and_shop();
    for (issuer, audience) in [(STAFF, "orders"), (SHOP, "shop")] {
        assert_eq!(
            set.verify(&mint(issuer, &claims(issuer, audience))).unwrap().issuer(),
            Some(issuer)
        );
    }
    assert_refused(&set, &mint(SHOP, &claims(SHOP, "orders")), TokenErrorKind::WrongAudience);
    assert_refused(&set, &mint(STAFF, &claims(STAFF, "shop")), TokenErrorKind::WrongAudience);
}

#[test]
fn a_key_of_one_issuer_does_not_open_the_door_of_another() {
    let set = staff_and_shop();
    assert_refused(&set, &mint(SHOP, &claims(STAFF, "orders")), TokenErrorKind::BadSignature);
    assert_refused(&set, &mint(STAFF, &claims(SHOP, "shop")), TokenErrorKind::BadSignature);
}

#[test]
fn strangers_and_tokens_without_an_issuer_have_no_verifier() {
    let set = staff_and_shop();
    assert_refused(
        &set,
        &mint(STAFF, &claims("https://else.example", "orders")),
        TokenErrorKind::WrongIssuer,
    );
    assert_refused(
        &set,
        &mint(STAFF, &claims(&format!("{STAFF}/"), "orders")),
        TokenErrorKind::WrongIssuer,
    );
    assert_refused(&set, &mint(STAFF, &json!({"aud": "orders"})), TokenErrorKind::MissingClaim);
    assert_refused(&set, &mint(STAFF, &json!({"iss": [STAFF]})), TokenErrorKind::OddClaim);
    assert_refused(&set, &mint(STAFF, &json!([STAFF])), TokenErrorKind::Malformed);
    for malformed in ["", "a", "a.b", "a.b.c.d", "a.%.c", "..", "e30.e30=.e30"] {
        assert_refused(&set, malformed, TokenErrorKind::Malformed);
    }
}

#[test]
fn nothing_is_read_of_a_token_that_is_too_long_for_all_verifiers() {
    let profile = |issuer| TokenProfile::new().with_issuer(issuer);
    let set = |staff: usize, shop: usize| {
        IssuerSet::new(verifier(STAFF, profile(STAFF)).with_max_token_bytes(staff))
            .unwrap()
            .with(verifier(SHOP, profile(SHOP)).with_max_token_bytes(shop))
            .unwrap()
    };
    assert_refused(&staff_and_shop(), &"a".repeat(8193), TokenErrorKind::TooLong);
    // Of no form at all, which is seen only where it is read.
    let junk = "é".repeat(500);
    assert_refused(&set(999, 600), &junk, TokenErrorKind::TooLong);
    assert_refused(&set(1000, 600), &junk, TokenErrorKind::Malformed);
    // Beyond any limit that is not one of theirs; the header counts as well.
    let mut long = claims(SHOP, "shop");
    long["groups"] = json!(vec!["0".repeat(36); 4000]);
    let long = mint(SHOP, &long);
    assert!(long.len() > 200_000);
    set(600, 300_000).verify(&long).unwrap();
    assert_refused(&set(300_000, 600), &long, TokenErrorKind::TooLong);
    let tenants = IssuerSet::of_tenants(profile(SHOP).with_max_token_bytes(600), |_| None).unwrap();
    assert_refused(&tenants, &long, TokenErrorKind::TooLong);
}

#[test]
fn reading_ends_at_an_issuer_that_is_odd_or_comes_again() {
    let set = staff_and_shop();
    // What follows is no JSON, which nobody sees.
    for payload in [
        format!(r#"{{"iss":"{STAFF}","sub":"a","iss":"{SHOP}" nothing"#),
        format!(r#"{{"iss":"{STAFF}","iss"nothing"#).replace("nothing", ":nothing"),
        r#"{"iss":["https://staff.example" nothing"#.into(),
        r#"{"iss":{"a" nothing"#.into(),
        r#"{"iss":1, nothing"#.into(),
        r#"{"iss":true, nothing"#.into(),
        // In any spelling, and a second one after any first one.
        format!(r#"{{"\u0069ss":"{STAFF}","iss":"{SHOP}" nothing"#),
        format!(r#"{{"iss":null,"i\u0073s":"{STAFF}" nothing"#),
        format!(r#"{{"iss":"{STAFF}","a":[{{}}],"iss":"{STAFF}" nothing"#),
        r#"{"iss":{"$serde_json::private::Number":"1"} nothing"#.into(),
        r#"{"iss":-1 nothing"#.into(),
        r#"{"iss":[[[[ nothing"#.into(),
    ] {
        let token = format!("e30.{}.AA", URL_SAFE_NO_PAD.encode(&payload));
        let error = set.verify(&token).unwrap_err();
        assert_eq!(error.kind(), TokenErrorKind::OddClaim, "{payload}");
        assert!(error.to_string().contains("`iss`"), "{error}");
    }
    for payload in [
        r#"{"iss":"open"#,
        r#"{"iss":nothing}"#,
        r#"{"iss":"a",}"#,
        r#"["iss"]"#,
        "{",
        r#"{"iss":"\ud800"}"#,
        "\u{feff}{}",
        r#"{"iss":"a"} {"iss":"b"}"#,
    ] {
        let token = format!("e30.{}.AA", URL_SAFE_NO_PAD.encode(payload));
        assert_refused(&set, &token, TokenErrorKind::Malformed);
    }
}

/// Those inside of other claims, of any type and in any number, choose nothing.
#[test]
fn the_issuer_is_that_of_the_token_itself() {
    let set = staff_and_shop();
    let mut nested = claims(STAFF, "orders");
    nested["act"] = json!({"iss": SHOP, "act": {"iss": [1]}});
    nested["list"] = json!([{"iss": SHOP}, ["iss", SHOP]]);
    nested["iss "] = json!(SHOP);
    nested["Iss"] = json!(SHOP);
    assert_eq!(set.verify(&mint(STAFF, &nested)).unwrap().issuer(), Some(STAFF));
    assert_refused(&set, &mint(SHOP, &nested), TokenErrorKind::BadSignature);
    // An escaped one is the same.
    let escaped = STAFF.replace('s', "\\u0073");
    let payload = nested.to_string().replace(STAFF, &escaped);
    let input = format!(
        "{}.{}",
        URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256"}"#),
        URL_SAFE_NO_PAD.encode(payload)
    );
    let key = jsonwebtoken::EncodingKey::from_secret(&secret(STAFF)).unwrap();
    let hs256 = jsonwebtoken::Algorithm::HS256;
    let signature = jsonwebtoken::crypto::sign(input.as_bytes(), &key, hs256).unwrap();
    let token = set.verify(&format!("{input}.{signature}")).unwrap();
    assert_eq!(token.issuer(), Some(STAFF));
}

#[test]
fn two_issuers_in_one_token_are_refused_whichever_is_chosen() {
    let set = staff_and_shop();
    for [one, other] in [[STAFF, SHOP], [SHOP, STAFF]] {
        let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256"}"#);
        let payload = format!(
            r#"{{"iss":"{one}","iss":"{other}","aud":["orders","shop"],
                "jti":"1","iat":{NOW},"exp":{}}}"#,
            NOW + 600
        );
        let input = format!("{header}.{}", URL_SAFE_NO_PAD.encode(payload));
        for signer in [STAFF, SHOP] {
            let key = jsonwebtoken::EncodingKey::from_secret(&secret(signer)).unwrap();
            let signature =
                jsonwebtoken::crypto::sign(input.as_bytes(), &key, jsonwebtoken::Algorithm::HS256)
                    .unwrap();
            set.verify(&format!("{input}.{signature}")).unwrap_err();
        }
    }
}

#[test]
fn the_same_ids_at_two_issuers_are_different_targets() {
    let set = staff_and_shop();
    let staff = set.verify(&mint(STAFF, &claims(STAFF, "orders"))).unwrap();
    let shop = set.verify(&mint(SHOP, &claims(SHOP, "shop"))).unwrap();
    assert_eq!(staff.target(TargetKind::Key), Some(Target::key("k").issued_by(STAFF)));
    for target in staff.targets() {
        assert!(
            shop.targets().iter().all(|other| other.fingerprint() != target.fingerprint()),
            "{target:?}"
        );
    }
}

#[test]
fn the_claims_of_one_issuer_mean_nothing_at_another() {
    let set = staff_and_shop();
    let mut with_basket = claims(STAFF, "orders");
    with_basket["basket"] = json!("b");
    assert_eq!(set.verify(&mint(STAFF, &with_basket)).unwrap().target(TargetKind::Session), None);
    let mut with_basket = claims(SHOP, "shop");
    with_basket["basket"] = json!("b");
    let session = Target::session("b").issued_by(SHOP);
    assert_eq!(
        set.verify(&mint(SHOP, &with_basket)).unwrap().target(TargetKind::Session),
        Some(session)
    );
}

#[test]
fn the_combined_profile_checks_each_token_by_the_rules_of_its_issuer() {
    let clock = ManualClock::new(Timestamp::from_secs(NOW));
    let set = staff_and_shop_by(&clock);
    let staff = set.verify(&mint(STAFF, &claims(STAFF, "orders"))).unwrap();
    let shop = set.verify(&mint(SHOP, &claims(SHOP, "shop"))).unwrap();
    let profile = set.profile();
    clock.set(Timestamp::from_secs(NOW + 600));
    assert_eq!(profile.check_times(&staff).unwrap_err().kind(), TokenErrorKind::Expired);
    profile.check_times(&shop).unwrap();
    clock.set(Timestamp::from_secs(NOW));

    let signed = |claims: &Value| serde_json::to_vec(claims).unwrap();
    let check = |claims: &Value| profile.assert_verified(SignedClaims::new(&signed(claims)));
    check(&claims(SHOP, "shop")).unwrap();
    assert_eq!(check(&claims(SHOP, "orders")).unwrap_err().kind(), TokenErrorKind::WrongAudience);
    assert_eq!(
        check(&claims("https://else.example", "shop")).unwrap_err().kind(),
        TokenErrorKind::WrongIssuer
    );
}

#[test]
fn a_revoker_wants_to_know_the_issuer_and_keeps_records_for_the_longest_token() {
    let set = staff_and_shop();
    let revoker = Revoker::new(MemoryStore::new(), set.profile().clone()).unwrap();
    let revoke = |target| revoker.revoke(target).into_future().now_or_never().unwrap();
    let error = revoke(Target::user("alice")).unwrap_err().to_string();
    assert!(error.contains(STAFF) && error.contains(SHOP), "{error}");
    revoke(Target::user("alice").issued_by("https://else.example")).unwrap_err();
    revoke(Target::user("alice").issued_by(STAFF)).unwrap();
    let find = |issuer| {
        revoker.find(Target::user("alice").issued_by(issuer)).now_or_never().unwrap().unwrap()
    };
    let record = find(STAFF).unwrap();
    assert!(
        record.until().saturating_duration_since(record.changed_at())
            >= Duration::from_secs(48 * 60 * 60)
    );
    assert!(find(SHOP).is_none());
}

#[test]
fn a_set_refuses_verifiers_without_an_issuer_and_issuers_with_two_verifiers() {
    let error = IssuerSet::new(verifier(STAFF, TokenProfile::new())).unwrap_err().to_string();
    assert!(error.starts_with("issuer: one of several profiles names none"), "{error}");
    let error = staff_and_shop()
        .with(verifier(
            SHOP,
            TokenProfile::new().with_issuer("https://new.example").with_issuer(SHOP),
        ))
        .unwrap_err()
        .to_string();
    assert_eq!(
        error,
        format!("issuer: `{SHOP}` stands in two profiles; a token must be checked by one")
    );
    TokenProfile::combined([]).unwrap_err();
}

#[test]
fn sets_of_sets_choose_the_same_verifiers() {
    let inner = staff_and_shop();
    let third = "https://third.example";
    let set = IssuerSet::new(verifier(third, TokenProfile::new().with_issuer(third)))
        .unwrap()
        .with(inner)
        .unwrap();
    for (issuer, audience) in [(STAFF, "orders"), (SHOP, "shop"), (third, "any")] {
        set.verify(&mint(issuer, &claims(issuer, audience))).unwrap();
    }
}

// === Tenants ===

fn realm(name: &str) -> String {
    format!("https://id.example/realms/{name}")
}

const REALMS: &str = "https://id.example/realms/{tenant}";

fn realms() -> TokenProfile {
    TokenProfile::new().with_issuer_pattern(REALMS, |tenant| tenant != "closed")
}

#[test]
fn tenants_with_the_same_keys_need_one_verifier_and_keep_their_ids_apart() {
    let verifier = verifier("all", realms());
    let verify = |tenant: &str| verifier.verify(&mint("all", &claims(&realm(tenant), "any")));
    let (one, other) = (verify("one").unwrap(), verify("other").unwrap());
    assert_eq!(one.target(TargetKind::User), Some(Target::user("alice").issued_by(realm("one"))));
    let keys: Vec<_> = [&one, &other]
        .map(|token| {
            token.targets().iter().filter(|target| target.kind() == TargetKind::Key).collect()
        })
        .into_iter()
        .flat_map(|keys: Vec<_>| keys.into_iter().map(|key| *key.fingerprint()))
        .collect();
    assert_eq!(keys[1], keys[3], "the key that they share");
    for target in one.targets() {
        let shared =
            other.targets().iter().any(|theirs| theirs.fingerprint() == target.fingerprint());
        assert_eq!(shared, *target.fingerprint() == keys[1], "{target:?}");
        assert_eq!(one.describe(target).fingerprint(), *target.fingerprint());
    }
    for stranger in
        ["closed", "", "..", "a/b", "a%2fb", "a?b", "a#b", ".a", "a.", "a@b", "ä", &"a".repeat(254)]
    {
        assert_eq!(
            verify(stranger).unwrap_err().kind(),
            TokenErrorKind::WrongIssuer,
            "{stranger:?}"
        );
    }
    let revoker = Revoker::new(MemoryStore::new(), realms()).unwrap();
    let revoke = |target| revoker.revoke(target).into_future().now_or_never().unwrap();
    revoke(Target::user("alice").issued_by(realm("one"))).unwrap();
    revoke(Target::user("alice").issued_by(realm("closed"))).unwrap_err();
    assert!(revoke(Target::user("alice")).unwrap_err().to_string().contains("{tenant}"));
    revoke(Target::user("alice").issued_by(REALMS)).unwrap_err();
}

#[test]
fn a_key_is_revoked_at_its_issuer_and_one_that_tenants_share_at_all_of_them() {
    let (store, verifier) = (MemoryStore::new(), verifier("all", realms()));
    let revoker = Revoker::new(store.clone(), realms()).unwrap();
    let token =
        |tenant: &str| verifier.verify(&mint("all", &claims(&realm(tenant), "any"))).unwrap();
    let is_live = |tenant: &str| match store.check(&token(tenant)) {
        Lookup::Now(answer) => matches!(answer.unwrap(), Standing::Live),
        Lookup::Later(_) => panic!("a memory store knows at once"),
    };
    let revoke =
        |target| revoker.revoke(target).extent(Extent::All).into_future().now_or_never().unwrap();
    let error = revoke(Target::key("k")).unwrap_err().to_string();
    assert!(error.contains(REALMS), "{error}");
    revoke(Target::key("k").issued_by(realm("one"))).unwrap();
    assert!(!is_live("one") && is_live("other"));
    revoke(Target::key("k").issued_by(REALMS)).unwrap();
    assert!(!is_live("other"));

    // Where each tenant has keys of its own, none is everyone's.
    let set = IssuerSet::of_tenants(realms(), |_| None).unwrap();
    let layer = crate::JwtRevocationLayer::new(set, MemoryStore::new());
    let revoke = |target| layer.revoker().revoke(target).into_future().now_or_never().unwrap();
    revoke(Target::key("k").issued_by(REALMS)).unwrap_err();
    revoke(Target::key("k").issued_by(realm("one"))).unwrap();
}

/// A tenant that is named, because it is the own one, has the keys of all others.
#[test]
fn a_key_that_is_revoked_at_a_pattern_is_revoked_at_named_issuers_of_its_shape() {
    let named = |profile: TokenProfile| profile.with_issuer(realm("own")).with_issuer(STAFF);
    let pattern = |profile: TokenProfile| profile.with_issuer_pattern(REALMS, |_| false);
    let new = TokenProfile::new;
    for profile in [pattern(named(new())), named(pattern(new()))] {
        let (store, verifier) = (MemoryStore::new(), verifier("all", profile.clone()));
        let revoker = Revoker::new(store.clone(), profile).unwrap();
        let is_live = |issuer: &str| {
            let token = verifier.verify(&mint("all", &claims(issuer, "any"))).unwrap();
            store.check(&token).answer().now_or_never().unwrap().unwrap() == Standing::Live
        };
        let revoke = |target| {
            revoker.revoke(target).extent(Extent::All).into_future().now_or_never().unwrap()
        };
        assert!(is_live(&realm("own")) && is_live(STAFF));
        revoke(Target::key("k").issued_by(REALMS)).unwrap();
        assert!(!is_live(&realm("own")) && is_live(STAFF));
        revoke(Target::key("k").issued_by(STAFF)).unwrap();
        assert!(!is_live(STAFF));
    }
}

#[test]
fn tenants_with_keys_of_their_own_are_checked_by_them() {
    let verifiers: HashMap<String, Arc<dyn TokenVerifier>> = ["one", "other"]
        .map(|name| {
            let issuer = realm(name);
            let profile = TokenProfile::new().with_issuer(&issuer);
            (issuer.clone(), Arc::new(verifier(&issuer, profile)) as _)
        })
        .into();
    let set = staff_and_shop()
        .with_tenants(realms(), move |issuer| verifiers.get(issuer).cloned())
        .unwrap();
    set.verify(&mint(&realm("one"), &claims(&realm("one"), "any"))).unwrap();
    set.verify(&mint(STAFF, &claims(STAFF, "orders"))).unwrap();
    assert_refused(
        &set,
        &mint(&realm("one"), &claims(&realm("other"), "any")),
        TokenErrorKind::BadSignature,
    );
    assert_refused(
        &set,
        &mint(&realm("third"), &claims(&realm("third"), "any")),
        TokenErrorKind::WrongIssuer,
    );
}

#[test]
fn a_tenant_may_not_widen_the_rules_of_all() {
    let issuer = realm("one");
    let nameless: Arc<dyn TokenVerifier> = Arc::new(verifier(&issuer, TokenProfile::new()));
    let set = IssuerSet::of_tenants(realms(), move |_| Some(Arc::clone(&nameless))).unwrap();
    assert_refused(&set, &mint(&issuer, &claims(&issuer, "any")), TokenErrorKind::WrongIssuer);

    let ten_days = Duration::from_secs(10 * 24 * 60 * 60);
    let long = TokenProfile::new().with_issuer(&issuer).with_max_lifetime(ten_days);
    let long: Arc<dyn TokenVerifier> = Arc::new(verifier(&issuer, long));
    let set = IssuerSet::of_tenants(realms(), move |_| Some(Arc::clone(&long))).unwrap();
    let mut claims = claims(&issuer, "any");
    set.verify(&mint(&issuer, &claims)).unwrap();
    claims["exp"] = json!(NOW + 2 * 24 * 60 * 60);
    assert_refused(&set, &mint(&issuer, &claims), TokenErrorKind::LifetimeTooLong);
}

#[test]
fn patterns_that_would_fit_strangers_are_refused() {
    let validate =
        |pattern: &str| TokenProfile::new().with_issuer_pattern(pattern, |_| true).validate();
    for good in [
        "https://login.example/{tenant}/v2.0",
        "https://{tenant}.id.example/",
        "https://login-{tenant}.example",
        "https://login.example/{tenant}",
    ] {
        validate(good).unwrap();
    }
    for bad in [
        "",
        "https://login.example/",
        "{tenant}",
        "https://{tenant}",
        "https://{tenant}/",
        "https://{tenant}.",
        "https://login.example{tenant}",
        "https://login.example{tenant}/x",
        "https://login.example/{tenant}/{tenant}",
        "https://login.example/{tenant}/{realm}",
        "{tenant}.example/",
    ] {
        assert_eq!(validate(bad).unwrap_err().setting(), "issuer_pattern", "{bad}");
    }
}

// === Caches around sets ===

/// Counts what it verifies, and changes when it is told to.
struct Counted(JwtVerifier, Arc<AtomicU64>, Arc<AtomicU64>);

impl TokenVerifier for Counted {
    fn verify(&self, token: &str) -> Result<Arc<VerifiedToken>, TokenError> {
        self.1.fetch_add(1, Ordering::Relaxed);
        self.0.verify(token)
    }

    fn verify_for_revocation(&self, token: &str) -> Result<Arc<VerifiedToken>, TokenError> {
        self.0.verify_for_revocation(token)
    }

    fn profile(&self) -> &TokenProfile {
        self.0.profile()
    }

    fn generation(&self) -> u64 {
        self.2.load(Ordering::Relaxed)
    }
}

#[test]
fn a_cache_around_a_set_notices_when_the_keys_of_one_change() {
    let (count, generation) = <(Arc<AtomicU64>, Arc<AtomicU64>)>::default();
    let staff = verifier(STAFF, TokenProfile::new().with_issuer(STAFF));
    let shop = verifier(SHOP, TokenProfile::new().with_issuer(SHOP));
    let set = IssuerSet::new(shop)
        .unwrap()
        .with(Counted(staff, Arc::clone(&count), Arc::clone(&generation)))
        .unwrap();
    // Shared, as a layer and an endpoint might: what is shared must change with what it shares.
    let cached = CachedVerifier::new(Arc::new(set));
    let token = mint(STAFF, &claims(STAFF, "any"));
    for (of_keys, verified) in [(0, 1), (0, 1), (1, 2), (1, 2)] {
        generation.store(of_keys, Ordering::Relaxed);
        cached.verify(&token).unwrap();
        assert_eq!(count.load(Ordering::Relaxed), verified);
    }
}

#[test]
fn a_cache_forgets_a_tenant_that_is_no_longer_accepted() {
    let is_open = Arc::new(AtomicBool::new(true));
    let asked = Arc::clone(&is_open);
    let profile = TokenProfile::new()
        .with_issuer_pattern("https://id.example/realms/{tenant}", move |_| {
            asked.load(Ordering::Relaxed)
        });
    let cached = CachedVerifier::new(verifier("all", profile));
    let token = mint("all", &claims(&realm("one"), "any"));
    cached.verify(&token).unwrap();
    is_open.store(false, Ordering::Relaxed);
    assert_eq!(cached.verify(&token).unwrap_err().kind(), TokenErrorKind::WrongIssuer);
}

/// Accepts the tenants of a pattern while the flag says so.
fn realms_while(is_open: &Arc<AtomicBool>) -> TokenProfile {
    let asked = Arc::clone(is_open);
    TokenProfile::new().with_issuer_pattern(REALMS, move |_| asked.load(Ordering::Relaxed))
}

#[test]
fn a_tenant_that_is_shut_out_does_not_fall_to_another_verifier_of_the_set() {
    let is_open = Arc::new(AtomicBool::new(true));
    let first = || IssuerSet::new(verifier("all", realms_while(&is_open))).unwrap();
    let wider =
        TokenProfile::new().with_issuer_pattern("https://id.example/realms/o{tenant}", |_| true);
    let token = mint("all", &claims(&realm("one"), "any"));
    for set in [
        first().with_unnamed(verifier("own", TokenProfile::new())).unwrap(),
        first().with(verifier("own", wider.clone())).unwrap(),
        first().with_tenants(wider, |_| Some(Arc::new(verifier("own", realms())))).unwrap(),
    ] {
        is_open.store(true, Ordering::Relaxed);
        let cached = CachedVerifier::new(set);
        let verified = cached.verify(&token).unwrap();
        cached.verify(&token).unwrap();
        cached.profile().check_times(&verified).unwrap();
        is_open.store(false, Ordering::Relaxed);
        // What is asked while a response goes on.
        let refused = cached.profile().check_times(&verified).unwrap_err();
        assert_eq!(refused.kind(), TokenErrorKind::WrongIssuer);
        // The other one has another key.
        let refused = cached.verify(&token).unwrap_err();
        assert_eq!(refused.kind(), TokenErrorKind::BadSignature);
        let cached = cached.cached(token.as_bytes(), crate::token::CrateOnly);
        assert!(cached.is_none(), "{cached:?}");
    }
}

/// Its ids are then those of its issuer, by which it is revoked.
#[test]
fn a_token_whose_tenant_gets_a_verifier_of_its_own_is_verified_anew_by_it() {
    let is_open = Arc::new(AtomicBool::new(false));
    let set = IssuerSet::new(verifier("all", realms_while(&is_open))).unwrap();
    let cached =
        CachedVerifier::new(set.with_unnamed(verifier("all", TokenProfile::new())).unwrap());
    let token = mint("all", &claims(&realm("one"), "any"));
    let user = || cached.verify(&token).unwrap().target(TargetKind::User);
    assert_eq!((user(), user()), (Some(Target::user("alice")), Some(Target::user("alice"))));
    is_open.store(true, Ordering::Relaxed);
    assert_eq!(user(), Some(Target::user("alice").issued_by(realm("one"))));
}

#[test]
fn a_cache_around_tenants_remembers_nothing() {
    let issuer = realm("one");
    let (count, generation) = <(Arc<AtomicU64>, Arc<AtomicU64>)>::default();
    let tenant = verifier(&issuer, TokenProfile::new().with_issuer(&issuer));
    let tenant: Arc<dyn TokenVerifier> = Arc::new(Counted(tenant, Arc::clone(&count), generation));
    let cached = CachedVerifier::new(
        IssuerSet::of_tenants(realms(), move |_| Some(Arc::clone(&tenant))).unwrap(),
    );
    let token = mint(&issuer, &claims(&issuer, "any"));
    for verified in 1..4 {
        cached.verify(&token).unwrap();
        assert_eq!(count.load(Ordering::Relaxed), verified);
    }
}

#[test]
fn the_unnamed_verifier_takes_the_tokens_of_nobody_and_of_strangers_and_no_others() {
    let own = || verifier("own", TokenProfile::new());
    let set = staff_and_shop().with_unnamed(own()).unwrap();
    let nameless = json!({"sub": "alice", "jti": "1", "iat": NOW, "exp": NOW + 600});
    let token = set.verify(&mint("own", &nameless)).unwrap();
    assert_eq!((token.issuer(), token.subject()), (None, Some("alice")));
    let stranger = set.verify(&mint("own", &claims("https://else.example", "x"))).unwrap();
    let user = |token: &VerifiedToken| token.target(TargetKind::User).unwrap().fingerprint();
    assert_eq!(user(&token), user(&stranger), "both are of the nameless issuer");
    assert_eq!(user(&token), Target::user("alice").fingerprint());
    let staff = set.verify(&mint(STAFF, &claims(STAFF, "orders"))).unwrap();
    assert_ne!(user(&staff), user(&token));
    // Whoever names an issuer is checked by its keys, and by no others.
    assert_refused(&set, &mint("own", &claims(STAFF, "orders")), TokenErrorKind::BadSignature);
    assert_refused(&set, &mint(STAFF, &nameless), TokenErrorKind::BadSignature);

    let named = verifier("own", TokenProfile::new().with_issuer("https://own.example"));
    assert_eq!(staff_and_shop().with_unnamed(named.clone()).unwrap_err().setting(), "issuer");
    assert_eq!(set.clone().with_unnamed(own()).unwrap_err().setting(), "issuer");
    assert_eq!(set.with(named).unwrap_err().setting(), "issuer", "it is the last one");
}

#[tokio::test]
async fn an_id_without_an_issuer_is_that_of_the_unnamed_or_the_default_issuer() {
    let own = verifier("own", TokenProfile::new());
    let set = staff_and_shop().with_unnamed(own).unwrap();
    let (revoker, store) = (
        |profile: &TokenProfile, store: &MemoryStore| {
            Revoker::new(store.clone(), profile.clone()).unwrap()
        },
        MemoryStore::new(),
    );
    let nameless = json!({"sub": "alice", "jti": "1", "iat": NOW, "exp": NOW + 600});
    let nameless = set.verify(&mint("own", &nameless)).unwrap();
    let staff = set.verify(&mint(STAFF, &claims(STAFF, "orders"))).unwrap();
    let is_live = async |store: &MemoryStore, token: &Arc<VerifiedToken>| {
        store.check(token).answer().await.unwrap() == Standing::Live
    };
    let unnamed = revoker(set.profile(), &store);
    unnamed.revoke(Target::user("alice")).await.unwrap();
    assert!(!is_live(&store, &nameless).await && is_live(&store, &staff).await);
    unnamed.revoke(Target::user("alice").issued_by(STAFF)).await.unwrap();
    assert!(!is_live(&store, &staff).await);
    assert!(unnamed.find(Target::issuer("")).await.unwrap().is_none());

    let store = MemoryStore::new();
    let named = revoker(staff_and_shop().profile(), &store);
    named.revoke(Target::user("alice")).await.unwrap_err();
    let defaulted = named.clone().with_default_issuer(STAFF).unwrap();
    defaulted.revoke(Target::user("alice")).await.unwrap();
    assert!(!is_live(&store, &staff).await);
    for unknown in ["", "https://else.example"] {
        let error = named.clone().with_default_issuer(unknown).unwrap_err();
        assert_eq!(error.setting(), "default_issuer");
    }
}
