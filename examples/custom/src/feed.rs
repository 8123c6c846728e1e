//! The feed of the store, so that it can be mirrored: a log of numbered changes, and the mirrors
//! with their leases, in the same database.
//!
//! 1. A change gets its number in the transaction that writes it, so no number is missing or seen
//!    without its change.
//! 2. A heartbeat notes the mirror and reads the state in one transaction. So a write that is not
//!    in the state comes later, and finds the mirror.
//! 3. The log names the targets only, and is read together with the records: facts only grow, so
//!    what is known of a target now includes what was known after the change.
//!
//! A file keeps what was confirmed, so the epoch never changes and no token is ever in doubt. A
//! store that can lose data, or is put back from older backups, has to begin another epoch then,
//! and to report a `Doubt` in heartbeats and as an error of `check`.

use std::hash::{BuildHasher as _, RandomState};
use std::time::Duration;

use rusqlite::{Connection, params};
use tokio::time::{Instant, sleep};
use tower_jwt_revocation::revocation::{Fact, Fingerprint, Record};
use tower_jwt_revocation::store::feed::{
    EndDoubt, Feed, FeedSource, Heartbeat, LogEntry, Progress, SnapshotPage,
};
use tower_jwt_revocation::store::{Doubt, Fence, Follower, StoreError, StoreErrorKind};
use tower_jwt_revocation::{ConfigError, Target};

use crate::store::{
    COLUMNS, SqlStore, execute, failed, millis, put_record, read_fingerprint, read_record, record,
    sweep,
};

/// The epoch is random, so that a fence of another file is noticed, and never zero.
pub(crate) const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS epoch (
        row INTEGER PRIMARY KEY CHECK (row = 1), id INTEGER NOT NULL
    ) STRICT;
    INSERT OR IGNORE INTO epoch (row, id) VALUES (1, (random() & 0x7fffffffffffffff) | 1);

    CREATE TABLE IF NOT EXISTS log (seq INTEGER PRIMARY KEY, fingerprint BLOB NOT NULL) STRICT;

    CREATE TABLE IF NOT EXISTS mirror (
        id    INTEGER PRIMARY KEY,
        name  TEXT NOT NULL,
        epoch INTEGER NOT NULL,
        seq   INTEGER NOT NULL,
        until INTEGER NOT NULL
    ) STRICT;
    CREATE INDEX IF NOT EXISTS mirror_until ON mirror (until);
";

/// Entries that are kept. A mirror that is further behind takes a new snapshot.
const LOG_LENGTH: u64 = 16_384;
/// Entries that are read at once.
const ENTRIES: u64 = 1000;
/// Facts on one page of a snapshot.
const PAGE: usize = 1000;
/// How often the log is looked at: SQLite does not say that another process has written.
const POLL: Duration = Duration::from_millis(20);

/// Numbers a change, in the transaction that writes it. The last entry is never trimmed, since the
/// next number follows from it.
pub(crate) fn append(db: &Connection, fingerprint: &Fingerprint) -> Result<(), StoreError> {
    let seq = seq(db)? + 1;
    let fingerprint = &fingerprint.as_bytes()[..];
    execute(db, "INSERT INTO log (seq, fingerprint) VALUES (?, ?)", params![seq, fingerprint])?;
    execute(db, "DELETE FROM log WHERE seq <= ?", [seq.saturating_sub(LOG_LENGTH)])
}

/// The position of the latest change: the fence of a write that is in this transaction.
pub(crate) fn position(db: &Connection) -> Result<Fence, StoreError> {
    Ok(Fence::new(0, epoch(db)?, seq(db)?))
}

/// The mirrors whose leases last, for `RevocationStore::followers`.
pub(crate) fn followers(
    db: &Connection,
    fence: Fence,
    now: i64,
) -> Result<Vec<Follower>, StoreError> {
    let present = position(db)?;
    if (fence.shard, fence.epoch) != (0, present.epoch) || fence.seq > present.seq {
        return Err(StoreError::new(StoreErrorKind::DataLoss, "the fence is not of this file"));
    }
    let query = "SELECT name, epoch = ?1 AND seq >= ?2 FROM mirror WHERE until > ?3";
    let mut statement = db.prepare_cached(query).map_err(failed)?;
    let rows = statement.query_map(params![fence.epoch, fence.seq, now], |row| {
        Ok(Follower::new(row.get::<_, String>(0)?, row.get(1)?))
    });
    rows.map_err(failed)?.collect::<Result<_, _>>().map_err(failed)
}

fn epoch(db: &Connection) -> Result<u64, StoreError> {
    db.query_row("SELECT id FROM epoch", [], |row| row.get(0)).map_err(failed)
}

fn seq(db: &Connection) -> Result<u64, StoreError> {
    db.query_row("SELECT coalesce(max(seq), 0) FROM log", [], |row| row.get(0)).map_err(failed)
}

/// The file as one mirror reads it.
#[derive(Debug)]
pub struct SqlFeed {
    store: SqlStore,
    /// Under which the mirror is noted: random, since other processes have mirrors too.
    id: u64,
}

impl FeedSource for SqlStore {
    type Feed = SqlFeed;

    /// Never fails. There is one shard.
    fn feeds(&self) -> Result<Vec<SqlFeed>, ConfigError> {
        // SQLite has no numbers of 64 bits without a sign.
        let id = RandomState::new().hash_one(()) >> 1;
        Ok(vec![SqlFeed { store: self.clone(), id }])
    }
}

impl Feed for SqlFeed {
    async fn connect(&mut self) -> Result<(), StoreError> {
        // Each call has a transaction of its own, so there is nothing to begin anew.
        Ok(())
    }

    async fn heartbeat(&mut self, progress: Progress) -> Result<Heartbeat, StoreError> {
        let id = self.id;
        let update = self.store.update(move |db, now| {
            if progress.epoch != 0 {
                let Progress { name, epoch, seq, lease, .. } = progress;
                sweep(db, "mirror", "id", now)?;
                execute(
                    db,
                    "INSERT OR REPLACE INTO mirror (id, name, epoch, seq, until) \
                     VALUES (?, ?, ?, ?, ?)",
                    params![id, &*name, epoch, seq, millis(now.saturating_add(lease))],
                )?;
            }
            let Fence { epoch, seq, .. } = position(db)?;
            Ok(Heartbeat::new(epoch, seq, now, Doubt::None))
        });
        update.await
    }

    async fn tail(&mut self) -> Result<u128, StoreError> {
        self.store.read(|db, _| Ok(u128::from(seq(db)?))).await
    }

    async fn count(&mut self) -> Result<u64, StoreError> {
        let query = "SELECT count(*) FROM record";
        self.store.read(|db, _| db.query_row(query, [], |row| row.get(0)).map_err(failed)).await
    }

    async fn snapshot(&mut self, cursor: Option<u64>) -> Result<SnapshotPage, StoreError> {
        // By fingerprint, of which the cursor is the first half: the next page begins with the last
        // fact of this one.
        let first = cursor.unwrap_or(0).to_be_bytes();
        let query = format!(
            "SELECT {COLUMNS} FROM record WHERE fingerprint >= ?1 AND until > ?2 \
             ORDER BY fingerprint LIMIT {PAGE}"
        );
        let read = self.store.read(move |db, now| {
            let mut statement = db.prepare_cached(&query).map_err(failed)?;
            let mut rows = statement.query(params![&first[..], millis(now)]).map_err(failed)?;
            let mut facts = Vec::with_capacity(PAGE);
            while let Some(row) = rows.next().map_err(failed)? {
                facts.push((read_fingerprint(row)?, read_record(row)?.fact()));
            }
            let last = facts.last().filter(|_| facts.len() == PAGE);
            let next = last.and_then(|(last, _)| last.as_bytes().first_chunk());
            Ok(SnapshotPage { next: next.map(|half| u64::from_be_bytes(*half)), facts })
        });
        read.await
    }

    async fn find(
        &mut self,
        fingerprints: &[Fingerprint],
    ) -> Result<Vec<Option<Fact>>, StoreError> {
        let fingerprints = fingerprints.to_vec();
        let read = self.store.read(move |db, now| {
            let fact = |fingerprint| Ok(record(db, fingerprint, now)?.map(|record| record.fact()));
            fingerprints.iter().map(fact).collect()
        });
        read.await
    }

    async fn read(&mut self, after: u128, wait: Duration) -> Result<Vec<LogEntry>, StoreError> {
        let deadline = Instant::now() + wait;
        // The numbers of SQLite have 63 bits without a sign.
        let after = u64::try_from(after).unwrap_or(u64::MAX).min(i64::MAX.unsigned_abs());
        loop {
            let entries = self.store.read(move |db, now| entries(db, after, millis(now))).await?;
            let left = deadline.saturating_duration_since(Instant::now());
            if !entries.is_empty() || left.is_zero() {
                return Ok(entries);
            }
            sleep(left.min(POLL)).await;
        }
    }

    async fn replay(&mut self, facts: &[(Fingerprint, Fact)]) -> Result<(), StoreError> {
        let facts = facts.to_vec();
        let update = self.store.update(move |db, now| {
            for (fingerprint, fact) in facts.iter().filter(|(_, fact)| fact.until > now) {
                let joined = match record(db, fingerprint, now)? {
                    Some(mut known) => {
                        let target = known.target().clone();
                        let replayed = Record::new(target, *fact, known.changed_at())?;
                        known.merge(&replayed).then_some(known)
                    }
                    None => Some(Record::new(Target::nameless(fingerprint), *fact, now)?),
                };
                if let Some(record) = joined {
                    put_record(db, fingerprint, &record)?;
                    append(db, fingerprint)?;
                }
            }
            Ok(())
        });
        update.await
    }

    async fn end_doubt(&mut self, _: EndDoubt) -> Result<bool, StoreError> {
        // There is none.
        Ok(true)
    }

    fn owns(&self, _: &Fingerprint) -> bool {
        true
    }

    async fn leave(&mut self) {
        let id = self.id;
        let left =
            self.store.update(move |db, _| execute(db, "DELETE FROM mirror WHERE id = ?", [id]));
        // If it fails, the lease ends by itself.
        left.await.ok();
    }
}

fn entries(db: &Connection, after: u64, now: i64) -> Result<Vec<LogEntry>, StoreError> {
    let epoch = epoch(db)?;
    // A record that is over says nothing of its target any more; its entry keeps the number.
    let query = format!(
        "SELECT seq, log.fingerprint AS changed, record.* FROM log \
         LEFT JOIN record ON record.fingerprint = log.fingerprint AND until > ?2 \
         WHERE seq > ?1 ORDER BY seq LIMIT {ENTRIES}"
    );
    let mut statement = db.prepare_cached(&query).map_err(failed)?;
    let mut rows = statement.query(params![after, now]).map_err(failed)?;
    let mut entries = Vec::new();
    while let Some(row) = rows.next().map_err(failed)? {
        let seq: u64 = row.get("seq").map_err(failed)?;
        let fingerprint = Fingerprint::from_bytes(row.get("changed").map_err(failed)?);
        let until: Option<i64> = row.get("until").map_err(failed)?;
        let fact = match until {
            Some(_) => read_record(row)?.fact(),
            None => Fact::default(),
        };
        entries.push(LogEntry { id: u128::from(seq), epoch, seq, fingerprint, fact });
    }
    Ok(entries)
}
