//! The watch over what a slot uses, for whatever the kernel does not limit by itself.
//!
//! `memory` where no cgroup holds it, `disk` always, `cpu` for each call. Each looks as seldom as
//! it can afford to, and works for a small part of the time only. The loop of the init asks when to
//! wake up, and then whether something is over its limit.

mod cpu;
mod disk;
mod held;
mod memory;
mod processes;

use super::{no_children_left, tree};
use crate::{
    clock::now,
    isolate::{Birth, ImageUpper, Step, WallError, sys},
    wire::{End, Full, Seen},
};
use cpu::CpuWatch;
use disk::DiskWatch;
use memory::MemoryWatch;
use rustix::{
    fd::OwnedFd,
    fs::CWD,
    mount::{OpenTreeFlags, open_tree},
};
use slotmux_protocol::{CallLimits, Isolation};
use std::time::Duration;

/// How often memory and processor time are looked at.
const TICK: Duration = Duration::from_millis(50);

pub(super) struct Watch<'a> {
    birth: &'a Birth,
    memory: Option<MemoryWatch>,
    /// The kernel does not count them.
    counts_processes: bool,
    disk: DiskWatch,
    cpu: CpuWatch,
    next: Duration,
}

/// The directories that the slot's files take the disk by. To be called before the walls: what
/// lies below an overlay is seen from outside only. A mount of its own leads nowhere else.
pub(super) fn open_trees(birth: &Birth) -> Result<Vec<OwnedFd>, WallError> {
    let mut paths = vec![birth.workspace()];
    if birth.rung != Isolation::Namespaces {
        paths.push(birth.tmp());
    }
    if birth.root.upper() == Some(ImageUpper::Disk) {
        paths.push(birth.image());
    }
    let trees = paths.iter().map(|path| {
        if birth.rung == Isolation::Namespaces {
            let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
            open_tree(CWD, path, flags)
        } else {
            crate::disk::open_tree(path)
        }
    });
    trees.collect::<rustix::io::Result<_>>().step("open the slot's directories")
}

impl<'a> Watch<'a> {
    pub(super) fn new(birth: &'a Birth, trees: Vec<OwnedFd>) -> Self {
        let limit = birth.limits.memory_bytes_max;
        let unheld = !birth.memory_cgroup && limit > 0;
        Self {
            birth,
            memory: unheld.then(|| MemoryWatch::new(limit)),
            counts_processes: birth.root.is_in_parts()
                && !birth.pids_cgroup
                && birth.limits.processes_max > 0,
            disk: DiskWatch::new(birth, trees),
            cpu: CpuWatch::new(birth.cpu_time_cgroup),
            next: Duration::ZERO,
        }
    }

    /// A call begins.
    pub(super) fn begin(&mut self, limits: &CallLimits) {
        self.cpu.begin(self.birth, limits.cpu_ms_max);
        if let Some(memory) = &mut self.memory {
            memory.begin();
        }
        as_slot(self.birth, || self.disk.begin(self.birth));
        self.next = now() + TICK;
    }

    pub(super) fn note_exit(&mut self, reaped: &sys::Reaped) {
        self.cpu.note_exit(&reaped.usage);
        // What it, and those that it waited for, have made dirty; in the kernel's sectors.
        self.disk.add_written(reaped.usage.ru_oublock.unsigned_abs().saturating_mul(512));
    }

    /// When to ask again, from now; `None` while nothing can change.
    pub(super) fn next_timeout(&self) -> Option<Duration> {
        let watched = self.disk.is_limited() || self.ticks();
        let owed = self.disk.is_stale() || (watched && !no_children_left());
        owed.then(|| self.next.saturating_sub(now()))
    }

    /// What is over its limit, if it is time to look.
    pub(super) fn check(&mut self) -> Option<End> {
        if now() < self.next {
            return None;
        }
        let runs = !no_children_left();
        if runs {
            if self.counts_processes && processes::are_too_many(self.birth) {
                return Some(End::Processes);
            }
            if self.cpu.is_over(self.birth) {
                return Some(End::CpuTime);
            }
            if let Some(memory) = &mut self.memory
                && as_slot(self.birth, || memory.is_over(self.birth))
            {
                return Some(End::Oom);
            }
        }
        if as_slot(self.birth, || self.disk.look(self.birth, runs)) {
            return Some(End::Disk);
        }
        let ticks = runs && self.ticks();
        let wait = if self.disk.is_limited() { self.disk.wait() } else { TICK };
        self.next = now() + if ticks { wait.min(TICK) } else { wait };
        None
    }

    /// Whether something is looked at that changes from one moment to the next.
    fn ticks(&self) -> bool {
        self.memory.is_some() || self.counts_processes || self.cpu.is_limited()
    }

    /// The command has ended by itself: whether it leaves more than it may.
    pub(super) fn check_at_end(&mut self) -> Option<End> {
        let over = as_slot(self.birth, || self.disk.is_over_now(self.birth));
        over.then_some(End::Disk)
    }

    /// What was seen of the call that ends now.
    pub(super) fn seen(&mut self, failed: bool) -> Seen {
        let used = self.cpu.used(self.birth);
        // Its limit was the call's.
        self.cpu.end();
        let full = if failed { self.full() } else { None };
        Seen {
            user_us: used.user_us,
            system_us: used.system_us,
            own_us: used.own_us,
            max_rss_bytes: used.max_rss_bytes,
            memory_bytes: self.memory.as_ref().map(MemoryWatch::peak_bytes),
            full,
        }
    }

    /// Which of the slot's file systems has no room left.
    fn full(&mut self) -> Option<Full> {
        if self.birth.rung == Isolation::Namespaces {
            let memory_root = self.birth.root.upper() == Some(ImageUpper::Memory);
            let roots = [("/tmp", true), ("/dev/shm", true), ("/", memory_root)];
            for (path, _) in roots.into_iter().filter(|(_, is_memory)| *is_memory) {
                if disk::is_full(path) {
                    return Some(Full::Memory);
                }
            }
        }
        as_slot(self.birth, || self.disk.full(self.birth))
    }
}

/// On the `uid` rung the init is another user than its commands, and may become theirs for files
/// and for `/proc`. Elsewhere it is theirs.
fn as_slot<T>(birth: &Birth, work: impl FnOnce() -> T) -> T {
    match birth.identity.filter(|_| birth.rung == Isolation::Uid) {
        None => work(),
        Some(identity) => {
            sys::set_file_ids(identity.uid, identity.uid);
            let result = work();
            sys::set_file_ids(0, 0);
            result
        }
    }
}

/// The slot's processes, as `held` and `memory` look at them.
fn processes(birth: &Birth) -> Vec<i32> {
    tree::processes(birth)
}
