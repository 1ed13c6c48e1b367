//! What a door asks for: a job, with everything that is needed to run it.
//!
//! Free-form parts stay what they were on the wire: what a task's author has put in comes out in
//! the container unchanged.

use bytes::Bytes;
use rmpv::Value;
use std::{fmt, time::Duration};

/// The longest id of a job, in bytes: longer ones are refused.
pub const JOB_ID_BYTES_MAX: usize = 200;

/// A job's name, chosen by who asks for it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct JobId(String);

/// Smaller goes first; equal ones go in the order in which they came.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Priority(pub i64);

#[derive(Debug, Clone)]
pub struct JobOrder {
    pub id: JobId,
    pub kind: JobKind,
    pub priority: Priority,
}

#[derive(Debug, Clone)]
pub enum JobKind {
    /// In a container that speaks INGInious's protocol.
    Graded(Graded),
    /// Any command in any image.
    Plain(Plain),
}

#[derive(Debug, Clone)]
pub struct Graded {
    /// Without course and task there is no folder of a task: what runs is in the image.
    pub course_id: Option<String>,
    pub task_id: Option<String>,
    /// A map, by the problem's id.
    pub problems: Value,
    /// A map. Its `@state` is the job's state before this job.
    pub inputdata: Value,
    /// `docker`, `docker-ssh`, `nvidia`, …
    pub environment_type: String,
    /// The value of the image's label `org.inginious.grading.name`.
    pub environment: String,
    /// A map: limits, network, command.
    pub parameters: Value,
    pub debug: Debug,
    /// A tar archive that is unpacked over the task's folder.
    pub files: Option<Bytes>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Debug {
    #[default]
    No,
    /// The result has the script's output.
    Yes,
    /// So that somebody can look in by ssh.
    Ssh,
}

#[derive(Debug, Clone)]
pub struct Plain {
    pub image: String,
    /// Empty: what the image runs by itself.
    pub command: Vec<String>,
    /// Names and values.
    pub env: Vec<(String, String)>,
    /// `None`: the image's own.
    pub working_dir: Option<String>,
    /// `None`: the image's own.
    pub user: Option<String>,
    /// A tar archive that is unpacked in `files_dir` before the command starts.
    pub files: Option<Bytes>,
    /// An absolute directory of the image, which must be there.
    pub files_dir: String,
    /// What the command reads, to its end.
    pub stdin: Bytes,
    pub limits: PlainLimits,
    pub network: PlainNetwork,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlainLimits {
    /// From its start to its end.
    pub wall: Duration,
    /// Of all its processes. `None`: as much as fits in the wall time.
    pub cpu: Option<Duration>,
    pub memory_bytes: u64,
    pub processes: u32,
    /// Of each stream; of more, head and tail are kept.
    pub output_bytes: usize,
}

impl Default for PlainLimits {
    fn default() -> Self {
        Self {
            wall: Duration::from_secs(90),
            cpu: None,
            memory_bytes: 200 << 20,
            processes: 256,
            output_bytes: 256 << 10,
        }
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum PlainNetwork {
    #[default]
    None,
    /// The engine's usual one.
    Bridge,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a job's id has 1 to {JOB_ID_BYTES_MAX} bytes, not {bytes}")]
pub struct BadJobId {
    bytes: usize,
}

impl JobId {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for JobId {
    type Error = BadJobId;

    fn try_from(text: String) -> Result<Self, BadJobId> {
        match text.len() {
            1..=JOB_ID_BYTES_MAX => Ok(Self(text)),
            bytes => Err(BadJobId { bytes }),
        }
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
