//! What decides whether a call may be made in a slot.

use super::{News, place::Scope, process::KillSwitch};
use crate::{executions::Executions, stop::Stop};
use slotmux_protocol::{
    CausedBy, Code, Epoch, ExecutionId, Limits, Problem, SlotIndex,
    link::{FromContainer, Holder},
};

#[derive(Debug)]
pub(super) struct Gate {
    /// Calls of this epoch and of all before it are refused for good.
    pub(super) fence: Epoch,
    pub(super) phase: Phase,
    /// A client without a lease has made calls since the slot was emptied.
    pub(super) used: bool,
    /// For good: the server is ending.
    pub(super) closed: bool,
    /// Counts the times that the slot was shut: what began before is of no account after.
    pub(super) round: u64,
    pub(super) stop: Stop,
    pub(super) executions: Executions,
    pub(super) queued: usize,
    pub(super) executing: Option<ExecutionId>,
    pub(super) kill: Option<KillSwitch>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Phase {
    /// Empty. Open for everybody while no pool manages the container.
    Clean,
    Open(Holder),
    Dirty(String),
}

/// What a reset finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shut {
    CleanAlready,
    ToBeEmptied,
}

impl Gate {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            fence: Epoch(0),
            phase: Phase::Dirty("the slot is being prepared".to_owned()),
            used: false,
            closed: false,
            round: 0,
            stop: Stop::default(),
            executions: Executions::new(limits.clone()),
            queued: 0,
            executing: None,
            kill: None,
        }
    }

    pub(super) fn shut(&mut self, epoch: Epoch, by: CausedBy, limits: &Limits) {
        self.fence = epoch;
        self.round += 1;
        self.phase = Phase::Dirty("the slot is being emptied".to_owned());
        self.stop.stop(by);
        self.stop = Stop::default();
        self.executing = None;
        self.executions = Executions::new(limits.clone());
        if let Some(kill) = self.kill.take() {
            kill.kill_where_that_is_enough();
        }
    }

    /// The init behind `switch` has ended. Of no interest if it was ended by us.
    pub(super) fn lose(&mut self, switch: &KillSwitch, slot: SlotIndex, news: &News) {
        if !self.kill.as_ref().is_some_and(|it| it.is(switch)) {
            return;
        }
        self.kill = None;
        let why = "the slot's init ended by itself or was killed".to_owned();
        let phase = std::mem::replace(&mut self.phase, Phase::Dirty(why.clone()));
        if let Phase::Open(holder) = phase {
            tracing::error!(%slot, lease = %holder.lease, "slot-init lost");
            let epoch = holder.lease.epoch();
            // Without a link there is nobody to tell; its next report says it.
            let _ = news.send(FromContainer::Broken { slot, epoch, why });
        }
    }

    pub(super) fn admit(&self, scope: Scope) -> Result<(), Problem> {
        match (scope, &self.phase) {
            (Scope::Stay(stay), _) => self.admit_stay(stay),
            (Scope::Lease(epoch), Phase::Open(holder)) if holder.lease.epoch() == epoch => Ok(()),
            (Scope::Lease(epoch), Phase::Dirty(why)) if epoch > self.fence => {
                Err(Problem::new(Code::SlotBroken, why.clone()))
            }
            (Scope::Lease(epoch), _) => Err(stale(epoch)),
            (Scope::Standalone, Phase::Clean) => Ok(()),
            (Scope::Standalone, Phase::Open(_)) => Err(Problem::new(
                Code::StaleEpoch,
                "the slot is leased by a pool; call it through the pool",
            )),
            (Scope::Standalone, Phase::Dirty(why)) => {
                Err(Problem::new(Code::SlotBroken, why.clone()))
            }
        }
    }
}

fn stale(epoch: Epoch) -> Problem {
    Problem::new(
        Code::StaleEpoch,
        format!("the slot is not open for epoch {epoch}: its lease is over; acquire a new one"),
    )
    .at("epoch")
}
