//! A limit on everything, each with its unit last. Over a limit is an answer, never silence.

use serde::{Deserialize, Serialize};

/// What one process of ours accepts and holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// An HTTP body or a frame.
    pub body_bytes_max: usize,
    /// Calls in one batch.
    pub batch_calls_max: usize,
    /// Calls waiting for their turn in one slot.
    pub queued_calls_max: usize,
    /// Longest wall time that a call may ask for.
    pub timeout_ms_max: u64,
    /// Processor time of a call that does not say how much it may use. 0: no limit.
    pub cpu_ms_max: u64,
    /// Results kept for each slot, so that a retry can be answered.
    pub kept_results_max: usize,
    pub kept_results_bytes_max: usize,
    /// Execution ids remembered for each slot after their results are gone: a retry of one of
    /// these is answered `unknown`, never run again.
    pub kept_ids_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body_bytes_max: 16 << 20,
            batch_calls_max: 1_000,
            queued_calls_max: 2_048,
            timeout_ms_max: 24 * 3_600_000,
            cpu_ms_max: 0,
            kept_results_max: 256,
            kept_results_bytes_max: 4 << 20,
            kept_ids_max: 65_536,
        }
    }
}

/// What one slot may use, all of its calls together. 0 means no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SlotLimits {
    pub memory_bytes_max: u64,
    /// Processor time for each second, in thousandths: 1,500 is one processor and a half.
    pub cpu_millis_max: u32,
    /// Everything that its files take on the disk.
    pub disk_bytes_max: u64,
    pub processes_max: u32,
    pub open_files_max: u32,
    pub file_bytes_max: u64,
    /// Size of the private /tmp and /dev/shm, each; they count as memory.
    pub tmp_bytes_max: u64,
}

impl Default for SlotLimits {
    fn default() -> Self {
        Self {
            memory_bytes_max: 512 << 20,
            cpu_millis_max: 0,
            disk_bytes_max: 4 << 30,
            processes_max: 256,
            open_files_max: 1_024,
            file_bytes_max: 1 << 30,
            tmp_bytes_max: 128 << 20,
        }
    }
}

/// What one call may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CallLimits {
    pub timeout_ms: u64,
    /// Processor time of everything that runs in the slot meanwhile. 0: no limit.
    pub cpu_ms_max: u64,
    /// Kept of each stream's beginning.
    pub head_bytes_max: u32,
    /// Kept of each stream's end.
    pub tail_bytes_max: u32,
    /// Both streams together; a call that prints more is ended as `output_limit`. 0: no limit.
    pub output_bytes_max: u64,
}

impl Default for CallLimits {
    fn default() -> Self {
        Self {
            timeout_ms: 30_000,
            cpu_ms_max: 0,
            head_bytes_max: 25_000,
            tail_bytes_max: 25_000,
            output_bytes_max: 16 << 30,
        }
    }
}
