//! Copying a task, whose names and links may be anything.
//!
//! Invariant: links are copied as links and never followed; what is no file, directory or link is
//! left out; depth, number and size are bounded.

use super::{EVERYBODY, as_file, open_dir, shown};
use rustix::{
    fs::{
        AtFlags, Dir, FileType, Mode, OFlags, fchmod, fstat, ioctl_ficlone, mkdirat, openat,
        readlinkat, statat, symlinkat, unlinkat,
    },
    io::Errno,
};
use std::{
    ffi::{CStr, CString},
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

const DEPTH_MAX: u32 = 64;
const FILES_MAX: u64 = 1_000_000;
const BYTES_MAX: u64 = 16 << 30;

#[derive(Debug, thiserror::Error)]
pub(crate) enum CopyError {
    #[error("open `{path}`")]
    Open { path: String, source: io::Error },
    #[error("read `{path}`")]
    Read { path: String, source: io::Error },
    #[error("write `{path}`")]
    Write { path: String, source: io::Error },
    #[error("`{path}` lies deeper than {DEPTH_MAX} directories")]
    Depth { path: String },
    #[error("more than {FILES_MAX} files")]
    Files,
    #[error("more than {BYTES_MAX} bytes")]
    Bytes,
    #[error("nobody wants it any more")]
    Unwanted,
}

impl CopyError {
    pub(crate) fn open(path: impl AsRef<Path>) -> impl FnOnce(io::Error) -> Self {
        let path = path.as_ref().display().to_string();
        move |source| Self::Open { path, source }
    }
}

fn read(path: &CStr) -> impl FnOnce(Errno) -> CopyError {
    let path = shown(path);
    move |error| CopyError::Read { path, source: error.into() }
}

fn write(path: &CStr) -> impl FnOnce(Errno) -> CopyError {
    let path = shown(path);
    move |error| CopyError::Write { path, source: error.into() }
}

pub(super) struct Copy {
    files: u64,
    bytes: u64,
    unwanted: Arc<AtomicBool>,
    /// Some file systems let files share what is in them.
    clones: bool,
}

impl Copy {
    pub(super) fn new(unwanted: Arc<AtomicBool>) -> Self {
        Self { files: 0, bytes: 0, unwanted, clones: true }
    }

    /// What is in `from`, but these, into `to`, which is there. Files are replaced.
    pub(super) fn dir(&mut self, from: &OwnedFd, to: &Path, but: &[&str]) -> Result<(), CopyError> {
        let to = open_dir(to).map_err(CopyError::open(to))?;
        self.entries(from, &to, 0, but)
    }

    fn entries(
        &mut self,
        from: &OwnedFd,
        to: &OwnedFd,
        depth: u32,
        but: &[&str],
    ) -> Result<(), CopyError> {
        let entries = Dir::read_from(from).map_err(read(c"."))?;
        for entry in entries {
            let entry = entry.map_err(read(c"."))?;
            let name = entry.file_name();
            let is_left_out = but.iter().any(|it| it.as_bytes() == name.to_bytes());
            if is_left_out || [c".", c".."].contains(&name) {
                continue;
            }
            if self.unwanted.load(Ordering::Relaxed) {
                return Err(CopyError::Unwanted);
            }
            self.files += 1;
            if self.files > FILES_MAX {
                return Err(CopyError::Files);
            }
            let kind = match entry.file_type() {
                FileType::Unknown => {
                    let found = statat(from, name, AtFlags::SYMLINK_NOFOLLOW);
                    FileType::from_raw_mode(found.map_err(read(name))?.st_mode)
                }
                known => known,
            };
            match kind {
                FileType::Directory => self.subdir(from.as_fd(), to.as_fd(), name, depth + 1)?,
                FileType::RegularFile => self.file(from.as_fd(), to.as_fd(), name)?,
                FileType::Symlink => link(from.as_fd(), to.as_fd(), name)?,
                _ => tracing::debug!(name = shown(name), "neither file nor directory nor link"),
            }
        }
        Ok(())
    }

    fn subdir(
        &mut self,
        from: BorrowedFd,
        to: BorrowedFd,
        name: &CStr,
        depth: u32,
    ) -> Result<(), CopyError> {
        if depth > DEPTH_MAX {
            return Err(CopyError::Depth { path: shown(name) });
        }
        let flags = OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::RDONLY | OFlags::NOFOLLOW;
        let source = openat(from, name, flags, Mode::empty()).map_err(read(name))?;
        match mkdirat(to, name, EVERYBODY) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(write(name)(error)),
        }
        let made = openat(to, name, flags, Mode::empty()).map_err(write(name))?;
        let found = fstat(&source).map_err(read(name))?;
        fchmod(&made, Mode::from_raw_mode(found.st_mode & 0o777)).map_err(write(name))?;
        self.entries(&source, &made, depth, &[])
    }

    fn file(&mut self, from: BorrowedFd, to: BorrowedFd, name: &CStr) -> Result<(), CopyError> {
        // It may have become something else meanwhile: a pipe would be waited for.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let source = openat(from, name, flags, Mode::empty()).map_err(read(name))?;
        let found = fstat(&source).map_err(read(name))?;
        if FileType::from_raw_mode(found.st_mode) != FileType::RegularFile {
            return Ok(());
        }
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let made = match openat(to, name, flags, Mode::RUSR | Mode::WUSR) {
            Err(Errno::EXIST) => {
                unlinkat(to, name, AtFlags::empty()).map_err(write(name))?;
                openat(to, name, flags, Mode::RUSR | Mode::WUSR)
            }
            other => other,
        };
        let made = made.map_err(write(name))?;
        if self.clones && found.st_size > 0 {
            match ioctl_ficlone(&made, &source) {
                Ok(()) => self.count(u64::try_from(found.st_size).unwrap_or(0))?,
                Err(_) => self.clones = false,
            }
        }
        let source = as_file(source);
        let made = as_file(made);
        if !self.clones {
            self.bytes(&source, &made, name)?;
        }
        fchmod(&made, Mode::from_raw_mode(found.st_mode & 0o777)).map_err(write(name))
    }

    /// In pieces, so that nobody waits for a large one that is not wanted.
    fn bytes(
        &mut self,
        mut from: impl io::Read,
        mut to: impl io::Write,
        name: &CStr,
    ) -> Result<(), CopyError> {
        let mut piece = vec![0; 256 << 10];
        loop {
            let length = from
                .read(&mut piece)
                .map_err(|source| CopyError::Read { path: shown(name), source })?;
            if length == 0 {
                return Ok(());
            }
            self.count(u64::try_from(length).unwrap_or(u64::MAX))?;
            to.write_all(&piece[..length])
                .map_err(|source| CopyError::Write { path: shown(name), source })?;
            if self.unwanted.load(Ordering::Relaxed) {
                return Err(CopyError::Unwanted);
            }
        }
    }

    fn count(&mut self, bytes: u64) -> Result<(), CopyError> {
        self.bytes = self.bytes.saturating_add(bytes);
        if self.bytes > BYTES_MAX { Err(CopyError::Bytes) } else { Ok(()) }
    }
}

fn link(from: BorrowedFd, to: BorrowedFd, name: &CStr) -> Result<(), CopyError> {
    let target: CString = readlinkat(from, name, Vec::new()).map_err(read(name))?;
    let made = match symlinkat(target.as_c_str(), to, name) {
        Err(Errno::EXIST) => unlinkat(to, name, AtFlags::empty())
            .and_then(|()| symlinkat(target.as_c_str(), to, name)),
        other => other,
    };
    made.map_err(write(name))
}
