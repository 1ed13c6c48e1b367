//! What a replay came to, for people and for programs.

use super::{
    expect::name,
    outcome::{CallOutcome, Outcome, Unmet, Verdict, millis},
};
use serde::Serialize;
use slotmux_protocol::{ContainerId, SlotIndex, TrajectoryId};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// Failing lines that are named; the others are counted.
const FAILURES_MAX: usize = 50;

/// Gathers outcomes as they come.
#[derive(Default)]
pub(crate) struct Tally {
    verdicts: BTreeMap<&'static str, usize>,
    missing: BTreeMap<String, usize>,
    ended: BTreeMap<String, usize>,
    caused_by: BTreeMap<&'static str, usize>,
    round_trips_ms: BTreeMap<&'static str, Vec<f64>>,
    rewards: Vec<f64>,
    places: BTreeSet<(ContainerId, SlotIndex)>,
    isolation: BTreeMap<&'static str, usize>,
    failures: Vec<Failure>,
    failing: usize,
}

#[derive(Debug, Serialize)]
pub(crate) struct Failure {
    trajectory_id: TrajectoryId,
    #[serde(flatten)]
    unmet: Unmet,
}

/// The object that `--json` prints.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) file: String,
    /// `embedded`, or the URL of the pool.
    pub(crate) pool: String,
    pub(crate) trajectories: usize,
    /// As many as were to run, if that was cut short.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) interrupted_of: Option<usize>,
    pub(crate) held: usize,
    pub(crate) failed: usize,
    pub(crate) infra_errors: usize,
    pub(crate) skipped: usize,
    pub(crate) missing: BTreeMap<String, usize>,
    pub(crate) calls: Calls,
    pub(crate) rewards: Rewards,
    pub(crate) seconds: f64,
    pub(crate) calls_per_s: f64,
    pub(crate) trajectories_per_s: f64,
    pub(crate) containers_used: usize,
    pub(crate) slots_used: usize,
    /// Since the replay began; absent when the pool did not say.
    pub(crate) resets: Option<u64>,
    /// Trajectories by the isolation of their slot.
    pub(crate) isolation: BTreeMap<&'static str, usize>,
    pub(crate) failures: Vec<Failure>,
    pub(crate) failures_unnamed: usize,
}

/// Every call that was made: files, calls and rewards.
#[derive(Debug, Serialize)]
pub(crate) struct Calls {
    total: usize,
    ended: BTreeMap<String, usize>,
    caused_by: BTreeMap<&'static str, usize>,
    by_tool: BTreeMap<&'static str, Tool>,
}

#[derive(Debug, Serialize)]
struct Tool {
    calls: usize,
    p50_ms: f64,
    p99_ms: f64,
}

#[derive(Debug, Serialize)]
pub(crate) struct Rewards {
    count: usize,
    mean: Option<f64>,
    full: usize,
    zero: usize,
}

/// What the tally does not know.
pub(crate) struct Frame {
    pub(crate) file: String,
    pub(crate) pool: String,
    pub(crate) took: Duration,
    pub(crate) resets: Option<u64>,
    pub(crate) interrupted_of: Option<usize>,
}

impl Tally {
    pub(crate) fn add(&mut self, outcome: Outcome) {
        *self.verdicts.entry(verdict(outcome.verdict)).or_default() += 1;
        for name in outcome.missing {
            *self.missing.entry(name).or_default() += 1;
        }
        for call in outcome.setup.iter().chain(&outcome.calls).chain(&outcome.reward_call) {
            self.call(call);
        }
        self.rewards.extend(outcome.reward);
        if let Some(place) = outcome.lease {
            *self.isolation.entry(place.isolation.as_str()).or_default() += 1;
            self.places.insert((place.container, place.slot));
        }
        for unmet in outcome.unmet {
            self.failing += 1;
            if self.failures.len() < FAILURES_MAX {
                let trajectory_id = outcome.trajectory_id.clone();
                self.failures.push(Failure { trajectory_id, unmet });
            }
        }
    }

    fn call(&mut self, call: &CallOutcome) {
        let ended = call.ended.map_or("refused".to_owned(), name);
        *self.ended.entry(ended).or_default() += 1;
        let caused_by = match call.caused_by {
            slotmux_protocol::CausedBy::Policy => "policy",
            slotmux_protocol::CausedBy::Infra => "infra",
            slotmux_protocol::CausedBy::Client => "client",
        };
        *self.caused_by.entry(caused_by).or_default() += 1;
        self.round_trips_ms.entry(call.tool).or_default().push(call.round_trip_ms);
    }

    pub(crate) fn failing(&self) -> usize {
        self.failing
    }

    pub(crate) fn report(mut self, frame: Frame) -> Report {
        let count = |verdict| self.verdicts.get(verdict).copied().unwrap_or_default();
        let (held, failed) = (count("held"), count("failed"));
        let (infra_errors, skipped) = (count("infra_error"), count("skipped"));
        let trajectories = held + failed + infra_errors + skipped;
        let calls: usize = self.ended.values().sum();
        let by_tool = std::mem::take(&mut self.round_trips_ms);
        let containers: BTreeSet<&ContainerId> = self.places.iter().map(|(it, _)| it).collect();
        Report {
            file: frame.file,
            pool: frame.pool,
            trajectories,
            interrupted_of: frame.interrupted_of,
            held,
            failed,
            infra_errors,
            skipped,
            calls: Calls {
                total: calls,
                ended: self.ended,
                caused_by: self.caused_by,
                by_tool: by_tool.into_iter().map(|(name, times)| (name, tool(times))).collect(),
            },
            rewards: rewards(&self.rewards),
            seconds: millis(frame.took) / 1e3,
            calls_per_s: rate(calls, frame.took),
            trajectories_per_s: rate(trajectories - skipped, frame.took),
            containers_used: containers.len(),
            slots_used: self.places.len(),
            resets: frame.resets,
            failures_unnamed: self.failing - self.failures.len(),
            missing: self.missing,
            isolation: self.isolation,
            failures: self.failures,
        }
    }
}

fn verdict(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Held => "held",
        Verdict::Failed => "failed",
        Verdict::InfraError => "infra_error",
        Verdict::Skipped => "skipped",
    }
}

fn tool(mut times_ms: Vec<f64>) -> Tool {
    times_ms.sort_by(f64::total_cmp);
    Tool {
        calls: times_ms.len(),
        p50_ms: percentile(&times_ms, 50),
        p99_ms: percentile(&times_ms, 99),
    }
}

/// The smallest that at least `percent` of all do not exceed.
fn percentile(sorted: &[f64], percent: usize) -> f64 {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied().unwrap_or_default()
}

#[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^53")]
fn rate(count: usize, took: Duration) -> f64 {
    let per_s = count as f64 / took.as_secs_f64().max(1e-9);
    (per_s * 10.0).round() / 10.0
}

#[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^53")]
#[expect(clippy::float_cmp, reason = "these two values are exact")]
fn rewards(rewards: &[f64]) -> Rewards {
    let mean = rewards.iter().sum::<f64>() / rewards.len() as f64;
    Rewards {
        count: rewards.len(),
        mean: (!rewards.is_empty()).then_some((mean * 1e6).round() / 1e6),
        full: rewards.iter().filter(|it| **it == 1.0).count(),
        zero: rewards.iter().filter(|it| **it == 0.0).count(),
    }
}

mod text;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_one_of_the_values() {
        let sorted: Vec<f64> = (1..=200).map(f64::from).collect();
        assert_eq!((percentile(&sorted, 50), percentile(&sorted, 99)), (100.0, 198.0));
        assert_eq!((percentile(&[7.0], 50), percentile(&[7.0], 99)), (7.0, 7.0));
        assert!(percentile(&[], 50).abs() < f64::EPSILON);
    }
}
