//! How jobs are, and what has become of them so far.

use super::Verdict;
use crate::{CausedBy, Ended, ids::JobName};
use serde::{Deserialize, Serialize};

#[cfg(feature = "openapi")]
use utoipa::ToSchema;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(ToSchema))]
pub enum JobPhase {
    /// For one of the agent's slots.
    Waiting,
    Running,
    /// Its result can be fetched.
    Done,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(ToSchema))]
pub struct JobStatus {
    pub job_id: JobName,
    pub phase: JobPhase,
    /// Milliseconds since 1970.
    pub submitted_at_ms: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub done_at_ms: Option<u64>,
    /// Of a graded job that is done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<Verdict>,
    /// Of a plain job that is done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<Ended>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub caused_by: Option<CausedBy>,
    /// Whether the result was asked for and given. It is the first to go when room is needed.
    pub fetched: bool,
}

/// `GET /v1/jobs`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(ToSchema))]
pub struct JobList {
    /// In the order in which they came.
    pub jobs: Vec<JobStatus>,
}

/// A line of `GET /v1/jobs/{job_id}/events`. The last one is `done`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(ToSchema))]
pub struct JobEvent {
    /// From 1, each job for itself: `after` resumes there.
    pub seq: u32,
    /// Milliseconds since 1970.
    pub at_ms: u64,
    pub kind: JobEventKind,
    /// With `ssh`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ssh: Option<SshAccess>,
    /// With `done`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<JobStatus>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(ToSchema))]
pub enum JobEventKind {
    Submitted,
    Started,
    /// Somebody may look in.
    Ssh,
    Done,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(ToSchema))]
pub struct SshAccess {
    pub host: String,
    pub port: u16,
    pub user: String,
    /// Or key.
    pub password: String,
}
