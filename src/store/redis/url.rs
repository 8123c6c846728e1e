//! URLs of Redis, and the settings that may stand beside or instead of one, as configurations of
//! fred.
//!
//! The URLs are parsed here: fred's parser wants passwords encoded, knows one spelling of each
//! form, and ignores what it does not know. No error quotes anything that may be a password.

use std::borrow::Cow;
use std::fmt;

use fred::types::config::{ClusterDiscoveryPolicy, Config, Server, ServerConfig};
use percent_encoding::percent_decode_str;

use super::tls::TlsSettings;
use crate::config::ConfigError;

const PORT: u16 = 6379;
const SENTINEL_PORT: u16 = 26_379;

/// Names by which query parameters are known, here and to other clients.
const NODE: &[&str] = &["node", "addr"];
const SERVICE: &[&str] =
    &["sentinelServiceName", "sentinelMasterId", "sentinel", "master_name", "service_name"];
const SENTINEL_USERNAME: &[&str] = &["sentinelUsername", "sentinel_username"];
const SENTINEL_PASSWORD: &[&str] = &["sentinelPassword", "sentinel_password"];
const DATABASE: &[&str] = &["db", "database"];
const USERNAME: &[&str] = &["username", "user"];
const PASSWORD: &[&str] = &["password"];

/// Where Redis is, and as whom to go there: a URL, settings of their own, or both.
#[derive(Clone, Default)]
pub(crate) struct ServerSettings {
    pub(crate) url: Option<Box<str>>,
    pub(crate) host: Option<Box<str>>,
    pub(crate) port: Option<u16>,
    pub(crate) tls: bool,
    pub(crate) username: Option<Box<str>>,
    pub(crate) password: Option<Box<str>>,
    pub(crate) database: Option<u8>,
    pub(crate) own_tls: TlsSettings,
}

impl ServerSettings {
    /// Whether any of these says something.
    #[cfg(feature = "fred-config")]
    pub(crate) fn any(&self) -> bool {
        let Self { url, host, port, tls, username, password, database, own_tls } = self;
        url.is_some()
            || own_tls.any().is_some()
            || host.is_some()
            || port.is_some()
            || *tls
            || username.is_some()
            || password.is_some()
            || database.is_some()
    }

    /// The configuration. With `has_provider`, the credentials come from elsewhere.
    pub(crate) fn config(&self, has_provider: bool) -> Result<Config, ConfigError> {
        let mut parsed = match (&self.url, &self.host) {
            (None, None) => {
                return Err(ConfigError::new(
                    "url",
                    "is missing; see RedisStoreBuilder::with_url, or set a host",
                ));
            }
            (Some(_), Some(_)) => return Err(beside_the_url("host")),
            (Some(_), None) if self.port.is_some() => return Err(beside_the_url("port")),
            (Some(_), None) if self.tls => {
                return Err(ConfigError::new(
                    "tls",
                    "is set, and a URL too; write the URL with rediss:// instead",
                ));
            }
            (Some(url), None) => ParsedUrl::parse(url)?,
            (None, Some(host)) => {
                if self.tls {
                    require_tls("tls")?;
                }
                let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
                let host = host.or(self.host.as_deref()).unwrap_or_default();
                if !is_host(host) {
                    return Err(ConfigError::new("host", "is not the name or address of a host"));
                }
                ParsedUrl {
                    is_tls: self.tls,
                    form: UrlForm::Single,
                    servers: vec![Server::new(host, self.port.unwrap_or(PORT))],
                    ..ParsedUrl::default()
                }
            }
        };
        if let Some(database) = self.database {
            if parsed.database.is_some_and(|other| other != database) {
                return Err(beside_the_url("database"));
            }
            if parsed.form == UrlForm::Cluster && database != 0 {
                return Err(ConfigError::new("database", "is set, but a cluster has only one"));
            }
            parsed.database = Some(database);
        }
        if parsed.password.is_some() && (self.password.is_some() || has_provider) {
            return Err(beside_the_url("password"));
        }
        if parsed.username.is_some() && self.username.is_some() {
            return Err(beside_the_url("username"));
        }
        let has_own_name = self.username.is_some();
        parsed.username = self.username.as_deref().map(Into::into).or(parsed.username);
        parsed.password = self.password.as_deref().map(Into::into).or(parsed.password);
        if parsed.username.is_some() && parsed.password.is_none() && !has_provider {
            return Err(if has_own_name {
                ConfigError::new("username", "has no effect without a password; set that too")
            } else {
                ConfigError::new(
                    "url",
                    "has a name before its `@`, but no password; write \
                     redis://user:password@host:6379, or redis://:password@host:6379 for a \
                     password alone",
                )
            });
        }
        parsed.into_config(&self.own_tls)
    }
}

/// Without credentials.
impl fmt::Debug for ServerSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerSettings").finish_non_exhaustive()
    }
}

/// Reads a URL that is complete.
#[cfg(test)]
pub(crate) fn parse_url(url: &str) -> Result<Config, ConfigError> {
    ServerSettings { url: Some(url.into()), ..ServerSettings::default() }.config(false)
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum UrlForm {
    #[default]
    Single,
    Cluster,
    Sentinel,
    Unix,
}

#[derive(Default)]
struct ParsedUrl {
    is_tls: bool,
    form: UrlForm,
    servers: Vec<Server>,
    username: Option<String>,
    password: Option<String>,
    database: Option<u8>,
    service: Option<String>,
    sentinel_username: Option<String>,
    sentinel_password: Option<String>,
    /// The path of a Unix socket.
    socket: Option<String>,
}

impl ParsedUrl {
    fn parse(url: &str) -> Result<Self, ConfigError> {
        let Some((scheme, rest)) = url.split_once("://") else { return Err(no_scheme(url)) };
        let (is_tls, form) = read_scheme(scheme)?;
        let mut parsed = Self { is_tls, form, ..Self::default() };
        let (location, query) = rest.split_once('?').unwrap_or((rest, ""));
        if query.contains('@') {
            // What is taken for a query is the end of a password, not to be quoted.
            return Err(wrong(
                "has an `@` after its `?`; percent-encode `?` in passwords as %3F, and `@` as %40",
            ));
        }
        let (credentials, place) = match location.rfind("@/") {
            // The path of a socket may hold an `@`, also one that has no credentials.
            _ if form == UrlForm::Unix && location.starts_with('/') => ("", location),
            Some(at) if form == UrlForm::Unix => {
                let (credentials, place) = location.split_at(at);
                (credentials, place.trim_start_matches('@'))
            }
            _ => location.rsplit_once('@').unwrap_or(("", location)),
        };
        let (place, query, fragment) = match (place.split_once('#'), query.split_once('#')) {
            (Some((place, fragment)), _) if query.is_empty() => (place, "", fragment),
            (None, Some((query, fragment))) => (place, query, fragment),
            (None, None) => (place, query, ""),
            (Some(_), _) => return Err(has_fragment()),
        };
        parsed.read_credentials(credentials)?;
        parsed.read_query(query)?;
        if !fragment.is_empty() {
            // The way of Lettuce.
            if parsed.form != UrlForm::Sentinel || parsed.service.is_some() {
                return Err(has_fragment());
            }
            parsed.service = Some(decoded(fragment)?.into_owned());
        }
        parsed.read_place(place)?;
        parsed.check()?;
        Ok(parsed)
    }

    fn read_credentials(&mut self, credentials: &str) -> Result<(), ConfigError> {
        let (username, password) = credentials.split_once(':').unwrap_or((credentials, ""));
        let given = |text: &str| Ok((!text.is_empty()).then_some(decoded(text)?.into_owned()));
        self.username = given(username)?;
        self.password = given(password)?;
        Ok(())
    }

    fn read_query(&mut self, query: &str) -> Result<(), ConfigError> {
        let pairs = || {
            let pairs = query.split('&').filter(|pair| !pair.is_empty());
            pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        };
        if self.form == UrlForm::Single && pairs().any(|(name, _)| SERVICE.contains(&name)) {
            self.form = UrlForm::Sentinel;
        }
        let (has_nodes, has_sentinels) =
            (matches!(self.form, UrlForm::Cluster | UrlForm::Sentinel), self.is_sentinel());
        for (name, value) in pairs() {
            let value = decoded(value)?.into_owned();
            let is = |names: &[&str]| names.contains(&name);
            if is(NODE) && has_nodes {
                self.servers.push(self.server(&value)?);
            } else if is(SERVICE) && has_sentinels {
                set(&mut self.service, value, name)?;
            } else if is(SENTINEL_USERNAME) && has_sentinels {
                set(&mut self.sentinel_username, value, name)?;
            } else if is(SENTINEL_PASSWORD) && has_sentinels {
                set(&mut self.sentinel_password, value, name)?;
            } else if is(USERNAME) {
                set(&mut self.username, value, name)?;
            } else if is(PASSWORD) {
                set(&mut self.password, value, name)?;
            } else if is(DATABASE) {
                set(&mut self.database, database(&value)?, name)?;
            } else {
                return Err(self.unknown_parameter(name));
            }
        }
        Ok(())
    }

    fn unknown_parameter(&self, name: &str) -> ConfigError {
        let known = match self.form {
            UrlForm::Single | UrlForm::Unix => "db, username, password",
            UrlForm::Cluster => "node, username, password",
            UrlForm::Sentinel => {
                "node, sentinelServiceName, sentinelUsername, sentinelPassword, db, username, \
                 password"
            }
        };
        wrong(format!(
            "the parameter {name:?} is unknown; known are {known}; timeouts and the like are set \
             on the builder"
        ))
    }

    /// What comes after the credentials: hosts and a path.
    fn read_place(&mut self, place: &str) -> Result<(), ConfigError> {
        let (hosts, path) = place.find('/').map_or((place, ""), |at| place.split_at(at));
        if self.form == UrlForm::Unix {
            if path.len() < 2 {
                return Err(wrong("has no path; write redis+unix:///path/to/socket"));
            }
            // What stands before the path is asked nothing; some parsers want a host there.
            if self.username.is_none()
                && self.password.is_none()
                && !matches!(hosts, "" | "localhost")
            {
                return Err(wrong(
                    "has a path without its first `/`; write redis+unix:///path/to/socket, and \
                     redis+unix://user:password@/path/to/socket with credentials",
                ));
            }
            self.socket = Some(decoded(path)?.into_owned());
            return Ok(());
        }
        let named =
            hosts.split(',').map(|host| self.server(host)).collect::<Result<Vec<_>, _>>()?;
        self.servers.splice(0..0, named);
        let segments: Vec<_> = path.split('/').filter(|segment| !segment.is_empty()).collect();
        match segments.as_slice() {
            [] => Ok(()),
            [service] if self.is_sentinel() && service.parse::<u64>().is_err() => {
                set(&mut self.service, decoded(service)?.into_owned(), "sentinelServiceName")
            }
            [service, number] if self.is_sentinel() => {
                set(&mut self.service, decoded(service)?.into_owned(), "sentinelServiceName")?;
                self.set_database(number)
            }
            [number] => self.set_database(number),
            _ => Err(wrong("cannot be used: its path is not the number of a database")),
        }
    }

    fn set_database(&mut self, number: &str) -> Result<(), ConfigError> {
        let number = database(number)?;
        if self.database.is_some_and(|other| other != number) {
            return Err(wrong("names two databases; leave one of them out"));
        }
        self.database = Some(number);
        Ok(())
    }

    fn check(&self) -> Result<(), ConfigError> {
        match self.form {
            UrlForm::Single if self.servers.len() > 1 => Err(wrong(
                "names several servers, but not what they are; write \
                 redis-cluster://host1:6379,host2:6379 for a cluster, and \
                 redis-sentinel://host1:26379,host2:26379/0?sentinelServiceName=name for sentinels",
            )),
            UrlForm::Cluster if self.database.is_some_and(|database| database != 0) => {
                Err(wrong("names a database, but a cluster has only one; remove the path"))
            }
            UrlForm::Sentinel if self.service.as_deref().is_none_or(str::is_empty) => Err(wrong(
                "cannot be used: it does not say by which name the sentinels know the primary; \
                 add ?sentinelServiceName=name",
            )),
            _ => Ok(()),
        }
    }

    fn is_sentinel(&self) -> bool {
        self.form == UrlForm::Sentinel
    }

    /// `host`, `host:port`, `[::1]` or `[::1]:port`.
    fn server(&self, text: &str) -> Result<Server, ConfigError> {
        let port = if self.is_sentinel() { SENTINEL_PORT } else { PORT };
        split_address(text).map(|(host, own)| Server::new(host, own.unwrap_or(port))).ok_or_else(
            || {
                wrong(
                    "cannot be used: a host is missing, or is none; write redis://host:6379, with \
                     an IPv6 address in brackets",
                )
            },
        )
    }

    fn into_config(self, own_tls: &TlsSettings) -> Result<Config, ConfigError> {
        let server = match self.form {
            UrlForm::Cluster => ServerConfig::Clustered {
                hosts: self.servers,
                policy: ClusterDiscoveryPolicy::default(),
            },
            UrlForm::Sentinel => ServerConfig::Sentinel {
                hosts: self.servers,
                service_name: self.service.unwrap_or_default(),
                username: self.sentinel_username,
                password: self.sentinel_password,
            },
            #[cfg(feature = "unix-sockets")]
            UrlForm::Unix => ServerConfig::Unix { path: self.socket.unwrap_or_default().into() },
            _ => match self.servers.into_iter().next() {
                Some(server) => ServerConfig::Centralized { server },
                None => return Err(wrong("names no server")),
            },
        };
        let secured = if self.is_tls { own_tls.secured()? } else { Config::default() };
        Ok(Config {
            server,
            username: self.username,
            password: self.password,
            database: self.database,
            ..secured
        })
    }
}

pub(crate) fn require_tls(setting: &'static str) -> Result<(), ConfigError> {
    if cfg!(any(feature = "rustls", feature = "native-tls")) {
        return Ok(());
    }
    Err(ConfigError::new(
        setting,
        "needs TLS, which is not compiled in and would be sent in plain text; enable the feature \
         rustls or native-tls",
    ))
}

/// Host and port of `host`, `host:port`, `[::1]` or `[::1]:port`.
pub(crate) fn split_address(text: &str) -> Option<(&str, Option<u16>)> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']')?;
            (host, if port.is_empty() { None } else { Some(port.strip_prefix(':')?) })
        }
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    let port = match port {
        Some(port) => Some(port.parse().ok().filter(|port| *port != 0)?),
        None => None,
    };
    is_host(host).then_some((host, port))
}

/// Whether this can be the name or the address of a host: it has no character of a name that is
/// not in use. DNS names are not checked further.
fn is_host(host: &str) -> bool {
    let is_name =
        |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_') || byte > 127;
    !host.is_empty() && (host.bytes().all(is_name) || host.parse::<std::net::Ipv6Addr>().is_ok())
}

fn read_scheme(scheme: &str) -> Result<(bool, UrlForm), ConfigError> {
    let (family, form) = match scheme.find(['-', '+']) {
        Some(at) => scheme.split_at(at),
        None => (scheme, ""),
    };
    let (is_tls, form) = match (family, form) {
        ("unix", "") => (false, "+unix"),
        ("redis" | "valkey", form) => (false, form),
        ("rediss" | "valkeys", form) => (true, form),
        _ => {
            return Err(wrong(format!(
                "the scheme {scheme:?} is unknown; write redis:// or rediss://"
            )));
        }
    };
    let form = match form {
        "" => UrlForm::Single,
        "-cluster" | "+cluster" => UrlForm::Cluster,
        "-sentinel" | "+sentinel" => UrlForm::Sentinel,
        "+unix" | "-unix" | "-socket" | "+socket" => UrlForm::Unix,
        _ => {
            return Err(wrong(format!(
                "the scheme {scheme:?} is unknown; after redis may come -cluster, -sentinel or \
                 +unix"
            )));
        }
    };
    if form == UrlForm::Unix {
        if is_tls {
            return Err(wrong("asks for TLS over a Unix socket; write redis+unix://"));
        }
        if !cfg!(feature = "unix-sockets") {
            return Err(wrong(
                "needs Unix sockets, which are not compiled in; enable the feature unix-sockets",
            ));
        }
    }
    if is_tls {
        require_tls("url")?;
    }
    Ok((is_tls, form))
}

fn no_scheme(url: &str) -> ConfigError {
    if url.contains(',') && url.contains('=') {
        return wrong(
            "is a connection string of StackExchange.Redis; write \
             rediss://user:password@host:6380/0, or redis:// for a connection without TLS",
        );
    }
    wrong("has no scheme; write redis://host:6379")
}

fn has_fragment() -> ConfigError {
    wrong("has a fragment; percent-encode `#` in names and passwords as %23")
}

fn wrong(problem: impl Into<String>) -> ConfigError {
    ConfigError::new("url", problem)
}

fn beside_the_url(setting: &'static str) -> ConfigError {
    let problem = match setting {
        "host" | "port" => "is set, and a URL too; leave one of them out",
        "database" => "is set, and the URL names another one; leave one of them out",
        _ => "is set, and the URL has credentials too; leave one of them out",
    };
    ConfigError::new(setting, problem)
}

/// Sets what may be said once.
fn set<T>(place: &mut Option<T>, value: T, name: &str) -> Result<(), ConfigError> {
    if place.replace(value).is_some() {
        return Err(wrong(format!("says {name:?} twice; leave one of them out")));
    }
    Ok(())
}

fn database(number: &str) -> Result<u8, ConfigError> {
    number.parse().map_err(|_| wrong("cannot be used: a database is a number from 0 to 255"))
}

fn decoded(text: &str) -> Result<Cow<'_, str>, ConfigError> {
    percent_decode_str(text)
        .decode_utf8()
        .map_err(|_| wrong("is not UTF-8 when it is percent-decoded"))
}

#[cfg(test)]
mod tests;
