//! A slot: who may call, in which order, and what it remembers.
//!
//! Two locks. The *gate* holds what decides whether a call may be made; it is taken for a moment
//! only. The *turn* is held by the call that runs; calls get it in the order they were begun.
//!
//! Invariant: a call runs only while the slot is open for the epoch that the call carries, and the
//! slot is opened for another epoch only after it was emptied.

mod commands;
mod forks;
mod gate;
mod meter;
mod place;
mod process;
mod room;
mod session;
mod stay;
mod taken;
mod terminals;
mod visit;
mod works;

pub(crate) use gate::Shut;
pub(crate) use place::{Begun, CHUNKS_MAX, Request, Scope};
pub(crate) use process::{Chunk, InitError, InitProcess, KillSwitch};
pub(crate) use session::{SessionEnd, SessionEnded, SessionId, SpawnArgs, SpawnError, Terminal};
pub(crate) use stay::{Stay, over};
pub(crate) use taken::{Running, Taken, problem_of};
pub(crate) use works::{RenewError, Works};

use crate::{executions::Seen, outcome::Outcome};
use gate::{Gate, Phase};
use place::{Place, Turn};
use slotmux_protocol::{
    CausedBy, Code, Ended, Epoch, ExecutionId, Limits, Network, Problem, SlotIndex,
    link::{FromContainer, Holder, SlotReport, SlotState},
    v1::SlotPhase,
};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::broadcast;

#[derive(Debug)]
pub(crate) struct Slot {
    pub(crate) index: SlotIndex,
    /// Of the slot; a call may ask for less.
    network: Network,
    limits: Limits,
    gate: Mutex<Gate>,
    turn: Arc<tokio::sync::Mutex<Works>>,
    news: News,
}

/// What a slot has to say without being asked.
pub(crate) type News = broadcast::Sender<FromContainer>;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct View {
    pub(crate) executing: Option<ExecutionId>,
    /// Calls that run or wait.
    pub(crate) queued: usize,
    pub(crate) phase: SlotPhase,
}

impl Slot {
    pub(crate) fn new(
        index: SlotIndex,
        network: Network,
        limits: Limits,
        works: Works,
        news: News,
    ) -> Self {
        Self {
            index,
            network,
            gate: Mutex::new(Gate::new(&limits)),
            limits,
            turn: Arc::new(tokio::sync::Mutex::new(works)),
            news,
        }
    }

    fn gate(&self) -> MutexGuard<'_, Gate> {
        // What it guards is whole between any two statements.
        self.gate.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn view(&self) -> View {
        let gate = self.gate();
        View {
            executing: gate.executing.clone(),
            queued: gate.queued,
            phase: match &gate.phase {
                Phase::Clean if !gate.used => SlotPhase::Clean,
                Phase::Clean => SlotPhase::Used,
                Phase::Open(_) => SlotPhase::Leased,
                Phase::Dirty(_) => SlotPhase::Dirty,
            },
        }
    }

    pub(crate) fn report(&self) -> SlotReport {
        let gate = self.gate();
        let state = match &gate.phase {
            Phase::Clean if !gate.used => SlotState::Clean { fence: gate.fence },
            Phase::Open(holder) => SlotState::Open { holder: holder.clone() },
            Phase::Clean | Phase::Dirty(_) => SlotState::Dirty { fence: gate.fence },
        };
        SlotReport { slot: self.index, state }
    }

    /// Opens a clean slot for a lease. Repeated, it is the same.
    pub(crate) fn open(&self, holder: Holder) -> Result<(), String> {
        let epoch = holder.lease.epoch();
        let mut gate = self.gate();
        match &gate.phase {
            Phase::Open(now) if now.lease == holder.lease => Ok(()),
            Phase::Open(now) => Err(format!("the slot is open for {}", now.lease)),
            Phase::Dirty(why) => Err(format!("the slot is not clean: {why}")),
            Phase::Clean if epoch <= gate.fence => {
                Err(format!("epoch {epoch} is over, the fence is at {}", gate.fence))
            }
            Phase::Clean if gate.used => {
                Err("the slot was used without a lease; reset it first".to_owned())
            }
            Phase::Clean => {
                gate.phase = Phase::Open(holder);
                Ok(())
            }
        }
    }

    /// Gives a call its place in the order of the slot. Not async: the order is that of the calls
    /// of this function.
    pub(crate) fn begin(self: &Arc<Self>, mut request: Request) -> Result<Begun, Problem> {
        request.network = self.network_for(request.network);
        if request.limits.cpu_ms_max == 0 {
            request.limits.cpu_ms_max = self.limits.cpu_ms_max;
        }
        let mut gate = self.gate();
        gate.admit(request.scope)?;
        gate.used |= !matches!(request.scope, Scope::Lease(_));
        let stop = gate.stop.child();
        let tell = match &request.execution_id {
            None => None,
            Some(id) => match gate.executions.begin(id, &request.tool, &stop) {
                Seen::New(tell) => Some(tell),
                Seen::Running(waiting, stop) => return Ok(Begun::Anothers(waiting, stop)),
                Seen::Done(outcome) => return Ok(Begun::Done(outcome)),
                Seen::Forgotten => return Ok(Begun::Done(forgotten(request.network))),
                Seen::Reused => return Err(reused(id)),
            },
        };
        if gate.queued >= self.limits.queued_calls_max {
            let problem = queue_full(gate.queued);
            if let Some(id) = &request.execution_id {
                gate.executions.end(id, &Err(problem.clone()));
            }
            return Err(problem);
        }
        gate.queued += 1;
        let round = gate.round;
        let turn = Turn::take(&self.turn);
        drop(gate);
        let slot = Arc::clone(self);
        Ok(Begun::Mine(Box::new(Place::new(slot, turn, request, stop, tell, round))))
    }

    /// A call may ask for less than its slot has, never for more.
    fn network_for(&self, wanted: Network) -> Network {
        match (self.network, wanted) {
            (Network::Off, _) | (_, Network::Off) => Network::Off,
            (Network::AllowList, _) | (_, Network::AllowList) => Network::AllowList,
            (Network::On, Network::On) => Network::On,
        }
    }

    /// Ends a call that runs or waits under this id.
    pub(crate) fn cancel(&self, id: &ExecutionId) {
        if let Some(stop) = self.gate().executions.running(id) {
            stop.stop(CausedBy::Client);
        }
    }

    /// Closes the slot for `epoch` and all before it, and ends what runs. [`Slot::empty`] has to
    /// follow. Not async: nothing that comes later gets in between.
    pub(crate) fn shut(&self, epoch: Epoch, by: CausedBy) -> Result<Shut, String> {
        let mut gate = self.gate();
        let later = matches!(&gate.phase, Phase::Open(it) if it.lease.epoch() > epoch);
        if epoch < gate.fence || later {
            return Err(format!("epoch {epoch} is over, the fence is at {}", gate.fence));
        }
        if gate.phase == Phase::Clean && !gate.used {
            gate.fence = epoch;
            return Ok(Shut::CleanAlready);
        }
        gate.shut(epoch, by, &self.limits);
        Ok(Shut::ToBeEmptied)
    }

    /// For the client of a container without a pool.
    pub(crate) async fn reset_standalone(self: &Arc<Self>) -> Result<(), String> {
        let fence = {
            let mut gate = self.gate();
            if let Phase::Open(holder) = &gate.phase {
                return Err(format!("the slot is leased by a pool as {}", holder.lease));
            }
            let fence = gate.fence;
            gate.shut(fence, CausedBy::Client, &self.limits);
            fence
        };
        // Seen through, also when the client hangs up.
        let slot = Arc::clone(self);
        let emptied = tokio::spawn(async move { slot.empty(fence).await });
        emptied.await.unwrap_or_else(|_panic_or_end| Err("the server is shutting down".to_owned()))
    }

    /// Empties a slot that was shut for `epoch`, or is new.
    pub(crate) async fn empty(self: &Arc<Self>, epoch: Epoch) -> Result<(), String> {
        let mut works = self.turn.lock().await;
        if !matches!(self.gate().phase, Phase::Dirty(_)) {
            // Another reset for the same epoch has done it meanwhile: what is there now belongs to
            // whoever has come since.
            return Ok(());
        }
        if self.gate().closed {
            return Err("the server is shutting down".to_owned());
        }
        let renewed = works.renew().await;
        let mut gate = self.gate();
        match renewed {
            // A later reset is waiting for its turn: the slot is its to open. Or nobody's any more.
            Ok(_) if gate.fence != epoch || gate.closed => Ok(()),
            Ok(switch) => {
                gate.phase = Phase::Clean;
                gate.used = false;
                gate.kill = Some(switch.clone());
                drop(gate);
                self.watch(switch);
                Ok(())
            }
            Err(error) => {
                let why = crate::chain(&error);
                tracing::error!(slot = %self.index, error = %why, "slot not cleaned");
                gate.phase = Phase::Dirty(why.clone());
                Err(why)
            }
        }
    }

    /// Says so when the slot's init ends without our doing.
    fn watch(self: &Arc<Self>, switch: KillSwitch) {
        let slot = Arc::downgrade(self);
        tokio::spawn(async move {
            let ended = switch.ended().await;
            let Some(slot) = slot.upgrade() else { return };
            if let Err(error) = ended {
                tracing::error!(slot = %slot.index, %error, "slot-init cannot be watched");
                return;
            }
            slot.gate().lose(&switch, slot.index, &slot.news);
        });
    }

    /// Ends the slot for good. What runs is `cancelled`, caused by us.
    pub(crate) async fn close(&self) {
        {
            let mut gate = self.gate();
            gate.phase = Phase::Dirty("the server is shutting down".to_owned());
            gate.closed = true;
            gate.stop.stop(CausedBy::Infra);
        }
        let mut works = self.turn.lock().await;
        if let Err(error) = works.end().await {
            tracing::error!(slot = %self.index, error = %crate::chain(&error), "slot not ended");
        }
    }

    /// Waits until nothing runs or waits in the slot.
    pub(crate) async fn idle(&self) {
        drop(self.turn.lock().await);
    }
}

fn reused(id: &ExecutionId) -> Problem {
    Problem::new(
        Code::ExecutionIdReused,
        format!("execution id `{id}` was used for another call; draw a new one for each call"),
    )
    .at("execution_id")
}

fn queue_full(queued: usize) -> Problem {
    Problem::new(Code::QueueFull, format!("{queued} calls wait in this slot already; slow down"))
}

fn forgotten(network: Network) -> Arc<Outcome> {
    Arc::new(Outcome::cut_short(
        Ended::Unknown,
        CausedBy::Infra,
        "This call was made before; its result is not kept any more",
        network,
    ))
}
