//! poem: a few lines around [`Ask`].
//!
//! `tower-compat` of poem hands its own request type to layers, not `http::Request`, so that no
//! layer that looks at HTTP can be used through it. The head of a request is what the layer wants,
//! and poem has that in the types of `http` 1.

use std::sync::Arc;

use poem::http::StatusCode;
use poem::listener::TcpAcceptor;
use poem::web::Data;
use poem::{
    Endpoint, EndpointExt as _, IntoResponse as _, Request, Response, Route, Server, get, handler,
    post,
};
use tokio::net::TcpListener;
use tower_jwt_revocation::{Clearance, JwtRevocationLayer, Revoker};

use crate::Error;
use crate::ask::Ask;

/// The middleware, for [`around`](poem::EndpointExt::around).
async fn check<E: Endpoint>(
    ask: Ask,
    next: Arc<E>,
    mut request: Request,
) -> poem::Result<Response> {
    // Nothing that says that a request passed may come from elsewhere.
    request.extensions_mut().remove::<Clearance>();
    let mut head = http::Request::new(());
    *head.method_mut() = request.method().clone();
    *head.uri_mut() = request.uri().clone();
    *head.headers_mut() = request.headers().clone();
    match ask.about(head).await {
        Ok(clearance) => {
            clearance.map(|clearance| request.extensions_mut().insert(clearance));
            Ok(next.call(request).await?.into_response())
        }
        Err(refusal) => {
            let mut response = refusal.status().into_response();
            response.headers_mut().extend(refusal.into_parts().0.headers);
            Ok(response)
        }
    }
}

// === An application with it ===

#[handler]
async fn me(Data(clearance): Data<&Clearance>) -> String {
    format!("hello {}", clearance.token().subject().unwrap_or_default())
}

#[handler]
async fn logout(Data(clearance): Data<&Clearance>, Data(revoker): Data<&Revoker>) -> StatusCode {
    match revoker.revoke_token(clearance.token()).reason("logout").await {
        Ok(_) => StatusCode::NO_CONTENT,
        Err(_) => StatusCode::SERVICE_UNAVAILABLE,
    }
}

#[handler]
async fn health() -> &'static str {
    "well"
}

pub async fn serve(listener: TcpListener, layer: JwtRevocationLayer) -> Result<(), Error> {
    let ask = Ask::new(&layer);
    let protected = Route::new()
        .at("/me", get(me))
        .at("/logout", post(logout))
        .data(layer.revoker())
        .around(move |next, request| check(ask.clone(), next, request));
    let app = Route::new().at("/health", get(health)).nest("/", protected);
    Ok(Server::new_with_acceptor(TcpAcceptor::from_tokio(listener)?).run(app).await?)
}
