//! A container, and what its slots add up to.
//!
//! Invariants: `tally` counts the slots by their state; the free list holds exactly the slots
//! that are `Free`, the one that was freed first at its head.

use super::{
    slots::{Kind, Run, Slot, Slots, State},
    types::{At, ContainerKey, Millis, Spot},
};
use slotmux_protocol::{ContainerId, SlotIndex};
use std::sync::Arc;

const NIL: u16 = u16::MAX;

/// What every event of a slot looks at comes first, to lie in one line of the processor's cache.
#[derive(Debug)]
#[repr(C, align(64))]
pub(super) struct Container {
    pub(super) id: ContainerId,
    pub(super) key: ContainerKey,
    pub(super) tally: Tally,
    /// Where its run of slots begins.
    first_slot: u32,
    free_head: u16,
    free_tail: u16,
    pub(super) profile: u16,
    pub(super) phase: Phase,
    is_linked: bool,
    /// Whether it is in its profile's sets of containers with free slots, and of idle ones.
    pub(super) listed: Listed,
    /// A check for resets that hang is under way.
    pub(super) resets_watched: bool,
    link: LinkState,
    /// Of the sandbox-server that the leases were opened on.
    pub(super) boot: Option<Arc<str>>,
    /// When its link was up for the first time.
    pub(super) ready_at: Millis,
    /// Why it was given up, while its end is awaited.
    pub(super) lost: Option<Arc<str>>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Listed {
    pub(super) free: bool,
    pub(super) idle: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Launched; its link was never up.
    Starting,
    Ready,
    /// Its leases go on, it gets no new ones.
    Draining,
    /// No lease is on it. It is forgotten when it is gone.
    Stopping,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum LinkState {
    /// Not yet in this process.
    Never,
    Up,
    Down {
        since: Millis,
        why: Arc<str>,
    },
}

/// Which of its profile's tallies its slots are in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Group {
    Active,
    Unlinked,
    Draining,
}

/// Slots by state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Tally([u32; 6]);

impl Tally {
    fn unseen(slots: u16) -> Self {
        let mut tally = Self::default();
        tally.0[Kind::Unseen as usize] = u32::from(slots);
        tally
    }

    pub(super) fn of(&self, kind: Kind) -> u32 {
        self.0[kind as usize]
    }

    pub(super) fn busy(&self) -> u32 {
        self.of(Kind::Opening) + self.of(Kind::Leased)
    }

    pub(super) fn total(&self) -> u32 {
        self.0.iter().sum()
    }

    pub(super) fn shift(&mut self, from: Kind, to: Kind) {
        self.0[from as usize] -= 1;
        self.0[to as usize] += 1;
    }

    #[cfg(test)]
    pub(super) fn add(&mut self, kind: Kind) {
        self.0[kind as usize] += 1;
    }

    pub(super) fn merge(&mut self, other: &Self) {
        for (mine, its) in self.0.iter_mut().zip(other.0) {
            *mine += its;
        }
    }

    pub(super) fn split(&mut self, other: &Self) {
        for (mine, its) in self.0.iter_mut().zip(other.0) {
            *mine -= its;
        }
    }
}

impl Container {
    /// None of its slots has been seen yet.
    pub(super) fn new(key: ContainerKey, id: ContainerId, profile: u16, slots: Run) -> Self {
        Self {
            id,
            key,
            tally: Tally::unseen(slots.count),
            first_slot: slots.first,
            free_head: NIL,
            free_tail: NIL,
            profile,
            phase: Phase::Starting,
            is_linked: false,
            listed: Listed::default(),
            resets_watched: false,
            link: LinkState::Never,
            boot: None,
            ready_at: Millis::default(),
            lost: None,
        }
    }

    pub(super) fn slots(&self) -> Run {
        let count = u16::try_from(self.tally.total()).unwrap_or(u16::MAX);
        Run { first: self.first_slot, count }
    }

    pub(super) fn spot(&self, at: At) -> Spot {
        Spot { container: self.key, slot: self.number(at) }
    }

    pub(super) fn number(&self, at: At) -> SlotIndex {
        SlotIndex(u16::try_from(at.0 - self.first_slot).unwrap_or(u16::MAX))
    }

    pub(super) fn is_linked(&self) -> bool {
        self.is_linked
    }

    pub(super) fn link(&self) -> &LinkState {
        &self.link
    }

    pub(super) fn set_link(&mut self, link: LinkState) {
        self.is_linked = matches!(link, LinkState::Up);
        self.link = link;
    }

    pub(super) fn group(&self) -> Option<Group> {
        match self.phase {
            Phase::Starting | Phase::Stopping => None,
            Phase::Ready if self.is_linked() => Some(Group::Active),
            Phase::Ready => Some(Group::Unlinked),
            Phase::Draining => Some(Group::Draining),
        }
    }

    /// How its profile should list it now.
    pub(super) fn listing(&self) -> Listed {
        let idle = self.is_unused() && self.tally.of(Kind::Resetting) == 0;
        Listed {
            free: self.phase == Phase::Ready && self.is_linked() && self.tally.of(Kind::Free) > 0,
            idle: self.phase == Phase::Ready && idle,
        }
    }

    /// No lease is on it, and none can turn up in a report.
    pub(super) fn is_unused(&self) -> bool {
        self.tally.busy() == 0 && self.tally.of(Kind::Unseen) == 0
    }

    /// At least half of it is of no use any more.
    pub(super) fn is_worn(&self) -> bool {
        2 * self.tally.of(Kind::Quarantined) >= self.tally.total()
    }

    pub(super) fn first_free(&self) -> Option<At> {
        (self.free_head != NIL).then(|| At(self.first_slot + u32::from(self.free_head)))
    }

    /// The new state of one of its slots; the former one comes back. Keeps the free list and the
    /// tally.
    pub(super) fn put(&mut self, slots: &mut Slots, at: At, state: State) -> State {
        let to = state.kind();
        let former = std::mem::replace(&mut slots[at].state, state);
        let from = former.kind();
        self.tally.shift(from, to);
        let number = self.number(at).0;
        match (from, to) {
            (Kind::Free, Kind::Free) => {}
            (Kind::Free, _) => self.unlist(slots.run_mut(self.slots()), number),
            (_, Kind::Free) => self.list(slots.run_mut(self.slots()), number),
            _ => {}
        }
        former
    }

    fn list(&mut self, slots: &mut [Slot], slot: u16) {
        slots[usize::from(slot)].next_free = NIL;
        match self.free_tail {
            NIL => self.free_head = slot,
            tail => slots[usize::from(tail)].next_free = slot,
        }
        self.free_tail = slot;
    }

    /// Grants take the head; only a slot that broke while free is looked for.
    fn unlist(&mut self, slots: &mut [Slot], slot: u16) {
        let next = slots[usize::from(slot)].next_free;
        let (mut before, mut here) = (NIL, self.free_head);
        while here != slot {
            (before, here) = (here, slots[usize::from(here)].next_free);
        }
        match before {
            NIL => self.free_head = next,
            before => slots[usize::from(before)].next_free = next,
        }
        if next == NIL {
            self.free_tail = before;
        }
    }

    #[cfg(test)]
    pub(super) fn free_list(&self, slots: &Slots) -> Vec<At> {
        let place = |number: u16| self.slots().get(number);
        let next = |at: &At| place(slots[*at].next_free);
        std::iter::successors(place(self.free_head), next).collect()
    }
}
