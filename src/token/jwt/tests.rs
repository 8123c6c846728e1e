//! Tokens as attackers, careless issuers and standards make them.

#[cfg(any(feature = "aws_lc_rs", feature = "rust_crypto"))]
mod keys;
#[cfg(all(feature = "issuer", any(feature = "aws_lc_rs", feature = "rust_crypto")))]
mod sign;
#[cfg(any(feature = "aws_lc_rs", feature = "rust_crypto"))]
mod tokens;

#[test]
#[cfg(not(any(feature = "aws_lc_rs", feature = "rust_crypto")))]
fn without_a_provider_no_key_can_be_made_and_jsonwebtoken_is_not_called() {
    use super::VerificationKey;
    use crate::token::Algorithm;
    use jsonwebtoken::crypto::{CryptoProvider, KeyUtils};

    /// A provider of the application, which does not work either.
    static BROKEN: CryptoProvider = CryptoProvider {
        signer_factory: |_, _| panic!("no"),
        verifier_factory: |_, _| panic!("no"),
        key_utils: KeyUtils::new_unimplemented(),
    };

    let error = VerificationKey::from_secret(Algorithm::HS256, &[7; 32]).unwrap_err();
    assert_eq!(error.setting(), "crypto_provider");
    assert!(error.to_string().contains("`aws_lc_rs` or `rust_crypto`"), "{error}");
    // That nothing was called before is shown by the place still being free.
    BROKEN.install_default().unwrap();
    for _ in 0..2 {
        let error = VerificationKey::from_secret(Algorithm::HS256, &[7; 32]).unwrap_err();
        assert!(error.to_string().contains("cannot check an HS256 signature"), "{error}");
    }
}
