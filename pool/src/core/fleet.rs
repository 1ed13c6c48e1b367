//! Containers: launched, drained, stopped, lost.

use super::{
    Closing, ContainerRecord, Core, Effect, GoneKind, Record, Refusal, Retry, Turn,
    container::{Container, LinkState, Phase},
    timer::Timer,
    types::{ContainerKey, Millis, ProfileKey},
};
use slotmux_protocol::ContainerId;
use std::sync::Arc;

/// A container that was lost this soon after it was ready counts as a failed launch.
pub(super) const INFANT_MS: u64 = 10_000;

impl Core {
    pub(super) fn launch(&mut self, turn: &mut Turn<'_>, profile: u16) {
        self.next_container += 1;
        let name = format!("{}-{}", self.settings.name_stem, self.next_container);
        let Ok(id) = ContainerId::new(name) else { return };
        let settings = &self.profiles[usize::from(profile)].settings;
        let (slots, start_ms) = (settings.slots_per_container, settings.start_timeout_ms);
        let key = self.add_container(id.clone(), profile, slots);
        self.profiles[usize::from(profile)].totals.containers_launched += 1;
        self.timers.push(turn.now.plus(start_ms), Timer::Start(key));
        let record = ContainerRecord { id: id.clone(), boot: None };
        turn.push(Effect::Journal(Record::ContainerKnown(record)));
        turn.push(Effect::Launch { container: key, id, profile: ProfileKey(profile) });
    }

    pub(super) fn add_container(
        &mut self,
        id: ContainerId,
        profile: u16,
        slots: u16,
    ) -> ContainerKey {
        let named = id.clone();
        let all = &mut self.slots;
        let key = self.containers.insert(|key| {
            let slots = all.take(key.index, slots);
            Container::new(key, named, profile, slots)
        });
        self.profiles[usize::from(profile)].counts[Phase::Starting as usize] += 1;
        self.by_id.insert(id, key);
        key
    }

    pub(super) fn launch_failed(
        &mut self,
        turn: &mut Turn<'_>,
        key: ContainerKey,
        retry: Retry,
        why: Arc<str>,
    ) {
        let Some(container) = self.containers.get(key) else { return };
        let profile = container.profile;
        match container.phase {
            Phase::Starting => self.note_failure(turn, profile, retry, &why),
            Phase::Stopping => {}
            // It runs, so it was launched.
            Phase::Ready | Phase::Draining => return,
        }
        self.forget(turn, key, GoneKind::Lost, &why);
        if self.is_hopeless(profile, turn.now) {
            self.refuse_all(turn, profile, &Refusal::CannotLaunch { why });
        }
        self.settle(turn, profile);
    }

    /// The next launch waits, each time twice as long. Of launches that fail together the first
    /// counts.
    pub(super) fn note_failure(
        &mut self,
        turn: &mut Turn<'_>,
        key: u16,
        retry: Retry,
        why: &Arc<str>,
    ) {
        let profile = &mut self.profiles[usize::from(key)];
        let (min_ms, max_ms) = (profile.settings.backoff_min_ms, profile.settings.backoff_max_ms);
        let launches = &mut profile.launches;
        launches.trouble = Some(Arc::clone(why));
        launches.hopeless = retry == Retry::Never;
        if turn.now < launches.not_before {
            return;
        }
        if turn.now > launches.not_before.plus(max_ms) {
            launches.failures = 0;
        }
        let delay_ms = min_ms.saturating_mul(1 << launches.failures.min(30)).min(max_ms);
        launches.failures += 1;
        launches.not_before = turn.now.plus(delay_ms);
        self.timers.push(launches.not_before, Timer::Backoff(key));
    }

    pub(super) fn gone(&mut self, turn: &mut Turn<'_>, key: ContainerKey, why: &Arc<str>) {
        let Some(container) = self.containers.get(key) else { return };
        let (profile, phase) = (container.profile, container.phase);
        let lost = container.lost.clone();
        let ready_at = container.ready_at;
        if phase == Phase::Stopping && lost.is_none() {
            self.forget(turn, key, GoneKind::Stopped, why);
        } else {
            let why = lost.unwrap_or_else(|| Arc::clone(why));
            self.profiles[usize::from(profile)].totals.containers_lost += 1;
            if phase == Phase::Starting || turn.now.since(ready_at) < INFANT_MS {
                self.note_failure(turn, profile, Retry::Later, &why);
            }
            self.forget(turn, key, GoneKind::Lost, &why);
        }
        self.settle(turn, profile);
    }

    /// It is no more: whoever was on it hears why.
    fn forget(&mut self, turn: &mut Turn<'_>, key: ContainerKey, kind: GoneKind, why: &Arc<str>) {
        self.halt(turn.now, key.index, why);
        self.vacate(turn, key.index, &format!("its container is gone: {why}"));
        let Some(container) = self.containers.remove(key) else { return };
        self.slots.vacate(container.slots());
        self.profiles[usize::from(container.profile)].counts[Phase::Stopping as usize] -= 1;
        self.by_id.remove(&container.id);
        let id = container.id;
        turn.push(Effect::Journal(Record::ContainerGone { id: id.clone() }));
        let why = Arc::clone(why);
        turn.push(Effect::ContainerEnded { container: key, id, kind, why });
    }

    /// Given up: its leases are revoked now, whenever it really ends.
    pub(super) fn lose(&mut self, turn: &mut Turn<'_>, index: u32, why: Arc<str>) {
        if let Some(container) = self.containers.at_mut(index) {
            container.lost.get_or_insert_with(|| Arc::clone(&why));
        }
        self.abandon(turn, index, &format!("its container was lost: {why}"));
    }

    fn abandon(&mut self, turn: &mut Turn<'_>, index: u32, why: &str) {
        let Some(container) = self.containers.at(index) else { return };
        let id = container.id.clone();
        if container.phase != Phase::Stopping {
            self.halt(turn.now, index, &why.into());
            self.vacate(turn, index, why);
            turn.push(Effect::Stop { id });
        }
    }

    /// From here on nothing is sent to it, and its slots count no more.
    fn halt(&mut self, now: Millis, index: u32, why: &Arc<str>) {
        self.regroup(index, |container| {
            container.phase = Phase::Stopping;
            container.set_link(LinkState::Down { since: now, why: Arc::clone(why) });
        });
    }

    /// Takes every slot from whoever has it.
    pub(super) fn vacate(&mut self, turn: &mut Turn<'_>, index: u32, why: &str) {
        let Some(slots) = self.containers.at(index).map(Container::slots) else { return };
        for at in slots.places() {
            self.release_hold(turn, at, why);
        }
    }

    /// No new leases. It stops when the last one ends; waiters that were to get its slots queue
    /// again.
    pub(super) fn drain(&mut self, turn: &mut Turn<'_>, index: u32) {
        let Some(container) = self.containers.at(index) else { return };
        if container.phase != Phase::Ready {
            return;
        }
        let slots = container.slots();
        self.regroup(index, |container| container.phase = Phase::Draining);
        self.requeue_all(turn, slots);
        self.retire(turn, index);
    }

    /// Stops a draining container that nobody uses any more.
    pub(super) fn retire(&mut self, turn: &mut Turn<'_>, index: u32) {
        let Some(container) = self.containers.at(index) else { return };
        if container.phase == Phase::Draining && container.is_unused() {
            let id = container.id.clone();
            self.halt(turn.now, index, &"it is being stopped".into());
            turn.push(Effect::Stop { id });
        }
    }

    pub(super) fn close(&mut self, turn: &mut Turn<'_>, closing: Closing) {
        self.closing = Some(closing);
        let waiters: Vec<u64> = self.waiters.keys().copied().collect();
        for waiter in waiters {
            self.refuse(turn, waiter, Refusal::Closing);
        }
        let all: Vec<u32> = self.containers.iter().map(|container| container.key.index).collect();
        for index in all {
            match closing {
                Closing::Keep => {}
                Closing::Drain => {
                    self.stop_unstarted(turn, index);
                    self.drain(turn, index);
                }
                Closing::Stop => self.abandon(turn, index, "the pool was shut down"),
            }
        }
    }

    /// A container that is still starting has nothing to wait for.
    fn stop_unstarted(&mut self, turn: &mut Turn<'_>, index: u32) {
        if self.containers.at(index).is_some_and(|it| it.phase == Phase::Starting) {
            self.abandon(turn, index, "the pool was shut down");
        }
    }
}
