//! What is told at the start, and the keys.

use std::io::Read as _;
use std::process::Stdio;
use std::time::Duration;

use crate::support::{self};
use serde_json::Value;

use crate::server::*;

#[test]
fn bad_configuration_is_told_at_once_and_by_name() {
    let dir = Dir::new();
    let file = |name: &str, text: &str| {
        std::fs::write(dir.path(name), text).unwrap();
        dir.path(name)
    };
    let key = r#"{"kty":"oct","kid":"k1","alg":"HS256","k":"BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc"}"#;
    let weak = file("weak", r#"{"keys":[{"kty":"oct","kid":"k","alg":"HS256","k":"BwcHBw"}]}"#);
    let twice = file("twice", &format!(r#"{{"keys":[{key},{key}]}}"#));
    let no_kid = file("no_kid", r#"{"keys":[{"kty":"oct","alg":"HS256","k":"BwcHBw"}]}"#);
    let no_alg = file("no_alg", &key.replace(r#""alg":"HS256","#, ""));
    let wrong_alg =
        file("wrong_alg", &format!(r#"{{"keys":[{}]}}"#, key.replace("HS256", "RS256")));
    let empty = file("empty", r#"{"keys":[]}"#);
    let no_json = file("no_json", "BwcHBw");
    let public = file(
        "public",
        r#"{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"p","alg":"EdDSA","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#,
    );
    // Beside the key that signs, one that could not check anything, or anything at all.
    let with = |name: &str, jwk: &str| file(name, &format!(r#"{{"keys":[{key},{jwk}]}}"#));
    let off_curve = with(
        "off_curve",
        r#"{"kty":"EC","crv":"P-256","kid":"e","alg":"ES256","x":"axfR8uEsQkf4vOblY6RA8ncDfYEt6zOg9KE5RdiYwpY","y":"T-NC4v4af5uO5-tKfA-eFivOM1drMV7Oy7ZAaDe_UfQ"}"#,
    );
    let neutral = with(
        "neutral",
        r#"{"kty":"OKP","crv":"Ed25519","kid":"n","alg":"EdDSA","x":"AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}"#,
    );
    let redis = ("AUTH_STORE", "redis");
    let url = ("AUTH_REDIS_URL", "redis://127.0.0.1:1");
    for (env, name) in [
        (vec![("AUTH_JWKS", "")], "AUTH_JWKS"),
        (vec![("AUTH_JWKS", "/nowhere/jwks.json")], "AUTH_JWKS"),
        (vec![("AUTH_JWKS", &*weak)], "AUTH_JWKS"),
        (vec![("AUTH_JWKS", &*twice)], "AUTH_JWKS"),
        (vec![("AUTH_JWKS", &*no_kid)], "AUTH_JWKS"),
        (vec![("AUTH_JWKS", &*no_alg)], "AUTH_JWKS"),
        (vec![("AUTH_JWKS", &*wrong_alg)], "AUTH_JWKS"),
        (vec![("AUTH_JWKS", &*empty)], "AUTH_JWKS"),
        (vec![("AUTH_JWKS", &*no_json)], "AUTH_JWKS"),
        (vec![("AUTH_JWKS", &*public)], "AUTH_JWKS"),
        (vec![("AUTH_JWKS", &*off_curve)], "AUTH_JWKS"),
        (vec![("AUTH_JWKS", &*neutral)], "AUTH_JWKS"),
        (vec![("AUTH_SIGN_KID", "k2")], "AUTH_SIGN_KID"),
        (vec![("AUTH_LISTEN", "localhost")], "AUTH_LISTEN"),
        (vec![("AUTH_LISTEN", "192.0.2.1:80")], "AUTH_LISTEN"),
        (vec![("AUTH_GRPC", "80")], "AUTH_GRPC"),
        (vec![("AUTH_STORE", "disk")], "AUTH_STORE"),
        (vec![redis], "AUTH_REDIS_URL"),
        (vec![redis, ("AUTH_REDIS_URL", "http://127.0.0.1")], "AUTH_REDIS_URL"),
        (vec![redis, ("AUTH_REDIS_URL", "redis-sentinel://127.0.0.1:1")], "AUTH_REDIS_URL"),
        (vec![redis, url, ("AUTH_KEY_PREFIX", "a b")], "AUTH_KEY_PREFIX"),
        (vec![redis, url, ("AUTH_WAIT_REPLICAS", "1"), ("AUTH_WAIT_MS", "250")], "AUTH_WAIT_MS"),
        (vec![("AUTH_REDIS_TIMEOUT_MS", "0")], "AUTH_REDIS_TIMEOUT_MS"),
        (vec![("AUTH_REDIS_TIMEOUT_MS", "fast")], "AUTH_REDIS_TIMEOUT_MS"),
        (vec![("AUTH_CHECK", "sometimes")], "AUTH_CHECK"),
        (vec![("AUTH_MAX_STALENESS_MS", "-1")], "AUTH_MAX_STALENESS_MS"),
        (vec![("AUTH_ON_OUTAGE", "ajar")], "AUTH_ON_OUTAGE"),
        (vec![("AUTH_LEEWAY_S", "301")], "AUTH_LEEWAY_S"),
        (vec![("AUTH_ACCESS_TTL_S", "0")], "AUTH_ACCESS_TTL_S"),
        (vec![("AUTH_ACCESS_TTL_S", "90000")], "AUTH_ACCESS_TTL_S"),
        (vec![("AUTH_REFRESH_TTL_S", "0")], "AUTH_REFRESH_TTL_S"),
        (vec![("AUTH_MAX_TOKEN_TTL_S", "x")], "AUTH_MAX_TOKEN_TTL_S"),
        (vec![("AUTH_REFRESH_GRACE_S", "-1")], "AUTH_REFRESH_GRACE_S"),
        (vec![("AUTH_FAMILY_MAX_S", "0")], "AUTH_FAMILY_MAX_S"),
        (vec![("AUTH_REALM", "a\nb")], "AUTH_REALM"),
        (vec![("AUTH_MAX_TOKEN_BYTES", "1")], "AUTH_MAX_TOKEN_BYTES"),
        (vec![("AUTH_AUDIT", "/nowhere/audit.log")], "AUTH_AUDIT"),
    ] {
        let mut child =
            command(&dir, &env).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut status = None;
        support::wait_until(&format!("{env:?} is refused"), Duration::from_secs(5), || {
            status = child.try_wait().unwrap();
            status.is_some()
        });
        let (mut out, mut err) = (String::new(), String::new());
        child.stdout.take().unwrap().read_to_string(&mut out).unwrap();
        child.stderr.take().unwrap().read_to_string(&mut err).unwrap();
        assert!(!status.unwrap().success(), "{env:?}");
        assert!(out.is_empty(), "{env:?}: {out}");
        assert!(err.contains(name), "{env:?}: {err}");
        assert!(!err.contains("BwcHBw"), "{env:?}: {err}");
    }
}

#[tokio::test]
async fn every_kind_of_key_verifies_and_signs() {
    // The keys next to it, as a set.
    let json = include_str!("../keys/auth_server_jwks.json");
    let set: Value = serde_json::from_str(json).unwrap();
    let dir = Dir::new();
    std::fs::write(dir.path("jwks.json"), json).unwrap();
    let kids: Vec<_> =
        set["keys"].as_array().unwrap().iter().map(|key| key["kid"].as_str().unwrap()).collect();
    assert_eq!(kids, ["hs", "rs", "es", "ed"]);
    let mut minted = Vec::new();
    for kid in &kids {
        let server = Server::start_in(&dir, &[("AUTH_SIGN_KID", kid)]);
        let tokens = server.login("alice").await;
        server.protected(&tokens.access).await.is(200);
        minted.push(tokens.access);
        for token in &minted {
            server.protected(token).await.is(200);
        }
        // Several keys: one must be named.
        server.protected(&foreign_with(&claims("alice", "a"), |_| {})).await.is_invalid_token();
    }
}
