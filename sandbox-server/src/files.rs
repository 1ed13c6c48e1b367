//! The file tools: what a slot's files are, seen from the server.
//!
//! Paths are resolved by the kernel below the workspace (`openat2`, `RESOLVE_BENEATH`), so neither
//! `..`, nor a symbolic link, nor a race of the slot with us leads outside. Files are opened with
//! the slot's own ids: the server never does for a slot what the slot could not do itself.

pub(crate) mod tools;

use crate::isolate::{Identity, sys};
use rustix::{
    fd::{AsFd, OwnedFd},
    fs::{FileType, Mode, OFlags, ResolveFlags, Stat, fstat, ftruncate, mkdirat, openat2},
    io::Errno,
};
use slotmux_protocol::CallLimits;
use std::{
    marker::PhantomData,
    path::{Component, Path, PathBuf},
    time::{Duration, Instant},
};
use tokio_util::sync::CancellationToken;

/// Largest file that `read_file` gives, in bytes.
pub(crate) const READ_BYTES_MAX: u64 = 100_000;
/// `openat2` asks to be repeated when the tree was changed under it.
const RACES_MAX: usize = 64;
const DIR_MODE: u16 = 0o755;
const FILE_MODE: u16 = 0o644;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FileError {
    #[error("Access denied: path outside workspace")]
    Outside,
    #[error("File not found: {0}")]
    NotFound(String),
    #[error("Not a file: {0}")]
    NotAFile(String),
    #[error("File too large: {bytes} bytes (max {max})")]
    TooLarge { bytes: u64, max: u64 },
    #[error("Permission denied: {0}")]
    Denied(String),
    #[error("No space left: {0}")]
    Full(String),
    #[error("{path}: {errno}")]
    Other { path: String, errno: Errno },
    /// The arguments make no sense together, or not with this file.
    #[error("{0}")]
    Invalid(String),
    #[error("time is over")]
    TimedOut,
    #[error("Command was cancelled")]
    Cancelled,
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
}

/// A slot's workspace, held open.
#[derive(Debug)]
pub(crate) struct Workspace {
    dir: OwnedFd,
    identity: Option<Identity>,
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
        Ok(Self { dir, identity, file_bytes_max })
    }

    pub(crate) fn read(&self, path: &str) -> Result<Vec<u8>, FileError> {
        let inside = inside(path)?;
        let (file, stat) = if let Some(opened) = self.open_own(&inside) {
            opened
        } else {
            let _slot = AsSlot::enter(self.identity);
            let file = self.open_to_read(&inside).map_err(|errno| fault(path, errno))?;
            let stat = regular(&file, path)?;
            (file, stat)
        };
        let bytes = u64::try_from(stat.st_size).unwrap_or(0);
        if bytes > READ_BYTES_MAX {
            return Err(FileError::TooLarge { bytes, max: READ_BYTES_MAX });
        }
        read_up_to_max(&file, bytes).map_err(|errno| fault(path, errno))?
    }

    /// Written in place: the file keeps its owner, mode and links. Parents are made.
    pub(crate) fn write(&self, path: &str, content: &[u8]) -> Result<(), FileError> {
        let inside = inside(path)?;
        let (bytes, max) = (content.len() as u64, self.file_bytes_max);
        if max > 0 && bytes > max {
            return Err(FileError::TooLarge { bytes, max });
        }
        let _slot = AsSlot::enter(self.identity);
        let file = match self.create(&inside) {
            Err(Errno::NOENT) => {
                self.make_parents(&inside).map_err(|errno| fault(path, errno))?;
                self.create(&inside)
            }
            other => other,
        };
        let file = file.map_err(|errno| fault(path, errno))?;
        let stat = regular(&file, path)?;
        replace(&file, &stat, content).map_err(|errno| fault(path, errno))
    }

    /// What belongs to the slot and is readable for it needs no change of ids, which costs more
    /// than all the rest. Anything else is opened as the slot, and refused as the slot.
    fn open_own(&self, path: &Path) -> Option<(OwnedFd, Stat)> {
        let uid = self.identity?.uid;
        let file = self.open_to_read(path).ok()?;
        let stat = fstat(&file).ok()?;
        let own = stat.st_uid == uid && stat.st_mode & Mode::RUSR.as_raw_mode() != 0;
        let regular = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
        (own && regular).then_some((file, stat))
    }

    fn open_to_read(&self, path: &Path) -> rustix::io::Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
        self.open_beneath(path, flags, Mode::empty())
    }

    fn create(&self, path: &Path) -> rustix::io::Result<OwnedFd> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::NONBLOCK | OFlags::NOCTTY;
        self.open_beneath(path, flags, Mode::from_raw_mode(FILE_MODE.into()))
    }

    fn make_parents(&self, path: &Path) -> rustix::io::Result<()> {
        let Some(parents) = path.parent() else { return Ok(()) };
        let mut made = PathBuf::new();
        for part in parents.components() {
            let above = self.open_dir(&made)?;
            made.push(part);
            if matches!(part, Component::Normal(_)) {
                match mkdirat(&above, part.as_os_str(), Mode::from_raw_mode(DIR_MODE.into())) {
                    Ok(()) | Err(Errno::EXIST) => {}
                    Err(errno) => return Err(errno),
                }
            }
        }
        Ok(())
    }

    fn open_dir(&self, path: &Path) -> rustix::io::Result<OwnedFd> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        self.open_beneath(path, OFlags::PATH | OFlags::DIRECTORY, Mode::empty())
    }

    fn open_beneath(&self, path: &Path, flags: OFlags, mode: Mode) -> rustix::io::Result<OwnedFd> {
        let flags = flags | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        let mut result = Err(Errno::AGAIN);
        for _ in 0..RACES_MAX {
            result = openat2(self.dir.as_fd(), path, flags, mode, resolve);
            if !matches!(result, Err(Errno::AGAIN | Errno::INTR)) {
                break;
            }
        }
        result
    }
}

/// The path below the workspace; `/workspace` is its name inside.
fn inside(path: &str) -> Result<PathBuf, FileError> {
    if path.contains('\0') {
        return Err(FileError::Outside);
    }
    let relative = match path.strip_prefix("/workspace") {
        Some("") => ".",
        Some(rest) if rest.starts_with('/') => rest.trim_start_matches('/'),
        _ => path,
    };
    match relative {
        "" => Err(FileError::NotFound(path.to_owned())),
        absolute if absolute.starts_with('/') => Err(FileError::Outside),
        relative => Ok(PathBuf::from(relative)),
    }
}

fn regular(file: &OwnedFd, path: &str) -> Result<Stat, FileError> {
    let stat = fstat(file).map_err(|errno| fault(path, errno))?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => Ok(stat),
        _ => Err(FileError::NotAFile(path.to_owned())),
    }
}

/// A file that grows meanwhile is read as far as the limit, one byte more shows it. A short read
/// of a regular file is its end.
fn read_up_to_max(file: &OwnedFd, bytes: u64) -> rustix::io::Result<Result<Vec<u8>, FileError>> {
    let max = usize::try_from(READ_BYTES_MAX).unwrap_or(usize::MAX);
    let expected = usize::try_from(bytes).unwrap_or(max);
    let mut content = vec![0; expected + 1];
    let mut length = 0;
    loop {
        match rustix::io::read(file, &mut content[length..]) {
            Ok(count) => {
                length += count;
                if length < content.len() {
                    break;
                }
            }
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
        if length > max {
            return Ok(Err(FileError::TooLarge { bytes: length as u64, max: READ_BYTES_MAX }));
        }
        if length == content.len() {
            content.resize((length * 2).min(max + 1), 0);
        }
    }
    content.truncate(length);
    Ok(Ok(content))
}

/// Not truncated first: ext4 takes that for "replace by truncate" and goes to the disk at once.
fn replace(file: &OwnedFd, stat: &Stat, content: &[u8]) -> rustix::io::Result<()> {
    let mut rest = content;
    while !rest.is_empty() {
        match rustix::io::write(file, rest) {
            Ok(written) => rest = &rest[written..],
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    let length = content.len() as u64;
    if u64::try_from(stat.st_size).unwrap_or(0) > length {
        ftruncate(file, length)?;
    }
    Ok(())
}

fn fault(path: &str, errno: Errno) -> FileError {
    let path: String = path.chars().take(300).collect();
    match errno {
        // Left the workspace by `..`, an absolute link, or a link of /proc.
        Errno::XDEV | Errno::LOOP => FileError::Outside,
        Errno::NOENT | Errno::NOTDIR => FileError::NotFound(path),
        // A socket, a FIFO that nobody reads, a directory opened for writing.
        Errno::ISDIR | Errno::NXIO | Errno::NODEV => FileError::NotAFile(path),
        Errno::ACCESS | Errno::PERM => FileError::Denied(path),
        Errno::NOSPC | Errno::DQUOT => FileError::Full(path),
        errno => FileError::Other { path, errno },
    }
}

/// This thread works with the slot's ids, until dropped. Not to be held over an await.
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, os::unix::fs::symlink};

    fn workspace() -> (tempfile::TempDir, Workspace) {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("workspace")).unwrap();
        fs::write(dir.path().join("secret"), "s").unwrap();
        let workspace = Workspace::open(&dir.path().join("workspace"), None, 200_000).unwrap();
        (dir, workspace)
    }

    #[test]
    fn what_was_written_is_read_back_by_any_of_its_names() {
        let (_dir, workspace) = workspace();
        workspace.write("a/b/c.txt", b"one").unwrap();
        for name in
            ["a/b/c.txt", "./a/b/../b/c.txt", "/workspace/a/b/c.txt", "/workspace//a/b/c.txt"]
        {
            assert_eq!(workspace.read(name).unwrap(), b"one", "{name}");
        }
        workspace.write("a/b/c.txt", b"o").unwrap();
        assert_eq!(workspace.read("a/b/c.txt").unwrap(), b"o");
    }

    #[test]
    fn no_path_leads_outside() {
        let (dir, workspace) = workspace();
        symlink("../secret", dir.path().join("workspace/link")).unwrap();
        symlink(dir.path(), dir.path().join("workspace/up")).unwrap();
        symlink("loop", dir.path().join("workspace/loop")).unwrap();
        for path in
            ["../secret", "/etc/hostname", "a/../../secret", "link", "up/secret", "loop", "x\0y"]
        {
            assert_eq!(workspace.write(path, b"x"), Err(FileError::Outside), "write {path:?}");
            let read = workspace.read(path).unwrap_err();
            assert!(
                matches!(read, FileError::Outside | FileError::NotFound(_)),
                "read {path:?}: {read}"
            );
        }
        assert_eq!(fs::read(dir.path().join("secret")).unwrap(), b"s");
        assert!(!dir.path().join("a").exists());
    }

    #[test]
    fn what_is_not_a_file_is_refused_at_once() {
        let (dir, workspace) = workspace();
        let fifo = dir.path().join("workspace/fifo");
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, FileType::Fifo, Mode::RWXU, 0).unwrap();
        fs::create_dir(dir.path().join("workspace/dir")).unwrap();
        for path in ["fifo", "dir"] {
            assert_eq!(workspace.read(path), Err(FileError::NotAFile(path.into())));
            assert_eq!(workspace.write(path, b""), Err(FileError::NotAFile(path.into())));
        }
        assert_eq!(workspace.read("none"), Err(FileError::NotFound("none".into())));
    }

    #[test]
    fn a_file_is_written_up_to_the_limit_and_not_one_byte_past_it() {
        let (_dir, workspace) = workspace();
        workspace.write("f", &vec![b'x'; 200_000]).unwrap();
        let error = FileError::TooLarge { bytes: 200_001, max: 200_000 };
        assert_eq!(workspace.write("f", &vec![b'x'; 200_001]), Err(error));
    }

    #[test]
    fn a_file_is_read_up_to_the_limit_and_not_one_byte_past_it() {
        let (_dir, workspace) = workspace();
        let mut content = vec![b'x'; 100_000];
        workspace.write("f", &content).unwrap();
        assert_eq!(workspace.read("f").unwrap(), content);
        content.push(b'x');
        workspace.write("f", &content).unwrap();
        assert_eq!(workspace.read("f"), Err(FileError::TooLarge { bytes: 100_001, max: 100_000 }));
    }
}
