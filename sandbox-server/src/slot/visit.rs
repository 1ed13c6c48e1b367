//! A slot's turn, taken like a call's, for what is no call: nothing else runs in it meanwhile but
//! processes in the background.

use super::{Slot, place::Scope, queue_full, works::Works};
use crate::{files::Workspace, stop::Stop};
use slotmux_protocol::{Code, Problem};
use std::sync::Arc;
use tokio::sync::OwnedMutexGuard;

#[derive(Debug)]
pub(crate) struct Visit {
    works: OwnedMutexGuard<Works>,
    stop: Stop,
    _seat: Seat,
}

/// A place in the queue, given up when it goes.
#[derive(Debug)]
struct Seat(Arc<Slot>);

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.gate().queued -= 1;
    }
}

impl Slot {
    pub(crate) async fn visit(self: &Arc<Self>, scope: Scope) -> Result<Visit, Problem> {
        let (seat, stop) = {
            let mut gate = self.gate();
            gate.admit(scope)?;
            gate.used |= !matches!(scope, Scope::Lease(_));
            if gate.queued >= self.limits.queued_calls_max {
                return Err(queue_full(gate.queued));
            }
            gate.queued += 1;
            (Seat(Arc::clone(self)), gate.stop.child())
        };
        let works = tokio::select! {
            biased;
            works = Arc::clone(&self.turn).lock_owned() => works,
            () = stop.token().cancelled() => {
                return Err(Problem::new(Code::StaleEpoch, "the slot was reset meanwhile"));
            }
        };
        self.gate().admit(scope)?;
        Ok(Visit { works, stop, _seat: seat })
    }
}

impl Visit {
    pub(crate) fn workspace(&self) -> Result<&Arc<Workspace>, Problem> {
        self.works
            .workspace()
            .ok_or_else(|| Problem::new(Code::SlotBroken, "the slot has no workspace"))
    }

    /// What may still be written to the slot's disk, in bytes, where that is limited.
    pub(crate) async fn room_left(&mut self) -> Option<u64> {
        self.works.room.left().await
    }

    pub(crate) fn stop(&self) -> &Stop {
        &self.stop
    }
}
