//! The layer, the service that it makes, and the responses to refused requests.
//!
//! | | |
//! | --- | --- |
//! | [`JwtRevocationLayer`] | verifies, checks and refuses: all settings are here |
//! | [`LayerConfig`] | a layer from environment variables or a file |
//! | [`RejectionResponse`], [`ProblemJson`] | refusals in another form |
//! | [`EndWithTokenLayer`] | long responses that end with their token |
//! | [`Claims`] | an extractor for axum, as [`Clearance`](crate::Clearance) is one (feature `axum`) |

// `service` decides in `call`, at once where it can; `future` is what is left to wait for; `state`
// is what they share; `response` is the one table from a `Rejection` to an answer, in HTTP and in
// gRPC.

mod config;
mod ending;
#[cfg(feature = "axum")]
mod extract;
mod future;
mod layer;
mod response;
mod service;
mod state;

pub use self::config::LayerConfig;
pub use self::ending::{EndWithTokenLayer, EndingBody};
#[cfg(feature = "axum")]
pub use self::extract::{Claims, ExtractError};
pub use self::layer::JwtRevocationLayer;
pub use self::response::{ProblemJson, RejectionResponse};
pub use self::service::JwtRevocation;
