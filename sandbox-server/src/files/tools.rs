//! The file tools, as calls.

use super::{FileError, Told, Until, Workspace};
use super::{archive, change, delete, edit, grep, list, read, stat, write};
use slotmux_protocol::{Encoding, ReadFileArgs, ToolCall, WriteFileArgs};

/// Content that is written while nobody else waits.
const BRIEF_BYTES_MAX: usize = 1 << 20;
/// A path that is found, and made, while nobody else waits.
const BRIEF_PATH_BYTES_MAX: usize = 512;

/// Whether it takes less than to hand it to another thread.
pub(crate) fn is_brief(tool: &ToolCall) -> bool {
    match tool {
        ToolCall::ReadFile(args) => {
            let ReadFileArgs { path, offset, max_bytes, first_line, last_line, encoding: _ } = args;
            let whole = [offset, max_bytes, first_line, last_line].iter().all(|it| it.is_none());
            whole && path.len() <= BRIEF_PATH_BYTES_MAX
        }
        ToolCall::WriteFile(args) => {
            let WriteFileArgs { path, content, encoding, append: _, atomic, mode: _ } = args;
            !atomic
                && *encoding == Encoding::Text
                && content.len() <= BRIEF_BYTES_MAX
                && path.len() <= BRIEF_PATH_BYTES_MAX
        }
        ToolCall::Stat(args) => args.path.len() <= BRIEF_PATH_BYTES_MAX,
        _ => false,
    }
}

/// Runs a tool to its end, or to that of its time. Blocks.
pub(crate) fn run(
    workspace: &Workspace,
    tool: &ToolCall,
    until: &Until,
) -> Result<Told, FileError> {
    until.check()?;
    match tool {
        ToolCall::ReadFile(args) => read::read_file(workspace, args, until),
        ToolCall::WriteFile(args) => write::write_file(workspace, args),
        ToolCall::EditFile(args) => edit::edit_file(workspace, args, until),
        ToolCall::ListFiles(args) => list::list_files(workspace, args, until),
        ToolCall::Glob(args) => list::glob(workspace, args, until),
        ToolCall::Grep(args) => grep::grep(workspace, args, until),
        ToolCall::Stat(args) => stat::stat(workspace, args),
        ToolCall::Mkdir(args) => change::mkdir(workspace, args),
        ToolCall::Delete(args) => delete::delete(workspace, args, until),
        ToolCall::Move(args) => change::rename(workspace, args),
        ToolCall::Archive(args) => archive::archive(workspace, args, until),
        other => Err(FileError::Invalid(format!("{} is no tool of files", other.name()))),
    }
}
