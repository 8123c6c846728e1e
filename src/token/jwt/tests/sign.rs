//! Keys that sign, in every form.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

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
            let mut key = der::Reader::new(&der).sequence().unwrap();
            let mut jwk = json!({"kty": "RSA", "kid": kid, "alg": "PS256"});
            for name in ["version", "n", "e", "d", "p", "q", "dp", "dq", "qi"] {
                jwk[name] = encode(key.unsigned().unwrap()).into();
            }
            jwk
        }
        "p256" => {
            let der = der_of(file!("p256.sec1.pem"));
            let mut key = der::Reader::new(&der).sequence().unwrap();
            key.unsigned().unwrap();
            let d = key.element(der::OCTET_STRING).unwrap();
            let public = der_of(file!("p256.pub.pem"));
            let point = der::public_key_info(&public).unwrap().key;
            json!({"kty": "EC", "kid": kid, "crv": "P-256", "d": encode(d), "x": encode(&point[1..33]), "y": encode(&point[33..])})
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
        let public = VerificationKey::from_rsa_pem(algorithm, file!("rsa2048.pub.pem")).unwrap();
        for pem in [file!("rsa2048.pem").as_slice(), file!("rsa2048.pkcs1.pem")] {
            assert_pair(&SigningKey::from_rsa_pem(algorithm, pem).unwrap(), &public);
            assert_pair(&SigningKey::from_rsa_der(algorithm, &der_of(pem)).unwrap(), &public);
        }
    }
    let p256 = VerificationKey::from_ec_pem(ES256, file!("p256.pub.pem")).unwrap();
    assert_pair(&SigningKey::from_ec_pem(ES256, file!("p256.pem")).unwrap(), &p256);
    assert_pair(&SigningKey::from_ec_pem(ES256, file!("p256.sec1.pem")).unwrap(), &p256);
    assert_pair(&SigningKey::from_ec_der(ES256, &der_of(file!("p256.pem"))).unwrap(), &p256);
    let p384 = VerificationKey::from_ec_pem(ES384, file!("p384.pub.pem")).unwrap();
    assert_pair(&SigningKey::from_ec_pem(ES384, file!("p384.pem")).unwrap(), &p384);
    let ed = VerificationKey::from_ed_pem(file!("ed25519.pub.pem")).unwrap();
    assert_pair(&SigningKey::from_ed_pem(file!("ed25519.pem")).unwrap(), &ed);
    let secret = VerificationKey::from_secret(HS512, &[7; 64]).unwrap();

    let rsa = VerificationKey::from_rsa_pem(PS256, file!("rsa2048.pub.pem")).unwrap();
    for (kid, public) in [("rsa", rsa), ("p256", p256), ("ed", ed), ("oct", secret)] {
        let key = SigningKey::from_jwk(&jwk(kid).to_string()).unwrap();
        assert_eq!((key.kid(), key.verification_key().kid()), (Some(kid), Some(kid)));
        assert_pair(&key, &public);
        assert!(!format!("{key:?}").contains("canary7"));
    }
}

#[test]
fn an_ed25519_key_with_its_public_part_attached_is_read() {
    // Version 2 of PKCS#8 (RFC 8410 §10.3), as ring and rcgen write it.
    let v1 = der_of(file!("ed25519.pem"));
    let public = der_of(file!("ed25519.pub.pem"));
    let attached = der::write(0x81, &[&[0], der::public_key_info(&public).unwrap().key]);
    let v2 = der::write(der::SEQUENCE, &[&der::write_unsigned(&[1]), &v1[5..], &attached]);
    let key = SigningKey::from_ed_der(&v2).unwrap();
    assert_pair(&key, &VerificationKey::from_ed_der(&public).unwrap());
}

#[test]
fn keys_that_cannot_sign_are_refused() {
    assert_refused(SigningKey::from_secret(HS256, &[7; 31]), "too short");
    assert_refused(SigningKey::from_rsa_pem(RS256, file!("rsa2048.pub.pem")), "is a public key");
    assert_refused(SigningKey::from_rsa_pem(ES256, file!("rsa2048.pem")), "is not for this kind");
    assert_refused(SigningKey::from_rsa_pem(RS256, file!("p256.pem")), "is not an RSA key");
    assert_refused(SigningKey::from_rsa_der(RS256, &[7; 9]), "is not an RSA private key");
    assert_refused(SigningKey::from_ec_pem(ES384, file!("p256.pem")), "is not on the curve");
    assert_refused(SigningKey::from_ec_pem(ES384, file!("p256.sec1.pem")), "key: ");
    assert_refused(SigningKey::from_ec_pem(ES256, file!("p521.pem")), "is not on the curve");
    assert_refused(
        SigningKey::from_ec_pem(ES256, file!("ed25519.pem")),
        "is not an EC private key",
    );
    assert_refused(SigningKey::from_ed_pem(file!("ed448.pem")), "is not an Ed25519 private key");
    assert_refused(SigningKey::from_ed_pem(file!("p256.pem")), "is not an Ed25519 private key");
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

#[test]
fn der_is_written_as_it_is_read() {
    for len in [0, 1, 127, 128, 255, 256, 65535, 65536] {
        let content = vec![0xab; len];
        let der = der::write(der::OCTET_STRING, &[&content]);
        assert_eq!(der::Reader::new(&der).element(der::OCTET_STRING), Some(&*content), "{len}");
    }
    for (number, der) in [
        (&[][..], &[2, 1, 0][..]),
        (&[0, 0], &[2, 1, 0]),
        (&[0x80], &[2, 2, 0, 0x80]),
        (&[0, 1], &[2, 1, 1]),
    ] {
        assert_eq!(der::write_unsigned(number), der);
    }
}
