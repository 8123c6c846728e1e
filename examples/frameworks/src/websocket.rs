//! axum: a WebSocket that ends with the token it was opened with.
//!
//! The upgrade is a request like any other, and is checked. Browsers cannot send `Authorization` with it: give them a
//! cookie (`TokenSource::cookie`), and compare `Origin` with your own, or any page can open a socket as whoever visits it.

use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade};
use axum::response::Response;
use axum::routing::any;
use tokio::net::TcpListener;
use tokio::time::sleep;
use tower_jwt_revocation::{Clearance, JwtRevocationLayer, Mirror};

use crate::Error;

/// "Unauthorized", from the registry of close codes of IANA.
pub const UNAUTHORIZED: u16 = 3000;
/// "Try again later", from the same.
pub const TRY_AGAIN_LATER: u16 = 1013;

/// For how long a socket may go on while nobody can tell whether its token was revoked. A single request is answered with
/// 503 by then; a socket that stayed open would be the way around that.
const MAX_BLIND: Duration = Duration::from_secs(10);

async fn upgrade(upgrade: WebSocketUpgrade, clearance: Clearance, State(mirror): State<Mirror>) -> Response {
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
    let over = mirror.revoked(clearance.token());
    let blind = blind(mirror);
    tokio::pin!(over, blind);
    loop {
        let message = tokio::select! {
            biased; // the end comes first, however much there is to say
            _ = &mut over => return Some(UNAUTHORIZED),
            () = &mut blind => return Some(TRY_AGAIN_LATER),
            message = socket.recv() => message?.ok()?,
        };
        if matches!(message, Message::Text(_) | Message::Binary(_)) {
            socket.send(message).await.ok()?;
        }
    }
}

/// Completes when the mirror has not heard of the store for too long.
async fn blind(mirror: &Mirror) {
    while mirror.staleness().is_some_and(|age| age < MAX_BLIND) {
        sleep(Duration::from_secs(1)).await;
    }
}

/// `layer` and `mirror` must be on the same store; best is a layer whose store *is* the mirror.
pub async fn serve(listener: TcpListener, layer: JwtRevocationLayer, mirror: Mirror) -> Result<(), Error> {
    let app = Router::new().route("/echo", any(upgrade)).layer(layer).with_state(mirror);
    Ok(axum::serve(listener, app).await?)
}
