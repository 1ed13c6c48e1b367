//! `/v1/batch`: many calls of many leases in one request.

use super::{Api, body::Json, execute::Wish};
use axum::{extract::State, http::HeaderMap, response::Response};
use futures_util::{
    Stream, StreamExt,
    stream::{BoxStream, iter, select_all},
};
use slotmux_edge::{Answer, Refusal, lines, ok, wants_lines};
use slotmux_protocol::{
    Code, LeaseId, Problem,
    v1::{BatchCall, BatchItem, BatchRequest, BatchResponse},
};
use std::collections::{HashMap, VecDeque};

/// Calls of one lease on their way at once: hides the way, and leaves the slot's queue to others.
const AHEAD: usize = 4;

/// Run calls of any leases.
///
/// Calls of one lease run in their order, those of different leases at once, and one that is
/// refused does not disturb the others. With `Accept: application/x-ndjson` each result is a
/// line of its own, sent as its call finishes, so nobody waits for the slowest.
#[utoipa::path(
    post, path = "/v1/batch", tag = "tools",
    request_body(
        content = BatchRequest,
        example = json!({"calls": [
            {"lease_id": "lease-6a1b2c", "tool": "bash", "args": {"command": "make test"}},
            {"lease_id": "lease-6a1b2d", "tool": "read_file", "args": {"path": "result.txt"}}
        ]})
    ),
    responses((
        status = 200,
        description = "A result or a problem for each call",
        content(
            (BatchResponse = "application/json"),
            (BatchItem = "application/x-ndjson"),
        )
    )),
)]
pub(super) async fn batch(
    State(api): State<Api>,
    headers: HeaderMap,
    Json(BatchRequest { calls }): Json<BatchRequest>,
) -> Answer {
    let max = api.settings.limits.batch_calls_max;
    if calls.len() > max {
        let detail = format!("a batch has at most {max} calls, this one has {}", calls.len());
        return Err(Refusal(Problem::new(Code::TooLarge, detail).at("calls")));
    }
    let count = calls.len();
    let items = as_they_finish(api, calls);
    let response = if wants_lines(&headers) { lines(items) } else { array(items, count).await };
    Ok(response)
}

/// Dropping the stream abandons the calls that are not done.
fn as_they_finish(api: Api, calls: Vec<BatchCall>) -> impl Stream<Item = BatchItem> + use<> {
    let mut by_lease: HashMap<LeaseId, VecDeque<(usize, BatchCall)>> = HashMap::new();
    for (index, call) in calls.into_iter().enumerate() {
        by_lease.entry(call.lease_id).or_default().push_back((index, call));
    }
    select_all(by_lease.into_values().map(move |calls| in_turn(api.clone(), calls)))
}

fn in_turn(api: Api, calls: VecDeque<(usize, BatchCall)>) -> BoxStream<'static, BatchItem> {
    // Begun in their order, and the container keeps it.
    iter(calls).map(move |(index, call)| run(api.clone(), index, call)).buffered(AHEAD).boxed()
}

async fn run(api: Api, index: usize, call: BatchCall) -> BatchItem {
    let BatchCall { lease_id, tool, args, timeout_s, cpu_s, execution_id } = call;
    let wish =
        Wish { tool: &tool, args, timeout: timeout_s, cpu: cpu_s, execution_id, output: None };
    let (result, problem) = match api.run(lease_id, wish).await {
        Ok(result) => (Some(result), None),
        Err(mut problem) => {
            problem.field = problem.field.map(|field| format!("calls[{index}].{field}"));
            (None, Some(problem))
        }
    };
    BatchItem { index, lease_id, result, problem }
}

async fn array(items: impl Stream<Item = BatchItem>, count: usize) -> Response {
    let mut results = items.fold(Vec::with_capacity(count), collect).await;
    results.sort_unstable_by_key(|item| item.index);
    return ok(&BatchResponse { results });

    async fn collect(mut results: Vec<BatchItem>, item: BatchItem) -> Vec<BatchItem> {
        results.push(item);
        results
    }
}
