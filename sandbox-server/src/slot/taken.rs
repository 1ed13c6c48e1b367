//! A slot taken from its calls, so that all of its files can be exchanged at once.
//!
//! Invariant: between the taking and the giving back no call runs in it, and one that waited was
//! told so; and a reset that comes meanwhile finds the slot dirty, and empties it.

use super::{
    Slot,
    gate::Phase,
    place::Scope,
    process::KillSwitch,
    works::{RenewError, Works},
};
use slotmux_protocol::{CausedBy, Code, Problem};
use std::sync::Arc;
use tokio::sync::OwnedMutexGuard;

/// What becomes of what runs in a slot that is to be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Running {
    /// Then the slot is not taken.
    Refuse,
    End,
}

#[derive(Debug)]
pub(crate) struct Taken {
    slot: Arc<Slot>,
    works: OwnedMutexGuard<Works>,
    /// Of our shutting: another one since means that a reset waits for its turn.
    round: u64,
    given_back: bool,
}

impl Slot {
    /// Refused for a slot that a pool has, or that cannot be used.
    pub(crate) fn may_be_taken(&self) -> Result<(), Problem> {
        self.gate().admit(Scope::Standalone)
    }

    pub(crate) async fn take(self: &Arc<Self>, running: Running) -> Result<Taken, Problem> {
        let (works, round) = match running {
            Running::End => {
                let round = self.shut_standalone()?;
                (Arc::clone(&self.turn).lock_owned().await, round)
            }
            Running::Refuse => {
                self.may_be_taken()?;
                let mut works =
                    Arc::clone(&self.turn).try_lock_owned().map_err(|_| busy("a call"))?;
                if !works.is_idle().await {
                    return Err(busy("a process in the background"));
                }
                (works, self.shut_standalone_if_idle()?)
            }
        };
        Ok(Taken { slot: Arc::clone(self), works, round, given_back: false })
    }

    fn shut_standalone(&self) -> Result<u64, Problem> {
        let mut gate = self.gate();
        gate.admit(Scope::Standalone)?;
        let fence = gate.fence;
        gate.shut(fence, CausedBy::Client, &self.limits);
        Ok(gate.round)
    }

    fn shut_standalone_if_idle(&self) -> Result<u64, Problem> {
        if self.gate().queued > 0 {
            return Err(busy("a call"));
        }
        self.shut_standalone()
    }
}

impl Taken {
    pub(crate) fn works(&mut self) -> &mut Works {
        &mut self.works
    }

    pub(crate) fn slot(&self) -> &Arc<Slot> {
        &self.slot
    }

    /// The slot is open for calls again, with what was made of it.
    pub(crate) fn give_back(mut self, switch: KillSwitch) {
        self.open(switch, true);
    }

    /// Empties a slot that could not be filled: it is never half full and open.
    pub(crate) async fn give_up(mut self, error: &RenewError) -> Problem {
        let why = crate::chain(error);
        tracing::warn!(slot = %self.slot.index, error = %why, "slot not filled");
        match self.works.renew().await {
            Ok(switch) => self.open(switch, false),
            Err(error) => {
                let why = crate::chain(&error);
                tracing::error!(slot = %self.slot.index, error = %why, "slot not cleaned");
                self.leave_dirty(why);
            }
        }
        problem_of(error)
    }

    fn open(&mut self, switch: KillSwitch, used: bool) {
        self.given_back = true;
        let mut gate = self.slot.gate();
        if gate.round != self.round || gate.closed {
            // A reset is waiting for its turn: the slot is its to open.
            return;
        }
        gate.phase = Phase::Clean;
        gate.used = used;
        gate.kill = Some(switch.clone());
        drop(gate);
        self.slot.watch(switch);
    }

    /// It has to be reset.
    pub(crate) fn leave_dirty(&mut self, why: String) {
        self.given_back = true;
        let mut gate = self.slot.gate();
        if gate.round == self.round && !gate.closed {
            gate.phase = Phase::Dirty(why);
        }
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        if !self.given_back {
            self.leave_dirty("its files were being exchanged: reset it".to_owned());
        }
    }
}

fn busy(what: &str) -> Problem {
    Problem::new(
        Code::SlotBusy,
        format!("{what} is running in the slot: wait for its end, or say `\"stop\": true`"),
    )
}

/// A full disk is the client's to empty; the rest is ours.
pub(crate) fn problem_of(error: &RenewError) -> Problem {
    use std::io::ErrorKind::{QuotaExceeded, StorageFull};
    let detail = crate::chain(error);
    match error {
        RenewError::Seal(io) | RenewError::Fill(io) | RenewError::Empty(io)
            if matches!(io.kind(), StorageFull | QuotaExceeded) =>
        {
            Problem::new(Code::StorageFull, detail)
        }
        RenewError::TooDeep => Problem::new(Code::Invalid, detail),
        _ => Problem::new(Code::SlotBroken, detail),
    }
}
