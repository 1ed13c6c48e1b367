//! The core's beginning: from nothing, or from what an earlier process left behind.
//!
//! Facts decide: a container exists when the runtime lists it, whatever the journal says. A lease
//! exists when the journal has it and its slot's container exists. The rest is learnt when the
//! containers' links come up.

use super::{
    ContainerRecord, Core, Effect, EpochCounter, LeaseRecord, Millis, Record, Settings, Turn,
    container::Phase,
    profile::Profile,
    slots::{Lease, State},
    timer::Timer,
};
use slotmux_protocol::{ContainerId, ProfileName};
use std::collections::HashMap;

/// What the journal holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recovered {
    pub leases: Vec<LeaseRecord>,
    pub containers: Vec<ContainerRecord>,
    /// The highest epoch that was ever written.
    pub epoch_max: u64,
}

/// A container of this pool that the runtime lists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenContainer {
    pub id: ContainerId,
    pub profile: ProfileName,
    pub slots: u16,
    /// How long to wait for its link.
    pub patience_ms: u64,
}

impl Core {
    pub fn start(
        settings: Settings,
        recovered: Recovered,
        seen: Vec<SeenContainer>,
        now: Millis,
        effects: &mut Vec<Effect>,
    ) -> Self {
        let profiles = settings.profiles.iter().cloned().map(Profile::new).collect();
        // The clock lifts the counter over what a lost journal may have known.
        let clock = now.0.saturating_mul(1 << 10).min(1 << 52);
        let next = clock.max(recovered.epoch_max.saturating_add(1));
        let ended_max = settings.ended_max;
        let mut core = Self {
            settings,
            profiles,
            containers: super::Arena::default(),
            slots: super::Slots::default(),
            by_id: HashMap::new(),
            unheard: Vec::new(),
            leases: super::Index::default(),
            ended: super::Ended::new(ended_max),
            held: super::Index::default(),
            trajectory_hash: std::hash::RandomState::new(),
            waiting: HashMap::new(),
            waiters: super::NumberMap::default(),
            expiries: super::Due::default(),
            deadlines: super::Due::default(),
            timers: super::Due::default(),
            epochs: EpochCounter { next, journalled: recovered.epoch_max },
            next_ticket: 0,
            next_container: 0,
            closing: None,
        };
        let turn = &mut Turn { now, effects };
        for container in seen {
            core.take_over(turn, container);
        }
        core.take_boots(turn, recovered.containers);
        core.take_leases(turn, recovered.leases);
        for profile in 0..core.profiles.len() {
            core.settle(turn, u16::try_from(profile).unwrap_or(u16::MAX));
        }
        core
    }

    fn take_over(&mut self, turn: &mut Turn<'_>, seen: SeenContainer) {
        let SeenContainer { id, profile, slots, patience_ms } = seen;
        let Some(profile) = self.profile(&profile).filter(|_| slots > 0) else {
            turn.push(Effect::Stop { id });
            return;
        };
        if self.by_id.contains_key(&id) {
            return;
        }
        let key = self.add_container(id, profile.0, slots);
        self.regroup(key.index, |container| container.phase = Phase::Ready);
        self.unheard.push(key);
        self.timers.push(turn.now.plus(patience_ms), Timer::Start(key));
    }

    fn take_boots(&mut self, turn: &mut Turn<'_>, known: Vec<ContainerRecord>) {
        for ContainerRecord { id, boot } in known {
            let key = self.by_id.get(&id).copied();
            match key.and_then(|key| self.containers.at_mut(key.index)) {
                Some(container) => container.boot = boot,
                None => turn.push(Effect::Journal(Record::ContainerGone { id })),
            }
        }
    }

    fn take_leases(&mut self, turn: &mut Turn<'_>, mut leases: Vec<LeaseRecord>) {
        // Newest first: when the end of a lease could not be written, its successor is the one.
        leases.sort_by_key(|lease| std::cmp::Reverse(lease.lease));
        for lease in leases {
            let Some(container) =
                self.by_id.get(&lease.container).and_then(|key| self.containers.at(key.index))
            else {
                let why = "its container was gone when the pool came back";
                self.revoke_unplaced(turn, lease, why);
                continue;
            };
            let at = container.slots().get(lease.slot.0);
            let Some(at) = at.filter(|at| self.slots[*at].state == State::Unseen) else {
                self.revoke_unplaced(turn, lease, "its slot was given to a later lease");
                continue;
            };
            self.slots[at].epoch = lease.lease.0.0;
            // Renewals are not written, so each lease starts its time anew.
            let expires = turn.now.plus(lease.ttl_ms);
            let LeaseRecord { trajectory, ttl_ms, .. } = lease;
            self.hold(turn, at, Lease { trajectory, ttl_ms, expires });
        }
    }
}
