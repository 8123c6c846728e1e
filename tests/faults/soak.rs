//! Minutes of traffic over a Redis that keeps failing: memory, open files and tasks must not grow.

use std::time::{Duration, Instant};

use tower_jwt_revocation::FailMode;

use crate::doors::{Verdict, this_second, token};
use crate::lab::Lab;
use crate::support::Fault;

/// Checks a second, of each fail mode.
const PER_SECOND: u64 = 250;
const WRITES_PER_SECOND: u64 = 10;
/// So long a fault lasts, and so long all is well after it.
const FLAP: Duration = Duration::from_millis(1500);
/// A bound on the length, whatever was asked for.
const LONGEST: Duration = Duration::from_secs(3600);

/// What was measured, once a second.
#[derive(Clone, Copy)]
pub struct Sample {
    pub at: Duration,
    pub resident_kib: u64,
    pub files: usize,
    pub tasks: usize,
}

/// What the soak has come to.
pub struct Soaked {
    pub length: Duration,
    pub answers: u64,
    pub writes: u64,
    pub faults: usize,
    pub samples: Vec<Sample>,
}

impl Soaked {
    /// One sample in twelve or so.
    pub fn shown(&self) -> impl Iterator<Item = &Sample> {
        self.samples.iter().step_by((self.samples.len() / 12).max(1))
    }

    /// The largest of the second quarter, by which all has been warmed up, and of the last.
    fn quarters<T: Ord + Copy>(&self, of: impl Fn(&Sample) -> T) -> (T, T) {
        let quarter = self.samples.len() / 4;
        let largest = |samples: &[Sample]| samples.iter().map(&of).max().expect("samples");
        (largest(&self.samples[quarter..2 * quarter]), largest(&self.samples[3 * quarter..]))
    }

    pub fn sentence(&self) -> String {
        let (memory, files, tasks) = (
            self.quarters(|sample| sample.resident_kib),
            self.quarters(|sample| sample.files),
            self.quarters(|sample| sample.tasks),
        );
        format!(
            "From the second quarter to the last, the peak of resident memory went from {} to {} \
             KiB, that of open files from {} to {}, that of tasks from {} to {}.",
            memory.0, memory.1, files.0, files.1, tasks.0, tasks.1
        )
    }

    /// # Errors
    /// What has grown.
    fn assess(&self) -> Result<(), String> {
        let (before, after) = self.quarters(|sample| sample.resident_kib);
        // An allocator may keep a page here or there; a leak of 64 bytes a request would be more.
        if after > before + before / 20 + 1024 {
            return Err(format!("resident memory went from {before} to {after} KiB"));
        }
        let (before, after) = self.quarters(|sample| sample.files);
        if after > before + 4 {
            return Err(format!("open files went from {before} to {after}"));
        }
        let (before, after) = self.quarters(|sample| sample.tasks);
        if after > before + 64 {
            return Err(format!("tasks went from {before} to {after}"));
        }
        Ok(())
    }
}

/// Over Redis, or over a mirror of it.
///
/// # Errors
/// What has grown, or an answer that must not have been.
pub fn run(length: Duration, mirror: bool) -> Result<Soaked, String> {
    let length = length.min(LONGEST);
    let mut lab = Lab::start(|server| server.arg("appendonly", "yes"), |store| store, mirror);
    let count = std::sync::Arc::new(Count::default());
    let doors = lab.doors.clone();
    let counted = std::sync::Arc::clone(&count);
    lab.app
        .run(async move {
            let target = tower_jwt_revocation::Target::token("revoked");
            doors.revoker.revoke(target).await
        })
        .unwrap();
    lab.app.spawn(drive(lab.doors.clone(), counted));

    let start = Instant::now();
    let (mut samples, mut faults) = (Vec::new(), 0);
    while start.elapsed() < length {
        match faults % 5 {
            0 => lab.server.kill(),
            1 => lab.server.stop_hung(),
            2 => lab.net(Fault::Reset),
            3 => lab.net(Fault::BlackHoleReplies),
            _ => lab.net(Fault::CutReplyAfter(1000)),
        }
        sample(&lab, start, &mut samples);
        match faults % 5 {
            0 => lab.server.restart(),
            1 => lab.server.resume(),
            _ => lab.net(Fault::Pass),
        }
        sample(&lab, start, &mut samples);
        faults += 1;
    }
    let [answers, writes, wrong, checked] = count.read();
    let soaked = Soaked { length: start.elapsed(), answers, writes, faults, samples };
    if wrong > 0 {
        return Err(format!("{wrong} of {answers} answers were wrong"));
    }
    if checked * 4 < answers || faults < 20 {
        return Err(format!(
            "{checked} of {answers} answers were known, in {faults} faults: no test"
        ));
    }
    soaked.assess()?;
    Ok(soaked)
}

fn sample(lab: &Lab, start: Instant, samples: &mut Vec<Sample>) {
    std::thread::sleep(FLAP);
    for stalls in [&lab.app.stalls, &lab.net.stalls, &lab.pinger.stalls] {
        stalls.forget();
    }
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let resident =
        resident.and_then(|line| line.split_whitespace().next()).and_then(|kib| kib.parse().ok());
    samples.push(Sample {
        at: start.elapsed(),
        resident_kib: resident.unwrap_or_default(),
        files: std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count),
        tasks: lab.app.tasks(),
    });
}

/// How many answers, writes, wrong answers, and answers that were known to be right.
#[derive(Default)]
struct Count([std::sync::atomic::AtomicU64; 4]);

impl Count {
    fn add(&self, index: usize) {
        self.0[index].fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    }

    fn read(&self) -> [u64; 4] {
        [0, 1, 2, 3].map(|index: usize| self.0[index].load(std::sync::atomic::Ordering::Relaxed))
    }
}

/// Keeps no protocol, which would grow.
async fn drive(doors: crate::doors::Doors, count: std::sync::Arc<Count>) {
    let mut pace =
        tokio::time::interval(Duration::from_secs(1) / u32::try_from(PER_SECOND).unwrap());
    pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let (mut minted, mut tokens) = (0, [String::new(), String::new()]);
    for n in 0_u64.. {
        pace.tick().await;
        let now = this_second();
        // They expire; and a restarted Redis may put older ones in doubt.
        if now > minted + 10 {
            (minted, tokens) =
                (now, [token("someone", "live", now), token("someone", "revoked", now)]);
        }
        let is_revoked = n % 2 == 1;
        for mode in [FailMode::Closed, FailMode::Open] {
            let (doors, count, token) =
                (doors.clone(), count.clone(), tokens[usize::from(is_revoked)].clone());
            tokio::spawn(async move {
                let verdict = doors.ask(mode, &token).await;
                count.add(0);
                let expected = if is_revoked { Verdict::Revoked } else { Verdict::Checked };
                if verdict == expected {
                    count.add(3);
                } else if verdict.failure().is_none() {
                    count.add(2);
                }
            });
        }
        if n % (PER_SECOND / WRITES_PER_SECOND) == 0 {
            let (doors, count) = (doors.clone(), count.clone());
            tokio::spawn(async move {
                // The same few again and again: Redis must not grow either.
                let target = tower_jwt_revocation::Target::token(format!("written-{}", n % 100));
                if doors.revoker.revoke(target).await.is_ok() {
                    count.add(1);
                }
            });
        }
    }
}
