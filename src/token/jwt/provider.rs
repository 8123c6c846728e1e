//! Which cryptography checks the signatures, and that there is one at all.
//!
//! jsonwebtoken decides this once for the whole process, at its first use, and *panics at each use*
//! if it finds none or cannot choose. So nothing here calls it before one is installed, and the
//! first call is a test. An application that wants another one installs it at its start.

use std::panic::catch_unwind;
use std::sync::atomic::{AtomicBool, Ordering};

use jsonwebtoken::DecodingKey;
use jsonwebtoken::crypto::CryptoProvider;

use crate::config::ConfigError;
use crate::token::Algorithm;

/// Whether a provider is known to work. Only success is remembered: what is missing may still be
/// installed.
static WORKS: AtomicBool = AtomicBool::new(false);

/// Makes sure that signatures can be checked. Called by everything that holds a key.
pub(crate) fn ready() -> Result<(), ConfigError> {
    if WORKS.load(Ordering::Acquire) {
        return Ok(());
    }
    // An error says that the application was faster, which is its right.
    #[cfg(feature = "aws_lc_rs")]
    let _ = jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER.install_default();
    #[cfg(all(feature = "rust_crypto", not(feature = "aws_lc_rs")))]
    let _ = jsonwebtoken::crypto::rust_crypto::DEFAULT_PROVIDER.install_default();
    if CryptoProvider::try_get_default().is_none() {
        return Err(ConfigError::new(
            "crypto_provider",
            "there is none; enable the feature `aws_lc_rs` or `rust_crypto`, or install one of \
             jsonwebtoken 12 first (CryptoProvider::install_default)",
        ));
    }
    if !matches!(catch_unwind(check_known_signatures), Ok(true)) {
        return Err(ConfigError::new(
            "crypto_provider",
            "the one installed for jsonwebtoken cannot check an HS256 signature; install one that \
             can at the start of the program",
        ));
    }
    WORKS.store(true, Ordering::Release);
    Ok(())
}

/// Chooses where others use jsonwebtoken and we do not: by our mere presence in the build there may
/// be two providers, and then jsonwebtoken panics where it did not before. What was chosen earlier
/// stays, and what is missing is not our concern.
pub(crate) fn settle() {
    let _ = ready();
}

/// Whether `signature`, base64url, fits `message`. An error if it is not base64url, or if the
/// provider cannot use the key.
pub(super) fn verify(
    signature: &str,
    message: &[u8],
    key: &DecodingKey,
    algorithm: Algorithm,
) -> jsonwebtoken::errors::Result<bool> {
    jsonwebtoken::crypto::verify(signature, message, key, self::algorithm(algorithm))
}

/// As jsonwebtoken names it.
pub(super) const fn algorithm(algorithm: Algorithm) -> jsonwebtoken::Algorithm {
    match algorithm {
        Algorithm::HS256 => jsonwebtoken::Algorithm::HS256,
        Algorithm::HS384 => jsonwebtoken::Algorithm::HS384,
        Algorithm::HS512 => jsonwebtoken::Algorithm::HS512,
        Algorithm::RS256 => jsonwebtoken::Algorithm::RS256,
        Algorithm::RS384 => jsonwebtoken::Algorithm::RS384,
        Algorithm::RS512 => jsonwebtoken::Algorithm::RS512,
        Algorithm::PS256 => jsonwebtoken::Algorithm::PS256,
        Algorithm::PS384 => jsonwebtoken::Algorithm::PS384,
        Algorithm::PS512 => jsonwebtoken::Algorithm::PS512,
        Algorithm::ES256 => jsonwebtoken::Algorithm::ES256,
        Algorithm::ES384 => jsonwebtoken::Algorithm::ES384,
        Algorithm::EdDSA => jsonwebtoken::Algorithm::EdDSA,
    }
}

/// The example of RFC 7515 §A.1, and the same with a bit changed.
fn check_known_signatures() -> bool {
    const KEY: &str =
        "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow";
    const MESSAGE: &[u8] = b"eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.\
        eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9p\
        c19yb290Ijp0cnVlfQ";
    let Some(secret) = super::base64(KEY) else { return false };
    let Ok(key) = DecodingKey::from_secret(&secret) else { return false };
    let fits = |signature| verify(signature, MESSAGE, &key, Algorithm::HS256);
    matches!(fits("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"), Ok(true))
        && matches!(fits("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXg"), Ok(false))
}
