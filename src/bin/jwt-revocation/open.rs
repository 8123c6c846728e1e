//! From the environment and the options to a store and a revoker.

use std::time::Duration;

use serde_json::Map;
use tower_jwt_revocation::audit::{AuditEvent, AuditSink as _};
use tower_jwt_revocation::store::redis::foreign::ForeignList;
use tower_jwt_revocation::store::redis::{RedisAuditSink, Start};
use tower_jwt_revocation::token::jwks::JwksErrorKind;
use tower_jwt_revocation::{
    JwtVerifier, MemoryStore, RedisConfig, RedisStore, Revoker, TokenProfile, VerifierConfig,
};

use crate::args::Common;
use crate::failure::{Failure, with_causes};
use crate::output::{complain, holds_token};

/// How long to wait for a store that is away.
const START_LIMIT_SECS: u64 = 5;
/// How long a check may take: here a person waits, and not a request.
const CHECK_LIMIT_MS: u64 = 1000;
/// How long refresh tokens may live, if nobody says so.
const REFRESH_LIFETIME: Duration = Duration::from_secs(90 * 24 * 60 * 60);
/// How long leaving may take: the command is done.
const LEAVING: Duration = Duration::from_secs(1);

/// The settings of the store, from the environment and the options.
pub(crate) fn redis_config(common: &Common) -> Result<RedisConfig, Failure> {
    let mut config = RedisConfig::from_env()?;
    if let Some(url) = &common.redis_url {
        let authority = url.split_once("://").map_or(&**url, |(_, rest)| rest);
        if authority.split(['/', '?']).next().unwrap_or_default().contains('@') {
            (config.username, config.password, config.password_file) = (None, None, None);
        }
        config.url = Some(url.clone().into());
        (config.url_file, config.host, config.port) = (None, None, None);
        (config.tls, config.database) = (false, None);
        // The certificates may be for both servers, but without TLS there are none.
        let scheme = url.split_once("://").map_or("", |(scheme, _)| scheme);
        if !["rediss", "valkeys"].iter().any(|secured| scheme.starts_with(secured)) {
            (config.ca_file, config.client_cert_file, config.client_key_file) = (None, None, None);
        }
    }
    if let Some(prefix) = &common.prefix {
        if holds_token(prefix) {
            return Err(Failure::usage("--prefix: this is a token"));
        }
        config.prefix.clone_from(&common.prefix);
    }
    config.check_timeout_ms.get_or_insert(CHECK_LIMIT_MS);
    // A command cannot go on without a store.
    if config.start == Some(Start::Anyway) {
        config.start = None;
    }
    if config.start != Some(Start::AtOnce) {
        config.start_limit_secs.get_or_insert(START_LIMIT_SECS);
    }
    // What a loss of data puts in doubt lasts for as long as tokens do.
    let lifetime = secs_of("JWT_MAX_LIFETIME_SECS")?.map(|secs| secs.saturating_add(600));
    if lifetime > config.max_token_lifetime_secs.or(Some(87_000)) {
        config.max_token_lifetime_secs = lifetime;
    }
    Ok(config)
}

/// Opens the store. It has to be there within the limit of the start.
pub(crate) async fn store(common: &Common) -> Result<RedisStore, Failure> {
    Ok(Box::pin(redis_config(common)?.connect()).await?)
}

/// The settings of the verifier. What only revokes needs no audience.
pub(crate) fn verifier_config(
    issuer: Option<&str>,
    allow_unknown: bool,
) -> Result<VerifierConfig, Failure> {
    let mut config = VerifierConfig::from_env()?;
    if config.audiences.is_empty() {
        config.audiences.push("*".into());
    }
    let is_nameless = config.issuers == ["*"];
    if let Some(issuer) = issuer.filter(|issuer| !issuer.is_empty()) {
        if holds_token(issuer) {
            return Err(Failure::usage("--iss: this is a token and not the name of an issuer"));
        }
        if allow_unknown {
            if is_nameless {
                config.issuers.clear();
            }
            if !config.issuers.iter().any(|known| known == issuer) {
                config.issuers.push(issuer.into());
            }
        } else if is_nameless {
            return Err(Failure::usage(format!(
                "the issuer {issuer} is not configured: JWT_ISSUERS is *, so all ids belong to one \
                 nameless issuer; name the issuer there, or leave it out here"
            )));
        }
    }
    Ok(config)
}

/// The verifier, with the keys that it fetches.
pub(crate) async fn verifier(config: &VerifierConfig) -> Result<JwtVerifier, Failure> {
    if config.jwks_url.is_none() && config.discovery_issuer.is_none() {
        return Ok(config.verifier()?);
    }
    config.connect().await.map_err(|error| match error.kind() {
        JwksErrorKind::Config | JwksErrorKind::Forbidden => Failure::usage(with_causes(&error)),
        _ => Failure::Store { error: with_causes(&error), repeatable: true, also: Map::new() },
    })
}

/// The rules by which a target is named.
pub(crate) fn profile(issuer: Option<&str>, allow_unknown: bool) -> Result<TokenProfile, Failure> {
    Ok(verifier_config(issuer, allow_unknown)?.profile()?)
}

/// A revoker that only finds out what is wrong with a request: it revokes nothing of anybody.
pub(crate) fn trial(profile: &TokenProfile) -> Result<Revoker, Failure> {
    Ok(Revoker::new(MemoryStore::new(), profile.clone())?)
}

/// How long refresh tokens may live.
pub(crate) fn refresh_lifetime(option: Option<Duration>) -> Result<Duration, Failure> {
    let set = secs_of("JWT_REFRESH_LIFETIME_SECS")?.map(Duration::from_secs);
    Ok(option.or(set).unwrap_or(REFRESH_LIFETIME))
}

fn secs_of(variable: &str) -> Result<Option<u64>, Failure> {
    let Some(text) = std::env::var_os(variable) else { return Ok(None) };
    let secs = text.to_str().and_then(|text| text.parse::<u32>().ok()).map(u64::from);
    let secs = secs.ok_or_else(|| {
        Failure::usage(format!("{variable}: write a whole number of seconds, such as 7776000"))
    })?;
    Ok(Some(secs))
}

/// A store to write to: what is written is audited, and nobody waits for this process afterwards.
pub(crate) struct Writing {
    pub(crate) store: RedisStore,
    audit: RedisAuditSink,
}

impl Writing {
    pub(crate) async fn open(common: &Common) -> Result<Self, Failure> {
        Ok(Self::of(store(common).await?))
    }

    /// With a list of another program, which in a cluster has connections of its own.
    pub(crate) async fn open_with(common: &Common, list: &ForeignList) -> Result<Self, Failure> {
        let builder = redis_config(common)?.builder()?.with_foreign_list(list.clone());
        Ok(Self::of(Box::pin(builder.connect()).await?))
    }

    fn of(store: RedisStore) -> Self {
        Self { audit: RedisAuditSink::new(store.clone()), store }
    }

    pub(crate) fn revoker(
        &self,
        profile: TokenProfile,
        lifetime: Duration,
    ) -> Result<Revoker, Failure> {
        // Where it matters that somebody accepts what is revoked, the command asks before.
        let revoker = Revoker::new(self.store.clone(), profile)?
            .with_audit(self.audit.clone())
            .allow_unmatched_targets();
        revoker.extend_shared_retention(lifetime);
        Ok(revoker)
    }

    pub(crate) fn record(&self, event: &AuditEvent) {
        self.audit.record(event);
    }

    /// Writes the audit, and says to Redis that this process writes no more.
    pub(crate) async fn close(self) {
        let flushed = tokio::time::timeout(LEAVING, self.audit.flush()).await.is_ok();
        if !flushed || self.audit.lost() > 0 {
            complain("warning: the event was not written to the audit trail in Redis");
        }
        // What is not signed off is waited for, for half a minute and only after a failover.
        let _ = tokio::time::timeout(LEAVING, self.store.close()).await;
    }
}
