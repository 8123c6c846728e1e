//! actix-web: a middleware of a few lines around [`Ask`].
//!
//! The layer cannot be used as it is: requests of actix-web stay on their thread (`!Send`), its
//! services are not Tower's, and its heads are those of `http` 0.2. So the head is copied and asked
//! about.

use actix_web::body::{EitherBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::middleware::{Next, from_fn};
use actix_web::web::{Data, ReqData};
use actix_web::{App, HttpMessage as _, HttpResponse, HttpServer, web};
use tokio::net::TcpListener;
use tower_jwt_revocation::{Clearance, JwtRevocationLayer, Revoker};

use crate::Error;
use crate::ask::Ask;

/// The middleware, for [`from_fn`].
async fn check<B: MessageBody + 'static>(
    ask: Data<Ask>,
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<EitherBody<B>>, actix_web::Error> {
    // Nothing that says that a request passed may come from elsewhere.
    request.extensions_mut().remove::<Clearance>();
    let answer = match head(&request) {
        Ok(head) => ask.about(head).await,
        // Characters that one crate takes for a URI and the other does not.
        Err(_) => {
            return Ok(request.into_response(HttpResponse::BadRequest()).map_into_right_body());
        }
    };
    match answer {
        Ok(clearance) => {
            clearance.map(|clearance| request.extensions_mut().insert(clearance));
            Ok(next.call(request).await?.map_into_left_body())
        }
        Err(refusal) => {
            let mut response = HttpResponse::build(status(refusal.status()));
            for (name, value) in refusal.headers() {
                response.append_header((name.as_str(), value.as_bytes()));
            }
            Ok(request.into_response(response.finish()).map_into_right_body())
        }
    }
}

/// The head of the request, in the types of `http` 1. All fields are copied, as the layer may be
/// told to look at any.
fn head(request: &ServiceRequest) -> Result<http::Request<()>, http::Error> {
    let mut head =
        http::Request::builder().method(request.method().as_str()).uri(request.uri().to_string());
    for (name, value) in request.headers() {
        head = head.header(name.as_str(), value.as_bytes());
    }
    head.body(())
}

fn status(status: http::StatusCode) -> actix_web::http::StatusCode {
    let known = actix_web::http::StatusCode::from_u16(status.as_u16());
    known.unwrap_or(actix_web::http::StatusCode::SERVICE_UNAVAILABLE)
}

// === An application with it ===

async fn me(clearance: ReqData<Clearance>) -> String {
    format!("hello {}", clearance.token().subject().unwrap_or_default())
}

async fn logout(clearance: ReqData<Clearance>, revoker: Data<Revoker>) -> HttpResponse {
    match revoker.revoke_token(clearance.token()).reason("logout").await {
        Ok(_) => HttpResponse::NoContent().finish(),
        Err(_) => HttpResponse::ServiceUnavailable().finish(),
    }
}

pub async fn serve(listener: TcpListener, layer: JwtRevocationLayer) -> Result<(), Error> {
    let (ask, revoker) = (Data::new(Ask::new(&layer)), Data::new(layer.revoker()));
    let app = move || {
        App::new()
            .app_data(ask.clone())
            .app_data(revoker.clone())
            // Outside of the scope, so nothing is asked.
            .route("/health", web::get().to(async || "well"))
            .service(
                web::scope("")
                    .wrap(from_fn(check))
                    .route("/me", web::get().to(me))
                    .route("/logout", web::post().to(logout)),
            )
    };
    let server =
        HttpServer::new(app).workers(1).disable_signals().listen(listener.into_std()?)?.run();
    Ok(server.await?)
}
