//! How a call ended, and who is to blame for it.

use crate::ExecutionId;
use serde::{Deserialize, Serialize};

/// How a call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Ended {
    /// By itself; `exit_code` is set.
    Exited,
    /// By a signal that was not ours; `signal` is set.
    Signaled,
    /// Its wall time was over; everything the slot ran was killed.
    Timeout,
    /// It reached the slot's memory limit.
    Oom,
    /// It reached the slot's limit of processes.
    Pids,
    /// It filled its share of the disk.
    Disk,
    /// It printed more than it may.
    OutputLimit,
    /// Somebody asked for its end.
    Cancelled,
    /// Its container or slot went away while it ran.
    Lost,
    /// It was started, and nobody can say any more how it ended.
    Unknown,
}

/// Who caused the end. RL trains on what `policy` did, and discards what `infra` did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum CausedBy {
    /// The command itself, whether it went well or not.
    Policy,
    /// Slotmux or what lies under it.
    Infra,
    /// The client that made the call, by cancelling it or releasing its lease.
    Client,
}

/// The walls round a slot, best first. See `docs/isolation.md`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Isolation {
    /// No wall at all: trusted work only.
    None,
    /// One user for all slots; Landlock and seccomp.
    Landlock,
    /// One uid for each slot; Landlock and seccomp.
    Uid,
    /// Namespaces of its own, a root of its own, seccomp.
    Namespaces,
}

impl Isolation {
    /// A sandbox-server that is asked for a rung which it cannot have ends with this exit code.
    pub const REFUSED: u8 = 3;

    /// Best first, as a server tries them.
    pub const LADDER: [Self; 4] = [Self::Namespaces, Self::Uid, Self::Landlock, Self::None];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Landlock => "landlock",
            Self::Uid => "uid",
            Self::Namespaces => "namespaces",
        }
    }
}

impl std::fmt::Display for Isolation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::str::FromStr for Isolation {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::LADDER.into_iter().find(|it| it.as_str() == text).ok_or_else(|| {
            format!("isolation is one of namespaces, uid, landlock, none; not `{text}`")
        })
    }
}

/// What a slot sees as `/`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Root {
    /// System directories, read-only.
    #[default]
    Minimal,
    /// A copy-on-write view of the container's whole image; only on the rung `namespaces`.
    Image,
}

impl Root {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Minimal => "minimal",
            Self::Image => "image",
        }
    }
}

impl std::fmt::Display for Root {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::str::FromStr for Root {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = [Self::Minimal, Self::Image].into_iter().find(|it| it.as_str() == text);
        found.ok_or_else(|| format!("the root is minimal or image, not `{text}`"))
    }
}

/// What a call used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Usage {
    /// From its start to its end, without waiting for its turn.
    pub wall_us: u64,
    pub user_us: u64,
    pub system_us: u64,
    /// Most memory that one of its processes held.
    pub max_rss_bytes: u64,
    /// Most memory of the slot during the call: with a memory cgroup page cache included, and
    /// otherwise as far as it was seen. Absent where nothing limits it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_peak_bytes: Option<u64>,
    pub stdout_bytes: u64,
    pub stderr_bytes: u64,
    /// What was cut out of the middle of the streams.
    pub cut_bytes: u64,
}

/// The answer to a call that was started. A call that never ran is a [`crate::Problem`] instead.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ToolResult {
    pub execution_id: ExecutionId,
    /// It did what it was asked to: for `bash`, exit code 0.
    pub success: bool,
    /// Of `bash`: stdout, then stderr under `[stderr]`. Bytes that are not UTF-8 are replaced.
    pub output: String,
    /// What a program may read of it: entries of a list, matches, a cursor. See the tool.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<Object>))]
    pub data: Option<serde_json::Value>,
    /// Empty when it went well.
    pub error: String,
    pub ended: Ended,
    pub caused_by: CausedBy,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
    /// How the slot that ran it is kept apart.
    pub isolation: Isolation,
    pub network: crate::Network,
    pub usage: Usage,
}
