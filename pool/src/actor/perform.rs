//! What the core wants done, done.

use super::{
    Grant, Shell,
    grants::Room,
    shell::{no_lease, route_end},
};
use crate::{
    core::{
        ContainerKey, Effect, Event, GoneKind, LeaseEnd, NoLease, Record, Refusal, Spot, WaiterId,
    },
    routes::Route,
};
use slotmux_protocol::{
    CallLimits, Code, ContainerId, LeaseId, Problem, SlotIndex, TrajectoryId, link::Holder, v1,
};
use std::sync::Arc;

impl Shell {
    /// Adds what is for the journal to `records`, and what the core asked for to `follow`.
    pub(super) fn perform(
        &mut self,
        effect: Effect,
        records: &mut Vec<Record>,
        follow: &mut Vec<Event>,
    ) {
        match effect {
            Effect::Journal(record) => {
                if let Record::LeaseOpened(lease) = &record {
                    self.grants.rooms.insert(lease.lease, Room::new(self.clock.pulse()));
                }
                if let Record::LeaseEnded { lease } = &record
                    && self.grants.rooms.get(lease).is_some_and(|room| room.waiting.is_empty())
                {
                    self.grants.rooms.remove(lease);
                }
                records.push(record);
            }
            Effect::Launch { container, id, profile } => {
                let profile = usize::from(profile.0);
                self.containers.launch(container, id, profile);
            }
            Effect::Stop { id } => self.containers.stop(self.core.container(&id), id),
            Effect::Open { at, lease, trajectory, profile, ttl_ms } => {
                let profile = self.config.profiles[usize::from(profile.0)].name.clone();
                let holder = Holder { lease, trajectory, profile, ttl_ms };
                if let Some(link) = self.containers.link(at.container) {
                    link.open(at.slot, holder);
                }
            }
            Effect::Reset { at, epoch } => {
                if let Some(link) = self.containers.link(at.container) {
                    link.reset(at.slot, epoch);
                }
            }
            Effect::Grant { waiter, leases } => self.granted(waiter, &leases),
            Effect::Refuse { waiter, why } => self.grants.refuse(waiter, problem(&why)),
            Effect::LeaseEnded { lease, trajectory, container, slot, how } => {
                self.lease_ended(lease, (trajectory, container, slot), how, follow);
            }
            Effect::LeaseAdopted { lease } => self.adopted(lease),
            Effect::AskActivity { lease } => follow.push(self.activity_of(lease)),
            Effect::SlotQuarantined { at, why } => self.quarantined(at, &why),
            Effect::ContainerUp { container } => {
                let id = self.core.container_id(container).cloned();
                tracing::info!(container = id.as_ref().map(ContainerId::as_str), "container ready");
                self.emit(v1::EventKind::ContainerReady, |it| it.container = id);
            }
            Effect::ContainerEnded { container, id, kind, why } => {
                self.container_ended(container, id, kind, &why);
            }
        }
    }

    fn granted(&mut self, waiter: WaiterId, leases: &[LeaseId]) {
        for lease in leases {
            let is_new = !self.routes.is_live(*lease);
            self.route(*lease);
            if is_new && let Ok(view) = self.core.lease(*lease) {
                self.emit(v1::EventKind::LeaseAcquired, |it| {
                    it.lease_id = Some(*lease);
                    it.trajectory_id = Some(view.trajectory);
                    it.container = Some(view.container);
                    it.slot = Some(view.at.slot);
                });
            }
        }
        if self.grants.hold(waiter, leases) {
            self.tell_grant(waiter, leases);
        }
    }

    /// Everything is written. A client that is gone gives its leases back.
    pub(super) fn tell_grant(&mut self, waiter: WaiterId, leases: &[LeaseId]) {
        let built: Result<Vec<_>, _> = leases.iter().map(|lease| self.lease(*lease)).collect();
        let Some(reply) = self.grants.replies.remove(&waiter) else {
            for lease in leases {
                self.give_back(*lease);
            }
            return;
        };
        match built {
            Ok(built) => {
                let rooms = &self.grants.rooms;
                let claim =
                    |lease: &LeaseId| Some((*lease, Arc::clone(&rooms.get(lease)?.claimed)));
                let claims = leases.iter().filter_map(claim).collect();
                // Not taken: the grant comes back by its own drop.
                let _ = reply.send(Ok(Grant::new(built, claims, self.home.clone())));
            }
            Err(problem) => {
                let _ = reply.send(Err(problem));
                for lease in leases {
                    self.give_back(*lease);
                }
            }
        }
    }

    fn adopted(&mut self, lease: LeaseId) {
        let pulse = self.clock.pulse();
        let room = self.grants.rooms.entry(lease).or_insert_with(|| Room::adopted(pulse));
        room.claimed.store(true, std::sync::atomic::Ordering::Release);
        self.route(lease);
    }

    /// Lets calls find the lease's container, once that has a link.
    fn route(&self, lease: LeaseId) {
        let Ok(view) = self.core.lease(lease) else { return };
        let (Some(link), Some(room)) =
            (self.containers.link(view.at.container), self.grants.rooms.get(&lease))
        else {
            return;
        };
        self.routes.insert(
            lease,
            Route {
                link: link.clone(),
                slot: view.at.slot,
                epoch: lease.epoch(),
                trajectory: view.trajectory,
                limits: CallLimits::default(),
                pulse: Arc::clone(&room.pulse),
            },
        );
    }

    /// The container's link is new: leases that were found before it can be reached now.
    pub(super) fn route_leases(&self, container: ContainerKey) {
        for lease in self.core.leases_of(container) {
            self.route(lease);
        }
    }

    fn lease_ended(
        &mut self,
        lease: LeaseId,
        (trajectory, container, slot): (TrajectoryId, ContainerId, SlotIndex),
        how: LeaseEnd,
        follow: &mut Vec<Event>,
    ) {
        if let Some(room) = self.grants.rooms.remove(&lease) {
            for waiter in room.waiting {
                let problem = no_lease(lease, NoLease::Ended(how.clone()));
                let rest = self.grants.unwritten.get(&waiter).map(|it| it.leases.clone());
                self.grants.refuse(waiter, problem);
                for lease in rest.unwrap_or_default() {
                    if self.grants.is_orphaned(lease) {
                        follow.push(Event::Release { lease });
                    }
                }
            }
        }
        let kind = match &how {
            LeaseEnd::Released => v1::EventKind::LeaseReleased,
            LeaseEnd::Expired => v1::EventKind::LeaseExpired,
            LeaseEnd::Revoked(_) => v1::EventKind::LeaseRevoked,
        };
        let reason = match &how {
            LeaseEnd::Revoked(why) => Some(why.to_string()),
            LeaseEnd::Released | LeaseEnd::Expired => None,
        };
        if let Some(reason) = &reason {
            tracing::warn!(%lease, %container, %slot, reason, "lease revoked");
        }
        self.routes.end(lease, route_end(how));
        self.emit(kind, |it| {
            it.lease_id = Some(lease);
            it.trajectory_id = Some(trajectory);
            it.container = Some(container);
            it.slot = Some(slot);
            it.reason = reason;
        });
    }

    fn activity_of(&self, lease: LeaseId) -> Event {
        let room = self.grants.rooms.get(&lease);
        let last = room.map(|room| self.clock.last_activity(&room.pulse)).unwrap_or_default();
        Event::Activity { lease, last }
    }

    fn quarantined(&mut self, at: Spot, why: &str) {
        let container = self.core.container_id(at.container).cloned();
        let name = container.as_ref().map(ContainerId::as_str);
        tracing::warn!(container = name, slot = %at.slot, why, "slot quarantined");
        self.emit(v1::EventKind::SlotQuarantined, |it| {
            it.container = container;
            it.slot = Some(at.slot);
            it.reason = Some(why.to_owned());
        });
    }

    fn container_ended(&mut self, key: ContainerKey, id: ContainerId, kind: GoneKind, why: &str) {
        self.containers.forget(key, why);
        let kind = match kind {
            GoneKind::Stopped => {
                tracing::info!(container = %id, "container stopped");
                v1::EventKind::ContainerStopped
            }
            GoneKind::Lost => {
                tracing::warn!(container = %id, why, "container lost");
                v1::EventKind::ContainerLost
            }
        };
        self.emit(kind, |it| {
            it.container = Some(id);
            it.reason = Some(why.to_owned());
        });
    }

    fn emit(&mut self, kind: v1::EventKind, fill: impl FnOnce(&mut v1::Event)) {
        self.event_seq += 1;
        if self.events.receiver_count() == 0 {
            return;
        }
        let mut event = v1::Event {
            seq: self.event_seq,
            at_ms: self.clock.now().0,
            kind,
            lease_id: None,
            trajectory_id: None,
            container: None,
            slot: None,
            reason: None,
        };
        fill(&mut event);
        // Nobody listens any more, which is fine.
        let _ = self.events.send(event);
    }
}

fn problem(why: &Refusal) -> Problem {
    let code = match why {
        Refusal::Deadline { .. } => Code::AcquireTimeout,
        Refusal::CannotLaunch { .. } => Code::LaunchFailed,
        Refusal::Superseded => Code::Superseded,
        Refusal::AlreadyHeld { .. } => Code::AlreadyHeld,
        Refusal::NeverEnough { .. } => Code::NeverEnough,
        Refusal::NotJournalled => Code::JournalUnavailable,
        Refusal::Closing => Code::ShuttingDown,
    };
    let problem = Problem::new(code, why.to_string());
    if code == Code::NeverEnough { problem.at("count") } else { problem }
}
