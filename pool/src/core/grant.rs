//! From a free slot to a lease: open it, wait for its server's word, grant.

use super::{
    Core, Effect, LeaseRecord, Record, Refusal, Turn, WaiterId,
    acquire::{Stage, Waiter},
    epochs::Epochs,
    hash::epoch_hash,
    slots::{Lease, State},
    types::{At, LeaseEnd, ProfileKey},
};
use slotmux_protocol::{Epoch, LeaseId};

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
        let epochs = Epochs { first: self.epochs.next, count: waiter.count };
        for _ in 0..waiter.count {
            let Some(at) = self.first_free(waiter.profile) else { break };
            let epoch = self.epochs.draw();
            self.put(at, State::Opening { waiter: id, opened: false });
            let slot = &mut self.slots[at];
            slot.epoch = epoch;
            let Some(container) = self.containers.at(slot.container) else { break };
            let lease = LeaseId(Epoch(epoch));
            let place = container.spot(at);
            turn.push(Effect::Journal(Record::LeaseOpened(LeaseRecord {
                lease,
                trajectory: waiter.trajectory.clone(),
                container: container.id.clone(),
                slot: place.slot,
                ttl_ms: waiter.ttl_ms,
            })));
            turn.push(Effect::Open {
                at: place,
                lease,
                trajectory: waiter.trajectory.clone(),
                profile: ProfileKey(waiter.profile),
                ttl_ms: waiter.ttl_ms,
            });
            self.leases.insert(epoch_hash(epoch), at);
        }
        waiter.stage = Stage::Opening { epochs, left: waiter.count };
    }

    fn first_free(&self, profile: u16) -> Option<At> {
        let container = self.profiles[usize::from(profile)].with_free.first()?;
        self.containers.at(container)?.first_free()
    }

    /// The server has opened a slot for a waiter.
    pub(super) fn confirm(&mut self, turn: &mut Turn<'_>, at: At) {
        let slot = &mut self.slots[at];
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
        let hash = self.hash(&waiter.trajectory);
        for epoch in epochs.iter() {
            let Some(at) = self.lease_at(epoch) else { continue };
            self.held.insert(hash, at);
            let trajectory = waiter.trajectory.clone();
            self.put(at, State::Leased(Lease { trajectory, ttl_ms: waiter.ttl_ms, expires }));
            self.expect_expiry(at, expires);
        }
        self.profiles[usize::from(waiter.profile)].totals.acquired += u64::from(waiter.count);
        let leases = epochs.leases();
        self.waiting.remove(&waiter.trajectory);
        turn.push(Effect::Grant { waiter: WaiterId(id), leases });
    }

    /// Takes back a slot that was lent to a waiter and never granted.
    pub(super) fn unlend(&mut self, turn: &mut Turn<'_>, epoch: u64, how: LeaseEnd) {
        let Some(at) = self.lease_at(epoch) else { return };
        self.bury(at, how);
        turn.push(Effect::Journal(Record::LeaseEnded { lease: LeaseId(Epoch(epoch)) }));
        self.reset(turn, at);
    }

    /// A promise that may not outlive a crash is not made.
    pub(super) fn not_journalled(&mut self, turn: &mut Turn<'_>, lease: LeaseId) {
        let Some(at) = self.lease_at(lease.0.0) else { return };
        match self.slots[at].state {
            State::Opening { waiter, .. } => self.refuse(turn, waiter, Refusal::NotJournalled),
            State::Leased(_) => {
                self.end(turn, at, LeaseEnd::Revoked("the journal cannot be written".into()));
            }
            State::Unseen | State::Free | State::Resetting { .. } | State::Quarantined => {}
        }
    }
}
