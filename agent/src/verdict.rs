//! What a job comes to.

use bytes::Bytes;
use rmpv::Value;
use slotmux_protocol::{CausedBy, Ended};
use std::time::Duration;

pub use slotmux_protocol::job::Verdict;

/// The one answer to a job.
#[derive(Debug, Clone, PartialEq)]
pub enum JobDone {
    Graded(GradedDone),
    Plain(PlainDone),
}

/// Field by field what INGInious calls `AgentJobDone`.
#[derive(Debug, Clone, PartialEq)]
pub struct GradedDone {
    pub verdict: Verdict,
    pub text: String,
    /// 0 to 100 by custom, with two decimals; nothing enforces it.
    pub grade: f64,
    /// A map.
    pub problems: Value,
    /// A map.
    pub tests: Value,
    /// A map.
    pub custom: Value,
    pub state: String,
    /// A tgz.
    pub archive: Option<Bytes>,
    pub stdout: Option<String>,
    pub stderr: Option<String>,
    /// Whose fault it is, as far as it can be told.
    pub caused_by: CausedBy,
    pub usage: JobUsage,
}

#[derive(Debug, Clone, PartialEq)]
pub struct PlainDone {
    pub ended: Ended,
    pub caused_by: CausedBy,
    /// With `Ended::Exited`.
    pub exit_code: Option<i64>,
    /// Why, in words; empty when the command ended by itself.
    pub error: String,
    pub stdout: Output,
    pub stderr: Output,
    pub usage: JobUsage,
}

/// Of a stream, head and tail.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Output {
    pub head: Bytes,
    /// Follows the head at once if nothing was cut.
    pub tail: Bytes,
    /// Left out between the two.
    pub cut_bytes: u64,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct JobUsage {
    /// From the container's start to its end.
    pub wall: Duration,
    /// Of all its processes, as last seen. `None`: it was not seen.
    pub cpu: Option<Duration>,
}

impl GradedDone {
    /// Without a result of a container.
    pub fn without_result(
        verdict: Verdict,
        text: impl Into<String>,
        state: impl Into<String>,
        caused_by: CausedBy,
    ) -> Self {
        Self {
            verdict,
            text: text.into(),
            grade: 0.0,
            problems: Value::Map(Vec::new()),
            tests: Value::Map(Vec::new()),
            custom: Value::Map(Vec::new()),
            state: state.into(),
            archive: None,
            stdout: None,
            stderr: None,
            caused_by,
            usage: JobUsage::default(),
        }
    }

    /// The answer to the kill of a job that nobody knows.
    pub fn killed_unknown(state: impl Into<String>) -> Self {
        Self::without_result(Verdict::Killed, "", state, CausedBy::Client)
    }
}

impl Output {
    /// All of it, with a note where something was cut.
    pub fn text(&self) -> String {
        let head = String::from_utf8_lossy(&self.head);
        let tail = String::from_utf8_lossy(&self.tail);
        match self.cut_bytes {
            0 => {
                let bytes = [&self.head[..], &self.tail[..]].concat();
                String::from_utf8_lossy(&bytes).into_owned()
            }
            cut => format!("{head}\n[{cut} bytes cut]\n{tail}"),
        }
    }
}
