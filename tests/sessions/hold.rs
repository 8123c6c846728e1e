//! A proxy between a store and Redis that holds the n-th script on its way: before Redis has it, or
//! its reply.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Where a script is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Where {
    /// Redis has not seen it.
    Before,
    /// Redis has run it, and nobody knows.
    After,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Pass,
    /// So many scripts go through, and the next one is held.
    Count(u32, Where),
    /// That one is on its way; its reply will be held.
    Running,
    Held,
}

pub(super) struct HoldingProxy {
    addr: SocketAddr,
    phase: Arc<watch::Sender<Phase>>,
    _task: JoinSet<()>,
}

impl HoldingProxy {
    pub(super) async fn start(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let phase = Arc::new(watch::Sender::new(Phase::Pass));
        let mut task = JoinSet::new();
        let shared = Arc::clone(&phase);
        task.spawn(async move {
            let mut relays = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                relays.spawn(relay(client, target, Arc::clone(&shared)));
            }
        });
        Self { addr, phase, _task: task }
    }

    pub(super) fn url(&self) -> String {
        format!("redis://{}", self.addr)
    }

    /// Lets `n` scripts through and holds the next one.
    pub(super) fn hold(&self, n: u32, place: Where) {
        self.phase.send_replace(Phase::Count(n, place));
    }

    /// Returns when something is held.
    pub(super) async fn held(&self) {
        self.phase.subscribe().wait_for(|phase| *phase == Phase::Held).await.unwrap();
    }

    /// Lets everything go on. Whether something was held.
    pub(super) fn release(&self) -> bool {
        self.phase.send_replace(Phase::Pass) == Phase::Held
    }
}

async fn relay(client: TcpStream, target: SocketAddr, phase: Arc<watch::Sender<Phase>>) {
    let Ok(server) = TcpStream::connect(target).await else { return };
    client.set_nodelay(true).unwrap();
    server.set_nodelay(true).unwrap();
    let ((from_client, to_client), (from_server, to_server)) =
        (client.into_split(), server.into_split());
    // Which of the commands on this connection is to be held after it has been run. Zero is none.
    let held = AtomicU64::new(0);
    tokio::select! {
        _ = requests(from_client, to_server, &phase, &held) => {}
        _ = replies(from_server, to_client, &phase, &held) => {}
    }
}

async fn requests(
    from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    phase: &watch::Sender<Phase>,
    held: &AtomicU64,
) -> std::io::Result<()> {
    let mut from = BufReader::new(from);
    for n in 1.. {
        let (command, is_script) = command(&mut from).await?;
        let mut place = None;
        if is_script {
            phase.send_if_modified(|phase| {
                let Phase::Count(left, place_to_hold) = *phase else { return false };
                *phase = match left.checked_sub(1) {
                    Some(left) => Phase::Count(left, place_to_hold),
                    None if place_to_hold == Where::Before => Phase::Held,
                    None => Phase::Running,
                };
                if left == 0 {
                    place = Some(place_to_hold);
                }
                true
            });
        }
        match place {
            None => {}
            Some(Where::Before) => passes(phase).await,
            Some(Where::After) => held.store(n, Ordering::SeqCst),
        }
        to.write_all(&command).await?;
    }
    Ok(())
}

async fn replies(
    from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    phase: &watch::Sender<Phase>,
    held: &AtomicU64,
) -> std::io::Result<()> {
    let mut from = BufReader::new(from);
    for n in 1.. {
        let reply = reply(&mut from).await?;
        if held.load(Ordering::SeqCst) == n {
            phase.send_replace(Phase::Held);
            passes(phase).await;
        }
        to.write_all(&reply).await?;
    }
    Ok(())
}

async fn passes(phase: &watch::Sender<Phase>) {
    // If it is gone, so is the proxy.
    let _ = phase.subscribe().wait_for(|phase| *phase == Phase::Pass).await;
}

/// One reply as it is on the wire, with all that is in it (RESP2).
async fn reply(from: &mut BufReader<OwnedReadHalf>) -> std::io::Result<Vec<u8>> {
    let mut wire = Vec::new();
    let mut left = 1;
    while left > 0 {
        left -= 1;
        let start = wire.len();
        from.read_until(b'\n', &mut wire).await?;
        let (kind, line) = match &wire[start..] {
            [] => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            [kind, line @ ..] => (*kind, String::from_utf8_lossy(line).trim().to_owned()),
        };
        // Null is a length below zero.
        let length = if matches!(kind, b'$' | b'*') { line.parse::<usize>().ok() } else { None };
        match (kind, length) {
            (b'$', Some(length)) => {
                let start = wire.len();
                wire.resize(start + length + 2, 0);
                from.read_exact(&mut wire[start..]).await?;
            }
            (b'*', Some(length)) => left += length,
            _ => {}
        }
    }
    Ok(wire)
}

/// One command as it is on the wire, an array of bulk strings, and whether it is one of the scripts
/// that sessions use.
async fn command(from: &mut BufReader<OwnedReadHalf>) -> std::io::Result<(Vec<u8>, bool)> {
    let mut wire = Vec::new();
    let count = number(from, &mut wire).await?;
    let mut name = Vec::new();
    for n in 0..count {
        let length = number(from, &mut wire).await?;
        let start = wire.len();
        wire.resize(start + length + 2, 0);
        from.read_exact(&mut wire[start..]).await?;
        if n == 0 {
            name = wire[start..start + length].to_ascii_uppercase();
        }
    }
    // Those that name no document or record are heartbeats of the store itself.
    let names = |part: &[u8]| wire.windows(part.len()).any(|window| window == part);
    let is_script = (name == b"EVALSHA" || name == b"EVAL") && (names(b"}:d:") || names(b"}:r:"));
    Ok((wire, is_script))
}

/// The number in a line such as `*3` or `$11`.
async fn number(from: &mut BufReader<OwnedReadHalf>, wire: &mut Vec<u8>) -> std::io::Result<usize> {
    let start = wire.len();
    loop {
        wire.push(from.read_u8().await?);
        if wire.ends_with(b"\r\n") {
            break;
        }
    }
    let digits = String::from_utf8_lossy(&wire[start + 1..wire.len() - 2]).into_owned();
    digits.parse().map_err(|_| std::io::Error::other(format!("not RESP: {digits}")))
}
