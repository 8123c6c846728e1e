//! TLS by rustls.

use std::sync::Arc;

use fred::rustls::crypto::{self, CryptoProvider};
use fred::rustls::pki_types::pem::PemObject as _;
use fred::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use fred::rustls::{ClientConfig, RootCertStore};
use fred::rustls_native_certs::load_native_certs;
use fred::types::config::TlsConnector;

use super::{BAD_CERTIFICATE, NO_CERTIFICATE, NOT_A_PAIR, Pem};
use crate::config::ConfigError;

/// `client` is the certificate of this client, and its key.
pub(super) fn connector(
    roots: Option<&Pem<'_>>,
    client: Option<&(Pem<'_>, Pem<'_>)>,
) -> Result<TlsConnector, ConfigError> {
    let trusted = match roots {
        None => system_roots()?,
        Some(pem) => {
            let mut trusted = RootCertStore::empty();
            for certificate in certificates(pem)? {
                trusted
                    .add(certificate)
                    .map_err(|error| pem.error(BAD_CERTIFICATE).with_source(error))?;
            }
            trusted
        }
    };
    // The choice of the application, if it has made one for the process. Where several providers
    // are compiled in and none is chosen, rustls would panic.
    let provider = CryptoProvider::get_default().cloned();
    let provider = provider.unwrap_or_else(|| Arc::new(crypto::aws_lc_rs::default_provider()));
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| ConfigError::new("tls", "cannot be set up").with_source(error))?
        .with_root_certificates(trusted);
    let Some((certificate, key)) = client else { return Ok(builder.with_no_client_auth().into()) };
    let chain = certificates(certificate)?;
    let der = PrivateKeyDer::from_pem_slice(&key.text).map_err(|_| {
        key.error(
            "holds no private key in PEM that can be used; give one of PKCS#8, PKCS#1 or SEC1 \
             that is not encrypted",
        )
    })?;
    let config = builder.with_client_auth_cert(chain, der);
    Ok(config.map_err(|error| key.error(NOT_A_PAIR).with_source(error))?.into())
}

fn certificates(pem: &Pem<'_>) -> Result<Vec<CertificateDer<'static>>, ConfigError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem.text).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) => Err(pem.error(NO_CERTIFICATE)),
        Err(_) => Err(pem.error(BAD_CERTIFICATE)),
    }
}

fn system_roots() -> Result<RootCertStore, ConfigError> {
    let found = load_native_certs();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    if !roots.is_empty() {
        return Ok(roots);
    }
    let error = ConfigError::new(
        "root_certificates_file",
        "is not set, and the system has no certificates; set it, or install ca-certificates",
    );
    Err(match found.errors.into_iter().next() {
        Some(cause) => error.with_source(cause),
        None => error,
    })
}
