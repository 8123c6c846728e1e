use http::{HeaderValue, Request};
use proptest::prelude::*;

use super::*;
use CredentialsError::*;

const TOKEN: &str = "abc.def.ghi";

fn request(fields: &[(&str, &[u8])]) -> Request<()> {
    let mut request = Request::new(());
    for (name, value) in fields {
        let name = http::HeaderName::from_bytes(name.as_bytes()).unwrap();
        request.headers_mut().append(name, HeaderValue::from_bytes(value).unwrap());
    }
    request
}

#[track_caller]
fn assert_found(
    sources: &[TokenSource],
    fields: &[(&str, &[u8])],
    expected: Result<Option<&str>, CredentialsError>,
) {
    let request = request(fields);
    let found = RequestHead::from(&request).token(sources);
    assert_eq!(
        found.as_ref().map(Option::as_deref).map_err(|error| *error),
        expected,
        "{fields:?}"
    );
}

fn cookie_source() -> TokenSource {
    TokenSource::cookie("token").unwrap()
}

#[test]
fn the_authorization_field() {
    let assert = |value: &[u8], expected| {
        assert_found(&[TokenSource::bearer()], &[("authorization", value)], expected);
    };
    for scheme in ["Bearer", "bearer", "BEARER", "bEaReR"] {
        assert(format!("{scheme} {TOKEN}").as_bytes(), Ok(Some(TOKEN)));
    }
    assert(b"Bearer    abc.def.ghi", Ok(Some(TOKEN)));
    assert(b"Bearer aZ09-._~+/==", Ok(Some("aZ09-._~+/==")));
    // Another scheme is someone else's.
    for other in [
        &b"Basic YTpi"[..],
        b"DPoP abc",
        b"Bearer2 abc",
        b"Bearer-x abc",
        b"Bear",
        b"",
        b"Basic \xff",
    ] {
        assert(other, Ok(None));
    }
    for malformed in [
        &b"Bearer"[..],
        b"Bearer ",
        b"Bearer  ",
        b"Bearer\tabc",
        b"Bearer \tabc",
        b"Bearer,abc",
        b"Bearer=abc",
        b"Bearer:abc",
        b"Bearer abc def",
        b"Bearer abc ",
        b"Bearer abc,def",
        b"Bearer abc, Bearer def",
        b"Bearer abc,",
        b"Bearer \"abc\"",
        b"Bearer token=abc",
        b"Bearer =",
        b"Bearer a=b",
        b"Bearer a;b",
        b"Bearer a%20b",
        b"Bearer ab\xc3\xa9",
        b"Bearer \xff\xfe",
        b"Bearer\xff abc",
        b"Bearer Bearer abc",
    ] {
        assert(malformed, Err(Malformed));
    }
    let long = format!("Bearer {}", "a".repeat(100_000));
    assert(long.as_bytes(), Ok(Some(&long[7..])));
}

#[test]
fn what_is_too_long_is_not_looked_at_wherever_it_is() {
    let custom = TokenSource::custom(|head| head.headers().get("x")?.to_str().ok().map(Into::into));
    for (source, name, prefix) in [
        (TokenSource::bearer(), "authorization", "Bearer "),
        (TokenSource::dpop(), "authorization", "DPoP "),
        (cookie_source(), "cookie", "a=b; token="),
        (custom, "x", ""),
    ] {
        // None of these would be read, were they not too long.
        for (text, is_too_long) in [("a,b", false), ("a,bc", true), ("abc", false), ("abcd", true)]
        {
            let request = request(&[(name, format!("{prefix}{text}").as_bytes())]);
            let found = RequestHead::from(&request).token_within(3, std::slice::from_ref(&source));
            assert_eq!(matches!(found, Err(NoToken::TooLong)), is_too_long, "{source:?} {text}");
        }
    }
}

#[test]
fn two_authorization_fields_are_one_too_many() {
    let sources = [TokenSource::bearer()];
    let bearer: (&str, &[u8]) = ("authorization", b"Bearer abc");
    assert_found(&sources, &[], Ok(None));
    assert_found(&sources, &[bearer, bearer], Err(Repeated));
    assert_found(&sources, &[bearer, ("authorization", b"Basic YTpi")], Err(Repeated));
    assert_found(&sources, &[("authorization", b""), bearer], Err(Repeated));
}

#[test]
fn cookies() {
    let assert = |values: &[&[u8]], expected| {
        let fields: Vec<_> = values.iter().map(|value| ("cookie", *value)).collect();
        assert_found(&[cookie_source()], &fields, expected);
    };
    assert(&[b"token=abc"], Ok(Some("abc")));
    assert(&[b"a=1; token=abc; b=2"], Ok(Some("abc")));
    assert(&[b"a=1;token=abc ;b"], Ok(Some("abc")));
    assert(&[b"token=\"abc\""], Ok(Some("abc")));
    assert(&[b"a=1", b"token=abc"], Ok(Some("abc")));
    assert(&[b"token=a=b"], Err(Malformed));
    // Not ours
    assert(&[b"Token=abc; xtoken=abc; tokens=abc; token; =token"], Ok(None));
    assert(&[b"a=\xff\xfe; token=abc"], Ok(Some("abc")));
    // Deleted
    assert(&[b"token="], Ok(None));
    assert(&[b"token=\"\""], Ok(None));
    // Planted by a sibling domain, or in two fields
    assert(&[b"token=abc; token=abc"], Ok(Some("abc")));
    assert(&[b"token=abc; token=def"], Err(Conflicting));
    assert(&[b"token=abc", b"token=def"], Err(Conflicting));
    for malformed in [
        &b"token=a b"[..],
        b"token=\"abc",
        b"token=abc\"",
        b"token=\xff",
        b"token=a,b",
        b"token=\"",
    ] {
        assert(&[malformed], Err(Malformed));
    }
}

#[test]
fn names_of_cookies_are_checked() {
    for name in ["", "a b", "a=b", "a;b", "ä", "a\n", "\"a\""] {
        assert_eq!(TokenSource::cookie(name).unwrap_err().setting(), "cookie", "{name}");
    }
    TokenSource::cookie("__Host-token").unwrap();
}

#[test]
fn two_places_may_agree_but_not_differ() {
    let sources = [TokenSource::bearer(), cookie_source()];
    let bearer: (&str, &[u8]) = ("authorization", b"Bearer abc");
    assert_found(&sources, &[bearer], Ok(Some("abc")));
    assert_found(&sources, &[("cookie", b"token=abc")], Ok(Some("abc")));
    assert_found(&sources, &[bearer, ("cookie", b"token=abc")], Ok(Some("abc")));
    assert_found(&sources, &[bearer, ("cookie", b"token=def")], Err(Conflicting));
    assert_found(&sources, &[bearer, ("cookie", b"token=a b")], Err(Malformed));
    assert_found(&[], &[bearer], Ok(None));
}

#[test]
fn a_custom_source_sees_the_whole_head() {
    #[derive(Clone)]
    struct FromOutside(String);

    let sources = [
        TokenSource::custom(|head| head.headers().get("x-token")?.to_str().ok().map(Into::into)),
        TokenSource::custom(|head| {
            head.uri().query()?.strip_prefix("t=").map(|token| token.to_uppercase().into())
        }),
        TokenSource::custom(|head| {
            head.extensions().get::<FromOutside>().map(|token| token.0.as_str().into())
        }),
    ];
    assert_found(&sources, &[("x-token", b"abc")], Ok(Some("abc")));
    assert_found(&sources, &[("x-token", b"\xff")], Ok(None));
    assert_found(&sources, &[("x-token", b"")], Err(Malformed));
    let mut request = Request::builder().uri("/?t=abc").body(()).unwrap();
    assert_eq!(RequestHead::from(&request).token(&sources).unwrap().as_deref(), Some("ABC"));
    request.extensions_mut().insert(FromOutside("abc".into()));
    assert_eq!(RequestHead::from(&request).token(&sources), Err(Conflicting));
    let (parts, ()) = request.into_parts();
    assert_eq!(RequestHead::from(&parts).token(&sources[1..2]).unwrap().as_deref(), Some("ABC"));
}

#[test]
fn a_bearer_token_is_borrowed_from_the_request() {
    let request = request(&[("authorization", b"Bearer abc")]);
    let found = RequestHead::from(&request).token(&[TokenSource::bearer()]).unwrap();
    assert!(matches!(found, Some(Cow::Borrowed(_))));
}

#[test]
fn debug_shows_no_credentials() {
    let mut request =
        request(&[("authorization", b"Bearer canary7"), ("cookie", b"token=canary7")]);
    *request.uri_mut() = "/path?token=canary7".parse().unwrap();
    let text =
        format!("{:?} {:?}", RequestHead::from(&request), [TokenSource::bearer(), cookie_source()]);
    assert!(text.contains("/path") && !text.contains("canary7"), "{text}");
}

proptest! {
    #[test]
    fn any_bytes_are_checked_without_a_panic(authorization in bytes(), cookie in bytes()) {
        let request = request(&[("authorization", &authorization), ("cookie", &cookie)]);
        let sources = [TokenSource::bearer(), TokenSource::cookie("a").unwrap()];
        if let Ok(Some(token)) = RequestHead::from(&request).token(&sources) {
            prop_assert!(!token.is_empty() && token.is_ascii());
            prop_assert!(!token.contains([' ', ',', ';', '"']));
        }
    }

    #[test]
    fn every_token68_is_found(token in "[A-Za-z0-9._~+/-]{1,80}={0,2}") {
        let request = request(&[("authorization", format!("Bearer {token}").as_bytes())]);
        let found = RequestHead::from(&request).token(&[TokenSource::bearer()]).unwrap();
        prop_assert_eq!(found.as_deref(), Some(&*token));
    }
}

/// What may stand in a field: anything but control characters (RFC 9110 §5.5). Mostly what matters
/// here.
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![
        Just(b' '),
        Just(b'='),
        Just(b'a'),
        Just(b'"'),
        Just(b';'),
        0x20..0x7f_u8,
        0x80..=0xff_u8
    ];
    (prop_oneof![Just("Bearer "), Just("a="), Just("")], prop::collection::vec(byte, 0..40))
        .prop_map(|(start, rest)| [start.as_bytes(), &rest].concat())
}
