//! The disk of a slot, where no quota holds it: a walk when there is reason to suspect it.

use super::{
    held::{Held, Scan},
    processes,
};
use crate::{
    clock::now,
    disk::{Ledger, Space, Walk, Walked},
    isolate::Birth,
    wire::Full,
};
use rustix::{
    fd::OwnedFd,
    fs::{fstat, stat, statvfs},
};
use slotmux_protocol::Isolation;
use std::time::Duration;

/// Of work at a time, so that commands are not kept waiting.
const STEP: Duration = Duration::from_millis(3);
/// A look at the free space costs microseconds.
const LOOK_MIN: Duration = Duration::from_millis(50);
const LOOK_MAX: Duration = Duration::from_millis(400);
/// Between walks: at least this long, and so long that they take a twentieth of the time.
const REST_MIN: Duration = Duration::from_secs(1);
const REST_FACTOR: u32 = 19;
/// Without any reason, but others may hide what a slot takes.
const REST_MAX: Duration = Duration::from_secs(30);
/// How long an answer waits for a walk.
const ANSWER_PATIENCE: Duration = Duration::from_secs(2);
/// Less than this was no room to begin with.
const ROOM_MIN_BYTES: u64 = 1 << 20;

pub(super) struct DiskWatch {
    trees: Vec<OwnedFd>,
    /// The file systems that deleted files would be on.
    devices: Vec<u64>,
    ledger: Option<Ledger>,
    /// Free when the slot was begun.
    room_bytes: u64,
    seen_free_bytes: u64,
    going: Option<Going>,
    /// A walk has found too much, and another one has to confirm it: what is moved while it is
    /// walked may be counted twice.
    suspect_bytes: Option<u64>,
    rested_at: Duration,
    forced_at: Duration,
    wait: Duration,
    /// Something has run since the last walk began.
    stale: bool,
    /// It was stopped for what it took, and what that came to is not known yet.
    stopped: bool,
}

struct Going {
    walk: Walk,
    walked: Option<Walked>,
    scan: Scan,
    free_bytes: u64,
    written_bytes: u64,
    worked: Duration,
}

impl Going {
    /// What was found, when all was looked at.
    fn step(&mut self, budget: Duration) -> Option<u64> {
        let begun = now();
        if self.walked.is_none() {
            self.walked = self.walk.step(budget);
        }
        let done = self.walked.and_then(|walked| {
            let Held { disk_bytes, .. } = self.scan.step(budget)?;
            Some(walked.bytes.saturating_add(disk_bytes))
        });
        self.worked += now().saturating_sub(begun);
        done
    }
}

pub(super) fn is_full(path: &str) -> bool {
    statvfs(path)
        .is_ok_and(|it| it.f_blocks > 0 && (it.f_bfree == 0 || (it.f_files > 0 && it.f_ffree == 0)))
}

impl DiskWatch {
    /// The slot begins; it may have files already.
    pub(super) fn new(birth: &Birth, trees: Vec<OwnedFd>) -> Self {
        let free_bytes = trees.first().and_then(Space::of).map_or(0, |it| it.free_bytes);
        // An overlay has a device of its own.
        let inside = match birth.rung {
            Isolation::Namespaces => ["/workspace", "/"].as_slice(),
            _ => &[],
        };
        let devices = trees.iter().flat_map(fstat).chain(inside.iter().flat_map(|it| stat(*it)));
        Self {
            devices: devices.map(|it| it.st_dev).collect(),
            ledger: Ledger::new(birth.limits.disk_bytes_max, free_bytes),
            room_bytes: free_bytes,
            seen_free_bytes: free_bytes,
            going: None,
            suspect_bytes: None,
            rested_at: Duration::ZERO,
            forced_at: now() + REST_MAX,
            wait: LOOK_MIN,
            stale: true,
            stopped: false,
            trees,
        }
    }

    pub(super) fn is_limited(&self) -> bool {
        self.ledger.is_some()
    }

    /// A call begins.
    pub(super) fn begin(&mut self, birth: &Birth) {
        if self.stopped {
            self.walk_now(birth);
            // Otherwise it is the watch that comes to know it.
            self.stopped = false;
        }
        self.stale = true;
        self.wait = LOOK_MIN;
    }

    pub(super) fn add_written(&mut self, bytes: u64) {
        if let Some(ledger) = &mut self.ledger {
            ledger.add_written(bytes);
        }
    }

    /// A walk is owed although nothing runs any more.
    pub(super) fn is_stale(&self) -> bool {
        self.is_limited() && self.stale
    }

    /// Until the next look.
    pub(super) fn wait(&self) -> Duration {
        self.wait
    }

    /// A moment's work. Whether the slot has taken more than it may.
    pub(super) fn look(&mut self, birth: &Birth, runs: bool) -> bool {
        let Some(ledger) = self.ledger else { return false };
        if self.stopped && runs {
            // They are being killed.
            return false;
        }
        let free_bytes = self.free_bytes();
        let suspected = ledger.may_be_over(free_bytes) || self.suspect_bytes.is_some();
        self.stale |= runs;
        if self.going.is_none() {
            self.wait = self.pause(free_bytes, runs);
            if !self.is_due(free_bytes, suspected, runs) {
                return false;
            }
            self.start(birth, free_bytes);
            self.stale = runs;
        }
        let Some(going) = &mut self.going else { return false };
        let begun = now();
        let used = going.step(STEP);
        let took = now().saturating_sub(begun);
        // A disk that is filling up is worth half of the time.
        self.wait = if suspected { took } else { took * REST_FACTOR };
        used.is_some_and(|used| self.finish(used, suspected))
    }

    fn is_due(&self, free_bytes: u64, suspected: bool, runs: bool) -> bool {
        let now = now();
        if suspected || (self.stale && !runs) || free_bytes < self.seen_free_bytes {
            return now >= self.rested_at;
        }
        now >= self.forced_at
    }

    /// Where nothing happens it is looked at less often.
    fn pause(&mut self, free_bytes: u64, runs: bool) -> Duration {
        let changed = free_bytes < self.seen_free_bytes;
        match (changed, runs) {
            (true, _) => LOOK_MIN,
            (false, true) => (self.wait * 2).clamp(LOOK_MIN, LOOK_MAX),
            (false, false) => LOOK_MAX,
        }
    }

    fn free_bytes(&self) -> u64 {
        self.trees.first().and_then(Space::of).map_or(u64::MAX, |it| it.free_bytes)
    }

    fn start(&mut self, birth: &Birth, free_bytes: u64) {
        self.seen_free_bytes = free_bytes;
        self.going = Some(Going {
            walk: Walk::new(&self.trees),
            walked: None,
            scan: Scan::new(processes(birth), &self.devices, &[]),
            free_bytes,
            written_bytes: self.ledger.map_or(0, |it| it.written_bytes()),
            worked: Duration::ZERO,
        });
    }

    fn finish(&mut self, used_bytes: u64, suspected: bool) -> bool {
        let (Some(going), Some(ledger)) = (self.going.take(), &mut self.ledger) else {
            return false;
        };
        let factor = if suspected { 1 } else { REST_FACTOR };
        let rest = (going.worked * factor).max(if suspected { LOOK_MIN } else { REST_MIN });
        self.rested_at = now() + rest;
        self.forced_at = now() + REST_MAX.max(rest);
        if self.stopped {
            self.stopped = false;
            self.suspect_bytes = None;
            ledger.rebase(used_bytes, going.free_bytes, going.written_bytes);
            return false;
        }
        match self.suspect_bytes.take() {
            None if ledger.exceeds(used_bytes) => {
                self.suspect_bytes = Some(used_bytes);
                self.rested_at = Duration::ZERO;
                self.wait = Duration::ZERO;
                false
            }
            suspect => {
                let used_bytes = used_bytes.min(suspect.unwrap_or(used_bytes));
                self.stopped = ledger.note(used_bytes, going.free_bytes, going.written_bytes);
                self.stopped
            }
        }
    }

    /// At the end of a call, when it is to be known at once.
    pub(super) fn is_over_now(&mut self, birth: &Birth) -> bool {
        let free_bytes = self.free_bytes();
        let suspected = self.ledger.is_some_and(|it| it.may_be_over(free_bytes));
        if !suspected && self.suspect_bytes.is_none() {
            return false;
        }
        self.walk_now(birth)
    }

    fn walk_now(&mut self, birth: &Birth) -> bool {
        self.suspect_bytes = None;
        for _ in 0..2 {
            let free_bytes = self.free_bytes();
            self.start(birth, free_bytes);
            let used = self.going.as_mut().and_then(|going| going.step(ANSWER_PATIENCE));
            // Not to be known in time: the watch goes on with it.
            let Some(used) = used else { return false };
            if self.finish(used, true) {
                return true;
            }
            if self.suspect_bytes.is_none() {
                break;
            }
        }
        false
    }

    /// Whether the file system has no room left, and who has taken it.
    pub(super) fn full(&mut self, birth: &Birth) -> Option<Full> {
        let space = self.trees.first().and_then(Space::of)?;
        if !space.is_full {
            return None;
        }
        self.start(birth, space.free_bytes);
        let used = self.going.as_mut().and_then(|going| going.step(ANSWER_PATIENCE));
        self.going = None;
        let half = self.room_bytes / 2;
        let own = self.room_bytes >= ROOM_MIN_BYTES && used.is_none_or(|used| used >= half);
        Some(if own { Full::Disk } else { Full::Machine })
    }
}
