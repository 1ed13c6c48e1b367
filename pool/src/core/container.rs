//! A container and its slots.
//!
//! Invariants: `tally` counts the slots by their state; the free list holds exactly the slots
//! that are `Free`, the one that was freed first at its head.

use super::types::{ContainerKey, Millis};
use slotmux_protocol::{ContainerId, TrajectoryId};
use std::sync::Arc;

const NIL: u16 = u16::MAX;

/// What every event of a slot looks at comes first, to lie in one line of the processor's cache.
#[derive(Debug)]
#[repr(C, align(64))]
pub(super) struct Container {
    pub(super) slots: Box<[Slot]>,
    pub(super) tally: Tally,
    pub(super) key: ContainerKey,
    free_head: u16,
    free_tail: u16,
    pub(super) profile: u16,
    pub(super) phase: Phase,
    is_linked: bool,
    /// Whether it is in its profile's sets of containers with free slots, and of idle ones.
    pub(super) listed: Listed,
    /// A check for resets that hang is under way.
    pub(super) resets_watched: bool,
    pub(super) id: ContainerId,
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

/// One line of the processor's cache.
#[derive(Debug)]
#[repr(align(64))]
pub(super) struct Slot {
    /// Of the lease on it, or of the last one that was.
    pub(super) epoch: u64,
    pub(super) state: State,
    next_free: u16,
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
    /// When its entry in the heap comes up, at the latest when it expires.
    pub(super) due: Millis,
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

/// Slots by state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Tally([u32; 6]);

impl Tally {
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
    pub(super) fn new(key: ContainerKey, id: ContainerId, profile: u16, slots: u16) -> Self {
        let slot = || Slot { epoch: 0, state: State::Unseen, next_free: NIL, shuts: 0 };
        let slots: Box<[Slot]> = (0..slots).map(|_| slot()).collect();
        let mut tally = Tally::default();
        for slot in &slots {
            tally.add(slot.state.kind());
        }
        Self {
            key,
            id,
            profile,
            phase: Phase::Starting,
            link: LinkState::Never,
            is_linked: false,
            boot: None,
            slots,
            tally,
            free_head: NIL,
            free_tail: NIL,
            listed: Listed::default(),
            ready_at: Millis::default(),
            lost: None,
            resets_watched: false,
        }
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

    pub(super) fn slot_numbers(&self) -> std::ops::Range<u16> {
        0..u16::try_from(self.slots.len()).unwrap_or(u16::MAX)
    }

    pub(super) fn first_free(&self) -> Option<u16> {
        (self.free_head != NIL).then_some(self.free_head)
    }

    /// The slot's new state; the former one comes back. Keeps the free list and the tally.
    pub(super) fn put(&mut self, slot: u16, state: State) -> State {
        let to = state.kind();
        let was = std::mem::replace(&mut self.slots[slot as usize].state, state);
        let from = was.kind();
        self.tally.shift(from, to);
        match (from, to) {
            (Kind::Free, Kind::Free) => {}
            (Kind::Free, _) => self.unlist(slot),
            (_, Kind::Free) => self.list(slot),
            _ => {}
        }
        was
    }

    fn list(&mut self, slot: u16) {
        self.slots[slot as usize].next_free = NIL;
        match self.free_tail {
            NIL => self.free_head = slot,
            tail => self.slots[tail as usize].next_free = slot,
        }
        self.free_tail = slot;
    }

    /// Grants take the head; only a slot that broke while free is looked for.
    fn unlist(&mut self, slot: u16) {
        let next = self.slots[slot as usize].next_free;
        let (mut before, mut here) = (NIL, self.free_head);
        while here != slot {
            (before, here) = (here, self.slots[here as usize].next_free);
        }
        match before {
            NIL => self.free_head = next,
            before => self.slots[before as usize].next_free = next,
        }
        if next == NIL {
            self.free_tail = before;
        }
    }

    #[cfg(test)]
    pub(super) fn free_list(&self) -> Vec<u16> {
        let next = |slot: &u16| Some(self.slots[usize::from(*slot)].next_free);
        let is_slot = |slot: &u16| *slot != NIL;
        let head = Some(self.free_head).filter(is_slot);
        std::iter::successors(head, |slot| next(slot).filter(is_slot)).collect()
    }
}
