//! What the server and a slot-init say to one another, over a socket pair, in the one framing.
//!
//! The server does not trust an init: it is the slot's user, and what it says is only what the
//! slot could have made it say.

use serde::{Deserialize, Serialize};
use slotmux_protocol::{BashArgs, CallLimits, Network, link::OutputStream};
use std::collections::BTreeMap;

/// Largest frame either way: a command with its input, or both streams of a result.
pub(crate) const FRAME_BYTES_MAX: usize = 32 << 20;

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum ToInit {
    /// Answered by `Done`. One at a time.
    Run(Box<Run>),
    /// End the running command, and everything else in the slot. Answered by its `Done`.
    Cancel,
    /// The running command has used more than it may: end it, and everything else in the slot.
    /// Answered by its `Done`.
    Over(End),
    /// Answered by `Spawned`. Comes with descriptors: the pipe that its end is told by, and the
    /// terminal, where the slot has no terminals of its own.
    Spawn(Box<Spawn>),
    /// End what is left of a spawned process and its terminal. Not answered: its pipe says it.
    EndSession { id: u64 },
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Run {
    /// Counts up; a `Done` of another number is a late one.
    pub(crate) seq: u64,
    pub(crate) args: BashArgs,
    pub(crate) shell: Shell,
    pub(crate) limits: CallLimits,
    pub(crate) network: Network,
    /// What it prints is told while it runs, as `Output`.
    pub(crate) streamed: bool,
}

/// Which shell runs a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Shell {
    /// One of its own.
    Fresh,
    /// The slot's persistent one, started where there is none.
    Kept,
    /// The slot's persistent one, begun anew.
    Restarted,
}

/// A process behind a terminal that the server keeps.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Spawn {
    /// Counts as that of `Run` does, and names the session.
    pub(crate) id: u64,
    /// An interactive shell without it.
    pub(crate) command: Option<String>,
    pub(crate) env: BTreeMap<String, String>,
    pub(crate) cwd: Option<String>,
    pub(crate) network: Network,
    pub(crate) rows: u16,
    pub(crate) cols: u16,
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
    /// Comes before the `Done` of its `seq`.
    Output(Output),
    /// With the terminal, where the slot has terminals of its own.
    Spawned {
        id: u64,
        /// Why it was not.
        refused: Option<End>,
    },
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Output {
    pub(crate) seq: u64,
    pub(crate) stream: Stream,
    #[serde(with = "serde_bytes")]
    pub(crate) data: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Stream {
    Stdout,
    Stderr,
}

impl From<Stream> for OutputStream {
    fn from(stream: Stream) -> Self {
        match stream {
            Stream::Stdout => Self::Stdout,
            Stream::Stderr => Self::Stderr,
        }
    }
}

#[derive(Debug, Serialize, Deserialize)]
#[expect(clippy::struct_excessive_bools, reason = "facts that have nothing to do with one another")]
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
    /// Something of a call that was killed was still there when it began: forks that were refused
    /// may have been that call's.
    pub(crate) disturbed: bool,
    pub(crate) seen: Seen,
    /// Nothing of the slot runs any more.
    pub(crate) quiet: bool,
    /// The command ended the persistent shell, too.
    pub(crate) shell_ended: bool,
    /// What the command could reach: a persistent shell may have less than the call asked for.
    pub(crate) network: Network,
}

/// What the init's watch saw of a call.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Seen {
    /// Of everything that ended meanwhile and, where no cgroup counts, of what lives.
    pub(crate) user_us: u64,
    pub(crate) system_us: u64,
    /// Processor time of the init itself.
    pub(crate) own_us: u64,
    /// Of the largest process that ended.
    pub(crate) max_rss_bytes: u64,
    /// Most memory of the slot that was seen, where no cgroup holds it.
    pub(crate) memory_bytes: Option<u64>,
    /// A file system of the slot that has no room left, when the command failed.
    pub(crate) full: Option<Full>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Full {
    /// One of the slot's own in memory.
    Memory,
    /// The disk, and it is this slot that has filled it.
    Disk,
    /// The disk, and others have filled it.
    Machine,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum End {
    Exited(i32),
    Signaled(i32),
    Timeout,
    Cancelled,
    /// The init saw the slot's memory over its limit.
    Oom,
    /// The init saw more on the disk than the slot may have there.
    Disk,
    /// The init saw more processes than the slot may have, where the kernel does not limit them.
    Processes,
    /// It used more processor time than it may.
    CpuTime,
    OutputLimit,
    /// The kernel refused to start it, with this errno.
    NotStarted(i32),
    /// It cannot begin in the directory that it was to, with this errno.
    NoDirectory(i32),
    /// The slot has made its own shell one that cannot be run, with this errno.
    NoExec(i32),
    NoShell,
    /// There is a shell, but none that can be kept.
    NoBash,
    /// The persistent shell has a network, and the command must not.
    HasNetwork,
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
