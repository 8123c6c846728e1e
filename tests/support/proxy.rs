//! A TCP proxy that breaks connections in the ways networks do.
use std::future::pending;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep_until, timeout};

use super::redis::free_port;

/// What the proxy does to all connections, the live ones included, until told otherwise.
#[derive(Clone, Debug, PartialEq)]
pub enum Fault {
    /// Nothing wrong.
    Pass,
    /// Replies arrive later by `base` and up to `jitter` more, in order.
    Latency { base: Duration, jitter: Duration },
    /// Nothing reaches the server. As with lost packets, what was sent arrives when the fault ends.
    BlackHoleRequests,
    /// Nothing reaches the client, though the server gets and answers all it sends. As with lost
    /// packets, the replies arrive when the fault ends.
    BlackHoleReplies,
    /// On each connection, lets so many more bytes of replies through, then closes it.
    CutReplyAfter(usize),
    /// Replies arrive so many `bytes` at a time, with a pause of `every` after each.
    Drip { bytes: usize, every: Duration },
    /// Resets (RST) all live connections, and new ones as soon as they are made.
    Reset,
    /// Nobody listens: new connections are refused. Live ones go on; to end them too, set `Reset`
    /// before.
    Refuse,
    /// Each chunk of replies is replaced by these bytes.
    Garbage(Vec<u8>),
}

/// Forwards connections to a server, with the [`Fault`] that is set. Dropping it closes them all.
pub struct FaultProxy {
    addr: SocketAddr,
    orders: mpsc::Sender<Order>,
    accepted: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

struct Order {
    what: What,
    done: oneshot::Sender<()>,
}

enum What {
    Fault(Fault),
    Target(SocketAddr),
}

impl FaultProxy {
    /// Listens on a free loopback port and forwards to `target`, which need not be up yet.
    pub async fn start(target: SocketAddr) -> Self {
        let (listener, addr) = loop {
            let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
            if let Ok(listener) = TcpListener::bind(addr).await {
                break (listener, addr);
            }
        };
        let (orders, received) = mpsc::channel(1);
        let accepted = Arc::new(AtomicUsize::new(0));
        let task = tokio::spawn(serve(listener, addr, target, received, Arc::clone(&accepted)));
        Self { addr, orders, accepted, task }
    }

    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The URL of a plain Redis behind the proxy.
    pub fn url(&self) -> String {
        format!("redis://{}", self.addr)
    }

    /// How many connections were accepted so far.
    pub fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }

    /// Switches the fault. When this returns, it holds for new connections and for whatever the
    /// live ones forward from then on; after `Reset`, all that were live are gone.
    pub async fn set(&self, fault: Fault) {
        self.order(What::Fault(fault)).await;
    }

    /// Forwards new connections to another server. Live ones go on.
    pub async fn turn_to(&self, target: SocketAddr) {
        self.order(What::Target(target)).await;
    }

    async fn order(&self, what: What) {
        let (done, is_done) = oneshot::channel();
        self.orders.send(Order { what, done }).await.expect("a running proxy");
        is_done.await.expect("a running proxy");
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(
    listener: TcpListener,
    addr: SocketAddr,
    mut target: SocketAddr,
    mut orders: mpsc::Receiver<Order>,
    accepted: Arc<AtomicUsize>,
) {
    let mut listener = Some(listener);
    let (fault, _) = watch::channel(Fault::Pass);
    let mut relays = JoinSet::new();
    loop {
        let accept = async {
            match &listener {
                Some(listener) => listener.accept().await,
                None => pending().await,
            }
        };
        tokio::select! {
            biased;
            Some(Order { what, done }) = orders.recv() => {
                match what {
                    What::Target(server) => target = server,
                    What::Fault(order) => {
                        if order == Fault::Refuse {
                            listener = None;
                            // A process that is being started elsewhere holds a copy of the socket
                            // until it executes.
                            while TcpStream::connect(addr).await.is_ok() {
                                tokio::task::yield_now().await;
                            }
                        } else if listener.is_none() {
                            listener = Some(TcpListener::bind(addr).await.expect("the port the \
                                proxy had before"));
                        }
                        let reset = order == Fault::Reset;
                        fault.send_replace(order);
                        while reset && relays.join_next().await.is_some() {}
                    }
                }
                let _ = done.send(());
            }
            Some(_) = relays.join_next() => {}
            Ok((client, _)) = accept => {
                accepted.fetch_add(1, Ordering::SeqCst);
                relays.spawn(relay(client, target, fault.subscribe()));
            }
            else => return,
        }
    }
}

/// Forwards one connection until either side closes it or the fault does.
async fn relay(
    mut client: TcpStream,
    target: SocketAddr,
    mut fault: watch::Receiver<Fault>,
) -> io::Result<()> {
    let (requests, replies) = (fault.clone(), fault.clone());
    let reset = {
        let forward = async {
            let mut server = TcpStream::connect(target).await?;
            client.set_nodelay(true)?;
            server.set_nodelay(true)?;
            let (mut from_client, to_client) = client.split();
            let (from_server, mut to_server) = server.split();
            tokio::select! {
                ended = forward_requests(&mut from_client, &mut to_server, requests) => ended,
                ended = forward_replies(from_server, to_client, replies) => ended,
            }
        };
        tokio::select! {
            biased;
            _ = fault.wait_for(|fault| *fault == Fault::Reset) => true,
            ended = forward => ended.is_err(),
        }
    };
    if reset {
        // With this, closing sends RST rather than FIN.
        client.set_zero_linger()?;
    }
    Ok(())
}

async fn forward_requests(
    from: &mut ReadHalf<'_>,
    to: &mut WriteHalf<'_>,
    mut fault: watch::Receiver<Fault>,
) -> io::Result<()> {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let read = from.read(&mut buffer).await?;
        if read == 0 {
            return Ok(());
        }
        let _ = fault.wait_for(|fault| *fault != Fault::BlackHoleRequests).await;
        to.write_all(&buffer[..read]).await?;
    }
}

/// Reads and writes apart, so that latency delays each chunk from its own arrival, rather than from
/// when the chunk before it was delivered.
async fn forward_replies(
    mut from: ReadHalf<'_>,
    to: WriteHalf<'_>,
    fault: watch::Receiver<Fault>,
) -> io::Result<()> {
    let (chunks, received) = mpsc::channel(64);
    let read = async move {
        loop {
            let mut chunk = Vec::with_capacity(16 * 1024);
            if from.read_buf(&mut chunk).await? == 0
                || chunks.send((Instant::now(), chunk)).await.is_err()
            {
                // Drops `chunks`: the other side delivers what it has, and ends.
                return io::Result::Ok(());
            }
        }
    };
    let deliver = deliver(received, to, fault);
    tokio::pin!(deliver);
    tokio::select! {
        ended = &mut deliver => ended,
        _ = read => deliver.await,
    }
}

async fn deliver(
    mut chunks: mpsc::Receiver<(Instant, Vec<u8>)>,
    mut to: WriteHalf<'_>,
    mut fault: watch::Receiver<Fault>,
) -> io::Result<()> {
    let mut since_change = 0; // bytes delivered under the present fault
    let mut delayed = 0; // chunks, for the jitter
    while let Some((arrived, chunk)) = chunks.recv().await {
        let mut rest = chunk.as_slice();
        delayed += 1;
        while !rest.is_empty() {
            if fault.has_changed().unwrap_or(false) {
                since_change = 0;
            }
            let now = fault.borrow_and_update().clone();
            let (length, pause) = match now {
                Fault::Pass | Fault::BlackHoleRequests | Fault::Refuse => (rest.len(), None),
                Fault::Latency { base, jitter } => {
                    let due = arrived + base + spread(jitter, delayed);
                    // A change of the fault ends the wait, and the new one decides.
                    tokio::select! {
                        () = sleep_until(due) => (rest.len(), None),
                        _ = fault.changed() => { since_change = 0; continue }
                    }
                }
                // The connection is about to be reset: what was withheld until now must not slip
                // through before.
                Fault::BlackHoleReplies | Fault::Reset => {
                    if fault.changed().await.is_err() {
                        return Ok(());
                    }
                    since_change = 0;
                    continue;
                }
                Fault::CutReplyAfter(limit) => {
                    let left = limit.saturating_sub(since_change);
                    if rest.len() >= left {
                        to.write_all(&rest[..left]).await?;
                        return to.shutdown().await;
                    }
                    (rest.len(), None)
                }
                Fault::Drip { bytes, every } => (rest.len().min(bytes.max(1)), Some(every)),
                Fault::Garbage(bytes) => {
                    to.write_all(&bytes).await?;
                    break;
                }
            };
            to.write_all(&rest[..length]).await?;
            since_change += length;
            rest = &rest[length..];
            if let Some(pause) = pause
                && timeout(pause, fault.changed()).await.is_ok()
            {
                since_change = 0;
            }
        }
    }
    Ok(())
}

/// Spreads delays evenly between zero and `jitter`, the same way in every run: steps of the golden
/// ratio.
fn spread(jitter: Duration, n: u32) -> Duration {
    jitter.mul_f64((f64::from(n) * 0.618_033_988_749_895).fract())
}
