//! Everything that is done to Redis and its network, and what is promised meanwhile.

use std::time::Duration;

use tower_jwt_revocation::store::StoreErrorKind;
use tower_jwt_revocation::store::StoreErrorKind::{
    DataLoss, Denied, Full, Loading, NotPrimary, Other, Overloaded, Protocol, Replicas, Settling,
    Timeout, Unreachable,
};
use tower_jwt_revocation::store::redis::RedisStoreBuilder;

use crate::doors::STALENESS;
use crate::lab::Lab;
use crate::support::{Builder, Fault as Net};

/// What the store can do while a fault lasts. Whatever it does, it does in time, and it never errs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Able {
    /// Nothing: each request and each write has to get an error.
    Nothing,
    /// It may still know that a token is revoked, and no more.
    Revoked,
    /// Some of it.
    Some,
    /// All of it, as if there were no fault.
    All,
}

/// One thing that goes wrong.
pub struct Fault {
    pub name: &'static str,
    pub checks: Able,
    pub writes: Able,
    /// Why there may be no answer to a check, and no confirmation of a write.
    pub reasons: &'static [StoreErrorKind],
    pub write_reasons: &'static [StoreErrorKind],
    /// Redis loses what it knew: tokens from before are in doubt for good.
    pub forgets: bool,
    /// It lasts until it is healed; otherwise it is over as soon as it has begun.
    pub lasts: bool,
    /// How long it may take until the fault is noticed, where Redis goes on to answer.
    pub notice: Duration,
    /// Whether a mirror is asked, which asks Redis.
    pub mirror: bool,
    pub server: fn(Builder) -> Builder,
    pub store: fn(RedisStoreBuilder) -> RedisStoreBuilder,
    pub begin: fn(&mut Lab),
    pub heal: fn(&mut Lab),
}

/// A server that was restarted loads its data, and settles before it is believed.
const RESTARTED: &[StoreErrorKind] = &[Loading, Settling, Timeout, Unreachable];

const ROLE_IS_ASKED_EVERY: Duration = Duration::from_millis(500);

/// A fault of the network that lets nothing useful through.
fn network(name: &'static str, begin: fn(&mut Lab)) -> Fault {
    Fault {
        name,
        checks: Able::Nothing,
        writes: Able::Nothing,
        reasons: &[Timeout, Unreachable],
        write_reasons: &[Timeout, Unreachable],
        forgets: false,
        lasts: true,
        notice: Duration::ZERO,
        mirror: false,
        server: |server| server,
        store: |store| store,
        begin,
        heal: |lab| lab.net(Net::Pass),
    }
}

/// A fault of the server itself.
fn server(name: &'static str, begin: fn(&mut Lab), heal: fn(&mut Lab)) -> Fault {
    Fault { heal, ..network(name, begin) }
}

fn durable(server: Builder) -> Builder {
    server.arg("appendonly", "yes").arg("appendfsync", "always")
}

pub fn all() -> Vec<Fault> {
    let mut faults = networks();
    faults.extend(servers());
    faults.extend(contents());
    faults.extend(mirrors());
    faults
}

fn networks() -> Vec<Fault> {
    let slow = Duration::from_millis(200);
    assert!(slow > crate::lab::BUDGET, "as the table says");
    vec![
        network("black hole towards Redis", |lab| lab.net(Net::BlackHoleRequests)),
        network("black hole from Redis", |lab| lab.net(Net::BlackHoleReplies)),
        Fault {
            // A write has more time.
            writes: Able::Some,
            ..network("latency of 200 ms", |lab| {
                lab.net(Net::Latency { base: Duration::from_millis(200), jitter: Duration::ZERO });
            })
        },
        Fault {
            checks: Able::Some,
            writes: Able::Some,
            ..network("jitter of 5 to 85 ms", |lab| {
                lab.net(Net::Latency {
                    base: Duration::from_millis(5),
                    jitter: Duration::from_millis(80),
                });
            })
        },
        network("replies cut after 5 bytes", |lab| lab.net(Net::CutReplyAfter(5))),
        Fault {
            checks: Able::Some,
            writes: Able::Some,
            ..network("replies cut after 3 000 bytes", |lab| lab.net(Net::CutReplyAfter(3000)))
        },
        network("a byte every 20 ms", |lab| {
            lab.net(Net::Drip { bytes: 1, every: Duration::from_millis(20) });
        }),
        Fault {
            checks: Able::Some,
            writes: Able::Some,
            lasts: false,
            ..network("connections reset once", |lab| {
                lab.net(Net::Reset);
                lab.net(Net::Pass);
            })
        },
        network("connections reset, again and again", |lab| lab.net(Net::Reset)),
        network("connections refused", |lab| {
            lab.net(Net::Reset);
            lab.net(Net::Refuse);
        }),
        Fault {
            reasons: &[Timeout, Unreachable, Protocol],
            write_reasons: &[Timeout, Unreachable, Protocol],
            ..network("garbage instead of replies", |lab| {
                lab.net(Net::Garbage(b"\xff\x00\r\ngarbage".to_vec()));
            })
        },
        Fault {
            reasons: &[Timeout, Unreachable, Protocol],
            write_reasons: &[Timeout, Unreachable, Protocol],
            ..network("`+OK` instead of every reply", |lab| {
                lab.net(Net::Garbage(b"+OK\r\n".to_vec()));
            })
        },
    ]
}

fn servers() -> Vec<Fault> {
    vec![
        Fault {
            reasons: RESTARTED,
            write_reasons: RESTARTED,
            server: durable,
            ..server(
                "killed, restarted with its data",
                |lab| lab.server.kill(),
                |lab| lab.server.restart(),
            )
        },
        server("hung (`SIGSTOP`)", |lab| lab.server.stop_hung(), |lab| lab.server.resume()),
        Fault {
            reasons: &[Loading, Timeout, Unreachable],
            write_reasons: &[Loading, Timeout, Unreachable],
            server: |server| {
                server
                    .arg("enable-debug-command", "yes")
                    .arg("key-load-delay", "100")
                    .arg("loading-process-events-interval-bytes", "1024")
            },
            ..server("loads its data (`LOADING`)", begin_loading, end_loading)
        },
        Fault {
            reasons: &[NotPrimary, Unreachable],
            write_reasons: &[NotPrimary, Unreachable],
            notice: ROLE_IS_ASKED_EVERY,
            ..server(
                "demoted to a replica (`READONLY`)",
                |lab| drop(lab.cli(&["REPLICAOF", "127.0.0.1", "1"])),
                |lab| drop(lab.cli(&["REPLICAOF", "NO", "ONE"])),
            )
        },
        Fault {
            reasons: &[Denied],
            write_reasons: &[Denied],
            ..server(
                "rights withdrawn (`NOPERM`)",
                |lab| drop(lab.cli(&["ACL", "SETUSER", "default", "-@all"])),
                |lab| drop(lab.cli(&["ACL", "SETUSER", "default", "+@all"])),
            )
        },
        Fault {
            reasons: &[Denied, Unreachable],
            write_reasons: &[Denied, Unreachable],
            ..server(
                "password changed, connections closed (`WRONGPASS`)",
                |lab| {
                    lab.cli(&["ACL", "SETUSER", "default", "resetpass", ">another"]);
                    lab.cli(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
                },
                |lab| drop(lab.cli(&["ACL", "SETUSER", "default", "nopass"])),
            )
        },
        Fault {
            reasons: &[Other, Timeout, Unreachable],
            write_reasons: &[Other, Timeout, Unreachable],
            server: |server| server.arg("busy-reply-threshold", "100"),
            ..server("a script that does not end (`BUSY`)", begin_endless_script, |lab| {
                drop(lab.cli(&["SCRIPT", "KILL"]));
            })
        },
        Fault {
            checks: Able::All,
            write_reasons: &[Full],
            ..server(
                "memory full (`OOM`)",
                |lab| drop(lab.cli(&["CONFIG", "SET", "maxmemory", "1"])),
                |lab| drop(lab.cli(&["CONFIG", "SET", "maxmemory", "0"])),
            )
        },
        Fault {
            checks: Able::All,
            write_reasons: &[Replicas],
            ..server(
                "too few replicas (`NOREPLICAS`)",
                |lab| drop(lab.cli(&["CONFIG", "SET", "min-replicas-to-write", "1"])),
                |lab| drop(lab.cli(&["CONFIG", "SET", "min-replicas-to-write", "0"])),
            )
        },
        Fault {
            checks: Able::All,
            writes: Able::All,
            lasts: false,
            ..server("`SCRIPT FLUSH`", |lab| drop(lab.cli(&["SCRIPT", "FLUSH"])), |_| {})
        },
        Fault {
            checks: Able::Some,
            writes: Able::All,
            reasons: &[Overloaded],
            write_reasons: &[],
            store: |store| store.with_max_in_flight(24),
            ..network("more checks at once than allowed (24, at 25 ms each)", |lab| {
                lab.net(Net::Latency { base: Duration::from_millis(25), jitter: Duration::ZERO });
            })
        },
    ]
}

fn contents() -> Vec<Fault> {
    vec![
        flushed("`FLUSHALL`"),
        Fault {
            reasons: &[DataLoss, Settling, Unreachable],
            write_reasons: RESTARTED,
            forgets: true,
            ..server(
                "killed, restarted without data",
                |lab| lab.server.kill(),
                |lab| lab.server.restart(),
            )
        },
        Fault {
            checks: Able::Revoked,
            reasons: &[Settling],
            write_reasons: &[Protocol],
            ..server(
                "a key of another type in place of ours",
                |lab| replace_epoch(lab, "LPUSH"),
                restore_epoch,
            )
        },
        Fault {
            checks: Able::Revoked,
            reasons: &[Protocol],
            write_reasons: &[Protocol],
            ..server(
                "a value that is not ours in one of our keys",
                |lab| replace_epoch(lab, "SET"),
                restore_epoch,
            )
        },
    ]
}

fn flushed(name: &'static str) -> Fault {
    Fault {
        checks: Able::Some,
        writes: Able::All,
        reasons: &[DataLoss, Settling],
        forgets: true,
        lasts: false,
        ..server(name, |lab| drop(lab.cli(&["FLUSHALL"])), |_| {})
    }
}

/// Over a mirror: revoked tokens are known whatever happens, the others for as long as the mirror
/// can prove it.
fn mirrors() -> Vec<Fault> {
    let over_mirror =
        |fault| Fault { checks: Able::Revoked, notice: STALENESS, mirror: true, ..fault };
    vec![
        over_mirror(server(
            "mirror: hung (`SIGSTOP`)",
            |lab| lab.server.stop_hung(),
            |lab| lab.server.resume(),
        )),
        over_mirror(Fault {
            reasons: RESTARTED,
            write_reasons: RESTARTED,
            server: durable,
            ..server(
                "mirror: killed, restarted with its data",
                |lab| lab.server.kill(),
                |lab| lab.server.restart(),
            )
        }),
        Fault { notice: STALENESS, mirror: true, ..flushed("mirror: `FLUSHALL`") },
    ]
}

const EPOCH: &str = "jwt-revocation:{0}:e";

/// In one step, so that no new epoch begins in between.
fn replace_epoch(lab: &Lab, command: &str) {
    let script = "redis.call('RENAME', KEYS[1], KEYS[2]) redis.call(ARGV[1], KEYS[1], 'of another \
        program')";
    lab.cli(&["EVAL", script, "2", EPOCH, "away", command]);
}

fn restore_epoch(lab: &mut Lab) {
    lab.cli(&["RENAME", "away", EPOCH]);
}

/// Sends a command that takes long, and does not wait for it. It ends with the server at the
/// latest.
fn send_and_leave(lab: &Lab, command: &'static str) {
    use std::io::{Read as _, Write as _};
    let socket = lab.server.socket();
    std::thread::spawn(move || {
        let mut stream = std::os::unix::net::UnixStream::connect(socket).unwrap();
        stream.write_all(command.as_bytes()).unwrap();
        let _ = stream.read(&mut [0; 64]);
    });
}

const LIMIT: Duration = Duration::from_secs(20);

/// Connections stay open: this is also what a replica does that takes its data over anew. Loading
/// takes two seconds and more.
fn begin_loading(lab: &mut Lab) {
    lab.cli(&["DEBUG", "POPULATE", "20000"]);
    send_and_leave(lab, "DEBUG RELOAD\r\n");
    crate::support::wait_until("redis is loading", LIMIT, || {
        lab.server.try_cli(&["GET", "key:0"]).is_err_and(|error| error.contains("LOADING"))
    });
}

fn end_loading(lab: &mut Lab) {
    crate::support::wait_until("redis has loaded", LIMIT, || {
        lab.server.try_cli(&["GET", "key:0"]).is_ok()
    });
}

/// Returns when Redis says that it is busy.
fn begin_endless_script(lab: &mut Lab) {
    send_and_leave(lab, "EVAL \"while true do end\" 0\r\n");
    crate::support::wait_until("redis is busy", LIMIT, || {
        lab.server.try_cli(&["PING"]).is_err_and(|error| error.contains("BUSY"))
    });
}
