#![cfg(any(feature = "rustls", feature = "native-tls"))]

use std::fs;

use super::*;
use crate::support::{TempDir, TlsFiles};

/// One set of certificates that belong together, and another.
struct Files {
    dirs: [TempDir; 2],
    own: TlsFiles,
    other: TlsFiles,
}

fn files() -> Files {
    let dirs = [TempDir::new(), TempDir::new()];
    let [own, other] = [TlsFiles::write(dirs[0].path()), TlsFiles::write(dirs[1].path())];
    Files { dirs, own, other }
}

fn of_roots(path: &std::path::Path) -> TlsSettings {
    let mut settings = TlsSettings::default();
    settings.set_roots_file(path.into());
    settings
}

fn of_client(certificate: &std::path::Path, key: &std::path::Path) -> TlsSettings {
    let mut settings = TlsSettings::default();
    settings.set_client_files(certificate.into(), key.into());
    settings
}

#[track_caller]
fn assert_refused(settings: &TlsSettings, setting: &str, words: &str) {
    let error = settings.secured().unwrap_err();
    assert_eq!(error.setting(), setting, "{error}");
    assert!(error.to_string().contains(words), "{error}");
    assert!(!format!("{error:?}").contains("BEGIN PRIVATE"), "{error:?}");
}

#[test]
fn a_file_that_cannot_be_used_is_named_with_its_setting_and_the_remedy() {
    let Files { dirs, own, other } = &files();
    let write = |name: &str, text: &str| {
        let path = dirs[0].path().join(name);
        fs::write(&path, text).unwrap();
        path
    };
    let nowhere = dirs[0].path().join("nowhere");
    let (empty, junk) = (write("empty", ""), write("junk", "no PEM"));
    let cut = write("cut", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    let (ca, cert, key) = (&own.ca, &own.client_cert, &own.client_key);

    assert_refused(&of_roots(&nowhere), "root_certificates_file", "nowhere, which cannot be read");
    for none in [&empty, &junk, key] {
        assert_refused(&of_roots(none), "root_certificates_file", "no certificate in PEM; give");
    }
    assert_refused(&of_roots(&cut), "root_certificates_file", "cannot be used");
    assert_refused(&of_client(&nowhere, key), "client_certificate_file", "cannot be read");
    assert_refused(&of_client(key, key), "client_certificate_file", "no certificate in PEM; give");
    assert_refused(&of_client(cert, &nowhere), "client_key_file", "cannot be read");
    for none in [&empty, &junk, cert] {
        assert_refused(&of_client(cert, none), "client_key_file", "no private key");
    }
    assert_refused(&of_client(cert, &other.client_key), "client_key_file", "certificate is for");
    let mut settings = TlsSettings::default();
    settings.set_roots(b"no PEM");
    assert_refused(&settings, "root_certificates", "no certificate in PEM; give");

    assert!(of_roots(ca).secured().unwrap().uses_tls());
    assert!(of_client(cert, key).secured().unwrap().uses_tls());
}

#[test]
fn a_key_is_not_shown() {
    let Files { own, .. } = &files();
    let key = fs::read_to_string(&own.client_key).unwrap();
    let mut settings = of_roots(&own.ca);
    settings.set_client(&fs::read(&own.client_cert).unwrap(), key.as_bytes());
    let shown = format!("{settings:?}");
    assert!(shown.contains("client_key") && shown.contains("ca.pem"), "{shown}");
    assert!(!shown.contains("PRIVATE") && !shown.contains(key.lines().nth(1).unwrap()), "{shown}");
    let builder = crate::RedisStore::builder()
        .with_client_certificate(fs::read(&own.client_cert).unwrap(), key.as_bytes());
    let shown = format!("{builder:?}");
    assert!(!shown.contains("PRIVATE") && !shown.contains(key.lines().nth(1).unwrap()), "{shown}");
}

/// Which certificates a configuration stands for: the same only if they were read at once.
#[cfg(feature = "rustls")]
fn read_of(config: &Config) -> *const () {
    match &config.tls.as_ref().unwrap().connector {
        fred::types::config::TlsConnector::Rustls(connector) => {
            Arc::as_ptr(connector.config()).cast()
        }
        #[cfg(feature = "native-tls")]
        fred::types::config::TlsConnector::Native(_) => panic!("it is rustls"),
    }
}

#[cfg(feature = "rustls")]
#[tokio::test]
async fn what_was_read_last_is_used_while_a_file_cannot_be() {
    let Files { own, other, .. } = &files();
    let settings = of_roots(&own.ca);
    let first = settings.secured().unwrap();
    let current = CurrentTls::new(&settings, &first).unwrap();
    let good = fs::read(&other.ca).unwrap();
    fs::write(&own.ca, &good).unwrap();
    let renewed = current.renew(first.clone()).await;
    assert_ne!(read_of(&renewed), read_of(&first), "it is read again");
    for unusable in [b"half of a fi".to_vec(), Vec::new()] {
        fs::write(&own.ca, unusable).unwrap();
        let last = current.renew(first.clone()).await;
        assert_eq!(read_of(&last), read_of(&renewed), "neither none nor that of the start");
    }
    fs::remove_file(&own.ca).unwrap();
    assert_eq!(read_of(&current.renew(first.clone()).await), read_of(&renewed));
    fs::write(&own.ca, good).unwrap();
    let again = current.renew(first.clone()).await;
    assert!(![read_of(&first), read_of(&renewed)].contains(&read_of(&again)));
}

/// As on a volume of which the server is away: a pipe is opened when another one writes to it.
#[cfg(all(feature = "rustls", unix))]
#[tokio::test]
async fn a_file_that_hangs_keeps_no_connection_from_being_made() {
    use std::time::Instant;

    let Files { own, .. } = &files();
    let settings = of_roots(&own.ca);
    let first = settings.secured().unwrap();
    let current = CurrentTls::new(&settings, &first).unwrap();
    let good = fs::read(&own.ca).unwrap();
    fs::remove_file(&own.ca).unwrap();
    let made = std::process::Command::new("mkfifo").arg(&own.ca).status().unwrap();
    assert!(made.success());
    for _ in 0..2 {
        let start = Instant::now();
        let last = current.renew(first.clone()).await;
        assert_eq!(read_of(&last), read_of(&first));
        assert!(start.elapsed() >= READ_LIMIT);
        assert_eq!(current.reading.available_permits(), 0, "one thread waits, and no more");
    }
    // Once it can be read it is, also by whoever waits no more.
    fs::write(&own.ca, good).unwrap();
    crate::support::wait_until("it is read", Duration::from_secs(30), || {
        current.reading.available_permits() == 1
    });
    let last = current.last.lock().unwrap().clone();
    assert_ne!(read_of(&last), read_of(&first));
}

#[tokio::test]
async fn what_has_no_tls_gets_none() {
    let Files { own, .. } = &files();
    let settings = of_roots(&own.ca);
    let current = CurrentTls::new(&settings, &settings.secured().unwrap()).unwrap();
    assert!(!current.renew(Config::default()).await.uses_tls());
    let mut given = TlsSettings::default();
    given.set_roots(b"whatever");
    assert!(CurrentTls::new(&given, &Config::default()).is_none());
}
