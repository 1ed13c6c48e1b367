//! The atropos wire: field names and texts of the Python slot server.

use super::body::{Items, Whole, parse, refuse};
use crate::{
    access::Access,
    outcome::Outcome,
    server::Server,
    slot::{Begun, Request, Slot},
    terminal::TmuxArgs,
};
use axum::{
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Json, Response},
};
use futures_util::future::join_all;
use serde::Deserialize;
use serde_json::Value;
use slotmux_protocol::{
    BashArgs, BashStatefulArgs, CallLimits, ExecutionId, Isolation, Network, Problem, SlotIndex,
    ToolCall,
    atropos::{SlotExecute, SlotReset, SlotResult},
};
use std::sync::Arc;

const STATEFUL: &str = "bash_stateful";
/// 50,000 characters of at most four bytes.
const STREAM_BYTES_MAX: u32 = 200_000;

pub(super) async fn execute(
    State(server): State<Arc<Server>>,
    access: Access,
    Whole(body): Whole,
) -> Response {
    let call = match parse::<SlotExecute>(body) {
        Ok(call) => call,
        Err(refusal) => return refusal,
    };
    match others(access, std::slice::from_ref(&call)) {
        None => Json(call_one(&server, access, call).await).into_response(),
        Some(refusal) => refusal,
    }
}

/// The refusal of calls that a slot token is not for.
fn others(access: Access, calls: &[SlotExecute]) -> Option<Response> {
    let mut slots = calls.iter().filter_map(|call| SlotIndex::parse(&call.slot_id));
    let problem = slots.find_map(|slot| access.scope(slot).err())?;
    Some(refuse(StatusCode::FORBIDDEN, &problem.detail))
}

/// All calls get their places in the order of the array, so those of one slot run in it; those of
/// different slots run at the same time.
pub(super) async fn batch(
    State(server): State<Arc<Server>>,
    access: Access,
    Whole(body): Whole,
) -> Response {
    let Items(calls) = match parse::<Items>(body) {
        Ok(items) => items,
        Err(refusal) => return refusal,
    };
    let max = server.settings.limits.batch_calls_max;
    if calls.len() > max {
        let text = format!("a batch has at most {max} calls, this one has {}", calls.len());
        return refuse(StatusCode::PAYLOAD_TOO_LARGE, &text);
    }
    if let Some(refusal) = others(access, &calls) {
        return refusal;
    }
    let calls = calls.into_iter().map(|call| call_one(&server, access, call));
    Json(join_all(calls.collect::<Vec<_>>()).await).into_response()
}

/// Takes its place when it is called, not when it is first polled.
fn call_one(
    server: &Arc<Server>,
    access: Access,
    call: SlotExecute,
) -> impl Future<Output = SlotResult> + use<> {
    let isolation = server.isolation;
    let execution_id = call.execution_id.clone();
    let stateful = call.tool == STATEFUL;
    let begun = begin(server, access, call);
    async move {
        let answer = match begun {
            Ok(begun) => begun.answer().await.map_err(|problem| problem.detail),
            Err(error) => Err(error),
        };
        let mut result = match answer {
            Ok(outcome) => Outcome::to_atropos(&outcome, execution_id, isolation),
            Err(error) => SlotResult { error, execution_id, ..SlotResult::default() },
        };
        if stateful {
            result.metadata.insert("stateful".to_owned(), true.into());
        }
        result
    }
}

fn begin(server: &Server, access: Access, call: SlotExecute) -> Result<Begun, String> {
    if server.draining.is_cancelled() {
        return Err("the server is shutting down".to_owned());
    }
    let slot = find_slot(server, &call.slot_id)?;
    let execution_id = call.execution_id.map(ExecutionId::new).transpose();
    let (tool, network) = tool_of(&call.tool, call.args, server.isolation)?;
    let limits = CallLimits {
        timeout_ms: timeout_ms(call.timeout, server.settings.limits.timeout_ms_max)?,
        head_bytes_max: STREAM_BYTES_MAX,
        tail_bytes_max: 0,
        ..CallLimits::default()
    };
    let request = Request {
        scope: access.scope(slot.index).map_err(|problem| problem.detail)?,
        execution_id: execution_id.map_err(|error| format!("execution_id: {error}"))?,
        tool,
        limits,
        network,
    };
    slot.begin(request).map_err(|problem: Problem| problem.detail)
}

pub(super) fn find_slot<'a>(server: &'a Server, name: &str) -> Result<&'a Arc<Slot>, String> {
    SlotIndex::parse(name)
        .and_then(|index| server.slot(index))
        .ok_or_else(|| format!("Unknown slot: {}", name.chars().take(100).collect::<String>()))
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked above")]
#[expect(clippy::cast_precision_loss, reason = "a day of milliseconds fits 53 bits")]
fn timeout_ms(seconds: f64, max: u64) -> Result<u64, String> {
    let millis = seconds * 1_000.0;
    if !millis.is_finite() || millis <= 0.0 || millis > max as f64 {
        return Err(format!("timeout is more than 0 and at most {} seconds", max / 1_000));
    }
    Ok(millis.ceil() as u64)
}

#[derive(Deserialize)]
struct AtroposBash {
    command: String,
    #[serde(default = "yes")]
    allow_network: bool,
    #[serde(default)]
    require_sandbox: bool,
    #[serde(default)]
    restart: bool,
}

fn yes() -> bool {
    true
}

#[derive(Deserialize)]
struct AtroposPath {
    path: String,
}

#[derive(Deserialize)]
struct AtroposWrite {
    path: String,
    content: String,
}

/// This wire ignores what it does not know, so arguments are not read as the v1 surface does.
fn tool_of(tool: &str, args: Value, isolation: Isolation) -> Result<(ToolCall, Network), String> {
    fn read<T: for<'de> Deserialize<'de>>(args: Value) -> Result<T, String> {
        serde_path_to_error::deserialize(args).map_err(|fault| {
            format!("Invalid arguments: {} (at args.{})", fault.inner(), fault.path())
        })
    }
    match tool {
        "bash" | STATEFUL => {
            let args: AtroposBash = read(args)?;
            if args.require_sandbox && isolation == Isolation::None {
                return Err("a sandbox is required and this server has none".to_owned());
            }
            let network = if args.allow_network { Network::On } else { Network::Off };
            if network == Network::Off && isolation == Isolation::None {
                return Err(
                    "the network cannot be kept from a command without isolation".to_owned()
                );
            }
            let AtroposBash { command, restart, .. } = args;
            let call = if tool == STATEFUL {
                ToolCall::BashStateful(BashStatefulArgs { command, restart })
            } else {
                ToolCall::Bash(BashArgs::new(command))
            };
            Ok((call, network))
        }
        "read_file" => {
            let args: AtroposPath = read(args)?;
            let args = slotmux_protocol::ReadFileArgs::new(args.path);
            Ok((ToolCall::ReadFile(args), Network::On))
        }
        "write_file" => {
            let args: AtroposWrite = read(args)?;
            let args = slotmux_protocol::WriteFileArgs::new(args.path, args.content);
            Ok((ToolCall::WriteFile(args), Network::On))
        }
        "tmux" => {
            let args: TmuxArgs = read(args)?;
            Ok((ToolCall::Terminal(args.into_terminal()?), Network::On))
        }
        other => Err(format!("Unknown tool: {}", other.chars().take(100).collect::<String>())),
    }
}

pub(super) async fn reset(State(server): State<Arc<Server>>, Whole(body): Whole) -> Response {
    let SlotReset { slot_id } = match parse(body) {
        Ok(request) => request,
        Err(refusal) => return refusal,
    };
    let done = match find_slot(&server, &slot_id) {
        Ok(slot) => slot.reset_standalone().await,
        Err(error) => Err(error),
    };
    let result = match done {
        Ok(()) => SlotResult {
            success: true,
            output: "Workspace reset".to_owned(),
            ..SlotResult::default()
        },
        Err(error) => SlotResult { error, ..SlotResult::default() },
    };
    Json(result).into_response()
}
