//! [`Import`]: copies what another program has revoked into records of our own.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::foreign::{ForeignList, ListScan, ListedEntry, ListedId, ScanPosition};
use super::store::RedisStore;
use crate::clock::{Clock as _, SystemClock};
use crate::config::ConfigError;
use crate::revocation::{
    Action, Extent, Outcome, Revocation, RevocationOrigin, Target, TargetKind,
};
use crate::store::{RevocationWriter, StoreError, StoreErrorKind};
use crate::token::{CrateOnly, TokenProfile, TokenVerifier};

/// Default of [`Import::with_pace`].
pub(crate) const DEFAULT_IMPORT_PACE: u32 = 5000;

fn target(kind: TargetKind, id: &str, issuer: Option<&str>) -> Target {
    let target = Target::new(kind, id);
    match issuer {
        Some(issuer) => target.issued_by(issuer),
        None => target,
    }
}

/// An import of a foreign list: it writes a record of our own for each entry.
///
/// ```no_run
/// # use tower_jwt_revocation::store::redis::foreign::ForeignList;
/// # use tower_jwt_revocation::{RedisStore, Revoker};
/// # async fn f(revoker: Revoker, store: RedisStore) -> Result<(), Box<dyn std::error::Error>> {
/// use tower_jwt_revocation::store::redis::Import;
///
/// let mut import = Import::new(revoker, &store, &ForeignList::blacklisted_jti_json())?;
/// let report = import.run().await?; // after an error, call it again: it goes on where it was
/// println!("{report:?}");
/// # Ok(()) }
/// ```
///
/// Each entry becomes a record that is kept as long as the entry and the leeway of a verifier;
/// without an expiry, as long as an accepted token can be valid. An import may be repeated, stopped
/// and continued: records that exist are not written again. Entries that come or go meanwhile may
/// be missed, so first stop the writes of the other program, or write to both.
#[must_use = "nothing is read until `run` is called"]
pub struct Import {
    writer: Arc<dyn RevocationWriter>,
    scan: ListScan,
    verifier: Option<Arc<dyn TokenVerifier>>,
    pace: u32,
    at: Option<ScanPosition>,
    report: ImportReport,
}

/// What became of the entries of a list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ImportReport {
    /// Entries that were revoked by us now.
    pub imported: u64,
    /// Entries that were revoked by us already.
    pub known: u64,
    /// Entries that mean live, or have expired.
    pub live: u64,
    /// Entries that cannot be understood: an unknown value or type, a token that is not accepted,
    /// an id that is too long. Look at them: the list refuses some of their tokens, our records
    /// none.
    pub unreadable: u64,
}

impl Import {
    /// An import of a [foreign list](super::foreign) that is in `store`. `revoker`, a
    /// [`Revoker`](crate::Revoker), writes the records.
    ///
    /// # Errors
    /// [`ConfigError`] if the entries do not tell what is revoked: a list by hashes, with several
    /// placeholders, or of anything but tokens, sessions and families. Also if there are several
    /// issuers and the list does not [name one](ForeignList::with_issuer).
    pub fn new(
        revoker: impl RevocationWriter,
        store: &RedisStore,
        list: &ForeignList,
    ) -> Result<Self, ConfigError> {
        let scan = ListScan::new(Arc::clone(&store.core), store.foreign.clone(), list)?;
        let list = scan.list();
        let oops = |problem: String| {
            ConfigError::new("foreign_list", format!("`{}` {problem}", list.name))
        };
        if !matches!(list.kind, TargetKind::Token | TargetKind::Session | TargetKind::Family) {
            return Err(oops(format!(
                "is of the kind {}: its entries end, and our records of that kind say until when \
                 tokens were issued; keep the list until it is empty",
                list.kind
            )));
        }
        let trial = target(list.kind, "any", list.issuer.as_deref());
        revoker.prepare(trial).map_err(|error| oops(format!("cannot be taken over: {error}")))?;
        Ok(Self {
            writer: Arc::new(revoker),
            scan,
            verifier: None,
            pace: DEFAULT_IMPORT_PACE,
            at: None,
            report: ImportReport::default(),
        })
    }

    /// About how many keys to read per second; default 5000, because Redis also has to answer
    /// requests.
    pub fn with_pace(mut self, keys_per_second: u32) -> Self {
        self.pace = keys_per_second.max(1);
        self
    }

    /// The verifier for the tokens of a list by `{token}`, which tells their ids. Default: none;
    /// then such a list cannot be imported.
    pub fn with_verifier(mut self, verifier: impl TokenVerifier) -> Self {
        self.verifier = Some(Arc::new(verifier));
        self
    }

    /// Continues where another import, also one of another process, was when it returned
    /// [`cursor`](Self::cursor).
    ///
    /// # Errors
    /// [`ConfigError`] if the cursor is not one of an import of this list.
    pub fn with_cursor(mut self, cursor: &str) -> Result<Self, ConfigError> {
        let at = self.scan.position(cursor);
        self.at = Some(at.map_err(|problem| ConfigError::new("cursor", problem))?);
        Ok(self)
    }

    /// The position of the import, for [`with_cursor`](Self::with_cursor). `None` at the beginning
    /// and at the end.
    pub fn cursor(&self) -> Option<Box<str>> {
        self.at.as_ref().map(|at| self.scan.print(at))
    }

    /// What has become of the entries so far. An entry that a scan returns twice is counted twice.
    pub fn report(&self) -> ImportReport {
        self.report
    }

    /// Imports all entries. After an error, or if its future was dropped, call it again: it goes on
    /// where it was.
    ///
    /// # Errors
    /// [`StoreError`] if Redis cannot be asked, or a record was not confirmed.
    pub async fn run(&mut self) -> Result<ImportReport, StoreError> {
        while self.step().await? {}
        Ok(self.report)
    }

    /// Imports one page, no faster than the pace allows, so that you can save the
    /// [`cursor`](Self::cursor) after each. Returns whether there is more.
    ///
    /// # Errors
    /// As [`run`](Self::run). The page is read again then.
    pub async fn step(&mut self) -> Result<bool, StoreError> {
        let began = Instant::now();
        let page = self.scan.page(self.at.as_ref()).await?;
        let looked_at = u32::try_from(page.found.len()).unwrap_or(u32::MAX).max(ListScan::PAGE);
        let mut report = self.report;
        report.live += page.live;
        report.unreadable += page.odd;
        let mut changes = Vec::with_capacity(page.found.len());
        for found in page.found {
            match self.change(found)? {
                Some(change) => changes.push(change),
                None => report.unreadable += 1,
            }
        }
        for receipt in self.writer.write_all(changes).await? {
            match receipt.outcome {
                Outcome::New => report.imported += 1,
                Outcome::Extended | Outcome::Already => report.known += 1,
                Outcome::AlreadyExpired => report.live += 1,
            }
        }
        (self.report, self.at) = (report, page.next);
        if self.at.is_some() {
            sleep_until(began + Duration::from_secs(1) * looked_at / self.pace).await;
        }
        Ok(self.at.is_some())
    }

    /// The record of an entry; none if it cannot be one.
    fn change(&self, found: ListedEntry) -> Result<Option<Revocation>, StoreError> {
        let list = self.scan.list();
        let known = match &found.id {
            ListedId::Claim(id) => Some(target(list.kind, id, list.issuer.as_deref())),
            ListedId::Token(text) => {
                let verifier = self.verifier.as_ref().ok_or_else(|| {
                    list.error(
                        StoreErrorKind::InvalidInput,
                        "its entries are tokens, whose ids only a verifier can tell; see \
                         Import::with_verifier",
                    )
                })?;
                let token = verifier.verify_to_revoke(text, CrateOnly).ok();
                token.and_then(|token| {
                    token
                        .target(TargetKind::Token)
                        .or_else(|| token.target(TargetKind::SigningInput))
                })
            }
        };
        let Some(mut change) = known.and_then(|target| self.writer.prepare(target).ok()) else {
            return Ok(None);
        };
        change.action = Action::Revoke(Extent::All);
        change.origin = RevocationOrigin::List;
        if let Some(expires_in) = found.expires_in {
            change.until =
                TokenProfile::forget_token_at(SystemClock.now().saturating_add(expires_in));
            change.lifetime = Duration::ZERO;
        }
        change.reason =
            Some(found.reason.unwrap_or_else(|| format!("imported from {}", list.name).into()));
        Ok(Some(change))
    }
}

impl fmt::Debug for Import {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Import")
            .field("list", &self.scan.list().name)
            .field("report", &self.report)
            .finish_non_exhaustive()
    }
}
