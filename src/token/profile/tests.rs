use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::clock::ManualClock;
use crate::revocation::{MAX_ID_BYTES, Target};
use crate::token::TokenErrorKind;
use crate::verified::VerifiedToken;
use TokenErrorKind::{
    Expired, IssuedInFuture, LifetimeTooLong, MissingClaim, NotYetValid, OddClaim, WrongAudience,
    WrongIssuer,
};

const NOW: u64 = 1_700_000_000;

fn at(secs: u64) -> Timestamp {
    Timestamp::from_secs(secs)
}

/// The least that an unconfigured profile accepts, and more claims.
fn payload(more: serde_json::Value) -> Vec<u8> {
    let mut claims = json!({ "jti": "t", "iat": NOW, "exp": NOW + 600 });
    if let serde_json::Value::Object(more) = more {
        claims.as_object_mut().unwrap().extend(more);
    }
    claims.to_string().into_bytes()
}

fn check(
    profile: &TokenProfile,
    payload: &[u8],
    now: Timestamp,
) -> Result<VerifiedToken, TokenErrorKind> {
    let profile = profile.clone().with_clock(ManualClock::new(now));
    profile.assert_verified(SignedClaims::new(payload)).map_err(|error| error.kind())
}

fn accept(profile: &TokenProfile, more: serde_json::Value) -> VerifiedToken {
    check(profile, &payload(more), at(NOW)).unwrap()
}

fn targets(token: &VerifiedToken) -> Vec<String> {
    token.targets().iter().map(|target| token.describe(target).to_string()).collect()
}

#[test]
fn every_claim_that_names_something_is_a_target() {
    let token = accept(
        &TokenProfile::new(),
        json!({
            "sub": "u", "sid": "s1", "session_state": "s2", "session_id": "s3", "device_id": "d",
            "fid": "f1",
            "family_id": "f2", "origin_jti": "f3", "client_id": "c1", "azp": "c2", "other": "x",
        }),
    );
    let mut found = targets(&token);
    found.sort_unstable();
    assert_eq!(
        found,
        [
            "client c1",
            "client c2",
            "device d",
            "family f1",
            "family f2",
            "family f3",
            "issuer ",
            "session s1",
            "session s2",
            "session s3",
            "token t",
            "user u",
        ]
    );
}

#[test]
fn a_target_that_is_named_twice_is_looked_up_once() {
    let token = accept(&TokenProfile::new(), json!({"client_id": "c", "azp": "c", "sid": "c"}));
    assert_eq!(targets(&token), ["token t", "client c", "session c", "issuer "]);
    // Claims of your own with one value are two targets.
    let profile = TokenProfile::new()
        .with_claim_target("a", TargetKind::Claim)
        .with_claim_target("b", TargetKind::Claim);
    assert_eq!(targets(&accept(&profile, json!({"a": "x", "b": "x"}))).len(), 4);
}

#[test]
fn targets_of_the_token_are_those_that_are_written_down() {
    let profile =
        TokenProfile::new().with_issuer("i").with_claim_target("tenant", TargetKind::Claim);
    let token = accept(&profile, json!({"iss": "i", "sub": "u", "tenant": 7}));
    for target in [
        Target::token("t").issued_by("i"),
        Target::user("u").issued_by("i"),
        Target::claim("tenant", "7").issued_by("i"),
        Target::issuer("i"),
    ] {
        let print = target.fingerprint();
        assert!(token.targets().iter().any(|own| *own.fingerprint() == print), "{target}");
    }
    let elsewhere = Target::user("u").issued_by("j").fingerprint();
    assert!(token.targets().iter().all(|own| *own.fingerprint() != elsewhere));
}

#[test]
fn an_id_of_another_type_would_not_be_found_so_it_is_refused() {
    let profile = TokenProfile::new().with_claim_target("tenant", TargetKind::Claim);
    for value in [
        json!(1.5),
        json!(-1),
        json!(true),
        json!(["x"]),
        json!({"x": 1}),
        json!("x".repeat(MAX_ID_BYTES + 1)),
    ] {
        let refused = check(&profile, &payload(json!({"tenant": value})), at(NOW)).unwrap_err();
        assert_eq!(refused, OddClaim, "{value}");
        let not_looked_at = profile.clone().without_claim_target("tenant");
        accept(&not_looked_at, json!({"tenant": value}));
    }
    for value in [json!(null), json!(""), json!(u64::MAX), json!("x".repeat(MAX_ID_BYTES))] {
        accept(&profile, json!({"tenant": value}));
    }
}

#[test]
fn times_at_their_edges() {
    let profile = TokenProfile::new().with_leeway(Duration::from_secs(60));
    let check = |more, now| check(&profile, &payload(more), now).map(|_| ());
    let milli = Duration::from_millis(1);
    let exp = at(NOW + 600);
    assert_eq!(
        check(json!({}), exp.saturating_add(Duration::from_secs(60)).saturating_sub(milli)),
        Ok(())
    );
    assert_eq!(check(json!({}), exp.saturating_add(Duration::from_secs(60))), Err(Expired));
    assert_eq!(check(json!({"nbf": NOW + 60}), at(NOW)), Ok(()));
    assert_eq!(check(json!({"nbf": NOW + 60}), at(NOW).saturating_sub(milli)), Err(NotYetValid));
    assert_eq!(
        check(json!({"iat": NOW + 61}), at(NOW)),
        Ok(()),
        "the leeway, and a second after a cutoff"
    );
    assert_eq!(check(json!({"iat": NOW + 61}), at(NOW).saturating_sub(milli)), Err(IssuedInFuture));
    assert_eq!(check(json!({"exp": NOW + 86_400}), at(NOW)), Ok(()));
    assert_eq!(check(json!({"exp": NOW + 86_401}), at(NOW)), Err(LifetimeTooLong));
    assert_eq!(check(json!({"exp": 1_700_000_000.5}), at(NOW)), Ok(()), "fractions are legal");
    assert_eq!(check(json!({}), Timestamp::from_millis(u64::MAX)), Err(Expired));
    assert_eq!(check(json!({}), Timestamp::ZERO), Err(IssuedInFuture));
    for far in [json!(1e300), json!(u64::MAX), json!(1.8e19)] {
        assert_eq!(check(json!({"exp": far}), at(NOW)), Err(LifetimeTooLong));
        assert_eq!(check(json!({"nbf": far}), at(NOW)), Err(NotYetValid));
        assert_eq!(check(json!({"iat": far}), at(NOW)), Err(IssuedInFuture));
        assert_eq!(check(json!({"iat": far, "exp": far}), at(NOW)), Err(IssuedInFuture));
    }
}

#[test]
fn fractions_of_a_second_are_kept() {
    let token = accept(&TokenProfile::new(), json!({"iat": 1_700_000_000.25}));
    assert_eq!(token.issued_at(), Some(at(NOW).saturating_add(Duration::from_millis(250))));
}

#[test]
fn a_token_of_unknown_age_must_not_have_long_to_live() {
    let profile = TokenProfile::new().allow_missing_iat();
    let check =
        |exp: u64| check(&profile, &payload(json!({"iat": null, "exp": exp})), at(NOW)).map(|_| ());
    assert_eq!(check(NOW + 86_400), Ok(()));
    assert_eq!(check(NOW + 86_401), Err(LifetimeTooLong));
}

#[test]
fn a_token_of_nobody_is_refused_where_that_is_asked_for() {
    let profile = TokenProfile::new().with_required_subject();
    let check = |changes| check(&profile, &payload(changes), at(NOW)).map(|_| ());
    assert_eq!(check(json!({"sub": "u"})), Ok(()));
    for nobody in [json!({}), json!({"sub": null}), json!({"sub": ""})] {
        assert_eq!(check(nobody.clone()), Err(MissingClaim), "{nobody}");
        accept(&TokenProfile::new(), nobody);
    }
}

#[test]
fn a_token_without_id_is_what_the_profile_says() {
    let claims = payload(json!({"jti": null, "sub": "u"}));
    let check = |missing_id, input: Option<&str>| {
        let signed = SignedClaims::new(&claims);
        let signed = input.map_or(signed, |input| signed.with_signing_input(input));
        let profile =
            TokenProfile::new().with_missing_id(missing_id).with_clock(ManualClock::new(at(NOW)));
        profile.assert_verified(signed).map_err(|error| error.kind())
    };
    assert_eq!(check(MissingId::Refuse, Some("h.p")).unwrap_err(), TokenErrorKind::MissingId);
    assert_eq!(check(MissingId::SigningInput, None).unwrap_err(), TokenErrorKind::MissingId);
    let token = check(MissingId::OtherTargetsOnly, Some("h.p")).unwrap();
    assert_eq!(targets(&token), ["user u", "issuer "]);
    let one = check(MissingId::SigningInput, Some("h.p")).unwrap();
    let other = check(MissingId::SigningInput, Some("h.q")).unwrap();
    assert_eq!(one.target(TargetKind::SigningInput).unwrap().id().len(), 43);
    assert_ne!(one.targets()[0].fingerprint(), other.targets()[0].fingerprint());
    assert_eq!(one.id(), None);
}

#[test]
fn the_id_claim_can_be_another() {
    let profile = TokenProfile::new().with_id_claim("uti");
    let token = accept(&profile, json!({"jti": ["whatever"], "uti": "x"}));
    assert_eq!(token.id(), Some("x"));
    assert_eq!(
        check(&profile, &payload(json!({})), at(NOW)).unwrap_err(),
        TokenErrorKind::MissingId
    );
}

#[test]
fn issuers_and_audiences() {
    let profile =
        TokenProfile::new().with_issuer("i").with_issuer("j").with_audience("a").with_audience("b");
    let check = |more| {
        check(&profile, &payload(more), at(NOW)).map(|token| token.issuer().map(str::to_owned))
    };
    assert_eq!(check(json!({"iss": "j", "aud": ["x", "b"]})), Ok(Some("j".into())));
    assert_eq!(check(json!({"iss": "k", "aud": "a"})), Err(WrongIssuer));
    assert_eq!(check(json!({"iss": "I", "aud": "a"})), Err(WrongIssuer));
    assert_eq!(check(json!({"iss": "", "aud": "a"})), Err(WrongIssuer));
    assert_eq!(check(json!({"iss": "i", "aud": ["x"]})), Err(WrongAudience));
    assert_eq!(check(json!({"aud": "a"})), Err(MissingClaim));
    assert_eq!(check(json!({"iss": "i"})), Err(MissingClaim));
}

#[test]
fn profiles_that_cannot_work() {
    let new = TokenProfile::new;
    for (profile, setting) in [
        (new().with_issuer(""), "issuer"),
        (new().with_audience(""), "audience"),
        (new().with_leeway(MAX_LEEWAY + Duration::from_millis(1)), "leeway"),
        (new().with_max_lifetime(Duration::ZERO), "max_lifetime"),
        (new().with_max_lifetime(Duration::MAX), "max_lifetime"),
        (new().with_id_claim(""), "claim"),
        (new().with_id_claim("exp"), "claim"),
        (new().with_id_claim("sub"), "claim_target"),
        (new().with_claim_target("", TargetKind::Claim), "claim"),
        (new().with_claim_target("aud", TargetKind::Claim), "claim"),
        (new().with_claim_target("kid", TargetKind::Key), "claim_target"),
        (new().with_claim_target("jti", TargetKind::Token), "claim_target"),
    ] {
        assert_eq!(profile.validate().unwrap_err().setting(), setting, "{profile:?}");
    }
    new().with_leeway(MAX_LEEWAY).validate().unwrap();
}

#[test]
fn records_outlive_every_token_they_cover() {
    // The longest: issued as far in the future as the largest leeway allows, and used as long as it
    // allows.
    let profile = TokenProfile::new().with_leeway(MAX_LEEWAY);
    let lead = MAX_LEEWAY + IAT_LEAD;
    let iat = at(NOW).saturating_add(lead);
    let exp = iat.saturating_add(DEFAULT_MAX_LIFETIME);
    let claims = payload(json!({"iat": iat.as_secs(), "exp": exp.as_secs()}));
    check(&profile, &claims, at(NOW)).unwrap();
    let over = at(NOW).saturating_add(profile.retention());
    assert_eq!(check(&profile, &claims, over).unwrap_err(), Expired);
    assert_eq!(check(&profile, &claims, TokenProfile::forget_token_at(exp)).unwrap_err(), Expired);
}

proptest! {
    #[test]
    fn any_claims_are_checked_without_a_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..200), now in any::<u64>(),
    ) {
        let _ = check(&TokenProfile::new(), &bytes, Timestamp::from_millis(now)).unwrap_err();
    }

    #[test]
    fn any_times_are_checked_without_a_panic(
        exp in any::<f64>(), iat in any::<f64>(), nbf in any::<u64>(), now in any::<u64>(),
    ) {
        let claims = payload(json!({"exp": exp, "iat": iat, "nbf": nbf}));
        let now = Timestamp::from_millis(now);
        if let Ok(token) = check(&TokenProfile::new(), &claims, now) {
            prop_assert!(now < token.expires_at().saturating_add(DEFAULT_LEEWAY));
            let lifetime = token.expires_at().saturating_duration_since(token.issued_at().unwrap());
            prop_assert!(lifetime <= DEFAULT_MAX_LIFETIME);
        }
    }

    #[test]
    fn a_claim_twice_is_refused_however_it_is_spelled(at in 0..3_usize, escape in 0..8_u8) {
        let name: String = "jti".chars().enumerate().map(|(index, char)| {
            let is_escaped = escape >> index & 1 == 1;
            if is_escaped { format!("\\u{:04x}", u32::from(char)) } else { char.into() }
        }).collect();
        let twice = format!("\"{name}\":\"other\"");
        let mut members = vec![r#""jti":"t""#, r#""iat":1700000000"#, r#""exp":1700000600"#];
        members.insert(at, &twice);
        let claims = format!("{{{}}}", members.join(","));
        let refused = check(&TokenProfile::new(), claims.as_bytes(), Timestamp::from_secs(NOW));
        prop_assert_eq!(refused.unwrap_err(), OddClaim);
    }
}

/// Its id is how a token made by other rules is found out.
#[test]
fn clones_of_a_profile_vouch_for_its_tokens_and_changed_ones_do_not() {
    let one = TokenProfile::new();
    let token = accept_now(&one);
    one.expect_own(&token).unwrap();
    one.clone().expect_own(&token).unwrap();
    TokenProfile::default().expect_own(&token).unwrap();
    let change = |change: fn(TokenProfile) -> TokenProfile| change(TokenProfile::new());
    for (setter, changed) in [
        ("with_issuer", change(|profile| profile.with_issuer("i"))),
        ("with_issuer_pattern", change(|p| p.with_issuer_pattern("https://i/{tenant}", |_| true))),
        ("with_audience", change(|profile| profile.with_audience("a"))),
        ("with_leeway", change(|profile| profile.with_leeway(Duration::ZERO))),
        ("with_max_lifetime", change(|profile| profile.with_max_lifetime(Duration::from_secs(9)))),
        ("with_id_claim", change(|profile| profile.with_id_claim("uti"))),
        ("with_missing_id", change(|profile| profile.with_missing_id(MissingId::SigningInput))),
        ("allow_missing_iat", change(TokenProfile::allow_missing_iat)),
        ("with_required_subject", change(TokenProfile::with_required_subject)),
        ("with_claim_target", change(|p| p.with_claim_target("t", TargetKind::Claim))),
        ("without_claim_target", change(|profile| profile.without_claim_target("sid"))),
        ("with_clock", change(|profile| profile.with_clock(ManualClock::default()))),
        ("with_keys_of_tenants", change(TokenProfile::with_keys_of_tenants)),
    ] {
        let refused = changed.expect_own(&token).unwrap_err().kind();
        assert_eq!(refused, TokenErrorKind::WrongProfile, "{setter}");
    }
}

#[test]
fn a_combined_profile_vouches_for_what_the_profile_of_the_issuer_has_made() {
    let (one, other) = (
        TokenProfile::new().with_issuer("one"),
        TokenProfile::new().with_issuer("other").without_claim_target("sid"),
    );
    let all = TokenProfile::combined([one.clone(), other]).unwrap();
    let made_by = |profile: &TokenProfile, issuer: &str| {
        let claims = payload(json!({ "iss": issuer }));
        profile.assert_verified_for_revocation(SignedClaims::new(&claims)).unwrap()
    };
    for token in [made_by(&one, "one"), made_by(&all, "one"), made_by(&all, "other")] {
        all.expect_own(&token).unwrap();
    }
    // The same issuer by other rules, and one that nobody knows.
    for (profile, issuer) in [
        (TokenProfile::new().with_issuer("other"), "other"),
        (TokenProfile::new(), "one"),
        (TokenProfile::new().with_issuer("else"), "else"),
    ] {
        all.expect_own(&made_by(&profile, issuer)).unwrap_err();
    }
}

fn accept_now(profile: &TokenProfile) -> VerifiedToken {
    profile.assert_verified_for_revocation(SignedClaims::new(&payload(json!({})))).unwrap()
}
