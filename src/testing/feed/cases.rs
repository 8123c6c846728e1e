//! One case for each rule.
#![expect(clippy::indexing_slicing, reason = "of as many targets as were asked for")]

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::FutureExt as _;
use tokio::time::{Instant, sleep};

use crate::clock::Timestamp;
use crate::revocation::{
    Action, Extent, Fact, Fingerprint, Revocation, Spared, SparedTime, Target,
};
use crate::store::feed::{EndDoubt, Feed, FeedSource, Heartbeat, LogEntry, Progress};
use crate::store::{Doubt, Fence, RevocationStore as _, StoreError};
use crate::testing::trial::{HOUR, MINUTE, Trial, revocation};
use crate::testing::{Failure, StoreFixture, Trialed, ensure, ensure_eq};

/// The name of the mirror that a case is.
const NAME: &str = "conformance";
/// A lease that does not end during a case.
const LONG: Duration = Duration::from_secs(600);
/// For what comes at once unless it never comes.
const PATIENCE: Duration = Duration::from_secs(30);

type FeedOf<F> = <<F as StoreFixture>::Store as FeedSource>::Feed;

/// A connected feed of each shard, as another mirror has them after its first heartbeat.
async fn feeds<F: StoreFixture<Store: FeedSource>>(
    trial: &Trial<'_, F>,
) -> Result<Vec<FeedOf<F>>, Failure> {
    let feeds = trial.store.feeds();
    let mut feeds = feeds.map_err(|error| Failure(format!("it cannot be mirrored: {error}")))?;
    ensure!(!feeds.is_empty(), "the store has no feeds");
    for feed in &mut feeds {
        Box::pin(feed.connect()).await?;
        beat(feed).await?;
    }
    Ok(feeds)
}

/// A feed of the first shard.
async fn feed<F: StoreFixture<Store: FeedSource>>(
    trial: &Trial<'_, F>,
) -> Result<FeedOf<F>, Failure> {
    Ok(feeds(trial).await?.swap_remove(0))
}

/// The same store as another process has it, or the very same where it has one handle only.
async fn elsewhere<'a, F: StoreFixture<Store: FeedSource>>(trial: &Trial<'a, F>) -> Trial<'a, F> {
    let another = trial.fixture.another(&trial.store).await;
    let store = another.map_or_else(|| Arc::clone(&trial.store), Arc::new);
    Trial { fixture: trial.fixture, store }
}

/// Targets that belong to this feed.
fn owned(feed: &impl Feed, prefix: &str, count: usize) -> Result<Vec<Target>, Failure> {
    let owned: Vec<_> = (0..100 * (count + 100))
        .map(|n| Target::token(format!("{prefix}{n}")))
        .filter(|target| feed.owns(&target.fingerprint()))
        .take(count)
        .collect();
    ensure_eq!(owned.len(), count, "targets that belong to the first shard");
    Ok(owned)
}

async fn beat_with(
    feed: &mut impl Feed,
    (epoch, seq): (u64, u64),
    lease: Duration,
) -> Result<Heartbeat, Failure> {
    let heartbeat =
        Box::pin(feed.heartbeat(Progress { name: NAME.into(), epoch, seq, lease })).await?;
    heartbeat.lease.clone()?;
    Ok(heartbeat)
}

/// A heartbeat of a mirror that is in no epoch.
async fn beat(feed: &mut impl Feed) -> Result<Heartbeat, Failure> {
    beat_with(feed, (0, 0), LONG).await
}

async fn write<F: StoreFixture<Store: FeedSource>>(
    trial: &Trial<'_, F>,
    target: &Target,
    action: Action,
) -> Result<Fence, Failure> {
    fence(trial.write(revocation(target.clone(), action)).await?.fence)
}

async fn revoke<F: StoreFixture<Store: FeedSource>>(
    trial: &Trial<'_, F>,
    target: &Target,
) -> Result<Fence, Failure> {
    write(trial, target, Action::Revoke(Extent::All)).await
}

fn fence(fence: Option<Fence>) -> Result<Fence, Failure> {
    fence.ok_or_else(|| Failure("a receipt of a store that can be mirrored has no fence".into()))
}

/// All kinds of facts: revoked, revoked up to a cutoff, reinstated.
async fn write_all_kinds<F: StoreFixture<Store: FeedSource>>(
    trial: &Trial<'_, F>,
    targets: &[Target],
) -> Result<(), Failure> {
    for (n, target) in targets.iter().enumerate() {
        match n % 5 {
            0 if n % 2 == 0 => {
                write(trial, target, Action::Revoke(Extent::IssuedSoFar)).await?;
            }
            0 => {
                let before = Timestamp::from_secs(trial.now().as_secs() - 60);
                write(trial, target, Action::Revoke(Extent::IssuedUntil(before))).await?;
                let mut change = Revocation::new(target.clone(), HOUR);
                change.action = Action::Revoke(Extent::IssuedSoFar);
                change.sparing = Some(Target::session("spared"));
                trial.write(change).await?;
            }
            1 => {
                revoke(trial, target).await?;
                write(trial, target, Action::Reinstate).await?;
            }
            _ => {
                revoke(trial, target).await?;
            }
        }
    }
    Ok(())
}

/// Everything in the log after this place.
async fn read_all(feed: &mut impl Feed, mut after: u128) -> Result<Vec<LogEntry>, Failure> {
    let mut all: Vec<LogEntry> = Vec::new();
    loop {
        let entries = Box::pin(feed.read(after, Duration::ZERO)).await?;
        let Some(last) = entries.last() else { return Ok(all) };
        ensure!(
            entries.iter().all(|entry| entry.id > after),
            "an entry is not behind the place that was asked for"
        );
        after = last.id;
        all.extend(entries);
        ensure!(all.len() < 100_000, "the log does not end");
    }
}

/// The log of some writes: the heartbeat before, the tail before, the entries, the heartbeat after.
struct Written {
    before: Heartbeat,
    tail: u128,
    entries: Vec<LogEntry>,
    after: Heartbeat,
    targets: Vec<Target>,
}

async fn written<F: StoreFixture<Store: FeedSource>>(
    trial: &Trial<'_, F>,
) -> Result<Written, Failure> {
    let mut feed = feed(trial).await?;
    let targets = owned(&feed, "t", 40)?;
    write_all_kinds(trial, &targets[..10]).await?;
    let (tail, before) = (Box::pin(feed.tail()).await?, beat(&mut feed).await?);
    write_all_kinds(trial, &targets[10..30]).await?;
    // Several in one write, and one target twice.
    let several = targets[30..].iter().chain(&targets[..1]).chain(&targets[..1]);
    trial.write_all(several.map(|target| Revocation::new(target.clone(), HOUR)).collect()).await?;
    let after = beat(&mut feed).await?;
    let entries = read_all(&mut feed, tail).await?;
    Ok(Written { before, tail, entries, after, targets })
}

/// The mirrors of this name, and whether each has applied the write. Waits while the store does not
/// know yet.
async fn mirrors<F: StoreFixture<Store: FeedSource>>(
    trial: &Trial<'_, F>,
    fence: Fence,
) -> Result<Vec<bool>, Failure> {
    let start = Instant::now();
    loop {
        match trial.store.followers(fence).await {
            Ok(followers) => {
                let ours = followers.iter().filter(|follower| &*follower.name == NAME);
                return Ok(ours.map(|follower| follower.has_applied).collect());
            }
            Err(error) if error.may_be_repeated() && start.elapsed() < PATIENCE => {
                sleep(Duration::from_millis(50)).await;
            }
            Err(error) => return Err(error.into()),
        }
    }
}

async fn fact<F: StoreFixture<Store: FeedSource>>(
    trial: &Trial<'_, F>,
    target: &Target,
) -> Result<Fact, Failure> {
    Ok(trial.record(target).await?.fact())
}

/// Reads a snapshot, and writes something before each page but the first.
async fn snapshot<F: StoreFixture<Store: FeedSource>>(
    trial: &Trial<'_, F>,
    feed: &mut impl Feed,
) -> Result<Vec<(Fingerprint, Fact)>, Failure> {
    let mut cursor = None;
    let mut facts = Vec::new();
    for page in 0..2000 {
        let read = Box::pin(feed.snapshot(cursor)).await?;
        facts.extend(read.facts);
        let Some(next) = read.next else { return Ok(facts) };
        cursor = Some(next);
        if page < 20 {
            let others = (0..10).map(|n| Target::user(format!("meanwhile-{page}-{n}")));
            trial.write_all(others.map(|target| Revocation::new(target, HOUR)).collect()).await?;
        }
    }
    Err(Failure("the snapshot has not ended after 2000 pages".into()))
}

// === Heartbeats ===

pub(super) async fn a_heartbeat_has_an_epoch_and_a_time<F: StoreFixture<Store: FeedSource>>(
    trial: &Trial<'_, F>,
) -> Trialed {
    for mut feed in feeds(trial).await? {
        let heartbeat = beat(&mut feed).await?;
        ensure!(heartbeat.epoch != 0, "the epoch is zero");
        let now = trial.now();
        let away = heartbeat.time.saturating_duration_since(now)
            + now.saturating_duration_since(heartbeat.time);
        ensure!(away < 5 * MINUTE, "the time is {away:?} away from that of the store");
    }
    Ok(())
}

pub(super) async fn a_heartbeat_holds_every_confirmed_write<F: StoreFixture<Store: FeedSource>>(
    trial: &Trial<'_, F>,
) -> Trialed {
    let (mut feed, other) = (feed(trial).await?, elsewhere(trial).await);
    for (n, target) in owned(&feed, "t", 50)?.iter().enumerate() {
        let writer = if n % 2 == 0 { trial } else { &other };
        let fence = revoke(writer, target).await?;
        let heartbeat = beat(&mut feed).await?;
        ensure_eq!(heartbeat.epoch, fence.epoch, "the epoch of a heartbeat after a write");
        let (seq, written) = (heartbeat.seq, fence.seq);
        ensure!(seq >= written, "a heartbeat knows of {seq} changes after {written} were written");
    }
    Ok(())
}

pub(super) async fn the_number_of_a_heartbeat_never_goes_back<
    F: StoreFixture<Store: FeedSource>,
>(
    trial: &Trial<'_, F>,
) -> Trialed {
    let mut feed = feed(trial).await?;
    let mut last = beat(&mut feed).await?;
    for target in owned(&feed, "t", 50)? {
        revoke(trial, &target).await?;
        for _ in 0..3 {
            let heartbeat = beat(&mut feed).await?;
            ensure_eq!(heartbeat.epoch, last.epoch, "the epoch, although no data was lost");
            let (seq, before) = (heartbeat.seq, last.seq);
            ensure!(seq >= before, "a heartbeat knows of {seq} changes, one before of {before}");
            last = heartbeat;
        }
    }
    Ok(())
}

// === Mirrors ===

pub(super) async fn progress_is_noted_before_the_state_is_read<
    F: StoreFixture<Store: FeedSource>,
>(
    trial: &Trial<'_, F>,
) -> Trialed {
    let target = owned(&feed(trial).await?, "t", 1)?.swap_remove(0);
    // Whoever writes and waits is another process than the mirror.
    let other = &elsewhere(trial).await;
    // Until the store knows which mirrors there are.
    mirrors(other, revoke(other, &target).await?).await?;
    for round in 0..30 {
        let mut feed = feed(trial).await?;
        let state = beat(&mut feed).await?;
        let is_over = AtomicBool::new(false);
        let beat = async {
            let heartbeat = beat_with(&mut feed, (state.epoch, state.seq), LONG).await;
            is_over.store(true, Ordering::SeqCst);
            heartbeat
        };
        let write = async {
            let mut writes = Vec::new();
            loop {
                let is_last = is_over.load(Ordering::SeqCst);
                let kind = if writes.len() % 2 == 0 {
                    Action::Reinstate
                } else {
                    Action::Revoke(Extent::All)
                };
                let fence = write(other, &target, kind).await?;
                writes.push((fence, mirrors(other, fence).await?.len()));
                if is_last || writes.len() > 2000 {
                    return Ok::<_, Failure>(writes);
                }
                tokio::task::yield_now().await;
            }
        };
        let (heartbeat, writes) = futures::join!(beat.boxed(), write.boxed());
        let heartbeat = heartbeat?;
        for (fence, found) in writes? {
            ensure!(
                fence.seq <= heartbeat.seq || found == 1,
                "in round {round} the write {} was confirmed and found {found} mirrors of this \
                 name, and then a heartbeat of the mirror knew of {} changes only",
                fence.seq,
                heartbeat.seq
            );
        }
        Box::pin(feed.leave()).await;
    }
    Ok(())
}

pub(super) async fn a_mirror_is_found_with_its_progress<F: StoreFixture<Store: FeedSource>>(
    trial: &Trial<'_, F>,
) -> Trialed {
    let (mut feed, other) = (feed(trial).await?, elsewhere(trial).await);
    let fence = revoke(&other, &owned(&feed, "t", 1)?[0]).await?;
    for (seq, has_applied) in [(fence.seq - 1, false), (fence.seq, true)] {
        beat_with(&mut feed, (fence.epoch, seq), LONG).await?;
        for handle in [trial, &other] {
            let found = mirrors(handle, fence).await?;
            ensure_eq!(found, [has_applied], "whether a mirror at {seq} has applied {}", fence.seq);
        }
    }
    Ok(())
}

pub(super) async fn a_mirror_without_an_epoch_is_not_found<F: StoreFixture<Store: FeedSource>>(
    trial: &Trial<'_, F>,
) -> Trialed {
    let mut feed = feed(trial).await?;
    let fence = revoke(trial, &owned(&feed, "t", 1)?[0]).await?;
    beat(&mut feed).await?;
    ensure_eq!(mirrors(trial, fence).await?, [false; 0], "mirrors that were found");
    Ok(())
}

pub(super) async fn a_lease_lasts<F: StoreFixture<Store: FeedSource>>(
    trial: &Trial<'_, F>,
) -> Trialed {
    let mut feed = feed(trial).await?;
    let fence = revoke(trial, &owned(&feed, "t", 1)?[0]).await?;
    mirrors(trial, fence).await?;
    // Not whole seconds, to which a store might cut it.
    let (start, lease) = (Instant::now(), Duration::from_millis(1500));
    beat_with(&mut feed, (fence.epoch, fence.seq), lease).await?;
    while start.elapsed() < lease.mul_f64(0.8) {
        let found = mirrors(trial, fence).await?;
        // A machine that was busy for so long says nothing.
        ensure!(
            !found.is_empty() || start.elapsed() >= lease,
            "the mirror was forgotten {:?} after it got a lease of {lease:?}",
            start.elapsed()
        );
        sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}

pub(super) async fn a_lease_ends<F: StoreFixture<Store: FeedSource>>(
    trial: &Trial<'_, F>,
) -> Trialed {
    let mut feed = feed(trial).await?;
    let fence = revoke(trial, &owned(&feed, "t", 1)?[0]).await?;
    beat_with(&mut feed, (fence.epoch, fence.seq), Duration::from_millis(200)).await?;
    let start = Instant::now();
    while !mirrors(trial, fence).await?.is_empty() {
        ensure!(
            start.elapsed() < Duration::from_secs(10),
            "a mirror is still waited for 10 s after it got a lease of 200 ms"
        );
        sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

pub(super) async fn leaving_ends_the_lease<F: StoreFixture<Store: FeedSource>>(
    trial: &Trial<'_, F>,
) -> Trialed {
    let mut feed = feed(trial).await?;
    let fence = revoke(trial, &owned(&feed, "t", 1)?[0]).await?;
    beat_with(&mut feed, (fence.epoch, fence.seq), LONG).await?;
    Box::pin(feed.leave()).await;
    let found = mirrors(trial, fence).await?;
    ensure_eq!(found, [false; 0], "mirrors that were found after they had left");
    Ok(())
}

// === The log ===

pub(super) async fn the_numbers_of_the_log_follow_each_other<F: StoreFixture<Store: FeedSource>>(
    trial: &Trial<'_, F>,
) -> Trialed {
    let Written { before, entries, after, .. } = written(trial).await?;
    let mut last = before.seq;
    for entry in &entries {
        ensure_eq!(entry.epoch, before.epoch, "the epoch of an entry");
        ensure_eq!(entry.seq, last + 1, "the number of the entry after {last}");
        last = entry.seq;
    }
    ensure_eq!(after.seq, last, "the number of the heartbeat after the last entry");
    Ok(())
}

pub(super) async fn the_places_of_the_log_increase<F: StoreFixture<Store: FeedSource>>(
    trial: &Trial<'_, F>,
) -> Trialed {
    let Written { tail, entries, .. } = written(trial).await?;
    let mut last = tail;
    for entry in &entries {
        ensure!(entry.id > last, "{:?} comes after {last:?}", entry.id);
        last = entry.id;
    }
    let mut feed = feed(trial).await?;
    ensure_eq!(Box::pin(feed.tail()).await?, last, "the tail, when everything was read");
    Ok(())
}

pub(super) async fn every_change_has_an_entry<F: StoreFixture<Store: FeedSource>>(
    trial: &Trial<'_, F>,
) -> Trialed {
    let Written { entries, targets, .. } = written(trial).await?;
    let read: HashSet<_> = entries.iter().map(|entry| entry.fingerprint).collect();
    for target in &targets[10..] {
        ensure!(read.contains(&target.fingerprint()), "the log has no entry of {target}");
    }
    // One that was revoked and reinstated has two.
    let both = targets[11].fingerprint();
    let count = entries.iter().filter(|entry| entry.fingerprint == both).count();
    ensure_eq!(count, 2, "entries of a target that was changed twice");
    Ok(())
}

pub(super) async fn an_entry_has_the_whole_fact<F: StoreFixture<Store: FeedSource>>(
    trial: &Trial<'_, F>,
) -> Trialed {
    let Written { entries, targets, .. } = written(trial).await?;
    let last: HashMap<_, _> = entries.iter().map(|entry| (entry.fingerprint, entry.fact)).collect();
    for target in &targets[10..] {
        let seen = last.get(&target.fingerprint()).copied();
        ensure_eq!(seen, Some(fact(trial, target).await?), "the last entry of {target}");
    }
    Ok(())
}

pub(super) async fn only_later_entries_are_read<F: StoreFixture<Store: FeedSource>>(
    trial: &Trial<'_, F>,
) -> Trialed {
    let Written { entries, .. } = written(trial).await?;
    let mut feed = feed(trial).await?;
    for (n, entry) in entries.iter().enumerate().step_by(5) {
        let rest = read_all(&mut feed, entry.id).await?;
        let expected = entries.get(n + 1..).unwrap_or_default();
        ensure!(rest == expected, "after the entry {n} not the rest of the log is read: {rest:?}");
    }
    Ok(())
}

pub(super) async fn a_read_waits_for_an_entry<F: StoreFixture<Store: FeedSource>>(
    trial: &Trial<'_, F>,
) -> Trialed {
    let mut feed = feed(trial).await?;
    let target = owned(&feed, "t", 1)?.swap_remove(0);
    let tail = Box::pin(feed.tail()).await?;
    let start = Instant::now();
    let read = async {
        let entries = Box::pin(feed.read(tail, LONG)).await?;
        Ok::<_, StoreError>((entries, start.elapsed()))
    };
    let write = async {
        sleep(Duration::from_millis(100)).await;
        revoke(trial, &target).await
    };
    let (read, written) = futures::join!(read.boxed(), write.boxed());
    written?;
    let (entries, took) = read?;
    ensure!(
        entries.iter().any(|entry| entry.fingerprint == target.fingerprint()),
        "a read ended after {took:?} without the entry that was written meanwhile"
    );
    ensure!(took < PATIENCE, "a read ended {took:?} after it began, and not with the write");
    Ok(())
}

pub(super) async fn a_read_without_entries_ends<F: StoreFixture<Store: FeedSource>>(
    trial: &Trial<'_, F>,
) -> Trialed {
    let mut feed = feed(trial).await?;
    let tail = Box::pin(feed.tail()).await?;
    let start = Instant::now();
    let entries = Box::pin(feed.read(tail, Duration::from_millis(400))).await?;
    let took = start.elapsed();
    ensure!(entries.is_empty(), "there are entries behind the tail: {entries:?}");
    ensure!(took < PATIENCE, "a read for 400 ms took {took:?}");
    ensure!(took >= Duration::from_millis(200), "a read for 400 ms did not wait: it took {took:?}");
    Ok(())
}

// === Snapshots and facts ===

pub(super) async fn a_snapshot_has_what_is_there_throughout<F: StoreFixture<Store: FeedSource>>(
    trial: &Trial<'_, F>,
) -> Trialed {
    let mut feed = feed(trial).await?;
    let targets = owned(&feed, "t", 150)?;
    write_all_kinds(trial, &targets).await?;
    let read: HashMap<_, _> = snapshot(trial, &mut feed).await?.into_iter().collect();
    for target in &targets {
        let known = fact(trial, target).await?;
        let Some(seen) = read.get(&target.fingerprint()) else {
            return Err(Failure(format!("{target} is missing: {known:?}")));
        };
        let is_enough = if known.is_plain() {
            seen.revokes_all() && seen.until >= known.until
        } else {
            *seen == known
        };
        ensure!(is_enough, "{target} should be {known:?}, but it is {seen:?}");
    }
    Ok(())
}

pub(super) async fn a_snapshot_revokes_nothing_else<F: StoreFixture<Store: FeedSource>>(
    trial: &Trial<'_, F>,
) -> Trialed {
    let mut feed = feed(trial).await?;
    let targets = owned(&feed, "t", 50)?;
    write_all_kinds(trial, &targets).await?;
    let known: HashMap<_, _> =
        targets.iter().map(|target| (target.fingerprint(), target)).collect();
    for (fingerprint, seen) in snapshot(trial, &mut feed).await? {
        ensure!(feed.owns(&fingerprint), "{fingerprint} belongs to another shard");
        let Some(target) = known.get(&fingerprint) else { continue };
        let fact = fact(trial, target).await?;
        let is_more = (seen.revokes_all() && !fact.revokes_all())
            || (seen.cutoff() > fact.cutoff() && !fact.revokes_all());
        ensure!(!is_more, "{target} is {fact:?}, but the snapshot says {seen:?}");
    }
    Ok(())
}

pub(super) async fn a_snapshot_ends<F: StoreFixture<Store: FeedSource>>(
    trial: &Trial<'_, F>,
) -> Trialed {
    let mut feed = feed(trial).await?;
    snapshot(trial, &mut feed).await?;
    write_all_kinds(trial, &owned(&feed, "t", 50)?).await?;
    snapshot(trial, &mut feed).await?;
    Ok(())
}

pub(super) async fn the_count_is_about_right<F: StoreFixture<Store: FeedSource>>(
    trial: &Trial<'_, F>,
) -> Trialed {
    let mut feed = feed(trial).await?;
    for target in owned(&feed, "t", 200)? {
        revoke(trial, &target).await?;
    }
    let count = Box::pin(feed.count()).await?;
    ensure!((100..=400).contains(&count), "of 200 facts it counts {count}");
    Ok(())
}

pub(super) async fn facts_are_found_in_order<F: StoreFixture<Store: FeedSource>>(
    trial: &Trial<'_, F>,
) -> Trialed {
    let mut feed = feed(trial).await?;
    let targets = owned(&feed, "t", 20)?;
    let mut asked = Vec::new();
    for (n, target) in targets.iter().enumerate() {
        if n % 3 != 0 {
            write_all_kinds(trial, &targets[n..=n]).await?;
        }
        asked.push(target.fingerprint());
    }
    asked.reverse();
    let found = Box::pin(feed.find(&asked)).await?;
    ensure_eq!(found.len(), asked.len(), "answers to a question about {} targets", asked.len());
    for (n, (target, found)) in targets.iter().rev().zip(found).enumerate() {
        let known = trial.find(target).await?.map(|record| record.fact());
        ensure_eq!(found, known, "the answer {n}");
    }
    ensure_eq!(Box::pin(feed.find(&[])).await?.len(), 0, "answers to no question");
    Ok(())
}

// === Replays ===

pub(super) async fn a_replay_is_a_write<F: StoreFixture<Store: FeedSource>>(
    trial: &Trial<'_, F>,
) -> Trialed {
    let mut feed = feed(trial).await?;
    let targets = owned(&feed, "t", 4)?;
    let (now, tail, before) = (trial.now(), Box::pin(feed.tail()).await?, beat(&mut feed).await?);
    let revoked_at = now.saturating_sub(2 * MINUTE);
    let until = now.saturating_add(HOUR);
    let all = Fact { all_revoked_at: revoked_at, until, ..Fact::default() };
    let cutoff = Fact {
        cutoff: now.saturating_sub(MINUTE / 2),
        cutoff_set_at: now.saturating_sub(MINUTE / 2),
        until,
        ..Fact::default()
    };
    let sparing = cutoff.sparing(Some(Target::session("spared").fingerprint()));
    let reinstated = Fact { reinstated_at: now.saturating_sub(MINUTE), ..all };
    // In this order, so that neither the first nor the last of them is the simplest.
    let lost = [cutoff, all, sparing, reinstated];
    let asked: Vec<_> = targets.iter().map(Target::fingerprint).collect();
    let replayed: Vec<_> = asked.iter().copied().zip(lost).collect();
    Box::pin(feed.replay(&replayed)).await?;
    let seq = beat(&mut feed).await?.seq;
    ensure_eq!(seq, before.seq + 4, "the number after a replay of four facts");
    let found = Box::pin(feed.find(&asked)).await?;
    ensure_eq!(found, lost.map(Some), "what is found of facts that were replayed");
    let read = read_all(&mut feed, tail).await?;
    let read: HashMap<_, _> = read.iter().map(|entry| (entry.fingerprint, entry.fact)).collect();
    ensure_eq!(read, replayed.into_iter().collect(), "what the log says that was replayed");
    for (target, is_revoked) in targets.iter().zip([true, true, true, false]) {
        let token = trial.token("nobody", target.id())?;
        let seen = trial.is_revoked(&token).await?;
        ensure_eq!(seen, is_revoked, "whether a check finds what was replayed of {target}");
    }
    Ok(())
}

pub(super) async fn a_replay_of_what_is_known_changes_nothing<
    F: StoreFixture<Store: FeedSource>,
>(
    trial: &Trial<'_, F>,
) -> Trialed {
    let mut feed = feed(trial).await?;
    let targets = owned(&feed, "t", 10)?;
    write_all_kinds(trial, &targets).await?;
    let before = beat(&mut feed).await?;
    for target in &targets {
        let known = fact(trial, target).await?;
        let earlier = |time: Timestamp| match time {
            Timestamp::ZERO => Timestamp::ZERO,
            time => time.saturating_sub(Duration::from_millis(1)),
        };
        let worse = Fact {
            all_revoked_at: earlier(known.all_revoked_at),
            cutoff: earlier(known.cutoff),
            cutoff_set_at: earlier(known.cutoff_set_at),
            // What is undone stays undone.
            reinstated_at: Timestamp::ZERO,
            until: earlier(known.until),
            // It stays earlier than the cutoff, as in every fact.
            spared: Spared::of_times(known.spared.times().map(|spared| {
                spared.map(|spared| SparedTime { time: earlier(spared.time), ..spared })
            })),
        };
        for replayed in [known, worse] {
            Box::pin(feed.replay(&[(target.fingerprint(), replayed)])).await?;
            ensure_eq!(fact(trial, target).await?, known, "{target} after {replayed:?}");
        }
    }
    ensure_eq!(beat(&mut feed).await?.seq, before.seq, "the number after these replays");
    Ok(())
}

// === Connections and shards ===

pub(super) async fn a_new_connection_goes_on<F: StoreFixture<Store: FeedSource>>(
    trial: &Trial<'_, F>,
) -> Trialed {
    let mut feed = feed(trial).await?;
    let targets = owned(&feed, "t", 4)?;
    revoke(trial, &targets[0]).await?;
    let (tail, before) = (Box::pin(feed.tail()).await?, beat(&mut feed).await?);
    for target in &targets[1..] {
        Box::pin(feed.connect()).await?;
        revoke(trial, target).await?;
    }
    Box::pin(feed.connect()).await?;
    let after = beat(&mut feed).await?;
    ensure_eq!(after.epoch, before.epoch, "the epoch on a new connection");
    ensure_eq!(after.seq, before.seq + 3, "the number on a new connection");
    let entries = read_all(&mut feed, tail).await?;
    let seqs: Vec<_> = entries.iter().map(|entry| entry.seq).collect();
    let expected: Vec<_> = (before.seq + 1..=after.seq).collect();
    ensure_eq!(seqs, expected, "the numbers of the log on a new connection");
    Ok(())
}

pub(super) async fn each_target_belongs_to_one_feed<F: StoreFixture<Store: FeedSource>>(
    trial: &Trial<'_, F>,
) -> Trialed {
    let feeds = feeds(trial).await?;
    for n in 0..200 {
        let target = Target::token(format!("t{n}"));
        let fingerprint = target.fingerprint();
        let owners: Vec<_> =
            (0..feeds.len()).filter(|shard| feeds[*shard].owns(&fingerprint)).collect();
        ensure_eq!(owners.len(), 1, "feeds that own {target}");
        if n < 40 {
            let fence = revoke(trial, &target).await?;
            ensure_eq!(owners, [usize::from(fence.shard)], "the shards of {target}");
        }
    }
    Ok(())
}

// === Losses ===

/// A store that has lost everything: what is asked for to end the doubt by one that knew all, and
/// the state afterwards.
struct Lost {
    request: EndDoubt,
    state: Heartbeat,
    /// When the last write was confirmed.
    written_at: Timestamp,
    facts: Vec<(Fingerprint, Fact)>,
}

/// `None` if the store cannot lose its data.
async fn lose<F: StoreFixture<Store: FeedSource>>(
    trial: &Trial<'_, F>,
    feed: &mut FeedOf<F>,
) -> Result<Option<Lost>, Failure> {
    let mut written_at = Timestamp::ZERO;
    let mut facts = Vec::new();
    for target in owned(feed, "t", 10)? {
        written_at = trial.revoke(target.clone()).await?.at;
        facts.push((target.fingerprint(), fact(trial, &target).await?));
    }
    let before = beat(feed).await?;
    if !trial.fixture.lose_data(&trial.store).await {
        return Ok(None);
    }
    let start = Instant::now();
    let state = loop {
        // Until a process has begun a new epoch there may be errors.
        match Box::pin(feed.heartbeat(Progress {
            name: NAME.into(),
            epoch: 0,
            seq: 0,
            lease: LONG,
        }))
        .await
        {
            Ok(heartbeat) if heartbeat.doubt != Doubt::Settling => break heartbeat,
            Ok(heartbeat) => {
                ensure!(start.elapsed() < PATIENCE, "it is still settling: {heartbeat:?}");
                sleep(Duration::from_millis(20)).await;
            }
            Err(error) if start.elapsed() > PATIENCE => return Err(error.into()),
            Err(_) => sleep(Duration::from_millis(20)).await,
        }
        // It may be that this fails, too.
        let _ = Box::pin(feed.connect()).await;
    };
    let issued_until = match state.doubt {
        Doubt::Lasting { issued_until, .. } => issued_until,
        _ => Timestamp::ZERO,
    };
    let request =
        EndDoubt { former_epoch: before.epoch, seq: before.seq, epoch: state.epoch, issued_until };
    Ok(Some(Lost { request, state, written_at, facts }))
}

pub(super) async fn a_loss_is_a_new_epoch_with_a_doubt<F: StoreFixture<Store: FeedSource>>(
    trial: &Trial<'_, F>,
) -> Trialed {
    let mut feed = feed(trial).await?;
    let Some(Lost { request, state, written_at, .. }) = lose(trial, &mut feed).await? else {
        return Ok(());
    };
    ensure!(state.epoch != request.former_epoch, "the epoch is that of the data that was lost");
    let token = trial.issued_at("nobody", "old", written_at)?;
    ensure!(
        state.doubt.covers(&token, state.time),
        "a token that was issued at {written_at}, when a revocation was confirmed that is lost \
         now, is not in doubt: {:?}",
        state.doubt
    );
    Ok(())
}

pub(super) async fn a_doubt_is_not_ended_by_one_that_missed_a_change<
    F: StoreFixture<Store: FeedSource>,
>(
    trial: &Trial<'_, F>,
) -> Trialed {
    let mut feed = feed(trial).await?;
    let Some(Lost { request, state, .. }) = lose(trial, &mut feed).await? else { return Ok(()) };
    let millisecond = Duration::from_millis(1);
    let others = [
        ("of a mirror that missed the last change", EndDoubt { seq: request.seq - 1, ..request }),
        ("of another former epoch", EndDoubt { former_epoch: request.former_epoch ^ 1, ..request }),
        ("in another epoch", EndDoubt { epoch: request.former_epoch, ..request }),
        (
            "of another doubt",
            EndDoubt { issued_until: request.issued_until.saturating_sub(millisecond), ..request },
        ),
    ];
    for (which, other) in others {
        let is_ended = Box::pin(feed.end_doubt(other)).await?;
        ensure!(!is_ended, "the request {which} was granted");
        let doubt = beat(&mut feed).await?.doubt;
        ensure!(doubt != Doubt::None, "after the request {which} there is no doubt: {:?}", state);
    }
    Ok(())
}

pub(super) async fn the_answer_to_the_end_of_a_doubt_is_true<F: StoreFixture<Store: FeedSource>>(
    trial: &Trial<'_, F>,
) -> Trialed {
    let mut feed = feed(trial).await?;
    let Some(Lost { request, facts, .. }) = lose(trial, &mut feed).await? else { return Ok(()) };
    Box::pin(feed.replay(&facts)).await?;
    let asked: Vec<_> = facts.iter().map(|(fingerprint, _)| *fingerprint).collect();
    let expected: Vec<_> = facts.iter().map(|(_, fact)| Some(*fact)).collect();
    let found = Box::pin(feed.find(&asked)).await?;
    ensure_eq!(found, expected, "what is found of all that was lost and replayed");
    let is_ended = Box::pin(feed.end_doubt(request)).await?;
    let doubt = beat(&mut feed).await?.doubt;
    ensure_eq!(doubt == Doubt::None, is_ended, "whether there is no doubt, as it was answered");
    Ok(())
}
