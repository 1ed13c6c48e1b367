//! Where a path leads, decided in this one place and by the kernel.
//!
//! Invariant: nothing is opened but below the workspace (or in the slot's own root, where the
//! server has it), whatever `..`, links and races are on the way.

use super::{FileError, Workspace, fault};
use rustix::{
    fd::{AsFd, OwnedFd},
    fs::{Mode, OFlags, ResolveFlags, mkdirat, openat2},
    io::Errno,
};
use std::{
    ffi::OsStr,
    os::unix::ffi::OsStrExt as _,
    path::{Component, Path, PathBuf},
};

/// `openat2` asks to be repeated when the tree was changed under it.
const RACES_MAX: usize = 64;
const DIR_MODE: u16 = 0o755;
/// The workspace's name inside.
const INSIDE: &str = "/workspace";

/// A path, understood: where it begins, and the way from there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place<'a> {
    base: Base,
    pub(super) path: &'a Path,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Base {
    Workspace,
    /// The slot's view of the whole image.
    Root,
}

impl<'a> Place<'a> {
    /// The directory that it is in, and its name there. `None`: it has no name of its own, such
    /// as the workspace.
    pub(super) fn split(self) -> Option<(Self, &'a OsStr)> {
        let bytes = self.path.as_os_str().as_bytes();
        let end = bytes.iter().rposition(|byte| *byte != b'/')? + 1;
        let at = bytes[..end].iter().rposition(|byte| *byte == b'/').map_or(0, |at| at + 1);
        let (above, name) = (&bytes[..at], &bytes[at..end]);
        if matches!(name, b"." | b"..") {
            return None;
        }
        let above =
            if above.is_empty() { Path::new(".") } else { Path::new(OsStr::from_bytes(above)) };
        Some((Self { base: self.base, path: above }, OsStr::from_bytes(name)))
    }

    /// As it is put before the names of what lies below: ends in `/`, unless it is empty.
    pub(super) fn prefix(self) -> Vec<u8> {
        let bytes = self.path.as_os_str().as_bytes();
        let mut prefix = Vec::new();
        if self.base == Base::Root {
            prefix.push(b'/');
        }
        let parts = self.path.components().filter(|it| *it != Component::CurDir);
        if bytes.is_empty() {
            return prefix;
        }
        for part in parts {
            prefix.extend_from_slice(part.as_os_str().as_bytes());
            prefix.push(b'/');
        }
        prefix
    }
}

impl Workspace {
    pub(super) fn place<'a>(&self, path: &'a str) -> Result<Place<'a>, FileError> {
        if path.contains('\0') {
            return Err(FileError::Outside);
        }
        let (base, path) = match path.strip_prefix(INSIDE) {
            Some("") => (Base::Workspace, "."),
            Some(rest) if rest.starts_with('/') => match rest.trim_start_matches('/') {
                "" => (Base::Workspace, "."),
                rest => (Base::Workspace, rest),
            },
            _ if path.starts_with('/') => match path.trim_start_matches('/') {
                _ if self.root.is_none() => return Err(FileError::Outside),
                "" => (Base::Root, "."),
                rest => (Base::Root, rest),
            },
            _ => (Base::Workspace, path),
        };
        if path.is_empty() {
            return Err(FileError::NotFound(String::new()));
        }
        Ok(Place { base, path: Path::new(path) })
    }

    /// Links are followed as far as they stay where they may.
    pub(super) fn open_at(
        &self,
        place: Place<'_>,
        flags: OFlags,
        mode: Mode,
    ) -> rustix::io::Result<OwnedFd> {
        match (place.base, &self.root) {
            (Base::Root, Some(root)) => {
                let file = open(root, place.path, flags, mode, ResolveFlags::IN_ROOT)?;
                if is_kernels(&file)? { Err(Errno::XDEV) } else { Ok(file) }
            }
            (Base::Root, None) => Err(Errno::XDEV),
            (Base::Workspace, _) => open(&self.dir, place.path, flags, mode, ResolveFlags::BENEATH),
        }
    }

    /// Only to go on from there.
    pub(super) fn open_dir(&self, place: Place<'_>) -> rustix::io::Result<OwnedFd> {
        self.open_at(place, OFlags::PATH | OFlags::DIRECTORY, Mode::empty())
    }

    /// Where a name is to be made, changed or removed.
    pub(super) fn open_above<'a>(
        &self,
        path: &str,
        place: Place<'a>,
    ) -> Result<(OwnedFd, &'a OsStr), FileError> {
        let (above, name) = place.split().ok_or_else(|| nameless(path))?;
        let dir = self.open_dir(above).map_err(|errno| fault(path, errno))?;
        Ok((dir, name))
    }

    /// Makes `place` and all above it; what is there already stays.
    pub(super) fn make_dirs(&self, place: Place<'_>) -> rustix::io::Result<OwnedFd> {
        let from = Place { base: place.base, path: Path::new(".") };
        let mut dir = self.open_dir(from)?;
        // For links and `..`, which only the kernel can follow, and only from the beginning.
        let mut so_far = PathBuf::new();
        for part in place.path.components() {
            so_far.push(part);
            let again = Place { base: place.base, path: &so_far };
            if !matches!(part, Component::Normal(_)) {
                dir = self.open_dir(again)?;
                continue;
            }
            match mkdirat(&dir, part.as_os_str(), Mode::from_raw_mode(DIR_MODE.into())) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(errno) => return Err(errno),
            }
            let flags = OFlags::PATH | OFlags::DIRECTORY;
            dir = match open_strictly(&dir, part.as_os_str(), flags, Mode::empty()) {
                Err(Errno::LOOP) => self.open_dir(again)?,
                other => other?,
            };
        }
        Ok(dir)
    }

    pub(super) fn make_parents(&self, place: Place<'_>) -> rustix::io::Result<()> {
        match place.split() {
            Some((above, _)) => self.make_dirs(above).map(drop),
            None => Ok(()),
        }
    }
}

pub(super) fn nameless(path: &str) -> FileError {
    FileError::Invalid(format!("Not a name of its own: {}", super::short(path)))
}

/// Whether it is none of anybody's files, but the kernel's own. Some of these ask who the process
/// is and not whose files it works with: they would give a slot what is the server's.
pub(super) fn is_kernels(file: &OwnedFd) -> rustix::io::Result<bool> {
    let kind = rustix::fs::fstatfs(file)?.f_type;
    Ok(KERNELS.iter().any(|it| i128::from(*it) == i128::from(kind)))
}

/// proc, sysfs, cgroup, cgroup2, devpts, debugfs, tracefs, securityfs, bpf, mqueue, selinuxfs,
/// efivarfs, `binfmt_misc`, configfs, pstore, nsfs.
const KERNELS: [u32; 16] = [
    0x9fa0,
    0x6265_6572,
    0x27_e0eb,
    0x6367_7270,
    0x1cd1,
    0x6462_6720,
    0x7472_6163,
    0x7363_6673,
    0xcafe_4a11,
    0x1980_0202,
    0xf97c_ff8c,
    0xde5e_81e4,
    0x4249_4e4d,
    0x6265_6570,
    0x6165_676c,
    0x6e73_6673,
];

/// Below `dir`, and through no link at all.
pub(super) fn open_strictly(
    dir: impl AsFd,
    path: impl AsRef<Path>,
    flags: OFlags,
    mode: Mode,
) -> rustix::io::Result<OwnedFd> {
    open(&dir, path.as_ref(), flags, mode, ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS)
}

fn open(
    dir: impl AsFd,
    path: &Path,
    flags: OFlags,
    mode: Mode,
    resolve: ResolveFlags,
) -> rustix::io::Result<OwnedFd> {
    let (flags, resolve) = (flags | OFlags::CLOEXEC, resolve | ResolveFlags::NO_MAGICLINKS);
    let mut result = Err(Errno::AGAIN);
    for _ in 0..RACES_MAX {
        result = openat2(dir.as_fd(), path, flags, mode, resolve);
        if !matches!(result, Err(Errno::AGAIN | Errno::INTR)) {
            break;
        }
    }
    result
}
