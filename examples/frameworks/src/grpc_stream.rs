//! tonic: a stream that ends with the token it was opened with, see [`over`].

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
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
use crate::over::{MAX_BLIND, Over, over};

/// The health service, since everyone has its definition: `Watch` sends the same status again and
/// again.
struct Watched {
    mirror: Mirror,
}

#[tonic::async_trait]
impl Health for Watched {
    type WatchStream = BoxStream<'static, Result<HealthCheckResponse, Status>>;

    async fn check(
        &self,
        _: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        Ok(Response::new(HealthCheckResponse { status: ServingStatus::Serving.into() }))
    }

    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let clearance = request.extensions().get::<Clearance>();
        let clearance =
            clearance.ok_or_else(|| Status::internal("no layer is around this service"))?;
        let over = over(self.mirror.clone(), Arc::clone(clearance.token()), MAX_BLIND);
        // A stream ends with its first error. Without one, clients would take the end for a
        // success.
        let end = over.map(|why| {
            Err(match why {
                Over::Token => Status::unauthenticated("the access token is over"),
                Over::Blind => {
                    Status::unavailable("the access token cannot be checked at the moment")
                }
            })
        });
        let ticks = stream::unfold((), async |()| {
            tokio::time::sleep(Duration::from_millis(20)).await;
            Some((Ok(HealthCheckResponse { status: ServingStatus::Serving.into() }), ()))
        });
        Ok(Response::new(stream::select(end.into_stream(), ticks).boxed()))
    }
}

/// `layer` and `mirror` must be on the same store; best is a layer whose store *is* the mirror.
pub async fn serve(
    listener: TcpListener,
    layer: JwtRevocationLayer,
    mirror: Mirror,
) -> Result<(), Error> {
    let server = Server::builder().layer(layer).add_service(HealthServer::new(Watched { mirror }));
    Ok(server.serve_with_incoming(TcpIncoming::from(listener)).await?)
}
