//! Everything the routes share, put together once.

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;

use tower_jwt_revocation::audit::AuditSink;
use tower_jwt_revocation::counters::Counters;
use tower_jwt_revocation::endpoints::ReplayGuard;
use tower_jwt_revocation::session::{Grant, RefreshPolicy, Sessions};
use tower_jwt_revocation::store::redis::{ConnectError, Report, Start};
use tower_jwt_revocation::store::session::SessionStore;
use tower_jwt_revocation::store::{Doubt, RevocationStore, StoreError, StoreErrorKind};
use tower_jwt_revocation::token::issue::IssuedToken;
use tower_jwt_revocation::token::{IssuerSet, TokenVerifier};
use tower_jwt_revocation::{
    ConfigError, FailMode, JwtRevocationLayer, MemoryStore, Mirror, RedisStore, Revoker, Target,
    TokenIssuer, VerifiedToken,
};

use crate::answer::Problem;
use crate::config::{Config, Store};

/// How long the start waits for Redis.
const START_LIMIT: Duration = Duration::from_secs(2);

/// Cheap to clone.
#[derive(Clone)]
pub(crate) struct App {
    pub(crate) layer: JwtRevocationLayer,
    pub(crate) verifier: Arc<dyn TokenVerifier>,
    pub(crate) sessions: Sessions,
    /// Its records outlive access tokens and refresh tokens.
    pub(crate) revoker: Revoker,
    pub(crate) counters: Counters,
    pub(crate) admin_token: Option<Arc<str>>,
    pub(crate) realm: Arc<str>,
    pub(crate) access_lifetime: Duration,
    pub(crate) max_token_lifetime: Duration,
    /// No token, and no refresh token that is not used, lives longer.
    pub(crate) longest: Duration,
    /// How long a route outside of the layer may take.
    pub(crate) limit: Duration,
    /// What one request behind the layer may take of the store, all in all.
    pub(crate) budget: Duration,
    pub(crate) replay_guard: ReplayGuard,
    pub(crate) issuer: Arc<TokenIssuer>,
    /// The `iss` of our own tokens, if they have one.
    pub(crate) own_issuer: Option<Arc<str>>,
    /// The issuer whose tokens are accepted beside our own.
    pub(crate) provider: Option<Arc<str>>,
    redis: Option<RedisStore>,
    mirror: Option<Mirror>,
    fail_mode: FailMode,
    handler_calls: Arc<AtomicU64>,
    audit: Arc<dyn AuditSink>,
    warned: Arc<Mutex<Option<Warned>>>,
}

/// What was found last, and when.
struct Warned {
    at: Instant,
    found: Vec<String>,
}

/// For so long what was found is told again: anybody may ask, and each time Redis is asked some
/// thirty things.
const WARNED: Duration = Duration::from_millis(100);

impl App {
    pub(crate) async fn build(
        config: &Config,
        audit: Arc<dyn AuditSink>,
    ) -> Result<Self, Box<dyn Error>> {
        match &config.store {
            Store::Memory => {
                let store = MemoryStore::new();
                Self::with_store(config, audit, store.clone(), store, None, None)
            }
            Store::Redis { url, prefix, ca, client, replicas, mirror } => {
                let mut builder = RedisStore::builder()
                    .with_url(url)
                    .with_prefix(prefix.as_str())
                    .with_check_timeout(config.redis_timeout)
                    .with_write_timeout(config.redis_timeout)
                    .with_max_token_lifetime(config.max_token_lifetime)
                    .with_start(Start::WaitUpTo(START_LIMIT));
                if let Some(ca) = ca {
                    builder = builder.with_root_certificates_file(ca);
                }
                if let Some((certificate, key)) = client {
                    builder = builder.with_client_certificate_files(certificate, key);
                }
                if let Some((replicas, limit)) = replicas {
                    builder = builder.with_wait_replicas(*replicas, *limit);
                }
                let store = match builder.clone().connect().await {
                    Err(ConnectError::Store(error)) => {
                        tracing::warn!(%error, "starting without redis; it is used as soon as it \
                            is there");
                        builder.with_start(Start::Anyway).connect().await
                    }
                    connected => connected,
                };
                let store = store.map_err(|error| match error {
                    ConnectError::Config(error) => format!("{}: {error}", variable(&error)),
                    other => format!("AUTH_REDIS_URL: {other}"),
                })?;
                let redis = Some(store.clone());
                let Some(staleness) = mirror else {
                    return Self::with_store(config, audit, store.clone(), store, redis, None);
                };
                let mirror =
                    Mirror::builder(store.clone()).with_max_staleness(*staleness).start()?;
                Self::with_store(config, audit, store, mirror.clone(), redis, Some(mirror))
            }
        }
    }

    /// Sessions are kept in `store`. `revocations` is the same, or a mirror of it: the layer asks
    /// it, and everything that revokes writes through it, so that this process knows at once.
    fn with_store(
        config: &Config,
        audit: Arc<dyn AuditSink>,
        store: impl SessionStore + Clone,
        revocations: impl RevocationStore,
        redis: Option<RedisStore>,
        mirror: Option<Mirror>,
    ) -> Result<Self, Box<dyn Error>> {
        let replay_guard = ReplayGuard::new(store.clone());
        let verifier = verifier(config)?;
        let mut layer = JwtRevocationLayer::new(Arc::clone(&verifier), revocations)
            .with_fail_mode(config.fail_mode)
            .with_audit(Arc::clone(&audit))
            .with_audit_facts(|head, event| {
                event
                    .with_field("method", Some(head.method().as_str()))
                    .with_field("path", Some(head.path()))
            })
            .with_realm(&config.realm)
            .map_err(|error| format!("AUTH_REALM: {error}"))?;
        if let Some(resource) = &config.providers.resource {
            layer = layer
                .with_resource_metadata(&resource.metadata_url)
                .map_err(|error| format!("AUTH_RESOURCE: {error}"))?;
        }

        let mut policy = RefreshPolicy::new()
            .with_grace(config.refresh_grace)
            .with_idle_lifetime(config.refresh_lifetime)
            .without_max_age();
        if let Some(age) = config.family_max_age {
            policy = policy.with_max_age(age);
        }
        let mut revoker = layer.revoker();
        if let (Some(issuer), Some(_)) = (&config.issuer, &config.providers.provider) {
            // Sessions, and ids for which nobody names an issuer, are ours.
            revoker = revoker.with_default_issuer(issuer)?;
        }
        let sessions = Sessions::new(store, revoker, policy)?;
        let issuer = TokenIssuer::new(config.signing_key.clone(), config.profile.clone())
            .and_then(|issuer| issuer.with_lifetime(config.access_lifetime))
            .map_err(|error| format!("AUTH_JWKS, AUTH_SIGN_KID: {error}"))?;
        Ok(Self {
            counters: layer.counters(),
            layer,
            verifier,
            revoker: sessions.revoker().clone(),
            sessions,
            admin_token: config.admin_token.as_deref().map(Into::into),
            realm: config.realm.as_str().into(),
            access_lifetime: config.access_lifetime,
            max_token_lifetime: config.max_token_lifetime,
            longest: config.max_token_lifetime.max(config.refresh_lifetime),
            limit: config.redis_timeout * 3,
            budget: config.redis_timeout,
            replay_guard,
            issuer: Arc::new(issuer),
            own_issuer: config.issuer.as_deref().map(Into::into),
            provider: config.providers.provider.as_ref().map(|provider| (*provider.issuer).into()),
            redis,
            mirror,
            fail_mode: config.fail_mode,
            handler_calls: Arc::default(),
            audit,
            warned: Arc::default(),
        })
    }

    /// Whether the token is of the other issuer: then its user and its session are not ours, even
    /// if they have the same ids.
    pub(crate) fn is_foreign(&self, token: &VerifiedToken) -> bool {
        self.provider.is_some() && token.issuer() == self.provider.as_deref()
    }

    /// Ends everything of a user of ours, or of a user of the other issuer if it is named.
    pub(crate) async fn end_user(&self, user: &str, issuer: Option<&str>) -> Result<(), Problem> {
        match issuer {
            Some(issuer) if self.provider.as_deref() == Some(issuer) => {
                self.revoker.revoke(Target::user(user).issued_by(issuer)).await?;
            }
            _ => self.sessions.end_all(user, None).await?,
        }
        Ok(())
    }

    /// The target as one of the other issuer, if that is named, else as one of ours.
    pub(crate) fn owned(&self, target: Target, issuer: Option<&str>) -> Target {
        match (issuer, &self.own_issuer) {
            (Some(issuer), _) if self.provider.as_deref() == Some(issuer) => {
                target.issued_by(issuer)
            }
            (_, Some(own)) => target.issued_by(Arc::clone(own)),
            (_, None) => target,
        }
    }

    /// Ends a session of ours, or one of the other issuer.
    pub(crate) async fn end_session(
        &self,
        id: &str,
        issuer: Option<&str>,
    ) -> Result<(), StoreError> {
        match issuer {
            Some(issuer) if self.provider.as_deref() == Some(issuer) => {
                self.revoker.revoke(Target::session(id).issued_by(issuer)).await.map(drop)
            }
            _ => self.sessions.end(id).await,
        }
    }

    /// The access token that goes with a refresh token.
    pub(crate) fn issue(&self, grant: &Grant) -> Result<IssuedToken, Problem> {
        self.issuer.issue(&grant.access_token()).map_err(|error| {
            tracing::error!(%error, "no token was issued");
            Problem::Internal
        })
    }

    pub(crate) fn count_call(&self) {
        self.handler_calls.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn handler_calls(&self) -> u64 {
        self.handler_calls.load(Ordering::Relaxed)
    }

    pub(crate) fn lost_audit_events(&self) -> u64 {
        self.audit.lost()
    }

    /// The store, if it is not in memory.
    pub(crate) fn redis(&self) -> Option<&RedisStore> {
        self.redis.as_ref()
    }

    /// How old what the mirror says may be; `None` without one, or before it has heard of anything.
    pub(crate) fn staleness(&self) -> Option<Duration> {
        self.mirror.as_ref()?.staleness()
    }

    /// What is wrong with the store right now, if anything is: each begins with its name. Asks
    /// nobody: the store watches its connections.
    pub(crate) fn trouble(&self) -> Option<String> {
        let health = self.redis.as_ref()?.health();
        match health.doubt() {
            _ if !health.is_up() => Some(health.to_string()),
            Doubt::Settling => Some(health.to_string()),
            Doubt::Lasting { .. } => Some(format!("doubt: {health}")),
            _ => None,
        }
    }

    /// Why a token that nobody has revoked is refused all the same: after a loss of data it may
    /// have been.
    pub(crate) async fn doubt_about(&self, token: &Arc<VerifiedToken>) -> Option<StoreError> {
        let redis = self.redis.as_ref().filter(|_| self.fail_mode == FailMode::Closed)?;
        let error = redis.check(token).answer().await.err()?;
        (error.kind() == StoreErrorKind::DataLoss).then_some(error)
    }

    /// Says to Redis that this process ends, so that after a failover nobody waits for it.
    pub(crate) async fn close(&self) {
        if let Some(redis) = &self.redis
            && let Err(error) = redis.close().await
        {
            tracing::warn!(%error, "redis does not know that this process ends");
        }
    }

    /// What about the settings of the store is unsafe.
    pub(crate) async fn warnings(&self) -> Vec<String> {
        let Some(redis) = &self.redis else {
            return vec!["the memory store forgets everything when the process ends".into()];
        };
        let examined = async {
            let mut warned = self.warned.lock().await;
            if let Some(warned) = &*warned
                && warned.at.elapsed() < WARNED
            {
                return warned.found.clone();
            }
            let found = findings(&redis.doctor().await);
            *warned = Some(Warned { at: Instant::now(), found: found.clone() });
            found
        };
        tokio::time::timeout(self.limit, examined)
            .await
            .unwrap_or_else(|_| vec!["redis did not say in time how it is set up".into()])
    }
}

/// What of a report is more than a remark.
fn findings(report: &Report) -> Vec<String> {
    let findings =
        report.findings.iter().filter(|finding| finding.is_error() || finding.is_warning());
    findings
        .map(|finding| {
            let said = format!("{}: {}", finding.subject, finding.sentence);
            if finding.remedy.is_empty() { said } else { format!("{said}; {}", finding.remedy) }
        })
        .collect()
}

/// Verifies our own tokens and, if it is set up, those of the other issuer: each by its own keys.
fn verifier(config: &Config) -> Result<Arc<dyn TokenVerifier>, String> {
    let own = config.verifier.clone();
    let Some(provider) = &config.providers.provider else { return Ok(Arc::new(own)) };
    let set = IssuerSet::new(provider.verifier.clone()).and_then(|set| match &config.issuer {
        Some(_) => set.with(own),
        None => set.with_unnamed(own),
    });
    Ok(Arc::new(set.map_err(|error| format!("AUTH_OP_ISS: {error}"))?))
}

/// The variable that a setting of the store comes from.
fn variable(error: &ConfigError) -> &'static str {
    match error.setting() {
        "prefix" => "AUTH_KEY_PREFIX",
        "check_timeout" | "write_timeout" => "AUTH_REDIS_TIMEOUT_MS",
        "wait_replicas" => {
            "AUTH_WAIT_REPLICAS, AUTH_WAIT_MS (which must be less than AUTH_REDIS_TIMEOUT_MS)"
        }
        "max_token_lifetime" => "AUTH_MAX_TOKEN_TTL_S",
        "root_certificates_file" => "AUTH_REDIS_CA_FILE",
        "client_certificate_file" => "AUTH_REDIS_CLIENT_CERT_FILE",
        "client_key_file" => "AUTH_REDIS_CLIENT_KEY_FILE",
        _ => "AUTH_REDIS_URL",
    }
}
