//! Credentials that change while the program runs.

use std::fmt;
use std::path::PathBuf;

use futures::FutureExt as _;
use futures::future::BoxFuture;

use crate::config::SecretText;
use crate::store::{StoreError, StoreErrorKind};

/// The user and password with which to authenticate to Redis (`AUTH`).
#[derive(Clone)]
pub struct RedisCredentials {
    pub(crate) username: Option<Box<str>>,
    pub(crate) password: SecretText,
}

impl RedisCredentials {
    /// Credentials of a user of the access control list (ACL) of Redis, with its password or token.
    pub fn new(username: impl Into<String>, password: impl Into<String>) -> Self {
        Self { username: Some(username.into().into()), password: SecretText::from(password.into()) }
    }

    /// The password of the user that Redis calls `default`.
    pub fn of_default_user(password: impl Into<String>) -> Self {
        Self { username: None, password: SecretText::from(password.into()) }
    }
}

/// Without the password.
impl fmt::Debug for RedisCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisCredentials").field("username", &self.username).finish_non_exhaustive()
    }
}

/// Gives the credentials for each connection that is made: a closure of the program, or a file.
pub(crate) trait CredentialProvider: Send + Sync {
    /// The credentials that are valid now.
    fn credentials(&self) -> BoxFuture<'_, Result<RedisCredentials, StoreError>>;
}

impl<F, Fut> CredentialProvider for F
where
    F: Fn() -> Fut + Send + Sync,
    Fut: Future<Output = Result<RedisCredentials, StoreError>> + Send + 'static,
{
    fn credentials(&self) -> BoxFuture<'_, Result<RedisCredentials, StoreError>> {
        self().boxed()
    }
}

/// A file with the password, which is read for each connection.
pub(crate) struct PasswordFile {
    pub(crate) username: Option<Box<str>>,
    pub(crate) path: PathBuf,
}

impl CredentialProvider for PasswordFile {
    fn credentials(&self) -> BoxFuture<'_, Result<RedisCredentials, StoreError>> {
        async move {
            let path = self.path.clone();
            let read = tokio::task::spawn_blocking(move || std::fs::read_to_string(path)).await;
            let text =
                read.map_err(std::io::Error::other).and_then(|text| text).map_err(|error| {
                    let detail = "redis: the file of the password cannot be read";
                    StoreError::new(StoreErrorKind::Denied, detail).with_source(error)
                })?;
            let text = text.strip_suffix('\n').unwrap_or(&text);
            let text = text.strip_suffix('\r').unwrap_or(text);
            Ok(RedisCredentials {
                username: self.username.clone(),
                password: SecretText::from(text.to_owned()),
            })
        }
        .boxed()
    }
}
