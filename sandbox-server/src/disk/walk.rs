//! A walk over trees that change under it, made by whom they belong to, as awkward as can be.
//!
//! One directory is open at a time: the way up is `..`, and what it leads to is compared with
//! where the walk came from, so that a directory that is moved meanwhile leads nowhere else. A
//! walk is done in steps, each as long as its caller allows. Its memory is bounded by a limit on
//! waiting directories; their number is bounded too by what each of them takes.
//!
//! A file of many names is counted in parts, one for each name: all of its names lie within what
//! is walked, since no slot can make one elsewhere.

use crate::clock::now;
use rustix::{
    fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    fs::{
        AtFlags, Dir, FileType, Mode, OFlags, RawMode, Stat, chmod, fchmod, fstat, openat, statat,
    },
    io::Errno,
};
use std::{
    collections::VecDeque,
    ffi::{CStr, CString},
    time::Duration,
};

/// Each file costs this much at least: an empty one is not free.
const INODE_BYTES: u64 = 512;
const BLOCK_BYTES: u64 = 512;
/// Directories that are known and not yet looked into. More of them are more than is measured.
const WAITING_MAX: usize = 1 << 18;
/// How often the clock is looked at.
const ENTRIES_PER_LOOK: u32 = 32;

/// What a walk has found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Walked {
    /// `u64::MAX`: more than can be measured.
    pub(crate) bytes: u64,
    /// Nothing was passed over.
    pub(crate) whole: bool,
}

#[derive(Debug)]
pub(crate) struct Walk {
    roots: VecDeque<OwnedFd>,
    /// The directory that is stood in, the last of `levels`.
    here: Option<Dir>,
    listing: bool,
    levels: Vec<Level>,
    waiting: usize,
    walked: Walked,
}

#[derive(Debug)]
struct Level {
    /// In the level above.
    name: CString,
    id: (u64, u64),
    below: Vec<CString>,
    /// To be given back: it was closed to its owner, and was opened for the walk.
    mode: Option<Mode>,
}

impl Walk {
    /// Roots that cannot be opened (any more) are passed over.
    pub(crate) fn new(roots: &[OwnedFd]) -> Self {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let opened: VecDeque<_> =
            roots.iter().flat_map(|it| openat(it, c".", flags, Mode::empty())).collect();
        let whole = opened.len() == roots.len();
        Self {
            roots: opened,
            here: None,
            listing: false,
            levels: Vec::new(),
            waiting: 0,
            walked: Walked { bytes: 0, whole },
        }
    }

    /// Goes on for about `budget`; the result when it has come to the end.
    pub(crate) fn step(&mut self, budget: Duration) -> Option<Walked> {
        let until = now() + budget;
        loop {
            for _ in 0..ENTRIES_PER_LOOK {
                if !self.advance() {
                    return Some(self.walked);
                }
            }
            if now() >= until {
                return None;
            }
        }
    }

    /// To the end, or as far as `budget` goes.
    pub(crate) fn finish_within(mut self, budget: Duration) -> Walked {
        self.step(budget).unwrap_or(Walked { whole: false, ..self.walked })
    }

    /// `false`: there is nothing left to do.
    fn advance(&mut self) -> bool {
        let Some(here) = &mut self.here else { return self.enter_root() };
        if self.listing {
            match here.read() {
                Some(Ok(entry)) => self.count(entry.file_name()),
                Some(Err(_)) => self.pass_over(true),
                None => self.listing = false,
            }
            return true;
        }
        match self.levels.last_mut().and_then(|level| level.below.pop()) {
            Some(name) => {
                self.waiting -= 1;
                self.descend(name);
            }
            None => self.ascend(),
        }
        true
    }

    fn enter_root(&mut self) -> bool {
        let Some(root) = self.roots.front() else { return false };
        match Opened::at(root.as_fd(), c".") {
            Ok(opened) => self.enter(c".".to_owned(), opened),
            Err(errno) => {
                self.pass_over(is_fault(errno));
                self.roots.pop_front();
            }
        }
        true
    }

    fn enter(&mut self, name: CString, opened: Opened) {
        let Ok(dir) = Dir::new(opened.fd) else { return self.pass_over(true) };
        let (id, mode) = (id(&opened.stat), opened.mode);
        self.levels.push(Level { name, id, below: Vec::new(), mode });
        self.here = Some(dir);
        self.listing = true;
    }

    fn count(&mut self, name: &CStr) {
        if name == c".." {
            return;
        }
        let stat = match self.stat(name) {
            Ok(stat) => stat,
            Err(errno) => return self.pass_over(is_fault(errno)),
        };
        let blocks = u64::try_from(stat.st_blocks).unwrap_or(0);
        let bytes = blocks.saturating_mul(BLOCK_BYTES).max(INODE_BYTES);
        if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
            let names = u64::from(u32::try_from(stat.st_nlink).unwrap_or(u32::MAX)).max(1);
            self.add(bytes / names);
        } else if name == c"." {
            self.add(bytes);
        } else if self.waiting == WAITING_MAX {
            self.walked.bytes = u64::MAX;
        } else if let Some(level) = self.levels.last_mut() {
            level.below.push(name.to_owned());
            self.waiting += 1;
        }
    }

    fn stat(&mut self, name: &CStr) -> rustix::io::Result<Stat> {
        let Some(here) = &self.here else { return Err(Errno::BADF) };
        let fd = here.fd()?;
        match statat(fd, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::ACCESS) => {}
            other => return other,
        }
        // It can be listed and not looked into.
        let before = mode(&fstat(fd)?);
        fchmod(fd, before | Mode::RWXU)?;
        if let Some(level) = self.levels.last_mut() {
            level.mode.get_or_insert(before);
        }
        statat(fd, name, AtFlags::SYMLINK_NOFOLLOW)
    }

    fn descend(&mut self, name: CString) {
        let Some(here) = &self.here else { return };
        let opened = here.fd().and_then(|fd| Opened::at(fd, &name));
        match opened {
            // Another file system is not the slot's disk.
            Ok(opened) if self.levels.last().is_some_and(|it| it.id.0 == id(&opened.stat).0) => {
                self.enter(name, opened);
            }
            Ok(opened) => opened.close_again(),
            Err(errno) => self.pass_over(is_fault(errno)),
        }
    }

    fn ascend(&mut self) {
        let (Some(level), Some(here)) = (self.levels.pop(), self.here.take()) else { return };
        let Ok(fd) = here.fd() else { return self.find_way_back() };
        if let Some(mode) = level.mode {
            // Its owner may have thought better of it, or be gone with it.
            let _ = fchmod(fd, mode);
        }
        let Some(above) = self.levels.last() else {
            self.roots.pop_front();
            return;
        };
        match open_dir(fd, c"..").and_then(|fd| Ok((fstat(&fd)?, fd))) {
            Ok((stat, fd)) if id(&stat) == above.id => self.here = Dir::new(fd).ok(),
            _ => {}
        }
        if self.here.is_none() {
            self.find_way_back();
        }
    }

    /// The directory was moved meanwhile: down again from the root, as far as all is as it was.
    fn find_way_back(&mut self) {
        let found = self.roots.front().map(|root| {
            let mut deepest = open_dir(root.as_fd(), c".")?;
            let mut depth = 1;
            for level in self.levels.iter().skip(1) {
                let next = open_dir(deepest.as_fd(), &level.name);
                let same = next.and_then(|fd| Ok((id(&fstat(&fd)?) == level.id, fd)));
                let Ok((true, fd)) = same else { break };
                deepest = fd;
                depth += 1;
            }
            Ok::<_, Errno>((depth, Dir::new(deepest)?))
        });
        let (depth, here) = match found {
            Some(Ok((depth, dir))) => (depth, Some(dir)),
            _ => (0, None),
        };
        for lost in self.levels.drain(depth.min(self.levels.len())..) {
            self.waiting -= lost.below.len();
            self.walked.whole = false;
        }
        self.here = here;
        if self.here.is_none() {
            self.roots.pop_front();
        }
    }

    fn add(&mut self, bytes: u64) {
        self.walked.bytes = self.walked.bytes.saturating_add(bytes);
    }

    fn pass_over(&mut self, is_fault: bool) {
        self.walked.whole &= !is_fault;
    }
}

struct Opened {
    fd: OwnedFd,
    stat: Stat,
    mode: Option<Mode>,
}

impl Opened {
    /// By way of a descriptor, which a symbolic link in its place cannot lead astray. What its
    /// owner has closed is opened for as long as it takes: it could be filled behind closed doors.
    fn at(at: BorrowedFd<'_>, name: &CStr) -> rustix::io::Result<Self> {
        match open_dir(at, name) {
            Ok(fd) => return Ok(Self { stat: fstat(&fd)?, fd, mode: None }),
            Err(Errno::ACCESS) => {}
            Err(errno) => return Err(errno),
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let path = openat(at, name, flags, Mode::empty())?;
        let before = mode(&fstat(&path)?);
        chmod(format!("/proc/self/fd/{}", path.as_raw_fd()), before | Mode::RWXU)?;
        let fd = open_dir(path.as_fd(), c".")?;
        Ok(Self { stat: fstat(&fd)?, fd, mode: Some(before) })
    }

    fn close_again(self) {
        if let Some(mode) = self.mode {
            // Gone meanwhile is no harm.
            let _ = fchmod(&self.fd, mode);
        }
    }
}

fn open_dir(at: BorrowedFd<'_>, name: &CStr) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(at, name, flags, Mode::empty())
}

fn id(stat: &Stat) -> (u64, u64) {
    (stat.st_dev, stat.st_ino)
}

fn mode(stat: &Stat) -> Mode {
    Mode::from_raw_mode(stat.st_mode as RawMode & 0o7777)
}

/// Gone, or something else by now, is how trees are that are in use.
fn is_fault(errno: Errno) -> bool {
    !matches!(errno, Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::STALE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::open_tree;
    use std::{
        fs::{self, File},
        os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _},
        path::Path,
    };

    const LONG: Duration = Duration::from_mins(1);

    fn walked(root: &Path) -> Walked {
        Walk::new(&[open_tree(root).unwrap()]).finish_within(LONG)
    }

    fn taken(path: &Path) -> u64 {
        (fs::symlink_metadata(path).unwrap().blocks() * 512).max(INODE_BYTES)
    }

    fn filled(path: &Path, bytes: usize) {
        let file = File::create(path).unwrap();
        file.write_all_at(&vec![b'x'; bytes], 0).unwrap();
        // What is not on the disk yet has no blocks everywhere.
        file.sync_all().unwrap();
    }

    #[test]
    fn blocks_count_and_not_lengths() {
        let dir = tempfile::tempdir().unwrap();
        File::create(dir.path().join("sparse")).unwrap().set_len(1 << 40).unwrap();
        filled(&dir.path().join("full"), 1 << 20);
        let all = taken(dir.path()) + INODE_BYTES + taken(&dir.path().join("full"));
        let result = walked(dir.path());
        assert_eq!(result, Walked { bytes: all, whole: true });
        assert!(result.bytes >= 1 << 20);
    }

    #[test]
    fn a_file_of_many_names_counts_once() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("d")).unwrap();
        filled(&dir.path().join("one"), 3 << 20);
        let before = walked(dir.path()).bytes;
        for name in ["two", "d/three"] {
            fs::hard_link(dir.path().join("one"), dir.path().join(name)).unwrap();
        }
        let after = walked(dir.path()).bytes;
        assert!(after.abs_diff(before) <= 3, "{before} {after}");
    }

    #[test]
    fn links_lead_nowhere() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("in")).unwrap();
        filled(&dir.path().join("out"), 1 << 20);
        std::os::unix::fs::symlink("../out", dir.path().join("in/link")).unwrap();
        std::os::unix::fs::symlink("..", dir.path().join("in/up")).unwrap();
        assert!(walked(&dir.path().join("in")).bytes < 1 << 20);
    }

    #[test]
    fn what_is_deeper_than_stacks_and_descriptors_is_walked() {
        let dir = tempfile::tempdir().unwrap();
        let mut fd = open_tree(dir.path()).unwrap();
        for _ in 0..3_000 {
            rustix::fs::mkdirat(&fd, "d", Mode::RWXU).unwrap();
            fd = open_dir(fd.as_fd(), c"d").unwrap();
        }
        let flags = OFlags::CREATE | OFlags::WRONLY;
        let file = File::from(openat(&fd, "f", flags, Mode::RWXU).unwrap());
        file.write_all_at(&vec![b'x'; 1 << 20], 0).unwrap();
        file.sync_all().unwrap();
        let result = walked(dir.path());
        crate::trash::delete(dir.path()).unwrap();
        assert!(result.whole && result.bytes >= 1 << 20, "{result:?}");
    }

    #[test]
    fn what_is_closed_is_looked_into_and_closed_again() {
        let dir = tempfile::tempdir().unwrap();
        let closed = dir.path().join("closed");
        let unsearchable = closed.join("unsearchable");
        fs::create_dir_all(&unsearchable).unwrap();
        filled(&unsearchable.join("f"), 1 << 20);
        // Root is kept out by nothing; the rest of this test is for others.
        for (path, mode) in [(&unsearchable, 0o400), (&closed, 0o000)] {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        }
        let result = walked(dir.path());
        assert!(result.whole && result.bytes >= 1 << 20, "{result:?}");
        let mode = fs::metadata(&closed).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0);
        fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).unwrap();
        let mode = fs::metadata(&unsearchable).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o400);
        fs::set_permissions(&unsearchable, fs::Permissions::from_mode(0o700)).unwrap();
    }

    #[test]
    fn a_directory_that_is_moved_under_the_walk_leads_nowhere_else() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        fs::create_dir_all(root.join("a/b")).unwrap();
        fs::create_dir_all(dir.path().join("outside/big")).unwrap();
        filled(&dir.path().join("outside/big/f"), 4 << 20);
        filled(&root.join("a/b/f"), 1 << 20);
        filled(&root.join("z"), 1 << 20);
        let mut walk = Walk::new(&[open_tree(&root).unwrap()]);
        while walk.levels.len() < 3 {
            assert!(walk.advance());
        }
        // It stands in `b`, whose parent is another one now.
        fs::rename(root.join("a/b"), dir.path().join("outside/b")).unwrap();
        let result = walk.finish_within(LONG);
        assert!((2 << 20..4 << 20).contains(&result.bytes), "{result:?}");
    }

    #[test]
    fn a_walk_goes_on_where_it_stopped() {
        let dir = tempfile::tempdir().unwrap();
        for number in 0..500 {
            fs::create_dir_all(dir.path().join(format!("{number}/x"))).unwrap();
        }
        let all = walked(dir.path());
        let mut walk = Walk::new(&[open_tree(dir.path()).unwrap()]);
        let mut steps = 1;
        let result = loop {
            if let Some(result) = walk.step(Duration::ZERO) {
                break result;
            }
            steps += 1;
        };
        assert_eq!(result, all);
        assert!(steps > 10, "{steps}");
    }
}
