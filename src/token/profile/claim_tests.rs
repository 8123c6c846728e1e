//! What claims say of the kind of a token, rules over claims, and claims inside of others.

use serde_json::{Value, json};

use super::*;
use crate::clock::ManualClock;
use crate::token::TokenErrorKind::{
    self, ForbiddenClaim, Malformed, MissingClaim, MissingId, OddClaim, WrongType,
};
use crate::verified::VerifiedToken;

const NOW: u64 = 1_700_000_000;

fn at_now(profile: &TokenProfile) -> TokenProfile {
    profile.clone().with_clock(ManualClock::new(Timestamp::from_secs(NOW)))
}

fn payload(more: Value) -> Vec<u8> {
    let mut claims = json!({ "jti": "t", "iat": NOW, "exp": NOW + 600 });
    let Value::Object(more) = more else { panic!("an object") };
    claims.as_object_mut().unwrap().extend(more);
    claims.to_string().into_bytes()
}

fn check_bytes(profile: &TokenProfile, payload: &[u8]) -> Result<VerifiedToken, TokenErrorKind> {
    at_now(profile).assert_verified(SignedClaims::new(payload)).map_err(|error| error.kind())
}

fn check(profile: &TokenProfile, more: Value) -> Result<(), TokenErrorKind> {
    check_bytes(profile, &payload(more)).map(|_| ())
}

fn targets(profile: &TokenProfile, more: Value) -> Vec<String> {
    let token = check_bytes(profile, &payload(more)).unwrap();
    token.targets().iter().map(|target| token.describe(target).to_string()).collect()
}

#[test]
fn a_token_that_says_in_its_claims_that_it_is_no_access_token_is_refused() {
    let logout = "http://schemas.openid.net/event/backchannel-logout";
    for (claim, more) in [
        ("typ", json!({"typ": "ID"})),
        ("typ", json!({"typ": "Refresh"})),
        ("typ", json!({"typ": "Offline"})),
        ("typ", json!({"typ": "Logout"})),
        ("typ", json!({"typ": "Serialized-ID"})),
        ("typ", json!({"typ": "logout+jwt"})),
        ("token_use", json!({"token_use": "id"})),
        ("token_type", json!({"token_type": "refresh"})),
        ("token_type", json!({"token_type": ["refresh_token"]})),
        ("token_type", json!({"token_type": "id_token"})),
        ("type", json!({"type": "refresh"})),
        ("type", json!({"type": "Refresh-Token"})),
        ("refresh", json!({"refresh": true})),
        ("events", json!({"events": {logout: {}}})),
        ("events", json!({"events": {"urn:example:event": {}, "other": 1}})),
        ("at_hash", json!({"nonce": "n", "at_hash": "h"})),
        ("at_hash", json!({"at_hash": "h"})),
        ("c_hash", json!({"c_hash": "h"})),
    ] {
        assert_eq!(check(&TokenProfile::new(), more.clone()), Err(WrongType), "{more}");
        let text = at_now(&TokenProfile::new())
            .assert_verified(SignedClaims::new(&payload(more.clone())))
            .unwrap_err()
            .to_string();
        assert!(text.contains(&format!("`{claim}`")) && text.contains("allow_other_kinds_by"));
        // The way out that the error names.
        let lax = TokenProfile::new().allow_other_kinds_by(claim);
        lax.validate().unwrap();
        assert_eq!(check(&lax, more.clone()), Ok(()), "{more}");
    }
}

#[test]
fn claims_of_the_same_names_with_other_meanings_are_accepted() {
    for more in [
        json!({"typ": "Bearer"}),
        json!({"typ": "JWT"}),
        json!({"type": "customer"}),
        json!({"type": 5}),
        json!({"type": {"id": "refresh"}}),
        json!({"token_use": "access"}),
        json!({"token_type": "access"}),
        json!({"token_type": "Bearer"}),
        json!({"token_type": "sliding"}),
        json!({"nonce": "n"}),
        json!({"refresh": false}),
        json!({"refresh": "true"}),
        json!({"at_hash": null}),
        json!({"events": ["http://x.example/y"]}),
        json!({"events": "http://x.example/y"}),
        json!({"events": {"login": 1, "logout": 2}}),
        json!({"events": {}}),
    ] {
        assert_eq!(check(&TokenProfile::new(), more.clone()), Ok(()), "{more}");
    }
}

#[test]
fn a_rule_holds_or_the_token_is_refused() {
    let require = TokenProfile::new().require_claim("token_use", ["access", "machine"]);
    let nested = TokenProfile::new().require_claim("realm.name", ["shop"]);
    let flag = TokenProfile::new().require_claim("email_verified", ["true"]);
    let level = TokenProfile::new().require_claim("acr", ["2"]);
    let present = TokenProfile::new().require_claim_presence("/user/uid");
    let absent = TokenProfile::new().forbid_claim("act");
    let none_of = TokenProfile::new().forbid_claim_values("scope", ["device"]);
    for (profile, more, expected) in [
        (&require, json!({"token_use": "access"}), Ok(())),
        (&require, json!({"token_use": ["x", "machine"]}), Ok(())),
        (&require, json!({"token_use": "Access"}), Err(ForbiddenClaim)),
        (&require, json!({"token_use": 1}), Err(ForbiddenClaim)),
        (&require, json!({}), Err(MissingClaim)),
        (&require, json!({"token_use": null}), Err(MissingClaim)),
        (&nested, json!({"realm": {"name": "shop", "x": 1}}), Ok(())),
        (&nested, json!({"realm": {"name": "other"}}), Err(ForbiddenClaim)),
        (&nested, json!({"realm": "shop"}), Err(MissingClaim)),
        (&nested, json!({"realm.name": "shop"}), Err(MissingClaim)),
        (&flag, json!({"email_verified": true}), Ok(())),
        (&flag, json!({"email_verified": false}), Err(ForbiddenClaim)),
        (&level, json!({"acr": 2}), Ok(())),
        (&level, json!({"acr": 2.5}), Err(ForbiddenClaim)),
        (&present, json!({"user": {"uid": 0}}), Ok(())),
        (&present, json!({"user": {"uid": null}}), Err(MissingClaim)),
        (&present, json!({"user": {}}), Err(MissingClaim)),
        (&absent, json!({}), Ok(())),
        (&absent, json!({"act": null}), Ok(())),
        (&absent, json!({"act": {"sub": "admin"}}), Err(ForbiddenClaim)),
        (&none_of, json!({"scope": ["read", "write"]}), Ok(())),
        (&none_of, json!({"scope": ["read", "device"]}), Err(ForbiddenClaim)),
    ] {
        profile.validate().unwrap();
        assert_eq!(check(profile, more.clone()), expected, "{more}");
    }
    let both = TokenProfile::new().require_claim_presence("a").forbid_claim("b");
    assert_eq!(check(&both, json!({"a": 1})), Ok(()));
    assert_eq!(check(&both, json!({"a": 1, "b": 1})), Err(ForbiddenClaim), "all rules must hold");
    // A rule over a claim that the crate reads itself.
    let times = TokenProfile::new().require_claim_presence("nbf");
    assert_eq!(check(&times, json!({})), Err(MissingClaim));
    assert_eq!(check(&times, json!({"nbf": NOW})), Ok(()));
    let deepest = TokenProfile::new().require_claim("a.b.c.d.e.f.g.h", ["x", "y"]);
    let leaf = json!({"b": {"c": {"d": {"e": {"f": {"g": {"h": ["x"]}}}}}}});
    assert_eq!(check(&deepest, json!({"a": leaf})), Ok(()));
}

#[test]
fn a_rule_that_cannot_work_is_an_error_that_names_it() {
    let none: [&str; 0] = [];
    for (profile, setting) in [
        (TokenProfile::new().require_claim("", ["x"]), "claim"),
        (TokenProfile::new().forbid_claim("a..b"), "claim"),
        (TokenProfile::new().with_claim_target("/", TargetKind::User), "claim"),
        (TokenProfile::new().with_id_claim("a."), "claim"),
        (TokenProfile::new().forbid_claim("a.b.c.d.e.f.g.h.i"), "claim"),
        (TokenProfile::new().require_claim("a", none), "claim_rule"),
        (TokenProfile::new().forbid_claim_values("a", none), "claim_rule"),
        (TokenProfile::new().allow_other_kinds_by("scope"), "allow_other_kinds_by"),
        (TokenProfile::new().with_claim_target("exp.x", TargetKind::User), "claim"),
    ] {
        assert_eq!(profile.validate().unwrap_err().setting(), setting);
    }
}

#[test]
fn ids_inside_of_claims_are_targets() {
    let profile = TokenProfile::new()
        .with_claim_target("user.user_uid", TargetKind::User)
        .with_claim_target("/user/device", TargetKind::Device)
        .with_claim_target("/kubernetes.io/pod/uid", TargetKind::Claim);
    profile.validate().unwrap();
    let found = targets(
        &profile,
        json!({
            "user": {"user_uid": 7, "device": "d", "name": "x"},
            "kubernetes.io": {"pod": {"uid": "p"}},
        }),
    );
    assert_eq!(
        found,
        ["token t", "claim /kubernetes.io/pod/uid=p", "user 7", "device d", "issuer "]
    );
    assert_eq!(targets(&profile, json!({"user": "flat"})), ["token t", "issuer "]);
    assert_eq!(check(&profile, json!({"user": {"user_uid": [1]}})), Err(OddClaim));

    let by_id = TokenProfile::new().with_id_claim("meta.id");
    assert_eq!(targets(&by_id, json!({"meta": {"id": "m"}})), ["token m", "issuer "]);
    assert_eq!(check(&by_id, json!({"meta": {}})), Err(MissingId));
    assert_eq!(check(&by_id, json!({"meta": {"id": 5}})), Err(OddClaim));
}

#[test]
fn a_member_that_stands_twice_in_a_claim_that_is_read_is_refused() {
    let profile = TokenProfile::new().with_claim_target("user.id", TargetKind::User);
    let twice =
        format!(r#"{{"jti":"t","iat":{NOW},"exp":{},"user":{{"id":"a","id":"b"}}}}"#, NOW + 1);
    assert_eq!(check_bytes(&profile, twice.as_bytes()).unwrap_err(), Malformed);
}

#[test]
fn the_names_that_okta_uaa_and_entra_give_the_client_are_targets() {
    for claim in ["client_id", "azp", "cid", "appid"] {
        assert_eq!(
            targets(&TokenProfile::new(), json!({claim: "c"})),
            ["token t", "client c", "issuer "]
        );
    }
}

#[test]
fn a_time_is_cut_to_the_millisecond_and_never_rounded_up() {
    for (iat, millis) in [
        ("1700000000", 0),
        ("1700000000.0", 0),
        ("1700000000.123", 123),
        ("1700000000.1239", 123),
        ("1700000000.1229999", 122),
        ("1700000000.122999999999999", 122),
        ("1700000000.999999999999999999999", 999),
        ("1700000000.5", 500),
        ("1700000000.05", 50),
        ("1.7000000005e9", 500),
        ("17e8", 0),
    ] {
        let claims = format!(r#"{{"jti":"t","iat":{iat},"exp":{}}}"#, NOW + 600);
        let token = check_bytes(&TokenProfile::new(), claims.as_bytes()).unwrap();
        assert_eq!(token.issued_at().unwrap().as_millis(), NOW * 1000 + millis, "{iat}");
    }
    for odd in ["\"1700000000\"", "-1", "-0.5", "true", "[1]", "{}", "1e999"] {
        let claims = format!(r#"{{"jti":"t","iat":{odd},"exp":{}}}"#, NOW + 600);
        assert_eq!(
            check_bytes(&TokenProfile::new(), claims.as_bytes()).unwrap_err(),
            OddClaim,
            "{odd}"
        );
    }
}

/// With its feature `arbitrary_precision`, `serde_json` hands over numbers as objects with this
/// member.
#[test]
fn an_object_that_looks_like_a_number_of_serde_json_is_an_object() {
    let profile = TokenProfile::new().with_claim_target("tenant", TargetKind::Claim);
    let fake = json!({"$serde_json::private::Number": "5"});
    assert_eq!(check(&profile, json!({"tenant": fake})), Err(OddClaim));
    assert_eq!(check(&profile, json!({"iat": fake})), Err(OddClaim));
    assert_eq!(check(&profile, json!({"tenant": 5})), Ok(()));
}

#[test]
fn a_target_that_no_accepted_token_can_have_is_refused_at_construction() {
    let claim =
        |claim: &'static str| TokenProfile::new().with_claim_target(claim, TargetKind::Claim);
    for (profile, why) in [
        (claim("sub.id"), "inside of `sub`"),
        (claim("sub.id").without_claim_target("sub"), "inside of `sub`"),
        (claim("/sid/id"), "inside of `sid`"),
        (claim("jti.id"), "inside of `jti`"),
        (
            claim("user.uid").with_claim_target("/user/uid/x", TargetKind::User),
            "inside of `user.uid`",
        ),
        (claim("uti.x").with_id_claim("uti"), "inside of `uti`"),
        (claim("tenant").forbid_claim("tenant"), "`tenant` is forbidden"),
        (claim("/user/uid").forbid_claim("user.uid"), "`user.uid` is forbidden"),
        (claim("user.uid").forbid_claim("user"), "`user` is forbidden"),
        (claim("at_hash"), "ID token"),
        (claim("cnf"), "cnf.jkt"),
    ] {
        let error = profile.validate().unwrap_err();
        assert_eq!(error.setting(), "claim_target", "{error}");
        assert!(error.to_string().contains(why), "{error}");
    }
    for profile in [
        claim("user.uid"),
        claim("/sid/id").without_claim_target("sid"),
        claim("tenant").forbid_claim("tenants"),
        claim("user").forbid_claim("user.uid"),
        claim("tenant").forbid_claim_values("tenant", ["evil"]),
        claim("at_hash").allow_other_kinds_by("at_hash"),
        claim("cnf.jkt"),
        claim("events"),
    ] {
        profile.validate().unwrap();
    }
}

#[test]
fn a_target_by_a_claim_that_no_token_has_had_is_told() {
    let profile = TokenProfile::new()
        .with_claim_target("tenat", TargetKind::Claim)
        .with_claim_target("user.uid", TargetKind::User)
        .with_claim_target("org", TargetKind::Client);
    assert_eq!(profile.unseen_claim_targets(), [("tenat", 0), ("user.uid", 0), ("org", 0)]);
    let clone = profile.clone();
    check(&clone, json!({"tenant": "acme", "user": {"id": 1}, "org": "acme"})).unwrap();
    // Refused, so of no account.
    check(&clone, json!({"tenat": ["a"]})).unwrap_err();
    assert_eq!(profile.unseen_claim_targets(), [("tenat", 1), ("user.uid", 1)]);
    // The same value under another claim is one target, and yet the claim was seen.
    check(&clone, json!({"sub": "u", "user": {"uid": "u"}, "tenat": ""})).unwrap();
    assert_eq!(profile.unseen_claim_targets(), [("tenat", 2)]);
    // Set anew, it is looked for anew.
    let anew = profile.clone().with_claim_target("org", TargetKind::Claim);
    assert_eq!(anew.unseen_claim_targets(), [("tenat", 2), ("org", 0)]);
    assert!(TokenProfile::new().unseen_claim_targets().is_empty());
    let both = TokenProfile::combined([
        profile.with_issuer("https://a.example"),
        TokenProfile::new().with_issuer("https://b.example"),
    ]);
    assert_eq!(both.unwrap().unseen_claim_targets(), [("tenat", 2)]);
}
