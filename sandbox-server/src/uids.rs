//! Linux users for slots: a range of uids that no other server of this machine uses.
//!
//! Held by a lock that goes when this process does, so nothing has to be cleaned up.

use crate::isolate::Identity;
use rustix::fs::{FlockOperation, flock};
use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

/// Each server gets this many: a user and its reaper for each slot.
const RANGE: u32 = 2 * SLOTS_MAX as u32;
const RANGES_MAX: u32 = 512;
/// Above what distributions, systemd and subordinate id files give out.
const FIRST_HIGH: u32 = 1_000_000_000;
/// Where a user namespace maps 65,536 ids only: above what people and services have.
const FIRST_LOW: u32 = 30_000;
const LOW_RANGES: u32 = 12;
const LOCKS: &str = "/run/slotmux/uids";

pub(crate) const SLOTS_MAX: u16 = 1_024;

#[derive(Debug)]
pub(crate) struct UidRange {
    first: u32,
    _lock: File,
}

impl UidRange {
    pub(crate) fn take() -> io::Result<Self> {
        let (first, ranges) = if is_mapped(FIRST_HIGH + RANGE * RANGES_MAX) {
            (FIRST_HIGH, RANGES_MAX)
        } else {
            (FIRST_LOW, LOW_RANGES)
        };
        fs::create_dir_all(LOCKS)?;
        for number in 0..ranges {
            if let Some(lock) = try_lock(&Path::new(LOCKS).join(number.to_string()))? {
                return Ok(Self { first: first + number * RANGE, _lock: lock });
            }
        }
        Err(io::Error::other(format!("all {ranges} uid ranges of {LOCKS} are in use")))
    }

    pub(crate) fn slot(&self, index: u16) -> Identity {
        let uid = self.first + u32::from(index) * 2;
        Identity { uid, reaper_uid: uid + 1 }
    }
}

fn try_lock(path: &Path) -> io::Result<Option<File>> {
    let file =
        OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(file)),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn is_mapped(uid: u32) -> bool {
    let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    map.lines().any(|line| {
        let mut numbers = line.split_whitespace().filter_map(|it| it.parse::<u64>().ok());
        let (Some(first), _, Some(count)) = (numbers.next(), numbers.next(), numbers.next()) else {
            return false;
        };
        (first..first + count).contains(&u64::from(uid))
    })
}
