//! Any bytes as the body of a request: an answer or a fault that names its field, never a panic.
#![no_main]

use libfuzzer_sys::fuzz_target;
use slotmux_protocol::{ToolCall, atropos, v1};

fuzz_target!(|data: &[u8]| {
    let _ = serde_json::from_slice::<v1::AcquireRequest>(data);
    let _ = serde_json::from_slice::<v1::BatchRequest>(data);
    let _ = serde_json::from_slice::<Vec<atropos::SlotExecute>>(data);
    let _ = serde_json::from_slice::<atropos::PoolExecute>(data);
    let _ = serde_json::from_slice::<v1::SlotBatchRequest>(data);
    if let Some((tool, args)) = data.split_first()
        && let Ok(args) = serde_json::from_slice(args)
    {
        let name = ToolCall::NAMES[usize::from(*tool) % ToolCall::NAMES.len()];
        if let Ok(call) = ToolCall::parse(name, args) {
            // What was understood is understood again as the wire has it.
            let again = ToolCall::parse(call.name(), call.args().expect("it is written"));
            assert_eq!(again.expect("it is read"), call);
        }
    }
    if let Ok(call) = serde_json::from_slice::<v1::ExecuteRequest>(data) {
        let _ = ToolCall::parse(&call.tool, call.args);
    }
});
