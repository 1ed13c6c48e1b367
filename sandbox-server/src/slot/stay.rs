//! The time that a slot is in the same hands: what a slot token is good for.

use super::{
    Slot,
    gate::{Gate, Phase},
};
use slotmux_protocol::{Code, Epoch, Problem};

/// From one emptying of a slot to the next, or to the lease that comes between.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stay {
    /// How often the slot was shut before.
    pub(crate) round: u64,
    /// Of the lease that it is open for.
    pub(crate) epoch: Option<Epoch>,
}

impl Slot {
    /// Refused while it is in nobody's hands.
    pub(crate) fn stay(&self) -> Result<Stay, Problem> {
        let gate = self.gate();
        match &gate.phase {
            Phase::Dirty(why) => Err(Problem::new(Code::SlotBroken, why.clone())),
            Phase::Clean | Phase::Open(_) => Ok(gate.stay()),
        }
    }

    pub(crate) fn is_over(&self, stay: Stay) -> bool {
        self.gate().stay() != stay
    }
}

impl Gate {
    fn stay(&self) -> Stay {
        let epoch = match &self.phase {
            Phase::Open(holder) => Some(holder.lease.epoch()),
            Phase::Clean | Phase::Dirty(_) => None,
        };
        Stay { round: self.round, epoch }
    }

    pub(super) fn admit_stay(&self, stay: Stay) -> Result<(), Problem> {
        match &self.phase {
            _ if self.stay() != stay => Err(over()),
            Phase::Dirty(why) => Err(Problem::new(Code::SlotBroken, why.clone())),
            Phase::Clean | Phase::Open(_) => Ok(()),
        }
    }
}

/// What a token says that has outlived its stay.
pub(crate) fn over() -> Problem {
    Problem::new(
        Code::Forbidden,
        "the token is over: its slot was reset or given to somebody else; ask for a new one",
    )
}
