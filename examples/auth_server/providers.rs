//! The settings of the standard endpoints: groups of variables of which all are set, or none.

use axum::http::Uri;
use serde_json::Value;
use tower_jwt_revocation::token::jwt::KeySet;
use tower_jwt_revocation::{Algorithm, JwtVerifier, TokenProfile, VerificationKey};

use crate::config::{PRIVATE, expect_sendable, member, read, text, unambiguous};

/// What others send and ask, as far as it is set up.
pub(crate) struct Providers {
    pub(crate) client: Option<Client>,
    /// An identity provider whose access tokens are accepted too.
    pub(crate) provider: Option<Provider>,
    /// Who sends security events.
    pub(crate) transmitter: Option<Transmitter>,
    pub(crate) resource: Option<Resource>,
}

/// The one OAuth client.
pub(crate) struct Client {
    pub(crate) id: String,
    pub(crate) secret: String,
}

pub(crate) struct Provider {
    pub(crate) issuer: String,
    pub(crate) verifier: JwtVerifier,
}

pub(crate) struct Transmitter {
    pub(crate) issuer: String,
    pub(crate) verifier: JwtVerifier,
    pub(crate) token: String,
}

/// What is protected here, by its name for clients.
pub(crate) struct Resource {
    pub(crate) url: String,
    /// Where the metadata of this path is (RFC 9728 §3).
    pub(crate) metadata_path: String,
    pub(crate) metadata_url: String,
}

pub(crate) const METADATA: &str = "/.well-known/oauth-protected-resource";

impl Providers {
    /// `rules` are those that hold for tokens of any issuer.
    pub(crate) fn from_env(rules: &TokenProfile, max_token_bytes: usize) -> Result<Self, String> {
        let verifier = |issuer: &str, jwks: &str, audience: &str, variable: &str| {
            let profile = rules.clone().with_issuer(issuer).with_audience(audience);
            let verifier = JwtVerifier::new(published_keys(variable, jwks)?, profile);
            let verifier = verifier.map_err(|error| format!("{variable}: {error}"))?;
            Ok::<_, String>(verifier.with_max_token_bytes(max_token_bytes))
        };
        let client = group(["AUTH_CLIENT_ID", "AUTH_CLIENT_SECRET"])?;
        let provider = match group(["AUTH_OP_ISS", "AUTH_OP_JWKS", "AUTH_OP_AUD"])? {
            Some([issuer, jwks, audience]) => {
                let verifier = verifier(&issuer, &jwks, &audience, "AUTH_OP_JWKS")?;
                Some(Provider { issuer, verifier })
            }
            None => None,
        };
        let names = ["AUTH_SSF_ISS", "AUTH_SSF_JWKS", "AUTH_SSF_AUD", "AUTH_SSF_TOKEN"];
        let transmitter = match group(names)? {
            Some([issuer, jwks, audience, token]) => {
                let verifier = verifier(&issuer, &jwks, &audience, "AUTH_SSF_JWKS")?;
                expect_sendable("AUTH_SSF_TOKEN", &token)?;
                Some(Transmitter { issuer, verifier, token })
            }
            None => None,
        };
        Ok(Self {
            client: client.map(|[id, secret]| Client { id, secret }),
            provider,
            transmitter,
            resource: text("AUTH_RESOURCE")?.map(resource).transpose()?,
        })
    }
}

/// Variables of which all are set, or none.
fn group<const N: usize>(names: [&str; N]) -> Result<Option<[String; N]>, String> {
    let mut values = Vec::new();
    let mut missing = Vec::new();
    for name in names {
        match text(name)? {
            Some(value) => values.push(value),
            None => missing.push(name),
        }
    }
    match (<[String; N]>::try_from(values), missing.len()) {
        (Ok(values), _) => Ok(Some(values)),
        (Err(_), missing) if missing == N => Ok(None),
        _ => Err(format!(
            "{} is missing; set all of {}, or none of them",
            missing.join(", "),
            names.join(", ")
        )),
    }
}

/// The keys of another program. One whose use is not to sign is left out; an RSA key without `alg`
/// is for RS256 and a secret without one for HS256.
fn published_keys(variable: &str, path: &str) -> Result<Vec<VerificationKey>, String> {
    let wrong = |problem: &dyn std::fmt::Display| format!("{variable}: {path}: {problem}");
    let json = read(variable, path)?;
    let mut set = unambiguous(&json).map_err(|problem| wrong(&problem))?;
    let keys = set.get_mut("keys").and_then(Value::as_array_mut);
    let keys = keys.ok_or_else(|| wrong(&"has no member `keys`; write a JWK Set"))?;
    keys.retain(|jwk| member(jwk, "use").is_none_or(|usage| usage == "sig"));
    for jwk in keys.iter_mut() {
        let is_secret = member(jwk, "kty") == Some("oct");
        if let Some(members) = jwk.as_object_mut() {
            members.retain(|name, _| !PRIVATE.contains(&name.as_str()));
            if is_secret {
                members.entry("alg").or_insert_with(|| "HS256".into());
            }
        }
    }
    let set = KeySet::from_jwk_set_with(&set.to_string(), &[Algorithm::RS256]);
    Ok(set.map_err(|error| wrong(&error))?.into_iter().collect())
}

fn resource(url: String) -> Result<Resource, String> {
    let wrong = || {
        format!(
            "AUTH_RESOURCE is `{url}`; write an absolute URL without a fragment, and without \
             braces and names that begin with `:` or `*` in its path"
        )
    };
    if url.contains(['#', '?', '{', '}', '*']) || url.contains("/:") {
        return Err(wrong());
    }
    let uri = url.parse::<Uri>().map_err(|_| wrong())?;
    let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
        return Err(wrong());
    };
    let metadata_path = format!("{METADATA}{}", uri.path().trim_end_matches('/'));
    let metadata_url = format!("{scheme}://{authority}{metadata_path}");
    Ok(Resource { url, metadata_path, metadata_url })
}
