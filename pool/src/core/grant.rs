//! From a free slot to a lease: open it, wait for its server's word, grant.

use super::{
    Core, Effect, LeaseRecord, Record, Refusal, Turn, WaiterId,
    acquire::{Stage, Waiter},
    container::{Lease, State},
    epochs::Epochs,
    types::{At, LeaseEnd, ProfileKey},
};
use slotmux_protocol::{Epoch, LeaseId, SlotIndex};

impl Core {
    /// Gives free slots to those at the head of the queue.
    pub(super) fn serve_queue(&mut self, turn: &mut Turn<'_>, profile: u16) {
        loop {
            let queue = &self.profiles[usize::from(profile)];
            let Some((_, &head)) = queue.queue.first_key_value() else { return };
            let Some(mut waiter) = self.waiters.remove(&head) else { return };
            if waiter.count > queue.free() {
                self.waiters.insert(head, waiter);
                return;
            }
            self.dequeue(&waiter);
            self.lend(turn, head, &mut waiter);
            self.waiters.insert(head, waiter);
        }
    }

    /// There are enough free slots: the caller counted.
    fn lend(&mut self, turn: &mut Turn<'_>, id: u64, waiter: &mut Waiter) {
        let first = self.epochs.next;
        for _ in 0..waiter.count {
            let Some(at) = self.first_free(waiter.profile) else { break };
            let epoch = self.epochs.draw();
            self.put(at, State::Opening { waiter: id, opened: false });
            let Some(container) = self.containers.at_mut(at.container) else { break };
            container.slots[usize::from(at.slot)].epoch = epoch;
            let lease = LeaseId(Epoch(epoch));
            turn.push(Effect::Journal(Record::LeaseOpened(LeaseRecord {
                lease,
                trajectory: waiter.trajectory.clone(),
                container: container.id.clone(),
                slot: SlotIndex(at.slot),
                ttl_ms: waiter.ttl_ms,
            })));
            self.leases.insert(epoch, at);
            self.open(turn, at, waiter);
        }
        let epochs = Epochs::range(first, waiter.count);
        waiter.stage = Stage::Opening { epochs, left: waiter.count };
    }

    fn open(&self, turn: &mut Turn<'_>, at: At, waiter: &Waiter) {
        let Some(container) = self.containers.at(at.container) else { return };
        turn.push(Effect::Open {
            at: self.spot(at),
            lease: LeaseId(Epoch(container.slots[usize::from(at.slot)].epoch)),
            trajectory: waiter.trajectory.clone(),
            profile: ProfileKey(waiter.profile),
            ttl_ms: waiter.ttl_ms,
        });
    }

    fn first_free(&self, profile: u16) -> Option<At> {
        let container = self.profiles[usize::from(profile)].with_free.first()?;
        let slot = self.containers.at(container)?.first_free()?;
        Some(At { container, slot })
    }

    /// The server has opened a slot for a waiter.
    pub(super) fn confirm(&mut self, turn: &mut Turn<'_>, at: At) {
        let Some(slot) = self.slot_mut(at) else { return };
        let State::Opening { waiter, opened } = &mut slot.state else { return };
        if std::mem::replace(opened, true) {
            return;
        }
        slot.shuts = 0;
        let id = *waiter;
        let Some(waiter) = self.waiters.get_mut(&id) else { return };
        let Stage::Opening { left, .. } = &mut waiter.stage else { return };
        *left -= 1;
        if *left == 0 {
            self.grant(turn, id);
        }
    }

    fn grant(&mut self, turn: &mut Turn<'_>, id: u64) {
        let Some(waiter) = self.waiters.remove(&id) else { return };
        let Stage::Opening { epochs, .. } = waiter.stage else { return };
        let expires = turn.now.plus(waiter.ttl_ms);
        for epoch in epochs.as_slice() {
            let Some(at) = self.leases.get(epoch) else { continue };
            let trajectory = waiter.trajectory.clone();
            let lease = Lease { trajectory, ttl_ms: waiter.ttl_ms, expires, due: expires };
            self.put(*at, State::Leased(lease));
            self.expiries.push(expires, *epoch);
        }
        self.profiles[usize::from(waiter.profile)].totals.acquired += u64::from(waiter.count);
        let leases = epochs.leases();
        if let Some(entry) = self.trajectories.get_mut(&waiter.trajectory) {
            entry.waiter = None;
            entry.profile = waiter.profile;
            if entry.held.is_empty() {
                entry.held = epochs;
            } else {
                epochs.as_slice().iter().for_each(|epoch| entry.held.push(*epoch));
            }
        }
        turn.push(Effect::Grant { waiter: WaiterId(id), leases });
    }

    /// Takes back a slot that was lent to a waiter and never granted.
    pub(super) fn unlend(&mut self, turn: &mut Turn<'_>, epoch: u64, how: LeaseEnd) {
        let Some(at) = self.leases.get(&epoch) else { return };
        let at = *at;
        self.bury(epoch, how);
        turn.push(Effect::Journal(Record::LeaseEnded { lease: LeaseId(Epoch(epoch)) }));
        self.reset(turn, at);
    }

    /// A promise that may not outlive a crash is not made.
    pub(super) fn not_journalled(&mut self, turn: &mut Turn<'_>, lease: LeaseId) {
        let Some(at) = self.leases.get(&lease.0.0) else { return };
        let at = *at;
        match self.slot(at).map(|slot| &slot.state) {
            Some(State::Opening { waiter, .. }) => {
                self.refuse(turn, *waiter, Refusal::NotJournalled);
            }
            Some(State::Leased(_)) => {
                self.end(turn, at, LeaseEnd::Revoked("the journal cannot be written".into()));
            }
            _ => {}
        }
    }
}
