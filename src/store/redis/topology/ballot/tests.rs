use std::time::Duration;

use super::*;
use crate::store::redis::topology::replies::{Endpoints, parse_nodes};

const fn at(millis: u64) -> BootTime {
    BootTime::from_nanos(millis * 1_000_000)
}

fn server(port: u16) -> Server {
    Server::new("h", port)
}

fn sentinels(count: u16) -> Ballot {
    let configured: Vec<_> = (1..=count).map(server).collect();
    Ballot::new(VoterKind::Sentinels, &configured)
}

/// What a sentinel sees that names this server and knows of so many others.
fn naming(id: Option<&str>, port: u16, others: usize) -> View {
    View {
        id: id.map(Into::into),
        nodes: vec![ClusterNode {
            id: String::new(),
            server: server(port),
            is_self: false,
            has_address: true,
            epoch: 1,
            slots: vec![(0, 16_383)],
        }],
        voters: others + 1,
        is_voter: true,
        others: None,
        is_replacing: false,
    }
}

fn port((server, asked_at): (Server, BootTime)) -> (u16, BootTime) {
    (server.port, asked_at)
}

fn unreachable() -> StoreError {
    StoreError::new(StoreErrorKind::Unreachable, "refused")
}

#[test]
fn a_primary_is_proved_by_more_than_half_since_the_earliest_of_the_latest_of_them() {
    let mut ballot = sentinels(3);
    ballot.answered(&server(1), at(100), naming(Some("a"), 10, 2));
    assert_eq!(ballot.proof(0, at(110)), None, "one of three");
    ballot.answered(&server(2), at(200), naming(Some("b"), 10, 2));
    assert_eq!(ballot.proof(0, at(210)).map(port), Some((10, at(100))));
    ballot.answered(&server(3), at(300), naming(Some("c"), 10, 2));
    assert_eq!(ballot.proof(0, at(310)).map(port), Some((10, at(200))));
    // One does not answer any more, then another.
    ballot.failed(&server(1), at(900), unreachable());
    assert_eq!(ballot.proof(0, at(1_150)).map(port), Some((10, at(200))));
    assert_eq!(ballot.proof(0, at(1_250)), None, "only one has answered within a second");
    let problem = ballot.why_not(0, at(1_250));
    assert_eq!(problem.kind(), StoreErrorKind::NotPrimary);
    let text = problem.to_string();
    assert!(text.contains("1 of 3 sentinels name h:10"), "{text}");
    assert!(text.contains("h:1 does not answer (refused)"), "{text}");
}

#[test]
fn the_latest_word_of_a_voter_counts_and_no_voter_counts_twice() {
    let mut ballot = sentinels(3);
    for (voter, id) in [(1, "a"), (2, "b"), (3, "c")] {
        ballot.answered(&server(voter), at(100), naming(Some(id), 10, 2));
    }
    ballot.answered(&server(1), at(200), naming(Some("a"), 20, 2));
    assert_eq!(ballot.proof(0, at(210)).map(port), Some((10, at(100))));
    ballot.answered(&server(2), at(200), naming(Some("b"), 20, 2));
    assert_eq!(ballot.proof(0, at(210)).map(port), Some((20, at(200))));
    // One that does not know the service any more does not name its primary.
    let unknown = StoreError::new(StoreErrorKind::Other, "ERR No such master with that name");
    ballot.failed(&server(2), at(300), unknown);
    assert_eq!(ballot.proof(0, at(310)), None);

    // Two names of one sentinel.
    let mut ballot = sentinels(2);
    ballot.answered(&server(1), at(100), naming(Some("a"), 10, 2));
    ballot.answered(&server(2), at(150), naming(Some("a"), 10, 2));
    assert_eq!(ballot.proof(0, at(200)), None, "one of three");
    let mut alone = sentinels(2);
    alone.answered(&server(1), at(100), naming(Some("a"), 10, 0));
    assert_eq!(alone.proof(0, at(110)), None, "the other is configured");
    alone.answered(&server(2), at(150), naming(Some("a"), 10, 0));
    assert_eq!(alone.proof(0, at(200)).map(port), Some((10, at(150))));
}

#[test]
fn a_primary_stays_that_nobody_replaces_and_of_whose_successor_nobody_knows() {
    let mut ballot = sentinels(3);
    for n in 1..=3 {
        ballot.answered(&server(n), at(100), naming(Some(&format!("{n}")), 10, 2));
    }
    let stays = |ballot: &Ballot, since: u64| ballot.stays(0, &server(10), at(since), at(200));
    assert!(stays(&ballot, 100));
    assert!(!stays(&ballot, 101), "that was asked before");
    assert!(!ballot.stays(0, &server(11), at(100), at(200)), "another one");
    // One replaces it, and names it still.
    let replacing = View { is_replacing: true, ..naming(Some("1"), 10, 2) };
    ballot.answered(&server(1), at(110), replacing);
    assert!(!stays(&ballot, 100));
    // It has been replaced, and the others have yet to hear of it.
    let mut later = naming(Some("1"), 11, 2);
    later.nodes[0].epoch = 2;
    ballot.answered(&server(1), at(120), later);
    assert!(!stays(&ballot, 100));
    // One that was away has not heard of it yet.
    let mut earlier = naming(Some("1"), 9, 2);
    earlier.nodes[0].epoch = 0;
    ballot.answered(&server(1), at(130), earlier);
    assert!(stays(&ballot, 100));
}

#[test]
fn sentinels_that_are_not_configured_are_asked_and_counted_too() {
    let mut ballot = sentinels(1);
    let telling = |id: &str, others: &[u16]| View {
        others: Some(others.iter().copied().map(server).collect()),
        ..naming(Some(id), 10, others.len())
    };
    let known = |ballot: &Ballot| ballot.servers().map(|server| server.port).collect::<Vec<_>>();
    ballot.answered(&server(1), at(100), telling("a", &[2, 3]));
    ballot.learn();
    assert_eq!(known(&ballot), [1, 2, 3]);
    assert_eq!(ballot.proof(0, at(110)), None, "one of three");
    ballot.answered(&server(3), at(120), telling("c", &[1, 2]));
    ballot.learn();
    assert_eq!(ballot.proof(0, at(130)).map(port), Some((10, at(100))));
    // It is replaced by another.
    ballot.answered(&server(1), at(200), telling("a", &[3, 4]));
    ballot.answered(&server(3), at(200), telling("c", &[1, 4]));
    ballot.learn();
    assert_eq!(known(&ballot), [1, 3, 4]);
    // Without an id it might be one that was counted already.
    ballot.answered(&server(1), at(2_000), telling("a", &[3, 4]));
    ballot.answered(&server(4), at(2_000), naming(None, 10, 2));
    ballot.forget(at(2_010));
    assert_eq!(ballot.proof(0, at(2_010)), None);
}

fn cluster() -> Ballot {
    Ballot::new(VoterKind::ClusterNodes, &[server(1)])
}

/// A view of a cluster: the id and port of each node, its role, and its slots.
fn view(own: &str, nodes: &[(&str, u16, u64, &str)]) -> View {
    let mut text = String::new();
    for (id, port, epoch, slots) in nodes {
        let (own, role) = (
            if *id == own { "myself," } else { "" },
            if slots.is_empty() { "slave" } else { "master" },
        );
        let _ = writeln!(text, "{id} h:{port}@1 {own}{role} - 0 0 {epoch} connected {slots}");
    }
    let nodes = parse_nodes(&text, &server(1), &Endpoints::default());
    let own = nodes.iter().find(|node| node.is_self);
    View {
        id: own.map(|own| own.id.clone()),
        voters: nodes.iter().filter(|node| !node.slots.is_empty()).count(),
        is_voter: own.is_some_and(|own| !own.slots.is_empty()),
        others: None,
        is_replacing: false,
        nodes,
    }
}

#[test]
fn in_a_cluster_more_than_half_of_the_primaries_with_slots_prove_the_owner_of_a_slot() {
    let nodes = [
        ("a", 1, 1, "0-5000"),
        ("b", 2, 2, "5001-10000"),
        ("c", 3, 3, "10001-16383"),
        ("d", 4, 1, ""),
    ];
    let mut ballot = cluster();
    ballot.answered(&server(1), at(100), view("a", &nodes));
    ballot.learn();
    assert_eq!(ballot.servers().count(), 4);
    ballot.answered(&server(4), at(100), view("d", &nodes));
    assert_eq!(ballot.proof(7, at(110)), None, "the replica has no vote");
    assert!(!ballot.counts(&server(4)) && ballot.counts(&server(1)));
    ballot.answered(&server(2), at(150), view("b", &nodes));
    assert_eq!(ballot.proof(7, at(160)).map(port), Some((1, at(100))));
    assert_eq!(ballot.proof(6_000, at(160)).map(port), Some((2, at(100))));

    // The replica took over, and the former primary does not know.
    let after = [
        ("a", 1, 1, ""),
        ("b", 2, 2, "5001-10000"),
        ("c", 3, 3, "10001-16383"),
        ("d", 4, 4, "0-5000"),
    ];
    ballot.answered(&server(2), at(300), view("b", &after));
    assert_eq!(ballot.proof(7, at(310)), None, "one of three for each");
    ballot.answered(&server(3), at(300), view("c", &after));
    assert_eq!(ballot.proof(7, at(310)).map(port), Some((4, at(300))));
    ballot.answered(&server(1), at(320), view("a", &nodes));
    assert_eq!(ballot.proof(7, at(330)).map(port), Some((4, at(300))));
    assert!(ballot.proof(6_000, at(330)).is_some());
}

#[test]
fn where_no_majority_could_replace_a_primary_it_has_to_answer_and_no_later_one_be_known() {
    let before = [("a", 1, 1, "0-16383"), ("b", 2, 1, "")];
    let after = [("a", 1, 1, ""), ("b", 2, 2, "0-16383")];
    let mut ballot = cluster();
    ballot.answered(&server(1), at(100), view("a", &before));
    ballot.learn();
    assert_eq!(ballot.proof(7, at(110)).map(port), Some((1, at(100))));
    ballot.answered(&server(2), at(150), view("b", &before));
    assert_eq!(ballot.proof(7, at(160)).map(port), Some((1, at(100))));
    assert_eq!(ballot.proof(7, at(1_110)), None, "only the replica has answered within a second");
    // The replica took over by order of an operator.
    ballot.answered(&server(1), at(1_200), view("a", &before));
    ballot.answered(&server(2), at(1_200), view("b", &after));
    assert_eq!(ballot.proof(7, at(1_210)).map(port), Some((2, at(1_200))));
}

#[test]
fn nodes_are_asked_as_long_as_a_node_lists_them() {
    let mut ballot = Ballot::new(VoterKind::ClusterNodes, &[server(1)]);
    let (one, other, third) =
        (("x", 2, 1, "0-8191"), ("y", 3, 1, "8192-16383"), ("z", 4, 1, "8192-16383"));
    let mut learn = |now: u64, nodes: &[(&str, u16, u64, &str)]| {
        ballot.forget(at(now));
        ballot.answered(&server(1), at(now), view("x", nodes));
        ballot.learn();
        ballot.servers().map(|server| server.port).collect::<Vec<_>>()
    };
    assert_eq!(learn(100, &[one, other]), [1, 2, 3]);
    // One that was reset, or has lost sight of the others, does not make us forget them.
    assert_eq!(learn(200, &[one]), [1, 2, 3]);
    assert_eq!(learn(300, &[]), [1, 2, 3]);
    // The second has got another address.
    assert_eq!(learn(400, &[one, third]), [1, 2, 4]);
}

#[test]
fn it_is_known_when_everybody_was_asked() {
    let mut ballot = sentinels(2);
    assert!(!ballot.has_asked_all(at(0)));
    ballot.failed(&server(1), at(100), unreachable());
    assert!(!ballot.has_asked_all(at(100)));
    assert_eq!(ballot.why_not(0, at(100)).kind(), StoreErrorKind::Unreachable);
    ballot.answered(&server(2), at(150), naming(Some("b"), 10, 1));
    assert!(ballot.has_asked_all(at(150)) && !ballot.has_asked_all(at(151)));
    // Whoever was late may answer the next time.
    let late = StoreError::new(StoreErrorKind::Timeout, "late");
    ballot.failed(&server(1), at(140), late);
    assert!(ballot.has_asked_all(at(140)) && !ballot.has_asked_all(at(150)));
    ballot.forget(at(150).saturating_add(Duration::from_secs(1)));
    assert!(ballot.nodes().next().is_none());
}
