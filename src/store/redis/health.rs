//! [`Health`]: whether Redis can be used right now, by what each supervised connection reports.

use std::fmt;
use std::ops::Range;
use std::time::Duration;

use serde::ser::{Serialize, SerializeStruct as _, Serializer};
use tokio::time::Instant;

use crate::clock::Timestamp;
use crate::samples::{Metric, Samples};
use crate::store::{Condition, Doubt, StoreError, StoreErrorKind};

/// What a supervised connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// The checks of requests.
    Checks,
    /// Writes, look-ups and everything else that may take longer.
    Writes,
}

/// Whether Redis can be used right now; see
/// [`RedisStore::watch_health`](super::RedisStore::watch_health).
///
/// `Display` gives one line for a readiness probe or a log: `redis can be used`, or what cannot be
/// done, and why. Serialized, it is an object with `is_up`, `checks`, `writes`, `doubt`,
/// `awaited_writers` and this line as `text`.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Health {
    checks: Vec<(Range<u16>, StoreError)>,
    writes: Vec<(Range<u16>, StoreError)>,
    /// The shards whose server can be reached, and has refused the last write.
    refused: Vec<(Range<u16>, StoreError)>,
    /// The connections that have not been up yet, nor failed.
    pending: Vec<(Purpose, Range<u16>)>,
    /// Whether the shards are at several servers, so that some may be out of reach and others not.
    is_divided: bool,
    doubt: Doubt,
    settling: Option<Settling>,
    checked_until: LastChecks,
}

/// Until when all tokens could be checked.
#[derive(Clone, Copy, Debug, Default)]
enum LastChecks {
    /// They never could.
    #[default]
    Never,
    Now,
    Until(Instant),
}

/// How far a server is that settles.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settling {
    /// For how long it has.
    pub(crate) lasts: Duration,
    /// How many writers have not put back yet what they have confirmed.
    pub(crate) awaited: u32,
}

impl Health {
    pub(crate) fn starting(connections: &[Range<u16>]) -> Self {
        let pending = connections
            .iter()
            .flat_map(|shards| {
                [(Purpose::Checks, shards.clone()), (Purpose::Writes, shards.clone())]
            })
            .collect();
        Self { pending, is_divided: connections.len() > 1, ..Self::default() }
    }

    /// A connection is up, or down for this reason.
    pub(crate) fn record(
        &mut self,
        purpose: Purpose,
        shards: &Range<u16>,
        error: Option<&StoreError>,
    ) {
        let connections = match purpose {
            Purpose::Checks => &mut self.checks,
            Purpose::Writes => &mut self.writes,
        };
        connections.retain(|(known, _)| known != shards);
        connections.extend(error.map(|error| (shards.clone(), error.clone())));
        self.pending.retain(|(known, theirs)| (*known, theirs) != (purpose, shards));
        self.note_checks();
    }

    fn note_checks(&mut self) {
        self.checked_until = match self.checked_until {
            _ if self.checks() => LastChecks::Now,
            LastChecks::Now => LastChecks::Until(Instant::now()),
            earlier => earlier,
        };
    }

    /// Whether tokens can be checked, and since when not.
    pub(crate) fn condition(&self) -> Condition {
        let lasts = match self.checked_until {
            _ if self.checks() => return Condition::Answering(self.doubt),
            LastChecks::Never => None,
            LastChecks::Now => Some(Duration::ZERO),
            LastChecks::Until(end) => Some(end.elapsed()),
        };
        let error = self.checks.first().map_or_else(
            || StoreError::new(StoreErrorKind::Unreachable, "redis: not connected yet"),
            |(_, error)| error.clone(),
        );
        Condition::Failing { error, lasts }
    }

    /// A write to a shard was taken, or refused for this reason. Says whether that is new.
    pub(crate) fn record_write(&mut self, shard: u16, refusal: Option<&StoreError>) -> bool {
        let known = self.refused.iter().position(|(shards, _)| shards.start == shard);
        let known_kind = known.and_then(|n| self.refused.get(n)).map(|(_, error)| error.kind());
        if known_kind == refusal.map(StoreError::kind) {
            return false;
        }
        if let Some(n) = known {
            self.refused.swap_remove(n);
        }
        self.refused.extend(refusal.map(|error| (shard..shard + 1, error.clone())));
        true
    }

    /// Whether some connection has neither been up yet nor failed.
    pub(crate) fn is_starting(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Whether all connections are up.
    pub(crate) fn is_connected(&self) -> bool {
        self.checks.is_empty() && self.writes.is_empty() && self.pending.is_empty()
    }

    /// The first reason why a connection is down.
    pub(crate) fn connection_error(&self) -> Option<&StoreError> {
        self.checks.iter().chain(&self.writes).map(|(_, error)| error).next()
    }

    /// A connection for checks has been started: until it is up, not everything can be used.
    pub(crate) fn expect(&mut self, shards: Range<u16>) {
        self.pending.push((Purpose::Checks, shards));
        self.note_checks();
    }

    /// What is in doubt, as far as the store has read, and of a server that settles, how far it is.
    /// Says whether that is new.
    pub(crate) fn set_doubt(&mut self, doubt: Doubt, settling: Option<Settling>) -> bool {
        let awaited = self.awaited_writers();
        let was = std::mem::replace(&mut self.doubt, doubt);
        self.settling = settling;
        (was, awaited) != (self.doubt, self.awaited_writers())
    }

    /// Which tokens are in doubt in any shard, as far as the store has read from Redis:
    /// [`Doubt::Settling`] for the seconds after a change of server, [`Doubt::Lasting`] after a
    /// loss of data. It says nothing about the connections: during a lasting doubt Redis can be
    /// used, and newer tokens are checked.
    ///
    /// When a doubt ends because its last token has expired,
    /// [`watch_health`](super::RedisStore::watch_health) does not report a change.
    pub fn doubt(&self) -> Doubt {
        self.doubt
    }

    /// How many processes have not yet put back what they have confirmed, while the store
    /// [settles](Doubt::Settling). `None` if it does not settle, or if this is not known.
    pub fn awaited_writers(&self) -> Option<u32> {
        self.settling.map(|settling| settling.awaited)
    }

    pub(crate) fn add_metrics(&self, now: Timestamp, samples: &mut Samples) {
        for (purpose, is_up) in [("checks", self.checks()), ("writes", self.writes())] {
            samples.add_flag(Metric::StoreUp, &[purpose], is_up);
        }
        samples.add_flag(Metric::StoreSettling, &[], self.doubt == Doubt::Settling);
        let (lasts, awaited) = self
            .settling
            .map_or((Duration::ZERO, 0), |settling| (settling.lasts, settling.awaited));
        samples.add(Metric::StoreSettlingSeconds, &[], lasts.as_secs_f64());
        samples.add_count(Metric::StoreAwaitedWriters, &[], awaited.into());
        samples.add(Metric::StoreDoubt, &[], self.doubt.left(now).as_secs_f64());
    }

    /// Whether tokens can be checked and revocations be written.
    pub fn is_up(&self) -> bool {
        self.is_connected() && self.refused.is_empty()
    }

    /// Whether all tokens can be checked.
    pub fn checks(&self) -> bool {
        self.checks.is_empty() && !self.awaits(Purpose::Checks)
    }

    /// Whether all revocations can be written. If the user has no right to write, this says only
    /// whether the connection is up.
    pub fn writes(&self) -> bool {
        self.writes.is_empty() && self.refused.is_empty() && !self.awaits(Purpose::Writes)
    }

    /// Why a reachable Redis refuses writes: it is full (`OOM`), cannot write to its disk
    /// (`MISCONF`), has too few replicas (`NOREPLICAS`), or a cluster is moving the slot of the
    /// shard (`TRYAGAIN`, `ASK`). `None` if it takes writes. Tokens are checked meanwhile, and the
    /// store notices by itself when Redis takes writes again.
    pub fn refuses_writes(&self) -> Option<&StoreError> {
        self.refused.first().map(|(_, error)| error)
    }

    fn awaits(&self, purpose: Purpose) -> bool {
        self.pending.iter().any(|(pending, _)| *pending == purpose)
    }

    /// The first reason why something cannot be used; `None` if everything can, or if no connection
    /// has failed yet.
    pub fn error(&self) -> Option<&StoreError> {
        self.connection_error().or_else(|| self.refuses_writes())
    }

    /// The shards whose records cannot be read: in a cluster, those of a primary that is down.
    pub fn unreadable_shards(&self) -> impl Iterator<Item = u16> + '_ {
        self.checks.iter().flat_map(|(shards, _)| shards.clone())
    }
}

impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut before = "";
        for (what, connections) in [
            ("tokens cannot be checked", &self.checks),
            ("revocations cannot be written", &self.writes),
            ("writes are refused", &self.refused),
        ] {
            let Some((_, error)) = connections.first() else { continue };
            write!(f, "{before}{what}")?;
            if self.is_divided {
                let mut shards: Vec<_> =
                    connections.iter().flat_map(|(shards, _)| shards.clone()).collect();
                shards.sort_unstable();
                let shards: Vec<_> = shards.iter().map(u16::to_string).collect();
                write!(f, " (shards {})", shards.join(", "))?;
            }
            write!(f, ": {error}")?;
            before = "; ";
        }
        match self.doubt {
            Doubt::None => {}
            Doubt::Settling => {
                write!(f, "{before}settling")?;
                if let Some(Settling { lasts, awaited }) = self.settling {
                    let writers = if awaited == 1 { "writer" } else { "writers" };
                    write!(f, " for {} s, {awaited} {writers} awaited", lasts.as_secs())?;
                }
                before = "; ";
            }
            Doubt::Lasting { issued_until, .. } => {
                write!(f, "{before}tokens issued until {issued_until} are in doubt")?;
                before = "; ";
            }
        }
        match before {
            "" if self.pending.is_empty() => f.write_str("redis can be used"),
            "" => f.write_str("not connected to redis yet"),
            _ => Ok(()),
        }
    }
}

impl Serialize for Health {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_struct("Health", 6)?;
        object.serialize_field("is_up", &self.is_up())?;
        object.serialize_field("checks", &self.checks())?;
        object.serialize_field("writes", &self.writes())?;
        object.serialize_field("doubt", &self.doubt())?;
        object.serialize_field("awaited_writers", &self.awaited_writers())?;
        object.serialize_field("text", &self.to_string())?;
        object.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn health_is_serialized_by_name() {
        let mut health = Health::starting(std::slice::from_ref(&(0..4)));
        health.record(Purpose::Checks, &(0..4), None);
        health.set_doubt(Doubt::Settling, Some(Settling { lasts: Duration::ZERO, awaited: 2 }));
        let expected = serde_json::json!({
            "is_up": false, "checks": true, "writes": false, "doubt": {"state": "settling"},
            "awaited_writers": 2, "text": "settling for 0 s, 2 writers awaited",
        });
        assert_eq!(serde_json::to_value(&health).unwrap(), expected);
    }

    #[test]
    fn since_when_tokens_cannot_be_checked_is_known() {
        let lasts = |health: &Health| match health.condition() {
            Condition::Answering(_) => panic!("{health}"),
            Condition::Failing { lasts, .. } => lasts,
        };
        let error = StoreError::new(StoreErrorKind::Unreachable, "redis: closed");
        let mut health = Health::starting(std::slice::from_ref(&(0..4)));
        assert_eq!(lasts(&health), None, "they never could");
        health.record(Purpose::Checks, &(0..4), Some(&error));
        assert_eq!(lasts(&health), None);
        health.record(Purpose::Checks, &(0..4), None);
        assert!(matches!(health.condition(), Condition::Answering(Doubt::None)));
        health.record(Purpose::Checks, &(0..4), Some(&error));
        let first = lasts(&health).unwrap();
        std::thread::sleep(Duration::from_millis(5));
        health.record(Purpose::Checks, &(0..4), Some(&error));
        assert!(lasts(&health).unwrap() >= first + Duration::from_millis(5), "it goes on");
    }

    #[test]
    fn health_says_in_one_line_what_cannot_be_done_and_why() {
        let error = |detail| StoreError::new(StoreErrorKind::Unreachable, detail);
        let mut health = Health::starting(std::slice::from_ref(&(0..4)));
        assert_eq!(health.to_string(), "not connected to redis yet");
        assert!(!health.checks() && !health.writes() && health.is_starting());

        health.record(Purpose::Checks, &(0..4), None);
        assert!(health.is_starting());
        assert!(health.checks() && !health.writes() && !health.is_up());
        health.record(Purpose::Writes, &(0..4), None);
        assert_eq!(health.to_string(), "redis can be used");
        assert!(health.checks() && health.writes() && health.is_up() && !health.is_starting());

        health.record(Purpose::Writes, &(0..4), Some(&error("redis: refused")));
        assert_eq!(health.to_string(), "revocations cannot be written: redis: refused");
        assert!(health.checks() && !health.writes());
        health.record(Purpose::Checks, &(0..4), Some(&error("redis: closed")));
        assert_eq!(
            health.to_string(),
            "tokens cannot be checked: redis: closed; revocations cannot be written: redis: refused"
        );
    }

    #[test]
    fn health_says_that_writes_are_refused_until_one_is_taken() {
        let full = StoreError::new(StoreErrorKind::Full, "redis: OOM");
        let mut health = Health::starting(std::slice::from_ref(&(0..2)));
        health.record(Purpose::Checks, &(0..2), None);
        health.record(Purpose::Writes, &(0..2), None);
        assert!(health.record_write(1, Some(&full)));
        assert!(!health.record_write(1, Some(&full)), "it is known");
        assert_eq!(health.to_string(), "writes are refused: redis: OOM");
        assert!(health.checks() && !health.writes() && !health.is_up());
        assert_eq!(health.refuses_writes().unwrap().kind(), StoreErrorKind::Full);
        assert!(health.error().is_some() && health.connection_error().is_none());

        assert!(!health.record_write(0, None), "another shard");
        assert!(health.record_write(1, None));
        assert!(health.is_up() && health.refuses_writes().is_none());
    }

    #[test]
    fn health_says_what_is_in_doubt_by_name() {
        let mut health = Health::default();
        health.set_doubt(Doubt::Settling, None);
        assert_eq!((health.to_string().as_str(), health.awaited_writers()), ("settling", None));
        let settling = Settling { lasts: Duration::from_millis(2900), awaited: 1 };
        assert!(health.set_doubt(Doubt::Settling, Some(settling)));
        assert!(!health.set_doubt(Doubt::Settling, Some(settling)), "it is known");
        assert_eq!(health.to_string(), "settling for 2 s, 1 writer awaited");
        assert_eq!((health.doubt(), health.awaited_writers()), (Doubt::Settling, Some(1)));
        assert!(health.is_up(), "it can be reached");
        let [issued_until, ends_at] = [5, 9].map(Timestamp::from_secs);
        health.set_doubt(Doubt::Lasting { issued_until, ends_at }, None);
        assert_eq!(health.to_string(), "tokens issued until 5.000 are in doubt");
        let error = StoreError::new(StoreErrorKind::Unreachable, "redis: closed");
        health.record(Purpose::Writes, &(0..1), Some(&error));
        assert_eq!(
            health.to_string(),
            "revocations cannot be written: redis: closed; tokens issued until 5.000 are in doubt"
        );
    }

    #[test]
    fn health_names_the_shards_if_others_may_be_usable() {
        let error = StoreError::new(StoreErrorKind::Unreachable, "redis: closed");
        let mut health = Health::starting(&[0..1, 1..2, 2..3]);
        health.record(Purpose::Checks, &(2..3), Some(&error));
        health.record(Purpose::Checks, &(0..1), Some(&error));
        assert_eq!(health.to_string(), "tokens cannot be checked (shards 0, 2): redis: closed");
    }
}
