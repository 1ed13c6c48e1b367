//! What Slotmux's parts say to one another, and nothing else: no I/O, no clock, no state.
//!
//! Invariant: whatever bytes arrive, decoding them returns; it never panics, and it never holds
//! more memory than the limit it was given.

pub mod atropos;
mod frame;
mod ids;
pub mod job;
mod limits;
pub mod link;
mod problem;
mod result;
mod text;
mod tool;
pub mod v1;

pub use frame::{Decoder, FrameError, encode};
pub use ids::{
    ContainerId, Epoch, ExecutionId, IdError, JobName, LeaseId, ProfileName, SlotIndex,
    TrajectoryId,
};
pub use limits::{CallLimits, Limits, SlotLimits};
pub use problem::{Code, Problem};
pub use result::{CausedBy, Ended, Isolation, Root, ToolResult, Usage};
pub use text::Utf8Pieces;
pub use tool::{
    ArchiveArgs, ArgsFault, BashArgs, BashStatefulArgs, DeleteArgs, EditFileArgs, Encoding,
    GlobArgs, GrepArgs, GrepMode, Keys, ListFilesArgs, MkdirArgs, MoveArgs, Network, ReadFileArgs,
    StatArgs, TerminalAction, TerminalArgs, ToolCall, WriteFileArgs,
};

/// The version of the frames in [`link`]. Both sides refuse another one.
pub const LINK_VERSION: u32 = 1;
