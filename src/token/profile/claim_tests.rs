//! What claims say of the kind of a token, rules over claims, and claims inside of others.

use serde_json::{Value, json};

use super::value::date;
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
        // As media types and as URIs of kinds.
        ("typ", json!({"typ": "application/logout+jwt"})),
        ("typ", json!({"typ": "ID+JWT"})),
        ("typ", json!({"typ": "Application/Refresh+jwt"})),
        ("token_type", json!({"token_type": "urn:ietf:params:oauth:token-type:refresh_token"})),
        ("token_type", json!({"token_type": "URN:IETF:params:oauth:token-type:ID_token"})),
        // Among values of other types.
        ("token_type", json!({"token_type": [1, "refresh"]})),
        ("type", json!({"type": ["x", null, "refresh"]})),
        ("events", json!({"events": {"a": {"a": [[]]}, "https://a.example/b": null}})),
        ("at_hash", json!({"nonce": "n", "at_hash": "h"})),
        ("at_hash", json!({"at_hash": "h"})),
        ("at_hash", json!({"at_hash": 0})),
        ("s_hash", json!({"s_hash": ["h"]})),
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
        json!({"type": [["refresh"]]}),
        json!({"type": "urn:acme:id"}),
        json!({"typ": "+jwt"}),
        json!({"typ": "é+jwt"}),
        json!({"token_type": "urn:ietf:params:oauth:token-type:access_token"}),
        json!({"token_type": "urn:ietf:params:oauth:token-type:"}),
        json!({"details": {"typ": "ID", "events": {"https://a.example/b": {}}}}),
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
    let zero = TokenProfile::new().forbid_claim_values("level", ["0"]);
    let levels = TokenProfile::new()
        .forbid_claim_values("level", ["7", "-1", "5e-1", "9007199254740993", "false"]);
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
        (&none_of, json!({"scope": ["read", 1, "device"]}), Err(ForbiddenClaim)),
        (&none_of, json!({"scope": [{"x": 1}, "device"]}), Err(ForbiddenClaim)),
        (&none_of, json!({"scope": [["device"]]}), Ok(())),
        (&none_of, json!({"scope": "read device"}), Ok(())),
        (&levels, json!({"level": 7}), Err(ForbiddenClaim)),
        (&levels, json!({"level": 7.0}), Err(ForbiddenClaim)),
        (&levels, json!({"level": [1, 7]}), Err(ForbiddenClaim)),
        (&levels, json!({"level": -1}), Err(ForbiddenClaim)),
        (&levels, json!({"level": [null, -1]}), Err(ForbiddenClaim)),
        (&levels, json!({"level": 0.5}), Err(ForbiddenClaim)),
        (&levels, json!({"level": 9_007_199_254_740_993_u64}), Err(ForbiddenClaim)),
        (&levels, json!({"level": 9_007_199_254_740_992_u64}), Ok(())),
        (&levels, json!({"level": false}), Err(ForbiddenClaim)),
        (&zero, json!({"level": -0.0}), Err(ForbiddenClaim)),
        (&levels, json!({"level": [true, 1, -2, 70, "0.50"]}), Ok(())),
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
        // Where the nearest binary number is greater: past a cutoff, if it were taken.
        ("1.700000000122999999999999e9", 122),
        ("170000000012299999999999e-14", 122),
        ("1700000000.999999999999999999999E0", 999),
        ("0.0000000017000000001239999999999999e+18", 123),
        ("1700000000.0000000000000000", 0),
        ("1700000000e0", 0),
    ] {
        let claims = format!(r#"{{"jti":"t","iat":{iat},"exp":{}}}"#, NOW + 600);
        let token = check_bytes(&TokenProfile::new(), claims.as_bytes()).unwrap();
        assert_eq!(token.issued_at().unwrap().as_millis(), NOW * 1000 + millis, "{iat}");
    }
    // However long they are.
    for (zero, millis) in [("0", 0), ("-0", 0), ("0e9", 0), ("1e-400", 0), ("0.0019", 1)] {
        assert_eq!(date("iat", zero).unwrap().unwrap().as_millis(), millis, "{zero}");
    }
    for far in ["18446744073709551616", "99999999999999999", "1e300", "0.1e309"] {
        assert!(date("iat", far).unwrap().unwrap().as_secs() > NOW * 1000, "{far}");
    }
    let long = format!("0.{}17e{}", "0".repeat(5000), 5010);
    assert_eq!(date("iat", &long).unwrap().unwrap().as_secs(), 1_700_000_000);
    assert_eq!(date("iat", "0e99999999999999999999").unwrap(), Some(Timestamp::ZERO));
    for odd in ["\"1700000000\"", "-1", "-0.5", "true", "[1]", "{}", "1e999", "-1e3", "[]"] {
        let claims = format!(r#"{{"jti":"t","iat":{odd},"exp":{}}}"#, NOW + 600);
        assert_eq!(
            check_bytes(&TokenProfile::new(), claims.as_bytes()).unwrap_err(),
            OddClaim,
            "{odd}"
        );
    }
}

/// With its feature `arbitrary_precision`, `serde_json` hands over numbers as objects with this
/// member, and with `raw_value` texts.
#[test]
fn an_object_that_looks_like_a_number_of_serde_json_is_an_object() {
    let profile = TokenProfile::new()
        .with_claim_target("tenant", TargetKind::Claim)
        .with_claim_target("user.uid", TargetKind::User);
    for name in [
        "$serde_json::private::Number",
        "$serde_json::private::RawValue",
        "\\u0024serde_json::private::Number",
    ] {
        let fake = format!(r#"{{"{name}":"5"}}"#);
        let refused = |claim: &str, value: &str| {
            let claims =
                format!(r#"{{"jti":"t","iat":{NOW},"exp":{},"{claim}":{value}}}"#, NOW + 600)
                    .replace(
                        &format!(r#""iat":{NOW},"exp":{},"iat""#, NOW + 600),
                        &format!(r#""exp":{},"iat""#, NOW + 600),
                    );
            check_bytes(&profile, claims.as_bytes()).map(|_| ()).unwrap_err()
        };
        for claim in ["tenant", "iat", "nbf", "sub", "sid", "aud"] {
            assert_eq!(refused(claim, &fake), OddClaim, "{claim}: {name}");
        }
        assert_eq!(refused("user", &format!(r#"{{"uid":{fake}}}"#)), OddClaim, "{name}");
        // It says what any object says with such a member: its name is a URI.
        assert_eq!(refused("events", &fake), WrongType, "{name}");
    }
    let number = TokenProfile::new().require_claim("level", ["5"]);
    let fake = json!({"$serde_json::private::Number": "5"});
    assert_eq!(check(&number, json!({"level": fake})), Err(ForbiddenClaim));
    assert_eq!(check(&number, json!({"level": [fake]})), Err(ForbiddenClaim));
    assert_eq!(check(&profile, json!({"tenant": 5, "user": {"uid": 5}})), Ok(()));
}

/// However the claim is written, a token that is bound to a key does not pass for one that is not.
#[test]
fn a_binding_is_seen_in_any_spelling() {
    let token = |more: &str| {
        let claims = format!(r#"{{"jti":"t","iat":{NOW},"exp":{},{more}}}"#, NOW + 600);
        check_bytes(&TokenProfile::new(), claims.as_bytes())
    };
    for (more, jkt) in [
        (r#""cnf":{"jkt":"k"}"#, Some("k")),
        (r#""c\u006ef":{"j\u006bt":"k"}"#, Some("k")),
        (r#""cnf":{}"#, None),
        (r#""cnf":{"jkt":5}"#, None),
        (r#""cnf":{"jkt":null,"kid":"x"}"#, None),
        (r#""cnf":{"jkt":["k"],"jwk":{"a":{"b":{"c":{"d":{"e":{"f":{"g":{"h":1}}}}}}}}}"#, None),
    ] {
        let token = token(more).unwrap();
        assert!(token.is_bound(), "{more}");
        assert_eq!(token.confirmation("jkt"), jkt, "{more}");
    }
    for (more, kind) in [
        (r#""cnf":{"jkt":"k"},"cnf":null"#, OddClaim),
        (r#""cnf":null,"c\u006ef":{"jkt":"k"}"#, OddClaim),
        (r#""cnf":{"jkt":"k","j\u006bt":"other"}"#, Malformed),
        (r#""cnf":[{"jkt":"k"}]"#, OddClaim),
        (r#""cnf":0"#, OddClaim),
    ] {
        assert_eq!(token(more).unwrap_err(), kind, "{more}");
    }
    assert!(!token(r#""act":{"cnf":{"jkt":"k"}}"#).unwrap().is_bound(), "that of somebody else");
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
        // Whatever the rule accepts, it has nothing inside of it, or only something inside of it.
        (claim("tenant.id").require_claim("tenant", ["acme"]), "`tenant` must be one of"),
        (claim("tenant").require_claim("/tenant/id", ["acme"]), "`/tenant/id` must be there"),
        (claim("tenant").require_claim_presence("tenant.id"), "`tenant.id` must be there"),
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
        claim("tenant").require_claim("tenant", ["acme"]),
        claim("tenant.id").require_claim_presence("tenant"),
        // What is there by default was not asked for.
        TokenProfile::new().forbid_claim("sid").forbid_claim("device_id"),
    ] {
        profile.validate().unwrap();
    }
    let ids = |id: &'static str| TokenProfile::new().with_id_claim(id);
    for (profile, setting) in [
        (ids("sub.id"), "id_claim"),
        (ids("meta.id").forbid_claim("meta"), "id_claim"),
        (ids("meta.id").require_claim("meta", ["x"]), "id_claim"),
        (ids("s_hash"), "id_claim"),
        // Another spelling of a target that stands there by default.
        (ids("/sub"), "claim_target"),
        (ids("/user/uid").with_claim_target("user.uid", TargetKind::User), "claim_target"),
    ] {
        assert_eq!(profile.validate().unwrap_err().setting(), setting, "{profile:?}");
    }
    // A revocation by what is forbidden would match nothing.
    let without = TokenProfile::new().forbid_claim("device_id").with_issuer("i");
    assert!(!without.feeds(TargetKind::Device, None) && without.feeds(TargetKind::Session, None));
    let all = TokenProfile::combined([without, TokenProfile::new().with_issuer("j")]).unwrap();
    assert!(all.feeds(TargetKind::Device, Some("j")) && !all.feeds(TargetKind::Device, Some("i")));
}

/// Two spellings of one path are one claim: else a target would be set that no token ever feeds.
#[test]
fn a_claim_is_one_target_however_its_path_is_written() {
    let twice = TokenProfile::new()
        .with_claim_target("user.uid", TargetKind::User)
        .with_claim_target("/user/uid", TargetKind::Client);
    twice.validate().unwrap();
    assert_eq!(targets(&twice, json!({"user": {"uid": 7}})), ["token t", "client 7", "issuer "]);
    let renamed = TokenProfile::new().with_claim_target("/sub", TargetKind::Claim);
    renamed.validate().unwrap();
    assert_eq!(targets(&renamed, json!({"sub": "u"})), ["token t", "claim /sub=u", "issuer "]);
    assert_eq!(renamed.target_of_claim("/sub", None), Some(TargetKind::Claim));
    assert_eq!(renamed.target_of_claim("sub", None), None, "its revocations would not be found");
    let none = twice.without_claim_target("user.uid").without_claim_target("/sub");
    assert_eq!(targets(&none, json!({"sub": "u", "user": {"uid": 7}})), ["token t", "issuer "]);
    // A pointer leads through objects only, and so does a path with points.
    let index = TokenProfile::new().with_claim_target("/users/0", TargetKind::User);
    assert_eq!(targets(&index, json!({"users": ["u"]})), ["token t", "issuer "]);
    assert_eq!(index.unseen_claim_targets(), [("/users/0", 1)]);
    assert_eq!(targets(&index, json!({"users": {"0": "u"}})), ["token t", "user u", "issuer "]);
}

/// What only tokens have that are refused no token can be revoked by.
#[test]
fn a_claim_of_refused_tokens_has_not_been_seen() {
    let profile = TokenProfile::new()
        .with_issuer("i")
        .with_audience("api")
        .require_claim("kind", ["access"])
        .with_claim_target("tenant", TargetKind::Claim)
        .with_claim_target("user.uid", TargetKind::User);
    let good = json!({"iss": "i", "aud": "api", "kind": "access"});
    let with = |more: Value| {
        let mut claims = good.clone();
        claims
            .as_object_mut()
            .unwrap()
            .extend(json!({"tenant": "acme", "user": {"uid": 1}}).as_object().unwrap().clone());
        claims.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        claims
    };
    for (refused, kind) in [
        (json!({"iss": "j"}), TokenErrorKind::WrongIssuer),
        (json!({"aud": "client"}), TokenErrorKind::WrongAudience),
        (json!({"kind": "id"}), ForbiddenClaim),
        (json!({"at_hash": "h"}), WrongType),
        (json!({"typ": "ID"}), WrongType),
        (json!({"jti": ""}), MissingId),
        (json!({"iat": null}), MissingClaim),
        (json!({"exp": NOW + 90_000}), TokenErrorKind::LifetimeTooLong),
        (json!({"sid": [1]}), OddClaim),
    ] {
        assert_eq!(check(&profile, with(refused.clone())), Err(kind), "{refused}");
        assert_eq!(profile.unseen_claim_targets(), [("tenant", 0), ("user.uid", 0)], "{refused}");
    }
    check(&profile, good.clone()).unwrap();
    assert_eq!(profile.unseen_claim_targets(), [("tenant", 1), ("user.uid", 1)]);
    check(&profile, with(json!({"user": {}}))).unwrap();
    assert_eq!(profile.unseen_claim_targets(), [("user.uid", 2)]);
    check(&profile, with(json!({}))).unwrap();
    assert!(profile.unseen_claim_targets().is_empty());
}

/// Of few claims and of many, next to each other and far apart, in any spelling.
#[test]
fn a_claim_that_stands_twice_is_found_among_any_number() {
    let claims = |names: &[String]| {
        let members: Vec<_> = names.iter().map(|name| format!("\"{name}\":0")).collect();
        format!(r#"{{"jti":"t","iat":{NOW},"exp":{},{}}}"#, NOW + 1, members.join(",")).into_bytes()
    };
    let profile = TokenProfile::new().with_max_token_bytes(1 << 20);
    for count in [1, 2, 5, 10, 20, 21, 22, 23, 24, 40, 500] {
        let names: Vec<_> = (0..count).map(|at| format!("c{at}")).collect();
        check_bytes(&profile, &claims(&names)).unwrap();
        for (at, place) in [(0, count), (count - 1, 0), (count / 2, count / 2), (0, 1)] {
            let mut twice = names.clone();
            let again = names[at].replace('c', if at == 0 { "c" } else { "\\u0063" });
            twice.insert(place.min(twice.len()), again);
            assert_eq!(
                check_bytes(&profile, &claims(&twice)).unwrap_err(),
                OddClaim,
                "{count} {at}"
            );
        }
    }
    // What differs in nothing but its middle is not the same.
    let alike = ["aXb", "aYb", "aZb", "a\\u0058c"].map(String::from);
    check_bytes(&profile, &claims(&alike)).unwrap();
}

/// A member twice is found in a claim of any size, and the time for it grows hardly faster than
/// that.
#[test]
fn claims_of_many_members_are_read_in_no_time() {
    let profile = TokenProfile::new().with_max_token_bytes(1 << 22);
    let claims = |members: usize, last: &str| {
        let members: Vec<_> = (0..members).map(|at| format!("\"k{at}\":0")).collect();
        let members = members.join(",");
        format!(r#"{{"jti":"t","iat":{NOW},"exp":{},"events":{{{members},"{last}":0}}}}"#, NOW + 1)
    };
    check_bytes(&profile, claims(200_000, "last").as_bytes()).unwrap();
    assert_eq!(check_bytes(&profile, claims(200_000, "k7").as_bytes()).unwrap_err(), Malformed);
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
