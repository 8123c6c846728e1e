//! tonic: a stream that ends with the token it was opened with, by `EndWithTokenLayer`: with
//! `UNAUTHENTICATED` if the token is revoked or expired, with `UNAVAILABLE` if nobody has been able
//! to tell for too long. The service knows nothing of it.

use std::time::Duration;

use futures::stream::{self, BoxStream, StreamExt as _};
use tokio::net::TcpListener;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};
use tower_jwt_revocation::JwtRevocationLayer;
use tower_jwt_revocation::middleware::EndWithTokenLayer;

use crate::Error;

/// The health service, since everyone has its definition: `Watch` sends the same status again and
/// again.
struct EndlessHealth;

#[tonic::async_trait]
impl Health for EndlessHealth {
    type WatchStream = BoxStream<'static, Result<HealthCheckResponse, Status>>;

    async fn check(
        &self,
        _: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        Ok(Response::new(HealthCheckResponse { status: ServingStatus::Serving.into() }))
    }

    async fn watch(
        &self,
        _: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let ticks = stream::unfold((), async |()| {
            tokio::time::sleep(Duration::from_millis(20)).await;
            Some((Ok(HealthCheckResponse { status: ServingStatus::Serving.into() }), ()))
        });
        Ok(Response::new(ticks.boxed()))
    }
}

/// Best is a layer whose store is a mirror, which learns of revocations by itself. `ending` is
/// `EndWithTokenLayer::new(&layer)`, with another blind time if you like.
pub async fn serve(
    listener: TcpListener,
    layer: JwtRevocationLayer,
    ending: EndWithTokenLayer,
) -> Result<(), Error> {
    let stack = tower::ServiceBuilder::new().layer(layer).layer(ending).into_inner();
    let server = Server::builder().layer(stack).add_service(HealthServer::new(EndlessHealth));
    Ok(server.serve_with_incoming(TcpIncoming::from(listener)).await?)
}
