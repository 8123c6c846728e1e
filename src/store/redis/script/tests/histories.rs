//! Any order of checks, writes, failovers and deaths, by several processes, over several servers:
//! with the script as Redis runs it, and with what the processes really keep
//! ([`EpochTracker`], [`WriterLogs`]).
//!
//! Each server is a database of one Redis. A replica is a copy of the primary, as old as the
//! history says. A process that has not noticed a failover goes on at the old primary for as long
//! as it may believe it ([`LEASE`]).

use super::super::super::epoch::{EpochSource, EpochTracker, KnownEpoch, ReadFrom};
use super::super::super::writers::{Confirmed, FoundServer, WriterLogs};
use super::search::search;
use super::*;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::time::Instant;

const TOKENS: usize = 4;
const PROCESSES: usize = 3;
const SERVERS: u64 = 5;
/// How long a process may go on at a server that was replaced, in milliseconds.
const LEASE: u64 = 1000;
/// How many histories there are; the long form has more.
const HISTORIES: u32 = 60;

#[derive(Clone, Copy, Debug)]
enum Step {
    /// A check of a token, at once.
    Check(usize, usize),
    /// A process revokes a token, at once.
    Revoke(usize, usize),
    /// A process reinstates a token, at once.
    Reinstate(usize, usize),
    /// It sends a write, of which it reads the reply later.
    Send(usize, usize, Action),
    Read(usize),
    /// Its maintenance task does what is due.
    Maintain(usize, bool),
    /// The replica gets all that the primary has.
    Replicate,
    /// The replica becomes the primary. Its clock is so many milliseconds ahead.
    Failover(i64),
    /// A process ends without signing off, and another one starts.
    Kill(usize),
    /// It signs off, and another one starts.
    Restart(usize),
    /// For longer than anybody is awaited, all but this process do what is due.
    LeaveOut(usize),
    Wait(u64),
}

/// A write of which the reply was not read yet.
struct Sent {
    /// How many were written with it; zero if it was not.
    place: usize,
    server: u64,
    writer: WriterContext,
    known: Option<Arc<KnownEpoch>>,
    reply: ScriptReply,
    change: Option<Arc<ConfirmedChange>>,
}

struct Process {
    tracker: EpochTracker,
    logs: WriterLogs,
    /// The server to which it is connected; zero before the first.
    server: u64,
    sent: Option<Sent>,
}

impl Process {
    fn new() -> Self {
        Self {
            tracker: EpochTracker::new(1, Duration::from_secs(1)),
            logs: WriterLogs::new(1),
            server: 0,
            sent: None,
        }
    }
}

/// A change that a server has made. The later ones come later in the list.
struct Written {
    token: usize,
    revokes: bool,
    at: u64,
    /// When the token was last revoked, as far as that server knew.
    revoked_at: Timestamp,
    writer: u64,
    is_confirmed: bool,
}

struct World {
    lab: Rc<Lab>,
    now: u64,
    primary: u64,
    /// When each server was replaced.
    replaced_at: [u64; 6],
    /// How far the clock of each server is ahead.
    ahead: [i64; 6],
    epochs: u64,
    processes: Vec<Process>,
    written: Vec<Written>,
    /// Writers that ended without signing off, or whose data nobody has any more.
    gone: Vec<u64>,
    /// Writers that the primary did not know when it became that: nobody waits for them.
    unknown: Vec<u64>,
    /// All who were ever unknown. What they reinstated is put back only if it is surely the later.
    once_unknown: Vec<u64>,
    /// Whether a replica was promoted that was cut off since before its primary had settled, or
    /// before it settled for those who had not noticed the promotion. What others have known of
    /// that one's epoch is lost: a doubt that lasts.
    has_fork: bool,
    /// The epoch that each server had when it became the primary.
    promoted_with: [u64; 6],
    settled: usize,
}

fn token(n: usize) -> Target {
    Target::token(format!("token {n}"))
}

/// Makes the database ARGV 2 a copy of ARGV 1, in one round trip.
const COPY: &str = "
    redis.call('SELECT', ARGV[2])
    redis.call('FLUSHDB')
    redis.call('SELECT', ARGV[1])
    for _, key in ipairs(redis.call('KEYS', '*')) do
        redis.call('COPY', key, key, 'DB', ARGV[2])
    end
";

const REVOKE: Action = Action::Revoke(Extent::All);

fn change_of(n: usize, action: Action) -> Revocation {
    Revocation { action, ..Revocation::new(token(n), Duration::from_secs(100_000)) }
}

impl World {
    fn new(lab: Rc<Lab>) -> Self {
        lab.clear();
        Self {
            lab,
            now: START,
            primary: 1,
            replaced_at: [u64::MAX; 6],
            ahead: [0; 6],
            epochs: 100,
            processes: (0..PROCESSES).map(|_| Process::new()).collect(),
            written: Vec::new(),
            gone: Vec::new(),
            unknown: Vec::new(),
            once_unknown: Vec::new(),
            has_fork: false,
            promoted_with: [0; 6],
            settled: 0,
        }
    }

    fn select(&self, server: u64) {
        self.lab.select(server);
    }

    fn replicate(&self) {
        if self.primary < SERVERS {
            let [from, to] = [self.primary, self.primary + 1].map(|server| server.to_string());
            self.lab.ask("EVAL", vec![COPY.into(), "0".into(), from.into(), to.into()]).unwrap();
        }
    }

    /// The epoch that a server holds, and whether it settles.
    fn epoch_at(&self, server: u64) -> Option<Epoch> {
        self.select(server);
        Epoch::parse(&self.lab.get(self.lab.keys.shard(0).epoch.clone())?).ok()
    }

    /// The server to which a process is connected. It may be a former primary for a while.
    fn server_of(&mut self, process: usize) -> u64 {
        let primary = self.primary;
        let process = &mut self.processes[process];
        let replaced_at = self.replaced_at[usize::try_from(process.server).unwrap()];
        if process.server == 0 || self.now >= replaced_at.saturating_add(LEASE) {
            process.server = primary;
        }
        process.server
    }

    fn clock(&self, server: u64) -> u64 {
        self.now.saturating_add_signed(self.ahead[usize::try_from(server).unwrap()])
    }

    fn run_script(
        &mut self,
        process: usize,
        server: u64,
        writer: WriterContext,
        send: impl FnOnce(&Lab, u64, &ScriptContext) -> ScriptReply,
    ) -> (Option<Arc<KnownEpoch>>, ScriptReply) {
        self.epochs += 1;
        let known = self.processes[process].tracker.known(0);
        let context = ScriptContext {
            new_epoch: self.epochs,
            known: known.as_deref().map(KnownEpoch::for_script),
            caller_time: Timestamp::from_millis(self.now),
            server,
            writer,
            long_known: known.as_deref().and_then(KnownEpoch::long_known),
            ..CONTEXT
        };
        self.select(server);
        let reply = send(&self.lab, self.clock(server), &context);
        if server < self.primary {
            let next = usize::try_from(server + 1).unwrap();
            let is_other = self.promoted_with[next] != reply.epoch.id;
            self.has_fork |= is_other && reply.epoch.settling.is_none();
        }
        (known, reply)
    }

    fn touch(&mut self, process: usize, server: u64, writer: WriterContext) -> ScriptReply {
        let (known, reply) = self.run_script(process, server, writer, |lab, now, context| {
            lab.send(now, arguments(&lab.keys, 0, context, &[]), 0).unwrap()
        });
        let tracker = &self.processes[process].tracker;
        let _ = tracker.observe_script_reply(0, known.as_ref(), reply.epoch);
        reply
    }

    fn send(&mut self, process: usize, token: usize, action: Action) -> Option<Sent> {
        let server = self.server_of(process);
        let writer = self.processes[process].logs.writing(0, server).ok()?;
        let change = change_of(token, action);
        let (known, reply) = self.run_script(process, server, writer, |lab, now, context| {
            lab.send(now, arguments(&lab.keys, 0, context, &[&change]), 1).unwrap()
        });
        let first = reply.changes.iter().flatten().next();
        let confirmed = first.and_then(|reply| ConfirmedChange::new(&change, reply));
        let revokes = action == REVOKE;
        // A reinstatement that finds nothing revoked stands against nothing.
        if confirmed.is_some() && (revokes || first.is_some_and(|reply| reply.is_written)) {
            let revoked_at = first.map_or(Timestamp::ZERO, |reply| reply.fact.all_revoked_at);
            let (at, writer) = (self.now, writer.id);
            let is_confirmed = false;
            self.written.push(Written { token, revokes, at, revoked_at, writer, is_confirmed });
        }
        let is_written = self.written.last().is_some_and(|written| written.at == self.now);
        let place = if is_written { self.written.len() } else { 0 };
        let change = confirmed.map(Arc::new);
        Some(Sent { place, server, writer, known, reply, change })
    }

    /// Reads a reply, as the process does. One that comes after the lease counts for nothing.
    fn read(&mut self, process: usize, sent: Sent) {
        let Sent { place, server, writer, known, reply, change } = sent;
        if self.server_of(process) != server {
            return;
        }
        let reading = &self.processes[process];
        let _ = reading.tracker.observe_script_reply(0, known.as_ref(), reply.epoch);
        if reply.changes.is_none() {
            return;
        }
        let what = Confirmed::Changes(change.into_iter().collect());
        let at = (server, reply.epoch.id);
        if reading.logs.confirm(0, &writer, at, reply.number, what).is_ok() {
            if let Some(written) = place.checked_sub(1).and_then(|at| self.written.get_mut(at)) {
                written.is_confirmed = true;
            }
            if !self.awaited().contains(&epoch_id(writer.id)) {
                self.is_unknown(writer.id);
            }
        }
    }

    fn is_unknown(&mut self, writer: u64) {
        self.unknown.push(writer);
        self.once_unknown.push(writer);
    }

    /// Whether a token was last revoked, or reinstated, by a write that was confirmed; later ones
    /// that were not may be there or not.
    fn last_confirmed(&self, n: usize) -> impl Iterator<Item = &Written> {
        let of_token = move |written: &&Written| written.token == n;
        let last_of = |revokes: bool| {
            let same = move |written: &Written| written.token == n && written.revokes == revokes;
            self.written.iter().rposition(same)
        };
        let [revoked, reinstated] = [last_of(true), last_of(false)];
        self.written.iter().enumerate().filter_map(move |(place, written)| {
            let undone = if written.revokes { reinstated } else { revoked };
            let stands = written.is_confirmed && undone.is_none_or(|other| other < place);
            (of_token(&written) && stands).then_some(written)
        })
    }

    fn check(&mut self, process: usize, n: usize) {
        let server = self.server_of(process);
        let checking = &self.processes[process];
        let known = checking.tracker.known(0);
        // Both in one round trip.
        let names = self.lab.keys.shard(0);
        let keys = vec![names.epoch.clone(), names.record(&token(n).fingerprint())];
        self.select(server);
        let Value::Array(values) = self.lab.ask("MGET", keys).unwrap() else {
            panic!("not an array")
        };
        let [value, record] = values.try_into().unwrap();
        let from = ReadFrom { source: EpochSource::Checks, server };
        let value = value.into_bytes();
        let doubt = checking.tracker.observe_value(from, 0, known.as_ref(), value.as_deref());
        let record = record.into_bytes().map(|record| parse_record(&record).unwrap());
        if record.is_some_and(|record| record.is_in_effect()) {
            return;
        }
        for revoked in self.last_confirmed(n).filter(|written| written.revokes) {
            // The token was issued in the last moment before it was revoked.
            let passes = match doubt {
                Ok(Doubt::None) => true,
                Ok(Doubt::Lasting { issued_until, .. }) => issued_until.as_millis() < revoked.at,
                _ => false,
            };
            // Nobody has the write any more, or nobody knew that it had to be waited for. A server
            // that was replaced since, and is believed for the rest of a lease, gets it no more.
            let is_excused = self.unknown.contains(&revoked.writer)
                || (server < self.primary && self.once_unknown.contains(&revoked.writer));
            assert!(!passes || is_excused, "token {n} is live at {process}: {doubt:?}");
        }
    }

    fn is_revoked(&self, n: usize) -> bool {
        self.lab.record(&token(n)).is_some_and(|record| record.is_in_effect())
    }

    /// What the maintenance task does in one round. If it `breaks_off`, the connection is lost
    /// after the first replay.
    fn maintain(&mut self, process: usize, breaks_off: bool) {
        let server = self.server_of(process);
        let writer = self.processes[process].logs.renewing(0);
        let found = self.touch(process, server, writer);
        if self.processes[process].logs.is_through(0, server, found.epoch.id, Instant::now()) {
            return;
        }
        let Epoch { id: epoch, parent, .. } = found.epoch;
        let place = FoundServer { server, epoch, parent, had: found.had };
        let recovery = self.processes[process].logs.recover(0, place).unwrap();
        let (replays, has_gap) = recovery.replays(2);
        assert!(!has_gap, "nothing was dropped");
        for replay in replays {
            let Confirmed::Changes(changes) = &replay.what else { continue };
            self.run_script(process, server, replay.writer, |lab, now, context| {
                let arguments = confirmed_arguments(&lab.keys, 0, context, changes);
                lab.send(now, arguments, changes.len()).unwrap()
            });
            if breaks_off {
                return;
            }
        }
        if recovery.writer.number > 0 || found.had.is_some() {
            let through = WriterContext { action: WriterAction::Through, ..recovery.writer };
            self.touch(process, server, through);
        }
        let logs = &self.processes[process].logs;
        logs.recovered(0, server, found.epoch.id);
        // What nobody waited for is there by now, unless that server was replaced as well.
        if server == self.primary {
            let id = recovery.writer.id;
            self.unknown.retain(|unknown| *unknown != id || self.gone.contains(unknown));
        }
    }

    fn fail_over(&mut self, ahead: i64) {
        // The replica is the database after that of the primary.
        if self.primary == SERVERS || self.replica_is_empty() {
            return;
        }
        let [was, is] = [self.primary, self.primary + 1].map(|server| self.epoch_at(server));
        let is_other = was.map(|epoch| epoch.id) != is.map(|epoch| epoch.id);
        self.has_fork |= is_other && was.is_some_and(|epoch| epoch.settling.is_none());
        self.primary += 1;
        self.promoted_with[usize::try_from(self.primary).unwrap()] = is.map_or(0, |epoch| epoch.id);
        self.ahead[usize::try_from(self.primary).unwrap()] = ahead;
        self.replaced_at[usize::try_from(self.primary - 1).unwrap()] = self.now;
        let awaited = self.awaited();
        for n in 0..self.written.len() {
            let Written { writer, is_confirmed, .. } = self.written[n];
            if is_confirmed && !awaited.contains(&epoch_id(writer)) {
                self.is_unknown(writer);
            }
        }
    }

    /// The writers of which the primary knows. What they have confirmed elsewhere is waited for.
    fn awaited(&self) -> Vec<Bytes> {
        self.select(self.primary);
        let writers = self.lab.keys.shard(0).writers.clone();
        let Value::Array(ids) = self.lab.ask("HKEYS", vec![writers]).unwrap() else {
            panic!("not an array")
        };
        ids.into_iter().map(|id| id.into_bytes().unwrap()).collect()
    }

    /// A primary without any data is a total loss, or a first start. That is the matter of the
    /// model of epochs (`epoch/model_tests.rs`).
    fn replica_is_empty(&self) -> bool {
        self.select(self.primary + 1);
        self.lab.get(self.lab.keys.shard(0).epoch.clone()).is_none()
    }

    fn end(&mut self, process: usize, signs_off: bool) {
        if signs_off {
            // Its sign-off counts only at a server that was proved to be the primary after it.
            self.processes[process].server = self.primary;
        }
        let server = self.server_of(process);
        if signs_off {
            self.maintain(process, false);
            if let Some(leaving) = self.processes[process].logs.signing_off(0) {
                assert_eq!(leaving.server, server);
                self.touch(process, server, leaving.writer);
                // From now on nobody can replay what it wrote. A primary that has it replicates it.
                self.gone.push(leaving.writer.id);
            }
        } else {
            self.gone.push(self.processes[process].logs.renewing(0).id);
        }
        self.processes[process] = Process::new();
    }

    fn step(&mut self, step: Step) {
        self.now += 1;
        match step {
            Step::Check(process, token) => self.check(process, token),
            Step::Revoke(process, token) => self.write(process, token, REVOKE),
            Step::Reinstate(process, token) => self.write(process, token, Action::Reinstate),
            Step::Send(process, token, action) => {
                if let Some(sent) = self.send(process, token, action) {
                    self.processes[process].sent = Some(sent);
                }
            }
            Step::Read(process) => {
                if let Some(sent) = self.processes[process].sent.take() {
                    self.read(process, sent);
                }
            }
            Step::Maintain(process, breaks_off) => self.maintain(process, breaks_off),
            Step::Replicate => self.replicate(),
            Step::Failover(ahead) => self.fail_over(ahead),
            Step::Kill(process) => self.end(process, false),
            Step::Restart(process) => {
                // A replica that is behind loses what a process that has ended cannot replay.
                self.replicate();
                self.end(process, true);
                self.replicate();
            }
            Step::LeaveOut(left) => {
                for _ in 0..32 {
                    self.now += 1000;
                    for process in (0..PROCESSES).filter(|process| *process != left) {
                        self.maintain(process, false);
                    }
                }
                self.replicate();
            }
            Step::Wait(millis) => self.now += millis,
        }
    }

    fn write(&mut self, process: usize, token: usize, action: Action) {
        if let Some(sent) = self.send(process, token, action) {
            self.read(process, sent);
        }
    }

    /// Whether the primary has settled, and every process has nothing more to do there.
    fn is_settled(&mut self) -> bool {
        let writer = self.processes[0].logs.renewing(0);
        let epoch = self.touch(0, self.primary, writer).epoch;
        epoch.settling.is_none()
            && self.processes.iter().all(|process| {
                process.logs.is_through(0, self.primary, epoch.id, Instant::now())
                    && process.tracker.known(0).is_some_and(|known| known.epoch.id == epoch.id)
            })
    }

    /// Once every process is connected and its maintenance task runs, settling ends; and if nobody
    /// has died, with everything in its place.
    fn finish(&mut self) {
        for process in 0..PROCESSES {
            self.processes[process].sent = None;
        }
        self.now += LEASE + 1;
        for _ in 0..340 {
            self.now += 100;
            for process in 0..PROCESSES {
                self.maintain(process, false);
            }
            if self.is_settled() {
                break;
            }
        }
        let epoch = self.touch(0, self.primary, self.processes[0].logs.renewing(0)).epoch;
        assert_eq!(epoch.settling, None, "settling has no end");
        self.settled += usize::from(epoch.parent != 0);
        for process in 0..PROCESSES {
            for token in 0..TOKENS {
                self.check(process, token);
            }
        }
        if self.gone.is_empty() && !self.has_fork {
            assert_eq!(epoch.doubt, Doubt::None, "everybody has put everything back");
            self.select(self.primary);
            for n in 0..TOKENS {
                for written in self.last_confirmed(n) {
                    // Nobody waits for whom the server has never heard of, so what it revokes may
                    // come after all that was reinstated meanwhile.
                    // And what was reinstated stands against the revocations that its server had,
                    // and no other that is put back later.
                    let mut of_token = self.written.iter().filter(|other| other.token == n);
                    let is_excused = !written.revokes
                        && of_token.any(|other| {
                            self.once_unknown.contains(&other.writer)
                                || (other.revokes
                                    && other.writer != written.writer
                                    && other.at < written.at
                                    && other.revoked_at > written.revoked_at)
                        });
                    assert!(
                        self.is_revoked(n) == written.revokes || is_excused,
                        "token {n} is as it was before {}: {:?}",
                        if written.revokes { "it was revoked" } else { "it was reinstated" },
                        self.lab.record(&token(n)),
                    );
                }
            }
        }
    }
}

fn any_step() -> impl Strategy<Value = Step> {
    let process = || 0..PROCESSES;
    let token = || 0..TOKENS;
    prop_oneof![
        8 => (process(), token()).prop_map(|(process, token)| Step::Check(process, token)),
        6 => (process(), token()).prop_map(|(process, token)| Step::Revoke(process, token)),
        4 => (process(), token()).prop_map(|(process, token)| Step::Reinstate(process, token)),
        3 => (process(), token(), prop_oneof![Just(REVOKE), Just(Action::Reinstate)])
            .prop_map(|(process, token, action)| Step::Send(process, token, action)),
        3 => process().prop_map(Step::Read),
        8 => (process(), any::<bool>()).prop_map(|(process, off)| Step::Maintain(process, off)),
        4 => Just(Step::Replicate),
        2 => prop_oneof![Just(0), Just(-2000), Just(10_000)].prop_map(Step::Failover),
        1 => process().prop_map(Step::Kill),
        1 => process().prop_map(Step::Restart),
        1 => process().prop_map(Step::LeaveOut),
        3 => prop_oneof![1..400_u64, 900..1500_u64, Just(6_000_u64)].prop_map(Step::Wait),
    ]
}

fn history() -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec(any_step(), 10..60)
}

#[test]
fn no_history_lets_in_what_a_living_process_has_confirmed() {
    redis_or_skip!();
    let cases = std::env::var("FAILOVER_HISTORIES").ok().and_then(|cases| cases.parse().ok());
    let settled = AtomicUsize::new(0);
    let lab = || Rc::new(Lab::new());
    search(cases.unwrap_or(HISTORIES), history, lab, |lab, steps| {
        let mut world = World::new(Rc::clone(lab));
        for step in steps {
            world.step(step);
        }
        world.finish();
        settled.fetch_add(world.settled, Ordering::Relaxed);
    });
    let settled = settled.into_inner();
    assert!(settled > 10, "too few histories have a failover");
}

fn play(steps: &[Step]) -> World {
    let mut world = World::new(Rc::new(Lab::new()));
    for step in steps {
        world.step(*step);
    }
    world.finish();
    world
}

#[test]
fn a_server_that_was_replaced_does_not_get_what_is_put_back_at_the_next() {
    use Step::*;
    redis_or_skip!();
    let steps = [
        Maintain(0, false),
        Replicate,
        Revoke(2, 3),
        Failover(0),
        LeaveOut(2),
        Failover(0),
        Maintain(2, false),
        // It is at the second server for the rest of its lease.
        Check(0, 3),
    ];
    assert!(play(&steps).is_revoked(3));
}

#[test]
fn who_is_late_puts_back_what_it_has_reinstated() {
    use Step::*;
    redis_or_skip!();
    let steps = [
        Revoke(0, 0),
        Wait(1100),
        Maintain(0, false),
        Replicate,
        Revoke(1, 1),
        Revoke(0, 2),
        Reinstate(0, 0),
        Reinstate(0, 2),
        Failover(0),
        Wait(1100),
        LeaveOut(0),
    ];
    let world = play(&steps);
    assert!(!world.is_revoked(0) && world.is_revoked(1) && !world.is_revoked(2));
}

#[test]
fn what_was_revoked_since_is_not_undone_by_who_is_late() {
    use Step::*;
    redis_or_skip!();
    for ahead in [0, -2000] {
        // The second revocation finds the token revoked, since it knows of no reinstatement.
        let steps = [
            Revoke(0, 0),
            Revoke(0, 1),
            Wait(1100),
            Maintain(0, false),
            Replicate,
            Reinstate(0, 0),
            Reinstate(0, 1),
            Failover(ahead),
            Wait(1100),
            LeaveOut(0),
            Revoke(1, 0),
        ];
        let world = play(&steps);
        assert!(world.is_revoked(0) && !world.is_revoked(1));
    }
}

/// The third server has never heard of the writer: it was put back at the second too late.
#[test]
fn what_is_put_back_at_a_server_that_was_replaced_is_not_awaited_at_the_next() {
    use Step::*;
    redis_or_skip!();
    let steps = [
        Restart(0),
        Check(0, 0),
        Failover(0),
        Revoke(0, 0),
        Wait(997),
        Reinstate(0, 0),
        Replicate,
        Failover(0),
        Maintain(0, false),
        Kill(0),
    ];
    let world = play(&steps);
    assert!(!world.unknown.is_empty());
}

#[test]
fn who_was_missing_at_one_server_ends_the_doubt_at_the_next() {
    use Step::*;
    redis_or_skip!();
    let steps = [
        Send(1, 0, REVOKE),
        Replicate,
        Failover(0),
        LeaveOut(1),
        Replicate,
        Check(0, 0),
        Failover(0),
    ];
    play(&steps);
}

/// The first process has known the second server while that one settled, and has missed the third.
#[test]
fn who_has_missed_a_server_after_one_that_settled_doubts_nothing() {
    use Step::*;
    redis_or_skip!();
    let steps = [
        Restart(0),
        Check(0, 0),
        Failover(0),
        Replicate,
        Wait(997),
        Maintain(0, false),
        Failover(0),
        Maintain(1, false),
        Replicate,
        Failover(0),
    ];
    let world = play(&steps);
    assert!(world.gone.is_empty() && !world.has_fork);
}

/// The second server ends its settling for a process that has not noticed that the third one, which
/// never heard of the second, has replaced it.
#[test]
fn a_server_that_settles_after_it_was_replaced_is_a_fork() {
    use Step::*;
    redis_or_skip!();
    let steps = [
        Revoke(0, 0),
        Replicate,
        Failover(0),
        Wait(996),
        Replicate,
        Maintain(1, false),
        Send(0, 0, REVOKE),
        Wait(1196),
        Failover(0),
        Maintain(0, false),
    ];
    let world = play(&steps);
    assert!(world.has_fork);
}

/// The second server has never heard of who reinstates at the first one, and so does not wait for
/// it. Its clock may be behind: then the date of what is revoked there says that it is the earlier.
#[test]
fn what_was_reinstated_at_the_first_server_undoes_nothing_of_the_second_at_the_third() {
    use Step::*;
    redis_or_skip!();
    for ahead in [0, -2000, 10_000] {
        let steps = [
            LeaveOut(1),
            Failover(ahead),
            Revoke(2, 0),
            Revoke(1, 0),
            Replicate,
            Reinstate(2, 0),
            Wait(1196),
            Revoke(1, 0),
            Revoke(1, 0),
            Failover(0),
        ];
        assert!(play(&steps).is_revoked(0));
    }
}

/// The same, where the clock of the server at which it was reinstated is ahead.
#[test]
fn what_was_reinstated_at_a_server_that_is_ahead_undoes_nothing_that_came_later() {
    use Step::*;
    redis_or_skip!();
    let steps = [
        LeaveOut(1),
        Failover(10_000),
        LeaveOut(1),
        Revoke(2, 0),
        Failover(0),
        Maintain(1, false),
        Replicate,
        Reinstate(2, 0),
        Wait(1250),
        Maintain(1, false),
        Revoke(1, 0),
        Failover(0),
    ];
    assert!(play(&steps).is_revoked(0));
}

/// The same, where its replay at the second server has broken off and told the third of the writer.
#[test]
fn a_replay_that_broke_off_makes_no_writer_known() {
    use Step::*;
    redis_or_skip!();
    let steps = [
        LeaveOut(1),
        Failover(10_000),
        LeaveOut(1),
        Revoke(2, 1),
        Revoke(2, 2),
        Revoke(2, 0),
        Reinstate(2, 0),
        Failover(0),
        Maintain(1, false),
        Wait(1250),
        Maintain(1, false),
        Revoke(1, 0),
        Maintain(2, true),
        Replicate,
        Failover(0),
    ];
    assert!(play(&steps).is_revoked(0));
}

#[test]
fn who_was_not_waited_for_reinstates_at_the_next_server() {
    use Step::*;
    redis_or_skip!();
    let steps = [LeaveOut(1), Failover(0), Revoke(2, 0), Reinstate(2, 0), Revoke(2, 1)];
    let world = play(&steps);
    assert!(!world.once_unknown.is_empty());
    assert!(!world.is_revoked(0) && world.is_revoked(1));
}

/// The server at which it was reinstated was still waiting for who had revoked it meanwhile.
#[test]
fn what_is_reinstated_stands_against_nothing_that_was_missing() {
    use Step::*;
    redis_or_skip!();
    let steps = [
        Check(0, 0),
        Revoke(2, 0),
        Revoke(0, 0),
        Replicate,
        Revoke(2, 3),
        Failover(0),
        Revoke(0, 3),
        LeaveOut(0),
        Reinstate(2, 3),
        Failover(0),
    ];
    assert!(play(&steps).is_revoked(3));
}

/// The first process has known the first server and the third while that one settled, and nothing
/// of the others.
#[test]
fn who_has_missed_every_other_server_doubts_nothing() {
    use Step::*;
    redis_or_skip!();
    let steps = [
        Revoke(0, 0),
        Replicate,
        Failover(0),
        Restart(1),
        Failover(0),
        Wait(995),
        Maintain(1, false),
        Check(0, 0),
        Replicate,
        Failover(0),
        LeaveOut(0),
        Failover(0),
    ];
    let world = play(&steps);
    assert!(world.gone.is_empty() && !world.has_fork);
}
