//! A store with a log, in which everything that can go wrong goes wrong when told to.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::watch;
use tokio::time::sleep;

use super::*;
use crate::revocation::Change;
use crate::store::feed::{Heartbeat, Lift, LogEntry, LogId, Progress, SnapshotPage};
use crate::token::TokenProfile;
use crate::token::profile::SignedClaims;

/// A token whose ids are all `id`, issued a minute ago.
pub(super) fn token(id: &str) -> Arc<VerifiedToken> {
    token_issued_at(id, SystemClock.now().saturating_sub(Duration::from_secs(60)))
}

pub(super) fn token_issued_at(id: &str, at: Timestamp) -> Arc<VerifiedToken> {
    let exp = at.as_secs() + 660;
    let claims = format!(r#"{{"sub":"{id}","jti":"{id}","sid":"{id}","iat":{at},"exp":{exp}}}"#);
    let claims = SignedClaims::new(claims.as_bytes());
    Arc::new(TokenProfile::new().assert_verified(claims).unwrap())
}

#[derive(Clone)]
pub(super) struct World(Arc<Inner>);

struct Inner {
    data: Mutex<Data>,
    /// Rung by every change; holds what the feeds are to do.
    mood: watch::Sender<Mood>,
    feeds: AtomicUsize,
    farewells: AtomicUsize,
}

#[derive(Clone, Debug)]
pub(super) struct Data {
    epoch: u64,
    seq: u64,
    records: HashMap<Fingerprint, Fact>,
    log: Vec<LogEntry>,
    last: LogId,
    horizon: Timestamp,
    /// The life before, and the last change of it that anyone has spoken of.
    former: (u64, u64),
}

#[derive(Clone, Copy, Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a thing that goes wrong by itself")]
struct Mood {
    hangs: bool,
    fails: bool,
    hides_log: bool,
    panics: bool,
    delay: Duration,
    changes: u64,
}

impl World {
    pub(super) fn new() -> Self {
        let data = Data {
            epoch: 1,
            seq: 0,
            records: HashMap::new(),
            log: Vec::new(),
            last: LogId::default(),
            horizon: Timestamp::ZERO,
            former: (0, 0),
        };
        Self(Arc::new(Inner {
            data: Mutex::new(data),
            mood: watch::Sender::new(Mood::default()),
            feeds: AtomicUsize::new(0),
            farewells: AtomicUsize::new(0),
        }))
    }

    pub(super) fn feed(&self) -> ScriptedFeed {
        self.0.feeds.fetch_add(1, Ordering::SeqCst);
        ScriptedFeed { world: self.clone(), is_connected: false }
    }

    fn data(&self) -> MutexGuard<'_, Data> {
        self.0.data.lock().unwrap()
    }

    fn mood(&self, change: impl FnOnce(&mut Mood)) {
        self.0.mood.send_modify(change);
    }

    // === What goes wrong ===

    pub(super) fn hang(&self, hangs: bool) {
        self.mood(|mood| mood.hangs = hangs);
    }

    pub(super) fn fail(&self, fails: bool) {
        self.mood(|mood| mood.fails = fails);
    }

    pub(super) fn hide_log(&self, hides_log: bool) {
        self.mood(|mood| mood.hides_log = hides_log);
    }

    pub(super) fn panic_once(&self) {
        self.mood(|mood| mood.panics = true);
    }

    pub(super) fn delay(&self, delay: Duration) {
        self.mood(|mood| mood.delay = delay);
    }

    pub(super) fn trim(&self) {
        self.data().log.clear();
    }

    pub(super) fn flush(&self) {
        let mut data = self.data();
        let epoch = data.epoch + 1;
        let horizon = SystemClock.now();
        let former = (data.epoch, 0);
        *data = Data {
            epoch,
            seq: 0,
            records: HashMap::new(),
            log: Vec::new(),
            last: LogId::default(),
            horizon,
            former,
        };
    }

    /// Somebody had heard of this change of the life that was lost.
    pub(super) fn remember(&self, seq: u64) {
        self.data().former.1 = seq;
    }

    pub(super) fn is_in_doubt(&self) -> bool {
        self.data().horizon != Timestamp::ZERO
    }

    pub(super) fn lift_horizon(&self) {
        self.data().horizon = Timestamp::ZERO;
    }

    pub(super) fn save(&self) -> Data {
        self.data().clone()
    }

    pub(super) fn restore(&self, data: Data) {
        *self.data() = data;
    }

    /// From now on another server answers, whose log goes on with later ids.
    pub(super) fn take_over(&self, mut data: Data) {
        data.last.ms += 1;
        self.restore(data);
    }

    // === What is so ===

    pub(super) fn seq(&self) -> u64 {
        self.data().seq
    }

    pub(super) fn feeds(&self) -> usize {
        self.0.feeds.load(Ordering::SeqCst)
    }

    pub(super) fn heard_farewell(&self) -> bool {
        self.0.farewells.load(Ordering::SeqCst) > 0
    }

    pub(super) fn holds(&self, id: &str) -> bool {
        self.data().records.get(&Target::token(id).fingerprint()).is_some_and(Fact::revokes_all)
    }

    // === Writes ===

    pub(super) async fn revoke(&self, id: &str) -> Receipt {
        self.write(Target::token(id), Action::Revoke(Extent::All)).await
    }

    pub(super) async fn write(&self, target: Target, action: Action) -> Receipt {
        let mut change = Revocation::new(target, Duration::from_secs(3600));
        change.action = action;
        RevocationStore::write(self, vec![change]).await.unwrap().remove(0)
    }

    pub(super) fn put(&self, fingerprint: Fingerprint, fact: Fact) -> u64 {
        let mut data = self.data();
        data.seq += 1;
        data.last.n += 1;
        data.records.insert(fingerprint, fact);
        let entry = LogEntry { id: data.last, epoch: data.epoch, seq: data.seq, fingerprint, fact };
        data.log.push(entry);
        let seq = data.seq;
        drop(data);
        self.mood(|mood| mood.changes += 1);
        seq
    }

    fn record(&self, target: &Target) -> Option<Record> {
        let fact = *self.data().records.get(&target.fingerprint())?;
        // A blank record of the target, then its numbers.
        let Change::Write(_, mut record) =
            Revocation::new(target.clone(), Duration::from_secs(1)).apply(None, SystemClock.now())
        else {
            return None;
        };
        record.fact = fact;
        Some(record)
    }
}

impl RevocationStore for World {
    fn check(&self, token: &Arc<VerifiedToken>) -> Lookup {
        let (world, token) = (self.clone(), Arc::clone(token));
        Lookup::Later(
            async move {
                let data = world.save();
                let covers = |fact: &Fact| fact.covers(&token);
                let hit = token
                    .targets()
                    .iter()
                    .find(|target| data.records.get(target.fingerprint()).is_some_and(covers));
                let hit = hit.map(|target| RevokedBy::new(target.kind()));
                Ok(hit.map_or(Standing::Live, Standing::Revoked))
            }
            .boxed(),
        )
    }

    fn write(
        &self,
        changes: Vec<Revocation>,
    ) -> BoxFuture<'static, Result<Vec<Receipt>, StoreError>> {
        let world = self.clone();
        async move {
            let mut receipts = Vec::new();
            for change in changes {
                let before = world.record(&change.target);
                let (outcome, record) = match change.apply(before.as_ref(), SystemClock.now()) {
                    Change::Nothing(outcome) => (outcome, before),
                    Change::Write(outcome, record) => {
                        world.put(change.target.fingerprint(), record.fact());
                        (outcome, Some(record))
                    }
                };
                let Data { epoch, seq, .. } = world.save();
                receipts.push(Receipt {
                    outcome,
                    at: record.as_ref().map_or(SystemClock.now(), Record::changed_at),
                    reissue_at: record.as_ref().and_then(Record::reissue_at),
                    fence: Some(Fence { shard: 0, epoch, seq }),
                    replicas: None,
                });
            }
            Ok(receipts)
        }
        .boxed()
    }

    fn find(&self, _: &Target) -> BoxFuture<'static, Result<Option<Record>, StoreError>> {
        unreachable!("no test asks")
    }

    fn list(&self, _: ListQuery) -> BoxFuture<'static, Result<RecordPage, StoreError>> {
        unreachable!("no test asks")
    }

    fn count(&self) -> BoxFuture<'static, Result<u64, StoreError>> {
        unreachable!("no test asks")
    }
}

pub(super) struct ScriptedFeed {
    world: World,
    is_connected: bool,
}

impl ScriptedFeed {
    /// Waits, fails or panics as the world is in the mood.
    async fn ask(&mut self) -> Result<(), StoreError> {
        let mut moods = self.world.0.mood.subscribe();
        let hung = timeout(LIMIT * 10, moods.wait_for(|mood| !mood.hangs)).await.is_err();
        let mood = *self.world.0.mood.borrow();
        sleep(mood.delay).await;
        if mood.panics {
            self.world.mood(|mood| mood.panics = false);
            panic!("as the test wants it");
        }
        if mood.fails || hung {
            self.is_connected = false;
            return Err(StoreError::new(StoreErrorKind::Unreachable, "as the test wants it"));
        }
        Ok(())
    }

    async fn question(&mut self) -> Result<(), StoreError> {
        assert!(self.is_connected, "asked without a connection");
        self.ask().await
    }
}

impl Drop for ScriptedFeed {
    fn drop(&mut self) {
        self.world.0.feeds.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Feed for ScriptedFeed {
    async fn connect(&mut self) -> Result<(), StoreError> {
        self.ask().await?;
        self.is_connected = true;
        Ok(())
    }

    async fn heartbeat(&mut self, _: Progress) -> Result<Heartbeat, StoreError> {
        // What was so when it was asked, not when it answers.
        let data = self.world.save();
        self.question().await?;
        Ok(Heartbeat {
            epoch: data.epoch,
            seq: data.seq,
            time: SystemClock.now(),
            horizon: data.horizon,
            lifted: data.horizon.saturating_add(Duration::from_secs(3600)),
            uncounted: None,
        })
    }

    async fn tail(&mut self) -> Result<LogId, StoreError> {
        self.question().await?;
        Ok(self.world.data().last)
    }

    async fn count(&mut self) -> Result<u64, StoreError> {
        self.question().await?;
        Ok(self.world.data().records.len() as u64)
    }

    async fn snapshot(&mut self, cursor: Option<u64>) -> Result<SnapshotPage, StoreError> {
        self.question().await?;
        let data = self.world.data();
        let mut names: Vec<_> = data.records.keys().copied().collect();
        names.sort_unstable();
        let from = usize::try_from(cursor.unwrap_or(0)).unwrap();
        let page = names.iter().skip(from).take(10).map(|name| {
            let fact = data.records[name];
            (*name, if fact.is_plain() { Fact::revoked_until(fact.until) } else { fact })
        });
        let facts: Vec<_> = page.collect();
        Ok(SnapshotPage { next: (from + 10 < names.len()).then_some(from as u64 + 10), facts })
    }

    async fn find(
        &mut self,
        fingerprints: &[Fingerprint],
    ) -> Result<Vec<Option<Fact>>, StoreError> {
        self.question().await?;
        let data = self.world.data();
        Ok(fingerprints.iter().map(|name| data.records.get(name).copied()).collect())
    }

    async fn read(&mut self, after: LogId, wait: Duration) -> Result<Vec<LogEntry>, StoreError> {
        let mut moods = self.world.0.mood.subscribe();
        self.question().await?;
        let entries = |world: &World| -> Vec<_> {
            let is_hidden = world.0.mood.borrow().hides_log;
            let data = world.data();
            data.log
                .iter()
                .filter(|entry| entry.id > after && !is_hidden)
                .take(7)
                .copied()
                .collect()
        };
        let deadline = Instant::now() + wait;
        loop {
            let found = entries(&self.world);
            if !found.is_empty()
                || tokio::time::timeout_at(deadline, moods.changed()).await.is_err()
            {
                self.question().await?;
                return Ok(found);
            }
        }
    }

    async fn restore(&mut self, facts: &[(Fingerprint, Fact)]) -> Result<(), StoreError> {
        self.question().await?;
        for (name, fact) in facts {
            let known = self.world.data().records.get(name).copied().unwrap_or_default();
            if known.merge(*fact) != known {
                self.world.put(*name, known.merge(*fact));
            }
        }
        Ok(())
    }

    async fn lift(&mut self, lift: Lift) -> Result<bool, StoreError> {
        self.question().await?;
        let data = self.world.save();
        let is_known = data.former.0 == lift.former && data.former.1 <= lift.seq;
        if is_known && (data.epoch, data.horizon) == (lift.epoch, lift.horizon) {
            self.world.lift_horizon();
            // That is a change, but one of no record.
            self.world.put(Fingerprint::from_bytes([0; 16]), Fact::default());
        }
        Ok(!self.world.is_in_doubt())
    }

    async fn leave(&mut self) {
        self.world.0.farewells.fetch_add(1, Ordering::SeqCst);
    }
}
