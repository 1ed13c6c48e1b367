//! What a run came to.

use serde_json::{Map, Value, json};
use std::{io::Write as _, process::ExitCode, time::Duration};

/// Latencies and errors of one run.
#[derive(Debug, Default)]
pub(super) struct Samples {
    latencies_us: Vec<u32>,
    pub(super) errors: u64,
    /// Of the first error.
    pub(super) first_error: Option<String>,
}

impl Samples {
    pub(super) fn add(&mut self, latency: Duration) {
        self.latencies_us.push(u32::try_from(latency.as_micros()).unwrap_or(u32::MAX));
    }

    pub(super) fn fail(&mut self, error: impl ToString) {
        self.errors += 1;
        self.first_error.get_or_insert_with(|| error.to_string());
    }

    pub(super) fn merge(&mut self, other: Self) {
        self.latencies_us.extend(other.latencies_us);
        self.errors += other.errors;
        self.first_error = self.first_error.take().or(other.first_error);
    }

    pub(super) fn count(&self) -> usize {
        self.latencies_us.len()
    }

    /// In milliseconds; of sorted latencies.
    fn quantile_ms(&self, permille: usize) -> f64 {
        let last = self.latencies_us.len().saturating_sub(1);
        let at = (self.latencies_us.len() * permille / 1_000).min(last);
        self.latencies_us.get(at).map_or(0.0, |us| f64::from(*us) / 1_000.0)
    }

    pub(super) fn quantiles_ms(&mut self) -> (f64, f64) {
        self.latencies_us.sort_unstable();
        (self.quantile_ms(500), self.quantile_ms(990))
    }

    /// Prints and says how the run went. `rate_name` is `calls_per_s` or the like, `units` how many
    /// of those each sample stands for.
    pub(super) fn print(
        mut self,
        rate_name: &str,
        units: usize,
        elapsed: Duration,
        ran: Value,
        as_json: bool,
    ) -> anyhow::Result<ExitCode> {
        let (p50_ms, p99_ms) = self.quantiles_ms();
        #[expect(clippy::cast_precision_loss, reason = "counts of a benchmark")]
        let rate = (self.count() * units) as f64 / elapsed.as_secs_f64();
        let mut object = Map::new();
        object.insert(rate_name.to_owned(), json!(round(rate)));
        object.insert("p50_ms".to_owned(), json!(p50_ms));
        object.insert("p99_ms".to_owned(), json!(p99_ms));
        object.insert("errors".to_owned(), json!(self.errors));
        if let Some(error) = &self.first_error {
            object.insert("first_error".to_owned(), json!(error));
        }
        object.insert("ran".to_owned(), ran);
        let mut out = std::io::stdout().lock();
        if as_json {
            writeln!(out, "{}", Value::Object(object))?;
        } else {
            for (name, value) in &object {
                writeln!(out, "{name:<14} {value}")?;
            }
        }
        Ok(if self.errors == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

fn round(rate: f64) -> f64 {
    (rate * 10.0).round() / 10.0
}
