//! Many calls of many slots in one request.

use super::{Wish, body::Json, execute::Call};
use crate::{access::Access, server::Server};
use axum::{extract::State, http::HeaderMap};
use futures_util::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use slotmux_edge::{Answer, lines, ok, wants_lines};
use slotmux_protocol::{
    Code, Problem,
    v1::{SlotBatchCall, SlotBatchItem, SlotBatchRequest, SlotBatchResponse},
};
use std::sync::Arc;

/// Calls of one slot run in their order, those of different slots at once, and one that is refused
/// does not disturb the others. With `Accept: application/x-ndjson` each result is a line of its
/// own, sent as its call finishes.
pub(super) async fn batch(
    State(server): State<Arc<Server>>,
    access: Access,
    headers: HeaderMap,
    Json(SlotBatchRequest { calls }): Json<SlotBatchRequest>,
) -> Answer {
    let max = server.settings.limits.batch_calls_max;
    if calls.len() > max {
        let detail = format!("a batch has at most {max} calls, this one has {}", calls.len());
        return Err(Problem::new(Code::TooLarge, detail).at("calls").into());
    }
    let count = calls.len();
    let calls = calls.into_iter().enumerate();
    let items: FuturesUnordered<_> =
        calls.map(|(index, call)| begin(&server, access, index, call)).collect();
    if wants_lines(&headers) {
        return Ok(lines(items));
    }
    let mut results = items.collect::<Vec<_>>().await;
    debug_assert_eq!(results.len(), count, "an answer for each call");
    results.sort_unstable_by_key(|item| item.index);
    Ok(ok(&SlotBatchResponse { results }))
}

/// Every call has its place when the last one was begun.
fn begin(
    server: &Arc<Server>,
    access: Access,
    index: usize,
    call: SlotBatchCall,
) -> BoxFuture<'static, SlotBatchItem> {
    let SlotBatchCall { slot, tool, args, timeout_s, cpu_s, execution_id } = call;
    let wish = Wish { tool: &tool, args, timeout_s, cpu_s, execution_id };
    let begun = Call::begin(server, slot, wish, access);
    Box::pin(async move {
        let answer = match begun {
            Ok(call) => call.answer().await,
            Err(problem) => Err(problem),
        };
        let (result, problem) = match answer {
            Ok(result) => (Some(result), None),
            Err(mut problem) => {
                problem.field = problem.field.map(|field| format!("calls[{index}].{field}"));
                (None, Some(problem))
            }
        };
        SlotBatchItem { index, slot, result, problem }
    })
}
