//! Which addresses may be dialled, and the resolver that gives out no others.
//!
//! A name is resolved once, its addresses are checked, and these very addresses are dialled: a name
//! that has another address a moment later (DNS rebinding) gains nothing.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::task::{Context, Poll};
use std::vec;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use hyper_util::client::legacy::connect::dns::Name;
use tower::Service;

use super::unreachable;
use crate::token::jwks::{JwksError, JwksErrorKind};

/// Most addresses of a family that are tried. They share the time for connecting, and a share must
/// be longer than a round trip.
const MAX_ADDRESSES: usize = 4;

/// Which addresses may be dialled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AddressRule {
    /// All: the operator named the host.
    Any,
    /// Those of this machine, for plain `http`.
    Loopback,
    /// Those of the open internet: a document of the provider named the host.
    Public,
    /// The same, where plain `http` on this machine is allowed.
    PublicOrLoopback,
}

/// Resolves names by `names`. One address that the rule forbids is enough to refuse the name.
#[derive(Clone)]
pub(super) struct GuardedResolver<R> {
    pub(super) names: R,
    pub(super) rule: AddressRule,
}

// === impl AddressRule ===

impl AddressRule {
    pub(super) fn check(self, ip: IpAddr) -> Result<(), JwksError> {
        let is_allowed = match self {
            Self::Any => true,
            Self::Loopback => ip.is_loopback(),
            Self::Public => is_public(ip),
            Self::PublicOrLoopback => is_public(ip) || ip.is_loopback(),
        };
        if is_allowed {
            return Ok(());
        }
        let detail = match self {
            Self::Loopback => {
                "a URL of the provider is not https, and its host is not this machine"
            }
            _ => {
                "the `jwks_uri` is at another host than the issuer, with an address that is not \
                 public; if you trust it, name the key set itself instead of the issuer: \
                 Jwks::at(\"https://…\") or JWT_JWKS_URL, within Kubernetes \
                 https://kubernetes.default.svc/openid/v1/jwks"
            }
        };
        Err(JwksError::new(JwksErrorKind::Forbidden, detail))
    }
}

// === impl GuardedResolver ===

impl<R> Service<Name> for GuardedResolver<R>
where
    R: Service<Name, Error = io::Error, Future: Send + 'static>,
    R::Response: Iterator<Item = SocketAddr>,
{
    type Response = vec::IntoIter<SocketAddr>;
    type Error = JwksError;
    type Future = BoxFuture<'static, Result<Self::Response, JwksError>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), JwksError>> {
        self.names.poll_ready(cx).map_err(unresolved)
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let (resolved, rule) = (self.names.call(name), self.rule);
        async move {
            let mut addresses: Vec<SocketAddr> = resolved.await.map_err(unresolved)?.collect();
            addresses.iter().try_for_each(|address| rule.check(address.ip()))?;
            let (mut v4, mut v6) = (0, 0);
            addresses.retain(|address| {
                let count = if address.is_ipv4() { &mut v4 } else { &mut v6 };
                *count += 1;
                *count <= MAX_ADDRESSES
            });
            Ok(addresses.into_iter())
        }
        .boxed()
    }
}

fn unresolved(error: io::Error) -> JwksError {
    unreachable("the name of the host has no address").with_source(error)
}

/// Whether an address is one of the open internet: not of this machine, this network, or a range
/// that is set apart.
fn is_public(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => is_public_v4(ip),
        IpAddr::V6(ip) => is_public_v6(ip),
    }
}

fn is_public_v4(ip: Ipv4Addr) -> bool {
    let [a, b, c, _] = ip.octets();
    // RFC 6890, and what has been added to its registry.
    let is_special = ip.is_private()
        || ip.is_loopback()
        || ip.is_link_local()
        || ip.is_multicast()
        || ip.is_documentation()
        || a == 0
        || a >= 240
        || (a == 100 && b & 0xc0 == 64)
        || (a == 192 && b == 0 && c == 0)
        || (a == 198 && b & 0xfe == 18);
    !is_special
}

fn is_public_v6(ip: Ipv6Addr) -> bool {
    let [first, second, third, fourth, fifth, sixth, ..] = ip.segments();
    let embedded = |[.., high, low]: [u16; 8]| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        Ipv4Addr::new(a, b, c, d)
    };
    if let Some(mapped) = ip.to_ipv4_mapped() {
        return is_public_v4(mapped);
    }
    // Only under the well-known prefix of NAT64 is it said where the address of IPv4 stands
    // (RFC 6052 §2.1). The rest, 64:ff9b:1::/48 above all, is for local use (RFC 8215).
    if [first, second, third, fourth, fifth, sixth] == [0x64, 0xff9b, 0, 0, 0, 0] {
        return is_public_v4(embedded(ip.segments()));
    }
    // 2000::/3 is all that is in use, with documentation, benchmarks and 6to4 set apart in it.
    first & 0xe000 == 0x2000
        && !(first == 0x2001 && (second == 0xdb8 || second < 0x200))
        && first != 0x2002
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_of_the_open_internet_are_public() {
        for public in [
            "8.8.8.8",
            "100.128.0.1",
            "172.32.0.1",
            "2606:4700::1111",
            "::ffff:8.8.8.8",
            "64:ff9b::808:808",
        ] {
            assert!(is_public(public.parse().unwrap()), "{public}");
        }
        for private in [
            "127.0.0.1",
            "0.0.0.0",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.0.1",
            "169.254.169.254",
            "100.64.0.1",
            "192.0.0.8",
            "198.18.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "::1",
            "::",
            "fe80::1",
            "fc00::1",
            "ff02::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "64:ff9b::7f00:1",
            "64:ff9b:1::808:808",
            "64:ff9b:1:fffe::8.8.8.8",
            "64:ff9b:2::808:808",
            "64:ff9b::1:0:808:808",
            "2001:db8::1",
            "2002:7f00:1::",
            "::127.0.0.1",
        ] {
            assert!(!is_public(private.parse().unwrap()), "{private}");
        }
    }
}
