//! The table of all metrics, [`Sample`], one number of them, and [`Samples`], what is gathered.
//!
//! `docs/metrics.md` has the same table for people; a test holds the two together.

use std::borrow::Cow;
use std::fmt::{self, Write as _};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Longest value of a label, in characters. The only ones that are not words of this crate are
/// issuers and URLs of keys, as they were configured.
const MAX_LABEL: usize = 256;

/// How the numbers of a metric are to be read (the metric types of `OpenMetrics`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MetricType {
    /// It only grows, from zero at the start of the process.
    Counter,
    /// It goes up and down.
    Gauge,
    /// Numbers of observations up to each bound, their number and their sum: three counters.
    Histogram,
}

impl MetricType {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MetricRow {
    pub(crate) name: &'static str,
    pub(crate) kind: MetricType,
    pub(crate) labels: &'static [&'static str],
    pub(crate) help: &'static str,
    /// The names of the three counters of a histogram.
    bucket: &'static str,
    count: &'static str,
    sum: &'static str,
}

macro_rules! metrics {
    ($($metric:ident: $kind:ident $name:literal [$($label:literal)*] $help:literal;)*) => {
        /// Every metric, in the order in which they are given out.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub(crate) enum Metric { $($metric),* }

        impl Metric {
            pub(crate) const ALL: &'static [Self] = &[$(Self::$metric),*];

            pub(crate) const fn row(self) -> MetricRow {
                match self {
                    $(Self::$metric => MetricRow {
                        name: concat!("jwt_revocation_", $name),
                        kind: MetricType::$kind,
                        labels: &[$($label),*],
                        help: $help,
                        bucket: concat!("jwt_revocation_", $name, "_bucket"),
                        count: concat!("jwt_revocation_", $name, "_count"),
                        sum: concat!("jwt_revocation_", $name, "_sum"),
                    }),*
                }
            }
        }
    };
}

metrics! {
    BuildInfo: Gauge "build_info" ["version"]
        "Always 1; the version of the crate is in the label.";
    Requests: Counter "requests_total" ["outcome"]
        "Requests that the layer has decided about, by what became of them.";
    Unasked: Counter "unasked_total" ["reason"]
        "Requests that passed without a token having been looked for or found, by reason.";
    Refusals: Counter "refusals_total" ["reason"]
        "Requests that were refused, by reason.";
    WouldRefuse: Counter "would_refuse_total" ["reason"]
        "Requests that passed because the layer only reports, by the reason against them.";
    InvalidTokens: Counter "invalid_tokens_total" ["kind"]
        "Tokens that were not accepted, by the rule that they break.";
    RevokedTokens: Counter "revoked_tokens_total" ["target"]
        "Tokens that were found to be revoked, by the kind of target that is revoked.";
    Misfits: Counter "misfits_total" []
        "Requests that passed, and whose claims do not fit the type that the handler wants.";
    CheckDuration: Histogram "check_duration_seconds" ["source"]
        "How long a check took: from memory at once, or by asking the store.";
    StoreErrors: Counter "store_errors_total" ["kind"]
        "Checks for which the store gave no answer, by kind of error.";
    Operations: Counter "operations_total" ["operation" "outcome"]
        "Revocations, reinstatements, logins and refreshes that this process was asked for.";
    AuditLost: Counter "audit_lost_total" []
        "Audit events that the sink has dropped.";
    CacheHits: Counter "token_cache_hits_total" []
        "Tokens that were found in the cache of verified tokens.";
    CacheMisses: Counter "token_cache_misses_total" []
        "Tokens that had to be verified because the cache did not have them.";
    KeysUsable: Gauge "jwks_usable" ["issuer"]
        "1 while there are keys of this issuer that may be used, else 0.";
    KeysAge: Gauge "jwks_age_seconds" ["issuer"]
        "How long ago the keys in use were asked for; absent before the first fetch.";
    KeysFetches: Counter "jwks_fetches_total" ["issuer"]
        "Fetches of keys that have ended, failed ones included.";
    KeysFailures: Counter "jwks_fetch_failures_total" ["issuer"]
        "Fetches of keys that have failed.";
    StoreUp: Gauge "store_up" ["purpose"]
        "1 while the store can be used for this purpose in all shards, else 0.";
    StoreReconnects: Counter "store_reconnects_total" ["purpose"]
        "Connections to Redis that were made to replace another one.";
    StoreBatchSize: Histogram "store_batch_size" []
        "How many checks shared one round trip to Redis.";
    StoreEpochStart: Gauge "store_epoch_start_time_seconds" []
        "When the latest epoch began, by the clock of Redis, in seconds since 1970.";
    StoreSettling: Gauge "store_settling" []
        "1 while the store settles after a change of server, else 0: every token is in doubt.";
    StoreSettlingSeconds: Gauge "store_settling_seconds" []
        "For how long the store has been settling; 0 if it is not.";
    StoreAwaitedWriters: Gauge "store_awaited_writers" []
        "Processes that have not put back yet what they have confirmed, while the store settles.";
    StoreDoubt: Gauge "store_doubt_seconds" []
        "For how long tokens from before a loss of data remain in doubt; 0 if none are.";
    ReplayLogWrites: Gauge "store_replay_log_writes" []
        "Confirmed writes that this process keeps, to put them back after a failover.";
    ReplayLogBytes: Gauge "store_replay_log_bytes" []
        "Memory of the confirmed writes that this process keeps.";
    ReplayLogDropped: Counter "store_replay_log_dropped_total" []
        "Confirmed writes that were dropped because the replay log was full.";
    StoreFindings: Gauge "store_findings" ["severity"]
        "Findings of the doctor when it was last asked, by severity; absent before.";
    MirrorFresh: Gauge "mirror_fresh" []
        "1 while checks are answered from memory, else 0, as without a mirror.";
    MirrorStaleness: Gauge "mirror_staleness_seconds" []
        "How old what the mirror says may be; +Inf before it is known, 0 without a mirror.";
    MirrorMaxStaleness: Gauge "mirror_max_staleness_seconds" []
        "How old it may become before the store is asked instead.";
    MirrorRevocations: Gauge "mirror_revocations" []
        "Revocations in memory, also those that are over and not swept out; 0 without a mirror.";
    MirrorBytes: Gauge "mirror_memory_bytes" []
        "Memory of the revocations.";
    MirrorLag: Gauge "mirror_lag_changes" []
        "Changes that are known to exist and have not been applied.";
    MirrorResyncs: Counter "mirror_resyncs_total" []
        "Snapshots that were taken after the first ones.";
    MirrorReplayed: Counter "mirror_replayed_total" []
        "Facts that were written again to a store that had lost them.";
    MirrorRestarts: Counter "mirror_restarts_total" []
        "How often a task of the mirror was started again after a panic.";
}

/// One number, as Prometheus stores it: a histogram is many of them.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Sample {
    /// The name of the metric, such as `jwt_revocation_requests_total`; for a histogram with
    /// `_bucket`, `_sum` or `_count`.
    pub name: &'static str,
    /// The names and values of its labels. A value is a word of this crate, or an issuer or a URL
    /// as it was configured; never an id, a token or text of a client.
    pub labels: Vec<(&'static str, Cow<'static, str>)>,
    /// The value. Durations are in seconds, sizes in bytes.
    pub value: f64,
    metric: Metric,
}

impl Sample {
    /// Whether it only grows, from zero at the start of the process.
    pub fn is_counter(&self) -> bool {
        self.metric.row().kind != MetricType::Gauge
    }

    #[cfg(feature = "metrics")]
    pub(crate) fn row(&self) -> MetricRow {
        self.metric.row()
    }
}

/// Gathers the metrics of a layer. A store or verifier that wraps another one passes it on to that.
#[derive(Debug, Default)]
pub struct Samples(Vec<Sample>);

impl Samples {
    /// Adds a number. Of a counter, numbers with the same labels are added up; of a gauge, the
    /// first one stays.
    pub(crate) fn add(&mut self, metric: Metric, labels: &[&str], value: f64) {
        let row = metric.row();
        let words = labels.iter().map(|text| Cow::Owned(presentable(text)));
        let labels = row.labels.iter().copied().zip(words).collect();
        self.push(Sample { name: row.name, labels, value, metric });
    }

    /// Adds a number that is counted in whole ones.
    pub(crate) fn add_count(&mut self, metric: Metric, labels: &[&str], value: u64) {
        self.add(metric, labels, float(value));
    }

    /// Adds a state: 1 or 0.
    pub(crate) fn add_flag(&mut self, metric: Metric, labels: &[&str], is_so: bool) {
        self.add(metric, labels, f64::from(u8::from(is_so)));
    }

    /// Adds a histogram.
    pub(crate) fn add_histogram(
        &mut self,
        metric: Metric,
        labels: &[&str],
        bounds: &[f64],
        seen: &HistogramSnapshot,
    ) {
        let row = metric.row();
        let labels: Vec<(&'static str, Cow<'static, str>)> = row
            .labels
            .iter()
            .copied()
            .zip(labels.iter().map(|text| Cow::Owned(presentable(text))))
            .collect();
        let mut count = 0;
        for (bound, number) in bounds.iter().chain([&f64::INFINITY]).zip(&seen.buckets) {
            count += number;
            let mut labels = labels.clone();
            labels.push(("le", Cow::Owned(number_text(*bound))));
            self.push(Sample { name: row.bucket, labels, value: float(count), metric });
        }
        self.push(Sample { name: row.sum, labels: labels.clone(), value: seen.sum, metric });
        self.push(Sample { name: row.count, labels, value: float(count), metric });
    }

    fn push(&mut self, sample: Sample) {
        let known = |it: &&mut Sample| it.name == sample.name && it.labels == sample.labels;
        match self.0.iter_mut().find(known) {
            Some(known) if sample.is_counter() => known.value += sample.value,
            Some(_) => {}
            None => self.0.push(sample),
        }
    }

    /// In the order of the table.
    pub(crate) fn into_sorted(mut self) -> Vec<Sample> {
        self.0.sort_by_key(|sample| sample.metric);
        self.0
    }

    /// As text, in the format of Prometheus 0.0.4. Metrics of which there is no number are named
    /// all the same, so that what there could be is seen.
    pub(crate) fn into_prometheus(self) -> String {
        let samples = self.into_sorted();
        let mut samples = samples.iter().peekable();
        let mut text = String::with_capacity(16 * 1024);
        for metric in Metric::ALL {
            let MetricRow { name, kind, help, .. } = metric.row();
            let kind = kind.as_str();
            // Writing to a string cannot fail.
            _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
            while let Some(sample) = samples.next_if(|sample| sample.metric == *metric) {
                _ = writeln!(text, "{sample}");
            }
        }
        text
    }
}

/// As a line of the text format: `name{label="value"} 1`.
impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)?;
        let mut before = '{';
        for (label, value) in &self.labels {
            write!(f, "{before}{label}=\"")?;
            for char in value.chars() {
                match char {
                    '\\' => f.write_str("\\\\")?,
                    '"' => f.write_str("\\\"")?,
                    '\n' => f.write_str("\\n")?,
                    char => f.write_char(char)?,
                }
            }
            f.write_char('"')?;
            before = ',';
        }
        if !self.labels.is_empty() {
            f.write_char('}')?;
        }
        write!(f, " {}", number_text(self.value))
    }
}

fn number_text(value: f64) -> String {
    if value == f64::INFINITY { "+Inf".into() } else { value.to_string() }
}

/// A value of a label, bounded.
fn presentable(text: &str) -> String {
    let printed = text.chars().map(|char| if char.is_control() { '\u{fffd}' } else { char });
    printed.take(MAX_LABEL).collect()
}

/// Exact up to 2⁵³, as everything in Prometheus.
#[expect(clippy::cast_precision_loss, reason = "2^53 requests are not reached")]
pub(crate) fn float(number: u64) -> f64 {
    number as f64
}

// === Histograms ===

/// Observations by size: adding one is lock-free and allocates nothing. `N` is one more than there
/// are bounds.
pub(crate) struct Histogram<const N: usize> {
    buckets: [AtomicU64; N],
    /// In the unit that the user of it has chosen.
    sum: AtomicU64,
}

/// A [`Histogram`] at one moment, or the sum of several.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct HistogramSnapshot {
    /// Not cumulative.
    pub(crate) buckets: Vec<u64>,
    pub(crate) sum: f64,
}

impl<const N: usize> Default for Histogram<N> {
    fn default() -> Self {
        Self { buckets: [const { AtomicU64::new(0) }; N], sum: AtomicU64::new(0) }
    }
}

impl<const N: usize> Histogram<N> {
    /// Counts an observation of this size, by upper bounds that are inclusive, in the same unit.
    pub(crate) fn observe(&self, size: u64, bounds: &[u64]) {
        let place = bounds.partition_point(|bound| *bound < size);
        if let Some(bucket) = self.buckets.get(place).or(self.buckets.last()) {
            bucket.fetch_add(1, Relaxed);
        }
        self.sum.fetch_add(size, Relaxed);
    }

    /// Adds what was observed to a snapshot. `unit` is how much one is of the unit of the snapshot.
    pub(crate) fn add_to(&self, snapshot: &mut HistogramSnapshot, unit: f64) {
        snapshot.buckets.resize(N, 0);
        for (sum, bucket) in snapshot.buckets.iter_mut().zip(&self.buckets) {
            *sum += bucket.load(Relaxed);
        }
        snapshot.sum += float(self.sum.load(Relaxed)) * unit;
    }
}

impl HistogramSnapshot {
    /// How many observations there are.
    #[cfg(test)]
    pub(crate) fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }
}

/// The bounds of durations, in nanoseconds and in seconds. The lowest holds what is known at once.
pub(crate) const DURATION_NANOS: [u64; 14] = [
    10_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    1_000_000_000,
];
pub(crate) const DURATION_SECONDS: [f64; 14] = [
    0.000_01, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5,
    1.0,
];

/// A histogram of durations.
pub(crate) type DurationHistogram = Histogram<{ DURATION_NANOS.len() + 1 }>;

impl DurationHistogram {
    pub(crate) fn observe_duration(&self, duration: Duration) {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        self.observe(nanos, &DURATION_NANOS);
    }

    /// Adds what was observed to a snapshot in seconds.
    pub(crate) fn add_seconds_to(&self, snapshot: &mut HistogramSnapshot) {
        self.add_to(snapshot, 1e-9);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `docs/metrics.md` says: the rows of its tables that begin with the name of a metric.
    fn documented() -> Vec<[String; 4]> {
        let text = include_str!("../docs/metrics.md");
        let rows = text.lines().filter(|line| line.starts_with("| `jwt_revocation_"));
        rows.map(|row| {
            let mut cells = row.split('|').skip(1).map(|cell| cell.trim().replace('`', ""));
            [(); 4].map(|()| cells.next().unwrap_or_default())
        })
        .collect()
    }

    #[test]
    fn the_document_has_the_table_of_the_code() {
        let expected: Vec<_> = Metric::ALL
            .iter()
            .map(|metric| {
                let MetricRow { name, kind, labels, help, .. } = metric.row();
                [name.into(), kind.as_str().into(), labels.join(", "), help.into()]
            })
            .collect();
        for (documented, expected) in documented().iter().zip(&expected) {
            assert_eq!(documented, expected);
        }
        assert_eq!(documented().len(), expected.len());
    }

    #[test]
    fn names_follow_the_conventions() {
        for metric in Metric::ALL {
            let MetricRow { name, kind, help, .. } = metric.row();
            assert_eq!(name.ends_with("_total"), kind == MetricType::Counter, "{name}");
            assert!(help.ends_with('.') && !help.contains('\\') && !help.contains('\n'), "{name}");
            assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{name}");
        }
    }

    #[test]
    fn both_bounds_of_durations_are_the_same() {
        for (nanos, seconds) in DURATION_NANOS.iter().zip(DURATION_SECONDS) {
            assert!((float(*nanos) * 1e-9 - seconds).abs() < 1e-12, "{nanos} and {seconds}");
        }
    }

    #[test]
    fn a_histogram_counts_each_observation_in_its_bucket() {
        let histogram = DurationHistogram::default();
        for micros in [0, 10, 11, 1_000, 10_000_000] {
            histogram.observe_duration(Duration::from_micros(micros));
        }
        let mut seen = HistogramSnapshot::default();
        histogram.add_seconds_to(&mut seen);
        assert_eq!(seen.buckets, [2, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
        assert_eq!(seen.count(), 5);
        assert!((seen.sum - 10.001_021).abs() < 1e-9, "{}", seen.sum);

        let mut samples = Samples::default();
        samples.add_histogram(Metric::CheckDuration, &["store"], &DURATION_SECONDS, &seen);
        let lines: Vec<_> = samples.into_sorted().iter().map(Sample::to_string).collect();
        let name = "jwt_revocation_check_duration_seconds";
        assert_eq!(lines[0], format!("{name}_bucket{{source=\"store\",le=\"0.00001\"}} 2"));
        assert_eq!(lines[14], format!("{name}_bucket{{source=\"store\",le=\"+Inf\"}} 5"));
        assert!(lines[15].starts_with(&format!("{name}_sum{{source=\"store\"}} 10.001")));
        assert_eq!(lines[16], format!("{name}_count{{source=\"store\"}} 5"));
    }

    #[test]
    fn a_value_of_a_label_is_escaped_and_bounded() {
        let mut samples = Samples::default();
        samples.add(Metric::KeysAge, &["https://a\\b\"c\nd"], f64::INFINITY);
        samples.add(Metric::KeysAge, &["x".repeat(9999).as_str()], 1.5);
        let samples = samples.into_sorted();
        let name = "jwt_revocation_jwks_age_seconds";
        let shown = samples[0].to_string();
        assert_eq!(shown, format!("{name}{{issuer=\"https://a\\\\b\\\"c\u{fffd}d\"}} +Inf"));
        assert_eq!(samples[1].labels[0].1.len(), MAX_LABEL);
    }

    #[test]
    fn of_the_same_labels_counters_are_added_up_and_of_gauges_the_first_stays() {
        let mut samples = Samples::default();
        for value in [1.0, 2.0] {
            samples.add(Metric::CacheHits, &[], value);
            samples.add(Metric::MirrorFresh, &[], value);
        }
        let samples = samples.into_sorted();
        let values: Vec<_> = samples.iter().map(|sample| sample.value).collect();
        assert_eq!((values, samples[0].is_counter()), (vec![3.0, 1.0], true));
        assert!(!samples[1].is_counter());
    }

    #[test]
    fn every_metric_is_named_in_the_text_in_the_order_of_the_table() {
        let text = Samples::default().into_prometheus();
        let names: Vec<_> = text
            .lines()
            .filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next())
            .collect();
        let expected: Vec<_> = Metric::ALL.iter().map(|metric| metric.row().name).collect();
        assert_eq!(names, expected);
    }
}
