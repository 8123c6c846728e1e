//! Each preset with a key set and tokens of the shape that the provider publishes, signed by keys
//! of ours: one that is good, and those that must not pass for it.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jsonwebtoken::EncodingKey;
use serde_json::{Value, json};

use super::*;
use crate::clock::{ManualClock, Timestamp};
use crate::token::TokenErrorKind::{
    self, BadSignature, ForbiddenClaim, LifetimeTooLong, MissingClaim, MissingId, WrongAlgorithm,
    WrongAudience, WrongIssuer, WrongType,
};
use crate::token::jwt::KeySet;
use crate::token::{Algorithm, TokenVerifier as _};

const NOW: u64 = 1_700_000_000;
const SECRET: [u8; 32] = [7; 32];
const TENANT: &str = "8f3c1a52-0f7e-4f0a-9c3e-3b8f6f0c2d11";

/// A set as it is published, in which the key `active` is one of ours.
macro_rules! published {
    ($file:literal) => {
        include_str!(concat!("../../../tests/interop/providers/", $file)).to_owned()
    };
}

/// Of whom the key is with which a token is signed.
#[derive(Clone, Copy)]
enum Signer {
    Rsa,
    Ec,
    Secret,
}

fn der(pem: &str) -> Vec<u8> {
    let lines = pem.lines().filter(|line| !line.starts_with('-'));
    STANDARD.decode(lines.collect::<String>()).unwrap()
}

/// The same token as a provider sends it that writes no type into the header.
fn untyped(header: &Value) -> Value {
    with(header, &json!({"typ": null}))
}

fn mint(signer: Signer, header: &Value, claims: &Value) -> String {
    let (key, algorithm) = match signer {
        Signer::Rsa => (
            EncodingKey::from_rsa_der(&der(include_str!("../../../tests/keys/rsa2048.pkcs1.pem"))),
            jsonwebtoken::Algorithm::RS256,
        ),
        Signer::Ec => (
            EncodingKey::from_ec_der(&der(include_str!("../../../tests/keys/p256.pem"))),
            jsonwebtoken::Algorithm::ES256,
        ),
        Signer::Secret => {
            (EncodingKey::from_secret(&SECRET).unwrap(), jsonwebtoken::Algorithm::HS256)
        }
    };
    let part = |json: &Value| URL_SAFE_NO_PAD.encode(json.to_string());
    let input = format!("{}.{}", part(header), part(claims));
    let signature = jsonwebtoken::crypto::sign(input.as_bytes(), &key, algorithm).unwrap();
    format!("{input}.{signature}")
}

/// A set of one RSA key, and one of an elliptic curve; `more` is what else the provider says of
/// them.
fn set(more: &Value) -> String {
    let rsa = der(include_str!("../../../tests/keys/rsa2048.pkcs1.pub.pem"));
    // SEQUENCE, INTEGER with a leading zero, INTEGER.
    let n = URL_SAFE_NO_PAD.encode(&rsa[9..9 + 256]);
    let mut rsa = json!({"kty": "RSA", "kid": "active", "n": n, "e": "AQAB"});
    let ec = der(include_str!("../../../tests/keys/p256.pub.pem"));
    let (x, y) = (&ec[ec.len() - 64..ec.len() - 32], &ec[ec.len() - 32..]);
    let (x, y) = (URL_SAFE_NO_PAD.encode(x), URL_SAFE_NO_PAD.encode(y));
    let ec = json!({
        "kty": "EC", "crv": "P-256", "kid": "ec", "alg": "ES256", "use": "sig", "ext": true,
        "key_ops": ["verify"], "x": x, "y": y,
    });
    rsa.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    json!({"keys": [rsa, ec]}).to_string()
}

/// `claims` with some of them replaced; `null` takes one out.
fn with(claims: &Value, changes: &Value) -> Value {
    let mut claims = claims.clone();
    for (name, value) in changes.as_object().unwrap() {
        claims[name] = value.clone();
    }
    claims.as_object_mut().unwrap().retain(|_, value| !value.is_null());
    claims
}

struct Case {
    provider: Provider,
    keys: String,
    signer: Signer,
    typ: &'static str,
    good: Value,
    /// The kinds and ids by which the good token can be revoked, as text.
    targets: &'static [&'static str],
    bad: Vec<(&'static str, Value, TokenErrorKind)>,
}

impl Case {
    fn header(&self) -> Value {
        match self.signer {
            Signer::Rsa => json!({"alg": "RS256", "typ": self.typ, "kid": "active"}),
            Signer::Ec => json!({"alg": "ES256", "typ": self.typ, "kid": "ec"}),
            Signer::Secret => json!({"alg": "HS256", "typ": self.typ}),
        }
    }

    #[track_caller]
    fn assert(self, name: &str) {
        let clock = ManualClock::new(Timestamp::from_secs(NOW));
        let provider = self.provider.clone();
        let verifier = match self.signer {
            Signer::Secret => {
                let key = VerificationKey::from_secret(Algorithm::HS256, &SECRET).unwrap();
                provider.verifier([key])
            }
            _ => provider.verifier(KeySet::from_jwk_set_lenient(&self.keys).unwrap()),
        };
        let verifier = verifier.unwrap().with_clock(clock);
        let times = json!({"iat": NOW - 10, "exp": NOW + 290});
        let good = with(&times, &self.good);
        let header = self.header();
        let token = verifier.verify(&mint(self.signer, &header, &good));
        let token = token.unwrap_or_else(|error| panic!("{name}: {error}"));
        let found: Vec<_> = token
            .targets()
            .iter()
            .map(|target| format!("{} {}", target.kind(), token.describe(target).id()))
            .collect();
        for target in self.targets {
            assert!(found.iter().any(|found| found == target), "{name}: no {target} in {found:?}");
        }
        let refused = |what: &str, token: &str, kind: TokenErrorKind| {
            let error = verifier.verify(token).expect_err(&format!("{name}: {what} was accepted"));
            assert_eq!(error.kind(), kind, "{name}: {what}: {error}");
        };
        verifier.verify(&mint(self.signer, &untyped(&header), &good)).unwrap();
        for typ in ["logout+jwt", "id+jwt", "refresh+jwt", "dpop+jwt"] {
            let foreign = with(&header, &json!({"typ": typ}));
            refused(typ, &mint(self.signer, &foreign, &good), WrongType);
        }
        for (what, changes, kind) in &self.bad {
            refused(what, &mint(self.signer, &header, &with(&good, changes)), *kind);
        }
        let mut forged = mint(self.signer, &header, &good);
        let last = forged.rfind('.').unwrap() + 5;
        let other = if forged.as_bytes()[last] == b'A' { "B" } else { "A" };
        forged.replace_range(last..=last, other);
        refused("a forged token", &forged, BadSignature);
        if !matches!(self.signer, Signer::Secret) {
            // With the public key of the provider as if it were a secret.
            let confused = with(&header, &json!({"alg": "HS256"}));
            refused("another algorithm", &mint(Signer::Secret, &confused, &good), WrongAlgorithm);
        }
        #[cfg(feature = "jwks")]
        assert_eq!(
            self.provider.jwks().is_ok(),
            !matches!(self.signer, Signer::Secret),
            "{name}: where the keys are"
        );
    }
}

#[test]
fn keycloak() {
    let issuer = "https://id.example/realms/shop";
    Case {
        provider: Provider::keycloak(issuer, "orders"),
        keys: published!("keycloak.json"),
        signer: Signer::Rsa,
        typ: "JWT",
        good: json!({
            "jti": "onrtac:6e0a", "iss": issuer, "aud": ["orders", "account"], "sub": "u-1",
            "typ": "Bearer", "azp": "web", "sid": "s-1", "acr": "1",
            "realm_access": {"roles": ["offline_access"]}, "scope": "openid email",
        }),
        targets: &["token onrtac:6e0a", "user u-1", "session s-1", "client web", "key active"],
        bad: vec![
            (
                "an ID token",
                json!({"typ": "ID", "aud": "orders", "at_hash": "h", "nonce": "n"}),
                WrongType,
            ),
            ("a refresh token", json!({"typ": "Refresh", "aud": issuer}), WrongType),
            ("an offline token", json!({"typ": "Offline"}), WrongType),
            ("a logout token", json!({"typ": "Logout"}), WrongType),
            ("a token that does not say what it is", json!({"typ": null}), MissingClaim),
            ("another realm", json!({"iss": "https://id.example/realms/other"}), WrongIssuer),
            ("another client", json!({"aud": "account"}), WrongAudience),
        ],
    }
    .assert("keycloak");
    assert!(Provider::keycloak(issuer, "orders").profile().has_recurring_sessions(None));
}

#[test]
fn entra() {
    let v2 = format!("https://login.microsoftonline.com/{TENANT}/v2.0");
    let v1 = format!("https://sts.windows.net/{TENANT}/");
    let groups = vec!["0".repeat(36); 200];
    let good = json!({
        "aud": "api", "sub": "pairwise", "oid": "object", "tid": TENANT, "uti": "u_1",
        "scp": "orders.read", "groups": groups, "nbf": NOW - 10, "rh": "0.A",
        // With continuous access evaluation.
        "exp": NOW + 28 * 3600,
    });
    for (provider, version, client, issuer, other) in [
        (Provider::entra_v2(TENANT, "api"), "2.0", "azp", &v2, &v1),
        (Provider::entra_v1(TENANT, "api"), "1.0", "appid", &v1, &v2),
    ] {
        let own = json!({"iss": issuer, "ver": version, client: "app"});
        Case {
            provider,
            // Without `alg`.
            keys: published!("entra.json"),
            signer: Signer::Rsa,
            typ: "JWT",
            good: with(&good, &own),
            targets: &["token u_1", "user pairwise", "user object", "client app"],
            bad: vec![
                ("an ID token", json!({client: null, "scp": null, "nonce": "n"}), MissingClaim),
                ("the other version", json!({"iss": other}), WrongIssuer),
                ("another tenant", json!({"iss": issuer.replace('8', "9")}), WrongIssuer),
                (
                    "another API",
                    json!({"aud": "00000003-0000-0000-c000-000000000000"}),
                    WrongAudience,
                ),
                ("a token of another version", json!({"ver": "3.0"}), ForbiddenClaim),
                ("a token without id", json!({"uti": null}), MissingId),
                ("a token for ever", json!({"exp": NOW + 40 * 3600}), LifetimeTooLong),
            ],
        }
        .assert(version);
    }
}

#[test]
fn auth0() {
    let issuer = "https://shop.eu.auth0.com/";
    let case = |typ, more: Value, targets| Case {
        provider: Provider::auth0("shop.eu.auth0.com", "https://api.shop.example"),
        keys: published!("auth0.json"),
        signer: Signer::Rsa,
        typ,
        good: with(
            &json!({
                "iss": issuer, "sub": "auth0|1",
                "aud": ["https://api.shop.example", "https://shop.eu.auth0.com/userinfo"],
                "scope": "openid", "exp": NOW - 10 + 86_400,
            }),
            &more,
        ),
        targets,
        bad: vec![
            ("an ID token", json!({"aud": "client", "sid": "s", "nonce": "n"}), WrongAudience),
            ("another tenant", json!({"iss": "https://else.eu.auth0.com/"}), WrongIssuer),
            (
                "the issuer without its slash",
                json!({"iss": "https://shop.eu.auth0.com"}),
                WrongIssuer,
            ),
        ],
    };
    case("JWT", json!({"azp": "web"}), &["user auth0|1", "client web"]).assert("auth0");
    case(
        "at+jwt",
        json!({"client_id": "web", "jti": "j"}),
        &["user auth0|1", "client web", "token j"],
    )
    .assert("auth0, RFC 9068");
}

#[test]
fn okta() {
    for (provider, issuer, audience) in [
        (
            Provider::okta("shop.okta.com", "default", "api://default"),
            "https://shop.okta.com/oauth2/default",
            "api://default",
        ),
        (Provider::okta_org("shop.okta.com"), "https://shop.okta.com", "https://shop.okta.com"),
    ] {
        Case {
            provider,
            keys: set(&json!({"alg": "RS256", "use": "sig"})),
            signer: Signer::Rsa,
            // The custom server writes none.
            typ: if audience == "api://default" {
                "JWT"
            } else {
                "application/okta-internal-at+jwt"
            },
            good: json!({
                "ver": 1, "jti": "AT.x", "iss": issuer, "aud": audience, "cid": "web",
                "uid": "00u1", "scp": ["openid"], "auth_time": NOW - 20, "sub": "a@shop.example",
            }),
            targets: &["token AT.x", "user a@shop.example", "user 00u1", "client web"],
            bad: vec![
                (
                    "an ID token",
                    json!({"jti": "ID.x", "aud": "web", "cid": null, "at_hash": "h"}),
                    WrongType,
                ),
                ("an ID token for the API", json!({"jti": "ID.x", "cid": null}), MissingClaim),
                (
                    "another server",
                    json!({"iss": "https://shop.okta.com/oauth2/aus1"}),
                    WrongIssuer,
                ),
                ("another API", json!({"aud": "api://other"}), WrongAudience),
            ],
        }
        .assert(issuer);
    }
}

#[test]
fn cognito() {
    let issuer = "https://cognito-idp.eu-west-1.amazonaws.com/eu-west-1_Pool";
    Case {
        provider: Provider::cognito("eu-west-1", "eu-west-1_Pool", "web"),
        keys: published!("cognito.json"),
        signer: Signer::Rsa,
        typ: "JWT",
        good: json!({
            "sub": "u", "iss": issuer, "client_id": "web", "origin_jti": "f", "event_id": "e",
            "token_use": "access", "scope": "aws.cognito.signin.user.admin", "jti": "j",
            "auth_time": NOW - 10, "username": "alice", "version": 2, "device_key": "d",
        }),
        targets: &["token j", "family f", "user u", "device d", "client web"],
        bad: vec![
            ("an ID token", json!({"token_use": "id", "aud": "web", "client_id": null}), WrongType),
            ("a token that does not say what it is", json!({"token_use": null}), MissingClaim),
            ("another client", json!({"client_id": "other"}), ForbiddenClaim),
            (
                "another pool",
                json!({"iss": "https://cognito-idp.eu-west-1.amazonaws.com/eu-west-1_Else"}),
                WrongIssuer,
            ),
        ],
    }
    .assert("cognito");
    let china = Provider::cognito("cn-north-1", "p", "web");
    let issuer = china.profile().only_issuer();
    assert_eq!(issuer, Ok("https://cognito-idp.cn-north-1.amazonaws.com.cn/p"));
}

#[test]
fn google_and_firebase() {
    let keys = || published!("google.json");
    Case {
        provider: Provider::google("1.apps.googleusercontent.com"),
        keys: keys(),
        signer: Signer::Rsa,
        typ: "JWT",
        good: json!({
            "iss": "https://accounts.google.com", "azp": "1.apps.googleusercontent.com",
            "aud": "1.apps.googleusercontent.com", "sub": "110", "at_hash": "h", "nonce": "n",
            "email": "a@shop.example", "email_verified": true,
        }),
        targets: &["user 110", "client 1.apps.googleusercontent.com"],
        bad: vec![
            ("another client", json!({"aud": "2.apps.googleusercontent.com"}), WrongAudience),
            ("another issuer", json!({"iss": "https://securetoken.google.com/shop"}), WrongIssuer),
            (
                "a security event",
                json!({"events": {"https://schemas.openid.net/x": {}}}),
                WrongType,
            ),
        ],
    }
    .assert("google");
    Case {
        provider: Provider::firebase("shop"),
        keys: keys(),
        signer: Signer::Rsa,
        typ: "JWT",
        good: json!({
            "iss": "https://securetoken.google.com/shop", "aud": "shop", "auth_time": NOW - 10,
            "user_id": "u", "sub": "u",
            "firebase": {"identities": {}, "sign_in_provider": "password"},
        }),
        targets: &["user u"],
        bad: vec![
            ("another project", json!({"iss": "https://securetoken.google.com/else"}), WrongIssuer),
            (
                "a cookie of the project",
                json!({"iss": "https://session.firebase.google.com/shop"}),
                WrongIssuer,
            ),
            ("another audience", json!({"aud": "else"}), WrongAudience),
            ("nobody", json!({"sub": null}), MissingClaim),
        ],
    }
    .assert("firebase");
}

#[test]
fn supabase() {
    let good = json!({
        "iss": "https://abc.supabase.co/auth/v1", "aud": "authenticated", "sub": "u",
        "role": "authenticated", "aal": "aal1", "session_id": "s", "is_anonymous": false,
        "amr": [{"method": "password", "timestamp": NOW - 10}], "app_metadata": {},
    });
    let case = |signer| Case {
        provider: Provider::supabase("https://abc.supabase.co/"),
        keys: set(&json!({})),
        signer,
        typ: "JWT",
        good: good.clone(),
        targets: &["user u", "session s"],
        bad: vec![
            ("another project", json!({"iss": "https://abd.supabase.co/auth/v1"}), WrongIssuer),
            (
                "an API key",
                json!({"iss": "supabase", "aud": null, "role": "service_role"}),
                WrongIssuer,
            ),
            ("nobody in particular", json!({"aud": "anon"}), WrongAudience),
        ],
    };
    case(Signer::Ec).assert("supabase");
    let key = VerificationKey::from_secret(Algorithm::HS256, &SECRET).unwrap();
    let verifier = Provider::supabase("https://abc.supabase.co").verifier([key]).unwrap();
    let verifier = verifier.with_clock(ManualClock::new(Timestamp::from_secs(NOW)));
    let claims = with(&good, &json!({"iat": NOW, "exp": NOW + 3600}));
    verifier.verify(&mint(Signer::Secret, &json!({"alg": "HS256"}), &claims)).unwrap();
}

#[test]
fn zitadel_and_authentik() {
    Case {
        provider: Provider::zitadel("https://shop.zitadel.cloud", "project"),
        keys: set(&json!({"alg": "RS256", "use": "sig"})),
        signer: Signer::Rsa,
        typ: "at+jwt",
        good: json!({
            "iss": "https://shop.zitadel.cloud", "sub": "u", "aud": ["client", "project"],
            "client_id": "client", "jti": "j", "nbf": NOW - 10,
            "urn:zitadel:iam:org:project:roles": {"admin": {"1": "shop"}}, "exp": NOW + 43_000,
        }),
        targets: &["token j", "user u", "client client"],
        bad: vec![
            ("an ID token", json!({"at_hash": "h", "sid": "s", "amr": ["pwd"]}), WrongType),
            ("an ID token without a hash", json!({"jti": null, "amr": ["pwd"]}), MissingId),
            ("another instance", json!({"iss": "https://else.zitadel.cloud"}), WrongIssuer),
            ("another project", json!({"aud": ["client"]}), WrongAudience),
        ],
    }
    .assert("zitadel");
    let issuer = "https://id.example/application/o/shop/";
    let good = json!({
        "iss": issuer, "sub": "hash", "aud": "client",
        "acr": "goauthentik.io/providers/oauth2/default",
        "azp": "client", "uid": "x", "scope": "openid", "amr": ["pwd"], "sid": "s", "nonce": "n",
    });
    let case = |good| Case {
        provider: Provider::authentik(issuer, "client"),
        keys: set(&json!({"alg": "RS256", "use": "sig", "x5t": "t"})),
        signer: Signer::Rsa,
        typ: "JWT",
        good,
        targets: &["user hash", "client client", "session s"],
        bad: vec![
            ("an ID token", json!({"uid": null, "azp": null, "nonce": "n"}), MissingClaim),
            ("an ID token with a hash", json!({"at_hash": "h"}), WrongType),
            (
                "another application",
                json!({"iss": "https://id.example/application/o/else/"}),
                WrongIssuer,
            ),
            ("another client", json!({"aud": "other"}), WrongAudience),
        ],
    };
    case(good.clone()).assert("authentik");
    // In the hybrid flow.
    case(with(&good, &json!({"c_hash": "h"}))).assert("authentik, hybrid");
}

#[test]
fn jobs() {
    Case {
        provider: Provider::github_actions("acme", "https://deploy.example"),
        keys: set(&json!({"alg": "RS256", "use": "sig", "x5t": "t"})),
        signer: Signer::Rsa,
        typ: "JWT",
        good: json!({
            "jti": "j", "iss": "https://token.actions.githubusercontent.com", "nbf": NOW - 10,
            "sub": "repo:acme/shop:ref:refs/heads/main", "aud": "https://deploy.example",
            "repository": "acme/shop", "repository_owner": "acme", "run_id": "77",
            "run_attempt": "1",
        }),
        targets: &[
            "token j",
            "session 77",
            "claim acme/shop",
            "user repo:acme/shop:ref:refs/heads/main",
        ],
        bad: vec![
            (
                "a stranger",
                json!({"repository_owner": "mallory", "repository": "mallory/x"}),
                ForbiddenClaim,
            ),
            ("another audience", json!({"aud": "https://github.com/acme"}), WrongAudience),
            (
                "another server",
                json!({"iss": "https://github.example/_services/token"}),
                WrongIssuer,
            ),
        ],
    }
    .assert("github");
    Case {
        provider: Provider::gitlab_ci("https://gitlab.com/", "acme", "https://deploy.example"),
        keys: set(&json!({"alg": "RS256", "use": "sig"})),
        signer: Signer::Rsa,
        typ: "JWT",
        good: json!({
            "jti": "j", "iss": "https://gitlab.com", "aud": "https://deploy.example",
            "nbf": NOW - 15,
            "sub": "project_path:acme/shop:ref_type:branch:ref:main", "namespace_path": "acme",
            "project_path": "acme/shop", "pipeline_id": "99", "job_id": "5", "user_login": "alice",
        }),
        targets: &["token j", "session 99", "claim acme/shop"],
        bad: vec![
            ("a stranger", json!({"namespace_path": "mallory"}), ForbiddenClaim),
            ("another audience", json!({"aud": "https://vault.example"}), WrongAudience),
            ("another instance", json!({"iss": "https://gitlab.example"}), WrongIssuer),
        ],
    }
    .assert("gitlab");
}

#[test]
fn workloads() {
    let issuer = "https://kubernetes.default.svc.cluster.local";
    let good = json!({
        "iss": issuer, "aud": ["orders"], "sub": "system:serviceaccount:shop:web", "jti": "j",
        "nbf": NOW - 10, "exp": NOW + 3597,
        "kubernetes.io": {
            "namespace": "shop", "pod": {"name": "web-0", "uid": "p"},
            "serviceaccount": {"name": "web", "uid": "a"}, "warnafter": NOW + 3000,
        },
    });
    Case {
        provider: Provider::kubernetes(issuer, "orders"),
        keys: set(&json!({"alg": "RS256", "use": "sig"})),
        signer: Signer::Rsa,
        typ: "JWT",
        good,
        targets: &[
            "token j",
            "session p",
            "user a",
            "user system:serviceaccount:shop:web",
            "claim shop",
        ],
        bad: vec![
            ("another cluster", json!({"iss": "https://oidc.else.example"}), WrongIssuer),
            ("another audience", json!({"aud": [issuer]}), WrongAudience),
            ("no service account", json!({"kubernetes.io": null}), MissingClaim),
            ("a token of a secret", json!({"exp": null}), MissingClaim),
            ("a token for a year", json!({"exp": NOW + 31_536_000}), LifetimeTooLong),
        ],
    }
    .assert("kubernetes");
    Case {
        provider: Provider::spiffe("https://spire.example", "spiffe://shop.example/orders"),
        keys: set(&json!({"alg": "RS256"})),
        signer: Signer::Ec,
        typ: "JOSE",
        good: json!({
            "iss": "https://spire.example", "aud": ["spiffe://shop.example/orders"],
            "sub": "spiffe://shop.example/web",
        }),
        targets: &["user spiffe://shop.example/web"],
        bad: vec![
            ("another trust domain", json!({"iss": "https://spire.else.example"}), WrongIssuer),
            ("no trust domain", json!({"iss": null}), MissingClaim),
            ("another workload", json!({"aud": ["spiffe://shop.example/db"]}), WrongAudience),
            ("nobody", json!({"sub": null}), MissingClaim),
        ],
    }
    .assert("spiffe");
}

#[test]
fn frameworks() {
    Case {
        provider: Provider::simple_jwt(),
        keys: String::new(),
        signer: Signer::Secret,
        typ: "JWT",
        good: json!({"token_type": "access", "jti": "j", "user_id": 7}),
        targets: &["token j", "user 7"],
        bad: vec![
            ("a refresh token", json!({"token_type": "refresh"}), WrongType),
            ("a sliding token", json!({"token_type": "sliding"}), ForbiddenClaim),
            ("a token that does not say what it is", json!({"token_type": null}), MissingClaim),
        ],
    }
    .assert("SimpleJWT");
    Case {
        provider: Provider::flask_jwt_extended(),
        keys: String::new(),
        signer: Signer::Secret,
        typ: "JWT",
        good: json!({
            "fresh": false, "jti": "j", "type": "access", "sub": "u", "nbf": NOW - 10, "csrf": "c",
        }),
        targets: &["token j", "user u"],
        bad: vec![
            ("a refresh token", json!({"type": "refresh"}), WrongType),
            ("a token that does not say what it is", json!({"type": null}), MissingClaim),
        ],
    }
    .assert("Flask-JWT-Extended");
}

#[test]
fn a_preset_can_be_changed_and_what_cannot_work_is_told() {
    let provider = Provider::simple_jwt().with_profile(|profile| {
        profile.with_issuer("https://shop.example").with_audience("orders")
    });
    assert_eq!(provider.profile().only_issuer(), Ok("https://shop.example"));
    let key = VerificationKey::from_secret(Algorithm::HS256, &SECRET).unwrap();
    let broken = provider.with_profile(|profile| profile.with_audience(""));
    assert_eq!(broken.verifier([key]).unwrap_err().setting(), "audience");
}
