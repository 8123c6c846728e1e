//! The layer around a plain hyper service: no framework.
//!
//! ```sh
//! cargo run --example hyper
//! ```
#![expect(clippy::print_stdout, reason = "an example talks to the person who runs it")]

use std::convert::Infallible;
use std::error::Error;
use std::net::SocketAddr;

use http::{Request, Response, StatusCode, header};
use http_body_util::{Empty, Full};
use hyper::body::{Bytes, Incoming};
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use jsonwebtoken::{EncodingKey, Header};
use serde_json::json;
use tokio::net::TcpListener;
use tower::{ServiceBuilder, service_fn};
use tower_jwt_revocation::clock::Timestamp;
use tower_jwt_revocation::{
    Algorithm, Clearance, JwtRevocationLayer, JwtVerifier, MemoryStore, Target, TokenProfile,
    VerificationKey,
};

const SECRET: &[u8] = b"an example secret, 32 bytes or more";

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let key = VerificationKey::from_secret(Algorithm::HS256, SECRET)?;
    let layer =
        JwtRevocationLayer::new(JwtVerifier::new([key], TokenProfile::new())?, MemoryStore::new());
    let revoker = layer.revoker();

    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(serve(listener, layer));

    let now = Timestamp::now().as_secs();
    let claims = json!({"sub": "alice", "jti": "token-1", "iat": now, "exp": now + 600});
    let token =
        jsonwebtoken::encode(&Header::default(), &claims, &EncodingKey::from_secret(SECRET)?)?;

    println!("without a token:      {}", get(address, None).await?);
    println!("with a token:         {}", get(address, Some(&token)).await?);
    revoker.revoke(Target::token("token-1")).reason("an example").await?;
    println!("after it was revoked: {}", get(address, Some(&token)).await?);
    println!("\nNext: cargo run --example tonic      the same over gRPC");
    Ok(())
}

async fn hello(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let subject =
        request.extensions().get::<Clearance>().and_then(|clearance| clearance.token().subject());
    Ok(Response::new(format!("hello {}", subject.unwrap_or_default()).into()))
}

async fn serve(listener: TcpListener, layer: JwtRevocationLayer) {
    let service = ServiceBuilder::new().layer(layer).service(service_fn(hello));
    while let Ok((stream, _)) = listener.accept().await {
        let service = TowerToHyperService::new(service.clone());
        tokio::spawn(async move {
            let connection = auto::Builder::new(TokioExecutor::new());
            if let Err(error) = connection.serve_connection(TokioIo::new(stream), service).await {
                println!("a connection ended with {error}");
            }
        });
    }
}

async fn get(address: SocketAddr, token: Option<&str>) -> Result<StatusCode, Box<dyn Error>> {
    let client = Client::builder(TokioExecutor::new()).build_http();
    let mut request = Request::get(format!("http://{address}/"));
    if let Some(token) = token {
        request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
    }
    Ok(client.request(request.body(Empty::<Bytes>::new())?).await?.status())
}
