//! The rules, one case for each.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::join_all;
use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::clock::Timestamp;
use crate::revocation::{Action, Extent, MAX_ID_BYTES, Outcome, Revocation};
use crate::revoker::Revoker;
use crate::store::{ListQuery, RevocationStore, Standing, StoreErrorKind};
use crate::target::{Target, TargetKind};
use crate::testing::trial::{HOUR, MINUTE, Trial, revocation};
use crate::testing::{Failure, StoreFixture, Trialed, ensure, ensure_eq};
use crate::token::TokenProfile;
use crate::token::profile::SignedClaims;

const MILLISECOND: Duration = Duration::from_millis(1);
const ALL: Action = Action::Revoke(Extent::All);

fn issued_until(cutoff: Timestamp) -> Action {
    Action::Revoke(Extent::IssuedUntil(cutoff))
}

pub(super) async fn each_kind_revokes_its_tokens_and_no_others<F: StoreFixture>(
    trial: &Trial<'_, F>,
) -> Trialed {
    let profile = TokenProfile::new().with_claim_target("tenant", TargetKind::Claim);
    let iat = trial.now().as_secs() - 60;
    let claims = json!({
        "jti": "t", "sub": "u", "sid": "s", "device_id": "d", "fid": "f", "client_id": "c",
        "tenant": "acme", "iat": iat,
    });
    let token = trial.token_of(&profile, claims)?;
    // It has the same ids under other kinds.
    let claims = json!({
        "jti": "s", "sub": "t", "sid": "u", "device_id": "f", "fid": "d", "client_id": "acme",
        "tenant": "c", "iat": iat,
    });
    let other = trial.token_of(&profile, claims)?;
    for target in [
        Target::token("t"),
        Target::session("s"),
        Target::device("d"),
        Target::family("f"),
        Target::user("u"),
        Target::client("c"),
        Target::claim("tenant", "acme"),
    ] {
        ensure_eq!(trial.revoked_by(&token).await?, None, "before {target} was revoked");
        trial.revoke(target.clone()).await?;
        let through = trial.revoked_by(&token).await?;
        ensure_eq!(through, Some(target.kind()), "a token of {target}, which is revoked");
        ensure_eq!(trial.revoked_by(&other).await?, None, "a token that is not of {target}");
        trial.reinstate(target).await?;
    }
    trial.revoke(Target::issuer("")).await?;
    for token in [&token, &other] {
        let through = trial.revoked_by(token).await?;
        ensure_eq!(through, Some(TargetKind::Issuer), "a token of the issuer, which is revoked");
    }
    Ok(())
}

pub(super) async fn a_key_revokes_what_it_signed<F: StoreFixture>(trial: &Trial<'_, F>) -> Trialed {
    let now = trial.now();
    let claims = json!({ "jti": "t", "iat": now.as_secs() - 60, "exp": now.as_secs() + 60 });
    let claims = claims.to_string();
    let signed_with = |kid| {
        let signed = SignedClaims::new(claims.as_bytes()).with_key_id(Some(kid));
        TokenProfile::new().assert_verified_for_revocation(signed).map(Arc::new)
    };
    let not_verified = |error| Failure(format!("the token of the test: {error}"));
    let stolen = signed_with("stolen").map_err(not_verified)?;
    let safe = signed_with("safe").map_err(not_verified)?;
    trial.revoke(Target::key("stolen")).await?;
    let through = trial.revoked_by(&stolen).await?;
    ensure_eq!(through, Some(TargetKind::Key), "a token signed with the revoked key");
    ensure_eq!(trial.revoked_by(&safe).await?, None, "a token signed with another key");
    Ok(())
}

pub(super) async fn a_confirmed_write_is_seen_everywhere<F: StoreFixture>(
    trial: &Trial<'_, F>,
) -> Trialed {
    let another = trial.fixture.another(&trial.store).await;
    for round in 0..20 {
        let target = Target::user(format!("u{round}"));
        let token = trial.token(target.id(), "t")?;
        let is_revoked = || async {
            let here = trial.is_revoked(&token).await?;
            let there = match &another {
                Some(store) => !matches!(store.check(&token).answer().await?, Standing::Live),
                None => here,
            };
            Ok::<_, Failure>((here, there))
        };
        ensure_eq!(is_revoked().await?, (false, false), "before (this handle, another)");
        trial.revoke(target.clone()).await?;
        ensure_eq!(is_revoked().await?, (true, true), "after a confirmed revocation");
        trial.reinstate(target.clone()).await?;
        ensure_eq!(is_revoked().await?, (false, false), "after a confirmed reinstatement");
        if let Some(store) = &another {
            let record = store.find(&target).await?;
            ensure_eq!(record, trial.find(&target).await?, "the record at another handle");
        }
    }
    Ok(())
}

pub(super) async fn a_revocation_of_all_covers_later_tokens<F: StoreFixture>(
    trial: &Trial<'_, F>,
) -> Trialed {
    let receipt = trial.write(revocation(Target::user("alice"), ALL)).await?;
    ensure_eq!(receipt.reissue_at, None, "reissue_at, where no later token is accepted either");
    for later in [Duration::ZERO, Duration::from_secs(30)] {
        let token = trial.issued_at("alice", "t", receipt.at.saturating_add(later))?;
        ensure!(trial.is_revoked(&token).await?, "a token issued {later:?} later is live");
    }
    Ok(())
}

pub(super) async fn a_cutoff_covers_its_second_and_nothing_later<F: StoreFixture>(
    trial: &Trial<'_, F>,
) -> Trialed {
    let receipt = trial.revoke(Target::user("alice")).await?;
    let reissue_at = receipt.reissue_at;
    ensure_eq!(reissue_at, Some(receipt.at.saturating_add(MILLISECOND)), "reissue_at");
    let second = receipt.at.as_secs();
    for (iat, covered) in [
        (Timestamp::from_secs(second - 1), true),
        (Timestamp::from_secs(second), true),
        (receipt.at, true),
        (receipt.at.saturating_add(MILLISECOND), false),
        (Timestamp::from_secs(second + 1), false),
    ] {
        let token = trial.issued_at("alice", "t", iat)?;
        let is_revoked = trial.is_revoked(&token).await?;
        ensure_eq!(is_revoked, covered, "the cutoff is {}, the iat {iat}", receipt.at);
    }
    let token = trial.issued_at("bob", "t", Timestamp::from_secs(second - 1))?;
    ensure!(!trial.is_revoked(&token).await?, "a token of another user is revoked");

    let cutoff = Timestamp::from_millis((second - 10) * 1000 + 500);
    trial.write(revocation(Target::user("carol"), issued_until(cutoff))).await?;
    for (millis, covered) in [(250, true), (500, true), (501, false), (750, false)] {
        let iat = Timestamp::from_millis((second - 10) * 1000 + millis);
        let token = trial.issued_at("carol", "t", iat)?;
        let is_revoked = trial.is_revoked(&token).await?;
        ensure_eq!(is_revoked, covered, "the cutoff is {cutoff}, the iat {iat}");
    }
    Ok(())
}

pub(super) async fn a_token_without_iat_is_covered<F: StoreFixture>(
    trial: &Trial<'_, F>,
) -> Trialed {
    let profile = TokenProfile::new().allow_missing_iat();
    let token = trial.token_of(&profile, json!({ "sub": "alice", "jti": "t" }))?;
    let long_ago = Timestamp::from_secs(1);
    trial.write(revocation(Target::user("alice"), issued_until(long_ago))).await?;
    ensure!(trial.is_revoked(&token).await?, "it is live, and it is not known when it was issued");
    Ok(())
}

pub(super) async fn a_cutoff_spares_a_session<F: StoreFixture>(trial: &Trial<'_, F>) -> Trialed {
    let now = trial.now();
    let ago = |secs| Timestamp::from_secs(now.saturating_sub(Duration::from_secs(secs)).as_secs());
    let sparing = |user: &str, session: Option<&str>, action| {
        let mut change = revocation(Target::user(user), action);
        change.sparing = session.map(Target::session);
        change
    };
    let token = |user: &str, session: Option<&str>, secs| {
        let iat = ago(secs).as_secs();
        let claims = match session {
            Some(session) => json!({ "sub": user, "jti": "t", "iat": iat, "sid": session }),
            None => json!({ "sub": user, "jti": "t", "iat": iat }),
        };
        trial.token_of(&TokenProfile::new(), claims)
    };
    let ends = async |user: &str, expected: [bool; 5], when: &str| {
        let tokens = [(Some("s"), 60), (Some("s"), 240), (Some("x"), 60), (None, 60), (None, 240)];
        for ((session, secs), expected) in tokens.into_iter().zip(expected) {
            let is_revoked = trial.is_revoked(&token(user, session, secs)?).await?;
            ensure_eq!(is_revoked, expected, "{user}: {session:?}, {secs} s old, {when}");
        }
        Ok::<_, Failure>(())
    };
    let so_far = Action::Revoke(Extent::IssuedSoFar);
    let until = |secs| issued_until(ago(secs));

    // What comes after it, whichever reaches further.
    for (n, later) in
        [sparing("", None, so_far), sparing("", Some("other"), so_far)].iter().enumerate()
    {
        let user = format!("u{n}");
        trial.write(sparing(&user, Some("s"), so_far)).await?;
        ends(&user, [false, false, true, true, true], "after a cutoff that spares s").await?;
        trial.write(sparing(&user, Some("s"), so_far)).await?;
        ends(&user, [false, false, true, true, true], "after another").await?;
        trial.write(sparing(&user, None, until(180))).await?;
        ends(&user, [false, true, true, true, true], "after an earlier cutoff of all").await?;
        let session = later.sparing.as_ref().map(Target::id);
        trial.write(sparing(&user, session, later.action)).await?;
        ends(&user, [true; 5], "after a cutoff that does not spare it").await?;
    }

    // What came before it, unless that was undone.
    for (user, is_undone) in [("v", false), ("w", true)] {
        trial.write(sparing(user, None, until(180))).await?;
        if is_undone {
            trial.reinstate(Target::user(user)).await?;
        }
        trial.write(sparing(user, Some("s"), so_far)).await?;
        let expected = [false, !is_undone, true, true, true];
        ends(user, expected, "after a cutoff of all, and one that spares it").await?;
        trial.reinstate(Target::user(user)).await?;
        ends(user, [false; 5], "after it was reinstated").await?;
        trial.write(sparing(user, Some("s"), so_far)).await?;
        ends(user, [false, false, true, true, true], "after a new one that spares it").await?;
        trial.write(sparing(user, None, ALL)).await?;
        ends(user, [true; 5], "after all was revoked").await?;
    }
    Ok(())
}

pub(super) async fn a_cutoff_always_advances<F: StoreFixture>(trial: &Trial<'_, F>) -> Trialed {
    let mut last = trial.revoke(Target::user("alice")).await?;
    // Fast enough that some fall in the same millisecond.
    for _ in 0..50 {
        let Some(reissue_at) = last.reissue_at else {
            return Err(Failure("a cutoff was answered without reissue_at".into()));
        };
        let fresh = trial.issued_at("alice", "t", reissue_at)?;
        ensure!(!trial.is_revoked(&fresh).await?, "a token stamped with reissue_at is revoked");
        last = trial.revoke(Target::user("alice")).await?;
        ensure!(
            trial.is_revoked(&fresh).await?,
            "a token stamped {reissue_at} is live after a second cutoff ({last:?})"
        );
        ensure!(last.outcome == Outcome::Extended, "a second cutoff is {:?}", last.outcome);
    }
    Ok(())
}

pub(super) async fn writes_join_in_any_order<F: StoreFixture>(trial: &Trial<'_, F>) -> Trialed {
    let [early, middle, late] =
        [30, 20, 10].map(|secs| trial.now().saturating_sub(Duration::from_secs(secs)));
    let changes = [issued_until(early), issued_until(middle), issued_until(late)];
    for (n, order) in
        [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]].into_iter().enumerate()
    {
        let target = Target::user(format!("u{n}"));
        for action in order.iter().filter_map(|at| changes.get(*at)) {
            trial.write(revocation(target.clone(), *action)).await?;
        }
        let record = trial.record(&target).await?;
        ensure_eq!(record.cutoff(), Some(late), "the cutoff after the writes {order:?}");
        let (before, after) = (
            trial.issued_at(target.id(), "t", late)?,
            trial.issued_at(target.id(), "t", late.saturating_add(MILLISECOND))?,
        );
        ensure!(trial.is_revoked(&before).await?, "the latest cutoff covers less after {order:?}");
        ensure!(!trial.is_revoked(&after).await?, "it covers more than any said after {order:?}");
    }
    // Of all and of some: all, whichever came first.
    for (n, order) in [[ALL, issued_until(early)], [issued_until(early), ALL]].iter().enumerate() {
        let target = Target::user(format!("v{n}"));
        for action in order {
            trial.write(revocation(target.clone(), *action)).await?;
        }
        ensure!(trial.record(&target).await?.revokes_all(), "not all is revoked after {order:?}");
    }
    Ok(())
}

pub(super) async fn nothing_shortens_a_revocation<F: StoreFixture>(
    trial: &Trial<'_, F>,
) -> Trialed {
    let target = Target::user("alice");
    let first = trial.revoke(target.clone()).await?;
    let until = trial.record(&target).await?.until();
    let mut earlier = revocation(target.clone(), issued_until(Timestamp::from_secs(1)));
    earlier.lifetime = Duration::from_secs(1);
    let second = trial.write(earlier).await?;
    ensure_eq!(second.outcome, Outcome::Already, "a write that asks for less");
    ensure_eq!(second.reissue_at, first.reissue_at, "reissue_at after it");
    let record = trial.record(&target).await?;
    ensure_eq!(record.until(), until, "the end of the record after it");
    ensure_eq!(record.cutoff(), Some(first.at), "the cutoff after it");
    let token = trial.token("alice", "t")?;
    ensure!(trial.is_revoked(&token).await?, "a token that was revoked is live after it");

    let mut longer = Revocation::new(target.clone(), HOUR * 2);
    longer.action = ALL;
    let outcome = trial.write(longer).await?.outcome;
    ensure_eq!(outcome, Outcome::Extended, "a write that asks for more");
    let record = trial.record(&target).await?;
    ensure!(record.until() > until, "it is kept no longer after it");
    ensure!(record.revokes_all(), "it does not revoke all after it");
    let later = trial.issued_at("alice", "t", first.at.saturating_add(Duration::from_secs(30)))?;
    ensure!(trial.is_revoked(&later).await?, "a token issued later is live after it");
    Ok(())
}

pub(super) async fn a_repeated_write_changes_nothing<F: StoreFixture>(
    trial: &Trial<'_, F>,
) -> Trialed {
    let mut change = Revocation::new(Target::token("t"), Duration::ZERO);
    change.until = trial.now().saturating_add(HOUR);
    let first = trial.write(change.clone()).await?;
    trial.fixture.advance(MILLISECOND * 2).await;
    let again = trial.write(change).await?;
    ensure_eq!(first.outcome, Outcome::New, "the first write");
    ensure_eq!(again.outcome, Outcome::Already, "the second write");
    ensure_eq!(again.at, first.at, "when it was written, by the second receipt");
    ensure_eq!(trial.store.count().await?, 1, "how many records there are");
    Ok(())
}

pub(super) async fn a_reinstatement_undoes_the_past<F: StoreFixture>(
    trial: &Trial<'_, F>,
) -> Trialed {
    let target = Target::session("s");
    let iat = trial.now().as_secs() - 60;
    let claims = json!({ "jti": "t", "sid": "s", "sub": "alice", "iat": iat });
    let token = trial.token_of(&TokenProfile::new(), claims)?;
    let outcome = trial.reinstate(target.clone()).await?.outcome;
    ensure_eq!(outcome, Outcome::Already, "a reinstatement of what was never revoked");
    trial.revoke(target.clone()).await?;
    let outcome = trial.reinstate(target.clone()).await?.outcome;
    ensure_eq!(outcome, Outcome::New, "a reinstatement of what is revoked");
    ensure!(!trial.is_revoked(&token).await?, "the token is still revoked");
    ensure_eq!(trial.store.count().await?, 0, "how many records are in effect");
    let listed = trial.list(ListQuery::default()).await?;
    ensure!(listed.is_empty(), "it is listed: {listed:?}");
    let record = trial.record(&target).await?;
    ensure!(!record.is_in_effect(), "the record is in effect: {record:?}");
    let outcome = trial.reinstate(target).await?.outcome;
    ensure_eq!(outcome, Outcome::Already, "a second reinstatement");
    Ok(())
}

pub(super) async fn a_tie_is_revoked<F: StoreFixture>(trial: &Trial<'_, F>) -> Trialed {
    // Fast enough that some fall in the same millisecond.
    for round in 0..50 {
        let target = Target::session(format!("s{round}"));
        let token = trial.token_of(
            &TokenProfile::new(),
            json!({ "jti": "t", "sid": target.id(), "iat": trial.now().as_secs() - 60 }),
        )?;
        trial.revoke(target.clone()).await?;
        trial.reinstate(target.clone()).await?;
        ensure!(!trial.is_revoked(&token).await?, "a token is revoked after the reinstatement");
        let outcome = trial.revoke(target.clone()).await?.outcome;
        ensure_eq!(outcome, Outcome::New, "a revocation right after a reinstatement");
        ensure!(trial.is_revoked(&token).await?, "a token is live after the second revocation");
    }
    Ok(())
}

pub(super) async fn a_reinstatement_leaves_other_targets<F: StoreFixture>(
    trial: &Trial<'_, F>,
) -> Trialed {
    let iat = trial.now().as_secs() - 60;
    let claims = json!({ "jti": "t", "sid": "s", "sub": "alice", "iat": iat });
    let token = trial.token_of(&TokenProfile::new(), claims)?;
    for target in [Target::user("alice"), Target::session("s"), Target::user("s")] {
        trial.revoke(target).await?;
    }
    trial.reinstate(Target::session("s")).await?;
    let through = trial.revoked_by(&token).await?;
    ensure_eq!(through, Some(TargetKind::User), "a token whose user is still revoked");
    let other = trial.record(&Target::user("s")).await?;
    ensure!(other.is_in_effect(), "a target with the same id and another kind was reinstated");
    Ok(())
}

pub(super) async fn receipts_come_in_order<F: StoreFixture>(trial: &Trial<'_, F>) -> Trialed {
    let mut changes: Vec<_> =
        (0..700).map(|n| Revocation::new(Target::token(format!("t{n}")), HOUR)).collect();
    let again = Revocation::new(Target::token("t0"), HOUR * 2);
    let mut over = Revocation::new(Target::token("over"), Duration::ZERO);
    over.until = Timestamp::from_secs(1);
    changes.insert(300, over);
    changes.push(Revocation::new(Target::user("alice"), HOUR));
    changes.push(again);
    let receipts = trial.write_all(changes).await?;
    for (n, receipt) in receipts.iter().enumerate() {
        let (outcome, has_cutoff) = match n {
            300 => (Outcome::AlreadyExpired, false),
            701 => (Outcome::New, true),
            702 => (Outcome::Extended, false),
            _ => (Outcome::New, false),
        };
        ensure_eq!(receipt.outcome, outcome, "the outcome of change {n}");
        ensure_eq!(receipt.reissue_at.is_some(), has_cutoff, "whether {n} set a cutoff");
    }
    for n in [0, 299, 300, 350, 699] {
        let token = trial.token("x", &format!("t{n}"))?;
        ensure!(trial.is_revoked(&token).await?, "the token of t{n} is live");
    }
    ensure_eq!(trial.store.count().await?, 701, "how many records there are");
    Ok(())
}

pub(super) async fn changes_of_one_write_are_done_in_order<F: StoreFixture>(
    trial: &Trial<'_, F>,
) -> Trialed {
    let (back, out) = (Target::session("back"), Target::session("out"));
    let receipts = trial
        .write_all(vec![
            revocation(back.clone(), ALL),
            revocation(back.clone(), Action::Reinstate),
            revocation(out.clone(), ALL),
            revocation(out.clone(), Action::Reinstate),
            revocation(out.clone(), ALL),
        ])
        .await?;
    for (n, receipt) in receipts.iter().enumerate() {
        ensure_eq!(receipt.outcome, Outcome::New, "the outcome of change {n}");
    }
    let in_effect =
        (trial.record(&back).await?.is_in_effect(), trial.record(&out).await?.is_in_effect());
    ensure_eq!(in_effect, (false, true), "whether the last change of each is in effect");
    Ok(())
}

pub(super) async fn nothing_asked_is_nothing_done<F: StoreFixture>(
    trial: &Trial<'_, F>,
) -> Trialed {
    trial.write_all(Vec::new()).await?;
    ensure_eq!(trial.store.count().await?, 0, "how many records there are");
    Ok(())
}

pub(super) async fn a_record_says_who_what_why_and_when<F: StoreFixture>(
    trial: &Trial<'_, F>,
) -> Trialed {
    let target = Target::claim("tenant", "acme \"{}\"\0\n").issued_by("https://id.example");
    ensure_eq!(trial.find(&target).await?, None, "before the write");
    let before = trial.now();
    let mut change = Revocation::new(target.clone(), HOUR);
    (change.reason, change.actor) = (Some("contract ended\n".into()), Some("support:7 ü".into()));
    let receipt = trial.write(change).await?;
    let record = trial.record(&target).await?;
    ensure_eq!(record.target(), &target, "the target");
    ensure_eq!(record.reason().map(|reason| &**reason), Some("contract ended\n"), "the reason");
    ensure_eq!(record.actor().map(|actor| &**actor), Some("support:7 ü"), "the actor");
    ensure_eq!(record.changed_at(), receipt.at, "when it was changed");
    ensure_eq!(record.until(), receipt.at.saturating_add(HOUR), "its end");
    ensure_eq!(record.reissue_at(), receipt.reissue_at, "reissue_at of record and receipt");
    let slack = Duration::from_secs(1);
    let latest = trial.now().saturating_add(slack);
    ensure!(
        before.saturating_sub(slack) <= receipt.at && receipt.at <= latest,
        "it is dated {}, and it was written between {before} and {latest}",
        receipt.at
    );
    // The note is that of the latest change, and a change without one leaves none.
    trial.fixture.advance(MILLISECOND * 2).await;
    trial.write(Revocation::new(target.clone(), HOUR * 2)).await?;
    let record = trial.record(&target).await?;
    ensure_eq!(record.reason(), None, "the reason of a change that has none");
    ensure_eq!(record.actor(), None, "the actor of a change that has none");
    Ok(())
}

pub(super) async fn what_is_over_needs_no_record<F: StoreFixture>(trial: &Trial<'_, F>) -> Trialed {
    let mut change = Revocation::new(Target::token("t"), Duration::ZERO);
    change.until = trial.now().saturating_sub(HOUR);
    ensure_eq!(trial.write(change).await?.outcome, Outcome::AlreadyExpired, "the outcome");
    ensure_eq!(trial.find(&Target::token("t")).await?, None, "its record");
    ensure_eq!(trial.store.count().await?, 0, "how many records there are");
    Ok(())
}

pub(super) async fn a_record_is_kept_until_its_end<F: StoreFixture>(
    trial: &Trial<'_, F>,
) -> Trialed {
    let (short, long) = (Duration::from_millis(300), HOUR);
    for (id, lifetime) in [("short", short), ("long", long)] {
        trial.write(Revocation::new(Target::token(id), lifetime)).await?;
    }
    // The longer end counts, whichever was written last.
    trial.write(Revocation::new(Target::token("both"), long)).await?;
    trial.write(Revocation::new(Target::token("both"), short)).await?;
    trial.fixture.advance(short * 2).await;
    for id in ["long", "both"] {
        let token = trial.token("u", id)?;
        ensure!(trial.is_revoked(&token).await?, "{id} was forgotten before its end");
        ensure!(trial.find(&Target::token(id)).await?.is_some(), "{id} has no record any more");
    }
    // One that is remembered for ever.
    let mut change = Revocation::new(Target::key("k"), HOUR);
    change.action = ALL;
    change.outlive_tokens();
    trial.write(change).await?;
    let record = trial.record(&Target::key("k")).await?;
    let a_century = trial.now().saturating_add(HOUR * 24 * 365 * 100);
    ensure!(record.until() > a_century, "a record that never ends ends at {}", record.until());
    Ok(())
}

pub(super) async fn expiry_only_forgets<F: StoreFixture>(trial: &Trial<'_, F>) -> Trialed {
    let target = Target::user("alice");
    let short = Duration::from_millis(300);
    let mut change = Revocation::new(target.clone(), short);
    (change.action, change.reason) = (ALL, Some("first".into()));
    trial.write(change).await?;
    trial.fixture.advance(short * 2).await;
    ensure_eq!(trial.find(&target).await?, None, "the record of what is over");
    ensure_eq!(trial.store.count().await?, 0, "how many records are in effect");
    let listed = trial.list(ListQuery::default()).await?;
    ensure!(listed.is_empty(), "what is over is listed: {listed:?}");
    let outcome = trial.reinstate(target.clone()).await?.outcome;
    ensure_eq!(outcome, Outcome::Already, "a reinstatement of what is over");
    let receipt = trial.revoke(target.clone()).await?;
    ensure_eq!(receipt.outcome, Outcome::New, "a revocation after the end of another");
    let record = trial.record(&target).await?;
    ensure!(!record.revokes_all(), "what was over has a part in what was written next");
    ensure_eq!(record.cutoff(), Some(receipt.at), "the cutoff of what was written next");
    Ok(())
}

pub(super) async fn unusual_ids_are_only_themselves<F: StoreFixture>(
    trial: &Trial<'_, F>,
) -> Trialed {
    let long = "x".repeat(MAX_ID_BYTES);
    let ids = [
        "a",
        "a ",
        "A",
        "a:b",
        "{a}",
        "}a{",
        "a\n",
        "a\r\n",
        "a\0",
        "ä",
        "a\u{308}",
        "*",
        "a*",
        "[a]",
        "\\",
        "\"",
        "'",
        "' OR '1'='1",
        "%",
        "_",
        "?",
        ";",
        "{",
        "}",
        ":r:",
        "\u{202e}",
        "a\u{ffff}",
        &long,
    ];
    for (n, revoked) in ids.iter().enumerate() {
        trial.revoke(Target::token(*revoked)).await?;
        for (m, id) in ids.iter().enumerate() {
            let token = trial.token("u", id)?;
            let is_revoked = trial.is_revoked(&token).await?;
            ensure_eq!(is_revoked, m <= n, "whether {id:?} is revoked after {revoked:?}");
        }
        let record = trial.record(&Target::token(*revoked)).await?;
        ensure_eq!(record.target().id(), *revoked, "the id of the record");
    }
    ensure_eq!(trial.store.count().await?, ids.len() as u64, "how many records there are");
    Ok(())
}

pub(super) async fn the_longest_texts_are_kept<F: StoreFixture>(trial: &Trial<'_, F>) -> Trialed {
    for text in ["x".repeat(MAX_ID_BYTES), "ü".repeat(MAX_ID_BYTES / 2)] {
        let target = Target::claim(text.clone(), text.clone()).issued_by(text.clone());
        let mut change = Revocation::new(target.clone(), HOUR);
        (change.reason, change.actor) = (Some((&*text).into()), Some((&*text).into()));
        trial.write(change).await?;
        let record = trial.record(&target).await?;
        ensure_eq!(record.target(), &target, "the target");
        ensure_eq!(record.reason().map(|reason| &**reason), Some(&*text), "the reason");
        ensure_eq!(record.actor().map(|actor| &**actor), Some(&*text), "the actor");
    }
    // An id that is longer, or empty, is refused or kept as it is.
    for id in ["x".repeat(MAX_ID_BYTES * 4), String::new()] {
        let length = id.len();
        let target = Target::token(id);
        if trial.write(Revocation::new(target.clone(), HOUR)).await.is_ok() {
            let record = trial.record(&target).await?;
            ensure!(record.target() == &target, "an id of {length} bytes is another");
        } else {
            ensure_eq!(trial.find(&target).await?, None, "what was refused");
        }
    }
    // A reason that is empty is one.
    let target = Target::user("alice");
    let mut change = Revocation::new(target.clone(), HOUR);
    change.reason = Some("".into());
    trial.write(change).await?;
    let record = trial.record(&target).await?;
    ensure_eq!(record.reason().map(|reason| &**reason), Some(""), "a reason that is empty");
    ensure_eq!(record.actor(), None, "an actor that was not named");
    Ok(())
}

pub(super) async fn ids_of_others_are_apart<F: StoreFixture>(trial: &Trial<'_, F>) -> Trialed {
    let profile = TokenProfile::new()
        .with_issuer("https://a.example")
        .with_issuer("https://b.example")
        .with_claim_target("tenant", TargetKind::Claim)
        .with_claim_target("team", TargetKind::Claim);
    let iat = trial.now().as_secs() - 9;
    let of = |issuer: &str| {
        let claims = json!({
            "iss": issuer, "sub": "alice", "jti": "t", "tenant": "x", "team": "y", "iat": iat,
        });
        trial.token_of(&profile, claims)
    };
    let (a, b) = (of("https://a.example")?, of("https://b.example")?);
    for target in [Target::user("alice"), Target::token("t"), Target::claim("tenant", "x")] {
        let target = target.issued_by("https://a.example");
        trial.revoke(target.clone()).await?;
        ensure!(trial.is_revoked(&a).await?, "{target} is revoked, and a token of it is live");
        ensure!(!trial.is_revoked(&b).await?, "a token of another issuer is revoked by {target}");
        trial.reinstate(target).await?;
    }
    for target in [Target::claim("tenant", "y"), Target::claim("team", "x"), Target::user("x")] {
        let target = target.issued_by("https://a.example");
        trial.revoke(target.clone()).await?;
        ensure!(!trial.is_revoked(&a).await?, "a token that has no {target} is revoked by it");
    }
    trial.revoke(Target::issuer("https://b.example")).await?;
    let through = trial.revoked_by(&b).await?;
    ensure_eq!(through, Some(TargetKind::Issuer), "a token of the issuer, which is revoked");
    ensure!(!trial.is_revoked(&a).await?, "a token of another issuer is revoked");
    Ok(())
}

pub(super) async fn a_listing_is_complete<F: StoreFixture>(trial: &Trial<'_, F>) -> Trialed {
    let mut expected = Vec::new();
    let mut changes = Vec::new();
    for n in 0..250 {
        let target = Target::token(format!("t{n}"));
        expected.push(target.to_string());
        changes.push(Revocation::new(target, HOUR));
    }
    trial.write_all(changes).await?;
    // What is not in effect does not belong in it.
    trial.reinstate(Target::token("t7")).await?;
    expected.retain(|target| target != "token t7");
    expected.sort();
    for limit in [1, 7, 100, 1000, 1_000_000] {
        let query = ListQuery { limit: NonZeroUsize::new(limit), ..ListQuery::default() };
        let found = trial.list(query).await?;
        ensure_eq!(found.len(), expected.len(), "how many are listed in pages of {limit}");
        ensure!(found == expected, "others are listed than were written, in pages of {limit}");
    }
    let found = trial.list(ListQuery::default()).await?;
    ensure!(found == expected, "others are listed than were written, without a limit");
    Ok(())
}

pub(super) async fn a_listing_is_filtered<F: StoreFixture>(trial: &Trial<'_, F>) -> Trialed {
    let mut changes = Vec::new();
    for n in 0..60 {
        let target = Target::token(format!("t{n}")).issued_by("https://id.example");
        let mut change = Revocation::new(target, HOUR);
        change.actor = Some(if n % 2 == 0 { "even".into() } else { "odd".into() });
        changes.push(change);
    }
    changes.push(Revocation::new(Target::user("alice").issued_by("https://other.example"), HOUR));
    changes.push(Revocation::new(Target::user("bob"), HOUR));
    trial.write_all(changes).await?;

    let mut query = ListQuery { kind: Some(TargetKind::Token), ..ListQuery::default() };
    ensure_eq!(trial.list(query.clone()).await?.len(), 60, "how many are tokens");
    query.actor = Some("odd".into());
    query.limit = NonZeroUsize::new(7);
    ensure_eq!(trial.list(query.clone()).await?.len(), 30, "how many tokens are of this actor");
    query.kind = Some(TargetKind::User);
    ensure_eq!(trial.list(query).await?.len(), 0, "how many users are of this actor");
    let issuer = Some("https://other.example".into());
    let query = ListQuery { issuer, ..ListQuery::default() };
    ensure_eq!(
        trial.list(query).await?,
        ["user alice of https://other.example"],
        "what is of this issuer"
    );
    Ok(())
}

pub(super) async fn a_foreign_cursor_is_an_error<F: StoreFixture>(trial: &Trial<'_, F>) -> Trialed {
    trial.revoke(Target::token("t")).await?;
    for text in ["", "x", "-1", "99999:0", "\0", "0:0:0", "' OR '1'='1", &"9".repeat(1000)] {
        let query = ListQuery { cursor: Some(text.into()), ..ListQuery::default() };
        match trial.store.list(query).await {
            Ok(page) => return Err(Failure(format!("{text:?} was answered with {page:?}"))),
            Err(error) => {
                ensure_eq!(error.kind(), StoreErrorKind::InvalidInput, "the error for {text:?}");
            }
        }
    }
    Ok(())
}

pub(super) async fn count_is_what_is_in_effect<F: StoreFixture>(trial: &Trial<'_, F>) -> Trialed {
    let count = || async { Ok::<_, Failure>(trial.store.count().await?) };
    ensure_eq!(count().await?, 0, "how many records an empty store has");
    for (n, target) in
        [Target::token("a"), Target::user("a"), Target::claim("a", "a")].into_iter().enumerate()
    {
        trial.revoke(target.clone()).await?;
        trial.revoke(target).await?;
        ensure_eq!(count().await?, n as u64 + 1, "how many records there are");
    }
    trial.reinstate(Target::user("a")).await?;
    ensure_eq!(count().await?, 2, "how many there are after one was reinstated");
    trial.revoke(Target::user("a")).await?;
    ensure_eq!(count().await?, 3, "how many there are after it was revoked again");
    Ok(())
}

pub(super) async fn a_dropped_write_goes_on<F: StoreFixture>(trial: &Trial<'_, F>) -> Trialed {
    for (id, is_polled) in [("unpolled", false), ("polled", true)] {
        let mut pending = trial.store.write(vec![Revocation::new(Target::token(id), HOUR)]);
        if is_polled {
            // Whether it is done at once or not: what was begun is finished.
            let _ = (&mut pending).now_or_never();
        }
        drop(pending);
        let token = trial.token("u", id)?;
        let mut waited = Duration::ZERO;
        while !trial.is_revoked(&token).await? {
            ensure!(waited < Duration::from_secs(5), "a write that was dropped {id} is not done");
            sleep(MILLISECOND * 10).await;
            waited += MILLISECOND * 10;
        }
    }
    Ok(())
}

pub(super) async fn overlapping_writes_are_all_kept<F: StoreFixture>(
    trial: &Trial<'_, F>,
) -> Trialed {
    let base = trial.now().saturating_sub(MINUTE);
    for round in 0..5 {
        let target = Target::user(format!("u{round}"));
        let writes = (0..24).map(|n| {
            let cutoff = base.saturating_add(MILLISECOND * n);
            let mut change = revocation(target.clone(), issued_until(cutoff));
            change.lifetime = HOUR + Duration::from_secs(24 - u64::from(n));
            let one_more = Revocation::new(Target::token(format!("{round}.{n}")), HOUR);
            let store = Arc::clone(&trial.store);
            tokio::spawn(async move { store.write(vec![change, one_more]).await })
        });
        let before = trial.now();
        for answer in join_all(writes).await {
            let answer = answer.map_err(|error| Failure(format!("a write panicked: {error}")))?;
            answer?;
        }
        let record = trial.record(&target).await?;
        let last = base.saturating_add(MILLISECOND * 23);
        ensure_eq!(record.cutoff(), Some(last), "the latest of 24 cutoffs");
        let end = before.saturating_add(HOUR + Duration::from_secs(23));
        ensure!(record.until() >= end, "it is kept until {}, not {end}", record.until());
        ensure_eq!(trial.store.count().await?, (round + 1) * 25, "how many records there are");
    }
    Ok(())
}

pub(super) async fn a_fence_can_be_asked_about<F: StoreFixture>(trial: &Trial<'_, F>) -> Trialed {
    let Some(fence) = trial.revoke(Target::token("t")).await?.fence else { return Ok(()) };
    match trial.store.followers(fence).await {
        // Mirrors that are there may not have said so yet: it can be asked again.
        Err(error) if error.kind() == StoreErrorKind::Stale => Ok(()),
        answer => Ok(answer.map(drop)?),
    }
}

pub(super) async fn a_watch_ends_with_the_revocation<F: StoreFixture>(
    trial: &Trial<'_, F>,
) -> Trialed {
    let (token, other) = (trial.token("alice", "t")?, trial.token("bob", "o")?);
    let Some(mut watch) = trial.store.watch(&token) else { return Ok(()) };
    ensure!((&mut watch).now_or_never().is_none(), "the watch of a live token ends");
    trial.revoke(Target::user("bob")).await?;
    ensure!((&mut watch).now_or_never().is_none(), "the watch ends with the token of another");
    trial.revoke(Target::user("alice")).await?;
    let again = trial.store.watch(&other);
    let again = again.ok_or_else(|| Failure("some tokens can be watched and others not".into()))?;
    for watch in [watch, again] {
        ensure_eq!(watch.await.kind, TargetKind::User, "the kind through which it is revoked");
    }
    Ok(())
}

pub(super) async fn erased_names_leave_what_is_revoked<F: StoreFixture>(
    trial: &Trial<'_, F>,
) -> Trialed {
    let (alice, bob) = (Target::user("alice"), Target::user("bob"));
    let mut change = Revocation::new(alice.clone(), HOUR);
    (change.reason, change.actor) = (Some("alice asked".into()), Some("alice".into()));
    let other = Revocation { target: bob.clone(), ..change.clone() };
    trial.store.write(vec![change, other]).await?;
    let (before, of_bob) = (trial.record(&alice).await?, trial.record(&bob).await?);
    let unknown = Target::token("unknown");
    // Again, as after an error.
    for _ in 0..2 {
        match trial.store.erase_names(vec![alice.clone(), unknown.clone()]).await {
            Err(error) if error.kind() == StoreErrorKind::InvalidInput => return Ok(()),
            erased => erased?,
        }
        let after = trial.record(&alice).await?;
        ensure_eq!(after.fact(), before.fact(), "what decides of an erased record");
        let words = format!("{after:?}");
        ensure!(!words.contains("alice"), "an erased record still says {words}");
        let token = trial.token("alice", "t")?;
        ensure!(trial.is_revoked(&token).await?, "what was erased is not revoked any more");
        ensure_eq!(trial.record(&bob).await?, of_bob, "the record of another");
        ensure_eq!(trial.store.find(&unknown).await?, None, "what was never revoked");
    }
    trial.reinstate(alice).await?;
    let token = trial.token("alice", "t")?;
    ensure!(!trial.is_revoked(&token).await?, "what was erased cannot be reinstated");
    Ok(())
}

pub(super) async fn the_revoker_writes_what_the_check_finds<F: StoreFixture>(
    trial: &Trial<'_, F>,
) -> Trialed {
    let revoker = Revoker::new(Arc::clone(&trial.store), TokenProfile::new())
        .map_err(|error| Failure(format!("the revoker of the test: {error}")))?;
    let token = trial.token("alice", "t")?;
    let receipt = revoker.revoke_token(&token).reason("logout").await?;
    ensure_eq!(receipt.outcome, Outcome::New, "the outcome");
    let Standing::Revoked(by) = trial.standing(&token).await? else {
        return Err(Failure("the token is live".into()));
    };
    ensure_eq!(by.kind, TargetKind::Token, "the kind through which it is revoked");
    // Not every store remembers why and when; what it remembers is right.
    if by.at.is_some() || by.reason.is_some() {
        ensure_eq!(by.reason.as_deref(), Some("logout"), "the reason that the check says");
        ensure_eq!(by.at, Some(receipt.at), "the time that the check says");
    }
    let record = revoker.find(Target::token("t")).await?;
    let record = record.ok_or_else(|| Failure("the revoker does not find its record".into()))?;
    ensure!(record.until() > token.expires_at(), "the record does not outlive the token");
    Ok(())
}

/// How long the next server may take until it has everything.
const PUT_BACK_WITHIN: Duration = Duration::from_secs(45);

pub(super) async fn a_change_of_server_loses_nothing<F: StoreFixture>(
    trial: &Trial<'_, F>,
) -> Trialed {
    let mut tokens = vec![("untouched", trial.token("u", "untouched")?, false)];
    for id in ["first", "second", "third"] {
        trial.revoke(Target::token(id)).await?;
        tokens.push((id, trial.token("u", id)?, true));
    }
    trial.revoke(Target::token("reinstated")).await?;
    trial.reinstate(Target::token("reinstated")).await?;
    tokens.push(("reinstated", trial.token("u", "reinstated")?, false));
    if !trial.fixture.change_server(&trial.store).await {
        return Ok(());
    }
    let start = Instant::now();
    loop {
        let mut is_settled = true;
        for (id, token, is_revoked) in &tokens {
            match trial.store.check(token).answer().await {
                Ok(Standing::Live) => {
                    ensure!(!is_revoked, "the token {id}, which is revoked, is live after it");
                }
                // What a token was reinstated from may be known again before that is.
                Ok(Standing::Revoked(_)) => is_settled &= *is_revoked,
                Err(error) => {
                    ensure!(error.may_be_repeated(), "waiting does not help: {error}");
                    is_settled = false;
                }
            }
        }
        if is_settled {
            break;
        }
        ensure!(start.elapsed() < PUT_BACK_WITHIN, "not everything is there again");
        sleep(Duration::from_millis(20)).await;
    }
    trial.revoke(Target::token("later")).await?;
    let later = trial.token("u", "later")?;
    ensure!(trial.is_revoked(&later).await?, "what was revoked after it");
    Ok(())
}
