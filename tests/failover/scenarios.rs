//! What happens to the primary, and what must be as before afterwards.

use std::net::Ipv4Addr;
use std::thread::sleep;
use std::time::Duration;

use crate::clock;
use crate::ledger::Allowed;
use crate::stage::{Stage, Switch, World};
use crate::support::{Cluster, MovableName, RedisServer, wait_until};

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

fn cluster() -> World {
    World::Cluster(Cluster::with_replicas(1))
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
        on_sentinels("killed primary", killed),
        on_sentinels("frozen primary that wakes up", frozen),
        Scenario { name: "moved name", world: named, act: moved_name },
        Scenario { name: "cluster, planned", world: cluster, act: cluster_planned },
        Scenario { name: "cluster, one of three killed", world: cluster, act: cluster_killed },
    ]
}

fn killed(stage: &mut Stage) -> Switch {
    let fault = clock::now();
    let old = stage.sentinel().kill_primary();
    let (_, answered) = stage.wait_for_primary(&[old]);
    Switch::plain(fault, answered)
}

fn frozen(stage: &mut Stage) -> Switch {
    let fault = clock::now();
    let old = stage.sentinel().hang_primary();
    let (_, answered) = stage.wait_for_primary(&[old]);
    sleep(Duration::from_secs(2));
    stage.world.servers()[old].resume();
    Switch::plain(fault, answered)
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

/// Whether a scenario leaves a replica that a write can wait for.
pub fn can_wait(scenario: &Scenario) -> bool {
    !["lone server, older dump", "cluster, one of three killed"].contains(&scenario.name)
}
