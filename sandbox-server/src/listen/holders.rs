//! Which processes hold a socket, and whether each of them is outside of all slots.
//!
//! For slots that share the server's user. Behind walls a process shows where it is by what the
//! kernel lets nobody take off again: a slot's processes carry the server's seccomp filters and
//! those of the slot besides. Without walls there is only descent, which a command can hide.
//!
//! Invariant: a socket counts as held outside only when a holder was seen, and none of those that
//! were seen is in a slot.

use rustix::{
    fd::{AsFd as _, BorrowedFd, OwnedFd},
    fs::{CWD, Dir, Mode, OFlags, openat, readlinkat_raw},
    io::Errno,
};
use std::{
    collections::HashMap,
    fs,
    io::{self, Read as _},
    mem::MaybeUninit,
};

/// How a slot's processes are told from others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mark {
    /// By more seccomp filters than this process has.
    Filters(u64),
    /// By having come from this process.
    Descent(i32),
}

/// Who holds a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Held {
    ByNobodySeen,
    Outside,
    /// At least one of its holders is in a slot, or is this process.
    Inside,
}

impl Mark {
    pub(super) fn of_walls() -> io::Result<Self> {
        let status = fs::read_to_string("/proc/self/status")?;
        filters(&status).map(Self::Filters).ok_or_else(|| io::ErrorKind::Unsupported.into())
    }

    pub(super) fn of_descent() -> Self {
        Self::Descent(rustix::process::getpid().as_raw_nonzero().get())
    }

    fn is_outside(self, process: &Process) -> bool {
        let own = rustix::process::getpid().as_raw_nonzero().get();
        match self {
            _ if process.pid == own => false,
            // Of whom nothing is known is not known to be outside.
            Self::Filters(ours) => {
                process.status().and_then(|it| filters(&it)).is_some_and(|theirs| theirs <= ours)
            }
            Self::Descent(server) => !descends(process.pid, server),
        }
    }
}

/// Looks at the descriptors of every process that this one may look into.
pub(super) fn of(inodes: &[u64], mark: Mark) -> io::Result<HashMap<u64, Held>> {
    let mut held: HashMap<_, _> = inodes.iter().map(|it| (*it, Held::ByNobodySeen)).collect();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|it| it.parse().ok()) else { continue };
        // Gone, or somebody else's: none that we could vouch for.
        let Ok(process) = Process::open(pid) else { continue };
        let Ok(sockets) = process.sockets_among(&held) else { continue };
        if sockets.is_empty() {
            continue;
        }
        let outside = mark.is_outside(&process);
        for inode in sockets {
            let known = held.entry(inode).or_insert(Held::ByNobodySeen);
            *known = match (*known, outside) {
                (Held::Inside, _) | (_, false) => Held::Inside,
                (_, true) => Held::Outside,
            };
        }
    }
    Ok(held)
}

/// By its directory in `/proc`, which never comes to mean another process.
struct Process {
    pid: i32,
    dir: OwnedFd,
}

impl Process {
    fn open(pid: i32) -> rustix::io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = openat(CWD, format!("/proc/{pid}"), flags, Mode::empty())?;
        Ok(Self { pid, dir })
    }

    fn sockets_among(&self, wanted: &HashMap<u64, Held>) -> rustix::io::Result<Vec<u64>> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = openat(&self.dir, "fd", flags, Mode::empty())?;
        let mut found = Vec::new();
        for entry in Dir::read_from(&dir)? {
            let entry = entry?;
            match socket(dir.as_fd(), entry.file_name()) {
                Some(inode) if wanted.contains_key(&inode) => found.push(inode),
                _ => {}
            }
        }
        Ok(found)
    }

    fn status(&self) -> Option<String> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let file = openat(&self.dir, "status", flags, Mode::empty()).ok()?;
        let mut text = String::new();
        fs::File::from(file).take(1 << 16).read_to_string(&mut text).ok()?;
        Some(text)
    }
}

/// `socket:[123]`
fn socket(dir: BorrowedFd<'_>, name: &std::ffi::CStr) -> Option<u64> {
    let mut buffer = [MaybeUninit::uninit(); 64];
    let target: Result<_, Errno> = readlinkat_raw(dir, name, &mut buffer);
    let (target, _) = target.ok()?;
    let number = target.strip_prefix(b"socket:[")?.strip_suffix(b"]")?;
    std::str::from_utf8(number).ok()?.parse().ok()
}

fn field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    // Before the fields comes the name of the program, in one line, with its own line breaks
    // written out.
    status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}

/// Where the kernel does not count them it at least says that there are none.
fn filters(status: &str) -> Option<u64> {
    match (field(status, "Seccomp_filters"), field(status, "Seccomp")) {
        (Some(count), _) => count.parse().ok(),
        (None, Some("0")) => Some(0),
        _ => None,
    }
}

/// Along its parents. One that is gone meanwhile has come from nobody knows where.
fn descends(pid: i32, ancestor: i32) -> bool {
    let mut pid = pid;
    // No process is as deep as that.
    for _ in 0..10_000 {
        let Ok(process) = Process::open(pid) else { return true };
        let parent = process.status().and_then(|it| field(&it, "PPid")?.parse().ok());
        match parent {
            Some(parent) if parent == ancestor => return true,
            Some(0) => return false,
            Some(parent) => pid = parent,
            None => return true,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        net::{TcpListener, TcpStream},
        os::{fd::AsRawFd as _, linux::fs::MetadataExt as _},
        process::{Command, Stdio},
    };

    fn inode(stream: &TcpStream) -> u64 {
        fs::metadata(format!("/proc/self/fd/{}", stream.as_raw_fd())).unwrap().st_ino()
    }

    #[test]
    fn filters_are_counted_and_an_unknown_count_is_none() {
        assert_eq!(filters("Name:\tx\nSeccomp:\t2\nSeccomp_filters:\t3\n"), Some(3));
        assert_eq!(filters("Name:\tx\nSeccomp:\t0\n"), Some(0));
        assert_eq!(filters("Name:\tx\nSeccomp:\t2\n"), None);
        assert_eq!(filters("Name:\tSeccomp_filters:\t0\nSeccomp:\t2\n"), None);
    }

    #[test]
    fn our_own_sockets_and_those_of_nobody_are_not_held_outside() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let own = inode(&TcpStream::connect(listener.local_addr().unwrap()).unwrap());
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        for mark in [Mark::of_walls().unwrap(), Mark::of_descent()] {
            let held = of(&[inode(&stream), own], mark).unwrap();
            assert_eq!(held[&inode(&stream)], Held::Inside, "{mark:?}");
            assert_eq!(held[&own], Held::ByNobodySeen, "it is closed: {mark:?}");
        }
    }

    #[test]
    fn a_child_of_ours_is_inside_by_descent_and_outside_by_filters() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let number = inode(&stream);
        // The child has it as its input, and we no longer.
        let mut child = Command::new("cat")
            .stdin(Stdio::from(std::os::fd::OwnedFd::from(stream)))
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let by_filters = of(&[number], Mark::of_walls().unwrap()).unwrap()[&number];
        let by_none = of(&[number], Mark::Filters(u64::MAX)).unwrap()[&number];
        let by_descent = of(&[number], Mark::of_descent()).unwrap()[&number];
        drop(listener);
        child.wait().unwrap();
        assert_eq!((by_filters, by_none), (Held::Outside, Held::Outside));
        assert_eq!(by_descent, Held::Inside);
    }
}
