//! [`PostClient`]: sends requests with a body to a URL that the operator has named, by the same
//! rules.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, Uri, response};
use http_body_util::Full;

use super::{AddressScope, HttpClient, HttpSettings, is_compressed, with_our_headers};
use crate::config::ConfigError;
use crate::token::jwks::document::absolute;
use crate::token::jwks::{JwksError, JwksErrorKind};

/// Of which connecting may take three fifths.
const TIMEOUT: Duration = Duration::from_secs(15);

/// Sends requests to one URL. The caller bounds them in time.
pub(crate) struct PostClient {
    client: HttpClient,
    url: Uri,
}

impl PostClient {
    /// `setting` is what the operator calls the URL.
    pub(crate) fn new(
        settings: &HttpSettings,
        setting: &'static str,
        url: &str,
    ) -> Result<Self, ConfigError> {
        let url = absolute(setting, url)?;
        let client = HttpClient::new(settings, setting, &url, TIMEOUT)?;
        Ok(Self { client, url })
    }

    /// The answer, whatever its status, if its body has no more than `most` bytes.
    pub(crate) async fn send(
        &self,
        request: Request<Bytes>,
        most: usize,
    ) -> Result<Response<Bytes>, JwksError> {
        let (head, body) = request.into_parts();
        let mut ours = with_our_headers(Request::post(&self.url))
            .body(Full::new(body))
            .map_err(super::not_askable)?;
        ours.headers_mut().extend(head.headers);
        let check = |head: &response::Parts| {
            if is_compressed(&head.headers) {
                let problem = "the answer is compressed, which was not asked for";
                return Err(JwksError::new(JwksErrorKind::Malformed, problem));
            }
            Ok((head.status, head.headers.clone()))
        };
        let ((status, headers), body) =
            self.client.send(&self.url, AddressScope::Any, ours, most, check).await?;
        let mut response = Response::new(body);
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        Ok(response)
    }
}
