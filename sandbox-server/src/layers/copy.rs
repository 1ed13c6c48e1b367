//! Copies of whole trees, where they cannot be shared.
//!
//! The tree was made by a slot and nobody changes it now; the copy is seen by nobody yet.
//! Directories, files, links of both kinds and FIFOs are copied, with their modes and times.
//! Sockets, which lead nowhere without their process, and devices are left out. Two descriptors and
//! no recursion do for a tree of any depth.

mod file;

use crate::{isolate::Identity, trash::open_up};
use file::copy_content;
use rustix::{
    fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    fs::{
        Access, AtFlags, Dir, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid,
        accessat, chmod, chownat, fchmod, fchown, fstat, futimens, linkat, mkdirat, mknodat,
        openat, readlinkat, statat, symlinkat, unlinkat, utimensat,
    },
    io::Errno,
};
use std::{
    collections::HashSet,
    ffi::{CStr, CString},
    io,
};
use tokio_util::sync::CancellationToken;

const DIR_FLAGS: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
const FILE_FLAGS: OFlags = OFlags::RDONLY
    .union(OFlags::NOFOLLOW)
    .union(OFlags::NONBLOCK)
    .union(OFlags::NOCTTY)
    .union(OFlags::CLOEXEC);
const BITS: u32 = 0o7777;

/// Whose a copy is.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Owner {
    /// Of who makes it.
    Us,
    Always(Identity),
    /// Of whose the original is.
    Same,
}

impl Owner {
    /// Whom a copy has to be given to.
    fn of(self, stat: &Stat) -> Option<(Uid, Gid)> {
        match self {
            Self::Us => None,
            Self::Always(Identity { uid, .. }) => Some((Uid::from_raw(uid), Gid::from_raw(uid))),
            Self::Same => Some((Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid))),
        }
    }
}

/// Copies all that is in `from` into the empty directory `to`.
pub(crate) fn tree(
    from: BorrowedFd<'_>,
    to: BorrowedFd<'_>,
    owner: Owner,
    stop: &CancellationToken,
) -> io::Result<()> {
    let links = Links::make(from, to)?;
    let mut copier = Copier { owner, stop, links, reflinks: true };
    let done = copier.tree(from, to);
    let removed = copier.links.remove();
    done.and(removed)
}

struct Copier<'a> {
    owner: Owner,
    stop: &'a CancellationToken,
    links: Links,
    /// Until one was refused.
    reflinks: bool,
}

/// What is still to do in a directory, once one below it is done.
struct Level {
    inner: Vec<CString>,
    as_it_was: AsItWas,
}

/// A directory before we came.
struct AsItWas {
    stat: Stat,
    /// Its mode was changed so that we can read it.
    opened_up: bool,
}

impl Copier<'_> {
    fn tree(&mut self, from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> io::Result<()> {
        let (from, as_it_was) = open_dir(from, c".")?;
        let mut here = (from, openat(to, c".", DIR_FLAGS, Mode::empty())?);
        let mut above = Vec::new();
        let mut level = self.level(&here, as_it_was)?;
        loop {
            if let Some(name) = level.inner.pop() {
                mkdirat(&here.1, &name, Mode::RWXU)?;
                let (from, as_it_was) = open_dir(&here.0, &name)?;
                let to = openat(&here.1, &name, DIR_FLAGS, Mode::empty())?;
                here = (from, to);
                let inner = self.level(&here, as_it_was)?;
                above.push(std::mem::replace(&mut level, inner));
                continue;
            }
            let Some(next) = above.pop() else { return self.finish(&here, &level) };
            // Nobody moves anything meanwhile: this leads to where we came from. It is asked for
            // while we still may.
            let back = (
                openat(&here.0, c"..", DIR_FLAGS, Mode::empty())?,
                openat(&here.1, c"..", DIR_FLAGS, Mode::empty())?,
            );
            self.finish(&here, &level)?;
            here = back;
            level = next;
        }
    }

    /// Copies what is in a directory, but for the directories in it, which are left to be done.
    fn level(&mut self, (from, to): &(OwnedFd, OwnedFd), as_it_was: AsItWas) -> io::Result<Level> {
        let mut inner = Vec::new();
        for entry in Dir::read_from(from)? {
            let entry = entry?;
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            self.check()?;
            let stat = statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
            match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory => inner.push(name.to_owned()),
                FileType::RegularFile => self.file(from, to, name, &stat)?,
                FileType::Symlink => {
                    let target = readlinkat(from, name, Vec::new())?;
                    symlinkat(&target, to, name)?;
                    self.finish_named(to, name, &stat)?;
                }
                FileType::Fifo => {
                    let mode = Mode::from_raw_mode(stat.st_mode & BITS);
                    mknodat(to, name, FileType::Fifo, mode, 0)?;
                    self.finish_named(to, name, &stat)?;
                }
                _ => {}
            }
        }
        Ok(Level { inner, as_it_was })
    }

    fn check(&self) -> io::Result<()> {
        if self.stop.is_cancelled() {
            return Err(io::Error::other("it was stopped"));
        }
        Ok(())
    }

    fn file(&mut self, from: &OwnedFd, to: &OwnedFd, name: &CStr, stat: &Stat) -> io::Result<()> {
        if stat.st_nlink > 1 && self.links.again(stat, to, name)? {
            return Ok(());
        }
        let source = open_file(from, name)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let target = openat(to, name, flags, Mode::RUSR | Mode::WUSR)?;
        copy_content(&source, &target, &mut self.reflinks, self.stop)?;
        if let Some((uid, gid)) = self.owner.of(stat) {
            fchown(&target, Some(uid), Some(gid))?;
        }
        fchmod(&target, Mode::from_raw_mode(stat.st_mode & BITS))?;
        futimens(&target, &times(stat))?;
        if stat.st_nlink > 1 {
            self.links.first(stat, to, name)?;
        }
        Ok(())
    }

    /// Of a link or a FIFO.
    fn finish_named(&self, to: &OwnedFd, name: &CStr, stat: &Stat) -> io::Result<()> {
        if let Some((uid, gid)) = self.owner.of(stat) {
            chownat(to, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
        }
        utimensat(to, name, &times(stat), AtFlags::SYMLINK_NOFOLLOW)?;
        Ok(())
    }

    /// A directory gets its mode last: it might keep us out.
    fn finish(&self, (from, to): &(OwnedFd, OwnedFd), level: &Level) -> io::Result<()> {
        let AsItWas { stat, opened_up } = &level.as_it_was;
        if let Some((uid, gid)) = self.owner.of(stat) {
            fchown(to, Some(uid), Some(gid))?;
        }
        futimens(to, &times(stat))?;
        let mode = Mode::from_raw_mode(stat.st_mode & BITS);
        fchmod(to, mode)?;
        if *opened_up {
            fchmod(from, mode)?;
        }
        Ok(())
    }
}

/// Files of several names: each has one more in a directory of ours while we copy.
struct Links {
    dir: OwnedFd,
    parent: OwnedFd,
    name: CString,
    known: HashSet<(u64, u64)>,
}

impl Links {
    fn make(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> io::Result<Self> {
        let name = (0..=u32::MAX)
            .map(|number| CString::new(format!(".links-{number}")))
            .find(|name| {
                name.as_ref().is_ok_and(|name| {
                    matches!(statat(from, name, AtFlags::SYMLINK_NOFOLLOW), Err(Errno::NOENT))
                })
            })
            .ok_or_else(|| io::Error::other("no name is free"))??;
        mkdirat(to, &name, Mode::RWXU)?;
        let dir = openat(to, &name, DIR_FLAGS, Mode::empty())?;
        let parent = openat(to, c".", DIR_FLAGS, Mode::empty())?;
        Ok(Self { dir, parent, name, known: HashSet::new() })
    }

    fn first(&mut self, stat: &Stat, to: &OwnedFd, name: &CStr) -> io::Result<()> {
        linkat(to, name, &self.dir, kept_name(stat)?, AtFlags::empty())?;
        self.known.insert(ids(stat));
        Ok(())
    }

    /// `false`: it has to be copied.
    fn again(&mut self, stat: &Stat, to: &OwnedFd, name: &CStr) -> io::Result<bool> {
        if !self.known.contains(&ids(stat)) {
            return Ok(false);
        }
        let kept = kept_name(stat)?;
        match linkat(&self.dir, &kept, to, name, AtFlags::empty()) {
            Ok(()) => Ok(true),
            // One name less may be possible for the copy than for the original: ours.
            Err(Errno::MLINK) => {
                unlinkat(&self.dir, &kept, AtFlags::empty())?;
                self.known.remove(&ids(stat));
                Ok(false)
            }
            Err(errno) => Err(errno.into()),
        }
    }

    fn remove(&self) -> io::Result<()> {
        for (dev, ino) in &self.known {
            unlinkat(&self.dir, format!("{dev}-{ino}"), AtFlags::empty())?;
        }
        // The time of the directory that it is in was set already.
        let stat = fstat(&self.parent)?;
        unlinkat(&self.parent, &self.name, AtFlags::REMOVEDIR)?;
        futimens(&self.parent, &times(&stat))?;
        Ok(())
    }
}

fn ids(stat: &Stat) -> (u64, u64) {
    (stat.st_dev, stat.st_ino)
}

fn kept_name(stat: &Stat) -> io::Result<CString> {
    let (dev, ino) = ids(stat);
    CString::new(format!("{dev}-{ino}")).map_err(io::Error::other)
}

/// A nanosecond count is below a thousand million, whatever its type on this machine.
fn times(stat: &Stat) -> Timestamps {
    let time = |seconds, nanoseconds| Timespec { tv_sec: seconds, tv_nsec: nanoseconds };
    Timestamps {
        last_access: time(stat.st_atime, stat.st_atime_nsec.cast_signed()),
        last_modification: time(stat.st_mtime, stat.st_mtime_nsec.cast_signed()),
    }
}

/// Root is not asked; others have to open up what its owner has shut.
fn open_dir(at: impl AsFd, name: &CStr) -> io::Result<(OwnedFd, AsItWas)> {
    let stat = statat(&at, name, AtFlags::SYMLINK_NOFOLLOW)?;
    let reach = |dir: &OwnedFd| {
        accessat(dir, ".", Access::READ_OK | Access::EXEC_OK, AtFlags::EACCESS).is_ok()
    };
    match openat(&at, name, DIR_FLAGS, Mode::empty()) {
        Ok(dir) if reach(&dir) => Ok((dir, AsItWas { stat, opened_up: false })),
        Ok(_) | Err(Errno::ACCESS) => {
            open_up(&at, name)?;
            let dir = openat(&at, name, DIR_FLAGS, Mode::empty())?;
            Ok((dir, AsItWas { stat, opened_up: true }))
        }
        Err(errno) => Err(errno.into()),
    }
}

fn open_file(at: &OwnedFd, name: &CStr) -> io::Result<OwnedFd> {
    match openat(at, name, FILE_FLAGS, Mode::empty()) {
        // Its owner may not read it, but may say that it may.
        Err(Errno::ACCESS) => {
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let file = openat(at, name, flags, Mode::empty())?;
            let path = format!("/proc/self/fd/{}", file.as_raw_fd());
            let mode = Mode::from_raw_mode(fstat(&file)?.st_mode & BITS);
            chmod(&path, mode | Mode::RUSR)?;
            let opened = openat(at, name, FILE_FLAGS, Mode::empty());
            chmod(&path, mode)?;
            Ok(opened?)
        }
        other => Ok(other?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::CWD;
    use std::{
        fs,
        os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _, symlink},
        path::Path,
    };

    fn copy(from: &Path, to: &Path) -> io::Result<()> {
        fs::create_dir(to).unwrap();
        let open = |path: &Path| rustix::fs::open(path, DIR_FLAGS, Mode::empty()).unwrap();
        let from = rustix::fs::open(from, OFlags::PATH, Mode::empty()).unwrap();
        tree(from.as_fd(), open(to).as_fd(), Owner::Us, &CancellationToken::new())
    }

    #[test]
    fn a_copy_is_like_the_original() {
        let home = tempfile::tempdir().unwrap();
        let (from, to) = (home.path().join("from"), home.path().join("to"));
        fs::create_dir_all(from.join("a/b/c")).unwrap();
        fs::write(from.join("a/b/file"), "text").unwrap();
        fs::set_permissions(from.join("a/b/file"), fs::Permissions::from_mode(0o741)).unwrap();
        fs::write(from.join(".links-0"), "a name like ours").unwrap();
        fs::hard_link(from.join("a/b/file"), from.join("a/other")).unwrap();
        fs::hard_link(from.join("a/b/file"), from.join("third")).unwrap();
        symlink("../nowhere", from.join("a/link")).unwrap();
        mknodat(CWD, from.join("fifo"), FileType::Fifo, Mode::RWXU, 0).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(from.join("socket")).unwrap();
        fs::set_permissions(from.join("a/b"), fs::Permissions::from_mode(0o2555)).unwrap();
        copy(&from, &to).unwrap();
        assert_eq!(fs::read(to.join("a/b/file")).unwrap(), b"text");
        assert_eq!(fs::read(to.join(".links-0")).unwrap(), b"a name like ours");
        assert_eq!(fs::read_link(to.join("a/link")).unwrap(), Path::new("../nowhere"));
        let of = |path: &str| fs::symlink_metadata(to.join(path)).unwrap();
        assert_eq!(of("a/b/file").ino(), of("third").ino());
        assert_eq!((of("a/other").ino(), of("third").nlink()), (of("third").ino(), 3));
        assert!(!to.join("socket").exists());
        for path in ["a", "a/b", "a/b/c", "a/b/file", "a/link", "fifo", "."] {
            let before = fs::symlink_metadata(from.join(path)).unwrap();
            let after = of(path);
            assert_eq!(before.mode(), after.mode(), "{path}");
            assert_eq!(
                (before.mtime(), before.mtime_nsec()),
                (after.mtime(), after.mtime_nsec()),
                "{path}"
            );
        }
        let mut names: Vec<_> =
            fs::read_dir(&to).unwrap().map(|it| it.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, [".links-0", "a", "fifo", "third"]);
    }

    #[test]
    fn a_hole_stays_one() {
        let home = tempfile::tempdir().unwrap();
        let (from, to) = (home.path().join("from"), home.path().join("to"));
        fs::create_dir(&from).unwrap();
        let file = fs::File::create(from.join("sparse")).unwrap();
        file.write_all_at(b"middle", 64 << 20).unwrap();
        file.set_len(1 << 30).unwrap();
        copy(&from, &to).unwrap();
        let copied = fs::File::open(to.join("sparse")).unwrap();
        let stat = copied.metadata().unwrap();
        assert_eq!(stat.len(), 1 << 30);
        assert!(stat.blocks() * 512 < 1 << 20, "{}", stat.blocks());
        let mut text = [0; 8];
        copied.read_exact_at(&mut text, (64 << 20) - 1).unwrap();
        assert_eq!(&text, b"\0middle\0");
    }

    #[test]
    fn a_tree_deeper_than_descriptors_are_many_is_copied() {
        const DEPTH: usize = 3_000;
        let home = tempfile::tempdir().unwrap();
        let (from, to) = (home.path().join("from"), home.path().join("to"));
        fs::create_dir(&from).unwrap();
        let mut dir = rustix::fs::open(&from, DIR_FLAGS, Mode::empty()).unwrap();
        for _ in 0..DEPTH {
            mkdirat(&dir, "d", Mode::RWXU).unwrap();
            dir = openat(&dir, "d", DIR_FLAGS, Mode::empty()).unwrap();
        }
        mkdirat(&dir, "end", Mode::RWXU).unwrap();
        copy(&from, &to).unwrap();
        let mut dir = rustix::fs::open(&to, DIR_FLAGS, Mode::empty()).unwrap();
        for _ in 0..DEPTH {
            dir = openat(&dir, "d", DIR_FLAGS, Mode::empty()).unwrap();
        }
        assert!(statat(&dir, "end", AtFlags::empty()).is_ok());
        // Deeper than those who clean up after tests can go.
        crate::trash::delete(&from).unwrap();
        crate::trash::delete(&to).unwrap();
    }

    #[test]
    fn what_is_stopped_says_so() {
        let home = tempfile::tempdir().unwrap();
        fs::create_dir(home.path().join("to")).unwrap();
        fs::create_dir_all(home.path().join("from/a")).unwrap();
        let stop = CancellationToken::new();
        stop.cancel();
        let open = |name: &str| rustix::fs::open(home.path().join(name), DIR_FLAGS, Mode::empty());
        let done =
            tree(open("from").unwrap().as_fd(), open("to").unwrap().as_fd(), Owner::Us, &stop);
        assert!(done.is_err());
    }
}
