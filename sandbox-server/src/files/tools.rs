//! The file tools, as calls.

use super::{FileError, Told, Until, Workspace};
use slotmux_protocol::{ReadFileArgs, ToolCall, WriteFileArgs};

/// Whether it takes less than to hand it to another thread.
pub(crate) fn is_brief(tool: &ToolCall) -> bool {
    matches!(tool, ToolCall::ReadFile(_) | ToolCall::WriteFile(_))
}

/// Runs a tool to its end, or to that of its time. Blocks.
pub(crate) fn run(
    workspace: &Workspace,
    tool: &ToolCall,
    until: &Until,
) -> Result<Told, FileError> {
    until.check()?;
    match tool {
        ToolCall::ReadFile(args) => read_file(workspace, args),
        ToolCall::WriteFile(args) => write_file(workspace, args),
        other => Err(FileError::Invalid(format!("{} is no tool of files", other.name()))),
    }
}

fn read_file(workspace: &Workspace, args: &ReadFileArgs) -> Result<Told, FileError> {
    let content = workspace.read(&args.path)?;
    let text = match String::from_utf8(content) {
        Ok(text) => text,
        Err(other) => String::from_utf8_lossy(other.as_bytes()).into_owned(),
    };
    Ok(Told { text, data: None })
}

fn write_file(workspace: &Workspace, args: &WriteFileArgs) -> Result<Told, FileError> {
    workspace.write(&args.path, args.content.as_bytes())?;
    Ok(Told { text: format!("Wrote {} bytes to {}", args.content.len(), args.path), data: None })
}
