//! axum: a WebSocket that ends with the token it was opened with.
//!
//! The upgrade is a request like any other, and is checked; what is said for hours after that is
//! not. `EndWithTokenLayer::ended` tells when a new request would be refused: the token was
//! revoked, by whichever process, or is expired, or nobody has been able to tell for too long.
//!
//! Browsers cannot send `Authorization` with an upgrade: give them a cookie
//! (`TokenSource::cookie`), and compare `Origin` with your own, or any page can open a socket as
//! whoever visits it.

use axum::Router;
use axum::extract::State;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade};
use axum::response::Response;
use axum::routing::any;
use tokio::net::TcpListener;
use tower_jwt_revocation::middleware::EndWithTokenLayer;
use tower_jwt_revocation::{Clearance, JwtRevocationLayer, Rejection};

use crate::Error;

/// "Unauthorized", from the registry of close codes of IANA.
pub const UNAUTHORIZED: u16 = 3000;
/// "Try again later", from the same.
pub const TRY_AGAIN_LATER: u16 = 1013;

async fn upgrade(
    upgrade: WebSocketUpgrade,
    clearance: Clearance,
    State(ending): State<EndWithTokenLayer>,
) -> Response {
    upgrade.on_upgrade(async move |mut socket| {
        let code = talk(&mut socket, &clearance, &ending).await;
        let close = code.map(|code| Message::Close(Some(CloseFrame { code, reason: "".into() })));
        if let Some(close) = close {
            // Whoever is gone need not be told.
            let _ = socket.send(close).await;
        }
    })
}

/// Echoes until the token is over. With which code the socket is to be closed, if it is not yet.
async fn talk(
    socket: &mut WebSocket,
    clearance: &Clearance,
    ending: &EndWithTokenLayer,
) -> Option<u16> {
    let ended = ending.ended(clearance);
    tokio::pin!(ended);
    loop {
        let message = tokio::select! {
            biased; // the end comes first, however much there is to say
            why = &mut ended => return Some(match why {
                Rejection::StandingUnknown(_) => TRY_AGAIN_LATER,
                _ => UNAUTHORIZED,
            }),
            message = socket.recv() => message?.ok()?,
        };
        if matches!(message, Message::Text(_) | Message::Binary(_)) {
            socket.send(message).await.ok()?;
        }
    }
}

/// Best is a layer whose store is a mirror, which learns of revocations by itself.
pub async fn serve(listener: TcpListener, layer: JwtRevocationLayer) -> Result<(), Error> {
    let ending = EndWithTokenLayer::new(&layer);
    let app = Router::new().route("/echo", any(upgrade)).layer(layer).with_state(ending);
    Ok(axum::serve(listener, app).await?)
}
