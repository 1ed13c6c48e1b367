//! Replacing a file as a whole: written beside it, then renamed over it.
//!
//! Invariant: under the file's name there is the old content or the new, never a part; a draft that
//! does not get there is removed.

use super::{
    FileError, Workspace, fault,
    path::{nameless, open_strictly},
    regular, size_of_file,
    write::{FILE_MODE, write_all},
};
use rustix::{
    fd::OwnedFd,
    fs::{
        AtFlags, FileType, Gid, Mode, OFlags, Stat, Uid, fchmod, fchown, readlinkat, renameat,
        statat, unlinkat,
    },
    io::Errno,
};
use std::{
    ffi::{OsStr, OsString},
    hash::{BuildHasher as _, RandomState},
    os::unix::ffi::OsStrExt as _,
    path::PathBuf,
};

/// As many as the kernel follows.
const LINKS_MAX: usize = 40;
const NAMES_TRIED_MAX: usize = 16;
const MODE_BITS: u32 = 0o777;

/// New content of a file, not yet under its name.
pub(super) struct Draft<'a> {
    workspace: &'a Workspace,
    path: &'a str,
    dir: OwnedFd,
    name: OsString,
    /// Its name until then.
    beside: OsString,
    file: OwnedFd,
    /// What it is to replace.
    old: Option<Stat>,
    placed: bool,
}

impl<'a> Draft<'a> {
    /// Parents are made. A link is followed, so that it stays one.
    pub(super) fn begin(workspace: &'a Workspace, path: &'a str) -> Result<Self, FileError> {
        let _slot = workspace.as_slot();
        let (dir, name) = find(workspace, path)?;
        let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::NOFOLLOW;
        // What may not be written in place is not replaced either.
        let old = match open_strictly(&dir, &name, flags, Mode::empty()) {
            Ok(file) => Some(regular(&file, path)?),
            Err(Errno::NOENT) => None,
            Err(errno) => return Err(fault(path, errno)),
        };
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
        let mut made = Err(Errno::EXIST);
        let mut beside = OsString::new();
        for _ in 0..NAMES_TRIED_MAX {
            beside = format!(".slotmux-{:016x}", RandomState::new().hash_one(0)).into();
            made = open_strictly(&dir, &beside, flags, Mode::from_raw_mode(FILE_MODE.into()));
            if !matches!(made, Err(Errno::EXIST)) {
                break;
            }
        }
        let file = made.map_err(|errno| fault(path, errno))?;
        Ok(Self { workspace, path, dir, name, beside, file, old, placed: false })
    }

    pub(super) fn write(&self, content: &[u8]) -> Result<(), FileError> {
        self.workspace.check_file_bytes(content.len() as u64)?;
        write_all(&self.file, content).map_err(|errno| fault(self.path, errno))
    }

    /// `seen` is the file as the new content was made from it: a change since then is not lost.
    pub(super) fn put_in_place(
        mut self,
        mode: Option<Mode>,
        seen: Option<&Stat>,
    ) -> Result<(), FileError> {
        let fault = |errno| fault(self.path, errno);
        let _slot = self.workspace.as_slot();
        let kept = self.old.map(|old| Mode::from_raw_mode(old.st_mode & MODE_BITS));
        if let Some(mode) = mode.or(kept) {
            fchmod(&self.file, mode).map_err(fault)?;
        }
        if let Some(old) = &self.old {
            let owner = (Uid::from_raw(old.st_uid), Gid::from_raw(old.st_gid));
            match fchown(&self.file, Some(owner.0), Some(owner.1)) {
                // Somebody else's file, writable for the slot, becomes the slot's.
                Ok(()) | Err(Errno::PERM) => {}
                Err(errno) => return Err(fault(errno)),
            }
        }
        if let Some(seen) = seen {
            let now = statat(&self.dir, &self.name, AtFlags::SYMLINK_NOFOLLOW).map_err(fault)?;
            if !is_same(seen, &now) {
                let text =
                    format!("{} was changed meanwhile; read it again", super::short(self.path));
                return Err(FileError::Invalid(text));
            }
        }
        renameat(&self.dir, &self.beside, &self.dir, &self.name).map_err(fault)?;
        self.placed = true;
        Ok(())
    }
}

impl Drop for Draft<'_> {
    fn drop(&mut self) {
        if !self.placed {
            let _slot = self.workspace.as_slot();
            // Gone already, or the slot has taken its directory from itself.
            let _ = unlinkat(&self.dir, &self.beside, AtFlags::empty());
        }
    }
}

fn is_same(seen: &Stat, now: &Stat) -> bool {
    (seen.st_dev, seen.st_ino, seen.st_mtime, seen.st_mtime_nsec, size_of_file(seen))
        == (now.st_dev, now.st_ino, now.st_mtime, now.st_mtime_nsec, size_of_file(now))
}

/// The directory and the name that a path leads to in the end.
fn find(workspace: &Workspace, path: &str) -> Result<(OwnedFd, OsString), FileError> {
    let mut at = PathBuf::from(path);
    for _ in 0..LINKS_MAX {
        // A link's target need not be text; it is looked at as one to find where it begins.
        let text = at.to_str().ok_or_else(|| nameless(path))?.to_owned();
        if text.ends_with('/') {
            return Err(FileError::NotAFile(super::short(path)));
        }
        let place = workspace.place(&text)?;
        let (above, name) = place.split().ok_or_else(|| FileError::NotAFile(super::short(path)))?;
        let dir = match workspace.open_dir(above) {
            Err(Errno::NOENT) => workspace.make_dirs(above),
            other => other,
        };
        let dir = dir.map_err(|errno| fault(path, errno))?;
        let kind = match statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => FileType::from_raw_mode(stat.st_mode),
            Err(Errno::NOENT) => FileType::RegularFile,
            Err(errno) => return Err(fault(path, errno)),
        };
        if kind != FileType::Symlink {
            return Ok((dir, name.to_owned()));
        }
        let target = readlinkat(&dir, name, Vec::new()).map_err(|errno| fault(path, errno))?;
        let target = PathBuf::from(OsStr::from_bytes(target.to_bytes()));
        at.pop();
        // Absolute, it replaces all.
        at.push(target);
    }
    Err(FileError::Outside)
}
