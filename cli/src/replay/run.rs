//! One trajectory: acquire, files, calls, reward, release.
//!
//! Invariant: a lease that was acquired is released, or is in [`Held`] for whoever ends us.

use super::{
    expect::{reward, shortened, unmet},
    outcome::{CallOutcome, Outcome, Unmet, Verdict, millis},
    requires::{Presence, execution_id},
    rollouts::Trajectory,
    target::{Target, Wish},
};
use slotmux_protocol::{
    BashArgs, CausedBy, Code, LeaseId, Problem, ToolCall, ToolResult, TrajectoryId,
    v1::{AcquireRequest, Lease, Seconds},
};
use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
};
use tokio::time::Instant;

/// How long a trajectory waits for a slot, behind others and for containers that start.
const WAIT_MS: u64 = 600_000;

/// Leases that were acquired and not released.
#[derive(Debug, Default)]
pub(crate) struct Held(Mutex<BTreeSet<LeaseId>>);

impl Held {
    pub(crate) fn all(&self) -> Vec<LeaseId> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().copied().collect()
    }

    fn add(&self, lease: LeaseId) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(lease);
    }

    fn remove(&self, lease: LeaseId) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&lease);
    }
}

/// What all trajectories share.
pub(crate) struct Replayer {
    pub(crate) target: Target,
    /// Whether slots see the executables of this machine; else they are asked.
    pub(crate) slots_are_here: bool,
    pub(crate) presence: Presence,
    pub(crate) held: Held,
}

/// Why a trajectory goes no further.
enum Stop {
    /// The infrastructure failed it.
    Infra(String),
    Missing(Vec<String>),
}

impl Replayer {
    pub(crate) async fn run(&self, trajectory: Arc<Trajectory>, id: TrajectoryId) -> Outcome {
        let started = Instant::now();
        let mut outcome = blank(&trajectory, id);
        if self.slots_are_here {
            outcome.missing = Presence::missing_here(&trajectory);
            if !outcome.missing.is_empty() {
                return outcome;
            }
        }
        let acquired = self.acquire(&trajectory, &outcome.trajectory_id).await;
        outcome.acquire_ms = millis(started.elapsed());
        let went = match acquired {
            Ok(lease) => self.in_slot(&trajectory, &lease, &mut outcome).await,
            Err(problem) => Err(Stop::Infra(format!("no slot: {problem}"))),
        };
        outcome.wall_ms = millis(started.elapsed());
        conclude(&mut outcome, went);
        outcome
    }

    async fn acquire(&self, trajectory: &Trajectory, id: &TrajectoryId) -> Result<Lease, Problem> {
        let request = AcquireRequest {
            trajectory_id: id.clone(),
            profile: trajectory.profile.clone(),
            wait_s: Some(Seconds::from_millis(WAIT_MS)),
            ttl_s: None,
            priority: None,
            count: None,
        };
        let lease = self.target.acquire(request).await?;
        self.held.add(lease.lease_id);
        Ok(lease)
    }

    async fn in_slot(
        &self,
        trajectory: &Trajectory,
        lease: &Lease,
        outcome: &mut Outcome,
    ) -> Result<(), Stop> {
        outcome.lease = Some(lease.into());
        let went = self.steps(trajectory, lease.lease_id, outcome).await;
        let released = self.target.release(lease.lease_id).await;
        self.held.remove(lease.lease_id);
        // Whatever went wrong first counts.
        went?;
        released.map_err(|problem| Stop::Infra(format!("release: {problem}")))
    }

    async fn steps(
        &self,
        trajectory: &Trajectory,
        lease: LeaseId,
        outcome: &mut Outcome,
    ) -> Result<(), Stop> {
        if !self.slots_are_here && !trajectory.requires.is_empty() {
            let missing = self.presence.missing_there(trajectory, &self.target, lease).await;
            let missing = missing.map_err(|problem| Stop::Infra(format!("requires: {problem}")))?;
            if !missing.is_empty() {
                return Err(Stop::Missing(missing));
            }
        }
        for (at, file) in trajectory.files.iter().enumerate() {
            let tool = ToolCall::WriteFile(file.clone());
            let (answer, call) = self.call(lease, tool, None, &format!("file-{at}")).await;
            outcome.setup.push(call);
            written(&file.path, &answer)?;
        }
        for (at, planned) in trajectory.calls.iter().enumerate() {
            let (answer, call) =
                self.call(lease, planned.tool.clone(), planned.timeout, &at.to_string()).await;
            outcome.calls.push(call);
            if let Some(why) = infra(&answer) {
                return Err(Stop::Infra(format!("call {at}: {why}")));
            }
            outcome.unmet.extend(unmet(&planned.expect, &answer, trajectory.line, at));
        }
        self.reward(trajectory, lease, outcome).await
    }

    async fn reward(
        &self,
        trajectory: &Trajectory,
        lease: LeaseId,
        outcome: &mut Outcome,
    ) -> Result<(), Stop> {
        let Some(planned) = &trajectory.reward else { return Ok(()) };
        let tool = ToolCall::Bash(BashArgs::new(planned.command.clone()));
        let (answer, call) = self.call(lease, tool, planned.timeout, "reward").await;
        outcome.reward_call = Some(call);
        match (infra(&answer), answer) {
            (None, Ok(result)) => {
                outcome.reward = reward(&result);
                Ok(())
            }
            (Some(why), _) => Err(Stop::Infra(format!("reward: {why}"))),
            (None, Err(problem)) => Err(Stop::Infra(format!("reward: {problem}"))),
        }
    }

    async fn call(
        &self,
        lease: LeaseId,
        tool: ToolCall,
        timeout: Option<Seconds>,
        step: &str,
    ) -> (Result<ToolResult, Problem>, CallOutcome) {
        let (name, started) = (tool.name(), Instant::now());
        let answer = match execution_id(lease, step) {
            Ok(execution_id) => self.target.call(lease, Wish { tool, timeout, execution_id }).await,
            Err(problem) => Err(problem),
        };
        let outcome = CallOutcome::new(name, &answer, started.elapsed());
        (answer, outcome)
    }
}

fn blank(trajectory: &Trajectory, id: TrajectoryId) -> Outcome {
    Outcome {
        trajectory_id: id,
        line: trajectory.line,
        group: trajectory.group.clone(),
        verdict: Verdict::Skipped,
        reward: None,
        infra_error: None,
        missing: Vec::new(),
        lease: None,
        acquire_ms: 0.0,
        wall_ms: 0.0,
        setup: Vec::new(),
        calls: Vec::new(),
        reward_call: None,
        unmet: Vec::new(),
    }
}

fn conclude(outcome: &mut Outcome, went: Result<(), Stop>) {
    outcome.verdict = match went {
        Ok(()) if outcome.unmet.is_empty() => Verdict::Held,
        Ok(()) => Verdict::Failed,
        Err(Stop::Missing(missing)) => {
            outcome.missing = missing;
            Verdict::Skipped
        }
        Err(Stop::Infra(why)) => {
            outcome.reward = None;
            outcome.unmet.push(Unmet {
                line: outcome.line,
                call: None,
                expected: "no fault of the infrastructure".to_owned(),
                came: shortened(&why),
                output: String::new(),
            });
            outcome.infra_error = Some(why);
            Verdict::InfraError
        }
    };
}

/// A file of the trajectory that is not there makes the rest meaningless.
fn written(path: &str, answer: &Result<ToolResult, Problem>) -> Result<(), Stop> {
    match answer {
        Ok(result) if result.success => Ok(()),
        Ok(result) => Err(Stop::Infra(format!("file `{path}`: {}", result.error))),
        Err(problem) => Err(Stop::Infra(format!("file `{path}`: {problem}"))),
    }
}

/// Why this answer is the infrastructure's doing. A call that was refused as wrong is the policy's.
fn infra(answer: &Result<ToolResult, Problem>) -> Option<String> {
    match answer {
        Ok(result) if result.caused_by == CausedBy::Policy => None,
        Ok(result) => Some(format!("{} ({})", super::expect::name(result.ended), result.error)),
        Err(problem) => match problem.code {
            Code::Invalid | Code::TooLarge | Code::UnknownTool => None,
            _ => Some(problem.to_string()),
        },
    }
}
