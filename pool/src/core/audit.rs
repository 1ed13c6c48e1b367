//! Counts everything anew and compares: the invariants of the core, for its tests.

use super::{
    Core,
    acquire::Stage,
    container::{Container, Group, Kind, Phase, State, Tally},
    types::{At, Millis},
};
use std::collections::{BTreeSet, HashMap};

impl Core {
    /// Panics when something does not add up.
    pub(crate) fn audit(&self, now: Millis) {
        self.audit_profiles();
        self.audit_slots(now);
        self.audit_waiters();
        self.audit_trajectories();
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
                audit_container(container);
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
        let mut live = 0;
        for container in self.containers.iter() {
            for (number, slot) in (0u16..).zip(&container.slots) {
                let at = At { container: container.key.index, slot: number };
                match &slot.state {
                    State::Leased(lease) => {
                        live += 1;
                        assert!(self.is_live_at(slot.epoch, at));
                        assert!(
                            lease.due <= lease.expires.max(now).plus(1_000),
                            "expires too late"
                        );
                        let held = &self.trajectories[&lease.trajectory].held;
                        assert!(held.as_slice().contains(&slot.epoch));
                    }
                    State::Opening { waiter, .. } => {
                        live += 1;
                        assert!(self.is_live_at(slot.epoch, at));
                        let Stage::Opening { epochs, .. } = &self.waiters[waiter].stage else {
                            panic!("a slot opens for a waiter that is queued");
                        };
                        assert!(epochs.as_slice().contains(&slot.epoch));
                        assert!(container.is_linked());
                    }
                    State::Unseen => assert!(!container.is_linked()),
                    State::Free | State::Resetting { .. } | State::Quarantined => {}
                }
                assert!(slot.epoch < self.epochs.next);
            }
        }
        assert_eq!(self.leases.len(), live);
    }

    fn is_live_at(&self, epoch: u64, at: At) -> bool {
        self.leases.get(&epoch) == Some(&at)
    }

    fn audit_waiters(&self) {
        let mut queued: HashMap<u16, (usize, u64)> = HashMap::new();
        for (id, waiter) in &self.waiters {
            assert_eq!(self.trajectories[&waiter.trajectory].waiter, Some(*id));
            match &waiter.stage {
                Stage::Queued => {
                    let profile = &self.profiles[usize::from(waiter.profile)];
                    assert_eq!(profile.queue.get(&waiter.place), Some(id));
                    let sum = queued.entry(waiter.profile).or_default();
                    *sum = (sum.0 + 1, sum.1 + u64::from(waiter.count));
                }
                Stage::Opening { epochs, left } => {
                    assert_eq!(epochs.len(), waiter.count as usize);
                    let closed = epochs.as_slice().iter().filter(|epoch| !self.is_opened(**epoch));
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
        let Some(at) = self.leases.get(&epoch) else { return false };
        matches!(self.slot(*at).map(|slot| &slot.state), Some(State::Opening { opened: true, .. }))
    }

    fn audit_trajectories(&self) {
        for has in self.trajectories.values() {
            assert!(!has.held.is_empty() || has.waiter.is_some());
            for epoch in has.held.as_slice() {
                let Some(at) = self.leases.get(epoch) else {
                    panic!("an ended lease is held");
                };
                assert!(matches!(self.slot(*at).map(|it| &it.state), Some(State::Leased(_))));
            }
        }
    }
}

fn audit_container(container: &Container) {
    let mut tally = Tally::default();
    for slot in &container.slots {
        tally.add(slot.state.kind());
    }
    assert_eq!(container.tally, tally);
    assert!(container.phase != Phase::Stopping || tally.busy() == 0, "a lease on a corpse");
    assert_eq!(container.free_list().len(), tally.of(Kind::Free) as usize);
    for slot in container.free_list() {
        assert_eq!(container.slots[usize::from(slot)].state, State::Free);
    }
}
