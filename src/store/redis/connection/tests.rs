use fred::error::{Error, ErrorKind};

use super::*;
use crate::support::{RedisServer, redis_or_skip};

#[test]
fn the_code_of_an_error_is_its_first_word_also_out_of_a_script() {
    for (details, code) in [
        ("NOPERM this user", "NOPERM"),
        ("OOM command not allowed script: abc, on @user_script:1.", "OOM"),
        (
            "ERR Error running script (call to f_abc): @user_script:1: -OOM command not allowed",
            "OOM",
        ),
        ("ERR unknown command", "ERR"),
        ("", ""),
    ] {
        assert_eq!(code_of(details), code, "{details}");
    }
}

#[test]
fn a_certificate_that_is_not_accepted_is_told_with_the_remedy_and_not_waited_for() {
    for (details, remedy) in [
        ("invalid peer certificate: UnknownIssuer", "REDIS_CA_FILE"),
        ("Custom { kind: InvalidData, error: InvalidCertificate(UnknownIssuer) }", "REDIS_CA_FILE"),
        (
            "Custom { kind: InvalidData, error: AlertReceived(CertificateRequired) }",
            "REDIS_CLIENT_CERT_FILE",
        ),
        ("Ssl(Error { code: 1, reason: \"certificate verify failed\" })", "REDIS_CA_FILE"),
        ("received fatal alert: CertificateRequired", "REDIS_CLIENT_CERT_FILE"),
        ("received fatal alert: UnknownCA", "REDIS_CLIENT_CERT_FILE"),
        ("AlertReceived(DecryptError)", "REDIS_CLIENT_CERT_FILE"),
        ("ssl/tls alert bad certificate, SSL alert number 42", "REDIS_CLIENT_CERT_FILE"),
    ] {
        let error = classify(&Error::new(ErrorKind::IO, details));
        assert_eq!(error.kind(), StoreErrorKind::Denied, "{details}");
        assert!(error.to_string().contains(remedy), "{error}");
        assert!(is_of_certificates(&error), "{error}");
    }
    // A user of Redis may be called so.
    let other = classify(&Error::new(ErrorKind::Unknown, "NOPERM unknown ca"));
    assert!(!is_of_certificates(&other), "{other}");
}

#[test]
fn what_fred_says_itself_is_told_from_what_redis_says() {
    for (kind, details, expected) in [
        (ErrorKind::Unknown, "channel closed", StoreErrorKind::Unreachable),
        (ErrorKind::Unknown, "NEWCODE of a later version", StoreErrorKind::Other),
        (ErrorKind::IO, "Os { code: 104 }", StoreErrorKind::Unreachable),
        (ErrorKind::Timeout, "Request timed out.", StoreErrorKind::Timeout),
        (ErrorKind::Unknown, "LOADING", StoreErrorKind::Loading),
    ] {
        assert_eq!(classify(&Error::new(kind, details)).kind(), expected, "{details}");
    }
}

#[test]
fn an_error_of_the_system_is_told_in_its_words() {
    let refused = std::io::Error::from_raw_os_error(111);
    let error = classify(&Error::from(refused));
    assert!(
        !error.to_string().contains("Os {") && error.to_string().len() > "redis: ".len(),
        "{error}"
    );
    let odd = "Os { code: 1, kind: Other, message: \"x";
    assert_eq!(classify(&Error::new(ErrorKind::IO, odd)).to_string(), format!("redis: {odd}"));
    assert_eq!(
        classify(&Error::new(ErrorKind::Unknown, "OOM full")).to_string(),
        "redis: OOM full"
    );
}

/// Answers for every name.
struct Fixed(Vec<SocketAddr>);

impl ResolveHost for Fixed {
    fn resolve(
        &self,
        _: &str,
        _: u16,
    ) -> futures::future::BoxFuture<'static, std::io::Result<Vec<SocketAddr>>> {
        Box::pin(std::future::ready(Ok(self.0.clone())))
    }
}

fn resolving_to(addresses: Vec<SocketAddr>) -> ConnectSettings {
    ConnectSettings { resolver: Arc::new(Fixed(addresses)), ..ConnectSettings::default() }
}

#[tokio::test]
async fn an_address_that_says_nothing_does_not_hide_the_next() {
    redis_or_skip!();
    // The kernel accepts connections, and nobody reads them.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let redis = RedisServer::start();
    let settings = resolving_to(vec![silent.local_addr().unwrap(), redis.addr()]);
    let server = ServerConfig::new_centralized("redis.test", 1);
    let config = Config { server: server.clone(), ..Config::default() };
    let connection = Connection::open(config, &settings, CONNECT_TIMEOUT).await.unwrap();
    assert!(connection.server == server, "it is known by its name");
    let pong = connection.command::<Value>("PING", Vec::new(), CONNECT_TIMEOUT).await.unwrap();
    assert_eq!(pong.as_str().as_deref(), Some("PONG"));
}

/// Certificates are good for `localhost`, not for every name that leads to the same address.
#[cfg(feature = "rustls")]
#[tokio::test]
async fn a_certificate_is_checked_by_the_name_though_the_address_is_dialled() {
    use fred::rustls::pki_types::CertificateDer;
    use fred::rustls::pki_types::pem::PemObject as _;
    use fred::rustls::{ClientConfig, RootCertStore, crypto};
    use fred::types::config::TlsConnector;

    redis_or_skip!();
    if !crate::support::server_has_tls() {
        return;
    }
    let redis = RedisServer::builder().tls(false).start();
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(&redis.tls().ca).unwrap() {
        roots.add(certificate.unwrap()).unwrap();
    }
    let provider = Arc::new(crypto::aws_lc_rs::default_provider());
    let tls = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    // A busy machine may take longer than a second for TLS.
    let limit = Duration::from_secs(60);
    let settings = ConnectSettings { timeout: limit, ..resolving_to(vec![redis.addr()]) };
    let open = |host: &str| {
        let config = Config {
            server: ServerConfig::new_centralized(host, 1),
            tls: Some(TlsConnector::from(tls.clone()).into()),
            ..Config::default()
        };
        let settings = settings.clone();
        async move { Connection::open(config, &settings, CONNECT_TIMEOUT).await }
    };
    open("localhost").await.unwrap();
    open("other.test").await.unwrap_err();
}
