//! Directories on their way out: renamed away at once, deleted by one thread in its own time.
//!
//! What is deleted was made by slots, by design as awkward as can be: a tree may be deeper than
//! any stack and hold more directories than there are descriptors. So a directory that is found in
//! another is moved up beside it and waits for its turn; two descriptors and no recursion do.

use crate::isolate::sys;
use rustix::{
    fd::{AsFd, AsRawFd, OwnedFd},
    fs::{Access, AtFlags, CWD, Dir, Mode, OFlags, accessat, chmod, openat, renameat, unlinkat},
    io::Errno,
};
use std::{
    ffi::{CStr, CString},
    fs, io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    thread,
};

/// Names that are held in memory at a time.
const NAMES_MAX: usize = 4_096;

#[derive(Debug, Clone)]
pub(crate) struct Trash {
    dir: PathBuf,
    next: Arc<AtomicU64>,
    queue: mpsc::Sender<Job>,
}

#[derive(Debug)]
enum Job {
    /// Something has come.
    Empty,
    /// Say when all that came before is gone.
    Tell(mpsc::Sender<()>),
}

impl Trash {
    /// What an earlier server left there is deleted too.
    pub(crate) fn open(dir: PathBuf) -> io::Result<Self> {
        fs::create_dir_all(&dir)?;
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o700))?;
        let names = fs::read_dir(&dir)?.flatten().map(|entry| entry.file_name());
        let numbers = names.filter_map(|name| name.to_str()?.parse::<u64>().ok());
        let next = Arc::new(AtomicU64::new(numbers.max().unwrap_or(0) + 1));
        let (queue, jobs) = mpsc::channel();
        let trash = Self { dir: dir.clone(), next: Arc::clone(&next), queue };
        thread::Builder::new().name("trash".to_owned()).stack_size(256 << 10).spawn(move || {
            for job in jobs {
                if let Err(error) = empty(&dir, &next) {
                    tracing::warn!(dir = %dir.display(), %error, "trash not deleted");
                }
                if let Job::Tell(done) = job {
                    // Nobody may be waiting any more.
                    let _ = done.send(());
                }
            }
        })?;
        trash.ask(Job::Empty)?;
        Ok(trash)
    }

    /// The path is free when this returns; nothing there before is no error.
    pub(crate) fn take(&self, path: &Path) -> io::Result<()> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let grave = self.dir.join(number.to_string());
        let moved = match fs::rename(path, &grave) {
            // A directory that its owner may not write cannot be moved: its `..` would change.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                open_up(CWD, &sys::c_path(path)?)?;
                fs::rename(path, &grave)
            }
            other => other,
        };
        match moved {
            Ok(()) => self.ask(Job::Empty),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Returns when everything that was taken before is gone from the disk.
    pub(crate) fn settle(&self) -> io::Result<()> {
        let (done, wait) = mpsc::channel();
        self.ask(Job::Tell(done))?;
        wait.recv().map_err(io::Error::other)
    }

    fn ask(&self, job: Job) -> io::Result<()> {
        self.queue.send(job).map_err(|_| io::Error::other("the trash is shut"))
    }
}

/// Deletes `path` and all below it, its directories by way of `path` itself; nothing there is no
/// error.
pub(crate) fn delete(path: &Path) -> io::Result<()> {
    if fs::symlink_metadata(path).is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
        return Ok(());
    }
    empty(path, &AtomicU64::new(u64::MAX / 2))?;
    fs::remove_dir(path)
}

/// Deletes all that is in `dir`, also what is added meanwhile. One thing that cannot be deleted
/// keeps nothing else.
fn empty(dir: &Path, next: &AtomicU64) -> io::Result<()> {
    let top = open_dir(CWD, &sys::c_path(dir)?)?;
    loop {
        let names = names(&top)?;
        let results = names.iter().map(|name| bury(&top, name, next));
        let (mut buried, mut failed) = (0, None);
        for result in results {
            match result {
                Ok(()) => buried += 1,
                Err(error) => failed = Some(error),
            }
        }
        match (buried, failed) {
            (0, None) => return Ok(()),
            (0, Some(error)) => return Err(error.into()),
            _ => {}
        }
    }
}

/// Deletes one entry of `top`; the directories in it come into `top` themselves.
fn bury(top: &OwnedFd, name: &CStr, next: &AtomicU64) -> rustix::io::Result<()> {
    if unlink_unless_dir(top, name)? {
        return Ok(());
    }
    let dir = match open_dir(top, name) {
        // Somebody else has been at it.
        Err(Errno::NOENT) => return Ok(()),
        other => other?,
    };
    loop {
        let inner = names(&dir)?;
        if inner.is_empty() {
            break;
        }
        for name in inner {
            if !unlink_unless_dir(&dir, &name)? {
                let number = next.fetch_add(1, Ordering::Relaxed).to_string();
                move_dir(&dir, &name, top, &number)?;
            }
        }
    }
    match unlinkat(top, name, AtFlags::REMOVEDIR) {
        Err(Errno::NOENT) => Ok(()),
        other => other,
    }
}

/// `false`: it is a directory.
fn unlink_unless_dir(at: &OwnedFd, name: &CStr) -> rustix::io::Result<bool> {
    match unlinkat(at, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(true),
        Err(Errno::ISDIR) => Ok(false),
        Err(errno) => Err(errno),
    }
}

/// A directory that its owner may not write cannot be moved: its `..` would change.
fn move_dir(from: &OwnedFd, name: &CStr, to: &OwnedFd, number: &str) -> rustix::io::Result<()> {
    match renameat(from, name, to, number) {
        Err(Errno::ACCESS) => {
            open_up(from, name)?;
            renameat(from, name, to, number)
        }
        other => other,
    }
}

/// Readable and writable for us, whatever its owner has made of it.
fn open_dir(at: impl AsFd, name: &CStr) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match openat(&at, name, flags, Mode::empty()) {
        Ok(dir)
            if accessat(&dir, ".", Access::WRITE_OK | Access::EXEC_OK, AtFlags::empty())
                .is_ok() =>
        {
            Ok(dir)
        }
        Ok(_) | Err(Errno::ACCESS) => {
            open_up(&at, name)?;
            openat(&at, name, flags, Mode::empty())
        }
        Err(errno) => Err(errno),
    }
}

/// By way of a descriptor, which a symbolic link in its place cannot lead astray.
pub(crate) fn open_up(at: impl AsFd, name: &CStr) -> rustix::io::Result<()> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let dir = openat(at, name, flags, Mode::empty())?;
    chmod(format!("/proc/self/fd/{}", dir.as_raw_fd()), Mode::RWXU)
}

/// Some of the names in a directory; none only if there are none.
fn names(dir: &OwnedFd) -> rustix::io::Result<Vec<CString>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(dir)? {
        let name = entry?.file_name().to_owned();
        if name.as_c_str() != c"." && name.as_c_str() != c".." {
            names.push(name);
        }
        if names.len() == NAMES_MAX {
            break;
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Deeper than a stack is large and than descriptors are many.
    const DEPTH: usize = 30_000;

    fn deep_tree(at: &Path) {
        let mut dir = open_dir(CWD, &sys::c_path(at).unwrap()).unwrap();
        for _ in 0..DEPTH {
            rustix::fs::mkdirat(&dir, "d", Mode::RWXU).unwrap();
            dir = open_dir(&dir, c"d").unwrap();
        }
        rustix::fs::mkdirat(&dir, "closed", Mode::empty()).unwrap();
    }

    #[test]
    fn a_tree_of_any_depth_is_deleted() {
        let scratch = tempfile::tempdir().unwrap();
        let tree = scratch.path().join("tree");
        fs::create_dir(&tree).unwrap();
        deep_tree(&tree);
        delete(&tree).unwrap();
        assert!(!tree.exists());
    }

    #[test]
    fn what_was_taken_is_gone_at_once_and_deleted_in_time() {
        let scratch = tempfile::tempdir().unwrap();
        let trash = Trash::open(scratch.path().join("trash")).unwrap();
        let closed = scratch.path().join("closed");
        fs::create_dir_all(closed.join("a/b")).unwrap();
        fs::write(closed.join("a/file"), "x").unwrap();
        for dir in ["a/b", "a", ""] {
            fs::set_permissions(closed.join(dir), fs::Permissions::from_mode(0o000)).unwrap();
        }
        trash.take(&closed).unwrap();
        assert!(!closed.exists());
        trash.settle().unwrap();
        assert_eq!(fs::read_dir(scratch.path().join("trash")).unwrap().count(), 0);
        trash.take(&closed).unwrap();
    }

    #[test]
    fn links_are_deleted_and_not_followed() {
        let scratch = tempfile::tempdir().unwrap();
        let (tree, kept) = (scratch.path().join("tree"), scratch.path().join("kept"));
        fs::create_dir(&tree).unwrap();
        fs::create_dir(&kept).unwrap();
        fs::write(kept.join("file"), "x").unwrap();
        std::os::unix::fs::symlink(&kept, tree.join("link")).unwrap();
        delete(&tree).unwrap();
        assert!(kept.join("file").exists());
    }
}
