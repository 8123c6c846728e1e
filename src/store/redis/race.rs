//! The addresses of one name, raced: the first that connects wins (RFC 8305, "happy eyeballs").
//!
//! fred tries them one after the other within one limit, so that a first address which swallows
//! packets hides the others. So names are resolved here, and fred gets literal addresses. The whole
//! connection is raced, with TLS and authentication, because an address that accepts TCP and then
//! says nothing is no better than one that swallows packets.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt as _, StreamExt as _};
use tokio::time::sleep;

use crate::store::{StoreError, StoreErrorKind};

/// How long one address has a head start over the next (RFC 8305 §5), unless there are so many that
/// the last would not be tried in time.
const HEAD_START: Duration = Duration::from_millis(250);

/// Finds the addresses of a name.
pub(crate) trait ResolveHost: Send + Sync {
    fn resolve(&self, host: &str, port: u16) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>>;
}

/// Asks the operating system.
pub(crate) struct SystemResolver;

impl ResolveHost for SystemResolver {
    fn resolve(&self, host: &str, port: u16) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> {
        let host = host.to_owned();
        async move { Ok(tokio::net::lookup_host((host, port)).await?.collect()) }.boxed()
    }
}

/// The addresses of a host, in the order in which they are to be tried.
pub(crate) async fn addresses_of(
    resolver: &dyn ResolveHost,
    host: &str,
    port: u16,
) -> Result<Vec<SocketAddr>, StoreError> {
    if let Ok(ip) = host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(ip, port)]);
    }
    let found = resolver.resolve(host, port).await.map_err(|error| no_address(host, &error))?;
    if found.is_empty() {
        return Err(no_address(host, &"the name has none"));
    }
    Ok(interleaved(found))
}

fn no_address(host: &str, problem: &dyn fmt::Display) -> StoreError {
    StoreError::new(
        StoreErrorKind::Unreachable,
        format!("redis: no address of {host} is found: {problem}"),
    )
}

/// The two families in turn, beginning with that of the first (RFC 8305 §4); each address once.
fn interleaved(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let is_v6 = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (first, second): (Vec<_>, Vec<_>) =
        addresses.into_iter().partition(|address| address.is_ipv6() == is_v6);
    let (mut first, mut second) = (first.into_iter(), second.into_iter());
    let mut ordered = Vec::new();
    loop {
        let pair = [first.next(), second.next()];
        if pair == [None, None] {
            return ordered;
        }
        for address in pair.into_iter().flatten() {
            if !ordered.contains(&address) {
                ordered.push(address);
            }
        }
    }
}

/// Connects to the first address that can be connected to. The next one is tried when the one
/// before has failed, or has not connected within its head start. The caller says when it is over.
pub(crate) async fn race<T, F>(
    addresses: Vec<SocketAddr>,
    limit: Duration,
    connect: impl Fn(SocketAddr) -> F,
) -> Result<T, StoreError>
where
    F: Future<Output = Result<T, StoreError>>,
{
    let count = u32::try_from(addresses.len()).unwrap_or(u32::MAX);
    let head_start = HEAD_START.min(limit / count.saturating_add(1));
    let mut waiting = addresses.into_iter();
    let mut attempts = FuturesUnordered::new();
    let mut failure: Option<StoreError> = None;
    loop {
        attempts.extend(waiting.next().map(&connect));
        let attempt = if waiting.len() == 0 {
            attempts.next().await
        } else {
            tokio::select! {
                attempt = attempts.next() => attempt,
                () = sleep(head_start) => continue,
            }
        };
        match attempt {
            Some(Ok(connected)) => return Ok(connected),
            // What a server has said says more than that there is none.
            Some(Err(error)) => match &failure {
                Some(known) if known.kind() != StoreErrorKind::Unreachable => {}
                _ => failure = Some(error),
            },
            None => {
                return Err(failure.unwrap_or_else(|| no_address("the server", &"there is none")));
            }
        }
    }
}

#[cfg(test)]
mod tests;
