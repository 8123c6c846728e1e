//! `watch`: follows what is revoked and reinstated, by anyone.

use std::time::Duration;

use serde_json::Map;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::sleep;
use tower_jwt_revocation::RedisStore;
use tower_jwt_revocation::clock::Timestamp;
use tower_jwt_revocation::revocation::{Fact, Record};
use tower_jwt_revocation::store::StoreError;
use tower_jwt_revocation::store::feed::{Feed, FeedSource, LogEntry, Progress};

use crate::args::Common;
use crate::failure::{Failure, Status, with_causes};
use crate::open;
use crate::output::{self, Output, complain, escaped, record_document, shown_record};
use crate::time::shown;

/// How long the log is waited for before the server is looked at again.
const WAIT: Duration = Duration::from_millis(500);
/// How long to wait before a connection is tried again.
const PAUSE: Duration = Duration::from_millis(250);
/// How many changes may wait to be printed.
const QUEUE: usize = 1024;

/// What a shard has to say.
enum Message {
    Change(Box<Change>),
    /// Its log can be read from now on, again or for the first time.
    Reading,
    /// It cannot be read at the moment.
    Away(StoreError),
    /// Some changes may be missing.
    Gap,
}

struct Change {
    entry: LogEntry,
    /// None, if it is over or could not be read.
    record: Option<Record>,
}

pub(super) async fn watch(common: &Common, output: Output) -> Result<Status, Failure> {
    let mut term = signal(SignalKind::terminate()).map_err(|error| Failure::of_file(&error))?;
    let mut interrupt =
        signal(SignalKind::interrupt()).map_err(|error| Failure::of_file(&error))?;
    tokio::select! {
        result = follow(common, output) => result,
        _ = term.recv() => Ok(Status::Done),
        _ = interrupt.recv() => Ok(Status::Done),
    }
}

async fn follow(common: &Common, output: Output) -> Result<Status, Failure> {
    let store = open::store(common).await?;
    let (sender, mut messages) = mpsc::channel(QUEUE);
    let feeds = store.feeds()?;
    let mut awaited = feeds.len();
    for feed in feeds {
        tokio::spawn(follow_shard(store.clone(), feed, sender.clone()));
    }
    drop(sender);
    let mut is_away = false;
    while let Some(message) = messages.recv().await {
        match message {
            Message::Change(change) => print(output, &change)?,
            Message::Reading if is_away => {
                is_away = false;
                complain("the store is there again");
            }
            Message::Reading => {
                awaited = awaited.saturating_sub(1);
                if awaited == 0 {
                    complain("watching; what is revoked from now on is shown");
                }
            }
            Message::Away(error) if !is_away => {
                is_away = true;
                let error = escaped(&with_causes(&error));
                complain(&format!("the store is away, trying again: {error}"));
            }
            Message::Away(_) => {}
            Message::Gap => complain("the log has lost entries: some changes may not be shown"),
        }
    }
    Ok(Status::Done)
}

/// Until nobody listens any more.
async fn follow_shard<F: Feed>(store: RedisStore, mut feed: F, to: mpsc::Sender<Message>) {
    let mut position = Position::default();
    while !to.is_closed() {
        let Err(error) = read(&store, &mut feed, &mut position, &to).await else { return };
        if to.send(Message::Away(error)).await.is_err() {
            return;
        }
        sleep(PAUSE).await;
    }
}

/// How far a log was read.
#[derive(Default)]
struct Position {
    after: Option<u128>,
    /// Epoch and number of the last entry.
    last: Option<(u64, u64)>,
}

/// Reads until the connection fails, or nobody listens any more.
async fn read<F: Feed>(
    store: &RedisStore,
    feed: &mut F,
    position: &mut Position,
    to: &mpsc::Sender<Message>,
) -> Result<(), StoreError> {
    feed.connect().await?;
    feed.heartbeat(Progress::of_reader()).await?;
    let tail = feed.tail().await?;
    let mut after = match position.after {
        // A server that has lost the end of the log, and dates what it writes from there on.
        Some(after) if tail < after => {
            if to.send(Message::Gap).await.is_err() {
                return Ok(());
            }
            tail
        }
        Some(after) => after,
        None => tail,
    };
    position.after = Some(after);
    if to.send(Message::Reading).await.is_err() {
        return Ok(());
    }
    loop {
        let entries = feed.read(after, WAIT).await?;
        for entry in entries {
            if position.misses_before(&entry) && to.send(Message::Gap).await.is_err() {
                return Ok(());
            }
            // A change of no target, such as the end of a doubt.
            if entry.fact != Fact::default() {
                // Tried again with the next connection if it cannot be read now.
                let record = store.find_by_fingerprint(&entry.fingerprint).await?;
                if to.send(Message::Change(Box::new(Change { entry, record }))).await.is_err() {
                    return Ok(());
                }
            }
            after = entry.id;
            (position.after, position.last) = (Some(after), Some((entry.epoch, entry.seq)));
        }
        // Whether this is still the primary, which reading does not show.
        feed.heartbeat(Progress::of_reader()).await?;
    }
}

impl Position {
    fn misses_before(&self, entry: &LogEntry) -> bool {
        self.last.is_some_and(|(epoch, seq)| epoch == entry.epoch && entry.seq > seq + 1)
    }
}

fn print(output: Output, change: &Change) -> Result<(), Failure> {
    let fact = change.entry.fact;
    let event = if fact.is_in_effect() { "revoked" } else { "reinstated" };
    if !output.json {
        let text = match &change.record {
            Some(record) => shown_record(record),
            None => format!("a target that is over already: {event}"),
        };
        return output::text(&format!("{} {event}: {text}", shown(changed_at(fact))));
    }
    let mut document = Map::new();
    document.insert("event".into(), event.into());
    if let Some(record) = &change.record {
        document.extend(record_document(record));
    } else {
        let fingerprint = change.entry.fingerprint.to_string();
        document.insert("fingerprint".into(), fingerprint.into());
    }
    document.insert("at".into(), changed_at(fact).as_millis().into());
    output::document(&document.into())
}

fn changed_at(fact: Fact) -> Timestamp {
    fact.all_revoked_at.max(fact.cutoff_set_at).max(fact.reinstated_at)
}
