//! Processors and clocks.

use std::time::Duration;

use rustix::thread::{CpuSet, sched_setaffinity};
use rustix::time::{ClockId, clock_gettime};

/// The time that this thread took of its processor.
pub fn cpu() -> Duration {
    time_of(ClockId::ThreadCPUTime)
}

/// The same, of all threads.
pub fn cpu_of_process() -> Duration {
    time_of(ClockId::ProcessCPUTime)
}

/// The same clock in all processes of the machine, in nanoseconds.
pub fn now() -> u64 {
    u64::try_from(time_of(ClockId::Monotonic).as_nanos()).unwrap_or(u64::MAX)
}

/// Milliseconds since 1970, and parts of them: the clock by which Redis names entries of a log.
pub fn wall_millis() -> f64 {
    time_of(ClockId::Realtime).as_secs_f64() * 1000.0
}

fn time_of(clock: ClockId) -> Duration {
    let now = clock_gettime(clock);
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}

/// Zero of no numbers.
pub fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers.get(numbers.len() / 2).copied().unwrap_or(0.0)
}

/// Of sorted numbers; not a number of none.
pub fn percentile(sorted: &[f64], share: f64) -> f64 {
    let place = (sorted.len() as f64 * share) as usize;
    sorted.get(place.min(sorted.len().saturating_sub(1))).copied().unwrap_or(f64::NAN)
}

/// Keeps this thread, and those that it starts, on one processor, where there are two.
pub fn pin(processor: usize) {
    if std::thread::available_parallelism().map_or(1, usize::from) > 1 || processor == 0 {
        let mut set = CpuSet::new();
        set.set(processor);
        let _ = sched_setaffinity(None, &set);
    }
}

/// How busy the machine is.
pub fn load_average() -> String {
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    load.split(' ').next().unwrap_or("unknown").to_owned()
}
