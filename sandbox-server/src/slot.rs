//! A slot: who may call, in which order, and what it remembers.
//!
//! Two locks. The *gate* holds what decides whether a call may be made; it is taken for a moment
//! only. The *turn* is held by the call that runs; calls get it in the order they were begun.
//!
//! Invariant: a call runs only while the slot is open for the epoch that the call carries, and the
//! slot is opened for another epoch only after it was emptied.

mod process;
mod works;

pub(crate) use process::InitError;
pub(crate) use works::Works;

use crate::{
    executions::{Answer, Executions, Seen, Waiting},
    outcome::Outcome,
    stop::Stop,
};
use process::KillSwitch;
use slotmux_protocol::{
    CallLimits, CausedBy, Code, Ended, Epoch, ExecutionId, Limits, Network, Problem, SlotIndex,
    ToolCall,
    link::{FromContainer, Holder, SlotReport, SlotState},
};
use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};
use tokio::sync::{OwnedMutexGuard, broadcast, watch};

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

/// What a reset finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shut {
    CleanAlready,
    ToBeEmptied,
}

#[derive(Debug)]
struct Gate {
    /// Calls of this epoch and of all before it are refused for good.
    fence: Epoch,
    phase: Phase,
    /// A client without a lease has made calls since the slot was emptied.
    used: bool,
    /// Counts the times that the slot was shut: what began before is of no account after.
    round: u64,
    stop: Stop,
    executions: Executions,
    queued: usize,
    executing: Option<ExecutionId>,
    kill: Option<KillSwitch>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Phase {
    /// Empty. Open for everybody while no pool manages the container.
    Clean,
    Open(Holder),
    Dirty(String),
}

/// A call as it came in.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) scope: Scope,
    pub(crate) execution_id: Option<ExecutionId>,
    pub(crate) tool: ToolCall,
    pub(crate) limits: CallLimits,
    pub(crate) network: Network,
}

/// By which right a call is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    /// Of a lease.
    Lease(Epoch),
    /// Of the one client of a container without a pool.
    Standalone,
}

/// A call that has its place in the queue.
#[derive(Debug)]
pub(crate) enum Begun {
    Mine(Box<Place>),
    /// The same call is being made already.
    Anothers(Waiting, Stop),
    Done(Arc<Outcome>),
}

type TurnFuture = Pin<Box<dyn Future<Output = OwnedMutexGuard<Works>> + Send>>;

pub(crate) struct Place {
    slot: Arc<Slot>,
    turn: Turn,
    request: Request,
    stop: Stop,
    tell: Option<watch::Sender<Option<Answer>>>,
    round: u64,
    /// The call's place is given up once, however it ends.
    left: bool,
}

enum Turn {
    Now(OwnedMutexGuard<Works>),
    Later(TurnFuture),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct View {
    pub(crate) executing: Option<ExecutionId>,
    pub(crate) busy: bool,
    pub(crate) clean: bool,
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
            gate: Mutex::new(Gate {
                fence: Epoch(0),
                phase: Phase::Dirty("the slot is being prepared".to_owned()),
                used: false,
                round: 0,
                stop: Stop::default(),
                executions: Executions::new(limits.clone()),
                queued: 0,
                executing: None,
                kill: None,
            }),
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
            busy: gate.queued > 0,
            clean: !matches!(gate.phase, Phase::Dirty(_)),
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
        let mut gate = self.gate();
        gate.admit(request.scope)?;
        gate.used |= request.scope == Scope::Standalone;
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
        Ok(Begun::Mine(Box::new(Place { slot, turn, request, stop, tell, round, left: false })))
    }

    /// A call may ask for less than its slot has, never for more.
    fn network_for(&self, wanted: Network) -> Network {
        match self.network {
            Network::Off => Network::Off,
            Network::On => wanted,
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
        self.empty(fence).await
    }

    /// Empties a slot that was shut for `epoch`, or is new.
    pub(crate) async fn empty(self: &Arc<Self>, epoch: Epoch) -> Result<(), String> {
        let mut works = self.turn.lock().await;
        if !matches!(self.gate().phase, Phase::Dirty(_)) {
            // Another reset for the same epoch has done it meanwhile: what is there now belongs to
            // whoever has come since.
            return Ok(());
        }
        let renewed = works.renew().await;
        let mut gate = self.gate();
        match renewed {
            // A later reset is waiting for its turn: the slot is its to open.
            Ok(_) if gate.fence != epoch => Ok(()),
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

impl Gate {
    fn shut(&mut self, epoch: Epoch, by: CausedBy, limits: &Limits) {
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
    fn lose(&mut self, switch: &KillSwitch, slot: SlotIndex, news: &News) {
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

    fn admit(&self, scope: Scope) -> Result<(), Problem> {
        match (scope, &self.phase) {
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

impl Turn {
    /// Takes the place now, also when it is not the first: a lock's queue is entered by polling.
    fn take(lock: &Arc<tokio::sync::Mutex<Works>>) -> Self {
        if let Ok(guard) = Arc::clone(lock).try_lock_owned() {
            return Self::Now(guard);
        }
        let mut future: TurnFuture = Box::pin(Arc::clone(lock).lock_owned());
        match future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(guard) => Self::Now(guard),
            Poll::Pending => Self::Later(future),
        }
    }

    async fn come(self) -> OwnedMutexGuard<Works> {
        match self {
            Self::Now(guard) => guard,
            Self::Later(future) => future.await,
        }
    }
}

impl Place {
    pub(crate) async fn run(mut self: Box<Self>) -> Answer {
        let turn = std::mem::replace(&mut self.turn, Turn::Later(Box::pin(std::future::pending())));
        let stopped = self.stop.clone();
        let works = tokio::select! {
            biased;
            works = turn.come() => works,
            () = stopped.token().cancelled() => {
                let outcome = Outcome::cut_short(
                    Ended::Cancelled,
                    self.stop.by(),
                    "Command was cancelled before it began",
                    self.request.network,
                );
                return self.leave(Ok(Arc::new(outcome)));
            }
        };
        let answer = self.run_in(works).await;
        self.leave(answer)
    }

    async fn run_in(&mut self, mut works: OwnedMutexGuard<Works>) -> Answer {
        {
            let mut gate = self.slot.gate();
            gate.admit(self.request.scope)?;
            gate.executing.clone_from(&self.request.execution_id);
        }
        let Request { tool, limits, network, .. } = &self.request;
        let outcome = works.call(tool, *limits, *network, &self.stop).await;
        if works.is_broken() {
            let switch = self.slot.gate().kill.clone();
            if let Some(switch) = switch.filter(|_| !self.stop.is_stopped()) {
                self.slot.gate().lose(&switch, self.slot.index, &self.slot.news);
            }
        }
        outcome.map(Arc::new)
    }

    fn leave(&mut self, answer: Answer) -> Answer {
        self.left = true;
        let mut gate = self.slot.gate();
        gate.queued -= 1;
        if gate.round == self.round {
            gate.executing = None;
            if let Some(id) = &self.request.execution_id {
                gate.executions.end(id, &answer);
            }
        }
        drop(gate);
        if let Some(tell) = self.tell.take() {
            // Nobody may be listening.
            let _ = tell.send(Some(answer.clone()));
        }
        answer
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if !self.left {
            // Its runtime is going down: others who wait for it see the channel closed.
            let problem = Problem::new(Code::ShuttingDown, "the server is shutting down");
            let _ = self.leave(Err(problem));
        }
    }
}

impl std::fmt::Debug for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Place").field("slot", &self.slot.index).finish_non_exhaustive()
    }
}

impl Begun {
    /// Lets somebody end the call before it ends by itself.
    pub(crate) fn stop(&self) -> Option<Stop> {
        match self {
            Self::Mine(place) => Some(place.stop.clone()),
            Self::Anothers(_, stop) => Some(stop.clone()),
            Self::Done(_) => None,
        }
    }

    pub(crate) async fn answer(self) -> Answer {
        match self {
            Self::Done(outcome) => Ok(outcome),
            // A client that hangs up drops this future. What was started is seen through: the
            // slot's next call waits for it, and a retry gets its result.
            Self::Mine(place) if matches!(place.request.tool, ToolCall::Bash(_)) => {
                tokio::spawn(place.run()).await.unwrap_or_else(|_panic_or_end| {
                    Err(Problem::new(Code::ShuttingDown, "the server is shutting down"))
                })
            }
            Self::Mine(place) => place.run().await,
            Self::Anothers(mut waiting, _) => {
                let answer = waiting.wait_for(Option::is_some).await;
                match answer.as_deref() {
                    Ok(Some(answer)) => answer.clone(),
                    _ => Err(Problem::new(Code::ShuttingDown, "the first call went away")),
                }
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
