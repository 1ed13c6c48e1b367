//! The HTTP API of an agent: one-shot jobs, each in a container of its own.
//!
//! Requests refuse fields they do not know; answers may gain fields.

mod graded;
mod plain;
mod status;

pub use graded::{GradedJob, GradedResult, Verdict};
pub use plain::{JobOutput, PlainJob, PlainJobLimits, PlainJobNetwork, PlainResult};
pub use status::{JobEvent, JobEventKind, JobList, JobPhase, JobStatus, SshAccess};

use crate::{ids::JobName, v1::Seconds};
use serde::{Deserialize, Serialize};

#[cfg(feature = "openapi")]
use utoipa::ToSchema;

/// `POST /v1/jobs`. Exactly one of `graded` and `plain`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(ToSchema))]
pub struct JobRequest {
    /// Names this job: sent again with the same request it is not run again. Absent: drawn by the
    /// agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job_id: Option<JobName>,
    /// Higher goes first; first come, first served among equals. Absent: 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<i16>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub graded: Option<GradedJob>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plain: Option<PlainJob>,
}

/// What a job came to. One of `graded` and `plain`, as in its request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(ToSchema))]
pub struct JobResult {
    pub job_id: JobName,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub graded: Option<GradedResult>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plain: Option<PlainResult>,
}

/// What a job used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(ToSchema))]
pub struct JobUsed {
    /// From its container's start to its end.
    pub wall_us: u64,
    /// Of all its processes, as last seen. Absent: it was not seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_us: Option<u64>,
}

/// The query of `GET /v1/jobs/{job_id}/result`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResultQuery {
    /// How long to wait for the job's end, in seconds. Absent: not at all.
    #[serde(default)]
    pub wait_s: Option<Seconds>,
}
