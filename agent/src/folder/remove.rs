//! Removing a tree that a container's root could write to.
//!
//! Invariant: no link is followed, and neither stack nor descriptors grow with its depth: what lies
//! deep is first moved to the top.

use super::{open_dir, shown};
use rustix::{
    fs::{AtFlags, Dir, FileType, Mode, OFlags, openat, renameat, statat, unlinkat},
    io::Errno,
};
use std::{
    ffi::{CStr, CString},
    hash::{BuildHasher, Hasher, RandomState},
    io,
    os::fd::OwnedFd,
    path::Path,
};

const DEPTH_MAX: u32 = 32;

/// Passes over the top: each takes away what was moved there by the one before.
const PASSES_MAX: u32 = 100_000;

#[derive(Debug, thiserror::Error)]
pub(crate) enum RemoveError {
    #[error("open `{path}`")]
    Open { path: String, source: io::Error },
    #[error("remove `{path}`")]
    Remove { path: String, source: io::Error },
    #[error("there is no end of directories in directories")]
    Endless,
}

/// Blocks. What is not there is removed already.
pub(crate) fn remove(path: &Path) -> Result<(), RemoveError> {
    let failed = |source| RemoveError::Open { path: path.display().to_string(), source };
    let top = match open_dir(path) {
        Ok(top) => top,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
    };
    // So that a name that is there already is not met.
    let token = RandomState::new().build_hasher().finish();
    let mut removal = Removal { top: &top, moved: 0, token };
    for _ in 0..PASSES_MAX {
        let before = removal.moved;
        removal.empty(&top, 0)?;
        if removal.moved == before {
            return match std::fs::remove_dir(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(error)),
                _ => Ok(()),
            };
        }
    }
    Err(RemoveError::Endless)
}

struct Removal<'a> {
    top: &'a OwnedFd,
    moved: u64,
    token: u64,
}

impl Removal<'_> {
    fn empty(&mut self, dir: &OwnedFd, depth: u32) -> Result<(), RemoveError> {
        let entries = Dir::read_from(dir).map_err(failed(c"."))?;
        for entry in entries {
            let entry = entry.map_err(failed(c"."))?;
            let name = entry.file_name();
            if [c".", c".."].contains(&name) {
                continue;
            }
            let kind = match entry.file_type() {
                FileType::Unknown => {
                    let found = statat(dir, name, AtFlags::SYMLINK_NOFOLLOW);
                    FileType::from_raw_mode(found.map_err(failed(name))?.st_mode)
                }
                known => known,
            };
            if kind != FileType::Directory {
                there(unlinkat(dir, name, AtFlags::empty())).map_err(failed(name))?;
            } else if depth >= DEPTH_MAX {
                self.moved += 1;
                let aside = format!(".removed-{:016x}-{}", self.token, self.moved);
                let aside = CString::new(aside).unwrap_or_default();
                renameat(dir, name, self.top, aside.as_c_str()).map_err(failed(name))?;
            } else {
                let flags = OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::RDONLY | OFlags::NOFOLLOW;
                let inner = openat(dir, name, flags, Mode::empty()).map_err(failed(name))?;
                self.empty(&inner, depth + 1)?;
                drop(inner);
                match unlinkat(dir, name, AtFlags::REMOVEDIR) {
                    // What was moved to the top while it was read.
                    Err(Errno::NOTEMPTY) if depth == 0 => self.moved += 1,
                    other => there(other).map_err(failed(name))?,
                }
            }
        }
        Ok(())
    }
}

fn there(removed: Result<(), Errno>) -> Result<(), Errno> {
    match removed {
        Err(Errno::NOENT) => Ok(()),
        other => other,
    }
}

fn failed(name: &CStr) -> impl FnOnce(Errno) -> RemoveError {
    let path = shown(name);
    move |error| RemoveError::Remove { path, source: error.into() }
}
