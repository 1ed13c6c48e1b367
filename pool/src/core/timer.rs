//! What happens because time passed.

use super::{
    Core, Refusal, Turn,
    container::{LinkState, Phase},
    slots::State,
    types::{ContainerKey, Millis},
};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    /// The link of a container should have been up for the first time.
    Start(ContainerKey),
    /// The link of a container has been down for long, unless it came back.
    LinkDead(ContainerKey),
    /// Resets of a container should be done.
    Resets(ContainerKey),
    /// A container is old.
    Retire(ContainerKey),
    /// A profile may launch again.
    Backoff(u16),
    /// A profile may have more containers than it needs.
    Scale(u16),
}

impl Core {
    pub(super) fn tick(&mut self, turn: &mut Turn<'_>) {
        while let Some((_, timer)) = self.timers.pop(turn.now) {
            self.fire(turn, timer);
        }
        while let Some((_, waiter)) = self.deadlines.pop(turn.now) {
            let profile = self.waiters.get(&waiter).map(|it| usize::from(it.profile));
            let trouble = profile.and_then(|it| self.profiles[it].launches.trouble.clone());
            self.refuse(turn, waiter, Refusal::Deadline { trouble });
        }
        while let Some((when, at)) = self.expiries.pop(turn.now) {
            self.maybe_expired(turn, when, at);
        }
        self.sweep();
    }

    fn fire(&mut self, turn: &mut Turn<'_>, timer: Timer) {
        match timer {
            Timer::Start(container) => self.check_start(turn, container),
            Timer::LinkDead(container) => self.check_link(turn, container),
            Timer::Resets(container) => self.check_resets(turn, container),
            Timer::Retire(container) => {
                let Some(profile) = self.containers.get(container).map(|it| it.profile) else {
                    return;
                };
                self.drain(turn, container.index);
                self.settle(turn, profile);
            }
            Timer::Backoff(profile) => self.settle(turn, profile),
            Timer::Scale(profile) => self.check_surplus(turn, profile),
        }
    }

    fn check_start(&mut self, turn: &mut Turn<'_>, key: ContainerKey) {
        let Some(container) = self.containers.get(key) else { return };
        if *container.link() != LinkState::Never || container.phase == Phase::Stopping {
            return;
        }
        let (profile, phase) = (container.profile, container.phase);
        let why = "its sandbox-server was not reachable in time".into();
        if phase == Phase::Starting {
            self.note_failure(turn, profile, super::Retry::Later, &why);
        }
        self.lose(turn, key.index, why);
        self.settle(turn, profile);
    }

    fn check_link(&mut self, turn: &mut Turn<'_>, key: ContainerKey) {
        let Some(container) = self.containers.get(key) else { return };
        let LinkState::Down { since, why } = container.link() else { return };
        let down_ms = turn.now.since(*since);
        if down_ms < self.settings.dead_after_ms || container.phase == Phase::Stopping {
            return;
        }
        let why = format!("its link has been down for {down_ms} ms: {why}").into();
        let profile = container.profile;
        self.lose(turn, key.index, why);
        self.settle(turn, profile);
    }

    fn check_resets(&mut self, turn: &mut Turn<'_>, key: ContainerKey) {
        let limit_ms = self.settings.reset_timeout_ms;
        let Some(container) = self.containers.at_mut(key.index) else { return };
        if container.key != key {
            return;
        }
        container.resets_watched = false;
        let (profile, is_linked) = (container.profile, container.is_linked());
        let mut oldest: Option<Millis> = None;
        for at in container.slots().places() {
            let State::Resetting { since } = self.slots[at].state else { continue };
            if is_linked && turn.now.since(since) >= limit_ms {
                self.quarantine(turn, at, "its reset took too long".into());
            } else {
                oldest = Some(oldest.map_or(since, |oldest| oldest.min(since)));
            }
        }
        if let (Some(oldest), Some(container)) = (oldest, self.containers.at_mut(key.index)) {
            container.resets_watched = true;
            // While the link is down the reset cannot even be sent.
            let due = oldest.plus(limit_ms).max(turn.now.plus(1_000));
            self.timers.push(due, Timer::Resets(key));
        }
        self.settle(turn, profile);
    }

    /// Keeps the heaps in proportion to what they are about.
    fn sweep(&mut self) {
        if self.expiries.is_bloated(self.slots.len()) {
            self.expiries.sweep(|when, at| self.slots[*at].due == when);
        }
        if self.deadlines.is_bloated(self.waiters.len()) {
            self.deadlines.sweep(|_, waiter| self.waiters.contains_key(waiter));
        }
        let live = 4 * self.containers.len() + 2 * self.profiles.len();
        if self.timers.is_bloated(live) {
            self.timers.sweep(|_, timer| match timer {
                Timer::Start(key) => self
                    .containers
                    .get(*key)
                    .is_some_and(|container| *container.link() == LinkState::Never),
                Timer::LinkDead(key) => self
                    .containers
                    .get(*key)
                    .is_some_and(|container| matches!(container.link(), LinkState::Down { .. })),
                Timer::Resets(key) | Timer::Retire(key) => self.containers.get(*key).is_some(),
                Timer::Backoff(_) | Timer::Scale(_) => true,
            });
        }
    }
}
