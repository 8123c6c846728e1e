//! tonic: a stream that ends with the token it was opened with.
//!
//! A request is checked when it comes. A stream goes on for hours after that; a [`Mirror`] says when its token is revoked,
//! by whichever process, and wakes nobody else.

use std::time::Duration;

use futures::stream::{self, BoxStream, StreamExt as _};
use tokio::net::TcpListener;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};
use tower_jwt_revocation::{Clearance, JwtRevocationLayer, Mirror};

use crate::Error;

/// The health service, since everyone has its definition: `Watch` sends the same status again and again.
struct Watched {
    mirror: Mirror,
}

#[tonic::async_trait]
impl Health for Watched {
    type WatchStream = BoxStream<'static, Result<HealthCheckResponse, Status>>;

    async fn check(&self, _: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        Ok(Response::new(HealthCheckResponse { status: ServingStatus::Serving.into() }))
    }

    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let clearance = request.extensions().get::<Clearance>();
        let clearance = clearance.ok_or_else(|| Status::internal("no layer is around this service"))?;
        // Completes when the token is revoked, and when it expires.
        let over = self.mirror.revoked(clearance.token());
        let ticks = stream::unfold((), async |()| {
            tokio::time::sleep(Duration::from_millis(20)).await;
            Some((Ok(HealthCheckResponse { status: ServingStatus::Serving.into() }), ()))
        });
        // Clients are to see why it ended, or they take it for a success.
        let end = stream::once(async { Err(Status::unauthenticated("the access token is over")) });
        Ok(Response::new(ticks.take_until(over).chain(end).boxed()))
    }
}

/// `layer` and `mirror` must be on the same store; best is a layer whose store *is* the mirror.
pub async fn serve(listener: TcpListener, layer: JwtRevocationLayer, mirror: Mirror) -> Result<(), Error> {
    let server = Server::builder().layer(layer).add_service(HealthServer::new(Watched { mirror }));
    Ok(server.serve_with_incoming(TcpIncoming::from(listener)).await?)
}
