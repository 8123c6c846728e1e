//! Tokens as attackers, careless issuers and standards make them.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::EncodingKey;
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::clock::{ManualClock, Timestamp};
use crate::revocation::TargetKind;
use crate::token::jwt::header::signed_base64;
use crate::token::jwt::*;
use crate::token::{Algorithm, MissingId, TokenError, TokenErrorKind, TokenProfile, TokenVerifier};
use TokenErrorKind::*;

const SECRET: &[u8] = b"a secret of the tests, 32+ bytes long";
const NOW: u64 = 1_700_000_000;
/// In every value that must not show up in an error.
const MARK: &str = "canary7";

fn secret_key() -> VerificationKey {
    VerificationKey::from_secret(Algorithm::HS256, SECRET).unwrap()
}

fn verifier_of(keys: impl IntoIterator<Item = VerificationKey>) -> JwtVerifier {
    let profile = TokenProfile::new().with_issuer("https://id.example").with_audience("orders");
    JwtVerifier::new(keys, profile).unwrap().with_clock(ManualClock::new(Timestamp::from_secs(NOW)))
}

fn verifier() -> JwtVerifier {
    verifier_of([secret_key()])
}

fn claims() -> Value {
    json!({
        "iss": "https://id.example", "aud": "orders", "sub": "alice-canary7", "jti": "id-canary7",
        "iat": NOW - 10, "exp": NOW + 600,
    })
}

/// The usual claims, one of them changed.
fn claims_with(name: &str, value: Value) -> String {
    let mut claims = claims();
    claims[name] = value;
    claims.to_string()
}

fn claims_without(name: &str) -> String {
    let mut claims = claims();
    claims.as_object_mut().unwrap().remove(name);
    claims.to_string()
}

fn encode(text: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(text)
}

fn sign_with(key: &EncodingKey, algorithm: Algorithm, header: &str, claims: &str) -> String {
    let input = format!("{}.{}", encode(header), encode(claims));
    let signature =
        jsonwebtoken::crypto::sign(input.as_bytes(), key, provider::algorithm(algorithm)).unwrap();
    format!("{input}.{signature}")
}

/// A token with a good HS256 signature, whatever it says.
fn sign(header: &str, claims: &str) -> String {
    secret_key(); // a provider is installed from then on
    sign_with(&EncodingKey::from_secret(SECRET).unwrap(), Algorithm::HS256, header, claims)
}

fn good() -> String {
    sign(r#"{"alg":"HS256"}"#, &claims().to_string())
}

fn pem(bytes: &[u8], make: fn(&[u8]) -> EncodingKey) -> EncodingKey {
    make(&der::pem(bytes).unwrap().1)
}

/// No part of the token, encoded or decoded, in anything that may be logged.
#[track_caller]
fn assert_silent(error: &TokenError, token: &str) {
    let texts = [format!("{error}"), format!("{error:?}"), format!("{error:#?}")];
    let pieces = token.split('.').filter(|part| part.len() >= 6);
    for text in texts {
        assert!(!text.contains(MARK), "{text}");
        for piece in pieces.clone() {
            assert!(!text.contains(piece), "{text}");
        }
    }
    assert!(std::error::Error::source(error).is_none(), "a cause may quote");
}

#[track_caller]
fn assert_refused(verifier: &JwtVerifier, token: &str, kind: TokenErrorKind) {
    let error = verifier.verify(token).expect_err("accepted");
    assert_eq!(error.kind(), kind, "{error}");
    assert_silent(&error, token);
}

#[test]
fn a_good_token_is_accepted() {
    let token = verifier().verify(&good()).unwrap();
    assert_eq!(token.subject(), Some("alice-canary7"));
    assert_eq!(token.id(), Some("id-canary7"));
    assert!(!format!("{token:?}").contains(MARK));
}

#[test]
fn headers() {
    let nested = format!(r#"{{"alg":{}{}}}"#, "[".repeat(1400), "]".repeat(1400));
    let long = format!(r#"{{"alg":"HS256","x5c":["{}"]}}"#, "A".repeat(3100));
    let cases: &[(&str, Result<(), TokenErrorKind>)] = &[
        (r#"{"alg":"HS256","typ":"JWT"}"#, Ok(())),
        (r#"{"alg":"HS256","typ":"jwt"}"#, Ok(())),
        (r#"{"alg":"HS256","typ":"at+jwt"}"#, Ok(())),
        (r#"{"alg":"HS256","typ":"Application/AT+JWT"}"#, Ok(())),
        (r#"{"\u0061lg":"HS256"}"#, Ok(())),
        (r#"{"alg":"HS256","cty":"x","x5t":"y","n":null}"#, Ok(())),
        // Keys that the token brings along are not looked at.
        (
            r#"{"alg":"HS256","jwk":{"kty":"oct","k":"AA"},
                "jku":"http://evil","x5u":"http://evil","x5c":[]}"#,
            Ok(()),
        ),
        // What must be understood.
        (r#"{"alg":"HS256","crit":["exp"]}"#, Err(UnsupportedHeader)),
        (r#"{"alg":"HS256","crit":[]}"#, Err(UnsupportedHeader)),
        (r#"{"alg":"HS256","crit":null}"#, Err(UnsupportedHeader)),
        (r#"{"alg":"HS256","cr\u0069t":["b64"],"b64":false}"#, Err(UnsupportedHeader)),
        (r#"{"alg":"HS256","b64":false}"#, Err(UnsupportedHeader)),
        (r#"{"alg":"HS256","b64":true}"#, Err(UnsupportedHeader)),
        (r#"{"alg":"HS256","zip":"DEF"}"#, Err(UnsupportedHeader)),
        (r#"{"alg":"dir","enc":"A256GCM"}"#, Err(UnsupportedHeader)),
        // Twice, with and without disguise.
        (r#"{"alg":"HS256","alg":"HS256"}"#, Err(Malformed)),
        (r#"{"alg":"none","\u0061lg":"HS256"}"#, Err(Malformed)),
        (r#"{"alg":"HS256","kid":"a","kid":"a"}"#, Err(Malformed)),
        (r#"{"alg":"HS256","typ":"JWT","typ":"JWT"}"#, Err(Malformed)),
        // Odd types.
        (r#"{"alg":"HS256","kid":null}"#, Err(Malformed)),
        (r#"{"alg":"HS256","kid":1}"#, Err(Malformed)),
        (r#"{"alg":"HS256","typ":["JWT"]}"#, Err(Malformed)),
        (r#"{"alg":["HS256"]}"#, Err(Malformed)),
        (r#"{"alg":null}"#, Err(Malformed)),
        (r#"{"alg":""}"#, Err(Malformed)),
        (r"{}", Err(Malformed)),
        (r"[]", Err(Malformed)),
        (r#""HS256""#, Err(Malformed)),
        (r#"{"alg":"HS256"} x"#, Err(Malformed)),
        (r#"{"alg":"HS256"}{"alg":"HS256"}"#, Err(Malformed)),
        (r#"{"alg":"HS256""#, Err(Malformed)),
        ("", Err(Malformed)),
        ("\u{feff}{\"alg\":\"HS256\"}", Err(Malformed)),
        (&long, Err(TooLong)),
        (&nested, Err(Malformed)),
        // Algorithms by other names.
        (r#"{"alg":"none"}"#, Err(WrongAlgorithm)),
        (r#"{"alg":"None"}"#, Err(WrongAlgorithm)),
        (r#"{"alg":"nOnE"}"#, Err(WrongAlgorithm)),
        (r#"{"alg":"hs256"}"#, Err(WrongAlgorithm)),
        (r#"{"alg":"HS256 "}"#, Err(WrongAlgorithm)),
        (r#"{"alg":"HS512"}"#, Err(WrongAlgorithm)),
        (r#"{"alg":"RS256"}"#, Err(WrongAlgorithm)),
        (r#"{"alg":"ES512"}"#, Err(WrongAlgorithm)),
        // Types of tokens that are made for something else.
        (r#"{"alg":"HS256","typ":"logout+jwt"}"#, Err(WrongType)),
        (r#"{"alg":"HS256","typ":"secevent+jwt"}"#, Err(WrongType)),
        (r#"{"alg":"HS256","typ":"application/dpop+jwt"}"#, Err(WrongType)),
        (r#"{"alg":"HS256","typ":"statuslist+jwt"}"#, Err(WrongType)),
        (r#"{"alg":"HS256","typ":"refresh+jwt"}"#, Err(WrongType)),
        (r#"{"alg":"HS256","typ":""}"#, Err(WrongType)),
        (r#"{"alg":"HS256","typ":"application/"}"#, Err(WrongType)),
        (r#"{"alg":"HS256","typ":"JWT\u0000"}"#, Err(WrongType)),
        // The one key has no name.
        (r#"{"alg":"HS256","kid":"canary7"}"#, Err(UnknownKey)),
        (r#"{"alg":"HS256","kid":""}"#, Err(UnknownKey)),
    ];
    for (header, expected) in cases {
        let token = sign(header, &claims().to_string());
        let verdict = verifier().verify(&token);
        assert_eq!(verdict.as_ref().map(|_| ()).map_err(TokenError::kind), *expected, "{header}");
        let same = verifier().verify_for_revocation(&token);
        assert_eq!(same.map(|_| ()).map_err(|error| error.kind()), *expected, "{header}");
        if let Err(error) = verdict {
            assert_silent(&error, &token);
        }
    }
}

/// What nobody looks at is skipped without recursion: however deep it is, it takes no stack. A
/// thread with less than any server gives to one would overflow.
#[test]
fn what_is_skipped_may_be_nested_as_deep_as_it_fits() {
    let nest = |depth| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    let header = format!(r#"{{"alg":"HS256","x":{}}}"#, nest(1500));
    let objects = format!("{}0{}", r#"{"a":"#.repeat(5000), "}".repeat(5000));
    let claims =
        claims().to_string().replacen('{', &format!(r#"{{"x":{},"y":{objects},"#, nest(5000)), 1);
    let token = sign(&header, &claims);
    assert!(token.len() > 50_000);
    // A claim that is looked at is read only as deep as it can matter.
    let deep_audience =
        sign(r#"{"alg":"HS256"}"#, &claims_with("aud", json!("…")).replace("\"…\"", &nest(5000)));
    let checked = std::thread::Builder::new().stack_size(256 * 1024).spawn(move || {
        let verifier = verifier().with_max_token_bytes(64 * 1024);
        (verifier.verify(&token).map(drop), verifier.verify(&deep_audience).map(drop))
    });
    let (skipped, read) = checked.unwrap().join().unwrap();
    skipped.unwrap();
    assert_eq!(read.unwrap_err().kind(), OddClaim);
}

#[test]
fn shapes() {
    let good = good();
    let [header, payload, signature]: [&str; 3] =
        good.split('.').collect::<Vec<_>>().try_into().unwrap();
    let with_claims = |claims: &str| sign(r#"{"alg":"HS256"}"#, claims);
    // The last character of a 32-byte signature has two bits that mean nothing.
    let last = signature.chars().last().unwrap();
    let alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let next = alphabet.chars().nth(alphabet.find(last).unwrap() + 1).unwrap();
    let respelled = format!("{header}.{payload}.{}{next}", &signature[..signature.len() - 1]);
    for (token, kind) in [
        (String::new(), Malformed),
        (".".into(), Malformed),
        ("..".into(), Malformed),
        ("...".into(), Malformed),
        ("abc".into(), Malformed),
        (format!("{header}.{payload}"), Malformed),
        (format!("{header}.{payload}.{signature}."), Malformed),
        (format!("{good}.{signature}"), Malformed),
        (format!("{header}.{payload}..{signature}"), Malformed),
        (format!("{header}...{payload}.{signature}"), Malformed),
        (format!(".{payload}.{signature}"), Malformed),
        // JWE, compact and JSON; JWS as JSON
        (format!("{header}.{payload}.{payload}.{payload}.{signature}"), Malformed),
        (
            format!(
                r#"{{"payload":"{payload}","protected":"{header}","signature":"{signature}"}}"#
            ),
            Malformed,
        ),
        // Other spellings of the same bytes
        (format!("{good}="), Malformed),
        (format!("{header}=.{payload}.{signature}"), Malformed),
        (format!(" {good}"), Malformed),
        (format!("{good}\n"), Malformed),
        (format!("{good}\0"), Malformed),
        (format!("{good}é"), Malformed),
        (good.replace('.', "%2E"), Malformed),
        (respelled, BadSignature),
        // Signatures
        (format!("{header}.{payload}."), BadSignature),
        (format!("{header}.{payload}.A"), BadSignature),
        (format!("{header}.{payload}.{}", &signature[..40]), BadSignature),
        (format!("{header}.{payload}.{signature}AAAA"), BadSignature),
        (
            format!("{header}.{}.{signature}", encode(claims_with("sub", json!("mallory")))),
            BadSignature,
        ),
        (format!("{header}..{signature}"), BadSignature),
        // Claims that are signed and are none
        (with_claims(""), Malformed),
        (with_claims("[]"), Malformed),
        (with_claims("null"), Malformed),
        (with_claims("\"canary7\""), Malformed),
        (with_claims(&format!("{} ", claims()).repeat(2)), Malformed),
        (with_claims(&format!("{{\"jti\":{}{}}}", "[".repeat(2000), "]".repeat(2000))), OddClaim),
    ] {
        assert_refused(&verifier(), &token, kind);
    }
}

#[test]
fn a_payload_with_stray_bits_is_refused_although_its_signature_fits() {
    let header = encode(r#"{"alg":"HS256"}"#);
    let mut padded = claims().to_string();
    while padded.len().is_multiple_of(3) {
        padded.push(' ');
    }
    let payload = encode(&padded);
    let last = payload.chars().last().unwrap();
    // `encode` ends in a character whose low bits are zero, so the next one differs in them alone.
    let input = format!("{header}.{}{}", &payload[..payload.len() - 1], char::from(last as u8 + 1));
    secret_key();
    let key = EncodingKey::from_secret(SECRET).unwrap();
    let signature =
        jsonwebtoken::crypto::sign(input.as_bytes(), &key, jsonwebtoken::Algorithm::HS256).unwrap();
    assert_refused(&verifier(), &format!("{input}.{signature}"), Malformed);
}

/// Also where nothing of it is read.
#[test]
fn what_is_not_utf8_is_not_json() {
    for (header, payload) in [
        (&b"{\"alg\":\"HS256\",\"x\":\"\xff\"}"[..], claims().to_string().as_bytes()),
        (
            b"{\"alg\":\"HS256\"}",
            &claims()
                .to_string()
                .as_bytes()
                .iter()
                .map(|byte| if *byte == b'j' { 0xff } else { *byte })
                .collect::<Vec<_>>(),
        ),
        (
            b"{\"alg\":\"HS256\"}",
            &[&b"{\"x\":\"\xff\","[..], &claims().to_string().as_bytes()[1..]].concat(),
        ),
    ] {
        let input = format!("{}.{}", encode(header), encode(payload));
        secret_key();
        let key = EncodingKey::from_secret(SECRET).unwrap();
        let signature =
            jsonwebtoken::crypto::sign(input.as_bytes(), &key, jsonwebtoken::Algorithm::HS256)
                .unwrap();
        assert_refused(&verifier(), &format!("{input}.{signature}"), Malformed);
    }
}

#[test]
fn claims_that_lie_about_their_type() {
    let good = claims().to_string();
    let twice = |more: &str| format!("{},{more}}}", &good[..good.len() - 1]);
    for (claims, kind) in [
        (claims_without("iss"), MissingClaim),
        (claims_with("iss", json!(null)), MissingClaim),
        (claims_with("iss", json!(123)), OddClaim),
        (claims_with("iss", json!(["https://id.example"])), OddClaim),
        (claims_with("iss", json!("https://id.example/")), WrongIssuer),
        (claims_without("aud"), MissingClaim),
        (claims_with("aud", json!([])), MissingClaim),
        (claims_with("aud", json!(123)), OddClaim),
        (claims_with("aud", json!(["orders", 1])), OddClaim),
        (claims_with("aud", json!({"orders": true})), OddClaim),
        (claims_with("aud", json!("Orders")), WrongAudience),
        (claims_without("exp"), MissingClaim),
        (claims_with("exp", json!("1900000000")), OddClaim),
        (claims_with("exp", json!(-1)), OddClaim),
        (claims_with("exp", json!(NOW - 60)), Expired),
        (claims_with("exp", json!(1e300)), LifetimeTooLong),
        (claims_with("exp", json!(u64::MAX)), LifetimeTooLong),
        (good.replace(&format!("{}", NOW + 600), "NaN"), Malformed),
        (claims_with("nbf", json!(NOW + 61)), NotYetValid),
        (claims_with("nbf", json!(u64::MAX)), NotYetValid),
        (claims_with("nbf", json!(-1.5)), OddClaim),
        (claims_without("iat"), MissingClaim),
        (claims_with("iat", json!(NOW + 62)), IssuedInFuture),
        (claims_with("iat", json!(u64::MAX)), IssuedInFuture),
        (claims_with("iat", json!(true)), OddClaim),
        (claims_with("iat", json!(0)), LifetimeTooLong),
        (claims_without("jti"), MissingId),
        (claims_with("jti", json!(null)), MissingId),
        (claims_with("jti", json!("")), MissingId),
        (claims_with("jti", json!(7)), OddClaim),
        (claims_with("jti", json!(["canary7"])), OddClaim),
        (claims_with("jti", json!({"canary7": 1})), OddClaim),
        (claims_with("jti", json!("x".repeat(1025))), OddClaim),
        (claims_with("sid", json!(["canary7"])), OddClaim),
        (claims_with("sub", json!(7)), OddClaim),
        // A claim twice: who reads last and who reads first would see two different tokens.
        (twice(r#""jti":"canary7-other""#), OddClaim),
        (twice(r#""\u006ati":"canary7-other""#), OddClaim),
        (twice(r#""j\u0074\u0069":null"#), OddClaim),
        (twice(r#""exp":1900000000"#), OddClaim),
        (twice(r#""e\u0078p":1900000000"#), OddClaim),
        (twice(r#""x":1,"x":1"#), OddClaim),
        ("{\"jti\":\"a\"}}".into(), Malformed),
        ("{\"jti\":\"\u{0}\"}".into(), Malformed),
    ] {
        let token = sign(r#"{"alg":"HS256"}"#, &claims);
        assert_refused(&verifier(), &token, kind);
    }
    // Whether this is a number at all depends on a feature of serde_json.
    let beyond = good.replace(&format!("{}", NOW + 600), "1e999");
    let error = verifier().verify(&sign(r#"{"alg":"HS256"}"#, &beyond)).unwrap_err();
    assert!(matches!(error.kind(), Malformed | OddClaim), "{error}");
}

#[test]
fn ids_of_any_form_are_kept_apart() {
    let verify = |jti: &str| {
        let token = verifier()
            .verify(&sign(r#"{"alg":"HS256"}"#, &claims_with("jti", json!(jti))))
            .unwrap();
        *token.targets()[0].fingerprint()
    };
    let ids = ["a", "A", "a\0", "a\n", "{a}", "a ", "ä", "a\u{308}", &"x".repeat(1024)];
    let prints: std::collections::HashSet<_> = ids.map(verify).into();
    assert_eq!(prints.len(), ids.len());
}

#[test]
fn long_tokens_are_refused_unread() {
    let filler = "x".repeat(9000);
    let long = sign(r#"{"alg":"HS256"}"#, &claims_with("filler", json!(filler)));
    assert_refused(&verifier(), &long, TooLong);
    verifier().with_max_token_bytes(long.len()).verify(&long).unwrap();
    assert_refused(&verifier().with_max_token_bytes(long.len() - 1), &long, TooLong);
    assert_refused(&verifier(), &"\u{1F980}".repeat(1 << 20), TooLong);
}

#[test]
fn the_longest_header_grows_with_the_longest_token() {
    let header = |len: usize| format!(r#"{{"alg":"HS256","x5c":["{}"]}}"#, "A".repeat(len));
    let short = sign(&header(2900), &claims().to_string());
    verifier().verify(&short).unwrap();
    // With an encoded header of 8 kB, and of 80 kB.
    for (len, limit) in [(6000, 17_000), (60_000, 170_000)] {
        let token = sign(&header(len), &claims().to_string());
        verifier().with_max_token_bytes(limit).verify(&token).unwrap();
        let half = verifier().with_max_token_bytes(limit / 2);
        let error = half.verify(&token).unwrap_err();
        assert_eq!(error.kind(), TooLong);
        assert!(error.to_string().contains("with_max_token_bytes"), "{error}");
    }
    assert_refused(&verifier(), &sign(&header(3200), &claims().to_string()), TooLong);
}

#[test]
fn the_header_names_the_key_and_the_key_its_algorithm() {
    let other = VerificationKey::from_secret(Algorithm::HS256, &[9; 32]).unwrap();
    let rsa = include_bytes!("../../../../tests/keys/rsa2048.pub.pem");
    let keys = || {
        [
            secret_key().with_kid("a").unwrap(),
            other.clone().with_kid("b").unwrap(),
            VerificationKey::from_pem(Algorithm::RS256, rsa).unwrap().with_kid("r").unwrap(),
        ]
    };
    let several = verifier_of(keys());
    let claims = claims().to_string();
    let token = several.verify(&sign(r#"{"alg":"HS256","kid":"a"}"#, &claims)).unwrap();
    assert_eq!(token.target(TargetKind::Key).unwrap().id(), "a");
    for (header, kind) in [
        (r#"{"alg":"HS256"}"#, UnknownKey),
        (r#"{"alg":"HS256","kid":"A"}"#, UnknownKey),
        (r#"{"alg":"HS256","kid":"a "}"#, UnknownKey),
        (r#"{"alg":"HS256","kid":"../a"}"#, UnknownKey),
        (r#"{"alg":"HS256","kid":"b"}"#, BadSignature),
        (r#"{"alg":"HS256","kid":"r"}"#, WrongAlgorithm),
        (r#"{"alg":"RS256","kid":"a"}"#, WrongAlgorithm),
        (r#"{"alg":"RS256","kid":"r"}"#, BadSignature),
    ] {
        assert_refused(&several, &sign(header, &claims), kind);
    }
    // The public key as the secret of an HMAC: everyone could sign.
    let confused = sign_with(
        &EncodingKey::from_secret(rsa).unwrap(),
        Algorithm::HS256,
        r#"{"alg":"HS256","kid":"r"}"#,
        &claims,
    );
    assert_refused(&several, &confused, WrongAlgorithm);

    // One key: a token need not name it, but must not name another.
    let one = verifier_of([secret_key().with_kid("a").unwrap()]);
    let token = one.verify(&sign(r#"{"alg":"HS256"}"#, &claims)).unwrap();
    assert_eq!(
        token.target(TargetKind::Key).unwrap().id(),
        "a",
        "revocable by its key all the same"
    );
    assert_refused(&one, &sign(r#"{"alg":"HS256","kid":"b"}"#, &claims), UnknownKey);
}

#[test]
fn types_can_be_narrowed_but_not_to_those_of_other_purposes() {
    let strict = || verifier().with_types(["application/at+JWT"]).unwrap();
    let with_type = |header: &str| sign(header, &claims().to_string());
    strict().verify(&with_type(r#"{"alg":"HS256","typ":"at+jwt"}"#)).unwrap();
    assert_refused(&strict(), &with_type(r#"{"alg":"HS256","typ":"JWT"}"#), WrongType);
    assert_refused(&strict(), &with_type(r#"{"alg":"HS256"}"#), WrongType);
    for types in
        [&["at+jwt", "Application/LOGOUT+jwt"][..], &["dpop+jwt"], &[""], &["application/"], &[]]
    {
        assert_eq!(verifier().with_types(types).unwrap_err().setting(), "types", "{types:?}");
    }
}

#[test]
fn what_is_to_be_revoked_may_be_over_or_early_but_must_be_signed() {
    let over = sign(
        r#"{"alg":"HS256"}"#,
        &claims_with("exp", json!(NOW - 600)).replace(&(NOW - 10).to_string(), "1699990000"),
    );
    let early = sign(r#"{"alg":"HS256"}"#, &claims_with("nbf", json!(NOW + 6000)));
    for token in [&over, &early] {
        verifier().verify(token).unwrap_err();
        verifier().verify_for_revocation(token).unwrap();
        let unsigned = format!("{}.AAAA", token.rsplit_once('.').unwrap().0);
        assert_eq!(verifier().verify_for_revocation(&unsigned).unwrap_err().kind(), BadSignature);
    }
}

#[test]
fn the_clock_is_the_one_given() {
    let clock = ManualClock::new(Timestamp::from_secs(NOW));
    let verifier = verifier().with_clock(clock.clone());
    let token = good();
    verifier.verify(&token).unwrap();
    clock.advance(Duration::from_secs(659));
    verifier.verify(&token).unwrap();
    clock.advance(Duration::from_secs(1));
    assert_refused(&verifier, &token, Expired);
}

#[test]
fn a_second_spelling_of_an_ecdsa_signature_has_the_same_targets() {
    /// The order of P-256.
    const N: [u8; 32] = [
        0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xbc,
        0xe6, 0xfa, 0xad, 0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51,
    ];
    let public = include_bytes!("../../../../tests/keys/p256.pub.pem");
    let private = pem(include_bytes!("../../../../tests/keys/p256.pem"), EncodingKey::from_ec_der);
    let key = VerificationKey::from_pem(Algorithm::ES256, public).unwrap();
    let profile = TokenProfile::new().with_missing_id(MissingId::SigningInput);
    let verifier = JwtVerifier::new([key], profile)
        .unwrap()
        .with_clock(ManualClock::new(Timestamp::from_secs(NOW)));
    for claims in [claims().to_string(), claims_without("jti")] {
        let token = sign_with(&private, Algorithm::ES256, r#"{"alg":"ES256"}"#, &claims);
        let (input, signature) = token.rsplit_once('.').unwrap();
        let mut signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
        let mut borrow = 0;
        for (s, n) in signature[32..].iter_mut().rev().zip(N.iter().rev()) {
            let difference = i16::from(*n) - i16::from(*s) - borrow;
            borrow = i16::from(difference < 0);
            *s = u8::try_from(difference.rem_euclid(256)).unwrap();
        }
        let other = format!("{input}.{}", encode(signature));
        assert_ne!(token, other);
        let prints = |token: &str| {
            let token = verifier.verify(token).unwrap();
            token.targets().iter().map(|target| *target.fingerprint()).collect::<Vec<_>>()
        };
        assert_eq!(prints(&token), prints(&other));
    }
}

#[test]
fn debug_shows_no_key() {
    let text = format!("{:?}", verifier());
    assert!(text.contains("HS256") && text.contains("orders"), "{text}");
    assert!(!text.contains("a secret of") && !text.contains("97, 32, 115"), "{text}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn garbage_is_refused_without_a_panic(token in ".{0,200}") {
        let error = verifier().verify(&token).unwrap_err();
        prop_assert!(matches!(error.kind(), Malformed | TooLong));
    }

    #[test]
    fn near_misses_are_refused_without_a_panic(
        token in r"[A-Za-z0-9_-]{0,60}\.[A-Za-z0-9_-]{0,60}\.[A-Za-z0-9_-]{0,60}",
    ) {
        verifier().verify(&token).unwrap_err();
    }

    #[test]
    fn any_header_is_checked_without_a_panic(header in prop::collection::vec(any::<u8>(), 0..100)) {
        let header = header.iter().map(|&byte| char::from(byte)).collect::<String>();
        let _ = verifier().verify(&sign(&header, "{}")).unwrap_err();
    }

    #[test]
    fn no_changed_byte_passes(at in 0..200_usize, to in "[A-Za-z0-9_.-]") {
        let good = good();
        let at = at % good.len();
        let mut changed = good.clone();
        changed.replace_range(at..=at, &to);
        prop_assert_eq!(verifier().verify(&changed).is_ok(), changed == good);
    }

    #[test]
    fn what_is_cut_into_parts_can_be_put_together(token in "[A-Za-z0-9_.-]{0,40}") {
        let Ok(parts) = TokenParts::of(&token) else {
            prop_assert_ne!(token.matches('.').count(), 2);
            return Ok(());
        };
        let whole = format!("{}.{}.{}", parts.header, parts.payload, parts.signature);
        prop_assert_eq!(whole, token.clone());
        prop_assert_eq!(format!("{}.{}", parts.signing_input, parts.signature), token);
    }
    #[test]
    fn claims_that_are_signed_are_decoded_as_strictly_as_all_else(
        text in "[A-Za-z0-9_-]{0,400}", at in 0..400_usize, to in ".",
    ) {
        prop_assert_eq!(signed_base64(&text), base64(&text));
        let mut odd = text;
        let at = at % (odd.len() + 1);
        odd.insert_str(at, &to);
        prop_assert_eq!(signed_base64(&odd), base64(&odd));
    }
}
