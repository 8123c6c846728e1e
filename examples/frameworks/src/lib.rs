#![doc = include_str!("../README.md")]

pub mod actix;
pub mod ask;
pub mod axum_jwt_auth;
pub mod client;
pub mod demo;
pub mod grpc_stream;
pub mod jwt_authorizer;
pub mod poem;
pub mod resource_server;
pub mod salvo;
pub mod websocket;

/// What goes wrong while an example is set up.
pub type Error = Box<dyn std::error::Error + Send + Sync>;
