//! Jobs of any image and any command.

use super::JobUsed;
use crate::{CausedBy, Ended, v1::Seconds};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

#[cfg(feature = "openapi")]
use utoipa::ToSchema;

/// Where the files of a job go, if it does not say.
const FILES_DIR: &str = "/tmp";

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(ToSchema))]
pub struct PlainJob {
    pub image: String,
    /// Program and arguments. Empty: what the image runs by itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Absent: the image's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub working_dir: Option<String>,
    /// Absent: the image's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// An absolute directory of the image, where the files of the request are put before the
    /// command starts.
    #[serde(default = "files_dir")]
    pub files_dir: String,
    /// What the command reads, to its end.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub stdin: String,
    #[serde(default)]
    pub limits: PlainJobLimits,
    #[serde(default)]
    pub network: PlainJobNetwork,
}

fn files_dir() -> String {
    FILES_DIR.to_owned()
}

/// What is absent has the agent's own value.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(ToSchema))]
pub struct PlainJobLimits {
    /// From its start to its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wall_s: Option<Seconds>,
    /// Processor time of all its processes. Absent: as much as fits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_s: Option<Seconds>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub processes: Option<u32>,
    /// Kept of each stream: head and tail.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_bytes: Option<u32>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(ToSchema))]
pub enum PlainJobNetwork {
    #[default]
    None,
    /// The engine's usual one.
    Bridge,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(ToSchema))]
pub struct PlainResult {
    pub ended: Ended,
    pub caused_by: CausedBy,
    /// With `ended` = `exited`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i64>,
    /// Why, in words; empty when the command ended by itself.
    pub error: String,
    pub stdout: JobOutput,
    pub stderr: JobOutput,
    pub used: JobUsed,
}

/// Of one stream.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(ToSchema))]
pub struct JobOutput {
    /// Head and tail, with a note between the two if something was cut. Bytes that are not UTF-8
    /// are replaced.
    pub text: String,
    pub cut_bytes: u64,
}
