//! The pool's state: a pure machine. Events go in, effects come out; it has no clock, does no I/O
//! and never waits. Whoever runs it performs the effects, in their order.
//!
//! Invariants (checked by `core/audit.rs` in every test):
//! - a slot of a ready container is in exactly one state, and has at most one lease;
//! - the number of a lease is its epoch, drawn from one counter that only rises;
//! - a slot that had a lease is given again only after `Clean` for that lease's epoch;
//! - every acquire is answered exactly once: granted, refused, or cancelled by its own client.
//!
//! Policies:
//! - A free slot is taken from the container at the lowest place that has one, so that work gathers
//!   at the front and containers at the back fall idle. Within a container the slot that has been
//!   free for longest goes first.
//! - The queue is strictly first come, first served within a priority: a gang that does not fit yet
//!   holds up those behind it, and so is never starved by them.
//! - A waiter whose slot fell away while it was being opened goes back to its old place.

mod acquire;
mod arena;
#[cfg(test)]
mod audit;
mod bits;
mod container;
mod due;
mod ended;
mod epochs;
mod event;
mod fleet;
mod grant;
mod hash;
mod index;
mod lease;
mod link;
mod profile;
mod recover;
mod scale;
mod slot;
mod slots;
#[cfg(test)]
mod tests;
mod timer;
mod types;

pub use event::{Acquire, ContainerRecord, Effect, Event, LeaseRecord, NoLease, Record, Refusal};
pub use lease::LeaseView;
pub use profile::ProfileSettings;
pub use recover::{Recovered, SeenContainer};
pub use types::{
    Closing, ContainerKey, GoneKind, LeaseEnd, Millis, ProfileKey, Retry, Spot, WaiterId,
};

use acquire::Waiter;
use arena::Arena;
use container::Container;
use due::Due;
use ended::Ended;
pub(crate) use hash::NumberMap;
use index::Index;
use profile::Profile;
use slotmux_protocol::{ContainerId, ProfileName, TrajectoryId, v1};
use slots::Slots;
use std::{collections::HashMap, hash::RandomState};
use timer::Timer;
use types::At;

/// What the core has to know of its pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The stem of container names; with a number, at most 256 bytes.
    pub name_stem: String,
    pub profiles: Vec<ProfileSettings>,
    /// A container whose link is down for longer is lost.
    pub dead_after_ms: u64,
    /// A slot whose reset takes longer is quarantined.
    pub reset_timeout_ms: u64,
    /// Ended leases whose end is remembered.
    pub ended_max: usize,
}

#[derive(Debug)]
pub struct Core {
    settings: Settings,
    profiles: Vec<Profile>,
    containers: Arena<Container>,
    slots: Slots,
    by_id: HashMap<ContainerId, ContainerKey>,
    /// Found at the start, and not linked since: what they have open may be unknown to us.
    unheard: Vec<ContainerKey>,
    /// Where leases are, by their epochs.
    leases: Index,
    ended: Ended,
    /// Where granted leases are, by their trajectories.
    held: Index,
    /// Trajectories are named by clients, who must not know which of them share a hash.
    trajectory_hash: RandomState,
    /// Which waiter is a trajectory's: at most one.
    waiting: HashMap<TrajectoryId, u64>,
    waiters: NumberMap<Waiter>,
    /// Of slots: at most one entry each, but for leases that were renewed for less.
    expiries: Due<At>,
    /// Of waiters.
    deadlines: Due<u64>,
    timers: Due<Timer>,
    epochs: EpochCounter,
    next_ticket: u64,
    next_container: u64,
    closing: Option<Closing>,
}

/// Where epochs come from, and which of them are no news.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct EpochCounter {
    next: u64,
    /// The last that the journal knows: up to here, a lease that is not in it has ended.
    journalled: u64,
}

impl EpochCounter {
    fn draw(&mut self) -> u64 {
        let epoch = self.next;
        self.next += 1;
        epoch
    }

    /// Whatever a server has seen is never drawn again.
    fn saw(&mut self, epoch: u64) {
        self.next = self.next.max(epoch.saturating_add(1));
    }
}

/// One event being worked on: when, and what follows from it.
struct Turn<'a> {
    now: Millis,
    effects: &'a mut Vec<Effect>,
}

impl Turn<'_> {
    fn push(&mut self, effect: Effect) {
        self.effects.push(effect);
    }
}

impl Core {
    /// Takes in one event and adds what follows to `effects`. Only a wish can be refused; news that
    /// comes late, twice or against what we know is made sense of or ignored.
    pub fn apply(
        &mut self,
        now: Millis,
        event: Event,
        effects: &mut Vec<Effect>,
    ) -> Result<(), NoLease> {
        let turn = &mut Turn { now, effects };
        match event {
            Event::Acquire(acquire) => self.acquire(turn, acquire),
            Event::Cancel { waiter } => self.cancel(turn, waiter),
            Event::Release { lease } => return self.release(turn, lease),
            Event::Renew { lease, ttl_ms } => return self.renew(turn, lease, ttl_ms),
            Event::Close(closing) => self.close(turn, closing),
            Event::Tick => self.tick(turn),
            Event::Activity { lease, last } => self.activity(turn, lease, last),
            Event::NotJournalled { lease } => self.not_journalled(turn, lease),
            Event::LaunchFailed { container, retry, why } => {
                self.launch_failed(turn, container, retry, why);
            }
            Event::ContainerGone { container, why } => self.gone(turn, container, &why),
            Event::LinkUp { container, boot, reports } => {
                self.link_up(turn, container, boot, reports);
            }
            Event::LinkDown { container, why } => self.link_down(turn, container, why),
            Event::Opened { at, epoch } => self.opened(turn, at, epoch),
            Event::Shut { at, epoch, why } => self.shut(turn, at, epoch, why),
            Event::Clean { at, epoch } => self.clean(turn, at, epoch),
            Event::Dirty { at, epoch, why } => self.dirty(turn, at, epoch, why),
            Event::Broken { at, epoch, why } => self.broken(turn, at, epoch, why),
        }
        Ok(())
    }

    pub fn profile(&self, name: &ProfileName) -> Option<ProfileKey> {
        let place = self.profiles.iter().position(|profile| profile.settings.name == *name)?;
        u16::try_from(place).ok().map(ProfileKey)
    }

    pub fn profile_settings(&self, profile: ProfileKey) -> Option<&ProfileSettings> {
        self.profiles.get(usize::from(profile.0)).map(|profile| &profile.settings)
    }

    pub fn container(&self, id: &ContainerId) -> Option<ContainerKey> {
        self.by_id.get(id).copied()
    }

    pub fn container_id(&self, key: ContainerKey) -> Option<&ContainerId> {
        self.containers.get(key).map(|container| &container.id)
    }

    pub fn containers(&self) -> impl Iterator<Item = (ContainerKey, &ContainerId)> {
        self.containers.iter().map(|container| (container.key, &container.id))
    }

    /// In the order of the settings.
    pub fn status(&self) -> impl Iterator<Item = (&ProfileName, v1::ProfileStatus)> {
        self.profiles.iter().map(|profile| (&profile.settings.name, profile.status()))
    }

    /// When the next [`Event::Tick`] has something to do.
    pub fn next_due(&self) -> Option<Millis> {
        [self.timers.next(), self.deadlines.next(), self.expiries.next()]
            .into_iter()
            .flatten()
            .min()
    }

    /// Gives what can be given, then adjusts the number of containers.
    fn settle(&mut self, turn: &mut Turn<'_>, profile: u16) {
        self.serve_queue(turn, profile);
        self.rescale(turn, profile);
    }
}
