//! The v1 surface: calls of slots by clients that talk to a container directly. Bodies are those of
//! [`slotmux_protocol::v1`], refusals are problems (RFC 9457).

mod batch;
mod body;
mod execute;
mod live;
pub(super) mod snapshots;
mod tree;

use crate::{
    server::Server,
    slot::{Scope, Slot},
};
use axum::{
    Router,
    extract::{Path, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{delete, get, post},
};
pub(super) use slotmux_edge::Refusal;
use slotmux_edge::{Answer, ok};
use slotmux_protocol::{
    CallLimits, Code, ExecutionId, Network, Problem, SlotIndex, ToolCall,
    v1::{Seconds, SlotList, SlotStatus},
};
use std::sync::Arc;

pub(super) fn routes() -> Router<Arc<Server>> {
    Router::new()
        .route("/v1/tools", get(tools))
        .route("/v1/slots", get(slots))
        .route("/v1/slots/{slot}/execute", post(execute::execute))
        .route("/v1/slots/{slot}/executions/{id}", delete(cancel))
        .route("/v1/slots/{slot}/reset", post(reset))
        .route("/v1/slots/{slot}/files", get(tree::download).put(tree::upload))
        .route("/v1/batch", post(batch::batch))
        .merge(snapshots::routes())
}

/// The tools, as models are told of functions.
async fn tools() -> Response {
    ok(&ToolCall::functions())
}

async fn slots(State(server): State<Arc<Server>>) -> Response {
    let slots = server.slots.iter().map(|slot| {
        let view = slot.view();
        SlotStatus {
            slot: slot.index,
            state: view.phase,
            queued: view.queued,
            execution_id: view.executing,
        }
    });
    ok(&SlotList { slots: slots.collect() })
}

/// Empties the slot: its processes, its files, its sessions. Answers 204 when that is verified.
async fn reset(State(server): State<Arc<Server>>, Path(slot): Path<String>) -> Answer {
    let slot = find(&server, &slot)?;
    slot.reset_standalone().await.map_err(|why| Problem::new(Code::SlotBroken, why))?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// Ends a running call as `cancelled`. One that is unknown or has ended is left as it is.
async fn cancel(
    State(server): State<Arc<Server>>,
    Path((slot, id)): Path<(String, String)>,
) -> Answer {
    let slot = find(&server, &slot)?;
    let id = ExecutionId::new(id)
        .map_err(|error| Problem::new(Code::Invalid, error.to_string()).at("execution_id"))?;
    slot.cancel(&id);
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// `slot_3`, or `3` as answers have it.
pub(super) fn find<'a>(server: &'a Server, name: &str) -> Result<&'a Arc<Slot>, Problem> {
    let index = SlotIndex::parse(name).or_else(|| name.parse().ok().map(SlotIndex));
    index.and_then(|index| server.slot(index)).ok_or_else(|| {
        let name: String = name.chars().take(100).collect();
        let last = server.slots.len().saturating_sub(1);
        let detail = format!("there is no slot `{name}`; they are slot_0 to slot_{last}");
        Problem::new(Code::UnknownSlot, detail).at("slot")
    })
}

/// A call before it is checked.
struct Wish<'a> {
    tool: &'a str,
    args: serde_json::Value,
    timeout_s: Option<Seconds>,
    cpu_s: Option<Seconds>,
    execution_id: Option<ExecutionId>,
}

impl Wish<'_> {
    fn into_request(self, server: &Server, scope: Scope) -> Result<crate::slot::Request, Problem> {
        if server.draining.is_cancelled() {
            return Err(Problem::new(Code::ShuttingDown, "the server is shutting down"));
        }
        let tool = ToolCall::parse(self.tool, self.args)?;
        let mut limits = CallLimits::default();
        if let Some(timeout) = self.timeout_s {
            limits.timeout_ms = timeout.as_millis();
        }
        limits.cpu_ms_max = self.cpu_s.map_or(0, Seconds::as_millis);
        check_time(server, limits.timeout_ms, "timeout_s")?;
        if self.cpu_s.is_some() {
            check_time(server, limits.cpu_ms_max, "cpu_s")?;
        }
        Ok(crate::slot::Request {
            scope,
            execution_id: self.execution_id,
            tool,
            limits,
            network: Network::On,
        })
    }
}

fn check_time(server: &Server, millis: u64, field: &str) -> Result<(), Problem> {
    let max_ms = server.settings.limits.timeout_ms_max;
    if (1..=max_ms).contains(&millis) {
        return Ok(());
    }
    let detail = format!("a time must be more than 0 s and at most {} s", max_ms / 1_000);
    Err(Problem::new(Code::Invalid, detail).at(field))
}
