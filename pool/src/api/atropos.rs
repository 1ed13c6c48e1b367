//! The "tool executor" that atropos clients speak: tools by trajectory, slots by themselves.
//!
//! A trajectory gets its slot with its first call and keeps it. When its lease was taken away,
//! exactly one call says so, and the next begins anew: work that vanished is never hidden.

mod translate;

use super::{Api, Shared, body::Json, execute::Wish};
use crate::routes::LeaseEnd;
use axum::{
    extract::{FromRequest, Request, State},
    http::{HeaderValue, StatusCode, header::WWW_AUTHENTICATE},
    response::Response,
};
use dashmap::DashMap;
use serde::de::DeserializeOwned;
use serde_json::json;
use slotmux_edge::{Answer, Refusal, json, ok};
use slotmux_protocol::{
    Code, Ended, LeaseId, Problem, ToolResult, TrajectoryId,
    atropos::{PoolExecute, PoolRelease, PoolResult, default_timeout_s},
    v1::{AcquireRequest, Seconds},
};
use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering},
};

/// Entries beyond those of live leases, until the dead ones are dropped.
const STALE_MAX: usize = 1_024;

/// Which lease a trajectory was last seen with. A hint: routes say whether it still holds.
#[derive(Debug, Default)]
pub(super) struct Trajectories {
    leases: DashMap<TrajectoryId, LeaseId>,
    running: AtomicU64,
    requests: AtomicU64,
    errors: AtomicU64,
}

/// Run a tool for a trajectory.
///
/// The trajectory gets a slot with its first call and keeps it. Always 200 when the request was
/// understood; `success` says how it went, and `metadata.caused_by` through whom.
#[utoipa::path(
    post, path = "/execute", operation_id = "atropos_execute", tag = "atropos",
    request_body(content = PoolExecute, example = json!({
        "trajectory_id": "rollout-17",
        "tool": {"name": "bash", "arguments": {"command": "ls"}, "uniq_id": "call-1"},
        "timeout_s": 30.0
    })),
    responses((status = 200, description = "What the tool did", body = PoolResult)),
)]
pub(super) async fn execute(
    State(api): State<Api>,
    Plain(request): Plain<PoolExecute>,
) -> Response {
    let counts = &api.atropos;
    counts.requests.fetch_add(1, Ordering::Relaxed);
    let waiting = Waiting::begin(&counts.running);
    let result = api.execute_for(request).await;
    drop(waiting);
    let went_well = result.as_ref().is_ok_and(|result| result.success);
    counts.errors.fetch_add(u64::from(!went_well), Ordering::Relaxed);
    match result {
        Ok(result) => ok(&result),
        Err(problem) => refuse(problem),
    }
}

/// Give up a trajectory's slot.
///
/// Fine too when it holds none. The slot is always reset.
#[utoipa::path(
    post, path = "/release", operation_id = "atropos_release", tag = "atropos",
    request_body(content = PoolRelease, example = json!({"trajectory_id": "rollout-17"})),
    responses((status = 200, description = "It holds nothing any more", body = Object, example = json!({"status": "ok"}))),
)]
pub(super) async fn release(
    State(api): State<Api>,
    Plain(request): Plain<PoolRelease>,
) -> Response {
    let released = async {
        let trajectory = trajectory(&request.trajectory_id)?;
        api.pool.release_trajectory(&trajectory).await?;
        api.atropos.leases.remove(&trajectory);
        Ok(())
    };
    match released.await {
        Ok(()) => ok(&json!({"status": "ok"})),
        Err(problem) => refuse(problem),
    }
}

/// How the pool is, in that wire's words.
#[utoipa::path(
    get, path = "/status", operation_id = "atropos_status", tag = "atropos",
    responses((status = 200, description = "Counts", body = Object, example = json!({
        "queue_size": 0, "total_requests": 12, "total_errors": 1,
        "pool": {
            "total_slots": 16, "available_slots": 15, "acquired_slots": 1, "containers": 2,
            "slots_by_state": {"available": 15, "acquired": 1}, "started": true
        }
    }))),
)]
pub(super) async fn status(State(api): State<Api>) -> Answer {
    let status = api.pool.status().await?;
    let mut by_state: BTreeMap<&str, u32> = BTreeMap::new();
    let mut containers = 0;
    for profile in status.profiles.values() {
        let (slots, counts) = (&profile.slots, &profile.containers);
        containers += counts.ready + counts.draining;
        for (state, count) in [
            ("available", slots.free),
            ("acquired", slots.leased),
            ("resetting", slots.resetting),
            ("quarantined", slots.quarantined),
            ("unreachable", slots.unreachable),
        ] {
            *by_state.entry(state).or_default() += count;
        }
    }
    let counts = &api.atropos;
    Ok(ok(&json!({
        "queue_size": counts.running.load(Ordering::Relaxed),
        "total_requests": counts.requests.load(Ordering::Relaxed),
        "total_errors": counts.errors.load(Ordering::Relaxed),
        "pool": {
            "total_slots": by_state.values().sum::<u32>(),
            "available_slots": by_state.get("available"),
            "acquired_slots": by_state.get("acquired"),
            "containers": containers,
            "slots_by_state": by_state,
            "started": true,
        },
    })))
}

impl Shared {
    /// An error is a request that could not be understood; all else is a result.
    async fn execute_for(&self, request: PoolExecute) -> Result<PoolResult, Problem> {
        let PoolExecute { trajectory_id, tool, timeout_s } = request;
        let trajectory = trajectory(&trajectory_id)?;
        let timeout_s = timeout_s.unwrap_or_else(default_timeout_s);
        let timeout = Seconds::try_from(timeout_s)
            .map_err(|said| Problem::new(Code::Invalid, said).at("timeout_s"))?;
        self.check_timeout(timeout.as_millis())?;
        let uniq_id = tool.uniq_id.clone();
        let outcome = match translate::tool(tool) {
            Ok((name, args)) => {
                let wish = Wish {
                    tool: name,
                    args,
                    timeout: Some(timeout),
                    cpu: None,
                    execution_id: None,
                    output: None,
                };
                match self.run_for(&trajectory, wish).await {
                    Ok(result) => translate::result(name, timeout_s, result),
                    Err(problem) => translate::problem(problem),
                }
            }
            Err(fault) => translate::misuse(&fault),
        };
        Ok(PoolResult { uniq_id, ..outcome })
    }

    async fn run_for(
        &self,
        trajectory: &TrajectoryId,
        wish: Wish<'_>,
    ) -> Result<ToolResult, Problem> {
        let lease = self.lease_for(trajectory).await?;
        let result = self.run(lease, wish).await;
        // Told now, so not told again by the next call.
        let told = match &result {
            Ok(result) => result.ended == Ended::Lost,
            Err(problem) => problem.status == 410 || problem.code == Code::UnknownLease,
        };
        if told {
            self.forget(trajectory, lease);
        }
        result
    }

    async fn lease_for(&self, trajectory: &TrajectoryId) -> Result<LeaseId, Problem> {
        let known = self.atropos.leases.get(trajectory).map(|lease| *lease);
        if let Some(lease) = known {
            match self.pool.routes().end_of(lease) {
                None => return Ok(lease),
                // What the client gave up itself is no news to it.
                Some(LeaseEnd::Released) => self.forget(trajectory, lease),
                Some(end) => {
                    self.forget(trajectory, lease);
                    return Err(end.problem(lease));
                }
            }
        }
        let wait_ms = u64::try_from(self.settings.atropos_wait.as_millis()).unwrap_or(u64::MAX);
        let request = AcquireRequest {
            trajectory_id: trajectory.clone(),
            profile: None,
            wait_s: Some(Seconds::from_millis(wait_ms)),
            ttl_s: None,
            priority: None,
            count: None,
        };
        let leases = self.pool.acquire(request).await?;
        let Some(lease) = leases.first() else {
            return Err(Problem::new(Code::Internal, "the pool granted no lease"));
        };
        self.remember(trajectory.clone(), lease.lease_id);
        Ok(lease.lease_id)
    }

    fn remember(&self, trajectory: TrajectoryId, lease: LeaseId) {
        let (leases, routes) = (&self.atropos.leases, self.pool.routes());
        leases.insert(trajectory, lease);
        if leases.len() > 2 * routes.len() + STALE_MAX {
            // Trajectories that were never released, and never asked again.
            leases.retain(|_, lease| routes.is_live(*lease));
        }
    }

    fn forget(&self, trajectory: &TrajectoryId, lease: LeaseId) {
        self.atropos.leases.remove_if(trajectory, |_, known| *known == lease);
    }
}

fn trajectory(text: &str) -> Result<TrajectoryId, Problem> {
    TrajectoryId::new(text)
        .map_err(|error| Problem::new(Code::Invalid, error.to_string()).at("trajectory_id"))
}

/// A refusal in this wire's words.
pub(super) fn refuse(problem: Problem) -> Response {
    let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let error = match &problem.field {
        Some(field) => format!("{field}: {}", problem.detail),
        None => problem.detail,
    };
    let body = json!({"success": false, "error": error, "code": problem.code});
    let mut response = json(status, &body);
    if problem.code == Code::Unauthenticated {
        response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    response
}

/// A JSON body, refused in this wire's words.
pub(super) struct Plain<T>(T);

impl<T: DeserializeOwned> FromRequest<Api> for Plain<T> {
    type Rejection = Response;

    async fn from_request(request: Request, api: &Api) -> Result<Self, Response> {
        match Json::from_request(request, api).await {
            Ok(Json(body)) => Ok(Self(body)),
            Err(Refusal(problem)) => Err(refuse(problem)),
        }
    }
}

/// Counts while it lives.
struct Waiting<'a>(&'a AtomicU64);

impl<'a> Waiting<'a> {
    fn begin(count: &'a AtomicU64) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
