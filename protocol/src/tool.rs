//! The tools of a slot and their arguments, parsed once, at the edge.

mod command;
mod files;
#[cfg(feature = "openapi")]
mod schema;
mod search;
mod terminal;

pub use command::{BashArgs, BashStatefulArgs};
pub use files::{
    ArchiveArgs, DeleteArgs, EditFileArgs, Encoding, MkdirArgs, MoveArgs, ReadFileArgs, StatArgs,
    WriteFileArgs,
};
pub use search::{GlobArgs, GrepArgs, GrepMode, ListFilesArgs};
pub use terminal::{Keys, TerminalAction, TerminalArgs};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;

/// Whether a slot reaches the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Network {
    On,
    Off,
    /// Through a proxy of the slot's own, and no further than its list allows.
    AllowList,
}

/// Name, variant and arguments of each tool, once.
macro_rules! tools {
    ($($name:literal $variant:ident($args:ty),)+) => {
        /// A tool with its arguments.
        #[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum ToolCall {
            $($variant($args),)+
        }

        impl ToolCall {
            pub const NAMES: [&str; [$($name),+].len()] = [$($name),+];

            pub fn name(&self) -> &'static str {
                match self {
                    $(Self::$variant(_) => $name,)+
                }
            }

            pub fn parse(tool: &str, args: Value) -> Result<Self, ArgsFault> {
                match tool {
                    $($name => Ok(Self::$variant(read(args)?)),)+
                    _ => Err(ArgsFault::UnknownTool { tool: tool.chars().take(100).collect() }),
                }
            }

            /// The arguments as they stand on the wire.
            pub fn args(&self) -> Result<Value, serde_json::Error> {
                match self {
                    $(Self::$variant(args) => serde_json::to_value(args),)+
                }
            }
        }
    };
}

tools! {
    "bash" Bash(BashArgs),
    "bash_stateful" BashStateful(BashStatefulArgs),
    "terminal" Terminal(TerminalArgs),
    "read_file" ReadFile(ReadFileArgs),
    "write_file" WriteFile(WriteFileArgs),
    "edit_file" EditFile(EditFileArgs),
    "list_files" ListFiles(ListFilesArgs),
    "glob" Glob(GlobArgs),
    "grep" Grep(GrepArgs),
    "stat" Stat(StatArgs),
    "mkdir" Mkdir(MkdirArgs),
    "delete" Delete(DeleteArgs),
    "move" Move(MoveArgs),
    "archive" Archive(ArchiveArgs),
}

/// Why arguments could not be understood. `field` is a path such as `args.command`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ArgsFault {
    #[error("unknown tool `{tool}`; the tools are {}", ToolCall::NAMES.join(", "))]
    UnknownTool { tool: String },
    #[error("{message} (at `{field}`)")]
    Field { field: String, message: String },
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
        assert!(fault.to_string().contains("bash, bash_stateful, terminal"), "{fault}");
    }

    #[test]
    fn every_name_is_a_tool() {
        for name in ToolCall::NAMES {
            let fault = ToolCall::parse(name, Value::Null).unwrap_err();
            assert!(matches!(fault, ArgsFault::Field { .. }), "{name}: {fault}");
        }
    }

    #[test]
    fn what_was_parsed_stands_on_the_wire_as_it_came() {
        let args = json!({"path": "a", "content": "b", "mode": "755"});
        let call = ToolCall::parse("write_file", args.clone()).unwrap();
        assert_eq!((call.name(), call.args().unwrap()), ("write_file", args));
    }
}
