//! The layer around a tonic server: a real client sees UNAUTHENTICATED and UNAVAILABLE.
//!
//! ```sh
//! cargo run --example tonic
//! ```
#![expect(clippy::print_stdout, reason = "an example talks to the person who runs it")]

use std::error::Error;
use std::sync::Arc;

use futures::FutureExt as _;
use futures::future::{BoxFuture, ready};
use jsonwebtoken::{EncodingKey, Header};
use serde_json::json;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Channel, Server};
use tonic::{Code, Request};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tower_jwt_revocation::clock::Timestamp;
use tower_jwt_revocation::revocation::{Record, Revocation};
use tower_jwt_revocation::store::{
    ListQuery, Lookup, Receipt, RecordPage, RevocationStore, StoreError, StoreErrorKind,
};
use tower_jwt_revocation::{
    Algorithm, JwtRevocationLayer, JwtVerifier, MemoryStore, Target, TokenProfile, VerificationKey,
    VerifiedToken,
};

const SECRET: &[u8] = b"an example secret, 32 bytes or more";

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let layer = JwtRevocationLayer::new(verifier()?, MemoryStore::new());
    let revoker = layer.revoker();
    let mut client = serve(layer).await?;

    let now = Timestamp::now().as_secs();
    let claims = json!({"sub": "alice", "jti": "token-1", "iat": now, "exp": now + 600});
    let token =
        jsonwebtoken::encode(&Header::default(), &claims, &EncodingKey::from_secret(SECRET)?)?;

    println!("without a token:              {:?}", call(&mut client, None).await?);
    println!("with a token:                 {:?}", call(&mut client, Some(&token)).await?);
    revoker.revoke(Target::token("token-1")).reason("an example").await?;
    println!("after it was revoked:         {:?}", call(&mut client, Some(&token)).await?);

    let mut client = serve(JwtRevocationLayer::new(verifier()?, Unreachable)).await?;
    println!("while the store is away:      {:?}", call(&mut client, Some(&token)).await?);
    println!("\nNext: cargo run --example revoke      another process revokes, this one refuses");
    Ok(())
}

fn verifier() -> Result<JwtVerifier, Box<dyn Error>> {
    let key = VerificationKey::from_secret(Algorithm::HS256, SECRET)?;
    Ok(JwtVerifier::new([key], TokenProfile::new())?)
}

/// Starts a server behind `layer` and connects to it.
async fn serve(layer: JwtRevocationLayer) -> Result<HealthClient<Channel>, Box<dyn Error>> {
    let (_, health) = tonic_health::server::health_reporter();
    let incoming = TcpIncoming::bind("127.0.0.1:0".parse()?)?;
    let address = incoming.local_addr()?;
    tokio::spawn(Server::builder().layer(layer).add_service(health).serve_with_incoming(incoming));
    let channel = Channel::from_shared(format!("http://{address}"))?.connect().await?;
    Ok(HealthClient::new(channel))
}

async fn call(
    client: &mut HealthClient<Channel>,
    token: Option<&str>,
) -> Result<Code, Box<dyn Error>> {
    let mut request = Request::new(HealthCheckRequest { service: String::new() });
    if let Some(token) = token {
        request.metadata_mut().insert("authorization", format!("Bearer {token}").parse()?);
    }
    Ok(client.check(request).await.map_or_else(|status| status.code(), |_| Code::Ok))
}

/// A store that nobody can reach, to see what happens then. Also what it takes to write one of your
/// own.
struct Unreachable;

fn unreachable<T: Send + 'static>() -> BoxFuture<'static, Result<T, StoreError>> {
    ready(Err(StoreError::new(StoreErrorKind::Unreachable, "the store is away"))).boxed()
}

impl RevocationStore for Unreachable {
    fn check(&self, _: &Arc<VerifiedToken>) -> Lookup {
        Lookup::Later(unreachable())
    }

    fn write(&self, _: Vec<Revocation>) -> BoxFuture<'static, Result<Vec<Receipt>, StoreError>> {
        unreachable()
    }

    fn find(&self, _: &Target) -> BoxFuture<'static, Result<Option<Record>, StoreError>> {
        unreachable()
    }

    fn list(&self, _: ListQuery) -> BoxFuture<'static, Result<RecordPage, StoreError>> {
        unreachable()
    }

    fn count(&self) -> BoxFuture<'static, Result<u64, StoreError>> {
        unreachable()
    }
}
