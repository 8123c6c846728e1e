//! The table of the decision machine row by row, and a model in which owners lose replies and
//! thieves steal.

use proptest::prelude::*;

use super::*;
use crate::revocation::{Extent, Record, Revocation, Target};

const T0: Timestamp = Timestamp::from_secs(1_000_000);
const GRACE: Duration = Duration::from_secs(10);

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

/// A token of the model: its text stands for the secret.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Token {
    text: String,
    generation: u32,
}

impl Token {
    fn first() -> Self {
        Self { text: "R".into(), generation: 0 }
    }

    fn digest(&self) -> TokenDigest {
        TokenDigest::of(self.text.as_bytes())
    }

    fn successor(&self, seed: &str) -> Self {
        Self { text: format!("{}-{seed}", self.text), generation: self.generation + 1 }
    }

    fn presented(&self) -> PresentedToken<'static> {
        PresentedToken {
            digest: self.digest(),
            origin: TokenOrigin::Generation(self.generation),
            client: None,
        }
    }
}

fn family() -> Family {
    Family {
        user: "alice".into(),
        session: None,
        device: None,
        client: None,
        key: FamilyKey::unused(),
        created_at: T0,
        used_at: T0,
        touched_at: T0,
        generation: 0,
        current: Token::first().digest(),
        parent: None,
    }
}

fn policy() -> RefreshPolicy {
    RefreshPolicy::new().with_grace(GRACE)
}

/// The service in small: decides, applies, hands out.
struct World {
    family: Family,
    policy: RefreshPolicy,
    now: Timestamp,
    seeds: u32,
    dead: bool,
    issued: Vec<Token>,
}

impl World {
    fn new(policy: RefreshPolicy) -> Self {
        Self {
            family: family(),
            policy,
            now: T0,
            seeds: 0,
            dead: false,
            issued: vec![Token::first()],
        }
    }

    fn decide(&self, token: &Token) -> RefreshDecision {
        self.family.decide(&token.presented(), &[], (self.now, Doubt::None, None), &self.policy)
    }

    fn refresh(&mut self, token: &Token) -> (RefreshDecision, Option<Token>) {
        if self.dead {
            return (RefreshDecision::Unknown, None);
        }
        let verdict = self.decide(token);
        let next = match &verdict {
            RefreshDecision::Rotate | RefreshDecision::Recover => {
                self.seeds += 1;
                let seed = self.seeds.to_string();
                let next = token.successor(&seed);
                let change = if verdict == RefreshDecision::Rotate {
                    Family::rotated
                } else {
                    Family::recovered
                };
                self.family = change(&self.family, next.digest(), seed.into(), self.now);
                self.issued.push(next.clone());
                Some(next)
            }
            RefreshDecision::Replay { seed } => Some(token.successor(seed)),
            RefreshDecision::Deliver { seed } => {
                self.family = self.family.delivered(self.now);
                Some(token.successor(seed))
            }
            RefreshDecision::Reuse(_) => {
                self.dead = true;
                None
            }
            _ => None,
        };
        (verdict, next)
    }

    /// The tokens that could be presented now and would be answered.
    fn usable(&self) -> Vec<&Token> {
        let answered = |token: &&Token| {
            matches!(
                self.decide(token),
                RefreshDecision::Rotate
                    | RefreshDecision::Replay { .. }
                    | RefreshDecision::Deliver { .. }
                    | RefreshDecision::Recover
            )
        };
        if self.dead { Vec::new() } else { self.issued.iter().filter(answered).collect() }
    }
}

// === The table ===

#[test]
fn the_current_token_is_rotated() {
    let mut world = World::new(policy());
    let (verdict, next) = world.refresh(&Token::first());
    assert_eq!(verdict, RefreshDecision::Rotate);
    assert_eq!(world.refresh(&next.unwrap()).0, RefreshDecision::Rotate);
    assert_eq!(world.family.generation, 2);
}

#[test]
fn the_parent_gets_the_same_successor_until_the_grace_is_over() {
    let mut world = World::new(policy());
    let next = world.refresh(&Token::first()).1;
    for _ in 0..3 {
        world.now = world.now.saturating_add(secs(3));
        assert_eq!(world.refresh(&Token::first()).1, next, "a retry must not extend the grace");
    }
    world.now = T0.saturating_add(GRACE);
    assert_eq!(world.refresh(&Token::first()).0, RefreshDecision::Reuse(ReuseClass::Parent));
}

#[test]
fn the_first_use_of_the_successor_closes_the_grace() {
    let mut world = World::new(policy());
    let next = world.refresh(&Token::first()).1.unwrap();
    world.refresh(&next);
    assert_eq!(world.refresh(&Token::first()).0, RefreshDecision::Reuse(ReuseClass::Older));
}

#[test]
fn whoever_heard_nothing_of_the_successor_gets_it_however_late_and_then_has_a_grace() {
    for grace in [Duration::ZERO, GRACE] {
        let mut world = World::new(policy().with_grace(grace));
        let next = world.refresh(&Token::first()).1;
        world.family = world.family.unanswered();
        world.now = world.now.saturating_add(secs(1000));
        let (verdict, again) = world.refresh(&Token::first());
        assert!(matches!(verdict, RefreshDecision::Deliver { .. }));
        assert_eq!(again, next);
        world.now = world.now.saturating_add(grace);
        assert_eq!(world.refresh(&Token::first()).0, RefreshDecision::Reuse(ReuseClass::Parent));
    }
    // Nothing is known of the parent of a token that was used.
    let mut world = World::new(policy());
    let next = world.refresh(&Token::first()).1.unwrap();
    world.family = world.family.unanswered();
    world.refresh(&next);
    assert_eq!(world.refresh(&Token::first()).0, RefreshDecision::Reuse(ReuseClass::Older));
}

#[test]
fn strict_means_once() {
    let mut world = World::new(policy().with_grace(Duration::ZERO));
    world.refresh(&Token::first());
    assert_eq!(world.refresh(&Token::first()).0, RefreshDecision::Reuse(ReuseClass::Parent));
}

#[test]
fn a_clock_that_goes_back_does_not_open_a_strict_family() {
    let mut world = World::new(policy().with_grace(Duration::ZERO));
    world.refresh(&Token::first());
    world.now = T0.saturating_sub(secs(5));
    assert_eq!(world.refresh(&Token::first()).0, RefreshDecision::Reuse(ReuseClass::Parent));
}

#[test]
fn a_lost_response_is_recovered_once_and_its_successor_is_superseded() {
    let mut world = World::new(policy().with_recovery());
    let lost = world.refresh(&Token::first()).1.unwrap();
    world.now = world.now.saturating_add(secs(3600));
    let (verdict, recovered) = world.refresh(&Token::first());
    assert_eq!(verdict, RefreshDecision::Recover);
    assert_ne!(recovered, Some(lost.clone()));
    assert_eq!(
        world.refresh(&Token::first()).1,
        recovered,
        "the recovered response may be lost too"
    );
    assert_eq!(world.decide(recovered.as_ref().unwrap()), RefreshDecision::Rotate);
    assert_eq!(world.decide(&lost), RefreshDecision::Reuse(ReuseClass::Superseded));
    world.now = world.now.saturating_add(secs(3600));
    assert_eq!(world.decide(&Token::first()), RefreshDecision::Reuse(ReuseClass::Parent));
}

#[test]
fn without_rotation_the_token_stays() {
    let policy = policy().without_rotation();
    assert_eq!(
        family().decide(&Token::first().presented(), &[], (T0, Doubt::None, None), &policy),
        RefreshDecision::Keep
    );
    assert_eq!(family().used(T0.saturating_add(secs(5))).used_at, T0.saturating_add(secs(5)));
}

#[test]
fn what_was_not_issued_here_is_unknown_whatever_else_is_true() {
    let foreign = PresentedToken { origin: TokenOrigin::Foreign, ..Token::first().presented() };
    assert_eq!(
        family().decide(&foreign, &[], (T0, Doubt::None, None), &policy()),
        RefreshDecision::Unknown
    );
}

#[test]
fn another_client_is_refused_and_not_punished() {
    let bound = Family { client: Some("app".into()), ..family() };
    for (client, verdict) in [
        (None, RefreshDecision::WrongClient),
        (Some("other"), RefreshDecision::WrongClient),
        (Some("app"), RefreshDecision::Rotate),
    ] {
        let presented = PresentedToken { client, ..Token::first().presented() };
        assert_eq!(
            bound.decide(&presented, &[], (T0, Doubt::None, None), &policy()),
            verdict,
            "{client:?}"
        );
    }
    let presented = PresentedToken { client: Some("any"), ..Token::first().presented() };
    assert_eq!(
        family().decide(&presented, &[], (T0, Doubt::None, None), &policy()),
        RefreshDecision::Rotate,
        "an unbound family"
    );
}

#[test]
fn idle_and_absolute_lifetimes_end_it() {
    let policy = policy().with_idle_lifetime(secs(100)).with_max_age(secs(150));
    let decide = |family: &Family, now| {
        family.decide(&Token::first().presented(), &[], (now, Doubt::None, None), &policy)
    };
    assert_eq!(decide(&family(), T0.saturating_add(secs(99))), RefreshDecision::Rotate);
    assert_eq!(decide(&family(), T0.saturating_add(secs(100))), RefreshDecision::Expired);
    let used = family().used(T0.saturating_add(secs(99)));
    assert_eq!(decide(&used, T0.saturating_add(secs(149))), RefreshDecision::Rotate);
    assert_eq!(decide(&used, T0.saturating_add(secs(150))), RefreshDecision::Expired);
    assert_eq!(used.expires_at(&policy.clone().without_max_age()), T0.saturating_add(secs(199)));
}

#[test]
fn a_cutoff_ends_what_was_created_at_or_before_it() {
    let seen = |record: Option<Record>| Seen::new(Target::user("alice"), record, None);
    let cutoff_at = |at: Timestamp| {
        let mut change = Revocation::new(Target::user("alice"), secs(1000));
        change.action = crate::revocation::Action::Revoke(Extent::IssuedUntil(at));
        match change.apply(None, T0) {
            crate::revocation::Change::Write(_, record) => [seen(None), seen(Some(record))],
            crate::revocation::Change::Nothing(_) => unreachable!(),
        }
    };
    let decide = |records: &[Seen]| {
        family().decide(&Token::first().presented(), records, (T0, Doubt::None, None), &policy())
    };
    assert!(matches!(decide(&cutoff_at(T0)), RefreshDecision::Revoked(_)));
    assert_eq!(
        decide(&cutoff_at(T0.saturating_sub(Duration::from_millis(1)))),
        RefreshDecision::Rotate
    );
}

#[test]
fn a_generation_to_come_is_a_loss_of_the_store_and_hurts_nobody() {
    let ahead = Token { text: "R-1-2".into(), generation: 2 };
    let decide = |moved_at: Option<Timestamp>| {
        family().decide(&ahead.presented(), &[], (T0, Doubt::None, moved_at), &policy())
    };
    assert_eq!(decide(None), RefreshDecision::Lost);
    // Whoever has written it may be late to write it again.
    assert_eq!(decide(Some(T0.saturating_sub(secs(59)))), RefreshDecision::Behind);
    assert_eq!(decide(Some(T0.saturating_sub(secs(60)))), RefreshDecision::Lost);
}

#[test]
fn a_parent_of_before_a_change_of_the_server_may_come_late() {
    let rotated = family().rotated(Token::first().successor("1").digest(), "1".into(), T0);
    let decide = |moved_at: Option<u64>, now: u64| {
        let after = |seconds| T0.saturating_add(secs(seconds));
        let time = (after(now), Doubt::None, moved_at.map(after));
        rotated.decide(&Token::first().presented(), &[], time, &policy())
    };
    // An hour later by the clock of the next server.
    assert!(matches!(decide(Some(3600), 3659), RefreshDecision::Replay { .. }));
    assert!(!matches!(decide(Some(3600), 3660), RefreshDecision::Replay { .. }));
    // What was replaced at this server has had its grace.
    assert!(!matches!(decide(None, 3601), RefreshDecision::Replay { .. }));
    assert!(!matches!(decide(Some(0), 59), RefreshDecision::Replay { .. }));
}

#[test]
fn what_was_revoked_before_a_loss_of_data_is_not_known() {
    let decide = |issued_until| {
        let doubt = Doubt::Lasting { issued_until, ends_at: T0.saturating_add(secs(60)) };
        family().decide(&Token::first().presented(), &[], (T0, doubt, None), &policy())
    };
    assert_eq!(decide(T0), RefreshDecision::InDoubt);
    assert_eq!(decide(T0.saturating_sub(secs(1))), RefreshDecision::Rotate);
}

#[test]
fn an_id_the_application_vouches_for_is_checked_like_a_token() {
    let mut family = family();
    let vouched =
        |token: &Token| PresentedToken { origin: TokenOrigin::Vouched, ..token.presented() };
    let first = Token::first();
    assert_eq!(
        family.decide(&vouched(&first), &[], (T0, Doubt::None, None), &policy()),
        RefreshDecision::Rotate
    );
    for seed in ["1", "2"] {
        family = family.rotated(TokenDigest::of(seed.as_bytes()), seed.into(), T0);
    }
    assert_eq!(
        family.decide(&vouched(&first), &[], (T0, Doubt::None, None), &policy()),
        RefreshDecision::Reuse(ReuseClass::Older)
    );
}

#[test]
fn records_survive_the_store() {
    let rotated = family().rotated(TokenDigest::of(b"x"), "salt".into(), T0);
    let text = serde_json::to_string(&rotated).unwrap();
    assert_eq!(serde_json::from_str::<Family>(&text).unwrap(), rotated);
    let least = serde_json::to_string(&family()).unwrap();
    assert_eq!(serde_json::from_str::<Family>(&least).unwrap(), family());
}

#[test]
fn defaults_are_as_documented_and_absurd_settings_are_refused() {
    let policy = RefreshPolicy::new();
    assert_eq!((policy.grace, policy.idle), (secs(10), secs(14 * 24 * 3600)));
    assert_eq!(policy.max_age, Some(secs(90 * 24 * 3600)));
    assert!(policy.rotate && !policy.recover && !policy.report_only && policy.validate().is_ok());
    for (policy, setting) in [
        (RefreshPolicy::new().with_grace(secs(301)), "grace"),
        (RefreshPolicy::new().with_idle_lifetime(Duration::ZERO), "idle_lifetime"),
        (RefreshPolicy::new().with_max_age(Duration::ZERO), "max_age"),
    ] {
        assert_eq!(policy.validate().unwrap_err().setting(), setting);
    }
}

// === The model ===

#[derive(Clone, Debug)]
enum Step {
    /// The owner refreshes with what it last got.
    Owner,
    /// The owner refreshes and the answer is lost on the way.
    OwnerLoses,
    /// The owner refreshes, and is told of an error after it was done.
    OwnerUnanswered,
    /// A second tab of the owner repeats the refresh that the first one made last.
    OtherTab,
    /// Someone copies the token that the owner holds.
    Steal,
    /// The thief refreshes with what it last got or stole.
    Thief,
    /// Time passes.
    Wait(u64),
}

fn steps(thief: bool) -> impl Strategy<Value = Vec<Step>> {
    let honest = prop_oneof![
        4 => Just(Step::Owner),
        2 => Just(Step::OwnerLoses),
        1 => Just(Step::OwnerUnanswered),
        2 => Just(Step::OtherTab),
        3 => (1_u64..20).prop_map(Step::Wait),
    ];
    let any = prop_oneof![
        4 => Just(Step::Owner),
        1 => Just(Step::OwnerLoses),
        1 => Just(Step::OwnerUnanswered),
        1 => Just(Step::OtherTab),
        2 => Just(Step::Steal),
        3 => Just(Step::Thief),
        3 => (1_u64..20).prop_map(Step::Wait),
    ];
    prop::collection::vec(if thief { any.boxed() } else { honest.boxed() }, 1..60)
}

fn policies() -> impl Strategy<Value = RefreshPolicy> {
    (0_u64..12, any::<bool>()).prop_map(|(grace, recover)| {
        let policy = RefreshPolicy::new().with_grace(secs(grace));
        if recover { policy.with_recovery() } else { policy }
    })
}

proptest! {
    /// Whatever happens, at most one token can move the family on, and every other that is answered
    /// leads to it.
    #[test]
    fn one_family(steps in steps(true), policy in policies()) {
        let mut world = World::new(policy);
        let (mut owner, mut used, mut thief) = (Token::first(), None, None);
        for step in steps {
            match step {
                Step::Owner => {
                    used = Some(owner.clone());
                    if let Some(next) = world.refresh(&owner).1 { owner = next; }
                }
                Step::OwnerLoses => { world.refresh(&owner); }
                Step::OwnerUnanswered => if world.refresh(&owner).1.is_some() {
                    world.family = world.family.unanswered();
                },
                Step::OtherTab => if let Some(used) = &used { world.refresh(used); },
                Step::Steal => thief = Some(owner.clone()),
                Step::Thief => if let Some(token) = thief.clone()
                    && let Some(next) = world.refresh(&token).1 { thief = Some(next); },
                Step::Wait(s) => world.now = world.now.saturating_add(secs(s)),
            }
            let moving: Vec<_> = world.issued.iter()
                .filter(|token| {
                    !world.dead && matches!(world.decide(token), RefreshDecision::Rotate)
                })
                .collect();
            prop_assert!(moving.len() <= 1);
            for token in world.usable() {
                match world.decide(token) {
                    RefreshDecision::Rotate => {
                        prop_assert_eq!(token.digest(), world.family.current);
                    }
                    RefreshDecision::Replay { seed } | RefreshDecision::Deliver { seed } => {
                        prop_assert_eq!(token.successor(&seed).digest(), world.family.current);
                    }
                    RefreshDecision::Recover => prop_assert!(world.policy.recover),
                    other => prop_assert!(false, "{other:?} is not an answer"),
                }
            }
        }
    }

    /// After a theft: once the owner has refreshed again, and the grace has passed, the thief is
    /// out. Either the family is dead, or nothing that the thief holds is answered, and presenting
    /// it kills the family.
    #[test]
    fn the_thief_is_caught(
        before in 0_usize..4, thefts in 1_usize..4, grace in 0_u64..12, recover in any::<bool>(),
        lead in 0_u64..30,
    ) {
        let policy = RefreshPolicy::new().with_grace(secs(grace));
        let mut world = World::new(if recover { policy.with_recovery() } else { policy });
        let mut owner = Token::first();
        for _ in 0..before {
            owner = world.refresh(&owner).1.unwrap();
        }
        let mut thief = owner.clone();
        let mut loot = vec![thief.clone()];
        for _ in 0..thefts {
            thief = world.refresh(&thief).1.unwrap();
            loot.push(thief.clone());
        }
        world.now = world.now.saturating_add(secs(lead));
        // The owner's next refresh. Within the grace of a single theft it looks like another tab,
        // and the owner gets the successor that the thief has; so the one after it counts.
        for _ in 0..2 {
            if let Some(next) = world.refresh(&owner).1 { owner = next; }
        }
        world.now = world.now.saturating_add(secs(grace.max(1)));
        if !world.dead {
            for token in loot {
                let verdict = world.decide(&token);
                // With recovery, a parent whose successor the owner has not used yet is still
                // answered, once.
                let parent = world.family.parent.as_ref();
                let is_parent = parent.is_some_and(|parent| parent.digest == token.digest());
                let answered = verdict == RefreshDecision::Recover && recover && is_parent;
                let is_reuse = matches!(verdict, RefreshDecision::Reuse(_));
                prop_assert!(is_reuse || answered, "{verdict:?}");
            }
        }
    }

    /// Without a thief, retries, lost replies and other tabs within the grace never end a family.
    #[test]
    fn the_innocent_stay(steps in steps(false), recover in any::<bool>()) {
        let policy = RefreshPolicy::new().with_grace(GRACE);
        let mut world = World::new(if recover { policy.with_recovery() } else { policy });
        let mut owner = Token::first();
        let mut last_use: Option<(Token, Timestamp)> = None;
        for step in steps {
            match step {
                Step::Owner => {
                    last_use = Some((owner.clone(), world.now));
                    let (verdict, next) = world.refresh(&owner);
                    prop_assert!(next.is_some(), "{verdict:?}");
                    owner = next.unwrap();
                }
                Step::OwnerLoses => {
                    // The answer is lost and the owner repeats within the grace (without recovery)
                    // or whenever it likes (with it).
                    let lost = world.refresh(&owner);
                    prop_assert!(lost.1.is_some(), "{:?}", lost.0);
                    world.now = world.now.saturating_add(secs(if recover { 1000 } else { 9 }));
                    last_use = Some((owner.clone(), world.now));
                    let (verdict, next) = world.refresh(&owner);
                    prop_assert!(next.is_some(), "{verdict:?}");
                    owner = next.unwrap();
                }
                Step::OwnerUnanswered => {
                    // Nobody was told: the owner may repeat whenever it likes.
                    let lost = world.refresh(&owner);
                    prop_assert!(lost.1.is_some(), "{:?}", lost.0);
                    world.family = world.family.unanswered();
                    world.now = world.now.saturating_add(secs(1000));
                    last_use = Some((owner.clone(), world.now));
                    let (verdict, next) = world.refresh(&owner);
                    prop_assert_eq!(&next, &lost.1, "{:?}", verdict);
                    owner = next.unwrap();
                }
                Step::OtherTab => if let Some((token, at)) = &last_use {
                    let replaced_at = world.family.parent.as_ref().map(|parent| parent.replaced_at);
                    let within = replaced_at.is_some_and(|replaced| {
                        world.now.saturating_duration_since(replaced) < GRACE
                    });
                    if within && world.now.saturating_duration_since(*at) < GRACE {
                        let (verdict, next) = world.refresh(token);
                        prop_assert_eq!(next.as_ref(), Some(&owner), "{:?}", verdict);
                    }
                },
                Step::Wait(s) => world.now = world.now.saturating_add(secs(s)),
                Step::Steal | Step::Thief => {}
            }
            prop_assert!(!world.dead);
        }
    }
}
