//! URLs of Redis, as configurations of fred.

use fred::types::config::Config;

use crate::config::ConfigError;

/// Reads a URL as fred does, but refuses what fred would ignore without a word.
pub(crate) fn parse_url(url: &str) -> Result<Config, ConfigError> {
    let Some((scheme, rest)) = url.split_once("://") else {
        return Err(ConfigError::new("url", "has no scheme; write redis://host:6379"));
    };
    let (family, form) = match scheme.find(['-', '+']) {
        Some(at) => scheme.split_at(at),
        None => (scheme, ""),
    };
    let is_tls = match family {
        "redis" | "valkey" => false,
        "rediss" | "valkeys" => true,
        _ => {
            return Err(ConfigError::new(
                "url",
                format!("the scheme {scheme:?} is unknown; write redis:// or rediss://"),
            ));
        }
    };
    if is_tls && form != "+unix" && !cfg!(any(feature = "rustls", feature = "native-tls")) {
        return Err(ConfigError::new(
            "url",
            format!(
                "{scheme}:// needs TLS, which is not compiled in and would be sent in plain text; \
                 enable the feature rustls or native-tls"
            ),
        ));
    }
    let (location, query) = rest.split_once('?').unwrap_or((rest, ""));
    if location.contains('#') || query.contains('#') {
        return Err(ConfigError::new(
            "url",
            "has a fragment; percent-encode `#` in passwords as %23",
        ));
    }
    if query.contains('@') {
        // What is taken for a query is the end of a password, not to be quoted.
        return Err(ConfigError::new(
            "url",
            "has an `@` after its `?`; percent-encode `?` in passwords as %3F, and `@` as %40",
        ));
    }
    let path = location
        .rsplit_once('@')
        .map_or(location, |(_, host)| host)
        .split_once('/')
        .map_or("", |(_, p)| p);
    let known: &[&str] = match form {
        "" => &[],
        "-cluster" if path.is_empty() => &["node"],
        "-cluster" => {
            return Err(ConfigError::new(
                "url",
                "names a database, but a cluster has only one; remove the path",
            ));
        }
        "-sentinel" => &["node", "sentinelServiceName", "sentinelUsername", "sentinelPassword"],
        "+unix" if is_tls => {
            return Err(ConfigError::new(
                "url",
                "asks for TLS over a Unix socket; write redis+unix://",
            ));
        }
        "+unix" if cfg!(feature = "unix-sockets") => &[],
        "+unix" => {
            return Err(ConfigError::new(
                "url",
                "needs Unix sockets, which are not compiled in; enable the feature unix-sockets",
            ));
        }
        _ => {
            return Err(ConfigError::new(
                "url",
                format!(
                    "the scheme {scheme:?} is unknown; after redis may come -cluster, -sentinel or \
                     +unix"
                ),
            ));
        }
    };
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let name = pair.split_once('=').map_or(pair, |(name, _)| name);
        if !known.contains(&name) {
            let remedy = if known.is_empty() {
                "this scheme takes none".into()
            } else {
                format!("known are {}", known.join(", "))
            };
            return Err(ConfigError::new(
                "url",
                format!(
                    "the parameter {name:?} is unknown; {remedy}; timeouts and the like are set on \
                     the builder"
                ),
            ));
        }
    }
    // The cause does not quote the URL, which may hold a password.
    Config::from_url(url)
        .map_err(|error| ConfigError::new("url", format!("cannot be used: {}", error.details())))
}
