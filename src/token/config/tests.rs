use std::fs;
use std::path::PathBuf;

use serde_json::json;

use super::*;
use crate::config::docs::{self, SetBy};
use crate::token::Algorithm;
use crate::token::TokenVerifier as _;

const BASE: [(&str, &str); 2] =
    [("JWT_ISSUERS", "https://id.example"), ("JWT_AUDIENCES", "orders")];
const SECRET: &str = "hunter2-hunter2-hunter2-hunter2-";

fn from(vars: &[(&str, &str)]) -> Result<VerifierConfig, ConfigError> {
    VerifierConfig::from_vars(&vars.iter().copied().collect())
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
        ("JWT_MAX_TOKEN_BYTES", "4321"),
        ("JWT_CLAIM_TARGETS", "tenant=claim, sid=none"),
    ])
    .unwrap();
    let shown = format!("{verifier:?}");
    for part in [
        "https://id.example",
        "orders",
        "2026",
        "HS256",
        "5s",
        "3600s",
        "uti",
        "SigningInput",
        "at+jwt",
        "4321",
    ] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    assert!(!shown.contains("hunter2"));
}

#[test]
fn a_file_makes_the_same() {
    let fields = format!(
        r#"{{"issuers": ["https://id.example"], "audiences": ["orders"],
            "algorithm": "HS256", "secret": "{SECRET}",
            "claim_targets": {{"tenant": "claim", "sid": "none"}}}}"#
    );
    let config: VerifierConfig = serde_json::from_str(&fields).unwrap();
    assert!(!format!("{config:?}").contains("hunter2"));
    let by_vars = verifier(&[
        ("JWT_ALGORITHM", "HS256"),
        ("JWT_SECRET", SECRET),
        ("JWT_CLAIM_TARGETS", "tenant=claim, sid=none"),
    ]);
    assert_eq!(format!("{:?}", config.verifier().unwrap()), format!("{:?}", by_vars.unwrap()));
    serde_json::from_str::<VerifierConfig>(&fields.replace("audiences", "audience")).unwrap_err();
    let wrong = [("HS256", "HS1", "`HS256`"), ("\"none\"", "\"scope\"", "`none`")];
    for (right, wrong, remedy) in wrong {
        let wrong = fields.replace(right, wrong);
        let error = serde_json::from_str::<VerifierConfig>(&wrong).unwrap_err().to_string();
        assert!(error.contains(remedy) && error.contains("at line "), "{error}");
    }
    let wrong: VerifierConfig =
        serde_json::from_str(&fields.replace("\"sid\"", "\"jti\"")).unwrap();
    let wrong = VerifierConfig { leeway_secs: Some(301), ..wrong };
    assert_eq!(wrong.verifier().unwrap_err().setting(), "leeway_secs", "the name of the field");
}

#[test]
fn secrets_can_be_in_files_and_in_base64() {
    let dir = std::env::temp_dir().join(format!("jwt-settings-{}", std::process::id()));
    fs::create_dir_all(&dir).unwrap();
    let path = dir.join("secret");
    let file = path.to_str().unwrap();
    let token = {
        VerificationKey::from_secret(Algorithm::HS256, SECRET.as_bytes()).unwrap();
        let now = crate::clock::Clock::now(&crate::clock::SystemClock).as_secs();
        let claims = json!({
            "iss": "https://id.example", "aud": "orders", "jti": "1", "iat": now, "exp": now + 60
        });
        let key = jsonwebtoken::EncodingKey::from_secret(SECRET.as_bytes()).unwrap();
        jsonwebtoken::encode(&jsonwebtoken::Header::default(), &claims, &key).unwrap()
    };
    let encoded = format!("base64:{}", STANDARD.encode(SECRET));
    for content in
        [SECRET.to_owned(), format!("{SECRET}\n"), format!("{SECRET}\r\n"), format!("{encoded}\n")]
    {
        fs::write(&path, content).unwrap();
        verifier(&[("JWT_ALGORITHM", "HS256"), ("JWT_SECRET_FILE", file)])
            .unwrap()
            .verify(&token)
            .unwrap();
    }
    fs::write(&path, format!("{SECRET}\n\n")).unwrap();
    let other = verifier(&[("JWT_ALGORITHM", "HS256"), ("JWT_SECRET_FILE", file)]).unwrap();
    other.verify(&token).unwrap_err();
    verifier(&[("JWT_ALGORITHM", "HS256"), ("JWT_SECRET", &encoded)])
        .unwrap()
        .verify(&token)
        .unwrap();
    fs::remove_dir_all(&dir).unwrap();
    assert_names(&[("JWT_ALGORITHM", "HS256"), ("JWT_SECRET_FILE", file)], "JWT_SECRET_FILE", file);
    assert_names(
        &[("JWT_ALGORITHM", "HS256"), ("JWT_SECRET", "base64:*hunter2")],
        "JWT_SECRET",
        "base64",
    );
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
    assert_names(
        &[("JWT_SECRET", SECRET), ("JWT_ALGORITHM", "none")],
        "JWT_ALGORITHM",
        "write `HS256`",
    );
    assert_names(
        &[("JWT_SECRET", "hunter2"), ("JWT_ALGORITHM", "HS256")],
        "JWT_SECRET",
        "32 random bytes",
    );
    assert_names(
        &[("JWT_SECRET", SECRET), ("JWT_ALGORITHM", "RS256")],
        "JWT_ALGORITHM",
        "not for this kind",
    );
    assert_names(&with(("JWT_JWK_SET", "{}")), "JWT_SECRET", "leave one of them out");
    assert_names(&[("JWT_JWK_SET", "hunter2")], "JWT_JWK_SET", "not a JSON Web Key Set");
    assert_names(
        &[("JWT_JWK_SET", "{}"), ("JWT_ALGORITHM", "RS256")],
        "JWT_ALGORITHM",
        "leave it out",
    );
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
fn what_keys_without_alg_may_verify_is_a_setting_of_key_sets() {
    let pem = fs::read(key_file("rsa2048.pub.pem")).unwrap();
    let n = {
        let body: String =
            String::from_utf8(pem).unwrap().lines().filter(|line| !line.starts_with('-')).collect();
        let der = STANDARD.decode(body).unwrap();
        // The modulus begins after the 33 bytes that each such key begins with.
        base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(&der[33..33 + 256])
    };
    let set = json!({"keys": [{"kty": "RSA", "kid": "a", "n": n, "e": "AQAB"}]}).to_string();
    assert_names(&[("JWT_JWK_SET", &set)], "JWT_JWK_SET", "alg: is missing");
    let with = |algorithms| [("JWT_JWK_SET", &*set), ("JWT_DEFAULT_ALGORITHMS", algorithms)];
    let shown = format!("{:?}", verifier(&with("PS256, RS512")).unwrap());
    assert!(shown.contains("PS256") && shown.contains("RS512"), "{shown}");
    assert_names(&with("ES256"), "JWT_DEFAULT_ALGORITHMS", "only RSA keys");
    assert_names(&with("none"), "JWT_DEFAULT_ALGORITHMS", "write `HS256`");
    let key = key_file("rsa2048.pub.pem");
    for source in [("JWT_SECRET", SECRET), ("JWT_PUBLIC_KEY_FILE", &*key)] {
        let alone = [source, ("JWT_ALGORITHM", "RS256"), ("JWT_DEFAULT_ALGORITHMS", "PS256")];
        assert_names(&alone, "JWT_DEFAULT_ALGORITHMS", "leave it out");
    }
}

#[test]
fn a_byte_order_mark_before_a_secret_or_a_set_is_skipped() {
    let dir = std::env::temp_dir().join(format!("jwt-marks-{}", std::process::id()));
    fs::create_dir_all(&dir).unwrap();
    let path = dir.join("file");
    let file = path.to_str().unwrap();
    fs::write(&path, format!("\u{feff}{SECRET}\n")).unwrap();
    let marked = [("JWT_ALGORITHM", "HS256"), ("JWT_SECRET_FILE", file)];
    let token = {
        let by_text = [("JWT_ALGORITHM", "HS256"), ("JWT_SECRET", SECRET)];
        verifier(&by_text).unwrap();
        let now = crate::clock::Clock::now(&crate::clock::SystemClock).as_secs();
        let claims = json!({
            "iss": "https://id.example", "aud": "orders", "jti": "1", "iat": now, "exp": now + 60
        });
        let key = jsonwebtoken::EncodingKey::from_secret(SECRET.as_bytes()).unwrap();
        jsonwebtoken::encode(&jsonwebtoken::Header::default(), &claims, &key).unwrap()
    };
    verifier(&marked).unwrap().verify(&token).unwrap();
    let set = r#"{"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": "a",
                 "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;
    fs::write(&path, format!("\u{feff}{set}")).unwrap();
    verifier(&[("JWT_JWK_SET_FILE", file)]).unwrap();
    fs::remove_dir_all(&dir).unwrap();
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

#[cfg(not(feature = "jwks"))]
#[test]
fn keys_cannot_be_fetched_without_the_feature() {
    assert_names(&[("JWT_JWKS_URL", "https://id.example/keys")], "JWT_JWKS_URL", "feature `jwks`");
}

#[cfg(feature = "jwks")]
#[tokio::test]
async fn how_keys_are_fetched_can_be_set() {
    let url = ("JWT_JWKS_URL", "https://id.example/keys");
    for (variable, bad, remedy) in [
        ("JWT_JWKS_MAX_AGE_SECS", "0", ""),
        ("JWT_JWKS_COOLDOWN_SECS", "0", ""),
        ("JWT_JWKS_OUTAGE_GRACE_SECS", "1", ""),
        ("JWT_JWKS_TIMEOUT_MS", "0", ""),
        ("JWT_JWKS_ROOT_CERTIFICATES_FILE", "/nowhere/ca.pem", "cannot be read"),
        (
            "JWT_JWKS_ROOT_CERTIFICATES_FILE",
            concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"),
            "certificate",
        ),
        ("JWT_JWKS_PROXY", "https://u:hunter2@proxy.example", "http://proxy.example:3128"),
    ] {
        let config = from(&[&BASE[..], &[url, (variable, bad)]].concat()).unwrap();
        let error = config.connect().await.unwrap_err().to_string();
        assert!(error.starts_with(variable) && error.contains(remedy), "{error}");
        assert!(!format!("{error} {config:?}").contains("hunter2"), "{error}");
        let fixed = [("JWT_ALGORITHM", "HS256"), ("JWT_SECRET", SECRET), (variable, "1")];
        assert_names(&fixed, variable, "has no effect on JWT_SECRET");
    }
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
    let connect =
        async |vars: &[(&str, &str)]| from(&[&BASE[..], vars].concat()).unwrap().connect().await;
    let error =
        connect(&[("JWT_JWKS_URL", "http://id.example/keys")]).await.unwrap_err().to_string();
    assert!(error.starts_with("JWT_JWKS_URL: is not https"), "{error}");
    let error =
        connect(&[("JWT_DISCOVERY_ISSUER", "http://id.example")]).await.unwrap_err().to_string();
    assert!(error.starts_with("JWT_DISCOVERY_ISSUER: is not https"), "{error}");
    connect(&[("JWT_ALGORITHM", "HS256"), ("JWT_SECRET", SECRET)]).await.unwrap();
}

#[test]
fn issuers_can_be_a_pattern_and_its_tenants() {
    let secret = [("JWT_ALGORITHM", "HS256"), ("JWT_SECRET", SECRET), ("JWT_AUDIENCES", "orders")];
    let profile = |vars: &[(&str, &str)]| from(&[&secret[..], vars].concat()).unwrap().profile();
    let patterns =
        ("JWT_ISSUER_PATTERNS", "https://id.example/{tenant}/v2.0 https://{tenant}.id.example");
    let some = profile(&[patterns, ("JWT_TENANTS", "acme globex")]).unwrap();
    for issuer in ["https://id.example/acme/v2.0", "https://globex.id.example"] {
        assert!(some.knows_issuer(issuer), "{issuer}");
    }
    for issuer in
        ["https://id.example/evil/v2.0", "https://id.example/acme", "https://evil.id.example"]
    {
        assert!(!some.knows_issuer(issuer), "{issuer}");
    }
    let more = [patterns, ("JWT_TENANTS", "acme"), ("JWT_ISSUERS", "https://else.example")];
    assert!(profile(&more).unwrap().knows_issuer("https://else.example"));
    let any = profile(&[patterns, ("JWT_TENANTS", "*")]).unwrap();
    assert!(any.knows_issuer("https://id.example/anyone/v2.0"));

    let error = |vars: &[(&str, &str)]| profile(vars).unwrap_err().to_string();
    assert!(error(&[patterns]).starts_with("JWT_TENANTS: is missing"));
    assert!(
        error(&[patterns, ("JWT_TENANTS", "acme *")])
            .starts_with("JWT_TENANTS: has `*` next to others")
    );
    assert!(
        error(&[patterns, ("JWT_TENANTS", "*"), ("JWT_ISSUERS", "*")])
            .starts_with("JWT_ISSUERS: has `*`")
    );
    let alone = error(&[("JWT_ISSUERS", "https://id.example"), ("JWT_TENANTS", "acme")]);
    assert_eq!(alone, "JWT_TENANTS: has no effect without JWT_ISSUER_PATTERNS; set both or none");
    let wrong = error(&[("JWT_ISSUER_PATTERNS", "{tenant}"), ("JWT_TENANTS", "acme")]);
    assert!(wrong.starts_with("JWT_ISSUER_PATTERNS: "), "{wrong}");
}

#[test]
fn several_configurations_make_a_set_of_issuers() {
    let configs = r#"[
        {"issuers": ["https://staff.example"], "audiences": ["desk"],
         "algorithm": "HS256", "secret": "1-hunter2-hunter2-hunter2-hunter2"},
        {"issuers": ["https://shop.example"], "audiences": ["cart"],
         "algorithm": "HS256", "secret": "2-hunter2-hunter2-hunter2-hunter2"}
    ]"#;
    let configs: Vec<VerifierConfig> = serde_json::from_str(configs).unwrap();
    let (first, others) = configs.split_first().unwrap();
    let mut set = crate::token::IssuerSet::new(first.verifier().unwrap()).unwrap();
    for other in others {
        set = set.with(other.verifier().unwrap()).unwrap();
    }
    assert!(
        ["https://staff.example", "https://shop.example"]
            .iter()
            .all(|iss| set.profile().knows_issuer(iss))
    );
}

#[test]
fn tokens_without_iat_or_subject_pass_as_is_said() {
    let hs256 = [("JWT_ALGORITHM", "HS256"), ("JWT_SECRET", SECRET)];
    let strict = verifier(&hs256).unwrap();
    let lax = verifier(&[&hs256[..], &[("JWT_ALLOW_MISSING_IAT", "true")]].concat()).unwrap();
    let now = crate::clock::Clock::now(&crate::clock::SystemClock).as_secs();
    let claims = json!({"iss": "https://id.example", "aud": "orders", "jti": "1", "exp": now + 60});
    let key = jsonwebtoken::EncodingKey::from_secret(SECRET.as_bytes()).unwrap();
    let token = jsonwebtoken::encode(&jsonwebtoken::Header::default(), &claims, &key).unwrap();
    strict.verify(&token).unwrap_err();
    lax.verify(&token).unwrap();
    let more = [("JWT_ALLOW_MISSING_IAT", "true"), ("JWT_REQUIRED_SUBJECT", "true")];
    verifier(&[&hs256[..], &more].concat()).unwrap().verify(&token).unwrap_err();
}

#[test]
fn misspelt_names_are_reported() {
    let hs256 = [("JWT_ALGORITHM", "HS256"), ("JWT_SECRET", SECRET)];
    let with = |more: (&'static str, &'static str)| [&hs256[..], &[more]].concat();
    assert_names(&with(("JWT_LEEWAY", "60")), "JWT_LEEWAY_SECS", "is not set, but `JWT_LEEWAY` is");
    assert_names(&with(("JWT_TYPE", "at+jwt")), "JWT_TYPES", "`JWT_TYPE`");
    verifier(&with(("JWT_PRIVATE_KEY", "hunter2"))).unwrap();
}

#[cfg(feature = "jwks")]
#[test]
fn each_setting_is_documented() {
    use crate::token::jwks::{
        DEFAULT_COOLDOWN, DEFAULT_MAX_AGE, DEFAULT_OUTAGE_GRACE, DEFAULT_TIMEOUT,
    };
    use crate::token::profile::DEFAULT_MAX_TOKEN_BYTES;
    use crate::token::profile::{DEFAULT_LEEWAY, DEFAULT_MAX_LIFETIME};

    docs::assert_documented::<VerifierConfig>(
        "VerifierConfig",
        include_str!("../config.rs"),
        &[
            ("leeway_secs", &DEFAULT_LEEWAY.as_secs()),
            ("max_lifetime_secs", &DEFAULT_MAX_LIFETIME.as_secs()),
            ("max_token_bytes", &DEFAULT_MAX_TOKEN_BYTES),
            ("jwks_max_age_secs", &DEFAULT_MAX_AGE.as_secs()),
            ("jwks_cooldown_secs", &DEFAULT_COOLDOWN.as_secs()),
            ("jwks_outage_grace_secs", &DEFAULT_OUTAGE_GRACE.as_secs()),
            ("jwks_timeout_ms", &DEFAULT_TIMEOUT.as_millis()),
        ],
    );
}

#[cfg(feature = "jwks")]
#[test]
fn each_setting_has_the_same_effect_from_a_variable_and_from_a_file() {
    use serde_json::Value;

    let with = |base: &Value, more: Value| {
        let (mut all, Value::Object(more)) = (base.clone(), more) else { unreachable!() };
        all.as_object_mut().unwrap().extend(more);
        all
    };
    let patterns = json!(["https://id.example/{tenant}", "https://{tenant}.example"]);
    let key = fs::read_to_string(key_file("ed25519.pub.pem")).unwrap();
    let set = json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": "a",
        "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]});

    let no_key = json!({"issuers": ["https://id.example"], "audiences": ["orders"]});
    let hs256 = with(&no_key, json!({"algorithm": "HS256"}));
    let eddsa = with(&no_key, json!({"algorithm": "EdDSA"}));
    let fixed = with(&hs256, json!({"secret": SECRET}));
    let remote = with(&no_key, json!({"jwks_url": "https://id.example/keys"}));
    let no_issuer = json!({"audiences": ["orders"], "algorithm": "HS256", "secret": SECRET});
    docs::assert_effective::<VerifierConfig>(
        &[
            ("issuers", json!(["https://else.example"]), fixed.clone()),
            ("issuer_patterns", patterns.clone(), with(&no_issuer, json!({"tenants": ["acme"]}))),
            ("tenants", json!(["acme"]), with(&no_issuer, json!({"issuer_patterns": patterns}))),
            ("audiences", json!(["orders", "carts"]), fixed.clone()),
            ("leeway_secs", json!(5), fixed.clone()),
            ("max_lifetime_secs", json!(3600), fixed.clone()),
            ("id_claim", json!("uti"), fixed.clone()),
            ("missing_id", json!("other-targets-only"), fixed.clone()),
            ("allow_missing_iat", json!(true), fixed.clone()),
            ("required_subject", json!(true), fixed.clone()),
            ("claim_targets", json!({"tenant": "claim", "sid": "none"}), fixed.clone()),
            ("recurring_session_ids", json!(true), fixed.clone()),
            ("required_claims", json!({"token_use": "access|machine", "sub": "*"}), fixed.clone()),
            ("forbidden_claims", json!({"act": "*", "scope": "device"}), fixed.clone()),
            ("other_kinds_allowed_by", json!(["type"]), fixed.clone()),
            ("types", json!(["at+jwt", "JWT"]), fixed.clone()),
            ("max_token_bytes", json!(4321), fixed.clone()),
            ("secret", json!(SECRET), hs256.clone()),
            ("secret_file", json!("/nowhere/secret"), hs256),
            ("public_key", json!(key), eddsa.clone()),
            ("public_key_file", json!(key_file("ed25519.pub.pem")), eddsa),
            ("jwk_set", json!(set.to_string()), no_key.clone()),
            ("jwk_set_file", json!("/nowhere/set"), no_key.clone()),
            ("jwks_url", json!("https://id.example/keys"), no_key.clone()),
            ("discovery_issuer", json!("https://id.example"), no_key.clone()),
            ("algorithm", json!("HS256"), with(&no_key, json!({"secret": SECRET}))),
            ("key_id", json!("2026"), fixed),
            ("default_algorithms", json!(["PS256", "RS512"]), remote.clone()),
            ("jwks_max_age_secs", json!(60), remote.clone()),
            ("jwks_cooldown_secs", json!(5), remote.clone()),
            ("jwks_outage_grace_secs", json!(3600), remote.clone()),
            ("jwks_timeout_ms", json!(700), remote.clone()),
            ("jwks_root_certificates_file", json!("/nowhere/roots.pem"), remote.clone()),
            ("jwks_proxy", json!("ftp://proxy.example"), remote),
        ],
        |config| {
            let (keys, profile) = (config.keys()?, config.build_profile()?);
            let verifier = match &keys {
                KeyMaterial::Remote(_) => None,
                _ => Some(config.verifier()?),
            };
            Ok(format!("{keys:?} {profile:?} {verifier:?}"))
        },
    );
}

#[test]
fn no_setter_is_forgotten() {
    let profile = [
        ("with_issuer", SetBy::Field("issuers")),
        ("with_issuer_pattern", SetBy::Field("issuer_patterns")),
        ("with_audience", SetBy::Field("audiences")),
        ("with_leeway", SetBy::Field("leeway_secs")),
        ("with_max_lifetime", SetBy::Field("max_lifetime_secs")),
        ("with_max_token_bytes", SetBy::Field("max_token_bytes")),
        ("with_recurring_session_ids", SetBy::Field("recurring_session_ids")),
        ("with_id_claim", SetBy::Field("id_claim")),
        ("with_missing_id", SetBy::Field("missing_id")),
        ("allow_missing_iat", SetBy::Field("allow_missing_iat")),
        ("with_required_subject", SetBy::Field("required_subject")),
        ("require_claim", SetBy::Field("required_claims")),
        ("require_claim_presence", SetBy::Field("required_claims")),
        ("forbid_claim", SetBy::Field("forbidden_claims")),
        ("forbid_claim_values", SetBy::Field("forbidden_claims")),
        ("allow_other_kinds_by", SetBy::Field("other_kinds_allowed_by")),
        ("with_claim_target", SetBy::Field("claim_targets")),
        ("without_claim_target", SetBy::Field("claim_targets")),
        ("with_clock", SetBy::Code("a clock is a value of the program")),
    ];
    let source = include_str!("../profile/mod.rs");
    let source = &source[source.find("impl TokenProfile").unwrap()..];
    docs::assert_settable::<VerifierConfig>(source, &profile);
    let verifier = [
        ("with_remote_keys", SetBy::Field("jwks_url")),
        ("with_types", SetBy::Field("types")),
        ("with_max_token_bytes", SetBy::Field("max_token_bytes")),
        ("with_clock", SetBy::Code("a clock is a value of the program")),
    ];
    docs::assert_settable::<VerifierConfig>(include_str!("../jwt/mod.rs"), &verifier);
    docs::assert_settable::<VerifierConfig>(
        include_str!("../jwt/key.rs"),
        &[("with_kid", SetBy::Field("key_id"))],
    );
    let jwks = [
        ("with_default_algorithms", SetBy::Field("default_algorithms")),
        ("with_max_age", SetBy::Field("jwks_max_age_secs")),
        ("with_cooldown", SetBy::Field("jwks_cooldown_secs")),
        ("with_outage_grace", SetBy::Field("jwks_outage_grace_secs")),
        ("with_timeout", SetBy::Field("jwks_timeout_ms")),
        ("with_root_certificates", SetBy::Field("jwks_root_certificates_file")),
        ("with_proxy", SetBy::Field("jwks_proxy")),
        (
            "with_plain_http_on_loopback",
            SetBy::Code("is for tests, and must not slip into a deployment"),
        ),
        ("with_transport", SetBy::Code("takes a client of the program")),
    ];
    docs::assert_settable::<VerifierConfig>(include_str!("../jwks/mod.rs"), &jwks);
}
