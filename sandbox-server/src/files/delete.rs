//! Deleting, also trees that are deeper than descriptors are many.
//!
//! A directory that lies too deep is moved up beside the others of the tree and waits for its turn
//! there; so a bounded number of descriptors and names does for any tree.

use super::{FileError, Told, Until, Workspace, fault, path::open_strictly, walk::is_dots};
use rustix::{
    fd::{AsRawFd as _, OwnedFd},
    fs::{AtFlags, Dir, Mode, OFlags, chmod, fchmod, fstat, renameat, unlinkat},
    io::Errno,
};
use serde_json::json;
use slotmux_protocol::DeleteArgs;
use std::{
    ffi::{CString, OsStr},
    os::unix::ffi::OsStrExt as _,
};

/// Directories in directories that are held open.
const DEPTH_MAX: usize = 32;
/// Names of one directory that are held at a time.
const NAMES_MAX: usize = 1_024;

pub(super) fn delete(
    workspace: &Workspace,
    args: &DeleteArgs,
    until: &Until,
) -> Result<Told, FileError> {
    let place = workspace.place(&args.path)?;
    let _slot = workspace.as_slot();
    let (dir, name) = workspace.open_above(&args.path, place)?;
    let told = |count: u64| Told {
        text: format!("Deleted {}", args.path),
        data: Some(json!({ "entries": count })),
    };
    let name = CString::new(name.as_bytes()).map_err(|_nul| FileError::Outside)?;
    match unlinkat(&dir, &name, AtFlags::empty()) {
        Ok(()) => return Ok(told(1)),
        Err(Errno::ISDIR) => {}
        Err(errno) => return Err(fault(&args.path, errno)),
    }
    match unlinkat(&dir, &name, AtFlags::REMOVEDIR) {
        Ok(()) => return Ok(told(1)),
        Err(Errno::NOTEMPTY) if args.recursive => {}
        Err(errno) => return Err(fault(&args.path, errno)),
    }
    let mut felling = Felling { until, next: 0, deleted: 0, failed: None };
    let top = open_dir(&dir, &name).map_err(|errno| fault(&args.path, errno))?;
    felling.empty(top)?;
    match (unlinkat(&dir, &name, AtFlags::REMOVEDIR), felling.failed) {
        (Ok(()), _) => Ok(told(felling.deleted + 1)),
        (Err(_), Some(errno)) | (Err(errno), None) => Err(fault(&args.path, errno)),
    }
}

/// A tree that is being deleted.
struct Felling<'a> {
    until: &'a Until,
    /// For names of directories that are moved up.
    next: u64,
    deleted: u64,
    /// One thing that cannot be deleted keeps nothing else.
    failed: Option<Errno>,
}

struct Level {
    dir: OwnedFd,
    /// In the directory above.
    name: CString,
    names: Vec<CString>,
    /// Something was done since names were read last: there may be more.
    moved_on: bool,
    /// Names were read.
    seen: bool,
}

impl Level {
    fn new(dir: OwnedFd, name: CString) -> Self {
        Self { dir, name, names: Vec::new(), moved_on: true, seen: false }
    }
}

impl Felling<'_> {
    /// Deletes what is in `top`, also what is added meanwhile.
    fn empty(&mut self, top: OwnedFd) -> Result<(), FileError> {
        let mut levels = vec![Level::new(top, CString::default())];
        while let Some(level) = levels.last_mut() {
            self.until.check()?;
            let Some(name) = level.names.pop() else {
                self.leave(&mut levels);
                continue;
            };
            match unlinkat(&level.dir, &name, AtFlags::empty()) {
                Ok(()) => {
                    self.deleted += 1;
                    level.moved_on = true;
                }
                Err(Errno::NOENT) => {}
                Err(Errno::ISDIR) => self.go_into(&mut levels, name)?,
                Err(errno) => self.fail(errno),
            }
        }
        Ok(())
    }

    /// Removes the innermost directory, or finds what is in it (still, or by now).
    fn leave(&mut self, levels: &mut Vec<Level>) {
        let (Some(last), above) = (levels.len().checked_sub(1), levels.len().checked_sub(2)) else {
            return;
        };
        if levels[last].seen
            && let Some(above) = above
        {
            match unlinkat(&levels[above].dir, &levels[last].name, AtFlags::REMOVEDIR) {
                Ok(()) => self.deleted += 1,
                Err(Errno::NOENT) => {}
                Err(Errno::NOTEMPTY) if levels[last].moved_on => {
                    return self.look(&mut levels[last]);
                }
                Err(errno) => {
                    self.fail(errno);
                    levels.pop();
                    return;
                }
            }
            levels[above].moved_on = true;
            levels.pop();
        } else if levels[last].moved_on {
            self.look(&mut levels[last]);
        } else {
            levels.pop();
        }
    }

    fn look(&mut self, level: &mut Level) {
        level.moved_on = false;
        level.seen = true;
        match names(&level.dir) {
            Ok(names) => level.names = names,
            Err(errno) => self.fail(errno),
        }
    }

    /// The first one says why; those that follow from it would not.
    fn fail(&mut self, errno: Errno) {
        self.failed.get_or_insert(errno);
    }

    fn go_into(&mut self, levels: &mut Vec<Level>, name: CString) -> Result<(), FileError> {
        let (Some(last), Some(top)) = (levels.last(), levels.first()) else { return Ok(()) };
        if levels.len() < DEPTH_MAX {
            match open_dir(&last.dir, &name) {
                Ok(dir) => levels.push(Level::new(dir, name)),
                Err(Errno::NOENT) => {}
                Err(errno) => self.fail(errno),
            }
            return Ok(());
        }
        let mut moved = self.move_up(last, &name, top);
        if moved == Err(Errno::ACCESS) {
            // A directory that its owner may not write cannot be moved: its `..` would change.
            moved = open_dir(&last.dir, &name).and_then(|_| self.move_up(last, &name, top));
        }
        match moved {
            Ok(()) => {
                // The one at the bottom has lost something, the one at the top has got it.
                if let Some(bottom) = levels.last_mut() {
                    bottom.moved_on = true;
                }
                if let Some(top) = levels.first_mut() {
                    top.moved_on = true;
                }
            }
            Err(Errno::NOENT) => {}
            Err(errno) => self.fail(errno),
        }
        self.until.check()
    }

    fn move_up(&mut self, from: &Level, name: &CString, top: &Level) -> rustix::io::Result<()> {
        let mut moved = Err(Errno::EXIST);
        while matches!(moved, Err(Errno::EXIST | Errno::NOTEMPTY)) && self.until.check().is_ok() {
            self.next += 1;
            moved = renameat(&from.dir, name, &top.dir, format!(".deleted-{}", self.next));
        }
        moved
    }
}

/// Readable and writable, if the slot can make it so.
fn open_dir(at: &OwnedFd, name: &CString) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
    let name = OsStr::from_bytes(name.to_bytes());
    match open_strictly(at, name, flags, Mode::empty()) {
        Ok(dir) => {
            if fstat(&dir)?.st_mode & Mode::RWXU.as_raw_mode() != Mode::RWXU.as_raw_mode() {
                // Somebody else's stays as it is, and what follows says why that is not enough.
                let _ = fchmod(&dir, Mode::RWXU);
            }
            Ok(dir)
        }
        Err(Errno::ACCESS) => {
            // By way of a descriptor, which a link in its place cannot lead astray.
            let dir = open_strictly(at, name, flags | OFlags::PATH, Mode::empty())?;
            chmod(format!("/proc/self/fd/{}", dir.as_raw_fd()), Mode::RWXU)?;
            open_strictly(at, name, flags, Mode::empty())
        }
        Err(errno) => Err(errno),
    }
}

/// Some of the names in a directory; none only if there are none.
fn names(dir: &OwnedFd) -> rustix::io::Result<Vec<CString>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(dir)? {
        let name = entry?.file_name().to_owned();
        if !is_dots(&name) {
            names.push(name);
        }
        if names.len() == NAMES_MAX {
            break;
        }
    }
    Ok(names)
}
