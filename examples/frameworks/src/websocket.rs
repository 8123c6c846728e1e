//! axum: a WebSocket that ends with the token it was opened with, see [`over`].
//!
//! The upgrade is a request like any other, and is checked. Browsers cannot send `Authorization`
//! with it: give them a cookie (`TokenSource::cookie`), and compare `Origin` with your own, or any
//! page can open a socket as whoever visits it.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade};
use axum::response::Response;
use axum::routing::any;
use tokio::net::TcpListener;
use tower_jwt_revocation::{Clearance, JwtRevocationLayer, Mirror};

use crate::Error;
use crate::over::{MAX_BLIND, Over, over};

/// "Unauthorized", from the registry of close codes of IANA.
pub const UNAUTHORIZED: u16 = 3000;
/// "Try again later", from the same.
pub const TRY_AGAIN_LATER: u16 = 1013;

async fn upgrade(
    upgrade: WebSocketUpgrade,
    clearance: Clearance,
    State(mirror): State<Mirror>,
) -> Response {
    upgrade.on_upgrade(async move |mut socket| {
        let code = talk(&mut socket, &clearance, &mirror).await;
        let close = code.map(|code| Message::Close(Some(CloseFrame { code, reason: "".into() })));
        if let Some(close) = close {
            // Whoever is gone need not be told.
            let _ = socket.send(close).await;
        }
    })
}

/// Echoes until the token is over. With which code the socket is to be closed, if it is not yet.
async fn talk(socket: &mut WebSocket, clearance: &Clearance, mirror: &Mirror) -> Option<u16> {
    let over = over(mirror.clone(), Arc::clone(clearance.token()), MAX_BLIND);
    tokio::pin!(over);
    loop {
        let message = tokio::select! {
            biased; // the end comes first, however much there is to say
            why = &mut over => return Some(match why {
                Over::Token => UNAUTHORIZED,
                Over::Blind => TRY_AGAIN_LATER,
            }),
            message = socket.recv() => message?.ok()?,
        };
        if matches!(message, Message::Text(_) | Message::Binary(_)) {
            socket.send(message).await.ok()?;
        }
    }
}

/// `layer` and `mirror` must be on the same store; best is a layer whose store *is* the mirror.
pub async fn serve(
    listener: TcpListener,
    layer: JwtRevocationLayer,
    mirror: Mirror,
) -> Result<(), Error> {
    let app = Router::new().route("/echo", any(upgrade)).layer(layer).with_state(mirror);
    Ok(axum::serve(listener, app).await?)
}
