//! What is remembered, for how long, and at whose cost.

use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::sync::{Barrier, Mutex};
use std::thread;

use super::*;
use crate::clock::{ManualClock, Timestamp};
use crate::token::TokenErrorKind;
use crate::token::profile::SignedClaims;

/// Takes `<anything>.<claims as JSON>.<anything>` for a signed token and counts how often it is
/// asked.
#[derive(Clone, Default)]
struct Inner(Arc<State>);

#[derive(Default)]
struct State {
    profile: TokenProfile,
    clock: ManualClock,
    generation: AtomicU64,
    verified: AtomicUsize,
    /// Whether the middle part of a token is its id, and not its claims.
    is_by_name: Mutex<bool>,
    /// Run in the middle of a verification.
    interlude: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

impl Inner {
    fn new() -> Self {
        let clock = ManualClock::new(Timestamp::from_secs(1000));
        let profile = TokenProfile::new().with_clock(clock.clone());
        Self(Arc::new(State { profile, clock, ..State::default() }))
    }

    /// How often it was asked since this was last called.
    fn asked(&self) -> usize {
        self.0.verified.swap(0, Ordering::SeqCst)
    }
}

impl TokenVerifier for Inner {
    fn verify(&self, token: &str) -> Result<Arc<VerifiedToken>, TokenError> {
        self.0.verified.fetch_add(1, Ordering::SeqCst);
        if let Some(interlude) = self.0.interlude.lock().unwrap().take() {
            interlude();
        }
        let claims = token.split('.').nth(1).unwrap_or_default();
        let by_name = format!(r#"{{"jti":"{claims}","iat":1000,"exp":2000}}"#);
        let claims = if *self.0.is_by_name.lock().unwrap() { &by_name } else { claims };
        self.profile().assert_verified(SignedClaims::new(claims.as_bytes())).map(Arc::new)
    }

    fn verify_for_revocation(&self, token: &str) -> Result<Arc<VerifiedToken>, TokenError> {
        self.verify(token)
    }

    fn profile(&self) -> &TokenProfile {
        &self.0.profile
    }

    fn generation(&self) -> u64 {
        self.0.generation.load(Ordering::SeqCst)
    }
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Inner")
    }
}

/// The `n`th of many tokens, valid from 1000 s to 2000 s, with something at its end that is like a
/// signature.
fn token(n: usize) -> String {
    let signature = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    format!(r#"h.{{"jti":"{n}","sub":"s{n}","iat":1000,"exp":2000}}.{signature:032x}"#)
}

fn verify_all(verifier: &impl TokenVerifier, tokens: impl IntoIterator<Item = usize>) {
    for n in tokens {
        assert_eq!(verifier.verify(&token(n)).unwrap().id(), Some(&*n.to_string()));
    }
}

/// As often as it takes until a token counts as used a lot.
fn use_a_lot(verifier: &impl TokenVerifier, tokens: &(impl IntoIterator<Item = usize> + Clone)) {
    for _ in 0..=CacheSlot::MANY_USES + 1 {
        verify_all(verifier, tokens.clone());
    }
}

/// How many of these are remembered. Asking does not count as a use.
fn found(verifier: &CachedVerifier<Inner>, tokens: impl IntoIterator<Item = usize>) -> usize {
    let entries = verifier.table.sets.iter().flat_map(|set| &set.slots);
    let known: Vec<_> = entries.filter_map(|slot| slot.entry.load_full()).collect();
    let generation = verifier.generation();
    tokens
        .into_iter()
        .filter(|n| known.iter().any(|entry| entry.is(token(*n).as_bytes(), generation)))
        .count()
}

#[test]
fn a_token_is_verified_once() {
    let inner = Inner::new();
    let verifier = CachedVerifier::new(inner.clone());
    use_a_lot(&verifier, &(0..3));
    assert_eq!(inner.asked(), 3);
}

#[test]
fn every_use_checks_the_times() {
    let inner = Inner::new();
    let verifier = CachedVerifier::new(inner.clone());
    let kind = || verifier.verify(&token(0)).map_err(|error| error.kind()).map(drop);
    assert_eq!(kind(), Ok(()));
    inner.0.clock.set(Timestamp::from_secs(2059));
    assert_eq!(kind(), Ok(()), "within the leeway");
    inner.0.clock.set(Timestamp::from_secs(2060));
    assert_eq!(kind(), Err(TokenErrorKind::Expired));
    inner.0.clock.set(Timestamp::from_secs(900));
    assert_eq!(kind(), Err(TokenErrorKind::IssuedInFuture), "a clock that went back");
    inner.0.clock.set(Timestamp::from_secs(1000));
    assert_eq!(kind(), Ok(()));
    assert_eq!(inner.asked(), 1, "none of this needed the signature");
}

#[test]
fn refused_tokens_are_not_remembered() {
    let inner = Inner::new();
    let verifier = CachedVerifier::new(inner.clone());
    for _ in 0..3 {
        assert_eq!(verifier.verify("no.token.here").unwrap_err().kind(), TokenErrorKind::Malformed);
    }
    assert_eq!(inner.asked(), 3);
}

#[test]
fn the_whole_token_is_compared() {
    let inner = Inner::new();
    let verifier = CachedVerifier::new(inner.clone());
    // Same length and same end, hence the same hash: the claims of another user in front of the
    // signature of this one.
    let (honest, forged) = (token(1), token(1).replace("s1", "s2"));
    assert_eq!(verifier.table.hash(honest.as_bytes()), verifier.table.hash(forged.as_bytes()));
    for _ in 0..3 {
        assert_eq!(verifier.verify(&honest).unwrap().subject(), Some("s1"));
        assert_eq!(verifier.verify(&forged).unwrap().subject(), Some("s2"));
    }
    assert_eq!(inner.asked(), 2);
}

#[test]
fn what_is_recalled_was_accepted_and_is_checked_again() {
    let inner = Inner::new();
    let verifier = CachedVerifier::new(inner.clone());
    let recalled = |credentials: &str| {
        let known = verifier.cached(credentials.as_bytes(), CrateOnly)?;
        Some(known.map(|token| token.id().map(str::to_owned)).map_err(|error| error.kind()))
    };
    *inner.0.is_by_name.lock().unwrap() = true;
    assert_eq!(recalled("a.b.c"), None, "never seen");
    verifier.verify_uncached("a.b.c", CrateOnly).unwrap();
    assert_eq!(recalled("a.b.c"), Some(Ok(Some("b".into()))));
    assert_eq!(recalled("a.b.d"), None);
    inner.0.clock.set(Timestamp::from_secs(2060));
    assert_eq!(recalled("a.b.c"), Some(Err(TokenErrorKind::Expired)));
    inner.0.clock.set(Timestamp::from_secs(1000));
    inner.0.generation.store(1, Ordering::SeqCst);
    assert_eq!(recalled("a.b.c"), None, "verified by keys that are no longer in force");

    // What no credentials can be is remembered, but not for those who have not looked at the
    // characters.
    for odd in ["a.b.c d", "a.b.\u{fc}", "a.b.c\"", "a.b.\n"] {
        verifier.verify(odd).unwrap();
        assert_eq!(recalled(odd), None, "{odd}");
    }
    inner.asked();
    verifier.verify("a.b.c d").unwrap();
    assert_eq!(inner.asked(), 0);
}

#[test]
fn any_number_of_tokens_with_one_hash_meet_in_one_set() {
    let inner = Inner::new();
    let verifier = CachedVerifier::new(inner.clone());
    use_a_lot(&verifier, &(0..50));
    assert_eq!(found(&verifier, 0..50), 50);
    let end = "e".repeat(32);
    for n in 10_000..20_000 {
        verifier
            .verify(&format!(r#"h.{{"jti":"{n}","sub":"s","iat":1000,"exp":2000}}.{end}"#))
            .unwrap();
    }
    assert!(found(&verifier, 0..50) >= 50 - WAYS, "only the set in which they met has lost");
}

#[test]
fn new_keys_empty_it() {
    let inner = Inner::new();
    let verifier = CachedVerifier::new(inner.clone());
    use_a_lot(&verifier, &(0..3));
    inner.0.generation.store(1, Ordering::SeqCst);
    assert_eq!(verifier.generation(), 1);
    inner.asked();
    use_a_lot(&verifier, &(0..3));
    assert_eq!(inner.asked(), 3, "verified anew, once");
}

#[test]
fn keys_that_change_during_a_verification_are_not_missed() {
    let inner = Inner::new();
    let verifier = CachedVerifier::new(inner.clone());
    let state = Arc::clone(&inner.0);
    let change = move || state.generation.store(1, Ordering::SeqCst);
    *inner.0.interlude.lock().unwrap() = Some(Box::new(change));
    verify_all(&verifier, [0]);
    verify_all(&verifier, [0, 0]);
    assert_eq!(
        inner.asked(),
        2,
        "what the old keys accepted counts for nothing under the new ones"
    );
}

#[test]
fn a_flood_of_fresh_tokens_pushes_out_none_that_was_used() {
    let inner = Inner::new();
    let verifier = CachedVerifier::new(inner.clone()).with_capacity(1024 * 1024);
    verify_all(&verifier, (0..100).chain(0..100));
    // Where too many meet in one set, some have only just come in again, and were not used since.
    let slots =
        verifier.table.sets.iter().flat_map(|set| &set.slots).filter(|slot| slot.uses() > 0);
    let entries: Vec<_> = slots.filter_map(|slot| slot.entry.load_full()).collect();
    let used: Vec<_> = (0..100)
        .filter(|n| entries.iter().any(|entry| entry.is(token(*n).as_bytes(), 0)))
        .collect();
    assert!(used.len() >= 90, "{} of 100 in a table for about 400", used.len());
    verify_all(&verifier, 1000..21_000);
    assert_eq!(found(&verifier, used.iter().copied()), used.len());
}

#[test]
fn a_token_that_comes_again_and_again_gets_in() {
    let inner = Inner::new();
    // One set, full of tokens that are used a lot.
    let verifier = CachedVerifier::new(inner.clone()).with_capacity(SET_BYTES);
    use_a_lot(&verifier, &(0..WAYS));
    assert_eq!(found(&verifier, 0..WAYS), WAYS);
    for _ in 0..CacheSlot::MANY_USES {
        verify_all(&verifier, [100]);
        assert_eq!(found(&verifier, 0..WAYS), WAYS, "not at once");
    }
    verify_all(&verifier, [100]);
    assert_eq!(found(&verifier, 100..101), 1);
    assert_eq!(found(&verifier, 0..WAYS), WAYS - 1);
}

#[test]
fn tokens_that_are_over_give_way() {
    let inner = Inner::new();
    let verifier = CachedVerifier::new(inner.clone()).with_capacity(SET_BYTES);
    use_a_lot(&verifier, &(0..WAYS));
    inner.0.clock.set(Timestamp::from_secs(3000));
    let fresh = r#"h.{"jti":"n","sub":"s","iat":3000,"exp":4000}.s"#;
    verifier.verify(fresh).unwrap();
    verifier.verify(fresh).unwrap();
    inner.asked();
    verifier.verify(fresh).unwrap();
    assert_eq!(inner.asked(), 0, "one refusal later it is in");
}

#[test]
fn memory_is_bounded() {
    let inner = Inner::new();
    let capacity = 1024 * 1024;
    let verifier = CachedVerifier::new(inner).with_capacity(capacity);
    let pad = "p".repeat(1500);
    for n in 0..5000 {
        let pad = pad.get(..n % 1500).unwrap();
        let token =
            format!(r#"h.{{"jti":"{n}","sub":"s","iat":1000,"exp":2000,"pad":"{pad}"}}.{n:032}"#);
        // Every other token is used a lot, so that it has copies.
        for _ in 0..if n % 2 == 0 { 1 } else { 20 } {
            verifier.verify(&token).unwrap();
        }
    }
    let table = &verifier.table;
    let weight = |set: &CacheSet| {
        set.occupancy.lock().unwrap().rows.iter().flatten().map(|row| row.weight).sum::<usize>()
    };
    let entries: usize = table.sets.iter().map(weight).sum();
    let copies = capacity / 8 - table.lanes.budget();
    let all = entries + copies + size_of_val(&*table.sets);
    assert!(all <= capacity, "{all} bytes");
    assert!(all >= capacity / 2, "{all} bytes: most of what is allowed is made use of");
}

#[test]
fn what_is_too_large_is_verified_each_time() {
    let inner = Inner::new();
    let verifier = CachedVerifier::new(inner.clone()).with_capacity(100);
    verify_all(&verifier, [1, 1, 1]);
    assert_eq!(inner.asked(), 3);
}

#[test]
fn threads_that_share_a_token_do_not_share_its_reference_count() {
    let inner = Inner::new();
    let mut verifier = CachedVerifier::new(inner);
    verifier.table.lanes = Arc::new(Lanes::new(2, 1024 * 1024));
    use_a_lot(&verifier, &[0]);
    // Lanes are given out in turn, so of three threads not all can have the same.
    let tokens: Vec<_> = thread::scope(|scope| {
        let threads: Vec<_> =
            (0..3).map(|_| scope.spawn(|| verifier.verify(&token(0)).unwrap())).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let places: std::collections::HashSet<_> = tokens.iter().map(Arc::as_ptr).collect();
    assert_eq!(places.len(), 2, "one count per lane");
    assert!(tokens.iter().all(|token| token.subject() == Some("s0")));
}

#[test]
fn copies_keep_to_their_budget() {
    let inner = Inner::new();
    let mut verifier = CachedVerifier::new(inner);
    let lanes = Arc::new(Lanes::new(2, 0));
    let budget = 3 * lanes.bytes_per_token() + 1;
    verifier.table.lanes = Arc::new(Lanes::new(2, budget));
    use_a_lot(&verifier, &(0..10));
    assert_eq!(verifier.table.lanes.budget(), 1, "three tokens have copies");
    verifier.table.sets = Box::default();
    assert_eq!(verifier.table.lanes.budget(), budget, "all is given back");
}

/// Many threads, few places, keys that change: each answer must be the one for the token that was
/// asked about.
#[test]
fn threads_get_what_they_asked_for() {
    const THREADS: usize = 8;
    let inner = Inner::new();
    let verifier = CachedVerifier::new(inner.clone()).with_capacity(2 * SET_BYTES);
    let start = Barrier::new(THREADS);
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let (inner, verifier, start) = (&inner, &verifier, &start);
            scope.spawn(move || {
                start.wait();
                for round in 0..2000 {
                    verify_all(verifier, [round % 5, (round * 7 + thread) % 40]);
                    if thread == 0 && round % 500 == 499 {
                        inner.0.generation.fetch_add(1, Ordering::SeqCst);
                    }
                }
            });
        }
    });
    let asked = inner.asked();
    assert!(asked < THREADS * 4000, "{asked}: nothing was ever found");
}

/// There is no single flight. What that costs is bounded: each thread verifies a new token at most
/// once while it gets in.
#[test]
fn a_new_token_that_all_bring_at_once_is_verified_at_most_once_per_thread() {
    const THREADS: usize = 8;
    let inner = Inner::new();
    let verifier = CachedVerifier::new(inner.clone());
    let start = Barrier::new(THREADS);
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                start.wait();
                verify_all(&verifier, [0]);
            });
        }
    });
    assert!((1..=THREADS).contains(&inner.asked()));
    verify_all(&verifier, [0, 0, 0]);
    assert!(inner.asked() <= 1, "from then on it is known");
}

#[test]
fn it_shows_no_token() {
    let verifier = CachedVerifier::new(Inner::new());
    verify_all(&verifier, [7]);
    assert_eq!(format!("{verifier:?}"), "CachedVerifier { inner: Inner, capacity: 33554432, .. }");
}
