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

#[tokio::test]
async fn what_was_read_before_is_used_while_a_file_cannot_be() {
    let Files { own, .. } = &files();
    let settings = of_roots(&own.ca);
    let first = settings.secured().unwrap();
    let current = CurrentTls::new(&settings, &first).unwrap();
    fs::write(&own.ca, "half of a fi").unwrap();
    assert!(current.renew(first).await.uses_tls());
    // What has no TLS gets none.
    assert!(!current.renew(Config::default()).await.uses_tls());
    let mut given = TlsSettings::default();
    given.set_roots(b"whatever");
    assert!(CurrentTls::new(&given, &Config::default()).is_none());
}
