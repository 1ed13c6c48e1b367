//! Going through a tree of a slot's, in the order of its names.
//!
//! By descriptors, as the slot, and never through a link: what is renamed meanwhile is found where
//! it was or not at all. Invariant: whatever the tree is, a walk holds a bounded number of names
//! and descriptors, and says so when it has not seen everything.

use super::{
    FileError, Until, Workspace, fault, is_ours,
    path::{is_kernels, open_strictly},
};
use rustix::{
    fd::OwnedFd,
    fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat, fstat, readlinkat, statat},
    io::Errno,
};
use std::{
    collections::BinaryHeap,
    ffi::{CStr, CString, OsStr},
    os::unix::ffi::OsStrExt as _,
};

/// Names that a walk holds at a time, of all directories that it is in.
const NAMES_MAX: usize = 100_000;
/// Of each directory at least.
const NAMES_MIN: usize = 256;
/// Directories in directories that are gone into.
const DEPTH_MAX: usize = 256;
/// Directories that are held open; those above are opened again on the way back.
const OPEN_MAX: usize = 24;
/// Names between two looks at the clock.
const CHECK_EVERY: usize = 256;

const DIR_FLAGS: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::NONBLOCK)
    .union(OFlags::CLOEXEC);

/// How far a walk goes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reach {
    pub(super) recursive: bool,
    /// Things looked at.
    pub(super) entries_max: u64,
}

pub(super) struct Walk<'a> {
    workspace: &'a Workspace,
    until: &'a Until,
    reach: Reach,
    base: OwnedFd,
    frames: Vec<Frame>,
    /// Below the base, of what was given last.
    path: Vec<u8>,
    name: CString,
    /// The directory to go into before the next name.
    into: bool,
    held: usize,
    seen: u64,
    /// Not everything was seen: there was too much of it.
    pub(super) truncated: bool,
    /// Directories that could not be read.
    pub(super) unreadable: u64,
}

struct Frame {
    dir: Option<OwnedFd>,
    names: std::vec::IntoIter<Name>,
    /// Of the directory's own path.
    path_len: usize,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Name {
    name: CString,
    /// As the kernel said it along with the name; `d_type`.
    kind: Option<Kind>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    File,
    Directory,
    Symlink,
    Fifo,
    Socket,
    Device,
}

impl Kind {
    pub(super) fn of(kind: FileType) -> Option<Self> {
        Some(match kind {
            FileType::RegularFile => Self::File,
            FileType::Directory => Self::Directory,
            FileType::Symlink => Self::Symlink,
            FileType::Fifo => Self::Fifo,
            FileType::Socket => Self::Socket,
            FileType::CharacterDevice | FileType::BlockDevice => Self::Device,
            FileType::Unknown => return None,
        })
    }

    pub(super) fn of_stat(stat: &Stat) -> Self {
        Self::of(FileType::from_raw_mode(stat.st_mode)).unwrap_or(Self::Device)
    }

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Directory => "directory",
            Self::Symlink => "symlink",
            Self::Fifo => "fifo",
            Self::Socket => "socket",
            Self::Device => "device",
        }
    }
}

/// Why something was not gone into.
enum Halt {
    Kernel(Errno),
    /// Time is over: nothing goes on.
    Ours(FileError),
}

impl From<Errno> for Halt {
    fn from(errno: Errno) -> Self {
        Self::Kernel(errno)
    }
}

impl From<FileError> for Halt {
    fn from(error: FileError) -> Self {
        Self::Ours(error)
    }
}

impl<'a> Walk<'a> {
    /// `base` is a directory.
    fn new(
        workspace: &'a Workspace,
        base: OwnedFd,
        reach: Reach,
        until: &'a Until,
    ) -> Result<Self, Halt> {
        let top = {
            let _slot = workspace.as_slot();
            open_strictly(&base, ".", DIR_FLAGS, Mode::empty())?
        };
        let mut walk = Self {
            workspace,
            until,
            reach,
            base,
            frames: Vec::new(),
            path: Vec::new(),
            name: CString::default(),
            into: false,
            held: 0,
            seen: 0,
            truncated: false,
            unreadable: 0,
        };
        walk.push(top)?;
        Ok(walk)
    }

    /// What comes next; `None` at the end. Of a directory it comes before what is in it.
    pub(super) fn next(&mut self) -> Result<Option<Kind>, FileError> {
        if std::mem::take(&mut self.into) {
            self.descend()?;
        }
        loop {
            let Some(frame) = self.frames.last_mut() else { return Ok(None) };
            self.path.truncate(frame.path_len);
            let Some(Name { name, kind }) = frame.names.next() else {
                self.frames.pop();
                continue;
            };
            self.held -= 1;
            if self.seen >= self.reach.entries_max {
                self.truncated = true;
                return Ok(None);
            }
            self.seen += 1;
            self.until.check()?;
            if !self.is_open() {
                continue;
            }
            if !self.path.is_empty() {
                self.path.push(b'/');
            }
            self.path.extend_from_slice(name.to_bytes());
            self.name = name;
            let kind = kind.or_else(|| Some(Kind::of_stat(&self.stat().ok()?)));
            let Some(kind) = kind else { continue };
            self.into = kind == Kind::Directory && self.reach.recursive;
            return Ok(Some(kind));
        }
    }

    /// Below the base.
    pub(super) fn path(&self) -> &[u8] {
        &self.path
    }

    pub(super) fn name(&self) -> &OsStr {
        OsStr::from_bytes(self.name.to_bytes())
    }

    /// Of a link itself.
    pub(super) fn stat(&self) -> rustix::io::Result<Stat> {
        let _slot = self.workspace.as_slot();
        statat(self.dir()?, &self.name, AtFlags::SYMLINK_NOFOLLOW)
    }

    pub(super) fn link(&self) -> rustix::io::Result<CString> {
        let _slot = self.workspace.as_slot();
        readlinkat(self.dir()?, &self.name, Vec::new())
    }

    /// `None`: it is no regular file, or not any more.
    pub(super) fn open(&self) -> rustix::io::Result<Option<(OwnedFd, Stat)>> {
        let _slot = self.workspace.as_slot();
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
        let file = match open_strictly(self.dir()?, self.name(), flags, Mode::empty()) {
            Err(Errno::LOOP | Errno::NXIO) => return Ok(None),
            other => other?,
        };
        let stat = fstat(&file)?;
        Ok((Kind::of_stat(&stat) == Kind::File).then_some((file, stat)))
    }

    fn dir(&self) -> rustix::io::Result<&OwnedFd> {
        self.frames.last().and_then(|it| it.dir.as_ref()).ok_or(Errno::NOENT)
    }

    fn descend(&mut self) -> Result<(), FileError> {
        if self.frames.len() >= DEPTH_MAX {
            self.truncated = true;
            return Ok(());
        }
        let opened = self.dir().and_then(|dir| {
            let _slot = self.workspace.as_slot();
            let dir = open_strictly(dir, self.name(), DIR_FLAGS, Mode::empty())?;
            if is_kernels(&dir)? { Err(Errno::ACCESS) } else { Ok(dir) }
        });
        match opened.map_err(Halt::Kernel).and_then(|dir| self.push(dir)) {
            // Gone, or something else by now.
            Ok(()) | Err(Halt::Kernel(Errno::NOENT | Errno::NOTDIR | Errno::LOOP)) => {}
            Err(Halt::Kernel(errno)) if is_ours(errno) => return Err(fault(".", errno)),
            Err(Halt::Kernel(_)) => self.unreadable += 1,
            Err(Halt::Ours(error)) => return Err(error),
        }
        Ok(())
    }

    fn push(&mut self, dir: OwnedFd) -> Result<(), Halt> {
        let max = NAMES_MAX.saturating_sub(self.held).max(NAMES_MIN);
        let max = max.min(usize::try_from(self.reach.entries_max).unwrap_or(max).saturating_add(1));
        let (names, all) = {
            let _slot = self.workspace.as_slot();
            first_names(&dir, max, self.until)?
        };
        self.truncated |= !all;
        self.held += names.len();
        if let Some(far) = self.frames.len().checked_sub(OPEN_MAX) {
            self.frames[far].dir = None;
        }
        let path_len = self.path.len();
        self.frames.push(Frame { dir: Some(dir), names: names.into_iter(), path_len });
        Ok(())
    }

    /// Opens the directory again that the walk has come back to. `false`: it is not there any more.
    fn is_open(&mut self) -> bool {
        let Some(last) = self.frames.len().checked_sub(1) else { return false };
        if self.frames[last].dir.is_some() {
            return true;
        }
        let reopened = {
            let _slot = self.workspace.as_slot();
            reopen(&self.base, &self.path)
        };
        if reopened.is_err() {
            self.unreadable += 1;
            self.held -= self.frames[last].names.len();
            self.frames.pop();
            return false;
        }
        self.frames[last].dir = reopened.ok();
        true
    }
}

/// Part by part: together they may be longer than a path that the kernel takes.
fn reopen(base: &OwnedFd, path: &[u8]) -> rustix::io::Result<OwnedFd> {
    let mut dir = open_strictly(base, ".", DIR_FLAGS, Mode::empty())?;
    for part in path.split(|byte| *byte == b'/').filter(|it| !it.is_empty()) {
        dir = open_strictly(&dir, OsStr::from_bytes(part), DIR_FLAGS, Mode::empty())?;
    }
    Ok(dir)
}

/// The first `max` names of a directory in their order, and whether that is all of them.
fn first_names(dir: &OwnedFd, max: usize, until: &Until) -> Result<(Vec<Name>, bool), Halt> {
    let mut first = BinaryHeap::new();
    let mut all = true;
    for (number, entry) in Dir::read_from(dir)?.enumerate() {
        if number % CHECK_EVERY == 0 {
            until.check()?;
        }
        let entry = entry?;
        if is_dots(entry.file_name()) {
            continue;
        }
        let kind = Kind::of(entry.file_type());
        first.push(Name { name: entry.file_name().to_owned(), kind });
        if first.len() > max {
            first.pop();
            all = false;
        }
    }
    Ok((first.into_sorted_vec(), all))
}

pub(super) fn is_dots(name: &CStr) -> bool {
    name == c"." || name == c".."
}

/// A directory to walk through, or why not.
pub(super) fn walk<'a>(
    workspace: &'a Workspace,
    path: &str,
    reach: Reach,
    until: &'a Until,
) -> Result<Walk<'a>, FileError> {
    let place = workspace.place(path)?;
    let base = {
        let _slot = workspace.as_slot();
        workspace.open_dir(place)
    };
    let base = base.map_err(|errno| no_dir(workspace, path, errno))?;
    Walk::new(workspace, base, reach, until).map_err(|halt| match halt {
        Halt::Kernel(errno) => fault(path, errno),
        Halt::Ours(error) => error,
    })
}

fn no_dir(workspace: &Workspace, path: &str, errno: Errno) -> FileError {
    if errno == Errno::NOTDIR
        && let Ok(place) = workspace.place(path)
    {
        // On the way to it, or it itself?
        let _slot = workspace.as_slot();
        if workspace.open_at(place, OFlags::PATH, Mode::empty()).is_ok() {
            return FileError::NotADirectory(super::short(path));
        }
    }
    fault(path, errno)
}
