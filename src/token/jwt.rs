//! x
/// x
#[derive(Debug)]
pub struct JwtVerifier;
