//! The shell round the core: it owns the clock, turns requests and news into events, and effects
//! into deeds. It knows nothing of actors, and never waits.

use super::{
    Clock, Grant, WeakMailbox,
    grants::{Grants, Reply},
    runtime::Containers,
};
use crate::{
    config::{PoolConfig, millis},
    core::{
        Acquire, Closing, ContainerKey, Core, Effect, Event, LeaseEnd, Millis, NoLease, Recovered,
        Retry, SeenContainer, Spot, WaiterId,
    },
    journal::{Journal, Written},
    link::LinkNews,
    routes::{self, Routes},
};
use slotmux_backend::{Backend, Fact, Phase, Seen};
use slotmux_protocol::{Code, ContainerId, LeaseId, Problem, TrajectoryId, v1};
use std::{collections::VecDeque, sync::Arc};
use tokio::sync::{broadcast, oneshot};

pub(crate) type TellNews = Arc<dyn Fn(News) + Send + Sync>;

/// Wishes, from the handle.
pub(crate) enum Order {
    Acquire {
        waiter: WaiterId,
        request: v1::AcquireRequest,
        reply: Reply<Grant>,
    },
    Cancel {
        waiter: WaiterId,
    },
    GiveBack {
        leases: Vec<LeaseId>,
    },
    Release {
        lease: LeaseId,
        reply: Reply<()>,
    },
    ReleaseTrajectory {
        trajectory: TrajectoryId,
        reply: Reply<bool>,
    },
    Renew {
        lease: LeaseId,
        ttl_ms: Option<u64>,
        reply: Reply<v1::Lease>,
    },
    Lease {
        lease: LeaseId,
        reply: Reply<v1::Lease>,
    },
    Status {
        reply: Reply<v1::Status>,
    },
    Close {
        closing: Closing,
    },
    /// At once, whatever is left.
    End,
}

/// Facts, from tasks.
pub(crate) enum News {
    Fact(Fact),
    Link { container: ContainerKey, news: LinkNews },
    LaunchFailed { container: ContainerKey, retry: Retry, why: String },
    Stopped { container: ContainerId },
    Written(Written),
}

/// What a shell is made of.
pub(crate) struct Parts {
    pub(crate) config: Arc<PoolConfig>,
    pub(crate) clock: Clock,
    pub(crate) backend: Arc<dyn Backend>,
    pub(crate) runtime: tokio::runtime::Handle,
    pub(crate) routes: Arc<Routes>,
    pub(crate) events: broadcast::Sender<v1::Event>,
    pub(crate) recovered: Recovered,
    pub(crate) seen: Vec<Seen>,
}

pub(crate) struct Shell {
    pub(super) config: Arc<PoolConfig>,
    pub(super) clock: Clock,
    pub(super) core: Core,
    pub(super) containers: Containers,
    pub(super) grants: Grants,
    pub(super) routes: Arc<Routes>,
    pub(super) events: broadcast::Sender<v1::Event>,
    pub(super) event_seq: u64,
    pub(super) home: WeakMailbox,
    journal: Journal,
    /// What the core wanted done at its start.
    first: Vec<Effect>,
    seen: Vec<Seen>,
    closing: Option<Closing>,
    is_ended: bool,
}

impl Shell {
    pub(crate) fn new(parts: Parts, journal: Journal, news: TellNews, home: WeakMailbox) -> Self {
        let Parts { config, clock, backend, runtime, routes, events, recovered, seen } = parts;
        let mut first = Vec::new();
        let known = seen.iter().map(|seen| seen_container(&config, seen)).collect();
        let settings = config.core(clock.generation());
        let core = Core::start(settings, recovered, known, clock.now(), &mut first);
        let containers =
            Containers::new(Arc::clone(&config), backend, runtime, news, clock.generation());
        Self {
            config,
            clock,
            core,
            containers,
            grants: Grants::default(),
            routes,
            events,
            event_seq: 0,
            home,
            journal,
            first,
            seen,
            closing: None,
            is_ended: false,
        }
    }

    /// Links first: the leases that were found need them.
    pub(crate) fn begin(&mut self) {
        for seen in std::mem::take(&mut self.seen) {
            if let Phase::Ready(address) = seen.phase
                && let Some(key) = self.core.container(&seen.container)
            {
                self.containers.dial(key, seen.container, address);
            }
        }
        let first = std::mem::take(&mut self.first);
        let events = self.perform_all(first);
        self.apply_all(events);
    }

    pub(crate) fn tick(&mut self) {
        if self.core.next_due().is_some_and(|due| due <= self.clock.now()) {
            self.apply(Event::Tick);
        }
    }

    pub(crate) fn is_done(&self) -> bool {
        self.is_ended
            || match self.closing {
                None => false,
                Some(Closing::Keep) => true,
                Some(Closing::Drain | Closing::Stop) => self.core.containers().next().is_none(),
            }
    }

    pub(crate) fn order(&mut self, order: Order) {
        match order {
            Order::Acquire { waiter, request, reply } => self.acquire(waiter, request, reply),
            Order::Cancel { waiter } => {
                self.grants.replies.remove(&waiter);
                self.cancel(waiter);
            }
            Order::GiveBack { leases } => {
                for lease in leases {
                    self.give_back(lease);
                }
            }
            Order::Release { lease, reply } => {
                let result = self.try_apply(Event::Release { lease });
                answer(reply, result.map_err(|why| no_lease(lease, why)));
            }
            Order::ReleaseTrajectory { trajectory, reply } => {
                let held = self.core.held(&trajectory);
                for lease in &held {
                    self.apply(Event::Release { lease: *lease });
                }
                answer(reply, Ok(!held.is_empty()));
            }
            Order::Renew { lease, ttl_ms, reply } => {
                let result = self.try_apply(Event::Renew { lease, ttl_ms });
                let result = result.map_err(|why| no_lease(lease, why));
                let result = result.and_then(|()| self.lease(lease));
                answer(reply, result);
            }
            Order::Lease { lease, reply } => answer(reply, self.lease(lease)),
            Order::Status { reply } => answer(reply, Ok(self.status())),
            Order::Close { closing } => {
                self.closing = Some(closing);
                self.apply(Event::Close(closing));
            }
            Order::End => self.is_ended = true,
        }
    }

    pub(crate) fn news(&mut self, news: News) {
        match news {
            News::Fact(Fact::Ready { container, address }) => {
                if let Some(key) = self.core.container(&container) {
                    self.containers.dial(key, container, address);
                    self.route_leases(key);
                }
            }
            News::Fact(Fact::Gone { container, exit }) => self.gone(&container, &exit.reason),
            News::Stopped { container } => self.gone(&container, "it was stopped"),
            News::LaunchFailed { container, retry, why } => {
                self.apply(Event::LaunchFailed { container, retry, why: why.into() });
            }
            News::Link { container, news } => self.link_news(container, news),
            News::Written(Written { leases, result: Ok(()) }) => {
                for lease in leases {
                    for (waiter, leases) in self.grants.written(lease) {
                        self.tell_grant(waiter, &leases);
                    }
                }
            }
            News::Written(Written { leases, result: Err(_) }) => {
                for lease in leases {
                    self.not_written(lease);
                }
            }
        }
    }

    fn gone(&mut self, container: &ContainerId, why: &str) {
        if let Some(container) = self.core.container(container) {
            self.apply(Event::ContainerGone { container, why: why.into() });
        }
    }

    fn link_news(&mut self, container: ContainerKey, news: LinkNews) {
        let at = |slot| Spot { container, slot };
        let event = match news {
            LinkNews::Up { server, slots } => {
                self.containers.met(container, server.isolation);
                let boot = server.boot_id.into();
                Event::LinkUp { container, boot, reports: slots }
            }
            LinkNews::Opened { slot, epoch } => Event::Opened { at: at(slot), epoch },
            LinkNews::Shut { slot, epoch, why } => {
                Event::Shut { at: at(slot), epoch, why: why.into() }
            }
            LinkNews::Clean { slot, epoch } => Event::Clean { at: at(slot), epoch },
            LinkNews::Dirty { slot, epoch, why } => {
                Event::Dirty { at: at(slot), epoch, why: why.into() }
            }
            LinkNews::Broken { slot, epoch, why } => {
                Event::Broken { at: at(slot), epoch, why: why.into() }
            }
            LinkNews::Down { why } => Event::LinkDown { container, why: why.into() },
        };
        self.apply(event);
    }

    /// Its client has not heard of the lease, or has it from an earlier pool process.
    fn not_written(&mut self, lease: LeaseId) {
        let Some(room) = self.grants.rooms.get_mut(&lease) else { return };
        let waiting = std::mem::take(&mut room.waiting);
        let is_claimed = room.is_claimed();
        for waiter in waiting {
            let detail = "the journal cannot be written, so no lease can be promised";
            self.grants.refuse(waiter, Problem::new(Code::JournalUnavailable, detail));
        }
        if !is_claimed {
            self.apply(Event::NotJournalled { lease });
        }
    }

    fn acquire(&mut self, waiter: WaiterId, request: v1::AcquireRequest, reply: Reply<Grant>) {
        let profile = match &request.profile {
            Some(name) => self.core.profile(name),
            None => self.config.profiles.first().and_then(|it| self.core.profile(&it.name)),
        };
        let config = profile.and_then(|key| self.config.profiles.get(usize::from(key.0)));
        let (Some(profile), Some(config)) = (profile, config) else {
            let names: Vec<_> = self.config.profiles.iter().map(|it| it.name.as_str()).collect();
            let detail = format!("there is no such profile; there are: {}", names.join(", "));
            return answer(reply, Err(Problem::new(Code::UnknownProfile, detail).at("profile")));
        };
        let wait_ms =
            request.wait_s.map_or(millis(self.config.wait_default), v1::Seconds::as_millis);
        let ttl_ms = request.ttl_s.map_or(millis(config.lease_ttl), v1::Seconds::as_millis);
        self.grants.replies.insert(waiter, reply);
        self.apply(Event::Acquire(Acquire {
            waiter,
            profile,
            trajectory: request.trajectory_id,
            count: request.count.unwrap_or(1),
            priority: request.priority.unwrap_or(0),
            deadline: self.clock.now().plus(wait_ms),
            ttl_ms,
        }));
    }

    /// A waiter whose client went away: it leaves the queue, or gives back what it was granted.
    fn cancel(&mut self, waiter: WaiterId) {
        self.apply(Event::Cancel { waiter });
        if let Some(unwritten) = self.grants.unwritten.remove(&waiter) {
            for lease in unwritten.leases {
                self.give_back(lease);
            }
        }
    }

    pub(super) fn give_back(&mut self, lease: LeaseId) {
        if self.grants.is_orphaned(lease) {
            self.apply(Event::Release { lease });
        }
    }

    pub(super) fn lease(&self, lease: LeaseId) -> Result<v1::Lease, Problem> {
        let view = self.core.lease(lease).map_err(|why| no_lease(lease, why))?;
        let (address, isolation) = self.containers.describe(view.at.container);
        let pulse = self.grants.rooms.get(&lease).map(|room| &room.pulse);
        let active = pulse.map_or(Millis(0), |pulse| self.clock.last_activity(pulse));
        let expires = view.expires.max(active.plus(view.ttl_ms));
        let profile = &self.config.profiles[usize::from(view.profile.0)];
        Ok(v1::Lease {
            lease_id: lease,
            trajectory_id: view.trajectory,
            profile: profile.name.clone(),
            container: view.container,
            slot: view.at.slot,
            epoch: lease.epoch(),
            ttl_s: v1::Seconds::from_millis(view.ttl_ms),
            expires_in_s: v1::Seconds::from_millis(expires.since(self.clock.now())),
            expires_at_ms: expires.0,
            address,
            isolation: isolation.unwrap_or(profile.isolation_min),
        })
    }

    fn status(&self) -> v1::Status {
        let profiles = self.core.status();
        v1::Status {
            pool: self.config.name.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_s: v1::Seconds::from_millis(self.clock.uptime_ms()),
            profiles: profiles.map(|(name, status)| (name.to_string(), status)).collect(),
        }
    }

    pub(super) fn apply(&mut self, event: Event) {
        // Only a wish can be refused, and those who want to know use `try_apply`.
        let _ = self.try_apply(event);
    }

    fn try_apply(&mut self, event: Event) -> Result<(), NoLease> {
        let mut effects = Vec::new();
        let result = self.core.apply(self.clock.now(), event, &mut effects);
        let follow = self.perform_all(effects);
        self.apply_all(follow);
        result
    }

    fn apply_all(&mut self, events: Vec<Event>) {
        let mut queue = VecDeque::from(events);
        while let Some(event) = queue.pop_front() {
            let mut effects = Vec::new();
            let _ = self.core.apply(self.clock.now(), event, &mut effects);
            queue.extend(self.perform_all(effects));
        }
    }

    fn perform_all(&mut self, effects: Vec<Effect>) -> Vec<Event> {
        let (mut records, mut follow) = (Vec::new(), Vec::new());
        for effect in effects {
            self.perform(effect, &mut records, &mut follow);
        }
        if !records.is_empty() {
            self.journal.append(records);
        }
        follow
    }
}

fn seen_container(config: &PoolConfig, seen: &Seen) -> SeenContainer {
    let profile = config.profiles.iter().find(|it| it.name == seen.labels.profile);
    let start_ms = profile.map_or(0, |it| millis(it.start_timeout));
    let patience_ms = match seen.phase {
        Phase::Starting => start_ms,
        // It was up before: its link comes soon, or never.
        Phase::Ready(_) => start_ms.min(3 * millis(config.dead_after)),
    };
    SeenContainer {
        id: seen.container.clone(),
        profile: seen.labels.profile.clone(),
        slots: seen.slots,
        patience_ms,
    }
}

pub(super) fn answer<T>(reply: oneshot::Sender<T>, with: T) {
    // Who asked may be gone, which is fine.
    let _ = reply.send(with);
}

pub(super) fn no_lease(lease: LeaseId, why: NoLease) -> Problem {
    match why {
        NoLease::Unknown => routes::unknown(lease),
        NoLease::Unheard => Problem::new(
            Code::ContainerUnreachable,
            format!(
                "whether `{lease}` is held is not known yet: the pool was started without its \
                 journal and has not heard from all of its containers; retry"
            ),
        ),
        NoLease::Ended(how) => route_end(how).problem(lease),
    }
}

pub(super) fn route_end(how: LeaseEnd) -> routes::LeaseEnd {
    match how {
        LeaseEnd::Released => routes::LeaseEnd::Released,
        LeaseEnd::Expired => routes::LeaseEnd::Expired,
        LeaseEnd::Revoked(why) => routes::LeaseEnd::Revoked { why },
    }
}
