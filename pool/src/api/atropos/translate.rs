//! Between the atropos wire's tools and results and ours.
//!
//! The arguments are a model's: what they say of policy (network, isolation, time) is ignored,
//! and what is wrong with them is the model's doing, not the infrastructure's.

use serde_json::{Map, Value, json};
use slotmux_protocol::{
    CausedBy, Code, Ended, Isolation, Network, Problem, ToolCall, ToolResult,
    atropos::{PoolResult, PoolTool},
};

/// Why a call makes no sense.
#[derive(Debug, thiserror::Error)]
pub(super) enum Misuse {
    #[error("background processes are not supported by `terminal`; end the command with ` &`")]
    Background,
    #[error("unknown tool `{name}`; the tools are {}, with terminal for bash and terminal_stateful for bash_stateful", ToolCall::NAMES.join(", "))]
    UnknownTool { name: String },
    #[error("arguments must be an object")]
    NotAnObject,
}

/// Our tool and its arguments, without those that it does not know.
pub(super) fn tool(tool: PoolTool) -> Result<(&'static str, Value), Misuse> {
    let mut arguments = match tool.arguments {
        Value::Object(arguments) => arguments,
        Value::Null => Map::new(),
        _ => return Err(Misuse::NotAnObject),
    };
    let (name, known): (_, &[&str]) = match tool.name.as_str() {
        "terminal"
            if !matches!(
                arguments.get("background"),
                None | Some(Value::Null | Value::Bool(false))
            ) =>
        {
            return Err(Misuse::Background);
        }
        "bash" | "terminal" => ("bash", &["command"]),
        "bash_stateful" | "terminal_stateful" => ("bash_stateful", &["command"]),
        "read_file" => ("read_file", &["path"]),
        "write_file" => ("write_file", &["path", "content"]),
        name => return Ok((other_tool(name)?, Value::Object(without_policy(arguments)))),
    };
    arguments.retain(|argument, _| known.contains(&argument.as_str()));
    Ok((name, Value::Object(arguments)))
}

/// The tools that the wire has from us: their arguments are read as strictly as elsewhere.
fn other_tool(name: &str) -> Result<&'static str, Misuse> {
    let ours = ToolCall::NAMES.into_iter().find(|it| *it == name);
    ours.ok_or_else(|| Misuse::UnknownTool { name: name.chars().take(100).collect() })
}

fn without_policy(mut arguments: Map<String, Value>) -> Map<String, Value> {
    for policy in ["allow_network", "require_sandbox", "timeout", "background"] {
        arguments.remove(policy);
    }
    arguments
}

/// What is a command, and so has an exit code.
fn is_command(tool: &str) -> bool {
    matches!(tool, "bash" | "bash_stateful")
}

pub(super) fn result(tool: &str, timeout_s: f64, result: ToolResult) -> PoolResult {
    let mut metadata = Map::new();
    let sandboxed = result.isolation != Isolation::None;
    metadata.insert("sandboxed".into(), sandboxed.into());
    metadata.insert("ended".into(), json!(result.ended));
    metadata.insert("caused_by".into(), json!(result.caused_by));
    if is_command(tool) {
        // As Python does, for both a time-out and a signal.
        let exit_code = result.exit_code.or(result.signal.map(|signal| -signal));
        metadata.insert("exit_code".into(), exit_code.unwrap_or(-1).into());
        metadata.insert("network_isolated".into(), (result.network == Network::Off).into());
    }
    if tool == "bash_stateful" {
        metadata.insert("stateful".into(), true.into());
    }
    if let Some(data) = result.data {
        metadata.insert("data".into(), data);
    }
    if result.ended == Ended::Timeout {
        metadata.insert("timeout".into(), true.into());
    }
    if result.caused_by == CausedBy::Infra {
        metadata.insert("infra_error".into(), true.into());
    }
    let error = match (result.ended, result.exit_code) {
        (Ended::Timeout, _) => format!("Command timed out after {timeout_s:?}s"),
        (Ended::Exited, Some(code)) if is_command(tool) && code != 0 => {
            format!("Exit code: {code}")
        }
        _ => result.error,
    };
    let mut output = result.output;
    if is_command(tool) {
        output = output.trim().to_owned();
    }
    PoolResult { success: result.success, output, error, metadata, uniq_id: None }
}

/// A call that was not run.
pub(super) fn problem(problem: Problem) -> PoolResult {
    let caused_by = match problem.code {
        // The arguments came from the model.
        Code::Invalid | Code::UnknownTool => CausedBy::Policy,
        _ => problem.caused_by,
    };
    let error = match &problem.field {
        Some(field) => format!("{}: {}", field.replacen("args", "arguments", 1), problem.detail),
        None => problem.detail,
    };
    failure(error, problem.code, caused_by)
}

pub(super) fn misuse(misuse: &Misuse) -> PoolResult {
    let code = match misuse {
        Misuse::UnknownTool { .. } => Code::UnknownTool,
        Misuse::Background | Misuse::NotAnObject => Code::Invalid,
    };
    failure(misuse.to_string(), code, CausedBy::Policy)
}

fn failure(error: String, code: Code, caused_by: CausedBy) -> PoolResult {
    let mut metadata = Map::new();
    metadata.insert("code".into(), json!(code));
    metadata.insert("caused_by".into(), json!(caused_by));
    if caused_by == CausedBy::Infra {
        metadata.insert("infra_error".into(), true.into());
    }
    PoolResult { success: false, output: String::new(), error, metadata, uniq_id: None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use slotmux_protocol::{ExecutionId, Usage};

    fn wire(name: &str, arguments: Value) -> PoolTool {
        PoolTool { name: name.into(), arguments, uniq_id: None }
    }

    fn ended(ended: Ended, exit_code: Option<i32>) -> ToolResult {
        ToolResult {
            execution_id: ExecutionId::new("x").unwrap(),
            success: exit_code == Some(0),
            output: " out\n".into(),
            data: None,
            error: "said by the server".into(),
            ended,
            caused_by: CausedBy::Policy,
            exit_code,
            signal: None,
            isolation: Isolation::Uid,
            network: Network::Off,
            usage: Usage::default(),
        }
    }

    #[test]
    fn a_model_cannot_choose_the_policy() {
        let arguments = json!({
            "command": "ls", "allow_network": true, "require_sandbox": false, "timeout": 1e9,
            "background": false, "anything": [1],
        });
        let (name, args) = tool(wire("terminal", arguments)).unwrap();
        assert_eq!((name, args), ("bash", json!({"command": "ls"})));
    }

    #[test]
    fn background_is_refused_and_not_run_in_the_foreground() {
        for background in [json!(true), json!("true"), json!(1)] {
            let call = wire("terminal", json!({"command": "ls", "background": background}));
            assert!(matches!(tool(call), Err(Misuse::Background)));
        }
    }

    #[test]
    fn texts_are_those_of_the_wire() {
        let failed = result("bash", 30.0, ended(Ended::Exited, Some(3)));
        assert_eq!((failed.output.as_str(), failed.error.as_str()), ("out", "Exit code: 3"));
        let read = result("read_file", 30.0, ended(Ended::Exited, Some(0)));
        assert_eq!(read.output, " out\n");
        assert_eq!(
            Value::Object(failed.metadata),
            json!({
                "exit_code": 3, "sandboxed": true, "network_isolated": true,
                "ended": "exited", "caused_by": "policy",
            })
        );
        let late = result("bash", 2.0, ended(Ended::Timeout, None));
        assert_eq!(late.error, "Command timed out after 2.0s");
        assert_eq!(late.metadata["exit_code"], -1);
        assert_eq!(late.metadata["timeout"], true);
    }

    #[test]
    fn only_our_faults_are_infra_errors() {
        let revoked = problem(Problem::new(Code::LeaseRevoked, "gone"));
        assert_eq!(revoked.metadata["infra_error"], true);
        assert_eq!(revoked.metadata["code"], "lease_revoked");
        let wrong = problem(Problem::new(Code::Invalid, "missing field").at("args.command"));
        assert_eq!(wrong.error, "arguments.command: missing field");
        assert_eq!(wrong.metadata["caused_by"], "policy");
        assert!(!wrong.metadata.contains_key("infra_error"));
    }
}
