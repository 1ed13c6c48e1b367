//! `slotmux exec`: a tool call in the slot of a lease.

use crate::{
    client::{ClientOptions, PoolClient},
    fault::{self, Fault},
    out, quote,
};
use clap::Args;
use serde_json::{Value, json};
use slotmux_protocol::{CausedBy, Ended, LeaseId, ToolCall, ToolResult, v1::ExecuteRequest};
use std::process::ExitCode;

/// Run a command, or another tool, in the slot of a lease
///
/// One word after `--` is a script for bash; several are a command with its arguments.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  slotmux exec lease-6a1b -- 'make test 2>&1 | tail'
  slotmux exec lease-6a1b --timeout-s 5 -- grep -rn 'two words' src
  slotmux exec lease-6a1b --tool write_file --args '{\"path\": \"a.txt\", \"content\": \"hi\"}'

Exit codes: that of the command; 124 it ran out of time, 128+N it was ended by signal N,
125 a fault of ours (no answer, refused, lost, another limit), 2 bad arguments.")]
pub(crate) struct Options {
    #[command(flatten)]
    client: ClientOptions,

    /// As `slotmux acquire` printed it
    lease: LeaseId,

    /// Wall time of the call [default: 30]
    #[arg(long, value_name = "SECONDS", value_parser = crate::span::parse)]
    timeout_s: Option<crate::span::Seconds>,

    /// The tool to call
    #[arg(long, default_value = "bash", value_parser = ToolCall::NAMES)]
    tool: String,

    /// The tool's arguments as a JSON object, instead of a command
    #[arg(long, value_name = "JSON", conflicts_with = "command")]
    args: Option<String>,

    /// Print the result as one JSON object
    #[arg(long)]
    json: bool,

    /// What bash runs
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
}

pub(crate) async fn run(options: Options) -> Result<ExitCode, Fault> {
    let client = PoolClient::new(&options.client)?;
    let args = args(&options)?;
    ToolCall::parse(&options.tool, args.clone())
        .map_err(|error| Fault::usage(format!("--args: {error}")))?;
    let request = ExecuteRequest {
        tool: options.tool,
        args,
        timeout_s: options.timeout_s,
        cpu_s: None,
        execution_id: None,
    };
    let answer = client.execute(options.lease, &request).await;
    let result = answer.map_err(|error| error.into_fault("exec").exit(fault::OURS))?;
    if options.json {
        out::print_json(&result)?;
    } else {
        show(&result)?;
    }
    Ok(ExitCode::from(exit(&result)))
}

fn args(options: &Options) -> Result<Value, Fault> {
    match &options.args {
        Some(text) => serde_json::from_str(text)
            .map_err(|error| Fault::usage(format!("--args is no JSON: {error}"))),
        None if options.tool != "bash" => {
            Err(Fault::usage(format!("`{}` takes its arguments by --args", options.tool)))
        }
        None if options.command.is_empty() => {
            Err(Fault::usage("no command").hint("slotmux exec LEASE -- COMMAND…"))
        }
        None => Ok(json!({ "command": quote::script(&options.command) })),
    }
}

fn show(result: &ToolResult) -> Result<(), Fault> {
    out::print(&result.output)?;
    if result.ended != Ended::Exited || !result.error.is_empty() {
        let why = if result.error.is_empty() { "ended early" } else { &result.error };
        out::complain(format_args!("{}", why.trim_end()));
    }
    Ok(())
}

fn exit(result: &ToolResult) -> u8 {
    let low = |code: i32| u8::try_from(code & 0xff).unwrap_or(fault::OURS);
    match (result.caused_by, result.ended) {
        (CausedBy::Policy, Ended::Exited) => match result.exit_code {
            Some(code) => low(code),
            // Tools other than bash have no exit code.
            None => u8::from(!result.success),
        },
        (CausedBy::Policy, Ended::Signaled) => {
            result.signal.map_or(fault::OURS, |it| low(128 + it))
        }
        (_, Ended::Timeout) => fault::TIMED_OUT,
        _ => fault::OURS,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result(ended: Ended, exit_code: Option<i32>, signal: Option<i32>) -> ToolResult {
        let result = json!({
            "execution_id": "e", "success": exit_code == Some(0), "output": "", "error": "",
            "ended": ended, "caused_by": "policy", "exit_code": exit_code, "signal": signal,
            "isolation": "none", "network": "on", "usage": {},
        });
        serde_json::from_value(result).unwrap()
    }

    #[test]
    fn the_exit_code_is_that_of_the_command_or_says_whose_fault_it_was() {
        for (result, code) in [
            (result(Ended::Exited, Some(0), None), 0),
            (result(Ended::Exited, Some(3), None), 3),
            (result(Ended::Exited, None, None), 1),
            (result(Ended::Signaled, None, Some(11)), 139),
            (result(Ended::Timeout, None, None), 124),
            (result(Ended::Oom, None, None), 125),
        ] {
            assert_eq!(exit(&result), code, "{result:?}");
        }
        let lost = ToolResult { caused_by: CausedBy::Infra, ..result(Ended::Lost, None, None) };
        assert_eq!(exit(&lost), 125);
    }
}
