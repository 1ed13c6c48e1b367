//! From a request to its place in the queue, and out of it again.

use super::{
    Acquire, Core, Effect, Refusal, Turn, WaiterId,
    epochs::Epochs,
    profile::Place,
    types::{LeaseEnd, Millis},
};
use slotmux_protocol::TrajectoryId;
use std::{cmp::Reverse, sync::Arc};

/// A request that is not answered yet.
#[derive(Debug)]
pub(super) struct Waiter {
    pub(super) trajectory: TrajectoryId,
    pub(super) profile: u16,
    pub(super) count: u32,
    pub(super) place: Place,
    pub(super) ttl_ms: u64,
    pub(super) stage: Stage,
}

#[derive(Debug)]
pub(super) enum Stage {
    Queued,
    /// It has its slots; `left` of them are not open yet.
    Opening {
        epochs: Epochs,
        left: u32,
    },
}

impl Core {
    pub(super) fn acquire(&mut self, turn: &mut Turn<'_>, mut acquire: Acquire) {
        if self.waiters.contains_key(&acquire.waiter.0) {
            return;
        }
        acquire.count = acquire.count.max(1);
        if let Err(why) = self.admit(turn.now, &acquire) {
            turn.push(Effect::Refuse { waiter: acquire.waiter, why });
            return;
        }
        let ticket = match self.waiting.get(&acquire.trajectory) {
            Some(older) => self.supersede(turn, *older, acquire.profile.0),
            None if self.held_at(&acquire.trajectory).next().is_some() => {
                return self.grant_again(turn, &acquire);
            }
            None => None,
        };
        let profile = acquire.profile.0;
        self.enqueue(acquire, ticket);
        self.settle(turn, profile);
    }

    fn admit(&self, now: Millis, acquire: &Acquire) -> Result<(), Refusal> {
        if self.closing.is_some() {
            return Err(Refusal::Closing);
        }
        let Some(profile) = self.profiles.get(usize::from(acquire.profile.0)) else {
            return Err(Refusal::NeverEnough { count: acquire.count, max: 0 });
        };
        let max = profile.settings.slots_max();
        if acquire.count > max {
            return Err(Refusal::NeverEnough { count: acquire.count, max });
        }
        match &profile.launches.trouble {
            Some(why) if self.is_hopeless(acquire.profile.0, now) => {
                Err(Refusal::CannotLaunch { why: Arc::clone(why) })
            }
            _ => Ok(()),
        }
    }

    /// The trajectory asks again for what it holds: a client that did not hear the answer.
    fn grant_again(&mut self, turn: &mut Turn<'_>, acquire: &Acquire) {
        let leases = self.held(&acquire.trajectory);
        let held = u32::try_from(leases.len()).unwrap_or(u32::MAX);
        let waiter = acquire.waiter;
        let is_elsewhere = self.holds_elsewhere(&acquire.trajectory, acquire.profile.0);
        if is_elsewhere || held != acquire.count {
            turn.push(Effect::Refuse { waiter, why: Refusal::AlreadyHeld { held } });
            return;
        }
        for lease in &leases {
            // Each of them is live: ended ones are not among `held`.
            let _ = self.renew(turn, *lease, Some(acquire.ttl_ms));
        }
        turn.push(Effect::Grant { waiter, leases });
    }

    /// Answers the older request of a trajectory. Its place in the queue is the newer one's.
    fn supersede(&mut self, turn: &mut Turn<'_>, older: u64, profile: u16) -> Option<u64> {
        let gone = self.take_waiter(turn, older)?;
        turn.push(Effect::Refuse { waiter: WaiterId(older), why: Refusal::Superseded });
        if gone.profile == profile {
            return Some(gone.place.ticket);
        }
        self.settle(turn, gone.profile);
        None
    }

    fn enqueue(&mut self, acquire: Acquire, ticket: Option<u64>) {
        let ticket = ticket.unwrap_or_else(|| {
            self.next_ticket += 1;
            self.next_ticket
        });
        let Acquire { waiter, profile, trajectory, count, priority, deadline, ttl_ms } = acquire;
        let place = Place { priority: Reverse(priority), ticket };
        self.waiting.insert(trajectory.clone(), waiter.0);
        self.deadlines.push(deadline, waiter.0);
        let queue = &mut self.profiles[usize::from(profile.0)];
        queue.queue.insert(place, waiter.0);
        queue.queued_slots += u64::from(count);
        let stage = Stage::Queued;
        let waiting = Waiter { trajectory, profile: profile.0, count, place, ttl_ms, stage };
        self.waiters.insert(waiter.0, waiting);
    }

    pub(super) fn cancel(&mut self, turn: &mut Turn<'_>, waiter: WaiterId) {
        if let Some(gone) = self.take_waiter(turn, waiter.0) {
            self.settle(turn, gone.profile);
        }
    }

    pub(super) fn refuse(&mut self, turn: &mut Turn<'_>, waiter: u64, why: Refusal) {
        let Some(gone) = self.take_waiter(turn, waiter) else { return };
        if matches!(why, Refusal::Deadline { .. }) {
            self.profiles[usize::from(gone.profile)].totals.acquire_timeouts += 1;
        }
        turn.push(Effect::Refuse { waiter: WaiterId(waiter), why });
        self.settle(turn, gone.profile);
    }

    pub(super) fn refuse_all(&mut self, turn: &mut Turn<'_>, profile: u16, why: &Refusal) {
        let queued: Vec<u64> =
            self.profiles[usize::from(profile)].queue.values().copied().collect();
        for waiter in queued {
            if self.take_waiter(turn, waiter).is_some() {
                turn.push(Effect::Refuse { waiter: WaiterId(waiter), why: why.clone() });
            }
        }
    }

    /// Forgets a waiter wherever it is; slots that were being opened for it are reset.
    fn take_waiter(&mut self, turn: &mut Turn<'_>, waiter: u64) -> Option<Waiter> {
        self.undo_opening(turn, waiter);
        let gone = self.waiters.remove(&waiter)?;
        self.dequeue(&gone);
        self.waiting.remove(&gone.trajectory);
        Some(gone)
    }

    pub(super) fn dequeue(&mut self, waiter: &Waiter) {
        let profile = &mut self.profiles[usize::from(waiter.profile)];
        if profile.queue.remove(&waiter.place).is_some() {
            profile.queued_slots -= u64::from(waiter.count);
        }
    }

    /// Back to its old place, with nothing in its hands. No effect on one that is queued.
    pub(super) fn requeue(&mut self, turn: &mut Turn<'_>, waiter: u64) {
        self.undo_opening(turn, waiter);
        let Some(waiting) = self.waiters.get(&waiter) else { return };
        let profile = &mut self.profiles[usize::from(waiting.profile)];
        if profile.queue.insert(waiting.place, waiter).is_none() {
            profile.queued_slots += u64::from(waiting.count);
        }
    }

    /// All or none: what one of a gang cannot have, none of it keeps.
    fn undo_opening(&mut self, turn: &mut Turn<'_>, waiter: u64) {
        let Some(waiting) = self.waiters.get_mut(&waiter) else { return };
        let Stage::Opening { epochs, .. } = std::mem::replace(&mut waiting.stage, Stage::Queued)
        else {
            return;
        };
        for epoch in epochs.iter() {
            self.unlend(turn, epoch, LeaseEnd::Revoked("never opened".into()));
        }
    }
}
