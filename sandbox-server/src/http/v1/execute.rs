//! Running one tool in a slot.

use super::{
    Wish,
    body::Json,
    find,
    reply::{Answer, ok},
};
use crate::{server::Server, slot::Scope};
use axum::extract::{Path, State};
use slotmux_protocol::{Problem, ToolResult, v1::ExecuteRequest};
use std::sync::Arc;

/// Answers when the tool is done: 200 also when it failed or timed out; `ended` and `caused_by`
/// say how and through whom. An error status means that nothing was run.
pub(super) async fn execute(
    State(server): State<Arc<Server>>,
    Path(slot): Path<String>,
    Json(request): Json<ExecuteRequest>,
) -> Answer {
    let ExecuteRequest { tool, args, timeout_s, execution_id } = request;
    let wish = Wish { tool: &tool, args, timeout_s, execution_id };
    let slot = find(&server, &slot)?.index;
    Ok(ok(&run(&server, slot, wish, Scope::Standalone)?.await?))
}

/// Takes the call's place in the order of its slot when it is called, not when it is first polled.
pub(super) fn run(
    server: &Arc<Server>,
    slot: slotmux_protocol::SlotIndex,
    wish: Wish<'_>,
    scope: Scope,
) -> Result<impl Future<Output = Result<ToolResult, Problem>> + Send + use<>, Problem> {
    let slot = find(server, &slot.to_string())?;
    let execution_id = wish.execution_id.clone().unwrap_or_else(|| server.draw_execution_id());
    let begun = slot.begin(wish.into_request(server, scope)?)?;
    let isolation = server.isolation;
    Ok(async move {
        let outcome = begun.answer().await?;
        Ok(outcome.to_result(execution_id, isolation))
    })
}
