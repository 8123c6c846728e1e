//! The mirror over a store that does what the test says, with time that stands still unless
//! something waits.

mod conformance_tests;
mod world;

use tokio::time::{Instant, advance, timeout};
use world::{World, token, token_issued_at};

use super::status::{Phase, Resync};
use super::*;
use crate::clock::{ManualClock, SystemClock};
use crate::store::Doubt;

const LIMIT: Duration = options::DEFAULT_MAX_STALENESS;

fn mirror(world: &World) -> Mirror {
    Mirror::of(world.clone(), vec![world.feed()]).start().unwrap()
}

async fn ready(world: &World) -> Mirror {
    let mirror = mirror(world);
    settle("the mirror is ready", mirror.ready()).await;
    mirror
}

async fn settle<F: Future>(what: &str, future: F) -> F::Output {
    timeout(Duration::from_secs(60), future).await.unwrap_or_else(|_| panic!("never: {what}"))
}

async fn until(mirror: &Mirror, what: &str, done: impl Fn(&MirrorStatus) -> bool) -> MirrorStatus {
    let mut status = mirror.watch_status();
    settle(what, status.wait_for(done)).await.unwrap().clone()
}

/// Lets time pass, and what is due in it happen.
async fn advance_by(time: Duration) {
    advance(time).await;
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
}

/// What the mirror says from memory; `None` if it has to ask.
fn local(mirror: &Mirror, id: &str) -> Option<Standing> {
    match mirror.check(&token(id)) {
        Lookup::Now(answer) => Some(answer.unwrap()),
        Lookup::Later(_) => None,
    }
}

fn is_revoked(mirror: &Mirror, id: &str) -> bool {
    matches!(local(mirror, id), Some(Standing::Revoked(_)))
}

#[tokio::test(start_paused = true)]
async fn before_the_first_snapshot_the_store_is_asked() {
    let world = World::new();
    world.revoke("a").await;
    let mirror = mirror(&world);
    assert_eq!(local(&mirror, "a"), None);
    assert!(matches!(mirror.check(&token("a")).answer().await, Ok(Standing::Revoked(_))));
    assert_eq!(mirror.staleness(), None);
}

#[tokio::test(start_paused = true)]
async fn snapshot_and_log_are_seen_and_nothing_else() {
    let world = World::new();
    world.revoke("a").await;
    let mirror = ready(&world).await;
    let receipt = world.revoke("b").await;
    settle("b", mirror.wait_for(receipt.fence.unwrap())).await.unwrap();
    assert!(is_revoked(&mirror, "a") && is_revoked(&mirror, "b"));
    assert_eq!(local(&mirror, "c"), Some(Standing::Live));
    assert_eq!(
        (mirror.status().entries, mirror.status().lag(), mirror.status().resyncs()),
        (2, 0, 0)
    );
}

#[tokio::test(start_paused = true)]
async fn all_kinds_of_records_arrive_and_so_do_reinstatements() {
    let world = World::new();
    let mirror = ready(&world).await;
    for target in [Target::token("a"), Target::session("a"), Target::user("a")] {
        world.write(target.clone(), Action::Revoke(Extent::All)).await;
        let receipt = world.write(target.clone(), Action::Revoke(Extent::IssuedSoFar)).await;
        mirror.wait_for(receipt.fence.unwrap()).await.unwrap();
        let Some(Standing::Revoked(by)) = local(&mirror, "a") else {
            panic!("{target} is not revoked")
        };
        assert_eq!(by.kind, target.kind());
        let receipt = world.write(target, Action::Reinstate).await;
        mirror.wait_for(receipt.fence.unwrap()).await.unwrap();
        assert_eq!(local(&mirror, "a"), Some(Standing::Live));
    }
}

#[tokio::test(start_paused = true)]
async fn own_writes_are_seen_at_once_while_the_log_is_silent() {
    let world = World::new();
    let mirror = ready(&world).await;
    world.hide_log(true);
    for action in [
        Action::Revoke(Extent::All),
        Action::Reinstate,
        Action::Revoke(Extent::IssuedSoFar),
        Action::Reinstate,
    ] {
        let mut change = Revocation::new(Target::user("a"), Duration::from_secs(3600));
        change.action = action;
        mirror.write(vec![change]).await.unwrap();
        assert_eq!(is_revoked(&mirror, "a"), action != Action::Reinstate, "{action:?}");
    }
}

/// As after the clock of the store went back, or twice within a millisecond: the cutoff is later
/// than the time.
#[tokio::test(start_paused = true)]
async fn an_own_cutoff_after_a_later_one_is_seen_at_once_too() {
    let world = World::new();
    let mirror = ready(&world).await;
    world.hide_log(true);
    let ahead = SystemClock.now().saturating_add(Duration::from_secs(5));
    world.write(Target::user("a"), Action::Revoke(Extent::IssuedUntil(ahead))).await;
    let next = token_issued_at("a", ahead.saturating_add(Duration::from_millis(1)));
    let change = Revocation::new(Target::user("a"), Duration::from_secs(3600));
    mirror.write(vec![change]).await.unwrap();
    assert!(matches!(mirror.check(&next), Lookup::Now(Ok(Standing::Revoked(_)))));
}

#[tokio::test(start_paused = true)]
async fn a_write_that_changes_nothing_changes_nothing_in_memory() {
    let world = World::new();
    let mirror = ready(&world).await;
    world.hide_log(true);
    // There is nothing to reinstate.
    let mut change = Revocation::new(Target::user("a"), Duration::from_secs(3600));
    change.action = Action::Reinstate;
    assert_eq!(mirror.write(vec![change]).await.unwrap()[0].outcome, Outcome::Already);
    // The clock of the store is set back, or another primary has one that is behind.
    let at = SystemClock.now().saturating_sub(Duration::from_secs(1));
    let fact = Fact {
        all_revoked_at: at,
        until: at.saturating_add(Duration::from_secs(3600)),
        ..Fact::default()
    };
    world.put(Target::user("a").fingerprint(), fact);
    world.hide_log(false);
    until(&mirror, "applied", |status| status.shards[0].applied == 1).await;
    assert!(is_revoked(&mirror, "a"));
}

#[tokio::test(start_paused = true)]
async fn a_store_that_hangs_makes_it_stale_in_time_and_then_the_store_is_asked() {
    let world = World::new();
    world.revoke("a").await;
    let mirror = ready(&world).await;
    let proved = Instant::now();
    world.hang(true);
    while proved.elapsed() < LIMIT {
        if local(&mirror, "b").is_none() {
            break;
        }
        advance(Duration::from_millis(10)).await;
    }
    // The last proof is at most as old as the pause between two.
    assert!(proved.elapsed() >= LIMIT / 2, "{:?}", proved.elapsed());
    advance(LIMIT).await;
    assert_eq!(local(&mirror, "b"), None);
    assert!(mirror.staleness().unwrap() >= LIMIT);
    assert!(is_revoked(&mirror, "a"), "what is revoked stays so");
    world.hang(false);
    settle("fresh again", mirror.ready()).await;
    assert_eq!(local(&mirror, "b"), Some(Standing::Live));
    assert_eq!(mirror.status().resyncs(), 0, "it had missed nothing");
}

#[tokio::test(start_paused = true)]
async fn what_was_written_while_it_was_away_is_there_before_it_is_fresh_again() {
    let world = World::new();
    let mirror = ready(&world).await;
    world.fail(true);
    advance(LIMIT * 3).await;
    let status = until(&mirror, "it knows", |status| status.shards[0].error.is_some()).await;
    assert_eq!(status.shards[0].phase, Phase::Connecting);
    world.revoke("a").await;
    assert_eq!(local(&mirror, "a"), None);
    world.fail(false);
    settle("fresh again", mirror.ready()).await;
    assert!(is_revoked(&mirror, "a"));
    assert_eq!(mirror.status().shards[0].error.as_ref().map(StoreError::kind), None);
}

#[tokio::test(start_paused = true)]
async fn a_log_that_was_trimmed_behind_it_costs_a_snapshot_and_no_revocation() {
    for followed_by_more in [false, true] {
        let world = World::new();
        let mirror = ready(&world).await;
        world.fail(true);
        until(&mirror, "it knows", |status| status.shards[0].error.is_some()).await;
        world.revoke("a").await;
        world.trim();
        if followed_by_more {
            world.revoke("b").await;
        }
        world.fail(false);
        let status = until(&mirror, "resync", |status| status.resyncs() == 1).await;
        let expected = if followed_by_more { Resync::Gap } else { Resync::Trimmed };
        assert_eq!(status.shards[0].last_resync, Some(expected));
        settle("fresh again", mirror.ready()).await;
        assert!(is_revoked(&mirror, "a"));
        assert_eq!(is_revoked(&mirror, "b"), followed_by_more);
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_lost_everything_un_revokes_nothing_and_gets_a_replay() {
    let world = World::new();
    world.revoke("a").await;
    let mirror = ready(&world).await;
    mirror.wait_for(world.revoke("b").await.fence.unwrap()).await.unwrap();
    world.flush();
    let status = until(&mirror, "resync", |status| status.resyncs() == 1).await;
    assert_eq!(status.shards[0].last_resync, Some(Resync::NewEpoch));
    settle("fresh again", mirror.ready()).await;
    assert!(is_revoked(&mirror, "a") && is_revoked(&mirror, "b"));
    until(&mirror, "the replay is done", |status| status.shards[0].replayed == 2).await;
    assert!(world.holds("a") && world.holds("b"));
}

#[tokio::test(start_paused = true)]
async fn a_store_that_went_back_is_noticed_and_gets_a_replay() {
    let world = World::new();
    world.revoke("a").await;
    let mirror = ready(&world).await;
    let old = world.save();
    mirror.wait_for(world.revoke("b").await.fence.unwrap()).await.unwrap();
    world.restore(old);
    let status = until(&mirror, "resync", |status| status.resyncs() == 1).await;
    assert_eq!(status.shards[0].last_resync, Some(Resync::Regression));
    until(&mirror, "the replay is done", |status| status.shards[0].replayed > 0).await;
    assert!(world.holds("b") && is_revoked(&mirror, "b"));
}

#[tokio::test(start_paused = true)]
async fn one_of_several_mirrors_is_enough_for_the_replay() {
    let world = World::new();
    let mirrors = [ready(&world).await, ready(&world).await, ready(&world).await];
    for n in 0..50 {
        world.revoke(&format!("t{n}")).await;
    }
    for mirror in &mirrors {
        until(mirror, "all read", |status| status.shards[0].applied == 50).await;
    }
    world.flush();
    for mirror in &mirrors {
        until(mirror, "resync", |status| status.resyncs() == 1).await;
    }
    let watch: Vec<_> = mirrors
        .iter()
        .map(|mirror| until(mirror, "applied", |s| s.shards[0].applied >= 50))
        .collect();
    for mirror in watch {
        mirror.await;
    }
    advance(LIMIT * 2).await;
    let replayed: u64 = mirrors.iter().map(|mirror| mirror.status().shards[0].replayed).sum();
    assert_eq!(replayed, 50, "none replayed what another had replayed");
    assert_eq!(world.seq(), 50);
}

#[tokio::test(start_paused = true)]
async fn tokens_from_before_a_loss_are_for_the_store_to_decide() {
    let world = World::new();
    let mirror = ready(&world).await;
    world.flush();
    until(&mirror, "resync", |status| status.resyncs() == 1).await;
    settle("fresh again", mirror.ready()).await;
    assert_eq!(local(&mirror, "a"), None, "issued before the loss");
    world.clear_doubt();
    until(&mirror, "no doubt", |status| status.shards[0].doubt == Doubt::None).await;
    assert_eq!(local(&mirror, "a"), Some(Standing::Live));
}

#[tokio::test(start_paused = true)]
async fn while_the_store_settles_only_revoked_is_said_from_memory() {
    let world = World::new();
    world.revoke("known").await;
    let mirror = ready(&world).await;
    assert_eq!(local(&mirror, "a"), Some(Standing::Live));
    world.settle();
    until(&mirror, "settling", |status| status.shards[0].doubt == Doubt::Settling).await;
    assert!(mirror.is_fresh());
    assert_eq!(local(&mirror, "a"), None, "the store has to be asked");
    assert!(is_revoked(&mirror, "known"));
    assert_eq!(mirror.status().resyncs(), 0, "nothing was lost");
    world.clear_doubt();
    until(&mirror, "no doubt", |status| status.shards[0].doubt == Doubt::None).await;
    assert_eq!(local(&mirror, "a"), Some(Standing::Live));
}

/// Each way in which a mirror can meet another server: at once or after a while without any, and
/// before or after somebody has begun its epoch.
#[tokio::test(start_paused = true)]
async fn a_change_of_server_takes_no_snapshot_and_un_revokes_nothing() {
    for (lost, case) in (0..4).flat_map(|lost| (0..4).map(move |case| (lost, case))) {
        let (is_away, is_begun) = (case & 1 > 0, case & 2 > 0);
        let what = format!("{lost} lost, away {is_away}, begun {is_begun}");
        let world = World::new();
        let mirror = ready(&world).await;
        let ids: Vec<_> = (0..6).map(|n| format!("t{n}")).collect();
        let mut fence = None;
        for id in &ids {
            fence = world.revoke(id).await.fence;
        }
        mirror.wait_for(fence.unwrap()).await.unwrap();
        if is_away {
            world.fail(true);
            until(&mirror, "it knows", |status| status.shards[0].error.is_some()).await;
        }
        world.move_server(lost);
        if is_begun {
            world.begin_epoch();
            // A writer puts back what only it knows of.
            world.revoke("late").await;
        }
        world.fail(false);
        until(&mirror, "settling", |status| status.doubt() == Doubt::Settling).await;
        if !is_begun {
            advance(LIMIT * 3).await;
            world.begin_epoch();
            world.revoke("late").await;
        }
        until(&mirror, "joined", |status| status.shards[0].epoch == 2).await;
        until(&mirror, "put back", |_| ids.iter().all(|id| world.holds(id))).await;
        assert_eq!(local(&mirror, "b"), None, "{what}: it settles");
        world.end_settling();
        let status = until(&mirror, "settled", |status| status.doubt() == Doubt::None).await;
        settle("fresh", mirror.ready()).await;
        assert_eq!((status.resyncs(), status.replayed()), (0, lost as u64), "{what}");
        assert!(is_revoked(&mirror, "late") && ids.iter().all(|id| is_revoked(&mirror, id)));
        assert_eq!(local(&mirror, "b"), Some(Standing::Live), "{what}");
        let error = mirror.wait_for(fence.unwrap()).await.unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::DataLoss, "a fence of the former epoch");
    }
}

#[tokio::test(start_paused = true)]
async fn two_changes_of_server_that_nobody_saw_between_cost_a_snapshot_and_nothing_else() {
    let world = World::new();
    let mirror = ready(&world).await;
    for id in ["a", "lost"] {
        mirror.wait_for(world.revoke(id).await.fence.unwrap()).await.unwrap();
    }
    world.fail(true);
    until(&mirror, "it knows", |status| status.shards[0].error.is_some()).await;
    world.move_server(1);
    world.begin_epoch();
    world.move_server(0);
    world.begin_epoch();
    world.end_settling();
    world.fail(false);
    until(&mirror, "resync", |status| status.resyncs() == 1).await;
    until(&mirror, "put back", |_| world.holds("a") && world.holds("lost")).await;
    settle("fresh", mirror.ready()).await;
    assert_eq!(local(&mirror, "b"), Some(Standing::Live));
    assert!(is_revoked(&mirror, "a") && is_revoked(&mirror, "lost") && !world.is_in_doubt());
}

#[tokio::test(start_paused = true)]
async fn a_doubt_ends_no_earlier_than_the_replayed_facts_have_arrived() {
    for after in 0..20 {
        let world = World::new();
        world.flush();
        let mirror = ready(&world).await;
        assert_eq!(local(&mirror, "a"), None, "it may have been revoked before the loss");
        world.delay(LIMIT / 5);
        advance_by(LIMIT / 20 * after).await;
        // Another mirror knew that it was.
        world.revoke("a").await;
        world.clear_doubt();
        while !is_revoked(&mirror, "a") {
            assert_eq!(local(&mirror, "a"), None, "{after}: {mirror:?}");
            advance_by(LIMIT / 100).await;
        }
        until(&mirror, "no doubt", |status| status.shards[0].doubt == Doubt::None).await;
        settle("fresh", mirror.ready()).await;
        assert_eq!(local(&mirror, "b"), Some(Standing::Live));
    }
}

#[tokio::test(start_paused = true)]
async fn a_new_connection_proves_nothing_before_the_log_was_read_on_it() {
    let world = World::new();
    world.revoke("a").await;
    let mirror = ready(&world).await;
    let old = world.save();
    mirror.wait_for(world.revoke("lost").await.fence.unwrap()).await.unwrap();
    world.fail(true);
    until(&mirror, "it knows", |status| status.shards[0].error.is_some()).await;
    advance_by(LIMIT * 2).await;
    // A replica took over that had not heard of the last change, and somebody made another one in
    // its place.
    world.take_over(old);
    world.revoke("b").await;
    world.delay(LIMIT / 5);
    world.fail(false);
    let start = Instant::now();
    while !is_revoked(&mirror, "b") {
        assert!(start.elapsed() < Duration::from_secs(60), "{mirror:?}");
        assert_eq!(local(&mirror, "b"), None, "{mirror:?}");
        advance_by(LIMIT / 100).await;
    }
    let status = until(&mirror, "resync", |status| status.resyncs() == 1).await;
    assert_eq!(status.shards[0].last_resync, Some(Resync::Regression));
    until(&mirror, "the replay is done", |_| world.holds("lost")).await;
}

/// After everything was lost: the token that was revoked, and one that never was.
async fn replay(world: &World, mirror: &Mirror) {
    until(mirror, "the replay is done", |status| status.shards[0].replayed > 0).await;
    advance(Duration::from_secs(20)).await;
    settle("fresh", mirror.ready()).await;
    assert!(is_revoked(mirror, "a") && world.holds("a"));
}

#[tokio::test(start_paused = true)]
async fn a_mirror_that_knew_everything_ends_the_doubt_when_the_store_has_it_again() {
    let world = World::new();
    world.revoke("a").await;
    let (mirror, other) = (ready(&world).await, ready(&world).await);
    world.flush();
    until(&mirror, "resync", |status| status.resyncs() == 1).await;
    until(&other, "resync", |status| status.resyncs() == 1).await;
    let lost = Instant::now();
    while world.is_in_doubt() {
        assert!(lost.elapsed() < Duration::from_secs(20), "{mirror:?}");
        advance(Duration::from_millis(50)).await;
    }
    assert!(
        lost.elapsed() > Duration::from_secs(4),
        "all processes have time to report what they know"
    );
    for mirror in [&mirror, &other] {
        assert!(is_revoked(mirror, "a") && world.holds("a"));
        until(mirror, "no doubt", |status| status.shards[0].doubt == Doubt::None).await;
        assert_eq!(local(mirror, "b"), Some(Standing::Live), "although it was issued before");
        assert_eq!(mirror.status().resyncs(), 1, "the log goes on");
    }
    assert!(mirror.status().shards[0].doubts_ended + other.status().shards[0].doubts_ended >= 1);
    // It counts as a loss like the first one when it happens again.
    world.flush();
    until(&mirror, "resync", |status| status.resyncs() == 2).await;
    while world.is_in_doubt() {
        advance(Duration::from_millis(50)).await;
    }
    assert!(world.holds("a"));
}

#[tokio::test(start_paused = true)]
async fn a_mirror_that_may_have_missed_something_does_not_end_the_doubt() {
    // It was away when the data was lost, for longer than it may be stale.
    let world = World::new();
    world.revoke("a").await;
    let mirror = ready(&world).await;
    world.fail(true);
    advance(LIMIT * 2).await;
    world.revoke("missed").await;
    world.flush();
    world.fail(false);
    replay(&world, &mirror).await;
    assert!(world.is_in_doubt() && !world.holds("missed"));
    assert_eq!(local(&mirror, "missed"), None, "for the store to decide");

    // Another process had read more.
    let world = World::new();
    world.revoke("a").await;
    let mirror = ready(&world).await;
    world.flush();
    world.report_known(2);
    replay(&world, &mirror).await;
    assert!(world.is_in_doubt());

    // There was a loss before that, of which it does not know what it cost.
    let world = World::new();
    world.flush();
    world.revoke("a").await;
    let mirror = ready(&world).await;
    world.flush();
    replay(&world, &mirror).await;
    assert!(world.is_in_doubt());

    // There is a second loss before the replay of the first is done.
    let world = World::new();
    world.revoke("a").await;
    let mirror = ready(&world).await;
    world.flush();
    until(&mirror, "resync", |status| status.resyncs() == 1).await;
    world.flush();
    until(&mirror, "resync", |status| status.resyncs() == 2).await;
    replay(&world, &mirror).await;
    assert!(world.is_in_doubt());

    // It does not know the names of all that it holds.
    let world = World::new();
    world.revoke("a").await;
    let mirror = Mirror::of(world.clone(), vec![world.feed()]).with_replayable(0).start().unwrap();
    settle("ready", mirror.ready()).await;
    world.flush();
    replay(&world, &mirror).await;
    assert!(world.is_in_doubt(), "although by chance it could replay everything");
}

#[tokio::test(start_paused = true)]
async fn a_late_heartbeat_proves_freshness_from_when_it_was_sent() {
    let world = World::new();
    let mirror = ready(&world).await;
    world.delay(LIMIT * 2 / 5);
    let mut status = mirror.watch_status();
    for _ in 0..10 {
        status.changed().await.unwrap();
        assert!(mirror.staleness().unwrap() >= LIMIT * 2 / 5 || mirror.status().proof().is_none());
    }
    // Slower than half the limit, it is not to be trusted at all.
    world.delay(LIMIT * 3 / 5);
    until(&mirror, "given up", |status| {
        status.shards[0].error.as_ref().map(StoreError::kind) == Some(StoreErrorKind::Timeout)
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn under_steady_writes_it_stays_fresh() {
    let world = World::new();
    let mirror = ready(&world).await;
    world.delay(Duration::from_millis(1));
    for n in 0..2000 {
        world.revoke(&format!("t{n}")).await;
        advance(Duration::from_millis(1)).await;
        assert!(mirror.is_fresh(), "{n}");
    }
    assert!(mirror.staleness().unwrap() < LIMIT / 2);
}

#[tokio::test(start_paused = true)]
async fn after_the_machine_slept_the_store_is_asked() {
    let world = World::new();
    let clock = ManualClock::new(SystemClock.now());
    let mirror =
        Mirror::of(world.clone(), vec![world.feed()]).with_clock(clock.clone()).start().unwrap();
    mirror.ready().await;
    world.hang(true);
    clock.advance(Duration::from_secs(600));
    assert_eq!(
        local(&mirror, "a"),
        None,
        "although the monotonic clock says that no time has passed"
    );
    world.hang(false);
    settle("fresh again", mirror.ready()).await;
    assert_eq!(local(&mirror, "a"), Some(Standing::Live));
}

#[tokio::test(start_paused = true)]
async fn the_worst_shard_decides() {
    let (one, other) = (World::new(), World::new());
    let mirror = Mirror::of(one.clone(), vec![one.feed(), other.feed()]).start().unwrap();
    mirror.ready().await;
    other.hang(true);
    advance(LIMIT * 2).await;
    one.revoke("x").await;
    until(&mirror, "one goes on", |status| status.shards[0].applied == 1).await;
    assert_eq!(local(&mirror, "a"), None);
    assert!(mirror.staleness().unwrap() >= LIMIT);
    other.hang(false);
    settle("fresh again", mirror.ready()).await;
    assert_eq!(local(&mirror, "a"), Some(Standing::Live));
}

#[tokio::test(start_paused = true)]
async fn a_shard_that_was_never_heard_makes_the_records_of_the_others_no_larger() {
    let (one, other) = (World::new(), World::new());
    for n in 0..50 {
        one.revoke(&format!("t{n}")).await;
    }
    other.fail(true);
    let mirror = Mirror::of(one.clone(), vec![one.feed(), other.feed()]).start().unwrap();
    let status = until(&mirror, "loaded", |status| status.shards[0].epoch != 0).await;
    assert_eq!((status.entries, status.details), (50, 0));
    one.revoke("later").await;
    let status = until(&mirror, "followed", |status| status.shards[0].applied == 51).await;
    assert_eq!((status.entries, status.details), (51, 0));
    other.fail(false);
    settle("ready", mirror.ready()).await;
    assert!(is_revoked(&mirror, "t0") && is_revoked(&mirror, "later"));
}

#[tokio::test(start_paused = true)]
async fn a_panic_is_reported_and_the_task_starts_again() {
    let world = World::new();
    let mirror = ready(&world).await;
    world.panic_once();
    let status = until(&mirror, "noticed", |status| status.shards[0].restarts == 1).await;
    assert_eq!(status.shards[0].phase, Phase::Connecting);
    world.revoke("a").await;
    let status = until(&mirror, "back", |status| status.resyncs() == 1).await;
    assert_eq!(status.shards[0].last_resync, Some(Resync::Panic));
    settle("fresh again", mirror.ready()).await;
    assert!(is_revoked(&mirror, "a"));
}

#[tokio::test(start_paused = true)]
async fn the_task_ends_with_the_last_handle_and_ends_its_lease() {
    let world = World::new();
    let mirror = ready(&world).await;
    let other = mirror.clone();
    drop(mirror);
    advance(LIMIT).await;
    assert_eq!(world.live_feeds(), 1);
    drop(other);
    settle("gone", async {
        while world.live_feeds() > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert!(world.has_left());
}

#[tokio::test(start_paused = true)]
async fn whoever_waits_learns_of_each_way_to_be_revoked() {
    let world = World::new();
    let mirror = ready(&world).await;
    let watch = |id| mirror.watch(&token(id)).unwrap();
    let own = tokio::spawn(watch("own"));
    let other = tokio::spawn(watch("other"));
    let (early, bystander) = (watch("early"), watch("bystander"));
    tokio::task::yield_now().await;
    mirror
        .write(vec![Revocation::new(Target::token("own"), Duration::from_secs(60))])
        .await
        .unwrap();
    world.revoke("other").await;
    mirror.wait_for(world.revoke("early").await.fence.unwrap()).await.unwrap();
    for waiter in [own, other, tokio::spawn(early)] {
        assert_eq!(
            settle("it ends", waiter).await.unwrap(),
            RevokedBy::new(crate::revocation::TargetKind::Token)
        );
    }
    assert!(timeout(Duration::from_secs(100), bystander).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_mirror_that_is_fresh_can_tell_whatever_the_store_is_like() {
    let world = World::new();
    let mirror = ready(&world).await;
    assert!(matches!(mirror.condition(), Condition::Answering(Doubt::None)));
    world.hang(true);
    advance(LIMIT * 2).await;
    assert!(!mirror.is_fresh());
    let Condition::Failing { lasts: Some(lasts), .. } = mirror.condition() else {
        panic!("nobody can tell")
    };
    // The store has not been there for an hour, and nobody missed it.
    assert!(lasts <= LIMIT * 2, "{lasts:?}");
    world.hang(false);
    mirror.ready().await;
    world.settle();
    settle("it is known", async {
        while matches!(mirror.condition(), Condition::Answering(Doubt::None)) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
    assert!(matches!(mirror.condition(), Condition::Answering(Doubt::Settling)));
}

#[tokio::test(start_paused = true)]
async fn a_fence_of_another_epoch_is_an_error() {
    let world = World::new();
    let receipt = world.revoke("a").await;
    world.flush();
    let mirror = ready(&world).await;
    let error = mirror.wait_for(receipt.fence.unwrap()).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::DataLoss);
}

#[test]
fn settings_that_cannot_work_are_refused_by_name() {
    let world = World::new();
    let error = Mirror::of(world.clone(), vec![world.feed()]).start().unwrap_err();
    assert_eq!(error.to_string(), "runtime: is missing; start the mirror inside a Tokio runtime");
    let short =
        Mirror::of(world.clone(), vec![world.feed()]).with_max_staleness(Duration::from_millis(49));
    assert_eq!(short.start().unwrap_err().setting(), "max_staleness");
    let long = Mirror::of(world.clone(), vec![world.feed()]).with_max_staleness(Duration::MAX);
    assert_eq!(long.start().unwrap_err().setting(), "max_staleness");
    let none = Mirror::of(world.clone(), Vec::<world::ScriptedFeed>::new());
    assert_eq!(none.start().unwrap_err().setting(), "feeds");
}
