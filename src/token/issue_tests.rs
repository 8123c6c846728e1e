use serde_json::json;

use super::*;
use crate::clock::ManualClock;
use crate::token::Algorithm;
use crate::token::{MissingId, TokenErrorKind};

const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_400);

fn profile() -> TokenProfile {
    TokenProfile::new().with_issuer("https://id.example").with_audience("orders")
}

fn key() -> SigningKey {
    SigningKey::from_secret(Algorithm::HS256, &[7; 32]).unwrap()
}

fn issuer_of(profile: TokenProfile) -> TokenIssuer {
    TokenIssuer::new(key(), profile).unwrap().with_clock(ManualClock::new(NOW))
}

fn verify(profile: TokenProfile, issued: &IssuedToken) -> Arc<crate::VerifiedToken> {
    let verifier = JwtVerifier::new([key().verification_key()], profile)
        .unwrap()
        .with_types(["at+jwt"])
        .unwrap()
        .with_clock(ManualClock::new(NOW));
    verifier.verify(issued.token()).unwrap()
}

#[track_caller]
fn assert_refused(profile: TokenProfile, new: &NewToken, part: &str) {
    let error = issuer_of(profile).issue(new).unwrap_err();
    let text = format!("{error}: {:?}", error.source().map(ToString::to_string));
    assert!(text.contains(part), "{text}");
    assert!(!format!("{text} {error:?} {new:?}").contains("canary7"), "{text}");
}

#[test]
fn what_is_asked_for_is_in_the_token() {
    let new = NewToken::new("alice")
        .with_session("s")
        .with_device("d")
        .with_family("f")
        .with_client("c")
        .with_claim("role", "admin")
        .with_claims(&json!({"tenant": {"id": 7}}))
        .with_lifetime(Duration::from_secs(60));
    let issued = issuer_of(profile()).issue(&new).unwrap();
    let token = verify(profile(), &issued);
    let claims: Value = token.claims().unwrap();
    assert_eq!(
        claims,
        json!({
            "iss": "https://id.example", "aud": "orders", "sub": "alice", "jti": issued.id(),
            "iat": 1_700_000_000, "exp": 1_700_000_060,
            "sid": "s", "device_id": "d", "fid": "f", "client_id": "c",
            "role": "admin", "tenant": {"id": 7},
        })
    );
    assert_eq!(token.issued_at(), Some(issued.issued_at()));
    assert_eq!(token.expires_at(), issued.expires_at());
    for (kind, id) in [
        (TargetKind::Token, issued.id()),
        (TargetKind::User, "alice"),
        (TargetKind::Session, "s"),
        (TargetKind::Device, "d"),
        (TargetKind::Family, "f"),
        (TargetKind::Client, "c"),
    ] {
        assert_eq!(token.target(kind).unwrap().id(), id);
    }
}

#[test]
fn ids_are_128_bits_and_never_the_same() {
    let issuer = issuer_of(profile());
    let ids: std::collections::HashSet<_> =
        (0..1000).map(|_| issuer.issue(&NewToken::new("alice")).unwrap().id().to_owned()).collect();
    assert_eq!(ids.len(), 1000);
    assert!(ids.iter().all(|id| URL_SAFE_NO_PAD.decode(id).unwrap().len() == 16));
}

#[test]
fn defaults_are_what_the_docs_say() {
    let issued = issuer_of(profile()).issue(&NewToken::new("alice")).unwrap();
    assert_eq!(
        issued.expires_at().saturating_duration_since(issued.issued_at()),
        Duration::from_secs(15 * 60)
    );
    let short = profile().with_max_lifetime(Duration::from_millis(90_500));
    let issued = issuer_of(short).issue(&NewToken::new("alice")).unwrap();
    assert_eq!(
        issued.expires_at().saturating_duration_since(issued.issued_at()),
        Duration::from_secs(90)
    );
    // Without issuer and audience, the token has none.
    let issued = issuer_of(TokenProfile::new()).issue(&NewToken::new("alice")).unwrap();
    let claims: Value = verify(TokenProfile::new(), &issued).claims().unwrap();
    assert!(claims.get("iss").is_none() && claims.get("aud").is_none());
}

#[test]
fn a_token_after_a_cutoff_is_stamped_past_it() {
    let issue =
        |floor| issuer_of(profile()).issue(&NewToken::new("alice").with_not_before_iat(floor));
    assert_eq!(issue(Timestamp::ZERO).unwrap().issued_at(), Timestamp::from_secs(1_700_000_000));
    for ahead in [0, 1, 999] {
        let floor = NOW.saturating_add(Duration::from_millis(ahead));
        let issued = issue(floor).unwrap();
        assert_eq!(issued.issued_at(), floor, "exactly then");
        assert_eq!(verify(profile(), &issued).issued_at(), Some(floor), "and so it is read back");
        assert!(issued.expires_at().as_millis().is_multiple_of(1000));
    }
    let last = Timestamp::from_secs(1_700_000_061);
    verify(profile(), &issue(last).unwrap());
    let error = issue(last.saturating_add(Duration::from_secs(1))).unwrap_err();
    assert!(matches!(error, IssueError::Invalid(_)), "{error:?}");
    issue(Timestamp::from_millis(u64::MAX)).unwrap_err();
}

#[test]
fn several_audiences() {
    let profile = || profile().with_audience("billing");
    let aud = |new: &NewToken| {
        let issued = issuer_of(profile()).issue(new).unwrap();
        verify(profile(), &issued).claims::<Value>().unwrap()["aud"].clone()
    };
    assert_eq!(aud(&NewToken::new("alice")), json!(["orders", "billing"]));
    assert_eq!(aud(&NewToken::new("alice").with_audience("billing")), json!("billing"));
    assert_refused(
        profile(),
        &NewToken::new("alice").with_audience("canary7"),
        "audience is not one",
    );
}

#[test]
fn what_could_not_be_accepted_or_revoked_is_not_issued() {
    let new = || NewToken::new("alice");
    for name in
        ["iss", "sub", "aud", "exp", "nbf", "iat", "jti", "sid", "fid", "device_id", "client_id"]
    {
        assert_refused(
            profile(),
            &new().with_claim(name, "canary7"),
            &format!("`{name}` is set by the issuer"),
        );
    }
    assert_refused(
        profile().with_id_claim("uti"),
        &new().with_claim("uti", "canary7"),
        "`uti` is set",
    );
    assert_refused(profile(), &new().with_claims(&["canary7"]), "not a JSON object");
    assert_refused(
        profile(),
        &new().with_claims(&["canary7"]).with_claim("a", 1),
        "not a JSON object",
    );
    assert_refused(profile(), &NewToken::new(""), "subject is empty");
    assert_refused(profile(), &new().with_session(""), "session is empty");
    assert_refused(profile(), &new().with_session("canary7".repeat(200)), "longer than 1024");
    assert_refused(profile(), &NewToken::new("canary7".repeat(200)), "longer than 1024");
    let blind = profile().without_claim_target("sid");
    assert_refused(blind, &new().with_session("canary7"), "does not map `sid` to session");
    let tenant = profile().with_claim_target("tenant", TargetKind::Claim);
    assert_refused(
        tenant,
        &new().with_claim("tenant", json!(["canary7"])),
        "`tenant` feeds a revocation target",
    );
    for (lifetime, part) in [
        (Duration::ZERO, "whole seconds"),
        (Duration::from_millis(1500), "whole seconds"),
        (Duration::from_secs(24 * 60 * 60 + 1), "longer than the profile accepts"),
    ] {
        assert_refused(profile(), &new().with_lifetime(lifetime), part);
        let error = issuer_of(profile()).with_lifetime(lifetime).unwrap_err();
        assert_eq!(error.setting(), "lifetime");
    }
}

#[test]
fn an_issuer_that_cannot_work_is_not_built() {
    let build = |profile| TokenIssuer::new(key(), profile).map(|_| ()).unwrap_err().to_string();
    assert!(build(profile().with_issuer("https://other.example")).contains("names several"));
    assert!(build(profile().with_leeway(Duration::from_secs(301))).contains("leeway"));
    assert!(
        build(profile().with_max_lifetime(Duration::from_millis(900))).contains("whole seconds")
    );
    // A profile may ask for less than what is issued.
    let lenient =
        profile().with_missing_id(MissingId::OtherTargetsOnly).without_claim_target("sub");
    issuer_of(lenient).issue(&NewToken::new("alice")).unwrap();
}

#[test]
fn a_key_with_a_name_writes_it_into_its_tokens() {
    let key = key().with_kid("k1").unwrap();
    let issuer = TokenIssuer::new(key.clone(), profile()).unwrap();
    let other =
        crate::token::jwt::VerificationKey::from_secret(Algorithm::HS256, &[8; 32]).unwrap();
    let keys = [key.verification_key(), other.with_kid("k2").unwrap()];
    let verifier = JwtVerifier::new(keys, profile()).unwrap();
    let token = verifier.verify(issuer.issue(&NewToken::new("alice")).unwrap().token()).unwrap();
    assert_eq!(token.target(TargetKind::Key).unwrap().id(), "k1");
}

#[test]
fn nothing_shows_the_token() {
    let mint = issuer_of(profile());
    let issued = mint.issue(&NewToken::new("alice")).unwrap();
    let text = format!("{issued:?} {mint:?}");
    assert!(text.contains(issued.id()));
    assert!(issued.token().split('.').all(|part| !text.contains(part)), "{text}");
    assert!(!text.contains("7, 7, 7"), "{text}");
}

#[test]
fn an_issued_token_that_is_over_is_refused() {
    let clock = ManualClock::new(NOW);
    let issued = issuer_of(profile()).issue(&NewToken::new("alice")).unwrap();
    let verifier =
        JwtVerifier::new([key().verification_key()], profile()).unwrap().with_clock(clock.clone());
    clock.advance(Duration::from_secs(16 * 60));
    assert_eq!(verifier.verify(issued.token()).unwrap_err().kind(), TokenErrorKind::Expired);
}
