//! What the container's image is put together from, where slots get it as an overlay for each of
//! its directories.
//!
//! A directory with a mount in it cannot lie below an overlay of a user namespace: the kernel would
//! have to show what the mount covers. So its own entries are copied, once, as it is itself; what is
//! in it and has no mount becomes a part, or where that is small a copy too.
//!
//! Invariant: neither what is mounted in the container nor the server's own directory is in it.

mod mounts;

use super::{Layer, copy};
use crate::isolate::{Assembly, root::image::PRIVATE};
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, Timespec, Timestamps, mknodat, utimensat};
use std::{
    ffi::OsStr,
    fs::{self, Metadata},
    io,
    os::{
        fd::AsFd as _,
        unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _, lchown, symlink},
    },
    path::{Path, PathBuf},
};
use tokio_util::sync::CancellationToken;

/// Each is a mount of every slot.
const PARTS_MAX: usize = 64;
/// All of their names: what a slot is told at its birth is limited.
const NAMES_BYTES_MAX: usize = 16 << 10;
/// Of what has to be copied.
const COPIED_BYTES_MAX: u64 = 1 << 30;
const COPIED_FILES_MAX: u64 = 200_000;
/// A directory that has not more is copied rather than mounted.
const SMALL_BYTES: u64 = 4 << 20;
const SMALL_FILES: u64 = 1_000;
/// The slot's own; what the image has there is not seen.
const WORKSPACE: &str = "/workspace";

#[derive(Debug, thiserror::Error)]
#[error("{doing} `{}`", .path.display())]
pub(crate) struct PartsError {
    doing: &'static str,
    path: PathBuf,
    source: io::Error,
}

/// An image in parts, for as long as slots may be made of it.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) assembly: Assembly,
    _base: Layer,
}

impl Parts {
    /// Copies what has to be into `base`, which is empty. `hidden` is not to be seen.
    pub(crate) fn of_container(base: Layer, hidden: &[PathBuf]) -> Result<Self, PartsError> {
        let own = |doing| move |source| PartsError { doing, path: "/".into(), source };
        let mut left_out = mounts::below(Path::new("/")).map_err(own("find the mounts below"))?;
        left_out.extend(PRIVATE.iter().map(|name| Path::new("/").join(name)));
        left_out.push(WORKSPACE.into());
        let mut planner = Planner { left_out, hidden, parts: Vec::new(), bytes: 0, files: 0 };
        planner.copy_around(Path::new("/"), base.dir())?;
        let meta = fs::metadata("/").map_err(own("look at"))?;
        finish(base.dir(), &meta).map_err(own("copy the attributes of"))?;
        let assembly = Assembly { base: base.dir().to_owned(), parts: planner.parts };
        Ok(Self { assembly, _base: base })
    }
}

struct Planner<'a> {
    /// What of these is a directory is there, and empty.
    left_out: Vec<PathBuf>,
    hidden: &'a [PathBuf],
    parts: Vec<PathBuf>,
    bytes: u64,
    files: u64,
}

impl Planner<'_> {
    /// Copies what is in a directory that something below has to be left out of. As deep as mounts
    /// lie.
    fn copy_around(&mut self, dir: &Path, to: &Path) -> Result<(), PartsError> {
        let fault = |doing: &'static str, path: &Path| {
            let path = path.to_owned();
            move |source| PartsError { doing, path, source }
        };
        for entry in fs::read_dir(dir).map_err(fault("read", dir))? {
            let entry = entry.map_err(fault("read", dir))?;
            let (path, copy) = (entry.path(), to.join(entry.file_name()));
            if self.hidden.contains(&path) {
                continue;
            }
            let meta = fs::symlink_metadata(&path).map_err(fault("look at", &path))?;
            if !meta.is_dir() {
                if !self.left_out.contains(&path) {
                    self.copy_file(&path, &copy, &meta).map_err(fault("copy", &path))?;
                }
                continue;
            }
            fs::create_dir(&copy).map_err(fault("copy the directory", &path))?;
            if self.left_out.contains(&path) {
                // Of a mount this is what is mounted, not where: no more is shown than a directory.
                continue;
            }
            if self.is_around(&path) {
                self.copy_around(&path, &copy)?;
            } else if let Some((bytes, files)) = size_if_small(&path) {
                self.take(bytes, files).map_err(fault("copy", &path))?;
                copy_tree(&path, &copy).map_err(fault("copy", &path))?;
            } else {
                self.add_part(&path).map_err(fault("lay an overlay over", &path))?;
            }
            finish(&copy, &meta).map_err(fault("copy the attributes of", &path))?;
        }
        Ok(())
    }

    fn is_around(&self, dir: &Path) -> bool {
        self.left_out.iter().chain(self.hidden).any(|it| it.starts_with(dir))
    }

    fn add_part(&mut self, path: &Path) -> io::Result<()> {
        let bytes: usize = self.parts.iter().map(|it| it.as_os_str().len()).sum();
        if path.to_str().is_none() {
            return Err(io::Error::other("its name is not UTF-8"));
        }
        if self.parts.len() == PARTS_MAX || bytes + path.as_os_str().len() > NAMES_BYTES_MAX {
            return Err(io::Error::other(format!(
                "the image has too many directories beside mounts: more than {PARTS_MAX}"
            )));
        }
        self.parts.push(path.to_owned());
        Ok(())
    }

    fn take(&mut self, bytes: u64, files: u64) -> io::Result<()> {
        self.bytes = self.bytes.saturating_add(bytes);
        self.files = self.files.saturating_add(files);
        if self.bytes > COPIED_BYTES_MAX || self.files > COPIED_FILES_MAX {
            return Err(io::Error::other(
                "too much lies beside mounts: what cannot be laid below an overlay is copied, \
                 1 GiB at most; move it into a directory of its own",
            ));
        }
        Ok(())
    }

    fn copy_file(&mut self, from: &Path, to: &Path, meta: &Metadata) -> io::Result<()> {
        let kind = meta.file_type();
        if kind.is_symlink() {
            symlink(fs::read_link(from)?, to)?;
        } else if kind.is_fifo() {
            mknodat(CWD, to, FileType::Fifo, Mode::RWXU, 0)?;
        } else if kind.is_file() {
            self.take(meta.len(), 1)?;
            fs::copy(from, to)?;
        } else {
            // A socket of somebody who is elsewhere, or a device.
            return Ok(());
        }
        finish(to, meta)
    }
}

/// Owner, then mode, which a change of owner would cut, then times.
fn finish(copy: &Path, meta: &Metadata) -> io::Result<()> {
    lchown(copy, Some(meta.uid()), Some(meta.gid()))?;
    if !meta.is_symlink() {
        fs::set_permissions(copy, fs::Permissions::from_mode(meta.mode() & 0o7777))?;
    }
    let time = |tv_sec, tv_nsec| Timespec { tv_sec, tv_nsec };
    let times = Timestamps {
        last_access: time(meta.atime(), meta.atime_nsec()),
        last_modification: time(meta.mtime(), meta.mtime_nsec()),
    };
    Ok(utimensat(CWD, copy, &times, AtFlags::SYMLINK_NOFOLLOW)?)
}

fn copy_tree(from: &Path, to: &Path) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let open = |path: &Path| rustix::fs::open(path, flags, Mode::empty());
    let (from, to) = (open(from)?, open(to)?);
    copy::tree(from.as_fd(), to.as_fd(), copy::Owner::Same, &CancellationToken::new())
}

/// Bytes and files of a directory that is worth no mount. Of a name that cannot be told to a slot
/// it is looked at as a whole.
fn size_if_small(dir: &Path) -> Option<(u64, u64)> {
    let (bytes_max, files_max) = match dir.file_name().and_then(OsStr::to_str) {
        Some(_) => (SMALL_BYTES, SMALL_FILES),
        None => (COPIED_BYTES_MAX, COPIED_FILES_MAX),
    };
    let (mut bytes, mut files) = (0_u64, 0_u64);
    let mut waiting = vec![dir.to_owned()];
    while let Some(dir) = waiting.pop() {
        for entry in fs::read_dir(dir).ok()? {
            let entry = entry.ok()?;
            let meta = entry.metadata().ok()?;
            files += 1;
            bytes = bytes.saturating_add(if meta.is_file() { meta.len() } else { 0 });
            if bytes > bytes_max || files > files_max {
                return None;
            }
            if meta.is_dir() {
                waiting.push(entry.path());
            }
        }
    }
    Some((bytes, files))
}

#[cfg(test)]
mod tests;
