//! What a bystander can say about the core from its events and effects alone.

use crate::core::{Acquire, Effect, Event, LeaseEnd, LeaseRecord, Record, Refusal, WaiterId};
use slotmux_protocol::{
    ContainerId, LeaseId, SlotIndex, TrajectoryId,
    link::{SlotReport, SlotState},
};
use std::collections::{BTreeSet, HashMap, HashSet};

pub(super) type Place = (ContainerId, SlotIndex);

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    Granted(Vec<LeaseId>),
    Refused(Refusal),
    Cancelled,
}

#[derive(Debug)]
struct Pending {
    request: Acquire,
    /// Order of arrival; the successor of a superseded request inherits it.
    arrival: u64,
}

#[derive(Debug, Default)]
pub(super) struct Model {
    pending: HashMap<WaiterId, Pending>,
    pub(super) answers: HashMap<WaiterId, Answer>,
    arrivals: u64,
    epoch: u64,
    /// Lent or leased, with whom it is for.
    live: HashMap<LeaseId, (Place, TrajectoryId)>,
    granted: HashSet<LeaseId>,
    opened: HashSet<LeaseId>,
    /// The epoch that a slot must be cleaned of before it is given again.
    soiled: HashMap<Place, u64>,
    /// In this turn.
    rebooted: Option<ContainerId>,
    boots: HashMap<ContainerId, std::sync::Arc<str>>,
}

impl Model {
    pub(super) fn is_everybody_answered(&self) -> bool {
        self.pending.is_empty()
    }

    pub(super) fn granted(&self) -> Vec<LeaseId> {
        let mut leases: Vec<_> = self.granted.iter().copied().collect();
        leases.sort();
        leases
    }

    pub(super) fn waiting(&self) -> Vec<WaiterId> {
        let mut ids: Vec<_> = self.pending.keys().copied().collect();
        ids.sort();
        ids
    }

    /// `name` is of the container that the event is about.
    pub(super) fn hears(&mut self, event: &Event, name: Option<&ContainerId>) {
        self.rebooted = None;
        match (event, name) {
            (Event::Acquire(request), _) => self.asked(request),
            (Event::Cancel { waiter }, _) if self.pending.remove(waiter).is_some() => {
                self.answer(*waiter, Answer::Cancelled);
            }
            (Event::Opened { epoch, .. }, Some(_)) => {
                self.opened.insert(LeaseId(*epoch));
            }
            (Event::Clean { at, epoch }, Some(name)) => {
                self.cleaned(&(name.clone(), at.slot), epoch.0);
            }
            (Event::LinkUp { reports, boot, .. }, Some(name)) => {
                let before = self.boots.insert(name.clone(), boot.clone());
                if before.is_some_and(|before| before != *boot) {
                    // A server starts with nothing in its slots. Those that the core still has
                    // leases on are soiled when these end, in the same turn.
                    self.soiled.retain(|(soiled, _), _| soiled != name);
                    self.rebooted = Some(name.clone());
                }
                self.reported(name, reports);
            }
            _ => {}
        }
    }

    fn asked(&mut self, request: &Acquire) {
        self.arrivals += 1;
        let older = self
            .pending
            .values()
            .find(|it| it.request.trajectory == request.trajectory)
            .filter(|it| it.request.profile == request.profile);
        let arrival = older.map_or(self.arrivals, |it| it.arrival);
        self.pending.insert(request.waiter, Pending { request: request.clone(), arrival });
    }

    fn reported(&mut self, name: &ContainerId, reports: &[SlotReport]) {
        for report in reports {
            let place = (name.clone(), report.slot);
            match &report.state {
                SlotState::Clean { fence } => self.cleaned(&place, fence.0),
                SlotState::Open { holder } => {
                    self.opened.insert(holder.lease);
                }
                SlotState::Dirty { .. } => {}
            }
        }
    }

    fn cleaned(&mut self, place: &Place, epoch: u64) {
        if self.soiled.get(place).is_some_and(|last| epoch >= *last) {
            self.soiled.remove(place);
        }
    }

    pub(super) fn sees(&mut self, effect: &Effect) {
        match effect {
            Effect::Journal(Record::LeaseOpened(lease)) => self.lent(lease),
            Effect::Journal(Record::LeaseEnded { lease }) => self.ended(*lease),
            Effect::Grant { waiter, leases } => self.grant(*waiter, leases),
            Effect::Refuse { waiter, why } => {
                assert!(self.pending.remove(waiter).is_some(), "{waiter:?} was not waiting");
                self.answer(*waiter, Answer::Refused(why.clone()));
            }
            Effect::LeaseAdopted { lease } => {
                self.granted.insert(*lease);
            }
            Effect::LeaseEnded { lease, how, .. } => {
                assert!(self.granted.remove(lease), "{lease} ended twice, or was never granted");
                assert!(*how != LeaseEnd::Revoked("".into()), "a revocation says why");
            }
            // What comes next under this name would be another container.
            Effect::ContainerEnded { id, .. } => self.soiled.retain(|(name, _), _| name != id),
            _ => {}
        }
    }

    fn lent(&mut self, lease: &LeaseRecord) {
        let place = (lease.container.clone(), lease.slot);
        let taken = self.live.values().any(|(other, _)| *other == place);
        assert!(!taken, "{place:?} was given twice");
        assert!(!self.soiled.contains_key(&place), "{place:?} was given before it was clean");
        let epoch = lease.lease.0.0;
        self.live.insert(lease.lease, (place, lease.trajectory.clone()));
        let Some(id) = self.waiter_of(&lease.trajectory) else { return };
        assert!(epoch > self.epoch, "epochs rise");
        self.epoch = epoch;
        self.assert_is_first(id);
    }

    fn waiter_of(&self, trajectory: &TrajectoryId) -> Option<WaiterId> {
        let mut mine = self.pending.iter().filter(|(_, it)| it.request.trajectory == *trajectory);
        mine.next().map(|(id, _)| *id)
    }

    /// Whoever goes before this one by priority, then by arrival, has slots already.
    fn assert_is_first(&self, id: WaiterId) {
        let served: BTreeSet<&TrajectoryId> = self
            .live
            .iter()
            .filter(|(lease, _)| !self.granted.contains(lease))
            .map(|(_, (_, trajectory))| trajectory)
            .collect();
        let place = |it: &Pending| (std::cmp::Reverse(it.request.priority), it.arrival);
        let mine = &self.pending[&id];
        for (other, it) in &self.pending {
            if it.request.profile == mine.request.profile && place(it) < place(mine) {
                assert!(served.contains(&it.request.trajectory), "{id:?} overtook {other:?}");
            }
        }
    }

    fn ended(&mut self, lease: LeaseId) {
        if let Some((place, _)) = self.live.remove(&lease)
            && self.rebooted.as_ref() != Some(&place.0)
        {
            self.soiled.insert(place, lease.0.0);
        }
    }

    fn grant(&mut self, waiter: WaiterId, leases: &[LeaseId]) {
        let Pending { request, .. } =
            self.pending.remove(&waiter).expect("only who waits is granted");
        assert_eq!(leases.len(), request.count as usize, "all or none");
        let places: HashSet<_> = leases.iter().map(|lease| &self.live[lease].0).collect();
        assert_eq!(places.len(), leases.len(), "a slot for each");
        for lease in leases {
            assert_eq!(self.live[lease].1, request.trajectory);
            assert!(self.opened.contains(lease), "{lease} was granted before it was open");
        }
        self.granted.extend(leases);
        self.answer(waiter, Answer::Granted(leases.to_vec()));
    }

    fn answer(&mut self, waiter: WaiterId, answer: Answer) {
        let before = self.answers.insert(waiter, answer);
        assert_eq!(before, None, "{waiter:?} was answered twice");
    }
}
