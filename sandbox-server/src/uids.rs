//! Linux users for slots: a range of uids that no other server of this machine uses.
//!
//! Held by a lock that goes when this process does, so nothing has to be cleaned up.

use crate::isolate::Identity;
use rustix::fs::{FlockOperation, flock};
use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::Path,
    sync::OnceLock,
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
/// Where /run cannot be written: containers that are read-only have this one still.
const LOCKS_IN_MEMORY: &str = "/dev/shm/slotmux/uids";

pub(crate) const SLOTS_MAX: u16 = 1_024;

#[derive(Debug)]
pub(crate) struct UidRange {
    first: u32,
    _lock: File,
}

impl UidRange {
    pub(crate) fn take() -> io::Result<Self> {
        let (first, ranges) = place();
        let locks = locks()?;
        // Containers do not see one another's locks, but the kernel counts processes by uid for all
        // of them: not everybody begins at the same range.
        let begin = somewhere()?;
        for step in 0..ranges {
            let number = (begin % ranges + step) % ranges;
            if let Some(lock) = try_lock(&locks.join(number.to_string()))? {
                return Ok(Self { first: first + number * RANGE, _lock: lock });
            }
        }
        let locks = locks.display();
        Err(io::Error::other(format!("all {ranges} uid ranges of {locks} are in use")))
    }

    pub(crate) fn slot(&self, index: u16) -> Identity {
        let uid = self.first + u32::from(index) * 2;
        Identity { uid, reaper_uid: uid + 1 }
    }
}

/// Whether a user is one of some server's slots on this machine.
pub(crate) fn are_slots(uid: u32) -> bool {
    let (first, ranges) = place();
    (first..first + ranges * RANGE).contains(&uid)
}

#[cfg(test)]
pub(crate) fn any_slot() -> u32 {
    place().0 + RANGE
}

/// The first user of slots, and the number of ranges that follow.
fn place() -> (u32, u32) {
    static PLACE: OnceLock<(u32, u32)> = OnceLock::new();
    *PLACE.get_or_init(|| {
        if is_mapped(FIRST_HIGH + RANGE * RANGES_MAX) {
            (FIRST_HIGH, RANGES_MAX)
        } else {
            (FIRST_LOW, LOW_RANGES)
        }
    })
}

fn somewhere() -> io::Result<u32> {
    let mut bytes = [0; 4];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
    Ok(u32::from_ne_bytes(bytes))
}

fn locks() -> io::Result<&'static Path> {
    match own_dir(Path::new(LOCKS)) {
        Err(error) if error.kind() == io::ErrorKind::ReadOnlyFilesystem => {
            own_dir(Path::new(LOCKS_IN_MEMORY))
        }
        other => other,
    }
}

/// Everybody may make directories in /dev/shm: one that is there must be root's.
fn own_dir(dir: &'static Path) -> io::Result<&'static Path> {
    // Whatever our umask is.
    DirBuilder::new().recursive(true).mode(0o755).create(dir)?;
    for dir in dir.ancestors().take(2) {
        let meta = fs::symlink_metadata(dir)?;
        if !meta.is_dir() || meta.uid() != 0 || meta.mode() & 0o022 != 0 {
            return Err(io::Error::other(format!("{} is not root's alone", dir.display())));
        }
    }
    Ok(dir)
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
