//! Running one tool in a slot.

use super::{Wish, body::Json, find, live::live};
use crate::{
    access::Access,
    server::Server,
    slot::{Begun, CHUNKS_MAX, Chunk},
};
use axum::{
    extract::{Path, State},
    http::HeaderMap,
};
use slotmux_edge::{Answer, lines, ok, wants_lines};
use slotmux_protocol::{
    ExecutionId, Isolation, Problem, SlotIndex, ToolResult, v1::ExecuteRequest,
};
use std::sync::Arc;
use tokio::sync::mpsc;

/// Answers when the tool is done: 200 also when it failed or timed out; `ended` and `caused_by`
/// say how and through whom. An error status means that nothing was run. With
/// `Accept: application/x-ndjson` what a command prints is sent while it runs, a line for each
/// piece; the last line is the result, or the problem.
pub(super) async fn execute(
    State(server): State<Arc<Server>>,
    access: Access,
    Path(slot): Path<String>,
    headers: HeaderMap,
    Json(request): Json<ExecuteRequest>,
) -> Answer {
    let ExecuteRequest { tool, args, timeout_s, cpu_s, execution_id } = request;
    let wish = Wish { tool: &tool, args, timeout_s, cpu_s, execution_id };
    let slot = find(&server, &slot)?.index;
    let call = Call::begin(&server, slot, wish, access)?;
    if wants_lines(&headers) {
        let (sender, chunks) = mpsc::channel(CHUNKS_MAX);
        let answer = tokio::spawn(call.printing_to(sender).answer());
        return Ok(lines(live(chunks, answer)));
    }
    Ok(ok(&call.answer().await?))
}

/// A call that has its place in the order of its slot.
pub(super) struct Call {
    begun: Begun,
    execution_id: ExecutionId,
    isolation: Isolation,
}

impl Call {
    pub(super) fn begin(
        server: &Arc<Server>,
        slot: SlotIndex,
        wish: Wish<'_>,
        access: Access,
    ) -> Result<Self, Problem> {
        let slot = find(server, &slot.to_string())?;
        let execution_id = wish.execution_id.clone().unwrap_or_else(|| server.draw_execution_id());
        let begun = slot.begin(wish.into_request(server, access.scope(slot.index)?)?)?;
        Ok(Self { begun, execution_id, isolation: server.isolation })
    }

    fn printing_to(mut self, chunks: mpsc::Sender<Chunk>) -> Self {
        self.begun.stream_to(chunks);
        self
    }

    pub(super) async fn answer(self) -> Result<ToolResult, Problem> {
        let outcome = self.begun.answer().await?;
        Ok(outcome.to_result(self.execution_id, self.isolation))
    }
}
