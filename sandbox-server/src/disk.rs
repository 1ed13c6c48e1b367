//! What the files of a slot take on the disk, measured without the help of a quota.
//!
//! Measuring is a walk over all of them, so it is done seldom: in between, what a slot takes is at
//! most what it took at the last walk and what has been lost of the free space since. Only when
//! that may be over the limit is it worth a walk. Others may free space while a slot takes it, so
//! what it is known to have written counts as well; and there is a walk now and then all the same.

mod walk;

pub(crate) use walk::{Walk, Walked};

use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{CWD, Mode, OFlags, fstatvfs, openat};
use std::path::Path;

/// What a slot that is over its limit may still grow: a shell that deletes needs a little.
const SLACK_BYTES: u64 = 64 << 10;

/// A directory to be measured, held open. It is all that is ever opened by it.
pub(crate) fn open_tree(path: &Path) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(CWD, path, flags, Mode::empty())
}

/// Of the file system that a directory is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Space {
    /// For those who are not privileged.
    pub(crate) free_bytes: u64,
    /// Neither room nor, where they are counted, inodes.
    pub(crate) is_full: bool,
}

impl Space {
    pub(crate) fn of(dir: impl AsFd) -> Option<Self> {
        let stat = fstatvfs(dir).ok()?;
        let block = stat.f_frsize.max(1);
        Some(Self {
            free_bytes: stat.f_bavail.saturating_mul(block),
            is_full: stat.f_blocks > 0
                && (stat.f_bavail == 0 || (stat.f_files > 0 && stat.f_favail == 0)),
        })
    }
}

/// What is known of a slot's use, and what it may still do.
#[derive(Debug, Clone, Copy)]
#[expect(clippy::struct_field_names, reason = "each with its unit")]
pub(crate) struct Ledger {
    limit_bytes: u64,
    /// At the last walk.
    used_bytes: u64,
    /// When that walk began.
    free_bytes: u64,
    /// Since then, as far as it is known: no less than what that takes, if it is not a gap.
    written_bytes: u64,
    /// What the slot may take now. Over its limit it may only shrink.
    allowed_bytes: u64,
}

impl Ledger {
    /// For an empty slot. No limit is `None`.
    pub(crate) fn new(limit_bytes: u64, free_bytes: u64) -> Option<Self> {
        (limit_bytes > 0).then_some(Self {
            limit_bytes,
            used_bytes: 0,
            free_bytes,
            written_bytes: 0,
            allowed_bytes: limit_bytes,
        })
    }

    pub(crate) fn add_written(&mut self, bytes: u64) {
        self.written_bytes = self.written_bytes.saturating_add(bytes);
    }

    pub(crate) fn written_bytes(&self) -> u64 {
        self.written_bytes
    }

    /// The most that the slot takes, if nobody has freed anything.
    fn at_most(&self, free_bytes: u64) -> u64 {
        let lost = self.free_bytes.saturating_sub(free_bytes);
        self.used_bytes.saturating_add(lost.max(self.written_bytes))
    }

    pub(crate) fn may_be_over(&self, free_bytes: u64) -> bool {
        self.at_most(free_bytes) > self.allowed_bytes
    }

    pub(crate) fn has_room_for(&self, bytes: u64, free_bytes: u64) -> bool {
        self.at_most(free_bytes).saturating_add(bytes) <= self.limit_bytes
    }

    /// What it may still take.
    pub(crate) fn left(&self, free_bytes: u64) -> u64 {
        self.limit_bytes.saturating_sub(self.at_most(free_bytes))
    }

    pub(crate) fn exceeds(&self, used_bytes: u64) -> bool {
        let slack = if self.allowed_bytes > self.limit_bytes { SLACK_BYTES } else { 0 };
        // What cannot be measured is too much, each time.
        used_bytes == u64::MAX || used_bytes > self.allowed_bytes.saturating_add(slack)
    }

    /// The other two are from before the walk began. Returns whether the slot took more than it
    /// may.
    pub(crate) fn note(&mut self, used_bytes: u64, free_bytes: u64, written_bytes: u64) -> bool {
        let exceeded = self.exceeds(used_bytes);
        self.used_bytes = used_bytes;
        self.free_bytes = free_bytes;
        self.written_bytes = self.written_bytes.saturating_sub(written_bytes);
        self.allowed_bytes = match (self.allowed_bytes > self.limit_bytes, exceeded) {
            // What it took when it was stopped, and then ever less.
            (false, true) => used_bytes,
            (true, _) => self.allowed_bytes.min(used_bytes).max(self.limit_bytes),
            (false, false) => self.limit_bytes,
        };
        exceeded
    }

    /// What was found when everything that wrote had been stopped: until then it went on.
    pub(crate) fn rebase(&mut self, used_bytes: u64, free_bytes: u64, written_bytes: u64) {
        self.note(used_bytes, free_bytes, written_bytes);
        self.allowed_bytes = used_bytes.max(self.limit_bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_take_may_be_the_slots_until_it_is_walked() {
        let mut ledger = Ledger::new(1_000, 50_000).unwrap();
        assert!(!ledger.may_be_over(49_000));
        assert!(ledger.may_be_over(48_999));
        assert!(!ledger.note(10, 48_999, 0));
        assert!(!ledger.may_be_over(48_009));
        assert!(ledger.may_be_over(48_008));
        // Freed meanwhile by others, which hides it, but for what is known.
        assert_eq!(ledger.at_most(60_000), 10);
        ledger.add_written(700);
        assert_eq!(ledger.at_most(60_000), 710);
        // Of these, 500 were written before the walk began.
        ledger.note(510, 60_000, 500);
        assert_eq!(ledger.at_most(60_000), 710);
    }

    #[test]
    fn a_slot_that_is_over_may_shrink_and_not_grow_again() {
        let mib = 1 << 20;
        let mut ledger = Ledger::new(10 * mib, 0).unwrap();
        assert!(ledger.note(15 * mib, 0, 0), "it went over");
        assert!(!ledger.has_room_for(0, 0));
        assert!(!ledger.note(15 * mib, 0, 0), "as it was");
        assert!(!ledger.note(12 * mib, 0, 0), "it shrank");
        assert!(ledger.note(15 * mib, 0, 0), "it grew again");
        assert!(!ledger.note(9 * mib, 0, 0));
        assert!(ledger.has_room_for(mib, 0));
        assert!(!ledger.note(10 * mib, 0, 0), "all that it may have");
        assert!(ledger.note(10 * mib + 1, 0, 0));
    }

    #[test]
    fn what_was_written_while_it_was_being_stopped_is_not_held_against_the_next_call() {
        let mib = 1 << 20;
        let mut ledger = Ledger::new(10 * mib, 0).unwrap();
        assert!(ledger.note(15 * mib, 0, 0));
        ledger.rebase(18 * mib, 0, 0);
        assert!(!ledger.note(18 * mib, 0, 0));
        assert!(ledger.note(19 * mib, 0, 0));
        ledger.rebase(4 * mib, 0, 0);
        assert!(!ledger.note(10 * mib, 0, 0));
    }

    #[test]
    fn over_the_limit_small_steps_do_not_add_up() {
        let mut ledger = Ledger::new(1_000, 0).unwrap();
        ledger.note(2_000, 0, 0);
        assert!(!ledger.note(2_000 + SLACK_BYTES, 0, 0));
        assert!(ledger.note(2_000 + 2 * SLACK_BYTES, 0, 0));
        assert!(ledger.note(u64::MAX, 0, 0) && ledger.note(u64::MAX, 0, 0));
    }
}
