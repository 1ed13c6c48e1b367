//! What came of a trajectory: a line of `results.jsonl`.

use serde::Serialize;
use slotmux_protocol::{
    CausedBy, Code, ContainerId, Ended, Isolation, LeaseId, Problem, SlotIndex, ToolResult,
    TrajectoryId, v1::Lease,
};
use std::time::Duration;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Verdict {
    /// Everything was as expected.
    Held,
    /// Some expectation did not hold.
    Failed,
    /// The infrastructure failed it; there is no reward to train on.
    InfraError,
    /// What it requires is missing; nothing was run.
    Skipped,
}

#[derive(Debug, Clone, Serialize)]
pub(crate) struct Outcome {
    pub(crate) trajectory_id: TrajectoryId,
    pub(crate) line: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) group: Option<String>,
    pub(crate) verdict: Verdict,
    /// `null` when there is no reward command, or the infrastructure failed the trajectory.
    pub(crate) reward: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) infra_error: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) missing: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) lease: Option<Place>,
    pub(crate) acquire_ms: f64,
    pub(crate) wall_ms: f64,
    /// Those that wrote its files.
    pub(crate) setup: Vec<CallOutcome>,
    pub(crate) calls: Vec<CallOutcome>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reward_call: Option<CallOutcome>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) unmet: Vec<Unmet>,
}

/// Where it ran.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Place {
    pub(crate) lease_id: LeaseId,
    pub(crate) container: ContainerId,
    pub(crate) slot: SlotIndex,
    pub(crate) isolation: Isolation,
}

#[derive(Debug, Clone, Serialize)]
pub(crate) struct CallOutcome {
    pub(crate) tool: &'static str,
    pub(crate) success: bool,
    /// Absent when it never ran.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ended: Option<Ended>,
    pub(crate) caused_by: CausedBy,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) exit_code: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) signal: Option<i32>,
    /// Why it never ran.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) refused: Option<Code>,
    /// From its start in the slot to its end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) wall_ms: Option<f64>,
    /// As we saw it, with the way there and back.
    pub(crate) round_trip_ms: f64,
}

/// An expectation that did not hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Unmet {
    pub(crate) line: usize,
    /// In `calls`, from 0; absent when it is about the trajectory as a whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) call: Option<usize>,
    pub(crate) expected: String,
    pub(crate) came: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) output: String,
}

impl From<&Lease> for Place {
    fn from(lease: &Lease) -> Self {
        Self {
            lease_id: lease.lease_id,
            container: lease.container.clone(),
            slot: lease.slot,
            isolation: lease.isolation,
        }
    }
}

impl CallOutcome {
    pub(crate) fn new(
        tool: &'static str,
        answer: &Result<ToolResult, Problem>,
        round_trip: Duration,
    ) -> Self {
        let round_trip_ms = millis(round_trip);
        match answer {
            Ok(result) => Self {
                tool,
                success: result.success,
                ended: Some(result.ended),
                caused_by: result.caused_by,
                exit_code: result.exit_code,
                signal: result.signal,
                refused: None,
                wall_ms: Some(millis(Duration::from_micros(result.usage.wall_us))),
                round_trip_ms,
            },
            Err(problem) => Self {
                tool,
                success: false,
                ended: None,
                caused_by: problem.caused_by,
                exit_code: None,
                signal: None,
                refused: Some(problem.code),
                wall_ms: None,
                round_trip_ms,
            },
        }
    }
}

/// Rounded to microseconds.
pub(crate) fn millis(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}
