//! Names of keys that tokens gave and no key set had.
//!
//! A token whose key is not known may be older or younger than the keys: only a fetch can tell that
//! begins after the token was seen. Until it is done the name *waits*, and then it is *absent*,
//! unless the key has come.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Most names that wait at a time. Made-up ones beyond it are not waited for, and a provider that
/// changes its keys needs one or two.
pub(super) const MAX_WAITING: usize = 64;
/// Most names that are remembered, with those that wait: some 50 KiB.
pub(super) const MAX_REMEMBERED: usize = 1024;
/// A name that no token has given for so long is forgotten.
pub(super) const REMEMBERED_FOR: Duration = Duration::from_secs(10 * 60);
/// So long, at most, after the last fetch an absent name that a token gives is asked for again; the
/// pause between fetches if that is longer.
pub(super) const MAX_RECHECK: Duration = Duration::from_secs(60);

/// Which fetches there have been. They are counted from 1.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct FetchProgress {
    /// How many have begun.
    pub(super) begun: u64,
    /// The last that has brought keys, and when it began.
    pub(super) done: Option<(u64, Instant)>,
}

/// What is known of a name that is not among the keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Whether there is such a key only a fetch can tell.
    Waiting { asks_for_fetch: bool },
    /// There is no such key, or too many others wait.
    Absent { asks_for_fetch: bool },
}

/// The names, by a hash with a secret of this process.
#[derive(Debug, Default)]
pub(super) struct UnknownKids {
    hasher: RandomState,
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    sightings: HashMap<u64, Sighting>,
    /// How many names have waited since the fetch of this number was done.
    waiting: usize,
    counted_at: u64,
}

#[derive(Clone, Copy, Debug)]
struct Sighting {
    first: Instant,
    last: Instant,
    /// How many fetches had begun when the name was first seen. A later one tells.
    begun_before: u64,
}

impl FetchProgress {
    fn number_done(self) -> u64 {
        self.done.map_or(0, |(number, _)| number)
    }
}

impl Sighting {
    fn is_waiting(&self, progress: FetchProgress) -> bool {
        progress.number_done() <= self.begun_before
    }

    /// Whether it is time to look again for a name that was absent: the sooner, the shorter it has
    /// been absent.
    fn is_recheck_due(&self, progress: FetchProgress, cooldown: Duration, now: Instant) -> bool {
        let Some((number, asked_at)) = progress.done else { return true };
        if progress.begun > number {
            // One is under way, or repeated until it succeeds.
            return false;
        }
        let absent_for = asked_at.saturating_duration_since(self.first);
        let pause = absent_for.min(MAX_RECHECK).max(cooldown);
        now.saturating_duration_since(asked_at) >= pause
    }
}

impl UnknownKids {
    /// A token has given this name, which is not among the keys.
    pub(super) fn see(
        &self,
        kid: &str,
        progress: FetchProgress,
        cooldown: Duration,
        now: Instant,
    ) -> Verdict {
        let hash = self.hasher.hash_one(kid);
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        table.recount(progress);
        if let Some(sighting) = table.sightings.get_mut(&hash)
            && (sighting.is_waiting(progress)
                || now.saturating_duration_since(sighting.last) < REMEMBERED_FOR)
        {
            sighting.last = now;
            if sighting.is_waiting(progress) {
                // One that has begun since will tell, and if it fails, the next.
                let asks_for_fetch = progress.begun == sighting.begun_before;
                return Verdict::Waiting { asks_for_fetch };
            }
            let asks_for_fetch = sighting.is_recheck_due(progress, cooldown, now);
            return Verdict::Absent { asks_for_fetch };
        }
        if table.waiting >= MAX_WAITING {
            // A key that is new will be found all the same, by the fetch that the others wait for.
            return Verdict::Absent { asks_for_fetch: true };
        }
        table.waiting += 1;
        let sighting = Sighting { first: now, last: now, begun_before: progress.begun };
        table.remember(hash, sighting, progress);
        Verdict::Waiting { asks_for_fetch: true }
    }

    /// These names were among the keys until now. As they were seen before the fetch began that
    /// came without them, they are absent.
    pub(super) fn withdraw<'a>(
        &self,
        kids: impl IntoIterator<Item = &'a str>,
        progress: FetchProgress,
        now: Instant,
    ) {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        table.recount(progress);
        for kid in kids {
            let sighting = Sighting { first: now, last: now, begun_before: 0 };
            table.remember(self.hasher.hash_one(kid), sighting, progress);
        }
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.table.lock().unwrap_or_else(PoisonError::into_inner).sightings.len()
    }
}

impl Table {
    /// Once for each fetch that is done.
    fn recount(&mut self, progress: FetchProgress) {
        if self.counted_at != progress.number_done() {
            self.counted_at = progress.number_done();
            self.waiting = self.sightings.values().filter(|one| one.is_waiting(progress)).count();
        }
    }

    fn remember(&mut self, hash: u64, sighting: Sighting, progress: FetchProgress) {
        if self.sightings.len() >= MAX_REMEMBERED && !self.sightings.contains_key(&hash) {
            let absent = self.sightings.iter().filter(|(_, one)| !one.is_waiting(progress));
            let oldest = absent.min_by_key(|(_, one)| one.last).map(|(hash, _)| *hash);
            // There is one, since few names wait.
            if let Some(oldest) = oldest {
                self.sightings.remove(&oldest);
            }
        }
        self.sightings.insert(hash, sighting);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COOLDOWN: Duration = Duration::from_secs(10);
    const ASKED: bool = true;

    fn begun(begun: u64) -> FetchProgress {
        FetchProgress { begun, done: None }
    }

    fn done(number: u64, asked_at: Instant) -> FetchProgress {
        FetchProgress { begun: number, done: Some((number, asked_at)) }
    }

    #[test]
    fn only_a_fetch_that_begins_later_tells_that_there_is_no_such_key() {
        let (unknown, now) = (UnknownKids::default(), Instant::now());
        let see = |progress| unknown.see("a", progress, COOLDOWN, now);
        assert_eq!(see(done(1, now)), Verdict::Waiting { asks_for_fetch: ASKED });
        let under_way = FetchProgress { begun: 2, ..done(1, now) };
        assert_eq!(see(under_way), Verdict::Waiting { asks_for_fetch: !ASKED });
        assert_eq!(see(done(2, now)), Verdict::Absent { asks_for_fetch: !ASKED });

        // Seen while a fetch was under way, which may have been answered already.
        let see = |progress| unknown.see("b", progress, COOLDOWN, now);
        assert_eq!(see(under_way), Verdict::Waiting { asks_for_fetch: ASKED });
        assert_eq!(see(done(2, now)), Verdict::Waiting { asks_for_fetch: ASKED });
        assert_eq!(see(done(3, now)), Verdict::Absent { asks_for_fetch: !ASKED });
    }

    #[test]
    fn an_absent_name_is_looked_for_again_ever_more_seldom_but_once_a_minute() {
        let (unknown, start) = (UnknownKids::default(), Instant::now());
        let secs = Duration::from_secs;
        let first = unknown.see("a", begun(1), COOLDOWN, start);
        assert_eq!(first, Verdict::Waiting { asks_for_fetch: ASKED });
        let (mut progress, mut asked) = (done(2, start), Vec::new());
        for now in 1..300 {
            let at = start + secs(now);
            if (unknown.see("a", progress, COOLDOWN, at)
                == Verdict::Absent { asks_for_fetch: ASKED })
            {
                progress = done(progress.begun + 1, at);
                asked.push(now);
            }
        }
        assert_eq!(asked, [10, 20, 40, 80, 140, 200, 260]);
    }

    #[test]
    fn made_up_names_neither_wait_in_numbers_nor_fill_the_memory() {
        let (unknown, now) = (UnknownKids::default(), Instant::now());
        let mut waited = 0;
        for fetch in 1..200 {
            for name in 0..200 {
                let verdict =
                    unknown.see(&format!("{fetch} {name}"), done(fetch, now), COOLDOWN, now);
                waited += usize::from(matches!(verdict, Verdict::Waiting { .. }));
            }
            assert_eq!(waited, MAX_WAITING * usize::try_from(fetch).unwrap());
            assert!(unknown.len() <= MAX_REMEMBERED);
        }
    }

    #[test]
    fn names_that_are_still_given_are_not_pushed_out_by_others() {
        let (unknown, start) = (UnknownKids::default(), Instant::now());
        unknown.see("withdrawn", begun(1), COOLDOWN, start);
        for fetch in 2..200 {
            let now = start + Duration::from_secs(fetch);
            let verdict = unknown.see("withdrawn", done(fetch, now), COOLDOWN, now);
            assert_eq!(verdict, Verdict::Absent { asks_for_fetch: !ASKED });
            for name in 0..100 {
                unknown.see(&format!("{fetch} {name}"), done(fetch, now), COOLDOWN, now);
            }
        }
    }

    #[test]
    fn a_name_is_forgotten_when_no_token_gives_it_any_more() {
        let (unknown, start) = (UnknownKids::default(), Instant::now());
        unknown.withdraw(["a"], done(2, start), start);
        let later = start + REMEMBERED_FOR / 2;
        let verdict = unknown.see("a", done(3, later), COOLDOWN, later);
        assert_eq!(verdict, Verdict::Absent { asks_for_fetch: !ASKED });
        let later = later + REMEMBERED_FOR;
        let verdict = unknown.see("a", done(4, later), COOLDOWN, later);
        assert_eq!(verdict, Verdict::Waiting { asks_for_fetch: ASKED });
    }
}
