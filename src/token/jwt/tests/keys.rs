//! Keys in every form, and those that must not be used.

use std::error::Error as _;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use crate::config::ConfigError;
use crate::token::jwt::*;
use crate::token::{Algorithm, TokenErrorKind, TokenProfile};

macro_rules! file {
    ($name:literal) => {
        include_bytes!(concat!("../../../../tests/keys/", $name))
    };
}

#[cfg(feature = "issuer")]
pub(super) use file;

#[track_caller]
pub(super) fn assert_refused<T>(result: Result<T, ConfigError>, part: &str) {
    let error = result.err().expect("accepted");
    assert!(error.to_string().contains(part), "{error}");
    assert!(error.source().is_none(), "a cause may quote");
}

/// The public parts of the keys in `tests/keys`, as JSON Web Keys.
fn jwk(kid: &str) -> Value {
    let part = |pem: &[u8]| {
        let der = der::pem(pem).unwrap().1;
        der::public_key_info(&der).unwrap().key.to_vec()
    };
    let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    match kid {
        "rsa" => {
            let key = part(file!("rsa2048.pub.pem"));
            let (n, e) = der::rsa_public_key(&key).unwrap();
            let (n, e) = (encode(n), encode(e));
            json!({"kty": "RSA", "kid": kid, "alg": "RS256", "use": "sig", "n": n, "e": e})
        }
        "p256" => {
            let key = part(file!("p256.pub.pem"));
            let (x, y) = (encode(&key[1..33]), encode(&key[33..]));
            json!({"kty": "EC", "kid": kid, "crv": "P-256", "x": x, "y": y})
        }
        "ed" => {
            let x = encode(&part(file!("ed25519.pub.pem")));
            json!({"kty": "OKP", "kid": kid, "crv": "Ed25519", "x": x})
        }
        _ => json!({"kty": "oct", "kid": kid, "alg": "HS256", "k": encode(&[7; 32])}),
    }
}

fn jwk_with(kid: &str, name: &str, value: Value) -> Value {
    let mut jwk = jwk(kid);
    jwk[name] = value;
    jwk
}

fn set(keys: &[Value]) -> String {
    json!({ "keys": keys }).to_string()
}

#[test]
fn public_keys_in_all_their_forms() {
    use Algorithm::*;
    let der_of = |pem: &[u8]| der::pem(pem).unwrap().1;
    for algorithm in [RS256, RS384, RS512, PS256, PS384, PS512] {
        VerificationKey::from_pem(algorithm, file!("rsa2048.pub.pem")).unwrap();
        VerificationKey::from_pem(algorithm, file!("rsa2048.pkcs1.pub.pem")).unwrap();
        VerificationKey::from_der(algorithm, &der_of(file!("rsa2048.pub.pem"))).unwrap();
        VerificationKey::from_der(algorithm, &der_of(file!("rsa2048.pkcs1.pub.pem"))).unwrap();
    }
    VerificationKey::from_pem(ES256, file!("p256.pub.pem")).unwrap();
    VerificationKey::from_pem(ES384, file!("p384.pub.pem")).unwrap();
    VerificationKey::from_pem(EdDSA, file!("ed25519.pub.pem")).unwrap();
    let der = der_of(file!("ed25519.pub.pem"));
    VerificationKey::from_der(EdDSA, &der).unwrap();
    VerificationKey::from_der(EdDSA, der::public_key_info(&der).unwrap().key).unwrap();
    for kid in ["rsa", "p256", "ed", "oct"] {
        assert_eq!(VerificationKey::from_jwk(&jwk(kid).to_string()).unwrap().kid(), Some(kid));
    }
    // A key that says `EdDSA` means just that; one that says `Ed25519`, or nothing, knows both
    // names of it.
    for (alg, accepts) in [("EdDSA", [true, false]), ("Ed25519", [true, true])] {
        let key =
            VerificationKey::from_jwk(&jwk_with("ed", "alg", json!(alg)).to_string()).unwrap();
        assert_eq!(["EdDSA", "Ed25519"].map(|alg| key.is_for(alg)), accepts, "{alg}");
    }
}

#[test]
fn weak_and_wrong_keys_are_refused() {
    use Algorithm::*;
    let secret = |algorithm, len| VerificationKey::from_secret(algorithm, &vec![7; len]);
    for (algorithm, len) in [(HS256, 32), (HS384, 48), (HS512, 64)] {
        secret(algorithm, len).unwrap();
        assert_refused(secret(algorithm, len - 1), "too short");
        assert_refused(secret(algorithm, 0), "too short");
    }
    assert_refused(secret(RS256, 64), "is not for this kind of key");
    assert_refused(VerificationKey::from_secret(HS256, file!("rsa2048.pub.pem")), "is a PEM file");
    assert_refused(VerificationKey::from_pem(RS256, file!("rsa1024.pub.pem")), "has 1024 bits");
    assert_refused(
        VerificationKey::from_pem(HS256, file!("rsa2048.pub.pem")),
        "is not for this kind",
    );
    assert_refused(VerificationKey::from_pem(RS256, file!("rsa2048.pem")), "is a private key");
    assert_refused(VerificationKey::from_pem(RS256, file!("p256.pub.pem")), "is not an RSA key");
    assert_refused(VerificationKey::from_pem(RS256, b"rsa"), "is not PEM");
    assert_refused(VerificationKey::from_der(RS256, b"rsa"), "is not an RSA public key");
    assert_refused(VerificationKey::from_pem(ES256, file!("p384.pub.pem")), "is not on the curve");
    assert_refused(VerificationKey::from_pem(ES384, file!("p521.pub.pem")), "is not on the curve");
    assert_refused(
        VerificationKey::from_pem(ES256, file!("ed25519.pub.pem")),
        "is not an EC public key",
    );
    assert_refused(
        VerificationKey::from_pem(EdDSA, file!("p256.pub.pem")),
        "is not an Ed25519 key",
    );
    assert_refused(
        VerificationKey::from_pem(EdDSA, file!("ed448.pub.pem")),
        "is not an Ed25519 key",
    );
    assert_refused(VerificationKey::from_der(EdDSA, &[7; 31]), "has 32 bytes");
    assert_refused(secret(HS256, 32).unwrap().with_kid(""), "kid");
    let two = [file!("p256.pub.pem").as_slice(), file!("p384.pub.pem")].concat();
    assert_refused(VerificationKey::from_pem(ES256, &two), "exactly one block");
}

/// As it is after some tools have put a file into an environment variable.
#[test]
fn a_pem_text_without_its_line_breaks_is_read() {
    let text = std::str::from_utf8(file!("rsa2048.pub.pem")).unwrap();
    for changed in [
        text.replace('\n', " "),
        text.replace('\n', "\r\n"),
        text.replace('\n', "\n    "),
        format!("Bag Attributes\n    friendlyName: key\n{text}\n\n"),
        text.trim_end().to_owned(),
    ] {
        VerificationKey::from_pem(Algorithm::RS256, changed.as_bytes()).unwrap();
    }
    for cut in [&text[..text.len() - 10], &text[10..], &text.replace("BEGIN PUB", "BEGIN RSA PUB")]
    {
        assert_refused(VerificationKey::from_pem(Algorithm::RS256, cut.as_bytes()), "is not PEM");
    }
}

/// DER has one encoding of each value (X.690 §10), and nothing may follow it.
#[test]
fn der_that_is_not_canonical_is_refused() {
    let der = der::pem(file!("p256.pub.pem")).unwrap().1;
    VerificationKey::from_der(Algorithm::ES256, &der).unwrap();
    let trailing = [&*der, &[0]].concat();
    let long_length = [&[0x30, 0x81], &der[1..]].concat();
    for odd in [&*trailing, &long_length, &der[..der.len() - 1], &[]] {
        assert_refused(VerificationKey::from_der(Algorithm::ES256, odd), "is not an EC public key");
    }
}

#[test]
fn points_off_the_curve_are_no_keys() {
    for (kid, x) in [("p256", "x"), ("p256", "y"), ("ed", "x")] {
        let good = jwk(kid);
        let mut bytes = base64(good[x].as_str().unwrap()).unwrap();
        // Of Ed25519 encodings every other one is a point.
        let refused = (0..32).filter(|_| {
            bytes.rotate_left(1);
            let odd = jwk_with(kid, x, json!(URL_SAFE_NO_PAD.encode(&bytes)));
            VerificationKey::from_jwk(&odd.to_string()).is_err()
        });
        let refused = refused.count();
        assert!(if kid == "ed" { refused > 4 } else { refused == 31 }, "{kid} {x}: {refused}");
    }
    let mut der = der::pem(file!("p384.pub.pem")).unwrap().1;
    *der.last_mut().unwrap() ^= 1;
    assert_refused(
        VerificationKey::from_der(Algorithm::ES384, &der),
        "is not a point on its curve",
    );
}

/// For the neutral element as a key, R = O and s = 0 is a signature of everything: sB = R + kA.
#[test]
fn a_key_for_which_anybody_can_sign_is_refused() {
    let neutral: [u8; 32] = std::array::from_fn(|at| u8::from(at == 0));
    assert_refused(VerificationKey::from_der(Algorithm::EdDSA, &neutral), "small order");
    let x = URL_SAFE_NO_PAD.encode(neutral);
    let set = json!({ "keys": [{ "kty": "OKP", "crv": "Ed25519", "x": x }] });
    assert_refused(KeySet::from_jwk_set(&set.to_string()), "small order");

    // What the provider makes of it, which is why.
    VerificationKey::from_pem(Algorithm::EdDSA, file!("ed25519.pub.pem")).unwrap();
    let signature = URL_SAFE_NO_PAD.encode([neutral, [0; 32]].concat());
    let key = jsonwebtoken::DecodingKey::from_ed_der(&neutral);
    let verify = |message: &[u8]| provider::verify(&signature, message, &key, Algorithm::EdDSA);
    #[cfg(feature = "aws_lc_rs")]
    assert!(verify(b"anything").unwrap() && verify(b"anything else").unwrap());
    #[cfg(not(feature = "aws_lc_rs"))]
    let _ = verify;
}

#[test]
fn rsa_numbers_that_cannot_be_a_key_are_refused() {
    let modulus = |last| {
        let mut modulus = vec![0xc1; 256];
        modulus[255] = last;
        modulus
    };
    let key = |n: &[u8], e: &[u8]| VerificationKey::from_rsa_components(Algorithm::RS256, n, e);
    key(&[&[0, 0], &*modulus(1)].concat(), &[0, 1, 0, 1]).unwrap();
    assert_refused(key(&modulus(0), &[1, 0, 1]), "cannot be one");
    for exponent in [&[][..], &[0], &[1], &[2], &[1, 0, 0, 0, 1]] {
        assert_refused(key(&modulus(1), exponent), "cannot be one");
    }
    assert_refused(key(&[], &[1, 0, 1]), "has 0 bits");
    assert_refused(key(&[&[0x7f], &modulus(1)[1..]].concat(), &[1, 0, 1]), "has 2047 bits");
    assert_refused(key(&[0xff; 1025], &[1, 0, 1]), "bits; the crypto provider");
}

#[test]
fn a_strict_set_names_the_key_that_cannot_be_used() {
    let keys = KeySet::from_jwk_set(&set(&["rsa", "p256", "ed", "oct"].map(jwk))).unwrap();
    assert_eq!(keys.keys().len(), 4);
    JwtVerifier::new(keys, TokenProfile::new()).unwrap();
    let mut without_alg = jwk("rsa");
    without_alg.as_object_mut().unwrap().remove("alg");
    for (key, part) in [
        (jwk_with("rsa", "use", json!("enc")), "`rsa` cannot be used: use: is not `sig`"),
        (jwk_with("rsa", "key_ops", json!(["encrypt"])), "`rsa` cannot be used: key_ops"),
        (
            jwk_with("rsa", "alg", json!("RSA-OAEP")),
            "`rsa` cannot be used: alg: is not a supported",
        ),
        (jwk_with("rsa", "alg", json!("HS256")), "alg: is not for a key of this type"),
        (jwk_with("rsa", "alg", json!("none")), "alg: is not a supported"),
        (jwk_with("rsa", "d", json!("AA")), "is private"),
        (jwk_with("rsa", "n", json!("AQAB")), "has 17 bits"),
        (jwk_with("rsa", "e", json!("AQAB=")), "e: is missing or not base64url"),
        (without_alg.clone(), "`rsa` cannot be used: alg: is missing"),
        (jwk_with("p256", "alg", json!("ES384")), "alg: is not for a key of this type"),
        (jwk_with("p256", "crv", json!("P-384")), "must have 48 bytes"),
        (jwk_with("p256", "crv", json!("P-521")), "crv: is not supported"),
        (jwk_with("p256", "x", json!("AA")), "must have 32 bytes"),
        (jwk_with("ed", "crv", json!("Ed448")), "crv: is not supported"),
        (jwk_with("ed", "crv", json!("X25519")), "crv: is not supported"),
        (jwk_with("ed", "x", json!("AA")), "has 32 bytes"),
        (jwk_with("oct", "k", json!("AA")), "too short"),
        (jwk_with("oct", "alg", json!("RS256")), "alg: is not for a key of this type"),
        (jwk_with("ed", "kty", json!("AKP")), "kty: is not one of"),
        (jwk_with("ed", "x", json!(7)), "`ed` cannot be used: key: is not a JSON Web Key"),
        (jwk_with("ed", "kid", json!(7)), "key number 2 cannot be used"),
        (jwk_with("ed", "kid", json!("")), "kid: is empty"),
    ] {
        assert_refused(KeySet::from_jwk_set(&set(&[jwk("fine"), key])), part);
    }
    for text in ["", "[]", "{}", r#"{"keys": {}}"#, r#"{"keys": []}"#] {
        KeySet::from_jwk_set(text).unwrap_err();
    }
}

#[test]
fn a_lenient_set_skips_what_cannot_be_used_and_tells() {
    let mut entra = jwk_with("rsa", "kid", json!("entra"));
    entra.as_object_mut().unwrap().remove("alg");
    let keys = KeySet::from_jwk_set_lenient(&set(&[
        entra,
        jwk_with("rsa", "use", json!("enc")),
        jwk_with("ed", "kty", json!("AKP")),
        jwk("oct"),
        jwk("p256"),
        json!("nonsense"),
    ]))
    .unwrap();
    assert_eq!(
        keys.keys().iter().map(VerificationKey::kid).collect::<Vec<_>>(),
        [Some("entra"), Some("p256")]
    );
    assert_eq!(keys.keys()[0].algorithm(), Algorithm::RS256);
    assert_eq!(keys.skipped().len(), 4);
    assert!(keys.skipped()[2].to_string().contains("`oct` cannot be used: kty: is a secret"));
    assert_refused(
        KeySet::from_jwk_set_lenient(&set(&[jwk("oct")])),
        "holds no key that can be used",
    );
}

#[test]
fn a_verifier_wants_keys_that_can_be_told_apart() {
    let of = |secret| VerificationKey::from_secret(Algorithm::HS256, &[secret; 32]).unwrap();
    let key = || of(7);
    let verifier = |keys: Vec<VerificationKey>| JwtVerifier::new(keys, TokenProfile::new());
    let named = |kid: &str| of(kid.as_bytes()[0]).with_kid(kid).unwrap();
    verifier(vec![key()]).unwrap();
    verifier(vec![named("b"), named("a")]).unwrap();
    assert_refused(verifier(vec![]), "there is none");
    assert_refused(verifier(vec![key(), key()]), "has no `kid`");
    assert_refused(verifier(vec![named("a"), key()]), "has no `kid`");
    assert_refused(verifier(vec![named("a"), named("b"), named("a")]), "two have the `kid` `a`");
    assert_refused(JwtVerifier::new([key()], TokenProfile::new().with_issuer("")), "issuer");
}

#[test]
fn several_keys_of_one_name_are_told_apart_by_their_algorithms() {
    let kinds = ["rsa", "p256", "ed", "oct"];
    let mut keys: Vec<Value> = kinds.map(|kind| jwk_with(kind, "kid", json!("a"))).into();
    let mut pss = jwk_with("rsa", "kid", json!("a"));
    pss["alg"] = json!("PS512");
    keys.push(pss);
    for _ in 0..keys.len() {
        keys.rotate_left(1);
        for keys in [keys.clone(), keys.iter().rev().cloned().collect()] {
            let keys = KeySet::from_jwk_set(&set(&keys)).unwrap();
            let keys = VerifierKeys::new(keys.into_iter().collect()).unwrap();
            for alg in ["RS256", "PS512", "ES256", "EdDSA", "Ed25519", "HS256"] {
                assert!(keys.select(Some("a"), alg).unwrap().is_for(alg), "{alg}");
            }
            let kind = |kid, alg| keys.select(kid, alg).unwrap_err().kind();
            for alg in ["RS512", "PS256", "ES384", "none", "rs256", ""] {
                assert_eq!(kind(Some("a"), alg), TokenErrorKind::WrongAlgorithm, "{alg}");
            }
            assert_eq!(kind(Some("b"), "RS256"), TokenErrorKind::UnknownKey);
            assert_eq!(kind(Some(""), "RS256"), TokenErrorKind::UnknownKey);
            assert_eq!(kind(None, "RS256"), TokenErrorKind::UnknownKey, "there are several");
        }
    }
    keys.push(jwk_with("rsa", "kid", json!("a")));
    let twice = KeySet::from_jwk_set(&set(&keys)).unwrap();
    assert_refused(
        JwtVerifier::new(twice, TokenProfile::new()),
        "two have the `kid` `a` and the algorithm RS256",
    );
}

/// What an RSA key may verify that does not name its algorithm is a setting; what a key says itself
/// is not.
#[test]
fn the_algorithms_of_keys_without_alg_are_a_setting() {
    use Algorithm::*;
    let mut open = jwk("rsa");
    open.as_object_mut().unwrap().remove("alg");
    let json = set(&[open.clone(), jwk("p256")]);
    let algorithms =
        |keys: &KeySet| -> Vec<_> { keys.keys().iter().map(VerificationKey::algorithm).collect() };
    let lenient = |algorithms: &[Algorithm]| KeySet::from_jwk_set_lenient_with(&json, algorithms);
    assert_eq!(algorithms(&KeySet::from_jwk_set_lenient(&json).unwrap()), [RS256, ES256]);
    assert_eq!(
        algorithms(&lenient(&[PS256, RS512, PS256]).unwrap()),
        [PS256, RS512, ES256],
        "once for each"
    );
    let none = lenient(&[]).unwrap();
    assert_eq!(algorithms(&none), [ES256]);
    assert!(none.skipped()[0].to_string().contains("alg: is missing"), "{:?}", none.skipped());

    assert_refused(KeySet::from_jwk_set(&json), "alg: is missing");
    let strict = KeySet::from_jwk_set_with(&json, &[PS384]).unwrap();
    assert_eq!(algorithms(&strict), [PS384, ES256]);
    for bad in [HS256, ES256, EdDSA] {
        assert_refused(lenient(&[RS256, bad]), &format!("default_algorithms: names {bad}"));
        assert_refused(KeySet::from_jwk_set_with(&json, &[bad]), "only RSA keys without `alg`");
    }
    let mut open_secret = jwk("oct");
    open_secret.as_object_mut().unwrap().remove("alg");
    assert_refused(KeySet::from_jwk_set_with(&set(&[open_secret]), &[RS256]), "alg: is missing");

    // One key with two algorithms is one key, which a token need not name.
    open.as_object_mut().unwrap().remove("kid");
    let one = KeySet::from_jwk_set_with(&set(&[open]), &[RS256, PS256]).unwrap();
    let one = VerifierKeys::new(one.into_iter().collect()).unwrap();
    assert_eq!(one.select(None, "RS256").unwrap().algorithm(), RS256);
    assert_eq!(one.select(None, "PS256").unwrap().algorithm(), PS256);
    assert_eq!(one.select(None, "PS384").unwrap_err().kind(), TokenErrorKind::WrongAlgorithm);
}

/// RFC 7517 §4: a name twice means one key to one parser and another key to the next.
#[test]
fn a_set_with_a_member_twice_is_refused() {
    let x = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";
    let key = format!(r#"{{"kty":"OKP","crv":"Ed25519","kid":"a","x":"{x}"}}"#);
    let good = format!(r#"{{"keys":[{key}],"more":[{{"keys":1}},{{"keys":2}},1.5,-1,true,null]}}"#);
    KeySet::from_jwk_set(&good).unwrap();
    KeySet::from_jwk_set_lenient(&good).unwrap();
    VerificationKey::from_jwk(&key).unwrap();
    for member in [r#""kid":"b""#, r#""k\u0069d":"b""#, r#""kid":"a""#] {
        let twice = key.replace('}', &format!(",{member}}}"));
        assert_refused(VerificationKey::from_jwk(&twice), "a member twice");
        #[cfg(feature = "issuer")]
        assert_refused(SigningKey::from_jwk(&twice), "a member twice");
        for set in [format!(r#"{{"keys":[{twice}]}}"#), format!(r#"{{"keys":[{key},{twice}]}}"#)] {
            assert_refused(KeySet::from_jwk_set(&set), "a member twice");
            assert_refused(KeySet::from_jwk_set_lenient(&set), "a member twice");
        }
    }
    let unread = key.replace('}', r#","x5c":["a"],"x5c":["b"]}"#);
    for set in [
        format!(r#"{{"keys":[],"keys":[{key}]}}"#),
        format!(r#"{{"keys":[{unread}]}}"#),
        format!(r#"{{"keys":[{key}],"more":{{"a":1,"a":1}}}}"#),
    ] {
        assert_refused(KeySet::from_jwk_set(&set), "a member twice (line 1)");
        assert_refused(KeySet::from_jwk_set_lenient(&set), "a member twice (line 1)");
    }
}

#[test]
fn a_byte_order_mark_before_keys_is_skipped() {
    let marked = |json: &str| format!("\u{feff}{json}");
    KeySet::from_jwk_set(&marked(&set(&[jwk("ed")]))).unwrap();
    KeySet::from_jwk_set_lenient(&marked(&set(&[jwk("ed")]))).unwrap();
    VerificationKey::from_jwk(&marked(&jwk("ed").to_string())).unwrap();
    let pem = marked(std::str::from_utf8(file!("ed25519.pub.pem")).unwrap());
    VerificationKey::from_pem(Algorithm::EdDSA, pem.as_bytes()).unwrap();
    assert_refused(KeySet::from_jwk_set(&marked(&marked("{}"))), "no JSON");
}

#[test]
fn what_is_no_set_is_told_what_it_is() {
    for (json, part) in [
        ("<!doctype html><title>Sign in</title>", "a web page"),
        ("not JSON at all", "no JSON (line 1)"),
        ("{\n\"keys\": [,]}", "no JSON (line 2)"),
        ("[]", "no object with an array `keys`"),
        (r#"{"keys": {}}"#, "an object without an array `keys`"),
        (r#"{"issuer": "i", "jwks_uri": "https://id.example/"}"#, "a discovery document"),
    ] {
        assert_refused(KeySet::from_jwk_set(json), part);
        assert_refused(KeySet::from_jwk_set_lenient(json), part);
    }
}

/// With a public key for a secret everyone can sign: the classic confusion of algorithms.
#[test]
fn a_public_key_in_any_form_is_no_secret() {
    use base64::engine::general_purpose::STANDARD;

    let mut public: Vec<Vec<u8>> = Vec::new();
    let (rsa, ed) = (file!("rsa2048.pub.pem"), file!("ed25519.pub.pem"));
    for pem in [&rsa[..], file!("rsa2048.pkcs1.pub.pem"), file!("p256.pub.pem"), ed] {
        let (text, der) = (std::str::from_utf8(pem).unwrap(), der::pem(pem).unwrap().1);
        for text in [
            text.to_owned(),
            format!("\n  {text}"),
            format!("\u{feff}{text}"),
            format!("\u{feff} \u{feff}\t{text}"),
            format!("\"{text}\""),
            text.replace('\n', "\\n"),
            format!("Bag Attributes\n{text}"),
            STANDARD.encode(text),
            // The content without its frame, as some providers show it.
            STANDARD.encode(&der),
            format!(" {}\n", STANDARD.encode(&der)),
            STANDARD.encode(&der).trim_end_matches('=').to_owned(),
            text.lines().filter(|line| !line.starts_with('-')).collect::<Vec<_>>().join("\r\n"),
            URL_SAFE_NO_PAD.encode(&der),
        ] {
            let utf16 = text.encode_utf16();
            let little = utf16.clone().flat_map(u16::to_le_bytes);
            public.push([0xff, 0xfe].into_iter().chain(little).collect());
            let big = utf16.flat_map(u16::to_be_bytes);
            public.push([0xfe, 0xff].into_iter().chain(big).collect());
            public.push(text.into());
        }
        public.push(der);
    }
    // `ssh-keygen`.
    let blob = "AAAAC3NzaC1lZDI1NTE5AAAAINdamAGCsQq31Uv+08lkBzoO4XLz2qYjJa8CGmj3B1Ea";
    public.push(format!("ssh-ed25519 {blob} alice@example").into());
    public.push(format!("  ssh-ed25519 {blob}\n").into());
    public.push(blob.into());
    public.push(STANDARD.decode(blob).unwrap());
    public.push(b"ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTY".into());
    public.push(b"---- BEGIN SSH2 PUBLIC KEY ----\nAAAAC3NzaC1lZDI1NTE5".into());
    for kid in ["rsa", "p256", "ed", "oct"] {
        let jwk = jwk(kid);
        public.extend([jwk.to_string(), format!("\n{jwk:#}"), set(&[jwk])].map(Vec::from));
    }
    // An empty certificate: all that counts is the shape.
    let certificate = [
        &[0x30, 0x4b, 0x30, 0x00][..],
        &[0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70],
        &[0x03, 0x40, 0x00],
        &[7; 63],
    ]
    .concat();
    public.push(STANDARD.encode(&certificate).into());
    public.push(certificate);

    for der in [der::pem(&rsa[..]).unwrap().1, der::pem(file!("p256.pub.pem")).unwrap().1] {
        // `xxd -p` and `openssl pkey -text`, and base64 as Kubernetes has it around base64.
        let hex: Vec<_> = der.iter().map(|byte| format!("{byte:02x}")).collect();
        public.extend([hex.concat(), hex.concat().to_uppercase(), hex.join(":")].map(Vec::from));
        public.push(STANDARD.encode(STANDARD.encode(&der)).into());
        public.push(STANDARD.encode(hex.concat()).into());
        public.push(STANDARD.encode(&der).replace('A', "\nA").into());
    }
    let pem = std::str::from_utf8(file!("p256.pub.pem")).unwrap();
    public.push(pem.replace(' ', "%20").into());
    public.push(pem.replace(' ', "+").into());
    for pem in [&file!("p256.pub.pem")[..], file!("p384.pub.pem")] {
        let der = der::pem(pem).unwrap().1;
        let point = der::public_key_info(&der).unwrap().key.to_vec();
        public.push(STANDARD.encode(&point).into());
        public.push(point);
    }
    public.push(format!("from=\"10.0.0.1\" ssh-ed25519 {blob} alice").into());
    public.push(format!("git.example,10.0.0.1 ssh-ed25519 {blob}").into());
    public.push(b"<RSAKeyValue><Modulus>omeU</Modulus><Exponent>AQAB</Exponent>".into());
    let ed = jwk("ed").to_string();
    public.push(format!("[{ed}]").into());
    public.push(json!(ed).to_string().into());
    public.push(STANDARD.encode(json!([jwk("rsa")]).to_string()).into());

    for secret in public {
        let shown = String::from_utf8_lossy(&secret);
        let Err(error) = VerificationKey::from_secret(Algorithm::HS256, &secret) else {
            panic!("accepted: {shown}");
        };
        assert!(error.to_string().contains("not a secret"), "{error}: {shown}");
        #[cfg(feature = "issuer")]
        assert_refused(SigningKey::from_secret(Algorithm::HS256, &secret), "not a secret");
        let jwk = jwk_with("oct", "k", json!(URL_SAFE_NO_PAD.encode(&secret)));
        assert_refused(VerificationKey::from_jwk(&jwk.to_string()), "not a secret");
    }
}

#[test]
fn secrets_that_only_look_odd_are_secrets() {
    for secret in [
        "{\"a\": \"an object, but no key of any kind\"}",
        "    white space around a long secret     ",
        "-----begin nothing, 32 bytes or more",
        "bm90IGEga2V5LCBqdXN0IHNvbWUgdGV4dCBpbiBiYXNlNjQ=",
        "MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEA, cut",
        // `openssl rand -hex 32`, and the same again in base64.
        "6f1d9a04c2b7e85530fa61d8927b4ce31a5f0e8dd46c7b92a8135e04f7c6b219",
        "NmYxZDlhMDRjMmI3ZTg1NTMwZmE2MWQ4OTI3YjRjZTMxYTVmMGU4ZGQ0NmM3YjkyYTgxMzVlMDRmN2M2YjIxOQ==",
        "my ssh-rsa is not a key, but a phrase of many words",
        "[\"an array\", {\"of\": \"no keys\"}, 0123]",
        "<html>no key at all, but more than 32 bytes</html>",
    ] {
        VerificationKey::from_secret(Algorithm::HS256, secret.as_bytes()).unwrap();
    }
    for byte in 0..=255 {
        for len in [32, 48, 65, 97] {
            VerificationKey::from_secret(Algorithm::HS256, &vec![byte; len]).unwrap();
        }
    }
}

/// A modulus of two primes k·M + 65537ᵃ mod M, as the library of Infineon made them (Nemec et al.,
/// "The Return of Coppersmith's Attack", 2017, §2.1).
const ROCA: &str = "\
    omeUvBC2SApTT6UCCE56Xh3iCzqiMFwncfQJJkuMrRuL5mKR8a2Mgnqpe-6-PWSOKywPV6qwwQulQztko_nTKYvhuT\
    s4IO4wr18PS8rk_kleGAVCm7_D4SWnenktnTbNpYljUIxC57bS84MjVMmWJoEpWKy5i-fTeD3qfiyk72RRfZOhsaNA\
    ox2O84x9hUgEZQFhbuXx2dl4FPklNsAh9One19lggsEWzUOHBGLixvsX_YpwUbw8HZE0F5TrRrLV80JMxNg6TDTW_k\
    RRWWLV7dO00g8iLf50SqTavbLK-9fA0gNSUp8WKzjA_QthPaAZ3blRRYOFIuWa9wiegSTslw";

#[test]
fn keys_of_the_generator_that_was_broken_are_refused() {
    let broken = jwk_with("rsa", "n", json!(ROCA)).to_string();
    assert_refused(VerificationKey::from_jwk(&broken), "ROCA");
    assert_refused(KeySet::from_jwk_set(&format!(r#"{{"keys":[{broken}]}}"#)), "ROCA");
    let set = format!(r#"{{"keys":[{broken},{}]}}"#, jwk("ed"));
    let set = KeySet::from_jwk_set_lenient(&set).unwrap();
    assert!(set.skipped()[0].to_string().contains("ROCA"), "{:?}", set.skipped());
    // The next modulus, and the next after that, are of no key, but not of this generator either.
    let mut modulus = base64(ROCA).unwrap();
    for _ in 0..3 {
        modulus[255] = modulus[255].wrapping_add(2);
        VerificationKey::from_rsa_components(Algorithm::RS256, &modulus, &[1, 0, 1]).unwrap();
    }
}

/// Revoked under one name, it would go on under the other.
#[test]
fn one_secret_has_one_name() {
    use Algorithm::*;
    let key = |algorithm, secret: &[u8], kid: &str| {
        VerificationKey::from_secret(algorithm, secret).unwrap().with_kid(kid).unwrap()
    };
    let verifier = |keys: [VerificationKey; 2]| JwtVerifier::new(keys, TokenProfile::new());
    let (long, longer) = ([7; 64], [7; 65]);
    verifier([key(HS256, &long, "a"), key(HS256, &[8; 64], "b")]).unwrap();
    verifier([key(HS256, &long, "a"), key(HS256, &longer, "b")]).unwrap();
    for (one, other) in [
        (key(HS256, &long, "a"), key(HS256, &long, "b")),
        (key(HS256, &long, "a"), key(HS512, &long, "b")),
        (key(HS256, &long, "a"), key(HS512, &long, "a")),
        // HMAC adds zeros up to its block, and hashes what is longer (RFC 2104 §2).
        (key(HS256, &long[..40], "a"), key(HS256, &[&long[..40], &[0; 9]].concat(), "b")),
        (
            key(HS256, &longer, "a"),
            key(HS256, &<sha2::Sha256 as sha2::Digest>::digest(longer), "b"),
        ),
    ] {
        for keys in [[one.clone(), other.clone()], [other, one]] {
            assert_refused(verifier(keys), "are the same secret");
        }
    }
    let set = set(&[jwk("oct"), jwk_with("oct", "kid", json!("again"))]);
    let error = JwtVerifier::new(KeySet::from_jwk_set(&set).unwrap(), TokenProfile::new());
    assert_refused(error, "`again` and `oct` are the same secret");
}

#[cfg(feature = "jwks")]
#[test]
fn one_public_key_under_two_names_is_noticed() {
    let names = |keys: &[Value]| {
        let keys = KeySet::from_jwk_set_lenient(&set(keys)).unwrap();
        VerifierKeys::published(keys.into_iter().collect()).unwrap().0.names_of_one_key()
    };
    let other_alg = jwk_with("rsa", "alg", json!("PS256"));
    assert_eq!(names(&[jwk("rsa"), other_alg, jwk("ed"), jwk("p256")]), None);
    for kid in ["rsa", "ed", "p256"] {
        let again = jwk_with(kid, "kid", json!("\n0"));
        let expected = [r"`\n0`".to_owned(), format!("`{kid}`")];
        assert_eq!(names(&[jwk("ed"), jwk(kid), jwk("p256"), again]), Some(expected));
    }
    // Under two names for two algorithms.
    let mut again = jwk_with("rsa", "kid", json!("a"));
    again["alg"] = json!("PS256");
    assert_eq!(names(&[jwk("rsa"), again]), Some(["`a`".into(), "`rsa`".into()]));
}

/// It is written by others and goes to the log.
#[test]
fn the_name_of_a_key_is_quoted_in_part_and_without_control_characters() {
    let named = |kid: &str| json!({"kty": "EC", "crv": "P-256", "use": "enc", "kid": kid});
    for (kid, shown) in [
        (
            "a\nlevel=ERROR \u{1b}[2J`",
            r"the key `a\nlevel=ERROR \u{1b}[2J`` cannot be used".to_owned(),
        ),
        (&"x".repeat(64), format!("the key `{}` cannot be used", "x".repeat(64))),
        (&"ä".repeat(100_000), format!("the key `{}…` cannot be used", "ä".repeat(64))),
    ] {
        for error in [
            KeySet::from_jwk_set_lenient(&set(&[named(kid)])).unwrap_err(),
            KeySet::from_jwk_set(&set(&[named(kid)])).unwrap_err(),
        ] {
            assert!(error.to_string().contains(&shown), "{error}");
        }
    }
}

#[test]
fn errors_about_keys_do_not_quote_them() {
    let canary = "canary7canary7canary7canary7canary7canary7";
    for result in [
        VerificationKey::from_jwk(
            &json!({"kty": "oct", "alg": "HS256", "k": [canary]}).to_string(),
        ),
        VerificationKey::from_jwk(&json!({"kty": "oct", "k": canary}).to_string()),
        VerificationKey::from_jwk(&format!(r#"{{"kty":"oct","k":"{canary}""#)),
        VerificationKey::from_secret(Algorithm::HS512, canary.as_bytes()),
        VerificationKey::from_der(Algorithm::RS256, canary.as_bytes()),
        VerificationKey::from_pem(Algorithm::RS256, canary.as_bytes()),
    ] {
        let error = result.unwrap_err();
        assert!(!format!("{error} {error:?}").contains("canary7"), "{error:?}");
    }
}
