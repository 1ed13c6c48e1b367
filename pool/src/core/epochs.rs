//! The leases of one trajectory: nearly always one, and then without an allocation.

use slotmux_protocol::{Epoch, LeaseId};

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) enum Epochs {
    #[default]
    None,
    One(u64),
    Many(Vec<u64>),
}

impl Epochs {
    pub(super) fn range(first: u64, count: u32) -> Self {
        match count {
            0 => Self::None,
            1 => Self::One(first),
            _ => Self::Many((first..first + u64::from(count)).collect()),
        }
    }

    pub(super) fn as_slice(&self) -> &[u64] {
        match self {
            Self::None => &[],
            Self::One(epoch) => std::slice::from_ref(epoch),
            Self::Many(epochs) => epochs,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.as_slice().len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn push(&mut self, epoch: u64) {
        match self {
            Self::None => *self = Self::One(epoch),
            Self::One(first) => *self = Self::Many(vec![*first, epoch]),
            Self::Many(epochs) => epochs.push(epoch),
        }
    }

    pub(super) fn remove(&mut self, epoch: u64) {
        match self {
            Self::One(only) if *only == epoch => *self = Self::None,
            Self::None | Self::One(_) => {}
            Self::Many(epochs) => epochs.retain(|it| *it != epoch),
        }
    }

    pub(super) fn leases(&self) -> Vec<LeaseId> {
        self.as_slice().iter().map(|epoch| LeaseId(Epoch(*epoch))).collect()
    }
}
