//! What is told at the start, and the keys.

use std::io::Read as _;
use std::process::Stdio;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::support::{self};
use serde_json::Value;

use crate::server::*;

/// A modulus as the library of Infineon made them (CVE-2017-15361).
const ROCA: &str = "omeUvBC2SApTT6UCCE56Xh3iCzqiMFwncfQJJkuMrRuL5mKR8a2Mgnqpe-6-PWSOKywPV6qwwQulQztko_nTKYvhuTs4IO4wr18PS8rk_kleGAVCm7_D4SWnenktnTbNpYljUIxC57bS84MjVMmWJoEpWKy5i-fTeD3qfiyk72RRfZOhsaNAox2O84x9hUgEZQFhbuXx2dl4FPklNsAh9One19lggsEWzUOHBGLixvsX_YpwUbw8HZE0F5TrRrLV80JMxNg6TDTW_kRRWWLV7dO00g8iLf50SqTavbLK-9fA0gNSUp8WKzjA_QthPaAZ3blRRYOFIuWa9wiegSTslw";

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
    let tls = ("AUTH_REDIS_URL", "rediss://127.0.0.1:1");
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
        (vec![redis, url, ("AUTH_REDIS_CA_FILE", "/nowhere/ca.pem")], "AUTH_REDIS_CA_FILE"),
        (vec![redis, tls, ("AUTH_REDIS_CA_FILE", "/nowhere/ca.pem")], "AUTH_REDIS_CA_FILE"),
        (vec![redis, tls, ("AUTH_REDIS_CLIENT_CERT_FILE", "/x")], "AUTH_REDIS_CLIENT_KEY_FILE"),
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
        // The content in place of the name of a file is not told.
        (vec![("AUTH_JWKS", key)], "AUTH_JWKS"),
        (vec![("AUTH_ADMIN_TOKEN", "secret\n")], "AUTH_ADMIN_TOKEN"),
        (vec![("AUTH_ADMIN_TOKEN", "schlüssel")], "AUTH_ADMIN_TOKEN"),
        (vec![("AUTH_RESOURCE", "https://api.example/:tenant")], "AUTH_RESOURCE"),
        (vec![("AUTH_RESOURCE", "https://api.example/{tenant}")], "AUTH_RESOURCE"),
        (vec![("AUTH_RESOURCE", "https://api.example/*rest")], "AUTH_RESOURCE"),
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

/// Keys that would let others sign, or that mean one thing here and another thing elsewhere.
#[test]
fn keys_that_are_not_safe_are_refused_at_the_start() {
    let dir = Dir::new();
    let jwk = |kid: &str, secret: &[u8]| {
        let k = URL_SAFE_NO_PAD.encode(secret);
        format!(r#"{{"kty":"oct","kid":"{kid}","alg":"HS256","k":"{k}"}}"#)
    };
    let (key, other) = (jwk("k1", &[7; 32]), jwk("k2", &[8; 32]));
    let set = |keys: &[&str]| format!(r#"{{"keys":[{}]}}"#, keys.join(","));
    let public = format!("\n{}", include_str!("../keys/ed25519.pub.pem"));
    let hex: Vec<_> = public.bytes().map(|byte| format!("{byte:02x}")).collect();
    let hex = hex.concat();
    let roca = format!(r#"{{"kty":"RSA","kid":"r","alg":"RS256","e":"AQAB","n":"{ROCA}"}}"#);
    let twice = other.replace('}', r#","kid":"k3"}"#);
    for (json, reason) in [
        (set(&[&key, &jwk("k1", &[8; 32])]), "key `k1`: another key has this `kid`"),
        (set(&[&key, &jwk("k2", &[7; 32])]), "`k1` and `k2` are the same secret"),
        (set(&[&key, &twice]), "a member twice"),
        (set(&[&key]).replace(']', &format!(r#"],"keys":[{other}]"#)), "a member twice"),
        (set(&[&jwk("k1", public.as_bytes())]), "not a secret"),
        (set(&[&key, &jwk("k2", public.as_bytes())]), "not a secret"),
        (set(&[&key, &jwk("k2", hex.as_bytes())]), "not a secret"),
        (set(&[&key, &roca]), "ROCA"),
    ] {
        std::fs::write(dir.path("jwks.json"), &json).unwrap();
        let mut child = command(&dir, &[]).stderr(Stdio::piped()).spawn().unwrap();
        let mut status = None;
        support::wait_until(reason, Duration::from_secs(5), || {
            status = child.try_wait().unwrap();
            status.is_some()
        });
        let mut err = String::new();
        child.stderr.take().unwrap().read_to_string(&mut err).unwrap();
        assert!(!status.unwrap().success(), "{json}");
        assert!(err.contains("AUTH_JWKS") && err.contains(reason), "{reason}: {err}");
    }
    // What is asked of them is not more than that.
    std::fs::write(dir.path("jwks.json"), format!("\u{feff}{}", set(&[&key, &other]))).unwrap();
    drop(Server::start_in(&dir, &[]));
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

#[tokio::test]
async fn a_redis_with_an_authority_of_its_own_that_wants_certificates() {
    support::redis_or_skip!();
    if !cfg!(any(feature = "rustls", feature = "native-tls")) || !support::server_has_tls() {
        return;
    }
    let redis = support::RedisServer::builder().tls(true).start();
    let files = redis.tls();
    let path = |path: &std::path::Path| path.to_str().unwrap().to_owned();
    let [ca, certificate, key] =
        [&files.ca, &files.client_cert, &files.client_key].map(|it| path(it));
    let server = Server::on(
        &redis,
        &[
            ("AUTH_REDIS_CA_FILE", &*ca),
            ("AUTH_REDIS_CLIENT_CERT_FILE", &*certificate),
            ("AUTH_REDIS_CLIENT_KEY_FILE", &*key),
        ],
    );
    let tokens = server.login("alice").await;
    server.protected(&tokens.access).await.is(200);
    // Without them it runs, and says in its log what is missing.
    let server = Server::on(&redis, &[]);
    let start = std::time::Instant::now();
    while !server.logs().contains("REDIS_CA_FILE") {
        assert!(start.elapsed() < Duration::from_secs(60), "{}", server.logs());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
