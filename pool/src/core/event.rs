//! What goes into the core, and what comes out.

use super::types::{
    Closing, ContainerKey, GoneKind, LeaseEnd, Millis, ProfileKey, Retry, Spot, WaiterId,
};
use slotmux_protocol::{ContainerId, Epoch, LeaseId, SlotIndex, TrajectoryId, link::SlotReport};
use std::sync::Arc;

/// Wishes first, then facts. Late, repeated and contradictory facts are normal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    Acquire(Acquire),
    /// Its client is gone. A waiter that was answered already is ignored.
    Cancel {
        waiter: WaiterId,
    },
    Release {
        lease: LeaseId,
    },
    Renew {
        lease: LeaseId,
        ttl_ms: Option<u64>,
    },
    Close(Closing),

    /// Time passed.
    Tick,
    /// The answer to [`Effect::AskActivity`]: when a call of the lease last ran.
    Activity {
        lease: LeaseId,
        last: Millis,
    },
    /// The lease could not be written to the journal; its client has not heard of it.
    NotJournalled {
        lease: LeaseId,
    },

    LaunchFailed {
        container: ContainerKey,
        retry: Retry,
        why: Arc<str>,
    },
    ContainerGone {
        container: ContainerKey,
        why: Arc<str>,
    },
    LinkUp {
        container: ContainerKey,
        boot: Arc<str>,
        reports: Vec<SlotReport>,
    },
    LinkDown {
        container: ContainerKey,
        why: Arc<str>,
    },
    Opened {
        at: Spot,
        epoch: Epoch,
    },
    Shut {
        at: Spot,
        epoch: Epoch,
        why: Arc<str>,
    },
    Clean {
        at: Spot,
        epoch: Epoch,
    },
    Dirty {
        at: Spot,
        epoch: Epoch,
        why: Arc<str>,
    },
    Broken {
        at: Spot,
        epoch: Epoch,
        why: Arc<str>,
    },
}

/// `count` slots for a trajectory, all or none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acquire {
    pub waiter: WaiterId,
    pub profile: ProfileKey,
    pub trajectory: TrajectoryId,
    pub count: u32,
    /// Higher goes first.
    pub priority: i16,
    pub deadline: Millis,
    pub ttl_ms: u64,
}

/// What the shell must do, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// To be written before any [`Effect::Grant`] that names the lease is told.
    Journal(Record),
    Launch {
        container: ContainerKey,
        id: ContainerId,
        profile: ProfileKey,
    },
    Stop {
        id: ContainerId,
    },
    Open {
        at: Spot,
        lease: LeaseId,
        trajectory: TrajectoryId,
        profile: ProfileKey,
        ttl_ms: u64,
    },
    Reset {
        at: Spot,
        epoch: Epoch,
    },
    Grant {
        waiter: WaiterId,
        leases: Vec<LeaseId>,
    },
    Refuse {
        waiter: WaiterId,
        why: Refusal,
    },
    /// Of a lease that was granted.
    LeaseEnded {
        lease: LeaseId,
        trajectory: TrajectoryId,
        container: ContainerId,
        slot: SlotIndex,
        how: LeaseEnd,
    },
    /// A lease that its holder has from an earlier pool process. It was granted already.
    LeaseAdopted {
        lease: LeaseId,
    },
    /// Answer with [`Event::Activity`]; unanswered, it is asked again.
    AskActivity {
        lease: LeaseId,
    },
    SlotQuarantined {
        at: Spot,
        why: Arc<str>,
    },
    ContainerUp {
        container: ContainerKey,
    },
    /// The core has forgotten the container; `kind` says whether we had asked for its end.
    ContainerEnded {
        container: ContainerKey,
        id: ContainerId,
        kind: GoneKind,
        why: Arc<str>,
    },
}

/// A line of the journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    LeaseOpened(LeaseRecord),
    LeaseEnded { lease: LeaseId },
    ContainerKnown(ContainerRecord),
    ContainerGone { id: ContainerId },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseRecord {
    pub lease: LeaseId,
    pub trajectory: TrajectoryId,
    pub container: ContainerId,
    pub slot: SlotIndex,
    pub ttl_ms: u64,
}

/// Written at launch, and again when the boot of its sandbox-server becomes known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerRecord {
    pub id: ContainerId,
    pub boot: Option<Arc<str>>,
}

/// Why an acquire was not granted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("no slot became free before the deadline{}", and_why(.trouble.as_deref()))]
    Deadline {
        /// Why the last container of the profile did not start, if it did not.
        trouble: Option<Arc<str>>,
    },
    #[error("a newer request of the same trajectory took this one's place")]
    Superseded,
    #[error("the trajectory holds {held} leases of another kind or number; release them first")]
    AlreadyHeld { held: u32 },
    #[error("{count} slots were asked for, and the profile never has more than {max}")]
    NeverEnough { count: u32, max: u32 },
    #[error("containers cannot be started: {why}")]
    CannotLaunch { why: Arc<str> },
    #[error("the journal cannot be written")]
    NotJournalled,
    #[error("the pool is shutting down")]
    Closing,
}

fn and_why(trouble: Option<&str>) -> String {
    trouble.map_or_else(String::new, |why| format!("; containers cannot be started: {why}"))
}

/// Why a wish about a lease cannot be fulfilled.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoLease {
    #[error("no such lease")]
    Unknown,
    /// The journal does not know it, but a container that was not heard of yet may.
    #[error("not known yet")]
    Unheard,
    #[error("the lease is over")]
    Ended(LeaseEnd),
}
