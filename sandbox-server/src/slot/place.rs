//! A call in the order of its slot: from its place in the queue to its answer.

use super::{Slot, Stay, process::Chunks, works::Works};
use crate::{
    executions::{Answer, Waiting},
    outcome::Outcome,
    stop::Stop,
};
use slotmux_protocol::{
    CallLimits, CausedBy, Code, Ended, Epoch, ExecutionId, Network, Problem, ToolCall,
};
use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};
use tokio::sync::{OwnedMutexGuard, watch};

/// Chunks of output on their way to whoever reads them.
pub(crate) const CHUNKS_MAX: usize = 4;

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
    /// Of a slot token.
    Stay(Stay),
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
    output: Option<Chunks>,
    /// The call's place is given up once, however it ends.
    left: bool,
}

pub(super) enum Turn {
    Now(OwnedMutexGuard<Works>),
    Later(TurnFuture),
}

impl Turn {
    /// Takes the place now, also when it is not the first: a lock's queue is entered by polling.
    pub(super) fn take(lock: &Arc<tokio::sync::Mutex<Works>>) -> Self {
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
    pub(super) fn new(
        slot: Arc<Slot>,
        turn: Turn,
        request: Request,
        stop: Stop,
        tell: Option<watch::Sender<Option<Answer>>>,
        round: u64,
    ) -> Self {
        Self { slot, turn, request, stop, tell, round, output: None, left: false }
    }

    pub(crate) async fn run(mut self: Box<Self>) -> Answer {
        let turn = std::mem::replace(&mut self.turn, Turn::Later(Box::pin(std::future::pending())));
        let stopped = self.stop.clone();
        let works = tokio::select! {
            biased;
            () = stopped.token().cancelled() => {
                let outcome = Outcome::cut_short(
                    Ended::Cancelled,
                    self.stop.by(),
                    "Command was cancelled before it began",
                    self.request.network,
                );
                return self.leave(Ok(Arc::new(outcome)));
            }
            works = turn.come() => works,
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
        let output = self.output.take();
        let outcome = works.call(tool, *limits, *network, output, &self.stop).await;
        if works.is_broken() {
            let switch = self.slot.gate().kill.clone();
            if let Some(switch) = switch {
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
            if gate.executing == self.request.execution_id {
                gate.executing = None;
            }
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

/// Whether a call that is not made to its end leaves something half done, or done and unknown.
fn has_effects(tool: &ToolCall) -> bool {
    match tool {
        ToolCall::ReadFile(_)
        | ToolCall::ListFiles(_)
        | ToolCall::Glob(_)
        | ToolCall::Grep(_)
        | ToolCall::Stat(_)
        | ToolCall::Archive(_) => false,
        ToolCall::Bash(_)
        | ToolCall::BashStateful(_)
        | ToolCall::Terminal(_)
        | ToolCall::WriteFile(_)
        | ToolCall::EditFile(_)
        | ToolCall::Mkdir(_)
        | ToolCall::Delete(_)
        | ToolCall::Move(_) => true,
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if !self.left {
            // A file tool may go on in a thread of its own, for nobody.
            self.stop.stop(CausedBy::Client);
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

    /// Has what the call prints told to `chunks` while it runs. Nothing, if it is not this one
    /// that runs it.
    pub(crate) fn stream_to(&mut self, chunks: Chunks) {
        if let Self::Mine(place) = self {
            place.output = Some(chunks);
        }
    }

    pub(crate) async fn answer(self) -> Answer {
        match self {
            Self::Done(outcome) => Ok(outcome),
            // A client that hangs up drops this future. What has effects is seen through: the
            // slot's next call waits for it, and a retry gets its result.
            Self::Mine(place) if has_effects(&place.request.tool) => {
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
