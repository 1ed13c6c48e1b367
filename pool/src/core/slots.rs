//! All slots, in one array: a lease leads to its slot without its container.
//!
//! Invariants: each container has a run of slots to itself; a run that was vacated goes to the next
//! container with as many slots. `due` of a slot is its earliest entry in the heap of expiries that
//! is not past.

use super::types::{At, Millis};
use slotmux_protocol::TrajectoryId;
use std::{
    collections::BTreeMap,
    ops::{Index, IndexMut, Range},
};

#[derive(Debug, Default)]
pub(super) struct Slots {
    all: Vec<Slot>,
    /// Where vacant runs begin, by their length.
    vacant: BTreeMap<u16, Vec<u32>>,
}

/// The slots of one container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) first: u32,
    pub(super) count: u16,
}

/// One line of the processor's cache.
#[derive(Debug)]
#[repr(align(64))]
pub(super) struct Slot {
    /// Of the lease on it, or of the last one that was.
    pub(super) epoch: u64,
    pub(super) state: State,
    /// When its entry in the heap of expiries comes up. It may be of an earlier lease. The end of
    /// time when there is none.
    pub(super) due: Millis,
    /// The place of its container.
    pub(super) container: u32,
    /// In the list of free slots.
    pub(super) next_free: u16,
    /// Opens in a row that were refused.
    pub(super) shuts: u8,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum State {
    /// Its server has not reported it yet.
    Unseen,
    Free,
    /// For a waiter; `opened` while others of its gang are not.
    Opening {
        waiter: u64,
        opened: bool,
    },
    Leased(Lease),
    Resetting {
        since: Millis,
    },
    Quarantined,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Lease {
    pub(super) trajectory: TrajectoryId,
    pub(super) ttl_ms: u64,
    pub(super) expires: Millis,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Unseen,
    Free,
    Opening,
    Leased,
    Resetting,
    Quarantined,
}

impl State {
    pub(super) fn kind(&self) -> Kind {
        match self {
            Self::Unseen => Kind::Unseen,
            Self::Free => Kind::Free,
            Self::Opening { .. } => Kind::Opening,
            Self::Leased(_) => Kind::Leased,
            Self::Resetting { .. } => Kind::Resetting,
            Self::Quarantined => Kind::Quarantined,
        }
    }
}

impl Slot {
    fn unseen(container: u32) -> Self {
        Self { epoch: 0, state: State::Unseen, due: Millis::END, container, next_free: 0, shuts: 0 }
    }
}

impl Run {
    pub(super) fn places(self) -> impl Iterator<Item = At> {
        (self.first..self.first + u32::from(self.count)).map(At)
    }

    pub(super) fn get(self, slot: u16) -> Option<At> {
        (slot < self.count).then(|| At(self.first + u32::from(slot)))
    }

    fn range(self) -> Range<usize> {
        let first = self.first as usize;
        first..first + usize::from(self.count)
    }
}

impl Slots {
    /// A run of slots that nobody has seen, for the container at this place.
    pub(super) fn take(&mut self, container: u32, count: u16) -> Run {
        let vacant = self.vacant.get_mut(&count).and_then(Vec::pop);
        let first = vacant.unwrap_or_else(|| {
            let first = u32::try_from(self.all.len()).unwrap_or(u32::MAX);
            self.all.extend((0..count).map(|_| Slot::unseen(container)));
            first
        });
        let run = Run { first, count };
        self.run_mut(run).fill_with(|| Slot::unseen(container));
        run
    }

    pub(super) fn vacate(&mut self, run: Run) {
        self.run_mut(run).fill_with(|| Slot::unseen(u32::MAX));
        self.vacant.entry(run.count).or_default().push(run.first);
    }

    pub(super) fn run(&self, run: Run) -> &[Slot] {
        &self.all[run.range()]
    }

    pub(super) fn run_mut(&mut self, run: Run) -> &mut [Slot] {
        &mut self.all[run.range()]
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }
}

impl Index<At> for Slots {
    type Output = Slot;

    fn index(&self, at: At) -> &Slot {
        &self.all[at.0 as usize]
    }
}

impl IndexMut<At> for Slots {
    fn index_mut(&mut self, at: At) -> &mut Slot {
        &mut self.all[at.0 as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vacated_run_goes_to_the_next_container_of_its_size() {
        let mut slots = Slots::default();
        let (four, two) = (slots.take(0, 4), slots.take(1, 2));
        slots[At(1)].state = State::Free;
        slots.vacate(four);
        assert_eq!(slots.take(2, 2), Run { first: 6, count: 2 });
        assert_eq!(slots.take(3, 4), four);
        assert_eq!((slots[At(1)].state.kind(), slots[At(1)].container), (Kind::Unseen, 3));
        assert_eq!((slots.run(two)[1].container, slots.len()), (1, 8));
    }

    #[test]
    fn a_slot_is_one_line_of_the_cache() {
        assert_eq!(size_of::<Slot>(), 64);
    }
}
