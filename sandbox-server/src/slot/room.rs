//! What a slot's files take on the disk, kept by the server for the tools that write.
//!
//! While commands run their slot-init watches the disk. The file tools write by the server's own
//! hand, so the server looks before it writes, and again when it has.

use crate::{
    disk::{Ledger, Space, Walk, Walked, open_tree},
    isolate::{Birth, ImageUpper},
    outcome::Outcome,
};
use rustix::fd::OwnedFd;
use slotmux_protocol::{CausedBy, Ended, Isolation, Network, ToolCall};
use std::{path::PathBuf, time::Duration};
use tokio::task::spawn_blocking;

/// A walk that takes longer is cut short: what it has found by then is less than there is.
const PATIENCE: Duration = Duration::from_secs(2);
/// Less than this was no room to begin with.
const ROOM_MIN_BYTES: u64 = 1 << 20;

/// Why there is no room for what is to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoRoom {
    /// The slot takes all that it may, or has itself filled the disk.
    Slot,
    /// Others have filled the disk.
    Machine,
}

impl NoRoom {
    pub(super) fn outcome(self, network: Network) -> Outcome {
        let mut outcome = Outcome::cut_short(Ended::Disk, CausedBy::Policy, "", network);
        match self {
            Self::Slot => outcome.meet_disk(),
            Self::Machine => outcome.meet_machine_disk(),
        }
        outcome
    }
}

#[derive(Debug)]
pub(super) struct Room {
    trees: Vec<PathBuf>,
    limit_bytes: u64,
    ledger: Option<Ledger>,
    /// Free when the slot was begun.
    begun_free_bytes: u64,
    /// It may have begun with files.
    is_known: bool,
}

impl Room {
    pub(super) fn new(birth: &Birth) -> Self {
        let mut trees = vec![birth.workspace()];
        if birth.rung != Isolation::Namespaces {
            trees.push(birth.tmp());
        }
        if birth.root.upper() == Some(ImageUpper::Disk) {
            trees.push(birth.image());
        }
        let limit_bytes = birth.limits.disk_bytes_max;
        Self { trees, limit_bytes, ledger: None, begun_free_bytes: 0, is_known: false }
    }

    /// The slot begins, and its directories are there.
    pub(super) fn renew(&mut self) {
        self.begun_free_bytes = self.space().map_or(0, |it| it.free_bytes);
        self.ledger = Ledger::new(self.limit_bytes, self.begun_free_bytes);
        self.is_known = false;
    }

    /// Before a tool writes so much.
    pub(super) async fn check(&mut self, bytes: u64) -> Result<(), NoRoom> {
        if let Some(free_bytes) = self.suspicious(bytes) {
            let Some(ledger) = self.measure(free_bytes).await else { return Ok(()) };
            if !ledger.has_room_for(bytes, free_bytes) {
                return Err(NoRoom::Slot);
            }
        }
        if let Some(ledger) = &mut self.ledger {
            ledger.add_written(bytes);
        }
        Ok(())
    }

    /// What may still be written; `None` where that is not limited. Whoever writes it does so unseen:
    /// it is measured anew before the next check.
    pub(super) async fn left(&mut self) -> Option<u64> {
        self.ledger.as_ref()?;
        let free_bytes = self.space()?.free_bytes;
        let left = self.measure(free_bytes).await?.left(free_bytes);
        self.is_known = false;
        Some(left)
    }

    async fn measure(&mut self, free_bytes: u64) -> Option<&Ledger> {
        let walked = self.walk().await;
        let ledger = self.ledger.as_mut()?;
        ledger.note(walked.bytes, free_bytes, ledger.written_bytes());
        self.is_known = true;
        Some(ledger)
    }

    /// Free space, when there may be less room than is wanted.
    fn suspicious(&self, bytes: u64) -> Option<u64> {
        let ledger = self.ledger.as_ref()?;
        let free_bytes = self.space()?.free_bytes;
        let enough = self.is_known && ledger.has_room_for(bytes, free_bytes);
        (!enough).then_some(free_bytes)
    }

    /// When the system says that the disk is full.
    pub(super) async fn who_filled_it(&self) -> NoRoom {
        let used = self.walk().await.bytes;
        if self.begun_free_bytes >= ROOM_MIN_BYTES && used >= self.begun_free_bytes / 2 {
            NoRoom::Slot
        } else {
            NoRoom::Machine
        }
    }

    fn space(&self) -> Option<Space> {
        // Opened anew: it is made anew with each lease.
        Space::of(open_tree(self.trees.first()?).ok()?)
    }

    async fn walk(&self) -> Walked {
        let trees = self.trees.clone();
        let walked = spawn_blocking(move || {
            let trees: Vec<OwnedFd> = trees.iter().flat_map(|path| open_tree(path)).collect();
            Walk::new(&trees).finish_within(PATIENCE)
        });
        // It has no way to panic; and then nothing would be known.
        walked.await.unwrap_or(Walked { bytes: 0, whole: false })
    }
}

/// How much a tool adds at most, where it adds anything.
pub(super) fn added_by(tool: &ToolCall) -> Option<u64> {
    match tool {
        ToolCall::WriteFile(args) => Some(args.content.len() as u64),
        ToolCall::EditFile(args) => Some(args.new.len() as u64),
        ToolCall::Mkdir(_) => Some(0),
        _ => None,
    }
}
