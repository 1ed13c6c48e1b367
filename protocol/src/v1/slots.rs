//! What a sandbox-server itself serves under `/v1`, for clients that call a container directly.
//! Execute requests are [`super::ExecuteRequest`], as at the pool.

use crate::{ExecutionId, Problem, SlotIndex, ToolResult, v1::Seconds};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// `POST /v1/batch`: calls of any slots. Those of one slot run in this order, others at once.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SlotBatchRequest {
    pub calls: Vec<SlotBatchCall>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SlotBatchCall {
    pub slot: SlotIndex,
    pub tool: String,
    pub args: Value,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_s: Option<Seconds>,
    /// Processor time of everything that runs in the slot meanwhile; absent: the server's own limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_s: Option<Seconds>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub execution_id: Option<ExecutionId>,
}

/// In the order of the calls; with `Accept: application/x-ndjson` one line each, as they finish.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotBatchResponse {
    pub results: Vec<SlotBatchItem>,
}

/// Either a result or, for a call that never ran, the problem.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotBatchItem {
    /// Of the call in the request, from 0.
    pub index: usize,
    pub slot: SlotIndex,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<ToolResult>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<Problem>,
}

/// `GET /v1/slots`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotList {
    pub slots: Vec<SlotStatus>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotStatus {
    pub slot: SlotIndex,
    pub state: SlotPhase,
    /// Calls that run or wait.
    pub queued: usize,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub execution_id: Option<ExecutionId>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SlotPhase {
    /// Empty, and open to whoever calls it.
    Clean,
    /// Used since it was emptied, by a client without a lease.
    Used,
    /// Open for a pool's lease.
    Leased,
    /// Being emptied, or not to be emptied.
    Dirty,
}
