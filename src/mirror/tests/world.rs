//! A store with a log, in which everything that can go wrong goes wrong when the test says so.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use futures::future::ready;
use tokio::sync::watch;
use tokio::time::sleep;

use super::*;
use crate::revocation::Change;
use crate::store::feed::{EndDoubt, Heartbeat, LogEntry, Progress, SnapshotPage};
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
    /// What the feeds are to do. It changes with every write.
    script: watch::Sender<Script>,
    /// How many feeds there are, how many were made, and how many have left.
    feeds: AtomicUsize,
    made: AtomicUsize,
    leaves: AtomicUsize,
    leases: Mutex<HashMap<usize, ScriptedLease>>,
}

struct ScriptedLease {
    progress: Progress,
    ends_at: Instant,
}

#[derive(Clone, Debug)]
pub(super) struct Data {
    epoch: u64,
    seq: u64,
    records: HashMap<Fingerprint, Fact>,
    log: Vec<LogEntry>,
    last: u128,
    doubt: Doubt,
    /// The epoch that this one carries on.
    parent: Option<u64>,
    /// The epoch before, and the last change of it that any process has reported.
    former: (u64, u64),
}

#[derive(Clone, Copy, Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a thing that goes wrong by itself")]
struct Script {
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
            last: 0,
            doubt: Doubt::None,
            parent: None,
            former: (0, 0),
        };
        Self(Arc::new(Inner {
            data: Mutex::new(data),
            script: watch::Sender::new(Script::default()),
            feeds: AtomicUsize::new(0),
            made: AtomicUsize::new(0),
            leaves: AtomicUsize::new(0),
            leases: Mutex::default(),
        }))
    }

    pub(super) fn feed(&self) -> ScriptedFeed {
        self.0.feeds.fetch_add(1, Ordering::SeqCst);
        let mirror = self.0.made.fetch_add(1, Ordering::SeqCst);
        ScriptedFeed { world: self.clone(), mirror, is_connected: false }
    }

    fn leases(&self) -> MutexGuard<'_, HashMap<usize, ScriptedLease>> {
        self.0.leases.lock().unwrap()
    }

    fn data(&self) -> MutexGuard<'_, Data> {
        self.0.data.lock().unwrap()
    }

    fn script(&self, change: impl FnOnce(&mut Script)) {
        self.0.script.send_modify(change);
    }

    // === What goes wrong ===

    pub(super) fn hang(&self, hangs: bool) {
        self.script(|script| script.hangs = hangs);
    }

    pub(super) fn fail(&self, fails: bool) {
        self.script(|script| script.fails = fails);
    }

    pub(super) fn hide_log(&self, hides_log: bool) {
        self.script(|script| script.hides_log = hides_log);
    }

    pub(super) fn panic_once(&self) {
        self.script(|script| script.panics = true);
    }

    pub(super) fn delay(&self, delay: Duration) {
        self.script(|script| script.delay = delay);
    }

    pub(super) fn trim(&self) {
        self.data().log.clear();
    }

    pub(super) fn flush(&self) {
        let mut data = self.data();
        let epoch = data.epoch + 1;
        let issued_until = SystemClock.now();
        let ends_at = issued_until.saturating_add(Duration::from_secs(3600));
        let former = (data.epoch, 0);
        *data = Data {
            epoch,
            seq: 0,
            records: HashMap::new(),
            log: Vec::new(),
            last: 0,
            doubt: Doubt::Lasting { issued_until, ends_at },
            parent: None,
            former,
        };
    }

    /// Another process reports this change of the epoch that was lost.
    pub(super) fn report_known(&self, seq: u64) {
        self.data().former.1 = seq;
    }

    pub(super) fn is_in_doubt(&self) -> bool {
        self.data().doubt != Doubt::None
    }

    pub(super) fn settle(&self) {
        self.data().doubt = Doubt::Settling;
    }

    /// The data is at another server, which does not have the last `lost` changes. Nobody has begun
    /// an epoch there yet. Its ids go on at once after those that it has, so they may come again.
    pub(super) fn move_server(&self, lost: usize) {
        let mut data = self.data();
        let kept = data.log.len() - lost;
        data.log.truncate(kept);
        data.records = data.log.iter().map(|entry| (entry.fingerprint, entry.fact)).collect();
        (data.seq, data.last) = data.log.last().map_or((0, 0), |entry| (entry.seq, entry.id));
        data.doubt = Doubt::Settling;
        drop(data);
        self.script(|script| script.changes += 1);
    }

    /// The server begins its epoch.
    pub(super) fn begin_epoch(&self) {
        let mut data = self.data();
        data.parent = Some(data.epoch);
        data.epoch += 1;
        drop(data);
        self.put_nothing();
    }

    /// All writers are through.
    pub(super) fn end_settling(&self) {
        self.clear_doubt();
        self.put_nothing();
    }

    /// A change, but one of no record.
    fn put_nothing(&self) {
        self.put(Fingerprint::from_bytes([0; 16]), Fact::default());
    }

    pub(super) fn clear_doubt(&self) {
        self.data().doubt = Doubt::None;
    }

    pub(super) fn save(&self) -> Data {
        self.data().clone()
    }

    pub(super) fn restore(&self, data: Data) {
        *self.data() = data;
    }

    /// From now on another server answers, whose log goes on with later ids.
    pub(super) fn take_over(&self, mut data: Data) {
        data.last += 1 << 64;
        self.restore(data);
    }

    // === What is so ===

    pub(super) fn seq(&self) -> u64 {
        self.data().seq
    }

    pub(super) fn live_feeds(&self) -> usize {
        self.0.feeds.load(Ordering::SeqCst)
    }

    pub(super) fn has_left(&self) -> bool {
        self.0.leaves.load(Ordering::SeqCst) > 0
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
        data.last += 1;
        data.records.insert(fingerprint, fact);
        let entry = LogEntry { id: data.last, epoch: data.epoch, seq: data.seq, fingerprint, fact };
        data.log.push(entry);
        let seq = data.seq;
        drop(data);
        self.script(|script| script.changes += 1);
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
                    mirrors: None,
                    unlisted: Vec::new(),
                });
            }
            Ok(receipts)
        }
        .boxed()
    }

    fn find(&self, target: &Target) -> BoxFuture<'static, Result<Option<Record>, StoreError>> {
        ready(Ok(self.record(target))).boxed()
    }

    /// As a store that has not been reached for an hour.
    fn condition(&self) -> Condition {
        let error = StoreError::new(StoreErrorKind::Unreachable, "the world is away");
        Condition::Failing { error, lasts: Some(Duration::from_secs(3600)) }
    }

    fn followers(&self, fence: Fence) -> BoxFuture<'static, Result<Vec<Follower>, StoreError>> {
        if fence.epoch != self.data().epoch {
            let error = StoreError::new(StoreErrorKind::DataLoss, "the epoch is over");
            return ready(Err(error)).boxed();
        }
        let mut leases = self.leases();
        leases.retain(|_, lease| lease.ends_at > Instant::now());
        let follower = |ScriptedLease { progress, .. }: &ScriptedLease| {
            let has_applied = progress.epoch == fence.epoch && progress.seq >= fence.seq;
            Follower::new(Arc::clone(&progress.name), has_applied)
        };
        ready(Ok(leases.values().map(follower).collect())).boxed()
    }

    fn list(&self, _: ListQuery) -> BoxFuture<'static, Result<RecordPage, StoreError>> {
        unreachable!("no test asks")
    }

    fn count(&self) -> BoxFuture<'static, Result<u64, StoreError>> {
        unreachable!("no test asks")
    }
}

impl FeedSource for World {
    type Feed = ScriptedFeed;

    fn feeds(&self) -> Result<Vec<ScriptedFeed>, ConfigError> {
        Ok(vec![self.feed()])
    }
}

pub(super) struct ScriptedFeed {
    world: World,
    mirror: usize,
    is_connected: bool,
}

impl ScriptedFeed {
    /// Waits, fails or panics as the script says.
    async fn ask(&mut self) -> Result<(), StoreError> {
        let mut scripts = self.world.0.script.subscribe();
        let hung = timeout(LIMIT * 10, scripts.wait_for(|script| !script.hangs)).await.is_err();
        let script = *self.world.0.script.borrow();
        sleep(script.delay).await;
        if script.panics {
            self.world.script(|script| script.panics = false);
            panic!("as the test wants it");
        }
        if script.fails || hung {
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

    async fn heartbeat(&mut self, progress: Progress) -> Result<Heartbeat, StoreError> {
        if progress.epoch != 0 {
            let ends_at = Instant::now() + progress.lease;
            self.world.leases().insert(self.mirror, ScriptedLease { progress, ends_at });
        }
        // What was so when it was asked, not when it answers.
        let data = self.world.save();
        self.question().await?;
        let mut heartbeat = Heartbeat::new(data.epoch, data.seq, SystemClock.now(), data.doubt);
        heartbeat.carries_on = data.parent;
        Ok(heartbeat)
    }

    async fn tail(&mut self) -> Result<u128, StoreError> {
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

    async fn read(&mut self, after: u128, wait: Duration) -> Result<Vec<LogEntry>, StoreError> {
        let mut scripts = self.world.0.script.subscribe();
        self.question().await?;
        let entries = |world: &World| -> Vec<_> {
            let is_hidden = world.0.script.borrow().hides_log;
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
                || tokio::time::timeout_at(deadline, scripts.changed()).await.is_err()
            {
                self.question().await?;
                return Ok(found);
            }
        }
    }

    async fn replay(&mut self, facts: &[(Fingerprint, Fact)]) -> Result<(), StoreError> {
        self.question().await?;
        for (name, fact) in facts {
            let known = self.world.data().records.get(name).copied().unwrap_or_default();
            if known.merge(*fact) != known {
                self.world.put(*name, known.merge(*fact));
            }
        }
        Ok(())
    }

    async fn end_doubt(&mut self, request: EndDoubt) -> Result<bool, StoreError> {
        self.question().await?;
        let data = self.world.save();
        let is_known = data.former.0 == request.former_epoch && data.former.1 <= request.seq;
        let issued_until = doubts::issued_until(data.doubt);
        if is_known && (data.epoch, issued_until) == (request.epoch, request.issued_until) {
            self.world.clear_doubt();
            self.world.put_nothing();
        }
        Ok(!self.world.is_in_doubt())
    }

    fn owns(&self, _: &Fingerprint) -> bool {
        true
    }

    async fn leave(&mut self) {
        self.world.leases().remove(&self.mirror);
        self.world.0.leaves.fetch_add(1, Ordering::SeqCst);
    }
}
