//! A server, a proxy in front of it and the layers behind that, each on a thread of its own, with
//! traffic on them.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tower_jwt_revocation::RedisStore;
use tower_jwt_revocation::store::redis::RedisStoreBuilder;

use crate::canary::{Pinger, Stalls, watch_runtime};
use crate::doors::Doors;
use crate::support::{Builder, Fault, FaultProxy, RedisServer};
use crate::traffic::{Protocol, Tokens, revoke, send};

/// The budget of a check: the default.
pub const BUDGET: Duration = Duration::from_millis(50);
/// The budget of a write: less than the default, to see more of them fail.
pub const WRITE_BUDGET: Duration = Duration::from_millis(500);

/// A runtime of one thread, which is driven by a thread of its own, so that its canary sees
/// whatever holds it up.
pub struct Runtime {
    handle: Handle,
    pub stalls: Stalls,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Runtime {
    pub fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let handle = runtime.handle().clone();
        let stalls = {
            let _inside = handle.enter();
            watch_runtime()
        };
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            let _ = runtime.block_on(stopped);
        });
        Self { handle, stalls, stop: Some(stop), thread: Some(thread) }
    }

    pub fn spawn(&self, future: impl Future<Output = ()> + Send + 'static) {
        self.handle.spawn(future);
    }

    /// Runs it there and waits for it here.
    pub fn run<T: Send + 'static>(&self, future: impl Future<Output = T> + Send + 'static) -> T {
        let (sender, receiver) = std::sync::mpsc::channel();
        self.handle.spawn(async move {
            let _ = sender.send(future.await);
        });
        receiver.recv().expect("a future that came to its end")
    }

    pub fn tasks(&self) -> usize {
        self.handle.metrics().num_alive_tasks()
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// All of it. The parts are dropped in this order.
pub struct Lab {
    pub app: Runtime,
    pub doors: Doors,
    pub pinger: Pinger,
    pub net: Runtime,
    proxy: Arc<FaultProxy>,
    pub server: RedisServer,
    pub protocol: Protocol,
}

impl Lab {
    pub fn start(
        server: impl Fn(Builder) -> Builder,
        store: impl Fn(RedisStoreBuilder) -> RedisStoreBuilder,
        mirror: bool,
    ) -> Self {
        let server = server(RedisServer::builder()).start();
        let pinger = Pinger::start(server.socket());
        let net = Runtime::start();
        let addr = server.addr();
        let proxy = Arc::new(net.run(FaultProxy::start(addr)));
        let app = Runtime::start();
        let builder = RedisStore::builder().with_url(proxy.url()).with_check_timeout(BUDGET);
        let builder = store(builder.with_write_timeout(WRITE_BUDGET));
        let doors =
            app.run(async move { Doors::of(builder.connect().await.unwrap(), mirror).await.0 });
        Self { app, doors, pinger, net, proxy, server, protocol: Protocol::default() }
    }

    /// Lets requests and revocations come in, as many as these a second.
    pub fn load(&self, requests: u32, writes: u32) {
        let doors = self.doors.clone();
        let tokens = self.app.run(async move { Tokens::prepare(&doors).await });
        self.app.spawn(send(self.doors.clone(), tokens, requests, self.protocol.clone()));
        self.app.spawn(revoke(self.doors.clone(), writes, self.protocol.clone()));
    }

    /// Breaks or mends the network.
    pub fn net(&self, fault: Fault) {
        let proxy = Arc::clone(&self.proxy);
        self.net.run(async move { proxy.set(fault).await });
    }

    pub fn cli(&self, command: &[&str]) -> String {
        self.server.cli(command)
    }
}
