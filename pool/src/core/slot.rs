//! Single slots: their state, and what their server says of them.
//!
//! News carries an epoch. It counts only when that is the epoch of the slot's last lease.

use super::{
    Core, Effect, Turn,
    container::{Container, Phase},
    slots::{Kind, Run, State},
    timer::Timer,
    types::{At, LeaseEnd, Spot},
};
use slotmux_protocol::Epoch;
use std::sync::Arc;

/// A slot that was refused so often in a row is not tried again.
const SHUTS_MAX: u8 = 3;

impl Core {
    pub(super) fn container_of(&self, at: At) -> Option<&Container> {
        self.containers.at(self.slots[at].container)
    }

    /// The one way to change a slot's state: everything that counts slots follows. The former state
    /// comes back.
    pub(super) fn put(&mut self, at: At, state: State) -> State {
        let index = self.slots[at].container;
        let Some(container) = self.containers.at_mut(index) else { return state };
        let profile = &mut self.profiles[usize::from(container.profile)];
        let to = state.kind();
        let former = container.put(&mut self.slots, at, state);
        if let Some(group) = container.group() {
            profile.tally_mut(group).shift(former.kind(), to);
        }
        list(container, profile);
        former
    }

    /// The one way to change what a container's slots count as.
    pub(super) fn regroup(&mut self, index: u32, change: impl FnOnce(&mut Container)) {
        let Some(container) = self.containers.at_mut(index) else { return };
        let profile = &mut self.profiles[usize::from(container.profile)];
        if let Some(group) = container.group() {
            profile.tally_mut(group).split(&container.tally);
        }
        profile.counts[container.phase as usize] -= 1;
        change(container);
        profile.counts[container.phase as usize] += 1;
        if let Some(group) = container.group() {
            profile.tally_mut(group).merge(&container.tally);
        }
        list(container, profile);
    }

    pub(super) fn reset(&mut self, turn: &mut Turn<'_>, at: At) {
        self.put(at, State::Resetting { since: turn.now });
        self.order_reset(turn, at);
    }

    /// To be emptied. While the link is down nothing is sent: its return brings a report, and that
    /// the order.
    pub(super) fn order_reset(&mut self, turn: &mut Turn<'_>, at: At) {
        let slot = &self.slots[at];
        let Some(container) = self.containers.at_mut(slot.container) else { return };
        if container.is_linked() {
            turn.push(Effect::Reset { at: container.spot(at), epoch: Epoch(slot.epoch) });
        }
        if !std::mem::replace(&mut container.resets_watched, true) {
            let due = turn.now.plus(self.settings.reset_timeout_ms);
            self.timers.push(due, Timer::Resets(container.key));
        }
        let index = slot.container;
        self.retire(turn, index);
    }

    pub(super) fn quarantine(&mut self, turn: &mut Turn<'_>, at: At, why: Arc<str>) {
        self.put(at, State::Quarantined);
        let index = self.slots[at].container;
        let Some(container) = self.containers.at(index) else { return };
        turn.push(Effect::SlotQuarantined { at: container.spot(at), why });
        let profile = &mut self.profiles[usize::from(container.profile)];
        profile.totals.quarantined += 1;
        self.replace_worn(turn, index);
    }

    /// Drains a container with quarantined slots when they are many, or when nothing else is in
    /// its way: a gang may need every slot that the profile can have.
    pub(super) fn replace_worn(&mut self, turn: &mut Turn<'_>, index: u32) {
        let Some(container) = self.containers.at(index) else { return };
        let is_idle = container.listed.idle && container.tally.of(Kind::Quarantined) > 0;
        if container.phase != Phase::Ready || !(container.is_worn() || is_idle) {
            return;
        }
        if turn.now.since(container.ready_at) < super::fleet::INFANT_MS {
            let why = "its slots could not be used".into();
            self.note_failure(turn, container.profile, super::Retry::Later, &why);
        }
        self.drain(turn, index);
    }

    /// Where the news is from, unless it is old.
    fn current(&self, at: Spot, epoch: Epoch) -> Option<(At, u16, Kind)> {
        let container = self.containers.get(at.container)?;
        let place = container.slots().get(at.slot.0)?;
        let slot = &self.slots[place];
        (slot.epoch == epoch.0 && container.group().is_some()).then_some((
            place,
            container.profile,
            slot.state.kind(),
        ))
    }

    pub(super) fn opened(&mut self, turn: &mut Turn<'_>, at: Spot, epoch: Epoch) {
        if let Some((at, _, Kind::Opening)) = self.current(at, epoch) {
            self.confirm(turn, at);
        }
    }

    pub(super) fn shut(&mut self, turn: &mut Turn<'_>, at: Spot, epoch: Epoch, why: Arc<str>) {
        let Some((at, profile, kind)) = self.current(at, epoch) else { return };
        match kind {
            Kind::Opening => {
                self.release_hold(turn, at, &why);
                let slot = &mut self.slots[at];
                slot.shuts += 1;
                if slot.shuts >= SHUTS_MAX {
                    self.quarantine(turn, at, why);
                }
            }
            Kind::Leased => self.release_hold(turn, at, &why),
            Kind::Unseen | Kind::Free | Kind::Resetting | Kind::Quarantined => return,
        }
        self.settle(turn, profile);
    }

    pub(super) fn clean(&mut self, turn: &mut Turn<'_>, at: Spot, epoch: Epoch) {
        let index = at.container.index;
        let Some((at, profile, kind)) = self.current(at, epoch) else { return };
        match kind {
            Kind::Resetting => {
                self.profiles[usize::from(profile)].totals.resets += 1;
                self.put(at, State::Free);
                self.retire(turn, index);
                self.replace_worn(turn, index);
            }
            // Emptied without our asking: whatever was in it is lost.
            Kind::Opening | Kind::Leased => {
                self.release_hold(turn, at, "the slot was emptied by its server");
            }
            Kind::Unseen | Kind::Free | Kind::Quarantined => return,
        }
        self.settle(turn, profile);
    }

    pub(super) fn dirty(&mut self, turn: &mut Turn<'_>, at: Spot, epoch: Epoch, why: Arc<str>) {
        let Some((at, profile, kind)) = self.current(at, epoch) else { return };
        match kind {
            Kind::Resetting | Kind::Free => self.quarantine(turn, at, why),
            Kind::Opening | Kind::Leased => self.release_hold(turn, at, &why),
            Kind::Unseen | Kind::Quarantined => return,
        }
        self.settle(turn, profile);
    }

    pub(super) fn broken(&mut self, turn: &mut Turn<'_>, at: Spot, epoch: Epoch, why: Arc<str>) {
        let Some((at, profile, kind)) = self.current(at, epoch) else { return };
        match kind {
            Kind::Opening | Kind::Leased => self.release_hold(turn, at, &why),
            Kind::Free => self.reset(turn, at),
            Kind::Unseen | Kind::Resetting | Kind::Quarantined => return,
        }
        self.settle(turn, profile);
    }

    /// Whoever has the slot loses it, and it is reset: a lease is revoked, a waiter queues again.
    pub(super) fn release_hold(&mut self, turn: &mut Turn<'_>, at: At, why: &str) {
        match self.slots[at].state {
            State::Leased(_) => self.end(turn, at, LeaseEnd::Revoked(why.into())),
            State::Opening { waiter, .. } => self.requeue(turn, waiter),
            State::Unseen | State::Free | State::Resetting { .. } | State::Quarantined => {}
        }
    }

    /// The waiters that were to get one of these slots queue again.
    pub(super) fn requeue_all(&mut self, turn: &mut Turn<'_>, slots: Run) {
        for at in slots.places() {
            if let State::Opening { waiter, .. } = self.slots[at].state {
                self.requeue(turn, waiter);
            }
        }
    }
}

/// Keeps the profile's sets in step with a container.
fn list(container: &mut Container, profile: &mut super::Profile) {
    let (was, is) = (container.listed, container.listing());
    let index = container.key.index;
    if was.free != is.free {
        if is.free { profile.with_free.insert(index) } else { profile.with_free.remove(index) }
    }
    if was.idle != is.idle {
        if is.idle { profile.idle.insert(index) } else { profile.idle.remove(index) }
    }
    container.listed = is;
}
