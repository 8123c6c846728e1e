//! Any order of questions, executions and answers, by several processes, with losses of data in
//! between.
//!
//! Each question is asked, executed and answered in three steps, each at any time: what a process
//! knew when it asked may be long out of date when redis gets to it, and the answer may arrive
//! after many others.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use proptest::prelude::*;

use super::super::schema::EntryId;
use super::*;
use crate::store::feed::EndDoubt;

const TOKENS: usize = 3;
const PROCESSES: usize = 3;
const DOUBT_MILLIS: u64 = 1_000_000;

/// What Redis holds.
#[derive(Clone, Default)]
struct Data {
    epoch: Option<Epoch>,
    /// The epoch that the meta hash names.
    meta: Option<u64>,
    log: Vec<Written>,
    /// For each token, whether its record is there.
    records: [bool; TOKENS],
    /// The former epoch and its highest known `seq`; and the epoch of which everything up to a
    /// `seq` was written again.
    former: Option<(u64, u64)>,
    replayed: Option<(u64, u64)>,
}

/// A revocation that was written.
#[derive(Clone, Copy)]
struct Written {
    token: usize,
    last_entry: EntryId,
}

#[derive(Clone, Copy, Debug)]
enum What {
    Check(usize),
    Write(Option<usize>),
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Ask(usize, What),
    Execute(usize),
    Answer(usize),
    /// Everything at once: what a quiet network does.
    Promptly(usize, What),
    Flush,
    LoseEpoch,
    Save,
    /// A restart with what was saved. It cuts all connections.
    Restore,
    /// The mirror reads what there is.
    Mirror,
    /// The mirror writes again what it knows, and ends the doubt.
    Replay,
}

/// A mirror, which may be disconnected for any time. It keeps whatever it has ever read.
#[derive(Default)]
struct Mirror {
    place: Option<Epoch>,
    records: [bool; TOKENS],
    /// It has all that was ever revoked in this epoch, or before.
    is_whole: bool,
    /// The epoch whose data was lost, all of which it had up to here.
    lost: Option<(u64, u64)>,
}

struct Question {
    process: usize,
    what: What,
    before: Option<Arc<KnownEpoch>>,
    /// Everything that its process had ever read when it asked.
    read: Vec<Written>,
    answer: Option<Data>,
}

struct Process {
    tracker: EpochTracker,
    /// Everything that was written in the epochs that it has read.
    read: Vec<Written>,
}

struct World {
    now: u64,
    epochs: u64,
    data: Data,
    saved: Data,
    written: u64,
    processes: Vec<Process>,
    questions: Vec<Question>,
    mirror: Mirror,
    ends: u64,
    /// Whether anything was lost so far.
    has_lost: bool,
}

impl World {
    fn new() -> Self {
        let process =
            || Process { tracker: EpochTracker::new(1, Duration::from_secs(1)), read: Vec::new() };
        Self {
            now: 1000,
            epochs: 0,
            data: Data::default(),
            saved: Data::default(),
            written: 0,
            processes: (0..PROCESSES).map(|_| process()).collect(),
            questions: Vec::new(),
            mirror: Mirror::default(),
            ends: 0,
            has_lost: false,
        }
    }

    fn step(&mut self, step: Step) {
        // Some things happen in the same millisecond.
        self.now += u64::from(!matches!(step, Step::Answer(_)));
        match step {
            Step::Ask(process, what) => self.ask(process, what),
            Step::Execute(n) => {
                let waiting: Vec<_> = self.positions(|question| question.answer.is_none());
                if !waiting.is_empty() {
                    self.execute(waiting[n % waiting.len()]);
                }
            }
            Step::Answer(n) => {
                let waiting: Vec<_> = self.positions(|question| question.answer.is_some());
                if !waiting.is_empty() {
                    self.answer(waiting[n % waiting.len()]);
                }
            }
            Step::Promptly(process, what) => self.promptly(process, what),
            Step::Flush => self.lose(Data::default()),
            Step::LoseEpoch => self.lose(Data { epoch: None, ..self.data.clone() }),
            Step::Save => self.saved = self.data.clone(),
            Step::Restore => {
                self.questions.clear();
                self.lose(self.saved.clone());
                // As on each new connection, before anything else is asked over it. A mirror finds
                // the numbers of the log out of order.
                if self.mirror.place.is_some_and(|place| {
                    !self.data.log.iter().any(|written| written.last_entry == place.last_entry)
                }) {
                    self.mirror.lose();
                }
                for process in &self.processes {
                    let is_there = |last_entry: &EntryId| {
                        self.data.log.iter().any(|written| written.last_entry == *last_entry)
                    };
                    if let Some(known) = process.tracker.known(0)
                        && !known.expected_entries().iter().all(is_there)
                    {
                        process.tracker.report_missing_entry(0, &known);
                    }
                }
            }
            Step::Mirror => self.mirror.read(&self.data),
            Step::Replay => self.replay(),
        }
    }

    fn replay(&mut self) {
        self.mirror.read(&self.data);
        let (Some((former, seq)), Some(epoch)) = (self.mirror.lost, self.data.epoch) else {
            return;
        };
        for token in 0..TOKENS {
            if self.mirror.records[token] && !self.data.records[token] {
                self.script(None, Some(token), None);
            }
        }
        if self.data.epoch.is_none_or(|now| now.id != epoch.id) {
            return;
        }
        let issued_until = epoch.doubt.issued_until().unwrap_or_default();
        let request = EndDoubt { former_epoch: former, seq, epoch: epoch.id, issued_until };
        self.script(None, None, Some(request));
        self.mirror.read(&self.data);
    }

    fn positions(&self, which: impl Fn(&Question) -> bool) -> Vec<usize> {
        (0..self.questions.len()).filter(|n| which(&self.questions[*n])).collect()
    }

    fn lose(&mut self, data: Data) {
        self.data = data;
        self.has_lost = true;
    }

    fn ask(&mut self, process: usize, what: What) {
        let asking = &self.processes[process];
        let (before, read) = (asking.tracker.known(0), asking.read.clone());
        self.questions.push(Question { process, what, before, read, answer: None });
    }

    fn promptly(&mut self, process: usize, what: What) {
        self.ask(process, what);
        let last = self.questions.len() - 1;
        self.execute(last);
        self.answer(last);
    }

    fn execute(&mut self, n: usize) {
        let known = self.questions[n].before.as_deref().map(KnownEpoch::for_script);
        if let What::Write(token) = self.questions[n].what {
            self.script(known, token, None);
        }
        self.questions[n].answer = Some(self.data.clone());
    }

    /// What `write.lua` does to the epoch.
    fn script(&mut self, known: Option<CallerEpoch>, token: Option<usize>, wish: Option<EndDoubt>) {
        let now = ms(self.now);
        let data = &mut self.data;
        let mut is_declared = false;
        let (is_new, lost) = match &mut data.epoch {
            None => (true, known.is_some() || data.meta.is_some()),
            Some(epoch) => match known {
                Some(known) if known.id != epoch.id => {
                    let is_there = data
                        .replayed
                        .is_some_and(|(id, seq)| id == known.id && known.known_seq <= seq);
                    let is_new = !is_there && known.went_on;
                    if !is_there {
                        if is_new {
                            // All is in doubt up to now.
                        } else if epoch.doubt.issued_until() < Some(epoch.started_at) {
                            epoch.doubt = lasting(epoch.started_at);
                            epoch.doubt_ended_at = None;
                            is_declared = true;
                        }
                        data.former = Some(match data.former {
                            Some((id, seq)) if id != known.id => (id, MAX_INTEGER.max(seq)),
                            Some((id, seq)) => (id, seq.max(known.known_seq)),
                            None => (known.id, known.known_seq),
                        });
                    }
                    (is_new, is_new)
                }
                Some(known) if epoch.seq < known.min_seq => (true, true),
                _ if epoch.seq > 0 && data.meta.is_none() => (true, true),
                _ => (false, false),
            },
        };
        if is_new {
            self.epochs += 1;
            let (seq, last_entry) =
                data.epoch.map_or_else(Default::default, |epoch| (epoch.seq, epoch.last_entry));
            let doubt = if lost { lasting(now) } else { Doubt::None };
            data.replayed = None;
            let former = data.meta.map(|id| (id, 0));
            data.former = match (data.epoch, known) {
                (Some(was), Some(known)) if was.id != known.id => Some((was.id, MAX_INTEGER)),
                (_, known) => known.map(|known| (known.id, known.known_seq)).or(former),
            };
            data.epoch = Some(Epoch {
                id: self.epochs,
                parent: 0,
                server: SERVER,
                started_at: now,
                settling: None,
                doubt,
                doubt_ended_at: None,
                seq,
                last_entry,
            });
        }
        let epoch = data.epoch.as_mut().unwrap();
        data.meta = Some(epoch.id);
        let mut has_ended = false;
        if let Some(wish) = wish
            && !(is_new || is_declared)
            && data.former.is_some_and(|(id, known)| id == wish.former_epoch && known <= wish.seq)
            && (epoch.doubt.issued_until(), epoch.id) == (Some(wish.issued_until), wish.epoch)
        {
            (epoch.doubt, epoch.doubt_ended_at) = (Doubt::None, Some(now));
            data.replayed = Some((wish.former_epoch, wish.seq));
            self.ends += 1;
            has_ended = true;
        }
        if is_declared || has_ended {
            // No token has this number.
            self.count(TOKENS);
        }
        if let Some(token) = token {
            self.count(token);
            self.data.records[token] = true;
        }
    }

    /// Gives a change its number and its entry in the log.
    fn count(&mut self, token: usize) {
        self.written += 1;
        let last_entry = EntryId(self.now, self.written);
        let epoch = self.data.epoch.as_mut().unwrap();
        epoch.seq += 1;
        epoch.last_entry = last_entry;
        self.data.log.push(Written { token, last_entry });
    }

    fn answer(&mut self, n: usize) {
        let Question { process, what, before, read, answer } = self.questions.swap_remove(n);
        let Data { epoch, records, log, .. } = answer.unwrap();
        let value = epoch.map(|epoch| epoch.print());
        let tracker = &self.processes[process].tracker;
        let doubt = match what {
            What::Check(_) => {
                tracker.observe_value(FROM, 0, before.as_ref(), value.as_deref().map(str::as_bytes))
            }
            What::Write(_) => tracker.observe_script_reply(0, before.as_ref(), epoch.unwrap()),
        };
        if let What::Check(token) = what {
            for written in read.iter().filter(|written| written.token == token) {
                // One that was issued in the last moment before it was revoked.
                let passes = doubt.as_ref().is_ok_and(|doubt| until(*doubt) < written.last_entry.0);
                assert!(records[token] || !passes, "token {token} is live");
            }
            if self.ends == 0 && !self.has_lost && epoch.is_some() {
                assert_eq!(doubt.map(until).unwrap(), 0, "nothing was lost");
            }
        }
        if epoch.is_some() {
            self.processes[process].read.extend(log);
        }
    }

    /// Once nothing is under way and every maintenance task has run, a process that knows nothing
    /// doubts what the others doubt.
    fn settle(&mut self) {
        self.questions.clear();
        for _ in 0..4 {
            for process in 0..PROCESSES {
                if self.processes[process].tracker.known(0).is_some() {
                    self.promptly(process, What::Check(0));
                    self.promptly(process, What::Write(None));
                }
            }
        }
        let newcomer = EpochTracker::new(1, Duration::from_secs(1));
        let value = self.data.epoch.map(|epoch| epoch.print());
        let read =
            newcomer.observe_value(FROM, 0, None, value.as_deref().map(str::as_bytes)).map(until);
        for process in &self.processes {
            if let Some(known) = process.tracker.known(0) {
                let known_until = until(process.tracker.doubt(&known));
                assert_eq!(read.as_ref().ok(), Some(&known_until));
                assert_eq!((known.former, known.lost), (None, false));
            }
            for written in process.read.iter().filter(|written| written.token < TOKENS) {
                let passes = read.as_ref().is_ok_and(|until| *until < written.last_entry.0);
                assert!(
                    self.data.records[written.token] || !passes,
                    "a newcomer lets in {}",
                    written.token
                );
            }
        }
    }
}

impl Mirror {
    fn lose(&mut self) {
        // After a second loss before the replay, it does not know all of the former epoch.
        let place = self.place.take().filter(|_| self.is_whole && self.lost.is_none());
        self.lost = place.map(|place| (place.id, place.seq));
        self.is_whole = false;
    }

    fn read(&mut self, data: &Data) {
        let Some(epoch) = data.epoch else { return };
        if self.place.is_some_and(|place| place.id != epoch.id || place.seq > epoch.seq) {
            self.lose();
        }
        self.place = Some(epoch);
        for (known, there) in self.records.iter_mut().zip(data.records) {
            *known |= there;
        }
        if epoch.doubt == Doubt::None {
            (self.is_whole, self.lost) = (true, None);
        } else {
            self.is_whole = false;
        }
    }
}

fn ms(millis: u64) -> Timestamp {
    Timestamp::from_millis(millis)
}

const SERVER: u64 = 77;
const FROM: ReadFrom = ReadFrom { source: EpochSource::Checks, server: SERVER };

/// Until when tokens in doubt were issued; 0, if none are.
fn until(doubt: Doubt) -> u64 {
    if doubt == Doubt::Settling {
        return u64::MAX;
    }
    doubt.issued_until().unwrap_or_default().as_millis()
}

fn lasting(issued_until: Timestamp) -> Doubt {
    let ends_at = issued_until.saturating_add(Duration::from_millis(DOUBT_MILLIS));
    Doubt::Lasting { issued_until, ends_at }
}

fn any_step() -> impl Strategy<Value = Step> {
    let what = || {
        prop_oneof![
            3 => (0..TOKENS).prop_map(What::Check),
            1 => Just(What::Write(None)),
            2 => (0..TOKENS).prop_map(|token| What::Write(Some(token))),
        ]
    };
    prop_oneof![
        8 => (0..PROCESSES, what()).prop_map(|(process, what)| Step::Ask(process, what)),
        8 => (0..8_usize).prop_map(Step::Execute),
        8 => (0..8_usize).prop_map(Step::Answer),
        8 => (0..PROCESSES, what()).prop_map(|(process, what)| Step::Promptly(process, what)),
        2 => Just(Step::Flush),
        1 => Just(Step::LoseEpoch),
        1 => Just(Step::Save),
        1 => Just(Step::Restore),
        3 => Just(Step::Mirror),
        3 => Just(Step::Replay),
    ]
}

/// Runs one history until nothing is left to do.
fn run(steps: impl IntoIterator<Item = Step>) -> u64 {
    let mut world = World::new();
    for step in steps {
        world.step(step);
    }
    world.settle();
    world.ends
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, ..ProptestConfig::default() })]

    fn histories(
        steps in prop::collection::vec(any_step(), 1..60),
    ) {
        ENDS.fetch_add(run(steps), Ordering::Relaxed);
    }
}

/// How often a doubt was ended in all histories.
static ENDS: AtomicU64 = AtomicU64::new(0);

#[test]
fn what_a_process_knew_to_be_revoked_is_never_live_after_it_was_lost() {
    histories();
    assert!(ENDS.load(Ordering::Relaxed) > 100, "the histories end too few doubts");
}

/// The mirror read the second epoch before the first process declared a doubt in it. So the mirror
/// never had what that process knew, and must not end the next doubt.
#[test]
fn a_mirror_that_has_not_read_of_a_doubt_cannot_end_the_next_one() {
    let ends = run([
        Step::Promptly(0, What::Write(Some(2))),
        Step::Flush,
        Step::Promptly(1, What::Write(None)),
        Step::Mirror,
        Step::Promptly(0, What::Write(None)),
        Step::Promptly(0, What::Write(None)),
        Step::Flush,
        Step::Promptly(0, What::Write(None)),
        Step::Replay,
    ]);
    assert_eq!(ends, 0);
}
