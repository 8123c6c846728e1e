//! What every public error type says about its causes: each is shown once, and none is lost.

#[cfg(all(feature = "redis", feature = "jwks", feature = "issuer", feature = "axum"))]
use std::collections::BTreeSet;
use std::error::Error;
use std::io;

use tower_jwt_revocation::revocation::TargetKind;
use tower_jwt_revocation::revoker::{ConfirmError, RevokeError};
use tower_jwt_revocation::store::{RevokedBy, StoreError, StoreErrorKind};
use tower_jwt_revocation::token::{CredentialsError, TokenError, TokenErrorKind};
use tower_jwt_revocation::{
    ConfigError, MemoryStore, Rejection, Revoker, Target, TokenProfile, VerifierConfig,
};

#[cfg(feature = "axum")]
use {
    crate::support::{Around, WordVerifier, token, with_token},
    axum::extract::FromRequestParts as _,
    http::Request,
    std::convert::Infallible,
    std::sync::Arc,
    tower::{Layer as _, ServiceExt as _, service_fn},
    tower_jwt_revocation::middleware::ExtractError,
    tower_jwt_revocation::store::Lookup,
    tower_jwt_revocation::{Clearance, JwtRevocationLayer, VerifiedToken},
};

/// The innermost cause of each sample whose cause a test can choose.
const CAUSE: &str = "the disk is on fire";

fn cause() -> io::Error {
    io::Error::other(CAUSE)
}

fn store_error() -> StoreError {
    StoreError::new(StoreErrorKind::Other, "the store gave no answer").with_source(cause())
}

fn token_error(kind: TokenErrorKind) -> TokenError {
    TokenError::new(kind, "the verifier refuses the token").with_source(cause())
}

/// A setting that names a file which is not there.
fn config_error() -> ConfigError {
    let config = r#"{
        "issuers": ["*"], "audiences": ["*"], "algorithm": "HS256", "secret_file": "/nowhere/secret"
    }"#;
    serde_json::from_str::<VerifierConfig>(config).unwrap().verifier().unwrap_err()
}

/// What an extractor says where the layer reports only, and could not ask the store.
#[cfg(feature = "axum")]
async fn extract_error() -> ExtractError {
    let store = Around(MemoryStore::new(), |_: &MemoryStore, _: &Arc<VerifiedToken>| {
        Lookup::Now(Err(store_error()))
    });
    let handler = service_fn(async |request: Request<String>| {
        let (mut parts, _) = request.into_parts();
        let error = Clearance::from_request_parts(&mut parts, &()).await.unwrap_err();
        let mut response = http::Response::new(String::new());
        response.extensions_mut().insert(error);
        Ok::<_, Infallible>(response)
    });
    let layer = JwtRevocationLayer::new(WordVerifier::default(), store).with_report_only();
    let mut response =
        layer.layer(handler).oneshot(with_token(&token("alice", "1"))).await.unwrap();
    response.extensions_mut().remove().unwrap()
}

/// Samples of each type, by its name.
async fn samples() -> Vec<(&'static str, Box<dyn Error>)> {
    let mut samples: Vec<(&'static str, Box<dyn Error>)> = Vec::new();
    let mut add = |name, error: Box<dyn Error>| samples.push((name, error));

    add("StoreError", store_error().into());
    add(
        "StoreError",
        StoreError::new(StoreErrorKind::Other, "outer").with_source(store_error()).into(),
    );
    add("TokenError", token_error(TokenErrorKind::Other).into());
    add("ConfigError", config_error().into());

    let revoker = Revoker::new(MemoryStore::new(), TokenProfile::new()).unwrap();
    add("RevokeError", RevokeError::Token(token_error(TokenErrorKind::Other)).into());
    add("RevokeError", RevokeError::Store(store_error()).into());
    let receipt = revoker.revoke(Target::user("alice")).await.unwrap();
    add("ConfirmError", ConfirmError::Write(store_error()).into());
    let mirrors = vec!["a".into(), "b".into()];
    add("ConfirmError", ConfirmError::Behind { receipt: receipt.clone(), mirrors }.into());
    add("ConfirmError", ConfirmError::Unknown { receipt, error: store_error() }.into());

    for rejection in [
        Rejection::NoCredentials,
        Rejection::BadRequest(CredentialsError::Repeated),
        Rejection::InvalidToken(token_error(TokenErrorKind::Other)),
        Rejection::NoKeys(token_error(TokenErrorKind::NoKeys)),
        Rejection::Revoked(RevokedBy::new(TargetKind::User)),
        Rejection::StandingUnknown(store_error()),
    ] {
        add("Rejection", rejection.into());
    }

    #[cfg(feature = "redis")]
    {
        use tower_jwt_revocation::RedisStore;
        use tower_jwt_revocation::store::redis::{ConnectError, Start};

        add("ConnectError", ConnectError::Config(config_error()).into());
        add("ConnectError", ConnectError::Store(store_error()).into());
        // Nobody listens: the words are those of fred, and of the system.
        let builder = RedisStore::builder().with_url(nobody("redis")).with_start(Start::AtOnce);
        let error = builder.connect().await.unwrap_err();
        if let ConnectError::Store(error) = &error {
            add("StoreError", error.clone().into());
        }
        add("ConnectError", error.into());
        let odd = RedisStore::builder().with_url("redis://localhost:port");
        add("ConnectError", odd.connect().await.unwrap_err().into());
    }

    #[cfg(feature = "jwks")]
    {
        use tower_jwt_revocation::token::jwks::{Jwks, JwksError};

        let url = nobody("http");
        let nobody = Jwks::at(&url).unwrap().with_plain_http_on_loopback();
        add("JwksError", nobody.fetch().await.unwrap_err().into());
        add("JwksError", JwksError::from(config_error()).into());
        let broken = Jwks::at("https://id.example/").unwrap();
        let broken =
            broken.with_transport(|_| async { Err::<http::Response<Vec<u8>>, _>(cause()) });
        add("JwksError", broken.fetch().await.unwrap_err().into());
        let der = "-----BEGIN CERTIFICATE-----\naGk=\n-----END CERTIFICATE-----\n";
        let jwks = Jwks::at("https://id.example/").unwrap();
        add("ConfigError", jwks.with_root_certificates(der.as_bytes()).unwrap_err().into());
    }

    #[cfg(all(feature = "issuer", any(feature = "aws_lc_rs", feature = "rust_crypto")))]
    {
        use tower_jwt_revocation::token::issue::{IssueError, NewToken};
        use tower_jwt_revocation::token::jwt::SigningKey;
        use tower_jwt_revocation::{Algorithm, TokenIssuer};

        let key = SigningKey::from_secret(Algorithm::HS256, &[7; 32]).unwrap();
        let profile = TokenProfile::new().with_issuer("https://id.example");
        let issuer = TokenIssuer::new(key, profile).unwrap();
        let refused = issuer.issue(&NewToken::new("a".repeat(2000))).unwrap_err();
        assert!(matches!(refused, IssueError::Refused(_)), "{refused:?}");
        add("IssueError", refused.into());
    }

    #[cfg(feature = "axum")]
    {
        let (mut parts, ()) = Request::new(()).into_parts();
        let error = Clearance::from_request_parts(&mut parts, &()).await.unwrap_err();
        add("ExtractError", error.into());
        add("ExtractError", extract_error().await.into());
    }
    samples
}

/// A URL of a port that is closed.
#[cfg(any(feature = "redis", feature = "jwks"))]
fn nobody(scheme: &str) -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    format!("{scheme}://{}/", listener.local_addr().unwrap())
}

/// The texts of an error and of its causes, outermost first.
fn chain(error: &dyn Error) -> Vec<String> {
    let mut texts = vec![error.to_string()];
    let mut cause = error.source();
    while let Some(error) = cause {
        texts.push(error.to_string());
        cause = error.source();
    }
    texts
}

/// A part of several words that two texts share. Single words, such as the name of a setting, may
/// be needed in both.
fn repeated<'a>(one: &'a str, other: &'a str) -> Option<&'a str> {
    let parts = |text: &'a str| text.split(": ").filter(|part| part.contains(' '));
    let found = parts(one).find(|part| other.contains(part));
    found.or_else(|| parts(other).find(|part| one.contains(part)))
}

#[tokio::test]
async fn no_error_shows_a_cause_twice_or_loses_it() {
    for (name, error) in samples().await {
        let texts = chain(&*error);
        for (at, text) in texts.iter().enumerate() {
            assert!(!text.is_empty(), "{name}: {texts:?}");
            for earlier in texts.iter().take(at) {
                assert_eq!(repeated(earlier, text), None, "{name}: {texts:?}");
            }
        }
        let shown = texts.join(": ");
        let times = shown.matches(CAUSE).count();
        let is_ours = format!("{error:?}").contains(CAUSE);
        assert_eq!(times, usize::from(is_ours), "{name}: {texts:?}");
        // What a `main` shows that returns it.
        if matches!(name, "ConfigError" | "ConnectError" | "JwksError") {
            assert_eq!(format!("{error:?}"), shown);
        }
    }
}

#[test]
fn the_rule_sees_what_it_is_about() {
    assert_eq!(repeated("redis: no route", "IO Error: no route"), Some("no route"));
    assert_eq!(repeated("redis cannot be used: no route", "no route"), Some("no route"));
    assert_eq!(repeated("no route", "Os { message: \"no route\" }"), Some("no route"));
    assert_eq!(repeated("issuer: is empty", "issuer: has a slash"), None);
}

/// A new error type must be added to the samples, unless it never has a cause.
#[cfg(all(feature = "redis", feature = "jwks", feature = "issuer", feature = "axum"))]
#[tokio::test]
async fn every_error_type_of_the_crate_has_a_sample() {
    let mut files = Vec::new();
    collect(&std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut files);
    let mut types = BTreeSet::new();
    for file in files {
        for line in file.lines().map(str::trim) {
            let Some((start, rest)) = line.split_once("Error for ") else { continue };
            let is_error = ["impl ", "impl std::error::", "impl core::error::", "impl error::"]
                .contains(&start);
            if is_error && !rest.ends_with("{}") {
                types.insert(rest.trim_end_matches(" {").to_owned());
            }
        }
    }
    assert!(types.len() >= 9, "{types:?}");
    let sampled: BTreeSet<_> =
        samples().await.into_iter().map(|(name, _)| name.to_owned()).collect();
    assert_eq!(types, sampled);
}

#[cfg(all(feature = "redis", feature = "jwks", feature = "issuer", feature = "axum"))]
fn collect(folder: &std::path::Path, files: &mut Vec<String>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(std::fs::read_to_string(path).unwrap());
        }
    }
}
