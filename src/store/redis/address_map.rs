//! [`AddressMap`]: where the addresses that sentinels and clusters announce are dialled. Pure.

use std::net::IpAddr;

use fred::types::config::Server;

use super::url::split_address;
use crate::config::ConfigError;

/// The hosts of an address map, and ports where they matter.
#[derive(Clone, Default)]
pub(crate) struct AddressMap(Vec<AddressRule>);

#[derive(Clone)]
struct AddressRule {
    announced: (Box<str>, Option<u16>),
    dialled: (Box<str>, Option<u16>),
}

impl AddressMap {
    /// Reads pairs of `host:port` or `host`.
    ///
    /// # Errors
    /// [`ConfigError`] if one is no address, or is announced twice.
    pub(crate) fn parse(pairs: &[(Box<str>, Box<str>)]) -> Result<Self, ConfigError> {
        let address = |text: &str| {
            let address = split_address(text).map(|(host, port)| (Box::from(host), port));
            address.ok_or_else(|| {
                let problem = format!("{text:?} is no address; write host:port, or host alone");
                ConfigError::new("address_map", problem)
            })
        };
        let mut rules: Vec<AddressRule> = Vec::with_capacity(pairs.len());
        for (announced, dialled) in pairs {
            let rule = AddressRule { announced: address(announced)?, dialled: address(dialled)? };
            if rules.iter().any(|other| other.announced == rule.announced) {
                let problem = format!("{announced:?} is mapped twice; leave one of them out");
                return Err(ConfigError::new("address_map", problem));
            }
            rules.push(rule);
        }
        Ok(Self(rules))
    }

    /// Where to dial what was announced. A rule for the port goes before one for the host alone.
    pub(crate) fn dialled(&self, announced: Server) -> Server {
        let rule = |port: Option<u16>| {
            self.0.iter().find(|rule| {
                rule.announced.1 == port && rule.announced.0.eq_ignore_ascii_case(&announced.host)
            })
        };
        let Some(AddressRule { dialled: (host, port), .. }) =
            rule(Some(announced.port)).or_else(|| rule(None))
        else {
            return announced;
        };
        let dialled = Server::new(&**host, port.unwrap_or(announced.port));
        if host.parse::<IpAddr>().is_err() {
            return dialled;
        }
        let name = tls_name_of(&announced).to_owned();
        named(dialled, &name)
    }
}

/// The server, with the name by which its certificate is checked.
pub(crate) fn named(server: Server, name: &str) -> Server {
    #[cfg(any(feature = "rustls", feature = "native-tls"))]
    let server = Server { tls_server_name: Some(name.into()), ..server };
    #[cfg(not(any(feature = "rustls", feature = "native-tls")))]
    let _ = name;
    server
}

/// The name by which the certificate of a server is checked.
pub(crate) fn tls_name_of(server: &Server) -> &str {
    #[cfg(any(feature = "rustls", feature = "native-tls"))]
    if let Some(name) = &server.tls_server_name {
        return name;
    }
    &server.host
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> Result<AddressMap, ConfigError> {
        let pairs: Vec<_> = pairs.iter().map(|(a, b)| ((*a).into(), (*b).into())).collect();
        AddressMap::parse(&pairs)
    }

    #[test]
    fn announced_addresses_are_dialled_where_the_map_says() {
        let map = map(&[
            ("10.0.0.1:7000", "nat.test:17000"),
            ("10.0.0.1", "other.test"),
            ("node-1", "127.0.0.1:9"),
            ("[::1]:1", "[::2]:2"),
        ]);
        let map = map.unwrap();
        for (announced, dialled, name) in [
            (("10.0.0.1", 7000), ("nat.test", 17000), "nat.test"),
            (("10.0.0.1", 7001), ("other.test", 7001), "other.test"),
            (("Node-1", 5), ("127.0.0.1", 9), "Node-1"),
            (("::1", 1), ("::2", 2), "::1"),
            (("10.0.0.2", 7000), ("10.0.0.2", 7000), "10.0.0.2"),
        ] {
            let server = map.dialled(Server::from(announced));
            assert_eq!(server, Server::from(dialled));
            if cfg!(any(feature = "rustls", feature = "native-tls")) {
                assert_eq!(tls_name_of(&server), name);
            }
        }
    }

    #[test]
    fn a_map_that_cannot_be_meant_is_refused() {
        for pairs in [&[("", "h:1")][..], &[("h:1", "h:x")], &[("h:1", "a"), ("h:1", "b")]] {
            assert_eq!(map(pairs).err().unwrap().setting(), "address_map");
        }
    }
}
