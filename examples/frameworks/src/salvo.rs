//! salvo: the layer as it is, made a hoop by `compat()`.

use salvo::conn::tcp::TcpAcceptor;
use salvo::prelude::{
    Depot, Request, Response, Router, Server, StatusCode, TowerLayerCompat as _, handler,
};
use tokio::net::TcpListener;
use tower_jwt_revocation::{Clearance, JwtRevocationLayer, Revoker};

use crate::Error;

#[handler]
async fn me(request: &mut Request) -> String {
    let clearance = request.extensions().get::<Clearance>();
    format!(
        "hello {}",
        clearance.and_then(|clearance| clearance.token().subject()).unwrap_or_default()
    )
}

#[handler]
async fn logout(request: &mut Request, depot: &mut Depot, response: &mut Response) {
    let clearance = request.extensions().get::<Clearance>();
    response.status_code(match (clearance, depot.get_typed::<Revoker>()) {
        (Some(clearance), Ok(revoker)) => {
            match revoker.revoke_token(clearance.token()).reason("logout").await {
                Ok(_) => StatusCode::NO_CONTENT,
                Err(_) => StatusCode::SERVICE_UNAVAILABLE,
            }
        }
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    });
}

#[handler]
async fn health() -> &'static str {
    "well"
}

pub async fn serve(listener: TcpListener, layer: JwtRevocationLayer) -> Result<(), Error> {
    let revoker = salvo::affix_state::inject(layer.revoker());
    let protected = Router::new()
        .hoop(layer.compat())
        .hoop(revoker)
        .push(Router::with_path("me").get(me))
        .push(Router::with_path("logout").post(logout));
    let app = Router::new().push(Router::with_path("health").get(health)).push(protected);
    Server::new(TcpAcceptor::try_from(listener)?).serve(app).await;
    Ok(())
}
