//! Leases that were granted: renewal, and their three ways to end.

use super::{
    Core, Effect, NoLease, Record, Turn,
    container::{LinkState, Phase},
    hash::{epoch_hash, low_half},
    slots::{Lease, Slot, State},
    types::{At, ContainerKey, LeaseEnd, Millis, ProfileKey, Spot},
};
use slotmux_protocol::{ContainerId, Epoch, LeaseId, TrajectoryId};
use std::hash::BuildHasher;

/// An unanswered question about a lease's activity is asked again after this long.
const ASK_AGAIN_MS: u64 = 1_000;

/// A lease as others may see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseView {
    pub trajectory: TrajectoryId,
    pub profile: ProfileKey,
    pub container: ContainerId,
    pub at: Spot,
    pub ttl_ms: u64,
    pub expires: Millis,
}

impl Core {
    pub fn lease(&self, lease: LeaseId) -> Result<LeaseView, NoLease> {
        let at = self.find(lease)?;
        let container = self.container_of(at).ok_or(NoLease::Unknown)?;
        let State::Leased(lease) = &self.slots[at].state else { return Err(NoLease::Unknown) };
        Ok(LeaseView {
            trajectory: lease.trajectory.clone(),
            profile: ProfileKey(container.profile),
            container: container.id.clone(),
            at: container.spot(at),
            ttl_ms: lease.ttl_ms,
            expires: lease.expires,
        })
    }

    pub fn held(&self, trajectory: &TrajectoryId) -> Vec<LeaseId> {
        let mut epochs: Vec<_> =
            self.held_at(trajectory).map(|at| Epoch(self.slots[at].epoch)).collect();
        epochs.sort_unstable();
        epochs.into_iter().map(LeaseId).collect()
    }

    /// Where the trajectory's granted leases are.
    pub(super) fn held_at(&self, trajectory: &TrajectoryId) -> impl Iterator<Item = At> {
        self.held.find(self.hash(trajectory)).filter(move |at| match &self.slots[*at].state {
            State::Leased(lease) => lease.trajectory == *trajectory,
            _ => false,
        })
    }

    /// Whether the trajectory has leases of another profile.
    pub(super) fn holds_elsewhere(&self, trajectory: &TrajectoryId, profile: u16) -> bool {
        let other = |at| self.container_of(at).is_some_and(|it| it.profile != profile);
        self.held_at(trajectory).any(other)
    }

    pub(super) fn hash(&self, trajectory: &TrajectoryId) -> u32 {
        low_half(self.trajectory_hash.hash_one(trajectory))
    }

    /// Where a lease is, granted or not.
    pub(super) fn lease_at(&self, epoch: u64) -> Option<At> {
        self.leases.find(epoch_hash(epoch)).find(|at| self.slots[*at].epoch == epoch)
    }

    /// The leases on a container.
    pub fn leases_of(&self, container: ContainerKey) -> Vec<LeaseId> {
        let Some(container) = self.containers.get(container) else { return Vec::new() };
        let slots = self.slots.run(container.slots()).iter();
        let leased = slots.filter(|slot| matches!(slot.state, State::Leased(_)));
        leased.map(|slot| LeaseId(Epoch(slot.epoch))).collect()
    }

    /// The place of a granted lease. One that is being opened is nobody's business yet.
    fn find(&self, lease: LeaseId) -> Result<At, NoLease> {
        let epoch = lease.0.0;
        let Some(at) = self.lease_at(epoch) else {
            let how = self.ended.get(epoch).ok_or_else(|| self.not_known(epoch))?;
            return Err(NoLease::Ended(how));
        };
        match self.slots[at].state {
            State::Leased(_) => Ok(at),
            _ => Err(NoLease::Unknown),
        }
    }

    /// What the journal knew up to its last epoch is complete; later ones it may have lost.
    fn not_known(&self, epoch: u64) -> NoLease {
        let unheard = |key: &ContainerKey| {
            self.containers
                .get(*key)
                .is_some_and(|it| *it.link() == LinkState::Never && it.phase != Phase::Stopping)
        };
        if epoch > self.epochs.journalled && self.unheard.iter().any(unheard) {
            NoLease::Unheard
        } else {
            NoLease::Unknown
        }
    }

    pub(super) fn release(&mut self, turn: &mut Turn<'_>, lease: LeaseId) -> Result<(), NoLease> {
        let at = self.find(lease)?;
        self.end_and_settle(turn, at, LeaseEnd::Released);
        Ok(())
    }

    pub(super) fn renew(
        &mut self,
        turn: &mut Turn<'_>,
        lease: LeaseId,
        ttl_ms: Option<u64>,
    ) -> Result<(), NoLease> {
        let at = self.find(lease)?;
        let State::Leased(held) = &mut self.slots[at].state else { return Err(NoLease::Unknown) };
        held.ttl_ms = ttl_ms.unwrap_or(held.ttl_ms);
        held.expires = turn.now.plus(held.ttl_ms);
        let expires = held.expires;
        self.expect_expiry(at, expires);
        Ok(())
    }

    /// An entry of the slot in the heap that comes up earlier will do: what comes up looks again.
    pub(super) fn expect_expiry(&mut self, at: At, expires: Millis) {
        let slot = &mut self.slots[at];
        if expires < slot.due {
            slot.due = expires;
            self.expiries.push(expires, at);
        }
    }

    /// The entry of a slot in the heap has come up. It may be early, as renewals and later leases
    /// do not move it; and only the one for `due` counts.
    pub(super) fn maybe_expired(&mut self, turn: &mut Turn<'_>, when: Millis, at: At) {
        let slot = &mut self.slots[at];
        if slot.due != when {
            return;
        }
        slot.due = Millis::END;
        let State::Leased(lease) = &slot.state else { return };
        let mut look_again = lease.expires;
        if lease.expires <= turn.now {
            look_again = turn.now.plus(ASK_AGAIN_MS);
            turn.push(Effect::AskActivity { lease: LeaseId(Epoch(slot.epoch)) });
        }
        self.expect_expiry(at, look_again);
    }

    pub(super) fn activity(&mut self, turn: &mut Turn<'_>, lease: LeaseId, last: Millis) {
        let Ok(at) = self.find(lease) else { return };
        let State::Leased(held) = &mut self.slots[at].state else { return };
        held.expires = held.expires.max(last.plus(held.ttl_ms));
        if held.expires <= turn.now {
            self.end_and_settle(turn, at, LeaseEnd::Expired);
        }
    }

    fn end_and_settle(&mut self, turn: &mut Turn<'_>, at: At, how: LeaseEnd) {
        let Some(profile) = self.container_of(at).map(|it| it.profile) else { return };
        self.end(turn, at, how);
        self.settle(turn, profile);
    }

    /// Ends a granted lease; its slot is reset.
    pub(super) fn end(&mut self, turn: &mut Turn<'_>, at: At, how: LeaseEnd) {
        // What is far from each other in memory is fetched side by side as long as no count of
        // references changes, which the processor waits for. So these come last.
        let State::Leased(lease) = &self.slots[at].state else { return };
        self.held.remove(self.hash(&lease.trajectory), at);
        self.bury(at, how.clone());
        let former = self.put(at, State::Resetting { since: turn.now });
        let State::Leased(Lease { trajectory, .. }) = former else { return };
        let Slot { epoch, container, .. } = self.slots[at];
        let Some(container) = self.containers.at(container) else { return };
        let totals = &mut self.profiles[usize::from(container.profile)].totals;
        match how {
            LeaseEnd::Released => totals.released += 1,
            LeaseEnd::Expired => totals.expired += 1,
            LeaseEnd::Revoked(_) => totals.revoked += 1,
        }
        let lease = LeaseId(Epoch(epoch));
        turn.push(Effect::Journal(Record::LeaseEnded { lease }));
        let (container, slot) = (container.id.clone(), container.number(at));
        turn.push(Effect::LeaseEnded { lease, trajectory, container, slot, how });
        self.order_reset(turn, at);
    }

    /// Forgets where a lease is, and remembers how it ended.
    pub(super) fn bury(&mut self, at: At, how: LeaseEnd) {
        let epoch = self.slots[at].epoch;
        self.leases.remove(epoch_hash(epoch), at);
        self.ended.insert(epoch, how);
    }
}
