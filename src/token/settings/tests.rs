use std::fs;
use std::path::PathBuf;

use super::*;
use crate::token::TokenVerifier as _;
use crate::token::jwt::Algorithm;

const BASE: [(&str, &str); 2] = [("JWT_ISSUERS", "https://id.example"), ("JWT_AUDIENCES", "orders")];
const SECRET: &str = "hunter2-hunter2-hunter2-hunter2-";

fn from(vars: &[(&str, &str)]) -> Result<VerifierConfig, ConfigError> {
    let find =
        |name: &str| Ok(vars.iter().rfind(|(known, _)| *known == name).map(|(_, value)| (*value).into()));
    VerifierConfig::from_vars(&Vars::new(&find))
}

fn verifier(vars: &[(&str, &str)]) -> Result<JwtVerifier, ConfigError> {
    from(&[&BASE[..], vars].concat())?.verifier()
}

#[track_caller]
fn assert_names(vars: &[(&str, &str)], setting: &str, remedy: &str) {
    let error = verifier(vars).unwrap_err();
    assert_eq!(error.setting(), setting, "{error}");
    assert!(error.to_string().contains(remedy), "{error}");
    assert!(!format!("{error} {error:?}").contains("hunter2"), "{error:?}");
}

fn key_file(name: &str) -> String {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/keys").join(name).to_str().unwrap().into()
}

#[test]
fn a_secret_makes_a_verifier() {
    let verifier = verifier(&[
        ("JWT_ALGORITHM", "HS256"),
        ("JWT_SECRET", SECRET),
        ("JWT_KEY_ID", "2026"),
        ("JWT_LEEWAY_SECS", "5"),
        ("JWT_MAX_LIFETIME_SECS", "3600"),
        ("JWT_ID_CLAIM", "uti"),
        ("JWT_MISSING_ID", "signing-input"),
        ("JWT_TYPES", "at+jwt, JWT"),
    ])
    .unwrap();
    let shown = format!("{verifier:?}");
    for part in
        ["https://id.example", "orders", "2026", "HS256", "5s", "3600s", "uti", "SigningInput", "at+jwt"]
    {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    assert!(!shown.contains("hunter2"));
}

#[test]
fn a_file_makes_the_same() {
    let fields = format!(
        r#"{{"issuers": ["https://id.example"], "audiences": ["orders"], "algorithm": "HS256", "secret": "{SECRET}",
            "claim_targets": {{"tenant": "claim", "sid": "none"}}}}"#
    );
    let config: VerifierConfig = serde_json::from_str(&fields).unwrap();
    assert!(!format!("{config:?}").contains("hunter2"));
    let by_vars = verifier(&[("JWT_ALGORITHM", "HS256"), ("JWT_SECRET", SECRET)]).unwrap();
    assert_eq!(format!("{:?}", config.verifier().unwrap()), format!("{by_vars:?}"));
    serde_json::from_str::<VerifierConfig>(&fields.replace("audiences", "audience")).unwrap_err();
    let wrong: VerifierConfig = serde_json::from_str(&fields.replace("HS256", "HS1")).unwrap();
    assert_eq!(wrong.verifier().unwrap_err().setting(), "algorithm", "the name of the field");
    let wrong: VerifierConfig = serde_json::from_str(&fields.replace("\"none\"", "\"scope\"")).unwrap();
    assert_eq!(wrong.verifier().unwrap_err().setting(), "claim_targets");
}

#[test]
fn secrets_can_be_in_files_and_in_base64() {
    let dir = std::env::temp_dir().join(format!("jwt-settings-{}", std::process::id()));
    fs::create_dir_all(&dir).unwrap();
    let path = dir.join("secret");
    let file = path.to_str().unwrap();
    let token = {
        VerificationKey::from_secret(Algorithm::HS256, SECRET.as_bytes()).unwrap();
        let now = crate::Clock::now(&crate::SystemClock).as_secs();
        let claims = serde_json::json!({
            "iss": "https://id.example", "aud": "orders", "jti": "1", "iat": now, "exp": now + 60
        });
        let key = jsonwebtoken::EncodingKey::from_secret(SECRET.as_bytes());
        jsonwebtoken::encode(&jsonwebtoken::Header::default(), &claims, &key).unwrap()
    };
    let encoded = format!("base64:{}", STANDARD.encode(SECRET));
    for content in [SECRET.to_owned(), format!("{SECRET}\n"), format!("{SECRET}\r\n"), format!("{encoded}\n")]
    {
        fs::write(&path, content).unwrap();
        verifier(&[("JWT_ALGORITHM", "HS256"), ("JWT_SECRET_FILE", file)]).unwrap().verify(&token).unwrap();
    }
    fs::write(&path, format!("{SECRET}\n\n")).unwrap();
    let other = verifier(&[("JWT_ALGORITHM", "HS256"), ("JWT_SECRET_FILE", file)]).unwrap();
    other.verify(&token).unwrap_err();
    verifier(&[("JWT_ALGORITHM", "HS256"), ("JWT_SECRET", &encoded)]).unwrap().verify(&token).unwrap();
    fs::remove_dir_all(&dir).unwrap();
    assert_names(&[("JWT_ALGORITHM", "HS256"), ("JWT_SECRET_FILE", file)], "JWT_SECRET_FILE", file);
    assert_names(&[("JWT_ALGORITHM", "HS256"), ("JWT_SECRET", "base64:*hunter2")], "JWT_SECRET", "base64");
}

#[test]
fn public_keys_and_sets_make_verifiers() {
    for (algorithm, file) in
        [("RS256", "rsa2048.pub.pem"), ("ES256", "p256.pub.pem"), ("EdDSA", "ed25519.pub.pem")]
    {
        let path = key_file(file);
        verifier(&[("JWT_ALGORITHM", algorithm), ("JWT_PUBLIC_KEY_FILE", &path)]).unwrap();
        let pem = fs::read_to_string(&path).unwrap();
        verifier(&[("JWT_ALGORITHM", algorithm), ("JWT_PUBLIC_KEY", &pem)]).unwrap();
    }
    let set = r#"{"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": "a",
                 "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;
    verifier(&[("JWT_JWK_SET", set)]).unwrap();
}

#[test]
fn what_is_missing_or_wrong_is_named_with_a_remedy() {
    let hs256 = [("JWT_ALGORITHM", "HS256"), ("JWT_SECRET", SECRET)];
    let with = |more: (&'static str, &'static str)| [&hs256[..], &[more]].concat();
    let error = from(&hs256).unwrap().verifier().unwrap_err();
    assert_eq!(error.setting(), "JWT_ISSUERS");
    assert!(error.to_string().contains("write `*` to accept any"), "{error}");
    assert_names(&[], "keys", "JWT_SECRET_FILE, JWT_PUBLIC_KEY");
    assert_names(&[("JWT_SECRET", SECRET)], "JWT_ALGORITHM", "such as HS256");
    assert_names(&[("JWT_SECRET", SECRET), ("JWT_ALGORITHM", "none")], "JWT_ALGORITHM", "not a supported");
    assert_names(&[("JWT_SECRET", "hunter2"), ("JWT_ALGORITHM", "HS256")], "JWT_SECRET", "32 random bytes");
    assert_names(&[("JWT_SECRET", SECRET), ("JWT_ALGORITHM", "RS256")], "JWT_ALGORITHM", "not for this kind");
    assert_names(&with(("JWT_JWK_SET", "{}")), "JWT_SECRET", "leave one of them out");
    assert_names(&[("JWT_JWK_SET", "hunter2")], "JWT_JWK_SET", "not a JSON Web Key Set");
    assert_names(&[("JWT_JWK_SET", "{}"), ("JWT_ALGORITHM", "RS256")], "JWT_ALGORITHM", "leave it out");
    assert_names(&with(("JWT_SECRET", "")), "JWT_SECRET", "is set and empty");
    assert_names(&with(("JWT_LEEWAY_SECS", "301")), "JWT_LEEWAY_SECS", "mend the clocks");
    assert_names(&with(("JWT_LEEWAY_SECS", "1m")), "JWT_LEEWAY_SECS", "whole number");
    assert_names(&with(("JWT_MAX_LIFETIME_SECS", "0")), "JWT_MAX_LIFETIME_SECS", "over zero");
    assert_names(&with(("JWT_MISSING_ID", "allow")), "JWT_MISSING_ID", "signing-input");
    assert_names(&with(("JWT_TYPES", "logout+jwt")), "JWT_TYPES", "must never pass");
    assert_names(&with(("JWT_AUDIENCES", "orders, *")), "JWT_AUDIENCES", "leave one out");
    assert_names(&with(("JWT_ID_CLAIM", "sid")), "JWT_ID_CLAIM", "already the id claim");
    let private = key_file("p256.pem");
    assert_names(
        &[("JWT_ALGORITHM", "ES256"), ("JWT_PUBLIC_KEY_FILE", &private)],
        "JWT_PUBLIC_KEY_FILE",
        "private key",
    );
}

#[test]
fn any_must_be_said() {
    let any = verifier(&[
        ("JWT_ISSUERS", "*"),
        ("JWT_AUDIENCES", "*"),
        ("JWT_ALGORITHM", "HS256"),
        ("JWT_SECRET", SECRET),
    ]);
    assert!(!any.unwrap().profile().has_issuers());
}

#[test]
fn what_is_not_unicode_is_not_quoted() {
    let find = |_: &str| Err(std::env::VarError::NotUnicode("hunter2".into()));
    let error = VerifierConfig::from_vars(&Vars::new(&find)).unwrap_err();
    assert_eq!(error.to_string(), "JWT_ISSUERS: is not Unicode");
    assert!(!format!("{error:?}").contains("hunter2"));
}

#[cfg(not(feature = "jwks"))]
#[test]
fn keys_cannot_be_fetched_without_the_feature() {
    assert_names(&[("JWT_JWKS_URL", "https://id.example/keys")], "JWT_JWKS_URL", "feature `jwks`");
}

#[cfg(feature = "jwks")]
#[tokio::test]
async fn keys_that_must_be_fetched_are_not_forgotten() {
    assert_names(
        &[("JWT_JWKS_URL", "https://id.example/keys")],
        "JWT_JWKS_URL",
        "call VerifierConfig::connect",
    );
    assert_names(&[("JWT_JWKS_URL", "/keys")], "JWT_JWKS_URL", "absolute URL");
    assert_names(&[("JWT_DISCOVERY_ISSUER", "id.example")], "JWT_DISCOVERY_ISSUER", "absolute URL");
    let connect = async |vars: &[(&str, &str)]| from(&[&BASE[..], vars].concat()).unwrap().connect().await;
    let error = connect(&[("JWT_JWKS_URL", "http://id.example/keys")]).await.unwrap_err().to_string();
    assert!(error.starts_with("JWT_JWKS_URL: is not https"), "{error}");
    let error = connect(&[("JWT_DISCOVERY_ISSUER", "http://id.example")]).await.unwrap_err().to_string();
    assert!(error.starts_with("JWT_DISCOVERY_ISSUER: is not https"), "{error}");
    connect(&[("JWT_ALGORITHM", "HS256"), ("JWT_SECRET", SECRET)]).await.unwrap();
}
