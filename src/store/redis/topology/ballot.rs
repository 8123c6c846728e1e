//! [`Ballot`]: what the voters of a topology said last, and what that proves. Pure.
//!
//! The voters are the sentinels, or the primaries of a cluster that have slots. A server is proved
//! to be the primary if more than half of them name it. Two majorities have a voter in common, and
//! a voter that has named a later primary never names the former one again; so once a majority has
//! named another server, no proof of the former one can be asked for.
//!
//! How many voters there are is said by the voters: as Sentinel and Redis Cluster count them for a
//! failover, those that are down included.

use std::fmt::Write as _;

use fred::types::config::Server;

use super::replies::{ClusterNode, owner_of, sees_all};
use crate::clock::BootTime;
use crate::store::redis::lease::LEASE;
use crate::store::{StoreError, StoreErrorKind};

/// In a cluster with fewer voters no majority could replace a primary.
const MIN_CLUSTER_VOTERS: usize = 3;

/// Who is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum VoterKind {
    Sentinels,
    ClusterNodes,
}

/// What one of them sees.
pub(super) struct View {
    /// By which it is known that two addresses lead to one voter.
    pub(super) id: Option<String>,
    /// The servers. A sentinel sees one, which serves all slots.
    pub(super) nodes: Vec<ClusterNode>,
    /// How many voters there are.
    pub(super) voters: usize,
    /// Whether its vote counts.
    pub(super) is_voter: bool,
    /// Where further voters are; none, if it was not asked.
    pub(super) others: Option<Vec<Server>>,
    /// Whether it is replacing the server that it names by another one, which may have been told
    /// already.
    pub(super) is_replacing: bool,
}

/// Someone who is asked, and what was answered last.
pub(super) struct Voter {
    pub(super) server: Server,
    is_configured: bool,
    answer: Option<(BootTime, View)>,
    /// Why the last question was not answered.
    problem: Option<StoreError>,
    /// When the last question was asked that was answered, or failed.
    tried_at: Option<BootTime>,
}

pub(super) struct Ballot {
    kind: VoterKind,
    voters: Vec<Voter>,
}

/// One vote that counts.
struct Vote<'b> {
    asked_at: BootTime,
    epoch: u64,
    server: Server,
    /// Whether the voter is that server.
    is_own: bool,
    voter: &'b Voter,
}

impl Ballot {
    pub(super) fn new(kind: VoterKind, configured: &[Server]) -> Self {
        let mut voters: Vec<Voter> = Vec::new();
        for server in configured {
            if voters.iter().all(|voter| voter.server != *server) {
                voters.push(Voter::new(server.clone(), true));
            }
        }
        Self { kind, voters }
    }

    pub(super) fn servers(&self) -> impl Iterator<Item = &Server> {
        self.voters.iter().map(|voter| &voter.server)
    }

    fn voter(&mut self, server: &Server) -> Option<&mut Voter> {
        self.voters.iter_mut().find(|voter| voter.server == *server)
    }

    /// Takes in an answer to a question that was asked at this time.
    pub(super) fn answered(&mut self, server: &Server, asked_at: BootTime, view: View) {
        if let Some(voter) = self.voter(server) {
            voter.answer = Some((asked_at, view));
            voter.problem = None;
            voter.tried_at = Some(asked_at);
        }
    }

    /// Takes in that a question was not answered. What it said before stands until it is too old;
    /// unless it has refused to name a primary.
    pub(super) fn failed(&mut self, server: &Server, asked_at: BootTime, problem: StoreError) {
        if let Some(voter) = self.voter(server) {
            if problem.kind() != StoreErrorKind::Unreachable && !is_late(&problem) {
                voter.answer = None;
            }
            voter.problem = Some(problem);
            voter.tried_at = Some(asked_at);
        }
    }

    /// Takes in who else may be asked. Once somebody has told of all, those of whom nobody tells
    /// are forgotten, but for those of the configuration: each would cost a connection, and the
    /// address may belong to somebody else now.
    pub(super) fn learn(&mut self) {
        let views: Vec<_> = self.views().map(|(_, view)| view).collect();
        let told_of_all = match self.kind {
            VoterKind::Sentinels => views.iter().any(|view| view.others.is_some()),
            VoterKind::ClusterNodes => views.iter().any(|view| sees_all(&view.nodes)),
        };
        let told: Vec<Server> = views
            .iter()
            .flat_map(|view| {
                let nodes = view.nodes.iter().filter(|node| node.has_address);
                let nodes = nodes.filter(|_| self.kind == VoterKind::ClusterNodes);
                let others = view.others.iter().flatten();
                nodes.map(|node| &node.server).chain(others).cloned()
            })
            .collect();
        if told_of_all {
            self.voters.retain(|voter| voter.is_configured || told.contains(&voter.server));
        }
        for server in told {
            if self.voters.iter().all(|voter| voter.server != server) {
                self.voters.push(Voter::new(server, false));
            }
        }
    }

    /// Forgets answers that are too old to count, so that nobody is known by them alone.
    pub(super) fn forget(&mut self, now: BootTime) {
        for voter in &mut self.voters {
            voter.answer.take_if(|(asked_at, _)| is_old(*asked_at, now));
        }
    }

    fn views(&self) -> impl Iterator<Item = (&Voter, &View)> {
        self.voters.iter().filter_map(|voter| Some((voter, &voter.answer.as_ref()?.1)))
    }

    /// The latest views.
    pub(super) fn nodes(&self) -> impl Iterator<Item = &[ClusterNode]> {
        self.views().map(|(_, view)| view.nodes.as_slice())
    }

    /// Whether everybody was asked at or after this time, or cannot be asked. One that was late the
    /// last time may answer the next.
    pub(super) fn has_asked_all(&self, since: BootTime) -> bool {
        self.voters.iter().all(|voter| {
            let problem = voter.problem.as_ref();
            problem.is_some_and(|problem| !is_late(problem))
                || voter.tried_at.is_some_and(|at| at >= since)
        })
    }

    /// How many voters there are.
    fn count(&self) -> usize {
        let told = self.views().map(|(_, view)| view.voters).max().unwrap_or(0);
        match self.kind {
            VoterKind::ClusterNodes => told,
            // Sentinels that do not know each other yet.
            VoterKind::Sentinels => {
                let is_other = |(n, voter): &(usize, &Voter)| {
                    voter.is_configured
                        && voter.id().is_none_or(|id| {
                            self.voters.iter().take(*n).all(|before| before.id() != Some(id))
                        })
                };
                told.max(self.voters.iter().enumerate().filter(is_other).count())
            }
        }
    }

    /// Who is asked for votes. Replicas of a cluster have none, unless there are few voters.
    pub(super) fn counts(&self, server: &Server) -> bool {
        self.kind == VoterKind::Sentinels
            || self.count() < MIN_CLUSTER_VOTERS
            || self.voters.iter().any(|voter| {
                let is_voter = voter.answer.as_ref().is_none_or(|(_, view)| view.is_voter);
                voter.server == *server && is_voter
            })
    }

    /// The votes on the primary of a slot: one of each voter, the latest.
    fn votes(&self, slot: u16, now: BootTime) -> Vec<Vote<'_>> {
        let all_count = self.kind == VoterKind::ClusterNodes && self.count() < MIN_CLUSTER_VOTERS;
        let mut votes: Vec<Vote<'_>> = Vec::with_capacity(self.voters.len());
        for voter in &self.voters {
            let Some((asked_at, view)) = &voter.answer else { continue };
            // By another name it may be one that was counted already.
            let is_known = view.id.is_some() || voter.is_configured;
            if is_old(*asked_at, now) || !(view.is_voter || all_count) || !is_known {
                continue;
            }
            let Some(owner) = owner_of(&view.nodes, slot) else { continue };
            let vote = Vote {
                asked_at: *asked_at,
                epoch: owner.epoch,
                server: owner.server.clone(),
                is_own: owner.is_self,
                voter,
            };
            let same = |other: &&mut Vote<'_>| view.id.is_some() && other.voter.id() == voter.id();
            match votes.iter_mut().find(same) {
                Some(other) if other.asked_at < vote.asked_at => *other = vote,
                Some(_) => {}
                None => votes.push(vote),
            }
        }
        votes
    }

    /// The server that is proved to be the primary of a slot, and when the proof was asked for.
    pub(super) fn proof(&self, slot: u16, now: BootTime) -> Option<(Server, BootTime)> {
        let votes = self.votes(slot, now);
        let count = self.count();
        if self.kind == VoterKind::ClusterNodes && count < MIN_CLUSTER_VOTERS {
            // No majority of one or two could replace a primary that does not answer; an operator
            // can. So the primary itself has to answer, and nobody may know of a later one.
            let latest = votes.iter().max_by_key(|vote| vote.epoch)?;
            let own = votes.iter().find(|vote| vote.is_own && vote.server == latest.server)?;
            return Some((own.server.clone(), own.asked_at));
        }
        for vote in &votes {
            let named = votes.iter().filter(|other| other.server == vote.server);
            let mut asked: Vec<_> = named.map(|other| other.asked_at).collect();
            asked.sort_unstable();
            // The latest point since which enough of them were asked.
            if let Some(first) = asked.len().checked_sub(count / 2 + 1) {
                let asked_at = asked.get(first).copied()?;
                return Some((vote.server.clone(), asked_at));
            }
        }
        None
    }

    /// Whether this server stays the primary of a slot, by what was asked at or after `since`: it
    /// is proved, nobody replaces it, and nobody knows of a later one. What is written while a
    /// sentinel replaces its server is confirmed by that one, and the next primary may never get
    /// it.
    pub(super) fn stays(&self, slot: u16, server: &Server, since: BootTime, now: BootTime) -> bool {
        let proof = self.proof(slot, now);
        if proof.is_none_or(|(proved, asked_at)| proved != *server || asked_at < since) {
            return false;
        }
        let votes = self.votes(slot, now);
        let named = votes.iter().filter(|vote| vote.server == *server);
        let latest = named.map(|vote| vote.epoch).max().unwrap_or(0);
        let replaces = |vote: &Vote<'_>| match &vote.voter.answer {
            Some((_, view)) if vote.server == *server => view.is_replacing,
            _ => vote.epoch >= latest,
        };
        !votes.iter().any(replaces)
    }

    /// Why no server is proved to be the primary of a slot.
    pub(super) fn why_not(&self, slot: u16, now: BootTime) -> StoreError {
        let votes = self.votes(slot, now);
        let problems = || self.voters.iter().filter_map(|voter| voter.problem.as_ref());
        let is_known = |(_, view): (&Voter, &View)| owner_of(&view.nodes, slot).is_some();
        if self.views().next().is_some() && !self.views().any(is_known) {
            return StoreError::new(
                StoreErrorKind::Cluster,
                "the cluster does not serve the slot of this shard",
            );
        }
        if votes.is_empty() {
            // What a voter has said says more than that another does not answer.
            let said = problems().find(|error| error.kind() != StoreErrorKind::Unreachable);
            return said.or_else(|| problems().next()).cloned().unwrap_or_else(|| {
                let (Self { kind, .. }, unreachable) = (self, StoreErrorKind::Unreachable);
                let detail = format!("none of the {} has answered in time", kind.plural());
                StoreError::new(unreachable, detail)
            });
        }
        let (count, kind) = (self.count(), self.kind.plural());
        let mut detail = String::from("the server could not be confirmed as the primary in time: ");
        let mut told: Vec<&Server> = Vec::new();
        for vote in &votes {
            if !told.contains(&&vote.server) {
                let named = votes.iter().filter(|other| other.server == vote.server).count();
                let comma = if told.is_empty() { "" } else { ", " };
                let _ = write!(detail, "{comma}{named} of {count} {kind} name {}", vote.server);
                told.push(&vote.server);
            }
        }
        for voter in &self.voters {
            if let Some(problem) = &voter.problem {
                let _ = write!(detail, "; {} does not answer ({problem})", voter.server);
            }
        }
        StoreError::new(StoreErrorKind::NotPrimary, detail)
    }
}

/// Whether a voter was late, or we were.
fn is_late(problem: &StoreError) -> bool {
    matches!(problem.kind(), StoreErrorKind::Timeout | StoreErrorKind::Overloaded)
}

impl Voter {
    fn new(server: Server, is_configured: bool) -> Self {
        Self { server, is_configured, answer: None, problem: None, tried_at: None }
    }

    fn id(&self) -> Option<&str> {
        self.answer.as_ref()?.1.id.as_deref()
    }
}

impl VoterKind {
    fn plural(self) -> &'static str {
        match self {
            Self::Sentinels => "sentinels",
            Self::ClusterNodes => "cluster nodes",
        }
    }
}

fn is_old(asked_at: BootTime, now: BootTime) -> bool {
    now.saturating_duration_since(asked_at) >= LEASE
}

#[cfg(test)]
mod tests;
