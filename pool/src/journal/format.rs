//! How records look on the disk: named maps, so that later versions may add fields.

use crate::core::{ContainerRecord, LeaseRecord};
use serde::{Deserialize, Serialize};
use slotmux_protocol::{ContainerId, Epoch, LeaseId, SlotIndex, TrajectoryId};

/// Raised when an older version could not make sense of what this one writes.
pub(super) const FORMAT: u64 = 1;

#[derive(Debug, Serialize, Deserialize)]
struct StoredLease {
    trajectory: TrajectoryId,
    container: ContainerId,
    slot: SlotIndex,
    ttl_ms: u64,
}

#[derive(Debug, Serialize, Deserialize)]
struct StoredContainer {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    boot: Option<String>,
}

pub(super) fn lease_to_bytes(lease: &LeaseRecord) -> Result<Vec<u8>, rmp_serde::encode::Error> {
    rmp_serde::to_vec_named(&StoredLease {
        trajectory: lease.trajectory.clone(),
        container: lease.container.clone(),
        slot: lease.slot,
        ttl_ms: lease.ttl_ms,
    })
}

pub(super) fn lease_from(
    epoch: u64,
    bytes: &[u8],
) -> Result<LeaseRecord, rmp_serde::decode::Error> {
    let StoredLease { trajectory, container, slot, ttl_ms } = rmp_serde::from_slice(bytes)?;
    Ok(LeaseRecord { lease: LeaseId(Epoch(epoch)), trajectory, container, slot, ttl_ms })
}

pub(super) fn container_to_bytes(
    container: &ContainerRecord,
) -> Result<Vec<u8>, rmp_serde::encode::Error> {
    let boot = container.boot.as_deref().map(str::to_owned);
    rmp_serde::to_vec_named(&StoredContainer { boot })
}

pub(super) fn container_from(
    id: ContainerId,
    bytes: &[u8],
) -> Result<ContainerRecord, rmp_serde::decode::Error> {
    let StoredContainer { boot } = rmp_serde::from_slice(bytes)?;
    Ok(ContainerRecord { id, boot: boot.map(Into::into) })
}
