//! A mirror without its memory: it asks Redis what a mirror asks, and notes how late it hears of
//! each entry.

/// As large as a mirror asks for, which is no business of its users, so that no interface tells it.
#[path = "../../../src/store/redis/feed/page.rs"]
mod size;

use std::io;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use self::size::PageSize;
use crate::machine::wall_millis;
use crate::resp::{Connection, Reply, ids_of_entries, page};

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
    /// Of entries that were written while it was abreast of the log. What was there before says
    /// how long ago that was, and nothing of the follower.
    pub lags_ms: Vec<f64>,
}

pub struct Follower {
    connection: Connection,
    number: usize,
    last: String,
}

/// As often as a mirror asks with its usual limit of staleness.
const HEARTBEAT_EVERY: Duration = Duration::from_millis(250);
/// How many entries are read at once.
const ENTRIES: usize = 1000;

impl Follower {
    pub async fn connect(address: &str, number: usize) -> io::Result<Self> {
        let mut connection = Connection::open(address).await?;
        let mut last = "0-0".to_owned();
        // Where the log ends; what came before is in the snapshot.
        let tail = [&["XREVRANGE", LOG, "+", "-", "COUNT", "1"][..]];
        if let [Reply::Array(entries)] = connection.ask(&tail).await?.as_slice()
            && let Some(Reply::Array(entry)) = entries.first()
            && let Some(Reply::Text(id)) = entry.first()
        {
            last.clone_from(id);
        }
        Ok(Self { connection, number, last })
    }

    pub async fn beat(&mut self) -> io::Result<()> {
        let lease = format!("{PREFIX}w:{:016x}", self.number);
        let name = format!("{:016x}", self.number);
        let commands: [&[&str]; 5] = [
            &["SET", &lease, "3 0000000000000001 1 follower", "PX", "2000"],
            &["ZADD", MIRRORS, "1", &name],
            &["GET", EPOCH],
            &["TIME"],
            &["ROLE"],
        ];
        self.connection.ask(&commands).await.map(drop)
    }

    /// Follows until then.
    pub async fn follow(&mut self, until: Instant, pace: Pace) -> io::Result<Seen> {
        let mut seen = Seen::default();
        let mut beaten = Instant::now() - HEARTBEAT_EVERY;
        let mut is_abreast_since = None;
        let (wait, count) = (HEARTBEAT_EVERY.as_millis().to_string(), ENTRIES.to_string());
        while Instant::now() < until {
            let last = self.last.clone();
            let read = ["XREAD", "COUNT", &count, "BLOCK", &wait, "STREAMS", LOG, &last];
            self.connection.send(&[&read]).await?;
            let used = self.connection.reply().await?;
            let now = wall_millis();
            let ids = ids_of_entries(self.connection.unread()).unwrap_or_default();
            if let Some(since) = is_abreast_since {
                let written = ids.iter().map(|id| id.split_once('-').unwrap().0.parse().unwrap());
                let later = written.filter(|written: &f64| *written > since);
                seen.lags_ms.extend(later.map(|written| (now - written).max(0.0)));
            } else if ids.len() < ENTRIES {
                is_abreast_since = Some(now);
            }
            if let Some(id) = ids.last() {
                self.last = (*id).to_owned();
            }
            let came = !ids.is_empty();
            self.connection.skip(used);
            if !came || beaten.elapsed() >= pace.beat_every {
                self.beat().await?;
                beaten = Instant::now();
            }
            if came && !pace.pause.is_zero() {
                sleep(pace.pause).await;
            }
        }
        Ok(seen)
    }

    /// Reads the whole snapshot, as a mirror does that starts: how many revocations there are. Like
    /// a mirror it asks for the next page as soon as it knows where that begins.
    pub async fn boot(&mut self) -> io::Result<u64> {
        let mut members = 0;
        let mut size = PageSize::FIRST;
        for key in [INDEX, TOMBSTONES] {
            let mut next = Some("0".to_owned());
            let mut asked_at = Instant::now();
            while let Some(at) = next.take() {
                if at == "0" {
                    asked_at = self.scan(key, &at, size).await?;
                }
                let (cursor, count) = loop {
                    if let Some((cursor, count)) = page(self.connection.unread()) {
                        break (cursor.to_owned(), count);
                    }
                    self.connection.more().await?;
                };
                size = size.after(asked_at.elapsed());
                members += count;
                if cursor != "0" {
                    asked_at = self.scan(key, &cursor, size).await?;
                    next = Some(cursor);
                }
                let used = self.connection.reply().await?;
                self.connection.skip(used);
            }
        }
        Ok(members)
    }

    /// Asks for a page, and says when.
    async fn scan(&mut self, key: &str, cursor: &str, size: PageSize) -> io::Result<Instant> {
        let count = size.count().to_string();
        self.connection.send(&[&["ZSCAN", key, cursor, "COUNT", &count]]).await?;
        Ok(Instant::now())
    }
}

/// Where the first shard of a store with the usual prefix has its keys.
const PREFIX: &str = "jwt-revocation:{0}:";
const LOG: &str = "jwt-revocation:{0}:l";
const MIRRORS: &str = "jwt-revocation:{0}:w";
const EPOCH: &str = "jwt-revocation:{0}:e";
const INDEX: &str = "jwt-revocation:{0}:i";
const TOMBSTONES: &str = "jwt-revocation:{0}:b";
