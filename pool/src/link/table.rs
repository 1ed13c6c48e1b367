//! The calls of a link that have no answer yet, without any I/O.
//!
//! Invariant: an entry leaves the table together with its answer, and only so.

#[cfg(test)]
mod tests;

use super::{Abandoned, LinkLimits, OutputSender};
use crate::{
    core::NumberMap,
    routes::{Beating, LeaseEnd},
};
use bytes::Bytes;
use slotmux_protocol::{
    CausedBy, Code, Ended, Epoch, ExecutionId, Isolation, Network, Problem, SlotIndex, ToolResult,
    Usage,
    link::{OutputStream, ServerInfo},
};
use std::{collections::HashMap, sync::Arc, time::Duration};
use tokio::{
    sync::{mpsc::UnboundedSender, oneshot},
    time::Instant,
};

pub(super) type Reply = Result<ToolResult, Problem>;

/// Answers to deliver once the table is unlocked.
#[must_use = "somebody waits for each of them"]
#[derive(Default)]
pub(super) struct Answers(pub(super) Vec<(oneshot::Sender<Reply>, Reply)>);

pub(super) struct Table {
    limits: LinkLimits,
    phase: Phase,
    /// Of the last server that answered.
    server: Option<ServerInfo>,
    calls: NumberMap<Entry>,
    slots: HashMap<SlotIndex, Turns>,
    bytes: usize,
}

enum Phase {
    Down,
    Up {
        boot: Arc<str>,
        /// Unbounded as a type; bounded by the calls of this table and the slots of the container.
        queue: UnboundedSender<Bytes>,
    },
    Closed {
        why: Arc<str>,
    },
}

struct Entry {
    call: NewCall,
    reply: oneshot::Sender<Reply>,
    stage: Stage,
}

enum Stage {
    Unsent {
        since: Instant,
    },
    /// Possibly sent: once queued, only the server knows.
    Sent {
        boot: Arc<str>,
        overdue: Instant,
    },
}

pub(super) struct NewCall {
    pub(super) slot: SlotIndex,
    pub(super) epoch: Epoch,
    pub(super) execution_id: ExecutionId,
    pub(super) timeout: Duration,
    pub(super) frame: Bytes,
    pub(super) abandoned: Abandoned,
    pub(super) output: Option<OutputSender>,
    /// Only kept.
    pub(super) _beating: Option<Beating>,
}

/// A slot runs one call at a time, so a call's wall time begins when those before it are over.
struct Turns {
    calls: usize,
    busy_until: Instant,
}

impl Table {
    pub(super) fn new(limits: LinkLimits) -> Self {
        Self {
            limits,
            phase: Phase::Down,
            server: None,
            calls: NumberMap::default(),
            slots: HashMap::new(),
            bytes: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.calls.len()
    }

    pub(super) fn is_closed(&self) -> bool {
        matches!(self.phase, Phase::Closed { .. })
    }

    /// Takes a call and sends it if there is a connection.
    pub(super) fn add(
        &mut self,
        id: u64,
        call: NewCall,
        reply: oneshot::Sender<Reply>,
        now: Instant,
    ) -> Result<(), Problem> {
        if let Phase::Closed { why } = &self.phase {
            return Err(not_run(why));
        }
        let bytes = call.frame.len();
        if self.calls.len() >= self.limits.calls_max || self.bytes + bytes > self.limits.bytes_max {
            return Err(Problem::new(
                Code::QueueFull,
                "too many calls of this container wait for an answer; retry later",
            ));
        }
        self.bytes += bytes;
        self.slots.entry(call.slot).or_insert(Turns { calls: 0, busy_until: now }).calls += 1;
        self.calls.insert(id, Entry { call, reply, stage: Stage::Unsent { since: now } });
        self.send(id, now);
        Ok(())
    }

    /// Queues a command, if there is a connection to queue it for.
    pub(super) fn command(&self, frame: Bytes) {
        if let Phase::Up { queue, .. } = &self.phase {
            // A receiver that is gone means that the connection just broke.
            let _ = queue.send(frame);
        }
    }

    /// Connected: sends what this server has not answered yet, and gives up what it cannot know.
    /// The second part are calls that it should end, now that it can be told.
    pub(super) fn up(
        &mut self,
        server: ServerInfo,
        queue: UnboundedSender<Bytes>,
        now: Instant,
    ) -> (Answers, Vec<u64>) {
        if self.is_closed() {
            return Default::default();
        }
        let boot: Arc<str> = server.boot_id.as_str().into();
        self.server = Some(server);
        let (mut answers, mut cancel) = (Answers::default(), Vec::new());
        let mut ids: Vec<u64> = self.calls.keys().copied().collect();
        // In the order in which they came.
        ids.sort_unstable();
        self.phase = Phase::Up { boot: Arc::clone(&boot), queue };
        for id in ids {
            let Some(entry) = self.calls.get(&id) else { continue };
            match &entry.stage {
                Stage::Sent { boot: known, .. } if *known != boot => {
                    let result = self.lost(&entry.call, "its container was restarted");
                    self.finish(id, Ok(result), &mut answers);
                }
                Stage::Sent { .. } if !entry.reply.is_closed() => {
                    self.command(entry.call.frame.clone());
                }
                Stage::Sent { .. } => match entry.call.abandoned {
                    // It runs on there, and nobody waits here.
                    Abandoned::RunOn => drop(self.take(id)),
                    // Under its old number this connection would not know it.
                    Abandoned::Cancel => {
                        self.command(entry.call.frame.clone());
                        cancel.push(id);
                    }
                },
                Stage::Unsent { .. } => self.send(id, now),
            }
        }
        (answers, cancel)
    }

    pub(super) fn down(&mut self) {
        if self.is_closed() {
            return;
        }
        self.phase = Phase::Down;
        // What is printed meanwhile is not sent again.
        for entry in self.calls.values_mut().filter(|it| matches!(it.stage, Stage::Sent { .. })) {
            if let Some(output) = entry.call.output.take() {
                output.cut();
            }
        }
    }

    pub(super) fn close(&mut self, why: &str) -> Answers {
        if self.is_closed() {
            return Answers::default();
        }
        let why: Arc<str> = why.into();
        self.phase = Phase::Closed { why: Arc::clone(&why) };
        self.finish_where(|_| true, |table, entry| table.gone(entry, &why))
    }

    /// What a running call has printed.
    pub(super) fn output(&mut self, id: u64, stream: OutputStream, bytes: Bytes) {
        let Some(entry) = self.calls.get_mut(&id) else { return };
        if entry.call.output.as_ref().is_some_and(|output| !output.send(stream, bytes)) {
            entry.call.output = None;
        }
    }

    /// The server's answer to a call; one that was answered already is ignored.
    pub(super) fn settle(&mut self, id: u64, answer: Reply) -> Answers {
        let mut answers = Answers::default();
        self.finish(id, answer, &mut answers);
        answers
    }

    pub(super) fn end_lease(&mut self, slot: SlotIndex, epoch: Epoch, end: &LeaseEnd) -> Answers {
        // Most leases end idle; then the other slots' calls are not looked through.
        if !self.slots.contains_key(&slot) {
            return Answers::default();
        }
        let theirs = |entry: &Entry| entry.call.slot == slot && entry.call.epoch == epoch;
        self.finish_where(theirs, |table, entry| match end {
            LeaseEnd::Released => Ok(table.cancelled(&entry.call, "its lease was released")),
            LeaseEnd::Expired => Ok(table.cancelled(&entry.call, "its lease expired")),
            LeaseEnd::Revoked { why } => table.gone(entry, why),
        })
    }

    /// Nobody waits for the call any more. Returns it if the server is to be told.
    pub(super) fn abandon(&mut self, id: u64) -> Option<u64> {
        let entry = self.calls.get(&id)?;
        match (&entry.stage, entry.call.abandoned) {
            // Never sent, so it never runs, and a retry under its id is its first run.
            (Stage::Unsent { .. }, _) => {
                self.take(id);
                None
            }
            // Kept until its answer comes: it still takes up room in the container.
            (Stage::Sent { .. }, Abandoned::RunOn) => None,
            (Stage::Sent { .. }, Abandoned::Cancel) => Some(id),
        }
    }

    /// Answers what has waited too long. The second part are calls that the server should end.
    pub(super) fn sweep(&mut self, now: Instant) -> (Answers, Vec<u64>) {
        let unsent_max = self.limits.unsent_max;
        let mut overdue_ids: Vec<u64> = Vec::new();
        let mut unsent_ids: Vec<u64> = Vec::new();
        for (id, entry) in &self.calls {
            match &entry.stage {
                Stage::Unsent { since } if now >= *since + unsent_max => unsent_ids.push(*id),
                Stage::Sent { overdue, .. } if now >= *overdue => overdue_ids.push(*id),
                Stage::Unsent { .. } | Stage::Sent { .. } => {}
            }
        }
        let mut answers = Answers::default();
        for id in unsent_ids {
            self.finish(id, Err(not_run("no connection to its container")), &mut answers);
        }
        for id in &overdue_ids {
            let Some(entry) = self.calls.get(id) else { continue };
            let result = self.result(
                &entry.call,
                Ended::Unknown,
                CausedBy::Infra,
                "the container did not say how the call ended".to_owned(),
            );
            self.finish(*id, Ok(result), &mut answers);
        }
        (answers, overdue_ids)
    }

    fn send(&mut self, id: u64, now: Instant) {
        let Phase::Up { boot, queue } = &self.phase else { return };
        let Some(entry) = self.calls.get_mut(&id) else { return };
        if queue.send(entry.call.frame.clone()).is_err() {
            // The connection just broke, and the frame was not taken.
            return;
        }
        let Some(turns) = self.slots.get_mut(&entry.call.slot) else { return };
        turns.busy_until = turns.busy_until.max(now) + entry.call.timeout;
        let overdue = turns.busy_until + self.limits.overdue_max;
        entry.stage = Stage::Sent { boot: Arc::clone(boot), overdue };
    }

    fn finish(&mut self, id: u64, answer: Reply, answers: &mut Answers) {
        if let Some(entry) = self.take(id) {
            answers.0.push((entry.reply, answer));
        }
    }

    fn finish_where(
        &mut self,
        which: impl Fn(&Entry) -> bool,
        answer: impl Fn(&Self, &Entry) -> Reply,
    ) -> Answers {
        let ids: Vec<u64> =
            self.calls.iter().filter(|(_, entry)| which(entry)).map(|(id, _)| *id).collect();
        let mut answers = Answers::default();
        for id in ids {
            let Some(entry) = self.take(id) else { continue };
            let answer = answer(self, &entry);
            answers.0.push((entry.reply, answer));
        }
        answers
    }

    fn take(&mut self, id: u64) -> Option<Entry> {
        let entry = self.calls.remove(&id)?;
        self.bytes -= entry.call.frame.len();
        if let Some(turns) = self.slots.get_mut(&entry.call.slot) {
            turns.calls -= 1;
            if turns.calls == 0 {
                self.slots.remove(&entry.call.slot);
            }
        }
        Some(entry)
    }

    /// The answer to a call whose container or lease went away.
    fn gone(&self, entry: &Entry, why: &str) -> Reply {
        match entry.stage {
            Stage::Unsent { .. } => Err(not_run(why)),
            Stage::Sent { .. } => Ok(self.lost(&entry.call, why)),
        }
    }

    fn lost(&self, call: &NewCall, why: &str) -> ToolResult {
        let error = format!("the call was lost: {why}");
        self.result(call, Ended::Lost, CausedBy::Infra, error)
    }

    fn cancelled(&self, call: &NewCall, why: &str) -> ToolResult {
        let error = format!("the call was cancelled: {why}");
        self.result(call, Ended::Cancelled, CausedBy::Client, error)
    }

    fn result(
        &self,
        call: &NewCall,
        ended: Ended,
        caused_by: CausedBy,
        error: String,
    ) -> ToolResult {
        let walls = self.server.as_ref().map(|server| (server.isolation, server.network));
        // A call that was never sent has no result, so there always was a server.
        let (isolation, network) = walls.unwrap_or((Isolation::None, Network::On));
        ToolResult {
            execution_id: call.execution_id.clone(),
            success: false,
            output: String::new(),
            data: None,
            error,
            ended,
            caused_by,
            exit_code: None,
            signal: None,
            isolation,
            network,
            usage: Usage::default(),
        }
    }
}

fn not_run(why: &str) -> Problem {
    Problem::new(Code::ContainerUnreachable, format!("the call was not run: {why}; retry it"))
}
