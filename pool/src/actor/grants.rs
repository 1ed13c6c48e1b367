//! Grants on their way to their clients.
//!
//! A grant is told only when the journal has all of its leases. A client may have hung up by then;
//! a grant that nobody claimed gives its leases back, unless another grant of the same leases was
//! claimed or is still on its way.

use super::{Order, WeakMailbox};
use crate::{core::WaiterId, routes::Pulse};
use slotmux_protocol::{LeaseId, Problem, v1};
use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};
use tokio::sync::oneshot;

pub(crate) type Reply<T> = oneshot::Sender<Result<T, Problem>>;

/// Leases that are yours once you `claim` them.
pub(crate) struct Grant {
    leases: Vec<v1::Lease>,
    claims: Vec<(LeaseId, Arc<AtomicBool>)>,
    home: Option<WeakMailbox>,
}

impl Grant {
    pub(super) fn new(
        leases: Vec<v1::Lease>,
        claims: Vec<(LeaseId, Arc<AtomicBool>)>,
        home: WeakMailbox,
    ) -> Self {
        Self { leases, claims, home: Some(home) }
    }

    pub(crate) fn claim(mut self) -> Vec<v1::Lease> {
        for (_, claimed) in &self.claims {
            claimed.store(true, Ordering::Release);
        }
        self.home = None;
        std::mem::take(&mut self.leases)
    }
}

impl Drop for Grant {
    fn drop(&mut self) {
        if let Some(home) = self.home.take() {
            let leases = self.claims.iter().map(|(lease, _)| *lease).collect();
            home.post(Order::GiveBack { leases });
        }
    }
}

/// What the shell keeps of a lease.
pub(super) struct Room {
    pub(super) pulse: Arc<Pulse>,
    pub(super) is_written: bool,
    pub(super) claimed: Arc<AtomicBool>,
    /// Grants of it that were made and not given back.
    pub(super) offers: u32,
    /// Grants that wait for its being written.
    pub(super) waiting: Vec<WaiterId>,
}

impl Room {
    pub(super) fn new(pulse: Arc<Pulse>) -> Self {
        Self { pulse, is_written: false, claimed: Arc::default(), offers: 0, waiting: Vec::new() }
    }

    /// One that its holder has already.
    pub(super) fn adopted(pulse: Arc<Pulse>) -> Self {
        let room = Self { is_written: true, ..Self::new(pulse) };
        room.claimed.store(true, Ordering::Release);
        room
    }

    pub(super) fn is_claimed(&self) -> bool {
        self.claimed.load(Ordering::Acquire)
    }
}

/// A grant that is not told yet.
pub(super) struct Unwritten {
    pub(super) leases: Vec<LeaseId>,
    pub(super) missing: usize,
}

#[derive(Default)]
pub(super) struct Grants {
    pub(super) replies: HashMap<WaiterId, Reply<Grant>>,
    pub(super) unwritten: HashMap<WaiterId, Unwritten>,
    pub(super) rooms: HashMap<LeaseId, Room>,
}

impl Grants {
    pub(super) fn refuse(&mut self, waiter: WaiterId, problem: Problem) {
        self.unwritten.remove(&waiter);
        if let Some(reply) = self.replies.remove(&waiter) {
            // Its client may be gone, which is fine.
            let _ = reply.send(Err(problem));
        }
    }

    /// Counts a granted waiter's leases that are not written; with none, it can be told.
    pub(super) fn hold(&mut self, waiter: WaiterId, leases: &[LeaseId]) -> bool {
        let mut missing = 0;
        for lease in leases {
            if let Some(room) = self.rooms.get_mut(lease) {
                room.offers += 1;
                if !room.is_written {
                    room.waiting.push(waiter);
                    missing += 1;
                }
            }
        }
        if missing > 0 {
            self.unwritten.insert(waiter, Unwritten { leases: leases.to_vec(), missing });
        }
        missing == 0
    }

    /// The grants that can be told now that this lease is written.
    pub(super) fn written(&mut self, lease: LeaseId) -> Vec<(WaiterId, Vec<LeaseId>)> {
        let Some(room) = self.rooms.get_mut(&lease) else { return Vec::new() };
        room.is_written = true;
        let mut ready = Vec::new();
        for waiter in std::mem::take(&mut room.waiting) {
            let Some(unwritten) = self.unwritten.get_mut(&waiter) else { continue };
            unwritten.missing -= 1;
            if unwritten.missing == 0
                && let Some(unwritten) = self.unwritten.remove(&waiter)
            {
                ready.push((waiter, unwritten.leases));
            }
        }
        ready
    }

    /// Whether a lease that somebody gives back is nobody's now.
    pub(super) fn is_orphaned(&mut self, lease: LeaseId) -> bool {
        let Some(room) = self.rooms.get_mut(&lease) else { return false };
        room.offers = room.offers.saturating_sub(1);
        room.offers == 0 && !room.is_claimed()
    }
}
