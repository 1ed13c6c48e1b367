//! From a tar stream into a workspace.

use super::{
    Limits, Links,
    header::BLOCK_BYTES,
    stream::{Entries, Entry, Kind},
};
use crate::files::{
    FileError, Until, Workspace, fault, names,
    path::open_strictly,
    write::{FILE_MODE, write_all},
};
use rustix::{
    fd::OwnedFd,
    fs::{
        AtFlags, FileType, Mode, OFlags, Timespec, Timestamps, UTIME_OMIT, fchmod, futimens,
        linkat, mkdirat, statat, symlinkat, unlinkat, utimensat,
    },
    io::Errno,
};
use std::{ffi::OsStr, io::Read, os::unix::ffi::OsStrExt as _, path::Path};

/// Of headers and their extensions, for each entry, beside the content.
const OVERHEAD_BYTES_MAX: u64 = 8 * BLOCK_BYTES as u64;
/// The most usual size.
const DISK_BLOCK_BYTES: u64 = 4_096;
/// Skipped entries that an answer names.
const SKIPPED_NAMES_MAX: usize = 20;
/// Of directories that wait for their mode and time.
const WAITING_BYTES_MAX: usize = 16 << 20;
const MODE_BITS: u32 = 0o777;
const DIR_MODE: u16 = 0o755;

/// What came of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Extracted {
    pub(crate) entries: u64,
    pub(crate) bytes: u64,
    pub(crate) skipped: u64,
    /// The first of them, each with the reason.
    pub(crate) skipped_names: Vec<String>,
}

/// Makes `path` and puts there what `from` has: tar, tar.gz or tar.zst. Blocks.
pub(crate) fn extract(
    workspace: &Workspace,
    path: &str,
    from: impl Read,
    limits: Limits,
    until: &Until,
) -> Result<Extracted, FileError> {
    let place = workspace.place(path)?;
    let top = {
        let _slot = workspace.as_slot();
        workspace.make_dirs(place).map_err(|errno| fault(path, errno))?
    };
    let overhead = limits.entries_max.saturating_mul(OVERHEAD_BYTES_MAX);
    let stream_bytes_max = limits.bytes_max.saturating_add(overhead).saturating_add(4 << 20);
    let mut entries = Entries::new(from, stream_bytes_max, until)?;
    let mut extraction = Extraction {
        workspace,
        top,
        limits,
        done: Extracted::default(),
        disk_bytes: 0,
        waiting: Vec::new(),
        waiting_bytes: 0,
    };
    let result = extraction.all(&mut entries);
    // Also when it did not come to its end: what is there shall be usable.
    extraction.finish_dirs();
    result.map(|()| extraction.done)
}

struct Extraction<'a> {
    workspace: &'a Workspace,
    top: OwnedFd,
    limits: Limits,
    done: Extracted,
    /// About what it takes by now.
    disk_bytes: u64,
    /// Directories get their mode and time when all is in them.
    waiting: Vec<(Vec<u8>, Mode, u64)>,
    waiting_bytes: usize,
}

impl Extraction<'_> {
    fn all(&mut self, entries: &mut Entries<'_>) -> Result<(), FileError> {
        let mut seen = 0;
        while let Some(entry) = entries.next()? {
            seen += 1;
            if seen > self.limits.entries_max {
                let max = self.limits.entries_max;
                return Err(FileError::OverLimit {
                    what: "Archive too large",
                    max,
                    unit: "entries",
                });
            }
            let path = checked(&entry.path)?;
            self.take_disk(&entry)?;
            self.one(entries, &entry, &path)?;
        }
        Ok(())
    }

    /// Before it is written: a file takes whole blocks, and each name has an inode.
    fn take_disk(&mut self, entry: &Entry) -> Result<(), FileError> {
        let content = if matches!(entry.kind, Kind::File) { entry.size } else { 0 };
        let blocks = content.div_ceil(DISK_BLOCK_BYTES).saturating_add(1);
        self.disk_bytes = self.disk_bytes.saturating_add(blocks.saturating_mul(DISK_BLOCK_BYTES));
        match self.limits.disk_bytes_max {
            Some(max) if self.disk_bytes > max => Err(FileError::OverLimit {
                what: "Archive too large for the slot's disk",
                max,
                unit: "bytes",
            }),
            _ => Ok(()),
        }
    }

    fn one(
        &mut self,
        entries: &mut Entries<'_>,
        entry: &Entry,
        path: &[u8],
    ) -> Result<(), FileError> {
        let shown = names::shown(path);
        let Some((above, name)) = split(path) else {
            // The directory that is extracted into: it is there, and is left as it is.
            return Ok(());
        };
        let failed = |errno| said(&shown, errno);
        match entry.kind {
            Kind::Other => {
                self.skip(&shown, "neither a file, a directory nor a link");
                return Ok(());
            }
            Kind::Symlink if self.leads_out(above, &entry.link) => {
                self.skip(&shown, "a link that leads out");
                return Ok(());
            }
            Kind::Symlink => self.symlink(above, name, entry).map_err(failed)?,
            Kind::HardLink => self.hard_link(above, name, entry, &shown)?,
            Kind::Directory => self.directory(path, above, name, entry).map_err(failed)?,
            Kind::File => self.file(entries, above, name, entry, &shown)?,
        }
        self.done.entries += 1;
        Ok(())
    }

    fn skip(&mut self, shown: &str, why: &str) {
        self.done.skipped += 1;
        if self.done.skipped_names.len() < SKIPPED_NAMES_MAX {
            self.done.skipped_names.push(format!("{}: {why}", crate::files::short(shown)));
        }
    }

    /// By its text, as nothing else of it is ever looked at.
    fn leads_out(&self, above: &[u8], target: &[u8]) -> bool {
        if self.limits.links == Links::AsTheyAre {
            return false;
        }
        let mut depth = parts(above).count();
        for part in parts(target) {
            match part {
                b".." if depth == 0 => return true,
                b".." => depth -= 1,
                _ => depth += 1,
            }
        }
        target.is_empty() || target.starts_with(b"/")
    }

    /// Where an entry comes, made if need be.
    fn above(&self, above: &[u8]) -> rustix::io::Result<OwnedFd> {
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let whole = if above.is_empty() { b"." } else { above };
        match open_strictly(&self.top, os(whole), flags, Mode::empty()) {
            Err(Errno::NOENT) => {}
            other => return other,
        }
        let mut dir = open_strictly(&self.top, ".", flags, Mode::empty())?;
        for part in parts(above) {
            match mkdirat(&dir, os(part), Mode::from_raw_mode(DIR_MODE.into())) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(errno) => return Err(errno),
            }
            dir = open_strictly(&dir, os(part), flags, Mode::empty())?;
        }
        Ok(dir)
    }

    fn symlink(&self, above: &[u8], name: &[u8], entry: &Entry) -> rustix::io::Result<()> {
        let _slot = self.workspace.as_slot();
        let dir = self.above(above)?;
        make_room(&dir, name)?;
        symlinkat(os(&entry.link), &dir, os(name))?;
        utimensat(&dir, os(name), &times(entry.mtime), AtFlags::SYMLINK_NOFOLLOW)
    }

    /// To what the same directory holds already.
    fn hard_link(
        &self,
        above: &[u8],
        name: &[u8],
        entry: &Entry,
        shown: &str,
    ) -> Result<(), FileError> {
        let target = checked(&entry.link)?;
        let no_file = || FileError::Invalid(format!("{shown}: a hard link to what is no file"));
        let (target_above, target_name) = split(&target).ok_or_else(no_file)?;
        let failed = |errno| said(shown, errno);
        let _slot = self.workspace.as_slot();
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let from = if target_above.is_empty() { b"." } else { target_above };
        let from = open_strictly(&self.top, os(from), flags, Mode::empty()).map_err(failed)?;
        let stat = statat(&from, os(target_name), AtFlags::SYMLINK_NOFOLLOW).map_err(failed)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(no_file());
        }
        let dir = self.above(above).map_err(failed)?;
        if let Ok(there) = statat(&dir, os(name), AtFlags::SYMLINK_NOFOLLOW)
            && (there.st_dev, there.st_ino) == (stat.st_dev, stat.st_ino)
        {
            return Ok(());
        }
        make_room(&dir, name).map_err(failed)?;
        linkat(&from, os(target_name), &dir, os(name), AtFlags::empty()).map_err(failed)
    }

    fn directory(
        &mut self,
        path: &[u8],
        above: &[u8],
        name: &[u8],
        entry: &Entry,
    ) -> rustix::io::Result<()> {
        let _slot = self.workspace.as_slot();
        let dir = self.above(above)?;
        match mkdirat(&dir, os(name), Mode::from_raw_mode(DIR_MODE.into())) {
            Ok(()) => {}
            Err(Errno::EXIST) => {
                open_strictly(&dir, os(name), OFlags::PATH | OFlags::DIRECTORY, Mode::empty())?;
            }
            Err(errno) => return Err(errno),
        }
        if self.waiting_bytes + path.len() <= WAITING_BYTES_MAX {
            self.waiting_bytes += path.len() + size_of::<(Vec<u8>, Mode, u64)>();
            let mode = Mode::from_raw_mode(entry.mode & MODE_BITS);
            self.waiting.push((path.to_vec(), mode, entry.mtime));
        }
        Ok(())
    }

    fn file(
        &mut self,
        entries: &mut Entries<'_>,
        above: &[u8],
        name: &[u8],
        entry: &Entry,
        shown: &str,
    ) -> Result<(), FileError> {
        let failed = |errno| said(shown, errno);
        let bytes = self.done.bytes.saturating_add(entry.size);
        if bytes > self.limits.bytes_max {
            let max = self.limits.bytes_max;
            return Err(FileError::OverLimit { what: "Archive too large", max, unit: "bytes" });
        }
        self.workspace.check_file_bytes(entry.size)?;
        let file = {
            let _slot = self.workspace.as_slot();
            let dir = self.above(above).map_err(failed)?;
            make_room(&dir, name).map_err(failed)?;
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
            let mode = Mode::from_raw_mode(FILE_MODE.into());
            open_strictly(&dir, os(name), flags, mode).map_err(failed)?
        };
        loop {
            match entries.content()? {
                [] => break,
                piece => write_all(&file, piece).map_err(failed)?,
            }
        }
        self.done.bytes = bytes;
        let _slot = self.workspace.as_slot();
        fchmod(&file, Mode::from_raw_mode(entry.mode & MODE_BITS)).map_err(failed)?;
        futimens(&file, &times(entry.mtime)).map_err(failed)
    }

    /// The innermost first: a directory may be shut by its mode.
    fn finish_dirs(&mut self) {
        let _slot = self.workspace.as_slot();
        let mut waiting = std::mem::take(&mut self.waiting);
        waiting.sort_by(|a, b| b.0.cmp(&a.0));
        for (path, mode, mtime) in waiting {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
            // What is not there any more, or not the slot's, keeps nothing else.
            if let Ok(dir) = open_strictly(&self.top, os(&path), flags, Mode::empty()) {
                let _ = futimens(&dir, &times(mtime));
                let _ = fchmod(&dir, mode);
            }
        }
    }
}

/// Frees a name: nothing is ever written through what is there.
fn make_room(dir: &OwnedFd, name: &[u8]) -> rustix::io::Result<()> {
    match unlinkat(dir, os(name), AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(errno),
    }
}

fn times(mtime: u64) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: i64::try_from(mtime).unwrap_or(0), tv_nsec: 0 },
    }
}

/// Without `.` and superfluous slashes; or why it is not taken.
fn checked(path: &[u8]) -> Result<Vec<u8>, FileError> {
    let refuse = |why| {
        let shown = crate::files::short(&names::shown(path));
        Err(FileError::Invalid(format!("the archive has the name `{shown}`, which {why}")))
    };
    if path.starts_with(b"/") {
        return refuse("is absolute");
    }
    if path.contains(&0) {
        return refuse("has a NUL byte");
    }
    if parts(path).any(|it| it == b"..") {
        return refuse("leads upwards");
    }
    let parts: Vec<_> = parts(path).collect();
    Ok(parts.join(&b'/'))
}

fn parts(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.split(|byte| *byte == b'/').filter(|it| !it.is_empty() && *it != b".")
}

fn split(path: &[u8]) -> Option<(&[u8], &[u8])> {
    match memchr::memrchr(b'/', path) {
        _ if path.is_empty() => None,
        Some(at) => Some((&path[..at], &path[at + 1..])),
        None => Some((b"", path)),
    }
}

fn os(name: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(name))
}

fn said(shown: &str, errno: Errno) -> FileError {
    match errno {
        Errno::LOOP => FileError::Invalid(format!("{shown} leads through a link")),
        Errno::NOTDIR => FileError::NotADirectory(crate::files::short(shown)),
        errno => fault(shown, errno),
    }
}
