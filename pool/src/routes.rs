//! From a lease to the link of its container, without asking the actor.
//!
//! Invariants: the actor alone inserts and ends routes; a lease has a route, or a tombstone that
//! says how it ended (the last [`TOMBSTONES_MAX`] of them), or is unknown. No map guard leaves
//! this file.

use crate::link::Link;
use dashmap::DashMap;
use slotmux_protocol::{CallLimits, Code, Epoch, LeaseId, Problem, SlotIndex, TrajectoryId};
use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
};
use tokio::time::Instant;

/// How many ended leases are remembered.
pub const TOMBSTONES_MAX: usize = 65_536;

/// What a call needs of its lease. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Route {
    pub link: Link,
    pub slot: SlotIndex,
    pub epoch: Epoch,
    pub trajectory: TrajectoryId,
    /// For calls that do not ask for others.
    pub limits: CallLimits,
    pub pulse: Arc<Pulse>,
}

/// How a lease ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LeaseEnd {
    Released,
    Expired,
    Revoked { why: Arc<str> },
}

impl LeaseEnd {
    pub fn problem(&self, lease: LeaseId) -> Problem {
        match self {
            Self::Released => {
                Problem::new(Code::LeaseReleased, format!("{lease} was released; acquire another"))
            }
            Self::Expired => Problem::new(
                Code::LeaseExpired,
                format!("{lease} expired: no call and no renewal came within its ttl_s"),
            ),
            Self::Revoked { why } => Problem::new(
                Code::LeaseRevoked,
                format!("{lease} was revoked: {why}; acquire another and start over"),
            ),
        }
    }
}

/// Signs of life of a lease, stamped by its calls and read by the actor when the lease is due.
#[derive(Debug)]
pub struct Pulse {
    born: Instant,
    running: AtomicU32,
    /// Since `born`.
    last_activity_ms: AtomicU64,
}

impl Pulse {
    /// Times are told since `born`.
    pub fn new(born: Instant) -> Arc<Self> {
        let now_ms = millis_since(born);
        Arc::new(Self {
            born,
            running: AtomicU32::new(0),
            last_activity_ms: AtomicU64::new(now_ms),
        })
    }

    /// Calls that run now. While there are any, the lease is active.
    pub fn running(&self) -> u32 {
        self.running.load(Ordering::Acquire)
    }

    pub fn last_activity_ms(&self) -> u64 {
        self.last_activity_ms.load(Ordering::Acquire)
    }

    /// Activity from now until the guard is dropped.
    pub fn beat(self: &Arc<Self>) -> Beating {
        self.running.fetch_add(1, Ordering::AcqRel);
        self.stamp();
        Beating(Arc::clone(self))
    }

    fn stamp(&self) {
        self.last_activity_ms.fetch_max(millis_since(self.born), Ordering::AcqRel);
    }
}

fn millis_since(born: Instant) -> u64 {
    u64::try_from(born.elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// A running call of a lease.
#[derive(Debug)]
pub struct Beating(Arc<Pulse>);

impl Drop for Beating {
    fn drop(&mut self) {
        // Stamped first: between the two the lease must not look idle since its start.
        self.0.stamp();
        self.0.running.fetch_sub(1, Ordering::AcqRel);
    }
}

#[derive(Debug, Default)]
pub struct Routes {
    live: DashMap<LeaseId, Route>,
    ended: DashMap<LeaseId, LeaseEnd>,
    /// The keys of `ended`, oldest first.
    order: Mutex<VecDeque<LeaseId>>,
}

impl Routes {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn insert(&self, lease: LeaseId, route: Route) {
        self.live.insert(lease, route);
    }

    /// The route of a lease, or how it ended.
    pub fn find(&self, lease: LeaseId) -> Result<Route, Problem> {
        if let Some(route) = self.live.get(&lease) {
            return Ok(route.clone());
        }
        Err(self.gone(lease))
    }

    /// Why a lease without a route has none.
    pub fn gone(&self, lease: LeaseId) -> Problem {
        self.end_of(lease).map_or_else(|| unknown(lease), |end| end.problem(lease))
    }

    /// How a lease ended, as long as it is remembered.
    pub fn end_of(&self, lease: LeaseId) -> Option<LeaseEnd> {
        self.ended.get(&lease).map(|end| end.clone())
    }

    pub fn is_live(&self, lease: LeaseId) -> bool {
        self.live.contains_key(&lease)
    }

    /// Ends a lease: later calls are refused with the reason, running ones are answered at once.
    pub fn end(&self, lease: LeaseId, end: LeaseEnd) {
        // The tombstone first, so that no moment knows neither.
        self.bury(lease, end.clone());
        if let Some((_, route)) = self.live.remove(&lease) {
            route.link.end_calls(route.slot, route.epoch, &end);
        }
    }

    pub fn len(&self) -> usize {
        self.live.len()
    }

    pub fn is_empty(&self) -> bool {
        self.live.is_empty()
    }

    fn bury(&self, lease: LeaseId, end: LeaseEnd) {
        if self.ended.insert(lease, end).is_some() {
            return;
        }
        let mut order = self.order.lock().unwrap_or_else(PoisonError::into_inner);
        order.push_back(lease);
        if order.len() > TOMBSTONES_MAX
            && let Some(oldest) = order.pop_front()
        {
            self.ended.remove(&oldest);
        }
    }
}

pub(crate) fn unknown(lease: impl std::fmt::Display) -> Problem {
    Problem::new(
        Code::UnknownLease,
        format!("no lease `{lease}` is known here; it may have ended long ago"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::peer::{Server, bash};
    use slotmux_protocol::Ended;
    use std::time::Duration;

    fn lease(number: u64) -> LeaseId {
        LeaseId(Epoch(number))
    }

    #[test]
    fn a_lease_is_unknown_or_ended_and_says_which() {
        let routes = Routes::new();
        assert_eq!(routes.find(lease(1)).unwrap_err().code, Code::UnknownLease);
        for (number, end, code) in [
            (1, LeaseEnd::Released, Code::LeaseReleased),
            (2, LeaseEnd::Expired, Code::LeaseExpired),
            (3, LeaseEnd::Revoked { why: "oom".into() }, Code::LeaseRevoked),
        ] {
            routes.end(lease(number), end);
            assert_eq!(routes.find(lease(number)).unwrap_err().code, code);
        }
    }

    #[test]
    fn the_oldest_tombstone_goes_at_one_past_the_limit() {
        let routes = Routes::new();
        let max = TOMBSTONES_MAX as u64;
        (0..max).for_each(|number| routes.end(lease(number), LeaseEnd::Expired));
        // Ended twice, buried once.
        routes.end(lease(0), LeaseEnd::Released);
        assert_eq!(routes.end_of(lease(0)), Some(LeaseEnd::Released));
        routes.end(lease(max), LeaseEnd::Expired);
        assert_eq!(routes.end_of(lease(0)), None);
        assert_eq!(routes.end_of(lease(1)), Some(LeaseEnd::Expired));
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_is_active_from_the_start_to_the_end_of_its_calls() {
        let born = Instant::now();
        tokio::time::advance(Duration::from_secs(1)).await;
        let pulse = Pulse::new(born);
        assert_eq!((pulse.running(), pulse.last_activity_ms()), (0, 1_000));
        let (first, second) = (pulse.beat(), pulse.beat());
        tokio::time::advance(Duration::from_secs(9)).await;
        assert_eq!((pulse.running(), pulse.last_activity_ms()), (2, 1_000));
        drop(first);
        assert_eq!((pulse.running(), pulse.last_activity_ms()), (1, 10_000));
        drop(second);
        assert_eq!(pulse.running(), 0);
    }

    #[tokio::test]
    async fn the_end_of_a_lease_answers_its_running_calls() {
        let server = Server::start().await;
        let (link, mut news) = server.link(Duration::from_hours(1));
        let mut peer = server.accept().await;
        peer.hello("boot-1").await;
        news.recv().await;
        let routes = Routes::new();
        let call = bash(0, "x", "sleep 9");
        let route = Route {
            link: link.clone(),
            slot: call.slot,
            epoch: call.epoch,
            trajectory: TrajectoryId::new("t").unwrap(),
            limits: CallLimits::default(),
            pulse: Pulse::new(Instant::now()),
        };
        routes.insert(lease(7), route);
        let running = tokio::spawn(async move { link.call(call).await });
        peer.next_call().await;
        routes.end(lease(7), LeaseEnd::Released);
        assert_eq!(running.await.unwrap().unwrap().ended, Ended::Cancelled);
        assert!(routes.is_empty());
    }
}
