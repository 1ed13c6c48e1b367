//! The epochs of one grant: they are drawn together, so they follow each other.

use slotmux_protocol::{Epoch, LeaseId};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Epochs {
    pub(super) first: u64,
    pub(super) count: u32,
}

impl Epochs {
    pub(super) fn iter(self) -> impl Iterator<Item = u64> {
        self.first..self.first + u64::from(self.count)
    }

    pub(super) fn leases(self) -> Vec<LeaseId> {
        self.iter().map(|epoch| LeaseId(Epoch(epoch))).collect()
    }
}
