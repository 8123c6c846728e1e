//! reqwest: what a client sees of the layer, and what it should do.
//!
//! | answer | what it says | what to do |
//! | --- | --- | --- |
//! | 401 | this token is over: expired, revoked, unknown; which of them is not told | get a new one, once, and try again |
//! | 401 at the refresh, or with the new token too | the session is over | forget the tokens, sign in again |
//! | 503, `Retry-After` | nothing about the token: nobody can tell at the moment | **keep the token**, wait, try again |
//! | 400, `invalid_request` | the request itself is wrong | mend the program; trying again is of no use |
//!
//! The mistake to avoid is to treat a 503 like a 401: it signs everyone out in every outage, and sends all of them to the
//! login at once.

use std::time::Duration;

use reqwest::{Method, RequestBuilder, Response, StatusCode, header};
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;
use tokio::time::sleep;

/// How often a request is repeated that could not be judged, and how long all waits together may last.
const MAX_REPEATS: u32 = 3;
const MAX_WAIT: Duration = Duration::from_secs(30);

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
                StatusCode::UNAUTHORIZED if is_new => return Err(self.sign_out().await),
                StatusCode::UNAUTHORIZED => {
                    token = self.renewed(&token).await?;
                    is_new = true;
                }
                // A 503 of the layer comes before the request was looked at, so that it may be repeated, whatever it asks
                // for. One of the service itself may have done half of it: only what is idempotent is repeated.
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
        self.http.request(method, format!("{}{path}", self.base))
    }

    async fn token(&self) -> Result<String, ClientError> {
        let tokens = self.tokens.lock().await;
        tokens.as_ref().map(|tokens| tokens.access_token.clone()).ok_or(ClientError::SignIn)
    }

    /// A token that is not `refused`. Of many requests that are refused at once, one asks for it.
    async fn renewed(&self, refused: &str) -> Result<String, ClientError> {
        let mut tokens = self.tokens.lock().await;
        let known = tokens.as_ref().ok_or(ClientError::SignIn)?;
        if known.access_token != refused {
            return Ok(known.access_token.clone());
        }
        let request = self.request(Method::POST, "/refresh").json(&known);
        let answer = request.send().await?;
        match answer.status() {
            StatusCode::OK => {
                let new: Tokens = answer.json().await?;
                Ok(tokens.insert(new).access_token.clone())
            }
            // The refresh token is still good, as far as anyone knows.
            status if status.is_server_error() => Err(ClientError::TryLater),
            _ => {
                *tokens = None;
                Err(ClientError::SignIn)
            }
        }
    }

    async fn sign_out(&self) -> ClientError {
        *self.tokens.lock().await = None;
        ClientError::SignIn
    }
}

/// What the answer asks for, or a second. Add some chance to it where there are many clients.
fn retry_after(answer: &Response) -> Duration {
    let seconds =
        answer.headers().get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
    Duration::from_secs(seconds.unwrap_or(1))
}
