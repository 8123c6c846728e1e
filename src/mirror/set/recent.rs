//! The latest facts, with all their numbers.
//!
//! Two uses: they are replayed to a store that lost its latest writes, and a revocation that is
//! kept in eight bytes still has a time while a reinstatement that is under way may be older than
//! it.

use std::collections::{HashMap, VecDeque};

use crate::revocation::{Fact, Fingerprint};

#[derive(Debug)]
pub(super) struct RecentFacts {
    facts: HashMap<Fingerprint, Fact>,
    order: VecDeque<Fingerprint>,
    capacity: usize,
}

impl RecentFacts {
    pub(super) fn new(capacity: usize) -> Self {
        Self { facts: HashMap::new(), order: VecDeque::new(), capacity }
    }

    pub(super) fn note(&mut self, fingerprint: &Fingerprint, fact: Fact) {
        if self.capacity == 0 {
            return;
        }
        if let Some(known) = self.facts.get_mut(fingerprint) {
            *known = if known.until <= fact.latest() { fact } else { known.merge(fact) };
            return;
        }
        if self.order.len() >= self.capacity
            && let Some(oldest) = self.order.pop_front()
        {
            self.facts.remove(&oldest);
        }
        self.order.push_back(*fingerprint);
        self.facts.insert(*fingerprint, fact);
    }

    /// Takes in a fact that is not among the latest, if there is room.
    pub(super) fn fill(&mut self, fingerprint: &Fingerprint, fact: Fact) {
        if self.facts.len() < self.capacity || self.facts.contains_key(fingerprint) {
            self.note(fingerprint, fact);
        }
    }

    pub(super) fn fact(&self, fingerprint: &Fingerprint) -> Option<Fact> {
        self.facts.get(fingerprint).copied()
    }

    /// From the oldest to the latest.
    pub(super) fn facts(&self) -> Vec<(Fingerprint, Fact)> {
        self.order
            .iter()
            .filter_map(|name| self.facts.get(name).map(|fact| (*name, *fact)))
            .collect()
    }
}
