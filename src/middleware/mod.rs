//! tower meets the gate.
//!
//! | room | what it is |
//! | --- | --- |
//! | `layer` | [`JwtRevocationLayer`]: what is decided, and how |
//! | `service` | [`JwtRevocation`]: decides in `call`, at once where it can |
//! | `future` | [`ResponseFuture`]: what is left to wait for |
//! | `response` | the one table from a [`Rejection`](crate::Rejection) to an answer, in HTTP and in gRPC |
//! | `ending` | [`EndWithTokenLayer`]: responses that end with the token |
//! | `settings` | a layer from environment variables or a file: [`LayerConfig`] |
//! | `extract` | extractors for axum (feature `axum`) |

mod ending;
#[cfg(feature = "axum")]
mod extract;
mod future;
mod layer;
mod response;
mod service;
mod settings;

pub use self::ending::{EndWithToken, EndWithTokenFuture, EndWithTokenLayer, EndingBody, TokenEnded};
#[cfg(feature = "axum")]
pub use self::extract::{Claims, ExtractError};
pub use self::future::ResponseFuture;
pub use self::layer::JwtRevocationLayer;
pub use self::response::{DEFAULT_REALM, DEFAULT_RETRY_AFTER, EmptyBody, ProblemJson, RejectionResponse};
pub use self::service::JwtRevocation;
pub use self::settings::LayerConfig;
