//! TLS by native-tls.

use fred::native_tls::{Certificate, Identity, TlsConnector as NativeTls};
use fred::types::config::TlsConnector;

use super::{BAD_CERTIFICATE, NO_CERTIFICATE, NOT_A_PAIR, Pem};
use crate::config::ConfigError;

/// `client` is the certificate of this client, and its key.
pub(super) fn connector(
    roots: Option<&Pem<'_>>,
    client: Option<&(Pem<'_>, Pem<'_>)>,
) -> Result<TlsConnector, ConfigError> {
    let mut builder = NativeTls::builder();
    if let Some(pem) = roots {
        builder.disable_built_in_roots(true);
        for certificate in certificates(pem)? {
            builder.add_root_certificate(certificate);
        }
    }
    if let Some((certificate, key)) = client {
        let _ = certificates(certificate)?;
        let identity = Identity::from_pkcs8(&certificate.text, &key.text).map_err(|error| {
            let is_pkcs8 = key.text.trim_ascii_start().starts_with(b"-----BEGIN PRIVATE KEY-----");
            let problem = if is_pkcs8 {
                NOT_A_PAIR
            } else {
                "holds no private key that native-tls can read; write it as PKCS#8 in PEM, as \
                 `openssl pkcs8 -topk8 -nocrypt` does"
            };
            key.error(problem).with_source(error)
        })?;
        builder.identity(identity);
    }
    // Whether key and certificate belong together is seen here.
    builder.try_into().map_err(|error: fred::error::Error| match client {
        Some((_, key)) => key.error(NOT_A_PAIR).with_source(error),
        None => ConfigError::new("tls", format!("cannot be used: {}", error.details())),
    })
}

fn certificates(pem: &Pem<'_>) -> Result<Vec<Certificate>, ConfigError> {
    let found = Certificate::stack_from_pem(&pem.text)
        .map_err(|error| pem.error(BAD_CERTIFICATE).with_source(error))?;
    if found.is_empty() { Err(pem.error(NO_CERTIFICATE)) } else { Ok(found) }
}
