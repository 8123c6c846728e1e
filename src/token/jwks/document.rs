//! What the answers of a provider mean: the discovery document, and the key set.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use http::Uri;
use serde::Deserialize;
use serde_json::Value;

use super::http::{AddressScope, JwksFetcher};
use super::{JwksDocument, JwksError, JwksErrorKind, MAX_DOCUMENT_BYTES};
use crate::config::ConfigError;
use crate::token::Algorithm;
use crate::token::jwt::{KeySet, VerifierKeys, members_of_set};

/// Where to start.
#[derive(Clone)]
pub(super) enum JwksSource {
    /// The key set is there.
    KeySet(Uri),
    /// It is where this document says.
    Discovery { issuer: Box<str>, document: Uri },
}

/// All that is needed to fetch keys.
pub(super) struct KeyOrigin {
    pub(super) source: JwksSource,
    /// What RSA keys without `alg` may verify.
    pub(super) default_algorithms: Vec<Algorithm>,
    pub(super) client: JwksFetcher,
}

/// The keys of a set, and for how long they may be kept.
pub(super) struct PublishedKeys {
    pub(super) keys: VerifierKeys,
    pub(super) max_age: Option<Duration>,
}

/// Why there are no keys.
pub(super) struct FetchFailure {
    pub(super) error: JwksError,
    /// Of a set in which no key can be used: the names that it has. A key without a name is `None`.
    pub(super) listed: Option<BTreeSet<Option<Box<str>>>>,
}

impl From<JwksError> for FetchFailure {
    fn from(error: JwksError) -> Self {
        Self { error, listed: None }
    }
}

// === impl JwksSource ===

impl JwksSource {
    pub(super) fn at(url: &str) -> Result<Self, ConfigError> {
        Ok(Self::KeySet(absolute("jwks_url", url)?))
    }

    pub(super) fn of_issuer(issuer: &str) -> Result<Self, ConfigError> {
        let uri = absolute("issuer", issuer)?;
        if uri.query().is_some() {
            return Err(ConfigError::new(
                "issuer",
                "has a query, which discovery does not allow; see Jwks::at",
            ));
        }
        // OpenID Connect Discovery §4.1: a `/` at the end of the issuer goes before the path is
        // added.
        let document = format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'));
        Ok(Self::Discovery { issuer: issuer.into(), document: absolute("issuer", &document)? })
    }

    pub(super) fn issuer(&self) -> Option<&str> {
        match self {
            Self::KeySet(_) => None,
            Self::Discovery { issuer, .. } => Some(issuer),
        }
    }

    pub(super) fn first_url(&self) -> &Uri {
        match self {
            Self::KeySet(url) => url,
            Self::Discovery { document, .. } => document,
        }
    }
}

// === impl KeyOrigin ===

impl KeyOrigin {
    /// Fetches the keys, by way of discovery if need be.
    pub(super) async fn fetch(&self) -> Result<PublishedKeys, FetchFailure> {
        let client = &self.client;
        let document = match &self.source {
            JwksSource::KeySet(url) => client.get(url, AddressScope::Any).await?,
            JwksSource::Discovery { issuer, document } => {
                let url = jwks_url(&client.get(document, AddressScope::Any).await?, issuer)?;
                if is_https(document) && !is_https(&url) {
                    let problem =
                        "the `jwks_uri` of the discovery document is not https, as the issuer is";
                    return Err(JwksError::new(JwksErrorKind::Forbidden, problem).into());
                }
                // The operator chose the host of the issuer. Another host was chosen by the author
                // of the document, and must not be inside of our network.
                let is_same_host = url.host() == document.host();
                let scope = if is_same_host { AddressScope::Any } else { AddressScope::PublicOnly };
                client.get(&url, scope).await?
            }
        };
        published(&document, &self.default_algorithms)
    }
}

fn is_https(url: &Uri) -> bool {
    url.scheme_str() == Some("https")
}

/// Without the query, which may hold a secret.
impl fmt::Debug for JwksSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let url = self.first_url();
        write!(f, "{}://{}{}", url.scheme_str().unwrap_or(""), url.host().unwrap_or(""), url.path())
    }
}

pub(super) fn absolute(setting: &'static str, text: &str) -> Result<Uri, ConfigError> {
    let uri: Uri = text.parse().map_err(|_| not_a_url(setting))?;
    let (Some("https" | "http"), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
        return Err(not_a_url(setting));
    };
    if text.contains('#') || authority.host().is_empty() {
        return Err(not_a_url(setting));
    }
    if authority.as_str().contains('@') {
        return Err(ConfigError::new(
            setting,
            "has a user name in it, which is never sent; leave it out",
        ));
    }
    Ok(uri)
}

fn not_a_url(setting: &'static str) -> ConfigError {
    ConfigError::new(setting, "is not an absolute URL without fragment, such as https://id.example")
}

/// `jwks_uri` of a discovery document (OpenID Connect Discovery §3) that is about this issuer.
fn jwks_url(document: &JwksDocument, issuer: &str) -> Result<Uri, JwksError> {
    #[derive(Deserialize)]
    struct Metadata {
        issuer: String,
        jwks_uri: String,
    }
    let metadata: Metadata = serde_json::from_slice(content(document)?).map_err(|_| {
        JwksError::new(
            JwksErrorKind::Malformed,
            "the discovery document is not JSON with `issuer` and `jwks_uri`",
        )
    })?;
    // To the letter (OpenID Connect Discovery §4.3): else one provider could speak for another.
    if metadata.issuer != issuer {
        return Err(JwksError::new(
            JwksErrorKind::WrongIssuer,
            format!(
                "the discovery document is not about the issuer `{issuer}`; name the issuer \
                 exactly as it does"
            ),
        ));
    }
    absolute("jwks_uri", &metadata.jwks_uri).map_err(|_| {
        JwksError::new(
            JwksErrorKind::Malformed,
            "the `jwks_uri` of the discovery document is not an absolute URL",
        )
    })
}

fn published(
    document: &JwksDocument,
    default_algorithms: &[Algorithm],
) -> Result<PublishedKeys, FetchFailure> {
    let malformed = |problem: &str| {
        JwksError::new(JwksErrorKind::Malformed, format!("the answer of the provider {problem}"))
    };
    let text = std::str::from_utf8(content(document)?).map_err(|_| malformed("is not UTF-8"))?;
    let members = members_of_set(text).map_err(|problem| malformed(&problem))?;
    let set = KeySet::published(&members, default_algorithms);
    for skipped in set.skipped() {
        tracing::debug!(reason = %skipped, "a published key is not used");
    }
    let are_more = set.skipped().len() > 1;
    let unusable = |error: ConfigError| {
        let more = if are_more { "; the others are logged at `debug`" } else { "" };
        FetchFailure {
            error: JwksError::new(JwksErrorKind::NoUsableKey, format!("{error}{more}")),
            // An empty set is more likely a mistake than the withdrawal of all keys.
            listed: (!members.is_empty()).then(|| members.iter().map(name_of).collect()),
        }
    };
    let keys = set.not_empty().map_err(unusable)?.into_iter().collect();
    let (keys, skipped) = VerifierKeys::published(keys).map_err(unusable)?;
    for skipped in skipped {
        tracing::debug!(reason = %skipped, "a published key is not used");
    }
    Ok(PublishedKeys { keys, max_age: document.max_age })
}

fn name_of(member: &Value) -> Option<Box<str>> {
    member.get("kid").and_then(Value::as_str).map(Into::into)
}

fn content(document: &JwksDocument) -> Result<&[u8], JwksError> {
    if document.body.len() > MAX_DOCUMENT_BYTES {
        return Err(too_large(MAX_DOCUMENT_BYTES));
    }
    // RFC 8259 §8.1 allows to ignore a byte order mark.
    Ok(document.body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&document.body))
}

pub(super) fn too_large(most: usize) -> JwksError {
    let problem = format!("the answer is longer than {} KiB", most / 1024);
    JwksError::new(JwksErrorKind::TooLarge, problem)
}
