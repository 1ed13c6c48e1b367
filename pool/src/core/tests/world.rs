//! Containers that do what they are told, and a post office that need not be reliable.

use super::model::Model;
use crate::core::{
    Acquire, ContainerKey, Core, Effect, Event, LeaseEnd, Millis, NoLease, ProfileKey,
    ProfileSettings, Recovered, Retry, SeenContainer, Settings, Spot, WaiterId,
};
use slotmux_protocol::{
    ContainerId, Epoch, ProfileName, SlotIndex, TrajectoryId,
    link::{Holder, SlotReport, SlotState},
};
use std::collections::BTreeMap;

#[derive(Debug)]
pub(super) struct Server {
    pub(super) key: ContainerKey,
    pub(super) boot: u64,
    pub(super) slots: Vec<SlotState>,
    pub(super) is_linked: bool,
}

pub(super) struct World {
    pub(super) core: Core,
    pub(super) now: Millis,
    pub(super) model: Model,
    pub(super) mail: Vec<Event>,
    pub(super) servers: BTreeMap<ContainerId, Server>,
    pub(super) effects: Vec<Effect>,
    pub(super) asked: u64,
    /// What becomes of the next launches and resets.
    pub(super) launches_fail: Option<Retry>,
    pub(super) resets_fail: bool,
    pub(super) leases_are_active: bool,
    pub(super) watch: Watch,
    pub(super) told: u64,
}

/// How closely the core is watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Watch {
    /// By the model, and by an audit after each event.
    Closely,
    /// By an audit after so many events.
    Every(u64),
}

pub(super) fn profile(name: &str, slots: u16, min: u32, max: u32) -> ProfileSettings {
    ProfileSettings {
        name: ProfileName::new(name).unwrap(),
        slots_per_container: slots,
        containers_min: min,
        containers_max: max,
        headroom_slots: 0,
        cooldown_ms: 60_000,
        start_timeout_ms: 30_000,
        retire_after_ms: 86_400_000,
        backoff_min_ms: 100,
        backoff_max_ms: 10_000,
    }
}

pub(super) fn settings(profiles: Vec<ProfileSettings>) -> Settings {
    Settings {
        name_stem: "test".into(),
        profiles,
        dead_after_ms: 5_000,
        reset_timeout_ms: 60_000,
        ended_max: 1_000,
    }
}

impl World {
    pub(super) fn new(profiles: Vec<ProfileSettings>) -> Self {
        Self::recovered(profiles, Recovered::default(), Vec::new())
    }

    pub(super) fn recovered(
        profiles: Vec<ProfileSettings>,
        recovered: Recovered,
        seen: Vec<SeenContainer>,
    ) -> Self {
        let now = Millis(1_000_000);
        let mut effects = Vec::new();
        let core = Core::start(settings(profiles), recovered, seen, now, &mut effects);
        let mut world = Self {
            core,
            now,
            model: Model::default(),
            mail: Vec::new(),
            servers: BTreeMap::new(),
            effects: Vec::new(),
            asked: 0,
            launches_fail: None,
            resets_fail: false,
            leases_are_active: false,
            watch: Watch::Closely,
            told: 0,
        };
        world.begin(effects);
        world
    }

    pub(super) fn tell(&mut self, event: Event) -> Result<(), NoLease> {
        if self.watch == Watch::Closely {
            let key = container_of(&event);
            let name = key.and_then(|key| self.core.container_id(key)).cloned();
            self.model.hears(&event, name.as_ref());
        }
        let mut effects = Vec::new();
        let answer = self.core.apply(self.now, event, &mut effects);
        self.told += 1;
        match self.watch {
            Watch::Every(events) if !self.told.is_multiple_of(events) => {}
            Watch::Closely | Watch::Every(_) => self.core.audit(self.now),
        }
        for effect in effects {
            if self.watch == Watch::Closely {
                self.model.sees(&effect);
            }
            self.act(&effect);
            self.effects.push(effect);
        }
        answer
    }

    /// What a core wants at its start. The leases that it ends then were granted before.
    fn begin(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            if !matches!(effect, Effect::LeaseEnded { .. }) {
                self.model.sees(&effect);
            }
            self.act(&effect);
            self.effects.push(effect);
        }
    }

    fn act(&mut self, effect: &Effect) {
        match effect {
            Effect::Launch { container, id, profile } => self.launch(*container, id, *profile),
            Effect::Stop { id } => {
                if let Some(server) = self.servers.remove(id) {
                    let why = "stopped".into();
                    self.mail.push(Event::ContainerGone { container: server.key, why });
                }
            }
            Effect::Open { at, lease, trajectory, profile, ttl_ms } => {
                let profile = self.core.profile_settings(*profile).unwrap().name.clone();
                let trajectory = trajectory.clone();
                let holder = Holder { lease: *lease, trajectory, profile, ttl_ms: *ttl_ms };
                self.open(*at, holder);
            }
            Effect::Reset { at, epoch } => self.reset(*at, *epoch),
            Effect::AskActivity { lease } => {
                let last = if self.leases_are_active { self.now } else { Millis(0) };
                self.mail.push(Event::Activity { lease: *lease, last });
            }
            _ => {}
        }
    }

    fn launch(&mut self, key: ContainerKey, id: &ContainerId, profile: ProfileKey) {
        if let Some(retry) = self.launches_fail {
            let why = "no room".into();
            self.mail.push(Event::LaunchFailed { container: key, retry, why });
            return;
        }
        let slots = self.core.profile_settings(profile).unwrap().slots_per_container;
        let slots = vec![SlotState::Clean { fence: Epoch(0) }; usize::from(slots)];
        self.servers.insert(id.clone(), Server { key, boot: 1, slots, is_linked: false });
        self.link(id.clone());
    }

    /// The link comes up, and says what the server knows now.
    pub(super) fn link(&mut self, id: ContainerId) {
        let Some(server) = self.servers.get_mut(&id) else { return };
        server.is_linked = true;
        let reports = (0..)
            .zip(&server.slots)
            .map(|(slot, state)| SlotReport { slot: SlotIndex(slot), state: state.clone() })
            .collect();
        let boot = server.boot.to_string().into();
        self.mail.push(Event::LinkUp { container: server.key, boot, reports });
    }

    pub(super) fn unlink(&mut self, id: &ContainerId) {
        let Some(server) = self.servers.get_mut(id) else { return };
        server.is_linked = false;
        self.mail.push(Event::LinkDown { container: server.key, why: "silent".into() });
    }

    fn server(&mut self, at: Spot) -> Option<&mut Server> {
        let id = self.core.container_id(at.container)?;
        self.servers.get_mut(id).filter(|it| it.is_linked)
    }

    fn open(&mut self, at: Spot, holder: Holder) {
        let epoch = holder.lease.0;
        let Some(server) = self.server(at) else { return };
        let slot = &mut server.slots[usize::from(at.slot.0)];
        let is_fine = match slot {
            SlotState::Clean { fence } => epoch > *fence,
            SlotState::Open { holder: open } => *open == holder,
            SlotState::Dirty { .. } => false,
        };
        if is_fine {
            *slot = SlotState::Open { holder };
            self.mail.push(Event::Opened { at, epoch });
        } else {
            self.mail.push(Event::Shut { at, epoch, why: "not clean".into() });
        }
    }

    fn reset(&mut self, at: Spot, epoch: Epoch) {
        let fails = self.resets_fail;
        let Some(server) = self.server(at) else { return };
        let slot = &mut server.slots[usize::from(at.slot.0)];
        let was = match slot {
            SlotState::Clean { fence } | SlotState::Dirty { fence } => *fence,
            SlotState::Open { holder } => holder.lease.0,
        };
        let fence = was.max(epoch);
        if fails {
            *slot = SlotState::Dirty { fence };
            self.mail.push(Event::Dirty { at, epoch, why: "busy".into() });
        } else {
            *slot = SlotState::Clean { fence };
            self.mail.push(Event::Clean { at, epoch });
        }
    }

    /// Delivers all mail, and the mail that follows from it, oldest first.
    pub(super) fn deliver(&mut self) {
        while !self.mail.is_empty() {
            for event in std::mem::take(&mut self.mail) {
                let _ = self.tell(event);
            }
        }
    }

    pub(super) fn pass(&mut self, span_ms: u64) {
        self.now = self.now.plus(span_ms);
        let _ = self.tell(Event::Tick);
    }

    pub(super) fn request(&mut self, trajectory: &str, count: u32) -> Acquire {
        self.asked += 1;
        Acquire {
            waiter: WaiterId(self.asked),
            profile: ProfileKey(0),
            trajectory: TrajectoryId::new(trajectory).unwrap(),
            count,
            priority: 0,
            deadline: self.now.plus(30_000),
            ttl_ms: 600_000,
        }
    }

    pub(super) fn acquire(&mut self, trajectory: &str, count: u32) -> WaiterId {
        let request = self.request(trajectory, count);
        let waiter = request.waiter;
        self.tell(Event::Acquire(request)).unwrap();
        waiter
    }

    pub(super) fn ends(&self) -> Vec<LeaseEnd> {
        let how = |effect: &Effect| match effect {
            Effect::LeaseEnded { how, .. } => Some(how.clone()),
            _ => None,
        };
        self.effects.iter().filter_map(how).collect()
    }

    pub(super) fn status(&self) -> slotmux_protocol::v1::ProfileStatus {
        self.core.status().next().unwrap().1
    }
}

fn container_of(event: &Event) -> Option<ContainerKey> {
    match event {
        Event::LaunchFailed { container, .. }
        | Event::ContainerGone { container, .. }
        | Event::LinkUp { container, .. }
        | Event::LinkDown { container, .. } => Some(*container),
        Event::Opened { at, .. }
        | Event::Shut { at, .. }
        | Event::Clean { at, .. }
        | Event::Dirty { at, .. }
        | Event::Broken { at, .. } => Some(at.container),
        _ => None,
    }
}
