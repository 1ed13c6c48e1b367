//! The HTTP API, version 1: bodies of requests and answers. The pool's, but for `slots`.
//!
//! Requests refuse fields they do not know; answers may gain fields.

mod slots;

pub use slots::{
    SlotBatchCall, SlotBatchItem, SlotBatchRequest, SlotBatchResponse, SlotList, SlotPhase,
    SlotStatus,
};

use crate::{
    ContainerId, Epoch, ExecutionId, Isolation, LeaseId, Problem, ProfileName, SlotIndex,
    ToolResult, TrajectoryId,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

#[cfg(feature = "openapi")]
use utoipa::ToSchema;

/// `POST /v1/leases`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(ToSchema))]
pub struct AcquireRequest {
    pub trajectory_id: TrajectoryId,
    /// Absent: the pool's first profile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<ProfileName>,
    /// How long to wait for a free slot, in seconds. Absent: 30.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait_s: Option<Seconds>,
    /// The lease ends after this long without a call or a renewal. Absent: the profile's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_s: Option<Seconds>,
    /// Higher goes first; first come, first served among equals. Absent: 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<i16>,
    /// Gang acquire: this many slots, all or none. Absent: 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u32>,
}

/// A time span in seconds (kept in milliseconds); fractions allowed. Finite and not negative, at most 30 days.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(ToSchema))]
#[cfg_attr(feature = "openapi", schema(value_type = f64, example = 1.5))]
#[serde(into = "f64")]
pub struct Seconds(u64);

impl Seconds {
    pub fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    pub fn as_millis(self) -> u64 {
        self.0
    }
}

impl From<Seconds> for f64 {
    #[expect(clippy::cast_precision_loss, reason = "30 days of milliseconds fit 53 bits")]
    fn from(seconds: Seconds) -> Self {
        seconds.0 as f64 / 1_000.0
    }
}

impl TryFrom<f64> for Seconds {
    type Error = String;

    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked above")]
    fn try_from(seconds: f64) -> Result<Self, String> {
        if !(0.0..=2_592_000.0).contains(&seconds) {
            return Err(format!("seconds are between 0 and 2592000 (30 days), not {seconds}"));
        }
        // Up: a small positive time never becomes none.
        Ok(Self((seconds * 1_000.0).ceil() as u64))
    }
}

impl<'de> Deserialize<'de> for Seconds {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        f64::deserialize(deserializer)?.try_into().map_err(serde::de::Error::custom)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(ToSchema))]
pub struct AcquireResponse {
    /// As many as were asked for.
    pub leases: Vec<Lease>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(ToSchema))]
pub struct Lease {
    pub lease_id: LeaseId,
    pub trajectory_id: TrajectoryId,
    pub profile: ProfileName,
    pub container: ContainerId,
    pub slot: SlotIndex,
    pub epoch: Epoch,
    pub ttl_s: Seconds,
    /// Until the lease ends, unless a call or a renewal comes before.
    pub expires_in_s: Seconds,
    /// The same instant, in milliseconds since 1970.
    pub expires_at_ms: u64,
    /// Of the container's sandbox-server.
    pub address: String,
    pub isolation: Isolation,
}

/// `POST /v1/leases/{lease_id}/renew`. An empty body is an empty request.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(ToSchema))]
pub struct RenewRequest {
    /// From now on the lease lives this long without a sign of life. Absent: as before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_s: Option<Seconds>,
}

/// `POST /v1/leases/{lease_id}/execute`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(ToSchema))]
pub struct ExecuteRequest {
    pub tool: String,
    #[cfg_attr(feature = "openapi", schema(value_type = Object))]
    pub args: Value,
    /// Wall time; absent: 30.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_s: Option<Seconds>,
    /// Processor time of everything that runs in the slot meanwhile; absent: the server's own limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_s: Option<Seconds>,
    /// Names this call: sent again, it is not run again, and the first run's result comes back.
    /// Absent: drawn by the pool.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub execution_id: Option<ExecutionId>,
}

/// A line of an execute's answer with `Accept: application/x-ndjson`. The last one is the result,
/// or the problem.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(ToSchema))]
pub enum OutputLine {
    /// Of the command's standard output, as it comes. Bytes that are not UTF-8 are replaced.
    Stdout(String),
    Stderr(String),
    /// Output came faster than it was read; no more of it comes before the result.
    Cut(bool),
    Result(Box<ToolResult>),
    Problem(Box<Problem>),
}

impl OutputLine {
    pub fn last(answer: Result<ToolResult, Problem>) -> Self {
        match answer {
            Ok(result) => Self::Result(Box::new(result)),
            Err(problem) => Self::Problem(Box::new(problem)),
        }
    }
}

/// `POST /v1/batch`: calls of any leases. Those of one lease run in this order, others at once.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(ToSchema))]
pub struct BatchRequest {
    pub calls: Vec<BatchCall>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(ToSchema))]
pub struct BatchCall {
    pub lease_id: LeaseId,
    pub tool: String,
    #[cfg_attr(feature = "openapi", schema(value_type = Object))]
    pub args: Value,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_s: Option<Seconds>,
    /// Processor time of everything that runs in the slot meanwhile; absent: the server's own limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_s: Option<Seconds>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub execution_id: Option<ExecutionId>,
}

/// In the order of the calls; with `Accept: application/x-ndjson` one line each, as they finish.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(ToSchema))]
pub struct BatchResponse {
    pub results: Vec<BatchItem>,
}

/// Either a result or, for a call that never ran, the problem.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(ToSchema))]
pub struct BatchItem {
    /// Of the call in the request, from 0.
    pub index: usize,
    pub lease_id: LeaseId,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<ToolResult>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<Problem>,
}

/// `GET /v1/status`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(ToSchema))]
pub struct Status {
    pub pool: String,
    pub version: String,
    pub uptime_s: Seconds,
    pub profiles: BTreeMap<String, ProfileStatus>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(ToSchema))]
pub struct ProfileStatus {
    pub containers: ContainerCounts,
    pub slots: SlotCounts,
    /// Clients that wait for a slot.
    pub waiting: u32,
    /// Why the last container could not be started, while that is so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
    pub totals: Totals,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(ToSchema))]
pub struct ContainerCounts {
    pub starting: u32,
    pub ready: u32,
    pub draining: u32,
    pub stopping: u32,
    pub min: u32,
    pub max: u32,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(ToSchema))]
pub struct SlotCounts {
    pub free: u32,
    pub leased: u32,
    pub resetting: u32,
    pub quarantined: u32,
    /// Of containers whose link is down at the moment.
    pub unreachable: u32,
}

/// Since the pool started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(ToSchema))]
pub struct Totals {
    pub acquired: u64,
    pub released: u64,
    pub expired: u64,
    pub revoked: u64,
    pub resets: u64,
    pub quarantined: u64,
    pub acquire_timeouts: u64,
    pub containers_launched: u64,
    pub containers_lost: u64,
}

/// A line of `GET /v1/events` (server-sent events; the SSE event name is `kind`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(ToSchema))]
pub struct Event {
    /// Rises by one with each event; gaps tell a reader that it was too slow.
    pub seq: u64,
    pub at_ms: u64,
    pub kind: EventKind,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease_id: Option<LeaseId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trajectory_id: Option<TrajectoryId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<ContainerId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slot: Option<SlotIndex>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(ToSchema))]
pub enum EventKind {
    LeaseAcquired,
    LeaseReleased,
    LeaseExpired,
    LeaseRevoked,
    SlotQuarantined,
    ContainerReady,
    ContainerLost,
    ContainerStopped,
}

impl EventKind {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::LeaseAcquired => "lease_acquired",
            Self::LeaseReleased => "lease_released",
            Self::LeaseExpired => "lease_expired",
            Self::LeaseRevoked => "lease_revoked",
            Self::SlotQuarantined => "slot_quarantined",
            Self::ContainerReady => "container_ready",
            Self::ContainerLost => "container_lost",
            Self::ContainerStopped => "container_stopped",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_checked_at_the_limits() {
        for (text, millis) in [("0", 0), ("0.0001", 1), ("1.5", 1_500), ("2592000", 2_592_000_000)]
        {
            let seconds: Seconds = serde_json::from_str(text).unwrap();
            assert_eq!(seconds.as_millis(), millis, "{text}");
        }
        for wrong in ["-1", "2592000.1", "1e300", "\"1\"", "null"] {
            assert!(serde_json::from_str::<Seconds>(wrong).is_err(), "{wrong}");
        }
    }
}
