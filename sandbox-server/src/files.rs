//! The file tools: what a slot's files are, seen from the server.
//!
//! Paths are resolved by the kernel below the workspace (`path`), so neither `..`, nor a symbolic
//! link, nor a race of the slot with us leads outside. Files are opened with the slot's own ids:
//! the server never does for a slot what the slot could not do itself. Whatever a slot has made of
//! its files, a tool ends within its time and holds a bounded part of them in memory.

mod archive;
mod change;
mod delete;
mod edit;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzz;
mod grep;
mod list;
mod names;
mod path;
mod read;
mod replace;
mod stat;
pub(crate) mod tar;
#[cfg(test)]
mod tests;
pub(crate) mod tools;
mod walk;
mod write;

use crate::isolate::{Identity, sys};
use rustix::{
    fd::OwnedFd,
    fs::{FileType, Mode, OFlags, Stat, fstat},
    io::Errno,
};
use slotmux_protocol::CallLimits;
use std::{marker::PhantomData, path::Path, time::Duration};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FileError {
    #[error("Access denied: path outside workspace")]
    Outside,
    #[error("File not found: {0}")]
    NotFound(String),
    #[error("Not a file: {0}")]
    NotAFile(String),
    #[error("Not a directory: {0}")]
    NotADirectory(String),
    #[error("File exists: {0}")]
    Exists(String),
    #[error("Directory not empty: {0}")]
    NotEmpty(String),
    #[error("File too large: {bytes} bytes (max {max})")]
    TooLarge { bytes: u64, max: u64 },
    /// What was asked for as a whole has more than may be given.
    #[error("{what}: more than {max} {unit}")]
    OverLimit { what: &'static str, max: u64, unit: &'static str },
    #[error("Permission denied: {0}")]
    Denied(String),
    #[error("No space left: {0}")]
    Full(String),
    #[error("{path}: {errno}")]
    Other { path: String, errno: Errno },
    /// The arguments make no sense together, or not with this file.
    #[error("{0}")]
    Invalid(String),
    /// The other end of a stream failed.
    #[error("{0}")]
    Stream(String),
    #[error("time is over")]
    TimedOut,
    #[error("Command was cancelled")]
    Cancelled,
}

impl FileError {
    /// Whether it says nothing of the slot's files.
    pub(crate) fn is_ours(&self) -> bool {
        matches!(self, Self::Other { errno, .. } if is_ours(*errno))
    }

    /// For programs.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::Outside => "outside",
            Self::NotFound(_) => "not_found",
            Self::NotAFile(_) => "not_a_file",
            Self::NotADirectory(_) => "not_a_directory",
            Self::Exists(_) => "exists",
            Self::NotEmpty(_) => "not_empty",
            Self::TooLarge { .. } | Self::OverLimit { .. } => "too_large",
            Self::Denied(_) => "denied",
            Self::Full(_) => "full",
            Self::Other { .. } => "failed",
            Self::Invalid(_) => "invalid",
            Self::Stream(_) => "stream",
            Self::TimedOut => "timeout",
            Self::Cancelled => "cancelled",
        }
    }
}

/// What a tool has to say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) text: String,
    /// For programs.
    pub(crate) data: Option<serde_json::Value>,
}

/// When a tool that takes long has to give up. To be asked now and then.
#[derive(Debug, Clone)]
pub(crate) struct Until {
    deadline: Instant,
    stop: CancellationToken,
}

impl Until {
    pub(crate) fn new(limits: CallLimits, stop: &CancellationToken) -> Self {
        let deadline = Instant::now() + Duration::from_millis(limits.timeout_ms);
        Self { deadline, stop: stop.clone() }
    }

    pub(crate) fn check(&self) -> Result<(), FileError> {
        if self.stop.is_cancelled() {
            return Err(FileError::Cancelled);
        }
        if Instant::now() >= self.deadline {
            return Err(FileError::TimedOut);
        }
        Ok(())
    }

    pub(crate) fn deadline(&self) -> Instant {
        self.deadline
    }

    pub(crate) fn stop(&self) -> &CancellationToken {
        &self.stop
    }
}

/// A slot's workspace, held open.
#[derive(Debug)]
pub(crate) struct Workspace {
    dir: OwnedFd,
    /// The slot's view of the whole image, where absolute paths lead.
    root: Option<OwnedFd>,
    identity: Option<Identity>,
    /// How the slot sees its own uid, where that is not the one that it has here.
    uid_inside: Option<u32>,
    /// Largest file that may be written; 0: no limit.
    file_bytes_max: u64,
}

impl Workspace {
    pub(crate) fn open(
        path: &Path,
        identity: Option<Identity>,
        file_bytes_max: u64,
    ) -> rustix::io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let dir = rustix::fs::open(path, flags, Mode::empty())?;
        Ok(Self { dir, root: None, identity, uid_inside: None, file_bytes_max })
    }

    /// As the slot's own mounts show it.
    pub(crate) fn of_views(
        dir: OwnedFd,
        root: Option<OwnedFd>,
        identity: Option<Identity>,
        file_bytes_max: u64,
    ) -> Self {
        Self { dir, root, identity, uid_inside: None, file_bytes_max }
    }

    pub(crate) fn dir(&self) -> &OwnedFd {
        &self.dir
    }

    /// Within a user namespace the slot is `uid` to itself, and all others are nobody.
    pub(crate) fn seen_as(self, uid: u32) -> Self {
        Self { uid_inside: Some(uid), ..self }
    }

    fn as_slot(&self) -> AsSlot {
        AsSlot::enter(self.identity)
    }

    fn check_file_bytes(&self, bytes: u64) -> Result<(), FileError> {
        let max = self.file_bytes_max;
        if max > 0 && bytes > max {
            return Err(FileError::TooLarge { bytes, max });
        }
        Ok(())
    }
}

fn regular(file: &OwnedFd, path: &str) -> Result<Stat, FileError> {
    let stat = fstat(file).map_err(|errno| fault(path, errno))?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => Ok(stat),
        _ => Err(FileError::NotAFile(short(path))),
    }
}

fn size_of_file(stat: &Stat) -> u64 {
    u64::try_from(stat.st_size).unwrap_or(0)
}

/// As much of a path as an error message needs.
fn short(path: &str) -> String {
    path.chars().take(300).collect()
}

fn fault(path: &str, errno: Errno) -> FileError {
    let path = short(path);
    match errno {
        // Left the workspace by `..`, an absolute link, or a link of /proc.
        Errno::XDEV | Errno::LOOP => FileError::Outside,
        Errno::NOENT | Errno::NOTDIR => FileError::NotFound(path),
        // A socket, a FIFO that nobody reads, a directory opened for writing.
        Errno::ISDIR | Errno::NXIO | Errno::NODEV => FileError::NotAFile(path),
        Errno::EXIST => FileError::Exists(path),
        Errno::NOTEMPTY => FileError::NotEmpty(path),
        Errno::ACCESS | Errno::PERM => FileError::Denied(path),
        Errno::NOSPC | Errno::DQUOT => FileError::Full(path),
        errno => FileError::Other { path, errno },
    }
}

/// The machine's or the server's own want, of which the slot knows nothing.
fn is_ours(errno: Errno) -> bool {
    matches!(errno, Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::IO)
}

/// This thread works with the slot's ids, until dropped. Not to be held over an await, nor while
/// waiting for anybody.
struct AsSlot {
    changed: bool,
    /// The ids are this thread's.
    _stays: PhantomData<*const ()>,
}

impl AsSlot {
    fn enter(identity: Option<Identity>) -> Self {
        if let Some(identity) = identity {
            sys::set_file_ids(identity.uid, identity.uid);
        }
        Self { changed: identity.is_some(), _stays: PhantomData }
    }
}

impl Drop for AsSlot {
    fn drop(&mut self) {
        if self.changed {
            sys::set_file_ids(0, 0);
        }
    }
}
