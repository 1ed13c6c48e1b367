//! One kind of slot: its settings, its queue, its counters.

use super::{
    bits::Bits,
    container::{Group, Phase, Tally},
    slots::Kind,
    types::Millis,
};
use slotmux_protocol::{ProfileName, v1};
use std::{cmp::Reverse, collections::BTreeMap, sync::Arc};

/// What the core has to know of a profile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProfileSettings {
    pub name: ProfileName,
    pub slots_per_container: u16,
    pub containers_min: u32,
    pub containers_max: u32,
    /// Free slots to have ready beyond the demand.
    pub headroom_slots: u32,
    /// More containers than the demand needs are kept for this long.
    pub cooldown_ms: u64,
    /// A container whose link is not up this long after its launch is given up.
    pub start_timeout_ms: u64,
    /// A container that is older gets no new leases.
    pub retire_after_ms: u64,
    pub backoff_min_ms: u64,
    pub backoff_max_ms: u64,
}

impl ProfileSettings {
    pub fn slots_max(&self) -> u32 {
        self.containers_max.saturating_mul(u32::from(self.slots_per_container))
    }
}

/// A waiter's place in the queue: the highest priority first, then who came first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) priority: Reverse<i16>,
    pub(super) ticket: u64,
}

#[derive(Debug)]
pub(super) struct Profile {
    pub(super) settings: ProfileSettings,
    pub(super) queue: BTreeMap<Place, u64>,
    /// Slots that the queue asks for, all waiters together.
    pub(super) queued_slots: u64,
    pub(super) tallies: [Tally; 3],
    pub(super) counts: [u32; 4],
    /// Containers with a slot to give.
    pub(super) with_free: Bits,
    /// Containers that nobody needs at the moment.
    pub(super) idle: Bits,
    pub(super) totals: v1::Totals,
    pub(super) launches: Launches,
    pub(super) surplus: Option<Surplus>,
    pub(super) scale_timer: ScaleTimer,
}

/// How launching goes.
#[derive(Debug, Default)]
pub(super) struct Launches {
    pub(super) failures: u32,
    pub(super) not_before: Millis,
    pub(super) trouble: Option<Arc<str>>,
    /// The last failure was one that waiting does not mend.
    pub(super) hopeless: bool,
}

/// More containers than needed, without a break since then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Surplus {
    pub(super) since: Millis,
    /// The most that were needed in this time.
    pub(super) needed_max: u32,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum ScaleTimer {
    #[default]
    Off,
    Armed,
}

impl Profile {
    pub(super) fn new(settings: ProfileSettings) -> Self {
        Self {
            settings,
            queue: BTreeMap::new(),
            queued_slots: 0,
            tallies: [Tally::default(); 3],
            counts: [0; 4],
            with_free: Bits::default(),
            idle: Bits::default(),
            totals: v1::Totals::default(),
            launches: Launches::default(),
            surplus: None,
            scale_timer: ScaleTimer::Off,
        }
    }

    pub(super) fn tally(&self, group: Group) -> &Tally {
        &self.tallies[group as usize]
    }

    pub(super) fn tally_mut(&mut self, group: Group) -> &mut Tally {
        &mut self.tallies[group as usize]
    }

    pub(super) fn count(&self, phase: Phase) -> u32 {
        self.counts[phase as usize]
    }

    /// Slots that can be given now.
    pub(super) fn free(&self) -> u32 {
        self.tally(Group::Active).of(Kind::Free)
    }

    /// Containers that serve now or soon.
    pub(super) fn serving(&self) -> u32 {
        self.count(Phase::Starting) + self.count(Phase::Ready)
    }

    /// The containers that the demand asks for. Quarantined slots are no capacity, so they count
    /// as if they were taken.
    pub(super) fn needed(&self) -> u32 {
        let taken: u64 = [Group::Active, Group::Unlinked]
            .map(|group| self.tally(group))
            .iter()
            .map(|tally| u64::from(tally.busy() + tally.of(Kind::Quarantined)))
            .sum();
        let demand = taken + self.queued_slots + u64::from(self.settings.headroom_slots);
        let containers = demand.div_ceil(u64::from(self.settings.slots_per_container));
        u32::try_from(containers)
            .unwrap_or(u32::MAX)
            .clamp(self.settings.containers_min, self.settings.containers_max)
    }

    pub(super) fn status(&self) -> v1::ProfileStatus {
        let all = |kind| self.tallies.iter().map(|tally| tally.of(kind)).sum::<u32>();
        let unlinked = self.tally(Group::Unlinked);
        let linked = |kind| all(kind) - unlinked.of(kind);
        v1::ProfileStatus {
            containers: v1::ContainerCounts {
                starting: self.count(Phase::Starting),
                ready: self.count(Phase::Ready),
                draining: self.count(Phase::Draining),
                stopping: self.count(Phase::Stopping),
                min: self.settings.containers_min,
                max: self.settings.containers_max,
            },
            slots: v1::SlotCounts {
                free: self.free(),
                leased: all(Kind::Leased) + all(Kind::Opening),
                resetting: linked(Kind::Resetting),
                quarantined: linked(Kind::Quarantined),
                unreachable: unlinked.total() - unlinked.busy(),
            },
            waiting: u32::try_from(self.queue.len()).unwrap_or(u32::MAX),
            trouble: self.launches.trouble.as_deref().map(str::to_owned),
            totals: self.totals,
        }
    }
}
