//! Keys from an identity provider over HTTP: what a real one answers, and what a broken or hostile
//! one might.
#![cfg(all(feature = "jwks", any(feature = "aws_lc_rs", feature = "rust_crypto")))]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on has failed"
)]

use std::error::Error as _;
use std::net::SocketAddr;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jsonwebtoken::{EncodingKey, Header};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use serde_json::json;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tower_jwt_revocation::clock::Timestamp;
use tower_jwt_revocation::token::jwks::{Jwks, JwksErrorKind};
use tower_jwt_revocation::token::{TokenErrorKind, TokenVerifier as _};
use tower_jwt_revocation::{Algorithm, JwtVerifier, TokenProfile, VerificationKey};

/// The longest document that is read.
const MAX_DOCUMENT_BYTES: usize = 256 * 1024;

/// The public part of `tests/keys/ed25519.pem`.
fn public_x() -> String {
    let pem = include_str!("keys/ed25519.pub.pem");
    let der = STANDARD
        .decode(pem.lines().filter(|line| !line.starts_with('-')).collect::<String>())
        .unwrap();
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(&der[der.len() - 32..])
}

fn key_set(kids: &[&str]) -> String {
    let key =
        |kid| json!({"kty": "OKP", "crv": "Ed25519", "use": "sig", "kid": kid, "x": public_x()});
    json!({ "keys": kids.iter().map(key).collect::<Vec<_>>() }).to_string()
}

fn token(issuer: &str, kid: &str) -> String {
    // jsonwebtoken must not be asked for anything before a key of ours was made.
    VerificationKey::from_secret(Algorithm::HS256, &[0; 32]).unwrap();
    let pem = include_str!("keys/ed25519.pem");
    let der = STANDARD
        .decode(pem.lines().filter(|line| !line.starts_with('-')).collect::<String>())
        .unwrap();
    let now = Timestamp::now().as_secs();
    let claims = json!({"iss": issuer, "sub": "alice", "jti": "1", "iat": now, "exp": now + 600});
    let header = Header { kid: Some(kid.into()), ..Header::new(jsonwebtoken::Algorithm::EdDSA) };
    jsonwebtoken::encode(&header, &claims, &EncodingKey::from_ed_der(&der)).unwrap()
}

fn ok(body: &str) -> String {
    format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// A server that answers each path as the test says, to the byte.
struct Provider {
    address: SocketAddr,
    heads: Arc<Mutex<Vec<String>>>,
    task: JoinHandle<()>,
}

impl Drop for Provider {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What a server does once it has read a request.
#[derive(Clone)]
enum Answer {
    Bytes(Vec<u8>),
    /// The bytes, and then nothing more, with the connection open.
    Hang(Vec<u8>),
    /// The bytes, over and over.
    Endless(Vec<u8>, Vec<u8>),
}

impl Provider {
    async fn start(answer: impl Fn(&str) -> Answer + Send + Sync + 'static) -> Self {
        Self::start_with(None, answer).await
    }

    async fn start_with(
        tls: Option<TlsAcceptor>,
        answer: impl Fn(&str) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let heads = Arc::new(Mutex::new(Vec::new()));
        let (answer, seen) = (Arc::new(answer), Arc::clone(&heads));
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (answer, seen, tls) = (Arc::clone(&answer), Arc::clone(&seen), tls.clone());
                tokio::spawn(async move {
                    match tls {
                        None => serve(stream, &seen, &*answer).await,
                        // A client that does not trust us is gone by now.
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                serve(stream, &seen, &*answer).await;
                            }
                        }
                    }
                });
            }
        });
        Self { address, heads, task }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    fn paths(&self) -> Vec<String> {
        self.heads.lock().unwrap().iter().map(|head| path(head).to_owned()).collect()
    }
}

fn path(head: &str) -> &str {
    head.split(' ').nth(1).unwrap()
}

/// The lines of a request before its body, the empty one included; none if the client is gone.
async fn read_head(stream: &mut (impl AsyncRead + Unpin)) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    Some(String::from_utf8(head).unwrap())
}

async fn serve(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    seen: &Mutex<Vec<String>>,
    answer: &(impl Fn(&str) -> Answer + ?Sized),
) {
    let Some(head) = read_head(&mut stream).await else { return };
    let answer = answer(path(&head));
    seen.lock().unwrap().push(head);
    let (first, repeated, hangs) = match answer {
        Answer::Bytes(bytes) => (bytes, None, false),
        Answer::Hang(bytes) => (bytes, None, true),
        Answer::Endless(bytes, more) => (bytes, Some(more), false),
    };
    let mut result = stream.write_all(&first).await;
    while let (Some(more), Ok(())) = (&repeated, &result) {
        result = stream.write_all(more).await;
    }
    if hangs {
        // Until the client gives up.
        let _ = stream.read_u8().await;
    }
    let _ = stream.shutdown().await;
}

fn plain(url: &str) -> Jwks {
    Jwks::at(url).unwrap().with_plain_http_on_loopback().with_timeout(Duration::from_millis(500))
}

async fn error_of(answer: Answer) -> JwksErrorKind {
    let provider = Provider::start(move |_| answer.clone()).await;
    let error = plain(&provider.url("/keys")).fetch().await.unwrap_err();
    assert!(!format!("{error} {error:?}").contains("hunter2"), "answers are not quoted: {error:?}");
    assert_eq!(provider.paths(), ["/keys"], "asked once, and nobody else");
    error.kind()
}

#[tokio::test]
async fn keys_are_fetched_by_their_url() {
    let provider = Provider::start(|_| Answer::Bytes(ok(&key_set(&["a"])).into())).await;
    let keys = plain(&provider.url("/keys?p=policy")).fetch().await.unwrap();
    assert_eq!(provider.paths(), ["/keys?p=policy"]);
    let profile = TokenProfile::new().with_issuer("https://id.example");
    let verifier = JwtVerifier::with_remote_keys(keys, profile).unwrap();
    verifier.verify(&token("https://id.example", "a")).unwrap();
}

#[tokio::test]
async fn an_answer_is_asked_for_as_it_is() {
    let provider = Provider::start(|_| Answer::Bytes(ok(&key_set(&["a"])).into())).await;
    plain(&provider.url("/keys")).fetch().await.unwrap();
    let heads = provider.heads.lock().unwrap().clone();
    let [head] = &heads[..] else { panic!("one request") };
    let head = head.to_lowercase();
    assert!(head.starts_with("get /keys http/1.1\r\n"), "{head}");
    assert!(head.contains("\r\naccept-encoding: identity\r\n"), "{head}");
    assert!(head.contains(&format!("\r\nhost: {}\r\n", provider.address)), "{head}");
    // Some caches answer with what they have packed for others.
    let packed = ok("\u{1f}").replace("content-type", "content-encoding: gzip\r\ncontent-type");
    assert_eq!(error_of(Answer::Bytes(packed.into())).await, JwksErrorKind::Malformed);
}

#[tokio::test]
async fn a_byte_order_mark_is_skipped() {
    let marked = format!("\u{feff}{}", key_set(&["a"]));
    let provider = Provider::start(move |_| Answer::Bytes(ok(&marked).into())).await;
    let keys = plain(&provider.url("/")).fetch().await.unwrap();
    assert_eq!(keys.key_ids().join(" "), "a");
}

#[tokio::test]
async fn keys_are_discovered() {
    let host = Arc::new(Mutex::new(String::new()));
    let known = Arc::clone(&host);
    let provider = Provider::start(move |path| {
        let host = known.lock().unwrap().clone();
        Answer::Bytes(match path {
            "/realm/.well-known/openid-configuration" => {
                ok(&json!({"issuer": format!("{host}/realm"), "jwks_uri": format!("{host}/keys")})
                    .to_string())
                .into()
            }
            "/keys" => ok(&key_set(&["a"])).into(),
            _ => b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n".to_vec(),
        })
    })
    .await;
    *host.lock().unwrap() = provider.url("");
    let issuer = provider.url("/realm");
    let keys =
        Jwks::of_issuer(&issuer).unwrap().with_plain_http_on_loopback().fetch().await.unwrap();
    let verifier =
        JwtVerifier::with_remote_keys(keys, TokenProfile::new().with_issuer(&issuer)).unwrap();
    verifier.verify(&token(&issuer, "a")).unwrap();
}

#[tokio::test]
async fn a_document_cannot_send_us_into_our_own_network() {
    for jwks_uri in [
        "https://10.0.0.1/keys",
        "https://169.254.169.254/latest",
        "https://[fd00::1]/",
        // 10.0.0.1, as the resolver of the system reads it.
        "https://10.1/keys",
        "https://167772161/keys",
        "https://0x0a000001/keys",
        "http://1.1.1.1/",
    ] {
        let host = Arc::new(Mutex::new(String::new()));
        let known = Arc::clone(&host);
        let provider = Provider::start(move |_| {
            let issuer = known.lock().unwrap().clone();
            Answer::Bytes(ok(&json!({"issuer": issuer, "jwks_uri": jwks_uri}).to_string()).into())
        })
        .await;
        *host.lock().unwrap() = provider.url("");
        let jwks = Jwks::of_issuer(&provider.url("")).unwrap().with_plain_http_on_loopback();
        let error = jwks.fetch().await.unwrap_err();
        assert_eq!(error.kind(), JwksErrorKind::Forbidden, "{jwks_uri}: {error}");
        if jwks_uri.contains("10.0.0.1") {
            // As in Kubernetes, where it is meant so.
            let told = error.to_string();
            assert!(told.contains("Jwks::at") && told.contains("JWT_JWKS_URL"), "{told}");
        }
    }
}

#[tokio::test]
async fn redirects_are_not_followed() {
    for status in
        ["301 Moved Permanently", "302 Found", "307 Temporary Redirect", "308 Permanent Redirect"]
    {
        let answer =
            format!("HTTP/1.1 {status}\r\nlocation: /hunter2\r\ncontent-length: 0\r\n\r\n");
        assert_eq!(error_of(Answer::Bytes(answer.into())).await, JwksErrorKind::Status);
    }
}

#[tokio::test]
async fn other_answers_than_200_are_errors_even_with_keys() {
    for status in [
        "201 Created",
        "203 Non-Authoritative",
        "404 Not Found",
        "429 Too Many Requests",
        "500 Error",
    ] {
        let answer = ok(&key_set(&["a"])).replace("200 OK", status);
        assert_eq!(error_of(Answer::Bytes(answer.into())).await, JwksErrorKind::Status, "{status}");
    }
}

#[tokio::test]
async fn huge_answers_are_cut_off() {
    let padded = |size: usize| {
        let set = key_set(&["a"]);
        format!("{}{set}", " ".repeat(size - set.len()))
    };
    let provider =
        Provider::start(move |_| Answer::Bytes(ok(&padded(MAX_DOCUMENT_BYTES)).into())).await;
    plain(&provider.url("/")).fetch().await.unwrap();
    assert_eq!(
        error_of(Answer::Bytes(ok(&padded(MAX_DOCUMENT_BYTES + 1)).into())).await,
        JwksErrorKind::TooLarge
    );
    let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
    let chunk = format!("1000\r\n{}\r\n", " ".repeat(0x1000));
    assert_eq!(
        error_of(Answer::Endless(chunked.into(), chunk.into())).await,
        JwksErrorKind::TooLarge
    );
    // Header fields without end.
    let endless = error_of(Answer::Endless(
        b"HTTP/1.1 200 OK\r\n".to_vec(),
        b"x-a: bbbbbbbbbbbbbb\r\n".to_vec(),
    ));
    assert_eq!(endless.await, JwksErrorKind::Unreachable);
}

#[tokio::test]
async fn slow_answers_are_given_up() {
    for bytes in
        ["", "HTTP/1.1 200 OK\r\n", "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{\"keys\":"]
    {
        assert_eq!(error_of(Answer::Hang(bytes.into())).await, JwksErrorKind::Timeout, "{bytes:?}");
    }
}

/// A provider that never answers must not cost a connection with every attempt.
#[tokio::test]
async fn a_fetch_that_is_given_up_closes_its_connection() {
    for bytes in ["", "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{\"keys\":"] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let keys = plain(&url).start().unwrap();
        let (mut stream, _) = listener.accept().await.unwrap();
        read_head(&mut stream).await.unwrap();
        stream.write_all(bytes.as_bytes()).await.unwrap();
        let end = tokio::time::timeout(Duration::from_secs(10), stream.read_u8()).await;
        end.expect("the connection is still open").unwrap_err();
        assert_eq!(keys.last_error().unwrap().kind(), JwksErrorKind::Timeout);
    }
}

#[tokio::test]
async fn garbage_is_an_error() {
    for bytes in [
        &b"\x16\x03\x01hunter2"[..],
        b"SSH-2.0-hunter2\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhunter2",
    ] {
        assert_eq!(error_of(Answer::Bytes(bytes.into())).await, JwksErrorKind::Unreachable);
    }
    for body in ["hunter2", "[]", "{\"keys\": \"hunter2\"}", "\u{feff}{}"] {
        assert_eq!(
            error_of(Answer::Bytes(ok(body).into())).await,
            JwksErrorKind::Malformed,
            "{body}"
        );
    }
}

#[tokio::test]
async fn nobody_at_home_is_an_error() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    drop(listener);
    let error = plain(&url).fetch().await.unwrap_err();
    assert_eq!(error.kind(), JwksErrorKind::Unreachable);
    // What a `main` shows that returns it.
    assert!(format!("{error:?}").starts_with("the provider cannot be reached: "), "{error:?}");
    assert!(!format!("{error:?}").contains('{'), "{error:?}");
    let cause = error.source().unwrap().downcast_ref::<std::io::Error>().unwrap();
    assert_eq!(cause.kind(), std::io::ErrorKind::ConnectionRefused);
    let nowhere = plain("http://no-such-host.invalid/").fetch().await.unwrap_err();
    assert!(
        matches!(nowhere.kind(), JwksErrorKind::Unreachable | JwksErrorKind::Timeout),
        "{nowhere}"
    );
}

#[tokio::test]
async fn plain_http_is_for_this_machine_and_only_when_asked_for() {
    let provider = Provider::start(|_| Answer::Bytes(ok(&key_set(&["a"])).into())).await;
    let error = Jwks::at(&provider.url("/")).unwrap().start().unwrap_err();
    assert_eq!(error.setting(), "jwks_url");
    let error = plain("http://192.0.2.1/").fetch().await.unwrap_err();
    assert_eq!(error.kind(), JwksErrorKind::Forbidden);
    assert!(provider.paths().is_empty());
}

/// A certificate authority, and a server with a certificate of it for this host.
fn tls(host: &str) -> (String, TlsAcceptor) {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let certificate =
        CertificateParams::new([host.to_owned()]).unwrap().signed_by(&key, &ca).unwrap();
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .unwrap();
    (ca.pem(), TlsAcceptor::from(Arc::new(config)))
}

#[tokio::test]
async fn over_tls_the_certificate_must_be_right() {
    let (ca, acceptor) = tls("localhost");
    let provider =
        Provider::start_with(Some(acceptor), |_| Answer::Bytes(ok(&key_set(&["a"])).into())).await;
    let port = provider.address.port();
    let at = |host: &str| Jwks::at(&format!("https://{host}:{port}/keys")).unwrap();

    at("localhost").with_root_certificates(ca.as_bytes()).unwrap().fetch().await.unwrap();
    assert_eq!(provider.paths(), ["/keys"]);

    // The address is the same; the name in the certificate is not.
    let wrong_name =
        at("127.0.0.1").with_root_certificates(ca.as_bytes()).unwrap().fetch().await.unwrap_err();
    assert_eq!(wrong_name.kind(), JwksErrorKind::Unreachable);
    let (other_ca, _) = tls("localhost");
    let unknown = at("localhost")
        .with_root_certificates(other_ca.as_bytes())
        .unwrap()
        .fetch()
        .await
        .unwrap_err();
    assert_eq!(unknown.kind(), JwksErrorKind::Unreachable);
    let shown = format!("{unknown:?}");
    assert!(shown.starts_with("TLS with the provider failed: invalid peer certificate"), "{shown}");
    assert_eq!(provider.paths(), ["/keys"], "nothing was asked without trust");
}

/// A proxy that answers `CONNECT` like this, and if that is a 200 opens a tunnel to the target,
/// whatever it was asked for. It keeps what it was asked.
async fn proxy(target: SocketAddr, answer: &'static str) -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&asked);
    tokio::spawn(async move {
        loop {
            let (mut client, _) = listener.accept().await.unwrap();
            let seen = Arc::clone(&seen);
            tokio::spawn(async move {
                let Some(head) = read_head(&mut client).await else { return };
                seen.lock().unwrap().push(head);
                client.write_all(format!("HTTP/1.1 {answer}\r\n\r\n").as_bytes()).await.unwrap();
                if answer.starts_with("200") {
                    let mut server = TcpStream::connect(target).await.unwrap();
                    // It ends when the client does.
                    let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
                }
            });
        }
    });
    (address, asked)
}

#[tokio::test]
async fn a_proxy_that_is_configured_is_used() {
    // Nobody but the proxy could find this host.
    let (ca, acceptor) = tls("id.invalid");
    let provider =
        Provider::start_with(Some(acceptor), |_| Answer::Bytes(ok(&key_set(&["a"])).into())).await;
    let (address, asked) = proxy(provider.address, "200 Connection established").await;
    let jwks = Jwks::at("https://id.invalid/keys").unwrap();
    let jwks = jwks.with_root_certificates(ca.as_bytes()).unwrap();
    let proxied = jwks.clone().with_proxy(&format!("http://alice:hunter2@{address}")).unwrap();
    assert!(!format!("{proxied:?}").contains("hunter2"), "{proxied:?}");
    proxied.fetch().await.unwrap();
    assert_eq!(provider.paths(), ["/keys"], "not the URL: to the provider there is no proxy");
    let head = asked.lock().unwrap().concat();
    assert!(head.starts_with("CONNECT id.invalid:443 HTTP/1.1\r\n"), "{head}");
    assert!(head.contains("Proxy-Authorization: Basic YWxpY2U6aHVudGVyMg==\r\n"), "{head}");
    assert!(!provider.heads.lock().unwrap().concat().to_lowercase().contains("proxy"));

    // Without it there is no other way.
    let error = jwks.with_timeout(Duration::from_secs(2)).fetch().await.unwrap_err();
    assert!(matches!(error.kind(), JwksErrorKind::Unreachable | JwksErrorKind::Timeout));
    assert_eq!(asked.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn a_proxy_that_does_not_help_is_named() {
    let (ca, acceptor) = tls("localhost");
    let provider =
        Provider::start_with(Some(acceptor), |_| Answer::Bytes(ok(&key_set(&["a"])).into())).await;
    let port = provider.address.port();
    for answer in ["407 Proxy Authentication Required", "502 Bad Gateway", "301 hunter2"] {
        let (address, asked) = proxy(provider.address, answer).await;
        let jwks = Jwks::at(&format!("https://localhost:{port}/keys")).unwrap();
        let jwks = jwks.with_root_certificates(ca.as_bytes()).unwrap();
        let jwks = jwks.with_proxy(&format!("http://alice:hunter2@{address}")).unwrap();
        let error = jwks.fetch().await.unwrap_err();
        assert_eq!(error.kind(), JwksErrorKind::Unreachable);
        let shown = format!("{error:?}");
        assert!(shown.starts_with("the provider cannot be reached through the proxy: "), "{shown}");
        assert!(!shown.contains("hunter2") && !shown.contains("YWxpY2U"), "{shown}");
        assert_eq!(asked.lock().unwrap().len(), 1);
    }
    assert!(provider.paths().is_empty(), "there is no way around the proxy");
}

/// A proxy that the operator has set up for other programs is not to see our requests, nor to
/// decide what our names mean.
#[tokio::test]
async fn the_environment_is_not_asked_for_a_proxy() {
    const TEST: &str = "the_environment_is_not_asked_for_a_proxy";
    const INNER: &str = "JWKS_TEST_HAS_PROXY_VARIABLES";
    let (ca, acceptor) = tls("localhost");
    let provider =
        Provider::start_with(Some(acceptor), |_| Answer::Bytes(ok(&key_set(&["a"])).into())).await;
    if std::env::var_os(INNER).is_some() {
        let port = provider.address.port();
        let jwks = Jwks::at(&format!("https://localhost:{port}/keys")).unwrap();
        jwks.with_root_certificates(ca.as_bytes()).unwrap().fetch().await.unwrap();
        let provider = Provider::start(|_| Answer::Bytes(ok(&key_set(&["a"])).into())).await;
        plain(&provider.url("/keys")).fetch().await.unwrap();
        return;
    }
    // The variables of a process can only be set from outside.
    let (address, asked) = proxy(provider.address, "403 Forbidden").await;
    let mut inner = Command::new(std::env::current_exe().unwrap());
    inner.args(["--exact", TEST]).env(INNER, "1");
    for name in ["HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"]
    {
        inner.env(name, format!("http://{address}"));
    }
    let output = tokio::task::spawn_blocking(move || inner.output()).await.unwrap().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"));
    assert!(asked.lock().unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rotation_under_load_refuses_no_token() {
    const ISSUER: &str = "https://id.example";
    let published = Arc::new(Mutex::new(key_set(&["old"])));
    let answers = Arc::clone(&published);
    let provider =
        Provider::start(move |_| Answer::Bytes(ok(&answers.lock().unwrap()).into())).await;
    let second = Duration::from_secs(1);
    let keys =
        plain(&provider.url("/")).with_cooldown(second).with_max_age(second).fetch().await.unwrap();
    let verifier = Arc::new(
        JwtVerifier::with_remote_keys(keys.clone(), TokenProfile::new().with_issuer(ISSUER))
            .unwrap(),
    );

    let current = Arc::new(Mutex::new(token(ISSUER, "old")));
    let (stop, accepted) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let load: Vec<_> = (0..2)
        .map(|_| {
            let (verifier, current) = (Arc::clone(&verifier), Arc::clone(&current));
            let (stop, accepted) = (Arc::clone(&stop), Arc::clone(&accepted));
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    // Held while it is verified: a token is not in use any more once the next step
                    // begins.
                    let token = current.lock().unwrap();
                    verifier.verify(&token).unwrap();
                    accepted.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();

    *published.lock().unwrap() = key_set(&["old", "new"]);
    keys.next_fetch().await.unwrap();
    assert_eq!(keys.key_ids().len(), 2);
    *current.lock().unwrap() = token(ISSUER, "new");
    *published.lock().unwrap() = key_set(&["new"]);
    keys.next_fetch().await.unwrap();
    stop.store(true, Ordering::Relaxed);
    for thread in load {
        thread.join().unwrap();
    }
    assert!(accepted.load(Ordering::Relaxed) > 100);
    let error = verifier.verify(&token(ISSUER, "old")).unwrap_err();
    assert_eq!(error.kind(), TokenErrorKind::UnknownKey);
}

/// Where a token says that its key can be found is of no interest.
#[tokio::test]
async fn tokens_cannot_name_a_place_for_keys() {
    const ISSUER: &str = "https://id.example";
    let mallory = Provider::start(|_| Answer::Bytes(ok(&key_set(&["evil"])).into())).await;
    let provider = Provider::start(|_| Answer::Bytes(ok(&key_set(&["a"])).into())).await;
    let jwks = plain(&provider.url("/")).with_cooldown(Duration::from_secs(1));
    let keys = jwks.fetch().await.unwrap();
    let profile = TokenProfile::new().with_issuer(ISSUER);
    let verifier = JwtVerifier::with_remote_keys(keys.clone(), profile).unwrap();
    let now = Timestamp::now().as_secs();
    let claims = json!({"iss": ISSUER, "sub": "alice", "jti": "1", "iat": now, "exp": now + 600});
    let pem = include_str!("keys/ed25519.pem");
    let der = STANDARD
        .decode(pem.lines().filter(|line| !line.starts_with('-')).collect::<String>())
        .unwrap();
    let header = Header {
        kid: Some("evil".into()),
        jku: Some(mallory.url("/jku")),
        x5u: Some(mallory.url("/x5u")),
        ..Header::new(jsonwebtoken::Algorithm::EdDSA)
    };
    let token = jsonwebtoken::encode(&header, &claims, &EncodingKey::from_ed_der(&der)).unwrap();
    let fetched = keys.next_fetch();
    assert_eq!(verifier.verify(&token).unwrap_err().kind(), TokenErrorKind::NoKeys);
    fetched.await.unwrap();
    assert_eq!(verifier.verify(&token).unwrap_err().kind(), TokenErrorKind::UnknownKey);
    assert!(mallory.paths().is_empty());
}
