//! What a container's link tells: that it is up, with a report of every slot, or down.
//!
//! A report is the truth about the container; what we know is the truth about leases. Where the
//! two differ, nobody keeps a slot that somebody else may have been in.

use super::{
    ContainerRecord, Core, Effect, LeaseRecord, Record, Turn, WaiterId,
    container::{Container, LinkState, Phase},
    hash::epoch_hash,
    slots::{Kind, Lease, State},
    timer::Timer,
    types::{At, ContainerKey, LeaseEnd, ProfileKey},
};
use slotmux_protocol::{
    Epoch, LeaseId, TrajectoryId,
    link::{Holder, SlotReport, SlotState},
};
use std::sync::Arc;

/// Epochs stay below this, so that a JSON number holds them exactly.
const EPOCH_END: u64 = 1 << 53;

impl Core {
    pub(super) fn link_up(
        &mut self,
        turn: &mut Turn<'_>,
        key: ContainerKey,
        boot: Arc<str>,
        reports: Vec<SlotReport>,
    ) {
        let Some(container) = self.containers.get(key) else { return };
        if container.phase == Phase::Stopping {
            return;
        }
        let profile = container.profile;
        let is_first = *container.link() == LinkState::Never;
        let known = container.boot.clone();
        if known.as_ref().is_some_and(|known| *known != boot) {
            self.restarted(turn, key.index);
        }
        // Without its leases a draining container is of no use any more.
        if self.containers.get(key).is_none_or(|it| it.phase == Phase::Stopping) {
            return self.settle(turn, profile);
        }
        if known.as_ref() != Some(&boot)
            && let Some(container) = self.containers.at_mut(key.index)
        {
            container.boot = Some(Arc::clone(&boot));
            let record = ContainerRecord { id: container.id.clone(), boot: Some(boot) };
            turn.push(Effect::Journal(Record::ContainerKnown(record)));
        }
        self.regroup(key.index, |container| {
            container.set_link(LinkState::Up);
            if container.phase == Phase::Starting {
                container.phase = Phase::Ready;
            }
        });
        if is_first {
            self.came_up(turn, key, profile);
            self.unheard.retain(|it| *it != key);
        }
        self.reconcile_all(turn, key.index, reports);
        self.retire(turn, key.index);
        self.replace_worn(turn, key.index);
        self.settle(turn, profile);
    }

    fn came_up(&mut self, turn: &mut Turn<'_>, key: ContainerKey, profile: u16) {
        if let Some(container) = self.containers.at_mut(key.index) {
            container.ready_at = turn.now;
        }
        let profile = &mut self.profiles[usize::from(profile)];
        profile.launches.trouble = None;
        profile.launches.hopeless = false;
        let due = turn.now.plus(profile.settings.retire_after_ms);
        self.timers.push(due, Timer::Retire(key));
        turn.push(Effect::ContainerUp { container: key });
    }

    /// The server is a new one: it knows nothing of what the former one had open.
    fn restarted(&mut self, turn: &mut Turn<'_>, index: u32) {
        let why: Arc<str> = "its container's sandbox-server was restarted".into();
        self.regroup(index, |container| {
            container.set_link(LinkState::Down { since: turn.now, why: Arc::clone(&why) });
        });
        self.vacate(turn, index, &why);
        let Some(slots) = self.containers.at(index).map(Container::slots) else { return };
        for at in slots.places() {
            self.put(at, State::Unseen);
        }
    }

    pub(super) fn link_down(&mut self, turn: &mut Turn<'_>, key: ContainerKey, why: Arc<str>) {
        let Some(container) = self.containers.get(key) else { return };
        if !container.is_linked() || container.group().is_none() {
            return;
        }
        let (profile, slots) = (container.profile, container.slots());
        self.regroup(key.index, |container| {
            container.set_link(LinkState::Down { since: turn.now, why });
        });
        self.requeue_all(turn, slots);
        let due = turn.now.plus(self.settings.dead_after_ms);
        self.timers.push(due, Timer::LinkDead(key));
        self.settle(turn, profile);
    }

    fn reconcile_all(&mut self, turn: &mut Turn<'_>, index: u32, reports: Vec<SlotReport>) {
        let Some(container) = self.containers.at(index) else { return };
        let slots = container.slots();
        let mut states: Vec<Option<SlotState>> = vec![None; usize::from(slots.count)];
        for report in reports {
            if let Some(place) = states.get_mut(usize::from(report.slot.0)) {
                *place = Some(report.state);
            }
        }
        for (at, state) in slots.places().zip(states) {
            // Too many slots that are of no use end the container.
            if self.containers.at(index).is_none_or(|it| it.phase == Phase::Stopping) {
                return;
            }
            self.reconcile(turn, at, state);
        }
    }

    fn reconcile(&mut self, turn: &mut Turn<'_>, at: At, report: Option<SlotState>) {
        let epoch = match &report {
            None => return self.unusable(turn, at, "its server does not report it"),
            Some(SlotState::Clean { fence } | SlotState::Dirty { fence }) => fence.0,
            Some(SlotState::Open { holder }) => holder.lease.0.0,
        };
        if epoch >= EPOCH_END {
            return self.unusable(turn, at, "its server reports an impossible epoch");
        }
        self.epochs.saw(epoch);
        match report {
            None => {}
            Some(SlotState::Clean { .. }) => self.reported_clean(turn, at, epoch),
            Some(SlotState::Dirty { .. }) => self.reported_dirty(turn, at, epoch),
            Some(SlotState::Open { holder }) => self.reported_open(turn, at, holder),
        }
    }

    fn unusable(&mut self, turn: &mut Turn<'_>, at: At, why: &str) {
        self.release_hold(turn, at, why);
        if self.slots[at].state != State::Quarantined {
            self.quarantine(turn, at, why.into());
        }
    }

    fn reported_clean(&mut self, turn: &mut Turn<'_>, at: At, fence: u64) {
        let slot = &mut self.slots[at];
        let is_past = fence >= slot.epoch;
        match slot.state.kind() {
            Kind::Unseen | Kind::Free => {
                slot.epoch = slot.epoch.max(fence);
                self.put(at, State::Free);
            }
            Kind::Resetting if is_past => {
                slot.epoch = fence;
                self.put(at, State::Free);
            }
            Kind::Resetting => self.reset(turn, at),
            // It was never opened: the order was lost on the way.
            Kind::Opening | Kind::Leased if !is_past => self.open_again(turn, at),
            Kind::Opening | Kind::Leased => {
                self.release_hold(turn, at, "its slot was emptied");
            }
            Kind::Quarantined => {}
        }
    }

    fn reported_dirty(&mut self, turn: &mut Turn<'_>, at: At, fence: u64) {
        match self.slots[at].state.kind() {
            Kind::Opening | Kind::Leased => {
                self.release_hold(turn, at, "its slot was emptied");
                self.fence(turn, at, fence);
            }
            Kind::Unseen | Kind::Free | Kind::Resetting => self.reset_past(turn, at, fence),
            Kind::Quarantined => {}
        }
    }

    fn reported_open(&mut self, turn: &mut Turn<'_>, at: At, holder: Holder) {
        let epoch = holder.lease.0.0;
        let slot = &self.slots[at];
        match slot.state.kind() {
            Kind::Opening if slot.epoch == epoch => self.confirm(turn, at),
            Kind::Leased if slot.epoch == epoch => {}
            Kind::Opening | Kind::Leased => {
                self.release_hold(turn, at, "its slot was opened for somebody else");
                self.fence(turn, at, epoch);
            }
            Kind::Unseen if self.is_foreign(at, &holder) => self.adopt(turn, at, holder),
            Kind::Unseen | Kind::Free | Kind::Resetting => self.reset_past(turn, at, epoch),
            // Never given again, but what runs in it must end.
            Kind::Quarantined => {
                let Some(container) = self.containers.at(slot.container) else { return };
                turn.push(Effect::Reset { at: container.spot(at), epoch: Epoch(epoch) });
            }
        }
    }

    /// A lease of an earlier process whose journal was lost, or not written to the end: up to what
    /// the journal knows, a lease that is not in it has ended.
    fn is_foreign(&self, at: At, holder: &Holder) -> bool {
        let epoch = holder.lease.0.0;
        let profile = self.container_of(at).map(|it| it.profile);
        epoch > self.epochs.journalled
            && epoch > self.slots[at].epoch
            && self.lease_at(epoch).is_none()
            && self.ended.get(epoch).is_none()
            && profile.is_some_and(|profile| !self.holds_elsewhere(&holder.trajectory, profile))
    }

    fn adopt(&mut self, turn: &mut Turn<'_>, at: At, holder: Holder) {
        let epoch = holder.lease.0.0;
        let slot = &mut self.slots[at];
        slot.epoch = epoch;
        let Some(container) = self.containers.at(slot.container) else { return };
        turn.push(Effect::Journal(Record::LeaseOpened(LeaseRecord {
            lease: holder.lease,
            trajectory: holder.trajectory.clone(),
            container: container.id.clone(),
            slot: container.number(at),
            ttl_ms: holder.ttl_ms,
        })));
        let trajectory = holder.trajectory.clone();
        self.hold(
            turn,
            at,
            Lease {
                trajectory: holder.trajectory,
                ttl_ms: holder.ttl_ms,
                expires: turn.now.plus(holder.ttl_ms),
            },
        );
        self.answer_adopted(turn, &trajectory);
    }

    /// Puts a lease of an earlier process on the slot, under the slot's epoch.
    pub(super) fn hold(&mut self, turn: &mut Turn<'_>, at: At, lease: Lease) {
        let epoch = self.slots[at].epoch;
        self.held.insert(self.hash(&lease.trajectory), at);
        self.leases.insert(epoch_hash(epoch), at);
        self.expect_expiry(at, lease.expires);
        self.put(at, State::Leased(lease));
        turn.push(Effect::LeaseAdopted { lease: LeaseId(Epoch(epoch)) });
    }

    /// A client that asked again before its lease was found gets what it holds.
    fn answer_adopted(&mut self, turn: &mut Turn<'_>, trajectory: &TrajectoryId) {
        let Some(&id) = self.waiting.get(trajectory) else { return };
        let Some(waiter) = self.waiters.get(&id) else { return };
        let (profile, leases) = (waiter.profile, self.held(trajectory));
        let is_elsewhere = self.holds_elsewhere(trajectory, profile);
        if !is_elsewhere && waiter.count as usize == leases.len() {
            self.cancel(turn, WaiterId(id));
            turn.push(Effect::Grant { waiter: WaiterId(id), leases });
            self.settle(turn, profile);
        }
    }

    fn open_again(&self, turn: &mut Turn<'_>, at: At) {
        let slot = &self.slots[at];
        let Some(container) = self.containers.at(slot.container) else { return };
        let (trajectory, ttl_ms) = match &slot.state {
            State::Leased(lease) => (&lease.trajectory, lease.ttl_ms),
            State::Opening { waiter, .. } => match self.waiters.get(waiter) {
                Some(waiter) => (&waiter.trajectory, waiter.ttl_ms),
                None => return,
            },
            _ => return,
        };
        turn.push(Effect::Open {
            at: container.spot(at),
            lease: LeaseId(Epoch(slot.epoch)),
            trajectory: trajectory.clone(),
            profile: ProfileKey(container.profile),
            ttl_ms,
        });
    }

    /// A slot that is being reset must end past `epoch` too.
    fn fence(&mut self, turn: &mut Turn<'_>, at: At, epoch: u64) {
        if epoch > self.slots[at].epoch {
            self.reset_past(turn, at, epoch);
        }
    }

    fn reset_past(&mut self, turn: &mut Turn<'_>, at: At, epoch: u64) {
        let slot = &mut self.slots[at];
        slot.epoch = slot.epoch.max(epoch);
        self.reset(turn, at);
    }

    /// Of a lease of the journal whose slot is no more.
    pub(super) fn revoke_unplaced(&mut self, turn: &mut Turn<'_>, lease: LeaseRecord, why: &str) {
        let how = LeaseEnd::Revoked(why.into());
        self.ended.insert(lease.lease.0.0, how.clone());
        let LeaseRecord { lease, trajectory, container, slot, .. } = lease;
        turn.push(Effect::Journal(Record::LeaseEnded { lease }));
        turn.push(Effect::LeaseEnded { lease, trajectory, container, slot, how });
    }
}
