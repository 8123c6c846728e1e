//! Starts one of the examples and says what to try.

use std::sync::Arc;

use frameworks::{Error, actix, axum_jwt_auth, demo, jwt_authorizer, poem, resource_server, salvo};
use tokio::net::TcpListener;
use tower_jwt_revocation::MemoryStore;

const USAGE: &str =
    "usage: cargo run -- actix | poem | salvo | jwt-authorizer | resource-server | axum-jwt-auth";

#[tokio::main]
async fn main() -> Result<(), Error> {
    let which = std::env::args().nth(1).ok_or(USAGE)?;
    let listener = TcpListener::bind("127.0.0.1:3000").await?;
    println!("Listening. In another terminal:");
    println!("  token={}", demo::token("alice")?);
    println!("  curl -i -H \"Authorization: Bearer $token\" localhost:3000/me");
    println!("  curl -i -H \"Authorization: Bearer $token\" -X POST localhost:3000/logout");
    println!("  curl -i -H \"Authorization: Bearer $token\" localhost:3000/me");
    let store = MemoryStore::new();
    match &*which {
        "actix" => actix::serve(listener, demo::layer(store)?).await,
        "poem" => poem::serve(listener, demo::layer(store)?).await,
        "salvo" => salvo::serve(listener, demo::layer(store)?).await,
        "jwt-authorizer" => jwt_authorizer::serve(listener, Arc::new(store)).await,
        "resource-server" => resource_server::serve(listener, Arc::new(store)).await,
        "axum-jwt-auth" => axum_jwt_auth::serve(listener, Arc::new(store)).await,
        _ => Err(USAGE.into()),
    }
}
