//! The claims of a token for a test: what the test says, and beside it what every token needs.

use std::time::Duration;

use serde::Serialize;
use serde_json::{Map, Value};

use super::TokenProfile;
use crate::clock::Timestamp;

/// How long it is valid, unless the profile accepts less.
const LIFETIME: Duration = Duration::from_secs(600);

/// The claims `given`, and those without which the profile accepts no token: `iat`, `exp`, the id,
/// the issuer and the audience of the profile. One that is given as `null` is left out.
pub(crate) fn sample_claims(
    profile: &TokenProfile,
    given: &impl Serialize,
    now: Timestamp,
    id: &str,
) -> Result<Map<String, Value>, &'static str> {
    let Ok(Value::Object(given)) = serde_json::to_value(given) else {
        return Err("the claims are not a JSON object");
    };
    let mut claims = Map::new();
    let lifetime = LIFETIME.min(profile.max_lifetime());
    claims.insert("iat".into(), now.as_secs().into());
    claims.insert("exp".into(), now.saturating_add(lifetime).as_secs().into());
    claims.insert(profile.id_claim().into(), id.into());
    if let Ok(issuer) = profile.only_issuer()
        && !issuer.is_empty()
    {
        claims.insert("iss".into(), issuer.into());
    }
    if !profile.audiences().is_empty() {
        let audiences = profile.audiences().iter().map(|audience| &**audience);
        claims.insert("aud".into(), audiences.collect());
    }
    claims.extend(given);
    claims.retain(|_, value| !value.is_null());
    Ok(claims)
}
