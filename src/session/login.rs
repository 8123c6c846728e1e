//! What a login consists of, and how it is answered: values.

use super::calls::invalid;
use super::grant::Grant;
use super::list::SessionDetails;
use crate::store::{RevokedBy, StoreError};

/// Longest user agent and fingerprint, in bytes; what is longer is cut.
const MAX_DETAIL: usize = 512;
/// Most application data of a session, in bytes of JSON.
const MAX_DATA: usize = 4096;

/// A login of a user: what to begin a session with.
pub(super) struct NewSession {
    pub(super) user: Box<str>,
    pub(super) details: SessionDetails,
}

impl SessionDetails {
    /// No details.
    pub fn new() -> Self {
        Self::default()
    }

    /// On this device. Its id must outlast the session, and no other device may have it: ending the
    /// device ends all sessions on it, of all users. The name that a user gives to a device is not
    /// its id; see [`with_data`](Self::with_data). Default: none.
    #[must_use]
    pub fn on_device(mut self, device: impl AsRef<str>) -> Self {
        self.device = Some(device.as_ref().into());
        self
    }

    /// Through this OAuth client, to which the refresh tokens are bound. Default: none.
    #[must_use]
    pub fn through_client(mut self, client: impl AsRef<str>) -> Self {
        self.client = Some(client.as_ref().into());
        self
    }

    /// With a fingerprint of the device or browser. Cut at 512 bytes. Default: none.
    #[must_use]
    pub fn with_fingerprint(mut self, fingerprint: impl AsRef<str>) -> Self {
        self.fingerprint = Some(cut(fingerprint.as_ref()).into());
        self
    }

    /// From this address. Default: none.
    #[must_use]
    pub fn from_ip(mut self, ip: std::net::IpAddr) -> Self {
        self.ip = Some(ip);
        self
    }

    /// With this `User-Agent`. Cut at 512 bytes. Default: none.
    #[must_use]
    pub fn with_user_agent(mut self, user_agent: impl AsRef<str>) -> Self {
        self.user_agent = Some(cut(user_agent.as_ref()).into());
        self
    }

    /// With a second factor. Default: without.
    #[must_use]
    pub fn with_mfa(mut self) -> Self {
        self.mfa = true;
        self
    }

    /// With data of the application, at most 4 KiB of JSON; more is an error at login. Default:
    /// none.
    #[must_use]
    pub fn with_data(mut self, data: serde_json::Value) -> Self {
        self.data = Some(data);
        self
    }
}

/// The answer to a login.
#[derive(Clone, Debug)]
#[must_use = "a login that is not looked at grants nothing"]
#[non_exhaustive]
pub enum Login {
    /// The session has begun: answer with its tokens. [`Grant::session`] is `Some`.
    Granted(Grant),
    /// The user, the device, the client or the issuer is revoked with
    /// [`Extent::All`](crate::Extent::All): nobody can sign in until it is reinstated.
    Revoked(RevokedBy),
    /// The user has as many sessions as are allowed, and the policy is
    /// [`EvictionPolicy::RefuseLogin`](super::EvictionPolicy::RefuseLogin).
    TooMany,
}

pub(super) fn cut(text: &str) -> &str {
    let mut end = text.len().min(MAX_DETAIL);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default()
}

/// Applies the same bounds to what is written into a session later.
pub(super) fn shorten(details: &mut SessionDetails) {
    for text in [&mut details.fingerprint, &mut details.user_agent].into_iter().flatten() {
        if text.len() > MAX_DETAIL {
            *text = cut(text).into();
        }
    }
}

pub(super) fn check_data(data: Option<&serde_json::Value>) -> Result<(), StoreError> {
    match data {
        Some(data) if data.to_string().len() > MAX_DATA => {
            Err(invalid(format!("the data of the session is longer than {MAX_DATA} bytes")))
        }
        _ => Ok(()),
    }
}
