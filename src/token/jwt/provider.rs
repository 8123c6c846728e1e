//! Which cryptography checks the signatures, and that there is one at all.
//!
//! jsonwebtoken decides this once for the whole process, at its first use, and *panics at each use*
//! if it finds none or cannot choose. So nothing here calls it before one is installed, and the
//! first call is a test.

use std::panic::catch_unwind;
use std::sync::atomic::{AtomicBool, Ordering};

use jsonwebtoken::crypto::CryptoProvider;
use jsonwebtoken::{Algorithm, DecodingKey};

use crate::config::ConfigError;

/// Whether a provider is known to work. Only success is remembered: what is missing may still be
/// installed.
static WORKS: AtomicBool = AtomicBool::new(false);

/// Makes sure that signatures can be checked. Called by everything that holds a key.
pub(crate) fn ready() -> Result<(), ConfigError> {
    if WORKS.load(Ordering::Acquire) {
        return Ok(());
    }
    #[cfg(feature = "aws_lc_rs")]
    return install_provider(&jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER);
    #[cfg(all(feature = "rust_crypto", not(feature = "aws_lc_rs")))]
    return install_provider(&jsonwebtoken::crypto::rust_crypto::DEFAULT_PROVIDER);
    // Not even asked: jsonwebtoken would settle for one that panics, and the application could no
    // longer mend it.
    #[cfg(not(any(feature = "aws_lc_rs", feature = "rust_crypto")))]
    Err(ConfigError::new(
        "crypto_provider",
        "there is none; enable the feature `aws_lc_rs` or `rust_crypto`, or call \
         `install_provider` first",
    ))
}

/// Chooses where others use jsonwebtoken and we do not: by our mere presence in the build there may
/// be two providers, and then jsonwebtoken panics where it did not before. What was chosen earlier
/// stays, and what is missing is not our concern.
pub(crate) fn settle() {
    let _ = ready();
}

/// Lets signatures be checked by this provider, for the whole process, and tests that it works.
///
/// Needed only for a provider of your own, with neither of the features `aws_lc_rs` and
/// `rust_crypto`; with one of them it is installed when the first key is made. A provider that the
/// application has installed before stays.
///
/// # Errors
/// [`ConfigError`] if the provider that is now installed cannot check an HS256 signature.
pub fn install_provider(provider: &'static CryptoProvider) -> Result<(), ConfigError> {
    // An error says that the application was faster, which is its right.
    let _ = provider.install_default();
    if !matches!(catch_unwind(check_known_signatures), Ok(true)) {
        return Err(ConfigError::new(
            "crypto_provider",
            "the one installed for jsonwebtoken cannot check an HS256 signature; build the \
             verifier before anything \
             else uses jsonwebtoken, or install one of its providers at the start of the program",
        ));
    }
    WORKS.store(true, Ordering::Release);
    Ok(())
}

/// The example of RFC 7515 §A.1, and the same with a bit changed.
fn check_known_signatures() -> bool {
    const KEY: &str =
        "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow";
    const MESSAGE: &[u8] = b"eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.\
        eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
    let Some(secret) = super::base64(KEY) else { return false };
    let key = DecodingKey::from_secret(&secret);
    let fits = |signature| jsonwebtoken::crypto::verify(signature, MESSAGE, &key, Algorithm::HS256);
    matches!(fits("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"), Ok(true))
        && matches!(fits("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXg"), Ok(false))
}
