//! Keys that sign, in every form.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use pkcs1::RsaPrivateKey;
use sec1::EcPrivateKey;
use serde_json::{Value, json};
use spki::der::Decode as _;
use spki::der::asn1::UintRef;

use super::keys::{assert_refused, file};
use crate::token::Algorithm::*;
use crate::token::jwt::*;

fn der_of(pem: &[u8]) -> Vec<u8> {
    der::pem(pem).unwrap().1
}

fn encode(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// The private keys in `tests/keys`, as JSON Web Keys.
fn jwk(kid: &str) -> Value {
    match kid {
        "rsa" => {
            let der = der_of(file!("rsa2048.pkcs1.pem"));
            let key: RsaPrivateKey<UintRef<'_>> = RsaPrivateKey::from_der(&der).unwrap();
            let mut jwk = json!({"kty": "RSA", "kid": kid, "alg": "PS256"});
            for (name, number) in [
                ("n", key.modulus),
                ("e", key.public_exponent),
                ("d", key.private_exponent),
                ("p", key.prime1),
                ("q", key.prime2),
                ("dp", key.exponent1),
                ("dq", key.exponent2),
                ("qi", key.coefficient),
            ] {
                jwk[name] = encode(number.as_bytes()).into();
            }
            jwk
        }
        "p256" => {
            let der = der_of(file!("p256.sec1.pem"));
            let d = EcPrivateKey::from_der(&der).unwrap().private_key;
            let public = der_of(file!("p256.pub.pem"));
            let point = der::public_key_info(&public).unwrap().key;
            let (x, y) = (encode(&point[1..33]), encode(&point[33..]));
            json!({"kty": "EC", "kid": kid, "crv": "P-256", "d": encode(d), "x": x, "y": y})
        }
        "ed" => {
            let der = der_of(file!("ed25519.pem"));
            let public = der_of(file!("ed25519.pub.pem"));
            let x = encode(der::public_key_info(&public).unwrap().key);
            json!({"kty": "OKP", "kid": kid, "crv": "Ed25519", "d": encode(&der[16..]), "x": x})
        }
        _ => json!({"kty": "oct", "kid": kid, "alg": "HS512", "k": encode(&[7; 64])}),
    }
}

fn jwk_with(kid: &str, name: &str, value: Value) -> String {
    let mut jwk = jwk(kid);
    jwk[name] = value;
    jwk.to_string()
}

/// Whether the published key accepts what the private one signs, and no other does.
#[track_caller]
fn assert_pair(private: &SigningKey, public: &VerificationKey) {
    let signature = private.sign("text").unwrap();
    assert!(public.fits("text", &signature));
    assert!(private.verification_key().fits("text", &signature));
    assert!(!public.fits("texts", &signature));
}

#[test]
fn private_keys_in_all_their_forms() {
    for algorithm in [RS256, RS384, RS512, PS256, PS384, PS512] {
        let public = VerificationKey::from_pem(algorithm, file!("rsa2048.pub.pem")).unwrap();
        for pem in [file!("rsa2048.pem").as_slice(), file!("rsa2048.pkcs1.pem")] {
            assert_pair(&SigningKey::from_pem(algorithm, pem).unwrap(), &public);
            assert_pair(&SigningKey::from_der(algorithm, &der_of(pem)).unwrap(), &public);
        }
    }
    let p256 = VerificationKey::from_pem(ES256, file!("p256.pub.pem")).unwrap();
    assert_pair(&SigningKey::from_pem(ES256, file!("p256.pem")).unwrap(), &p256);
    assert_pair(&SigningKey::from_pem(ES256, file!("p256.sec1.pem")).unwrap(), &p256);
    for pem in [file!("p256.pem").as_slice(), file!("p256.sec1.pem")] {
        assert_pair(&SigningKey::from_der(ES256, &der_of(pem)).unwrap(), &p256);
    }
    let p384 = VerificationKey::from_pem(ES384, file!("p384.pub.pem")).unwrap();
    assert_pair(&SigningKey::from_pem(ES384, file!("p384.pem")).unwrap(), &p384);
    let ed = VerificationKey::from_pem(EdDSA, file!("ed25519.pub.pem")).unwrap();
    assert_pair(&SigningKey::from_pem(EdDSA, file!("ed25519.pem")).unwrap(), &ed);
    let secret = VerificationKey::from_secret(HS512, &[7; 64]).unwrap();

    let rsa = VerificationKey::from_pem(PS256, file!("rsa2048.pub.pem")).unwrap();
    for (kid, public) in [("rsa", rsa), ("p256", p256), ("ed", ed), ("oct", secret)] {
        let key = SigningKey::from_jwk(&jwk(kid).to_string()).unwrap();
        assert_eq!((key.kid(), key.verification_key().kid()), (Some(kid), Some(kid)));
        assert_pair(&key, &public);
        assert!(!format!("{key:?}").contains("canary7"));
    }
}

/// What is made ready once decides as what is read anew for each token.
#[test]
#[cfg(feature = "aws_lc_rs")]
fn a_key_that_was_made_ready_decides_as_the_provider_does() {
    let secret = |algorithm| SigningKey::from_secret(algorithm, &[7; 64]).unwrap();
    let pem = |algorithm, pem: &[u8]| SigningKey::from_pem(algorithm, pem).unwrap();
    let mut keys: Vec<_> = [HS256, HS384, HS512].map(secret).into();
    keys.extend([RS256, RS384, RS512].map(|rs| pem(rs, file!("rsa2048.pem"))));
    keys.extend([PS256, PS384, PS512].map(|ps| pem(ps, file!("rsa2048.pem"))));
    keys.push(pem(ES256, file!("p256.pem")));
    keys.push(pem(ES384, file!("p384.pem")));
    keys.push(pem(EdDSA, file!("ed25519.pem")));
    for key in keys {
        let public = key.verification_key();
        assert!(public.is_prepared(), "{}", key.algorithm());
        let signature = key.sign("text").unwrap();
        let bytes = URL_SAFE_NO_PAD.decode(&signature).unwrap();
        let mut forms = vec![signature.clone(), String::new(), "A".into(), "+".into()];
        forms.extend([format!("{signature}="), format!("{signature}A"), signature[1..].into()]);
        forms.extend([encode(&[&*bytes, &[0]].concat()), encode(&[&[0], &*bytes].concat())]);
        forms.extend([encode(&vec![0; bytes.len()]), encode(&vec![255; bytes.len()])]);
        forms.push(encode(&[1; 5000]));
        for at in [0, bytes.len() / 2, bytes.len() - 1] {
            let mut other = bytes.clone();
            other[at] ^= 1;
            forms.push(encode(&other));
        }
        for form in forms {
            for text in ["text", "texts", ""] {
                let expected = text == "text" && form == signature;
                assert_eq!(public.fits(text, &form), expected, "{} {form}", key.algorithm());
                assert_eq!(public.fits_by_provider(text, &form), expected);
            }
        }
    }
}

/// Version 2 of PKCS#8 (RFC 8410 §10.3): as rcgen and OpenSSL write it, and as ring does.
#[test]
fn an_ed25519_key_with_its_public_part_attached_is_read() {
    let v1 = der_of(file!("ed25519.pem"));
    let public = der_of(file!("ed25519.pub.pem"));
    let point = der::public_key_info(&public).unwrap().key;
    for head in [&[0x81, 0x21, 0][..], &[0xa1, 0x23, 0x03, 0x21, 0]] {
        let content = [&[2, 1, 1], &v1[5..], head, point].concat();
        let v2 = [&[0x30, u8::try_from(content.len()).unwrap()], &*content].concat();
        let key = SigningKey::from_der(EdDSA, &v2).unwrap();
        assert_pair(&key, &VerificationKey::from_der(EdDSA, &public).unwrap());
    }
}

#[test]
fn keys_that_cannot_sign_are_refused() {
    assert_refused(SigningKey::from_secret(HS256, &[7; 31]), "too short");
    assert_refused(SigningKey::from_pem(RS256, file!("rsa2048.pub.pem")), "is a public key");
    assert_refused(SigningKey::from_pem(HS256, file!("rsa2048.pem")), "is not for this kind");
    assert_refused(SigningKey::from_pem(ES256, file!("rsa2048.pem")), "is not an EC private key");
    assert_refused(SigningKey::from_pem(RS256, file!("p256.pem")), "is not an RSA key");
    assert_refused(SigningKey::from_der(RS256, &[7; 9]), "is not an RSA private key");
    assert_refused(SigningKey::from_pem(ES384, file!("p256.pem")), "is not on the curve");
    assert_refused(SigningKey::from_pem(ES384, file!("p256.sec1.pem")), "key: ");
    assert_refused(SigningKey::from_pem(ES256, file!("p521.pem")), "is not on the curve");
    assert_refused(SigningKey::from_pem(ES256, file!("ed25519.pem")), "is not an EC private key");
    assert_refused(
        SigningKey::from_pem(EdDSA, file!("ed448.pem")),
        "is not an Ed25519 private key",
    );
    assert_refused(SigningKey::from_pem(EdDSA, file!("p256.pem")), "is not an Ed25519 private key");
    for (jwk, part) in [
        (jwk_with("rsa", "use", json!("enc")), "use: "),
        (jwk_with("rsa", "key_ops", json!(["verify"])), "does not name `sign`"),
        (jwk_with("rsa", "p", json!(null)), "p: is missing"),
        (jwk_with("rsa", "d", json!("AQAB")), "key: "),
        (jwk_with("p256", "d", json!(null)), "d: is missing"),
        (jwk_with("p256", "y", json!(encode(&[7; 32]))), "key: "),
        (jwk_with("ed", "d", json!("AA")), "has 32 bytes"),
        (jwk_with("ed", "x", json!(encode(&[7; 32]))), "x: does not belong to `d`"),
        (jwk_with("oct", "k", json!("AA")), "too short"),
        (jwk_with("oct", "alg", json!(null)), "alg: is missing"),
    ] {
        assert_refused(SigningKey::from_jwk(&jwk), part);
    }
}
