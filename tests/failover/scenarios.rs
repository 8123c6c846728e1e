//! What happens to the primary, and what must be as before afterwards.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::clock;
use crate::ledger::Allowed;
use crate::stage::{SETTLED_WITHIN, Stage, Switch, World};
use crate::support::{Cluster, MovableName, RedisServer, Sentinel, wait_until};

/// How long replicas are behind when the primary dies.
const BEHIND: Duration = Duration::from_millis(1200);
/// How much longer where a busy machine has confirmed little by then. Sentinels turn the replicas
/// back after six seconds.
const BEHIND_AT_MOST: Duration = Duration::from_secs(3);
/// Revocations, reinstatements, logins, refreshes, changes.
pub const KINDS: usize = 5;
/// How long a registered writer is waited for.
const AWAITED: Duration = Duration::from_secs(30);
/// How long processes have to report what they knew of what was lost.
const REPORTED: Duration = Duration::from_secs(5);
const LIMIT: Duration = Duration::from_secs(60);

/// A scenario: a name, its servers, and what happens to them.
pub struct Scenario {
    pub name: &'static str,
    pub world: fn() -> World,
    pub act: fn(&mut Stage) -> Switch,
}

fn sentinels() -> World {
    World::sentinels(|server| server)
}

/// Each with a clock of its own.
fn sentinels_with_clocks() -> World {
    World::sentinels(crate::support::Builder::own_clock)
}

fn cluster() -> World {
    World::Cluster(Cluster::with_replicas(1), 3)
}

/// Each of the two is on a node of its own.
fn two_shards() -> World {
    World::Cluster(Cluster::with_replicas(1), 2)
}

fn lone() -> World {
    World::Lone(Box::new(RedisServer::start()))
}

/// On two addresses, since a name says nothing of ports.
fn named() -> World {
    let primary = RedisServer::start();
    let port = primary.port().to_string();
    let replica = RedisServer::builder()
        .arg("bind", "127.0.0.2")
        .arg("port", &port)
        .arg("repl-diskless-sync-delay", "0")
        .arg("replicaof", &format!("127.0.0.1 {port}"))
        .start();
    wait_until("the replica is in sync", LIMIT, || {
        replica.cli(&["INFO", "replication"]).contains("master_link_status:up")
    });
    World::Named(Box::new([primary, replica]), MovableName::to(Ipv4Addr::LOCALHOST))
}

pub fn all() -> Vec<Scenario> {
    let on_sentinels = |name, act| Scenario { name, world: sentinels, act };
    vec![
        on_sentinels("planned failover", planned),
        on_sentinels("killed primary", killed),
        on_sentinels("killed primary, replicas behind", killed_behind),
        on_sentinels("frozen primary that wakes up", frozen),
        on_sentinels("primary cut off from its sentinels", cut_off),
        Scenario { name: "moved name", world: named, act: moved_name },
        Scenario { name: "cluster, planned", world: cluster, act: cluster_planned },
        Scenario { name: "cluster, one of three killed", world: cluster, act: cluster_killed },
        Scenario { name: "two shards, one of them moves", world: two_shards, act: one_moves },
        on_sentinels("two failovers within ten seconds", twice),
        on_sentinels("rolling restart during a failover", rolling),
        on_sentinels("writer killed together with the primary", writer_killed),
        on_sentinels("writer suspended for 6 s", writer_suspended),
        on_sentinels("writer suspended for 40 s", writer_suspended_long),
        on_sentinels("process started during it", started_during),
        Scenario { name: "clock 2 s behind", world: sentinels_with_clocks, act: clock_behind },
        Scenario { name: "clock 10 s ahead", world: sentinels_with_clocks, act: clock_ahead },
        on_sentinels("new primary refuses writes at first", refuses_writes),
        Scenario { name: "lone server, older dump", world: lone, act: older_dump },
        Scenario { name: "lone server, emptied", world: lone, act: emptied },
    ]
}

fn planned(stage: &mut Stage) -> Switch {
    let old = stage.sentinel().primary_index();
    let fault = stage.order_failover();
    let (_, answered) = stage.wait_for_primary(&[old]);
    Switch::plain(fault, answered)
}

fn killed(stage: &mut Stage) -> Switch {
    let fault = clock::now();
    let old = stage.sentinel().kill_primary();
    let (_, answered) = stage.wait_for_primary(&[old]);
    Switch::plain(fault, answered)
}

/// Revocations, reinstatements, logins, refreshes, changes of sessions and of devices are lost.
fn killed_behind(stage: &mut Stage) -> Switch {
    let behind = Some(stage.leave_replicas_behind());
    lose_some(stage, behind);
    Switch { behind, ..killed(stage) }
}

/// Lets the replicas be behind until something of each kind has been confirmed, as far as that may
/// be without them.
fn lose_some(stage: &Stage, behind: Option<u64>) {
    sleep(BEHIND);
    let start = Instant::now();
    while stage.mode.replicas == 0 && start.elapsed() < BEHIND_AT_MOST {
        let inner = stage.traffic.ledger.0.lock().unwrap();
        let since = inner.confirmed.iter().filter(|(_, at)| Some(*at) >= behind);
        if since.map(|(what, _)| what).collect::<BTreeSet<_>>().len() == KINDS {
            return;
        }
        drop(inner);
        sleep(Duration::from_millis(20));
    }
}

fn frozen(stage: &mut Stage) -> Switch {
    let fault = clock::now();
    let old = stage.sentinel().hang_primary();
    let (_, answered) = stage.wait_for_primary(&[old]);
    sleep(Duration::from_secs(2));
    stage.world.servers()[old].resume();
    Switch::plain(fault, answered)
}

/// It goes on answering its clients. Its replicas are cut off as well, so all of it is lost.
fn cut_off(stage: &mut Stage) -> Switch {
    let old = stage.sentinel().primary_index();
    let behind = Some(stage.leave_replicas_behind());
    lose_some(stage, behind);
    let fault = clock::now();
    // Sentinels and replicas come as the default user, the processes do not.
    let server = &stage.world.servers()[old];
    server.cli(&["ACL", "SETUSER", "default", "-@all"]);
    let (_, answered) = stage.wait_for_primary(&[old]);
    sleep(Duration::from_secs(4));
    server.cli(&["ACL", "SETUSER", "default", "+@all"]);
    Switch { behind, ..Switch::plain(fault, answered) }
}

/// The name leads elsewhere, and the old server, which nobody stops, goes on accepting.
fn moved_name(stage: &mut Stage) -> Switch {
    let World::Named(servers, name) = &stage.world else { panic!("no name") };
    let [old, new] = &**servers;
    let fault = clock::now();
    new.cli(&["REPLICAOF", "NO", "ONE"]);
    name.move_to(Ipv4Addr::new(127, 0, 0, 2));
    let answered = clock::now();
    // Whoever comes now finds the new one. The others stay for as long as they can.
    let _ = stage.traffic.fleet.begin();
    sleep(Duration::from_secs(3));
    old.kill();
    let allowed = Allowed { anything: true, doubt: true, ..Allowed::default() };
    Switch { due: clock::now(), allowed, ..Switch::plain(fault, answered) }
}

const EPOCH: &str = "jwt-revocation:{0}:e";

fn cluster_planned(stage: &mut Stage) -> Switch {
    let old = stage.cluster().owner(EPOCH);
    let replica = replica_of(stage, old);
    let fault = clock::now();
    stage.world.servers()[replica].cli(&["CLUSTER", "FAILOVER"]);
    let slot = stage.cluster().slot(EPOCH);
    wait_until("the replica has taken over", LIMIT, || {
        stage.world.servers()[replica]
            .try_cli(&["ROLE"])
            .is_ok_and(|role| role.starts_with("master"))
    });
    let answered = clock::now();
    stage.cluster().wait_for_failover_of(slot, old);
    Switch::plain(fault, answered)
}

/// What spans both waits while one of them settles; what is at the other alone does not.
fn one_moves(stage: &mut Stage) -> Switch {
    let others = EPOCH.replace('0', "1");
    let (moves, stays) = (stage.cluster().owner(EPOCH), stage.cluster().owner(&others));
    assert_ne!(moves, stays, "both shards are on one node");
    let switch = cluster_planned(stage);
    assert_eq!(stage.cluster().owner(&others), stays, "the other one has moved");
    switch
}

/// The shards of the other two stay where they are.
fn cluster_killed(stage: &mut Stage) -> Switch {
    let old = stage.cluster().owner(EPOCH);
    let replica = replica_of(stage, old);
    let fault = clock::now();
    stage.cluster().kill(old);
    wait_until("the replica has taken over", LIMIT, || {
        stage.world.servers()[replica]
            .try_cli(&["ROLE"])
            .is_ok_and(|role| role.starts_with("master"))
    });
    Switch::plain(fault, clock::now())
}

fn replica_of(stage: &Stage, primary: usize) -> usize {
    let servers = stage.world.servers();
    let id = servers[primary].cli(&["CLUSTER", "MYID"]);
    let replicas = servers[primary].cli(&["CLUSTER", "REPLICAS", &id]);
    servers
        .iter()
        .position(|server| replicas.contains(&format!("127.0.0.1:{}@", server.port())))
        .expect("a replica")
}

fn twice(stage: &mut Stage) -> Switch {
    let first = stage.sentinel().primary_index();
    let fault = stage.order_failover();
    let (second, _) = stage.wait_for_primary(&[first]);
    stage.sentinel().wait_for_failover_from(first);
    // Until the first has become its replica.
    wait_until("the sentinels are ready for another", LIMIT, || {
        stage.sentinel().sentinels()[0]
            .try_cli(&["SENTINEL", "FAILOVER", Sentinel::SERVICE])
            .is_ok()
    });
    wait_until("there is yet another primary", LIMIT, || {
        stage.sentinel().primary_index() != second
    });
    let answered = clock::now();
    Switch::plain(fault, answered)
}

/// One is replaced before, one during and one after it. Whoever leaves takes the time it needs.
fn rolling(stage: &mut Stage) -> Switch {
    let replace = |index: usize| {
        let _ = stage.traffic.fleet.begin();
        let process = stage.process(index);
        stage.runtime.spawn(async move { process.quit().await })
    };
    stage.runtime.block_on(replace(0)).expect("a process that ends");
    let old = stage.sentinel().primary_index();
    let fault = stage.order_failover();
    let leaves_during = replace(1);
    let (_, answered) = stage.wait_for_primary(&[old]);
    let leaves_after = replace(2);
    for leaving in [leaves_during, leaves_after] {
        stage.runtime.block_on(leaving).expect("a process that ends");
    }
    Switch::plain(fault, answered)
}

fn writer_killed(stage: &mut Stage) -> Switch {
    let behind = Some(stage.leave_replicas_behind());
    lose_some(stage, behind);
    let fault = clock::now();
    stage.process(0).kill();
    let old = stage.sentinel().kill_primary();
    let (_, answered) = stage.wait_for_primary(&[old]);
    let allowed = Allowed { doubt: true, doubt_for_good: Some(0), ..Allowed::default() };
    let within = AWAITED + SETTLED_WITHIN;
    Switch { within, behind, allowed, ..Switch::plain(fault, answered) }
}

fn writer_suspended(stage: &mut Stage) -> Switch {
    suspended(stage, Duration::from_secs(6), Allowed::default())
}

/// Longer than it is awaited: until it comes back, all from before is in doubt.
fn writer_suspended_long(stage: &mut Stage) -> Switch {
    suspended(stage, Duration::from_secs(40), Allowed { doubt: true, ..Allowed::default() })
}

fn suspended(stage: &mut Stage, time: Duration, allowed: Allowed) -> Switch {
    let behind = Some(stage.leave_replicas_behind());
    lose_some(stage, behind);
    let fault = clock::now();
    stage.process(0).suspend();
    let old = stage.sentinel().kill_primary();
    let (_, answered) = stage.wait_for_primary(&[old]);
    let asleep = Duration::from_nanos(clock::now() - fault);
    sleep(time.saturating_sub(asleep));
    stage.process(0).resume();
    Switch { due: clock::now(), behind, allowed, ..Switch::plain(fault, answered) }
}

/// It comes while there is no primary, and others while it settles.
fn started_during(stage: &mut Stage) -> Switch {
    let behind = Some(stage.leave_replicas_behind());
    lose_some(stage, behind);
    let fault = clock::now();
    let old = stage.sentinel().kill_primary();
    let _ = stage.traffic.fleet.begin();
    let (_, answered) = stage.wait_for_primary(&[old]);
    let _ = stage.traffic.fleet.begin();
    Switch { behind, ..Switch::plain(fault, answered) }
}

fn clock_behind(stage: &mut Stage) -> Switch {
    with_clock(stage, -2000)
}

fn clock_ahead(stage: &mut Stage) -> Switch {
    with_clock(stage, 10_000)
}

fn with_clock(stage: &mut Stage, ahead_ms: i64) -> Switch {
    let primary = stage.sentinel().primary_index();
    for (index, server) in stage.world.servers().iter().enumerate() {
        if index != primary {
            server.set_clock(ahead_ms);
        }
    }
    killed_behind(stage)
}

fn refuses_writes(stage: &mut Stage) -> Switch {
    let primary = stage.sentinel().primary_index();
    for (index, server) in stage.world.servers().iter().enumerate() {
        if index != primary {
            // A replica does not mind.
            server.cli(&["CONFIG", "SET", "maxmemory", "1"]);
        }
    }
    let mut switch = killed_behind(stage);
    sleep(Duration::from_secs(4));
    for (index, server) in stage.world.servers().iter().enumerate() {
        if index != primary {
            server.cli(&["CONFIG", "SET", "maxmemory", "0"]);
        }
    }
    switch.due = clock::now();
    switch
}

fn older_dump(stage: &mut Stage) -> Switch {
    let World::Lone(server) = &mut stage.world else { panic!("not alone") };
    server.cli(&["SAVE"]);
    let behind = Some(clock::now());
    lose_some(stage, behind);
    let World::Lone(server) = &mut stage.world else { panic!("not alone") };
    let fault = clock::now();
    server.restart();
    Switch { behind, ..Switch::plain(fault, clock::now()) }
}

/// A total loss. Nobody is let in whose revocation is lost, and everybody may sign in again at
/// once.
fn emptied(stage: &mut Stage) -> Switch {
    let fault = clock::now();
    stage.world.servers()[0].cli(&["FLUSHALL"]);
    let allowed = Allowed { doubt: true, emptied: true, ..Allowed::default() };
    // A mirror that puts everything back waits until it would have heard of more.
    let within = if stage.mode.mirror { SETTLED_WITHIN + REPORTED } else { SETTLED_WITHIN };
    Switch { within, allowed, ..Switch::plain(fault, clock::now()) }
}

/// Whether a scenario leaves a replica that a write can wait for.
pub fn can_wait(scenario: &Scenario) -> bool {
    !["lone server, older dump", "lone server, emptied", "cluster, one of three killed"]
        .contains(&scenario.name)
}
