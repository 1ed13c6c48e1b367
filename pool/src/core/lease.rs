//! Leases that were granted: renewal, and their three ways to end.

use super::{
    Core, Effect, NoLease, Record, Turn,
    container::State,
    types::{At, ContainerKey, LeaseEnd, Millis, ProfileKey, Spot},
};
use slotmux_protocol::{ContainerId, Epoch, LeaseId, SlotIndex, TrajectoryId};

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
        let container = self.containers.at(at.container).ok_or(NoLease::Unknown)?;
        match self.slot(at).map(|slot| &slot.state) {
            Some(State::Leased(lease)) => Ok(LeaseView {
                trajectory: lease.trajectory.clone(),
                profile: ProfileKey(container.profile),
                container: container.id.clone(),
                at: self.spot(at),
                ttl_ms: lease.ttl_ms,
                expires: lease.expires,
            }),
            _ => Err(NoLease::Unknown),
        }
    }

    pub fn held(&self, trajectory: &TrajectoryId) -> Vec<LeaseId> {
        self.trajectories.get(trajectory).map(|it| it.held.leases()).unwrap_or_default()
    }

    /// The leases on a container.
    pub fn leases_of(&self, container: ContainerKey) -> Vec<LeaseId> {
        let slots = self.containers.get(container).map(|it| &*it.slots).unwrap_or_default();
        let leased = slots.iter().filter(|slot| matches!(slot.state, State::Leased(_)));
        leased.map(|slot| LeaseId(Epoch(slot.epoch))).collect()
    }

    /// The place of a granted lease. One that is being opened is nobody's business yet.
    fn find(&self, lease: LeaseId) -> Result<At, NoLease> {
        let epoch = lease.0.0;
        let Some(at) = self.leases.get(&epoch) else {
            let how = self.ended.get(epoch).ok_or(NoLease::Unknown)?;
            return Err(NoLease::Ended(how.clone()));
        };
        match self.slot(*at).map(|slot| &slot.state) {
            Some(State::Leased(_)) => Ok(*at),
            _ => Err(NoLease::Unknown),
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
        let Some(slot) = self.slot_mut(at) else { return Err(NoLease::Unknown) };
        let State::Leased(held) = &mut slot.state else { return Err(NoLease::Unknown) };
        held.ttl_ms = ttl_ms.unwrap_or(held.ttl_ms);
        held.expires = turn.now.plus(held.ttl_ms);
        if held.expires < held.due {
            // Its entry in the heap would come too late now.
            held.due = held.expires;
            let due = held.due;
            self.expiries.push(due, lease.0.0);
        }
        Ok(())
    }

    /// An entry of the heap has come up. Renewals do not move entries, so it may be early; and
    /// only the one for `due` counts.
    pub(super) fn maybe_expired(&mut self, turn: &mut Turn<'_>, when: Millis, epoch: u64) {
        let Some(at) = self.leases.get(&epoch) else { return };
        let at = *at;
        let Some(State::Leased(lease)) = self.slot_mut(at).map(|slot| &mut slot.state) else {
            return;
        };
        if lease.due != when {
            return;
        }
        if lease.expires > turn.now {
            lease.due = lease.expires;
        } else {
            lease.due = turn.now.plus(ASK_AGAIN_MS);
            turn.push(Effect::AskActivity { lease: LeaseId(Epoch(epoch)) });
        }
        let due = lease.due;
        self.expiries.push(due, epoch);
    }

    pub(super) fn activity(&mut self, turn: &mut Turn<'_>, lease: LeaseId, last: Millis) {
        let Ok(at) = self.find(lease) else { return };
        let Some(State::Leased(held)) = self.slot_mut(at).map(|slot| &mut slot.state) else {
            return;
        };
        held.expires = held.expires.max(last.plus(held.ttl_ms));
        if held.expires <= turn.now {
            self.end_and_settle(turn, at, LeaseEnd::Expired);
        }
    }

    fn end_and_settle(&mut self, turn: &mut Turn<'_>, at: At, how: LeaseEnd) {
        let Some(profile) = self.containers.at(at.container).map(|it| it.profile) else { return };
        self.end(turn, at, how);
        self.settle(turn, profile);
    }

    /// Ends a granted lease; its slot is reset.
    pub(super) fn end(&mut self, turn: &mut Turn<'_>, at: At, how: LeaseEnd) {
        let Some(container) = self.containers.at_mut(at.container) else { return };
        let slot = &mut container.slots[usize::from(at.slot)];
        let epoch = slot.epoch;
        let State::Leased(lease) = &slot.state else { return };
        let trajectory = lease.trajectory.clone();
        let container_id = container.id.clone();
        let totals = &mut self.profiles[usize::from(container.profile)].totals;
        match how {
            LeaseEnd::Released => totals.released += 1,
            LeaseEnd::Expired => totals.expired += 1,
            LeaseEnd::Revoked(_) => totals.revoked += 1,
        }
        self.unhold(&trajectory, epoch);
        self.bury(epoch, how.clone());
        let lease = LeaseId(Epoch(epoch));
        turn.push(Effect::Journal(Record::LeaseEnded { lease }));
        let (container, slot) = (container_id, SlotIndex(at.slot));
        turn.push(Effect::LeaseEnded { lease, trajectory, container, slot, how });
        self.reset(turn, at);
    }

    fn unhold(&mut self, trajectory: &TrajectoryId, epoch: u64) {
        let Some(entry) = self.trajectories.get_mut(trajectory) else { return };
        entry.held.remove(epoch);
        if entry.held.is_empty() && entry.waiter.is_none() {
            self.trajectories.remove(trajectory);
        }
    }

    /// Forgets where a lease is, and remembers how it ended.
    pub(super) fn bury(&mut self, epoch: u64, how: LeaseEnd) {
        self.leases.remove(&epoch);
        self.ended.insert(epoch, how);
    }
}
