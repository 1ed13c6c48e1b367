//! Counts everything anew and compares: the invariants of the core, for its tests.

use super::{
    Core,
    acquire::Stage,
    container::{Container, Group, Phase, Tally},
    slots::{Kind, Slots, State},
    types::{At, Millis},
};
use std::collections::{BTreeSet, HashMap};

impl Core {
    /// Panics when something does not add up.
    pub(crate) fn audit(&self, now: Millis) {
        self.audit_profiles();
        self.audit_slots(now);
        self.audit_waiters();
        for container in self.containers.iter() {
            assert_eq!(self.by_id.get(&container.id), Some(&container.key));
        }
        assert_eq!(self.by_id.len(), self.containers.len());
    }

    fn audit_profiles(&self) {
        for (number, profile) in (0u16..).zip(&self.profiles) {
            let (mut tallies, mut counts) = ([Tally::default(); 3], [0; 4]);
            let (mut free, mut idle) = (BTreeSet::new(), BTreeSet::new());
            for container in self.containers.iter().filter(|it| it.profile == number) {
                audit_container(container, &self.slots);
                counts[container.phase as usize] += 1;
                if let Some(group) = container.group() {
                    tallies[group as usize].merge(&container.tally);
                }
                let listing = container.listing();
                assert_eq!(container.listed, listing);
                if listing.free {
                    free.insert(container.key.index);
                }
                if listing.idle {
                    idle.insert(container.key.index);
                }
            }
            assert_eq!((profile.tallies, profile.counts), (tallies, counts));
            assert_eq!(profile.with_free.first(), free.first().copied());
            assert_eq!(profile.idle.last(), idle.last().copied());
            let free = tallies[Group::Active as usize].of(Kind::Free);
            if let Some(head) = profile.queue.values().next() {
                assert!(self.waiters[head].count > free, "the head waits beside free slots");
            }
            assert!(profile.serving() <= profile.settings.containers_max);
        }
    }

    fn audit_slots(&self, now: Millis) {
        let (mut live, mut granted) = (0, 0);
        for container in self.containers.iter() {
            for at in container.slots().places() {
                let slot = &self.slots[at];
                assert_eq!(slot.container, container.key.index);
                match &slot.state {
                    State::Leased(lease) => {
                        live += 1;
                        assert!(self.is_live_at(slot.epoch, at));
                        assert!(slot.due <= lease.expires.max(now).plus(1_000), "expires too late");
                        assert!(self.held_at(&lease.trajectory).any(|held| held == at));
                        granted += 1;
                    }
                    State::Opening { waiter, .. } => {
                        live += 1;
                        assert!(self.is_live_at(slot.epoch, at));
                        let Stage::Opening { epochs, .. } = &self.waiters[waiter].stage else {
                            panic!("a slot opens for a waiter that is queued");
                        };
                        assert!(epochs.iter().any(|epoch| epoch == slot.epoch));
                        assert!(container.is_linked());
                    }
                    State::Unseen => assert!(!container.is_linked()),
                    State::Free | State::Resetting { .. } | State::Quarantined => {}
                }
                assert!(slot.epoch < self.epochs.next);
            }
        }
        assert_eq!((self.leases.len(), self.held.len()), (live, granted));
    }

    fn is_live_at(&self, epoch: u64, at: At) -> bool {
        self.lease_at(epoch) == Some(at)
    }

    fn audit_waiters(&self) {
        assert_eq!(self.waiting.len(), self.waiters.len());
        let mut queued: HashMap<u16, (usize, u64)> = HashMap::new();
        for (id, waiter) in &self.waiters {
            assert_eq!(self.waiting[&waiter.trajectory], *id);
            match &waiter.stage {
                Stage::Queued => {
                    let profile = &self.profiles[usize::from(waiter.profile)];
                    assert_eq!(profile.queue.get(&waiter.place), Some(id));
                    let sum = queued.entry(waiter.profile).or_default();
                    *sum = (sum.0 + 1, sum.1 + u64::from(waiter.count));
                }
                Stage::Opening { epochs, left } => {
                    assert_eq!(epochs.count, waiter.count);
                    let closed = epochs.iter().filter(|epoch| !self.is_opened(*epoch));
                    assert_eq!(closed.count(), *left as usize);
                }
            }
        }
        for (number, profile) in (0u16..).zip(&self.profiles) {
            let sum = queued.get(&number).copied().unwrap_or_default();
            assert_eq!((profile.queue.len(), profile.queued_slots), sum);
        }
    }

    fn is_opened(&self, epoch: u64) -> bool {
        let Some(at) = self.lease_at(epoch) else { return false };
        matches!(self.slots[at].state, State::Opening { opened: true, .. })
    }
}

fn audit_container(container: &Container, slots: &Slots) {
    let mut tally = Tally::default();
    for slot in slots.run(container.slots()) {
        tally.add(slot.state.kind());
    }
    assert_eq!(container.tally, tally);
    assert!(container.phase != Phase::Stopping || tally.busy() == 0, "a lease on a corpse");
    let free = container.free_list(slots);
    assert_eq!(free.len(), tally.of(Kind::Free) as usize);
    assert!(free.iter().all(|at| slots[*at].state == State::Free));
}
