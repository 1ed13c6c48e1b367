//! Files that have no name any more and live on because somebody holds them open: deleted ones,
//! which take the disk, and those that never had one, which take memory.
//!
//! A process that has closed its `/proc` to its own user is passed over, and so is what only a
//! mapping or a message under way holds.

use crate::clock::now;
use rustix::{
    fd::AsFd,
    fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat, openat, statat, statfs},
};
use std::{collections::HashSet, ffi::CStr, time::Duration};

const TMPFS_MAGIC: i64 = 0x0102_1994;
const HUGETLBFS_MAGIC: i64 = 0x9584_58f6;
/// Files told apart; what more there is is not counted.
const FILES_MAX: usize = 1 << 18;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) disk_bytes: u64,
    pub(super) memory_bytes: u64,
}

/// A look at each descriptor of each process, a few processes at a time.
#[derive(Debug)]
pub(super) struct Scan {
    pids: Vec<i32>,
    /// Of the file systems whose files are the slot's disk.
    disks: Vec<u64>,
    /// Of its own file systems in memory: what is in these is counted as a whole.
    counted: Vec<u64>,
    seen: HashSet<(u64, u64)>,
    found: Held,
}

impl Scan {
    pub(super) fn new(pids: Vec<i32>, disks: &[u64], counted: &[u64]) -> Self {
        Self {
            pids,
            disks: disks.to_owned(),
            counted: counted.to_owned(),
            seen: HashSet::new(),
            found: Held::default(),
        }
    }

    /// A process more than `budget` allows at most.
    pub(super) fn step(&mut self, budget: Duration) -> Option<Held> {
        let until = now() + budget;
        while let Some(pid) = self.pids.pop() {
            // Gone meanwhile, or closed to us.
            let _ = self.look_at(pid);
            if now() >= until {
                break;
            }
        }
        self.pids.is_empty().then_some(self.found)
    }

    fn look_at(&mut self, pid: i32) -> rustix::io::Result<()> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let path = format!("/proc/{pid}/fd");
        let dir = openat(rustix::fs::CWD, path, flags, Mode::empty())?;
        for entry in Dir::read_from(&dir)? {
            let entry = entry?;
            if let Ok(stat) = statat(&dir, entry.file_name(), AtFlags::empty()) {
                self.count(&dir, pid, entry.file_name(), &stat);
            }
        }
        Ok(())
    }

    fn count(&mut self, _dir: impl AsFd, pid: i32, name: &CStr, stat: &Stat) {
        let regular = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
        if !regular || stat.st_nlink > 0 || self.counted.contains(&stat.st_dev) {
            return;
        }
        if self.seen.len() >= FILES_MAX || !self.seen.insert((stat.st_dev, stat.st_ino)) {
            return;
        }
        let bytes = u64::try_from(stat.st_blocks).unwrap_or(0).saturating_mul(512);
        if self.disks.contains(&stat.st_dev) {
            self.found.disk_bytes = self.found.disk_bytes.saturating_add(bytes);
        } else if in_memory(pid, name) {
            self.found.memory_bytes = self.found.memory_bytes.saturating_add(bytes);
        }
    }
}

fn in_memory(pid: i32, name: &CStr) -> bool {
    let Ok(stat) = statfs(format!("/proc/{pid}/fd/{}", name.to_string_lossy())) else {
        return false;
    };
    #[expect(clippy::unnecessary_cast, reason = "of another width elsewhere")]
    let kind = stat.f_type as i64;
    kind == TMPFS_MAGIC || kind == HUGETLBFS_MAGIC
}
