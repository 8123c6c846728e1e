//! reqwest: what a client sees of the layer, and what it should do.
//!
//! | answer | what it says | what to do |
//! | --- | --- | --- |
//! | 401 | this token is over: expired, revoked, unknown; which of them is not told | get a new one, once, and try again |
//! | 401 at the refresh, or with the new token too | the session is over | forget the tokens, sign in again |
//! | 503, `Retry-After` | nothing about the token: nobody can tell at the moment | **keep the token**, wait, try again |
//! | 400, `invalid_request` | the request itself is wrong | mend the program; trying again is of no use |
//!
//! The mistake to avoid is to treat a 503 like a 401: it signs everyone out in every outage, and
//! sends all of them to the login at once.

use std::time::Duration;

use reqwest::{Method, RequestBuilder, Response, StatusCode, header};
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;
use tokio::time::sleep;

/// How often a request is repeated that could not be decided, and how long all waits together may
/// last.
const MAX_REPEATS: u32 = 3;
const MAX_WAIT: Duration = Duration::from_secs(30);
/// How long one answer may take: nobody else gets a new token while one request waits for it.
const MAX_ANSWER: Duration = Duration::from_secs(10);

#[derive(Clone, Serialize, Deserialize)]
pub struct Tokens {
    pub access_token: String,
    pub refresh_token: String,
}

/// Why there is no answer.
#[derive(Debug)]
pub enum ClientError {
    /// The session is over: the user has to sign in.
    SignIn,
    /// Nobody could tell whether the token is good; it may well be.
    TryLater,
    /// The request did not get through.
    Http(reqwest::Error),
}

impl From<reqwest::Error> for ClientError {
    fn from(error: reqwest::Error) -> Self {
        Self::Http(error)
    }
}

pub struct Client {
    http: reqwest::Client,
    base: String,
    tokens: Mutex<Option<Tokens>>,
}

impl Client {
    pub fn new(base: impl Into<String>, tokens: Tokens) -> Self {
        Self { http: reqwest::Client::new(), base: base.into(), tokens: Mutex::new(Some(tokens)) }
    }

    /// Sends a request, with a new token or again, where that may help.
    pub async fn send(&self, method: Method, path: &str) -> Result<Response, ClientError> {
        let mut token = self.token().await?;
        let mut is_new = false;
        let mut waited = Duration::ZERO;
        let mut repeats = 0;
        loop {
            let request = self.request(method.clone(), path).bearer_auth(&token);
            let answer = request.send().await?;
            match answer.status() {
                StatusCode::UNAUTHORIZED => {
                    token = self.renewed(&token, is_new).await?;
                    is_new = true;
                }
                // A 503 of the layer comes before the request was looked at, so that it may be
                // repeated, whatever it asks for. One of the service itself may have done half of
                // it: only what is idempotent is repeated.
                StatusCode::SERVICE_UNAVAILABLE if method.is_idempotent() => {
                    let wait = retry_after(&answer);
                    repeats += 1;
                    waited += wait;
                    if repeats > MAX_REPEATS || waited > MAX_WAIT {
                        return Err(ClientError::TryLater);
                    }
                    sleep(wait).await;
                }
                StatusCode::SERVICE_UNAVAILABLE => return Err(ClientError::TryLater),
                _ => return Ok(answer),
            }
        }
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("{}{path}", self.base)).timeout(MAX_ANSWER)
    }

    async fn token(&self) -> Result<String, ClientError> {
        let tokens = self.tokens.lock().await;
        tokens.as_ref().map(|tokens| tokens.access_token.clone()).ok_or(ClientError::SignIn)
    }

    /// A token that is not `refused`. Of many requests that are refused at once, one asks for it;
    /// if that one is refused as well, the session is over.
    ///
    /// Whoever drops this while it asks may lose the answer. The old refresh token then gives the
    /// same answer again for the grace of the server, and without a grace ends the session; run it
    /// in a task of its own if that matters.
    async fn renewed(&self, refused: &str, is_new: bool) -> Result<String, ClientError> {
        let mut tokens = self.tokens.lock().await;
        let known = tokens.as_ref().ok_or(ClientError::SignIn)?;
        if known.access_token != refused {
            return Ok(known.access_token.clone());
        }
        if is_new {
            *tokens = None;
            return Err(ClientError::SignIn);
        }
        let request = self.request(Method::POST, "/refresh").json(&known);
        let answer = request.send().await?;
        match answer.status() {
            StatusCode::OK => {
                let new: Tokens = answer.json().await?;
                Ok(tokens.insert(new).access_token.clone())
            }
            // RFC 6749 §5.2: `invalid_grant`, or a client that is not known any more.
            StatusCode::BAD_REQUEST | StatusCode::UNAUTHORIZED => {
                *tokens = None;
                Err(ClientError::SignIn)
            }
            // An outage, or too many requests: the refresh token is still good, as far as anyone
            // knows.
            _ => Err(ClientError::TryLater),
        }
    }
}

/// What the answer asks for, or a second. Add some chance to it where there are many clients.
fn retry_after(answer: &Response) -> Duration {
    let seconds = answer
        .headers()
        .get(header::RETRY_AFTER)
        .and_then(|value| value.to_str().ok()?.parse().ok());
    Duration::from_secs(seconds.unwrap_or(1))
}
