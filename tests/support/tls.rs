//! Certificates for one test.
use std::fs;
use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};

/// A certificate authority with one server and one client certificate, as PEM files.
pub struct TlsFiles {
    pub ca: PathBuf,
    /// Good for `localhost`, `127.0.0.1` and `::1`.
    pub server_cert: PathBuf,
    pub server_key: PathBuf,
    pub client_cert: PathBuf,
    pub client_key: PathBuf,
}

impl TlsFiles {
    /// Writes a new set into `dir`, which the caller removes.
    pub fn write(dir: &Path) -> Self {
        let put = |name: &str, pem: &str| {
            let path = dir.join(name);
            fs::write(&path, pem).expect("a writable directory for certificates");
            path
        };
        let ca_key = KeyPair::generate().expect("a key");
        let mut ca = params(&[], "test authority");
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca_file = put("ca.pem", &ca.self_signed(&ca_key).expect("a certificate").pem());
        let issuer = Issuer::new(ca, ca_key);

        let leaf = |name: &str, hosts: &[&str], usage: ExtendedKeyUsagePurpose| {
            let key = KeyPair::generate().expect("a key");
            let mut params = params(hosts, name);
            params.extended_key_usages.push(usage);
            let cert = params.signed_by(&key, &issuer).expect("a certificate");
            (
                put(&format!("{name}.pem"), &cert.pem()),
                put(&format!("{name}.key"), &key.serialize_pem()),
            )
        };
        let (server_cert, server_key) =
            leaf("server", &["localhost", "127.0.0.1", "::1"], ExtendedKeyUsagePurpose::ServerAuth);
        let (client_cert, client_key) = leaf("client", &[], ExtendedKeyUsagePurpose::ClientAuth);
        Self { ca: ca_file, server_cert, server_key, client_cert, client_key }
    }
}

fn params(hosts: &[&str], common_name: &str) -> CertificateParams {
    let hosts: Vec<String> = hosts.iter().map(ToString::to_string).collect();
    let mut params = CertificateParams::new(hosts).expect("valid host names");
    params.distinguished_name.push(rcgen::DnType::CommonName, common_name);
    params
}
