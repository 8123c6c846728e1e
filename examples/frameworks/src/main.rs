//! Starts one of the examples and says what to try.

use std::sync::Arc;

use frameworks::{Error, actix, axum_jwt_auth, demo, jwt_authorizer, poem, resource_server, salvo};
use tokio::net::TcpListener;
use tower_jwt_revocation::MemoryStore;

const USAGE: &str = "usage: cargo run -- actix | poem | salvo | jwt-authorizer | resource-server | \
    axum-jwt-auth [address] | token";

#[tokio::main]
async fn main() -> Result<(), Error> {
    let mut args = std::env::args().skip(1);
    let which = args.next().ok_or(USAGE)?;
    if which == "token" {
        println!("{}", demo::token("alice")?);
        return Ok(());
    }
    let listener = TcpListener::bind(args.next().as_deref().unwrap_or("127.0.0.1:3000")).await?;
    let address = listener.local_addr()?;
    println!("listening on {address}; in another terminal:");
    println!("  token=$(cargo run --quiet -- token)");
    println!("  curl -i -H \"Authorization: Bearer $token\" {address}/me");
    println!("  curl -i -H \"Authorization: Bearer $token\" -X POST {address}/logout");
    println!("  curl -i -H \"Authorization: Bearer $token\" {address}/me");
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
