//! Each example is told the same story: no token, a good one, a revoked one, a store that does not
//! answer.

#[path = "../../../../tests/support/mod.rs"]
mod support;

mod client;
mod streams;

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use frameworks::{Error, actix, axum_jwt_auth, demo, jwt_authorizer, poem, resource_server, salvo};
use reqwest::{Method, Response, StatusCode, header};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tower_jwt_revocation::store::scripted::ScriptedStore;
use tower_jwt_revocation::store::{RevocationStore, StoreErrorKind};

/// A server that ends with the test.
struct Server {
    url: String,
    task: JoinHandle<Result<(), Error>>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    async fn start<F>(serve: impl FnOnce(TcpListener) -> F) -> Self
    where
        F: Future<Output = Result<(), Error>> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        Self { url, task: tokio::spawn(serve(listener)) }
    }

    async fn send(&self, method: Method, path: &str, tokens: &[&str]) -> Response {
        let mut request = reqwest::Client::new().request(method, format!("{}{path}", self.url));
        for token in tokens {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        request.send().await.unwrap()
    }

    async fn me(&self, token: &str) -> Response {
        self.send(Method::GET, "/me", &[token]).await
    }
}

/// What is the same whoever verifies.
async fn tell(server: &Server, store: &ScriptedStore) {
    let (alice, bob) = (demo::token("alice").unwrap(), demo::token("bob").unwrap());
    assert_eq!(server.send(Method::GET, "/health", &[]).await.status(), StatusCode::OK);
    assert_eq!(store.checks(), 0, "health is nobody's business");

    assert!(server.send(Method::GET, "/me", &[]).await.status().is_client_error());
    for bad in ["garbage", &format!("{alice}A"), &forged(&alice)] {
        assert_eq!(server.me(bad).await.status(), StatusCode::UNAUTHORIZED, "{bad}");
    }
    assert_eq!(store.checks(), 0, "nothing unverified reaches the store");

    let answer = server.me(&alice).await;
    assert_eq!(answer.status(), StatusCode::OK);
    assert_eq!(answer.text().await.unwrap(), "hello alice");

    assert_eq!(
        server.send(Method::POST, "/logout", &[&alice]).await.status(),
        StatusCode::NO_CONTENT
    );
    let revoked = server.me(&alice).await;
    assert_eq!(revoked.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(revoked.headers()["cache-control"], "no-store");
    let challenge = revoked.headers()["www-authenticate"].to_str().unwrap().to_owned();
    assert_eq!(challenge, r#"Bearer realm="api", error="invalid_token""#);
    assert_eq!(revoked.text().await.unwrap(), "");
    assert_eq!(server.me(&bob).await.status(), StatusCode::OK, "bob is not alice");

    store.answer_later();
    assert_eq!(server.me(&alice).await.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(server.me(&bob).await.text().await.unwrap(), "hello bob");

    store.fail(StoreErrorKind::Unreachable);
    let unknown = server.me(&bob).await;
    assert_eq!(unknown.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(unknown.headers()["retry-after"], "1");
    assert!(!unknown.headers().contains_key("www-authenticate"), "his token is not bad");
    store.answer();
    assert_eq!(server.me(&bob).await.status(), StatusCode::OK);
}

/// With other claims under the same signature.
fn forged(token: &str) -> String {
    let other = demo::token("mallory").unwrap();
    let (input, _) = other.rsplit_once('.').unwrap();
    let (_, signature) = token.rsplit_once('.').unwrap();
    format!("{input}.{signature}")
}

/// What is so where this crate verifies, too.
async fn tell_all(server: &Server, store: &ScriptedStore) {
    tell(server, store).await;
    let none = server.send(Method::GET, "/me", &[]).await;
    assert_eq!(none.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(none.headers()["www-authenticate"], r#"Bearer realm="api""#);
    let bob = demo::token("bob").unwrap();
    let two = server.send(Method::GET, "/me", &[&bob, &bob]).await;
    assert_eq!(two.status(), StatusCode::BAD_REQUEST, "no field is lost on the way to the layer");
}

#[tokio::test]
async fn actix_web() {
    let store = ScriptedStore::new();
    let layer = demo::layer(store.clone()).unwrap();
    tell_all(&Server::start(|listener| actix::serve(listener, layer)).await, &store).await;
}

#[tokio::test]
async fn poem_through_ask() {
    let store = ScriptedStore::new();
    let layer = demo::layer(store.clone()).unwrap();
    tell_all(&Server::start(|listener| poem::serve(listener, layer)).await, &store).await;
}

#[tokio::test]
async fn salvo_by_tower_compat() {
    let store = ScriptedStore::new();
    let layer = demo::layer(store.clone()).unwrap();
    tell_all(&Server::start(|listener| salvo::serve(listener, layer)).await, &store).await;
}

fn shared(store: &ScriptedStore) -> Arc<dyn RevocationStore> {
    Arc::new(store.clone())
}

#[tokio::test]
async fn behind_jwt_authorizer() {
    let store = ScriptedStore::new();
    tell(&Server::start(|listener| jwt_authorizer::serve(listener, shared(&store))).await, &store)
        .await;
}

#[tokio::test]
async fn behind_tower_oauth2_resource_server() {
    let store = ScriptedStore::new();
    tell(&Server::start(|listener| resource_server::serve(listener, shared(&store))).await, &store)
        .await;
}

#[tokio::test]
async fn behind_axum_jwt_auth() {
    let store = ScriptedStore::new();
    tell(&Server::start(|listener| axum_jwt_auth::serve(listener, shared(&store))).await, &store)
        .await;
}

/// A process that ends with the test.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// In a process of its own: in this one others have chosen a provider of cryptography by now.
/// Beside this crate, that of another one is built in here, and jsonwebtoken panics if nobody
/// chooses.
#[tokio::test]
async fn each_works_in_a_process_that_only_verifies() {
    for which in ["actix", "poem", "salvo", "jwt-authorizer", "resource-server", "axum-jwt-auth"] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_frameworks"));
        command.args([which, "127.0.0.1:0"]).stdout(Stdio::piped());
        let mut process = Process(command.spawn().unwrap());
        let mut lines = BufReader::new(process.0.stdout.take().unwrap()).lines();
        let first = lines.next().unwrap().unwrap();
        let address = first.strip_prefix("listening on ").unwrap().split(';').next().unwrap();
        let request = reqwest::Client::new().get(format!("http://{address}/me"));
        let answer = request.bearer_auth(demo::token("alice").unwrap()).send().await.unwrap();
        assert_eq!(
            (answer.status(), &*answer.text().await.unwrap()),
            (StatusCode::OK, "hello alice"),
            "{which}"
        );
    }
}
