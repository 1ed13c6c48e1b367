//! Jobs in containers that speak INGInious's protocol.

use super::JobUsed;
use crate::CausedBy;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::fmt;

#[cfg(feature = "openapi")]
use utoipa::ToSchema;

/// A task of a course, or a grading image alone.
///
/// In free-form values `{"$binary": "<base64>"}` stands for bytes, in both directions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(ToSchema))]
pub struct GradedJob {
    /// Of the image, by its label.
    pub environment: String,
    /// Absent: `docker`.
    #[serde(default = "docker", skip_serializing_if = "is_docker")]
    pub environment_type: String,
    /// With `task_id`: the folder that the job gets a copy of. Absent: it gets an empty one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub course_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task_id: Option<String>,
    /// By the problem's id.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    #[cfg_attr(feature = "openapi", schema(value_type = Object))]
    pub task_problems: Map<String, Value>,
    /// What the task's script gets to read. `@state` is the state that the job before has left.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    #[cfg_attr(feature = "openapi", schema(value_type = Object))]
    pub inputdata: Map<String, Value>,
    /// `limits` (`time` and `hard_time` in seconds, `memory` in megabytes), `network_grading`,
    /// `run_cmd`.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    #[cfg_attr(feature = "openapi", schema(value_type = Object))]
    pub environment_parameters: Map<String, Value>,
    /// The result has the script's output.
    #[serde(default, skip_serializing_if = "is_false")]
    pub debug: bool,
    /// Somebody wants to look in by ssh; the image and the agent have to allow it.
    #[serde(default, skip_serializing_if = "is_false")]
    pub ssh: bool,
}

fn docker() -> String {
    "docker".to_owned()
}

fn is_docker(kind: &str) -> bool {
    kind == "docker"
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
fn is_false(flag: &bool) -> bool {
    !flag
}

/// INGInious's words for what a job comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(ToSchema))]
pub enum Verdict {
    /// Somebody asked for its end.
    Killed,
    /// It could not be run, or did not say what it should have said.
    Crash,
    /// It needed more memory than it may.
    Overflow,
    /// It needed more time than it may.
    Timeout,
    Success,
    Failed,
    /// The grading script itself failed.
    Error,
}

impl Verdict {
    pub const ALL: [Self; 7] = [
        Self::Killed,
        Self::Crash,
        Self::Overflow,
        Self::Timeout,
        Self::Success,
        Self::Failed,
        Self::Error,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Killed => "killed",
            Self::Crash => "crash",
            Self::Overflow => "overflow",
            Self::Timeout => "timeout",
            Self::Success => "success",
            Self::Failed => "failed",
            Self::Error => "error",
        }
    }

    /// `None`: it is none of them.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|it| it.as_str() == text)
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(ToSchema))]
pub struct GradedResult {
    pub result: Verdict,
    pub text: String,
    /// 0 to 100 by custom; nothing enforces it.
    pub grade: f64,
    #[cfg_attr(feature = "openapi", schema(value_type = Object))]
    pub problems: Map<String, Value>,
    #[cfg_attr(feature = "openapi", schema(value_type = Object))]
    pub tests: Map<String, Value>,
    #[cfg_attr(feature = "openapi", schema(value_type = Object))]
    pub custom: Map<String, Value>,
    /// For the `@state` of the next job.
    pub state: String,
    /// A tgz of what the script has left in /archive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub archive_base64: Option<String>,
    /// With `debug`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdout: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stderr: Option<String>,
    pub caused_by: CausedBy,
    pub used: JobUsed,
}
