//! Any bytes as the body of a request: an answer or a fault that names its field, never a panic.
#![no_main]

use libfuzzer_sys::fuzz_target;
use slotmux_protocol::{ToolCall, atropos, v1};

fuzz_target!(|data: &[u8]| {
    let _ = serde_json::from_slice::<v1::AcquireRequest>(data);
    let _ = serde_json::from_slice::<v1::BatchRequest>(data);
    let _ = serde_json::from_slice::<Vec<atropos::SlotExecute>>(data);
    let _ = serde_json::from_slice::<atropos::PoolExecute>(data);
    if let Ok(call) = serde_json::from_slice::<v1::ExecuteRequest>(data) {
        let _ = ToolCall::parse(&call.tool, call.args);
    }
});
