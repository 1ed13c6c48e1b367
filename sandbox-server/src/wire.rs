//! What the server and a slot-init say to one another, over a socket pair, in the one framing.
//!
//! The server does not trust an init: it is the slot's user, and what it says is only what the
//! slot could have made it say.

use serde::{Deserialize, Serialize};
use slotmux_protocol::{BashArgs, CallLimits, Network};

/// Largest frame either way: a command with its input, or both streams of a result.
pub(crate) const FRAME_BYTES_MAX: usize = 32 << 20;

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum ToInit {
    /// Answered by `Done`. One at a time.
    Run(Box<Run>),
    /// End the running command, and everything else in the slot. Answered by its `Done`.
    Cancel,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Run {
    /// Counts up; a `Done` of another number is a late one.
    pub(crate) seq: u64,
    pub(crate) args: BashArgs,
    pub(crate) limits: CallLimits,
    pub(crate) network: Network,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum FromInit {
    /// The walls stand.
    Ready,
    /// A wall could not be put up; the init has ended.
    Failed {
        step: String,
        error: String,
    },
    Done(Box<Done>),
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Done {
    pub(crate) seq: u64,
    pub(crate) end: End,
    pub(crate) stdout: Captured,
    pub(crate) stderr: Captured,
    pub(crate) wall_us: u64,
    pub(crate) user_us: u64,
    pub(crate) system_us: u64,
    pub(crate) max_rss_bytes: u64,
    /// As many processes as the slot may have were there when the command ended.
    pub(crate) processes_full: bool,
    /// Nothing of the slot runs any more.
    pub(crate) quiet: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum End {
    Exited(i32),
    Signaled(i32),
    Timeout,
    Cancelled,
    /// The init saw the slot's memory over its limit.
    Oom,
    OutputLimit,
    /// The kernel refused to start it, with this errno.
    NotStarted(i32),
    NoShell,
}

/// The beginning and the end of a stream.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Captured {
    #[serde(with = "serde_bytes")]
    pub(crate) head: Vec<u8>,
    #[serde(with = "serde_bytes")]
    pub(crate) tail: Vec<u8>,
    /// Of the whole stream.
    pub(crate) bytes: u64,
}

impl Captured {
    pub(crate) fn cut_bytes(&self) -> u64 {
        // What an init says need not add up.
        self.bytes.saturating_sub((self.head.len() + self.tail.len()) as u64)
    }
}
