//! A mirror without its memory: it asks Redis what a mirror asks, and notes how late it hears of
//! each entry.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};

use crate::resp::{Reply, encode, ids_of_entries, length};

/// How a follower follows.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pace {
    /// How long it waits after entries have come before it reads again.
    pub pause: Duration,
    /// A heartbeat at most so often while entries come; each time entries have come, if it is zero.
    pub beat_every: Duration,
}

/// What a follower has seen.
#[derive(Default)]
pub struct Seen {
    pub lags_ms: Vec<f64>,
    pub reads: u64,
    pub beats: u64,
}

pub struct Follower {
    stream: TcpStream,
    unread: Vec<u8>,
    number: usize,
    last: String,
}

/// As often as a mirror asks with its usual limit of staleness.
const HEARTBEAT_EVERY: Duration = Duration::from_millis(250);

impl Follower {
    pub async fn connect(address: &str, number: usize) -> std::io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let mut follower = Self { stream, unread: Vec::new(), number, last: "0-0".into() };
        // Where the log ends; what came before is in the snapshot.
        let tail = [&["XREVRANGE", LOG, "+", "-", "COUNT", "1"][..]];
        if let [Reply::Array(entries)] = follower.ask(&tail).await?.as_slice()
            && let Some(Reply::Array(entry)) = entries.first()
            && let Some(Reply::Text(id)) = entry.first()
        {
            follower.last.clone_from(id);
        }
        Ok(follower)
    }

    /// Sends commands at once, and reads as many replies.
    pub async fn ask(&mut self, commands: &[&[&str]]) -> std::io::Result<Vec<Reply>> {
        self.send(commands).await?;
        let mut replies = Vec::new();
        for _ in commands {
            let used = self.reply().await?;
            replies.extend(Reply::parse(&self.unread).map(|(reply, _)| reply));
            self.unread.drain(..used);
        }
        Ok(replies)
    }

    async fn send(&mut self, commands: &[&[&str]]) -> std::io::Result<()> {
        let sent: Vec<u8> = commands.iter().flat_map(|command| encode(command)).collect();
        self.stream.write_all(&sent).await
    }

    /// Reads until a whole reply is there: how long it is.
    async fn reply(&mut self) -> std::io::Result<usize> {
        loop {
            if let Some(used) = length(&self.unread) {
                return Ok(used);
            }
            self.unread.reserve(64 * 1024);
            if self.stream.read_buf(&mut self.unread).await? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    pub async fn beat(&mut self) -> std::io::Result<()> {
        let lease = format!("{PREFIX}w:{:016x}", self.number);
        let name = format!("{:016x}", self.number);
        self.ask(&[
            &["SET", &lease, "3 0000000000000001 1 follower", "PX", "2000"],
            &["ZADD", MIRRORS, "1", &name],
            &["GET", EPOCH],
            &["TIME"],
            &["ROLE"],
        ])
        .await
        .map(drop)
    }

    /// Follows until then.
    pub async fn follow(&mut self, until: Instant, pace: Pace) -> std::io::Result<Seen> {
        let mut seen = Seen::default();
        let mut beaten = Instant::now() - HEARTBEAT_EVERY;
        while Instant::now() < until {
            let last = self.last.clone();
            let wait = HEARTBEAT_EVERY.as_millis().to_string();
            let read = ["XREAD", "COUNT", "1000", "BLOCK", &wait, "STREAMS", LOG, &last];
            self.send(&[&read]).await?;
            let used = self.reply().await?;
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64() * 1000.0;
            seen.reads += 1;
            let ids = ids_of_entries(&self.unread).unwrap_or_default();
            for id in &ids {
                let written: f64 = id.split_once('-').unwrap().0.parse().unwrap();
                seen.lags_ms.push((now - written).max(0.0));
            }
            if let Some(id) = ids.last() {
                self.last = (*id).to_owned();
            }
            let came = !ids.is_empty();
            self.unread.drain(..used);
            if !came || beaten.elapsed() >= pace.beat_every {
                self.beat().await?;
                beaten = Instant::now();
                seen.beats += 1;
            }
            if came && !pace.pause.is_zero() {
                sleep(pace.pause).await;
            }
        }
        Ok(seen)
    }

    /// Reads the whole snapshot, as a mirror does that starts: how many revocations there are.
    pub async fn boot(&mut self) -> std::io::Result<u64> {
        let mut members = 0;
        for key in [INDEX, TOMBSTONES] {
            let mut cursor = "0".to_owned();
            loop {
                let replies = self.ask(&[&["ZSCAN", key, &cursor, "COUNT", "2000"]]).await?;
                let Some(Reply::Array(parts)) = replies.into_iter().next() else { break };
                let [Reply::Text(next), Reply::Array(page)] = parts.as_slice() else { break };
                members += page.len() as u64 / 2;
                cursor.clone_from(next);
                if cursor == "0" {
                    break;
                }
            }
        }
        Ok(members)
    }
}

/// Where the first shard of a store with the usual prefix has its keys.
const PREFIX: &str = "jwt-revocation:{0}:";
const LOG: &str = "jwt-revocation:{0}:l";
const MIRRORS: &str = "jwt-revocation:{0}:w";
const EPOCH: &str = "jwt-revocation:{0}:e";
const INDEX: &str = "jwt-revocation:{0}:i";
const TOMBSTONES: &str = "jwt-revocation:{0}:b";
