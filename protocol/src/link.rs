//! The Link: what a pool and a container's sandbox-server say to one another.
//!
//! One WebSocket for each container, opened at `GET /v1/link` with the container's bearer token.
//! Each binary message holds one or more frames ([`crate::encode`]); a message never splits a
//! frame. Both sides begin with a `Hello`. The pool sends a `Ping` at every heartbeat; a side that
//! has heard nothing for three heartbeats takes the link for dead.
//!
//! A link that broke is dialled again. Running calls go on meanwhile: the pool repeats those it
//! has no answer to under their `execution_id`, and gets the first run's result.

use crate::{
    CallLimits, ContainerId, Epoch, ExecutionId, Isolation, LeaseId, Network, Problem, ProfileName,
    SlotIndex, ToolCall, ToolResult, TrajectoryId,
};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// Of a call on one link; chosen by the pool, not reused on that link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CallId(pub u64);

/// Who holds a slot. Kept by the sandbox-server so that a pool that lost its journal learns it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    pub lease: LeaseId,
    pub trajectory: TrajectoryId,
    pub profile: ProfileName,
    pub ttl_ms: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToContainer {
    Hello {
        version: u32,
        pool: String,
        /// Of this pool process: a newer one takes the link over from an older one.
        generation: u64,
        heartbeat_ms: u64,
    },
    /// Opens a clean slot for the epoch of `holder.lease`. Answered by `Opened` or `Shut`.
    Open {
        slot: SlotIndex,
        holder: Holder,
    },
    /// Closes a slot for `epoch` and every earlier one, kills what runs in it, empties it.
    /// Answered by `Clean` or `Dirty`.
    Reset {
        slot: SlotIndex,
        epoch: Epoch,
    },
    /// Answered by `Done` or `Refused`, each in its own time.
    Call(Box<Call>),
    /// Ends a running call as `cancelled`; unknown and finished ones are ignored.
    Cancel {
        call: CallId,
    },
    Ping {
        seq: u64,
    },
    /// Finish what runs within `grace_ms`, then exit.
    Shutdown {
        grace_ms: u64,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call {
    pub call: CallId,
    pub slot: SlotIndex,
    pub epoch: Epoch,
    pub execution_id: ExecutionId,
    pub tool: ToolCall,
    pub limits: CallLimits,
    /// Send its output as it comes, too, by `Output`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stream: bool,
}

/// Which of a command's streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OutputStream {
    Stdout,
    Stderr,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FromContainer {
    Hello {
        version: u32,
        server: ServerInfo,
        slots: Vec<SlotReport>,
    },
    Opened {
        slot: SlotIndex,
        epoch: Epoch,
    },
    /// The slot was not opened: it is not clean, or was open for a later epoch already.
    Shut {
        slot: SlotIndex,
        epoch: Epoch,
        why: String,
    },
    Clean {
        slot: SlotIndex,
        epoch: Epoch,
    },
    Dirty {
        slot: SlotIndex,
        epoch: Epoch,
        why: String,
    },
    /// Of a call that runs; before its `Done`.
    Output {
        call: CallId,
        stream: OutputStream,
        bytes: Bytes,
    },
    Done {
        call: CallId,
        result: Box<ToolResult>,
    },
    Refused {
        call: CallId,
        problem: Box<Problem>,
    },
    /// The slot can run nothing any more until it is reset.
    Broken {
        slot: SlotIndex,
        epoch: Epoch,
        why: String,
    },
    Pong {
        seq: u64,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerInfo {
    pub container: ContainerId,
    pub version: String,
    /// Drawn anew at each start of the process: a server with another one has forgotten its slots.
    pub boot_id: String,
    pub isolation: Isolation,
    pub network: Network,
}

/// What a server knows of one slot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotReport {
    pub slot: SlotIndex,
    pub state: SlotState,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SlotState {
    /// Empty; `fence` is the last epoch that it refuses for good.
    Clean { fence: Epoch },
    /// Open for the holder's epoch.
    Open { holder: Holder },
    /// Being emptied, or not to be emptied.
    Dirty { fence: Epoch },
}
