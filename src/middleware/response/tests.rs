use super::*;
use crate::revocation::TargetKind;
use crate::store::{RevokedBy, StoreError};
use crate::token::{CredentialsError, TokenError};

fn rejections() -> Vec<Rejection> {
    let mut all = vec![
        Rejection::NoCredentials,
        Rejection::BadRequest(CredentialsError::Malformed),
        Rejection::BadRequest(CredentialsError::Repeated),
        Rejection::BadRequest(CredentialsError::Conflicting),
        Rejection::Revoked(RevokedBy::new(TargetKind::User)),
        Rejection::StandingUnknown(StoreError::new(StoreErrorKind::Timeout, "no answer")),
        Rejection::StandingUnknown(StoreError::new(StoreErrorKind::Settling, "a failover")),
        Rejection::InDoubt(StoreError::new(StoreErrorKind::DataLoss, "it was flushed")),
        Rejection::from(TokenError::new(TokenErrorKind::NoKeys, "no keys")),
    ];
    for kind in [TokenErrorKind::Expired, TokenErrorKind::NotYetValid, TokenErrorKind::BadSignature]
    {
        all.push(Rejection::InvalidToken(TokenError::new(kind, "a reason for the operator")));
    }
    all
}

fn challenge(heads: &RefusalHeads, kind: RejectionKind) -> String {
    let head = heads.http_head(kind, false);
    head.headers.get(header::WWW_AUTHENTICATE).unwrap().to_str().unwrap().to_owned()
}

fn grpc_head(heads: &RefusalHeads, kind: RejectionKind) -> Parts {
    let mut head = empty_head();
    heads.write_grpc(&mut head, kind, HeaderValue::from_static("application/grpc"));
    head
}

#[test]
fn every_text_is_made_of_characters_that_need_no_escaping_anywhere() {
    for rejection in rejections() {
        let kind = rejection.kind();
        for text in [Some(Row::of(kind).message), description(kind)].into_iter().flatten() {
            let is_plain =
                |char: char| matches!(char, ' '..='~') && !matches!(char, '"' | '\\' | '%');
            assert!(text.chars().all(is_plain), "{text}");
        }
    }
}

#[test]
fn the_realm_is_escaped_or_refused() {
    let mut heads = RefusalHeads::new();
    heads.set_realm(r#"a "b" \c"#).unwrap();
    assert_eq!(challenge(&heads, RejectionKind::NoCredentials), r#"Bearer realm="a \"b\" \\c""#);
    for bad in ["", "a\r\nset-cookie: x", "tab\t", "é", "\u{7f}"] {
        let error = heads.set_realm(bad).unwrap_err();
        assert_eq!(error.setting(), "realm");
        assert!(!error.to_string().contains("cookie"), "{error}");
    }
}

#[test]
fn the_metadata_url_is_part_of_every_challenge_or_refused() {
    let mut heads = RefusalHeads::new();
    heads
        .set_resource_metadata("https://api.example/.well-known/oauth-protected-resource")
        .unwrap();
    let start = "Bearer realm=\"api\", \
        resource_metadata=\"https://api.example/.well-known/oauth-protected-resource\"";
    let has_challenge = |rejection: &&Rejection| {
        !matches!(rejection, Rejection::StandingUnknown(_) | Rejection::NoKeys(_))
    };
    for rejection in rejections().iter().filter(has_challenge) {
        assert!(challenge(&heads, rejection.kind()).starts_with(start), "{rejection:?}");
    }
    heads.set_resource_metadata("http://localhost:8080/x").unwrap();
    for bad in [
        "",
        "/x",
        "api.example/x",
        "http://api.example/x",
        "ftp://api.example/",
        "https://a/#b",
        "https://a/\"x",
    ] {
        assert_eq!(
            heads.set_resource_metadata(bad).unwrap_err().setting(),
            "resource_metadata",
            "{bad}"
        );
    }
}

#[test]
fn descriptions_tell_apart_what_is_alike_without_them() {
    let mut heads = RefusalHeads::new();
    let expired = RejectionKind::InvalidToken(TokenErrorKind::Expired);
    let revoked = RejectionKind::Revoked(TargetKind::User);
    assert_eq!(challenge(&heads, expired), challenge(&heads, revoked));
    heads.set_describes();
    assert_eq!(
        challenge(&heads, revoked),
        "Bearer realm=\"api\", error=\"invalid_token\", \
         error_description=\"The access token was revoked\""
    );
    assert_eq!(
        challenge(&heads, expired),
        r#"Bearer realm="api", error="invalid_token", error_description="The access token expired""#
    );
    assert_eq!(
        challenge(&heads, RejectionKind::BadRequest),
        "Bearer realm=\"api\", error=\"invalid_request\", \
         error_description=\"The credentials are malformed or ambiguous\""
    );
    assert_eq!(challenge(&heads, RejectionKind::NoCredentials), r#"Bearer realm="api""#);
}

#[test]
fn retry_after_is_in_whole_seconds_rounded_up() {
    let mut heads = RefusalHeads::new();
    let kind = RejectionKind::StandingUnknown(StoreErrorKind::Timeout);
    for (after, http, grpc) in [
        (DEFAULT_RETRY_AFTER, "1", "1000"),
        (Duration::from_millis(1), "1", "1"),
        (Duration::from_millis(1001), "2", "1001"),
        (Duration::ZERO, "0", "0"),
        (Duration::MAX, "18446744073709551615", "2147483647"),
    ] {
        heads.set_retry_after(after);
        assert_eq!(heads.http_head(kind, false).headers[header::RETRY_AFTER], http);
        assert_eq!(grpc_head(&heads, kind).headers[GRPC_RETRY_PUSHBACK], grpc);
    }
}

#[test]
fn clients_of_a_store_that_settles_come_back_spread_over_one_to_three_seconds() {
    let mut heads = RefusalHeads::new();
    let kind = RejectionKind::StandingUnknown(StoreErrorKind::Settling);
    let after = |heads: &RefusalHeads| {
        let head = heads.http_head(kind, false);
        assert_eq!(head.status, StatusCode::SERVICE_UNAVAILABLE);
        assert!(!head.headers.contains_key(header::WWW_AUTHENTICATE));
        head.headers[header::RETRY_AFTER].to_str().unwrap().parse::<u64>().unwrap()
    };
    let pushback = |heads: &RefusalHeads| {
        let head = grpc_head(heads, kind);
        assert_eq!(head.headers[GRPC_STATUS], "14");
        head.headers[GRPC_RETRY_PUSHBACK].to_str().unwrap().parse::<u64>().unwrap()
    };
    let seen: Vec<_> = (0..300).map(|_| after(&heads)).collect();
    assert!(seen.iter().all(|secs| (1..=3).contains(secs)), "{seen:?}");
    assert!((1..=3).all(|secs| seen.contains(&secs)), "{seen:?}");
    let seen: Vec<_> = (0..300).map(|_| pushback(&heads)).collect();
    assert!(seen.iter().all(|millis| (1000..=3000).contains(millis)), "{seen:?}");
    assert!(seen.iter().any(|millis| *millis < 2000) && seen.iter().any(|millis| *millis > 2000));
    heads.set_retry_after(Duration::MAX);
    assert_eq!((after(&heads), pushback(&heads)), (u64::MAX, i32::MAX.unsigned_abs().into()));
}

#[test]
fn a_client_whose_token_is_in_doubt_for_good_is_always_told_to_sign_in_again() {
    let mut heads = RefusalHeads::new();
    for _ in 0..2 {
        let head = heads.http_head(RejectionKind::InDoubt, false);
        assert_eq!(head.status, StatusCode::UNAUTHORIZED);
        assert!(!head.headers.contains_key(header::RETRY_AFTER), "waiting does not help");
        let text = challenge(&heads, RejectionKind::InDoubt);
        let start = r#"Bearer realm="api", error="invalid_token", error_description=""#;
        assert!(text.starts_with(start) && text.ends_with(r#" Sign in again""#), "{text}");
        let head = grpc_head(&heads, RejectionKind::InDoubt);
        assert_eq!(head.headers[GRPC_STATUS], "16");
        assert!(head.headers[GRPC_MESSAGE].to_str().unwrap().ends_with("Sign in again"));
        assert!(!head.headers.contains_key(GRPC_RETRY_PUSHBACK));
        heads.set_describes();
    }
    heads.set_realm("orders").unwrap();
    assert!(challenge(&heads, RejectionKind::InDoubt).starts_with(r#"Bearer realm="orders", "#));
}

#[test]
fn grpc_is_told_by_the_content_type() {
    for (asked, answered) in [
        ("application/grpc", Some("application/grpc")),
        ("application/grpc+proto", Some("application/grpc")),
        ("Application/gRPC; charset=utf-8", Some("application/grpc")),
        ("application/grpc-web", Some("application/grpc-web")),
        ("application/grpc-web+proto", Some("application/grpc-web+proto")),
        ("application/grpc-web-text", Some("application/grpc-web-text")),
        ("application/grpc-web-texts", None),
        ("application/grpc-webs", None),
        ("application/grpcs", None),
        ("application/grp", None),
        ("application/json", None),
    ] {
        let headers =
            HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static(asked))]);
        let answer = grpc_content_type(&headers);
        assert_eq!(answer.as_ref().map(|value| value.to_str().unwrap()), answered, "{asked}");
    }
    assert_eq!(grpc_content_type(&HeaderMap::new()), None);
}

#[test]
fn a_problem_document_is_json_and_says_no_more_than_the_status() {
    for rejection in rejections() {
        let mut head = RefusalHeads::new().http_head(rejection.kind(), false);
        let body: Bytes = ProblemJson.body(&rejection, &mut head);
        let json: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(json["status"], head.status.as_u16());
        assert_eq!(json["title"], head.status.canonical_reason().unwrap());
        assert_eq!(head.headers[header::CONTENT_TYPE], "application/problem+json");
        assert!(!json["detail"].as_str().unwrap().contains("revoked"));
    }
}

#[test]
fn the_usual_challenges_are_the_default_ones() {
    let heads = RefusalHeads::new();
    assert_eq!([&heads.plain, &heads.invalid_request, &heads.invalid_token], USUAL);
}

/// The answer is written in the memory of the request, which is full of secrets.
#[test]
fn nothing_of_a_request_is_in_its_refusal() {
    let heads = Arc::new(RefusalHeads::new());
    let refusals = RefusalBuilder { heads: Arc::clone(&heads), body: Arc::new(()) };
    for content_type in ["text/plain", "application/grpc"] {
        for rejection in rejections() {
            let mut request = Request::builder()
                .header(header::AUTHORIZATION, "Bearer secret")
                .header(header::CONTENT_TYPE, content_type)
                .header(header::COOKIE, "one=1")
                .header(header::COOKIE, "two=2")
                .header(header::CACHE_CONTROL, "max-age=0")
                .header("grpc-status", "0")
                .extension(7_u64)
                .body(())
                .unwrap();
            request.headers_mut().append("x-of-the-client", HeaderValue::from_static("it"));
            let kind = rejection.kind();
            let response: Response<()> = refusals.refuse(rejection, request);
            let fresh = match content_type {
                "application/grpc" => grpc_head(&heads, kind),
                _ => heads.http_head(kind, false),
            };
            // How long to wait is drawn anew each time.
            if settling_delay(kind).is_none() {
                assert_eq!(*response.headers(), fresh.headers, "{kind:?}");
            }
            assert!(response.headers().keys().all(|name| fresh.headers.contains_key(name)));
            assert_eq!(response.status(), fresh.status);
            assert!(response.extensions().get::<u64>().is_none());
            assert_eq!(response.extensions().get::<Rejection>().unwrap().kind(), kind);
        }
    }
}
