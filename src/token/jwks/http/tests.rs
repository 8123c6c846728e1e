//! What is dialled, in which order and for how long, and how answers are read.

use std::future::{Ready, ready};
use std::net::Ipv6Addr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Instant;
use std::vec;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::timeout;

use super::*;

const LOOPBACK: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

/// Every name has these addresses.
#[derive(Clone)]
struct Names {
    addresses: Vec<IpAddr>,
    asked: Arc<AtomicUsize>,
}

impl Names {
    fn of(addresses: impl IntoIterator<Item = IpAddr>) -> Self {
        Self { addresses: addresses.into_iter().collect(), asked: Arc::default() }
    }
}

impl Service<Name> for Names {
    type Response = vec::IntoIter<SocketAddr>;
    type Error = io::Error;
    type Future = Ready<io::Result<Self::Response>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Name) -> Self::Future {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let addresses = self.addresses.iter().map(|ip| SocketAddr::new(*ip, 0));
        ready(Ok(addresses.collect::<Vec<_>>().into_iter()))
    }
}

fn client(names: &Names, connect_timeout: Duration) -> HttpClient<Names> {
    let no_roots =
        HttpSettings { roots: Some(RootCertStore::empty().into()), ..Default::default() };
    HttpClient {
        resolver: names.clone(),
        tls: Some(tls_config(&no_roots).unwrap()),
        plain_loopback: true,
        proxy: None,
        connect_timeout,
    }
}

/// Answers every request with `{}`, and counts the connections.
async fn server() -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind((LOOPBACK, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let connections = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&connections);
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            count.fetch_add(1, Ordering::SeqCst);
            // The whole request fits into one read: there is none larger on loopback.
            let _ = stream.read(&mut [0; 4096]).await;
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}";
            stream.write_all(answer).await.unwrap();
        }
    });
    (port, connections)
}

/// A port whose queue is full, so that the kernel drops each further SYN, as a firewall does.
/// It does so as long as what is returned is alive.
async fn swallow_packets(address: SocketAddr) -> io::Result<impl Sized> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.bind(address)?;
    let listener = socket.listen(1)?;
    let mut waiting = Vec::new();
    for _ in 0..16 {
        match timeout(Duration::from_millis(200), TcpStream::connect(address)).await {
            Ok(stream) => waiting.push(stream?),
            Err(_) => return Ok((listener, waiting)),
        }
    }
    Err(io::Error::other("connections are taken on without end"))
}

fn url(scheme: &str, host: &str, port: u16) -> Uri {
    format!("{scheme}://{host}:{port}/").parse().unwrap()
}

// Other systems have one address of their own only, or answer instead of dropping.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn an_address_that_swallows_packets_does_not_keep_us_from_the_next() {
    let (port, _) = server().await;
    let dead = IpAddr::from([127, 0, 0, 2]);
    let _dead = swallow_packets((dead, port).into()).await.unwrap();
    let client = client(&Names::of([dead, LOOPBACK]), Duration::from_secs(1));
    let start = Instant::now();
    let got = client.get(&url("http", "id.test", port), AddressScope::Any).await.unwrap();
    assert_eq!(got.body, "{}");
    let took = start.elapsed();
    assert!(took >= Duration::from_millis(450), "the first one was not tried: {took:?}");
    assert!(took < Duration::from_secs(5), "{took:?}");
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_family_of_addresses_that_swallows_packets_is_overtaken_by_the_other() {
    let (port, _) = server().await;
    let dead = IpAddr::V6(Ipv6Addr::LOCALHOST);
    if std::net::TcpListener::bind((dead, 0)).is_err() {
        eprintln!("skipped: this machine has no IPv6");
        return;
    }
    let _dead = swallow_packets((dead, port).into()).await.unwrap();
    let client = client(&Names::of([dead, LOOPBACK]), Duration::from_secs(60));
    let start = Instant::now();
    client.get(&url("http", "id.test", port), AddressScope::Any).await.unwrap();
    let took = start.elapsed();
    assert!(took >= Duration::from_millis(250), "the first one was not tried: {took:?}");
    assert!(took < Duration::from_secs(10), "it waited for the first one: {took:?}");
}

#[tokio::test]
async fn the_time_is_shared_by_four_addresses_of_a_family_at_most() {
    let many = (1..=9).map(|n| IpAddr::from([127, 0, 0, n]));
    let v6 = (1..=9).map(|n| IpAddr::V6(Ipv6Addr::from(n)));
    let names = Names::of(many.chain(v6));
    let mut resolver = GuardedResolver { names, rule: AddressRule::Any };
    let tried: Vec<_> = resolver.call("id.test".parse().unwrap()).await.unwrap().collect();
    assert_eq!(tried.iter().filter(|address| address.is_ipv4()).count(), 4);
    assert_eq!(tried.iter().filter(|address| address.is_ipv6()).count(), 4);
}

#[tokio::test]
async fn what_is_dialled_is_what_was_checked() {
    let (port, connections) = server().await;
    let private = IpAddr::from([10, 0, 0, 1]);
    let public = IpAddr::from([192, 0, 32, 8]);
    for (scheme, scope, addresses) in [
        ("https", AddressScope::PublicOnly, vec![private]),
        ("https", AddressScope::PublicOnly, vec![public, private]),
        ("http", AddressScope::Any, vec![LOOPBACK, public]),
        ("http", AddressScope::PublicOnly, vec![LOOPBACK, private]),
    ] {
        let names = Names::of(addresses);
        let client = client(&names, Duration::from_secs(1));
        let error = client.get(&url(scheme, "id.test", port), scope).await.unwrap_err();
        assert_eq!(error.kind(), JwksErrorKind::Forbidden, "{scheme} {:?}", names.addresses);
        assert_eq!(names.asked.load(Ordering::SeqCst), 1);
    }
    assert_eq!(connections.load(Ordering::SeqCst), 0);

    let names = Names::of([LOOPBACK]);
    let client = client(&names, Duration::from_secs(1));
    client.get(&url("http", "id.test", port), AddressScope::PublicOnly).await.unwrap();
    assert_eq!(names.asked.load(Ordering::SeqCst), 1, "no second answer could have replaced it");
    assert_eq!(connections.load(Ordering::SeqCst), 1);
}

#[test]
fn a_proxy_is_named_by_a_url_of_its_own() {
    let proxy = HttpProxy::at("http://alice:p%40ss%3a@proxy.example:3128").unwrap();
    assert_eq!(proxy.url, "http://proxy.example:3128/");
    // `printf alice:p@ss: | base64`
    assert_eq!(proxy.credentials.unwrap(), "Basic YWxpY2U6cEBzczo=");
    let proxy = HttpProxy::at("http://proxy.example").unwrap();
    assert_eq!((proxy.url.host(), proxy.credentials), (Some("proxy.example"), None));
    for bad in [
        "",
        "proxy.example:3128",
        "https://proxy.example:3128",
        "socks5://proxy.example:1080",
        "http://proxy.example/path",
        "http://proxy.example/?a=b",
        "http://:3128",
        "http://alice:hunter2@",
    ] {
        assert!(HttpProxy::at(bad).is_none(), "{bad}");
    }
}

#[test]
fn the_age_is_read_as_http_writes_it() {
    let age = |text: &str| {
        let mut headers = HeaderMap::new();
        headers.insert(CACHE_CONTROL, text.parse().unwrap());
        max_age(&headers).map(|age| age.as_secs())
    };
    assert_eq!(age("public, max-age=300, must-revalidate"), Some(300));
    assert_eq!(age("Max-Age=\"300\""), Some(300));
    assert_eq!(age("no-store"), Some(0));
    assert_eq!(age("max-age=300, no-cache"), Some(0));
    assert_eq!(age("s-maxage=300"), None);
    assert_eq!(age("max-age=-1"), None);
    assert_eq!(max_age(&HeaderMap::new()), None);
}
