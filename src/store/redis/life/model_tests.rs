//! Any order of questions, executions and answers, by several processes, with losses of data in between.
//!
//! Each question is asked, executed and answered in three steps, each at any time: what a process knew when it asked may
//! be long out of date when redis gets to it, and the answer may arrive after many others.

use std::sync::Arc;

use proptest::prelude::*;

use super::super::schema::EntryId;
use super::*;

const TOKENS: usize = 3;
const PROCESSES: usize = 3;
const SPAN: u64 = 1_000_000;

/// What redis holds.
#[derive(Clone, Default)]
struct Data {
    life: Option<Life>,
    /// That another key shows that there was a life.
    meta: bool,
    log: Vec<Written>,
    /// For each token, whether its record is there.
    records: [bool; TOKENS],
}

/// A revocation that was written.
#[derive(Clone, Copy)]
struct Written {
    token: usize,
    mark: EntryId,
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
    LoseLife,
    Save,
    /// A restart with what was saved. It cuts all connections.
    Restore,
}

struct Question {
    process: usize,
    what: What,
    before: Option<Arc<Known>>,
    /// All that its process had ever been told when it asked.
    told: Vec<Written>,
    answer: Option<Data>,
}

struct Process {
    memory: Memory,
    /// What was written in the lives that were laid before it.
    told: Vec<Written>,
}

struct World {
    now: u64,
    lives: u64,
    data: Data,
    saved: Data,
    written: u64,
    processes: Vec<Process>,
    questions: Vec<Question>,
    /// Whether anything was lost so far.
    has_lost: bool,
}

impl World {
    fn new() -> Self {
        let process = || Process { memory: Memory::new(1, Duration::from_secs(1)), told: Vec::new() };
        Self {
            now: 1000,
            lives: 0,
            data: Data::default(),
            saved: Data::default(),
            written: 0,
            processes: (0..PROCESSES).map(|_| process()).collect(),
            questions: Vec::new(),
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
            Step::LoseLife => self.lose(Data { life: None, ..self.data.clone() }),
            Step::Save => self.saved = self.data.clone(),
            Step::Restore => {
                self.questions.clear();
                self.lose(self.saved.clone());
                // As a keeper does with each new connection, before anything else is asked on it.
                for process in &self.processes {
                    if let Some(known) = process.memory.recall(0)
                        && known.life.mark != EntryId::default()
                        && !self.data.log.iter().any(|written| written.mark == known.life.mark)
                    {
                        process.memory.miss(0, &known);
                    }
                }
            }
        }
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
        let (before, told) = (asking.memory.recall(0), asking.told.clone());
        self.questions.push(Question { process, what, before, told, answer: None });
    }

    fn promptly(&mut self, process: usize, what: What) {
        self.ask(process, what);
        let last = self.questions.len() - 1;
        self.execute(last);
        self.answer(last);
    }

    fn execute(&mut self, n: usize) {
        let known = self.questions[n].before.as_deref().map(Known::for_script);
        if let What::Write(token) = self.questions[n].what {
            self.script(known, token);
        }
        self.questions[n].answer = Some(self.data.clone());
    }

    /// What `write.lua` does to the life.
    fn script(&mut self, known: Option<(u64, u64)>, token: Option<usize>) {
        let now = ms(self.now);
        let (is_new, lost) = match &mut self.data.life {
            None => (true, known.is_some() || self.data.meta),
            Some(life) => match known {
                Some((id, _)) if id != life.id => {
                    if life.horizon < life.birth {
                        life.horizon = life.birth;
                        life.lifted = ms(life.birth.as_millis() + SPAN);
                    }
                    (false, false)
                }
                Some((_, seq)) if life.seq < seq => (true, true),
                _ if life.seq > 0 && !self.data.meta => (true, true),
                _ => (false, false),
            },
        };
        if is_new {
            self.lives += 1;
            let (seq, mark) = self.data.life.map_or_else(Default::default, |life| (life.seq, life.mark));
            let horizon = if lost { now } else { Timestamp::ZERO };
            let lifted = if lost { ms(self.now + SPAN) } else { Timestamp::ZERO };
            self.data.life = Some(Life { id: self.lives, birth: now, horizon, lifted, seq, mark });
        }
        self.data.meta = true;
        let life = self.data.life.as_mut().unwrap();
        if let Some(token) = token {
            life.seq += 1;
            self.written += 1;
            life.mark = EntryId(self.now, self.written);
            self.data.log.push(Written { token, mark: life.mark });
            self.data.records[token] = true;
        }
    }

    fn answer(&mut self, n: usize) {
        let Question { process, what, before, told, answer } = self.questions.swap_remove(n);
        let Data { life, records, log, .. } = answer.unwrap();
        let value = life.map(|life| life.print());
        let memory = &self.processes[process].memory;
        let doubt = match what {
            What::Check(_) => memory.judge(0, before.as_ref(), value.as_deref().map(str::as_bytes)),
            What::Write(_) => memory.learn(0, before.as_ref(), life.unwrap()),
        };
        if let What::Check(token) = what {
            for written in told.iter().filter(|written| written.token == token) {
                // One that was issued in the last moment before it was revoked.
                let passes = doubt.as_ref().is_ok_and(|doubt| doubt.horizon < ms(written.mark.0));
                assert!(records[token] || !passes, "token {token} is live");
            }
            if !self.has_lost && life.is_some() {
                assert_eq!(doubt.map(horizon_of).unwrap(), 0, "nothing was lost");
            }
        }
        if life.is_some() {
            self.processes[process].told.extend(log);
        }
    }

    /// Once nothing is under way and every steward has done what it was rung for, a process that knows nothing doubts
    /// what those who remember doubt.
    fn settle(&mut self) {
        self.questions.clear();
        for _ in 0..4 {
            for process in 0..PROCESSES {
                if self.processes[process].memory.recall(0).is_some() {
                    self.promptly(process, What::Check(0));
                    self.promptly(process, What::Write(None));
                }
            }
        }
        let newcomer = Memory::new(1, Duration::from_secs(1));
        let value = self.data.life.map(|life| life.print());
        let told = newcomer.judge(0, None, value.as_deref().map(str::as_bytes)).map(horizon_of);
        for process in &self.processes {
            if let Some(known) = process.memory.recall(0) {
                assert_eq!(told.as_ref().ok(), Some(&known.doubt().horizon.as_millis()));
                assert_eq!((known.former, known.lost), (None, false));
            }
        }
    }
}

fn ms(millis: u64) -> Timestamp {
    Timestamp::from_millis(millis)
}

fn horizon_of(doubt: Doubt) -> u64 {
    doubt.horizon.as_millis()
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
        4 => (0..PROCESSES, what()).prop_map(|(process, what)| Step::Promptly(process, what)),
        1 => Just(Step::Flush),
        1 => Just(Step::LoseLife),
        1 => Just(Step::Save),
        1 => Just(Step::Restore),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_a_process_knew_to_be_revoked_is_never_live_after_it_was_lost(
        steps in prop::collection::vec(any_step(), 1..60),
    ) {
        let mut world = World::new();
        for step in steps {
            world.step(step);
        }
        world.settle();
    }
}
