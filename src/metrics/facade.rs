//! The numbers for the recorder of the `metrics` crate.

use metrics::{Label, counter, describe_counter, describe_gauge, gauge};

use super::Metrics;

impl Metrics {
    /// Gives all numbers as they are now to the recorder of the crate
    /// [`metrics`](https://docs.rs/metrics) (feature `metrics`). To be called regularly, such as
    /// every ten seconds, or before the recorder is asked for its text.
    ///
    /// Names and labels are those of [`prometheus`](Self::prometheus), so the same dashboards and
    /// rules hold. The parts of a histogram are numbers of their own: `_bucket` and `_count` are
    /// counters, `_sum` is a gauge, as counters of that crate are whole numbers.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use tower_jwt_revocation::JwtRevocationLayer;
    /// # fn f(layer: &JwtRevocationLayer) {
    /// let metrics = layer.metrics();
    /// tokio::spawn(async move {
    ///     loop {
    ///         metrics.emit();
    ///         tokio::time::sleep(Duration::from_secs(10)).await;
    ///     }
    /// });
    /// # }
    /// ```
    pub fn emit(&self) {
        for sample in self.samples() {
            let help = sample.row().help;
            let is_whole = sample.is_counter() && !sample.name.ends_with("_sum");
            let labels: Vec<Label> = sample
                .labels
                .iter()
                .map(|(name, value)| Label::new(*name, value.clone()))
                .collect();
            if is_whole {
                describe_counter!(sample.name, help);
                counter!(sample.name, labels).absolute(whole(sample.value));
            } else {
                describe_gauge!(sample.name, help);
                gauge!(sample.name, labels).set(sample.value);
            }
        }
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "counters are whole numbers of an u64"
)]
fn whole(number: f64) -> u64 {
    number as u64
}
