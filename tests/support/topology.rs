//! Several servers that work together: a primary watched by sentinels, and a cluster.
use std::process::Command;
use std::time::Duration;

use super::redis::{Builder, RedisServer, output_within};
use super::wait_until;

/// How long a set-up may take to form, or to recover: generous, for busy machines.
const LIMIT: Duration = Duration::from_secs(30);

/// A primary, its replicas and the sentinels that replace it by one of them when it is silent for
/// 500 ms.
pub struct Sentinel {
    servers: Vec<RedisServer>,
    sentinels: Vec<RedisServer>,
}

impl Sentinel {
    /// What the sentinels call the primary.
    pub const SERVICE: &'static str = "primary";

    /// Starts all and waits until every replica is in sync and the sentinels know each other.
    #[track_caller]
    pub fn start(replicas: usize, sentinels: usize) -> Self {
        Self::start_with(replicas, sentinels, |builder| builder)
    }

    /// The same, with servers of data that are built further.
    #[track_caller]
    pub fn start_with(
        replicas: usize,
        sentinels: usize,
        build: impl Fn(Builder) -> Builder,
    ) -> Self {
        assert!(replicas > 0 && sentinels > 0, "a failover needs a replica and a sentinel");
        let data = || {
            let builder = RedisServer::builder();
            build(builder.arg("repl-diskless-sync-delay", "0").arg("repl-timeout", "5"))
        };
        let primary = data().start();
        let port = primary.port().to_string();
        let mut servers = vec![primary];
        servers.extend(
            (0..replicas).map(|_| data().arg("replicaof", &format!("127.0.0.1 {port}")).start()),
        );
        // Connected is not enough: until its first acknowledgement, which may take a second, a
        // replica gets nothing, and one that is promoted then has lost everything. Something has to
        // be sent, so that it can be acknowledged.
        servers[0].cli(&["PUBLISH", "started", "all"]);
        wait_until("the replicas follow", LIMIT, || {
            let info = servers[0].cli(&["INFO", "replication"]);
            let sent = info.lines().find_map(|line| line.strip_prefix("master_repl_offset:"));
            let sent = sent.map(str::trim).filter(|sent| *sent != "0");
            let has_all = |sent| info.matches(&format!(",offset={sent},")).count() == replicas;
            sent.is_some_and(has_all)
                && servers[1..].iter().all(|replica| {
                    replica.cli(&["INFO", "replication"]).contains("master_link_status:up")
                })
        });

        let (name, quorum) = (Self::SERVICE, sentinels / 2 + 1);
        let sentinels: Vec<_> = (0..sentinels)
            .map(|_| {
                let sentinel = RedisServer::builder()
                    .sentinel()
                    .arg("sentinel monitor", &format!("{name} 127.0.0.1 {port} {quorum}"))
                    .arg("sentinel down-after-milliseconds", &format!("{name} 500"))
                    .arg("sentinel failover-timeout", &format!("{name} 3000"))
                    .start();
                set_pace(&sentinel, "100");
                sentinel
            })
            .collect();
        let (slaves, others) = (replicas.to_string(), (sentinels.len() - 1).to_string());
        wait_until("the sentinels know the replicas and each other", LIMIT, || {
            sentinels.iter().all(|sentinel| {
                let reply = sentinel.cli(&["SENTINEL", "MASTER", name]);
                field(&reply, "num-slaves") == Some(&slaves)
                    && field(&reply, "num-other-sentinels") == Some(&others)
            })
        });
        // For four of these periods, a sentinel trusts another which promotes a replica; then it
        // turns the replica back. At the pace of the start the other had no time to finish.
        for sentinel in &sentinels {
            set_pace(sentinel, "1500");
        }
        Self { servers, sentinels }
    }

    /// `redis-sentinel://…`, with all the sentinels.
    pub fn url(&self) -> String {
        let mut query = vec![format!("sentinelServiceName={}", Self::SERVICE)];
        query
            .extend(self.sentinels[1..].iter().map(|sentinel| format!("node={}", sentinel.addr())));
        format!("redis-sentinel://{}?{}", self.sentinels[0].addr(), query.join("&"))
    }

    /// The data servers. The first was the primary at the start.
    pub fn servers(&self) -> &[RedisServer] {
        &self.servers
    }

    pub fn server_mut(&mut self, index: usize) -> &mut RedisServer {
        &mut self.servers[index]
    }

    pub fn sentinels(&self) -> &[RedisServer] {
        &self.sentinels
    }

    /// Which of [`servers`](Self::servers) the first sentinel holds to be the primary.
    #[track_caller]
    pub fn primary_index(&self) -> usize {
        let port = primary_port(&self.sentinels[0]);
        self.servers.iter().position(|server| server.port() == port).expect("one of our servers")
    }

    #[track_caller]
    pub fn primary(&self) -> &RedisServer {
        &self.servers[self.primary_index()]
    }

    /// Promotes a replica by order, while the primary is well, and waits until that is done.
    #[track_caller]
    pub fn failover(&self) {
        let before = self.primary_index();
        // A sentinel refuses for a moment when it has only just seen the servers.
        wait_until("a sentinel takes the order", LIMIT, || {
            self.sentinels[0].try_cli(&["SENTINEL", "FAILOVER", Self::SERVICE]).is_ok()
        });
        self.wait_for_failover_from(before);
    }

    /// Kills the primary and returns its index, at once: the failover is still to come.
    #[track_caller]
    pub fn kill_primary(&self) -> usize {
        let index = self.primary_index();
        self.servers[index].kill();
        index
    }

    /// Stops the primary by SIGSTOP and returns its index, at once: the failover is still to come.
    #[track_caller]
    pub fn hang_primary(&self) -> usize {
        let index = self.primary_index();
        self.servers[index].stop_hung();
        index
    }

    /// Waits until all sentinels agree on a primary that is not the server of this index, and it
    /// knows. Ask with [`RedisServer::try_cli`] meanwhile: a sentinel that changes a server's role
    /// also ends its connections.
    #[track_caller]
    pub fn wait_for_failover_from(&self, index: usize) {
        let old = self.servers[index].port();
        wait_until("the sentinels have promoted a replica", LIMIT, || {
            let port = primary_port(&self.sentinels[0]);
            port != old
                && self.sentinels.iter().all(|sentinel| primary_port(sentinel) == port)
                && self
                    .primary()
                    .try_cli(&["INFO", "replication"])
                    .is_ok_and(|info| info.contains("role:master"))
        });
    }
}

/// Makes a sentinel introduce itself every `publish` milliseconds, rather than 2000, and look at
/// the servers twice a second, rather than every ten. Redis before 7.0 cannot be told so, and takes
/// its time.
fn set_pace(sentinel: &RedisServer, publish: &str) {
    let _ =
        sentinel.try_cli(&["SENTINEL", "DEBUG", "INFO-PERIOD", "500", "PUBLISH-PERIOD", publish]);
}

#[track_caller]
fn primary_port(sentinel: &RedisServer) -> u16 {
    let reply = sentinel.cli(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", Sentinel::SERVICE]);
    reply.lines().nth(1).and_then(|port| port.parse().ok()).expect("an address")
}

/// A value from a reply that lists names and values in turn, one per line.
fn field<'a>(reply: &'a str, name: &str) -> Option<&'a str> {
    reply.lines().skip_while(|line| *line != name).nth(1)
}

/// A cluster of three primaries, which goes on serving the slots it has when one of them is down.
pub struct Cluster {
    nodes: Vec<RedisServer>,
}

impl Cluster {
    /// Three primaries without replicas: the slots of a dead one are gone until it is back.
    #[track_caller]
    pub fn start() -> Self {
        Self::with_replicas(0)
    }

    /// Three primaries with so many replicas each.
    #[track_caller]
    pub fn with_replicas(per_primary: usize) -> Self {
        let nodes: Vec<_> = (0..3 * (1 + per_primary))
            .map(|_| {
                RedisServer::builder()
                    .arg("cluster-enabled", "yes")
                    .arg("cluster-node-timeout", "1000")
                    .arg("cluster-require-full-coverage", "no")
                    .arg("repl-diskless-sync-delay", "0")
                    .start()
            })
            .collect();
        let mut create = Command::new("redis-cli");
        create.args(["--cluster", "create"]).args(nodes.iter().map(|node| node.addr().to_string()));
        create.args(["--cluster-replicas", &per_primary.to_string(), "--cluster-yes"]);
        let output = output_within(LIMIT, create).expect("redis-cli");
        assert!(output.status.success(), "no cluster: {}", String::from_utf8_lossy(&output.stdout));

        let cluster = Self { nodes };
        cluster.wait_until_ok();
        cluster
    }

    /// `redis-cluster://…`, with all the nodes.
    pub fn url(&self) -> String {
        let others: Vec<_> =
            self.nodes[1..].iter().map(|node| format!("node={}", node.addr())).collect();
        format!("redis-cluster://{}?{}", self.nodes[0].addr(), others.join("&"))
    }

    pub fn nodes(&self) -> &[RedisServer] {
        &self.nodes
    }

    pub fn node_mut(&mut self, index: usize) -> &mut RedisServer {
        &mut self.nodes[index]
    }

    /// Which of the 16 384 slots this key belongs to.
    #[track_caller]
    pub fn slot(&self, key: &str) -> u16 {
        self.witness().cli(&["CLUSTER", "KEYSLOT", key]).parse().expect("a slot")
    }

    /// Which of [`nodes`](Self::nodes) serves this key.
    #[track_caller]
    pub fn owner(&self, key: &str) -> usize {
        self.owner_of_slot(self.slot(key))
    }

    /// Which of [`nodes`](Self::nodes) serves this slot, as told by the first node that answers.
    #[track_caller]
    pub fn owner_of_slot(&self, slot: u16) -> usize {
        owner_as_seen_by(self.witness(), slot)
            .and_then(|port| self.nodes.iter().position(|node| node.port() == port))
            .expect("a slot that is served")
    }

    /// A key, starting with `prefix`, that the node of this index serves.
    #[track_caller]
    pub fn key_on(&self, index: usize, prefix: &str) -> String {
        (0..1000)
            .map(|n| format!("{prefix}{n}"))
            .find(|key| self.owner(key) == index)
            .expect("a primary with slots")
    }

    /// Kills a node, at once: the others have yet to notice.
    #[track_caller]
    pub fn kill(&self, index: usize) {
        self.nodes[index].kill();
    }

    /// Waits until another node than this one serves the slot, and all that answer know.
    #[track_caller]
    pub fn wait_for_failover_of(&self, slot: u16, from: usize) {
        let old = self.nodes[from].port();
        wait_until("a replica has taken the slot over", LIMIT, || {
            let mut seen = self
                .nodes
                .iter()
                .filter(|node| node.answers())
                .map(|node| owner_as_seen_by(node, slot));
            let first = seen.next().flatten();
            first.is_some_and(|port| port != old) && seen.all(|other| other == first)
        });
    }

    /// Begins to move a slot to the node of index `to`, and leaves it there: the old owner still
    /// answers for the keys it has, and with `ASK` for others. [`migrate_slot`](Self::migrate_slot)
    /// completes it.
    #[track_caller]
    pub fn begin_migration(&self, slot: u16, to: usize) {
        let from = self.owner_of_slot(slot);
        let slot = slot.to_string();
        let id = |index: usize| self.nodes[index].cli(&["CLUSTER", "MYID"]);
        self.nodes[to].cli(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &id(from)]);
        self.nodes[from].cli(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &id(to)]);
    }

    /// Moves a slot and its keys to the node of index `to`, and waits until every node knows.
    #[track_caller]
    pub fn migrate_slot(&self, slot: u16, to: usize) {
        let from = self.owner_of_slot(slot);
        if from == to {
            return;
        }
        self.begin_migration(slot, to);
        while self.migrate_keys(slot, to, 100) > 0 {}
        self.end_migration(slot, to);
    }

    /// Moves some keys of a slot whose migration was begun; returns how many there were to move.
    #[track_caller]
    pub fn migrate_keys(&self, slot: u16, to: usize, most: usize) -> usize {
        let from = &self.nodes[self.owner_of_slot(slot)];
        let (slot, most) = (slot.to_string(), most.to_string());
        let keys = from.cli(&["CLUSTER", "GETKEYSINSLOT", &slot, &most]);
        if keys.is_empty() {
            return 0;
        }
        let port = self.nodes[to].port().to_string();
        let mut migrate = vec!["MIGRATE", "127.0.0.1", &port, "", "0", "5000", "KEYS"];
        migrate.extend(keys.lines());
        from.cli(&migrate);
        keys.lines().count()
    }

    /// Gives a slot to the node that has all of its keys, and waits until every node knows: clients
    /// that do not get `MOVED` from the old owner.
    #[track_caller]
    pub fn end_migration(&self, slot: u16, to: usize) {
        let from = self.owner_of_slot(slot);
        let number = slot.to_string();
        let id = self.nodes[to].cli(&["CLUSTER", "MYID"]);
        self.nodes[to].cli(&["CLUSTER", "SETSLOT", &number, "NODE", &id]);
        self.nodes[from].cli(&["CLUSTER", "SETSLOT", &number, "NODE", &id]);
        let port = Some(self.nodes[to].port());
        wait_until("every node knows the new owner", LIMIT, || {
            self.nodes
                .iter()
                .filter(|node| node.answers())
                .all(|node| owner_as_seen_by(node, slot) == port)
        });
    }

    /// Waits until every node that answers holds the cluster to be whole: all slots served, all
    /// nodes known.
    #[track_caller]
    pub fn wait_until_ok(&self) {
        let size = format!("cluster_known_nodes:{}\r", self.nodes.len());
        wait_until("the cluster is whole", LIMIT, || {
            self.nodes.iter().filter(|node| node.answers()).all(|node| {
                let info = node.try_cli(&["CLUSTER", "INFO"]).unwrap_or_default();
                info.contains("cluster_state:ok")
                    && info.contains("cluster_slots_ok:16384\r")
                    && info.contains(&size)
            })
        });
    }

    /// The first node that answers.
    #[track_caller]
    fn witness(&self) -> &RedisServer {
        self.nodes.iter().find(|node| node.answers()).expect("a node that is up")
    }
}

/// The port of the primary that serves this slot, from lines such as
/// `id 127.0.0.1:7000@17000 myself,master - 0 0 1 connected 0-5460 5462`.
fn owner_as_seen_by(node: &RedisServer, slot: u16) -> Option<u16> {
    node.try_cli(&["CLUSTER", "NODES"]).ok()?.lines().find_map(|line| {
        let words: Vec<_> = line.split(' ').collect();
        let serves = words[8..].iter().any(|range| {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            // A slot on the move is listed in brackets besides, which is no number.
            let slots = (first.parse::<u16>(), last.parse::<u16>());
            matches!(slots, (Ok(a), Ok(b)) if (a..=b).contains(&slot))
        });
        let (address, _) = words[1].split_once('@')?;
        let (_, port) = address.rsplit_once(':')?;
        serves.then(|| port.parse().expect("a port"))
    })
}
