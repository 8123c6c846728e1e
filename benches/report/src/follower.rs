//! A mirror without its memory: it asks Redis what a mirror asks, and notes how late it hears of
//! each entry.

use std::io;
use std::time::Duration;

use tokio::time::{Instant, sleep};

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
        for key in [INDEX, TOMBSTONES] {
            let scan =
                |cursor: &str| ["ZSCAN", key, cursor, "COUNT", page_size()].map(str::to_owned);
            let mut next = Some(scan("0"));
            while let Some(command) = next.take() {
                let command = command.each_ref().map(String::as_str);
                if command[2] == "0" {
                    self.connection.send(&[&command]).await?;
                }
                let (cursor, count) = loop {
                    if let Some((cursor, count)) = page(self.connection.unread()) {
                        break (cursor.to_owned(), count);
                    }
                    self.connection.more().await?;
                };
                members += count;
                if cursor != "0" {
                    let command = scan(&cursor);
                    self.connection.send(&[&command.each_ref().map(String::as_str)]).await?;
                    next = Some(command);
                }
                let used = self.connection.reply().await?;
                self.connection.skip(used);
            }
        }
        Ok(members)
    }
}

/// How many members a page of the snapshot holds: as many as the mirror asks for, which is no
/// business of its users, so that no interface tells it.
fn page_size() -> &'static str {
    let feed = include_str!("../../../src/store/redis/feed.rs");
    let after = feed.split_once("const PAGE: &str = \"").map(|(_, after)| after);
    after.and_then(|after| after.split('"').next()).expect("the feed says how long a page is")
}

/// Where the first shard of a store with the usual prefix has its keys.
const PREFIX: &str = "jwt-revocation:{0}:";
const LOG: &str = "jwt-revocation:{0}:l";
const MIRRORS: &str = "jwt-revocation:{0}:w";
const EPOCH: &str = "jwt-revocation:{0}:e";
const INDEX: &str = "jwt-revocation:{0}:i";
const TOMBSTONES: &str = "jwt-revocation:{0}:b";
