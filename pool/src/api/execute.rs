//! Running one tool in the slot of a lease.

use super::{Api, Shared, body::Json, leases::LeasePath, live::live};
use crate::{
    link::{Abandoned, LinkCall, OutputSender, output},
    routes::Route,
};
use axum::{extract::State, http::HeaderMap};
use serde_json::Value;
use slotmux_edge::{Answer, lines, ok, wants_lines};
use slotmux_protocol::{
    Code, ExecutionId, LeaseId, Problem, ToolCall, ToolResult,
    v1::{ExecuteRequest, OutputLine, Seconds},
};
use std::{
    collections::hash_map::RandomState,
    hash::{BuildHasher, Hasher},
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};
use tokio::time::{sleep, timeout};

/// How long a call waits for the link of a lease that is held.
const ROUTE_WAIT: Duration = Duration::from_secs(3);
const ROUTE_EVERY: Duration = Duration::from_millis(20);

/// Run a tool in the slot of a lease.
///
/// Answers when the tool is done: 200 also when it failed or timed out; `ended` and `caused_by`
/// say how and through whom. An error status means that nothing was run. With an
/// `execution_id` the same request can be sent again and is not run twice.
///
/// With `Accept: application/x-ndjson` what a command prints is sent while it runs, a line for
/// each piece; the last line is the result, or the problem.
#[utoipa::path(
    post, path = "/v1/leases/{lease_id}/execute", tag = "tools",
    params(("lease_id" = LeaseId, Path, example = "lease-6a1b2c")),
    request_body(
        content = ExecuteRequest,
        example = json!({"tool": "bash", "args": {"command": "ls"}, "timeout_s": 10})
    ),
    responses((
        status = 200,
        description = "How the call ended",
        content((ToolResult = "application/json"), (OutputLine = "application/x-ndjson")),
    )),
)]
pub(super) async fn execute(
    State(api): State<Api>,
    LeasePath(lease): LeasePath,
    headers: HeaderMap,
    Json(request): Json<ExecuteRequest>,
) -> Answer {
    let ExecuteRequest { tool, args, timeout_s, cpu_s, execution_id } = request;
    if wants_lines(&headers) {
        let (sender, reader) = output();
        let run = async move {
            let output = Some(sender);
            api.run(
                lease,
                Wish { tool: &tool, args, timeout: timeout_s, cpu: cpu_s, execution_id, output },
            )
            .await
        };
        return Ok(lines(live(run, reader)));
    }
    let wish =
        Wish { tool: &tool, args, timeout: timeout_s, cpu: cpu_s, execution_id, output: None };
    Ok(ok(&api.run(lease, wish).await?))
}

/// A call, before it is checked.
pub(super) struct Wish<'a> {
    pub(super) tool: &'a str,
    pub(super) args: Value,
    pub(super) timeout: Option<Seconds>,
    /// Processor time.
    pub(super) cpu: Option<Seconds>,
    pub(super) execution_id: Option<ExecutionId>,
    /// Where what it prints goes meanwhile.
    pub(super) output: Option<OutputSender>,
}

impl Shared {
    pub(super) async fn run(&self, lease: LeaseId, wish: Wish<'_>) -> Result<ToolResult, Problem> {
        let route = self.route(lease).await?;
        let tool = ToolCall::parse(wish.tool, wish.args)?;
        let mut limits = route.limits;
        if let Some(timeout) = wish.timeout {
            limits.timeout_ms = timeout.as_millis();
        }
        self.check_timeout(limits.timeout_ms)?;
        if let Some(cpu) = wish.cpu {
            limits.cpu_ms_max = cpu.as_millis();
            self.check_time(limits.cpu_ms_max, "cpu_s")?;
        }
        let (execution_id, abandoned) = match wish.execution_id {
            Some(chosen) => (chosen, Abandoned::RunOn),
            None => (self.executions.draw()?, Abandoned::Cancel),
        };
        let call = LinkCall {
            slot: route.slot,
            epoch: route.epoch,
            execution_id,
            tool,
            limits,
            abandoned,
            output: wish.output,
            beating: Some(route.pulse.beat()),
        };
        let answer = route.link.call(call).await;
        answer.map_err(|problem| self.say_more(lease, problem))
    }

    /// A lease without a route may still be held: a pool that was restarted links its containers
    /// again only after it serves.
    async fn route(&self, lease: LeaseId) -> Result<Route, Problem> {
        let routes = self.pool.routes();
        match routes.find(lease) {
            Err(problem) if problem.code == Code::UnknownLease => {}
            found => return found,
        }
        let linked = async {
            loop {
                match self.pool.lease(lease).await {
                    Err(problem) if problem.code != Code::ContainerUnreachable => {
                        return Err(problem);
                    }
                    _held_or_not_known_yet => {}
                }
                match routes.find(lease) {
                    Err(problem) if problem.code == Code::UnknownLease => sleep(ROUTE_EVERY).await,
                    found => return found,
                }
            }
        };
        timeout(ROUTE_WAIT, linked).await.unwrap_or_else(|_| {
            Err(Problem::new(
                Code::ContainerUnreachable,
                format!(
                    "the container of {lease} is not linked yet; the call was not run; retry it"
                ),
            ))
        })
    }

    pub(super) fn check_timeout(&self, timeout_ms: u64) -> Result<(), Problem> {
        self.check_time(timeout_ms, "timeout_s")
    }

    fn check_time(&self, millis: u64, field: &str) -> Result<(), Problem> {
        let max_ms = self.settings.limits.timeout_ms_max;
        if (1..=max_ms).contains(&millis) {
            return Ok(());
        }
        let detail = format!("a time must be more than 0 s and at most {} s", max_ms / 1_000);
        Err(Problem::new(Code::Invalid, detail).at(field))
    }

    /// The container only knows that it may not run the call; the pool may know why.
    fn say_more(&self, lease: LeaseId, problem: Problem) -> Problem {
        let vague = [
            Code::ContainerUnreachable,
            Code::ShuttingDown,
            Code::SlotBroken,
            Code::StaleEpoch,
            Code::UnknownSlot,
        ];
        match self.pool.routes().end_of(lease) {
            Some(end) if vague.contains(&problem.code) => end.problem(lease),
            _ => problem,
        }
    }
}

/// Draws execution ids that no other process draws.
pub(super) struct Executions {
    base: u64,
    next: AtomicU64,
}

impl Executions {
    pub(super) fn new() -> Self {
        // Seeded by the system's randomness.
        Self { base: RandomState::new().build_hasher().finish(), next: AtomicU64::new(1) }
    }

    fn draw(&self) -> Result<ExecutionId, Problem> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        ExecutionId::new(format!("pool-{:016x}-{number:x}", self.base))
            .map_err(|error| Problem::new(Code::Internal, error.to_string()))
    }
}
