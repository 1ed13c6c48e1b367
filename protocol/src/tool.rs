//! The tools of a slot and their arguments, parsed once, at the edge.

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;

/// Whether a slot reaches the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Network {
    On,
    Off,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct BashArgs {
    /// Run as `bash -c command` in the workspace.
    pub command: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ReadFileArgs {
    /// Relative to the workspace, or absolute below `/workspace`.
    pub path: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct WriteFileArgs {
    /// Relative to the workspace, or absolute below `/workspace`; directories are made.
    pub path: String,
    pub content: String,
}

/// A tool with its arguments.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToolCall {
    Bash(BashArgs),
    ReadFile(ReadFileArgs),
    WriteFile(WriteFileArgs),
}

/// Why arguments could not be understood. `field` is a path such as `args.command`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ArgsFault {
    #[error("unknown tool `{tool}`; the tools are {}", ToolCall::NAMES.join(", "))]
    UnknownTool { tool: String },
    #[error("{message} (at `{field}`)")]
    Field { field: String, message: String },
}

impl ToolCall {
    pub const NAMES: [&str; 3] = ["bash", "read_file", "write_file"];

    pub fn name(&self) -> &'static str {
        match self {
            Self::Bash(_) => "bash",
            Self::ReadFile(_) => "read_file",
            Self::WriteFile(_) => "write_file",
        }
    }

    pub fn parse(tool: &str, args: Value) -> Result<Self, ArgsFault> {
        match tool {
            "bash" => Ok(Self::Bash(read(args)?)),
            "read_file" => Ok(Self::ReadFile(read(args)?)),
            "write_file" => Ok(Self::WriteFile(read(args)?)),
            _ => Err(ArgsFault::UnknownTool { tool: tool.chars().take(100).collect() }),
        }
    }
}

fn read<T: DeserializeOwned>(args: Value) -> Result<T, ArgsFault> {
    serde_path_to_error::deserialize(args).map_err(|fault| {
        let path = fault.path().to_string();
        let field = if path == "." { "args".to_owned() } else { format!("args.{path}") };
        ArgsFault::Field { field, message: fault.into_inner().to_string() }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_fault_names_its_field() {
        let fault = ToolCall::parse("bash", json!({"command": 7})).unwrap_err();
        assert!(
            matches!(&fault, ArgsFault::Field { field, .. } if field == "args.command"),
            "{fault}"
        );
        let fault = ToolCall::parse("read_file", json!({})).unwrap_err();
        assert!(fault.to_string().contains("`path`"), "{fault}");
        let fault = ToolCall::parse("bash", json!({"command": "ls", "shell": "sh"})).unwrap_err();
        assert!(fault.to_string().contains("`shell`"), "{fault}");
        let fault = ToolCall::parse("python", json!({})).unwrap_err();
        assert!(fault.to_string().contains("bash, read_file, write_file"), "{fault}");
    }

    #[test]
    fn every_name_is_a_tool() {
        for name in ToolCall::NAMES {
            let fault = ToolCall::parse(name, Value::Null).unwrap_err();
            assert!(matches!(fault, ArgsFault::Field { .. }), "{name}: {fault}");
        }
    }
}
