//! Revocations and sessions in SQLite, shared by all processes of one machine.
//!
//! Any database with transactions can be used in the same way. Four rules make it right:
//!
//! 1. A change is read, decided and written in one transaction that excludes other writers. What is
//!    to be written is decided by `Receipt::of`, never here.
//! 2. The end of a row frees memory and decides nothing: what is over is left out by every query,
//!    and deleted at leisure.
//! 3. What cannot be read is an error, never "not revoked".
//! 4. A call that was begun is finished, also if its future is dropped: it runs in a task of its
//!    own.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use rusqlite::{
    Connection, ErrorCode, OptionalExtension as _, Row, Transaction, TransactionBehavior, params,
};
use tower_jwt_revocation::clock::Timestamp;
use tower_jwt_revocation::revocation::{Fact, Fingerprint, Record, Revocation};
use tower_jwt_revocation::store::session::{Commit, Committed, Seen, SessionStore, Snapshot};
use tower_jwt_revocation::store::{
    Fence, Follower, ListQuery, Lookup, Receipt, RecordPage, RevocationStore, RevokedBy, Standing,
    StoreError, StoreErrorKind,
};
use tower_jwt_revocation::{Target, VerifiedToken};

use crate::feed;

/// A fact is five times and a text, so that the database can count what is in effect. The index is
/// for what is over.
const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS record (
        fingerprint    BLOB PRIMARY KEY,
        kind           TEXT NOT NULL,
        claim          TEXT,
        issuer         TEXT,
        id             TEXT NOT NULL,
        all_revoked_at INTEGER NOT NULL,
        cutoff         INTEGER NOT NULL,
        cutoff_set_at  INTEGER NOT NULL,
        reinstated_at  INTEGER NOT NULL,
        until          INTEGER NOT NULL,
        spared         TEXT NOT NULL,
        changed_at     INTEGER NOT NULL,
        reason         TEXT,
        actor          TEXT
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX IF NOT EXISTS record_until ON record (until);

    CREATE TABLE IF NOT EXISTS document (
        fingerprint BLOB PRIMARY KEY, body BLOB NOT NULL, until INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX IF NOT EXISTS document_until ON document (until);

    CREATE TABLE IF NOT EXISTS member (
        id TEXT PRIMARY KEY, until INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX IF NOT EXISTS member_until ON member (until);
";

pub(crate) const COLUMNS: &str = "fingerprint, kind, claim, issuer, id, all_revoked_at, cutoff, \
    cutoff_set_at, reinstated_at, until, spared, changed_at, reason, actor";

/// How long a call waits for other processes: the bound that every call of a store must have.
const BUSY_TIMEOUT: Duration = Duration::from_secs(2);

/// How many rows of each table one write deletes if they are over: more than it adds, and few
/// enough to be quick.
const SWEPT: u32 = 64;

/// A store in a file. Clones share one connection.
#[derive(Clone, Debug)]
pub struct SqlStore {
    connection: Arc<Mutex<Connection>>,
}

impl SqlStore {
    /// Opens the file, and makes it if it is not there.
    ///
    /// # Errors
    /// [`StoreError`] if it cannot be opened.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let connection = Connection::open(path).map_err(failed)?;
        connection.busy_timeout(BUSY_TIMEOUT).map_err(failed)?;
        // Readers do not wait for a writer. `FULL`: what was confirmed survives a power cut.
        connection.pragma_update(None, "journal_mode", "WAL").map_err(failed)?;
        connection.pragma_update(None, "synchronous", "FULL").map_err(failed)?;
        connection.execute_batch(SCHEMA).map_err(failed)?;
        connection.execute_batch(feed::SCHEMA).map_err(failed)?;
        Ok(Self { connection: Arc::new(Mutex::new(connection)) })
    }

    /// Runs `work` in a transaction, on a thread that may block. It is begun at once and finished
    /// whether or not the future is awaited, and nothing of it is written if it fails.
    fn run<T: Send + 'static>(
        &self,
        behavior: TransactionBehavior,
        work: impl FnOnce(&Transaction<'_>, Timestamp) -> Result<T, StoreError> + Send + 'static,
    ) -> BoxFuture<'static, Result<T, StoreError>> {
        let connection = Arc::clone(&self.connection);
        let task = tokio::task::spawn_blocking(move || {
            // A panic rolls the transaction back, so a poisoned lock is as good as any.
            let mut connection = connection.lock().unwrap_or_else(PoisonError::into_inner);
            let transaction = connection.transaction_with_behavior(behavior).map_err(failed)?;
            // Read when the lock is held: of two writes the later one has the later time.
            let done = work(&transaction, Timestamp::now())?;
            transaction.commit().map_err(failed)?;
            Ok(done)
        });
        let panicked = |error| StoreError::new(StoreErrorKind::Other, "sqlite").with_source(error);
        async move { task.await.map_err(panicked)? }.boxed()
    }

    pub(crate) fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Transaction<'_>, Timestamp) -> Result<T, StoreError> + Send + 'static,
    ) -> BoxFuture<'static, Result<T, StoreError>> {
        self.run(TransactionBehavior::Deferred, work)
    }

    /// `Immediate`: the lock for writing is taken before anything is read, so that no one writes
    /// between the reading and the writing of a change.
    pub(crate) fn update<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Transaction<'_>, Timestamp) -> Result<T, StoreError> + Send + 'static,
    ) -> BoxFuture<'static, Result<T, StoreError>> {
        self.run(TransactionBehavior::Immediate, work)
    }
}

impl RevocationStore for SqlStore {
    fn check(&self, token: &Arc<VerifiedToken>) -> Lookup {
        let token = Arc::clone(token);
        Lookup::Later(self.read(move |db, now| {
            // One record that covers it decides, also if another cannot be read.
            let mut failure = None;
            for target in token.targets() {
                match record(db, target.fingerprint(), now) {
                    Ok(Some(record)) if record.covers(&token) => {
                        return Ok(Standing::Revoked(RevokedBy::from(&record)));
                    }
                    Ok(_) => {}
                    Err(error) => failure = Some(error),
                }
            }
            failure.map_or(Ok(Standing::Live), Err)
        }))
    }

    fn write(
        &self,
        changes: Vec<Revocation>,
    ) -> BoxFuture<'static, Result<Vec<Receipt>, StoreError>> {
        self.update(move |db, now| {
            let mut receipts = Vec::with_capacity(changes.len());
            for revocation in &changes {
                let fingerprint = revocation.target.fingerprint();
                let before = record(db, &fingerprint, now)?;
                let (receipt, record) = Receipt::of(revocation, before.as_ref(), now);
                receipts.push(receipt);
                if let Some(record) = &record {
                    put_record(db, &fingerprint, record)?;
                    feed::append(db, &fingerprint)?;
                }
            }
            sweep(db, "record", "fingerprint", now)?;
            // Of all changes the last: who has that one has them all.
            let fence = Some(feed::position(db)?);
            Ok(receipts.into_iter().map(|receipt| receipt.with_fence(fence)).collect())
        })
    }

    fn find(&self, target: &Target) -> BoxFuture<'static, Result<Option<Record>, StoreError>> {
        let fingerprint = target.fingerprint();
        self.read(move |db, now| record(db, &fingerprint, now))
    }

    fn list(&self, query: ListQuery) -> BoxFuture<'static, Result<RecordPage, StoreError>> {
        self.read(move |db, now| {
            // By fingerprint, and from the last one on that was looked at: what is there from the
            // first page to the last is met, whatever is written meanwhile.
            let after = query.cursor.as_deref().map(read_cursor).transpose()?;
            let mut statement = db
                .prepare_cached(&format!(
                    "SELECT {COLUMNS} FROM record WHERE (?1 IS NULL OR fingerprint > ?1) \
                     AND until > ?2 ORDER BY fingerprint LIMIT ?3"
                ))
                .map_err(failed)?;
            let after = after.as_ref().map(|after| &after.as_bytes()[..]);
            // One more than asked for tells whether there is another page.
            let size = query.page_size();
            let rows = statement
                .query_map(params![after, millis(now), size + 1], |row| {
                    Ok(read_fingerprint(row).and_then(|key| Ok((key, read_record(row)?))))
                })
                .map_err(failed)?;
            let mut records = Vec::with_capacity(size);
            let mut last = None;
            let mut has_more = false;
            for row in rows {
                let (key, record) = row.map_err(failed)??;
                has_more = records.len() == size;
                if !has_more {
                    last = Some(key);
                    records.push(record);
                }
            }
            let next = last.filter(|_| has_more).map(|last| last.to_string().into_boxed_str());
            records.retain(|record| record.is_in_effect() && query.admits(record));
            Ok(RecordPage::new(records, next))
        })
    }

    fn count(&self) -> BoxFuture<'static, Result<u64, StoreError>> {
        self.read(|db, now| {
            // As `Fact::is_in_effect` says it.
            let in_effect = "SELECT count(*) FROM record WHERE until > ?1 AND ( \
                all_revoked_at > 0 AND all_revoked_at >= reinstated_at \
                OR cutoff_set_at > 0 AND cutoff_set_at >= reinstated_at)";
            db.query_row(in_effect, [millis(now)], |row| row.get(0)).map_err(failed)
        })
    }

    fn erase_names(&self, targets: Vec<Target>) -> BoxFuture<'static, Result<(), StoreError>> {
        self.update(move |db, now| {
            for target in &targets {
                let fingerprint = target.fingerprint();
                if let Some(known) = record(db, &fingerprint, now)? {
                    let nameless = Target::nameless(&fingerprint);
                    let nameless = Record::new(nameless, known.fact(), known.changed_at())?;
                    put_record(db, &fingerprint, &nameless)?;
                }
            }
            Ok(())
        })
    }

    fn followers(&self, fence: Fence) -> BoxFuture<'static, Result<Vec<Follower>, StoreError>> {
        self.read(move |db, now| feed::followers(db, fence, millis(now)))
    }
}

impl SessionStore for SqlStore {
    fn load(
        &self,
        documents: Vec<Target>,
        records: Vec<Target>,
    ) -> BoxFuture<'static, Result<Snapshot, StoreError>> {
        self.read(move |db, now| {
            let documents = documents
                .iter()
                .map(|key| document(db, &key.fingerprint(), now))
                .collect::<Result<_, _>>()?;
            let records = records
                .into_iter()
                .map(|target| {
                    let record = record(db, &target.fingerprint(), now)?;
                    let stamp = record.as_ref().map(stamp);
                    Ok(Seen::new(target, record, stamp))
                })
                .collect::<Result<_, StoreError>>()?;
            Ok(Snapshot::new(now, documents, records))
        })
    }

    fn commit(&self, commit: Commit) -> BoxFuture<'static, Result<Committed, StoreError>> {
        self.update(move |db, now| {
            let key = commit.key.fingerprint();
            let current = document(db, &key, now)?;
            if current != commit.before {
                // A commit of unknown fate that is repeated was done the first time.
                let is_done = current == commit.after;
                return Ok(if is_done { Committed::Done } else { Committed::Conflict });
            }
            for guard in &commit.guards {
                let record = record(db, &guard.target.fingerprint(), now)?;
                if record.as_ref().map(stamp) != guard.stamp {
                    return Ok(Committed::Conflict);
                }
            }
            match &commit.after {
                Some(after) => execute(
                    db,
                    "INSERT OR REPLACE INTO document (fingerprint, body, until) VALUES (?, ?, ?)",
                    params![&key.as_bytes()[..], &after[..], millis(commit.until)],
                )?,
                None => execute(
                    db,
                    "DELETE FROM document WHERE fingerprint = ?",
                    [&key.as_bytes()[..]],
                )?,
            }
            for (member, until) in &commit.members {
                match until {
                    Some(until) => execute(
                        db,
                        "INSERT OR REPLACE INTO member (id, until) VALUES (?, ?)",
                        params![member, millis(*until)],
                    )?,
                    None => execute(db, "DELETE FROM member WHERE id = ?", [member])?,
                }
            }
            sweep(db, "document", "fingerprint", now)?;
            sweep(db, "member", "id", now)?;
            Ok(Committed::Done)
        })
    }

    fn count_members(&self) -> BoxFuture<'static, Result<u64, StoreError>> {
        self.read(|db, now| {
            let counted = "SELECT count(*) FROM member WHERE until > ?";
            db.query_row(counted, [millis(now)], |row| row.get(0)).map_err(failed)
        })
    }
}

// === Rows ===

pub(crate) fn record(
    db: &Connection,
    fingerprint: &Fingerprint,
    now: Timestamp,
) -> Result<Option<Record>, StoreError> {
    let query = format!("SELECT {COLUMNS} FROM record WHERE fingerprint = ?1 AND until > ?2");
    let mut statement = db.prepare_cached(&query).map_err(failed)?;
    statement
        .query_row(params![&fingerprint.as_bytes()[..], millis(now)], |row| Ok(read_record(row)))
        .optional()
        .map_err(failed)?
        .transpose()
}

pub(crate) fn read_fingerprint(row: &Row<'_>) -> Result<Fingerprint, StoreError> {
    row.get("fingerprint").map(Fingerprint::from_bytes).map_err(failed)
}

/// Whatever this program would not have written is an error: to take it for "nothing is revoked"
/// would let revoked tokens in.
pub(crate) fn read_record(row: &Row<'_>) -> Result<Record, StoreError> {
    let text = |column: &str| row.get::<_, Option<String>>(column).map_err(failed);
    let time = |column: &str| {
        let millis: i64 = row.get(column).map_err(failed)?;
        u64::try_from(millis).map(Timestamp::from_millis).map_err(|_| unreadable("a negative time"))
    };
    let kind: String = row.get("kind").map_err(failed)?;
    let id: String = row.get("id").map_err(failed)?;
    let (claim, issuer) = (text("claim")?, text("issuer")?);
    let target = Target::from_parts(kind.parse()?, claim.as_deref(), issuer.as_deref(), id)?;
    let fingerprint = read_fingerprint(row)?;
    // One that a mirror has replayed has no name.
    if target.fingerprint() != fingerprint && target != Target::nameless(&fingerprint) {
        return Err(unreadable("a record under the fingerprint of another target"));
    }
    let fact = Fact {
        all_revoked_at: time("all_revoked_at")?,
        cutoff: time("cutoff")?,
        cutoff_set_at: time("cutoff_set_at")?,
        reinstated_at: time("reinstated_at")?,
        until: time("until")?,
        spared: row.get::<_, String>("spared").map_err(failed)?.parse()?,
    };
    let record = Record::new(target, fact, time("changed_at")?)?;
    Ok(record
        .with_reason(text("reason")?.map(Into::into))
        .with_actor(text("actor")?.map(Into::into)))
}

pub(crate) fn put_record(
    db: &Connection,
    fingerprint: &Fingerprint,
    record: &Record,
) -> Result<(), StoreError> {
    let (target, fact) = (record.target(), record.fact());
    execute(
        db,
        &format!(
            "INSERT OR REPLACE INTO record ({COLUMNS})
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
        ),
        params![
            &fingerprint.as_bytes()[..],
            target.kind().as_str(),
            target.claim_name(),
            target.issuer_name(),
            target.id(),
            millis(fact.all_revoked_at),
            millis(fact.cutoff),
            millis(fact.cutoff_set_at),
            millis(fact.reinstated_at),
            millis(fact.until),
            fact.spared.to_string(),
            millis(record.changed_at()),
            record.reason().map(|reason| &**reason),
            record.actor().map(|actor| &**actor),
        ],
    )
}

fn document(
    db: &Connection,
    fingerprint: &Fingerprint,
    now: Timestamp,
) -> Result<Option<Bytes>, StoreError> {
    let query = "SELECT body FROM document WHERE fingerprint = ?1 AND until > ?2";
    let mut statement = db.prepare_cached(query).map_err(failed)?;
    let parameters = params![&fingerprint.as_bytes()[..], millis(now)];
    let body = statement.query_row(parameters, |row| row.get::<_, Vec<u8>>(0)).optional();
    Ok(body.map_err(failed)?.map(Bytes::from))
}

/// Differs whenever anything differs that decides.
fn stamp(record: &Record) -> Bytes {
    format!("{:?}", record.fact()).into()
}

pub(crate) fn sweep(
    db: &Connection,
    table: &str,
    key: &str,
    now: Timestamp,
) -> Result<(), StoreError> {
    let over = format!(
        "DELETE FROM {table}
         WHERE {key} IN (SELECT {key} FROM {table} WHERE until <= ?1 LIMIT {SWEPT})"
    );
    execute(db, &over, [millis(now)])
}

pub(crate) fn execute(
    db: &Connection,
    statement: &str,
    parameters: impl rusqlite::Params,
) -> Result<(), StoreError> {
    let mut statement = db.prepare_cached(statement).map_err(failed)?;
    statement.execute(parameters).map(drop).map_err(failed)
}

/// SQLite has no numbers above this, nor is there a time after it.
pub(crate) fn millis(time: Timestamp) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

/// A cursor is the last fingerprint that was looked at. It may be any text that a client has sent.
fn read_cursor(cursor: &str) -> Result<Fingerprint, StoreError> {
    let bits = u128::from_str_radix(cursor, 16).ok();
    let bits = bits.filter(|bits| format!("{bits:032x}") == cursor);
    bits.map(|bits| Fingerprint::from_bytes(bits.to_be_bytes())).ok_or_else(|| {
        StoreError::new(StoreErrorKind::InvalidInput, "the cursor was not given out by this store")
    })
}

// === Errors ===

fn unreadable(what: &'static str) -> StoreError {
    StoreError::new(StoreErrorKind::Protocol, what)
}

/// The kind is what the policy, the metrics and the one who is on call go by.
pub(crate) fn failed(error: rusqlite::Error) -> StoreError {
    let kind = match &error {
        rusqlite::Error::SqliteFailure(failure, _) => match failure.code {
            ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => StoreErrorKind::Timeout,
            ErrorCode::CannotOpen | ErrorCode::SystemIoFailure => StoreErrorKind::Unreachable,
            ErrorCode::DiskFull => StoreErrorKind::Full,
            ErrorCode::PermissionDenied | ErrorCode::ReadOnly => StoreErrorKind::Denied,
            ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase => StoreErrorKind::Protocol,
            _ => StoreErrorKind::Other,
        },
        rusqlite::Error::InvalidColumnType(..)
        | rusqlite::Error::FromSqlConversionFailure(..)
        | rusqlite::Error::IntegralValueOutOfRange(..) => StoreErrorKind::Protocol,
        _ => StoreErrorKind::Other,
    };
    StoreError::new(kind, "sqlite").with_source(error)
}
