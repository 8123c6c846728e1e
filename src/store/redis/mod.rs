//! x
/// x
#[derive(Debug)]
pub struct RedisStore;
