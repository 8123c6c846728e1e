//! A store from environment variables or a configuration file.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::time::Duration;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;

use super::builder::RedisStoreBuilder;
use super::error::ConnectError;
use super::foreign::ForeignList;
use super::options::{DEFAULT_WRITE_TIMEOUT, Start};
use super::store::RedisStore;
use crate::config::{
    ApplySettings, ConfigError, ConfigOrigin, Configuration, EnvVars, SecretText, text_or_file,
};

/// The settings of a [`RedisStore`], for configuration files and environment variables.
///
/// The variable of a field is `JWT_REDIS_` and the name of the field in capitals, such as
/// `JWT_REDIS_CHECK_TIMEOUT_MS` or `JWT_REDIS_HOST`. (Kubernetes sets `REDIS_HOST` and `REDIS_PORT`
/// in another form.) URL and credentials have the names that other programs use: `REDIS_URL`,
/// `REDIS_URL_FILE`, `REDIS_USERNAME`, `REDIS_PASSWORD`, `REDIS_PASSWORD_FILE`, `REDIS_CA_FILE`,
/// `REDIS_CLIENT_CERT_FILE` and `REDIS_CLIENT_KEY_FILE`. Only the URL or the host is required.
///
/// The file that `url_file` names is read by [`builder`](Self::builder), those of the password and
/// of certificates for each connection, so that they can be rotated without a restart. One line
/// break at the end of URL and password is left out. In a variable, `address_map` is a list of
/// `announced=dialled`. An error names the variable, or the field, and the remedy. An unknown field
/// is an error. So is a misspelt variable: one with almost the name of a variable that is not set.
///
/// ```no_run
/// use tower_jwt_revocation::RedisConfig;
///
/// # async fn f() -> Result<(), Box<dyn std::error::Error>> {
/// let store = RedisConfig::from_env()?.connect().await?;
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct RedisConfig {
    /// Whether Redis is used. If it is `false`, [`RedisConfig::connect`] is an error, and the
    /// program has to use another store, such as `MemoryStore`, which no other process sees.
    /// Default: true.
    pub enabled: Option<bool>,
    /// Where Redis is, such as `redis://user:password@host:6379/0`; for TLS, sentinels, a cluster
    /// or a socket see [`RedisStoreBuilder::with_url`]. Required, unless there is its file or a
    /// host.
    pub url: Option<SecretText>,
    /// Path of a file with the URL, instead of `url`.
    pub url_file: Option<String>,
    /// Host name or address of a single server, instead of a URL. Default: none.
    pub host: Option<String>,
    /// Port of the host. Default: 6379.
    pub port: Option<u16>,
    /// Whether to use TLS with the host. Default: false.
    pub tls: bool,
    /// Number of the database on the host, 0 to 255. Default: 0.
    pub database: Option<u16>,
    /// User to authenticate as, if the URL has no credentials. Default: the Redis user `default`.
    pub username: Option<String>,
    /// Password, if the URL has no credentials. Write it literally, without percent-encoding.
    /// Default: none.
    pub password: Option<SecretText>,
    /// Path of a file with the password, instead of `password`. It is read for each connection.
    pub password_file: Option<String>,
    /// Path of a file with the certificates, in PEM, of the authorities that are trusted for
    /// servers and sentinels, with TLS. It is read for each connection. Default: those of the
    /// system.
    pub ca_file: Option<String>,
    /// Path of a file with the certificate of this client, in PEM, for servers that require one
    /// (`tls-auth-clients`). It is read for each connection. Default: none.
    pub client_cert_file: Option<String>,
    /// Path of a file with the private key of that certificate, in PEM. It is read for each
    /// connection. Default: none.
    pub client_key_file: Option<String>,
    /// Whether to use TLS with sentinels, if this differs from the servers. Default: as with the
    /// servers.
    pub sentinel_tls: Option<bool>,
    /// Which address to connect to instead of one that sentinels or a cluster announce: as
    /// `host:port`, or as `host` for all of its ports. Default: the announced one.
    pub address_map: BTreeMap<String, String>,
    /// The beginning of all keys: 1 to 64 letters, digits and `-_.:/`. Applications with different
    /// prefixes do not see each other's revocations. Default: `jwt-revocation`.
    pub prefix: Option<String>,
    /// Number of hash slots over which records are spread, 1 to 1024. More than one is useful only
    /// in a cluster. It must be the same in all processes, and cannot be changed later. Default: 1.
    pub shards: Option<u16>,
    /// Longest time of a check, in milliseconds. After it the check is an error. Default: 50.
    pub check_timeout_ms: Option<u64>,
    /// Longest time of a round trip of a write or a look-up, in milliseconds. Default: 1000.
    pub write_timeout_ms: Option<u64>,
    /// Longest time to connect, in milliseconds, from resolving the host name to authentication.
    /// Default: 1000.
    pub connect_timeout_ms: Option<u64>,
    /// Number of checks that may be under way at once, in a cluster for each shard. Further ones
    /// are refused at once. Default: 1024.
    pub max_in_flight: Option<usize>,
    /// Longest lifetime of a token that any layer on this Redis accepts, in seconds. Raise it in a
    /// process without a layer, if others accept more. Default: 87000, which is 24 h and 10 min.
    pub max_token_lifetime_secs: Option<u64>,
    /// About how many writes the log of a shard keeps. A mirror that was away for more writes loads
    /// everything again. Default: 100000, some 10 MB.
    pub log_length: Option<u64>,
    /// How far the clock of an issuer may run ahead, in milliseconds, at most 300000, which is 5
    /// min. "All tokens so far" is dated later by this much. Default: 0.
    pub issuer_clock_lead_ms: Option<u64>,
    /// Number of replicas that must have a write before it is confirmed, so that a failover does
    /// not lose it. Default: none.
    pub wait_replicas: Option<NonZeroU32>,
    /// Longest time to wait for these replicas, in milliseconds. Default: half of the time of a
    /// write.
    pub wait_replicas_ms: Option<u64>,
    /// What to do if Redis cannot be used at the start: `wait` for it and then fail, fail
    /// `at-once`, or start `anyway` and answer checks with errors until it is there. Default:
    /// `wait`.
    pub start: Option<Start>,
    /// Longest time to `wait` at the start, in seconds. Default: 10.
    pub start_limit_secs: Option<u64>,
    /// Lists of revoked tokens that another program keeps, each as [`ForeignList`] reads it: a
    /// layout, such as `plain-jti`, or a template of keys, such as `blacklist:{jti}`; then options,
    /// such as `|writes`. Default: none.
    pub foreign_lists: Vec<ForeignList>,
    #[serde(skip)]
    origin: ConfigOrigin,
}

impl Configuration for RedisConfig {
    fn variable_prefix(field: &str) -> &'static str {
        match field {
            "url" | "url_file" | "username" | "password" | "password_file" | "ca_file"
            | "client_cert_file" | "client_key_file" => "REDIS_",
            _ => "JWT_REDIS_",
        }
    }

    fn field_of(setting: &str) -> &str {
        match setting {
            "check_timeout" => "check_timeout_ms",
            "write_timeout" => "write_timeout_ms",
            "connect_timeout" => "connect_timeout_ms",
            "root_certificates_file" => "ca_file",
            "client_certificate_file" => "client_cert_file",
            "issuer_clock_lead" => "issuer_clock_lead_ms",
            "max_token_lifetime" => "max_token_lifetime_secs",
            // The builder says it of the time: the number is never wrong there.
            "wait_replicas" => "wait_replicas_ms",
            "foreign_list" => "foreign_lists",
            same => same,
        }
    }
}

impl RedisConfig {
    /// Reads the settings from environment variables.
    ///
    /// # Errors
    /// [`ConfigError`] naming a variable that is not Unicode, is empty, has a value that it cannot
    /// have, or is misspelt.
    pub fn from_env() -> Result<Self, ConfigError> {
        Self::from_vars(&EnvVars::of_process())
    }

    fn from_vars(vars: &EnvVars) -> Result<Self, ConfigError> {
        Ok(Self { origin: ConfigOrigin::Environment, ..vars.read()? })
    }

    /// Whether Redis is to be used: false only if the setting `enabled` is.
    ///
    /// ```no_run
    /// use std::sync::Arc;
    /// use tower_jwt_revocation::store::RevocationStore;
    /// use tower_jwt_revocation::{MemoryStore, RedisConfig};
    ///
    /// # async fn f() -> Result<(), Box<dyn std::error::Error>> {
    /// let config = RedisConfig::from_env()?;
    /// let store: Arc<dyn RevocationStore> = if config.is_enabled() {
    ///     Arc::new(config.connect().await?)
    /// } else {
    ///     Arc::new(MemoryStore::new())
    /// };
    /// # Ok(()) }
    /// ```
    pub fn is_enabled(&self) -> bool {
        self.enabled != Some(false)
    }

    /// Connects with these settings.
    ///
    /// # Errors
    /// As [`RedisStoreBuilder::connect`], with the names of the variables or the fields.
    pub async fn connect(&self) -> Result<RedisStore, ConnectError> {
        self.builder()?.connect().await.map_err(|error| match error {
            ConnectError::Config(error) => self.origin.rename::<Self>(error).into(),
            other => other,
        })
    }

    /// A builder with these settings, for what can only be said in code.
    ///
    /// # Errors
    /// [`ConfigError`] naming what is missing, contradicts itself, or cannot be read.
    pub fn builder(&self) -> Result<RedisStoreBuilder, ConfigError> {
        self.build().map_err(|error| self.origin.rename::<Self>(error))
    }

    fn build(&self) -> Result<RedisStoreBuilder, ConfigError> {
        let (secs, millis) = (Duration::from_secs, Duration::from_millis);
        if !self.is_enabled() {
            return Err(ConfigError::new(
                "enabled",
                "is false; take another store then, see RedisConfig::is_enabled",
            ));
        }
        let url = self.whole_url()?;
        // In the URL, where they stand apart from it, unless the password may change.
        let username = self.username.as_deref().filter(|_| self.password_file.is_some());
        let builder = RedisStore::builder().with_url(url);
        let lists = self.foreign_lists.iter().cloned();
        Ok(lists
            .fold(builder, RedisStoreBuilder::with_foreign_list)
            .apply_some(username, RedisStoreBuilder::with_username)
            .apply_some(self.password_file.as_deref(), RedisStoreBuilder::with_password_file)
            .apply_some(self.ca_file.as_deref(), RedisStoreBuilder::with_root_certificates_file)
            .apply_some(self.client_files()?, |builder, (certificate, key)| {
                builder.with_client_certificate_files(certificate, key)
            })
            .apply_some(self.sentinel_tls, |builder, is_tls| {
                if is_tls {
                    builder.with_tls_to_sentinels()
                } else {
                    builder.with_plain_text_to_sentinels()
                }
            })
            .with_address_map(self.address_map.clone())
            .with_start(self.start_rule()?)
            .apply_some(self.prefix.as_deref(), RedisStoreBuilder::with_prefix)
            .apply_some(self.shards, RedisStoreBuilder::with_shards)
            .apply_some(self.check_timeout_ms.map(millis), RedisStoreBuilder::with_check_timeout)
            .apply_some(self.write_timeout_ms.map(millis), RedisStoreBuilder::with_write_timeout)
            .apply_some(
                self.connect_timeout_ms.map(millis),
                RedisStoreBuilder::with_connect_timeout,
            )
            .apply_some(self.max_in_flight, RedisStoreBuilder::with_max_in_flight)
            .apply_some(
                self.max_token_lifetime_secs.map(secs),
                RedisStoreBuilder::with_max_token_lifetime,
            )
            .apply_some(self.log_length, RedisStoreBuilder::with_log_length)
            .apply_some(
                self.issuer_clock_lead_ms.map(Duration::from_millis),
                RedisStoreBuilder::with_issuer_clock_lead,
            )
            .apply_some(self.replicas_and_limit()?, |builder, (replicas, limit)| {
                builder.with_wait_replicas(replicas, limit)
            }))
    }

    /// The certificate of this client, and its key.
    fn client_files(&self) -> Result<Option<(&str, &str)>, ConfigError> {
        match (self.client_cert_file.as_deref(), self.client_key_file.as_deref()) {
            (Some(certificate), Some(key)) => Ok(Some((certificate, key))),
            (None, None) => Ok(None),
            (Some(_), None) => Err(ConfigError::new(
                "client_cert_file",
                "has no effect without its private key; set the file of the key too",
            )),
            (None, Some(_)) => Err(ConfigError::new(
                "client_key_file",
                "has no effect without the certificate; set the file of the certificate too",
            )),
        }
    }

    fn replicas_and_limit(&self) -> Result<Option<(NonZeroU32, Duration)>, ConfigError> {
        let Some(replicas) = self.wait_replicas else {
            if self.wait_replicas_ms.is_some() {
                return Err(ConfigError::new(
                    "wait_replicas_ms",
                    "has no effect without a number of replicas; set it too",
                ));
            }
            return Ok(None);
        };
        let write_timeout =
            self.write_timeout_ms.map_or(DEFAULT_WRITE_TIMEOUT, Duration::from_millis);
        let limit = self.wait_replicas_ms.map_or(write_timeout / 2, Duration::from_millis);
        Ok(Some((replicas, limit)))
    }

    fn start_rule(&self) -> Result<Start, ConfigError> {
        let limit = self.start_limit_secs.map(Duration::from_secs);
        match (self.start.unwrap_or_default(), limit) {
            (start, None) => Ok(start),
            (Start::WaitUpTo(_), Some(limit)) => Ok(Start::WaitUpTo(limit)),
            (_, Some(_)) => Err(ConfigError::new(
                "start_limit_secs",
                "has no effect unless the start is to wait; leave it out",
            )),
        }
    }

    /// The URL, or one made of the host.
    fn url_of_host(&self, url: Option<String>) -> Result<String, ConfigError> {
        let parts = [
            ("port", self.port.is_some()),
            ("tls", self.tls),
            ("database", self.database.is_some()),
        ];
        let set = parts.into_iter().find_map(|(name, is_set)| is_set.then_some(name));
        match (url, &self.host, set) {
            (Some(_), Some(_), _) => {
                Err(ConfigError::new("host", "is set, and a URL too; leave one of them out"))
            }
            (Some(_), None, Some(part)) => {
                Err(ConfigError::new(part, "has no effect beside a URL; write it into the URL"))
            }
            (Some(url), None, None) => Ok(url),
            (None, Some(_), _) if self.database.is_some_and(|number| number > 255) => {
                Err(ConfigError::new("database", "is over 255"))
            }
            (None, Some(host), _) => {
                let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
                let scheme = if self.tls { "rediss" } else { "redis" };
                let (port, database) = (self.port.unwrap_or(6379), self.database.unwrap_or(0));
                Ok(format!("{scheme}://{host}:{port}/{database}"))
            }
            (None, None, _) => {
                Err(ConfigError::new("url", "is missing; set it, such as redis://127.0.0.1:6379"))
            }
        }
    }

    /// The URL, with the credentials if they stand apart from it. A file with the password is read
    /// only to see that it can be: later it may be away for a moment, at the start that is a slip.
    fn whole_url(&self) -> Result<String, ConfigError> {
        let secret = |name, text: &Option<SecretText>, file_name, file: &Option<String>| {
            if text.is_some() && file.is_some() {
                return Err(ConfigError::new(
                    name,
                    "is given as it is and as a file; leave one of them out",
                ));
            }
            text_or_file(text.as_ref().map(SecretText::expose), file.as_deref(), file_name)
        };
        let url = secret("url", &self.url, "url_file", &self.url_file)?;
        let url = self.url_of_host(url)?;
        let password = secret("password", &self.password, "password_file", &self.password_file)?;
        let Some(password) = password else {
            if self.username.is_some() {
                return Err(ConfigError::new(
                    "username",
                    "has no effect without a password; set that too",
                ));
            }
            return Ok(url);
        };
        let Some((scheme, rest)) = url.split_once("://") else {
            return Err(ConfigError::new("url", "has no scheme; write redis://host:6379"));
        };
        let authority = rest.split(['/', '?']).next().unwrap_or(rest);
        if authority.contains('@') {
            return Err(ConfigError::new(
                "password",
                "is set, and the URL has credentials too; leave one of them out",
            ));
        }
        if self.password_file.is_some() {
            return Ok(url);
        }
        let encoded = |text| utf8_percent_encode(text, NON_ALPHANUMERIC);
        let user = encoded(self.username.as_deref().unwrap_or_default());
        Ok(format!("{scheme}://{user}:{}@{rest}", encoded(&password)))
    }
}

#[cfg(test)]
mod tests;
