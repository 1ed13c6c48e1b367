//! The pool's end of a container's Link: one WebSocket, dialled again until it is closed.
//!
//! Invariants: a call is answered exactly once, whatever becomes of the connection; it is sent
//! again only to the server process that may know it, under the same execution id; and how many
//! calls and bytes wait here is bounded. Commands ([`Link::open`], [`Link::reset`]) are lost with
//! the connection: [`LinkNews::Up`] says what became of the slots.

mod connection;
mod fault;
mod output;
#[cfg(test)]
pub(crate) mod peer;
mod table;
#[cfg(test)]
mod tests;

use crate::routes::{Beating, LeaseEnd};
use bytes::{Bytes, BytesMut};
pub use output::{Output, OutputReader, OutputSender, output};
use slotmux_backend::Address;
use slotmux_protocol::{
    CallLimits, Code, ContainerId, Epoch, ExecutionId, Limits, Problem, SlotIndex, ToolCall,
    ToolResult, encode,
    link::{Call, CallId, Holder, ServerInfo, SlotReport, ToContainer},
};
use std::{
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use table::{Answers, Reply, Table};
use tokio::{sync::oneshot, time::Instant};
use tokio_util::sync::CancellationToken;

/// More than the headers of a frame and of the WebSocket message round it.
const HEADERS_BYTES_MAX: usize = 64;

/// What a link tells its pool. Late news of an epoch that is over are normal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkNews {
    /// Connected, also again after a break.
    Up {
        server: ServerInfo,
        slots: Vec<SlotReport>,
    },
    Opened {
        slot: SlotIndex,
        epoch: Epoch,
    },
    Shut {
        slot: SlotIndex,
        epoch: Epoch,
        why: String,
    },
    Clean {
        slot: SlotIndex,
        epoch: Epoch,
    },
    Dirty {
        slot: SlotIndex,
        epoch: Epoch,
        why: String,
    },
    Broken {
        slot: SlotIndex,
        epoch: Epoch,
        why: String,
    },
    /// Not connected. Told once for each reason in a row, not for each attempt.
    Down {
        why: String,
    },
}

/// Called from the link's task, in the order of events; must not block.
pub type Tell = Arc<dyn Fn(LinkNews) + Send + Sync>;

/// How the pool introduces itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkIdentity {
    pub pool: String,
    /// Of this pool process.
    pub generation: u64,
}

/// What one link holds and how long it waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinkLimits {
    pub calls_max: usize,
    /// Of all unanswered calls together.
    pub bytes_max: usize,
    pub frame_bytes_max: usize,
    /// How long a call waits for a connection before it is refused.
    pub unsent_max: Duration,
    /// How long past its wall time an answer may take before the call counts as unknown.
    pub overdue_max: Duration,
    /// For connecting, the handshake and the server's hello together.
    pub dial_max: Duration,
}

impl Default for LinkLimits {
    fn default() -> Self {
        Self {
            calls_max: 16_384,
            bytes_max: 128 << 20,
            frame_bytes_max: Limits::default().body_bytes_max,
            unsent_max: Duration::from_secs(3),
            overdue_max: Duration::from_secs(10),
            dial_max: Duration::from_secs(5),
        }
    }
}

#[derive(Debug)]
pub struct LinkCall {
    pub slot: SlotIndex,
    pub epoch: Epoch,
    pub execution_id: ExecutionId,
    pub tool: ToolCall,
    pub limits: CallLimits,
    pub abandoned: Abandoned,
    /// Where its output goes while it runs.
    pub output: Option<OutputSender>,
    /// Kept until the call has ended, also when its client no longer waits.
    pub beating: Option<Beating>,
}

/// What becomes of a call whose client went away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Abandoned {
    /// The client knows its execution id and may ask again.
    RunOn,
    Cancel,
}

/// A handle; the connection ends with [`Link::close`] or with the last clone.
#[derive(Clone)]
pub struct Link(Arc<Owner>);

struct Owner(Arc<Shared>);

impl Drop for Owner {
    fn drop(&mut self) {
        self.0.close("the pool dropped the link");
    }
}

/// What handles and the link's task have in common.
struct Shared {
    container: ContainerId,
    limits: LinkLimits,
    table: Mutex<Table>,
    next_call: AtomicU64,
    closed: CancellationToken,
}

impl Link {
    /// Spawns the link's task on the current runtime.
    pub fn dial(
        container: ContainerId,
        address: Address,
        identity: LinkIdentity,
        heartbeat: Duration,
        tell: Tell,
    ) -> Self {
        Self::dial_within(LinkLimits::default(), container, address, identity, heartbeat, tell)
    }

    pub(crate) fn dial_within(
        limits: LinkLimits,
        container: ContainerId,
        address: Address,
        identity: LinkIdentity,
        heartbeat: Duration,
        tell: Tell,
    ) -> Self {
        let shared = Arc::new(Shared {
            container,
            limits,
            table: Mutex::new(Table::new(limits)),
            next_call: AtomicU64::new(1),
            closed: CancellationToken::new(),
        });
        let dialler =
            connection::Dialler { shared: Arc::clone(&shared), address, identity, heartbeat, tell };
        tokio::spawn(dialler.run());
        Self(Arc::new(Owner(shared)))
    }

    pub fn container(&self) -> &ContainerId {
        &self.0.0.container
    }

    pub fn open(&self, slot: SlotIndex, holder: Holder) {
        self.0.0.command(&ToContainer::Open { slot, holder });
    }

    pub fn reset(&self, slot: SlotIndex, epoch: Epoch) {
        self.0.0.command(&ToContainer::Reset { slot, epoch });
    }

    pub fn shutdown(&self, grace: Duration) {
        let grace_ms = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
        self.0.0.command(&ToContainer::Shutdown { grace_ms });
    }

    /// Ends the link for good, after what was queued has been written. Calls without an answer
    /// are lost, and those that were never sent are refused.
    pub fn close(&self, why: &str) {
        self.0.0.close(why);
    }

    /// Answers at once every call of a lease that is over.
    pub fn end_calls(&self, slot: SlotIndex, epoch: Epoch, end: &LeaseEnd) {
        let answers = self.0.0.table().end_lease(slot, epoch, end);
        answers.deliver();
    }

    /// Runs a call. Dropping the future before it is done abandons the call.
    pub async fn call(&self, mut call: LinkCall) -> Result<ToolResult, Problem> {
        let shared = &self.0.0;
        let id = shared.next_call.fetch_add(1, Ordering::Relaxed);
        let stream = call.output.is_some();
        let entry = table::NewCall {
            slot: call.slot,
            epoch: call.epoch,
            execution_id: call.execution_id.clone(),
            timeout: Duration::from_millis(call.limits.timeout_ms),
            abandoned: call.abandoned,
            output: call.output.take(),
            _beating: call.beating.take(),
            frame: shared.frame(id, call, stream)?,
        };
        let (reply, answer) = oneshot::channel();
        shared.table().add(id, entry, reply, Instant::now())?;
        InFlight { shared, id, answer, answered: false }.answer().await
    }

    /// Calls that have no answer yet.
    pub fn calls(&self) -> usize {
        self.0.0.table().len()
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").field("container", self.container()).finish_non_exhaustive()
    }
}

impl Shared {
    fn table(&self) -> MutexGuard<'_, Table> {
        // Nothing panics under this lock; if it did, each entry is still whole.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn close(&self, why: &str) {
        let answers = self.table().close(why);
        self.closed.cancel();
        answers.deliver();
    }

    fn command(&self, command: &ToContainer) {
        let mut frame = BytesMut::new();
        match encode(command, self.limits.frame_bytes_max, &mut frame) {
            Ok(()) => self.table().command(frame.freeze()),
            // A command has no part that a client could make this large.
            Err(error) => {
                tracing::error!(container = %self.container, %error, "command not encoded");
            }
        }
    }

    fn frame(&self, id: u64, call: LinkCall, stream: bool) -> Result<Bytes, Problem> {
        let LinkCall { slot, epoch, execution_id, tool, limits, .. } = call;
        let call = Call { call: CallId(id), slot, epoch, execution_id, tool, limits, stream };
        let mut frame = BytesMut::new();
        // A message that carries it alone must be within the limit too.
        let limit_bytes = self.limits.frame_bytes_max.saturating_sub(HEADERS_BYTES_MAX);
        encode(&ToContainer::Call(Box::new(call)), limit_bytes, &mut frame)
            .map_err(|error| Problem::new(Code::TooLarge, error.to_string()).at("args"))?;
        Ok(frame.freeze())
    }

    fn cancel(&self, calls: impl IntoIterator<Item = u64>) {
        for call in calls {
            self.command(&ToContainer::Cancel { call: CallId(call) });
        }
    }
}

/// A call that waits for its answer; told to the table when nobody waits any more.
struct InFlight<'a> {
    shared: &'a Shared,
    id: u64,
    answer: oneshot::Receiver<Reply>,
    answered: bool,
}

impl InFlight<'_> {
    async fn answer(mut self) -> Reply {
        let answer = (&mut self.answer).await;
        self.answered = true;
        // Every entry is answered before it is dropped, except when the runtime itself ends.
        answer.unwrap_or_else(|_| {
            Err(Problem::new(Code::ShuttingDown, "the pool is shutting down; retry later"))
        })
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        if !self.answered {
            let cancel = self.shared.table().abandon(self.id);
            self.shared.cancel(cancel);
        }
    }
}

impl Answers {
    /// Outside the table's lock: each wakes a task.
    fn deliver(self) {
        for (reply, answer) in self.0 {
            // A receiver that is gone has abandoned the call.
            let _ = reply.send(answer);
        }
    }
}
